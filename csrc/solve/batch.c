/* The scheduler of a batch, and the batch as one node of the tape. */
#include "solve/batch.h"
#include <string.h>
#include "base/alloc.h"
#include "base/fiber.h"
#include "ops/ops.h"
#include "solve/sweep.h"

/* ---- Asking ---- */

typedef enum { NOTHING, EVAL, VJP, VJP_ALL, JACOBIAN } kind;  /* VJP_ALL: of the externals too */

typedef struct request {
  kind kind;
  td_row_field *field;
  double t;
  const void *y, *w;
  void *out;
  double *tbar;         /* of a Jacobian: where ∂f/∂t goes */
  td_tensor **dexternal;
  td_status status;
} request;

/* Waits until the scheduler has done it. */
static td_status ask(td_row_field *f, request r) {
  request *mine = &f->batch->requests[f->row];
  *mine = r;
  mine->field = f;
  td_fiber_wait();
  mine->kind = NOTHING;
  return mine->status;
}

static td_status row_eval(td_field *self, double t, const void *y, void *dy) {
  return ask((td_row_field *)self, (request){.kind = EVAL, .t = t, .y = y, .out = dy});
}

static td_status row_vjp(td_field *self, double t, const void *y, const void *w, void *ybar, double *tbar,
                         td_tensor **dexternal) {
  return ask((td_row_field *)self,
             (request){.kind = dexternal ? VJP_ALL : VJP, .t = t, .y = y, .w = w, .out = ybar, .tbar = tbar, .dexternal = dexternal});
}

static td_status row_jacobian(td_field *self, double t, const void *y, double *jacobian, double *ft) {
  return ask((td_row_field *)self, (request){.kind = JACOBIAN, .t = t, .y = y, .out = jacobian, .tbar = ft});
}

static void no_free(td_field *f) { (void)f; }

static void row_field_init(td_row_field *r, td_batch *b, size_t row, td_field *solo) {
  const td_field *like = &b->f->base;
  *r = (td_row_field){.base = {.who = like->who, .kind = like->kind, .dtype = like->dtype, .ndim = like->ndim,
                               .numel = like->numel, .eval = row_eval, .vjp = row_vjp, .free = no_free},
                      .batch = b, .row = row, .solo = solo};
  memcpy(r->base.shape, like->shape, sizeof like->shape);
  if (!solo) {
    r->base.jacobian = row_jacobian;
    r->base.jacobian_calls = true;
  }
  if (solo && !solo->vjp && !solo->record && !solo->keep) r->base.vjp = NULL;
}

/* ---- Answering ---- */

static size_t bytes_of(const td_field *f) { return f->numel * td_dtype_size(f->dtype); }

/* Tensors of the b requests in `list`: times, states, row numbers; automatic. */
static td_status gather(td_batch *b, request *const *list, size_t count, td_tensor **t, td_tensor **y, td_tensor **rows) {
  const td_field *f = &b->f->base;
  size_t shape[TD_MAX_DIMS] = {count}, ones[TD_MAX_DIMS] = {count}, bytes = bytes_of(f);
  for (int i = 0; i < f->ndim; i++) {
    shape[i + 1] = f->shape[i];
    ones[i + 1] = 1;
  }
  *t = td_auto(td_tensor_new(TD_F64, f->ndim + 1, ones));
  *y = td_auto(td_tensor_new(f->dtype, f->ndim + 1, shape));
  *rows = td_auto(td_tensor_new(TD_I64, 1, ones));
  if (!*t || !*y || !*rows) return td_last_status();
  for (size_t i = 0; i < count; i++) {
    ((double *)(void *)(*t)->data)[i] = list[i]->t;
    ((int64_t *)(void *)(*rows)->data)[i] = (int64_t)list[i]->field->row + 1;
    if (bytes) memcpy((*y)->data + i * bytes, list[i]->y, bytes);
  }
  return TD_OK;
}

static td_status call_rows(td_batch *b, td_tensor *t, td_tensor *y, td_tensor *rows, bool recording, td_tensor **dy) {
  bool was = td_recording;
  td_recording = recording;
  *dy = NULL;
  td_status s = b->f->record_rows(b->f, t, y, rows, dy);
  td_recording = was;
  td_auto(*dy);
  return s;
}

/* Row i of a tensor's values, contiguous and in f's type, into each request's out; NULL is zero. */
static td_status scatter(const td_field *f, td_tensor *x, request *const *list, size_t count) {
  size_t bytes = bytes_of(f);
  td_tensor *flat = x;
  if (x && (x->dtype != f->dtype || !td_tensor_is_contiguous(x))) {
    flat = td_auto(td_tensor_new(f->dtype, x->ndim, x->shape));
    if (!flat || td_tensor_copy(flat, x)) return td_last_status();
  }
  for (size_t i = 0; i < count && bytes; i++) {
    if (flat) memcpy(list[i]->out, flat->data + i * bytes, bytes);
    else memset(list[i]->out, 0, bytes);
  }
  return TD_OK;
}

