-- Stiff problems by ode.solve: known values, evaluation budgets, honest failures, Jacobians.

local stiff = require "spec.support.stiff"
local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local names = {}
for name in pairs(stiff.problems) do names[#names + 1] = name end
table.sort(names)

-- The greatest error against scale (1 for relative, or absolute where values are tiny), and where.
local function worst_of(got, expected, least)
  local worst, at = 0, 0
  for i, v in ipairs(expected) do
    local off = math.abs(got[i] - v) / (math.abs(v) + least)
    if off > worst or off ~= off then worst, at = off, i end
  end
  return worst, at
end

describe("known values", function()
  for _, name in ipairs(names) do
    for _, method in ipairs {"rodas4", "rodas5p", "kvaerno4", "kvaerno5", "kencarp4", "kencarp5", "radau5", "bdf",
      "auto"} do
      it(("%s by %s"):format(name, method), function()
        local f, y0, t1, expected = unpack(stiff.problems[name])
        local sol = ode.solve(f, y0, {0, t1}, {method = method, rtol = 1e-7, max_steps = 1e6,
          atol = name:match "1e11" and 1e-16 or 1e-13})
        local worst, at = worst_of(sol.last, expected, 1e-12)
        assert.is_true(worst < 3e-5, ("component %d is off by %.2g"):format(at, worst))
      end)
    end
  end

  it("low-order methods reach Robertson's values too", function()
    local f, y0, t1, expected = unpack(stiff.problems["Robertson to 40"])
    for _, method in ipairs {"rosenbrock23", "ros3p", "kvaerno3", "kencarp3", "trbdf2"} do
      local sol = ode.solve(f, y0, {0, t1}, {method = method, rtol = 1e-6, atol = 1e-11})
      assert.is_true(worst_of(sol.last, expected, 0) < 3e-5, method)
    end
  end)

  it("the sum of Robertson's components stays one", function()
    for _, method in ipairs {"rodas5p", "kvaerno5", "radau5", "bdf"} do
      local sol = ode.solve(stiff.robertson, {1, 0, 0}, {0, 0.4, 40, 4e3, 4e5}, {method = method, atol = 1e-10})
      for _, y in ipairs(sol.ys) do assert.close(y[1] + y[2] + y[3], 1, 1e-9) end
    end
  end)

  it("float32 states are solved to what they can hold", function()
    local f, y0, t1, expected = unpack(stiff.problems["Robertson to 40"])
    local function on_tensors(_, y)
      local d = f(0, {y[1], y[2], y[3]})
      return tide.stack(d)
    end
    for _, method in ipairs {"rodas4", "kvaerno3", "radau5", "bdf"} do
      local sol = ode.solve(on_tensors, tide.tensor(y0), {0, t1}, {method = method, rtol = 1e-4, atol = 1e-8})
      assert.are.equal("float32", sol.last.dtype)
      assert.is_true(worst_of(sol.last:totable(), expected, 0) < 3e-3, method)
    end
  end)
end)

describe("automatic switching", function()
  -- A relaxation oscillation: stiff on its slow branches, not in its jumps.
  local function relaxation(_, y) return {y[2], 50 * (1 - y[1] ^ 2) * y[2] - y[1]} end
  local function solved(method, f, t1)
    return ode.solve(f, {2, 0}, {0, t1}, {method = method, rtol = 1e-6, atol = 1e-8})
  end

  it("stays explicit where nothing is stiff, and takes the very same steps", function()
    local easy = stiff.van_der_pol(1)
    local auto, plain = solved("auto", easy, 10), solved("tsit5", easy, 10)
    assert.are.equal(0, auto.stats.njev)
    assert.are.same(plain.grid, auto.grid)
  end)

  it("costs less than both methods where stiffness comes and goes", function()
    local auto, easy, hard = solved("auto", relaxation, 200), solved("tsit5", relaxation, 200),
      solved("rodas5p", relaxation, 200)
    assert.is_true(auto.stats.nfe < hard.stats.nfe and auto.stats.nfe < easy.stats.nfe / 3)
    assert.is_true(auto.stats.njev > 0 and auto.stats.njev < auto.stats.accepted)
    assert.close(auto.last[1], hard.last[1], 1e-4)
  end)

  it("sees a stiff component far smaller than the others", function()
    local function evaluations(method)
      return ode.solve(stiff.robertson, {1, 0, 0}, {0, 40}, {method = method, rtol = 1e-8, atol = 1e-14}).stats.nfe
    end
    assert.is_true(evaluations "auto" < 1.5 * evaluations "rodas5p")
  end)

  it("has the gradient of the steps it took, whichever method made them", function()
    local function gradient(method, slots)
      local k = tide.tensor({50}, "float64"):requires_grad()
      local sol = ode.solve(function(_, y)
        local x, v = y:narrow(1, 1, 1), y:narrow(1, 2, 1)
        return tide.cat({v, k * (1 - x ^ 2) * v - x}, 1)
      end, tide.tensor({2, 0}, "float64"), {0, 60},
        {method = method, rtol = 1e-8, atol = 1e-10, checkpoints = slots or 0})
      sol.last[1]:backward()
      return k.grad:item(), sol.stats.njev, sol.stats.accepted
    end
    local got, njev, accepted = gradient "auto"
    assert.is_true(njev > 0 and njev < accepted)
    assert.close(got, (gradient "radau5"), 1e-5)
    assert.close((gradient("auto", 6)), got, 1e-12)
  end)
end)

describe("large states", function()
  local n = 640
  local function heat(k)
    local zero, scale = tide.zeros({1}, "float64"), (n + 1) ^ 2 * 0.001
    return function(t, y)
      local p = tide.cat({zero, y, zero}, 1)
      return (p:narrow(1, 1, n) - y * 2 + p:narrow(1, 3, n)) * k * scale + (y * 3):sin() * t:cos()
    end
  end
  local start = (tide.linspace(0, math.pi, n + 2, "float64"):narrow(1, 2, n)):sin()

  for _, method in ipairs {"bdf", "kvaerno4", "trbdf2"} do
    it(method .. " needs no matrix: products with the Jacobian are enough", function()
      local one = tide.ones({1}, "float64")
      local truth = ode.solve(heat(one), start, {0, 0.5}, {method = "tsit5", rtol = 1e-7, atol = 1e-9}).last
      local sol = ode.solve(heat(one), start, {0, 0.5}, {method = method, rtol = 1e-6, atol = 1e-8})
      assert.close(sol.last, truth, 1e-4)
      assert.are.equal(0, sol.stats.nlu)
      assert.is_true(sol.stats.nfe < 1000)
    end)

    it(method .. "'s gradient there is that of the steps", function()
      local function loss(k)
        return ode.solve(heat(k), start, {0, 0.3},
          {method = method, rtol = 1e-10, atol = 1e-10, step_size = 0.1}).last:sum()
      end
      local k = tide.ones({1}, "float64"):requires_grad()
      loss(k):backward()
      local up, down = tide.tensor({1 + 1e-4}, "float64"), tide.tensor({1 - 1e-4}, "float64")
      local fd = (loss(up):item() - loss(down):item()) / 2e-4
      assert.is_true(math.abs(k.grad:item() / fd - 1) < 1e-6, ("%.10g, %.10g"):format(k.grad:item(), fd))
    end)
  end

  it("that a method cannot hold a matrix for are refused with words", function()
    local y0 = tide.zeros({9000}, "float64")
    assert.fails_here(function() ode.solve(function(_, y) return -y end, y0, {0, 1}, {method = "radau5"}) end,
      "ode.solve",
      "9000×9000", "kvaerno4")
  end)
end)

describe("the rational problem", function()
  local function f(t, y) return {y[2] / t, y[2] * (y[1] + 2 * y[2] - 1) / (t * (y[1] - 1))} end
  local function exact(t) return {t / (t + 10), 10 * t / (t + 10) ^ 2} end
  local function error_of(y, t)
    local e, sum = exact(t), 0
    for i = 1, 2 do sum = sum + ((y[i] - e[i]) / (1e-6 + 1e-3 * math.abs(e[i]))) ^ 2 end
    return math.sqrt(sum / 2)
  end

  for _, method in ipairs {"radau5", "bdf"} do
    for _, t1 in ipairs {9, 1} do
      it(("to %d by %s, in fewer than 40 evaluations, 3 Jacobians and 10 factorisations"):format(t1, method), function()
        local times = {}
        for i = 0, 40 do times[i + 1] = 5 + (t1 - 5) * i / 40 end
        local sol = ode.solve(f, {1 / 3, 2 / 9}, times, {method = method, rtol = 1e-3, atol = 1e-6})
        for i, t in ipairs(times) do assert.is_true(error_of(sol.ys[i], t) < 5) end
        assert.is_true(sol.stats.nfe < 40 and sol.stats.njev > 0 and sol.stats.njev < 3 and sol.stats.nlu < 10)
      end)
    end
  end
end)

describe("failures", function()
  local adaptive = {"rodas5p", "kvaerno5", "radau5", "bdf", "trbdf2"}

  it("a state that blows up stops just before its pole, with a status", function()
    for _, method in ipairs(adaptive) do
      local sol = ode.solve(function(_, y) return y * y end, 1, {0, 2}, {method = method, throw = false})
      assert.is_true(sol.status == "dt_underflow" or sol.status == "nonfinite" or sol.status == "newton_failed", method)
      assert.is_true(sol.stats.t_last > 0.99 and sol.stats.t_last < 1.0001, method .. sol.stats.t_last)
    end
  end)

  it("a right-hand side that turns NaN is reported near that time", function()
    for _, method in ipairs(adaptive) do
      local sol = ode.solve(function(t, y) return {t > 0.5 and 0 / 0 or -y[1]} end, {1}, {0, 1}, {method = method,
        throw = false, jac = function() return {{-1}}, {0} end})
      assert.are.equal("nonfinite", sol.status, method)
      assert.is_true(sol.stats.t_last > 0.49 and sol.stats.t_last <= 0.5)
    end
  end)

  it("a Newton iteration that cannot converge is called that", function()
    for _, method in ipairs {"kvaerno5", "radau5", "bdf"} do
      local calls = 0  -- differs from call to call, and so from any Jacobian
      local sol = ode.solve(function(_, y)
        calls = calls + 1
        return {y[1] + (calls % 2 == 0 and 1e12 or -1e12)}
      end, {1}, {1, 2}, {method = method, throw = false, first_step = 0.1, jac = function() return {{1}} end})
      assert.are.equal("newton_failed", sol.status, method)
      assert.matches("Newton", sol.message)
    end
  end)

  it("max_steps is exact", function()
    for _, method in ipairs(adaptive) do
      local sol = ode.solve(stiff.van_der_pol(1e6), {2, 0}, {0, 2}, {method = method, max_steps = 20, throw = false})
      assert.are.equal("max_steps", sol.status)
      assert.are.equal(20, sol.stats.steps)
    end
  end)

  it("f is not called beyond the ends, but by the methods that say so", function()
    local beyond = {kvaerno4 = true, kvaerno5 = true}
    for name, m in pairs(ode.methods) do
      if m.stiff and not beyond[name] and m.family ~= "exponential" then
        local low, high = math.huge, -math.huge
        ode.solve(function(t, y)
          local at = type(t) == "number" and t or t.v
          low, high = math.min(low, at), math.max(high, at)
          return -y * 20
        end, 1, {0.5, 1.5}, {method = name, rtol = 1e-4, step_size = m.error_order == 0 and 0.1 or 0})
        assert.is_true(low >= 0.5 and high <= 1.5, name)
      end
    end
  end)

  it("nfe is the number of calls", function()
    for name, m in pairs(ode.methods) do
      if m.stiff and m.family ~= "exponential" then
        local calls = 0
        local sol = ode.solve(function(_, y)
          calls = calls + 1
          return -y * 20
        end, tide.tensor({1, 2}, "float64"), {0, 1}, {method = name, capture = false, rtol = 1e-4,
          step_size = m.error_order == 0 and 0.1 or 0})
        assert.are.equal(calls, sol.stats.nfe, name)
      end
    end
  end)
end)

describe("Jacobians", function()
  it("of plain numbers come from dual numbers, also through locals that hold functions of math", function()
    local sin, exp, max = math.sin, math.exp, math.max
    local function f(t, y)
      return {
        sin(y[1] * t) + max(y[2], 0.1) ^ 1.5 - math.sqrt(1 + y[1] ^ 2),
        exp(-y[2]) * t - math.atan2(y[1], 2) + 2 ^ -y[1],
      }
    end
    local rows, by_time = require "tide.ode.dual".jacobian(f)(0.7, {0.3, 0.8})
    local function moved(i, h)
      local y, t = {0.3, 0.8}, 0.7
      if i == 3 then t = t + h else y[i] = y[i] + h end
      return f(t, y)
    end
    for i = 1, 3 do
      local up, down = moved(i, 1e-6), moved(i, -1e-6)
      for k = 1, 2 do
        local d = (up[k] - down[k]) / 2e-6
        assert.close(i == 3 and by_time[k] or rows[(k - 1) * 2 + i], d, 1e-8)
      end
    end
    assert.are.equal(math.sin, sin)
    assert.are.equal(sin(0.5), f(1, {0.5, 0.1})[1] - 0.1 ^ 1.5 + math.sqrt(1.25))
  end)

  it("that dual numbers cannot give are asked for", function()
    local function f(_, y) return {-tonumber(tostring(y[1]))} end
    assert.fails_here(function() ode.solve(f, {1}, {0, 1}, {method = "rodas4"}) end, "ode.solve", "option jac")
    local sol = ode.solve(f, {1}, {0, 1}, {method = "rodas4", rtol = 1e-8, jac = function() return {{-1}}, {0} end})
    assert.close(sol.last[1], math.exp(-1), 1e-6)
  end)

  it("given by the user are used, and checked", function()
    local used = 0
    local function jac(_, y)
      used = used + 1
      local a, b = 1e4 * y[2], 1e4 * y[3]
      return {{-0.04, b, a}, {0.04, -b - 6e7 * y[2], -a}, {0, 6e7 * y[2], 0}}, {0, 0, 0}
    end
    local function solved(given)
      return ode.solve(stiff.robertson, {1, 0, 0}, {0, 40}, {method = "rodas5p", atol = 1e-10, jac = given})
    end
    local with = solved(jac)
    assert.are.equal(used, with.stats.njev)
    assert.close(with.last, solved(nil).last, 1e-9)
    assert.fails_here(function()
      ode.solve(stiff.robertson, {1, 0, 0}, {0, 1}, {method = "radau5", jac = function() return {{1, 2}} end})
    end, "ode.solve", "expected a table of 9 numbers")
    assert.fails_here(function()
      ode.solve(stiff.robertson, {1, 0, 0}, {0, 1}, {method = "rodas4", jac = function(t, y) return (jac(t, y)) end})
    end, "ode.solve", "∂f/∂t")
  end)

  it("of functions on tensors come from the tape, with parameters or without", function()
    local net = tide.nn.Sequential(tide.nn.Linear(3, 8), tide.nn.Tanh(), tide.nn.Linear(8, 3))
    for _, capture in ipairs {false, "auto"} do
      local sols = {}
      for i, method in ipairs {"tsit5", "rodas5p", "radau5", "bdf", "kvaerno4"} do
        sols[i] = tide.no_grad(function()
          return ode.solve(function(_, y) return net(y) - y end, tide.ones {3}, {0, 1}, {method = method, rtol = 1e-5,
            atol = 1e-6, capture = capture})
        end)
        assert.close(sols[i].last, sols[1].last, 1e-4)
      end
    end
  end)
end)
