/* Exponential Runge–Kutta methods for y' = f(t, y) whose stiffness is in a linear part L: with z = hL and
 * D(u) = f(u) − f(y) − L(u − y),
 *   uᵢ = y + cᵢh φ₁(cᵢz) f(y) + h Σⱼ aᵢⱼ(z) D(uⱼ),   y₁ = y + h φ₁(z) f(y) + h Σⱼ bⱼ(z) D(uⱼ)
 * (Hochbruck, Ostermann, Acta Numerica 2010). L is the option linear, a diagonal or a matrix, and counts as a constant;
 * f is the whole right-hand side. exprb32 takes the Jacobian at the step's start instead and has an error estimate. */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "base/alloc.h"
#include "solve/hermite.h"
#include "solve/implicit.h"
#include "solve/integrate.h"
#include "solve/phi.h"

enum { STAGES = 4, TERMS = 12 };

/* coef·φₖ(z) or, when half, coef·φₖ(z/2), of stage j in row i; row `stages` is the step's end. */
typedef struct {
  int i, j, k;
  bool half;
  double coef;
} term;

typedef struct {
  int stages;
  double c[STAGES];
  int count;
  term terms[TERMS];
  bool jacobian;
} table;

/* Vectors, n doubles each: stage states, D of the stages (the first is f(y)), their cotangents, and single ones. */
enum { U = 0, D = STAGES, BARS = 2 * STAGES, Y = 3 * STAGES, OUT, ROOM1, ROOM2, YBAR, FT, COUNT };

typedef struct {
  const table *d;
  td_implicit m;                 /* of exprb32 */
  size_t n, size;                /* state; L is size×size on each run of `size` elements, or diagonal (size 0) */
  const double *linear;
  double h;                      /* that the operators were made with; 0: none */
  double *phi[2][TD_PHI];        /* of z, of z/2 */
  double *room, *vectors;
  char *block;
  size_t block_bytes;
} exponential;

static double *vector(const exponential *x, int i) { return x->vectors + (size_t)i * x->n; }

static void add(size_t n, double *sum, double c, const double *v) {
  for (size_t i = 0; i < n; i++) sum[i] += c * v[i];
}
static double dot(size_t n, const double *a, const double *b) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

static td_status take_linear(td_stepper *s, exponential *x) {
  const td_tensor *l = s->o->semilinear;
  if (x->d->jacobian) {
    x->size = s->n;
    return TD_OK;
  }
  if (!l)
    return td_fail(TD_EARG, "%s: method \"%s\" needs the option linear, the stiff linear part of the right-hand side",
                   s->f->who, s->method->name);
  if (l->dtype != TD_F64 || !td_tensor_is_contiguous(l))
    return td_fail(TD_EARG, "%s: linear is not contiguous float64", s->f->who);
  x->linear = (const double *)(const void *)l->data;
  if (l->ndim != 2 || l->shape[0] != l->shape[1]) {
    if (l->numel == s->n) return TD_OK;
  } else if (l->shape[0] && s->n % l->shape[0] == 0) {
    x->size = l->shape[0];
    return TD_OK;
  }
  return td_fail(TD_ESHAPE,
                 "%s: linear has shape (%s), expected %zu numbers, or a square matrix that fits a state of %zu "
                 "elements",
                 s->f->who, td_tensor_shape_string(l), s->n, s->n);
}

static td_status make(td_stepper *s) {
  exponential *x = td_alloc(sizeof *x);
  if (!x) return td_last_status();
  *x = (exponential){.d = s->method->table, .n = s->n};
  s->own = x;
  td_stepper_room(s, 5);
  td_status status = take_linear(s, x);
  if (!status && x->d->jacobian) {
    status = td_implicit_make(&x->m, s, 1, 0, TD_NEEDS_MATRIX);
    x->linear = x->m.jacobian;
  }
  if (status) return status;
  size_t each = x->size ? x->size * x->size : x->n;
  x->block_bytes = ((2 * TD_PHI + 4) * each + COUNT * x->n + 1) * sizeof(double);
  x->block = td_alloc(x->block_bytes);
  if (!x->block) return td_last_status();
  double *p = (double *)(void *)x->block;
  for (int half = 0; half < 2; half++)
    for (int k = 0; k < TD_PHI; k++, p += each) x->phi[half][k] = p;
  x->room = p;
  x->vectors = p + 4 * each;
  return TD_OK;
}

