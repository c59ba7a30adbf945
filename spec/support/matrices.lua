-- Linear algebra in plain Lua, as textbooks write it: the slow twins of the operations on matrices. A matrix is a
-- table of rows. Nothing here is fast, and well-conditioned matrices are assumed.

local array = require "spec.support.array"

local M = {}

--- The matrix of f(i, j).
function M.make(rows, columns, f)
  local a = {rows = rows, columns = columns}
  for i = 1, rows do
    a[i] = {}
    for j = 1, columns do a[i][j] = f(i, j) end
  end
  return a
end
local make = M.make

function M.unit(n) return make(n, n, function(i, j) return i == j and 1 or 0 end) end
function M.t(a) return make(a.columns, a.rows, function(i, j) return a[j][i] end) end
function M.mul(a, b)
  return make(a.rows, b.columns, function(i, j)
    local sum = 0
    for k = 1, a.columns do sum = sum + a[i][k] * b[k][j] end
    return sum
  end)
end
function M.map(a, f) return make(a.rows, a.columns, function(i, j) return f(a[i][j], i, j) end) end
function M.symmetric(a) return make(a.rows, a.rows, function(i, j) return (a[i][j] + a[j][i]) / 2 end) end

--- x with a·x = b, and det a: Gauss and Jordan with partial pivoting. Nil and 0 for a singular matrix.
function M.solve(a, b)
  local n, det = a.rows, 1
  local w, x = M.map(a, function(v) return v end), M.map(b, function(v) return v end)
  for j = 1, n do
    local p = j
    for i = j + 1, n do if math.abs(w[i][j]) > math.abs(w[p][j]) then p = i end end
    if w[p][j] == 0 then return nil, 0 end
    if p ~= j then w[p], w[j], x[p], x[j], det = w[j], w[p], x[j], x[p], -det end
    det = det * w[j][j]
    for i = 1, n do
      if i ~= j then
        local f = w[i][j] / w[j][j]
        for k = 1, n do w[i][k] = w[i][k] - f * w[j][k] end
        for k = 1, b.columns do x[i][k] = x[i][k] - f * x[j][k] end
      end
    end
  end
  for i = 1, n do
    for k = 1, b.columns do x[i][k] = x[i][k] / w[i][i] end
  end
  return x, det
end

function M.inverse(a) return (M.solve(a, M.unit(a.rows))) end
function M.det(a) return (select(2, M.solve(a, M.unit(a.rows)))) end

--- One triangle of a, with ones on the diagonal if `ones`.
function M.triangle(a, upper, ones)
  return M.map(a, function(v, i, j)
    if i == j then return ones and 1 or v end
    return (upper and i < j or not upper and i > j) and v or 0
  end)
end

function M.cholesky(a)
  local l = make(a.rows, a.rows, function() return 0 end)
  for i = 1, a.rows do
    for j = 1, i do
      local sum = a[i][j]
      for k = 1, j - 1 do sum = sum - l[i][k] * l[j][k] end
      l[i][j] = i == j and math.sqrt(sum) or sum / l[j][j]
    end
  end
  return l
end

--- L below and U above the diagonal of one matrix, and the rows exchanged.
function M.lu(a)
  local lu, pivots = M.map(a, function(v) return v end), {}
  for j = 1, a.rows do
    local p = j
    for i = j + 1, a.rows do if math.abs(lu[i][j]) > math.abs(lu[p][j]) then p = i end end
    lu[p], lu[j], pivots[j] = lu[j], lu[p], p
    for i = j + 1, a.rows do
      lu[i][j] = lu[i][j] / lu[j][j]
      for k = j + 1, a.rows do lu[i][k] = lu[i][k] - lu[i][j] * lu[j][k] end
    end
  end
  return lu, pivots
end

--- The matrix whose factors these are.
function M.from_lu(lu, pivots)
  local a = M.mul(M.triangle(lu, false, true), M.triangle(lu, true))
  for i = a.rows, 1, -1 do a[i], a[pivots[i]] = a[pivots[i]], a[i] end
  return a
end

--- Q and R by Gram and Schmidt, R's diagonal positive.
function M.qr(a)
  local k = math.min(a.rows, a.columns)
  local q = make(a.rows, k, function(i, j) return a[i][j] end)
  for j = 1, k do
    for _ = 1, 2 do  -- once is not enough
      for p = 1, j - 1 do
        local dot = 0
        for i = 1, a.rows do dot = dot + q[i][p] * q[i][j] end
        for i = 1, a.rows do q[i][j] = q[i][j] - dot * q[i][p] end
      end
      local norm = 0
      for i = 1, a.rows do norm = norm + q[i][j] ^ 2 end
      for i = 1, a.rows do q[i][j] = q[i][j] / math.sqrt(norm) end
    end
  end
  return q, M.mul(M.t(q), a)
end

