-- Finds the three rate constants of Robertson's reaction from noisy measurements of its concentrations.
--
--   bin/tide examples/stiff_kinetics.lua [--method rodas5p] [--noise 0.02] [--out stiff_kinetics.png]
--
-- The rates differ by nine orders of magnitude and the measurements span seven decades of time, so explicit methods
-- would need a hundred million steps. rodas5p takes some dozens, and the gradient of the misfit is the exact
-- derivative of those steps, with respect to the logarithms of the rates.

local tide = require "tide"
local ode, optim, plot = tide.ode, tide.optim, tide.plot

local o = {method = "rodas5p", noise = 0.02, out = "stiff_kinetics.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: stiff_kinetics.lua [--method m] [--noise x] [--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

-- A → B slowly, B + B → C + B fast, B + C → A + C.
local function reaction(k)
  return function(_, y)
    local slow = y[1] * k[1] - y[2] * y[3] * k[2]
    local fast = y[2] * y[2] * k[3]
    return tide.stack({-slow, slow - fast, fast})
  end
end

local start = tide.tensor({1, 0, 0}, "float64")
local times = {0}
for i = 0, 28 do times[#times + 1] = 10 ^ (-2 + 0.25 * i) end
local function concentrations(k, at)
  return ode.solve(reaction(k), start, at or times, {method = o.method, rtol = 1e-6, atol = 1e-11})
end

local truth = tide.tensor({0.04, 1e4, 3e7}, "float64")
local scale = tide.tensor({1, 3e-5, 1}, "float64")  -- the middle substance is scarce
tide.manual_seed(1)
local measured = tide.no_grad(function()
  local clean = concentrations(truth).ys
  return clean + tide.randn(clean.shape):to "float64" * scale * o.noise
end)

-- ---- The fit: L-BFGS on the logarithms, from rates that are wrong by factors of two to five ----

local logs = (truth * tide.tensor({3, 0.25, 2}, "float64")):log():requires_grad()
local first = logs:detach():exp()
local opt = optim.LBFGS({logs}, {lr = 1})
local began, history, evaluations = os.clock(), {}, 0

local function misfit()
  local sol = concentrations(logs:exp())
  evaluations = evaluations + sol.stats.nfe
  return (((sol.ys - measured) / scale) ^ 2):mean()
end
local function closure()
  local loss = misfit()
  loss:backward()
  history[#history + 1] = loss:item()
  return loss
end

for _ = 1, 2 do opt:step(closure) end  -- twenty quasi-Newton steps each, at most
local found = logs:detach():exp()
for i = 1, 3 do
  print(("k%d = %.4g, started at %.4g, true %.4g"):format(i, found[i]:item(), first[i]:item(), truth[i]:item()))
end
print(("misfit %.4g → %.4g in %.1f s of processor time, %d evaluations of the reaction forward"):format(history[1],
  misfit():item(), os.clock() - began, evaluations))

-- ---- The picture ----

local fine = {0}
for i = 0, 140 do fine[#fine + 1] = 10 ^ (-2 + 0.05 * i) end
local before, after = tide.no_grad(concentrations, first, fine).ys, tide.no_grad(concentrations, found, fine).ys
local fig = plot.figure {width = 1200, height = 440, cols = 2,
  title = "Rate constants of a stiff reaction from noisy measurements"}
local ax = fig:axes(1, {title = "concentrations", xlabel = "time", xscale = "log",
  ylabel = "concentration, B times 33000", xlim = {1e-2, 1e5}, legend = "outside"})
local names = {"A", "B", "C"}
local function curve(ys, i)
  local t, y = {}, {}
  for n = 2, #fine do t[n - 1], y[n - 1] = fine[n], (ys[n][i] / scale[i]):item() end
  return t, y
end
for i = 1, 3 do
  local t, y = curve(before, i)
  ax:line(t, y, {color = plot.color(i), width = 1, alpha = 0.35, label = names[i] .. ", start"})
  t, y = curve(after, i)
  ax:line(t, y, {color = plot.color(i), width = 2, label = names[i] .. ", fitted"})
  t, y = {}, {}
  for n = 2, #times do t[n - 1], y[n - 1] = times[n], (measured[n][i] / scale[i]):item() end
  ax:scatter(t, y, {color = plot.color(i), size = 5})
end
fig:axes(2, {title = "misfit", xlabel = "gradient", ylabel = "mean square, in units of the scale", yscale = "log"})
  :line(history, {marker = "o"})
assert(fig:save(o.out))
print("drew " .. o.out)

local off = (found / truth - 1):abs():max():item()
assert(off < 5 * o.noise, ("the rates were not found: off by %.1f %%"):format(100 * off))
