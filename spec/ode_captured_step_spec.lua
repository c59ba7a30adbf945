-- Steps of captured fields of few variables, which run as one list of operations on numbers: the same as eager ones,
-- forward and backward, with few steps (before a list is made) and many.

local tide = require "tide"
require "spec.helper"
local shared = require "spec.support.fields"
local ode = tide.ode
local with = shared.with

local function vector(...) return tide.tensor({...}, "float64") end

-- Value and gradients of a solve; the field has products, an external in parts, time, and a sum over elements.
local function solved(o, t1)
  local u0, p = vector(1, 1):requires_grad(), vector(1.5, 1, 3, 1):requires_grad()
  local q = tide.tensor({{-0.1, 0.02}, {-0.02, -0.05}}, "float64"):requires_grad()
  local function f(t, u)
    local x, y = u[1], u[2]
    local xy = x * y
    return tide.stack({p[1] * x - p[2] * xy, p[4] * xy - p[3] * y + t * 0.01}, 1) + u:reshape(1, 2):matmul(q)
      :reshape(2)
  end
  local sol = ode.solve(f, u0, {0, 0.6 * t1, t1}, o)
  sol.ys:square():sum():backward()
  return sol, {sol.ys:detach(), u0.grad, p.grad, q.grad}
end

describe("a captured step", function()
  for _, name in ipairs(shared.explicit_methods()) do
    it("of " .. name .. " is the eager one, and so is its gradient", function()
      local o = {method = name, rtol = 1e-5, step_size = ode.methods[name].error_order == 0 and 0.02 or 0}
      for _, t1 in ipairs {0.1, 6} do
        local sol, got = solved(o, t1)
        local plain, expected = solved(with(o, {capture = false}), t1)
        assert.is_true(sol.captured)
        assert.is_false(plain.captured)
        assert.are.equal(plain.stats.nfe, sol.stats.nfe)
        assert.are.equal(plain.stats.nfe_b, sol.stats.nfe_b)
        for i = 1, 4 do assert.close(got[i], expected[i], 1e-9) end
      end
      local _, all = solved(o, 6)
      local _, few = solved(with(o, {checkpoints = 2}), 6)
      for i = 1, 4 do assert.are.same(all[i]:totable(), few[i]:totable()) end
    end)
  end

  it("is the same to the last bit as machine code and as a list", function()
    local core = require "tide.core"
    local p = vector(1.5, 1, 3, 1, 0.7):requires_grad()
    local fields = {
      function(t, x, y) return x * p[1] - x * y * p[2] - t * 0.1, y:neg() * p[3] + x * y * p[4] end,
      function(t, x, y)
        return (x * p[1]):sin() + y:exp() * p[5] - x:tanh() + y:sigmoid(),
          (y * p[2]):cos() - x:square():sqrt() + (y * y + 1):log() - (t * 0.1):tan()
      end,
      function(_, x, y)
        return tide.where(x:gt(y), x * p[1], -y),
          tide.where(y:le(p[2]), y:abs(), (-x):relu()) - y:pow(2) + x:pow(3) * 0.01 - x:reciprocal() * 0.1
      end,
      function(_, x, y)
        return -(x * x + 0.5):pow(p[5]) + tide.where(x:lt(y), p[3], p[4]) * 0.1,
          tide.where(x:ge(y), -y, y * 0.1) / (1 + x * x)
      end,
    }
    for _, f in ipairs(fields) do
      local result = {}
      for _, native in ipairs {true, false} do
        local was = core.ode_native(native)
        p.grad = nil
        local y0 = vector(1, 0.9):requires_grad()
        -- another limit, so that the lists are written anew
        local sol = ode.solve(function(t, y) return tide.stack({f(t, y[1], y[2])}, 1) * 0.2 end, y0, {0, 2},
          {method = "dopri5", step_size = 0.01, keep = native and 2 ^ 28 or 2 ^ 27})
        sol.last:sum():backward()
        core.ode_native(was)
        assert.is_true(sol.captured)
        result[#result + 1] = {sol.last:totable(), y0.grad:totable(), p.grad:totable()}
      end
      assert.are.same(result[2], result[1])
    end
  end)

  it("of one method follows that of another by the same field", function()
    local p = vector(0.7):requires_grad()
    local function f(_, y) return p * y * (1 - y) end
    for _, method in ipairs {"dopri5", "tsit5", "dopri5"} do
      local sol = ode.solve(f, vector(0.1), {0, 12}, {method = method, rtol = 1e-9})
      assert.near(1 / (1 + 9 * math.exp(-0.7 * 12)), sol.last:item(), 1e-7)
    end
  end)

  it("sees a parameter that was moved between solves", function()
    local p = vector(1):requires_grad()
    local function f(_, y) return -p * y end
    for _, rate in ipairs {1, 0.5, 2} do
      p.grad = nil
      tide.no_grad(function() p:fill_(rate) end)
      local sol = ode.solve(f, vector(1), {0, 3}, {rtol = 1e-10})
      sol.last:sum():backward()
      assert.near(math.exp(-3 * rate), sol.last:item(), 1e-8)
      assert.near(-3 * math.exp(-3 * rate), p.grad:item(), 1e-7)
    end
  end)

  it("adds to the gradients that events and earlier steps left", function()
    local p = vector(2):requires_grad()
    local sol = ode.solve(function(_, y) return -p * y end, vector(1), {0, 5},
      {rtol = 1e-10, atol = 1e-12, event = {fn = function(_, y) return y[1] - 0.01 end}})
    sol.events.t:sum():backward()
    assert.near(math.log(100) / 2, sol.events.t:item(), 1e-8)
    assert.near(-math.log(100) / 4, p.grad:item(), 1e-7)
  end)
end)

describe("a list of operations on numbers", function()
  local core = require "tide.core"
  local unary = {"copy", "neg", "abs", "square", "sqrt", "reciprocal", "relu", "exp", "log", "sin", "cos", "tan",
    "tanh", "sigmoid", "cube"}
  local others = {"add", "sub", "mul", "div", "fma", "where", "lt", "le", "gt", "ge", "pow", "scale", "dot"}

  -- Some places are written again and again, also while a register still holds what they were.
  local function random_list(random, places)
    local list = {}
    for i = 1, 120 do
      local op = random(3) == 1 and unary[random(#unary)] or others[random(#others)]
      local last = places - 5
      list[i] = {op, random(last) - 1, random(last) - 1, random(last) - 1, random(last) - 1, random(4)}
    end
    return list
  end

  it("is the same to the last bit as machine code, whatever places it writes again", function()
    if not core.ode_numbers({}, {}, true) then return end  -- none on this machine
    math.randomseed(7)
    for places = 9, 40 do
      local numbers = {}
      for i = 1, places do numbers[i] = math.random() * 4 - 2 end
      for _ = 1, 30 do
        local list = random_list(math.random, places)
        local expected, got = core.ode_numbers(list, numbers, false), core.ode_numbers(list, numbers, true)
        for i = 1, places do
          local a, b = expected[i], got[i]
          assert.is_true(a == b or (a ~= a and b ~= b), ("place %d: %.17g and %.17g"):format(i - 1, a, b))
        end
      end
    end
  end)

  it("reads a place anew that a later operation has written", function()
    if not core.ode_numbers({}, {}, true) then return end
    local list = {
      {"add", 0, 1, 2, 0, 1},   -- x0 = 3 in the first register
      {"mul", 3, 1, 2, 0, 1},   -- others in those that follow
      {"add", 0, 3, 2, 0, 1},   -- x0 = 4
      {"add", 4, 0, 0, 0, 1},   -- 8, not 6
    }
    assert.are.same({4, 1, 2, 2, 8}, core.ode_numbers(list, {0, 1, 2, 0, 0}, true))
  end)
end)
