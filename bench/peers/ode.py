"""Small systems: a neural ODE 2-50-2, the spiral demo's setting, and Lotka–Volterra, by torchdiffeq, diffrax or SciPy.

Prints one line for each row that tide's side (ode.lua) prints too: forward solve and gradient of Σ y(t₁)² (mean
absolute value in the demo) with respect to initial state and parameters. diffrax is jitted; its first call, with the
compilation, is reported as `compile`.
--peer torchdiffeq | diffrax | scipy   --dtype float64 | float32   --only PART: rows whose names contain it
"""
import time

from side import difference, measure, options, report, torch_with

args = options(__doc__, peer="torchdiffeq", dtype="float64", only="")
torch = torch_with(args.threads)
from safetensors.torch import load_file  # noqa: E402

shared = load_file(args.exchange)
T1, RTOL, ATOL = 10.0, 1e-6, 1e-8
LOTKA_TOL = 1e-7


def weights(dtype):
    return [shared[f"{dtype}.{name}"] for name in ("w1", "b1", "w2", "b2")]


def check(key, got):
    """How far results are from tide's."""
    return difference([(g.detach().reshape(-1), shared[f"{key}.{i}"].reshape(-1)) for i, g in enumerate(got)])


def network_rows(run):
    """Measures run(dtype, y0, how) → (forward, gradient), functions without arguments; a gradient gives a list."""
    for batch in (1, 20, 1000):
        y0 = shared[f"{args.dtype}.y0.{batch}"]
        for name, what in run(y0, T1, RTOL, ATOL, cube=False):
            row = f"2-50-2 batch {batch} {args.dtype}"
            measured(row, name, what)
    if args.dtype == "float32":
        for name, what in run(shared["demo.y0"], None, 1e-7, 1e-9, cube=True):
            measured("demo batch 20 float32", name, what)


def measured(row, name, what):
    """name is "forward" or "gradient" and perhaps a variant of the peer after a colon."""
    kind, _, variant = name.partition(":")
    key = f"{row} {kind}"
    if args.only not in key:
        return
    start = time.perf_counter()
    got, nfe = what()
    first = time.perf_counter() - start
    apart = check(key, got) if key + ".0" in shared else None
    report(key, variant=variant, difference=apart, nfe=nfe, compile=first, **measure(what, args.repeats))


# ---- torchdiffeq ----

def torch_rows():
    from torchdiffeq import odeint, odeint_adjoint

    class Net(torch.nn.Module):
        def __init__(self, cube):
            super().__init__()
            w1, b1, w2, b2 = weights(args.dtype)
            self.first, self.second = torch.nn.Linear(2, 50, dtype=w1.dtype), torch.nn.Linear(50, 2, dtype=w1.dtype)
            with torch.no_grad():
                for p, v in zip(self.parameters(), (w1.t(), b1, w2.t(), b2)):
                    p.copy_(v)
            self.cube, self.nfe = cube, 0

        def forward(self, t, y):
            self.nfe += 1
            return self.second(torch.tanh(self.first(y ** 3 if self.cube else y)))

    def run(y0, t1, rtol, atol, cube):
        net = Net(cube)
        t = torch.linspace(0, 25, 1000)[:10] if t1 is None else torch.tensor([0.0, t1], dtype=y0.dtype)

        def forward():
            net.nfe = 0
            with torch.no_grad():
                return [odeint(net, y0, t, rtol=rtol, atol=atol, method="dopri5")[-1]], net.nfe

        def gradient(solver):
            def work():
                net.nfe = 0
                net.zero_grad()
                start = y0.clone().requires_grad_()
                ys = solver(net, start, t, rtol=rtol, atol=atol, method="dopri5")
                (ys.abs().mean() if cube else ys[-1].square().sum()).backward()
                p = list(net.parameters())
                return [start.grad, p[0].grad.t(), p[1].grad, p[2].grad.t(), p[3].grad], net.nfe
            return work

        yield "forward", forward
        yield "gradient:odeint", gradient(odeint)
        yield "gradient:odeint_adjoint", gradient(odeint_adjoint)

    network_rows(run)
    if args.dtype == "float64":
        def field(p):
            def f(t, u):
                field.nfe += 1
                x, y = u[0], u[1]
                return torch.stack((p[0] * x - p[1] * x * y, p[3] * x * y - p[2] * y))
            return f

        u0 = torch.ones(2, dtype=torch.float64)
        t = torch.tensor([0.0, T1], dtype=torch.float64)
        how = {"rtol": LOTKA_TOL, "atol": LOTKA_TOL, "method": "dopri5"}

        def forward():
            field.nfe = 0
            with torch.no_grad():
                return [odeint(field((1.5, 1.0, 3.0, 1.0)), u0, t, **how)[-1]], field.nfe

        def gradient():
            field.nfe = 0
            p = torch.tensor([1.5, 1, 3, 1], dtype=torch.float64, requires_grad=True)
            start = u0.clone().requires_grad_()
            (0.5 * (1 - odeint(field(p), start, t, **how)[-1]).square().sum()).backward()
            return [start.grad, p.grad], field.nfe

        measured("lotka-volterra float64", "forward", forward)
        measured("lotka-volterra float64", "gradient:odeint", gradient)


