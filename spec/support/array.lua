-- Arrays in plain Lua: the slow twins of tensors. An array is {shape = {…}, data = {row-major numbers}}.
-- Nothing here is fast and everything is obvious.

local array = {}
array.__index = array

local function count(shape)
  local n = 1
  for _, s in ipairs(shape) do n = n * s end
  return n
end

local function strides(shape)
  local out, step = {}, 1
  for i = #shape, 1, -1 do
    out[i] = step
    step = step * shape[i]
  end
  return out
end

--- An array of a shape; data is a list or a function of an index table.
function array.new(shape, data)
  local a = setmetatable({shape = shape, data = data}, array)
  if type(data) == "function" then
    a.data = {}
    for at in array.indices(shape) do a.data[#a.data + 1] = data(at) end
  end
  assert(#a.data == count(shape), "array.new: the data does not fill the shape")
  return a
end

--- Walks over the index tables of a shape, {1, …, 1} first, the last index fastest. The table is reused.
function array.indices(shape)
  local at, n = {}, count(shape)
  local left = n
  for i = 1, #shape do at[i] = 1 end
  return function()
    if left == 0 then return nil end
    left = left - 1
    if left == n - 1 then return at end
    for i = #shape, 1, -1 do
      if at[i] < shape[i] then
        at[i] = at[i] + 1
        return at
      end
      at[i] = 1
    end
  end
end

local function flatten(value, out)
  if type(value) ~= "table" then
    out[#out + 1] = value
    return
  end
  for _, v in ipairs(value) do flatten(v, out) end
end

--- The array with a tensor's values; numbers become arrays of no dims, arrays are themselves.
function array.of(x)
  if type(x) == "number" then return array.new({}, {x}) end
  if getmetatable(x) == array then return x end
  local data = {}
  flatten(x:totable(), data)
  return array.new(x.shape, data)
end

function array:position(at)
  local p, step = 1, strides(self.shape)
  for i = 1, #self.shape do p = p + (at[i] - 1) * step[i] end
  return p
end

function array:at(at) return self.data[self:position(at)] end

--- The element at an index of a shape to which this array broadcasts.
function array:broadcast_at(at, ndim)
  local own, lead = {}, ndim - #self.shape
  for i = 1, #self.shape do own[i] = self.shape[i] == 1 and 1 or at[lead + i] end
  return self:at(own)
end

function array.broadcast_shape(...)
  local shape, n = {}, 0
  local all = {...}
  for _, a in ipairs(all) do n = math.max(n, #a.shape) end
  for i = 1, n do
    shape[i] = 1
    for _, a in ipairs(all) do
      local s = a.shape[i - (n - #a.shape)]
      if s and s ~= 1 then shape[i] = s end
    end
  end
  return shape
end

--- f of the elements of arrays (or numbers) that broadcast together.
function array.map(f, ...)
  local all = {}
  for i = 1, select("#", ...) do all[i] = array.of((select(i, ...))) end
  local shape = array.broadcast_shape(unpack(all))
  return array.new(shape, function(at)
    local v = {}
    for i, a in ipairs(all) do v[i] = a:broadcast_at(at, #shape) end
    return f(unpack(v))
  end)
end

local function dim_set(dims, n)
  local set = {}
  if dims == nil then
    for i = 1, n do set[i] = true end
  end
  for _, d in ipairs(type(dims) == "table" and dims or {dims}) do set[d < 0 and n + 1 + d or d] = true end
  return set
end

--- f of the list of elements over dims (a number, a list, or nil for all) gives one element of each result.
function array:reduce(dims, keepdim, f)
  local set, kept, full, inner = dim_set(dims, #self.shape), {}, {}, {}
  for i, s in ipairs(self.shape) do
    full[i] = set[i] and 1 or s
    inner[i] = set[i] and s or 1
    if keepdim or not set[i] then kept[#kept + 1] = full[i] end
  end
  local first, second = {}, {}
  for at in array.indices(full) do
    local list, own = {}, {}
    for within in array.indices(inner) do
      for i = 1, #full do own[i] = set[i] and within[i] or at[i] end
      list[#list + 1] = self:at(own)
    end
    local a, b = f(list)
    first[#first + 1] = a
    second[#second + 1] = b
  end
  return array.new(kept, first), second[1] and array.new(kept, second) or nil
end

--- f of the row along dim gives the new row (of any length, the same for all).
function array:along(dim, f)
  local n = #self.shape
  if dim < 0 then dim = n + 1 + dim end
  local outer = {unpack(self.shape)}
  outer[dim] = 1
  local results, length, length2 = {}, self.shape[dim], nil
  for at in array.indices(outer) do
    local row, own = {}, {unpack(at)}
    for i = 1, self.shape[dim] do
      own[dim] = i
      row[i] = self:at(own)
    end
    local a, b = f(row)
    length, length2 = #a, b and #b
    results[table.concat(at, ",")] = {a, b}
  end
  local function gathered(which, size)
    local shape = {unpack(self.shape)}
    shape[dim] = size
    return array.new(shape, function(at)
      local own = {unpack(at)}
      own[dim] = 1
      return results[table.concat(own, ",")][which][at[dim]]
    end)
  end
  return gathered(1, length), length2 and gathered(2, length2) or nil
end

--- The matrix product over the last two dims; the others broadcast.
function array.matmul(a, b)
  local batch = array.broadcast_shape({shape = {unpack(a.shape, 1, #a.shape - 2)}},
    {shape = {unpack(b.shape, 1, #b.shape - 2)}})
  local shape = {unpack(batch)}
  shape[#shape + 1] = a.shape[#a.shape - 1]
  shape[#shape + 1] = b.shape[#b.shape]
  local inner = a.shape[#a.shape]
  local n = #shape
  -- the operand's element in a row and column of its matrix at a place of the batch
  local function own(x, at, row, column)
    local lead, out = n - #x.shape, {}
    for i = 1, #x.shape - 2 do out[i] = x.shape[i] == 1 and 1 or at[lead + i] end
    out[#x.shape - 1], out[#x.shape] = row, column
    return x:at(out)
  end
  return array.new(shape, function(at)
    local sum = 0
    for k = 1, inner do sum = sum + own(a, at, at[n - 1], k) * own(b, at, k, at[n]) end
    return sum
  end)
end

--- The last two dims exchanged.
function array:t()
  local n, shape = #self.shape, {unpack(self.shape)}
  shape[n - 1], shape[n] = shape[n], shape[n - 1]
  return array.new(shape, function(at)
    local own = {unpack(at)}
    own[n - 1], own[n] = own[n], own[n - 1]
    return self:at(own)
  end)
end

--- Identity matrices of a shape.
function array.eye(shape)
  local n = #shape
  return array.new({unpack(shape)}, function(at) return at[n - 1] == at[n] and 1 or 0 end)
end

--- f(value, row, column) of every element of matrices.
function array:entries(f)
  local n = #self.shape
  return array.new({unpack(self.shape)}, function(at) return f(self:at(at), at[n - 1], at[n]) end)
end

return array
