-- Blocks of transformers: attention within the image, attention to the condition's vectors, a gated
-- feed-forward part; as the U-Nets of latent diffusion use them. Rombach et al. 2022.

local blocks = require "tide.diffusion.blocks"
local core = require "tide.core"
local layers = require "tide.nn.layers"
local message = require "tide.message"
local Module = require("tide.nn.module").Module
local norm = require "tide.nn.norm"

local M = {}

local GEGLU = Module "GEGLU"

--- x·a times gelu(x·b): the projection gives both halves, value first. Shazeer 2020.
function GEGLU:init(inputs, outputs, s)
  self.proj = layers.Linear(inputs, 2 * outputs, blocks.weights(s))
  self.outputs = outputs
end

function GEGLU:forward(x)
  local both = self.proj(x)
  local value = core.narrow(both, -1, 1, self.outputs)
  return value * core.gelu(core.narrow(both, -1, self.outputs + 1, self.outputs))
end

local FeedForward = Module "FeedForward"

-- As in diffusers: net.0 is the gated projection, net.1 was dropout, net.2 goes back.
function FeedForward:init(channels, s)
  self.net = {[1] = GEGLU(channels, 4 * channels, s), [3] = layers.Linear(4 * channels, channels, blocks.weights(s))}
end

function FeedForward:forward(x) return self.net[3](self.net[1](x)) end

local Block = Module "BasicTransformerBlock"

--- Attention within, attention to the context, feed-forward; each on a layer norm and added. o: heads, context.
function Block:init(channels, o, s)
  local own = {dtype = s.dtype}
  self.norm1 = norm.LayerNorm(channels, own)
  self.attn1 = blocks.Attention(channels, o.heads, channels / o.heads, {bias = false}, s)
  self.norm2 = norm.LayerNorm(channels, own)
  self.attn2 = blocks.Attention(channels, o.heads, channels / o.heads, {context = o.context, bias = false}, s)
  self.norm3 = norm.LayerNorm(channels, own)
  self.ff = FeedForward(channels, s)
end

function Block:forward(x, context)
  x = x + self.attn1(self.norm1(x))
  x = x + self.attn2(self.norm2(x), context.vectors, context.mask)
  return x + self.ff(self.norm3(x))
end

local Transformer2D = Module "Transformer2DModel"

--- `depth` blocks over all positions of an image, between two projections, added to it. o: heads, depth,
--- context (width of the condition's vectors), linear (projections of positions instead of 1×1 convolutions).
function Transformer2D:init(channels, o, s)
  if channels % o.heads ~= 0 then
    message.raise("%s: attention_head_dim %d (the number of heads) does not divide %d channels", s.name, o.heads,
      channels)
  end
  local function projection()
    if o.linear then return layers.Linear(channels, channels, blocks.weights(s)) end
    return blocks.conv(channels, channels, 1, s)
  end
  self.norm = blocks.group_norm(channels, s, s.groups, 1e-6)
  self.proj_in = projection()
  self.transformer_blocks = {}
  for i = 1, o.depth do self.transformer_blocks[i] = Block(channels, o, s) end
  self.proj_out = projection()
  self.context = o.context
end

function Transformer2D:forward(x, context)
  if context.vectors:size(3) ~= self.context then
    message.raise("UNet2DConditionModel: the condition has vectors of %d, expected %d", context.vectors:size(3),
      self.context)
  end
  local n, height, width, channels = x:size()
  local h = core.reshape(self.proj_in(self.norm(x)), n, height * width, channels)
  for _, block in ipairs(self.transformer_blocks) do h = block(h, context) end
  return self.proj_out(core.reshape(h, n, height, width, channels)) + x
end

M.Transformer2D, M.Block, M.FeedForward = Transformer2D, Block, FeedForward
return M
