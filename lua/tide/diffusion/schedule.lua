-- Noise schedules: α(t) and σ(t) of x_t = α·x0 + σ·ε, with λ = log(α/σ) and σ̂ = σ/α, over the times that the
-- network was trained with; and the grids of times that samplers walk on.
--
-- A schedule is made of λ(t) and its inverse; everything else follows from λ and the kind: "vp" (α² + σ² = 1),
-- "flow" (α + σ = 1) or "ve" (α = 1).

local core = require "tide.core"
local grid = require "tide.diffusion.grid"
local message = require "tide.message"
local numbers = require "tide.diffusion.numbers"
local options = require "tide.options"
local prediction = require "tide.diffusion.prediction"
local tensors = require "tide.tensor"
local values = require "tide.values"

local M = {}
local raise = message.raise
local exp, log, sqrt, floor, huge = math.exp, math.log, math.sqrt, math.floor, math.huge

local Schedule = {}
Schedule.__index = Schedule

-- ---- α and σ from λ ----

-- α and σ with λ = log(α/σ), without cancellation at either end.
local shapes = {
  vp = function(lambda) return 1 / sqrt(1 + exp(-2 * lambda)), 1 / sqrt(1 + exp(2 * lambda)) end,
  flow = function(lambda) return 1 / (1 + exp(-lambda)), 1 / (1 + exp(lambda)) end,
  ve = function(lambda) return 1, exp(-lambda) end,
}

-- ---- The named schedules: each fills lambda_of, time_of, first and last (times), and perhaps more ----

-- λ at whole times from log ᾱ at whole times (a table from 1), linear between them.
local function tabulated(self, log_alpha_bar)
  local lambdas, n = {}, #log_alpha_bar
  for i, l in ipairs(log_alpha_bar) do lambdas[i] = 0.5 * (l - log(-numbers.expm1(l))) end
  self.kind, self.first, self.last, self.lambdas = "vp", 0, n - 1, lambdas
  self.lambda_of = function(t)
    local i = math.min(floor(t), n - 2)
    return lambdas[i + 1] + (t - i) * (lambdas[i + 2] - lambdas[i + 1])
  end
  self.time_of = function(lambda)  -- bisection in the descending table, then linear
    local low, high = 1, n
    while high - low > 1 do
      local middle = floor((low + high) / 2)
      if lambdas[middle] >= lambda then low = middle else high = middle end
    end
    return low - 1 + (lambda - lambdas[low]) / (lambdas[high] - lambdas[low])
  end
end

-- log ᾱ from β₁ … β_T.
local function from_betas(self, betas)
  local sums, total = {}, 0
  for i, b in ipairs(betas) do
    if not (type(b) == "number" and b > 0 and b < 1) then
      raise("Schedule: beta %d is %s, expected a number between 0 and 1", i, tostring(b))
    end
    total = total + numbers.log1p(-b)
    sums[i] = total
  end
  if #betas < 2 then raise("Schedule: %d betas, expected two or more", #betas) end
  tabulated(self, sums)
end

local function spread(n, first, last, f)
  local list = {}
  for i = 1, n do list[i] = f(first + (i - 1) / (n - 1) * (last - first)) end
  return list
end

local function same(x) return x end

local named = {}

function named.linear(self, o)
  from_betas(self, spread(o.steps, o.beta_start or 1e-4, o.beta_end or 0.02, same))
end

function named.scaled_linear(self, o)
  from_betas(self, spread(o.steps, sqrt(o.beta_start or 0.00085), sqrt(o.beta_end or 0.012),
    function(b) return b * b end))
end

-- Nichol and Dhariwal 2021, with the released bound on β.
function named.cosine(self, o)
  local function level(u) return math.cos((u + 0.008) / 1.008 * math.pi / 2) ^ 2 end
  local betas = {}
  for i = 1, o.steps do betas[i] = math.min(1 - level(i / o.steps) / level((i - 1) / o.steps), 0.999) end
  from_betas(self, betas)
end

function named.betas(self, o)
  if type(o.betas) ~= "table" then
    raise("Schedule: betas is %s, expected a list of numbers", o.betas == nil and "missing" or values.shown(o.betas))
  end
  from_betas(self, o.betas)
  self.steps = #o.betas
end

-- The continuous form of the linear schedule (Song et al. 2021): u = (t + 1)/T.
function named.vp(self, o)
  local b0, b1, n = o.beta_start or 0.1, o.beta_end or 20, o.steps
  self.kind, self.first, self.last = "vp", 0, n - 1
  self.lambda_of = function(t)
    local u = (t + 1) / n
    local log_alpha = -0.25 * u * u * (b1 - b0) - 0.5 * u * b0
    return log_alpha - 0.5 * log(-numbers.expm1(2 * log_alpha))
  end
  self.time_of = function(lambda)
    local l = numbers.softplus(-2 * lambda)
    return n * 2 * l / (sqrt(b0 * b0 + 2 * (b1 - b0) * l) + b0) - 1
  end
