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

-- ---- What the samplers' options may be ----

local function number(words, holds)
  return {words, function(v) return type(v) == "number" and v == v and holds(v) end}
end

local function whole(least, most)
  return number(("a whole number from %d to %d"):format(least, most),
    function(v) return v % 1 == 0 and v >= least and v <= most end)
end

local function one_of(...)
  local names = {}
  for _, name in ipairs {...} do names[name] = true end
  return {("%q"):rep(select("#", ...), " or "):format(...), function(v) return names[v] == true end}
end

local not_negative = number("a number, 0 or more", function(v) return v >= 0 end)
local share = number("a number above 0, at most 1", function(v) return v > 0 and v <= 1 end)

-- By the option's name; those of a single sampler come first.
local values = {
  order = whole(1, 6), start = whole(1, 3), form = one_of("x0", "epsilon"), base = one_of("euler", "midpoint"),
  eta = not_negative, churn = not_negative, churn_min = not_negative, churn_max = not_negative,
  churn_noise = not_negative, gamma = share, mix = share, coupling = share,
  warm = {"true or false", function(v) return type(v) == "boolean" end},
}
local values_of = {
  ddim = {eta = number("a number from 0 to 1", function(v) return v >= 0 and v <= 1 end)},
  dpmpp_2m = {variant = one_of("midpoint", "heun")}, dpmpp_2m_sde = {variant = one_of("midpoint", "heun")},
  unip = {variant = one_of("bh1", "bh2")}, unipc = {variant = one_of("bh1", "bh2")},
}

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
  local o = options.check(("%s: sampler %s"):format(fname, name), given, s.options or {})
  for key, value in pairs(o) do
    local allowed = values_of[name] and values_of[name][key] or values[key]
    if allowed and not allowed[2](value) then
      message.raise("%s: sampler %s: %s is %s, expected %s", fname, name, key,
        type(value) == "string" and ("%q"):format(value) or tostring(value), allowed[1])
    end
  end
  return s, o
end

--- The plan of a sampler with its options over the points `nodes`; `budget`, the steps that were asked for.
function M.plan(sampler, o, nodes, schedule, budget)
  local form = schedule.kind == "flow" and "flow" or sampler.form or "epsilon"
  local plan = Plan.new(nodes, form)
  plan.schedule, plan.sampler, plan.options, plan.budget = schedule, sampler, o, budget
  return plan:finish(sampler.build(plan, o))
end

return M
