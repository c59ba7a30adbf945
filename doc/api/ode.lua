-- tide.ode: initial value problems.

local peers = [[
method: string = "dopri5" | with its embedded weights; any of ode.methods
rtol: number = 1e-7 | relative tolerance
atol: number = 1e-9 | absolute tolerance
controller: string|table = "torchdiffeq" | see ode.controllers
first_step: number? | chosen by default
min_step: number = 0 | smallest step
max_step: number? | greatest step
max_num_steps: integer? | no bound by default
step_size: number? | for fixed steps
safety: number? | the controller's
ifactor: number? | the controller's greatest growth
dfactor: number? | the controller's greatest shrinking
norm: string|function = "rms" | see ode.solve
step_t: numbers? | times to step onto
jump_t: numbers? | times at which f jumps
grid_constructor: function? | (f, y0, t) → the nodes of a fixed grid
interp: string = "dense" | or "linear", on fixed steps
perturb: boolean = false | f is asked beside the times t, never at them
max_order: integer = 0 | of methods that choose; 0: their own
max_iters: integer = 0 | of methods that iterate
event_fn: function? | (t, y) → a number: the solve ends where it changes its sign, and the results are the event's time
  and the values up to it]]

return {
  title = "tide.ode",
  text = "y' = f(t, y). Methods, controllers and gradient modes are chosen by name and independent of each "
    .. "other. Time is always float64, whatever the state's type.",

  {
    title = "Solving",
    {"ode.solve", "f: function, y0: state, t: numbers, opts: options? -> solution",
      "Solves from y(t[1]) = y0, with values at the times t, ascending or descending; {t0, t1} for the two "
        .. "ends.",
      args = {
        f = "f(t, y) → dy/dt; t is a 0-d float64 tensor and y like y0. It must give the same again for the "
          .. "same arguments. false instead of a derivative means that there is none: a smaller step is tried. "
          .. "Or {explicit = function, implicit = function}, two halves of it: kencarp3, kencarp4 and kencarp5 take "
          .. "the first explicitly and solve for the second, all other methods see the sum",
        y0 = "a tensor; a table of numbers (then f takes a number and a table and returns a table); or "
          .. "nested tables of tensors",
      },
      options = [[
method: string = "tsit5" | see ode.methods
rtol: number|tensor|table = 1e-6 | relative tolerance; one for each element, or for each part of a nested state
atol: number|tensor|table = 1e-8 | absolute tolerance, in units of y; likewise
norm: string|table|function = "rms" | of the scaled error over the whole state; "max"; "parts" or {sizes of groups}:
  the greatest root mean square of a group; or a function of the scaled error
controller: string|table = "pi" | see ode.controllers
safety: number? | the controller's, 0.9
ifactor: number? | greatest growth of a step, 10
dfactor: number? | greatest shrinking of a step, 0.2
first_step: number? | chosen by default (Hairer, Nørsett and Wanner, II.4)
min_step: number = 0 | a smaller one ends the solve
on_min_step: string = "fail" | or "accept": steps of min_step are accepted whatever their error
max_step: number? | no bound by default
max_steps: integer = 1e5 | accepted and rejected
max_num_steps: integer? | another name for it
step_t: numbers? | times to step onto
jump_t: numbers? | times at which f jumps: it is asked from one side before and from the other after
grid_constructor: function? | grid_constructor(f, y0, t) → the nodes of a fixed grid, both ends included
interp: string = "dense" | save times on fixed steps by the method's extension; "linear": by straight lines
save: string|integer = "times" | values at t; "steps" or every how many steps: at those instead
save_fn: function? | save_fn(t, y): what is saved of every state, in ys
dense: boolean = false | sol(t) gives y and dy/dt at any time; keeps the states of all steps. Of a batch it gives those
  of all rows, sol.rows[i](t) of one
event: function|table? | fn(t, y) ends the solve where it changes its sign (a boolean: at the step's end); or a
  table {fn, direction = 1 | -1 | 0, terminal = true | false | after how many, reset = function(t, y) → y after}; an
  event with a reset goes on. A zero at the first time does not count. In a batch both get the row's number too
events: table? | a list of such
event_points: integer = 10 | places in a step at which signs are looked at
checkpoints: integer = 0 | states kept for the reverse pass, the rest made again at least cost; 0: as memory allows
memory: number = 2^30 | bytes of states kept for the reverse pass
step_size: number? | fixed steps; methods without an error estimate need it, or grid_constructor, or land
land: boolean = false | step onto the times instead of interpolating; alone, it takes a method without an error
  estimate from time to time in one step each
grad: string = "discrete" | exact for the steps taken; "full": the same, all states kept; "forward": the same
  derivative by tangents that ride on the steps, see Solution:sensitivity; "interp": continuous over the forward
  solve's own interpolation; "gauss": the same, parameters by Gauss quadrature; "adjoint" (or "backsolve"):
  continuous, memory independent of the number of steps; "frozen": wrong on purpose, for comparison; "reversible":
  discrete, the states rebuilt backwards by a reversible method, nothing kept but the end. Events pass in
  "discrete", "full" and "forward"
max_tangents: integer = 200 | of grad = "forward": more numbers that need a gradient are refused
params: tensor[]? | further tensors that need gradients
capture: boolean|string = "auto" | run f as a captured program: where it can be, true: or raise, false: never
keep: number = 2^28 | bytes that one captured evaluation may keep for its reverse pass; beyond, it is computed again
hold: number? | bytes of evaluations, the last ones of a captured solve, that stay kept for its discrete gradient, which
  need not compute them again: no less than those of a step, 0: none; by default those of three steps, up to 2 GB
jac: function? | jac(t, y) → ∂f/∂y (n × n; rows or a tensor) and, for Rosenbrock methods, ∂f/∂t; of a batch
  jac(t, y, rows) → tensors of rows × n × n and rows × n; by
  default from the tape, or from dual numbers when f is on plain numbers; of the implicit half where f has two and the
  method takes them apart
jac_sparsity: tensor|table? | where ∂f/∂y may differ from zero: a matrix of marks, or {lower = l, upper = u}, a
  band; then few reverse passes find it and its factors stay in a band. Nothing outside may depend
preconditioner: function? | preconditioner(r, t, y, shift) → nearly the solution x of shift·x − ∂f/∂y x = r, for
  GMRES in diagonally implicit methods and bdf beyond 600 elements
mass: tensor|table? | M of M y' = f, a matrix or the numbers of a diagonal, constant; rows may be zero (algebraic
  equations, which y0 has to satisfy) in Rosenbrock methods, Radau, Gauss and bdf. Others solve y' = M⁻¹ f
base: string = "tsit5" | of mccallum_foster, any explicit method
linear: tensor? | the stiff linear part L of f, for exponential methods: as many numbers as the state has (a
  diagonal), or a square matrix for the state or for its last dim; f is the whole right-hand side, L counts as a
  constant
coupling: number = 0.999 | of mccallum_foster: less damps more forward and amplifies rounding backward
max_order: integer = 0 | of bdf, 5 at most, and abm, 12 at most; the order of explicit_adams and implicit_adams,
  4 by default; 0: no bound
max_iters: integer = 0 | corrections of implicit_adams, 5 at most; 0: 4
batch: boolean = false | every row of y0 is an equation of its own, solved as if alone: f(t, y, rows) gets the rows
  that are still at work (t: rows×1…, rows: their numbers); t and the tolerances may be one for each row; the result
  has rows (a solution each), lists status, message and stats, and ys (rows × times × state) where all rows have
  equally many. f is captured as for one equation
throw: boolean = true | false returns a failed or refused solve instead of raising (default of a batch)
adjoint_method: string? | of the backward solve; as forward by default, but "kvaerno5" for Rosenbrock and exponential
  methods and "auto", "tsit5" for symplectic ones
adjoint_rtol: number? | as forward by default
adjoint_atol: number? | as forward by default
adjoint_norm: string = "seminorm" | parameters stay out of the backward error; "rms": all count]],
      returns = "A table with the fields ts, ys (times × state, as y0 was given), last (the state at the "
        .. "last time), status (\"ok\", \"event\", \"max_steps\", \"dt_underflow\", \"nonfinite\", "
        .. "\"newton_failed\", \"bad_input\"), message, method, stats, grid (the times between the steps) and, "
        .. "with events, events {t, index, before, after} and event, the number of the one that ended the solve, "
        .. "whose time and state are the last row. Gradients reach y0, t, every tensor f and the events close over; "
        .. "event times and states have them too. A boolean event's time has the derivative zero.",
      errors = "The step size underflows, the state is no longer finite, or max_steps is reached: the "
        .. "message has the time, the step and the worst component.",
      source = "Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, II.4 (steps), II.6 "
        .. "(dense output); the step sizes are not differentiated.",
      example = [[
local sol = ode.solve(function(t, y) return {y[2], -y[1]} end, {1, 0}, {0, math.pi})
assert(math.abs(sol.last[1] + 1) < 1e-4)
local a = tide.tensor(0.5):requires_grad()
local s = ode.solve(function(t, y) return y * a end, tide.ones(1), {0, 1}, {rtol = 1e-8})
s.last:sum():backward()
assert(math.abs(a.grad:item() - math.exp(0.5)) < 1e-4)]]},
    {"Solution:explain", "-> string",
      "What happened, in words: why it ended, where steps were smallest, which components limited them.",
      example = [[
local sol = ode.solve(function(t, y) return y * y end, 1, {0, 2}, {throw = false})
assert(sol:explain():find("blows up"))]]},
    {"Solution:at", "t: number, side: string? -> state, state",
      "sol:at(t), or sol(t): y and dy/dt at a time inside the solve, with dense = true; side = \"left\" asks before "
        .. "a jump or a reset.",
      example = [[
local sol = ode.solve(function(t, y) return -y end, 1, {0, 1}, {dense = true})
assert(math.abs(sol(0.5) - math.exp(-0.5)) < 1e-5)]]},
    {"Solution:sensitivity", "x: tensor -> tensor",
      "The derivative of ys by x, times × state × shape of x, of a solve with grad = \"forward\". x is y0 or a tensor "
        .. "that f closes over and that needs a gradient; of a nested state, y0's parts get theirs by backward "
        .. "only.",
      example = [[
local k = tide.tensor({-0.5}, "float64"):requires_grad()
local sol = ode.solve(function(t, y) return y * k end, tide.ones(1), {0, 1, 2}, {grad = "forward"})
assert(math.abs(sol:sensitivity(k)[3]:item() - 2 * math.exp(-1)) < 1e-5)]],
      errors = "Another mode, or a tensor that f does not use.",
      source = "The variational equation, solved by the method itself with the state's error control (Hairer, Nørsett, "
        .. "Wanner, Solving ODEs I, I.14 and II.6)."},
    {"Solution.stats", "table",
      "nfe (evaluations), njev (Jacobians), nlu (factorisations), nfe_b (evaluations backward so far), replayed (steps "
        .. "made again between checkpoints), accepted, rejected, steps, h_min, h_max, t_first, t_last, saved, "
        .. "worst_index."},
    {"ode.odeint", "f: function, y0: state, t: numbers, opts: options? -> tensor|table",
      "The values at the times t, with torchdiffeq's names and defaults and exact gradients through the "
        .. "solver.",
      options = peers, note = "The last step lands on the last time, where torchdiffeq interpolates.",
      example = "ode.odeint(function(t, y) return -y end, tide.ones(1), {0, 1}).shape[1] --> 2"},
    {"ode.odeint_adjoint", "f: function, y0: state, t: numbers, opts: options? -> tensor|table",
      "odeint with the gradient of the continuous adjoint.",
      options = peers .. [[

adjoint_method: string? | of the backward solve
adjoint_rtol: number? | as forward by default
adjoint_atol: number? | as forward by default
adjoint_norm: string = "rms" | or "seminorm"
adjoint_params: tensor[]? | further tensors that need gradients]],
      source = "Chen et al. 2018."},
    {"ode.odeint_event", "f: function, y0: state, t0: number, opts: options -> tensor|number, tensor|table",
      "From t0 until event_fn changes its sign, however long that takes: the time, and the states at t0 and then.",
      options = peers .. [[

reverse_time: boolean = false | go back in time
odeint_interface: function? | taken for torchdiffeq's sake, not used]],
      errors = "No event happens.",
      example = [[
local t = ode.odeint_event(function(t, y) return y end, 1.3, 0, {event_fn = function(t, y) return y - math.exp(1) end})
assert(math.abs(t - (1 - math.log(1.3))) < 1e-6)]]},
    {"ode.solve_ivp", "fun: function, t_span: numbers, y0: state, opts: options? -> table",
      "SciPy's solve_ivp: fun(t, y, …args) from t_span[1] to t_span[2], with its method names (RK45, RK23, DOP853, "
        .. "Radau, BDF), step control and default tolerances.",
      options = [[
method: string = "RK45" | or any of ode.methods
t_eval: numbers? | the times to give; all steps by default
dense_output: boolean = false | sol(t) anywhere
events: function|table? | one or a list; {fn, terminal = true, direction = 1} for more
args: table? | further arguments of fun
rtol: number = 1e-3 | relative tolerance
atol: number = 1e-6 | absolute tolerance
first_step: number? | chosen by default
max_step: number? | no bound by default
jac: function? | see ode.solve
jac_sparsity: tensor|table? | see ode.solve
lband: integer? | with uband: the Jacobian is a band of so many diagonals below the main one
uband: integer? | and above]],
      returns = "A table with t, y (components × times), sol, t_events and y_events (a list for each event), nfev, "
        .. "njev, nlu, status (0; 1: a terminal event; -1: failed), message, success.",
      example = "ode.solve_ivp(function(t, y) return {-y[1]} end, {0, 1}, {1}).success --> true"},
    {"ode.methods", "table",
      "The methods by name: {name, source, family, order, error_order, dense_order, stages, stiff}, and their "
        .. "coefficients: fsal, a, b, c, e and extended (the rows of all stages that the extension uses) of explicit "
        .. "ones, or the tables dirk, rosenbrock, collocation.",
      note = "auto switches between tsit5 and rodas5p. Stiff and adaptive: rosenbrock23, ros3p, rodas4, rodas5p; "
        .. "kvaerno3, kvaerno4, kvaerno5, kencarp3, "
        .. "kencarp4, kencarp5 (their implicit halves), trbdf2, sdirk2, implicit_euler; radau5; bdf. With fixed steps: "
        .. "implicit_midpoint, trapezoid, radauIIA3, gl4, gl6. Symplectic, for states whose first half moves by the "
        .. "second and the other way round, with fixed steps: verlet, yoshida4, yoshida6, yoshida8. Reversible: "
        .. "alf, alf_damped, reversible_heun, "
        .. "mccallum_foster. Exponential, with the option linear and fixed steps: etd1, etdrk2, etdrk3, etdrk4, "
        .. "krogstad4; adaptive and without it: exprb32. Adams: abm (variable order "
        .. "and step), explicit_adams, implicit_adams (fixed steps). kvaerno4, kvaerno5 "
        .. "and the yoshida methods have stages beyond the step, and so evaluate f beyond the last time.",
      example = "ode.methods.rodas5p.order --> 5"},
    {"ode.controllers", "table",
      "The step controllers by name: exponents k1, k2, k3 of the last three errors and k4, k5 of the last ratios of "
        .. "step sizes, safety, shrink, grow.",
      note = "A table of such fields, or {pid = {p, i, d}}, may be given instead of a name.",
      source = "pi: Hairer, Nørsett, Wanner, II.4, β = 0.04; soderlind_pi, soderlind_pid: Söderlind 2003; "
        .. "i, torchdiffeq: elementary.",
      example = "ode.controllers.pi.safety --> 0.9"},
  },

  {
    title = "Steady states and noise",
    {"ode.steady_state", "f: function, y0: tensor, opts: options? -> tensor, table",
      "y with f(t, y) = 0 near y0, by pseudo-transient continuation, which follows the flow first and ends as "
        .. "Newton's method; its gradient by the implicit function theorem, with GMRES on products with the transposed "
        .. "Jacobian. "
        .. "The second result has status, residual and iterations.",
      options = [[
t: number = 0 | the time at which f is asked
rtol: number = 1e-10 | of |f|, relative to |y|
atol: number = 1e-12 | of |f|
max_iters: integer = 200 | steps
first_step: number = 0.1 | in pseudo-time; a smaller one follows the flow longer
gmres_rtol: number = 1e-12 | of the adjoint system
gmres_restart: integer = 60 | directions kept
gmres_iters: integer = 600 | at most
throw: boolean = true | false gives nil and the second result]],
      returns = "The state, through which gradients reach every tensor that f closes over (not y0), and a table.",
      errors = "No steady state was reached, or the adjoint system could not be solved.",
      source = "Kelley and Keyes 1998 (continuation); Saad and Schultz 1986 (GMRES).",
      example = [[
local p = tide.tensor({8}, "float64"):requires_grad()
local y = ode.steady_state(function(t, y) return p - y ^ 3 end, tide.ones({1}, "float64"))
y:sum():backward()
assert(math.abs(y:item() - 2) < 1e-9 and math.abs(p.grad:item() - 1 / 12) < 1e-9)]]},
    {"ode.brownian", "shape: integer[], t0: number, t1: number, opts: options? -> table",
      "A path of independent Brownian motions on [t0, t1], 0 at t0, that can be asked at any time in any order and "
        .. "gives the same for the same seed. path:at(t) gives W(t) and its time integral since t0; "
        .. "path:increment(s, t) gives W(t) − W(s) and ∫(W(r) − W(s)) dr.",
      options = [[
seed: integer = 0 | of the path
dtype: string = "float32" | of its values
depth: integer = 20 | resolved to (t1 − t0)/2^depth, straight lines within]],
      source = "Foster, Lyons and Oberhauser 2020; Jelinčič, Foster and Kidger 2024.",
      example = "ode.brownian({3}, 0, 1):at(0):sum():item() --> 0"},
    {"ode.sde", "f: function, g: function, y0: tensor, t: numbers, opts: options -> table",
      "Solves dy = f(t, y) dt + g(t, y) dW in fixed steps over a path, with values at the ascending times t. Gradients "
        .. "reach y0 and all that f and g close over, exact for the steps taken with the noise as it is.",
      options = [[
method: string = "euler_maruyama" | Itô, strong order 1/2; "milstein": Itô, diagonal noise, 1; "heun":
  Stratonovich, 1; "sra1": additive noise, 3/2
step_size: number | at most; every stretch between two times is divided evenly
path: table? | of ode.brownian; made from seed by default
seed: integer = 0 | of the path that is made
noise: string = "diagonal" | g is like y; "general": g is (elements of y) × m and the path has shape {m}
checkpoint: boolean = false | keep the states at the times only and repeat the steps in the backward pass]],
      returns = "ts, ys (times × state), last, path, stats.",
      source = "Maruyama 1955; Milstein 1975; Rümelin 1982; Rößler 2010.",
      example = [[
local s = ode.sde(function(t, y) return -y end, function(t, y) return y * 0 + 0.1 end, tide.ones(2), {0, 1},
  {method = "sra1", step_size = 0.01})
assert(s.ys.shape[1] == 2)]]},
    {"ode.sde_methods", "table",
      "The methods of ode.sde, each with the sense of its integral: ito, stratonovich or both.",
      example = 'ode.sde_methods.milstein --> ito'},
  },
}
