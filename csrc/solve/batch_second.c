/* Second derivatives of a batch's right-hand side, all rows at once on the tape. */
#include <string.h>
#include "base/alloc.h"
#include "graph/tape.h"
#include "ops/ops.h"
#include "solve/batch_rows.h"
#include "solve/second.h"

/* x as the state's type, from to[at] on. */
static void narrow(const td_field *f, const double *x, char *to, size_t at) {
  td_tensor out = {.dtype = f->dtype, .data = to};
  for (size_t e = 0; e < f->numel; e++) td_tensor_set(&out, at + e, x[e]);
}

void td_rows_lay_terms(const td_field *f, td_row_request *const *list, size_t count, size_t rows, char *w, char *u,
                       double *v) {
  size_t n = f->numel, terms = list[0]->second->count, bytes = terms * rows * n * td_dtype_size(f->dtype);
  if (count < rows) {
    if (w) memset(w, 0, bytes);
    memset(u, 0, bytes);
    memset(v, 0, terms * rows * sizeof *v);
  }
  for (size_t k = 0; k < terms; k++)
    for (size_t i = 0; i < count; i++) {
      const td_field_second *sum = list[i]->second;
      if (w) narrow(f, sum->w + k * n, w, (k * rows + i) * n);
      narrow(f, sum->u + k * n, u, (k * rows + i) * n);
      v[k * rows + i] = sum->v[k];
    }
}

static td_status make_terms(td_batch *b, td_row_request *const *list, size_t count, const td_tensor *t,
                            const td_tensor *y, td_tensor **w, td_tensor **u, td_tensor **v) {
  const td_field *f = &b->f->base;
  size_t terms = list[0]->second->count, all = terms * count * f->numel * td_dtype_size(f->dtype);
  bool units = list[0]->second->units;
  size_t numbers = terms * count * sizeof(double), each = y->numel * td_dtype_size(f->dtype);
  char *block = td_alloc(2 * all + numbers + 1);
  if (!block) return td_last_status();
  double *vs = (void *)block;
  char *us = block + numbers, *ws = us + all;
  td_rows_lay_terms(f, list, count, count, units ? NULL : ws, us, vs);
  td_status s = TD_OK;
  for (size_t k = 0; k < terms && !s; k++) {
    w[k] = td_auto(td_tensor_zeros(f->dtype, y->ndim, y->shape));
    u[k] = td_auto(td_tensor_new(f->dtype, y->ndim, y->shape));
    v[k] = td_auto(td_tensor_new(TD_F64, t->ndim, t->shape));
    if (!w[k] || !u[k] || !v[k]) s = td_last_status();
    for (size_t i = 0; i < count && units && !s; i++) td_tensor_set(w[k], i * f->numel + k, 1);
    if (!s && !units) memcpy(w[k]->data, ws + k * each, each);
    if (!s) memcpy(u[k]->data, us + k * each, each);
    if (!s) memcpy(v[k]->data, vs + k * count, count * sizeof *vs);
  }
  td_free(block, 2 * all + numbers + 1);
  return s;
}

static td_status hand_out(const td_field *f, td_row_request *const *list, size_t count, td_tensor *const *grad) {
  td_tensor *flat = grad[0] ? td_auto(td_tensor_contiguous(grad[0])) : NULL;
  if (grad[0] && !flat) return td_last_status();
  for (size_t i = 0; i < count; i++) {
    for (size_t e = 0; flat && e < f->numel; e++) ((double *)list[i]->out)[e] += td_tensor_get(flat, i * f->numel + e);
    if (grad[1] && list[i]->tbar) *list[i]->tbar += td_tensor_get(grad[1], i);
  }
  td_status s = TD_OK;
  for (size_t i = 0; i < f->nexternals && list[0]->dexternal && !s; i++)
    s = td_field_add(&list[0]->dexternal[i], grad[2 + i]);
  return s;
}

td_status td_rows_answer_seconds(td_batch *b, td_row_request *const *list, size_t count) {
  const td_field *f = &b->f->base;
  size_t nin = 2 + f->nexternals;
  td_tensor *t, *y, *rows, *dy, *w[TD_SECOND_MOST], *u[TD_SECOND_MOST], *v[TD_SECOND_MOST];
  td_status s = td_rows_gather(b, list, count, &t, &y, &rows);
  uint64_t since = td_tape_now();
  if (!s) s = td_requires_grad(y, true);
  if (!s) s = td_requires_grad(t, true);
  if (!s) s = td_rows_call(b, t, y, rows, true, &dy);
  if (!s) s = td_rows_check_known(b, dy, since);
  if (s || !dy->node) return s;
  td_tensor **in = td_alloc(2 * nin * sizeof *in), **grad = in + nin;
  if (!in) return td_last_status();
  in[0] = y;
  in[1] = t;
  for (size_t i = 2; i < nin; i++) in[i] = f->externals[i - 2];
  for (size_t i = 0; i < nin; i++) grad[i] = NULL;
  s = make_terms(b, list, count, t, y, w, u, v);
  if (!s) s = td_second_pull(dy, t, y, list[0]->second->count, w, u, v, in, (int)nin, grad);
  if (!s) s = hand_out(f, list, count, grad);
  for (size_t i = 0; i < nin; i++) td_tensor_release(grad[i]);
  td_free(in, 2 * nin * sizeof *in);
  return s;
}
