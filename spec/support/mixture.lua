-- Gaussian mixtures as denoisers: the exact prediction of ε, D, v or flow for data from Σ πₖ N(μₖ, sₖ²), written in
-- tide's operations, and what the probability flow makes of one dimension in closed form.

local tide = require "tide"

local M = {}

--- A denoiser model(x, t, condition) for x of N×d. o: weights (a table), means (a K×d tensor, which may require
-- gradients), sd (a table), schedule, prediction ("epsilon"). A condition, a K×d tensor, replaces the means.
function M.denoiser(o)
  local k = #o.weights
  local kind = o.prediction or "epsilon"
  return function(x, t, condition)
    local alpha, sigma = o.schedule:alpha(t:item()), o.schedule:sigma(t:item())
    local means = condition or o.means
    local logits, pushes = {}, {}
    for i = 1, k do
      local v = alpha ^ 2 * o.sd[i] ^ 2 + sigma ^ 2
      local away = x - means[i] * alpha
      pushes[i] = away / v
      logits[i] = (away ^ 2):sum(2, true) * (-0.5 / v) + (math.log(o.weights[i]) - 0.5 * x:size(2) * math.log(v))
    end
    local r = tide.cat(logits, 2):softmax(2)
    local function mean_of(f)
      local mean
      for i = 1, k do
        local part = f(i) * r[{{}, {i, i}}]
        mean = mean and mean + part or part
      end
      return mean
    end
    local eps = mean_of(function(i) return pushes[i] end) * sigma
    if kind == "epsilon" then return eps end
    local data = mean_of(function(i) return means[i] + pushes[i] * (alpha * o.sd[i] ^ 2) end)
    if kind == "x0" then return data end
    return kind == "flow" and eps - data or eps * alpha - data * sigma
  end
end

-- ---- One dimension (T2): the flow carries every quantile along ----

local function erfc(x)  -- by tide's own, in double precision
  return tide.erfc(tide.tensor(x, "float64")):item()
end

local function density(x, mean, variance)
  return math.exp(-(x - mean) ^ 2 / (2 * variance)) / math.sqrt(2 * math.pi * variance)
end

--- Quantities of a 1-d mixture {weights, means, sd} (tables of numbers) at (alpha, sigma): cdf(x), tail(x) = 1 − cdf,
-- pdf(x), and the derivative of the cdf in μₖ.
function M.marginal(m, alpha, sigma)
  local self = {}
  local function sum(f)
    local total = 0
    for k, w in ipairs(m.weights) do
      total = total + w * f(alpha * m.means[k], alpha ^ 2 * m.sd[k] ^ 2 + sigma ^ 2)
    end
    return total
  end
  function self.cdf(x) return sum(function(mu, v) return 0.5 * erfc(-(x - mu) / math.sqrt(2 * v)) end) end
  function self.tail(x) return sum(function(mu, v) return 0.5 * erfc((x - mu) / math.sqrt(2 * v)) end) end
  function self.pdf(x) return sum(function(mu, v) return density(x, mu, v) end) end
  function self.cdf_by_mean(x, k)
    local v = alpha ^ 2 * m.sd[k] ^ 2 + sigma ^ 2
    return -alpha * m.weights[k] * density(x, alpha * m.means[k], v)
  end
  return self
end

--- The end of the flow from x at `from` to `to` (both {alpha, sigma}), dx_to/dx_from, and dx_to/dμₖ as a table.
function M.flow(m, x, from, to)
  local a, b = M.marginal(m, from.alpha, from.sigma), M.marginal(m, to.alpha, to.sigma)
  local lower = a.cdf(x) < 0.5
  local level = lower and a.cdf(x) or a.tail(x)
  local function gap(y)
    if lower then return b.cdf(y) - level end
    return level - b.tail(y)
  end
  local low, high = -60, 60
  for _ = 1, 200 do
    local middle = (low + high) / 2
    if gap(middle) > 0 then high = middle else low = middle end
  end
  local y = (low + high) / 2
  local by_mean = {}
  for k = 1, #m.weights do by_mean[k] = (a.cdf_by_mean(x, k) - b.cdf_by_mean(y, k)) / b.pdf(y) end
  return y, a.pdf(x) / b.pdf(y), by_mean
end

return M
