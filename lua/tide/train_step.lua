-- A training step as one program: the loss, its gradient and what lies between share memory, and a step allocates
-- nothing. The optimiser then moves the parameters where they lie.

local autograd = require "tide.autograd"
local cache = require "tide.capture.cache"
local core = require "tide.core"
local listing = require "tide.capture.listing"
local message = require "tide.message"
local options = require "tide.options"
local tensors = require "tide.tensor"

local M = {}

local raise, is_tensor = message.raise, tensors.is_tensor

local Step = {}
Step.__index = Step

local function check_loss(loss)
  if not is_tensor(loss) or loss.numel ~= 1 then
    raise("train_step: the function gave %s, expected a loss of one element",
      is_tensor(loss) and "shape (" .. message.shape(loss) .. ")" or "a " .. type(loss))
  end
  if not loss.needs_grad then
    raise("train_step: the loss does not depend on anything that requires_grad")
  end
end

-- The step's program for arguments like these. Its results stay: the loss, the gradients, which become the parameters'
-- grad, and what else f returned.
local function build(self, form, count, list)
  local parameters, virtual, outputs, present, absent, rest = self.optimiser:parameters(), nil, nil, {}, {}, nil
  local trace, err = cache.traced(function(trace)
    virtual = cache.stand_ins(trace, list, false)
    local results = {autograd.enable_grad(self.f, unpack(cache.filled(form, virtual), 1, count))}
    check_loss(results[1])
    local gradients = core.backward({results[1]}, nil, parameters)
    outputs = {results[1]}
    for i, g in ipairs(gradients) do
      if g then outputs[#outputs + 1], present[#present + 1] = g, parameters[i]
      else absent[#absent + 1] = parameters[i] end
    end
    rest = cache.form_of({unpack(results, 2)}, outputs, {})
  end)
  if not trace then return nil, err end
  local entry = {forward = trace:program(0, trace:count(), virtual, outputs), present = present, absent = absent,
    rest = rest, kept = {}}
  for i, y in ipairs(outputs) do entry.kept[i] = core.zeros(y.shape, y.dtype) end
  return entry
end

local function eager(self, ...)
  local parameters, results = self.optimiser:parameters(), {autograd.enable_grad(self.f, ...)}
  check_loss(results[1])
  for i, g in ipairs(core.backward({results[1]}, nil, parameters)) do parameters[i].grad = g or nil end
  return results
end

-- Results as the caller gets them: numbers for tensors of one element, else tensors of their own.
local function plain(x)
  if not is_tensor(x) then return x end
  return x.numel == 1 and x:item() or x:detach():clone()
end

local function finish(self, loss, more)
  if self.before_step then self.before_step(self.optimiser) end
  self.optimiser:step()
  local out = {loss:item()}
  for i, x in ipairs(more) do out[1 + i] = plain(x) end
  return unpack(out)
end

function Step:__call(...)
  local entry, list = self.cache:find(...)
  if not entry then
    local results = eager(self, ...)
    return finish(self, results[1], {unpack(results, 2)})
  end
  entry.forward:run(list, entry.kept)
  for i, p in ipairs(entry.present) do p.grad = entry.kept[1 + i] end
  for _, p in ipairs(entry.absent) do p.grad = nil end  -- it may have one of another program
  return finish(self, entry.kept[1], cache.filled(entry.rest, entry.kept))
end

--- Captures anew from the next step on: something inside a table that f uses has changed.
function Step:forget() self.cache:forget() end

--- Why it runs as it is, or nil.
function Step:reason() return self.cache.reason end

--- The programs captured so far.
function Step:programs() return self.cache:list() end

function Step:__tostring() return listing.captured(self) end

--- train_step(f, optimiser, {before_step, fallback = "eager"}): an object step; step(…) computes the loss f(…), its
--- gradient for the optimiser's parameters, and lets the optimiser take a step. Captured (see tide.capture) where f
--- can be: the whole step is then one program that allocates nothing. Returns the loss as a number, and what else f
--- returned (tensors of one element as numbers). before_step(optimiser) is called between the gradient and the
--- step, for clipping and schedules. fallback = "eager" runs f as it is when it cannot be captured and says why by
--- step:reason(); "error" raises. Only the optimiser's parameters get gradients.
function M.train_step(f, optimiser, opts)
  if type(f) ~= "function" and not (type(f) == "table" and (getmetatable(f) or {}).__call) then
    raise("train_step: f is a %s, expected a function that returns a loss", type(f))
  end
  if type(optimiser) ~= "table" or not optimiser.parameters or not optimiser.step then
    raise("train_step: the optimiser is a %s, expected one of tide.optim", type(optimiser))
  end
  local o = options.check("train_step", opts, {before_step = options.none, fallback = "eager"})
  local self = {f = f, optimiser = optimiser, before_step = o.before_step, name = "training step"}
  self.cache = cache.new {f = f, fallback = o.fallback, build = function(...) return build(self, ...) end}
  return setmetatable(self, Step)
end

return M
