-- Functions made of operations: statistics, products, einsum, choosing, equality; random numbers.

local helper = require "spec.helper"
local array = helper.array
local tide = require "tide"

local g = tide.generator(9)
local function t64(values) return tide.tensor(values, "float64") end

describe("statistics", function()
  local x = g:randn(3, 4, 5, "float64")
  local function moments(list)
    local sum, squares = 0, 0
    for _, v in ipairs(list) do sum = sum + v end
    local mean = sum / #list
    for _, v in ipairs(list) do squares = squares + (v - mean) ^ 2 end
    return mean, squares
  end

  it("are means, variances and deviations over all or over dims", function()
    for _, dims in ipairs {1, -1, {1, 3}, {2, -1}} do
      local n = x.numel / x:sum(dims).numel
      local mean, squares = array.of(x):reduce(dims, false, moments)
      assert.close(x:mean(dims), mean, 1e-13)
      assert.close(x:var(dims), array.map(function(s) return s / (n - 1) end, squares), 1e-13)
      assert.close(x:var(dims, false, false), array.map(function(s) return s / n end, squares), 1e-13)
      assert.close(x:std(dims), array.map(function(s) return math.sqrt(s / (n - 1)) end, squares), 1e-13)
    end
    assert.close(x:mean(), (moments(x:reshape(-1):totable())), 1e-13)
    assert.are.same({3, 1, 5}, x:mean(2, true).shape)
    assert.are.same({3, 1, 5}, x:var({dims = 2, keepdim = true, unbiased = false}).shape)
    assert.are.equal("float32", tide.arange(3):long():mean().dtype)
  end)

  it("of nothing are NaN", function()
    local nothing = tide.zeros(0)
    assert.is_true(nothing:mean():item() ~= nothing:mean():item())
    assert.are.equal(0, nothing:sum():item())
    assert.are.equal(1, nothing:prod():item())
    assert.are.equal(-math.huge, nothing:logsumexp():item())
  end)

  it("find places, ask for any and all", function()
    local y = t64 {{1, 5, 5}, {7, -1, 0}}
    assert.are.equal(4, y:argmax():item())
    assert.are.equal(5, y:argmin():item())
    assert.close(y:argmax(2), {2, 1}, 0)
    assert.close(tide.tensor({{3, 9, 2}, {1, 0, 5}}):argsort(2), {{3, 1, 2}, {2, 1, 3}}, 0)
    assert.close(tide.tensor({3, 9, 2}):argsort(1, true), {2, 1, 3}, 0)
    assert.close(y:argmin(1, true), {{1, 2, 2}}, 0)
    assert.close(y:all(2), {1, 0}, 0)
    assert.close(y:any(1), {1, 1, 1}, 0)
    assert.are.equal(0, y:all():item())
    local top, at = y:topk(2)
    assert.close(top, {{5, 5}, {7, 0}}, 0)
    assert.close(at, {{2, 3}, {1, 3}}, 0)
    assert.close(y:topk(1, 1, false), {{1, -1, 0}}, 0)
  end)

  it("turn classes into rows of 0 and 1", function()
    local classes = tide.tensor({{2, 1}, {3, 3}}, "int64")
    local y = tide.one_hot(classes)
    assert.are.same({2, 2, 3}, y.shape)
    assert.close(y:argmax(3), classes, 0)
    assert.close(y:sum(3), tide.ones(2, 2), 0)
    assert.are.same({2, 2, 5}, tide.one_hot(classes, 5).shape)
    assert.close(tide.capture(function(c) return tide.one_hot(c, 3) end)(classes), y, 0)
    assert.are.same({0, 4}, tide.one_hot(tide.zeros(0):long(), 4).shape)
    assert.fails_here(function() tide.one_hot(classes, 2) end, "one_hot: class 3, expected classes from 1 to 2")
    assert.fails_here(function() tide.one_hot(tide.tensor({0}, "int64"), 2) end, "one_hot: class 0")
    assert.fails_here(function() tide.one_hot(tide.ones(2)) end, "one_hot", "float32", "int64")
  end)

  it("are differentiable", function()
    assert.is_true(tide.gradcheck(function(u)
      return u:mean(1), u:var(2), u:std(), (u:topk(2)), u:flip(2) * u, u:tril() * u, u:diag()
    end, {g:randn(3, 3, "float64")}))
  end)
end)

