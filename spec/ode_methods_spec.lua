-- The methods of ode.solve: order conditions, measured orders, values that are known.

local core = require "tide.core"
local rk = require "spec.support.rk"
local tide = require "tide"
local trees = require "spec.support.trees"
require "spec.helper"
local ode = tide.ode

local names = {}
for name, m in pairs(ode.methods) do
  if m.a then names[#names + 1] = name end  -- explicit ones; the others are in ode_stiff_spec.lua
end
table.sort(names)

local function defect_of_extension(m, order)
  local worst, noise = 0, 0
  for i = 1, 9 do
    local w = core.ode_dense(m.name, i / 10)
    local one, its_noise = trees.defect(order, m.extended, w, i / 10)
    worst, noise = math.max(worst, one), math.max(noise, its_noise)
  end
  return worst, noise
end

-- Coefficients in double hold the conditions to rounding; the first condition beyond an order fails by far more.
local function assert_holds(defect, noise) assert.is_true(defect < math.max(1e-13, math.min(noise, 2e-10))) end
local function assert_fails(defect) assert.is_true(defect > 1e-7) end

describe("the tableaux", function()
  it("number 1, 1, 2, 4, 9, 20, 48 and 115 trees", function()
    local counts = {}
    for n = 1, 8 do counts[n] = #trees.of_order(n) end
    assert.are.same({1, 1, 2, 4, 9, 20, 48, 115}, counts)
  end)

  for _, name in ipairs(names) do
    local m = ode.methods[name]

    it(name .. " satisfies the order conditions to its order and no further", function()
      for n = 1, m.order do assert_holds(trees.defect(n, m.a, m.b)) end
      assert_fails(trees.defect(m.order + 1, m.a, m.b))
    end)

    it(name .. " has the row sums of its matrix as stage times, and an explicit matrix", function()
      for i = 1, m.stages do
        local sum = 0
        for j = 1, m.stages do
          sum = sum + m.a[i][j]
          if j >= i then assert.are.equal(0, m.a[i][j]) end
        end
        assert.close(m.c[i], sum, 1e-15)
        assert.is_true(m.c[i] >= 0 and m.c[i] <= 1 + 1e-14)
      end
    end)

    it(name .. " declares truly whether its last stage is the next step's first", function()
      local last, same = m.a[m.stages], m.b[m.stages] == 0 and math.abs(m.c[m.stages] - 1) < 1e-14
      for j = 1, m.stages do same = same and last[j] == m.b[j] end
      assert.are.equal(same, m.fsal)
    end)

    it(name .. "'s extension satisfies the conditions to its order and no further", function()
      for n = 1, m.dense_order do
        local defect, noise = defect_of_extension(m, n)
        assert_holds(defect, math.max(1e-12 * rk.noise(m), noise))
      end
      assert_fails((defect_of_extension(m, m.dense_order + 1)))
    end)

    it(name .. "'s extension meets both ends, and its slope weights are its derivative", function()
      local start, finish = core.ode_dense(name, 0), core.ode_dense(name, 1)
      for i = 1, #finish do
        assert.close(start[i], 0, 1e-15)
        assert.close(finish[i], m.b[i] or 0, (m.order > 5 and 1e-12 or 1e-13) * rk.noise(m))
      end
      for _, theta in ipairs {0, 0.3, 0.77, 1} do
        local _, slope = core.ode_dense(name, theta)
        local above, below = core.ode_dense(name, theta + 1e-5), core.ode_dense(name, theta - 1e-5)
        for i = 1, #slope do assert.close(slope[i], (above[i] - below[i]) / 2e-5,
            (m.order > 5 and 1e-6 or 1e-7) * rk.noise(m)) end
      end
    end)

    if m.error_order > 0 then
      it(name .. "'s embedded solution has its order and no more", function()
        local embedded, sum = {}, 0
        for i = 1, m.stages do
          embedded[i] = m.b[i] - m.e[i]
          sum = sum + m.e[i]
        end
        assert.close(sum, 0, m.order > 5 and 5e-14 or 1e-15)
        local order = m.e2 and 5 or m.error_order
        for n = 1, order do assert_holds(trees.defect(n, m.a, embedded)) end
        assert_fails(trees.defect(order + 1, m.a, embedded))
      end)
    end

    if m.e2 then
      it(name .. "'s second estimate has order 3, so that the quotient of both has " .. m.error_order, function()
        local embedded = {}
        for i = 1, m.stages do embedded[i] = m.b[i] - m.e2[i] end
        for n = 1, 3 do assert_holds(trees.defect(n, m.a, embedded)) end
        assert_fails(trees.defect(4, m.a, embedded))
        assert.are.equal(m.error_order + 1, 2 * (5 + 1) - (3 + 1))
      end)
    end
  end

  it("tsit5's last error weight is −1/66", function()
    assert.are.equal(-1 / 66, ode.methods.tsit5.e[7])
  end)

  it("dopri5's extension takes Shampine's value in the middle of a step", function()
    local w = core.ode_dense("dopri5", 0.5)
    assert.close(w[1], 0.5 * 6025192743 / 30085553152, 1e-15)
  end)
end)

