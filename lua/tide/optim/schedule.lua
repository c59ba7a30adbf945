-- Learning rates over time. A shape is a function (k, lr) → rate of the step number k (0, 1, …) and the rate
-- that the optimiser was made with; a schedule applies a shape to an optimiser's groups.
--
--   local sched = optim.Schedule(opt, optim.warmup(500, optim.cosine {steps = 20000, minimum = 1e-6}))
--   for … do … opt:step(); sched:step() end
--
-- Any function will do: optim.Schedule(opt, function(k, lr) return lr * 0.95 ^ k end).

local core = require "tide.core"
local options = require "tide.options"

local M = {}
local raise = require("tide.message").raise

local function positive(fname, what, v)
  if type(v) ~= "number" or v ~= v or v <= 0 then
    raise("%s: %s is %s, expected a positive number", fname, what, tostring(v))
  end
  return v
end

-- ---- Shapes ----

--- optim.constant(): the rate as it is.
function M.constant()
  return function(_, lr) return lr end
end

--- optim.step_decay {every = n, factor = 0.1}: times factor after every n steps.
function M.step_decay(opts)
  local o = options.check("step_decay", opts, {every = options.none, factor = 0.1})
  positive("step_decay", "every", o.every)
  return function(k, lr) return lr * o.factor ^ math.floor(k / o.every) end
end

--- optim.multistep {at = {n1, n2, …}, factor = 0.1}: times factor at each of the steps named.
function M.multistep(opts)
  local o = options.check("multistep", opts, {at = options.none, factor = 0.1})
  if type(o.at) ~= "table" then
    raise("multistep: at is a %s, expected a table of step numbers", type(o.at))
  end
  return function(k, lr)
    for _, at in ipairs(o.at) do
      if k >= at then lr = lr * o.factor end
    end
    return lr
  end
end

--- optim.exponential {factor}: times factor after every step.
function M.exponential(opts)
  local o = options.check("exponential", opts, {factor = options.none})
  positive("exponential", "factor", o.factor)
  return function(k, lr) return lr * o.factor ^ k end
end

-- From a at u = 0 to b at u = 1 along half a cosine.
local function half_cosine(a, b, u)
  return b + (a - b) * (1 + math.cos(math.pi * math.min(1, math.max(0, u)))) / 2
end

--- optim.cosine {steps = n, minimum = 0}: half a cosine from the rate down to `minimum` at step n, and that
--- from there on. Loshchilov and Hutter 2017, without restarts.
function M.cosine(opts)
  local o = options.check("cosine", opts, {steps = options.none, minimum = 0})
  positive("cosine", "steps", o.steps)
  return function(k, lr) return half_cosine(lr, o.minimum, k / o.steps) end
end

--- optim.one_cycle {steps = n, rise = 0.3, start = 25, finish = 1e4}: half a cosine up from lr/start to the
--- optimiser's lr at the fraction `rise` of n steps, then half a cosine down to lr/start/finish at the last,
--- n − 1. Smith and Topin 2018.
function M.one_cycle(opts)
  local o = options.check("one_cycle", opts, {steps = options.none, rise = 0.3, start = 25, finish = 1e4})
  positive("one_cycle", "steps", o.steps)
  if type(o.rise) ~= "number" or o.rise ~= o.rise or o.rise < 0 or o.rise > 1 then
    raise("one_cycle: rise is %s, expected a fraction from 0 to 1", tostring(o.rise))
  end
  local last = o.steps - 1
  local top = o.rise * o.steps - 1
  return function(k, lr)
    if k < top then return half_cosine(lr / o.start, lr, k / top) end
    return half_cosine(lr, lr / o.start / o.finish, (k - top) / math.max(last - top, 1e-300))
  end
end

--- optim.warmup(n, shape = constant): for n steps the rate rises in a line, (k + 1)/(n + 1) of what the shape
--- starts with; then the shape runs, its own step 0 at step n.
function M.warmup(n, shape)
  if type(n) ~= "number" or n < 0 then raise("warmup: %s steps, expected a number from 0", tostring(n)) end
  shape = shape or M.constant()
  return function(k, lr)
    if k < n then return shape(0, lr) * (k + 1) / (n + 1) end
    return shape(k - n, lr)
  end
end

-- ---- The schedule ----

local Schedule = {}
Schedule.__index = Schedule

local function apply(self)
  for i, group in ipairs(self.optimiser.groups) do group.lr = self.shape(self.k, self.base[i]) end
  return self
end

--- optim.Schedule(opt, shape): sets every group's rate for step 0 now, and for the next step whenever
--- sched:step() is called. A group's own lr is the shape's second argument.
function M.Schedule(opt, shape)
  if type(opt) ~= "table" or not opt.groups then
    raise("Schedule: expected an optimiser, got a %s", type(opt))
  end
  if type(shape) ~= "function" then
    raise("Schedule: the shape is a %s, expected a function such as optim.cosine {…}", type(shape))
  end
  local self = setmetatable({optimiser = opt, shape = shape, base = {}, k = 0}, Schedule)
  for i, group in ipairs(opt.groups) do self.base[i] = group.lr end
  return apply(self)
end

--- On to the next step. Returns the schedule.
function Schedule:step()
  self.k = self.k + 1
  return apply(self)
end

--- The rates now, group by group.
function Schedule:rates()
  local list = {}
  for i, group in ipairs(self.optimiser.groups) do list[i] = group.lr end
  return list
end

--- Where the schedule is: {k = step number, base = the groups' first rates}, as tensors, to be saved with the
--- rest.
function Schedule:state_dict()
  return {k = core.tensor(self.k, "float64"), base = core.tensor(self.base, "float64")}
end

function Schedule:load_state_dict(state)
  if type(state) ~= "table" or not state.k or not state.base or #state.base ~= #self.base then
    raise("Schedule: expected the state of a schedule over %d groups", #self.base)
  end
  self.k, self.base = state.k:item(), state.base:totable()
  return apply(self)
end

return M
