-- HomoODE: its parts and counts, its gradients, and the guard against a cotangent that is not propagated.

local helper = require "spec.helper"
local tide = require "tide"
local nn, ode, implicit = tide.nn, tide.ode, tide.implicit

local function vector(...) return tide.tensor({...}, "float64") end
local function random(seed, ...) return tide.generator(seed):randn({...}, "float64") end

local function count(parameters)
  local n = 0
  for _, p in ipairs(parameters) do n = n + p.numel end
  return n
end

before_each(function() tide.manual_seed(3) end)

describe("the released configurations", function()
  local expected = {
    cifar10 = {132938, 74112, 38976, 19850, 192},
    cifar100 = {565988, 295680, 151680, 118628, 384},
    tiny_imagenet = {617288, 295680, 151680, 169928, 384},
  }
  for name, n in pairs(expected) do
    it(name .. " has its numbers of parameters", function()
      local model = implicit.HomoODE(implicit.configs[name].model)
      assert.are.equal(n[1], count(model:trained_parameters()))
      assert.are.equal(n[2], count(model.field:parameters()))
      assert.are.equal(n[3], count(model.stem:parameters()))
      assert.are.equal(n[4], count(model.head:parameters()))
      assert.are.equal(n[5], count(model.point:parameters()))
      assert.are.equal(n[1] + n[5], count(model:parameters()))
    end)
  end

  it("have states of 16×16 for their images", function()
    local sizes = {cifar10 = {32, 64}, cifar100 = {32, 128}, tiny_imagenet = {64, 128}}
    for name, s in pairs(sizes) do
      local model = implicit.HomoODE(implicit.configs[name].model)
      assert.are.same({1, 16, 16, s[2]}, tide.no_grad(model.stem, tide.zeros {1, s[1], s[1], 3}).shape)
    end
  end)

  it("evaluate the field 2 + 6·steps times, 20 to 26 at the start", function()
    local model = implicit.HomoODE(implicit.configs.cifar10.model)
    local logits = model(tide.randn {4, 32, 32, 3})
    assert.are.same({4, 10}, logits.shape)
    assert.are.equal(2 + 6 * model.stats.steps, model.stats.nfe)
    assert.is_true(model.stats.nfe >= 14 and model.stats.nfe <= 32)
    tide.no_grad(function() model:eval()(tide.randn {4, 32, 32, 3}) end)
    assert.are.equal(2 + 6 * model.stats.steps, model.stats.nfe)
  end)
end)

describe("construction", function()
  it("refuses groups that do not divide the channels", function()
    assert.fails_here(function() implicit.HomoODE {channels = 6, groups = 4} end,
      "4 groups do not divide 6 channels")
    assert.fails_here(function() implicit.Field(64, {groups = 0}) end, "0 groups")
    assert.fails_here(function() implicit.SharedPoint(6, {groups = 4}) end, "implicit.SharedPoint: 4 groups")
    assert.fails_here(function() implicit.Head(6, 10, {groups = 5}) end, "implicit.Head: 5 groups")
  end)

  it("refuses unknown options, modes and kinds", function()
    assert.fails_here(function() implicit.HomoODE {chanels = 64} end,
      "unknown option \"chanels\", did you mean \"channels\"?")
    assert.fails_here(function() implicit.HomoODE {point = "mean"} end, "unknown mode \"mean\"", "regress")
    assert.fails_here(function() implicit.HomoODE {kind = "newton"} end, "unknown kind \"newton\"",
      "residual")
  end)
end)

