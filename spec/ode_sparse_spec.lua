-- Sparse Jacobians: the same solutions and gradients with less work.

local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local function vector(...) return tide.tensor({...}, "float64") end

-- Diffusion with a reaction on an 8×9 grid, its points numbered at random: u' = D (neighbours − u) p₁ + p₂ u − u³ +
-- cos t.
local rows, columns = 8, 9
local n = rows * columns
local generator = tide.generator(5)
local number = {}
do
  local _, order = generator:rand(n):sort()
  for i = 1, n do number[i] = order[i]:item() end
end
local laplace, marks = {}, {}
for i = 1, n do
  laplace[i], marks[i] = {}, {}
  for j = 1, n do laplace[i][j], marks[i][j] = 0, i == j and 1 or 0 end
end
for r = 1, rows do
  for c = 1, columns do
    local i = number[(r - 1) * columns + c]
    for _, d in ipairs {{0, 1}, {1, 0}, {0, -1}, {-1, 0}} do
      local a, b = r + d[1], c + d[2]
      if a >= 1 and a <= rows and b >= 1 and b <= columns then
        local j = number[(a - 1) * columns + b]
        laplace[i][j], marks[i][j] = 1, 1
        laplace[i][i] = laplace[i][i] - 1
      end
    end
  end
end
laplace, marks = tide.tensor(laplace, "float64"), tide.tensor(marks, "float64")
local start = generator:rand(n, "float64")
local function diffusion(p)
  return function(t, u) return laplace:matmul(u) * p[1] * 30 + u * p[2] - u ^ 3 + t:cos() end
end
local function solve(method, pattern, p, more)
  local o = {method = method, rtol = 1e-7, atol = 1e-9, jac_sparsity = pattern}
  for k, v in pairs(more or {}) do o[k] = v end
  return ode.solve(diffusion(p or vector(1, 0.8)), start, {0, 0.1, 0.4}, o)
end

