-- Noise schedules, grids of steps, and conversions between predictions.

require "spec.helper"
local tide = require "tide"
local Schedule = tide.diffusion.Schedule

local function near(expected, got, relative)
  local gap = math.abs(got - expected)
  assert.is_true(gap <= relative * math.abs(expected), ("%.12g is not %.12g"):format(got, expected))
end

describe("a schedule of 1000 times", function()
  -- ᾱ at both ends, σ̂ and λ at both ends
  local expected = {
    linear = {0.9999, 4.03583e-5, 0.0100005, 157.407, 4.605, -5.059},
    scaled_linear = {0.99915, 0.0046601, 0.0291672, 14.6146, 3.535, -2.682},
    cosine = {0.999959, 2.42877e-9, 0.00642541, 20291, 5.047, -9.918},
  }
  for name, v in pairs(expected) do
    it(name .. " has the released values at its ends", function()
      local s = Schedule(name)
      near(v[1], s:alpha(0) ^ 2, 1e-6)
      near(v[2], s:alpha(999) ^ 2, 1e-5)
      near(v[3], s:ratio(0), 1e-5)
      near(v[4], s:ratio(999), 3e-5)
      near(v[5], s:lambda(0), 2e-4)
      near(v[6], s:lambda(999), 2e-4)
    end)
  end

  it("goes from λ back to the time, at whole times and between", function()
    for _, name in ipairs {"linear", "scaled_linear", "cosine", "vp", "flow", "edm"} do
      local s = Schedule(name)
      for u = 0.01, 0.99, 0.07 do
        local t = s.first + u * (s.last - s.first)
        near(t, s:time(s:lambda(t)), 1e-9)
        local n = s:node(t)
        local level = s.kind == "vp" and n.alpha ^ 2 + n.sigma ^ 2 or s.kind == "flow" and n.alpha + n.sigma or n.alpha
        near(1, level, 1e-14)
        near(n.sigma / n.alpha, n.ratio, 1e-13)
      end
    end
  end)

  it("vp is near its discrete form", function()
    local a, b = Schedule "vp", Schedule "linear"
    for t = 50, 950, 100 do near(b:lambda(t), a:lambda(t), 0.06) end
  end)

  it("takes tensors of times", function()
    local s = Schedule "linear"
    local t = tide.tensor({0, 500, 999}, "int64")
    assert.close(s:alpha(t, "float64"), {s:alpha(0), s:alpha(500), s:alpha(999)}, 1e-15)
    local x, z = tide.randn({3, 2, 2}, "float64"), tide.randn({3, 2, 2}, "float64")
    local y = s:add_noise(x, z, t)
    assert.close(y[2], x[2] * s:alpha(500) + z[2] * s:sigma(500), 1e-14)
    assert.fails_here(function() s:add_noise(x, z, tide.zeros(2)) end, "2 times for a batch of 3")
  end)

  it("prints its range", function()
    assert.is_truthy(tostring(Schedule "linear"):find("0 to 999, σ̂ from 0.0100005 to 157.407", 1, true))
  end)
end)

describe("predictions", function()
  it("are converted into each other", function()
    local kinds = {"epsilon", "x0", "v", "flow"}
    for _, name in ipairs {"linear", "flow", "edm"} do
      local s = Schedule(name)
      local x0, z = tide.randn({4, 3}, "float64"), tide.randn({4, 3}, "float64")
      local t = name == "edm" and -0.3 or 300
      local x = s:add_noise(x0, z, t)
      for _, from in ipairs(kinds) do
        for _, to in ipairs(kinds) do
          assert.close(s:convert(s:target(x0, z, t, from), x, t, from, to), s:target(x0, z, t, to), 1e-11)
        end
      end
    end
  end)

  it("have one time each in a batch", function()
    local s = Schedule "linear"
    local x0, z, t = tide.randn({3, 4}, "float64"), tide.randn({3, 4}, "float64"), tide.tensor {10, 400, 900}
    local x = s:add_noise(x0, z, t)
    assert.close(s:convert(s:target(x0, z, t, "v"), x, t, "v", "x0"), x0, 1e-6)
  end)

  it("of an unknown kind are refused", function()
    local s, x = Schedule "linear", tide.zeros(1, 1)
    assert.fails_here(function() s:convert(x, x, 1, "eps", "v") end, "unknown prediction \"eps\"")
    assert.fails_here(function() Schedule("linear", {prediction = "noise"}) end, "unknown prediction \"noise\"")
  end)
end)

