/* Diagonally implicit Runge–Kutta methods. A stage is a simplified Newton iteration with one Jacobian and one
 * factorisation for all stages of a step and, while it converges, of the steps after it; slopes come from the stage
 * equation, never from f at a stage, so that stiffness does not blow up the iteration's error. The extension is the
 * cubic through both ends and their slopes.
 *
 * Where f has halves and the method an explicit tableau too, the pair is an additive method (Kennedy, Carpenter 2003):
 * Newton's iteration sees the stiff half alone, and the easy one is evaluated at each stage that it found. */
#include "solve/dirk.h"
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "solve/implicit.h"
#include "solve/integrate.h"

/* Vectors of the workspace: slopes first, then stage states, then scratch. */
enum {
  SLOPES = 0, STATES = TD_DIRK_STAGES, BARS = 2 * TD_DIRK_STAGES, BASE = 3 * TD_DIRK_STAGES, RESIDUAL, ROOM,
  EASY = ROOM, EASY_BARS = EASY + TD_DIRK_STAGES, SPLIT_ROOM = EASY_BARS + TD_DIRK_STAGES  /* of the easy half */
};

typedef struct {
  td_implicit m;
  const td_dirk *d;
  int stages;
  bool accurate, explicit_first;
  double gamma, c[TD_DIRK_STAGES];
  bool slow;  /* the Jacobian served badly in the last step */
  bool split, have_first;   /* f in halves; those at (t, y) are known */
  td_stepper easy, stiff;   /* views of the stepper for calls of each half */
} dirk;

double td_dirk_c(const td_dirk *m, int i) {
  double c = 0;
  for (int j = 0; j <= i; j++) c += m->a[i][j];
  return fabs(c - 1) < 1e-14 ? 1 : c;
}

bool td_dirk_stiffly_accurate(const td_dirk *m) {
  for (int j = 0; j < m->stages; j++)
    if (m->a[m->stages - 1][j] != m->b[j]) return false;
  return true;
}

static td_status make(td_stepper *s) {
  dirk *x = td_alloc(sizeof *x);
  if (!x) return td_last_status();
  const td_dirk *d = s->method->table;
  bool split = d->easy && s->f->half[0];
  *x = (dirk){.d = d, .stages = d->stages, .accurate = td_dirk_stiffly_accurate(d) && !split, .split = split,
              .easy = *s, .stiff = *s, .explicit_first = d->a[0][0] == 0, .gamma = d->a[d->stages - 1][d->stages - 1]};
  for (int i = 0; i < d->stages; i++) x->c[i] = td_dirk_c(d, i);
  s->own = x;
  if (split) x->easy.f = s->f->half[0], x->stiff.f = s->f->half[1];
  td_stepper_room(s, 1);
  return td_implicit_make(&x->m, s, split ? SPLIT_ROOM : ROOM, 0, TD_NEEDS_SOLUTIONS);
}

static void release(td_stepper *s) {
  dirk *x = s->own;
  if (!x) return;
  td_implicit_free(&x->m);
  td_free(x, sizeof *x);
}

static double *slope_of(const dirk *x, int i) { return td_implicit_vector(&x->m, (size_t)(SLOPES + i)); }
static double *state_of(const dirk *x, int i) { return td_implicit_vector(&x->m, (size_t)(STATES + i)); }
static double *easy_of(const dirk *x, int i) { return td_implicit_vector(&x->m, (size_t)(EASY + i)); }
static double *scratch(const dirk *x, int i) { return td_implicit_vector(&x->m, (size_t)i); }

/* The weights of the easy half's slopes in stage i. */
static const double *easy_row(const dirk *x, int i) { return x->split ? x->d->easy[i] : NULL; }

/* out = y + h Σ_{j<count} (w[j] k[j] + easy[j] of the easy half's) */
static void advance_by(const dirk *x, const double *w, const double *easy, int count, double h, double *out) {
  size_t n = x->m.n;
  memcpy(out, x->m.y, n * sizeof *out);
  for (int j = 0; j < count; j++) {
    if (w[j] != 0) td_add_multiple(n, out, h * w[j], slope_of(x, j));
    if (easy && easy[j] != 0) td_add_multiple(n, out, h * easy[j], easy_of(x, j));
  }
}

