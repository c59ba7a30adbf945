-- Element-wise operations: the function each computes, where its argument lives, where its derivative jumps.

local array = require "spec.support.array"
local special = require "spec.support.special"
local tide = require "tide"

local log, sqrt, exp = math.log, math.sqrt, math.exp
local function truth(b) return b and 1 or 0 end
local function finite(x) return x == x and x ~= math.huge and x ~= -math.huge end

local function gelu(x) return x / 2 * (1 + special.erf(x / sqrt(2))) end
local function gelu_tanh(x) return x / 2 * (1 + math.tanh(sqrt(2 / math.pi) * (x + 0.044715 * x ^ 3))) end
local function slope(f)
  return function(x, dy)
    local h = 1e-3  -- a fourth-order difference: good to 1e-10
    return dy * (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)
  end
end
local function silu(x) return x * special.sigmoid(x) end

-- name = {function, from, to, kinks = {…}, tol = absolute and relative, float64}
local unary = {
  neg = {function(x) return -x end, -3, 3},
  abs = {math.abs, -3, 3, kinks = {0}},
  sign = {special.sign, -3, 3, kinks = {0}},
  square = {function(x) return x * x end, -3, 3},
  exp = {exp, -4, 4},
  expm1 = {special.expm1, -2, 2},
  log = {log, 0.1, 9},
  log1p = {special.log1p, -0.8, 5},
  log2 = {function(x) return log(x) / log(2) end, 0.1, 9},
  log10 = {math.log10, 0.1, 9},
  sqrt = {sqrt, 0.2, 9},
  rsqrt = {function(x) return 1 / sqrt(x) end, 0.2, 9},
  reciprocal = {function(x) return 1 / x end, 0.3, 4},
  sin = {math.sin, -7, 7},
  cos = {math.cos, -7, 7},
  tan = {math.tan, -1.3, 1.3},
  asin = {math.asin, -0.9, 0.9},
  acos = {math.acos, -0.9, 0.9},
  atan = {math.atan, -5, 5},
  sinh = {math.sinh, -3, 3},
  cosh = {math.cosh, -3, 3},
  tanh = {math.tanh, -3, 3},
  erf = {special.erf, -3, 3},
  erfc = {special.erfc, -3, 3},
  sigmoid = {special.sigmoid, -5, 5},
  silu = {silu, -5, 5},
  gelu = {gelu, -4, 4},
  gelu_tanh = {gelu_tanh, -4, 4},
  softplus = {special.softplus, -5, 5},
  log_sigmoid = {function(x) return -special.softplus(-x) end, -5, 5},
  relu = {function(x) return math.max(x, 0) end, -3, 3, kinks = {0}},
  floor = {math.floor, -3, 3, kinks = {-3, -2, -1, 0, 1, 2, 3}},
  ceil = {math.ceil, -3, 3, kinks = {-3, -2, -1, 0, 1, 2, 3}},
  round = {special.round, -3, 3, kinks = {-2.5, -1.5, -0.5, 0.5, 1.5, 2.5}},
  trunc = {special.trunc, -3, 3, kinks = {-3, -2, -1, 0, 1, 2, 3}},
  isnan = {function(x) return truth(x ~= x) end, -3, 3},
  isinf = {function(x) return truth(x == x and not finite(x)) end, -3, 3},
  isfinite = {function(x) return truth(finite(x)) end, -3, 3},
  logical_not = {function(x) return truth(x == 0) end, -1, 1},
}

-- name = {function, {from, to} of a, {from, to} of b, apart = keep a from b}
local binary = {
  add = {function(a, b) return a + b end, {-3, 3}, {-3, 3}},
  sub = {function(a, b) return a - b end, {-3, 3}, {-3, 3}},
  mul = {function(a, b) return a * b end, {-3, 3}, {-3, 3}},
  div = {function(a, b) return a / b end, {-3, 3}, {0.4, 3}},
  pow = {function(a, b) return a ^ b end, {0.3, 2.5}, {-2, 3}},
  atan2 = {math.atan2, {-3, 3}, {0.3, 3}},
  maximum = {math.max, {-3, 3}, {-3, 3}, apart = true},
  minimum = {math.min, {-3, 3}, {-3, 3}, apart = true},
  floor_div = {function(a, b) return math.floor(a / b) end, {-9, 9}, {1.1, 1.9}, away = true},
  mod = {function(a, b) return a - b * math.floor(a / b) end, {-9, 9}, {1.1, 1.9}, away = true},
  eq = {function(a, b) return truth(a == b) end, {-3, 3}, {-3, 3}},
  ne = {function(a, b) return truth(a ~= b) end, {-3, 3}, {-3, 3}},
  lt = {function(a, b) return truth(a < b) end, {-3, 3}, {-3, 3}},
  le = {function(a, b) return truth(a <= b) end, {-3, 3}, {-3, 3}},
  gt = {function(a, b) return truth(a > b) end, {-3, 3}, {-3, 3}},
  ge = {function(a, b) return truth(a >= b) end, {-3, 3}, {-3, 3}},
  logical_and = {function(a, b) return truth(a ~= 0 and b ~= 0) end, {-3, 3}, {-3, 3}},
  logical_or = {function(a, b) return truth(a ~= 0 or b ~= 0) end, {-3, 3}, {-3, 3}},
  logical_xor = {function(a, b) return truth((a ~= 0) ~= (b ~= 0)) end, {-3, 3}, {-3, 3}},
  silu_grad = {slope(silu), {-3, 3}, {-2, 2}, tol = 1e-9},
  gelu_grad = {slope(gelu), {-3, 3}, {-2, 2}, tol = 1e-9},
  gelu_tanh_grad = {slope(gelu_tanh), {-3, 3}, {-2, 2}, tol = 1e-9},
  relu_grad = {function(x, dy) return x > 0 and dy or 0 end, {-3, 3}, {-2, 2}, kinks = {0}},
}

