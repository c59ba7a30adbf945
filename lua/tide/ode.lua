-- Ordinary differential equations: solve, and the peers' names for it. Methods, controllers and gradient
-- modes are chosen by name and independent of each other.

local core = require "tide.core"
local dual = require "tide.ode.dual"
local message = require "tide.message"
local options = require "tide.options"
local pass = require "tide.nn.pass"
local tensors = require "tide.tensor"
local watch = require "tide.capture.watch"

local M = {}

local raise = message.raise

local methods = {}
for _, m in ipairs(core.ode_methods()) do methods[m.name] = m end

--- The methods by name: {name, source, order, error_order, dense_order, stages, fsal, a, b, c, e}.
M.methods = methods

-- Step control: h' = h·clip(safety·Π errᵢ^(−kᵢ/q), shrink, grow) over this step's error and those of the last
-- two accepted ones, with q one more than the order of the error estimate. keep_after_accept: an accepted
-- step never shrinks the next; hold_after_reject: the first accepted step after a rejected one does not grow.
local function controller(k1, k2, k3, more)
  local c = {
    k1 = k1, k2 = k2, k3 = k3, safety = 0.9, shrink = 0.2, grow = 10, keep_after_accept = false,
    hold_after_reject = true,
  }
  for key, value in pairs(more or {}) do c[key] = value end
  return c
end

local controllers = {
  i = controller(1, 0, 0),                     -- elementary, as in SciPy
  pi = controller(0.85, -0.2, 0),              -- DOPRI5 of Hairer, β = 0.04: (0.2 − 0.75β)·5 and −β·5
  soderlind_pi = controller(0.8, -0.31, 0),    -- Söderlind 2003
  soderlind_pid = controller(0.58, -0.21, 0.1),
  torchdiffeq = controller(1, 0, 0, {keep_after_accept = true, hold_after_reject = false}),
}

--- The controllers by name.
M.controllers = controllers

local defaults = {
  method = "tsit5", rtol = 1e-6, atol = 1e-8, norm = "rms", controller = "pi",
  safety = options.none, ifactor = options.none, dfactor = options.none,
  first_step = 0, min_step = 0, max_step = 0, max_steps = 1e5, step_size = 0, land = false,
  grad = "discrete", params = options.none, throw = true, capture = "auto", jac = options.none,
  max_order = 0, base = options.none, coupling = 0.999, linear = options.none,
  adjoint_method = options.none, adjoint_rtol = options.none, adjoint_atol = options.none,
  adjoint_norm = "seminorm",
}

local gradient_modes = {
  discrete = "discrete", backsolve = "backsolve", adjoint = "backsolve", frozen = "frozen",
  reversible = "reversible",
}

local function check_number(o, name, least)
  local v = o[name]
  if type(v) ~= "number" or v ~= v or v < least then
    raise("ode.solve: %s is %s, expected a number of at least %g", name, tostring(v), least)
  end
end

