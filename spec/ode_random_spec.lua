-- Random right-hand sides that treat the rows of a state alike, solved captured and as they are: states, statistics,
-- events, gradients and second derivatives must agree, by all kinds of methods, in batches and as one equation. What is
-- drawn depends on a seed; more with `TIDE_RANDOM_PROGRAMS=1000`, others with `TIDE_RANDOM_SEED=5000`.

local drawer = require "spec.support.drawer"
local helper = require "spec.helper"
local tide = require "tide"
local ode = tide.ode

local count = math.ceil((tonumber(os.getenv "TIDE_RANDOM_PROGRAMS") or 40) / 2)
local first = tonumber(os.getenv "TIDE_RANDOM_SEED") or 1

-- ---- Fields: steps on (rows × c), each {text, f(values, t, rows), columns} ----

local function parameter(d, field, shape)
  local w = (d.generator:randn(shape, "float64") * 0.5):to(field.dtype)
  if d.chance(70) then w:requires_grad() end
  field.parameters[#field.parameters + 1] = w
  return w
end

local smooth = {"tanh", "sin", "cos", "sigmoid", "gelu", "softplus", "square", "silu", "erf"}

-- A step on the value at `at` with c columns; `others` may be combined with it.
local function draw_step(d, field, at, c, others)
  local k = d.upto(12)
  if k <= 2 then
    local name = d.pick(smooth)
    return {name, function(v) return v[at][name](v[at]) end, c}
  elseif k <= 4 then
    local out = d.pick {1, 2, 3, c}
    local w = parameter(d, field, {c, out})
    return {"matmul", function(v) return v[at]:matmul(w) end, out}
  elseif k == 5 then
    local w = parameter(d, field, {c})
    return {"times a vector", function(v) return v[at] * w end, c}
  elseif k == 6 then
    local other = d.pick(others)
    local name = d.pick {"add", "sub", "mul", "maximum"}
    local at2, c2 = other[1], other[2]
    if c2 ~= c and c2 ~= 1 and c ~= 1 then return nil end
    return {name, function(v) return tide[name](v[at], v[at2]) end, math.max(c, c2)}
  elseif k == 7 then
    local other = d.pick(others)
    return {"cat", function(v) return tide.cat({v[at], v[other[1]]}, -1) end, c + other[2]}
  elseif k == 8 then
    local from = d.upto(c)
    local n = d.upto(c - from + 1)
    return {"narrow", function(v) return v[at]:narrow(-1, from, n) end, n}
  elseif k == 9 then
    local name = d.pick {"sum", "mean", "logsumexp"}
    return {name, function(v) return v[at][name](v[at], -1, true) end, 1}
  elseif k == 10 then
    local w = parameter(d, field, {field.n})
    local function f(v, _, rows) return v[at] * (rows and w[rows] or w):reshape({-1, 1}) end
    return {"a number for each row", f, c}
  elseif k == 11 then
    return {"where", function(v) return tide.where(v[at]:gt(0.2), v[at] * 0.5 + 0.1, v[at]) end, c}
  end
  return {"times cos(t)", function(v, t) return v[at] * t:cos():to(v[at].dtype) end, c}
end

local function draw_field(d, n, c, dtype)
  local field = {n = n, dtype = dtype, parameters = {}}
  local steps, widths = {}, {c}
  for _ = 1, 1 + d.upto(7) do
    local at = d.chance(70) and #widths or d.upto(#widths)
    local others = {}
    for i, w in ipairs(widths) do others[i] = {i, w} end
    local step = draw_step(d, field, at, widths[at], others)
    if step and step[3] <= 8 then steps[#steps + 1], widths[#widths + 1] = step, step[3] end
  end
  local last = #widths
  local mix = parameter(d, field, {widths[last], c})
  function field.f(t, y, rows)
    local v = {y}
    for i, step in ipairs(steps) do v[1 + i] = step[2](v, t, rows) end
    return v[last]:matmul(mix):tanh() - y * 0.7
  end
  local text = {}
  for i, step in ipairs(steps) do text[i] = step[1] end
  field.text = table.concat(text, ", ")
  return field
end

-- ---- Solves ----

local methods = {
  {method = "tsit5"}, {method = "dopri5"}, {method = "bosh3"}, {method = "dop853"}, {method = "rk4", step_size = 0.1},
  {method = "abm"}, {method = "rodas5p"}, {method = "kvaerno4"}, {method = "bdf"}, {method = "radau5"},
  {method = "auto"}, {method = "trbdf2"}, {method = "etd1", step_size = 0.1, linear = true},
  {method = "alf", step_size = 0.1}, {method = "heun2", step_size = 0.05},
}

local function draw_problem(seed)
  local d = drawer(seed)
  d.generator = tide.generator(seed)
  local p = {seed = seed, batch = d.chance(60), c = d.pick {1, 2, 3, 5}, options = {}}
  p.n = d.pick(p.batch and {1, 2, 3, 7, 40} or {1, 2, 3, 7})
  p.dtype = d.chance(75) and "float64" or "float32"
  local m = methods[seed % #methods + 1]
  for k, v in pairs(m) do p.options[k] = v end
  if m.linear then p.options.linear = tide.full({p.c}, -0.7, p.dtype) end
  if m.linear and not p.batch then p.options.linear = tide.full({p.n * p.c}, -0.7, p.dtype) end
  p.options.rtol = p.dtype == "float32" and 1e-4 or d.pick {1e-4, 1e-7}
  p.options.atol = p.options.rtol
  p.options.batch = p.batch or nil
  p.field = draw_field(d, p.n, p.c, p.dtype)
  p.start = d.generator:randn({p.n, p.c}, "float64"):to(p.dtype)
  p.times = d.pick {{0, 1}, {0, 0.3, 0.35, 1.1}, {1, 0.2}}
  if p.batch and d.chance(40) then
    p.times = {}
    for i = 1, p.n do p.times[i] = {0, 0.2 + i / p.n, 1.3} end
  end
  p.options.max_tangents = 1000
  if d.chance(20) then p.options.checkpoints = 2 end
  if d.chance(20) then p.options.hold = d.pick {0, 500} end
  if d.chance(15) then p.options.max_step = 0.2 end
  if d.chance(30) then
    local level = d.pick {0, 0.1, -0.2}
    local function fn(t, y) return y:reshape(-1)[1] - level - t * 0.05 end
    p.options.event = {fn = fn, direction = d.pick {0, 1, -1}}
    if d.chance(60) then p.options.event.reset = function(_, y) return y * -0.8 end
    elseif d.chance(50) then p.options.event.terminal = d.pick {1, 2} end
  end
  local modes = {"discrete", "discrete", "full"}
  if not p.options.event then modes = {"discrete", "discrete", "interp", "gauss", "forward"} end
  p.options.grad = d.pick(modes)
  if m.method == "alf" and p.options.grad == "full" then p.options.grad = "discrete" end
  p.second = p.n * p.c < 20 and p.options.grad == "discrete" and d.chance(25)
  return p
end

local function zero(x) return x:detach() * 0 end

local function outcome(p, capture)
  local options = {capture = capture}
  for k, v in pairs(p.options) do options[k] = v end
  local y0 = p.start:clone():requires_grad()
  local sol = ode.solve(p.field.f, y0, p.times, options)
  local out = {sol = sol, values = {}, names = {}, stats = {}}
  local function add(name, x) out.values[#out.values + 1], out.names[#out.values + 1] = x:detach(), name end
  local loss, points = 0, {y0}
  for i, row in ipairs(p.batch and sol.rows or {sol}) do
    add("states", row.ys)
    loss = loss + (row.ys:double() * tide.generator(3):rand(row.ys.shape, "float64")):sum()
    out.stats[i] = ("%s %d %d"):format(row.status, row.stats.accepted, row.stats.rejected)
    if row.events and row.events.t.numel > 0 then
      add("event times", row.events.t)
      loss = loss + row.events.t:double():sum()
    end
  end
  for _, w in ipairs(p.field.parameters) do
    if w.needs_grad then points[#points + 1] = w end
  end
  local found, squares = tide.gradients(loss, points, {create_graph = p.second}), 0
  for i, g in ipairs(found) do
    add("gradient " .. i, g or zero(points[i]))
    if g then squares = squares + g:double():square():sum() end
  end
  if p.second then
    for i, g in ipairs(tide.gradients(squares, points)) do add("second gradient " .. i, g or zero(points[i])) end
  end
  return out
end

local function describe_problem(p)
  local o = {}
  for k, v in pairs(p.options) do o[#o + 1] = k .. " = " .. tostring(v) end
  table.sort(o)
  return ("seed %d, %d×%d %s: %s\n%s"):format(p.seed, p.n, p.c, p.dtype, table.concat(o, ", "), p.field.text)
end

-- nil when they agree, else where not.
local function compare(p, got, expected)
  local steps, other = table.concat(got.stats, ", "), table.concat(expected.stats, ", ")
  local tol = p.dtype == "float32" and 2e-3 or steps == other and 1e-7 or 1e-3  -- a step was decided by a rounding
  for i, x in ipairs(expected.values) do
    local scale = math.max(1, x.numel > 0 and x:abs():max():item() or 1)
    local why = helper.difference(got.values[i]:double() / scale, x:double() / scale, tol)
    if why then return ("%s: %s\nsteps %s against %s"):format(expected.names[i], why, steps, other) end
  end
end

describe("a random field of rows", function()
  it("is solved captured as it is solved without: states, events, gradients", function()
    for seed = first, first + count - 1 do
      local p = draw_problem(seed)
      local expected = outcome(p, false)
      for _ = 1, 2 do
        local got = outcome(p, nil)
        local why = compare(p, got, expected)
        if why then error(describe_problem(p) .. "\n" .. why, 0) end
        assert.is_true((p.batch and got.sol.rows[1] or got.sol).captured)
      end
    end
  end)
end)
