-- Linear algebra: factors are checked by what they must multiply to.

local array = require "spec.support.array"
local tide = require "tide"

local matmul, eye = array.matmul, array.eye
local examples = {}

local function square(r, n, batch)
  local shape = {n, n}
  if batch then table.insert(shape, 1, batch) end
  return r.real(shape) + tide.eye(n, n, r.dtype) * 4
end
local function symmetric(x) return (x + x:t()) / 2 end
local function positive(x) return x:matmul(x:t()) + tide.eye(x:size(-1), x:size(-1), x.dtype) end

-- b as a matrix of columns, when it may be one vector.
local function columns(b) return #b.shape == 1 and array.new({b.shape[1], 1}, b.data) or b end

local function with(list, tol, extra)
  for _, e in ipairs(list) do
    e.tol, e.tol32 = tol or 1e-9, 2e-3
    for k, v in pairs(extra or {}) do e[k] = v end
  end
  return list
end

local function solves(args, results) return {{matmul(args[1], columns(results[1])), columns(args[2])}} end
examples.solve = with {
  {args = function(r) return {square(r, 1), r.real({1, 1})} end, check = solves},
  {args = function(r) return {square(r, 3), r.real({3, 2})} end, check = solves},
  {args = function(r) return {square(r, 4), r.real({4})} end, check = solves},
  {args = function(r) return {square(r, 3, 2), r.real({2, 3, 2})} end, check = solves},
  {args = function(r) return {square(r, 3), r.real({2, 3, 2})} end, check = solves},
  {args = function(r) return {square(r, 23), r.real({23, 5})} end, check = solves, grad = false},
}
examples.inv = with {
  {args = function(r) return {square(r, 3)} end, check = function(a, y) return {{matmul(a[1], y[1]), eye {3,
    3}}} end},
  {args = function(r) return {square(r, 2, 3)} end,
    check = function(a, y) return {{matmul(a[1], y[1]), eye {3, 2, 2}}} end},
  {args = function(r) return {square(r, 29)} end, grad = false,
    check = function(a, y) return {{matmul(a[1], y[1]), eye {29, 29}}} end},
}

local function triangle(a, upper, unit)
  return a:entries(function(v, i, j)
    if unit and i == j then return 1 end
    return (i == j or (i < j) == (upper or false)) and v or 0
  end)
end
local function triangular(args, results)
  local o = args[3] or {}
  local a = triangle(args[1], o.upper, o.unit)
  return {{matmul(o.transpose and a:t() or a, columns(results[1])), columns(args[2])}}
end
examples.solve_triangular = with {
  {args = function(r) return {square(r, 3), r.real({3, 2})} end, check = triangular},
  {args = function(r) return {square(r, 3), r.real({3, 2}), {upper = true}} end, check = triangular},
  {args = function(r) return {square(r, 3), r.real({3, 1}), {transpose = true}} end, check = triangular},
  {args = function(r) return {r.real({3, 3}), r.real({3, 2}), {upper = true, unit = true}} end,
    check = triangular},
  {args = function(r) return {square(r, 2, 3), r.real({3, 2, 2}), {upper = true, transpose = true}} end,
    check = triangular},
}

-- The determinant by expansion along the first row, for one matrix as nested lists.
local function minor_sum(m)
  if #m == 0 then return 1 end
  local sum = 0
  for k = 1, #m do
    local rest = {}
    for i = 2, #m do
      rest[i - 1] = {}
      for j = 1, #m do
        if j ~= k then table.insert(rest[i - 1], m[i][j]) end
      end
    end
    sum = sum + (k % 2 == 1 and 1 or -1) * m[1][k] * minor_sum(rest)
  end
  return sum
