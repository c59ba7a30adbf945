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

local libraries = {}

-- Tables that count as themselves alone: Lua's libraries and tide's.
local function is_library(t)
  if not next(libraries) then
    for name in ("string table math io os debug coroutine bit jit ffi"):gmatch "%a+" do
      if package.loaded[name] then libraries[package.loaded[name]] = true end
    end
    for name, m in pairs(package.loaded) do
      if type(m) == "table" and (name == "tide" or name:find("^tide%.")) then libraries[m] = true end
    end
  end
  return libraries[t]
end

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
    local value = entry[3]
    if tensors.is_tensor(value) then entry[5] = value.version
    elseif type(value) == "table" and not is_library(value) then entry[4] = copy_of(value) end
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

local TENSOR = {}  -- stands for any
local weak = {__mode = "kv"}

local function sign_of(value) return tensors.is_tensor(value) and TENSOR or value end

local function signs_of(t)
  local signs = {}
  for k, v in pairs(t) do signs[k] = sign_of(v) end
  return setmetatable(signs, weak)
end

--- What a snapshot says but for tensors. It keeps nothing alive.
function M.signature(list)
  local values, contents = setmetatable({}, weak), {}
  for i, entry in ipairs(list) do
    values[i], contents[i] = sign_of(entry[3]), entry[4] and signs_of(entry[4]) or false
  end
  return {count = #list, values = values, contents = contents}
end

local function same(a, b) return rawequal(sign_of(a), b) or (a ~= a and b ~= b) end

local function same_contents(t, signs)
  for k, v in pairs(t) do
    if not same(v, signs[k]) then return false end
  end
  for k in pairs(signs) do
    if t[k] == nil then return false end
  end
  return true
end

--- Does a snapshot of a function with the same code have this signature, which may be nil?
function M.matches(list, signature)
  if not signature or #list ~= signature.count then return false end
  for i, entry in ipairs(list) do
    if not same(entry[3], signature.values[i]) then return false end
    local contents = signature.contents[i]
    if entry[4] and not (contents and same_contents(entry[4], contents)) then return false end
  end
  return true
end

return M