static td_status answer_evals(td_batch *b, request *const *list, size_t count) {
  td_tensor *t, *y, *rows, *dy;
  td_status s = gather(b, list, count, &t, &y, &rows);
  if (!s) s = call_rows(b, t, y, rows, false, &dy);
  return s ? s : scatter(&b->f->base, dy, list, count);
}

/* Everything recorded since that dy depends on must be a known external. */
static td_status check_known(td_batch *b, td_tensor *dy, uint64_t since) {
  td_tensor **found;
  size_t count, capacity;
  td_status s = td_tape_externals(&dy, 1, since, &found, &count, &capacity);
  for (size_t i = 0; i < count; i++) {
    bool known = false;
    for (size_t j = 0; j < b->f->base.nexternals; j++)
      known |= b->f->base.externals[j]->node == found[i]->node && b->f->base.externals[j]->slot == found[i]->slot;
    if (!s && !known)
      s = td_fail(TD_EGRAD, "ode.solve: the right-hand side uses a tensor of shape (%s) that needs a gradient, but not "
                  "at the start; name it in the option params", td_tensor_shape_string(found[i]));
    td_tensor_release(found[i]);
  }
  td_free(found, capacity * sizeof *found);
  return s;
}

/* f of all rows on one tape. */
typedef struct {
  td_tensor *t, *y, *dy, *w;
} taped;

static td_status record_all(td_batch *b, request *const *list, size_t count, bool timed, taped *g) {
  td_tensor *rows;
  td_status s = gather(b, list, count, &g->t, &g->y, &rows);
  uint64_t since = td_tape_now();
  if (!s) s = td_requires_grad(g->y, true);
  if (!s && timed) s = td_requires_grad(g->t, true);
  if (!s) s = call_rows(b, g->t, g->y, rows, true, &g->dy);
  if (!s) s = check_known(b, g->dy, since);
  if (s) return s;
  g->w = td_auto(td_tensor_zeros(g->y->dtype, g->y->ndim, g->y->shape));
  return g->w ? TD_OK : td_last_status();
}

/* Products of the rows' cotangents with their Jacobians, and, when all is set, with those of the externals. */
static td_status pull_rows(td_batch *b, request *const *list, size_t count, bool all, td_tensor **in, td_tensor **grad) {
  const td_field *f = &b->f->base;
  size_t bytes = bytes_of(f), n = 2 + (all ? f->nexternals : 0);
  bool timed = false;
  for (size_t i = 0; i < count; i++) timed |= list[i]->tbar != NULL;
  taped g;
  td_status s = record_all(b, list, count, timed, &g);
  if (s || !g.dy->node) return s;
  for (size_t i = 0; i < count && bytes; i++) memcpy(g.w->data + i * bytes, list[i]->w, bytes);
  in[0] = g.y;
  in[1] = g.t;
  for (size_t i = 2; i < n; i++) in[i] = f->externals[i - 2];
  s = td_backward(&g.dy, &g.w, 1, in, (int)n, grad, TD_STOP_AT_INPUTS);
  for (size_t i = 0; i < n && !s; i++) td_auto(grad[i]);
  return s;
}

static td_status answer_vjps(td_batch *b, request *const *list, size_t count, bool all) {
  size_t n = 2 + b->f->base.nexternals;
  td_tensor **in = td_alloc(2 * n * sizeof *in), **grad = in + n;
  if (!in) return td_last_status();
  memset(in, 0, 2 * n * sizeof *in);
  td_status s = pull_rows(b, list, count, all, in, grad);
  if (!s) s = scatter(&b->f->base, grad[0], list, count);
  for (size_t i = 0; i < count && !s && grad[1]; i++)
    if (list[i]->tbar) *list[i]->tbar += td_tensor_get(grad[1], i);
  for (size_t i = 2; i < n && !s && all; i++) s = td_field_add(&list[0]->dexternal[i - 2], grad[i]);
  td_free(in, 2 * n * sizeof *in);
  return s;
}

