-- The network as samplers see it: from model(x, t, condition) to a prediction of the kind that is asked for, with
-- classifier-free guidance, a classifier's gradient and clipping on the way. All of it is ordinary operations, so it
-- is on the tape when the tape records.

local autograd = require "tide.autograd"
local core = require "tide.core"
local message = require "tide.message"
local prediction = require "tide.diffusion.prediction"
local tensors = require "tide.tensor"

local M = {}
local raise, shape_of, is_tensor = message.raise, message.shape, tensors.is_tensor

local function call(model, x, node, condition)
  local p = model(x, core.tensor(node.t, x.dtype), condition)
  if not is_tensor(p) then raise("diffusion.sample: the model gave a %s, expected a tensor", type(p)) end
  if shape_of(p) ~= shape_of(x) then
    raise("diffusion.sample: the model gave shape (%s) for latents of shape (%s)", shape_of(p), shape_of(x))
  end
  if p.dtype ~= x.dtype then
    raise("diffusion.sample: the model gave %s for latents of %s", p.dtype, x.dtype)
  end
  return p
end

-- All dims but the first.
local function inner_dims(x)
  local dims = {}
  for i = 2, x.ndim do dims[#dims + 1] = i end
  return dims
end

-- The guided prediction with the spread of the conditional one, mixed in by `amount` (Lin et al. 2023, equation 16).
local function rescaled(guided, conditional, amount)
  local dims = inner_dims(guided)
  local factor = tensors.std(conditional, dims, true) / tensors.std(guided, dims, true)
  return guided * (factor * amount + (1 - amount))
end

-- u + w(c − u); w is a number or a tensor of one element.
local function guided(model, x, node, o)
  local c = call(model, x, node, o.condition)
  local u = call(model, x, node, o.negative)
  local p = u + (c - u) * o.guidance
  return o.rescale > 0 and rescaled(p, c, o.rescale) or p
end

-- ∇ₓ log p(y | x) of a classifier that gives one number, or one for each of the batch.
local function classifier_gradient(classifier, x, node)
  local t = core.tensor(node.t, x.dtype)
  local g = autograd.grad(function(y)
    local log_p = classifier(y, t)
    if not is_tensor(log_p) or (log_p.numel ~= 1 and log_p.numel ~= x:size(1)) then
      raise("diffusion.sample: the classifier gave %s, expected one log-probability for each of the batch",
        is_tensor(log_p) and "shape (" .. shape_of(log_p) .. ")" or "a " .. type(log_p))
    end
    return core.sum(log_p)
  end)(x)
  return core.recording() and g or g:detach()
end

local function convert(p, x, node, from, to)
  return prediction.convert(p, x, from, to, node.alpha, node.sigma)
end

--- A function (x, node, kind) → the prediction of that kind at x. o: prediction, condition, negative, guidance,
--- guided (is guidance on?), rescale, classifier, classifier_scale, clip.
function M.new(model, o)
  return function(x, node, kind)
    local at = o.prediction
    local p = o.guided and guided(model, x, node, o) or call(model, x, node, o.condition)
    if o.classifier then
      local push = classifier_gradient(o.classifier, x, node) * (o.classifier_scale * node.sigma)
      p, at = convert(p, x, node, at, "epsilon") - push, "epsilon"
    end
    if o.clip then p, at = core.clamp(convert(p, x, node, at, "x0"), -o.clip, o.clip), "x0" end
    return convert(p, x, node, at, kind)
  end
end

return M
