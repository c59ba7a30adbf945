-- Option tables: defaults filled in, unknown keys refused with the nearest known one.

local M = {}

--- Stands for a default of nil in a table of known options.
M.none = setmetatable({}, {__tostring = function() return "options.none" end})

-- The number of single-character edits, and of neighbours exchanged, between two strings (Damerau–Levenshtein).
local function distance(a, b)
  local rows = {[0] = {}}
  for j = 0, #b do rows[0][j] = j end
  for i = 1, #a do
    local row, above = {[0] = i}, rows[i - 1]
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], rows[i - 2][j - 2] + 1)
      end
    end
    rows[i] = row
  end
  return rows[#a][#b]
end

--- What a message says after an unknown name: the nearest of the known ones, the keys of a table, and all of them.
function M.choices(key, known)
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  local best, best_distance
  for _, name in ipairs(names) do
    local d = distance(tostring(key), name)
    if not best or d < best_distance then best, best_distance = name, d end
  end
  local hint = best and best_distance < math.max(#tostring(key), #best) and (", did you mean %q?"):format(best) or ""
  return ("%s (expected one of %s)"):format(hint, table.concat(names, ", "))
end

-- At the user's line: the innermost one outside tide's files where the core knows them, else the caller of
-- the function that called `check`.
local function raise(message)
  local core = package.loaded["tide.core"]
  if core then core.raise(message) end
  error(message, 4)
end

--- The values of `given` (a table or nil) over `defaults`, as a new table. Unknown keys, and
--- anything that is not a table, raise at the user's line; `where` is the function's name for the message.
function M.check(where, given, defaults)
  if given ~= nil and type(given) ~= "table" then
    raise(("%s: options must be a table, got a %s"):format(where, type(given)))
  end
  local o = {}
  for key, value in pairs(defaults) do
    if value ~= M.none then o[key] = value end
  end
  for key, value in pairs(given or {}) do
    if defaults[key] == nil then
      raise(("%s: unknown option %q%s"):format(where, tostring(key), M.choices(key, defaults)))
    end
    o[key] = value
  end
  return o
end

local shadows = setmetatable({}, {__mode = "k"})

-- What a table of defaults gives for what is not set.
local function shadow_of(defaults)
  local shadow = shadows[defaults]
  if not shadow then
    local plain = {}
    for key, value in pairs(defaults) do
      if value ~= M.none then plain[key] = value end
    end
    shadow = {__index = plain}
    shadows[defaults] = shadow
  end
  return shadow
end

--- The same for defaults that never change: a table of what was given alone, which looks up the rest there. For calls
--- that take microseconds and have many options.
function M.over(where, given, defaults)
  local o = {}
  if given ~= nil then
    if type(given) ~= "table" then return M.check(where, given, defaults) end
    for key, value in pairs(given) do
      if defaults[key] == nil then return M.check(where, given, defaults) end
      o[key] = value
    end
  end
  return setmetatable(o, shadow_of(defaults))
end

return M
