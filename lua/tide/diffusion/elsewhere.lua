-- What diffusers, k-diffusion's users and stable-diffusion.cpp call things that are here under another name: for the
-- messages about unknown names.

local M = {}

--- Options of a pipeline's call.
M.options = {
  num_inference_steps = "steps", sampling_steps = "steps", guidance_scale = "guidance", cfg_scale = "guidance",
  guidance_rescale = "rescale", prompt_embeds = "condition", encoder_hidden_states = "condition",
  class_labels = "condition", negative_prompt_embeds = "negative", uncond = "negative", prediction_type = "prediction",
  timestep_spacing = "spacing", generator = "noise = tide.generator(seed)", seed = "noise = tide.generator(seed)",
  callback_on_step_end = "callback", denoising_strength = "strength", clip_sample = "clip = 1",
  scheduler = "schedule and sampler",
}

--- Samplers, in lower case without spaces, "_", "-" and a trailing "scheduler", + as p.
M.samplers = {
  ddpm = "ddim with eta = 1", pndm = "plms", eulerdiscrete = "euler", eulera = "euler_a", eulerancestral = "euler_a",
  eulerancestraldiscrete = "euler_a", heundiscrete = "heun", lmsdiscrete = "lms", kdpm2discrete = "dpm2",
  kdpm2ancestraldiscrete = "dpm2_a", dpm2a = "dpm2_a", dpmsolvermultistep = "dpmpp_2m", dpmpp2m = "dpmpp_2m",
  dpmsolversinglestep = "dpmpp_2s", dpmpp2mkarras = "dpmpp_2m with spacing = \"karras\"", dpmpp2msde = "dpmpp_2m_sde",
  dpmpp3m = "dpmpp_3m", dpmpp3msde = "dpmpp_3m_sde", dpmpp2s = "dpmpp_2s", dpmpp2sa = "dpmpp_2s_a",
  dpmpp2sancestral = "dpmpp_2s_a", dpmsolversde = "dpm_solver_1_sde", deismultistep = "deis",
  unipcmultistep = "unipc", flowmatcheulerdiscrete = "flow_euler", flowmatchheundiscrete = "flow_heun",
}

--- The name here of a sampler that has another one elsewhere, or nil.
function M.sampler(name)
  if type(name) ~= "string" then return nil end
  return M.samplers[(name:lower():gsub("%+", "p"):gsub("[%s_%-]", ""):gsub("scheduler$", ""))]
end

return M
