/* The forward loop. A step is proposed, tried, judged, and accepted or rejected; everything a solve carries
 * from one to the next is in `solve`. The step size that a trial uses is the difference of its two times, so
 * that the grid of times alone says what was computed. */
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

typedef struct {
  td_field *f;
  const td_ode_options *o;
  const double *ts;
  size_t nt, next;                      /* next save time */
  double t, direction;
  double anchor, taken;                 /* fixed steps: the last stop, and steps since */
  td_tensor *y, *y1;                    /* at t, and at the end of the step tried */
  td_tensor *k[TD_MAX_STAGES + 1];
  uint32_t version[TD_MAX_STAGES + 1];  /* of k[i] when it was given */
  bool have_first;                      /* k[0] is f(t, y) */
  double history[2];                    /* errors of the last accepted steps */
  bool rejected_last;
  size_t worst;                         /* the element with the largest scaled error in the last norm */
  td_ode_solution *out;
} solve;

static bool is_adaptive(const td_ode_options *o) { return o->method->error_order && o->step_size == 0; }

static void drop(td_tensor **t) {
  td_tensor_release(*t);
  *t = NULL;
}

static uint32_t version_of(const td_tensor *t) { return t->storage ? t->storage->version : 0; }

/* ---- One step ---- */

/* k[i] = f(t, y) */
static td_status evaluate(solve *s, int i, double t, td_tensor *y) {
  drop(&s->k[i]);
  td_tensor *time = td_tensor_number(TD_F64, t, false);
  if (!time) return td_last_status();
  td_status status = td_field_eval(s->f, time, y, &s->k[i]);
  td_tensor_release(time);
  s->out->stats.nfe++;
  if (!status) s->version[i] = version_of(s->k[i]);
  return status;
}

/* h Σ w[i] k[i] as the kernels take it: the terms that are not zero; gives their number. */
static size_t terms(const solve *s, double h, const double *w, int n, double *coef, const void **x) {
  size_t count = 0;
  for (int i = 0; i < n; i++) {
    if (w[i] == 0) continue;
    coef[count] = h * w[i];
    x[count++] = s->k[i]->data;
  }
  return count;
}

/* *y1 = y + h Σ w[i] k[i], a new tensor: the right-hand side may have kept an earlier one. */
static td_status combine(solve *s, double h, const double *w, int n, td_tensor **y1) {
  double coef[TD_MAX_STAGES + 1];
  const void *x[TD_MAX_STAGES + 1];
  size_t count = terms(s, h, w, n, coef, x);
  drop(y1);
  *y1 = td_tensor_new(s->y->dtype, s->y->ndim, s->y->shape);
  if (!*y1) return td_last_status();
  td_k(s->y->dtype)->lincomb((*y1)->data, s->y->data, count, coef, x, s->y->numel);
  return TD_OK;
}

/* A right-hand side that returns one buffer again and again would spoil the stages before. */
static td_status check_slopes(const solve *s, int n) {
  for (int i = 0; i < n; i++)
    if (version_of(s->k[i]) != s->version[i])
      return td_fail(TD_EARG, "%s: the right-hand side wrote into a tensor that it had returned before; return a new one "
                     "each time", s->f->who);
  return TD_OK;
}

/* The stages of a step of h that ends at `end`, and y1 there. */
static td_status try_step(solve *s, double h, double end) {
  const td_tableau *m = s->o->method;
  td_status status = TD_OK;
  if (!s->have_first) status = evaluate(s, 0, s->t, s->y);
  s->have_first = true;
  td_tensor *stage = NULL;
  for (int i = 1; i < m->stages && !status; i++) {
    bool is_y1 = m->fsal && i == m->stages - 1;
    status = combine(s, h, m->a[i], i, is_y1 ? &s->y1 : &stage);
    if (!status) status = evaluate(s, i, td_tableau_time(m, i, s->t, end), is_y1 ? s->y1 : stage);
  }
  td_tensor_release(stage);
  if (!status) status = check_slopes(s, m->stages);
  if (!status && !m->fsal) status = combine(s, h, m->b, m->stages, &s->y1);
  return status;
}

