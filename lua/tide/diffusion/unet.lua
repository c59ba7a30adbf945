-- The U-Nets of diffusion models, in diffusers' layouts: UNet2DModel (DDPM; attention within the image, classes)
-- and UNet2DConditionModel (Stable Diffusion; attention to a sequence of vectors). Ho et al. 2020, Rombach et
-- al. 2022.
--
--   local net = diffusion.UNet2DModel {block_out_channels = {32, 64, 64}, …}
--   local eps = net(x, t, condition)       -- x N×H×W×C, t a number, 0-d or N

local blocks = require "tide.diffusion.blocks"
local config = require "tide.diffusion.config"
local core = require "tide.core"
local embedding = require "tide.diffusion.embedding"
local images = require "tide.diffusion.images"
local layers = require "tide.nn.layers"
local message = require "tide.message"
local Module = require("tide.nn.module").Module
local options = require "tide.options"
local transformer = require "tide.diffusion.transformer"
local is_tensor = require("tide.tensor").is_tensor

local M = {}
local raise, shape_of = message.raise, message.shape
local none = options.none

-- ---- What both share ----

local defaults_of_both = {
  sample_size = none, in_channels = 3, out_channels = 3, center_input_sample = false, flip_sin_to_cos = true,
  freq_shift = 0, time_embedding_dim = none, downsample_padding = 1, dropout = 0, act_fn = "silu",
  norm_num_groups = 32, norm_eps = 1e-5, mid_block_scale_factor = 1, resnet_time_scale_shift = "default",
  layers_per_block = 2, class_embed_type = none, num_class_embeds = none, time_embedding_type = "positional",
}

local function with(base, more)
  local t = {}
  for key, value in pairs(base) do t[key] = value end
  for key, value in pairs(more) do t[key] = value end
  return t
end

local function activation(name, act)
  return {act = config.activation(name, act), act_name = config.fused_activation(act)}
end

-- The settings of all blocks of a configuration. outer_act: the activation of the embeddings and before the last
-- convolution.
local function settings_of(name, o, outer_act)
  if o.resnet_time_scale_shift ~= "default" and o.resnet_time_scale_shift ~= "scale_shift" then
    raise("%s: resnet_time_scale_shift is %s, expected \"default\" or \"scale_shift\"", name,
      tostring(o.resnet_time_scale_shift))
  end
  local channels = config.sizes(name, "block_out_channels", o.block_out_channels)
  local inner = activation(name, o.act_fn)
  return {
    name = name, channels = channels, time = o.time_embedding_dim or 4 * channels[1],
    groups = config.whole(name, "norm_num_groups", o.norm_num_groups or math.min(channels[1] / 4, 32)),
    eps = o.norm_eps, dropout = o.dropout, act = inner.act, act_name = inner.act_name,
    outer = activation(name, outer_act),
    scale_shift = o.resnet_time_scale_shift == "scale_shift", output_scale = 1, dtype = o.dtype,
    generator = o.generator,
  }
end

-- The times' positions and how many numbers they are. fourier: settings of the random frequencies.
local function time_positions(name, o, s, fourier)
  local c = s.channels[1]
  if o.time_embedding_type == "positional" then
    return embedding.Timesteps(c, o.flip_sin_to_cos, o.freq_shift), c
  elseif o.time_embedding_type ~= "fourier" then
    raise("%s: time_embedding_type is %s, expected \"positional\" or \"fourier\"", name,
      tostring(o.time_embedding_type))
  end
  return embedding.GaussianFourierProjection(fourier.width, with(fourier, blocks.weights(s))), 2 * fourier.width
end

-- The embedding of a condition that is added to the time's.
local function class_embedding(name, o, s)
  local kind = o.class_embed_type or false
  if not kind and not o.num_class_embeds then return nil end
  if not kind then
    return layers.Embedding(config.whole(name, "num_class_embeds", o.num_class_embeds), s.time, blocks.weights(s))
  elseif kind == "timestep" then
    return embedding.TimestepEmbedding(s.channels[1], s.time, s.outer.act, blocks.weights(s))
  elseif kind ~= "identity" then
    raise("%s: class_embed_type is %s, expected null, \"timestep\" or \"identity\"", name, tostring(kind))
  end
end

