/* The forward loop. */
#include "solve/integrate.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "kernels/kernels.h"

const char *td_ode_status_name(td_ode_status s) {
  static const char *const names[] = {"ok", "max_steps", "dt_underflow", "nonfinite"};
  return names[s];
}

/* Everything that one solve carries from step to step. */
typedef struct {
  td_field *f;
  const td_ode_options *o;
  const double *ts;
  size_t nt, next;                      /* next save time */
  double t, direction;
  td_tensor *y, *y1;                    /* at t, and at the end of the step tried */
  td_tensor *k[TD_MAX_STAGES + 1];
  bool have_first;                      /* k[0] is f(t, y) */
  double history[2];                    /* errors of the last accepted steps */
  bool rejected_last;
  td_ode_solution *out;
} solve;

static void drop(td_tensor **t) {
  td_tensor_release(*t);
  *t = NULL;
}

/* k[i] = f(t, y) */
static td_status evaluate(solve *s, int i, double t, td_tensor *y) {
  drop(&s->k[i]);
  td_tensor *time = td_tensor_number(TD_F64, t, false);
  if (!time) return td_last_status();
  td_status status = td_field_eval(s->f, time, y, &s->k[i]);
  td_tensor_release(time);
  s->out->stats.nfe++;
  return status;
}

/* *y1 = y + h Σ w[i] k[i], a new tensor: the right-hand side may have kept an earlier one. */
static td_status combine(solve *s, double h, const double *w, int n, td_tensor **y1) {
  double coef[TD_MAX_STAGES + 1];
  const void *x[TD_MAX_STAGES + 1];
  size_t count = 0;
  for (int i = 0; i < n; i++) {
    if (w[i] == 0) continue;
    coef[count] = h * w[i];
    x[count++] = s->k[i]->data;
  }
  drop(y1);
  *y1 = td_tensor_new(s->y->dtype, s->y->ndim, s->y->shape);
  if (!*y1) return td_last_status();
  td_k(s->y->dtype)->lincomb((*y1)->data, s->y->data, count, coef, x, s->y->numel);
  return TD_OK;
}

/* The stages of a step of h and its end y1. */
static td_status try_step(solve *s, double h) {
  const td_tableau *m = s->o->method;
  td_status status = TD_OK;
  if (!s->have_first) status = evaluate(s, 0, s->t, s->y);
  s->have_first = true;
  td_tensor *stage = NULL;
  for (int i = 1; i < m->stages && !status; i++) {
    bool end = m->fsal && i == m->stages - 1;
    status = combine(s, h, m->a[i], i, end ? &s->y1 : &stage);
    double c = td_tableau_c(m, i);
    if (!status) status = evaluate(s, i, fabs(c - 1) < 1e-14 ? s->t + h : s->t + c * h, end ? s->y1 : stage);
  }
  td_tensor_release(stage);
  if (!status && !m->fsal) status = combine(s, h, m->b, m->stages, &s->y1);
  return status;
}

/* The norm of h Σ w[i] k[i] over the scale of y and y1; NaN or infinite when something is not finite. */
static double scaled_norm(solve *s, double h, const double *w, int n, const td_tensor *y1) {
  double coef[TD_MAX_STAGES + 1];
  const void *x[TD_MAX_STAGES + 1];
  size_t count = 0, size = s->o->norm_count ? s->o->norm_count : s->y->numel;
  for (int i = 0; i < n; i++) {
    if (w[i] == 0) continue;
    coef[count] = h * w[i];
    x[count++] = s->k[i]->data;
  }
  if (size == 0) return 0;
  const td_kernels *k = td_k(s->y->dtype);
  if (!s->o->max_norm)
    return sqrt(k->error_sum(count, coef, x, s->y->data, y1->data, s->o->rtol, s->o->atol, size, &s->out->stats.worst) /
                (double)size);
  k->error_sum(count, coef, x, s->y->data, y1->data, s->o->rtol, s->o->atol, size, &s->out->stats.worst);
  double e = 0;
  size_t at = s->out->stats.worst, width = td_dtype_size(s->y->dtype);
  for (size_t i = 0; i < count; i++) x[i] = (const char *)x[i] + at * width;
  size_t ignored;
  e = k->error_sum(count, coef, x, s->y->data + at * width, y1->data + at * width, s->o->rtol, s->o->atol, 1, &ignored);
  return sqrt(e);
}

