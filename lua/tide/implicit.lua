-- Implicit models: HomoODE, a deep equilibrium model solved as a modified neural ODE from a shared initial
-- point. S. Ding, T. Cui, J. Wang, Y. Shi, "Two Sides of The Same Coin: Bridging Deep Equilibrium Models and
-- Neural ODEs via Homotopy Continuation", NeurIPS 2023, arXiv 2310.09583. The architecture is that of the
-- authors' released code.
--
--   local model = implicit.HomoODE(implicit.configs.cifar10.model)
--   local logits = model(images)                  -- N×H×W×3 → N×classes
--   nn.cross_entropy(logits, labels):backward()
--   model.point:update(model.endpoint)            -- the shared point learns on its own
--
-- The images' features x = stem(image) are a condition of the field F(z; x); the state z starts from a point
-- that all images share and z(1) is read as the equilibrium.

local autograd = require "tide.autograd"
local core = require "tide.core"
local message = require "tide.message"
local nn = require "tide.nn"
local ode = require "tide.ode"
local options = require "tide.options"

local M = {}

local raise = message.raise

local function check_groups(what, groups, channels)
  if type(groups) ~= "number" or groups < 1 or channels % groups ~= 0 then
    raise("%s: %s groups do not divide %s channels", what, tostring(groups), tostring(channels))
  end
end

-- ---- The parts ----

local Field = nn.Module "HomoField"

--- implicit.Field(channels, {groups = 32, dropout = 0}): F(z; x) = GN₂(drop(conv₂(relu(GN₁(conv₁ z)) + x))),
--- 3×3 convolutions. z and x have one shape N×H×W×C. Dropped channels are chosen once for a whole solve.
function Field:init(channels, opts)
  local o = options.check("implicit.Field", opts, {groups = 32, dropout = 0})
  check_groups("implicit.Field", o.groups, channels)
  self.conv1 = nn.Conv2d(channels, channels, 3, {padding = 1})
  self.norm1 = nn.GroupNorm(o.groups, channels)
  self.conv2 = nn.Conv2d(channels, channels, 3, {padding = 1})
  self.norm2 = nn.GroupNorm(o.groups, channels)
  self.drop = nn.VariationalDropout(o.dropout)
end

function Field:forward(z, x)
  local inner = self.norm1(self.conv1(z), "relu", x)
  return self.norm2(self.drop(self.conv2(inner)))
end
M.Field = Field

local Stem = nn.Module "HomoStem"

--- implicit.Stem(inputs, channels, {stride = 1}): two 3×3 convolutions with batch norm and relu; the first
--- has the given stride, the second 2. N×H×W×inputs → N×H/(2·stride)×W/(2·stride)×channels.
function Stem:init(inputs, channels, opts)
  local o = options.check("implicit.Stem", opts, {stride = 1})
  self.conv1 = nn.Conv2d(inputs, channels, 3, {padding = 1, stride = o.stride})
  self.norm1 = nn.BatchNorm2d(channels)
  self.conv2 = nn.Conv2d(channels, channels, 3, {padding = 1, stride = 2})
  self.norm2 = nn.BatchNorm2d(channels)
end

function Stem:forward(image)
  local x = self.norm1(self.conv1(image), "relu")
  return self.norm2(self.conv2(x), "relu")
end
M.Stem = Stem

local Head = nn.Module "HomoHead"

--- implicit.Head(channels, classes, {groups = 32, width = 256}): GN, relu, 1×1 convolution to `width`, batch
--- norm, relu, mean over the image, linear. N×H×W×channels → N×classes.
function Head:init(channels, classes, opts)
  local o = options.check("implicit.Head", opts, {groups = 32, width = 256})
  check_groups("implicit.Head", o.groups, channels)
  self.norm1 = nn.GroupNorm(o.groups, channels)
  self.conv = nn.Conv2d(channels, o.width, 1)
  self.norm2 = nn.BatchNorm2d(o.width)
  self.linear = nn.Linear(o.width, classes)
end

function Head:forward(z)
  local y = self.norm2(self.conv(self.norm1(z, "relu")), "relu")
  return self.linear(y:mean {dims = {2, 3}})
end
M.Head = Head

-- ---- The shared initial point ----

local point_modes = {zero = true, pattern = true, regress = true, joint = true, ema = true}

local SharedPoint = nn.Module "SharedPoint"

