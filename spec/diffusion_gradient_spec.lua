-- Gradients through samplers: every mode against the others and against central differences, for every sampler; what
-- they reach; what they keep.

local helper = require "spec.helper"
local mixture = require "spec.support.mixture"
local tide = require "tide"
local nn, diffusion = tide.nn, tide.diffusion
local sample, Schedule = diffusion.sample, diffusion.Schedule

local function f64(values) return tide.tensor(values, "float64") end

local weights = f64 {{0.3, 1.2}, {-1.2, 0.5}, {1, 0.1}}

-- A sampler on a mixture whose means are parameters, from a start that needs a gradient.
local function problem(name)
  local p = {schedule = Schedule(name:match "^flow" and "flow" or "linear")}
  p.means = f64({{-1, 0.5}, {1.5, -0.3}, {0.2, 1}}):requires_grad()
  p.x = f64({{0.3, 0.2}, {-1.2, 0.5}, {1, 1}}):requires_grad()
  p.model = mixture.denoiser {weights = {0.3, 0.5, 0.2}, sd = {0.5, 0.6, 0.55}, means = p.means,
    schedule = p.schedule, prediction = p.schedule.prediction}
  function p.run(o, x, model)
    local given = {schedule = p.schedule, sampler = name, noise = tide.generator(3), spacing = "karras", steps = 6}
    if p.schedule.kind == "flow" then given.spacing, given.timesteps = nil, {950, 700, 500, 300, 150} end
    for k, v in pairs(o or {}) do given[k] = v end
    return sample(model or p.model, x or p.x, given)
  end
  function p.loss(o, x, model) return (p.run(o, x, model).x0 * weights):sum() end
  function p.gradients(o) return tide.gradients(p.loss(o), {p.x, p.means}) end
  return p
end

local function gap(a, b) return (a - b):abs():max():item() / math.max(1e-3, b:abs():max():item()) end

