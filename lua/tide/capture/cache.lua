-- Entries of a captured function: what was made of it for arguments of certain types and shapes. Also the arguments
-- themselves: tensors inside nested tables, which a program sees as a list.

local core = require "tide.core"
local message = require "tide.message"
local mode = require "tide.nn.mode"
local tensors = require "tide.tensor"
local watch = require "tide.capture.watch"

local M = {}

local is_tensor = tensors.is_tensor

-- ---- Arguments and results: tensors inside nested tables, in a fixed order ----

-- A number for each object that was an argument: what it prints as does not tell it from others.
local numbers, last = setmetatable({}, {__mode = "k"}), 0

local function number_of(x)
  if not numbers[x] then last = last + 1 end
  numbers[x] = numbers[x] or last
  return numbers[x]
end

-- A plain value as a part of a key: different values have different ones.
local function text_of(x)
  local kind = type(x)
  if kind == "number" then return ("%.17g"):format(x) end
  if kind == "string" then return ("string %d %s"):format(#x, x) end
  if kind == "boolean" or kind == "nil" then return tostring(x) end
  return ("%s %d"):format(kind, number_of(x))
end

local function sorted_keys(t)
  local keys = {}
  for k in pairs(t) do keys[#keys + 1] = k end
  table.sort(keys, function(a, b)
    local x, y = type(a), type(b)
    if x ~= y then return x < y end
    if x == "number" or x == "string" then return a < b end
    return text_of(a) < text_of(b)
  end)
  return keys
end

local function is_plain(x) return type(x) == "table" and getmetatable(x) == nil end

local DEEPEST = 100

--- Appends the tensors of x to `list` and gives x's form: a place in the list, a table of forms, or a constant.
function M.form_of(x, list, key, depth)
  if is_tensor(x) then
    list[#list + 1] = x
    key[#key + 1] = x.dtype .. message.shape(x) .. (core.recording() and x.needs_grad and "g" or "")
    return {place = #list}
  elseif is_plain(x) then
    depth = (depth or 0) + 1
    if depth > DEEPEST then message.raise("capture: a table of arguments or results contains itself") end
    local form = {keys = sorted_keys(x)}
    key[#key + 1] = "{"
    for i, k in ipairs(form.keys) do
      key[#key + 1] = text_of(k)
      form[i] = M.form_of(x[k], list, key, depth)
    end
    key[#key + 1] = "}"
    return form
  end
  key[#key + 1] = text_of(x)
  return {constant = x}
end

function M.filled(form, list)
  if form.place then return list[form.place] end
  if not form.keys then return form.constant end
  local t = {}
  for i, k in ipairs(form.keys) do t[k] = M.filled(form[i], list) end
  return t
end

-- ---- Capturing ----

-- What stands for math.random while a function is captured, and passes on elsewhere (in a coroutine that came between).
local function refusing(random)
  return function(...)
    if not core.capturing() then return random(...) end
    message.raise("math.random: its number would be a constant of the captured function; draw with tide.rand, pass the "
      .. "number as an argument, or run the function as it is (fallback = \"eager\")")
  end
end

-- Runs body(trace) while everything is written down; gives the trace and what body returned, or nil and the error.
function M.traced(body)
  local trace, random = core.trace(), math.random
  rawset(math, "random", refusing(random))
  local ok, result = pcall(body, trace)
  rawset(math, "random", random)
  trace:stop()
  if not ok then return nil, result end
  return trace, result
end

-- Virtual stand-ins for the tensors of a list, points of the tape where they need gradients.
function M.stand_ins(trace, list, recording)
  local virtual, points = {}, {}
  for i, x in ipairs(list) do
    virtual[i] = trace:like(x)
    if recording and x.needs_grad then
      virtual[i]:requires_grad()
      points[#points + 1] = i
    end
  end
  return virtual, points
end


-- ---- The cache ----

local MOST = 64  -- entries of one function: beyond, the one longest unused goes

local Cache = {}
Cache.__index = Cache

--- new {f, build, fallback}: build(form, count, list) gives an entry for arguments of that form with those tensors, or
--- nil and the error. f is watched for what it closes over.
function M.new(o)
  return setmetatable({f = o.f, build = o.build, fallback = o.fallback, entries = {}, count = 0, calls = 0}, Cache)
end

--- Would the function that an entry was made of do the same now?
function M.is_same(entry) return entry.mode == mode.version and watch.unchanged(entry.watched) end

local function is_current(entry) return entry.leaves == core.leaf_changes() and M.is_same(entry) end

function Cache:drop_oldest()
  local oldest
  for _, entry in pairs(self.entries) do
    if not oldest or entry.used < oldest.used then oldest = entry end
  end
  self.entries[oldest.key], self.count = nil, self.count - 1
end

local function impure(f, changed)
  local place = watch.place(f)
  return ("%scapture: the function changes what it closes over: %s; a program would do so once only. Return it "
    .. "instead, or run the function as it is (fallback = \"eager\")"):format(place and place .. ": " or "", changed)
end

--- The entry for these arguments, made when there is none or when something that f closes over was replaced; with the
--- list of their tensors, their form and their number. nil when f is to run as it is; `reason` then says why.
function Cache:find(...)
  local list, key, count = {}, {core.recording() and "r" or "-"}, select("#", ...)
  local form = M.form_of({...}, list, key)
  if self.reason then return nil end
  key = table.concat(key, " ")
  local entry = self.entries[key]
  if not (entry and is_current(entry)) then
    local watched = watch.snapshot(self.f)
    local made, err = self.build(form, count, list)
    local changed = made and watch.changed(watched, true)
    if changed then made, err = nil, impure(self.f, changed) end
    if not made then
      watch.restore(watched)  -- else what f does as it is would be done once too often
      if self.fallback == "error" then error(err, 0) end
      self.reason = tostring(err)
      return nil
    end
    entry = made
    entry.mode, entry.leaves, entry.watched = mode.version, core.leaf_changes(), watched
    entry.key, entry.arguments, entry.inputs = key, form, {}
    for i, x in ipairs(list) do entry.inputs[i] = {shape = x.shape, dtype = x.dtype} end
    if not self.entries[key] then
      if self.count == MOST then self:drop_oldest() end
      self.count = self.count + 1
    end
    self.entries[key], self.newest = entry, entry
  end
  self.calls = self.calls + 1
  entry.used = self.calls
  return entry, list, form, count
end

--- Drops all entries and tries again what could not be captured.
function Cache:forget() self.entries, self.count, self.newest, self.reason = {}, 0, nil, nil end

--- The entries in the order of their keys.
function Cache:list()
  local list = {}
  for _, entry in pairs(self.entries) do list[#list + 1] = entry end
  table.sort(list, function(x, y) return x.key < y.key end)
  return list
end

return M