-- Builds the network's parts. stages: for each kind of stage {attention = f or nil, resample}; layers, for each;
-- fourier, the settings of such an embedding of times.
local function build(self, name, o, s, stages)
  local channels, n = s.channels, #s.channels
  local c = channels[1]
  self.config, self._settings = o, s
  self.conv_in = blocks.conv(config.whole(name, "in_channels", o.in_channels), c, 3, s, {padding = 1})
  local width
  self.time_proj, width = time_positions(name, o, s, stages.fourier)
  self.time_embedding = embedding.TimestepEmbedding(width, s.time, s.outer.act, blocks.weights(s))
  self.class_embedding = class_embedding(name, o, s)
  self.down_blocks, self.up_blocks = {}, {}
  for i = 1, n do
    local stage = stages.down[i]
    self.down_blocks[i] = blocks.Down({
      inputs = channels[math.max(1, i - 1)], outputs = channels[i], layers = stages.layers[i],
      attention = stage.attention, resample = i < n and stage.resample, padding = o.downsample_padding,
    }, s)
  end
  if stages.mid then self.mid_block = stages.mid(channels[n]) end
  for i = 1, n do
    local k = n + 1 - i  -- the stage on the way down that this one answers
    local stage = stages.up[i]
    self.up_blocks[i] = blocks.Up({
      below = channels[math.min(n, k + 1)], outputs = channels[k], last = channels[math.max(1, k - 1)],
      layers = stages.layers[k] + 1, attention = stage.attention, resample = i < n and stage.resample,
    }, s)
  end
  self.conv_norm_out = blocks.group_norm(c, s)
  self.conv_out = blocks.conv(c, config.whole(name, "out_channels", o.out_channels), 3, s, {padding = 1})
end

local function check_image(self, x)
  images.check(self.class_name, x, {channels = self.config.in_channels, dtype = self.conv_norm_out.weight.dtype})
end

-- The vector that the blocks read: the time's, and a condition's where the network has one.
local function vector_of(self, x, t, condition)
  local name, n = self.class_name, x:size(1)
  local times = embedding.times(name, t, x.dtype)
  if times.numel ~= 1 and times.numel ~= n then
    raise("%s: %d times for %d images, expected one or one for each", name, times.numel, n)
  end
  local v = self.time_embedding(self.time_proj(times))
  local kind = self.config.class_embed_type or false
  if self.class_embedding and not kind then
    v = v + embedding.class_vector(name, self.class_embedding, condition, n, self._settings.time)
  elseif kind == "timestep" then
    if condition == nil then raise("%s: the condition is missing, expected numbers", name) end
    v = v + self.class_embedding(self.time_proj(embedding.times(name, condition, x.dtype)))
  elseif kind == "identity" then
    if not is_tensor(condition) then
      raise("%s: the condition is a %s, expected a tensor of %d", name, type(condition), self._settings.time)
    end
    v = v + embedding.vector(name, condition, n, self._settings.time)
  elseif condition ~= nil then
    raise("%s: got a condition, but the network has no class embedding", name)
  end
  return v
end

-- Down, through the middle, up. `context` goes to the stages' attention.
local function run(self, x, vector, context)
  if self.config.center_input_sample then x = x * 2 - 1 end
  x = self.conv_in(x)
  local skips = {x}
  for _, block in ipairs(self.down_blocks) do x = block(x, vector, skips, context) end
  if self.mid_block then x = self.mid_block(x, vector, context) end
  for _, block in ipairs(self.up_blocks) do x = block(x, vector, skips, context) end
  return self.conv_out(blocks.norm_act(self.conv_norm_out, x, self._settings.outer))
end

local function describe(self)
  local o = self.config
  local text = ("%d → %d channels, blocks of %s"):format(o.in_channels, o.out_channels,
    table.concat(o.block_out_channels, ", "))
  if self.class_embedding and self.class_embedding.entries then
    text = ("%s, %d classes"):format(text, self.class_embedding.entries)
  end
  if self.cross_attention then text = ("%s, attends to …×%s"):format(text, self.cross_attention) end
  return text
end

-- ---- UNet2DModel ----

local UNet2DModel = Module "UNet2DModel"
UNet2DModel.describe = describe

local defaults_2d = with(defaults_of_both, {
  down_block_types = {"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"},
  mid_block_type = "UNetMidBlock2D",
  up_block_types = {"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"},
  block_out_channels = {224, 448, 672, 896}, attention_head_dim = 8, attn_norm_num_groups = none,
  add_attention = true, downsample_type = "conv", upsample_type = "conv", num_train_timesteps = none,
})

local function resample_kind(name, what, value)
  if value ~= "conv" and value ~= "resnet" then
    raise("%s: %s is %s, expected \"conv\" or \"resnet\"", name, what, tostring(value))
  end
  return value
end

