-- tide.io: files to tensors and back.
--
--   local io = require "tide.io"
--   local weights, metadata, names = assert(io.load_safetensors "model.safetensors")
--   assert(io.write_png("picture.png", image))
--
-- A file that cannot be read or written gives nil and a message that names it; a wrong argument
-- raises. Files appear under their names only when they are complete.

local core = require "tide.core"
local options = require "tide.options"

local M = {}

for name, f in pairs(core.io) do M[name] = f end

--- save_safetensors(path, tensors, metadata, {dtype = "float32"}): writes tensors by name, and strings by key; equal
--- tables give equal files. dtype "float16" or "bfloat16": tensors of float32 are stored so, in half the space, each
--- number rounded to nearest; load_safetensors gives float32 again. Numbers that float16 cannot hold (beyond 65,504)
--- are refused. True, or nil and a message.
function M.save_safetensors(path, tensors, metadata, opts)
  local o = options.check("save_safetensors", opts, {dtype = "float32"})
  return core.io.save_safetensors(path, tensors, metadata, o.dtype)
end

return M