--- implicit.SharedPoint(channels, {mode = "regress", groups = 32, lr = 0.02, every = 20, decay = 0.99}): one
--- number per channel from which every solve starts. Modes:
---   zero, pattern: 0, or −1 and +1 alternating;
---   regress: γ·ŵ + β with ŵ = GN(w), as released: it gets no gradient from the loss; update(z) takes, every
---     `every` calls, one SGD step of rate lr on the smooth-L1 distance to the batch's endpoints (mean over
---     N, H, W and C);
---   joint: the same numbers, trained by the loss through the solve;
---   ema: a running mean of the endpoints over batch and pixels, from the pattern on.
function SharedPoint:init(channels, opts)
  local o = options.check("implicit.SharedPoint", opts,
    {mode = "regress", groups = 32, lr = 0.02, every = 20, decay = 0.99})
  if not point_modes[o.mode] then
    raise("implicit.SharedPoint: unknown mode %q, expected zero, pattern, regress, joint or ema",
      tostring(o.mode))
  end
  check_groups("implicit.SharedPoint", o.groups, channels)
  self.mode, self.channels, self.groups = o.mode, channels, o.groups
  self.lr, self.every, self.decay, self.calls = o.lr, o.every, o.decay, 0
  if o.mode == "regress" or o.mode == "joint" then
    self.weight = nn.Conv2d(1, channels, 1, {bias = false}).weight:detach():reshape(channels):requires_grad()
    self.norm = nn.GroupNorm(o.groups, channels)
  elseif o.mode == "ema" then
    self.value = self:pattern()
  end
end

--- −1, +1, −1, …
function SharedPoint:pattern()
  return core.mod(core.arange(self.channels), 2) * -2 + 1
end

--- The point, one number per channel; on the tape in the modes regress and joint.
function SharedPoint:forward()
  if self.mode == "zero" then return core.zeros(self.channels) end
  if self.mode == "pattern" then return self:pattern() end
  if self.mode == "ema" then return self.value end
  return self.norm(self.weight:reshape(1, 1, self.channels)):reshape(self.channels)
end

--- The start of a solve, of the features' shape.
function SharedPoint:start(features)
  local a = self()
  if self.mode ~= "joint" then a = a:detach() end
  return core.expand(core.to(a, features.dtype), features.shape)
end

--- Learns from the endpoints z(1) of a batch; to be called once a training iteration. Gives the regression
--- loss on the calls that take a step, else nil.
function SharedPoint:update(endpoint)
  endpoint = endpoint:detach()
  if self.mode == "ema" then
    local mean = core.to(endpoint:mean {dims = {1, 2, 3}}, self.value.dtype)
    self.value = self.value * self.decay + mean * (1 - self.decay)
    return nil
  elseif self.mode ~= "regress" then
    return nil
  end
  self.calls = self.calls + 1
  if self.calls % self.every ~= 0 then return nil end
  return autograd.enable_grad(function() return self:regression_step(endpoint) end)
end

-- One SGD step towards the endpoints; gives the loss before it.
function SharedPoint:regression_step(endpoint)
  local parameters = self:parameters()
  local loss = nn.smooth_l1_loss(core.expand(core.to(self(), endpoint.dtype), endpoint.shape), endpoint)
  local gradients = autograd.gradients(loss, parameters)
  autograd.no_grad(function()
    for i, p in ipairs(parameters) do p:sub_(gradients[i] * self.lr) end
  end)
  return loss:item()
end
M.SharedPoint = SharedPoint

-- ---- The model ----

local HomoODE = nn.Module "HomoODE"

local kinds = {
  learned = function(f, z, x) return f(z, x) end,
  residual = function(f, z, x) return f(z, x) - z end,
}

local model_defaults = {
  kind = "learned", inputs = 3, channels = 64, classes = 10, groups = 32, stem_stride = 1, head_width = 256,
  dropout = 0,
  point = "regress", point_lr = 0.02, point_every = 20, horizon = 1,
  method = "dopri5_shampine", controller = "torchdiffeq", rtol = 1e-3, atol = 1e-3, step_size = 0,
  grad = "discrete", adjoint_norm = "rms",
}

