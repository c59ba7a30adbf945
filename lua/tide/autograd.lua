-- Gradients as functions: grad, vjp, jvp, hvp, checkpoint, operations with a derivative of one's own, and the checker.

local core = require "tide.core"
local options = require "tide.options"
local unwritten = require "tide.unwritten"

local M = {}
local methods = core.methods

local function raise(...) core.raise(string.format(...)) end

local function is_tensor(x) return type(x) == "userdata" and getmetatable(x) == core.metatable end

local function want_function(fname, f)
  if type(f) ~= "function" and not (getmetatable(f) or {}).__call then
    raise("%s: got a %s, expected a function", fname, is_tensor(f) and "tensor" or type(f))
  end
end

-- with_recording(on, f, …): results of f when called with recording on or off, whatever it raises.
local with_recording = core.with_recording

--- no_grad(f, …): f(…) without recording; its results carry no gradient.
function M.no_grad(f, ...)
  want_function("no_grad", f)
  return with_recording(false, f, ...)
end

--- enable_grad(f, …): f(…) with recording, also inside no_grad.
function M.enable_grad(f, ...)
  want_function("enable_grad", f)
  return with_recording(true, f, ...)
end

--- Is recording on?
function M.is_grad_enabled() return core.recording() end

--- t:backward(cotangent, {retain_graph = false, create_graph = false}): adds gradients to the leaves' .grad. t needs
--- one element, or a cotangent of its shape. With create_graph a leaf's .grad holds the graph, which holds the
--- leaf: set it to nil when it has been used, or ask tide.gradients instead.
function methods.backward(t, cotangent, opts)
  if type(cotangent) == "table" then cotangent, opts = nil, cotangent end
  local o = options.check("backward", opts, {retain_graph = false, create_graph = false})
  core.backward(t, cotangent, nil, o.create_graph, o.retain_graph)
end

local function listed(x) return is_tensor(x) and {x} or x end

--- Gradients of outputs with respect to inputs (each a tensor or a table of tensors), as a table. Options: cotangents
--- (needed for outputs of more than one element), create_graph, retain_graph, unused = "nil" (an input on which the
--- outputs do not depend gives false) or "zeros".
function M.gradients(outputs, inputs, opts)
  local o = options.check("gradients", opts,
    {cotangents = options.none, create_graph = false, retain_graph = false, unused = "nil"})
  local xs = listed(inputs)
  local grads = core.backward(listed(outputs), o.cotangents and listed(o.cotangents), xs, o.create_graph,
    o.retain_graph)
  if o.unused == "zeros" then
    for i, x in ipairs(xs) do grads[i] = grads[i] or core.zeros(x.shape, x.dtype) end
  elseif o.unused ~= "nil" then
    raise("gradients: unused is %q, expected \"nil\" or \"zeros\"", tostring(o.unused))
  end
  return grads
end

