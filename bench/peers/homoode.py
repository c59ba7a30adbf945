"""HomoODE in PyTorch with torchdiffeq: one training step (model, loss, backward, Adam).

Cases: cifar10, the official configuration (batch 64, 32×32×3 images, 64 channels, 16×16 state, dropout 0.1), and
wide, the state of 64 channels on 28×28 at batch 128 with the field relu(GN(conv(relu(GN(conv z) + x)))) − z.
--grad plain backpropagates through the solver, adjoint uses odeint_adjoint with the features as an adjoint parameter.
--layout nchw or channels_last.
"""
from side import difference, measure, options, report, torch_with

args = options(__doc__, grad="plain", layout="nchw")
torch = torch_with(args.threads)
from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torchdiffeq import odeint, odeint_adjoint  # noqa: E402

memory_format = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format


class Learned(nn.Module):
    """z' = GN(drop(conv(relu(GN(conv z)) + x))); one mask of channels for a whole solve."""

    def __init__(self, channels, groups, dropout):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.dropout, self.x, self.mask, self.nfe = dropout, None, None, 0

    def begin(self, x):
        self.x, self.nfe = x, 0
        keep = 1 - self.dropout
        self.mask = torch.bernoulli(x.new_full((x.shape[0], x.shape[1], 1, 1), keep)) / keep if self.dropout else None

    def forward(self, t, z):
        self.nfe += 1
        y = self.conv2(F.relu(self.norm1(self.conv1(z))) + self.x)
        return self.norm2(y if self.mask is None else y * self.mask)


class Residual(Learned):
    """z' = relu(GN(conv(relu(GN(conv z + x))))) − z"""

    def forward(self, t, z):
        self.nfe += 1
        y = F.relu(self.norm1(self.conv1(z) + self.x))
        return F.relu(self.norm2(self.conv2(y))) - z


def solve(field, z0, x, **more):
    """z(1); gradients reach the field's parameters and x."""
    field.begin(x)
    t = torch.tensor([0.0, 1.0])
    how = {"method": "dopri5", "rtol": 1e-3, "atol": 1e-3, **more}
    if args.grad == "adjoint":
        how["adjoint_params"] = tuple(field.parameters()) + (x,)
        return odeint_adjoint(field, z0, t, **how)[-1]
    return odeint(field, z0, t, **how)[-1]


class Official(nn.Module):
    """Stem, field, head and the detached start of one number a channel."""

    def __init__(self, channels=64, classes=10, groups=32, width=256, dropout=0.1):
        super().__init__()
        self.stem = nn.ModuleDict({
            "conv1": nn.Conv2d(3, channels, 3, padding=1), "norm1": nn.BatchNorm2d(channels),
            "conv2": nn.Conv2d(channels, channels, 3, padding=1, stride=2), "norm2": nn.BatchNorm2d(channels)})
        self.field = Learned(channels, groups, dropout)
        self.head = nn.ModuleDict({
            "norm1": nn.GroupNorm(groups, channels), "conv": nn.Conv2d(channels, width, 1),
            "norm2": nn.BatchNorm2d(width), "linear": nn.Linear(width, classes)})
        self.start = nn.Parameter(torch.ones(channels), requires_grad=False)

    def forward(self, images, **more):
        s, h = self.stem, self.head
        x = F.relu(s["norm1"](s["conv1"](images)))
        x = F.relu(s["norm2"](s["conv2"](x)))
        z0 = self.start.view(1, -1, 1, 1).expand_as(x).contiguous(memory_format=memory_format)
        z = solve(self.field, z0, x, **more)
        y = F.relu(h["norm2"](h["conv"](F.relu(h["norm1"](z)))))
        return h["linear"](y.mean((2, 3)))


class Wide(nn.Module):
    """The field alone, from zero, under given features; the loss is the mean square of z(1)."""

    def __init__(self):
        super().__init__()
        self.field = Residual(64, 8, 0)

    def forward(self, x, **more):
        return solve(self.field, torch.zeros_like(x), x, **more)


def image(t):
    """N×H×W×C to what the layout asks for."""
    return t.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)


def from_tide(name, t):
    """A weight of tide's layout in torch's."""
    if t.dim() == 4:
        return t.permute(3, 2, 0, 1).contiguous()
    return t.t().contiguous() if name.endswith("linear.weight") else t


shared = load_file(args.exchange)
wide = args.case == "wide"
model = (Wide() if wide else Official(dropout=0 if args.check else 0.1)).to(memory_format=memory_format)
state = {k[len("model."):]: from_tide(k, v) for k, v in shared.items() if k.startswith("model.")}
missing = model.load_state_dict(state, strict=False)
wanted = [k for k in missing.missing_keys if "running" not in k and "num_batches" not in k]
if wanted or missing.unexpected_keys:
    raise SystemExit(f"weights do not fit: missing {wanted}, unexpected {missing.unexpected_keys}")
inputs = image(shared["inputs"])
labels = shared.get("labels")
if wide:
    inputs.requires_grad_()


def loss_of(**more):
    out = model(inputs, **more)
    return out.square().mean() if wide else F.cross_entropy(out, labels)


trained = [p for p in model.parameters() if p.requires_grad]
optimiser = torch.optim.Adam(trained, lr=1e-3)


def step():
    optimiser.zero_grad()
    loss = loss_of()
    step.nfe = model.field.nfe
    loss.backward()
    step.nfe_b = model.field.nfe - step.nfe
    optimiser.step()
    step.loss = loss.item()


if args.check:
    loss = loss_of(method="rk4", options={"step_size": 0.25})
    loss.backward()
    pairs = [(loss.detach().reshape(()), shared["check.loss"].reshape(()))]
    for name, p in model.named_parameters():
        if p.requires_grad:
            pairs.append((p.grad, from_tide(name, shared["check.grad." + name])))
    if wide:
        pairs.append((inputs.grad, image(shared["check.grad.inputs"])))
    report(args.case, difference=difference(pairs))
else:
    report(args.case, **measure(step, args.repeats), nfe=step.nfe, nfe_b=step.nfe_b, loss=step.loss)
