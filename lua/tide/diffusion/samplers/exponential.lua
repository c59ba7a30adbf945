-- Samplers that solve the linear part of the flow exactly: DDIM, DPM-Solver, DPM-Solver++, DEIS, PLMS, UniPC.
-- x goes from the point s to the cleaner t; h = λ_t − λ_s.

local sqrt = math.sqrt

-- One first-order step from s to t: α_t·D + σ_t·ε.
local function first_order(plan, x, s, t)
  return t.alpha * plan:data(x, s) + t.sigma * plan:epsilon(x, s)
end

-- Σ over the points of a step function(plan, x, s, t, i) → expression of the next state.
local function steps(step)
  return function(plan, o)
    local x = plan.start
    for i = 1, #plan.nodes - 1 do x = plan:state(step(plan, x, plan.nodes[i], plan.nodes[i + 1], i, o)) end
    return x
  end
end

local samplers = {}

-- Song, Meng, Ermon 2021, equations 12 and 16: with eta = 1 the steps of DDPM.
samplers.ddim = {
  source = "Song, Meng, Ermon 2021", order = 1, options = {eta = 0},
  build = steps(function(plan, x, s, t, _, o)
    local rest = s.sigma ^ 2 - (s.alpha / t.alpha) ^ 2 * t.sigma ^ 2
    local up = o.eta * t.sigma / s.sigma * sqrt(math.max(rest, 0))
    if up == 0 then return first_order(plan, x, s, t) end
    local down = sqrt(t.sigma ^ 2 - up ^ 2)
    return t.alpha * plan:data(x, s) + down * plan:epsilon(x, s) + up * plan:noise()
  end),
}

samplers.dpm_solver_1 = {
  source = "Lu et al. 2022, DPM-Solver", order = 1, build = steps(first_order),
}

return samplers
