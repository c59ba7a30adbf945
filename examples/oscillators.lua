-- A hundred van der Pol oscillators, from gentle to stiff, solved as one batch in which every one keeps its own steps.
--
--   bin/tide examples/oscillators.lua [--count 100] [--most 20] [--out oscillators.png]
--
-- Solved jointly, with one step size for all, the hardest oscillator of the moment sets the pace for the rest. In a
-- batch each row is solved as if it were alone, and f is evaluated only for the rows that are still at work.

local tide = require "tide"
local ode, plot = tide.ode, tide.plot

local o = {count = 100, most = 20, out = "oscillators.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: oscillators.lua [--count n] [--most mu] [--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

-- x'' = μ(1 − x²)x' − x, with a damping μ for each row and starts all around
local mu = tide.linspace(0, 1, o.count, "float64"):mul(math.log(o.most / 0.1)):exp() * 0.1
local angle = tide.linspace(0, 40, o.count, "float64")
local start = tide.stack({angle:cos() * 2, angle:sin() * 2}, 2)
local evaluated = 0
local function field(damping)
  return function(_, y)
    evaluated = evaluated + y:size(1)
    local x, v = y:narrow(2, 1, 1), y:narrow(2, 2, 1)
    return tide.cat({v, damping * (1 - x * x) * v - x}, 2)
  end
end
local all = mu:unsqueeze(2)
local options = {method = "dopri5", rtol = 1e-6, atol = 1e-8}
local times = tide.linspace(0, 25, 2501, "float64")

local function timed(name, solve)
  evaluated = 0
  local began = os.clock()
  local sol = tide.no_grad(solve)
  print(("%-8s %9d evaluations of one oscillator, %.2f s of processor time"):format(name, evaluated,
    os.clock() - began))
  return sol, evaluated
end

local batch, alone = timed("batch", function()
  local own = {batch = true}
  for k, v in pairs(options) do own[k] = v end
  return ode.solve(function(t, y, rows) return field(all[rows])(t, y) end, start, times, own)
end)
local joint, together = timed("jointly", function()
  local own = {capture = false}
  for k, v in pairs(options) do own[k] = v end
  return ode.solve(field(all), start, times, own)
end)
print(batch)

-- ---- The picture ----

local fig = plot.figure {width = 1200, height = 480, cols = 2,
  title = ("%d van der Pol oscillators, each at its own pace"):format(o.count)}
local phase = fig:axes(1, {title = "phase portraits", xlabel = "x", ylabel = "x'", ylim = {-28, 28}})
local colours = plot.colormap "viridis"
for i = 1, o.count, math.max(1, math.floor(o.count / 12)) do
  local path = batch.ys[i]
  phase:line(path:narrow(2, 1, 1):reshape(-1), path:narrow(2, 2, 1):reshape(-1),
    {width = 1.3, color = colours[1 + math.floor((#colours - 1) * (i - 1) / math.max(1, o.count - 1))]})
end
local steps, dampings = {}, mu:totable()
for i, s in ipairs(batch.stats) do steps[i] = s.steps end
fig:axes(2, {title = "steps", xlabel = "damping μ", xscale = "log", ylabel = "steps to t = 25", legend = "outside"})
  :scatter(dampings, steps, {size = 5, label = "in a batch"})
  :hline(joint.stats.steps, {label = "jointly"})
assert(fig:save(o.out))
print("drew " .. o.out)

assert((batch.ys:transpose(1, 2) - joint.ys):abs():mean():item() < 1e-3, "both must find the same curves")
assert(alone < 0.7 * together, "a batch must save evaluations")
