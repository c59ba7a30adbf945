-- Finetunes a diffusion model to a style, by the gradient of a style loss through its sampler: products of a
-- classifier's feature maps (Gram matrices) are to be those of striped digits. Low-rank adapters learn it.
--
--   bin/tide examples/diffusion_style.lua [--steps 10] [--iterations 40] [--rank 4] [--lr 0.01] [--keep 0.3]
--     [--grad discrete|adjoint] [--seed 6] [--out diffusion_style.png]
--
-- The classifier also says that a digit must stay what it is (weight --keep). Every iteration begins from new noise.

local tide = require "tide"
local data, diffusion, nn, plot = tide.data, tide.diffusion, tide.nn, tide.plot

local o = {steps = 10, iterations = 40, rank = 4, lr = 0.01, keep = 0.3, grad = "discrete", seed = 6,
  out = "diffusion_style.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: diffusion_style.lua [--steps n] [--iterations n] [--rank n] "
    .. "[--lr x] [--keep x] [--grad mode] [--seed n] [--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

local model, info = assert(diffusion.pretrained "digits")
local classifier = assert(diffusion.pretrained "digits-classifier")
local schedule, total = info.schedule, model:count()
classifier:freeze()

-- The style: held-out digits of which every fourth pair of rows is left out.
local _, test = assert(data.digits())
local rows_kept = tide.arange(28):mod(4):lt(2):float():reshape(1, 28, 1, 1)
local style = (test.images[{{1, 40}}]:float() / 127.5) * rows_kept - 1

local function grams(x)
  local list = {}
  for i, map in ipairs(classifier:maps(x)) do list[i] = i <= 2 and diffusion.gram(map):mean(1) or nil end
  return list
end
local wanted = tide.no_grad(grams, style)
local function style_loss(x)
  local sum
  for i, g in ipairs(grams(x)) do
    local part = ((g - wanted[i]) ^ 2):sum() / (wanted[i] ^ 2):sum()
    sum = sum and sum + part or part
  end
  return sum
end

local classes = tide.arange(10):long()
local function sample(x_T, grad)
  return diffusion.sample(model, x_T, {schedule = schedule, sampler = "ddim", steps = o.steps, condition = classes,
    grad = grad or "none"}).x0
end
local function right(x0)
  return tide.no_grad(function() return classifier(x0):argmax(2):eq(classes):sum():item() end)
end

local g = tide.generator(o.seed)
local shown = schedule:noise({10, 28, 28, 1}, {generator = tide.generator(o.seed + 1)})
local before = sample(shown)
tide.manual_seed(o.seed)
nn.lora.add(model, {rank = o.rank})
print(("%d parameters, %d of adapters"):format(total, model:count()))
local opt, clock, halfway = tide.optim.Adam(model:parameters(), {lr = o.lr}), os.time(), nil
for i = 1, o.iterations do
  local x0 = sample(schedule:noise({10, 28, 28, 1}, {generator = g}), o.grad)
  local loss = style_loss(x0)
  local kept = nn.cross_entropy(classifier(x0), classes)
  loss:add(kept * o.keep):backward()
  tide.optim.clip_grad_norm(model:parameters(), 1)
  opt:step():zero_grad()
  if i == math.ceil(o.iterations / 4) then halfway = sample(shown) end
  print(("iteration %2d of %d  style %.4f"):format(i, o.iterations, loss:item()))
end
local after = sample(shown)
local first, last = tide.no_grad(style_loss, before):item(), tide.no_grad(style_loss, after):item()
print(("style %.4f → %.4f, %d → %d of 10 recognised, %d s"):format(first, last, right(before), right(after),
  os.time() - clock))
local rows = tide.cat({before, halfway, after, style[{{1, 10}}]}, 1)
assert(plot.image_grid((rows:clamp(-1, 1) + 1) / 2, {cols = 10, range = {0, 1}, scale = 3, path = o.out,
  row_labels = {"before", "during", "after", "the style"}, title = "a style learned through the sampler"}))
print("drew " .. o.out)
assert(o.grad ~= "discrete" or o.iterations < 40 or last < 0.5 * first, "the style was not learned")
