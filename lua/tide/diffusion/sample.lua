-- diffusion.sample: schedule × sampler × guidance × gradient mode, each chosen by name.

local core = require "tide.core"
local denoise = require "tide.diffusion.denoise"
local elsewhere = require "tide.diffusion.elsewhere"
local gradient = require "tide.diffusion.gradient"
local grid = require "tide.diffusion.grid"
local known_options = require "tide.diffusion.known_options"
local message = require "tide.message"
local is_module = require("tide.nn.module").is_module
local options = require "tide.options"
local pass = require "tide.nn.pass"
local random = require "tide.random"
local run = require "tide.diffusion.run"
local samplers = require "tide.diffusion.samplers"
local schedules = require "tide.diffusion.schedule"
local tensors = require "tide.tensor"
local values = require "tide.values"

local M = {}
local raise, is_tensor, with_recording = message.raise, tensors.is_tensor, core.with_recording
local none = options.none

local known, of_samplers = known_options.known, known_options.of_samplers

local gradient_modes = {
  discrete = true, full = true, reversible = true, adjoint = true, adjoint_2m = true, none = true,
}

-- A generator, or a list with a tensor for each noise.
local noises = {"a generator (tide.generator(seed)) or a list of tensors", function(v)
  return values.generator[2](v) or type(v) == "table"
end}

local rules = {
  checkpoint = values.whole(1), truncated = values.whole(1), rescale = values.from(0, 1),
  classifier = values.callable "a function classifier(x, t)", classifier_scale = values.any_number,
  clip = values.positive, strength = values.share, noise = noises, latents = values.flag,
  callback = values.callable "a function callback(step, steps, node, x)",
}

-- The tensors that wrt names: a list of leaves, or one.
local function check_wrt(wrt)
  if wrt == nil then return nil end
  local list = is_tensor(wrt) and {wrt} or wrt
  if type(list) ~= "table" or is_module(list) then
    raise("diffusion.sample: wrt is a %s, expected a list of tensors%s", type(wrt),
      type(list) == "table" and "; for a module pass module:parameters()" or "")
  end
  for i, x in ipairs(list) do
    if not is_tensor(x) or not x.needs_grad then
      raise("diffusion.sample: wrt[%d] is %s, expected a tensor that requires a gradient", i,
        is_tensor(x) and "a constant" or "a " .. type(x))
    end
  end
  return list
end

-- The options in one table, and those that belong to the sampler.
local function checked(opts)
  if opts ~= nil and type(opts) ~= "table" then
    raise("diffusion.sample: options must be a table, got a %s", type(opts))
  end
  local mine, own, all = {}, {}, {}
  for key in pairs(known) do all[key] = known[key] end
  for key in pairs(of_samplers) do all[key] = none end
  for key in pairs(opts or {}) do
    if elsewhere.options[key] then
      raise("diffusion.sample: unknown option %q, here it is %s", key, elsewhere.options[key])
    end
  end
  options.check("diffusion.sample", opts, all)
  for key, value in pairs(opts or {}) do
    if of_samplers[key] then own[key] = value else mine[key] = value end
  end
  local o = options.check("diffusion.sample", mine, known)
  values.check("diffusion.sample", o, rules)
  if not gradient_modes[o.grad] then
    raise("diffusion.sample: unknown grad %q, expected discrete, full, reversible, adjoint, adjoint_2m or none",
      tostring(o.grad))
  end
  for _, name in ipairs {"checkpoint", "truncated"} do
    if o[name] and o.grad ~= "discrete" then
      raise("diffusion.sample: %s goes with grad = \"discrete\", not with %q", name, o.grad)
    end
  end
  o.wrt = check_wrt(o.wrt)
  return o, own
end

-- ---- Noise ----

-- Noise k of n, as a function of k: from a list of tensors, or from a generator, whose state is noted so that the
-- same numbers can be drawn again.
local function noise_of(source, x, n)
  local shape, dtype = x.shape, x.dtype
  if type(source) == "table" then
    if #source < n then raise("diffusion.sample: noise has %d tensors, this sampler needs %d", #source, n) end
    for k = 1, n do
      local z = source[k]
      if not is_tensor(z) or message.shape(z) ~= message.shape(x) or z.dtype ~= dtype then
        raise("diffusion.sample: noise[%d] is %s, expected %s of shape (%s)", k,
          is_tensor(z) and z.dtype .. " of shape (" .. message.shape(z) .. ")" or "a " .. type(z), dtype,
          message.shape(x))
      end
    end
    return function(k) return source[k] end, function(k) return source[k].needs_grad end
  end
  local g = source or random.default_generator()
  local at = {}
  return function(k)
    if not at[k] then
      at[k] = {g:state()}
      return g:randn(shape, dtype)
    end
    local seed, counter = g:state()
    g:state(at[k][1], at[k][2])
    local z = g:randn(shape, dtype)
    g:state(seed, counter)
    return z
  end, function() return false end
end

-- ---- Inverting ----

local epsilon = {float32 = 2 ^ -24, float64 = 2 ^ -53}

