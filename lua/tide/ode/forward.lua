-- Forward sensitivities: beside the state ride its derivatives by y0 and by what f closes over, one tangent for each
-- number. A method's step on (y, s₁, s₂, …) with y' = f and sₖ' = J sₖ + ∂f/∂pₖ is the derivative of its step on y, so
-- the tangents are exact for the steps taken, whatever the method. They stay out of the error norm: the steps are those
-- of the solve alone. Time is as in the continuous formulas: ∂y(tᵢ)/∂tᵢ = f, ∂y/∂t₁ = −s·f(t₁, y₁).

local autograd = require "tide.autograd"
local core = require "tide.core"
local crossing = require "tide.ode.crossing"
local message = require "tide.message"
local tensors = require "tide.tensor"

local M = {}

local raise = message.raise

-- ---- The lifted right-hand side ----

-- The shape {rows, …}.
local function with_rows(rows, shape)
  local out = {rows}
  for i, v in ipairs(shape) do out[1 + i] = v end
  return out
end

--- f(t, y) on Y, whose first part along `dim` is y and whose others are tangents; seeds[k] has the k-th tangent's
--- directions in the parts, by their numbers. f of a batch, f(t, y, rows), has the rows before these dims.
function M.lifted(f, shape, dim, parts, seeds)
  return function(t, Y, rows)
    local outer, own, flat, along = core.recording(), shape, -1, dim
    if rows then
      local ones = {rows.numel}
      for i = 1, #shape do ones[1 + i] = 1 end
      own, flat, along, t = with_rows(rows.numel, shape), {rows.numel, -1}, dim + 1, core.reshape(t, ones)
    end
    local function vector(k) return core.reshape(core.select(Y, along, k), own) end
    local out = autograd.enable_grad(function()
      local y = vector(1)
      if not y.needs_grad then y = y:detach():requires_grad() end
      local dy = f(t, y, rows)
      if dy == false then return false end
      if not tensors.is_tensor(dy) or message.shape(dy) ~= message.shape(y) then
        raise("ode.solve: the right-hand side gave %s, expected a tensor of the state's shape (%s)",
          tensors.is_tensor(dy) and "shape (" .. message.shape(dy) .. ")" or "a " .. type(dy), message.shape(y))
      end
      dy = core.to(dy, y.dtype)
      local points, tangents, slopes = {y}, {}, {}
      for i, p in ipairs(parts) do points[1 + i] = p end
      for k, seed in ipairs(seeds) do
        tangents[k] = {vector(1 + k)}
        for i, direction in pairs(seed) do tangents[k][1 + i] = direction end
      end
      slopes = dy.needs_grad and crossing.products(dy, points, tangents, outer) or slopes
      local list = {core.reshape(dy, flat)}
      for k = 1, #seeds do
        list[1 + k] = slopes[k] and core.reshape(slopes[k], flat) or core.zeros(list[1].shape, y.dtype)
      end
      return list
    end)
    if not out then return false end
    if not outer then
      for k, x in ipairs(out) do out[k] = x:detach() end
    end
    return tensors.stack(out, along)
  end
end

-- ---- Directions ----