/* Component j of f is differentiated in all rows at once. */
static td_status answer_jacobians(td_batch *b, request *const *list, size_t count) {
  size_t n = b->f->base.numel;
  taped g;
  bool timed = false;
  for (size_t i = 0; i < count; i++) timed |= list[i]->tbar != NULL;
  td_status s = record_all(b, list, count, timed, &g);
  for (size_t j = 0; j < n && !s; j++) {
    td_tensor *in[2] = {g.y, g.t}, *grad[2] = {NULL, NULL};
    for (size_t i = 0; i < count; i++) td_tensor_set(g.w, i * n + j, 1);
    if (g.dy->node) s = td_backward(&g.dy, &g.w, 1, in, 1 + timed, grad, TD_STOP_AT_INPUTS | TD_RETAIN_GRAPH);
    td_tensor *flat = grad[0] && !s ? td_auto(td_tensor_contiguous(grad[0])) : NULL;
    for (size_t i = 0; i < count && !s; i++) {
      td_tensor_set(g.w, i * n + j, 0);
      double *to = (double *)list[i]->out + j * n;
      for (size_t k = 0; k < n; k++) to[k] = flat ? td_tensor_get(flat, i * n + k) : 0;
      if (list[i]->tbar) list[i]->tbar[j] = grad[1] ? td_tensor_get(grad[1], i) : 0;
    }
    td_tensor_release(grad[0]);
    td_tensor_release(grad[1]);
  }
  return s;
}

static td_status answer_solo(request *r) {
  td_field *f = r->field->solo;
  if (r->kind == EVAL) return f->eval(f, r->t, r->y, r->out);
  return td_field_vjp(f, r->t, r->y, r->w, r->out, r->tbar, r->dexternal);
}

/* All pending requests of one kind to the batched right-hand side, in the order of the rows. */
static td_status answer_kind(td_batch *b, request **list, kind which, td_status failed) {
  size_t count = 0;
  for (size_t i = 0; i < b->n; i++) {
    request *r = &b->requests[i];
    if (r->kind == which && !r->field->solo) list[count++] = r;
  }
  if (count == 0) return failed;
  td_status s = failed;
  size_t mark = td_auto_mark();
  if (!s && which == EVAL) s = answer_evals(b, list, count);
  else if (!s && which == JACOBIAN) s = answer_jacobians(b, list, count);
  else if (!s) s = answer_vjps(b, list, count, which == VJP_ALL);
  td_auto_release(mark);
  for (size_t i = 0; i < count; i++) list[i]->status = s;
  return s;
}

static td_status answer_all(td_batch *b, request **list, td_status failed) {
  for (size_t i = 0; i < b->n; i++) {
    request *r = &b->requests[i];
    if (r->kind == NOTHING || !r->field->solo) continue;
    size_t mark = td_auto_mark();
    r->status = failed ? failed : answer_solo(r);
    td_auto_release(mark);
    if (r->status) failed = r->status;
  }
  for (int which = EVAL; which <= JACOBIAN; which++) failed = answer_kind(b, list, (kind)which, failed);
  return failed;
}

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

/* Runs every row's work, all waiting requests answered together. After a failure every row is told so and comes to its
 * end; the first failure is the result, its message kept. */
static td_status run_rows(td_batch *b, td_status (*work)(td_batch *, size_t, void *), void *data) {
  size_t n = b->n, left = 0;
  td_fiber **fibers = td_alloc((n + 1) * sizeof *fibers);
  task *tasks = td_alloc((n + 1) * sizeof *tasks);
  request **list = td_alloc((n + 1) * sizeof *list);
  b->requests = td_alloc((n + 1) * sizeof *b->requests);
  td_status failed = fibers && tasks && list && b->requests ? TD_OK : td_last_status();
  if (!failed) {
    memset(fibers, 0, (n + 1) * sizeof *fibers);
    memset(b->requests, 0, (n + 1) * sizeof *b->requests);
  }
  for (size_t i = 0; i < n && !failed; i++) {
    tasks[i] = (task){.b = b, .row = i, .work = work, .data = data};
    fibers[i] = td_fiber_new(run_task, &tasks[i]);
    if (!fibers[i]) failed = td_last_status();
    else left++;
  }
  if (failed) left = 0;
  while (left) {
    for (size_t i = 0; i < n; i++) {
      if (td_fiber_done(fibers[i])) continue;
      td_fiber_resume(fibers[i]);
      if (!td_fiber_done(fibers[i])) continue;
      left--;
      if (tasks[i].status && !failed) failed = tasks[i].status;
    }
    if (left) failed = answer_all(b, list, failed);
  }
  for (size_t i = 0; fibers && i < n; i++) td_fiber_free(fibers[i]);
  td_free(fibers, (n + 1) * sizeof *fibers);
  td_free(tasks, (n + 1) * sizeof *tasks);
  td_free(list, (n + 1) * sizeof *list);
  td_free(b->requests, (n + 1) * sizeof *b->requests);
  b->requests = NULL;
  return failed;
}

/* ---- A batch ---- */

td_batch *td_batch_new(td_batch_field *f, size_t n) {
  td_batch *b = td_alloc(sizeof *b);
  if (!b) {
    td_field_free(&f->base);
    return NULL;
  }
  memset(b, 0, sizeof *b);
  b->f = f;
  b->n = n;
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
    row_field_init(&b->fields[i], b, i, NULL);
    b->rows[i].f = &b->fields[i].base;
    b->rows[i].refs = 1;
  }
  return b;
}

