/* Rosenbrock methods, also for M y' = f: one Jacobian and ∂f/∂t a step, exact and at its start, and one linear system a
 * stage; no iteration that could fail. Since the Jacobian depends on the state, the transpose needs second derivatives
 * of f. */
#include "solve/rosenbrock.h"
#include <string.h>
#include "base/alloc.h"
#include "solve/implicit.h"

/* Vectors of the workspace. */
enum {
  STAGES = TD_ROSENBROCK_STAGES,
  U = 0, STATES = STAGES, BARS = 2 * STAGES, FT = 3 * STAGES, F0, RHS, W, YBAR, WT, ROOM
};

typedef struct {
  td_implicit m;
  const td_rosenbrock *d;
  double *ft;
} rosenbrock;

static td_status make(td_stepper *s) {
  rosenbrock *x = td_alloc(sizeof *x);
  if (!x) return td_last_status();
  *x = (rosenbrock){.d = s->method->table};
  s->own = x;
  td_stepper_room(s, 1);
  return td_implicit_make(&x->m, s, ROOM, 0, TD_NEEDS_FACTORS);
}

static void release(td_stepper *s) {
  rosenbrock *x = s->own;
  if (!x) return;
  td_implicit_free(&x->m);
  td_free(x, sizeof *x);
}

double td_rosenbrock_row_sum(const td_stepper *s, size_t rows) {
  return td_implicit_row_sum(&((const rosenbrock *)s->own)->m, rows);
}

static double *vector(const rosenbrock *x, int i) { return td_implicit_vector(&x->m, (size_t)i); }

static void add(size_t n, double *sum, double c, const double *x) {
  for (size_t i = 0; i < n; i++) sum[i] += c * x[i];
}
static double dot(size_t n, const double *a, const double *b) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

/* out = y + Σ w[j] u[j] */
static void advance_by(const rosenbrock *x, const double *w, int count, double *out) {
  memcpy(out, x->m.y, x->m.n * sizeof *out);
  for (int j = 0; j < count; j++)
    if (w[j] != 0) add(x->m.n, out, w[j], vector(x, U + j));
}

/* One stage: its state, f there, and u[i]. */
static td_status stage(td_stepper *s, rosenbrock *x, int i, double h) {
  const td_rosenbrock *d = x->d;
  size_t n = x->m.n;
  double *y = vector(x, STATES + i), *u = vector(x, U + i);
  advance_by(x, d->a[i], i, y);
  if (i == 0) memcpy(u, vector(x, F0), n * sizeof *u);
  else {
    td_status status = td_implicit_eval(&x->m, s, td_stepper_time(s, d->alpha[i]), y, u);
    if (status) return status;
  }
  double *sum = vector(x, RHS);
  memset(sum, 0, n * sizeof *sum);
  for (int j = 0; j < i; j++)
    if (d->c[i][j] != 0) add(n, sum, d->c[i][j] / h, vector(x, U + j));
  add(n, u, 1, td_implicit_mass(&x->m, s, false, sum));
  if (d->d[i] != 0) add(n, u, h * d->d[i], vector(x, FT));
  return td_implicit_solve(&x->m, s, false, 0, u);
}

/* All stages from (t, y). *regular: the matrix could be factored. */
static td_status run_stages(td_stepper *s, rosenbrock *x, bool *regular) {
  double h = s->end - s->t;
  td_implicit_load(&x->m, s);
  td_status status = x->m.current ? td_stepper_slope(s) : td_implicit_refresh(&x->m, s, vector(x, FT));
  if (status) return status;
  td_implicit_widen(s, s->f0, vector(x, F0));
  *regular = td_implicit_factor(&x->m, s, 1 / (h * x->d->gamma));
  for (int i = 0; i < x->d->stages && *regular && !status; i++) status = stage(s, x, i, h);
  return status;
}

/* err += (M/(hγ) − J)⁻¹ (M(y₁ − y) − h/2 (f(t, y) + f(t₁, y₁)))/(hγ) */
static td_status add_defect(td_stepper *s, rosenbrock *x, const double *y1, double *err) {
  size_t n = x->m.n;
  double h = s->end - s->t, *r = vector(x, YBAR), *f1 = vector(x, WT);
  for (size_t i = 0; i < n; i++) r[i] = y1[i] - x->m.y[i];
  memcpy(r, td_implicit_mass(&x->m, s, false, r), n * sizeof *r);
  td_status status = td_stepper_eval(s, s->last_time, s->y1, s->f1);
  if (status) return status;
  s->have_f1 = true;
  td_implicit_widen(s, s->f1, f1);
  for (size_t i = 0; i < n; i++) r[i] = (r[i] / h - 0.5 * (vector(x, F0)[i] + f1[i])) / x->d->gamma;
  status = td_implicit_solve(&x->m, s, false, 0, r);
  if (!status) add(n, err, 1, r);
  return status;
}

static td_status step(td_stepper *s, td_step_result *result) {
  rosenbrock *x = s->own;
  bool regular;
  td_status status = run_stages(s, x, &regular);
  if (status) return status;
  if (!regular) {
    *result = td_newton_failed(s, TD_NEWTON_NONFINITE);
    return TD_OK;
  }
  double *y1 = vector(x, RHS), *err = vector(x, W);
  advance_by(x, x->d->m, x->d->stages, y1);
  td_implicit_narrow(s, y1, s->y1);
  memset(err, 0, x->m.n * sizeof *err);
  for (int i = 0; i < x->d->stages; i++)
    if (x->d->e[i] != 0) add(x->m.n, err, x->d->e[i], vector(x, U + i));
  if (x->d->blind && (status = add_defect(s, x, y1, err))) return status;
  td_implicit_narrow(s, err, td_stepper_vector(s, 0));
  s->error = (td_terms){.count = 1, .coef = {1}, .x = {td_stepper_vector(s, 0)}};
  return TD_OK;
}

