/* The forward loop. A step is proposed, tried, judged, and accepted or rejected. The step size that a trial uses is the
 * difference of its two times, so that the grid of times alone says what was computed. Nothing is allocated in a step
 * but what is kept of it. */
#include "solve/integrate.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "solve/captured.h"
#include "solve/loop.h"

const char *td_ode_status_name(td_ode_status s) {
  static const char *const names[] = {"ok", "event", "max_steps", "dt_underflow", "nonfinite", "newton_failed"};
  return names[s];
}

/* ---- Giving up ---- */

static double element(const td_solve *v, const char *y, size_t i) {
  if (i >= v->s.n) return NAN;
  return v->s.f->dtype == TD_F64 ? ((const double *)(const void *)y)[i] : (double)((const float *)(const void *)y)[i];
}

static void give_up(td_solve *v, td_ode_status status, double h, const char *why, const char *hint) {
  td_ode_solution *out = v->out;
  td_ode_stats *stats = &out->stats;
  unsigned long long tries = stats->accepted + stats->rejected;
  stats->value = element(v, v->s.y, stats->worst);
  if (isnan(stats->value)) stats->value = fabs(stats->value);  /* which is not printed as -nan */
  double floor = 10 * (v->s.f->dtype == TD_F32 ? FLT_EPSILON : DBL_EPSILON);
  int n = snprintf(out->message, sizeof out->message,
                   "%s at t=%.8g with step %.3g after %llu steps (state component %zu is %.4g)%s%s", why, v->s.t,
                   h, tries, stats->worst + 1, stats->value, *hint ? ": " : "", hint);
  bool below = td_is_adaptive(v->o) && v->o->rtol < floor && status != TD_ODE_NONFINITE;
  if (below && n > 0 && (size_t)n < sizeof out->message)
    snprintf(out->message + n, sizeof out->message - (size_t)n,
             "; rtol=%g is less than %s can hold, try at least %.2g", v->o->rtol, td_dtype_name(v->s.f->dtype), floor);
  out->status = status;
}

static void give_up_stuck(td_solve *v, double h, bool finite, bool refused) {
  if (refused)
    give_up(v, TD_ODE_NEWTON, h, v->s.why, "the right-hand side may not be smooth there, or its Jacobian is wrong");
  else if (finite)
    give_up(v, TD_ODE_UNDERFLOW, h, "the step size fell too low",
            "the problem may be stiff or blow up there, or the tolerance is below rounding");
  else
    give_up(v, TD_ODE_NONFINITE, h, "the right-hand side or the state is not finite",
            "look at f near that point");
}

/* ---- The loop ---- */

/* Moves on to the step's end; at a jump f starts afresh from the right. */
static td_status advance(td_solve *v, const td_trial *p) {
  td_ode_step like = {.restart = v->restarted, .pinned = v->pinned, .after_jump = v->jumped, .before_jump = p->jump};
  td_status status = td_trajectory_add(&v->out->path, &v->s, &like);
  v->restarted = v->pinned = v->jumped = false;
  if (!status) status = td_stepper_accept(&v->s);
  if (status) return status;
  v->out->stats.t_last = p->end;
  v->taken = p->lands ? 0 : v->taken + 1;
  if (p->lands) v->anchor = p->end;
  if (v->o->grid) v->next_node++;
  while (v->next_stop < v->o->nstops && v->direction * (v->o->stops[v->next_stop].t - p->end) <= 0) v->next_stop++;
  if (!p->jump) return TD_OK;
  v->restarted = v->jumped = true;
  status = td_stepper_start(&v->s, p->end, v->s.y);
  v->s.first_time = nextafter(p->end, p->end + v->direction);
  return status;
}

/* An event at θ = cut ends the solve there, or starts it afresh from the state after. */
static td_status cut_step(td_solve *v, const td_trial *p, bool ends) {
  td_ode_solution *out = v->out;
  const td_event_hit *hit = &out->events.hits[out->events.nhits - 1];
  td_ode_step like = {.restart = v->restarted, .pinned = v->pinned, .after_jump = v->jumped, .before_jump = p->jump, .is_cut = true, .cut = hit->t};
  td_status status = td_solve_save(v, p, hit->t);
  if (!status) status = td_trajectory_add(&out->path, &v->s, &like);
  if (status) return status;
  out->stats.t_last = v->anchor = hit->t;
  v->taken = 0;
  if (ends) {
    td_solve_save_row(v, hit->after);
    out->event_row = true;
    out->status = TD_ODE_EVENT;
    return TD_OK;
  }
  v->restarted = v->pinned = true;
  v->jumped = false;
  v->history[0] = v->history[1] = 1;
  v->sizes[0] = v->sizes[1] = 0;
  status = td_stepper_start(&v->s, hit->t, hit->after);
  if (!status) status = td_event_begin(&out->events, hit->t, hit->after);
  for (size_t i = 0; i < out->events.n; i++) out->events.fresh[i] = i == hit->which;
  return status;
}

