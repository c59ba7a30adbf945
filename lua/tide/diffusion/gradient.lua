-- Gradients through a plan. Each mode is a strategy over the same two loops of run.lua: what the forward loop keeps,
-- and what one step back is.

local adjoint = require "tide.diffusion.adjoint"
local core = require "tide.core"
local make_tidy = require "tide.diffusion.tidy"
local message = require "tide.message"
local run = require "tide.diffusion.run"
local stack = require("tide.tensor").stack
local unwritten = require "tide.unwritten"

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

-- How many of the list count: all, or with wrt those that are no leaves (leaves are then named by wrt alone).
local function counted(list, wrt)
  if not wrt then return #list end
  local n = 0
  for _, e in ipairs(list) do n = n + (e.is_leaf and 0 or 1) end
  return n
end

-- What gradients are to reach, of what was found: all, or with wrt the tensors named there, and what was computed
-- outside of the model (such as a condition), through which gradients go on to what it was made from.
local function chosen(found, wrt)
  if not wrt then return found end
  local list = {}
  for i, x in ipairs(wrt) do list[i] = x end
  for _, e in ipairs(found) do
    if not e.is_leaf then list[#list + 1] = e end
  end
  return #list > 0 and core.externals(list, core.now()) or list
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

-- A function for run.reverse, and the sums of the cotangents of the externals. graphs: evaluations that are on a tape
-- already, by number.
local function products(env, job, wants, graphs)
  local sums, owned = {}, {}
  local tidy = make_tidy()
  local points, at, all = {}, {}, counted(job.externals, job.wrt)
  for i, e in ipairs(job.externals) do
    if wants.externals[i] then
      points[#points + 1] = e
      at[#at + 1] = i
    end
  end
  local last = #points
  local function add(i, g, weight)
    if not g then return end
    if weight then g = g * weight end
    if not sums[i] then sums[i] = g
    elseif owned[i] then sums[i]:add_(g)
    else sums[i], owned[i] = sums[i] + g, true end
  end
  local function vjp(x, node, g, want_x, number, weight)
    job.stats.nfe_b = job.stats.nfe_b + 1
    local grads, since
    with_recording(true, function()
      since = core.now()
      local run_before = graphs[number]
      graphs[number or false] = nil
      local u = run_before and run_before.u or want_x and x:detach():requires_grad() or x:detach()
      local y = run_before and run_before.y or env.eval(u, node, number)
      if not y.needs_grad then return end
      if not run_before and counted(merge_externals(job.externals, y, since), job.wrt) > all then
        raise("diffusion.sample: the evaluation at t = %g depends on a tensor that the first and the last do not; name "
          .. "what needs gradients in the option wrt", node.t)
      end
      points[last + 1] = want_x and u or nil
      grads = #points > 0 and core.backward({y}, {g}, points, false, false, true)
    end)
    tidy()
    if not grads then return nil end
    for i = 1, last do add(at[i], grads[i], weight) end
    return grads[last + 1] or nil
  end
  return vjp, sums
end

-- ---- The modes ----

local modes = {}

-- env whose evaluations are recorded, and kept in `graphs` for the product that follows.
local function recording(env, graphs)
  return setmetatable({eval = function(x, node, number)
    local u = x:detach():requires_grad()
    graphs[number] = {u = u, y = with_recording(true, env.eval, u, node, number)}
    return graphs[number].y:detach()
  end}, {__index = env})
end

-- One step back after the other, by the sampler's own coefficients.
local function exact(job, known, cotangents, wants)
  local graphs = {}
  local vjp, sums = products(job.env, job, wants, graphs)
  local env = job.mode.reversible and recording(job.env, graphs) or job.env
  local gx, noises = run.reverse(job.plan, known, env, cotangents, {
    wanted = run.on_the_way(job.plan, wants.start, function(k) return wants.noises[k] end, wants.any),
    vjp = vjp, first = job.first, reversible = job.mode.reversible,
  })
  return gx, noises, sums
end

-- The continuous adjoint by a rule of adjoint.lua, which works on ε.
local function continuous(rule)
  return function(job, known, cotangents, wants)
    local env = {eval = function(x, node) return job.env.predict(x, node, "epsilon") end}
    local vjp, sums = products(env, job, wants, {})
    return rule(job, known, cotangents, vjp), {}, sums
  end
end

-- Exact: the latents at which the network was evaluated are kept, and each evaluation is run again on a tape of its
-- own.
modes.discrete = {exact = true, reverse = exact, keep = function(plan, o)
  if o.checkpoint then return run.keep_every(plan, o.checkpoint, o.first) end
  return run.keep_inputs(plan, o.first)
end}

-- Exact where the sampler can be inverted: only its ends are kept.
modes.reversible = {exact = true, reversible = true, reverse = exact, keep = function(plan)
  if #plan.kept == 0 then
    raise("diffusion.sample: sampler %q cannot be inverted; grad = \"reversible\" needs bdia, o_belm, edict or mf",
      plan.sampler.name)
  end
  return run.keep_ends(plan)
end}

for name, mode in pairs(adjoint) do
  modes[name] = {check = mode.check, keep = mode.keep, reverse = continuous(mode.reverse)}
end

-- From which inputs' cotangents are wanted: that of x_T, those of noises by index, those of externals by position.
local function wanted_of(job, needs)
  local wants, k = {start = false, noises = {}, externals = {}, any = false}, 0
  if job.x then
    k = 1
    wants.start = needs[1]
  end
  for _, index in ipairs(job.noise_indices) do
    k = k + 1
    wants.noises[index] = needs[k]
  end
  for i = 1, #job.externals do
    wants.externals[i] = needs[k + i]
    wants.any = wants.any or needs[k + i]
  end
  return wants
end

-- The reverse pass of a job with cotangents for the result and for the stacked states.
local function reverse(job, needs, d_result, d_states)
  local plan = job.plan
  job.unwritten("diffusion.sample", "the model uses")
  local wants = wanted_of(job, needs)
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
  local gx, noises, sums = job.mode.reverse(job, known, cotangents, wants)
  local out, k = {}, 0
  local function give(g)
    k = k + 1
    out[k] = g
  end
  if job.x then give(gx) end
  for _, index in ipairs(job.noise_indices) do give(noises[index]) end
  for i = 1, #job.externals do give(sums[i]) end
  return unpack(out, 1, #job.inputs)
end

-- The same with the pass itself on the tape, for derivatives of derivatives: the plan is run again as a whole.
local function reverse_recorded(job, d_result, d_states)
  if job.first > 1 or not job.mode.exact then
    raise("diffusion.sample: create_graph needs an exact gradient through all steps, not %s",
      job.first > 1 and "a truncated one" or ("grad = %q"):format(job.options.grad))
  end
  job.unwritten("diffusion.sample", "the model uses")
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
    local states = {}
    local y = run.forward(job.plan, job.x and points[1] or job.start, env, {}, function(i, z) states[i + 1] = z end)
    local outputs, cotangents = {}, {}
    if d_result then outputs[1], cotangents[1] = y, d_result end
    if d_states then
      outputs[#outputs + 1], cotangents[#outputs + 1] = stack(states), d_states
    end
    local grads = core.backward(outputs, cotangents, points, true, true, true)
    for i = 1, k do grads[i] = grads[i] or nil end
    return unpack(grads, 1, k)
  end)
end

-- What a gradient of the result may be asked for: x_T, those noises that require one, and the externals.
local function inputs_of(job)
  local inputs = {job.x}
  for k = 1, job.plan.noises do
    if job.env.noise_wanted(k) then
      job.noise_indices[#job.noise_indices + 1] = k
      inputs[#inputs + 1] = job.env.noise(k)
    end
  end
  for _, e in ipairs(job.externals) do inputs[#inputs + 1] = e end
  return inputs
end

-- The plan run off the tape, and recorded as one operation whose derivative is a strategy's reverse pass.
local function as_one_node(plan, x, env, o, see, states)
  local mode, total = modes[o.grad], #plan.nodes - 1
  local job = {
    plan = plan, env = env, mode = mode, stats = o.stats, externals = {}, wrt = o.wrt, noise_indices = {}, options = o,
    first = o.truncated and math.max(1, total - o.truncated + 1) or 1,
    start = x:detach(), x = x.needs_grad and x or nil,
  }
  if mode.check then mode.check(plan) end
  if job.x then job.start = job.start:clone() end  -- x_T is usually stepped in place, perhaps before the reverse pass
  local keep = mode.keep(plan, {checkpoint = o.checkpoint, first = job.first})
  local result
  result, job.kept = with_recording(false, run.forward, plan, job.start, watching(env, job, plan.evaluations), keep,
    see)
  job.unwritten = unwritten(job.externals)
  job.externals = chosen(job.externals, o.wrt)
  job.inputs = inputs_of(job)
  o.stats.bytes_kept = bytes_of(job.kept)
  local latents = o.latents and stack(states) or nil
  if #job.inputs == 0 then return result, latents, job end
  local x0, stacked = core.custom({result, latents}, job.inputs, function(needs, d_result, d_states)
    if core.recording() then return reverse_recorded(job, d_result, d_states) end
    return reverse(job, needs, d_result, d_states)
  end, true)
  return x0, stacked, job
end

--- Runs the plan from x with gradients by the mode o.grad. o: grad, checkpoint, truncated, wrt, latents, on_state,
--- stats. env: eval, noise, noise_wanted(k). Returns the result, the stacked states (if o.latents), and the job.
function M.run(plan, x, env, o)
  local states = {}
  local function see(i, y)
    if o.latents then states[i + 1] = y end
    if o.on_state then o.on_state(i, y) end
  end
  if core.recording() and o.grad ~= "none" and o.grad ~= "full" then
    return as_one_node(plan, x, env, o, see, states)
  end
  local record = core.recording() and o.grad == "full"
  local y = with_recording(record, run.forward, plan, record and x or x:detach(), env, {}, see)
  return y, o.latents and stack(states) or nil
end

return M
