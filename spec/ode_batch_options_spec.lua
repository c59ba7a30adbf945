-- What a batch shares with single solves: dense output, saved steps, grids, Jacobians, gradient modes, events.

local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local function same(a, b) return a.numel == b.numel and (a.numel == 0 or (a - b):abs():max():item() == 0) end

local function swing(p)
  return function(t, y)
    local last = y.ndim
    local x, v = y:narrow(last, 1, 1), y:narrow(last, 2, 1)
    return tide.cat({v * p, -(x:sin()) - v * 0.3 + (t * 0.7):cos() * 0.2}, last)
  end
end

local start = tide.tensor({{1, 0.1}, {0.9, 0.2}, {-0.4, 0.8}}, "float64")
local spans = {{0, 1.5}, {0.5, 2}, {1, -0.5}}

local function options(more, batch)
  local o = {rtol = 1e-7, atol = 1e-9, batch = batch}
  for k, v in pairs(more) do o[k] = v end
  return o
end

describe("a batch", function()
  it("has dense output of every row, its bits those of the row alone", function()
    for _, method in ipairs {"tsit5", "rodas5p", "kvaerno4", "bdf", "radau5", "abm"} do
      local sol = ode.solve(swing(1.1), start, spans, options({dense = true, method = method}, true))
      for i = 1, 3 do
        local alone = ode.solve(swing(1.1), start[i]:clone(), spans[i], options {dense = true, method = method})
        for _, part in ipairs {0, 0.21, 0.77, 1} do
          local t = spans[i][1] + part * (spans[i][2] - spans[i][1])
          local y, dy = sol.rows[i](t)
          local own, slope = alone(t)
          assert.is_true(same(y, own) and same(dy, slope), method)
        end
        assert.has_error(function() sol.rows[i](7) end)
      end
    end
    local y, dy = ode.solve(swing(1.1), start, {0, 1}, options({dense = true}, true))(0.6)
    assert.are.same({3, 2}, y.shape)
    assert.close(dy, swing(1.1)(tide.full({3, 1}, 0.6, "float64"), y), 1e-5)
    collectgarbage()
    collectgarbage()
  end)

  it("saves steps, with gradients through them and of both times", function()
    for _, every in ipairs {"steps", 3} do
      local p, y0 = tide.tensor({1.1}, "float64"):requires_grad(), start:clone():requires_grad()
      local ts = {}
      for i = 1, 3 do ts[i] = tide.tensor(spans[i], "float64"):requires_grad() end
      local sol = ode.solve(swing(p), y0, ts, options({save = every}, true))
      local loss = 0
      for i = 1, 3 do loss = loss + (sol.rows[i].ys ^ 2):sum() * i end
      local g = tide.gradients(loss, {y0, p, ts[1], ts[3]})
      local by_p = 0
      for i = 1, 3 do
        local q, own = tide.tensor({1.1}, "float64"):requires_grad(), start[i]:clone():requires_grad()
        local t = tide.tensor(spans[i], "float64"):requires_grad()
        local alone = ode.solve(swing(q), own, t, options {save = every})
        assert.is_true(same(alone.ys, sol.rows[i].ys) and same(alone.ts, sol.rows[i].ts))
        local h = tide.gradients((alone.ys ^ 2):sum() * i, {own, q, t})
        assert.close(g[1][i], h[1], 1e-12)
        by_p = by_p + h[2]
        if i ~= 2 then assert.close(g[i == 1 and 3 or 4], h[3], 1e-12) end
      end
      assert.close(g[2], by_p, 1e-12)
    end
  end)

  it("gives saved steps' last time its gradient also when there are times between", function()
    local function loss(t, batch)
      local sol = ode.solve(swing(1.1), batch and start or start[1]:clone(), t, options({save = "steps"}, batch))
      return (batch and sol.rows[1] or sol).ys:narrow(1, -1, 1):sum()
    end
    for _, batch in ipairs {false, true} do
      local t = tide.tensor({0, 0.5, 1.5}, "float64"):requires_grad()
      local g = tide.gradients(loss(t, batch), {t})[1]
      local two = tide.tensor({0, 1.5}, "float64"):requires_grad()
      local want = tide.gradients(loss(two, batch), {two})[1]
      assert.close(g, {want[1]:item(), 0, want[2]:item()}, 1e-10)
    end
  end)

  it("takes a grid for each row from grid_constructor", function()
    local function grid(_, y, t)
      local n, first, last = y[1]:item() > 0.95 and 7 or 12, t[1]:item(), t[t.numel]:item()
      local nodes = {}
      for i = 0, n do nodes[i + 1] = i == n and last or first + (last - first) * (i / n) ^ 1.5 end
      return nodes
    end
    for _, method in ipairs {"rk4", "tsit5", "kvaerno4"} do
      local p, y0 = tide.tensor({1.1}, "float64"):requires_grad(), start:clone():requires_grad()
      local sol = ode.solve(swing(p), y0, spans, options({grid_constructor = grid, method = method}, true))
      local g = tide.gradients(sol.last:sum(), {y0})[1]
      for i = 1, 3 do
        local own = start[i]:clone():requires_grad()
        local alone = ode.solve(swing(1.1), own, spans[i], options {grid_constructor = grid, method = method})
        assert.is_true(same(alone.ys, sol.rows[i].ys), method)
        assert.are.equal(i == 1 and 7 or 12, sol.stats[i].accepted)
        assert.close(g[i], tide.gradients(alone.last:sum(), {own})[1], 1e-12)
      end
    end
    local function wrong() return {0, 1, 1.5} end
    local ok, why = pcall(ode.solve, swing(1.1), start, spans, {batch = true, method = "rk4", grid_constructor = wrong})
    assert.is_true(not ok and why:find("grid goes from 0 to 1.5, expected from 0.5 to 2", 1, true) ~= nil, why)
  end)

  it("takes the Jacobians from a function of all rows", function()
    local calls = 0
    local function jac(t, y, rows)
      calls = calls + 1
      local zero, x = tide.zeros({rows.numel, 1}, "float64"), y:narrow(2, 1, 1)
      local j = tide.cat({zero, zero + 1.1, -(x:cos()), zero - 0.3}, 2):reshape({rows.numel, 2, 2})
      return j, tide.cat({zero, (t * 0.7):sin() * -0.14}, 2)
    end
    for _, method in ipairs {"rodas5p", "kvaerno4", "bdf"} do
      calls = 0
      local sol = ode.solve(swing(1.1), start, spans, options({jac = jac, method = method}, true))
      local plain = ode.solve(swing(1.1), start, spans, options({method = method}, true))
      assert.is_true(calls > 0)
      assert.close(sol.last, plain.last, 1e-7)
      assert.is_true(sol.stats[1].nfe <= plain.stats[1].nfe)
    end
    local ok, why = pcall(ode.solve, swing(1.1), start, spans, {batch = true, method = "bdf", jac = function()
      return tide.ones({2, 2})
    end})
    assert.is_true(not ok and why:find("expected a real tensor of 3×2×2 elements", 1, true) ~= nil, why)
  end)

  it("has every gradient mode of its rows", function()
    for _, mode in ipairs {"backsolve", "interp", "gauss", "reversible"} do
      for _, capture in ipairs {"auto", false} do
        local method = mode == "reversible" and "alf" or "tsit5"
        local o = {grad = mode, method = method, capture = capture}
        local p, y0 = tide.tensor({1.1}, "float64"):requires_grad(), start:clone():requires_grad()
        local ts = {}
        for i = 1, 3 do ts[i] = tide.tensor({spans[i][1], (spans[i][1] + spans[i][2]) / 2, spans[i][2]}, "float64") end
        ts[1]:requires_grad()
        local sol = ode.solve(swing(p), y0, ts, options(o, true))
        local g = tide.gradients((sol.ys ^ 2):sum(), {y0, p, ts[1]})
        local by_p = 0
        for i = 1, 3 do
          local q, own = tide.tensor({1.1}, "float64"):requires_grad(), start[i]:clone():requires_grad()
          local t = ts[i]:detach():clone():requires_grad()
          local h = tide.gradients((ode.solve(swing(q), own, t, options(o)).ys ^ 2):sum(), {own, q, t})
          assert.close(g[1][i], h[1], 1e-12)
          by_p = by_p + h[2]
          if i == 1 then assert.close(g[3], h[3], 1e-12) end
        end
        assert.close(g[2], by_p, 1e-12)
      end
    end
    local y0 = start:clone():requires_grad()
    local sol = ode.solve(swing(1.1), y0, {0, 1}, {batch = true, grad = "gauss"})
    local ok, why = pcall(tide.gradients, sol.last:sum(), {y0}, {create_graph = true})
    assert.is_true(not ok and tostring(why):find("needs grad = \"discrete\" or \"forward\"", 1, true) ~= nil)
    ok, why = pcall(ode.solve, swing(1.1), y0, {0, 1}, {batch = true, grad = "reversible"})
    assert.is_true(not ok and tostring(why):find("needs a reversible method", 1, true) ~= nil)
  end)
end)

