-- Losses: functions of a prediction and a target that give a 0-d tensor, or one loss for each element with
-- {reduction = "none"}. Made of operations, so they differentiate as often as needed; written so that nothing
-- overflows.

local core = require "tide.core"
local message = require "tide.message"
local Module = require("tide.nn.module").Module
local options = require "tide.options"
local parts = require "tide.nn.parts"
local is_tensor = require("tide.tensor").is_tensor

local M = {}
local raise, shape_of = message.raise, message.shape

-- reduction "mean", "sum" or "none" of a tensor of losses; `count` divides the sum of a mean (default: the
-- elements).
local function reduced(fname, loss, reduction, count)
  if reduction == "mean" then return core.sum(loss) / (count or loss.numel) end
  if reduction == "sum" then return core.sum(loss) end
  if reduction == "none" then return loss end
  raise("%s: reduction is %q, expected \"mean\", \"sum\" or \"none\"", fname, tostring(reduction))
end

local function same_shape(a, b)
  if a.ndim ~= b.ndim then return false end
  for i = 1, a.ndim do
    if a:size(i) ~= b:size(i) then return false end
  end
  return true
end

-- Both tensors, of one shape (a silent broadcast of a prediction against a target is a mistake).
local function check_pair(fname, x, target)
  if not is_tensor(x) then raise("%s: the prediction is a %s, expected a tensor", fname, type(x)) end
  if type(target) == "number" then return end
  if not is_tensor(target) then
    raise("%s: the target is a %s, expected a tensor or a number", fname, type(target))
  end
  if not same_shape(x, target) then
    raise("%s: the prediction has shape (%s), the target (%s)", fname, shape_of(x), shape_of(target))
  end
end

local plain = {reduction = "mean"}

-- ---- Regression ----

--- (x − target)². Option: reduction.
function M.mse_loss(x, target, opts)
  local o = options.check("mse_loss", opts, plain)
  check_pair("mse_loss", x, target)
  return reduced("mse_loss", core.square(x - target), o.reduction)
end

--- |x − target|. Option: reduction.
function M.l1_loss(x, target, opts)
  local o = options.check("l1_loss", opts, plain)
  check_pair("l1_loss", x, target)
  return reduced("l1_loss", core.abs(x - target), o.reduction)
end

-- ½·d² for |d| ≤ knee, knee·(|d| − ½·knee) beyond: with m = d clamped to ±knee it is m·(d − ½·m).
local function huber(x, target, knee)
  local d = x - target
  local m = core.clamp(d, -knee, knee)
  return m * (d - m * 0.5)
end

local function check_knee(fname, what, knee)
  if type(knee) ~= "number" or knee ~= knee or knee <= 0 then
    raise("%s: %s is %s, expected a positive number", fname, what, tostring(knee))
  end
end

--- ½·d²/beta where d = |x − target| is below beta (1), d − ½·beta beyond. Options: beta, reduction. Girshick
--- 2015.
function M.smooth_l1_loss(x, target, opts)
  local o = options.check("smooth_l1_loss", opts, {beta = 1, reduction = "mean"})
  check_pair("smooth_l1_loss", x, target)
  check_knee("smooth_l1_loss", "beta", o.beta)
  local loss = huber(x, target, o.beta)
  return reduced("smooth_l1_loss", o.beta == 1 and loss or loss / o.beta, o.reduction)
end

--- ½·d² where d = |x − target| is below delta (1), delta·(d − ½·delta) beyond. Options: delta, reduction.
--- Huber 1964.
function M.huber_loss(x, target, opts)
  local o = options.check("huber_loss", opts, {delta = 1, reduction = "mean"})
  check_pair("huber_loss", x, target)
  check_knee("huber_loss", "delta", o.delta)
  return reduced("huber_loss", huber(x, target, o.delta), o.reduction)
end

-- ---- Classification ----

local class_options = {weight = options.none, reduction = "mean", label_smoothing = 0}

