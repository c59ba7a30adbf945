-- Samplers that solve the linear part of the flow exactly: DDIM, DPM-Solver and DPM-Solver++.
-- x goes from the point s to the cleaner t; h = λ_t − λ_s.

local numbers = require "tide.diffusion.numbers"
local steps = require "tide.diffusion.samplers.steps"

local M = {}
local sqrt, exp = math.sqrt, math.exp
local expm1, phi = numbers.expm1, numbers.phi

-- Song, Meng, Ermon 2021, equations 12 and 16: with eta = 1 the steps of DDPM.
M.ddim = {
  source = "Song, Meng, Ermon 2021", order = 1, options = {eta = 0}, own_start = true,
  build = steps.walk(function(plan, x, s, t, _, o)
    local rest = s.sigma ^ 2 - (s.alpha / t.alpha) ^ 2 * t.sigma ^ 2
    local up = o.eta * t.sigma / s.sigma * sqrt(math.max(rest, 0))
    if up == 0 then return steps.first_order(plan, x, s, t) end
    local down = sqrt(t.sigma ^ 2 - up ^ 2)
    return t.alpha * plan:data(x, s) + down * plan:epsilon(x, s) + up * plan:noise()
  end),
}

for order = 1, 3 do
  M["dpm_solver_" .. order] = {
    source = "Lu et al. 2022, DPM-Solver", order = order,
    build = steps.walk(function(plan, x, s, t) return steps.single(plan, x, s, t, order) end),
  }
end

-- A budget of n evaluations as steps of order 3, the last one or two of less.
local function fast_intervals(n) return math.floor(n / 3) + 1 end

local function fast_order(n, left)
  local rest = n % 3
  if rest > 0 then return left == 0 and rest or 3 end
  return math.min(left + 1, 3)
end

-- `steps` is the number of evaluations. Where only the last points are walked on (strength), their orders stay.
M.dpm_solver_fast = {
  source = "Lu et al. 2022, DPM-Solver, section 3.4", order = 3, intervals = fast_intervals,
  build = steps.walk(function(plan, x, s, t, i)
    return steps.single(plan, x, s, t, fast_order(plan.budget, #plan.nodes - 1 - i))
  end),
}

-- The reverse SDE in noise form, first order.
M.dpm_solver_1_sde = {
  source = "Lu et al. 2022, DPM-Solver++, equation 18", order = 1,
  build = steps.walk(function(plan, x, s, t)
    if t.sigma == 0 then return steps.first_order(plan, x, s, t) end
    local h = t.lambda - s.lambda
    return x * (t.alpha / s.alpha) - 2 * t.sigma * expm1(h) * plan:epsilon(x, s)
      + t.sigma * sqrt(expm1(2 * h)) * plan:noise()
  end),
}

M.dpmpp_2s = {
  source = "Lu et al. 2022, DPM-Solver++, algorithm 1", order = 2, form = "x0",
  build = steps.walk(function(plan, x, s, t)
    local d = plan:data(x, s)
    if t.sigma == 0 then return d end
    local m = steps.between(plan, s, t, 0.5)
    local u = plan:value(steps.by_data(x, d, s, m))
    return steps.by_data(x, d, s, t) - t.alpha * expm1(s.lambda - t.lambda) * (plan:data(u, m) - d)
  end),
}

-- ---- Multistep in data form, deterministic (eta = 0) or of the reverse SDE ----

-- With k = (1 + eta)·h: (σ_t/σ_s)·e^(−eta·h)·x − α_t·expm1(−k)·D, and the noise of the SDE.
local function data_base(plan, x, s, t, d, eta)
  local h = t.lambda - s.lambda
  local e = x * (t.sigma / s.sigma * exp(-eta * h)) - t.alpha * expm1(-(1 + eta) * h) * d
  if eta > 0 then e = e + t.sigma * sqrt(-expm1(-2 * eta * h)) * plan:noise() end
  return e
end

-- expm1(−k)/k + 1, and that over k less ½.
local function weights(k)
  local phi2 = -phi(-k)
  return phi2, k < 0.5 and -numbers.series(-k, 2) / k or phi2 / k - 0.5
end

-- D at the k-th point of the history.
local function data_at(plan, history, k)
  return history[k] and plan:data(history[k].x, history[k].node)
end

local function step_2m(plan, x, s, t, history, o)
  local h, d, before = t.lambda - s.lambda, data_at(plan, history, 1), data_at(plan, history, 2)
  local e = data_base(plan, x, s, t, d, o.eta)
  if not before then return e end
  local r, k = (s.lambda - history[2].node.lambda) / h, (1 + o.eta) * h
  local weight = o.variant == "heun" and -phi(-k) / r or -expm1(-k) / (2 * r)
  return e + (t.alpha * weight) * (d - before)
end

-- The third order needs d2 = 2·(a − b)/(r0 + r1); the released codes have half of that, and are of second order.
local function step_3m(plan, x, s, t, history, o)
  local d, second, third = data_at(plan, history, 1), data_at(plan, history, 2), data_at(plan, history, 3)
  if not third then return step_2m(plan, x, s, t, history, o) end
  local h = t.lambda - s.lambda
  local r0 = (s.lambda - history[2].node.lambda) / h
  local r1 = (history[2].node.lambda - history[3].node.lambda) / h
  local a, b = (d - second) / r0, (second - third) / r1
  local d1 = a + (r0 / (r0 + r1)) * (a - b)
  local d2 = (o.half and 1 or 2) / (r0 + r1) * (a - b)
  local phi2, phi3 = weights((1 + o.eta) * h)
  return data_base(plan, x, s, t, d, o.eta) + t.alpha * phi2 * d1 - t.alpha * phi3 * d2
end

local function multistep(order, step, given, more)
  local source = "Lu et al. 2022, DPM-Solver++"
  local s = {source = source, order = order, form = "x0", options = given}
  for k, v in pairs(more or {}) do s[k] = v end
  local walk = steps.walk_multistep(function() return order end, step)
  s.build = function(plan, o)
    for k, v in pairs(more and more.fixed or {}) do o[k] = v end
    return walk(plan, o)
  end
  return s
end

M.dpmpp_1 = multistep(1, step_2m, {eta = 0}, {fixed = {}})
M.dpmpp_1.build = steps.walk(function(plan, x, s, t, _, o)
  local d = plan:data(x, s)
  return t.sigma == 0 and d or data_base(plan, x, s, t, d, o.eta)
end)
M.dpmpp_2m = multistep(2, step_2m, {variant = "midpoint", start = 1}, {fixed = {eta = 0}})
M.dpmpp_3m = multistep(3, step_3m, {start = 1}, {fixed = {eta = 0}})
M.dpmpp_3m_released = multistep(3, step_3m, {start = 1}, {order = 2, fixed = {eta = 0, half = true},
  source = "the released codes of DPM-Solver, for comparison"})
M.dpmpp_2m_sde = multistep(2, step_2m, {eta = 1, variant = "midpoint"})
M.dpmpp_3m_sde = multistep(3, step_3m, {eta = 1})

return M