-- ---- Measured orders ----

-- y' = y² cos t, y = 1/(1/y0 − sin t): not autonomous, not linear.
local function bend(t, y) return y * y * math.cos(t) end
local function bend_exact(t, y0) return 1 / (1 / y0 - math.sin(t)) end

local function sine(t, y) return 2 * y / t + t ^ 4 * math.sin(2 * t) - t ^ 2 + 4 * t ^ 3 end
local function sine_exact(t)
  return -t ^ 4 * math.cos(2 * t) / 2 + t ^ 3 * math.sin(2 * t) / 2 + t ^ 2 * math.cos(2 * t) / 4 - t ^ 3 +
    2 * t ^ 4 +
    (math.pi - 0.25) * t ^ 2
end

local function growth(t, y) return y * math.cos(t) end

-- The order seen from n to 2n steps, in both directions of time: their expansions differ in the sign of every
-- other term, so that the mean is closer to the order than each. The error is a norm over several nodes or
-- starts, where its leading terms cannot all vanish.
-- High orders, whose conditions are proved above, leave few step sizes between the asymptotic range and rounding: n
-- shrinks until the errors are above `floor`, and the slope only has to be in the order's neighbourhood.
local function assert_slope(expected, error_at, n, floor)
  local function slope(forward)
    local steps = n
    local e1, e2 = error_at(steps, forward), error_at(2 * steps, forward)
    while floor and e2 < floor and steps > 4 do
      steps = math.floor(steps * 0.8)
      e1, e2 = error_at(steps, forward), error_at(2 * steps, forward)
    end
    return math.log(e1 / e2) / math.log(2), e2
  end
  local ahead, e1 = slope(true)
  local back, e2 = slope(false)
  local mean = (ahead + back) / 2
  local worse = math.max(math.abs(ahead - expected), math.abs(back - expected))
  local wrong = math.abs(mean - expected) > 0.16 or worse > 0.5
  if floor then wrong = math.min(ahead, back) < expected - 1.4 or mean > expected + 3.5 end
  if wrong then
    error(("slopes %.3f and %.3f, expected %g (errors %.2g, %.2g)"):format(ahead, back, expected, e1, e2), 0)
  end
end

-- Where rounding takes over; nil for low orders, whose steps are chosen well above it.
local function floor_of(m)
  if m.order > 5 then return 2e-12 * math.sqrt(rk.noise(m)) end
end

-- Steps for which the errors lie between the asymptotic range and rounding.
local function steps_for(order) return ({1280, 320, 160, 80, 80, 40, 24, 16, 12})[order] end

local problems = {
  {name = "y' = y² cos t", f = bend, exact = function(t) return bend_exact(t, 0.7) end, t0 = 0, t1 = 2},
  {name = "y' = y cos t", f = growth, exact = function(t) return math.exp(math.sin(t)) end, t0 = 0, t1 = 3},
  {name = "y' = 2y/t + …", f = sine, exact = sine_exact, t0 = 1, t1 = 8, finer = 4},
}

