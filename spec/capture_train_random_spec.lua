-- Random networks trained by captured steps and by the same steps run eagerly: losses, parameters, buffers and what the
-- optimiser remembers must agree, while batches, modes, rates and frozen layers change between the steps. What is drawn
-- depends on a seed; more with `TIDE_RANDOM_PROGRAMS=1000`, others with `TIDE_RANDOM_SEED=5000`.

local drawer = require "spec.support.drawer"
local helper = require "spec.helper"
local tide = require "tide"
local nn, optim = tide.nn, tide.optim

local count = math.ceil((tonumber(os.getenv "TIDE_RANDOM_PROGRAMS") or 40) / 2)
local first = tonumber(os.getenv "TIDE_RANDOM_SEED") or 1

-- ---- Networks ----

local Residual = nn.Module "Residual"
function Residual:init(inner) self.inner = inner end
function Residual:forward(x) return self.inner(x) + x end

local function activation(d)
  return d.pick {nn.ReLU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.PReLU, nn.Softplus}()
end

local function vector_layer(d, c)
  local k = d.upto(7)
  if k <= 2 then
    local out = d.pick {1, 3, 5, 8, 17}
    return nn.Linear(c, out, {bias = d.chance(70)}), out
  end
  if k == 3 and c > 2 then return nn.LayerNorm(c, {eps = 0.1}), c end
  if k == 4 then return nn.BatchNorm1d(c, {eps = 0.1}), c end
  if k == 5 then return nn.Dropout(0.3), c end
  if k == 6 then return Residual(nn.Sequential(nn.Linear(c, c), activation(d))), c end
  return activation(d), c
end

local function image_layer(d, c)
  local k = d.upto(10)
  if k <= 3 then
    local groups = c % 2 == 0 and d.pick {1, 1, 2} or 1
    local out, size = groups * d.pick {1, 2, 4, 8, 16}, d.pick {1, 3, 3}
    return nn.Conv2d(c, out, size, {padding = size == 3 and 1 or 0, stride = d.pick {1, 1, 1, 2}, groups = groups}), out
  end
  if k == 4 then return nn.GroupNorm(c % 2 == 0 and 2 or 1, c, {eps = 0.1}), c end
  if k == 5 then return nn.BatchNorm2d(c, {eps = 0.1}), c end
  if k == 6 then return d.pick {nn.Dropout, nn.Dropout2d}(0.3), c end
  if k == 7 then
    return Residual(nn.Sequential(nn.GroupNorm(1, c, {eps = 0.1}), activation(d), nn.Conv2d(c, c, 3, {padding = 1}))), c
  end
  if k == 8 then return nn.ConvTranspose2d(c, 4, 2, {stride = 2}), 4 end
  if k == 9 then return nn.Upsample(2), c end
  return activation(d), c
end

