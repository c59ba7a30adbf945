-- The last step of a captured solve keeps its evaluations for the reverse pass (csrc/solve/captured.h, td_field_hold).

require "spec.helper"
local tide = require "tide"
local nn, ode = tide.nn, tide.ode

-- A field whose programs run kernels, not a list of numbers, and a start that needs a gradient.
local function case(seed)
  tide.manual_seed(seed)
  local net = nn.Sequential(nn.Linear(24, 48), nn.Tanh(), nn.Linear(48, 24))
  local y0 = tide.generator(seed):randn(16, 24):requires_grad()
  return net, y0, function(t, y) return net(y) * (t + 1):cos() - y end
end

local function gradients(net, y0, loss)
  local list = {y0}
  for _, p in ipairs(net:parameters()) do list[#list + 1] = p end
  local out = {}
  for i, g in ipairs(tide.gradients(loss, list, {retain_graph = true})) do out[i] = g:totable() end
  return out
end

-- Stages of a method that its solution depends on.
local function stages(name)
  local m = ode.methods[name]
  return m.fsal and m.stages - 1 or m.stages
end

describe("a solve whose last step is held", function()
  local o = {grad = "discrete"}

  for _, name in ipairs {"dopri5", "tsit5", "bosh3", "rk4", "heun3", "dop853"} do
    it("gives the gradient of one that is computed again, to the last bit: " .. name, function()
      local net, y0, f = case(1)
      local m = ode.methods[name]
      local more = {method = name, step_size = m.error_order == 0 and 0.3 or nil, grad = "discrete"}
      local sol = ode.solve(f, y0, {0, 1}, more)
      assert.is_true(sol.captured)
      local held = gradients(net, y0, sol.last:square():sum())
      assert.are.equal(stages(name) * sol.stats.accepted - (stages(name) - 1), sol.stats.nfe_b)
      assert.are.same(held, gradients(net, y0, sol.last:square():sum()))  -- nothing is held for a second pass
      local few = ode.solve(f, y0, {0, 1}, {method = name, step_size = more.step_size, checkpoints = 1})
      assert.are.same(held, gradients(net, y0, few.last:square():sum()))
    end)
  end

  it("holds until another solve does, which takes nothing from its gradient", function()
    local net, y0, f = case(2)
    local alone = ode.solve(f, y0, {0, 1}, o)
    local expected = gradients(net, y0, alone.last:sum())
    local first, second = ode.solve(f, y0, {0, 1}, o), ode.solve(f, y0 * 2, {0, 1}, o)
    local got = gradients(net, y0, first.last:sum())
    assert.are.equal(alone.stats.nfe_b + 5, first.stats.nfe_b)
    assert.are.same(expected, got)
    gradients(net, y0, second.last:sum())
    assert.are.equal(6 * second.stats.accepted, second.stats.nfe_b)  -- the pass over the first one let it go
  end)

  it("through its end into the next", function()
    local net, y0, f = case(3)
    local function both(mode)
      local middle = ode.solve(f, y0, {0, 0.5}, {grad = mode, rtol = 1e-6, atol = 1e-6})
      local last = ode.solve(f, middle.last, {0.5, 1}, {grad = mode, rtol = 1e-6, atol = 1e-6})
      return gradients(net, y0, last.last:square():sum())
    end
    local a, b = both("discrete"), both("backsolve")
    for i = 1, #a do assert.close(tide.tensor(a[i]), tide.tensor(b[i]), 2e-3) end
  end)

  it("may have been tried and rejected on the way", function()
    local net, y0, f = case(4)
    local sol = ode.solve(f, y0, {0, 4}, {first_step = 4, rtol = 1e-5, atol = 1e-5})
    assert.is_true(sol.stats.rejected > 0)
    local held = gradients(net, y0, sol.last:sum())
    assert.are.equal(6 * sol.stats.accepted - 5, sol.stats.nfe_b)
    assert.are.same(held, gradients(net, y0, sol.last:sum()))
  end)

  it("is computed again for a gradient of times, and for values inside it", function()
    local net, y0, f = case(5)
    local ts = tide.tensor({0, 0.5}, "float64"):requires_grad()
    local sol = ode.solve(f, y0, ts, o)
    local got = tide.gradients(sol.last:sum(), {ts})[1]
    local slope = f(ts[2]:detach(), sol.last):sum():item()
    assert.close(tide.tensor({got[2]:item()}), tide.tensor({slope}), 1e-3 * math.abs(slope))
    assert.are.equal(6 * sol.stats.accepted, sol.stats.nfe_b)
    local dense = ode.solve(f, y0, {0, 0.1, 0.2, 0.3, 0.4, 0.5}, {first_step = 0.5})
    local held = gradients(net, y0, dense.ys:sum())
    assert.are.same(held, gradients(net, y0, dense.ys:sum()))
  end)

  it("keeps no more for a row of solves than for one", function()
    local _, y0, f = case(6)
    local function live(n)
      collectgarbage()
      collectgarbage()
      local before, y, kept = tide.memory().live, y0, {}
      for i = 1, n do
        kept[i] = ode.solve(f, y, {0, 0.01}, {method = "dopri5", step_size = 0.01})
        y = kept[i].last
      end
      collectgarbage()
      collectgarbage()
      return tide.memory().live - before
    end
    live(2)
    local one, ten = live(1), live(10)
    assert.is_true(ten - one < 9 * one / 2, ("%d bytes for one, %d for ten"):format(one, ten))
  end)
end)
