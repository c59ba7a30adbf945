/* Algebraically reversible schemes: the state before a step follows exactly from the state after it, so that a reverse
 * pass needs no stored states (grad = "reversible"). Each carries a second vector besides y.
 *   alf             asynchronous leapfrog: Mutze 2013; Zhuang et al. 2021 (MALI)
 *   reversible_heun Kidger et al. 2021
 *   mccallum_foster McCallum and Foster 2024, over any explicit method */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "base/alloc.h"
#include "solve/hermite.h"
#include "solve/integrate.h"
#include "solve/tableau.h"

/* ---- What the first two share: y₁ = y + (h/2)(a + b), a and b the slopes at the ends; the extension is the parabola
 *      that has them ---- */

/* Vectors: the second state, before and after; a stage and its slope; slopes at the ends; room for the reverse pass. */
enum { OTHER = 0, OTHER1, STAGE, SLOPE, FIRST, LAST, BAR1, BAR2, BAR3, ROOM };

static char *vector(const td_stepper *s, int i) { return td_stepper_vector(s, (size_t)i); }

static void add(const td_stepper *s, char *sum, double c, const void *x) { td_stepper_combine(s, sum, sum, 1, &c, &x); }

static void linear(const td_stepper *s, char *out, int count, const double *c, const void *const *x) {
  td_stepper_combine(s, out, NULL, count, c, x);
}

static td_status parabola(td_stepper *s, double theta, void *y, void *slope) {
  double h = s->end - s->t;
  const void *x[2] = {vector(s, FIRST), vector(s, LAST)};
  const double w[2] = {h * theta * (1 - theta / 2), h * theta * theta / 2}, dw[2] = {1 - theta, theta};
  if (y) td_stepper_combine(s, y, s->y, 2, w, x);
  if (slope) td_stepper_combine(s, slope, NULL, 2, dw, x);
  return TD_OK;
}

/* Cotangents of values inside the step: ybar, and those of the slopes at the ends, are added to. */
static void parabola_back(td_stepper *s, const td_step_back *b, char *ybar, char *first, char *last) {
  double h = s->end - s->t;
  for (size_t i = 0; i < b->ndense; i++) {
    double q = b->theta[i], p0 = q * (1 - q / 2), p1 = q * q / 2;
    double a0 = td_stepper_dot(s, vector(s, FIRST), b->w[i]), a1 = td_stepper_dot(s, vector(s, LAST), b->w[i]);
    add(s, ybar, 1, b->w[i]);
    add(s, first, h * p0, b->w[i]);
    add(s, last, h * p1, b->w[i]);
    if (b->hbar) *b->hbar += p0 * a0 + p1 * a1;
    if (b->theta_bar) b->theta_bar[i] = h * ((1 - q) * a0 + q * a1);
  }
}

static size_t one_vector(const td_stepper *s) {
  (void)s;
  return 1;
}
static void save(const td_stepper *s, char *to) {
  if (s->bytes) memcpy(to, vector(s, OTHER), s->bytes);
}
static td_status load(td_stepper *s, const char *from) {
  if (s->bytes) memcpy(vector(s, OTHER), from, s->bytes);
  return TD_OK;
}
static td_status accept(td_stepper *s) {
  if (s->bytes) memcpy(vector(s, OTHER), vector(s, OTHER1), s->bytes);
  return TD_OK;
}

static void error_from(td_stepper *s, double c, int a, int b) {
  s->error = (td_terms){.count = 2, .coef = {c, -c}, .x = {vector(s, a), vector(s, b)}};
}

/* *bar += the pull of w at (t, y); the time is t + time·h. */
static td_status pull(td_stepper *s, td_step_back *b, double time, const char *y, const char *w, char *room,
                      char *bar) {
  double tau = 0;
  td_status status = td_field_vjp(s->f, td_stepper_time(s, time), y, w, room, b->tbar || b->hbar ? &tau : NULL,
                                  b->dexternal);
  if (status) return status;
  add(s, bar, 1, room);
  if (b->tbar) *b->tbar += tau;
  if (b->hbar) *b->hbar += time * tau;
  return TD_OK;
}

/* ---- Asynchronous leapfrog, in (y, v): k = y + hv/2, u = f(t + h/2, k), v₁ = v + 2η(u − v), y₁ = k + hv₁/2 ---- */

static double eta(const td_stepper *s) { return *(const double *)s->method->table; }

static td_status alf_make(td_stepper *s) {
  td_stepper_room(s, ROOM);
  s->most_history = 1;
  return TD_OK;
}

