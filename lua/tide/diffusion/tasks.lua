-- What gradients through a sampler are for: optimising what a sample comes from under a metric, attacking a classifier
-- from within a bound, features' Gram matrices as a measure of style.

local autograd = require "tide.autograd"
local core = require "tide.core"
local message = require "tide.message"
local options = require "tide.options"
local known_options = require "tide.diffusion.known_options"
local sampling = require "tide.diffusion.sample"
local tensors = require "tide.tensor"
local values = require "tide.values"

local M = {}
local raise, is_tensor, none = message.raise, tensors.is_tensor, options.none

-- ---- Losses that are told apart from mistakes ----

-- The metric of a sample, one number on the tape and finite.
local function loss_of(fname, metric, out, iteration)
  local loss = metric(out.x0, out)
  if not is_tensor(loss) or loss.numel ~= 1 then
    raise("%s: the metric gave %s, expected a tensor of one element", fname,
      is_tensor(loss) and "shape (" .. message.shape(loss) .. ")" or "a " .. type(loss))
  end
  local value = loss:item()
  if value ~= value or math.abs(value) == math.huge then
    raise("%s: the loss is %g at iteration %d", fname, value, iteration)
  end
  return loss, value
end

-- Gradients of the loss for the targets; one that is not reached is a mistake.
local function gradients_of(fname, loss, targets)
  if not loss.needs_grad then
    raise("%s: the loss does not depend on the sample; was the metric computed under no_grad, or detached, "
      .. "or is grad \"none\"?", fname)
  end
  local grads = autograd.gradients(loss, targets)
  for i, g in ipairs(grads) do
    if not g then raise("%s: the loss does not depend on target %d through the sampler", fname, i) end
  end
  return grads
end