/* ---- Norms ---- */

/* The solve's norm of Σ coef[i] x[i] over atol + rtol·max(|y0|, |y1|); NaN or infinite when something is not
 * finite. */
static double norm_of(solve *s, size_t count, const double *coef, const void **x, const char *y0,
                      const char *y1) {
  const td_ode_options *o = s->o;
  size_t n = o->norm_count ? o->norm_count : s->y->numel, ignored;
  if (n == 0) return 0;
  const td_kernels *k = td_k(s->y->dtype);
  double sum = k->error_sum(count, coef, x, y0, y1, o->rtol, o->atol, n, &s->worst);
  if (!o->max_norm) return sqrt(sum / (double)n);
  const void *one[TD_MAX_STAGES + 1];
  size_t skip = s->worst * td_dtype_size(s->y->dtype);
  for (size_t i = 0; i < count; i++) one[i] = (const char *)x[i] + skip;
  return sqrt(k->error_sum(count, coef, one, y0 + skip, y1 + skip, o->rtol, o->atol, 1, &ignored));
}

static double step_error(solve *s, double h) {
  const td_tableau *m = s->o->method;
  double coef[TD_MAX_STAGES + 1];
  const void *x[TD_MAX_STAGES + 1];
  size_t count = terms(s, h, m->e, m->stages, coef, x);
  return norm_of(s, count, coef, x, s->y->data, s->y1->data);
}

static bool is_finite(const td_tensor *t, size_t *where) {
  if (t->numel == 0) return true;
  double number[1];
  td_tensor sum = {.dtype = t->dtype, .data = (char *)number};
  td_k(t->dtype)->sum(number, t->data, 1, t->numel, 1);
  if (isfinite(td_tensor_get(&sum, 0))) return true;  /* NaN and infinity survive a sum */
  for (size_t i = 0; i < t->numel; i++)
    if (!isfinite(td_tensor_get(t, i))) {
      *where = i;
      return false;
    }
  return true;
}

/* ---- Step size ---- */

/* Where the next step must end at the latest. */
static double next_stop(const solve *s) {
  bool grid = !s->o->method->error_order && s->o->step_size == 0;
  return s->o->land || grid ? s->ts[s->next] : s->ts[s->nt - 1];
}

/* Hairer, Nørsett and Wanner, Solving ODEs I, II.4: a first step from one Euler step, neither outside the
 * interval. */
static td_status initial_step(solve *s, double *h) {
  const td_ode_options *o = s->o;
  double stop = next_stop(s), span = fabs(stop - s->t), one = 1;
  if (o->max_step > 0 && o->max_step < span) span = o->max_step;
  const char *y = s->y->data;
  const void *f0 = s->k[0]->data, *y_only = y;
  double d0 = norm_of(s, 1, &one, &y_only, y, y), d1 = norm_of(s, 1, &one, &f0, y, y);
  double h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1;
  if (!(h0 < span)) h0 = span;
  double end = s->t + s->direction * h0;
  if (s->direction * (end - stop) > 0) end = stop;
  if (end == s->t) {  /* the first step will say so */
    *h = s->direction * h0;
    return TD_OK;
  }
  td_tensor *y1 = NULL;
  td_status status = combine(s, end - s->t, &one, 1, &y1);
  if (!status) status = evaluate(s, 1, end, y1);
  td_tensor_release(y1);
  if (status) return status;
  const void *both[2] = {s->k[1]->data, f0};
  double d2 = norm_of(s, 2, (const double[]){1, -1}, both, y, y) / h0;
  double m = d1 > d2 ? d1 : d2;
  double h1 = m <= 1e-15 ? fmax(1e-6, 1e-3 * h0) : pow(0.01 / m, 1.0 / (o->method->error_order + 1));
  double least = fmin(100 * h0, h1);
  if (!(least > 0) || !isfinite(least)) least = h0;
  *h = s->direction * fmin(least, span);
  return TD_OK;
}