describe("products", function()
  it("of every small size and layout are their sums", function()
    local source, mm = tide.generator(5), array.matmul
    for _, dtype in ipairs {"float32", "float64"} do
      local tolerance = dtype == "float32" and 1e-5 or 1e-13
      for k = 1, 6 do
        for m = 1, 9 do
          for _, n in ipairs {1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 50} do
            for ways = 0, 3 do
              local a = ways % 2 == 0 and source:randn({m, k}, dtype) or source:randn({k, m}, dtype):t()
              local b = ways < 2 and source:randn({k, n}, dtype) or source:randn({n, k}, dtype):t()
              assert.close(a:matmul(b), mm(array.of(a), array.of(b)), tolerance)
            end
          end
        end
      end
      for _, m in ipairs {1, 2, 3, 8, 50} do  -- long sums to two columns
        local a, b = source:randn({m, 50}, dtype), source:randn({50, 2}, dtype)
        assert.close(a:matmul(b), mm(array.of(a), array.of(b)), 10 * tolerance)
        assert.close(a:t():matmul(source:randn({m, 2}, dtype)).shape, {50, 2}, 0)
      end
      local x, c = source:randn({50, 1}, dtype), source:randn({1, 3}, dtype)  -- parts of larger matrices
      local wide = tide.zeros({50, 8}, dtype)
      wide[{{}, {2, 4}}] = x:matmul(c)
      assert.close(wide[{{}, {2, 4}}], mm(array.of(x), array.of(c)), tolerance)
      assert.close(wide:abs():sum(), x:matmul(c):abs():sum(), 10 * tolerance)
    end
  end)

  it("of vectors, matrices and batches are matmul's", function()
    local m, v, w, b = g:randn(3, 4, "float64"), g:randn(4, "float64"), g:randn(3, "float64"), g:randn(2, 4,
      5, "float64")
    local mm = array.matmul
    assert.close(m:matmul(b), mm(array.of(m), array.of(b)), 1e-13)
    assert.close(m:matmul(v):unsqueeze(2), mm(array.of(m), array.of(v:unsqueeze(2))), 1e-13)
    assert.close(w:matmul(m):unsqueeze(1), mm(array.of(w:unsqueeze(1)), array.of(m)), 1e-13)
    assert.close(v:matmul(b):unsqueeze(2), mm(array.of(v:unsqueeze(1)), array.of(b)), 1e-13)
    assert.close(v:matmul(v), v:dot(v), 1e-13)
    assert.are.equal(0, v:matmul(v).ndim)
    assert.close(tide.outer(w, v), mm(array.of(w:unsqueeze(2)), array.of(v:unsqueeze(1))), 1e-13)
  end)

  it("are einsum's", function()
    local a, b, c = g:randn(2, 3, 4, "float64"), g:randn(4, 5, "float64"), g:randn(2, 3, "float64")
    assert.close(tide.einsum("bij,jk->bik", a, b), a:matmul(b), 1e-13)
    assert.close(tide.einsum("bij->jb", a), a:sum(2):t(), 1e-13)
    assert.close(tide.einsum("ij,ij->", c, c), (c * c):sum(), 1e-13)
    assert.close(tide.einsum("i,j->ij", c[1], b[1]), tide.outer(c[1], b[1]), 1e-13)
    assert.close(tide.einsum("bij,jk,bi->kb", a, b, c), (a:matmul(b) * c:unsqueeze(3)):sum(2):t(), 1e-13)
    assert.close(tide.einsum("ij->ji", b), b:t(), 0)
    assert.close(tide.einsum(" bi , bi -> b ", c, c), (c * c):sum(2), 1e-13)
    assert.is_true(tide.gradcheck(function(x, y) return tide.einsum("ij,kj->ik", x, y) end, {c, g:randn(2, 3,
      "float64")}))
    local bad = {
      {"ij,jk", "pattern"}, {"ii->i", "repeated"}, {"ij,jk->ik", "1 operands for 2 terms"}, {"ijk->i",
        "2 dims"},
      {"ij->k", "index k"},
    }
    for _, e in ipairs(bad) do
      assert.fails_here(function() tide.einsum(e[1], c) end, "einsum", e[2])
    end
    assert.fails_here(function() tide.einsum("ij,jk->ik", c, c) end, "index j has sizes 3 and 2")
  end)
end)

