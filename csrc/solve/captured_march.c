/* Many steps of a captured field of few variables, forward and back, each one run of a list of operations on numbers
 * (captured_step.c): the loop of integrate.c, control.c and discrete.c between two moments that matter to the solve. It
 * computes what they compute, in the same order, to the last bit; march.c books the steps. */
#include <float.h>
#include <math.h>
#include <string.h>
#include "graph/program.h"
#include "solve/captured.h"
#include "solve/programs.h"
#include "solve/trajectory.h"

enum { MOST_ELEMENTS = 16 };  /* beyond, norms are sums in another order (control.c) */

static bool allowed = true;
static uint64_t marched[2];

bool td_captured_march_allow(bool on) {
  bool was = allowed;
  allowed = on;
  return was;
}

void td_captured_marched(uint64_t steps[2]) { memcpy(steps, marched, sizeof marched); }

/* h, and the stages' times where they count. */
static void put_times(const td_joined_step *list, const td_field_method *m, double t, double end) {
  double *x = list->list.number, h = end - t;
  x[list->h] = h;
  for (int i = 0; list->timed && i < m->step.stages; i++)
    x[list->t + i] = m->c[i] == 0 ? t : m->c[i] == 1 ? end : t + m->c[i] * h;
}

/* ---- Forward ---- */

/* b: the block's numbers, close by; y: the state in the block. */
typedef struct {
  td_joined_step *list;
  const td_field_method *m;
  size_t n;
  double *y, b[TD_MARCH_STATE];
} march;

/* Of numbers, not NaN. */
static inline double greater(double a, double b) { return a > b ? a : b; }
static inline double lesser(double a, double b) { return a < b ? a : b; }

static double power(double x, double e) { return e == 0 || x == 1 ? 1 : pow(x, e); }

/* The norm of an estimate, the results from `first` on, and the element where it is greatest. */
static inline double norm_of(const march *w, size_t first, size_t *worst) {
  const double *x = w->list->list.number, *y = w->y;
  const int *result = w->list->result;
  double rtol = w->b[TD_MARCH_RTOL], atol = w->b[TD_MARCH_ATOL], sum = 0, top = -1;
  for (size_t i = 0; i < w->n; i++) {
    double a = fabs(y[i]), u = fabs(x[result[i]]);
    double q = fabs(x[result[first + i]]) / (atol + rtol * (a > u || a != a ? a : u));
    sum += q * q;
    if (q > top || (q != q && top == top)) {
      top = q;
      *worst = i;
    }
  }
  return w->b[TD_MARCH_IS_MAX] != 0 ? top : sqrt(sum / (double)w->n);
}

static inline double error_of(const march *w, size_t *worst) {
  size_t first = (size_t)w->m->step.stages * w->n, ignored;
  double error = norm_of(w, first, worst);
  if (!w->m->step.e2) return error;
  double lower = norm_of(w, first + w->n, &ignored), both = error * error + 0.01 * lower * lower;
  return both > 0 || both != both ? error * error / sqrt(both) : error;
}

static inline bool is_finite(const march *w, double error, size_t *worst) {
  const double *x = w->list->list.number;
  if (!isfinite(error)) return false;
  for (size_t i = 0; i < w->n; i++)
    if (!isfinite(x[w->list->result[i]])) {
      *worst = i;
      return false;
    }
  return true;
}

/* The next step's end; false when it would reach the limit, or is too short. */
static inline bool propose(const march *w, double *end) {
  const double *b = w->b;
  double t = b[TD_MARCH_T], wanted = b[TD_MARCH_H], direction = b[TD_MARCH_DIRECTION];
  if (b[TD_MARCH_MAX_STEP] > 0 && fabs(wanted) > b[TD_MARCH_MAX_STEP]) wanted = direction * b[TD_MARCH_MAX_STEP];
  *end = t + wanted;
  double h = *end - t;
  if (direction * (b[TD_MARCH_LIMIT] - *end) <= 1e-10 * fabs(h) || *end == t) return false;
  return !(fabs(h) < greater(b[TD_MARCH_MIN_STEP], 10 * DBL_EPSILON * fabs(t)));
}

static inline void try_step(march *w, double end) {
  td_joined_step *list = w->list;
  double *x = list->list.number, *b = w->b;
  put_times(list, w->m, b[TD_MARCH_T], end);
  for (size_t e = 0; e < w->n; e++) x[(size_t)list->y + e] = w->y[e];
  if (w->m->step.fsal)
    for (size_t e = 0; e < w->n; e++) x[(size_t)list->k + e * (size_t)w->m->step.stages] = w->y[w->n + e];
  else if (b[TD_MARCH_KNOWN] == 0) b[TD_MARCH_SLOPES]++;
  b[TD_MARCH_KNOWN] = 1;
  td_joined_perform(&list->list);
}

