/* Fully implicit Runge–Kutta methods (Hairer, Wanner, Solving ODEs II, IV.8). The stages' system is transformed so that
 * each simplified Newton step is one real and one complex system of the state's size. Radau IIA with three stages
 * carries the error estimate and the step control of that book's code; Gauss methods and two-stage Radau have fixed
 * steps. The extension is the collocation polynomial. */
#include "solve/irk.h"
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "solve/dense.h"
#include "solve/implicit.h"
#include "solve/integrate.h"

enum { MAX = TD_COLLOCATION_STAGES };
/* Vectors of the workspace, MAX each: stage increments, transformed ones, updates, f at the stages, slopes; those of
 * the last step for the first guess; then scratch. */
enum { Z = 0, W = MAX, DELTA = 2 * MAX, F = 3 * MAX, K = 4 * MAX, OLD = 5 * MAX, PAIR = 6 * MAX, ERR = PAIR + 2, Y, ROOM };

typedef struct {
  td_implicit m;
  td_collocation k;
  double b_z[MAX];           /* y₁ = y + Σ b_z[i] Z[i] */
  double c_lu_shift;         /* step that the complex factors were made with; 0: none */
  double *complex_lu;
  size_t *complex_pivot;
  double old_h;              /* of the last accepted step; 0: none */
  double h_before, error_before;
  int iterations;
  double rate;
  bool tried;                /* a step was tried from this point, and rejected */
  bool fresh;                /* no step was accepted yet */
  bool accurate;
  bool renew;                /* the Jacobian served badly */
} irk;

static double *vector(const irk *x, int i) { return td_implicit_vector(&x->m, (size_t)i); }

static void add(size_t n, double *sum, double c, const double *v) {
  for (size_t i = 0; i < n; i++) sum[i] += c * v[i];
}
static double dot(size_t n, const double *a, const double *b) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

static td_status make(td_stepper *s) {
  irk *x = td_alloc(sizeof *x);
  if (!x) return td_last_status();
  const td_irk *d = s->method->table;
  long double c[MAX];
  d->nodes(c);
  *x = (irk){.k = td_collocation_from(d->stages, c), .fresh = true};
  int n = d->stages;
  x->accurate = x->k.c[n - 1] == 1;
  for (int j = 0; j < n; j++)
    for (int i = 0; i < n; i++) x->b_z[j] += x->k.b[i] * x->k.inverse[i][j];
  s->own = x;
  td_stepper_room(s, 1);
  td_status status = td_implicit_make(&x->m, s, ROOM, 2 * s->n * s->n, TD_NEEDS_MATRIX);
  if (status) return status;
  x->complex_lu = vector(x, ROOM);
  x->complex_pivot = td_alloc((s->n + 1) * sizeof(size_t));
  return x->complex_pivot ? TD_OK : td_last_status();
}

static void release(td_stepper *s) {
  irk *x = s->own;
  if (!x) return;
  td_free(x->complex_pivot, x->complex_pivot ? (x->m.n + 1) * sizeof(size_t) : 0);
  td_implicit_free(&x->m);
  td_free(x, sizeof *x);
}

/* ---- Newton's iteration ---- */

/* Both matrices for a step of h. */
static bool factor(td_stepper *s, irk *x, double h) {
  size_t n = x->m.n;
  if (x->k.has_real && !td_implicit_factor(&x->m, s, x->k.real / h)) return false;
  if (x->c_lu_shift == h) return true;
  double *a = x->complex_lu;
  for (size_t i = 0; i < n * n; i++) a[2 * i] = -x->m.jacobian[i], a[2 * i + 1] = 0;
  for (size_t i = 0; i < n; i++)
    for (size_t j = s->o->mass ? 0 : i; j < (s->o->mass ? n : i + 1); j++) {
      double mass = td_implicit_mass_at(s, i, j);
      a[2 * (i * n + j)] += x->k.re / h * mass;
      a[2 * (i * n + j) + 1] = x->k.im / h * mass;
    }
  s->counts->nlu++;
  x->c_lu_shift = td_lu_factor_complex(a, x->complex_pivot, n) ? h : 0;
  return x->c_lu_shift != 0;
}

