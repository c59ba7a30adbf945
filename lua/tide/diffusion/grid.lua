-- The points of a schedule that a sampler of N steps walks on: N + 1 of them, from noise to data. Steps always go
-- from one visited point to the next.

local message = require "tide.message"
local options = require "tide.options"
local values = require "tide.values"

local M = {}
local raise = message.raise
local exp, log, floor = math.exp, math.log, math.floor

local function round(x) return floor(x + 0.5) end

-- ---- Spacings: n times (or λs) in descending order of noise; `whole` times are those of training ----

local spacings = {}

-- k·⌊T/n⌋ + offset, as DDPM and DDIM.
function spacings.leading(s, n, o)
  local times, stride = {}, s.kind == "flow" and s.steps / n or floor(s.steps / n)
  for k = n - 1, 0, -1 do times[#times + 1] = math.min(k * stride + (o.offset or 0), s.last) end
  return times
end

-- T − k·T/n, rounded, less one; on a continuous schedule not rounded.
function spacings.trailing(s, n)
  local times = {}
  for k = 0, n - 1 do
    local t = s.steps - k * s.steps / n
    times[k + 1] = s.kind == "flow" and t or round(t) - 1
  end
  return times
end

function spacings.linspace(s, n)
  local times, first = {}, s.kind == "flow" and 1 or s.first
  for k = 0, n - 1 do
    local t = s.last + (n > 1 and k / (n - 1) or 0) * (first - s.last)
    times[k + 1] = t
  end
  return times
end

-- Spacings in σ̂ give λ.
local by_lambda = {}

local function ends(s, o)
  local most = o.sigma_max or exp(-s.lambda_of(s.kind == "flow" and s.last - 1 or s.last))
  local least = o.sigma_min or exp(-s.lambda_of(s.kind == "flow" and 1 or s.first))
  return most, least
end

-- Karras et al. 2022, equation 5.
function by_lambda.karras(s, n, o)
  local most, least = ends(s, o)
  local p, list = o.rho or 7, {}
  for k = 0, n - 1 do
    local u = n > 1 and k / (n - 1) or 0
    list[k + 1] = -p * log(most ^ (1 / p) + u * (least ^ (1 / p) - most ^ (1 / p)))
  end
  return list
end

-- Uniform in log σ̂.
function by_lambda.exponential(s, n, o)
  local most, least = ends(s, o)
  local list = {}
  for k = 0, n - 1 do
    list[k + 1] = -(log(most) + (n > 1 and k / (n - 1) or 0) * (log(least) - log(most)))
  end
  return list
end
by_lambda.logsnr = by_lambda.exponential

local known = {
  steps = 50, spacing = options.none, final = "zero", timesteps = options.none, sigmas = options.none,
  offset = options.none, rho = options.none, sigma_min = options.none, sigma_max = options.none,
}

local rules = {
  final = values.one_of("zero", "min", "none"), offset = values.whole(0), rho = values.positive,
  sigma_min = values.positive, sigma_max = values.positive,
}

-- The spacings that an option is of.
local owners = {
  offset = {leading = true}, rho = {karras = true}, sigma_min = by_lambda, sigma_max = by_lambda,
}

--- The options of nodes and their defaults.
M.known = known

-- A list of numbers from `low` to `high`, each less than the one before.
local function check_descending(fname, what, list, low, high)
  if type(list) ~= "table" then raise("%s: %s is %s, expected a list of numbers", fname, what, values.shown(list)) end
  if #list == 0 then raise("%s: %s is empty, expected a list of numbers", fname, what) end
  for i, v in ipairs(list) do
    if type(v) ~= "number" or not (v >= low and v <= high) then
      raise("%s: %s[%d] is %s, expected a number from %g to %g", fname, what, i, values.shown(v), low, high)
    end
    if i > 1 and v >= list[i - 1] then
      raise("%s: %s[%d] is %g after %g, expected descending ones", fname, what, i, v, list[i - 1])
    end
  end
  return list
end

-- Flow shift of σ, as a map of times.
local function shifted(s, t)
  if s.shift == 1 then return t end
  local sigma = t / s.steps
  return s.steps * s.shift * sigma / (1 + (s.shift - 1) * sigma)
end

-- The greatest σ̂: squares are still numbers; a flow begins where there is no data.
local function greatest(s) return s.kind == "flow" and math.huge or 1e30 end

-- A list of one's own, and which of the two it is.
local function own_list(s, o, fname)
  if o.timesteps and o.sigmas then raise("%s: timesteps and sigmas are given, expected one of them", fname) end
  if o.timesteps then return check_descending(fname, "timesteps", o.timesteps, s.first, s.last), "timesteps" end
  if o.sigmas then return check_descending(fname, "sigmas", o.sigmas, 0, greatest(s)), "sigmas" end
end

local function check_spacing(s, spacing, fname)
  if not (spacings[spacing] or by_lambda[spacing]) then
    local all = {}
    for _, list in ipairs {spacings, by_lambda} do
      for name in pairs(list) do all[name] = true end
    end
    raise("%s: unknown spacing %q%s", fname, tostring(spacing), options.choices(spacing, all))
  end
  if s.kind == "ve" and spacings[spacing] then
    raise("%s: spacing %q needs times of training, this schedule has karras and exponential", fname, spacing)
  end
end

local function check_owners(spacing, o, fname)
  for _, name in ipairs {"offset", "rho", "sigma_max", "sigma_min"} do
    if o[name] ~= nil and not owners[name][spacing] then
      raise("%s: %s is for spacing %s, not for %s", fname, name, name == "offset" and "\"leading\""
        or name == "rho" and "\"karras\"" or "\"karras\" or \"exponential\"", spacing)
    end
  end
end

local function visited(s, n, o, fname, own, what)
  local list = {}
  local spacing = what or o.spacing or s.spacing
  if not own then check_spacing(s, spacing, fname) end
  check_owners(spacing, o, fname)
  if what == "timesteps" then
    for i, t in ipairs(own) do list[i] = s:node(t) end
  elseif what == "sigmas" then
    for i, ratio in ipairs(own) do list[i] = ratio == 0 and M.clean() or s:node_at(-log(ratio)) end
  elseif by_lambda[spacing] then
    for i, lambda in ipairs(by_lambda[spacing](s, n, o)) do list[i] = s:node_at(lambda) end
  else
    for i, t in ipairs(spacings[spacing](s, n, o)) do list[i] = s:node(shifted(s, t)) end
  end
  return list
end

-- Every point has less noise than the one before.
local function check_points(list, fname)
  if #list < 2 then raise("%s: one point is no step; choose another final or more steps", fname) end
  for i = 2, #list do
    if list[i].ratio >= list[i - 1].ratio then
      raise("%s: step %d goes from σ̂ = %g to %g, expected less noise after each step", fname, i - 1,
        list[i - 1].ratio, list[i].ratio)
    end
  end
  return list
end

--- The point without noise. It has no time: networks are never called there.
function M.clean() return {lambda = math.huge, alpha = 1, sigma = 0, ratio = 0} end

--- The N + 1 points for a schedule; see known for the options.
function M.nodes(schedule, opts, fname)
  fname = fname or "nodes"
  local o = options.check(fname, opts, known)
  values.check(fname, o, rules)
  local own, what = own_list(schedule, o, fname)
  local n = own and #own or o.steps
  if type(n) ~= "number" or n < 1 or n % 1 ~= 0 then
    raise("%s: steps is %s, expected a whole number, 1 or more", fname, values.shown(n))
  end
  if not own then
    if n > schedule.steps then
      raise("%s: %d steps on a schedule of %d times", fname, n, schedule.steps)
    end
    if o.final == "none" then n = n + 1 end
  end
  local list = visited(schedule, n, o, fname, own, what)
  if list[#list].sigma ~= 0 then
    if o.final == "zero" then
      list[#list + 1] = M.clean()
    elseif o.final == "min" then
      local last = schedule:node(schedule.first)
      if last.lambda > list[#list].lambda then list[#list + 1] = last end
    end
  end
  return check_points(list, fname)
end

return M
