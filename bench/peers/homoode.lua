-- HomoODE: one training step (model, loss, backward, Adam). Cases and meaning as in homoode.py; --grad discrete or
-- adjoint.

package.path = (arg[0]:match "^(.*/)" or "./") .. "?.lua;" .. package.path
local side = require "side"
local tide = require "tide"
local implicit, nn, ode, optim = tide.implicit, tide.nn, tide.ode, tide.optim

local o = side.options {grad = "discrete"}
local wide = o.case == "wide"

-- z' = relu(GN(conv(relu(GN(conv z + x))))) − z from 0; the loss is the mean square of z(1).
local Wide = nn.Module "Wide"
function Wide:init()
  local f = nn.Module("Residual")
  function f.init(field)
    field.conv1, field.norm1 = nn.Conv2d(64, 64, 3, {padding = 1}), nn.GroupNorm(8, 64)
    field.conv2, field.norm2 = nn.Conv2d(64, 64, 3, {padding = 1}), nn.GroupNorm(8, 64)
  end
  function f.forward(field, z, x)
    local y = field.norm1(field.conv1(z) + x):relu()
    return field.norm2(field.conv2(y)):relu() - z
  end
  self.field = f()
  self.solver = {method = "dopri5_shampine", controller = "torchdiffeq", rtol = 1e-3, atol = 1e-3, grad = o.grad,
    adjoint_norm = "rms"}
end
function Wide:forward(x)
  local sol = ode.solve(function(_, z) return self.field(z, x) end, tide.zeros_like(x), {0, 1}, self.solver)
  self.stats = sol.stats
  return sol.last
end

local function make_model()
  if wide then return Wide() end
  local config = {}
  for k, v in pairs(implicit.configs.cifar10.model) do config[k] = v end
  config.grad = o.grad
  if o.check then config.dropout = 0 end
  return implicit.HomoODE(config)
end

tide.manual_seed(1)
local model = make_model()
local inputs = wide and tide.randn(128, 28, 28, 64) or tide.randn(64, 32, 32, 3)
local labels = tide.randint(1, 10, 64)
if wide then inputs:requires_grad() end
local trained = wide and model:parameters() or model:trained_parameters()

local function loss_of()
  local out = model(inputs)
  return wide and out:square():mean() or nn.cross_entropy(out, labels)
end

if o.check then
  local shared = {inputs = inputs:detach()}
  if not wide then
    shared.labels = labels - 1
    shared["model.start"] = model.point():detach()
  end
  for name, p in pairs(model:state_dict()) do
    if not name:find "^point" and not name:find "running" and p.ndim > 0 then shared["model." .. name] = p:detach() end
  end
  model.solver = {method = "rk4", step_size = 0.25, grad = o.grad}
  local loss = loss_of()
  loss:backward()
  shared["check.loss"] = loss:detach()
  if wide then shared["check.grad.inputs"] = inputs.grad end
  for name, p in model:named_parameters() do
    if p.grad then shared["check.grad." .. name] = p.grad end
  end
  assert(tide.io.save_safetensors(o.exchange, shared))
else
  local opt = optim.Adam(trained, {lr = 1e-3})
  local last
  local record = side.measure(function()
    local loss = loss_of()
    loss:backward()
    opt:step():zero_grad()
    last = loss:item()
  end, o.repeats)
  record.nfe, record.nfe_b, record.loss, record.live = model.stats.nfe, model.stats.nfe_b, last, tide.memory().peak
  side.report(o.case, record)
end
