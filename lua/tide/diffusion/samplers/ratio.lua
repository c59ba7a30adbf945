-- Samplers in y = x/α over σ̂ = σ/α, where dy/dσ̂ = ε: Euler, Heun, DPM2 and the ancestral ones, as Karras et al. 2022
-- and k-diffusion have them; and those of rectified flow, where dx/dσ = v.

local message = require "tide.message"
local numbers = require "tide.diffusion.numbers"
local steps = require "tide.diffusion.samplers.steps"

local M = {}
local sqrt, log = math.sqrt, math.log
local expm1 = numbers.expm1

local function point(plan, ratio) return plan.schedule:node_at(-log(ratio)) end

-- y at s moved by Δσ̂·ε, as x at t.
local function moved(x, slope, s, t)
  return t.alpha * (x / s.alpha + (t.ratio - s.ratio) * slope)
end

-- ---- Karras et al. 2022, algorithm 2 ----

local churn_options = {churn = 0, churn_min = 0, churn_max = math.huge, churn_noise = 1}

-- Noise added before a step: x and the point s with more noise.
local function churned(plan, x, s, o)
  local gamma = math.min(o.churn / (#plan.nodes - 1), sqrt(2) - 1)
  if gamma <= 0 or s.ratio < o.churn_min or s.ratio > o.churn_max then return x, s end
  local more = point(plan, s.ratio * (1 + gamma))
  local up = sqrt(more.ratio ^ 2 - s.ratio ^ 2) * o.churn_noise
  return plan:value(more.alpha * (x / s.alpha + up * plan:noise())), more
end

local flow_step = {}

M.euler = {
  source = "Karras et al. 2022; the same as ddim without churn", order = 1, options = churn_options,
  build = steps.walk(function(plan, x, s, t, _, o)
    x, s = churned(plan, x, s, o)
    return steps.first_order(plan, x, s, t)
  end),
}

M.heun = {
  source = "Karras et al. 2022, algorithm 2", order = 2, options = churn_options, own_start = true,
  build = steps.walk(function(plan, x, s, t, _, o)
    if plan.schedule.kind == "flow" then return flow_step.heun(plan, x, s, t) end
    x, s = churned(plan, x, s, o)
    if t.sigma == 0 then return steps.first_order(plan, x, s, t) end
    local d = plan:epsilon(x, s)
    local ahead = plan:value(moved(x, d, s, t))
    return moved(x, (d + plan:epsilon(ahead, t)) / 2, s, t)
  end),
}

-- The midpoint rule at the geometric mean of both σ̂.
local function midpoint(plan, x, s, t)
  if t.ratio == 0 then return steps.first_order(plan, x, s, t) end
  local m = point(plan, sqrt(s.ratio * t.ratio))
  local u = plan:value(moved(x, plan:epsilon(x, s), s, m))
  return moved(x, plan:epsilon(u, m), s, t)
end

M.dpm2 = {
  source = "Karras et al. 2022; k-diffusion", order = 2,
  build = steps.walk(function(plan, x, s, t) return midpoint(plan, x, s, t) end),
}

-- ---- Ancestral: a step to less noise than wanted, then the rest as fresh noise ----

-- The point to step to, and how much noise to add in x at t.
local function ancestral_split(plan, s, t, eta)
  if t.ratio == 0 then return t, 0 end
  local up = math.min(t.ratio, eta * t.ratio * sqrt(1 - (t.ratio / s.ratio) ^ 2))
  local down = sqrt(t.ratio ^ 2 - up ^ 2)
  if down == 0 then return {lambda = math.huge, alpha = 1, sigma = 0, ratio = 0}, up end
  return point(plan, down), up
end

local function ancestral(step)
  return steps.walk(function(plan, x, s, t, _, o)
    local down, up = ancestral_split(plan, s, t, o.eta)
    local e = step(plan, x, s, down)
    if up == 0 then return e end
    return t.alpha * (e / down.alpha + up * plan:noise())
  end)
end

M.euler_a = {source = "k-diffusion", order = 1, options = {eta = 1}, build = ancestral(steps.first_order)}
M.dpm2_a = {source = "k-diffusion", order = 1, options = {eta = 1}, build = ancestral(midpoint)}
M.dpmpp_2s_a = {
  source = "k-diffusion", order = 1, form = "x0", options = {eta = 1},
  build = ancestral(function(plan, x, s, t)
    if t.ratio == 0 then return plan:data(x, s) end
    local m = steps.between(plan, s, t, 0.5)
    local u = plan:value(steps.by_data(x, plan:data(x, s), s, m))
    return x * (t.sigma / s.sigma) - t.alpha * expm1(s.lambda - t.lambda) * plan:data(u, m)
  end),
}

-- ---- Rectified flow ----

function flow_step.euler(plan, x, s, t) return x + (t.sigma - s.sigma) * plan:velocity(x, s) end

function flow_step.midpoint(plan, x, s, t)
  local sigma = (s.sigma + t.sigma) / 2
  local m = plan.schedule:node_at(log((1 - sigma) / sigma))
  local u = plan:value(x + (sigma - s.sigma) * plan:velocity(x, s))
  return x + (t.sigma - s.sigma) * plan:velocity(u, m)
end

function flow_step.heun(plan, x, s, t)
  if t.sigma == 0 then return flow_step.euler(plan, x, s, t) end
  local v = plan:velocity(x, s)
  local ahead = plan:value(x + (t.sigma - s.sigma) * v)
  return x + ((t.sigma - s.sigma) / 2) * (v + plan:velocity(ahead, t))
end

for name, step in pairs(flow_step) do
  M["flow_" .. name] = {
    source = "Liu et al. 2023, rectified flow", order = name == "euler" and 1 or 2, own_start = true,
    build = function(plan, o)
      if plan.schedule.kind ~= "flow" then
        message.raise("diffusion.sample: sampler \"flow_%s\" needs a flow schedule, this one is %q", name,
          plan.schedule.name)
      end
      return steps.walk(step)(plan, o)
    end,
  }
end

return M
