-- tide.nn: modules, layers, losses, initial values.

local weights = "\ndtype: dtype = \"float32\" | of the parameters\ngenerator: generator? | for the first "
  .. "values"
local geometry = [[
stride: pair = 1 | one number or {vertical, horizontal}, as the next two
padding: pair = 0 | zeros around the image%s
dilation: pair = 1 | distance between the weights
groups: integer = 1 | channels are split into so many independent convolutions
bias: boolean = true | a number added to each channel]] .. weights
local reduction = "reduction: string = \"mean\" | \"mean\", \"sum\" or \"none\""
local affine = "eps: number = 1e-5 | added to the variance\naffine: boolean = true | weight 1 and bias 0 "
  .. "for each channel, learnt\ndtype: dtype = \"float32\" | of the parameters"
local pool = "stride: pair? | the kernel's size by default\npadding: pair = 0 | around the image"
local kaiming = [[
a: number = 0 | slope of leaky_relu
mode: string = "fan_in" | or "fan_out"
nonlinearity: string = "leaky_relu" | see nn.init.gain
generator: generator? | a source of its own]]
local gain = "gain: number = 1 | a factor\ngenerator: generator? | a source of its own"

-- An activation: name, sentence.
local function activation(name, sentence, example)
  return {"nn." .. name, "-> module", sentence,
  example = example or ("nn.%s()(tide.zeros(3)).numel --> 3"):format(name)}
end

-- The module of a loss function.
local function loss(name, f)
  return {"nn." .. name, "opts: table? -> module",
  ("nn.%s as a module: the options now, prediction and target later."):format(f)}
end

