-- The options of ode.solve that shape a solve: where steps end, how errors are measured, what is kept, checkpoints.

local core = require "tide.core"
local rk = require "spec.support.rk"
local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end
local function leaf(...) return vector(...):requires_grad() end

describe("checkpoints", function()
  it("of the binomial schedule: the least numbers of extra steps", function()
    local function least(n, c, memo)  -- E(n, c) by its recurrence
      if n == 1 then return 0 end
      if c == 1 then return n * (n - 1) / 2 end
      local key = n * 1000 + c
      if memo[key] then return memo[key] end
      local best = math.huge
      for k = 1, n - 1 do best = math.min(best, k + least(n - k, c - 1, memo) + least(k, c, memo)) end
      memo[key] = best
      return best
    end
    local memo = {}
    for n = 1, 40 do
      for c = 1, 8 do assert.are.equal(least(n, c, memo), core.ode_revolve(n, c)) end
    end
    assert.are.equal(15, core.ode_revolve(10, 3))
    assert.are.equal(222, core.ode_revolve(100, 10))
    assert.are.equal(2747, core.ode_revolve(1000, 20))
  end)

  local function wavy(p)
    return function(t, y) return (y * p):sin() * (t * 1.3):cos() - y ^ 3 * 0.1 end
  end

  local function gradient(n, c, method)
    local y0, p = leaf(0.7, -0.4), leaf(1.1, 0.8)
    local sol = ode.solve(wavy(p), y0, {0, 0.3, 1}, {method = method, step_size = 1 / n, checkpoints = c})
    local g = tide.gradients(sol.ys:sin():sum(), {y0, p})
    return g, sol.stats
  end

  it("cost exactly that on a fixed grid, and change no bit of the gradient", function()
    local all = gradient(10, 0, "rk4")
    for _, case in ipairs {{10, 3}, {10, 1}, {10, 9}, {10, 20}, {100, 10}, {37, 4}, {1, 1}, {2, 1}} do
      local n, c = case[1], case[2]
      local g, stats = gradient(n, c, "rk4")
      assert.are.equal(core.ode_revolve(n, c), n - 1 + stats.replayed)
      if n == 10 then
        for i = 1, 2 do assert.are.same(all[i]:totable(), g[i]:totable()) end
      end
    end
    local _, stats = gradient(1000, 20, "euler")
    assert.are.equal(2747, 999 + stats.replayed)
  end)

  it("of an adaptive solve leave the gradient as it is", function()
    local function run(o)
      local y0, p = leaf(0.7, -0.4), leaf(1.1, 0.8)
      o.rtol, o.atol, o.method = 1e-9, 1e-9, "dopri5"
      local sol = ode.solve(wavy(p), y0, {0, 0.3, 5}, o)
      return tide.gradients(sol.ys:sum(), {y0, p}), sol.stats
    end
    local all, stats = run {}
    assert.are.equal(0, stats.replayed)
    for _, o in ipairs {{checkpoints = 1}, {checkpoints = 4}, {memory = 100}, {checkpoints = 1000}} do
      local g = run(o)
      for i = 1, 2 do assert.are.same(all[i]:totable(), g[i]:totable()) end
    end
  end)

  it("serve a second reverse pass too", function()
    local y0, p = leaf(0.7, -0.4), leaf(1.1, 0.8)
    local sol = ode.solve(wavy(p), y0, {0, 1}, {method = "rk4", step_size = 0.05, checkpoints = 4})
    local sum = sol.last:sum()
    local a = tide.gradients(sum, {y0, p}, {retain_graph = true})
    local b = tide.gradients(sum, {y0, p}, {retain_graph = true})
    for i = 1, 2 do assert.are.same(a[i]:totable(), b[i]:totable()) end
  end)

  it("bound the memory: 6 states for 300 steps", function()
    local y0 = tide.ones({100000}, "float64"):requires_grad()
    collectgarbage()
    collectgarbage()
    local before = tide.memory("reset").live
    local sol = ode.solve(function(_, y) return -y end, y0, {0, 1}, {method = "rk4", step_size = 1 / 300,
      checkpoints = 6})
    sol.last:sum():backward()
    assert.is_true((tide.memory().peak - before) / 8e5 < 60, (tide.memory().peak - before) / 8e5)
  end)
end)

