/* The scheduler of a batch, and the batch as one node of the tape. */
#include "solve/batch.h"
#include <string.h>
#include "base/alloc.h"
#include "base/fiber.h"
#include "ops/ops.h"
#include "solve/band.h"
#include "solve/batch_rows.h"
#include "solve/sweep.h"

/* ---- The scheduler ---- */

/* One row's work and what came of it. */
typedef struct {
  td_batch *b;
  size_t row;
  td_status (*work)(td_batch *b, size_t row, void *data);
  void *data;
  td_status status;
} task;

static void run_task(void *p) {
  task *t = p;
  t->status = t->work(t->b, t->row, t->data);
}

/* Rows [b->first, b->end), all waiting requests answered together. After a failure every row is told so and comes to
 * its end; the first failure is the result, its message kept. */
static td_status run_some(td_batch *b, td_status (*work)(td_batch *, size_t, void *), void *data, td_fiber **fibers,
                          task *tasks, td_row_request **list) {
  size_t n = b->end - b->first, left = 0;
  td_status failed = TD_OK;
  for (size_t i = 0; i < n && !failed; i++) {
    tasks[i] = (task){.b = b, .row = b->first + i, .work = work, .data = data};
    fibers[i] = td_fiber_new(run_task, &tasks[i]);
    if (!fibers[i]) failed = td_last_status();
    else left++;
  }
  if (failed) left = 0;
  while (left) {
    for (size_t i = 0; i < n; i++) {
      if (!fibers[i]) continue;
      td_fiber_resume(fibers[i]);
      if (!td_fiber_done(fibers[i])) continue;
      td_fiber_free(fibers[i]);
      fibers[i] = NULL;
      left--;
      if (tasks[i].status && !failed) failed = tasks[i].status;
    }
    if (left) failed = td_rows_answer(b, list, failed);
  }
  for (size_t i = 0; i < n; i++) td_fiber_free(fibers[i]);
  return failed;
}

/* Runs every row's work, as many as go together at a time. */
static td_status run_rows(td_batch *b, td_status (*work)(td_batch *, size_t, void *), void *data) {
  size_t n = b->n;
  td_fiber **fibers = td_alloc((n + 1) * sizeof *fibers);
  task *tasks = td_alloc((n + 1) * sizeof *tasks);
  td_row_request **list = td_alloc((n + 1) * sizeof *list);
  b->requests = td_alloc((n + 1) * sizeof *b->requests);
  td_status s = fibers && tasks && list && b->requests ? TD_OK : td_last_status();
  if (!s) {
    memset(fibers, 0, (n + 1) * sizeof *fibers);
    memset(b->requests, 0, (n + 1) * sizeof *b->requests);
  }
  for (b->first = 0; b->first < n && !s; b->first = b->end) {
    b->end = n - b->first > b->together ? b->first + b->together : n;
    s = run_some(b, work, data, fibers, tasks, list);
  }
  td_free(fibers, (n + 1) * sizeof *fibers);
  td_free(tasks, (n + 1) * sizeof *tasks);
  td_free(list, (n + 1) * sizeof *list);
  td_free(b->requests, (n + 1) * sizeof *b->requests);
  b->requests = NULL;
  return s;
}

/* ---- A batch ---- */

td_batch *td_batch_new(td_batch_field *f, size_t n) {
  td_batch *b = td_alloc(sizeof *b);
  if (!b) {
    td_field_free(&f->base);
    return NULL;
  }
  memset(b, 0, sizeof *b);
  b->refs = 1;
  b->f = f;
  b->n = b->together = n;
  b->fields = td_alloc((n + 1) * sizeof *b->fields);
  b->rows = td_alloc((n + 1) * sizeof *b->rows);
  b->row_of_y = td_alloc(3 * (n + 1) * sizeof *b->row_of_y);
  if (!b->fields || !b->rows || !b->row_of_y) {
    td_batch_free(b);
    return NULL;
  }
  b->row_of_t = b->row_of_y + n + 1;
  b->row_of_hit = b->row_of_t + n + 1;
  memset(b->rows, 0, (n + 1) * sizeof *b->rows);
  for (size_t i = 0; i < n; i++) {
    td_row_field_init(&b->fields[i], b, i, NULL);
    b->rows[i].f = &b->fields[i].base;
    b->rows[i].refs = 1;
  }
  return b;
}

