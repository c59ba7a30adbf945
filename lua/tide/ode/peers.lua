-- ode.solve under the names, options and defaults of torchdiffeq and SciPy, so that scripts port by eye.

local core = require "tide.core"
local message = require "tide.message"
local options = require "tide.options"
local requests = require "tide.ode.request"
local tensors = require "tide.tensor"

local M = {}

local raise, is_tensor = message.raise, tensors.is_tensor
local unpack = table.unpack or unpack  -- luacheck: ignore

-- ---- torchdiffeq ----

local odeint_defaults = {
  rtol = 1e-7, atol = 1e-9, method = "dopri5", controller = "torchdiffeq", first_step = 0, max_step = 0,
  min_step = 0, max_num_steps = 2 ^ 31 - 1, step_size = 0, safety = options.none, ifactor = options.none,
  dfactor = options.none, norm = "rms", step_t = options.none, jump_t = options.none, grid_constructor = options.none,
  interp = "dense", perturb = false, max_order = 0, max_iters = 0, dtype = options.none, event_fn = options.none,
  options = options.none,
}

local function method_of(name) return name == "dopri5" and "dopri5_shampine" or name end

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
  o.max_steps, o.max_num_steps, o.dtype = o.max_num_steps, nil, nil
  o.method = method_of(o.method)
  o.land = requests.unsized(o.method, o.step_size)
  if o.event_fn then o.event, o.event_fn = o.event_fn, nil end
  if o.perturb then o.perturb_times = true end
  o.perturb = nil
  return o
end