end

-- Rectified flow: σ = t/T. Time 0 is data, T is noise.
function named.flow(self, o)
  self.kind, self.first, self.last = "flow", 0, o.steps
  self.lambda_of = function(t) return log((o.steps - t) / t) end
  self.time_of = function(lambda) return o.steps / (1 + exp(lambda)) end
end

-- Karras et al. 2022: α = 1; the network's time is ¼·log σ.
function named.edm(self, o)
  local least, most = o.sigma_min or 0.002, o.sigma_max or 80
  if least >= most then raise("Schedule: sigma_min is %g, expected less than sigma_max, %g", least, most) end
  self.kind = "ve"
  self.first, self.last = log(least) / 4, log(most) / 4
  self.lambda_of = function(t) return -4 * t end
  self.time_of = function(lambda) return -lambda / 4 end
  self.spacing = "karras"
end
named.karras = named.edm
function named.exponential(self, o)
  named.edm(self, o)
  self.spacing = "exponential"
end

-- Options of all, and of single ones, with the rules of their values.
local common = {steps = 1000, prediction = options.none}
local with_betas = {beta_start = options.none, beta_end = options.none}
local with_sigmas = {sigma_min = options.none, sigma_max = options.none}
local own_options = {
  linear = with_betas, scaled_linear = with_betas, vp = with_betas, cosine = {}, betas = {betas = options.none},
  flow = {shift = 1}, edm = with_sigmas, karras = with_sigmas, exponential = with_sigmas,
}
local rules = {
  steps = values.whole(2), beta_start = values.positive, beta_end = values.positive, sigma_min = values.positive,
  sigma_max = values.positive, shift = values.positive,
}

local function checked_options(name, opts)
  local known = {}
  for _, set in ipairs {common, own_options[name]} do
    for k, v in pairs(set) do known[k] = v end
  end
  return values.check("Schedule", options.check(("Schedule %q"):format(name), opts, known), rules)
end

