/* The exact derivative of the computed map on its frozen grid: the accepted steps are come back to, newest first, and
 * each is transposed by its method. The step-size control is not differentiated, and the nodes of the grid are
 * constants but for the two ends. For second derivatives the whole grid is replayed on one tape, and that is
 * differentiated. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"
#include "solve/captured.h"
#include "solve/sweep.h"

/* Does step n end at t1 of the solve? A failed solve has no such step. */
static bool ends_solve(const td_ode_recorded *r, size_t n) {
  return !r->solution.path.steps[n].is_cut && n + 1 == r->solution.path.n && r->nt == r->nts &&
         r->solution.path.steps[n].end == r->ts[r->nts - 1];
}

/* Is the value at save time j simply that of step n's end? When times are differentiated only that of the last time
 * is: another save time that falls on a node moves along the extension, whose nodes stay. */
static bool is_end(const td_ode_recorded *r, size_t n, size_t j, bool times) {
  const td_ode_step *step = &r->solution.path.steps[n];
  return r->nodes || (!step->is_cut && r->ts[j] == step->end && (!times || (ends_solve(r, n) && j + 1 == r->nt)));
}

/* ---- One step back ---- */

/* The reverse sweep under way. */
typedef struct {
  td_sweep *w;
  td_stepper s;
  td_step_counts counts;
  uint64_t replayed;
  char *lambda;             /* cotangent of the kept state */
  size_t lambda_bytes;
  bool live;                /* lambda is not all zero */
  const void **dense_w;     /* room for the values inside one step */
  double *theta, *theta_bar;
  size_t room;              /* of them */
  size_t next_hit;          /* events before this one are still to be passed */
  double tau0;              /* dL/dt of the start of the segment that was passed last, when an event set it */
  char *event_block;        /* cotangents at the events of one step, and rooms */
  size_t event_bytes;
} sweep;

static const char *row(const sweep *v, size_t j) { return v->w->dys->data + j * v->s.bytes; }

static void add_to_lambda(sweep *v, const void *w, double factor) {
  td_stepper_combine(&v->s, v->lambda, v->lambda, 1, &factor, &w);
  v->live = true;
}

/* Cotangents of saves at the step's end join lambda; those inside are listed. Gives their number. */
static size_t take_saves(sweep *v, size_t n, size_t first, size_t last) {
  const td_ode_recorded *r = v->w->r;
  const td_ode_step *step = &r->solution.path.steps[n];
  size_t count = 0;
  for (size_t j = first; j < last; j++) {
    if (is_end(r, n, j, v->w->dtimes != NULL)) {
      add_to_lambda(v, row(v, j), 1);
      continue;
    }
    v->theta[count] = (r->ts[j] - step->t) / (step->end - step->t);
    v->dense_w[count++] = row(v, j);
  }
  return count;
}

/* Events in the step become values inside it, with what comes through them as cotangents. */
static td_status pull_events(sweep *v, size_t n, size_t hits, td_step_back *b) {
  const td_ode_recorded *r = v->w->r;
  const td_ode_step *step = &r->solution.path.steps[n];
  const td_event_list *list = &r->solution.events;
  td_tensor *const *dout = v->w->dout;
  size_t bytes = v->s.bytes;
  td_step_result result;
  td_status status = td_stepper_step(&v->s, step->end, step->before_jump, &result);
  v->event_bytes = (hits + 4) * bytes + 1;
  if (!status && !(v->event_block = td_alloc(v->event_bytes))) status = td_last_status();
  if (status) return status;
  char *slope = v->event_block + hits * bytes, *after = slope + bytes, *room = after + bytes;
  for (size_t i = 0; i < hits && !status; i++) {
    size_t at = v->next_hit - hits + i;
    const td_event_hit *hit = &list->hits[at];
    char *w = v->event_block + i * bytes;
    bool goes_on = hit->cuts && !(r->solution.event_row && n + 1 == r->solution.path.n);
    double one = 1;
    memset(w, 0, bytes);
    memset(after, 0, bytes);
    if (goes_on) memcpy(after, v->lambda, bytes);
    if (hit->cuts) memset(v->lambda, 0, v->lambda_bytes);
    if (hit->cuts && !goes_on)  /* the last row is the state after */
      td_stepper_combine(&v->s, after, after, 1, &one, (const void *[]){row(v, r->nt)});
    if (dout[2]) td_stepper_combine(&v->s, w, w, 1, &one, (const void *[]){dout[2]->data + at * bytes});
    if (dout[3]) td_stepper_combine(&v->s, after, after, 1, &one, (const void *[]){dout[3]->data + at * bytes});
    td_event_pass pass = {.s = &v->s, .tau = dout[1] ? td_tensor_get(dout[1], at) : 0,
                          .tau0 = goes_on ? v->tau0 : 0, .after = after, .slope = slope,
                          .dexternal = v->w->dexternal, .room = room};
    status = v->s.method->family->dense(&v->s, hit->theta, NULL, slope);
    if (!status) status = td_event_pull(&r->events[hit->which], hit, &pass, w);
    v->theta[b->ndense] = hit->theta;
    v->dense_w[b->ndense++] = w;
  }
  v->next_hit -= hits;
  return status;
}

