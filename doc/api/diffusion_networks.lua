-- tide.diffusion's networks, their folders, training and evaluation.

local both = [[
sample_size: integer|integer[]? | not used by the network
in_channels: integer = %d | of the image
out_channels: integer = %d | of the prediction
block_out_channels: integer[] = %s | channels of each resolution
layers_per_block: integer = 2 | residual blocks of a resolution, one more on the way up
down_block_types: string[] | %s
up_block_types: string[] | %s
mid_block_type: string = "%s" | or false for none
attention_head_dim: integer = 8 | %s
norm_num_groups: integer = 32 | of group norms
norm_eps: number = 1e-5 | added to variances
act_fn: string = "silu" | or "swish", "mish", "gelu", "relu"
dropout: number = 0 | in residual blocks
resnet_time_scale_shift: string = "default" | the time is added; "scale_shift": it scales and shifts
downsample_padding: integer = 1 | 0 puts zeros at the right and the bottom alone, as DDPM
mid_block_scale_factor: number = 1 | divides the sums of the middle
flip_sin_to_cos: boolean = true | cosines of the time before its sines
freq_shift: number = 0 | 1 in DDPM
time_embedding_dim: integer? | 4·block_out_channels[1]
time_embedding_type: string = "positional" | "fourier": of random frequencies, stored with the weights; UNet2DModel then
  takes the noise's σ as its time and divides its result by it
num_class_embeds: integer? | classes that may be a condition
class_embed_type: string? | "timestep": the condition is a number, embedded as times are; "identity": a vector
center_input_sample: boolean = false | the image comes as 0 to 1]]

local weights = "\ndtype: dtype = \"float32\" | of the parameters\ngenerator: generator? | for the first values"