--- Ascending eigenvalues and their vectors of a symmetric matrix, by Jacobi's rotations.
function M.eigh(a)
  local n = a.rows
  local d, v = M.symmetric(a), M.unit(n)
  for _ = 1, 30 do
    for p = 1, n do
      for q = p + 1, n do
        local angle = 0.5 * math.atan2(2 * d[p][q], d[q][q] - d[p][p])
        local c, s = math.cos(angle), math.sin(angle)
        local turn = M.unit(n)
        turn[p][p], turn[q][q], turn[p][q], turn[q][p] = c, c, s, -s
        d, v = M.mul(M.t(turn), M.mul(d, turn)), M.mul(v, turn)
      end
    end
  end
  local order, w = {}, {}
  for i = 1, n do order[i] = i end
  table.sort(order, function(i, j) return d[i][i] < d[j][j] end)
  for i = 1, n do w[i] = d[order[i]][order[i]] end
  return w, make(n, n, function(i, j) return v[i][order[j]] end)
end

--- U, S (descending), Vᵀ from the eigenvectors of the smaller of aᵀ·a and a·aᵀ.
function M.svd(a)
  if a.rows < a.columns then
    local u, s, vt = M.svd(M.t(a))
    return M.t(vt), s, M.t(u)
  end
  local n = a.columns
  local w, v = M.eigh(M.mul(M.t(a), a))
  local s, vt = {}, make(n, n, function(i, j) return v[j][n + 1 - i] end)
  for i = 1, n do s[i] = math.sqrt(math.max(w[n + 1 - i], 0)) end
  return M.map(M.mul(a, M.t(vt)), function(x, _, j) return x / s[j] end), s, vt
end

--- The pseudo-inverse of a matrix of full rank.
function M.pinv(a)
  local at = M.t(a)
  if a.rows >= a.columns then return M.mul(M.inverse(M.mul(at, a)), at) end
  return M.mul(at, M.inverse(M.mul(a, at)))
end

--- The exponential, by its series after halving the matrix ten times.
function M.exp(a)
  local small = M.map(a, function(v) return v / 1024 end)
  local sum, term = M.unit(a.rows), M.unit(a.rows)
  for k = 1, 14 do
    term = M.map(M.mul(term, small), function(v) return v / k end)
    sum = M.map(sum, function(v, i, j) return v + term[i][j] end)
  end
  for _ = 1, 10 do sum = M.mul(sum, sum) end
  return sum
end

-- ---- Arrays of matrices ----

local function batch_shape(a) return {unpack(a.shape, 1, #a.shape - 2)} end

-- The matrix of a at an index of a batch shape to which a's own broadcasts.
local function matrix_at(a, at)
  local n = #a.shape
  return make(a.shape[n - 1], a.shape[n], function(i, j)
    local full = {unpack(at)}
    full[#at + 1], full[#at + 2] = i, j
    local own, lead = {}, #at + 2 - n
    for k = 1, n do own[k] = k <= n - 2 and a.shape[k] == 1 and 1 or full[lead + k] end
    return a:at(own)
  end)
end

-- Sizes and row-major elements of a matrix, a list or a number.
local function parts(x)
  if type(x) == "number" then return {}, {x} end
  if not x.rows then return {#x}, x end
  local data = {}
  for i = 1, x.rows do
    for j = 1, x.columns do data[#data + 1] = x[i][j] end
  end
  return {x.rows, x.columns}, data
end

--- f of the matrices of arrays whose batches broadcast; its results (matrices, lists or numbers) as arrays.
function M.batched(f, ...)
  local operands, stubs = {...}, {}
  for i, a in ipairs(operands) do
    local shape, n = batch_shape(a), 1
    for _, size in ipairs(shape) do n = n * size end
    local data = {}
    for k = 1, n do data[k] = 0 end
    stubs[i] = array.new(shape, data)
  end
  local batch = array.broadcast_shape(unpack(stubs))
  local shapes, data = {}, {}
  for at in array.indices(batch) do
    local own = {}
    for i, a in ipairs(operands) do own[i] = matrix_at(a, at) end
    for r, x in ipairs {f(unpack(own))} do
      local shape, elements = parts(x)
      shapes[r], data[r] = shape, data[r] or {}
      for _, e in ipairs(elements) do table.insert(data[r], e) end
    end
  end
  local results = {}
  for r, shape in ipairs(shapes) do
    local whole = {unpack(batch)}
    for _, size in ipairs(shape) do whole[#whole + 1] = size end
    results[r] = array.new(whole, data[r])
  end
  return unpack(results)
end

--- An array with a dim of size 1 put last, or its last dim of size 1 taken away.
function M.column(a)
  local shape = {unpack(a.shape)}
  shape[#shape + 1] = 1
  return array.new(shape, a.data)
end
function M.flat(a) return array.new({unpack(a.shape, 1, #a.shape - 1)}, a.data) end

return M
