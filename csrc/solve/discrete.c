/* The exact derivative of the computed map on its frozen grid: the accepted steps are replayed from their
 * kept starts, newest first, each on a tape of its own that lives for that step alone. The step-size control
 * is not differentiated, and the nodes of the grid are constants but for the two ends. For second
 * derivatives the whole grid is replayed on one tape, and that is differentiated. */
#include <math.h>
#include "base/alloc.h"
#include "ops/ops.h"
#include "solve/sweep.h"

/* ---- Replaying a step on the tape ---- */

/* One step of the grid. t, end and h = end − t are 0-d float64 tensors when times are differentiated, else
 * NULL. */
typedef struct {
  const td_ode_recorded *r;
  double t0, t1, size;
  td_tensor *y, *t, *end, *h;
  td_tensor *k[TD_MAX_STAGES + 1];
} replay;

static replay replay_of(const td_ode_recorded *r, size_t n) {
  double t0 = r->solution.steps[n].t, t1 = td_ode_step_end(&r->solution, n);
  return (replay){.r = r, .t0 = t0, .t1 = t1, .size = t1 - t0};
}

/* The time of stage i; i = stages is the step's end. */
static td_tensor *stage_time(const replay *p, int i) {
  const td_tableau *m = p->r->o.method;
  double time = i < m->stages ? td_tableau_time(m, i, p->t0, p->t1) : p->t1;
  if (!p->t) return td_auto(td_tensor_number(TD_F64, time, false));
  if (i == 0) return p->t;
  return time == p->t1 ? p->end : td_add(p->t, td_mul(p->h, td_num(td_tableau_c(m, i))));
}

/* y + h Σ w[i] k[i]; y itself when there is nothing but zeros in w. */
static td_tensor *moved(const replay *p, const double *w, int n) {
  double coef[TD_MAX_STAGES + 2] = {1};
  td_tensor *x[TD_MAX_STAGES + 2] = {p->y};
  int count = 0;
  for (int i = 0; i < n; i++)
    if (w[i] != 0) {
      coef[1 + count] = p->h ? w[i] : p->size * w[i];
      x[1 + count++] = p->k[i];
    }
  if (count == 0) return p->y;
  if (!p->h) return td_lincomb(count + 1, coef, x);
  return td_add(p->y, td_mul(td_lincomb(count, coef + 1, x + 1), p->h));
}

static td_tensor *slope(const replay *p, int i, td_tensor *y) {
  td_tensor *t = stage_time(p, i);
  return t && y ? td_sweep_eval(p->r, t, y) : NULL;
}

/* The stages that y1 needs, and y1; the last stage of an FSAL method belongs to the next step. */
static td_tensor *replay_step(replay *p) {
  const td_tableau *m = p->r->o.method;
  int stages = m->stages - (m->fsal ? 1 : 0);
  for (int i = 0; i < stages; i++) {
    p->k[i] = slope(p, i, moved(p, m->a[i], i));
    if (!p->k[i]) return NULL;
  }
  return moved(p, m->b, stages);
}

/* The value at save time `at` inside the step. When times are differentiated, `save` is that time as a
 * tensor: the weights' dependence on it enters to first order about θ. */
static td_tensor *replay_between(replay *p, td_tensor *y1, double at, td_tensor *save) {
  const td_tableau *m = p->r->o.method;
  double w[TD_MAX_STAGES + 1], dw[TD_MAX_STAGES + 1], theta = (at - p->t0) / p->size;
  int n = td_tableau_dense(m, theta, w), last = m->fsal ? m->stages - 1 : m->stages;
  if (n > last && !p->k[last]) {
    p->k[last] = slope(p, last, y1);
    if (!p->k[last]) return NULL;
  }
  if (!p->h) return moved(p, w, n);
  td_tableau_dense_slope(m, theta, dw);
  td_tensor *shift = td_sub(td_div(td_sub(save, p->t), p->h), td_num(theta));
  td_tensor *sum = td_add(td_lincomb(n, w, p->k), td_mul(td_lincomb(n, dw, p->k), shift));
  return td_add(p->y, td_mul(sum, p->h));
}

/* Does the step end at t1 of the solve? A failed solve has no such step. */
static bool ends_solve(const replay *p) { return p->r->nt == p->r->nts && p->t1 == p->r->ts[p->r->nts - 1]; }

