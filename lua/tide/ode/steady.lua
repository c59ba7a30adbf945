-- Steady states y* with f(t, y*) = 0, and their gradients by the implicit function theorem: with w the cotangent of y*,
-- Jᵀμ = −w is solved by GMRES on products with Jᵀ, and what f depends on gets f_pᵀμ. Nothing of the way to y* is kept.

local autograd = require "tide.autograd"
local core = require "tide.core"
local krylov = require "tide.ode.krylov"
local message = require "tide.message"
local options = require "tide.options"
local tensors = require "tide.tensor"

local M = {}

local raise = message.raise
local defaults = {t = 0, rtol = 1e-10, atol = 1e-12, max_iters = 200, first_step = 0.1, gmres_rtol = 1e-12,
  gmres_restart = 60, gmres_iters = 600, throw = true}

local function norm(x) return (x * x):mean():sqrt():item() end

-- One step of pseudo-transient continuation: (1/τ − J) d = f, which is Newton's as τ grows (Kelley and Keyes 1998).
local function direction(f, y, r, tau, o)
  local shape = y.shape
  local function apply(v)
    local _, jv = autograd.jvp(f, {y}, {core.reshape(v, shape)})
    return v * (1 / tau) - core.reshape(jv, -1)
  end
  local d = krylov.gmres(apply, core.reshape(r, -1),
    {rtol = 1e-6, restart = o.gmres_restart, max_iters = o.gmres_iters})
  return core.reshape(d, shape)
end

-- y with |f(y)| small, the residual's norm, iterations; nil for y when it was not reached.
local function find(f, y, o)
  local r = f(y)
  local size, tau = norm(r), o.first_step
  for k = 0, o.max_iters do
    if size <= o.atol + o.rtol * norm(y) and (size == 0 or k > 0) then return y, size, k end
    local d = direction(f, y, r, tau, o)
    local tried = y + d
    local after = f(tried)
    local now = norm(after)
    if now == now and (now < 2 * size or tau < 1e-12) then
      tau = math.min(tau * math.max(size / now, 0.5), 1e300)
      y, r, size = tried, after, now
      if norm(d) <= 4e-16 * norm(y) then return y, size, k + 1 end  -- rounding is reached
    else
      tau = tau / 4
    end
    if size ~= size or size == math.huge then break end
  end
  return nil, size, o.max_iters
end

-- y* as a function of the residual r = f(y*), which is zero but carries what f depends on.
local function attach(f, y, r, o)
  local at = y:detach()
  return autograd.custom(function() return at * 1 end, function(_, w)
    local point = at:detach():requires_grad()
    local value = autograd.enable_grad(function() return f(point) end)
    local function transposed(v)
      local g = autograd.gradients(value, point, {cotangents = core.reshape(v, at.shape), retain_graph = true,
        unused = "zeros"})[1]
      return core.reshape(g, -1)
    end
    local mu, off = krylov.gmres(transposed, core.reshape(w:detach(), -1),
      {rtol = o.gmres_rtol, restart = o.gmres_restart, max_iters = o.gmres_iters})
    if off > 1e-6 then
      raise("ode.steady_state: the adjoint system was solved to a residual of %.2g only; the state may be singular",
        off)
    end
    return -core.reshape(mu, at.shape)
  end)(r)
end

--- A steady state of y' = f(t, y) near y0, a tensor: y with f(t, y) = 0 at time t (0), found by pseudo-transient
--- continuation with GMRES, which follows the flow first and ends as Newton's method. Gradients reach every tensor that
--- f closes over, not y0, by the implicit function theorem. Options: t 0, rtol 1e-10, atol 1e-12 (of |f|),
--- max_iters 200, first_step 0.1 (pseudo-time; smaller follows the flow longer), gmres_rtol 1e-12, gmres_restart 60,
--- gmres_iters 600, throw true. Gives y and {status, residual, iterations}.
function M.steady_state(f, y0, opts)
  local o = options.check("ode.steady_state", opts, defaults)
  if not tensors.is_tensor(y0) then raise("ode.steady_state: y0 is a %s, expected a tensor", type(y0)) end
  local time = core.reshape(core.tensor({o.t}, "float64"), {})
  local function field(y) return f(time, y) end
  local y, size, iterations = autograd.no_grad(find, field, y0:detach(), o)
  local info = {status = y and "ok" or "newton_failed", residual = size, iterations = iterations}
  if not y then
    if o.throw then
      raise("ode.steady_state: no steady state within %d iterations, |f| is %.3g; try a smaller first_step or " ..
        "another y0", iterations, size)
    end
    return nil, info
  end
  local r = field(y)
  if not r.needs_grad then return y, info end
  return attach(field, y, r, o), info
end

return M
