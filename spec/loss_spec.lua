local tide = require "tide"
local nn = tide.nn
require "spec.helper"

local function same(expected, got, tolerance) assert.close(got, expected, tolerance) end
local function real(x) return tide.tensor(x, "float64") end
local function classes(x) return tide.tensor(x, "int64") end

-- f(a, b) for every element of two lists, as a list.
local function each(f, a, b)
  local out = {}
  for i = 1, #a do out[i] = f(a[i], b[i], i) end
  return out
end

local function sum(list)
  local total = 0
  for _, v in ipairs(list) do total = total + v end
  return total
end

before_each(function() tide.manual_seed(3) end)

describe("a regression loss", function()
  local a, b = {0.5, -2, 3, 1.5, -0.25}, {0, 1.5, 3, -1, -0.5}
  local abs = math.abs
  local function knee(k)
    return function(x, y)
      local d = abs(x - y)
      return d <= k and d * d / 2 or k * (d - k / 2)
    end
  end
  local cases = {
    mse = {nn.mse_loss, nil, function(x, y) return (x - y) ^ 2 end},
    l1 = {nn.l1_loss, nil, function(x, y) return abs(x - y) end},
    ["smooth l1"] = {nn.smooth_l1_loss, nil, knee(1)},
    ["smooth l1 with beta"] = {nn.smooth_l1_loss, {beta = 0.4},
      function(x, y) return knee(0.4)(x, y) / 0.4 end},
    huber = {nn.huber_loss, {delta = 2}, knee(2)},
  }
  for name, case in pairs(cases) do
    it("agrees with its formula: " .. name, function()
      local f, opts, formula = case[1], case[2] or {}, case[3]
      local expected = each(formula, a, b)
      local function with(reduction)
        local o = {reduction = reduction}
        for key, value in pairs(opts) do o[key] = value end
        return f(real(a), real(b), o)
      end
      same(expected, with("none"))
      same(sum(expected), with("sum"))
      same(sum(expected) / 5, f(real(a), real(b), opts))
      assert.same({}, with("mean").shape)
    end)

    it("has first and second derivatives: " .. name, function()
      local x, y = real {0.5, -2, 2.9, 0.3}, real {0.2, 1.5, 3, -1.9}
      assert.is_true(tide.gradcheck(function(u, v) return case[1](u, v, case[2]) end, {x, y}))
    end)
  end

  it("has curvature 1 where a smooth l1 loss is 0", function()
    local _, h = tide.hvp(function(x) return nn.smooth_l1_loss(x, real {1, 2}, {reduction = "sum"}) end,
      real {1, 5}, real {1, 1})
    same({1, 0}, h)
  end)

  it("takes a number as the target of every element", function()
    same(each(function(x) return (x - 2) ^ 2 end, a, a), nn.mse_loss(real(a), 2, {reduction = "none"}))
  end)

  it("refuses shapes that would broadcast, and options it does not know", function()
    assert.fails_here(function() nn.mse_loss(tide.ones(3, 1), tide.ones(3)) end,
      "mse_loss: the prediction has shape (3×1), the target (3)")
    assert.fails_here(function() nn.l1_loss(tide.ones(3), "a") end, "l1_loss: the target is a string")
    assert.fails_here(function() nn.l1_loss(3, tide.ones(3)) end, "l1_loss: the prediction is a number")
    assert.fails_here(function() nn.mse_loss(tide.ones(3), tide.ones(3), {reduction = "men"}) end,
      'mse_loss: reduction is "men", expected "mean", "sum" or "none"')
    assert.fails_here(function() nn.smooth_l1_loss(tide.ones(3), tide.ones(3), {betta = 1}) end,
      'unknown option "betta", did you mean "beta"?')
    assert.fails_here(function() nn.huber_loss(tide.ones(3), tide.ones(3), {delta = 0}) end,
      "huber_loss: delta is 0, expected a positive number")
  end)
end)

-- Log-probabilities of one row of logits.
local function log_softmax(row)
  local top, total = -math.huge, 0
  for _, v in ipairs(row) do top = math.max(top, v) end
  for _, v in ipairs(row) do total = total + math.exp(v - top) end
  return each(function(v) return v - top - math.log(total) end, row, row)
end

