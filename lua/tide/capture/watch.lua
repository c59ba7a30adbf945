-- What a function reads from outside, so that a value assigned anew is noticed: its upvalues, the globals that its code
-- names, and those of the functions among them. Numbers, strings, booleans, functions and tensors are compared; tables
-- count as themselves, whatever happens inside them.

local core = require "tide.core"
local tensors = require "tide.tensor"

local M = {}

-- ---- Globals, by the code ----

local has_util, util = pcall(require, "jit.util")  -- of LuaJIT
local names_of_code = setmetatable({}, {__mode = "k"})

local function opcode(f, pc) return util.funcbc(f, pc) % 256 end
local reads = has_util and opcode(loadstring "return a", 1)
local sets = has_util and opcode(loadstring "a = ...", 2)

-- The names of the globals that f's code, or that of a function within, reads or sets.
local function names_in(code, names, seen)
  for pc = 1, util.funcinfo(code).bytecodes - 1 do
    local op = opcode(code, pc)
    if op == reads or op == sets then
      local name = util.funck(code, -math.floor(util.funcbc(code, pc) % 2 ^ 32 / 65536) - 1)
      if not seen[name] then names[#names + 1], seen[name] = name, true end
    end
  end
  for k = -1, -util.funcinfo(code).gcconsts, -1 do
    local inner = util.funck(code, k)
    if type(inner) == "proto" then names_in(inner, names, seen) end
  end
  return names
end

local none = {}

local function globals_of(f)
  local code = has_util and util.funcinfo(f).proto
  if not code then return none end  -- a function of C
  if not names_of_code[code] then names_of_code[code] = names_in(f, {}, {}) end
  return names_of_code[code]
end

-- ---- What is watched: {function or table, upvalue's number or key in the table, value} ----

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

local function kind_of(f)
  local info = debug.getinfo(f, "S")
  return info.what == "C" and "C" or core.is_own(info.source) and "own" or "Lua"
end

local function index(t, key) return t[key] end

-- A global of an environment, which may refuse names that it does not know.
local function global(env, name)
  local value = rawget(env, name)
  if value ~= nil or not getmetatable(env) then return value end
  local ok, found = pcall(index, env, name)
  if ok then return found end
end

local function value_of(entry)
  local holder = entry[1]
  if type(holder) == "table" then return global(holder, entry[2]) end
  local _, value = debug.getupvalue(holder, entry[2])
  return value
end

local add

-- One more entry, and what the function in it closes over.
local function add_entry(entry, list, seen, depth)
  local value = entry[3]
  list[#list + 1] = entry
  if type(value) == "function" and depth > 0 and kind_of(value) == "Lua" then add(value, list, seen, depth - 1) end
end

function add(f, list, seen, depth)
  if seen[f] then return end
  seen[f] = true
  local i = 1
  while true do
    local name, value = debug.getupvalue(f, i)
    if not name then break end
    add_entry({f, i, value}, list, seen, depth)
    i = i + 1
  end
  local env, names = getfenv(f), globals_of(f)
  for _, name in ipairs(names) do
    local value = global(env, name)
    if not (is_library(value) or type(value) == "function" and kind_of(value) == "C") then
      add_entry({env, name, value}, list, seen, depth)
    end
  end
end

--- What f reads from outside, as it is now; of a module or another table that is called, and of a right-hand side in
--- halves, what its functions read.
function M.list(f)
  local list, seen = {}, {}
  if type(f) == "table" then
    list[1] = {{f}, 1, f}
    for _, name in ipairs {"__call", "forward", "explicit", "implicit"} do
      local method = name == "__call" and (getmetatable(f) or {}).__call or f[name]
      if type(method) == "function" and kind_of(method) == "Lua" then add(method, list, seen, 3) end
    end
  elseif type(f) == "function" then
    add(f, list, seen, 3)
  end
  return list
end

--- Are they still the same?
function M.unchanged(list)
  for i = 1, #list do
    local before, value = list[i][3], value_of(list[i])
    if value ~= before and (value == value or before == before) then return false end
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

-- The key of an entry that is not as in the copy, or nil.
local function changed_key(t, copy)
  local n = 0
  for k, v in pairs(t) do
    n = n + 1
    if n > MOST then break end
    if not rawequal(copy[k], v) and v == v then return k end
  end
  for k in pairs(copy) do
    if rawget(t, k) == nil then return k end
  end
end

--- What f reads from outside, what lies in the tables and how often the tensors among them were written, to find out
--- whether a call changes any.
function M.snapshot(f)
  local list = M.list(f)
  for _, entry in ipairs(list) do
    local value = entry[3]
    if tensors.is_tensor(value) then entry[5] = value.version
    elseif type(value) == "table" and not is_library(value) then entry[4] = copy_of(value) end
  end
  return list
end

-- What an entry is, for a message.
local function words(entry)
  local holder, key = entry[1], entry[2]
  if type(holder) == "function" then return ("'%s'"):format((debug.getupvalue(holder, key))) end
  return key == 1 and "its own fields" or ("the global '%s'"):format(key)
end

--- What is not as it was at the snapshot, in words, or nil. may_write: writes into tensors are none of it.
function M.changed(list, may_write)
  for _, entry in ipairs(list) do
    if not M.unchanged {entry} then return words(entry) end
    local key = entry[4] and changed_key(entry[3], entry[4])
    if key ~= nil then return ("%s, at [%s]"):format(words(entry), tostring(key)) end
    if entry[5] and entry[3].version ~= entry[5] and not may_write then return words(entry) .. ", written in place" end
  end
end

local function restore_table(t, copy)
  local n = 0
  for _ in pairs(t) do n = n + 1 end
  for k in pairs(t) do
    if copy[k] == nil and n <= MOST then t[k] = nil end
  end
  for k, v in pairs(copy) do
    if not rawequal(rawget(t, k), v) then rawset(t, k, v) end
  end
end

--- Puts back what a snapshot says, but for values of tensors.
function M.restore(list)
  for _, entry in ipairs(list) do
    local holder, key, value = unpack(entry, 1, 3)
    if not M.unchanged {entry} then
      if type(holder) == "function" then debug.setupvalue(holder, key, value) else rawset(holder, key, value) end
    end
    if entry[4] then restore_table(value, entry[4]) end
  end
end

--- Where a function of Lua was written, "script.lua:12", or nil.
function M.place(f)
  local info = type(f) == "function" and debug.getinfo(f, "S")
  return info and info.what == "Lua" and ("%s:%d"):format(info.short_src, info.linedefined) or nil
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
