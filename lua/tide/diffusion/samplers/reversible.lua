-- Samplers whose steps can be inverted exactly, so that the reverse pass needs no stored latents. Each sum that can be
-- inverted says which of its values it gives back.

local message = require "tide.message"
local steps = require "tide.diffusion.samplers.steps"

local M = {}

-- Coefficients of a DDIM step from the point i to any other point j: x_j = A·x_i + B·ε_i.
local function transfer(i, j) return j.alpha / i.alpha, j.sigma - j.alpha * i.sigma / i.alpha end

local function want_data_in_start(plan, name)
  if plan.nodes[1].alpha == 0 then
    message.raise("diffusion.sample: sampler %q needs α > 0 at its first point; give timesteps that begin later", name)
  end
end

-- The two-step methods: next(i, before, x) → expression of the state after x, given the one before it.
local function two_step(name, next_state)
  return function(plan, o)
    want_data_in_start(plan, name)
    local nodes, before = plan.nodes, plan.start
    local x = plan:state(steps.first_order(plan, before, nodes[1], nodes[2]))
    for i = 2, #nodes - 1 do
      local after = plan:state(next_state(plan, nodes[i - 1], nodes[i], nodes[i + 1], before, x, o), before)
      before, x = x, after
    end
    plan:keep(before)
    plan:keep(x)
    return x
  end
end

-- Zhang, Lewis, Kleijn 2023; of second order with gamma = 1.
M.bdia = {
  source = "Zhang, Lewis, Kleijn 2023, BDIA, equation 14", order = 2, options = {gamma = 1},
  own_start = true,
  growth = function(o, n) return o.gamma ^ -n end,
  build = two_step("bdia", function(plan, p, s, t, before, x, o)
    local a, b = transfer(s, t)
    local c, d = transfer(s, p)
    return o.gamma * before + (a - o.gamma * c) * x + (b - o.gamma * d) * plan:epsilon(x, s)
  end),
}

-- Wang et al. 2024; of second order.
M.o_belm = {
  source = "Wang et al. 2024, O-BELM", order = 2, own_start = true,
  build = two_step("o_belm", function(plan, p, s, t, before, x)
    local d1, d2, d3 = s.ratio - p.ratio, t.ratio - s.ratio, t.ratio - p.ratio
    return t.alpha * ((d2 * d3 / d1) * plan:epsilon(x, s) + (d2 / d1) ^ 2 / p.alpha * before
      + ((d1 - d2) * d3 / d1 ^ 2) / s.alpha * x)
  end),
}

-- Wallace, Gokul, Naik 2023: two chains, each moved with the other's ε, then mixed.
M.edict = {
  source = "Wallace, Gokul, Naik 2023, EDICT", order = 1, options = {mix = 0.93},
  own_start = true,
  growth = function(o, n) return o.mix ^ (-2 * n) end,
  build = function(plan, o)
    want_data_in_start(plan, "edict")
    local p, x, y = o.mix, plan.start, plan.start
    for i = 1, #plan.nodes - 1 do
      local s, t = plan.nodes[i], plan.nodes[i + 1]
      local a, b = transfer(s, t)
      local u = plan:value(a * x + b * plan:epsilon(y, s), x)
      local v = plan:value(a * y + b * plan:epsilon(u, s), y)
      x = plan:value(p * u + (1 - p) * v, u)
      y = plan:value(p * v + (1 - p) * x, v)
      plan:state(x)
    end
    plan:keep(x)
    plan:keep(y)
    return x
  end,
}

-- McCallum and Foster 2024 around Euler or the midpoint rule in σ̂. y and z are kept as x at their point.
local increments = {}
function increments.euler(plan, x, s, t) return (t.ratio - s.ratio) * plan:epsilon(x, s) end
function increments.midpoint(plan, x, s, t)
  local m = plan.schedule:node_at(-math.log((s.ratio + t.ratio) / 2))
  local u = plan:value(m.alpha * (x / s.alpha + (m.ratio - s.ratio) * plan:epsilon(x, s)))
  return (t.ratio - s.ratio) * plan:epsilon(u, m)
end

M.mf = {
  source = "McCallum and Foster 2024, reversible coupling", order = 2, options = {coupling = 0.999, base = "midpoint"},
  own_start = true,
  growth = function(o, n) return o.coupling ^ -n end,
  build = function(plan, o)
    want_data_in_start(plan, "mf")
    local increment = increments[o.base]
    local y, z, zeta = plan.start, plan.start, o.coupling
    for i = 1, #plan.nodes - 1 do
      local s, t = plan.nodes[i], plan.nodes[i + 1]
      if t.sigma == 0 then  -- no network there: the last step is of first order, and is not inverted
        plan:keep(y)
        plan:keep(z)
        return plan:state(steps.first_order(plan, y, s, t))
      end
      local next_y = t.alpha * ((zeta / s.alpha) * y + ((1 - zeta) / s.alpha) * z + increment(plan, z, s, t))
      y = plan:value(next_y, y)
      z = plan:value(t.alpha * (z / s.alpha - increment(plan, y, t, s)), z)
      plan:state(y)
    end
    plan:keep(y)
    plan:keep(z)
    return y
  end,
}

return M
