/* Step sizes: the norm of the error, the first step, the next one, and where steps must end. */
#include <float.h>
#include <math.h>
#include <string.h>
#include "solve/loop.h"

/* ---- Norms ---- */

enum { SMALL = 16 };

/* Squares of scaled errors summed, and the place of the greatest, element by element: for few elements, for
 * tolerances of their own, and where the scaled errors themselves are wanted (`scaled` not NULL). */
#define PLAIN_NORM(real)                                                              \
  for (size_t i = from; i < to; i++) {                                                \
    real e = 0;                                                                       \
    for (int j = 0; j < x->count; j++) e += (real)x->coef[j] * ((const real *)x->x[j])[i]; \
    double a = fabs((double)((const real *)y0)[i]), b = fabs((double)((const real *)y1)[i]); \
    double rtol = o->rtols ? o->rtols[i] : o->rtol, atol = o->atols ? o->atols[i] : o->atol; \
    double q = fabs((double)e) / (atol + rtol * (a > b || a != a ? a : b));           \
    sum += q * q;                                                                     \
    if (q > top || (q != q && top == top)) {                                          \
      top = q;                                                                        \
      v->worst = i;                                                                   \
    }                                                                                 \
    if (v->scaled) ((real *)v->scaled)[i] = (real)q;                                  \
  }

static double plain_sum(td_solve *v, const td_terms *x, const void *y0, const void *y1, size_t from, size_t to,
                        double *greatest) {
  const td_ode_options *o = v->o;
  double sum = 0, top = *greatest;
  if (v->s.f->dtype == TD_F64) {
    PLAIN_NORM(double)
  } else {
    PLAIN_NORM(float)
  }
  *greatest = top;
  return sum;
}

/* Root mean square over each group; the greatest of them. */
static double group_norm(td_solve *v, const td_terms *x, const void *y0, const void *y1) {
  double norm = 0, top = -1;
  for (size_t g = 0, from = 0; g < v->o->ngroups; from = v->o->groups[g++]) {
    size_t to = v->o->groups[g];
    double one = to > from ? sqrt(plain_sum(v, x, y0, y1, from, to, &top) / (double)(to - from)) : 0;
    if (one > norm || one != one) norm = one;
  }
  return norm;
}

/* The kernels' pass, of many elements with the same tolerances. */
static double wide_norm(td_solve *v, const td_terms *x, const void *y0, const void *y1, size_t n) {
  const td_ode_options *o = v->o;
  const td_kernels *k = v->s.k;
  double sum = k->error_sum((size_t)x->count, x->coef, x->x, y0, y1, o->rtol, o->atol, n, &v->worst);
  if (o->norm == TD_NORM_RMS) return sqrt(sum / (double)n);
  const void *one[TD_MAX_TERMS];
  size_t skip = v->worst * td_dtype_size(v->s.f->dtype), ignored;
  for (int i = 0; i < x->count; i++) one[i] = (const char *)x->x[i] + skip;
  return sqrt(k->error_sum((size_t)x->count, x->coef, one, (const char *)y0 + skip, (const char *)y1 + skip, o->rtol,
                           o->atol, 1, &ignored));
}

td_status td_solve_norm(td_solve *v, const td_terms *x, const void *y0, const void *y1, double *norm) {
  const td_ode_options *o = v->o;
  size_t n = o->norm_count ? o->norm_count : v->s.n;
  *norm = 0;
  if (n == 0) return TD_OK;
  if (o->norm == TD_NORM_GROUPS) {
    *norm = group_norm(v, x, y0, y1);
    return TD_OK;
  }
  if (n > SMALL && !o->rtols && !o->atols && o->norm != TD_NORM_FUNCTION) {
    *norm = wide_norm(v, x, y0, y1, n);
    return TD_OK;
  }
  double top = -1, sum = plain_sum(v, x, y0, y1, 0, n, &top);
  if (o->norm == TD_NORM_FUNCTION) return o->norm_call(o->norm_data, v->scaled, norm);
  *norm = o->norm == TD_NORM_MAX ? top : sqrt(sum / (double)n);
  return TD_OK;
}

