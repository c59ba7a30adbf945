-- Combinations: forward mode and second derivatives through events and through batches, options of batches.

local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end
local function leaf(...) return vector(...):requires_grad() end
local function gap(a, b) return (a - b):abs():max():item() end

-- A ball that falls by gravity p[1], hits the ground and keeps p[2] of its speed.
local function ball(p)
  local function f(_, y) return tide.cat({y:narrow(1, 2, 1), -p:narrow(1, 1, 1) + y:narrow(1, 1, 1) * 0}, 1) end
  local bounce = {
    fn = function(_, y) return y[1] end, direction = -1,
    reset = function(_, y) return tide.cat({y:narrow(1, 1, 1) * 0, -y:narrow(1, 2, 1) * p:narrow(1, 2, 1)}, 1) end,
  }
  return f, bounce
end

-- A pendulum with drive, whose speed flips and shrinks where the angle passes p[3]·cos t; never linear.
local function pendulum(p)
  local function f(t, y)
    return tide.stack({y[2], -(y[1]):sin() * p[1] - y[2] * 0.1 + (t * 1.3):cos() * p[2]})
  end
  local flip = {
    fn = function(t, y) return y[1] - p[3] * t:cos() end, direction = 1,
    reset = function(t, y) return tide.stack({y[1] - y[2] * p[2] * 0.1, -y[2] * (t * 0.2):cos() * 0.9}) end,
  }
  local pass = {fn = function(_, y) return y[2] end, terminal = false}
  return f, flip, pass
end

local function outputs(sol)
  local loss = (sol.ys * tide.arange(1, sol.ys.numel):double():reshape(sol.ys:size(1), 2):sin()):sum()
  local e = sol.events
  if e then
    local n = e.t.numel
    loss = loss + (e.t * tide.arange(1, n):double()):sum() + (e.before:cos() * 0.3):sum()
      + (e.after * e.after * 0.2):sum()
  end
  return loss
end

describe("grad = \"forward\" through events", function()
  it("has the closed forms of the bouncing ball", function()
    local y0, p = leaf(50, 0), leaf(9.8, 0.8)
    local f, bounce = ball(p)
    local sol = ode.solve(f, y0, {0, 5}, {event = bounce, grad = "forward", rtol = 1e-11, atol = 1e-11})
    local height = tide.gradients(sol.last[1], {y0, p}, {retain_graph = true})
    assert.close(height[1], {0.217445651649735, -0.7498890849994592}, 1e-9)
    assert.close(height[2], {1.874722712498648, 56.52475842498528}, 1e-8)
    local speed = tide.gradients(sol.last[2], {y0, p}, {retain_graph = true})
    assert.close(speed[1], {0.563489130329947, 1}, 1e-9)
    assert.close(speed[2], {-2.12505545750027, 31.30495168499706}, 1e-8)
    local time = tide.gradients(sol.events.t[1], {y0, p})
    assert.close(time[1], {0.031943828249997, 0.1020408163265306}, 1e-10)
    assert.close(time[2], {-0.1629787155612092, 0}, 1e-10)
  end)

  it("agrees with discrete: resets, passed and terminal events, all outputs", function()
    for _, method in ipairs {"dop853", "tsit5", "rodas5p", "kvaerno5"} do
      for _, case in ipairs {"reset", "terminal", "both", "after"} do
        local function by(grad)
          local y0, p = leaf(0.1, 1.6), leaf(2.1, 0.8, 0.7)
          local f, flip, pass = pendulum(p)
          local events = {flip, pass}
          if case == "terminal" then events = {pass, {fn = flip.fn, direction = 1}} end
          if case == "both" then events = {pass, {fn = flip.fn, direction = 1, terminal = true, reset = flip.reset}} end
          if case == "after" then events = {{fn = pass.fn, terminal = 3}} end
          local sol = ode.solve(f, y0, {0, 0.4, 1.7, 3, 5}, {method = method, events = events, grad = grad, rtol = 1e-8,
            atol = 1e-10, controller = "i"})
          return tide.gradients(outputs(sol), {y0, p}), sol
        end
        local exact, sol = by "discrete"
        local forward, other = by "forward"
        assert.are.same(sol.events.index, other.events.index)
        assert.are.equal(sol.status, other.status)
        for i = 1, 2 do
          local off = gap(exact[i], forward[i]) / exact[i]:abs():max():item()
          assert.is_true(off < 1e-4, ("%s, %s: %.3g"):format(method, case, off))
        end
      end
    end
  end)

  it("moves with the first time, and backwards in time", function()
    local function by(grad)
      local t, y0, p = leaf(3, 1, -2), leaf(0.3, 1.5), leaf(2.1, 0.8, 0.7)
      local f, flip, pass = pendulum(p)
      local sol = ode.solve(f, y0, t, {events = {flip, pass}, grad = grad, rtol = 1e-11, atol = 1e-12})
      assert.is_true(sol.events.t.numel > 1)
      return tide.gradients(outputs(sol), {t, y0, p})
    end
    local exact, forward = by "discrete", by "forward"
    for i = 1, 3 do assert.close(forward[i], exact[i], 1e-6) end
  end)

  it("refuses times of grazing events", function()
    local p = leaf(1)
    local touch = {fn = function(t, y) return (t - 1) ^ 2 * p[1] - (y[1] - y[1]) end, terminal = false}
    local ok, sol = pcall(ode.solve, function(_, y) return y * p end, vector(1), {0, 2}, {event = touch,
      grad = "forward", throw = true, step_size = 1, method = "rk4"})
    assert.is_true(not ok and tostring(sol):find("without crossing") ~= nil or sol.events.t.numel == 0)
  end)
end)

