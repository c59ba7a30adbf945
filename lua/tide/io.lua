-- tide.io: files to tensors and back.
--
--   local io = require "tide.io"
--   local weights, metadata, names = assert(io.load_safetensors "model.safetensors")
--   assert(io.write_png("picture.png", image))
--
-- A file that cannot be read or written gives nil and a message that names it; a wrong argument
-- raises. Files appear under their names only when they are complete.

local core = require "tide.core"

local M = {}

for name, f in pairs(core.io) do M[name] = f end

return M
