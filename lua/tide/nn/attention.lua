-- Attention: the operation over heads, and the layer with its projections. Sequences are
-- batch×length×channels.

local core = require "tide.core"
local initialise = require "tide.nn.initialise"
local Module = require("tide.nn.module").Module
local options = require "tide.options"
local parts = require "tide.nn.parts"
local Dropout = require("tide.nn.dropout").Dropout
local tensor = require "tide.tensor"

local M = {}
local raise = require("tide.message").raise

local attention_options = {mask = options.none, causal = false, scale = options.none, dropout = options.none}

-- Scores where the mask lets them through. An excluded score is -1e30 and not -∞, so that a row that excludes
-- everything gives the mean of the values instead of NaN.
local function masked(scores, mask)
  if mask.dtype == "uint8" then return core.where(mask, scores, -1e30) end
  return scores + mask
end

-- Sequences as the fused operation takes them, N×L×H×D, all of one type and with the same leading dims; nil
-- when they are something else.
local function by_position(q, k, v)
  local n = q.ndim
  if n < 2 or n > 4 or k.ndim ~= n or v.ndim ~= n or k.dtype ~= q.dtype or v.dtype ~= q.dtype then return nil end
  for i = 1, n - 2 do
    if k:size(i) ~= q:size(i) or v:size(i) ~= q:size(i) then return nil end
  end
  local function turned(x)
    if n == 4 then return core.permute(x, 1, 3, 2, 4) end
    return core.unsqueeze(n == 2 and core.unsqueeze(x, 1) or x, 3)
  end
  return turned(q), turned(k), turned(v)
end

-- The mask as what is added to the scores N×H×L×S of sequences of n dims.
local function addend(mask, n, dtype)
  if mask.dtype == "uint8" then mask = core.where(mask, 0, -1e30) end
  if mask.dtype ~= dtype then mask = mask:to(dtype) end
  if n == 3 and mask.ndim == 3 then return core.unsqueeze(mask, 2) end
  while mask.ndim < 4 do mask = core.unsqueeze(mask, 1) end
  return mask
end

-- The same with all scores at once: for weights that drop out, and for dims that broadcast.
local function plain(q, k, v, o)
  local scores = core.mm(q * (o.scale or 1 / math.sqrt(q:size(-1))), tensor.t(k))
  if o.mask then scores = masked(scores, o.mask) end
  if o.causal then
    scores = masked(scores, tensor.tril(core.ones(q:size(-2), k:size(-2), "uint8")))
  end
  local weights = core.softmax(scores, -1)
  if o.dropout then weights = o.dropout(weights) end
  return core.mm(weights, v)
end

--- softmax(q·kᵀ·scale + mask)·v over the last two dims: q is …×L×D, k …×S×D, v …×S×E, the result …×L×E; the
--- other dims broadcast. Options: mask, which broadcasts to …×L×S: uint8 (1 takes part, 0 is excluded; a row
--- that excludes everything attends evenly) or real (added to the scores); causal = false (position i sees
--- 1..i); scale 1/√D; dropout, a module for the weights. Vaswani et al. 2017.
function M.attention(q, k, v, opts)
  local o = options.check("attention", opts, attention_options)
  local a, b, c
  if not o.dropout and (not o.mask or o.mask.ndim <= q.ndim) then a, b, c = by_position(q, k, v) end
  if not a then return plain(q, k, v, o) end
  local mask = o.mask and addend(o.mask, q.ndim, q.dtype)
  local y = core.attention(a, b, c, mask, o.causal, o.scale or 1 / math.sqrt(q:size(-1)))
  if q.ndim == 4 then return core.permute(y, 1, 3, 2, 4) end
  y = core.squeeze(y, 3)
  return q.ndim == 2 and core.squeeze(y, 1) or y
end

local MultiheadAttention = Module "MultiheadAttention"

--- nn.MultiheadAttention(channels, heads, {context = channels, bias = true, dropout = 0, dtype, generator}).
--- m(x) attends within x (N×L×channels); m(x, context) to another sequence (N×S×context). A third argument
--- holds {mask, causal}: mask as in nn.attention, of shape L×S, N×L×S or N×heads×L×S (N×1×1×S hides padding).
--- query_weight is channels×channels, key_value_weight context×(2·channels): keys, then values.
function MultiheadAttention:init(channels, heads, opts)
  local o = options.check("MultiheadAttention", opts,
    {context = options.none, bias = true, dropout = 0, dtype = "float32", generator = options.none})
  parts.whole("MultiheadAttention", "channels", channels)
  if channels % parts.whole("MultiheadAttention", "heads", heads) ~= 0 then
    raise("MultiheadAttention: %d heads do not divide %d channels", heads, channels)
  end
  local context = parts.whole("MultiheadAttention", "context", o.context or channels)
  self.channels, self.heads, self.context = channels, heads, context
  -- as one matrix context×(3·channels) where the sizes allow it, else each on its own (Glorot's rule)
  local query_bound = math.sqrt(6 / (context == channels and 4 * channels or 2 * channels))
  local bound = context == channels and query_bound or math.sqrt(6 / (context + channels))
  self.query_weight = parts.parameter({channels, channels}, o.dtype)
  self.key_value_weight = parts.parameter({context, 2 * channels}, o.dtype)
  initialise.uniform(self.query_weight, -query_bound, query_bound, o.generator)
  initialise.uniform(self.key_value_weight, -bound, bound, o.generator)
  self.out_weight = parts.affine({channels, channels}, channels, {dtype = o.dtype, generator = o.generator})
  if o.bias then
    self.query_bias = parts.constant(channels, 0, o.dtype)
    self.key_value_bias = parts.constant(2 * channels, 0, o.dtype)
    self.out_bias = parts.constant(channels, 0, o.dtype)
  end
  if o.dropout > 0 then self.dropout = Dropout(o.dropout, {generator = o.generator}) end
end

local function affine(x, weight, bias)
  local y = core.mm(x, weight)
  return bias and y + bias or y
end

-- N×L×(parts·channels) → N×parts·heads×L×(channels/heads)
local function by_heads(x, heads)
  local n, length, width = x:size()
  return core.permute(core.reshape(x, n, length, heads, width / heads), 1, 3, 2, 4)
end

function MultiheadAttention:forward(x, context, opts)
  if type(context) == "table" then context, opts = nil, context end
  local o = options.check("MultiheadAttention", opts, {mask = options.none, causal = false})
  context = context or x
  if x.ndim ~= 3 or context.ndim ~= 3 then
    raise("MultiheadAttention: inputs have %d and %d dims, expected N×L×%d and N×S×%d", x.ndim, context.ndim,
      self.channels, self.context)
  end
  local mask = o.mask
  if mask and mask.ndim == 3 then mask = core.unsqueeze(mask, 2) end
  local q = by_heads(affine(x, self.query_weight, self.query_bias), self.heads)
  local kv = by_heads(affine(context, self.key_value_weight, self.key_value_bias), 2 * self.heads)
  local k = core.narrow(kv, 2, 1, self.heads)
  local v = core.narrow(kv, 2, self.heads + 1, self.heads)
  local y = M.attention(q, k, v, {mask = mask, causal = o.causal, dropout = self.dropout})
  y = core.reshape(core.permute(y, 1, 3, 2, 4), x.shape)
  return affine(y, self.out_weight, self.out_bias)
end

function MultiheadAttention:describe()
  local from = self.context ~= self.channels and (" from %d"):format(self.context) or ""
  return ("%d channels%s, %d heads"):format(self.channels, from, self.heads)
end

M.MultiheadAttention = MultiheadAttention
return M
