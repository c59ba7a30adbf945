-- A visual effect becomes a condition: from a digit drawn with bold strokes, beside the same digit plain, an embedding
-- is learned through the sampler; added to the condition of other digits and noises it makes them bold too.
--
--   bin/tide examples/diffusion_token.lua [--steps 10] [--iterations 40] [--grad discrete|adjoint]
--     [--lr 0.05] [--seed 3] [--out diffusion_token.png]
--
-- The model knows classes only, by an embedding for each. What is learned is a vector that is added to them.

local tide = require "tide"
local diffusion, plot = tide.diffusion, tide.plot

local o = {steps = 10, iterations = 40, grad = "discrete", lr = 0.05, seed = 3, out = "diffusion_token.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: diffusion_token.lua [--steps n] [--iterations n] [--grad mode] "
    .. "[--lr x] [--seed n] [--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

local model, info = assert(diffusion.pretrained "digits")
local classifier = assert(diffusion.pretrained "digits-classifier")
local schedule = info.schedule
model:freeze()

local function words(classes) return tide.no_grad(function() return model.class_embedding(classes) end) end
local function sample(x_T, condition, grad)
  return diffusion.sample(model, x_T, {schedule = schedule, sampler = "ddim", steps = o.steps, condition = condition,
    grad = grad or "none"}).x0
end
local function bold(x) return tide.max_pool2d(x, {3, 3}, {1, 1}, {1, 1}) end  -- every stroke a pixel wider all around
local function ink(x) return ((x:clamp(-1, 1) + 1) / 2):mean():item() end

-- The example: four noises of the digit 3, plain, and what they are to look like.
local g = tide.generator(o.seed)
local x_T = schedule:noise({4, 28, 28, 1}, {generator = g})
local threes = words(tide.full({4}, 4, "int64"))
local plain = sample(x_T, threes)
local styled = bold(plain)

local token = tide.zeros(1, threes:size(2)):requires_grad()
local opt = tide.optim.Adam({token}, {lr = o.lr})
local losses, clock = {}, os.time()
local halfway
for i = 1, o.iterations do
  local x0 = sample(x_T, threes + token, o.grad)
  local loss = ((x0 - styled) ^ 2):mean()
  loss:backward()
  opt:step():zero_grad()
  losses[i] = loss:item()
  if i == math.ceil(o.iterations / 4) then halfway = x0:detach() end
  print(("iteration %2d of %d  loss %.4f"):format(i, o.iterations, losses[i]))
end
local learned = token:detach()
local after = sample(x_T, threes + learned)

-- Other digits, other noises: the same vector.
local classes = tide.arange(10):long()
local others = schedule:noise({10, 28, 28, 1}, {generator = g})
local without, with = sample(others, words(classes)), sample(others, words(classes) + learned)
local function right(x0)
  return tide.no_grad(function() return classifier(x0):argmax(2):eq(classes):sum():item() end)
end
print(("loss %.4f → %.4f in %d s"):format(losses[1], ((after - styled) ^ 2):mean():item(), os.time() - clock))
print(("ink on other digits %.3f → %.3f (%.3f if each were drawn bold), %d → %d of 10 recognised"):format(ink(without),
  ink(with), ink(bold(without)), right(without), right(with)))

local function row(x) return tide.cat({x, tide.full({6, 28, 28, 1}, 1)}, 1) end
local rows = tide.cat({row(plain), row(styled), row(halfway), row(after), without, with}, 1)
assert(plot.image_grid((rows:clamp(-1, 1) + 1) / 2, {cols = 10, range = {0, 1}, scale = 3, path = o.out,
  title = "an effect learned as a condition", row_labels = {"plain", "wanted", "during", "learned", "others, plain",
  "others, with it"}}))
print("drew " .. o.out)
assert(o.grad ~= "discrete" or o.iterations < 40 or ink(with) > 1.25 * ink(without), "the effect did not carry over")