/* out[i] = Σ m[i][j] in[j] over stages. */
static void mix(const irk *x, const double m[MAX][MAX], int in, int out) {
  size_t n = x->m.n;
  for (int i = 0; i < x->k.stages; i++) {
    memset(vector(x, out + i), 0, n * sizeof(double));
    for (int j = 0; j < x->k.stages; j++) add(n, vector(x, out + i), m[i][j], vector(x, in + j));
  }
}

/* One Newton update: DELTA becomes the change of Z, which is made. */
static void newton_update(td_stepper *s, irk *x, double h) {
  size_t n = x->m.n;
  int p = x->k.has_real;
  mix(x, x->k.t_inverse, F, DELTA);
  double *a = vector(x, DELTA + p), *b = vector(x, DELTA + p + 1), *pair = vector(x, PAIR);
  double *wa = vector(x, ERR), *wb = vector(x, Y);
  if (p) {
    double *r = vector(x, DELTA);
    add(n, r, -x->k.real / h, td_implicit_mass(&x->m, s, false, vector(x, W)));
    td_lu_solve(x->m.lu, x->m.pivot, n, false, r);
  }
  memcpy(wa, td_implicit_mass(&x->m, s, false, vector(x, W + p)), n * sizeof *wa);
  memcpy(wb, td_implicit_mass(&x->m, s, false, vector(x, W + p + 1)), n * sizeof *wb);
  for (size_t i = 0; i < n; i++) {
    pair[2 * i] = a[i] - (x->k.re * wa[i] - x->k.im * wb[i]) / h;
    pair[2 * i + 1] = b[i] - (x->k.im * wa[i] + x->k.re * wb[i]) / h;
  }
  td_lu_solve_complex(x->complex_lu, x->complex_pivot, n, false, pair);
  for (size_t i = 0; i < n; i++) a[i] = pair[2 * i], b[i] = pair[2 * i + 1];
  for (int i = 0; i < x->k.stages; i++) add(n, vector(x, W + i), 1, vector(x, DELTA + i));
  mix(x, x->k.t, DELTA, F);
  memcpy(vector(x, DELTA), vector(x, F), (size_t)x->k.stages * n * sizeof(double));
  mix(x, x->k.t, W, Z);
}

static td_status iterate(td_stepper *s, irk *x, double h, td_newton_verdict *verdict) {
  size_t n = x->m.n;
  td_newton w = td_newton_begin(&x->m, s);
  if (w.most == 10) w.most = 6;
  mix(x, x->k.t_inverse, Z, W);
  for (*verdict = TD_NEWTON_GO_ON; *verdict == TD_NEWTON_GO_ON;) {
    for (int i = 0; i < x->k.stages; i++) {
      double *y = vector(x, Y);
      memcpy(y, x->m.y, n * sizeof *y);
      add(n, y, 1, vector(x, Z + i));
      td_status status = td_implicit_eval(&x->m, s, td_stepper_time(s, x->k.c[i]), y, vector(x, F + i));
      if (status) return status;
    }
    newton_update(s, x, h);
    *verdict = td_newton_judge(&w, &x->m, s, vector(x, DELTA), x->k.stages);
  }
  x->iterations = w.usual;
  x->rate = w.usual_rate;
  return TD_OK;
}

