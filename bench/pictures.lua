-- The measurements that are pictures: work and precision beside the peers, and how time and memory grow with the
-- number of steps, the batch, the channels and the parameters in every gradient mode.
--
--   bin/tide bench/pictures.lua [work_precision] [growth] [--python PATH] [--out doc/images] [--repeats 3]
--
-- Times are processor times of one thread. work_precision needs --python with SciPy, torchdiffeq and diffrax; growth
-- needs nothing.

local here = arg[0]:match "^(.*)/bench/[^/]*$" or "."
package.path = here .. "/bench/peers/?.lua;" .. package.path
local process = require "process"
local side = require "side"
local tide = require "tide"
local nn, ode, plot = tide.nn, tide.ode, tide.plot

local o = {python = "", out = here .. "/doc/images", repeats = 3}
local wanted = {}
do
  local i = 1
  while arg[i] do
    local key = arg[i]:match "^%-%-(%a+)$"
    if key and o[key] ~= nil and arg[i + 1] then
      o[key], i = type(o[key]) == "number" and tonumber(arg[i + 1]) or arg[i + 1], i + 2
    elseif arg[i] == "work_precision" or arg[i] == "growth" then
      wanted[arg[i]], i = true, i + 1
    else
      process.fail("unknown argument or no value: %s", arg[i])
    end
  end
end
tide.threads(1)

-- ---- Work and precision ----

