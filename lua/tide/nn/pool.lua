-- Pooling and resizing of N×H×W×C images.

local core = require "tide.core"
local message = require "tide.message"
local Module = require("tide.nn.module").Module
local options = require "tide.options"
local parts = require "tide.nn.parts"

local M = {}

local MaxPool2d = Module "MaxPool2d"

--- nn.MaxPool2d(kernel, {stride = kernel, padding = 0}): the greatest element of each window; padding never
--- wins.
function MaxPool2d:init(kernel, opts)
  local o = options.check(self.class_name, opts, {stride = options.none, padding = 0})
  self.kernel = parts.pair(self.class_name, "kernel", kernel)
  self.stride = parts.pair(self.class_name, "stride", o.stride or kernel)
  self.padding = parts.pair(self.class_name, "padding", o.padding, 0)
end

function MaxPool2d:forward(x)
  return (core.max_pool2d(x, self.kernel, self.stride, self.padding))
end

function MaxPool2d:describe()
  return ("%s, stride %s"):format(parts.pair_text(self.kernel), parts.pair_text(self.stride))
end

local AvgPool2d = Module("AvgPool2d", MaxPool2d)

--- nn.AvgPool2d(kernel, {stride = kernel, padding = 0}): the mean of each window, padding not counted.
function AvgPool2d:forward(x)
  return core.avg_pool2d(x, self.kernel, self.stride, self.padding)
end

local AdaptiveAvgPool2d = Module "AdaptiveAvgPool2d"

--- nn.AdaptiveAvgPool2d(size): means over windows that cut the image into size[1]×size[2] parts.
function AdaptiveAvgPool2d:init(size) self.size = parts.pair("AdaptiveAvgPool2d", "size", size) end
function AdaptiveAvgPool2d:forward(x) return core.adaptive_avg_pool2d(x, self.size) end
function AdaptiveAvgPool2d:describe() return parts.pair_text(self.size) end

local GlobalAvgPool = Module "GlobalAvgPool"

--- nn.GlobalAvgPool(): N×H×W×C → N×C, the mean of each channel over the image.
function GlobalAvgPool:forward(x)
  if x.ndim ~= 4 then
    message.raise("%s: the input has shape (%s), expected N×H×W×C", self.class_name, message.shape(x))
  end
  return core.sum(x, {2, 3}) / (x:size(2) * x:size(3))
end

local Upsample = Module "Upsample"

--- nn.Upsample(scale, {mode = "nearest" | "bilinear"}) or nn.Upsample {size = {h, w}, mode = …}: resized
--- images; scale is one number or {vertical, horizontal}. Bilinear samples at pixel centres.
function Upsample:init(scale, opts)
  if type(scale) == "table" and #scale == 0 then scale, opts = nil, scale end
  local o = options.check("Upsample", opts, {scale = options.none, size = options.none, mode = "nearest"})
  scale = scale or o.scale
  if (scale == nil) == (o.size == nil) then
    message.raise("Upsample: expected a scale or a size, and not both")
  end
  if o.mode ~= "nearest" and o.mode ~= "bilinear" then
    message.raise("Upsample: mode is %q, expected \"nearest\" or \"bilinear\"", tostring(o.mode))
  end
  self.mode = o.mode
  if o.size then
    self.size = parts.pair("Upsample", "size", o.size)
    return
  end
  self.scale = type(scale) == "table" and scale or {scale, scale}
  for i = 1, 2 do
    if type(self.scale[i]) ~= "number" or self.scale[i] ~= self.scale[i] or self.scale[i] <= 0 then
      message.raise("Upsample: scale is %s, expected a positive number or two", tostring(self.scale[i]))
    end
  end
end

function Upsample:forward(x)
  local size = self.size or {math.floor(x:size(2) * self.scale[1]), math.floor(x:size(3) * self.scale[2])}
  return core[self.mode == "nearest" and "upsample_nearest" or "upsample_bilinear"](x, size)
end

function Upsample:describe()
  local how = self.size and "to " .. parts.pair_text(self.size) or "by " .. parts.pair_text(self.scale)
  return how .. ", " .. self.mode
end

M.MaxPool2d, M.AvgPool2d, M.AdaptiveAvgPool2d = MaxPool2d, AvgPool2d, AdaptiveAvgPool2d
M.GlobalAvgPool, M.Upsample = GlobalAvgPool, Upsample
return M