-- The arguments with the tensors named by `wrt` (positions; all real tensors by default) replaced by fresh points of
-- the tape, and those points. Points keep their own history when create_graph, so that derivatives nest.
local function lifted(fname, args, n, wrt)
  local points, copy = {}, {}
  local chosen = wrt and {} or nil
  for _, i in ipairs(wrt or {}) do chosen[i] = true end
  for i = 1, n do
    local x = args[i]
    if is_tensor(x) and (x.dtype == "float32" or x.dtype == "float64") and (not chosen or chosen[i]) then
      local point = x.needs_grad and core.contiguous(x) or x:detach():requires_grad()
      copy[i] = point
      points[#points + 1] = point
    elseif chosen and chosen[i] then
      raise("%s: argument %d is no real tensor", fname, i)
    else
      copy[i] = x
    end
  end
  if #points == 0 then raise("%s: no argument is a real tensor", fname) end
  return copy, points
end

local function scalar_of(fname, y)
  if not is_tensor(y) or y.numel ~= 1 then
    raise("%s: the function gave %s, expected a tensor of one element", fname,
      is_tensor(y) and "shape (" .. table.concat(y.shape, "×") .. ")" or "a " .. type(y))
  end
  return y
end

-- Value and gradients of f at args; nested use keeps the graph.
local function differentiate(fname, f, wrt, args, n)
  local outer = core.recording()
  local copy, points, y, grads
  with_recording(true, function()
    copy, points = lifted(fname, args, n, wrt)
    y = scalar_of(fname, f(unpack(copy, 1, n)))
    grads = y.needs_grad and core.backward({y}, nil, points, outer, outer) or {}
  end)
  for i, x in ipairs(points) do grads[i] = grads[i] or core.zeros(x.shape, x.dtype) end
  return y, grads
end

--- value_and_grad(f, {wrt = {…}}) gives a function that returns f(…) and the gradient for each tensor argument
--- (or for those at the positions wrt). f returns a tensor of one element.
function M.value_and_grad(f, opts)
  want_function("value_and_grad", f)
  local o = options.check("value_and_grad", opts, {wrt = options.none})
  return function(...)
    local y, grads = differentiate("value_and_grad", f, o.wrt, {...}, select("#", ...))
    return y:detach(), unpack(grads)
  end
end

--- grad(f, {wrt = {…}}) gives a function that returns f's gradient for each tensor argument. Nests: grad(grad(f)).
function M.grad(f, opts)
  want_function("grad", f)
  local o = options.check("grad", opts, {wrt = options.none})
  return function(...)
    local _, grads = differentiate("grad", f, o.wrt, {...}, select("#", ...))
    return unpack(grads)
  end
end

--- vjp(f, …) → f(…) and a function that takes a cotangent of its shape and returns one for each tensor argument.
function M.vjp(f, ...)
  want_function("vjp", f)
  local n = select("#", ...)
  local copy, points, y
  local args = {...}
  with_recording(true, function()
    copy, points = lifted("vjp", args, n)
    y = f(unpack(copy, 1, n))
  end)
  if not is_tensor(y) then raise("vjp: the function gave a %s, expected a tensor", type(y)) end
  return y, function(cotangent)
    local grads = core.backward({y}, {cotangent}, points, core.recording(), true)
    for i, x in ipairs(points) do grads[i] = grads[i] or core.zeros(x.shape, x.dtype) end
    return unpack(grads)
  end
end

--- jvp(f, {primals}, {tangents}) → f(primals) and its directional derivative, exactly: the derivative of u ↦ Jᵀu.
function M.jvp(f, primals, tangents)
  want_function("jvp", f)
  primals, tangents = listed(primals), listed(tangents)
  local n = #primals
  if #tangents ~= n then raise("jvp: %d tangents for %d primals", #tangents, n) end
  return with_recording(true, function()
    local copy, points = lifted("jvp", primals, n)
    local y = f(unpack(copy, 1, n))
    if not is_tensor(y) then raise("jvp: the function gave a %s, expected a tensor", type(y)) end
    if not y.needs_grad then return y, core.zeros(y.shape, y.dtype) end
    local u = core.zeros(y.shape, y.dtype):requires_grad()
    local pulled = core.backward({y}, {u}, points, true, true)
    local outputs, cotangents = {}, {}
    for i = 1, n do
      if pulled[i] and pulled[i].needs_grad then
        outputs[#outputs + 1], cotangents[#cotangents + 1] = pulled[i], tangents[i]
      end
    end
    if #outputs == 0 then return y, core.zeros(y.shape, y.dtype) end
    local tangent = core.backward(outputs, cotangents, {u}, false, true)[1]
    return y, tangent or core.zeros(y.shape, y.dtype)
  end)
end

--- hvp(f, x, v) → f(x) and the product of f's Hessian at x with v.
function M.hvp(f, x, v)
  want_function("hvp", f)
  return with_recording(true, function()
    local point = x:detach():requires_grad()
    local y = scalar_of("hvp", f(point))
    local g = y.needs_grad and core.backward({y}, nil, {point}, true, true)[1]
    if not g or not g.needs_grad then return y:detach(), core.zeros(x.shape, x.dtype) end
    local h = core.backward({g}, {v}, {point}, false, true)[1]
    return y:detach(), h or core.zeros(x.shape, x.dtype)
  end)
end

--- checkpoint(f, …): f(…) that keeps only its arguments, and runs f again in the backward pass. Parameters that f
--- closes over get their gradients too. f must compute the same both times. One to four tensors may be returned.
function M.checkpoint(f, ...)
  want_function("checkpoint", f)
  if not core.recording() then return f(...) end
  local args, n = {...}, select("#", ...)
  local inputs, copy = {}, {}
  local since = core.now()
  for i = 1, n do
    copy[i] = args[i]
    if is_tensor(args[i]) and args[i].needs_grad then
      inputs[#inputs + 1] = args[i]
      copy[i] = args[i]:detach():requires_grad()
    end
  end
  local outputs = {f(unpack(copy, 1, n))}
  local own = #inputs
  for _, x in ipairs(core.externals(outputs, since)) do inputs[#inputs + 1] = x end
  local check_unwritten = unwritten(inputs)
  for i, y in ipairs(outputs) do outputs[i] = y:detach() end
  if #inputs == 0 then return unpack(outputs) end
  return core.custom(outputs, inputs, function(...)
    check_unwritten("checkpoint", "the function uses")
    local cotangents, points = {...}, {}
    local again, k = {}, 0
    local create = core.recording()
    return with_recording(true, function()
      for i = 1, n do
        again[i] = args[i]
        if is_tensor(args[i]) and args[i].needs_grad then
          k = k + 1
          again[i] = create and core.contiguous(args[i]) or args[i]:detach():requires_grad()
          points[k] = again[i]
        end
      end
      for i = own + 1, #inputs do points[i] = inputs[i] end
      local ys, cs = {}, {}
      for i, y in ipairs {f(unpack(again, 1, n))} do
        if cotangents[i] then ys[#ys + 1], cs[#cs + 1] = y, cotangents[i] end
      end
      local grads = core.backward(ys, cs, points, create, create, true)
      for i = 1, #points do grads[i] = grads[i] or nil end
      return unpack(grads, 1, #points)
    end)
  end)
end

--- custom(forward, backward) gives an operation with a derivative of one's own. forward(ctx, …) returns one to four
--- tensors and may keep things in the table ctx; backward(ctx, cotangents…) returns one cotangent (or nil) for each
--- tensor argument. Derivatives of it exist where backward is made of tide's operations.
function M.custom(forward, backward)
  want_function("custom", forward)
  if type(backward) ~= "function" then raise("custom: backward is a %s, expected a function", type(backward)) end
  return function(...)
    local ctx, inputs = {}, {}
    for i = 1, select("#", ...) do
      local x = select(i, ...)
      if is_tensor(x) then inputs[#inputs + 1] = x end
    end
    local outputs = {with_recording(false, forward, ctx, ...)}
    for i, y in ipairs(outputs) do
      if not is_tensor(y) then
        raise("custom: the forward function's result %d is a %s, expected a tensor", i, type(y))
      end
    end
    if #inputs == 0 then return unpack(outputs) end
    return core.custom(outputs, inputs, function(...) return backward(ctx, ...) end)
  end
end

-- ---- The checker ----

-- Σ w·f(args) for fixed random w: a number-valued function whose gradient sees every output.
local function projected(f, args, seed)
  local weights
  return function(...)
    local outputs = {f(...)}
    weights = weights or {}
    local total
    local generator = core.generator(seed)
    for i, y in ipairs(outputs) do
      if is_tensor(y) and (y.dtype == "float32" or y.dtype == "float64") then
        weights[i] = weights[i] or generator:randn(y.shape, "float64"):to(y.dtype)
        local part = core.sum(y * weights[i])
        total = total and total + part or part
      end
    end
    if not total then raise("gradcheck: the function gave no real tensor") end
    return total
  end, args
end

-- Compares the gradient of the number-valued g at args with central differences; gives the worst relative gap.
local function compare(order, g, args, o)
  local points, lifted_args = {}, {}
  for i, x in ipairs(args) do
    lifted_args[i] = x
    if is_tensor(x) and (x.dtype == "float64" or x.dtype == "float32") then
      lifted_args[i] = x:detach():clone():requires_grad()
      points[#points + 1] = {i, lifted_args[i]}
    end
  end
  local list = {}
  for k, p in ipairs(points) do list[k] = p[2] end
  local y = g(unpack(lifted_args))
  local grads = y.needs_grad and core.backward({y}, nil, list, false, false) or {}
  local worst, where = 0, nil
  for k, p in ipairs(points) do
    local index, x = p[1], p[2]
    local flat = x:detach():reshape(-1)
    local exact = grads[k] and grads[k]:reshape(-1):totable() or {}
    for e = 1, x.numel do
      local function value(delta)
        local moved = flat:clone()
        moved[e] = flat[e]:item() + delta
        local at = {unpack(lifted_args)}
        at[index] = moved:reshape(x.shape)
        if order == 2 then at[index]:requires_grad() end
        return g(unpack(at)):item()
      end
      local h = o.eps * math.max(1, math.abs(flat[e]:item()))
      local numeric = (value(h) - value(-h)) / (2 * h)
      local analytic = exact[e] or 0
      local gap = math.abs(numeric - analytic) / (o.atol / o.rtol + math.max(math.abs(numeric), math.abs(analytic)))
      if gap ~= gap or gap > worst then
        worst = gap ~= gap and math.huge or gap
        where = ("argument %d, element %d: gradient %.10g, central difference %.10g"):format(index, e,
          analytic, numeric)
      end
    end
  end
  return worst, where
end

-- A recorded pass may take another way than one that is not; says where their gradients of g at args differ.
local function ways_differ(g, args, o)
  local function gradients(create)
    local list, lifted_args = {}, {}
    for i, x in ipairs(args) do
      lifted_args[i] = x
      if is_tensor(x) and x.dtype == "float64" then
        lifted_args[i] = x:detach():requires_grad()
        list[#list + 1] = lifted_args[i]
      end
    end
    local y = g(unpack(lifted_args))
    return y.needs_grad and core.backward({y}, nil, list, create, create) or {}
  end
  local plain, recorded = gradients(false), gradients(true)
  for i, a in pairs(plain) do
    local b = recorded[i]
    local gap = a and b and a.numel > 0 and core.max(core.abs(a - b) / (o.atol / o.rtol + core.abs(a))):item() or 0
    if (not a) ~= (not b) or gap > o.rtol or gap ~= gap then
      return ("tensor %d: with create_graph the gradient differs by %.3g"):format(i, gap)
    end
  end
end

--- gradcheck(f, {inputs}, opts): compares first and second derivatives of f with central differences, in float64.
--- Gives true, or raises saying which element of which argument is off. Options: eps 1e-6, rtol 1e-6 (first order) and
--- 1e-5 (second), atol 1e-8, second = true, raise = true (false: returns false and the message).
function M.gradcheck(f, inputs, opts)
  local o = options.check("gradcheck", opts,
    {eps = 1e-6, rtol = 1e-6, rtol_second = 1e-5, atol = 1e-8, second = true, raise = true})
  if type(inputs) ~= "table" then
    raise("gradcheck: the inputs are %s, expected a table of them", is_tensor(inputs) and "a tensor" or type(inputs))
  end
  for i, x in ipairs(inputs) do
    if is_tensor(x) and x.dtype == "float32" then
      raise("gradcheck: input %d is float32, whose rounding hides errors; use :double()", i)
    end
  end
  local problem
  local g = projected(f, inputs, 11)
  local gap, where = compare(1, g, inputs, {eps = o.eps, rtol = o.rtol, atol = o.atol})
  if gap > o.rtol then problem = "first order: " .. where end
  if not problem and o.second then problem = ways_differ(g, inputs, o) end
  if not problem and o.second then
    local function slope(...)
      local list = {}
      for i = 1, select("#", ...) do
        local x = select(i, ...)
        if is_tensor(x) and x.needs_grad then list[#list + 1] = x end
      end
      local y = g(...)
      local grads = y.needs_grad and core.backward({y}, nil, list, true, true) or {}
      local used = {}
      for i = 1, #list do
        if grads[i] then used[#used + 1] = grads[i] end
      end
      if #used == 0 then return core.zeros({}, "float64") end
      return (projected(function() return unpack(used) end, nil, 12))()
    end
    local all = {}
    for i, x in ipairs(inputs) do
      all[i] = is_tensor(x) and x.dtype == "float64" and x:detach():requires_grad() or x
    end
    gap, where = compare(2, slope, all, {eps = o.eps * 10, rtol = o.rtol_second, atol = o.atol})
    if gap > o.rtol_second then problem = "second order: " .. where end
  end
  if problem and o.raise then raise("gradcheck: %s", problem) end
  return not problem, problem
end

return M
