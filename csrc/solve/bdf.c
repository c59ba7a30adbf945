/* Numerical differentiation formulas of orders 1 to 5 with quasi-constant steps (Shampine, Reichelt 1997): the history
 * is backward differences at equal spacing, which a change of step interpolates to the new spacing. Order and step are
 * chosen together in `accept`, from the state alone, so that a replay chooses the same. A step is a map of the
 * differences, their spacing and the state; its transpose is exact with the order frozen. */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "base/alloc.h"
#include "solve/implicit.h"
#include "solve/integrate.h"

enum { ORDER = 5, ROWS = ORDER + 3 };
/* Vectors of the workspace: differences at the step's start, rescaled, after the step; then single ones. */
enum { OLD = 0, WORK = ROWS, NEW = 2 * ROWS, BAR = 3 * ROWS, CHANGE = 4 * ROWS, PREDICTED, PSI, RESIDUAL, ROOM };

/* What the step starts from besides vectors. */
typedef struct {
  double spacing;   /* of the differences */
  int order;        /* 0: nothing yet, the step is the first */
  int equal;        /* steps of this size and order so far */
} setting;

typedef struct {
  td_implicit m;
  setting at;
  bool kappa;             /* NDF; else plain BDF */
  double alpha[ORDER + 2], gamma[ORDER + 2], constant[ORDER + 2];
  int trial_order, iterations, most;
  double wanted;          /* factor for the next step */
} bdf;

typedef struct {
  bool ndf;
} td_bdf;

static double *vector(const bdf *x, int i) { return td_implicit_vector(&x->m, (size_t)i); }

static void add(size_t n, double *sum, double c, const double *v) {
  for (size_t i = 0; i < n; i++) sum[i] += c * v[i];
}
static double dot(size_t n, const double *a, const double *b) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

static size_t history_bytes(const td_stepper *s) { return sizeof(setting) + (ROWS - 1) * s->n * sizeof(double); }

static size_t history(const td_stepper *s) {
  return s->bytes ? (history_bytes(s) + s->bytes - 1) / s->bytes : 0;
}

static td_status make(td_stepper *s) {
  static const double kappa[ORDER + 2] = {0, -0.1850, -1. / 9, -0.0823, -0.0415, 0, 0};
  bdf *x = td_alloc(sizeof *x);
  if (!x) return td_last_status();
  *x = (bdf){.most = ORDER, .kappa = ((const td_bdf *)s->method->table)->ndf};
  if (s->o->max_order > 0 && s->o->max_order < ORDER) x->most = s->o->max_order;
  for (int k = 1; k <= ORDER + 1; k++) x->gamma[k] = x->gamma[k - 1] + 1. / k;
  for (int k = 0; k <= ORDER + 1; k++) {
    double kap = x->kappa ? kappa[k] : 0;
    x->alpha[k] = (1 - kap) * x->gamma[k];
    x->constant[k] = kap * x->gamma[k] + 1. / (k + 1);
  }
  s->own = x;
  td_stepper_room(s, 1);
  s->most_history = history(s);
  return td_implicit_make(&x->m, s, ROOM, 0, TD_NEEDS_SOLUTIONS);
}

static void release(td_stepper *s) {
  bdf *x = s->own;
  if (!x) return;
  td_implicit_free(&x->m);
  td_free(x, sizeof *x);
}

/* ---- Changing the spacing ---- */

/* ru[j][i]: new difference i takes that much of old difference j when the spacing changes by `factor`; slope: its
 * derivative by the factor. */
static void change_matrix(int order, double factor, double ru[ROWS][ROWS], double slope[ROWS][ROWS]) {
  double r[ROWS][ROWS] = {{0}}, dr[ROWS][ROWS] = {{0}}, u[ROWS][ROWS] = {{0}};
  for (int j = 0; j <= order; j++) r[0][j] = u[0][j] = 1;
  for (int i = 1; i <= order; i++)
    for (int j = 1; j <= order; j++) {
      double m = (i - 1 - factor * j) / i;
      r[i][j] = r[i - 1][j] * m;
      dr[i][j] = dr[i - 1][j] * m - r[i - 1][j] * j / i;
      u[i][j] = u[i - 1][j] * (i - 1 - j) / i;
    }
  for (int i = 0; i <= order; i++)
    for (int j = 0; j <= order; j++) {
      ru[i][j] = slope[i][j] = 0;
      for (int k = 0; k <= order; k++) {
        ru[i][j] += r[i][k] * u[k][j];
        slope[i][j] += dr[i][k] * u[k][j];
      }
    }
}

