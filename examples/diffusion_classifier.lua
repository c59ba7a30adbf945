-- Trains the classifier that judges samples of diffusion models, on the digits that come with tide or on CIFAR-10
-- from a folder, and writes it as a folder.
--
--   bin/tide examples/diffusion_classifier.lua [--data DIR] [--epochs 15] [--seed 1] [--out digits_classifier]

local tide = require "tide"
local nn, optim, data, diffusion = tide.nn, tide.optim, tide.data, tide.diffusion

local o = {data = "digits", epochs = 15, seed = 1, out = "digits_classifier"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1],
    "usage: diffusion_classifier.lua [--data DIR] [--epochs n] [--seed n] [--out DIR]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end
local digits = o.data == "digits"

tide.manual_seed(o.seed)
local train, test = assert((digits and data.digits or data.cifar10)(not digits and o.data or nil))
local normalize = {mean = 0.5, std = 0.5}
local loader = data.Loader {images = train.images, labels = train.labels, batch = 64, seed = o.seed, drop_last = true,
  crop = digits and 2 or 4, flip = digits and 0 or 0.5, normalize = normalize}
local held_out = data.Loader {images = test.images, labels = test.labels, batch = 500, shuffle = false,
  normalize = normalize}

local channels = train.images:size(4)
local model = diffusion.Classifier {in_channels = channels, num_classes = 10, sample_size = train.images:size(2),
  block_out_channels = digits and {16, 32, 64} or {32, 64, 128}, dropout = 0.2}
local opt = optim.AdamW(model:parameters(), {lr = 3e-3, weight_decay = 0.02})
local schedule = optim.Schedule(opt, optim.one_cycle {steps = o.epochs * loader.batches})

local function accuracy()
  model:eval()
  local right = 0
  tide.no_grad(function()
    for x, y in held_out:epoch(1) do right = right + model(x):argmax(2):eq(y):sum():item() end
  end)
  model:train()
  return right / held_out.count
end

print(("%d images, %d parameters"):format(loader.count, model:count()))
local clock = os.clock()
for epoch = 1, o.epochs do
  local total = 0
  for x, y in loader:epoch(epoch) do
    local loss = nn.cross_entropy(model(x), y, {label_smoothing = 0.05})
    loss:backward()
    opt:step():zero_grad()
    schedule:step()
    total = total + loss:item()
  end
  print(("epoch %2d  loss %.4f  test accuracy %.2f %%  %.0f s of processor time"):format(epoch,
    total / loader.batches, 100 * accuracy(), os.clock() - clock))
  io.stdout:flush()
end
assert(diffusion.save(o.out, model))
print("wrote " .. o.out)
assert(not digits or o.epochs < 15 or accuracy() >= 0.98, "the digits were not learned as well as they should be")