-- perturb: f is never asked at the times themselves, but beside them.
local function with_perturbed(o, t)
  if not o.perturb_times then return o end
  o.perturb_times = nil
  local jumps = requests.numbers_of("jump_t", o.jump_t)
  local all = {}
  for _, list in ipairs {jumps, requests.times_of(t):totable()} do
    for _, time in ipairs(list) do all[#all + 1] = time end
  end
  o.jump_t = all
  return o
end

local function values_of(sol, with_event)
  if not with_event then return sol.ys end
  if sol.status ~= "event" then raise("odeint: no event happened before t = %g", sol.stats.t_last) end
  local times = sol.events.t
  return is_tensor(times) and core.select(times, 1, times.numel) or times[#times], sol.ys
end

--- odeint and the rest over solve, the function of lua/tide/ode.lua.
function M.of(solve)
  local P = {}

  --- torchdiffeq's odeint: values at the times t (times × state), exact gradients through the solver. Defaults
  --- rtol 1e-7, atol 1e-9, method "dopri5" with the embedded weights and the controller used there. Unlike
  --- there, the last step lands on the last time, and fixed steps interpolate by cubics unless interp = "linear". With
  --- event_fn: the event's time, and the values up to it.
  function P.odeint(f, y0, t, opts)
    local o = with_perturbed(odeint_options("odeint", opts), t)
    return values_of(solve(f, y0, t, o), o.event)
  end

  --- torchdiffeq's odeint_adjoint: the same with the continuous adjoint. Parameters are found by themselves;
  --- adjoint_params names further ones. adjoint_options = {norm = "seminorm"} keeps them out of the backward
  --- error control. With event_fn the gradient is the exact one, since a continuous adjoint does not pass events.
  function P.odeint_adjoint(f, y0, t, opts)
    local o = with_perturbed(odeint_options("odeint_adjoint", opts, {
      adjoint_rtol = options.none, adjoint_atol = options.none, adjoint_method = options.none,
      adjoint_params = options.none, adjoint_options = options.none,
    }), t)
    o.adjoint_method = o.adjoint_method and method_of(o.adjoint_method)
    o.adjoint_norm = options.check("odeint_adjoint: adjoint_options", o.adjoint_options, {norm = "rms"}).norm
    o.grad, o.params, o.adjoint_params, o.adjoint_options = "backsolve", o.adjoint_params, nil, nil
    if o.event then o.grad = "discrete" end
    return values_of(solve(f, y0, t, o), o.event)
  end

  --- torchdiffeq's odeint_event: from t0 until event_fn(t, y) changes its sign, however long that takes; backwards with
  --- reverse_time. Gives the event's time, and the states at t0 and there.
  function P.odeint_event(f, y0, t0, opts)
    local o = odeint_options("odeint_event", opts, {reverse_time = false, odeint_interface = options.none})
    if not o.event then raise("odeint_event: event_fn is missing") end
    local far = o.reverse_time and -math.huge or math.huge
    o.reverse_time, o.odeint_interface, o.perturb_times = nil, nil, nil
    return values_of(solve(f, y0, {t0, far}, o), true)
  end

  -- ---- SciPy ----

  local scipy_methods = requests.scipy_methods

  local function scipy_events(events)
    if events == nil then return nil end
    if type(events) == "function" or events.terminal ~= nil or events.direction ~= nil then events = {events} end
    local list = {}
    for i, e in ipairs(events) do
      local fn = type(e) == "function" and e or e.fn or e[1]
      local direction = type(e) == "table" and e.direction or 0
      list[i] = {
        fn = fn, terminal = type(e) == "table" and e.terminal or false,
        direction = direction > 0 and 1 or direction < 0 and -1 or 0,
      }
    end
    return list
  end

  -- One list of times and one of states for each event.
  local function events_of(sol, count)
    local t, y = {}, {}
    for i = 1, count do t[i], y[i] = {}, {} end
    if sol.events then
      for k, i in ipairs(sol.events.index) do
        t[i][#t[i] + 1] = sol.events.t[k]
        y[i][#y[i] + 1] = sol.events.before[k]
      end
    end
    return t, y
  end

  -- Components × times, as there.
  local function turned(ys)
    if is_tensor(ys) then
      local order = {}
      for i = 2, ys.ndim do order[#order + 1] = i end
      order[#order + 1] = 1
      return core.permute(ys, order)
    end
    local out = {}
    for i = 1, type(ys[1]) == "table" and #ys[1] or 0 do
      out[i] = {}
      for k, row in ipairs(ys) do out[i][k] = row[i] end
    end
    return type(ys[1]) == "table" and out or ys
  end

  local statuses = {ok = 0, event = 1}

  --- SciPy's solve_ivp(fun, t_span, y0, {method, t_eval, dense_output, events, args, rtol 1e-3, atol 1e-6, first_step,
  --- max_step, jac, jac_sparsity, lband, uband}): fun(t, y, …args); gives t, y (components × times), sol(t), t_events,
  --- y_events, nfev, njev, nlu,
  --- status (0, 1 for a terminal event, -1), message, success. Events are functions or {fn, terminal = , direction = }.
  function P.solve_ivp(fun, t_span, y0, opts)
    local o = options.check("solve_ivp", opts, {
      method = "RK45", t_eval = options.none, dense_output = false, events = options.none, args = options.none,
      rtol = 1e-3, atol = 1e-6, first_step = 0, max_step = 0, jac = options.none, jac_sparsity = options.none,
        lband = options.none, uband = options.none,
    })
    local span = requests.times_of(t_span)
    local name = scipy_methods[o.method] or o.method
    if not requests.methods[name] then
      local known = {}
      for _, list in ipairs {scipy_methods, requests.methods} do
        for k in pairs(list) do known[k] = true end
      end
      raise("solve_ivp: unknown method %q%s", tostring(name), options.choices(name, known))
    end
    local args, f = o.args, fun
    if args then f = function(t, y) return fun(t, y, unpack(args)) end end
    local events = scipy_events(o.events)
    local times, nodes = span, not o.t_eval and events ~= nil
    if o.t_eval then
      local eval = requests.times_of(o.t_eval)
      times = core.cat({core.narrow(span, 1, 1, 1), eval, core.narrow(span, 1, 2, 1)}, 1)
    end
    local sol = solve(f, y0, times, {
      method = name, rtol = o.rtol, atol = o.atol, first_step = o.first_step, max_step = o.max_step, jac = o.jac,
      jac_sparsity = o.jac_sparsity or (o.lband or o.uband) and {lower = o.lband or 0, upper = o.uband or 0} or nil,
      controller = "i", events = events, dense = o.dense_output or nodes, throw = false, max_steps = 2 ^ 31,
      save = (o.t_eval or nodes) and "times" or "steps",
    })
    if sol.status == "bad_input" then raise("%s", (sol.message:gsub("^.-ode%.solve: ", "solve_ivp: "))) end
    local t, ys = sol.ts, sol.ys
    if o.t_eval then  -- without the ends, which were added
      local plain, count = not is_tensor(t), #requests.times_of(o.t_eval):totable()
      local have = plain and #t or t.numel
      count = math.min(count, have - 1)
      if plain then
        local nt, ny = {}, {}
        for i = 1, count do nt[i], ny[i] = t[i + 1], ys[i + 1] end
        t, ys = nt, ny
      else
        t, ys = core.narrow(t, 1, 2, count), core.narrow(ys, 1, 2, count)
      end
    elseif nodes then
      t, ys = {}, {}
      for i, time in ipairs(sol.grid) do
        t[i] = time
        ys[i] = sol(time, "left")
      end
      if is_tensor(sol.ys) then t, ys = core.tensor(t, "float64"), tensors.stack(ys, 1) end
    end
    local t_events, y_events
    if events then t_events, y_events = events_of(sol, #events) end
    return {
      t = t, y = turned(ys), sol = o.dense_output and function(time) return (sol(time)) end or nil,
      t_events = t_events, y_events = y_events, nfev = sol.stats.nfe, njev = sol.stats.njev, nlu = sol.stats.nlu,
      status = statuses[sol.status] or -1, success = statuses[sol.status] ~= nil, message = sol.message,
    }
  end

  return P
end

return M