local function by_differences(slope, values, j)
  local function at(h)
    local v = {unpack(values)}
    v[j] = v[j] + h
    return slope(v):detach()
  end
  local h = 1e-3
  return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
end

describe("second derivatives", function()
  it("go through events, by discrete and by forward", function()
    for method, tolerance in pairs {dop853 = 1e-11, rodas5p = 1e-8} do
      for grad, ends in pairs {discrete = true, forward = method == "dop853"} do
        local function slope(values, graph)
          local p = leaf(unpack(values))
          local f, flip, pass = pendulum(p)
          local events = {flip, pass, ends and {fn = function(t) return t - 2.2 - p[1] * 0.1 end} or nil}
          local sol = ode.solve(f, tide.stack({p[1] * 0.05, p[2] * 2}), {0, 0.4, 1.7, 3}, {method = method,
            events = events, grad = grad, rtol = tolerance, atol = tolerance * 1e-2})
          return tide.gradients(outputs(sol), {p}, {create_graph = graph})[1], p
        end
        local values = {2.1, 0.8, 0.7}
        local g, p = slope(values, true)
        for j = 1, 3 do
          local fd = by_differences(slope, values, j)
          local row = tide.gradients(g[j], {p}, {retain_graph = true})[1]
          local off = gap(row, fd) / fd:abs():max():item()
          assert.is_true(off < 1e6 * tolerance and off < 1e-3,
            ("%s, %s, row %d: off by %.3g"):format(method, grad, j, off))
        end
      end
    end
  end)

  it("of the bouncing ball are the closed form's", function()
    -- t* = √(2h/g): its second derivatives by h and g.
    for _, grad in ipairs {"discrete", "forward"} do
      local h, p = leaf(50), leaf(9.8, 0.8)
      local f, bounce = ball(p)
      local sol = ode.solve(f, tide.cat({h, vector(0)}, 1), {0, 4}, {event = {fn = bounce.fn, direction = -1},
        grad = grad, rtol = 1e-11, atol = 1e-11})
      local g = tide.gradients(sol.events.t[1], {h, p}, {create_graph = true})
      local t = math.sqrt(2 * 50 / 9.8)
      assert.close(g[1], {t / 100}, 1e-10)
      local hh = tide.gradients(g[1]:sum(), {h, p}, {retain_graph = true})
      assert.close(hh[1], {-t / (4 * 50 ^ 2)}, 1e-10)
      assert.close(hh[2][1], -t / (4 * 50 * 9.8), 1e-10)
      assert.close(tide.gradients(g[2][1], {p})[1][1], 3 * t / (4 * 9.8 ^ 2), 1e-9)
    end
  end)

  local function rows_of(p) return function(t, y, rows)
    return (y * p):sin() * (t * 1.3 + rows:double():unsqueeze(2) * 0.2):cos() - y:flip(2) * p:sum() * 0.3
  end end

  it("go through batches: the Hessian is the sum of the rows'", function()
    for _, method in ipairs {"tsit5", "rodas5p", "kvaerno4", "bdf"} do
      for _, grad in ipairs {"discrete", "forward"} do
        local start = tide.generator(3):randn({3, 2}, "float64")
        local function hessian(batched)
          local p, y0 = leaf(1.1, 0.8), start:clone():requires_grad()
          local o = {method = method, grad = grad, rtol = 1e-9, atol = 1e-11}
          local loss = 0
          if batched then
            o.batch = true
            local sol = ode.solve(rows_of(p), y0, {{0, 0.7, 1}, {0, 0.5}, {1, 0}}, o)
            for i = 1, 3 do loss = loss + (sol.rows[i].ys:sin() * i):sum() end
          else
            for i, t in ipairs {{0, 0.7, 1}, {0, 0.5}, {1, 0}} do
              local f = rows_of(p)
              local sol = ode.solve(function(s, y)
                return f(s:reshape(1, 1), y:unsqueeze(1), tide.tensor({i}, "int64")):squeeze(1)
              end, y0[i], t, o)
              loss = loss + (sol.ys:sin() * i):sum()
            end
          end
          local g = tide.gradients(loss, {p, y0}, {create_graph = true})
          local value = (g[1] * vector(0.3, -0.7)):sum() + (g[2] * start:cos()):sum()
          local h = tide.gradients(value, {p, y0})
          return g[1], g[2], h[1], h[2]
        end
        local got, want = {hessian(true)}, {hessian(false)}
        for i = 1, 4 do
          assert.is_true(gap(got[i], want[i]) < 1e-8 * (1 + want[i]:abs():max():item()),
            ("%s, %s, result %d: off by %.3g"):format(method, grad, i, gap(got[i], want[i])))
        end
      end
    end
  end)
end)

