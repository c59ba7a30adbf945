-- Forward sensitivities: tangents that ride on the steps taken.

local tide = require "tide"
require "spec.helper"
local fields = require "spec.support.fields"
local ode = tide.ode

local vector, leaf, wavy, swing = fields.vector, fields.leaf, fields.wavy, fields.swing

local weights = vector(0.3, -0.2, 0.5, 0.1, -0.4, 0.6, 1, 0.7):reshape(4, 2)
local times = {0, 0.31, 0.5, 0.93, 1.2}

local function options_for(name, mode, more)
  local m = ode.methods[name]
  local o = {method = name, grad = mode, rtol = 1e-6, atol = 1e-9}
  if m.error_order == 0 then o.step_size = 0.05 end
  if m.family == "exponential" and name ~= "exprb32" then o.linear = vector(-0.3, -0.1) end
  for k, v in pairs(more or {}) do o[k] = v end
  return o
end

local function gradients(field, o, t)
  local y0, p = leaf(0.7, 0.4), leaf(1.1, 0.8)
  local sol = ode.solve(field(p), y0, t or times, o)
  local g = tide.gradients((sol.ys:narrow(1, 2, 4) * weights):sum(), {y0, p})
  return g[1], g[2], sol
end

local function gap(a, b) return (a - b):abs():max():item() end

