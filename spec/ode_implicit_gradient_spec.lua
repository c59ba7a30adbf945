-- Gradients through implicit and symplectic methods: the exact derivative of the steps taken.

local tide = require "tide"
local helper = require "spec.helper"
local fields = require "spec.support.fields"
local ode = tide.ode

local vector, leaf, wavy, swing = fields.vector, fields.leaf, fields.wavy, fields.swing

local weights = {{0.3, -0.2}, {0.5, 0.1}, {-0.4, 0.6}, {1, 0.7}}
local times = {0, 0.31, 0.5, 0.93, 1.2}

-- The loss at y0, p and times; step_size fixes the grid, and only the last step moves with the last time.
local function loss_of(field, options, y0, p, t)
  local ys = ode.solve(field(p), y0, t, options).ys
  return (ys:narrow(1, 2, 4) * tide.tensor(weights, "float64")):sum()
end

local function central(f, h) return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h) end

local function assert_exact(field, options, tolerance)
  local y0, p, t = leaf(0.7, 0.4), leaf(1.1, 0.8), leaf(unpack(times))
  loss_of(field, options, y0, p, t):backward()
  local function compare(x, place, got)
    local fd = central(function(h)
      local moved = {y0 = vector(0.7, 0.4), p = vector(1.1, 0.8), t = vector(unpack(times))}
      moved[x][place] = moved[x][place] + h
      return loss_of(field, options, moved.y0, moved.p, moved.t):item()
    end, 1e-3)
    local off = math.abs(fd - got) / (math.abs(fd) + 1e-2)
    assert.is_true(off < tolerance, ("d/d%s[%d] is %.12g, by differences %.12g"):format(x, place, got, fd))
  end
  for i = 1, 2 do
    compare("y0", i, y0.grad[i]:item())
    compare("p", i, p.grad[i]:item())
  end
  for i = 2, #times do compare("t", i, t.grad[i]:item()) end
end

