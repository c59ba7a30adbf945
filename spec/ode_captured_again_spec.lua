-- Programs that are kept from one solve to the next: used again when the right-hand side was recorded as before, and
-- never when anything that counts has changed.

local tide = require "tide"
local helper = require "spec.helper"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end

-- Solves with capture and eagerly, by functions that make(…) makes anew; values and gradients of `leaves` must agree.
local function check(make, leaves, o)
  local got = {}
  for i, capture in ipairs {"auto", false} do
    for _, x in ipairs(leaves) do x.grad = nil end
    local all = {rtol = 1e-7, capture = capture}
    for k, v in pairs(o or {}) do all[k] = v end
    local y0 = vector(1, 0.5):requires_grad()
    local sol = ode.solve(make(), y0, {0, 1, 3}, all)
    sol.ys:square():sum():backward()
    got[i] = {sol.ys:detach(), y0.grad}
    for k, x in ipairs(leaves) do got[i][2 + k] = x.grad or 0 * x:detach() end
    if i == 1 then assert.is_true(sol.captured, sol.not_captured) end
  end
  for k = 1, #got[1] do assert.close(got[1][k], got[2][k], 1e-10) end
  return got[1]
end

describe("kept programs", function()
  local p, q = vector(1.5, 1, 3, 1):requires_grad(), vector(0.3, -0.2):requires_grad()

  it("see numbers that changed", function()
    for _, k in ipairs {1, 2, 1, -0.5} do
      check(function() return function(_, y) return y * p[1] * -k + k end end, {p})
    end
  end)

  it("see tensors that changed, made anew or written in place", function()
    local c = vector(0, 0)
    for i = 1, 4 do
      local fresh = vector(i, -i)
      c:fill_(i / 2)
      tide.no_grad(function() p:mul_(0.9) end)
      check(function() return function(_, y) return (c - y) * p[2] + fresh * 0.1 end end, {p})
      check(function() return function(_, y) return (fresh - y) * p[2] + c * 0.1 end end, {p})
    end
  end)

  it("follow the tensors, not their places", function()
    local a, b = vector(1, 2):requires_grad(), vector(0.5, 0.1):requires_grad()
    for _ = 1, 2 do
      check(function() return function(_, y) return a * y:tanh() - b end end, {a, b})
      check(function() return function(_, y) return b * y:tanh() - a end end, {a, b})
      check(function() return function(_, y) return a * y:tanh() - a end end, {a, b})
    end
  end)

  it("tell apart what gradients flow through", function()
    for _ = 1, 2 do
      check(function() return function(_, y) return p[1] * y * -1 + q end end, {p, q})
      check(function() return function(_, y) return p[1] * y:detach() * -1 + q end end, {p, q})
      check(function() return function(_, y) return p[1]:detach() * y * -1 + q end end, {p, q})
      check(function() return function(_, y) return p[1] * y * -1 + q:detach() end end, {p, q})
      check(function() return function(_, y)
        local s = tide.no_grad(function() return p[1] * y end)
        return s * -1 + q
      end end, {p, q})
      check(function() return function(_, y) return y * 0.1 - y:detach() * 0.2 + q end end, {q})
      check(function() return function(_, y) return y:detach() * 0.1 - y * 0.2 + q end end, {q})
    end
  end)

  it("tell apart derivatives that were written by hand", function()
    for _, factor in ipairs {1, 3, 1} do
      local double = tide.custom(function(_, x) return x * 2 end, function(_, dy) return dy * 2 * factor end)
      check(function() return function(_, y) return double(y) * -0.5 + q end end, {q})
    end
  end)

  it("tell apart shapes, types, modes and limits", function()
    for _ = 1, 2 do
      for _, o in ipairs {{}, {keep = 0}, {method = "dopri5"}, {grad = "backsolve"}} do
        check(function() return function(_, y) return -y * p[1] + q end end, {p, q}, o)
      end
      for _, dtype in ipairs {"float32", "float64"} do
        for n = 1, 3 do
          local y0, w = tide.ones({n}, dtype):requires_grad(), tide.full({n}, 0.5, dtype):requires_grad()
          local sol = ode.solve(function(_, y) return -y * w end, y0, {0, 2}, {rtol = 1e-5})
          sol.last:sum():backward()
          assert.close(sol.last, tide.full({n}, math.exp(-1), dtype), 1e-4)
          assert.close(w.grad, tide.full({n}, -2 * math.exp(-1), dtype), 1e-4)
        end
      end
    end
  end)

  it("serve solves inside each other", function()
    local function inner(k)
      return ode.solve(function(_, y) return -y * q end, vector(k, 1), {0, 0.5}, {rtol = 1e-8}).last
    end
    for _ = 1, 2 do
      q.grad = nil
      local one, two = inner(1), inner(2)
      local both = one + two
      both:sum():backward()
      local e1, e2 = math.exp(-0.5 * 0.3), math.exp(0.5 * 0.2)
      assert.close(q.grad, vector(-0.5 * 3 * e1, -0.5 * 2 * e2), 1e-6)
    end
  end)

  it("hold no tensor of a solve that is over", function()
    local function solve()
      local big = tide.zeros({2 ^ 18}, "float64")
      local sol = ode.solve(function(_, y) return -y * p[1] + big[7] end, vector(1, 2), {0, 1})
      sol.last:sum():backward()
    end
    local before = helper.live()
    for _ = 1, 3 do
      solve()
      assert.is_true(helper.live() < before + 2 ^ 20)
    end
  end)
end)
