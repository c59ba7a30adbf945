-- Ordinary differential equations: solve, and the peers' names for it. Methods, controllers and gradient
-- modes are chosen by name and independent of each other.

local batches = require "tide.ode.batch"
local captures = require "tide.ode.captured"
local control = require "tide.ode.control"
local core = require "tide.core"
local dual = require "tide.ode.dual"
local forward = require "tide.ode.forward"
local march = require "tide.ode.march"
local masses = require "tide.ode.mass"
local message = require "tide.message"
local options = require "tide.options"
local pass = require "tide.nn.pass"
local peers = require "tide.ode.peers"
local requests = require "tide.ode.request"
local seconds = require "tide.ode.second"
local solutions = require "tide.ode.solution"
local splits = require "tide.ode.split"
local stages = require "tide.ode.stages"
local tensors = require "tide.tensor"

local M = {}

local raise, is_tensor = message.raise, tensors.is_tensor

--- The methods by name: {name, source, family, order, error_order, dense_order, stages}, and of explicit ones their
--- tableau.
M.methods = requests.methods

--- The controllers by name.
M.controllers = control.presets

-- The Jacobian that implicit methods use, as the core calls it: the user's own, or for functions of plain numbers that
-- of dual numbers. A function on tensors has its own from the tape: nil.
local function jacobian_of(f, state, jac, method)
  if jac == nil then
    if M.methods[method].family == "explicit Runge–Kutta" then return nil end
    return (state.form and type(f) == "function") and dual.jacobian(f, state.form == "number") or nil
  elseif type(jac) ~= "function" then
    raise("ode.solve: jac is a %s, expected a function jac(t, y)", type(jac))
  end
  local function flat(x)
    if is_tensor(x) then return core.reshape(x, -1):totable() end
    if type(x) == "number" then return {x} end
    local out = {}
    for _, row in ipairs(x or {}) do
      if type(row) == "number" then out[#out + 1] = row
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

local function is_callable(f) return type(f) == "table" and getmetatable(f) and getmetatable(f).__call and true end

local none = {}

-- Options, state and times, checked, and the request to the core; nothing is called.
local function prepare(f, y0, t, opts)
  local in_c = type(f) == "userdata" and not is_tensor(f)
  if not in_c and type(f) ~= "function" and not is_callable(f) and not splits.is(f) then
    raise("ode.solve: f is a %s, expected a function f(t, y)", type(f))
  end
  local state, times = requests.state_of(y0), requests.times_of(t)
  local given = type(opts) == "table" and opts or opts == nil and none or nil
  if given then
    local kept, request = requests.kept(given, state.form)
    if kept then
      core.ode_check(state.y0, times)
      return kept, state, times, request, in_c
    end
  end
  local o = options.over("ode.solve", opts, requests.defaults)
  if o.event or o.events then times = requests.bounded(times) end
  local request = requests.of(o, f, y0, state, times)
  if given then request = requests.keep(given, state.form, o, request) end
  return o, state, times, request, in_c
end

-- f as the core calls it: on the flat state, one pass of dropout masks for the whole solve, always a function. With
-- halves, where the method has a use for them, also these.
local function callees_of(f, state, method)
  local function plain(g)
    g = state.field and state.field(g) or g
    if type(g) == "function" then return g end
    return function(t, y) return g(t, y) end
  end
  if not splits.is(f) then
    f = plain(f)
    return state.form and f or pass.hold(f), f
  end
  local parts = {plain(f.explicit), plain(f.implicit)}
  if not state.form then
    local held = pass.hold(function(g, t, y) return g(t, y) end)
    for i, g in ipairs(parts) do parts[i] = function(t, y) return held(g, t, y) end end
  end
  local whole = splits.sum(parts[1], parts[2], state.form)
  if splits.additive(M.methods[method]) then return whole, parts[2], parts end
  return whole, whole
end

-- What the core gave as a solution, or its failure raised.
local function finished(o, state, times, request, captured, steps, sensitivity, ys, result, ...)
  local failed = result.status ~= "ok" and result.status ~= "event"
  if failed and o.throw then raise("ode.solve: %s", result.message) end
  if steps then steps.nodes = result.grid:totable() end
  local sol = solutions.of(request, state, times, captured, o.save_fn, ys, result, ...)
  sol.tangents = sensitivity
  return sol
end

--- Solves y' = f(t, y) from y(t[1]) = y0, with values at the times t (ascending or descending; {t0, t1} for
--- the two ends; a table may contain tensors). y0: a tensor; nested tables of tensors (f takes and returns the
--- same); a table of numbers or one number (f takes a number and the like, and returns the like). Else, in f,
--- t is a 0-d float64 tensor. Gradients reach y0, t, and every tensor that f closes over. f must give the same
--- derivative when it is called again with the same arguments. doc/api/ode.lua has the options.
---
--- Returns {ts, ys (times × state), last (the state at the last time), status, message, method, grid (the times
--- between the steps), stats, events}. The step-size control is not differentiated. Hairer, Nørsett, Wanner, Solving
--- ODEs I, II.4, for the forward part.
function M.solve(f, y0, t, opts)
  if type(opts) == "table" and opts.batch and splits.is(f) then
    local method = M.methods[opts.method or requests.defaults.method]
    if method and splits.additive(method) then
      raise("ode.solve: a batch with f in halves is not solved by \"%s\"; use another method, which sees their sum",
        method.name)
    end
    f = splits.sum(f.explicit, f.implicit, type(y0) == "table" and type(y0[1]) == "table" and "table" or nil)
  end
  if type(opts) == "table" and opts.batch then return batches.solve(M.solve, f, y0, t, opts) end
  local o, state, times, request, in_c
  if type(opts) == "table" and opts.throw == false then
    local ok, why
    ok, o, state, times, request, in_c = pcall(prepare, f, y0, t, opts)
    why = o
    if not ok then return solutions.refused(opts.method or requests.defaults.method, tostring(why)) end
  else
    o, state, times, request, in_c = prepare(f, y0, t, opts)
  end
  local field, differentiated = f, f
  if not in_c then field, differentiated, request.halves = callees_of(f, state, request.method) end
  if request.inverse then
    if in_c then raise("ode.solve: f in C goes with mass by rodas5p, radau5 or bdf alone") end
    local function solved(g) return masses.solved(g, request.inverse, state.form, state.y0.dtype) end
    field, differentiated = solved(field), solved(differentiated)
    for i, g in ipairs(request.halves or {}) do request.halves[i] = solved(g) end
  end
  local captured = {}
  if not in_c and not state.form and o.capture then
    request.capture, request.known = captures.accepts(o.capture, f, captured)
    request.known = request.known and request.grad ~= "forward"
  end
  request.jacobian = jacobian_of(differentiated, state, o.jac, request.method)
  if not in_c and state.form then
    request.stages = stages.of(M.methods[request.method], state.y0.numel, state.form)
    request.march = request.stages and march.of(M.methods[request.method], state.y0.numel, state.form)
  end
  local steps
  if core.recording() and request.grad == "discrete" and not (state.form or in_c)
    and (request.events or not M.methods[request.method].a) then
    request.second, steps = seconds.of(field, state, times:detach(), request)
  end
  if request.grad == "forward" then
    return finished(o, state, times, request, captured, steps, forward.solve(field, state, times, request))
  end
  return finished(o, state, times, request, captured, steps, nil, core.ode_solve(field, state.y0, times, request))
end

-- The peers' names: odeint, odeint_adjoint, odeint_event, solve_ivp.
for name, call in pairs(peers.of(M.solve)) do M[name] = call end

M.steady_state = require("tide.ode.steady").steady_state
M.brownian = require("tide.ode.brownian").brownian
M.sde = require("tide.ode.sde").sde
M.sde_methods = require("tide.ode.sde").sde_methods

return M
