-- The options of ode.solve, checked, as the core reads them.

local control = require "tide.ode.control"
local core = require "tide.core"
local masses = require "tide.ode.mass"
local message = require "tide.message"
local options = require "tide.options"
local state_kinds = require "tide.ode.state"
local tensors = require "tide.tensor"

local M = {}

local raise, is_tensor = message.raise, tensors.is_tensor

M.methods = {}
for _, m in ipairs(core.ode_methods()) do M.methods[m.name] = m end

M.defaults = {
  method = "tsit5", rtol = 1e-6, atol = 1e-8, norm = "rms", controller = "pi",
  safety = options.none, ifactor = options.none, dfactor = options.none,
  first_step = 0, min_step = 0, on_min_step = "fail", max_step = 0, max_steps = 1e5, max_num_steps = options.none,
  step_t = options.none, jump_t = options.none,
  step_size = 0, grid_constructor = options.none, interp = "dense", land = false,
  save = "times", save_fn = options.none, dense = false,
  event = options.none, events = options.none, event_points = 10,
  grad = "discrete", max_tangents = 200, checkpoints = 0, memory = 2 ^ 30, params = options.none,
  capture = "auto", keep = 2 ^ 28, hold = options.none, jac = options.none, max_order = 0, max_iters = 0, throw = true,
  batch = false, jac_sparsity = options.none, preconditioner = options.none, mass = options.none, base = options.none,
    coupling = 0.999, linear = options.none,
  adjoint_method = options.none, adjoint_rtol = options.none, adjoint_atol = options.none,
  adjoint_norm = "seminorm",
}

-- What mccallum_foster can stand on.
local bases = {}
for name, m in pairs(M.methods) do
  if m.a then bases[name] = m end
end

local gradient_modes = {
  discrete = "discrete", backsolve = "backsolve", adjoint = "backsolve", frozen = "frozen",
  reversible = "reversible", interp = "interp", full = "discrete", forward = "forward",
  gauss = "gauss",
}

--- Is a gradient mode, if there is such a one, a continuous adjoint?
function M.is_continuous(grad)
  local mode = gradient_modes[grad]
  return mode == "backsolve" or mode == "frozen" or mode == "interp" or mode == "gauss"
end

-- ---- Single options ----

local function check_number(name, v, least)
  if type(v) ~= "number" or v ~= v or v < least then
    raise("ode.solve: %s is %s, expected a number of at least %g", name, tostring(v), least)
  end
end

--- SciPy's names of methods that are here, which solve_ivp takes.
M.scipy_methods = {RK45 = "dopri5", RK23 = "bosh3", DOP853 = "dop853", Radau = "radau5", BDF = "bdf",
  LSODA = "auto"}

local function known_of(kind, name, known)
  if kind == "method" and M.scipy_methods[name] then
    raise("ode.solve: unknown method %q, SciPy's name for %q", name, M.scipy_methods[name])
  end
  return known[name] or raise("ode.solve: unknown %s %q%s", kind, tostring(name), options.choices(name, known))
end

local function check_choice(o, name, ...)
  for _, known in ipairs {...} do
    if o[name] == known then return end
  end
  raise("ode.solve: %s is %s, expected \"%s\"", name, tostring(o[name]), table.concat({...}, "\" or \""))
end

-- rtol or atol: a number, and when they differ from element to element a float64 tensor of them.
local function tolerance(name, v, state)
  if type(v) ~= "table" and not is_tensor(v) then
    check_number(name, v, 0)
    return v
  end
  local all
  if is_tensor(v) and not state.sizes then all = core.to(v, "float64") else all = state.spread(v) end
  if all.numel ~= state.y0.numel then
    raise("ode.solve: %s has %d elements, the state has %d", name, all.numel, state.y0.numel)
  end
  all = all:detach()
  local least = all:min():item()
  check_number("the least " .. name, least, 0)
  return least, core.contiguous(core.reshape(all, -1))
end

