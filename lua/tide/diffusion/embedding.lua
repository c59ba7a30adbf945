-- What a network is told besides the image: the time as sines and cosines, a class or a vector, and the small
-- networks that turn them into one vector for each image, which every residual block reads.

local core = require "tide.core"
local message = require "tide.message"
local layers = require "tide.nn.layers"
local Module = require("tide.nn.module").Module
local random = require "tide.random"
local is_tensor = require("tide.tensor").is_tensor

local M = {}
local raise, shape_of = message.raise, message.shape

-- ---- Times ----

--- Times as one row of numbers each: t is a number, a 0-d tensor (one row) or a tensor of N (N rows).
function M.times(fname, t, dtype)
  if type(t) == "number" then return core.full({1}, t, dtype) end
  if not is_tensor(t) then raise("%s: the time is a %s, expected a number or a tensor", fname, type(t)) end
  if t.ndim > 1 then
    raise("%s: the times have shape (%s), expected one number or one for each image", fname, shape_of(t))
  end
  return core.reshape(core.to(t, dtype), -1)
end

local Timesteps = Module "Timesteps"

--- The positions of `width` numbers for each time: sines, then cosines (or the other way round) of t·ω_k, with
--- ω_k = 10000^(−k/(half − shift)) and half = width/2. Vaswani et al. 2017, as DDPM uses it.
function Timesteps:init(width, flip, shift)
  self.width, self.flip, self.shift = width, flip, shift
end

-- ω as a 1×half tensor, kept for each type.
local function frequencies(self, dtype)
  self._frequencies = self._frequencies or {}
  local kept = self._frequencies[dtype]
  if kept then return kept end
  local half = math.floor(self.width / 2)
  local list = {}
  for k = 0, half - 1 do list[k + 1] = math.exp(-math.log(10000) * k / (half - self.shift)) end
  kept = core.tensor({list}, dtype)
  self._frequencies[dtype] = kept
  return kept
end

function Timesteps:forward(t)
  local angles = core.reshape(t, -1, 1) * frequencies(self, t.dtype)
  local first, second = core.sin(angles), core.cos(angles)
  if self.flip then first, second = second, first end
  local parts = {first, second}
  if self.width % 2 == 1 then parts[3] = core.zeros(t.numel, 1, t.dtype) end
  return core.cat(parts, 2)
end

function Timesteps:describe() return ("%d"):format(self.width) end

local GaussianFourierProjection = Module "GaussianFourierProjection"

--- Sines, then cosines (or the other way round) of 2π·w_k·t, or of log t, for `width` frequencies w drawn once from
--- N(0, scale²) and not trained. Tancik et al. 2020, as Song et al. 2021 use it.
function GaussianFourierProjection:init(width, o)
  self.weight = core.mul((o.generator or random.default_generator()):randn({width}, o.dtype), o.scale)
  self.log, self.flip = o.log, o.flip
end

function GaussianFourierProjection:forward(t)
  local x = core.reshape(self.log and core.log(t) or t, -1, 1)
  local angles = x * (core.reshape(self.weight, 1, -1) * (2 * math.pi))
  local first, second = core.sin(angles), core.cos(angles)
  if self.flip then first, second = second, first end
  return core.cat({first, second}, 2)
end

function GaussianFourierProjection:describe() return ("%d"):format(2 * self.weight.numel) end

local TimestepEmbedding = Module "TimestepEmbedding"

--- Linear, activation, linear: from the positions to the vector that the blocks read.
function TimestepEmbedding:init(inputs, width, act, o)
  self.linear_1 = layers.Linear(inputs, width, o)
  self.linear_2 = layers.Linear(width, width, o)
  self._act = act
end

function TimestepEmbedding:forward(x) return self.linear_2(self._act(self.linear_1(x))) end

M.Timesteps, M.TimestepEmbedding = Timesteps, TimestepEmbedding
M.GaussianFourierProjection = GaussianFourierProjection

-- ---- Classes ----

-- Is the tensor of real numbers (a vector of the condition), not of classes?
local function is_real(x) return x.dtype == "float32" or x.dtype == "float64" end

--- Classes (a number, or int64: 0-d, or one for each image), checked against the number of classes; n images.
local function class_index(fname, classes, count, n)
  if type(classes) == "number" then
    if classes % 1 ~= 0 or classes < 1 or classes > count then
      raise("%s: class %s, expected a whole number from 1 to %d", fname, tostring(classes), count)
    end
    return core.full({1}, classes, "int64")
  end
  if classes.dtype ~= "int64" or classes.ndim > 1 or (classes.numel ~= 1 and classes.numel ~= n) then
    raise("%s: the classes are %s of shape (%s), expected int64, one or one for each of %d images", fname,
      classes.dtype, shape_of(classes), n)
  end
  return core.reshape(classes, -1)
end

--- Refuses int64 classes that a network of `count` classes does not have. The values are read, so this is for before a
--- run, not for within the network.
function M.check_classes(fname, what, classes, count)
  if not is_tensor(classes) or classes.dtype ~= "int64" or classes.numel == 0 then return end
  for _, end_of in ipairs {"min", "max"} do
    local c = core[end_of](classes):item()
    if c < 1 or c > count then
      raise("%s: the %s has class %d, expected whole numbers from 1 to %d", fname, what, c, count)
    end
  end
end

--- The vector of a condition for n images: of classes by the embedding, of a real tensor (…×width) itself.
function M.class_vector(fname, embedding, condition, n, width)
  if not (type(condition) == "number" or is_tensor(condition)) then
    raise("%s: the condition is %s, expected classes (1 to %d) or a vector of %d", fname,
      condition == nil and "missing" or "a " .. type(condition), embedding.entries, width)
  end
  if type(condition) == "number" or not is_real(condition) then
    return embedding(class_index(fname, condition, embedding.entries, n))
  end
  return M.vector(fname, condition, n, width)
end

--- A real condition as rows of `width` numbers, one or one for each of n images.
function M.vector(fname, v, n, width)
  local rows = v.ndim == 1 and core.reshape(v, 1, -1) or v
  if rows.ndim ~= 2 or rows:size(2) ~= width or (rows:size(1) ~= 1 and rows:size(1) ~= n) then
    raise("%s: the condition has shape (%s), expected (%d) or (%d×%d)", fname, shape_of(v), width, n, width)
  end
  return rows
end

return M