local function nearest_of(fname, kind, name, known)
  if known[name] then return known[name] end
  local names = {}
  for k in pairs(known) do names[#names + 1] = k end
  table.sort(names)
  raise("%s: unknown %s %q, expected one of %s", fname, kind, tostring(name), table.concat(names, ", "))
end

local function check_choice(o, name, ...)
  for _, known in ipairs {...} do
    if o[name] == known then return end
  end
  raise("ode.solve: %s is %s, expected \"%s\"", name, tostring(o[name]), table.concat({...}, "\" or \""))
end

-- The linear part for exponential methods as the core takes it.
local function semilinear_of(l)
  if l == nil then return nil end
  if not tensors.is_tensor(l) then l = core.tensor(l, "float64") end
  if l.needs_grad then
    raise("ode.solve: linear counts as a constant, but this tensor needs a gradient; give linear:detach()")
  end
  return core.contiguous(core.to(l, "float64"))
end

-- The options as the core reads them.
local function prepared(o)
  check_number(o, "rtol", 0)
  check_number(o, "atol", 0)
  if o.rtol == 0 and o.atol == 0 then raise("ode.solve: rtol and atol are both 0, so no step could be accepted") end
  for _, name in ipairs {"first_step", "min_step", "max_step", "step_size"} do check_number(o, name, 0) end
  check_number(o, "max_steps", 1)
  local method = nearest_of("ode.solve", "method", o.method, methods)
  local chosen = type(o.controller) == "table"
    and options.check("ode.solve: controller", o.controller, controllers.i)
    or nearest_of("ode.solve", "controller", o.controller, controllers)
  for i, p in ipairs(o.params or {}) do
    if not tensors.is_tensor(p) then raise("ode.solve: params[%d] is a %s, expected a tensor", i, type(p)) end
  end
  check_choice(o, "norm", "rms", "max")
  check_choice(o, "adjoint_norm", "seminorm", "rms")
  local c = {}
  for k, v in pairs(chosen) do c[k] = v end
  c.safety, c.grow, c.shrink = o.safety or c.safety, o.ifactor or c.grow, o.dfactor or c.shrink
  if not (c.safety > 0 and c.safety <= 1 and c.grow > 1 and c.shrink > 0 and c.shrink < 1) then
    raise("ode.solve: safety %g, ifactor %g, dfactor %g: expected (0, 1], above 1, (0, 1)", c.safety, c.grow,
      c.shrink)
  end
  return {
    method = method.name, rtol = o.rtol, atol = o.atol, controller = c, first_step = o.first_step,
    min_step = o.min_step, max_step = o.max_step == math.huge and 0 or o.max_step, max_steps = o.max_steps,
    step_size = o.step_size, land = o.land, max_norm = o.norm == "max", params = o.params, max_order = o.max_order,
    base = o.base and nearest_of("ode.solve", "base", o.base, methods).name, coupling = o.coupling,
    semilinear = semilinear_of(o.linear),
    grad = nearest_of("ode.solve", "grad", o.grad, gradient_modes), seminorm = o.adjoint_norm == "seminorm",
  }
end

-- ---- States: a tensor, a table of numbers, or nested tables of tensors ----

local is_tensor = tensors.is_tensor

-- Tensors of a nested table in a fixed order (sorted keys), with the way back.
local function flattened(state, list, path)
  if is_tensor(state) then
    list[#list + 1] = state
    return {leaf = #list}
  elseif type(state) ~= "table" then
    raise("ode.solve: y0%s is a %s, expected a tensor", path, type(state))
  end
  local keys, plan = {}, {}
  for k in pairs(state) do keys[#keys + 1] = k end
  table.sort(keys, function(a, b)
    if type(a) == type(b) then return a < b end
    return type(a) == "number"
  end)
  for i, k in ipairs(keys) do
    plan[i] = {key = k, plan = flattened(state[k], list, path .. "." .. tostring(k))}
  end
  return plan
end

local function rebuilt(plan, list)
  if plan.leaf then return list[plan.leaf] end
  local out = {}
  for _, item in ipairs(plan) do out[item.key] = rebuilt(item.plan, list) end
  return out
end

-- A kind of state: the packed y0, how f's arguments and results are translated (by `field`, or in the core by
-- `form`), and how saved values, one value and times are given.
local function is_number(x) return type(x) == "number" end

local function table_of_numbers(y0)
  for i, v in ipairs(y0) do
    if not is_number(v) then raise("ode.solve: y0[%d] is a %s, expected a number", i, type(v)) end
  end
  local function plain(x) return x:totable() end
  return {y0 = core.tensor(y0, "float64"), form = "table", saved = plain, one = plain, times = plain}
end

local function one_number(y0)
  local function plain(x) return x:totable() end
  local function item(x) return x:item() end
  return {y0 = core.tensor(y0, "float64"), form = "number", saved = plain, one = item, times = plain}
end

local function nested_tensors(y0)
  local list = {}
  local plan = flattened(y0, list, "")
  if #list == 0 then raise("ode.solve: y0 is an empty table") end
  local shapes, sizes, parts = {}, {}, {}
  for i, x in ipairs(list) do
    if x.dtype ~= list[1].dtype then
      raise("ode.solve: the parts of y0 have types %s and %s", list[1].dtype, x.dtype)
    end
    shapes[i], sizes[i], parts[i] = x.shape, x.numel, core.reshape(x, -1)
  end
  local function unpacked(flat, lead)
    local out, start = {}, 1
    for i, size in ipairs(sizes) do
      local shape = {}
      for k, v in ipairs(lead) do shape[k] = v end
      for _, v in ipairs(shapes[i]) do shape[#shape + 1] = v end
      out[i] = core.reshape(core.narrow(flat, -1, start, size), shape)
      start = start + size
    end
    return rebuilt(plan, out)
  end
  return {
    y0 = core.cat(parts, 1),
    field = function(f)
      return function(t, y)
        local result, derivative = f(t, unpacked(y, {})), {}
        flattened(result, derivative, "'")
        if #derivative ~= #list then
          raise("ode.solve: the right-hand side gave %d tensors, the state has %d", #derivative, #list)
        end
        for i, x in ipairs(derivative) do
          if message.shape(x) ~= message.shape(list[i]) then
            raise("ode.solve: part %d of what the right-hand side gave has shape (%s), that of the state (%s)", i,
              message.shape(x), message.shape(list[i]))
          end
          derivative[i] = core.reshape(core.to(x, list[1].dtype), -1)
        end
        return core.cat(derivative, 1)
      end
    end,
    saved = function(ys) return unpacked(ys, {ys:size(1)}) end,
    one = function(y) return unpacked(y, {}) end,
  }
end

local function single_tensor(y0)
  local function same(x) return x end
  return {y0 = y0, saved = same, one = same}
end

local function state_of(y0)
  if is_tensor(y0) then return single_tensor(y0) end
  if is_number(y0) then return one_number(y0) end
  if type(y0) == "table" and is_number(y0[1]) then return table_of_numbers(y0) end
  return nested_tensors(y0)
end

-- ---- Results ----

local Solution = {}
Solution.__index = Solution

function Solution:__tostring()
  local s = self.stats
  local lines = {
    ("ode.solve by %s: %s"):format(self.method, self.status),
    ("  t from %.6g to %.6g, %d saved times"):format(s.t_first, s.t_last, s.saved),
    ("  %d evaluations, %d steps accepted, %d rejected"):format(s.nfe, s.accepted, s.rejected),
    ("  step sizes %.3g to %.3g"):format(s.h_min, s.h_max),
  }
  if s.nfe_b > 0 then lines[#lines + 1] = ("  %d evaluations backward"):format(s.nfe_b) end
  if self.message ~= "" then lines[#lines + 1] = "  " .. self.message end
  return table.concat(lines, "\n")
end

-- Statistics; nfe_b counts the evaluations of reverse passes so far.
local function statistics(result, times, counter)
  local s = {
    nfe = result.nfe, njev = result.njev, nlu = result.nlu, accepted = result.accepted,
    rejected = result.rejected, h_min = result.h_min, h_max = result.h_max,
    t_first = times[1]:item(), t_last = result.t_last, worst_index = result.worst_index,
    saved = result.reached,
    steps = result.accepted + result.rejected,
  }
  return setmetatable(s, {__index = function(_, key)
    if key == "nfe_b" then return (counter()) end
    if key == "replayed" then return (select(2, counter())) end
  end})
end

-- Entries of a table of times may be tensors of one element, to which gradients then flow.
local function times_of(t)
  if is_tensor(t) then
    if t.ndim ~= 1 then raise("ode.solve: t has shape (%s), expected one dim of times", message.shape(t)) end
    return core.to(t, "float64")
  elseif type(t) ~= "table" then
    raise("ode.solve: t is a %s, expected {t0, t1}, a table of times or a tensor", type(t))
  end
  if #t == 0 then raise("ode.solve: no times were given") end
  local plain, parts = true, {}
  for i, v in ipairs(t) do
    if is_tensor(v) and v.numel == 1 then
      plain = false
    elseif not is_number(v) then
      raise("ode.solve: t[%d] is a %s, expected a number", i, type(v))
    end
  end
  if plain then return core.tensor(t, "float64") end
  for i, v in ipairs(t) do
    parts[i] = is_number(v) and core.tensor({v}, "float64") or core.reshape(core.to(v, "float64"), 1)
  end
  return core.cat(parts, 1)
end

-- What the core asks before it captures f, which was called once by then, and tells when that fails. A function that
-- changes what it closes over (it counts its calls, say) runs as it is, unless capture = true insists.
local function accepts_capture(wanted, f, outcome)
  local before = watch.snapshot(f)
  return function(err)
    if not err and not watch.untouched(before) then err = "ode.solve: f changes what it closes over" end
    outcome.used, outcome.why = not err, err
    if err and wanted == true then error(err, 0) end
    return not err
  end
end

-- The Jacobian that implicit methods use, as the core calls it: the user's own, or for functions of plain numbers that
-- of dual numbers. A function on tensors has its own from the tape: nil.
local function jacobian_of(f, state, jac)
  if jac == nil then
    return (state.form and type(f) == "function") and dual.jacobian(f, state.form == "number") or nil
  elseif type(jac) ~= "function" then
    raise("ode.solve: jac is a %s, expected a function jac(t, y)", type(jac))
  end
  local function flat(x)
    if is_tensor(x) then return core.reshape(x, -1):totable() end
    if is_number(x) then return {x} end
    local out = {}
    for _, row in ipairs(x or {}) do
      if is_number(row) then out[#out + 1] = row
      else for _, v in ipairs(row) do out[#out + 1] = v end end
    end
    return out
  end
  return function(t, y)
    local argument = y
    if state.form == "number" then argument = y[1]
    elseif not state.form then argument = core.reshape(core.tensor(y, state.y0.dtype), state.y0.shape) end
    local time = state.form and t or core.reshape(core.tensor({t}, "float64"), {})
    local j, ft = jac(time, argument)
    return flat(j), ft and flat(ft) or nil
  end
end

--- Solves y' = f(t, y) from y(t[1]) = y0, with values at the times t (ascending or descending; {t0, t1} for
--- the two ends; a table may contain tensors). y0: a tensor; nested tables of tensors (f takes and returns the
--- same); a table of numbers or one number (f takes a number and the like, and returns the like). Else, in f,
--- t is a 0-d float64 tensor. Gradients reach y0, t, and every tensor that f closes over. f must give the same
--- derivative when it is called again with the same arguments.
---
--- Options: method "tsit5" (see ode.methods), rtol 1e-6, atol 1e-8, norm "rms" | "max", controller "pi" (see
--- ode.controllers) with safety, ifactor, dfactor; first_step (chosen), min_step 0, max_step, max_steps 1e5;
--- step_size for fixed steps (methods without an error estimate step from time to time of t without it);
--- land = true steps onto the times instead of interpolating. grad: "discrete" (exact for the steps taken),
--- "backsolve" (continuous adjoint, memory independent of the number of steps; adjoint_method, adjoint_rtol,
--- adjoint_atol, adjoint_norm "seminorm" | "rms"), "frozen" (wrong on purpose, for comparison),
--- "reversible" (discrete, the states rebuilt backwards by alf, reversible_heun or mccallum_foster over the method
--- `base` with `coupling`: memory does not grow with steps). params:
--- further tensors that need gradients. capture "auto": f is captured (tide.capture) where it can be; true raises
--- where it cannot, false runs f as it is; the result's `captured` and `not_captured` say what happened and why.
--- Implicit methods take the Jacobian from the tape, from dual numbers when f is on plain numbers, or from jac(t, y),
--- which gives ∂f/∂y row by row and, for Rosenbrock methods, ∂f/∂t as its second value; max_order bounds the order of
--- bdf. linear: the stiff linear part of f, for exponential methods. throw = false returns a failed solve instead
--- of raising.
---
--- Returns {ts, ys (times × state), last (the state at the last time), status, message, method, grid (the times
--- between the steps), stats}. The step-size control is not differentiated. Hairer, Nørsett, Wanner, Solving
--- ODEs I, II.4, for the forward part.
function M.solve(f, y0, t, opts)
  local o = options.check("ode.solve", opts, defaults)
  local in_c = type(f) == "userdata" and not is_tensor(f)
  if not in_c and type(f) ~= "function"
    and not (type(f) == "table" and getmetatable(f) and getmetatable(f).__call) then
    raise("ode.solve: f is a %s, expected a function f(t, y)", type(f))
  end
  local request = prepared(o)
  request.adjoint = prepared(setmetatable({
    method = o.adjoint_method, rtol = o.adjoint_rtol, atol = o.adjoint_atol, first_step = 0, land = false,
  }, {__index = o}))
  local state, times = state_of(y0), times_of(t)
  local callee = not in_c and state.field and state.field(f) or f
  if not in_c and type(callee) ~= "function" then
    local object = callee
    callee = function(time, y) return object(time, y) end
  end
  local field = (in_c or state.form) and callee or pass.hold(callee)
  request.form = state.form or "tensors"
  local captured = {}
  if not in_c and not state.form and o.capture then request.capture = accepts_capture(o.capture, f, captured) end
  request.jacobian = jacobian_of(callee, state, o.jac)
  local ys, result, counter = core.ode_solve(field, state.y0, times, request)
  if result.status ~= "ok" and o.throw then raise("ode.solve: %s", result.message) end
  local reached = result.reached == times.numel and times or core.narrow(times, 1, 1, result.reached)
  return setmetatable({
    ts = state.times and state.times(reached) or reached,
    ys = state.saved(ys),
    last = state.one(core.select(ys, 1, result.reached)),
    status = result.status, message = result.message, method = request.method, grid = result.grid,
    stats = statistics(result, times, counter),
    captured = captured.used or false, not_captured = captured.why,
  }, Solution)
end

-- ---- The peers' names ----

local odeint_defaults = {
  rtol = 1e-7, atol = 1e-9, method = "dopri5", controller = "torchdiffeq", first_step = 0, max_step = 0,
  min_step = 0, max_num_steps = 2 ^ 31 - 1, step_size = 0, safety = options.none, ifactor = options.none,
  dfactor = options.none, norm = "rms", options = options.none,
}

-- Options of odeint as those of solve. As there, the solver's own may come in a table `options`.
local function odeint_options(fname, opts, more)
  local known = {}
  for k, v in pairs(odeint_defaults) do known[k] = v end
  for k, v in pairs(more or {}) do known[k] = v end
  local o = options.check(fname, opts, known)
  local inner = o.options
  o.options = nil
  for k, v in pairs(options.check(fname, inner, known)) do
    if inner and inner[k] ~= nil then o[k] = v end
  end
  o.max_steps, o.max_num_steps = o.max_num_steps, nil
  if o.method == "dopri5" then o.method = "dopri5_shampine" end
  return o
end

--- torchdiffeq's odeint: values at the times t (times × state), exact gradients through the solver. Defaults
--- rtol 1e-7, atol 1e-9, method "dopri5" with the embedded weights and the controller used there. Unlike
--- there, the last step lands on the last time, and fixed steps interpolate by cubics.
function M.odeint(f, y0, t, opts)
  return M.solve(f, y0, t, odeint_options("odeint", opts)).ys
end

--- torchdiffeq's odeint_adjoint: the same with the continuous adjoint. Parameters are found by themselves;
--- adjoint_params names further ones. adjoint_options = {norm = "seminorm"} keeps them out of the backward
--- error control.
function M.odeint_adjoint(f, y0, t, opts)
  local o = odeint_options("odeint_adjoint", opts, {
    adjoint_rtol = options.none, adjoint_atol = options.none, adjoint_method = options.none,
    adjoint_params = options.none, adjoint_options = options.none,
  })
  if o.adjoint_method == "dopri5" then o.adjoint_method = "dopri5_shampine" end
  o.adjoint_norm = options.check("odeint_adjoint: adjoint_options", o.adjoint_options, {norm = "rms"}).norm
  o.grad, o.params, o.adjoint_params, o.adjoint_options = "backsolve", o.adjoint_params, nil, nil
  return M.solve(f, y0, t, o).ys
end

return M
