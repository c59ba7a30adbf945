"""Convolutions, products, element-wise functions and normalisations in PyTorch, one line each; rows as in primitives.lua.

--layout nchw or channels_last, for images. Inputs are the same wave of numbers on both sides, and `sum` is the sum of
the result, by which they are compared.
"""
from side import measure, options, report, torch_with

args = options(__doc__, layout="nchw")
torch = torch_with(args.threads)
from torch.nn import functional as F  # noqa: E402

memory_format = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format


def wave(*shape, scale=1.0):
    """sin(0, 1, 2, …)·scale, laid out in the order N, H, W, C (kh, kw, C, O) that tide has."""
    n = 1
    for s in shape:
        n *= s
    return (torch.sin(torch.arange(n, dtype=torch.float64)) * scale).float().view(shape)


def image(n, h, w, c):
    return wave(n, h, w, c).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)


def row(name, f, flops=0):
    got = f()
    record = measure(f, args.repeats)
    seconds = record["cpu" if args.threads == 1 else "seconds"]
    report(name, variant=args.layout, sum=float(got.double().abs().sum()), gflops=flops / seconds / 1e9, **record)


def convolutions():
    for n, h, c, o, k in ((64, 28, 64, 64, 3), (32, 16, 128, 128, 3), (64, 28, 16, 16, 3), (128, 14, 32, 32, 3),
                          (1, 64, 320, 320, 3), (32, 28, 64, 256, 1)):
        x = image(n, h, h, c)
        w = wave(k, k, c, o, scale=0.1).permute(3, 2, 0, 1).contiguous(memory_format=memory_format)
        dy = image(n, h, h, o)
        pad, flops = k // 2, 2.0 * n * h * h * c * o * k * k
        name = f"conv {k}×{k} {c}→{o} {h}² B{n}"
        both = torch.ops.aten.convolution_backward
        with torch.no_grad():
            row(name + " forward", lambda: F.conv2d(x, w, padding=pad), flops)
            for which, mask in (("input gradient", [True, False, False]), ("weight gradient", [False, True, False])):
                row(f"{name} {which}", lambda: both(dy, x, w, None, [1, 1], [pad, pad], [1, 1], False, [0, 0], 1,
                                                    mask)[0 if mask[0] else 1], flops)


def products():
    for m, n, k in ((512, 512, 512), (1024, 1024, 1024), (64, 8192, 576), (128, 256, 1152), (16, 784, 144),
                    (64, 784, 144), (50, 32, 50)):
        a, b = wave(m, k), wave(k, n)
        row(f"product {m}×{n}×{k}", lambda: a @ b, 2.0 * m * n * k)


def elementwise():
    x = wave(1 << 20, scale=3)
    for name, f in (("relu", torch.relu), ("exp", torch.exp), ("tanh", torch.tanh), ("silu", F.silu),
                    ("gelu", F.gelu)):
        row(f"{name}, 1M", lambda: f(x))


def normalisations():
    x, dy = image(64, 28, 28, 64), image(64, 28, 28, 64)
    gamma, beta = torch.ones(64), torch.zeros(64)
    for name, act in (("relu", F.relu), ("silu", F.silu)):
        with torch.no_grad():
            row(f"group norm (8) + {name} forward", lambda: act(F.group_norm(x, 8, gamma, beta)))
        xg = x.detach().requires_grad_()
        weights = [gamma.clone().requires_grad_(), beta.clone().requires_grad_()]

        def both():
            y = act(F.group_norm(xg, 8, *weights))
            return torch.autograd.grad(y, [xg] + weights, dy)[0]

        row(f"group norm (8) + {name} forward and backward", both)


convolutions()
products()
elementwise()
normalisations()