return {
  title = "tide.diffusion: networks",
  text = "U-Nets and a transformer in diffusers' layouts: the same names of options and weights, so that folders "
    .. "written by one are read by the other. net(x, t, condition): x is N×H×W×C, t a number, a 0-d tensor or N "
    .. "times. Options whose default is none may be false, JSON's null; options of diffusers that are not named "
    .. "here can only have their usual value.",

  {
    title = "Networks",
    {"diffusion.UNet2DModel", "config: options? -> module",
      "The U-Net of DDPM. The condition, where there are classes, is a class (from 1), int64 classes, or real "
        .. "vectors that stand for classes (width time_embedding_dim; gradients reach them).",
      options = both:format(3, 3, "{224, 448, 672, 896}",
        "DownBlock2D, AttnDownBlock2D (with attention between positions), ResnetDownsampleBlock2D",
        "UpBlock2D, AttnUpBlock2D, ResnetUpsampleBlock2D", "UNetMidBlock2D", "channels of a head; false: one head")
        .. [[

attn_norm_num_groups: integer? | of the middle's attention
add_attention: boolean = true | in the middle
downsample_type: string = "conv" | or "resnet", in blocks with attention
upsample_type: string = "conv" | or "resnet", in blocks with attention
num_train_timesteps: integer? | not used]] .. weights,
      errors = "Images, times or conditions that do not fit the configuration.",
      source = "Ho et al. 2020; diffusers' UNet2DModel.",
      example = [[
local net = diffusion.UNet2DModel {in_channels = 1, out_channels = 1, block_out_channels = {8, 16},
  norm_num_groups = 4, down_block_types = {"DownBlock2D", "AttnDownBlock2D"},
  up_block_types = {"AttnUpBlock2D", "UpBlock2D"}, num_class_embeds = 11}
net(tide.randn(2, 8, 8, 1), 500, 3).shape[2] --> 8]]},
    {"diffusion.UNet2DConditionModel", "config: options? -> module",
      "The U-Net of Stable Diffusion. The condition is vectors N×S×C (or S×C for all images), or "
        .. "{vectors, mask =, class =}; a mask of S or N×S: uint8 (1 takes part), or real (added to the scores).",
      options = both:format(4, 4, "{320, 640, 1280, 1280}",
        "DownBlock2D, CrossAttnDownBlock2D (with transformers), ResnetDownsampleBlock2D",
        "UpBlock2D, CrossAttnUpBlock2D, ResnetUpsampleBlock2D", "UNetMidBlock2DCrossAttn",
        "the number of heads, in spite of its name; or a list") .. [[

cross_attention_dim: integer|integer[] = 1280 | width of the condition's vectors
transformer_layers_per_block: integer|integer[] = 1 | depth of the transformers
use_linear_projection: boolean = false | around them, instead of 1×1 convolutions
upcast_attention: boolean = false | not used]] .. weights,
      source = "Rombach et al. 2022; diffusers' UNet2DConditionModel.",
      example = [[
local net = diffusion.UNet2DConditionModel {block_out_channels = {8, 16}, norm_num_groups = 4,
  down_block_types = {"CrossAttnDownBlock2D", "DownBlock2D"}, up_block_types = {"UpBlock2D", "CrossAttnUpBlock2D"},
  cross_attention_dim = 12, attention_head_dim = 2}
net(tide.randn(1, 8, 8, 4), 1, tide.randn(5, 12)).shape[4] --> 4]]},
    {"diffusion.DiT", "config: options? -> module",
      "A diffusion transformer in the layout of diffusers' DiTTransformer2DModel. The condition is a class, int64 "
        .. "classes (the last stands for none), or vectors of its width in their place.",
      options = [[
sample_size: integer = 32 | height and width of the image
patch_size: integer = 2 | of the squares that become vectors
in_channels: integer = 4 | of the image
out_channels: integer? | of the prediction, in_channels by default
num_layers: integer = 28 | blocks
num_attention_heads: integer = 16 | of each
attention_head_dim: integer = 72 | channels of a head
num_embeds_ada_norm: integer = 1000 | classes; one more stands for none
attention_bias: boolean = true | of queries, keys and values
norm_eps: number = 1e-5 | added to variances
norm_num_groups: integer = 32 | not used
upcast_attention: boolean = false | not used]] .. weights,
      source = "Peebles and Xie 2023; diffusers' DiTTransformer2DModel.",
      example = [[
local net = diffusion.DiT {sample_size = 8, in_channels = 1, num_layers = 2, num_attention_heads = 2,
  attention_head_dim = 8, num_embeds_ada_norm = 10}
net(tide.randn(2, 8, 8, 1), 500, 11).shape[2] --> 8]]},
    {"diffusion.EDM", "net: module, opts: options? -> module",
      "A network with the preconditioning of Karras et al.: net sees x/√(σ² + sigma_data²), the result is x0, for a "
        .. "schedule \"edm\" or \"exponential\" with prediction = \"x0\". diffusion.load wraps the network of a folder "
        .. "with an EDM scheduler in it; diffusion.save writes such a folder.",
      options = [[
sigma_data: number = 0.5 | the data's standard deviation
prediction: string = "epsilon" | or "v", by which diffusers means the network's value with the other sign]],
      source = "Karras et al. 2022, table 1.",
      example = [[
local net = diffusion.EDM(nn.Module {forward = function(_, x) return x * 0 end})  -- exact for data N(0, 0.5²)
local s = diffusion.Schedule("edm", {prediction = "x0"})
local out = diffusion.sample(net, s:noise {50, 2}, {schedule = s, sampler = "heun", steps = 20})
assert(math.abs((out.x0 ^ 2):mean():item() - 0.25) < 0.2)]]},
    {"diffusion.Classifier", "config: options? -> module",
      "A small convolutional classifier, smooth and without batch statistics: images N×H×W×C to logits.",
      options = [[
in_channels: integer = 1 | of the images
num_classes: integer = 10 | logits
sample_size: integer? | not used
block_out_channels: integer[] = {16, 32, 64} | channels of each resolution
norm_num_groups: integer = 8 | of group norms
dropout: number = 0 | before the last layer]] .. weights,
      example = "diffusion.Classifier()(tide.randn(2, 28, 28, 1)).shape[2] --> 10"},
    {"diffusion.Classifier:features", "x: tensor -> tensor",
      "The last stage averaged over positions: N×channels, what diffusion.frechet is measured on."},
    {"diffusion.Classifier:maps", "x: tensor -> tensor[]",
      "The result of every stage, N×h×w×channels: what Gram matrices are made of."},
  },

  {
    title = "Folders",
    {"diffusion.load", "dir: string, opts: options? -> module, table",
      "The network of a folder in diffusers' layout (config.json and diffusion_pytorch_model.safetensors, at the "
        .. "top or under unet/), in evaluation mode, and {config, scheduler, schedule}: the contents of config.json "
        .. "and scheduler_config.json, and the noise schedule of the latter (nil without one).",
      options = "dtype: dtype = \"float32\" | of the parameters",
      returns = "nil and a message where a file cannot be read, or a tensor is missing, misshapen (with the shape "
        .. "expected and found, in PyTorch's order) or unknown.",
      note = "Weights are brought into tide's layout once. Old names of attention weights are known."},
    {"diffusion.save", "dir: string, model: module, schedule: any?, opts: options? -> boolean",
      "Writes a folder that diffusers loads: config.json, the weights, and scheduler_config.json of a noise "
        .. "schedule (or of a table).",
      options = "dtype: string = \"float32\" | of weights of float32, in the file: \"float16\" and \"bfloat16\" take "
        .. "half the space",
      example = [[
local net = diffusion.Classifier {block_out_channels = {8, 8}}
local dir = os.tmpname()
os.remove(dir)
assert(diffusion.save(dir, net))
local same = assert(diffusion.load(dir))
local x = tide.randn(1, 8, 8, 1)
tide.equal(net(x), same(x)) --> true]]},
    {"diffusion.pretrained", "name: string -> module, table",
      "A model that comes with tide, as diffusion.load gives it: \"digits\" (28×28, predicts v, classes 1 to 10 for "
        .. "the digits 0 to 9 and 11 for none), \"digits-classifier\", or \"cifar10\" (32×32×3, the same, classes in "
        .. "CIFAR-10's order). Images are from −1 to 1."},
  },

  {
    title = "Training",
    {"diffusion.Trainer", "model: module, opts: options? -> trainer",
      "Trains a network to predict ε, x0, v or the flow at random times of a noise schedule.",
      options = [[
schedule: string|noise_schedule = "linear" | see diffusion.Schedule
prediction: string? | "epsilon", "x0", "v" or "flow"; the schedule's by default
weighting: string = "uniform" | see diffusion.loss_weight
gamma: number = 5 | of min_snr
times: string = "uniform" | or "logit_normal", towards the middle
optimiser: optimiser? | AdamW by default, with the next two
lr: number = 1e-3 | the learning rate
weight_decay: number = 0 | of AdamW
warmup: integer = 0 | steps in which the rate rises from 0
rate: shape? | of the rate over steps, such as optim.cosine {steps = n}
clip: number|boolean = 1 | largest norm of the gradient, or false
ema: number = 0.999 | decay of the averages of the weights
null: any? | the condition that stands for none: a class, or a vector
drop: number = 0.1 | share of the images that get it
seed: integer = 0 | of noise, times and dropped conditions
capture: boolean = true | steps run as a captured program, see train_step]],
      fields = [[
steps: integer | done so far
loss: number | of the last step
average: ema | of the weights
optimiser: optimiser | at work]],
      example = [[
local net = nn.Module {map = nn.Linear(2, 2), forward = function(self, x, t) return self.map(x) end}
local trainer = diffusion.Trainer(net, {schedule = "linear", lr = 1e-2})
for _ = 1, 3 do trainer:step(tide.randn(8, 2)) end
trainer.steps --> 3]]},
    {"Trainer:step", "x0: tensor, condition: any? -> number", "One step on a batch; its loss.",
      errors = "The loss is not finite; the weights are then as before."},
    {"Trainer:loss_of", "x0: tensor, condition: any? -> tensor",
      "The loss of a batch with its graph, for steps of your own."},
    {"Trainer:run", "opts: options -> trainer", "Trains up to a number of steps in all.",
      options = [[
loader: loader | of images and conditions
steps: integer | in all, also those of earlier runs
every: integer = 100 | steps between calls of progress
progress: function? | progress(trainer, mean_loss); false stops]],
      note = "After load() the batches go on where the saved run was."},
    {"Trainer:with_average", "f: function, ...: any -> ...any",
      "f(…) while the model has the averages of its weights, in evaluation mode, without recording."},
    {"Trainer:save", "path: string -> boolean",
      "A checkpoint: weights, averages, the optimiser's state, generators and steps. A run that goes on from it "
        .. "gives the same bits as one that was never stopped."},
    {"Trainer:load", "path: string -> trainer",
      "Goes on from a checkpoint of a trainer with the same model and options."},
    {"diffusion.loss_weight",
      "schedule: noise_schedule, t: number, kind: string, weighting: string, gamma: number = 5 -> number",
      "The weight of a squared error of a prediction at a time: \"uniform\" 1; of the error in x0 \"min_snr\" "
        .. "min(SNR, γ), \"snr\" SNR, \"truncated_snr\" max(SNR, 1).",
      source = "Hang et al. 2023; Salimans and Ho 2022.",
      example = "diffusion.loss_weight(diffusion.Schedule(\"linear\"), 500, \"epsilon\", \"snr\") --> 1"},
  },

  {
    title = "Evaluation",
    {"diffusion.frechet", "a: tensor, b: tensor -> number, table",
      "The Fréchet distance of two sets of features (N×C, M×C), taken for normal distributions, and {samples, "
        .. "channels, singular}.",
      note = "The distance of few samples is too large: state their number, and give the distance of two sets of "
        .. "real images of that size beside it. Distances of different classifiers' features do not compare.",
      source = "Heusel et al. 2017.",
      example = [[
local x = tide.randn(50, 3)
assert(diffusion.frechet(x, x) < 1e-6)
assert(math.abs(diffusion.frechet(x, x + 1) - 3) < 1e-4)]]},
    {"diffusion.features", "classifier: module, images: tensor, opts: options? -> tensor",
      "classifier:features of all images, without recording.",
      options = "batch: integer = 200 | images at a time"},
    {"diffusion.recognised", "classifier: module, images: tensor, classes: tensor, opts: options? -> number, table",
      "The share of images that a classifier takes for their classes (int64), and {samples, low, high, by_class}: "
        .. "the 95 % interval, and each class's share.",
      options = "batch: integer = 200 | images at a time", source = "Wilson 1927, of the interval."},
    {"diffusion.invert", "model: module, x0: tensor, opts: options? -> tensor",
      "The noise from which DDIM leads to x0: DDIM's steps backwards, right to the first order.",
      options = [[
schedule: string|noise_schedule = "linear" | see diffusion.Schedule
prediction: string? | of the model; the schedule's by default
steps: integer = 50 | more are more exact
condition: any? | given to the model]],
      source = "Song et al. 2021."},
    {"diffusion.inversion_error", "model: module, x0: tensor, opts: options? -> number, table",
      "The relative root mean square difference of x0 and what DDIM makes of its noise, and {samples, steps, x_T, "
        .. "x0}.",
      options = [[
schedule: string|noise_schedule = "linear" | see diffusion.Schedule
prediction: string? | of the model; the schedule's by default
steps: integer = 50 | both ways
condition: any? | given to the model]]},
  },
}
