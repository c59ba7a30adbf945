-- Where finished pictures go: one function that writes a PNG, by default that of the C core.

local errors = require "tide.plot.errors"

local M = {}

local writer

--- Let `fn(path, width, height, bytes)` write pictures; nil goes back to the core's PNG writer.
--- `bytes` holds width × height × 3 bytes, red, green, blue, row by row. `fn` returns true, or
--- nil and a message.
function M.set_writer(fn)
  if fn ~= nil and type(fn) ~= "function" then
    errors.raise("plot.set_writer: expected a function, got %s", errors.describe(fn))
  end
  writer = fn
end

local function core_writer(path, width, height, bytes)
  local core = require "tide.core"
  return core.io.write_png(path, core.frombytes(bytes, {height, width, 3}))
end

--- Write a picture; the path, or nil and a message.
function M.write(path, width, height, bytes)
  local ok, message = (writer or core_writer)(path, width, height, bytes)
  if ok == nil and message ~= nil then return nil, message end
  return path
end

return M