local names = {}
for name, m in pairs(ode.methods) do
  if m.stiff and m.family ~= "exponential" then names[#names + 1] = name end
end
table.sort(names)

describe("the discrete gradient of an implicit method", function()
  for _, name in ipairs(names) do
    it("by " .. name .. " equals differences of the same steps", function()
      assert_exact(wavy, {method = name, step_size = 0.17, rtol = 1e-13, atol = 1e-14}, 1e-9)
    end)
  end

  it("does not depend on the method in the limit, on Robertson's problem", function()
    local function robertson(k)
      return function(_, y)
        local a = -y[1] * k[1] + y[2] * y[3] * k[2]
        local c = y[2] * y[2] * k[3]
        return tide.stack({a, -a - c, c})
      end
    end
    local function gradient(method)
      local k = leaf(0.04, 1e4, 3e7)
      local sol = ode.solve(robertson(k), vector(1, 0, 0), {0, 40}, {method = method, rtol = 1e-8, atol = 1e-12})
      sol.last[1]:backward()
      return k.grad * vector(0.04, 1e4, 3e7)
    end
    local truth = gradient("rodas5p")
    for _, name in ipairs {"radau5", "kvaerno5", "bdf"} do assert.close(gradient(name), truth, 1e-5) end
  end)

  it("of float32 states agrees with float64", function()
    for _, name in ipairs {"rodas4", "kvaerno3", "radau5", "bdf"} do
      local grads = {}
      for i, dtype in ipairs {"float32", "float64"} do
        local y0 = tide.tensor({0.7, 0.4, 0.1}, dtype):requires_grad()
        local sol = ode.solve(function(t, y) return (y * 2):sin() * t:cos() - y ^ 3 end, y0, {0, 0.4, 1},
          {method = name, rtol = 1e-4, atol = 1e-5})
        sol.ys:sum():backward()
        grads[i] = y0.grad:to "float64"
      end
      assert.close(grads[1], grads[2], 3e-3)
    end
  end)

  it("under a small budget of checkpoints is the same", function()
    local function gradient(name, slots)
      local y0 = leaf(0.7, 0.4)
      loss_of(wavy, {method = name, rtol = 1e-5, atol = 1e-7, checkpoints = slots or 0}, y0, vector(1.1, 0.8), times)
        :backward()
      return y0.grad
    end
    for _, name in ipairs {"rodas5p", "kvaerno4", "radau5", "bdf"} do
      assert.close(gradient(name, 3), gradient(name), 1e-12)
    end
  end)
end)

describe("Adams methods", function()
  for _, case in ipairs {
    {"explicit_adams", 1}, {"explicit_adams", 2}, {"explicit_adams", 4}, {"implicit_adams", 1}, {"implicit_adams", 2},
    {"implicit_adams", 4}, {"abm", 1}, {"abm", 12},
  } do
    local name, order = unpack(case)
    it(("%s, max_order %d: the discrete gradient equals differences of the same steps"):format(name, order), function()
      assert_exact(wavy, {method = name, max_order = order, step_size = 0.17, rtol = 1e-4}, 1e-9)
    end)
  end

  local function mixed(t, y)
    return {y[1] * y[1] * math.cos(t) + 0.3 * y[2] * math.sin(2 * t), -y[1] * y[2] + math.cos(3 * t)}
  end
  local exact = ode.solve(mixed, {0.7, 0.4}, {0, 2}, {method = "tsit5", rtol = 1e-13, atol = 1e-14}).last
  local function distance(y) return math.sqrt((y[1] - exact[1]) ^ 2 + (y[2] - exact[2]) ^ 2) end

  for _, name in ipairs {"explicit_adams", "implicit_adams"} do
    it(name .. " has the order that max_order says", function()
      for _, order in ipairs {1, 2, 3, 4, 6} do
        local function err(n)
          return distance(ode.solve(mixed, {0.7, 0.4}, {0, 2},
            {method = name, max_order = order, step_size = 2 / n}).last)
        end
        local n = order > 5 and 80 or 160
        local slope = math.log(err(n) / err(2 * n)) / math.log(2)
        assert.is_true(slope > order - 0.5, ("order %d, slope %.2f"):format(order, slope))
      end
    end)
  end

  -- The newest slope's weight of order k on equal steps is Σ γ_m, m < k, with Σ_j γ_j/(m + 1 − j) = 1.
  it("on equal steps have the classical weights, up to order 12", function()
    local gamma = {[0] = 1}
    for m = 1, 11 do
      gamma[m] = 1
      for j = 0, m - 1 do gamma[m] = gamma[m] - gamma[j] / (m + 1 - j) end
    end
    for order = 1, 12 do
      -- y' = t^(order − 1) is integrated exactly, and the weights act on slopes alone, so one solve tells them apart.
      local sol = ode.solve(function(t) return t ^ (order - 1) end, 0, {0, 2}, {method = "explicit_adams",
        max_order = order, step_size = 0.1})
      assert.close(sol.last, 2 ^ order / order, 1e-11 * 2 ^ order)
      local sum = 0
      for m = 0, order - 1 do sum = sum + gamma[m] end
      local impulse = ode.solve(function(t) return math.abs(t - 1.9) < 1e-6 and 1 or 0 end, 0, {0, 2},
        {method = "explicit_adams", max_order = order, step_size = 0.1})
      assert.close(impulse.last / 0.1, sum, 1e-9)
    end
  end)

  it("abm follows the tolerance with few evaluations", function()
    local function err(rtol)
      local sol = ode.solve(mixed, {0.7, 0.4}, {0, 2}, {method = "abm", rtol = rtol, atol = rtol})
      return distance(sol.last), sol.stats.nfe
    end
    for _, rtol in ipairs {1e-4, 1e-7, 1e-10} do
      local off, nfe = err(rtol)
      assert.is_true(off < 200 * rtol and nfe < 500, ("%.2g at %g in %d"):format(off, rtol, nfe))
    end
  end)
end)

describe("exponential methods", function()
  local diagonal = vector(-6, -3)
  local matrix = tide.tensor({{-6, 1}, {0.5, -3}}, "float64")
  local function semilinear(p)
    return function(t, y) return matrix:matmul(y) + (y * p):sin() * (t * 1.3):cos() + p:sum() * t * 0.2 end
  end

  for _, name in ipairs {"etd1", "etdrk2", "etdrk3", "etdrk4", "krogstad4"} do
    for kind, linear in pairs {diagonal = diagonal, matrix = matrix} do
      it(("%s with a %s: the discrete gradient equals differences of the same steps"):format(name, kind), function()
        assert_exact(semilinear, {method = name, step_size = 0.17, linear = linear}, 1e-9)
      end)

      it(("%s with a %s has its order"):format(name, kind), function()
        local f, y0 = semilinear(vector(1.1, 0.8)), vector(0.7, 0.4)
        local exact = ode.solve(f, y0, {0, 1}, {method = "radau5", rtol = 1e-12, atol = 1e-13}).last
        local function err(n)
          local sol = ode.solve(f, y0, {0, 1}, {method = name, step_size = 1 / n, linear = linear})
          return (sol.last - exact):norm():item()
        end
        local order, slope = ode.methods[name].order, math.log(err(20) / err(80)) / math.log(4)
        assert.is_true(math.abs(slope - order) < 0.35, ("slope %.2f"):format(slope))
      end)
    end
  end

  it("are exact where f is linear, however large", function()
    local l = tide.tensor({{-1e4, 3}, {1, -0.5}}, "float64")
    local exact = (l * 2):matrix_exp():matmul(vector(1, 2))
    for _, name in ipairs {"etd1", "etdrk2", "etdrk3", "etdrk4", "krogstad4", "exprb32"} do
      local sol = ode.solve(function(_, y) return l:matmul(y) end, vector(1, 2), {0, 1, 2},
        {method = name, linear = l, step_size = 0.5})
      assert.close(sol.last, exact, 1e-9)
    end
  end)

  it("exprb32 is adaptive and of order three, and refuses the gradient it has not", function()
    local f, y0 = semilinear(vector(1.1, 0.8)), leaf(0.7, 0.4)
    local exact = ode.solve(f, y0:detach(), {0, 1}, {method = "radau5", rtol = 1e-12, atol = 1e-13}).last
    local sol = ode.solve(f, y0, {0, 1}, {method = "exprb32", rtol = 1e-7, atol = 1e-9})
    assert.close(sol.last:detach(), exact, 1e-6)
    assert.fails_here(function() sol.last:sum():backward() end, "ode.solve", "no discrete gradient", "etdrk4")
    local function err(n)
      return (ode.solve(f, y0:detach(), {0, 1}, {method = "exprb32", step_size = 1 / n}).last - exact):norm():item()
    end
    assert.is_true(math.abs(math.log(err(20) / err(80)) / math.log(4) - 3) < 0.35)
  end)

  it("want the linear part, of the right size, and constant", function()
    local function refused(linear, part)
      assert.fails_here(function()
        ode.solve(function(_, y) return -y end, vector(1, 2), {0, 1}, {method = "etdrk4", step_size = 0.1,
          linear = linear})
      end, "ode.solve", part)
    end
    refused(nil, "needs the option linear")
    refused(vector(1, 2, 3), "linear has shape (3)")
    refused(leaf(1, 2), "counts as a constant")
  end)
end)

describe("the discrete gradient of a symplectic method", function()
  for _, name in ipairs {"verlet", "yoshida4", "yoshida6", "yoshida8"} do
    it("by " .. name .. " equals differences of the same steps", function()
      assert_exact(swing, {method = name, step_size = 0.17}, 1e-9)
    end)
  end
end)

describe("reversible schemes", function()
  local schemes = {
    {method = "alf"}, {method = "alf_damped"}, {method = "reversible_heun"},
    {method = "mccallum_foster", base = "rk4"}, {method = "mccallum_foster", base = "tsit5", coupling = 0.99},
  }
  local function options_of(scheme, more)
    local o = {}
    for k, v in pairs(scheme) do o[k] = v end
    for k, v in pairs(more) do o[k] = v end
    return o
  end
  local function gradients(scheme, more)
    local y0, p, t = leaf(0.7, 0.4), leaf(1.1, 0.8), leaf(unpack(times))
    loss_of(wavy, options_of(scheme, more), y0, p, t):backward()
    return tide.cat({y0.grad, p.grad, t.grad}, 1)
  end

  for _, scheme in ipairs(schemes) do
    local name = scheme.method .. (scheme.base and " over " .. scheme.base or "")

    it(name .. ": the discrete gradient equals differences of the same steps", function()
      assert_exact(wavy, options_of(scheme, {step_size = 0.17}), 1e-9)
    end)

    it(name .. ": states rebuilt backwards give the gradient of stored ones, at fixed and at adaptive steps", function()
      assert.close(gradients(scheme, {step_size = 0.05, grad = "reversible"}), gradients(scheme, {step_size = 0.05}),
        1e-12)
      if scheme.base ~= "rk4" and scheme.method ~= "alf_damped" then  -- damping forward amplifies backwards
        local o = {rtol = 1e-4, atol = 1e-6}
        local stored = gradients(scheme, o)
        o.grad = "reversible"
        assert.close(gradients(scheme, o), stored, 1e-9)
      end
    end)

    it(name .. " has its order", function()
      local function f(t, y) return y * y * math.cos(t) end
      local exact = 1 / (1 / 0.7 - math.sin(1))
      local function err(n)
        return math.abs(ode.solve(f, 0.7, {0, 1}, options_of(scheme, {step_size = 1 / n})).last - exact)
      end
      local order = ({alf = 2, alf_damped = 1, reversible_heun = 2, rk4 = 4, tsit5 = 5})[scheme.base or scheme.method]
      local n = order > 2 and 8 or 100
      local slope = math.log(err(n) / err(4 * n)) / math.log(4)
      assert.is_true(slope > order - 0.4 and slope < order + (order > 2 and 1.5 or 0.4), ("slope %.2f"):format(slope))
    end)
  end

  it("call f once a step and once at the start", function()
    for _, method in ipairs {"alf", "reversible_heun"} do
      local calls = 0
      ode.solve(function(_, y)
        calls = calls + 1
        return -y
      end, 1, {0, 1}, {method = method, step_size = 0.1})
      assert.are.equal(11, calls)
    end
  end)

  it("keep no state but the last", function()
    local function peak(grad)
      local y0 = tide.ones({20000}, "float64"):requires_grad()
      local before = helper.live()  -- a solve may collect others' garbage, which must not count
      local sol = ode.solve(function(_, y) return -y end, y0, {0, 1}, {method = "alf", step_size = 0.01, grad = grad})
      local held = tide.memory().live - before
      sol.last:sum():backward()
      return held
    end
    assert.is_true(peak("discrete") > 100 * 160000)
    assert.is_true(peak("reversible") < 12 * 160000)
  end)

  it("need a reversible method, and a base with an estimate for adaptive steps", function()
    local y0 = leaf(1)
    local function refused(o, part)
      assert.fails_here(function() ode.solve(function(_, y) return -y end, y0, {0, 1}, o) end, "ode.solve", part)
    end
    refused({method = "tsit5", grad = "reversible"}, "needs a reversible method")
    refused({method = "mccallum_foster", base = "rk4"}, "has no error estimate")
    refused({method = "mccallum_foster", base = "bdf"}, "is not an explicit")
  end)
end)

-- ---- Second derivatives ----

describe("second derivatives without a step on the tape", function()
  local all = {}
  for name, m in pairs(ode.methods) do
    if not m.a and name ~= "exprb32" then all[#all + 1] = name end
  end
  table.sort(all)

  for _, name in ipairs(all) do
    local family = ode.methods[name].family
    it("by " .. name .. " equal central differences", function()
      assert.is_true(tide.gradcheck(function(y0, p)
        local field = (family == "symplectic" and swing or wavy)(p)
        return ode.solve(field, y0, {0, 0.15, 0.4}, {method = name, step_size = 0.2, rtol = 1e-12, atol = 1e-12,
          linear = family == "exponential" and vector(-0.3, -0.1) or nil}).ys
      end, {vector(0.7, -0.4), vector(1.1, 0.8)}))
    end)
  end

  it("form a symmetric Hessian on an adaptive grid, and take the tangents of jvp", function()
    for _, name in ipairs {"kvaerno5", "rodas5p", "bdf", "abm"} do
      local function loss(v)
        return (ode.solve(wavy(v:narrow(1, 3, 2)), v:narrow(1, 1, 2), {0, 1, 2}, {method = name,
          rtol = 1e-6}).ys ^ 2):sum()
      end
      local v, rows = leaf(0.7, -0.4, 1.1, 0.8), {}
      local g = tide.gradients(loss(v), {v}, {create_graph = true})[1]
      for i = 1, 4 do rows[i] = tide.gradients(g[i], {v}, {retain_graph = true})[1] end
      local h = tide.stack(rows, 1)
      assert.close(h, h:transpose(1, 2), 1e-9)
      local direction = vector(1, -1, 2, 0.5)
      local _, product = tide.hvp(loss, v:detach(), direction)
      assert.close(product, h:matmul(direction), 1e-9)
      local _, along = tide.jvp(loss, {v:detach()}, {direction})
      assert.close(along, (g:detach() * direction):sum(), 1e-10)
    end
  end)

  it("have derivatives themselves", function()
    for _, name in ipairs {"kvaerno4", "bdf"} do
      local function second(a)
        local p = leaf(a)
        local y = ode.solve(function(_, y) return -(y ^ 2) * p end, vector(1.3), {0, 1}, {method = name,
          step_size = 0.25,
          rtol = 1e-12, atol = 1e-13}).last:sum()
        local one = tide.gradients(y, {p}, {create_graph = true})[1]
        return tide.gradients(one:sum(), {p}, {create_graph = true})[1], p
      end
      local two, p = second(0.8)
      local three = tide.gradients(two:sum(), {p})[1]:item()
      local h = 1e-3
      local fd = ((second(0.8 + h)):item() - (second(0.8 - h)):item()) / (2 * h)
      assert.is_true(math.abs(three - fd) < 1e-5 * math.abs(fd), ("%s: %.9g, by differences %.9g"):format(name, three,
        fd))
    end
  end)

  it("by times are refused", function()
    local t = leaf(0, 1)
    local sum = ode.solve(wavy(vector(1.1, 0.8)), vector(0.7, 0.4), t, {method = "kvaerno4"}).last:sum()
    assert.fails_here(function() tide.gradients(sum, {t}, {create_graph = true}) end, "no second derivatives by times")
  end)
end)
