-- Indexing and assignment: t[i], t[{i, {first, last, step}, {}}], t[mask], t[positions].

require "spec.helper"
local tide = require "tide"

local function shape(t) return table.concat(t.shape, "×") end
local function grid() return tide.arange(12):reshape(3, 4) end  -- 1..4, 5..8, 9..12

describe("an index", function()
  it("that is a number drops its dim, negative ones count from the end", function()
    local x = grid()
    assert.close(x[2], {5, 6, 7, 8}, 0)
    assert.close(x[-1], {9, 10, 11, 12}, 0)
    assert.are.equal(7, x[2][3]:item())
    assert.are.equal(7, x[{2, 3}]:item())
    assert.are.equal(8, x[{-2, -1}]:item())
    assert.are.equal(0, x[{2, 3}].ndim)
  end)

  it("that is a range keeps its dim: {first, last, step}, {} for all of it", function()
    local x = grid()
    assert.close(x[{{2, 3}}], {{5, 6, 7, 8}, {9, 10, 11, 12}}, 0)
    assert.close(x[{{}, {2, 3}}], {{2, 3}, {6, 7}, {10, 11}}, 0)
    assert.close(x[{{1, -1, 2}, {1, -1, 3}}], {{1, 4}, {9, 12}}, 0)
    assert.close(x[{{2}}], {{5, 6, 7, 8}}, 0)
    assert.close(x[{{}, 2}], {2, 6, 10}, 0)
    assert.close(x[{-1, {-2, -1}}], {11, 12}, 0)
    assert.are.equal("0×4", shape(x[{{3, 2}}]))
    assert.close(x[{}], x, 0)
  end)

  it("that is a mask picks what is not 0", function()
    local x = grid()
    assert.close(x[x:gt(9)], {10, 11, 12}, 0)
    assert.close(x[tide.tensor({1, 0, 1}, "uint8")], {{1, 2, 3, 4}, {9, 10, 11, 12}}, 0)
    assert.close(x[{{}, tide.tensor({0, 1, 0, 1}, "uint8")}], {{2, 4}, {6, 8}, {10, 12}}, 0)
    assert.close(x:t()[x:t():gt(10)], {11, 12}, 0)
    assert.are.equal(0, x[x:gt(99)].numel)
    assert.close(x:masked_select(x:le(2)), {1, 2}, 0)
  end)

  it("that is a list of positions selects in its order", function()
    local x = grid()
    assert.close(x[tide.tensor({3, 1, -1}, "int64")], {{9, 10, 11, 12}, {1, 2, 3, 4}, {9, 10, 11, 12}}, 0)
    assert.close(x[{2, tide.tensor({4, 4}, "int64")}], {8, 8}, 0)
  end)

  it("finds what is not 0", function()
    assert.close(tide.tensor({0, 3, 0, -1}):nonzero(), {2, 4}, 0)
    assert.close(grid():t():gt(10):nonzero(), {9, 12}, 0)
    assert.close(tide.tensor({0 / 0, 0}):nonzero(), {1}, 0)
    assert.are.equal(0, tide.zeros(0):nonzero().numel)
    assert.are.equal("int64", tide.zeros(3):nonzero().dtype)
  end)

  it("outside the tensor is refused with its size", function()
    local x = grid()
    for _, bad in ipairs {0, 4, -4, 1.5, 0 / 0, 1e300} do
      assert.fails_here(function() return x[bad] end, "index", "outside 1..3 of dim 1")
    end
    assert.fails_here(function() return x[{1, 5}] end, "index", "5 is outside 1..4 of dim 2")
    assert.fails_here(function() return x[{1, 1, 1}] end, "index", "more indices", "2 dims")
    assert.fails_here(function() return tide.zeros()[1] end, "index", "0 dims")
    assert.fails_here(function() return x[{{1, 9}}] end, "index", "9 is outside")
    assert.fails_here(function() return x[{{1, 3, 0}}] end, "step", "0")
    assert.fails_here(function() return x[{{1, 3, "2x"}}] end, "step", "2x")
    assert.fails_here(function() return x[{{1, 2, 3, 4}}] end, "range", "4 parts")
    assert.fails_here(function() return x[true] end, "index", "boolean")
    assert.fails_here(function() return x[{"a"}] end, "index", "\"a\"")
    assert.fails_here(function() return x[tide.tensor({1, 0}, "uint8")] end, "mask", "(2)", "(3×4)")
    assert.fails_here(function() return x[{{}, tide.tensor({1, 0}, "uint8")}] end, "mask", "(2)", "size 4")
    assert.fails_here(function() return x[tide.tensor({1, 4}, "int64")] end, "index", "4", "1..3")
    assert.fails_here(function() return x[tide.tensor({1, 2})] end, "float32", "int64")
  end)

  it("passes gradients through every form", function()
    local x = grid():double():requires_grad()
    local y = x[2]:sum() + x[{{}, {2, 3}}]:sum() * 10 + x[x:gt(11)]:sum() * 100 + x[{}]:sum() * 1000
      + x[tide.tensor({1, 1}, "int64")]:sum() * 1e4 + x[{-1, 1}] * 1e6
    y:backward()
    assert.close(x.grad, {{21000, 21010, 21010, 21000}, {1001, 1011, 1011, 1001}, {1001000, 1010, 1010,
      1100}}, 0)
  end)
end)