describe("the field", function()
  it("is GN₂(drop(conv₂(relu(GN₁(conv₁ z)) + x)))", function()
    local field = implicit.Field(4, {groups = 2}):eval()
    local z, x = tide.randn {2, 5, 5, 4}, tide.randn {2, 5, 5, 4}
    local function conv(c, y) return tide.conv2d(y, c.weight, c.bias, {padding = 1}) end
    local function norm(n, y)
      local g = y:reshape(2, 25, 2, 2)
      local mean = g:mean {dims = {2, 4}, keepdim = true}
      local var = ((g - mean) ^ 2):mean {dims = {2, 4}, keepdim = true}
      return ((g - mean) / (var + 1e-5):sqrt()):reshape(2, 5, 5, 4) * n.weight + n.bias
    end
    local expected = norm(field.norm2, conv(field.conv2, norm(field.norm1, conv(field.conv1, z)):relu() + x))
    assert.close(field(z, x), expected, 1e-4)
  end)

  it("does not see a constant added per group before a norm, whose group means are 0", function()
    local norm = nn.GroupNorm(2, 4):to "float64"
    local y, shift = random(1, 2, 3, 3, 4), vector(3, 3, -2, -2)
    assert.close(norm(y + shift), norm(y), 1e-12)
    local means = norm(y):reshape(2, 9, 2, 2):mean {dims = {2, 4}}
    assert.close(means, tide.zeros({2, 2}, "float64"), 1e-13)
  end)
end)

-- ---- Gradients of the block ----

