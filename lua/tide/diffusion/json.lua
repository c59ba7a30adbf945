-- JSON as configurations are written in it. null is read as false, and an object's keys are written in order.

local message = require "tide.message"

local M = {}

-- ---- Reading ----

local escapes = {['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

-- The UTF-8 of a character's number.
local function utf8_of(code)
  if code < 0x80 then return string.char(code) end
  local floor = math.floor
  if code < 0x800 then return string.char(0xC0 + floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then
    return string.char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
  end
  return string.char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64,
    0x80 + code % 64)
end

-- A failure inside the reader, caught by decode: what was expected, and where.
local function fail(at, expected) error({at = at, expected = expected}, 0) end

local function skip(text, at) return text:find("[^ \t\r\n]", at) or #text + 1 end

-- \uXXXX from behind the u, with its other half where it is one of a pair.
local function read_unicode(text, at)
  local code = tonumber(text:match("^%x%x%x%x", at) or fail(at, "four hexadecimal digits"), 16)
  at = at + 4
  if code >= 0xD800 and code < 0xDC00 then
    local low = tonumber(text:match("^\\u(%x%x%x%x)", at) or fail(at, "the other half of a character"), 16)
    code, at = 0x10000 + (code - 0xD800) * 1024 + (low - 0xDC00), at + 6
  end
  return utf8_of(code), at
end

local function read_string(text, at)
  local parts = {}
  at = at + 1
  while true do
    local plain, stop = text:match("^([^\"\\%c]*)()", at)
    parts[#parts + 1] = plain
    local c = text:sub(stop, stop)
    if c == '"' then return table.concat(parts), stop + 1 end
    if c ~= "\\" then fail(stop, "the closing quote") end
    local letter = text:sub(stop + 1, stop + 1)
    if letter == "u" then
      parts[#parts + 1], at = read_unicode(text, stop + 2)
    else
      parts[#parts + 1] = escapes[letter] or fail(stop + 1, "one of \"\\/bfnrtu")
      at = stop + 2
    end
  end
end

local read_value

-- The items of a list or an object up to its closing bracket.
local function read_items(text, at, closing, read_item)
  at = skip(text, at + 1)
  if text:sub(at, at) == closing then return at + 1 end
  while true do
    at = skip(text, read_item(at))
    local c = text:sub(at, at)
    if c == closing then return at + 1 end
    if c ~= "," then fail(at, ("',' or '%s'"):format(closing)) end
    at = skip(text, at + 1)
  end
end

local function read_list(text, at, depth)
  local list, n = {}, 0
  local stop = read_items(text, at, "]", function(from)
    n = n + 1
    local value, after = read_value(text, from, depth)
    list[n] = value
    return after
  end)
  return list, stop
end

local function read_object(text, at, depth)
  local object = {}
  local stop = read_items(text, at, "}", function(from)
    if text:sub(from, from) ~= '"' then fail(from, "a name in \"quotes\"") end
    local key, after = read_string(text, from)
    after = skip(text, after)
    if text:sub(after, after) ~= ":" then fail(after, "':'") end
    object[key], after = read_value(text, skip(text, after + 1), depth)
    return after
  end)
  return object, stop
end

local words = {["true"] = true, ["false"] = false, ["null"] = false}

function read_value(text, at, depth)
  local c = text:sub(at, at)
  if c == "{" or c == "[" then
    if depth > 100 then fail(at, "at most 100 brackets inside each other") end
    return (c == "{" and read_object or read_list)(text, at, depth + 1)
  elseif c == '"' then
    return read_string(text, at)
  end
  local word = text:match("^%a+", at)
  if word and words[word] ~= nil then return words[word], at + #word end
  local number = text:match("^-?%d+%.?%d*[eE]?[+-]?%d*", at)
  if number and tonumber(number) then return tonumber(number), at + #number end
  fail(at, "a value")
end

--- The value of a JSON text: tables, strings, numbers, true and false (also for null). Or nil and a message
--- with the place where something else was expected.
function M.decode(text)
  local ok, value, stop = pcall(read_value, text, skip(text, 1), 0)
  if ok then
    stop = skip(text, stop)
    if stop > #text then return value end
    value = {at = stop, expected = "the end"}
  elseif type(value) ~= "table" then
    error(value, 0)
  end
  local before = text:sub(1, value.at - 1)
  local _, lines = before:gsub("\n", "")
  return nil, ("line %d, column %d: expected %s"):format(lines + 1, #before:match "[^\n]*$" + 1, value.expected)
end

--- The value of a JSON file, or nil and a message.
function M.read(path)
  local f, why = io.open(path, "rb")
  if not f then return nil, why end
  local text = f:read "*a"
  f:close()
  if not text then return nil, path .. ": cannot be read" end
  local value
  value, why = M.decode(text)
  if value == nil then return nil, ("%s: %s"):format(path, why) end
  return value
end

-- ---- Writing ----

local function quoted(s)
  return '"' .. s:gsub('[%c"\\]', function(c)
    return c == '"' and '\\"' or c == "\\" and "\\\\" or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local function number(v)
  if v ~= v or v == math.huge or v == -math.huge then message.raise("json: %s cannot be written", tostring(v)) end
  for digits = 6, 17 do  -- the shortest text that reads back the same
    local text = ("%%.%dg"):format(digits):format(v)
    if tonumber(text) == v then return text end
  end
end

local write

local function write_object(object, indent)
  local keys = {}
  for key in pairs(object) do keys[#keys + 1] = key end
  table.sort(keys)
  local lines = {}
  for i, key in ipairs(keys) do
    lines[i] = ("%s  %s: %s"):format(indent, quoted(key), write(object[key], indent .. "  "))
  end
  return "{\n" .. table.concat(lines, ",\n") .. "\n" .. indent .. "}"
end

function write(value, indent)
  if value == M.null then return "null" end
  if type(value) == "table" and (#value > 0 or next(value) == nil) then
    local items = {}
    for i, v in ipairs(value) do items[i] = write(v, indent) end
    return "[" .. table.concat(items, ", ") .. "]"
  elseif type(value) == "table" then
    return write_object(value, indent)
  elseif type(value) == "number" then
    return number(value)
  elseif type(value) == "string" then
    return quoted(value)
  end
  return tostring(value)
end

--- Stands for null in what encode is given.
M.null = setmetatable({}, {__tostring = function() return "null" end})

--- The JSON text of a value, one name of an object a line.
function M.encode(value) return write(value, "") .. "\n" end

--- Writes a value into a file: true, or nil and a message.
function M.write(path, value)
  local text = M.encode(value)
  local f, why = io.open(path, "wb")
  if not f then return nil, why end
  local ok
  ok, why = f:write(text)
  f:close()
  if not ok then return nil, why end
  return true
end

return M