/* Gradients of the times that move: the solve's two ends, the step's start when an event set it, and save times inside
 * the step, which come first among the values. θ = (τ − t)/(end − t). */
static void collect_times(sweep *v, const td_step_back *b, size_t n, size_t first, size_t last) {
  const td_ode_recorded *r = v->w->r;
  double *dtimes = v->w->dtimes, h = v->s.end - v->s.t, start = b->tbar ? *b->tbar - *b->hbar : 0, stop = 0;
  size_t end = r->nodes ? r->given - 1 : r->nt - 1;
  for (size_t i = 0; i < b->ndense && b->theta_bar; i++) {
    start -= b->theta_bar[i] / h * (1 - b->theta[i]);
    stop -= b->theta_bar[i] / h * b->theta[i];
  }
  v->tau0 = start;
  if (!dtimes) return;
  if (n == 0) dtimes[0] += start;
  if (ends_solve(r, n)) dtimes[end] += (b->hbar ? *b->hbar : 0) + stop;
  for (size_t j = first, i = 0; j < last; j++)
    if (!is_end(r, n, j, true)) dtimes[j] += b->theta_bar[i++] / h;
}

/* How many events lie in step n, the last ones not yet passed. */
static size_t count_hits(const sweep *v, size_t n) {
  size_t count = 0;
  while (count < v->next_hit && v->w->r->solution.events.hits[v->next_hit - 1 - count].step == n) count++;
  return count;
}

/* Straight lines between the ends instead of the extension. */
static td_status linear_back(sweep *v, td_step_back *b) {
  const td_family *family = v->s.method->family;
  size_t count = b->ndense;
  if (v->w->dtimes) return td_fail(TD_EGRAD, "ode.solve: interp = \"linear\" has no gradient of times");
  for (size_t i = 0; i < count; i++) add_to_lambda(v, b->w[i], b->theta[i]);
  b->ndense = 0;
  td_status status = family->back(&v->s, b);
  for (size_t i = 0; i < count && !status; i++) add_to_lambda(v, b->w[i], 1 - b->theta[i]);
  return status;
}

/* The kept state at the end of step n, which s holds, becomes that at its start. */
static td_status undo(sweep *v, size_t n) {
  const td_ode_step *step = &v->w->r->solution.path.steps[n];
  td_stepper *s = &v->s;
  if (n > 0 && step->restart)
    return td_fail(TD_EGRAD, "ode.solve: grad = \"reversible\" cannot go back over a jump or an event at t=%g; use "
                   "\"discrete\"", step->t);
  s->t = s->first_time = step->t;
  s->end = step->end;
  s->last_time = step->before_jump ? nextafter(step->end, step->t) : step->end;
  s->have_f0 = s->have_f1 = false;
  v->replayed++;
  return s->method->family->undo(s);
}