/* A slope for stage i to begin with: on the line through the two stages before it whose times are nearest. */
static void predict(const dirk *x, int i, double *k) {
  size_t n = x->m.n;
  int p = i - 1, q = -1;
  for (int j = 0; j < i - 1; j++)
    if (fabs(x->c[j] - x->c[p]) > 0.05 && (q < 0 || fabs(x->c[j] - x->c[i]) < fabs(x->c[q] - x->c[i]))) q = j;
  double w = q < 0 ? 0 : (x->c[i] - x->c[p]) / (x->c[q] - x->c[p]);
  const double *a = slope_of(x, p), *b = slope_of(x, q < 0 ? p : q);
  for (size_t e = 0; e < n; e++) k[e] = (1 - w) * a[e] + w * b[e];
}

/* The stepper whose f the implicit stages solve for. */
static td_stepper *implicit_part(td_stepper *s, dirk *x) { return x->split ? &x->stiff : s; }

/* Solves (Y − base)/(hγ) = f(t, Y) from the slope at hand. */
static td_status iterate(td_stepper *s, dirk *x, int i, double h, td_newton_verdict *verdict) {
  td_stepper *part = implicit_part(s, x);
  size_t n = x->m.n;
  double *base = scratch(x, BASE), *r = scratch(x, RESIDUAL), *y = state_of(x, i), *k = slope_of(x, i);
  double hg = h * x->gamma, t = td_stepper_time(s, x->c[i]);
  td_newton w = td_newton_begin(&x->m, s);
  for (size_t e = 0; e < n; e++) y[e] = base[e] + hg * k[e];
  for (*verdict = TD_NEWTON_GO_ON; *verdict == TD_NEWTON_GO_ON;) {
    td_status status = td_implicit_eval(&x->m, part, t, y, r);
    if (status) return status;
    for (size_t e = 0; e < n; e++) r[e] -= (y[e] - base[e]) / hg;
    status = td_implicit_solve(&x->m, part, false, 1e-3, r);
    if (status) return status;
    for (size_t e = 0; e < n; e++) y[e] += r[e];
    *verdict = td_newton_judge(&w, &x->m, s, r, 1);
  }
  if (w.rate > 0.2) x->slow = true;
  for (size_t e = 0; e < n; e++) k[e] = (y[e] - base[e]) / hg;
  return TD_OK;
}

/* Both halves at (t, y), and f there. */
static td_status first_slopes(td_stepper *s, dirk *x) {
  size_t n = x->m.n;
  if (!x->have_first) {
    td_status status = td_implicit_eval(&x->m, &x->easy, s->first_time, x->m.y, easy_of(x, 0));
    if (!status) status = td_implicit_eval(&x->m, &x->stiff, s->first_time, x->m.y, slope_of(x, 0));
    if (status) return status;
    x->have_first = true;
  }
  double *sum = scratch(x, BASE);
  memcpy(sum, slope_of(x, 0), n * sizeof *sum);
  td_add_multiple(n, sum, 1, easy_of(x, 0));
  td_implicit_narrow(s, sum, s->f0);
  s->have_f0 = true;
  return TD_OK;
}

/* All stages with the factorisation at hand. */
static td_status run_stages(td_stepper *s, dirk *x, double h, td_newton_verdict *verdict) {
  td_status status = TD_OK;
  *verdict = TD_NEWTON_CONVERGED;
  if (x->explicit_first) {
    if (!x->split) td_implicit_widen(s, s->f0, slope_of(x, 0));
    memcpy(state_of(x, 0), x->m.y, x->m.n * sizeof(double));
  }
  for (int i = x->explicit_first; i < x->stages && !status && *verdict == TD_NEWTON_CONVERGED; i++) {
    advance_by(x, x->d->a[i], easy_row(x, i), i, h, scratch(x, BASE));
    if (i > 0) predict(x, i, slope_of(x, i));
    else td_implicit_widen(s, s->f0, slope_of(x, i));
    status = iterate(s, x, i, h, verdict);
    if (!status && x->split && *verdict == TD_NEWTON_CONVERGED)
      status = td_implicit_eval(&x->m, &x->easy, td_stepper_time(s, x->c[i]), state_of(x, i), easy_of(x, i));
  }
  return status;
}

