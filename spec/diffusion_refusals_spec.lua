-- Wrong calls of tide.diffusion: each is refused at the caller's line with what was expected, what came and where.

local assert = require "luassert"
require "spec.helper"
local tide = require "tide"
local diffusion, nn, optim = tide.diffusion, tide.nn, tide.optim

local x = tide.randn(2, 4, 4, 3)
local function model(y) return y * 0.5 end
local function metric(x0) return (x0 ^ 2):mean() end
local function each(x0) return x0:sum {dims = {2, 3, 4}} end

local function refuses(what, part, f)
  it(what, function() assert.fails_here(f, part) end)
end

-- f(wrong options) for each of a list of {options, part of the message}.
local function refuses_all(list, f)
  for _, case in ipairs(list) do
    refuses(case[2], case[2], function() f(case[1]) end)
  end
end

local function tiny(more)
  local o = {sample_size = 4, in_channels = 3, out_channels = 3, block_out_channels = {4, 4}, layers_per_block = 1,
    down_block_types = {"DownBlock2D", "DownBlock2D"}, up_block_types = {"UpBlock2D", "UpBlock2D"},
    norm_num_groups = 2, attention_head_dim = 2}
  for key, value in pairs(more or {}) do o[key] = value end
  return diffusion.UNet2DModel(o)
end

describe("diffusion.sample refuses", function()
  refuses_all({
    {{steps = "20"}, "steps is \"20\", expected a whole number, 1 or more"},
    {{guidance = 1 / 0, condition = 1}, "guidance is inf, expected a number"},
    {{sampler = "dpmp_2m"}, "unknown sampler \"dpmp_2m\", did you mean \"dpmpp_2m\"?"},
    {{num_inference_steps = 20}, "unknown option \"num_inference_steps\", here it is steps"},
    {{sampler = "DPM++ 2M"}, "unknown sampler \"DPM++ 2M\", here it is dpmpp_2m"},
    {{sampler = "EulerAncestralDiscreteScheduler"}, "here it is euler_a"},
    {{wrt = "weights"}, "wrt is a string, expected a list of tensors"},
    {{wrt = 3}, "wrt is a number, expected a list of tensors"},
    {{wrt = nn.Linear(1, 1)}, "wrt is a table, expected a list of tensors; for a module pass module:parameters()"},
    {{sampler = "euler_a", noise = 42}, "noise is 42, expected a generator (tide.generator(seed)) or a list of"},
    {{sampler = "euler_a", noise = x}, "noise is float32 of shape (2×4×4×3), expected a generator"},
    {{latents = x}, "latents is float32 of shape (2×4×4×3), expected true or false"},
    {{callback = "print"}, "callback is \"print\", expected a function callback(step, steps, node, x)"},
    {{clip = -1}, "clip is -1, expected a number above 0"},
    {{rescale = -1}, "rescale is -1, expected a number from 0 to 1"},
    {{classifier = "resnet"}, "classifier is \"resnet\", expected a function classifier(x, t)"},
    {{classifier = function(y) return y:detach():sum() end}, "the classifier's log-probability does not depend on x"},
    {{truncated = "all"}, "truncated is \"all\", expected a whole number, 1 or more"},
    {{schedule = "flow", prediction = "epsilon"}, "a prediction of epsilon does not tell x0 at t = 1000, where α = 0"},
    {{sampler = "ode", checkpoint = 2}, "checkpoint is for other samplers"},
    {{sampler = "ode", truncated = 2}, "truncated is for other samplers"},
  }, function(o) diffusion.sample(model, x, o) end)

  refuses("values that are not finite within a solver's steps", "not finite at step 3 (t = ", function()
    diffusion.sample(function(y, t) return t:item() < 700 and y / 0 or y * 0.1 end, x, {steps = 5, sampler = "ode"})
  end)
end)

describe("names from elsewhere", function()
  local elsewhere = require "tide.diffusion.elsewhere"
  local is_option = require("tide.diffusion.known_options").is_option
  it("are answered with names that are there", function()
    for name, here in pairs(elsewhere.options) do
      assert.is_true(is_option(here:match "^%w+"), here)
      assert.is_false(is_option(name), name)
    end
    for name, here in pairs(elsewhere.samplers) do
      assert.is_truthy(diffusion.samplers[here:match "^[%w_]+"], here)
      assert.is_nil(diffusion.samplers[name])
    end
  end)
end)

