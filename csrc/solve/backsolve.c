/* The continuous adjoint: the state y, its cotangent a and the parameters' gradients are integrated together
 * from each save time back to the one before, y starting anew from the saved value. Memory does not grow
 * with the number of steps; the gradient is as accurate as the backward solve, and wrong where y cannot be
 * integrated backwards. `frozen` holds a at its end value. Chen, Rubanova, Bettencourt, Duvenaud 2018, with
 * the seminorm of Kidger, Chen, Lyons 2021. `interp` takes y from the forward solve's extension, and `gauss` the
 * parameters out of the state too: their integrals are sums over each backward step (Gauss–Legendre).
 *
 * Implicit methods see the diagonal blocks of this system's Jacobian alone, ∂f/∂y of y and −(∂f/∂y)ᵀ of a: what is left
 * out is below the diagonal, where Newton's iteration needs no more than further rounds, and the parameters, of which
 * nothing depends, stay out of its matrix as in CVODES. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"
#include "solve/band.h"
#include "solve/implicit.h"
#include "solve/path.h"
#include "solve/sweep.h"

/* The field over the flat state [y, a, dL/dθ…]: y' = f, a' = −aᵀ∂f/∂y, (dL/dθ)' = −aᵀ∂f/∂θ; without y when it comes
 * from the path. */
typedef struct {
  td_field field;
  const td_ode_recorded *r;
  td_field *f;
  td_path *path;          /* NULL: y is part of the state */
  bool gauss;             /* the parameters are not */
  char *y, *dy;           /* rooms when y is not, and with gauss two more vectors */
  char *a, *da;
  td_tensor **sum;        /* with gauss: the parameters' gradients so far */
  td_tensor **dexternal;  /* of one evaluation */
  /* for implicit methods: where the Jacobian's blocks are, and ∂f/∂y */
  td_pattern *pattern;
  td_stepper inner;
  td_implicit m;
  td_step_counts counts;
  double *jacobian, *wide;
} adjoint_field;

static void negate(const td_field *f, char *x, size_t n) {
  const double minus = -1;
  const void *from = x;
  td_k(f->dtype)->lincomb(x, NULL, 1, &minus, &from, n);
}

/* A tensor on part of a flat array's values, copied there; NULL is zero. */
static td_status put_tensor(td_dtype d, char *to, const td_tensor *like, td_tensor *x) {
  size_t bytes = like->numel * td_dtype_size(d);
  if (!x) {
    if (bytes) memset(to, 0, bytes);
    return TD_OK;
  }
  td_tensor *flat = td_auto(td_tensor_new(d, like->ndim, like->shape));
  td_status s = flat ? td_tensor_copy(flat, x) : td_last_status();
  if (!s && bytes) memcpy(to, flat->data, bytes);
  return s;
}

/* The parameters' part of the derivative: what vjp left in dexternal, negated. */
static td_status put_parameters(adjoint_field *a, char *to) {
  td_status s = TD_OK;
  for (size_t i = 0; i < a->f->nexternals && !a->gauss; i++) {
    const td_tensor *e = a->f->externals[i];
    if (!s) s = put_tensor(a->field.dtype, to, e, a->dexternal[i]);
    negate(&a->field, to, e->numel);
    to += e->numel * td_dtype_size(a->field.dtype);
    td_tensor_release(a->dexternal[i]);
    a->dexternal[i] = NULL;
  }
  return s;
}

static td_status adjoint_eval(td_field *self, double t, const void *flat, void *dflat) {
  adjoint_field *a = (adjoint_field *)self;
  size_t mark = td_auto_mark(), bytes = a->f->numel * td_dtype_size(a->f->dtype);
  const char *y = a->path ? a->y : flat, *cotangent = a->path ? flat : (const char *)flat + bytes;
  char *da = a->path ? dflat : (char *)dflat + bytes;
  td_status s = a->path ? td_path_at(a->path, t, true, a->y, NULL) : TD_OK;
  if (!s) s = td_field_keep(a->f, 0, t, y, a->path ? a->dy : dflat);
  if (a->r->nfe_backward) ++*a->r->nfe_backward;
  if (!s) s = td_field_pull(a->f, 0, cotangent, da, NULL, a->gauss ? NULL : a->dexternal);
  td_field_forget(a->f);
  if (!s) {
    if (a->r->mode == TD_ODE_FROZEN) {
      if (bytes) memset(da, 0, bytes);
    } else {
      negate(a->f, da, a->f->numel);
    }
  }
  td_status put = put_parameters(a, da + bytes);
  td_auto_release(mark);
  return s ? s : put;
}

