-- The continuous adjoint by stiff methods: Newton's iteration on the diagonal blocks of the adjoint system.

local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end
local function leaf(...) return vector(...):requires_grad() end

local function robertson(k)
  return function(_, y)
    local a, c = -y[1] * k[1] + y[2] * y[3] * k[2], y[2] * y[2] * k[3]
    return tide.stack({a, -a - c, c})
  end
end

local function gradient(method, grad, more)
  local k, y0 = leaf(0.04, 1e4, 3e7), leaf(1, 0, 0)
  local o = {method = method, grad = grad, rtol = 1e-8, atol = 1e-12}
  for name, v in pairs(more or {}) do o[name] = v end
  local sol = ode.solve(robertson(k), y0, {0, 0.4, 40}, o)
  local g = tide.gradients((sol.ys * vector(1, 1e4, 0.5)):sum(), {k, y0})
  return g[1] * vector(0.04, 1e4, 3e7), g[2], sol
end

describe("the continuous adjoint of a stiff problem", function()
  local by_k, by_y0 = gradient("rodas5p", "discrete", {rtol = 1e-9})
  local sizes = {by_k:abs():max():item(), by_y0:abs():max():item()}

  for _, method in ipairs {"kvaerno5", "kencarp4", "bdf", "radau5", "rodas5p", "auto"} do
    for _, grad in ipairs {"interp", "gauss"} do
      it(("is that of discrete by %s, %s"):format(method, grad), function()
        local k, y0, sol = gradient(method, grad)
        assert.close(k, by_k, 5e-6 * sizes[1])
        assert.close(y0, by_y0, 1e-6 * sizes[2])
        assert.is_true(sol.stats.nfe_b > 0 and sol.stats.nfe_b < 40000)
      end)
    end
  end

  it("may be solved by another method", function()
    local k = gradient("kvaerno5", "interp", {adjoint_method = "bdf"})
    assert.close(k, by_k, 5e-6 * sizes[1])
    assert.fails_here(function() gradient("kvaerno5", "interp", {adjoint_method = "rodas5p"}) end, "ode.solve",
      'adjoint_method = "rodas5p" does not suit', "kvaerno5")
  end)

  it("says so where the state cannot be integrated backwards", function()
    assert.fails_here(function() gradient("kvaerno5", "backsolve", {max_steps = 3000}) end, "the backward solve failed",
      "discrete")
  end)
end)

it("the continuous adjoint by implicit methods has many parameters, times and both modes", function()
  local w = (tide.generator(5):randn({6, 6}, "float64") * 0.3)
  local function by(method, grad)
    local p, y0, t = w:clone():requires_grad(), leaf(0.3, -0.2, 0.5, 0.1, 0.9, -0.4), leaf(0, 0.7, 1)
    local sol = ode.solve(function(s, y) return p:matmul(y:tanh()) - y * (s + 1) end, y0, t, {method = method,
      grad = grad, rtol = 1e-9, atol = 1e-11, adjoint_norm = "rms"})
    return tide.gradients((sol.ys:sin()):sum(), {p, y0, t})
  end
  local exact = by("dop853", "discrete")
  for _, method in ipairs {"kvaerno5", "bdf", "radau5", "gl6"} do
    for _, grad in ipairs {"backsolve", "interp", "gauss"} do
      if ode.methods[method].error_order > 0 then
        local g = by(method, grad)
        for i = 1, 3 do assert.close(g[i], exact[i], method == "bdf" and 2e-6 or 2e-7) end
      end
    end
  end
end)
