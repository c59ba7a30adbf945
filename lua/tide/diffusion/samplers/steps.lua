-- One-step formulas that several samplers use: x goes from the point s to the cleaner point t, h = λ_t − λ_s. They give
-- expressions of a plan.

local numbers = require "tide.diffusion.numbers"

local M = {}
local expm1, phi = numbers.expm1, numbers.phi

--- α_t·D + σ_t·ε: DDIM, DPM-Solver-1 and DPM-Solver++1 are this step.
function M.first_order(plan, x, s, t)
  return t.alpha * plan:data(x, s) + t.sigma * plan:epsilon(x, s)
end

--- (α_t/α_s)·x − σ_t·expm1(h)·ε.
function M.by_noise(x, epsilon, s, t)
  return x * (t.alpha / s.alpha) + epsilon * (t.sigma - t.alpha * s.sigma / s.alpha)
end

--- (σ_t/σ_s)·x − α_t·expm1(−h)·D.
function M.by_data(x, data, s, t)
  return x * (t.sigma / s.sigma) + data * (t.alpha - s.alpha * t.sigma / s.sigma)
end

--- The point with λ a share r of the way from s to t.
function M.between(plan, s, t, r)
  return plan.schedule:node_at(s.lambda + r * (t.lambda - s.lambda))
end

--- DPM-Solver-2 with its point at half the step: Lu et al. 2022, algorithm 1.
function M.second_order(plan, x, s, t)
  local m = M.between(plan, s, t, 0.5)
  local e = plan:epsilon(x, s)
  local u = plan:value(M.by_noise(x, e, s, m))
  return M.by_noise(x, e, s, t) - t.sigma * expm1(t.lambda - s.lambda) * (plan:epsilon(u, m) - e)
end

--- DPM-Solver-3 with points at thirds: Lu et al. 2022, algorithm 2.
function M.third_order(plan, x, s, t)
  local h, r1, r2 = t.lambda - s.lambda, 1 / 3, 2 / 3
  local a, b = M.between(plan, s, t, r1), M.between(plan, s, t, r2)
  local e = plan:epsilon(x, s)
  local u = plan:value(M.by_noise(x, e, s, a))
  local first = plan:epsilon(u, a) - e
  local v = plan:value(M.by_noise(x, e, s, b) - b.sigma * (r2 / r1) * phi(r2 * h) * first)
  return M.by_noise(x, e, s, t) - (t.sigma / r2) * phi(h) * (plan:epsilon(v, b) - e)
end

local by_order = {M.first_order, M.second_order, M.third_order}

--- The one-step formula of an order; to a point without noise, the first.
function M.single(plan, x, s, t, order)
  return (t.sigma == 0 and M.first_order or by_order[order])(plan, x, s, t)
end

--- build(plan, o) that goes through the points by step(plan, x, s, t, i, o) → expression.
function M.walk(step)
  return function(plan, o)
    local x = plan.start
    for i = 1, #plan.nodes - 1 do x = plan:state(step(plan, x, plan.nodes[i], plan.nodes[i + 1], i, o)) end
    return x
  end
end

--- The same for multistep formulas: step(plan, x, s, t, history, o), where history[1] = {x, node} is the present point
--- and history[2], … those before. The first points are reached by one-step formulas of order o.start (1) until
--- there are `needed(o)` points.
function M.walk_multistep(needed, step)
  return function(plan, o)
    local x, history = plan.start, {}
    for i = 1, #plan.nodes - 1 do
      local s, t = plan.nodes[i], plan.nodes[i + 1]
      table.insert(history, 1, {x = x, node = s})
      local e
      if t.sigma == 0 and not o.to_the_end then e = M.first_order(plan, x, s, t)
      elseif #history < needed(o) and o.start and o.start > 1 then e = M.single(plan, x, s, t, o.start)
      else e = step(plan, x, s, t, history, o) end
      x = plan:state(e)
    end
    return x
  end
end

return M
