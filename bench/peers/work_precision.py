"""Work and precision of SciPy, torchdiffeq and diffrax on three problems, one line for each method and tolerance.

Problems: lotka-volterra to t = 10, robertson to t = 40 (stiff), network (a 2-50-2 tanh field to t = 10); weights,
initial values and the reference come from tide's side. Errors are relative, in the Euclidean norm.
--peer scipy | torchdiffeq | diffrax
"""
import numpy as np
from safetensors.numpy import load_file

from side import measure, options, report, torch_with

args = options(__doc__, peer="scipy")
shared = load_file(args.exchange)
W1, B1, W2, B2 = (shared[k] for k in ("w1", "b1", "w2", "b2"))
TOLERANCES = [10.0 ** -k for k in range(3, 11)]
ENDS = {"lotka-volterra": 10.0, "robertson": 40.0, "network": 10.0}
STARTS = {"lotka-volterra": [1.0, 1.0], "robertson": [1.0, 0.0, 0.0], "network": shared["y0"].tolist()}


def fields(stack, tanh, w):
    """The right-hand sides, written with the given library's functions."""
    def lotka(t, u):
        x, y = u[0], u[1]
        return stack((1.5 * x - x * y, x * y - 3.0 * y))

    def robertson(t, u):
        a, b, c = u[0], u[1], u[2]
        da, dc = -0.04 * a + 1e4 * b * c, 3e7 * b * b
        return stack((da, -da - dc, dc))

    def network(t, u):
        return tanh(u @ w[0] + w[1]) @ w[2] + w[3]

    return {"lotka-volterra": lotka, "robertson": robertson, "network": network}


def row(problem, method, tol, work):
    """work() gives the end state and the number of evaluations."""
    y, nfe = work()
    ref = shared["reference." + problem]
    error = float(np.linalg.norm(np.asarray(y) - ref) / np.linalg.norm(ref))
    if np.isfinite(error):
        report(problem, method=f"{args.peer} {method}", tol=tol, error=error, nfe=nfe, **measure(work, args.repeats))


def scipy_rows():
    from scipy.integrate import solve_ivp

    f = fields(np.array, np.tanh, (W1, B1, W2, B2))
    for problem, methods in (("lotka-volterra", ("RK45", "DOP853")), ("network", ("RK45", "DOP853")),
                             ("robertson", ("Radau", "BDF"))):
        for method in methods:
            for tol in TOLERANCES:
                atol = tol * (1e-4 if problem == "robertson" else 1)

                def work():
                    sol = solve_ivp(f[problem], (0, ENDS[problem]), STARTS[problem], method=method, rtol=tol, atol=atol)
                    return sol.y[:, -1], sol.nfev

                row(problem, method, tol, work)


def torchdiffeq_rows():
    torch = torch_with(args.threads)
    from torchdiffeq import odeint

    f = fields(torch.stack, torch.tanh, [torch.tensor(w) for w in (W1, B1, W2, B2)])
    for problem in ("lotka-volterra", "network"):
        for tol in TOLERANCES:
            count = [0]

            def counted(t, y):
                count[0] += 1
                return f[problem](t, y)

            def work():
                count[0] = 0
                with torch.no_grad():
                    y = odeint(counted, torch.tensor(STARTS[problem], dtype=torch.float64),
                               torch.tensor([0.0, ENDS[problem]], dtype=torch.float64), rtol=tol, atol=tol,
                               method="dopri5")[-1]
                return y.numpy(), count[0]

            row(problem, "dopri5", tol, work)


def diffrax_rows():
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    f = fields(jnp.stack, jnp.tanh, (W1, B1, W2, B2))
    stages = {"Dopri5": 6, "Tsit5": 6, "Dopri8": 13}
    for problem, methods in (("lotka-volterra", ("Dopri5", "Dopri8")), ("network", ("Dopri5", "Dopri8")),
                             ("robertson", ("Kvaerno5",))):
        for method in methods:
            atol_factor = 1e-4 if problem == "robertson" else 1

            @jax.jit
            def solve(y0, tol):
                return diffrax.diffeqsolve(
                    diffrax.ODETerm(lambda t, y, _: f[problem](t, y)), getattr(diffrax, method)(), 0.0, ENDS[problem],
                    None, y0, max_steps=100000,
                    stepsize_controller=diffrax.PIDController(rtol=tol, atol=tol * atol_factor))

            y0 = jnp.array(STARTS[problem])
            for tol in TOLERANCES:
                def work():
                    sol = solve(y0, tol)
                    return np.asarray(sol.ys[-1]), 1 + stages.get(method, 0) * int(sol.stats["num_steps"])

                row(problem, method, tol, work)


{"scipy": scipy_rows, "torchdiffeq": torchdiffeq_rows, "diffrax": diffrax_rows}[args.peer]()
