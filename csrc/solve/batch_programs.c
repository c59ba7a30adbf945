/* A batch's right-hand side as programs (graph/program.h). A program has a fixed number of rows, so there is a set of
 * them for each number that occurs, rounded up to one of four in an octave, of two where there are few: rows that are
 * missing repeat the last one. What a row gets does not depend on the others, so this changes nothing. A set is
 * captured when its number of rows has been asked for some times, and of each kind only what is asked for:
 *
 *   EVAL            t, y, rows → dy
 *   VJP, VJP_ALL    t, y, rows, w → cotangents of y, of t, and of the externals
 *   JACOBIAN        t, y, rows → component by component of f, its gradients by y and by t
 *   SECOND          t, y, rows, w, u, v (term by term) → derivatives of the sum by y, by t, and by the externals */
#include <string.h>
#include "base/alloc.h"
#include "graph/program.h"
#include "graph/tape.h"
#include "ops/ops.h"
#include "solve/batch_rows.h"
#include "solve/second.h"

enum {
  KINDS = SECOND + 1, COMPONENTS = 24,  /* beyond so many components a Jacobian is left to the tape */
  CALLS_BEFORE = 4             /* evaluations until programs for another number of rows pay */
};

/* One program, and which of its results are what: -1 where there is none. */
typedef struct {
  td_program *program;
  bool tried;
  int *place;         /* y, t, externals; of JACOBIAN y, t for each component */
  size_t places;
  size_t terms;       /* of SECOND */
  bool units;
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
  size_t terms;                      /* of SECOND */
  bool units;
  td_tensor *in[6], *dy;             /* t, y, rows, w, u, v; owned */
  int nin;
  td_tensor **result;                /* place by place, owned; NULL: none */
  size_t places;
} capture;

static void capture_free(capture *c) {
  td_trace_end(&c->trace);
  for (size_t i = 0; c->result && i < c->places; i++) td_tensor_release(c->result[i]);
  td_free(c->result, (c->places + 1) * sizeof *c->result);
  for (int i = 0; i < c->nin; i++) td_tensor_release(c->in[i]);
  td_trace_free(&c->trace);
}

enum { T, Y, ROWS, W, U, V };

static td_status make_inputs(capture *c, size_t rows) {
  const td_field *f = &c->b->f->base;
  bool second = c->which == SECOND;
  int d = f->ndim + 1;
  size_t shape[2 + TD_MAX_DIMS] = {c->terms, rows}, ones[2 + TD_MAX_DIMS] = {c->terms, rows};
  for (int i = 0; i < f->ndim; i++) {
    shape[i + 2] = f->shape[i];
    ones[i + 2] = 1;
  }
  c->in[T] = td_tensor_virtual(TD_F64, d, ones + 1);
  c->in[Y] = td_tensor_virtual(f->dtype, d, shape + 1);
  c->in[ROWS] = td_tensor_virtual(TD_I64, 1, ones + 1);
  c->in[W] = second ? td_tensor_virtual(f->dtype, d + 1, shape) : td_tensor_virtual(f->dtype, d, shape + 1);
  c->nin = 4;
  if (second) {
    c->in[U] = td_tensor_virtual(f->dtype, d + 1, shape);
    c->in[V] = td_tensor_virtual(TD_F64, d + 1, ones);
    c->nin = 6;
  }
  c->places = c->which == EVAL ? 0 : c->which == JACOBIAN ? 2 * f->numel : 2 + f->nexternals;
  c->result = td_alloc((c->places + 1) * sizeof *c->result);
  for (int i = 0; i < c->nin; i++)
    if (!c->in[i] || !c->result) return td_last_status();
  memset(c->result, 0, (c->places + 1) * sizeof *c->result);
  return TD_OK;
}

/* The k-th unit vector in every row; automatic. */
static td_tensor *unit(const capture *c, size_t k) {
  const td_tensor *y = c->in[Y];
  size_t n = c->b->f->base.numel;
  td_tensor *x = td_auto(td_tensor_zeros(y->dtype, y->ndim, y->shape));
  for (size_t i = 0; x && i < y->shape[0]; i++) td_tensor_set(x, i * n + k, 1);
  return x;
}

static td_tensor *term(td_tensor *all, size_t k) {
  return td_do(&td_op_select, &(td_attrs){.i = {0, (int64_t)k}}, 1, all);
}

static td_status pull_second(capture *c, td_tensor *const *in, int n) {
  td_tensor *w[TD_SECOND_MOST], *u[TD_SECOND_MOST], *v[TD_SECOND_MOST];
  for (size_t k = 0; k < c->terms; k++) {
    w[k] = c->units ? unit(c, k) : term(c->in[W], k);
    u[k] = term(c->in[U], k);
    v[k] = term(c->in[V], k);
    if (!w[k] || !u[k] || !v[k]) return td_last_status();
  }
  return td_second_pull(c->dy, c->in[T], c->in[Y], c->terms, w, u, v, in, n, c->result);
}

