-- Trains a HomoODE on the handwritten digits that come with tide, prints what it did and draws it.
--
--   bin/tide examples/homoode_digits.lua [--epochs 20] [--seed 1]
--     [--grad discrete|adjoint|frozen] [--out homoode_digits.png]
--
-- Every image's equilibrium is reached by an ODE that starts from one point shared by all images;
-- only the features that enter the field tell them apart. The gradient is the exact derivative of
-- the steps that the solver took.

local tide = require "tide"
local nn, optim, implicit, data, plot = tide.nn, tide.optim, tide.implicit, tide.data, tide.plot

local o = {epochs = 20, seed = 1, grad = "discrete", out = "homoode_digits.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1],
    "usage: homoode_digits.lua [--epochs n] [--seed n] [--grad mode] [--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

tide.manual_seed(o.seed)
local train, test = assert(data.digits())
local normalize = {mean = {0.1307}, std = {0.3081}}
local batches = data.Loader {images = train.images, labels = train.labels, batch = 32, crop = 2,
  seed = o.seed, normalize = normalize, drop_last = true}
local held_out = data.Loader {images = test.images, labels = test.labels, batch = 500,
  shuffle = false, normalize = normalize}

local model = implicit.HomoODE {inputs = 1, channels = 32, groups = 8, head_width = 64,
  stem_stride = 2, point = "pattern", method = "bosh3", rtol = 5e-2, atol = 5e-2, grad = o.grad}
local opt = optim.Adam(model:trained_parameters(), {lr = 4e-3})
local schedule = optim.Schedule(opt, optim.one_cycle {steps = o.epochs * batches.batches})

-- Share of the held-out digits recognised, and the evaluations that one solve took.
local function evaluate()
  model:eval()
  local right, nfe = 0, 0
  tide.no_grad(function()
    for x, y in held_out:epoch(1) do
      right = right + model(x):argmax(2):eq(y):sum():item()
      nfe = nfe + model.stats.nfe
    end
  end)
  model:train()
  return right / held_out.count, nfe / held_out.batches
end

print(("HomoODE, %d parameters, gradient mode %s, %d threads, %s"):format(model:count(), o.grad,
  tide.threads(), tide.isa()))
local losses, accuracies = {}, {}
local clock = os.time()
for epoch = 1, o.epochs do
  local total, nfe, nfe_b, began = 0, 0, 0, os.time()
  for x, y in batches:epoch(epoch) do
    local loss = nn.cross_entropy(model(x), y)
    loss:backward()
    opt:step():zero_grad()
    schedule:step()
    total, nfe, nfe_b = total + loss:item(), nfe + model.stats.nfe, nfe_b + model.stats.nfe_b
  end
  local n = batches.batches
  losses[epoch], accuracies[epoch] = total / n, 100 * evaluate()
  print(("epoch %2d  loss %.4f  test accuracy %.2f %%  NFE forward %.1f, backward %.1f  %d s")
    :format(epoch, losses[epoch], accuracies[epoch], nfe / n, nfe_b / n, os.time() - began))
  io.stdout:flush()
end
local accuracy, nfe = evaluate()
print(("test accuracy %.2f %% (last epoch)  NFE %.1f  %.1f s per epoch  peak memory %.0f MB")
  :format(100 * accuracy, nfe, (os.time() - clock) / o.epochs, tide.memory().peak / 1e6))

-- ---- The picture ----

local shown = 300  -- digits whose paths are drawn
local images = held_out:epoch(1)()
local labels = test.labels:totable()

-- The two directions in which the rows of a matrix spread most, and their mean: by the eigenvectors
-- of the rows' products, which are fewer than the columns'.
local function principal_components(points)
  local mean = points:mean(1, true)
  local centred = (points - mean):double()
  local _, vectors = tide.linalg.eigh(centred:matmul(centred:t()))
  local top = centred:t():matmul(vectors[{{}, {vectors:size(2) - 1, vectors:size(2)}}])
  return mean, (top / top:norm(1, true)):float()
end

local function draw_learning(ax)
  local epochs = tide.arange(o.epochs)
  ax:line(epochs, losses, {label = "training loss", marker = "o"})
  ax:twin {ylabel = "test accuracy, %"}
    :line(epochs, accuracies, {label = "test accuracy", color = plot.color(2), marker = "s"})
end

-- z(t) in the plane in which the endpoints spread most.
local function draw_paths(ax)
  local times = tide.linspace(0, 1, 21, "float64")
  local z = model:solve(model.stem(images[{{1, shown}}]), times).ys:flatten(3)
  local mean, plane = principal_components(z[-1])
  local p = (z - mean):matmul(plane)
  local classes = test.labels[{{1, shown}}]
  for i = 1, shown do
    ax:line(p[{{}, i, 2}], p[{{}, i, 1}],
      {color = plot.color(labels[i]), width = 0.8, alpha = 0.35})
  end
  ax:scatter(p[{-1, {}, 2}], p[{-1, {}, 1}], {color = classes, size = 5})
  for class, name in ipairs(test.classes) do
    local centre = p[-1][classes:eq(class)]:mean(1)
    ax:text(centre[2]:item(), centre[1]:item(), name, {size = 18, align = "center"})
  end
end

local function draw_samples(ax)
  local rows, wide = {}, 8
  local guess = model(images):argmax(2):totable()
  for r = 1, 4 do
    local row = test.images[{{(r - 1) * wide + 1, r * wide}}]:float():permute(2, 1, 3, 4)
    rows[r] = tide.cat({row:reshape(28, 28 * wide), tide.zeros(10, 28 * wide)}, 1)
  end
  ax:image(255 - tide.cat(rows, 1))
  for i = 1, 4 * wide do
    ax:text(((i - 1) % wide + 0.5) * 28, math.floor((i - 1) / wide) * 38 + 33,
      test.classes[guess[i]],
      {size = 13, align = "center", color = guess[i] == labels[i] and "#2a7f3f" or "#c0392b"})
  end
end

model:eval()
tide.no_grad(function()
  local fig = plot.figure {width = 1500, height = 480, cols = 3,
    title = ("HomoODE on handwritten digits: %.2f %% on %d unseen ones"):format(100 * accuracy,
      held_out.count)}
  draw_learning(fig:axes(1, {title = "learning", xlabel = "epoch", ylabel = "loss",
    yscale = "log"}))
  draw_paths(fig:axes(2, {title = "z(t) from the shared point",
    xlabel = "first principal component", ylabel = "second"}))
  draw_samples(fig:axes(3, {title = "unseen digits and what they were taken for", grid = false,
    box = false, xticks = {}, yticks = {}}))
  assert(fig:save(o.out))
end)
print("drew " .. o.out)
assert(o.epochs < 20 or accuracy >= 0.98, "the digits were not learned as well as they should be")
