-- Implicit methods of ode.solve: their coefficients, measured orders, known values of stiff problems, order reduction.

local dense = require "spec.support.dense"
local tide = require "tide"
local trees = require "spec.support.trees"
require "spec.helper"
local ode = tide.ode

local function named(pick)
  local out = {}
  for name, m in pairs(ode.methods) do
    if pick(m) then out[#out + 1] = name end
  end
  table.sort(out)
  return out
end

local stiff = named(function(m) return m.stiff and m.family ~= "exponential" end)

-- ---- Coefficients ----

describe("diagonally implicit tableaux", function()
  for _, name in ipairs(named(function(m) return m.dirk end)) do
    local m = ode.methods[name]
    local d = m.dirk

    it(name .. " satisfies the order conditions to its order and no further", function()
      for n = 1, m.order do assert.is_true(trees.defect(n, d.a, d.b) < 2e-15 * 10) end
      assert.is_true(trees.defect(m.order + 1, d.a, d.b) > 1e-3)
    end)

    it(name .. " has row sums as stage times, and one diagonal for all implicit stages", function()
      local n = #d.b
      for i = 1, n do
        assert.close(dense.row_sum(d.a[i]), d.c[i], 1e-14)
        for j = i + 1, n do assert.are.equal(0, d.a[i][j]) end
        assert.is_true(d.a[i][i] == d.a[n][n] or (i == 1 and d.a[1][1] == 0))
      end
    end)

    if m.error_order > 0 and d.e0 == 0 then
      it(name .. "'s embedded solution has its order", function()
        local embedded = {}
        for i = 1, #d.b do embedded[i] = d.b[i] - d.e[i] end
        for n = 1, m.error_order do assert.is_true(trees.defect(n, d.a, embedded) < 2e-14) end
        local accurate = name == "trbdf2" and 3 or m.error_order  -- compared with one of higher order
        assert.is_true(trees.defect(accurate + 1, d.a, embedded) > 1e-4)
      end)
    end
  end
end)

describe("Rosenbrock coefficients", function()
  for _, name in ipairs(named(function(m) return m.rosenbrock end)) do
    local m = ode.methods[name]
    local d = m.rosenbrock
    local n = #d.m
    -- Γ = (I/γ − C)⁻¹, α = A Γ, β = α + Γ; weights of u become weights of k by Γ.
    local gamma = dense.lower_inverse(dense.sum(dense.identity(n, 1 / d.gamma), d.c, -1))
    local alpha = dense.product(d.a, gamma)
    local beta = dense.sum(alpha, gamma)

    it(name .. " satisfies the order conditions to its order and no further", function()
      local b = dense.row_times(d.m, gamma)
      for k = 1, m.order do assert.is_true(trees.defect(k, alpha, b, 1, beta) < 2e-14) end
      assert.is_true(trees.defect(m.order + 1, alpha, b, 1, beta) > 1e-3)
    end)

    it(name .. " has the row sums as stage times and as weights of ∂f/∂t", function()
      for i = 1, n do
        assert.close(dense.row_sum(alpha[i]), d.alpha[i], 1e-14)
        assert.close(dense.row_sum(gamma[i]), d.d[i], 3e-14)
      end
    end)

    it(name .. "'s embedded solution has its order", function()
      local embedded = {}
      for i = 1, n do embedded[i] = d.m[i] - d.e[i] end
      embedded = dense.row_times(embedded, gamma)
      for k = 1, m.error_order do assert.is_true(trees.defect(k, alpha, embedded, 1, beta) < 2e-14) end
    end)

    it(name .. "'s extension satisfies the conditions to its order and no further, and meets both ends", function()
      local function defect(k, theta)
        local w = {}
        for i = 1, n do
          w[i] = 0
          for j = 1, #d.dense[i] do w[i] = w[i] + d.dense[i][j] * theta ^ j end
        end
        return trees.defect(k, alpha, dense.row_times(w, gamma), theta, beta)
      end
      local beyond = 0
      for theta = 0.1, 0.95, 0.1 do
        for k = 1, m.dense_order do assert.is_true(defect(k, theta) < 5e-14) end
        beyond = math.max(beyond, defect(m.dense_order + 1, theta))
      end
      assert.is_true(beyond > 1e-4)
      for i = 1, n do assert.close(dense.row_sum(d.dense[i]), d.m[i], 1e-13) end
    end)
  end
end)

describe("collocation coefficients", function()
  for _, name in ipairs(named(function(m) return m.collocation end)) do
    local m = ode.methods[name]
    local k = m.collocation
    local n = #k.b

    it(name .. " satisfies the order conditions to its order and no further", function()
      for q = 1, m.order do assert.is_true(trees.defect(q, k.a, k.b) < 1e-14) end
      assert.is_true(trees.defect(m.order + 1, k.a, k.b) > 1e-6)
    end)

    it(name .. "'s transformation is that of the inverse", function()
      local block, at = dense.identity(n, 0), 0
      if k.real then block[1][1], at = k.real, 1 end
      block[at + 1][at + 1], block[at + 2][at + 2] = k.re, k.re
      block[at + 1][at + 2], block[at + 2][at + 1] = -k.im, k.im
      assert.close(dense.product(dense.product(k.t, block), k.t_inverse), k.inverse, 1e-13)
      assert.close(dense.product(k.a, k.inverse), dense.identity(n), 1e-13)
    end)

    it(name .. "'s extension is the collocation polynomial", function()
      for i = 1, n do
        assert.close(dense.row_sum(k.between[i]), k.b[i], 1e-14)
        for j = 1, n do
          local sum = 0
          for q = 1, n do sum = sum + k.between[j][q] * k.c[i] ^ q end
          assert.close(sum, k.a[i][j], 1e-14)
        end
      end
    end)
  end

  it("gl4's nodes are 1/2 ∓ √3/6", function()
    assert.close(ode.methods.gl4.collocation.c, {0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6}, 1e-16)
  end)
end)

-- ---- Measured orders ----

-- y1' = y1² cos t + 0.3 y2 sin 2t, y2' = −y1 y2 + cos 3t: neither autonomous nor linear.
local function mixed(t, y)
  return {y[1] * y[1] * math.cos(t) + 0.3 * y[2] * math.sin(2 * t), -y[1] * y[2] + math.cos(3 * t)}
end

local function distance(a, b) return math.sqrt((a[1] - b[1]) ^ 2 + (a[2] - b[2]) ^ 2) end

local adaptive_only = {bdf = true, bdf_plain = true, auto = true}

describe("measured orders on a problem with time", function()
  local exact = ode.solve(mixed, {0.7, 0.4}, {0, 2}, {method = "tsit5", rtol = 1e-13, atol = 1e-14}).last
  local coarse = {[6] = 8, [5] = 20, [4] = 30, [3] = 40, [2] = 60, [1] = 400}

  for _, name in ipairs(stiff) do
    local m = ode.methods[name]
    if not adaptive_only[name] then
      it(name .. " at the end", function()
        local function err(n)
          return distance(ode.solve(mixed, {0.7, 0.4}, {0, 2}, {method = name, rtol = 1e-10, atol = 1e-12,
            step_size = 2 / n}).last, exact)
        end
        local n = coarse[m.order]
        local slope = math.log(err(n) / err(2 * n)) / math.log(2)
        assert.is_true(slope > m.order - 0.3 and slope < m.order + (m.rosenbrock and 1 or 0.3),
          ("slope %.3f, expected %d"):format(slope, m.order))
      end)

      it(name .. " between the steps", function()
        local q = math.min(m.order, m.dense_order + 1)
        local fine = {}
        for i = 0, 100 do fine[i + 1] = i / 50 end
        local truth = ode.solve(mixed, {0.7, 0.4}, fine, {method = "tsit5", rtol = 1e-12, atol = 1e-13, land = true}).ys
        local function err(n)
          local sol = ode.solve(mixed, {0.7, 0.4}, fine, {method = name, rtol = 1e-10, atol = 1e-12, step_size = 2 / n})
          local worst = 0
          for i in ipairs(fine) do worst = math.max(worst, distance(sol.ys[i], truth[i])) end
          return worst
        end
        local n = m.order == 1 and 400 or 41
        local slope = math.log(err(n) / err(2 * n)) / math.log(2)
        assert.is_true(slope > q - 0.45, ("slope %.3f, expected %d"):format(slope, q))
      end)
    end
  end

  for _, name in ipairs {"bdf", "bdf_plain"} do
    it(name .. "'s error follows the tolerance, at every highest order", function()
      for order = 1, 5 do
        local function err(rtol)
          return distance(ode.solve(mixed, {0.7, 0.4}, {0, 2}, {method = name, rtol = rtol, atol = rtol * 0.1,
            max_order = order, max_steps = 1e6}).last, exact)
        end
        local loose, tight = err(1e-3), err(order == 1 and 1e-6 or 1e-7)
        assert.is_true(loose < 0.3 and tight < (order == 1 and 3e-3 or 3e-4) and tight < loose)
      end
    end)
  end
end)

-- ---- Order reduction ----

describe("Prothero and Robinson's problem", function()
  local function problem(lambda)
    return function(t, y) return lambda * (y - math.sin(t + math.pi / 4)) + math.cos(t + math.pi / 4) end
  end
  local function err(name, lambda)
    local sol = ode.solve(problem(lambda), math.sin(math.pi / 4), {0, 2}, {method = name, step_size = 0.05, rtol = 1e-8,
      atol = 1e-10})
    return math.abs(sol.last - math.sin(2 + math.pi / 4))
  end

  for _, name in ipairs(stiff) do
    local d = ode.methods[name].dirk
    local accurate = (d and d.stiffly_accurate) or name:match("^radau") or name:match("^rodas")
    if accurate and not adaptive_only[name] then
      it(name .. "'s error does not grow with stiffness", function()
        local mild, hard = err(name, -1e2), err(name, -1e6)
        assert.is_true(hard < mild and hard < 2e-8, ("%.2g at −1e2, %.2g at −1e6"):format(mild, hard))
      end)
    end
  end

  it("adaptive methods keep the tolerance at λ = −1e6", function()
    local fine = {radau5 = true, rodas5p = true, bdf = true}
    for _, name in ipairs(stiff) do
      if ode.methods[name].error_order > 0 then
        local times = {0, 0.31, 0.9, 1.5, 2}
        -- Steps that the fast part does not limit are longer than most extensions resolve: values are taken at nodes.
        for _, land in ipairs(fine[name] and {true, false} or {true}) do
          local sol = ode.solve(problem(-1e6), math.sin(math.pi / 4), times, {method = name, rtol = 1e-6, atol = 1e-8,
            land = land})
          for i, t in ipairs(times) do
            local off = math.abs(sol.ys[i] - math.sin(t + math.pi / 4))
            assert.is_true(off < (land and 2e-6 or 1e-4), ("%s is off by %.2g at %g"):format(name, off, t))
          end
        end
      end
    end
  end)
end)
