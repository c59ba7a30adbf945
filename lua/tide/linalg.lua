-- Linear algebra over the last two dims; the dims before them are a batch. The operations themselves are the core's and
-- methods too (a:inv(), a:solve(b), …); what is made of them stands here. All differentiable where the parts are.

local core = require "tide.core"
local options = require "tide.options"
local tensor = require "tide.tensor"
local message = require "tide.message"

local M = {}
local raise, shape = message.raise, message.shape

for _, name in ipairs {
  "solve", "inv", "det", "slogdet", "solve_triangular", "cholesky", "lu_factor", "lu_solve", "qr", "svd", "svdvals",
  "eigh", "eigvalsh", "lstsq", "pinv", "matrix_exp",
} do M[name] = core[name] end

-- x, if it holds real matrices (square ones, if so asked).
local function matrices(fname, x, square)
  if not tensor.is_tensor(x) then raise("%s: a is a %s, expected a tensor", fname, type(x)) end
  if x.dtype ~= "float32" and x.dtype ~= "float64" then
    raise("%s: a is %s, expected float32 or float64", fname, x.dtype)
  end
  if x.ndim < 2 then raise("%s: a has shape (%s), expected a matrix in the last two dims", fname, shape(x)) end
  if square and x:size(-1) ~= x:size(-2) then
    raise("%s: a has shape (%s), expected a square matrix in the last two dims", fname, shape(x))
  end
  return x
end

-- ---- Products and powers ----

--- Sum of the diagonal of each matrix.
function M.trace(a)
  matrices("trace", a)
  return core.sum(a * core.eye(a:size(-2), a:size(-1), a.dtype), {-2, -1})
end

--- Kronecker product: each element of a times all of b, in blocks. Batches broadcast.
function M.kron(a, b)
  matrices("kron", a)
  matrices("kron", b)
  local blocks = core.unsqueeze(core.unsqueeze(a, -1), -3) * core.unsqueeze(core.unsqueeze(b, -2), -4)
  local sizes = blocks.shape  -- batch, rows of a, rows of b, columns of a, columns of b
  local n = #sizes
  local out = {unpack(sizes, 1, n - 4)}
  out[n - 3], out[n - 2] = sizes[n - 3] * sizes[n - 2], sizes[n - 1] * sizes[n]
  return core.reshape(blocks, out)
end

--- a to a whole power; 0 gives unit matrices, a negative one the power of the inverse.
function M.matrix_power(a, n)
  matrices("matrix_power", a, true)
  if type(n) ~= "number" or n % 1 ~= 0 then
    raise("matrix_power: the power is %s, expected a whole number", tostring(n))
  end
  if n < 0 then a, n = core.inv(a), -n end
  if n == 0 then return core.contiguous(core.expand(core.eye(a:size(-1), a:size(-1), a.dtype), a.shape)) end
  local product
  while true do  -- a is squared once for each binary digit of n
    if n % 2 == 1 then product = product and core.mm(product, a) or a end
    n = math.floor(n / 2)
    if n == 0 then return product end
    a = core.mm(a, a)
  end
end

-- ---- Factorisations ----

--- P, L, U with a = P·L·U: P a permutation, L lower with ones on its diagonal, U upper. lu_factor and lu_solve are the
--- forms to compute with.
function M.lu(a)
  local lu, pivots = core.lu_factor(matrices("lu", a, true))
  local n = a:size(-1)
  local unit = core.eye(n, n, a.dtype)
  local row, at, rows = pivots:reshape(-1):totable(), 0, {}
  for first = 0, #row - 1, math.max(n, 1) do  -- unit rows in the order of the exchanges: Pᵀ
    local order = {}
    for i = 1, n do order[i] = i end
    for i = 1, n do order[i], order[row[first + i]] = order[row[first + i]], order[i] end
    for i = 1, n do rows[at + i] = order[i] end
    at = at + n
  end
  local p = core.zeros(a.shape, a.dtype)
  if #rows > 0 then
    p = tensor.t(core.reshape(core.index_select(unit, core.tensor(rows, "int64"), 1), a.shape))
  end
  return p, tensor.tril(lu, -1) + unit, tensor.triu(lu)