void td_batch_free(void *batch) {
  td_batch *b = batch;
  if (!b || --b->refs > 0) return;
  for (size_t i = 0; b->rows && i < b->n; i++) {
    td_ode_solution_free(&b->rows[i].solution);
    td_free(b->rows[i].ts, b->rows[i].nts * sizeof(double));
    td_free(b->rows[i].events, b->rows[i].nevents * sizeof *b->rows[i].events);
    td_field_drop_kept(&b->fields[i].base);
  }
  for (size_t i = 0; i < b->nproxies; i++) td_field_drop_kept(&b->proxies[i].base);
  for (size_t i = 0; i < b->nevents; i++) {
    td_field_free(b->events[i].value);
    td_field_free(b->events[i].reset);
  }
  td_batch_programs_free(b);
  td_tensor_release(b->mass);
  td_tensor_release(b->semilinear);
  td_pattern_free(b->pattern);
  if (b->precondition_free) b->precondition_free(b->precondition_data);
  if (b->second.free) b->second.free(b->second.data);
  td_free(b->events, b->nevents * sizeof *b->events);
  td_free(b->proxies, b->nproxies * sizeof *b->proxies);
  td_free(b->fields, (b->n + 1) * sizeof *b->fields);
  td_free(b->rows, (b->n + 1) * sizeof *b->rows);
  td_free(b->row_of_y, 3 * (b->n + 1) * sizeof *b->row_of_y);
  td_free(b->versions, b->versions ? (b->f->base.nexternals + 1) * sizeof *b->versions : 0);
  td_field_free(&b->f->base);
  if (b->nfe_free) b->nfe_free(b->nfe_owner);
  td_free(b, sizeof *b);
}

td_status td_batch_set_events(td_batch *b, td_event *events, size_t nevents) {
  b->events = events;
  b->nevents = nevents;
  if (nevents == 0) return TD_OK;
  b->proxies = td_alloc(2 * b->n * nevents * sizeof *b->proxies);
  if (!b->proxies) return td_last_status();
  b->nproxies = 2 * b->n * nevents;
  memset(b->proxies, 0, b->nproxies * sizeof *b->proxies);
  for (size_t i = 0; i < b->n; i++) {
    td_ode_recorded *r = &b->rows[i];
    r->events = td_alloc(nevents * sizeof *r->events);
    if (!r->events) return td_last_status();
    r->nevents = nevents;
    for (size_t j = 0; j < nevents; j++) {
      td_row_field *p = &b->proxies[2 * (i * nevents + j)];
      r->events[j] = events[j];
      events[j].value->row = 1;  /* until one asks */
      if (events[j].reset) events[j].reset->row = 1;
      td_row_field_init(&p[0], b, i, events[j].value);
      if (events[j].reset) td_row_field_init(&p[1], b, i, events[j].reset);
      r->events[j].value = &p[0].base;
      r->events[j].reset = events[j].reset ? &p[1].base : NULL;
    }
    r->o.events = r->events;
    r->o.nevents = nevents;
  }
  return TD_OK;
}

void td_batch_share_options(td_batch *b) {
  for (size_t i = 0; i < b->n; i++) td_row_options(b, i, &b->rows[i].o);
}

/* All fields of the batch see one list of externals, the right-hand side's. */
static void share_externals(td_batch *b) {
  const td_field *all = &b->f->base;
  for (size_t i = 0; i < b->n; i++) {
    b->fields[i].base.externals = all->externals;
    b->fields[i].base.nexternals = all->nexternals;
  }
}

static td_status join_externals(td_field *all, td_field *f) {
  td_status s = TD_OK;
  for (size_t i = 0; f && i < f->nexternals && !s; i++) s = td_field_add_external(all, f->externals[i]);
  return s;
}

