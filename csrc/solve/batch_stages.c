/* Explicit steps of a batch: rows that wait for all stages of a step go through them together, sums of slopes row by
 * row and f for all, and so does the transpose. The operations and their order are those of explicit.c. */
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"
#include "solve/batch_rows.h"
#include "solve/tableau.h"

/* Vectors of all rows under one another, in one block: y, the stages' states and slopes, or later their cotangents. */
typedef struct {
  td_row_request *const *list;
  const td_field_stages *like;  /* the first row's: but for h, t and vectors they are alike */
  td_rows_arrays a;
  td_stepper view;              /* for td_stepper_combine */
  size_t bytes;                 /* of one row's vector */
  char *y, *lambda, *state[TD_MAX_STAGES], *k[TD_MAX_STAGES];
  char *block;
  size_t block_bytes;
} work;

static double weight(const td_field_stages *s, int i, int j) { return s->a[i * (i - 1) / 2 + j]; }

/* `states`: every stage has one of its own; else all share one. */
static td_status begin(td_batch *b, td_row_request *const *list, size_t count, bool states, work *w) {
  const td_field *f = &b->f->base;
  size_t room = td_rows_room(b, count), bytes = td_row_bytes(b), all = (room * bytes + 63) & ~(size_t)63;
  size_t numbers = (room * sizeof(double) + 63) & ~(size_t)63;
  int s = list[0]->stages->stages;
  *w = (work){.list = list, .like = list[0]->stages, .bytes = bytes, .a = {.count = count},
              .view = {.f = &b->f->base, .n = f->numel, .bytes = bytes, .k = td_k(f->dtype)}};
  w->block_bytes = 2 * numbers + all * (size_t)(3 + s + (states ? s : 1)) + 64;
  w->block = td_alloc(w->block_bytes);
  if (!w->block) return td_last_status();
  char *at = w->block + (64 - (uintptr_t)w->block % 64) % 64;
  w->a.t = (void *)at;
  w->a.number = (void *)(at + numbers);
  w->y = at + 2 * numbers;
  w->lambda = w->y + all;
  w->a.w = w->lambda + all;
  for (int i = 0; i < s; i++) {
    w->k[i] = w->a.w + all * (size_t)(1 + i);
    w->state[i] = w->a.w + all * (size_t)(1 + s + (states ? i : 0));
  }
  for (size_t r = 0; r < count; r++) {
    w->a.number[r] = (int64_t)list[r]->field->row + 1;
    memcpy(w->y + r * bytes, list[r]->stages->y, bytes);
  }
  return TD_OK;
}

/* y + h Σ a[i][j] k[j] of every row. */
static void make_states(work *w, int i) {
  double coef[TD_MAX_STAGES];
  const void *x[TD_MAX_STAGES];
  for (size_t r = 0; r < w->a.count; r++) {
    double h = w->list[r]->stages->h;
    size_t at = r * w->bytes;
    int count = 0;
    for (int j = 0; j < i; j++) {
      if (weight(w->like, i, j) == 0) continue;
      coef[count] = h * weight(w->like, i, j);
      x[count++] = w->k[j] + at;
    }
    if (i == 0) memcpy(w->state[0] + at, w->y + at, w->bytes);
    else td_stepper_combine(&w->view, w->state[i] + at, w->y + at, count, coef, x);
  }
}

/* Where and when stage i is evaluated. */
static void point_at(work *w, int i) {
  for (size_t r = 0; r < w->a.count; r++) w->a.t[r] = w->list[r]->stages->t[i];
  w->a.y = w->state[i];
}

static td_status forward(td_batch *b, td_row_request *const *list, size_t count) {
  work w;
  td_status s = begin(b, list, count, false, &w);
  int first = list[0]->stages->first, end = list[0]->stages->end;
  for (int i = 0; i < first && !s; i++)
    for (size_t r = 0; r < count; r++) memcpy(w.k[i] + r * w.bytes, list[r]->stages->k[i], w.bytes);
  for (int i = first; i < end && !s; i++) {
    make_states(&w, i);
    point_at(&w, i);
    s = td_rows_eval(b, &w.a, w.k[i]);
  }
  for (size_t r = 0; r < count && !s; r++) {
    const td_field_stages *step = list[r]->stages;
    size_t at = r * w.bytes;
    for (int i = first; i < end; i++) memcpy(step->k[i], w.k[i] + at, w.bytes);
    if (end == step->stages) memcpy(step->y1, w.state[end - 1] + at, w.bytes);
  }
  td_free(w.block, w.block_bytes);
  return s;
}

