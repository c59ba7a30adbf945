-- Configurations of networks, with the names of diffusers' config.json. `false` is JSON's null: none.

local container = require "tide.nn.container"
local message = require "tide.message"
local options = require "tide.options"

local M = {}
local raise = message.raise

local activations = {silu = "SiLU", swish = "SiLU", mish = "Mish", gelu = "GELU", relu = "ReLU"}

--- The activation of a name, as a module.
function M.activation(name, act)
  if not activations[act] then
    raise("%s: act_fn is %s, expected \"silu\", \"swish\", \"mish\", \"gelu\" or \"relu\"", name, tostring(act))
  end
  return container[activations[act]]()
end

local fused = {silu = "silu", swish = "silu", gelu = "gelu", relu = "relu"}

--- The activation's name in the fused norm, or nil where that does not know it.
function M.fused_activation(act) return fused[act] end

local function text(value)
  if type(value) ~= "table" then return tostring(value) end
  local list = {}
  for i, v in ipairs(value) do list[i] = text(v) end
  return "{" .. table.concat(list, ", ") .. "}"
end

-- Entries of a config.json that say where it comes from, and how a checkpoint was made: no part of the network.
local function is_note(key) return type(key) == "string" and key:sub(1, 1) == "_" end

-- What is a number or a flag by default is one when it is given; many numbers may be lists, one for each stage.
local function check_type(name, key, value, usual)
  local kind, given = type(usual), type(value)
  if given == kind or (kind ~= "boolean" and kind ~= "number") then return end
  if kind == "number" and (given == "table" or value == false) then return end
  raise("%s: %s is %s, expected %s", name, key, given == "string" and ("%q"):format(value) or text(value),
    kind == "boolean" and "true or false" or "a number")
end

--- The configuration over its defaults. `fixed` holds options that diffusers has and that can have one value
--- here; any other value raises. Keys that begin with "_" are notes and are kept. Also returns the set of options
--- that are true or false.
function M.check(name, given, defaults, fixed)
  if given ~= nil and type(given) ~= "table" then
    raise("%s: the configuration is a %s, expected a table", name, type(given))
  end
  local known, own, notes = {dtype = "float32", generator = options.none}, {}, {}
  for key, value in pairs(defaults) do known[key] = value end
  for key, value in pairs(fixed) do known[key] = value end
  for key, value in pairs(given or {}) do
    if is_note(key) then notes[key] = value else own[key] = value end
  end
  local o = options.check(name, own, known)
  for key, value in pairs(fixed) do
    local usual = value ~= options.none and value or false
    if (o[key] or false) ~= usual then
      raise("%s: %s is %s, supported is %s", name, key, text(o[key]), text(usual))
    end
  end
  for key, value in pairs(notes) do o[key] = value end
  local flags = {}
  for key, usual in pairs(known) do
    flags[key] = type(usual) == "boolean" or nil
    check_type(name, key, o[key], usual)
  end
  return o, flags
end

--- A list of whole numbers from 1.
function M.sizes(name, what, value)
  if type(value) ~= "table" or #value == 0 then
    raise("%s: %s is %s, expected a list of whole numbers", name, what, text(value))
  end
  for _, v in ipairs(value) do
    if type(v) ~= "number" or v % 1 ~= 0 or v < 1 then
      raise("%s: %s is %s, expected a list of whole numbers", name, what, text(value))
    end
  end
  return value
end

--- A whole number from 1.
function M.whole(name, what, value)
  if type(value) ~= "number" or value % 1 ~= 0 or value < 1 then
    raise("%s: %s is %s, expected a whole number from 1", name, what, text(value))
  end
  return value
end

--- One value for each of n stages, from one value for all or a list of n.
function M.each(name, what, value, n)
  local list = {}
  if type(value) == "table" then
    if #value ~= n then raise("%s: %s has %d values, expected one or %d", name, what, #value, n) end
    for i = 1, n do list[i] = value[i] end
  else
    for i = 1, n do list[i] = value end
  end
  return list
end

--- The kinds of stages of a list of n names, each known: kinds[name] for every one.
function M.kinds(name, what, value, n, kinds)
  if type(value) ~= "table" or #value ~= n then
    raise("%s: %s is %s, expected a list of %d, one for each of block_out_channels", name, what, text(value), n)
  end
  local list = {}
  for i, kind in ipairs(value) do
    if not kinds[kind] then
      local names = {}
      for known in pairs(kinds) do names[#names + 1] = known end
      table.sort(names)
      raise("%s: %s has %s, expected one of %s", name, what, text(kind), table.concat(names, ", "))
    end
    list[i] = kinds[kind]
  end
  return list
end

return M