/* A step to try. */
typedef struct {
  double end, h;
  bool lands;  /* ends on a stop */
  bool cut;    /* shorter than was wanted, to land */
} trial;

/* Fixed steps count from the last stop, so that their rounding does not add up. A remainder of 1e-10 of the
 * step is taken along. */
static trial propose(const solve *s, double wanted) {
  const td_ode_options *o = s->o;
  double stop = next_stop(s);
  if (o->max_step > 0 && fabs(wanted) > o->max_step) wanted = s->direction * o->max_step;
  trial p = {.end = is_adaptive(o) ? s->t + wanted : s->anchor + (s->taken + 1) * wanted};
  p.lands = s->direction * (stop - p.end) <= 1e-10 * fabs(wanted);
  p.cut = p.lands && fabs(stop - s->t) < fabs(wanted) * (1 - 1e-10);
  if (p.lands) p.end = stop;
  p.h = p.end - s->t;
  return p;
}

/* Steps of a few units in the last place of t are all rounding: a solve would crawl with them, not fail. */
static double least_step(const solve *s) { return fmax(s->o->min_step, 10 * DBL_EPSILON * fabs(s->t)); }

/* The factor after an accepted step, from its error and those of the steps before. */
static double accepted_factor(const solve *s, double err) {
  const td_controller *c = &s->o->controller;
  double q = s->o->method->error_order + 1, least = c->keep_after_accept ? 1 : c->shrink;
  double factor = c->safety * pow(err, -c->k[0] / q);
  factor *= pow(s->history[0], -c->k[1] / q) * pow(s->history[1], -c->k[2] / q);
  factor = fmax(least, fmin(factor, c->grow));
  return s->rejected_last && c->hold_after_reject ? fmin(factor, 1) : factor;
}

/* A step cut short to land says nothing against the size that was meant, and leaves no trace in the
 * history. */
static void control(solve *s, const trial *p, double err, double *h) {
  if (err < 1e-10) err = 1e-10;
  double grown = p->h * accepted_factor(s, err);
  if (!p->cut || fabs(grown) > fabs(*h)) *h = grown;
  if (!p->cut) {
    s->history[1] = s->history[0];
    s->history[0] = err;
    s->rejected_last = false;
  }
}

static void reject(solve *s, const trial *p, double err, bool finite, double *h) {
  const td_controller *c = &s->o->controller;
  double factor = finite ? c->safety * pow(err, -1.0 / (s->o->method->error_order + 1)) : c->shrink;
  *h = p->h * fmin(fmax(c->shrink, factor), c->safety);
  if (!finite) s->history[0] = s->history[1] = 1;
  s->rejected_last = true;
  s->out->stats.rejected++;
  s->out->stats.worst = s->worst;
}

/* ---- Saving ---- */

static void save_row(solve *s, const td_tensor *y) {
  td_ode_solution *out = s->out;
  size_t bytes = y->numel * td_dtype_size(y->dtype);
  if (bytes) memcpy(out->ys->data + out->reached * bytes, y->data, bytes);
  out->reached++;
}

/* The value at a save time inside the accepted step. */
static td_status save_between(solve *s, const trial *p, double at) {
  const td_tableau *m = s->o->method;
  if (m->hermite && !m->fsal && !s->k[m->stages]) {  /* the slope at the end, which the next step needs anyway */
    td_status status = evaluate(s, m->stages, p->end, s->y1);
    if (status) return status;
  }
  double w[TD_MAX_STAGES + 1];
  int n = td_tableau_dense(m, (at - s->t) / p->h, w);
  td_tensor *between = NULL;
  td_status status = combine(s, p->h, w, n, &between);
  if (status) return status;
  save_row(s, between);
  td_tensor_release(between);
  return TD_OK;
}

static td_status save_inside(solve *s, const trial *p) {
  for (; s->next < s->nt && s->direction * (s->ts[s->next] - p->end) <= 0; s->next++) {
    if (s->ts[s->next] == p->end) {
      save_row(s, s->y1);
      continue;
    }
    td_status status = save_between(s, p, s->ts[s->next]);
    if (status) return status;
  }
  return TD_OK;
}