local names = {}
for name in pairs(ode.methods) do names[#names + 1] = name end
table.sort(names)

describe("grad = \"forward\"", function()
  for _, name in ipairs(names) do
    local field = ode.methods[name].family == "symplectic" and swing or wavy
    if name ~= "exprb32" then
      it("takes the steps and the derivative of discrete by " .. name, function()
        local y0, p, sol = gradients(field, options_for(name, "discrete"))
        local y0_forward, p_forward, forward = gradients(field, options_for(name, "forward"))
        assert.are.equal(sol.stats.accepted, forward.stats.accepted)
        assert.is_true(gap(sol.ys, forward.ys) < 1e-12)
        assert.is_true(gap(y0, y0_forward) < 1e-12, ("y0 differs by %.3g"):format(gap(y0, y0_forward)))
        assert.is_true(gap(p, p_forward) < 1e-12, ("p differs by %.3g"):format(gap(p, p_forward)))
      end)
    end
  end

  it("is exact where discrete refuses, for exprb32", function()
    local grid = {}
    for i = 0, 24 do grid[i + 1] = i == 24 and 1.2 or i * 0.05 end
    local o = options_for("exprb32", "forward", {grid_constructor = function() return grid end})
    local _, dp = gradients(wavy, o)
    local function loss(h)
      local p = vector(1.1 + h, 0.8)
      return (ode.solve(wavy(p), vector(0.7, 0.4), times, o).ys:narrow(1, 2, 4) * weights):sum():item()
    end
    local h = 1e-3
    local fd = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
    assert.is_true(math.abs(fd - dp[1]:item()) < 1e-9 * math.abs(fd) + 1e-10)
  end)

  it("works without capture", function()
    local y0, p = gradients(wavy, options_for("tsit5", "forward"))
    local y0_eager, p_eager, sol = gradients(wavy, options_for("tsit5", "forward", {capture = false}))
    assert.is_false(sol.captured)
    assert.is_true(gap(y0, y0_eager) < 1e-13 and gap(p, p_eager) < 1e-13)
  end)

  it("gives the sensitivities of every saved state", function()
    local a, y0 = leaf(-0.5), leaf(2)
    local sol = ode.solve(function(_, y) return y * a end, y0, {0, 1, 3}, {grad = "forward", rtol = 1e-10,
      atol = 1e-12})
    local by_a, by_y0 = sol:sensitivity(a), sol:sensitivity(y0)
    assert.are.same({3, 1, 1}, by_a.shape)
    for i, t in ipairs {0, 1, 3} do
      assert.is_true(math.abs(by_a[i]:item() - 2 * t * math.exp(-0.5 * t)) < 1e-8)
      assert.is_true(math.abs(by_y0[i]:item() - math.exp(-0.5 * t)) < 1e-8)
    end
    assert.fails_here(function() sol:sensitivity(leaf(1)) end, "does not depend on this tensor of shape (1)")
    assert.fails_here(function() ode.solve(function(_, y) return y end, y0, {0, 1}):sensitivity(y0) end,
      'needs grad = "forward"')
  end)

  it("has the times' gradients of the continuous formulas", function()
    local function by(mode)
      local t, y0 = leaf(0.2, 0.7, 1.5), leaf(0.7, 0.4)
      local ys = ode.solve(wavy(vector(1.1, 0.8)), y0, t, {grad = mode, rtol = 1e-11, atol = 1e-12}).ys
      return tide.gradients((ys:narrow(1, 2, 2) * weights:narrow(1, 1, 2)):sum(), {t})[1]
    end
    assert.is_true(gap(by "discrete", by "forward") < 1e-8)
  end)

  it("goes through nested states", function()
    local a = leaf(0.3)
    local function f(_, s) return {x = s.v * a, v = -s.x} end
    local function by(mode)
      local x, v = leaf(1, 2), leaf(0.5, 0)
      local sol = ode.solve(f, {x = x, v = v}, {0, 1}, {grad = mode})
      return tide.gradients((sol.last.x * vector(1, 3)):sum() + sol.last.v:sum(), {x, v, a})
    end
    local exact = by "discrete"
    for i, g in ipairs(by "forward") do assert.is_true(gap(g, exact[i]) < 1e-12) end
  end)

  it("has second derivatives, also by implicit methods", function()
    for _, name in ipairs {"tsit5", "kvaerno4", "bdf", "radau5", "rodas5p", "trapezoid"} do
      local grid = {0, 0.2, 0.5, 0.7, 1.0, 1.2}
      local function slope(values)
        local p = leaf(unpack(values))
        local ys = ode.solve(wavy(p), vector(0.7, 0.4), times, {method = name, grad = "forward",
          rtol = 1e-8, atol = 1e-10, grid_constructor = function() return grid end}).ys
        local g = tide.gradients((ys:narrow(1, 2, 4) * weights):sum(), {p}, {create_graph = true})[1]
        return g, p
      end
      local g, p = slope {1.1, 0.8}
      local row = tide.gradients(g:narrow(1, 1, 1):sum(), {p})[1]
      for j = 1, 2 do
        local function at(h)
          local v = {1.1, 0.8}
          v[j] = v[j] + h
          return (slope(v))[1]:item()
        end
        local h = 1e-3
        local fd = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        assert.is_true(math.abs(fd - row[j]:item()) < 1e-8 * (1 + math.abs(fd)),
          ("%s: %.12g, by differences %.12g"):format(name, row[j]:item(), fd))
      end
    end
  end)

  it("follows stiff problems over their whole range", function()
    local function robertson(k)
      return function(_, y)
        local a = -y[1] * k[1] + y[2] * y[3] * k[2]
        local c = y[2] * y[2] * k[3]
        return tide.stack({a, -a - c, c})
      end
    end
    local function gradient(mode, method)
      local k = leaf(0.04, 1e4, 3e7)
      local sol = ode.solve(robertson(k), vector(1, 0, 0), {0, 40}, {method = method, rtol = 1e-8, atol = 1e-12,
        grad = mode})
      return tide.gradients(sol.last[1], {k})[1] * vector(0.04, 1e4, 3e7)
    end
    local exact = gradient("discrete", "rodas5p")
    for _, method in ipairs {"rodas5p", "bdf", "kvaerno5", "radau5"} do
      assert.is_true(gap(gradient("forward", method), exact) < 1e-6, method)
    end
  end)

  it("keeps the save and dense options", function()
    local y0 = leaf(0.7, 0.4)
    local f = wavy(vector(1.1, 0.8))
    local sol = ode.solve(f, y0, {0, 1}, {grad = "forward", dense = true, save = "steps"})
    local plain = ode.solve(f, y0:detach(), {0, 1}, {dense = true, save = "steps"})
    assert.is_true(gap(sol.ys, plain.ys) == 0)
    assert.is_true(gap(sol(0.4), plain(0.4)) < 1e-15)
  end)

  it("refuses what it cannot or should not do", function()
    local w = tide.randn({50, 2}, "float64"):requires_grad()
    assert.fails_here(function()
      ode.solve(function(_, y) return y * w:sum() + w:sum(1) end, leaf(1, 2), {0, 1}, {grad = "forward",
        max_tangents = 20})
    end, "here 102 (y0 2, shape (50×2) 100), and max_tangents is 20")
    assert.fails_here(function() ode.solve(function(_, y) return y end, 1, {0, 1}, {grad = "forward"}) end,
      "needs a right-hand side on tensors")
  end)
end)
