-- Small systems: a neural ODE 2-50-2, the spiral demo's setting and Lotka–Volterra. Rows as in ode.py. With --check
-- it writes weights, initial states and its results (at a tenth of the tolerances) to the exchange file.

package.path = (arg[0]:match "^(.*/)" or "./") .. "?.lua;" .. package.path
local side = require "side"
local tide = require "tide"
local nn, ode = tide.nn, tide.ode

local o = side.options {dtype = "float64", grad = "discrete", only = ""}
local shared = {}
local tight = o.check and 0.1 or 1

local function network(dtype)
  tide.manual_seed(3)
  local net = nn.Sequential(nn.Linear(2, 50, {dtype = dtype}), nn.Tanh(), nn.Linear(50, 2, {dtype = dtype}))
  shared[dtype .. ".w1"], shared[dtype .. ".b1"] = net[1].weight:detach(), net[1].bias:detach()
  shared[dtype .. ".w2"], shared[dtype .. ".b2"] = net[3].weight:detach(), net[3].bias:detach()
  return net
end

-- Measures f, which gives a list of results and the solve, or writes its results.
local function row(name, f)
  if o.check then
    for i, t in ipairs((f())) do shared[("%s.%d"):format(name, i - 1)] = t:detach() end
    return
  end
  if not name:find(o.only, 1, true) then return end
  local _, sol = f()
  local record = side.measure(f, o.repeats)
  record.nfe, record.nfe_b = sol.stats.nfe, sol.stats.nfe_b
  side.report(name, record)
end

-- The list of p and the gradients of the scalar with respect to it, cleared.
local function gradients(scalar, p)
  scalar:backward()
  local out = {}
  for i, x in ipairs(p) do
    out[i] = x.grad
    x.grad = nil
  end
  return out
end

-- Forward and gradient rows of a network; loss is a function of the solution.
local function network_rows(name, net, cube, y0, t, how, loss)
  local function f(_, y) return net(cube and y * y * y or y) end
  row(name .. " forward", function()
    local sol = tide.no_grad(ode.solve, f, y0, t, how)
    return {sol.last}, sol
  end)
  local start = y0:clone():requires_grad()
  local p = {start, net[1].weight, net[1].bias, net[3].weight, net[3].bias}
  row(name .. " gradient", function()
    local sol = ode.solve(f, start, t, how)
    return gradients(loss(sol), p), sol
  end)
end

local function spiral(dtype)
  local net = network(dtype)
  local how = {method = "dopri5_shampine", controller = "torchdiffeq", rtol = 1e-6 * tight, atol = 1e-8 * tight,
    grad = o.grad}
  for _, batch in ipairs {1, 20, 1000} do
    local y0 = tide.generator(batch):randn({batch, 2}, dtype)
    shared[("%s.y0.%d"):format(dtype, batch)] = y0
    network_rows(("2-50-2 batch %d %s"):format(batch, dtype), net, false, y0, {0, 10}, how, function(sol)
      return sol.last:square():sum()
    end)
  end
  if dtype == "float32" then
    local y0 = tide.generator(7):randn(20, 2)
    shared["demo.y0"] = y0
    local t = tide.linspace(0, 25, 1000, "float64")[{{1, 10}}]
    local demo = {method = "dopri5_shampine", controller = "torchdiffeq", rtol = 1e-7, atol = 1e-9, grad = o.grad}
    network_rows("demo batch 20 float32", net, true, y0, t, demo, function(sol) return sol.ys:abs():mean() end)
  end
end

local function lotka_volterra()
  local how = {method = "dopri5_shampine", controller = "torchdiffeq", rtol = 1e-7 * tight, atol = 1e-7 * tight,
    grad = o.grad}
  row("lotka-volterra float64 forward", function()
    local sol = ode.solve(function(_, u)
      local x, y = u[1], u[2]
      return {1.5 * x - x * y, x * y - 3 * y}
    end, {1, 1}, {0, 10}, how)
    return {tide.tensor(sol.last, "float64")}, sol
  end)
  local u0 = tide.ones(2, "float64"):requires_grad()
  local p = tide.tensor({1.5, 1, 3, 1}, "float64"):requires_grad()
  row("lotka-volterra float64 gradient", function()
    local sol = ode.solve(function(_, u)
      local x, y = u[1], u[2]
      local xy = x * y
      return tide.stack({p[1] * x - p[2] * xy, p[4] * xy - p[3] * y}, 1)
    end, u0, {0, 10}, how)
    return gradients(((1 - sol.last) ^ 2):sum() * 0.5, {u0, p}), sol
  end)
end

if o.check or o.dtype == "float64" then
  spiral "float64"
  lotka_volterra()
end
if o.check or o.dtype == "float32" then spiral "float32" end
if o.check then assert(tide.io.save_safetensors(o.exchange, shared)) end