--- UNet2DModel(config): see doc/api/diffusion_networks.lua.
function UNet2DModel:init(given)
  local name = "UNet2DModel"
  local o, flags = config.check(name, given, defaults_2d, {})
  self._flags = flags
  local s = settings_of(name, o, "silu")  -- as there, whatever act_fn is
  local n = #s.channels
  local function attention(channels, groups)
    return blocks.SpatialAttention(channels, o.attention_head_dim or channels, groups or s.groups, s)
  end
  local function attend(channels) return attention(channels) end
  local stages = {
    fourier = {width = s.channels[1], scale = 16, log = true},
    layers = config.each(name, "layers_per_block", config.whole(name, "layers_per_block", o.layers_per_block), n),
    down = config.kinds(name, "down_block_types", o.down_block_types, n, {
      DownBlock2D = {resample = "conv"}, ResnetDownsampleBlock2D = {resample = "resnet"},
      AttnDownBlock2D = {attention = attend,
        resample = resample_kind(name, "downsample_type", o.downsample_type)},
    }),
    up = config.kinds(name, "up_block_types", o.up_block_types, n, {
      UpBlock2D = {resample = "conv"}, ResnetUpsampleBlock2D = {resample = "resnet"},
      AttnUpBlock2D = {attention = attend, resample = resample_kind(name, "upsample_type", o.upsample_type)},
    }),
  }
  if o.mid_block_type ~= false then
    config.kinds(name, "mid_block_type", {o.mid_block_type}, 1, {UNetMidBlock2D = true})
    -- with scale_shift the middle's attention has a norm only when its groups are given
    local groups = o.attn_norm_num_groups or (not s.scale_shift and s.groups)
    function stages.mid(channels)
      local own = with(s, {output_scale = o.mid_block_scale_factor})
      return blocks.Mid({channels = channels, layers = 1, attention = o.add_attention and function(c)
        return blocks.SpatialAttention(c, o.attention_head_dim or c, groups, own)
      end}, own)
    end
  end
  build(self, name, o, s, stages)
end

function UNet2DModel:forward(x, t, condition)
  check_image(self, x)
  local y = run(self, x, vector_of(self, x, t, condition))
  if self.config.time_embedding_type ~= "fourier" then return y end
  return y / core.reshape(embedding.times(self.class_name, t, x.dtype), -1, 1, 1, 1)  -- the score, of noise σ = t
end

-- ---- UNet2DConditionModel ----

local UNet2DConditionModel = Module "UNet2DConditionModel"
UNet2DConditionModel.describe = describe

