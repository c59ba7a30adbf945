-- Low-rank adapters: the weight W of a layer becomes W + scale·A·B with A in×rank and B rank×out, and only A and B
-- are trained. Hu et al. 2021.
--
--   local names = nn.lora.add(net, {rank = 4, match = {"to_q$", "to_v$"}})
--   local opt = optim.AdamW(net:parameters(), {lr = 1e-3})     -- the adapters alone
--   nn.lora.merge(net)                                          -- W has become W + scale·A·B
--
-- An adapted layer is the same table with another class and further fields, so the names of its own weights stay
-- as they were: "mid.to_q.weight" is joined by "mid.to_q.lora_A.weight" and "mid.to_q.lora_B.weight".

local attention = require "tide.nn.attention"
local core = require "tide.core"
local initialise = require "tide.nn.initialise"
local layers = require "tide.nn.layers"
local matmul = require("tide.tensor").matmul
local message = require "tide.message"
local module = require "tide.nn.module"
local options = require "tide.options"
local parts = require "tide.nn.parts"
local is_tensor = require("tide.tensor").is_tensor
local values = require "tide.values"

local M = {}
local raise, shape_of = message.raise, message.shape

-- ---- Pairs ----

local Factor = module.Module "LoRAFactor"

-- A matrix (or the kernel of a convolution) that holds one of the two factors.
function Factor:init(shape, dtype) self.weight = parts.parameter(shape, dtype) end
function Factor.describe() return "low rank" end