td_status td_batch_explore(td_batch *b, const void *y0, void *slopes) {
  td_field *f = &b->f->base;
  size_t bytes = td_row_bytes(b), mark = td_auto_mark();
  td_row_request *all = td_alloc((b->n + 1) * sizeof *all), **list = td_alloc((b->n + 1) * sizeof *list);
  td_tensor *t, *y, *rows, *dy = NULL, **found = NULL;
  size_t count = 0, capacity = 0;
  td_status s = all && list ? TD_OK : td_last_status();
  for (size_t i = 0; i < b->n && !s; i++) {
    all[i] = (td_row_request){.field = &b->fields[i], .t = b->rows[i].ts[0], .y = (const char *)y0 + i * bytes,
                       .out = (char *)slopes + i * bytes};
    list[i] = &all[i];
  }
  if (!s) s = td_rows_gather(b, list, b->n, &t, &y, &rows);
  uint64_t since = td_tape_now();
  if (!s) s = td_rows_call(b, t, y, rows, td_recording, &dy);
  if (!s) s = td_tape_externals(&dy, 1, since, &found, &count, &capacity);
  for (size_t i = 0; i < count; i++) {
    if (!s) s = td_field_add_external(f, found[i]);
    td_tensor_release(found[i]);
  }
  td_free(found, capacity * sizeof *found);
  if (!s) s = td_rows_scatter(f, dy, list, b->n);
  for (size_t i = 0; i < b->nevents && !s; i++) {
    td_event *e = &b->events[i];
    void *room = td_alloc(bytes + 1);
    s = room ? TD_OK : td_last_status();
    if (!s && td_recording && e->value->record) s = td_field_explore(e->value, b->rows[0].ts[0], y0, room);
    if (!s && td_recording && e->reset && e->reset->record) s = td_field_explore(e->reset, b->rows[0].ts[0], y0, room);
    td_free(room, bytes + 1);
    if (!s) s = join_externals(f, e->value);
    if (!s) s = join_externals(f, e->reset);
  }
  for (size_t i = 0; i < b->nevents && !s; i++) {
    s = td_field_share_externals(b->events[i].value, f);
    if (!s && b->events[i].reset) s = td_field_share_externals(b->events[i].reset, f);
  }
  share_externals(b);
  td_free(all, (b->n + 1) * sizeof *all);
  td_free(list, (b->n + 1) * sizeof *list);
  td_auto_release(mark);
  return s;
}

static td_status integrate_row(td_batch *b, size_t i, void *data) {
  td_ode_recorded *r = &b->rows[i];
  const char *y0 = (const char *)data + i * td_row_bytes(b);
  return td_ode_integrate(r->f, y0, r->ts, r->nt, &r->o, &r->solution);
}

td_status td_batch_integrate(td_batch *b, const void *y0) { return run_rows(b, integrate_row, (void *)y0); }

/* ---- Results ---- */

/* Rows of all rows under one another: count[i] of them from data(i). */
static td_tensor *stacked(td_batch *b, const size_t *begin) {
  const td_field *f = &b->f->base;
  size_t shape[TD_MAX_DIMS] = {begin[b->n]};
  memcpy(shape + 1, f->shape, sizeof(size_t) * (size_t)f->ndim);
  return td_tensor_new(f->dtype, f->ndim + 1, shape);
}

td_status td_batch_results(td_batch *b, td_tensor **out, int *nout) {
  size_t bytes = td_row_bytes(b);
  b->row_of_y[0] = b->row_of_hit[0] = b->row_of_t[0] = 0;
  for (size_t i = 0; i < b->n; i++) {
    td_ode_recorded *r = &b->rows[i];
    r->given = r->nts;
    if (r->o.every && td_ode_take_nodes(r)) return td_last_status();
    if (!r->nodes) r->nt = r->solution.reached - r->solution.event_row;
    b->row_of_y[i + 1] = b->row_of_y[i] + (r->nodes ? r->nt : r->solution.reached);
    b->row_of_t[i + 1] = b->row_of_t[i] + r->given;
    b->row_of_hit[i + 1] = b->row_of_hit[i] + r->solution.events.nhits;
  }
  *nout = b->nevents ? 4 : 1;
  out[0] = stacked(b, b->row_of_y);
  out[1] = b->nevents ? td_tensor_new(TD_F64, 1, &b->row_of_hit[b->n]) : NULL;
  out[2] = b->nevents ? stacked(b, b->row_of_hit) : NULL;
  out[3] = b->nevents ? stacked(b, b->row_of_hit) : NULL;
  for (int i = 0; i < *nout; i++)
    if (!out[i]) return td_last_status();
  for (size_t i = 0; i < b->n; i++) {
    td_ode_recorded *r = &b->rows[i];
    td_ode_solution *s = &r->solution;
    size_t count = b->row_of_y[i + 1] - b->row_of_y[i];
    if (bytes && count)
      memcpy(out[0]->data + b->row_of_y[i] * bytes, r->nodes ? s->every_y : s->ys->data, count * bytes);
    if (td_ode_is_discrete(r->mode)) {  /* others start from them */
      td_tensor_release(s->ys);
      s->ys = NULL;
    }
    for (size_t j = 0; j < s->events.nhits; j++) {
      size_t at = b->row_of_hit[i] + j;
      td_tensor_set(out[1], at, s->events.hits[j].t);
      memcpy(out[2]->data + at * bytes, s->events.hits[j].before, bytes);
      memcpy(out[3]->data + at * bytes, s->events.hits[j].after, bytes);
    }
  }
  return TD_OK;
}

