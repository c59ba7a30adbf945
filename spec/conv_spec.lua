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

describe("weights that are used again", function()
  -- channels in and out, image size, options: by tiles of 4×4 and 2×2, directly, with strides, 1×1, first layers
  local kinds = {
    {16, 24, 12, 3, {padding = 1}}, {16, 16, 2, 3, {padding = {1, 0}}, 30}, {8, 32, 9, 3, {padding = 1}},
    {16, 16, 9, 3, {padding = 1, stride = 2}}, {24, 16, 6, 1, {padding = 0}}, {3, 16, 9, 3, {padding = 1}},
    {32, 32, 8, 3, {padding = 1, groups = 2}},
  }

  -- check(k, both, …) for each kind; both(w): the bits of the convolution and of its input gradient with weights w
  local function each(check)
    local g = tide.generator(8)
    for i, e in ipairs(kinds) do
      local c, o, size, window, opts, wide = unpack(e)
      local x, k = g:randn(2, size, wide or size, c), g:randn(window, window, c / (opts.groups or 1), o)
      local shape = x:conv2d(k:clone(), opts).shape
      local dy, back = g:randn(shape), {height = size, width = wide or size}
      for name, v in pairs(opts) do back[name] = v end
      local function both(w) return {x:conv2d(w, opts):tobytes(), dy:conv2d_input_grad(w, back):tobytes()} end
      check(k, both, x, opts, ("kind %d"):format(i))
    end
  end

  it("give the same bits, and other ones when they are written to", function()
    each(function(k, both, _, _, name)
      for _ = 1, 4 do assert.are.same(both(k:clone()), both(k), name) end
      local before = both(k)
      for _ = 1, 3 do
        k:mul_(1.5)
        for _ = 1, 3 do assert.are.same(both(k:clone()), both(k), name) end
      end
      assert.are_not.same(before, both(k), name)
      local row = k[1]  -- a view writes to the same memory
      row:add_(1)
      assert.are.same(both(k:clone()), both(k), name)
    end)
  end)

  it("are noticed by captured functions, also when a captured function writes them", function()
    each(function(k, _, x, opts, name)
      local f = tide.capture(function(v) return v:conv2d(k, opts) end)
      local step = tide.capture(function(v)
        local y = v:conv2d(k, opts)
        k:mul_(0.5)
        return y + v:conv2d(k, opts)
      end)
      tide.no_grad(function()
        for round = 1, 4 do
          local at = name .. " round " .. round
          for _ = 1, 3 do assert.close(f(x), x:conv2d(k:clone(), opts), 1e-6, at) end
          local expected = x:conv2d(k:clone(), opts) + x:conv2d(k * 0.5, opts)
          assert.close(step(x), expected, 1e-5, at)
          assert.close(f(x), x:conv2d(k:clone(), opts), 1e-6, at)
          k:add_(0.25)
        end
      end)
    end)
  end)

  it("are prepared in memory that goes with them, and not for values that nobody asks for again", function()
    local x, k, bytes = tide.randn(1, 16, 16, 64), tide.randn(3, 3, 64, 64), 9 * 64 * 64 * 4
    local function held(f)  -- in sizes of k
      local before = helper.live()
      f()
      return math.floor((helper.live() - before) / bytes + 0.5)
    end
    local function convolve() x:conv2d(k, {padding = 1}) end
    assert.are.equal(0, held(function()  -- as in training
      for _ = 1, 5 do
        convolve()
        k:add_(1)
      end
    end))
    assert.are.equal(4, held(function() for _ = 1, 5 do convolve() end end))
    assert.is_true(held(function() k = nil end) <= -5)
  end)
end)

describe("precision", function()
  it("says the mode and takes the two there are", function()
    assert.are.equal("fast", tide.precision())
    assert.are.equal("strict", tide.precision "strict")
    assert.are.equal("strict", tide.precision())
    assert.are.equal("fast", tide.precision "fast")
    assert.fails_here(function() tide.precision "exact" end, "precision", "\"exact\"",
      "\"fast\", \"strict\" or \"bfloat16\"")
    assert.fails_here(function() tide.precision(3) end, "precision", "3")
  end)
end)

