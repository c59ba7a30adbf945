-- Many steps of a captured field of few variables by one loop: the same as step by step, to the last bit, and the same
-- statistics, forward and back.

local tide = require "tide"
local core = require "tide.core"
require "spec.helper"
local shared = require "spec.support.fields"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end

local p = vector(1.5, 1, 3, 1):requires_grad()

local function lotka(t, u)
  local x, y = u[1], u[2]
  local xy = x * y
  return tide.stack({p[1] * x - p[2] * xy, p[4] * xy - p[3] * y + t:sin() * 0.01}, 1)
end
local function oscillator(_, u)
  return tide.stack({u[2] * p[4], (1 - u[1] * u[1]) * u[2] * 50 - u[1]}, 1)
end

-- The solve with its gradients by the loop, and step by step; how many steps the loop made, forward and back.
local function both_ways(f, y0, t, o)
  local got = {}
  for i, on in ipairs {true, true, false} do  -- (the first one may still be without its lists)
    local was = core.ode_march(on)
    local before = {core.ode_marched()}
    p.grad = nil
    local start = vector(unpack(y0)):requires_grad()
    local sol = ode.solve(f, start, t, o)
    local weight = tide.linspace(1, 2, sol.ys.numel, "float64"):reshape(sol.ys.shape)
    ;(sol.ys * weight):sum():backward()
    local after = {core.ode_marched()}
    core.ode_march(was)
    assert.is_true(sol.captured)
    got[i] = {sol = sol, start = start.grad:totable(), p = p.grad and p.grad:totable(), forward = after[1] - before[1],
      back = after[2] - before[2]}
  end
  local a, b = got[2], got[3]
  assert.are.same(b.sol.ys:totable(), a.sol.ys:totable())
  assert.are.same(b.sol.grid, a.sol.grid)
  assert.are.same(b.sol.limits, a.sol.limits)
  assert.are.equal(b.sol.status, a.sol.status)
  assert.are.equal(b.sol.message, a.sol.message)
  for _, name in ipairs {"nfe", "nfe_b", "accepted", "rejected", "h_min", "h_max", "worst_index", "t_last"} do
    assert.are.equal(b.sol.stats[name], a.sol.stats[name], name)
  end
  assert.are.same(b.start, a.start)
  assert.are.same(b.p, a.p)
  assert.are.equal(0, b.forward + b.back)
  return a
end

describe("a captured march", function()
  for _, name in ipairs(shared.explicit_methods()) do
    local m = ode.methods[name]
    it("is the steps of " .. name .. ", by every controller", function()
      for controller, c in pairs(m.error_order > 0 and ode.controllers or {pi = ode.controllers.pi}) do
        local a = both_ways(lotka, {1, 1}, {0, 3, 10}, {method = name, controller = controller, rtol = 1e-6,
          step_size = m.error_order == 0 and 0.05 or 0})
        local plain = c.k4 == 0 and c.k5 == 0 and m.error_order > 0
        assert.are.equal(plain, a.forward > 0, controller)
        assert.is_true(a.back > 0)
      end
    end)
  end

  it("rejects, lands, turns back and keeps to its bounds like any other solve", function()
    local cases = {
      {y0 = {2, 0}, t = {0, 20}, o = {rtol = 1e-5, first_step = 1}},
      {y0 = {1, 0}, t = {0, 2, 4, 20}, o = {norm = "max", step_t = {1, 7}, jump_t = {3}}},
      {y0 = {1, 0}, t = {2, 0, -1}, o = {max_step = 0.01}, f = lotka},
      {y0 = {1, 1}, t = {0, 30}, o = {safety = 0.7, ifactor = 3, dfactor = 0.5}, f = lotka},
      {y0 = {2, 0}, t = {0, 20}, o = {max_steps = 150, throw = false}},
      {y0 = {2, 0}, t = {0, 20}, o = {min_step = 1e-4, throw = false}, f = function(t, u)
        return tide.stack({u[2], tide.where(t:gt(7), u[1] * -1e8, -u[1])}, 1)
      end},
      {y0 = {1, 1}, t = {0, 30}, o = {dense = true}, f = lotka},
      {y0 = {1, 1}, t = {0, 10}, o = {checkpoints = 3}, f = lotka},
      {y0 = {1, 1}, t = {0, 10}, o = {step_size = 0.02}, f = lotka, fixed = true},
    }
    for i, case in ipairs(cases) do
      for _, method in ipairs {"dopri5", "vern7", "dop853"} do
        case.o.method = method
        local a = both_ways(case.f or oscillator, case.y0, case.t, case.o)
        assert.are.equal(not case.fixed, a.forward > 0, ("%s in case %d"):format(method, i))
      end
    end
  end)

  it("ends the same where f is not finite", function()
    for _, bad in ipairs {0 / 0, 1 / 0} do
      local a = both_ways(function(t, u) return tide.stack({u[2], tide.where(t:gt(7), bad, -u[1])}, 1) end, {1, 0},
        {0, 10}, {throw = false, method = "dopri5"})
      assert.is_true(a.forward > 0)
      assert.are.equal("nonfinite", a.sol.status)
    end
  end)

  it("leaves alone what has to be looked at after each step", function()
    local quiet = {
      {event = {fn = function(_, y) return y[1] - 100 end}}, {save = "steps"}, {rtol = vector(1e-6, 1e-7)},
      {norm = function(x) return x:abs():max() end}, {method = "kvaerno5"}, {on_min_step = "accept"},
    }
    for _, o in ipairs(quiet) do assert.are.equal(0, both_ways(lotka, {1, 1}, {0, 10}, o).forward) end
    local wide = ode.solve(function(_, y) return -y * p[1] end, tide.ones(17, "float64"), {0, 10}, {rtol = 1e-9})
    assert.close(wide.last, tide.full({17}, math.exp(-15), "float64"), 1e-8)
  end)

  it("adds what flows back from more than one solve of the same field", function()
    local f = function(_, y) return -y * p[1] end
    for _ = 1, 3 do
      p.grad = nil
      local one, two = ode.solve(f, vector(1), {0, 2}, {rtol = 1e-9}), ode.solve(f, vector(2), {0, 1}, {rtol = 1e-9})
      local loss = one.last:sum() + two.last:sum()
      loss:backward()
      assert.near(-2 * math.exp(-3) - 2 * math.exp(-1.5), p.grad[1]:item(), 1e-7)
    end
  end)

  it("goes back a second time over a graph that was kept", function()
    local start = vector(1, 1):requires_grad()
    for _ = 1, 2 do
      local sol = ode.solve(lotka, start, {0, 5}, {rtol = 1e-8})
      local loss = sol.last:sum()
      p.grad = nil
      loss:backward(nil, {retain_graph = true})
      local first = p.grad:totable()
      p.grad = nil
      loss:backward()
      assert.are.same(first, p.grad:totable())
    end
  end)

  it("can be interrupted", function()
    local solve = function(t)
      return ode.solve(function(_, y) return tide.stack({y[2], -y[1]}, 1) end, vector(1, 0), {0, t}, {rtol = 1e-10,
        max_steps = 1e9})
    end
    for _ = 1, 3 do solve(100) end
    local ended
    debug.sethook(function()
      debug.sethook()
      ended = true
      error("stop", 0)
    end, "", 20000)
    local ok, why = pcall(solve, 1e7)
    debug.sethook()
    assert.is_true(ended)
    assert.is_false(ok)
    assert.truthy(tostring(why):find("stop", 1, true))
  end)
end)
