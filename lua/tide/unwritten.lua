-- A computation that is run again for its derivative needs its tensors as they were. unwritten(list) notes how often
-- each has been written to, and gives a function (fname, words) that raises when one of them has been since.

local message = require "tide.message"

return function(list)
  local versions = {}
  for i, x in ipairs(list) do versions[i] = x.version end
  return function(fname, words)
    for i, x in ipairs(list) do
      if x.version ~= versions[i] then
        message.raise("%s: a tensor of shape (%s) that %s was written in place before backward; its gradient is lost",
          fname, message.shape(x), words)
      end
    end
  end
end