-- The request's fields for a norm: "rms", "max", "parts" (the greatest of the parts' root mean squares), {sizes of
-- groups}, or a function of the scaled errors.
local function set_norm(request, norm, state)
  if norm == "rms" or norm == "max" then
    request.max_norm = norm == "max"
    return
  end
  local sizes = norm == "parts" and (state.sizes or {state.y0.numel}) or norm
  if type(norm) == "function" then
    local argument = state.argument
    request.norm_call = argument and function(x) return norm(argument(x)) end or norm
  elseif type(sizes) == "table" then
    local ends, sum = {}, 0
    for i, size in ipairs(sizes) do
      check_number("a size in norm", size, 1)
      sum = sum + size
      ends[i] = sum
    end
    if sum ~= state.y0.numel then
      raise("ode.solve: the groups of norm have %g elements, the state has %d", sum, state.y0.numel)
    end
    request.groups = core.tensor(ends, "float64")
  else
    raise("ode.solve: norm is %s, expected \"rms\" or \"max\" or \"parts\" or sizes of groups or a function",
      tostring(norm))
  end
end

local function numbers_of(name, list)
  if list == nil then return {} end
  if is_tensor(list) then list = list:totable() end
  if type(list) == "number" then list = {list} end
  if type(list) ~= "table" then raise("ode.solve: %s is a %s, expected times", name, type(list)) end
  for i, v in ipairs(list) do
    if type(v) ~= "number" or v ~= v then raise("ode.solve: %s[%d] is %s, expected a time", name, i, tostring(v)) end
  end
  return list
end

