-- tide.help(x): the documentation at the prompt.

local core = require "tide.core"
local entries = require "tide.help.entries"
local public = require "tide.help.public"

local M = {}

local WIDTH = 96

-- ---- Text ----

local function columns(text) return select(2, text:gsub("[^\128-\191]", "")) end

-- Words broken into lines that begin with an indent.
local function wrapped(text, indent)
  local lines, line = {}, ""
  for word in text:gmatch "%S+" do
    if line ~= "" and columns(indent .. line) + columns(word) + 1 > WIDTH then
      lines[#lines + 1] = indent .. line
      line = word
    else
      line = line == "" and word or line .. " " .. word
    end
  end
  lines[#lines + 1] = indent .. line
  return table.concat(lines, "\n")
end

local function indented(text, indent) return indent .. text:gsub("\n", "\n" .. indent) end

local function list_text(title, list, out)
  if not list then return end
  out[#out + 1] = "  " .. title
  for _, p in ipairs(list) do
    local head = p.default and p.name .. " = " .. p.default or p.name .. (p.optional and "?" or "")
    out[#out + 1] = wrapped(("%s: %s"):format(head, p.meaning), "    ")
  end
end

local function entry_text(entry)
  local also = entries.also(entry)
  local out = {entries.signature(entry) .. (also and "    also " .. also or "")}
  out[2] = wrapped(entry.text, "  ")
  for _, note in ipairs(entries.notes(entry)) do out[#out + 1] = wrapped(note[1] .. ": " .. note[2], "  ") end
  list_text("options", entry.options, out)
  list_text("fields", entry.fields, out)
  if entry.example then out[#out + 1] = "  example\n" .. indented(entry.example, "    ") end
  return table.concat(out, "\n")
end

-- The names of a section's entries in lines.
local function section_text(section)
  local names = {}
  for i, entry in ipairs(section.entries) do names[i] = entry.name end
  return section.title .. "\n" .. wrapped(table.concat(names, "  "), "  ")
end

local function part_text(part)
  local out = {part.title}
  if part.text then out[2] = wrapped(part.text, "  ") end
  for _, section in ipairs(part.sections) do out[#out + 1] = section_text(section) end
  return table.concat(out, "\n")
end

local function overview()
  local out = {"help(x) explains a function, a class, an object or a name: help \"matmul\", "
    .. "help(tide.nn.Linear), help \"tide.optim\"."}
  for _, part in ipairs(entries.all().parts) do
    local titles = {}
    for i, section in ipairs(part.sections) do
      titles[i] = section.title:sub(1, 1):lower() .. section.title:sub(2)
    end
    out[#out + 1] = wrapped(("%s: %s"):format(part.title, table.concat(titles, "; ")), "")
  end
  return table.concat(out, "\n")
end

-- The members of a class that has no entry of its own.
local function class_text(class)
  local out = {}
  for _, part in ipairs(entries.all().parts) do
    for _, section in ipairs(part.sections) do
      for _, entry in ipairs(section.entries) do
        if entry.class == class then
          out[#out + 1] = entries.signature(entry) .. "\n" .. wrapped(entry.text, "  ")
        end
      end
    end
  end
  return #out > 0 and table.concat(out, "\n") or nil
end

-- ---- Names ----

-- Edits between two words.
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local best = math.min(row[j] + 1, row[j - 1] + 1, diagonal + (a:byte(i) == b:byte(j) and 0 or 1))
      diagonal, row[j] = row[j], best
    end
  end
  return row[#b]
end

-- The three names that are nearest to an unknown one, by the whole or by the last word.
local function nearest(name)
  local wanted, found = name:lower(), {}
  for full, entry in pairs(entries.all().by_name) do
    local d = math.min(distance(wanted, full:lower()), distance(wanted, entry.last:lower()))
    if full:lower():find(wanted, 1, true) then d = math.min(d, 1) end
    if d <= 1 + #wanted / 3 then found[#found + 1] = {d, full} end
  end
  table.sort(found, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  local list = {}
  for i = 1, math.min(3, #found) do list[i] = found[i][2] end
  return list
end

local function part_named(name)
  name = name:lower()
  for _, part in ipairs(entries.all().parts) do
    local title = part.title:lower()
    if title == name or (" " .. title .. " "):find(" tide." .. name .. " ", 1, true) then return part end
  end
end

-- Entries whose last word is the name, in order of their full names.
local function with_last_word(name)
  local list = {}
  for _, entry in pairs(entries.all().by_name) do
    if entry.last == name then list[#list + 1] = entry end
  end
  if #list == 0 then
    for _, entry in pairs(entries.all().by_name) do
      if entry.last:lower() == name:lower() then list[#list + 1] = entry end
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- "also …" for entries of other parts that end in a plain name.
local function others_text(name, entry)
  if name:find "[.:]" then return "" end
  local names = {}
  for _, e in ipairs(with_last_word(name)) do
    if e ~= entry then names[#names + 1] = e.name end
  end
  return #names > 0 and "\n  see also " .. table.concat(names, ", ") or ""
end

local function named_text(given)
  local name = given:gsub("^%s+", ""):gsub("%s+$", ""):gsub("%(.*$", ""):gsub("^tide%.", "")
  local by_name = entries.all().by_name
  local entry = by_name[name] or by_name["Tensor:" .. name] or by_name["Tensor." .. name]
  if not entry and name:match "_$" then entry = by_name[name:sub(1, -2)] end
  if entry then return entry_text(entry) .. others_text(name, entry) end
  local part = part_named(name)
  if part then return part_text(part) end
  local class = class_text(name)
  if class then return class end
  local list = with_last_word(name:match "([%w_]+)$" or name)
  if #list > 0 then
    local out = {}
    for i, e in ipairs(list) do out[i] = #list <= 3 and entry_text(e) or entries.signature(e) end
    return table.concat(out, "\n")
  end
  local near = nearest(name)
  local hint = "; help() shows the parts"
  if #near > 0 then hint = ", did you mean " .. table.concat(near, ", ") .. "?" end
  return ("help: nothing is called %q%s"):format(given, hint)
end

-- Signatures of what is in a part of tide that has no part of the documentation to itself.
local function members_text(part)
  local list = {}
  for name, entry in pairs(entries.all().by_name) do
    if name:find("^" .. part .. "%.") then list[#list + 1] = entries.signature(entry) end
  end
  table.sort(list)
  return table.concat(list, "\n")
end

-- ---- Values ----

local values

local function name_of(x)
  if not values then
    local _
    _, values = public(require "tide")
  end
  return values[x] or (type(x) == "table" and values[getmetatable(x)]) or nil
end

local function value_text(x)
  local tide = require "tide"
  if x == tide or x == M then return overview() end
  if tide.is_tensor(x) then return part_text(part_named "Tensors") end
  for _, part in ipairs {"nn", "optim", "ode", "implicit", "diffusion", "linalg", "data", "io", "plot"} do
    if rawequal(x, rawget(tide, part)) then
      local found = part_named(part)
      return found and part_text(found) or members_text(part)
    end
  end
  local mt = debug.getmetatable(x)
  local name = name_of(x) or (mt and type(mt.__index) == "table" and name_of(mt.__index))
  if type(x) == "table" and not name then  -- a class of the user's own: the nearest ancestor that is tide's
    local class = getmetatable(x)
    while type(class) == "table" and not name do
      name = values[class]
      local parent = getmetatable(class)
      class = parent and parent.__index
    end
  end
  if not name then return ("help: this %s is none of tide's; help() shows the parts"):format(type(x)) end
  return named_text(name)
end

--- The text that help prints.
function M.text(...)
  if select("#", ...) == 0 then return overview() end
  local x = ...
  if x == nil then return "help: nil (a name in quotes works too: help \"matmul\")" end
  if type(x) == "string" then return named_text(x) end
  return value_text(x)
end

return setmetatable(M, {
  __call = function(_, ...)
    io.write(M.text(...), "\n")
  end,
  __tostring = function() return "help(x) explains x; help() shows what there is" end,
  __index = function(_, key) core.raise(("help: no field %q; call it: help(x)"):format(tostring(key))) end,
})