/* Differences at the step's own spacing; a first step makes its first one from the slope. */
static void rescale(td_stepper *s, bdf *x, double h) {
  size_t n = x->m.n;
  double ru[ROWS][ROWS], slope[ROWS][ROWS];
  memcpy(vector(x, OLD), x->m.y, n * sizeof(double));
  if (x->at.order == 0) {
    memset(vector(x, OLD + 1), 0, (ROWS - 1) * n * sizeof(double));
    double *first = vector(x, OLD + 1);
    if (!s->o->mass) td_implicit_widen(s, s->f0, first);  /* else f is no slope */
    for (size_t i = 0; i < n; i++) first[i] *= h;
    memcpy(vector(x, WORK), vector(x, OLD), ROWS * n * sizeof(double));
    return;
  }
  memcpy(vector(x, WORK), vector(x, OLD), ROWS * n * sizeof(double));
  if (h == x->at.spacing) return;
  int k = x->at.order;
  change_matrix(k, h / x->at.spacing, ru, slope);
  memset(vector(x, WORK), 0, (size_t)(k + 1) * n * sizeof(double));
  for (int i = 0; i <= k; i++)
    for (int j = 0; j <= k; j++)
      if (ru[j][i] != 0) add(n, vector(x, WORK + i), ru[j][i], vector(x, OLD + j));
}

/* ---- The step ---- */

/* Solves f(t₁, p + d) = (ψ + d)/c. */
static td_status iterate(td_stepper *s, bdf *x, double c, td_newton_verdict *verdict) {
  size_t n = x->m.n;
  double *d = vector(x, CHANGE), *r = vector(x, RESIDUAL), *y = vector(x, NEW);
  double *change = vector(x, BAR);  /* idle here */
  const double *psi = vector(x, PSI), *p = vector(x, PREDICTED);
  td_newton w = td_newton_begin(&x->m, s);
  if (w.retries) w.most = 4;  /* a better Jacobian costs less than iterating on (Shampine, Reichelt 1997) */
  memset(d, 0, n * sizeof *d);
  for (*verdict = TD_NEWTON_GO_ON; *verdict == TD_NEWTON_GO_ON;) {
    for (size_t i = 0; i < n; i++) y[i] = p[i] + d[i];
    td_status status = td_implicit_eval(&x->m, s, s->last_time, y, r);
    if (status) return status;
    for (size_t i = 0; i < n; i++) change[i] = psi[i] + d[i];
    add(n, r, -1 / c, td_implicit_mass(&x->m, s, false, change));
    status = td_implicit_solve(&x->m, s, false, 1e-3, r);
    if (status) return status;
    for (size_t i = 0; i < n; i++) d[i] += r[i];
    *verdict = td_newton_judge(&w, &x->m, s, r, 1);
  }
  x->iterations = w.usual;
  return TD_OK;
}

static td_status solve_step(td_stepper *s, bdf *x, td_newton_verdict *verdict) {
  size_t n = x->m.n;
  double h = s->end - s->t;
  td_implicit_load(&x->m, s);
  td_status status = TD_OK;
  if (x->at.order == 0) status = td_stepper_slope(s);
  if (status) return status;
  rescale(s, x, h);
  int k = x->trial_order = x->at.order ? x->at.order : 1;
  double *p = vector(x, PREDICTED), *psi = vector(x, PSI), c = h / x->alpha[k];
  memset(p, 0, n * sizeof *p);
  memset(psi, 0, n * sizeof *psi);
  for (int j = 0; j <= k; j++) {
    add(n, p, 1, vector(x, WORK + j));
    if (j > 0) add(n, psi, x->gamma[j] / x->alpha[k], vector(x, WORK + j));
  }
  td_implicit_scale(&x->m, s, p, p);
  bool reuse = x->m.have_jacobian && (x->m.current || !x->m.exact);
  for (int attempt = reuse ? 0 : 1; attempt < 2; attempt++) {
    if (attempt == 1 && !x->m.current) {  /* at the predicted state, where it is needed */
      status = td_implicit_linearise(&x->m, s, s->last_time, p, NULL);
      if (status) return status;
      x->m.have_jacobian = x->m.current = true;
    }
    *verdict = TD_NEWTON_DIVERGED;
    if (td_implicit_factor(&x->m, s, 1 / c)) status = iterate(s, x, c, verdict);
    if (status || *verdict == TD_NEWTON_CONVERGED || x->m.current) break;
  }
  if (x->m.exact) x->m.current = false;  /* it is that of this trial's end */
  return status;
}