static void release(td_stepper *s) {
  exponential *x = s->own;
  if (!x) return;
  td_implicit_free(&x->m);
  td_free(x->block, x->block ? x->block_bytes : 0);
  td_free(x, sizeof *x);
}

/* ---- Operators ---- */

/* The φ of z and z/2 for this step size. */
static void prepare(exponential *x, double h) {
  if (x->h == h) return;
  x->h = h;
  for (int half = 0; half < 2; half++) {
    double scale = half ? h / 2 : h;
    if (x->size) {
      td_phi_matrix(x->linear, scale, x->size, x->phi[half], x->room);
      continue;
    }
    for (size_t i = 0; i < x->n; i++) {
      double phi[TD_PHI];
      td_phi_number(scale * x->linear[i], phi);
      for (int k = 0; k < TD_PHI; k++) x->phi[half][k][i] = phi[k];
    }
  }
}

/* out += coef·op(a)·v, a diagonal or blocks. */
static void apply(const exponential *x, const double *a, bool transposed, double coef, const double *v, double *out) {
  size_t m = x->size;
  if (!m) {
    for (size_t i = 0; i < x->n; i++) out[i] += coef * a[i] * v[i];
    return;
  }
  for (size_t at = 0; at < x->n; at += m)
    for (size_t i = 0; i < m; i++) {
      if (transposed) {
        double w = coef * v[at + i];
        for (size_t j = 0; j < m; j++) out[at + j] += a[i * m + j] * w;
      } else {
        double sum = 0;
        for (size_t j = 0; j < m; j++) sum += a[i * m + j] * v[at + j];
        out[at + i] += coef * sum;
      }
    }
}

/* ---- The step ---- */

/* out = y + c h φ₁(cz) f(y) + h Σ of row i. */
static void row(const exponential *x, int i, double c, double h, double *out) {
  memcpy(out, vector(x, Y), x->n * sizeof *out);
  if (c != 0) apply(x, x->phi[c == 0.5][1], false, c * h, vector(x, D), out);
  for (int q = 0; q < x->d->count; q++) {
    const term *t = &x->d->terms[q];
    if (t->i == i) apply(x, x->phi[t->half][t->k], false, t->coef * h, vector(x, D + t->j), out);
  }
}

static td_status eval(td_stepper *s, double t, const double *y, double *dy) {
  char *state = td_stepper_vector(s, 1), *slope = td_stepper_vector(s, 2);
  td_implicit_narrow(s, y, state);
  td_status status = td_stepper_eval(s, t, state, slope);
  if (!status) td_implicit_widen(s, slope, dy);
  return status;
}

/* D of stage j, in place of f there. */
static void differ(const exponential *x, int j) {
  double *d = vector(x, D + j), *moved = vector(x, ROOM1);
  memcpy(moved, vector(x, U + j), x->n * sizeof *moved);
  add(x->n, moved, -1, vector(x, Y));
  add(x->n, d, -1, vector(x, D));
  apply(x, x->linear, false, -1, moved, d);
}

/* exprb32: what a time-dependent f adds, h²φ₂ ∂f/∂t to stage and end, and h ∂f/∂t taken from D. */
static void add_time(const exponential *x, double h, double *u) {
  apply(x, x->phi[0][2], false, h * h, vector(x, FT), u);
}

static td_status run(td_stepper *s, exponential *x) {
  double h = s->end - s->t;
  td_implicit_widen(s, s->y, vector(x, Y));
  td_status status = TD_OK;
  if (x->d->jacobian && !x->m.current) {
    td_implicit_load(&x->m, s);
    status = td_implicit_refresh(&x->m, s, vector(x, FT));
    x->h = 0;
  }
  if (!status) status = td_stepper_slope(s);
  if (status) return status;
  prepare(x, h);
  td_implicit_widen(s, s->f0, vector(x, D));
  for (int j = 1; j < x->d->stages && !status; j++) {
    row(x, j, x->d->c[j], h, vector(x, U + j));
    if (x->d->jacobian) add_time(x, h, vector(x, U + j));
    status = eval(s, td_stepper_time(s, x->d->c[j]), vector(x, U + j), vector(x, D + j));
    if (status) return status;
    differ(x, j);
    if (x->d->jacobian) add(x->n, vector(x, D + j), -h, vector(x, FT));
  }
  row(x, x->d->stages, 1, h, vector(x, OUT));
  if (x->d->jacobian) add_time(x, h, vector(x, OUT));
  return status;
}

