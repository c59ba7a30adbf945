-- Dropout, by element or by channel, and its form for solvers: one mask for a whole solve.
--
-- Inside a held function (nn.hold; solvers hold their fields) every layer keeps the mask that it draws first,
-- so that a field is the same function in every evaluation and in the backward pass. Elsewhere each call
-- draws anew.

local core = require "tide.core"
local message = require "tide.message"
local Module = require("tide.nn.module").Module
local options = require "tide.options"
local parts = require "tide.nn.parts"
local pass = require "tide.nn.pass"
local random = require "tide.random"

local M = {}

-- The mask's sizes for an input's: 1 along the shared dims ("inner": all between the first and the last).
local function mask_shape(shape, dims)
  if dims == "inner" then
    for i = 2, #shape - 1 do shape[i] = 1 end
  else
    for _, d in ipairs(dims) do
      if d == 0 or d > #shape or d < -#shape then
        message.raise("Dropout: dim %d is out of range for a tensor of %d dims", d, #shape)
      end
      shape[d > 0 and d or #shape + d + 1] = 1
    end
  end
  return shape
end

-- 0 with probability p, else 1/(1 − p).
local function draw(self, shape, dtype)
  local g = self.generator or random.default_generator()
  if self.p == 1 then return core.zeros(shape, dtype) end
  return core.ge(g:rand(shape, dtype), self.p):to(dtype):mul_(1 / (1 - self.p))
end

local function fits(mask, shape, dtype)
  if not mask or mask.dtype ~= dtype or mask.ndim ~= #shape then return false end
  for i = 1, #shape do
    if mask:size(i) ~= shape[i] then return false end
  end
  return true
end

-- The layer's mask of this shape in the pass under way, made by `make` when there is none. A layer that sees
-- several shapes in one pass has a mask for each.
local function mask_of_pass(self, under_way, shape, dtype, make)
  local masks = under_way[self]
  if not masks then
    masks = {}
    under_way[self] = masks
  end
  for _, mask in ipairs(masks) do
    if fits(mask, shape, dtype) then return mask end
  end
  if core.capturing() then
    message.raise("%s: a mask that is held for a pass has to be drawn before the function is captured", self.class_name)
  end
  local mask = make(self, shape, dtype)
  masks[#masks + 1] = mask
  return mask
end

local function check_dims(dims)
  if dims ~= "inner" and type(dims) ~= "table" then
    message.raise("Dropout: dims is %s, expected a table of dims or \"inner\"", tostring(dims))
  end
  return dims
end

local Dropout = Module "Dropout"
local shared_by_default = {}

--- nn.Dropout(p = 0.5, {dims = {}, generator}): while training, elements become 0 with probability p and the
--- others are divided by 1 − p; the input itself in evaluation. One draw serves all positions along the dims
--- named; "inner" names all dims between the first and the last. Srivastava et al. 2014.
function Dropout:init(p, opts)
  local usual = {dims = shared_by_default[self.class_name] or {}, generator = options.none}
  local o = options.check(self.class_name, opts, usual)
  self.p, self.dims = parts.probability(self.class_name, p or 0.5), check_dims(o.dims)
  self.generator = o.generator
end

function Dropout:forward(x)
  if not self.training or self.p == 0 then return x end
  local shape, dtype, under_way = mask_shape(x.shape, self.dims), x.dtype, pass.current()
  return x * (under_way and mask_of_pass(self, under_way, shape, dtype, draw) or draw(self, shape, dtype))
end

function Dropout:describe() return ("%g"):format(self.p) end

--- nn.Dropout2d(p, opts): whole channels of N×…×C are dropped together; Dropout with dims "inner". Tompson et
--- al. 2015.
local Dropout2d = Module("Dropout2d", Dropout)
shared_by_default.Dropout2d = "inner"

local VariationalDropout = Module("VariationalDropout", Dropout)
shared_by_default.VariationalDropout = "inner"

--- nn.VariationalDropout(p, {dims = "inner", generator}): channel dropout whose mask is held: for a pass
--- inside a held function, and elsewhere until resample() or an input of another size. So a training loop
--- that solves by hand calls model:resample() once for each forward pass. Gal and Ghahramani 2016.
local function chosen_or_drawn(self, shape, dtype)
  return fits(self._chosen, shape, dtype) and self._chosen or draw(self, shape, dtype)
end

function VariationalDropout:forward(x)
  if not self.training or self.p == 0 then return x end
  local shape, dtype, under_way = mask_shape(x.shape, self.dims), x.dtype, pass.current()
  if under_way then return x * mask_of_pass(self, under_way, shape, dtype, chosen_or_drawn) end
  if core.capturing() then
    message.raise("%s: a mask that is held from call to call cannot be captured; nn.Dropout and nn.Dropout2d draw at "
      .. "every call, and a solve holds its masks by itself", self.class_name)
  end
  if not fits(self._mask, shape, dtype) then self._mask = chosen_or_drawn(self, shape, dtype) end
  return x * self._mask
end

--- Forgets the mask: the next use draws one. With a tensor or a table of sizes, draws the mask for it now;
--- that mask also serves the held passes that begin later, until the next resample(). Returns self.
function VariationalDropout:resample(x)
  self._mask, self._chosen = nil, nil
  if x == nil then return self end
  local is_table = type(x) == "table"
  local shape = {}
  for i, n in ipairs(is_table and x or x.shape) do shape[i] = n end
  self._chosen = draw(self, mask_shape(shape, self.dims), is_table and "float32" or x.dtype)
  return self
end

M.Dropout, M.Dropout2d, M.VariationalDropout = Dropout, Dropout2d, VariationalDropout
return M