/* The differences after the step. */
static void update(bdf *x) {
  size_t n = x->m.n, bytes = n * sizeof(double);
  int k = x->trial_order;
  const double *d = vector(x, CHANGE);
  memcpy(vector(x, NEW), vector(x, WORK), ROWS * bytes);
  memcpy(vector(x, NEW + k + 2), d, bytes);
  add(n, vector(x, NEW + k + 2), -1, vector(x, WORK + k + 1));
  memcpy(vector(x, NEW + k + 1), d, bytes);
  for (int i = k; i >= 0; i--) add(n, vector(x, NEW + i), 1, vector(x, NEW + i + 1));
}

static td_status step(td_stepper *s, td_step_result *result) {
  bdf *x = s->own;
  size_t n = x->m.n;
  td_newton_verdict verdict;
  td_status status = solve_step(s, x, &verdict);
  if (status) return status;
  if (verdict != TD_NEWTON_CONVERGED) {
    *result = td_newton_failed(s, verdict);
    s->retry = 0.5;
    return TD_OK;
  }
  update(x);
  td_implicit_narrow(s, vector(x, NEW), s->y1);
  double *r = vector(x, RESIDUAL), c = (s->end - s->t) / x->alpha[x->trial_order];
  for (size_t i = 0; i < n; i++) r[i] = (vector(x, PSI)[i] + vector(x, CHANGE)[i]) / c;
  td_implicit_narrow(s, r, s->f1);
  s->have_f1 = !s->o->mass;
  for (size_t i = 0; i < n; i++) r[i] = x->constant[x->trial_order] * vector(x, CHANGE)[i];
  td_implicit_narrow(s, r, td_stepper_vector(s, 0));
  s->error = (td_terms){.count = 1, .coef = {1}, .x = {td_stepper_vector(s, 0)}};
  return TD_OK;
}

static td_status start(td_stepper *s) {
  bdf *x = s->own;
  x->m.have_jacobian = x->m.current = false;
  x->at = (setting){0};
  return TD_OK;
}

static double scaled_norm(const td_stepper *s, const bdf *x, double constant, int row) {
  return fabs(constant) * td_implicit_error_norm(&x->m, s, vector(x, NEW + row));
}

/* The order for the next step, and the factor that its error allows. */
static int choose(td_stepper *s, bdf *x) {
  int k = x->trial_order;
  double best = 0, *y1 = vector(x, NEW);
  td_implicit_scale(&x->m, s, x->m.y, y1);
  double safety = 0.9 * 9 / (8 + fmin(x->m.exact ? 2 : x->iterations, 4));
  int order = k;
  for (int q = k - 1; q <= k + 1; q++) {
    if (q < 1 || q > x->most) continue;
    double error = fmax(scaled_norm(s, x, x->constant[q], q + 1), 1e-10), factor = pow(error, -1. / (q + 1));
    if (factor > best) best = factor, order = q;
  }
  x->wanted = fmin(10, fmax(safety * best, 0.2));
  return order;
}

static td_status accept(td_stepper *s) {
  bdf *x = s->own;
  double h = s->end - s->t;
  bool same = x->at.order != 0 && fabs(h - x->at.spacing) < 1e-10 * fabs(h);  /* but for the rounding of t */
  memcpy(vector(x, OLD), vector(x, NEW), ROWS * x->m.n * sizeof(double));
  x->at.equal = same ? x->at.equal + 1 : 1;
  x->at.order = x->trial_order;
  x->at.spacing = h;
  x->wanted = 1;
  if (x->at.equal >= x->trial_order + 1) {
    x->at.order = choose(s, x);
    if (x->at.order != x->trial_order || x->wanted >= 1.2 || x->wanted < 1) x->at.equal = 0;
    else x->wanted = 1;
  }
  x->m.current = false;
  return TD_OK;
}

static void reject(td_stepper *s, bool finite) {
  (void)finite;
  ((bdf *)s->own)->m.current = false;
}

static double next_factor(td_stepper *s, double error, bool accepted) {
  bdf *x = s->own;
  if (accepted) return x->wanted;
  double safety = 0.9 * 9 / (8 + fmin(x->iterations, 4));
  return fmin(0.9, fmax(0.2, safety * pow(error, -1. / (x->trial_order + 1))));
}

/* Weights of the differences after the step at θ: Π (θ − 1 + j)/(j + 1); or their derivatives by θ. */
static void weights(int order, double theta, double *w, double *slope) {
  double p = 1, dp = 0;
  w[0] = 1, slope[0] = 0;
  for (int j = 0; j < order; j++) {
    double x = (theta - 1 + j) / (j + 1);
    dp = dp * x + p / (j + 1);
    p *= x;
    w[j + 1] = p, slope[j + 1] = dp;
  }
}