static td_status pull_units(capture *c, td_tensor *const *in) {
  td_status s = TD_OK;
  for (size_t k = 0; k < c->b->f->base.numel && !s; k++) {
    td_tensor *w = unit(c, k);
    s = w ? td_backward(&c->dy, &w, 1, in, 2, c->result + 2 * k, TD_STOP_AT_INPUTS | TD_RETAIN_GRAPH)
          : td_last_status();
  }
  return s;
}

static td_status pull_back(capture *c) {
  const td_field *f = &c->b->f->base;
  size_t n = 2 + (c->which == VJP_ALL || c->which == SECOND ? f->nexternals : 0);
  td_tensor **in = td_alloc(n * sizeof *in);
  if (!in) return td_last_status();
  in[0] = c->in[Y];
  in[1] = c->in[T];
  for (size_t i = 2; i < n; i++) in[i] = f->externals[i - 2];
  td_status s = c->which == SECOND ? pull_second(c, in, (int)n)
                : c->which == JACOBIAN ? pull_units(c, in)
                : td_backward(&c->dy, &c->in[W], 1, in, (int)n, c->result, TD_STOP_AT_INPUTS);
  td_free(in, n * sizeof *in);
  return s;
}

static td_status record(capture *c, size_t rows) {
  bool gradient = c->which != EVAL;
  td_status s = make_inputs(c, rows);
  uint64_t since = td_tape_now();
  if (!s && gradient) s = td_requires_grad(c->in[Y], true);
  if (!s && gradient) s = td_requires_grad(c->in[T], true);
  if (!s) s = td_rows_call(c->b, c->in[T], c->in[Y], c->in[ROWS], gradient, &c->dy);
  if (!s && (c->which == VJP_ALL || c->which == SECOND)) s = td_rows_check_known(c->b, c->dy, since);
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
    to->program = td_program_new(&c->trace, 0, c->trace.count, c->in, c->nin, out, n);
    if (!to->program) s = td_last_status();
  }
  td_free(out, (c->places + 1) * sizeof *out);
  return s;
}

