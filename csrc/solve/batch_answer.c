/* Asking and answering: a row's field stands for the batched right-hand side and waits until the scheduler has run it
 * for all rows that wait. */
#include <string.h>
#include "base/alloc.h"
#include "base/fiber.h"
#include "ops/ops.h"
#include "solve/batch_rows.h"

/* ---- Asking ---- */

static td_status answer_alone(td_batch *b, td_row_request *r);

/* Waits until the scheduler has done it; when none is at work, it is done here. */
static td_status ask(td_row_field *f, td_row_request r) {
  if (!f->batch->requests) {
    r.field = f;
    return answer_alone(f->batch, &r);
  }
  td_row_request *mine = &f->batch->requests[f->row];
  *mine = r;
  mine->field = f;
  td_fiber_wait();
  mine->kind = NOTHING;
  return mine->status;
}

static td_status row_eval(td_field *self, double t, const void *y, void *dy) {
  return ask((td_row_field *)self, (td_row_request){.kind = EVAL, .t = t, .y = y, .out = dy});
}

static td_status row_vjp(td_field *self, double t, const void *y, const void *w, void *ybar, double *tbar,
                         td_tensor **dexternal) {
  return ask((td_row_field *)self, (td_row_request){.kind = dexternal ? VJP_ALL : VJP, .t = t, .y = y, .w = w, .out = ybar,
                                                    .tbar = tbar, .dexternal = dexternal});
}

static td_status row_jvp(td_field *self, double t, const void *y, const void *v, double vt, void *out) {
  return ask((td_row_field *)self, (td_row_request){.kind = JVP, .t = t, .y = y, .w = v, .number = vt, .out = out});
}

static td_status row_jacobian(td_field *self, double t, const void *y, double *jacobian, double *ft) {
  return ask((td_row_field *)self, (td_row_request){.kind = JACOBIAN, .t = t, .y = y, .out = jacobian, .tbar = ft});
}

static td_status row_second(td_field *self, double t, const void *y, const td_field_second *sum, double *ybar,
                            double *tbar, td_tensor **dexternal) {
  return ask((td_row_field *)self, (td_row_request){.kind = SECOND, .t = t, .y = y, .second = sum, .out = ybar,
                                                    .tbar = tbar, .dexternal = dexternal});
}

/* Stages that are kept one by one are left to row_eval. */
static td_status row_stages(td_field *self, const td_field_stages *step, bool *done) {
  *done = !step->keep && self->numel;
  return *done ? ask((td_row_field *)self, (td_row_request){.kind = STAGES, .stages = step}) : TD_OK;
}

static td_status row_stages_back(td_field *self, const td_field_stages *step, void *lambda, td_tensor **dexternal,
                                 bool *done) {
  *done = self->numel > 0;
  return *done ? ask((td_row_field *)self, (td_row_request){.kind = STAGES_BACK, .stages = step, .out = lambda,
                                                            .dexternal = dexternal}) : TD_OK;
}

static td_status row_precondition(void *data, double t, double shift, const void *y, void *x) {
  return ask(data, (td_row_request){.kind = PRECONDITION, .t = t, .number = shift, .y = y, .out = x});
}

static td_status row_norm(void *data, const void *scaled, double *norm) {
  return ask(data, (td_row_request){.kind = NORM, .y = scaled, .out = norm});
}

static td_status row_elsewhere(td_field *self, td_status (*work)(void *data), void *data) {
  return ask((td_row_field *)self, (td_row_request){.kind = RUN, .work = work, .out = data});
}

/* f of this row alone on the tape: a batch of one. Not on a fiber. */
static td_status row_record(td_field *self, td_tensor *t, td_tensor *y, td_tensor **dy) {
  td_row_field *f = (td_row_field *)self;
  td_batch_field *all = f->batch->f;
  size_t one = 1, mark = td_auto_mark();
  td_tensor *rows = td_auto(td_tensor_new(TD_I64, 1, &one)), *out = NULL;
  y = td_do(&td_op_unsqueeze, &(td_attrs){.i = {0}}, 1, y);
  for (int i = 0; i <= self->ndim && t; i++) t = td_do(&td_op_unsqueeze, &(td_attrs){.i = {0}}, 1, t);
  td_status s = rows && y && t ? TD_OK : td_last_status();
  if (!s) {
    ((int64_t *)(void *)rows->data)[0] = (int64_t)f->row + 1;
    s = all->record_rows(all, t, y, rows, &out);
  }
  td_auto(out);
  *dy = s ? NULL : td_tensor_retain(td_do(&td_op_select, &(td_attrs){.i = {0, 0}}, 1, out));
  td_auto_release(mark);
  return s || *dy ? s : td_last_status();
}