return {
  title = "tide.nn",
  text = "A module is a plain table that can be called. A tensor field that requires a gradient is a "
    .. "parameter, one that does not is a buffer; both are found by walking the table, numbers first, then "
    .. "names in order, without those that begin with \"_\". Images are N×H×W×C; classes are numbered from "
    .. "1.",

  {
    title = "Modules",
    text = "The functions from nn.parameters on are also methods of every module, m:parameters(), and take "
      .. "plain tables of modules too: nn.parameters {encoder, decoder}. Those that change m return it.",
    {"nn.Module", "what: string|table, parent: table? -> module",
      "With a name, a class whose init sets the fields and whose forward computes; with a table, one module.",
      args = {parent = "a class to inherit from"},
      note = "describe(self), if there is one, gives what tostring shows in parentheses.",
      example = [[
local Block = nn.Module "Block"
function Block:init(n) self.inner = nn.Linear(n, n) end
function Block:forward(x) return x + self.inner(x):relu() end
Block(4)(tide.ones(2, 4)).shape[2] --> 4]]},
    {"nn.Parameter", "t: tensor -> tensor", "A detached tensor that a module will train.",
      example = "nn.Parameter(tide.zeros(3)).is_leaf --> true"},
    {"nn.is_module", "x: any -> boolean", "Is x a module?", example = "nn.is_module(nn.Tanh()) --> true"},
    {"nn.parameters", "m: module -> tensor[]", "The parameters in a fixed order, each once.",
      example = "#nn.Linear(2, 3):parameters() --> 2"},
    {"nn.buffers", "m: module -> tensor[]",
      "The tensors that are no parameters, such as running statistics."},
    {"nn.named_parameters", "m: module -> function",
      "An iterator over name, parameter; a name is a path such as \"stem.1.weight\".",
      example = "for name, p in nn.Linear(2, 3):named_parameters() do assert(name and p) end"},
    {"nn.named_buffers", "m: module -> function", "An iterator over name, buffer."},
    {"nn.named_modules", "m: module -> function",
      "An iterator over name, module: children before parents, m itself last as \"\"."},
    {"nn.count", "m: module -> integer", "The number of elements of all parameters.",
      example = "nn.Linear(2, 3):count() --> 9"},
    {"nn.apply", "m: module, f: function -> module", "Calls f(module) for every module inside, then for m."},
    {"nn.train", "m: module, on: boolean = true -> module",
      "Training mode: dropout drops, batch norm uses the batch."},
    {"nn.eval", "m: module -> module", "Evaluation mode.",
      example = "nn.Dropout(0.5):eval()(tide.ones(2)) --> [1., 1.]  (2 float32)"},
    {"nn.zero_grad", "m: module -> module", "Drops the gradients of all parameters."},
    {"nn.freeze", "m: module -> module", "Makes the parameters constants, until unfreeze.",
      example = "#nn.Linear(2, 3):freeze():parameters() --> 0"},
    {"nn.unfreeze", "m: module -> module", "Makes parameters again of what freeze made constant."},
    {"nn.to", "m: module, dtype: dtype -> module",
      "Real parameters and buffers become float32 or float64: new tensors, so make optimisers afterwards."},
    {"nn.float", "m: module -> module", "nn.to(m, \"float32\")."},
    {"nn.double", "m: module -> module", "nn.to(m, \"float64\")."},
    {"nn.clone", "m: module -> module",
      "A copy with tensors of its own; what m shares inside itself, the copy shares too."},
    {"nn.state_dict", "m: module, opts: options? -> table",
      "Parameters and buffers by name, sharing memory with the module.",
      options = "copy: boolean = false | tensors of their own",
      example = "nn.Linear(2, 3):state_dict().weight.shape[2] --> 3"},
    {"nn.load_state_dict", "m: module, state: table, opts: options? -> module, table, table",
      "Copies values by name into the module's tensors; returns m and the missing and the unexpected names.",
      options = "strict: boolean = true | missing and unexpected names raise",
      errors = "A wrong shape, always; then nothing has been copied.",
      example = "nn.Linear(2, 3):load_state_dict(nn.Linear(2, 3):state_dict())"},
    {"nn.resample", "m: module -> module",
      "Every VariationalDropout inside draws a new mask at its next use."},
    {"nn.hold", "f: function -> function",
      "f with its randomness held: every call, now or when a gradient replays it, sees the same dropout "
        .. "masks.",
      note = "Solvers hold the fields they are given.",
      example = [[
local field = nn.hold(nn.Dropout(0.5))
tide.equal(field(tide.ones(8)), field(tide.ones(8))) --> true]]},
  },

  {
    title = "Layers with weights",
    {"nn.Linear", "inputs: integer, outputs: integer, opts: options? -> module",
      "y = x·weight + bias over the last dim of x.",
      options = "bias: boolean = true | add a bias" .. weights,
      fields = "weight: tensor | inputs×outputs, uniform in ±1/√inputs\nbias: tensor? | outputs, likewise",
      example = "nn.Linear(2, 3)(tide.ones(5, 2)).shape[2] --> 3"},
    {"nn.Conv2d", "inputs: integer, outputs: integer, kernel: pair, opts: options? -> module",
      "Convolution (cross-correlation) of N×H×W×inputs images.",
      options = geometry:format(", or \"same\" to keep the size (odd kernels, stride 1)"),
      fields = "weight: tensor | kh×kw×(inputs/groups)×outputs, uniform in ±1/√(kh·kw·inputs/groups)\nbias: "
        .. "tensor? | outputs, likewise",
      example = "nn.Conv2d(3, 8, 3, {padding = \"same\"})(tide.ones(1, 5, 5, 3)).shape[4] --> 8"},
    {"nn.ConvTranspose2d", "inputs: integer, outputs: integer, kernel: pair, opts: options? -> module",
      "The transpose of the convolution with the same options from `outputs` to `inputs` channels.",
      options = "output_padding: pair = 0 | rows and columns added at the end\n"
        .. geometry:format(" of that convolution"),
      fields = "weight: tensor | kh×kw×(outputs/groups)×inputs\nbias: tensor? | outputs",
      note = "A size n becomes (n − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1.",
      example = "nn.ConvTranspose2d(3, 8, 2, {stride = 2})(tide.ones(1, 5, 5, 3)).shape[2] --> 10"},
    {"nn.Embedding", "count: integer, size: integer, opts: options? -> module",
      "Row i of the weight for every element i (1 … count) of an int64 tensor; the result has one more dim.",
      options = weights:sub(2), fields = "weight: tensor | count×size, standard normal at first",
      example = "nn.Embedding(10, 4)(tide.tensor({1, 10}, \"int64\")).shape[2] --> 4"},
    {"nn.MultiheadAttention", "channels: integer, heads: integer, opts: options? -> module",
      "Attention with projections: m(x) within x (N×L×channels), m(x, context) to another sequence, m(x, "
        .. "context, {mask, causal}).",
      options = [[
context: integer? | channels of the other sequence; those of x by default
bias: boolean = true | of the projections
dropout: number = 0 | of the attention weights]] .. weights,
      fields = [[
query_weight: tensor | channels×channels
key_value_weight: tensor | context×(2·channels), keys first
out_weight: tensor | channels×channels]],
      note = "Masks are as in nn.attention, of shape L×S, N×L×S or N×heads×L×S.",
      source = "Vaswani et al. 2017.",
      example = "nn.MultiheadAttention(8, 2)(tide.randn(1, 5, 8), {causal = true}).shape[2] --> 5"},
    {"nn.attention", "q: tensor, k: tensor, v: tensor, opts: options? -> tensor",
      "softmax(q·kᵀ·scale + mask)·v over the last two dims: q …×L×D, k …×S×D, v …×S×E; the other dims "
        .. "broadcast.",
      options = [[
mask: tensor? | broadcasts to …×L×S: uint8 (1 takes part, 0 does not) or real (added to the scores)
causal: boolean = false | position i sees 1 … i
scale: number? | 1/√D by default
dropout: module? | for the weights]],
      returns = "…×L×E; a row whose mask excludes everything attends evenly.",
      source = "Vaswani et al. 2017.",
      example = "nn.attention(tide.randn(4, 8), tide.randn(6, 8), tide.randn(6, 3)).shape[2] --> 3"},
  },

  {
    title = "Normalisation",
    {"nn.GroupNorm", "groups: integer, channels: integer, opts: options? -> module",
      "Each sample's groups of channels get mean 0 and variance 1 over positions and channels, then "
        .. "weight·x + bias.",
      options = affine, fields = "weight: tensor? | channels\nbias: tensor? | channels",
      note = "norm(x, \"relu\", add) gives relu(norm(x)) + add in one pass; also silu, gelu, tanh, sigmoid, and nil "
        .. "for none of them; add may be absent.",
      source = "Wu and He 2018.",
      example = "nn.GroupNorm(4, 8)(tide.randn(2, 3, 3, 8)).shape[4] --> 8"},
    {"nn.LayerNorm", "channels: integer, opts: options? -> module",
      "Every position gets mean 0 and variance 1 over its channels (the last dim), then weight·x + bias.",
      options = affine, fields = "weight: tensor? | channels\nbias: tensor? | channels",
      source = "Ba et al. 2016.",
      example = "nn.LayerNorm(8)(tide.randn(2, 8)).shape[2] --> 8"},
    {"nn.BatchNorm2d", "channels: integer, opts: options? -> module",
      "Each channel gets mean 0 and variance 1 over batch and positions, in evaluation by the running "
        .. "statistics; then weight·x + bias.",
      options = affine .. "\nmomentum: number = 0.1 | with which the running statistics follow the batch's",
      fields = [[
weight: tensor? | channels
bias: tensor? | channels
running_mean: tensor | channels, a buffer
running_var: tensor | channels, unbiased, a buffer]],
      note = "norm(x, \"relu\", add) as for GroupNorm. Not for a field that a solver calls: its output would "
        .. "depend on the batch, and every evaluation would move the statistics.",
      source = "Ioffe and Szegedy 2015.",
      example = "nn.BatchNorm2d(8)(tide.randn(2, 3, 3, 8)).shape[4] --> 8"},
    {"nn.BatchNorm1d", "channels: integer, opts: table? -> module", "BatchNorm2d, which takes N×C too."},
  },

  {
    title = "Dropout",
    {"nn.Dropout", "p: number = 0.5, opts: options? -> module",
      "While training, elements become 0 with probability p and the others are divided by 1 − p.",
      options = "dims: integer[]|string? | one draw serves all positions along these dims; \"inner\": all "
        .. "but the first and the last\ngenerator: generator? | a source of its own",
      note = "Inside a held function (nn.hold, and every solver) one mask serves the whole pass.",
      source = "Srivastava et al. 2014.",
      example = "nn.Dropout(0.1)(tide.ones(4)).numel --> 4"},
    {"nn.Dropout2d", "p: number = 0.5, opts: options? -> module", "Dropout of whole channels of N×…×C.",
      source = "Tompson et al. 2015.",
      options = "generator: generator? | a source of its own"},
    {"nn.VariationalDropout", "p: number = 0.5, opts: options? -> module",
      "Channel dropout whose mask is kept: for a held pass, and elsewhere until resample() or an input of "
        .. "another size.",
      options = "dims: integer[]|string = \"inner\" | as Dropout's\ngenerator: generator? | a source of its "
        .. "own",
      source = "Gal and Ghahramani 2016.",
      example = [[
local drop = nn.VariationalDropout(0.5)
local x = tide.ones(1, 2, 2, 8)
tide.equal(drop(x), drop(x)) --> true]]},
    {"nn.VariationalDropout:resample", "x: tensor|integer[]? -> module",
      "Forgets the mask; with a tensor or sizes, draws the next one for it now."},
  },

  {
    title = "Containers and pooling",
    {"nn.Sequential", "...: module|function -> module",
      "Applies modules or functions one after the other; #s counts them, s[i] is one.",
      example = "nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))(tide.ones(3, 2)).shape[2] --> 1"},
    {"nn.Sequential:append", "f: module|function -> module", "Adds one at the end."},
    {"nn.Identity", "-> module", "Gives what it is given."},
    {"nn.Flatten", "first: dim = 2, last: dim = -1 -> module", "Dims first … last made one.",
      example = "nn.Flatten()(tide.ones(2, 3, 4)).shape[2] --> 12"},
    {"nn.MaxPool2d", "kernel: pair, opts: options? -> module",
      "The greatest element of each window; padding never wins.",
      options = pool, example = "nn.MaxPool2d(2)(tide.ones(1, 4, 4, 1)).shape[2] --> 2"},
    {"nn.AvgPool2d", "kernel: pair, opts: options? -> module",
      "The mean of each window, padding not counted.", options = pool,
      example = "nn.AvgPool2d(2)(tide.ones(1, 4, 4, 1)).shape[2] --> 2"},
    {"nn.AdaptiveAvgPool2d", "size: pair -> module",
      "Means over windows that cut the image into size[1]×size[2] parts."},
    {"nn.GlobalAvgPool", "-> module", "N×H×W×C → N×C: the mean of each channel.",
      example = "nn.GlobalAvgPool()(tide.ones(2, 4, 4, 3)).shape[2] --> 3"},
    {"nn.Upsample", "scale: pair, opts: options? -> module",
      "Resized images, by a factor or to a size: nn.Upsample {size = {h, w}}.",
      options = "size: pair? | instead of a scale\nmode: string = \"nearest\" | or \"bilinear\", which "
        .. "samples at pixel centres",
      example = "nn.Upsample(2, {mode = \"bilinear\"})(tide.ones(1, 4, 4, 1)).shape[2] --> 8"},
  },

  {
    title = "Activations",
    activation("ReLU", "max(x, 0)."), activation("ReLU6", "x limited to [0, 6]."),
    {"nn.LeakyReLU", "slope: number = 0.01 -> module", "x, times slope where it is negative.",
      example = "nn.LeakyReLU(0.1)(tide.tensor {-10}) --> [-1.]  (1 float32)"},
    {"nn.PReLU", "channels: integer = 1, opts: options? -> module",
      "LeakyReLU whose slopes, one for all or one a channel, are learnt.",
      options = "start: number = 0.25 | the first slope\ndtype: dtype = \"float32\" | of the slopes",
      source = "He et al. 2015."},
    {"nn.ELU", "alpha: number = 1 -> module", "x, or alpha·(eˣ − 1) where it is negative.",
      source = "Clevert et al. 2016."},
    activation("GELU", "x·Φ(x)."), activation("GELUTanh", "GELU's tanh approximation."), activation("SiLU",
      "x·sigmoid(x)."),
    activation("Mish", "x·tanh(softplus(x))."), activation("Softplus", "log(1 + eˣ)."), activation("Tanh",
      "Hyperbolic tangent."),
    activation("Hardtanh", "x limited to [−1, 1]."), activation("Sigmoid", "1/(1 + e⁻ˣ)."),
    activation("LogSigmoid", "log sigmoid(x)."), activation("Softsign", "x/(1 + |x|)."), activation("Sin",
      "sin x."),
    activation("Exp", "eˣ."),
    {"nn.Softmax", "dim: dim = -1 -> module", "eˣ/Σeˣ along a dim."},
    {"nn.LogSoftmax", "dim: dim = -1 -> module", "log softmax along a dim."},
  },

  {
    title = "Losses",
    text = "Each gives a 0-d tensor, or a tensor of losses with reduction \"none\". A prediction and a "
      .. "target of different shapes are an error, never broadcast.",
    {"nn.mse_loss", "x: tensor, target: operand, opts: options? -> tensor", "(x − target)².",
      options = reduction,
      example = "nn.mse_loss(tide.ones(4), tide.zeros(4)):item() --> 1"},
    {"nn.l1_loss", "x: tensor, target: operand, opts: options? -> tensor", "|x − target|.",
      options = reduction},
    {"nn.smooth_l1_loss", "x: tensor, target: operand, opts: options? -> tensor",
      "½·d²/beta where d = |x − target| is below beta, d − ½·beta beyond.",
      options = "beta: number = 1 | the knee\n" .. reduction, source = "Girshick 2015."},
    {"nn.huber_loss", "x: tensor, target: operand, opts: options? -> tensor",
      "½·d² where d = |x − target| is below delta, delta·(d − ½·delta) beyond.",
      options = "delta: number = 1 | the knee\n" .. reduction, source = "Huber 1964."},
    {"nn.cross_entropy", "logits: tensor, target: tensor, opts: options? -> tensor",
      "Cross-entropy of logits (…×classes) against int64 classes from 1 (…) or probabilities (…×classes).",
      options = [[
label_smoothing: number = 0 | ε: the target becomes (1 − ε)·target + ε/classes
weight: tensor? | one number a class; a mean over int64 classes divides by the targets' weights
]] .. reduction,
      source = "Label smoothing: Szegedy et al. 2016.",
      example = "nn.cross_entropy(tide.zeros(3, 10), tide.tensor({1, 5, 10}, \"int64\")):item()"},
    {"nn.nll_loss", "logp: tensor, target: tensor, opts: options? -> tensor",
      "Negative log likelihood of int64 classes under log-probabilities.",
      options = "weight: tensor? | one number a class\n" .. reduction},
    {"nn.bce_loss", "p: tensor, target: operand, opts: options? -> tensor",
      "Binary cross-entropy of probabilities; bce_with_logits is safer.",
      options = "weight: operand? | broadcast\n" .. reduction},
    {"nn.bce_with_logits", "x: tensor, target: operand, opts: options? -> tensor",
      "Binary cross-entropy of logits, stable for any size of them.",
      options = "weight: operand? | broadcast\npos_weight: operand? | factor of the positive term\n"
        .. reduction,
      example = "nn.bce_with_logits(tide.tensor {1000}, 1):item() --> 0"},
    {"nn.kl_div", "logp: tensor, target: tensor, opts: options? -> tensor",
      "Kullback–Leibler divergence Σ target·(log target − logp).",
      options = "log_target: boolean = false | the target holds logarithms\nreduction: string = "
        .. "\"batchmean\" | sum over the size of dim 1; \"mean\", \"sum\", \"none\""},
    loss("MSELoss", "mse_loss"), loss("L1Loss", "l1_loss"), loss("SmoothL1Loss", "smooth_l1_loss"),
    loss("HuberLoss", "huber_loss"),
    loss("CrossEntropyLoss", "cross_entropy"), loss("NLLLoss", "nll_loss"), loss("BCELoss", "bce_loss"),
    loss("BCEWithLogitsLoss", "bce_with_logits"), loss("KLDivLoss", "kl_div"),
  },

  {
    title = "Initial values",
    text = "Each fills a tensor in place, outside of any graph, and returns it. Weights are …×in×out: "
      .. "fan_in is the product of all sizes but the last.",
    {"nn.init.zeros", "t: tensor -> tensor", "All zeros."},
    {"nn.init.ones", "t: tensor -> tensor", "All ones."},
    {"nn.init.constant", "t: tensor, value: number -> tensor", "All of one value."},
    {"nn.init.uniform", "t: tensor, low: number = 0, high: number = 1, generator: generator? -> tensor",
      "Uniform in [low, high)."},
    {"nn.init.normal", "t: tensor, mean: number = 0, std: number = 1, generator: generator? -> tensor",
      "Normal."},
    {"nn.init.kaiming_uniform", "t: tensor, opts: options? -> tensor",
      "Uniform with standard deviation gain/√fan.", options = kaiming,
      source = "He et al. 2015.",
      example = "nn.init.kaiming_uniform(tide.empty(3, 3, 16, 32), {nonlinearity = \"relu\"})"},
    {"nn.init.kaiming_normal", "t: tensor, opts: options? -> tensor",
      "Normal with standard deviation gain/√fan.", options = kaiming,
      source = "He et al. 2015."},
    {"nn.init.xavier_uniform", "t: tensor, opts: options? -> tensor",
      "Uniform with standard deviation gain·√(2/(fan_in + fan_out)).",
      options = gain, source = "Glorot and Bengio 2010.",
      example = "nn.init.xavier_uniform(nn.Linear(4, 4).weight)"},
    {"nn.init.xavier_normal", "t: tensor, opts: options? -> tensor",
      "Normal with standard deviation gain·√(2/(fan_in + fan_out)).",
      options = gain, source = "Glorot and Bengio 2010."},
    {"nn.init.orthogonal", "t: tensor, opts: options? -> tensor",
      "Orthonormal rows or columns of the matrix of all dims but the last by the last.",
      options = gain, source = "Saxe et al. 2014; orthogonalised twice, Giraud et al. 2005.",
      example = [[
local w = nn.init.orthogonal(tide.empty(3, 3))
tide.allclose(w:matmul(w:t()), tide.eye(3), 1e-4, 1e-5) --> true]]},
    {"nn.init.gain", "nonlinearity: string, a: number = 0.01 -> number",
      "How much larger weights a nonlinearity asks for: linear, conv, sigmoid 1; tanh 5/3; relu √2; "
        .. "leaky_relu √(2/(1 + a²)); selu 3/4.",
      example = "nn.init.gain \"linear\" --> 1"},
    {"nn.init.fans", "t: tensor -> integer, integer", "fan_in and fan_out of a weight.",
      example = "nn.init.fans(tide.empty(3, 3, 16, 32)) --> 144  288"},
  },

  {
    title = "Low-rank adapters",
    text = "An adapted layer computes with W + scale·A·B, where A (in×rank) and B (rank×out, zero at first) are all "
      .. "that is trained; its own weights keep their names. Hu et al. 2021.",
    {"nn.lora.add", "m: module, opts: options? -> string[]",
      "Adapters for every Linear, Conv2d (of one group) and MultiheadAttention whose name a pattern finds; freezes "
        .. "all else. The sorted names.",
      options = [[
rank: integer = 4 | of the product
alpha: number? | the scale is alpha/rank; rank by default
match: string|string[] = "." | patterns of names such as "down_blocks.1.attentions.2.to_q"
generator: generator? | for the first values of A]],
      example = [[
local net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
nn.lora.add(net, {rank = 2, match = "1$"})
net:count() --> 32]]},
    {"nn.lora.merge", "m: module -> module", "The weights take up their adapters, which runs at the old speed."},
    {"nn.lora.unmerge", "m: module -> module", "Takes the adapters out of the weights again, to rounding."},
    {"nn.lora.remove", "m: module -> module",
      "The layers become what they were (with the adapters' part, if it was merged), and trainable."},
    {"nn.lora.state_dict", "m: module -> table", "The adapters' tensors by name, and their scale."},
    {"nn.lora.load_state_dict", "m: module, state: table -> string[]",
      "Adds the adapters of a state to a module without any; their names.",
      errors = "The state's adapters do not fit the module, which is then as before."},
  },
}
