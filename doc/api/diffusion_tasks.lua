-- tide.diffusion: what gradients through samplers are used for.

local sampling = "sampling: table? | options of diffusion.sample"

return {
  title = "tide.diffusion: tasks",
  text = "All of these are loops around diffusion.sample and its gradients that a script could as well write itself; "
    .. "they check what is easily got wrong.",

  {
    title = "Optimising and attacking",
    {"diffusion.optimise", "model: function, x_T: tensor, metric: function, opts: options? -> table",
      "Changes x_T, or the leaves in `targets`, in place so that metric(x0, out), a tensor of one element, becomes "
        .. "small.",
      options = [[
targets: tensor[]? | what is changed: x_T by default; a condition, adapters, weights
iterations: integer = 30 | steps of the optimiser
lr: number = 0.05 | its rate
optimiser: string|function = "adam" | "adamw", "sgd", or a function of the targets that makes one
keep_norm: boolean = true | every noise is brought back to the norm it began with
shell: number = 0 | weight of minus the log-density of |x_T|², instead of a kept norm
clip_grad: number? | greatest norm of the gradient
callback: function? | callback(iteration, iterations, loss, out)
]] .. sampling,
      returns = "x0, out and losses (one more than iterations, the last of the result), before and after.",
      errors = "The metric is no number, not finite, or does not depend on a target through the sampler.",
      example = [[
local s = diffusion.Schedule "linear"
local function model(x, t) return x * s:sigma(t) end
local x = s:noise({1, 4}, {generator = tide.generator(1)}):requires_grad()
local r = diffusion.optimise(model, x, function(x0) return (x0[{1, 1}] - 1) ^ 2 end,
  {iterations = 20, lr = 0.1, sampling = {schedule = s, steps = 5}})
assert(r.after < r.before)]]},
    {"diffusion.attack", "model: function, x_T: tensor, metric: function, opts: options? -> table",
      "Looks, from a batch of noises, for others within a bound whose samples make metric(x0), one number for each "
        .. "of the batch, large. x_T is not changed.",
      options = [[
bound: number = 0.1 | greatest distance from x_T
norm: string = "max" | of the distance, over elements, or "l2"
step: number = 0.02 | of every element along the gradient's sign ("max"), or of the whole ("l2")
iterations: integer = 30 | steps
success: function? | success(x0) → N of 0 or 1; noises that succeeded are left alone
callback: function? | callback(iteration, iterations, loss, found)
]] .. sampling,
      returns = "x and x0 (of the last step, sampled anew), found, rate (share that succeeded), distance (Euclidean) "
        .. "and largest (greatest element) for each of the batch, iterations.",
      note = "The released attack of AdjointDPM clamps against the tensor that it moves, which bounds nothing; this "
        .. "one keeps a copy."},
  },

  {
    title = "Guidance on the way",
    {"diffusion.guide", "model: function, x_T: tensor, loss: function, opts: options? -> table",
      "A DDIM sample whose states are moved against the gradient of loss(x0), taken through a short sampler from each "
        .. "state to its end (symplectic adjoint guidance).",
      options = [[
schedule: string|noise_schedule = "linear" | as in diffusion.sample
steps: integer = 50 | of the sample
spacing: string? | of the sample
substeps: integer = 4 | of the short sampler
subsampler: string = "ddim" | its name
from: integer? | first step that is guided; after 30 % of them
to: integer? | last one; at 70 %
strength: number = 1 | a push is as long as the sampler's own step, times this
repeats: integer = 1 | times that a guided step is taken, with fresh noise between
noise: generator? | for repeats
callback: function? | callback(step, steps, node, x, loss), loss nil where a step was not guided
]] .. sampling .. ", such as condition, negative, guidance, prediction",
      returns = "x0 and losses, one for each push.", source = "Pan et al. 2023, arXiv 2312.12030."},
    {"diffusion.gram", "features: tensor -> tensor",
      "Products of channels, averaged over positions: N×C×C of N×H×W×C or N×L×C. Differences of these measure style.",
      source = "Gatys, Ecker, Bethge 2016.",
      example = "diffusion.gram(tide.ones(2, 4, 4, 3)).shape[3] --> 3"},
  },
}
