-- Errors that point at the line of the user's script, however deep in the plotting code they arise.

local M = {}

-- "@…/tide/plot", the common beginning of the chunk names of all files of this library
local own = debug.getinfo(1, "S").source:gsub("[/\\]errors%.lua$", "")

local function is_own(info)
  local source = info.source
  if info.what == "C" or info.what == "tail" then return true end
  if source:sub(1, #own) ~= own then return false end
  return source:sub(#own + 1):find("^[/\\.]") ~= nil
end

--- Raise `fmt` (as string.format) at the nearest caller outside the plotting library.
function M.raise(fmt, ...)
  local message = select("#", ...) > 0 and fmt:format(...) or fmt
  local level = 2
  local info = debug.getinfo(level, "S")
  while info and is_own(info) do
    level = level + 1
    info = debug.getinfo(level, "S")
  end
  error(message, info and level or 2)
end

--- How a wrong argument is named in a message: its type, and its value if that is short.
function M.describe(v)
  local t = type(v)
  if t == "string" then return ("the string %q"):format(#v > 24 and v:sub(1, 24) .. "…" or v) end
  if t == "number" or t == "boolean" then return t .. " " .. tostring(v) end
  if t == "table" and getmetatable(v) == nil then
    return ("a table with %d elements"):format(#v)
  end
  return t == "nil" and "nothing" or "a " .. t
end

--- Raise unless `value` is one of `allowed` (a list of strings).
function M.one_of(where, name, value, allowed)
  for _, a in ipairs(allowed) do
    if value == a then return value end
  end
  M.raise('%s: %s must be one of "%s", got %s', where, name,
    table.concat(allowed, '", "'), M.describe(value))
end

--- Raise unless `value` is a number within [lo, hi] (either may be nil); `value` may be nil.
function M.number(where, name, value, lo, hi)
  if value == nil then return nil end
  if type(value) ~= "number" or value ~= value then
    M.raise("%s: %s must be a number, got %s", where, name, M.describe(value))
  end
  if (lo and value < lo) or (hi and value > hi) then
    M.raise("%s: %s must be %s, got %s", where, name, lo and hi
      and ("between %g and %g"):format(lo, hi)
      or (lo and "at least %g" or "at most %g"):format(lo or hi), tostring(value))
  end
  return value
end

return M
