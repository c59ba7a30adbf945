-- Derivatives as functions, operations of one's own, and the checker.

local helper = require "spec.helper"
local tide = require "tide"

local function t64(values) return tide.tensor(values, "float64") end

describe("grad", function()
  it("gives the gradient for each tensor argument", function()
    local f = function(a, k, b) return (a * b * k):sum() end
    local ga, gb = tide.grad(f)(t64 {1, 2}, 10, t64 {3, 4})
    assert.close(ga, {30, 40}, 0)
    assert.close(gb, {10, 20}, 0)
    assert.close(tide.grad(f, {wrt = {3}})(t64 {1, 2}, 10, t64 {3, 4}), {10, 20}, 0)
    local v, g = tide.value_and_grad(f, {wrt = {1}})(t64 {1, 2}, 10, t64 {3, 4})
    assert.close(v, 110, 0)
    assert.close(g, {30, 40}, 0)
  end)

  it("of what does not matter is zeros", function()
    local _, gb = tide.grad(function(a) return a:sum() end)(t64 {1}, t64 {2})
    assert.close(gb, {0}, 0)
  end)

  it("nests to third and fourth derivatives", function()
    local x = t64 {0.3, -1, 2}
    local f = function(u) return u:sin() end
    local function slope(g) return function(u) return tide.grad(function(v) return g(v):sum() end)(u) end end
    local third = slope(slope(slope(f)))
    assert.close(third(x), -x:cos(), 1e-15)
    assert.close(slope(third)(x), x:sin(), 1e-15)
  end)

  it("mixes with what the function closes over", function()
    local w = t64 {2}:requires_grad()
    local g = tide.grad(function(x) return (x * x * w):sum() end)(t64 {3})
    assert.close(g, {12}, 0)
    g:sum():backward()
    assert.close(w.grad, {6}, 0)
    local inner = tide.grad(function(x)
      return (tide.grad(function(y) return (x * y * y):sum() end)(t64 {5}) * x):sum()
    end)(t64 {3})
    assert.close(inner, {60}, 0)
  end)

  it("wants a function, one element, and real arguments", function()
    assert.fails_here(function() tide.grad(function(x) return x end)(t64 {1, 2}) end, "grad", "(2)",
      "one element")
    assert.fails_here(function() tide.grad(function() return 3 end)(t64 {1}) end, "grad", "number")
    assert.fails_here(function() tide.grad(function(x) return x end)(3) end, "grad", "no argument")
    assert.fails_here(function() tide.grad(function(x) return x end, {wrt = {2}})(t64 {1}, 5) end,
      "argument 2")
    assert.fails_here(function() tide.grad(print, {with = {1}}) end, "with", "wrt")
    assert.fails_here(function() tide.grad(3) end, "grad", "function")
    assert.is_true(tide.is_grad_enabled())
  end)
end)

-- f: R³ → R², with its Jacobian and the Hessian of its first result
local function f(x) return tide.stack({(x[1] * x[2]):sin() + x[3], x[1] * x[1] * x[3]}) end
local point = {0.5, 1.5, -2}
local function jacobian()
  local a, b, c = unpack(point)
  return {{b * math.cos(a * b), a * math.cos(a * b), 1}, {2 * a * c, 0, a * a}}
end

describe("vjp and jvp", function()
  it("are products with the Jacobian", function()
    local x, j = t64(point), t64(jacobian())
    local y, pull = tide.vjp(f, x)
    local u, v = t64 {2, -3}, t64 {1, 0.5, -1}
    assert.close(y:detach(), f(x), 0)
    assert.close(pull(u), u:matmul(j), 1e-14)
    assert.close(pull(u * 2), u:matmul(j) * 2, 1e-14)
    local y2, tangent = tide.jvp(f, x, v)
    assert.close(y2:detach(), f(x), 0)
    assert.close(tangent, j:matmul(v), 1e-14)
    local h = 1e-6
    assert.close(tangent, (f(x + v * h) - f(x - v * h)) / (2 * h), 1e-8)
  end)

  it("of several arguments, and of constants", function()
    local a, b = t64 {2}, t64 {3}
    local _, tangent = tide.jvp(function(x, y) return x * x * y end, {a, b}, {t64 {1}, t64 {10}})
    assert.close(tangent, {12 + 40}, 1e-14)
    local _, none = tide.jvp(function() return t64 {1, 2} end, a, t64 {1})
    assert.close(none, {0, 0}, 0)
    local _, linear = tide.jvp(function(x) return x * 3 end, a, t64 {5})
    assert.close(linear, {15}, 0)
    local _, pull = tide.vjp(function(x, y) return x * 2 + y * 0 end, a, b)
    local ga, gb = pull(t64 {1})
    assert.close(ga, {2}, 0)
    assert.close(gb, {0}, 0)
    assert.fails_here(function() tide.jvp(f, {a}, {}) end, "jvp", "0 tangents for 1 primals")
    assert.fails_here(function() tide.jvp(f, t64(point), t64 {1}) end, "(1)", "(3)")
    assert.fails_here(function() tide.vjp(function() return 1 end, a) end, "vjp", "number")
  end)
end)

