-- What every optimiser is made of: parameters in groups, rates and other options for each group, state for
-- each parameter.
--
-- opt.groups[i] is a table of options (lr, weight_decay, …) that may be changed at any time, with its
-- parameters in `params`. opt.state[p] is what the method remembers of p.

local core = require "tide.core"
local message = require "tide.message"
local options = require "tide.options"
local is_tensor = require("tide.tensor").is_tensor

local M = {}
local raise, shape_of = message.raise, message.shape

-- ---- Arguments ----

local function check_parameter(name, p, seen)
  if not is_tensor(p) then raise("%s: a parameter is a %s, expected a tensor", name, type(p)) end
  if not p.is_leaf then
    raise("%s: a tensor of shape (%s) is no parameter: %s", name, shape_of(p),
      p.needs_grad and "it was made by an operation" or "call requires_grad() on it")
  end
  if seen[p] then raise("%s: a parameter of shape (%s) is given twice", name, shape_of(p)) end
  seen[p] = true
  return p
end

-- A copy of the list of tensors; a single tensor is a list of one.
local function checked_list(name, params, seen)
  if is_tensor(params) then params = {params} end
  if type(params) ~= "table" then
    raise("%s: the parameters are a %s, expected a table of tensors", name, type(params))
  end
  local list = {}
  for i, p in ipairs(params) do list[i] = check_parameter(name, p, seen) end
  if #list == 0 then
    local hint = next(params) ~= nil and "; for a module pass module:parameters()" or ""
    raise("%s: no parameters%s", name, hint)
  end
  return list
end

local function is_groups(params)
  return type(params) == "table" and type(params[1]) == "table" and params[1].params ~= nil
end

--- Checks every numeric option of a group against {name = {low, high}}; high may be math.huge.
function M.check_ranges(name, o, ranges)
  for key, range in pairs(ranges) do
    local v = o[key]
    if type(v) ~= "number" or not (v >= range[1] and v <= range[2]) then
      raise("%s: %s is %s, expected a number from %g%s", name, key, tostring(v), range[1],
        range[2] < math.huge and " to " .. range[2] or "")
    end
  end
end

-- ---- The class ----

local Optimiser = {}
Optimiser.__index = Optimiser

--- A class of optimisers: name, defaults of the options of a group, check(name, options) for their values.
--- The class needs update(self, group, p, state) → false when p has no gradient.
function M.class(name, defaults, check)
  local class = setmetatable({name = name, defaults = defaults, check = check}, {
    __index = Optimiser,
    __call = function(class, params, opts) return M.new(class, params, opts) end,
  })
  class.__index = class
  class.__tostring = M.describe
  return class
end

function M.new(class, params, opts)
  local self = setmetatable({groups = {}, state = {}}, class)
  local base = options.check(class.name, opts, class.defaults)
  local seen = {}
  for i, given in ipairs(is_groups(params) and params or {{params = params}}) do
    if type(given) ~= "table" or given.params == nil then
      raise("%s: group %d is a %s, expected {params = …, lr = …}", class.name, i, type(given))
    end
    local own = {}
    for key, value in pairs(given) do
      if key ~= "params" then own[key] = value end
    end
    local group = {}
    for key, value in pairs(base) do group[key] = value end
    for key, value in pairs(options.check(class.name, own, class.defaults)) do
      if own[key] ~= nil then group[key] = value end
    end
    class.check(class.name, group)
    group.params = checked_list(class.name, given.params, seen)
    self.groups[i] = group
  end
  return self
end

--- One step from the gradients at hand. With a closure, calls it first: it computes the loss, calls backward,
--- and returns the loss, which is then opt.loss. Parameters without a gradient are passed over. Returns opt.
function Optimiser:step(closure)
  if closure then self.loss = closure() end
  for _, group in ipairs(self.groups) do
    for _, p in ipairs(group.params) do
      local state = self.state[p]
      if not state then
        state = {}
        self.state[p] = state
      end
      self:update(group, p, state)
    end
  end
  return self
end

--- Drops all gradients. Returns opt.
function Optimiser:zero_grad()
  for _, group in ipairs(self.groups) do
    for _, p in ipairs(group.params) do p.grad = nil end
  end
  return self
end

--- All parameters, group after group.
function Optimiser:parameters()
  local list = {}
  for _, group in ipairs(self.groups) do
    for _, p in ipairs(group.params) do list[#list + 1] = p end
  end
  return list
end

--- Sets the learning rate of every group. Returns opt.
function Optimiser:set_lr(lr)
  for _, group in ipairs(self.groups) do group.lr = lr end
  return self
end

-- ---- State ----

-- The options of a group that are numbers, in a fixed order.
local function numeric_options(group)
  local names = {}
  for key, value in pairs(group) do
    if type(value) == "number" then names[#names + 1] = key end
  end
  table.sort(names)
  return names
end

--- The state as a flat table of tensors, so that it is saved as weights are: "state.3.m" for the third
--- parameter, "group.1.lr" for an option (0-d float64). The tensors are copies.
function Optimiser:state_dict()
  local out = {}
  for i, group in ipairs(self.groups) do
    for _, key in ipairs(numeric_options(group)) do
      out[("group.%d.%s"):format(i, key)] = core.tensor(group[key], "float64")
    end
  end
  for i, p in ipairs(self:parameters()) do
    for key, value in pairs(self.state[p] or {}) do
      local kept = is_tensor(value) and value:clone() or core.tensor(value, "float64")
      out[("state.%d.%s"):format(i, key)] = kept
    end
  end
  return out
end

--- Takes a state_dict of an optimiser of the same kind over the same parameters. Returns opt.
function Optimiser:load_state_dict(dict)
  if type(dict) ~= "table" then raise("%s: the state is a %s, expected a table", self.name, type(dict)) end
  local params = self:parameters()
  local state, rates = {}, {}
  for name, value in pairs(dict) do
    local kind, index, key = tostring(name):match("^(%a+)%.(%d+)%.([%w_]+)$")
    index = tonumber(index)
    if kind == "group" and self.groups[index] and is_tensor(value) and value.numel == 1
      and self.groups[index][key] ~= nil then
      rates[#rates + 1] = {self.groups[index], key, value:item()}
    elseif kind == "state" and params[index] and is_tensor(value) then
      local p = params[index]
      state[p] = state[p] or {}
      if value.ndim == 0 and key == "step" then
        state[p][key] = value:item()
      elseif shape_of(value) ~= shape_of(p) then
        raise("%s: %s has shape (%s), expected (%s)", self.name, name, shape_of(value), shape_of(p))
      else
        state[p][key] = value:detach():to(p.dtype):clone()
      end
    else
      raise("%s: the state has an entry %q, which is none of this optimiser's", self.name, tostring(name))
    end
  end
  for _, r in ipairs(rates) do r[1][r[2]] = r[3] end
  self.state = state
  return self
end

function M.describe(self)
  local lines = {}
  for i, group in ipairs(self.groups) do
    local n, parts = 0, {}
    for _, p in ipairs(group.params) do n = n + p.numel end
    for _, key in ipairs(numeric_options(group)) do parts[#parts + 1] = ("%s %g"):format(key, group[key]) end
    lines[i] = ("%s: %d tensors of %d elements, %s"):format(self.name, #group.params, n,
      table.concat(parts, ", "))
  end
  return table.concat(lines, "\n")
end

M.state_dict, M.load_state_dict = Optimiser.state_dict, Optimiser.load_state_dict

return M
