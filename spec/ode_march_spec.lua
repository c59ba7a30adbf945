-- Many steps over plain numbers by one Lua loop: the same as step by step, to the last bit, and the same statistics.

local tide = require "tide"
local march = require "tide.ode.march"
require "spec.helper"
local ode = tide.ode

local of = march.of

-- solve() with a loop of its own, and step by step; how many marches there were.
local function both_ways(solve)
  local marches = 0
  march.of = function(...)
    local f = of(...)
    return f and function(...)
      marches = marches + 1
      return f(...)
    end
  end
  local ok, a = pcall(solve)
  march.of = function() end
  local ok_b, b = pcall(solve)
  march.of = of
  return a, b, marches, ok, ok_b
end

local function assert_same(a, b)
  assert.are.same(b.ys, a.ys)
  assert.are.same(b.grid, a.grid)
  assert.are.same(b.limits, a.limits)
  assert.are.equal(b.status, a.status)
  for _, name in ipairs {"nfe", "accepted", "rejected", "h_min", "h_max", "worst_index", "t_last"} do
    assert.are.equal(b.stats[name], a.stats[name])
  end
end

local function lotka(t, u)
  local x, y = u[1], u[2]
  return {1.5 * x - x * y, x * y - 3 * y + 0.01 * math.sin(t)}
end
local function oscillator(_, y) return {y[2], 50 * (1 - y[1] ^ 2) * y[2] - y[1]} end

describe("a march", function()
  local jit = rawget(_G, "jit")
  if not jit then return end

  for name, m in pairs(ode.methods) do
    if of(m, 2, "table") then
      it("is the steps of " .. name .. ", by every controller", function()
        for controller in pairs(ode.controllers) do
          local function solve()
            return ode.solve(lotka, {1, 1}, {0, 3, 10}, {method = name, controller = controller, rtol = 1e-7})
          end
          local a, b, marches = both_ways(solve)
          assert_same(a, b)
          local c = ode.controllers[controller]
          assert.are.equal(c.k4 == 0 and c.k5 == 0, marches > 0)
        end
      end)
    end
  end

  it("rejects, lands, turns back and keeps to its bounds like any other solve", function()
    local cases = {
      {y0 = {2, 0}, t = {0, 20}, o = {rtol = 1e-5, first_step = 1}},
      {y0 = {1, 0}, t = {0, 2, 4, 20}, o = {norm = "max", step_t = {1, 7}, jump_t = {3}}},
      {y0 = {1, 0}, t = {2, 0, -1}, o = {max_step = 0.01}, f = lotka},
      {y0 = {1, 1}, t = {0, 30}, o = {safety = 0.7, ifactor = 3, dfactor = 0.5}, f = lotka},
      {y0 = {2, 0}, t = {0, 20}, o = {max_steps = 150, throw = false}},
      {y0 = {2, 0}, t = {0, 20}, o = {min_step = 1e-4, throw = false}, f = function(t, y)
        return {y[2], t > 7 and -1e8 * y[1] or -y[1]}
      end},
      {y0 = {1, 1}, t = {0, 100}, o = {dense = true}, f = lotka},
    }
    for i, case in ipairs(cases) do
      for _, method in ipairs {"dopri5", "tsit5", "bosh3"} do
        case.o.method = method
        local function solve() return ode.solve(case.f or oscillator, case.y0, case.t, case.o) end
        local a, b, marches = both_ways(solve)
        assert_same(a, b)
        assert.is_true(marches > 0, ("%s in case %d"):format(method, i))
        if case.o.dense then assert.are.same({b:at(33.3)}, {a:at(33.3)}) end
      end
    end
  end)

  it("of one number", function()
    local a, b, marches = both_ways(function()
      return ode.solve(function(t, y) return -y * math.cos(t) end, 1, {0, 40}, {rtol = 1e-8})
    end)
    assert_same(a, b)
    assert.is_true(marches > 0)
    assert.near(math.exp(-math.sin(40)), a.last, 1e-6)
  end)

  it("calls f with the same arguments", function()
    local calls
    local function solve()
      calls = {}
      local sol = ode.solve(function(t, y)
        calls[#calls + 1] = {t, y[1], y[2]}
        return oscillator(t, y)
      end, {2, 0}, {0, 10}, {rtol = 1e-4})
      return {sol = sol, calls = calls}
    end
    local a, b, marches = both_ways(solve)
    assert.is_true(marches > 0 and a.sol.stats.rejected > 0)
    assert.are.same(b.calls, a.calls)
    assert.are.equal(#a.calls, a.sol.stats.nfe)
  end)

  it("ends the same where f is not finite, and where it answers false", function()
    for _, bad in ipairs {0 / 0, 1 / 0, false} do
      local function solve()
        return ode.solve(function(t, y)
          if t > 7 then return bad and {y[2], bad} end
          return {y[2], -y[1]}
        end, {1, 0}, {0, 10}, {throw = false})
      end
      local a, b, marches = both_ways(solve)
      assert_same(a, b)
      assert.is_true(marches > 0)
      assert.are.equal(b.message, a.message)
      assert.are.equal("nonfinite", a.status)
    end
  end)

  it("passes on f's errors, and says the same about wrong results", function()
    local cases = {
      function() return {1} end, function() return {1, 2, 3} end, function() return 7 end,
      function() error({code = 3}) end,
    }
    for _, later in ipairs(cases) do
      local a, b, marches, ok, ok_b = both_ways(function()
        return ode.solve(function(t, y) return t > 7 and later() or {y[2], -y[1]} end, {1, 0}, {0, 10})
      end)
      assert.is_false(ok or ok_b)
      assert.is_true(marches > 0)
      local function words(e) return type(e) == "string" and e:gsub("^[^ ]*spec%.lua:%d+: ", "") or e end
      assert.are.same(words(b), words(a))
    end
  end)

  it("leaves alone what has to be looked at after each step", function()
    local quiet = {
      {event = function(_, y) return y[1] end}, {save = "steps"}, {step_size = 0.1}, {rtol = {1e-6, 1e-7}},
      {norm = function(x) return x:abs():max() end}, {method = "dop853"}, {method = "rk4", step_size = 0.1},
    }
    for _, o in ipairs(quiet) do
      local a, b, marches = both_ways(function() return ode.solve(lotka, {1, 1}, {0, 10}, o) end)
      assert_same(a, b)
      assert.are.equal(0, marches)
    end
  end)
end)
