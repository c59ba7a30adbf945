-- The default generator and drawing from it. Generators are made by tide.generator(seed).

local core = require "tide.core"

local M = {}
local default = core.generator(0)

--- Starts the default generator anew; it begins with seed 0, so scripts repeat unless they say otherwise.
function M.manual_seed(seed)
  default:seed(seed)
end

--- The default generator.
function M.default_generator()
  return default
end

for _, name in ipairs {"rand", "randn", "randint", "randperm", "bernoulli"} do
  M[name] = function(...) return default[name](default, ...) end
end

return M