-- Operands rounded to eight bits (Veltkamp's splitting), and sums in double precision, against what every
-- instruction set makes of them. The tolerance is that of sums in float32.
describe("precision bfloat16", function()
  local body = [[
    local tide = require "tide"
    local g = tide.generator(3)
    local function round(x)
      local c = x * (2 ^ 16 + 1)
      return c - (c - x)
    end
    local function check(name, f, a, b)
      tide.precision "bfloat16"
      local got = f(a, b):double()
      tide.precision "strict"
      local want = f(round(a):double(), round(b):double())
      local full, scale = f(a:double(), b:double()), want:abs():max():item()
      local off, effect = (got - want):abs():max():item() / scale, (want - full):abs():max():item() / scale
      if not (off < 2e-6 and effect > 2e-4) then io.write(name, " ", off, " ", effect, "\n") end
    end
    for _, s in ipairs {{64, 64, 3, 1, 1}, {3, 40, 3, 1, 1}, {1, 8, 5, 1, 1}, {20, 3, 3, 1, 1}, {33, 17, 1, 1, 1},
        {24, 36, 3, 2, 4}, {7, 9, 3, 2, 1}} do
      local c, o, k, stride, groups = unpack(s)
      local p = {padding = (k - 1) / 2, stride = stride, groups = groups, height = 11, width = 9,
        kernel_height = k, kernel_width = k}
      local x, w = g:randn {2, 11, 9, c}, g:randn {k, k, c / groups, o}
      local dy = x:conv2d(w, {padding = p.padding, stride = stride, groups = groups})
      local shape = table.concat(s, " ")
      check("conv2d " .. shape, function(a, b)
        return a:conv2d(b, {padding = p.padding, stride = stride, groups = groups})
      end, x, w)
      check("input gradient " .. shape, function(a, b)
        return a:conv2d_input_grad(b, {padding = p.padding, stride = stride, groups = groups, height = 11, width = 9})
      end, dy, w)
      check("weight gradient " .. shape, function(a, b)
        return a:conv2d_weight_grad(b, {padding = p.padding, stride = stride, groups = groups, kernel_height = k,
          kernel_width = k})
      end, x, dy)
    end
    for _, s in ipairs {{40, 50, 60}, {131, 77, 813}, {30, 30, 401}} do
      local a, b = g:randn {s[1], s[3]}, g:randn {s[3], s[2]}
      check("product", function(u, v) return u:matmul(v) end, a, b)
      check("product of transposed ones", function(u, v) return u:t():matmul(v:t()) end, a:t():contiguous(),
        b:t():contiguous())
    end
    -- ties go to even, infinities and NaN stay
    tide.precision "bfloat16"
    local odd = {1 + 2 ^ -8, 1 + 3 * 2 ^ -8, 1 / 0, 0 / 0, 3.4e38, -2 ^ -100}
    local wide = tide.zeros(6, 64, 64)
    for i, v in ipairs(odd) do wide[{i, 1, 1}] = v end
    local got = wide:matmul(tide.eye(64))
    local want = {1, 1 + 2 ^ -6, 1 / 0, 0 / 0, 1 / 0, -2 ^ -100}
    for i, v in ipairs(want) do
      local y = got[{i, 1, 1}]:item()
      if not (y == v or y ~= y and v ~= v) then io.write("rounds ", odd[i], " to ", y, "\n") end
    end
  ]]
  it("rounds operands and sums in float32, with every instruction set", function()
    for _, isa in ipairs {"base", "avx2", "avx512"} do
      local out, status = helper.child(body, {TIDE_ISA = isa})
      assert.are.same({"", 0}, {out, status}, isa)
    end
  end)

  it("leaves float64 as it is, and samples alone", function()
    local g = tide.generator(5)
    local x, w = g:randn {5, 9, 9, 16}, g:randn {3, 3, 16, 20}
    local double = x:double():conv2d(w:double(), {padding = 1})
    tide.precision "bfloat16"
    local same, all = x:double():conv2d(w:double(), {padding = 1}), x:conv2d(w, {padding = 1})
    for i = 1, 5 do
      assert.are.equal(all:narrow(1, i, 1):tobytes(), x:narrow(1, i, 1):conv2d(w, {padding = 1}):tobytes())
    end
    tide.precision "fast"
    assert.are.equal(double:tobytes(), same:tobytes())
  end)
end)
