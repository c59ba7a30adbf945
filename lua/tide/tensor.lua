-- Tensor functions and methods that are made of operations: means, products of vectors, joining and splitting, einsum.
-- Everything here is differentiable where its parts are. A function tide.f(x, …) is also the method x:f(…).

local core = require "tide.core"

local M = {}
local methods = core.methods

local function raise(...) core.raise(string.format(...)) end

--- Is x a tensor?
function M.is_tensor(x)
  return type(x) == "userdata" and getmetatable(x) == core.metatable
end
local is_tensor = M.is_tensor

local function check(fname, x, what)
  if not is_tensor(x) then raise("%s: %s is a %s, expected a tensor", fname, what or "x", type(x)) end
  return x
end

-- A dim 1..n or -1..-n as 1..n.
local function resolve_dim(fname, x, dim)
  local n = x.ndim
  if type(dim) ~= "number" or dim == 0 or dim > n or dim < -n or dim % 1 ~= 0 then
    raise("%s: dim %s is out of range for a tensor of %d dims", fname, tostring(dim), n)
  end
  return dim > 0 and dim or n + dim + 1
end

-- The number of elements that a reduction over dims (number, table or nil) takes together.
local function reduced_count(fname, x, dims)
  if dims == nil then return x.numel end
  local n = 1
  for _, d in ipairs(type(dims) == "table" and dims or {dims}) do n = n * x:size(resolve_dim(fname, x, d)) end
  return n
end

-- Reductions take (x, dims, keepdim) or (x, {dims=, keepdim=, …}); this gives the values of the named options.
local function reduction_options(fname, dims, keepdim, more)
  if type(dims) ~= "table" or #dims > 0 or next(dims) == nil then return dims, keepdim, more end
  local known = {dims = true, keepdim = true, unbiased = true}
  for key in pairs(dims) do
    if not known[key] then raise("%s: unknown option %q, expected dims, keepdim or unbiased", fname, tostring(key)) end
  end
  return dims.dims, dims.keepdim, dims.unbiased
end

-- ---- Statistics ----

--- Mean over dims, or over all. An empty reduction gives NaN.
function M.mean(x, dims, keepdim)
  check("mean", x)
  dims, keepdim = reduction_options("mean", dims, keepdim)
  local n = reduced_count("mean", x, dims)
  return core.sum(x, dims, keepdim or false) / n
end

--- Variance over dims, or over all; unbiased (divided by n − 1) unless unbiased = false.
function M.var(x, dims, keepdim, unbiased)
  check("var", x)
  dims, keepdim, unbiased = reduction_options("var", dims, keepdim, unbiased)
  local n = reduced_count("var", x, dims)
  local centred = x - M.mean(x, dims, true)
  return core.sum(core.square(centred), dims, keepdim or false) / (unbiased == false and n or n - 1)
end

--- Standard deviation, as var.
function M.std(x, dims, keepdim, unbiased)
  return core.sqrt(M.var(x, dims, keepdim, unbiased))
end

--- Position (from 1, int64) of the greatest element along dim, or in row-major order over all.
function M.argmax(x, dim, keepdim)
  local _, at = core.max(x, dim, keepdim or false)
  return at
end

--- Position (from 1, int64) of the least element along dim, or in row-major order over all.
function M.argmin(x, dim, keepdim)
  local _, at = core.min(x, dim, keepdim or false)
  return at
end

--- Is any element not 0? A 0-d uint8 tensor, or one over dims.
function M.any(x, dims, keepdim)
  return core.gt(core.sum(core.ne(x, 0), dims, keepdim or false), 0)
end

--- Is every element not 0?
function M.all(x, dims, keepdim)
  return core.eq(core.sum(core.eq(x, 0), dims, keepdim or false), 0)
end

--- Positions (from 1, int64) that sort x along dim (last).
function M.argsort(x, dim, descending)
  local _, at = core.sort(x, dim or -1, descending or false)
  return at
end