/* ---- The Jacobian ---- */

/* a->jacobian = ∂f/∂y at t. */
static td_status find_jacobian(adjoint_field *a, double t, const void *flat) {
  td_status s = a->path ? td_path_at(a->path, t, true, a->y, NULL) : TD_OK;
  if (s) return s;
  td_implicit_widen(&a->inner, a->path ? a->y : flat, a->wide);
  size_t before = a->counts.nfe;
  s = td_implicit_jacobian(&a->m, &a->inner, t, a->wide, a->jacobian, NULL, NULL);
  if (a->r->nfe_backward) *a->r->nfe_backward += a->counts.nfe - before;
  return s;
}

/* Entry (i, j) of the diagonal blocks. */
static double entry(const adjoint_field *a, size_t i, size_t j) {
  size_t n = a->f->numel, own = a->path ? 0 : n;  /* where a begins */
  if (i < own) return j < own ? a->jacobian[i * n + j] : 0;
  if (i >= own + n || j < own || j >= own + n || a->r->mode == TD_ODE_FROZEN) return 0;
  return -a->jacobian[(j - own) * n + i - own];
}

static td_status adjoint_entries(td_field *self, double t, const void *flat, const td_pattern *p, double *values) {
  adjoint_field *a = (adjoint_field *)self;
  td_status s = find_jacobian(a, t, flat);
  for (size_t i = 0; i < p->n && !s; i++)
    for (size_t k = p->start[i]; k < p->start[i + 1]; k++) values[k] = entry(a, i, p->column[k]);
  return s;
}

static td_status adjoint_jacobian(td_field *self, double t, const void *flat, double *jacobian, double *ft) {
  adjoint_field *a = (adjoint_field *)self;
  size_t n = self->numel;
  (void)ft;  /* which Rosenbrock methods ask for: they are refused */
  td_status s = find_jacobian(a, t, flat);
  for (size_t i = 0; i < n && !s; i++)
    for (size_t j = 0; j < n; j++) jacobian[i * n + j] = entry(a, i, j);
  return s;
}

/* The diagonal blocks' places, each full; a parameter has its own place on the diagonal. */
static td_status make_pattern(adjoint_field *a, size_t total) {
  size_t n = a->f->numel, blocks = a->path ? 1 : 2, count = blocks * n * n + (total - blocks * n);
  double *start = td_alloc((total + 1) * sizeof *start), *column = td_alloc((count + 1) * sizeof *column);
  size_t at = 0;
  for (size_t i = 0; start && column && i < total; i++) {
    start[i] = (double)at;
    if (i >= blocks * n) column[at++] = (double)i;
    for (size_t j = 0; i < blocks * n && j < n; j++) column[at++] = (double)(i / n * n + j);
    start[i + 1] = (double)at;
  }
  if (start && column && total) a->pattern = td_pattern_new(total, start, column);
  bool failed = total && !a->pattern;
  td_free(start, (total + 1) * sizeof *start);
  td_free(column, (count + 1) * sizeof *column);
  return failed ? td_last_status() : TD_OK;
}

static td_status open_jacobian(adjoint_field *a, size_t total) {
  td_field *f = a->f;
  size_t n = f->numel;
  a->inner = (td_stepper){.method = a->r->adjoint.method, .o = &a->r->o, .f = f, .n = n,
                          .bytes = n * td_dtype_size(f->dtype), .counts = &a->counts};
  td_status s = td_implicit_make(&a->m, &a->inner, 1, 0, TD_NEEDS_MATRIX);
  if (s) return s;
  a->jacobian = a->m.jacobian;
  a->wide = td_implicit_vector(&a->m, 0);
  a->field.jacobian = adjoint_jacobian;
  a->field.entries = adjoint_entries;
  return make_pattern(a, total);
}

/* *sum += sign·⟨a, f(t, y)⟩ */
static td_status add_time_slope(const td_ode_recorded *r, double t, const void *y, const void *a, double sign,
                                double *sum) {
  td_field *f = r->f;
  td_stepper view = {.f = f, .n = f->numel};
  size_t bytes = f->numel * td_dtype_size(f->dtype);
  void *dy = td_alloc(bytes + 1);
  if (!dy) return td_last_status();
  if (r->nfe_backward) ++*r->nfe_backward;
  td_status s = f->eval(f, t, y, dy);
  if (!s) *sum += sign * td_stepper_dot(&view, a, dy);
  td_free(dy, bytes + 1);
  return s;
}