describe("spacings", function()
  local s = Schedule "linear"
  it("leading, trailing and linspace visit the usual times", function()
    assert.are.same({900, 800, 700, 600, 500, 400, 300, 200, 100, 0}, s:timesteps {steps = 10, spacing = "leading"})
    assert.are.same({751, 501, 251, 1}, s:timesteps {steps = 4, spacing = "leading", offset = 1})
    assert.are.same({999, 749, 499, 249}, s:timesteps {steps = 4, spacing = "trailing"})
    assert.are.same({999, 856, 713, 570, 428, 285, 142}, s:timesteps {steps = 7, spacing = "trailing"})
    assert.are.same({999, 666, 333, 0}, s:timesteps {steps = 4, spacing = "linspace"})
  end)

  it("end where they are told to", function()
    local function last(opts)
      local nodes = s:nodes(opts)
      return #nodes, nodes[#nodes]
    end
    local n, zero = last {steps = 5}
    assert.are.same({6, 0, 1}, {n, zero.sigma, zero.alpha})
    local m, least = last {steps = 5, final = "min"}
    assert.are.same({6, 0}, {m, least.t})
    local k, none = last {steps = 5, spacing = "linspace", final = "none"}
    assert.are.same({6, 0}, {k, none.t})
    local j = last {steps = 5, spacing = "linspace", final = "min"}  -- the last visited time is 0 already
    assert.are.equal(5, j)
  end)

  it("karras and exponential are those of Karras and a geometric sequence", function()
    local k = s:nodes {steps = 5, spacing = "karras"}
    local a, b = s:ratio(999) ^ (1 / 7), s:ratio(0) ^ (1 / 7)
    for i = 1, 5 do near((a + (i - 1) / 4 * (b - a)) ^ 7, k[i].ratio, 1e-10) end
    local e = s:nodes {steps = 5, spacing = "exponential"}
    for i = 2, 4 do near(e[i].ratio / e[i - 1].ratio, e[i + 1].ratio / e[i].ratio, 1e-9) end
    for i = 1, 5 do near(e[i].ratio, s:ratio(e[i].t), 1e-9) end
    local edm = Schedule("edm"):nodes {steps = 3}
    near(80, edm[1].ratio, 1e-12)
    near(0.002, edm[3].ratio, 1e-12)
  end)

  it("of a flow are shifted on request", function()
    local f = Schedule("flow", {shift = 3})
    local nodes = f:nodes {steps = 4}
    for i, u in ipairs {1, 0.75, 0.5, 0.25, 0} do near(3 * u / (1 + 2 * u) + 1e-300, nodes[i].sigma + 1e-300, 1e-12) end
  end)

  it("take times and σ̂ of one's own", function()
    local nodes = s:nodes {timesteps = {999, 500.5, 20}}
    assert.are.same({999, 500.5, 20}, {nodes[1].t, nodes[2].t, nodes[3].t})
    near(3, s:nodes({sigmas = {10, 3, 0}})[2].ratio, 1e-10)
    assert.are.equal(3, #s:nodes {sigmas = {10, 3, 0}})
  end)

  it("say what is wrong with them", function()
    assert.fails_here(function() s:nodes {spacing = "trailling"} end, "unknown spacing \"trailling\"")
    assert.fails_here(function() s:nodes {stesp = 4} end, "unknown option \"stesp\", did you mean \"steps\"?")
    assert.fails_here(function() s:nodes {steps = 0} end, "steps is 0, expected a whole number, 1 or more")
    assert.fails_here(function() s:nodes {steps = 1001} end, "1001 steps on a schedule of 1000 times")
    assert.fails_here(function() s:nodes {timesteps = {10, 20}} end, "timesteps[2] is 20 after 10")
    assert.fails_here(function() s:nodes {timesteps = {1200, 3}} end,
      "timesteps[1] is 1200, expected a number from 0 to 999")
    assert.fails_here(function() s:nodes {final = "end"} end,
      "final is \"end\", expected \"zero\", \"min\" or \"none\"")
    assert.fails_here(function() Schedule "liner" end, "unknown schedule \"liner\"", "scaled_linear")
    assert.fails_here(function() Schedule("linear", {steps = 1}) end, "steps is 1")
    assert.fails_here(function() Schedule("betas", {betas = {0.1, 2}}) end, "beta 2 is 2")
    assert.fails_here(function() s:alpha("x") end, "a time is a string")
    assert.fails_here(function() s:alpha(-1) end, "time -1 is outside")
  end)
end)
