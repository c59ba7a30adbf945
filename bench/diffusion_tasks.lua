-- Four tasks of a digit model by the exact gradient of the sampler's steps, by AdjointDPM's continuous adjoint and by
-- AdjointDEIS-2M, at 10, 20 and 50 steps of DDIM: the same start, optimiser and iterations for each, and a curve.
--
--   bin/tide bench/diffusion_tasks.lua [--task all|noise|token|style|audit] [--iterations 15] [--count 4]
--     [--seed 4] [--out DIR/diffusion]

local tide = require "tide"
local data, diffusion, nn, plot = tide.data, tide.diffusion, tide.nn, tide.plot

local o = {task = "all", iterations = 15, count = 4, seed = 4, out = "diffusion"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: diffusion_tasks.lua [--task all|noise|token|style|audit] "
    .. "[--iterations n] [--count n] [--seed n] [--out prefix]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

local counts = {10, 20, 50}
local modes = {"discrete", "adjoint", "adjoint_2m"}
local label = {discrete = "exact", adjoint = "AdjointDPM", adjoint_2m = "AdjointDEIS-2M"}

local model, info = assert(diffusion.pretrained "digits")
local classifier = assert(diffusion.pretrained "digits-classifier")
local schedule = info.schedule
model:freeze()
classifier:freeze()
local _, test = assert(data.digits())

local function noise(n) return schedule:noise({n, 28, 28, 1}, {generator = tide.generator(o.seed)}) end

local function sampled(net, x_T, condition, steps, grad)
  return diffusion.sample(net, x_T, {schedule = schedule, steps = steps, condition = condition, grad = grad}).x0
end

-- Iterations of Adam on a loss of the targets; the last value is that after the last step.
local function descend(targets, lr, loss_at, iterations, clip)
  local opt, losses = tide.optim.Adam(targets, {lr = lr}), {}
  for i = 1, iterations do
    local loss = loss_at()
    losses[i] = loss:item()
    loss:backward()
    if clip then tide.optim.clip_grad_norm(targets, clip) end
    opt:step():zero_grad()
  end
  losses[iterations + 1] = tide.no_grad(loss_at):item()
  return losses
end

-- ---- The tasks: each gives a list of values, before the first iteration and after each ----

local tasks = {}

-- The noise of held-out digits.
tasks.noise = {title = "noise found for held-out digits", what = "mean squared error", run = function(mode, steps)
  local target = test.images[{{1, o.count}}]:float() / 127.5 - 1
  local x = noise(o.count):requires_grad()
  return diffusion.optimise(model, x, function(x0) return ((x0 - target) ^ 2):mean() end, {
    iterations = o.iterations, lr = 0.15, sampling = {schedule = schedule, steps = steps, grad = mode,
      condition = tide.full({o.count}, 11, "int64")},
  }).losses
end}

-- A vector, added to the condition, that draws a digit bold.
tasks.token = {title = "an effect learned as a condition", what = "mean squared error", run = function(mode, steps)
  local x_T = noise(o.count)
  local word = tide.no_grad(function() return model.class_embedding(tide.full({o.count}, 4, "int64")) end)
  local wanted = tide.max_pool2d(sampled(model, x_T, word, steps, "none"), {3, 3}, {1, 1}, {1, 1})
  local token = tide.zeros(1, word:size(2)):requires_grad()
  return descend({token}, 0.1, function()
    return ((sampled(model, x_T, word + token, steps, mode) - wanted) ^ 2):mean()
  end, o.iterations)
end}

-- Adapters that learn stripes by Gram matrices of the classifier's maps.
tasks.style = {title = "a style learned by adapters", what = "style loss", run = function(mode, steps)
  local net = assert(diffusion.pretrained "digits")
  tide.manual_seed(o.seed)
  nn.lora.add(net, {rank = 4})
  local stripes = tide.arange(28):mod(4):lt(2):float():reshape(1, 28, 1, 1)
  local function gram(x) return diffusion.gram(classifier:maps(x)[1]):mean(1) end
  local wanted = tide.no_grad(gram, (test.images[{{1, 40}}]:float() / 127.5) * stripes - 1)
  local x_T, classes = noise(o.count), tide.arange(o.count):long()
  return descend(net:parameters(), 0.01, function()
    return ((gram(sampled(net, x_T, classes, steps, mode)) - wanted) ^ 2):sum() / (wanted ^ 2):sum()
  end, o.iterations, 1)
end}

-- The share of 10·count recognised samples that the classifier misreads, the noise moved by at most 0.1.
tasks.audit = {title = "samples made misread, noise moved by at most 0.1", what = "share misread", linear = true,
  run = function(mode, steps)
    local n, rates = 10 * o.count, {}
    local c = tide.arange(0, 2 * n - 1, 1, "int64"):mod(10) + 1
    local x_T = noise(2 * n)
    local right = tide.no_grad(function() return classifier(sampled(model, x_T, c, steps, "none")):argmax(2):eq(c) end)
    x_T, c = x_T[right][{{1, n}}], c[right][{{1, n}}]
    local r = diffusion.attack(model, x_T, function(x0)
      return nn.cross_entropy(classifier(x0), c, {reduction = "none"})
    end, {bound = 0.1, step = 0.03, iterations = math.min(o.iterations, 8),
      success = function(x0) return classifier(x0):argmax(2):ne(c) end,
      sampling = {schedule = schedule, steps = steps, condition = c, grad = mode},
      callback = function(i, _, _, found) rates[i] = found:sum():item() / n end})
    rates[#rates + 1] = r.rate
    return rates
  end}

-- ---- Curves ----

for _, name in ipairs {"noise", "token", "style", "audit"} do
  local task = tasks[name]
  if o.task == "all" or o.task == name then
    print(("%s: %s, DDIM"):format(task.title, task.what))
    local fig = plot.figure {width = 1200, height = 380, cols = #counts, title = task.title}
    for i, steps in ipairs(counts) do
      local ax = fig:axes(i, {title = steps .. " steps", xlabel = "iteration", ylabel = i == 1 and task.what or nil,
        yscale = not task.linear and "log" or nil})
      for _, mode in ipairs(modes) do
        local clock = os.clock()
        local ok, values = pcall(task.run, mode, steps)
        if ok then
          print(("%3d steps  %-14s  %.4f → %.4f, least %.4f, %.0f s of processor time"):format(steps, label[mode],
            values[1], values[#values], math.min(unpack(values)), os.clock() - clock))
          ax:line(tide.arange(0, #values - 1), values, {label = label[mode]})
        else
          print(("%3d steps  %-14s  failed: %s"):format(steps, label[mode], values))
        end
        io.stdout:flush()
      end
    end
    assert(fig:save(("%s_%s.png"):format(o.out, name)))
  end
end
