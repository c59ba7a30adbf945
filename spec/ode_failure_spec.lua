-- ode.solve on what cannot be solved, on wrong input, and on errors raised in the middle.

local helper = require "spec.helper"
local tide = require "tide"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end
local function leaf(...) return vector(...):requires_grad() end
local function decay(_, y) return -y end

describe("a solve that cannot go on", function()
  local function square(_, y) return {y[1] ^ 2, 0} end

  for _, method in ipairs {"bosh3", "dopri5", "tsit5"} do
    it("ends just short of a pole and names time, step, component and a hint: " .. method, function()
      local sol = ode.solve(square, {1, 7}, {0, 0.5, 2}, {method = method, throw = false, max_steps = 3000})
      assert.is_true(sol.status == "dt_underflow" or sol.status == "nonfinite")
      assert.is_true(sol.stats.t_last > 0.99 and sol.stats.t_last < 1.0001)
      assert.are.equal(1, sol.stats.worst_index)
      for _, part in ipairs {"at t=1", "with step ", "state component 1 is ", "steps"} do
        assert.is_truthy(sol.message:find(part, 1, true), sol.message)
      end
      -- what was reached is there and right
      assert.are.same({0, 0.5}, sol.ts)
      assert.are.equal(2, #sol.ys)
      assert.close(sol.ys[2], {2, 7}, 1e-4)
      assert.are.equal(sol.stats.accepted + 1, #sol.grid)
    end)
  end

  it("raises that message at the caller's line", function()
    assert.fails_here(function() ode.solve(square, {1, 7}, {0, 2}) end, "ode.solve: ", " at t=1",
      "state component 1")
  end)

  it("stops near the time from which f is NaN, soon", function()
    for _, bad in ipairs {0 / 0, math.huge} do
      local calls = 0
      local sol = ode.solve(function(t, y)
        calls = calls + 1
        return t > 0.7 and bad or -y
      end, 1, {0, 2}, {throw = false})
      assert.are.equal("nonfinite", sol.status)
      assert.close(sol.stats.t_last, 0.7, 1e-12)
      assert.is_true(calls < 2000)
      assert.is_truthy(sol.message:find("is not finite at t=0.7", 1, true))
    end
  end)

  it("says which component is not finite", function()
    local sol = ode.solve(function(t) return {0, 0, t > 0.5 and 0 / 0 or 1} end, {1, 2, 3}, {0, 1},
      {throw = false})
    assert.are.equal(3, sol.stats.worst_index)
    assert.is_truthy(sol.message:find("state component 3 is 3.5", 1, true))
  end)

  it("with a start that is not finite says so after one call", function()
    for _, f in ipairs {function() return 0 / 0 end, function() return -math.huge end} do
      local sol = ode.solve(f, 1, {0, 1}, {throw = false})
      assert.are.same({"nonfinite", 1, 0}, {sol.status, sol.stats.nfe, sol.stats.steps})
    end
    assert.fails_here(function() ode.solve(decay, 0 / 0, {0, 1}) end,
      "the initial state or its derivative is not finite at t=0")
  end)

  it("goes on with smaller steps where f answers false, and ends near where it always does", function()
    local calls = 0
    local function root(y, zero)
      if y < 0 then
        calls = calls + 1
        return zero
      end
      return -math.sqrt(y)
    end
    -- y' = −√y from 1 reaches (1 − t/2)²; trial steps beyond t = 2 would leave the domain
    local sol = ode.solve(function(_, y) return root(y, false) end, 1, {0, 1.9}, {first_step = 1.9, rtol = 1e-8})
    assert.is_true(calls > 0 and sol.stats.rejected > 0)
    assert.close(sol.last, 0.05 ^ 2, 1e-6)
    for _, case in ipairs {
      {function(t, y) return t <= 0.7 and {-y[1]} end, {1}}, {function(t, y) return t <= 0.7 and -y end, 1},
      {function(t, y) return t:item() <= 0.7 and -y end, vector(1)},
      {function(t, s) return t:item() <= 0.7 and {a = -s.a} end, {a = vector(1)}},
    } do
      local stuck = ode.solve(case[1], case[2], {0, 2}, {throw = false})
      assert.are.equal("nonfinite", stuck.status)
      assert.close(stuck.stats.t_last, 0.7, 1e-12)
    end
  end)

  it("on fixed steps says that the state is not finite", function()
    local sol = ode.solve(function(_, y) return y * y end, 1, {0, 5}, {method = "rk4", step_size = 0.1,
      throw = false})
    assert.are.equal("nonfinite", sol.status)
    assert.is_truthy(sol.message:find("step_size", 1, true))
  end)

  it("tries max_steps steps, not one more", function()
    for _, n in ipairs {1, 2, 7, 50} do
      local sol = ode.solve(function(t, y) return t < 1.234 and -y or 5 * y end, 1, {0, 1000},
        {max_steps = n, throw = false, method = "dopri5"})
      assert.are.same({"max_steps", n}, {sol.status, sol.stats.steps})
      assert.are.equal(2 + 6 * n, sol.stats.nfe)
    end
    assert.are.equal("ok", ode.solve(decay, 1, {0, 1}, {method = "rk4", step_size = 0.1,
      max_steps = 10}).status)
    assert.are.equal("max_steps",
      ode.solve(decay, 1, {0, 1}, {method = "rk4", step_size = 0.1, max_steps = 9, throw = false}).status)
  end)

  it("because min_step forbids smaller steps is an underflow", function()
    local sol = ode.solve(function(t, y) return -1000 * (y - math.cos(t)) end, 0, {0, 1},
      {min_step = 0.01, first_step = 0.1, throw = false})
    assert.are.equal("dt_underflow", sol.status)
    assert.are.equal("ok", ode.solve(decay, 1, {0, 1e-5},
      {min_step = 0.01}).status)  -- the last step may be short
  end)

  it("because a float32 state cannot hold rtol says so", function()
    local function hard(t, y) return -((y - t:cos()) * 300) end
    local ok, message = pcall(ode.solve, hard, tide.zeros {2}, {0, 50}, {rtol = 1e-9, atol = 1e-12,
      max_steps = 2000})
    assert.is_false(ok)
    assert.is_truthy(message:find("rtol=1e-09 is less than float32 can hold, try at least 1.2e-06", 1, true),
      message)
    local _, other = pcall(ode.solve, hard, tide.zeros({2}, "float64"), {0, 50}, {rtol = 1e-9, atol = 1e-12,
      max_steps = 200})
    assert.is_nil(other:find("can hold", 1, true))
  end)

  it("with throw = false has tensors of the rows reached", function()
    local sol = ode.solve(function(_, y) return y * y end, vector(1), tide.tensor({0, 0.25, 0.5, 3}),
      {throw = false})
    assert.are.same({3}, sol.ts.shape)
    assert.are.same({3, 1}, sol.ys.shape)
    assert.close(sol.last, {2}, 1e-4)
  end)
end)

-- ---- Wrong input ----

describe("wrong input is refused before f is called:", function()
  local called = false
  local function f(_, y)
    called = true
    return -y
  end
  local function refuses(y0, t, o, ...)
    called = false
    local parts = {...}
    local source = debug.getinfo(1, "S").short_src
    local ok, message = pcall(function() ode.solve(f, y0, t, o) end)
    assert.is_false(ok)
    assert.is_false(called)
    assert.are.equal(1, message:find(source .. ":", 1, true), message)
    for _, part in ipairs(parts) do assert.is_truthy(message:find(part, 1, true), message) end
  end

  it("times", function()
    local y0 = vector(1)
    refuses(y0, {}, nil, "ode.solve: no times")
    refuses(y0, tide.zeros {0}, nil, "no times")
    refuses(y0, {0, 2, 1}, nil, "must ascend or descend, but time 3 is 1 after 2")
    refuses(y0, {2, 0, 1}, nil, "time 3 is 1 after 0")
    refuses(y0, {1, 2, 1}, nil, "time 2 is 2 after 1")
    refuses(y0, {0, 0 / 0}, nil, "time 2 is not finite")
    refuses(y0, {0, math.huge}, nil, "time 2 is not finite")
    refuses(y0, 3, nil, "t is a number, expected {t0, t1}")
    refuses(y0, {0, "x"}, nil, "t[2] is a string, expected a number")
    refuses(y0, tide.zeros {2, 2}, nil, "t has shape (2×2)")
  end)

  it("states", function()
    refuses(tide.tensor({1}, "int64"), {0, 1}, nil, "the state is int64, expected float32 or float64")
    refuses(tide.tensor({1}, "uint8"), {0, 1}, nil, "the state is uint8")
    refuses("x", {0, 1}, nil, "y0 is a string, expected a tensor")
    refuses({1, "x"}, {0, 1}, nil, "y0[2] is a string")
    refuses({}, {0, 1}, nil, "y0 is an empty table")
    refuses({a = vector(1), b = tide.ones {1}}, {0, 1}, nil, "float64 and float32")
    refuses({a = {b = 1}}, {0, 1}, nil, "y0.a.b is a number")
    refuses(tide.zeros {1, 1, 1, 1, 1, 1, 1, 1}, {0, 1}, nil, "8 dims, at most 7 fit")
  end)

  it("options", function()
    local y0 = vector(1)
    refuses(y0, {0, 1}, {rtoll = 1e-3}, "unknown option \"rtoll\", did you mean \"rtol\"?")
    refuses(y0, {0, 1}, {method = "RK45"}, "SciPy's name for \"dopri5\"")
    refuses(y0, {0, 1}, {methode = "tsit5"}, "did you mean \"method\"?")
    refuses(y0, {0, 1}, {method = "tsit6"}, "unknown method \"tsit6\"", "tsit5")
    refuses(y0, {0, 1}, {grad = "adjointed"}, "unknown grad \"adjointed\"", "backsolve")
    refuses(y0, {0, 1}, {controller = "pid"}, "unknown controller", "soderlind_pid")
    refuses(y0, {0, 1}, {controller = {k9 = 1}}, "unknown option \"k9\"")
    refuses(y0, {0, 1}, {norm = "l2"}, "norm is l2, expected \"rms\" or \"max\"")
    refuses(y0, {0, 1}, {adjoint_norm = "l2"}, "adjoint_norm is l2, expected \"seminorm\" or \"rms\"")
    refuses(y0, {0, 1}, {rtol = -1}, "rtol is -1, expected a number of at least 0")
    refuses(y0, {0, 1}, {rtol = 0, atol = 0}, "both 0")
    refuses(y0, {0, 1}, {atol = "small"}, "atol is small")
    refuses(y0, {0, 1}, {max_steps = 0}, "max_steps is 0")
    refuses(y0, {0, 1}, {step_size = -0.1}, "step_size is -0.1")
    refuses(y0, {0, 1}, {safety = 2}, "safety 2")
    refuses(y0, {0, 1}, {adjoint_rtol = -1}, "rtol is -1")
    refuses(y0, {0, 1}, {params = {1}}, "params[1] is a number, expected a tensor")
    refuses(y0, {0, 1}, "fast", "options must be a table")
  end)

  it("functions", function()
    assert.fails_here(function() ode.solve(3, vector(1), {0, 1}) end,
      "f is a number, expected a function f(t, y)")
    assert.fails_here(function() ode.solve(nil, vector(1), {0, 1}) end, "f is a nil")
    assert.fails_here(function() ode.solve({}, vector(1), {0, 1}) end, "f is a table")
  end)
end)

describe("a right-hand side that gives something wrong is told so:", function()
  local function gives(value, y0, ...)
    local parts = {...}
    local ok, message = pcall(ode.solve, function() return value end, y0, {0, 1})
    assert.is_false(ok)
    for _, part in ipairs(parts) do assert.is_truthy(message:find(part, 1, true), message) end
  end

  it("no tensor", function()
    gives(nil, vector(1), "ode.solve: the right-hand side gave nothing, expected a tensor")
    gives(3, vector(1), "number", "expected a tensor")
    gives({1}, vector(1), "gave a table, expected a tensor")
    gives(3, {1, 2}, "gave the number 3, expected a table of 2 numbers")
    gives({1, "x"}, {1, 2}, "component 2 of what the right-hand side gave is", "expected a number")
    gives({1}, {1, 2}, "gave 1 numbers, expected a table of 2 numbers")
    gives({1}, 1, "gave a table, expected a number")
  end)

  it("another shape or type", function()
    gives(vector(1, 2), vector(1), "gave float64 of shape (2), expected float64 of the state's shape (1)")
    gives(vector(1), tide.zeros({}, "float64"), "shape (1)", "state's shape (0-d)")
    gives(tide.tensor({1}, "int64"), vector(1), "gave int64 of shape (1)")
  end)

  it("another nesting", function()
    local y0 = {a = vector(1, 2), b = vector(3)}
    gives({a = vector(1, 2)}, y0, "gave 1 tensors, the state has 2")
    gives({a = vector(1), b = vector(1, 2)}, y0, "part 1", "has shape (1)", "(2)")
    gives({a = vector(1, 2), b = 3}, y0, "b is a number, expected a tensor")
  end)

  it("its state written in place", function()
    assert.fails_here(function()
      ode.solve(function(_, y) return y:mul_(-1) end, vector(1), {0, 1})
    end, "wrote into its state in place")
  end)

  it("one buffer again and again", function()
    local buffer = vector(0)
    assert.fails_here(function()
      ode.solve(function(_, y)
        buffer:copy_(y)
        return buffer
      end, vector(1), {0, 1})
    end, "wrote into a tensor that it had returned before")
  end)
end)

-- ---- Errors in the middle ----

describe("an error raised in the right-hand side", function()
  local y0, p
  before_each(function()
    y0, p = leaf(1, 2), leaf(0.5, 0.3)
  end)

  -- f that fails at its n-th call.
  local function failing(n, what)
    local calls = 0
    return function(t, y)
      calls = calls + 1
      if calls == n then error(what, 0) end
      return (y * p):sin() * t:cos()
    end
  end

  it("passes through as it is, a string with its own line or any value", function()
    local marker = {}
    for _, n in ipairs {1, 2, 3, 20} do
      local ok, got = pcall(ode.solve, failing(n, marker), y0, {0, 3})
      assert.is_false(ok)
      assert.are.equal(marker, got)
      ok, got = pcall(ode.solve, failing(n, "plain words"), y0, {0, 3})
      assert.is_false(ok)
      assert.are.equal("plain words", got)
    end
    assert.fails_here(function()
      ode.solve(function() error "in the field" end, y0, {0, 1})
    end, "in the field")
  end)

  it("of an operation names the line in the right-hand side", function()
    local line = debug.getinfo(1, "l").currentline + 1
    local f = function(_, y) local z = y:matmul(tide.ones({7, 3}, "float64")) return z end
    local ok, message = pcall(ode.solve, f, y0, {0, 1})
    assert.is_false(ok)
    assert.is_truthy(message:find("ode_failure_spec.lua:" .. line .. ": matmul", 1, true), message)
  end)

  it("in the middle of a solve or of a backward pass leaks nothing and leaves everything usable", function()
    local function good(mode)
      local sol = ode.solve(function(t, y) return (y * p):sin() * t:cos() end, y0, {0, 1, 2}, {grad = mode})
      return tide.gradients(sol.ys:sum(), {y0, p})[2]:totable()
    end
    for _, mode in ipairs {"discrete", "backsolve", "frozen"} do
      local expected = good(mode)
      local function forward(n) pcall(ode.solve, failing(n, "stop"), y0, {0, 1, 2}, {grad = mode}) end
      local function backward(n)
        local solving = true
        local calls = 0
        local sol = ode.solve(function(t, y)
          calls = calls + 1
          if not solving and calls == n then error("stop", 0) end
          return (y * p):sin() * t:cos()
        end, y0, {0, 1, 2}, {grad = mode})
        local sum = sol.ys:sum()
        solving, calls = false, 0
        local ok, message = pcall(sum.backward, sum)
        assert.are.same({false, "stop"}, {ok, message})
        assert.are.same({calls = n}, {calls = calls})
      end
      forward(5)
      backward(5)
      local before = helper.live()
      for n = 1, 30 do
        forward(n)
        backward(n)
      end
      assert.are.equal(before, helper.live())
      assert.are.same(expected, good(mode))
      assert.is_true(tide.recording_is_on == nil and tide.is_grad_enabled())
      assert.is_nil(y0.grad)
    end
  end)

  it("in the replay of a second derivative leaks nothing", function()
    local function attempt(n)
      local solving, calls = true, 0
      local sol = ode.solve(function(t, y)
        calls = calls + 1
        if not solving and calls == n then error("stop", 0) end
        return (y * p):sin() * t:cos()
      end, y0, {0, 1}, {})
      local sum = sol.last:sum()
      solving, calls = false, 0
      local ok, message = pcall(tide.gradients, sum, {y0}, {create_graph = true})
      assert.are.same({false, "stop"}, {ok, message})
      assert.is_true(tide.is_grad_enabled())
    end
    attempt(3)
    local before = helper.live()
    for n = 1, 10 do attempt(n) end
    assert.are.equal(before, helper.live())
  end)

  it("in an inner solve passes through the outer one", function()
    local marker = {}
    local function inner(_, y)
      return ode.solve(function() error(marker) end, y, {0, 1}).last
    end
    local ok, got = pcall(ode.solve, inner, y0, {0, 1})
    assert.is_false(ok)
    assert.are.equal(marker, got)
    assert.are.equal("ok", ode.solve(function(_, y) return -y end, y0, {0, 1}).status)
  end)

  it("in a coroutine ends there, and a yield across the solve is refused", function()
    local co = coroutine.create(function()
      ode.solve(function(_, y)
        coroutine.yield()
        return y
      end, y0, {0, 1})
    end)
    local ok, message = coroutine.resume(co)
    assert.is_false(ok)
    assert.is_truthy(tostring(message):find("yield", 1, true))
    assert.are.equal("ok", ode.solve(function(_, y) return -y end, y0, {0, 1}).status)
  end)
end)
