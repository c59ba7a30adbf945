-- The continuous adjoint, for comparison: integrated from the clean end to the noisy one over the states that were
-- kept, in y = x/α over σ̂ where it reads da/dσ̂ = −a·∂ε/∂y. It is not the derivative of the steps that were taken, and
-- tends to it as the steps go to 0.

local message = require "tide.message"

local M = {}

local function plus(a, b)
  if not a or not b then return a or b end
  return a + b
end

-- Where the Jacobian at the i-th point is taken. At a point without noise there is no time: the last one serves.
local function jacobian_node(nodes, i)
  return nodes[i].t and nodes[i] or nodes[i - 1]
end

-- The share c of the second-order term in the step from the point i to i − 1: the slope at i is
-- w + c·(w − the w of the point before).
local function share(nodes, i, second_order)
  if not second_order or i == #nodes or nodes[i + 1].sigma == 0 then return 0 end
  local ratio = (nodes[i + 1].lambda - nodes[i].lambda) / (nodes[i].lambda - nodes[i - 1].lambda)
  return 1 / (2 * ratio)
end

-- A strategy of gradient.lua: a goes from point to point; parameters and conditions get ∫ a·∂ε/∂θ dσ̂ by the same rule.
local function integrated(second_order)
  return function(job, known, cotangents, vjp)
    local nodes, states = job.plan.nodes, job.plan.states
    local function delta(i) return nodes[i].ratio - nodes[i - 1].ratio end
    local a, before
    for i = #nodes, 2, -1 do
      local g = cotangents[states[i]]
      a = plus(a, g and g * nodes[i].alpha)
      if a then
        local c = share(nodes, i, second_order)
        local weight = delta(i) * (1 + c)
        if i > 2 then weight = weight - delta(i - 1) * share(nodes, i - 1, second_order) end
        local w = vjp(known[states[i]], jacobian_node(nodes, i), a, true, nil, weight)
        w = w and w * nodes[i].alpha or a * 0
        a = a + (before and w * (1 + c) - before * c or w) * delta(i)
        before = w
      end
    end
    local g = cotangents[states[1]]
    a = plus(a, g and g * nodes[1].alpha)
    return a and a / nodes[1].alpha
  end
end

local function check(plan)
  if plan.noises > 0 then
    message.raise("diffusion.sample: grad = \"adjoint\" is for samplers without noise; %q with grad = \"discrete\" is "
      .. "exact", plan.sampler.name)
  end
  if plan.nodes[1].alpha == 0 then
    message.raise("diffusion.sample: grad = \"adjoint\" needs α > 0 at the first point")
  end
end

local function keep_states(plan)
  local keep = {}
  for _, v in ipairs(plan.states) do keep[v] = true end
  return keep
end

--- Euler in σ̂ with the Jacobian at the clean end, as AdjointDPM is released (arXiv 2307.10711).
M.adjoint = {check = check, keep = keep_states, reverse = integrated(false)}

--- The second-order multistep form in λ of AdjointDEIS (arXiv 2405.15020).
M.adjoint_2m = {check = check, keep = keep_states, reverse = integrated(true)}

return M