describe("hvp", function()
  it("is the Hessian's product", function()
    local x, v = t64 {1, 2, 3}, t64 {1, -1, 0.5}
    local function g(u) return (u ^ 3):sum() + u[1] * u[2] end
    local y, h = tide.hvp(g, x, v)
    assert.close(y, 1 + 8 + 27 + 2, 1e-14)
    assert.close(h, {6 - 1, -12 + 1, 9}, 1e-14)
    local function slope(u) return (tide.grad(g)(u)) end
    assert.close(h, (slope(x + v * 1e-6) - slope(x - v * 1e-6)) / 2e-6, 1e-7)
  end)

  it("of a linear or constant function is zeros", function()
    local _, h = tide.hvp(function(u) return u:sum() end, t64 {1, 2}, t64 {1, 1})
    assert.close(h, {0, 0}, 0)
    _, h = tide.hvp(function() return t64(3) end, t64 {1, 2}, t64 {1, 1})
    assert.close(h, {0, 0}, 0)
  end)
end)

describe("a custom operation", function()
  local cube = tide.custom(function(ctx, x)
    ctx.x = x
    return x * x * x
  end, function(ctx, dy) return dy * ctx.x * ctx.x * 3 end)

  it("has the derivative that it says, and more when that is made of operations", function()
    local x = t64 {1, 2}:requires_grad()
    cube(x):sum():backward()
    assert.close(x.grad, {3, 12}, 0)
    assert.is_true(tide.gradcheck(cube, {t64 {0.5, -2}}))
    assert.is_false(cube(t64 {1}).needs_grad)
    assert.is_false(tide.no_grad(function() return cube(x) end).needs_grad)
  end)

  it("may have several operands and results, some unused", function()
    local op = tide.custom(function(_, a, k, b) return a * k, a + b, a * b end,
      function(_, d1, d2, d3)
        local ga = t64 {0}
        if d1 then ga = ga + d1 * 10 end
        if d2 then ga = ga + d2 end
        return ga, d2 or nil, d3 and error("not reached")
      end)
    local a, b = t64 {2}:requires_grad(), t64 {3}:requires_grad()
    local p, s = op(a, 10, b)
    ;(p + s * 2):backward()
    assert.close(a.grad, {12}, 0)
    assert.close(b.grad, {2}, 0)
  end)

  it("gives nil for an operand without gradient", function()
    local op = tide.custom(function(_, a, b) return a * b end, function(_, d) return nil, d end)
    local a, b = t64 {2}:requires_grad(), t64 {3}:requires_grad()
    local g = tide.gradients(op(a, b), {a, b})
    assert.is_false(g[1])
    assert.close(g[2], {1}, 0)
  end)

  it("that raises passes on its own error, message, object and calls", function()
    local function deeper() error("it broke") end
    local op = tide.custom(function(_, x) return x * 1 end, function() deeper() end)
    local x = t64 {1}:requires_grad()
    local y = op(x)
    local ok, e = pcall(function() y:backward() end)
    assert.is_false(ok)
    assert.is_truthy(e:find("^%S*derivatives_spec.lua:%d+: it broke\nin a callback:\n\t.*in deeper"), e)
    local thrown = {}
    local op2 = tide.custom(function(_, u) return u * 1 end, function() error(thrown) end)
    local ok2, e2 = pcall(function() op2(x):backward() end)
    assert.is_true(not ok2 and e2 == thrown)
    assert.is_true(tide.is_grad_enabled())
    local early = tide.custom(function() error("forward") end, print)
    assert.fails_here(function() early(x) end, "forward")
    assert.is_true(tide.is_grad_enabled())
    x.grad = nil
    ;(x * 2):backward()  -- usable afterwards
    assert.close(x.grad, {2}, 0)
  end)

  it("is told when its results are no gradients", function()
    local x = t64 {1, 2}:requires_grad()
    local function with(result)
      return function()
        tide.custom(function(_, u) return u * 1 end, function() return result end)(x):sum():backward()
      end
    end
    assert.fails_here(function() with(tide.ones(3))() end, "backward function", "(3)", "(2)")
    assert.fails_here(function() with("x")() end, "backward function", "\"x\"", "tensor or nil")
    assert.fails_here(function() tide.custom(function() return 1 end, print)(x) end, "custom", "number")
    assert.fails_here(function() tide.custom(function() return x, x, x, x, x end, print)(x) end, "5 results")
    assert.fails_here(function() tide.custom(print) end, "custom", "backward", "function")
  end)

  it("leaves nothing behind, whether it ends or raises", function()
    local before = helper.live()
    coroutine.wrap(function()  -- whose stack goes with it, and with what its dead slots hold
      for i = 1, 20 do
        local op = tide.custom(function(ctx, x) ctx.x = x return x * 2 end, function(ctx, dy)
          if i % 2 == 0 then error("no") end
          return dy * ctx.x
        end)
        local x = tide.ones(100):requires_grad()
        pcall(function() op(op(x)):sum():backward() end)
        pcall(function() tide.checkpoint(function(u) return op(u) end, x):sum():backward() end)
        pcall(tide.grad(function(u) return op(u):sum() end), x)
      end
    end)()
    assert.are.equal(before, helper.live())
  end)
end)

