-- Trains a class-conditional diffusion model and writes it as a folder in diffusers' layout: the digits that come
-- with tide, or CIFAR-10 from a folder. Loss and samples are drawn as it goes; a stopped run goes on where it was.
--
--   bin/tide examples/diffusion_train.lua [--data DIR] [--steps 6000] [--batch 32] [--lr 1e-3] [--seed 1]
--     [--every 500] [--out diffusion_digits] [--dtype float32] [--resume file]
--
-- The network predicts v under DDPM's linear schedule; every tenth condition is dropped (class 11 stands for
-- none), so that samples can be guided. --dtype float16 stores the weights in half the space.

local tide = require "tide"
local data, diffusion, plot = tide.data, tide.diffusion, tide.plot

local o = {data = "digits", steps = 6000, batch = 32, lr = 1e-3, seed = 1, every = 500, out = "", dtype = "float32",
  resume = ""}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: diffusion_train.lua [--data DIR] [--steps n] [--batch n] "
    .. "[--lr x] [--seed n] [--every n] [--out DIR] [--dtype float16] [--resume file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end
assert(({float32 = 1, float16 = 1, bfloat16 = 1})[o.dtype], "--dtype: expected float32, float16 or bfloat16")
local digits = o.data == "digits"
if o.out == "" then o.out = digits and "diffusion_digits" or "diffusion_cifar10" end

-- ---- Data and network ----

tide.manual_seed(o.seed)
local train = assert((digits and data.digits or data.cifar10)(not digits and o.data or nil))
local loader = data.Loader {images = train.images, labels = train.labels, batch = o.batch, seed = o.seed,
  flip = digits and 0 or 0.5, normalize = {mean = 0.5, std = 0.5}, drop_last = true}
local shape = train.images.shape

local model = diffusion.UNet2DModel {
  sample_size = shape[2], in_channels = shape[4], out_channels = shape[4], num_class_embeds = 11,
  block_out_channels = digits and {16, 32, 64} or {48, 80, 80}, layers_per_block = 1,
  down_block_types = {"DownBlock2D", digits and "DownBlock2D" or "AttnDownBlock2D", "AttnDownBlock2D"},
  up_block_types = {"AttnUpBlock2D", digits and "UpBlock2D" or "AttnUpBlock2D", "UpBlock2D"},
  attention_head_dim = digits and 32 or 16, norm_num_groups = 8,
}
local schedule = diffusion.Schedule("linear", {prediction = "v"})
local trainer = diffusion.Trainer(model, {schedule = schedule, weighting = "min_snr", lr = o.lr, warmup = 100,
  ema = digits and 0.998 or 0.9995, null = 11, seed = o.seed})
if o.resume ~= "" then assert(trainer:load(o.resume)) end
print(("%d images, %d parameters, %d threads, %s"):format(loader.count, model:count(), tide.threads(), tide.isa()))

-- ---- Pictures ----

local shown = digits and 40 or 10  -- samples in a picture
local noise = tide.generator(7):randn(shown, shape[2], shape[3], shape[4])
local classes = tide.arange(0, shown - 1, 1, "int64"):mod(10) + 1
local null = tide.full({shown}, 11, "int64")

local function draw_samples()
  local out = diffusion.sample(model, noise, {schedule = schedule, sampler = "dpmpp_2m", steps = 20, guidance = 2,
    condition = classes, negative = null, grad = "none"})
  local pictures = (out.x0:clamp(-1, 1) + 1) / 2
  plot.image_grid(pictures, {cols = 10, range = {0, 1}, path = o.out .. "_samples.png",
    title = ("after %d steps"):format(trainer.steps)})
end

local steps, losses = {}, {}
local function draw_loss()
  local fig = plot.figure {width = 700, height = 420}
  fig:axes(1, {title = "loss of v, min-SNR weights", xlabel = "step", yscale = "log"}):line(steps, losses)
  fig:save(o.out .. "_loss.png")
end

local function save()
  trainer:with_average(function() assert(diffusion.save(o.out, model, schedule, {dtype = o.dtype})) end)
end

-- ---- The run ----

local clock, began = os.time(), os.clock()
trainer:run {loader = loader, steps = o.steps, every = o.every, progress = function(t, loss)
  steps[#steps + 1], losses[#losses + 1] = t.steps, loss
  print(("step %6d  loss %.5f  %d s, processor %.0f s"):format(t.steps, loss, os.time() - clock,
    os.clock() - began))
  io.stdout:flush()
  assert(t:save(o.out .. "_checkpoint.safetensors"))
  if #steps > 1 then draw_loss() end
  t:with_average(draw_samples)
end}
save()
print(("wrote %s, peak memory %.0f MB"):format(o.out, tide.memory().peak / 1e6))