describe("measured orders", function()
  for _, name in ipairs(names) do
    local m = ode.methods[name]
    for _, p in ipairs(problems) do
      it(("%s at the steps of %s"):format(name, p.name), function()
        assert_slope(m.order, function(n, forward)
          local from, to = p.t0, p.t1
          if not forward then from, to = to, from end
          local times, sum, nodes = {}, 0, m.order > 7 and 4 or 8  -- which steps are no longer than
          for i = 0, nodes do times[i + 1] = from + (to - from) * i / nodes end
          local sol = ode.solve(p.f, p.exact(from), times, {method = name, land = true,
            step_size = (p.t1 - p.t0) / n})
          for i, t in ipairs(times) do sum = sum + ((sol.ys[i] - p.exact(t)) / p.exact(t)) ^ 2 end
          return math.sqrt(sum)
        end, steps_for(m.order) * (p.finer or 1), floor_of(m))
      end)
    end

    it(name .. " between the steps", function()
      local p = problems[1]
      assert_slope(math.min(m.order, m.dense_order + 1), function(n, forward)
        local times, worst = {}, 0
        for i = 0, 200 do times[i + 1] = 2 * (forward and i or 200 - i) / 200 end
        local sol = ode.solve(p.f, p.exact(times[1]), times, {method = name, step_size = 2 / n})
        for i, t in ipairs(times) do worst = math.max(worst, math.abs(sol.ys[i] - p.exact(t))) end
        return worst
      end, m.order == 1 and 400 or m.order > 5 and 12 or 48, floor_of(m))
    end)

    it(name .. "'s gradient with respect to the start", function()
      local early = {0.5, 0.6, 0.7, 0.8}
      assert_slope(m.order, function(n, forward)
        local starts, ends, sum = {}, {}, 0
        for i, v in ipairs(early) do starts[i], ends[i] = v, bend_exact(2, v) end
        if not forward then starts, ends = ends, starts end
        local y0 = tide.tensor(starts, "float64"):requires_grad()
        local sol = ode.solve(function(t, y) return y * y * t:cos() end, y0, forward and {0, 2} or {2, 0},
          {method = name, step_size = 2 / n})
        sol.last:sum():backward()
        for i, v in ipairs(starts) do sum = sum + (y0.grad[i]:item() / (ends[i] / v) ^ 2 - 1) ^ 2 end
        return math.sqrt(sum)
      end, ({640, 160, 80, 80, 100, 40, 24, 16, 12})[m.order], floor_of(m))
    end)
  end
end)

-- ---- Known values ----

local detest = {
  A1 = {function(_, y) return {-y[1]} end, {1}, {2.0611536224385578280e-09}, 1e-3},
  A2 = {function(_, y) return {-y[1] ^ 3 / 2} end, {1}, {2.1821789023599238127e-01}},
  A3 = {function(t, y) return {y[1] * math.cos(t)} end, {1}, {2.4916502718504145235e+00}},
  A4 = {function(_, y) return {y[1] / 4 * (1 - y[1] / 20)} end, {1}, {1.7730166481314839849e+01}},
  A5 = {function(t, y) return {(y[1] - t) / (y[1] + t)} end, {4}, {-7.8878266889640142373e-01}},
  B1 = {function(_, y) return {2 * (y[1] - y[1] * y[2]), -(y[2] - y[1] * y[2])} end, {1, 3},
    {6.7618760085766066073e-01, 1.8608160996400298008e-01}},
}

