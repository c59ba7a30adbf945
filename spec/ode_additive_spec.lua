-- Right-hand sides in two halves, one of them taken explicitly.

local dense = require "spec.support.dense"
local tide = require "tide"
local trees = require "spec.support.trees"
require "spec.helper"
local fields = require "spec.support.fields"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end
local function leaf(...) return vector(...):requires_grad() end

local pairs_of_tableaux = {}
for name, m in pairs(ode.methods) do
  if m.dirk and m.dirk.easy then pairs_of_tableaux[#pairs_of_tableaux + 1] = name end
end
table.sort(pairs_of_tableaux)

describe("additive tableaux", function()
  it("are three", function() assert.are.same({"kencarp3", "kencarp4", "kencarp5"}, pairs_of_tableaux) end)

  for _, name in ipairs(pairs_of_tableaux) do
    local m = ode.methods[name]
    local d = m.dirk
    local both = {d.a, d.easy}

    it(name .. " satisfies the order conditions of both halves and the coupling ones, to its order and no further",
      function()
      for n = 1, m.order do assert.is_true(trees.additive_defect(n, both, d.b) < 1e-15) end
      assert.is_true(trees.additive_defect(m.order + 1, both, d.b) > 1e-3)
      local embedded = {}
      for i = 1, #d.b do embedded[i] = d.b[i] - d.e[i] end
      for n = 1, m.error_order do assert.is_true(trees.additive_defect(n, both, embedded) < 1e-15) end
      assert.is_true(trees.additive_defect(m.error_order + 1, both, embedded) > 1e-3)
    end)

    it(name .. "'s explicit half is explicit, with the stage times of the other", function()
      for i = 1, #d.b do
        assert.close(dense.row_sum(d.easy[i]), d.c[i], 4e-15)
        for j = i, #d.b do assert.are.equal(0, d.easy[i][j]) end
      end
    end)
  end
end)

-- Neither autonomous nor linear, in both halves.
local halves = {
  explicit = function(t, y) return {y[1] * y[1] * math.cos(t), math.cos(3 * t) - 0.2 * y[1]} end,
  implicit = function(t, y) return {0.3 * y[2] * math.sin(2 * t), 0.2 * y[1] - y[1] * y[2]} end,
}
local function whole(t, y)
  return {y[1] * y[1] * math.cos(t) + 0.3 * y[2] * math.sin(2 * t), math.cos(3 * t) - y[1] * y[2]}
end
local function distance(a, b) return math.sqrt((a[1] - b[1]) ^ 2 + (a[2] - b[2]) ^ 2) end

describe("f = {explicit, implicit}", function()
  local exact = ode.solve(whole, {0.7, 0.4}, {0, 2}, {method = "tsit5", rtol = 1e-13, atol = 1e-14}).last

  for _, name in ipairs(pairs_of_tableaux) do
    local order = ode.methods[name].order

    it("has the order of " .. name, function()
      local function err(n)
        return distance(ode.solve(halves, {0.7, 0.4}, {0, 2}, {method = name, rtol = 1e-11, atol = 1e-13,
          step_size = 2 / n}).last, exact)
      end
      local n = order == 3 and 60 or order == 4 and 40 or 24
      local slope = math.log(err(n) / err(2 * n)) / math.log(2)
      assert.is_true(slope > order - 0.3 and slope < order + 0.4, ("slope %.3f"):format(slope))
    end)

    it("keeps the tolerance of " .. name .. " on a stiff half, with few steps", function()
      local f = {
        explicit = function(_, y) return {0, y[1] - 0.1 * y[2]} end,
        implicit = function(t, y) return {-1e6 * (y[1] - math.cos(t)) - math.sin(t), 0} end,
      }
      local sol = ode.solve(f, {1, 0}, {0, 5}, {method = name, rtol = 1e-6, atol = 1e-8})
      local z = (0.1 * math.cos(5) + math.sin(5) - 0.1 * math.exp(-0.5)) / 1.01  -- of z' = cos t − z/10
      assert.close(sol.last, {math.cos(5), z}, 1e-6)
      assert.is_true(sol.stats.steps < 150)
    end)

    it("has the exact gradient by " .. name, function()
      local function f(p)
        return {
          explicit = function(t, y) return (y * p):sin() * (t * 1.3):cos() + p:sum() * t * 0.2 end,
          implicit = function(t, y) return -(y ^ 3) * p:flip(1) - y:flip(1) * p * t:cos() end,
        }
      end
      local times, weights = {0, 0.31, 0.5, 0.93, 1.2}, vector(0.3, -0.2, 0.5, 0.1, -0.4, 0.6, 1, 0.7):reshape(4, 2)
      local function loss(y0, p, t, grad)
        local sol = ode.solve(f(p), y0, t, {method = name, rtol = 1e-13, atol = 1e-14, grad = grad, step_size = 0.17})
        return (sol.ys:narrow(1, 2, 4) * weights):sum()
      end
      local y0, p, t = leaf(0.7, 0.4), leaf(1.1, 0.8), leaf(unpack(times))
      local g = tide.gradients(loss(y0, p, t), {y0, p, t})
      local forward = tide.gradients(loss(y0, p, vector(unpack(times)), "forward"), {y0, p})
      assert.close(forward[1], g[1], 1e-11)
      assert.close(forward[2], g[2], 1e-11)
      local starts = {{0.7, 0.4}, {1.1, 0.8}, times}
      assert.is_nil(fields.off_by_differences(loss, starts, g, 1e-9))
    end)
  end

  it("is captured, and the same without capture", function()
    local p = vector(1.1, 0.8)
    local f = {
      explicit = function(_, y) return (y * p):sin() end,
      implicit = function(_, y) return -(y ^ 3) * 50 end,
    }
    local a = ode.solve(f, vector(0.7, 0.4), {0, 1}, {method = "kencarp4"})
    local b = ode.solve(f, vector(0.7, 0.4), {0, 1}, {method = "kencarp4", capture = false})
    assert.is_true(a.captured and not b.captured)
    assert.close(a.last, b.last, 1e-14)
    assert.are.equal(a.stats.nfe, b.stats.nfe)
  end)

  it("is a sum to other methods, on numbers, tensors and nested states", function()
    local alone = ode.solve(whole, {0.7, 0.4}, {0, 2}, {method = "rodas5p"}).last
    assert.close(ode.solve(halves, {0.7, 0.4}, {0, 2}, {method = "rodas5p"}).last, alone, 1e-12)
    local one = {explicit = function() return 1 end, implicit = function(_, y) return -y end}
    assert.is_true(math.abs(ode.solve(one, 0, {0, 1}, {method = "kencarp5"}).last - (1 - math.exp(-1))) < 1e-5)
    local nested = {
      explicit = function(_, s) return {a = s.b, b = s.b * 0} end,
      implicit = function(_, s) return {a = s.a * 0, b = -s.a} end,
    }
    for _, name in ipairs {"tsit5", "kencarp4"} do
      local last = ode.solve(nested, {a = vector(0), b = vector(1)}, {0, 1}, {method = name}).last
      assert.is_true(math.abs(last.a:item() - math.sin(1)) < 1e-4)
    end
  end)

  it("refuses half a half", function()
    assert.fails_here(function() ode.solve({explicit = function(_, y) return y end}, 1, {0, 1}) end,
      "f.implicit is a nil, expected a function f(t, y)")
    assert.fails_here(function()
      ode.solve({explicit = function(_, y) return y end, implicit = function(_, y) return y end}, tide.ones(2), {0, 1},
        {method = "kencarp4", batch = true})
    end, "a batch with f in halves")
  end)
end)