/* Is the value at save time j simply that of the step's end? When times are differentiated only the solve's
 * own end is: another save time that falls on a node moves along the extension, whose nodes stay. */
static bool is_end(const replay *p, size_t j, bool times) {
  return p->r->ts[j] == p->t1 && (!times || ends_solve(p));
}

/* ---- One step back ---- */

/* The tape of one step: what comes out with which cotangent, and what gradients are asked for. */
typedef struct {
  size_t first, count;  /* save times first, first + 1, … lie in the step */
  int nout, nin;
  td_tensor **out, **cotangent;
  td_tensor **in, **grad;  /* the state, the externals, and then, with times: t, end, save times */
  td_tensor **save;        /* leaves; NULL where the value is the step's end */
  size_t room;
} step_tape;

static td_status step_tape_new(step_tape *g, const td_sweep *s, size_t first, size_t last) {
  *g = (step_tape){.first = first, .count = last - first};
  size_t out = g->count + 1, in = 1 + s->r->nexternals + 2 + g->count;
  g->room = 2 * out + 2 * in + g->count;
  g->out = td_alloc(g->room * sizeof *g->out);
  if (!g->out) return td_last_status();
  for (size_t i = 0; i < g->room; i++) g->out[i] = NULL;
  g->cotangent = g->out + out;
  g->in = g->cotangent + out;
  g->grad = g->in + in;
  g->save = g->grad + in;
  return TD_OK;
}

static void step_tape_free(step_tape *g) {
  for (int i = 0; i < g->nin; i++) td_tensor_release(g->grad[i]);
  td_free(g->out, g->room * sizeof *g->out);
}

static td_tensor *leaf_number(double v) {
  td_tensor *t = td_auto(td_tensor_number(TD_F64, v, false));
  return t && !td_requires_grad(t, true) ? t : NULL;
}

/* The step's start as leaves. */
static td_status lift(replay *p, const td_tensor *y, bool times) {
  p->y = td_auto(td_tensor_alias(y));
  if (!p->y || td_requires_grad(p->y, true)) return td_last_status();
  if (!times) return TD_OK;
  p->t = leaf_number(p->t0);
  p->end = leaf_number(p->t1);
  p->h = p->t && p->end ? td_sub(p->end, p->t) : NULL;
  return p->h ? TD_OK : td_last_status();
}

/* Runs the step with recording on. Cotangents of saves at its end join lambda; the others become outputs. */
static td_status record_outputs(td_sweep *s, replay *p, step_tape *g) {
  bool times = s->dtimes != NULL;
  td_tensor *y1 = replay_step(p);
  if (!y1) return td_last_status();
  for (size_t i = 0; i < g->count; i++) {
    size_t j = g->first + i;
    td_tensor *w = td_sweep_row(s->dys, j);
    if (is_end(p, j, times)) {
      if (td_sweep_add(&s->lambda, w)) return td_last_status();
      continue;
    }
    if (times && !(g->save[i] = leaf_number(s->r->ts[j]))) return td_last_status();
    td_tensor *value = replay_between(p, y1, s->r->ts[j], g->save[i]);
    if (!value) return td_last_status();
    g->out[g->nout] = value;
    g->cotangent[g->nout++] = w;
  }
  if (s->lambda) {
    g->out[g->nout] = y1;
    g->cotangent[g->nout++] = s->lambda;
  }
  return TD_OK;
}

static double number_of(const td_tensor *gradient) { return gradient ? td_tensor_get(gradient, 0) : 0; }

static void collect_times(td_sweep *s, const replay *p, const step_tape *g, size_t n) {
  td_tensor *const *grad = g->grad + 1 + s->r->nexternals;
  if (n == 0) s->dtimes[0] += number_of(grad[0]);
  if (ends_solve(p)) s->dtimes[s->r->nt - 1] += number_of(grad[1]);
  for (size_t i = 0; i < g->count; i++)
    if (g->save[i]) s->dtimes[g->first + i] += number_of(grad[2 + i]);
}