/* Hairer, Nørsett and Wanner, Solving ODEs I, II.4: a first step from one Euler step, never outside the interval. */
static td_status initial_step(solve *s, double *h) {
  const td_ode_options *o = s->o;
  double span = fabs(s->ts[s->nt - 1] - s->t), one = 1;
  if (o->max_step > 0 && o->max_step < span) span = o->max_step;
  size_t n = o->norm_count ? o->norm_count : s->y->numel, ignored;
  const td_kernels *k = td_k(s->y->dtype);
  const void *y = s->y->data, *f0 = s->k[0]->data;
  double root = sqrt((double)(n ? n : 1));
  double d0 = sqrt(k->error_sum(1, &one, &y, y, y, o->rtol, o->atol, n, &ignored)) / root;
  double d1 = sqrt(k->error_sum(1, &one, &f0, y, y, o->rtol, o->atol, n, &ignored)) / root;
  double h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1;
  if (!(h0 < span)) h0 = span;
  td_tensor *y1 = NULL;
  td_status status = combine(s, s->direction * h0, &one, 1, &y1);
  if (!status) status = evaluate(s, 1, s->t + s->direction * h0, y1);
  td_tensor_release(y1);
  if (status) return status;
  const void *both[2] = {s->k[1]->data, f0};
  double d2 = sqrt(k->error_sum(2, (const double[]){1, -1}, both, y, y, o->rtol, o->atol, n, &ignored)) / root / h0;
  double m = d1 > d2 ? d1 : d2;
  double h1 = m <= 1e-15 ? fmax(1e-6, 1e-3 * h0) : pow(0.01 / m, 1.0 / (o->method->error_order + 1));
  double least = fmin(100 * h0, h1);
  if (!(least > 0) || !isfinite(least)) least = h0;
  *h = s->direction * fmin(least, span);
  return TD_OK;
}

/* ---- Saving ---- */

static void save_row(solve *s, const td_tensor *y) {
  td_ode_solution *out = s->out;
  size_t bytes = y->numel * td_dtype_size(y->dtype);
  if (bytes) memcpy(out->ys->data + out->reached * bytes, y->data, bytes);
  out->reached++;
}

/* Values at the save times inside the accepted step [t, t + h]. */
static td_status save_inside(solve *s, double h, double t1) {
  const td_tableau *m = s->o->method;
  bool have_end = m->fsal;
  for (; s->next < s->nt && s->direction * (s->ts[s->next] - t1) <= 0; s->next++) {
    if (s->ts[s->next] == t1) {
      save_row(s, s->y1);
      continue;
    }
    if (m->hermite && !have_end) {  /* the slope at the end, which the next step needs anyway */
      td_status status = evaluate(s, m->stages, t1, s->y1);
      if (status) return status;
      have_end = true;
    }
    double w[TD_MAX_STAGES + 1];
    int n = td_tableau_dense(m, (s->ts[s->next] - s->t) / h, w);
    td_tensor *between = NULL;
    td_status status = combine(s, h, w, n, &between);
    if (status) return status;
    save_row(s, between);
    td_tensor_release(between);
  }
  return TD_OK;
}

static td_status remember_step(solve *s, double h) {
  td_ode_solution *out = s->out;
  if (out->nsteps == out->capacity) {
    size_t wanted = out->capacity ? 2 * out->capacity : 16;
    td_ode_step *grown = td_alloc(wanted * sizeof *grown);
    if (!grown) return td_last_status();
    if (out->nsteps) memcpy(grown, out->steps, out->nsteps * sizeof *grown);
    td_free(out->steps, out->capacity * sizeof *grown);
    out->steps = grown;
    out->capacity = wanted;
  }
  out->steps[out->nsteps++] = (td_ode_step){s->t, h, s->o->keep ? td_tensor_retain(s->y) : NULL};
  return TD_OK;
}

/* Moves on to t1, y1. The slope there is known when the method is FSAL or a save needed it. */
static void advance(solve *s, double t1) {
  const td_tableau *m = s->o->method;
  int last = m->fsal ? m->stages - 1 : m->stages;
  s->have_first = s->k[last] != NULL;
  drop(&s->k[0]);
  s->k[0] = s->k[last];
  s->k[last] = NULL;
  drop(&s->y);
  s->y = s->y1;
  s->y1 = NULL;
  s->t = t1;
  s->out->stats.t_last = t1;
}

/* ---- Step size ---- */