-- Refuses to invert a sampler where that would amplify rounding too much.
local function check_growth(plan, x, o)
  local s = plan.sampler
  if o.grad ~= "reversible" or not s.growth then return end
  local growth = s.growth(plan.options, #plan.nodes - 1)
  if growth * epsilon[x.dtype] > 1e-2 then
    raise("diffusion.sample: inverting %d steps of %s multiplies rounding by about %.1g, too much for %s; use bdia "
      .. "with gamma = 1, fewer steps, or grad = \"discrete\"", #plan.nodes - 1, s.name, growth, x.dtype)
  end
end

-- ---- The result ----

local Sample = {}
Sample.__index = Sample

function Sample:__tostring()
  local s = self.stats
  local lines = {
    ("diffusion.sample by %s: %d steps on %s, σ̂ from %.5g to %.5g"):format(self.sampler, s.steps, self.schedule.name,
      self.nodes[1].ratio, self.nodes[#self.nodes].ratio),
    ("  x0 (%s %s), gradient %s"):format(message.shape(self.x0), self.x0.dtype, self.grad),
    ("  %d evaluations, %d calls of the network"):format(s.nfe, s.calls),
  }
  if s.bytes_kept > 0 then lines[#lines + 1] = ("  %d bytes of latents kept"):format(s.bytes_kept) end
  if s.nfe_b > 0 then lines[#lines + 1] = ("  %d evaluations backward"):format(s.nfe_b) end
  return table.concat(lines, "\n")
end

--- x_T computed back from the end of a sampler that can be inverted, with grad = "reversible".
function Sample:reconstruct()
  local job = self._job
  if self.grad ~= "reversible" or not job then
    raise("reconstruct: this sample was not made with grad = \"reversible\" while recording")
  end
  return with_recording(false, function()
    local known_values = {}
    for v, x in pairs(job.kept) do known_values[v] = x end
    return run.invert(job.plan, known_values, job.env)
  end)
end

-- The last of the points when only a share of the noise is there to be removed (img2img).
local function cut(nodes, strength)
  local n = #nodes - 1
  local skip = n - math.min(math.max(1, math.floor(n * strength)), n)
  return skip == 0 and nodes or {unpack(nodes, skip + 1)}
end

-- A sampler may make fewer steps of the number asked for, each of several evaluations.
local function grid_options(o, sampler)
  local given = {}
  for name in pairs(grid.known) do given[name] = o[name] end
  if sampler.intervals then
    local list = o.timesteps and "timesteps" or o.sigmas and "sigmas"
    if list then raise("diffusion.sample: %s places its own points, %s is for other samplers", sampler.name, list) end
    if type(o.steps) == "number" and o.steps >= 1 and o.steps % 1 == 0 then given.steps = sampler.intervals(o.steps) end
  end
  return given
end

-- What the plan's loops, or a solver, need of the model: its values by kind, and noise.
local function environment(denoiser, noise, noise_wanted, form)
  local held = pass.hold(denoiser)
  return {
    noise = noise, noise_wanted = noise_wanted,
    eval = function(u, node) return held(u, node, form) end,
    predict = function(u, node, kind) return held(u, node, kind) end,
  }
end

local function result_of(o, schedule, nodes, x0, latents, stats, job)
  return setmetatable({
    x0 = x0, latents = latents, nodes = nodes, stats = stats, sampler = o.sampler, schedule = schedule, grad = o.grad,
    _job = job,
  }, Sample)
end

-- By a method of tide.ode.
local function by_solver(sampler, settings, schedule, nodes, x, denoiser, calls, o)
  for _, name in ipairs {"checkpoint", "truncated", "wrt"} do
    if o[name] then raise("diffusion.sample: %s is for other samplers, \"ode\" has its solver's gradients", name) end
  end
  local states, s, more = with_recording(core.recording() and o.grad ~= "none", sampler.solve, schedule, nodes, x,
    environment(denoiser), settings, o.grad)
  for i = 2, o.callback and #nodes or 0 do o.callback(i - 1, #nodes - 1, nodes[i], states[i]) end
  local stats = setmetatable({
    nfe = s.nfe + more, calls = (s.nfe + more) * calls, bytes_kept = 0, steps = #nodes - 1,
  }, {__index = function(_, key) return key == "nfe_b" and (s.nfe_b or 0) or nil end})
  return result_of(o, schedule, nodes, states[#nodes], o.latents and tensors.stack(states) or nil, stats)
end

--- Samples from x_T (see schedule:noise) to x0. See doc/api/diffusion.lua for the options.
function M.sample(model, x, opts)
  values.check_callable("diffusion.sample", "model", model, "model(x, t, condition)")
  local o, own = checked(opts)
  values.check_real("diffusion.sample", "x_T", x)
  local schedule = schedules.Schedule(o.schedule)
  local sampler, settings = samplers.options("diffusion.sample", o.sampler, own)
  local nodes = cut(grid.nodes(schedule, grid_options(o, sampler), "diffusion.sample"), o.strength)
  local denoiser, on = denoise.of(model, schedule, o)
  local calls = on and 2 or 1
  if sampler.solve then return by_solver(sampler, settings, schedule, nodes, x, denoiser, calls, o) end
  local plan = samplers.plan(sampler, settings, nodes, schedule, o.steps)
  check_growth(plan, x, o)
  local stats = {nfe = plan.evaluations, calls = plan.evaluations * calls, nfe_b = 0, bytes_kept = 0,
    steps = #nodes - 1}
  local noise, noise_wanted = noise_of(o.noise, x, plan.noises)
  local on_state = o.callback and function(i, y)
    if i > 0 then o.callback(i, #nodes - 1, nodes[i + 1], y) end
  end
  local x0, latents, job = gradient.run(plan, x, environment(denoiser, noise, noise_wanted, plan.form), {
    grad = o.grad, checkpoint = o.checkpoint, truncated = o.truncated, wrt = o.wrt, latents = o.latents,
    on_state = on_state, stats = stats,
  })
  return result_of(o, schedule, nodes, x0, latents, stats, job)
end

return M