/* lambda at the end of step n becomes lambda at its start. */
static td_status step_back(sweep *v, size_t n) {
  td_sweep *w = v->w;
  const td_ode_recorded *r = w->r;
  td_trajectory *path = (td_trajectory *)&r->solution.path;
  const td_ode_step *step = &path->steps[n];
  size_t last = w->next;
  bool reversible = r->mode == TD_ODE_REVERSIBLE;
  td_status status = reversible ? undo(v, n) : TD_OK;
  if (status) return status;
  while (w->next > 1 && (r->ts[w->next - 1] - step->t) * (step->end - step->t) > 0) w->next--;
  size_t hits = count_hits(v, n);
  if (w->next == last && !v->live && !hits) return TD_OK;  /* after the last saved value of a failed solve */
  if (!reversible) status = td_trajectory_seek(path, &v->s, n, &v->replayed);
  if (status) return status;
  v->s.end = step->end;
  v->s.last_time = step->before_jump ? nextafter(step->end, step->t) : step->end;
  double tbar = 0, hbar = 0;
  bool timed = w->dtimes || step->pinned;
  bool moves = step->pinned || (w->dtimes && (n == 0 || ends_solve(r, n)));
  td_step_back b = {.lambda = v->lambda, .ndense = take_saves(v, n, w->next, last), .theta = v->theta,
                    .w = v->dense_w, .theta_bar = timed ? v->theta_bar : NULL, .tbar = moves ? &tbar : NULL,
                    .hbar = moves ? &hbar : NULL, .dexternal = w->dexternal};
  /* At a jump one place held both slopes, that from before, which values inside the step read, and that from after. */
  b.held = (n == 0 || !step->restart) && !(step->before_jump && b.ndense);
  v->s.number = n;
  v->live = true;
  if (hits) status = pull_events(v, n, hits, &b);
  v->s.f->time_wanted = moves;
  if (status) return status;
  if (r->o.linear && b.ndense) status = linear_back(v, &b);
  else status = v->s.method->family->back(&v->s, &b);
  if (!status && step->restart && v->s.method->family->start_back)
    status = v->s.method->family->start_back(&v->s, &b);
  if (!status && timed) collect_times(v, &b, n, w->next, last);
  td_free(v->event_block, v->event_bytes);
  v->event_block = NULL;
  return status;
}

/* Does nothing but a plain step lie between the ends of step n? */
static bool is_plain(const sweep *v, size_t n) {
  const td_sweep *w = v->w;
  const td_ode_step *step = &w->r->solution.path.steps[n];
  bool save = w->next > 1 && (w->r->ts[w->next - 1] - step->t) * (step->end - step->t) > 0;
  return step->state && !step->before_jump && !step->after_jump && !step->pinned && !step->is_cut && !save;
}

/* Plain steps before step *n, newest first, by one call of the field when it can; *n becomes the first of them. */
static td_status march_back(sweep *v, size_t *n) {
  const td_ode_recorded *r = v->w->r;
  const td_family *family = v->s.method->family;
  size_t first = *n;
  bool done = false;
  if (!r->f->march_back || !family->describe || r->mode != TD_ODE_DISCRETE || !v->live || v->w->dtimes || v->next_hit)
    return TD_OK;
  while (first > 0 && is_plain(v, first - 1)) first--;
  if (first == *n) return TD_OK;
  td_field_method m;
  family->describe(&v->s, &m);
  td_status status =
      r->f->march_back(r->f, &m, r->solution.path.steps + first, *n - first, v->lambda, v->w->dexternal, &done);
  if (!done) return status;
  td_field_let_go(r->f);
  v->counts.nfe += (uint64_t)m.needed * (*n - first);
  *n = first;
  return status;
}

static td_status sweep_room(sweep *v) {
  size_t nt = v->room = v->w->r->nt + v->w->r->solution.events.nhits;
  v->next_hit = v->w->r->solution.events.nhits;
  v->lambda_bytes = (1 + v->s.most_history) * v->s.bytes;
  v->lambda = td_alloc(v->lambda_bytes);
  v->dense_w = td_alloc(nt * sizeof *v->dense_w);
  v->theta = td_alloc(2 * nt * sizeof *v->theta);
  if (!v->lambda || !v->dense_w || !v->theta) return td_last_status();
  v->theta_bar = v->theta + nt;
  memset(v->lambda, 0, v->lambda_bytes);
  return TD_OK;
}

