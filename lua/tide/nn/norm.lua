-- Normalisation layers, each one fused operation over N×…×C.

local core = require "tide.core"
local message = require "tide.message"
local Module = require("tide.nn.module").Module
local options = require "tide.options"
local parts = require "tide.nn.parts"

local M = {}

-- weight 1 and bias 0 for each channel, unless affine = false.
local function affine(self, channels, o)
  self.channels, self.eps = channels, o.eps
  if o.affine then
    self.weight, self.bias = parts.constant(channels, 1, o.dtype), parts.constant(channels, 0, o.dtype)
  end
end

local function check_channels(self, x)
  if x:size(-1) ~= self.channels then
    message.raise("%s: the input has shape (%s), expected %d channels in its last dim", self.class_name,
      message.shape(x), self.channels)
  end
end

local activations = {none = 0, relu = 1, silu = 2, gelu = 3, tanh = 4, sigmoid = 5}

-- The number of an activation for the operations.
local function code_of(self, activation)
  return activations[activation or "none"] or message.raise(
    "%s: unknown activation %q, expected none, relu, silu, gelu, tanh or sigmoid", self.class_name,
    tostring(activation))
end

local GroupNorm = Module "GroupNorm"

--- nn.GroupNorm(groups, channels, {eps = 1e-5, affine = true, dtype}): each sample's groups of channels get
--- mean 0 and variance 1 over positions and channels, then weight·x + bias for each channel. Wu and He 2018.
function GroupNorm:init(groups, channels, opts)
  local o = options.check("GroupNorm", opts, {eps = 1e-5, affine = true, dtype = "float32"})
  self.groups = parts.whole("GroupNorm", "groups", groups)
  if parts.whole("GroupNorm", "channels", channels) % groups ~= 0 then
    message.raise("GroupNorm: %d groups do not divide %d channels", groups, channels)
  end
  affine(self, channels, o)
end

--- forward(x, activation, add): with a name ("relu", "silu", "gelu", "tanh", "sigmoid") and a tensor like x, gives
--- activation(norm(x)) + add in one pass over memory, which keeps nothing but x for its gradient.
function GroupNorm:forward(x, activation, add)
  check_channels(self, x)
  if not activation and not add then
    return (core.group_norm(x, self.weight, self.bias, self.groups, false, self.eps))
  end
  local o = {groups = self.groups, activation = code_of(self, activation), eps = self.eps}
  if self.weight then return (core.group_norm_act(x, self.weight, self.bias, add, o)) end
  return (core.group_norm_act(x, add, o))
end

function GroupNorm:describe() return ("%d groups of %d channels"):format(self.groups, self.channels) end

local LayerNorm = Module "LayerNorm"

--- nn.LayerNorm(channels, {eps = 1e-5, affine = true, dtype}): every position gets mean 0 and variance 1 over
--- its channels (the last dim), then weight·x + bias. Ba et al. 2016.
function LayerNorm:init(channels, opts)
  local o = options.check("LayerNorm", opts, {eps = 1e-5, affine = true, dtype = "float32"})
  affine(self, parts.whole("LayerNorm", "channels", channels), o)
end

function LayerNorm:forward(x)
  check_channels(self, x)
  return (core.group_norm(x, self.weight, self.bias, 1, true, self.eps))
end

function LayerNorm:describe() return ("%d channels"):format(self.channels) end

local BatchNorm2d = Module "BatchNorm2d"

--- nn.BatchNorm2d(channels, {eps = 1e-5, momentum = 0.1, affine = true, dtype}): while training each channel
--- gets mean 0 and variance 1 over the batch and all positions, and the buffers running_mean and running_var
--- move by `momentum` towards the batch's mean and unbiased variance; in evaluation these normalise. Then
--- weight·x + bias. x is N×…×C, so this is BatchNorm1d too. Not for a field that a solver calls: its output
--- would depend on the batch, and every evaluation would move the statistics. Ioffe and Szegedy 2015.
function BatchNorm2d:init(channels, opts)
  local o = options.check("BatchNorm2d", opts, {eps = 1e-5, momentum = 0.1, affine = true, dtype = "float32"})
  self.momentum = parts.probability("BatchNorm2d", o.momentum)
  affine(self, parts.whole("BatchNorm2d", "channels", channels), o)
  self.running_mean, self.running_var = core.zeros(channels, o.dtype), core.ones(channels, o.dtype)
end

-- running ← (1 − momentum)·running + momentum·scale·new
local function move(running, new, momentum, scale)
  running:mul_(1 - momentum):add_(new * (momentum * scale))
end

-- By the statistics that were kept, then the activation and the sum.
local function by_running(self, x, activation, add)
  local scale = core.rsqrt(self.running_var + self.eps)
  if self.weight then scale = scale * self.weight end
  local shift = self.running_mean * scale
  local y = core.fma(x, scale, self.bias and self.bias - shift or -shift)
  if activation and activation ~= "none" then y = core[activation](y) end
  return add and y + add or y
end

--- forward(x, activation, add) as for GroupNorm.
function BatchNorm2d:forward(x, activation, add)
  check_channels(self, x)
  local o = {activation = code_of(self, activation), eps = self.eps}
  if not self.training then return by_running(self, x, activation, add) end
  local rows = x.numel / self.channels
  if rows < 2 then message.raise("BatchNorm2d: one position for each channel has no variance; use eval()") end
  local y, mean, var, _
  if self.weight then y, mean, _, var = core.channel_norm_act(x, self.weight, self.bias, add, o)
  else y, mean, _, var = core.channel_norm_act(x, add, o) end
  local was = core.recording(false)
  move(self.running_mean, mean, self.momentum, 1)
  move(self.running_var, var, self.momentum, rows / (rows - 1))
  core.recording(was)
  return y
end

function BatchNorm2d:describe() return ("%d channels"):format(self.channels) end

M.GroupNorm, M.LayerNorm, M.BatchNorm2d = GroupNorm, LayerNorm, BatchNorm2d
M.BatchNorm1d = BatchNorm2d
return M
