-- Training: a stopped run goes on bit for bit, losses have the weights they should, and what cannot be trained is
-- refused. Evaluation: Fréchet distances, recognition and inversion against closed forms.

require "spec.helper"
local tide = require "tide"

local diffusion, nn = tide.diffusion, tide.nn

local function small_net(seed)
  local g = tide.generator(seed)
  return diffusion.UNet2DModel {in_channels = 1, out_channels = 1, block_out_channels = {8, 8}, layers_per_block = 1,
    norm_num_groups = 4, num_class_embeds = 4, dropout = 0.1, attention_head_dim = false,
    down_block_types = {"DownBlock2D", "AttnDownBlock2D"}, up_block_types = {"AttnUpBlock2D", "UpBlock2D"},
    generator = g}
end

-- As it is, and with a dropout layer that draws from a generator of its own.
local function with_own_generator(net)
  return nn.Module {drop = nn.Dropout(0.2, {generator = tide.generator(8)}), net = net,
    forward = function(self, x, t, c) return self.net(self.drop(x), t, c) end}
end

local function trainer_of(net)
  return diffusion.Trainer(net, {schedule = "linear", prediction = "v", weighting = "min_snr", null = 4, drop = 0.3,
    warmup = 3, ema = 0.9, seed = 5, rate = tide.optim.exponential {factor = 0.9}})
end

local function loader_of()
  local g = tide.generator(3)
  return tide.data.Loader {images = g:rand(10, 4, 4, 1), labels = g:randint(1, 3, 10), batch = 4, seed = 2}
end