/* The Jacobian at (t, y), and f there. */
static td_status refresh(td_stepper *s, dirk *x) {
  if (!x->split) return td_implicit_refresh(&x->m, s, NULL);
  td_status status = first_slopes(s, x);
  if (!status) status = td_implicit_linearise(&x->m, &x->stiff, s->first_time, x->m.y, NULL);
  x->m.have_jacobian = x->m.current = !status;
  return status;
}

/* Stages, with a new Jacobian when the old one does not do. */
static td_status solve_stages(td_stepper *s, dirk *x, td_newton_verdict *verdict) {
  double h = s->end - s->t, shift = 1 / (h * x->gamma);
  td_implicit_load(&x->m, s);
  x->slow = false;
  bool reuse = x->m.have_jacobian && !x->m.exact;
  for (int attempt = reuse ? 0 : 1; attempt < 2; attempt++) {
    td_status status = attempt == 1 && !x->m.current ? refresh(s, x)
                       : x->split                    ? first_slopes(s, x)
                                                     : td_stepper_slope(s);
    if (status) return status;
    *verdict = TD_NEWTON_DIVERGED;
    if (!td_implicit_factor(&x->m, s, shift)) continue;
    status = run_stages(s, x, h, verdict);
    if (status || *verdict == TD_NEWTON_CONVERGED) return status;
    if (x->m.current) break;
  }
  return TD_OK;
}

/* h (Σ e[i] k[i] + e0 f(t, y)). It is not damped by (I − hγJ)⁻¹: slopes are those of the stage equations, free of
 * the iteration's error, and a damped estimate would let steps grow beyond what the extension resolves. With
 * halves y₁ is not a stage, and what the easy half does to fast components stays in it: nothing to be damped either. */
static void estimate(td_stepper *s, dirk *x) {
  const td_dirk *d = x->d;
  size_t n = x->m.n;
  double h = s->end - s->t, *err = scratch(x, RESIDUAL), *f0 = scratch(x, BASE);
  bool any = d->e0 != 0;
  for (int j = 0; j < x->stages; j++) any |= d->e[j] != 0;
  if (!any) return;
  td_implicit_widen(s, s->f0, f0);
  for (size_t i = 0; i < n; i++) {
    double sum = d->e0 * f0[i];
    for (int j = 0; j < x->stages; j++) sum += d->e[j] * (slope_of(x, j)[i] + (x->split ? easy_of(x, j)[i] : 0));
    err[i] = h * sum;
  }
  td_implicit_narrow(s, err, td_stepper_vector(s, 0));
  s->error = (td_terms){.count = 1, .coef = {1}, .x = {td_stepper_vector(s, 0)}};
}

static td_status step(td_stepper *s, td_step_result *result) {
  dirk *x = s->own;
  td_newton_verdict verdict;
  td_status status = solve_stages(s, x, &verdict);
  if (status) return status;
  if (verdict != TD_NEWTON_CONVERGED) {
    *result = td_newton_failed(s, verdict);
    return TD_OK;
  }
  int last = x->stages - 1;
  double *y1 = scratch(x, BASE);
  if (!x->accurate) advance_by(x, x->d->b, x->split ? x->d->b : NULL, x->stages, s->end - s->t, y1);
  td_implicit_narrow(s, x->accurate ? state_of(x, last) : y1, s->y1);
  if (x->accurate && x->c[last] == 1) {
    td_implicit_narrow(s, slope_of(x, last), s->f1);
    s->have_f1 = true;
  }
  estimate(s, x);
  return TD_OK;
}

static td_status start(td_stepper *s) {
  dirk *x = s->own;
  x->m.have_jacobian = x->m.current = x->have_first = false;
  return TD_OK;
}

static td_status load(td_stepper *s, const char *from) {
  (void)from;
  return start(s);
}

static td_status accept(td_stepper *s) {
  dirk *x = s->own;
  x->m.current = x->have_first = false;
  if (x->slow) x->m.have_jacobian = false;
  return TD_OK;
}

/* ---- One step transposed ---- */

/* Cotangents of what the step's values are made of. */
typedef struct {
  double *y, *y1, *f0, *f1, *w, *solved;
  void *block;
  size_t bytes;
} bars;

