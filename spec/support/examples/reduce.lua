-- Reductions, running sums, sorting, softmax, the matrix product.

local array = require "spec.support.array"

local examples = {}

local function fold(start, f)
  return function(list)
    local v = start
    for _, e in ipairs(list) do v = f(v, e) end
    return v
  end
end
local total = fold(0, function(a, b) return a + b end)
local product = fold(1, function(a, b) return a * b end)
local function euclid(list) return math.sqrt(fold(0, function(a, b) return a + b * b end)(list)) end
local function log_sum_exp(list)
  local top = math.max(-math.huge, unpack(list))
  if top == -math.huge then return top end
  local sum = 0
  for _, v in ipairs(list) do sum = sum + math.exp(v - top) end
  return top + math.log(sum)
end
local function extreme(better)
  return function(list)
    local best = 1
    for i, v in ipairs(list) do
      if better(v, list[best]) then best = i end
    end
    return list[best], best
  end
end
local greatest = extreme(function(a, b) return a > b end)
local least = extreme(function(a, b) return a < b end)

-- Every way to name dims, for an operation of (x, dims, keepdim).
local function reductions(f, empty, more)
  local function twin(x, dims, keepdim)
    if type(dims) == "table" and dims.dims then dims, keepdim = dims.dims, dims.keepdim end
    return x:reduce(dims, keepdim, f)
  end
  local list = {
    {args = function(r) return {r.real({})} end, twin = twin},
    {args = function(r) return {r.real({1})} end, twin = twin},
    {args = function(r) return {r.real({3, 5})} end, twin = twin},
    {args = function(r) return {r.real({3, 5}), 1} end, twin = twin},
    {args = function(r) return {r.real({3, 5}), -1, true} end, twin = twin},
    {args = function(r) return {r.real({2, 3, 4}), 2} end, twin = twin},
    {args = function(r) return {r.real({2, 3, 4}), {1, 3}} end, twin = twin},
    {args = function(r) return {r.real({2, 3, 4}), {dims = {2, 3}, keepdim = true}} end, twin = twin},
    {args = function(r) return {r.real({2, 3, 2, 3}), {-1, 2}, true} end, twin = twin},
    {args = function(r) return {r.real({1037})} end, twin = twin, grad = false},
    {args = function(r) return {r.real({37, 41}), 1} end, twin = twin, grad = false},
    {args = function(r) return {r.real({0, 3}), 2} end, twin = twin, grad = false},
  }
  if empty then
    list[#list + 1] = {args = function(r) return {r.real({3, 0}), 2} end, twin = twin, grad = false}
    list[#list + 1] = {args = function(r) return {r.real({0})} end, twin = twin, grad = false}
  end
  for _, e in ipairs(more or {}) do list[#list + 1] = e end
  return list
end

local function int_example(f)
  return {args = function(r) return {r.integers({4, 3}, -3, 4), 1} end, twin = function(x) return x:reduce(1,
    false, f) end}
end
local function byte_example(f)
  return {args = function(r) return {r.integers({70}, 1, 2, "uint8"):narrow(1, 1, 7)} end,
    twin = function(x) return x:reduce(nil, false, f) end}
end

examples.sum = reductions(total, true, {int_example(total), {
  args = function(r) return {r.integers({30}, 100, 255, "uint8")} end,
  twin = function(x) return x:reduce(nil, false, total) end,
}})
examples.prod = reductions(product, true, {int_example(product), byte_example(product), {
  args = function(r) return {r.real({2, 4}, 1, 2) * r.constant {{1, 0, 1, 1}, {0, 1, 0, 1}}, 2} end,
  twin = function(x) return x:reduce(2, false, product) end,
}})
for i, e in ipairs(examples.prod) do  -- products of many elements between -2 and 2 say little
  if i == 10 or i == 11 then
    local args = e.args
    e.args = function(r)
      local list = args(r)
      list[1] = 1 + list[1] / 100
      return list
    end
  end
end
examples.norm = reductions(euclid, true)
examples.logsumexp = reductions(log_sum_exp, true, {{
  args = function(r) return {r.real({2, 3}) * 1000, 2} end, grad = false,
  twin = function(x) return x:reduce(2, false, log_sum_exp) end,
}})
examples.max = reductions(greatest, false, {int_example(greatest), byte_example(greatest)})
examples.min = reductions(least, false, {int_example(least), byte_example(least)})

local function cumsum(x, dim, reverse)
  if type(dim) == "table" then dim, reverse = dim.dim, dim.reverse end
  return x:along(dim, function(row)
    local out, sum = {}, 0
    for i = reverse and #row or 1, reverse and 1 or #row, reverse and -1 or 1 do
      sum = sum + row[i]
      out[i] = sum
    end
    return out
  end)
end
examples.cumsum = {
  {args = function(r) return {r.real({7}), 1} end, twin = cumsum},
  {args = function(r) return {r.real({3, 5}), 1} end, twin = cumsum},
  {args = function(r) return {r.real({3, 5}), -1, true} end, twin = cumsum},
  {args = function(r) return {r.real({2, 3, 4}), {dim = 2, reverse = true}} end, twin = cumsum},
  {args = function(r) return {r.integers({3, 5}, -9, 9), 2} end, twin = cumsum},
  {args = function(r) return {r.real({2, 0}), 2} end, twin = cumsum},
}

local function sort(x, dim, descending)
  return x:along(dim or -1, function(row)
    local order, values = {}, {}
    for i = 1, #row do order[i] = i end
    table.sort(order, function(a, b)
      if row[a] == row[b] then return a < b end
      if descending then return row[a] > row[b] end
      return row[a] < row[b]
    end)
    for i, p in ipairs(order) do values[i] = row[p] end
    return values, order
  end)
end
examples.sort = {
  {args = function(r) return {r.real({7})} end, twin = sort},
  {args = function(r) return {r.real({3, 5}), 1, true} end, twin = sort},
  {args = function(r) return {r.real({2, 3, 4}), 2} end, twin = sort},
  {args = function(r) return {r.integers({3, 40}, 0, 9), 2} end, twin = sort},
  {args = function(r) return {r.integers({3, 40}, 0, 9), 2, true} end, twin = sort},
  {args = function(r) return {r.real({3, 0})} end, twin = function(x) return x, x end},
  {args = function(r) return {r.real({2, 300})} end, twin = sort, grad = false},
}

local function softmax(row)
  local z, out = log_sum_exp(row), {}
  for i, v in ipairs(row) do out[i] = math.exp(v - z) end
  return out
end
local function log_softmax(row)
  local z, out = log_sum_exp(row), {}
  for i, v in ipairs(row) do out[i] = v - z end
  return out
end
local function rowwise(f)
  local function twin(x, dim) return (x:along(dim or -1, f)) end
  return {
    {args = function(r) return {r.real({7}, -3, 3)} end, twin = twin},
    {args = function(r) return {r.real({3, 5}, -3, 3), 1} end, twin = twin},
    {args = function(r) return {r.real({2, 3, 4}, -3, 3), 2} end, twin = twin},
    {args = function(r) return {r.real({2, 3}) * 500, -1} end, twin = twin, grad = false},
    {args = function(r) return {r.real({3, 1}, -3, 3)} end, twin = twin},
    {args = function(r) return {r.real({0, 4})} end, twin = twin},
    {args = function(r) return {r.real({5, 133}, -9, 9)} end, twin = twin, grad = false},
  }
end
examples.softmax = rowwise(softmax)
examples.log_softmax = rowwise(log_softmax)

-- The fused derivatives (y, dy) of both.
local function zipped(y, dy, dim, f)
  local whole = array.new({2, unpack(y.shape)}, function(at)
    local rest = {unpack(at, 2)}
    return (at[1] == 1 and y or dy):at(rest)
  end)
  local n = #y.shape
  dim = dim < 0 and n + 1 + dim or dim
  local out = array.new(y.shape, function() return 0 end)
  local outer = {unpack(y.shape)}
  outer[dim] = 1
  for at in array.indices(outer) do
    local a, b = {}, {}
    for i = 1, y.shape[dim] do
      local own = {unpack(at)}
      own[dim] = i
      a[i], b[i] = whole:at {1, unpack(own)}, whole:at {2, unpack(own)}
    end
    for i, v in ipairs(f(a, b)) do
      local own = {unpack(at)}
      own[dim] = i
      out.data[out:position(own)] = v
    end
  end
  return out
end
local function pair_examples(f)
  local function twin(y, dy, dim) return zipped(y, dy, dim or -1, f) end
  return {
    {args = function(r) return {r.real({3, 5}, 0, 0.4), r.real({3, 5})} end, twin = twin},
    {args = function(r) return {r.real({3, 5}, 0, 0.4), r.real({3, 5}), 1} end, twin = twin},
    {args = function(r) return {r.real({2, 77}, 0, 0.4), r.real({2, 77})} end, twin = twin},
  }
end
examples.softmax_grad = pair_examples(function(y, dy)
  local dot, out = 0, {}
  for i = 1, #y do dot = dot + y[i] * dy[i] end
  for i = 1, #y do out[i] = y[i] * (dy[i] - dot) end
  return out
end)
examples.log_softmax_grad = pair_examples(function(y, dy)
  local sum, out = 0, {}
  for i = 1, #y do sum = sum + dy[i] end
  for i = 1, #y do out[i] = dy[i] - math.exp(y[i]) * sum end
  return out
end)

local matmul = array.matmul
local products = {
  {{1, 1}, {1, 1}}, {{3, 4}, {4, 5}}, {{1, 7}, {7, 1}}, {{7, 1}, {1, 7}}, {{2, 3, 4}, {4, 2}}, {{3, 4}, {2,
    4, 2}},
  {{2, 1, 3, 2}, {4, 2, 3}}, {{2, 3, 0}, {0, 2}}, {{0, 3}, {3, 2}}, {{0, 2, 3}, {3, 2}},
  {{33, 17}, {17, 29}, big = true}, {{5, 65, 31}, {31, 3}, big = true}, {{70, 70}, {70, 70}, big = true},
}
examples.mm = {}
for i, p in ipairs(products) do
  examples.mm[i] = {args = function(r) return {r.real(p[1]), r.real(p[2])} end, twin = matmul,
    grad = not p.big}
end
examples.mm[#examples.mm + 1] = {
  args = function(r) return {r.real({2, 4, 3}):transpose(2, 3), r.real({2, 5, 4}):transpose(2, 3)} end,
    twin = matmul,
}

return examples