/* Saves at t0 itself. Those after the first one, which y0 is, would move along the first slope. */
static td_status take_first(sweep *v) {
  td_sweep *w = v->w;
  td_field *f = w->r->f;
  for (size_t i = 0; i < w->next; i++) add_to_lambda(v, row(v, i), 1);
  if (!w->dtimes || w->next < 2) return TD_OK;
  char *slope = td_alloc(v->s.bytes + 1);
  td_status status = slope ? f->eval(f, w->r->ts[0], w->y0, slope) : td_last_status();
  v->counts.nfe++;
  for (size_t i = 1; i < w->next && !status; i++) {
    double along = td_stepper_dot(&v->s, row(v, i), slope);
    w->dtimes[i] += along;
    w->dtimes[0] -= along;
  }
  td_free(slope, v->s.bytes + 1);
  return status;
}

static td_status sweep_steps(sweep *v) {
  td_sweep *w = v->w;
  const td_ode_recorded *r = w->r;
  td_status status = sweep_room(v);
  if (!status && r->mode == TD_ODE_REVERSIBLE)
    status = td_stepper_load(&v->s, r->solution.stats.t_last, r->solution.path.last);
  for (size_t n = r->solution.path.n; n > 0 && !status;) {
    size_t mark = td_auto_mark(), from = n;
    status = march_back(v, &n);
    if (!status && n == from) status = step_back(v, --n);
    td_auto_release(mark);
  }
  td_field_let_go(r->f);
  if (!status) status = take_first(v);
  if (status) return status;
  w->lambda = td_tensor_new(r->f->dtype, r->f->ndim, r->f->shape);
  if (!w->lambda) return td_last_status();
  if (v->s.bytes) memcpy(w->lambda->data, v->lambda, v->s.bytes);
  return TD_OK;
}

td_status td_sweep_discrete(td_sweep *w) {
  const td_ode_recorded *r = w->r;
  if (!r->o.method->family->back)
    return td_fail(TD_EGRAD, "ode.solve: method %s has no discrete gradient; use grad = \"forward\" or \"interp\", or "
                   "another method", r->o.method->name);
  sweep v = {.w = w};
  td_status status = td_stepper_make(&v.s, r->o.method, &r->o, r->f, &v.counts);
  if (!status) status = sweep_steps(&v);
  if (r->nfe_backward) {
    r->nfe_backward[0] += v.counts.nfe;
    r->nfe_backward[1] += v.replayed;
  }
  td_free(v.lambda, v.lambda_bytes);
  td_free(v.dense_w, v.room * sizeof *v.dense_w);
  td_free(v.theta, 2 * v.room * sizeof *v.theta);
  td_free(v.event_block, v.event_bytes);
  td_stepper_free(&v.s);
  return status;
}

/* ---- The whole grid on one tape ---- */

static td_tensor *time_at(td_tensor *times, size_t i) {
  return td_do(&td_op_select, &(td_attrs){.i = {0, (int64_t)i}}, 1, times);
}

/* Step n's times as tensors. */
static td_status record_times(const td_ode_recorded *r, size_t n, td_tensor *times, td_step_record *p) {
  const td_ode_step *step = &r->solution.path.steps[n];
  p->t = n == 0 ? time_at(times, 0) : td_auto(td_tensor_number(TD_F64, step->t, false));
  p->end = ends_solve(r, n) ? time_at(times, r->nodes ? r->given - 1 : r->nts - 1)
                            : td_auto(td_tensor_number(TD_F64, step->end, false));
  p->h = td_sub(p->end, p->t);
  return p->h ? TD_OK : td_last_status();
}

/* The replay of the whole grid under way. */
typedef struct {
  const td_ode_recorded *r;
  td_stepper s;
  td_tensor *times;
  td_tensor **rows, **dense, **shift;
  double *theta;
  size_t next;
} replay;

