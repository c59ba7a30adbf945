-- The documentation's entries, read: signatures taken apart, operations completed from the core's table. What
-- tide.help prints, and what the reference and the annotations are made of.

local core = require "tide.core"

local M = {}

-- ---- Signatures ----

-- "number = 1e-3" or "tensor?" as {type, default, optional}.
local function read_type(text)
  local kind, default = text:match "^(.-)%s+=%s+(.+)$"
  kind = kind or text
  local plain = kind:match "^(.-)%?$"
  return {type = plain or kind, default = default, optional = plain ~= nil or default ~= nil}
end

-- "x: tensor, k: integer = 1 -> tensor, tensor" as a list of parameters and a list of types of results.
local function read_signature(text)
  local left, right = text:match "^(.-)%s*%->%s*(.*)$"
  local params, results = {}, {}
  for item in ((left or text) .. ", "):gmatch "(.-),%s+" do
    local name, rest = item:match "^([%w_%.]+):%s*(.+)$"
    if name then
      local p = read_type(rest)
      p.name = name
      params[#params + 1] = p
    end
  end
  for kind in ((right or "") .. ", "):gmatch "(.-),%s+" do
    if kind ~= "" then results[#results + 1] = kind end
  end
  return params, results
end

-- Lines "name: type = default | meaning" as a list; an indented line goes on with the one before.
local function read_lines(text)
  local list = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do
    local name, kind, meaning = line:match "^([%w_]+):%s*(.-)%s+|%s+(.+)$"
    if name then
      local p = read_type(kind)
      p.name, p.meaning = name, meaning
      list[#list + 1] = p
    elseif #list > 0 and line:match "^%s+%S" then
      list[#list].meaning = list[#list].meaning .. " " .. line:match "^%s+(.*)$"
    end
  end
  return list
end

-- ---- Operations of the table ----

local attribute_types = {
  int = "integer", bool = "boolean", pos = "integer", dim = "dim", newdim = "dim", dims = "dims",
  pair = "pair", shape = "sizes", perm = "sizes", dtype = "dtype", num = "number",
}

-- The core's signature "x, w?, dims:dims, keepdim:bool=false" as parameters.
local function operation_params(op)
  local params = {}
  for item in (op.signature .. ", "):gmatch "(.-),%s+" do
    local name, kind, default = item:match "^([%w_]+):(%w+)=?(.*)$"
    if name then
      local p = {name = name, type = attribute_types[kind] or kind}
      if default ~= "" then p.default = default end
      p.optional = p.default ~= nil or kind == "dims"
      params[#params + 1] = p
    else
      local tensor, mark = item:match "^([%w_]+)(.*)$"
      params[#params + 1] = {
        name = tensor, optional = mark == "?" or nil,
        type = mark == "..." and "tensor[]" or op.elementwise and "operand" or "tensor",
      }
    end
  end
  return params
end

-- "natural logarithm" as a sentence; formulas such as "log(1 + x)" stay as they are.
local function sentence(text)
  local word = text:match "^(%l+)[ ,]"
  local plain = word and (#word > 2 and word ~= "log" or word == "is")
  local first = plain and text:sub(1, 1):upper() or text:sub(1, 1)
  return first .. text:sub(2) .. (text:match "[%?%.]$" and "" or ".")
end

-- ---- Entries ----

local function read_name(entry, name)
  local class, method = name:match "^(.+):([%w_]+)$"
  if class then
    entry.kind, entry.class, entry.last = "method", class, method
    return
  end
  class = name:match "^(%u[%w_]*)%.[%w_]+$"
  entry.last = name:match "([%w_]+)$"
  if class then entry.kind, entry.class = "property", class end
end

local function read_entry(raw, operations)
  local name = raw[1]
  local op = operations[name]
  local entry = {
    name = name, kind = "function", operation = op ~= nil and raw[3] == nil, args = raw.args or {},
    options = raw.options and read_lines(raw.options), fields = raw.fields and read_lines(raw.fields),
    returns = raw.returns, errors = raw.errors, source = raw.source, note = raw.note, example = raw.example,
  }
  read_name(entry, name)
  if entry.operation then
    entry.params, entry.results, entry.text = operation_params(op), {}, sentence(op.doc)
    entry.example = raw.example or raw[2]
    for i = 1, op.results do entry.results[i] = "tensor" end
    entry.elementwise, entry.differentiable = op.elementwise, op.differentiable
  else
    local signature = raw[2]
    entry.text = raw[3]
    if signature ~= "" and not signature:find("->", 1, true) and not signature:find(":", 1, true) then
      if entry.kind == "function" then entry.kind = "value" end
      entry.type = signature
    else
      entry.params, entry.results = read_signature(signature)
    end
  end
  local first = entry.kind == "function" and entry.params[1]
  entry.also_method = first and (first.type == "tensor" or first.type == "operand")
    and core.methods[name:match "^linalg%.(.*)$" or name] ~= nil
  return entry
end

-- Operations of the table that no part names, as a section.
local function remaining(raw, named, operations)
  local names, section = {}, {title = raw.rest, text = raw.rest_text, entries = {}}
  for name in pairs(operations) do
    if not named[name] then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do section.entries[i] = read_entry({name}, operations) end
  return section
end

-- doc/api.lua: in an installed tree it is tide.api.
local function read_api()
  for _, name in ipairs {"tide.api", "api"} do
    local ok, api = pcall(require, name)
    if ok then return api end
    if not api:find(("module '%s' not found"):format(name), 1, true) then error(api, 0) end
  end
  core.raise("help: the documentation (tide.api, or doc/api.lua in a checkout) is not on the path")
end

local read

--- {parts = {{title, text, sections = {{title, text, entries}}}}, by_name, types, internal}, read once.
function M.all()
  if read then return read end
  require "tide"  -- whose files add to the core's methods
  local api, operations = read_api(), core.operations()
  read = {parts = {}, by_name = {}, types = api.types, internal = {}}
  for _, name in ipairs(api.internal) do read.internal[name] = true end
  for i, raw_part in ipairs(api.parts) do
    local part = {title = raw_part.title, text = raw_part.text, sections = {}}
    read.parts[i] = part
    for j, raw in ipairs(raw_part) do
      local section = {title = raw.title, text = raw.text, entries = {}}
      part.sections[j] = section
      for k, raw_entry in ipairs(raw) do
        local entry = read_entry(raw_entry, operations)
        section.entries[k] = entry
        if read.by_name[entry.name] then error(entry.name .. " is described twice") end
        read.by_name[entry.name] = entry
      end
    end
  end
  for i, raw_part in ipairs(api.parts) do
    if raw_part.rest then
      local section = remaining(raw_part, setmetatable({}, {__index = function(_, name)
        return read.by_name[name] or read.internal[name]
      end}), operations)
      if #section.entries > 0 then table.insert(read.parts[i].sections, section) end
      for _, entry in ipairs(section.entries) do read.by_name[entry.name] = entry end
    end
  end
  return read
end

-- ---- As people read them ----

local receivers = {
  Tensor = "x", Generator = "g", Optimiser = "opt", Schedule = "sched", EMA = "ema", Loader = "loader",
  Figure = "fig", Axes = "ax", Canvas = "canvas", Solution = "sol",
  NoiseSchedule = "schedule", Sample = "out",
}

local function params_text(params)
  local list = {}
  for i, p in ipairs(params) do
    local text = p.name
    if p.name == "..." then text = p.type == "sizes" and "sizes…" or "…"
    elseif p.default then text = p.name .. " = " .. p.default
    elseif p.optional then text = p.name .. "?" end
    list[i] = text
  end
  return table.concat(list, ", ")
end

--- "tide.topk(x, k, dim = -1, largest = true) → tensor, tensor"
function M.signature(entry)
  local receiver = receivers[entry.class] or (entry.class and "m")
  if entry.kind == "property" then return ("%s.%s: %s"):format(receiver, entry.last, entry.type) end
  if entry.kind == "value" then return ("tide.%s: %s"):format(entry.name, entry.type) end
  local name = entry.kind == "method" and receiver .. ":" .. entry.last or "tide." .. entry.name
  local results = {}
  for i, kind in ipairs(entry.results) do results[i] = kind:gsub("^%.%.%.", "…") end
  local arrow = #results > 0 and " → " .. table.concat(results, ", ") or ""
  return ("%s(%s)%s"):format(name, params_text(entry.params), arrow)
end

--- The ways to call it besides the first, or nil: "x:add(…), x:add_(…)".
function M.also(entry)
  local list = {}
  if entry.also_method then list[1] = ("x:%s(…)"):format(entry.last) end
  if entry.elementwise then list[#list + 1] = ("x:%s_(…)"):format(entry.last) end
  local nn = require "tide.nn"
  local own = entry.name:match "^nn%.([%l_]+)$"
  if own and nn[own] and rawget(nn.Module, own) == nn[own] then list[1] = ("m:%s(…)"):format(own) end
  return #list > 0 and table.concat(list, ", ") or nil
end

--- {name or false, sentence} pairs of what else there is to say, in order.
function M.notes(entry)
  local list = {}
  local names = {}
  for name in pairs(entry.args) do names[#names + 1] = name end
  table.sort(names)
  for _, p in ipairs(entry.params or {}) do
    if entry.args[p.name] then list[#list + 1] = {p.name, entry.args[p.name]} end
  end
  if entry.returns then list[#list + 1] = {"returns", entry.returns} end
  if entry.errors then list[#list + 1] = {"raises", entry.errors} end
  if entry.note then list[#list + 1] = {"note", entry.note} end
  if entry.source then list[#list + 1] = {"source", entry.source} end
  if entry.operation and not entry.differentiable then list[#list + 1] = {"note", "It has no derivative."} end
  return list
end

return M
