-- Forward passes, and what is drawn once for each: the masks of dropout layers.
--
-- A field that a solver calls thirty times, and calls again when a backward pass replays it, must be one
-- function: its dropout masks belong to the pass and not to the call. A pass is a table from a layer to what
-- the layer drew.

local core = require "tide.core"

local M = {}

local current  -- the pass under way, or nil

--- The pass under way (a table in which a layer keeps, under itself as the key, what it drew), or nil.
function M.current() return current end

local function finish(before, ok, ...)
  current = before
  if not ok then error((...), 0) end
  return ...
end

--- hold(f) → g, which is f with its randomness held: every call of g, now or when a gradient replays it, sees
--- the same dropout masks, drawn at the first call. A hold inside a held function joins it. Solvers hold the
--- fields they are given.
---
---   local field = nn.hold(net)        -- one forward pass
---   field(x) - field(x)               -- 0, also while training
function M.hold(f)
  local pass = current or {}
  return function(...)
    local before = current
    if before == pass then return f(...) end
    current = pass
    return finish(before, pcall(core.with_recording, core.recording(), f, ...))  -- it notes where an error began
  end
end

return M