static td_status alf_start(td_stepper *s) {
  td_status status = td_stepper_slope(s);
  if (!status && s->bytes) memcpy(vector(s, OTHER), s->f0, s->bytes);
  return status;
}

/* k and u of the step from (y, v). */
static td_status alf_middle(td_stepper *s) {
  double half = (s->end - s->t) / 2;
  const void *v = vector(s, OTHER);
  td_stepper_combine(s, vector(s, STAGE), s->y, 1, &half, &v);
  return td_stepper_eval(s, td_stepper_time(s, 0.5), vector(s, STAGE), vector(s, SLOPE));
}

static td_status alf_step(td_stepper *s, td_step_result *result) {
  (void)result;
  double h = s->end - s->t, e = eta(s), half = h / 2;
  td_status status = alf_middle(s);
  if (status || !s->bytes) return status;
  const double c[2] = {1 - 2 * e, 2 * e};
  linear(s, vector(s, OTHER1), 2, c, (const void *const[]){vector(s, OTHER), vector(s, SLOPE)});
  const void *v1 = vector(s, OTHER1);
  td_stepper_combine(s, s->y1, vector(s, STAGE), 1, &half, &v1);
  memcpy(vector(s, FIRST), vector(s, OTHER), s->bytes);
  memcpy(vector(s, LAST), vector(s, OTHER1), s->bytes);
  error_from(s, h, SLOPE, OTHER);
  return TD_OK;
}

/* (y, v) at the step's end become those at its start. */
static td_status alf_undo(td_stepper *s) {
  double h = s->end - s->t, e = eta(s), back = -h / 2;
  char *v = vector(s, OTHER), *k = vector(s, STAGE);
  const void *from = v;
  td_stepper_combine(s, k, s->y, 1, &back, &from);
  td_status status = td_stepper_eval(s, td_stepper_time(s, 0.5), k, vector(s, SLOPE));
  if (status) return status;
  const double c[2] = {1 / (1 - 2 * e), -2 * e / (1 - 2 * e)};
  linear(s, v, 2, c, (const void *const[]){v, vector(s, SLOPE)});
  td_stepper_combine(s, s->y, k, 1, &back, &from);
  return TD_OK;
}

static td_status alf_back(td_stepper *s, td_step_back *b) {
  td_step_result ignored;
  double h = s->end - s->t, e = eta(s);
  char *ybar = b->lambda, *vbar = b->lambda + s->bytes, *kbar = vector(s, BAR1), *ubar = vector(s, BAR2);
  td_status status = alf_step(s, &ignored);
  if (status || !s->bytes) return status;
  char *ystart = vector(s, BAR3);
  memcpy(kbar, ybar, s->bytes);                      /* y₁ = k + hv₁/2 */
  add(s, vbar, h / 2, ybar);
  if (b->hbar) *b->hbar += td_stepper_dot(s, ybar, vector(s, OTHER1)) / 2;
  memset(ystart, 0, s->bytes);
  memset(ubar, 0, s->bytes);
  parabola_back(s, b, ystart, ubar, vbar);           /* ubar holds that of v for now */
  memcpy(ybar, ystart, s->bytes);
  char *direct = vector(s, FIRST);
  memcpy(direct, ubar, s->bytes);
  const double c = 2 * e;
  linear(s, ubar, 1, &c, (const void *const[]){vbar});  /* v₁ = (1 − 2η)v + 2ηu */
  const double left = 1 - 2 * e;
  linear(s, vbar, 1, &left, (const void *const[]){vbar});
  add(s, vbar, 1, direct);
  status = pull(s, b, 0.5, vector(s, STAGE), ubar, vector(s, SLOPE), kbar);
  if (status) return status;
  add(s, ybar, 1, kbar);                             /* k = y + hv/2 */
  add(s, vbar, h / 2, kbar);
  if (b->hbar) *b->hbar += td_stepper_dot(s, kbar, vector(s, OTHER)) / 2;
  return TD_OK;
}

/* v₀ = f(t₀, y₀) */
static td_status alf_start_back(td_stepper *s, td_step_back *b) {
  char *vbar = b->lambda + s->bytes;
  if (!s->bytes) return TD_OK;
  td_status status = pull(s, b, 0, s->y, vbar, vector(s, SLOPE), b->lambda);
  memset(vbar, 0, s->bytes);
  return status;
}

