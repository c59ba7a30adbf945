-- tide: tensors, implicit models and differential equations for Lua.
-- This file puts the module together: operations of the C core, the Lua parts on top, the rest on first use.

local core = require "tide.core"
core.own((debug.getinfo(1, "S").source:gsub("init%.lua$", "")))

local M = {_VERSION = "tide scm"}

for name, value in pairs(core) do
  if type(value) == "function" then M[name] = value end
end
for _, name in ipairs {"backward", "recording", "with_recording", "externals", "same_point", "now", "raise",
  "own", "is_own", "leaf_changes", "trace", "capturing", "peak"} do M[name] = nil end

for _, part in ipairs {"tensor", "print", "autograd", "random"} do
  for name, value in pairs(require("tide." .. part)) do M[name] = value end
end

-- Parts that a script may not need are loaded when first named.
local parts = {
  nn = true, optim = true, ode = true, implicit = true, diffusion = true, linalg = true, data = true, io = true,
  plot = true, repl = true,
}

-- Functions likewise, and the part that holds them.
local functions = {capture = "capture", train_step = "train_step"}

-- Methods whose functions such a part holds.
for _, name in ipairs {"trace", "kron", "matrix_power", "matrix_rank"} do
  core.methods[name] = function(...) return M.linalg[name](...) end
end

return setmetatable(M, {
  __index = function(_, name)
    if parts[name] then
      local part = require("tide." .. name)
      M[name] = part
      return part
    elseif functions[name] then
      M[name] = require("tide." .. functions[name])[name]
      return M[name]
    elseif name == "help" then
      M.help = require("tide.help")
      return M.help
    end
  end,
})