static td_status dense(td_stepper *s, double theta, void *y, void *slope) {
  bdf *x = s->own;
  size_t n = x->m.n;
  double w[ROWS], dw[ROWS], *out = vector(x, RESIDUAL);
  weights(x->trial_order, theta, w, dw);
  if (y) {
    memset(out, 0, n * sizeof *out);
    for (int j = 0; j <= x->trial_order; j++) add(n, out, w[j], vector(x, NEW + j));
    td_implicit_narrow(s, out, y);
  }
  if (slope) {
    memset(out, 0, n * sizeof *out);
    for (int j = 1; j <= x->trial_order; j++) add(n, out, dw[j] / (s->end - s->t), vector(x, NEW + j));
    td_implicit_narrow(s, out, slope);
  }
  return TD_OK;
}

/* ---- What a checkpoint holds: the setting, then the differences as doubles whatever the state's type ---- */

static void save(const td_stepper *s, char *to) {
  const bdf *x = s->own;
  if (!s->bytes) return;
  memcpy(to, &x->at, sizeof x->at);
  memcpy(to + sizeof x->at, vector(x, OLD + 1), (ROWS - 1) * s->n * sizeof(double));
}
static td_status load(td_stepper *s, const char *from) {
  bdf *x = s->own;
  x->m.have_jacobian = x->m.current = false;
  if (!s->bytes) return TD_OK;
  memcpy(&x->at, from, sizeof x->at);
  memcpy(vector(x, OLD + 1), from + sizeof x->at, (ROWS - 1) * s->n * sizeof(double));
  return TD_OK;
}

/* ---- One step transposed. The cotangent of the history has its layout: the spacing's first. ---- */

/* Cotangents of the differences after the step, in BAR, from those of values inside it. */
static void back_dense(td_stepper *s, const bdf *x, const td_step_back *b, double *w) {
  size_t n = x->m.n;
  double p[ROWS], dp[ROWS];
  for (size_t q = 0; q < b->ndense; q++) {
    td_implicit_widen(s, b->w[q], w);
    weights(x->trial_order, b->theta[q], p, dp);
    if (b->theta_bar) b->theta_bar[q] = 0;
    for (int j = 0; j <= x->trial_order; j++) {
      add(n, vector(x, BAR + j), p[j], w);
      if (b->theta_bar) b->theta_bar[q] += dp[j] * dot(n, vector(x, NEW + j), w);
    }
  }
}

/* BAR, of the differences after the step, becomes that of the rescaled ones before; *hbar gets what the solution of the
 * step contributes. */
static td_status back_solution(td_stepper *s, bdf *x, td_step_back *b, double *hbar) {
  size_t n = x->m.n, bytes = n * sizeof(double);
  int k = x->trial_order;
  double h = s->end - s->t, c = h / x->alpha[k], tau = 0;
  double *mu = vector(x, RESIDUAL), *g = vector(x, PREDICTED), *y1 = vector(x, NEW);
  for (int i = 0; i <= k; i++) add(n, vector(x, BAR + i + 1), 1, vector(x, BAR + i));
  memcpy(mu, vector(x, BAR + k + 1), bytes);
  add(n, mu, 1, vector(x, BAR + k + 2));
  for (size_t i = 0; i < n; i++) vector(x, BAR + k + 1)[i] = -vector(x, BAR + k + 2)[i];
  memset(vector(x, BAR + k + 2), 0, bytes);
  td_status status = td_implicit_linearise(&x->m, s, s->last_time, y1, NULL);
  if (!status && !td_implicit_factor(&x->m, s, 1 / c)) status = td_newton_lost(s);
  if (!status) status = td_implicit_solve(&x->m, s, true, 1e-13, mu);
  if (status) return status;
  status = td_implicit_vjp(&x->m, s, s->last_time, y1, mu, g, &tau, b->dexternal);
  if (status) return status;
  const double *mmu = td_implicit_mass(&x->m, s, true, mu);
  for (int j = 0; j <= k; j++) {
    add(n, vector(x, BAR + j), 1, g);
    if (j > 0) add(n, vector(x, BAR + j), -x->gamma[j] / (x->alpha[k] * c), mmu);
  }
  if (b->tbar) *b->tbar += tau;
  *hbar += tau + (dot(n, mmu, vector(x, PSI)) + dot(n, mmu, vector(x, CHANGE))) / (c * c * x->alpha[k]);
  return TD_OK;
}

