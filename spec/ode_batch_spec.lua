-- Batches: each row of a batch is solved as if it were alone, bit by bit.

local helper = require "spec.helper"
local tide = require "tide"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end

-- Element-wise, so that a row's derivative does not depend on the batch around it.
local function wavy(p)
  return function(t, y) return (y * p):sin() * (t * 1.3):cos() - y ^ 3 * 0.1 end
end

local function same(a, b) return (a - b):abs():max():item() == 0 end

local function assert_rows_alone(f, y0, times, o, row_options)
  o.batch = true
  local batch = ode.solve(f, y0, times, o)
  for i = 1, y0:size(1) do
    local alone = {capture = false, throw = false}
    for k, v in pairs(o) do alone[k] = v end
    for k, v in pairs(row_options and row_options(i) or {}) do alone[k] = v end
    alone.batch = nil
    local t = type(times[1]) == "table" and times[i] or times
    local sol = ode.solve(function(s, y)
      return f(s:reshape(1, 1), y:unsqueeze(1), tide.tensor({i}, "int64")):squeeze(1)
    end, y0[i]:clone(), t, alone)
    local row = batch.rows[i]
    assert.are.equal(sol.status, row.status)
    assert.are.same(sol.grid, row.grid)
    for _, name in ipairs {"nfe", "accepted", "rejected", "h_min", "h_max", "t_last"} do
      assert.are.equal(sol.stats[name], row.stats[name])
    end
    assert.is_true(same(sol.ys, row.ys))
    assert.is_true(same(sol.ts, row.ts))
  end
  return batch
end

