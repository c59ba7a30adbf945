-- How good samples are: Fréchet distances between features, the share that a classifier recognises, and how well
-- noise that was found for an image gives the image back. Every figure comes with the number of samples behind it.

local core = require "tide.core"
local denoise = require "tide.diffusion.denoise"
local embedding = require "tide.diffusion.embedding"
local grid = require "tide.diffusion.grid"
local image_layout = require "tide.diffusion.images"
local message = require "tide.message"
local options = require "tide.options"
local sampling = require "tide.diffusion.sample"
local schedules = require "tide.diffusion.schedule"
local tensors = require "tide.tensor"
local values = require "tide.values"

local M = {}
local raise, shape_of, is_tensor = message.raise, message.shape, tensors.is_tensor

-- f of batches of x along dim 1, joined, without recording.
local function in_batches(x, size, f)
  return core.with_recording(false, function()
    local parts, n = {}, x:size(1)
    for first = 1, n, size do parts[#parts + 1] = f(core.narrow(x, 1, first, math.min(size, n - first + 1))) end
    return #parts == 1 and parts[1] or core.cat(parts, 1)
  end)
end

local batch_rules = {batch = values.whole(1)}

--- diffusion.features(classifier, images, {batch = 200}): classifier:features of all images, N×channels.
function M.features(classifier, images, opts)
  local o = values.check("diffusion.features", options.check("diffusion.features", opts, {batch = 200}), batch_rules)
  if type(classifier) ~= "table" or not classifier.features then
    raise("diffusion.features: the classifier is a %s, expected one with features(x), such as diffusion.Classifier",
      type(classifier) == "table" and classifier.class_name or type(classifier))
  end
  image_layout.check("diffusion.features", images)
  return in_batches(images, o.batch, function(x) return classifier:features(x) end)
end

-- ---- Fréchet distance ----

-- Mean (1×C) and covariance (C×C) of the rows of a matrix, in float64.
local function moments(name, f)
  if not is_tensor(f) or f.ndim ~= 2 or f:size(1) < 2 then
    raise("diffusion.frechet: %s is %s, expected a matrix of two rows or more", name,
      is_tensor(f) and "of shape (" .. shape_of(f) .. ")" or "a " .. type(f))
  end
  local x = core.to(f:detach(), "float64")
  local mean = core.sum(x, {1}, true) / x:size(1)
  local centred = x - mean
  return mean, core.mm(tensors.t(centred), centred) / (x:size(1) - 1)
end

-- The square root of a symmetric matrix without negative eigenvalues (those of rounding count as 0).
local function root(a)
  local squares, vectors = core.eigh(a)
  local r = core.sqrt(core.relu(squares))
  return core.mm(vectors * core.unsqueeze(r, 1), tensors.t(vectors))
end

--- The Fréchet distance of two sets of features (N×C, M×C) as normal distributions, |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ −
--- 2(Σ₁Σ₂)^½), and {samples = {N, M}, channels = C, singular = N or M is at most C}. Heusel et al. 2017.
function M.frechet(a, b)
  return core.with_recording(false, function()
    local mean_a, cov_a = moments("the first set", a)
    local mean_b, cov_b = moments("the second set", b)
    if a:size(2) ~= b:size(2) then
      raise("diffusion.frechet: the sets have %d and %d channels", a:size(2), b:size(2))
    end
    local half = root(cov_a)
    local inner = core.mm(core.mm(half, cov_b), half)
    local cross = core.sum(core.sqrt(core.relu(core.eigvalsh((inner + tensors.t(inner)) / 2))))
    local gap = core.sum(core.square(mean_a - mean_b))
    local spread = core.sum(tensors.diag(cov_a)) + core.sum(tensors.diag(cov_b))
    local c = a:size(2)
    local about = {samples = {a:size(1), b:size(1)}, channels = c,
      singular = math.min(a:size(1), b:size(1)) <= c}
    return math.max(0, (gap + spread - cross * 2):item()), about
  end)
end

-- ---- Recognition ----