local names = {}
for name in pairs(diffusion.samplers) do names[#names + 1] = name end
table.sort(names)

-- d(value)/dx along the direction e, by central differences of fourth order.
local function difference(value, h)
  return (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
end

describe("the discrete gradient of", function()
  for _, name in ipairs(names) do
    it(name .. " is that of central differences", function()
      local p = problem(name)
      local g = p.gradients()
      local e = tide.generator(1):randn({3, 2}, "float64")
      local function by_start(h) return p.loss({grad = "none"}, p.x:detach() + e * h):item() end
      local function by_means(h)
        local model = mixture.denoiser {weights = {0.3, 0.5, 0.2}, sd = {0.5, 0.6, 0.55},
          means = p.means:detach() + e * h, schedule = p.schedule, prediction = p.schedule.prediction}
        return p.loss({grad = "none"}, nil, model):item()
      end
      local h = name == "mf" and 1e-3 or 1e-4  -- this one amplifies the rounding of its values
      for i, value in ipairs {by_start, by_means} do
        local exact, numeric = (g[i] * e):sum():item(), difference(value, h)
        assert.is_true(math.abs(exact - numeric) <= 1e-7 * math.max(1e-2, math.abs(exact)),
          ("%.15g against %.15g"):format(exact, numeric))
      end
    end)

    if name ~= "ode" then
      it(name .. " is the same by full backpropagation, checkpoints and inversion", function()
        local p = problem(name)
        local expected = p.gradients {grad = "full"}
        local modes = {{}, {checkpoint = 1}, {checkpoint = 4}, {checkpoint = 100}, {truncated = 6}}
        if diffusion.samplers[name].growth or name == "o_belm" then modes[#modes + 1] = {grad = "reversible"} end
        for _, mode in ipairs(modes) do
          local g = p.gradients(mode)
          for i = 1, 2 do assert.is_true(gap(g[i], expected[i]) < 1e-9, gap(g[i], expected[i])) end
        end
      end)
    end
  end
end)

describe("inverting", function()
  for _, name in ipairs {"bdia", "o_belm", "edict", "mf"} do
    it(name .. " gives x_T back", function()
      local p = problem(name)
      for _, steps in ipairs {10, 50} do
        local out = p.run {grad = "reversible", steps = steps}
        local bound = name == "edict" and 1e-8 or name == "o_belm" and 1e-10 or 1e-12
        assert.is_true(gap(out:reconstruct(), p.x:detach()) <= bound, gap(out:reconstruct(), p.x:detach()))
        assert.is_true(out.stats.bytes_kept <= 2 * 6 * 8)
      end
    end)
  end

  it("runs the network as often as the discrete mode does", function()
    for _, name in ipairs {"bdia", "mf"} do
      local p = problem(name)
      for _, mode in ipairs {"discrete", "reversible"} do
        local calls = 0
        local function counted(...)
          calls = calls + 1
          return p.model(...)
        end
        local out = p.run({grad = mode}, nil, counted)
        out.x0:sum():backward()
        -- the coupling's last evaluation moves its second chain alone: a gradient has no use for it, its inverse has
        local spared = name == "mf" and mode == "discrete" and 1 or 0
        assert.are.equal(2 * out.stats.nfe - spared, calls, mode)
      end
    end
  end)

  it("cannot be asked of other samples", function()
    local p = problem "ddim"
    assert.fails_here(function() p.run({}):reconstruct() end, "grad = \"reversible\"")
  end)
end)

describe("gradients reach", function()
  it("injected noises, as their coefficient times the state's gradient (T5)", function()
    local p = problem "dpmpp_2m_sde"
    local z = {}
    for i = 1, 5 do z[i] = tide.generator(i):randn({3, 2}, "float64"):requires_grad() end
    local out = p.run {noise = z, latents = true}
    local g = tide.gradients((out.x0 * weights):sum(), z)
    for i = 1, 5 do
      local h = out.nodes[i + 1].lambda - out.nodes[i].lambda
      local coefficient = out.nodes[i + 1].sigma * math.sqrt(1 - math.exp(-2 * h))
      -- the gradient of the state after step i, by starting from there: it is that of a shift of the state
      local e = tide.generator(20 + i):randn({3, 2}, "float64")
      local function moved(d)
        local list = {}
        for k = 1, 5 do list[k] = z[k]:detach() end
        list[i] = list[i] + e * (d / coefficient)
        return (p.run({noise = list, grad = "none"}).x0 * weights):sum():item()
      end
      local by_state = difference(moved, 1e-4)
      local exact = (g[i] * e):sum():item() / coefficient
      assert.is_true(math.abs(exact - by_state) < 1e-9 * math.max(1, math.abs(by_state)))
    end
  end)

  it("only those noises that ask for it", function()
    local p = problem "euler_a"
    local z = {}
    for i = 1, 5 do z[i] = tide.generator(i):randn({3, 2}, "float64") end
    z[2]:requires_grad()
    local full = tide.gradients(p.loss {noise = z, grad = "full"}, {z[2], p.x})
    local g = tide.gradients(p.loss {noise = z}, {z[2], p.x})
    assert.is_true(gap(g[1], full[1]) < 1e-12)
    assert.is_true(gap(g[2], full[2]) < 1e-12)
  end)

  it("conditions, negative conditions and all that a model closes over", function()
    local s = Schedule "linear"
    local net = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 2)):to "float64"
    local scale = f64(0.8):requires_grad()
    local function model(x, t, condition)
      local time = tide.ones({x:size(1), 1}, "float64") * (t / 1000)
      return net(tide.cat({x * scale, time}, 2)) + condition
    end
    local x = f64({{0.3, 0.2}, {-1.2, 0.5}}):requires_grad()
    local token = f64({{0.1, -0.2}}):requires_grad()
    local negative = f64({{-0.3, 0.4}}):requires_grad()
    local inputs = {x, token, negative, scale}
    for _, w in ipairs(net:parameters()) do inputs[#inputs + 1] = w end
    local function gradients(o)
      -- the condition is made from the token outside: the gradient goes on through what made it
      local given = {schedule = s, sampler = "dpmpp_2m", steps = 5, condition = token:tanh() * 2, negative = negative}
      for k, v in pairs(o or {}) do given[k] = v end
      return tide.gradients((sample(model, x, given).x0 ^ 2):sum(), inputs)
    end
    local expected, got = gradients {grad = "full"}, gradients()
    for i = 1, #inputs do assert.is_true(gap(got[i], expected[i]) < 1e-10, i) end
    local some = gradients {wrt = {net[1].weight, token}}
    for i, input in ipairs(inputs) do
      local asked = input == x or input == token or input == net[1].weight
      assert.are.equal(asked, tide.is_tensor(some[i]))
      if asked then assert.is_true(gap(some[i], expected[i]) < 1e-10) end
    end
  end)

  it("the states that were asked for", function()
    local p = problem "dpmpp_2m"
    local w = tide.generator(8):randn({7, 3, 2}, "float64")
    local function gradients(mode)
      local out = p.run {latents = true, grad = mode}
      return tide.gradients((out.latents * w):sum() + out.x0:sum(), {p.x, p.means})
    end
    local expected, got = gradients "full", gradients "discrete"
    for i = 1, 2 do assert.is_true(gap(got[i], expected[i]) < 1e-12) end
  end)

  it("the loss again and again", function()
    local p = problem "dpmpp_2m"
    local out = p.run()
    local loss = (out.x0 * weights):sum()
    local a = tide.gradients(loss, {p.x}, {retain_graph = true})
    assert.close(tide.gradients(loss, {p.x})[1], a[1], 0)
  end)

  it("x_T as it was, also when it has been stepped in place since", function()
    local p = problem "dpmpp_2m"
    local expected = p.gradients()[1]
    local x = p.x:detach():clone():requires_grad()
    local loss = p.loss({}, x)
    tide.no_grad(function() x:mul_(2) end)
    assert.close(tide.gradients(loss, {x})[1], expected, 0)
  end)

  it("second derivatives", function()
    local p = problem "dpmpp_2m"
    assert.is_true(tide.gradcheck(function(x, means)
      local model = mixture.denoiser {weights = {0.3, 0.5, 0.2}, sd = {0.5, 0.6, 0.55}, means = means,
        schedule = p.schedule}
      return p.run({steps = 3, noise = tide.generator(1)}, x, model).x0
    end, {p.x:detach():narrow(1, 1, 1):contiguous(), p.means:detach()}, {rtol = 1e-5}))
    local q = problem "euler_a"
    assert.is_true(tide.gradcheck(function(x, z) return q.run({steps = 2, noise = {z}}, x).x0 end,
      {q.x:detach(), q.x:detach() * 0.5}, {rtol = 1e-5}))
  end)
end)

describe("derivatives of derivatives", function()
  it("are refused where the first is not exact", function()
    local p = problem "ddim"
    for _, o in ipairs {{truncated = 2}, {grad = "adjoint"}} do
      local loss = p.loss(o)
      assert.fails_here(function() tide.gradients(loss, {p.means}, {create_graph = true}) end,
        "create_graph needs an exact gradient")
    end
  end)
end)

describe("the last K steps", function()
  it("alone give gradients when truncated", function()
    local p = problem "ddim"
    local whole = p.run {latents = true, grad = "none"}
    local g = p.gradients {truncated = 2}
    assert.is_false(g[1])
    -- the same as sampling from the state before them
    local from = whole.latents[5]:detach()
    local nodes = whole.nodes
    local rest = sample(p.model, from, {schedule = p.schedule, sampler = "ddim",
      sigmas = {nodes[5].ratio, nodes[6].ratio, 0}})
    assert.close(rest.x0, whole.x0, 1e-9)
    local expected = tide.gradients((rest.x0 * weights):sum(), {p.means})[1]
    assert.is_true(gap(g[2], expected) < 1e-9)
  end)

  it("cost as many products", function()
    local p = problem "ddim"
    local out = p.run {truncated = 2}
    out.x0:sum():backward()
    assert.are.equal(2, out.stats.nfe_b)
    assert.are.equal(2 * 6 * 8, out.stats.bytes_kept)
  end)
end)

describe("what is kept", function()
  it("is one latent an evaluation, or fewer with checkpoints", function()
    local p = problem "dpmpp_2m"
    assert.are.equal(24 * 48, p.run({steps = 24}).stats.bytes_kept)
    assert.is_true(p.run({steps = 24, checkpoint = 6}).stats.bytes_kept <= 3 * 4 * 48)
    assert.are.equal(0, tide.no_grad(function() return p.run {steps = 24} end).stats.bytes_kept)
    assert.are.equal(0, p.run({steps = 24, grad = "none"}).stats.bytes_kept)
  end)

  it("goes when the sample goes", function()
    local p = problem "dpmpp_2m"
    local function once() p.loss({steps = 10}):backward() p.x.grad = nil p.means.grad = nil end
    once()
    local before = helper.live()
    for _ = 1, 3 do once() end
    assert.is_true(helper.live() <= before + 4096)
  end)

  it("does not grow with the number of steps but by the latents", function()
    -- a network whose activations are much larger than a latent
    local net = nn.Sequential(nn.Linear(4, 2000), nn.SiLU(), nn.Linear(2000, 2000), nn.SiLU(), nn.Linear(2000, 4))
    local x = tide.randn(256, 4):requires_grad()
    local s = Schedule "linear"
    net:freeze()
    local function peak(steps)
      helper.live()
      tide.memory "trim"
      tide.memory "reset"
      local out = sample(function(y) return net(y) * 0.1 end, x,
        {schedule = s, steps = steps, sampler = "dpmpp_2m"})
      out.x0:sum():backward()
      x.grad = nil
      return tide.memory().peak - out.stats.bytes_kept
    end
    peak(5)
    local few, many = peak(5), peak(50)
    assert.is_true(many <= 1.05 * few, ("%d against %d"):format(many, few))
  end)
end)

describe("a part that is not asked for", function()
  it("is not computed: frozen weights cost nothing", function()
    local p = problem "ddim"
    local asked = 0
    local hooked = tide.custom(function(_, y) return y * 1 end, function(_, g)
      asked = asked + 1
      return g
    end)
    local w = f64(1):requires_grad()
    local function model(x, t) return p.model(x, t) * hooked(w) end
    local loss = p.loss({}, nil, model)
    tide.gradients(loss, {p.x}, {retain_graph = true})
    assert.are.equal(0, asked)
    tide.gradients(loss, {w})
    assert.are.equal(6, asked)
  end)

  it("that only some evaluations use is refused, not left out", function()
    local p = problem "ddim"
    local w = f64(1):requires_grad()
    local function model(x, t)
      local e = p.model(x, t)
      return t:item() > 200 and t:item() < 900 and e * w or e
    end
    local loss = p.loss({spacing = "trailing"}, nil, model)
    assert.fails_here(function() loss:backward() end, "depends on a tensor that the first and the last do not", "wrt")
    local named = p.loss({spacing = "trailing", wrt = {w}}, nil, model)
    local full = p.loss({spacing = "trailing", grad = "full"}, nil, model)
    assert.is_true(gap(tide.gradients(named, {w})[1], tide.gradients(full, {w})[1]) < 1e-12)
  end)

  it("as dropout keeps its masks for the whole solve and its gradient", function()
    local s = Schedule "linear"
    local net = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.5, {generator = tide.generator(2)}), nn.Linear(16, 2))
    net:to "float64"
    local x = f64({{0.3, 0.2}}):requires_grad()
    local function run() return sample(function(y) return net(y) end, x, {schedule = s, steps = 4}).x0:sum() end
    tide.manual_seed(1)
    local loss = run()
    local g = tide.gradients(loss, {x})[1]
    local masks = sample(function(y) return net(y) end, x, {schedule = s, steps = 4, grad = "full"})
    assert.is_true(tide.is_tensor(tide.gradients(masks.x0:sum(), {x})[1]))
    assert.is_true(g:isfinite():sum():item() == 2)
  end)
end)