/* The stages to begin with: the last step's polynomial prolonged, or nothing. */
static void guess(irk *x, double h) {
  size_t n = x->m.n;
  memset(vector(x, Z), 0, (size_t)x->k.stages * n * sizeof(double));
  if (x->old_h == 0 || x->m.exact) return;
  double at_end[MAX], w[MAX];
  td_collocation_weights(&x->k, 1, false, at_end);
  for (int i = 0; i < x->k.stages; i++) {
    td_collocation_weights(&x->k, 1 + x->k.c[i] * h / x->old_h, false, w);
    for (int j = 0; j < x->k.stages; j++)
      add(n, vector(x, Z + i), x->old_h * (w[j] - at_end[j]), vector(x, OLD + j));
  }
}

/* The stages, with a new Jacobian when the old one does not do; slopes from the increments. */
static td_status solve_stages(td_stepper *s, irk *x, td_newton_verdict *verdict) {
  double h = s->end - s->t;
  td_implicit_load(&x->m, s);
  bool reuse = x->m.have_jacobian && (x->m.current || !x->m.exact);
  for (int attempt = reuse ? 0 : 1; attempt < 2; attempt++) {
    td_status status = TD_OK;
    if (attempt == 1 && !x->m.current) {
      status = td_implicit_refresh(&x->m, s, NULL);
      x->c_lu_shift = 0;
    }
    if (!status) status = td_stepper_slope(s);
    if (status) return status;
    *verdict = TD_NEWTON_DIVERGED;
    if (factor(s, x, h)) {
      guess(x, h);
      status = iterate(s, x, h, verdict);
      if (status) return status;
    }
    if (*verdict == TD_NEWTON_CONVERGED) {
      mix(x, x->k.inverse, Z, K);
      for (int i = 0; i < x->k.stages; i++)
        for (size_t e = 0; e < x->m.n; e++) vector(x, K + i)[e] /= h;
      return TD_OK;
    }
    if (x->m.current) break;
  }
  return TD_OK;
}

/* ---- The step ---- */

/* (γ₀/h − J)⁻¹ (f(t, y) + Σ eᵢ Zᵢ/h), and once more at y + error where that is too large at first. */
static td_status estimate(td_stepper *s, irk *x) {
  static const double root6 = 2.449489742783178;
  const double e[MAX] = {(-13 - 7 * root6) / 3, (-13 + 7 * root6) / 3, -1. / 3};
  size_t n = x->m.n;
  double h = s->end - s->t, *err = vector(x, ERR), *y = vector(x, Y);
  double *moved = vector(x, PAIR);
  memset(moved, 0, n * sizeof *moved);
  for (int i = 0; i < MAX; i++) add(n, moved, e[i] / h, vector(x, Z + i));
  if (s->o->mass) memcpy(moved, td_implicit_mass(&x->m, s, false, moved), n * sizeof *moved);
  td_implicit_widen(s, s->f0, err);
  add(n, err, 1, moved);
  td_lu_solve(x->m.lu, x->m.pivot, n, false, err);
  memcpy(y, x->m.y, n * sizeof *y);
  add(n, y, 1, vector(x, Z + MAX - 1));
  td_implicit_scale(&x->m, s, x->m.y, y);
  if ((x->fresh || x->tried) && td_implicit_error_norm(&x->m, s, err) > 1) {
    memcpy(y, x->m.y, n * sizeof *y);
    add(n, y, 1, err);
    td_status status = td_implicit_eval(&x->m, s, s->first_time, y, err);
    if (status) return status;
    add(n, err, 1, moved);
    td_lu_solve(x->m.lu, x->m.pivot, n, false, err);
  }
  td_implicit_narrow(s, err, td_stepper_vector(s, 0));
  s->error = (td_terms){.count = 1, .coef = {1}, .x = {td_stepper_vector(s, 0)}};
  return TD_OK;
}

