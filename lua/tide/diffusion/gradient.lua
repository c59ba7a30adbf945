-- Gradients through a plan. Each mode is a strategy over the same two loops of run.lua: what the forward loop keeps,
-- and what one step back is.

local core = require "tide.core"
local message = require "tide.message"
local run = require "tide.diffusion.run"

local M = {}
local raise = message.raise
local with_recording = core.with_recording

local function bytes_of(kept)
  local bytes = 0
  for _, x in pairs(kept) do bytes = bytes + x.numel * (x.dtype == "float64" and 8 or 4) end
  return bytes
end

-- ---- What the network closes over ----

-- Adds what y depends on and was made before `since` to the list, each once.
local function merge_externals(list, y, since)
  local outputs = {y}
  for i, x in ipairs(list) do outputs[i + 1] = x end
  return core.externals(outputs, since)
end

-- env with an eval that records its first and its last evaluation to see what they reach.
local function watching(env, job, evaluations)
  local self = setmetatable({}, {__index = env})
  function self.eval(x, node, number)
    if number ~= 1 and number ~= evaluations then return env.eval(x, node, number) end
    local since = core.now()
    local y = with_recording(true, env.eval, x:detach(), node, number)
    job.externals = merge_externals(job.externals, y, since)
    return y:detach()
  end
  return self
end

-- ---- One vector–Jacobian product ----

-- A function for run.reverse, and the sums of the cotangents of the externals.
local function products(env, job)
  local sums, owned = {}, {}
  local points, last = {}, #job.externals
  local function add(i, g)
    if not g then return end
    if not sums[i] then sums[i] = g
    elseif owned[i] then sums[i]:add_(g)
    else sums[i], owned[i] = sums[i] + g, true end
  end
  local function vjp(x, node, g, want_x, number)
    job.stats.nfe_b = job.stats.nfe_b + 1
    local grads, since
    with_recording(true, function()
      since = core.now()
      local u = want_x and x:detach():requires_grad() or x:detach()
      local y = env.eval(u, node, number)
      if not y.needs_grad then return end
      if job.found and #merge_externals(job.externals, y, since) > last then
        raise("diffusion.sample: evaluation %d depends on a tensor that the first and the last do not; name what "
          .. "needs gradients in the option wrt", number)
      end
      for i, e in ipairs(job.externals) do points[i] = e end
      points[last + 1] = want_x and u or nil
      grads = #points > 0 and core.backward({y}, {g}, points, false, false, true)
    end)
    if not grads then return nil end
    for i = 1, last do add(i, grads[i]) end
    return grads[last + 1] or nil
  end
  return vjp, sums
end

-- ---- The modes ----

local modes = {}

-- Exact: the latents at which the network was evaluated are kept, and each evaluation is run again on a tape of its
-- own.
modes.discrete = {keep = function(plan, o)
  if o.checkpoint then return run.keep_every(plan, o.checkpoint, o.first) end
  return run.keep_inputs(plan, o.first)
end}

-- Exact where the sampler can be inverted: only its ends are kept.
modes.reversible = {reversible = true, keep = function(plan)
  if #plan.kept == 0 then
    raise("diffusion.sample: sampler %q cannot be inverted; grad = \"reversible\" needs bdia, o_belm, edict or mf",
      plan.sampler.name)
  end
  return run.keep_ends(plan)
end}

local function tensor_list(list, n)
  local out = {}
  for i = 1, n do out[i] = list[i] end
  return out
end

-- Runs the plan with the whole of it on the tape.
local function recorded(plan, x, env, want)
  local states = {}
  local result = run.forward(plan, x, env, {}, want and function(i, y) states[i + 1] = y end)
  return result, states
end

