-- Samplers: their orders on mixtures whose score is known, closed forms (T1, T2, T4 and T5 of Gaussian problems),
-- guidance, and what is refused.

local helper = require "spec.helper"
local mixture = require "spec.support.mixture"
local tide = require "tide"
local diffusion = tide.diffusion
local sample, Schedule = diffusion.sample, diffusion.Schedule

local function f64(values) return tide.tensor(values, "float64") end

-- A mixture of three in the plane, and where the flow starts.
local three = {weights = {0.3, 0.5, 0.2}, sd = {0.3, 0.4, 0.35}, means = f64 {{-1, 0.5}, {1.5, -0.3}, {0.2, 1}}}
local start = f64 {{0.3, 0.2}, {-1.2, 0.5}, {1, 1}}

local function denoiser(schedule, kind, m)
  m = m or three
  return mixture.denoiser {weights = m.weights, sd = m.sd, means = m.means, schedule = schedule, prediction = kind}
end

local function worst(a, b) return (a - b):abs():max():item() end

-- ---- Orders ----

local uniform = {}
do
  local s = Schedule "linear"
  local high, low = s:lambda(980), s:lambda(20)
  function uniform.at(n)
    local ratios = {}
    for i = 0, n do ratios[i + 1] = math.exp(-(high + (low - high) * i / n)) end
    return ratios
  end
  local model = denoiser(s)
  function uniform.run(name, n, own)
    local o = {schedule = s, sampler = name, sigmas = uniform.at(n), final = "none"}
    for k, v in pairs(own or {}) do o[k] = v end
    return sample(model, start, o)
  end
end