static td_status step(td_stepper *s, td_step_result *result) {
  irk *x = s->own;
  size_t n = x->m.n;
  td_newton_verdict verdict;
  td_status status = solve_stages(s, x, &verdict);
  if (status) return status;
  if (verdict != TD_NEWTON_CONVERGED) {
    x->tried = true;
    *result = td_newton_failed(s, verdict);
    s->retry = 0.5;
    return TD_OK;
  }
  double *y = vector(x, Y);
  memcpy(y, x->m.y, n * sizeof *y);
  for (int i = 0; i < x->k.stages; i++)
    add(n, y, x->accurate ? i == x->k.stages - 1 : x->b_z[i], vector(x, Z + i));
  td_implicit_narrow(s, y, s->y1);
  if (x->accurate) {
    td_implicit_narrow(s, vector(x, K + x->k.stages - 1), s->f1);
    s->have_f1 = !s->o->mass;
  }
  return ((const td_irk *)s->method->table)->estimate ? estimate(s, x) : TD_OK;
}

static td_status start(td_stepper *s) {
  irk *x = s->own;
  x->m.have_jacobian = x->m.current = x->tried = false;
  x->fresh = true;
  x->old_h = x->c_lu_shift = x->h_before = 0;
  return TD_OK;
}
static td_status load(td_stepper *s, const char *from) {
  (void)from;
  return start(s);
}

static td_status accept(td_stepper *s) {
  irk *x = s->own;
  x->old_h = s->end - s->t;
  memcpy(vector(x, OLD), vector(x, K), (size_t)x->k.stages * x->m.n * sizeof(double));
  x->m.current = false;
  x->renew = x->iterations > 2 && x->rate > 1e-3;
  if (x->renew) x->m.have_jacobian = false;
  return TD_OK;
}

static void reject(td_stepper *s, bool finite) {
  (void)finite;
  ((irk *)s->own)->tried = true;
}

/* Gustafsson's predictive control; small changes are not worth a factorisation. */
static double next_factor(td_stepper *s, double error, bool accepted) {
  irk *x = s->own;
  double h = s->end - s->t, most = 2 * 6, safety = 0.9 * (most + 1) / (most + x->iterations);
  double plain = pow(error, -0.25), multiplier = 1;
  if (accepted) h = x->old_h;
  if (accepted && x->h_before != 0) multiplier = h / x->h_before * pow(x->error_before / error, 0.25);
  double wanted = safety * fmin(1, multiplier) * plain;
  if (!accepted) return fmax(0.2, fmin(wanted, 0.9));
  bool stumbled = x->tried;
  x->h_before = h;
  x->error_before = error;
  x->tried = x->fresh = false;
  wanted = fmin(10, fmax(0.2, wanted));
  if (stumbled) wanted = fmin(1, wanted);
  return !x->renew && wanted < 1.2 && wanted >= 1 ? 1 : wanted;
}

static td_status dense(td_stepper *s, double theta, void *y, void *slope) {
  irk *x = s->own;
  size_t n = x->m.n;
  double w[MAX], h = s->end - s->t, *out = vector(x, Y);
  if (y) {
    td_collocation_weights(&x->k, theta, false, w);
    memcpy(out, x->m.y, n * sizeof *out);
    for (int i = 0; i < x->k.stages; i++) add(n, out, h * w[i], vector(x, K + i));
    td_implicit_narrow(s, out, y);
  }
  if (slope) {
    td_collocation_weights(&x->k, theta, true, w);
    memset(out, 0, n * sizeof *out);
    for (int i = 0; i < x->k.stages; i++) add(n, out, w[i], vector(x, K + i));
    td_implicit_narrow(s, out, slope);
  }
  return TD_OK;
}

/* ---- One step transposed ---- */

/* Room of a transposed step: the coupled matrix, its pivots, the slopes' cotangents, and one vector of each kind. */
typedef struct {
  double *matrix, *kbar, *ybar, *w, *stage, *solved;
  size_t *pivot;
  char *block;
  size_t bytes;
} coupled;