-- step_t and jump_t as stops strictly inside the solve, in its order; a time in both is a jump.
local function set_stops(request, o, times)
  if o.step_t == nil and o.jump_t == nil then return end
  local first, last = times[1]:item(), times[times.numel]:item()
  local direction, at, list = last >= first and 1 or -1, {}, {}
  for name, jump in pairs {step_t = 0, jump_t = 1} do
    for _, t in ipairs(numbers_of(name, o[name])) do
      if direction * (t - first) > 0 and direction * (last - t) > 0 then at[t] = math.max(at[t] or 0, jump) end
    end
  end
  for t in pairs(at) do list[#list + 1] = t end
  if #list == 0 then return end
  table.sort(list, function(a, b) return direction * (b - a) > 0 end)
  local jumps = {}
  for i, t in ipairs(list) do jumps[i] = at[t] end
  request.stops, request.jumps = core.tensor(list, "float64"), core.tensor(jumps, "float64")
end

-- Families that do not suit the adjoint equation, by what does: it has no ∂/∂t, no linear part and no halves.
local adjoint_of = {
  Rosenbrock = "kvaerno5", exponential = "kvaerno5", ["automatic switching"] = "kvaerno5", symplectic = "tsit5",
}

local function check_adjoint(method)
  local m = method and M.methods[method]
  if m and adjoint_of[m.family] then
    raise("ode.solve: adjoint_method = %q does not suit the adjoint equation; use %q, \"radau5\", \"bdf\" or an "
      .. "explicit method", method, adjoint_of[m.family])
  end
end

--- Whether steps of a method are neither given by a size nor its own choice.
function M.unsized(method, step_size)
  local m = M.methods[method]
  return m ~= nil and m.error_order == 0 and step_size == 0
end

local function check_steps(o, times)
  if not M.unsized(o.method, o.step_size) or o.grid_constructor or o.land or times.numel < 2 then return end
  raise("ode.solve: method %q estimates no error and cannot choose its steps; give step_size, grid_constructor, or "
    .. "land = true for one step from time to time", o.method)
end

--- The nodes of a fixed grid that goes through the times, from the option grid_constructor(f, y0, t).
function M.grid_of(construct, f, y0, times)
  if type(construct) ~= "function" then
    raise("ode.solve: grid_constructor is a %s, expected a function of f, y0 and t", type(construct))
  end
  local grid = construct(f, y0, times)
  local nodes = is_tensor(grid) and core.to(grid, "float64") or core.tensor(numbers_of("grid_constructor's grid", grid),
    "float64")
  local list = nodes:totable()
  local first, last = times[1]:item(), times[times.numel]:item()
  if #list < 2 or list[1] ~= first or list[#list] ~= last then
    raise("ode.solve: grid_constructor's grid goes from %s to %s, expected from %g to %g", tostring(list[1]),
      tostring(list[#list]), first, last)
  end
  for i = 2, #list do
    if (list[i] - list[i - 1]) * (last - first) <= 0 then
      raise("ode.solve: grid_constructor's grid does not go on at node %d (%g after %g)", i, list[i], list[i - 1])
    end
  end
  return core.contiguous(nodes)
end

local function set_grid(request, o, f, y0, times)
  if o.grid_constructor then request.grid = M.grid_of(o.grid_constructor, f, y0, times) end
end

-- The linear part for exponential methods as the core takes it.
local function semilinear_of(l)
  if l == nil then return nil end
  if not is_tensor(l) then l = core.tensor(l, "float64") end
  if l.needs_grad then
    raise("ode.solve: linear counts as a constant, but this tensor needs a gradient; give linear:detach()")
  end
  return core.contiguous(core.to(l, "float64"))
end

-- M of M y' = f as the core takes it: a square matrix, or its diagonal.
local function mass_of(m, state)
  if m == nil then return nil end
  if not is_tensor(m) then m = core.tensor(m, "float64") end
  local n = state.y0.numel
  if not (m.ndim == 1 and m.numel == n) and not (m.ndim == 2 and m:size(1) == n and m:size(2) == n) then
    raise("ode.solve: mass has shape (%s), expected %d numbers or a %d×%d matrix", message.shape(m), n, n, n)
  end
  if m.needs_grad then
    raise("ode.solve: mass counts as a constant, but this tensor needs a gradient; give mass:detach()")
  end
  return core.contiguous(core.to(m, "float64"))
end

-- The mass matrix goes to methods that take one; others solve y' = M⁻¹ f, request.inverse being M⁻¹.
local function set_mass(request, o, state)
  local mass, method = mass_of(o.mass, state), M.methods[request.method]
  if mass == nil then return end
  if method.mass then
    if request.grad ~= "discrete" and request.grad ~= "forward" then
      raise("ode.solve: grad = %q does not go with a mass matrix, use \"discrete\"", tostring(request.grad))
    end
    request.mass = mass
    return
  end
  local why = method.family == "symplectic" and "which would mix its halves" or o.linear ~= nil
    and "so give linear as that of M⁻¹ f, and f so too" or o.jac ~= nil and "so jac would have to be its"
  if why then
    raise("ode.solve: method \"%s\" solves M y' = f as y' = M⁻¹ f, %s; or use rodas5p, radau5 or bdf", method.name, why)
  end
  request.inverse = masses.inverse(mass)
    or raise("ode.solve: method \"%s\" solves M y' = f as y' = M⁻¹ f, and this mass matrix is singular; use rodas5p, "
      .. "radau5 or bdf", method.name)
end

-- Where ∂f/∂y may differ from zero, from {lower = l, upper = u} (a band) or a square matrix of marks, as the starts of
-- rows and the columns in them.
local function set_pattern(request, pattern, state)
  if pattern == nil then return end
  local n, starts, columns = state.y0.numel, {0}, {}
  if type(pattern) == "table" and (pattern.lower or pattern.upper) then
    local band = options.check("ode.solve: jac_sparsity", pattern, {lower = 0, upper = 0})
    check_number("jac_sparsity.lower", band.lower, 0)
    check_number("jac_sparsity.upper", band.upper, 0)
    for i = 1, n do
      for j = math.max(1, i - band.lower), math.min(n, i + band.upper) do columns[#columns + 1] = j - 1 end
      starts[i + 1] = #columns
    end
  else
    local marks = is_tensor(pattern) and pattern or core.tensor(pattern, "float64")
    if marks.ndim ~= 2 or marks:size(1) ~= n or marks:size(2) ~= n then
      raise("ode.solve: jac_sparsity has shape (%s), expected a %d×%d matrix or {lower = l, upper = u}",
        message.shape(marks), n, n)
    end
    for i, row in ipairs(core.to(marks, "float64"):totable()) do
      for j = 1, n do
        if row[j] ~= 0 then columns[#columns + 1] = j - 1 end
      end
      starts[i + 1] = #columns
    end
  end
  local mass = request.mass or request.inverse
  if mass and mass.ndim == 2 then
    raise("ode.solve: with jac_sparsity the mass matrix has to be a diagonal, give its %d numbers", n)
  end
  if #columns == 0 then raise("ode.solve: jac_sparsity marks nothing") end
  request.pattern_start, request.pattern_column = core.tensor(starts, "float64"), core.tensor(columns, "float64")
end

-- ---- Events ----

local event_fields = {
  fn = options.none, direction = 0, terminal = options.none, reset = options.none, name = options.none,
}

-- One entry of the option events, as the core takes it. terminal is true, false or after how many; without it an event
-- with a reset goes on and another one ends the solve.
local function event_of(e, i, state)
  if type(e) == "function" then e = {fn = e} end
  if type(e) == "table" and e.fn == nil and type(e[1]) == "function" then  -- {function, terminal = …}
    local named = {fn = e[1]}
    for k, v in pairs(e) do
      if k ~= 1 then named[k] = v end
    end
    e = named
  end
  e = options.check(("ode.solve: events[%d]"):format(i), e, event_fields)
  if type(e.fn) ~= "function" then
    raise("ode.solve: events[%d].fn is a %s, expected a function of t and y", i, type(e.fn))
  end
  if e.direction ~= 0 and e.direction ~= 1 and e.direction ~= -1 then
    raise("ode.solve: events[%d].direction is %s, expected 1, -1 or 0", i, tostring(e.direction))
  end
  local terminal = e.terminal
  if terminal == nil then terminal = e.reset == nil end
  local stop_after = terminal == true and 1 or terminal or 0
  check_number(("events[%d].terminal"):format(i), stop_after, 0)
  local fn, argument = e.fn, state.argument
  return {
    fn = argument and function(t, y) return fn(t, argument(y)) end or fn,
    reset = e.reset and (state.field and state.field(e.reset) or e.reset) or nil,
    direction = e.direction, stop_after = stop_after,
  }
end

local function set_events(request, o, state)
  local given = o.events or o.event
  if given == nil then return end
  local single = type(given) == "table" and (given.fn or given.terminal ~= nil)
  if type(given) == "function" or single then given = {given} end
  if type(given) ~= "table" then raise("ode.solve: event is a %s, expected a function or a list", type(given)) end
  request.events, request.event_points = {}, o.event_points
  for i, e in ipairs(given) do request.events[i] = event_of(e, i, state) end
  if gradient_modes[o.grad] ~= "discrete" and o.grad ~= "forward" then
    raise("ode.solve: grad = %q does not pass events, use \"discrete\" or \"forward\"", tostring(o.grad))
  end
end

-- ---- All together ----

-- What the forward and the backward solve have in common.
local function common(o, state)
  for _, name in ipairs {"first_step", "min_step", "max_step", "step_size", "max_order", "max_iters", "keep"} do
    check_number(name, o[name], 0)
  end
  check_number("max_steps", o.max_steps, 1)
  local request = {
    method = known_of("method", o.method, M.methods).name, controller = control.chosen(o),
    first_step = o.first_step, min_step = o.min_step, accept_min_step = o.on_min_step == "accept",
    max_step = o.max_step == math.huge and 0 or o.max_step, max_steps = o.max_steps, step_size = o.step_size,
    land = o.land, max_order = o.max_order, max_iters = o.max_iters, keep = math.min(o.keep, 2 ^ 50),
    seminorm = o.adjoint_norm == "seminorm", coupling = o.coupling,
    rtol = 0, atol = 0, max_norm = false, grad = "", max_tangents = 0, family = "", form = "", slots = 0, budget = 0,
    dense = false, linear = false,  -- (room for what is set below)
  }
  request.base = o.base and (M.methods[o.base] or known_of("base", o.base, bases)).name
  request.semilinear = semilinear_of(o.linear)
  request.rtol, request.rtols = tolerance("rtol", o.rtol, state)
  request.atol, request.atols = tolerance("atol", o.atol, state)
  if request.rtol == 0 and request.atol == 0 then
    raise("ode.solve: rtol and atol are both 0, so no step could be accepted")
  end
  return request
end

local function set_saving(request, o)
  if o.save == "steps" then request.every = 1
  elseif type(o.save) == "number" then
    check_number("save", o.save, 1)
    request.every = o.save
  elseif o.save ~= "times" then
    raise("ode.solve: save is %s, expected \"times\" or \"steps\" or every how many", tostring(o.save))
  end
  if request.every and request.events then raise("ode.solve: save = \"steps\" and events exclude each other") end
  if o.save_fn ~= nil and type(o.save_fn) ~= "function" then
    raise("ode.solve: save_fn is a %s, expected a function of t and y", type(o.save_fn))
  end
  request.dense, request.linear = o.dense and true or false, o.interp == "linear"
end

--- The request to the core for checked options o, a state and times. f and y0 as the user gave them.
function M.of(o, f, y0, state, times)
  check_choice(o, "adjoint_norm", "seminorm", "rms")
  check_choice(o, "on_min_step", "fail", "accept")
  check_choice(o, "interp", "dense", "cubic", "linear")
  if o.max_num_steps then o.max_steps = o.max_num_steps end
  for i, p in ipairs(o.params or {}) do
    if not is_tensor(p) then raise("ode.solve: params[%d] is a %s, expected a tensor", i, type(p)) end
  end
  local request = common(o, state)
  set_norm(request, o.norm, state)
  check_number("checkpoints", o.checkpoints, 0)
  check_number("memory", o.memory, 0)
  if o.hold ~= nil then check_number("hold", o.hold, 0) end
  request.hold = math.min(o.hold or -1, 2 ^ 50)
  request.grad = known_of("grad", o.grad, gradient_modes)
  check_number("max_tangents", o.max_tangents, 0)
  request.max_tangents, request.family = o.max_tangents, M.methods[request.method].family
  set_mass(request, o, state)
  set_pattern(request, o.jac_sparsity, state)
  if o.preconditioner ~= nil and (type(o.preconditioner) ~= "function" or state.form or state.sizes) then
    raise("ode.solve: preconditioner is a %s, expected a function (r, t, y, shift) → x for a state that is a tensor",
      type(o.preconditioner))
  end
  request.preconditioner = o.preconditioner
  request.params, request.form = o.params, state.form or "tensors"
  request.slots = o.checkpoints
  request.budget = (o.checkpoints > 0 or o.dense or o.grad == "full") and 0 or o.memory
  core.ode_check(state.y0, times)
  set_stops(request, o, times)
  set_events(request, o, state)
  set_saving(request, o)
  set_grid(request, o, f, y0, times)
  check_steps(o, times)
  if (request.grad == "discrete" or request.grad == "forward") and not (o.adjoint_method or o.adjoint_rtol
    or o.adjoint_atol) then return request end
  check_adjoint(o.adjoint_method)
  request.adjoint = common(setmetatable({
    method = o.adjoint_method or adjoint_of[request.family], rtol = o.adjoint_rtol or request.rtol,
    atol = o.adjoint_atol or request.atol,
    first_step = 0, land = false,
  }, {__index = o}), state)
  return request
end

-- Requests of numbers, names and switches alone, which depend on nothing else than the state's form, are kept with what
-- they were made of. The latest comes first.
local kept, MOST_KEPT = {}, 8

local depends = {  -- on the state, the times or f, or hold more than that
  step_t = true, jump_t = true, linear = true, mass = true, jac_sparsity = true, params = true, batch = true,
}

-- Are these the options that the entry was made of?
local function is_made_of(entry, given, form)
  if entry.form ~= form then return false end
  local count, of = 0, entry.given
  for k, v in pairs(given) do
    if of[k] ~= v then return false end
    count = count + 1
  end
  return count == entry.count
end

--- For options given to a solve, when they were checked before: all options, and the request to fill in. Else nil.
function M.kept(given, form)
  for i = 1, #kept do
    local entry = kept[i]
    if is_made_of(entry, given, form) then
      kept[1], kept[i] = entry, kept[1]
      return entry.o, setmetatable({}, entry.meta)
    end
  end
end

--- Keeps a request that was made of these options, if it may serve again. Gives the request to fill in.
function M.keep(given, form, o, request)
  local copy, count = {}, 0
  for k, v in pairs(given) do
    local kind = type(v)
    if depends[k] or v ~= v or (kind ~= "number" and kind ~= "string" and kind ~= "boolean") then return request end
    copy[k], count = v, count + 1
  end
  if not M.methods[request.method].a or request.grad == "forward" or o.norm == "parts"
    or M.unsized(o.method, o.step_size) then return request end
  request.read = core.ode_options(request)
  table.insert(kept, 1, {given = copy, count = count, form = form, o = o, meta = {__index = request}})
  kept[MOST_KEPT + 1] = nil
  return setmetatable({}, kept[1].meta)
end

--- With an event the last time may be infinite; the core goes as far as 1e30.
function M.bounded(times)
  local last = times[times.numel]:item()
  if math.abs(last) ~= math.huge or times.numel < 2 then return times end
  return core.cat({core.narrow(times, 1, 1, times.numel - 1), core.tensor({last > 0 and 1e30 or -1e30}, "float64")}, 1)
end

M.numbers_of = numbers_of
--- The state that y0 is, see state.lua.
function M.state_of(y0)
  local state = state_kinds.of(y0)
  if core.capturing() and not state.form then
    raise("ode.solve: a solve chooses its steps by values, which are not known while a function is captured; run that "
      .. "as it is (fallback = \"eager\"): the solve captures its own right-hand side")
  end
  return state
end
M.times_of = state_kinds.times

return M
