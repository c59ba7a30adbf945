-- Multistep samplers that interpolate the network's values: DEIS, LMS, PLMS, UniP and UniPC.

local numbers = require "tide.diffusion.numbers"
local steps = require "tide.diffusion.samplers.steps"

local M = {}
local expm1 = numbers.expm1

-- ---- Lagrange interpolation of ε, integrated exactly ----

-- Coefficients of the polynomial in z that is 1 at zs[j] and 0 at the others, from the constant on.
local function lagrange(zs, j)
  local c, scale = {1}, 1
  for k, z in ipairs(zs) do
    if k ~= j then
      scale = scale / (zs[j] - z)
      local next_c = {0}
      for i = 1, #c do next_c[i + 1] = c[i] end
      for i = 1, #c do next_c[i] = next_c[i] - z * c[i] end
      c = next_c
    end
  end
  for i = 1, #c do c[i] = c[i] * scale end
  return c
end

-- x_t = α_t·(x/α_s + Σ Cⱼ εⱼ), Cⱼ = ∫ ℓⱼ dσ̂ from s to t; coordinate(node, s, t) is the z of a point, and
-- moment(n, s, t) the integral of zⁿ.
local function interpolated(coordinate, moment)
  return function(plan, x, s, t, history, o)
    local zs = {}
    for k = 1, math.min(o.order, #history) do zs[k] = coordinate(history[k].node, s, t) end
    local sum = x / s.alpha
    for j = 1, #zs do
      local weight = 0
      for n, c in ipairs(lagrange(zs, j)) do weight = weight + c * moment(n - 1, s, t) end
      sum = sum + weight * plan:epsilon(history[j].x, history[j].node)
    end
    return sum * t.alpha
  end
end

local function order_of(o) return o.order end

-- Zhang and Chen 2023; polynomials in log σ̂: z = log(σ̂/σ̂_t), dσ̂ = σ̂_t·e^z dz.
M.deis = {
  source = "Zhang and Chen 2023, DEIS (polynomials in log σ̂)", order = 3, options = {order = 3, start = 1},
  build = steps.walk_multistep(order_of, interpolated(
    function(node, _, t) return t.lambda - node.lambda end,
    function(n, s, t) return -t.ratio * numbers.moment(n, t.lambda - s.lambda) end)),
}

-- Polynomials in σ̂ with weights for the steps as they are: z = σ̂ − σ̂_s.
M.lms = {
  source = "linear multistep in σ̂ (Zhang and Chen 2023, ρAB)", order = 4, options = {order = 4, start = 1},
  build = function(plan, o)
    o.to_the_end = true
    return steps.walk_multistep(order_of, interpolated(
      function(node, s) return node.ratio - s.ratio end,
      function(n, s, t) return (t.ratio - s.ratio) ^ (n + 1) / (n + 1) end))(plan, o)
  end,
}

-- Liu et al. 2022: constant Adams–Bashforth weights on ε in a DDIM step. The weights suit equal steps only, so the
-- order is 2. With warm = true the first step is taken twice, the second time with the mean of both ends' ε.
local adams = {{1}, {3 / 2, -1 / 2}, {23 / 12, -16 / 12, 5 / 12}, {55 / 24, -59 / 24, 37 / 24, -9 / 24}}
M.plms = {
  source = "Liu et al. 2022, PNDM", order = 2, options = {warm = false},
  build = steps.walk_multistep(function() return 1 end, function(plan, x, s, t, history, o)
    if #history == 1 and o.warm then
      local e = plan:epsilon(x, s)
      local ahead = plan:value(steps.by_noise(x, e, s, t))
      return steps.by_noise(x, (e + plan:epsilon(ahead, t)) / 2, s, t)
    end
    local sum
    for j, w in ipairs(adams[math.min(#history, 4)]) do
      local e = w * plan:epsilon(history[j].x, history[j].node)
      sum = sum and sum + e or e
    end
    return steps.by_noise(x, sum, s, t)
  end),
}

-- ---- UniPC: Zhao et al. 2023 ----

-- x with A·x = b, by elimination with pivots; n is at most 4.
local function solve(a, b)
  local n = #b
  for j = 1, n do
    local p = j
    for i = j + 1, n do if math.abs(a[i][j]) > math.abs(a[p][j]) then p = i end end
    a[j], a[p], b[j], b[p] = a[p], a[j], b[p], b[j]
    for i = j + 1, n do
      local f = a[i][j] / a[j][j]
      for k = j, n do a[i][k] = a[i][k] - f * a[j][k] end
      b[i] = b[i] - f * b[j]
    end
  end
  local x = {}
  for i = n, 1, -1 do
    local sum = b[i]
    for k = i + 1, n do sum = sum - a[i][k] * x[k] end
    x[i] = sum / a[i][i]
  end
  return x
end

-- ψ_{n+1}(z) = Σ z^{j−n+1}/(j+1)! over j ≥ n.
local function psi(n, z)
  if math.abs(z) < 1 then return numbers.series(z, n) / z ^ (n - 1) end
  local value, factorial = expm1(z) / z - 1, 1
  for k = 2, n do
    factorial = factorial * k
    value = value / z - 1 / factorial
  end
  return value
end

-- The weights for differences at the shares r of the step; one alone gets ½.
local function unified_weights(r, z, scale)
  if #r == 1 then return {0.5} end
  local a, b, factorial = {}, {}, 1
  for n = 1, #r do
    factorial = factorial * n
    a[n], b[n] = {}, factorial * psi(n, z) / scale
    for k = 1, #r do a[n][k] = r[k] ^ (n - 1) end
  end
  return solve(a, b)
end

-- The prediction from s to t with `differences` {share r, expression (m_r − m_s)/r}.
local function unified(x, m, s, t, differences, o)
  local h = t.lambda - s.lambda
  local data = o.form == "x0"
  local z = data and -h or h
  local scale = o.variant == "bh1" and z or expm1(z)
  local e = data and steps.by_data(x, m, s, t) or steps.by_noise(x, m, s, t)
  if #differences == 0 then return e end
  local r = {}
  for k, d in ipairs(differences) do r[k] = d.r end
  local c = data and t.alpha or t.sigma
  for k, w in ipairs(unified_weights(r, z, scale)) do e = e - (c * scale * w) * differences[k].e end
  return e
end

-- The history holds the network's values as they were first computed, m = D or ε, by {m, node}.
local function differences_of(history, count, s, t)
  local list = {}
  for k = 1, count do
    local r = (history[k + 1].node.lambda - s.lambda) / (t.lambda - s.lambda)
    list[k] = {r = r, e = (history[k + 1].m - history[1].m) / r}
  end
  return list
end

-- The step to a point without noise is of first order.
local function last_step(x, m, s, t, o)
  return o.form == "x0" and m * t.alpha or steps.by_noise(x, m, s, t)
end

local function unified_sampler(corrects)
  return function(plan, o)
    local function value_of(x, node)
      if o.form == "x0" then return plan:data(x, node) end
      return plan:epsilon(x, node)
    end
    local x, history, steps_left = plan.start, {}, #plan.nodes - 1
    for i = 1, steps_left do
      local s, t = plan.nodes[i], plan.nodes[i + 1]
      if not (history[1] and history[1].node == s) then
        table.insert(history, 1, {m = value_of(x, s), node = s})
      end
      if t.sigma == 0 then
        x = plan:state(last_step(x, history[1].m, s, t, o))
      elseif #history < o.order and o.start > 1 then
        x = plan:state(steps.single(plan, x, s, t, o.start))
      else
        local order = math.min(o.order, #history)
        local known = differences_of(history, order - 1, s, t)
        local ahead = plan:value(unified(x, history[1].m, s, t, known, o))
        if corrects and i < steps_left then
          local m = value_of(ahead, t)
          known[#known + 1] = {r = 1, e = m - history[1].m}
          x = plan:state(unified(x, history[1].m, s, t, known, o))
          table.insert(history, 1, {m = m, node = t})
        else
          x = plan:state(ahead)
        end
      end
    end
    return x
  end
end

M.unip = {
  source = "Zhao et al. 2023, UniPC", order = 2, form = "x0",
  options = {order = 2, variant = "bh2", form = "x0", start = 1}, build = unified_sampler(false),
}
M.unipc = {
  source = "Zhao et al. 2023, UniPC", order = 3, form = "x0",
  options = {order = 2, variant = "bh2", form = "x0", start = 1}, build = unified_sampler(true),
}

return M
