-- Steps of captured fields of some hundred numbers, which run as one list of operations on short arrays: the same to
-- the last bit as eager ones, forward and backward, in both types and in batches.

local tide = require "tide"
require "spec.helper"
local shared = require "spec.support.fields"
local ode = tide.ode
local with = shared.with

-- Parameters by name, reproducible.
local function parameters(dtype)
  local g = tide.generator(5)
  local function new(...) return (g:randn({...}, dtype) * 0.4):requires_grad() end
  return {w1 = new(2, 23), b1 = new(23), w2 = new(23, 2), b2 = new(2), scale = new(1), row = new(1, 23),
    turned = new(23, 2)}
end

local fields = {
  ["a network"] = function(p) return function(_, y) return (y:matmul(p.w1) + p.b1):tanh():matmul(p.w2) + p.b2 end end,
  ["a transposed weight, powers and time"] = function(p)
    return function(t, y) return (y ^ 3):matmul(p.turned:t()):sin():matmul(p.w2) * (t * 0.1 + 1) - y end
  end,
  ["numbers, comparisons and a row"] = function(p)
    return function(_, y)
      local h = y:matmul(p.w1) * p.row + p.scale
      return tide.where(h:gt(0), h, h * 0.1):matmul(p.w2) * 0.5 - y * p.scale
    end
  end,
  ["parts that are joined, and sums"] = function(p)
    return function(_, y)
      local a, b = y[{{}, {1, 1}}], y[{{}, {2, 2}}]
      return tide.cat({b * p.scale - a, -a * b}, 2) * 0.2 - y:sum({2}, true) * 0.1 + y:sum({1}, true) * 0.01
    end
  end,
  ["a softmax, which no list has"] = function(p)
    return function(_, y) return tide.softmax(y:matmul(p.w1) + p.b1, 2):matmul(p.w2) - y end
  end,
}

-- Values and gradients of a solve long enough for lists to be written, and how many evaluations it took.
local function solved(make, dtype, batch, o)
  local p = parameters(dtype)
  local y0 = tide.generator(9):randn({batch, 2}, dtype):requires_grad()
  local sol = ode.solve(make(p), y0, {0, 1.5, 4}, o)
  sol.ys:square():sum():backward()
  local out = {sol.ys:totable(), y0.grad:totable()}
  for _, name in ipairs {"w1", "b1", "w2", "b2", "scale", "row", "turned"} do
    out[#out + 1] = p[name].grad and p[name].grad:totable() or false
  end
  return out, sol
end

describe("a captured step over short arrays", function()
  for name, make in pairs(fields) do
    for _, dtype in ipairs {"float32", "float64"} do
      for _, batch in ipairs {1, 7} do
        it(("is the eager one for %s, %s, batch %d"):format(name, dtype, batch), function()
          local o = {method = "dopri5", step_size = 0.1}
          local got, sol = solved(make, dtype, batch, with(o, {capture = true}))
          local expected, plain = solved(make, dtype, batch, with(o, {capture = false}))
          assert.are.equal(plain.stats.nfe, sol.stats.nfe)
          for i = 1, #got do assert.are.same(expected[i], got[i]) end
          for _ = 1, 2 do assert.are.same(got, (solved(make, dtype, batch, with(o, {capture = true})))) end
        end)
      end
    end
  end

  for method, m in pairs(ode.methods) do
    if m.family == "explicit Runge–Kutta" then
      it("of " .. method .. " is the eager one", function()
        for _, dtype in ipairs {"float32", "float64"} do
          local o = {method = method, step_size = 0.2}
          local got = solved(fields["a network"], dtype, 3, with(o, {capture = true}))
          local expected = solved(fields["a network"], dtype, 3, with(o, {capture = false}))
          for i = 1, #got do assert.are.same(expected[i], got[i]) end
        end
      end)
    end
  end

  it("chooses the steps of stage by stage, and sees parameters that were moved between solves", function()
    for _, dtype in ipairs {"float32", "float64"} do
      local p = parameters(dtype)
      local f = fields["a network"](p)
      local y0 = tide.ones({1, 2}, dtype)
      for _ = 1, 3 do
        tide.no_grad(function() p.b2:add_(0.25) end)
        local o = {rtol = 1e-5, atol = 1e-7, method = "tsit5"}
        local sol, plain = ode.solve(f, y0, {0, 12}, o), ode.solve(f, y0, {0, 12}, with(o, {capture = false}))
        assert.is_true(sol.captured and not plain.captured)
        assert.are.equal(plain.stats.accepted, sol.stats.accepted)
        assert.are.same(plain.last:totable(), sol.last:totable())
      end
    end
  end)

  it("reads the parameters of each of several fields of one shape", function()
    local make, o, y0 = fields["a network"], {method = "dopri5", step_size = 0.1}, tide.ones {1, 2}
    for i = 1, 6 do
      local p = parameters "float32"
      p.w1 = (p.w1 * i):detach():requires_grad()  -- made anew, written as often as the one before
      local expected = ode.solve(make(p), y0, {0, 3}, with(o, {capture = false})).last:totable()
      for _, solve in ipairs {ode.solve, function(...) return tide.no_grad(ode.solve, ...) end} do
        assert.are.same(expected, solve(make(p), y0, {0, 3}, with(o, {capture = true})).last:totable())
      end
    end
  end)

  it("sees a parameter that is written to between steps", function()
    for _, dtype in ipairs {"float32", "float64"} do
      local p = parameters(dtype)
      local function solve(capture)
        tide.no_grad(function() p.b2:fill_(0.1) end)
        local function write(_, y)
          p.b2:fill_(-0.7)
          return y
        end
        return tide.no_grad(ode.solve, fields["a network"](p), tide.ones({1, 2}, dtype), {0, 6}, {method = "dopri5",
          step_size = 0.1, capture = capture,
          event = {fn = function(t) return t - 3 end, terminal = false, reset = write}}).last:totable()
      end
      assert.are.same(solve(false), solve(true))
      assert.are.same(solve(false), solve(true))
    end
  end)

  it("reads views of one larger tensor, also of its last elements", function()
    local all = tide.generator(3):randn({2000}, "float32")
    local w1, w2 = all[{{1900, 1945}}]:reshape(2, 23), all[{{1955, 2000}}]:reshape(23, 2)
    local function f(_, y) return y:matmul(w1):tanh():matmul(w2) end
    local o, y0 = {method = "rk4", step_size = 0.05}, tide.ones {1, 2}
    assert.are.same(ode.solve(f, y0, {0, 2}, with(o, {capture = false})).last:totable(),
      ode.solve(f, y0, {0, 2}, with(o, {capture = true})).last:totable())
  end)
end)