/* With a second estimate, e₁²/√(e₁² + 0.01 e₂²) of both norms: Hairer, Nørsett and Wanner II.10, DOP853. */
td_status td_solve_error(td_solve *v, double *error) {
  const td_stepper *s = &v->s;
  double lower;
  *error = 0;
  if (s->error.count == 0) return TD_OK;
  td_status status = td_solve_norm(v, &s->error, s->y, s->y1, error);
  if (status || s->error2.count == 0) return status;
  size_t worst = v->worst;
  status = td_solve_norm(v, &s->error2, s->y, s->y1, &lower);
  v->worst = worst;
  double both = *error * *error + 0.01 * lower * lower;
  if (both > 0 || both != both) *error = *error * *error / sqrt(both);
  return status;
}

bool td_solve_is_finite(td_solve *v, const void *y, size_t *where) {
  size_t n = v->s.n;
  td_dtype d = v->s.f->dtype;
  if (n > SMALL) {
    double number[1];
    td_tensor sum = {.dtype = d, .data = (char *)number};
    v->s.k->sum(number, y, 1, n, 1);
    if (isfinite(td_tensor_get(&sum, 0))) return true;  /* NaN and infinity survive a sum */
  }
  for (size_t i = 0; i < n; i++)
    if (!isfinite(d == TD_F64 ? ((const double *)y)[i] : (double)((const float *)y)[i])) {
      *where = i;
      return false;
    }
  return true;
}

/* ---- Where steps end ---- */

double td_solve_next_stop(const td_solve *v, bool *jump) {
  bool onto_saves = v->o->land || (!v->o->method->error_order && v->o->step_size == 0 && !v->o->grid);
  double stop = onto_saves ? v->ts[v->next] : v->ts[v->nt - 1];
  *jump = false;
  if (v->next_stop < v->o->nstops && v->direction * (v->o->stops[v->next_stop].t - stop) <= 0) {
    stop = v->o->stops[v->next_stop].t;
    *jump = v->o->stops[v->next_stop].jump;
  }
  return stop;
}

/* Fixed steps count from the last stop, so that their rounding does not add up. A remainder of 1e-10 of the
 * step is taken along. */
td_trial td_solve_propose(const td_solve *v, double wanted) {
  const td_ode_options *o = v->o;
  bool jump;
  double t = v->s.t, stop = td_solve_next_stop(v, &jump);
  if (o->max_step > 0 && fabs(wanted) > o->max_step) wanted = v->direction * o->max_step;
  td_trial p = {.end = td_is_adaptive(o) ? t + wanted : v->anchor + (v->taken + 1) * wanted};
  if (o->grid) p.end = o->grid[v->next_node];
  p.lands = v->direction * (stop - p.end) <= 1e-10 * fabs(p.end - t);
  p.cut = p.lands && fabs(stop - t) < fabs(wanted) * (1 - 1e-10);
  if (p.lands) p.end = stop;
  p.jump = p.lands && jump;
  p.h = p.end - t;
  return p;
}

/* Steps of a few units in the last place of t are all rounding: a solve would crawl with them, not fail. */
double td_solve_least_step(const td_solve *v) { return fmax(v->o->min_step, 10 * DBL_EPSILON * fabs(v->s.t)); }

/* ---- The first step ---- */

/* Hairer, Nørsett and Wanner, Solving ODEs I, II.4: a first step from one Euler step, neither outside the
 * interval. y1 and f1 of the stepper serve as room. */
