/* Adams methods of orders 1 to 12 on any grid: the slope is the polynomial P through the last slopes at their own
 * times, and a step is its integral. explicit_adams predicts; implicit_adams and abm correct with the slope at the end,
 * a fixed number of times, so that a step is an explicit map whose transpose is exact, the times of the history
 * included. On equal steps the weights are the classical rationals. Fixed steps start by a Runge–Kutta method; abm
 * starts at order one and chooses order and step (Hairer, Nørsett, Wanner, Solving ODEs I, III.1 and III.5). */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "base/alloc.h"
#include "solve/hermite.h"
#include "solve/integrate.h"
#include "solve/stepper.h"

enum { ORDER = 12, NODES = ORDER + 2, KEPT = ORDER };  /* slopes kept besides that at t */

typedef struct {
  int corrections;
  bool adaptive;
} td_adams;

/* What the step starts from besides vectors. The cotangent of a history has the same layout. */
typedef struct {
  double t[KEPT];
  double count, order, equal;  /* doubles, as the cotangents beside them */
} setting;

/* Weights of one integral: of the slopes at its nodes, and what its derivatives by times need. */
typedef struct {
  int n;
  double node[NODES];          /* (t − s->t)/h */
  double w[NODES];             /* ∫₀¹ of the polynomial that is 1 at node i */
  double at_end[NODES], slope[NODES][NODES];  /* its value at 1; slope[j][i]: its derivative at node j */
} integral;

typedef struct {
  const td_adams *d;
  setting at;
  int most, order, corrections;
  bool by_start;               /* the step was made by the starting method */
  double wanted;
  td_stepper starter;
  integral predictor, corrector;
} adams;

/* Vectors: the slopes kept, newest first; their cotangents; that at the end (last one used), states and scratch. */
enum { SLOPES = 0, BARS = KEPT, END = 2 * KEPT, ERROR, PBAR, FBAR, YBAR, EBAR, PULLED, STATES, ROOM = STATES + 6 };

static char *vector(const td_stepper *s, int i) { return td_stepper_vector(s, (size_t)i); }
static void add(const td_stepper *s, char *sum, double c, const void *x) { td_stepper_combine(s, sum, sum, 1, &c, &x); }
static void clear(const td_stepper *s, char *x) { memset(x, 0, s->bytes); }

/* ---- Weights ---- */

/* Coefficients of the polynomial of degree n − 1 that is 1 at node i and 0 at the others. */
static void basis(const double *node, int n, int i, long double *c) {
  int degree = 0;
  memset(c, 0, NODES * sizeof *c);
  c[0] = 1;
  for (int j = 0; j < n; j++) {
    if (j == i) continue;
    long double scale = 1 / ((long double)node[i] - node[j]);
    for (int k = ++degree; k >= 0; k--) c[k] = ((k > 0 ? c[k - 1] : 0) - node[j] * c[k]) * scale;
  }
}

static double value(const long double *c, int n, long double x, bool slope) {
  long double sum = 0;
  for (int k = n - 1; k >= slope; k--) sum = sum * x + c[k] * (slope ? k : 1);
  return (double)sum;
}

/* ∫₀^θ, θ = 1 for the step. */
static double area(const long double *c, int n, long double theta) {
  long double sum = 0;
  for (int k = n - 1; k >= 0; k--) sum = (sum + c[k] / (k + 1)) * theta;
  return (double)sum;
}

static void weigh(integral *q, bool all) {
  for (int i = 0; i < q->n; i++) {
    long double c[NODES];
    basis(q->node, q->n, i, c);
    q->w[i] = area(c, q->n, 1);
    if (!all) continue;
    q->at_end[i] = value(c, q->n, 1, false);
    for (int j = 0; j < q->n; j++) q->slope[j][i] = value(c, q->n, q->node[j], true);
  }
}

/* The first k of: the end (when corrected), t, and the times kept. */
static void nodes(const td_stepper *s, integral *q, bool end, int k) {
  const adams *x = s->own;
  double h = s->end - s->t;
  q->n = 0;
  if (end) q->node[q->n++] = 1;
  q->node[q->n++] = 0;
  for (int i = 0; q->n < k; i++) q->node[q->n++] = (x->at.t[i] - s->t) / h;
  q->n = q->n < k ? q->n : k;
}

