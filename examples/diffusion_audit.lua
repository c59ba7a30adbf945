-- Audits a generator and a classifier together: starting from noises whose samples are classified rightly, looks within
-- ±bound of every element for noises whose samples are not, by the classifier's gradient through the sampler.
--
--   bin/tide examples/diffusion_audit.lua [--samples 100] [--bound 0.1] [--iterations 6] [--steps 10]
--     [--seed 8] [--out diffusion_audit.png]
--
-- Once with the exact gradient, once with AdjointDPM's continuous adjoint, once with signs drawn at random.

local tide = require "tide"
local diffusion, nn, plot = tide.diffusion, tide.nn, tide.plot

local o = {samples = 100, bound = 0.1, iterations = 6, steps = 10, seed = 8, out = "diffusion_audit.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: diffusion_audit.lua [--samples n] [--bound x] "
    .. "[--iterations n] [--steps n] [--seed n] [--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

local model, info = assert(diffusion.pretrained "digits")
local classifier = assert(diffusion.pretrained "digits-classifier")
local schedule = info.schedule
model:freeze()
classifier:freeze()

local function sampling(classes, grad)
  return {schedule = schedule, sampler = "ddim", steps = o.steps, condition = classes, grad = grad}
end

-- Noises and classes of which the classifier is right at first.
local g, noises, classes, n, drawn = tide.generator(o.seed), {}, {}, 0, 0
while n < o.samples do
  local c = tide.arange(50):long():mod(10) + 1
  local x_T = schedule:noise({50, 28, 28, 1}, {generator = g})
  local right = tide.no_grad(function()
    return classifier(diffusion.sample(model, x_T, sampling(c, "none")).x0):argmax(2):eq(c)
  end)
  noises[#noises + 1], classes[#classes + 1] = x_T[right], c[right]
  n, drawn = n + noises[#noises]:size(1), drawn + 50
end
print(("%d of %d samples are recognised before"):format(n, drawn))
local x_T, c = tide.cat(noises, 1)[{{1, o.samples}}], tide.cat(classes, 1)[{{1, o.samples}}]

local function attack(grad)
  local found, distance, parts, clock = 0, 0, {}, os.time()
  local random = tide.generator(o.seed + 1)
  for first = 1, o.samples, 25 do
    local k = math.min(25, o.samples - first + 1)
    local x, wanted = x_T:narrow(1, first, k), c:narrow(1, first, k)
    local function metric(x0)  -- at random: a loss whose gradient is noise
      if grad == "none" then return (x0 * random:randn(x0.shape)):sum({2, 3, 4}) end
      return nn.cross_entropy(classifier(x0), wanted, {reduction = "none"})
    end
    local r = diffusion.attack(model, x, metric, {bound = o.bound, step = o.bound / 3, iterations = o.iterations,
      success = function(x0) return classifier(x0):argmax(2):ne(wanted) end,
      sampling = sampling(wanted, grad == "none" and "discrete" or grad)})
    assert((r.x - x):abs():max():item() <= o.bound * 1.0001, "the bound was left")
    found, distance = found + r.found:sum():item(), distance + r.distance:sum():item()
    parts[#parts + 1] = r.x0
  end
  local rate = found / o.samples
  print(("%-9s %3.0f %% of %d succeed, mean distance %.2f (the noises' own norm is 28), %d s"):format(
    grad == "none" and "random" or grad, 100 * rate, o.samples, distance / o.samples, os.time() - clock))
  return rate, tide.cat(parts, 1)
end

local exact, x0 = attack "discrete"
local adjoint = attack "adjoint"
local random = attack "none"
local few = {{1, math.min(20, o.samples)}}
local shown = tide.cat({diffusion.sample(model, x_T[few], sampling(c[few], "none")).x0, x0[few]}, 1)
local names = classifier(shown):argmax(2) - 1
local title = ("noise moved by at most %g: %.0f %% (exact gradient), %.0f %% (adjoint), %.0f %% (at random)"):format(
  o.bound, 100 * exact, 100 * adjoint, 100 * random)
assert(plot.image_grid((shown:clamp(-1, 1) + 1) / 2, {cols = few[1][2], range = {0, 1}, scale = 2, path = o.out,
  labels = names:totable(), row_labels = {"before", "after"}, title = title}))
print("drew " .. o.out)
assert(o.samples < 100 or exact >= random + 0.2, "the attack is no better than chance")
