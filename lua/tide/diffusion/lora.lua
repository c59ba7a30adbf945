-- Low-rank adapters (Hu et al. 2022): a network's weights stay as they are, and W + scale·A·B takes their place while
-- it runs. A weight of more than two dims counts as a matrix with all dims but the last as rows, so linear layers,
-- convolutions and attention are adapted alike, whatever their code does with the weight.

local core = require "tide.core"
local message = require "tide.message"
local module = require "tide.nn.module"
local options = require "tide.options"

local M = {}
local raise = message.raise

local Adapter = {}
Adapter.__index = Adapter

local known = {rank = 4, scale = 1, match = options.none, generator = options.none}

-- Does the option `match` (nil, a pattern or a function) choose this name?
local function chosen(match, name, tensor)
  if match == nil then return true end
  if type(match) == "string" then return name:match(match) ~= nil end
  return match(name, tensor)
end

-- The table that holds the parameter of this path, and its key there.
local function holder(net, path)
  local owner, key = net, nil
  for part in path:gmatch "[^.]+" do
    if key ~= nil then owner = owner[key] end
    key = tonumber(part) or part
  end
  return owner, key
end

local function pair_for(net, name, w, o)
  local columns = w:size(-1)
  local rows = w.numel / columns
  local g = o.generator or require("tide.random").default_generator()
  local owner, key = holder(net, name)
  return {
    name = name, owner = owner, key = key, shape = w.shape,
    down = (g:randn({rows, o.rank}, w.dtype) * (1 / math.sqrt(rows))):requires_grad(),
    up = core.zeros({o.rank, columns}, w.dtype):requires_grad(),
  }
end

local function restore(pairs_, ok, ...)
  for _, p in ipairs(pairs_) do p.owner[p.key] = p.base end
  if not ok then error((...), 0) end
  return ...
end

--- diffusion.lora(net, {rank = 4, scale = 1, match, generator}): freezes the network and adapts every weight of two or
--- more dims (or those whose name fits `match`, a pattern or a function). At first the network computes what it did.
function M.lora(net, opts)
  if not module.is_module(net) then raise("diffusion.lora: expected a module, got %s", type(net)) end
  local o = options.check("diffusion.lora", opts, known)
  if type(o.rank) ~= "number" or o.rank < 1 or o.rank % 1 ~= 0 then
    raise("diffusion.lora: rank is %s, expected a whole number, 1 or more", tostring(o.rank))
  end
  if rawget(net, "_adapter") then raise("diffusion.lora: this network has adapters already; merge or remove them") end
  local self = setmetatable({net = net, scale = o.scale, pairs = {}}, Adapter)
  for name, w in module.named_parameters(net) do
    if w.ndim >= 2 and chosen(o.match, name, w) then self.pairs[#self.pairs + 1] = pair_for(net, name, w, o) end
  end
  if #self.pairs == 0 then raise("diffusion.lora: no weight was chosen") end
  module.freeze(net)
  for _, p in ipairs(self.pairs) do p.base = p.owner[p.key] end
  net._adapter = self
  net.forward = function(...)
    for _, p in ipairs(self.pairs) do p.owner[p.key] = self:weight(p) end
    return restore(self.pairs, pcall(getmetatable(net).forward, ...))
  end
  return self
end

--- W + scale·A·B of one of self.pairs.
function Adapter:weight(p)
  return p.base + core.reshape(core.mm(p.down, p.up), p.shape) * self.scale
end

--- The adapters' own tensors, for an optimiser.
function Adapter:parameters()
  local list = {}
  for _, p in ipairs(self.pairs) do
    list[#list + 1] = p.down
    list[#list + 1] = p.up
  end
  return list
end

--- How many numbers they are.
function Adapter:count()
  local n = 0
  for _, t in ipairs(self:parameters()) do n = n + t.numel end
  return n
end

--- The adapters by name, "<weight>.down" and "<weight>.up": what io.save_safetensors writes.
function Adapter:state_dict()
  local state = {}
  for _, p in ipairs(self.pairs) do
    state[p.name .. ".down"], state[p.name .. ".up"] = p.down:detach(), p.up:detach()
  end
  return state
end

--- Takes adapters that state_dict gave. Returns the adapter.
function Adapter:load_state_dict(state)
  for _, p in ipairs(self.pairs) do
    for _, part in ipairs {"down", "up"} do
      local given = state[p.name .. "." .. part]
      if not given then raise("load_state_dict: %s.%s is missing", p.name, part) end
      if message.shape(given) ~= message.shape(p[part]) then
        raise("load_state_dict: %s.%s has shape (%s), expected (%s)", p.name, part, message.shape(given),
          message.shape(p[part]))
      end
    end
  end
  core.with_recording(false, function()
    for _, p in ipairs(self.pairs) do
      p.down:copy_(state[p.name .. ".down"])
      p.up:copy_(state[p.name .. ".up"])
    end
  end)
  return self
end

--- Takes the adapters off the network, whose own weights train again. Returns the network.
function Adapter:remove()
  self.net.forward, self.net._adapter = nil, nil
  return module.unfreeze(self.net)
end

--- Writes the adapted weights into the network and takes the adapters off. Returns the network.
function Adapter:merge()
  core.with_recording(false, function()
    for _, p in ipairs(self.pairs) do p.base:copy_(self:weight(p)) end
  end)
  return self:remove()
end

return M