-- The reverse pass of a job with cotangents for the result and for the stacked states.
local function reverse(job, d_result, d_states)
  local plan, env = job.plan, job.env
  local cotangents = {}
  if d_states then
    for i, v in ipairs(plan.states) do
      local g = core.select(d_states, 1, i)
      cotangents[v] = cotangents[v] and cotangents[v] + g or g
    end
  end
  if d_result then
    cotangents[plan.result] = cotangents[plan.result] and cotangents[plan.result] + d_result or d_result
  end
  local known = {}
  for v, x in pairs(job.kept) do known[v] = x end
  local vjp, sums = products(env, job)
  local gx, noises = job.mode.reverse and job.mode.reverse(job, known, cotangents, vjp) or nil, {}
  if not job.mode.reverse then
    gx, noises = run.reverse(plan, known, env, cotangents, {
      wanted = job.wanted, vjp = vjp, first = job.first, reversible = job.mode.reversible,
    })
  end
  local out = {}
  if job.x then out[1] = gx or false end
  for _, k in ipairs(job.noise_indices) do out[#out + 1] = noises[k] or false end
  for i = 1, #job.externals do out[#out + 1] = sums[i] or false end
  for i = 1, #out do out[i] = out[i] or nil end
  return unpack(out, 1, #job.inputs)
end

-- The same with the pass itself on the tape, for derivatives of derivatives: the plan is run again as a whole.
local function reverse_recorded(job, d_result, d_states)
  return with_recording(true, function()
    local points, replaced, k = {}, {}, 0
    if job.x then
      k = 1
      points[1] = core.contiguous(job.x)
    end
    for _, index in ipairs(job.noise_indices) do
      k = k + 1
      points[k] = core.contiguous(job.env.noise(index))
      replaced[index] = points[k]
    end
    for _, e in ipairs(job.externals) do
      k = k + 1
      points[k] = e
    end
    local env = setmetatable({
      noise = function(index) return replaced[index] or job.env.noise(index) end,
    }, {__index = job.env})
    local y, states = recorded(job.plan, job.x and points[1] or job.start, env, d_states)
    local outputs, cotangents = {}, {}
    if d_result then outputs[1], cotangents[1] = y, d_result end
    if d_states then
      outputs[#outputs + 1], cotangents[#outputs + 1] = require("tide.tensor").stack(states), d_states
    end
    local grads = core.backward(outputs, cotangents, points, true, true, true)
    for i = 1, k do grads[i] = grads[i] or nil end
    return unpack(grads, 1, k)
  end)
end

--- Runs the plan from x with gradients by the mode o.grad. o: grad, checkpoint, truncated, wrt, latents, on_state,
--- stats. env: eval, noise, noise_wanted(k). Returns the result, the stacked states (if o.latents), and the job.
function M.run(plan, x, env, o)
  local stack = require("tide.tensor").stack
  local stats, on_state = o.stats, o.on_state
  local states = {}
  local function see(i, y)
    if o.latents then states[i + 1] = y end
    if on_state then on_state(i, y) end
  end
  if not core.recording() or o.grad == "none" then
    local y = with_recording(false, run.forward, plan, x:detach(), env, {}, see)
    return y, o.latents and stack(states)
  end
  local total = #plan.nodes - 1
  local first = o.truncated and math.max(1, total - o.truncated + 1) or 1
  if o.grad == "full" then
    local y = run.forward(plan, x, env, {}, see)
    return y, o.latents and stack(states)
  end
  local mode = modes[o.grad] or require("tide.diffusion.adjoint")[o.grad]
  local job = {
    plan = plan, env = env, mode = mode, first = first, stats = stats, externals = {}, found = o.wrt == nil,
    start = x:detach(), x = x.needs_grad and x or nil, noise_indices = {}, inputs = {}, options = o,
  }
  if mode.check then mode.check(plan, o) end
  local keep = mode.keep(plan, {checkpoint = o.checkpoint, first = first})
  local watched = o.wrt and env or watching(env, job, plan.evaluations)
  if o.wrt then job.externals = tensor_list(o.wrt, #o.wrt) end
  local result
  result, job.kept = with_recording(false, run.forward, plan, x:detach(), watched, keep, see)
  stats.bytes_kept = bytes_of(job.kept)
  job.inputs[1] = job.x
  for k = 1, plan.noises do
    if env.noise_wanted(k) then
      job.noise_indices[#job.noise_indices + 1] = k
      job.inputs[#job.inputs + 1] = env.noise(k)
    end
  end
  for _, e in ipairs(job.externals) do job.inputs[#job.inputs + 1] = e end
  local latents = o.latents and stack(states)
  if #job.inputs == 0 then return result, latents, job end
  job.wanted = run.on_the_way(plan, job.x ~= nil, env.noise_wanted, #job.externals > 0)
  local outputs = core.custom and {core.custom({result, latents or nil}, job.inputs, function(d_result, d_states)
    if core.recording() then return reverse_recorded(job, d_result, d_states) end
    return reverse(job, d_result, d_states)
  end)}
  return outputs[1], outputs[2], job
end

--- The modes by name that are strategies of this file.
M.modes = modes

return M