describe("the points of a schedule are refused with", function()
  local list = {
    {{timesteps = 10}, "timesteps is 10, expected a list of numbers"},
    {{timesteps = {}}, "timesteps is empty"},
    {{timesteps = tide.tensor {10, 5}}, "timesteps is float32 of shape (2), expected a list of numbers"},
    {{timesteps = {10, "5"}}, "timesteps[2] is \"5\", expected a number from 0 to 999"},
    {{timesteps = {0 / 0, 5}}, "timesteps[1] is nan, expected a number from 0 to 999"},
    {{sigmas = {10, -1}}, "sigmas[2] is -1, expected a number from 0 to 1e+30"},
    {{sigmas = {1 / 0, 1}}, "sigmas[1] is inf"},
    {{sigmas = {0}}, "one point is no step"},
    {{sigmas = {10, 1}, timesteps = {5, 1}}, "timesteps and sigmas are given, expected one of them"},
    {{spacing = "kerras"}, "unknown spacing \"kerras\", did you mean \"karras\"?"},
    {{spacing = "karras", rho = 0}, "rho is 0, expected a number above 0"},
    {{spacing = "karras", sigma_min = "a"}, "sigma_min is \"a\", expected a number above 0"},
    {{spacing = "karras", sigma_min = 5, sigma_max = 1}, "step 1 goes from σ̂ = 1 to"},
    {{rho = 5}, "rho is for spacing \"karras\", not for trailing"},
    {{sigma_min = 0.1, spacing = "leading"}, "sigma_min is for spacing \"karras\" or \"exponential\", not for leading"},
    {{timesteps = {10, 5}, offset = 1}, "offset is for spacing \"leading\", not for timesteps"},
    {{spacing = "leading", offset = 0.5}, "offset is 0.5, expected a whole number, 0 or more"},
    {{spacing = "leading", offset = 5000, steps = 4}, "expected less noise after each step"},
  }
  refuses_all(list, function(o) diffusion.sample(model, x, o) end)
  refuses_all({list[1], list[8]}, function(o) diffusion.Schedule("linear"):nodes(o) end)
end)

describe("diffusion.Schedule", function()
  local s = diffusion.Schedule "linear"
  refuses_all({
    {{"linaer"}, "unknown schedule \"linaer\", did you mean \"linear\"?"},
    {{"linear", {beta_start = "0.1"}}, "beta_start is \"0.1\", expected a number above 0"},
    {{"linear", {betas = {0.1, 0.2}}}, "Schedule \"linear\": unknown option \"betas\""},
    {{"cosine", {beta_start = 0.1}}, "Schedule \"cosine\": unknown option \"beta_start\""},
    {{"linear", {shift = 3}}, "Schedule \"linear\": unknown option \"shift\""},
    {{"flow", {shift = 0}}, "shift is 0, expected a number above 0"},
    {{"edm", {sigma_min = 0}}, "sigma_min is 0, expected a number above 0"},
    {{"edm", {sigma_min = 5, sigma_max = 1}}, "sigma_min is 5, expected less than sigma_max, 1"},
    {{"betas"}, "betas is missing, expected a list of numbers"},
    {{"betas", {betas = tide.ones(5)}}, "betas is float32 of shape (5), expected a list of numbers"},
  }, function(c) diffusion.Schedule(c[1], c[2]) end)

  it("of betas of one's own has as many times", function()
    local own = diffusion.Schedule("betas", {betas = {0.1, 0.2, 0.3}})
    assert.are.equal(3, own.steps)
    assert.are.same({2, 1, 0}, own:timesteps {steps = 3})
  end)

  refuses("times that are words", "a time is a string, expected a number", function() s:node("a") end)
  refuses("no λ", "lambda is a nil, expected a number", function() s:node_at() end)
  refuses("words for λ", "lambda is \"a\", expected a number", function() s:time("a") end)
  refuses("images that are none", "the images are a nil, expected a tensor", function() s:add_noise(nil, x, 3) end)
  refuses("no times", "a time is a nil, expected a number or a tensor", function() s:add_noise(x, x) end)
  refuses("a seed for a generator", "generator is 3, expected a generator", function()
    s:noise({2}, {generator = 3})
  end)
  refuses("a weight of an unknown prediction", "unknown prediction \"eps\"", function()
    diffusion.loss_weight(s, 3, "eps", "snr")
  end)
end)