static void no_free(td_field *f) { (void)f; }

void td_row_field_init(td_row_field *r, td_batch *b, size_t row, td_field *solo) {
  const td_field *like = &b->f->base;
  *r = (td_row_field){.base = {.who = like->who, .kind = like->kind, .dtype = like->dtype, .ndim = like->ndim,
                               .numel = like->numel, .eval = row_eval, .vjp = row_vjp, .free = no_free},
                      .batch = b, .row = row, .solo = solo};
  memcpy(r->base.shape, like->shape, sizeof like->shape);
  if (!solo) {
    r->base.jvp = row_jvp;
    r->base.second = row_second;
    r->base.stages = row_stages;
    r->base.stages_back = row_stages_back;
    r->base.record = row_record;
    r->base.elsewhere = row_elsewhere;
    r->base.jacobian = row_jacobian;
    r->base.jacobian_calls = !b->f->jacobian_rows;
  }
  if (solo && !solo->vjp && !solo->record && !solo->keep) r->base.vjp = NULL;
}

void td_row_options(td_batch *b, size_t row, td_ode_options *o) {
  td_row_field *f = &b->fields[row];
  o->mass = b->mass;
  o->semilinear = b->semilinear;
  o->pattern = b->pattern;
  o->precondition = b->precondition ? row_precondition : NULL;
  o->precondition_data = f;
  if (b->norm_call) o->norm = TD_NORM_FUNCTION, o->norm_call = row_norm, o->norm_data = f;
  /* The Jacobian of all elements at once serves neither a pattern nor the first of several blocks. */
  if (b->pattern || o->blocks > 1) f->base.jacobian = NULL;
}

/* ---- Answering ---- */

static size_t bytes_of(const td_field *f) { return f->numel * td_dtype_size(f->dtype); }

