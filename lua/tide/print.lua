-- tostring of tensors as people read them: aligned, elided when large, with shape and type, statistics for large
-- ones, and a count of NaN and infinity.

local core = require "tide.core"

local M = {}

local limits = {edge = 3, threshold = 1000, digits = 4, width = 100}

--- Sets how tensors print: {edge = items kept at each end of an elided dim (3), threshold = elements from which a
--- tensor is elided (1000), digits = after the point (4), width = of a line (100)}.
function M.set_print(opts)
  for key, value in pairs(opts) do
    if not limits[key] then
      core.raise(("set_print: unknown option %q, expected edge, threshold, digits or width"):format(tostring(key)))
    elseif type(value) ~= "number" or value < 1 then
      core.raise(("set_print: %s is %s, expected a positive number"):format(key, tostring(value)))
    end
    limits[key] = value
  end
end

-- A formatter for the finite numbers seen, and the width it pads to.
local function formatter(values, whole_type)
  local largest, smallest, whole = 0, math.huge, true
  for _, v in ipairs(values) do
    if v == v and v ~= math.huge and v ~= -math.huge then
      local a = math.abs(v)
      largest = math.max(largest, a)
      if a > 0 then smallest = math.min(smallest, a) end
      whole = whole and v % 1 == 0
    end
  end
  local pattern
  if whole_type or (whole and largest < 1e7) then
    pattern = whole_type and "%d" or "%d."
    if largest >= 2 ^ 31 then pattern = whole_type and "%.0f" or "%.0f." end
  elseif largest >= 1e5 or (smallest < math.huge and (smallest < 1e-4 or largest / smallest > 1e6)) then
    pattern = "%." .. limits.digits .. "e"
  else
    pattern = "%." .. limits.digits .. "f"
  end
  local function text(v)
    if v ~= v then return "nan" end
    if v == math.huge then return "inf" end
    if v == -math.huge then return "-inf" end
    return pattern:format(v)
  end
  local width = 0
  for _, v in ipairs(values) do width = math.max(width, #text(v)) end
  return function(v) return (" "):rep(width - #text(v)) .. text(v) end, width
end

-- The shown positions of a dim of size n; "…" stands for those left out.
local function shown(n, elide)
  local list = {}
  if not elide or n <= 2 * limits.edge + 1 then
    for i = 1, n do list[i] = i end
    return list
  end
  for i = 1, limits.edge do list[i] = i end
  list[#list + 1] = "…"
  for i = n - limits.edge + 1, n do list[#list + 1] = i end
  return list
end

-- The shown elements of t as nested lists. Every number is also put into `flat`.
local function sample(t, elide, flat)
  if t.ndim == 0 then
    flat[#flat + 1] = t:item()
    return flat[#flat]
  end
  local out = {}
  for _, i in ipairs(shown(t:size(1), elide)) do
    out[#out + 1] = i == "…" and i or sample(t[i], elide, flat)
  end
  return out
end

-- One row of numbers, broken into lines of limits.width.
local function row_text(row, format, indent)
  local lines, line = {}, ""
  for i, v in ipairs(row) do
    local item = v == "…" and "…" or format(v)
    if i < #row then item = item .. ", " end
    if #line > 0 and indent + #line + #item > limits.width then
      lines[#lines + 1] = line
      line = ""
    end
    line = line .. item
  end
  lines[#lines + 1] = line
  return "[" .. table.concat(lines, "\n" .. (" "):rep(indent + 1)) .. "]"
end

local function nested_text(list, depth, format, indent)
  if depth == 0 then return format(list) end
  if depth == 1 then return row_text(list, format, indent) end
  local parts = {}
  for i, item in ipairs(list) do
    parts[i] = item == "…" and "…" or nested_text(item, depth - 1, format, indent + 1)
  end
  return "[" .. table.concat(parts, "," .. ("\n"):rep(depth - 1) .. (" "):rep(indent + 1)) .. "]"
end

-- "min -1.2, max 3, mean 0.1, std 1" and the counts of what is not finite.
local function statistics_text(s, large)
  local parts = {}
  if large and s.count > s.nans + s.infs then
    parts[1] = ("min %.4g, max %.4g, mean %.4g, std %.4g"):format(s.min, s.max, s.mean, s.std)
  end
  if s.nans > 0 then parts[#parts + 1] = ("%d nan"):format(s.nans) end
  if s.infs > 0 then parts[#parts + 1] = ("%d inf"):format(s.infs) end
  return parts
end

local function tensor_text(t)
  local large = t.numel > limits.threshold  -- a tensor that was freed says so here
  local flat, statistics = {}, core.statistics(t, "print or tostring")
  local list = t.numel > 0 and sample(t:detach(), large, flat) or {}
  local whole = t.dtype == "int64" or t.dtype == "uint8"
  local body = t.numel == 0 and "[]" or nested_text(list, t.ndim, formatter(flat, whole), 0)
  local notes = {table.concat(t.shape, "×") .. (t.ndim > 0 and " " or "") .. t.dtype}
  if not whole then
    for _, part in ipairs(statistics_text(statistics, large)) do notes[#notes + 1] = part end
  end
  if t.needs_grad then notes[#notes + 1] = t.is_leaf and "requires grad" or "in a graph" end
  local break_ = t.ndim > 1 and "\n" or "  "
  return body .. break_ .. "(" .. table.concat(notes, ", ") .. ")"
end

core.metatable.__tostring = tensor_text

return M
