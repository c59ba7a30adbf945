-- tide.optim: optimisers, schedules, bounds for gradients, averages of weights.

local adam = [[
lr: number = 1e-3 | the learning rate
betas: number[] = {0.9, 0.999} | of the two averages
eps: number = 1e-8 | added to the root
weight_decay: number = %s]]

return {
  title = "tide.optim",
  text = "params is a table of tensors, or of groups {params = …, lr = …, …} with options of their own. A "
    .. "step is one fused pass over each parameter; parameters without a gradient are passed over.",

  {
    title = "Optimisers",
    {"optim.SGD", "params: tensor[]|table[], opts: options? -> optimiser",
      "v ← momentum·v + (1 − dampening)·g, at first v = g; p ← p − lr·v, or with nesterov p − lr·(g + "
        .. "momentum·v).",
      options = [[
lr: number = 0.01 | the learning rate
momentum: number = 0 | how much of the velocity stays
dampening: number = 0 | how little of the gradient enters it
nesterov: boolean = false | look ahead; needs a momentum and no dampening
weight_decay: number = 0 | times p, added to g]],
      source = "Sutskever et al. 2013, with the rate outside of the velocity.",
      example = [[
local p = tide.ones(1):requires_grad()
local opt = optim.SGD({p}, {lr = 0.5})
tide.sum(p * 2):backward()
opt:step():zero_grad()
p:detach() --> [0.]  (1 float32)]]},
    {"optim.Adam", "params: tensor[]|table[], opts: options? -> optimiser",
      "p ← p − lr·m̂/(√v̂ + eps), m and v averages of g and g², both corrected for their start at 0.",
      options = adam:format "0 | times p, added to g", source = "Kingma and Ba 2015.",
      example = "optim.Adam(nn.Linear(2, 3):parameters(), {lr = 1e-2})"},
    {"optim.AdamW", "params: tensor[]|table[], opts: options? -> optimiser",
      "Adam after p ← (1 − lr·weight_decay)·p.",
      options = adam:format "0.01 | apart from the gradient", source = "Loshchilov and Hutter 2019."},
    {"optim.LBFGS", "params: tensor[], opts: options? -> optimiser",
      "Quasi-Newton steps from the last changes of the gradient, with a line search; opt:step(closure) "
        .. "makes up to `iterations` of them.",
      options = [[
lr: number = 1 | the first step length tried
iterations: integer = 20 | of one call of step
history: integer = 10 | changes remembered
tolerance_grad: number = 1e-7 | stop at this largest component of the gradient
tolerance_change: number = 1e-9 | stop when a step changes the loss no more than this
line_search: string = "strong_wolfe" | or "backtracking"
evaluations: integer = 25 | bounds each search]],
      note = "The closure computes the loss of the whole problem, calls backward and returns it. opt.loss, "
        .. "opt.evaluations and opt.steps tell what was done.",
      source = "Nocedal and Wright, Numerical Optimization (2006), algorithms 7.4, 3.5, 3.6.",
      example = [[
local p = tide.zeros(2):requires_grad()
local opt = optim.LBFGS({p})
opt:step(function()
  local loss = (p - tide.tensor {1, 2}):square():sum()
  loss:backward()
  return loss
end)
assert(opt.loss < 1e-6)]]},
    {"Optimiser:step", "closure: function? -> optimiser",
      "One step from the gradients at hand; a closure is called first, and what it returns becomes "
        .. "opt.loss."},
    {"Optimiser:zero_grad", "-> optimiser", "Drops all gradients."},
    {"Optimiser:parameters", "-> tensor[]", "All parameters, group after group."},
    {"Optimiser:set_lr", "lr: number -> optimiser", "Sets the learning rate of every group."},
    {"Optimiser:state_dict", "-> table",
      "The state as a flat table of tensors, copied: \"state.3.m\", \"group.1.lr\".",
      example = "optim.Adam({tide.ones(2):requires_grad()}):state_dict()[\"group.1.lr\"]:item()"},
    {"Optimiser:load_state_dict", "state: table -> optimiser",
      "Takes the state of an optimiser of the same kind over the same parameters."},
  },

  {
    title = "Schedules",
    text = "A shape is a function (k, lr) → rate of the step number k = 0, 1, … and the rate the optimiser "
      .. "was made with; any function will do.",
    {"optim.Schedule", "opt: optimiser, shape: shape -> schedule",
      "Sets every group's rate for step 0 now, and for the next step at each sched:step().",
      example = [[
local opt = optim.SGD({tide.ones(1):requires_grad()}, {lr = 1})
local sched = optim.Schedule(opt, optim.warmup(1, optim.cosine {steps = 10}))
sched:step():rates()[1] --> 1]]},
    {"Schedule:step", "-> schedule", "On to the next step."},
    {"Schedule:rates", "-> number[]", "The rates now, group by group."},
    {"Schedule:state_dict", "-> table", "Where the schedule is, as tensors."},
    {"Schedule:load_state_dict", "state: table -> schedule", "Continues where state_dict was taken."},
    {"optim.constant", "-> shape", "The rate as it is."},
    {"optim.step_decay", "opts: options -> shape", "Times factor after every n steps.",
      options = "every: integer | n\nfactor: number = 0.1 | the factor",
      example = "optim.step_decay({every = 5})(5, 1) --> 0.1"},
    {"optim.multistep", "opts: options -> shape", "Times factor at each of the steps named.",
      options = "at: integer[] | the steps\nfactor: number = 0.1 | the factor",
      example = "optim.multistep({at = {2, 4}, factor = 0.5})(4, 1) --> 0.25"},
    {"optim.exponential", "opts: options -> shape", "Times factor after every step.",
      options = "factor: number | the factor",
      example = "optim.exponential({factor = 0.5})(2, 1) --> 0.25"},
    {"optim.cosine", "opts: options -> shape",
      "Half a cosine from the rate down to the minimum at step n, and that from there on.",
      options = "steps: integer | n\nminimum: number = 0 | the last rate",
      source = "Loshchilov and Hutter 2017, without restarts.",
      example = "optim.cosine({steps = 10})(5, 1)"},
    {"optim.one_cycle", "opts: options -> shape",
      "Half a cosine up from lr/start to lr, then one down to lr/start/finish at the last of n steps.",
      options = "steps: integer | n\nrise: number = 0.3 | fraction of the steps that rise\nstart: number = "
        .. "25 | divides lr at first\nfinish: number = 1e4 | divides the first rate at the end",
      source = "Smith and Topin 2018.",
      example = "optim.one_cycle({steps = 100})(0, 1) --> 0.04"},
    {"optim.warmup", "n: integer, shape: shape? -> shape",
      "n steps in a line up to where the shape starts, then the shape (constant by default).",
      example = "optim.warmup(3)(0, 1) --> 0.25"},
  },

  {
    title = "Gradients and weights",
    {"optim.clip_grad_norm", "params: tensor[], max: number -> number",
      "Scales all gradients together so that their common Euclidean norm is at most max; returns the norm "
        .. "before.",
      note = "A norm that is not finite leaves them as they are: test the result to skip such a step.",
      source = "Pascanu et al. 2013.",
      example = [[
local p = tide.ones(2):requires_grad()
tide.sum(p * tide.tensor {3, 4}):backward()
optim.clip_grad_norm({p}, 1) --> 5
assert(math.abs(p.grad:norm():item() - 1) < 1e-6)]]},
    {"optim.clip_grad_value", "params: tensor[], max: number",
      "Limits every element of every gradient to [−max, max]."},
    {"optim.EMA", "params: tensor[], decay: number = 0.999 -> ema",
      "Averages of the parameters, at first their values.",
      example = [[
local p = tide.ones(1):requires_grad()
local ema = optim.EMA({p}, 0.5)
tide.no_grad(function() p:fill_(3) end)
ema:update():with(function() return p:item() end) --> 2]]},
    {"EMA:update", "-> ema", "average ← decay·average + (1 − decay)·p; after every step."},
    {"EMA:apply", "-> ema", "The parameters take the averages' values."},
    {"EMA:restore", "-> ema", "The parameters take the values they had before apply."},
    {"EMA:with", "f: function, ...: any -> ...any", "f(…) while the parameters have the averages' values."},
    {"EMA:state_dict", "-> table", "The averages, \"1\", \"2\", … in the order of the parameters."},
    {"EMA:load_state_dict", "state: table -> ema", "Takes such averages."},
  },
}
