-- Linear algebra: every shape of operands against slow twins and differences, what factorisations are for, large and
-- odd sizes, views, batches, failures, and derivatives where matrices are singular or values coincide.

local cases = require "spec.support.linalg_cases"
local draw = require "spec.support.draw"
local helper = require "spec.helper"
local tide = require "tide"
local linalg = tide.linalg

local sizes = {1, 2, 3, 7, 12, 13, 24, 25, 61}
local generator = tide.generator(4)
local function random(shape, dtype) return generator:randn(shape, dtype or "float64") end
local function eye(n, dtype) return tide.eye(n, n, dtype or "float64") end
local function positive(shape, dtype)
  local x = random(shape, dtype)
  return tide.mm(x, x:t()) + eye(shape[#shape], dtype)
end
local function mm(a, b, ...)
  if not b then return a end
  return mm(tide.matmul(a, b), ...)
end

-- What rounding leaves of products of n×n matrices of entries near 1.
local function tolerance(n, dtype) return (dtype == "float32" and 4e-5 or 4e-13) * (n + 4) end

-- f(n, dtype, tol) for every size and both types.
local function everywhere(f)
  for _, dtype in ipairs {"float32", "float64"} do
    for _, n in ipairs(sizes) do f(n, dtype, tolerance(n, dtype)) end
  end
end

local names = {}
for name in pairs(cases) do names[#names + 1] = name end
table.sort(names)

-- The arguments with f of each tensor.
local function with(f, args)
  local out = {}
  for i, a in ipairs(args) do out[i] = tide.is_tensor(a) and f(a) or a end
  return out
end

describe("every shape of operands", function()
  for _, name in ipairs(names) do
    it("gives what the slow twin of " .. name .. " gives", function()
      for number, case in ipairs(cases[name]) do
        for dtype, tol in pairs {float64 = 1e-11, float32 = 1e-4} do
          local args = case.args(draw(number, dtype))
          local expected = {case.twin(unpack(with(helper.array.of, args)))}
          for _, view in ipairs {function(x) return x end, helper.awkward} do
            for i, y in ipairs {tide[name](unpack(with(view, args)))} do
              local why = helper.difference(y, expected[i], tol)
              if why then error(("%s, case %d, %s, result %d: %s"):format(name, number, dtype, i, why), 0) end
            end
          end
        end
      end
    end)

    it("has both derivatives of " .. name, function()
      for number, case in ipairs(cases[name]) do
        local args, operands = case.args(draw(number + 50, "float64")), {}
        with(function(x) if x.dtype == "float64" then operands[#operands + 1] = x end end, args)
        local ok, why = tide.gradcheck(function(...)
          local given, k = {...}, 0
          return tide[name](unpack(with(function(x)
            if x.dtype ~= "float64" then return x end
            k = k + 1
            return given[k]
          end, args)))
        end, operands, {raise = false})
        if not ok then error(("%s, case %d: %s"):format(name, number, why), 0) end
      end
    end)
  end
end)

describe("factorisations put together give the matrix:", function()
  it("cholesky", function()
    everywhere(function(n, dtype, tol)
      local a = positive({3, n, n}, dtype)
      local l = tide.cholesky(a)
      assert.close(mm(l, l:t()), a, tol)
      assert.close(l:tril(), l, 0)
    end)
  end)

  it("lu_factor and lu", function()
    everywhere(function(n, dtype, tol)
      local a = random({2, n, n}, dtype)
      local p, l, u = linalg.lu(a)
      assert.close(mm(p, l, u), a, tol)
      assert.close(l:tril(), l, 0)
      assert.close(u:triu(), u, 0)
      assert.close(mm(p, p:t()), tide.eye(n, n, dtype):expand(2, n, n), 0)
      assert.is_true(l:abs():max():item() <= 1)
    end)
  end)

  it("qr of square, tall and wide matrices", function()
    everywhere(function(n, dtype, tol)
      for _, shape in ipairs {{n, n}, {2, n + 3, n}, {2, n, n + 2}} do
        local a = random(shape, dtype)
        local q, r = tide.qr(a)
        local k = math.min(a:size(-1), a:size(-2))
        assert.close(mm(q, r), a, tol)
        assert.close(mm(q:t(), q) - eye(k, dtype), tide.zeros_like(mm(q:t(), q)), tol)
        assert.close(r:triu(), r, 0)
      end
    end)
  end)

  it("svd of square, tall and wide matrices", function()
    everywhere(function(n, dtype, tol)
      for _, shape in ipairs {{n, n}, {2, n + 3, n}, {2, n, n + 2}} do
        local a = random(shape, dtype)
        local u, s, vt = tide.svd(a)
        assert.close(mm(u * s:unsqueeze(-2), vt), a, tol)
        assert.close(mm(u:t(), u) - eye(s:size(-1), dtype), tide.zeros_like(mm(u:t(), u)), tol)
        assert.close(mm(vt, vt:t()) - eye(s:size(-1), dtype), tide.zeros_like(mm(vt, vt:t())), tol)
        assert.close(tide.sort(s, -1, true), s, 0)
        assert.close(tide.svdvals(a), s, tol)
      end
    end)
  end)

  it("eigh", function()
    everywhere(function(n, dtype, tol)
      local x = random({2, n, n}, dtype)
      local w, v = tide.eigh(x)
      assert.close(mm(v * w:unsqueeze(-2), v:t()), (x + x:t()) / 2, tol)
      assert.close(mm(v:t(), v) - eye(n, dtype), tide.zeros_like(v), tol)
      assert.close(tide.sort(w, -1), w, 0)
      assert.close(tide.eigvalsh(x), w, tol)
    end)
  end)
end)

describe("systems", function()
  it("are solved to rounding by every way", function()
    everywhere(function(n, dtype, tol)
      local a, b = positive({2, n, n}, dtype), random({2, n, 3}, dtype)
      local x = tide.solve(a, b)
      tol = tol * 30
      assert.close(mm(a, x), b, tol)
      assert.close(mm(tide.inv(a), b), x, tol)
      local lu, pivots = tide.lu_factor(a)
      assert.close(tide.lu_solve(lu, pivots, b), x, tol)
      assert.close(tide.lu_solve(lu, pivots, b, {transpose = true}), tide.solve(a:t(), b), tol)
      assert.close(linalg.cholesky_solve(tide.cholesky(a), b), x, tol)
      assert.close(tide.lstsq(a, b), x, tol)
      assert.close(mm(tide.pinv(a), b), x, tol)
    end)
  end)

  it("with one matrix and a batch of right-hand sides are the same one at a time, by views too", function()
    for _, n in ipairs {3, 30} do
      local a, b = positive({n, n}), random({4, 2, n, 2})
      local views = {a, a:t(), helper.awkward(a), a:unsqueeze(1), a:expand(4, 1, n, n), a:t():unsqueeze(1)}
      for _, m in ipairs(views) do
        local one = m:reshape(-1, n, n)[1]
        local expected = tide.stack({
          tide.solve(one, b[1][1]), tide.solve(one, b[1][2]), tide.solve(one, b[2][1]), tide.solve(one, b[2][2]),
          tide.solve(one, b[3][1]), tide.solve(one, b[3][2]), tide.solve(one, b[4][1]), tide.solve(one, b[4][2]),
        }):reshape(4, 2, n, 2)
        assert.close(tide.solve(m, b), expected, 1e-11)
        assert.close(tide.solve(m, helper.awkward(b)), expected, 1e-11)
        assert.close(tide.lstsq(m, b), expected, 1e-9)
      end
    end
  end)

  it("read one triangle in solve_triangular, whatever the other holds", function()
    local a, b = random({3, 20, 20}) + eye(20) * 20, random({20, 4})
    local spoiled = a:tril() + tide.full({20, 20}, 0 / 0, "float64"):triu(1):masked_fill(tide.ones{20, 20}:tril(), 0)
    assert.close(tide.solve_triangular(spoiled, b), tide.solve(a:tril(), b), 1e-12)
    assert.close(tide.solve_triangular(spoiled:t(), b, {upper = true}), tide.solve(a:tril():t(), b), 1e-12)
    assert.close(tide.solve_triangular(spoiled, b, {transpose = true}), tide.solve(a:tril():t(), b), 1e-12)
  end)

  it("take a vector for every matrix of a batch", function()
    local a, b = positive({5, 3, 3}), random({3})
    local x = tide.solve(a, b)
    assert.are.same({5, 3}, x.shape)
    for i = 1, 5 do assert.close(tide.matmul(a[i], x[i]), b, 1e-12) end
  end)

  it("give the same with any number of threads", function()
    local a, b = positive({3000, 4, 4}, "float32"), random({3000, 4, 2}, "float32")
    local before = tide.threads()
    tide.threads(1)
    local x, w = tide.solve(a, b), tide.eigvalsh(a)
    tide.threads(4)
    assert.close(tide.solve(a, b), x, 0)
    assert.close(tide.eigvalsh(a), w, 0)
    tide.threads(before)
  end)
end)

describe("least squares", function()
  it("leave a residual at right angles to the columns", function()
    everywhere(function(n, dtype, tol)
      local a, b = random({2, n + 5, n}, dtype), random({2, n + 5, 2}, dtype)
      assert.close(mm(a:t(), mm(a, tide.lstsq(a, b)) - b), tide.zeros({2, n, 2}, dtype), tol * 10)
    end)
  end)

  it("are the shortest ones where there are many", function()
    local a, b = random({3, 6}), random({3})
    local x = tide.lstsq(a, b)
    assert.close(tide.matmul(a, x), b, 1e-12)
    assert.close(tide.matmul(tide.pinv(a), tide.matmul(a, x)), x, 1e-12)
  end)

  it("and the pseudo-inverse obey Penrose's four equations, also where rank is missing", function()
    for _, a in ipairs {random {2, 5, 3}, random {3, 5}, mm(random {6, 2}, random {2, 4}),
      tide.zeros({2, 3}, "float64")} do
      local p = tide.pinv(a)
      assert.close(mm(a, p, a), a, 1e-11)
      assert.close(mm(p, a, p), p, 1e-11)
      assert.close(mm(a, p):t(), mm(a, p), 1e-11)
      assert.close(mm(p, a):t(), mm(p, a), 1e-11)
      local b = random({a:size(-2), 2})
      assert.close(tide.lstsq(a, b), mm(p, b), 1e-11)
    end
  end)

  it("count singular values below rtol as 0", function()
    local a = tide.diag(tide.tensor({2, 1e-3}, "float64"))
    assert.close(tide.pinv(a), {{0.5, 0}, {0, 1000}}, 1e-12)
    assert.close(tide.pinv(a, {rtol = 0.01}), {{0.5, 0}, {0, 0}}, 1e-12)
    assert.close(tide.lstsq(a, tide.ones({2}, "float64"), {rtol = 0.01}), {0.5, 0}, 1e-12)
  end)

  it("keep derivatives at constant rank", function()
    -- a rank-two matrix moved among rank-two matrices
    local left, right, b = random({5, 2}), random({2, 4}), random({5})
    assert.is_true(tide.gradcheck(function(l, r) return tide.pinv(mm(l, r), {rtol = 1e-8}) end, {left, right}))
    assert.is_true(tide.gradcheck(function(l, r, y) return tide.lstsq(mm(l, r), y, {rtol = 1e-8}) end,
      {left, right, b}))
  end)
end)

describe("determinants", function()
  it("are exact for small whole numbers", function()
    assert.close(tide.det(tide.tensor({{{1, 2}, {3, 4}}, {{2, 0}, {0, 3}}, {{1, 2}, {2, 4}}}, "float64")),
      {-2, 6, 0}, 1e-15)
    assert.are.equal(1, tide.det(tide.zeros({0, 0})):item())
  end)

  it("agree with slogdet, which does not overflow", function()
    everywhere(function(n, dtype, tol)
      local a = random({3, n, n}, dtype) / math.sqrt(n)
      local sign, log = tide.slogdet(a)
      assert.close(sign * log:exp() / tide.det(a), {1, 1, 1}, tol * 10)
    end)
    local sign, log = tide.slogdet(eye(400) * -1e-3)
    assert.are.equal(1, sign:item())
    assert.close(log, 400 * math.log(1e-3), 1e-12)
    sign, log = tide.slogdet(tide.zeros({2, 2}))
    assert.are.equal(0, sign:item())
    assert.are.equal(-math.huge, log:item())
  end)

  it("have derivatives of both orders where the matrix is singular", function()
    local rank_two = tide.tensor({{1, 2, 3}, {2, 4, 6}, {1, 0, 1}}, "float64")
    assert.is_true(tide.gradcheck(tide.det, {rank_two}))
    assert.is_true(tide.gradcheck(tide.det, {tide.zeros({2, 2}, "float64")}))
    assert.is_true(tide.gradcheck(tide.det, {tide.stack {rank_two, random {3, 3}}}))
    local x = tide.zeros({3, 3}, "float64"):requires_grad()
    tide.det(x):backward()
    assert.close(x.grad, tide.zeros({3, 3}), 0)
    local big = random {30, 30}
    big[30] = big[1]
    x = big:clone():requires_grad()
    tide.det(x):backward()
    local bumped = big:clone()
    bumped[{30, 4}] = bumped[{30, 4}] + 1  -- the determinant is linear in one element
    assert.close(x.grad[{30, 4}] / tide.det(bumped), 1, 1e-8)
    local wide = random {9, 9}
    wide[9] = wide[1] + wide[2]
    assert.is_true(tide.gradcheck(tide.det, {wide}, {rtol = 1e-5, rtol_second = 1e-4}))
  end)
end)

describe("the matrix exponential", function()
  it("of a diagonal, a nilpotent and a turning matrix is known", function()
    for _, dtype in ipairs {"float32", "float64"} do
      local tol = dtype == "float32" and 1e-5 or 1e-13
      local d = tide.tensor({-20, -1, 0, 3.5}, dtype)
      assert.close(tide.matrix_exp(tide.diag(d)), tide.diag(d:exp()), tol)
      local shift = tide.tensor({{0, 2, 3}, {0, 0, 4}, {0, 0, 0}}, dtype)
      assert.close(tide.matrix_exp(shift), {{1, 2, 7}, {0, 1, 4}, {0, 0, 1}}, tol)
      for _, angle in ipairs {1e-9, 0.3, 2, 40} do
        local turn = tide.matrix_exp(tide.tensor({{0, -angle}, {angle, 0}}, dtype))
        local a = tide.tensor(angle, dtype):item()
        assert.close(turn, {{math.cos(a), -math.sin(a)}, {math.sin(a), math.cos(a)}}, tol * math.max(1, angle))
      end
    end
  end)

  it("of −a is the inverse, at any size and in batches", function()
    everywhere(function(n, dtype, tol)
      local a = random({2, n, n}, dtype) / math.sqrt(n)
      local product = mm(tide.matrix_exp(a), tide.matrix_exp(-a))
      assert.close(product - eye(n, dtype), tide.zeros_like(product), tol * 10)
    end)
  end)

  it("keeps its derivative exact under large and small cotangents in float32", function()
    local a = random({4, 4}, "float32") / 2
    local weights = random({4, 4}, "float32")
    local function gradient(scale)
      return tide.grad(function(x) return (tide.matrix_exp(x) * weights * scale):sum() end)(a) / scale
    end
    local expected = tide.grad(function(x) return (tide.matrix_exp(x) * weights:double()):sum() end)(a:double())
    for _, scale in ipairs {1e-12, 1, 1e12} do assert.close(gradient(scale):double(), expected, 1e-5) end
    assert.close(gradient(1) * 0, tide.grad(function(x) return (tide.matrix_exp(x) * 0):sum() end)(a), 0)
  end)
end)

describe("derivatives of vectors", function()
  it("are NaN where their values coincide, and only then", function()
    local function gradient(f, x)
      x = x:detach():clone():requires_grad()
      f(x):backward()
      return x.grad
    end
    local weights = random {3, 3}
    local function of_vectors(x) return (select(2, tide.eigh(x)) * weights):sum() end
    assert.is_true(gradient(of_vectors, eye(3)):isnan():sum():item() > 0)
    assert.are.equal(0, gradient(of_vectors, tide.diag(tide.tensor({1, 2, 3}, "float64"))):isnan():sum():item())
    -- values alone
    assert.close(gradient(function(x) return tide.eigvalsh(x):sum() end, eye(3)), eye(3), 1e-14)
    assert.close(gradient(function(x) return (tide.svd(x)):sum() * 0 + tide.svdvals(x):sum() end,
      tide.diag(tide.tensor({1, 2, 3}, "float64"))), eye(3), 1e-13)
    assert.close(gradient(function(x) return tide.svdvals(x):sum() end, eye(3)), eye(3), 1e-14)
    -- the vector of a value that stands apart, beside two that coincide
    local apart = tide.diag(tide.tensor({1, 5, 1}, "float64"))
    local g = gradient(function(x) return (select(2, tide.eigh(x))[{{}, 3}] * weights[1]):sum() end, apart)
    assert.are.equal(0, g:isnan():sum():item())
    -- the best approximation of a rank that the matrix already has
    local low = mm(random {5, 2}, random {2, 4})
    local function truncated(x)
      local u, s, vt = tide.svd(x)
      return mm(u:narrow(2, 1, 2) * s:narrow(1, 1, 2), vt:narrow(1, 1, 2)):sum()
    end
    local p, ones = mm(low, tide.pinv(low, {rtol = 1e-8})), tide.ones({5, 4}, "float64")
    local q = mm(tide.pinv(low, {rtol = 1e-8}), low)
    assert.close(gradient(truncated, low), mm(p, ones) + mm(ones, q) - mm(p, ones, q), 1e-11)
  end)

  it("are right through the results that are used alone", function()
    local tall, wide, square = random {4, 3}, random {3, 4}, random {3, 3}
    local function only(f, i) return function(x) return (select(i, f(x))) end end
    for _, x in ipairs {tall, wide, square} do
      for i = 1, 2 do assert.is_true(tide.gradcheck(only(tide.qr, i), {x}, {rtol = 1e-5, rtol_second = 1e-4})) end
      for i = 1, 3 do assert.is_true(tide.gradcheck(only(tide.svd, i), {x}, {rtol = 1e-4, rtol_second = 1e-3})) end
    end
    for i = 1, 2 do assert.is_true(tide.gradcheck(only(tide.eigh, i), {square}, {rtol = 1e-5, rtol_second = 1e-4})) end
  end)

  it("flow through views of the operands", function()
    local a, b = positive {2, 3, 3}, random {3, 2, 2}
    assert.is_true(tide.gradcheck(function(x, y)
      return tide.solve(x:t():unsqueeze(2), y:permute(2, 1, 3):unsqueeze(1))
    end, {a, b}))
    assert.is_true(tide.gradcheck(function(x) return tide.cholesky(mm(x, x:t()) + eye(3)):t() end, {a}))
  end)
end)

describe("empty matrices and batches", function()
  it("have results of the right shape", function()
    for _, dtype in ipairs {"float32", "float64"} do
      local function shapes(...)
        local list = {}
        for i, x in ipairs {...} do list[i] = table.concat(x.shape, "×") end
        return table.concat(list, " ")
      end
      local none, batch, flat = tide.zeros({0, 0}, dtype), tide.zeros({0, 3, 3}, dtype), tide.zeros({0, 3}, dtype)
      assert.are.equal("0×0", shapes(tide.inv(none)))
      assert.are.equal("0×3×3", shapes(tide.inv(batch)))
      assert.are.equal("0×3×2", shapes(tide.solve(batch, tide.zeros({3, 2}, dtype))))
      assert.are.equal("3×0", shapes(tide.solve(tide.eye(3, 3, dtype), tide.zeros({3, 0}, dtype))))
      assert.are.equal("0×0 0×3", shapes(tide.qr(flat)))
      assert.are.equal("3×0 0×0", shapes(tide.qr(flat:t())))
      assert.are.equal("0×0 0 0×3", shapes(tide.svd(flat)))
      assert.are.equal("0×3 0×3×3", shapes(tide.eigh(batch)))
      assert.are.equal("0×0", shapes(tide.cholesky(none)))
      assert.are.equal("0", shapes(tide.det(batch)))
      assert.are.equal("3×0", shapes(tide.pinv(flat)))
      assert.close(tide.lstsq(flat, tide.zeros({0, 2}, dtype)), tide.zeros({3, 2}), 0)
      assert.are.equal("0×0", shapes(tide.matrix_exp(none)))
      assert.are.equal("0×3×3 0×3", shapes(tide.lu_factor(batch)))
      assert.are.equal("0×0 0×0 0×0", shapes(linalg.lu(none)))
    end
  end)

  it("have gradients", function()
    for _, name in ipairs {"inv", "det", "qr", "svd", "eigh", "cholesky", "matrix_exp", "pinv", "lu_factor",
      "svdvals"} do
      for _, shape in ipairs {{0, 0}, {0, 3, 3}} do
        local x = tide.zeros(shape):requires_grad()
        local y = (tide[name](x))
        tide.gradients(y:sum(), x)
      end
    end
  end)
end)

describe("failures", function()
  local nan = 0 / 0

  it("of singular matrices say which, under the operation's own name", function()
    local a = tide.stack {eye(2), tide.tensor({{1, 2}, {2, 4}}, "float64")}
    assert.fails_here(function() tide.inv(a) end, "inv: matrix 2 of 2 is singular: pivot 2 is zero")
    assert.fails_here(function() tide.solve(a, random {2, 1}) end, "solve: matrix 2 of 2 is singular")
    assert.fails_here(function() tide.solve_triangular(tide.zeros {2, 2}, tide.zeros {2}) end,
      "solve_triangular: the matrix is singular: pivot 1 is zero")
    assert.fails_here(function() tide.cholesky(-eye(2)) end, "cholesky: the matrix is not positive definite")
    assert.fails_here(function() tide.lu_factor(tide.zeros {2, 2}) end, "lu_factor: the matrix is singular")
  end)

  it("of matrices with NaN or infinity say so", function()
    for _, bad in ipairs {nan, math.huge} do
      local a = tide.tensor({{1, 2}, {bad, 4}}, "float64")
      for _, name in ipairs {"inv", "det", "slogdet", "lu_factor", "cholesky", "qr", "svd", "svdvals",
        "eigh", "eigvalsh",
                             "pinv", "matrix_exp"} do
        assert.fails_here(function() tide[name](a) end, name .. ": ", "NaN or infinity")
      end
      assert.fails_here(function() tide.solve(a, tide.ones({2}, "float64")) end,
        "solve: the matrix contains NaN or infinity")
      assert.fails_here(function() tide.lstsq(a, tide.ones({2}, "float64")) end,
        "lstsq: the matrix contains NaN or infinity")
    end
    assert.fails_here(function() tide.matrix_exp(eye(2) * 1e4) end, "matrix_exp: the result overflows")
  end)

  it("of shapes and types name the operation and what came", function()
    local a = tide.zeros {2, 3}
    for _, name in ipairs {"inv", "det", "slogdet", "cholesky", "lu_factor", "eigh", "eigvalsh", "matrix_exp"} do
      assert.fails_here(function() tide[name](a) end, name .. ": ", "(2×3)", "square")
    end
    assert.fails_here(function() tide.qr(tide.zeros {3}) end, "qr: ", "(3)", "expected a matrix")
    assert.fails_here(function() tide.solve(tide.eye(3), tide.zeros {4, 1}) end, "solve: ", "(3×3)", "(4×1)", "rows")
    assert.fails_here(function() tide.solve(tide.eye(3), tide.zeros {3}:double()) end, "solve: ", "float32", "float64")
    assert.fails_here(function() tide.solve(tide.zeros {2, 3, 3}, tide.zeros {4, 3, 1}) end, "solve: ", "broadcast")
    assert.fails_here(function() tide.inv(tide.zeros({2, 2}, "int64")) end, "inv: ", "int64", "float32 or float64")
    assert.fails_here(function() tide.lu_solve(eye(2), tide.tensor({1, 3}, "int64"), tide.zeros({2}, "float64")) end,
      "lu_solve: pivot 3 is outside 1..2")
    assert.fails_here(function() tide.lu_solve(eye(2), tide.tensor({1}, "int64"), tide.zeros({2}, "float64")) end,
      "lu_solve: pivots")
  end)
end)

describe("tide.linalg", function()
  it("holds the operations under their names", function()
    for _, name in ipairs {"solve", "inv", "det", "svd", "eigh", "lstsq", "matrix_exp"} do
      assert.are.equal(tide[name], linalg[name])
    end
  end)

  it("takes powers", function()
    local a = positive {2, 3, 3}
    assert.close(a:matrix_power(5), mm(a, a, a, a, a), 1e-12)
    assert.close(linalg.matrix_power(a, 1), a, 0)
    assert.close(linalg.matrix_power(a, 0), eye(3):expand(2, 3, 3), 0)
    assert.close(linalg.matrix_power(a, -2), mm(tide.inv(a), tide.inv(a)), 1e-12)
    assert.fails_here(function() linalg.matrix_power(a, 0.5) end,
      "matrix_power: the power is 0.5, expected a whole number")
  end)

  it("sums diagonals and multiplies block by block", function()
    assert.close(tide.tensor({{{1, 2}, {3, 4}}, {{5, 6}, {7, 8}}}):trace(), {5, 13}, 0)
    assert.close(tide.tensor {{1, 2, 3}, {4, 5, 6}}:trace(), 6, 0)
    local a, b = tide.tensor {{1, 2}, {3, 4}}, tide.tensor {{0, 5, 1}}
    assert.close(a:kron(b), {{0, 5, 1, 0, 10, 2}, {0, 15, 3, 0, 20, 4}}, 0)
    local c, d = random {2, 3, 2}, random {2, 2, 2}
    assert.close(linalg.kron(c, d)[2], linalg.kron(c[2], d[2]), 0)
    assert.is_true(tide.gradcheck(linalg.kron, {c, d}))
  end)

  it("measures vectors and matrices", function()
    local x = tide.tensor({{3, -4}, {0, 12}}, "float64")
    assert.close(linalg.vector_norm(x), 13, 1e-15)
    assert.close(linalg.vector_norm(x, 1, 2), {7, 12}, 0)
    assert.close(linalg.vector_norm(x, math.huge, 1, true), {{3, 12}}, 0)
    assert.close(linalg.vector_norm(x, -math.huge), 0, 0)
    assert.close(linalg.vector_norm(x, 0), 3, 0)
    assert.close(linalg.vector_norm(x, 3), (27 + 64 + 1728) ^ (1 / 3), 1e-14)
    assert.close(linalg.matrix_norm(x), 13, 1e-15)
    assert.close(linalg.matrix_norm(x, 1), 16, 0)
    assert.close(linalg.matrix_norm(x, -1), 3, 0)
    assert.close(linalg.matrix_norm(x, math.huge), 12, 0)
    assert.close(linalg.matrix_norm(x, -math.huge), 7, 0)
    local s = tide.svdvals(x)
    assert.close(linalg.matrix_norm(x, 2), s[1], 0)
    assert.close(linalg.matrix_norm(x, -2), s[2], 0)
    assert.close(linalg.matrix_norm(x, "nuc"), s:sum(), 1e-15)
    assert.fails_here(function() linalg.matrix_norm(x, 3) end, "matrix_norm: kind is 3")
  end)

  it("tells rank and condition", function()
    local a = tide.stack {eye(3), tide.diag(tide.tensor({1, 1e-20, 4}, "float64")), tide.zeros({3, 3}, "float64")}
    assert.close(a:matrix_rank(), {3, 2, 0}, 0)
    assert.close(linalg.matrix_rank(tide.diag(tide.tensor {1, 0.05}), {rtol = 0.1}), 1, 0)
    local d = tide.diag(tide.tensor({2, 8}, "float64"))
    assert.close(linalg.cond(d), 4, 1e-14)
    assert.close(linalg.cond(d, 1), 4, 1e-14)
    assert.close(linalg.cond(d, "fro"), 4.25, 1e-14)
    assert.close(linalg.cond(tide.diag(tide.tensor {1, 0})), math.huge, 0)
  end)
end)