td_status td_rows_gather(td_batch *b, td_row_request *const *list, size_t count, td_tensor **t, td_tensor **y,
                         td_tensor **rows) {
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

td_status td_rows_call(td_batch *b, td_tensor *t, td_tensor *y, td_tensor *rows, bool recording, td_tensor **dy) {
  bool was = td_recording;
  td_recording = recording;
  *dy = NULL;
  td_status s = b->f->record_rows(b->f, t, y, rows, dy);
  td_recording = was;
  td_auto(*dy);
  return s;
}

td_status td_rows_scatter(const td_field *f, td_tensor *x, td_row_request *const *list, size_t count) {
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

/* Tensors with the arrays' values; automatic. */
static td_status tensors_of(td_batch *b, const td_rows_arrays *a, td_tensor **t, td_tensor **y, td_tensor **rows) {
  const td_field *f = &b->f->base;
  size_t shape[TD_MAX_DIMS] = {a->count}, ones[TD_MAX_DIMS] = {a->count};
  for (int i = 0; i < f->ndim; i++) {
    shape[i + 1] = f->shape[i];
    ones[i + 1] = 1;
  }
  *t = td_auto(td_tensor_new(TD_F64, f->ndim + 1, ones));
  *y = td_auto(td_tensor_new(f->dtype, f->ndim + 1, shape));
  *rows = td_auto(td_tensor_new(TD_I64, 1, ones));
  if (!*t || !*y || !*rows) return td_last_status();
  memcpy((*t)->data, a->t, a->count * sizeof(double));
  memcpy((*y)->data, a->y, a->count * bytes_of(f));
  memcpy((*rows)->data, a->number, a->count * sizeof(int64_t));
  return TD_OK;
}

static td_status take_all(const td_field *f, td_tensor *x, size_t count, char *to) {
  size_t bytes = count * bytes_of(f);
  if (!x) {
    memset(to, 0, bytes);
    return TD_OK;
  }
  td_tensor *flat = x;
  if (x->dtype != f->dtype || !td_tensor_is_contiguous(x)) {
    flat = td_auto(td_tensor_new(f->dtype, x->ndim, x->shape));
    if (!flat || td_tensor_copy(flat, x)) return td_last_status();
  }
  memcpy(to, flat->data, bytes);
  return TD_OK;
}

td_status td_rows_eval(td_batch *b, td_rows_arrays *a, char *dy) {
  td_tensor *t, *y, *rows, *out;
  bool done = false;
  td_status s = b->programs ? td_batch_programs_run(b, EVAL, a, dy, NULL, &done) : TD_OK;
  if (s || done) return s;
  size_t mark = td_auto_mark();
  s = tensors_of(b, a, &t, &y, &rows);
  if (!s) s = td_rows_call(b, t, y, rows, false, &out);
  if (!s) s = take_all(&b->f->base, out, a->count, dy);
  td_auto_release(mark);
  return s;
}

static td_status pull_arrays(td_batch *b, const td_rows_arrays *a, char *ybar, td_tensor **dexternal, td_tensor **in,
                             td_tensor **grad) {
  const td_field *f = &b->f->base;
  size_t n = 1 + f->nexternals;
  td_tensor *t, *y, *rows, *dy;
  td_status s = tensors_of(b, a, &t, &y, &rows);
  uint64_t since = td_tape_now();
  if (!s) s = td_requires_grad(y, true);
  if (!s) s = td_rows_call(b, t, y, rows, true, &dy);
  if (!s) s = td_rows_check_known(b, dy, since);
  td_tensor *w = s ? NULL : td_auto(td_tensor_new(f->dtype, y->ndim, y->shape));
  if (!w) return s ? s : td_last_status();
  memcpy(w->data, a->w, a->count * bytes_of(f));
  in[0] = y;
  for (size_t i = 1; i < n; i++) in[i] = f->externals[i - 1];
  if (dy->node) s = td_backward(&dy, &w, 1, in, (int)n, grad, TD_STOP_AT_INPUTS);
  for (size_t i = 0; i < n; i++) td_auto(grad[i]);
  if (!s) s = take_all(f, grad[0], a->count, ybar);
  for (size_t i = 1; i < n && !s; i++) s = td_field_add(&dexternal[i - 1], grad[i]);
  return s;
}

td_status td_rows_pull(td_batch *b, td_rows_arrays *a, char *ybar, td_tensor **dexternal) {
  bool done = false;
  size_t n = 1 + b->f->base.nexternals, mark = td_auto_mark();
  td_status s = b->programs ? td_batch_programs_run(b, VJP_ALL, a, ybar, dexternal, &done) : TD_OK;
  if (!s && !done) {
    td_tensor **in = td_alloc(2 * n * sizeof *in);
    if (in) memset(in, 0, 2 * n * sizeof *in);
    s = in ? pull_arrays(b, a, ybar, dexternal, in, in + n) : td_last_status();
    td_free(in, 2 * n * sizeof *in);
  }
  td_auto_release(mark);
  return s;
}

static td_status answer_evals(td_batch *b, td_row_request *const *list, size_t count) {
  td_tensor *t, *y, *rows, *dy;
  td_status s = td_rows_gather(b, list, count, &t, &y, &rows);
  if (!s) s = td_rows_call(b, t, y, rows, false, &dy);
  return s ? s : td_rows_scatter(&b->f->base, dy, list, count);
}

td_status td_rows_check_known(td_batch *b, td_tensor *dy, uint64_t since) {
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

/* externals: their cotangents are wanted, so all of them have to be known. */
static td_status record_all(td_batch *b, td_row_request *const *list, size_t count, bool timed, bool externals,
                            taped *g) {
  td_tensor *rows;
  td_status s = td_rows_gather(b, list, count, &g->t, &g->y, &rows);
  uint64_t since = td_tape_now();
  if (!s) s = td_requires_grad(g->y, true);
  if (!s && timed) s = td_requires_grad(g->t, true);
  if (!s) s = td_rows_call(b, g->t, g->y, rows, true, &g->dy);
  if (!s && externals) s = td_rows_check_known(b, g->dy, since);
  if (s) return s;
  g->w = td_auto(td_tensor_zeros(g->y->dtype, g->y->ndim, g->y->shape));
  return g->w ? TD_OK : td_last_status();
}

/* Products of the rows' cotangents with their Jacobians, and, when all is set, with those of the externals. */
static td_status pull_rows(td_batch *b, td_row_request *const *list, size_t count, bool all, td_tensor **in,
                           td_tensor **grad) {
  const td_field *f = &b->f->base;
  size_t bytes = bytes_of(f), n = 2 + (all ? f->nexternals : 0);
  bool timed = false;
  for (size_t i = 0; i < count; i++) timed |= list[i]->tbar != NULL;
  taped g;
  td_status s = record_all(b, list, count, timed, all, &g);
  if (s || !g.dy->node) return s;
  for (size_t i = 0; i < count && bytes; i++) memcpy(g.w->data + i * bytes, list[i]->w, bytes);
  in[0] = g.y;
  in[1] = g.t;
  for (size_t i = 2; i < n; i++) in[i] = f->externals[i - 2];
  s = td_backward(&g.dy, &g.w, 1, in, (int)n, grad, TD_STOP_AT_INPUTS);
  for (size_t i = 0; i < n && !s; i++) td_auto(grad[i]);
  return s;
}

static td_status answer_vjps(td_batch *b, td_row_request *const *list, size_t count, bool all) {
  size_t n = 2 + b->f->base.nexternals;
  td_tensor **in = td_alloc(2 * n * sizeof *in), **grad = in + n;
  if (!in) return td_last_status();
  memset(in, 0, 2 * n * sizeof *in);
  td_status s = pull_rows(b, list, count, all, in, grad);
  if (!s) s = td_rows_scatter(&b->f->base, grad[0], list, count);
  for (size_t i = 0; i < count && !s && grad[1]; i++)
    if (list[i]->tbar) *list[i]->tbar += td_tensor_get(grad[1], i);
  for (size_t i = 2; i < n && !s && all; i++) s = td_field_add(&list[0]->dexternal[i - 2], grad[i]);
  td_free(in, 2 * n * sizeof *in);
  return s;
}

/* By the user's function. */
static td_status ask_jacobians(td_batch *b, td_row_request *const *list, size_t count, bool timed) {
  size_t n = b->f->base.numel;
  td_tensor *t, *y, *rows, *j = NULL, *ft = NULL;
  bool was = td_recording;
  td_status s = td_rows_gather(b, list, count, &t, &y, &rows);
  td_recording = false;
  if (!s) s = b->f->jacobian_rows(b->f, t, y, rows, &j, timed ? &ft : NULL);
  td_recording = was;
  j = td_auto(j) ? td_auto(td_tensor_contiguous(j)) : NULL;
  ft = td_auto(ft) ? td_auto(td_tensor_contiguous(ft)) : NULL;
  if (!s && (!j || (timed && !ft))) s = td_last_status();
  for (size_t i = 0; i < count && !s; i++) {
    for (size_t e = 0; e < n * n; e++) ((double *)list[i]->out)[e] = td_tensor_get(j, i * n * n + e);
    for (size_t e = 0; e < n && list[i]->tbar; e++) list[i]->tbar[e] = td_tensor_get(ft, i * n + e);
  }
  return s;
}

/* Component j of f is differentiated in all rows at once. */
static td_status answer_jacobians(td_batch *b, td_row_request *const *list, size_t count) {
  size_t n = b->f->base.numel;
  taped g;
  bool timed = false;
  for (size_t i = 0; i < count; i++) timed |= list[i]->tbar != NULL;
  if (b->f->jacobian_rows) return ask_jacobians(b, list, count, timed);
  td_status s = record_all(b, list, count, timed, false, &g);
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

/* J v as the derivative by w of ⟨Jᵀw, v⟩, in all rows at once. */
static td_status answer_jvps(td_batch *b, td_row_request *const *list, size_t count) {
  size_t bytes = bytes_of(&b->f->base);
  bool timed = false, was = td_recording;
  for (size_t i = 0; i < count; i++) timed |= list[i]->number != 0;
  taped g;
  td_status s = record_all(b, list, count, timed, false, &g);
  if (!s && !g.dy->node) s = td_rows_scatter(&b->f->base, NULL, list, count);
  if (s || !g.dy->node) return s;
  td_tensor *v = td_auto(td_tensor_new(g.y->dtype, g.y->ndim, g.y->shape));
  td_tensor *vt = td_auto(td_tensor_new(TD_F64, g.t->ndim, g.t->shape)), *in[2] = {g.y, g.t}, *grad[2] = {NULL, NULL};
  if (!v || !vt || td_requires_grad(g.w, true)) return td_last_status();
  for (size_t i = 0; i < count; i++) {
    if (bytes) memcpy(v->data + i * bytes, list[i]->w, bytes);
    td_tensor_set(vt, i, list[i]->number);
  }
  td_recording = true;
  s = td_backward(&g.dy, &g.w, 1, in, 1 + timed, grad, TD_STOP_AT_INPUTS | TD_CREATE_GRAPH);
  td_tensor *sum = NULL, *jv = NULL, *none = NULL;
  for (int i = 0; i < 2 && !s; i++) {
    if (!td_auto(grad[i])) continue;
    td_tensor *part = td_cast(td_sum(td_mul(grad[i], i ? vt : v), 0, false), TD_F64);
    sum = sum && part ? td_add(sum, part) : part;
    if (!sum) s = td_last_status();
  }
  td_recording = was;
  if (!s && sum && sum->node) s = td_backward(&sum, &none, 1, &g.w, 1, &jv, TD_STOP_AT_INPUTS);
  td_auto(jv);
  return s ? s : td_rows_scatter(&b->f->base, jv, list, count);
}

static td_status answer_solo(td_batch *b, td_row_request *r) {
  if (r->kind == PRECONDITION) return b->precondition(b->precondition_data, r->t, r->number, r->y, r->out);
  if (r->kind == RUN) return r->work(r->out);
  if (r->kind == NORM) return b->norm_call(b->norm_data, r->y, r->out);
  td_field *f = r->field->solo;
  f->row = r->field->row + 1;
  if (r->kind == EVAL) return f->eval(f, r->t, r->y, r->out);
  return td_field_vjp(f, r->t, r->y, r->w, r->out, r->tbar, r->dexternal);
}

static td_status by_tape(td_batch *b, td_row_request *const *list, size_t count, td_row_kind which) {
  switch (which) {
    case EVAL: return answer_evals(b, list, count);
    case JACOBIAN: return answer_jacobians(b, list, count);
    case SECOND: return td_rows_answer_seconds(b, list, count);
    case JVP: return answer_jvps(b, list, count);
    case STAGES: case STAGES_BACK: return td_rows_answer_stages(b, list, count, which == STAGES_BACK);
    default: return answer_vjps(b, list, count, which == VJP_ALL);
  }
}

static td_status answer_some(td_batch *b, td_row_request *const *list, size_t count, td_row_kind which) {
  size_t mark = td_auto_mark();
  bool done = false, by_user = which == JACOBIAN && b->f->jacobian_rows;
  td_status s = TD_OK;
  if (b->programs && !by_user) s = td_batch_programs_answer(b, list, count, which, &done);
  if (!s && !done) s = by_tape(b, list, count, which);
  td_auto_release(mark);
  return s;
}

static td_status answer_alone(td_batch *b, td_row_request *r) {
  if (!r->field->solo && r->kind < PRECONDITION) return answer_some(b, (td_row_request *[]){r}, 1, r->kind);
  size_t mark = td_auto_mark();
  td_status s = answer_solo(b, r);
  td_auto_release(mark);
  return s;
}

/* All pending requests of one kind to the batched right-hand side, in the order of the rows. */
static td_status answer_kind(td_batch *b, td_row_request **list, td_row_kind which, td_status failed) {
  size_t count = 0;
  for (size_t i = b->first; i < b->end; i++) {
    td_row_request *r = &b->requests[i];
    if (r->kind == which && !r->field->solo) list[count++] = r;
  }
  if (count == 0) return failed;
  td_status s = failed;
  /* Sums of externals' cotangents go together only where all go to the same place. */
  size_t together = count;
  for (size_t i = 1; i < count && which == VJP_ALL; i++)
    if (list[i]->dexternal != list[0]->dexternal) together = 1;
  for (size_t i = 0; i < count && !s; i += together) s = answer_some(b, list + i, together, which);
  for (size_t i = 0; i < count; i++) list[i]->status = s;
  return s;
}

td_status td_rows_answer(td_batch *b, td_row_request **list, td_status failed) {
  unsigned present = 0;  /* kinds to be answered together, as bits */
  for (size_t i = b->first; i < b->end; i++) {
    td_row_request *r = &b->requests[i];
    if (r->kind == NOTHING) continue;
    if (!r->field->solo && r->kind < PRECONDITION) {
      present |= 1u << r->kind;
      continue;
    }
    size_t mark = td_auto_mark();
    r->status = failed ? failed : answer_solo(b, r);
    td_auto_release(mark);
    if (r->status) failed = r->status;
  }
  for (int which = EVAL; which < PRECONDITION; which++)
    if (present >> which & 1) failed = answer_kind(b, list, (td_row_kind)which, failed);
  return failed;
}
