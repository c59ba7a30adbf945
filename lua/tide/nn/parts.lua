-- What the layers' files share: checks of arguments, pairs, and fresh parameters.

local core = require "tide.core"
local initialise = require "tide.nn.initialise"
local message = require "tide.message"

local M = {}

local raise = message.raise

--- A whole number of at least `least` (1), or an error that names the layer and the argument.
function M.whole(layer, what, value, least)
  least = least or 1
  if type(value) ~= "number" or value % 1 ~= 0 or value < least then
    raise("%s: %s is %s, expected a whole number from %d", layer, what, tostring(value), least)
  end
  return value
end

--- One number or two as {a, b}.
function M.pair(layer, what, value, least)
  if type(value) == "table" then
    if #value ~= 2 then raise("%s: %s has %d numbers, expected one or two", layer, what, #value) end
    return {M.whole(layer, what, value[1], least), M.whole(layer, what, value[2], least)}
  end
  M.whole(layer, what, value, least)
  return {value, value}
end

--- "3×3" for describe.
function M.pair_text(p) return p[1] .. "×" .. p[2] end

--- A probability in [0, 1].
function M.probability(layer, p)
  if type(p) ~= "number" or p ~= p or p < 0 or p > 1 then
    raise("%s: probability %s, expected 0 to 1", layer, tostring(p))
  end
  return p
end

--- A parameter of uninitialised values.
function M.parameter(shape, dtype)
  return core.empty(shape, dtype or "float32"):requires_grad()
end

--- A parameter of one value.
function M.constant(size, value, dtype)
  return core.full({size}, value, dtype or "float32"):requires_grad()
end

--- A weight and a bias (or nil) drawn uniformly from ±1/√fan_in, the field's default for affine maps and
--- convolutions.
function M.affine(weight_shape, outputs, o)
  local weight = M.parameter(weight_shape, o.dtype)
  local bound = 1 / math.sqrt(math.max(1, (initialise.fans(weight))))
  initialise.uniform(weight, -bound, bound, o.generator)
  local bias
  if o.bias then bias = initialise.uniform(M.parameter({outputs}, o.dtype), -bound, bound, o.generator) end
  return weight, bias
end

return M
