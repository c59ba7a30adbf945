-- The images that networks and measures take, N×H×W×C: their layout and type are checked before anything is computed.

local message = require "tide.message"
local is_tensor = require("tide.tensor").is_tensor

local M = {}
local raise, shape_of = message.raise, message.shape

-- PyTorch has the channels before height and width.
local function hint(x, channels)
  if x.ndim ~= 4 or x:size(4) == channels or x:size(2) ~= channels then return "" end
  return "; channels come last, as x:permute(1, 3, 4, 2) has them"
end

--- Raises unless x is a tensor N×H×W×C; with `wanted` {channels, size (H and W; perhaps nil), dtype}, of such.
function M.check(name, x, wanted)
  if not is_tensor(x) then raise("%s: the images are a %s, expected a tensor N×H×W×C", name, type(x)) end
  local c, size = wanted and wanted.channels, wanted and wanted.size
  local fits = x.ndim == 4 and (not c or x:size(4) == c) and (not size or (x:size(2) == size and x:size(3) == size))
  if not fits then
    raise("%s: the images have shape (%s), expected N×%s×%s%s", name, shape_of(x),
      size and size .. "×" .. size or "H×W", c or "C", c and hint(x, c) or "")
  end
  if wanted and x.dtype ~= wanted.dtype then
    raise("%s: the images are %s, the weights are %s; convert one with :to()", name, x.dtype, wanted.dtype)
  end
end

return M