static double controlled(solve *s, double err) {
  const td_controller *c = &s->o->controller;
  double q = s->o->method->error_order + 1;
  if (err < 1e-10) err = 1e-10;
  double factor = c->safety * pow(err, -c->k[0] / q) * pow(s->history[0], -c->k[1] / q) * pow(s->history[1], -c->k[2] / q);
  double least = c->keep_after_accept ? 1 : c->shrink;
  if (factor > c->grow) factor = c->grow;
  if (factor < least) factor = least;
  if (s->rejected_last && factor > 1) factor = 1;
  s->history[1] = s->history[0];
  s->history[0] = err;
  return factor;
}

static td_ode_status give_up(solve *s, td_ode_status status, double h, const char *why, const char *hint) {
  td_ode_solution *out = s->out;
  double value = out->stats.worst < s->y->numel ? td_tensor_get(s->y, out->stats.worst) : NAN;
  snprintf(out->message, sizeof out->message, "%s at t=%.6g with step %.3g after %llu steps (state component %zu is %.4g)%s%s",
           why, s->t, h, (unsigned long long)(out->stats.accepted + out->stats.rejected), out->stats.worst + 1, value,
           *hint ? ": " : "", hint);
  return out->status = status;
}

static bool is_finite(const td_tensor *t, size_t *where) {
  double out[4];
  size_t nans = 0, infs = 0;
  if (t->numel == 0) return true;
  td_k(t->dtype)->statistics(t->data, t->numel, out, &nans, &infs);
  if (nans + infs == 0) return true;
  for (size_t i = 0; i < t->numel; i++)
    if (!isfinite(td_tensor_get(t, i))) {
      *where = i;
      break;
    }
  return false;
}

/* Where the next step must end at the latest. */
static double next_stop(const solve *s) {
  bool grid = !s->o->method->error_order && s->o->step_size == 0;
  return s->o->land || grid ? s->ts[s->next] : s->ts[s->nt - 1];
}

/* One accepted step, with the rejected tries before it. *h is the step to try, and becomes the next one. */
static td_status step(solve *s, double *h) {
  const td_ode_options *o = s->o;
  td_ode_stats *stats = &s->out->stats;
  bool adaptive = o->method->error_order && o->step_size == 0;
  bool finite_before = true;
  for (;;) {
    if (stats->accepted + stats->rejected >= o->max_steps) {
      give_up(s, TD_ODE_MAX_STEPS, *h, "the step limit was reached", "raise max_steps, loosen rtol, or the problem may be stiff");
      return TD_OK;
    }
    double stop = next_stop(s), rest = stop - s->t, tried = *h;
    if (o->max_step > 0 && fabs(tried) > o->max_step) tried = s->direction * o->max_step;
    bool lands = fabs(tried) * (1 + 1e-10) >= fabs(rest);
    if (lands) tried = rest;
    if (s->t + tried == s->t || (adaptive && fabs(tried) < o->min_step && !lands)) {
      if (finite_before)
        give_up(s, TD_ODE_UNDERFLOW, tried, "the step size fell too low", "the problem may be stiff or blow up there, or "
                "the tolerance is below rounding");
      else
        give_up(s, TD_ODE_NONFINITE, tried, "the right-hand side or the state is not finite", "look at f near that point");
      return TD_OK;
    }
    td_status status = try_step(s, tried);
    if (status) return status;
    double err = adaptive ? scaled_norm(s, tried, o->method->e, o->method->stages, s->y1) : 0;
    bool finite = isfinite(err) && is_finite(s->y1, &stats->worst);
    if (!finite && !adaptive) {
      give_up(s, TD_ODE_NONFINITE, tried, "the state is not finite", "take a smaller step_size");
      return TD_OK;
    }
    if (finite && err <= 1) {
      double t1 = lands ? stop : s->t + tried, size = fabs(tried);
      stats->accepted++;
      if (stats->h_min == 0 || size < stats->h_min) stats->h_min = size;
      if (size > stats->h_max) stats->h_max = size;
      if ((status = save_inside(s, tried, t1)) || (status = remember_step(s, tried))) return status;
      advance(s, t1);
      if (adaptive) {  /* a step cut short to land says nothing against the size that was meant */
        double grown = tried * controlled(s, err);
        if (!lands || fabs(grown) > fabs(*h)) *h = grown;
      }
      s->rejected_last = false;
      return TD_OK;
    }
    stats->rejected++;
    const td_controller *c = &o->controller;
    double factor = finite ? fmax(c->shrink, c->safety * pow(err, -1.0 / (o->method->error_order + 1))) : c->shrink;
    *h = tried * fmin(factor, c->safety);
    finite_before = finite;
    if (!finite) s->history[0] = s->history[1] = 1;
    s->rejected_last = true;
  }
}

