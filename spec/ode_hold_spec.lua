-- A captured solve holds its last evaluations for the reverse pass (csrc/solve/captured.h, the option hold).

local helper = require "spec.helper"
local tide = require "tide"
local nn, ode = tide.nn, tide.ode

-- A field whose programs run kernels, not a list of numbers, and a start that needs a gradient.
-- With `breaks`, its slopes at t = 0.3 from before and from after are not the same.
local function case(seed, rows, wide, breaks)
  tide.manual_seed(seed)
  local net = nn.Sequential(nn.Linear(24, wide or 48), nn.Tanh(), nn.Linear(wide or 48, 24))
  local y0 = tide.generator(seed):randn(rows or 16, 24):requires_grad()
  return net, y0, function(t, y)
    local slope = net(y) * (t + 1):cos() - y
    return breaks and tide.where(t:lt(0.3), slope, slope * -2) or slope
  end
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

local function with(o, more)
  local out = {}
  for k, v in pairs(o) do out[k] = v end
  for k, v in pairs(more) do out[k] = v end
  return out
end

describe("a solve that holds its last evaluations", function()
  local o = {method = "dopri5"}

  for _, name in ipairs {"dopri5", "tsit5", "bosh3", "rk4", "heun3", "dop853"} do
    it("gives the gradient of one that computes all again, to the last bit: " .. name, function()
      local net, y0, f = case(1)
      local m = ode.methods[name]
      local fixed = {method = name, step_size = m.error_order == 0 and 0.15 or nil}
      local none = ode.solve(f, y0, {0, 1}, with(fixed, {hold = 0}))
      assert.is_true(none.captured)
      local expected, all = gradients(net, y0, none.last:square():sum()), stages(name) * none.stats.accepted
      assert.are.equal(all, none.stats.nfe_b)
      -- a step, three of them, all but the first slope
      for hold, held in pairs {[1] = m.stages, [0] = 3 * m.stages, [2 ^ 40] = all - 1} do
        local sol = ode.solve(f, y0, {0, 1}, with(fixed, {hold = hold > 0 and hold or nil}))
        assert.are.same(expected, gradients(net, y0, sol.last:square():sum()))
        assert.are.equal(all - math.min(held, all - 1), sol.stats.nfe_b)
        assert.are.same(expected, gradients(net, y0, sol.last:square():sum()))  -- nothing is held for a second pass
      end
      local few = ode.solve(f, y0, {0, 1}, with(fixed, {checkpoints = 1}))
      assert.are.same(expected, gradients(net, y0, few.last:square():sum()))
    end)
  end

  it("holds as many as fit into the bytes", function()
    local net, y0, f = case(1)
    local before
    for _, hold in ipairs {1e5, 1.5e5, 2e5, 2.5e5} do
      local sol = ode.solve(f, y0, {0, 1}, with(o, {hold = hold}))
      gradients(net, y0, sol.last:sum())
      assert.is_true(not before or sol.stats.nfe_b < before)
      before = sol.stats.nfe_b
    end
  end)

  it("holds until another solve does, which takes nothing from its gradient", function()
    local net, y0, f = case(2)
    local alone = ode.solve(f, y0, {0, 1}, o)
    local expected = gradients(net, y0, alone.last:sum())
    assert.is_true(alone.stats.nfe_b < 6 * alone.stats.accepted)
    local first, second = ode.solve(f, y0, {0, 1}, o), ode.solve(f, y0 * 2, {0, 1}, o)
    local got = gradients(net, y0, first.last:sum())
    assert.are.equal(6 * first.stats.accepted, first.stats.nfe_b)
    assert.are.same(expected, got)
    local other = gradients(net, y0, second.last:sum())
    assert.is_true(second.stats.nfe_b < 6 * second.stats.accepted)
    local again = ode.solve(f, y0 * 2, {0, 1}, with(o, {hold = 0}))
    assert.are.same(other, gradients(net, y0, again.last:sum()))
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

  -- Ways in which a step's evaluations are not simply those of the trial made last.
  local ts = {0, 0.2, 0.25, 0.6, 1}
  local cases = {
    ["steps tried and rejected"] = {{0, 4}, {first_step = 4, rtol = 1e-5, atol = 1e-5}},
    ["values inside steps"] = {ts, {rtol = 1e-3, atol = 1e-3}},
    ["values by stages for them alone"] = {ts, {method = "dop853", rtol = 1e-4, atol = 1e-4}},
    ["a jump"] = {{0, 1}, {jump_t = {0.3, 0.9}}},
    ["a jump and values inside steps"] = {ts, {jump_t = {0.3}, max_step = 0.1}},
    ["times to step onto"] = {ts, {land = true}},
    ["straight lines"] = {ts, {step_size = 0.3, method = "rk4", interp = "linear"}},
    ["steps made again between checkpoints"] = {{0, 1}, {checkpoints = 2}},
    ["a grid"] = {{0, 1}, {method = "heun3", grid_constructor = function() return tide.tensor {0, 0.3, 0.35, 1} end}},
  }
  for name, c in pairs(cases) do
    it("gives the same with " .. name, function()
      local net, y0, f = case(4, nil, nil, c[2].jump_t)
      local plain = ode.solve(f, y0, c[1], with(c[2], {hold = 0}))
      local expected = gradients(net, y0, plain.ys:square():sum())
      for _, hold in ipairs {1, 2e5, 2 ^ 40} do
        local sol = ode.solve(f, y0, c[1], with(c[2], {hold = hold}))
        assert.are.same(expected, gradients(net, y0, sol.ys:square():sum()))
        assert.is_true(sol.stats.nfe_b < plain.stats.nfe_b)
      end
    end)
  end

  it("computes again for a gradient of times", function()
    local net, y0, f = case(5)
    local times = tide.tensor({0, 0.5}, "float64"):requires_grad()
    local sol = ode.solve(f, y0, times, o)
    local got = tide.gradients(sol.last:sum(), {times})[1]
    local slope = f(times[2]:detach(), sol.last):sum():item()
    assert.close(tide.tensor({got[2]:item()}), tide.tensor({slope}), 1e-3 * math.abs(slope))
    assert.is_truthy(net)
  end)

  -- Memory that solves in a row, and steps in a solve, take while their reverse pass is to come.
  local function live(solves, steps, hold)
    local _, y0, f = case(6, 128, 128)
    local before, y, kept = helper.live(), y0, {}
    for i = 1, solves do
      kept[i] = ode.solve(f, y, {0, 0.01}, {method = "dopri5", step_size = 0.01 / steps, hold = hold, checkpoints = 2})
      y = kept[i].last
    end
    return helper.live() - before
  end

  it("keeps no more for a row of solves than for one", function()
    live(1, 1)
    local held = live(1, 1) - live(1, 1, 0)
    assert.is_true(held > 2e5)
    assert.is_true(live(10, 1) - live(10, 1, 0) < 1.5 * held)
  end)

  it("keeps no more for many steps than for three", function()
    live(1, 3)
    local held = live(1, 3) - live(1, 3, 0)
    assert.is_true(live(1, 50) - live(1, 50, 0) < 1.3 * held)
  end)

  it("refuses what is no number of bytes", function()
    local _, y0, f = case(7)
    assert.fails_here(function() ode.solve(f, y0, {0, 1}, {hold = -1}) end, "hold")
    assert.fails_here(function() ode.solve(f, y0, {0, 1}, {hold = "64MB"}) end, "hold")
  end)
end)
