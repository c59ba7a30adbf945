-- What gradients through a sampler are used for: optimising, attacking within a bound, guiding on the way.

require "spec.helper"
local mixture = require "spec.support.mixture"
local tide = require "tide"
local diffusion = tide.diffusion

local schedule = diffusion.Schedule "linear"
local function f64(values) return tide.tensor(values, "float64") end
local function noise(seed, n) return tide.generator(seed):randn({n, 2}, "float64") end

local means = f64 {{-1, 0.5}, {1.5, -0.3}, {0.2, 1}}
local model = mixture.denoiser {weights = {0.3, 0.5, 0.2}, sd = {0.3, 0.4, 0.35}, means = means, schedule = schedule}
local sampling = {schedule = schedule, sampler = "dpmpp_2m", steps = 12, spacing = "karras"}
local target = f64 {{1.2, 0.1}}
local function distance(x0) return ((x0 - target) ^ 2):sum(2):mean() end

describe("optimise", function()
  it("moves noise to where the sample is what the metric wants, and keeps its norm", function()
    local x = noise(2, 3):requires_grad()
    local radius = x:detach():norm(2)
    local r = diffusion.optimise(model, x, distance, {iterations = 40, lr = 0.1, sampling = sampling})
    assert.is_true(r.after < 0.5 * r.before, r.after .. " from " .. r.before)
    assert.are.equal(41, #r.losses)
    assert.close(x:detach():norm(2), radius, 1e-12)
    assert.close(distance(r.x0):item(), r.after, 1e-12)
    assert.is_nil(x.grad)
  end)

  it("moves a condition instead when that is the target", function()
    local shift = f64({{0, 0}}):requires_grad()
    local function conditional(y, t, c) return model(y - c * schedule:alpha(t:item()), t) end
    local x = noise(2, 3)
    local before = x:clone()
    local o = {schedule = schedule, steps = 12, condition = shift}
    local r = diffusion.optimise(conditional, x, function(x0) return ((x0 - 4) ^ 2):mean() end,
      {targets = {shift}, iterations = 60, lr = 0.3, sampling = o, optimiser = "adam"})
    assert.is_true(r.after < 0.3 * r.before)
    assert.is_true(shift:min():item() > 1)
    assert.close(x, before, 0)
  end)

  it("can be told to keep noise likely instead of on its sphere", function()
    local x = (noise(2, 4) * 3):requires_grad()
    local wide = tide.randn({4, 50}, "float64"):mul(3):requires_grad()
    local o = {iterations = 60, lr = 0.2, keep_norm = false, shell = 1, sampling = {schedule = schedule, steps = 2}}
    diffusion.optimise(function(y) return y * 0.5 end, wide, function(x0) return (x0 * 0):sum() end, o)
    assert.is_true(math.abs((wide ^ 2):sum(2):mean():item() - 48) < 4)
    assert.is_true(tide.is_tensor(x))
  end)

  it("says what is wrong with a metric", function()
    local x = noise(2, 3):requires_grad()
    local function run(metric, o)
      o = o or {}
      o.sampling = sampling
      return diffusion.optimise(model, x, metric, o)
    end
    assert.fails_here(function() run(3) end, "the metric is a number")
    assert.fails_here(function() run(function(x0) return x0 end) end, "the metric gave shape (3×2), expected")
    assert.fails_here(function() run(function() return 3 end) end, "the metric gave a number")
    assert.fails_here(function() run(function(x0) return x0:detach():sum() end) end, "does not depend on the sample")
    assert.fails_here(function() run(function() return x:sum() * 0 / 0 end) end, "the loss is nan at iteration 1")
    local other = f64({1}):requires_grad()
    assert.fails_here(function() run(distance, {targets = {other}}) end, "does not depend on target 1")
    assert.fails_here(function() run(distance, {steps = 5}) end, "steps is an option of diffusion.sample",
      "sampling = {steps = …}")
    assert.fails_here(function() run(distance, {iterations = 0}) end, "iterations is 0")
    assert.fails_here(function() run(distance, {optimiser = "sdg"}) end, "unknown optimiser \"sdg\"")
    assert.fails_here(function() diffusion.optimise(model, noise(2, 3), distance, {}) end, "x_T is no leaf")
  end)
end)

describe("attack", function()
  local function side(x0) return x0[{{}, 1}] * -1 end
  local function crossed(x0) return x0[{{}, 1}]:lt(0) end

  for _, norm in ipairs {"max", "l2"} do
    it("never leaves its bound (" .. norm .. ") and leaves x_T as it was", function()
      local x = noise(5, 12)
      local copy = x:clone()
      local bound = norm == "max" and 0.15 or 0.3
      local r = diffusion.attack(model, x, side, {bound = bound, norm = norm, step = 0.1, iterations = 15,
        success = crossed, sampling = sampling})
      assert.close(x, copy, 0)
      local away = r.x - copy
      local size = norm == "max" and away:abs():max(2) or away:norm(2)
      assert.is_true(size:max():item() <= bound * (1 + 1e-12), size:max():item())
      assert.is_true(size:max():item() > 0.9 * bound)
      assert.close(r.distance, away:norm(2), 1e-12)
      assert.close(r.largest, away:abs():max(2), 1e-12)
      -- what is reported is that of the last noise, sampled anew
      local again = diffusion.sample(model, r.x, sampling).x0
      assert.close(r.x0, again, 1e-12)
      assert.is_true((side(again) - side(diffusion.sample(model, x, sampling).x0)):mean():item() > 0)
    end)
  end

  it("leaves those alone that have crossed, and says how many", function()
    local x = noise(5, 12)
    local first = crossed(diffusion.sample(model, x, sampling).x0)
    local r = diffusion.attack(model, x, side, {bound = 3, step = 0.3, iterations = 40, success = crossed,
      sampling = sampling})
    assert.are.equal(1, r.rate)
    for i = 1, 12 do
      if first[i]:item() == 1 then assert.are.equal(0, r.distance[i]:item()) end
    end
    assert.is_true(r.iterations < 40)
  end)

  it("refuses what makes no sense", function()
    local x = noise(5, 2)
    assert.fails_here(function() diffusion.attack(model, x, side, {norm = "l1"}) end,
      "norm is \"l1\", expected \"max\" or \"l2\"")
    assert.fails_here(function() diffusion.attack(model, x, side, {bound = 0}) end, "bound is 0")
    assert.fails_here(function() diffusion.attack(model, x, distance, {sampling = sampling}) end,
      "one number for each of the batch of 2")
  end)
end)

describe("guide", function()
  it("brings samples to where a loss is small", function()
    local x = noise(7, 30)
    local function loss(x0) return ((x0 - target) ^ 2):sum() end
    local free = diffusion.sample(model, x, {schedule = schedule, steps = 25}).x0
    local r = diffusion.guide(model, x, loss, {schedule = schedule, steps = 25, from = 1, to = 22, strength = 2})
    assert.are.equal(22, #r.losses)
    assert.is_true(loss(r.x0):item() < 0.5 * loss(free):item(), loss(r.x0):item() .. " " .. loss(free):item())
    local none = diffusion.guide(model, x, loss, {schedule = schedule, steps = 25, strength = 0})
    assert.close(none.x0, free, 1e-9)
  end)

  it("tells the callback the loss of guided steps alone", function()
    local seen = {}
    diffusion.guide(model, noise(7, 5), function(x0) return ((x0 - target) ^ 2):sum() end, {
      schedule = schedule, steps = 4, from = 2, to = 3, spacing = "linspace",
      callback = function(i, _, _, _, loss) seen[i] = loss or "none" end,
    })
    assert.are.equal("none", seen[1])
    assert.are.equal("number", type(seen[2]))
    assert.are.equal("none", seen[4])
  end)

  it("goes to the last time of training, and from the pure noise of a flow", function()
    local x = noise(7, 30)
    local function loss(x0) return ((x0 - target) ^ 2):sum() end
    local r = diffusion.guide(model, x, loss, {schedule = schedule, steps = 5, from = 5, to = 5, spacing = "linspace"})
    assert.are.equal(1, #r.losses)
    local function still(y) return y * 0 end
    local flow = {schedule = "flow", steps = 5, from = 1, to = 5, strength = 0.5, repeats = 2}
    assert.is_true(loss(diffusion.guide(still, x, loss, flow).x0):item() < loss(x):item())
  end)

  it("repeats steps from fresh noise, from a seed", function()
    local x = noise(7, 5)
    local function run(seed)
      return diffusion.guide(model, x, distance, {schedule = schedule, steps = 8, repeats = 2,
        noise = tide.generator(seed)}).x0
    end
    assert.close(run(1), run(1), 0)
    assert.is_true((run(1) - run(2)):abs():max():item() > 1e-6)
  end)

  it("says what is wrong with a loss", function()
    local x = noise(7, 5)
    local function run(loss) return diffusion.guide(model, x, loss, {schedule = schedule, steps = 8}) end
    assert.fails_here(function() run(function(x0) return x0 end) end, "the loss gave shape (5×2)")
    assert.fails_here(function() run(function() return tide.zeros(1) end) end, "does not depend on the sample")
    assert.fails_here(function() run(2) end, "the loss is a number")
  end)
end)

describe("gram", function()
  it("is the product of channels over positions", function()
    local x = tide.randn({2, 3, 4, 5}, "float64")
    local g = diffusion.gram(x)
    assert.are.same({2, 5, 5}, g.shape)
    assert.close(g[2][{1, 3}], (x[{2, {}, {}, 1}] * x[{2, {}, {}, 3}]):mean(), 1e-13)
    assert.fails_here(function() diffusion.gram(tide.ones(2, 2)) end, "shape (2×2)")
  end)
end)
