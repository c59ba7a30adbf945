-- Mass matrices: M y' = f, with algebraic equations where M is singular.

local tide = require "tide"
require "spec.helper"
local fields = require "spec.support.fields"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end
local function leaf(...) return vector(...):requires_grad() end
local methods = {"bdf", "bdf_plain", "gl4", "gl6", "radau5", "radauIIA3", "rodas4", "rodas5p", "ros3p", "rosenbrock23"}
local mass = tide.tensor({{2, 0.5}, {-0.3, 1}}, "float64")

local function wavy(p)
  return function(t, y)
    return (y * p):sin() * (t * 1.3):cos() - y ^ 3 * 0.1 + p:sum() * t * 0.2 - y:flip(1) * p
  end
end

describe("M y' = f", function()
  for _, name in ipairs(methods) do
    local o = {method = name, rtol = 1e-8, atol = 1e-10, mass = mass}
    if ode.methods[name].error_order == 0 then o.step_size = 0.005 end

    it("is y' = M⁻¹ f by " .. name, function()
      local p = vector(1.1, 0.8)
      local f = wavy(p)
      local inverse = tide.linalg.inv(mass)
      local exact = ode.solve(function(t, y) return inverse:matmul(f(t, y)) end, vector(0.7, 0.4), {0, 0.7, 2},
        {method = "dop853", rtol = 1e-12, atol = 1e-13}).ys
      assert.close(ode.solve(f, vector(0.7, 0.4), {0, 0.7, 2}, o).ys, exact, name == "rosenbrock23" and 2e-6 or 1e-6)
    end)

    it("has exact gradients by " .. name, function()
      local times, weights = {0, 0.31, 0.5, 0.93, 1.2}, vector(0.3, -0.2, 0.5, 0.1, -0.4, 0.6, 1, 0.7):reshape(4, 2)
      local function loss(y0, p, t, grad)
        local sol = ode.solve(wavy(p), y0, t, {method = name, rtol = 1e-13, atol = 1e-14, step_size = 0.17, mass = mass,
          grad = grad})
        return (sol.ys:narrow(1, 2, 4) * weights):sum()
      end
      local starts = {{0.7, 0.4}, {1.1, 0.8}, times}
      local y0, p, t = leaf(0.7, 0.4), leaf(1.1, 0.8), leaf(unpack(times))
      local g = tide.gradients(loss(y0, p, t), {y0, p, t})
      local forward = tide.gradients(loss(y0, p, vector(unpack(times)), "forward"), {y0, p})
      assert.close(forward[1], g[1], 1e-11)
      assert.close(forward[2], g[2], 1e-11)
      assert.is_nil(fields.off_by_differences(loss, starts, g, 2e-9))
    end)
  end

  it("takes a diagonal, and a table", function()
    local f = wavy(vector(1.1, 0.8))
    local function by(m) return ode.solve(f, vector(0.7, 0.4), {0, 1}, {method = "rodas5p", mass = m}).last end
    assert.close(by(vector(2, 0.5)), by {{2, 0}, {0, 0.5}}, 1e-13)
    assert.close(by {2, 0.5}, by(vector(2, 0.5)), 0)
  end)
end)

-- Robertson's reaction, its third equation replaced by the sum that it conserves.
local function robertson(_, y)
  local slow, fast = 0.04 * y[1] - 1e4 * y[2] * y[3], 3e7 * y[2] ^ 2
  return {-slow, slow - fast, y[1] + y[2] + y[3] - 1}
end
local known = {7.15827068719405090e-01, 9.18553476455776390e-06, 2.84163745745830352e-01}

describe("algebraic equations", function()
  for _, name in ipairs {"rodas5p", "rodas4", "radau5", "bdf"} do
    it("hold along Robertson's reaction by " .. name, function()
      local sol = ode.solve(robertson, {1, 0, 0}, {0, 40}, {method = name, rtol = 1e-8, atol = 1e-12, mass = {1, 1, 0}})
      for i = 1, 3 do assert.is_true(math.abs(sol.last[i] / known[i] - 1) < 1e-5, ("component %d: %.12g"):format(i,
        sol.last[i])) end
      assert.is_true(math.abs(sol.last[1] + sol.last[2] + sol.last[3] - 1) < 1e-9)
      assert.is_true(sol.stats.steps < 600)
    end)

    it("pass gradients by " .. name, function()
      -- x' = −a z, z = x² + b: x' = −a (x² + b), x = √b tan(c − a√b t).
      local function solve(a, b, x)
        local f = function(_, y) return tide.stack({-y[2] * a, y[1] * y[1] + b - y[2]}) end
        return ode.solve(f, tide.stack({x, x * x + b}), {0, 1}, {method = name, rtol = 1e-9, atol = 1e-11,
          mass = {1, 0}}).last[1]
      end
      local a, b, x = tide.tensor(0.7, "float64"), tide.tensor(0.5, "float64"), tide.tensor(0.9, "float64")
      local leaves = {a:requires_grad(), b:requires_grad(), x:requires_grad()}
      local g = tide.gradients(solve(a, b, x), leaves)
      local function exact(av, bv, xv)
        local root = math.sqrt(bv)
        return root * math.tan(math.atan(xv / root) - av * root)
      end
      local h = 1e-6
      local fd = {(exact(0.7 + h, 0.5, 0.9) - exact(0.7 - h, 0.5, 0.9)) / (2 * h),
        (exact(0.7, 0.5 + h, 0.9) - exact(0.7, 0.5 - h, 0.9)) / (2 * h),
        (exact(0.7, 0.5, 0.9 + h) - exact(0.7, 0.5, 0.9 - h)) / (2 * h)}
      for i = 1, 3 do assert.close(g[i], fd[i], 1e-5) end
    end)
  end

  it("that y0 does not satisfy are refused", function()
    assert.fails_here(function() ode.solve(robertson, {1, 0, 1}, {0, 40}, {method = "rodas5p", mass = {1, 1, 0}}) end,
      "y0 does not satisfy the algebraic equation 3")
  end)
end)

describe("a mass matrix", function()
  local function f(_, y) return -y end
  it("is refused by methods without one", function()
    for _, name in ipairs {"tsit5", "kvaerno4", "auto", "abm", "etd1"} do
      assert.fails_here(function() ode.solve(f, tide.ones(2), {0, 1}, {method = name, mass = {1, 2},
        step_size = 0.1}) end,
        ("method \"%s\" takes no mass matrix"):format(name))
    end
  end)
  it("has to fit, and is a constant", function()
    assert.fails_here(function() ode.solve(f, tide.ones(2), {0, 1}, {method = "bdf", mass = {1, 2, 3}}) end,
      "mass has shape (3), expected 2 numbers or a 2×2 matrix")
    assert.fails_here(function() ode.solve(f, tide.ones(2), {0, 1}, {method = "bdf", mass = leaf(1, 2)}) end,
      "mass counts as a constant")
    assert.fails_here(function() ode.solve(f, tide.ones(2), {0, 1}, {method = "bdf", mass = {1, 2},
      grad = "interp"}) end,
      "does not go with a mass matrix")
  end)
end)
