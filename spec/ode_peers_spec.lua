-- ode.solve under the names of torchdiffeq and SciPy.

local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end

-- SciPy's rational problem, exact (t/(t + 10), 10t/(t + 10)²).
local function rational(t, y) return {y[2] / t, y[2] * (y[1] + 2 * y[2] - 1) / (t * (y[1] - 1))} end
local function exact(t) return {t / (t + 10), 10 * t / (t + 10) ^ 2} end

describe("odeint", function()
  it("takes every name of torchdiffeq's options", function()
    local o = {method = "dopri5", rtol = 1e-8, atol = 1e-9, options = {first_step = 0.01, safety = 0.8, ifactor = 5,
      dfactor = 0.3, max_num_steps = 1000, min_step = 0, max_step = 0.5, dtype = "float64", step_t = {0.3},
      jump_t = tide.tensor({0.6}), norm = "rms"}}
    assert.close(ode.odeint(function(_, y) return -y end, 1, {0, 1}, o)[2], math.exp(-1), 1e-7)
    for _, interp in ipairs {"linear", "cubic"} do
      local fixed = {method = "rk4", options = {step_size = 0.25, interp = interp, perturb = true}}
      assert.close(ode.odeint(function(_, y) return -y end, 1, {0, 0.1, 1}, fixed)[3], math.exp(-1), 1e-3)
    end
  end)

  it("has every method of torchdiffeq but the multistep ones", function()
    for _, name in ipairs {"euler", "midpoint", "heun2", "heun3", "rk4", "bosh3", "fehlberg2", "adaptive_heun",
      "dopri5", "tsit5", "dopri8", "implicit_euler", "implicit_midpoint", "trapezoid", "radauIIA3", "radauIIA5",
      "gl4", "gl6", "sdirk2", "trbdf2"} do
      local o = {method = name, rtol = 1e-6, atol = 1e-8}
      if ode.methods[name].error_order == 0 then o.options = {step_size = 0.01} end
      assert.close(ode.odeint(function(t, y) return -y * t end, vector(1), {0, 1}, o)[2], {math.exp(-0.5)}, 4e-3)
    end
  end)

  it("is Euler on a grid of one's own: 1.1¹⁰ and its gradient", function()
    local y0 = vector(1):requires_grad()
    local nodes = {}
    for i = 0, 10 do nodes[i + 1] = i == 10 and 1 or i / 10 end
    local ys = ode.odeint(function(_, y) return y end, y0, {0, 1}, {method = "euler",
      options = {grid_constructor = function() return tide.tensor(nodes, "float64") end}})
    ys[2]:sum():backward()
    assert.close(ys[2], {1.1 ^ 10}, 1e-14)
    assert.close(y0.grad, {1.1 ^ 10}, 1e-14)
  end)

  it("perturbed never asks f at the times", function()
    local at = {}
    ode.odeint(function(t, y)
      at[t] = true
      return -y
    end, 1, {0, 0.5, 1}, {method = "rk4", options = {step_size = 0.5, perturb = true}})
    assert.is_nil(at[0.5])
  end)

  it("with event_fn gives the time and the values up to it", function()
    local function level(_, y) return y - math.exp(1) end
    local t, ys = ode.odeint(function(_, y) return y end, 1.3, {0, 0.5, 9}, {event_fn = level})
    assert.close(t, 1 - math.log(1.3), 1e-7)
    assert.are.equal(3, #ys)
    assert.close(ys[3], math.exp(1), 1e-12)
    assert.fails_here(function() ode.odeint(function(_, y) return -y end, 1, {0, 1}, {event_fn = level}) end,
      "no event happened before t = 1")
  end)
end)

describe("odeint_event", function()
  it("goes until the event, both ways, with gradients", function()
    for _, call in ipairs {{false, 1}, {true, -1}} do
      local y0 = vector(1.3):requires_grad()
      local t, ys = ode.odeint_event(function(_, y) return y * call[2] end, y0, 0, {reverse_time = call[1],
        rtol = 1e-10, atol = 1e-10, event_fn = function(_, y) return y[1] - math.exp(1) end})
      assert.close(t:item(), call[2] * (1 - math.log(1.3)), 1e-9)
      assert.are.same({2, 1}, ys.shape)
      assert.close(tide.gradients(t, {y0})[1], {-call[2] / 1.3}, 1e-8)
    end
    assert.fails_here(function() ode.odeint_event(function(_, y) return y end, 1, 0, {}) end, "event_fn is missing")
    assert.fails_here(function()
      ode.odeint_event(function(_, y) return -y end, 1, 0, {event_fn = function() return 1 end, max_num_steps = 100})
    end, "step limit")
  end)

  it("also with the adjoint's name", function()
    local y0 = vector(1.3):requires_grad()
    local t = ode.odeint_adjoint(function(_, y) return y end, y0, {0, 9}, {event_fn = function(_, y)
      return y[1] - math.exp(1)
    end})
    assert.close(tide.gradients(t, {y0})[1], {-1 / 1.3}, 1e-6)
  end)
end)

describe("solve_ivp", function()
  it("takes SciPy's steps and its counts of evaluations", function()
    for _, case in ipairs {{"RK45", 1e-3, 20, 4, 5.156931587072162}, {"RK23", 1e-3, 14, 5, 5.045658041455897},
      {"DOP853", 1e-3, 38, 4, 5.314281617239062}, {"RK45", 1e-9, 62, 11, 5.009901713744411}} do
      local r = ode.solve_ivp(rational, {5, 9}, {1 / 3, 2 / 9}, {method = case[1], rtol = case[2],
        atol = case[2] * 1e-3})
      assert.is_true(r.nfev <= case[3] and r.nfev >= case[3] - 1)
      assert.are.equal(case[4], #r.t)
      assert.close(r.t[2], case[5], 1e-9)
      assert.are.same({0, true}, {r.status, r.success})
    end
  end)

  it("solves the rational problem both ways, within the tolerance, at the steps and between", function()
    for _, method in ipairs {"RK23", "RK45", "DOP853", "Radau", "BDF"} do
      for _, span in ipairs {{5, 9}, {5, 1}} do
        local r = ode.solve_ivp(rational, span, exact(5), {method = method, rtol = 1e-3, atol = 1e-6,
          dense_output = true})
        assert.are.equal(0, r.status)
        for i, t in ipairs(r.t) do
          local e = exact(t)
          for c = 1, 2 do  -- SciPy's BDF reaches 5.1
            assert.is_true(math.abs(r.y[c][i] - e[c]) / (1e-6 + 1e-3 * math.abs(e[c])) < 5.5)
          end
        end
        for k = 0, 10 do
          local t = span[1] + (span[2] - span[1]) * k / 10
          local y, e = r.sol(t), exact(t)
          for c = 1, 2 do assert.is_true(math.abs(y[c] - e[c]) / (1e-6 + 1e-3 * math.abs(e[c])) < 15) end
        end
      end
    end
  end)

  it("finds its events, whose directions are seen reversed backwards", function()
    local function at7(_, y) return y[1] - y[2] ^ 0.7 end
    local function at6(_, y) return y[2] ^ 0.6 - y[1] end
    for _, method in ipairs {"RK23", "RK45", "DOP853", "BDF", "Radau"} do
      local r = ode.solve_ivp(rational, {5, 8}, {1 / 3, 2 / 9}, {method = method, events = {at7, at6}})
      assert.are.same({1, 1}, {#r.t_events[1], #r.t_events[2]})
      assert.is_true(r.t_events[1][1] > 5.3 and r.t_events[1][1] < 5.7)
      assert.is_true(r.t_events[2][1] > 7.3 and r.t_events[2][1] < 7.7)
      local up = ode.solve_ivp(rational, {5, 8}, {1 / 3, 2 / 9}, {method = method, events = {
        {fn = at7, direction = 1}, {fn = at6, direction = 1}}})
      assert.are.same({1, 0}, {#up.t_events[1], #up.t_events[2]})
      local back = ode.solve_ivp(rational, {8, 5}, exact(8), {method = method, events = {
        {fn = at7, direction = -1}, {fn = at6, direction = -1}}})
      assert.are.same({1, 0}, {#back.t_events[1], #back.t_events[2]})
    end
    local stopped = ode.solve_ivp(rational, {5, 8}, {1 / 3, 2 / 9}, {events = {at7, {fn = at6, terminal = true}}})
    assert.are.equal(1, stopped.status)
    assert.are.equal(stopped.t_events[2][1], stopped.t[#stopped.t])
  end)

  it("gives t_eval alone, components by times, for tensors too, with further arguments", function()
    local function f(_, y, rate) return {rate * y[1], y[1]} end
    local r = ode.solve_ivp(f, {0, 2}, {1, 0}, {t_eval = {0.5, 1}, args = {-1}, rtol = 1e-8})
    assert.are.same({0.5, 1}, r.t)
    assert.close(r.y[1], {math.exp(-0.5), math.exp(-1)}, 1e-6)
    local t = ode.solve_ivp(function(_, y) return -y end, {0, 2}, vector(1, 2), {t_eval = {0.5, 1, 2}})
    assert.are.same({2, 3}, t.y.shape)
    assert.fails_here(function() ode.solve_ivp(f, {0, 1}, {1, 0}, {method = "LSODE"}) end, "solve_ivp: unknown method")
    assert.fails_here(function() ode.solve_ivp(f, {0, 1}, {1, 0}, {rtoll = 1}) end, "solve_ivp: unknown option")
  end)
end)