describe("what the model uses, written in place before backward,", function()
  local s = Schedule "linear"
  for _, mode in ipairs {"discrete", "reversible", "adjoint"} do
    it("is refused with grad = " .. mode .. ", but for x_T", function()
      local w, c, scale = f64({{0.5, 0.1}, {0.2, 0.4}}):requires_grad(), f64({{0.3, 0.2}}):requires_grad(),
        f64(2):requires_grad()
      local function loss(x)
        return sample(function(y, _, condition) return y:matmul(w) + condition end, x, {schedule = s, steps = 4,
          sampler = mode == "reversible" and "bdia" or "ddim", grad = mode, condition = c, negative = f64 {{0, 0}},
          guidance = scale}).x0:sum()
      end
      for _, t in ipairs {w, c, scale} do
        local value = loss(f64({{1, 2}}):requires_grad())
        tide.no_grad(function() t:mul_(2) end)
        assert.fails_here(function() value:backward() end, "that the model uses was written in place before backward")
      end
      local x, same = f64({{1, 2}}):requires_grad(), f64({{1, 2}}):requires_grad()
      local value = loss(x)
      tide.no_grad(function() x:mul_(2) end)
      value:backward()
      loss(same):backward()
      assert.close(x.grad, same.grad, 0)
    end)
  end
end)
