-- A neural ODE with a hidden half: learns how pendulums swing from their angles alone, seen with noise at irregular
-- times.
--
--   bin/tide examples/latent_pendulum.lua [--steps 600] [--series 24] [--out latent_pendulum.png]
--
-- Nobody measures the speeds. The state z has two components, of which the first is the angle; where each pendulum
-- starts in the second is learned beside the field, a small network. All series are one solve, with values at all times
-- that any of them was seen at; the gradient is the exact derivative of its steps.

local tide = require "tide"
local nn, ode, optim, plot = tide.nn, tide.ode, tide.optim, tide.plot

local o = {steps = 600, series = 24, out = "latent_pendulum.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: latent_pendulum.lua [--steps n] [--series n] [--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end
tide.manual_seed(3)

-- ---- What is seen: 14 of 80 random times each, the angle alone, with noise ----

local seen_until, known_until, seen_each, noise = 6, 10, 14, 0.05
local moments = {0}
for i, t in ipairs(tide.rand(79):sort():totable()) do moments[i + 1] = t * seen_until end
local function pendulum(_, y)
  local q, v = y:narrow(2, 1, 1), y:narrow(2, 2, 1)
  return tide.cat({v, -q:sin() - v * 0.15}, 2)
end
local begin = tide.cat({tide.rand(o.series, 1) * 4 - 2, tide.rand(o.series, 1) * 2 - 1}, 2)
local function angles_of(f, z0, at)
  return ode.solve(f, z0, at, {rtol = 1e-4, atol = 1e-5}).ys:narrow(3, 1, 1):squeeze(3):t()  -- series × times
end
local fine = {}
for i = 0, 200 do fine[i + 1] = known_until * i / 200 end
local truth = tide.no_grad(angles_of, pendulum, begin, fine)
local measured = tide.no_grad(angles_of, pendulum, begin, moments) + tide.randn(o.series, #moments) * noise
local lot = tide.rand(o.series, #moments)
local mask = lot:le((lot:sort(2)):narrow(2, seen_each, 1)):float()

-- ---- The model and the fit ----

local net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
local function field(_, z) return net(z) end
local z0 = tide.zeros(o.series, 2):requires_grad()
local weights = net:parameters()
weights[#weights + 1] = z0
local opt = optim.Adam(weights, {lr = 1e-2})
local schedule = optim.Schedule(opt, optim.cosine {steps = o.steps, minimum = 1e-4})
local history, began = {}, os.clock()
for step = 1, o.steps do
  local off = (angles_of(field, z0, moments) - measured) * mask
  local loss = (off * off):sum() / mask:sum()
  loss:backward()
  opt:step():zero_grad()
  schedule:step()
  history[step] = loss:item()
  if step % 100 == 0 then print(("step %d: root mean square misfit %.3f"):format(step, math.sqrt(history[step]))) end
end
print(("%.1f s of processor time"):format(os.clock() - began))

-- ---- How far it foresees ----

local found = tide.no_grad(angles_of, field, z0, fine)
local function rms(from, to)
  return ((found - truth):narrow(2, from, to - from + 1) ^ 2):mean():sqrt():item()
end
local inside = 200 * seen_until / known_until
local known, foreseen = rms(1, inside), rms(inside + 1, 201)
print(("off the true angles by %.3f while they were seen, by %.3f after; the noise was %.3f"):format(known, foreseen,
  noise))

-- ---- The picture ----

local fig = plot.figure {width = 1320, height = 440, cols = 3,
  title = "Pendulums learned from angles at irregular times"}
local ax = fig:axes(1, {title = "four of the series", xlabel = "time", ylabel = "angle", legend = "auto"})
for k = 1, 4 do
  local color, t, q = plot.color(k), {}, {}
  ax:line(fine, truth[k], {color = "gray", width = 1, label = k == 1 and "truth" or nil})
  ax:line(fine, found[k], {color = color, width = 2, label = k == 1 and "learned" or nil})
  for i = 1, #moments do
    if mask[k][i]:item() == 1 then t[#t + 1], q[#q + 1] = moments[i], measured[k][i]:item() end
  end
  ax:scatter(t, q, {color = color, size = 6, label = k == 1 and "seen" or nil})
end
ax:vline(seen_until, {color = "gray", dash = true})
local paths = tide.no_grad(function() return ode.solve(field, z0, fine).ys end)
local reach = 1.1 * paths:narrow(3, 2, 1):abs():max():item()
ax = fig:axes(2, {title = "the learned field", xlabel = "angle", ylabel = "what stands for the speed", xlim = {-3, 3},
  ylim = {-reach, reach}})
ax:vector_field(function(x, y)
  local v = tide.no_grad(net, tide.tensor({{x, y}})):totable()[1]
  return v[1], v[2]
end)
for k = 1, 4 do
  local path = tide.select(paths, 2, k)
  ax:line(path:narrow(2, 1, 1):reshape(-1), path:narrow(2, 2, 1):reshape(-1))
end
fig:axes(3, {title = "misfit", xlabel = "step", ylabel = "root mean square, radians", yscale = "log"})
  :line(tide.tensor(history):sqrt())
assert(fig:save(o.out))
print("drew " .. o.out)

assert(known < 2 * noise, ("off by %.3f where it was seen"):format(known))
assert(foreseen < 6 * noise, ("off by %.3f where it was not"):format(foreseen))