describe("assignment", function()
  it("writes numbers and broadcast tensors where the index points", function()
    local x = tide.zeros(3, 4)
    x[1] = 1
    x[{{2, 3}, 1}] = tide.tensor({5, 6})
    x[{2, 2}] = tide.tensor(7)
    x[{{}, {3, 4}}] = tide.tensor({{8, 9}})
    assert.close(x, {{1, 1, 8, 9}, {5, 7, 8, 9}, {6, 0, 8, 9}}, 0)
    x[{}] = 2
    assert.are.equal(24, x:sum():item())
  end)

  it("writes where a mask is not 0", function()
    local x = grid()
    x[x:gt(3)] = 0
    assert.close(x, {{1, 2, 3, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}}, 0)
    x[tide.tensor({0, 1, 1}, "uint8")] = tide.tensor({1, 2, 3, 4})
    assert.close(x[3], {1, 2, 3, 4}, 0)
    x:t()[tide.tensor({1, 0, 0, 0}, "uint8")] = -1
    assert.close(x[{{}, 1}], {-1, -1, -1}, 0)
  end)

  it("converts to the tensor's type", function()
    local x = tide.zeros(2, "uint8")
    x[1] = tide.tensor(3.9)
    assert.close(x, {3, 0}, 0)
  end)

  it("copes with a value that is part of the tensor", function()
    local x = grid()
    x[{{}, {2, 4}}] = x[{{}, {1, 3}}]
    assert.close(x, {{1, 1, 2, 3}, {5, 5, 6, 7}, {9, 9, 10, 11}}, 0)
  end)

  it("is refused when it cannot be done, and leaves the tensor as it was", function()
    local x = grid()
    assert.fails_here(function() x[1] = tide.zeros(3) end, "index", "(3)", "(4)")
    assert.fails_here(function() x[4] = 1 end, "index", "outside 1..3")
    assert.fails_here(function() x[1] = "a" end, "index", "value", "\"a\"")
    assert.fails_here(function() x[1] = nil end, "index", "value")
    assert.fails_here(function() x[x:gt(3)] = tide.zeros(9) end, "index", "broadcast")
    assert.fails_here(function() x[tide.tensor({1}, "int64")] = 1 end, "positions", "mask")
    assert.fails_here(function() x.name = 1 end, "name")
    assert.fails_here(function() x.shape = {1} end, "shape")
    assert.close(x, grid(), 0)
  end)

  it("is refused where it would spoil a gradient", function()
    local w = tide.zeros(3):requires_grad()
    local x = tide.zeros(3)
    assert.fails_here(function() w[1] = 1 end, "gradient", "no_grad")
    assert.fails_here(function() x[1] = w[1] end, "gradient")
    assert.fails_here(function() (w * 2)[1] = 1 end, "gradient")
    tide.no_grad(function() w[1] = 1 end)
    assert.close(w:detach(), {1, 0, 0}, 0)
    assert.is_true(tide.is_grad_enabled())
  end)
end)