-- Classes along the last dim of x; the target names one for every other position.
local function check_classes(fname, x, target, weight)
  if not is_tensor(x) or not is_tensor(target) then
    raise("%s: expected two tensors, got a %s and a %s", fname, is_tensor(x) and "tensor" or type(x),
      is_tensor(target) and "tensor" or type(target))
  end
  if x.ndim < 1 then raise("%s: a 0-d tensor has no classes", fname) end
  if weight and (not is_tensor(weight) or weight.ndim ~= 1 or weight.numel ~= x:size(-1)) then
    raise("%s: weight is %s, expected a tensor of %d classes", fname,
      is_tensor(weight) and "of shape (" .. shape_of(weight) .. ")" or "a " .. type(weight), x:size(-1))
  end
  if target.dtype ~= "int64" then return end
  local front = x.shape
  front[#front] = nil
  local expected = table.concat(front, "×")
  if expected ~= shape_of(target) then
    raise("%s: predictions of shape (%s) need targets of shape (%s), got (%s)", fname, shape_of(x), expected,
      shape_of(target))
  end
  if core.capturing() or target.numel == 0 then return end  -- where gather looks at them when the program runs
  local least, most = core.min(target):item(), core.max(target):item()
  if least < 1 or most > x:size(-1) then
    raise("%s: class %d, expected classes from 1 to %d", fname, least < 1 and least or most, x:size(-1))
  end
end

-- −logp at the classes that target names, and the weights of those classes (nil when all weigh 1).
local function picked(logp, target, weight)
  local at = core.unsqueeze(target, -1)
  local loss = -core.squeeze(core.gather(logp, at, -1), -1)
  if not weight then return loss end
  local own = core.reshape(core.index_select(weight, core.reshape(target, -1), 1), target.shape)
  return loss * own, own
end

--- Negative log likelihood of int64 classes (from 1) under log-probabilities along the last dim of logp.
--- Options: weight (one number for each class; a mean then divides by the targets' weights), reduction.
function M.nll_loss(logp, target, opts)
  local o = options.check("nll_loss", opts, {weight = options.none, reduction = "mean"})
  check_classes("nll_loss", logp, target, o.weight)
  if target.dtype ~= "int64" then
    raise("nll_loss: the target is %s, expected int64 classes", target.dtype)
  end
  local loss, own = picked(logp, target, o.weight)
  return reduced("nll_loss", loss, o.reduction, own and core.sum(own))
end

--- Cross-entropy of logits (…×classes) against int64 classes from 1 (…) or probabilities (…×classes).
--- Options: label_smoothing ε (the target becomes (1 − ε)·target + ε/classes; Szegedy et al. 2016), weight
--- (one number for each class; with int64 classes a mean divides by the targets' weights), reduction.
function M.cross_entropy(logits, target, opts)
  local o = options.check("cross_entropy", opts, class_options)
  check_classes("cross_entropy", logits, target, o.weight)
  local smoothing = parts.probability("cross_entropy: label_smoothing", o.label_smoothing)
  local logp = core.log_softmax(logits, -1)
  if target.dtype ~= "int64" then
    check_pair("cross_entropy", logits, target)
    if smoothing > 0 then target = target * (1 - smoothing) + smoothing / logits:size(-1) end
    if o.weight then logp = logp * o.weight end
    local loss = -core.sum(logp * target, -1)
    return reduced("cross_entropy", loss, o.reduction)
  end
  local loss, own = picked(logp, target, o.weight)
  if smoothing > 0 then
    local all = core.sum(o.weight and logp * o.weight or logp, -1)
    loss = loss * (1 - smoothing) - all * (smoothing / logits:size(-1))
  end
  return reduced("cross_entropy", loss, o.reduction, own and core.sum(own))
end

--- −target·log p − (1 − target)·log(1 − p) of probabilities p; each logarithm is at least that of 2e-38.
--- Prefer bce_with_logits. Options: weight (broadcast), reduction.
function M.bce_loss(p, target, opts)
  local o = options.check("bce_loss", opts, {weight = options.none, reduction = "mean"})
  check_pair("bce_loss", p, target)
  local log_p = core.log(core.clamp(p, 2e-38, 1))
  local log_q = core.log(core.clamp(1 - p, 2e-38, 1))
  local loss = (log_q - log_p) * target - log_q
  if o.weight then loss = loss * o.weight end
  return reduced("bce_loss", loss, o.reduction)
end

--- Binary cross-entropy of logits, stable for any size of them: softplus(x) − target·x. Options: weight
--- (broadcast), pos_weight (factor of the positive term), reduction.
function M.bce_with_logits(x, target, opts)
  local o = options.check("bce_with_logits", opts,
    {weight = options.none, pos_weight = options.none, reduction = "mean"})
  check_pair("bce_with_logits", x, target)
  local loss
  if o.pos_weight then  -- w·t·softplus(−x) + (1 − t)·softplus(x), and softplus(x) = x + softplus(−x)
    loss = core.softplus(-x) * ((o.pos_weight - 1) * target + 1) + x * (1 - target)
  else
    loss = core.softplus(x) - x * target
  end
  if o.weight then loss = loss * o.weight end
  return reduced("bce_with_logits", loss, o.reduction)
end

--- Kullback–Leibler divergence Σ target·(log target − logp) of log-probabilities logp from the target's
--- probabilities, or its logarithms with {log_target = true}. reduction "batchmean" (default: the sum divided
--- by the size of dim 1), "mean" (over elements), "sum", "none".
function M.kl_div(logp, target, opts)
  local o = options.check("kl_div", opts, {log_target = false, reduction = "batchmean"})
  check_pair("kl_div", logp, target)
  local loss
  if o.log_target then
    loss = core.exp(target) * (target - logp)
  else  -- 0·log 0 = 0
    local positive = core.gt(target, 0)
    loss = target * (core.log(core.where(positive, target, 1)) - logp)
  end
  if o.reduction == "batchmean" then return core.sum(loss) / logp:size(1) end
  return reduced("kl_div", loss, o.reduction)
end

-- ---- The same as modules: the options once, then called with prediction and target ----

for name, f in pairs {
  MSELoss = "mse_loss", L1Loss = "l1_loss", SmoothL1Loss = "smooth_l1_loss", HuberLoss = "huber_loss",
  CrossEntropyLoss = "cross_entropy", NLLLoss = "nll_loss", KLDivLoss = "kl_div", BCELoss = "bce_loss",
  BCEWithLogitsLoss = "bce_with_logits",
} do
  local class = Module(name)
  function class:init(opts) self._options = opts end
  function class:forward(x, target) return M[f](x, target, self._options) end
  M[name] = class
end

return M