describe("grad = \"forward\" of a batch", function()
  local start = tide.generator(4):randn({4, 2}, "float64")
  local function f_of(p) return function(t, y, rows)
    return (y * p):sin() * (t * 1.3):cos() - y ^ 3 * 0.1 + rows:double():unsqueeze(2) * p * 0.1
  end end

  it("takes the steps and has the gradients of discrete, by every kind of method", function()
    for _, method in ipairs {"tsit5", "dop853", "rodas5p", "kvaerno4", "bdf", "radau5", "abm", "trbdf2"} do
      local function by(grad)
        local p, y0 = leaf(1.1, 0.8), start:clone():requires_grad()
        local sol = ode.solve(f_of(p), y0, {{0, 0.7, 1}, {0, 0.5}, {1, 0}, {0, 2}}, {batch = true, method = method,
          grad = grad, rtol = 1e-6, atol = 1e-9})
        local loss = 0
        for i = 1, 4 do loss = loss + (sol.rows[i].ys:sin() * i):sum() end
        local g = tide.gradients(loss, {p, y0})
        return g, sol, p, y0
      end
      local exact, sol = by "discrete"
      local forward, other, p, y0 = by "forward"
      for i = 1, 4 do assert.are.equal(sol.stats[i].accepted, other.stats[i].accepted) end
      for i = 1, 2 do assert.is_true(gap(exact[i], forward[i]) < 1e-11, method) end
      if method == "tsit5" then
        assert.are.same({3, 2, 2}, other.rows[1]:sensitivity(p).shape)
        assert.close(other.rows[2]:sensitivity(y0)[1], {{1, 0}, {0, 1}}, 0)
      end
    end
  end)

  it("says what it has not", function()
    local p = leaf(1.1, 0.8)
    assert.fails_here(function()
      ode.solve(f_of(p), start, leaf(0, 1), {batch = true, grad = "forward"})
    end, "no gradient of times", "discrete")
  end)
end)