/* The slope at node i of an integral. */
static char *slope_at(const td_stepper *s, bool end, int i) {
  if (end && i == 0) return vector(s, END);
  i -= end;
  return i == 0 ? s->f0 : vector(s, SLOPES + i - 1);
}

/* out = y + h Σ w f */
static void integrate(const td_stepper *s, const integral *q, bool end, char *out) {
  double coef[NODES];
  const void *f[NODES];
  for (int i = 0; i < q->n; i++) {
    coef[i] = (s->end - s->t) * q->w[i];
    f[i] = slope_at(s, end, i);
  }
  td_stepper_combine(s, out, s->y, q->n, coef, f);
}

/* ---- Making ---- */

static size_t history_bytes(const td_stepper *s) { return sizeof(setting) + KEPT * s->bytes; }
static size_t history(const td_stepper *s) { return s->bytes ? (history_bytes(s) + s->bytes - 1) / s->bytes : 0; }

static td_status make(td_stepper *s) {
  const td_adams *d = s->method->table;
  adams *x = td_alloc(sizeof *x);
  if (!x) return td_last_status();
  *x = (adams){.d = d, .corrections = d->corrections};
  s->own = x;
  int most = s->o->max_order > 0 ? s->o->max_order : d->adaptive ? ORDER : 4;
  x->most = most > ORDER ? ORDER : most;
  if (s->o->max_iters > 0 && d->corrections > 1) x->corrections = s->o->max_iters > 5 ? 5 : s->o->max_iters;
  s->most_history = history(s);
  td_stepper_room(s, ROOM);
  if (d->adaptive) return TD_OK;
  const td_method *start = x->most > 4 ? td_method_find("dop853") : NULL;
  if (!start) start = td_method_find("rk4");
  return td_stepper_make(&x->starter, start, s->o, s->f, s->counts);
}

static void release(td_stepper *s) {
  adams *x = s->own;
  if (!x) return;
  if (x->starter.method) td_stepper_free(&x->starter);
  td_free(x, sizeof *x);
}

static td_status start(td_stepper *s) {
  ((adams *)s->own)->at = (setting){0};
  return TD_OK;
}

/* ---- The step ---- */

/* Order, weights, and whether the step is made by the starting method. */
static void plan(td_stepper *s, adams *x, bool all) {
  int slopes = (int)x->at.count + 1;
  x->order = x->d->adaptive ? (x->at.order > 0 ? (int)x->at.order : 1) : x->most;
  int wanted = x->corrections && x->order > 1 ? x->order - 1 : x->order;  /* the end is one more node */
  x->by_start = !x->d->adaptive && slopes < wanted;
  if (x->by_start) return;
  nodes(s, &x->predictor, false, wanted < slopes ? wanted : slopes);
  weigh(&x->predictor, all);
  if (!x->corrections) return;
  nodes(s, &x->corrector, true, x->order + x->d->adaptive);  /* abm advances by the better of its two */
  weigh(&x->corrector, all);
}

static td_status correct(td_stepper *s, adams *x) {
  td_status status = TD_OK;
  char *guess = vector(s, STATES);
  integrate(s, &x->predictor, false, x->corrections ? guess : s->y1);
  for (int i = 0; i < x->corrections && !status; i++) {
    status = td_stepper_eval(s, s->last_time, vector(s, STATES + i), vector(s, END));
    bool last = i + 1 == x->corrections;
    if (!status) integrate(s, &x->corrector, true, last ? s->y1 : vector(s, STATES + i + 1));
  }
  return status;
}

static td_status by_start(td_stepper *s, adams *x) {
  td_step_result ignored;
  td_status status = td_stepper_start(&x->starter, s->t, s->y);
  if (!status) status = td_stepper_step(&x->starter, s->last_time, false, &ignored);
  if (!status && s->bytes) memcpy(s->y1, x->starter.y1, s->bytes);
  return status;
}

/* out = h Σ (w of k + 1 nodes − w of k nodes) f: the error of order k, corrected. False: too few slopes. */
static bool difference(td_stepper *s, const adams *x, int k, char *out) {
  integral high = {0}, low = {0};
  if (k + 1 > (int)x->at.count + 2 || k < 1) return false;
  nodes(s, &high, true, k + 1);
  nodes(s, &low, true, k);
  weigh(&high, false);
  weigh(&low, false);
  double coef[NODES];
  const void *f[NODES];
  for (int i = 0; i < high.n; i++) {
    coef[i] = (s->end - s->t) * (high.w[i] - (i < low.n ? low.w[i] : 0));
    f[i] = slope_at(s, true, i);
  }
  td_stepper_combine(s, out, NULL, high.n, coef, f);
  return true;
}