/* Pulls the outputs' cotangents through the step's tape into the sweep. */
static td_status pull(td_sweep *s, const replay *p, step_tape *g, size_t n) {
  const td_ode_recorded *r = s->r;
  int nin = 0;
  g->in[nin++] = p->y;
  for (size_t i = 0; i < r->nexternals; i++) g->in[nin++] = r->externals[i];
  if (s->dtimes) {
    g->in[nin++] = p->t;
    g->in[nin++] = p->end;
    for (size_t i = 0; i < g->count; i++) g->in[nin++] = g->save[i] ? g->save[i] : p->end;
  }
  td_status status = td_backward(g->out, g->cotangent, g->nout, g->in, nin, g->grad, TD_STOP_AT_INPUTS);
  if (status) return status;
  g->nin = nin;
  td_tensor_release(s->lambda);
  s->lambda = td_tensor_retain(g->grad[0]);
  for (size_t i = 0; i < r->nexternals && !status; i++)
    status = td_sweep_add(&s->dexternal[i], g->grad[1 + i]);
  if (s->dtimes) collect_times(s, p, g, n);
  return status;
}

/* lambda at the end of step n becomes lambda at its start. */
static td_status step_back(td_sweep *s, size_t n) {
  replay p = replay_of(s->r, n);
  size_t last = s->next;
  while (s->next > 1 && (s->r->ts[s->next - 1] - p.t0) * p.size > 0) s->next--;
  if (s->next == last && !s->lambda) return TD_OK;  /* after the last saved value of a failed solve */
  step_tape g;
  td_status status = step_tape_new(&g, s, s->next, last);
  if (status) return status;
  uint64_t since = td_tape_now();
  bool was = td_recording;
  td_recording = true;
  status = lift(&p, s->r->solution.steps[n].y, s->dtimes != NULL);
  if (!status) status = record_outputs(s, &p, &g);
  td_recording = was;
  if (!status) status = td_sweep_check(s->r, g.out, g.nout, since, p.t0);
  if (!status) status = pull(s, &p, &g, n);
  step_tape_free(&g);
  return status;
}

td_status td_sweep_discrete(td_sweep *s) {
  td_status status = TD_OK;
  for (size_t n = s->r->solution.nsteps; n-- > 0 && !status;) {
    size_t mark = td_auto_mark();
    status = step_back(s, n);
    td_auto_release(mark);
  }
  for (size_t i = 0; i < s->next && !status; i++)  /* saves at t0 itself */
    status = td_sweep_add(&s->lambda, td_sweep_row(s->dys, i));
  return status;
}

/* ---- The whole grid on one tape ---- */

static td_tensor *time_at(td_tensor *times, size_t i) {
  return td_do(&td_op_select, &(td_attrs){.i = {0, (int64_t)i}}, 1, times);
}

/* Step n from y, and the rows of the save times in it; gives the state at its end. */
static td_tensor *replay_rows(const td_ode_recorded *r, size_t n, td_tensor *y, td_tensor *times,
                              td_tensor **rows, size_t *next) {
  replay p = replay_of(r, n);
  p.y = y;
  if (times) {
    p.t = n == 0 ? time_at(times, 0) : td_auto(td_tensor_number(TD_F64, p.t0, false));
    p.end = ends_solve(&p) ? time_at(times, r->nts - 1) : td_auto(td_tensor_number(TD_F64, p.t1, false));
    p.h = td_sub(p.end, p.t);
    if (!p.h) return NULL;
  }
  td_tensor *y1 = replay_step(&p);
  for (; y1 && *next < r->nt && (r->ts[*next] - p.t1) * p.size <= 0; ++*next) {
    size_t j = *next;
    td_tensor *save = times ? time_at(times, j) : NULL;
    rows[j] = is_end(&p, j, times != NULL) ? y1 : replay_between(&p, y1, r->ts[j], save);
    if (!rows[j]) return NULL;
  }
  return y1;
}

td_tensor *td_replay_all(const td_ode_recorded *r, td_tensor *y, td_tensor *times) {
  td_tensor **rows = td_alloc(r->nt * sizeof *rows), *out[TD_MAX_OUT] = {NULL};
  size_t next = 0;
  if (!rows) return NULL;
  for (; next < r->nt && r->ts[next] == r->ts[0]; next++) rows[next] = y;
  for (size_t n = 0; y && n < r->solution.nsteps && next < r->nt; n++)
    y = replay_rows(r, n, y, times, rows, &next);
  for (size_t i = 0; y && i < r->nt; i++) {
    rows[i] = td_do(&td_op_unsqueeze, &(td_attrs){.i = {0}}, 1, rows[i]);
    if (!rows[i]) y = NULL;
  }
  if (y) td_do_all(&td_op_cat, &(td_attrs){.i = {0}}, (int)r->nt, rows, out);
  td_free(rows, r->nt * sizeof *rows);
  return out[0];
}
