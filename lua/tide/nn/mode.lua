-- A number that changes whenever modules change in a way that a captured program would not see: training or
-- evaluation, frozen parameters, tensors replaced by others.

local M = {version = 0}

function M.changed() M.version = M.version + 1 end

return M