static inline void accept(march *w, double end, double error, double *rows) {
  double *b = w->b, *y = w->y, h = end - b[TD_MARCH_T], size = fabs(h);
  const double *x = w->list->list.number;
  const int *result = w->list->result, *slope = result + (size_t)(w->m->step.stages - 1) * w->n;
  double *row = rows + (size_t)b[TD_MARCH_ACCEPTED] * (w->n + 2);
  row[0] = b[TD_MARCH_T];
  row[1] = end;
  for (size_t i = 0; i < w->n; i++) {
    row[2 + i] = y[i];
    y[i] = x[result[i]];
    if (w->m->step.fsal) y[w->n + i] = x[slope[i]];
  }
  b[TD_MARCH_KNOWN] = w->m->step.fsal;
  if (error < 1e-10) error = 1e-10;
  double factor = b[TD_MARCH_SAFETY] * power(error, b[TD_MARCH_EXPONENT]);
  factor *= power(b[TD_MARCH_ERROR_1], b[TD_MARCH_EXPONENT_1]) * power(b[TD_MARCH_ERROR_2], b[TD_MARCH_EXPONENT_2]);
  factor = greater(b[TD_MARCH_LEAST], lesser(factor, b[TD_MARCH_GROW]));
  if (b[TD_MARCH_WAS_REJECTED] != 0 && b[TD_MARCH_HOLDS] != 0) factor = lesser(factor, 1);
  b[TD_MARCH_H] = h * factor;
  b[TD_MARCH_ERROR_2] = b[TD_MARCH_ERROR_1];
  b[TD_MARCH_ERROR_1] = error;
  b[TD_MARCH_WAS_REJECTED] = 0;
  b[TD_MARCH_T] = end;
  b[TD_MARCH_ACCEPTED]++;
  if (b[TD_MARCH_H_MIN] == 0 || size < b[TD_MARCH_H_MIN]) b[TD_MARCH_H_MIN] = size;
  if (size > b[TD_MARCH_H_MAX]) b[TD_MARCH_H_MAX] = size;
}

static inline void reject(march *w, double end, double error, bool finite, size_t worst) {
  double *b = w->b, h = end - b[TD_MARCH_T];
  double factor = finite ? b[TD_MARCH_SAFETY] * pow(error, b[TD_MARCH_EXPONENT_REJECTED]) : b[TD_MARCH_SHRINK];
  factor = lesser(greater(b[TD_MARCH_SHRINK], factor), b[TD_MARCH_SAFETY]);
  if (!finite) b[TD_MARCH_ERROR_1] = b[TD_MARCH_ERROR_2] = 1;
  b[TD_MARCH_H] = h * factor;
  b[TD_MARCH_WAS_REJECTED] = finite ? 1 : 2;
  b[TD_MARCH_REJECTED]++;
  b[TD_MARCH_WORST] = (double)worst;
}

static td_status captured_march(td_field *f, const td_field_method *m, double *block, double *rows, bool *done) {
  march w = {.m = m, .n = f->numel, .y = block + TD_MARCH_STATE};
  double *counts = w.y + 2 * w.n, end;
  td_status s = td_captured_list(f, &m->step, false, &w.list);
  *done = !s && w.list;
  if (!*done) return s;
  td_joined_load(&w.list->list);
  memcpy(w.b, block, sizeof w.b);
  for (double trial = 0; trial < w.b[TD_MARCH_MOST] && propose(&w, &end); trial++) {
    if (td_program_poll && (s = td_program_poll())) return s;
    try_step(&w, end);
    size_t worst = 0;
    double error = error_of(&w, &worst);
    counts[worst]++;
    bool finite = is_finite(&w, error, &worst);
    if (finite && error <= 1) accept(&w, end, error, rows);
    else reject(&w, end, error, finite, worst);
  }
  memcpy(block, w.b, sizeof w.b);
  marched[0] += (uint64_t)block[TD_MARCH_ACCEPTED];
  const double *x = w.list->list.number;
  for (size_t e = 0; e < w.n && !m->step.fsal; e++)
    w.y[w.n + e] = x[(size_t)w.list->k + e * (size_t)m->step.stages];
  return TD_OK;
}

/* ---- Back ---- */

static td_status captured_march_back(td_field *f, const td_field_method *m, const td_ode_step *steps, size_t count,
                                     void *lambda, td_tensor **dexternal, bool *done) {
  const struct td_field_programs *p = f->programs;
  td_joined_step *list;
  td_status s = td_captured_list(f, &m->step, true, &list);
  bool open = false;
  *done = false;
  if (!s && list) s = td_captured_open_sums(f, dexternal, &open);
  if (s || !open) return s;
  double *x = list->list.number, *back = x + list->lambda;
  memcpy(back, lambda, f->numel * sizeof *x);
  td_captured_put_sums(p, list, dexternal);
  td_joined_load(&list->list);
  for (size_t i = count; i-- > 0;) {
    if (td_program_poll && (s = td_program_poll())) return s;
    put_times(list, m, steps[i].t, steps[i].end);
    memcpy(x + list->y, steps[i].state, f->numel * sizeof *x);
    td_joined_perform(&list->list);
    for (size_t k = 0; k < list->nresult; k++) back[k] = x[list->result[k]];
  }
  memcpy(lambda, back, f->numel * sizeof *x);
  td_captured_take_sums(p, list, dexternal);
  marched[1] += count;
  *done = true;
  return TD_OK;
}

void td_captured_march_set(td_field *f, bool back) {
  if (f->numel > MOST_ELEMENTS || !allowed) return;
  f->march = captured_march;
  f->march_method = NULL;
  if (back) f->march_back = captured_march_back;
}
