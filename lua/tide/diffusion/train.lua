-- Training: the losses of denoising with their usual weights, the condition dropped now and then (so that one
-- network serves guidance), averages of the weights, and checkpoints from which a run goes on bit for bit.
--
--   local trainer = diffusion.Trainer(net, {schedule = "linear", prediction = "v", null = 11})
--   trainer:run {loader = loader, steps = 5000, progress = function(t) print(t.steps, t.loss) end}
--   trainer:with_average(function() … sample … end)

local core = require "tide.core"
local message = require "tide.message"
local nn_module = require "tide.nn.module"
local optim = require "tide.optim"
local options = require "tide.options"
local prediction = require "tide.diffusion.prediction"
local random = require "tide.random"
local schedules = require "tide.diffusion.schedule"
local is_tensor = require("tide.tensor").is_tensor
local train_step = require("tide.train_step").train_step
local values = require "tide.values"

local M = {}
local raise, shape_of = message.raise, message.shape

-- ---- Weights of the loss ----

-- The weight of |x̂0 − x0|² at a signal-to-noise ratio, by name. "uniform" weighs the prediction itself.
local weightings = {
  uniform = false,
  min_snr = function(snr, gamma) return math.min(snr, gamma) end,  -- Hang et al. 2023
  snr = function(snr) return snr end,                              -- what a uniform ε-loss does
  truncated_snr = function(snr) return math.max(snr, 1) end,       -- Salimans and Ho 2022
}

-- |x̂0 − x0|² over the squared error of a prediction of each kind, at a node of the schedule.
local function x0_over(kind, node)
  if kind == "x0" then return 1 end
  if kind == "epsilon" then return node.ratio * node.ratio end
  local r = kind == "v" and node.alpha ^ 2 + node.sigma ^ 2 or node.alpha + node.sigma
  return (node.sigma / r) ^ 2
end

--- The weight of the squared error of a prediction of `kind` at time t of a schedule: weighting "uniform" (1),
--- "min_snr" (min(SNR, γ) of the error in x0), "snr" or "truncated_snr" (max(SNR, 1)).
function M.loss_weight(schedule, t, kind, weighting, gamma)
  local f = weightings[weighting]
  if f == nil then
    raise("loss_weight: weighting is %s, expected \"uniform\", \"min_snr\", \"snr\" or \"truncated_snr\"",
      tostring(weighting))
  end
  prediction.check("loss_weight", kind)
  if not f then return 1 end
  local node = schedules.Schedule(schedule):node(t)
  local snr = math.exp(math.min(2 * node.lambda, 50))
  return f(snr, gamma or 5) * x0_over(kind, node)
end

-- ---- The trainer ----

local Trainer = {}
Trainer.__index = Trainer

local trainer_options = {
  schedule = "linear", prediction = options.none, weighting = "uniform", gamma = 5, times = "uniform",
  optimiser = options.none, lr = 1e-3, weight_decay = 0, warmup = 0, rate = options.none, clip = 1, ema = 0.999,
  null = options.none, drop = 0.1, seed = 0, capture = true,
}

local rules = {
  lr = values.not_negative, gamma = values.not_negative, warmup = values.not_negative, ema = values.from(0, 1),
  drop = values.from(0, 1), seed = values.whole(0, 2 ^ 53 - 1), weight_decay = values.not_negative,
  times = values.one_of("uniform", "logit_normal"), capture = values.flag,
  rate = values.callable "a function rate(steps, lr)",
  clip = {"a number above 0, or false", function(v) return v == false or values.positive[2](v) end},
  optimiser = {"an optimiser, such as optim.AdamW(model:parameters())", function(v)
    return type(v) == "table" and type(v.groups) == "table" and v.step ~= nil
  end},
  null = {"a class or a tensor", function(v) return type(v) == "number" or is_tensor(v) end},
}

-- The learning rate of the step under way.
local function current_rate(self)
  local lr = self.lr
  if self.rate then
    lr = self.rate(self.steps, lr)
    if type(lr) ~= "number" or lr ~= lr then
      raise("Trainer: rate(%d, lr) gave %s, expected a number", self.steps, values.shown(lr))
    end
  end
  if self.steps < self.warmup then lr = lr * (self.steps + 1) / self.warmup end
  return lr
end