static td_status remember_step(solve *s) {
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
  out->steps[out->nsteps++] = (td_ode_step){s->t, s->o->keep ? td_tensor_retain(s->y) : NULL};
  return TD_OK;
}

double td_ode_step_end(const td_ode_solution *s, size_t n) {
  return n + 1 < s->nsteps ? s->steps[n + 1].t : s->stats.t_last;
}

/* Moves on to the step's end. The slope there is known when the method is FSAL or a save needed it. */
static void advance(solve *s, const trial *p) {
  const td_tableau *m = s->o->method;
  int last = m->fsal ? m->stages - 1 : m->stages;
  s->have_first = s->k[last] != NULL;
  drop(&s->k[0]);
  s->k[0] = s->k[last];
  s->version[0] = s->version[last];
  s->k[last] = NULL;
  drop(&s->y);
  s->y = s->y1;
  s->y1 = NULL;
  s->t = s->out->stats.t_last = p->end;
  s->taken = p->lands ? 0 : s->taken + 1;
  if (p->lands) s->anchor = p->end;
}

static td_status accept(solve *s, const trial *p, double err, double *h) {
  td_ode_stats *stats = &s->out->stats;
  double size = fabs(p->h);
  stats->accepted++;
  if (stats->h_min == 0 || size < stats->h_min) stats->h_min = size;
  if (size > stats->h_max) stats->h_max = size;
  td_status status = save_inside(s, p);
  if (!status) status = remember_step(s);
  if (status) return status;
  advance(s, p);
  if (is_adaptive(s->o)) control(s, p, err, h);
  return TD_OK;
}

/* ---- Giving up ---- */

static void give_up(solve *s, td_ode_status status, double h, const char *why, const char *hint) {
  td_ode_solution *out = s->out;
  unsigned long long tries = out->stats.accepted + out->stats.rejected;
  double value = out->stats.worst < s->y->numel ? td_tensor_get(s->y, out->stats.worst) : NAN;
  double floor = 10 * (s->y->dtype == TD_F32 ? FLT_EPSILON : DBL_EPSILON);
  int n = snprintf(out->message, sizeof out->message,
                   "%s at t=%.8g with step %.3g after %llu steps (state component %zu is %.4g)%s%s", why, s->t,
                   h, tries, out->stats.worst + 1, value, *hint ? ": " : "", hint);
  bool below = is_adaptive(s->o) && s->o->rtol < floor && status != TD_ODE_NONFINITE;
  if (below && n > 0 && (size_t)n < sizeof out->message)
    snprintf(out->message + n, sizeof out->message - (size_t)n,
             "; rtol=%g is less than %s can hold, try at least %.2g", s->o->rtol, td_dtype_name(s->y->dtype), floor);
  out->status = status;
}

static void give_up_stuck(solve *s, double h, bool finite) {
  if (finite)
    give_up(s, TD_ODE_UNDERFLOW, h, "the step size fell too low",
            "the problem may be stiff or blow up there, or the tolerance is below rounding");
  else
    give_up(s, TD_ODE_NONFINITE, h, "the right-hand side or the state is not finite",
            "look at f near that point");
}

/* ---- The loop ---- */

/* One accepted step, with the rejected tries before it; or the solution gets another status than ok. *h is
 * the step to try, and becomes the next one. */
static td_status step(solve *s, double *h) {
  const td_ode_options *o = s->o;
  td_ode_stats *stats = &s->out->stats;
  bool adaptive = is_adaptive(o), finite = true;
  while (stats->accepted + stats->rejected < o->max_steps) {
    trial p = propose(s, *h);
    if (p.end == s->t || (adaptive && !p.lands && fabs(p.h) < least_step(s))) {
      give_up_stuck(s, p.h, finite);
      return TD_OK;
    }
    td_status status = try_step(s, p.h, p.end);
    if (status) return status;
    double err = adaptive ? step_error(s, p.h) : 0;
    finite = isfinite(err) && is_finite(s->y1, &s->worst);
    if (finite && err <= 1) return accept(s, &p, err, h);
    if (!adaptive) {
      stats->worst = s->worst;
      give_up(s, TD_ODE_NONFINITE, p.h, "the state is not finite", "take a smaller step_size");
      return TD_OK;
    }
    reject(s, &p, err, finite, h);
  }
  give_up(s, TD_ODE_MAX_STEPS, *h, "the step limit was reached",
          "raise max_steps, loosen rtol, or the problem may be stiff");
  return TD_OK;
}

