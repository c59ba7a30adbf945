/* Symplectic methods for separable systems: the first half of the state moves by what depends on the second half, and
 * the other way round. All are symmetric compositions of Verlet's kick, drift, kick with weights that sum to one; a
 * drift takes f at the middle of its own time, so that time-dependent systems keep the order (Hairer, Lubich, Wanner,
 * Geometric Numerical Integration, II.4 and V.3). Steps are fixed. */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "base/alloc.h"
#include "solve/hermite.h"
#include "solve/integrate.h"

enum { MOST = 15, MOVES = 2 * MOST + 1 };

typedef struct {
  int stages;
  double w[MOST / 2 + 1];  /* the first half of the weights, the middle one last */
} td_symplectic;

/* One move: the kicked half (second) or the drifting one (first) += h·weight·f(t + time·h, y). */
typedef struct {
  bool kick;
  double weight, time;
} move;

typedef struct {
  int count;
  move moves[MOVES];
  bool have_kick, checked;  /* the last kick's slope serves the next step; separability was checked */
} symplectic;

/* Vectors: the state within a step, the slope of a move, that of the last kick, and two for the reverse pass. */
enum { STATE = 0, SLOPE, KICK, BAR, PULLED, STORED };

static td_status make(td_stepper *s) {
  const td_symplectic *d = s->method->table;
  if (s->n % 2)
    return td_fail(TD_EARG,
                   "%s: method \"%s\" needs a state of two halves, positions and momenta; this one has %zu elements",
                   s->f->who, s->method->name, s->n);
  symplectic *x = td_alloc(sizeof *x);
  if (!x) return td_last_status();
  *x = (symplectic){.count = 2 * d->stages + 1};
  double at = 0;
  for (int i = 0; i < d->stages; i++) {
    int place = i < d->stages - i ? i : d->stages - 1 - i;
    double w = d->w[place];
    x->moves[2 * i].kick = x->moves[2 * i + 2].kick = true;
    x->moves[2 * i].weight += w / 2;
    x->moves[2 * i + 2].weight = w / 2;
    x->moves[2 * i + 1] = (move){.weight = w, .time = at + w / 2};
    x->moves[2 * i].time = at;
    at += w;
  }
  x->moves[x->count - 1].time = 1;
  s->own = x;
  td_stepper_room(s, STORED + (size_t)x->count);
  return TD_OK;
}

static void release(td_stepper *s) { td_free(s->own, sizeof(symplectic)); }

/* Compositions with negative weights leave the step for a while, and so do their times. */
static double time_of(const td_stepper *s, const move *m) { return td_stepper_time(s, m->time); }

/* The half of a vector that a move changes. */
static size_t half_of(const td_stepper *s, const move *m) { return m->kick ? s->bytes / 2 : 0; }

/* y's half += coef·slope's half. */
static void shift_half(const td_stepper *s, const move *m, char *y, double coef, const char *slope) {
  size_t at = half_of(s, m), n = s->n / 2;
  const void *x = slope + at;
  if (s->f->dtype == TD_F64)
    for (size_t i = 0; i < n; i++) ((double *)(void *)(y + at))[i] += coef * ((const double *)x)[i];
  else
    for (size_t i = 0; i < n; i++) ((float *)(void *)(y + at))[i] += (float)coef * ((const float *)x)[i];
}

static double number(const td_stepper *s, const char *x, size_t i) {
  return s->f->dtype == TD_F64 ? ((const double *)(const void *)x)[i] : (double)((const float *)(const void *)x)[i];
}

/* What moves one half must not depend on it: f again with that half changed must move it the same. */
static td_status check(td_stepper *s, const move *m, char *y, const char *slope, const char *other) {
  char *moved = td_stepper_vector(s, BAR), *again = td_stepper_vector(s, PULLED);
  size_t at = half_of(s, m), n = s->n / 2, first = m->kick ? n : 0;
  memcpy(moved, y, s->bytes);
  memcpy(moved + at, other + at, s->bytes / 2);
  td_status status = td_stepper_eval(s, time_of(s, m), moved, again);
  double tolerance = s->f->dtype == TD_F64 ? 1e-9 : 1e-3;
  for (size_t i = first; i < first + n && !status; i++) {
    double a = number(s, slope, i), b = number(s, again, i);
    if (fabs(a - b) > tolerance * (fabs(a) + fabs(b)) && fabs(a - b) > 1e-30)
      status = td_fail(TD_EARG,
                       "%s: method \"%s\" needs a separable system, but the derivative of component %zu depends on "
                       "the %s half of the state",
                       s->f->who, s->method->name, i + 1, m->kick ? "second" : "first");
  }
  return status;
}

static td_status step(td_stepper *s, td_step_result *result) {
  (void)result;
  symplectic *x = s->own;
  double h = s->end - s->t;
  char *y = s->y1, *slope = td_stepper_vector(s, SLOPE), *last = td_stepper_vector(s, KICK);
  if (!s->bytes) return TD_OK;
  memcpy(y, s->y, s->bytes);
  for (int i = 0; i < x->count; i++) {
    const move *m = &x->moves[i];
    char *k = m->kick ? last : slope;
    td_status status = TD_OK;
    if (i > 0 || !x->have_kick) status = td_stepper_eval(s, time_of(s, m), y, k);
    if (!status && !x->checked && (i == 1 || i == 2)) status = check(s, m, y, k, s->y);
    if (status) return status;
    shift_half(s, m, y, h * m->weight, k);
  }
  x->checked = true;
  x->have_kick = false;
  return TD_OK;
}