static td_status coupled_new(coupled *g, size_t n, size_t stages) {
  size_t all = n * stages;
  g->bytes = (all * all + all + 4 * n + 1) * sizeof(double) + (all + 1) * sizeof(size_t);
  g->block = td_alloc(g->bytes);
  if (!g->block) return td_last_status();
  memset(g->block, 0, g->bytes);
  g->matrix = (double *)(void *)g->block;
  g->kbar = g->matrix + all * all;
  g->ybar = g->kbar + all;
  g->w = g->ybar + n, g->stage = g->w + n, g->solved = g->stage + n;
  g->pivot = (size_t *)(g->solved + n);
  return TD_OK;
}

/* Fills the matrix of Mᵀ k̄ᵢ − h Σⱼ aⱼᵢ Jⱼᵀ k̄ⱼ, Jacobians at the converged stages. */
static td_status coupled_matrix(td_stepper *s, irk *x, coupled *g, double h) {
  size_t n = x->m.n, all = n * (size_t)x->k.stages;
  for (int j = 0; j < x->k.stages; j++) {
    memcpy(g->stage, x->m.y, n * sizeof(double));
    add(n, g->stage, 1, vector(x, Z + j));
    td_status status =
        td_implicit_jacobian(&x->m, s, td_stepper_time(s, x->k.c[j]), g->stage, x->m.jacobian, NULL, NULL);
    if (status) return status;
    for (int i = 0; i < x->k.stages; i++)
      for (size_t r = 0; r < n; r++)
        for (size_t c = 0; c < n; c++)
          g->matrix[((size_t)i * n + r) * all + (size_t)j * n + c] -= h * x->k.a[j][i] * x->m.jacobian[c * n + r];
  }
  for (size_t i = 0; i < all; i++)
    for (size_t j = 0; j < n; j++) {
      size_t c = i / n * n + j;
      g->matrix[i * all + c] += td_implicit_mass_at(s, j, i % n);  /* transposed */
    }
  x->m.have_jacobian = x->m.current = false;
  x->m.shift = x->c_lu_shift = 0;
  s->counts->nlu++;
  if (td_lu_factor(g->matrix, g->pivot, all)) return TD_OK;
  return td_fail(TD_ESOLVE, "%s: the stages' matrix at t=%g is singular in the backward pass", s->f->who, s->t);
}

static void back_values(td_stepper *s, const irk *x, const td_step_back *b, coupled *g, double h) {
  size_t n = x->m.n;
  double w[MAX];
  td_implicit_widen(s, b->lambda, g->ybar);
  for (int i = 0; i < x->k.stages; i++) {
    add(n, g->kbar + (size_t)i * n, h * x->k.b[i], g->ybar);
    if (b->hbar) *b->hbar += x->k.b[i] * dot(n, vector(x, K + i), g->ybar);
  }
  for (size_t q = 0; q < b->ndense; q++) {
    td_implicit_widen(s, b->w[q], g->w);
    add(n, g->ybar, 1, g->w);
    td_collocation_weights(&x->k, b->theta[q], false, w);
    for (int i = 0; i < x->k.stages; i++) {
      add(n, g->kbar + (size_t)i * n, h * w[i], g->w);
      if (b->hbar) *b->hbar += w[i] * dot(n, vector(x, K + i), g->w);
    }
    if (!b->theta_bar) continue;
    td_collocation_weights(&x->k, b->theta[q], true, w);
    b->theta_bar[q] = 0;
    for (int i = 0; i < x->k.stages; i++) b->theta_bar[q] += h * w[i] * dot(n, vector(x, K + i), g->w);
  }
}