/* ---- Reversible Heun, in (y, ŷ): ŷ₁ = 2y − ŷ + h f(t, ŷ), y₁ = y + (h/2)(f(t, ŷ) + f(t₁, ŷ₁)) ---- */

typedef struct {
  bool have;  /* FIRST is f(t, ŷ) */
} heun;

static td_status heun_make(td_stepper *s) {
  s->own = td_alloc(sizeof(heun));
  if (!s->own) return td_last_status();
  *(heun *)s->own = (heun){false};
  td_stepper_room(s, ROOM);
  s->most_history = 1;
  return TD_OK;
}
static void heun_free(td_stepper *s) { td_free(s->own, sizeof(heun)); }

static td_status heun_start(td_stepper *s) {
  ((heun *)s->own)->have = false;
  if (s->bytes) memcpy(vector(s, OTHER), s->y, s->bytes);
  return TD_OK;
}
static td_status heun_load(td_stepper *s, const char *from) {
  ((heun *)s->own)->have = false;
  return load(s, from);
}

static td_status heun_step(td_stepper *s, td_step_result *result) {
  (void)result;
  heun *x = s->own;
  double h = s->end - s->t;
  td_status status = x->have ? TD_OK : td_stepper_eval(s, s->t, vector(s, OTHER), vector(s, FIRST));
  if (status) return status;
  x->have = true;
  const double c[3] = {2, -1, h}, w[2] = {h / 2, h / 2};
  linear(s, vector(s, OTHER1), 3, c, (const void *const[]){s->y, vector(s, OTHER), vector(s, FIRST)});
  status = td_stepper_eval(s, s->last_time, vector(s, OTHER1), vector(s, LAST));
  if (status) return status;
  td_stepper_combine(s, s->y1, s->y, 2, w, (const void *const[]){vector(s, FIRST), vector(s, LAST)});
  error_from(s, h / 2, LAST, FIRST);
  return TD_OK;
}

/* The slope at the step's end is the next one's first, unless a jump is there. */
static td_status heun_accept(td_stepper *s) {
  heun *x = s->own;
  x->have = s->last_time == s->end;
  if (x->have && s->bytes) memcpy(vector(s, FIRST), vector(s, LAST), s->bytes);
  return accept(s);
}

static td_status heun_undo(td_stepper *s) {
  double h = s->end - s->t;
  char *other = vector(s, OTHER), *before = vector(s, OTHER1);
  ((heun *)s->own)->have = false;
  td_status status = td_stepper_eval(s, s->last_time, other, vector(s, LAST));
  if (status || !s->bytes) return status;
  const double c[3] = {2, -1, -h}, w[2] = {-h / 2, -h / 2};
  linear(s, before, 3, c, (const void *const[]){s->y, other, vector(s, LAST)});
  status = td_stepper_eval(s, s->t, before, vector(s, FIRST));
  if (status) return status;
  td_stepper_combine(s, s->y, s->y, 2, w, (const void *const[]){vector(s, FIRST), vector(s, LAST)});
  memcpy(other, before, s->bytes);
  ((heun *)s->own)->have = true;
  return TD_OK;
}

static td_status heun_back(td_stepper *s, td_step_back *b) {
  td_step_result ignored;
  double h = s->end - s->t;
  td_status status = heun_step(s, &ignored);
  if (status || !s->bytes) return status;
  char *ybar = b->lambda, *hat = b->lambda + s->bytes, *first = vector(s, BAR1), *last = vector(s, BAR2);
  const double half = h / 2;
  linear(s, first, 1, &half, (const void *const[]){ybar});
  memcpy(last, first, s->bytes);
  if (b->hbar)
    *b->hbar += (td_stepper_dot(s, ybar, vector(s, FIRST)) + td_stepper_dot(s, ybar, vector(s, LAST))) / 2;
  parabola_back(s, b, ybar, first, last);
  status = pull(s, b, 1, vector(s, OTHER1), last, vector(s, SLOPE), hat);
  if (status) return status;
  add(s, ybar, 2, hat);                              /* ŷ₁ = 2y − ŷ + h f(t, ŷ) */
  add(s, first, h, hat);
  if (b->hbar) *b->hbar += td_stepper_dot(s, hat, vector(s, FIRST));
  const double minus = -1;
  linear(s, hat, 1, &minus, (const void *const[]){hat});
  return pull(s, b, 0, vector(s, OTHER), first, vector(s, SLOPE), hat);
}