local function inner_dims(x)
  local dims = {}
  for i = 2, x.ndim do dims[#dims + 1] = i end
  return dims
end

-- The Euclidean norm of each of the batch, N×1×….
local function norms(x)
  local dims = inner_dims(x)
  if #dims == 0 then return core.abs(x) end
  return core.sqrt(core.sum(core.square(x), dims, true))
end

local metric_form = "metric(x0, out)"

-- ---- Optimising ----

-- Minus the log-density of r = |x|², as that of a standard normal x of d dims has it, over d: least at r = d − 2.
local function shell_penalty(x)
  local d = x.numel / x:size(1)
  local r = core.sum(core.square(x), inner_dims(x))
  return core.sum(r - core.log(r) * (d - 2)) / (2 * d * x:size(1))
end

-- The options over their defaults. Those of the sampler have a place of their own.
local function checked(fname, opts, defaults)
  for key in pairs(type(opts) == "table" and opts or {}) do
    if defaults[key] == nil and known_options.is_option(key) then
      raise("%s: %s is an option of diffusion.sample, give it in sampling = {%s = …}", fname, key, key)
    end
  end
  return options.check(fname, opts, defaults)
end

local function optimiser_of(fname, o, targets)
  if values.is_callable(o.optimiser) then
    local opt = o.optimiser(targets)
    if type(opt) ~= "table" or not opt.step or not opt.zero_grad then
      raise("%s: the function optimiser gave a %s, expected an optimiser", fname, type(opt))
    end
    return opt
  end
  local class = ({adam = "Adam", adamw = "AdamW", sgd = "SGD"})[o.optimiser]
  if not class then
    raise("%s: unknown optimiser %s, expected \"adam\", \"adamw\", \"sgd\" or a function of the targets that makes one",
      fname, values.shown(o.optimiser))
  end
  return require("tide.optim")[class](targets, {lr = o.lr})
end

-- The leaves that are changed: a list of tensors, or one.
local function targets_of(fname, o, x)
  if o.targets == nil then
    if not x.is_leaf then raise("%s: x_T is no leaf; call requires_grad() on it", fname) end
    return {x}
  end
  return is_tensor(o.targets) and {o.targets} or o.targets
end

local optimise_rules = {
  iterations = values.whole(1), keep_norm = values.flag, shell = values.not_negative, clip_grad = values.positive,
  sampling = values.options, callback = values.callable "a function callback(iteration, iterations, loss, out)",
}

local Optimised = {}
function Optimised:__tostring()
  return ("diffusion.optimise: metric %.5g before, %.5g after %d iterations\n  x0 (%s %s)"):format(self.before,
    self.after, #self.losses - 1, message.shape(self.x0), self.x0.dtype)
end

--- diffusion.optimise(model, x_T, metric, opts): changes x_T, or the leaves named in `targets`, in place so that
--- metric(x0, out), one number, becomes small. See doc/api/diffusion_tasks.lua.
function M.optimise(model, x, metric, opts)
  local fname = "diffusion.optimise"
  values.check_callable(fname, "the metric", metric, metric_form)
  local o = checked(fname, opts, {
    targets = none, iterations = 30, lr = 0.05, optimiser = "adam", keep_norm = true, shell = 0, clip_grad = none,
    sampling = none, callback = none,
  })
  values.check(fname, o, optimise_rules)
  values.check_real(fname, "x_T", x)
  local targets = targets_of(fname, o, x)
  local opt = optimiser_of(fname, o, targets)
  local moves_noise = false
  for _, t in ipairs(targets) do moves_noise = moves_noise or t == x end
  local radius = norms(x:detach())
  local losses = {}
  for i = 1, o.iterations do
    local total, value
    local out = autograd.enable_grad(function()
      local s = sampling.sample(model, x, o.sampling)
      total, value = loss_of(fname, metric, s, i)
      if moves_noise and o.shell > 0 then total = total + shell_penalty(x) * o.shell end
      return s
    end)
    losses[i] = value
    for k, g in ipairs(gradients_of(fname, total, targets)) do targets[k].grad = g end
    if o.clip_grad then require("tide.optim").clip_grad_norm(targets, o.clip_grad) end
    opt:step():zero_grad()
    if moves_noise and o.keep_norm then
      core.with_recording(false, function() x:mul_(radius / norms(x)) end)
    end
    if o.callback then o.callback(i, o.iterations, value, out) end
  end
  local final = core.with_recording(false, function()
    local s = sampling.sample(model, x, o.sampling)
    losses[#losses + 1] = select(2, loss_of(fname, metric, s, o.iterations + 1))
    return s
  end)
  return setmetatable({x0 = final.x0, losses = losses, out = final, before = losses[1], after = losses[#losses]},
    Optimised)
end

-- ---- Attacking from within a bound ----

-- x brought back to within the bound of `centre`.
local function bounded(x, centre, o)
  local away = x - centre
  if o.norm == "max" then return centre + core.clamp(away, -o.bound, o.bound) end
  return centre + away * core.minimum(o.bound / core.maximum(norms(away), 1e-30), 1)
end

-- A step of the given size along g: of every element (norm "max"), or of the whole.
local function direction(g, o)
  if o.norm == "max" then return core.sign(g) end
  return g / core.maximum(norms(g), 1e-30)
end

local attack_rules = {
  iterations = values.whole(1), norm = values.one_of("max", "l2"), bound = values.positive, step = values.positive,
  success = values.callable "a function success(x0)", sampling = values.options,
  callback = values.callable "a function callback(iteration, iterations, loss, found)",
}

-- Which samples the user's function takes for successes, N of 0 or 1.
local function successes(fname, success, x0, n)
  local s = success(x0)
  if not is_tensor(s) or s.numel ~= n then
    raise("%s: success gave %s, expected 0 or 1 for each of the batch of %d", fname, values.shown(s), n)
  end
  return core.reshape(s, n)
end

local function mask_like(mask, x)
  local shape = {x:size(1)}
  for i = 2, x.ndim do shape[i] = 1 end
  return core.reshape(core.to(mask, x.dtype), shape)
end

--- diffusion.attack(model, x_T, metric, opts): looks, from a batch of noises, for others within `bound` that make
--- metric(x0), one number for each of the batch, large. x_T is not changed. See doc/api/diffusion_tasks.lua.
function M.attack(model, x, metric, opts)
  local fname = "diffusion.attack"
  local o = checked(fname, opts, {
    bound = 0.1, norm = "max", step = 0.02, iterations = 30, success = none, sampling = none, callback = none,
  })
  values.check_callable(fname, "the metric", metric, metric_form)
  values.check(fname, o, attack_rules)
  values.check_real(fname, "x_T", x)
  local centre = x:detach():clone()  -- a copy: the bound stays where the noise began
  local now, found = centre, core.zeros({x:size(1)}, "uint8")
  local n, used, out = x:size(1), 0, nil
  local function look(point)
    out = sampling.sample(model, point, o.sampling)
    local m = metric(out.x0, out)
    if not is_tensor(m) or m.numel ~= n then
      raise("%s: the metric gave %s, expected one number for each of the batch of %d", fname,
        is_tensor(m) and "shape (" .. message.shape(m) .. ")" or "a " .. type(m), n)
    end
    if not values.is_finite(m:detach()) then raise("%s: the metric is not finite at iteration %d", fname, used + 1) end
    if o.success then found = core.logical_or(found, successes(fname, o.success, out.x0:detach(), n)) end
    return m
  end
  for i = 1, o.iterations do
    local point = now:detach():requires_grad()
    local loss = autograd.enable_grad(function() return core.sum(look(point)) end)
    if o.callback then o.callback(i, o.iterations, loss:item(), found) end
    if core.sum(found):item() == n then break end
    local g = gradients_of(fname, loss, {point})[1]
    local free = 1 - mask_like(found, x)
    now = bounded(now + direction(g, o) * free * o.step, centre, o)
    used = i
  end
  core.with_recording(false, look, now)
  local away = now - centre
  local flat = core.reshape(away, n, -1)
  return {
    x = now, x0 = out.x0:detach(), found = found, iterations = used,
    distance = core.reshape(norms(flat), n), largest = core.max(core.abs(flat), 2),
    rate = o.success and core.sum(found):item() / n or nil,
  }
end

-- ---- Style ----

--- diffusion.gram(features): Σ over positions of products of channels, N×C×C over N×H×W×C (or N×L×C), divided by the
--- number of positions. Gatys et al. 2016.
function M.gram(features)
  if not is_tensor(features) or (features.ndim ~= 4 and features.ndim ~= 3) then
    raise("diffusion.gram: the features are %s, expected N×H×W×C or N×L×C",
      is_tensor(features) and "of shape (" .. message.shape(features) .. ")" or "a " .. type(features))
  end
  local n, c = features:size(1), features:size(-1)
  local flat = core.reshape(features, n, -1, c)
  return core.mm(tensors.t(flat), flat) / flat:size(2)
end

return M
