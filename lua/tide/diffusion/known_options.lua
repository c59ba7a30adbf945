-- The options of diffusion.sample with their defaults, and the names of those of single samplers.

local grid = require "tide.diffusion.grid"
local none = require("tide.options").none
local samplers = require "tide.diffusion.samplers"

local M = {}

M.known = {
  schedule = "linear", prediction = none, sampler = "ddim", steps = 50, strength = 1,
  condition = none, negative = none, guidance = none, rescale = 0, classifier = none, classifier_scale = 1, clip = none,
  grad = "discrete", checkpoint = none, truncated = none, wrt = none, noise = none, latents = false, callback = none,
}
for name, value in pairs(grid.known) do M.known[name] = M.known[name] or value end

-- Options of single samplers; each is checked against the sampler in use.
M.of_samplers = {}
for _, s in pairs(samplers.list) do
  for name in pairs(s.options or {}) do M.of_samplers[name] = true end
end

--- Is it the name of an option of diffusion.sample?
function M.is_option(name) return M.known[name] ~= nil or M.of_samplers[name] ~= nil end

return M