-- A block in float64: the field with features x from a start z0, its weighted endpoint, and gradients by
-- mode. Its relus stay on their sides (three channels on, one off) unless o.kinks: across kinks the discrete
-- gradient tends to the continuous one only slowly, and differences of adaptive solves are noise.
local function block(o)
  local field = implicit.Field(4, {groups = 2, dropout = o.dropout or 0}):to "float64"
  local b = {field = field, z0 = random(1, 2, 4, 4, 4), x = random(2, 2, 4, 4, 4), w = random(3, 2, 4, 4, 4)}
  if not o.kinks then
    tide.no_grad(function() field.norm1.bias:copy_(vector(6, 6, -6, 6)) end)
  end
  if o.dropout then field:train().drop:resample(b.x) else field:eval() end
  function b.loss(mode, z0, x, solver)
    local given = {method = "dopri5", grad = mode}
    for k, v in pairs(solver or {step_size = 0.25}) do given[k] = v end
    return (ode.solve(function(_, z) return field(z, x) end, z0, {0, 1}, given).last * b.w):sum()
  end
  function b.gradients(mode, solver)
    local z0, x = b.z0:detach():requires_grad(), b.x:detach():requires_grad()
    local inputs = {z0, x}
    for _, p in ipairs(field:parameters()) do inputs[#inputs + 1] = p end
    return tide.gradients(b.loss(mode, z0, x, solver), inputs)
  end
  return b
end

local tight = {rtol = 1e-10, atol = 1e-10}

-- The greatest relative gap, over all gradients.
local function gap(a, b)
  local worst = 0
  for i = 1, #a do
    local scale = math.max(1e-3, b[i]:abs():max():item())
    worst = math.max(worst, (a[i] - b[i]):abs():max():item() / scale)
  end
  return worst
end

-- Central differences of `value`, as x's elements are moved in place; every `stride`-th element.
local function assert_differences(x, gradient, value, stride)
  local flat, g = x:detach():reshape(-1), gradient:reshape(-1)
  for i = 1, x.numel, stride do
    local function at(delta)
      local before = flat[i]:item()
      tide.no_grad(function() flat[i] = before + delta end)
      local v = tide.no_grad(value):item()
      tide.no_grad(function() flat[i] = before end)
      return v
    end
    assert.close(g[i], (at(1e-6) - at(-1e-6)) / 2e-6, 1e-6)
  end
end

describe("the block's gradient", function()
  for _, dropout in ipairs {false, 0.4} do
    local held = dropout and ", its dropout mask held" or ""

    it("is that of central differences, for start, features and every parameter" .. held, function()
      for _, case in ipairs {{"discrete", 0.25, true}, {"discrete", 0.25}, {"adjoint", 0.02}} do
        local mode, solver = case[1], {step_size = case[2]}
        local b = block {dropout = dropout, kinks = case[3]}
        local got = b.gradients(mode, solver)
        local function value() return b.loss(mode, b.z0, b.x, solver) end
        local stride = mode == "discrete" and 7 or 29
        assert_differences(b.z0, got[1], value, stride)
        assert_differences(b.x, got[2], value, stride)
        for i, p in ipairs(b.field:parameters()) do
          assert_differences(p, got[2 + i], value, p.numel > 20 and stride * 3 or 1)
        end
      end
    end)

    it("by adjoint tends to that by discrete with the tolerance" .. held, function()
      local b = block {dropout = dropout}
      local exact = b.gradients("discrete", tight)
      local loose = gap(b.gradients("adjoint", {rtol = 1e-3, atol = 1e-3}), exact)
      local close = gap(b.gradients("adjoint", tight), exact)
      assert.is_true(close < 1e-7 and loose > close)
    end)
  end

  -- The trap: a backward pass that holds the cotangent is a gradient of nothing.
  it("differs from dL/dz(1) at the start, in every exact mode", function()
    local b = block {}
    for _, mode in ipairs {"discrete", "adjoint"} do
      assert.is_true(gap({b.gradients(mode, tight)[1]}, {b.w}) > 0.1)
    end
  end)

  it("is checked by a test that `frozen` fails", function()
    local b = block {}
    local exact = b.gradients("discrete", tight)
    local function passes(mode) return gap(b.gradients(mode, tight), exact) < 1e-6 end
    assert.is_true(passes "discrete")
    assert.is_true(passes "adjoint")
    assert.is_false(passes "frozen")
  end)

  it("in the mode `frozen` is dL/dz(1) for the start and ∫(∂F/∂·)ᵀ dL/dz(1) dt for the rest", function()
    local b = block {}
    local got = b.gradients("frozen", tight)
    assert.close(got[1], b.w, 1e-12)
    local n, times = 64, {}
    for i = 0, n do times[i + 1] = i / n end
    local path = tide.no_grad(ode.solve, function(_, z) return b.field(z, b.x) end, b.z0, times,
      {rtol = 1e-11, atol = 1e-11, land = true}).ys
    local inputs = {b.x:detach():requires_grad()}
    for _, p in ipairs(b.field:parameters()) do inputs[#inputs + 1] = p end
    local sums = {}
    for i = 0, n do
      local weight = ((i == 0 or i == n) and 1 or i % 2 == 1 and 4 or 2) / (3 * n)
      local g = tide.gradients((b.field(path[i + 1]:detach(), inputs[1]) * b.w):sum(), inputs)
      for k = 1, #inputs do sums[k] = sums[k] and sums[k] + g[k] * weight or g[k] * weight end
    end
    local rest = {}
    for k = 1, #inputs do rest[k] = got[k + 1] end
    assert.is_true(gap(rest, sums) < 1e-7)
    assert.is_true(gap({b.gradients("discrete", tight)[2]}, {sums[1]}) > 0.02)
  end)

  it("of the horizon is ⟨w, F(z(T))⟩", function()
    local b = block {}
    for _, mode in ipairs {"discrete", "adjoint"} do
      local horizon = tide.tensor(1, "float64"):requires_grad()
      local sol = ode.solve(function(_, z) return b.field(z, b.x) end, b.z0, {0, horizon},
        {grad = mode, method = "dopri5", rtol = 1e-9, atol = 1e-9})
      local got = tide.gradients((sol.last * b.w):sum(), {horizon})[1]:item()
      assert.close(got, (b.field(sol.last, b.x) * b.w):sum():item(), 1e-6)
      local function value(t)
        return tide.no_grad(ode.solve, function(_, z) return b.field(z, b.x) end, b.z0, {0, t}, tight).last
      end
      local numeric = ((value(1 + 1e-4) - value(1 - 1e-4)) * b.w):sum():item() / 2e-4
      assert.close(got, numeric, 1e-6)
    end
  end)

  it("is that of the ANODE with dx/dt = 0", function()
    local b = block {}
    for _, mode in ipairs {"discrete", "adjoint"} do
      local expected = b.gradients(mode)
      local z0, x = b.z0:detach():requires_grad(), b.x:detach():requires_grad()
      local inputs = {z0, x}
      for _, p in ipairs(b.field:parameters()) do inputs[#inputs + 1] = p end
      local sol = ode.solve(function(_, s) return {z = b.field(s.z, s.x), x = s.x * 0} end, {z = z0, x = x},
        {0, 1},
        {method = "dopri5", step_size = 0.25, grad = mode})
      assert.close((sol.last.z * b.w):sum(), b.loss(mode, b.z0, b.x), 1e-12)
      local got = tide.gradients((sol.last.z * b.w):sum(), inputs)
      assert.is_true(gap(got, expected) < 1e-12)
    end
  end)
end)

describe("a linear field", function()
  local a = random(4, 5, 5) * 0.4
  local c, start, w = random(5, 5), random(6, 5), random(7, 5)
  local eye = tide.eye(5, "float64")

  it("F = Az + c ends at e^{AT}z0 + A⁻¹(e^{AT} − I)c, which is no fixed point of it", function()
    local z0 = start:detach():requires_grad()
    local sol = ode.solve(function(_, z) return a:matmul(z) + c end, z0, {0, 1.5}, tight)
    local e = (a * 1.5):matrix_exp()
    assert.close(sol.last, e:matmul(z0) + a:inv():matmul((e - eye):matmul(c)), 1e-8)
    assert.close(tide.gradients((sol.last * w):sum(), {z0})[1], e:transpose(1, 2):matmul(w), 1e-8)
    assert.is_true((a:matmul(sol.last) + c - sol.last):norm():item() > 0.1)
  end)

  it("f − z relaxes as e^{(A−I)T}; its gradients tend to those of the implicit function theorem", function()
    local rest = (eye - a):inv():matmul(c)
    local limit = (eye - a):transpose(1, 2):inv():matmul(w)
    local before = math.huge
    for _, horizon in ipairs {1, 4, 12} do
      local z0, input = start:detach():requires_grad(), c:detach():requires_grad()
      local sol = ode.solve(function(_, z) return a:matmul(z) + input - z end, z0, {0, horizon}, tight)
      local e = ((a - eye) * horizon):matrix_exp()
      assert.close(sol.last, rest + e:matmul(start - rest), 1e-8)
      local g = tide.gradients((sol.last * w):sum(), {z0, input})
      assert.close(g[1], e:transpose(1, 2):matmul(w), 1e-7)
      assert.close(g[2], limit - (eye - a):transpose(1, 2):inv():matmul(e:transpose(1, 2):matmul(w)), 1e-7)
      local distance = (g[2] - limit):norm():item()
      assert.is_true(distance < before)
      before = distance
    end
  end)
end)

-- ---- The model ----

local function small(o)
  local given = {inputs = 2, channels = 4, classes = 3, groups = 2, head_width = 8, rtol = 1e-4, atol = 1e-4}
  for k, v in pairs(o or {}) do given[k] = v end
  return implicit.HomoODE(given)
end

local images, labels

before_each(function()
  images = tide.generator(8):randn({6, 8, 8, 2})
  labels = tide.tensor({1, 2, 3, 1, 2, 3}, "int64")
end)

describe("the model", function()
  it("gives gradients to every trained parameter, in every mode", function()
    for _, mode in ipairs {"discrete", "adjoint", "frozen"} do
      local model = small {grad = mode, dropout = 0.2}
      nn.cross_entropy(model(images), labels):backward()
      for _, p in ipairs(model:trained_parameters()) do
        assert.is_truthy(p.grad)
        assert.is_true(p.grad:abs():sum():item() >= 0)
      end
      assert.is_true(model.stem.conv1.weight.grad:abs():max():item() > 0)
      assert.is_true(model.stats.nfe_b > 0)
    end
  end)

  it("has the gradient of central differences as a whole, joint point and stem included", function()
    local model = small {point = "joint", step_size = 0.5}:to "float64"
    local x = images:to "float64"
    local function loss() return nn.cross_entropy(model(x), labels) end
    loss():backward()
    for _, p in ipairs {
      model.stem.conv1.weight, model.stem.norm2.bias, model.point.norm.weight, model.point.norm.bias,
      model.field.conv2.weight, model.head.linear.weight,
    } do
      assert_differences(p, p.grad, loss, p.numel > 20 and 11 or 1)
    end
  end)

  it("does not depend on the order of the batch", function()
    local order = {4, 6, 1, 3, 5, 2}
    local model = small {point = "joint"}
    local index = tide.tensor(order, "int64")
    local function run(x, y)
      model:zero_grad()
      local logits = model(x)
      nn.cross_entropy(logits, y):backward()
      return logits:detach(), model.point.norm.bias.grad, model.field.conv1.weight.grad
    end
    local a, point_a, conv_a = run(images, labels)
    local b, point_b, conv_b = run(images:index_select(index, 1), labels:index_select(index, 1))
    assert.close(b, a:index_select(index, 1), 1e-5)
    assert.close(point_a, point_b, 1e-5)
    assert.close(conv_a, conv_b, 1e-5)
  end)

  it("starts every sample from one point whose gradient is the sum over batch and pixels", function()
    local model = small {point = "joint", step_size = 0.25}:to "float64"
    local x = random(9, 3, 4, 4, 4)
    local w = random(10, 3, 4, 4, 4)
    local a = model.point()
    local start = a:detach():expand(3, 4, 4, 4):contiguous():requires_grad()
    local f = function(_, z) return model.field(z, x) end
    local each = tide.gradients((ode.solve(f, start, {0, 1},
      {step_size = 0.25, method = "dopri5"}).last * w):sum(), {start})[1]
    local got = tide.gradients((model:solve(x).last * w):sum(), {model.point.norm.bias})[1]
    assert.close(got, each:sum {dims = {1, 2, 3}}, 1e-12)
    local parts
    for i = 1, 3 do
      local one = tide.gradients((model:solve(x:narrow(1, i, 1)).last * w:narrow(1, i, 1)):sum(),
        {model.point.norm.bias})[1]
      parts = parts and parts + one or one
    end
    assert.close(got, parts, 1e-12)
  end)

  it("draws one mask a pass, the same forward and backward, and none in evaluation", function()
    local model = small {dropout = 0.5}
    local drop, masks, calls = model.field.drop, {}, 0
    local forward = drop.forward
    drop.forward = function(self, x)
      calls = calls + 1
      local mask = forward(self, tide.ones_like(x))
      masks[table.concat(mask:detach():reshape(-1):totable(), " ")] = true
      return x * mask
    end
    local function distinct()
      local n = 0
      for _ in pairs(masks) do n = n + 1 end
      return n
    end
    local loss = nn.cross_entropy(model(images), labels)
    assert.are.equal(1, distinct())
    local before = calls
    loss:backward()
    assert.are.equal(before + model.stats.nfe_b, calls)
    assert.are.equal(1, distinct())
    model(images)
    assert.are.equal(2, distinct())
    masks = {}
    model:eval()
    local a, b = model(images), model(images)
    assert.are.equal(0, (a - b):abs():max():item())
    assert.is_truthy(next(masks):find("^[1 ]+$"))
    assert.are.equal(1, distinct())
  end)

  it("reports the endpoint and how far it is from rest", function()
    local model = small {}
    model:eval()
    local features = model.stem(images)
    model(images)
    assert.are.same(features.shape, model.endpoint.shape)
    assert.is_false(model.endpoint.needs_grad)
    for name in model:named_buffers() do assert.are_not.equal("endpoint", name) end
    local speed, residual = model:unrest(model.endpoint, features)
    assert.close(speed, (model.field(model.endpoint, features):norm() / model.endpoint:norm()):item(), 1e-6)
    assert.is_nil(residual)
  end)

  it("is saved after use, and another of the same options answers alike with what was saved", function()
    local model, other, path = small {}, small {}, os.tmpname()
    model(images)
    model.point:update(model.endpoint)
    assert.is_true(tide.io.save_safetensors(path, model:state_dict()))
    local saved = assert(tide.io.load_safetensors(path))
    os.remove(path)
    other:load_state_dict(saved)
    model:eval()
    other:eval()
    assert.are.equal(0, (model(images) - other(images)):abs():max():item())
  end)

  it("of the kind residual integrates F − z, with exact gradients", function()
    local model = small {kind = "residual", step_size = 0.25}:to "float64"
    local x = random(9, 2, 4, 4, 4)
    local function loss() return model:solve(x).last:sin():sum() end
    local f = function(_, z) return model.field(z, x) - z end
    local by_hand = ode.solve(f, model.point:start(x), {0, 1},
      {step_size = 0.25, method = "dopri5_shampine"}).last
    assert.close(model:solve(x).last, by_hand, 1e-13)
    local p = model.field.conv1.weight
    assert_differences(p, tide.gradients(loss(), {p})[1], loss, 13)
    local z = by_hand:detach()
    local speed, residual = model:unrest(z, x)
    local rest = (model.field(z, x) - z):norm():item()
    assert.close(speed, rest / z:norm():item(), 1e-12)
    assert.close(residual, rest / model.field(z, x):norm():item(), 1e-12)
  end)

  it("holds no more for an adjoint when it takes more steps, and one state a step for discrete", function()
    local x = tide.randn {8, 16, 16, 8}
    local function held(mode, steps)
      local model = implicit.HomoODE {channels = 8, groups = 4, head_width = 8, step_size = 1 / steps,
        grad = mode}
      model:solve(x)
      local before = helper.live()
      local sol = model:solve(x)
      local bytes = helper.live() - before
      assert.is_true(sol.last.needs_grad)
      return bytes / (x.numel * 4)
    end
    assert.close(held("adjoint", 40), held("adjoint", 5), 0.1)
    assert.close((held("discrete", 40) - held("discrete", 5)) / 35, 1, 0.2)
  end)

  it("trains: the loss falls in a few steps, in every mode of point and gradient", function()
    for _, point in ipairs {"zero", "pattern", "regress", "joint", "ema"} do
      local grad = point == "joint" and "adjoint" or "discrete"
      local model = small {point = point, point_every = 1, grad = grad}
      local opt = tide.optim.Adam(model:trained_parameters(), {lr = 1e-2})
      local first, last
      for _ = 1, 15 do
        local loss = nn.cross_entropy(model(images), labels)
        loss:backward()
        opt:step():zero_grad()
        model.point:update(model.endpoint)
        first, last = first or loss:item(), loss:item()
      end
      assert.is_true(last < 0.7 * first, point)
    end
  end)
end)

-- ---- The shared point ----

describe("the shared point", function()
  local function point(mode, o)
    local given = {mode = mode, groups = 2}
    for k, v in pairs(o or {}) do given[k] = v end
    return implicit.SharedPoint(4, given)
  end
  local features = tide.zeros {2, 3, 3, 4}

  it("zero is 0; pattern begins with −1 and alternates", function()
    assert.close(point("zero"):start(features), features, 0)
    assert.are.same({-1, 1, -1, 1}, point "pattern"():totable())
    assert.close(point("pattern"):start(features)[2][3][1], tide.tensor {-1, 1, -1, 1}, 0)
  end)

  it("regress and joint are γ·ŵ + β with two channels a group near ±1", function()
    for _, mode in ipairs {"regress", "joint"} do
      local p = point(mode, {groups = 2})
      local a = p():totable()
      for i = 1, 4 do assert.is_true(math.abs(math.abs(a[i]) - 1) < 0.2) end
      assert.close(a[1] + a[2], 0, 1e-5)
      tide.no_grad(function() p.norm.bias:add_(3) end)
      assert.close(p(), tide.tensor(a) + 3, 1e-6)
    end
  end)

  it("has one number a channel, of the features' type", function()
    for _, mode in ipairs {"zero", "pattern", "regress", "joint", "ema"} do
      local start = point(mode):start(features:to "float64")
      assert.are.same({"float64", 2, 3, 3, 4}, {start.dtype, unpack(start.shape)})
    end
  end)

  it("gets a gradient from the loss only in the mode joint", function()
    for _, mode in ipairs {"zero", "pattern", "regress", "joint", "ema"} do
      local model = small {point = mode}
      nn.cross_entropy(model(images), labels):backward()
      for _, p in ipairs(model.point:parameters()) do
        if mode == "joint" then assert.is_truthy(p.grad) else assert.is_nil(p.grad) end
      end
    end
  end)

  it("regress moves γ and β by one SGD step every k-th call", function()
    local p = point("regress", {every = 3, lr = 0.5})
    local z = tide.generator(1):randn({2, 3, 3, 4})
    for call = 1, 7 do
      local gamma, beta, a = p.norm.weight:clone(), p.norm.bias:clone(), p():detach()
      local loss = p:update(z)
      if call % 3 ~= 0 then
        assert.is_nil(loss)
        assert.are.same(gamma:totable(), p.norm.weight:totable())
      else
        local inner = (a - z):clamp(-1, 1):sum {dims = {1, 2, 3}} / z.numel  -- a mean over channels too
        assert.close(p.norm.bias, beta - inner * 0.5, 1e-6)
        assert.is_true((p.norm.weight - gamma):abs():max():item() > 1e-4)
        local d = (a - z):abs()
        assert.close(loss, (d:lt(1):to "float32" * d * d * 0.5 +
          d:ge(1):to "float32" * (d - 0.5)):mean():item(), 1e-6)
      end
      for _, q in ipairs(p:parameters()) do assert.is_nil(q.grad) end
    end
  end)

  it("regress rests at the mean of endpoints less than 1 away; outliers draw it as if they were 1 away", function()
    local p = point("regress", {every = 1, lr = 1}):to "float64"
    local z = random(2, 4, 3, 3, 4):tanh() * 0.4 + vector(1, -2, 0.5, 3)
    local mean = z:mean {dims = {1, 2, 3}}
    tide.no_grad(function()
      p.norm.weight:fill_(0)
      p.norm.bias:copy_(mean)
    end)
    p:update(z)
    assert.close(p.norm.bias, mean, 1e-12)
    z[1][1][1][1] = 1000
    p:update(z)
    local moved = p.norm.bias:detach() - mean
    assert.close(moved[2], 0, 1e-12)
    assert.is_true(moved[1]:item() > 0 and moved[1]:item() < 2 / z.numel)
  end)

  it("ema is a running mean over batch and pixels, from the pattern on", function()
    local p = point("ema", {decay = 0.9})
    local z = tide.generator(1):randn({2, 3, 3, 4})
    p:update(z)
    p:update(z)
    local mean = z:mean {dims = {1, 2, 3}}
    assert.close(p(), p:pattern() * 0.81 + mean * 0.19, 1e-6)
  end)

  it("learns under no_grad, and leaves recording as it was", function()
    local p = point("regress", {every = 1})
    local before = p.norm.bias:clone()
    tide.no_grad(function()
      p:update(tide.ones {2, 3, 3, 4})
      assert.is_false(tide.is_grad_enabled())
    end)
    assert.is_true(tide.is_grad_enabled())
    assert.is_true((p.norm.bias - before):abs():max():item() > 0)
    assert.has_error(function() p:update(tide.ones {2, 3, 3, 5}) end)
    assert.is_true(tide.is_grad_enabled())
  end)
end)