static td_status start(td_stepper *s) {
  ((symplectic *)s->own)->have_kick = false;
  return TD_OK;
}
static td_status load(td_stepper *s, const char *from) {
  (void)from;
  return start(s);
}
/* The last kick was made at the new positions. */
static td_status accept(td_stepper *s) {
  ((symplectic *)s->own)->have_kick = true;
  return TD_OK;
}

static td_status dense(td_stepper *s, double theta, void *y, void *slope) {
  td_status status = td_stepper_slope(s);
  return status ? status : td_stepper_hermite(s, theta, y, slope);
}

/* ---- The step transposed ---- */

/* bar += the pull of w, counted at a time that moves by `time` of the step. */
static td_status pull(td_stepper *s, td_step_back *b, double t, double time, const char *y, const char *w, char *bar) {
  double tau = 0, one = 1;
  char *pulled = td_stepper_vector(s, PULLED);
  td_status status = td_field_vjp(s->f, t, y, w, pulled, b->tbar || b->hbar ? &tau : NULL, b->dexternal);
  if (status) return status;
  const void *from = pulled;
  td_stepper_combine(s, bar, bar, 1, &one, &from);
  if (b->tbar) *b->tbar += tau;
  if (b->hbar) *b->hbar += time * tau;
  return TD_OK;
}

static td_status back(td_stepper *s, td_step_back *b) {
  symplectic *x = s->own;
  double h = s->end - s->t, one = 1;
  char *slope = td_stepper_vector(s, SLOPE), *bar = b->lambda, *ybar = s->f1;
  if (!s->bytes) return TD_OK;
  memcpy(s->y1, s->y, s->bytes);
  for (int i = 0; i < x->count; i++) {  /* every state before a move is kept */
    memcpy(td_stepper_vector(s, STORED + (size_t)i), s->y1, s->bytes);
    td_status status = td_stepper_eval(s, time_of(s, &x->moves[i]), s->y1, slope);
    if (status) return status;
    shift_half(s, &x->moves[i], s->y1, h * x->moves[i].weight, slope);
  }
  char *start_bar = td_stepper_vector(s, BAR);
  memset(start_bar, 0, s->bytes);
  if (b->ndense) {
    char *const room[3] = {slope, td_stepper_vector(s, KICK), td_stepper_vector(s, PULLED)};
    td_status status = td_hermite_back(s, b, s->y1, bar, start_bar, room);
    if (status) return status;
  }
  for (int i = x->count - 1; i >= 0; i--) {
    const move *m = &x->moves[i];
    const char *y = td_stepper_vector(s, STORED + (size_t)i);
    memset(ybar, 0, s->bytes);
    shift_half(s, m, ybar, 1, bar);
    if (b->hbar) {
      td_status status = td_stepper_eval(s, time_of(s, m), y, slope);
      if (status) return status;
      *b->hbar += m->weight * td_stepper_dot(s, slope, ybar);
    }
    double c = h * m->weight;
    const void *from = ybar;
    td_stepper_combine(s, ybar, NULL, 1, &c, &from);
    td_status status = pull(s, b, time_of(s, m), m->time, y, ybar, bar);
    if (status) return status;
  }
  const void *from = start_bar;
  td_stepper_combine(s, bar, bar, 1, &one, &from);
  return TD_OK;
}

static const td_family td_family_symplectic = {
  .name = "symplectic", .make = make, .free = release, .start = start, .step = step, .accept = accept, .dense = dense,
  .load = load, .back = back,
};

static const td_symplectic one = {1, {1}};
static const td_symplectic three = {3, {1.35120719195965763404768780897146, -1.70241438391931526809537561794292}};
static const td_symplectic seven = {7, {0.78451361047755726381949763, 0.23557321335935813368479318,
                                        -1.17767998417887100694641568, 1.31518632068391121888424973}};
static const td_symplectic fifteen = {15, {0.74167036435061295344822780, -0.40910082580003159399730010,
                                           0.19075471029623837995387626, -0.57386247111608226665638773,
                                           0.29906418130365592384446354, 0.33462491824529818378495798,
                                           0.31529309239676659663205666, -0.79688793935291635401978884}};

#define METHOD(id, p, table_, from)                                                                           \
  {.name = id, .source = from, .family = &td_family_symplectic, .order = p, .dense_order = p < 3 ? p : 3,    \
   .stages = 0, .table = &table_}
static const td_method all[] = {
  METHOD("verlet", 2, one, "Verlet 1967, kick, drift, kick"),
  METHOD("yoshida4", 4, three, "Yoshida 1990, order 4"),
  METHOD("yoshida6", 6, seven, "Yoshida 1990, order 6, solution A"),
  METHOD("yoshida8", 8, fifteen, "Suzuki and Umeno 1993, McLachlan 1995, order 8"),
};
const td_method *const td_methods_symplectic[] = {&all[0], &all[1], &all[2], &all[3], NULL};