/* ---- Quadrature ---- */

enum { MOST_NODES = 6 };

/* Nodes in (0, 1) and weights of Gauss and Legendre: the roots of the polynomial by Newton's iteration. */
static void gauss_rule(int n, double *node, double *weight) {
  for (int i = 0; i < n; i++) {
    double x = cos(acos(-1) * (i + 0.75) / (n + 0.5)), slope = 1;
    for (int k = 0; k < 50; k++) {
      double p = x, before = 1;
      for (int j = 2; j <= n; j++) {
        double next = ((2 * j - 1) * x * p - (j - 1) * before) / j;
        before = p;
        p = next;
      }
      slope = n * (x * p - before) / (x * x - 1);
      x -= p / slope;
    }
    node[i] = (1 - x) / 2;
    weight[i] = 1 / ((1 - x * x) * slope * slope);
  }
}

/* Adds the step's part of ∫ aᵀ∂f/∂θ dt, by as many nodes as the method's order deserves. */
static td_status add_quadrature(void *data, td_stepper *s) {
  adjoint_field *a = data;
  double node[MOST_NODES], weight[MOST_NODES], h = s->end - s->t;
  int n = s->method->order / 2 + 1 < MOST_NODES ? s->method->order / 2 + 1 : MOST_NODES;
  gauss_rule(n, node, weight);
  td_status status = TD_OK;
  for (int i = 0; i < n && !status; i++) {
    size_t mark = td_auto_mark();
    double t = s->t + node[i] * h, scale = -h * weight[i];  /* the solve goes back, the integral does not */
    const void *cotangent = a->a;
    status = s->method->family->dense(s, node[i], a->a, NULL);
    if (!status) status = td_path_at(a->path, t, true, a->y, NULL);
    if (!status) status = td_field_keep(a->f, 0, t, a->y, a->dy);
    if (!status && a->r->nfe_backward) ++*a->r->nfe_backward;
    if (!status) td_stepper_combine(s, a->a, NULL, 1, &scale, &cotangent);
    if (!status) status = td_field_pull(a->f, 0, a->a, a->da, NULL, a->sum);
    td_field_forget(a->f);
    td_auto_release(mark);
  }
  return status;
}

static td_status integrate_back(const td_sweep *w, adjoint_field *a, char *flat, double from, double to) {
  td_ode_solution back;
  td_ode_options o = w->r->adjoint;
  o.unrecorded = true;
  o.pattern = a->pattern;
  o.norm_count = w->r->seminorm ? (a->path ? 1 : 2) * a->f->numel : 0;
  if (a->gauss) o.watch = add_quadrature, o.watch_data = a;
  td_status s = td_ode_integrate(&a->field, flat, (const double[]){from, to}, 2, &o, &back);
  if (!s && back.status != TD_ODE_OK)
    s = td_fail(TD_ESOLVE, "ode.solve: the backward solve failed: %s; loosen adjoint_rtol, or use "
                "grad = \"discrete\"", back.message);
  size_t bytes = a->field.numel * td_dtype_size(a->field.dtype);
  if (!s && bytes) memcpy(flat, back.ys->data + bytes, bytes);
  td_ode_solution_free(&back);
  return s;
}

/* Where the cotangent is in the flat state. */
static char *cotangent_of(const adjoint_field *a, char *flat) {
  return flat + (a->path ? 0 : a->f->numel * td_dtype_size(a->f->dtype));
}

static const char *row_of(const td_tensor *rows, const td_field *f, size_t i) {
  return rows->data + i * f->numel * td_dtype_size(f->dtype);
}

static void add_to(const td_field *f, char *sum, const void *x) {
  td_stepper view = {.f = (td_field *)f, .n = f->numel, .k = td_k(f->dtype)};
  double one = 1;
  td_stepper_combine(&view, sum, sum, 1, &one, &x);
}

/* From save time i to save time i − 1. */
static td_status segment_back(td_sweep *w, adjoint_field *a, char *flat, size_t i) {
  const td_ode_recorded *r = w->r;
  size_t bytes = a->f->numel * td_dtype_size(a->f->dtype);
  const char *y = row_of(r->solution.ys, a->f, i), *seed = row_of(w->dys, a->f, i);
  td_status s = TD_OK;
  if (bytes && !a->path) memcpy(flat, y, bytes);
  if (w->dtimes) s = add_time_slope(r, r->ts[i], y, seed, 1, &w->dtimes[i]);
  add_to(a->f, cotangent_of(a, flat), seed);
  if (!s && r->ts[i] != r->ts[i - 1]) s = integrate_back(w, a, flat, r->ts[i], r->ts[i - 1]);
  return s;
}