static td_status accept(td_solve *v, const td_trial *p, double error, double *h) {
  td_ode_stats *stats = &v->out->stats;
  double size = fabs(p->h);
  stats->accepted++;
  if (stats->h_min == 0 || size < stats->h_min) stats->h_min = size;
  if (size > stats->h_max) stats->h_max = size;
  td_event_list *events = &v->out->events;
  double cut = 2;
  bool ends = false;
  td_status status = TD_OK;
  if (events->n) status = td_event_scan(events, &v->s, v->out->path.n, v->room, &cut, &ends);
  if (!status && v->o->watch) status = v->o->watch(v->o->watch_data, &v->s);
  if (!status && cut <= 1) return cut_step(v, p, ends);
  td_event_advance(events);
  if (!status) status = td_solve_save(v, p, p->end);
  if (!status) status = advance(v, p);
  if (!status && td_is_adaptive(v->o)) td_solve_control(v, p, error, h);
  if (!status && events->n && v->restarted) status = td_event_begin(events, v->s.t, v->s.y);
  return status;
}

/* What a trial came to. */
typedef struct {
  double error;
  bool finite, refused;
} verdict;

/* May the step's evaluations still be held at the end of the solve, to be worth keeping? Steps to come are counted as
 * if they were as long; those of an adaptive solve may become four times as long. */
static bool is_late(const td_solve *v, const td_trial *p) {
  size_t stages = (size_t)v->o->method->stages, steps = td_field_hold_room(v->f) / (stages ? stages : 1);
  double ahead = fabs((v->ts[v->nt - 1] - p->end) / p->h), fit = (double)(steps ? steps : 1);
  return v->out->path.n < steps || ahead < (td_is_adaptive(v->o) ? 4 * fit : fit + 0.5);
}

static td_status judge(td_solve *v, const td_trial *p, verdict *out) {
  td_step_result result;
  *out = (verdict){.finite = true};
  v->s.number = v->out->path.n;
  v->s.hold = v->o->hold && is_late(v, p);
  v->s.ends = v->next + 1 == v->nt && p->end == v->ts[v->next];
  td_status status = td_stepper_step(&v->s, p->end, p->jump, &result);
  out->refused = result == TD_STEP_REFUSED;
  if (status || out->refused) return status;
  if (td_is_adaptive(v->o)) {
    status = td_solve_error(v, &out->error);
    if (v->out->limits && v->worst < v->out->nlimits) v->out->limits[v->worst]++;
  }
  out->finite = isfinite(out->error) && td_solve_is_finite(v, v->s.y1, &v->worst);
  return status;
}

/* One accepted step, with the rejected tries before it; or the solution gets another status than ok. *h is
 * the step to try, and becomes the next one. */
static td_status step(td_solve *v, double *h) {
  const td_ode_options *o = v->o;
  td_ode_stats *stats = &v->out->stats;
  bool adaptive = td_is_adaptive(o);
  verdict it = {.finite = !v->broken};
  v->broken = false;
  while (stats->accepted + stats->rejected < o->max_steps) {
    if (adaptive && o->accept_min_step && fabs(*h) < o->min_step) *h = v->direction * o->min_step;
    td_trial p = td_solve_propose(v, *h);
    bool forced = adaptive && o->accept_min_step && fabs(p.h) <= o->min_step * (1 + 1e-10);
    if (p.end == v->s.t || (adaptive && !p.lands && !forced && fabs(p.h) < td_solve_least_step(v))) {
      give_up_stuck(v, p.h, it.finite, it.refused);
      return TD_OK;
    }
    td_status status = judge(v, &p, &it);
    if (status) return status;
    if (it.finite && !it.refused && (it.error <= 1 || forced)) return accept(v, &p, it.error, h);
    if (!adaptive || (forced && !it.refused)) {
      stats->worst = v->worst;
      if (it.refused) give_up_stuck(v, p.h, true, true);
      else give_up(v, TD_ODE_NONFINITE, p.h, "the state is not finite", "take a smaller step_size");
      return TD_OK;
    }
    td_solve_reject(v, &p, it.error, it.finite && !it.refused, h);
    if (it.refused) *h = p.h * v->s.retry;
  }
  give_up(v, TD_ODE_MAX_STEPS, *h, "the step limit was reached",
          o->method->family->stiff ? "raise max_steps or loosen rtol"
                                   : "raise max_steps, loosen rtol, or the problem may be stiff");
  return TD_OK;
}

