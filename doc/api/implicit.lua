-- tide.implicit: HomoODE.

return {
  title = "tide.implicit",
  text = "HomoODE solves an equilibrium problem as an ODE: the features x = stem(image) are a condition of "
    .. "the field F(z; x), every solve starts from one point that all images share, and z(1) is read as the "
    .. "equilibrium. Ding, Cui, Wang, Shi, NeurIPS 2023, arXiv 2310.09583; the architecture is that of the "
    .. "authors' released code.",

  {
    title = "The model",
    {"implicit.HomoODE", "opts: options? -> module", "Images N×H×W×inputs → logits N×classes.",
      options = [[
kind: string = "learned" | z' = F(z; x), as released; "residual": z' = F(z; x) − z, whose rest points are the
  equilibria z = F(z; x)
inputs: integer = 3 | channels of the images
channels: integer = 64 | of features and state
classes: integer = 10 | logits
groups: integer = 32 | of every group norm; divides channels
stem_stride: integer = 1 | of the stem's first convolution; the second has 2
head_width: integer = 256 | of the head's 1×1 convolution
dropout: number = 0 | of channels in the field, one mask for a whole solve
point: string = "regress" | see implicit.SharedPoint
point_lr: number = 0.02 | of its own steps
point_every: integer = 20 | calls between them
horizon: number = 1 | the end time
method: string = "dopri5_shampine" | see ode.methods
controller: string|table = "torchdiffeq" | see ode.controllers
rtol: number = 1e-3 | relative tolerance
atol: number = 1e-3 | absolute tolerance
step_size: number? | for fixed steps
grad: string = "discrete" | "adjoint", or "frozen": what the released adjoint computes,
  wrong, for comparison only
adjoint_norm: string = "rms" | or "seminorm"]],
      fields = [[
endpoint: tensor? | z(horizon) of the last call, detached
stats: table? | of the last solve, see Solution.stats
stem: module | implicit.Stem
field: module | implicit.Field
head: module | implicit.Head
point: module | implicit.SharedPoint]],
      note = "The last step lands on the horizon, where the released code interpolates.",
      example = [[
local model = implicit.HomoODE {inputs = 1, channels = 8, groups = 4, head_width = 16}
local logits = model(tide.rand(2, 8, 8, 1))
nn.cross_entropy(logits, tide.tensor({3, 7}, "int64")):backward()
model.point:update(model.endpoint)
logits.shape[2] --> 10]]},
    {"implicit.HomoODE:solve", "x: tensor, t: numbers? -> solution",
      "The solve from the shared point under the condition x (features), at times t.",
      args = {t = "{0, horizon} by default"},
      example = [[
local model = implicit.HomoODE {inputs = 1, channels = 8, groups = 4, head_width = 16}
model:solve(model.stem(tide.rand(2, 8, 8, 1)), {0, 0.5, 1}).ys.shape[1] --> 3]]},
    {"implicit.HomoODE:unrest", "z: tensor, x: tensor -> number, number?",
      "How far z is from rest under the condition x: ‖z'‖/‖z‖, and for the kind "
        .. "\"residual\" also ‖z'‖/‖F(z; x)‖."},
    {"implicit.HomoODE:trained_parameters", "-> tensor[]",
      "The parameters that the classification loss trains: all but the shared point's, which belong to it "
        .. "in the mode \"joint\" only."},
    {"implicit.configs", "table",
      "The hyper-parameters of the authors' scripts: cifar10, cifar100, tiny_imagenet; model holds "
        .. "HomoODE's options, the rest is the training.",
      example = "implicit.HomoODE(implicit.configs.cifar10.model):count()"},
  },

  {
    title = "Its parts",
    {"implicit.Stem", "inputs: integer, channels: integer, opts: options? -> module",
      "Two 3×3 convolutions with batch norm and relu: N×H×W×inputs → N×H/(2·stride)×W/(2·stride)×channels.",
      options = "stride: integer = 1 | of the first; the second has 2"},
    {"implicit.Field", "channels: integer, opts: options? -> module",
      "F(z; x) = GN₂(drop(conv₂(relu(GN₁(conv₁ z)) + x))), with 3×3 convolutions; z and x are N×H×W×C.",
      options = "groups: integer = 32 | of both norms\ndropout: number = 0 | of channels, chosen once for a "
        .. "whole solve",
      example = "implicit.Field(8, {groups = 4})(tide.ones(1, 4, 4, 8), tide.ones(1, 4, 4, 8)).shape[4] --> "
        .. "8"},
    {"implicit.Head", "channels: integer, classes: integer, opts: options? -> module",
      "GN, relu, 1×1 convolution to `width`, batch norm, relu, mean over the image, linear: N×H×W×channels "
        .. "→ N×classes.",
      options = "groups: integer = 32 | of the norm\nwidth: integer = 256 | channels after the convolution"},
    {"implicit.SharedPoint", "channels: integer, opts: options? -> module",
      "One number per channel from which every solve starts.",
      options = [[
mode: string = "regress" | "zero"; "pattern": −1 and +1 alternating; "regress": steps towards the
  batch's endpoints, as released; "joint": trained by the loss through the solve; "ema": running mean of the
  endpoints
groups: integer = 32 | of its group norm (regress, joint)
lr: number = 0.02 | of a regression step
every: integer = 20 | calls of update between steps
decay: number = 0.99 | of the running mean]],
      example = "implicit.SharedPoint(4, {mode = \"pattern\", groups = 2})() --> [-1.,  1., -1.,  1.]  (4 "
        .. "float32)"},
    {"implicit.SharedPoint:update", "endpoint: tensor -> number?",
      "Learns from the endpoints z(1) of a batch; once a training iteration. Gives the regression loss when "
        .. "a step was taken."},
    {"implicit.SharedPoint:start", "features: tensor -> tensor",
      "The start of a solve, of the features' shape."},
    {"implicit.SharedPoint:pattern", "-> tensor", "−1, +1, −1, …"},
  },
}
