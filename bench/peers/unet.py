"""The DDPM UNet of diffusers in PyTorch: 64 channels, multipliers 1, 2, 2, two blocks a level, attention at 16×16, on
32×32 images.

Cases: train, one training step at batch 32 (noise, prediction, mean square error, backward, Adam); infer, the
prediction for one image without gradients; sample, the gradient of a metric of a DDIM sample of --steps with respect
to the initial noise, --batch images (4), the weights fixed.
--layout nchw or channels_last; --memory full, or checkpoint to recompute each network call of `sample`.
--prepare DIR writes the network as a diffusers folder, from which both sides read it.
"""
import os

from side import difference, measure, options, report, torch_with

args = options(__doc__, layout="nchw", memory="full", prepare="", steps=20, batch=4)
torch = torch_with(args.threads)
from diffusers import UNet2DModel  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

memory_format = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format
TRAINED = 1000


def prepare(folder):
    """Writes the network with random weights, inputs, and what PyTorch makes of them: prediction and gradients."""
    model = UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=128, norm_num_groups=32, norm_eps=1e-6, flip_sin_to_cos=False, freq_shift=1,
        downsample_padding=0)
    model.save_pretrained(os.path.join(folder, "unet"))
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    t = torch.tensor([17, 801])
    y = model(x, t).sample
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    shared = {"inputs": x.detach(), "times": t, "outputs": y.detach(), "grad.inputs": x.grad}
    for name, p in model.named_parameters():
        shared["grad." + name] = p.grad
    save_file({k: v.contiguous() for k, v in shared.items()}, os.path.join(folder, "check.safetensors"))
    report("prepare", parameters=sum(p.numel() for p in model.parameters()))


def alphas_bar():
    """The noise schedule of DDPM: products of 1 − β, β linear from 1e-4 to 0.02."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, TRAINED), 0)


def train(model):
    images, bar = torch.randn(32, 3, 32, 32), alphas_bar()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step():
        noise, t = torch.randn_like(images), torch.randint(0, TRAINED, (32,))
        a = bar[t].view(-1, 1, 1, 1)
        noisy = (a.sqrt() * images + (1 - a).sqrt() * noise).contiguous(memory_format=memory_format)
        optimiser.zero_grad()
        F.mse_loss(model(noisy, t).sample, noise).backward()
        optimiser.step()

    return step


def infer(model):
    image = torch.randn(1, 3, 32, 32).contiguous(memory_format=memory_format)

    def step():
        with torch.no_grad():
            model(image, 500)

    return step


def sample(model):
    model.requires_grad_(False)
    bar = alphas_bar()
    times = list(range(TRAINED - TRAINED // args.steps, -1, -TRAINED // args.steps))
    start = torch.randn(args.batch, 3, 32, 32).contiguous(memory_format=memory_format)

    def predict(x, t):
        if args.memory == "checkpoint":
            return checkpoint(lambda x: model(x, t).sample, x, use_reentrant=False)
        return model(x, t).sample

    def step():
        noise = start.clone().requires_grad_()
        x = noise
        for i, t in enumerate(times):
            a, b = bar[t], bar[times[i + 1]] if i + 1 < len(times) else torch.tensor(1.0)
            eps = predict(x, t)
            x = b.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
        x.square().mean().backward()

    return step


if args.prepare:
    prepare(args.prepare)
else:
    network = UNet2DModel.from_pretrained(os.path.join(args.exchange, "unet")).to(memory_format=memory_format)
    if args.check:
        shared = load_file(os.path.join(args.exchange, "check.safetensors"))
        with torch.no_grad():
            y = network(shared["inputs"].contiguous(memory_format=memory_format), shared["times"]).sample
        report(args.case, difference=difference([(y, shared["outputs"])]))
    else:
        work = {"train": train, "infer": infer, "sample": sample}[args.case](network)
        report(args.case, **measure(work, args.repeats))