--- int64 classes from 1 as rows of 0 with a 1 at the class: one dim more, of `count` (the greatest class by default).
function M.one_hot(classes, count)
  check("one_hot", classes, "classes")
  if classes.dtype ~= "int64" then raise("one_hot: the classes are %s, expected int64", classes.dtype) end
  if count == nil then count = classes.numel > 0 and core.max(classes):item() or 0 end
  if type(count) ~= "number" or count < 0 or count % 1 ~= 0 then
    raise("one_hot: count is %s, expected a whole number", tostring(count))
  end
  if classes.numel > 0 and not core.capturing() then
    local least, most = core.min(classes):item(), core.max(classes):item()
    if least < 1 or most > count then
      raise("one_hot: class %d, expected classes from 1 to %d", least < 1 and least or most, count)
    end
  end
  return core.to(core.eq(core.unsqueeze(classes, -1), core.arange(1, count):to "int64"), "float32")
end

--- The k greatest (least if largest = false) elements along dim (last), in order, and their positions.
function M.topk(x, k, dim, largest)
  dim = resolve_dim("topk", check("topk", x), dim or -1)
  if type(k) ~= "number" or k < 0 or k > x:size(dim) or k % 1 ~= 0 then
    raise("topk: k is %s, expected 0 to %d", tostring(k), x:size(dim))
  end
  local values, at = core.sort(x, dim, largest ~= false)
  return core.narrow(values, dim, 1, k), core.narrow(at, dim, 1, k)
end

-- ---- Products ----

--- Matrix product. 1-d operands act as a row on the left and a column on the right; further dims are batches and
--- broadcast.
function M.matmul(a, b)
  check("matmul", a, "a")
  check("matmul", b, "b")
  if a.ndim > 1 and b.ndim > 1 then return core.mm(a, b) end
  if a.ndim == 0 or b.ndim == 0 then raise("matmul: an operand is 0-d; multiply with *") end
  local ka, kb = a:size(-1), b:size(b.ndim > 1 and -2 or 1)
  if ka ~= kb then
    raise("matmul: inner sizes differ: (%s)·(%s)", table.concat(a.shape, "×"), table.concat(b.shape, "×"))
  end
  local y = core.mm(a.ndim == 1 and core.unsqueeze(a, 1) or a, b.ndim == 1 and core.unsqueeze(b, 2) or b)
  if b.ndim == 1 then y = core.squeeze(y, -1) end
  if a.ndim == 1 then y = core.squeeze(y, b.ndim == 1 and -1 or -2) end
  return y
end

--- Sum of products of two 1-d tensors.
function M.dot(a, b)
  if check("dot", a, "a").ndim ~= 1 or check("dot", b, "b").ndim ~= 1 or a.numel ~= b.numel then
    raise("dot: expected two 1-d tensors of one length, got shapes (%s) and (%s)", table.concat(a.shape, "×"),
      table.concat(b.shape, "×"))
  end
  return core.sum(a * b)
end

--- Every product of an element of a with one of b, both 1-d.
function M.outer(a, b)
  if check("outer", a, "a").ndim ~= 1 or check("outer", b, "b").ndim ~= 1 then
    raise("outer: expected two 1-d tensors")
  end
  return core.unsqueeze(a, 2) * core.unsqueeze(b, 1)
end

-- ---- Shape ----

--- Dims a and b exchanged.
function M.transpose(x, a, b)
  a, b = resolve_dim("transpose", check("transpose", x), a), resolve_dim("transpose", x, b)
  local order = {}
  for i = 1, x.ndim do order[i] = i end
  order[a], order[b] = b, a
  return core.permute(x, order)
end

--- The transpose of a matrix (of the last two dims).
function M.t(x)
  return M.transpose(x, -1, -2)
end