td_status td_solve_first_step(td_solve *v, double *h) {
  td_stepper *s = &v->s;
  const td_ode_options *o = v->o;
  bool jump;
  double stop = td_solve_next_stop(v, &jump), span = fabs(stop - s->t), one = 1, d0, d1, d2;
  if (o->max_step > 0 && o->max_step < span) span = o->max_step;
  const void *slope = s->f0;
  td_status status = td_solve_norm(v, &(td_terms){1, {1}, {s->y}}, s->y, s->y, &d0);
  if (!status) status = td_solve_norm(v, &(td_terms){1, {1}, {s->f0}}, s->y, s->y, &d1);
  if (status) return status;
  double h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1;
  if (!(h0 < span)) h0 = span;
  double end = s->t + v->direction * h0;
  if (v->direction * (end - stop) > 0) end = stop;
  *h = v->direction * h0;
  if (end == s->t) return TD_OK;  /* the first step will say so */
  one = end - s->t;
  td_stepper_combine(s, s->y1, s->y, 1, &one, &slope);
  status = td_stepper_eval(s, jump && end == stop ? nextafter(end, s->t) : end, s->y1, s->f1);
  if (!status) status = td_solve_norm(v, &(td_terms){2, {1, -1}, {s->f1, s->f0}}, s->y, s->y, &d2);
  if (status) return status;
  d2 /= h0;
  double m = d1 > d2 ? d1 : d2;
  double h1 = m <= 1e-15 ? fmax(1e-6, 1e-3 * h0) : pow(0.01 / m, 1.0 / (o->method->error_order + 1));
  double least = fmin(100 * h0, h1);
  if (!(least > 0) || !isfinite(least)) least = h0;
  *h = v->direction * fmin(least, span);
  return TD_OK;
}

/* ---- The next step ---- */

static double power(double x, double e) { return e == 0 || x == 1 ? 1 : pow(x, e); }

/* The factor after an accepted step, from its error and those of the steps before. */
static double accepted_factor(const td_solve *v, double h, double error) {
  const td_controller *c = &v->o->controller;
  double q = v->o->method->error_order + 1, least = c->keep_after_accept ? 1 : c->shrink;
  double factor = c->safety * power(error, -c->k[0] / q);
  factor *= power(v->history[0], -c->k[1] / q) * power(v->history[1], -c->k[2] / q);
  if (v->sizes[0] != 0) factor *= power(h / v->sizes[0], c->k[3]);
  if (v->sizes[1] != 0) factor *= power(v->sizes[0] / v->sizes[1], c->k[4]);
  double most = v->out->stats.accepted == 1 && c->first_grow > 0 ? c->first_grow : c->grow;
  factor = fmax(least, fmin(factor, most));
  return v->rejected_last && c->hold_after_reject ? fmin(factor, 1) : factor;
}

/* A step cut short to land says nothing against the size that was meant, and leaves no trace in the
 * history. */
void td_solve_control(td_solve *v, const td_trial *p, double error, double *h) {
  const td_family *family = v->o->method->family;
  if (error < 1e-10) error = 1e-10;
  double grown = p->h * (family->factor ? family->factor(&v->s, error, true) : accepted_factor(v, p->h, error));
  if (!p->cut || fabs(grown) > fabs(*h)) *h = grown;
  if (p->cut) return;
  v->history[1] = v->history[0];
  v->history[0] = error;
  v->sizes[1] = v->sizes[0];
  v->sizes[0] = p->h;
  v->rejected_last = false;
}

void td_solve_reject(td_solve *v, const td_trial *p, double error, bool finite, double *h) {
  const td_controller *c = &v->o->controller;
  const td_family *family = v->o->method->family;
  double factor = finite ? c->safety * pow(error, -1.0 / (v->o->method->error_order + 1)) : c->shrink;
  factor = fmin(fmax(c->shrink, factor), c->safety);
  if (family->factor && finite) factor = family->factor(&v->s, error, false);
  if (family->reject) family->reject(&v->s, finite);
  *h = p->h * factor;
  if (!finite) {
    v->history[0] = v->history[1] = 1;
    v->sizes[0] = v->sizes[1] = 0;
  }
  v->rejected_last = true;
  v->out->stats.rejected++;
  v->out->stats.worst = v->worst;
}