describe("a batch", function()
  local y0 = tide.generator(1):randn({7, 2}, "float64")

  it("computes for every row what it would alone, to the bit, by every kind of method", function()
    for _, method in ipairs {"tsit5", "dopri5", "bosh3", "dop853", "rk4", "euler", "rodas5p", "trbdf2", "bdf",
      "radau5"} do
      if ode.methods[method] then
        local o = {method = method, rtol = 1e-6, atol = 1e-8}
        if ode.methods[method].error_order == 0 then o.step_size = 0.07 end
        assert_rows_alone(wavy(1.3), y0, {0, 0.4, 1.1}, o)
      end
    end
  end)

  it("runs as programs, rounded up to a number of rows that is there, or as it is", function()
    local calls = 0
    local function f(t, y, rows)
      calls = calls + 0 * rows.numel
      return wavy(1.3)(t, y)
    end
    local start, times = tide.generator(7):randn({37, 2}, "float64"), {}
    for i = 1, 37 do times[i] = {0, 0.05 * i} end
    local captured = assert_rows_alone(wavy(1.3), start, times, {rtol = 1e-7})
    assert.is_true(captured.rows[1].captured)
    local eager = ode.solve(f, start, times, {batch = true, rtol = 1e-7, capture = false})
    assert.is_false(eager.rows[1].captured)
    for i = 1, 37 do assert.is_true(same(captured.rows[i].ys, eager.rows[i].ys)) end
    local count = 0
    local counting = ode.solve(function(t, y)
      count = count + 1
      return wavy(1.3)(t, y)
    end, start, times, {batch = true, rtol = 1e-7})
    assert.is_false(counting.rows[1].captured)
    assert.is_truthy(counting.rows[1].not_captured:find("changes what it closes over", 1, true))
    assert.is_true(count > 10)
    local branching = ode.solve(function(t, y) return y:sum():item() > 1e9 and y or wavy(1.3)(t, y) end, start, times,
      {batch = true, rtol = 1e-7})
    assert.is_false(branching.rows[1].captured)
    assert.is_true(same(branching.rows[9].ys, captured.rows[9].ys))
  end)

  it("is that of its rows alone also when these are captured", function()
    local function swing(_, y) return tide.cat({y:narrow(2, 2, 1), -(y:narrow(2, 1, 1):sin())}, 2) end
    local start = tide.generator(8):randn({5, 2}, "float64")
    for _, method in ipairs {"tsit5", "dop853", "kvaerno4", "rodas5p"} do
      local batch = ode.solve(swing, start, {0, 3}, {batch = true, method = method})
      for i = 1, 5 do
        local alone = ode.solve(function(_, y) return tide.stack({y[2], -y[1]:sin()}) end, start[i]:clone(), {0, 3},
          {method = method})
        assert.is_true(alone.captured and batch.rows[i].captured)
        assert.is_true(same(alone.ys, batch.rows[i].ys), method)
      end
    end
  end)

  it("takes a mass matrix, a linear part, a pattern, a preconditioner, norms and save_fn", function()
    assert_rows_alone(wavy(1.3), y0, {0, 0.4, 1.1}, {method = "rodas5p", mass = tide.tensor({{2, 0.5}, {-0.3, 1}},
      "float64")})
    assert_rows_alone(wavy(1.3), y0, {0, 0.4, 1.1}, {method = "etdrk4", linear = {-1, -2}, step_size = 0.1})
    assert_rows_alone(wavy(1.3), y0, {0, 0.4, 1.1}, {method = "exprb32"})
    assert_rows_alone(wavy(1.3), y0, {0, 0.4, 1.1}, {norm = {1, 1}})
    assert_rows_alone(wavy(1.3), y0, {0, 0.4, 1.1}, {norm = function(x) return x:abs():max() end})
    local n = 12
    local wide = tide.generator(9):randn({3, n}, "float64")
    local function diffusion(_, y)
      local last = y.ndim
      local zero = y:narrow(last, 1, 1) * 0
      local left = tide.cat({zero, y:narrow(last, 1, n - 1)}, last)
      local right = tide.cat({y:narrow(last, 2, n - 1), zero}, last)
      return (left + right - y * 2) * 50 - y ^ 3
    end
    for _, method in ipairs {"kvaerno4", "bdf", "rodas5p"} do
      local o = {method = method, jac_sparsity = {lower = 1, upper = 1}, rtol = 1e-7}
      local batch = ode.solve(diffusion, wide, {0, 0.3}, {batch = true, method = method, rtol = 1e-7,
        jac_sparsity = o.jac_sparsity})
      for i = 1, 3 do
        local alone = ode.solve(diffusion, wide[i]:clone(), {0, 0.3}, o)
        assert.close(batch.rows[i].ys, alone.ys, 1e-12)
        assert.are.equal(alone.stats.njev, batch.stats[i].njev)
      end
    end
    local large, asked = tide.generator(9):randn({2, 700}, "float64") * 0.1, 0
    local function stiff(_, y)
      local m, k = y.ndim, y:size(y.ndim)
      return y * -80 + tide.cat({y:narrow(m, k, 1), y:narrow(m, 1, k - 1)}, m) * 3
    end
    local batch = ode.solve(stiff, large, {0, 0.3}, {batch = true, method = "kvaerno4", rtol = 1e-6,
      preconditioner = function(r, _, _, shift)
        asked = asked + 1
        return r * (1 / (shift + 80))
      end})
    assert.is_true(asked > 0 and batch.stats[1].nlu == 0)
    local alone = ode.solve(stiff, large[2]:clone(), {0, 0.3}, {method = "kvaerno4", rtol = 1e-6})
    assert.close(batch.rows[2].ys, alone.ys, 1e-6)
    local sums = ode.solve(wavy(1), y0, {0, 0.5, 1}, {batch = true, save_fn = function(_, y) return y:sum() end})
    assert.are.same({7, 3}, sums.ys.shape)
  end)

  it("has times of its own for each row, in any direction and number", function()
    local times = {{0, 1}, {1, 0.4, 0.2}, {0, 0.1, 0.2, 0.3}, {2}, {0, 2}, {0.5, 0.5, 0.7}, {-1, 1}}
    local batch = assert_rows_alone(wavy(0.8), y0, times, {rtol = 1e-7, atol = 1e-9})
    assert.are.equal("table", type(batch.ys))
    assert.are.same({1, 2}, batch.ys[4].shape)
    assert.are.same({7, 2}, batch.last.shape)
    assert.are.equal(0, batch.stats[4].nfe)
  end)

  it("gives rows × times × state when the rows have equally many", function()
    local batch = ode.solve(wavy(0.8), y0, {0, 0.5, 1}, {batch = true})
    assert.are.same({7, 3, 2}, batch.ys.shape)
    assert.are.same({7, 3}, batch.ts.shape)
    local grid = ode.solve(wavy(0.8), y0, tide.linspace(0, 1, 4, "float64"):unsqueeze(1):expand(7, 4), {batch = true})
    assert.are.same({7, 4, 2}, grid.ys.shape)
  end)

  it("has tolerances of its own for each row", function()
    local rtol = {1e-3, 1e-5, 1e-7, 1e-9, 1e-4, 1e-6, 1e-8}
    assert_rows_alone(wavy(0.8), y0, {0, 3}, {rtol = rtol, atol = 1e-9},
      function(i) return {rtol = rtol[i]} end)
  end)

  it("tells f which rows are still at work, and costs nothing for those that are done", function()
    local calls, seen = 0, 0
    local rate = vector(1, 100, 3)
    local function f(_, y, rows)
      calls, seen = calls + 1, seen + rows.numel
      return -y * rate[rows]:unsqueeze(2)
    end
    local batch = ode.solve(f, tide.ones({3, 1}, "float64"), {0, 5}, {batch = true, method = "dopri5"})
    local nfe, most = 0, 0
    for _, s in ipairs(batch.stats) do nfe, most = nfe + s.nfe, math.max(most, s.nfe) end
    assert.are.equal(nfe, seen)
    assert.are.equal(most, calls)
    assert.is_true(batch.stats[2].steps > 3 * batch.stats[1].steps)
  end)

  it("keeps failures apart: NaN, blow-up and step limits stop nobody else", function()
    local start = vector(1, 1, 1, 1):unsqueeze(2)
    local function f(t, y, rows)
      local kind = rows:double():unsqueeze(2)
      local nan = tide.where(t:gt(0.7), y * (0 / 0), -y)
      return tide.where(kind:eq(2), nan, tide.where(kind:eq(3), y * y, -y))
    end
    local batch = assert_rows_alone(f, start, {0, 0.25, 2}, {max_steps = 3000})
    assert.are.same({"ok", "nonfinite"}, {batch.status[1], batch.status[2]})
    assert.is_true(batch.status[3] == "dt_underflow" or batch.status[3] == "nonfinite")
    assert.are.equal("ok", batch.status[4])
    assert.close(batch.stats[2].t_last, 0.7, 1e-10)
    assert.are.equal(2, batch.ys[2]:size(1))
    assert.is_truthy(tostring(batch):find("2 ok", 1, true))
    assert.is_truthy(batch:explain():find("row 2: ", 1, true))
    assert.fails_here(function() ode.solve(f, start, {0, 2}, {batch = true, throw = true}) end, "row 2: ")
  end)

  it("has events of its own for each row", function()
    local start = tide.tensor({{50, 0}, {20, 0}, {5, 3}}, "float64")
    local function f(_, y) return tide.cat({y:narrow(2, 2, 1), y:narrow(2, 1, 1) * 0 - 9.8}, 2) end
    local bounce = {
      fn = function(_, y) return y[1] end, direction = -1,
      reset = function(_, y) return tide.cat({y:narrow(1, 1, 1) * 0, y:narrow(1, 2, 1) * -0.8}, 1) end,
    }
    local batch = ode.solve(f, start, {0, 5}, {batch = true, event = bounce, rtol = 1e-10, atol = 1e-10})
    assert.close(batch.rows[1].events.t, {3.19438282499969957}, 1e-12)
    assert.close(batch.last[1], {29.2445651649735017, 7.34891303299470035}, 1e-10)
    assert.close(batch.rows[2].events.t[1]:item(), math.sqrt(40 / 9.8), 1e-12)
    assert.is_true(#batch.rows[3].events.index > #batch.rows[1].events.index)
    local fall = ode.solve(f, start, {0, 50}, {batch = true, event = {fn = bounce.fn, direction = -1}})
    assert.are.same({"event", "event", "event"}, fall.status)
  end)

  it("steps onto jumps in each row's own direction", function()
    local function f(t, y) return tide.where(t:lt(0.5), -y, y * 5) end
    local times = {{0, 1}, {1, 0}, {0.6, 1}}
    local batch = ode.solve(f, tide.ones({3, 1}, "float64"), times, {batch = true, jump_t = 0.5, rtol = 1e-9,
      atol = 1e-9})
    assert.close(batch.last, {{math.exp(2)}, {math.exp(-2)}, {math.exp(2)}}, 1e-7)
  end)

  it("of numbers is one solve after the other", function()
    local batch = ode.solve(function(_, y, row) return {-row * y[1]} end, {{1}, {2}}, {0, 1}, {batch = true,
      rtol = 1e-8})
    assert.close(batch.rows[2].last, {2 * math.exp(-2)}, 1e-6)
    assert.are.same({"ok", "ok"}, batch.status)
  end)

  it("passes errors of f on, and leaks nothing", function()
    local function attempt(n)
      local calls = 0
      local ok, why = pcall(ode.solve, function(t, y)
        calls = calls + 1
        if calls == n then error("stop", 0) end
        return wavy(1)(t, y)
      end, y0, {0, 1}, {batch = true})
      assert.are.same({false, "stop"}, {ok, why})
    end
    attempt(5)
    local before = helper.live()
    for n = 1, 20 do attempt(n) end
    assert.are.equal(before, helper.live())
    assert.are.equal("ok", ode.solve(wavy(1), y0, {0, 1}, {batch = true}).status[1])
  end)

  it("may solve a batch in its right-hand side", function()
    local function f(_, y)
      return -ode.solve(function(_, z) return -z end, y, {0, 0.1}, {batch = true, rtol = 1e-10, atol = 1e-12}).last
    end
    local batch = ode.solve(f, tide.ones({2, 1}, "float64"), {0, 1}, {batch = true, rtol = 1e-8})
    assert.close(batch.last, {{math.exp(-math.exp(-0.1))}, {math.exp(-math.exp(-0.1))}}, 1e-6)
  end)

  it("refuses what it has not", function()
    assert.fails_here(function() ode.solve(wavy(1), y0, {0, 1}, {batch = true, jac = {1}}) end, "jac is a table",
      "jac(t, y, rows)")
    assert.fails_here(function()
      ode.solve(wavy(1), y0, {0, 1}, {batch = true, grad = "interp", event = function(_, y) return y[1] end})
    end, 'grad = "interp" does not pass events')
    assert.fails_here(function() ode.solve(wavy(1), y0, {{0, 1}}, {batch = true}) end, "t has 1 rows, the batch has 7")
    assert.fails_here(function() ode.solve(wavy(1), y0, {0, 1}, {batch = true, rtol = {1, 2}}) end, "rtol has 2")
    assert.fails_here(function() ode.solve(function() return y0 end, y0:narrow(1, 1, 3), {0, 1}, {batch = true}) end,
      "of the shape of its rows")
  end)
end)

describe("gradients of a batch", function()
  it("see the Jacobian of rows whose derivative is partly constant", function()
    local function by(method, batched)
      local p = vector(1.1):requires_grad()
      local y0 = tide.tensor({{1, 0.1}, {0.9, 0.2}}, "float64"):requires_grad()
      local function f(_, y)
        local x, v = y:narrow(y.ndim, 1, 1), y:narrow(y.ndim, 2, 1)
        return tide.cat({v * p, -(x:sin()) - v * 0.3}, y.ndim)
      end
      local loss, steps = 0, 0
      local o = {method = method, rtol = 1e-5, atol = 1e-7, batch = batched}
      for i = 1, batched and 1 or 2 do
        local sol = ode.solve(f, batched and y0 or y0[i], {0, 1}, o)
        loss = loss + sol.last:sum()
        steps = steps + (batched and sol.stats[1].steps + sol.stats[2].steps or sol.stats.steps)
      end
      return tide.gradients(loss, {p, y0}), steps
    end
    for _, method in ipairs {"radau5", "rodas5p", "kvaerno4", "bdf", "exprb32"} do
      if method == "exprb32" then
        local function swing(_, y)
          local x, v = y:narrow(2, 1, 1), y:narrow(2, 2, 1)
          return tide.cat({v, -(x:sin()) - v * 0.3}, 2)
        end
        assert_rows_alone(swing, tide.generator(3):randn({3, 2}, "float64"), {0, 1}, {method = method})
      else
        local got, steps = by(method, true)
        local want, alone = by(method)
        assert.are.equal(alone, steps)
        for i = 1, 2 do assert.close(got[i], want[i], 1e-12) end
      end
    end
  end)

  local start = tide.generator(2):randn({5, 2}, "float64") * 0.5

  it("are those of the rows alone: starts, parameters, and every time", function()
    local times = {{0, 1}, {1, 0.4, 0.2}, {0, 0.1, 0.2, 0.3}, {0, 0.7}, {0.5, 0.9}}
    local p, y0 = vector(1.1, 0.8):requires_grad(), start:clone():requires_grad()
    local ts = {}
    for i, t in ipairs(times) do ts[i] = tide.tensor(t, "float64"):requires_grad() end
    for _, more in ipairs {{}, {checkpoints = 2}, {method = "trbdf2"}, {method = "rodas5p"}, {capture = false}} do
      local o = {rtol = 1e-6, atol = 1e-8, batch = true}
      for k, v in pairs(more) do o[k] = v end
      local batch = ode.solve(wavy(p), y0, ts, o)
      local loss = 0
      for i = 1, 5 do loss = loss + (batch.ys[i]:sin() * i):sum() end
      local got = tide.gradients(loss, {y0, p, ts[1], ts[2], ts[3]})
      local sum = vector(0, 0)
      o.batch = nil
      for i = 1, 5 do
        local row, own = start[i]:clone():requires_grad(), tide.tensor(times[i], "float64"):requires_grad()
        local sol = ode.solve(wavy(p), row, own, o)
        local g = tide.gradients((sol.ys:sin() * i):sum(), {row, p, own})
        assert.close(got[1][i], g[1], 1e-13)
        sum = sum + g[2]
        if i <= 3 then assert.close(got[2 + i], g[3], 1e-13) end
      end
      assert.close(got[2], sum, 1e-13)
    end
  end)

  it("pass through events", function()
    local g = vector(9.8):requires_grad()
    local y0 = tide.tensor({{50, 0}, {20, 0}}, "float64"):requires_grad()
    local batch = ode.solve(function(_, y) return tide.cat({y:narrow(2, 2, 1), y:narrow(2, 1, 1) * 0 - g}, 2) end, y0,
      {0, 50}, {batch = true, rtol = 1e-11, atol = 1e-11, event = function(_, y) return y[1] end})
    local grad = tide.gradients(batch.rows[1].ts[2] + batch.rows[2].ts[2] * 2, {y0, g})
    local t1, t2 = math.sqrt(100 / 9.8), math.sqrt(40 / 9.8)
    assert.close(grad[1], {{t1 / 100, t1 * t1 / 100}, {t2 / 20, t2 * t2 / 20}}, 1e-10)
    assert.close(grad[2], {-(t1 + 2 * t2) / 2 / 9.8}, 1e-10)
  end)

  it("flow from every row of a failed batch that was reached", function()
    local y0 = vector(1, 0.1):unsqueeze(2):requires_grad()
    local batch = ode.solve(function(_, y) return y * y end, y0, {0, 0.5, 2}, {batch = true, rtol = 1e-8, atol = 1e-8})
    assert.is_true(batch.status[1] ~= "ok" and batch.status[2] == "ok")
    local g = tide.gradients(batch.last:sum(), {y0})[1]
    assert.close(g, {{4}, {1 / 0.8 ^ 2}}, 1e-5)
  end)
end)
