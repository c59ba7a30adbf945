-- What a sceptic found.

local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end

describe("ode.solve", function()
  it("estimates the error of every adaptive method on linear problems too", function()
    local function f(_, y) return {-y[1] + y[2], y[1] - 2 * y[2] + y[3], y[2] - y[3]} end
    for name, m in pairs(ode.methods) do
      local fits = m.error_order > 0 and m.family ~= "exponential"
      if fits and m.family ~= "symplectic" then
        local sol = ode.solve(f, {2, 0, 1}, {0, 20}, {method = name, rtol = 1e-5, atol = 1e-7, throw = false})
        if sol.status == "ok" then
          for i = 1, 3 do
            assert.is_true(math.abs(sol.last[i] - 1) < 3e-2, ("%s: component %d is %g"):format(name, i, sol.last[i]))
          end
        end
      end
    end
    local last
    for _, rtol in ipairs {1e-4, 1e-6, 1e-8} do
      local off = math.abs(ode.solve(function(_, y) return -y end, 1, {0, 5}, {method = "ros3p", rtol = rtol,
        atol = rtol * 1e-2}).last - math.exp(-5))
      assert.is_true(off < 30 * rtol and (not last or off < last))
      last = off
    end
  end)

  it("takes a first step of min_step where its own guess is less", function()
    local sol = ode.solve(function(_, y) return -y end, vector(1), {0, 1}, {min_step = 0.05, rtol = 1e-4})
    assert.are.equal("ok", sol.status)
    assert.is_true(sol.stats.h_min >= 0.05 - 1e-12)
    local stiff = ode.solve(function(t, y) return (y - t:cos()) * -1000 end, vector(1), {0, 1}, {min_step = 0.1,
      throw = false})
    assert.are.equal("dt_underflow", stiff.status)
    assert.is_true(stiff.stats.rejected >= 1)
  end)

  it("goes on without end until an event in every row of a batch", function()
    for _, direction in ipairs {1, -1} do
      local sol = ode.solve(function(_, y) return y * direction end, vector(1, 2):reshape(2, 1),
        {0, direction * math.huge}, {batch = true, rtol = 1e-9, event = function(_, y) return y[1] - 5 end})
      assert.close(sol.rows[1].ts[2]:item(), direction * math.log(5), 1e-7)
      assert.close(sol.rows[2].ts[2]:item(), direction * math.log(2.5), 1e-7)
    end
  end)

  it("needs hardly more evaluations than SciPy's BDF, and no more than its Radau", function()
    local function robertson(_, y)
      local slow, fast = 0.04 * y[1] - 1e4 * y[2] * y[3], 3e7 * y[2] * y[2]
      return {-slow, slow - fast, fast}
    end
    -- SciPy 1.17's nfev, differences for its Jacobians included, at rtol 1e-4, 1e-6 and 1e-8
    for name, theirs in pairs {bdf = {162, 329, 658}, radau5 = {231, 545, 1452}} do
      for i, rtol in ipairs {1e-4, 1e-6, 1e-8} do
        local sol = ode.solve(robertson, {1, 0, 0}, {0, 40}, {method = name, rtol = rtol, atol = rtol * 1e-3})
        assert.is_true(sol.stats.nfe <= theirs[i] * (name == "bdf" and 1.2 or 1), ("%s at %g: %d"):format(name, rtol,
          sol.stats.nfe))
        assert.is_true(math.abs(sol.last[1] / 7.15827068719405090e-01 - 1) < 10 * rtol)
      end
    end
  end)

  it("knows SciPy's LSODA by that name", function()
    local sol = ode.solve_ivp(function(_, y) return {y[2], 1e3 * ((1 - y[1] * y[1]) * y[2] - y[1])} end, {0, 1}, {2, 0},
      {method = "LSODA", rtol = 1e-6})
    assert.is_true(sol.success and sol.njev > 0)
  end)
end)