static td_status step(td_stepper *s, td_step_result *result) {
  (void)result;
  adams *x = s->own;
  td_status status = td_stepper_slope(s);
  if (status) return status;
  plan(s, x, false);
  status = x->by_start ? by_start(s, x) : correct(s, x);
  if (status || !x->d->adaptive) return status;
  if (difference(s, x, x->order, vector(s, ERROR)))
    s->error = (td_terms){.count = 1, .coef = {1}, .x = {vector(s, ERROR)}};
  return TD_OK;
}

/* The order whose error allows the longest next step; from the state alone, so that a replay chooses the same. */
static void choose(td_stepper *s, adams *x) {
  double best = 0;
  int order = x->order;
  for (int k = x->order - 1; k <= x->order + 1 && k <= x->most; k++) {
    if (k > x->order && x->at.equal < x->order) continue;
    if (!difference(s, x, k, vector(s, ERROR))) continue;
    double factor = 0.9 * pow(fmax(td_stepper_size(s, vector(s, ERROR)), 1e-10), -1. / (k + 1));
    if (factor > best * (k > x->order ? 1.1 : 1)) best = factor, order = k;
  }
  x->wanted = fmin(x->order == 1 ? 5 : 2, fmax(best, 0.3));
  if (x->wanted > 0.9 && x->wanted < 1.2) x->wanted = 1;
  x->at.equal = order == x->order ? x->at.equal + 1 : 0;
  x->at.order = order;
}

/* The slope at t joins the history. */
static td_status accept(td_stepper *s) {
  adams *x = s->own;
  if (x->d->adaptive) choose(s, x);
  for (int i = KEPT - 1; i > 0; i--) {
    x->at.t[i] = x->at.t[i - 1];
    if (s->bytes) memcpy(vector(s, SLOPES + i), vector(s, SLOPES + i - 1), s->bytes);
  }
  x->at.t[0] = s->t;
  if (s->bytes) memcpy(vector(s, SLOPES), s->f0, s->bytes);
  if (x->at.count < KEPT) x->at.count++;
  return TD_OK;
}

static double next_factor(td_stepper *s, double error, bool accepted) {
  adams *x = s->own;
  if (accepted) return x->wanted;
  return fmin(0.7, fmax(0.2, 0.9 * pow(error, -1. / (x->order + 1))));
}

static td_status dense(td_stepper *s, double theta, void *y, void *slope) {
  adams *x = s->own;
  if (x->by_start) return td_stepper_hermite(s, theta, y, slope);
  bool end = x->corrections > 0;
  const integral *q = end ? &x->corrector : &x->predictor;
  double w[NODES], dw[NODES];
  const void *f[NODES];
  for (int i = 0; i < q->n; i++) {
    long double c[NODES];
    basis(q->node, q->n, i, c);
    w[i] = (s->end - s->t) * area(c, q->n, theta);
    dw[i] = value(c, q->n, theta, false);
    f[i] = slope_at(s, end, i);
  }
  if (y) td_stepper_combine(s, y, s->y, q->n, w, f);
  if (slope) td_stepper_combine(s, slope, NULL, q->n, dw, f);
  return TD_OK;
}

static void save(const td_stepper *s, char *to) {
  const adams *x = s->own;
  if (!s->bytes) return;
  memcpy(to, &x->at, sizeof x->at);
  for (int i = 0; i < KEPT; i++) memcpy(to + sizeof x->at + (size_t)i * s->bytes, vector(s, SLOPES + i), s->bytes);
}
static td_status load(td_stepper *s, const char *from) {
  adams *x = s->own;
  if (!s->bytes) return TD_OK;
  memcpy(&x->at, from, sizeof x->at);
  for (int i = 0; i < KEPT; i++) memcpy(vector(s, SLOPES + i), from + sizeof x->at + (size_t)i * s->bytes, s->bytes);
  return TD_OK;
}

/* ---- One step transposed ---- */

/* Cotangents under way: of the kept slopes in BARS, of f(t, y) in FBAR, of y in YBAR, of the slope at the end in
 * EBAR. */
typedef struct {
  double time[KEPT];   /* of the kept slopes */
  double t, h;         /* of t at fixed h, of h at fixed t */
} times_bar;