/* Rows of the mass matrix that are zero are equations, which the start has to satisfy. */
static td_status check_consistent(const td_solve *v) {
  const td_tensor *mass = v->o->mass;
  size_t n = mass->shape[0];
  double most = 1, off = sqrt(fmax(v->o->rtol, DBL_EPSILON));
  for (size_t i = 0; i < v->s.n; i++) most = fmax(most, fabs(element(v, v->s.y, i)));
  for (size_t i = 0; i < n; i++) {
    double sum = 0, f = element(v, v->s.f0, i);
    for (size_t j = 0; j < mass->numel / n; j++) sum += fabs(td_tensor_get(mass, i * (mass->numel / n) + j));
    if (sum == 0 && fabs(f) > off * most)
      return td_fail(TD_EARG,
                     "ode.solve: y0 does not satisfy the algebraic equation %zu: row %zu of mass is zero, and f is %g "
                     "there",
                     i + 1, i + 1, f);
  }
  return TD_OK;
}

/* The first slope, and the first step of an adaptive solve. */
static td_status start(td_solve *v, double *h) {
  const td_ode_options *o = v->o;
  td_stepper *s = &v->s;
  if (o->first_slope) {
    if (s->bytes) memcpy(s->f0, o->first_slope, s->bytes);
    s->have_f0 = true;
    s->counts->nfe++;
  }
  *h = o->step_size > 0 ? v->direction * o->step_size : v->ts[v->nt - 1] - s->t;
  if (!td_is_adaptive(o)) return TD_OK;
  td_status status = td_stepper_slope(s);
  if (status) return status;
  if (!td_solve_is_finite(v, s->f0, &v->out->stats.worst) || !td_solve_is_finite(v, s->y, &v->out->stats.worst)) {
    give_up(v, TD_ODE_NONFINITE, 0, "the initial state or its derivative is not finite", "");
    return TD_OK;
  }
  if (o->mass && (status = check_consistent(v))) return status;
  *h = v->direction * o->first_step;
  if (o->mass && o->first_step == 0) *h = 1e-6 * (v->ts[v->nt - 1] - s->t);  /* f is no slope to judge by */
  if (*h == 0) status = td_solve_first_step(v, h);
  if (fabs(*h) < o->min_step) *h = v->direction * o->min_step;  /* which is to be tried before it is given up */
  return status;
}

static td_status run(td_solve *v) {
  while (v->next < v->nt && v->ts[v->next] == v->s.t) {  /* repeated first times */
    td_solve_save_row(v, v->s.y);
    v->next++;
  }
  td_status status = v->o->every ? td_solve_save_every(v, v->s.t, v->s.y) : TD_OK;
  if (status || v->next == v->nt) return status;
  double h = 0;
  status = start(v, &h);
  if (!status) status = td_event_begin(&v->out->events, v->s.t, v->s.y);
  while (!status && v->next < v->nt && v->out->status == TD_ODE_OK) {
    if (v->march) status = td_solve_march(v, &h);
    if (!status) status = step(v, &h);
  }
  return status;
}

td_status td_ode_check(td_dtype d, int ndim, const double *ts, size_t nt) {
  if (!td_dtype_is_real(d))
    return td_fail(TD_EDTYPE, "ode.solve: the state is %s, expected float32 or float64", td_dtype_name(d));
  if (ndim == TD_MAX_DIMS)
    return td_fail(TD_ESHAPE, "ode.solve: the state has %d dims, at most %d fit", ndim, TD_MAX_DIMS - 1);
  if (nt == 0) return td_fail(TD_EARG, "ode.solve: no times were given");
  for (size_t i = 0; i < nt; i++)
    if (!isfinite(ts[i])) return td_fail(TD_EARG, "ode.solve: time %zu is not finite", i + 1);
  for (size_t i = 1; i < nt; i++)
    if ((ts[i] - ts[i - 1]) * (ts[nt - 1] - ts[0]) < 0 || (ts[nt - 1] == ts[0] && ts[i] != ts[0]))
      return td_fail(TD_EARG, "ode.solve: times must ascend or descend, but time %zu is %g after %g", i + 1,
                     ts[i], ts[i - 1]);
  return TD_OK;
}

