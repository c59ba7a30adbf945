/* Switching between an explicit method and one for stiff problems. While the explicit one works, its last two stages,
 * both at the step's end, tell how fast f changes with the state (Hairer, Wanner, Solving ODEs II, IV.2); while the
 * other works, the norm of the Jacobian bounds it. A method is left when that says so several steps in a row. Which one
 * made a step is part of the state, so that replays and gradients take the same. */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "base/alloc.h"
#include "solve/integrate.h"
#include "solve/rosenbrock.h"
#include "solve/tableau.h"

typedef struct {
  const char *easy, *stiff;
  double limit;          /* of h times the rate; below the explicit method's stability bound on the negative axis (3.5),
                          * as a tight tolerance keeps steps off the bound that a stiff part still shortens */
  int stage;             /* of the explicit method, at the end of the step like the one after it */
} td_auto_pair;

/* What a step starts from besides y. */
typedef struct {
  float stiff;           /* 0 or 1: which method */
  float suspected;       /* steps in a row that speak for the other one */
} setting;

enum { TO_STIFF = 10, TO_EASY = 4 };

typedef struct {
  const td_auto_pair *d;
  setting at;
  td_stepper inner[2];
  bool placed;           /* the inner stepper stands at (t, y) already: a step is tried again */
} automatic;

static td_stepper *working(const td_stepper *s) {
  automatic *x = s->own;
  return &x->inner[x->at.stiff != 0];
}

static size_t history(const td_stepper *s) { return s->bytes ? (sizeof(setting) + s->bytes - 1) / s->bytes : 0; }

static td_status make(td_stepper *s) {
  automatic *x = td_alloc(sizeof *x);
  if (!x) return td_last_status();
  *x = (automatic){.d = s->method->table};
  s->own = x;
  s->most_history = history(s);
  td_stepper_room(s, 2);
  td_status status = td_stepper_make(&x->inner[0], td_method_find(x->d->easy), s->o, s->f, s->counts);
  return status ? status : td_stepper_make(&x->inner[1], td_method_find(x->d->stiff), s->o, s->f, s->counts);
}

static void release(td_stepper *s) {
  automatic *x = s->own;
  if (!x) return;
  for (int i = 0; i < 2; i++)
    if (x->inner[i].method) td_stepper_free(&x->inner[i]);
  td_free(x, sizeof *x);
}

static td_status start(td_stepper *s) {
  automatic *x = s->own;
  x->at = (setting){0};
  x->placed = false;
  return TD_OK;
}

/* The working stepper at (t, y), with f there when it is known. */
static td_status place(td_stepper *s) {
  automatic *x = s->own;
  td_stepper *in = working(s);
  if (!x->placed) {
    td_status status = td_stepper_start(in, s->t, s->y);
    if (status) return status;
    x->placed = true;
  }
  if (s->have_f0 && !in->have_f0 && s->bytes) memcpy(in->f0, s->f0, s->bytes);
  in->have_f0 |= s->have_f0;
  return TD_OK;
}

static td_status step(td_stepper *s, td_step_result *result) {
  td_stepper *in = working(s);
  td_status status = place(s);
  if (!status) status = td_stepper_step(in, s->end, s->last_time != s->end, result);
  if (status) return status;
  s->retry = in->retry;
  s->why = in->why;
  s->error = in->error;
  if (!s->bytes) return TD_OK;
  memcpy(s->y1, in->y1, s->bytes);
  if (in->have_f0 && !s->have_f0) memcpy(s->f0, in->f0, s->bytes);
  s->have_f0 |= in->have_f0;
  s->have_f1 = in->have_f1;
  if (in->have_f1) memcpy(s->f1, in->f1, s->bytes);
  return TD_OK;
}

/* h times |f(Y') − f(Y)|/|Y' − Y| for the two last states of the explicit step, over the tolerances: a fast component
 * may be far smaller than the slow ones. */
static double explicit_rate(td_stepper *s, const automatic *x) {
  const td_stepper *in = &x->inner[0];
  const td_tableau *m = td_tableau_of(in->method);
  int stage = x->d->stage;
  const double *a = td_tableau_row(m, stage), h = s->end - s->t;
  double coef[TD_MAX_STAGES], minus = -1;
  const void *k[TD_MAX_STAGES];
  for (int j = 0; j < stage; j++) {
    coef[j] = h * a[j];
    k[j] = td_explicit_slope(in, j);
  }
  char *dy = td_stepper_vector(s, 0), *df = td_stepper_vector(s, 1);
  td_stepper_combine(s, dy, in->y, stage, coef, k);
  const void *y1 = in->y1, *before = td_explicit_slope(in, stage);
  td_stepper_combine(s, dy, dy, 1, &minus, &y1);
  td_stepper_combine(s, df, in->f1, 1, &minus, &before);
  double below = td_stepper_size(s, dy);
  return below > 0 ? fabs(h) * td_stepper_size(s, df) / below : 0;
}

/* h times the Jacobian's row-sum norm. */
static double implicit_rate(const td_stepper *s, const automatic *x) {
  size_t n = s->o->norm_count ? s->o->norm_count : s->n;
  return fabs(s->end - s->t) * td_rosenbrock_row_sum(&x->inner[1], n);
}

static td_status accept(td_stepper *s) {
  automatic *x = s->own;
  bool stiff = x->at.stiff != 0;
  bool other = stiff ? implicit_rate(s, x) < 0.8 * x->d->limit : explicit_rate(s, x) > x->d->limit;
  if (other) x->at.suspected++;
  else if (stiff || x->at.suspected > 0) x->at.suspected = stiff ? 0 : x->at.suspected - 0.5f;
  if (x->at.suspected >= (stiff ? TO_EASY : TO_STIFF)) x->at = (setting){.stiff = !stiff};
  x->placed = false;
  return TD_OK;
}

static td_status dense(td_stepper *s, double theta, void *y, void *slope) {
  td_stepper *in = working(s);
  return in->method->family->dense(in, theta, y, slope);
}

static void save(const td_stepper *s, char *to) {
  const automatic *x = s->own;
  if (s->bytes) memcpy(to, &x->at, sizeof x->at);
}
static td_status load(td_stepper *s, const char *from) {
  automatic *x = s->own;
  if (s->bytes) memcpy(&x->at, from, sizeof x->at);
  x->placed = false;
  return TD_OK;
}

static td_status back(td_stepper *s, td_step_back *b) {
  automatic *x = s->own;
  td_stepper *in = working(s);
  x->placed = false;
  td_status status = place(s);
  if (status) return status;
  in->end = s->end;
  in->last_time = s->last_time;
  return in->method->family->back(in, b);
}

static const td_family td_family_auto = {
  .name = "automatic switching", .stiff = true, .make = make, .free = release, .start = start, .step = step,
  .accept = accept, .dense = dense, .history = history, .save = save, .load = load, .back = back,
};

static const td_auto_pair tsit5_rodas5p = {"tsit5", "rodas5p", 2, 5};
static const td_method all[] = {
  {.name = "auto", .source = "tsit5 and rodas5p, switched by an estimate of stiffness", .family = &td_family_auto,
   .order = 5, .error_order = 4, .dense_order = 4, .stages = 0, .table = &tsit5_rodas5p},
};
const td_method *const td_methods_auto[] = {&all[0], NULL};
