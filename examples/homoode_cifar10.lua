-- Trains HomoODE on CIFAR-10 with the hyper-parameters of the paper's released script (arXiv
-- 2310.09583; 132,938 parameters).
--
--   bin/tide examples/homoode_cifar10.lua --data DIR [--epochs 300] [--images 50000]
--     [--grad discrete|adjoint|frozen] [--point regress|pattern|zero|joint|ema]
--     [--out homoode_cifar10]
--
-- DIR holds CIFAR-10's binary files (data_batch_1.bin … test_batch.bin). --epochs and --images
-- shorten the run; the cosine schedule then spans the shorter run. The accuracy stated is that of
-- the last epoch, not of the best one. Writes <out>.png (curves) and <out>.safetensors (weights)
-- after every epoch.

local tide = require "tide"
local nn, optim, implicit, data, plot = tide.nn, tide.optim, tide.implicit, tide.data, tide.plot

local config = implicit.configs.cifar10
local o = {data = "", epochs = config.epochs, images = 50000, grad = config.model.grad,
  point = "regress", seed = config.seed, out = "homoode_cifar10"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "unknown argument " .. arg[i] .. "; see the head of this file")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end
assert(o.data ~= "", "say where CIFAR-10 is: --data DIR")

tide.manual_seed(o.seed)
local train, test = assert(data.cifar10(o.data))
local keep = math.min(o.images, train.images:size(1))
local batches = data.Loader {images = train.images[{{1, keep}}], labels = train.labels[{{1, keep}}],
  batch = config.batch, drop_last = true, crop = config.crop, flip = config.flip,
  normalize = config.normalize, seed = o.seed}
local held_out = data.Loader {images = test.images, labels = test.labels,
  batch = config.test_batch, shuffle = false, normalize = config.normalize}

local settings = {grad = o.grad, point = o.point}
for key, value in pairs(config.model) do
  if settings[key] == nil then settings[key] = value end
end
local model = implicit.HomoODE(settings)
local opt = optim.Adam(model:trained_parameters(), {lr = config.lr})
local schedule = optim.Schedule(opt, optim.cosine {steps = o.epochs * batches.batches, minimum = config.lr_min})

local function evaluate()
  model:eval()
  local right = 0
  tide.no_grad(function()
    for x, y in held_out:epoch(1) do right = right + model(x):argmax(2):eq(y):sum():item() end
  end)
  model:train()
  return 100 * right / held_out.count
end

print(("HomoODE on %d images, %d parameters and %d of the shared point (%s), gradient mode %s")
  :format(keep, model:count() - model.point:count(), model.point:count(), o.point, o.grad))
local losses, accuracies = {}, {}
for epoch = 1, o.epochs do
  local total, nfe, nfe_b, began = 0, 0, 0, os.time()
  for x, y in batches:epoch(epoch) do
    local loss = nn.cross_entropy(model(x), y)
    loss:backward()
    opt:step():zero_grad()
    schedule:step()
    model.point:update(model.endpoint)
    total, nfe, nfe_b = total + loss:item(), nfe + model.stats.nfe, nfe_b + model.stats.nfe_b
  end
  local n = batches.batches
  losses[epoch], accuracies[epoch] = total / n, evaluate()
  print(("epoch %3d  loss %.4f  test accuracy %.2f %%  NFE %.1f and %.1f back  %d s  peak %.0f MB")
    :format(epoch, losses[epoch], accuracies[epoch], nfe / n, nfe_b / n, os.time() - began,
      tide.memory().peak / 1e6))
  io.stdout:flush()
  local fig = plot.figure {width = 900, height = 420, title = "HomoODE on CIFAR-10"}
  local epochs = tide.arange(epoch)
  fig:axes(1, {xlabel = "epoch", ylabel = "training loss"})
    :line(epochs, losses, {label = "loss", marker = "o"})
    :twin {ylabel = "test accuracy, %"}
    :line(epochs, accuracies, {label = "accuracy", color = plot.color(2), marker = "s"})
  assert(fig:save(o.out .. ".png"))
  assert(tide.io.save_safetensors(o.out .. ".safetensors", model:state_dict()))
end