-- Balls with gravity g, thrown at a floor that is at row × level, whose bounces keep the share e.
local function bounces(g, e, level)
  local function f(_, y)
    local last = y.ndim
    return tide.cat({y:narrow(last, 2, 1), y:narrow(last, 1, 1) * 0 - g}, last)
  end
  local event = {
    fn = function(_, y, row) return y[1] - level * row end,
    reset = function(_, y, row) return tide.stack({level * row, -y[2] * e}) end, direction = -1,
  }
  return f, event
end

describe("events of a batch", function()
  local balls = tide.tensor({{3, 0}, {5, 1}, {4, -1}}, "float64")

  it("are told the row", function()
    local f, event = bounces(9.8, 0.8, tide.tensor(0.5, "float64"))
    local sol = ode.solve(f, balls, {0, 2}, {batch = true, event = event, rtol = 1e-10, atol = 1e-10})
    for i = 1, 3 do
      local h, v = balls[i][1]:item() - 0.5 * i, balls[i][2]:item()
      assert.close(sol.rows[i].events.t[1]:item(), (v + math.sqrt(v * v + 2 * 9.8 * h)) / 9.8, 1e-9)
    end
    local rows = {}
    local plain = ode.solve(function(_, y) return {y[2], -9.8} end, {{3, 0}, {5, 1}}, {0, 2}, {batch = true,
      event = function(_, y, row)
        rows[row] = true
        return y[1] - 0.5 * row
      end})
    assert.close(plain.rows[2].events.t[1], (1 + math.sqrt(1 + 2 * 9.8 * 4)) / 9.8, 1e-6)
    assert.are.same({true, true}, rows)
  end)

  it("pass derivatives of any order in forward mode, and second ones of the discrete gradient", function()
    local function loss(mode, values)
      local f, event = bounces(values[2], values[3], values[4])
      local sol = ode.solve(f, values[1], {0, 1.6}, {batch = true, event = event, grad = mode, rtol = 1e-10,
        atol = 1e-10})
      local sum = (sol.last ^ 2):sum()
      for i = 1, 3 do sum = sum + (sol.rows[i].events.t:narrow(1, 1, 1) * sol.rows[i].events.after[1][2]):sum() * i end
      return sum
    end
    local function values(leaf, at, e)
      local function number(x, k)
        if at == k then x = x + e end
        local t = tide.tensor(x, "float64")
        return leaf and t:requires_grad() or t
      end
      local y0 = balls:clone()
      if at and at > 4 then
        local r, c = math.ceil((at - 4) / 2), (at - 5) % 2 + 1
        y0[r][c] = y0[r][c] + e
      end
      return {leaf and y0:requires_grad() or y0, number(9.8, 2), number(0.8, 3), number(0.5, 4)}
    end
    local e, want = 1e-5, {}
    for k = 2, 10 do
      want[k] = (loss("discrete", values(false, k, e)) - loss("discrete", values(false, k, -e))):item() / (2 * e)
    end
    local first, second = {}, {}
    for _, mode in ipairs {"discrete", "forward"} do
      local v = values(true)
      local g = tide.gradients(loss(mode, v), v, {create_graph = true})
      for k = 2, 4 do assert.close(g[k]:item(), want[k], 1e-5) end
      assert.close(g[1]:reshape(-1):detach(), {want[5], want[6], want[7], want[8], want[9], want[10]}, 1e-5)
      first[mode] = g
      second[mode] = tide.gradients(g[2] + g[3] * 0.5 + (g[1] ^ 2):sum() * 0.01, v)
    end
    for k = 1, 4 do
      assert.close(first.forward[k]:detach(), first.discrete[k]:detach(), 1e-6)
      assert.close(second.forward[k], second.discrete[k], 1e-5)
    end
    -- d²/dg² by differences of the first derivative
    local function slope(k)
      local v = values(true, 2, k)
      local g = tide.gradients(loss("discrete", v), v)
      return g[2]:item() + g[3]:item() * 0.5 + (g[1] ^ 2):sum():item() * 0.01
    end
    assert.close(second.discrete[2]:item(), (slope(1e-5) - slope(-1e-5)) / 2e-5, 1e-4)
  end)
end)
