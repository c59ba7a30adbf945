-- The samplers by name. A sampler is {name, source, order, form, known options, build = function(plan, options)};
-- build writes the steps into a plan. The files of samplers/ hold them by family.

local message = require "tide.message"
local options = require "tide.options"
local Plan = require "tide.diffusion.plan"

local M = {}

local list = {}
for _, family in ipairs {"exponential"} do
  for name, sampler in pairs(require("tide.diffusion.samplers." .. family)) do
    sampler.name = name
    list[name] = sampler
  end
end

--- The samplers by name.
M.list = list

--- The sampler's options that are among `given`, checked; and its entry.
function M.find(fname, name)
  local s = list[name]
  if s then return s end
  local names = {}
  for n in pairs(list) do names[#names + 1] = n end
  table.sort(names)
  message.raise("%s: unknown sampler %q, expected one of %s", fname, tostring(name), table.concat(names, ", "))
end

--- The plan of a sampler over the points `nodes`.
function M.plan(fname, name, nodes, schedule, given)
  local s = M.find(fname, name)
  local o = options.check(("%s: sampler %s"):format(fname, name), given, s.options or {})
  local form = schedule.kind == "flow" and "flow" or s.form or "epsilon"
  local plan = Plan.new(nodes, form)
  plan.schedule, plan.sampler, plan.options = schedule, s, o
  return plan:finish(s.build(plan, o))
end

return M