/* BAR, of the rescaled differences, becomes that of the old ones; gives the cotangent of the factor. */
static double back_rescale(bdf *x, double factor) {
  size_t n = x->m.n;
  int k = x->at.order;
  double ru[ROWS][ROWS], slope[ROWS][ROWS], sum = 0;
  change_matrix(k, factor, ru, slope);
  memcpy(vector(x, NEW), vector(x, BAR), ROWS * n * sizeof(double));
  memset(vector(x, BAR), 0, (size_t)(k + 1) * n * sizeof(double));
  for (int j = 0; j <= k; j++)
    for (int i = 0; i <= k; i++) {
      if (ru[j][i] != 0) add(n, vector(x, BAR + j), ru[j][i], vector(x, NEW + i));
      if (slope[j][i] != 0) sum += slope[j][i] * dot(n, vector(x, OLD + j), vector(x, NEW + i));
    }
  return sum;
}

/* The first step's own start: the first difference is h f(t, y). */
static td_status back_first(td_stepper *s, bdf *x, td_step_back *b, double h, double *hbar) {
  size_t n = x->m.n;
  double tau = 0, *bar = vector(x, BAR + 1), *g = vector(x, RESIDUAL);
  if (s->o->mass) {
    memset(bar, 0, (ROWS - 1) * n * sizeof(double));
    return TD_OK;
  }
  *hbar += dot(n, bar, vector(x, OLD + 1)) / h;
  for (size_t i = 0; i < n; i++) bar[i] *= h;
  td_status status = td_implicit_vjp(&x->m, s, s->first_time, x->m.y, bar, g, &tau, b->dexternal);
  if (status) return status;
  add(n, vector(x, BAR), 1, g);
  if (b->tbar) *b->tbar += tau;
  memset(bar, 0, (ROWS - 1) * n * sizeof(double));
  return TD_OK;
}

static td_status back(td_stepper *s, td_step_back *b) {
  bdf *x = s->own;
  size_t n = x->m.n, bytes = n * sizeof(double);
  td_newton_verdict verdict;
  x->m.exact = true;
  td_status status = solve_step(s, x, &verdict);
  if (!status && verdict != TD_NEWTON_CONVERGED) status = td_newton_lost(s);
  if (status || !s->bytes) return status;
  update(x);
  setting bar = {0};
  char *rest = b->lambda + s->bytes;
  memcpy(&bar, rest, sizeof bar);
  td_implicit_widen(s, b->lambda, vector(x, BAR));
  memcpy(vector(x, BAR + 1), rest + sizeof bar, (ROWS - 1) * bytes);
  double h = s->end - s->t, hbar = bar.spacing, spacing_bar = 0;
  back_dense(s, x, b, vector(x, RESIDUAL));
  status = back_solution(s, x, b, &hbar);
  if (status) return status;
  if (x->at.order == 0) status = back_first(s, x, b, h, &hbar);
  else {
    double factor_bar = back_rescale(x, h / x->at.spacing);
    hbar += factor_bar / x->at.spacing;
    spacing_bar = -factor_bar * h / (x->at.spacing * x->at.spacing);
  }
  if (status) return status;
  if (b->hbar) *b->hbar += hbar;
  bar = (setting){.spacing = spacing_bar};
  td_implicit_narrow(s, vector(x, BAR), b->lambda);
  memcpy(rest, &bar, sizeof bar);
  memcpy(rest + sizeof bar, vector(x, BAR + 1), (ROWS - 1) * bytes);
  return TD_OK;
}

static const td_family td_family_bdf = {
  .name = "backward differentiation", .stiff = true, .mass = true, .make = make, .free = release, .start = start, .step = step,
  .accept = accept, .reject = reject, .factor = next_factor, .dense = dense, .history = history, .save = save,
  .load = load, .back = back,
};

static const td_bdf with_kappa = {true}, plain = {false};
static const td_method all[] = {
  {.name = "bdf", .source = "NDF of Shampine and Reichelt 1997, as in ode15s", .family = &td_family_bdf, .stages = 0,
   .order = 5, .error_order = 1, .dense_order = 1, .table = &with_kappa},
  {.name = "bdf_plain", .source = "backward differentiation without the NDF's kappa", .family = &td_family_bdf,
   .stages = 0, .order = 5, .error_order = 1, .dense_order = 1, .table = &plain},
};
const td_method *const td_methods_bdf[] = {&all[0], &all[1], NULL};