-- A drawn as layers draw their weights, B zero, so that an adapter changes nothing at first.
local function factors(owner, suffix, weight, rank, generator)
  local shape, last = weight.shape, weight:size(-1)
  shape[#shape] = rank
  local a = Factor(shape, weight.dtype)
  local bound = 1 / math.sqrt(weight.numel / last)
  initialise.uniform(a.weight, -bound, bound, generator)
  local b_shape = {rank, last}
  if #shape == 4 then b_shape = {1, 1, rank, last} end
  owner["lora_A" .. suffix] = a
  owner["lora_B" .. suffix] = Factor(b_shape, weight.dtype)
  initialise.zeros(owner["lora_B" .. suffix].weight)
end

-- scale·A·B in the weight's shape.
local function product(owner, suffix, weight)
  local a, b = owner["lora_A" .. suffix].weight, owner["lora_B" .. suffix].weight
  local rank = b:size(-2)
  local flat = core.mm(core.reshape(a, -1, rank), core.reshape(b, rank, -1))
  return core.reshape(flat, weight.shape) * owner._lora.scale
end

-- ---- Adapted classes: each runs as its parent does, with the low-rank part beside ----

local LoRALinear = module.Module("LoRALinear", layers.Linear)

function LoRALinear:forward(x)
  local y = layers.Linear.forward(self, x)
  if self._lora.merged then return y end
  return y + matmul(matmul(x, self.lora_A.weight), self.lora_B.weight) * self._lora.scale
end

local LoRAConv2d = module.Module("LoRAConv2d", layers.Conv2d)

function LoRAConv2d:forward(x)
  local y = layers.Conv2d.forward(self, x)
  if self._lora.merged then return y end
  local low = core.conv2d(x, self.lora_A.weight, self.stride, self.padding, self.dilation)
  return y + core.conv2d(low, self.lora_B.weight) * self._lora.scale
end

local LoRAAttention = module.Module("LoRAMultiheadAttention", attention.MultiheadAttention)
local attention_weights = {_q = "query_weight", _kv = "key_value_weight", _out = "out_weight"}

function LoRAAttention:forward(...)
  if self._lora.merged then return attention.MultiheadAttention.forward(self, ...) end
  local adapted = setmetatable({}, {__index = self})
  for suffix, key in pairs(attention_weights) do adapted[key] = self[key] + product(self, suffix, self[key]) end
  return attention.MultiheadAttention.forward(adapted, ...)
end

-- For each class: the adapted one, and its weights by the suffix of their factors.
local kinds = {
  [layers.Linear] = {class = LoRALinear, weights = {[""] = "weight"}},
  [layers.Conv2d] = {class = LoRAConv2d, weights = {[""] = "weight"}},
  [attention.MultiheadAttention] = {class = LoRAAttention, weights = attention_weights},
}
local parent_of = {}
for class, kind in pairs(kinds) do parent_of[kind.class] = class end

-- ---- Adding and removing ----

local function is_wanted(name, patterns)
  for _, pattern in ipairs(patterns) do
    local ok, found = pcall(name.find, name, pattern)
    if not ok then raise("lora.add: %q is no pattern of Lua's: %s", pattern, found) end
    if found then return true end
  end
  return false
end

local function patterns_of(match)
  if type(match) == "string" then match = {match} end
  if type(match) ~= "table" or #match == 0 then
    raise("lora.add: match is a %s, expected a pattern or a list of them", type(match))
  end
  for i, pattern in ipairs(match) do
    if type(pattern) ~= "string" then raise("lora.add: pattern %d is a %s", i, type(pattern)) end
  end
  return match
end

-- Every adapted layer inside m, as {name, layer}.
local function adapted(m)
  local list = {}
  for name, layer in module.named_modules(m) do
    if parent_of[getmetatable(layer)] then list[#list + 1] = {name, layer} end
  end
  return list
end

local add_options = {rank = 4, alpha = options.none, match = ".", generator = options.none}

--- nn.lora.add(m, {rank = 4, alpha = rank, match = ".", generator}): adapters for every Linear, Conv2d (of one
--- group) and MultiheadAttention whose name one of the patterns finds; the scale is alpha/rank. All else is frozen.
--- Returns the sorted names.
function M.add(m, opts)
  local o = options.check("lora.add", opts, add_options)
  local rank = parts.whole("lora.add", "rank", o.rank)
  local alpha = o.alpha or rank
  values.check("lora.add", o, {alpha = values.any_number, generator = values.generator})
  local patterns = patterns_of(o.match)
  if #adapted(m) > 0 then raise("lora.add: the module has adapters already; merge or remove them first") end
  local found = {}
  for name, layer in module.named_modules(m) do
    local kind = kinds[getmetatable(layer)]
    if kind and (layer.groups or 1) == 1 and is_wanted(name, patterns) then found[#found + 1] = {name, layer, kind} end
  end
  if #found == 0 then raise("lora.add: no Linear, Conv2d or MultiheadAttention has a name that matches") end
  module.freeze(m)
  local names = {}
  for i, f in ipairs(found) do
    local layer, kind = f[2], f[3]
    layer._lora = {scale = alpha / rank, rank = rank, merged = false}
    for suffix, key in pairs(kind.weights) do factors(layer, suffix, layer[key], rank, o.generator) end
    setmetatable(layer, kind.class)
    names[i] = f[1]
  end
  table.sort(names)
  return names
end

-- Adds sign·scale·A·B to the weights of every layer that is not yet in that state.
local function fold(fname, m, merged)
  local list = adapted(m)
  if #list == 0 then raise("%s: the module has no adapters", fname) end
  core.with_recording(false, function()
    for _, pair in ipairs(list) do
      local layer = pair[2]
      if layer._lora.merged ~= merged then
        for suffix, key in pairs(kinds[parent_of[getmetatable(layer)]].weights) do
          local change = product(layer, suffix, layer[key])
          layer[key]:copy_(merged and layer[key] + change or layer[key] - change)
        end
        layer._lora.merged = merged
      end
    end
  end)
  return m
end

--- nn.lora.merge(m): the weights take up their adapters, so that m runs at its old speed. Returns m.
function M.merge(m) return fold("lora.merge", m, true) end

--- nn.lora.unmerge(m): takes the adapters out of the weights again (to rounding). Returns m.
function M.unmerge(m) return fold("lora.unmerge", m, false) end

--- nn.lora.remove(m): the layers become what they were, with the adapters' part in the weights if it was merged,
--- and what lora.add froze can be trained again. Returns m.
function M.remove(m)
  for _, pair in ipairs(adapted(m)) do
    local layer = pair[2]
    for suffix in pairs(kinds[parent_of[getmetatable(layer)]].weights) do
      layer["lora_A" .. suffix], layer["lora_B" .. suffix] = nil, nil
    end
    layer._lora = nil
    setmetatable(layer, parent_of[getmetatable(layer)])
  end
  return module.unfreeze(m)
end

-- ---- State ----

--- nn.lora.state_dict(m): the adapters' tensors by name, and their scale under "scale"; what a file of a few
--- kilobytes holds.
function M.state_dict(m)
  local state = {}
  for _, pair in ipairs(adapted(m)) do
    local name, layer = pair[1], pair[2]
    for key, value in pairs(layer) do
      if type(key) == "string" and key:find "^lora_" then
        state[("%s.%s.weight"):format(name, key)] = value.weight:detach()
      end
    end
    state.scale = core.tensor(layer._lora.scale, "float64")
  end
  if not state.scale then raise("lora.state_dict: the module has no adapters") end
  return state
end

--- nn.lora.load_state_dict(m, state): adds the adapters that a state holds, with its values, to a module without
--- any. Returns the names.
function M.load_state_dict(m, state)
  local fname = "lora.load_state_dict"
  if type(state) ~= "table" or not is_tensor(state.scale) then raise("%s: expected a state with a scale", fname) end
  local rank, match = nil, {}
  for name, t in pairs(state) do
    if not is_tensor(t) then raise("%s: %s is a %s, expected a tensor", fname, name, type(t)) end
    local owner = name:match "^(.*)%.lora_B[_%a]*%.weight$"
    if owner then
      rank = t:size(-2)
      match[#match + 1] = "^" .. owner:gsub("%p", "%%%0") .. "$"
    end
  end
  if not rank then raise("%s: the state holds no adapters", fname) end
  local names = M.add(m, {rank = rank, alpha = rank * state.scale:item(), match = match})
  local own = M.state_dict(m)
  core.with_recording(false, function()
    for name, t in pairs(state) do
      if not own[name] or shape_of(own[name]) ~= shape_of(t) then
        M.remove(m)
        raise("%s: %s of shape (%s) does not fit the module", fname, name, shape_of(t))
      end
      own[name]:copy_(t)
    end
  end)
  return names
end

return M
