-- Optimises the initial noise of a diffusion model so that its samples become pictures that are given: ten digits that
-- somebody wrote and the model has not seen. The sampler hands the gradient of the difference back to the noise.
--
--   bin/tide examples/diffusion_noise.lua [--steps 10] [--iterations 40] [--grad discrete|adjoint]
--     [--sampler ddim] [--lr 0.15] [--seed 4] [--out diffusion_noise.png]
--
-- The norm of every noise is kept, so that the model sees what it was trained on; its weights never change.

local tide = require "tide"
local data, diffusion, plot = tide.data, tide.diffusion, tide.plot

local o = {steps = 10, iterations = 40, grad = "discrete", sampler = "ddim", lr = 0.15, seed = 4,
  out = "diffusion_noise.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: diffusion_noise.lua [--steps n] [--iterations n] [--grad mode] "
    .. "[--sampler name] [--lr x] [--seed n] [--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

local model, info = assert(diffusion.pretrained "digits")
local classifier = assert(diffusion.pretrained "digits-classifier")
local schedule = info.schedule
model:freeze()  -- nothing but the noise needs a gradient

-- The first held-out digit of each class, from −1 to 1.
local _, test = assert(data.digits())
local picked, classes = {}, tide.arange(10):long()
for class = 1, 10 do
  picked[class] = test.images[test.labels:eq(class)][{{1, 1}}]:float() / 127.5 - 1
end
local target = tide.cat(picked, 1)

local x_T = schedule:noise({10, 28, 28, 1}, {generator = tide.generator(o.seed)}):requires_grad()
local none = tide.full({10}, 11, "int64")  -- the class that stands for none
local sampling = {schedule = schedule, sampler = o.sampler, steps = o.steps, condition = none, grad = o.grad}
local function metric(x0) return ((x0 - target) ^ 2):mean() end

local function recognised(x0)
  return tide.no_grad(function() return classifier(x0):argmax(2):eq(classes):sum():item() end)
end

local shown, at = {}, {[1] = true, [4] = true, [8] = true, [16] = true}
local clock = os.time()
local result = diffusion.optimise(model, x_T, metric, {
  iterations = o.iterations, lr = o.lr, sampling = sampling,
  callback = function(i, n, loss, out)
    if at[i] then shown[#shown + 1] = {("iteration %d"):format(i - 1), out.x0:detach()} end
    print(("iteration %2d of %d  loss %.4f  %d of 10 recognised"):format(i, n, loss, recognised(out.x0)))
  end,
})
shown[#shown + 1] = {("iteration %d"):format(o.iterations), result.x0}
shown[#shown + 1] = {"wanted", target}
local found = recognised(result.x0)
print(("loss %.4f → %.4f, %d of 10 recognised, %d s"):format(result.before, result.after, found, os.time() - clock))
print(result.out)

-- ---- The picture: a row for each of some iterations ----

local rows, labels = {}, {}
for i, s in ipairs(shown) do rows[i], labels[i] = (s[2]:clamp(-1, 1) + 1) / 2, s[1] end
assert(plot.image_grid(tide.cat(rows, 1), {cols = 10, range = {0, 1}, scale = 3, path = o.out, row_labels = labels,
  title = ("noise optimised through %d steps of %s"):format(o.steps, o.sampler)}))
print("drew " .. o.out)
assert(o.grad ~= "discrete" or o.iterations < 40 or result.after < 0.2 * result.before, "the noise was not found")
