-- Reading what users hand over: Lua tables of numbers, nested ones, and tensors, which are
-- anything with a method `totable`.

local errors = require "tide.plot.errors"

local M = {}

local function has_totable(v)
  local t = type(v)
  if t ~= "table" and t ~= "userdata" and t ~= "cdata" then return false end
  local ok, method = pcall(function() return v.totable end)
  return ok and type(method) == "function"
end

--- `v` as plain Lua tables: tensors are converted, also inside lists; other things pass.
function M.plain(v)
  if has_totable(v) then return v:totable() end
  if type(v) == "table" and (type(v[1]) == "table" or type(v[1]) == "userdata")
      and has_totable(v[1]) then
    local list = {}
    for i = 1, #v do list[i] = M.plain(v[i]) end
    return list
  end
  return v
end

-- Append all numbers in nested tables, row by row.
local function flatten(v, into, where, name)
  for i = 1, #v do
    local x = v[i]
    if type(x) == "number" then
      into[#into + 1] = x
    elseif type(x) == "table" then
      flatten(x, into, where, name)
    elseif has_totable(x) then
      flatten({M.plain(x)}, into, where, name)
    else
      errors.raise("%s: %s[%d] must be a number, got %s", where, name, i, errors.describe(x))
    end
  end
  return into
end

--- A flat list of numbers; nested tables (an N×1 tensor, a batch) are flattened.
function M.vector(v, where, name)
  v = M.plain(v)
  if type(v) == "number" then return {v} end
  if type(v) ~= "table" then
    errors.raise("%s: %s must be a list of numbers or a tensor, got %s", where, name,
      errors.describe(v))
  end
  return flatten(v, {}, where, name)
end

-- A table of options rather than of data: no elements, but keys.
local function is_options(v)
  return type(v) == "table" and getmetatable(v) == nil and v[1] == nil and next(v) ~= nil
end

--- The arguments (xs, ys, options) of a call that may have left out xs: (ys, options).
function M.shift(xs, ys, opts)
  if opts == nil and is_options(ys) then return xs, nil, ys end
  return xs, ys, opts
end

--- Two lists of equal length. `ys` alone is drawn over 1, 2, 3, ….
function M.pair(xs, ys, where)
  if ys == nil then
    ys = M.vector(xs, where, "ys")
    xs = {}
    for i = 1, #ys do xs[i] = i end
    return xs, ys
  end
  xs, ys = M.vector(xs, where, "xs"), M.vector(ys, where, "ys")
  M.same_length(where, "xs", xs, "ys", ys)
  return xs, ys
end

function M.same_length(where, name_a, a, name_b, b)
  if #a ~= #b then
    errors.raise("%s: %s and %s differ in length: %d and %d", where, name_a, name_b, #a, #b)
  end
end

--- One number for all of `n` elements, or a list of `n` numbers; always gives a list.
function M.broadcast(v, n, where, name)
  if type(v) == "number" then
    local list = {}
    for i = 1, n do list[i] = v end
    return list
  end
  v = M.vector(v, where, name)
  if #v ~= n then
    errors.raise("%s: %s must be a number or %d of them, got %d", where, name, n, #v)
  end
  return v
end

--- A matrix as a list of rows of equal length; also the number of rows and of columns.
function M.matrix(v, where, name)
  v = M.plain(v)
  if type(v) ~= "table" or type(v[1]) ~= "table" then
    errors.raise("%s: %s must be a matrix (a list of rows or a 2-d tensor), got %s", where, name,
      errors.describe(v))
  end
  local rows = {}
  for i = 1, #v do
    rows[i] = M.vector(v[i], where, name)
    if #rows[i] ~= #rows[1] then
      errors.raise("%s: rows of %s differ in length: row 1 has %d, row %d has %d", where, name,
        #rows[1], i, #rows[i])
    end
  end
  return rows, #rows, #rows[1]
end

--- An image H×W, H×W×1, H×W×3 or H×W×4 as {h=, w=, channels=, [1…h·w·channels]}, values as given.
function M.image(v, where)
  v = M.plain(v)
  if type(v) ~= "table" or type(v[1]) ~= "table" then
    errors.raise("%s: expected an image, H×W or H×W×C, got %s", where, errors.describe(v))
  end
  local channels = type(v[1][1]) == "table" and #v[1][1] or 1
  local h, w = #v, #v[1]
  if channels ~= 1 and channels ~= 3 and channels ~= 4 then
    errors.raise("%s: an image has 1, 3 or 4 channels, last, got %d×%d×%d", where, h, w, channels)
  end
  local image = flatten(v, {h = h, w = w, channels = channels}, where, "image")
  if #image ~= h * w * channels then
    errors.raise("%s: rows of the image differ in length", where)
  end
  return image
end

--- Smallest and largest finite number of a list, or nil.
function M.range(list)
  local lo, hi
  for i = 1, #list do
    local v = list[i]
    if v - v == 0 then
      if not lo then
        lo, hi = v, v
      elseif v < lo then
        lo = v
      elseif v > hi then
        hi = v
      end
    end
  end
  return lo, hi
end

--- The values that become black and white when the user says nothing: 0…1 or 0…255 or, where
--- there are clearly negative values, −1…1.
function M.image_range(image)
  local lo, hi = M.range(image)
  if not lo then return 0, 1 end
  if hi > 2 then return 0, 255 end
  if lo < -0.25 then return -1, 1 end
  return 0, 1
end

return M