describe("jac_sparsity", function()
  for _, method in ipairs {"kvaerno5", "kencarp4", "bdf", "rodas5p", "rosenbrock23", "radau5", "auto", "trbdf2"} do
    it("changes nothing but the work of " .. method, function()
      local dense, sparse = solve(method), solve(method, marks)
      assert.close(sparse.ys, dense.ys, 1e-7)
      assert.is_true(math.abs(sparse.stats.steps - dense.stats.steps) <= 2)
    end)

    it("keeps gradients of " .. method .. " exact", function()
      local function gradient(pattern, grad)
        local p = vector(1, 0.8):requires_grad()
        local u = solve(method, pattern, p, {step_size = method ~= "auto" and 0.05 or nil, rtol = 1e-11, atol = 1e-12,
          grad = grad})
        return tide.gradients((u.last * start):sum(), {p})[1]
      end
      local expected = gradient()
      assert.close(gradient(marks), expected, 1e-9)
      if method ~= "auto" then assert.close(gradient(marks, "forward"), expected, 1e-9) end
    end)
  end

  it("takes a band, also beyond what is solved without a matrix by default", function()
    local m = 700
    local function heat(_, u)
      local zero = u:narrow(1, 1, 1) * 0
      local left, right = tide.cat({zero, u:narrow(1, 1, m - 1)}, 1), tide.cat({u:narrow(1, 2, m - 1), zero}, 1)
      return (left + right - u * 2) * (m * m / 1000) - u ^ 3
    end
    local u0 = (tide.linspace(0, math.pi, m, "float64")):sin()
    for _, method in ipairs {"kvaerno4", "bdf"} do
      local o = {method = method, rtol = 1e-9, atol = 1e-11}
      local free = ode.solve(heat, u0, {0, 0.5}, o).last
      o.jac_sparsity = {lower = 1, upper = 1}
      assert.close(ode.solve(heat, u0, {0, 0.5}, o).last, free, 1e-8)
    end
    local free = ode.solve(heat, u0, {0, 0.5}, {method = "rodas5p", rtol = 1e-9, atol = 1e-11,
      jac_sparsity = {lower = 1,
      upper = 1}})
    assert.close(free.last, ode.solve(heat, u0, {0, 0.5}, {method = "bdf", rtol = 1e-10, atol = 1e-12}).last, 1e-7)
  end)

  it("serves functions of plain numbers, the option jac, and mass matrices", function()
    local function chain(_, y)
      local out = {}
      for i = 1, 12 do out[i] = 50 * ((y[i - 1] or 0) - 2 * y[i] + (y[i + 1] or 0)) - y[i] ^ 2 end
      return out
    end
    local y0 = {}
    for i = 1, 12 do y0[i] = math.sin(i) ^ 2 end
    local band = {lower = 1, upper = 1}
    local expected = ode.solve(chain, y0, {0, 0.3}, {method = "rodas5p", rtol = 1e-9}).last
    assert.close(ode.solve(chain, y0, {0, 0.3}, {method = "rodas5p", rtol = 1e-9, jac_sparsity = band}).last,
      expected, 1e-12)
    local function jac(_, y)
      local j, zero = {}, {}
      for i = 1, 12 do
        j[i], zero[i] = {}, 0
        for k = 1, 12 do j[i][k] = i == k and -100 - 2 * y[i] or math.abs(i - k) == 1 and 50 or 0 end
      end
      return j, zero
    end
    assert.close(ode.solve(chain, y0, {0, 0.3}, {method = "rodas5p", rtol = 1e-9, jac_sparsity = band, jac = jac}).last,
      expected, 1e-12)
    local mass = {}
    for i = 1, 12 do mass[i] = i end
    local o = {method = "rodas5p", rtol = 1e-9, mass = mass}
    local heavy = ode.solve(chain, y0, {0, 0.3}, o).last
    o.jac_sparsity = band
    assert.close(ode.solve(chain, y0, {0, 0.3}, o).last, heavy, 1e-11)
  end)

  it("has to fit", function()
    local function f(_, y) return -y end
    local function with(pattern, more)
      return function()
        local o = {method = "bdf", jac_sparsity = pattern}
        for k, v in pairs(more or {}) do o[k] = v end
        ode.solve(f, tide.ones(3), {0, 1}, o)
      end
    end
    assert.fails_here(with(tide.ones(2, 2)), "jac_sparsity has shape (2×2), expected a 3×3 matrix")
    assert.fails_here(with({lower = -1}), "jac_sparsity.lower is -1")
    assert.fails_here(with({upper = 1, width = 3}), "jac_sparsity")
    assert.fails_here(with({lower = 1}, {mass = tide.eye(3)}), "has to be a diagonal")
    assert.fails_here(with(tide.zeros(3, 3)), "marks nothing")
  end)
end)

describe("preconditioner", function()
  local m = 700
  local stiffness = tide.linspace(1, 1e5, m, "float64")
  local function f(t, u) return -(u * stiffness) + u:flip(1) * 0.5 + t:cos() end
  local u0 = tide.ones(m, "float64")

  it("saves GMRES its products, for the same solution", function()
    for _, method in ipairs {"kvaerno4", "bdf"} do
      local calls = 0
      local function products(preconditioner)
        local vjps = 0
        local counted = function(t, u)
          if tide.is_grad_enabled() then vjps = vjps + 1 end
          return f(t, u)
        end
        local sol = ode.solve(counted, u0, {0, 1}, {method = method, rtol = 1e-6, atol = 1e-8, capture = false,
          preconditioner = preconditioner})
        return sol.last, vjps
      end
      local plain, many = products()
      local last, few = products(function(r, t, y, shift)
        calls = calls + 1
        assert.are.same({m}, y.shape)
        assert.is_true(type(t) == "number" and shift > 0)
        return r / (stiffness + shift)
      end)
      assert.close(last, plain, 1e-6)
      assert.is_true(calls > 0 and few < many / 2, ("%s: %d evaluations instead of %d"):format(method, few, many))
    end
  end)

  it("has to be a function that gives something like the state", function()
    assert.fails_here(function() ode.solve(f, u0, {0, 1}, {method = "bdf", preconditioner = 3}) end,
      "preconditioner is a number, expected a function")
    assert.fails_here(function() ode.solve(f, u0, {0, 1}, {method = "bdf",
      preconditioner = function() return 3 end}) end,
      "the preconditioner gave the number 3")
  end)
end)
