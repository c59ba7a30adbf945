-- The network as samplers see it: from model(x, t, condition) to a prediction of the kind that is asked for, with
-- classifier-free guidance, a classifier's gradient and clipping on the way. All of it is ordinary operations, so it
-- is on the tape when the tape records.

local autograd = require "tide.autograd"
local capture = require("tide.capture").capture
local core = require "tide.core"
local embedding = require "tide.diffusion.embedding"
local is_module = require("tide.nn.module").is_module
local message = require "tide.message"
local prediction = require "tide.diffusion.prediction"
local tensors = require "tide.tensor"
local values = require "tide.values"

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
    if not log_p.needs_grad then
      raise("diffusion.sample: the classifier's log-probability does not depend on x; was it computed under no_grad, "
        .. "or detached?")
    end
    return core.sum(log_p)
  end)(x)
  return core.recording() and g or g:detach()
end

local function convert(p, x, node, from, to)
  if node.alpha == 0 and from == "epsilon" and to ~= "epsilon" then
    raise("diffusion.sample: a prediction of epsilon does not tell x0 at t = %g, where α = 0; give timesteps that "
      .. "begin later, or the prediction that the model makes", node.t)
  end
  return prediction.convert(p, x, from, to, node.alpha, node.sigma)
end

-- A function (x, node, kind) → the prediction of that kind at x. o: prediction, condition, negative, guidance,
-- guided (is guidance on?), rescale, classifier, classifier_scale, clip.
local function denoiser(model, o)
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

-- ---- What a sampler is given ----

local function guidance_of(o)
  local w = o.guidance
  if is_tensor(w) then
    if w.numel ~= 1 then
      raise("diffusion.sample: guidance has shape (%s), expected a number or one element", message.shape(w))
    end
    return w, true
  end
  values.check("diffusion.sample", o, {guidance = values.any_number})
  if w == nil then w = o.negative ~= nil and 7.5 or 1 end
  return w, w ~= 1
end

-- A module as captured programs, made anew for each sample, since its parts may have been exchanged. A function of the
-- user's own may do more than compute, so it is called as it is; tide.capture makes it an object that is not.
local function programmed(model)
  if not is_module(model) then return model end
  local run, c = capture(model, {fallback = "eager", name = "the model"}), model.config
  if type(c) ~= "table" or not c.in_channels or c.out_channels ~= 2 * c.in_channels then return run end
  -- the second half says how much noise to add; no sampler here asks
  return function(...) return core.narrow(run(...), -1, 1, c.in_channels) end
end

-- Conditions that a network of classes does not have are refused before it runs, and guidance between two predictions
-- that are the same.
local function check_condition(model, o, on)
  if on and o.condition == nil and o.negative == nil then
    raise("diffusion.sample: guidance without a condition or a negative one has nothing to guide by")
  end
  local network = is_module(model) and (model.class_name == "EDM" and model.net or model)
  local count = network and network.class_embedding and network.class_embedding.entries
  if not count then return end
  embedding.check_classes("diffusion.sample", "condition", o.condition, count)
  embedding.check_classes("diffusion.sample", "negative condition", o.negative, count)
  if on and o.negative == nil then
    raise("diffusion.sample: guidance without a negative condition, expected the class that stands for none")
  end
end

--- The denoiser of the options of diffusion.sample (prediction, condition, negative, guidance, rescale, classifier,
--- classifier_scale, clip), and whether it is guided.
function M.of(model, schedule, o)
  local w, on = guidance_of(o)
  local kind = prediction.check("diffusion.sample", o.prediction or schedule.prediction)
  if is_module(model) and model.class_name == "EDM" and (schedule.kind ~= "ve" or kind ~= "x0") then
    raise("diffusion.sample: the model is a diffusion.EDM, expected a schedule \"edm\" with prediction \"x0\", got %q "
      .. "with %q", schedule.name, kind)
  end
  check_condition(model, o, on)
  return denoiser(programmed(model), {
    prediction = kind, condition = o.condition, negative = o.negative, guidance = w, guided = on,
    rescale = o.rescale or 0, classifier = o.classifier, classifier_scale = o.classifier_scale, clip = o.clip,
  }), on
end

return M