--- Dims first..last made one; all by default.
function M.flatten(x, first, last)
  first = check("flatten", x).ndim == 0 and 1 or resolve_dim("flatten", x, first or 1)
  last = x.ndim == 0 and 0 or resolve_dim("flatten", x, last or -1)
  local shape, n = {}, 1
  for i = 1, first - 1 do shape[#shape + 1] = x:size(i) end
  for i = first, last do n = n * x:size(i) end
  shape[#shape + 1] = n
  for i = last + 1, x.ndim do shape[#shape + 1] = x:size(i) end
  return core.reshape(x, shape)
end

--- Tensors of one shape joined along a new dim.
function M.stack(list, dim)
  if type(list) ~= "table" or #list == 0 then raise("stack: expected a table of tensors") end
  local parts = {}
  if not is_tensor(list[1]) then raise("stack: element 1 is a %s, expected a tensor", type(list[1])) end
  for i, x in ipairs(list) do parts[i] = core.unsqueeze(check("stack", x, "an element"), dim or 1) end
  return core.cat(parts, dim or 1)
end

--- Pieces of the given sizes (a table), or of one size with the rest last, along dim (1).
function M.split(x, sizes, dim)
  dim = resolve_dim("split", check("split", x), dim or 1)
  local n, parts, start = x:size(dim), {}, 1
  if type(sizes) ~= "table" then
    if type(sizes) ~= "number" or sizes < 1 or sizes % 1 ~= 0 then
      raise("split: size is %s, expected a whole number, 1 or more, or a table of sizes", tostring(sizes))
    end
    local size = sizes
    sizes = {}
    for at = 1, n, size do sizes[#sizes + 1] = math.min(size, n - at + 1) end
  end
  local total = 0
  for _, size in ipairs(sizes) do
    if type(size) ~= "number" or size < 0 or size % 1 ~= 0 then
      raise("split: size is %s, expected a whole number, 0 or more", tostring(size))
    end
    total = total + size
  end
  if total ~= n then raise("split: sizes add up to %d, dim %d has %d", total, dim, n) end
  for i, size in ipairs(sizes) do
    parts[i] = core.narrow(x, dim, start, size)
    start = start + size
  end
  return parts
end

--- The dim cut into count pieces as equal as can be, the first ones larger.
function M.chunk(x, count, dim)
  dim = resolve_dim("chunk", check("chunk", x), dim or 1)
  if type(count) ~= "number" or count < 1 then raise("chunk: count is %s, expected at least 1", tostring(count)) end
  return M.split(x, math.max(1, math.ceil(x:size(dim) / count)), dim)
end

--- Elements in reverse order along the dims.
function M.flip(x, dims)
  check("flip", x)
  for _, d in ipairs(type(dims) == "table" and dims or {dims or 1}) do
    d = resolve_dim("flip", x, d)
    x = core.index_select(x, core.arange(x:size(d), 1, -1, "int64"), d)
  end
  return x
end

--- The tensor repeated counts[i] times along dim i; further counts add dims in front.
function M.tile(x, ...)
  local counts = type((...)) == "table" and (...) or {...}
  local lead = #counts - check("tile", x).ndim
  if lead < 0 then raise("tile: %d counts for %d dims", #counts, x.ndim) end
  for _, count in ipairs(counts) do
    if type(count) ~= "number" or count < 0 or count % 1 ~= 0 then
      raise("tile: a count is %s, expected a whole number, 0 or more", tostring(count))
    end
  end
  local wide, big, out = {}, {}, {}
  for i, count in ipairs(counts) do
    local size = i > lead and x:size(i - lead) or 1
    wide[#wide + 1], wide[#wide + 2] = 1, size
    big[#big + 1], big[#big + 2] = count, size
    out[i] = count * size
  end
  if #wide > 8 then raise("tile: more than 4 dims") end
  return core.reshape(core.expand(core.reshape(x, wide), big), out)
end

--- Zeros put around: pairs[i] = {before, after} (or a number for both) for dim i; absent dims are kept.
function M.pad(x, pairs_by_dim)
  check("pad", x)
  if type(pairs_by_dim) ~= "table" then raise("pad: expected a table such as {[1] = {before, after}}") end
  for d, p in pairs(pairs_by_dim) do
    local before, after = p, p
    if type(p) == "table" then before, after = p[1], p[2] end
    d = resolve_dim("pad", x, d)
    if type(before) ~= "number" or type(after) ~= "number" then
      raise("pad: dim %d wants a number or {before, after}", d)
    end
    if before ~= 0 or after ~= 0 then
      x = core.narrow_grad(x, d, before, 1, before + x:size(d) + after)
    end
  end
  return x
end

-- Row and column numbers that broadcast against the last two dims of x.
local function rows_and_columns(fname, x)
  if check(fname, x).ndim < 2 then raise("%s: expected at least two dims", fname) end
  local rows, columns = core.arange(1, x:size(-2), 1, "int64"), core.arange(1, x:size(-1), 1, "int64")
  return core.unsqueeze(rows, 2), core.unsqueeze(columns, 1)
end

--- The lower triangle, zeros above diagonal k.
function M.tril(x, k)
  local rows, columns = rows_and_columns("tril", x)
  return core.where(core.le(columns - rows, k or 0), x, 0)
end

--- The upper triangle, zeros below diagonal k.
function M.triu(x, k)
  local rows, columns = rows_and_columns("triu", x)
  return core.where(core.ge(columns - rows, k or 0), x, 0)
end

--- The diagonal of a matrix, or the diagonal matrix of a 1-d tensor.
function M.diag(x)
  if check("diag", x).ndim == 1 then
    return core.eye(x.numel, x.numel, x.dtype) * core.unsqueeze(x, 1)
  elseif x.ndim == 2 then
    local n = math.min(x:size())
    local at = core.unsqueeze(core.arange(1, n, 1, "int64"), 2)
    return core.squeeze(core.gather(core.narrow(x, 1, 1, n), at, 2), 2)
  end
  raise("diag: expected one or two dims, got %d", x.ndim)
end

--- Grids of coordinates from 1-d tensors: result i varies along dim i.
function M.meshgrid(...)
  local axes, shape, out = {...}, {}, {}
  for i, a in ipairs(axes) do shape[i] = check("meshgrid", a).numel end
  for i, a in ipairs(axes) do
    local own = {}
    for k = 1, #axes do own[k] = k == i and a.numel or 1 end
    out[i] = core.expand(core.reshape(a, own), shape)
  end
  return unpack(out)
end

-- ---- Choosing ----

--- x with value where the mask is not 0.
function M.masked_fill(x, mask, value)
  return core.where(mask, value, x)
end

--- The elements of x where the mask of its shape is not 0, in one dim.
function M.masked_select(x, mask)
  if check("masked_select", mask, "the mask").dtype ~= "uint8" then
    raise("masked_select: the mask is %s, expected uint8, as comparisons give", mask.dtype)
  end
  return check("masked_select", x)[mask]
end

for _, like in ipairs {"zeros", "ones", "empty"} do
  --- A constant tensor of x's shape and type.
  M[like .. "_like"] = function(x, dtype)
    return core[like](check(like .. "_like", x).shape, dtype or x.dtype)
  end
end

--- A tensor of x's shape and type, all of one value.
function M.full_like(x, value, dtype)
  return core.full(check("full_like", x).shape, value, dtype or x.dtype)
end

for name, dtype in pairs {float = "float32", double = "float64", long = "int64", byte = "uint8"} do
  M[name] = function(x) return core.to(x, dtype) end
end

--- Are the shapes the same and all elements equal?
function M.equal(a, b)
  if check("equal", a, "a").ndim ~= check("equal", b, "b").ndim then return false end
  for i = 1, a.ndim do
    if a:size(i) ~= b:size(i) then return false end
  end
  return core.sum(core.ne(a, b)):item() == 0
end

--- Is |a − b| ≤ atol + rtol·|b| everywhere? Equal infinities are close, NaN differs from everything. Defaults: rtol
--- 1e-5, atol 1e-8.
function M.allclose(a, b, rtol, atol)
  a, b = check("allclose", a, "a"):detach(), check("allclose", b, "b"):detach()
  local near = core.logical_or(core.eq(a, b), core.le(core.abs(a - b), (atol or 1e-8) + core.abs(b) * (rtol or 1e-5)))
  return core.sum(core.eq(near, 0)):item() == 0
end

-- ---- einsum ----

-- The letters of one operand, in order, each at most once.
local function letters_of(text)
  local list, seen = {}, {}
  for c in text:gmatch("%a") do
    if seen[c] then raise("einsum: index %s is repeated in %q; take the diagonal first", c, text) end
    seen[c] = true
    list[#list + 1] = c
  end
  return list, seen
end

-- x with its dims put in the order of letters; those it lacks get size 1.
local function aligned(x, own, letters)
  local at, order, shape = {}, {}, {}
  for i, c in ipairs(own) do at[c] = i end
  for _, c in ipairs(letters) do
    if at[c] then order[#order + 1] = at[c] end
    shape[#shape + 1] = at[c] and x:size(at[c]) or 1
  end
  return core.reshape(core.permute(x, order), shape)
end

local function product_of(sizes, letters)
  local n = 1
  for _, c in ipairs(letters) do n = n * sizes[c] end
  return n
end

local function joined(...)
  local out = {}
  for _, list in ipairs {...} do
    for _, c in ipairs(list) do out[#out + 1] = c end
  end
  return out
end

-- The contraction of two operands to the letters of `keep`, as one batched product.
local function contract(x, lx, y, ly, keep, sizes)
  local in_x, in_y = {}, {}
  for _, c in ipairs(lx) do in_x[c] = true end
  for _, c in ipairs(ly) do in_y[c] = true end
  local batch, left, right, summed = {}, {}, {}, {}
  for _, c in ipairs(lx) do
    local to = in_y[c] and (keep[c] and batch or summed) or left
    to[#to + 1] = c
  end
  for _, c in ipairs(ly) do
    if not in_x[c] then right[#right + 1] = c end
  end
  local nb, nl, nr, ns = product_of(sizes, batch), product_of(sizes, left), product_of(sizes, right),
    product_of(sizes, summed)
  local a = core.reshape(aligned(x, lx, joined(batch, left, summed)), {nb, nl, ns})
  local b = core.reshape(aligned(y, ly, joined(batch, summed, right)), {nb, ns, nr})
  local letters, shape = joined(batch, left, right), {}
  for i, c in ipairs(letters) do shape[i] = sizes[c] end
  return core.reshape(core.mm(a, b), shape), letters
end

-- x summed over the letters that nobody needs any more.
local function summed_out(x, letters, needed)
  local dims, rest = {}, {}
  for i, c in ipairs(letters) do
    if needed[c] then rest[#rest + 1] = c else dims[#dims + 1] = i end
  end
  if #dims > 0 then x = core.sum(x, dims) end
  return x, rest
end

--- Einstein summation, "ij,jk->ik": letters name dims; those that the result does not name are summed over. Operands
--- are contracted from left to right. An index may not be repeated within one operand.
function M.einsum(pattern, ...)
  local operands = {...}
  if type(pattern) ~= "string" then raise("einsum: the pattern is a %s, expected a string", type(pattern)) end
  local left, right = pattern:gsub("%s", ""):match("^([%a,]*)%->(%a*)$")
  if not left then raise("einsum: pattern %q, expected a form such as \"ij,jk->ik\"", pattern) end
  local terms, sizes = {}, {}
  for term in (left .. ","):gmatch("(%a*),") do terms[#terms + 1] = letters_of(term) end
  if #terms ~= #operands then raise("einsum: %d operands for %d terms of %q", #operands, #terms, pattern) end
  for i, letters in ipairs(terms) do
    local x = check("einsum", operands[i], "operand " .. i)
    if x.ndim ~= #letters then raise("einsum: operand %d has %d dims, %q names %d", i, x.ndim, pattern, #letters) end
    for d, c in ipairs(letters) do
      if sizes[c] and sizes[c] ~= x:size(d) then
        raise("einsum: index %s has sizes %d and %d", c, sizes[c], x:size(d))
      end
      sizes[c] = x:size(d)
    end
  end
  local out, wanted = letters_of(right)
  for _, c in ipairs(out) do
    if not sizes[c] then raise("einsum: index %s of the result is in no operand", c) end
  end
  local function needed_after(i)
    local needed = {}
    for c in pairs(wanted) do needed[c] = true end
    for k = i, #terms do
      for _, c in ipairs(terms[k]) do needed[c] = true end
    end
    return needed
  end
  local x, letters = summed_out(operands[1], terms[1], needed_after(2))
  for i = 2, #operands do
    local needed = needed_after(i + 1)
    local own = {}
    for c in pairs(needed) do own[c] = true end
    for _, c in ipairs(letters) do own[c] = true end
    local y, ly = summed_out(operands[i], terms[i], own)
    x, letters = contract(x, letters, y, ly, needed, sizes)
    x, letters = summed_out(x, letters, needed)
  end
  return aligned(x, letters, out)
end

for name, f in pairs(M) do
  if name ~= "is_tensor" and name ~= "meshgrid" and name ~= "einsum" and name ~= "stack" then methods[name] = f end
end
--- x:view(…) is x:reshape(…).
methods.view = methods.reshape
--- In place: zeros.
function methods.zero_(x) return x:fill_(0) end
--- Shape and type of the other tensor.
function methods.view_as(x, other) return core.reshape(x, other.shape) end
function methods.expand_as(x, other) return core.expand(x, other.shape) end

return M