static td_status bars_new(bars *g, size_t n) {
  g->bytes = 6 * (n + 1) * sizeof(double);
  double *p = g->block = td_alloc(g->bytes);
  if (!p) return td_last_status();
  memset(p, 0, g->bytes);
  g->y = p, g->y1 = p + n, g->f0 = p + 2 * n, g->f1 = p + 3 * n, g->w = p + 4 * n, g->solved = p + 5 * n;
  return TD_OK;
}

static void add_to(double *sum, double x) {
  if (sum) *sum += x;
}

/* Values inside the step are the cubic through (y, f0) and (y1, f1); f1 is in m->fresh, f0 in `f0`. */
static void back_dense(td_stepper *s, dirk *x, const td_step_back *b, bars *g, const double *f0, const double *f1,
                       const double *y1) {
  size_t n = x->m.n;
  double h = s->end - s->t;
  for (size_t i = 0; i < b->ndense; i++) {
    double q = b->theta[i], p = q * q * (3 - 2 * q), d0 = q * (1 - q) * (1 - q), d1 = q * q * (q - 1);
    td_implicit_widen(s, b->w[i], g->w);
    td_add_multiple(n, g->y, 1 - p, g->w);
    td_add_multiple(n, g->y1, p, g->w);
    td_add_multiple(n, g->f0, h * d0, g->w);
    td_add_multiple(n, g->f1, h * d1, g->w);
    double along0 = td_sum_of_products(n, f0, g->w), along1 = td_sum_of_products(n, f1, g->w);
    add_to(b->hbar, d0 * along0 + d1 * along1);
    if (b->theta_bar)
      b->theta_bar[i] = 6 * q * (1 - q) * (td_sum_of_products(n, y1, g->w) - td_sum_of_products(n, x->m.y, g->w)) +
                        h * ((1 - q) * (1 - 3 * q) * along0 + q * (3 * q - 2) * along1);
  }
}

/* What the easy half's slope in stage i gives to the stage's state, in g->w: nothing without halves. */
static td_status back_easy(td_stepper *s, dirk *x, td_step_back *b, bars *g, int i, double *tau) {
  if (!x->split) return TD_OK;
  return td_implicit_vjp(&x->m, &x->easy, td_stepper_time(s, x->c[i]), state_of(x, i), scratch(x, EASY_BARS + i), g->w,
                         tau, b->dexternal);
}

/* Stage i: its slope's cotangent through (I − hγJᵢᵀ)⁻¹, with the Jacobian at the converged stage, to y, to the slopes
 * before, and to what f depends on. */
static td_status back_stage(td_stepper *s, dirk *x, td_step_back *b, bars *g, int i) {
  td_stepper *part = implicit_part(s, x);
  size_t n = x->m.n;
  double h = s->end - s->t, t = td_stepper_time(s, x->c[i]), tau = 0, diagonal = x->d->a[i][i];
  double *kbar = scratch(x, BARS + i);
  td_status status = back_easy(s, x, b, g, i, &tau);
  if (status) return status;
  if (diagonal != 0) {
    if (x->split) td_add_multiple(n, kbar, h * diagonal, g->w);
    status = td_implicit_linearise(&x->m, part, t, state_of(x, i), NULL);
    x->m.current = x->m.have_jacobian = false;
    if (!status && !td_implicit_factor(&x->m, s, 1 / (h * diagonal)))
      status = td_fail(TD_ESOLVE, "%s: the matrix of a stage at t=%g is singular in the backward pass", s->f->who, t);
    if (!status) status = td_implicit_solve(&x->m, part, true, 1e-13, kbar);
    if (status) return status;
    for (size_t e = 0; e < n; e++) kbar[e] *= x->m.shift;
  }
  status = td_implicit_vjp(&x->m, part, t, state_of(x, i), kbar, g->solved, &tau, b->dexternal);
  if (status) return status;
  if (x->split) td_add_multiple(n, g->solved, 1, g->w);
  td_add_multiple(n, g->y, 1, g->solved);
  add_to(b->tbar, tau);
  double sum = x->c[i] * tau;
  for (int j = 0; j <= i; j++) {
    sum += x->d->a[i][j] * td_sum_of_products(n, g->solved, slope_of(x, j));
    if (j < i) td_add_multiple(n, scratch(x, BARS + j), h * x->d->a[i][j], g->solved);
    if (j == i || !x->split) continue;
    sum += x->d->easy[i][j] * td_sum_of_products(n, g->solved, easy_of(x, j));
    td_add_multiple(n, scratch(x, EASY_BARS + j), h * x->d->easy[i][j], g->solved);
  }
  add_to(b->hbar, sum);
  return TD_OK;
}