describe("stops", function()
  -- Switches at 0.5 from −0.5x to x²; right on either side only.
  local function switching(log)
    return function(t, x)
      log[#log + 1] = t
      return t < 0.5 and -0.5 * x or x * x
    end
  end
  local function exact(t)
    local half = math.exp(-0.25)
    return t <= 0.5 and math.exp(-0.5 * t) or 1 / (1 / half - (t - 0.5))
  end

  it("at step_t end steps there", function()
    local sol = ode.solve(function(_, y) return -y end, 1, {0, 1}, {step_t = {0.7, 0.2, 5, 0}})
    local on = {}
    for _, t in ipairs(sol.grid) do on[t] = true end
    assert.is_true(on[0.2] and on[0.7])
    assert.is_nil(on[5])
    assert.close(sol.last, math.exp(-1), 1e-6)
  end)

  it("at jump_t ask f from the left before and from the right after, and save evaluations", function()
    for _, ends in ipairs {{0, 1}, {1, 0}} do
      for _, method in ipairs {"tsit5", "dopri5", "bosh3", "dop853", "rk4"} do
        local o = {method = method, rtol = 1e-9, atol = 1e-9, jump_t = 0.5}
        if method == "rk4" then o.step_size = 0.01 end
        local log = {}
        local start = exact(ends[1])
        local sol = ode.solve(switching(log), start, {ends[1], 0.5, ends[2]}, o)
        assert.close(sol.last, exact(ends[2]), 1e-7)
        assert.close(sol.ys[2], exact(0.5), 1e-7)
        -- up to the jump only times before it in the solve's order, then none before it
        local crossed = false
        for _, t in ipairs(log) do
          local after
          if ends[1] == 0 then after = t >= 0.5 else after = t < 0.5 end
          assert.are_not.equal(0.5, t)
          assert.is_false(crossed and not after)
          crossed = crossed or after
        end
        if method ~= "rk4" then
          local free = ode.solve(switching {}, start, {ends[1], ends[2]}, {method = method, rtol = 1e-9, atol = 1e-9})
          assert.is_true(sol.stats.nfe < free.stats.nfe)
        end
      end
    end
  end)

  it("at jumps are differentiated exactly", function()
    local y0, p = leaf(0.7), leaf(0.8)
    local function f(t, y) return t:item() < 0.5 and -p * y or p * y * y end
    local sol = ode.solve(f, y0, {0, 0.25, 1}, {method = "dopri5", rtol = 1e-10, atol = 1e-10, jump_t = {0.5}})
    local g = tide.gradients(sol.last:sum(), {y0, p})
    local half = 0.7 * math.exp(-0.4)
    local last = 1 / (1 / half - 0.4)
    assert.close(sol.last, {last}, 1e-8)
    assert.close(g[1], {last ^ 2 / half / 0.7}, 1e-7)
    assert.close(g[2], {last ^ 2 * (0.5 - 0.5 / half)}, 1e-7)
  end)
end)

describe("tolerances and norms", function()
  local function f(_, y) return {-y[1], -50 * (y[2] - math.cos(y[1]))} end

  it("may be one for each element", function()
    local one = ode.solve(f, {1, 0}, {0, 3}, {rtol = 1e-6, atol = 1e-8})
    local same = ode.solve(f, {1, 0}, {0, 3}, {rtol = {1e-6, 1e-6}, atol = tide.tensor({1e-8, 1e-8}, "float64")})
    local loose = ode.solve(f, {1, 0}, {0, 3}, {rtol = 1e-6, atol = {1e-8, 1}})
    assert.are.same(one.grid, same.grid)
    assert.is_true(loose.stats.steps < one.stats.steps)
  end)

  it("may be one for each part of a nested state", function()
    local function g(_, s) return {a = -s.a, b = (s.b - s.a:cos()) * -50} end
    local s0 = {a = vector(1), b = vector(0)}
    local one = ode.solve(g, s0, {0, 3}, {atol = 1e-8})
    local parts = ode.solve(g, s0, {0, 3}, {atol = {a = 1e-8, b = vector(1)}})
    assert.is_true(parts.stats.steps < one.stats.steps)
    assert.fails_here(function() ode.solve(g, s0, {0, 3}, {atol = {a = 1}}) end, "part")
    assert.fails_here(function() ode.solve(f, {1, 0}, {0, 3}, {atol = {1, 1, 1}}) end, "3 elements", "2")
    assert.fails_here(function() ode.solve(f, {1, 0}, {0, 3}, {atol = {1, -1}}) end, "at least 0")
  end)

  it("may be a function or groups", function()
    local max = ode.solve(f, {1, 0}, {0, 3}, {norm = "max"})
    local by_function = ode.solve(f, {1, 0}, {0, 3}, {norm = function(e)
      return e:abs():max()
    end})
    local groups = ode.solve(f, {1, 0}, {0, 3}, {norm = {1, 1}})
    assert.are.same(max.grid, by_function.grid)
    assert.are.same(max.grid, groups.grid)
    assert.are.same(ode.solve(f, {1, 0}, {0, 3}).grid, ode.solve(f, {1, 0}, {0, 3}, {norm = {2}}).grid)
    assert.fails_here(function() ode.solve(f, {1, 0}, {0, 3}, {norm = {1, 2}}) end, "groups of norm have 3")
  end)
end)

describe("steps", function()
  it("of min_step may be accepted whatever their error", function()
    local function stiff(t, y) return -1000 * (y - math.cos(t)) end
    local o = {min_step = 0.001, first_step = 0.1, on_min_step = "accept"}
    local sol = ode.solve(stiff, 0, {0, 1}, o)
    assert.are.equal("ok", sol.status)
    assert.is_true(sol.stats.h_min >= 0.001 - 1e-12 or sol.grid[#sol.grid] - sol.grid[#sol.grid - 1] < 0.001)
  end)

  it("on a grid of one's own are those", function()
    local nodes = {0}
    for i = 1, 10 do nodes[i + 1] = i / 10 end
    nodes[11] = 1
    local sol = ode.solve(function(_, y) return y end, 1, {0, 0.55, 1}, {method = "euler",
      grid_constructor = function() return nodes end, interp = "linear"})
    assert.are.same(nodes, sol.grid)
    assert.close(sol.last, 1.1 ^ 10, 1e-14)
    assert.close(sol.ys[2], 1.1 ^ 5 * 1.05, 1e-13)
    local any = ode.solve(function(_, y) return y end, 1, {0, 1}, {method = "dopri5",
      grid_constructor = function() return nodes end})
    assert.are.same(nodes, any.grid)
    assert.fails_here(function()
      ode.solve(function(_, y) return y end, 1, {0, 1}, {grid_constructor = function() return {0, 0.5} end})
    end, "grid_constructor's grid goes from 0 to 0.5")
  end)

  it("interpolated by straight lines are differentiated so", function()
    local y0 = leaf(0.7, -0.4)
    assert.is_true(tide.gradcheck(function(y)
      return ode.solve(function(t, z) return (z * t):sin() end, y, {0, 0.33, 1}, {method = "rk4", step_size = 0.2,
        interp = "linear"}).ys
    end, {y0:detach()}, {second = false}))
  end)
end)

describe("saving", function()
  it("every step gives their times and states, with gradients", function()
    local y0, p = leaf(0.7, -0.4), leaf(1.1, 0.8)
    local function f(t, y) return (y * p):sin() * t:cos() end
    local o = {method = "dopri5", rtol = 1e-5, atol = 1e-6, save = "steps"}
    local sol = ode.solve(f, y0, {0, 2}, o)
    assert.are.same(sol.grid, sol.ts:totable())
    assert.are.same({#sol.grid, 2}, sol.ys.shape)
    local twin = rk.on_grid(ode.methods.dopri5, f, y0, sol.grid, tide.tensor(sol.grid, "float64"))
    local a, b = tide.gradients(sol.ys:sin():sum(), {y0, p}), tide.gradients(twin:sin():sum(), {y0, p})
    for i = 1, 2 do assert.close(a[i], b[i], 1e-12) end
    local third = ode.solve(f, y0, {0, 2}, {method = "rk4", step_size = 0.1, save = 3})
    assert.close(third.ts, {0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8}, 1e-14)
  end)

  it("a function of the state gives its values", function()
    local sol = ode.solve(function(_, y) return {y[2], -y[1]} end, {1, 0}, {0, 1, 2}, {
      save_fn = function(t, y) return t + y[1] ^ 2 + y[2] ^ 2 end})
    assert.close(sol.ys, {1, 2, 3}, 1e-5)
    local y0 = leaf(2)
    local energy = ode.solve(function(_, y) return -y end, y0, {0, 1}, {
      save_fn = function(_, y) return (y * y):sum() end})
    assert.close(tide.gradients(energy.ys[2], {y0})[1], {4 * math.exp(-2)}, 1e-5)
  end)

  it("dense: sol(t) is the extension, with its derivative, and nothing outside", function()
    for _, method in ipairs {"tsit5", "dop853", "rk4", "bosh3"} do
      local o = {method = method, rtol = 1e-9, atol = 1e-9, dense = true}
      if method == "rk4" then o.step_size = 0.01 end
      for _, ends in ipairs {{0, 5}, {5, 0}} do
        local sol = ode.solve(function(_, y) return {y[2], -y[1]} end, {math.sin(ends[1]), math.cos(ends[1])}, ends, o)
        for _, t in ipairs {0, 0.3, 2.7, 4.999, 5} do
          local y, dy = sol(t)
          assert.close(y, {math.sin(t), math.cos(t)}, 1e-6)
          assert.close(dy, {math.cos(t), -math.sin(t)}, 1e-5)
        end
        assert.fails_here(function() sol(5.1) end, "outside the solved interval")
        assert.fails_here(function() sol(-0.1) end, "outside the solved interval")
      end
    end
    assert.fails_here(function() ode.solve(function(_, y) return y end, 1, {0, 1})(0.5) end, "dense = true")
  end)

  it("dense: from the left and from the right of a jump and of a reset", function()
    local sol = ode.solve(function(t) return t < 1 and 1 or -3 end, 0, {0, 2}, {jump_t = 1, dense = true})
    local _, left = sol(1, "left")
    local _, right = sol(1)
    assert.close(left, 1, 1e-9)
    assert.close(right, -3, 1e-9)
    local ball = ode.solve(function(_, y) return {y[2], -9.8} end, {50, 0}, {0, 5}, {dense = true, event = {
      fn = function(_, y) return y[1] end, direction = -1, reset = function(_, y) return {0, -0.8 * y[2]} end}})
    local t = ball.events.t[1]
    assert.close(ball(t, "left")[2], -31.3049516849970557, 1e-6)
    assert.close(ball(t)[2], 0.8 * 31.3049516849970557, 1e-6)
  end)

  it("dense leaves gradients as they are, before and after a reverse pass", function()
    local y0 = leaf(1.5)
    local sol = ode.solve(function(t, y) return y * t:cos() end, y0, {0, 2}, {dense = true, rtol = 1e-9, atol = 1e-9})
    local before = sol(1.3)
    sol.last:sum():backward()
    assert.close(sol(1.3), before, 0)
    assert.close(y0.grad, {math.exp(math.sin(2))}, 1e-8)
  end)
end)

describe("a refused or failed solve", function()
  it("with throw = false says bad_input and calls nothing", function()
    local function f() error "called" end
    for _, case in ipairs {{{0, 2, 1}}, {{}}, {{0, 1}, {rtol = -1}}, {{0, 1}, {method = "tsit6"}}} do
      local o = case[2] or {}
      o.throw = false
      local sol = ode.solve(f, 1, case[1], o)
      assert.are.same({"bad_input", 0}, {sol.status, sol.stats.nfe})
      assert.is_truthy(sol.message:find("ode.solve: ", 1, true))
      assert.is_truthy(tostring(sol):find("bad_input", 1, true))
    end
  end)

  it("explains itself: components, the smallest step, and a hint", function()
    local sol = ode.solve(function(_, y) return {y[1] ^ 2, 0} end, {1, 7}, {0, 2}, {throw = false})
    local words = sol:explain()
    for _, part in ipairs {"Component 1 had the largest error in", "The smallest step", "blows up"} do
      assert.is_truthy(words:find(part, 1, true), words)
    end
  end)
end)
