-- The samplers by name. A sampler is {name, source, order, form, known options, build = function(plan, options)};
-- build writes the steps into a plan; intervals(steps), where there is one, says how many there are. The files of
-- samplers/ hold them by family.

local message = require "tide.message"
local options = require "tide.options"
local Plan = require "tide.diffusion.plan"

local M = {}

local list = {}
for _, family in ipairs {"exponential", "multistep", "ode", "ratio", "reversible"} do
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

--- The sampler, and its options from those given.
function M.options(fname, name, given)
  local s = M.find(fname, name)
  return s, options.check(("%s: sampler %s"):format(fname, name), given, s.options or {})
end

--- The plan of a sampler with its options over the points `nodes`; `budget`, the steps that were asked for.
function M.plan(sampler, o, nodes, schedule, budget)
  local form = schedule.kind == "flow" and "flow" or sampler.form or "epsilon"
  local plan = Plan.new(nodes, form)
  plan.schedule, plan.sampler, plan.options, plan.budget = schedule, sampler, o, budget
  return plan:finish(sampler.build(plan, o))
end

return M