static td_status start(td_stepper *s) {
  rosenbrock *x = s->own;
  x->m.have_jacobian = x->m.current = false;
  return TD_OK;
}
static td_status load(td_stepper *s, const char *from) {
  (void)from;
  return start(s);
}
static td_status accept(td_stepper *s) { return start(s); }

/* Weights of u at θ, or of their derivative by θ. */
static void weights(const td_rosenbrock *d, double theta, bool slope, double *w) {
  for (int i = 0; i < d->stages; i++) {
    double sum = 0;
    for (int j = TD_ROSENBROCK_TERMS - 1; j >= 0; j--)
      sum = slope ? sum * theta + (j + 1) * d->dense[i][j] : (sum + d->dense[i][j]) * theta;
    w[i] = sum;
  }
}

static td_status dense(td_stepper *s, double theta, void *y, void *slope) {
  rosenbrock *x = s->own;
  double w[STAGES], *out = vector(x, RHS);
  if (y) {
    weights(x->d, theta, false, w);
    advance_by(x, w, x->d->stages, out);
    td_implicit_narrow(s, out, y);
  }
  if (slope) {
    weights(x->d, theta, true, w);
    memset(out, 0, x->m.n * sizeof *out);
    for (int i = 0; i < x->d->stages; i++) add(x->m.n, out, w[i] / (s->end - s->t), vector(x, U + i));
    td_implicit_narrow(s, out, slope);
  }
  return TD_OK;
}

/* ---- One step transposed ---- */

static void back_values(td_stepper *s, rosenbrock *x, const td_step_back *b) {
  size_t n = x->m.n;
  const td_rosenbrock *d = x->d;
  double w[STAGES], *cotangent = vector(x, W), *ybar = vector(x, YBAR);
  memset(vector(x, BARS), 0, (size_t)STAGES * n * sizeof(double));
  td_implicit_widen(s, b->lambda, ybar);
  for (int i = 0; i < d->stages; i++) add(n, vector(x, BARS + i), d->m[i], ybar);
  for (size_t k = 0; k < b->ndense; k++) {
    td_implicit_widen(s, b->w[k], cotangent);
    add(n, ybar, 1, cotangent);
    weights(d, b->theta[k], false, w);
    for (int i = 0; i < d->stages; i++) add(n, vector(x, BARS + i), w[i], cotangent);
    if (!b->theta_bar) continue;
    weights(d, b->theta[k], true, w);
    b->theta_bar[k] = 0;
    for (int i = 0; i < d->stages; i++) b->theta_bar[k] += w[i] * dot(n, vector(x, U + i), cotangent);
  }
}

/* The cotangent v of stage i's right-hand side takes the place of that of u[i]. */
static td_status back_stage(td_stepper *s, rosenbrock *x, const td_step_back *b, int i) {
  const td_rosenbrock *d = x->d;
  size_t n = x->m.n;
  double h = s->end - s->t, tau = 0, *v = vector(x, BARS + i), *ystage = vector(x, W);
  double t = i == 0 ? s->first_time : td_stepper_time(s, d->alpha[i]);
  td_status status = td_implicit_solve(&x->m, s, true, 0, v);
  if (!status) status = td_implicit_vjp(&x->m, s, t, vector(x, STATES + i), v, ystage, &tau, b->dexternal);
  if (status) return status;
  add(n, vector(x, YBAR), 1, ystage);
  add(n, vector(x, WT), h * d->d[i], v);
  const double *mv = td_implicit_mass(&x->m, s, true, v);
  for (int j = 0; j < i; j++) {
    add(n, vector(x, BARS + j), d->a[i][j], ystage);
    add(n, vector(x, BARS + j), d->c[i][j] / h, mv);
  }
  if (b->tbar) *b->tbar += tau;
  if (!b->hbar) return TD_OK;
  double sum = d->alpha[i] * tau + d->d[i] * dot(n, v, vector(x, FT)) +
               dot(n, mv, vector(x, U + i)) / (h * h * d->gamma);
  for (int j = 0; j < i; j++) sum -= d->c[i][j] / (h * h) * dot(n, mv, vector(x, U + j));
  *b->hbar += sum;
  return TD_OK;
}

static td_status back(td_stepper *s, td_step_back *b) {
  rosenbrock *x = s->own;
  bool regular;
  if (!s->f->record)
    return td_fail(TD_EGRAD, "%s: the gradient of a Rosenbrock method needs second derivatives of the right-hand side, "
                   "which %s does not give; write it on tensors, or use method = \"kvaerno5\" or \"radau5\"",
                   s->f->who, s->f->kind);
  td_status status = run_stages(s, x, &regular);
  if (!status && !regular) status = td_newton_lost(s);
  if (status) return status;
  back_values(s, x, b);
  memset(vector(x, WT), 0, x->m.n * sizeof(double));
  for (int i = x->d->stages - 1; i >= 0 && !status; i--) status = back_stage(s, x, b, i);
  if (!status)
    status = td_implicit_second(&x->m, s, s->first_time, x->m.y, (size_t)x->d->stages, vector(x, BARS), vector(x, U),
                                vector(x, WT), vector(x, YBAR), b->tbar, b->dexternal);
  if (!status) td_implicit_narrow(s, vector(x, YBAR), b->lambda);
  return status;
}

const td_family td_family_rosenbrock = {
  .name = "Rosenbrock", .stiff = true, .mass = true, .make = make, .free = release, .start = start, .step = step, .accept = accept,
  .dense = dense, .load = load, .back = back,
};
