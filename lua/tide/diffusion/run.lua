-- Running a plan forward and in reverse. The forward loop keeps the values that a policy names; the reverse loop asks
-- for values, and what was not kept is computed again from what was, or recovered from what came later.
--
-- env.eval(x, node, number) gives the network's value, env.noise(k) the k-th noise.

local core = require "tide.core"
local make_tidy = require "tide.diffusion.tidy"
local is_finite = require("tide.values").is_finite
local message = require "tide.message"

local M = {}
local raise = message.raise

-- Σ cᵢ·xᵢ. More than 24 at a time do not occur.
local function lincomb(coefs, xs)
  if #xs == 1 and coefs[1] == 1 then return xs[1] end
  return core.lincomb {core.tensor(coefs, "float64"), unpack(xs)}
end

local function check_finite(x, instruction)
  if is_finite(x) then return end
  local node = instruction.node
  if node then
    raise("diffusion.sample: the network gave values that are not finite at step %d (t = %g, σ = %.6g)",
      instruction.step, node.t, node.sigma)
  end
  raise("diffusion.sample: the latents are no longer finite after step %d", instruction.step)
end

local function compute(instruction, env, value)
  if instruction.op == "eval" then
    return env.eval(value(instruction.src), instruction.node, instruction.number)
  elseif instruction.op == "noise" then
    return env.noise(instruction.index)
  end
  local xs = {}
  for i, v in ipairs(instruction.ids) do xs[i] = value(v) end
  return lincomb(instruction.coefs, xs)
end

--- Runs the plan from x. `keep` is a set of values to be given back in a table; on_state(i, x) is called with every
--- state (0 is the start). Returns the result and the kept values.
function M.forward(plan, x, env, keep, on_state)
  local live, kept, state_at = {[1] = x}, {}, {}
  if keep[1] then kept[1] = x end
  for i, v in ipairs(plan.states) do state_at[v] = i - 1 end
  if on_state then on_state(0, x) end
  local function value(v) return live[v] end
  local tidy = make_tidy()
  for i, instruction in ipairs(plan.code) do
    local dst = instruction.dst
    local y = compute(instruction, env, value)
    check_finite(y, instruction)
    if instruction.op == "eval" then tidy() end
    if plan.last[dst] then live[dst] = y end
    if keep[dst] then kept[dst] = y end
    if on_state and state_at[dst] then on_state(state_at[dst], y) end
    for _, v in ipairs(instruction.ids or {instruction.src}) do
      if plan.last[v] == i then live[v] = nil end
    end
  end
  return live[plan.result], kept
end

-- ---- Reverse ----

-- Cotangents on their way to a value: kept apart until they are needed, then added in one pass.
local function collector(wanted)
  local parts = {}
  local self = {}
  function self.add(v, coef, g)
    if not g or not wanted[v] then return end
    local p = parts[v]
    if not p then
      p = {coefs = {}, xs = {}}
      parts[v] = p
    end
    p.coefs[#p.coefs + 1], p.xs[#p.xs + 1] = coef, g
  end
  function self.take(v)
    local p = parts[v]
    parts[v] = nil
    return p and lincomb(p.coefs, p.xs)
  end
  return self
end

--- Which values a gradient has to pass on its way: those that depend on the start (if it is wanted), on a noise that
--- is wanted (a function of its index), or on the network (if anything that it closes over is).
function M.on_the_way(plan, start, noise, network)
  local wanted = {[1] = start or nil}
  for _, c in ipairs(plan.code) do
    local yes
    if c.op == "eval" then yes = network or wanted[c.src]
    elseif c.op == "noise" then yes = noise(c.index)
    else
      for _, v in ipairs(c.ids) do yes = yes or wanted[v] end
    end
    wanted[c.dst] = yes or nil
  end
  return wanted
end

-- A function that gives any value of the plan from the known ones: by its own definition, and so on to what is known.
local function values_of(plan, known, env)
  local definition = {}
  for _, c in ipairs(plan.code) do definition[c.dst] = c end
  local function value(v)
    local x = known[v]
    if not x then
      x = compute(definition[v], env, value)
      known[v] = x
    end
    return x
  end
  return value
end

-- x_r from x = Σ cᵢ·xᵢ and the other x_i.
local function recover(c, value)
  local coefs, xs = {}, {}
  local own
  for i, v in ipairs(c.ids) do
    if v == c.solves then own = c.coefs[i] end
  end
  coefs[1], xs[1] = 1 / own, value(c.dst)
  for i, v in ipairs(c.ids) do
    if v ~= c.solves then coefs[#coefs + 1], xs[#xs + 1] = -c.coefs[i] / own, value(v) end
  end
  return lincomb(coefs, xs)
end

--- The reverse of a plan. known: values that were kept (a copy; it is used up). cotangents: by value. o: wanted (see
--- on_the_way), vjp(x, node, g, want_x, number) → the cotangent of x, first (the first step to go through, 1),
--- reversible (values are recovered). Returns the start's cotangent, those of the noises by index, and the start as
--- it was recovered, if it was.
function M.reverse(plan, known, env, cotangents, o)
  local sum, value, noises = collector(o.wanted), values_of(plan, known, env), {}
  for v, g in pairs(cotangents) do sum.add(v, 1, g) end
  for i = #plan.code, 1, -1 do
    local c = plan.code[i]
    if c.step < o.first then return nil, noises end
    local g = sum.take(c.dst)
    if c.op == "eval" then
      if g then sum.add(c.src, 1, o.vjp(value(c.src), c.node, g, o.wanted[c.src], c.number)) end
    elseif c.op == "noise" then
      noises[c.index] = g
    else
      if o.reversible and c.solves and not known[c.solves] then known[c.solves] = recover(c, value) end
      for k, v in ipairs(c.ids) do sum.add(v, c.coefs[k], g) end
    end
    known[c.dst] = nil
  end
  return sum.take(1), noises, known[1]
end

--- The start, recovered from the kept ends of a sampler that can be inverted.
function M.invert(plan, known, env)
  local value = values_of(plan, known, env)
  for i = #plan.code, 1, -1 do
    local c = plan.code[i]
    if c.solves and not known[c.solves] then known[c.solves] = recover(c, value) end
    known[c.dst] = nil
  end
  return value(1)
end

-- ---- What to keep ----

--- Every value at which the network is evaluated, from step `first` on.
function M.keep_inputs(plan, first)
  local keep = {}
  for _, c in ipairs(plan.code) do
    if c.op == "eval" and c.step >= first then keep[c.src] = true end
  end
  return keep
end

--- What is alive before every k-th step.
function M.keep_every(plan, k, first)
  local keep, begins, made = {}, {}, {[1] = 0}
  for i, c in ipairs(plan.code) do
    begins[c.step] = begins[c.step] or i
    made[c.dst] = i
  end
  for step, at in pairs(begins) do
    if step >= first and (step - first) % k == 0 then
      for v, i in pairs(made) do
        if i < at and (plan.last[v] or 0) >= at then keep[v] = true end
      end
    end
  end
  return keep
end

--- What the sampler said that its inverse starts from.
function M.keep_ends(plan)
  local keep = {}
  for _, v in ipairs(plan.kept) do keep[v] = true end
  return keep
end

return M
