-- Makes what is generated from the documentation's data (doc/api.lua and the core's table of operations):
--
--   bin/tide doc/make.lua        from the root; writes doc/reference.md and doc/types/tide.lua
--
-- Called with "texts" as its argument the chunk writes nothing and gives {path = text}, for the specs.

local entries = require "tide.help.entries"

local all = entries.all()

-- ---- The reference, Markdown ----

local function anchor(title) return (title:lower():gsub("[^%w%- ]", ""):gsub(" ", "-")) end

local function list_lines(out, title, list)
  if not list then return end
  out[#out + 1] = ""
  out[#out + 1] = ("| %s | type | default | |"):format(title)
  out[#out + 1] = "| --- | --- | --- | --- |"
  for _, p in ipairs(list) do
    local default = p.default and "`" .. p.default .. "`" or ""
    out[#out + 1] = ("| `%s` | %s | %s | %s |"):format(p.name, p.type:gsub("|", " or "), default, p.meaning)
  end
end

local function entry_lines(out, entry)
  out[#out + 1] = ("#### `%s`"):format(entries.signature(entry))
  out[#out + 1] = ""
  local also = entries.also(entry)
  out[#out + 1] = entry.text .. (also and " Also `" .. also:gsub(", ", "`, `") .. "`." or "")
  for _, note in ipairs(entries.notes(entry)) do
    local label = entry.args[note[1]] and "`" .. note[1] .. "`" or note[1]:sub(1, 1):upper() .. note[1]:sub(2)
    out[#out + 1] = ""
    out[#out + 1] = note[1] == "note" and note[2] or ("%s: %s"):format(label, note[2])
  end
  list_lines(out, "option", entry.options)
  list_lines(out, "field", entry.fields)
  if entry.example then
    out[#out + 1] = ""
    out[#out + 1] = "```lua\n" .. entry.example .. "\n```"
  end
  out[#out + 1] = ""
end

-- Sections of short operations are tables: a row for each.
local function is_table(section)
  for _, entry in ipairs(section.entries) do
    local long = (entry.example or ""):find "\n" or #entries.notes(entry) > 1
    if long or not entry.operation then return false end
  end
  return true
end

local function table_lines(out, section)
  out[#out + 1] = "| | | example |"
  out[#out + 1] = "| --- | --- | --- |"
  for _, entry in ipairs(section.entries) do
    local extra = ""
    for _, note in ipairs(entries.notes(entry)) do extra = " " .. note[2] end
    local example = entry.example and "`" .. entry.example:gsub("|", "\\|") .. "`" or ""
    local signature = entries.signature(entry):gsub("^tide%.", ""):gsub(" → tensor$", "")
    local text = (entry.text .. extra):gsub("|", "\\|")
    out[#out + 1] = ("| `%s` | %s | %s |"):format(signature, text, example)
  end
  out[#out + 1] = ""
end

local function reference()
  local out = {
    "# Reference", "",
    "Made by `bin/tide doc/make.lua` from `doc/api.lua` and the core's table of operations; change it there.",
    "The same is printed by `tide.help(x)`. Arguments with a `?` or a default may be left out; a line",
    "`expression --> text` in an example shows what the value prints as.", "",
  }
  for _, part in ipairs(all.parts) do
    local titles = {}
    for i, section in ipairs(part.sections) do
      titles[i] = ("[%s](#%s)"):format(section.title, anchor(part.title .. " " .. section.title))
    end
    out[#out + 1] = ("- %s: %s"):format(part.title, table.concat(titles, ", "))
  end
  out[#out + 1] = ""
  for _, part in ipairs(all.parts) do
    out[#out + 1] = "## " .. part.title
    out[#out + 1] = ""
    if part.text then out[#out + 1] = part.text .. "\n" end
    for _, section in ipairs(part.sections) do
      out[#out + 1] = ("### %s: %s\n"):format(part.title, section.title)
      if section.text then out[#out + 1] = section.text .. "\n" end
      if is_table(section) then table_lines(out, section)
      else
        for _, entry in ipairs(section.entries) do entry_lines(out, entry) end
      end
    end
  end
  return table.concat(out, "\n")
end

-- ---- Annotations for editors (LuaCATS) ----

-- A type of the data as a LuaCATS type; `own` is the name of the entry's options class.
local function cats(kind, own)
  if kind == "options" then return own end
  local list = {}
  for one in kind:gmatch "[^|]+" do
    local base, brackets = one:match "^(.-)([%[%]]*)$"
    local known = all.types[one] or (all.types[base] or base) .. brackets
    if brackets ~= "" and not all.types[one] and known:find("|", 1, true) then
      known = ("(%s)%s"):format(all.types[base], brackets)
    end
    list[#list + 1] = known
  end
  return table.concat(list, "|")
end

local function options_class(entry) return "tide." .. entry.name:gsub(":", ".") .. ".options" end

-- The variable in the annotations that stands for a class or a part.
local function owner_of(entry)
  if entry.class then return (entry.class:gsub("^.*%.", "")) end
  local path = entry.name:match "^(.*)%.[%w_]+$"
  return path and "tide." .. path or "tide"
end

-- Modules with methods or fields of their own, which are classes then: names → their fields.
local has_class = {}
for name, entry in pairs(all.by_name) do
  local class = entry.kind == "method" and name:match "^(%l.*):"
  if class then has_class[class] = all.by_name[class].fields or {} end
  if entry.fields and entry.results[1] == "module" then has_class[name] = entry.fields end
end

local keywords = {["end"] = true, ["function"] = true}

local function function_lines(out, entry)
  local own = options_class(entry)
  if entry.options then
    out[#out + 1] = "---@class " .. own
    for _, p in ipairs(entry.options) do
      local default = p.default and "; default " .. p.default or ""
      out[#out + 1] = ("---@field %s? %s %s%s"):format(p.name, cats(p.type), p.meaning, default)
    end
    out[#out + 1] = ""
  else
    own = "table"
  end
  out[#out + 1] = "---" .. entry.text
  local names = {}
  for i, p in ipairs(entry.params) do
    names[i] = keywords[p.name] and p.name .. "_" or p.name
    local meaning = entry.args[p.name] or (p.default and "default " .. p.default) or ""
    local mark = p.optional and p.name ~= "..." and "?" or ""
    local line = ("---@param %s%s %s %s"):format(names[i], mark, cats(p.type, own), meaning)
    out[#out + 1] = line:gsub("%s+$", "")
  end
  for _, kind in ipairs(entry.results) do
    local optional = kind:match "%?$" and "?" or ""
    if kind == "module" and has_class[entry.name] then kind = "tide." .. entry.name end
    local rest = kind:match "^%.%.%.(.*)$"
    local plain = rest and cats(rest) .. " ..." or cats((kind:gsub("%?$", ""))) .. optional
    out[#out + 1] = "---@return " .. plain
  end
  -- Sizes come before an element type, and Lua has "..." last only.
  for i = 1, #names do
    if names[i] == "..." then names = {unpack(names, 1, i)} end
  end
  local separator = entry.kind == "method" and ":" or "."
  local list = table.concat(names, ", ")
  out[#out + 1] = ("function %s%s%s(%s) end"):format(owner_of(entry), separator, entry.last, list)
  out[#out + 1] = ""
end

local function drop_params_after_dots(lines)  -- a @param that no argument has
  local out, dots = {}, false
  for _, line in ipairs(lines) do
    local name = line:match "^%-%-%-@param ([%w_%.]+)"
    if not (name and dots and name ~= "...") then out[#out + 1] = line end
    if name == "..." then dots = true elseif line:match "^function" then dots = false end
  end
  return out
end

local classes = {
  "Tensor", "Generator", "Optimiser", "Schedule", "EMA", "Loader", "Figure", "Axes", "Canvas", "Solution",
  "NoiseSchedule", "Sample",
}

local function field(name, kind, meaning)
  local plain, optional = kind:match "^(.-)(%??)$"
  return ("---@field %s %s%s %s"):format(name, cats(plain), optional, meaning)
end

-- Fields of a class that are no methods, by class.
local function fields_by_class()
  local fields = {}
  local function add(class, line)
    fields[class] = fields[class] or {}
    table.insert(fields[class], line)
  end
  for _, part in ipairs(all.parts) do
    for _, section in ipairs(part.sections) do
      for _, entry in ipairs(section.entries) do
        if entry.name == "data.Loader" then
          for _, p in ipairs(entry.fields) do add("Loader", field(p.name, p.type, p.meaning)) end
        elseif entry.kind == "property" then
          add(entry.class, field(entry.last, entry.type, entry.text))
        end
      end
    end
  end
  return fields
end

local function annotations()
  local out = {
    "---@meta", "-- luacheck: ignore",
    "-- Made by `bin/tide doc/make.lua` from doc/api.lua; change it there. For editors that read",
    "-- LuaCATS annotations: put this folder on the library path of the workspace.", "",
    "---@alias tide.dtype \"float32\"|\"float64\"|\"int64\"|\"uint8\"", "",
    "---@class tide.Dataset", "---@field images tide.Tensor N×H×W×C, uint8",
    "---@field labels tide.Tensor N, int64, from 1", "---@field raw_labels tide.Tensor N, as in the file",
    "---@field classes string[]?", "", "---@class tide.nn.Module", "---@field training boolean",
    "---@field forward fun(self: tide.nn.Module, ...): any",
    "---@overload fun(...): tide.Tensor", "local Module = {}", "",
  }
  local fields = fields_by_class()
  for _, class in ipairs(classes) do
    out[#out + 1] = "---@class tide." .. class
    for _, line in ipairs(fields[class] or {}) do out[#out + 1] = line end
    if class == "Tensor" then
      for _, op in ipairs {"add", "sub", "mul", "div", "pow", "mod"} do
        out[#out + 1] = ("---@operator %s(tide.Tensor|number): tide.Tensor"):format(op)
      end
      out[#out + 1] = "---@operator unm: tide.Tensor"
      out[#out + 1] = "---@operator len: integer"
      out[#out + 1] = "---@field [integer|table|tide.Tensor] tide.Tensor"
    end
    out[#out + 1] = ("local %s = {}\n"):format(class)
  end
  out[#out + 1] = "---@class tide\nlocal tide = {}"
  for part in ("nn nn.init optim ode implicit linalg data io plot repl"):gmatch "%S+" do
    out[#out + 1] = ("tide.%s = {}"):format(part)
  end
  out[#out + 1] = ""
  local body, later, parts = {}, {}, {}
  for _, part in ipairs(all.parts) do
    for _, section in ipairs(part.sections) do
      for _, entry in ipairs(section.entries) do
        if entry.kind == "value" then
          body[#body + 1] = ("---%s\ntide.%s = {}\n"):format(entry.text, entry.name)
        elseif entry.kind ~= "property" then
          function_lines(entry.class and entry.class:match "%." and later or body, entry)
        end
        local function method(form) parts[#parts + 1] = form:format(entry.last, entry.name) end
        if entry.also_method then method "Tensor.%s = tide.%s" end
        if entry.elementwise then method "Tensor.%s_ = tide.%s" end
        if (entries.also(entry) or ""):match "^m:" then method "Module.%s = tide.%s" end
      end
    end
  end
  for _, line in ipairs(drop_params_after_dots(body)) do out[#out + 1] = line end
  local names = {}
  for name in pairs(has_class) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    out[#out + 1] = ("---@class tide.%s: tide.nn.Module"):format(name)
    for _, p in ipairs(has_class[name]) do
      out[#out + 1] = field(p.name, p.type .. (p.optional and "?" or ""), p.meaning)
    end
    out[#out + 1] = ("local %s = {}\n"):format((name:gsub("^.*%.", "")))
  end
  for _, line in ipairs(drop_params_after_dots(later)) do out[#out + 1] = line end
  for _, line in ipairs(parts) do out[#out + 1] = line end
  out[#out + 1] = "\nreturn tide\n"
  return table.concat(out, "\n")
end

local texts = {["doc/reference.md"] = reference(), ["doc/types/tide.lua"] = annotations()}

if ... == "texts" then return texts end

os.execute "mkdir -p doc/types"
for path, text in pairs(texts) do
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
end
