-- Events of ode.solve: when, which, what happens there, and the gradients that pass through.

local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end
local function leaf(...) return vector(...):requires_grad() end

local tight = {rtol = 1e-11, atol = 1e-11}
local function with(o)
  local all = {}
  for k, v in pairs(tight) do all[k] = v end
  for k, v in pairs(o) do all[k] = v end
  return all
end

-- A ball in tensors: h0, v0, gravity, restitution.
local function ball(h0, v0, g, e, times, more)
  local bounce = {
    fn = function(_, y) return y[1] end, direction = -1,
    reset = function(_, y) return tide.cat({y:narrow(1, 1, 1), -e * y:narrow(1, 2, 1)}, 1) end,
  }
  local o = with {event = bounce}
  for k, v in pairs(more or {}) do o[k] = v end
  return ode.solve(function(_, y) return tide.cat({y:narrow(1, 2, 1), -g}, 1) end, tide.cat({h0, v0}, 1), times, o)
end

describe("an event", function()
  it("with a reset: the bouncing ball in numbers", function()
    local sol = ode.solve(function(_, y) return {y[2], -9.8} end, {50, 0}, {0, 5}, with {event = {
      fn = function(_, y) return y[1] end, direction = -1, reset = function(_, y) return {0, -0.8 * y[2]} end}})
    assert.close(sol.events.t, {3.19438282499969957}, 1e-13)
    assert.close(sol.events.before[1], {0, -31.3049516849970557}, 1e-11)
    assert.close(sol.events.after[1], {0, 0.8 * 31.3049516849970557}, 1e-11)
    assert.close(sol.last, {29.2445651649735017, 7.34891303299470035}, 1e-11)
    assert.are.equal("ok", sol.status)
  end)

  it("again and again: each bounce at its time", function()
    local sol = ode.solve(function(_, y) return {y[2], -9.8} end, {50, 0}, {0, 22}, with {event = {
      fn = function(_, y) return y[1] end, direction = -1, reset = function(_, y) return {0, -0.8 * y[2]} end}})
    local t, v, times = math.sqrt(100 / 9.8), math.sqrt(2 * 9.8 * 50), {}
    while t < 22 do
      times[#times + 1] = t
      v = 0.8 * v
      t = t + 2 * v / 9.8
    end
    assert.is_true(#times >= 5)
    assert.close(sol.events.t, times, 1e-11)
  end)

  it("without a reset ends the solve, with its time and state as the last row", function()
    for _, times in ipairs {{0, 9}, {0, 0.1, 0.5, 9}} do
      local sol = ode.solve(function(_, y) return y end, 1.3, times, with {event = function(_, y)
        return y - math.exp(1)
      end})
      local t = 1 - math.log(1.3)
      assert.are.same({"event", 1}, {sol.status, sol.event})
      assert.are.equal(#times, #sol.ts)
      assert.close(sol.ts[#sol.ts], t, 1e-11)
      assert.close(sol.last, math.exp(1), 1e-12)
      assert.are.equal(sol.ts[#sol.ts], sol.stats.t_last)
      assert.is_truthy(tostring(sol):find("ended the solve at t = 0.737636", 1, true))
    end
  end)

  it("is found wherever it lies in one big step, every one of several", function()
    for _, method in ipairs {"dop853", "tsit5", "rk4", "bosh3"} do
      local o = {method = method, first_step = 12, rtol = 1, atol = 1e4, event = {
        fn = function(_, y) return y end, terminal = false}}
      if ode.methods[method].error_order == 0 then o.step_size = 12 end
      local sol = ode.solve(function(t) return 3 * t * t + 12 * t - 4 end, -120, {-8, 4}, o)
      assert.are.equal(1, sol.stats.accepted)
      assert.close(sol.events.t, {-6, -2, 2}, 1e-11)
    end
  end)

  it("counts only crossings in its direction, seen along the solve", function()
    local function wave(t) return {math.cos(t)} end
    local function times(direction, span)
      return ode.solve(wave, {math.sin(span[1])}, span, with {event = {
        fn = function(_, y) return y[1] - 0.5 end, direction = direction, terminal = false}}).events.t
    end
    local up, down = math.pi / 6, 5 * math.pi / 6
    assert.close(times(1, {0, 7}), {up, up + 2 * math.pi}, 1e-9)
    assert.close(times(-1, {0, 7}), {down}, 1e-9)
    assert.close(times(0, {0, 7}), {up, down, up + 2 * math.pi}, 1e-9)
    assert.close(times(1, {3, 0}), {down}, 1e-9)
    assert.close(times(-1, {3, 0}), {up}, 1e-9)
  end)

  it("that only touches zero is found between the points that are looked at", function()
    local sol = ode.solve(function() return 1 end, 0, {0, 1}, {first_step = 1, event = {
      fn = function(t) return (t - 0.4321) ^ 2 - 1e-9 end, terminal = false}})
    assert.are.equal(2, #sol.events.t)
    assert.close(sol.events.t[1], 0.4321 - math.sqrt(1e-9), 1e-12)
  end)

  it("may be one of several, and says which", function()
    local sol = ode.solve(function() return {1, -1} end, {0, 0}, {0, 3}, {events = {
      {fn = function(_, y) return y[1] - 2.5 end},
      {fn = function(_, y) return y[2] + 1 end, terminal = false},
      {fn = function(t) return t - 1.5 end, terminal = false},
    }})
    assert.are.same({2, 3, 1}, sol.events.index)
    assert.close(sol.events.t, {1, 1.5, 2.5}, 1e-14)
    assert.are.equal(1, sol.event)
  end)

  it("at the same time as another is not lost", function()
    local sol = ode.solve(function() return 1 end, 0, {0, 3}, {events = {
      {fn = function(_, y) return y - 1 end, terminal = false},
      {fn = function(_, y) return 2 * (y - 1) end, terminal = false},
    }})
    assert.are.equal(2, #sol.events.t)
  end)

  it("may end the solve at its third time", function()
    local sol = ode.solve(function(t) return {math.cos(t)} end, {0}, {0, 30}, with {event = {
      fn = function(_, y) return y[1] - 0.5 end, terminal = 3}})
    assert.are.same({"event", 3}, {sol.status, #sol.events.t})
    assert.close(sol.last[1], 0.5, 1e-12)
  end)

  it("at the start does not fire, and the next one does", function()
    local sol = ode.solve(function(t) return {math.cos(t)} end, {0}, {0, 7}, with {event = {
      fn = function(_, y) return y[1] end, terminal = false}})
    assert.close(sol.events.t, {math.pi, 2 * math.pi}, 1e-9)
  end)

  it("may be a boolean, known at the end of a step", function()
    local sol = ode.solve(function() return 1 end, 0, {0, 3}, {max_step = 0.25, event = function(_, y)
      return y > 1.1
    end})
    assert.are.equal("event", sol.status)
    assert.are.equal(sol.grid[#sol.grid], sol.ts[2])
    assert.is_true(sol.last > 1.1 and sol.last <= 1.1 + 0.25 + 1e-12)
  end)

  it("works backwards in time: a ball thrown into the past", function()
    local sol = ode.solve(function(_, y) return {y[2], -9.8} end, {50, 0}, {0, -5}, with {event = {
      fn = function(_, y) return y[1] end, direction = -1}})
    assert.close(sol.ts[2], -3.19438282499969957, 1e-13)
  end)

  it("keeps save times apart: before it, at it, after it", function()
    local sol = ode.solve(function(_, y) return {y[2], -9.8} end, {50, 0}, {0, 1, 3, 3.5, 5}, with {event = {
      fn = function(_, y) return y[1] end, direction = -1, reset = function(_, y) return {0, -0.8 * y[2]} end}})
    assert.close(sol.ys[2][1], 50 - 4.9, 1e-11)
    assert.close(sol.ys[3][1], 50 - 4.9 * 9, 1e-11)
    local s = 3.5 - 3.19438282499969957
    assert.close(sol.ys[4][1], 0.8 * 31.3049516849970557 * s - 4.9 * s * s, 1e-11)
  end)

  it("of nested states and of float32 ones", function()
    local sol = ode.solve(function(_, s) return {x = s.v, v = s.x * 0 - 9.8} end, {x = vector(50), v = vector(0)},
      {0, 5}, with {event = {fn = function(_, s) return s.x:sum() end, direction = -1,
        reset = function(_, s) return {x = s.x, v = s.v * -0.8} end}})
    assert.close(sol.last.x, {29.2445651649735017}, 1e-11)
    assert.close(sol.events.after.v[1], {0.8 * 31.3049516849970557}, 1e-11)
    local single = ode.solve(function(_, y) return y end, tide.tensor {1.3}, {0, 9}, {rtol = 1e-5,
      event = function(_, y) return y[1] - math.exp(1) end})
    assert.close(single.events.t:totable(), {1 - math.log(1.3)}, 1e-5)
  end)

  it("works with stiff methods", function()
    for _, method in ipairs {"rodas5p", "radau5", "bdf", "trbdf2"} do
      if ode.methods[method] then
        local sol = ode.solve(function(_, y) return {-1000 * (y[1] - math.cos(y[2])), 1} end, {1, 0}, {0, 4},
          {method = method, rtol = 1e-8, atol = 1e-10, event = function(_, y) return y[1] end})
        assert.are.equal("event", sol.status)
        assert.close(sol.ts[2], math.pi / 2 + 1e-3, 1e-5)
      end
    end
  end)

  it("refuses what it cannot be", function()
    local function f(_, y) return y end
    assert.fails_here(function() ode.solve(f, 1, {0, 1}, {event = {fn = 3}}) end, "events[1].fn is a number")
    assert.fails_here(function() ode.solve(f, 1, {0, 1}, {event = {fn = f, direction = 2}}) end, "direction is 2")
    assert.fails_here(function() ode.solve(f, 1, {0, 1}, {event = {fn = f, teminal = true}}) end, "terminal")
    assert.fails_here(function() ode.solve(f, 1, {0, 1}, {event = function() return "x" end}) end,
      "the event function gave")
    assert.fails_here(function() ode.solve(f, 1, {0, 1}, {event = f, grad = "backsolve"}) end, "does not pass events")
  end)
end)

describe("gradients through an event", function()
  local function gradients(x, inputs)
    local g = tide.gradients(x, inputs, {retain_graph = true})
    for i = 1, #inputs do g[i] = g[i] and g[i]:item() or 0 end
    return g
  end

  it("of the bouncing ball are the closed forms, for height, velocity and impact", function()
    local inputs = {leaf(50), leaf(0), leaf(9.8), leaf(0.8)}
    for _, capture in ipairs {"auto", false} do
      local sol = ball(inputs[1], inputs[2], inputs[3], inputs[4], {0, 5}, {capture = capture})
      assert.close(gradients(sol.last[1], inputs),
        {0.217445651649735, -0.7498890849994592, 1.874722712498648, 56.52475842498528}, 1e-11)
      assert.close(gradients(sol.last[2], inputs),
        {0.563489130329947, 1, -2.12505545750027, 31.30495168499706}, 1e-11)
      assert.close(gradients(sol.events.t[1], inputs),
        {0.031943828249997, 0.1020408163265306, -0.1629787155612092, 0}, 1e-12)
    end
  end)

  it("agree with differences for several bounces, save times, states before and after", function()
    local function outcome(p)
      local sol = ball(p:narrow(1, 1, 1), p:narrow(1, 2, 1), p:narrow(1, 3, 1), p:narrow(1, 4, 1), {0, 2, 4, 9, 12},
        {method = "dop853"})
      assert.is_true(sol.events.t.numel >= 2)
      return (sol.ys * vector(0.3, -0.2)):sum() + (sol.events.t * 1.7):sum()
        + (sol.events.before:narrow(2, 2, 1) * 0.1):sum() - (sol.events.after:narrow(2, 2, 1) * 0.23):sum()
    end
    assert.is_true(tide.gradcheck(outcome, {vector(50, 1, 9.8, 0.8)}, {second = false, rtol = 1e-5}))
  end)

  it("of the time at which y' = y meets e is −1/y0, and the state there does not move", function()
    local y0 = leaf(1.3)
    local sol = ode.solve(function(_, y) return y end, y0, {0, 9}, with {event = function(_, y)
      return y[1] - math.exp(1)
    end})
    assert.close(gradients(sol.ts[2], {y0}), {-1 / 1.3}, 1e-10)
    assert.close(gradients(sol.last:sum(), {y0}), {0}, 1e-10)
  end)

  it("of a fall: √(2H/g) and −√(2gH)", function()
    local h, g = leaf(20), leaf(9.8)
    local sol = ode.solve(function(_, y) return tide.cat({y:narrow(1, 2, 1), -g}, 1) end,
      tide.cat({h, vector(0)}, 1), {0, 100}, with {event = function(_, y) return y[1] end})
    local t, v = math.sqrt(2 * 20 / 9.8), -math.sqrt(2 * 9.8 * 20)
    assert.close(sol.ts[2]:item(), t, 1e-12)
    assert.close(gradients(sol.ts[2], {h, g}), {t / 40, -t / 2 / 9.8}, 1e-11)
    assert.close(gradients(sol.last[2], {h, g}), {v / 40, v / 2 / 9.8}, 1e-11)
  end)

  it("reach parameters that only the event or the reset has, and the solve's times", function()
    local y0, level, t0 = leaf(1), leaf(2), leaf(0.2)
    local sol = ode.solve(function(_, y) return y end, y0, tide.cat({t0, vector(5)}, 1), with {event = {
      fn = function(_, y) return (y - level):sum() end}})
    assert.close(gradients(sol.ts[2], {y0, level, t0}), {-1, 0.5, 1}, 1e-9)  -- t* = t0 + log(level/y0)
  end)

  it("backward in time", function()
    local y0 = leaf(1.3)
    local sol = ode.solve(function(_, y) return -y end, y0, {0, -9}, with {event = function(_, y)
      return y[1] - math.exp(1)
    end})
    assert.close(sol.ts[2]:item(), -(1 - math.log(1.3)), 1e-11)
    assert.close(gradients(sol.ts[2], {y0}), {1 / 1.3}, 1e-10)
  end)

  it("do not depend on how many states are kept", function()
    local function run(o)
      local p = leaf(50, 1, 9.8, 0.8)
      local sol = ball(p:narrow(1, 1, 1), p:narrow(1, 2, 1), p:narrow(1, 3, 1), p:narrow(1, 4, 1), {0, 2, 9, 12},
        {max_step = 0.5, checkpoints = o})
      return tide.gradients(sol.ys:sum() + sol.events.t:sum(), {p})[1]
    end
    local all = run(0)
    for _, c in ipairs {1, 2, 5} do assert.close(run(c), all, 1e-13) end
  end)

  it("of a boolean event's time are zero, and of grazing ones do not exist", function()
    local y0 = leaf(0)
    local sol = ode.solve(function(_, y) return y * 0 + 1 end, y0, {0, 3}, {max_step = 0.25, event = function(_, y)
      return y[1]:item() > 1.1
    end})
    assert.close(gradients(sol.last:sum(), {y0}), {1}, 1e-12)
    local p = leaf(1)
    local touch = ode.solve(function(t, y) return y * 0 + (t - 1) * 2 * p end, vector(1), {0, 2},
      {event = {fn = function(_, y) return y[1] end, terminal = false}, rtol = 1e-9, atol = 1e-12, capture = false})
    if touch.events.t.numel > 0 then
      assert.has_error(function() tide.gradients(touch.events.t:sum(), {p}) end)
    end
  end)

  it("are exact to second order: t* = ln(2/y0)", function()
    local y0 = leaf(1.3)
    local sol = ode.solve(function(_, y) return y end, y0, {0, 9}, with {event = function(_, y) return y[1] - 2 end})
    local g = tide.gradients(sol.ts[2], {y0}, {create_graph = true})[1]
    assert.close(g, {-1 / 1.3}, 1e-8)
    assert.close(tide.gradients(g:sum(), {y0})[1], {1 / 1.69}, 1e-7)
  end)
end)
