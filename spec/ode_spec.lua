-- ode.solve as it is called: states, times, saving, when f is called, the peers' names.

local helper = require "spec.helper"
local rk = require "spec.support.rk"
local tide = require "tide"
local nn, ode = tide.nn, tide.ode

local function vector(...) return tide.tensor({...}, "float64") end

local names = {}
for name, m in pairs(ode.methods) do
  if m.a then names[#names + 1] = name end  -- explicit ones; the others are in ode_stiff_spec.lua
end
table.sort(names)

local function options_of(name, more)
  local o = {method = name, rtol = 1e-4, atol = 1e-6}
  if ode.methods[name].error_order == 0 then o.step_size = 0.13 end
  for k, v in pairs(more or {}) do o[k] = v end
  return o
end

describe("states", function()
  it("may be a table of numbers, taken and given as such", function()
    local sol = ode.solve(function(t, y)
      assert.are.equal("number", type(t))
      assert.are.same({"table", 2}, {type(y), #y})
      return {y[2], -y[1]}
    end, {1, 0}, {0, 1, 10}, {rtol = 1e-9, atol = 1e-9})
    assert.are.same({0, 1, 10}, sol.ts)
    assert.close(sol.ys, {{1, 0}, {math.cos(1), -math.sin(1)}, {math.cos(10), -math.sin(10)}}, 1e-7)
    assert.are.same(sol.ys[3], sol.last)
  end)

  it("may be one number", function()
    local sol = ode.solve(function(t, y) return -y * t end, 2, {0, 1, 2}, {rtol = 1e-9, atol = 1e-9})
    assert.close(sol.ys, {2, 2 * math.exp(-0.5), 2 * math.exp(-2)}, 1e-7)
    assert.are.equal("number", type(sol.last))
  end)

  it("may be a tensor of any shape, 0-d and seven dims included", function()
    for _, shape in ipairs {{}, {1}, {2, 3}, {1, 2, 1, 2, 1, 1, 2}} do
      local sol = ode.solve(function(_, y) return -y end, tide.ones(shape, "float64"), {0, 1},
        {rtol = 1e-8, atol = 1e-8})
      assert.are.equal(#shape + 1, sol.ys.ndim)
      assert.are.same(shape, sol.last.shape)
      assert.close(sol.last, tide.ones(shape, "float64") * math.exp(-1), 1e-7)
    end
  end)

  it("may have no elements", function()
    local y0 = tide.zeros({0, 3}):requires_grad()
    for _, mode in ipairs {"discrete", "backsolve"} do
      local sol = ode.solve(function(_, y) return -y end, y0, {0, 0.5, 1}, {grad = mode})
      assert.are.same({3, 0, 3}, sol.ys.shape)
      sol.ys:sum():backward()
      assert.are.same({0, 3}, y0.grad.shape)
    end
  end)

  it("may be nested tables of tensors, with names and numbers", function()
    local function f(_, s)
      return {pos = s.vel, vel = -s.pos, extra = {s.extra[1] * 0 + 1, s.extra[2] * -1}}
    end
    local s0 = {pos = vector(1, 0), vel = vector(0, 1), extra = {tide.zeros({2, 2}, "float64"), vector(3)}}
    local sol = ode.solve(f, s0, {0, 0.5, 1}, {rtol = 1e-10, atol = 1e-10})
    assert.are.same({3, 2}, sol.ys.pos.shape)
    assert.are.same({3, 2, 2}, sol.ys.extra[1].shape)
    assert.close(sol.last.pos, {math.cos(1), math.sin(1)}, 1e-8)
    assert.close(sol.last.extra[1], {{1, 1}, {1, 1}}, 1e-8)
    assert.close(sol.ys.extra[2], {{3}, {3 * math.exp(-0.5)}, {3 * math.exp(-1)}}, 1e-8)
  end)

  it("may be views", function()
    local y0 = helper.awkward(tide.generator(1):randn({3, 4}, "float64"))
    local sol = ode.solve(function(_, y) return helper.awkward(-y) end, y0, {0, 1},
      {rtol = 1e-9, atol = 1e-9})
    assert.close(sol.last, y0 * math.exp(-1), 1e-8)
  end)

  it("may get a derivative of the other real type", function()
    local sol = ode.solve(function(t, y) return y:double() * t end, tide.ones {2}, {0, 1}, {rtol = 1e-5})
    assert.are.equal("float32", sol.last.dtype)
    assert.close(sol.last:double(), {math.exp(0.5), math.exp(0.5)}, 1e-5)
  end)

  it("and the right-hand side may be anything that can be called", function()
    local net = nn.Linear(2, 2)
    local sol = ode.solve(setmetatable({}, {__call = function(_, _, y) return net(y) end}), tide.ones {1, 2},
      {0, 1})
    assert.are.equal("ok", sol.status)
  end)

  it("are the same solve packed as nested tables, as numbers and as one tensor", function()
    local a = ode.solve(function(t, y) return {y[2] * t, -y[1]} end, {1, 0.5}, {0, 2})
    local b = ode.solve(function(t, s) return {s[2] * t, -s[1]} end, {vector(1), vector(0.5)}, {0, 2})
    local c = ode.solve(function(t, y) return tide.stack({y[2] * t, -y[1]}, 1) end, vector(1, 0.5), {0, 2})
    assert.are.same(a.grid, b.grid)
    assert.are.same(a.grid, c.grid)
    assert.are.same(a.last, c.last:totable())
  end)
end)

describe("times", function()
  it("may be a table, a tensor of any type, or contain tensors", function()
    local expected = ode.solve(function(_, y) return -y end, 1, {0, 1, 2}).ys
    for _, t in ipairs {
      tide.tensor {0, 1, 2}, tide.tensor({0, 1, 2}, "int64"), vector(0, 9, 1, 9, 2)[{{1, 5, 2}}],
      {0, tide.tensor(1), vector(2)},
    } do
      assert.are.same(expected, ode.solve(function(_, y) return -y end, 1, t).ys)
    end
  end)

  it("of which there is only one give y0, and f is not called", function()
    local function f() error "called" end
    for _, mode in ipairs {"discrete", "backsolve"} do
      local sol = ode.solve(f, vector(1, 2), {3}, {grad = mode})
      assert.are.same({{1, 2}}, sol.ys:totable())
      assert.are.equal(0, sol.stats.nfe)
      assert.are.same({1, 2}, ode.solve(f, {1, 2}, {3, 3}).last)
    end
  end)

  it("that repeat give the value again", function()
    local sol = ode.solve(function(_, y) return -y end, 1, {0, 0, 0.5, 0.5, 0.5, 1, 1})
    assert.are.same(sol.ys[1], sol.ys[2])
    assert.are.same(sol.ys[3], sol.ys[5])
    assert.are.same(sol.ys[6], sol.ys[7])
  end)

  it("that descend solve backwards, with the mirrored steps of the mirrored problem", function()
    for _, name in ipairs(names) do
      local back = ode.solve(function(t, y) return y * t end, 1.5, {2, 1.3, 0}, options_of(name))
      local mirrored = ode.solve(function(s, y) return -y * (2 - s) end, 1.5, {0, 0.7, 2}, options_of(name))
      local tol = ode.methods[name].order > 5 and 1e-11 or 1e-12  -- rounding moves their steps a little
      assert.close(back.ys, mirrored.ys, tol * rk.noise(ode.methods[name]))
      assert.are.equal(back.stats.nfe, mirrored.stats.nfe)
    end
  end)

  it("of saving change neither the steps nor, where the extension is free, the evaluations", function()
    local many = {}
    for i = 0, 300 do many[i + 1] = i / 100 end
    for _, name in ipairs {"dopri5", "tsit5", "bosh3"} do
      local function f(t, y) return {y[2], -y[1] * t} end
      local a = ode.solve(f, {1, 0}, {0, 3}, options_of(name))
      local b = ode.solve(f, {1, 0}, many, options_of(name))
      assert.are.same(a.grid, b.grid)
      assert.are.equal(a.stats.nfe, b.stats.nfe)
    end
  end)

  it("are stepped onto exactly with land = true", function()
    local ts = {0, 0.123, 0.77, 0.7700001, 2}
    for _, o in ipairs {{}, {method = "rk4", step_size = 0.1},
      {method = "dopri5", controller = "torchdiffeq"}} do
      o.land = true
      local sol, on = ode.solve(function(t, y) return y * math.cos(t) end, 1, ts, o), {}
      for _, t in ipairs(sol.grid) do on[t] = true end
      for i, t in ipairs(ts) do
        assert.is_true(on[t])
        assert.close(sol.ys[i], math.exp(math.sin(t)), 1e-5)
      end
    end
  end)

  it("of landing do not make later steps small", function()
    local function steps(ts)
      return ode.solve(function(_, y) return -y end, 1, ts, {land = true, rtol = 1e-6}).stats.accepted
    end
    assert.is_true(steps {0, 1, 1 + 1e-9, 5} <= steps {0, 5} + 4)
  end)
end)

describe("steps", function()
  it("of a fixed size end exactly where they should, however many", function()
    local sol = ode.solve(function() return 1 end, 0, {0, 1000}, {method = "euler", step_size = 0.1})
    assert.are.equal(10000, sol.stats.accepted)
    assert.are.equal(1000, sol.grid[#sol.grid])
    assert.close(sol.grid[9001], 900, 1e-13)
    assert.close(sol.last, 1000, 1e-12)
  end)

  it("of a fixed size end with a shorter one", function()
    local sol = ode.solve(function(_, y) return y end, 1, {0, 1}, {method = "euler", step_size = 0.3})
    assert.close(sol.grid, {0, 0.3, 0.6, 0.9, 1}, 1e-15)
    assert.close(sol.last, 1.3 ^ 3 * 1.1, 1e-14)
  end)

  it("of a method without an error estimate have to be given", function()
    local called = false
    assert.fails_here(function()
      ode.solve(function(_, y) called = true return y end, 1, {0, 1}, {method = "rk4"})
    end, "ode.solve", "estimates no error", "step_size")
    assert.is_false(called)
    assert.are.equal("bad_input", ode.solve(function(_, y) return y end, 1, {0, 1}, {method = "gl4",
      throw = false}).status)
  end)

  it("go from time to time with land and no size", function()
    local sol = ode.solve(function(_, y) return y end, 1, {0, 0.5, 0.75, 2}, {method = "euler", land = true})
    assert.close(sol.ys, {1, 1.5, 1.875, 1.875 * 2.25}, 1e-15)
    assert.are.equal(3, sol.stats.nfe)
  end)

  it("of a fixed size work for every method, without rejections", function()
    for _, name in ipairs(names) do
      local sol = ode.solve(function(_, y) return -100 * y end, 1, {0, 1}, {method = name, step_size = 0.25})
      assert.are.same({4, 0}, {sol.stats.accepted, sol.stats.rejected})
    end
  end)

  it("never leave a sliver at the end", function()
    for i = 1, 40 do
      local sol = ode.solve(function(_, y) return -y end, 1, {0, 0.1 * i}, {method = "rk4", step_size = 0.1})
      assert.are.equal(i, sol.stats.accepted)
    end
  end)
end)

-- ---- Calls of f ----

describe("the right-hand side", function()
  -- f that notes its times and refuses those outside.
  local function recorder(lo, hi, f)
    local log = {}
    return function(t, y)
      local s = tide.is_tensor(t) and t:item() or t
      log[#log + 1] = s
      if s < lo or s > hi then error(("called at %.17g outside [%.17g, %.17g]"):format(s, lo, hi)) end
      return f(t, y)
    end, log
  end

  for _, name in ipairs(names) do
    it("is called inside the interval only, and as often as nfe says: " .. name, function()
      for _, ends in ipairs {{0, 1}, {1, 0}, {0.1, 0.7}, {-3, -2.9}, {1e6, 1e6 + 1}, {0, 1e-9},
        {1 / 3, 2 / 3}} do
        local lo, hi = math.min(ends[1], ends[2]), math.max(ends[1], ends[2])
        local middle = ends[1] + 0.37 * (ends[2] - ends[1])
        local o = options_of(name)
        if o.step_size then o.step_size = (hi - lo) / 7.3 end
        local f, log = recorder(lo, hi, function(t, y) return -y * (t / hi) end)
        local sol = ode.solve(f, 1, {ends[1], middle, ends[2]}, o)
        assert.are.equal(#log, sol.stats.nfe)
        assert.are.equal(sol.stats.steps, sol.stats.accepted + sol.stats.rejected)
        local g, seen = recorder(lo, hi, function(t, y) return -y * (t / hi) end)
        local ts = vector(ends[1], middle, ends[2]):requires_grad()
        for _, mode in ipairs {"discrete", "backsolve"} do
          o.grad = mode
          local timed = ode.solve(g, vector(1):requires_grad(), ts, o)
          assert.are.equal(#seen, timed.stats.nfe)
          timed.ys:sum():backward()
          assert.are.equal(#seen, timed.stats.nfe + timed.stats.nfe_b)
          for i = #seen, 1, -1 do seen[i] = nil end
        end
      end
    end)
  end

  it("is called inside a thousand random intervals only, however their ends round", function()
    local g = tide.generator(1):rand({1000, 2}, "float64")
    for i = 1, 1000 do
      local from, to = g[i][1]:item(), g[i][2]:item() * 3
      local f = recorder(math.min(from, to), math.max(from, to), function(_, y) return y end)
      for _, name in ipairs {"tsit5", "dopri5", "rk4"} do
        ode.solve(f, 1, {from, to}, {method = name, step_size = math.abs(to - from) / 3})
      end
    end
  end)

  it("with a singularity just beyond the ends is solved to the very end", function()
    local sol = ode.solve(function(t) return {-0.5 / math.sqrt(1 - t + 1e-12)} end, {1}, {0, 1},
      {rtol = 1e-6, method = "dopri5"})
    assert.close(sol.last[1], 0, 1e-5)
    local f = recorder(0, 0.3, function(t, y) return y * math.sqrt(0.3 - t) end)
    assert.are.equal("ok", ode.solve(f, 1, {0, 0.3}).status)
  end)

  it("in a tiny interval is never called outside by the choice of the first step", function()
    for _, span in ipairs {1e-3, 1e-8, 1e-14, 3e-16} do
      local f, log = recorder(1, 1 + span, function(_, y) return -1e-8 * y end)
      ode.solve(f, 1, {1, 1 + span})
      assert.is_true(#log >= 1)
    end
  end)

  it("is evaluated 2 + 6·(accepted + rejected) times by dopri5", function()
    local sol = ode.solve(function(t, y) return t < 1.234 and -y or 5 * y end, 1, {0, 3}, {method = "dopri5"})
    assert.is_true(sol.stats.rejected > 0)
    assert.are.equal(2 + 6 * sol.stats.steps, sol.stats.nfe)
  end)

  it("gets t as a 0-d float64 tensor", function()
    ode.solve(function(t, y)
      assert.are.same({"float64", 0}, {t.dtype, t.ndim})
      return y
    end, tide.ones {1}, {0, 1})
  end)

  it("may run under no_grad, or switch it on for itself", function()
    local p = tide.tensor({2.0}):requires_grad()
    local sol = tide.no_grad(ode.solve, function(_, y) return y * p end, tide.ones {1}, {0, 1})
    assert.is_false(sol.ys.needs_grad)
    local inner = ode.solve(function(_, y) return tide.no_grad(function() return y * p end) end,
      tide.ones({1}):requires_grad(), {0, 1})
    inner.last:sum():backward()
    assert.is_nil(p.grad)
  end)

  it("may be called from a coroutine, and several solves may be under way in turn", function()
    local function worker(rate)
      return coroutine.wrap(function()
        for i = 1, 3 do
          coroutine.yield(ode.solve(function(_, y) return -rate * y end, 1, {0, i},
            {rtol = 1e-9, atol = 1e-9}).last)
        end
      end)
    end
    local a, b = worker(1), worker(2)
    for i = 1, 3 do
      assert.close(a(), math.exp(-i), 1e-8)
      assert.close(b(), math.exp(-2 * i), 1e-8)
    end
  end)

  it("recorded in a coroutine that has died can be replayed from the main program", function()
    local p = vector(0.5):requires_grad()
    local sol = coroutine.wrap(function()
      return ode.solve(function(_, y) return y * p end, vector(1), {0, 1}, {rtol = 1e-9, atol = 1e-9})
    end)()
    collectgarbage()
    sol.last:sum():backward()
    assert.close(p.grad, {math.exp(0.5)}, 1e-7)
  end)

  it("sees one dropout mask in the whole solve and its backward pass", function()
    local drop, masks = nn.Dropout(0.5), {}
    drop:train()
    local y0 = tide.ones({64}):requires_grad()
    local function f(_, y)
      local kept = drop(tide.ones {64})
      masks[table.concat(kept:totable(), " ")] = true
      return -y * kept
    end
    local function count()
      local n = 0
      for _ in pairs(masks) do n = n + 1 end
      return n
    end
    ode.solve(f, y0, {0, 1}).last:sum():backward()
    assert.are.equal(1, count())
    ode.solve(f, y0, {0, 1}).last:sum():backward()
    assert.are.equal(2, count())
  end)

  it("may solve another equation, to any depth that Lua's stack allows", function()
    local function f(_, y)
      local inner = ode.solve(function(_, z) return -z end, y, {0, 0.1}, {method = "rk4", step_size = 0.1})
      return -inner.last
    end
    local rate = 1 - 0.1 + 0.005 - 0.001 / 6 + 0.0001 / 24
    assert.close(ode.solve(f, 1, {0, 1}, {rtol = 1e-10, atol = 1e-10}).last, math.exp(-rate), 1e-8)
    local function endless(_, y) return ode.solve(endless, y, {0, 1}).last end
    assert.has_error(function() ode.solve(endless, 1, {0, 1}) end)
    assert.close(ode.solve(f, 1, {0, 1}, {rtol = 1e-10, atol = 1e-10}).last, math.exp(-rate), 1e-8)
  end)
end)

-- ---- Results ----

describe("the solution", function()
  it("has times, values, statistics, and prints them", function()
    local sol = ode.solve(function(t, y) return -30 * (y - math.cos(t)) end, 0, {0, 1, 3},
      {method = "dopri5"})
    local s = sol.stats
    assert.are.equal("ok", sol.status)
    assert.are.equal("", sol.message)
    assert.are.equal("dopri5", sol.method)
    assert.are.same({0, 3}, {s.t_first, s.t_last})
    assert.are.equal(#sol.grid, s.accepted + 1)
    local least, most = math.huge, 0
    for i = 2, #sol.grid do
      local h = sol.grid[i] - sol.grid[i - 1]
      least, most = math.min(least, h), math.max(most, h)
    end
    assert.are.equal(least, s.h_min)
    assert.are.equal(most, s.h_max)
    for _, part in ipairs {"dopri5: ok", "from 0 to 3, 3 saved times", s.nfe .. " evaluations", s.accepted ..
      " steps accepted",
      s.rejected .. " rejected"} do
      assert.is_truthy(tostring(sol):find(part, 1, true))
    end
  end)

  it("is the same on every run and on any number of threads", function()
    local a = tide.generator(1):randn({64, 64})
    local y0 = tide.generator(2):randn({3000, 64})
    local function run() return ode.solve(function(_, y) return y:matmul(a):tanh() - y end, y0, {0, 0.5},
      {rtol = 1e-4}) end
    local was = tide.threads()
    local one
    for _, n in ipairs {1, 2, 1} do
      tide.threads(n)
      local sol = run()
      one = one or sol
      assert.are.same(one.grid, sol.grid)
      assert.are.equal(0, (one.last - sol.last):abs():max():item())
    end
    tide.threads(was)
  end)
end)

-- ---- The peers' names ----

describe("odeint", function()
  it("is Euler's 1.1¹⁰ on ten fixed steps, with gradient 1.1¹⁰", function()
    for _, call in ipairs {ode.odeint, ode.odeint_adjoint} do
      local y0 = vector(1):requires_grad()
      local ys = call(function(_, y) return y end, y0, {0, 1},
        {method = "euler", options = {step_size = 0.1}})
      assert.close(ys[2], {1.1 ^ 10}, 1e-14)
      if call == ode.odeint then
        ys[2]:sum():backward()
        assert.close(y0.grad, {1.1 ^ 10}, 1e-14)
      end
    end
  end)

  it("gives times × state with the start first, both ways", function()
    local y0 = vector(1, 2)
    for _, t in ipairs {{0, 0.5, 1}, {1, 0.5, 0}} do
      local ys = ode.odeint(function(s, y) return y * s end, y0, tide.tensor(t))
      assert.are.same({3, 2}, ys.shape)
      assert.are.same({1, 2}, ys[1]:totable())
      assert.close(ys[3], y0 * math.exp((t[3] ^ 2 - t[1] ^ 2) / 2), 1e-6)
    end
  end)

  it("takes torchdiffeq's method, tolerances and controller by default", function()
    local f = function(t, y) return -30 * (y - math.cos(t)) end
    local sol = ode.solve(f, 0, {0, 3}, {method = "dopri5_shampine", controller = "torchdiffeq", rtol = 1e-7,
      atol = 1e-9})
    assert.are.same(sol.ys, ode.odeint(f, 0, {0, 3}))
  end)

  it("solves its four problems by every method, both ways, in both types", function()
    local a = tide.generator(7):randn({10, 10}, "float64")
    a = a - a:transpose(1, 2)
    local problems = {
      constant = {function(t, y) return (y - (t * 0.2 + 3)) ^ 5 + 0.2 end,
        function(t) return vector(0.2 * t + 3) end, 1, 8, 2e-5},
      sine = {function(t, y) return y * 2 / t + t ^ 4 * (t * 2):sin() - t ^ 2 + t ^ 3 * 4 end, function(t)
        return vector(-t ^ 4 * math.cos(2 * t) / 2 + t ^ 3 * math.sin(2 * t) / 2 +
          t ^ 2 * math.cos(2 * t) / 4 - t ^ 3 + 2 * t ^ 4 +
          (math.pi - 0.25) * t ^ 2)
      end, 1, 8, 2e-3},
      linear = {function(_, y) return a:to(y.dtype):matmul(y) end,
        function(t) return (a * t):matrix_exp():matmul(tide.ones({10}, "float64")) end, 0, 1, 2e-3},
      exp = {function(t, y) return y * 0 - (t * -0.1):exp() * 0.1 end,
        function(t) return vector(math.exp(-0.1 * t)) end, 0, 5, 1e-4},
    }
    local coarse = {euler = true}
    for problem, p in pairs(problems) do
      for _, name in ipairs(names) do
        for _, dtype in ipairs {"float32", "float64"} do
          for _, ends in ipairs {{p[3], p[4]}, {p[4], p[3]}} do
            local o = {method = name, rtol = dtype == "float32" and 1e-5 or 1e-7,
              atol = dtype == "float32" and 1e-5 or 1e-9}
            if name == "fehlberg2" then o.rtol, o.atol = o.rtol / 20, o.atol / 20 end  -- its estimate is small
            local low = ode.methods[name].order
            if ode.methods[name].error_order == 0 then o.step_size = (p[4] - p[3]) / (low == 2 and 1000 or
              low == 1 and 1000 or 100) end
            if not coarse[name] then
              local last = ode.odeint(p[1], p[2](ends[1]):to(dtype), ends, o)[2]
              assert.are.equal(dtype, last.dtype)
              -- backwards the constant problem is unstable and the sine problem loses the digits of its start
              local exact, tol = p[2](ends[2]), p[5]
              if problem == "sine" and ends[1] == 8 then tol = 2e-1 end
              if problem == "constant" and ends[1] == 8 then tol = 1e-3 end
              local why = helper.difference(last:double(), exact, tol)
              if why then error(("%s by %s in %s from %g: %s"):format(problem, name, dtype, ends[1], why),
                0) end
            end
          end
        end
      end
    end
  end)

  it("refuses unknown options by name, in `options` too", function()
    local f = function(_, y) return y end
    assert.fails_here(function() ode.odeint(f, 1, {0, 1}, {rtoll = 1}) end,
      "odeint: unknown option \"rtoll\"", "rtol")
    assert.fails_here(function() ode.odeint(f, 1, {0, 1}, {options = {stepsize = 1}}) end,
      "unknown option \"stepsize\"", "step_size")
    assert.fails_here(function() ode.odeint_adjoint(f, 1, {0, 1}, {adjoint_options = {nrm = 1}}) end,
      "\"nrm\"", "norm")
  end)

  it("its adjoint agrees with it", function()
    local p = {}
    for i, call in ipairs {ode.odeint, ode.odeint_adjoint} do
      p[i] = vector(0.7, 1.3):requires_grad()
      call(function(t, y) return (y * p[i]):sin() * t end, vector(1, 2), {0, 1, 2}):sum():backward()
    end
    assert.close(p[1].grad, p[2].grad, 1e-5)
    local seminorm = vector(0.7, 1.3):requires_grad()
    ode.odeint_adjoint(function(t, y) return (y * seminorm):sin() * t end, vector(1, 2), {0, 1, 2},
      {adjoint_options = {norm = "seminorm"}, adjoint_rtol = 1e-9, adjoint_method = "dopri5",
        adjoint_params = {seminorm}})
      :sum():backward()
    assert.close(p[1].grad, seminorm.grad, 1e-5)
  end)
end)