describe("a training run", function()
  local path = os.tmpname()
  teardown(function() os.remove(path) end)

  it("that was saved goes on with the same bits", function()
    tide.manual_seed(1)
    local whole = trainer_of(with_own_generator(small_net(1))):run {loader = loader_of(), steps = 7}
    tide.manual_seed(1)
    local first = trainer_of(with_own_generator(small_net(1))):run {loader = loader_of(), steps = 4}
    assert(first:save(path))
    tide.manual_seed(99)
    local second = assert(trainer_of(with_own_generator(small_net(2))):load(path))
    assert.are.equal(4, second.steps)
    second:run {loader = loader_of(), steps = 7}
    assert.are.equal(whole.loss, second.loss)
    local state = whole.model:state_dict()
    for name, t in pairs(second.model:state_dict()) do assert.is_true(tide.equal(t, state[name]), name) end
    for i, a in ipairs(second.average.averages) do assert.is_true(tide.equal(a, whole.average.averages[i])) end
    for name, t in pairs(second.optimiser:state_dict()) do
      assert.is_true(tide.equal(t, whole.optimiser:state_dict()[name]), name)
    end
  end)

  it("is the same captured and as it is, and dropout draws anew in both", function()
    local losses = {}
    for _, capture in ipairs {true, false} do
      tide.manual_seed(4)
      local trainer = diffusion.Trainer(small_net(1), {schedule = "linear", seed = 3, capture = capture, lr = 1e-3})
      local x, y = tide.generator(1):randn(4, 4, 4, 1), tide.tensor({1, 2, 3, 1}, "int64")
      local list = {}
      for i = 1, 3 do list[i] = trainer:step(x, y) end
      losses[#losses + 1] = list
      if capture then assert.is_nil(trainer.captured:reason()) end
    end
    assert.close(losses[1], losses[2], 1e-5)
    -- with nothing learnt and the same noise, only the masks of dropout differ
    local trainer = diffusion.Trainer(small_net(1), {schedule = "linear", lr = 0, seed = 3})
    local x, y, list = tide.generator(1):randn(4, 4, 4, 1), tide.tensor({1, 2, 3, 1}, "int64"), {}
    for i = 1, 2 do
      trainer.generator:seed(3)
      list[i] = trainer:step(x, y)
    end
    assert.are_not.equal(list[1], list[2])
  end)

  it("reports, stops when told, and counts all steps", function()
    local seen = {}
    local trainer = trainer_of(small_net(1))
    trainer:run {loader = loader_of(), steps = 9, every = 2, progress = function(t, loss)
      seen[#seen + 1] = t.steps
      assert.is_true(loss > 0)
      return t.steps < 6
    end}
    assert.are.same({2, 4, 6}, seen)
    assert.are.equal(6, trainer.steps)
  end)

  it("does not go on from anything else", function()
    assert(tide.io.save_safetensors(path, {x = tide.ones(2)}))
    local nothing, why = trainer_of(small_net(1)):load(path)
    assert.is_nil(nothing)
    assert.matches("expected a trainer's checkpoint", why, 1, true)
    nothing, why = trainer_of(small_net(1)):load "/nowhere"
    assert.is_nil(nothing)
    assert.matches("/nowhere", why, 1, true)
  end)

  it("learns: the noise of points at the origin is x over sigma", function()
    tide.manual_seed(0)
    local net = nn.Module {out = nn.Linear(1, 1), forward = function(self, x) return self.out(x) end}
    -- under the flow's schedule x = t·ε/T, and the prediction of x0 is 0 whatever x is
    local trainer = diffusion.Trainer(net, {schedule = "flow", prediction = "x0", lr = 0.05})
    for _ = 1, 300 do trainer:step(tide.zeros(64, 1)) end
    assert.is_true(trainer.loss < 1e-3)
    trainer:with_average(function()
      assert.is_false(net.training)
      assert.is_false(tide.is_grad_enabled())
    end)
    assert.is_true(net.training)
  end)

  it("replaces conditions by the null one, for the share that is asked for", function()
    local told
    local net = nn.Module {w = nn.Linear(1, 1), forward = function(self, x, _, c)
      told = c
      return self.w(x)
    end}
    local classes = tide.full({500}, 2, "int64")
    local function share(drop)
      local trainer = diffusion.Trainer(net, {schedule = "linear", null = 9, drop = drop, capture = false})
      trainer:step(tide.randn(500, 1), classes)
      return told:eq(9):double():mean():item()
    end
    assert.are.equal(1, share(1))
    assert.are.equal(0, share(0))
    assert.is_true(math.abs(share(0.3) - 0.3) < 0.08)
    local trainer = diffusion.Trainer(net, {schedule = "linear", null = tide.zeros(3), drop = 1, capture = false})
    trainer:step(tide.randn(5, 1), tide.ones(5, 3))
    assert.are.equal(0, told:abs():max():item())
  end)

  it("stops before a loss that is not finite spoils the weights", function()
    local net = nn.Module {w = nn.Linear(1, 1), forward = function(self, x) return self.w(x) end}
    local trainer = diffusion.Trainer(net, {schedule = "linear"})
    local before = net.w.weight:detach():clone()
    assert.fails_here(function() trainer:step(tide.full({4, 1}, 1e30)) end, "the norm of the gradient is",
      "at step 1")
    assert.fails_here(function() trainer:step(tide.full({4, 1}, math.huge)) end, "the batch is not finite")
    assert.is_true(tide.equal(before, net.w.weight))
    assert.are.equal(0, trainer.steps)
  end)

  it("is refused with options that make no sense", function()
    local net = nn.Linear(1, 1)
    assert.fails_here(function() diffusion.Trainer(net, {weighting = "p2"}) end, "weighting is p2", "min_snr")
    assert.fails_here(function() diffusion.Trainer(net, {drop = 2}) end, "drop is 2", "0 to 1")
    assert.fails_here(function() diffusion.Trainer(net, {times = "cosmic"}) end,
      "times is \"cosmic\", expected \"uniform\" or \"logit_normal\"")
    assert.fails_here(function() diffusion.Trainer(net, {leraning = 1}) end, "leraning")
    local trainer = diffusion.Trainer(nn.Module {w = nn.Linear(1, 2), forward = function(self, x) return self.w(x) end})
    assert.fails_here(function() trainer:step(tide.zeros(2, 1)) end, "(2×2)", "(2×1)")
    assert.fails_here(function() trainer:step(3) end, "a number")
  end)
end)

describe("loss weights", function()
  it("weigh the error in x0, whatever is predicted", function()
    local s = diffusion.Schedule "linear"
    for _, t in ipairs {0, 300, 999} do
      local node = s:node(t)
      local snr = (node.alpha / node.sigma) ^ 2
      for kind, factor in pairs {x0 = 1, epsilon = 1 / snr, v = 1 / (snr + 1)} do
        assert.close(diffusion.loss_weight(s, t, kind, "min_snr"), math.min(snr, 5) * factor, 1e-9)
        assert.close(diffusion.loss_weight(s, t, kind, "truncated_snr"), math.max(snr, 1) * factor, 1e-9)
        assert.are.equal(1, diffusion.loss_weight(s, t, kind, "uniform"))
      end
      assert.close(diffusion.loss_weight(s, t, "epsilon", "snr"), 1, 1e-9)
    end
    -- the error of a flow ε − x0 at x is that of x0 over σ
    assert.close(diffusion.loss_weight(diffusion.Schedule "flow", 250, "flow", "min_snr", 100), 9 * 0.25 ^ 2, 1e-9)
  end)
end)

describe("a Fréchet distance", function()
  it("is that of normal distributions", function()
    -- rows whose mean and variances are known exactly: ±1 times scales
    local signs = {}
    for i = 0, 7 do
      signs[i + 1] = {i % 2 * 2 - 1, math.floor(i / 2) % 2 * 2 - 1, math.floor(i / 4) * 2 - 1}
    end
    local x = tide.tensor(signs, "float64")  -- uncorrelated, each of variance 8/7
    local a, b = x * tide.tensor({1, 2, 3}, "float64"), x * tide.tensor({2, 2, 0.5}, "float64") + 1
    local d, about = diffusion.frechet(a, b)
    assert.close(d, 3 + 8 / 7 * (1 + 0 + 2.5 ^ 2), 1e-9)
    assert.are.same({8, 8}, about.samples)
    assert.is_false(about.singular)
    local g = tide.generator(1)
    local q = tide.nn.init.orthogonal(tide.zeros(3, 3, "float64"), {generator = g})
    assert.close((diffusion.frechet(a:mm(q), b:mm(q))), d, 1e-9)
    assert.is_true(diffusion.frechet(a, a) < 1e-9)
    assert.is_true(select(2, diffusion.frechet(a[{{1, 3}}], b)).singular)
  end)

  it("is refused for what are no features of one kind", function()
    assert.fails_here(function() diffusion.frechet(tide.zeros(3), tide.zeros(3, 2)) end, "the first set", "(3)")
    assert.fails_here(function() diffusion.frechet(tide.zeros(3, 2), tide.zeros(3, 4)) end, "2 and 4 channels")
  end)
end)

describe("recognition", function()
  it("counts what the classifier says, with an interval", function()
    local function classifier(x) return x:reshape(x:size(1), 3) end
    local images = tide.tensor {{1, 0, 0}, {0, 1, 0}, {0, 1, 0}, {0, 0, 1}}:reshape(4, 1, 3, 1)
    local share, about = diffusion.recognised(classifier, images, tide.tensor({1, 2, 3, 3}, "int64"), {batch = 3})
    assert.are.equal(0.75, share)
    assert.are.same({1, 1, 0.5}, about.by_class)
    assert.are.equal(4, about.samples)
    assert.close({about.low, about.high}, {0.300642, 0.954413}, 1e-5)
    assert.fails_here(function() diffusion.recognised(classifier, images, tide.tensor {1, 2}) end, "the classes are")
  end)

  it("has features of a classifier, in batches", function()
    local c = diffusion.Classifier {block_out_channels = {8, 16}}
    local x = tide.randn(5, 8, 8, 1)
    local f = diffusion.features(c, x, {batch = 2})
    assert.are.same({5, 16}, f.shape)
    assert.close(f, c:features(x):detach())
    assert.close(c:maps(x)[2]:mean {2, 3}, c:features(x))
    assert.close(c.head(c:features(x)), c(x))
  end)
end)

describe("inversion", function()
  it("gives the image back up to an error of first order", function()
    local s = diffusion.Schedule "linear"
    -- exact for normal data of standard deviation ½
    local function model(x, t)
      local a, b = s:alpha(t:item()), s:sigma(t:item())
      return x * (b / (a * a / 4 + b * b))
    end
    local x0 = tide.generator(1):randn({2, 4, 4, 1}, "float64") / 2
    local function error(steps) return (diffusion.inversion_error(model, x0, {schedule = s, steps = steps})) end
    local coarse, fine = error(50), error(200)
    assert.is_true(fine < 0.05)
    assert.is_true(coarse / fine > 3 and coarse / fine < 5.5)
    local _, about = diffusion.inversion_error(model, x0, {schedule = s, steps = 400})
    local exact = x0 * math.sqrt((s:alpha(999) ^ 2 / 4 + s:sigma(999) ^ 2) / (s:alpha(0) ^ 2 / 4 + s:sigma(0) ^ 2))
    assert.close(about.x_T, exact, 0.05)
    assert.are.equal(2, about.samples)
  end)
end)
