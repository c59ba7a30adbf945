-- A small convolutional classifier: what samples are judged by, whose features Fréchet distances are measured on,
-- and which guidance and attacks differentiate. Smooth (SiLU, mean pooling) and free of batch statistics.

local config = require "tide.diffusion.config"
local core = require "tide.core"
local Dropout = require("tide.nn.dropout").Dropout
local images = require "tide.diffusion.images"
local layers = require "tide.nn.layers"
local Module = require("tide.nn.module").Module
local norm = require "tide.nn.norm"
local options = require "tide.options"

local M = {}

local Stage = Module "ClassifierStage"

-- Two convolutions with norms, the second one's result halved both ways where asked.
function Stage:init(inputs, outputs, halve, o)
  local function conv(from)
    return layers.Conv2d(from, outputs, 3, {padding = 1, dtype = o.dtype, generator = o.generator})
  end
  self.conv1, self.norm1 = conv(inputs), norm.GroupNorm(o.norm_num_groups, outputs, {dtype = o.dtype})
  self.conv2, self.norm2 = conv(outputs), norm.GroupNorm(o.norm_num_groups, outputs, {dtype = o.dtype})
  self.halve = halve
end

function Stage:forward(x)
  x = core.silu(self.norm1(self.conv1(x)))
  x = core.silu(self.norm2(self.conv2(x)))
  return self.halve and core.avg_pool2d(x, {2, 2}, {2, 2}) or x
end

local Classifier = Module "Classifier"

local defaults = {
  in_channels = 1, num_classes = 10, sample_size = options.none, block_out_channels = {16, 32, 64},
  norm_num_groups = 8, dropout = 0,
}

--- diffusion.Classifier {in_channels = 1, num_classes = 10, block_out_channels = {16, 32, 64}, …}: images N×H×W×C
--- to logits N×classes. See doc/api/diffusion_networks.lua.
function Classifier:init(given)
  local o, flags = config.check("Classifier", given, defaults, {})
  self.config, self._flags = o, flags
  local channels = config.sizes("Classifier", "block_out_channels", o.block_out_channels)
  self.stages = {}
  for i, c in ipairs(channels) do
    self.stages[i] = Stage(i == 1 and o.in_channels or channels[i - 1], c, i < #channels, o)
  end
  if o.dropout > 0 then self.dropout = Dropout(o.dropout) end
  self.head = layers.Linear(channels[#channels], o.num_classes, {dtype = o.dtype, generator = o.generator})
end

local function check_images(self, x)
  images.check("Classifier", x, {channels = self.config.in_channels, dtype = self.head.weight.dtype})
end

--- The last stage's results averaged over positions: N×channels.
function Classifier:features(x)
  check_images(self, x)
  for _, stage in ipairs(self.stages) do x = stage(x) end
  return core.sum(x, {2, 3}) / (x:size(2) * x:size(3))
end

--- The results of every stage, each N×h×w×channels: what Gram matrices of a style are made of.
function Classifier:maps(x)
  check_images(self, x)
  local maps = {}
  for i, stage in ipairs(self.stages) do
    x = stage(x)
    maps[i] = x
  end
  return maps
end

function Classifier:forward(x)
  local f = self:features(x)
  if self.dropout then f = self.dropout(f) end
  return self.head(f)
end

function Classifier:describe()
  return ("%d channels in, %s, %d classes"):format(self.config.in_channels,
    table.concat(self.config.block_out_channels, ", "), self.config.num_classes)
end

M.Classifier = Classifier
return M
