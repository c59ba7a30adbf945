-- Modules: plain Lua tables that hold tensors and other modules, and can be called.
--
-- Everything about a module is found by walking its table. A tensor that requires a gradient is a parameter;
-- one that does not is a buffer (state that is saved, such as running statistics). Keys are visited in a
-- fixed order: numbers first, ascending, then names, sorted. Names that begin with "_" are private and never
-- visited; nor are results of operations (tensors inside a graph), nor tables with a metatable that is no
-- module's, nor fields of a module whose class lists them in `transient = {name = true}`. The functions here also
-- take plain tables of modules: nn.parameters {encoder, decoder}.

local core = require "tide.core"
local message = require "tide.message"
local mode = require "tide.nn.mode"
local options = require "tide.options"
local is_tensor = require("tide.tensor").is_tensor

local M = {}
local raise, shape_of = message.raise, message.shape


-- ---- Walking ----

local is_class = setmetatable({}, {__mode = "k"})  -- metatables of modules

--- Is x a module?
function M.is_module(x)
  return type(x) == "table" and is_class[getmetatable(x)] == true
end
local is_module = M.is_module

local function walkable(t)
  local mt = getmetatable(t)
  return mt == nil or is_class[mt] == true
end

-- The keys of t that hold tables or tensors, in the fixed order.
local function keys_of(t)
  local numbers, names = {}, {}
  local transient = is_module(t) and t.transient or {}
  for key, value in pairs(t) do
    if (type(value) == "table" or is_tensor(value)) and not transient[key] then
      if type(key) == "number" then
        numbers[#numbers + 1] = key
      elseif type(key) == "string" and key:sub(1, 1) ~= "_" then
        names[#names + 1] = key
      end
    end
  end
  table.sort(numbers)
  table.sort(names)
  for _, name in ipairs(names) do numbers[#numbers + 1] = name end
  return numbers
end

-- Depth first over the table: on_tensor(name, tensor, owner, key) for every tensor (each time it occurs),
-- on_module(name, module) for every module after its children. A table is visited once.
local function walk(fname, root, on_tensor, on_module)
  if type(root) ~= "table" then raise("%s: a module is %s, expected a table", fname, type(root)) end
  local seen = {}
  local function visit(t, name)
    seen[t] = true
    for _, key in ipairs(keys_of(t)) do
      local value = t[key]
      local path = name == "" and tostring(key) or name .. "." .. key
      if type(value) == "table" then
        if not seen[value] and walkable(value) then visit(value, path) end
      elseif on_tensor and (value.is_leaf or not value.needs_grad) then
        on_tensor(path, value, t, key)
      end
    end
    if on_module and is_module(t) then on_module(name, t) end
  end
  visit(root, "")
end

-- The tensors for which wanted(tensor), each once, as {name, tensor} in order.
local function listed(fname, m, wanted)
  local list, seen = {}, {}
  walk(fname, m, function(name, t)
    if not seen[t] and wanted(t) then
      seen[t] = true
      list[#list + 1] = {name, t}
    end
  end)
  return list
end

local function seconds(list)
  local out = {}
  for i, pair in ipairs(list) do out[i] = pair[2] end
  return out
end

-- An iterator over {a, b} pairs.
local function each(list)
  local i = 0
  return function()
    i = i + 1
    if list[i] then return list[i][1], list[i][2] end
  end
end

local function is_parameter(t) return t.is_leaf end
local function is_buffer(t) return not t.is_leaf end
local function any() return true end

-- ---- What a module holds ----

--- The parameters: a list of tensors in a fixed order, each once.
function M.parameters(m) return seconds(listed("parameters", m, is_parameter)) end

--- The tensors that are no parameters (running statistics, frozen weights).
function M.buffers(m) return seconds(listed("buffers", m, is_buffer)) end

--- for name, p in m:named_parameters() do … end; a name is a path such as "stem.1.weight".
function M.named_parameters(m) return each(listed("named_parameters", m, is_parameter)) end

--- for name, b in m:named_buffers() do … end
function M.named_buffers(m) return each(listed("named_buffers", m, is_buffer)) end

--- for name, child in m:named_modules() do … end: children before their parent; the module itself comes last,
--- as "".
function M.named_modules(m)
  local list = {}
  walk("named_modules", m, nil, function(name, module) list[#list + 1] = {name, module} end)
  return each(list)
end

--- The number of elements of all parameters.
function M.count(m)
  local n = 0
  for _, p in ipairs(M.parameters(m)) do n = n + p.numel end
  return n
end

--- Calls f(module) for every module inside and then for m. Returns m.
function M.apply(m, f)
  for _, module in M.named_modules(m) do f(module) end
  return m
end

-- ---- Modes ----

--- Training mode (dropout drops, batch norm uses the batch's statistics), or evaluation for on = false.
--- Returns m.
function M.train(m, on)
  local training, differs = on ~= false, false
  M.apply(m, function(module)
    differs = differs or module.training ~= training
    module.training = training
  end)
  if differs then mode.changed() end
  return m
end

--- Evaluation mode. Returns m.
function M.eval(m) return M.train(m, false) end

--- Draws the masks of every VariationalDropout inside anew at their next use. Returns m.
function M.resample(m)
  return M.apply(m, function(module)
    if module ~= m and module.resample ~= M.resample then module:resample() end
  end)
end

--- Drops the gradients of all parameters. Returns m.
function M.zero_grad(m)
  for _, p in ipairs(M.parameters(m)) do p.grad = nil end
  return m
end

--- Makes the parameters constants, until unfreeze(). Optimisers made before go past them. Returns m.
function M.freeze(m)
  mode.changed()
  walk("freeze", m, function(_, t, owner, key)
    if not t.is_leaf then return end
    t:requires_grad(false)
    owner._frozen = owner._frozen or {}
    owner._frozen[key] = true
  end)
  return m
end

--- Makes parameters of what freeze() made constant. Returns m.
function M.unfreeze(m)
  mode.changed()
  local owners = {}
  walk("unfreeze", m, function(_, t, owner, key)
    if owner._frozen and owner._frozen[key] then
      t:requires_grad()
      owners[owner] = true
    end
  end)
  for owner in pairs(owners) do owner._frozen = nil end
  return m
end

-- ---- Conversion and copies ----

--- Parameters and buffers of real type become "float32" or "float64". They are new tensors, so make
--- optimisers afterwards. Returns m.
function M.to(m, dtype)
  if dtype ~= "float32" and dtype ~= "float64" then
    raise("to: dtype is %s, expected \"float32\" or \"float64\"", tostring(dtype))
  end
  mode.changed()
  local made = {}
  walk("to", m, function(_, t, owner, key)
    if t.dtype == dtype or t.dtype == "int64" or t.dtype == "uint8" then return end
    local new = made[t]
    if not new then
      new = t:detach():to(dtype)
      if t.is_leaf then new:requires_grad() end
      made[t] = new
    end
    owner[key] = new
  end)
  return m
end

function M.float(m) return M.to(m, "float32") end
function M.double(m) return M.to(m, "float64") end

--- A copy with tensors of its own. What m shares inside itself, the copy shares inside itself too.
function M.clone(m)
  local made = {}
  local function copy(x)
    if made[x] then return made[x] end
    local new = x
    if is_tensor(x) then
      new = x:detach():clone()
      if x.is_leaf then new:requires_grad() end
      made[x] = new
    elseif type(x) == "table" and walkable(x) then
      new = setmetatable({}, getmetatable(x))
      made[x] = new
      for key, value in pairs(x) do new[key] = copy(value) end
    end
    return new
  end
  return copy(m)
end

-- ---- State ----

--- Parameters and buffers by name. The tensors share memory with the module's (they change as it trains)
--- unless {copy = true}. tide.io.save_safetensors writes such a table.
function M.state_dict(m, opts)
  local o = options.check("state_dict", opts, {copy = false})
  local state = {}
  for _, pair in ipairs(listed("state_dict", m, any)) do
    local t = pair[2]:detach()
    state[pair[1]] = o.copy and t:clone() or t
  end
  return state
end

local function describe_list(what, names)
  table.sort(names)
  local shown = table.concat(names, ", ", 1, math.min(#names, 6))
  if #names > 6 then shown = shown .. (" and %d more"):format(#names - 6) end
  return what .. " " .. shown
end

--- Copies values by name into the module's own tensors, converting their type. Raises when names are missing
--- or unexpected, unless {strict = false}, and always for a wrong shape; then nothing has been copied.
--- Returns m and lists of the missing and the unexpected names.
function M.load_state_dict(m, state, opts)
  local o = options.check("load_state_dict", opts, {strict = true})
  if type(state) ~= "table" then
    raise("load_state_dict: the state is a %s, expected a table", type(state))
  end
  local known, missing, unexpected, misshaped = {}, {}, {}, {}
  local list = listed("load_state_dict", m, any)
  for _, pair in ipairs(list) do
    local name, t = pair[1], pair[2]
    local given = state[name]
    known[name] = true
    if given == nil then
      missing[#missing + 1] = name
    elseif not is_tensor(given) then
      misshaped[#misshaped + 1] = ("%s is a %s"):format(name, type(given))
    elseif shape_of(given) ~= shape_of(t) then
      local misfit = ("%s has shape (%s), expected (%s)"):format(name, shape_of(given), shape_of(t))
      misshaped[#misshaped + 1] = misfit
    end
  end
  for name in pairs(state) do
    if not known[name] then unexpected[#unexpected + 1] = tostring(name) end
  end
  local problems = {}
  if o.strict and #missing > 0 then problems[1] = describe_list("missing", missing) end
  if o.strict and #unexpected > 0 then problems[#problems + 1] = describe_list("unexpected", unexpected) end
  if #misshaped > 0 then problems[#problems + 1] = describe_list("misfit:", misshaped) end
  if #problems > 0 then raise("load_state_dict: %s", table.concat(problems, "; ")) end
  local was = core.recording(false)
  for _, pair in ipairs(list) do
    if state[pair[1]] then pair[2]:copy_(state[pair[1]]) end
  end
  core.recording(was)
  return m, missing, unexpected
end

-- ---- Printing ----

local function grouped(n)
  local text, times = ("%d"):format(n), 1
  while times > 0 do text, times = text:gsub("^(%d+)(%d%d%d)", "%1,%2") end
  return text
end

local function tree(m, indent, lines, seen)
  seen[m] = true
  for _, key in ipairs(keys_of(m)) do
    local value = m[key]
    if is_tensor(value) then
      if not m.describe and (value.is_leaf or not value.needs_grad) then
        lines[#lines + 1] = ("%s%s: %s (%s)"):format(indent, key, value.is_leaf and "parameter" or "buffer",
          shape_of(value))
      end
    elseif seen[value] then
      lines[#lines + 1] = ("%s%s: (as above)"):format(indent, key)
    elseif is_module(value) then
      local about = value.describe and value:describe() or ""
      lines[#lines + 1] = ("%s%s: %s(%s)"):format(indent, key, value.class_name, about)
      tree(value, indent .. "  ", lines, seen)
    elseif getmetatable(value) == nil and next(M.state_dict(value)) then
      lines[#lines + 1] = ("%s%s:"):format(indent, key)
      tree(value, indent .. "  ", lines, seen)
    end
  end
end

local function module_text(m)
  local lines = {}
  tree(m, "  ", lines, {})
  local n = M.count(m)
  local about = m.describe and m:describe() or ""
  lines[0] = ("%s(%s)%s"):format(m.class_name, about, n > 0 and "  " .. grouped(n) .. " parameters" or "")
  return table.concat(lines, "\n", 0)
end

-- ---- Classes ----

local function call(self, ...) return self:forward(...) end

local function construct(class, ...)
  local m = setmetatable({}, class)
  if class.init then class.init(m, ...) end
  return m
end

local function new_class(name, parent)
  local class = {class_name = name, __call = call, __tostring = module_text}
  class.__index = class
  is_class[class] = true
  return setmetatable(class, {__index = parent, __call = construct})
end

local Module = new_class("Module")
for name, f in pairs(M) do
  if name ~= "is_module" then Module[name] = f end
end
Module.training = true

function Module:forward()
  raise("%s: this module has no forward function", self.class_name)
end

--- Makes modules of one's own. With a name, a class: init sets the fields, forward computes.
---
---   local Field = nn.Module "Field"
---   function Field:init(c)
---     self.conv, self.norm = nn.Conv2d(c, c, 3, {padding = 1}), nn.GroupNorm(8, c)
---   end
---   function Field:forward(x) return self.norm(self.conv(x)):relu() end
---   local f = Field(64)
---   f(x)
---
--- With a table, one module, when a class is too much: nn.Module {a = nn.Linear(2, 2), forward =
--- function(self, x) … end}. A second argument names a class to inherit from. describe(self), if there is
--- one, is what tostring shows in parentheses.
setmetatable(Module, {__call = function(_, what, parent)
  if type(what) == "string" then
    if parent ~= nil and not is_class[parent] then
      raise("Module: the parent is a %s, expected a class", type(parent))
    end
    return new_class(what, parent or Module)
  elseif type(what) == "table" then
    if getmetatable(what) ~= nil then raise("Module: this table has a metatable already") end
    return setmetatable(what, Module)
  end
  raise("Module: expected a name or a table, got %s", type(what))
end})

M.Module = Module

--- A tensor (detached) that a module will train.
function M.Parameter(t)
  if not is_tensor(t) then raise("Parameter: expected a tensor, got %s", type(t)) end
  return t:detach():requires_grad()
end

return M