-- Records by problem, then by method, as they come.
local function gathered(records)
  local problems = {}
  for _, r in ipairs(records) do
    local p = problems[r.case] or {order = {}}
    problems[r.case] = p
    if not p[r.method] then
      p[r.method] = {}
      p.order[#p.order + 1] = r.method
    end
    table.insert(p[r.method], r)
  end
  return problems
end

local looks = {
  tide = {width = 2.5, marker = "o"}, scipy = {dash = "dashed", marker = "s"},
  torchdiffeq = {dash = "dotted", marker = "^"}, diffrax = {dash = "dashdot", marker = "diamond"},
}

local function curves(ax, problem, measure)
  for k, method in ipairs(problem.order) do
    local x, y = {}, {}
    for _, r in ipairs(problem[method]) do
      if r.error > 0 and r[measure] and (measure ~= "nfe" or r.nfe > 1) then
        x[#x + 1], y[#y + 1] = measure == "cpu" and r.cpu * 1e3 or r[measure], r.error
      end
    end
    local look = {label = method, color = plot.color(k), size = 6}
    for key, value in pairs(looks[method:match "^%a+"]) do look[key] = value end
    if #x > 1 then ax:line(x, y, look) end
  end
end

local function work_precision()
  if o.python == "" then process.fail "work_precision: --python PATH is missing: the Python that has the peers" end
  process.check_modules(o.python, {"scipy", "torch", "torchdiffeq", "jax", "diffrax", "safetensors"}, "work_precision")
  local exchange = os.tmpname()
  local ours = ("%s/bin/tide %s/bench/peers/work_precision.lua --threads 1 --exchange %s"):format(here, here, exchange)
  os.execute(ours .. " --check")
  local records = process.run(ours .. " --repeats " .. o.repeats, 1)
  local theirs = "'%s' %s/bench/peers/work_precision.py --threads 1 --peer %s --repeats %d --exchange %s"
  for _, peer in ipairs {"scipy", "torchdiffeq", "diffrax"} do
    for _, r in ipairs(process.run(theirs:format(o.python, here, peer, o.repeats, exchange), 1)) do
      records[#records + 1] = r
    end
  end
  os.remove(exchange)
  local problems = gathered(records)
  local fig = plot.figure {width = 1700, height = 1050, rows = 2, cols = 3,
    title = "Error against work, tolerances 1e-3 … 1e-10"}
  for k, name in ipairs {"lotka-volterra", "robertson", "network"} do
    local title = ({"Lotka–Volterra to t = 10", "Robertson to t = 40 (stiff)", "a network 2-50-2 to t = 10"})[k]
    curves(fig:axes(k, {title = title, xlabel = "evaluations", ylabel = "relative error", xscale = "log",
      yscale = "log"}), problems[name], "nfe")
    curves(fig:axes(3 + k, {xlabel = "milliseconds of processor time", ylabel = "relative error", xscale = "log",
      yscale = "log", legend = name == "robertson" and "bottom left"}), problems[name], "cpu")
  end
  assert(fig:save(o.out .. "/work_precision.png"))
  print("drew " .. o.out .. "/work_precision.png")
end

-- ---- Growth ----

local modes = {
  {label = "discrete", grad = "discrete", method = "rk4"},
  {label = "discrete, 4 checkpoints", grad = "discrete", checkpoints = 4, method = "rk4"},
  {label = "adjoint", grad = "adjoint", method = "rk4"},
  {label = "reversible (McCallum–Foster)", grad = "reversible", method = "mccallum_foster", base = "rk4"},
}

-- A field of images: two 3×3 convolutions with group norm.
local function image_field(channels)
  local a, b = nn.Conv2d(channels, channels, 3, {padding = 1}), nn.Conv2d(channels, channels, 3, {padding = 1})
  local norm, parameters = nn.GroupNorm(4, channels), {}
  for _, m in ipairs {a, b, norm} do
    for _, p in ipairs(m:parameters()) do parameters[#parameters + 1] = p end
  end
  return function(_, z) return b(norm(a(z)):tanh()) end, parameters
end

-- A field of vectors with a hidden layer.
local function vector_field(width)
  local net = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 8))
  return function(_, y) return net(y) end, net:parameters()
end

-- Processor seconds and peak bytes of a solve with its gradient.
local function solve_and_gradient(f, parameters, y0, steps, mode)
  local how = {method = mode.method, base = mode.base, grad = mode.grad, step_size = 1 / steps,
    checkpoints = mode.checkpoints}
  y0 = y0:requires_grad()
  local function work()
    ode.solve(f, y0, {0, 1}, how).last:square():sum():backward()
    y0.grad = nil
    for _, p in ipairs(parameters) do p.grad = nil end
  end
  work()
  collectgarbage()
  collectgarbage()
  local before = tide.memory("reset").live
  work()
  local bytes = tide.memory().peak - before
  return side.measure(work, o.repeats, 0.05).cpu, bytes
end

local sweeps = {
  {name = "solver steps", values = {10, 30, 100, 300, 1000}, make = function(v)
    local f, p = image_field(16)
    return f, p, tide.randn(4, 8, 8, 16), v
  end},
  {name = "batch", values = {1, 4, 16, 64}, make = function(v)
    local f, p = image_field(16)
    return f, p, tide.randn(v, 8, 8, 16), 20
  end},
  {name = "channels", values = {8, 16, 32, 64}, make = function(v)
    local f, p = image_field(v)
    return f, p, tide.randn(4, 8, 8, v), 20
  end},
  {name = "parameters", values = {64, 512, 4096, 32768}, make = function(v)
    local f, p = vector_field(v)
    return f, p, tide.randn(8, 8), 20
  end, x = function(v) return 17 * v + 8 end},
}

local function growth()
  local fig = plot.figure {width = 1900, height = 900, rows = 2, cols = 4,
    title = "A solve and its gradient (rk4, fixed steps): time and memory"}
  for k, sweep in ipairs(sweeps) do
    local options = {xscale = "log", yscale = "log", xlabel = sweep.name}
    local time, memory = fig:axes(k, options), fig:axes(4 + k, options)
    time:set {ylabel = "milliseconds (one thread)", title = "against " .. sweep.name}
    memory:set {ylabel = "peak megabytes"}
    for m, mode in ipairs(modes) do
      local x, seconds, bytes = {}, {}, {}
      for i, v in ipairs(sweep.values) do
        tide.manual_seed(1)
        local f, parameters, y0, steps = sweep.make(v)
        local s, b = solve_and_gradient(f, parameters, y0, steps, mode)
        print(("%-14s %-30s %8g %10.2f ms %10.3f MB"):format(sweep.name, mode.label, v, s * 1e3, b / 1e6))
        x[i], seconds[i], bytes[i] = sweep.x and sweep.x(v) or v, s * 1e3, b / 1e6
      end
      local look = {label = mode.label, color = plot.color(m), marker = "o"}
      time:line(x, seconds, look)
      memory:line(x, bytes, look)
    end
  end
  assert(fig:save(o.out .. "/growth.png"))
  print("drew " .. o.out .. "/growth.png")
end

if wanted.work_precision or not next(wanted) then work_precision() end
if wanted.growth or not next(wanted) then growth() end