static char *bar_at(const td_stepper *s, bool end, int i) {
  if (end && i == 0) return vector(s, EBAR);
  i -= end;
  return i == 0 ? vector(s, FBAR) : vector(s, BARS + i - 1);
}

/* bar, of y + ∫P, to y, to the slopes, and to the times: the upper end moves the integral by P there, the lower by −P,
 * and a node that moves takes P' with it. */
static void integrate_back(td_stepper *s, const integral *q, bool end, const char *bar, times_bar *g) {
  double h = s->end - s->t, along[NODES] = {0}, upper = 0;
  add(s, vector(s, YBAR), 1, bar);
  for (int i = 0; i < q->n; i++) {
    add(s, bar_at(s, end, i), h * q->w[i], bar);
    along[i] = td_stepper_dot(s, slope_at(s, end, i), bar);
    upper += q->at_end[i] * along[i];
  }
  g->h += upper;
  g->t += upper - along[q->n > 1 ? end : 0];
  for (int j = 0; j < q->n; j++) {
    double slope = 0;  /* P' by the scaled time, at node j */
    for (int i = 0; i < q->n; i++) slope += q->slope[j][i] * along[i];
    double moved = -slope * q->w[j];
    if (end && j == 0) g->h += moved, g->t += moved;
    else if (j == end) g->t += moved;
    else g->time[j - end - 1] += moved;
  }
}

/* *bar += the pull of w at (time, y). */
static td_status pull(td_stepper *s, td_step_back *b, double time, const char *y, const char *w, double *tau,
                      char *bar) {
  td_status status = td_field_vjp(s->f, time, y, w, vector(s, PULLED), b->tbar || b->hbar ? tau : NULL, b->dexternal);
  if (!status) add(s, bar, 1, vector(s, PULLED));
  return status;
}

/* Values inside the step: ∫₀^θ P, whose weights move with θ alone but for the times, which enter as in the step. */
static td_status back_dense(td_stepper *s, adams *x, td_step_back *b, times_bar *g) {
  bool end = x->corrections > 0;
  const integral *whole = end ? &x->corrector : &x->predictor;
  double h = s->end - s->t;
  for (size_t k = 0; k < b->ndense; k++) {
    double theta = b->theta[k], along[NODES] = {0}, at_theta = 0, start = 0;
    integral q = *whole;
    for (int i = 0; i < q.n; i++) {
      long double c[NODES];
      basis(q.node, q.n, i, c);
      q.w[i] = area(c, q.n, theta);
      along[i] = td_stepper_dot(s, slope_at(s, end, i), b->w[k]);
      at_theta += value(c, q.n, theta, false) * along[i];
    }
    start = along[q.n > 1 ? end : 0];
    add(s, vector(s, YBAR), 1, b->w[k]);
    for (int i = 0; i < q.n; i++) add(s, bar_at(s, end, i), h * q.w[i], b->w[k]);
    g->h += theta * at_theta;
    g->t += at_theta - start;
    if (b->theta_bar) b->theta_bar[k] = h * at_theta;
    for (int j = 0; j < q.n; j++) {
      double slope = 0;
      for (int i = 0; i < q.n; i++) slope += q.slope[j][i] * along[i];
      double moved = -slope * q.w[j];
      if (end && j == 0) g->h += moved, g->t += moved;
      else if (j == end) g->t += moved;
      else g->time[j - end - 1] += moved;
    }
  }
  return TD_OK;
}

static td_status back_corrected(td_stepper *s, adams *x, td_step_back *b, times_bar *g) {
  char *pbar = vector(s, PBAR);
  td_status status = correct(s, x);
  if (status) return status;
  memcpy(pbar, b->lambda, s->bytes);
  status = back_dense(s, x, b, g);
  for (int i = x->corrections - 1; i >= 0 && !status; i--) {
    double tau = 0;
    if (i + 1 < x->corrections)  /* the slope that this correction used */
      status = td_stepper_eval(s, s->last_time, vector(s, STATES + i), vector(s, END));
    if (status) return status;
    integrate_back(s, &x->corrector, true, pbar, g);
    clear(s, pbar);
    status = pull(s, b, s->last_time, vector(s, STATES + i), vector(s, EBAR), &tau, pbar);
    clear(s, vector(s, EBAR));
    g->t += tau;
    g->h += tau;
  }
  if (!status) integrate_back(s, &x->predictor, false, pbar, g);
  return status;
}

