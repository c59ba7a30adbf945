-- tide.diffusion: schedules, samplers, gradients through samplers.

return {
  title = "tide.diffusion",
  text = "x_t = α·x0 + σ·ε. A model is a function model(x, t, condition) that gives a prediction of x's shape: of "
    .. "\"epsilon\" (ε), \"x0\", \"v\" (α·ε − σ·x0) or \"flow\" (ε − x0). t is a 0-d tensor with the network's "
    .. "time while sampling, and may have one time for each of the batch while training. λ = log(α/σ), σ̂ = σ/α.",

  {
    title = "Schedules",
    {"diffusion.Schedule", "name: string, opts: options? -> noise_schedule",
      "A noise schedule: \"linear\" (DDPM), \"scaled_linear\" (Stable Diffusion), \"cosine\", \"vp\" (the linear "
        .. "one as a continuous function), \"betas\" (your own), \"flow\" (rectified flow), \"edm\" or \"karras\" "
        .. "(α = 1, Karras' steps), \"exponential\" (α = 1, log-uniform steps).",
      options = [[
steps: integer = 1000 | times of training; networks see 0 to steps − 1 (flow: 0 to steps, edm: ¼·log σ)
beta_start: number? | of linear (1e-4), scaled_linear (0.00085), vp (0.1)
beta_end: number? | of linear (0.02), scaled_linear (0.012), vp (20)
betas: number[]? | of "betas"
sigma_min: number? | of edm, 0.002
sigma_max: number? | of edm, 80
shift: number = 1 | of flow: grids use k·σ/(1 + (k−1)·σ)
prediction: string? | what networks on this schedule predict, "epsilon", on a flow "flow"]],
      fields = [[
name: string | as given
kind: string | "vp" (α² + σ² = 1), "flow" (α + σ = 1) or "ve" (α = 1)
first: number | the time of the least noise
last: number | the time of the most noise
prediction: string | as given]],
      source = "Ho et al. 2020; Rombach et al. 2022; Nichol and Dhariwal 2021; Song et al. 2021; Liu et al. 2023; "
        .. "Karras et al. 2022.",
      example = [[
local s = diffusion.Schedule "scaled_linear"
assert(math.abs(s:alpha(999) ^ 2 - 0.0046601) < 1e-7)]]},
    {"diffusion.is_schedule", "x: any -> boolean", "Is x a noise schedule?"},
    {"NoiseSchedule:alpha", "t: operand, dtype: dtype? -> operand",
      "α at a time, or at every time of a tensor (as a tensor of its shape).",
      example = "diffusion.Schedule(\"flow\"):alpha(250) --> 0.75"},
    {"NoiseSchedule:sigma", "t: operand, dtype: dtype? -> operand", "σ at a time or at the times of a tensor."},
    {"NoiseSchedule:lambda", "t: operand, dtype: dtype? -> operand", "λ = log(α/σ), half the log-SNR."},
    {"NoiseSchedule:ratio", "t: operand, dtype: dtype? -> operand", "σ̂ = σ/α."},
    {"NoiseSchedule:time", "lambda: number -> number", "The time with this λ."},
    {"NoiseSchedule:node", "t: number -> table", "{t, alpha, sigma, lambda, ratio} at a time."},
    {"NoiseSchedule:node_at", "lambda: number -> table",
      "The same at a λ; beyond the ends of training the time is that of the end."},
    {"NoiseSchedule:add_noise", "x0: tensor, noise: tensor, t: operand -> tensor",
      "α·x0 + σ·noise at a time, or at one time for each of the batch."},
    {"NoiseSchedule:target", "x0: tensor, noise: tensor, t: operand, kind: string? -> tensor",
      "What a network that predicts `kind` should give at add_noise(x0, noise, t)."},
    {"NoiseSchedule:convert", "p: tensor, x: tensor, t: operand, from: string, to: string -> tensor",
      "A prediction at (x, t) of one kind as one of another.",
      example = [[
local s, x, p = diffusion.Schedule "linear", tide.randn(2, 3), tide.randn(2, 3)
local v = s:convert(p, x, 500, "epsilon", "v")
assert(tide.allclose(s:convert(v, x, 500, "v", "epsilon"), p, 1e-4, 1e-5))]]},
    {"NoiseSchedule:noise", "sizes: sizes, opts: options? -> tensor",
      "Where sampling starts: normal noise with the standard deviation of x at the last time.",
      options = "generator: generator? | the default one\ndtype: dtype = float32 | of the result"},
    {"NoiseSchedule:nodes", "opts: options? -> table[]",
      "The points a sampler of N steps walks on, from noise to data: N + 1 tables as of node; a last one without "
        .. "noise has no time.",
      options = [[
steps: integer = 50 | N
spacing: string? | "trailing" (the default but for edm), "leading", "linspace" in time; "karras", "exponential" (also
  called "logsnr") in σ̂
final: string = "zero" | ends without noise; "min": at the first time of training; "none": at the last point of the
  spacing, which then has N + 1
timesteps: number[]? | times of your own, descending
sigmas: number[]? | σ̂ of your own, descending
offset: number = 0 | of leading
rho: number = 7 | of karras
sigma_min: number? | of karras and exponential, as trained
sigma_max: number? | of karras and exponential, as trained]],
      example = "#diffusion.Schedule(\"linear\"):nodes {steps = 20} --> 21"},
    {"NoiseSchedule:timesteps", "opts: options? -> number[]", "The times of nodes(opts).",
      options = "steps: integer = 50 | and the other options of nodes",
      example = "diffusion.Schedule(\"linear\"):timesteps({steps = 4})[1] --> 999"},
  },

  {
    title = "Sampling",
    {"diffusion.sample", "model: function, x_T: tensor, opts: options? -> sample",
      "Goes from noise x_T to x0. Gradients reach x_T, the noises, the condition, the negative condition, the "
        .. "guidance scale and every parameter that the model closes over, by the mode `grad`. A model that is a "
        .. "module runs as captured programs; a function runs as it is, unless it is one of tide.capture. Of a network "
        .. "that gives twice as many channels as it takes (a learned variance) the first half is taken.",
      options = [[
schedule: string|noise_schedule = "linear" | see diffusion.Schedule
prediction: string? | of the model; the schedule's by default
sampler: string = "ddim" | see diffusion.samplers
steps: integer = 50 | and spacing, final, timesteps, sigmas, offset, rho, sigma_min, sigma_max as in NoiseSchedule:nodes
strength: number = 1 | less than 1 begins at a later step, for an image to which noise was added
condition: any? | given to the model
negative: any? | the condition to be guided away from
guidance: number|tensor? | classifier-free: negative + guidance·(condition − negative); 7.5 with a negative,
  else 1 (off)
rescale: number = 0 | share of the guided prediction that gets the spread of the conditional one
classifier: function? | classifier(x, t) → log-probabilities, for classifier guidance
classifier_scale: number = 1 | of its gradient
clip: number? | x0 is limited to ±clip in every step
grad: string = "discrete" | exact, the latents are kept; "reversible": exact, latents are computed back (bdia, o_belm,
  edict, mf); "full": everything on the tape; "adjoint": AdjointDPM's, "adjoint_2m": AdjointDEIS-2M's, both for
  comparison; "none"
checkpoint: integer? | with "discrete": keeps the latents of every k-th step only
truncated: integer? | with "discrete": gradients through the last k steps only
wrt: tensor[]? | of the leaves that the model closes over, only these get gradients
noise: generator|tensor[]? | of samplers that inject noise; the default generator
latents: boolean = false | also give the states, stacked along a first dim, with gradients
callback: function? | callback(step, steps, node, x) after every step; further options are the sampler's own]],
      returns = "A table with the fields x0, latents, nodes, stats, sampler, schedule and grad.",
      errors = "The model's result has another shape or type than x; a value is not finite (with step, t and σ); "
        .. "grad = \"reversible\" would amplify rounding too much; an evaluation depends on a parameter that the "
        .. "first and the last do not (name it in wrt).",
      note = "Gradients are exact for the steps taken but with the two adjoints. The model must give the same again "
        .. "for the same arguments; dropout keeps its masks by itself.",
      example = [[
local s = diffusion.Schedule "linear"
local function model(x, t) return x * s:sigma(t) end    -- exact where the data are standard normal
local x_T = s:noise({2, 3}):requires_grad()
local out = diffusion.sample(model, x_T, {schedule = s, steps = 10, sampler = "ddim"})
out.x0:sum():backward()
out.stats.nfe --> 10]]},
    {"Sample:reconstruct", "-> tensor",
      "x_T computed back from the end, of a sample made with grad = \"reversible\"."},
    {"Sample.stats", "table",
      "nfe (evaluations), calls (of the network; two an evaluation with guidance), nfe_b (backward so far), "
        .. "bytes_kept (latents kept for the gradient), steps."},
    {"diffusion.samplers", "table",
      "The samplers by name: {name, source, order, options}. The options are given to diffusion.sample with their "
        .. "defaults here. ddim, dpm_solver_1/2/3, dpm_solver_fast, dpm_solver_1_sde, dpmpp_1/2s/2m/3m, "
        .. "dpmpp_2m_sde, dpmpp_3m_sde, "
        .. "deis, lms, plms, unip, unipc, euler, heun, dpm2, euler_a, dpm2_a, dpmpp_2s_a, flow_euler, flow_midpoint, "
        .. "flow_heun; reversible: bdia, o_belm, edict, mf; \"ode\": AdjointDPM's form with any method of tide.ode.",
      note = "dpm_solver_fast takes `steps` as the evaluations it may spend: ⌊steps/3⌋ + 1 steps of order 3, the last "
        .. "one or two of less; spacing \"logsnr\" is the one it was made for. dpmpp_3m is of order 3; "
        .. "dpmpp_3m_released, of order 2, is the formula of the released codes. `start` is "
        .. "the order of the one-step method that makes a multistep method's first points; 1 limits the order to 2.",
      example = "diffusion.samplers.ddim.order --> 1"},
  },
}