/* Which save times lie inside step n, as θ and, when times are differentiated, how it moves. */
static td_status list_saves(replay *v, size_t n, td_step_record *p) {
  const td_ode_recorded *r = v->r;
  const td_ode_step *step = &r->solution.path.steps[n];
  double h = step->end - step->t;
  for (size_t j = v->next; j < r->nt && (r->ts[j] - step->end) * h <= 0; j++) {
    if (is_end(r, n, j, v->times != NULL)) continue;
    double theta = v->theta[p->ndense] = (r->ts[j] - step->t) / h;
    if (v->times) {
      v->shift[p->ndense] = td_sub(td_div(td_sub(time_at(v->times, j), p->t), p->h), td_num(theta));
      if (!v->shift[p->ndense]) return td_last_status();
    }
    p->ndense++;
  }
  return TD_OK;
}

/* Step n from y, and the rows of the save times in it; gives the state at its end. */
static td_tensor *replay_rows(replay *v, size_t n, td_tensor *y) {
  const td_ode_recorded *r = v->r;
  const td_ode_step *step = &r->solution.path.steps[n];
  td_step_record p = {.y = y, .theta = v->theta, .shift = v->times ? v->shift : NULL, .dense = v->dense};
  v->s.t = step->t;
  v->s.first_time = step->after_jump ? nextafter(step->t, step->end) : step->t;
  v->s.end = step->end;
  v->s.last_time = step->before_jump ? nextafter(step->end, step->t) : step->end;
  if (v->times && record_times(r, n, v->times, &p)) return NULL;
  if (list_saves(v, n, &p) || v->s.method->family->record(&v->s, &p)) return NULL;
  size_t i = 0;
  for (; v->next < r->nt && (r->ts[v->next] - step->end) * (step->end - step->t) <= 0; v->next++)
    v->rows[v->next] = is_end(r, n, v->next, v->times != NULL) ? p.y1 : v->dense[i++];
  return p.y1;
}

static td_tensor *replay_grid(replay *v, td_tensor *y) {
  const td_ode_recorded *r = v->r;
  td_tensor *out[TD_MAX_OUT] = {NULL};
  for (; v->next < r->nt && r->ts[v->next] == r->ts[0]; v->next++) v->rows[v->next] = y;
  for (size_t n = 0; y && n < r->solution.path.n && v->next < r->nt; n++) y = replay_rows(v, n, y);
  for (size_t i = 0; y && i < r->nt; i++) {
    v->rows[i] = td_do(&td_op_unsqueeze, &(td_attrs){.i = {0}}, 1, v->rows[i]);
    if (!v->rows[i]) y = NULL;
  }
  if (y) td_do_all(&td_op_cat, &(td_attrs){.i = {0}}, (int)r->nt, v->rows, out);
  return out[0];
}

td_tensor *td_replay_all(const td_ode_recorded *r, td_tensor *y, td_tensor *times) {
  if (!r->o.method->family->record || r->o.linear) {
    td_fail(TD_EGRAD, "ode.solve: method %s has no second derivatives", r->o.method->name);
    return NULL;
  }
  td_step_counts counts = {0};
  replay v = {.r = r, .times = times};
  td_tensor *ys = NULL;
  v.rows = td_alloc(3 * r->nt * sizeof *v.rows);
  v.theta = td_alloc(r->nt * sizeof *v.theta);
  td_status status = v.rows && v.theta ? td_stepper_make(&v.s, r->o.method, &r->o, r->f, &counts) : td_last_status();
  if (!status) {
    v.dense = v.rows + r->nt;
    v.shift = v.dense + r->nt;
    ys = replay_grid(&v, y);
    td_stepper_free(&v.s);
  }
  if (r->nfe_backward) r->nfe_backward[0] += counts.nfe;
  td_free(v.rows, 3 * r->nt * sizeof *v.rows);
  td_free(v.theta, r->nt * sizeof *v.theta);
  return ys;
}