/* f(t, y) or f(t₁, y₁) outside the stages: used by the extension alone. */
static td_status back_slope(td_stepper *s, dirk *x, td_step_back *b, bars *g, bool at_end, const double *y,
                            const double *slope_bar, double *to) {
  double tau = 0;
  td_status status = td_implicit_vjp(&x->m, s, at_end ? s->last_time : s->first_time, y, slope_bar, g->solved, &tau,
                                     b->dexternal);
  if (status) return status;
  td_add_multiple(x->m.n, to, 1, g->solved);
  add_to(b->tbar, tau);
  if (at_end) add_to(b->hbar, tau);
  return TD_OK;
}

static td_status back_all(td_stepper *s, dirk *x, td_step_back *b, bars *g) {
  size_t n = x->m.n;
  int last = x->stages - 1;
  double h = s->end - s->t;
  const double *y1 = state_of(x, last), *f1 = slope_of(x, last);
  td_status status = TD_OK;
  bool stage_end = x->accurate && x->c[last] == 1;
  memset(scratch(x, BARS), 0, (size_t)x->stages * n * sizeof(double));
  if (x->split) memset(scratch(x, EASY_BARS), 0, (size_t)x->stages * n * sizeof(double));
  td_implicit_widen(s, b->lambda, g->y1);
  if (!x->accurate) {
    double *sum = scratch(x, BASE);
    advance_by(x, x->d->b, x->split ? x->d->b : NULL, x->stages, h, sum);
    y1 = sum;
  }
  if (b->ndense) {
    double *f0 = scratch(x, RESIDUAL);
    td_implicit_widen(s, s->f0, f0);
    if (!stage_end) {
      status = td_implicit_eval(&x->m, s, s->last_time, y1, x->m.fresh);
      f1 = x->m.fresh;
    }
    if (!status) back_dense(s, x, b, g, f0, f1, y1);
    if (!status && !stage_end) status = back_slope(s, x, b, g, true, y1, g->f1, g->y1);
  }
  if (stage_end) td_add_multiple(n, scratch(x, BARS + last), 1, g->f1);
  td_add_multiple(n, g->y, 1, g->y1);
  for (int j = 0; j < x->stages; j++) {
    td_add_multiple(n, scratch(x, BARS + j), h * x->d->b[j], g->y1);
    add_to(b->hbar, x->d->b[j] * td_sum_of_products(n, slope_of(x, j), g->y1));
    if (!x->split) continue;
    td_add_multiple(n, scratch(x, EASY_BARS + j), h * x->d->b[j], g->y1);
    add_to(b->hbar, x->d->b[j] * td_sum_of_products(n, easy_of(x, j), g->y1));
  }
  if (x->explicit_first) td_add_multiple(n, scratch(x, BARS), 1, g->f0);
  if (x->split) td_add_multiple(n, scratch(x, EASY_BARS), 1, g->f0);
  for (int i = last; i >= 0 && !status; i--) status = back_stage(s, x, b, g, i);
  if (!status && !x->explicit_first && b->ndense) status = back_slope(s, x, b, g, false, x->m.y, g->f0, g->y);
  if (!status) td_implicit_narrow(s, g->y, b->lambda);
  return status;
}

static td_status back(td_stepper *s, td_step_back *b) {
  dirk *x = s->own;
  bars g;
  td_newton_verdict verdict;
  td_status status = bars_new(&g, x->m.n);
  if (status) return status;
  x->m.exact = true;
  status = solve_stages(s, x, &verdict);
  if (!status && verdict != TD_NEWTON_CONVERGED) status = td_newton_lost(s);
  if (!status) status = back_all(s, x, b, &g);
  td_free(g.block, g.bytes);
  return status;
}

const td_family td_family_dirk = {
  .name = "diagonally implicit Runge–Kutta", .stiff = true, .make = make, .free = release, .start = start, .step = step,
  .accept = accept, .dense = td_stepper_hermite, .load = load, .back = back,
};
