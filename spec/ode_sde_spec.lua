-- ode.sde over Brownian paths, and ode.steady_state.

local tide = require "tide"
local krylov = require "tide.ode.krylov"
require "spec.helper"
local ode = tide.ode

describe("a Brownian path", function()
  local path = ode.brownian({2000}, 0, 2, {seed = 3, dtype = "float64"})

  it("has the variances of W and of its integral, and independent increments", function()
    local w, area = path:at(2)
    assert.close((w * w):mean():item(), 2, 0.15)
    assert.close((area * area):mean():item(), 8 / 3, 0.25)
    assert.close((w * area):mean():item(), 2, 0.2)
    local half, early = path:at(1), path:at(0.3)
    assert.close(((w - half) * half):mean():item(), 0, 0.1)
    assert.close((early * half):mean():item(), 0.3, 0.08)
  end)

  it("gives the same again, in any order, and from another object with the same seed", function()
    local times = {0.7, 0.1, 1.9, 0.7000001, 0, 2}
    local other = ode.brownian({2000}, 0, 2, {seed = 3, dtype = "float64"})
    local first = {}
    for i, t in ipairs(times) do first[i] = path:at(t) end
    for i = #times, 1, -1 do assert.close(other:at(times[i]), first[i], 0) end
    local another = ode.brownian({2000}, 0, 2, {seed = 4, dtype = "float64"})
    assert.is_true((another:at(1) - path:at(1)):abs():max():item() > 1)
  end)

  it("increments and areas add up", function()
    local w1, a1 = path:increment(0.3, 0.8)
    local w2, a2 = path:increment(0.8, 1.7)
    local w, a = path:increment(0.3, 1.7)
    assert.close(w1 + w2, w, 1e-12)
    assert.close(a1 + a2 + w1 * 0.9, a, 1e-12)
  end)

  it("refuses times outside", function()
    assert.fails_here(function() path:at(2.1) end, "brownian", "[0, 2]")
    assert.fails_here(function() ode.brownian({1}, 1, 1) end, "ode.brownian", "t0 < t1")
  end)
end)

describe("strong orders", function()
  local n, a, b = 300, 0.5, 0.8
  local path = ode.brownian({n}, 0, 1, {seed = 5, dtype = "float64"})
  local w = path:at(1)
  local ito, stratonovich = (w * b + (a - b * b / 2)):exp(), (w * b + a):exp()

  local function slope(f, g, exact, method, coarse)
    local y0 = tide.ones({n}, "float64")
    local function err(k)
      local sol = ode.sde(f, g, y0, {0, 1}, {method = method, step_size = 1 / k, path = path})
      return (sol.last - exact):abs():mean():item()
    end
    return math.log(err(coarse) / err(8 * coarse)) / math.log(8)
  end

  for method, case in pairs {
    euler_maruyama = {ito, 0.5}, milstein = {ito, 1}, heun = {stratonovich, 1},
  } do
    it(method .. " on geometric Brownian motion", function()
      local found = slope(function(_, y) return y * a end, function(_, y) return y * b end, case[1], method, 16)
      assert.is_true(math.abs(found - case[2]) < 0.15, ("slope %.2f"):format(found))
    end)
  end

  it("sra1 and euler_maruyama with additive noise", function()
    local function f(_, y) return (y * 2):sin() * 1.5 - y end
    local function g(t, y) return t:cos() * 0.6 + y * 0 end
    local exact = ode.sde(f, g, tide.ones({n}, "float64"), {0, 1},
      {method = "sra1", step_size = 1 / 1024, path = path}).last
    local found = slope(f, g, exact, "sra1", 12)
    assert.is_true(found > 1.35 and found < 2, ("slope %.2f"):format(found))
    local plain = slope(f, g, exact, "euler_maruyama", 12)
    assert.is_true(math.abs(plain - 1) < 0.2, ("slope %.2f"):format(plain))
  end)
end)

