-- From data to pixels: the limits of an axis and its linear or logarithmic map.

local M = {}

local Bounds = {}
Bounds.__index = Bounds

--- Gathers the extent of what is drawn. With `log`, values that are not positive do not count.
function M.bounds(xlog, ylog)
  return setmetatable({x = {log = xlog}, y = {log = ylog}}, Bounds)
end

local function extend(b, v)
  if v - v ~= 0 or (b.log and v <= 0) then return end
  if not b.lo or v < b.lo then b.lo = v end
  if not b.hi or v > b.hi then b.hi = v end
end

--- Take in all numbers of two lists (either may be nil).
function Bounds:add(xs, ys)
  for i = 1, xs and #xs or 0 do extend(self.x, xs[i]) end
  for i = 1, ys and #ys or 0 do extend(self.y, ys[i]) end
end

--- Take in a value at which the axis ends without a margin, such as the foot of a bar.
function Bounds:stick(axis, v)
  local b = self[axis]
  extend(b, v)
  b.sticky = b.sticky or {}
  b.sticky[v] = true
end

-- Widen lo…hi by a fraction of its length, but not where the data ask to end exactly.
local function with_margin(b, lo, hi, margin)
  local sticky = b.sticky or {}
  if b.log then
    local f = (hi / lo) ^ margin
    return sticky[lo] and lo or lo / f, sticky[hi] and hi or hi * f
  end
  local d = (hi - lo) * margin
  return sticky[lo] and lo or lo - d, sticky[hi] and hi or hi + d
end

--- The limits of an axis: the user's where given ({lo, hi}, either may be nil), else the extent of
--- the data with a margin.
function M.limits(b, given, margin)
  local lo, hi = b.lo, b.hi
  if not lo then
    lo, hi = b.log and 1 or 0, b.log and 10 or 1
  elseif lo == hi then
    local d = lo == 0 and 1 or math.abs(lo) * 0.1
    if b.log then lo, hi = lo / 2, hi * 2 else lo, hi = lo - d, hi + d end
  end
  lo, hi = with_margin(b, lo, hi, margin)
  if given then
    lo, hi = given[1] or lo, given[2] or hi
    if lo == hi then hi = lo + (b.log and lo or 1) end
  end
  return lo, hi
end

--- A function from data to pixels that takes lo to p0 and hi to p1. What has no place (NaN,
--- infinity, zero on a logarithmic axis) becomes NaN; far-away points stay finite.
function M.map(kind, lo, hi, p0, p1)
  local log = math.log
  local a, b = lo, hi
  if kind == "log" then a, b = log(lo), log(hi) end
  local rate = (p1 - p0) / (b - a)
  return function(v)
    if kind == "log" then v = v > 0 and log(v) or 0 / 0 end
    if v - v ~= 0 then return 0 / 0 end
    local p = p0 + (v - a) * rate
    return p < -1e6 and -1e6 or p > 1e6 and 1e6 or p
  end
end

--- The inverse of `map`.
function M.unmap(kind, lo, hi, p0, p1)
  return function(p)
    local t = (p - p0) / (p1 - p0)
    if kind == "log" then return lo * (hi / lo) ^ t end
    return lo + (hi - lo) * t
  end
end

return M