-- Wilson's interval of a share of n at 95 %.
local function interval(share, n)
  local z = 1.959963984540054
  local centre = (share + z * z / (2 * n)) / (1 + z * z / n)
  local half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
  return {math.max(0, centre - half), math.min(1, centre + half)}
end

--- The share of images that a classifier takes for what they should be (int64 classes), and {samples, low, high:
--- the 95 % interval after Wilson, by_class = {share of each class}}. Option: batch.
function M.recognised(classifier, images, classes, opts)
  local fname = "diffusion.recognised"
  local o = values.check(fname, options.check(fname, opts, {batch = 200}), batch_rules)
  values.check_callable(fname, "the classifier", classifier, "from images to logits")
  image_layout.check(fname, images)
  local n = images:size(1)
  if not is_tensor(classes) or classes.dtype ~= "int64" or classes.ndim ~= 1 or classes.numel ~= n then
    raise("%s: the classes are %s, expected int64, one for each of %d images", fname,
      is_tensor(classes) and classes.dtype .. " of shape (" .. shape_of(classes) .. ")" or "a " .. type(classes), n)
  end
  local guess = in_batches(images, o.batch, function(x)
    local logits = classifier(x)
    if not is_tensor(logits) or logits.ndim ~= 2 or logits:size(1) ~= x:size(1) then
      raise("%s: the classifier gave %s, expected logits N×classes", fname, values.shown(logits))
    end
    embedding.check_classes(fname, "list of classes", classes, logits:size(2))
    return tensors.argmax(logits, 2)
  end):totable()
  local wanted, right, count, hits = classes:totable(), 0, {}, {}
  for i = 1, n do
    local k = wanted[i]
    count[k] = (count[k] or 0) + 1
    hits[k] = (hits[k] or 0) + (guess[i] == k and 1 or 0)
    right = right + (guess[i] == k and 1 or 0)
  end
  local by_class = {}
  for k, c in pairs(count) do by_class[k] = hits[k] / c end
  local range = interval(right / n, n)
  return right / n, {samples = n, low = range[1], high = range[2], by_class = by_class}
end

-- ---- Inversion ----

local invert_options = {schedule = "linear", prediction = options.none, steps = 50, condition = options.none}

--- The noise x_T from which DDIM without guidance leads to x0, found by walking DDIM's steps backwards with the
--- prediction of each step's clean end: right to the first order. Options: schedule, prediction, steps, condition.
--- Song et al. 2021.
function M.invert(model, x0, opts)
  local fname = "diffusion.invert"
  local o = options.check(fname, opts, invert_options)
  values.check_callable(fname, "model", model, "model(x, t, condition)")
  values.check_real(fname, "x0", x0)
  local s = schedules.Schedule(o.schedule)
  local nodes = grid.nodes(s, {steps = o.steps, final = "min"}, fname)
  local denoiser = denoise.of(model, s, o)
  return core.with_recording(false, function()
    local x = x0
    for i = #nodes, 2, -1 do
      local here, there = nodes[i], nodes[i - 1]
      local eps = denoiser(x, here, "epsilon")
      x = (x - eps * here.sigma) * (there.alpha / here.alpha) + eps * there.sigma
      if not values.is_finite(x) then
        raise("%s: values are not finite at step %d (t = %g, σ = %.6g)", fname, #nodes - i + 1, here.t, here.sigma)
      end
    end
    return x
  end)
end

--- How far x0 comes back from its own noise: x_T = diffusion.invert(x0), then DDIM with the same steps. The root
--- mean square difference over that of x0, and {samples, steps, x_T, x0}. Options as of diffusion.invert.
function M.inversion_error(model, x0, opts)
  local o = options.check("diffusion.inversion_error", opts, invert_options)
  image_layout.check("diffusion.inversion_error", x0)
  local x_T = M.invert(model, x0, o)
  local back = sampling.sample(model, x_T, {schedule = o.schedule, prediction = o.prediction, steps = o.steps,
    condition = o.condition, sampler = "ddim", final = "min", grad = "none"}).x0
  local error = math.sqrt(core.sum(core.square(back - x0)):item() / core.sum(core.square(x0)):item())
  return error, {samples = x0:size(1), steps = o.steps, x_T = x_T, x0 = back}
end

return M