describe("diffusion.optimise refuses", function()
  local function leaf() return tide.randn(2, 4, 4, 3):requires_grad() end
  refuses_all({
    {{shell = "a"}, "shell is \"a\", expected a number, 0 or more"},
    {{keep_norm = "yes"}, "keep_norm is \"yes\", expected true or false"},
    {{clip_grad = 0}, "clip_grad is 0, expected a number above 0"},
    {{callback = 3}, "callback is 3, expected a function"},
    {{sampling = "ddim"}, "sampling is \"ddim\", expected a table of options"},
    {{sampling = diffusion.Schedule "linear"}, "sampling is a table, expected a table of options"},
    {{optimiser = optim.Adam({leaf()})}, "unknown optimiser a table, expected"},
    {{optimiser = function() end}, "the function optimiser gave a nil, expected an optimiser"},
  }, function(o) diffusion.optimise(model, leaf(), metric, o) end)

  it("nothing about a single target", function()
    local z = leaf()
    local r = diffusion.optimise(model, z, metric, {targets = z, iterations = 2, sampling = {steps = 2}})
    assert.are.equal(3, #r.losses)
  end)
end)

describe("diffusion.attack refuses", function()
  local few = {steps = 2}
  refuses("no start", "x_T is a nil, expected a tensor", function() diffusion.attack(model, nil, each, {}) end)
  refuses_all({
    {{bound = "0.1"}, "bound is \"0.1\", expected a number above 0"},
    {{success = "yes"}, "success is \"yes\", expected a function success(x0)"},
    {{success = function() return true end, sampling = few}, "success gave true, expected 0 or 1 for each"},
    {{success = function() return tide.ones({3}, "uint8") end, sampling = few}, "success gave uint8 of shape (3)"},
  }, function(o) diffusion.attack(model, x, each, o) end)
  refuses("a metric that is not finite", "the metric is not finite at iteration 1", function()
    diffusion.attack(model, x, function(x0) return each(x0) / 0 end, {sampling = few})
  end)
end)

describe("diffusion.guide refuses", function()
  refuses("no start", "x_T is a nil, expected a tensor", function() diffusion.guide(model, nil, metric, {}) end)
  refuses_all({
    {{from = 3, to = 2, steps = 4}, "steps 3 to 2 of 4 are guided, expected from ≤ to ≤ steps"},
    {{from = "a"}, "from is \"a\", expected a whole number, 1 or more"},
    {{substeps = 0}, "substeps is 0, expected a whole number, 1 or more"},
    {{repeats = 0}, "repeats is 0, expected a whole number, 1 or more"},
    {{strength = "4"}, "strength is \"4\", expected a number, 0 or more"},
    {{repeats = 2, noise = 3}, "noise is 3, expected a generator"},
    {{condition = 1}, "condition is an option of diffusion.sample, give it in sampling = {condition = …}"},
    {{sampling = {sampler = "heun"}}, "sampling has sampler, which guide sets itself"},
    {{callback = 2}, "callback is 2, expected a function"},
  }, function(o) diffusion.guide(model, x, metric, o) end)
  refuses("a loss that is not finite", "the loss is nan at t = 749, σ = ", function()
    diffusion.guide(model, x, function(x0) return metric(x0) * (0 / 0) end, {steps = 4})
  end)
end)

describe("diffusion.invert", function()
  refuses("refuses no image", "x0 is a nil, expected a tensor", function() diffusion.invert(model, nil, {}) end)
  refuses("refuses no model", "model is a nil, expected a function", function() diffusion.invert(nil, x, {}) end)
  refuses("refuses what a model must not give", "the model gave a table, expected a tensor", function()
    diffusion.invert(function() return {} end, x, {steps = 3})
  end)
  refuses("says where values ceased to be finite", "not finite at step 2 (t = ", function()
    diffusion.invert(function(y, t) return t:item() > 10 and y / 0 or y end, x, {steps = 3})
  end)
  it("goes through flows, whose first point has no data in it", function()
    local function normal(y, t)  -- the velocity where the data are standard normal
      local sigma = t:item() / 1000
      return y * ((2 * sigma - 1) / (sigma ^ 2 + (1 - sigma) ^ 2))
    end
    local gap, about = diffusion.inversion_error(normal, x, {steps = 200, schedule = "flow"})
    assert.is_true(gap < 0.03)
    assert.close(about.x_T, x, 0.03)
  end)
end)

describe("measures of samples refuse", function()
  local judge = diffusion.Classifier {in_channels = 3, block_out_channels = {8, 8}}
  local classes = tide.tensor({1, 2}, "int64")
  refuses("batches of none", "batch is 0, expected a whole number, 1 or more", function()
    diffusion.features(judge, x, {batch = 0})
  end)
  refuses("a network without features", "the classifier is a UNet2DModel, expected one with features", function()
    diffusion.features(tiny(), x)
  end)
  refuses("no classifier", "the classifier is a nil, expected a function", function()
    diffusion.recognised(nil, x, classes)
  end)
  refuses("classes that the classifier does not have", "class 77, expected whole numbers from 1 to 10", function()
    local share = diffusion.recognised(judge, x, tide.tensor({77, 1}, "int64"))
    return share
  end)
end)

describe("diffusion.Trainer refuses", function()
  refuses("a function as model", "the model is a function, expected a module", function() diffusion.Trainer(model) end)
  refuses_all({
    {{rate = 0.5}, "rate is 0.5, expected a function rate(steps, lr)"},
    {{optimiser = "adam"}, "optimiser is \"adam\", expected an optimiser"},
    {{optimiser = optim.Adam({tide.ones(2):requires_grad()})}, "the optimiser has none of the model's parameters"},
    {{capture = "no"}, "capture is \"no\", expected true or false"},
    {{null = "none"}, "null is \"none\", expected a class or a tensor"},
    {{prediction = "noise"}, "Trainer: unknown prediction \"noise\""},
    {{seed = 1.5}, "seed is 1.5, expected a whole number"},
  }, function(o) diffusion.Trainer(tiny(), o) end)
  refuses("a rate that is none", "rate(0, lr) gave a nil, expected a number", function()
    diffusion.Trainer(tiny(), {rate = function() end}):step(x)
  end)
  refuses("images of bytes", "the batch is uint8, expected float32 or float64", function()
    diffusion.Trainer(tiny()):step(tide.zeros({2, 4, 4, 3}, "uint8"))
  end)
  refuses("averages of nothing", "f is a nil, expected a function", function()
    diffusion.Trainer(tiny()):with_average()
  end)
  refuses_all({
    {{loader = "x", steps = 3}, "loader is \"x\", expected a data.Loader"},
    {{loader = {epoch = model}, steps = "3"}, "steps is \"3\", expected a whole number"},
    {{loader = {epoch = model}, steps = 3, every = 0}, "every is 0, expected a whole number, 1 or more"},
    {{loader = {epoch = model}, steps = 3, progress = "p"}, "progress is \"p\", expected a function"},
  }, function(o) diffusion.Trainer(tiny()):run(o) end)
end)

describe("networks refuse", function()
  local dit = diffusion.DiT {sample_size = 4, in_channels = 3, num_layers = 1, num_attention_heads = 1,
    attention_head_dim = 4, num_embeds_ada_norm = 2}
  local judge = diffusion.Classifier {in_channels = 3, block_out_channels = {8}}
  local turned = "the images have shape (2×3×4×4), expected N×%s×3; channels come last, as x:permute(1, 3, 4, 2)"
  for name, net in pairs {UNet2DModel = tiny(), DiTTransformer2DModel = dit, Classifier = judge} do
    local size = net == dit and "4×4" or "H×W"
    refuses("channels before height and width: " .. name, name .. ": " .. turned:format(size), function()
      net(tide.randn(2, 3, 4, 4), 3, 1)
    end)
    refuses("images of other channels: " .. name, "(2×4×4×1), expected N×" .. size .. "×3", function()
      net(tide.randn(2, 4, 4, 1), 3, 1)
    end)
    refuses("images of another type: " .. name, "the images are float64, the weights are float32", function()
      net(x:double(), 3, 1)
    end)
    refuses("images that are none: " .. name, "the images are a nil, expected a tensor N×H×W×C", function() net() end)
  end
  refuses_all({
    {{attention_head_dim = 8}, "attention_head_dim is 8, expected at most the 4 channels of the stage"},
    {{dropout = "2"}, "dropout is \"2\", expected a number"},
    {{norm_eps = "small"}, "norm_eps is \"small\", expected a number"},
    {{flip_sin_to_cos = "no"}, "flip_sin_to_cos is \"no\", expected true or false"},
  }, tiny)
  local net = diffusion.UNet2DConditionModel {sample_size = 4, in_channels = 3, out_channels = 3,
    block_out_channels = {4, 4}, down_block_types = {"CrossAttnDownBlock2D", "DownBlock2D"},
    up_block_types = {"UpBlock2D", "CrossAttnUpBlock2D"}, cross_attention_dim = {6, 6}, attention_head_dim = 2,
    norm_num_groups = 2, layers_per_block = 1}
  refuses("vectors of another type", "the condition is float64, the images are float32", function()
    net(x, 3, tide.zeros({2, 4, 6}, "float64"))
  end)
  refuses("a mask of another length", "the mask has shape (2×5), expected (4) or (2×4), one value for each", function()
    net(x, 3, {tide.zeros(2, 4, 6), mask = tide.ones({2, 5}, "uint8")})
  end)
  refuses("a mask of whole numbers", "the mask is int64, expected uint8 (1 takes part)", function()
    net(x, 3, {tide.zeros(2, 4, 6), mask = tide.ones({2, 4}, "int64")})
  end)
  refuses("a mask that is none", "the mask is a string, expected a tensor", function()
    net(x, 3, {tide.zeros(2, 4, 6), mask = "no"})
  end)
end)

describe("nn.lora.add refuses", function()
  refuses_all({
    {{match = "to_["}, "\"to_[\" is no pattern of Lua's: malformed pattern"},
    {{alpha = 0 / 0}, "alpha is nan, expected a number"},
    {{generator = 1}, "generator is 1, expected a generator"},
  }, function(o) nn.lora.add(tiny(), o) end)
end)