describe("equality", function()
  it("is exact in equal, to rounding in allclose", function()
    local x = t64 {1, 2}
    assert.is_true(x:equal(x:clone()) and x:equal(x:float()))
    assert.is_false(x:equal(x + 1e-12) or x:equal(t64 {1}) or x:equal(t64 {{1, 2}}))
    assert.is_true(x:allclose(x + 1e-7))
    assert.is_false(x:allclose(x + 1e-3))
    assert.is_true(x:allclose(x + 1e-3, 0, 1e-2))
    assert.is_false(t64 {0 / 0}:allclose(t64 {0 / 0}))
    assert.is_true(t64 {1 / 0}:allclose(t64 {1 / 0}))
    assert.fails_here(function() x:allclose(t64 {1, 2, 3}) end, "broadcast")
    assert.is_true(tide.is_grad_enabled())
  end)
end)

describe("random numbers", function()
  it("repeat from a seed, and differ without", function()
    local a, b = tide.generator(5), tide.generator(5)
    assert.is_true(a:randn(100):equal(b:randn(100)))
    assert.is_false(a:randn(100):equal(a:randn(100)))
    a:seed(7)
    local x = a:rand(10)
    assert.is_true(x:equal(a:seed(7):rand(10)))
    local seed, counter = a:state()
    local y = a:rand(3)
    assert.is_true(y:equal((function() a:state(seed, counter) return a:rand(3) end)()))
    tide.manual_seed(3)
    local z = tide.randn(2, 3)
    tide.manual_seed(3)
    assert.is_true(z:equal(tide.randn({2, 3})))
  end)

  it("do not depend on how they are drawn together", function()
    local whole = tide.generator(1):rand(64, "float32")
    local g2 = tide.generator(1)
    assert.close(tide.cat({g2:rand(4), g2:rand(60)}), whole, 0)
  end)

  it("are never drawn twice", function()
    local g2, seen = tide.generator(1), {}
    for i = 1, 20 do
      for _, v in ipairs(g2:rand(i % 7 + 1, i % 2 == 0 and "float32" or "float64"):totable()) do
        assert.is_nil(seen[v])
        seen[v] = true
      end
    end
  end)

  it("have the distributions that they say", function()
    local r = tide.generator(1)
    local n = 100000
    for _, dtype in ipairs {"float32", "float64"} do
      local u = r:rand(n, dtype)
      assert.is_true(u:min():item() >= 0 and u:max():item() < 1)
      assert.close(u:mean(), 0.5, 5e-3)
      assert.close(u:var(), 1 / 12, 5e-3)
      local x = r:randn(n, dtype)
      assert.close(x:mean(), 0, 1.5e-2)
      assert.close(x:var(), 1, 2e-2)
      assert.close((x ^ 3):mean(), 0, 5e-2)
      assert.close((x ^ 4):mean(), 3, 5e-2)
    end
    local b = r:bernoulli(0.3, n)
    assert.close(b:mean(), 0.3, 1e-2)
    assert.close((b * (1 - b)):abs():sum(), 0, 0)
    assert.close(r:bernoulli(0, 100):sum() + r:bernoulli(1, 100):sum(), 100, 0)
  end)

  it("are whole numbers in a range, ends included, and orders", function()
    local r = tide.generator(2)
    local k = r:randint(-1, 2, 10000)
    assert.are.equal("int64", k.dtype)
    for v = -1, 2 do assert.close(k:eq(v):double():mean(), 0.25, 2e-2) end
    assert.are.equal(10000, k:ge(-1):logical_and(k:le(2)):sum():item())
    local p = r:randperm(1000)
    assert.close((p:sort()), tide.arange(1000), 0)
    assert.is_false(p:equal(tide.arange(1000)))
    assert.are.equal(0, r:randperm(0).numel)
    assert.close(r:randint(5, 5, 3), {5, 5, 5}, 0)
  end)
end)