/* ---- The node ---- */

enum { Y0 = 0, TIMES = 1, EXTERNALS = 2 };

static uint32_t version_of(const td_tensor *t) { return t->storage ? t->storage->version : 0; }

/* The cotangent rows from `begin` on of a result; automatic, NULL when there are none. */
static td_tensor *part(td_tensor *x, const size_t *begin, size_t i) {
  if (!x) return NULL;
  size_t shape[TD_MAX_DIMS], count = begin[i + 1] - begin[i], each = x->shape[0] ? x->numel / x->shape[0] : 0;
  memcpy(shape, x->shape, sizeof shape);
  shape[0] = count;
  return td_auto(td_tensor_view(x, x->ndim, shape, x->stride, begin[i] * each));
}

static td_status sweep_row(td_batch *b, size_t i, void *data) {
  td_sweep *w = &((td_sweep *)data)[i];
  return td_ode_is_discrete(b->rows[i].mode) ? td_sweep_discrete(w) : td_sweep_backsolve(w);
}

static td_status sweep_all(td_batch *b, td_rule *rule, td_sweep *sweeps, td_tensor **dexternal, double *dtimes) {
  td_tensor *dout[4] = {NULL};
  for (int i = 0; i < rule->nout; i++)
    if (rule->dout[i] && !(dout[i] = td_auto(td_tensor_contiguous(rule->dout[i])))) return td_last_status();
  if (!dout[0]) dout[0] = td_auto(td_tensor_zeros(b->f->base.dtype, 1,
                                                  (const size_t[]){b->row_of_y[b->n] * b->f->base.numel + 1}));
  td_tensor *y0 = td_auto(td_tensor_contiguous(rule->in[Y0]));
  if (!dout[0] || !y0) return td_last_status();
  for (size_t i = 0; i < b->n; i++) {
    td_sweep *w = &sweeps[i];
    size_t offset = b->row_of_y[i] * b->f->base.numel;
    *w = (td_sweep){.r = &b->rows[i], .y0 = y0->data + i * td_row_bytes(b), .next = b->rows[i].nt, .dexternal = dexternal,
                    .dtimes = dtimes ? dtimes + b->row_of_t[i] : NULL};
    w->dys = td_auto(td_tensor_view(dout[0], 1, &(size_t){dout[0]->numel - offset}, &(size_t){1}, offset));
    if (!w->dys) return td_last_status();
    for (int j = 1; j < 4; j++) w->dout[j] = part(dout[j], b->row_of_hit, i);
  }
  return run_rows(b, sweep_row, sweeps);
}

/* What the rows' sweeps found, as cotangents of the operands. */
static void hand_over(td_batch *b, td_rule *rule, td_sweep *sweeps, td_tensor **dexternal, const double *dtimes) {
  size_t bytes = td_row_bytes(b);
  td_tensor *dy0 = td_auto(td_tensor_zeros(b->f->base.dtype, rule->in[Y0]->ndim, rule->in[Y0]->shape));
  for (size_t i = 0; dy0 && i < b->n; i++)
    if (sweeps[i].lambda && bytes) memcpy(dy0->data + i * bytes, sweeps[i].lambda->data, bytes);
  rule->din[Y0] = dy0;
  for (size_t i = 0; i < b->f->base.nexternals; i++)
    rule->din[EXTERNALS + i] = td_auto(td_tensor_retain(dexternal[i]));
  if (!dtimes) return;
  td_tensor *dt = td_auto(td_tensor_zeros(TD_F64, 1, &b->row_of_t[b->n]));
  for (size_t i = 0; dt && i < b->row_of_t[b->n]; i++) td_tensor_set(dt, i, dtimes[i]);
  rule->din[TIMES] = dt;
}