# ---- diffrax ----

def diffrax_rows():
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", args.dtype == "float64")

    def net(t, y, p, cube=False):
        w1, b1, w2, b2 = p
        return jnp.tanh((y ** 3 if cube else y) @ w1 + b1) @ w2 + b2

    def solver(f, t1, rtol, atol, adjoint, saves=None):
        def solve(y0, p):
            return diffrax.diffeqsolve(
                diffrax.ODETerm(f), diffrax.Dopri5(), 0.0, t1, None, y0, p, max_steps=1024, adjoint=adjoint,
                saveat=diffrax.SaveAt(t1=True) if saves is None else diffrax.SaveAt(ts=saves),
                stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol))
        return solve

    def rows(f, y0, p, t1, rtol, atol, loss, saves=None):
        modes = {"RecursiveCheckpointAdjoint": diffrax.RecursiveCheckpointAdjoint(),
                 "DirectAdjoint": diffrax.DirectAdjoint()}

        def forward():
            solve = jax.jit(solver(f, t1, rtol, atol, modes["RecursiveCheckpointAdjoint"], saves))

            def work():
                sol = solve(y0, p)
                y = jax.block_until_ready(sol.ys)[-1]
                return [torch.tensor(jnp.asarray(y).tolist(), dtype=getattr(torch, args.dtype))], sol
            return work

        def gradient(mode):
            solve = solver(f, t1, rtol, atol, modes[mode], saves)
            g = jax.jit(jax.grad(lambda y0, p: loss(solve(y0, p).ys), argnums=(0, 1)))

            def work():
                dy, dp = jax.block_until_ready(g(y0, p))
                return [dy] + list(dp), None
            return work

        yield "forward", forward()
        for mode in modes:
            yield "gradient:" + mode, gradient(mode)

    def torched(work):
        """The same with torch's tensors, and the number of evaluations, for the first call."""
        got, sol = work()
        nfe = None if sol is None else 1 + 6 * int(sol.stats["num_steps"])
        return [torch.tensor(jnp.asarray(g).tolist(), dtype=getattr(torch, args.dtype)) if not torch.is_tensor(g) else g
                for g in got], nfe

    def timed_rows(row, generated):
        for name, work in generated:
            kind, _, variant = name.partition(":")
            key = f"{row} {kind}"
            if args.only not in key:
                continue
            start = time.perf_counter()
            work()
            first = time.perf_counter() - start
            got, nfe = torched(work)
            apart = check(key, got) if key + ".0" in shared else None
            report(key, variant=variant, difference=apart, nfe=nfe, compile=first, **measure(work, args.repeats))

    p = tuple(jnp.asarray(w.numpy()) for w in weights(args.dtype))
    for batch in (1, 20, 1000):
        y0 = jnp.asarray(shared[f"{args.dtype}.y0.{batch}"].numpy())
        timed_rows(f"2-50-2 batch {batch} {args.dtype}",
                   rows(net, y0, p, T1, RTOL, ATOL, lambda ys: jnp.sum(ys[-1] ** 2)))
    if args.dtype == "float32":
        saves = jnp.linspace(0, 25, 1000)[:10]
        timed_rows("demo batch 20 float32", rows(
            lambda t, y, p: net(t, y, p, cube=True), jnp.asarray(shared["demo.y0"].numpy()), p, float(saves[-1]),
            1e-7, 1e-9, lambda ys: jnp.mean(jnp.abs(ys)), saves))
    else:
        def lotka(t, u, p):
            x, y = u
            return jnp.stack((p[0] * x - p[1] * x * y, p[3] * x * y - p[2] * y))

        timed_rows("lotka-volterra float64", rows(
            lambda t, u, p: lotka(t, u, p[0]), jnp.ones(2), (jnp.array([1.5, 1.0, 3.0, 1.0]),), T1, LOTKA_TOL,
            LOTKA_TOL, lambda ys: 0.5 * jnp.sum((1 - ys[-1]) ** 2)))


# ---- SciPy ----

def scipy_rows():
    from scipy.integrate import solve_ivp

    def forward():
        sol = solve_ivp(lambda t, u: (1.5 * u[0] - u[0] * u[1], u[0] * u[1] - 3 * u[1]), (0, T1), (1.0, 1.0),
                        rtol=LOTKA_TOL, atol=LOTKA_TOL, method="RK45")
        return [torch.tensor(sol.y[:, -1])], sol.nfev

    measured("lotka-volterra float64", "forward", forward)


{"torchdiffeq": torch_rows, "diffrax": diffrax_rows, "scipy": scipy_rows}[args.peer]()
