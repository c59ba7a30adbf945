-- Stochastic differential equations dy = f(t, y) dt + g(t, y) dW over a Brownian path that is given and stays: the
-- steps are ordinary operations on the tape, so gradients are exact for the steps taken with the noise frozen.

local autograd = require "tide.autograd"
local brownian = require "tide.ode.brownian"
local core = require "tide.core"
local message = require "tide.message"
local options = require "tide.options"
local tensors = require "tide.tensor"

local M = {}

local raise = message.raise

-- g·w for diagonal noise, or for g of shape y × m and w of m.
local function along(g, w, general)
  if not general then return g * w end
  return core.reshape(core.reshape(g, {-1, w.numel}):matmul(w), -1)
end

-- One step from (t, y) of h with increment w and area = ∫W over it; p: {f, g, general, at(t) → tensor}.
local steps = {}

-- Itô. Maruyama 1955; strong order 1/2, 1 for additive noise.
function steps.euler_maruyama(p, t, y, h, w)
  local time = p.at(t)
  return y + p.f(time, y) * h + p.noise(p.g(time, y), w, y)
end

-- Itô, diagonal noise where gᵢ depends on yᵢ. Milstein 1975; strong order 1.
function steps.milstein(p, t, y, h, w)
  local time = p.at(t)
  local g, slope = p.slope(time, y)
  return y + p.f(time, y) * h + g * w + g * slope * (w * w - h) * 0.5
end

-- Stratonovich. Rümelin 1982; strong order 1 for commutative noise.
function steps.heun(p, t, y, h, w)
  local now, after = p.at(t), p.at(t + h)
  local f, g = p.f(now, y), p.g(now, y)
  local guess = y + f * h + p.noise(g, w, y)
  return y + (f + p.f(after, guess)) * (h / 2) + p.noise(g + p.g(after, guess), w, y) * 0.5
end

-- Additive noise, where Itô and Stratonovich agree: g depends on t alone. Rößler 2010; strong order 3/2.
function steps.sra1(p, t, y, h, w, area)
  local now, after = p.at(t), p.at(t + h)
  local g0, g1 = p.g(now, y), p.g(after, y)
  local f0 = p.f(now, y)
  local late = p.noise(g1, area * (1 / h), y)
  local f1 = p.f(p.at(t + 0.75 * h), y + f0 * (0.75 * h) + late * 1.5)
  return y + (f0 + f1 * 2) * (h / 3) + p.noise(g1, w, y) - late + p.noise(g0, area * (1 / h), y)
end

local sense = {euler_maruyama = "ito", milstein = "ito", heun = "stratonovich", sra1 = "both"}

--- The methods of ode.sde, and the sense of the integral that each approximates.
M.sde_methods = sense

-- g and ∂gᵢ/∂yᵢ for a g that is diagonal, on the tape when that records.
local function with_slope(g)
  return function(time, y)
    local recording = autograd.is_grad_enabled()
    local point = recording and y.needs_grad and core.contiguous(y) or y:detach():requires_grad()
    local gain = autograd.enable_grad(g, time, point)
    local slope = autograd.gradients(gain:sum(), point, {create_graph = recording, unused = "zeros"})[1]
    return recording and gain or gain:detach(), slope
  end
end

local defaults = {method = "euler_maruyama", step_size = 0, path = options.none, seed = 0, noise = "diagonal",
  checkpoint = false}

local function check_times(t)
  if type(t) ~= "table" or #t < 2 then raise("ode.sde: t is a %s, expected a table of at least two times", type(t)) end
  for i, v in ipairs(t) do
    if type(v) ~= "number" then raise("ode.sde: t[%d] is a %s, expected a number", i, type(v)) end
    if i > 1 and v <= t[i - 1] then
      raise("ode.sde: times must ascend, but time %d is %g after %g", i, v, t[i - 1])
    end
  end
end

-- From t[i] to t[i + 1] in equal steps of at most `size`.
local function span(p, step, from, to, size, y, path)
  local n = math.max(1, math.ceil((to - from) / size - 1e-10))
  for k = 1, n do
    local a = from + (to - from) * ((k - 1) / n)
    local b = k == n and to or from + (to - from) * (k / n)
    local w, area = autograd.no_grad(path.increment, path, a, b)
    y = step(p, a, y, b - a, w, area)
  end
  return y, n
end

--- Solves dy = f(t, y) dt + g(t, y) dW from y(t[1]) = y0 (a tensor) in steps of step_size, with values at the ascending
--- times t. Options: method "euler_maruyama" (Itô), "milstein" (Itô, diagonal), "heun" (Stratonovich) or "sra1"
--- (additive noise, strong order 3/2); step_size; noise "diagonal" (g like y) or "general" (g is y's elements × m, a
--- path of m); path (ode.brownian; made from `seed` when it is not given); checkpoint true keeps the states at the
--- times only and repeats the steps in the backward pass. Gradients reach y0 and all that f and g close over, the path
--- stays as it is. Gives {ts, ys, last, path, stats}.
function M.sde(f, g, y0, t, opts)
  local o = options.check("ode.sde", opts, defaults)
  if not tensors.is_tensor(y0) then raise("ode.sde: y0 is a %s, expected a tensor", type(y0)) end
  check_times(t)
  local step = steps[o.method]
  if not step then
    raise("ode.sde: unknown method %q, expected euler_maruyama, heun, milstein or sra1", tostring(o.method))
  elseif type(o.step_size) ~= "number" or o.step_size <= 0 then
    raise("ode.sde: step_size is %s, expected a positive number", tostring(o.step_size))
  elseif o.noise ~= "diagonal" and o.noise ~= "general" then
    raise("ode.sde: noise is %s, expected \"diagonal\" or \"general\"", tostring(o.noise))
  elseif o.noise == "general" and (o.method == "milstein") then
    raise("ode.sde: milstein takes diagonal noise; use heun or euler_maruyama")
  elseif o.noise == "general" and not o.path then
    raise("ode.sde: general noise needs a path, ode.brownian({m}, t0, t1)")
  end
  local path = o.path or brownian.brownian(y0.shape, t[1], t[#t], {seed = o.seed, dtype = y0.dtype})
  local general = o.noise == "general"
  local p = {
    f = f, g = g, slope = with_slope(g),
    noise = function(gain, w, y) return core.reshape(along(gain, w, general), y.shape) end,
    at = function(time) return core.reshape(core.tensor({time}, "float64"), {}) end,
  }
  local rows, y, count = {core.unsqueeze(y0, 1)}, y0, 0
  for i = 2, #t do
    local n
    local function piece(state)
      local out
      out, n = span(p, step, t[i - 1], t[i], o.step_size, state, path)
      return out
    end
    if o.checkpoint then y = autograd.checkpoint(piece, y) else y = piece(y) end
    rows[i], count = core.unsqueeze(y, 1), count + n
  end
  return {ts = core.tensor(t, "float64"), ys = core.cat(rows, 1), last = y, path = path, stats = {steps = count}}
end

return M