--- implicit.HomoODE{…}: images N×H×W×inputs → logits N×classes. Options: kind "learned" (z' = F(z; x), as
--- released) or "residual" (z' = F(z; x) − z, whose rest points are the equilibria z = F(z; x)), inputs 3,
--- channels 64, classes 10, groups 32, stem_stride 1, head_width 256, dropout 0, point "regress" (see
--- SharedPoint), point_lr 0.02, point_every 20, horizon 1; of the solve: method "dopri5_shampine", controller
--- "torchdiffeq", rtol and atol 1e-3, step_size (for fixed steps), grad "discrete" | "adjoint" | "frozen".
--- "frozen" is what the released code's adjoint computes (the cotangent is not propagated): a wrong gradient,
--- here for comparison only.
---
--- After a call, model.endpoint is z(horizon) and model.stats the solve's statistics. The last step lands on
--- the horizon, where the released code interpolates.
function HomoODE:init(opts)
  local o = options.check("implicit.HomoODE", opts, model_defaults)
  self.stem = Stem(o.inputs, o.channels, {stride = o.stem_stride})
  self.field = Field(o.channels, {groups = o.groups, dropout = o.dropout})
  self.head = Head(o.channels, o.classes, {groups = o.groups, width = o.head_width})
  self.point = SharedPoint(o.channels, {mode = o.point, groups = o.groups, lr = o.point_lr,
    every = o.point_every})
  if not kinds[o.kind] then
    raise("implicit.HomoODE: unknown kind %q, expected \"learned\" or \"residual\"", tostring(o.kind))
  end
  self.kind, self.horizon = o.kind, o.horizon
  self.solver = {
    method = o.method, controller = o.controller, rtol = o.rtol, atol = o.atol, step_size = o.step_size,
    grad = o.grad,
    adjoint_norm = o.adjoint_norm,
  }
end

--- The solve from the shared point under the condition x (features): the solution at times t (default {0,
--- horizon}).
function HomoODE:solve(x, t)
  local derivative = kinds[self.kind]
  local function field(_, z) return derivative(self.field, z, x) end
  return ode.solve(field, self.point:start(x), t or {0, self.horizon}, self.solver)
end

--- How far z is from rest under the condition x: ‖z'‖/‖z‖, and for the kind "residual" also ‖z'‖/‖F(z; x)‖.
function HomoODE:unrest(z, x)
  return autograd.no_grad(function()
    local f = self.field(z, x)
    local speed = kinds[self.kind](function() return f end, z, x):norm():item()
    return speed / z:norm():item(), self.kind == "residual" and speed / f:norm():item() or nil
  end)
end

HomoODE.transient = {endpoint = true, stats = true}  -- of the last call, not a part of the model

function HomoODE:forward(images)
  self.endpoint = nil  -- of the last call: not beside this one's solve
  local sol = self:solve(self.stem(images))
  self.endpoint, self.stats = sol.last:detach(), sol.stats
  return self.head(sol.last)
end

--- The parameters that the classification loss trains: all but the shared point's in the mode regress.
function HomoODE:trained_parameters()
  local list = {}
  for _, part in ipairs {self.stem, self.field, self.head} do
    for _, p in ipairs(part:parameters()) do list[#list + 1] = p end
  end
  if self.point.mode == "joint" then
    for _, p in ipairs(self.point:parameters()) do list[#list + 1] = p end
  end
  return list
end
M.HomoODE = HomoODE

-- ---- The released configurations ----

local imagenet = {mean = {0.485, 0.456, 0.406}, std = {0.229, 0.224, 0.225}}
local cifar = {mean = {0.4914, 0.4822, 0.4465}, std = {0.2023, 0.1994, 0.2010}}

--- Hyper-parameters of the authors' scripts: model (options of HomoODE) and training: epochs, batch,
--- test_batch, Adam's lr with a cosine to lr_min over all iterations, crop (padding), flip (probability),
--- normalisation, seed.
M.configs = {
  cifar10 = {
    model = {channels = 64, classes = 10, groups = 32, head_width = 256, dropout = 0.10,
      point_lr = 0.02, point_every = 20, grad = "discrete"},
    epochs = 300, batch = 64, test_batch = 400, lr = 1e-3, lr_min = 1e-6, crop = 4, flip = 0.2,
    normalize = imagenet, seed = 0,
  },
  cifar100 = {
    model = {channels = 128, classes = 100, groups = 32, head_width = 512, dropout = 0.15,
      point_lr = 0.01, point_every = 5, grad = "adjoint"},
    epochs = 300, batch = 64, test_batch = 400, lr = 1e-3, lr_min = 1e-6, crop = 4, flip = 0.5,
    normalize = imagenet, seed = 0,
  },
  tiny_imagenet = {
    model = {channels = 128, classes = 200, groups = 8, head_width = 512, dropout = 0.15,
      point_lr = 0.05, point_every = 20, stem_stride = 2, grad = "adjoint"},
    epochs = 300, batch = 64, test_batch = 400, lr = 1e-3, lr_min = 1e-6, crop = 8, flip = 0.5,
    normalize = cifar, seed = 1,
  },
}

return M
