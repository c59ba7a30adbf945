-- How chaos grows: the Lorenz system with its forward sensitivities, and the Lyapunov exponents that they add up to.
--
--   bin/tide examples/lorenz.lua [--span 30] [--segments 600] [--out lorenz.png]
--
-- With grad = "forward" the derivatives of the state by its start and by the parameters ride along with the solve.
-- After thirty time units a change of the start has grown 10¹¹-fold, and the derivative of the mean height by ρ, which
-- says how the climate answers, is drowned by it although the climate itself moves smoothly. Over short segments the
-- same sensitivities are harmless: made orthogonal again after each, their growth gives the Lyapunov exponents.

local tide = require "tide"
local ode, plot = tide.ode, tide.plot

local o = {span = 30, segments = 600, out = "lorenz.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: lorenz.lua [--span t] [--segments n] [--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

local function lorenz(p)  -- p: σ, ρ, β
  return function(_, y)
    local u, v, w = y[1], y[2], y[3]
    return tide.stack({p[1] * (v - u), u * (p[2] - w) - v, u * v - p[3] * w})
  end
end
local function parameters(rho) return tide.tensor({10, rho or 28, 8 / 3}, "float64") end
local options = {method = "vern7", rtol = 1e-9, atol = 1e-9, grad = "forward"}

-- ---- One long solve: how derivatives grow ----

local p = parameters():requires_grad()
local start = tide.tensor({-8, 8, 27}, "float64"):requires_grad()
local times = tide.linspace(0, o.span, 100 * o.span + 1, "float64")
local began = os.clock()
local sol = ode.solve(lorenz(p), start, times, options)
print(("%d steps with 6 tangents in %.0f ms of processor time"):format(sol.stats.accepted, 1000 * (os.clock() - began)))
local by_start, by_p = sol:sensitivity(start), sol:sensitivity(p)
local growth = (by_start ^ 2):sum({2, 3}):sqrt()
local height = sol.ys:detach():narrow(2, 3, 1):reshape(-1)
local by_rho = by_p:narrow(2, 3, 1):narrow(3, 2, 1):reshape(-1)
local count = tide.linspace(1, times.numel, times.numel, "float64")
local mean_by_rho = by_rho:cumsum(1) / count  -- derivative of the mean height so far

-- The derivative at t = 1 against differences of two more solves.
local function height_at_one(rho)
  return ode.solve(lorenz(parameters(rho)), start:detach(), {0, 1}, options).last[3]:item()
end
local fd = (height_at_one(28 + 1e-4) - height_at_one(28 - 1e-4)) / 2e-4
assert(math.abs(by_rho[101]:item() - fd) < 1e-5 * math.abs(fd), "the sensitivity is not the derivative")

-- ---- Many short ones: Lyapunov exponents ----

local length, sums, running = 0.5, {0, 0, 0}, {{}, {}, {}}
local y, q = sol.last:detach(), tide.eye(3, "float64")
local clock = {}
for k = 1, o.segments do
  local from = y:requires_grad()
  local piece = ode.solve(lorenz(parameters()), from, {0, length}, options)
  local r
  q, r = tide.linalg.qr(piece:sensitivity(from)[2]:matmul(q))
  y = piece.last:detach()
  clock[k] = k * length
  for i = 1, 3 do
    sums[i] = sums[i] + math.log(math.abs(r[i][i]:item()))
    running[i][k] = sums[i] / clock[k]
  end
end
local last = o.segments
local a, b, c = running[1][last], running[2][last], running[3][last]
print(("Lyapunov exponents %.3f, %.3f, %.3f; their sum %.6f, by the trace of the Jacobian %.6f"):format(a, b, c,
  a + b + c, -(10 + 1 + 8 / 3)))

-- ---- The picture ----

local fig = plot.figure {width = 1320, height = 440, cols = 3, title = "Chaos, and what derivatives say of it"}
local ys = sol.ys:detach()
fig:axes(1, {title = "the attractor", xlabel = "x", ylabel = "z"})
  :line(ys:narrow(2, 1, 1):reshape(-1), height, {width = 0.8})
local ax = fig:axes(2, {title = "derivatives grow", xlabel = "time", yscale = "log", legend = "bottom right"})
ax:line(times, growth, {label = "of the state by its start"})
ax:line(times, by_rho:abs() + 1e-3, {label = "of the height by rho", width = 1})
ax:line(times, mean_by_rho:abs() + 1e-3, {label = "of its mean by rho", width = 1})
ax:line(times, (times * 0.906):exp(), {label = "exp(0.906 t)", dash = {6, 4}, color = "gray"})
ax = fig:axes(3, {title = "Lyapunov exponents", xlabel = "time", ylabel = "growth rates", legend = "right"})
for i, name in ipairs {"along the flow's stretching", "along the flow", "towards the attractor"} do
  ax:line(clock, running[i], {label = name})
end
assert(fig:save(o.out))
print("drew " .. o.out)

assert(math.abs(running[1][last] - 0.906) < 0.08, "the largest exponent is off")
assert(math.abs(running[2][last]) < 0.05, "the exponent along the flow is not zero")
assert(math.abs(running[1][last] + running[2][last] + running[3][last] + 10 + 1 + 8 / 3) < 1e-6,
  "the exponents do not add up to the trace")