static td_status back_stages(td_stepper *s, irk *x, td_step_back *b, coupled *g) {
  size_t n = x->m.n;
  for (int i = 0; i < x->k.stages; i++) {
    double tau = 0;
    memcpy(g->stage, x->m.y, n * sizeof(double));
    add(n, g->stage, 1, vector(x, Z + i));
    td_status status = td_implicit_vjp(&x->m, s, td_stepper_time(s, x->k.c[i]), g->stage, g->kbar + (size_t)i * n,
                                       g->solved, &tau, b->dexternal);
    if (status) return status;
    add(n, g->ybar, 1, g->solved);
    if (b->tbar) *b->tbar += tau;
    if (!b->hbar) continue;
    *b->hbar += x->k.c[i] * tau;
    for (int j = 0; j < x->k.stages; j++) *b->hbar += x->k.a[i][j] * dot(n, g->solved, vector(x, K + j));
  }
  return TD_OK;
}

static td_status back(td_stepper *s, td_step_back *b) {
  irk *x = s->own;
  coupled g = {0};
  td_newton_verdict verdict;
  double h = s->end - s->t;
  x->m.exact = true;
  td_status status = coupled_new(&g, x->m.n, (size_t)x->k.stages);
  if (status) return status;
  status = solve_stages(s, x, &verdict);
  if (!status && verdict != TD_NEWTON_CONVERGED) status = td_newton_lost(s);
  if (!status) status = coupled_matrix(s, x, &g, h);
  if (!status) {
    back_values(s, x, b, &g, h);
    td_lu_solve(g.matrix, g.pivot, x->m.n * (size_t)x->k.stages, false, g.kbar);
    status = back_stages(s, x, b, &g);
  }
  if (!status) td_implicit_narrow(s, g.ybar, b->lambda);
  td_free(g.block, g.bytes);
  return status;
}

const td_family td_family_irk = {
  .name = "implicit Runge–Kutta by collocation", .stiff = true, .mass = true, .make = make, .free = release, .start = start,
  .step = step, .accept = accept, .reject = reject, .dense = dense, .load = load, .back = back,
};
const td_family td_family_radau = {
  .name = "Radau IIA", .stiff = true, .mass = true, .make = make, .free = release, .start = start, .step = step, .accept = accept,
  .reject = reject, .factor = next_factor, .dense = dense, .load = load, .back = back,
};

/* ---- The methods ---- */

static void radau2(long double *c) { c[0] = 1 / 3.0L, c[1] = 1; }
static void radau3(long double *c) { c[0] = (4 - sqrtl(6)) / 10, c[1] = (4 + sqrtl(6)) / 10, c[2] = 1; }
static void gauss2(long double *c) { c[0] = 0.5L - sqrtl(3) / 6, c[1] = 0.5L + sqrtl(3) / 6; }
static void gauss3(long double *c) { c[0] = 0.5L - sqrtl(15) / 10, c[1] = 0.5L, c[2] = 0.5L + sqrtl(15) / 10; }

static const td_irk radau_three = {2, radau2, false}, radau_five = {3, radau3, true}, gauss_four = {2, gauss2, false},
                    gauss_six = {3, gauss3, false};

static const td_method all[] = {
  {.name = "radau5", .source = "Hairer and Wanner 1996, RADAU5", .family = &td_family_radau, .stages = 3, .order = 5,
   .error_order = 3, .dense_order = 3, .table = &radau_five},
  {.name = "radauIIA5", .source = "Radau IIA with three stages, the same as radau5", .family = &td_family_radau,
   .stages = 3, .order = 5, .error_order = 3, .dense_order = 3, .table = &radau_five},
  {.name = "radauIIA3", .source = "Ehle 1969, two stages", .family = &td_family_irk, .stages = 2, .order = 3,
   .dense_order = 2, .table = &radau_three},
  {.name = "gl4", .source = "Gauss with two stages, Butcher 1964", .family = &td_family_irk, .stages = 2, .order = 4,
   .dense_order = 2, .table = &gauss_four},
  {.name = "gl6", .source = "Gauss with three stages, Butcher 1964", .family = &td_family_irk, .stages = 3, .order = 6,
   .dense_order = 3, .table = &gauss_six},
};

const td_method *const td_methods_irk[] = {&all[0], &all[1], &all[2], &all[3], &all[4], NULL};
