/* What all steppers share: their memory, calls of f, and the moves between a step, its acceptance and a checkpoint. */
#include "solve/integrate.h"
#include <math.h>
#include <string.h>
#include "base/alloc.h"

/* ---- Memory ---- */

enum { SHARED = 4 };  /* y, y1, f0, f1 */

void td_stepper_room(td_stepper *s, size_t count) { s->nvectors += count; }

td_status td_stepper_make(td_stepper *s, const td_method *m, const struct td_ode_options *o, td_field *f,
                          td_step_counts *counts) {
  *s = (td_stepper){.method = m, .o = o, .f = f, .k = td_k(f->dtype), .n = f->numel,
                    .bytes = f->numel * td_dtype_size(f->dtype), .counts = counts, .retry = 0.25, .why = ""};
  td_status status = TD_OK;
  if (o->mass && !m->family->mass)
    status = td_fail(TD_EARG, "%s: method \"%s\" takes no mass matrix; use rodas5p, radau5 or bdf", f->who, m->name);
  if (!status) status = m->family->make(s);
  size_t each = (s->bytes + 63) & ~(size_t)63;
  if (!status && !td_size_mul(each + !each, SHARED + s->nvectors, &s->block_bytes)) status = td_last_status();
  if (!status && !(s->block = td_alloc(s->block_bytes))) status = td_last_status();
  if (status) {
    td_stepper_free(s);
    return status;
  }
  s->y = s->block;
  s->y1 = s->y + each;
  s->f0 = s->y1 + each;
  s->f1 = s->f0 + each;
  s->vectors = s->f1 + each;
  return TD_OK;
}

void td_stepper_free(td_stepper *s) {
  if (s->method && s->method->family->free) s->method->family->free(s);
  td_free(s->block, s->block_bytes);
  *s = (td_stepper){0};
}

/* ---- Moving ---- */

td_status td_stepper_start(td_stepper *s, double t, const void *y) {
  s->t = s->first_time = t;
  if (s->bytes) memmove(s->y, y, s->bytes);
  s->have_f0 = s->have_f1 = false;
  return s->method->family->start ? s->method->family->start(s) : TD_OK;
}

td_status td_stepper_slope(td_stepper *s) {
  if (s->have_f0) return TD_OK;
  td_status status = td_stepper_eval(s, s->first_time, s->y, s->f0);
  s->have_f0 = !status;
  return status;
}

td_status td_stepper_step(td_stepper *s, double end, bool before_jump, td_step_result *result) {
  s->end = end;
  s->last_time = before_jump ? nextafter(end, s->t) : end;
  s->have_f1 = false;
  s->error.count = s->error2.count = 0;
  *result = TD_STEP_DONE;
  return s->method->family->step(s, result);
}

static void swap(char **a, char **b) {
  char *c = *a;
  *a = *b;
  *b = c;
}

td_status td_stepper_accept(td_stepper *s) {
  if (s->method->family->accept) {
    td_status status = s->method->family->accept(s);
    if (status) return status;
  }
  swap(&s->y, &s->y1);
  swap(&s->f0, &s->f1);
  s->have_f0 = s->have_f1;
  s->have_f1 = false;
  s->t = s->first_time = s->end;
  return TD_OK;
}

size_t td_stepper_kept(const td_stepper *s) {
  return 1 + (s->method->family->history ? s->method->family->history(s) : 0);
}

void td_stepper_save(const td_stepper *s, char *to) {
  if (s->bytes) memcpy(to, s->y, s->bytes);
  if (s->method->family->save) s->method->family->save(s, to + s->bytes);
}

td_status td_stepper_load(td_stepper *s, double t, const char *from) {
  s->t = s->first_time = t;
  if (s->bytes) memcpy(s->y, from, s->bytes);
  s->have_f0 = s->have_f1 = false;
  return s->method->family->load ? s->method->family->load(s, from + s->bytes) : TD_OK;
}

/* ---- For families ---- */

td_status td_stepper_eval(td_stepper *s, double t, const void *y, void *dy) {
  s->counts->nfe++;
  return s->f->eval(s->f, t, y, dy);
}

double td_stepper_time(const td_stepper *s, double c) {
  if (fabs(c - 1) < 1e-14) return s->last_time;
  if (c == 0) return s->first_time;
  return s->t + c * (s->end - s->t);
}

/* Up to this many elements a plain loop beats a vector kernel's set-up. */
enum { SMALL = 16 };

#define SMALL_COMBINE(real)                                      \
  for (size_t e = 0; e < s->n; e++) {                            \
    real sum = base ? ((const real *)base)[e] : 0;               \
    for (int i = 0; i < count; i++) sum += (real)coef[i] * ((const real *)x[i])[e]; \
    ((real *)out)[e] = sum;                                      \
  }

void td_stepper_combine(const td_stepper *s, void *out, const void *base, int count, const double *coef,
                        const void *const *x) {
  if (s->n > SMALL) {
    s->k->lincomb(out, base, (size_t)count, coef, x, s->n);
  } else if (s->f->dtype == TD_F64) {
    SMALL_COMBINE(double)
  } else {
    SMALL_COMBINE(float)
  }
}

double td_stepper_dot(const td_stepper *s, const void *a, const void *b) {
  double sum = 0;
  if (s->f->dtype == TD_F64)
    for (size_t i = 0; i < s->n; i++) sum += ((const double *)a)[i] * ((const double *)b)[i];
  else
    for (size_t i = 0; i < s->n; i++) sum += (double)((const float *)a)[i] * (double)((const float *)b)[i];
  return sum;
}

static double element(const td_stepper *s, const char *x, size_t i) {
  return s->f->dtype == TD_F64 ? ((const double *)x)[i] : (double)((const float *)x)[i];
}

double td_stepper_size(const td_stepper *s, const void *x) {
  const td_ode_options *o = s->o;
  size_t n = o->norm_count ? o->norm_count : s->n;
  double sum = 0;
  for (size_t i = 0; i < n; i++) {
    double y = fmax(fabs(element(s, s->y, i)), fabs(element(s, s->y1, i)));
    double e = element(s, x, i) / ((o->atols ? o->atols[i] : o->atol) + (o->rtols ? o->rtols[i] : o->rtol) * y);
    sum += e * e;
  }
  return n ? sqrt(sum / (double)n) : 0;
}

td_status td_stepper_hermite(td_stepper *s, double x, void *y, void *slope) {
  if (!s->have_f1) {
    td_status status = td_stepper_eval(s, s->last_time, s->y1, s->f1);
    if (status) return status;
    s->have_f1 = true;
  }
  double h = s->end - s->t, b = x * x * (3 - 2 * x), d = 6 * x * (1 - x) / h;
  const void *parts[4] = {s->y, s->y1, s->f0, s->f1};
  if (y) {
    const double w[4] = {1 - b, b, h * x * (1 - x) * (1 - x), h * x * x * (x - 1)};
    td_stepper_combine(s, y, NULL, 4, w, parts);
  }
  if (slope) {
    const double w[4] = {-d, d, (1 - x) * (1 - 3 * x), x * (3 * x - 2)};
    td_stepper_combine(s, slope, NULL, 4, w, parts);
  }
  return TD_OK;
}