static td_status back_start(td_stepper *s, adams *x, td_step_back *b, times_bar *g) {
  double tbar = 0, hbar = 0;
  td_status status = TD_OK;
  td_step_back inner = *b;
  inner.lambda = vector(s, PBAR);
  inner.tbar = b->tbar ? &tbar : NULL;
  inner.hbar = b->hbar ? &hbar : NULL;
  inner.ndense = 0;
  memcpy(inner.lambda, b->lambda, s->bytes);
  if (b->ndense) {
    char *const room[3] = {vector(s, END), vector(s, ERROR), vector(s, PULLED)};
    status = by_start(s, x);
    if (!status) status = td_hermite_back(s, b, s->y1, inner.lambda, vector(s, YBAR), room);
  }
  if (!status) status = td_stepper_start(&x->starter, s->t, s->y);
  if (status) return status;
  x->starter.end = x->starter.last_time = s->last_time;
  status = x->starter.method->family->back(&x->starter, &inner);
  add(s, vector(s, YBAR), 1, inner.lambda);
  g->t += tbar;
  g->h += hbar;
  return status;
}

/* The history's cotangent in: its newest entry is f(t, y) of this step, the others are those kept before it. */
static void take_history(td_stepper *s, const td_step_back *b, times_bar *g) {
  setting bar;
  const char *rest = b->lambda + s->bytes;
  memcpy(&bar, rest, sizeof bar);
  memcpy(vector(s, FBAR), rest + sizeof bar, s->bytes);
  g->t += bar.t[0];
  for (int i = 0; i + 1 < KEPT; i++) {
    memcpy(vector(s, BARS + i), rest + sizeof bar + (size_t)(i + 1) * s->bytes, s->bytes);
    g->time[i] = bar.t[i + 1];
  }
  clear(s, vector(s, BARS + KEPT - 1));
}

static void give_history(const td_stepper *s, td_step_back *b, const times_bar *g) {
  setting bar = {0};
  char *rest = b->lambda + s->bytes;
  memcpy(bar.t, g->time, sizeof bar.t);
  memcpy(rest, &bar, sizeof bar);
  for (int i = 0; i < KEPT; i++) memcpy(rest + sizeof bar + (size_t)i * s->bytes, vector(s, BARS + i), s->bytes);
}

static td_status back(td_stepper *s, td_step_back *b) {
  adams *x = s->own;
  if (!s->bytes) return TD_OK;
  td_status status = td_stepper_slope(s);
  if (status) return status;
  plan(s, x, true);
  times_bar g = {0};
  take_history(s, b, &g);
  clear(s, vector(s, YBAR));
  clear(s, vector(s, EBAR));
  status = x->by_start ? back_start(s, x, b, &g) : back_corrected(s, x, b, &g);
  double tau = 0;
  if (!status) status = pull(s, b, s->t, s->y, vector(s, FBAR), &tau, vector(s, YBAR));
  if (status) return status;
  if (b->tbar) *b->tbar += g.t + tau;
  if (b->hbar) *b->hbar += g.h;
  memcpy(b->lambda, vector(s, YBAR), s->bytes);
  give_history(s, b, &g);
  return TD_OK;
}

static const td_family td_family_adams = {
  .name = "Adams", .make = make, .free = release, .start = start, .step = step, .accept = accept, .dense = dense,
  .history = history, .save = save, .load = load, .back = back,
};
static const td_family td_family_abm = {
  .name = "Adams", .make = make, .free = release, .start = start, .step = step, .accept = accept, .factor = next_factor,
  .dense = dense, .history = history, .save = save, .load = load, .back = back,
};

static const td_adams bashforth = {0, false}, moulton = {4, false}, variable = {1, true};
static const td_method all[] = {
  {.name = "explicit_adams", .source = "Adams and Bashforth 1883, order max_order (4)", .family = &td_family_adams,
   .order = 4, .dense_order = 3, .stages = 0, .table = &bashforth},
  {.name = "implicit_adams", .source = "Moulton 1926, order max_order (4), max_iters (4) corrections",
   .family = &td_family_adams, .order = 4, .dense_order = 3, .stages = 0, .table = &moulton},
  {.name = "abm", .source = "variable order and step, one correction; Krogh 1969", .family = &td_family_abm, .order = 12,
   .error_order = 1, .dense_order = 1, .stages = 0, .table = &variable},
};
const td_method *const td_methods_adams[] = {&all[0], &all[1], &all[2], NULL};