static td_status make(td_batch *b, size_t rows, td_row_kind which, compiled *to) {
  capture c = {.b = b, .which = which, .terms = to->terms, .units = to->units};
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
  return up < b->together ? up : b->together;
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

/* Rows of small states are solved so many at a time as stay in the cache, in parts of equal length: a step touches all
 * that a row's solve has, some kilobytes, and a run of a program costs little. */
static size_t together(const td_batch *b) {
  enum { CACHE = 512 * 1024, ROW = 4 * 1024, VECTORS = 24, LEAST = 64 };
  size_t most = CACHE / (ROW + VECTORS * td_row_bytes(b));
  if (most < LEAST) most = LEAST;
  size_t parts = (b->n + most - 1) / most;
  return parts ? (b->n + parts - 1) / parts : 0;
}

td_status td_batch_capture(td_batch *b) {
  struct td_batch_programs *p = b->programs = td_alloc(sizeof *p);
  if (!p) return td_last_status();
  memset(p, 0, sizeof *p);
  b->together = together(b);
  set *all = set_of(p, b->together);
  td_status s = all ? make(b, b->together, EVAL, &all->kind[EVAL]) : td_last_status();
  if (all) all->calls = CALLS_BEFORE;
  if (s) td_batch_programs_free(b), b->together = b->n;
  return s;
}

/* ---- Running ---- */

/* Inputs and results of one run, in the room. */
typedef struct {
  char *free;
  void *in[6];
} run;

static char *cut(run *r, size_t bytes) {
  char *here = r->free;
  r->free += (bytes + 63) & ~(size_t)63;
  return here;
}

/* Room for `vectors` states and `numbers` of each of so many rows, in at most 16 pieces. */
static td_status run_begin(td_batch *b, run *r, size_t rows, size_t vectors, size_t numbers) {
  struct td_batch_programs *p = b->programs;
  size_t bytes = rows * (vectors * td_row_bytes(b) + numbers * sizeof(double)) + 17 * 64;
  if (bytes > p->room_bytes) {
    td_free(p->room, p->room_bytes);
    p->room = td_alloc(bytes);
    p->room_bytes = p->room ? bytes : 0;
    if (!p->room) return td_last_status();
  }
  *r = (run){.free = p->room + (64 - (uintptr_t)p->room % 64) % 64};
  return TD_OK;
}

/* The requests as inputs, the last one repeated; the repeated ones have no cotangent. */
static void lay_out(td_batch *b, td_row_request *const *list, size_t count, size_t rows, bool weighted, run *r) {
  size_t bytes = td_row_bytes(b);
  double *t = (void *)cut(r, rows * sizeof *t);
  int64_t *number = (void *)cut(r, rows * sizeof *number);
  char *y = cut(r, rows * bytes), *w = weighted ? cut(r, rows * bytes) : NULL;
  for (size_t i = 0; i < rows; i++) {
    const td_row_request *q = list[i < count ? i : count - 1];
    t[i] = q->t;
    number[i] = (int64_t)q->field->row + 1;
    if (bytes) memcpy(y + i * bytes, q->y, bytes);
    if (weighted && bytes && i < count) memcpy(w + i * bytes, q->w, bytes);
    else if (weighted) memset(w + i * bytes, 0, bytes);
  }
  r->in[T] = t, r->in[Y] = y, r->in[ROWS] = number, r->in[W] = w;
}

/* Runs it with the cotangents of y and of t, NULL where there are none, and the externals' added to dexternal. */
static td_status run_back(td_batch *b, compiled *c, run *r, char **ybar, double **tbar, size_t rows,
                          td_tensor **dexternal) {
  const td_field *f = &b->f->base;
  size_t n = c->places;
  void **out = td_alloc((n + 1) * sizeof *out);
  td_tensor **sum = td_alloc((n + 1) * sizeof *sum);
  td_status s = out && sum ? TD_OK : td_last_status();
  *ybar = c->place[0] >= 0 ? cut(r, rows * td_row_bytes(b)) : NULL;
  *tbar = c->place[1] >= 0 ? (double *)(void *)cut(r, rows * sizeof **tbar) : NULL;
  for (size_t i = 0; i < n && !s; i++) {
    sum[i] = NULL;
    if (c->place[i] < 0) continue;
    const td_tensor *like = i < 2 ? NULL : f->externals[i - 2];
    if (like && !(sum[i] = td_auto(td_tensor_new(like->dtype, like->ndim, like->shape)))) s = td_last_status();
    else out[c->place[i]] = i == 0 ? *ybar : i == 1 ? (void *)*tbar : sum[i]->data;
  }
  if (!s && c->program) s = td_program_run(c->program, r->in, out);
  for (size_t i = 2; i < n && dexternal && !s; i++) s = td_field_add(&dexternal[i - 2], sum[i]);
  td_free(out, (n + 1) * sizeof *out);
  td_free(sum, (n + 1) * sizeof *sum);
  return s;
}

static td_status run_eval(td_batch *b, td_row_request *const *list, size_t count, size_t rows, compiled *c) {
  run r;
  size_t bytes = td_row_bytes(b);
  td_status s = run_begin(b, &r, rows, 2, 2);
  if (s) return s;
  lay_out(b, list, count, rows, false, &r);
  char *dy = cut(&r, rows * bytes);
  s = td_program_run(c->program, r.in, (void *[]){dy});
  for (size_t i = 0; i < count && !s && bytes; i++) memcpy(list[i]->out, dy + i * bytes, bytes);
  return s;
}

static td_status run_vjp(td_batch *b, td_row_request *const *list, size_t count, size_t rows, compiled *c) {
  size_t bytes = td_row_bytes(b);
  run r;
  char *ybar;
  double *tbar;
  td_status s = run_begin(b, &r, rows, 3, 3);
  if (s) return s;
  lay_out(b, list, count, rows, true, &r);
  s = run_back(b, c, &r, &ybar, &tbar, rows, list[0]->dexternal);
  for (size_t i = 0; i < count && !s; i++) {
    if (bytes && ybar) memcpy(list[i]->out, ybar + i * bytes, bytes);
    else if (bytes) memset(list[i]->out, 0, bytes);
    if (list[i]->tbar && tbar) *list[i]->tbar += tbar[i];
  }
  return s;
}

static double number_at(const td_field *f, const char *x, size_t i) {
  return f->dtype == TD_F64 ? ((const double *)(const void *)x)[i] : (double)((const float *)(const void *)x)[i];
}

static td_status run_second(td_batch *b, td_row_request *const *list, size_t count, size_t rows, compiled *c) {
  const td_field *f = &b->f->base;
  size_t bytes = td_row_bytes(b), terms = c->terms, n = f->numel;
  run r;
  char *ybar;
  double *tbar;
  td_status s = run_begin(b, &r, rows, 2 + 2 * terms, 3 + terms);
  if (s) return s;
  lay_out(b, list, count, rows, false, &r);
  r.in[W] = cut(&r, terms * rows * bytes);
  r.in[U] = cut(&r, terms * rows * bytes);
  r.in[V] = cut(&r, terms * rows * sizeof(double));
  td_rows_lay_terms(f, list, count, rows, c->units ? NULL : r.in[W], r.in[U], r.in[V]);
  s = run_back(b, c, &r, &ybar, &tbar, rows, list[0]->dexternal);
  for (size_t i = 0; i < count && !s; i++) {
    for (size_t k = 0; k < n && ybar; k++) ((double *)list[i]->out)[k] += number_at(f, ybar, i * n + k);
    if (list[i]->tbar && tbar) *list[i]->tbar += tbar[i];
  }
  return s;
}

static td_status run_jacobian(td_batch *b, td_row_request *const *list, size_t count, size_t rows, compiled *c) {
  const td_field *f = &b->f->base;
  size_t bytes = td_row_bytes(b), n = f->numel;
  void *out[2 * COMPONENTS], *at[2 * COMPONENTS] = {NULL};
  run r;
  td_status s = run_begin(b, &r, rows, 1 + n, 2 + n);
  if (s) return s;
  lay_out(b, list, count, rows, false, &r);
  char *gradients = cut(&r, n * rows * bytes);
  double *slopes = (void *)cut(&r, n * rows * sizeof *slopes);
  for (size_t i = 0; i < c->places; i++)
    if (c->place[i] >= 0) {
      at[i] = i % 2 ? (void *)(slopes + i / 2 * rows) : gradients + i / 2 * rows * bytes;
      out[c->place[i]] = at[i];
    }
  if (c->program) s = td_program_run(c->program, r.in, out);
  for (size_t i = 0; i < count && !s; i++)
    for (size_t j = 0; j < n; j++) {
      double *to = (double *)list[i]->out + j * n;
      for (size_t k = 0; k < n; k++) to[k] = at[2 * j] ? number_at(f, at[2 * j], i * n + k) : 0;
      if (list[i]->tbar) list[i]->tbar[j] = at[2 * j + 1] ? ((const double *)at[2 * j + 1])[i] : 0;
    }
  return s;
}

/* The program of that kind for so many rows; NULL when there is none yet, or none at all. */
static td_status program_of(td_batch *b, size_t rows, td_row_kind which, const td_field_second *second,
                            compiled **found) {
  *found = NULL;
  set *own = set_of(b->programs, rows);
  if (!own) return td_last_status();
  if (own->calls < CALLS_BEFORE) {
    own->calls++;
    return TD_OK;
  }
  compiled *c = &own->kind[which];
  if (!c->tried && second) c->terms = second->count, c->units = second->units;
  if (!c->tried && make(b, rows, which, c)) {
    td_program_release(c->program);
    c->program = NULL;
    td_free(c->place, c->place ? (c->places + 1) * sizeof *c->place : 0);
    c->place = NULL;
  }
  if (c->place && (!second || (c->terms == second->count && c->units == second->units))) *found = c;
  return TD_OK;
}

td_status td_batch_programs_answer(td_batch *b, td_row_request *const *list, size_t count, td_row_kind which,
                                   bool *done) {
  *done = false;
  if (which > SECOND || (which == JACOBIAN && b->f->base.numel > COMPONENTS)) return TD_OK;
  size_t rows = rounded(b, count);
  compiled *c;
  td_status s = program_of(b, rows, which, which == SECOND ? list[0]->second : NULL, &c);
  if (s || !c) return s;
  *done = true;
  switch (which) {
    case EVAL: return run_eval(b, list, count, rows, c);
    case JACOBIAN: return run_jacobian(b, list, count, rows, c);
    case SECOND: return run_second(b, list, count, rows, c);
    default: return run_vjp(b, list, count, rows, c);
  }
}

size_t td_rows_room(const td_batch *b, size_t count) { return rounded(b, count); }

td_status td_batch_programs_run(td_batch *b, td_row_kind which, td_rows_arrays *a, char *to, td_tensor **dexternal,
                                bool *done) {
  size_t rows = rounded(b, a->count), bytes = td_row_bytes(b), last = a->count - 1;
  compiled *c;
  td_status s = program_of(b, rows, which, NULL, &c);
  *done = !s && c;
  if (!*done) return s;
  for (size_t i = a->count; i < rows; i++) {
    a->t[i] = a->t[last];
    a->number[i] = a->number[last];
    memcpy(a->y + i * bytes, a->y + last * bytes, bytes);
    if (which == VJP_ALL) memset(a->w + i * bytes, 0, bytes);
  }
  run r;
  char *ybar;
  double *tbar;
  s = run_begin(b, &r, rows, 1, 1);
  if (s) return s;
  r.in[T] = a->t, r.in[Y] = a->y, r.in[ROWS] = a->number, r.in[W] = a->w;
  if (which == EVAL) return td_program_run(c->program, r.in, (void *[]){to});
  s = run_back(b, c, &r, &ybar, &tbar, rows, dexternal);
  if (!s && ybar) memcpy(to, ybar, a->count * bytes);
  else if (!s) memset(to, 0, a->count * bytes);
  return s;
}
