-- A diffusion transformer in diffusers' layout (DiTTransformer2DModel): patches with fixed positions, blocks whose
-- norms are scaled, shifted and gated by the time and the class. Peebles and Xie 2023.

local blocks = require "tide.diffusion.blocks"
local config = require "tide.diffusion.config"
local core = require "tide.core"
local embedding = require "tide.diffusion.embedding"
local images = require "tide.diffusion.images"
local layers = require "tide.nn.layers"
local message = require "tide.message"
local Module = require("tide.nn.module").Module
local norm = require "tide.nn.norm"
local options = require "tide.options"
local container = require "tide.nn.container"

local M = {}
local raise = message.raise
local name = "DiTTransformer2DModel"

-- ---- What a block is told ----

local Condition = Module "CombinedTimestepLabelEmbeddings"

-- The time by sines and cosines of 256 numbers, plus the class.
function Condition:init(classes, width, s)
  self.time_proj = embedding.Timesteps(256, true, 1)
  self.timestep_embedder = embedding.TimestepEmbedding(256, width, container.SiLU(), blocks.weights(s))
  self.class_embedder = {embedding_table = layers.Embedding(classes, width, blocks.weights(s))}
  self.width = width
end

function Condition:forward(times, condition, n)
  local v = embedding.class_vector(name, self.class_embedder.embedding_table, condition, n, self.width)
  return self.timestep_embedder(self.time_proj(times)) + v
end

-- count parts of N×(count·C), each N×1×C.
local function parts_of(x, count)
  local width, list = x:size(2) / count, {}
  for i = 1, count do list[i] = core.unsqueeze(core.narrow(x, 2, (i - 1) * width + 1, width), 2) end
  return list
end

local AdaptiveNorm = Module "AdaLayerNormZero"

-- Six vectors for a block: shift, scale and gate of attention and of the feed-forward part.
function AdaptiveNorm:init(classes, width, s)
  self.emb = Condition(classes, width, s)
  self.linear = layers.Linear(width, 6 * width, blocks.weights(s))
end

function AdaptiveNorm:forward(times, condition, n)
  return parts_of(self.linear(core.silu(self.emb(times, condition, n))), 6)
end

-- ---- Blocks ----

local Block = Module "DiTBlock"

function Block:init(width, o, s)
  self.norm1 = AdaptiveNorm(o.num_embeds_ada_norm + 1, width, s)
  self.attn1 = blocks.Attention(width, o.num_attention_heads, o.attention_head_dim, {bias = o.attention_bias}, s)
  self.ff = {net = {[1] = {proj = layers.Linear(width, 4 * width, blocks.weights(s))},
    [3] = layers.Linear(4 * width, width, blocks.weights(s))}}
  self._plain = {norm.LayerNorm(width, {eps = 1e-6, affine = false}),
    norm.LayerNorm(width, {eps = o.norm_eps, affine = false})}
end

function Block:forward(x, times, condition, n)
  local p = self.norm1(times, condition, n)
  local h = self.attn1(self._plain[1](x) * (p[2] + 1) + p[1])
  x = x + h * p[3]
  local net = self.ff.net
  h = self._plain[2](x) * (p[5] + 1) + p[4]
  return x + net[3](core.gelu_tanh(net[1].proj(h))) * p[6]
end

-- ---- Positions ----