end
local function determinants(a)
  local n, batch, out = a.shape[#a.shape], {unpack(a.shape, 1, #a.shape - 2)}, {}
  for start = 0, #a.data / (n * n) - 1 do
    local m = {}
    for i = 1, n do m[i] = {unpack(a.data, start * n * n + (i - 1) * n + 1, start * n * n + i * n)} end
    out[#out + 1] = minor_sum(m)
  end
  return array.new(batch, out)
end
examples.det = with {
  {args = function(r) return {r.real({1, 1})} end, twin = determinants},
  {args = function(r) return {r.real({3, 3})} end, twin = determinants},
  {args = function(r) return {r.real({2, 4, 4})} end, twin = determinants},
  {args = function(r) return {r.constant {{1, 2}, {2, 4}}} end, twin = determinants, grad = false},
}
local function sign_and_log(a)
  local d = determinants(a)
  return array.map(function(v) return v > 0 and 1 or v < 0 and -1 or 0 end, d),
    array.map(function(v) return math.log(math.abs(v)) end, d)
end
examples.slogdet = with({
  {args = function(r) return {r.real({3, 3})} end, twin = sign_and_log},
  {args = function(r) return {r.real({2, 3, 3})} end, twin = sign_and_log},
}, nil, {through = function(op) return function(a) return (select(2, op(a))) end end})

examples.cholesky = with({
  {args = function(r) return {positive(r.real({3, 3}))} end},
  {args = function(r) return {positive(r.real({2, 4, 4}))} end},
  {args = function(r) return {positive(r.real({17, 17}))} end, grad = false},
}, nil, {check = function(a, y)
  return {{matmul(y[1], y[1]:t()), a[1]}, {triangle(y[1], false), y[1]}}
end})

-- Lᵀ… of a packed factorisation: P·a = L·U undone to a.
local function unpacked(lu, pivots)
  local a = matmul(triangle(lu, false, true), triangle(lu, true))
  local n = lu.shape[#lu.shape]
  for start = 0, #lu.data / (n * n) - 1 do
    for i = n, 1, -1 do
      local other = pivots.data[start * n + i]
      for j = 1, n do
        local p, q = start * n * n + (i - 1) * n + j, start * n * n + (other - 1) * n + j
        a.data[p], a.data[q] = a.data[q], a.data[p]
      end
    end
  end
  return a
end
examples.lu_factor = with({
  {args = function(r) return {r.real({3, 3})} end},
  {args = function(r) return {r.real({2, 4, 4})} end},
  {args = function(r) return {r.real({19, 19})} end, grad = false},
}, nil, {check = function(a, y) return {{unpacked(y[1], y[2]), a[1]}} end})
local function factored(a, b, o)
  local lu, pivots = tide.lu_factor(a)
  return {lu, pivots, b, o}
end
examples.lu_solve = with({
  {args = function(r) return factored(square(r, 3), r.real({3, 2})) end},
  {args = function(r) return factored(square(r, 3), r.real({3, 2}), {transpose = true}) end},
  {args = function(r) return factored(square(r, 2, 3), r.real({3, 2, 1})) end},
}, nil, {check = function(args, x)
  local a = unpacked(args[1], args[2])
  return {{matmul(args[4] and a:t() or a, x[1]), args[3]}}
end})

local function orthonormal(q)
  local gram = matmul(q:t(), q)
  return {gram, eye(gram.shape)}
end
local tall_and_wide = {{3, 3}, {4, 2}, {2, 4}, {2, 3, 2}, {17, 9, big = true}}
local function for_shapes(shapes, e)
  local list = {}
  for i, shape in ipairs(shapes) do
    list[i] = {args = function(r) return {r.real({unpack(shape)})} end, grad = not shape.big}
    for k, v in pairs(e) do list[i][k] = v end
  end
  return list
end
examples.qr = with(for_shapes(tall_and_wide, {check = function(a, y)
  return {{matmul(y[1], y[2]), a[1]}, orthonormal(y[1]), {triangle(y[2], true), y[2]}}
end}))

local function scaled_columns(u, s)
  local n = #u.shape
  return array.new({unpack(u.shape)}, function(at)
    local own = {unpack(at)}
    table.remove(own, n - 1)
    return u:at(at) * s:at(own)
  end)
end
local function in_order(s, descending)
  return {s, (s:along(-1, function(row)
    table.sort(row, function(a, b) if descending then return a > b end return a < b end)
    return row
  end))}
end
-- Σ λᵏ and tr aᵏ for k = 1, 2, 3
local function moments(w, a)
  local list, power = {}, a
  for k = 1, 3 do
    local trace = power:entries(function(v, i, j) return i == j and v or 0 end)
      :reduce({-1, -2}, false, function(l) local sum = 0 for _, v in ipairs(l) do sum = sum
        + v end return sum end)
    local sum = w:reduce(-1, false, function(l) local s = 0 for _, v in ipairs(l) do s = s
      + v ^ k end return s end)
    list[k] = {sum, trace}
    power = matmul(power, a)
  end
  return list
end
examples.svd = with(for_shapes(tall_and_wide, {check = function(a, y)
  return {{matmul(scaled_columns(y[1], y[2]), y[3]), a[1]}, orthonormal(y[1]), orthonormal(y[3]:t()),
    in_order(y[2], true)}
end}))
examples.svdvals = with(for_shapes(tall_and_wide, {check = function(a, y)
  local squares = array.map(function(s) return s * s end, y[1])
  local list = moments(squares, matmul(a[1]:t(), a[1]))
  list[4] = in_order(y[1], true)
  return list
end}), 1e-8)
local function eigen(name, check)
  examples[name] = with({
    {args = function(r) return {symmetric(r.real({3, 3}))} end},
    {args = function(r) return {symmetric(r.real({2, 4, 4}))} end},
    {args = function(r) return {symmetric(r.real({15, 15}))} end, grad = false},
  }, 1e-8, {check = check})
end
eigen("eigh", function(a, y)
  return {{matmul(scaled_columns(y[2], y[1]), y[2]:t()), a[1]}, orthonormal(y[2]), in_order(y[1])}
end)
eigen("eigvalsh", function(a, y)
  local list = moments(y[1], a[1])
  list[4] = in_order(y[1])
  return list
end)

examples.pinv = with(for_shapes({{3, 3}, {4, 2}, {2, 4}, {2, 3, 2}}, {check = function(a, y)
  local left, right = matmul(a[1], y[1]), matmul(y[1], a[1])
  return {{matmul(left, a[1]), a[1]}, {matmul(right, y[1]), y[1]}, {left, left:t()}, {right, right:t()}}
end}))
-- aᵀ(a·x − b) = 0, and x in the row space of a: x = aᵀ(a·aᵀ)⁻¹·a·x, checked for wide a by a·x = b
local function least_squares(a, x)
  local m, b = a[1], columns(a[2])
  local rest = array.map(function(p, q) return p - q end, matmul(m, columns(x[1])), b)
  local normal = matmul(m:t(), rest)
  return {{normal, array.map(function() return 0 end, normal)}}
end
examples.lstsq = with {
  {args = function(r) return {r.real({4, 2}), r.real({4, 2})} end, check = least_squares},
  {args = function(r) return {r.real({2, 4}), r.real({2, 1})} end, check = least_squares},
  {args = function(r) return {r.real({5, 3}), r.real({5})} end, check = least_squares},
  {args = function(r) return {r.real({2, 4, 2}), r.real({2, 4, 1})} end, check = least_squares},
}

-- Taylor's series of a/2⁶, squared six times.
local function matrix_exp(a)
  local small = array.map(function(v) return v / 64 end, a)
  local sum, term = eye(a.shape), eye(a.shape)
  for k = 1, 24 do
    term = array.map(function(v) return v / k end, matmul(term, small))
    sum = array.map(function(p, q) return p + q end, sum, term)
  end
  for _ = 1, 6 do sum = matmul(sum, sum) end
  return sum
end
examples.matrix_exp = with(for_shapes({{1, 1}, {3, 3}, {2, 2, 2}, {11, 11, big = true}},
  {twin = matrix_exp}), 1e-8)

return examples
