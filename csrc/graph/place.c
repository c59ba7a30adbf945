/* Where temporaries lie: buffers that are never alive together share memory. */
#include <stdlib.h>
#include <string.h>
#include "graph/ir.h"

/* Buffers that use one place one after the other: a chain of `shares`. Lives from the root's first to the last's
 * last. */
typedef struct {
  int root, first, last;
  size_t bytes, offset;
} block;

static size_t rounded(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* The operand of chain step i whose memory output o can take over: it dies here and lies exactly like the result. */
static int heir(const td_ir *ir, int i, int o, const bool *taken) {
  const td_step *s = ir->step[i];
  const td_value *y = &s->out[o];
  for (int k = 0; k < s->nin; k++) {
    const td_value *x = &s->in[k];
    const td_buffer *f = &ir->buffer[x->buffer];
    if (f->kind != TD_BUF_TEMP || f->last != i || taken[x->buffer] || x->dtype != y->dtype || x->ndim != y->ndim)
      continue;
    bool exact = td_value_is_whole(ir, x) && td_value_is_whole(ir, y) && x->numel == y->numel;
    for (int j = 0; j < s->nin && exact; j++)  /* nobody looks at it in another way */
      exact = s->in[j].buffer != x->buffer || td_value_same(&s->in[j], x);
    for (int d = 0; d < x->ndim && exact; d++) exact = x->shape[d] == y->shape[d];
    if (exact) return x->buffer;
  }
  return -1;
}

static td_status share(td_ir *ir) {
  bool *taken = td_pool_get(&ir->pool, (size_t)ir->nbuffer + 1);
  if (!taken) return td_last_status();
  for (int i = 0; i < ir->nstep; i++) {
    const td_step *s = ir->step[i];
    for (int o = 0; s->chain && o < s->nout; o++) {
      td_buffer *f = &ir->buffer[s->out[o].buffer];
      if (f->kind != TD_BUF_TEMP || f->rewritten) continue;
      f->shares = heir(ir, i, o, taken);
      if (f->shares >= 0) taken[f->shares] = true;
    }
  }
  return TD_OK;
}

static int by_size(const void *a, const void *b) {
  const block *x = a, *y = b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  return x->root - y->root;
}

static int by_offset(const void *a, const void *b) {
  const block *x = *(block *const *)a, *y = *(block *const *)b;
  return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The lowest gap that is free during the block's whole life, among the `n` placed before it. */
static size_t lowest(block *list, int n, const block *b, block **meets) {
  int count = 0;
  for (int i = 0; i < n; i++)
    if (list[i].first <= b->last && b->first <= list[i].last) meets[count++] = &list[i];
  qsort(meets, (size_t)count, sizeof *meets, by_offset);
  size_t at = 0;
  for (int i = 0; i < count; i++) {
    if (meets[i]->offset >= at + b->bytes) break;
    size_t end = meets[i]->offset + meets[i]->bytes;
    if (end > at) at = end;
  }
  return at;
}

td_status td_ir_place(td_ir *ir, size_t *bytes) {
  block *list = td_pool_get(&ir->pool, (size_t)(ir->nbuffer + 1) * sizeof *list);
  block **meets = td_pool_get(&ir->pool, (size_t)(ir->nbuffer + 1) * sizeof *meets);
  int *of = td_pool_get(&ir->pool, (size_t)(ir->nbuffer + 1) * sizeof *of);
  *bytes = 0;
  if (!list || !meets || !of || share(ir)) return td_last_status();
  int n = 0;
  for (int i = 0; i < ir->nbuffer; i++) {
    const td_buffer *f = &ir->buffer[i];
    if (f->kind != TD_BUF_TEMP || f->first < 0) continue;
    int root = i;
    while (ir->buffer[root].shares >= 0) root = ir->buffer[root].shares;
    of[i] = root;
    if (root != i) continue;
    list[n++] = (block){.root = i, .first = f->first, .last = f->last, .bytes = rounded(f->bytes)};
  }
  for (int i = 0; i < ir->nbuffer; i++) {
    const td_buffer *f = &ir->buffer[i];
    if (f->kind != TD_BUF_TEMP || f->first < 0 || of[i] == i) continue;
    for (int k = 0; k < n; k++)
      if (list[k].root == of[i] && list[k].last < f->last) list[k].last = f->last;
  }
  qsort(list, (size_t)n, sizeof *list, by_size);
  for (int i = 0; i < n; i++) {
    list[i].offset = lowest(list, i, &list[i], meets);
    if (list[i].offset + list[i].bytes > *bytes) *bytes = list[i].offset + list[i].bytes;
    ir->buffer[list[i].root].offset = list[i].offset;
  }
  for (int i = 0; i < ir->nbuffer; i++)
    if (ir->buffer[i].kind == TD_BUF_TEMP && ir->buffer[i].first >= 0) ir->buffer[i].offset = ir->buffer[of[i]].offset;
  return TD_OK;
}