/* ŷ₀ = y₀ */
static td_status joined_start_back(td_stepper *s, td_step_back *b) {
  char *other = b->lambda + s->bytes;
  if (!s->bytes) return TD_OK;
  add(s, b->lambda, 1, other);
  memset(other, 0, s->bytes);
  return TD_OK;
}

/* ---- McCallum and Foster, in (y, z), over an increment Ψ: y₁ = λy + (1 − λ)z + Ψ_h(t, z), z₁ = z − Ψ₋ₕ(t₁, y₁) ---- */

typedef struct {
  td_stepper base;
  double coupling;
} coupled;

static td_status mf_make(td_stepper *s) {
  const td_method *base = s->o->base ? s->o->base : td_method_find("tsit5");
  bool fixed = s->o->step_size > 0 || s->o->grid;
  if (base->family != &td_family_explicit)
    return td_fail(TD_EARG, "%s: base = \"%s\" is not an explicit Runge–Kutta method", s->f->who, base->name);
  if (!fixed && !base->error_order)
    return td_fail(TD_EARG, "%s: base = \"%s\" has no error estimate; give a step_size", s->f->who, base->name);
  coupled *x = td_alloc(sizeof *x);
  if (!x) return td_last_status();
  *x = (coupled){.coupling = s->o->coupling > 0 ? s->o->coupling : 0.999};
  s->own = x;
  td_stepper_room(s, ROOM);
  s->most_history = 1;
  return td_stepper_make(&x->base, base, s->o, s->f, s->counts);
}

static void mf_free(td_stepper *s) {
  coupled *x = s->own;
  if (!x) return;
  td_stepper_free(&x->base);
  td_free(x, sizeof *x);
}

/* out = Ψ from (t, y) to end, as a difference. */
static td_status increment(td_stepper *s, double t, double end, const char *y, char *out) {
  td_stepper *base = &((coupled *)s->own)->base;
  td_step_result ignored;
  const double c[2] = {1, -1};
  td_status status = td_stepper_start(base, t, y);
  if (!status) status = td_stepper_step(base, end, false, &ignored);
  if (!status) linear(s, out, 2, c, (const void *const[]){base->y1, base->y});
  return status;
}

static td_status mf_step(td_stepper *s, td_step_result *result) {
  (void)result;
  coupled *x = s->own;
  char *z = vector(s, OTHER), *forward = vector(s, FIRST), *back = vector(s, LAST), *error = vector(s, STAGE);
  td_status status = increment(s, s->t, s->last_time, z, forward);
  if (status) return status;
  const td_terms *e = &x->base.error;
  if (e->count) {
    td_stepper_combine(s, error, NULL, e->count, e->coef, e->x);
    /* What the coupling moves y by counts too: it grows without bound where the scheme is not stable. */
    s->error = (td_terms){.count = 3, .coef = {1, x->coupling - 1, 1 - x->coupling}, .x = {error, s->y, z}};
  }
  const double c[3] = {x->coupling, 1 - x->coupling, 1}, d[2] = {1, -1};
  linear(s, s->y1, 3, c, (const void *const[]){s->y, z, forward});
  status = increment(s, s->last_time, s->t, s->y1, back);
  if (!status) linear(s, vector(s, OTHER1), 2, d, (const void *const[]){z, back});
  return status;
}

static td_status mf_start(td_stepper *s) {
  if (s->bytes) memcpy(vector(s, OTHER), s->y, s->bytes);
  return TD_OK;
}

static double mf_factor(td_stepper *s, double error, bool accepted) {
  const td_method *base = ((coupled *)s->own)->base.method;
  double factor = 0.9 * pow(error, -1.0 / (base->error_order + 1));
  return accepted ? fmin(10, fmax(0.2, factor)) : fmin(0.9, fmax(0.2, factor));
}

static td_status mf_undo(td_stepper *s) {
  double l = ((coupled *)s->own)->coupling;
  char *z = vector(s, OTHER), *psi = vector(s, FIRST);
  td_status status = increment(s, s->last_time, s->t, s->y, psi);
  if (status) return status;
  add(s, z, 1, psi);
  status = increment(s, s->t, s->last_time, z, psi);
  const double c[3] = {1 / l, 1 - 1 / l, -1 / l};
  if (!status) linear(s, s->y, 3, c, (const void *const[]){s->y, z, psi});
  return status;
}