local function network(d, images, classes)
  local layers, c = {}, images and d.pick {1, 2, 3} or d.pick {1, 2, 6}
  local inputs = c
  for _ = 1, 2 + d.upto(5) do
    layers[#layers + 1], c = (images and image_layer or vector_layer)(d, c)
  end
  if images then layers[#layers + 1] = d.chance(50) and nn.GlobalAvgPool() or nn.AdaptiveAvgPool2d(1) end
  if images then layers[#layers + 1] = nn.Flatten() end
  layers[#layers + 1] = nn.Linear(c, classes)
  return nn.Sequential(unpack(layers)), inputs
end

local function optimiser(d, parameters, single)
  local o = {lr = single and 1e-3 or d.pick {0.01, 0.1}, weight_decay = d.pick {0, 0.01}}
  local kind = d.pick {"SGD", "SGD", "Adam", "AdamW"}
  if kind == "SGD" and d.chance(60) then
    o.momentum, o.nesterov = 0.9, d.chance(30)
  elseif kind ~= "SGD" then
    o.eps = single and 0.01 or 1e-4  -- what divides by it are gradients, which rounding may be all of
  end
  if #parameters > 2 and d.chance(30) then
    local rest = {unpack(parameters, 3)}
    return optim[kind]({{params = {parameters[1], parameters[2]}, lr = o.lr / 2}, {params = rest}}, o), kind
  end
  return optim[kind](parameters, o), kind
end

local losses = {
  function(y, target) return (y - target):square():mean() end,
  function(y, target, _, k) return nn.smooth_l1_loss(y, target) * k end,
  function(y, _, labels) return nn.cross_entropy(y, labels) end,
  function(y, target, labels, k) return nn.cross_entropy(y, labels) + (y * target):sin():sum() * k, y:argmax(2), y end,
}

-- ---- One run ----

local function eager_step(f, opt, o)
  return function(...)
    opt:zero_grad()
    local results = {f(...)}
    results[1]:backward()
    if o.before_step then o.before_step(opt) end
    opt:step()
    for i, x in ipairs(results) do results[i] = x.numel == 1 and x:item() or x:detach() end
    return unpack(results)
  end
end

-- Between two steps something may change.
local function change(d, net, opt)
  local k = d.upto(12)
  local layer = net[d.upto(#net)]
  if k == 1 then net:eval() end
  if k == 2 then net:train() end
  if k == 3 then opt:set_lr(opt.groups[1].lr * 0.7) end
  if k == 4 then tide.no_grad(function() net:parameters()[1]:mul_(0.9) end) end
  if k == 5 and layer ~= net[#net] then layer:freeze() end
  if k == 6 then net:unfreeze() end
  if k == 7 and #opt:parameters() > 1 then opt:parameters()[1]:requires_grad(not opt:parameters()[1].is_leaf) end
  if k == 8 then opt.groups[1].weight_decay = 0.02 end
end

-- What there is after some steps: {name, tensor or number}.
local function trained(seed, train, notes)
  local d = drawer(seed)
  tide.manual_seed(seed)
  local images, double, classes = d.chance(50), d.chance(60), d.upto(4) + 1
  local net, inputs = network(d, images, classes)
  net:to(double and "float64" or "float32")
  local opt, kind = optimiser(d, net:parameters(), not double)
  local o = {}
  if d.chance(40) then o.before_step = function(x) optim.clip_grad_norm(x:parameters(), 0.5) end end
  if d.chance(20) then o.before_step = function(x) optim.clip_grad_value(x:parameters(), 0.05) end end
  local loss, decay = d.pick(losses), d.chance(20)
  local step = train(function(x, batch, k)
    local results = {loss(net(x.image), batch.target, batch.labels, k)}
    if decay then results[1] = results[1] + net[#net].weight:square():sum() * 0.1 end
    return unpack(results)
  end, opt, o)
  notes[1] = ("seed %d: %s, %s\n%s"):format(seed, kind, double and "float64" or "float32", tostring(net))
  local out, g, size = {}, tide.generator(seed), 4
  for i = 1, 8 do
    if d.chance(50) then change(d, net, opt) end
    if d.chance(30) then size = d.pick {2, 3, 4, 9} end
    local side = d.pick {4, 4, 6}
    local shape = images and {size, side, side, inputs} or {size, inputs}
    local x = {image = g:randn(shape, double and "float64" or "float32")}
    local target = g:randn({size, classes}, "float64"):to(x.image.dtype)
    local batch = {target = target, labels = g:randint(1, classes, {size})}
    tide.manual_seed(i)
    for k, value in ipairs {step(x, batch, d.pick {1, 1, 0.5})} do
      out[#out + 1] = {("result %d of step %d"):format(k, i), value}
    end
    if d.chance(20) then out[#out + 1] = {"an evaluation", tide.no_grad(function() return net(x.image) end)} end
  end
  for name, x in pairs(net:state_dict()) do out[#out + 1] = {name, x} end
  for name, x in pairs(opt:state_dict()) do out[#out + 1] = {name, x} end
  table.sort(out, function(a, b) return a[1] < b[1] end)
  return out, double, step
end

describe("a random network is trained by captured steps as by eager ones:", function()
  it("losses, parameters, buffers, what the optimiser remembers", function()
    for seed = first, first + count - 1 do
      local notes = {}
      local expected, double = trained(seed, eager_step, notes)
      local got, _, step = trained(seed, tide.train_step, notes)
      assert.is_nil(step:reason())
      assert.are.equal(#expected, #got)
      for i, pair in ipairs(expected) do
        local function numbers(x) return tide.is_tensor(x) and x:double() or tide.tensor({x}, "float64") end
        local why = helper.difference(numbers(got[i][2]), numbers(pair[2]), double and 1e-8 or 2e-3)
        if why then error(("%s\n%s: %s"):format(notes[1], pair[1], why), 0) end
      end
    end
  end)
end)