-- Sines and cosines of the column and of the row of each patch: 1×(rows·columns)×width.
local function positions(rows, columns, width, dtype)
  local quarter = width / 4
  local list = {}
  for r = 0, rows - 1 do
    for c = 0, columns - 1 do
      local row = {}
      for k, place in ipairs {c, r} do
        for i = 0, quarter - 1 do
          local angle = place / 10000 ^ (i / quarter)
          local at = (k - 1) * 2 * quarter + i + 1
          row[at], row[at + quarter] = math.sin(angle), math.cos(angle)
        end
      end
      list[#list + 1] = row
    end
  end
  return core.tensor({list}, dtype)
end

-- ---- The network ----

local DiT = Module(name)

local defaults = {
  num_attention_heads = 16, attention_head_dim = 72, in_channels = 4, out_channels = options.none, num_layers = 28,
  sample_size = 32, patch_size = 2, num_embeds_ada_norm = 1000, attention_bias = true, norm_eps = 1e-5,
  norm_num_groups = 32, upcast_attention = false,
}
local fixed = {
  dropout = 0, activation_fn = "gelu-approximate", norm_type = "ada_norm_zero", norm_elementwise_affine = false,
}

--- DiT(config): see doc/api/diffusion_networks.lua.
function DiT:init(given)
  local o, flags = config.check(name, given, defaults, fixed)
  for _, what in ipairs {"num_attention_heads", "attention_head_dim", "in_channels", "num_layers", "sample_size",
    "patch_size", "num_embeds_ada_norm"} do config.whole(name, what, o[what]) end
  local width = o.num_attention_heads * o.attention_head_dim
  if width % 4 ~= 0 then
    raise("%s: a width of %d (heads times attention_head_dim) is no multiple of 4", name, width)
  end
  if o.sample_size % o.patch_size ~= 0 then
    raise("%s: patch_size %d does not divide sample_size %d", name, o.patch_size, o.sample_size)
  end
  local s = {name = name, dtype = o.dtype, generator = o.generator}
  self.config, self._flags = o, flags
  self.outputs = o.out_channels or o.in_channels
  self.pos_embed = {proj = blocks.conv(o.in_channels, width, o.patch_size, s, {stride = o.patch_size})}
  self.transformer_blocks = {}
  for i = 1, o.num_layers do self.transformer_blocks[i] = Block(width, o, s) end
  self._norm_out = norm.LayerNorm(width, {eps = 1e-6, affine = false})
  self.proj_out_1 = layers.Linear(width, 2 * width, blocks.weights(s))
  self.proj_out_2 = layers.Linear(width, o.patch_size ^ 2 * self.outputs, blocks.weights(s))
end

-- The positions of the patches, kept for each type.
local function positions_of(self, dtype)
  self._positions = self._positions or {}
  local side = self.config.sample_size / self.config.patch_size
  self._positions[dtype] = self._positions[dtype]
    or positions(side, side, self.config.num_attention_heads * self.config.attention_head_dim, dtype)
  return self._positions[dtype]
end

local function check_image(self, x)
  local o = self.config
  images.check(name, x, {channels = o.in_channels, size = o.sample_size, dtype = self.pos_embed.proj.weight.dtype})
end

function DiT:forward(x, t, condition)
  check_image(self, x)
  local n, size, patch = x:size(1), self.config.sample_size, self.config.patch_size
  local times = embedding.times(name, t, x.dtype)
  if times.numel ~= 1 and times.numel ~= n then
    raise("%s: %d times for %d images, expected one or one for each", name, times.numel, n)
  end
  local side = size / patch
  local h = self.pos_embed.proj(x)
  h = core.reshape(h, n, side * side, -1) + positions_of(self, x.dtype)
  for _, block in ipairs(self.transformer_blocks) do h = block(h, times, condition, n) end
  local vector = self.transformer_blocks[1].norm1.emb(times, condition, n)
  local p = parts_of(self.proj_out_1(core.silu(vector)), 2)
  h = self.proj_out_2(self._norm_out(h) * (p[2] + 1) + p[1])
  h = core.reshape(h, n, side, side, patch, patch, self.outputs)
  return core.reshape(core.permute(h, 1, 2, 4, 3, 5, 6), n, size, size, self.outputs)
end

function DiT:describe()
  local o = self.config
  return ("%d → %d channels, %d layers of %d heads of %d, patches of %d, %d classes"):format(o.in_channels,
    self.outputs, o.num_layers, o.num_attention_heads, o.attention_head_dim, o.patch_size, o.num_embeds_ada_norm)
end

M.DiT = DiT
return M