void td_batch_free(void *batch) {
  td_batch *b = batch;
  if (!b) return;
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
      row_field_init(&p[0], b, i, events[j].value);
      if (events[j].reset) row_field_init(&p[1], b, i, events[j].reset);
      r->events[j].value = &p[0].base;
      r->events[j].reset = events[j].reset ? &p[1].base : NULL;
    }
    r->o.events = r->events;
    r->o.nevents = nevents;
  }
  return TD_OK;
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
  size_t bytes = bytes_of(f), mark = td_auto_mark();
  request *all = td_alloc((b->n + 1) * sizeof *all), **list = td_alloc((b->n + 1) * sizeof *list);
  td_tensor *t, *y, *rows, *dy = NULL, **found = NULL;
  size_t count = 0, capacity = 0;
  td_status s = all && list ? TD_OK : td_last_status();
  for (size_t i = 0; i < b->n && !s; i++) {
    all[i] = (request){.field = &b->fields[i], .t = b->rows[i].ts[0], .y = (const char *)y0 + i * bytes,
                       .out = (char *)slopes + i * bytes};
    list[i] = &all[i];
  }
  if (!s) s = gather(b, list, b->n, &t, &y, &rows);
  uint64_t since = td_tape_now();
  if (!s) s = call_rows(b, t, y, rows, td_recording, &dy);
  if (!s) s = td_tape_externals(&dy, 1, since, &found, &count, &capacity);
  for (size_t i = 0; i < count; i++) {
    if (!s) s = td_field_add_external(f, found[i]);
    td_tensor_release(found[i]);
  }
  td_free(found, capacity * sizeof *found);
  if (!s) s = scatter(f, dy, list, b->n);
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
  const char *y0 = (const char *)data + i * bytes_of(&b->f->base);
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
  size_t bytes = bytes_of(&b->f->base);
  b->row_of_y[0] = b->row_of_hit[0] = b->row_of_t[0] = 0;
  for (size_t i = 0; i < b->n; i++) {
    td_ode_recorded *r = &b->rows[i];
    r->nt = r->solution.reached - r->solution.event_row;
    b->row_of_y[i + 1] = b->row_of_y[i] + r->solution.reached;
    b->row_of_t[i + 1] = b->row_of_t[i] + r->nts;
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
    td_ode_solution *s = &b->rows[i].solution;
    if (bytes && s->reached) memcpy(out[0]->data + b->row_of_y[i] * bytes, s->ys->data, s->reached * bytes);
    td_tensor_release(s->ys);
    s->ys = NULL;
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
  (void)b;
  return td_sweep_discrete(&((td_sweep *)data)[i]);
}

static td_status sweep_all(td_batch *b, td_rule *rule, td_sweep *sweeps, td_tensor **dexternal, double *dtimes) {
  td_tensor *dout[4] = {NULL};
  for (int i = 0; i < rule->nout; i++)
    if (rule->dout[i] && !(dout[i] = td_auto(td_tensor_contiguous(rule->dout[i])))) return td_last_status();
  if (!dout[0]) dout[0] = td_auto(td_tensor_zeros(b->f->base.dtype, 1,
                                                  (const size_t[]){b->row_of_y[b->n] * b->f->base.numel + 1}));
  if (!dout[0]) return td_last_status();
  for (size_t i = 0; i < b->n; i++) {
    td_sweep *w = &sweeps[i];
    size_t offset = b->row_of_y[i] * b->f->base.numel;
    *w = (td_sweep){.r = &b->rows[i], .next = b->rows[i].nt, .dexternal = dexternal,
                    .dtimes = dtimes ? dtimes + b->row_of_t[i] : NULL};
    w->dys = td_auto(td_tensor_view(dout[0], 1, &(size_t){dout[0]->numel - offset}, &(size_t){1}, offset));
    if (!w->dys) return td_last_status();
    for (int j = 1; j < 4; j++) w->dout[j] = part(dout[j], b->row_of_hit, i);
  }
  return run_rows(b, sweep_row, sweeps);
}

/* What the rows' sweeps found, as cotangents of the operands. */
static void hand_over(td_batch *b, td_rule *rule, td_sweep *sweeps, td_tensor **dexternal, const double *dtimes) {
  size_t bytes = bytes_of(&b->f->base);
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

static void batch_vjp(td_rule *rule) {
  td_batch *b = rule->data;
  size_t ne = b->f->base.nexternals, nt = b->row_of_t[b->n] + 2;
  if (td_recording) {
    td_fail(TD_EGRAD, "ode.solve: a batch has no second derivatives; solve it jointly");
    return;
  }
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