describe("known values", function()
  for name, p in pairs(detest) do
    for _, method in ipairs {"bosh3", "dopri5", "dopri5_shampine", "tsit5"} do
      it(("%s of DETEST by %s, forward and back"):format(name, method), function()
        local rtol = method == "bosh3" and 1e-8 or 1e-11
        local o = {method = method, rtol = rtol, atol = rtol * 1e-2}
        local sol = ode.solve(p[1], p[2], {0, 20}, o)
        assert.close(sol.last, p[3], rtol * 100)
        if name ~= "A1" and name ~= "A2" then  -- those are not well-conditioned backwards
          local back = ode.solve(p[1], p[3], {20, 0}, o)
          assert.close(back.last, p[2], name == "A4" and rtol * 1e5 or rtol * 1e3)
        end
      end)
    end
  end

  it("the constant problem is solved exactly by every method", function()
    for _, name in ipairs(names) do
      local sol = ode.solve(function(t, y) return {0.2 + (y[1] - (0.2 * t + 3)) ^ 5} end, {3.2}, {1, 4, 8},
        {method = name, step_size = 0.25})
      assert.close(sol.ys, {{3.2}, {3.8}, {4.6}}, 1e-13)
    end
  end)

  it("the sine problem ends at 9737.32274478060764", function()
    assert.close(sine_exact(1), 4.45027807613941968, 1e-14)
    for _, method in ipairs {"dopri5", "tsit5"} do
      local sol = ode.solve(sine, 4.45027807613941968, {1, 8}, {method = method, rtol = 1e-12, atol = 1e-12})
      assert.close(sol.last, 9737.32274478060764, 1e-11)
      local back = ode.solve(sine, 9737.32274478060764, {8, 1}, {method = method, rtol = 1e-12, atol = 1e-12})
      assert.close(back.last, 4.45027807613941968, 1e-8)
    end
  end)

  it("a linear system of ten dims is its matrix exponential at every saved time, both ways", function()
    local g = tide.generator(3)
    local a = g:randn({10, 10}, "float64")
    a = a - a:transpose(1, 2)
    local start = tide.ones({10}, "float64")
    for _, times in ipairs {{0, 0.3, 0.7, 1}, {1, 0.5, 0.1, 0}} do
      local sol = ode.solve(function(_, y) return a:matmul(y) end, start, times, {rtol = 1e-10, atol = 1e-10})
      for i, t in ipairs(times) do
        assert.close(sol.ys[i], (a * (t - times[1])):matrix_exp():matmul(start), 3e-8)
      end
    end
  end)

  it("float32 states stay float32 and agree with float64", function()
    local f = function(t, y) return y * t:cos() end
    for _, method in ipairs(names) do
      local o = {method = method, rtol = 1e-5, atol = 1e-6,
        step_size = ode.methods[method].error_order == 0 and 0.01 or 0}
      local y32 = ode.solve(f, tide.tensor({1, 2}), {0, 1, 3}, o)
      local y64 = ode.solve(f, tide.tensor({1, 2}, "float64"), {0, 1, 3}, o)
      assert.are.equal("float32", y32.ys.dtype)
      assert.are.equal("float64", y64.ys.dtype)
      assert.close(y32.ys:to "float64", y64.ys, 2e-5)
    end
  end)

  it("Lotka–Volterra ends where two other integrators say", function()
    local function f(_, u) return {1.5 * u[1] - u[1] * u[2], -3 * u[2] + u[1] * u[2]} end
    local sol = ode.solve(f, {1, 1}, {0, 10}, {rtol = 1e-12, atol = 1e-12})
    assert.close(sol.last, {1.0263447675750893191, 0.90969107813604161755}, 1e-10)
  end)
end)

-- ---- Step control ----

