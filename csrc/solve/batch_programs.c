/* A batch's right-hand side as programs (graph/program.h). A program has a fixed number of rows, so there is a set of them
 * for each number that occurs, rounded up to one of four in an octave, of two where there are few: rows that are missing
 * repeat the last one. What a row gets does not depend on the others, so this changes nothing. A set is captured when its
 * number of rows has been asked for some times, and of each kind only what is asked for:
 *
 *   EVAL            t, y, rows → dy
 *   VJP, VJP_ALL    w, t, y, rows → cotangents of y, of t, and of the externals
 *
 * A Jacobian is as many runs of VJP as f has components. */
#include <string.h>
#include "base/alloc.h"
#include "graph/program.h"
#include "graph/tape.h"
#include "ops/ops.h"
#include "solve/batch_rows.h"

enum {
  KINDS = 4, COMPONENTS = 24,  /* beyond so many components a Jacobian is left to the tape */
  CALLS_BEFORE = 4             /* evaluations until programs for another number of rows pay */
};

/* One program, and which of its results are what: -1 where there is none. */
typedef struct {
  td_program *program;
  bool tried;
  int *place;         /* y, t, externals */
  size_t places;
} compiled;

typedef struct {
  size_t rows;
  int calls;          /* before it was captured */
  compiled kind[KINDS];
} set;

struct td_batch_programs {
  set *sets;
  size_t nsets, capacity;
  char *room;         /* for inputs and results of n rows */
  size_t room_bytes;
};

/* ---- Capturing ---- */

/* The tensors that one trace begins with and ends in. */
typedef struct {
  td_batch *b;
  td_row_kind which;
  td_trace trace;
  td_tensor *t, *y, *rows, *w, *dy;  /* t, y, rows and w owned */
  td_tensor **result;                /* place by place, owned; NULL: none */
  size_t places;
} capture;

static void capture_free(capture *c) {
  td_trace_end(&c->trace);
  for (size_t i = 0; c->result && i < c->places; i++) td_tensor_release(c->result[i]);
  td_free(c->result, (c->places + 1) * sizeof *c->result);
  td_tensor_release(c->t);
  td_tensor_release(c->y);
  td_tensor_release(c->rows);
  td_tensor_release(c->w);
  td_trace_free(&c->trace);
}

static td_status make_inputs(capture *c, size_t rows) {
  const td_field *f = &c->b->f->base;
  size_t shape[TD_MAX_DIMS] = {rows}, ones[TD_MAX_DIMS] = {rows};
  for (int i = 0; i < f->ndim; i++) {
    shape[i + 1] = f->shape[i];
    ones[i + 1] = 1;
  }
  c->t = td_tensor_virtual(TD_F64, f->ndim + 1, ones);
  c->y = td_tensor_virtual(f->dtype, f->ndim + 1, shape);
  c->rows = td_tensor_virtual(TD_I64, 1, ones);
  c->w = td_tensor_virtual(f->dtype, f->ndim + 1, shape);
  size_t n = c->which == EVAL ? 0 : 2 + f->nexternals;
  c->result = td_alloc((n + 1) * sizeof *c->result);
  if (!c->t || !c->y || !c->rows || !c->w || !c->result) return td_last_status();
  memset(c->result, 0, (n + 1) * sizeof *c->result);
  c->places = n;
  return TD_OK;
}

static td_status pull_back(capture *c) {
  const td_field *f = &c->b->f->base;
  size_t n = 2 + (c->which == VJP_ALL ? f->nexternals : 0);
  td_tensor **in = td_alloc(n * sizeof *in);
  if (!in) return td_last_status();
  in[0] = c->y;
  in[1] = c->t;
  for (size_t i = 2; i < n; i++) in[i] = f->externals[i - 2];
  td_status s = td_backward(&c->dy, &c->w, 1, in, (int)n, c->result, TD_STOP_AT_INPUTS);
  td_free(in, n * sizeof *in);
  return s;
}

static td_status record(capture *c, size_t rows) {
  bool gradient = c->which != EVAL;
  td_status s = make_inputs(c, rows);
  uint64_t since = td_tape_now();
  if (!s && gradient) s = td_requires_grad(c->y, true);
  if (!s && gradient) s = td_requires_grad(c->t, true);
  if (!s) s = td_rows_call(c->b, c->t, c->y, c->rows, gradient, &c->dy);
  if (!s && c->which == VJP_ALL) s = td_rows_check_known(c->b, c->dy, since);
  if (s || !gradient || !c->dy->node) return s;
  bool was = td_recording;
  td_recording = true;
  s = pull_back(c);
  td_recording = was;
  return s;
}

