-- The models that come with tide: they are found, they fit what is said of them, and the digits that the one draws
-- are recognised by the other.

require "spec.helper"
local tide = require "tide"

local diffusion = tide.diffusion

describe("the models that come along", function()
  it("are what their pages say", function()
    local net, info = assert(diffusion.pretrained "digits")
    assert.are.equal(687473, net:count())
    assert.are.equal("v", info.schedule.prediction)
    assert.are.equal("linear", info.schedule.name)
    assert.are.equal(11, net.class_embedding.entries)
    assert.are.equal(72890, assert(diffusion.pretrained "digits-classifier"):count())
    local colour, about = assert(diffusion.pretrained "cifar10")
    assert.are.equal(1933843, colour:count())
    assert.are.equal("v", about.schedule.prediction)
    assert.are.equal(11, colour.class_embedding.entries)
    assert.fails_here(function() diffusion.pretrained "cats" end, "unknown model \"cats\"", "digits")
  end)

  it("recognise unseen digits", function()
    local _, test = assert(tide.data.digits())
    local classifier = assert(diffusion.pretrained "digits-classifier")
    local images = test.images[{{1, 500}}]:float() / 127.5 - 1
    assert.is_true(diffusion.recognised(classifier, images, test.labels[{{1, 500}}]) >= 0.98)
  end)

  it("tell noise from picture, in colour", function()
    local net, info = assert(diffusion.pretrained "cifar10")
    -- a smooth picture: the sky above, the ground below
    local rows = tide.linspace(-0.6, 0.6, 32):reshape(1, 32, 1, 1)
    local x0 = (rows * tide.tensor({-1, -0.3, 1}):reshape(1, 1, 1, 3)):expand(4, 32, 32, 3):contiguous()
    local noise = tide.generator(3):randn(4, 32, 32, 3)
    for _, t in ipairs {100, 200} do
      local noisy = info.schedule:add_noise(x0, noise, t)
      local classes = tide.full({4}, 11, "int64")
      local v = tide.no_grad(function() return net(noisy, t, classes) end)
      local truth = info.schedule:target(x0, noise, t, "v")
      assert.is_true((v - truth):square():mean():item() < 0.1 * truth:square():mean():item())
    end
  end)

  it("draw the digit that is asked for", function()
    local net, info = assert(diffusion.pretrained "digits")
    local classes = tide.arange(0, 19, 1, "int64"):mod(10) + 1
    local x_T = tide.generator(4):randn(20, 28, 28, 1)
    local out = diffusion.sample(net, x_T, {schedule = info.schedule, sampler = "dpmpp_2m", steps = 10, guidance = 2,
      condition = classes, negative = 11, grad = "none"})
    local share = diffusion.recognised(assert(diffusion.pretrained "digits-classifier"), out.x0, classes)
    assert.is_true(share >= 0.9)
  end)
end)