--- diffusion.Schedule(name, opts): "linear" (DDPM), "scaled_linear" (Stable Diffusion), "cosine", "vp" (continuous
--- linear), "betas" (a table of one's own), "flow" (rectified flow), "edm" or "karras" (α = 1, Karras steps),
--- "exponential" (α = 1, log-uniform steps). Options: steps 1000 (times of training), beta_start, beta_end, betas,
--- sigma_min and sigma_max (edm), shift 1 (flow: σ ← kσ/(1 + (k−1)σ) on the grid), prediction (what networks on
--- this schedule predict: "epsilon", on a flow "flow").
function M.Schedule(name, opts)
  if getmetatable(name) == Schedule then return name end
  if type(name) == "table" and opts == nil then
    local o = {}
    for k, v in pairs(name) do o[k] = v end
    name, o.name, opts = o.name, nil, o
  end
  if not named[name] then
    raise("Schedule: unknown schedule %s%s", values.shown(name), options.choices(name, named))
  end
  local o = checked_options(name, opts)
  local self = setmetatable({name = name, steps = o.steps, shift = o.shift or 1, spacing = "trailing"}, Schedule)
  named[name](self, o)
  self.prediction = prediction.check("Schedule", o.prediction or self.kind == "flow" and "flow" or "epsilon")
  return self
end

--- Is x a schedule?
function M.is_schedule(x) return getmetatable(x) == Schedule end

function Schedule:__tostring()
  local lo, hi = self:node(self.last), self:node(self.kind == "flow" and 1 or self.first)
  return ("Schedule %s: times %g to %g, σ̂ from %.6g to %.6g, predicts %s"):format(self.name, self.first, self.last,
    hi.ratio, lo.ratio, self.prediction)
end

-- ---- At a time ----

-- f of a number; or of every element of a tensor of times, as a tensor of the given (or the times') type.
local function each(t, f, dtype)
  if type(t) == "number" then return f(t) end
  if not tensors.is_tensor(t) then raise("Schedule: a time is a %s, expected a number or a tensor", type(t)) end
  local flat, out = core.reshape(t:detach(), -1):totable(), {}
  for i, v in ipairs(flat) do out[i] = f(v) end
  return core.reshape(core.tensor(out, dtype or (t.dtype == "float64" and "float64" or "float32")), t.shape)
end

local function checked_time(self, t)
  if type(t) ~= "number" then raise("Schedule: a time is a %s, expected a number", type(t)) end
  if not (t >= self.first - 1e-9 and t <= self.last + 1e-9) then
    raise("Schedule: time %g is outside of %g to %g", t, self.first, self.last)
  end
  return t
end

local function at(self, t, what, dtype)
  return each(t, function(v) return self:node(v)[what] end, dtype)
end

--- A point of the schedule: {t, lambda, alpha, sigma, ratio = σ/α}.
function Schedule:node(t)
  local lambda = self.lambda_of(checked_time(self, t))
  if self.kind == "flow" and t == 0 then lambda = huge end
  local alpha, sigma = shapes[self.kind](lambda)
  return {t = t, lambda = lambda, alpha = alpha, sigma = sigma, ratio = exp(-lambda)}
end

local function check_lambda(lambda)
  if type(lambda) ~= "number" or lambda ~= lambda then
    raise("Schedule: lambda is %s, expected a number", values.shown(lambda))
  end
end

--- The point with this λ; times beyond the ends of training are replaced by the ends.
function Schedule:node_at(lambda)
  check_lambda(lambda)
  local t = math.max(self.first, math.min(self.last, self.time_of(lambda)))
  local alpha, sigma = shapes[self.kind](lambda)
  return {t = t, lambda = lambda, alpha = alpha, sigma = sigma, ratio = exp(-lambda)}
end

--- α, σ, λ = log(α/σ) and σ̂ = σ/α at the time t: a number, or a tensor of times (then a tensor of its shape).
function Schedule:alpha(t, dtype) return at(self, t, "alpha", dtype) end
function Schedule:sigma(t, dtype) return at(self, t, "sigma", dtype) end
function Schedule:lambda(t, dtype) return at(self, t, "lambda", dtype) end
function Schedule:ratio(t, dtype) return at(self, t, "ratio", dtype) end

--- The time with this λ.
function Schedule:time(lambda)
  check_lambda(lambda)
  return self.time_of(lambda)
end

-- α and σ at N times (or one) in a shape that broadcasts against x of N×….
local function broadcast(self, x, t)
  if not tensors.is_tensor(x) then raise("Schedule: the images are a %s, expected a tensor", type(x)) end
  if type(t) == "number" then return self:alpha(t), self:sigma(t) end
  if not tensors.is_tensor(t) then raise("Schedule: a time is a %s, expected a number or a tensor", type(t)) end
  local shape = {t.numel}
  if t.numel ~= 1 and t.numel ~= x:size(1) then
    raise("Schedule: %d times for a batch of %d", t.numel, x:size(1))
  end
  for i = 2, x.ndim do shape[i] = 1 end
  return core.reshape(self:alpha(t, x.dtype), shape), core.reshape(self:sigma(t, x.dtype), shape)
end

--- α·x0 + σ·noise at the time t, or at one time for each of the batch.
function Schedule:add_noise(x0, noise, t)
  local alpha, sigma = broadcast(self, x0, t)
  return x0 * alpha + noise * sigma
end

--- What a network that predicts `kind` (the schedule's by default) should give at add_noise(x0, noise, t).
function Schedule:target(x0, noise, t, kind)
  local alpha, sigma = broadcast(self, x0, t)
  return prediction.target(kind or self.prediction, x0, noise, alpha, sigma)
end

--- The prediction p at (x, t) of kind `from`, as one of kind `to`: "epsilon", "x0", "v" or "flow".
function Schedule:convert(p, x, t, from, to)
  local alpha, sigma = broadcast(self, x, t)
  return prediction.convert(p, x, from, to, alpha, sigma)
end

--- A draw of where sampling starts: noise with the standard deviation of x at the last time.
function Schedule:noise(sizes, opts)
  if type(sizes) ~= "table" then raise("Schedule:noise: got a %s, expected a table of sizes", type(sizes)) end
  local o = options.check("Schedule:noise", opts, {generator = options.none, dtype = "float32"})
  values.check("Schedule:noise", o, {generator = values.generator})
  local g = o.generator or require("tide.random").default_generator()
  local x = g:randn(sizes, o.dtype)
  return self.kind == "ve" and x * self:sigma(self.last) or x
end

--- The points that a sampler of N steps walks on, from noise to data: N + 1 of them. See diffusion.sample for the
--- options spacing, final, timesteps, sigmas, offset and rho.
function Schedule:nodes(opts) return grid.nodes(self, opts) end

--- The N times that are visited, in descending order; options as of nodes.
function Schedule:timesteps(opts)
  local times = {}
  for i, node in ipairs(grid.nodes(self, opts)) do times[i] = node.t end
  return times
end

return M
