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
  it("is multiplied away by methods that take none, whatever the state, with gradients of every mode", function()
    local p = vector(1.1, 0.8)
    local inverse = tide.linalg.inv(mass)
    local function solved(q) return function(t, y) return inverse:matmul(wavy(q)(t, y)) end end
    for _, name in ipairs {"tsit5", "kvaerno4", "auto", "abm", "exprb32", "alf", "kencarp4", "euler"} do
      local o = {method = name, rtol = 1e-8, atol = 1e-10}
      if ode.methods[name].error_order == 0 then o.step_size = 0.05 end
      local want = ode.solve(solved(p), vector(0.7, 0.4), {0, 0.7, 2}, o).ys
      o.mass = mass
      assert.close(ode.solve(wavy(p), vector(0.7, 0.4), {0, 0.7, 2}, o).ys, want, 1e-7)
      if name ~= "exprb32" then
        for _, grad in ipairs {"discrete", "forward", "gauss"} do
          o.grad, o.mass = grad, mass
          local y0, q = leaf(0.7, 0.4), leaf(1.1, 0.8)
          local got = tide.gradients(ode.solve(wavy(q), y0, {0, 1}, o).last:sum(), {y0, q})
          o.mass = nil
          local start, r = leaf(0.7, 0.4), leaf(1.1, 0.8)
          local g = tide.gradients(ode.solve(solved(r), start, {0, 1}, o).last:sum(), {start, r})
          for i = 1, 2 do assert.close(got[i], g[i], 1e-7) end
        end
      end
    end
    local plain = ode.solve(function(t, y) return {-y[2], y[1] + t} end, {1, 0}, {0, 1}, {method = "kvaerno5",
      mass = mass})
    local tensors = ode.solve(function(t, y) return tide.stack({-y[2], y[1] + t}) end, vector(1, 0), {0, 1},
      {method = "kvaerno5", mass = mass})
    assert.close(plain.last, tensors.last, 1e-12)
    local number = ode.solve(function(_, y) return -y end, 1, {0, 1}, {mass = {2}, rtol = 1e-9}).last
    assert.close(number, math.exp(-0.5), 1e-8)
  end)
  it("is that of every row of a batch", function()
    local start = tide.generator(3):randn({5, 2}, "float64")
    for _, name in ipairs {"tsit5", "kvaerno4", "rodas5p"} do
      for _, m in ipairs {mass, vector(2, 0.5)} do
        local function g(t, y) return y:flip(y.ndim) * (t * 1.3):cos() - y ^ 3 end
        local batch = ode.solve(g, start, {0, 1}, {batch = true, method = name, mass = m})
        for i = 1, 5 do
          local alone = ode.solve(g, start[i]:clone(), {0, 1}, {method = name, mass = m})
          assert.are.equal(0, (alone.ys - batch.rows[i].ys):abs():max():item())
        end
      end
    end
  end)
  it("is refused where it is singular by methods that take none", function()
    for _, name in ipairs {"tsit5", "kvaerno4", "auto", "abm"} do
      for _, m in ipairs {{{1, 2}, {2, 4}}, {1, 0}} do
        assert.fails_here(function() ode.solve(f, tide.ones(2), {0, 1}, {method = name, mass = m}) end,
          ("method \"%s\" solves M y' = f as y' = M⁻¹ f, and this mass matrix is singular"):format(name))
      end
    end
    assert.fails_here(function() ode.solve(f, tide.ones(2), {0, 1}, {method = "verlet", mass = {1, 2}, step_size = 0.1})
    end, "which would mix its halves")
    assert.fails_here(function()
      ode.solve(f, tide.ones(2), {0, 1}, {method = "etd1", mass = {1, 2}, linear = {-1, -1}, step_size = 0.1})
    end, "so give linear as that of M⁻¹ f")
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