describe("the order of", function()
  local reference
  setup(function()
    reference = uniform.run("unipc", 2000, {order = 3, start = 3}).x0
    assert.close(uniform.run("dpm_solver_3", 1500).x0, reference, 1e-9)
  end)

  -- name, options, order, and the number of coarse steps
  local expected = {
    {"ddim", {}, 1}, {"euler", {}, 1}, {"dpm_solver_1", {}, 1}, {"dpmpp_1", {}, 1},
    {"dpm_solver_2", {}, 2}, {"dpm_solver_3", {}, 3}, {"dpmpp_2s", {}, 2}, {"dpmpp_2m", {}, 2},
    {"dpmpp_2m", {variant = "heun"}, 2}, {"dpmpp_3m", {start = 3}, 3}, {"dpmpp_3m_released", {start = 3}, 2},
    {"deis", {order = 2}, 2}, {"deis", {order = 3, start = 3}, 3}, {"deis", {order = 4, start = 3}, 4, 320},
    {"lms", {order = 4, start = 3}, 4, 320}, {"plms", {}, 2}, {"plms", {warm = true}, 2}, {"unip", {}, 2},
    {"unip", {order = 3, start = 3}, 3}, {"unipc", {}, 3}, {"unipc", {form = "epsilon", variant = "bh1"}, 3},
    {"unipc", {order = 3, start = 3}, 4, 240}, {"heun", {}, 2}, {"dpm2", {}, 2}, {"bdia", {}, 2}, {"o_belm", {}, 2},
    {"edict", {}, 1}, {"ode", {method = "midpoint"}, 2}, {"ode", {method = "rk4"}, 4, 160},
  }
  for _, case in ipairs(expected) do
    local name, own, order, n = unpack(case)
    n = n or 240
    local about = {}
    for k, v in pairs(own) do about[#about + 1] = k .. " " .. tostring(v) end
    table.sort(about)
    it(("%s%s is %d"):format(name, #about > 0 and " (" .. table.concat(about, ", ") .. ")" or "", order), function()
      local coarse = worst(uniform.run(name, n, own).x0, reference)
      local fine = worst(uniform.run(name, 2 * n, own).x0, reference)
      local measured = math.log(coarse / fine) / math.log(2)
      assert.is_true(math.abs(measured - order) <= 0.15,
        ("measured %.3f from %.3g and %.3g"):format(measured, coarse, fine))
    end)
  end

  it("McCallum–Foster's coupling is two or more", function()
    local coarse, fine = worst(uniform.run("mf", 160).x0, reference), worst(uniform.run("mf", 320).x0, reference)
    assert.is_true(math.log(coarse / fine) / math.log(2) > 1.85)
  end)

  it("flow samplers is 1, 2, 2", function()
    local s = Schedule "flow"
    local model = denoiser(s, "flow")
    local function run(name, n)
      local times = {}
      for i = 0, n do times[i + 1] = 990 - 970 * i / n end
      return sample(model, start, {schedule = s, sampler = name, timesteps = times, final = "none"}).x0
    end
    local exact = run("ode", 400)
    for name, order in pairs {flow_euler = 1, flow_midpoint = 2, flow_heun = 2, euler = 1, heun = 2} do
      local measured = math.log(worst(run(name, 320), exact) / worst(run(name, 640), exact)) / math.log(2)
      assert.is_true(math.abs(measured - order) <= 0.15, ("%s: measured %.3f"):format(name, measured))
    end
  end)
end)

describe("on other grids", function()
  it("DDIM and Euler in σ̂ are one, and so are flow Euler and DDIM on a flow", function()
    for _, spacing in ipairs {"trailing", "leading", "linspace", "karras", "exponential"} do
      local s = Schedule "scaled_linear"
      local function run(name)
        return sample(denoiser(s), start, {schedule = s, sampler = name, steps = 12, spacing = spacing}).x0
      end
      assert.close(run "euler", run "ddim", 1e-13)
      assert.close(run "dpmpp_1", run "ddim", 1e-11)
    end
    local s = Schedule "flow"  -- begins at α = 0
    local function run(name)
      return sample(denoiser(s, "flow"), start, {schedule = s, sampler = name, steps = 12}).x0
    end
    assert.close(run "flow_euler", run "ddim", 1e-13)
  end)

  it("what the model predicts does not matter", function()
    local s = Schedule "linear"
    local expected = sample(denoiser(s), start, {schedule = s, sampler = "dpmpp_2m", steps = 15}).x0
    for _, kind in ipairs {"x0", "v", "flow"} do
      local got = sample(denoiser(s, kind), start, {schedule = s, sampler = "dpmpp_2m", steps = 15, prediction = kind})
      assert.close(got.x0, expected, 1e-10)
    end
  end)

  it("every sampler reaches the data from full noise to σ = 0 in few steps", function()
    for name in pairs(diffusion.samplers) do
      local s = Schedule(name:match "^flow" and "flow" or "linear")
      local o = {schedule = s, sampler = name, steps = 25, noise = tide.generator(5), spacing = "exponential"}
      if s.kind == "flow" then o.spacing = nil end
      local x = sample(denoiser(s, s.prediction), tide.generator(3):randn({40, 2}, "float64"), o).x0
      local nearest
      for k = 1, 3 do
        local d = ((x - three.means[k]) / three.sd[k]):square():sum(2)
        nearest = nearest and tide.minimum(nearest, d) or d
      end
      assert.is_true(nearest:mean():item() < 6, name .. ": " .. nearest:mean():item())
    end
  end)

  it("an edm schedule samples from α = 1", function()
    local s = Schedule "edm"
    local x = s:noise({50, 2}, {generator = tide.generator(2), dtype = "float64"})
    local out = sample(denoiser(s), x, {schedule = s, sampler = "heun", steps = 18})
    assert.are.equal(35, out.stats.nfe)
    assert.is_true(math.abs(out.x0:mean(1)[1]:item() - 0.49) < 0.6)
    assert.is_true(out.x0:abs():max():item() < 4)
  end)
end)

-- ---- Closed forms ----

-- Relative error, as a number.
local function off(got, expected) return math.abs(got - expected) / math.max(1e-3, math.abs(expected)) end

describe("one Gaussian (T1)", function()
  it("is carried along exactly, and so is its gradient, at the sampler's order", function()
    local s = Schedule "linear"
    local mean, sd = f64({{0.7}}):requires_grad(), 0.6
    local model = mixture.denoiser {weights = {1}, sd = {sd}, means = mean, schedule = s}
    local function run(n)
      local x = f64({{1.3}}):requires_grad()
      local out = sample(model, x, {schedule = s, sampler = "dpmpp_2m", sigmas = uniform.at(n), final = "none"})
      local a, b = out.nodes[1], out.nodes[#out.nodes]
      local ratio = math.sqrt((b.alpha ^ 2 * sd ^ 2 + b.sigma ^ 2) / (a.alpha ^ 2 * sd ^ 2 + a.sigma ^ 2))
      local g = tide.gradients(out.x0, {x, mean})
      return math.abs(out.x0:item() - (b.alpha * 0.7 + (1.3 - a.alpha * 0.7) * ratio)),
        math.abs(g[1]:item() - ratio), math.abs(g[2]:item() - (b.alpha - a.alpha * ratio))
    end
    local c, f = {run(100)}, {run(200)}
    for i = 1, 3 do
      assert.is_true(f[i] < 1e-3)
      assert.is_true(math.abs(math.log(c[i] / f[i]) / math.log(2) - 2) < 0.15)
    end
  end)
end)

local two = {weights = {0.4, 0.6}, sd = {0.3, 0.4}, means = {-1, 1.5}}

describe("a mixture on the line (T2)", function()
  -- Errors of x0, dx0/dx_T, dx0/dμ₁, dx0/dμ₂ with n steps.
  local function errors(sampler, n, grad, own)
    local s = Schedule "scaled_linear"
    local means = f64({{two.means[1]}, {two.means[2]}}):requires_grad()
    local x = f64({{0.3}}):requires_grad()
    local o = {schedule = s, sampler = sampler, steps = n, final = "none", spacing = "logsnr", grad = grad}
    for k, v in pairs(own or {}) do o[k] = v end
    local out = sample(denoiser(s, nil, {weights = two.weights, sd = two.sd, means = means}), x, o)
    local y, dx, dm = mixture.flow(two, 0.3, out.nodes[1], out.nodes[#out.nodes])
    local g = tide.gradients(out.x0, {x, means})
    return {math.abs(out.x0:item() - y), math.abs(g[1]:item() - dx), math.abs(g[2][1]:item() - dm[1]),
      math.abs(g[2][2]:item() - dm[2])}
  end

  for name, order in pairs {ddim = 1, dpmpp_2m = 2, dpm_solver_3 = 3, heun = 2, bdia = 2} do
    it(("%s and its gradients converge to quantile matching at order %d"):format(name, order), function()
      local c, f = errors(name, 200, "discrete"), errors(name, 400, "discrete")
      for i = 1, 4 do
        local measured = math.log(c[i] / f[i]) / math.log(2)
        assert.is_true(math.abs(measured - order) <= 0.15, ("part %d: %.3f"):format(i, measured))
      end
    end)
  end

  it("holds for flow matching", function()
    local s = Schedule "flow"
    local means = f64({{-1}, {1.5}}):requires_grad()
    local model = denoiser(s, "flow", {weights = two.weights, sd = two.sd, means = means})
    local x = f64({{0.4}}):requires_grad()
    local out = sample(model, x, {schedule = s, sampler = "flow_heun", steps = 400})
    local y, dx, dm = mixture.flow(two, 0.4, out.nodes[1], {alpha = 1, sigma = 0})
    local g = tide.gradients(out.x0, {x, means})
    assert.is_true(off(out.x0:item(), y) < 1e-3)
    assert.is_true(off(g[1]:item(), dx) < 1e-2)
    assert.is_true(off(g[2][1]:item(), dm[1]) < 1e-2)
    assert.is_true(off(g[2][2]:item(), dm[2]) < 1e-2)
  end)

  it("AdjointDPM's form with an ODE method is exact to its tolerance, by both of its gradients", function()
    for _, grad in ipairs {"discrete", "adjoint"} do
      local e = errors("ode", 40, grad, {method = "rk4"})
      for i = 1, 4 do assert.is_true(e[i] < 2e-5, ("%s %d: %g"):format(grad, i, e[i])) end
    end
    local e = errors("ode", 2, "discrete", {method = "dopri5", rtol = 1e-8, atol = 1e-8})
    for i = 1, 4 do assert.is_true(e[i] < 1e-5) end
  end)

  it("the adjoint is not the gradient of the steps, and tends to it at order 1", function()
    local c, f = errors("ddim", 400, "adjoint"), errors("ddim", 800, "adjoint")
    for i = 2, 4 do
      local measured = math.log(c[i] / f[i]) / math.log(2)
      assert.is_true(math.abs(measured - 1) <= 0.15, measured)
    end
    local exact, adjoint = errors("ddim", 20, "discrete"), errors("ddim", 20, "adjoint")
    assert.is_true(math.abs(exact[2] - adjoint[2]) > 0.1 * exact[2])
  end)

  it("the adjoint in λ with two steps is of order 2 on states of order 2", function()
    local c, f = errors("dpm_solver_3", 200, "adjoint_2m"), errors("dpm_solver_3", 400, "adjoint_2m")
    for i = 2, 4 do
      local measured = math.log(c[i] / f[i]) / math.log(2)
      assert.is_true(math.abs(measured - 2) <= 0.15, measured)
    end
  end)
end)

-- ---- Guidance ----

describe("classifier-free guidance", function()
  local s = Schedule "linear"
  -- x ~ N(μ, sd²) with μ the condition
  local function gaussian(sd)
    return function(x, t, condition)
      local alpha, sigma = s:alpha(t:item()), s:sigma(t:item())
      return (x - condition * alpha) * (sigma / (alpha ^ 2 * sd ^ 2 + sigma ^ 2))
    end
  end

  local function run(n, o)
    local x = f64({{1.1}}):requires_grad()
    local c, u = f64({{1}}):requires_grad(), f64({{-0.5}}):requires_grad()
    local given = {schedule = s, sampler = "dpmpp_2m", sigmas = uniform.at(n), final = "none", condition = c,
      negative = u, guidance = 3}
    for k, v in pairs(o or {}) do given[k] = v end
    local out = sample(gaussian(0.5), x, given)
    return out, x, c, u, given.guidance
  end

  it("of two Gaussians of one width has T1's gradients (T4): w(1 − R) and (1 − w)(1 − R)", function()
    local w = 3
    local out, x, c, u = run(400)
    local a, b = out.nodes[1], out.nodes[#out.nodes]
    local r = math.sqrt((0.25 + b.ratio ^ 2) / (0.25 + a.ratio ^ 2))
    local g = tide.gradients(out.x0, {x, c, u})
    local mean = -0.5 + w * 1.5
    assert.is_true(off(out.x0:item(), b.alpha * (mean + (1.1 / a.alpha - mean) * r)) < 1e-4)
    assert.is_true(off(g[1]:item(), b.alpha / a.alpha * r) < 1e-3)
    assert.is_true(off(g[2]:item(), b.alpha * w * (1 - r)) < 1e-4)
    assert.is_true(off(g[3]:item(), b.alpha * (1 - w) * (1 - r)) < 1e-4)
  end)

  it("gives dL/dw, as central differences have it", function()
    for _, mode in ipairs {"discrete", "full", "reversible"} do
      local sampler = mode == "reversible" and "bdia" or "dpmpp_2m"
      local w = f64(3):requires_grad()
      local out = run(12, {guidance = w, grad = mode, sampler = sampler})
      local g = tide.gradients(out.x0, {w})[1]:item()
      local function value(v) return run(12, {guidance = v, sampler = sampler}).x0:item() end
      assert.is_true(off((value(3 + 1e-5) - value(3 - 1e-5)) / 2e-5, g) < 1e-7)
    end
  end)

  it("calls the network twice an evaluation, and not at all for the negative when it is off", function()
    assert.are.equal(24, run(12).stats.calls)
    assert.are.equal(12, run(12, {guidance = 1}).stats.calls)
    assert.close(run(12, {guidance = 1}).x0, run(12, {condition = f64 {{1}}, negative = f64 {{9}}, guidance = 1}).x0, 0)
  end)

  it("is 7.5 with a negative condition", function()
    local function seven(o)
      return sample(gaussian(0.5), f64 {{1}}, {schedule = s, steps = 5, condition = f64 {{1}}, negative = f64 {{0}},
        guidance = o}).x0
    end
    assert.close(seven(nil), seven(7.5), 0)
  end)

  it("rescaled in full has the conditional spread", function()
    local x = tide.generator(1):randn({2, 50}, "float64")
    local seen
    sample(gaussian(0.5), x, {schedule = s, timesteps = {900}, sampler = "ddim", condition = f64(1), negative = f64(0),
      guidance = 5, rescale = 1, callback = function(_, _, _, y) seen = y end})
    local node = s:node(900)
    local conditional = gaussian(0.5)(x, f64(900), f64(1))
    local used = (x - seen * node.alpha) / node.sigma
    assert.close(used:std(2), conditional:std(2), 1e-10)
  end)

  it("by a classifier's gradient moves the score by scale·σ·∇log p", function()
    -- log p(y | x_t) linear in x shifts ε by a constant times σ
    local out = sample(gaussian(0.5), f64 {{0.2}}, {schedule = s, timesteps = {800}, sampler = "ddim",
      condition = f64(0), classifier = function(y) return (y * 3):sum(2) end, classifier_scale = 2})
    local node = s:node(800)
    local eps = gaussian(0.5)(f64 {{0.2}}, f64(800), f64(0)):item() - 2 * node.sigma * 3
    assert.close(out.x0:item(), (0.2 - node.sigma * eps) / node.alpha, 1e-12)
  end)

  it("by a classifier has exact gradients through its gradient", function()
    local x = f64({{0.2, -0.4}}):requires_grad()
    local k = f64(0.7):requires_grad()
    local function value(x_T, strength)
      return sample(gaussian(0.5), x_T, {schedule = s, steps = 6, condition = f64(0.3), sampler = "dpmpp_2m",
        classifier = function(y) return -((y - strength) ^ 4):sum(2) end, classifier_scale = 0.05}).x0:sum()
    end
    local g = tide.gradients(value(x, k), {x, k})
    local h = 1e-5
    assert.is_true(off((value(x:detach(), f64(0.7 + h)):item() - value(x:detach(), f64(0.7 - h)):item()) / (2 * h),
      g[2]:item()) < 1e-6)
    local e = f64 {{h, 0}}
    assert.is_true(off((value(x:detach() + e, f64(0.7)):item() - value(x:detach() - e, f64(0.7)):item()) / (2 * h),
      g[1][{1, 1}]:item()) < 1e-6)
  end)
end)

describe("clipping", function()
  it("bounds x0 in every step", function()
    local s = Schedule "linear"
    local out = sample(denoiser(s), start * 3, {schedule = s, steps = 10, clip = 0.5})
    assert.is_true(out.x0:abs():max():item() <= 0.5 + 1e-12)
  end)
end)

-- ---- Stochastic samplers ----

describe("noise", function()
  local s = Schedule "linear"
  local function gaussian(x, t)  -- N(0.5, 0.4²)
    local alpha, sigma = s:alpha(t:item()), s:sigma(t:item())
    return (x - 0.5 * alpha) * (sigma / (alpha ^ 2 * 0.16 + sigma ^ 2))
  end

  it("of the SDE samplers gives a Gaussian's mean and spread (T5)", function()
    for _, name in ipairs {"dpmpp_2m_sde", "dpmpp_3m_sde", "euler_a", "dpm_solver_1_sde", "ddim"} do
      local own = name == "ddim" and {eta = 1} or {}
      own.schedule, own.sampler, own.steps, own.noise, own.spacing = s, name, 60, tide.generator(9), "exponential"
      local x = sample(gaussian, tide.generator(4):randn({4000, 1}, "float64"), own).x0
      assert.is_true(math.abs(x:mean():item() - 0.5) < 0.03, name)
      local wide = name == "ddim" and 0.12 or name == "dpm_solver_1_sde" and 0.12 or 0.06
      assert.is_true(math.abs(x:std():item() - 0.4) < wide, name .. " " .. x:std():item())
    end
  end)

  it("comes from the generator alone, so that a seed repeats it", function()
    local function run(g)
      return sample(gaussian, start, {schedule = s, sampler = "euler_a", steps = 6, noise = g}).x0
    end
    assert.close(run(tide.generator(7)), run(tide.generator(7)), 0)
    assert.is_true(worst(run(tide.generator(7)), run(tide.generator(8))) > 1e-3)
  end)

  it("of churn is added before a step", function()
    local o = {schedule = s, sampler = "heun", steps = 8, churn = 4, noise = tide.generator(7), spacing = "karras"}
    local a = sample(gaussian, start, o)
    o.churn = 0
    assert.is_true(worst(a.x0, sample(gaussian, start, o).x0) > 1e-4)
  end)

  it("is a list of tensors of x's shape, as many as the sampler needs", function()
    local o = {schedule = s, sampler = "euler_a", steps = 4, noise = {start, start, start}}
    assert.is_true(tide.is_tensor(sample(gaussian, start, o).x0))
    assert.fails_here(function()
      sample(gaussian, start, {schedule = s, sampler = "euler_a", steps = 5, noise = {start, start, start}})
    end, "noise has 3 tensors, this sampler needs 4")
    assert.fails_here(function()
      sample(gaussian, start, {schedule = s, sampler = "euler_a", steps = 2, noise = {tide.ones(2)}})
    end, "noise[1] is float32 of shape (2), expected float64 of shape (3×2)")
  end)
end)

-- ---- Reports and refusals ----

describe("DPM-Solver-fast", function()
  local s = Schedule "linear"
  local function run(steps, final)
    return sample(denoiser(s), start, {schedule = s, sampler = "dpm_solver_fast", steps = steps, spacing = "logsnr",
      final = final or "none"})
  end

  it("spends `steps` evaluations on steps of order 3, the last ones of less", function()
    for n, steps in pairs {[1] = 1, [2] = 1, [3] = 2, [4] = 2, [5] = 2, [6] = 3, [20] = 7, [21] = 8, [22] = 8} do
      local out = run(n)
      assert.are.equal(n, out.stats.nfe)
      assert.are.equal(steps, out.stats.steps)
    end
    assert.are.equal(12, run(12, "zero").stats.nfe)
    assert.are.equal(13, run(14, "zero").stats.nfe)  -- a last step of order 2 cannot go to σ = 0
  end)

  it("takes those orders from the noisy end on", function()
    local out = run(6)
    local ratios = {}
    for i, node in ipairs(out.nodes) do ratios[i] = node.ratio end
    local x = start
    for i, order in ipairs {3, 2, 1} do
      x = sample(denoiser(s), x, {schedule = s, sampler = "dpm_solver_" .. order, final = "none",
        sigmas = {ratios[i], ratios[i + 1]}}).x0
    end
    assert.close(out.x0, x, 1e-12)
  end)

  it("is close where the same evaluations of DDIM are not", function()
    local exact = run(900).x0
    local ddim = sample(denoiser(s), start, {schedule = s, sampler = "ddim", steps = 21, spacing = "logsnr",
      final = "none"}).x0
    assert.is_true(worst(run(21).x0, exact) < 0.2 * worst(ddim, exact))
  end)
end)

describe("a sample", function()
  local s = Schedule "linear"
  it("reports its steps, states and statistics", function()
    local seen = {}
    local out = sample(denoiser(s), start, {schedule = s, steps = 5, latents = true,
      callback = function(i, n, node, x) seen[#seen + 1] = {i, n, node.sigma, x:size(1)} end})
    assert.are.same({6, 3, 2}, out.latents.shape)
    assert.close(out.latents[1], start, 0)
    assert.close(out.latents[-1], out.x0, 0)
    assert.are.equal(5, #seen)
    assert.are.same({5, 5, 0, 3}, seen[5])
    local text = tostring(out)
    assert.is_truthy(text:find("by ddim: 5 steps on linear", 1, true))
    assert.is_truthy(text:find("5 evaluations, 5 calls", 1, true))
  end)

  it("of strength 0.8 leaves out the first fifth of the steps", function()
    local out = sample(denoiser(s), start, {schedule = s, steps = 10, strength = 0.8})
    assert.are.equal(8, out.stats.nfe)
    assert.are.equal(799, out.nodes[1].t)
  end)

  it("in float32 agrees with float64", function()
    local m = {weights = three.weights, sd = three.sd, means = three.means:float()}
    local a = sample(denoiser(s, nil, m), start:float(), {schedule = s, steps = 20, sampler = "dpmpp_2m"}).x0
    local b = sample(denoiser(s), start, {schedule = s, steps = 20, sampler = "dpmpp_2m"}).x0
    assert.are.equal("float32", a.dtype)
    assert.close(a, b, 1e-4)
  end)
end)

describe("a flow, from where there is no data in x,", function()
  local s = Schedule "flow"
  local mean, sd = 0.7, 0.6
  -- the velocity where the data are N(mean, sd²)
  local function velocity(x, t)
    local sigma = t:item() / 1000
    local alpha = 1 - sigma
    local e = (x - alpha * mean) / (alpha ^ 2 * sd ^ 2 + sigma ^ 2)
    return e * sigma - e * (alpha * sd ^ 2) - mean
  end
  local own = {bdia = true, o_belm = true, edict = true, mf = true}
  for name in pairs(diffusion.samplers) do
    if not own[name] then
      it("is sampled by " .. name, function()
        local x = start:detach():requires_grad()
        local out = sample(velocity, x, {schedule = s, sampler = name, steps = 60, noise = tide.generator(1)})
        if not (name:find "_a$" or name:find "sde") then
          assert.close(out.x0, start * sd + mean, 0.06)
          out.x0:sum():backward()
          assert.close(x.grad, tide.ones({3, 2}, "float64") * sd, 0.06)
        end
        assert.is_true((out.x0 - mean):abs():max():item() < 6 * sd)
        assert.are.equal(0, sample(velocity, x, {schedule = s, sampler = name, steps = 1}).nodes[2].sigma)
      end)
    else
      it("is refused by " .. name, function()
        assert.fails_here(function() sample(velocity, start, {schedule = s, sampler = name}) end, "needs α > 0")
      end)
    end
  end
end)

describe("bad input is refused:", function()
  local s = Schedule "linear"
  local model = denoiser(s)
  local function refuses(what, parts, f)
    it(what, function() assert.fails_here(f, unpack(parts)) end)
  end
  local function with(o)
    return function() sample(model, start, o) end
  end

  refuses("a model that is none", {"model is a number"}, function() sample(3, start, {}) end)
  refuses("a start that is none", {"x_T is a table"}, function() sample(model, {1}, {}) end)
  refuses("a start of whole numbers", {"x_T is int64"}, function() sample(model, tide.tensor({1}, "int64"), {}) end)
  refuses("a start that is not finite", {"x_T is not finite"}, function() sample(model, start / 0, {}) end)
  refuses("an empty start", {"which is empty"}, function() sample(model, tide.zeros(0, 2), {}) end)
  refuses("an unknown sampler", {"unknown sampler \"dpm\"", "dpmpp_2m"}, with {sampler = "dpm"})
  refuses("guidance by nothing", {"guidance without a condition"}, with {guidance = 3})
  refuses("an unknown option", {"unknown option \"step\", did you mean \"steps\"?"}, with {step = 4})
  refuses("eta over 1 in DDIM", {"sampler ddim: eta is 2, expected a number from 0 to 1"},
    with {sampler = "ddim", eta = 2})
  refuses("a variant that is not there", {"variant is \"hun\", expected \"midpoint\" or \"heun\""},
    with {sampler = "dpmpp_2m", variant = "hun"})
  refuses("an order that is no whole number", {"order is 2.5, expected a whole number from 1 to 6"},
    with {sampler = "deis", order = 2.5})
  refuses("a guidance that is no number", {"guidance is nan, expected a number"}, with {guidance = 0 / 0})
  refuses("an option of another sampler", {"sampler dpmpp_2m: unknown option \"eta\""},
    with {sampler = "dpmpp_2m", eta = 1})
  refuses("an unknown gradient mode", {"unknown grad \"exact\"", "discrete"}, with {grad = "exact"})
  refuses("checkpoints elsewhere", {"checkpoint goes with grad = \"discrete\""}, with {grad = "full", checkpoint = 2})
  refuses("half a checkpoint", {"checkpoint is 0.5"}, with {checkpoint = 0.5})
  refuses("wrt of constants", {"wrt[1] is a constant"}, with {wrt = {start}})
  refuses("guidance that is a vector", {"guidance has shape (2)"}, with {guidance = tide.ones(2)})
  refuses("guidance that is a word", {"guidance is \"strong\", expected a number"}, with {guidance = "strong"})
  refuses("an unknown prediction", {"unknown prediction \"noise\""}, with {prediction = "noise"})
  refuses("a flow sampler on another schedule", {"needs a flow schedule"}, with {sampler = "flow_euler"})
  refuses("points where a sampler sets its own", {"dpm_solver_fast places its own points, timesteps"},
    with {sampler = "dpm_solver_fast", timesteps = {900, 500}})
  refuses("a strength of 0", {"strength is 0"}, with {strength = 0})
  refuses("to invert what cannot be", {"cannot be inverted", "bdia"}, function()
    sample(model, start:requires_grad(), {grad = "reversible"})
  end)
  refuses("to invert what amplifies rounding", {"multiplies rounding by", "gamma = 1"}, function()
    sample(model, start:requires_grad(), {grad = "reversible", sampler = "bdia", gamma = 0.5, steps = 60})
  end)
  refuses("EDICT over many steps", {"inverting 300 steps of edict"}, function()
    sample(model, start:requires_grad(), {grad = "reversible", sampler = "edict", steps = 300})
  end)
  refuses("the adjoint of a stochastic sampler", {"is for samplers without noise"}, function()
    sample(model, start:requires_grad(), {grad = "adjoint", sampler = "euler_a"})
  end)
  refuses("a model of other channels", {"the model gave shape (3×3) for latents of shape (3×2)"}, function()
    sample(function(x) return tide.cat({x, x[{{}, {1, 1}}]}, 2) end, start, {schedule = s})
  end)
  refuses("a model of another type", {"the model gave float32 for latents of float64"}, function()
    sample(function(x) return x:float() end, start, {schedule = s})
  end)
  refuses("a model that gives nothing", {"the model gave a nil"}, function() sample(function() end, start, {}) end)
  refuses("values that are not finite, by step, t and σ", {"not finite at step 3 (t = 599, σ = 0.986975)"}, function()
    sample(function(x, t) return t:item() < 700 and x / 0 or x * 0.1 end, start, {schedule = s, steps = 5})
  end)
  refuses("a classifier that gives an image", {"the classifier gave shape (3×2)"}, function()
    sample(model, start, {schedule = s, classifier = function(x) return x end})
  end)

  it("an error of the model's own is passed on", function()
    local function inner() error("mine", 0) end
    local function fails(x) inner() return x end
    local ok, message = pcall(sample, fails, start, {schedule = s})
    assert.is_false(ok)
    assert.is_truthy(message:find "^mine\nin a callback:.*in inner")
    assert.are.equal("mine", select(2, pcall(sample, inner, start, {schedule = s})))
    assert.is_true(tide.is_grad_enabled())
    assert.is_true(helper.live() >= 0)
  end)
end)
