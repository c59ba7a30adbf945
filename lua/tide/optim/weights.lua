-- Gradients kept in bounds, and running averages of weights.

local core = require "tide.core"
local message = require "tide.message"
local is_tensor = require("tide.tensor").is_tensor

local M = {}
local raise, shape_of = message.raise, message.shape
local kernels = core.optim

local function listed(fname, params)
  if is_tensor(params) then params = {params} end
  if type(params) ~= "table" then
    raise("%s: the parameters are a %s, expected a table of tensors", fname, type(params))
  end
  return params
end

local function check_bound(fname, v)
  if type(v) ~= "number" or v ~= v or v <= 0 then
    raise("%s: %s, expected a positive number", fname, tostring(v))
  end
end

--- Scales all gradients together so that their common Euclidean norm is at most max. Returns the norm before.
--- A norm that is not finite leaves them as they are: compare the result with itself or math.huge to skip
--- such a step. Pascanu et al. 2013.
function M.clip_grad_norm(params, max)
  params = listed("clip_grad_norm", params)
  check_bound("clip_grad_norm", max)
  local norm = kernels.grad_norm(params)
  if norm > max and norm < math.huge then kernels.grad_scale(params, max / norm) end
  return norm
end

--- Clamps every element of every gradient to [−max, max].
function M.clip_grad_value(params, max)
  check_bound("clip_grad_value", max)
  for _, p in ipairs(listed("clip_grad_value", params)) do
    local g = p.grad
    if g then p.grad = core.clamp(g:detach(), -max, max) end
  end
end

-- ---- Exponential moving average ----

local EMA = {}
EMA.__index = EMA

--- optim.EMA(params, decay = 0.999): averages of the parameters, at first their values. ema:update() after
--- every step: average ← decay·average + (1 − decay)·p. ema:apply() puts the averages into the parameters,
--- ema:restore() puts back what was there; ema:with(f, …) does both around f.
function M.EMA(params, decay)
  decay = decay or 0.999
  if type(decay) ~= "number" or decay ~= decay or decay < 0 or decay > 1 then
    raise("EMA: decay is %s, expected 0 to 1", tostring(decay))
  end
  local self = setmetatable({params = {}, averages = {}, decay = decay}, EMA)
  for i, p in ipairs(listed("EMA", params)) do
    if not is_tensor(p) then raise("EMA: parameter %d is a %s, expected a tensor", i, type(p)) end
    self.params[i], self.averages[i] = p, p:detach():clone()
  end
  if #self.params == 0 then raise("EMA: no parameters") end
  return self
end

--- Moves the averages towards the parameters. Returns the EMA.
function EMA:update()
  if self.kept then raise("EMA: update between apply() and restore()") end
  for i, p in ipairs(self.params) do kernels.blend(self.averages[i], p, self.decay) end
  return self
end

-- p ← value, outside of any graph
local function write(params, values)
  local was = core.recording(false)
  for i, p in ipairs(params) do p:copy_(values[i]) end
  core.recording(was)
end

--- The parameters take their averages' values. Returns the EMA.
function EMA:apply()
  if self.kept then raise("EMA: apply() twice without restore()") end
  local kept = {}
  for i, p in ipairs(self.params) do kept[i] = p:detach():clone() end
  self.kept = kept
  write(self.params, self.averages)
  return self
end

--- The parameters take the values they had before apply(). Returns the EMA.
function EMA:restore()
  if not self.kept then raise("EMA: restore() without apply()") end
  write(self.params, self.kept)
  self.kept = nil
  return self
end

--- f(…) while the parameters have their averages' values.
function EMA:with(f, ...)
  self:apply()
  local function finish(ok, ...)
    self:restore()
    if not ok then error((...), 0) end
    return ...
  end
  return finish(pcall(f, ...))
end

--- The averages as a table of tensors, "1", "2", … in the order of the parameters.
function EMA:state_dict()
  local state = {}
  for i, a in ipairs(self.averages) do state[tostring(i)] = a:clone() end
  return state
end

function EMA:load_state_dict(state)
  local list = {}
  for i, a in ipairs(self.averages) do
    local given = state[tostring(i)]
    if not is_tensor(given) or shape_of(given) ~= shape_of(a) then
      local came = is_tensor(given) and "of shape (" .. shape_of(given) .. ")" or "missing"
      raise("EMA: average %d is %s, expected shape (%s)", i, came, shape_of(a))
    end
    list[i] = given
  end
  write(self.averages, list)
  return self
end

return M
