-- Schedules as diffusers' scheduler_config.json describes them, and back.

local message = require "tide.message"
local schedules = require "tide.diffusion.schedule"

local M = {}

local predictions = {epsilon = "epsilon", v_prediction = "v", sample = "x0"}
local prediction_names = {epsilon = "epsilon", v = "v_prediction", x0 = "sample"}
local betas = {linear = "linear", scaled_linear = "scaled_linear", squaredcos_cap_v2 = "cosine"}
local beta_names = {linear = "linear", scaled_linear = "scaled_linear", cosine = "squaredcos_cap_v2"}

--- The Schedule of a configuration, or nil and a message. What concerns the steps of one sampler alone is not read.
function M.read(c)
  if type(c) ~= "table" then return nil, "expected an object, found a " .. type(c) end
  local class = tostring(c._class_name or "")
  local steps = c.num_train_timesteps or 1000
  if class:find "^FlowMatch" then
    if c.use_dynamic_shifting then return nil, "use_dynamic_shifting is true, which is not supported" end
    return schedules.Schedule("flow", {steps = steps, shift = c.shift or 1})
  elseif class:find "^EDM" then
    return schedules.Schedule(c.sigma_schedule == "exponential" and "exponential" or "edm", {
      sigma_min = c.sigma_min or nil, sigma_max = c.sigma_max or nil, prediction = c.sigma_data and "x0" or nil,
    })
  end
  local prediction = predictions[c.prediction_type or "epsilon"]
  if not prediction then
    return nil, ("prediction_type is %s, expected epsilon, v_prediction or sample"):format(tostring(c.prediction_type))
  end
  if c.rescale_betas_zero_snr then return nil, "rescale_betas_zero_snr is true, which is not supported" end
  if c.trained_betas then
    return schedules.Schedule("betas", {betas = c.trained_betas, steps = #c.trained_betas, prediction = prediction})
  end
  local name = betas[c.beta_schedule or "linear"]
  if not name then
    return nil, ("beta_schedule is %s, expected linear, scaled_linear or squaredcos_cap_v2"):format(
      tostring(c.beta_schedule))
  end
  local o = {steps = steps, prediction = prediction}
  if name ~= "cosine" then o.beta_start, o.beta_end = c.beta_start or 1e-4, c.beta_end or 0.02 end
  return schedules.Schedule(name, o)
end

--- The options of the preconditioning (diffusion.EDM) that a configuration asks for, or nil.
function M.preconditioning(c)
  if not tostring(c._class_name or ""):find "^EDM" or not c.sigma_data then return nil end
  return {sigma_data = c.sigma_data, prediction = predictions[c.prediction_type or "epsilon"]}
end

-- β at the whole time t (from 0) of a tabulated schedule, from ᾱ = 1/(1 + e^(−2λ)).
local function beta_at(s, t)
  local function alpha_bar(i) return i < 0 and 1 or 1 / (1 + math.exp(-2 * s.lambdas[i + 1])) end
  return 1 - alpha_bar(t) / alpha_bar(t - 1)
end

-- To twelve digits: β comes out of a quotient near 1.
local function rounded(v) return tonumber(("%.9g"):format(v)) end

--- The configuration of a Schedule (a table is given back as it is), for a network with the preconditioning `edm` or
--- none.
function M.write(s, edm)
  if not schedules.is_schedule(s) then
    if type(s) ~= "table" then
      message.raise("diffusion.save: the schedule is a %s, expected a Schedule or a table", type(s))
    end
    return s
  end
  if edm and s.kind ~= "ve" then
    message.raise("diffusion.save: the model is a diffusion.EDM, expected a schedule \"edm\", got %q", s.name)
  end
  if s.kind == "flow" then
    return {_class_name = "FlowMatchEulerDiscreteScheduler", num_train_timesteps = s.steps, shift = s.shift}
  elseif s.kind == "ve" then
    return {
      _class_name = "EDMEulerScheduler", sigma_min = math.exp(4 * s.first), sigma_max = math.exp(4 * s.last),
      sigma_schedule = s.spacing, sigma_data = edm and edm.sigma_data or nil,
      prediction_type = edm and prediction_names[edm.prediction] or nil,
    }
  elseif not s.lambdas then
    message.raise("diffusion.save: schedule %q has no form in diffusers", s.name)
  end
  local c = {
    _class_name = "DDIMScheduler", num_train_timesteps = #s.lambdas, clip_sample = false, set_alpha_to_one = false,
    prediction_type = prediction_names[s.prediction], timestep_spacing = "trailing",
  }
  if beta_names[s.name] then
    c.beta_schedule = beta_names[s.name]
    if s.name ~= "cosine" then
      c.beta_start, c.beta_end = rounded(beta_at(s, 0)), rounded(beta_at(s, #s.lambdas - 1))
    end
  else
    c.trained_betas = {}
    for t = 0, #s.lambdas - 1 do c.trained_betas[t + 1] = rounded(beta_at(s, t)) end
  end
  return c
end

return M