/* The program of the trace, whose results are those that there are. */
static td_status compile(capture *c, compiled *to) {
  td_tensor **out = td_alloc((c->places + 1) * sizeof *out);
  to->place = td_alloc((c->places + 1) * sizeof *to->place);
  to->places = c->places;
  if (!out || !to->place) {
    td_free(out, (c->places + 1) * sizeof *out);
    return td_last_status();
  }
  int n = 0;
  if (c->which == EVAL) out[n++] = c->dy;
  for (size_t i = 0; i < c->places; i++) {
    to->place[i] = c->result[i] ? n : -1;
    if (c->result[i]) out[n++] = c->result[i];
  }
  td_status s = TD_OK;
  if (n) {
    to->program = td_program_new(&c->trace, 0, c->trace.count, (td_tensor *[]){c->t, c->y, c->rows, c->w}, 4, out, n);
    if (!to->program) s = td_last_status();
  }
  td_free(out, (c->places + 1) * sizeof *out);
  return s;
}

static td_status make(td_batch *b, size_t rows, td_row_kind which, compiled *to) {
  capture c = {.b = b, .which = which};
  bool was = td_recording;
  to->tried = true;
  td_status s = td_trace_begin(&c.trace);
  if (s) return s;
  size_t mark = td_auto_mark();
  s = record(&c, rows);
  td_recording = was;
  td_trace_end(&c.trace);
  if (!s) s = compile(&c, to);
  td_auto_release(mark);
  capture_free(&c);
  return s;
}

/* ---- Sets ---- */

/* As many rows or a few more, but not more than there are. */
static size_t rounded(const td_batch *b, size_t count) {
  size_t octave = 1;
  while (2 * octave <= count) octave *= 2;
  size_t step = octave < 4 ? 1 : octave <= 64 ? octave / 2 : octave / 4, up = (count + step - 1) / step * step;
  return up < b->n ? up : b->n;
}

static set *set_of(struct td_batch_programs *p, size_t rows) {
  for (size_t i = 0; i < p->nsets; i++)
    if (p->sets[i].rows == rows) return &p->sets[i];
  if (p->nsets == p->capacity) {
    size_t wanted = 2 * p->capacity + 8;
    set *grown = td_alloc(wanted * sizeof *grown);
    if (!grown) return NULL;
    if (p->nsets) memcpy(grown, p->sets, p->nsets * sizeof *grown);
    td_free(p->sets, p->capacity * sizeof *grown);
    p->sets = grown;
    p->capacity = wanted;
  }
  p->sets[p->nsets] = (set){.rows = rows};
  return &p->sets[p->nsets++];
}

void td_batch_programs_free(td_batch *b) {
  struct td_batch_programs *p = b->programs;
  if (!p) return;
  for (size_t i = 0; i < p->nsets; i++)
    for (int k = 0; k < KINDS; k++) {
      compiled *c = &p->sets[i].kind[k];
      td_program_release(c->program);
      td_free(c->place, c->place ? (c->places + 1) * sizeof *c->place : 0);
    }
  td_free(p->sets, p->capacity * sizeof *p->sets);
  td_free(p->room, p->room_bytes);
  td_free(p, sizeof *p);
  b->programs = NULL;
}

td_status td_batch_capture(td_batch *b) {
  struct td_batch_programs *p = b->programs = td_alloc(sizeof *p);
  if (!p) return td_last_status();
  memset(p, 0, sizeof *p);
  set *all = set_of(p, b->n);
  p->room_bytes = b->n * (3 * td_row_bytes(b) + 2 * sizeof(double) + sizeof(int64_t)) + 64 * 8;
  p->room = td_alloc(p->room_bytes);
  td_status s = all && p->room ? make(b, b->n, EVAL, &all->kind[EVAL]) : td_last_status();
  if (all) all->calls = CALLS_BEFORE;
  if (s) td_batch_programs_free(b);
  return s;
}

/* ---- Running ---- */

/* Inputs and results of one run, in the room. */
typedef struct {
  char *free;
  void *in[4];
  char *y;
} run;

static char *cut(run *r, size_t bytes) {
  char *here = r->free;
  r->free += (bytes + 63) & ~(size_t)63;
  return here;
}

/* The requests as inputs, the last one repeated; the repeated ones have no cotangent. */
static run lay_out(td_batch *b, td_row_request *const *list, size_t count, size_t rows, bool weighted) {
  size_t bytes = td_row_bytes(b);
  run r = {.free = b->programs->room + (64 - (uintptr_t)b->programs->room % 64) % 64};
  double *t = (void *)cut(&r, rows * sizeof *t);
  int64_t *number = (void *)cut(&r, rows * sizeof *number);
  char *y = cut(&r, rows * bytes), *w = cut(&r, rows * bytes);
  for (size_t i = 0; i < rows; i++) {
    const td_row_request *q = list[i < count ? i : count - 1];
    t[i] = q->t;
    number[i] = (int64_t)q->field->row + 1;
    if (bytes) memcpy(y + i * bytes, q->y, bytes);
    if (weighted && bytes && i < count) memcpy(w + i * bytes, q->w, bytes);
    else if (weighted) memset(w + i * bytes, 0, bytes);
  }
  r.in[0] = t, r.in[1] = y, r.in[2] = number, r.in[3] = w;
  return r;
}

