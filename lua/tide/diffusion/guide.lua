-- Guidance on intermediate states by any differentiable loss: at a state x_t, the rest of the way is sampled in a few
-- steps, and the gradient of the loss at its end, through those steps, moves the state. Pan et al. 2023, arXiv
-- 2312.12030, where the gradient is a symplectic adjoint; here it is the discrete one, which is the same thing.

local autograd = require "tide.autograd"
local core = require "tide.core"
local known_options = require "tide.diffusion.known_options"
local message = require "tide.message"
local options = require "tide.options"
local sampling = require "tide.diffusion.sample"
local schedules = require "tide.diffusion.schedule"
local tensors = require "tide.tensor"
local values = require "tide.values"

local M = {}
local raise, is_tensor, none = message.raise, tensors.is_tensor, options.none

local known = {
  schedule = "linear", steps = 50, spacing = none, substeps = 4, subsampler = "ddim", from = none, to = none,
  strength = 1, repeats = 1, noise = none, sampling = none, callback = none,
}

local rules = {
  steps = values.whole(1), substeps = values.whole(1), from = values.whole(1), to = values.whole(1),
  strength = values.not_negative, repeats = values.whole(1), noise = values.generator, sampling = values.options,
  callback = values.callable "a function callback(step, steps, node, x, loss)",
}

-- Options of diffusion.sample that guide sets itself.
local taken = {}
for _, name in ipairs {"schedule", "steps", "spacing", "sampler", "timesteps", "sigmas", "final", "grad", "callback"} do
  taken[name] = true
end

local function checked(opts)
  local fname = "diffusion.guide"
  for key in pairs(type(opts) == "table" and opts or {}) do
    if known[key] == nil and known_options.is_option(key) and not taken[key] then
      raise("%s: %s is an option of diffusion.sample, give it in sampling = {%s = …}", fname, key, key)
    end
  end
  local o = values.check(fname, options.check(fname, opts, known), rules)
  for key in pairs(o.sampling or {}) do
    if taken[key] then raise("%s: sampling has %s, which guide sets itself", fname, key) end
  end
  o.from = o.from or math.floor(0.3 * o.steps) + 1
  o.to = o.to or math.max(o.from, math.floor(0.7 * o.steps))
  if o.from > o.to or o.to > o.steps then
    raise("%s: steps %d to %d of %d are guided, expected from ≤ to ≤ steps", fname, o.from, o.to, o.steps)
  end
  return o
end

local function rms(x)
  local dims = {}
  for i = 2, x.ndim do dims[#dims + 1] = i end
  return core.sqrt(core.sum(core.square(x), dims, true) / (x.numel / x:size(1)))
end

-- n times from t down, at equal distances, the last one above the schedule's end; from there, that one.
local function times_from(schedule, t, n)
  if t <= schedule.first then return {t} end
  local list = {}
  for k = 0, n - 1 do list[k + 1] = t + k / n * (schedule.first - t) end
  return list
end

local function with(base, more)
  local o = {}
  for k, v in pairs(base or {}) do o[k] = v end
  for k, v in pairs(more) do o[k] = v end
  return o
end

-- The gradient at x of the loss of what the rest of the way, in o.substeps steps, makes of it.
local function ahead(model, x, node, schedule, loss, o)
  return autograd.enable_grad(function()
    local point = x:detach():requires_grad()
    local out = sampling.sample(model, point, with(o.sampling, {
      schedule = schedule, sampler = o.subsampler, timesteps = times_from(schedule, node.t, o.substeps),
    }))
    local value = loss(out.x0)
    if not is_tensor(value) or value.numel ~= 1 then
      raise("diffusion.guide: the loss gave %s, expected a tensor of one element",
        is_tensor(value) and "shape (" .. message.shape(value) .. ")" or "a " .. type(value))
    end
    if not values.is_finite(value:detach()) then
      raise("diffusion.guide: the loss is %g at t = %g, σ = %.6g", value:item(), node.t, node.sigma)
    end
    if not value.needs_grad then raise("diffusion.guide: the loss does not depend on the sample") end
    return autograd.gradients(value, {point})[1], value:item()
  end)
end

-- Noise added to x at t so that it is a state at s.
local function noised_again(x, t, s, g)
  local scale = s.alpha / t.alpha
  local up = math.sqrt(math.max(0, s.sigma ^ 2 - (scale * t.sigma) ^ 2))
  return x * scale + g:randn(x.shape, x.dtype) * up
end

--- diffusion.guide(model, x_T, loss, opts): a sample that loss(x0) has guided on its way. See
--- doc/api/diffusion_tasks.lua.
function M.guide(model, x, loss, opts)
  values.check_callable("diffusion.guide", "the loss", loss, "loss(x0)")
  local o = checked(opts)
  values.check_real("diffusion.guide", "x_T", x)
  local schedule = schedules.Schedule(o.schedule)
  local nodes = schedule:nodes {steps = o.steps, spacing = o.spacing}
  local g = o.noise or require("tide.random").default_generator()
  local losses = {}
  x = x:detach()
  for i = 1, #nodes - 1 do
    local s, t = nodes[i], nodes[i + 1]
    local guided = i >= o.from and i <= o.to
    local value
    for again = 1, guided and o.repeats or 1 do
      local push
      if guided then push, value = ahead(model, x, s, schedule, loss, o) end
      local next_x = sampling.sample(model, x, with(o.sampling, {
        schedule = schedule, sampler = "ddim", sigmas = {s.ratio, t.ratio}, final = "none", grad = "none",
      })).x0
      if push then
        losses[#losses + 1] = value
        local size = rms(next_x - x) / core.maximum(rms(push), 1e-30)
        next_x = next_x - push * (size * o.strength)
      end
      if guided and again < o.repeats then x = noised_again(next_x, t, s, g) else x = next_x end
    end
    if o.callback then o.callback(i, #nodes - 1, t, x, value) end
  end
  return {x0 = x, losses = losses}
end

return M
