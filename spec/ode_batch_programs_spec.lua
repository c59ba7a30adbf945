-- Batches run as programs: whole explicit steps, Jacobians and second derivatives of all rows at once.

local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local function same(a, b) return a.numel == b.numel and (a - b):abs():max():item() == 0 end

-- y_i' = −k y_i (1 + y_i²) + sin(t k) y_{i+1} around a ring, k of the row's number.
local function coupled(k)
  return function(t, y, rows)
    local own, n = rows and k[rows]:reshape({-1, 1}) or k, y:size(y.ndim)
    local next_one = n == 1 and y or tide.cat({y:narrow(y.ndim, 2, n - 1), y:narrow(y.ndim, 1, 1)}, y.ndim)
    return (y + y ^ 3) * -own + (t * own):sin():to(y.dtype) * next_one
  end
end

local function rates(n, dtype)
  local list = {}
  for i = 1, n do list[i] = 0.5 + i / n end
  return tide.tensor(list, dtype or "float64")
end

-- Gradients of a batch by its starts and rates, and those of the rows alone.
local function both(method, n, width, o, dtype)
  local start = tide.generator(3):randn({n, width}, dtype or "float64")
  local function options(batch)
    local all = {method = method, rtol = 1e-5, atol = 1e-7, batch = batch}
    for key, v in pairs(o or {}) do all[key] = v end
    return all
  end
  local k, y0 = rates(n, dtype):requires_grad(), start:clone():requires_grad()
  local sol = ode.solve(coupled(k), y0, {0, 0.4, 1.5}, options(true))
  local got = tide.gradients((sol.ys * sol.ys):sum(), {y0, k})
  local want = {start * 0, rates(n, dtype) * 0}
  for i = 1, n do
    local own, row = rates(n, dtype)[i]:clone():requires_grad(), start[i]:clone():requires_grad()
    local alone = ode.solve(coupled(own), row, {0, 0.4, 1.5}, options())
    assert.is_true(same(alone.ys, sol.rows[i].ys), method)
    local g = tide.gradients((alone.ys * alone.ys):sum(), {row, own})
    want[1][i], want[2][i] = g[1], g[2]
  end
  return got, want, sol
end

describe("a batch run as programs", function()
  it("takes second derivatives of few and of many components at once, as each row alone does", function()
    for _, method in ipairs {"rodas5p", "rosenbrock23", "rodas4"} do
      for _, width in ipairs {1, 2, 12} do
        for _, capture in ipairs {"auto", false} do
          local got, want, sol = both(method, 9, width, {capture = capture})
          assert.are.equal(capture == "auto", sol.rows[1].captured)
          for i = 1, 2 do assert.close(got[i], want[i], 1e-11) end
        end
      end
    end
    local got, want = both("rodas5p", 6, 3, {rtol = 1e-3, atol = 1e-3}, "float32")
    for i = 1, 2 do assert.close(got[i], want[i], 2e-4) end
  end)

  it("differentiates the gradient of a Rosenbrock method by finite differences of the solve", function()
    local start = tide.tensor({{0.6, -0.3}, {0.2, 0.9}}, "float64")
    local function loss(k, y0, o)
      o.batch, o.method, o.step_size = true, "rodas5p", 0.1
      return (ode.solve(coupled(k), y0, {0, 1}, o).last ^ 2):sum()
    end
    local k, y0 = rates(2):requires_grad(), start:clone():requires_grad()
    local g = tide.gradients(loss(k, y0, {}), {y0, k})
    local e = 1e-6
    for i = 1, 2 do
      local up, down = rates(2), rates(2)
      up[i], down[i] = up[i] + e, down[i] - e
      assert.close(g[2][i], (loss(up, start, {}) - loss(down, start, {})) / (2 * e), 1e-8)
      local plus, minus = start:clone(), start:clone()
      plus[i][2] = plus[i][2] + e
      minus[i][2] = minus[i][2] - e
      assert.close(g[1][i][2], (loss(rates(2), plus, {}) - loss(rates(2), minus, {})) / (2 * e), 1e-8)
    end
  end)

  it("makes Jacobians whose constants meet sums, as each row alone does", function()
    for _, method in ipairs {"kvaerno4", "radau5", "bdf", "rodas5p", "exprb32"} do
      local start = tide.generator(4):randn({11, 5}, "float64")
      local function f(t, y)
        local last = y.ndim
        local sums = y:narrow(last, 1, 2):sum(last, true) * 0.2
        local squared, rest = y:narrow(last, 1, 1) ^ 2, y:narrow(last, 4, 2) * -2 + t
        return tide.cat({y:narrow(last, 2, 2) * 3 - sums, sums - squared, rest}, last)
      end
      local batch = ode.solve(f, start, {0, 0.3, 1}, {batch = true, method = method})
      for i = 1, 11 do
        local alone = ode.solve(f, start[i]:clone(), {0, 0.3, 1}, {method = method})
        assert.is_true(same(alone.ys, batch.rows[i].ys), method)
        assert.are.equal(alone.stats.nfe, batch.stats[i].nfe)
      end
    end
  end)

  it("gives every row its own steps to the bit, many rows in several parts, with and without gradients", function()
    local n = 260
    local k, start = rates(n), tide.generator(5):randn({n, 2}, "float64")
    for _, method in ipairs {"tsit5", "dop853", "bosh3", "heun2", "kvaerno3"} do
      local o = {batch = true, method = method, rtol = 1e-6}
      if ode.methods[method].error_order == 0 then o.step_size = 0.1 end
      local sol = ode.solve(coupled(k), start, {0, 0.7, 2}, o)
      o.batch = nil
      for i = 1, n, 7 do
        local alone = ode.solve(coupled(k[i]), start[i]:clone(), {0, 0.7, 2}, o)
        assert.is_true(same(alone.ys, sol.rows[i].ys), method)
        for _, name in ipairs {"nfe", "accepted", "rejected", "h_min"} do
          assert.are.equal(alone.stats[name], sol.stats[i][name])
        end
      end
    end
    for _, method in ipairs {"tsit5", "vern7", "ssprk33"} do
      local o = {rtol = 1e-6, step_size = ode.methods[method].error_order == 0 and 0.1 or nil}
      local got, want = both(method, 130, 2, o)
      for i = 1, 2 do assert.close(got[i], want[i], 1e-12) end
    end
  end)

  it("lets rows of every part fail alone, and an error of f end the solve", function()
    local n = 250
    local start = tide.ones({n, 1}, "float64")
    start[3], start[200] = 0 / 0, 1 / 0
    local sol = ode.solve(function(_, y) return -y end, start, {0, 1}, {batch = true})
    for i = 1, n do
      assert.are.equal((i == 3 or i == 200) and "nonfinite" or "ok", sol.status[i])
    end
    assert.close(sol.last[250], {math.exp(-1)}, 1e-6)
    for _, capture in ipairs {"auto", false} do
      local ok, why = pcall(ode.solve, function(_, y, rows)
        if rows.numel < 200 and not capture then error("no more") end
        return y:narrow(2, 1, 1):log() * (capture and tide.ones({3, 1}) or 1)
      end, tide.generator(6):rand({n, 1}, "float64") + 0.5, {0, 3}, {batch = true, capture = capture})
      assert.is_false(ok)
      assert.is_truthy(tostring(why):find(capture and "shape" or "no more"))
    end
  end)
end)