end

--- x with l·lᵀ·x = b, l the lower Cholesky factor of the system's matrix.
function M.cholesky_solve(l, b)
  return core.solve_triangular(l, core.solve_triangular(l, b), {transpose = true})
end

-- ---- Norms, rank, condition ----

-- The p-norm over dims, which may be nil for all.
local function power_norm(x, p, dims, keepdim)
  if p == 2 then return core.norm(x, dims, keepdim) end
  local size = core.abs(x)
  if p == math.huge then return (core.max(size, dims, keepdim)) end
  if p == -math.huge then return (core.min(size, dims, keepdim)) end
  if p == 0 then return core.to(core.sum(core.ne(x, 0), dims, keepdim), x.dtype) end
  if p == 1 then return core.sum(size, dims, keepdim) end
  return core.sum(size ^ p, dims, keepdim) ^ (1 / p)
end

--- The p-norm (Σ|x|ᵖ)^(1/p) over dims, or over all. p is a number (2), ±math.huge for the greatest and least |x|, 0 for
--- the count of elements that are not 0.
function M.vector_norm(x, p, dims, keepdim)
  if not tensor.is_tensor(x) then raise("vector_norm: x is a %s, expected a tensor", type(x)) end
  if p ~= nil and type(p) ~= "number" then raise("vector_norm: p is %s, expected a number", tostring(p)) end
  return power_norm(x, p or 2, dims, keepdim or false)
end

--- A norm of each matrix: "fro" (Frobenius, the default), "nuc" (sum of singular values), 2 or -2 (greatest and least
--- singular value), 1 or -1 (greatest and least sum of |a| in a column), math.huge or -math.huge (in a row).
function M.matrix_norm(a, kind)
  matrices("matrix_norm", a)
  if kind == nil or kind == "fro" then return core.norm(a, {-2, -1}) end
  if kind == "nuc" then return core.sum(core.svdvals(a), -1) end
  if kind == 2 then return (core.max(core.svdvals(a), -1)) end
  if kind == -2 then return (core.min(core.svdvals(a), -1)) end
  local dim = math.abs(type(kind) == "number" and kind or 0)
  if dim ~= 1 and dim ~= math.huge then
    raise("matrix_norm: kind is %s, expected \"fro\", \"nuc\", 1, -1, 2, -2, math.huge or -math.huge", tostring(kind))
  end
  local sums = core.sum(core.abs(a), dim == 1 and -2 or -1)
  return (kind > 0 and core.max or core.min)(sums, -1)
end

--- How many singular values of each matrix exceed rtol times the greatest (int64). rtol: the rounding of the element
--- type times the greater size.
function M.matrix_rank(a, opts)
  matrices("matrix_rank", a)
  local o = options.check("matrix_rank", opts, {rtol = options.none})
  local rounding = a.dtype == "float32" and 2 ^ -23 or 2 ^ -52
  local rtol = o.rtol or rounding * math.max(a:size(-1), a:size(-2))
  local s = core.svdvals(a)
  if s:size(-1) == 0 then return core.sum(core.to(s, "int64"), -1) end
  return core.sum(core.gt(s, core.narrow(s, -1, 1, 1) * rtol), -1)
end

--- Condition number: the greatest singular value over the least (infinite where that is 0, NaN where both are), or
--- |a|·|a⁻¹| in another matrix_norm.
function M.cond(a, kind)
  matrices("cond", a)
  if kind == nil or kind == 2 or kind == -2 then
    local s = core.svdvals(a)
    local ratio = core.select(s, -1, 1) / core.select(s, -1, -1)
    return kind == -2 and 1 / ratio or ratio
  end
  return M.matrix_norm(a, kind) * M.matrix_norm(core.inv(matrices("cond", a, true)), kind)
end

return M