static td_status run_eval(td_batch *b, td_row_request *const *list, size_t count, size_t rows, compiled *c) {
  run r = lay_out(b, list, count, rows, false);
  size_t bytes = td_row_bytes(b);
  char *dy = cut(&r, rows * bytes);
  td_status s = td_program_run(c->program, r.in, (void *[]){dy});
  for (size_t i = 0; i < count && !s && bytes; i++) memcpy(list[i]->out, dy + i * bytes, bytes);
  return s;
}

static td_status run_vjp(td_batch *b, td_row_request *const *list, size_t count, size_t rows, compiled *c) {
  const td_field *f = &b->f->base;
  size_t bytes = td_row_bytes(b), n = c->places;
  run r = lay_out(b, list, count, rows, true);
  char *ybar = cut(&r, rows * bytes);
  double *tbar = (void *)cut(&r, rows * sizeof *tbar);
  void **out = td_alloc((n + 1) * sizeof *out);
  td_tensor **sum = td_alloc((n + 1) * sizeof *sum);
  td_status s = out && sum ? TD_OK : td_last_status();
  for (size_t i = 0; i < n && !s; i++) {
    sum[i] = NULL;
    if (c->place[i] < 0) continue;
    const td_tensor *like = i < 2 ? NULL : f->externals[i - 2];
    if (like && !(sum[i] = td_auto(td_tensor_new(like->dtype, like->ndim, like->shape)))) s = td_last_status();
    else out[c->place[i]] = i == 0 ? ybar : i == 1 ? (void *)tbar : sum[i]->data;
  }
  if (!s && c->program) s = td_program_run(c->program, r.in, out);
  for (size_t i = 0; i < count && !s; i++) {
    if (bytes && c->place[0] >= 0) memcpy(list[i]->out, ybar + i * bytes, bytes);
    else if (bytes) memset(list[i]->out, 0, bytes);
    if (list[i]->tbar && c->place[1] >= 0) *list[i]->tbar += tbar[i];
  }
  for (size_t i = 2; i < n && !s; i++) s = td_field_add(&list[0]->dexternal[i - 2], sum[i]);
  td_free(out, (n + 1) * sizeof *out);
  td_free(sum, (n + 1) * sizeof *sum);
  return s;
}

static double number_at(const td_field *f, const char *x, size_t i) {
  return f->dtype == TD_F64 ? ((const double *)(const void *)x)[i] : (double)((const float *)(const void *)x)[i];
}

/* Component j in all rows at once, by the program for products. */
static td_status run_jacobian(td_batch *b, td_row_request *const *list, size_t count, size_t rows, compiled *c) {
  const td_field *f = &b->f->base;
  size_t bytes = td_row_bytes(b), n = f->numel;
  run r = lay_out(b, list, count, rows, false);
  char *w = r.in[3], *ybar = cut(&r, rows * bytes);
  double *tbar = (void *)cut(&r, rows * sizeof *tbar);
  bool by_y = c->program && c->place[0] >= 0, by_t = c->program && c->place[1] >= 0;
  void *out[2];
  if (by_y) out[c->place[0]] = ybar;
  if (by_t) out[c->place[1]] = tbar;
  td_tensor units = {.dtype = f->dtype, .data = w};
  td_status s = TD_OK;
  for (size_t j = 0; j < n && !s; j++) {
    memset(w, 0, rows * bytes);
    for (size_t i = 0; i < rows; i++) td_tensor_set(&units, i * n + j, 1);
    if (c->program) s = td_program_run(c->program, r.in, out);
    for (size_t i = 0; i < count && !s; i++) {
      for (size_t k = 0; k < n; k++)
        ((double *)list[i]->out)[j * n + k] = by_y ? number_at(f, ybar, i * n + k) : 0;
      if (list[i]->tbar) list[i]->tbar[j] = by_t ? tbar[i] : 0;
    }
  }
  return s;
}

td_status td_batch_programs_answer(td_batch *b, td_row_request *const *list, size_t count, td_row_kind which, bool *done) {
  *done = false;
  if (which > JACOBIAN || (which == JACOBIAN && b->f->base.numel > COMPONENTS)) return TD_OK;
  size_t rows = rounded(b, count);
  set *own = set_of(b->programs, rows);
  if (!own) return td_last_status();
  if (own->calls < CALLS_BEFORE) {
    own->calls++;
    return TD_OK;
  }
  td_row_kind kind = which == JACOBIAN ? VJP : which;
  compiled *c = &own->kind[kind];
  if (!c->tried && make(b, rows, kind, c)) {
    td_program_release(c->program);
    c->program = NULL;
    td_free(c->place, c->place ? (c->places + 1) * sizeof *c->place : 0);
    c->place = NULL;
  }
  if (!c->place) return TD_OK;  /* it could not be captured: as before */
  *done = true;
  if (which == EVAL) return run_eval(b, list, count, rows, c);
  return which == JACOBIAN ? run_jacobian(b, list, count, rows, c) : run_vjp(b, list, count, rows, c);
}