describe("ode.sde", function()
  it("has exact gradients on the frozen path, also with checkpoints", function()
    local path = ode.brownian({2}, 0, 1, {seed = 1, dtype = "float64"})
    for method in pairs(ode.sde_methods) do
      local function loss(y0, p, checkpoint)
        local gain = function(_, y) return (y * p):sin() end
        if method == "sra1" then gain = function(t, y) return p * t:cos() + y * 0 end end
        local s = ode.sde(function(t, y) return (y * p):cos() * t - y end, gain, y0, {0, 0.4, 1},
          {method = method, step_size = 0.1, path = path, checkpoint = checkpoint})
        return (s.ys * tide.tensor({{0, 0}, {0.3, 1}, {-1, 2}}, "float64")):sum()
      end
      local function gradient(checkpoint)
        local y0 = tide.tensor({0.7, 0.4}, "float64"):requires_grad()
        local p = tide.tensor({1.1, 0.8}, "float64"):requires_grad()
        loss(y0, p, checkpoint):backward()
        return tide.cat({y0.grad, p.grad}, 1)
      end
      local got = gradient(false)
      local function moved(i, h)
        local v = {0.7, 0.4, 1.1, 0.8}
        v[i] = v[i] + h
        return loss(tide.tensor({v[1], v[2]}, "float64"), tide.tensor({v[3], v[4]}, "float64")):item()
      end
      for i = 1, 4 do
        local fd = (moved(i, 1e-5) - moved(i, -1e-5)) / 2e-5
        assert.close(got[i]:item(), fd, 1e-8 * (1 + math.abs(fd)))
      end
      if method ~= "milstein" then assert.close(gradient(true), got, 1e-12) end
    end
  end)

  it("takes general noise", function()
    local path = ode.brownian({3}, 0, 1, {seed = 2, dtype = "float64"})
    local gain = tide.tensor({{1, 2, 0}, {0, 1, -1}}, "float64")
    local s = ode.sde(function(_, y) return y * 0 end, function() return gain end, tide.zeros({2}, "float64"), {0, 1},
      {step_size = 0.25, path = path, noise = "general"})
    assert.close(s.last, gain:matmul(path:at(1)), 1e-12)
  end)

  it("says what is wrong", function()
    local f, y0 = function(_, y) return y end, tide.ones(2)
    assert.fails_here(function() ode.sde(f, f, y0, {0, 1}) end, "ode.sde", "step_size")
    assert.fails_here(function() ode.sde(f, f, y0, {0, 1}, {method = "euler", step_size = 1}) end, "ode.sde",
      "unknown method")
    assert.fails_here(function() ode.sde(f, f, y0, {1, 0}, {step_size = 1}) end, "ode.sde", "ascend")
    assert.fails_here(function() ode.sde(f, f, 1, {0, 1}, {step_size = 1}) end, "ode.sde", "expected a tensor")
  end)
end)

describe("gmres", function()
  it("solves a system that is known by its products", function()
    local g = tide.generator(4)
    local a = g:randn({60, 60}, "float64") * 0.3 + tide.eye(60):to "float64" * 4
    local b = g:randn({60}, "float64")
    for _, restart in ipairs {60, 10} do
      local x, off, used = krylov.gmres(function(v) return a:matmul(v) end, b, {rtol = 1e-11, restart = restart})
      assert.close(a:matmul(x), b, 1e-9)
      assert.is_true(off <= 1e-11 and used > 0 and used < 200)
    end
    assert.close(krylov.gmres(function(v) return v end, b * 0), b * 0, 0)
  end)
end)

describe("ode.steady_state", function()
  it("is the root, with its gradient", function()
    local p = tide.tensor({2, 5}, "float64"):requires_grad()
    local y, info = ode.steady_state(function(_, y) return p - y ^ 3 end, tide.ones({2}, "float64"))
    assert.are.equal("ok", info.status)
    assert.close(y:detach(), tide.tensor({2 ^ (1 / 3), 5 ^ (1 / 3)}, "float64"), 1e-12)
    local loss = (y * tide.tensor({1, 3}, "float64")):sum()
    loss:backward()
    assert.close(p.grad, tide.tensor({2 ^ (-2 / 3) / 3, 5 ^ (-2 / 3)}, "float64"), 1e-10)
  end)

  it("of a stiff reaction equals the long solve, and so does its gradient", function()
    local function field(k)
      return function(_, y)
        local r = y[1] * y[2] * k[1]
        return tide.stack({k[2] - r - y[1] * 0.1, r - y[2] * k[3]})
      end
    end
    local function leaf() return tide.tensor({50, 1, 2}, "float64"):requires_grad() end
    local y0 = tide.tensor({1, 0.5}, "float64")
    local k, long = leaf(), leaf()
    local y = ode.steady_state(field(k), y0)
    local sol = ode.solve(field(long), y0, {0, 200}, {method = "radau5", rtol = 1e-10, atol = 1e-12})
    assert.close(y:detach(), sol.last:detach(), 1e-8)
    y:sum():backward()
    sol.last:sum():backward()
    assert.close(k.grad, long.grad, 1e-6)
  end)

  it("works on a network and in float32", function()
    local net = tide.nn.Sequential(tide.nn.Linear(5, 16), tide.nn.Tanh(), tide.nn.Linear(16, 5))
    local y, info = ode.steady_state(function(_, y) return net(y) * 0.5 - y end, tide.zeros {5},
      {rtol = 1e-5, atol = 1e-6})
    assert.are.equal("ok", info.status)
    assert.are.equal("float32", y.dtype)
    y:sum():backward()
    for _, w in ipairs(net:parameters()) do assert.is_truthy(w.grad) end
  end)

  it("that does not exist is reported", function()
    local function f(_, y) return y * 0 + 1 end
    local y0 = tide.ones({1}, "float64")
    assert.fails_here(function() ode.steady_state(f, y0, {max_iters = 20}) end, "ode.steady_state", "no steady state")
    local y, info = ode.steady_state(f, tide.ones({1}, "float64"), {max_iters = 20, throw = false})
    assert.is_nil(y)
    assert.are.equal("newton_failed", info.status)
  end)
end)
