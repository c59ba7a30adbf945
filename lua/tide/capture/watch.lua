-- What a function closes over, so that a value assigned anew is noticed: its upvalues, and those of the functions
-- among them. Numbers, strings, booleans, functions and tensors are compared; tables count as themselves, whatever
-- happens inside them.

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

return M
