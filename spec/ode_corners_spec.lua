-- Corners of ode.solve that were wrong once: branches in functions of numbers, times that coincide, what dense output
-- costs, what messages suggest.

local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end

local stiff = {"rodas5p", "bdf", "kvaerno5", "radau5", "trbdf2", "rosenbrock23", "auto"}

describe("a right-hand side of plain numbers", function()
  it("may compare t and y with numbers, for every stiff method", function()
    local exact = 1 / (math.exp(0.25) - 0.5)
    for _, method in ipairs(stiff) do
      local function f(t, y)
        if t < 0.5 then return -0.5 * y end
        if 0 > y then return 0 end
        return y == 0 and 0 or y * y
      end
      local sol = ode.solve(f, 1, {0, 0.5, 1}, {method = method, rtol = 1e-7, atol = 1e-9, jump_t = 0.5})
      assert.close(sol.ys[3], exact, 1e-5)
      local table_of = ode.solve(function(t, y) return {f(t, y[1]), y[2] >= 1 and 1 or 0} end, {1, 2}, {0, 0.5, 1},
        {method = method, rtol = 1e-7, atol = 1e-9, jump_t = 0.5})
      assert.close(table_of.last, {exact, 3}, 1e-5)
    end
  end)

  it("may decline where it cannot be evaluated, for every stiff method", function()
    for _, method in ipairs(stiff) do
      local sol = ode.solve(function(_, y) return y >= 0 and -math.sqrt(y) end, 1, {0, 1.9}, {method = method,
        first_step = 5, rtol = 1e-7, atol = 1e-9})
      assert.close(sol.last, 0.0025, 1e-5)
      sol = ode.solve(function(t, y) return t < 0.5 and -y end, 1, {0, 0.2, 1}, {method = method, throw = false})
      assert.are.same({"nonfinite", 2}, {sol.status, #sol.ts})
      assert.close(sol.stats.t_last, 0.5, 1e-8)
    end
  end)
end)

describe("gradients by times that coincide", function()
  local function slope(t, y) return (y * 1.3):sin() * t:cos() - y end

  local function gradients(times, o)
    local y0, t = vector(0.7, 0.4):requires_grad(), vector(unpack(times)):requires_grad()
    local sol = ode.solve(slope, y0, t, o)
    local weights = tide.arange(1, #times):double():unsqueeze(2)
    return tide.gradients((sol.ys * weights):sum(), {y0, t}), sol
  end

  it("go to each of them, as in the continuous formulas", function()
    for _, times in ipairs {{1, 1}, {1, 1, 1}, {0, 0, 1, 1}, {1, 1, 0, 0}, {0, 0.5, 0.5, 1}} do
      local o = {rtol = 1e-11, atol = 1e-12}
      local exact = gradients(times, {rtol = 1e-11, atol = 1e-12, grad = "interp"})
      for _, more in ipairs {{}, {grad = "full"}, {checkpoints = 2}, {method = "kvaerno5"}, {method = "rodas5p"}} do
        for k, v in pairs(more) do o[k] = v end
        local g = gradients(times, o)
        assert.close(g[1], exact[1], 1e-8)
        assert.close(g[2], exact[2], 2e-6)  -- kvaerno5 interpolates by cubics
      end
    end
  end)

  it("are those of the slope where t never leaves t0", function()
    local g, sol = gradients {2, 2}
    local f = slope(tide.tensor(2, "float64"), sol.ys[1])
    assert.close(g[2], {-2 * f:sum():item(), 2 * f:sum():item()}, 1e-15)
  end)

  it("go to each of them in a batch", function()
    local y0, t = vector(0.7, 0.4):unsqueeze(2):requires_grad(), vector(0, 0, 1, 1):requires_grad()
    local batch = ode.solve(slope, y0, t, {batch = true, rtol = 1e-11, atol = 1e-12})
    local weights = tide.arange(1, 4):double():reshape(4, 1)
    local g = tide.gradients((batch.ys * weights):sum(), {y0, t})
    local exact = gradients({0, 0, 1, 1}, {rtol = 1e-11, atol = 1e-12, grad = "interp"})
    assert.close(g[2], exact[2], 1e-8)
  end)
end)

describe("dense output", function()
  local function rational(t, y) return {y[2] / t, y[2] * (y[1] + 2 * y[2] - 1) / (t * (y[1] - 1))} end

  it("costs implicit methods nothing in the solve: SciPy's budgets", function()
    for _, span in ipairs {{5, 9}, {5, 1}} do
      for _, method in ipairs {"Radau", "BDF"} do
        local r = ode.solve_ivp(rational, span, {1 / 3, 2 / 9}, {method = method, rtol = 1e-3, atol = 1e-6,
          dense_output = true})
        assert.is_true(r.nfev < 40 and r.njev > 0 and r.njev < 3 and r.nlu > 0 and r.nlu < 10,
          ("%s to %g: %d, %d, %d"):format(method, span[2], r.nfev, r.njev, r.nlu))
        for i, t in ipairs(r.t) do
          local y = r.sol(t)
          for k = 1, 2 do assert.close(y[k], r.y[k][i], 2e-4 * math.abs(y[k])) end
        end
      end
    end
  end)
end)

describe("an unknown name", function()
  local function refused(o, ...)
    assert.fails_here(function() ode.solve(function(_, y) return -y end, 1, {0, 1}, o) end, ...)
  end

  it("is answered by the nearest one and by all", function()
    refused({method = "dopri"}, 'unknown method "dopri", did you mean "dopri5"?', "expected one of abm, ", "vern9")
    refused({method = "RODAS5P"}, "unknown method", "rodas5p")
    refused({grad = "discreet"}, 'unknown grad "discreet", did you mean "discrete"?', "expected one of adjoint, ")
    refused({controller = "pdi"}, 'unknown controller "pdi", did you mean "pi"?', "expected one of dop853, ")
    refused({method = "mccallum_foster", base = "tsi5"}, 'unknown base "tsi5", did you mean "tsit5"?')
    refused({rtl = 1e-3}, 'unknown option "rtl", did you mean "rtol"?', "expected one of adjoint_atol, ", "step_t")
    assert.fails_here(function()
      ode.solve_ivp(function(_, y) return y end, {0, 1}, {1}, {method = "LSODE"})
    end, 'unknown method "LSODE"', "Radau")
  end)

  it("is not guessed at when nothing is near", function()
    local _, why = pcall(ode.solve, function(_, y) return -y end, 1, {0, 1}, {method = "xq"})
    assert.is_nil(why:find("did you mean", 1, true))
  end)
end)

it("a state of nested tables names what was wrong with the derivative", function()
  assert.fails_here(function() ode.solve(function() return 3 end, {a = tide.ones(2)}, {0, 1}) end,
    "what the right-hand side gave is a number, expected a tensor")
end)
