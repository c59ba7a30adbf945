-- Names and layouts of weights: tide's modules on one side, PyTorch's state dictionaries on the other.
--
-- Numbers in a name count from 1 here and from 0 there. A convolution's weight is kh×kw×I×O here, O×I×kh×kw
-- there; a linear map's in×out here, out×in there; everything else is the same.

local core = require "tide.core"
local layers = require "tide.nn.layers"
local nn_module = require "tide.nn.module"

local M = {}

-- Dims of the other side as dims of this one, and back.
local orders = {
  [layers.Linear] = {here = {2, 1}, there = {2, 1}},
  [layers.Conv2d] = {here = {3, 4, 2, 1}, there = {4, 3, 1, 2}},
  [layers.ConvTranspose2d] = {here = {3, 4, 2, 1}, there = {4, 3, 1, 2}},
}

-- The rule of a module's class or of the nearest one it inherits from.
local function order_of(module)
  local class = getmetatable(module)
  while class do
    if orders[class] then return orders[class] end
    local parent = getmetatable(class)
    class = parent and parent.__index
  end
end

--- "down_blocks.1.resnets.2.conv1.weight" → "down_blocks.0.resnets.1.conv1.weight"
function M.name_there(name)
  local parts = {}
  for part in name:gmatch "[^.]+" do
    parts[#parts + 1] = part:match "^%d+$" and tostring(tonumber(part) - 1) or part
  end
  return table.concat(parts, ".")
end

--- A list of a model's tensors: {name, there = the name there, tensor, order = {here, there} or nil}.
function M.tensors(model)
  local order_at = {}
  for name, module in nn_module.named_modules(model) do
    order_at[name == "" and "weight" or name .. ".weight"] = order_of(module)
  end
  local list = {}
  for name, t in pairs(nn_module.state_dict(model)) do
    list[#list + 1] = {name = name, there = M.name_there(name), tensor = t, order = order_at[name]}
  end
  table.sort(list, function(a, b) return a.there < b.there end)
  return list
end

--- A tensor of the other side as a view in this side's order, and one of this side as a view in the other's.
function M.here(entry, t) return entry.order and core.permute(t, unpack(entry.order.here)) or t end
function M.there(entry, t) return entry.order and core.permute(t, unpack(entry.order.there)) or t end

--- The shape there of one of the model's tensors, as a list.
function M.shape_there(entry)
  return M.there(entry, entry.tensor).shape
end

return M
