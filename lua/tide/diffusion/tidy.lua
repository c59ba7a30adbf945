-- Memory between evaluations of a network. What one leaves behind is garbage of which Lua's collector sees nothing, and
-- tide's own limit lets it grow to half of what is live. A loop over evaluations collects more often, so that its peak
-- is a few evaluations' memory, however many there are.

local core = require "tide.core"

local least = 2e6  -- bytes of garbage that are not worth a collection

--- A function to be called after each evaluation.
return function()
  local floor = core.memory().live
  local before, greatest = floor, 0
  return function()
    local live = core.memory().live
    greatest = math.max(greatest, live - before)
    before = live
    if live - floor > math.max(least, 1.5 * greatest) then
      collectgarbage()
      floor = core.memory().live
      before = floor
    end
  end
end