-- The mean over images of the mean square error of each, weighted where there are weights.
local function weighted_error(model, x_t, times, condition, target, weights)
  local p = model(x_t, times, condition)
  if shape_of(p) ~= shape_of(target) then
    raise("Trainer: the model gave shape (%s) for images of shape (%s)", shape_of(p), shape_of(target))
  end
  local n, dims = target:size(1), {}
  for i = 2, target.ndim do dims[#dims + 1] = i end
  local loss = core.sum(core.square(p - target), dims) * (n / target.numel)
  if weights then loss = loss * weights end
  return core.sum(loss) / n
end

-- Raises before weights are spoilt.
local function check_finite(self, what, value)
  if value ~= value or math.abs(value) == math.huge then
    raise("Trainer: %s is %s at step %d: lower the learning rate", what, tostring(value), self.steps + 1)
  end
end

-- What happens between the gradient and the optimiser's step.
local function before_step(self)
  local norm = optim.clip_grad_norm(self.parameters, self.clip or math.huge)
  check_finite(self, "the norm of the gradient", norm)
  self.optimiser:set_lr(current_rate(self))
end

-- The step as a captured program; a model that cannot be captured runs as it is.
local function captured_step(self)
  local model = self.model
  return train_step(function(...) return weighted_error(model, ...) end, self.optimiser,
    {before_step = function() before_step(self) end})
end

-- An optimiser that has nothing of the model would train nothing.
local function check_optimiser(parameters, optimiser)
  local own = {}
  for _, p in ipairs(parameters) do own[p] = true end
  for _, group in ipairs(optimiser.groups) do
    for _, p in ipairs(group.params) do
      if own[p] then return end
    end
  end
  raise("Trainer: the optimiser has none of the model's parameters")
end

--- diffusion.Trainer(model, opts): see doc/api/diffusion_networks.lua.
function M.Trainer(model, opts)
  local o = values.check("Trainer", options.check("Trainer", opts, trainer_options), rules)
  if type(model) ~= "table" then raise("Trainer: the model is a %s, expected a module", type(model)) end
  local self = setmetatable({}, Trainer)
  self.model, self.steps, self.loss = model, 0, nil
  self.schedule = schedules.is_schedule(o.schedule) and o.schedule or schedules.Schedule(o.schedule)
  self.prediction = prediction.check("Trainer", o.prediction or self.schedule.prediction)
  M.loss_weight(self.schedule, self.schedule.last, self.prediction, o.weighting, o.gamma)
  self.weighting, self.gamma, self.times = o.weighting, o.gamma, o.times
  self.null, self.drop, self.clip = o.null, o.drop, o.clip
  self.parameters = nn_module.parameters(model)
  self.optimiser = o.optimiser or optim.AdamW(self.parameters, {lr = o.lr, weight_decay = o.weight_decay})
  check_optimiser(self.parameters, self.optimiser)
  self.lr, self.warmup, self.rate = self.optimiser.groups[1].lr, o.warmup, o.rate
  self.average = optim.EMA(self.parameters, o.ema)
  self.generator = core.generator(o.seed)
  if o.capture then self.captured = captured_step(self) end
  return self
end

-- One time for each of n images. Schedules of whole times draw whole times.
local function draw_times(self, n)
  local s, g = self.schedule, self.generator
  if self.times == "logit_normal" then
    return core.sigmoid(g:randn(n)) * (s.last - s.first) + s.first
  end
  local u = g:rand(n)
  if s.lambdas then return core.floor(u * (s.last - s.first + 1)) + s.first end
  return u * (s.last - s.first) + s.first
end

-- The condition, replaced by the null one for a share `drop` of the images.
local function dropped(self, condition, n)
  if condition == nil or self.null == nil or self.drop == 0 then return condition end
  if not is_tensor(condition) then
    raise("Trainer: the condition is a %s, expected a tensor of %d rows", type(condition), n)
  end
  local shape = {n}
  for i = 2, condition.ndim do shape[i] = 1 end
  local out = core.reshape(core.lt(self.generator:rand(n), self.drop), shape)
  return core.where(out, self.null, condition)
end

-- Weights of the images' losses at their times, or nil where all are 1.
local function weights_at(self, times)
  if self.weighting == "uniform" then return nil end
  local list = times:totable()
  for i, t in ipairs(list) do
    list[i] = M.loss_weight(self.schedule, t, self.prediction, self.weighting, self.gamma)
  end
  return core.tensor(list, times.dtype)
end

-- What weighted_error takes for a batch: noise, times and dropped conditions are drawn anew.
local function draw(self, x0, condition)
  if not is_tensor(x0) or x0.ndim < 2 then
    raise("Trainer: the images are %s, expected a tensor N×…", is_tensor(x0) and "of shape (" .. shape_of(x0) .. ")"
      or "a " .. type(x0))
  end
  values.check_real("Trainer", "the batch", x0)
  local n = x0:size(1)
  local times = draw_times(self, n)
  local noise = self.generator:randn(x0.shape, x0.dtype)
  condition = dropped(self, condition, n)
  local x_t = self.schedule:add_noise(x0, noise, times)
  local target = self.schedule:target(x0, noise, times, self.prediction)
  local weights = weights_at(self, times)
  return x_t, times, condition, target, weights and core.to(weights, x0.dtype)
end

--- The loss of a batch, as a tensor with its graph: noise, times and dropped conditions are drawn anew.
function Trainer:loss_of(x0, condition)
  return weighted_error(self.model, draw(self, x0, condition))
end

--- One step on a batch of images (N×…) and their conditions. Returns the loss. A loss that is not finite raises
--- before it spoils the weights.
function Trainer:step(x0, condition)
  local value
  if self.captured then
    value = self.captured(draw(self, x0, condition))
  else
    local loss = self:loss_of(x0, condition)
    value = loss:item()
    check_finite(self, "the loss", value)
    loss:backward()
    before_step(self)
    self.optimiser:step():zero_grad()
  end
  check_finite(self, "the loss", value)
  self.average:update()
  self.steps, self.loss = self.steps + 1, value
  return value
end

local run_rules = {
  loader = {"a data.Loader", function(v) return type(v) == "table" and v.epoch ~= nil end},
  steps = values.whole(0), every = values.whole(1), progress = values.callable "a function progress(trainer, loss)",
}
local run_options = {loader = options.none, steps = options.none, every = 100, progress = options.none}

--- Trains up to `steps` steps in all on a data.Loader; the batches are those that this many steps from the
--- beginning give, wherever the run began. progress(trainer, mean_loss) is called every `every` steps and at the
--- end; it may return false to stop. Returns the trainer.
function Trainer:run(opts)
  local o = values.check("Trainer:run", options.check("Trainer:run", opts, run_options), run_rules)
  if not o.loader then raise("Trainer:run: loader is missing") end
  if not o.steps then raise("Trainer:run: steps is missing, expected a whole number") end
  local total, count = 0, 0
  while self.steps < o.steps do
    local passed = self.steps % o.loader.batches
    for x, y in o.loader:epoch(math.floor(self.steps / o.loader.batches) + 1) do
      if passed > 0 then
        passed = passed - 1
      else
        total, count = total + self:step(x, y), count + 1
        if self.steps % o.every == 0 or self.steps == o.steps then
          if o.progress and o.progress(self, total / count) == false then return self end
          total, count = 0, 0
        end
        if self.steps >= o.steps then break end
      end
    end
  end
  return self
end

--- f(…) while the model has the averages of its weights and is in evaluation mode, without recording.
function Trainer:with_average(f, ...)
  values.check_callable("Trainer:with_average", "f", f, "f(…)")
  local model = self.model
  nn_module.eval(model)
  local function finish(ok, ...)
    nn_module.train(model)
    if not ok then error((...), 0) end
    return ...
  end
  return finish(pcall(self.average.with, self.average, core.with_recording, false, f, ...))
end

-- ---- Checkpoints ----

local format = "tide.diffusion.Trainer 1"

-- A generator's seed and counter as a tensor, and back.
local function generator_state(g)
  local seed, counter = g:state()
  return core.tensor({seed, counter}, "float64")
end
local function set_generator(g, t) g:state(t[1]:item(), t[2]:item()) end

-- The generators of layers that have one of their own (dropout), by the layer's name.
local function layer_generators(model)
  local list = {}
  for name, module in nn_module.named_modules(model) do
    if module.generator then list[name] = module.generator end
  end
  return list
end

-- Everything a run needs to go on.
local function state_of(self)
  local state = {
    steps = core.tensor(self.steps, "float64"), generator = generator_state(self.generator),
    default_generator = generator_state(random.default_generator()),
  }
  for name, g in pairs(layer_generators(self.model)) do state["layer." .. name] = generator_state(g) end
  for name, t in pairs(nn_module.state_dict(self.model)) do state["model." .. name] = t end
  for name, t in pairs(self.optimiser:state_dict()) do state["optimiser." .. name] = t end
  for name, t in pairs(self.average:state_dict()) do state["average." .. name] = t end
  return state
end

--- Writes everything the run needs to go on into a file: true, or nil and a message.
function Trainer:save(path)
  return core.io.save_safetensors(path, state_of(self), {format = format})
end

--- Goes on from a file that save() wrote, of a trainer with the same model and options: the trainer, or nil and a
--- message when the file cannot be read.
function Trainer:load(path)
  local state, metadata = core.io.load_safetensors(path)
  if not state then return nil, metadata end
  if metadata.format ~= format then
    return nil, ("%s: expected a trainer's checkpoint, found %s"):format(path, metadata.format or "other tensors")
  end
  local parts = {model = {}, optimiser = {}, average = {}, layer = {}}
  for name, t in pairs(state) do
    local part, rest = name:match "^(%a+)%.(.*)$"
    if parts[part] then parts[part][rest] = t end
  end
  nn_module.load_state_dict(self.model, parts.model)
  self.optimiser:load_state_dict(parts.optimiser)
  self.average:load_state_dict(parts.average)
  self.steps = state.steps:item()
  set_generator(self.generator, state.generator)
  set_generator(random.default_generator(), state.default_generator)
  for name, g in pairs(layer_generators(self.model)) do
    if parts.layer[name] then set_generator(g, parts.layer[name]) end
  end
  return self
end

return M