/* Steps that a solve will take when nothing but the step size decides; 0: not known. */
static size_t planned_steps(const td_ode_options *o, const double *ts, size_t nt) {
  if (o->grid) return o->nevents ? 0 : o->ngrid - 1;
  if (o->step_size == 0 || o->land || o->nstops || o->nevents) return 0;
  double size = o->max_step > 0 && o->max_step < o->step_size ? o->max_step : o->step_size;
  double steps = ceil(fabs(ts[nt - 1] - ts[0]) / size - 1e-10);
  return steps < 1e15 ? (size_t)fmax(steps, 1) : 0;
}

/* The kept state at the end. */
static td_status keep_last(td_solve *v) {
  td_trajectory *path = &v->out->path;
  path->last_bytes = td_stepper_kept(&v->s) * v->s.bytes + 1;
  path->last = td_alloc(path->last_bytes);
  if (!path->last) return td_last_status();
  td_stepper_save(&v->s, path->last);
  return TD_OK;
}

/* The lists of events and of limiting elements. */
static td_status make_lists(const td_ode_options *o, const td_field *f, size_t bytes, td_ode_solution *out) {
  enum { MOST = 4096 };
  td_status status = td_event_list_make(&out->events, o->events, f->numel ? o->nevents : 0, o->event_points, bytes);
  if (status || f->numel > MOST || f->numel == 0) return status;
  out->limits = td_alloc(f->numel * sizeof *out->limits);
  if (!out->limits) return td_last_status();
  out->nlimits = f->numel;
  memset(out->limits, 0, f->numel * sizeof *out->limits);
  return TD_OK;
}

td_status td_ode_integrate(td_field *f, const void *y0, const double *ts, size_t nt, const td_ode_options *o,
                           td_ode_solution *out) {
  *out = (td_ode_solution){.status = TD_ODE_OK};
  td_status status = td_ode_check(f->dtype, f->ndim, ts, nt);
  if (status) return status;
  size_t shape[TD_MAX_DIMS] = {nt + (o->nevents > 0)};
  memcpy(shape + 1, f->shape, sizeof(size_t) * (size_t)f->ndim);
  out->stats.t_last = ts[0];
  out->path = (td_trajectory){.unrecorded = o->unrecorded, .keep = o->keep, .slots = o->slots ? o->slots : SIZE_MAX,
                              .budget = o->budget, .planned = planned_steps(o, ts, nt)};
  out->ys = td_tensor_new(f->dtype, f->ndim + 1, shape);
  if (!out->ys) return td_last_status();
  td_solve v = {.f = f, .o = o, .ts = ts, .nt = nt, .anchor = ts[0], .next_node = 1, .restarted = true,
                .direction = ts[nt - 1] >= ts[0] ? 1 : -1, .history = {1, 1}, .out = out};
  status = td_stepper_make(&v.s, o->method, o, f, &out->stats.counts);
  if (!status && o->norm == TD_NORM_FUNCTION && !(v.scaled = td_alloc(v.s.bytes + 1))) status = td_last_status();
  if (!status && o->nevents && !(v.room = td_alloc(2 * v.s.bytes + 1))) status = td_last_status();
  if (!status) status = make_lists(o, f, v.s.bytes, out);
  if (!status) status = td_solve_prepare_march(&v);
  if (!status) status = td_stepper_start(&v.s, ts[0], y0);
  if (!status && o->hold) td_field_hold(f, o->hold, o->method->stages);
  if (!status) status = run(&v);
  if (!status && o->keep_last) status = keep_last(&v);
  td_solve_end_march(&v);
  td_free(v.room, v.room ? 2 * v.s.bytes + 1 : 0);
  td_free(v.scaled, v.scaled ? v.s.bytes + 1 : 0);
  td_stepper_free(&v.s);
  return status;
}

void td_ode_solution_free(td_ode_solution *s) {
  td_event_list_free(&s->events);
  td_free(s->limits, s->nlimits * sizeof *s->limits);
  td_trajectory_free(&s->path);
  td_tensor_release(s->ys);
  td_free(s->every_t, s->every_room * sizeof *s->every_t);
  td_free(s->every_y, s->every_y ? s->every_room * s->every_bytes + 1 : 0);
  *s = (td_ode_solution){.status = s->status};
}