describe("cross_entropy", function()
  local logits = {{1.5, -0.3, 0.2}, {0.1, 2.2, -1}, {-0.7, 0.4, 0.9}, {3, 1, -2}}
  local target, weight = {1, 3, 3, 2}, {0.5, 2, 1.25}

  it("is minus the log-probability of the target's class", function()
    local expected = each(function(row, t) return -log_softmax(row)[t] end, logits, target)
    same(expected, nn.cross_entropy(real(logits), classes(target), {reduction = "none"}))
    same(sum(expected) / 4, nn.cross_entropy(real(logits), classes(target)))
    same(sum(expected), nn.cross_entropy(real(logits), classes(target), {reduction = "sum"}))
    same(sum(expected) / 4, nn.nll_loss(real(logits):log_softmax(), classes(target)))
  end)

  it("weighs classes, and divides a mean by the weights of the targets", function()
    local expected = each(function(row, t) return -log_softmax(row)[t] * weight[t] end, logits, target)
    local total = sum(each(function(t) return weight[t] end, target, target))
    same(expected, nn.cross_entropy(real(logits), classes(target),
      {weight = real(weight), reduction = "none"}))
    same(sum(expected) / total, nn.cross_entropy(real(logits), classes(target), {weight = real(weight)}))
    same(sum(expected) / total, nn.nll_loss(real(logits):log_softmax(), classes(target),
      {weight = real(weight)}))
  end)

  it("smooths labels towards all classes alike", function()
    local function smoothed(w)
      return each(function(row, t)
        local logp, all = log_softmax(row), 0
        for k, v in ipairs(logp) do all = all - v * w[k] end
        return -logp[t] * w[t] * 0.9 + all * 0.1 / 3
      end, logits, target)
    end
    local expected = smoothed {1, 1, 1}
    same(expected, nn.cross_entropy(real(logits), classes(target),
      {label_smoothing = 0.1, reduction = "none"}))
    expected = smoothed(weight)
    same(sum(expected) / (0.5 + 1.25 + 1.25 + 2),
      nn.cross_entropy(real(logits), classes(target), {label_smoothing = 0.1, weight = real(weight)}))
  end)

  it("takes probabilities, which agree with classes where one has all", function()
    local one_hot = each(function(t) return {t == 1 and 1 or 0, t == 2 and 1 or 0, t == 3 and 1 or 0} end,
      target, target)
    for _, o in ipairs {{}, {label_smoothing = 0.2},
      {reduction = "sum", weight = real(weight), label_smoothing = 0.3}} do
      same(nn.cross_entropy(real(logits), classes(target), o),
        nn.cross_entropy(real(logits), real(one_hot), o))
    end
    local p = {{0.2, 0.3, 0.5}, {1, 0, 0}, {0.1, 0.8, 0.1}, {0.4, 0.6, 0}}
    local expected = each(function(row, q)
      return -sum(each(function(l, w) return l * w end, log_softmax(row), q))
    end, logits, p)
    same(expected, nn.cross_entropy(real(logits), real(p), {reduction = "none"}))
  end)

  it("takes images of logits with images of classes", function()
    local x, t = tide.randn({2, 3, 4, 5}, "float64"), tide.randint(1, 5, 2, 3, 4)
    same(nn.cross_entropy(x:reshape(24, 5), t:reshape(24)), nn.cross_entropy(x, t))
    assert.same({2, 3, 4}, nn.cross_entropy(x, t, {reduction = "none"}).shape)
  end)

  it("stays finite for logits of any size", function()
    local x = tide.tensor({{1e4, -1e4, 0}, {-3e4, 3e4, 1}}):requires_grad()
    local loss = nn.cross_entropy(x, classes {2, 2}, {reduction = "none"})
    same({2e4, 0}, loss)
    loss:sum():backward()
    same({{1, -1, 0}, {0, 0, 0}}, x.grad)
  end)

  it("has first and second derivatives", function()
    for _, o in ipairs {{}, {label_smoothing = 0.1, weight = real(weight)}} do
      assert.is_true(tide.gradcheck(function(x) return nn.cross_entropy(x, classes(target), o) end,
        {real(logits)}))
    end
    assert.is_true(tide.gradcheck(nn.cross_entropy, {real(logits), real(logits):softmax()}))
  end)

  it("refuses targets that do not fit", function()
    local x = real(logits)
    assert.fails_here(function() nn.cross_entropy(x, classes {1, 2}) end,
      "cross_entropy: predictions of shape (4×3) need targets of shape (4), got (2)")
    assert.fails_here(function() nn.cross_entropy(x, classes {0, 1, 2, 3}) end,
      "cross_entropy: class 0, expected classes from 1 to 3")
    assert.fails_here(function() nn.nll_loss(x, classes {1, 4, 2, 3}) end, "nll_loss: class 4")
    assert.fails_here(function() nn.cross_entropy(x, classes {1, -1, 2, 3}) end, "class -1")
    assert.fails_here(function() nn.cross_entropy(x, real {1, 2, 3, 1}) end,
      "cross_entropy: the prediction has shape (4×3), the target (4)")
    assert.fails_here(function() nn.cross_entropy(x, {1, 2}) end,
      "expected two tensors, got a tensor and a table")
    assert.fails_here(function() nn.cross_entropy(x, classes(target), {weight = real {1}}) end,
      "weight is of shape (1), expected a tensor of 3 classes")
    assert.fails_here(function() nn.cross_entropy(x, classes(target), {label_smoothing = 2}) end,
      "label_smoothing: probability 2")
    assert.fails_here(function() nn.nll_loss(x, x) end,
      "nll_loss: the target is float64, expected int64 classes")
  end)
end)