/* λ becomes (∂Ψ/∂y)ᵀλ for the increment from (t, y) to end; times as the base's step has them. */
static td_status increment_back(td_stepper *s, td_step_back *b, double t, double end, const char *y, char *lambda,
                                double *tbar, double *hbar) {
  td_stepper *base = &((coupled *)s->own)->base;
  char *before = vector(s, SLOPE);
  if (s->bytes) memcpy(before, lambda, s->bytes);
  td_status status = td_stepper_start(base, t, y);
  if (status) return status;
  base->end = base->last_time = end;
  td_step_back inner = {.lambda = lambda, .tbar = b->tbar ? tbar : NULL, .hbar = b->tbar ? hbar : NULL,
                        .dexternal = b->dexternal};
  status = base->method->family->back(base, &inner);
  if (!status) add(s, lambda, -1, before);
  return status;
}

static td_status mf_back(td_stepper *s, td_step_back *b) {
  coupled *x = s->own;
  td_step_result ignored;
  td_status status = mf_step(s, &ignored);
  if (status || !s->bytes) return status;
  char *y1bar = vector(s, BAR1), *zbar = b->lambda + s->bytes, *psibar = vector(s, BAR2), *ystart = vector(s, BAR3);
  double tbar = 0, hbar = 0, minus = -1;
  memcpy(y1bar, b->lambda, s->bytes);
  memset(ystart, 0, s->bytes);
  if (b->ndense) {
    char *const room[3] = {vector(s, SLOPE), psibar, vector(s, FIRST)};
    status = td_hermite_back(s, b, s->y1, y1bar, ystart, room);
  }
  if (status) return status;
  linear(s, psibar, 1, &minus, (const void *const[]){zbar});
  status = increment_back(s, b, s->last_time, s->t, s->y1, psibar, &tbar, &hbar);
  if (status) return status;
  if (b->tbar) *b->tbar += tbar;
  if (b->hbar) *b->hbar += tbar - hbar;
  add(s, y1bar, 1, psibar);
  add(s, ystart, x->coupling, y1bar);
  memcpy(b->lambda, ystart, s->bytes);
  add(s, zbar, 1 - x->coupling, y1bar);
  tbar = hbar = 0;
  status = increment_back(s, b, s->t, s->last_time, vector(s, OTHER), y1bar, &tbar, &hbar);
  if (status) return status;
  if (b->tbar) *b->tbar += tbar;
  if (b->hbar) *b->hbar += hbar;
  add(s, zbar, 1, y1bar);
  return TD_OK;
}

static td_status mf_dense(td_stepper *s, double theta, void *y, void *slope) {
  td_status status = td_stepper_slope(s);
  return status ? status : td_stepper_hermite(s, theta, y, slope);
}

static const td_family alf_family = {
  .name = "reversible", .make = alf_make, .start = alf_start, .step = alf_step, .accept = accept, .dense = parabola,
  .history = one_vector, .save = save, .load = load, .back = alf_back, .start_back = alf_start_back, .undo = alf_undo,
};
static const td_family heun_family = {
  .name = "reversible", .make = heun_make, .free = heun_free, .start = heun_start, .step = heun_step,
  .accept = heun_accept, .dense = parabola, .history = one_vector, .save = save, .load = heun_load, .back = heun_back,
  .start_back = joined_start_back, .undo = heun_undo,
};
static const td_family mf_family = {
  .name = "reversible", .make = mf_make, .free = mf_free, .start = mf_start, .step = mf_step, .accept = accept,
  .factor = mf_factor, .dense = mf_dense, .history = one_vector, .save = save, .load = load, .back = mf_back,
  .start_back = joined_start_back, .undo = mf_undo,
};

static const double undamped = 1, damped = 0.9;
static const td_method all[] = {
  {.name = "alf", .source = "Mutze 2013, asynchronous leapfrog; MALI, Zhuang et al. 2021", .family = &alf_family,
   .order = 2, .error_order = 1, .dense_order = 2, .stages = 1, .table = &undamped},
  {.name = "alf_damped", .source = "the same with damping 0.9", .family = &alf_family, .order = 1, .error_order = 1,
   .dense_order = 1, .stages = 1, .table = &damped},
  {.name = "reversible_heun", .source = "Kidger et al. 2021", .family = &heun_family, .order = 2, .error_order = 1,
   .dense_order = 2, .stages = 1},
  {.name = "mccallum_foster", .source = "McCallum and Foster 2024, over the method named by base", .family = &mf_family,
   .order = 5, .error_order = 4, .dense_order = 3, .stages = 0},
};
const td_method *const td_methods_reversible[] = {&all[0], &all[1], &all[2], &all[3], NULL};