local defaults_condition = with(defaults_of_both, {
  in_channels = 4, out_channels = 4, block_out_channels = {320, 640, 1280, 1280},
  down_block_types = {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"},
  mid_block_type = "UNetMidBlock2DCrossAttn",
  up_block_types = {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"},
  cross_attention_dim = 1280, transformer_layers_per_block = 1, attention_head_dim = 8,
  use_linear_projection = false, upcast_attention = false,
})

local fixed_condition = {
  only_cross_attention = false, reverse_transformer_layers_per_block = none, encoder_hid_dim = none,
  encoder_hid_dim_type = none, num_attention_heads = none, dual_cross_attention = false,
  addition_embed_type = none, addition_time_embed_dim = none, resnet_skip_time_act = false,
  resnet_out_scale_factor = 1, time_embedding_act_fn = none, timestep_post_act = none,
  time_cond_proj_dim = none, conv_in_kernel = 3, conv_out_kernel = 3,
  projection_class_embeddings_input_dim = none, attention_type = "default", class_embeddings_concat = false,
  mid_block_only_cross_attention = none, cross_attention_norm = none, addition_embed_type_num_heads = 64,
}

-- The stages of a list of names; every stage's attention has its own heads, depth and context.
local function condition_stages(name, what, list, n, attention_of, with_attention, without, resnet)
  config.kinds(name, what, list, n, {[with_attention] = true, [without] = true, [resnet] = true})
  local stages = {}
  for i, kind in ipairs(list) do
    stages[i] = {
      attention = kind == with_attention and attention_of(i) or nil,
      resample = kind == resnet and "resnet" or "conv",
    }
  end
  return stages
end

--- UNet2DConditionModel(config): see doc/api/diffusion_networks.lua.
function UNet2DConditionModel:init(given)
  local name = "UNet2DConditionModel"
  local o, flags = config.check(name, given, defaults_condition, fixed_condition)
  self._flags = flags
  local s = settings_of(name, o, o.act_fn)
  local n = #s.channels
  if o.time_embedding_type == "fourier" then s.time = o.time_embedding_dim or 2 * s.channels[1] end
  local heads = config.each(name, "attention_head_dim", o.attention_head_dim, n)
  local depths = config.each(name, "transformer_layers_per_block", o.transformer_layers_per_block, n)
  local contexts = config.each(name, "cross_attention_dim", o.cross_attention_dim, n)
  local function maker(i, settings)
    return function(channels)
      return transformer.Transformer2D(channels, {heads = heads[i], depth = depths[i], context = contexts[i],
        linear = o.use_linear_projection}, settings)
    end
  end
  local function on_the_way_down(i) return maker(i, s) end
  local function on_the_way_up(i) return maker(n + 1 - i, s) end
  local stages = {
    fourier = {width = math.floor(s.time / 2), scale = 1, flip = o.flip_sin_to_cos},
    layers = config.each(name, "layers_per_block", o.layers_per_block, n),
    down = condition_stages(name, "down_block_types", o.down_block_types, n, on_the_way_down,
      "CrossAttnDownBlock2D", "DownBlock2D", "ResnetDownsampleBlock2D"),
    up = condition_stages(name, "up_block_types", o.up_block_types, n, on_the_way_up,
      "CrossAttnUpBlock2D", "UpBlock2D", "ResnetUpsampleBlock2D"),
  }
  if o.mid_block_type ~= false then
    local kinds = {UNetMidBlock2DCrossAttn = "attention", UNetMidBlock2D = "none"}
    local kind = config.kinds(name, "mid_block_type", {o.mid_block_type}, 1, kinds)[1]
    function stages.mid(channels)
      local own = with(s, {output_scale = o.mid_block_scale_factor})
      return blocks.Mid({channels = channels, layers = kind == "attention" and 1 or 0,
        attention = kind == "attention" and maker(n, own) or nil}, own)
    end
  end
  build(self, name, o, s, stages)
  self.cross_attention = table.concat(contexts, "/", 1, type(o.cross_attention_dim) == "table" and n or 1)
end

-- The parts of a condition: a tensor of vectors, or {vectors, mask =, class =}.
local function parts_of(condition)
  if type(condition) ~= "table" then return condition end
  local o = {}
  for key, value in pairs(condition) do
    if key == 1 then
      o.vectors = value
    elseif key == "mask" or key == "class" then
      o[key] = value
    else
      raise("UNet2DConditionModel: the condition has an entry %q, expected {vectors, mask =, class =}",
        tostring(key))
    end
  end
  return o.vectors, o.mask, o.class
end

-- Vectors as n×S×C of x's type: one sequence serves all images.
local function sequence(vectors, x)
  local name = "UNet2DConditionModel"
  if not is_tensor(vectors) then
    raise("%s: the condition is %s, expected vectors N×S×C", name,
      vectors == nil and "missing" or "a " .. type(vectors))
  end
  if vectors.dtype ~= x.dtype then
    raise("%s: the condition is %s, the images are %s; convert one with :to()", name, vectors.dtype, x.dtype)
  end
  local given, n = shape_of(vectors), x:size(1)
  if vectors.ndim == 2 then vectors = core.unsqueeze(vectors, 1) end
  if vectors.ndim ~= 3 or (vectors:size(1) ~= 1 and vectors:size(1) ~= n) then
    raise("%s: the condition has shape (%s), expected vectors S×C or %d×S×C", name, given, n)
  end
  if vectors:size(1) ~= n then vectors = core.expand(vectors, {n, vectors:size(2), vectors:size(3)}) end
  return vectors
end

-- A mask of the vectors (S, N×S or N×1×S) as attention takes it, N×1×1×S; of four dims as it is.
local function mask_of(mask, vectors)
  if mask == nil then return nil end
  local name, n, s = "UNet2DConditionModel", vectors:size(1), vectors:size(2)
  if not is_tensor(mask) then raise("%s: the mask is a %s, expected a tensor", name, type(mask)) end
  if mask.dtype == "int64" then
    raise("%s: the mask is int64, expected uint8 (1 takes part) or what is added to the scores", name)
  end
  if mask.ndim == 4 then return mask end
  local rows = mask.ndim == 1 and 1 or mask:size(1)
  local fits = mask.ndim == 1 or mask.ndim == 2 or (mask.ndim == 3 and mask:size(2) == 1)
  if not fits or mask:size(-1) ~= s or (rows ~= 1 and rows ~= n) then
    raise("%s: the mask has shape (%s), expected (%d) or (%d×%d), one value for each vector", name, shape_of(mask), s,
      n, s)
  end
  return core.reshape(mask, rows, 1, 1, s)
end

function UNet2DConditionModel:forward(x, t, condition)
  check_image(self, x)
  local vectors, mask, class = parts_of(condition)
  vectors = sequence(vectors, x)
  return run(self, x, vector_of(self, x, t, class), {vectors = vectors, mask = mask_of(mask, vectors)})
end

M.UNet2DModel, M.UNet2DConditionModel = UNet2DModel, UNet2DConditionModel
return M
