-- tide.optim: optimisers, schedules of the learning rate, bounds for gradients, averages of weights.
--
--   local opt = optim.Adam(net:parameters(), {lr = 1e-3})
--   local sched = optim.Schedule(opt, optim.cosine {steps = 10000, minimum = 1e-6})
--   loss:backward()
--   optim.clip_grad_norm(net:parameters(), 1)
--   opt:step():zero_grad()
--   sched:step()

local M = {}

for _, part in ipairs {"first_order", "lbfgs", "schedule", "weights"} do
  for name, value in pairs(require("tide.optim." .. part)) do M[name] = value end
end

return M