/* The first slope, and the first step of an adaptive solve. */
static td_status start(solve *s, double *h) {
  const td_ode_options *o = s->o;
  if (o->first_slope) {
    s->k[0] = td_tensor_contiguous(o->first_slope);
    if (!s->k[0]) return td_last_status();
    s->version[0] = version_of(s->k[0]);
    s->have_first = true;
    s->out->stats.nfe++;
  }
  *h = o->step_size > 0 ? s->direction * o->step_size : s->ts[s->nt - 1] - s->t;
  if (!is_adaptive(o)) return TD_OK;
  td_status status = s->have_first ? TD_OK : evaluate(s, 0, s->t, s->y);
  if (status) return status;
  s->have_first = true;
  if (!is_finite(s->k[0], &s->out->stats.worst) || !is_finite(s->y, &s->out->stats.worst)) {
    give_up(s, TD_ODE_NONFINITE, 0, "the initial state or its derivative is not finite", "");
    return TD_OK;
  }
  *h = s->direction * o->first_step;
  return o->first_step == 0 ? initial_step(s, h) : TD_OK;
}

static td_status run(solve *s) {
  while (s->next < s->nt && s->ts[s->next] == s->t) {  /* repeated first times */
    save_row(s, s->y);
    s->next++;
  }
  if (s->next == s->nt) return TD_OK;
  double h = 0;
  td_status status = start(s, &h);
  while (!status && s->next < s->nt && s->out->status == TD_ODE_OK) status = step(s, &h);
  return status;
}

td_status td_ode_check(const td_tensor *y0, const double *ts, size_t nt) {
  if (!td_dtype_is_real(y0->dtype))
    return td_fail(TD_EDTYPE, "ode.solve: the state is %s, expected float32 or float64",
                   td_dtype_name(y0->dtype));
  if (y0->ndim == TD_MAX_DIMS)
    return td_fail(TD_ESHAPE, "ode.solve: the state has %d dims, at most %d fit", y0->ndim, TD_MAX_DIMS - 1);
  if (nt == 0) return td_fail(TD_EARG, "ode.solve: no times were given");
  for (size_t i = 0; i < nt; i++)
    if (!isfinite(ts[i])) return td_fail(TD_EARG, "ode.solve: time %zu is not finite", i + 1);
  for (size_t i = 1; i < nt; i++)
    if ((ts[i] - ts[i - 1]) * (ts[nt - 1] - ts[0]) < 0 || (ts[nt - 1] == ts[0] && ts[i] != ts[0]))
      return td_fail(TD_EARG, "ode.solve: times must ascend or descend, but time %zu is %g after %g", i + 1,
                     ts[i], ts[i - 1]);
  return TD_OK;
}

td_status td_ode_integrate(td_field *f, td_tensor *y0, const double *ts, size_t nt, const td_ode_options *o,
                           td_ode_solution *out) {
  *out = (td_ode_solution){.status = TD_ODE_OK};
  td_status status = td_ode_check(y0, ts, nt);
  if (status) return status;
  size_t shape[TD_MAX_DIMS] = {nt};
  memcpy(shape + 1, y0->shape, sizeof(size_t) * (size_t)y0->ndim);
  solve s = {.f = f, .o = o, .ts = ts, .nt = nt, .t = ts[0], .anchor = ts[0],
             .direction = ts[nt - 1] >= ts[0] ? 1 : -1, .history = {1, 1}, .out = out};
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
