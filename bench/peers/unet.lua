-- The DDPM UNet: a training step at batch 32, the prediction for one image, the gradient of a DDIM sample of --steps
-- for --batch images (4).
-- Cases as in unet.py, which writes the network (a folder in diffusers' layout, EXCHANGE/unet) and what it makes of
-- given inputs (EXCHANGE/check.safetensors); with --check tide's results are compared with those. --grad: the sample's
-- gradient mode, discrete or full.

package.path = (arg[0]:match "^(.*/)" or "./") .. "?.lua;" .. package.path
local side = require "side"
local tide = require "tide"
local diffusion, nn, optim = tide.diffusion, tide.nn, tide.optim

local o = side.options {eager = false, grad = "discrete", steps = 20, batch = 4}
local net = assert(diffusion.load(o.exchange .. "/unet"))
local schedule = diffusion.Schedule "linear"

-- N×C×H×W, torch's order, as N×H×W×C.
local function image(t) return t:permute(1, 3, 4, 2):contiguous() end

local cases = {}

function cases.train()
  local images = tide.randn(32, 32, 32, 3)
  local opt = optim.Adam(net:parameters(), {lr = 1e-4})
  net:train()
  local function loss_of(noisy, t, noise) return nn.mse_loss(net(noisy, t), noise) end
  local step = tide.train_step(loss_of, opt)
  return function()
    local noise, t = tide.randn(32, 32, 32, 3), tide.randint(0, 999, 32)
    local noisy = schedule:add_noise(images, noise, t)
    if o.eager then
      loss_of(noisy, t, noise):backward()
      opt:step():zero_grad()
    else
      step(noisy, t, noise)
    end
  end
end

function cases.infer()
  local x, t = tide.randn(1, 32, 32, 3), tide.tensor({500}, "int64")
  local f = function(a, b) return net(a, b) end
  if not o.eager then f = tide.capture(f) end
  return function() return tide.no_grad(f, x, t) end
end

function cases.sample()
  for _, p in ipairs(net:parameters()) do p:requires_grad(false) end
  local x = tide.randn(o.batch, 32, 32, 3):requires_grad()
  return function()
    x.grad = nil
    local out = diffusion.sample(net, x, {schedule = schedule, sampler = "ddim", steps = o.steps, spacing = "leading",
      grad = o.grad})
    out.x0:square():mean():backward()
  end
end

if o.check then
  local shared = assert(tide.io.load_safetensors(o.exchange .. "/check.safetensors"))
  local x = image(shared.inputs):requires_grad()
  local y = net(x, shared.times)
  local n = y.numel
  local w = image(tide.linspace(-1, 1, n):reshape(shared.outputs.shape))
  y:mul(w):sum():backward()
  local function apart(ours, theirs) return ((ours - theirs):norm() / theirs:norm()):item() end
  side.report(o.case, {difference = math.max(apart(y:detach(), image(shared.outputs)),
    apart(x.grad, image(shared["grad.inputs"])))})
else
  local work = assert(cases[o.case], "unknown case " .. o.case)()
  side.report(o.case, side.measure(work, o.repeats))
end