/* k̄ of stage i: h·b[i]·λ and h·Σ a[j][i]·Ȳ of the later stages, last first. */
static void make_cotangents(work *w, int i, const bool *needed) {
  double coef[TD_MAX_STAGES + 1];
  const void *x[TD_MAX_STAGES + 1];
  for (size_t r = 0; r < w->a.count; r++) {
    double h = w->list[r]->stages->h;
    size_t at = r * w->bytes;
    int count = 0;
    if (w->like->b[i] != 0) coef[count] = h * w->like->b[i], x[count++] = w->lambda + at;
    for (int j = w->like->stages - 1; j > i; j--)
      if (needed[j] && weight(w->like, j, i) != 0) coef[count] = h * weight(w->like, j, i), x[count++] = w->k[j] + at;
    td_stepper_combine(&w->view, w->a.w + at, NULL, count, coef, x);
  }
}

/* Which stages y1 depends on, and which of them later ones of these read. */
static void mark(const td_field_stages *s, bool *needed, bool *read) {
  for (int i = 0; i < s->stages; i++) needed[i] = s->b[i] != 0, read[i] = false;
  for (int i = s->stages - 1; i > 0; i--)
    for (int j = 0; j < i && needed[i]; j++)
      if (weight(s, i, j) != 0) needed[j] = read[j] = true;
}

static td_status backward(td_batch *b, td_row_request *const *list, size_t count) {
  work w;
  bool needed[TD_MAX_STAGES], read[TD_MAX_STAGES];
  int stages = list[0]->stages->stages, used = 0;
  mark(list[0]->stages, needed, read);
  td_status s = begin(b, list, count, true, &w);
  for (size_t r = 0; r < count && !s; r++) memcpy(w.lambda + r * w.bytes, list[r]->out, w.bytes);
  for (int i = 0; i < stages && !s; i++) {
    if (!needed[i]) continue;
    make_states(&w, i);
    point_at(&w, i);
    if (read[i]) s = td_rows_eval(b, &w.a, w.k[i]);
  }
  double ones[TD_MAX_STAGES];
  const char *from[TD_MAX_STAGES];
  const void *x[TD_MAX_STAGES];
  for (int i = stages - 1; i >= 0 && !s; i--) {
    if (!needed[i]) continue;
    make_cotangents(&w, i, needed);
    point_at(&w, i);
    s = td_rows_pull(b, &w.a, w.k[i], list[0]->dexternal);
    ones[used] = 1;
    from[used++] = w.k[i];
  }
  for (size_t r = 0; r < count && !s; r++) {
    for (int i = 0; i < used; i++) x[i] = from[i] + r * w.bytes;
    td_stepper_combine(&w.view, list[r]->out, list[r]->out, used, ones, x);
  }
  td_free(w.block, w.block_bytes);
  return s;
}

td_status td_rows_answer_stages(td_batch *b, td_row_request *const *list, size_t count, bool back) {
  if (back) return backward(b, list, count);
  /* rows that make the same stages, of which there are nearly always all */
  td_row_request **same = td_alloc(2 * count * sizeof *same), **rest = same + count;
  if (!same) return td_last_status();
  size_t left = count;
  td_status s = TD_OK;
  memcpy(rest, list, count * sizeof *rest);
  while (left && !s) {
    const td_field_stages *like = rest[0]->stages;
    size_t n = 0, others = 0;
    for (size_t i = 0; i < left; i++) {
      const td_field_stages *own = rest[i]->stages;
      if (own->first == like->first && own->end == like->end) same[n++] = rest[i];
      else rest[others++] = rest[i];
    }
    s = forward(b, same, n);
    left = others;
  }
  td_free(same, 2 * count * sizeof *same);
  return s;
}