static td_status step(td_stepper *s, td_step_result *result) {
  (void)result;
  exponential *x = s->own;
  td_status status = run(s, x);
  if (status) return status;
  td_implicit_narrow(s, vector(x, OUT), s->y1);
  if (!x->d->jacobian) return TD_OK;
  add(x->n, vector(x, OUT), -1, vector(x, U + 1));  /* the embedded solution is the stage */
  td_implicit_narrow(s, vector(x, OUT), td_stepper_vector(s, 0));
  s->error = (td_terms){.count = 1, .coef = {1}, .x = {td_stepper_vector(s, 0)}};
  return TD_OK;
}

static td_status start(td_stepper *s) {
  exponential *x = s->own;
  x->m.current = false;
  return TD_OK;
}
static td_status load(td_stepper *s, const char *from) {
  (void)from;
  return start(s);
}
static td_status accept(td_stepper *s) { return start(s); }

static td_status dense(td_stepper *s, double theta, void *y, void *slope) {
  return td_stepper_hermite(s, theta, y, slope);
}

/* ---- The step transposed ---- */

/* What moves when h does, in coef·h·φₖ(z): d(hφₖ)/dh = (1 − k) φₖ + φₖ₋₁, and half as fast inside φ of z/2 is the
 * same. */
static double by_step(const exponential *x, bool half, int k, double coef, const double *v, const double *bar) {
  double *out = vector(x, ROOM2);
  memset(out, 0, x->n * sizeof *out);
  apply(x, x->phi[half][k], false, coef * (1 - k), v, out);
  apply(x, x->phi[half][k - 1], false, coef, v, out);
  return dot(x->n, out, bar);
}

/* bar, of row i's result, to y, f(y) and the D before. */
static void row_back(const exponential *x, const td_step_back *b, int i, double c, double h, const double *bar) {
  add(x->n, vector(x, YBAR), 1, bar);
  if (c != 0) {
    apply(x, x->phi[c == 0.5][1], true, c * h, bar, vector(x, BARS));
    if (b->hbar) *b->hbar += by_step(x, c == 0.5, 1, c, vector(x, D), bar);
  }
  for (int q = 0; q < x->d->count; q++) {
    const term *t = &x->d->terms[q];
    if (t->i != i) continue;
    apply(x, x->phi[t->half][t->k], true, t->coef * h, bar, vector(x, BARS + t->j));
    if (b->hbar) *b->hbar += by_step(x, t->half, t->k, t->coef, vector(x, D + t->j), bar);
  }
}

/* out = wᵀ∂f/∂y at (t + c·h, y). */
static td_status pull(td_stepper *s, td_step_back *b, double c, const double *y, const double *w, double *out) {
  char *state = td_stepper_vector(s, 1), *cotangent = td_stepper_vector(s, 2);
  double tau = 0;
  td_implicit_narrow(s, y, state);
  td_implicit_narrow(s, w, cotangent);
  td_status status = td_field_vjp(s->f, td_stepper_time(s, c), state, cotangent, cotangent,
                                  b->tbar || b->hbar ? &tau : NULL, b->dexternal);
  if (status) return status;
  td_implicit_widen(s, cotangent, out);
  if (b->tbar) *b->tbar += tau;
  if (b->hbar) *b->hbar += c * tau;
  return TD_OK;
}

static td_status back_stage(td_stepper *s, exponential *x, td_step_back *b, int j, double h) {
  double *dbar = vector(x, BARS + j), *ubar = vector(x, ROOM1);
  td_status status = pull(s, b, x->d->c[j], vector(x, U + j), dbar, ubar);
  if (status) return status;
  add(x->n, vector(x, BARS), -1, dbar);
  apply(x, x->linear, true, -1, dbar, ubar);
  apply(x, x->linear, true, 1, dbar, vector(x, YBAR));
  row_back(x, b, j, x->d->c[j], h, ubar);
  return TD_OK;
}

