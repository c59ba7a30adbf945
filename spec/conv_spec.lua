-- Convolutions by Winograd's filtering against those by the defining sums (tide.precision "strict"): rounding
-- bounds, odd sizes, epilogues, batches.

local helper = require "spec.helper"
local tide = require "tide"

-- {n, h, w, channels, outputs, padding, whether Winograd's way is taken}
local cases = {
  {2, 9, 11, 17, 19, 1, true}, {3, 28, 28, 32, 40, 1, true}, {1, 7, 7, 16, 16, 1, true},
  {2, 9, 10, 64, 16, 0, true}, {1, 5, 23, 48, 33, {2, 3}, true}, {1, 13, 12, 65, 70, {0, 1}, true},
  {1, 16, 16, 130, 128, 1, true}, {2, 8, 8, 18, 31, 4, true}, {1, 50, 6, 20, 16, {1, 3}, true},
  {1, 14, 4, 16, 16, 1, true}, {1, 30, 2, 16, 16, 1, true}, {1, 12, 12, 257, 130, 1, true},
  {2, 7, 7, 8, 32, 1, false}, {2, 3, 3, 32, 32, 1, false}, {1, 1, 64, 16, 16, 1, false},
  {1, 7, 7, 256, 256, 1, false}, {0, 9, 9, 16, 16, 1, false},
}

local program = [[
local tide = require "tide"
local g = tide.generator(3)
local function gap(a, b)
  if a.numel == 0 then return 0 end
  return (a - b):abs():max():item() / math.max(1e-30, b:abs():max():item())
end
for line in ([=[%s]=]):gmatch "[^\n]+" do
  local e = {}
  for number in line:gmatch "%%d+" do e[#e + 1] = tonumber(number) end
  local n, h, w, c, o, p, q = unpack(e)
  for _, dtype in ipairs {"float32", "float64"} do
    local x, k = g:randn({n, h, w, c}, dtype), g:randn({3, 3, c, o}, dtype)
    local opts = {padding = {p, q}}
    local dy = g:randn(x:conv2d(k, opts).shape, dtype)
    local function each()
      local y = x:conv2d(k, opts)
      local f = x:conv2d_fused(k, k[1][1][1], dy, {padding = opts.padding, parts = 5, activation = 1})
      local back = {padding = opts.padding, height = h, width = w}
      local wide = {padding = opts.padding, kernel_height = 3, kernel_width = 3}
      return y, dy:conv2d_input_grad(k, back), x:conv2d_weight_grad(dy, wide), f
    end
    tide.precision "strict"
    local strict = {each()}
    tide.precision "fast"
    local fast = {each()}
    io.write(dtype)
    for i = 1, 4 do io.write((" %%.17g"):format(gap(fast[i], strict[i]))) end
    io.write("\n")
  end
end]]
describe("3×3 convolutions", function()
  it("differ from the defining sums by no more than rounding, with every instruction set", function()
    local lines = {}
    for i, e in ipairs(cases) do
      local p = type(e[6]) == "table" and e[6] or {e[6], e[6]}
      lines[i] = table.concat({e[1], e[2], e[3], e[4], e[5], p[1], p[2]}, " ")
    end
    for _, isa in ipairs {"base", "avx2", "avx512"} do
      local out, status = helper.child(program:format(table.concat(lines, "\n")), {TIDE_ISA = isa})
      assert.are.equal(0, status, out)
      local i = 0
      for dtype, y, dx, dw, f in out:gmatch "(float%d+) (%S+) (%S+) (%S+) (%S+)\n" do
        local e = cases[math.floor(i / 2) + 1]
        local why = ("%s %s %s: %s %s %s %s"):format(isa, dtype, lines[math.floor(i / 2) + 1], y, dx, dw, f)
        local bound = dtype == "float32" and 1e-5 or 2e-14
        for _, gap in ipairs {y, dx, dw, f} do assert.is_true(tonumber(gap) <= bound, why) end
        assert.are.equal(e[7], tonumber(y) > 0, why)
        i = i + 1
      end
      assert.are.equal(2 * #cases, i, out)
    end
  end)

  it("give a sample the same bits in any batch", function()
    local g = tide.generator(5)
    for _, e in ipairs {{28, 32, 32}, {9, 17, 20}, {7, 16, 64}, {14, 3, 16}, {6, 5, 7}} do
      local size, c, o = unpack(e)
      local x, k, dy = g:randn(5, size, size, c), g:randn(3, 3, c, o), g:randn(5, size, size, o)
      local back = {padding = 1, height = size, width = size}
      local y, dx = x:conv2d(k, {padding = 1}), dy:conv2d_input_grad(k, back)
      for i = 1, 5 do
        local one = {{i, i}}
        assert.are.equal(y[one]:tobytes(), x[one]:contiguous():conv2d(k, {padding = 1}):tobytes())
        assert.are.equal(dx[one]:tobytes(), dy[one]:contiguous():conv2d_input_grad(k, back):tobytes())
      end
    end
  end)

  it("have right gradients by either way", function()
    local g = tide.generator(6)
    local x, k = g:randn({1, 7, 8, 16}, "float64"), g:randn({3, 3, 16, 16}, "float64")
    local r = g:randn({1, 7, 8, 16}, "float64")
    for _, mode in ipairs {"strict", "fast"} do
      tide.precision(mode)
      -- along one direction each, which sees every element
      local dx, dk = g:randn({1, 7, 8, 16}, "float64"), g:randn({3, 3, 16, 16}, "float64")
      local function f(s) return ((x + dx * s):conv2d(k + dk * s, {padding = 1}) * r):sum() end
      assert.is_true(tide.gradcheck(f, {tide.zeros({}, "float64")}, {raise = false}))
    end
    tide.precision "fast"
  end)
end)

describe("precision", function()
  it("says the mode and takes the two there are", function()
    assert.are.equal("fast", tide.precision())
    assert.are.equal("strict", tide.precision "strict")
    assert.are.equal("strict", tide.precision())
    assert.are.equal("fast", tide.precision "fast")
    assert.fails_here(function() tide.precision "exact" end, "precision", "\"exact\"", "\"fast\" or \"strict\"")
    assert.fails_here(function() tide.precision(3) end, "precision", "3")
  end)
end)