describe("step control", function()
  local function stiffish(t, y) return -20 * (y - math.cos(t)) end
  local function jump(t, y) return t < 1.234 and -y or 5 * y end

  local function assert_same_grid(got, expected, tolerance)
    assert.are.equal(#expected, #got)
    assert.close(got, expected, tolerance)
  end

  for name, c in pairs(ode.controllers) do
    for _, method in ipairs {"bosh3", "dopri5", "dopri5_shampine", "tsit5"} do
      it(("%s takes the steps of its formula with %s"):format(name, method), function()
        for _, f in ipairs {stiffish, jump} do
          local o = {method = method, rtol = 1e-5, atol = 1e-7, controller = name, first_step = 0.3}
          local sol = ode.solve(f, 1, {0, 3}, o)
          local grid, rejected = rk.adaptive(ode.methods[method], f, 1, 0, 3,
            {rtol = 1e-5, atol = 1e-7, first_step = 0.3, controller = c})
          assert.are.equal(rejected, sol.stats.rejected)
          assert.is_true(rejected > 0)
          assert_same_grid(sol.grid, grid, 1e-5)
        end
      end)
    end
  end

  it("takes a controller as a table, and safety, ifactor and dfactor for any", function()
    local c = {k1 = 0.7, k2 = -0.4, k3 = 0, safety = 0.8, shrink = 0.3, grow = 4, hold_after_reject = true}
    local sol = ode.solve(stiffish, 1, {0, 3}, {method = "dopri5", rtol = 1e-6, atol = 1e-8,
      first_step = 1e-3,
      controller = {k1 = 0.7, k2 = -0.4, k3 = 0}, safety = 0.8, ifactor = 4, dfactor = 0.3})
    local grid = rk.adaptive(ode.methods.dopri5, stiffish, 1, 0, 3,
      {rtol = 1e-6, atol = 1e-8, first_step = 1e-3, controller = c})
    assert_same_grid(sol.grid, grid, 1e-5)
  end)

  it("NaN beyond a time shrinks the step by the least factor and forgets the history", function()
    local function f(t, y) return t > 0.8 and 0 / 0 or -y end
    local sol = ode.solve(f, 1, {0, 0.79}, {method = "dopri5", first_step = 0.5, rtol = 1e-3})
    local grid, rejected = rk.adaptive(ode.methods.dopri5, f, 1, 0, 0.79,
      {rtol = 1e-3, atol = 1e-8, first_step = 0.5, controller = ode.controllers.pi})
    assert_same_grid(sol.grid, grid, 1e-12)
    assert.are.equal(rejected, sol.stats.rejected)
  end)

  it("the first step is the one of Hairer, Nørsett and Wanner", function()
    local rtol, atol = 1e-6, 1e-8
    for _, norm in ipairs {"rms", "max"} do
      local function f(t, y) return {y[2], -4 * y[1] + math.cos(t)} end
      local y0 = {1.5, -0.5}
      local scale = {atol + rtol * 1.5, atol + rtol * 0.5}
      local function size(v)
        local a, b = math.abs(v[1] / scale[1]), math.abs(v[2] / scale[2])
        return norm == "max" and math.max(a, b) or math.sqrt((a * a + b * b) / 2)
      end
      local f0 = f(0, y0)
      local d0, d1 = size(y0), size(f0)
      local h0 = 0.01 * d0 / d1
      local f1 = f(h0, {y0[1] + h0 * f0[1], y0[2] + h0 * f0[2]})
      local d2 = size({f1[1] - f0[1], f1[2] - f0[2]}) / h0
      local h = math.min(100 * h0, (0.01 / math.max(d1, d2)) ^ 0.2)
      local sol = ode.solve(f, y0, {0, 5}, {norm = norm, rtol = rtol, atol = atol})
      assert.close(sol.grid[2], h, 1e-12)
    end
  end)

  it("loosens and tightens with the tolerance", function()
    local function err(rtol)
      local sol = ode.solve(bend, 0.5, {0, 2}, {rtol = rtol, atol = rtol})
      return math.abs(sol.last - bend_exact(2, 0.5)), sol.stats.nfe
    end
    local e1, n1 = err(1e-4)
    local e2, n2 = err(1e-8)
    assert.is_true(e1 < 1e-2 and e2 < 1e-6 and e2 < e1 and n2 > 2 * n1)
  end)

  it("max_step and first_step are obeyed", function()
    local sol = ode.solve(bend, 0.5, {0, 2}, {max_step = 0.05, first_step = 0.01, rtol = 1e-3})
    assert.close(sol.grid[2], 0.01, 1e-15)
    assert.is_true(sol.stats.h_max <= 0.05 * (1 + 1e-9))
    assert.is_true(sol.stats.accepted >= 40)
  end)

  it("the max norm is stricter than the mean", function()
    local function f(_, y) return {-y[1], 0, 0, 0, 0, 0, 0, 0 * y[8]} end
    local y0 = {1, 1, 1, 1, 1, 1, 1, 1}
    local mean = ode.solve(f, y0, {0, 5}, {norm = "rms"}).stats.accepted
    local max = ode.solve(f, y0, {0, 5}, {norm = "max"}).stats.accepted
    assert.is_true(max > mean)
  end)
end)

-- ---- Strong stability ----

describe("strong stability", function()
  -- Upwind differences of u' = −u_x on a ring: an Euler step of at most one cell keeps the total variation.
  local function upwind(_, u)
    local out, n = {}, #u
    for i = 1, n do out[i] = u[i == 1 and n or i - 1] - u[i] end
    return out
  end
  local function variation(u)
    local sum = math.abs(u[1] - u[#u])
    for i = 2, #u do sum = sum + math.abs(u[i] - u[i - 1]) end
    return sum
  end
  local step = {}
  for i = 1, 40 do step[i] = i > 10 and i <= 20 and 1 or 0 end

  local function grows(name, size)
    local u, most = step, variation(step)
    for k = 0, 19 do
      u = ode.solve(upwind, u, {k * size, (k + 1) * size}, {method = name, step_size = size}).last
      if variation(u) > most * (1 + 1e-12) then return true end
      for _, v in ipairs(u) do
        if v < -1e-12 then return true end
      end
    end
    return false
  end

  for name, bound in pairs {ssprk22 = 1, ssprk33 = 1, ssprk43 = 2, ssprk54 = 1.508, ssprk104 = 6} do
    it(name .. " keeps total variation and sign for steps up to " .. bound .. " times Euler's", function()
      assert.is_false(grows(name, bound))
      assert.is_true(grows(name, 1.6 * bound + 0.5))
    end)
  end

  it("is what other methods lack", function() assert.is_true(grows("rk4_classic", 1.7)) end)
end)
