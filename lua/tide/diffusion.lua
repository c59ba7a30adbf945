-- tide.diffusion: sampling from diffusion models, with gradients through the sampler.
--
--   local x_T = schedule:noise({4, 28, 28, 1}):requires_grad()
--   local out = diffusion.sample(model, x_T, {schedule = schedule, sampler = "dpmpp_2m", steps = 20})
--   metric(out.x0):backward()               -- x_T.grad is exact
--
-- A model is a function model(x, t, condition) → prediction; x is N×…, t a tensor with the network's time.

local M = {}

for _, part in ipairs {"schedule", "sample", "unet", "dit", "classifier", "edm", "folder", "pretrained", "train",
  "evaluate", "tasks", "guide"} do
  for name, value in pairs(require("tide.diffusion." .. part)) do M[name] = value end
end

--- The samplers by name: {name, source, order, options}.
M.samplers = require("tide.diffusion.samplers").list

return M