local examples = {}

local shapes = {{}, {1}, {7}, {3, 5}, {2, 0, 3}, {17, 33}, {2, 3, 2, 3}}
for name, e in pairs(unary) do
  local list = {f = e[1], from = e[2], to = e[3]}
  for i, shape in ipairs(shapes) do
    list[i] = {
      args = function(r) return {r.real(shape, e[2], e[3], e.kinks)} end,
      elementwise = e[1], tol = e.tol, grad = i ~= 6,
    }
  end
  examples[name] = list
end

local pairs_of_shapes = {
  {{}, {}}, {{7}, {7}}, {{3, 5}, {5}}, {{3, 1}, {1, 4}}, {{2, 3, 4}, {}}, {{1}, {2, 2}}, {{0, 3}, {3}},
  {{19, 31}, {19, 31}}, {{2, 1, 3, 1}, {4, 1, 2}},
}
for name, e in pairs(binary) do
  local list = {f = e[1]}
  for i, pair in ipairs(pairs_of_shapes) do
    list[i] = {
      args = function(r)
        local a, b = r.real(pair[1], e[2][1], e[2][2], e.kinks), r.real(pair[2], e[3][1], e[3][2])
        if e.apart then a = (a * 10):floor() / 10 + 0.03; b = (b * 10):floor() / 10 + 0.08 end
        if e.away then a = ((a / b):floor() + 0.2 + 0.6 * r.real({}, 0, 1)) * b end
        return {a, b}
      end,
      elementwise = e[1], tol = e.tol, grad = i ~= 8,
    }
  end
  examples[name] = list
end

examples.where = {{
  args = function(r) return {r.integers({3, 1}, 0, 1, "uint8"), r.real({4}, -2, 2), r.real({3, 4}, -2,
    2)} end,
  elementwise = function(c, a, b) return c ~= 0 and a or b end,
}, {
  args = function(r) return {r.real({5}, -1, 1), r.real({}, -2, 2), r.real({5}, -2, 2)} end,
    constant = {true},
  elementwise = function(c, a, b) return c ~= 0 and a or b end,
}}
examples.fma = {{
  args = function(r) return {r.real({3, 4}, -2, 2), r.real({4}, -2, 2), r.real({3, 1}, -2, 2)} end,
  elementwise = function(a, b, c) return a * b + c end,
}, {
  args = function(r) return {r.real({261}, -2, 2), r.real({261}, -2, 2), r.real({261}, -2, 2)} end,
    grad = false,
  elementwise = function(a, b, c) return a * b + c end,
}}
examples.clamp = {{
  args = function(r) return {r.real({3, 7}, -2, 2, {-1, 0.5}), -1, 0.5} end,
  elementwise = function(x, lo, hi) return math.min(math.max(x, lo), hi) end,
}, {
  args = function(r) return {r.real({9}, -3, 3, {-1, 1}), r.real({9}, -0.9, -0.5), r.real({}, 0.5, 0.9)} end,
  elementwise = function(x, lo, hi) return math.min(math.max(x, lo), hi) end,
}}

examples.to = {
  {args = function(r) return {r.real({3, 4}, -5, 5), "float64"} end, twin = function(x) return x end,
    tol = 1e-7},
  {args = function(r) return {r.real({3, 4}, -5, 5), "float32"} end, twin = function(x) return x end,
    tol = 1e-6,
    grad = false},
  {args = function(r) return {r.real({3, 4}, -5, 5), "int64"} end, grad = false,
    twin = function(x) return array.map(special.trunc, x) end},
  {args = function(r) return {r.real({3, 4}, 0, 255), "uint8"} end, grad = false,
    twin = function(x) return array.map(special.trunc, x) end},
  {args = function(r) return {r.integers({3, 4}, 0, 255), r.dtype} end, twin = function(x) return x end},
}

local function lincomb(list)
  return array.map(function(...)
    local sum = 0
    for i = 1, select("#", ...) do sum = sum + list[1].data[i] * select(i, ...) end
    return sum
  end, unpack(list, 2))
end
examples.lincomb = {
  {args = function(r) return {{tide.tensor({2}, "float64"), r.real({3, 5})}} end, twin = lincomb},
  {args = function(r)
    return {{tide.tensor({0.5, -1, 3}, "float64"), r.real({2, 3}), r.real({2, 3}), r.real({2, 3})}}
  end, twin = lincomb},
  {args = function(r) return {{tide.tensor({1, 1}, "float64"), r.real({0}), r.real({0})}} end,
    twin = lincomb},
  {args = function(r) return {{tide.tensor({1, -2}, "float64"), r.real({1003}), r.real({1003})}} end,
    grad = false,
    twin = lincomb},
}
for _, e in ipairs(examples.lincomb) do e.constant = function(_, k) return k == 1 end end

return examples