static td_status back(td_stepper *s, td_step_back *b) {
  exponential *x = s->own;
  double h = s->end - s->t;
  if (x->d->jacobian)
    return td_fail(TD_EGRAD,
                   "%s: exprb32 has no discrete gradient, its exponentials depend on the state; use etdrk4 with "
                   "the option linear, or rodas5p, or grad = \"backsolve\"",
                   s->f->who);
  td_status status = run(s, x);
  if (status) return status;
  td_implicit_narrow(s, vector(x, OUT), s->y1);
  memset(vector(x, BARS), 0, STAGES * x->n * sizeof(double));
  char *ystart = td_stepper_vector(s, 3);
  memset(ystart, 0, s->bytes);
  if (b->ndense) {
    char *const room[3] = {td_stepper_vector(s, 0), td_stepper_vector(s, 1), td_stepper_vector(s, 2)};
    status = td_hermite_back(s, b, s->y1, b->lambda, ystart, room);
  }
  td_implicit_widen(s, ystart, vector(x, YBAR));
  double *bar = vector(x, OUT);
  td_implicit_widen(s, b->lambda, bar);
  row_back(x, b, x->d->stages, 1, h, bar);
  for (int j = x->d->stages - 1; j >= 1 && !status; j--) status = back_stage(s, x, b, j, h);
  if (!status) status = pull(s, b, 0, vector(x, Y), vector(x, BARS), vector(x, ROOM1));
  if (status) return status;
  add(x->n, vector(x, YBAR), 1, vector(x, ROOM1));
  td_implicit_narrow(s, vector(x, YBAR), b->lambda);
  return TD_OK;
}

static const td_family td_family_exponential = {
  .name = "exponential", .stiff = true, .make = make, .free = release, .start = start, .step = step, .accept = accept,
  .dense = dense, .load = load, .back = back,
};

static const table etd1 = {.stages = 1, .c = {0}};
static const table etdrk2 = {.stages = 2, .c = {0, 1}, .count = 1, .terms = {{2, 1, 2, false, 1}}};
static const table etdrk3 = {
  .stages = 3, .c = {0, 0.5, 1}, .count = 5,
  .terms = {{2, 1, 1, false, 2}, {3, 1, 2, false, 4}, {3, 1, 3, false, -8}, {3, 2, 2, false, -1}, {3, 2, 3, false, 4}},
};
#define LAST_OF_FOUR                                                                                               \
  {4, 1, 2, false, 2}, {4, 1, 3, false, -4}, {4, 2, 2, false, 2}, {4, 2, 3, false, -4}, {4, 3, 2, false, -1},      \
    {4, 3, 3, false, 4}
static const table etdrk4 = {
  .stages = 4, .c = {0, 0.5, 0.5, 1}, .count = 8,
  .terms = {{2, 1, 1, true, 0.5}, {3, 2, 1, true, 1}, LAST_OF_FOUR},
};
static const table krogstad4 = {
  .stages = 4, .c = {0, 0.5, 0.5, 1}, .count = 8,
  .terms = {{2, 1, 2, true, 1}, {3, 2, 2, false, 2}, LAST_OF_FOUR},
};
static const table exprb32 = {
  .stages = 2, .c = {0, 1}, .count = 1, .terms = {{2, 1, 3, false, 2}}, .jacobian = true,
};

#define METHOD(id, p, error, count, from)                                                                           \
  {.name = #id, .source = from, .family = &td_family_exponential, .order = p, .error_order = error,                 \
   .dense_order = p < 3 ? p : 3, .stages = count, .table = &id}
static const td_method all[] = {
  METHOD(etd1, 1, 0, 1, "exponential Euler, Certaine 1960"),
  METHOD(etdrk2, 2, 0, 2, "Cox and Matthews 2002"),
  METHOD(etdrk3, 3, 0, 3, "Cox and Matthews 2002"),
  METHOD(etdrk4, 4, 0, 4, "Cox and Matthews 2002, stiff order 2"),
  METHOD(krogstad4, 4, 0, 4, "Krogstad 2005, stiff order 3"),
  METHOD(exprb32, 3, 2, 2, "Hochbruck, Ostermann and Schweitzer 2009"),
};
const td_method *const td_methods_exponential[] = {&all[0], &all[1], &all[2], &all[3], &all[4], &all[5], NULL};