describe("gradcheck", function()
  it("finds a wrong first derivative", function()
    local wrong = tide.custom(function(ctx, x) ctx.x = x return x * x end, function(ctx,
      dy) return dy * ctx.x * 2.001 end)
    local ok, why = tide.gradcheck(wrong, {t64 {1, 2}}, {raise = false})
    assert.is_false(ok)
    assert.is_truthy(why:find("first order: argument 1, element %d: gradient .*, central difference"), why)
    assert.fails_here(function() tide.gradcheck(wrong, {t64 {1, 2}}) end, "gradcheck", "first order",
      "argument 1")
  end)

  it("finds a wrong second derivative", function()
    local wrong = tide.custom(function(ctx, x) ctx.x = x return x * x * x end,
      function(ctx, dy) return dy * (ctx.x * ctx.x * 3):detach() end)
    local ok, why = tide.gradcheck(wrong, {t64 {1, 2}}, {raise = false})
    assert.is_false(ok)
    assert.is_truthy(why:find("second order", 1, true), why)
    assert.is_true(tide.gradcheck(wrong, {t64 {1, 2}}, {second = false}))
  end)

  it("finds a gradient that is missing", function()
    local missing = tide.custom(function(_, x, y) return x * y end, function(_, dy) return dy end)
    assert.is_false((tide.gradcheck(missing, {t64 {1}, t64 {2}}, {raise = false})))
    assert.is_false((tide.gradcheck(function(x) return x:detach() * 2 end, {t64 {1}}, {raise = false})))
  end)

  it("finds NaN", function()
    assert.is_false((tide.gradcheck(function(x) return x:sqrt() end, {t64 {0, 1}}, {raise = false})))
  end)

  it("passes what is right, however large or small", function()
    assert.is_true(tide.gradcheck(function(x, w) return x:matmul(w):sigmoid() end, {t64 {{1, 2}}, t64 {{3},
      {-1}}}))
    assert.is_true(tide.gradcheck(function(x) return x * 1e6 end, {t64 {1, 2}}))
    assert.is_true(tide.gradcheck(function(x) return x * 1e-6 end, {t64 {1, 2}}))
    assert.is_true(tide.gradcheck(function(x, k) return x ^ k, x:exp() end, {t64 {1, 2}, 3}))
  end)

  it("refuses float32 and functions without a real tensor", function()
    assert.fails_here(function() tide.gradcheck(tide.exp, {tide.ones(2)}) end, "float32", "double")
    assert.fails_here(function() tide.gradcheck(function() return 1 end, {t64 {1}}) end, "no real tensor")
    assert.fails_here(function() tide.gradcheck(tide.exp, {t64 {1}}, {tol = 1}) end, "gradcheck", "tol")
  end)
end)