describe("a binary loss", function()
  local logits, target = {-2.5, 0.3, 1.7, -0.1}, {1, 0, 0.25, 1}
  local function bce(p, t) return -t * math.log(p) - (1 - t) * math.log(1 - p) end
  local function of_logit(x, t) return bce(1 / (1 + math.exp(-x)), t) end

  it("agrees with its formula from probabilities and from logits", function()
    local expected = each(of_logit, logits, target)
    same(expected, nn.bce_with_logits(real(logits), real(target), {reduction = "none"}))
    same(expected, nn.bce_loss(real(logits):sigmoid(), real(target), {reduction = "none"}))
    same(sum(expected) / 4, nn.bce_with_logits(real(logits), real(target)))
  end)

  it("weighs elements and positive targets", function()
    local w = {1, 2, 0.5, 3}
    local expected = each(function(x, t, i)
      local p = 1 / (1 + math.exp(-x))
      return w[i] * (-4 * t * math.log(p) - (1 - t) * math.log(1 - p))
    end, logits, target)
    same(expected, nn.bce_with_logits(real(logits), real(target),
      {weight = real(w), pos_weight = 4, reduction = "none"}))
    same(each(function(x, t, i) return w[i] * of_logit(x, t) end, logits, target),
      nn.bce_loss(real(logits):sigmoid(), real(target), {weight = real(w), reduction = "none"}))
  end)

  it("stays finite, with its gradient, at the ends", function()
    local x = tide.tensor({1e4, -1e4, 1e4}):requires_grad()
    local loss = nn.bce_with_logits(x, tide.tensor {0, 1, 1}, {reduction = "none", pos_weight = 2})
    same({1e4, 2e4, 0}, loss)
    loss:sum():backward()
    same({1, -2, 0}, x.grad)
    local p = tide.tensor({0, 1, 0}):requires_grad()
    loss = nn.bce_loss(p, tide.tensor {0, 1, 1}, {reduction = "none"})
    same({0, 0, -math.log(2e-38)}, loss, 1e-4)
    loss:sum():backward()
    assert.is_true(tide.all(tide.isfinite(p.grad)):item() == 1)
  end)

  it("has first and second derivatives", function()
    assert.is_true(tide.gradcheck(nn.bce_with_logits, {real(logits), real(target)}))
    assert.is_true(tide.gradcheck(function(x, t) return nn.bce_with_logits(x, t, {pos_weight = 3}) end,
      {real(logits), real(target)}))
    assert.is_true(tide.gradcheck(function(p, t) return nn.bce_loss(p, t, {reduction = "sum"}) end,
      {real {0.2, 0.7, 0.9}, real {0.1, 1, 0}}))
  end)
end)

describe("kl_div", function()
  local p, q = {{0.2, 0.3, 0.5}, {0.6, 0.4, 0}}, {{0.1, 0.1, 0.8}, {0.3, 0.3, 0.4}}

  it("is Σ p·log(p/q), by batch, with 0·log 0 = 0", function()
    local expected = 0
    for i = 1, 2 do
      for k = 1, 3 do
        if p[i][k] > 0 then expected = expected + p[i][k] * math.log(p[i][k] / q[i][k]) end
      end
    end
    same(expected / 2, nn.kl_div(real(q):log(), real(p)))
    same(expected, nn.kl_div(real(q):log(), real(p), {reduction = "sum"}))
    same(expected / 6, nn.kl_div(real(q):log(), real(p), {reduction = "mean"}))
    local pos = real {{0.2, 0.3, 0.5}}
    same(nn.kl_div(real {q[1]}:log(), pos), nn.kl_div(real {q[1]}:log(), pos:log(), {log_target = true}))
  end)

  it("has first and second derivatives, also where the target is 0", function()
    assert.is_true(tide.gradcheck(function(x) return nn.kl_div(x:log_softmax(), real(p)) end,
      {tide.randn({2, 3}, "float64")}))
    local t = tide.tensor({{0, 1, 0}}):requires_grad()
    nn.kl_div(tide.tensor {{-1, -2, -3}}, t):backward()
    assert.is_true(tide.all(tide.isfinite(t.grad)):item() == 1)
  end)
end)

describe("losses as modules", function()
  it("remember their options", function()
    local x, t = tide.randn(4, 3), tide.randint(1, 3, 4)
    local o = {label_smoothing = 0.1}
    same(nn.cross_entropy(x, t, o), nn.CrossEntropyLoss(o)(x, t))
    local y = tide.randn(4, 3)
    for module, f in pairs {MSELoss = "mse_loss", L1Loss = "l1_loss", SmoothL1Loss = "smooth_l1_loss",
      HuberLoss = "huber_loss", BCEWithLogitsLoss = "bce_with_logits"} do
      same(nn[f](x, y, {reduction = "sum"}), nn[module]({reduction = "sum"})(x, y))
      same(nn[f](x, y), nn[module]()(x, y))
    end
  end)
end)
