-- Gradients through ode.solve: exact for the steps taken, right in the limit, in every mode.

local helper = require "spec.helper"
local rk = require "spec.support.rk"
local tide = require "tide"
local nn, ode = tide.nn, tide.ode

local function vector(...) return tide.tensor({...}, "float64") end
local function leaf(...) return vector(...):requires_grad() end

-- A field of two components that uses t, y nonlinearly, and parameters p.
local function wavy(p)
  return function(t, y)
    return (y * p):sin() * (t * 1.3):cos() - y ^ 3 * 0.1 + p:sum() * t * 0.2
  end
end

local all = {}
for name, m in pairs(ode.methods) do
  if m.a then all[#all + 1] = name end  -- explicit ones; the others are in ode_stiff_spec.lua
end
table.sort(all)

-- Options under which a method takes several steps.
local function options_of(name, more)
  local o = {method = name}
  if ode.methods[name].error_order > 0 then o.rtol, o.atol = 1e-3, 1e-4 else o.step_size = 0.17 end
  for k, v in pairs(more or {}) do o[k] = v end
  return o
end

local function numbers(from, count, width)
  local out = {}
  for i = 0, count do out[i + 1] = from + width * i end
  return out
end

describe("the discrete gradient", function()
  -- Start, end and interior save times; some fall on steps, some repeat.
  local forward, backward = {0, 0.11, 0.5, 0.5, 0.93, 1.2}, {1.2, 0.93, 0.5, 0.5, 0.11, 0}

  for _, name in ipairs(all) do
    for direction, times in pairs {ahead = forward, back = backward} do
      it(name .. ", " .. direction .. ": equals the tape through the same steps in Lua, for all inputs",
        function()
          local weights = tide.generator(5):randn({#times, 2}, "float64")
          local y0, p, ts = leaf(0.7, -0.4), leaf(1.1, 0.8), tide.tensor(times, "float64"):requires_grad()
          local sol = ode.solve(wavy(p), y0, ts, options_of(name))
          local twin = rk.on_grid(ode.methods[name], wavy(p), y0, sol.grid, ts)
          local noise = rk.noise(ode.methods[name])
          assert.close(sol.ys, twin, 1e-13 * noise)
          local got = tide.gradients((sol.ys * weights):sum(), {y0, p, ts})
          local expected = tide.gradients((twin * weights):sum(), {y0, p, ts})
          for i = 1, 2 do assert.close(got[i], expected[i], 1e-12 * noise) end
          -- repeated times share their gradient differently, and equally in sum
          assert.close(got[3][1], expected[3][1], 1e-12 * noise)
          for i = 2, #times do assert.close(got[3][i], expected[3][i], 1e-12 * noise) end
        end)
    end

    it(name .. ": equals central differences on a fixed grid", function()
      local o = {method = name, step_size = 0.21}
      local function ys(y0, p) return ode.solve(wavy(p), y0, {0, 0.33, 0.7, 1}, o).ys end
      local rtol = rk.noise(ode.methods[name]) > 1 and 1e-4 or nil  -- differences amplify what rounds
      assert.is_true(tide.gradcheck(ys, {vector(0.7, -0.4), vector(1.1, 0.8)}, {second = false, rtol = rtol}))
    end)
  end

  it("does not depend on whether the times need gradients", function()
    local y0, p = leaf(0.7, -0.4), leaf(1.1, 0.8)
    local plain = ode.solve(wavy(p), y0, forward, options_of "dopri5")
    local timed = ode.solve(wavy(p), y0, tide.tensor(forward, "float64"):requires_grad(), options_of "dopri5")
    local a, b = tide.gradients(plain.ys:sin():sum(), {y0, p}), tide.gradients(timed.ys:sin():sum(), {y0, p})
    assert.close(a[1], b[1], 1e-13)
    assert.close(a[2], b[2], 1e-13)
  end)

  it("with land = true too", function()
    local y0, p, ts = leaf(0.7, -0.4), leaf(1.1, 0.8), tide.tensor(forward, "float64"):requires_grad()
    local sol = ode.solve(wavy(p), y0, ts, options_of("tsit5", {land = true}))
    local twin = rk.on_grid(ode.methods.tsit5, wavy(p), y0, sol.grid, ts)
    local a = tide.gradients(sol.ys:sin():sum(), {y0, p, ts})
    local b = tide.gradients(twin:sin():sum(), {y0, p, ts})
    for i = 1, 3 do assert.close(a[i], b[i], 1e-12) end
  end)

  it("of t0 and t1 tends to −λ·f and λ·f", function()
    local y0, t0, t1 = leaf(0.5), tide.tensor(0, "float64"):requires_grad(),
      tide.tensor(2, "float64"):requires_grad()
    local sol = ode.solve(function(t, y) return y * y * t:cos() end, y0, {t0, t1},
      {rtol = 1e-11, atol = 1e-12})
    sol.last:sum():backward()
    local y1 = 1 / (2 - math.sin(2))
    assert.close(t1.grad, y1 ^ 2 * math.cos(2), 1e-8)
    assert.close(t0.grad, -y1 ^ 2 * math.cos(0), 1e-8)
  end)

  it("reaches features made before, and what made them, once", function()
    local w, image = leaf(0.3, 0.9), vector(1, 2)
    local function loss(weights)
      local x = (weights * image):tanh()
      return ode.solve(function(_, y) return -y + x * weights end, vector(0, 0), {0, 1},
        options_of "dopri5").last:sum()
    end
    assert.is_true(tide.gradcheck(loss, {w}, {second = false, rtol = 1e-5}))
  end)

  it("reaches a start that the right-hand side also uses", function()
    local function through(solve_on)
      local y0 = leaf(0.7, -0.4)
      local f = function(_, y) return y:sin() * y0 end
      local ys = solve_on(f, y0)
      ys:sum():backward()
      return y0.grad
    end
    local grid
    local got = through(function(f, y0)
      local sol = ode.solve(f, y0, {0, 1}, options_of "dopri5")
      grid = sol.grid
      return sol.ys
    end)
    local expected = through(function(f, y0)
      return rk.on_grid(ode.methods.dopri5, f, y0, grid, vector(0, 1))
    end)
    assert.close(got, expected, 1e-13)
  end)

  it("is the identity when there is one time, or the same time again", function()
    for _, times in ipairs {{2}, {2, 2, 2}} do
      local y0 = leaf(3, 4)
      local sol = ode.solve(function() error "called" end, y0, times)
      sol.ys:sum():backward()
      assert.close(y0.grad, {#times, #times})
    end
  end)

  it("of a nested state", function()
    local function run(solver)
      local x, v, k = leaf(1, 2), leaf(0.5), leaf(2.5)
      local f = function(t, s) return {x = s.v:expand(2) * t:cos(), v = -k * s.x:sum():reshape(1)} end
      return tide.gradients(solver(f, {x = x, v = v}), {x, v, k})
    end
    local grid
    local got = run(function(f, s)
      local sol = ode.solve(f, s, {0, 0.4, 1}, {method = "rk4", step_size = 0.1})
      grid = sol.grid
      return sol.ys.x:sum() + (sol.ys.v * sol.ys.v):sum()
    end)
    local expected = run(function(f, s)
      local flat = function(t, y)
        local d = f(t, {v = y:narrow(1, 1, 1), x = y:narrow(1, 2, 2)})
        return tide.cat({d.v, d.x}, 1)
      end
      local ys = rk.on_grid(ode.methods.rk4, flat, tide.cat({s.v, s.x}, 1), grid, vector(0, 0.4, 1))
      local vs = ys:narrow(2, 1, 1)
      return ys:narrow(2, 2, 2):sum() + (vs * vs):sum()
    end)
    for i = 1, 3 do assert.close(got[i], expected[i], 1e-12) end
  end)

  it("counts what the backward pass evaluates", function()
    local calls, p = 0, leaf(1.1, 0.8)
    local f = wavy(p)
    local sol = ode.solve(function(t, y)
      calls = calls + 1
      return f(t, y)
    end, leaf(0.7, -0.4), {0, 0.5, 1}, options_of "dopri5")
    assert.are.equal(calls, sol.stats.nfe)
    assert.are.equal(0, sol.stats.nfe_b)
    calls = 0
    sol.ys:sum():backward()
    assert.are.equal(calls, sol.stats.nfe_b)
    assert.are.equal(6 * sol.stats.accepted + 1, calls)  -- the step of the save time needs its last stage
  end)

  it("replays steps without rejected tries, from exactly the times of the forward solve", function()
    local seen, again = {}, {}
    local into = seen
    local sol = ode.solve(function(t, y)
      into[t:item()] = true
      return -50 * (y - t:cos())
    end, leaf(0), {0, 0.7, 1.5}, {method = "dopri5", first_step = 0.5})
    into = again
    sol.ys:sum():backward()
    assert.is_true(sol.stats.rejected > 0)
    for t in pairs(again) do assert.is_true(seen[t]) end
  end)

  it("reaches the rows that a failed solve saved", function()
    local p, y0 = leaf(1), leaf(1)
    local f = function(_, y) return y * y * p end
    local o = {throw = false, max_steps = 10, method = "dopri5"}
    local sol = ode.solve(f, y0, {0, 0.1, 0.2, 2}, o)
    assert.are.equal("max_steps", sol.status)
    assert.are.equal(3, sol.ys:size(1))
    local got = tide.gradients(sol.ys:sum(), {y0, p})
    assert.close(got[1], {1 + 1 / 0.9 ^ 2 + 1 / 0.8 ^ 2}, 1e-5)
    local timed = tide.tensor({0, 0.1, 0.2, 2}, "float64"):requires_grad()
    local dt = tide.gradients(ode.solve(f, y0, timed, o).ys:sum(), {timed})[1]
    assert.close(dt:narrow(1, 2, 2), {1 / 0.9 ^ 2, 1 / 0.8 ^ 2}, 1e-4)
    assert.are.equal(0, dt[4]:item())
  end)
end)

-- ---- Truth ----

local function lotka(p)
  return function(_, u)
    local x, y = u:narrow(1, 1, 1), u:narrow(1, 2, 1)
    local xy = x * y
    return tide.cat({p[1] * x - p[2] * xy, p[4] * xy - p[3] * y}, 1)
  end
end

local function spiral(a) return function(_, y) return (y ^ 3):matmul(a) end end

local lotka_gradient = {
  {2.9959950830368230e-01, -1.4151816344853506e-02},
  {6.2196158555128088e-01, 6.8001404150874337e-02, 1.6917646399589282e-01, 2.7256069395000751e-01},
}

describe("known gradients", function()
  for _, mode in ipairs {"discrete", "backsolve"} do
    for _, method in ipairs {"dopri5", "tsit5"} do
      it(("Lotka–Volterra, %s, %s"):format(mode, method), function()
        local u0, p = leaf(1, 1), leaf(1.5, 1, 3, 1)
        local o = {method = method, rtol = 1e-13, atol = 1e-14, grad = mode}
        local sol = ode.solve(lotka(p), u0, {0, 10}, o)
        local loss = ((1 - sol.last) ^ 2):sum() / 2
        assert.close(loss, 4.4248740734080089636e-03, 1e-12)
        loss:backward()
        assert.close(u0.grad, lotka_gradient[1], 1e-11)
        assert.close(p.grad, lotka_gradient[2], 1e-11)
      end)
    end
  end

  it("the spiral's at t = 25", function()
    local y0, a = leaf(2, 0), tide.tensor({{-0.1, 2}, {-2, -0.1}}, "float64"):requires_grad()
    ode.solve(spiral(a), y0, {0, 25}, {method = "dopri5", rtol = 1e-11, atol = 1e-12}).last:sum():backward()
    assert.close(y0.grad, {-5.3747084944325285, -0.28196696740135813}, 1e-7)
    assert.close(a.grad, {{-56.83991706777013, -4.7948707173183572},
      {3.5477236940948478, -57.085800441567167}}, 1e-7)
  end)

  it("a linear system's is the transposed exponential", function()
    local a = tide.generator(3):randn({4, 4}, "float64")
    local y0 = tide.generator(4):randn({4}, "float64"):requires_grad()
    local w = tide.generator(5):randn({4}, "float64")
    for _, mode in ipairs {"discrete", "backsolve"} do
      local sol = ode.solve(function(_, y) return a:matmul(y) end, y0, {0, 0.8}, {grad = mode, rtol = 1e-11,
        atol = 1e-12})
      assert.close(tide.gradients((sol.last * w):sum(), {y0})[1],
        (a:transpose(1, 2) * 0.8):matrix_exp():matmul(w), 1e-8)
    end
  end)

  it("of a quadrature is the integral of the derivative", function()
    local p = leaf(0.7)
    ode.solve(function(t) return (t * p):exp() end, vector(0), {0, 2},
      {rtol = 1e-11, atol = 1e-12}).last:sum():backward()
    local q = 0.7
    assert.close(p.grad, {((2 * q - 1) * math.exp(2 * q) + 1) / q ^ 2}, 1e-8)
  end)
end)

-- ---- Modes against each other ----

describe("backsolve", function()
  local function gradients(mode, o)
    local y0, p, ts = leaf(0.7, -0.4), leaf(1.1, 0.8), leaf(0, 0.4, 0.4, 1, 1.5)
    local given = {method = "dopri5", rtol = 1e-10, atol = 1e-11, grad = mode}
    for k, v in pairs(o or {}) do given[k] = v end
    local sol = ode.solve(wavy(p), y0, ts, given)
    local weights = tide.generator(9):randn({5, 2}, "float64")
    return tide.gradients((sol.ys * weights):sum(), {y0, p, ts}), sol
  end

  it("agrees with discrete for y0, parameters, and all times", function()
    local a, b = gradients "discrete", gradients "backsolve"
    assert.close(a[1], b[1], 1e-8)
    assert.close(a[2], b[2], 1e-8)
    assert.close(a[3], b[3], 1e-6)
    assert.are.same(a[1]:totable(), gradients("discrete")[1]:totable())
  end)

  it("approaches it with the tolerance, whatever the forward one", function()
    local exact = gradients("discrete")[2]
    local function gap(o) return (gradients("backsolve", o)[2] - exact):abs():max():item() end
    local loose = gap {adjoint_rtol = 1e-3, adjoint_atol = 1e-3}
    local tight = gap {adjoint_rtol = 1e-9, adjoint_atol = 1e-9}
    assert.is_true(tight < 1e-6 and loose > 10 * tight)
  end)

  it("takes another method and other norms", function()
    local exact = gradients "discrete"
    for _, o in ipairs {
      {adjoint_method = "tsit5"}, {adjoint_norm = "rms"}, {adjoint_norm = "seminorm", norm = "max"},
      {adjoint_method = "rk4", step_size = 0.01},
    } do
      assert.close(gradients("backsolve", o)[2], exact[2], 1e-6)
    end
  end)

  it("\"adjoint\" is another name for it", function()
    assert.are.same(gradients("backsolve")[2]:totable(), gradients("adjoint")[2]:totable())
  end)

  it("counts what it evaluates", function()
    local calls, p = 0, leaf(1.1, 0.8)
    local f, ts = wavy(p), tide.tensor({0, 0.5, 1}, "float64"):requires_grad()
    local sol = ode.solve(function(t, y)
      calls = calls + 1
      return f(t, y)
    end, leaf(0.7, -0.4), ts, {grad = "backsolve"})
    calls = 0
    sol.ys:sum():backward()
    assert.is_true(calls > 10)
    assert.are.equal(calls, sol.stats.nfe_b)
  end)

  it("works backwards in time", function()
    local function run(mode)
      local y0, p = leaf(0.7, -0.4), leaf(1.1, 0.8)
      local sol = ode.solve(wavy(p), y0, {1.5, 0.7, 0}, {grad = mode, rtol = 1e-10, atol = 1e-10})
      return tide.gradients(sol.ys:sum(), {y0, p})
    end
    local a, b = run "discrete", run "backsolve"
    assert.close(a[1], b[1], 1e-8)
    assert.close(a[2], b[2], 1e-8)
  end)

  it("fails loudly when the backward solve does", function()
    local y0, p = leaf(1), leaf(1)
    local sum = ode.solve(function(_, y) return (y * 30 * p):sin() * 5 end, y0, {0, 1},
      {grad = "backsolve", rtol = 1e-2, atol = 1e-2, adjoint_rtol = 1e-13, adjoint_atol = 1e-13,
        max_steps = 200}).last:sum()
    assert.fails_here(function() sum:backward() end, "ode.solve: the backward solve failed: the step limit",
      "adjoint_rtol",
      "discrete")
    assert.is_nil(y0.grad)
  end)

  it("of float32 gives float32 gradients of parameters of any type", function()
    local y0, p = tide.tensor({0.7, -0.4}):requires_grad(), leaf(1.1, 0.8)
    for _, mode in ipairs {"discrete", "backsolve"} do
      local sol = ode.solve(function(_, y) return (y * p):sin() end, y0, {0, 1}, {grad = mode, rtol = 1e-5})
      local g = tide.gradients(sol.last:sum(), {y0, p})
      assert.are.equal("float32", g[1].dtype)
      assert.are.equal("float64", g[2].dtype)
    end
  end)
end)

describe("the frozen mode", function()
  it("keeps the cotangent: dL/dy0 is dL/dy1, and parameters get the integral of (∂f/∂p)ᵀ dL/dy1", function()
    local y0, p = leaf(0.7, -0.4), leaf(1.1, 0.8)
    local f, w = wavy(p), vector(0.3, -1.2)
    local sol = ode.solve(f, y0, {0, 1.2}, {grad = "frozen", rtol = 1e-10, atol = 1e-11})
    local got = tide.gradients((sol.last * w):sum(), {y0, p})
    assert.close(got[1], w, 1e-12)
    local path = tide.no_grad(ode.solve, f, y0, numbers(0, 200, 1.2 / 200), {rtol = 1e-12, atol = 1e-12})
    local sum = tide.zeros({2}, "float64")
    for i = 0, 200 do  -- Simpson
      local weight = (i == 0 or i == 200) and 1 or i % 2 == 1 and 4 or 2
      local dp = tide.gradients((f(tide.tensor(1.2 * i / 200, "float64"), path.ys[i + 1]:detach()) * w):sum(),
        {p})[1]
      sum = sum + dp * (weight * 1.2 / 600)
    end
    assert.close(got[2], sum, 1e-8)
    local exact = tide.gradients((ode.solve(f, y0, {0, 1.2}).last * w):sum(), {y0, p})
    assert.is_true((exact[1] - got[1]):abs():max():item() > 0.05)
    assert.is_true((exact[2] - got[2]):abs():max():item() > 0.05)
  end)
end)

-- ---- Higher derivatives, nesting ----

describe("second derivatives", function()
  it("through a solve equal central differences, for y0, parameters and times", function()
    for _, name in ipairs {"euler", "rk4", "bosh3", "dopri5", "tsit5"} do
      assert.is_true(tide.gradcheck(function(y0, p)
        return ode.solve(wavy(p), y0, {0, 0.15, 0.4}, {method = name, step_size = 0.2}).ys
      end, {vector(0.7, -0.4), vector(1.1, 0.8)}))
    end
  end)

  it("equal those of the same steps in Lua, times included", function()
    local function hessian_row(solve_on)
      local y0, p, ts = leaf(0.7, -0.4), leaf(1.1, 0.8), tide.tensor({0, 0.4, 1}, "float64"):requires_grad()
      local loss = (solve_on(wavy(p), y0, ts) ^ 2):sum()
      local g = tide.gradients(loss, {y0, p, ts}, {create_graph = true})
      return tide.gradients(g[1]:sum() + (g[2] * vector(2, -1)):sum() + (g[3] * vector(1, 2, 3)):sum(),
        {y0, p, ts})
    end
    local grid
    local got = hessian_row(function(f, y0, ts)
      local sol = ode.solve(f, y0, ts, options_of "dopri5")
      grid = sol.grid
      return sol.ys
    end)
    local expected = hessian_row(function(f, y0, ts)
      return rk.on_grid(ode.methods.dopri5, f, y0, grid, ts)
    end)
    for i = 1, 3 do assert.close(got[i], expected[i], 1e-11) end
  end)

  it("form a symmetric Hessian, the same by Hessian-vector products", function()
    local function loss(v)
      local p = v:narrow(1, 3, 4)
      local sol = ode.solve(lotka(p), v:narrow(1, 1, 2), {0, 1, 2}, {method = "dopri5", rtol = 1e-6,
        atol = 1e-6})
      return ((1 - sol.ys) ^ 2):sum()
    end
    local v, rows = leaf(1, 1, 1.5, 1, 3, 1), {}
    local g = tide.gradients(loss(v), {v}, {create_graph = true})[1]
    for i = 1, 6 do rows[i] = tide.gradients(g[i], {v}, {retain_graph = true})[1] end
    local h = tide.stack(rows, 1)
    assert.close(h, h:transpose(1, 2), 1e-11)
    local _, product = tide.hvp(loss, v:detach(), vector(1, -1, 2, 0, 0.5, 3))
    assert.close(product, h:matmul(vector(1, -1, 2, 0, 0.5, 3)), 1e-11)
  end)

  it("tangents and cotangents agree: ⟨w, Jv⟩ = ⟨Jᵀw, v⟩", function()
    local f = function(y0, p) return ode.solve(wavy(p), y0, {0, 0.5, 1.3}, {method = "tsit5"}).ys end
    local y0, p, dy, dp = vector(0.7, -0.4), vector(1.1, 0.8), vector(0.2, 0.9), vector(-1, 0.4)
    local _, tangent = tide.jvp(f, {y0, p}, {dy, dp})
    local w = tide.generator(2):randn({3, 2}, "float64")
    local _, pull = tide.vjp(f, y0, p)
    local gy, gp = pull(w)
    assert.close((w * tangent):sum(), (gy * dy):sum() + (gp * dp):sum(), 1e-13)
  end)

  it("are refused in the continuous modes", function()
    for _, mode in ipairs {"backsolve", "frozen"} do
      local y0 = leaf(1)
      local sum = ode.solve(function(_, y) return y:sin() end, y0, {0, 1}, {grad = mode}).last:sum()
      assert.fails_here(function() tide.gradients(sum, {y0}, {create_graph = true}) end,
        "a second derivative of a solve needs grad = \"discrete\"")
    end
  end)
end)

describe("solves in a right-hand side", function()
  -- The inner solve's result enters the outer field; twice written: through ode.solve and through Lua steps.
  local function nested(p, solver)
    local function f(t, y)
      local inner = solver(function(s, z) return (z * p[2] + s):cos() end, y, {0, 0.5}, "rk4", 0.25)
      return inner * p[1] * t:cos()
    end
    return solver(f, vector(0.4), {0, 1}, "rk4", 0.2)
  end
  local function by_solve(f, y, times, method, size)
    return ode.solve(f, y, times, {method = method, step_size = size}).last
  end
  local function by_steps(f, y, times, method, size)
    local grid = {}
    for i = 0, math.floor((times[2] - times[1]) / size + 0.5) do grid[i + 1] = times[1] + i * size end
    return rk.on_grid(ode.methods[method], f, y, grid, tide.tensor(times, "float64"))[2]
  end

  it("get first and second derivatives through both", function()
    local p = leaf(0.8, 1.2)
    local results = {}
    for i, solver in ipairs {by_solve, by_steps} do
      local g = tide.gradients(nested(p, solver):sum(), {p}, {create_graph = true})[1]
      results[i] = {g, tide.gradients((g * vector(1, 3)):sum(), {p})[1]}
    end
    assert.close(results[1][1], results[2][1], 1e-13)
    assert.close(results[1][2], results[2][2], 1e-12)
  end)

  it("may use the gradient of an energy", function()
    local k = leaf(2)
    local function f(_, s)
      local q, v = s:narrow(1, 1, 1), s:narrow(1, 2, 1)
      local force = tide.grad(function(x) return (k * x * x / 2 + x ^ 4 / 4):sum() end)(q)
      return tide.cat({v, -force}, 1)
    end
    local function g(_, s)
      local q, v = s:narrow(1, 1, 1), s:narrow(1, 2, 1)
      return tide.cat({v, -(k * q + q ^ 3)}, 1)
    end
    local function run(field, mode)
      local s0 = leaf(1, 0.2)
      local sol = ode.solve(field, s0, {0, 1, 3}, {grad = mode, rtol = 1e-8, atol = 1e-8})
      return tide.gradients(sol.ys:sum(), {s0, k})
    end
    for _, mode in ipairs {"discrete", "backsolve"} do
      local a, b = run(f, mode), run(g, mode)
      assert.close(a[1], b[1], 1e-9)
      assert.close(a[2], b[2], 1e-9)
    end
  end)
end)

-- ---- What must not go wrong in silence ----

describe("a gradient that would be lost", function()
  local function late(p, at) return function(t, y) return t:item() < at and -y or -y * p end end

  it("of a parameter that appears only later raises, in every mode and order", function()
    for _, mode in ipairs {"discrete", "backsolve"} do
      local y0, p = leaf(1), leaf(2)
      local sum = ode.solve(late(p, 0.5), y0, {0, 1}, {grad = mode}).last:sum()
      assert.fails_here(function() sum:backward() end, "ode.solve: ", "shape (1)", "but not at the start",
        "params")
    end
    local y0, p = leaf(1), leaf(2)
    local sum = ode.solve(late(p, 0.5), y0, {0, 1}).last:sum()
    assert.fails_here(function() tide.gradients(sum, {y0}, {create_graph = true}) end, "but not at the start",
      "params")
  end)

  it("is found when params names the parameter", function()
    for _, mode in ipairs {"discrete", "backsolve"} do
      local y0, p = leaf(1), leaf(2)
      local sol = ode.solve(late(p, 0.5), y0, {0, 0.5, 1}, {grad = mode, params = {p}, land = true,
        rtol = 1e-9, atol = 1e-9})
      sol.last:sum():backward()
      assert.close(p.grad, {-0.5 * math.exp(-1.5)}, 1e-6)
      assert.close(y0.grad, {math.exp(-1.5)}, 1e-6)
    end
  end)

  it("because a parameter was stepped between the solve and its backward raises", function()
    for _, shape in ipairs {{2}, {100, 100}} do
      for _, mode in ipairs {"discrete", "backsolve"} do
        local p = tide.ones(shape, "float64"):requires_grad()
        local sum = ode.solve(function(_, y) return -y * (p * p):mean() end, leaf(1), {0, 1},
          {grad = mode}).last:sum()
        tide.no_grad(function() p:mul_(1.5) end)
        assert.fails_here(function() sum:backward() end, "was written in place after the solve")
      end
    end
  end)

  it("because the start was written raises", function()
    local y0 = leaf(1, 2)
    local sum = ode.solve(function(_, y) return y:sin() end, y0, {0, 1}).last:sum()
    tide.no_grad(function() y0:mul_(2) end)
    assert.has_error(function() sum:backward() end)
  end)
end)

-- ---- Memory ----

describe("memory", function()
  local states = 400000 * 8

  -- What a solve holds for its backward pass and the most that both take, in states.
  local function held_and_peak(mode, steps)
    local y0 = tide.ones({400000}, "float64"):requires_grad()
    local function solve(step)
      return ode.solve(function(_, y) return -y end, y0, {0, 1}, {method = "rk4", step_size = step, grad = mode})
    end
    solve(1).last:sum():backward()  -- its programs take the place of others that were kept
    helper.live()
    local before = tide.memory("reset").live
    local sol = solve(1 / steps)
    local held = helper.live() - before
    sol.last:sum():backward()
    return held / states, (tide.memory().peak - before) / states
  end

  it("for a backsolve does not grow with the number of steps", function()
    local few, few_peak = held_and_peak("backsolve", 40)
    local many, many_peak = held_and_peak("backsolve", 120)
    assert.is_true(math.abs(many - few) < 0.1)
    assert.is_true(many_peak < 1.2 * few_peak)
  end)

  it("of a step without its state is some fifty bytes, its time in the grid included", function()
    local y0 = tide.ones({1000}, "float64"):requires_grad()
    local function peak(steps, o)
      local function work()
        ode.solve(function(_, y) return -y end, y0, {0, 1}, {method = "rk4", step_size = 1 / steps, grad = o.grad,
          checkpoints = o.checkpoints}).last:sum():backward()
      end
      work()
      helper.live()
      local before = tide.memory("reset").live
      work()
      return tide.memory().peak - before
    end
    for _, o in ipairs {{grad = "backsolve"}, {grad = "discrete", checkpoints = 4}} do
      assert.is_true(peak(1000, o) - peak(10, o) < 54 * 990)
    end
  end)

  it("held for the discrete gradient grows by one state a step", function()
    local few, many = held_and_peak("discrete", 20), held_and_peak("discrete", 70)
    assert.close((many - few) / 50, 1, 0.15)  -- blocks come in classes of sizes
  end)

  it("returns to where it was", function()
    local net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))
    local y0 = tide.randn({4, 3})
    local function once(mode)
      local sol = ode.solve(function(_, y) return net(y) end, y0, {0, 0.5, 1}, {grad = mode, rtol = 1e-3})
      sol.ys:sum():backward()
      net:zero_grad()
    end
    for _, mode in ipairs {"discrete", "backsolve", "frozen"} do
      for _ = 1, 15 do once(mode) end  -- until all is written that is kept for further solves
      local before = helper.live()
      for _ = 1, 5 do once(mode) end
      assert.are.equal(before, helper.live())
    end
  end)
end)

describe("a network", function()
  it("has the gradient of central differences, in float64", function()
    local net = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 2)):to "float64"
    local y0 = tide.generator(1):randn({5, 2}, "float64")
    local function loss()
      return ode.solve(function(t, y) return net(y) * t:cos() end, y0, {0, 0.6, 1},
        {method = "dopri5", step_size = 0.2}).ys:sin():sum()
    end
    loss():backward()
    for _, p in ipairs(net:parameters()) do
      local flat, grad = p:detach():reshape(-1), p.grad:reshape(-1)
      for i = 1, p.numel, 3 do
        local function at(delta)
          tide.no_grad(function() flat[i] = flat[i]:item() + delta end)
          local value = tide.no_grad(loss):item()
          tide.no_grad(function() flat[i] = flat[i]:item() - delta end)
          return value
        end
        assert.close(grad[i], (at(1e-6) - at(-1e-6)) / 2e-6, 1e-7)
      end
    end
  end)
end)

for _, mode in ipairs {"interp", "gauss"} do
  describe(mode, function()
    it("agrees with discrete as the tolerances go down, for y0, parameters and times", function()
      local function run(grad, rtol)
        local y0, p, ts = leaf(0.7, -0.4), leaf(1.1, 0.8), leaf(0, 0.4, 0.4, 1, 1.5)
        local sol = ode.solve(wavy(p), y0, ts, {method = "dopri5", rtol = rtol, atol = rtol, grad = grad})
        return tide.gradients((sol.ys * tide.generator(9):randn({5, 2}, "float64")):sum(), {y0, p, ts}), sol
      end
      local exact = run("discrete", 1e-11)
      local loose, tight = run(mode, 1e-4), run(mode, 1e-9)
      local sol = select(2, run(mode, 1e-6))
      for i = 1, 3 do
        assert.close(tight[i], exact[i], 1e-6)
        assert.is_true((loose[i] - exact[i]):abs():max():item() > (tight[i] - exact[i]):abs():max():item())
      end
      assert.is_true(sol.stats.nfe_b > 0)
    end)

    it("is right where the state cannot be integrated backwards, and backsolve is not", function()
      local function run(grad)
        local y0, k = leaf(1.5), leaf(40)
        local sol = ode.solve(function(t, y) return -k * (y - t:cos()) end, y0, {0, 1}, {grad = grad, rtol = 1e-7,
          atol = 1e-9, throw = false})
        local ok, g = pcall(tide.gradients, sol.last:sum(), {y0, k})
        return ok and g
      end
      local exact, interp, back = run "discrete", run(mode), run "backsolve"
      assert.close(interp[2], exact[2], 1e-6)
      assert.is_true(not back or (back[2] - exact[2]):abs():item() > 10 * (interp[2] - exact[2]):abs():item())
    end)
  end)
end

describe("full", function()
  it("is discrete with nothing thrown away", function()
    local y0 = leaf(0.7)
    local sol = ode.solve(function(t, y) return y * t:cos() end, y0, {0, 3}, {grad = "full", memory = 1})
    sol.last:sum():backward()
    assert.are.equal(0, sol.stats.replayed)
    assert.close(y0.grad, {math.exp(math.sin(3))}, 1e-4)
  end)
end)
