-- How good a diffusion model of the digits, or of CIFAR-10, is: the share of its samples that a classifier recognises,
-- Fréchet distances on the classifier's features beside those of real images, and how well noise found for an image
-- gives the image back.
--
--   bin/tide examples/diffusion_evaluate.lua [--model DIR] [--data DIR --classifier DIR] [--samples 500] [--steps 20]
--     [--seed 1] [--out diffusion_evaluate.png]

local tide = require "tide"
local data, diffusion, plot = tide.data, tide.diffusion, tide.plot

local o = {model = "", data = "digits", classifier = "", samples = 500, steps = 20, seed = 1,
  out = "diffusion_evaluate.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1],
    "usage: diffusion_evaluate.lua [--model DIR] [--data DIR --classifier DIR] [--samples n] [--steps n] [--seed n] "
      .. "[--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

local function open(dir, name)
  if dir == "" then return diffusion.pretrained(name) end
  return diffusion.load(dir)
end
local digits = o.data == "digits"
local model, info = assert(open(o.model, "digits"))
local classifier = assert(open(o.classifier, "digits-classifier"))
local train, test = assert((digits and data.digits or data.cifar10)(not digits and o.data or nil))

-- Images as the networks see them, from −1 to 1.
local function scaled(images) return images:float() / 127.5 - 1 end

local n = o.samples
local classes = tide.arange(0, n - 1, 1, "int64"):mod(10) + 1
local noise = tide.generator(o.seed):randn(n, unpack(train.images.shape, 2))
local among = train.images[{{1, math.min(train.images:size(1), 10000)}}]
local real = diffusion.features(classifier, scaled(among))
local unseen = diffusion.features(classifier, scaled(test.images[{{1, math.min(n, 2000)}}]))

-- Samples of all classes, 100 at a time.
local function samples(guidance)
  local parts = {}
  for first = 1, n, 100 do
    local last = math.min(n, first + 99)
    local out = diffusion.sample(model, noise[{{first, last}}], {schedule = info.schedule, sampler = "dpmpp_2m",
      steps = o.steps, guidance = guidance, condition = classes[{{first, last}}],
      negative = tide.full({last - first + 1}, 11, "int64"), grad = "none"})
    parts[#parts + 1] = out.x0
  end
  return tide.cat(parts, 1)
end

print(("%d samples of each kind, %d steps of DPM-Solver++ 2M; distances to %d training images"):format(n, o.steps,
  among:size(1)))
print(("unseen images          recognised %6.2f %%                    Fréchet distance %.3f (%d images)"):format(
  100 * diffusion.recognised(classifier, scaled(test.images), test.labels), diffusion.frechet(unseen, real),
  unseen:size(1)))

local best, shown = 0, nil
for _, guidance in ipairs {1, 2, 3} do
  local clock = os.clock()
  local x = samples(guidance)
  local share, about = diffusion.recognised(classifier, x, classes)
  print(("guidance %-4g samples  recognised %6.2f %% (%.1f to %.1f)  Fréchet distance %.3f  %.0f ms a sample"):format(
    guidance, 100 * share, 100 * about.low, 100 * about.high,
    diffusion.frechet(diffusion.features(classifier, x), real), 1000 * (os.clock() - clock) / n))
  io.stdout:flush()
  best = math.max(best, share)
  if guidance == 2 then shown = x end
end

local images, labels = scaled(test.images[{{1, 50}}]), test.labels[{{1, 50}}]
for _, steps in ipairs {20, 50, 100} do
  local gap = diffusion.inversion_error(model, images, {schedule = info.schedule, steps = steps, condition = labels})
  print(("inversion by DDIM, %3d steps: the image comes back to %.2f %% (50 unseen images)"):format(steps, 100 * gap))
end

plot.image_grid((shown[{{1, math.min(n, 100)}}]:clamp(-1, 1) + 1) / 2, {cols = 10, range = {0, 1}, scale = 2,
  path = o.out, title = "samples with guidance 2"})
print("drew " .. o.out)
assert(not digits or best >= 0.95, "fewer than 95 % of the samples were recognised at any guidance")