static td_status check_times(const double *ts, size_t nt) {
  if (nt == 0) return td_fail(TD_EARG, "no times were given");
  for (size_t i = 0; i < nt; i++)
    if (!isfinite(ts[i])) return td_fail(TD_EARG, "time %zu is not finite", i + 1);
  for (size_t i = 1; i < nt; i++)
    if ((ts[i] - ts[i - 1]) * (ts[nt - 1] - ts[0]) < 0 || (ts[nt - 1] == ts[0] && ts[i] != ts[0]))
      return td_fail(TD_EARG, "times must ascend or descend, but time %zu is %g after %g", i + 1, ts[i], ts[i - 1]);
  return TD_OK;
}

static td_status run(solve *s) {
  const td_ode_options *o = s->o;
  while (s->next < s->nt && s->ts[s->next] == s->t) {  /* repeated first times */
    save_row(s, s->y);
    s->next++;
  }
  if (s->next == s->nt) return TD_OK;
  if (o->first_slope) {
    s->k[0] = td_tensor_contiguous(o->first_slope);
    if (!s->k[0]) return td_last_status();
    s->have_first = true;
    s->out->stats.nfe++;
  }
  bool adaptive = o->method->error_order && o->step_size == 0;
  double h = o->step_size > 0 ? s->direction * o->step_size : s->ts[s->nt - 1] - s->t;
  if (adaptive) {
    td_status status = s->have_first ? TD_OK : evaluate(s, 0, s->t, s->y);
    if (status) return status;
    s->have_first = true;
    if (!is_finite(s->k[0], &s->out->stats.worst) || !is_finite(s->y, &s->out->stats.worst)) {
      give_up(s, TD_ODE_NONFINITE, 0, "the initial state or its derivative is not finite", "");
      return TD_OK;
    }
    h = s->direction * o->first_step;
    if (o->first_step == 0 && (status = initial_step(s, &h))) return status;
  }
  while (s->next < s->nt && s->out->status == TD_ODE_OK) {
    td_status status = step(s, &h);
    if (status) return status;
  }
  return TD_OK;
}

td_status td_ode_integrate(td_field *f, td_tensor *y0, const double *ts, size_t nt, const td_ode_options *o,
                           td_ode_solution *out) {
  *out = (td_ode_solution){.status = TD_ODE_OK};
  td_status status = check_times(ts, nt);
  if (!status && !td_dtype_is_real(y0->dtype))
    status = td_fail(TD_EDTYPE, "the state is %s, expected float32 or float64", td_dtype_name(y0->dtype));
  if (!status && y0->ndim == TD_MAX_DIMS) status = td_fail(TD_ESHAPE, "the state has %d dims, at most 7 fit", y0->ndim);
  if (status) return status;
  size_t shape[TD_MAX_DIMS] = {nt};
  memcpy(shape + 1, y0->shape, sizeof(size_t) * (size_t)y0->ndim);
  solve s = {.f = f, .o = o, .ts = ts, .nt = nt, .t = ts[0], .direction = ts[nt - 1] >= ts[0] ? 1 : -1,
             .history = {1, 1}, .out = out};
  out->stats.t_last = ts[0];
  out->ys = td_tensor_new(y0->dtype, y0->ndim + 1, shape);
  s.y = td_tensor_contiguous(y0);
  if (s.y && s.y->node) {
    td_tensor *plain = td_tensor_alias(s.y);
    td_tensor_release(s.y);
    s.y = plain;
  }
  status = out->ys && s.y ? run(&s) : td_last_status();
  td_tensor_release(s.y);
  td_tensor_release(s.y1);
  for (int i = 0; i <= TD_MAX_STAGES; i++) td_tensor_release(s.k[i]);
  return status;
}

void td_ode_solution_free(td_ode_solution *s) {
  for (size_t i = 0; i < s->nsteps; i++) td_tensor_release(s->steps[i].y);
  td_free(s->steps, s->capacity * sizeof *s->steps);
  td_tensor_release(s->ys);
  *s = (td_ode_solution){.status = s->status};
}