static void reverse(td_rule *rule) {
  td_batch *b = rule->data;
  size_t ne = b->f->base.nexternals, nt = b->row_of_t[b->n] + 2;
  for (size_t i = 0; i < ne; i++)
    if (version_of(b->f->base.externals[i]) != b->versions[i]) {
      td_fail(TD_EGRAD, "ode.solve: a tensor of shape (%s) that the right-hand side uses was written in place after "
              "the solve; its gradient is lost", td_tensor_shape_string(b->f->base.externals[i]));
      return;
    }
  td_sweep *sweeps = td_alloc((b->n + 1) * sizeof *sweeps);
  td_tensor **dexternal = td_alloc((ne + 1) * sizeof *dexternal);
  double *dtimes = rule->need[TIMES] ? td_alloc(nt * sizeof *dtimes) : NULL;
  if (sweeps && dexternal && (dtimes || !rule->need[TIMES])) {
    memset(sweeps, 0, (b->n + 1) * sizeof *sweeps);
    memset(dexternal, 0, (ne + 1) * sizeof *dexternal);
    if (dtimes) memset(dtimes, 0, nt * sizeof *dtimes);
    if (!sweep_all(b, rule, sweeps, dexternal, dtimes)) hand_over(b, rule, sweeps, dexternal, dtimes);
    for (size_t i = 0; i < b->n; i++) td_tensor_release(sweeps[i].lambda);
    for (size_t i = 0; i < ne; i++) td_tensor_release(dexternal[i]);
  }
  td_free(sweeps, (b->n + 1) * sizeof *sweeps);
  td_free(dexternal, (ne + 1) * sizeof *dexternal);
  td_free(dtimes, dtimes ? nt * sizeof *dtimes : 0);
}

/* With recording on the pass itself must be differentiable. */
static void batch_vjp(td_rule *rule) {
  td_batch *b = rule->data;
  if (!td_recording) {
    reverse(rule);
    return;
  }
  if (b->rows[0].mode != TD_ODE_DISCRETE) {
    td_fail(TD_EGRAD, "ode.solve: a second derivative of a solve needs grad = \"discrete\" or \"forward\"");
    return;
  }
  if (!b->second.run || rule->need[TIMES]) {
    td_fail(TD_EGRAD, "ode.solve: a batch has no second derivatives %s; solve its rows one by one",
            rule->need[TIMES] ? "by times" : "of this kind");
    return;
  }
  td_ode_second_reverse(&b->second, rule, &b->f->base, reverse);
}

static const td_op batch_op = {.name = "ode.solve", .vjp = batch_vjp, .keep = TD_KEEP_IN(Y0) | TD_KEEP_IN(TIMES)};

td_status td_batch_record(td_batch *b, td_tensor *const *out, int nout, td_tensor *y0, td_tensor *times) {
  size_t ne = b->f->base.nexternals;
  td_tensor **in = td_alloc((EXTERNALS + ne) * sizeof *in);
  b->versions = td_alloc((ne + 1) * sizeof *b->versions);
  if (!in || !b->versions) {
    td_free(in, (EXTERNALS + ne) * sizeof *in);
    td_batch_free(b);
    return td_last_status();
  }
  in[Y0] = y0;
  in[TIMES] = times;
  for (size_t i = 0; i < ne; i++) {
    in[EXTERNALS + i] = b->f->base.externals[i];
    b->versions[i] = version_of(in[EXTERNALS + i]);
  }
  for (size_t i = 0; i < b->n; i++) b->rows[i].nfe_backward = b->nfe_backward;
  td_status s = td_tape_custom(&batch_op, in, (int)(EXTERNALS + ne), out, nout, b, td_batch_free);
  td_free(in, (EXTERNALS + ne) * sizeof *in);
  return s;
}
