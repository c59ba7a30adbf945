-- Error messages: raised at the user's line, with shapes as people write them.

local core = require "tide.core"

local M = {}

--- Raises string.format(…) at the innermost line outside tide's own files.
function M.raise(...) core.raise(string.format(...)) end

--- "3×4", or "" for a 0-d tensor.
function M.shape(t) return table.concat(t.shape, "×") end

return M
