-- Work and precision of tide's methods on three problems, one line for each method and tolerance, as in
-- work_precision.py. With --check it writes the network, the initial values and the references to the exchange file.

package.path = (arg[0]:match "^(.*/)" or "./") .. "?.lua;" .. package.path
local side = require "side"
local tide = require "tide"
local nn, ode = tide.nn, tide.ode

local o = side.options()

tide.manual_seed(5)
local net = nn.Sequential(nn.Linear(2, 50, {dtype = "float64"}), nn.Tanh(), nn.Linear(50, 2, {dtype = "float64"}))
for _, p in ipairs(net:parameters()) do p:requires_grad(false):mul_(2.5) end

local problems = {
  {name = "lotka-volterra", y0 = {1, 1}, t1 = 10, atol = 1, methods = {"dopri5", "tsit5", "dop853"},
    f = function(_, u)
      local x, y = u[1], u[2]
      return {1.5 * x - x * y, x * y - 3 * y}
    end, reference = {1.0263447675750893191, 0.90969107813604161755}},
  {name = "robertson", y0 = {1, 0, 0}, t1 = 40, atol = 1e-4, methods = {"rodas5p", "radau5", "kvaerno5", "bdf"},
    f = function(_, u)
      local a, b, c = u[1], u[2], u[3]
      local da, dc = -0.04 * a + 1e4 * b * c, 3e7 * b * b
      return {da, -da - dc, dc}
    end, reference = {7.15827068719405090e-01, 9.18553476455776390e-06, 2.84163745745830352e-01}},
  {name = "network", y0 = tide.tensor({2, 0}, "float64"), t1 = 10, atol = 1, methods = {"dopri5", "tsit5", "dop853"},
    f = function(_, y) return net(y:reshape(1, 2)):reshape(2) end},
}

local function last(p, method, tol)
  local sol = ode.solve(p.f, p.y0, {0, p.t1}, {method = method, rtol = tol, atol = tol * p.atol})
  return tide.is_tensor(sol.last) and sol.last or tide.tensor(sol.last, "float64"), sol
end

if o.check then
  local network = problems[3]
  local reference, other = last(network, "dop853", 1e-13), last(network, "tsit5", 1e-13)
  assert((reference - other):norm():item() < 1e-11, "two methods disagree about the network's end")
  assert(tide.io.save_safetensors(o.exchange, {
    w1 = net[1].weight, b1 = net[1].bias, w2 = net[3].weight, b2 = net[3].bias, y0 = network.y0,
    ["reference.network"] = reference, ["reference.lotka-volterra"] = tide.tensor(problems[1].reference, "float64"),
    ["reference.robertson"] = tide.tensor(problems[2].reference, "float64"),
  }))
  return
end

local shared = assert(tide.io.load_safetensors(o.exchange))
for _, p in ipairs(problems) do
  local reference = shared["reference." .. p.name]
  for _, method in ipairs(p.methods) do
    for k = 3, 10 do
      local y, sol = last(p, method, 10 ^ -k)
      local record = side.measure(function() last(p, method, 10 ^ -k) end, o.repeats)
      record.method, record.tol, record.nfe = "tide " .. method, 10 ^ -k, sol.stats.nfe
      record.error = ((y - reference):norm() / reference:norm()):item()
      side.report(p.name, record)
    end
  end
end
