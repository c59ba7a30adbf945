-- The samplers by name. A sampler is {name, source, order, form, known options, build = function(plan, options)};
-- build writes the steps into a plan; intervals(steps), where there is one, says how many there are; own_start, that
-- it deals with a first point without data. The files of samplers/ hold them by family.

local elsewhere = require "tide.diffusion.elsewhere"
local message = require "tide.message"
local options = require "tide.options"
local Plan = require "tide.diffusion.plan"
local steps = require "tide.diffusion.samplers.steps"
local values = require "tide.values"

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

local one_of = values.one_of
local bound = {"a number, 0 or more", function(v) return type(v) == "number" and v >= 0 end}  -- perhaps infinite

-- By the option's name; those of a single sampler come first.
local rules = {
  order = values.whole(1, 6), start = values.whole(1, 3), form = one_of("x0", "epsilon"),
  base = one_of("euler", "midpoint"), warm = values.flag,
  eta = values.not_negative, churn = values.not_negative, churn_min = values.not_negative, churn_max = bound,
  churn_noise = values.not_negative, gamma = values.share, mix = values.share, coupling = values.share,
}
local rules_of = {
  ddim = {eta = values.from(0, 1)},
  dpmpp_2m = {variant = one_of("midpoint", "heun")}, dpmpp_2m_sde = {variant = one_of("midpoint", "heun")},
  unip = {variant = one_of("bh1", "bh2")}, unipc = {variant = one_of("bh1", "bh2")},
}

--- The sampler of a name.
function M.find(fname, name)
  local here = elsewhere.sampler(name)
  return list[name] or message.raise("%s: unknown sampler %q%s", fname, tostring(name),
    here and (", here it is %s"):format(here) or options.choices(name, list))
end

--- The sampler, and its options from those given.
function M.options(fname, name, given)
  local s = M.find(fname, name)
  local where = ("%s: sampler %s"):format(fname, name)
  local o = options.check(where, given, s.options or {})
  values.check(where, o, rules)
  return s, values.check(where, o, rules_of[name] or {})
end

-- A first point without data (α = 0, λ = −∞) is left by a step of first order, which needs no λ; the sampler, unless it
-- deals with such a point itself (own_start), begins at the next one.
local function build(plan, sampler, o)
  local nodes = plan.nodes
  if nodes[1].alpha > 0 or sampler.own_start then return sampler.build(plan, o) end
  plan.start = plan:state(steps.first_order(plan, plan.start, nodes[1], nodes[2]))
  plan.nodes = {unpack(nodes, 2)}
  local x = sampler.build(plan, o)
  plan.nodes = nodes
  return x
end

--- The plan of a sampler with its options over the points `nodes`; `budget`, the steps that were asked for.
function M.plan(sampler, o, nodes, schedule, budget)
  local form = schedule.kind == "flow" and "flow" or sampler.form or "epsilon"
  local plan = Plan.new(nodes, form)
  plan.schedule, plan.sampler, plan.options, plan.budget = schedule, sampler, o, budget
  return plan:finish(build(plan, sampler, o))
end

return M
