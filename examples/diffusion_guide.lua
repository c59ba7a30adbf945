-- Completes digits of which only the upper half is known: while sampling, the states are pushed by the gradient of how
-- far the sample's upper half, seen through a short sampler from there on, is from the given one.
--
--   bin/tide examples/diffusion_guide.lua [--steps 30] [--substeps 4] [--strength 1] [--seed 5]
--     [--out diffusion_guide.png]
--
-- This is symplectic adjoint guidance (arXiv 2312.12030): any differentiable loss of the finished picture will do.

local tide = require "tide"
local data, diffusion, plot = tide.data, tide.diffusion, tide.plot

local o = {steps = 30, substeps = 4, strength = 1, seed = 5, out = "diffusion_guide.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1],
    "usage: diffusion_guide.lua [--steps n] [--substeps n] [--strength x] [--seed n] [--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

local model, info = assert(diffusion.pretrained "digits")
local schedule = info.schedule
model:freeze()

-- The second held-out digit of each class, and the half of it that is given.
local _, test = assert(data.digits())
local picked = {}
for class = 1, 10 do picked[class] = test.images[test.labels:eq(class)][{{2, 2}}]:float() / 127.5 - 1 end
local truth = tide.cat(picked, 1)
local upper = tide.cat({tide.ones(1, 14, 28, 1), tide.zeros(1, 14, 28, 1)}, 2)
local function gap(x0) return (((x0 - truth) * upper) ^ 2):sum() end

local none = tide.full({10}, 11, "int64")
local sampling = {condition = none}
local x_T = schedule:noise({10, 28, 28, 1}, {generator = tide.generator(o.seed)})
local free = diffusion.sample(model, x_T, {schedule = schedule, steps = o.steps, condition = none}).x0

local during
local clock = os.time()
local result = diffusion.guide(model, x_T, gap, {
  schedule = schedule, steps = o.steps, substeps = o.substeps, strength = o.strength, sampling = sampling,
  from = 1, to = math.max(1, math.floor(0.9 * o.steps)),
  callback = function(i, n, node, x, loss)
    if i == math.ceil(0.8 * n) then during = x end
    if loss then print(("step %2d of %d  σ %.3f  loss %.2f"):format(i, n, node.sigma, loss)) end
  end,
})
local before, after = gap(free):item(), gap(result.x0):item()
print(("difference in the upper half %.1f → %.1f, %d s"):format(before, after, os.time() - clock))

local given = truth * upper + (upper - 1) * 0.5
local rows = tide.cat({free, given, during, result.x0, truth}, 1)
assert(plot.image_grid((rows:clamp(-1, 1) + 1) / 2, {cols = 10, range = {0, 1}, scale = 3, path = o.out,
  title = ("completed in %d steps"):format(o.steps),
  row_labels = {"unguided", "given", "on the way", "guided", "the digit"}}))
print("drew " .. o.out)
assert(o.steps < 30 or after < 0.3 * before, "the given half was not kept")