/* A tensor of like's shape with the values at `from`, in the flat state's type. */
static td_tensor *taken(td_dtype d, int ndim, const size_t *shape, const char *from) {
  td_tensor *x = td_auto(td_tensor_new(d, ndim, shape));
  if (x && x->numel) memcpy(x->data, from, x->numel * td_dtype_size(d));
  return x;
}

/* The flat state at the first time, into the sweep. */
static td_status take_apart(td_sweep *w, adjoint_field *a, char *flat) {
  const td_field *f = a->f;
  char *cotangent = cotangent_of(a, flat);
  size_t size = td_dtype_size(f->dtype), offset = f->numel * size;
  add_to(f, cotangent, row_of(w->dys, f, 0));
  w->lambda = td_tensor_retain(taken(f->dtype, f->ndim, f->shape, cotangent));
  if (!w->lambda) return td_last_status();
  td_status s = TD_OK;
  for (size_t i = 0; i < f->nexternals && !s && !a->gauss; i++) {
    const td_tensor *e = f->externals[i];
    td_tensor *x = taken(f->dtype, e->ndim, e->shape, cotangent + offset);
    s = x ? td_field_add(&w->dexternal[i], x) : td_last_status();
    offset += e->numel * size;
  }
  return s;
}

static td_status sweep_segments(td_sweep *w, adjoint_field *a, char *flat) {
  const td_ode_recorded *r = w->r;
  td_status s = TD_OK;
  for (size_t i = r->nt; i-- > 1 && !s;) {
    size_t mark = td_auto_mark();
    s = segment_back(w, a, flat, i);
    td_auto_release(mark);
  }
  const char *y0 = row_of(r->solution.ys, r->f, 0);
  if (!s && w->dtimes)
    s = add_time_slope(r, r->ts[0], y0, cotangent_of(a, flat), -1, &w->dtimes[0]);
  return s ? s : take_apart(w, a, flat);
}

static void keep_field(td_field *f) { (void)f; }

/* The path of the forward solve, and rooms for its values. */
static td_status open_path(adjoint_field *a, td_path *path, size_t bytes) {
  td_ode_recorded *r = (td_ode_recorded *)a->r;
  a->y = td_alloc(4 * bytes + 1);
  if (!a->y) return td_last_status();
  a->dy = a->y + bytes;
  a->a = a->dy + bytes;
  a->da = a->a + bytes;
  a->path = path;
  return td_path_make(path, &r->solution.path, &r->o, r->f);
}

td_status td_sweep_backsolve(td_sweep *w) {
  td_field *f = w->r->f;
  td_path path = {0};
  bool interp = td_ode_over_path(w->r->mode) && w->r->solution.path.n, gauss = interp && w->r->mode == TD_ODE_GAUSS;
  size_t total = (interp ? 1 : 2) * f->numel, count = f->nexternals + 1;
  for (size_t i = 0; i < f->nexternals && !gauss; i++) total += f->externals[i]->numel;
  size_t size = td_dtype_size(f->dtype), bytes = total * size + 1;
  adjoint_field a = {.field = {.who = f->who, .kind = "a continuous adjoint", .dtype = f->dtype, .ndim = 1,
                               .numel = total, .shape = {total}, .eval = adjoint_eval, .free = keep_field},
                     .r = w->r, .f = f, .gauss = gauss, .sum = w->dexternal};
  char *flat = td_alloc(bytes);
  a.dexternal = td_alloc(count * sizeof *a.dexternal);
  td_status s = flat && a.dexternal ? TD_OK : td_last_status();
  if (!s && interp) s = open_path(&a, &path, f->numel * size);
  if (!s && w->r->adjoint.method->family->stiff) s = open_jacobian(&a, total);
  if (!s) {
    memset(flat, 0, bytes);
    memset(a.dexternal, 0, count * sizeof *a.dexternal);
    f->time_wanted = false;
    s = sweep_segments(w, &a, flat);
  }
  td_implicit_free(&a.m);
  td_pattern_free(a.pattern);
  if (interp && w->r->nfe_backward) *w->r->nfe_backward += path.counts.nfe;
  if (interp) td_path_free(&path);
  td_free(a.y, a.y ? 4 * f->numel * size + 1 : 0);
  td_free(flat, bytes);
  td_free(a.dexternal, count * sizeof *a.dexternal);
  return s;
}
