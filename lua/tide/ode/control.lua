-- Step controllers by name.
--
-- h' = h·clip(safety·Π errᵢ^(−kᵢ/q)·(h/h₁)^k4·(h₁/h₂)^k5, shrink, grow) over this step's error and those of the last
-- two accepted ones, h, h₁, h₂ their sizes, q one more than the order of the error estimate. first_grow replaces grow
-- after the first accepted step; keep_after_accept: an accepted step never shrinks the next; hold_after_reject: the
-- first accepted step after a rejected one does not grow.

local options = require "tide.options"
local raise = require("tide.message").raise

local M = {}

local plain = {
  k1 = 1, k2 = 0, k3 = 0, k4 = 0, k5 = 0, safety = 0.9, shrink = 0.2, grow = 10, first_grow = 0,
  keep_after_accept = false, hold_after_reject = true,
}

local function controller(k1, k2, k3, more)
  local c = {}
  for key, value in pairs(plain) do c[key] = value end
  c.k1, c.k2, c.k3 = k1, k2, k3
  for key, value in pairs(more or {}) do c[key] = value end
  return c
end

-- The proportional, integral and differential coefficients of diffrax and torchode.
local function pid(p, i, d) return controller(p + i + d, -(p + 2 * d), d, {hold_after_reject = false}) end

M.presets = {
  i = controller(1, 0, 0),                     -- elementary, as in SciPy
  pi = controller(0.85, -0.2, 0),              -- DOPRI5 of Hairer, β = 0.04: (0.2 − 0.75β)·5 and −β·5
  dop853 = controller(1, 0, 0, {shrink = 1 / 3, grow = 6}),
  pi_sciml = controller(0.7, -0.4, 0, {first_grow = 1e4}),
  soderlind_pi = controller(0.8, -0.31, 0),    -- Söderlind 2003, as the next two
  soderlind_pid = controller(0.58, -0.21, 0.1),
  h312 = controller(0.25, 0.5, 0.25, {k4 = -0.75, k5 = -0.25}),
  gustafsson = controller(0.635, -0.268, 0),   -- Gustafsson 1991, for explicit methods
  gustafsson_implicit = controller(1.93, -0.95, 0, {k4 = 1}),
  pid_rough = pid(0.3, 0.3, 0),
  torchode = pid(0.2, 0.5, 0),
  torchdiffeq = controller(1, 0, 0, {keep_after_accept = true, hold_after_reject = false}),
}

--- A preset's name, a table of the fields above, or {pid = {p, i, d}}, as the core takes it; over it the options
--- safety, ifactor (greatest growth) and dfactor (greatest shrinking).
function M.chosen(o)
  local given, base = o.controller
  if type(given) == "table" and given.pid then
    if type(given.pid) ~= "table" or #given.pid ~= 3 then
      raise("ode.solve: controller.pid must be three numbers")
    end
    base = pid(given.pid[1], given.pid[2], given.pid[3])
  elseif type(given) == "table" then
    base = options.check("ode.solve: controller", given, plain)
  else
    base = M.presets[given]
  end
  if not base then raise("ode.solve: unknown controller %q%s", tostring(given), options.choices(given, M.presets)) end
  if base == M.presets[given] and not (o.safety or o.ifactor or o.dfactor) then return base end
  local c = {}
  for k, v in pairs(base) do c[k] = v end
  c.safety, c.grow, c.shrink = o.safety or c.safety, o.ifactor or c.grow, o.dfactor or c.shrink
  if not (c.safety > 0 and c.safety <= 1 and c.grow > 1 and c.shrink > 0 and c.shrink < 1) then
    raise("ode.solve: safety %g, ifactor %g, dfactor %g: expected (0, 1], above 1, (0, 1)", c.safety, c.grow,
      c.shrink)
  end
  return c
end

return M