--- What f and the events depend on besides t and y, and f(t, y, …).
function M.externals_of(f, events, params, t, y, ...)
  local since, list = core.now(), {}
  local function add(p)
    local known = not p.needs_grad
    for _, q in ipairs(list) do known = known or core.same_point(p, q) end
    if not known then list[#list + 1] = p end
  end
  local function explore(fn, ...)
    local x = fn and autograd.enable_grad(fn, ...)
    for _, p in ipairs(tensors.is_tensor(x) and core.externals({x}, since) or {}) do add(p) end
    return x
  end
  local dy = explore(f, t, y:detach(), ...)
  for _, e in ipairs(events or {}) do
    explore(e.fn, t, y:detach(), ...)
    explore(e.reset, t, y:detach(), ...)
  end
  for _, p in ipairs(params or {}) do add(p) end
  return list, dy
end

local function unit(like, e)
  local x = core.zeros({like.numel}, like.dtype)
  x[e] = 1
  return core.reshape(x, like.shape)
end

--- The tangents: their directions in the parts, and the first vector of each, like `y` (one row of y0, or y0); those of
--- y0 first.
function M.directions_of(y0, y, parts, by_time, most)
  local count, words = by_time and 1 or 0, {}
  if y0.needs_grad then
    count, words[1] = count + y.numel, ("y0 %d"):format(y.numel)
  end
  for _, p in ipairs(parts) do
    count = count + p.numel
    if #words < 6 then words[#words + 1] = ("shape (%s) %d"):format(message.shape(p), p.numel) end
  end
  if count > most then
    raise("ode.solve: grad = \"forward\" carries a tangent for each number that needs a gradient, here %d (%s%s), "
      .. "and max_tangents is %d; use grad = \"discrete\", or detach what needs none", count, table.concat(words, ", "),
      #words < #parts + (y0.needs_grad and 1 or 0) and ", …" or "", most)
  end
  local seeds, first = {}, {}
  local zero = core.zeros({y.numel}, y.dtype)
  local function add(seed, vector)
    seeds[#seeds + 1], first[#first + 1] = seed, vector
  end
  if y0.needs_grad then
    for e = 1, y.numel do add({}, unit(zero, e)) end
  end
  for i, p in ipairs(parts) do
    for e = 1, p.numel do add({[i] = unit(p, e)}, zero) end
  end
  if by_time then add({}, -core.reshape(by_time, -1)) end
  return seeds, first
end

-- ---- Solving ----

local function repeated(x, count)
  local list = {}
  for i = 1, count do list[i] = x end
  return core.cat(list, 1)
end

--- The request for a lifted f and `blocks` vectors of a state of n elements: the first one alone counts in errors.
function M.lifted_request(request, state, n, blocks)
  local out = {}
  for k, v in pairs(request) do out[k] = v end
  out.grad, out.params, out.jacobian, out.halves, out.second = "discrete", nil, nil, out.halves and {}, nil
  if blocks ~= 0 then out.preconditioner = nil end
  if blocks > 0 then out.norm_count, out.blocks = request.norm_count or n, blocks end
  for _, name in ipairs {"rtols", "atols"} do
    if out[name] then out[name] = repeated(out[name], math.max(1, blocks)) end
  end
  local linear = out.semilinear
  if linear and linear.numel == n and (linear.ndim ~= 2 or linear:size(1) ~= linear:size(2)) then
    out.semilinear = repeated(core.reshape(linear, -1), blocks)
  end
  local norm = request.norm_call
  if norm then
    out.norm_call = function(x) return norm(core.reshape(core.select(x, 1, 1), state.y0.shape)) end
  end
  return out
end

--- The dim along which a lifted state is stacked. The halves of a symplectic method's state are halves of everything,
--- so there the tangents go last.
function M.dim_of(request) return request.family == "symplectic" and 2 or 1 end

-- The solve of y0 and its tangents: a table with what the gradient and the sensitivities are read from.
local function begin(f, state, times, request, y0)
  local t0 = core.reshape(core.tensor({times[1]:item()}, "float64"), {})
  local parts, slope = M.externals_of(f, request.events, request.params, t0, y0)
  local by_time = times.needs_grad and slope:detach() or nil
  if by_time and request.every then
    raise("ode.solve: grad = \"forward\" with save = \"steps\" has no gradient of times; use \"discrete\"")
  end
  local seeds, first = M.directions_of(y0, y0, parts, by_time, request.max_tangents)
  local dim = M.dim_of(request)
  local own = M.lifted_request(request, state, y0.numel, dim == 1 and 1 + #seeds or 0)
  local field = M.lifted(f, y0.shape, dim, parts, seeds)
  for i, g in ipairs(request.halves or {}) do own.halves[i] = M.lifted(g, y0.shape, dim, parts, seeds) end
  local crossings
  own.events, crossings = crossing.lifted(request.events, f, y0.shape, dim, parts, seeds)
  return {
    parts = parts, count = #seeds, dim = dim, by_time = by_time, crossings = crossings,
    run = function(start, at)
      local list = {core.reshape(start, -1)}
      for k, v in ipairs(first) do list[1 + k] = v end
      return core.ode_solve(field, tensors.stack(list, dim), at, own)
    end,
  }
end

-- Tangents of the saved rows Y: rows × tangents × elements.
local function tangents_of(work, Y)
  local all = core.narrow(Y, 1 + work.dim, 2, work.count)
  return work.dim == 1 and all or tensors.transpose(all, 2, 3)
end

--- Derivatives of what core.ode_solve gave for a lifted state, by each tangent: of the rows (rows × tangents ×
--- elements), and with events of their times and of the states before and after. work: {dim, count, crossings}.
function M.derivatives_of(work, Y, result, _, _, event_t, before)
  local rows = tangents_of(work, Y)
  local dt, by_before, by_after = crossing.of_hits(work.crossings, work.count, event_t and result.event_index, event_t,
    before, work.row)
  if dt and result.event_row then  -- the last row is the state after the last event, whose time moves
    local last = core.narrow(by_after, 1, by_after:size(1), 1)
    rows = rows:size(1) == 1 and last or core.cat({core.narrow(rows, 1, 1, rows:size(1) - 1), last}, 1)
  end
  return {rows, dt, by_before, by_after}
end

--- The sum of each tangent's derivatives of the results against the cotangents w (a list of as many, false: none).
function M.against(derivatives, w)
  local sum
  for i = 1, 4 do
    local all, own = derivatives[i], w[i]
    if all and own then
      local g = all.ndim == 2 and core.sum(all * core.reshape(own, {-1, 1}), 1)
        or core.sum(all * core.reshape(own, {all:size(1), 1, all:size(3)}), {1, 3})
      sum = sum and sum + g or g
    end
  end
  return sum
end

--- That sum cut into pieces like the inputs, and the number of the tangent after them.
function M.pieces(g, inputs)
  local out, at = {}, 1
  for i, x in ipairs(inputs) do
    out[i] = core.reshape(core.to(core.narrow(g, 1, at, x.numel), x.dtype), x.shape)
    at = at + x.numel
  end
  return out, at
end

-- The cotangent of the times: each row moves along its slope, and the first time moves all by the last tangent,
-- `moved`.
local function by_times(f, ys, w, times, moved)
  local out, count = core.zeros({times.numel}, "float64"), math.min(ys:size(1), times.numel)
  local w_rows = w and core.reshape(w, {ys:size(1), -1})
  for i = 1, w and count or 0 do
    local slope = f(core.select(times, 1, i), core.select(ys, 1, i))
    out[i] = core.sum(core.reshape(slope, -1) * core.select(w_rows, 1, i)):item()
  end
  out[1] = out[1] + moved
  return out
end

--- The states of a lifted solve's rows.
function M.states_of(work, Y, shape)
  return core.reshape(core.select(Y, 1 + work.dim, 1), with_rows(Y:size(1), shape))
end

--- core.ode_solve with the tangents of y0, of what f depends on, and of times where they need a gradient: before its
--- results a function of a tensor that gives the sensitivities to it, nil when nothing needs a gradient.
function M.solve(f, state, times, request)
  local y0 = state.y0
  if state.form or type(f) ~= "function" then
    raise("ode.solve: grad = \"forward\" needs a right-hand side on tensors")
  end
  local work = core.recording() and begin(f, state, times, request, y0)
  if not work or work.count == 0 then
    return nil, core.ode_solve(f, y0, times, M.lifted_request(request, state, y0.numel, 0))
  end
  local Y, result, counter, every, event_t, before, after, path = autograd.no_grad(work.run, y0:detach(),
    times:detach())
  local ys = M.states_of(work, Y, y0.shape)
  local results, inputs = {ys}, {}
  if event_t then
    results = {ys, event_t, M.states_of(work, before, y0.shape), M.states_of(work, after, y0.shape)}
  end
  local derivatives = autograd.no_grad(M.derivatives_of, work, Y, result, counter, every, event_t, before)
  if y0.needs_grad then inputs[1] = y0 end
  for _, p in ipairs(work.parts) do inputs[#inputs + 1] = p end
  local operands = {unpack(inputs)}
  if work.by_time then operands[#operands + 1] = times end
  local function pull(...)
    local again, w = derivatives, {...}
    if core.recording() then
      if work.by_time then raise("ode.solve: grad = \"forward\" has no second derivatives by times") end
      local function repeated_run(Y2, result2, ...)
        if Y2:size(1) ~= Y:size(1) or #result2.event_index ~= #result.event_index then
          raise("ode.solve: the solve failed when repeated: %s", result2.message)
        end
        return M.derivatives_of(work, Y2, result2, ...)
      end
      again = repeated_run(work.run(y0, times))
    end
    local g = M.against(again, w)
    if not g then return end
    local grads, at = M.pieces(g, inputs)
    if work.by_time then grads[#grads + 1] = by_times(f, ys, w[1], times:detach(), g[at]:item()) end
    return unpack(grads, 1, #operands)
  end
  local out, t, y_before, y_after = core.custom(results, operands, pull)
  local function sensitivity(x)
    local at = 1
    for _, p in ipairs(inputs) do
      if core.same_point(p, x) then
        local rows = tensors.transpose(core.narrow(derivatives[1], 2, at, p.numel), 2, 3)
        local shape = with_rows(rows:size(1), y0.shape)
        for _, v in ipairs(p.shape) do shape[#shape + 1] = v end
        return core.reshape(core.contiguous(rows), shape)
      end
      at = at + p.numel
    end
  end
  local inner = path and function(time, left)
    local y, dy = path(time, left)
    return core.reshape(core.select(y, work.dim, 1), y0.shape), core.reshape(core.select(dy, work.dim, 1), y0.shape)
  end
  return sensitivity, out, result, counter, every, t, y_before, y_after, inner
end

return M
