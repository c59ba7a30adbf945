-- Whole steps over plain numbers: the same as stage by stage, to the last bit, and what happens when f gives something
-- else.

local tide = require "tide"
local stages = require "tide.ode.stages"
require "spec.helper"
local explicit_methods = require("spec.support.fields").explicit_methods
local ode = tide.ode

local of = stages.of

-- solve() with steps made by one function, and made stage by stage.
local function both_ways(solve)
  local made = 0
  stages.of = function(...)
    made = made + 1
    return of(...)
  end
  local ok, a = pcall(solve)
  stages.of = function() end
  local ok_b, b = pcall(solve)
  stages.of = of
  assert.are.equal(1, made)
  return a, b, ok, ok_b
end

local function lotka(t, u)
  local x, y = u[1], u[2]
  return {1.5 * x - x * y, x * y - 3 * y + 0.01 * math.sin(t)}
end

describe("a whole step by one function", function()
  for _, name in ipairs(explicit_methods()) do
    local o = {method = name, step_size = ode.methods[name].error_order == 0 and 0.01 or 0}
    it("is that of " .. name .. " stage by stage", function()
      assert.are.equal(ode.methods[name].stages > 1, of(ode.methods[name], 2, "table") ~= nil)
      local a, b = both_ways(function() return ode.solve(lotka, {1, 1}, {0, 1, 2.5, 4}, o) end)
      assert.are.same(b.ys, a.ys)
      assert.are.same(b.grid, a.grid)
      assert.are.equal(b.stats.nfe, a.stats.nfe)
      a, b = both_ways(function() return ode.solve(function(t, y) return -t * y end, 1, {2, 0}, o) end)
      assert.are.same(b.ys, a.ys)
    end)
  end

  it("calls f with the same arguments, after rejected steps too", function()
    local calls
    local function f(t, y)
      calls[#calls + 1] = {t, y[1], y[2]}
      return {y[2], 50 * (1 - y[1] ^ 2) * y[2] - y[1]}
    end
    local function solve()
      calls = {}
      return {sol = ode.solve(f, {2, 0}, {0, 3}, {method = "dopri5", first_step = 1}), calls = calls}
    end
    local a, b = both_ways(solve)
    assert.is_true(a.sol.stats.rejected > 0)
    assert.are.same(b.calls, a.calls)
  end)

  it("has dense output and events like any other", function()
    local function solve()
      return ode.solve(function(_, y) return {y[2], -9.81} end, {10, 0}, {0, 20}, {dense = true, rtol = 1e-8,
        event = {fn = function(_, y) return y[1] end, direction = -1}})
    end
    local a, b = both_ways(solve)
    assert.are.equal(b.events.t[1], a.events.t[1])
    assert.near(math.sqrt(20 / 9.81), a.events.t[1], 1e-9)
    assert.are.same({a:at(0.7)}, {b:at(0.7)})
  end)

  it("gives way where f answers false", function()
    local function solve()
      return ode.solve(function(_, y)
        if y < 0 then return false end
        return -math.sqrt(y)
      end, 1, {0, 1.9}, {first_step = 1.9, rtol = 1e-8, method = "dopri5"})
    end
    local a, b = both_ways(solve)
    assert.is_true(a.stats.rejected > 0)
    assert.are.equal(b.last, a.last)
    assert.near(0.05 ^ 2, a.last, 1e-7)
  end)

  it("says the same about wrong results, and passes f's own errors on", function()
    local cases = {
      function() return {1} end, function() return 7 end, function() return {1, "2"} end,
      function() return {nil, 2} end, function() error("my own") end, function() error({code = 3}) end,
    }
    for _, later in ipairs(cases) do
      local a, b, ok, ok_b = both_ways(function()
        return ode.solve(function(t, y) return t > 0.5 and later() or {y[2], -y[1]} end, {1, 0}, {0, 1})
      end)
      assert.is_false(ok)
      assert.is_false(ok_b)
      local function words(e)
        return type(e) == "string" and e:gsub("^[^ ]*spec%.lua:%d+: ", ""):gsub("in f$", "in a function") or e
      end
      assert.are.same(words(b), words(a))
    end
  end)

  it("is not made for many numbers, nor for other families", function()
    assert.is_nil(of(ode.methods.dopri5, 9, "table"))
    assert.is_nil(of(ode.methods.rodas5p, 2, "table"))
    local y0 = {}
    for i = 1, 20 do y0[i] = i end
    local sol = ode.solve(function(_, y)
      local d = {}
      for i = 1, 20 do d[i] = -y[i] end
      return d
    end, y0, {0, 1}, {rtol = 1e-9})
    for i = 1, 20 do assert.near(i * math.exp(-1), sol.last[i], 1e-7) end
  end)
end)
