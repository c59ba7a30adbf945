-- What a function closes over, so that a value assigned anew is noticed: its upvalues, and those of the functions
-- among them. Numbers, strings, booleans, functions and tensors are compared; tables count as themselves, whatever
-- happens inside them.

local tensors = require "tide.tensor"

local M = {}

local function is_own(f)
  local source = debug.getinfo(f, "S").source
  return source:find("/tide/", 1, true) and source:find("lua", 1, true)
end

local function add(f, list, seen, depth)
  if seen[f] then return end
  seen[f] = true
  local i = 1
  while true do
    local name, value = debug.getupvalue(f, i)
    if not name then return end
    list[#list + 1] = {f, i, value}
    if type(value) == "function" and depth > 0 and debug.getinfo(value, "S").what == "Lua" and not is_own(value) then
      add(value, list, seen, depth - 1)
    end
    i = i + 1
  end
end

--- The upvalues of f as they are now.
function M.list(f)
  local list = {}
  if type(f) == "function" then add(f, list, {}, 3) end
  return list
end

--- Are they still the same?
function M.unchanged(list)
  for i = 1, #list do
    local entry = list[i]
    local _, value = debug.getupvalue(entry[1], entry[2])
    if value ~= entry[3] and (value == value or entry[3] == entry[3]) then return false end
  end
  return true
end

local MOST = 64  -- entries of a table that are looked at

local function copy_of(t)
  local copy, n = {}, 0
  for k, v in pairs(t) do
    n = n + 1
    if n > MOST then break end
    copy[k] = v
  end
  return copy
end

local function same_table(t, copy)
  local n = 0
  for k, v in pairs(t) do
    n = n + 1
    if n > MOST then break end
    if not rawequal(copy[k], v) and v == v then return false end
  end
  for k in pairs(copy) do
    if rawget(t, k) == nil then return false end
  end
  return true
end

--- The upvalues of f, what lies in the tables and how often the tensors among them were written, to find out whether a
--- call changes any.
function M.snapshot(f)
  local list = M.list(f)
  for _, entry in ipairs(list) do
    if type(entry[3]) == "table" then entry[4] = copy_of(entry[3]) end
    if tensors.is_tensor(entry[3]) then entry[5] = entry[3].version end
  end
  return list
end

--- Is everything as it was at the snapshot?
function M.untouched(list)
  if not M.unchanged(list) then return false end
  for _, entry in ipairs(list) do
    if entry[4] and not same_table(entry[3], entry[4]) then return false end
    if entry[5] and entry[3].version ~= entry[5] then return false end
  end
  return true
end

return M
