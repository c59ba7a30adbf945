-- The parts of a U-Net: residual blocks that read the time's vector, attention over positions, halving and
-- doubling of the image. Fields are named as diffusers names them, so that weights find their places.
--
-- A table of settings goes through all of them: time (width of the time's vector), groups, eps, dropout, act
-- (a module) and act_name (as the fused norm knows it, or nil), scale_shift, output_scale, dtype, generator.

local core = require "tide.core"
local Dropout = require("tide.nn.dropout").Dropout
local layers = require "tide.nn.layers"
local message = require "tide.message"
local Module = require("tide.nn.module").Module
local nn_attention = require "tide.nn.attention"
local norm = require "tide.nn.norm"
local pad = require("tide.tensor").pad

local M = {}

local function weights(s) return {dtype = s.dtype, generator = s.generator} end
M.weights = weights

local function conv(inputs, outputs, kernel, s, opts)
  local o = weights(s)
  for key, value in pairs(opts or {}) do o[key] = value end
  return layers.Conv2d(inputs, outputs, kernel, o)
end
M.conv = conv

--- act(norm(x)), in one pass where the norm knows the activation.
function M.norm_act(group_norm, x, s)
  if s.act_name then return group_norm(x, s.act_name) end
  return s.act(group_norm(x))
end

--- conv(x) + chan (N×O, or one row for all images) + add (like the result), in one pass. Either may be absent.
function M.conv_add(layer, x, chan, add)
  if chan and chan:size(1) ~= x:size(1) then chan = core.contiguous(core.expand(chan, {x:size(1), chan:size(2)})) end
  if getmetatable(layer) ~= layers.Conv2d then  -- an adapted one
    local y = layer(x)
    if chan then y = y + core.reshape(chan, chan:size(1), 1, 1, -1) end
    return add and y + add or y
  end
  local o = {stride = layer.stride, padding = layer.padding, dilation = layer.dilation, groups = layer.groups,
    parts = 1 + (chan and 2 or 0) + (add and 4 or 0)}
  if chan and add then return core.conv2d_fused(x, layer.weight, layer.bias, chan, add, o) end
  return core.conv2d_fused(x, layer.weight, layer.bias, chan or add, o)
end

function M.group_norm(channels, s, groups, eps)
  groups = groups or s.groups
  if channels % groups ~= 0 then
    message.raise("%s: norm_num_groups %d do not divide %d channels", s.name, groups, channels)
  end
  return norm.GroupNorm(groups, channels, {eps = eps or s.eps, dtype = s.dtype})
end

-- ---- Sizes ----

local Downsample = Module "Downsample2D"

--- A convolution of stride 2. Padding 0 stands for one row and column of zeros at the end, as in DDPM.
function Downsample:init(channels, padding, s)
  self.conv = conv(channels, channels, 3, s, {stride = 2, padding = padding})
  self.padding = padding
end

function Downsample:forward(x)
  if self.padding == 0 then x = pad(x, {[2] = {0, 1}, [3] = {0, 1}}) end
  return self.conv(x)
end

local Upsample = Module "Upsample2D"

--- Every pixel becomes a square of four (or of what `size` asks for), then a convolution.
function Upsample:init(channels, s) self.conv = conv(channels, channels, 3, s, {padding = 1}) end

function Upsample:forward(x, _, size)
  return self.conv(core.upsample_nearest(x, size or {2 * x:size(2), 2 * x:size(3)}))
end

M.Downsample, M.Upsample = Downsample, Upsample

-- ---- The residual block ----

local Resnet = Module "ResnetBlock2D"

--- norm, act, conv, + the time's projection, norm, act, conv, + the input. `resample` "down" or "up" halves or
--- doubles both ways in the middle. With scale_shift the time scales and shifts after the second norm instead.
function Resnet:init(inputs, outputs, s, resample)
  self.norm1 = M.group_norm(inputs, s)
  self.conv1 = conv(inputs, outputs, 3, s, {padding = 1})
  self.time_emb_proj = layers.Linear(s.time, s.scale_shift and 2 * outputs or outputs, weights(s))
  self.norm2 = M.group_norm(outputs, s)
  self.conv2 = conv(outputs, outputs, 3, s, {padding = 1})
  if inputs ~= outputs then self.conv_shortcut = conv(inputs, outputs, 1, s) end
  if s.dropout > 0 then self.dropout = Dropout(s.dropout) end
  self._settings, self.scale_shift, self.output_scale, self.resample = s, s.scale_shift, s.output_scale, resample
  self.outputs = outputs
end

-- x halved or doubled without weights.
local function resampled(x, how)
  if how == "down" then return core.avg_pool2d(x, {2, 2}, {2, 2}) end
  if how == "up" then return core.upsample_nearest(x, {2 * x:size(2), 2 * x:size(3)}) end
  return x
end

function Resnet:forward(x, time)
  local s = self._settings
  local h = resampled(M.norm_act(self.norm1, x, s), self.resample)
  x = resampled(x, self.resample)
  local shift = self.time_emb_proj(s.act(time))
  if self.scale_shift then
    shift = core.reshape(shift, shift:size(1), 1, 1, -1)
    local scale = core.narrow(shift, 4, 1, self.outputs)
    h = self.norm2(self.conv1(h)) * (scale + 1) + core.narrow(shift, 4, self.outputs + 1, self.outputs)
    h = s.act(h)
  else
    h = M.norm_act(self.norm2, M.conv_add(self.conv1, h, shift), s)
  end
  if self.dropout then h = self.dropout(h) end
  if self.conv_shortcut then x = self.conv_shortcut(x) end
  local y = M.conv_add(self.conv2, h, nil, x)
  return self.output_scale == 1 and y or y / self.output_scale
end

M.Resnet = Resnet

-- ---- Attention ----

local Attention = Module "Attention"

--- Attention of N×L×channels within itself or to a context N×S×o.context, by heads of head_width channels.
--- o: context = channels, bias = true (of the queries, keys and values; the output always has one), mask.
function Attention:init(channels, heads, head_width, o, s)
  local inner = heads * head_width
  local w = {dtype = s.dtype, generator = s.generator, bias = o.bias}
  self.to_q = layers.Linear(channels, inner, w)
  self.to_k = layers.Linear(o.context or channels, inner, w)
  self.to_v = layers.Linear(o.context or channels, inner, w)
  self.to_out = {layers.Linear(inner, channels, weights(s))}
  self.heads, self.head_width = heads, head_width
end

-- layer(x) + add, of sequences N×L×channels: as a convolution over N images of L pixels, which adds bias and sum in
-- one pass. add, like the result, may be absent.
local function project(layer, x, add)
  if getmetatable(layer) ~= layers.Linear then  -- an adapted one
    local y = layer(x)
    return add and y + add or y
  end
  local n, length = x:size(1), x:size(2)
  local operands = {layer.bias}
  operands[#operands + 1] = add and core.reshape(add, n, 1, length, layer.outputs)
  operands[#operands + 1] = {parts = (layer.bias and 1 or 0) + (add and 4 or 0)}
  local y = core.conv2d_fused(core.reshape(x, n, 1, length, layer.inputs),
    core.reshape(layer.weight, 1, 1, layer.inputs, layer.outputs), unpack(operands))
  return core.reshape(y, n, length, layer.outputs)
end

-- N×L×(heads·D) → N×heads×L×D, or as it is for one head
local function by_heads(x, heads, width)
  if heads == 1 then return x end
  return core.permute(core.reshape(x, x:size(1), x:size(2), heads, width), 1, 3, 2, 4)
end

--- add, like the result, is added to it.
function Attention:forward(x, context, mask, add)
  context = context or x
  local heads, width = self.heads, self.head_width
  local q = by_heads(project(self.to_q, x), heads, width)
  local k = by_heads(project(self.to_k, context), heads, width)
  local v = by_heads(project(self.to_v, context), heads, width)
  local y = nn_attention.attention(q, k, v, {mask = mask})
  if heads > 1 then y = core.reshape(core.permute(y, 1, 3, 2, 4), y:size(1), y:size(3), heads * width) end
  return project(self.to_out[1], y, add)
end

local SpatialAttention = Module("SpatialAttention", Attention)

--- Attention between all positions of an image: normalised first, added to the input. groups = false leaves
--- out the norm.
function SpatialAttention:init(channels, head_width, groups, s)
  if head_width > channels then
    message.raise("%s: attention_head_dim is %d, expected at most the %d channels of the stage", s.name, head_width,
      channels)
  end
  Attention.init(self, channels, math.floor(channels / head_width), head_width, {bias = true}, s)
  if groups then self.group_norm = M.group_norm(channels, s, groups) end
  self.output_scale = s.output_scale
end

function SpatialAttention:forward(x)
  local h = self.group_norm and self.group_norm(x) or x
  local n, height, width, channels = x:size()
  local function sequence(t) return core.reshape(t, n, height * width, channels) end
  local y = core.reshape(Attention.forward(self, sequence(h), nil, nil, sequence(x)), n, height, width, channels)
  return self.output_scale == 1 and y or y / self.output_scale
end

M.Attention, M.SpatialAttention = Attention, SpatialAttention

-- ---- Stages ----

local Down = Module "DownBlock"

--- One resolution on the way down. o: inputs, outputs, layers, attention (makes one for the outputs, or nil),
--- resample ("conv", "resnet" or nil), padding.
function Down:init(o, s)
  self.resnets = {}
  for i = 1, o.layers do self.resnets[i] = Resnet(i == 1 and o.inputs or o.outputs, o.outputs, s) end
  if o.attention then
    self.attentions = {}
    for i = 1, o.layers do self.attentions[i] = o.attention(o.outputs) end
  end
  if o.resample then
    local resnet = o.resample == "resnet"
    self.downsamplers = {resnet and Resnet(o.outputs, o.outputs, s, "down")
      or Downsample(o.outputs, o.padding, s)}
  end
end

--- Puts every result that a later stage concatenates at the end of `skips`.
function Down:forward(x, time, skips, context)
  for i, resnet in ipairs(self.resnets) do
    x = resnet(x, time)
    if self.attentions then x = self.attentions[i](x, context) end
    skips[#skips + 1] = x
  end
  if self.downsamplers then
    x = self.downsamplers[1](x, time)
    skips[#skips + 1] = x
  end
  return x
end

local Mid = Module "MidBlock"

--- The lowest resolution: a residual block, then `layers` times attention (or nil) and a residual block.
function Mid:init(o, s)
  self.resnets = {Resnet(o.channels, o.channels, s)}
  if o.attention then self.attentions = {} end
  for i = 1, o.layers do
    if o.attention then self.attentions[i] = o.attention(o.channels) end
    self.resnets[i + 1] = Resnet(o.channels, o.channels, s)
  end
end

function Mid:forward(x, time, context)
  x = self.resnets[1](x, time)
  for i = 2, #self.resnets do
    if self.attentions then x = self.attentions[i - 1](x, context) end
    x = self.resnets[i](x, time)
  end
  return x
end

local Up = Module "UpBlock"

--- One resolution on the way up. o: below (channels that come from below), outputs, last (channels of the last
--- skip), layers, attention, resample. Each residual block reads one skip beside its input.
function Up:init(o, s)
  self.resnets = {}
  for i = 1, o.layers do
    local skip = i == o.layers and o.last or o.outputs
    self.resnets[i] = Resnet((i == 1 and o.below or o.outputs) + skip, o.outputs, s)
  end
  if o.attention then
    self.attentions = {}
    for i = 1, o.layers do self.attentions[i] = o.attention(o.outputs) end
  end
  if o.resample then
    local resnet = o.resample == "resnet"
    self.upsamplers = {resnet and Resnet(o.outputs, o.outputs, s, "up") or Upsample(o.outputs, s)}
  end
end

--- Takes its skips from the end of the list.
function Up:forward(x, time, skips, context)
  for i, resnet in ipairs(self.resnets) do
    x = resnet(core.cat({x, table.remove(skips)}, 4), time)
    if self.attentions then x = self.attentions[i](x, context) end
  end
  if not self.upsamplers then return x end
  local next_skip = skips[#skips]
  return self.upsamplers[1](x, time, {next_skip:size(2), next_skip:size(3)})
end

M.Down, M.Mid, M.Up = Down, Mid, Up
return M
