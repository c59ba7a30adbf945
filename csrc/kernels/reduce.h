/* Folding an array along one dimension: sums, products and sums of squares. x is outer×n×inner, y
 * is outer×inner.
 *
 * The n elements that meet in one result are cut into blocks whose size depends on the shape alone.
 * A block is folded in the element type with many accumulators, and the blocks are joined in order
 * in a wider type. So the rounding error grows with the size of a block rather than with n, and the
 * result is the same whichever thread folds which block. */
#ifndef TD_KERNELS_REDUCE_H
#define TD_KERNELS_REDUCE_H
#include "kernels/isa.h"
#include "kernels/vmath.h"

typedef enum { TD_FOLD_SUM, TD_FOLD_PROD, TD_FOLD_SQUARES } td_fold;

#if TD_KREAL == 2
typedef uint64_t td_num; /* integers wrap around, so they are folded unsigned */
typedef uint64_t td_wide;
#else
typedef real td_num;
typedef double td_wide;
#endif
typedef td_num td_vnum __attribute__((vector_size(TD_VBYTES)));
typedef td_num td_vnum_u __attribute__((vector_size(TD_VBYTES), aligned(1), may_alias));

#define TD_INLINE static inline __attribute__((always_inline))

enum {
  TD_BLOCK = 4096,    /* elements of a block of a row, for inner = 1 */
  TD_BLOCK_ROWS = 64, /* (wide) rows of a block, for inner > 1 */
  TD_COLUMNS = 1024,  /* most columns that one piece of work covers, for inner > 1 */
  TD_NARROW = 64,     /* fewer columns than this are taken several rows at once */
  TD_GRAIN = 16384    /* elements worth giving to another thread */
};

static inline size_t td_min_size(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t td_ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }
/* Number of items of `work` elements each that make one piece of parallel work. */
static inline size_t td_grain(size_t work) {
  return work >= TD_GRAIN ? 1 : TD_GRAIN / (work ? work : 1);
}

TD_INLINE td_num td_fold_first(td_fold op) { return op == TD_FOLD_PROD ? 1 : 0; }
TD_INLINE td_num td_fold_term(td_fold op, td_num x) { return op == TD_FOLD_SQUARES ? x * x : x; }
TD_INLINE td_num td_fold_join(td_fold op, td_num a, td_num b) {
  return op == TD_FOLD_PROD ? a * b : a + b;
}
TD_INLINE td_wide td_fold_wide(td_fold op, td_wide a, td_wide b) {
  return op == TD_FOLD_PROD ? a * b : a + b;
}
TD_INLINE td_vnum td_fold_vjoin(td_fold op, td_vnum a, td_vnum b) {
  return op == TD_FOLD_PROD ? a * b : a + b;
}
TD_INLINE td_vnum td_fold_vterm(td_fold op, const td_num *p) {
  td_vnum v = *(const td_vnum_u *)p;
  return op == TD_FOLD_SQUARES ? v * v : v;
}

/* The fold of a vector's elements, by halves. */
TD_INLINE td_num td_fold_lanes(td_fold op, td_vnum v) {
  typedef td_num quarter __attribute__((vector_size(16)));
  quarter q[2];
  memcpy(q, &v, sizeof q < sizeof v ? sizeof q : sizeof v);
#if TD_VBYTES == 64
  typedef td_num half __attribute__((vector_size(32)));
  half h[2];
  memcpy(h, &v, sizeof h);
  h[0] = op == TD_FOLD_PROD ? h[0] * h[1] : h[0] + h[1];
  memcpy(q, &h[0], sizeof q);
#endif
  if (TD_VBYTES > 16) q[0] = op == TD_FOLD_PROD ? q[0] * q[1] : q[0] + q[1];
  td_num a = td_fold_join(op, q[0][0], q[0][1]);
  const int last = 16 / sizeof(td_num) - 1;
  return last == 1 ? a : td_fold_join(op, a, td_fold_join(op, q[0][last - 1], q[0][last]));
}

/* The fold of n <= TD_BLOCK consecutive elements: eight vectors of partial results, joined as a
 * tree. */
TD_INLINE td_num td_fold_block_op(td_fold op, const td_num *x, size_t n) {
  td_num total = td_fold_first(op);
  size_t i = 0;
  if (n >= TD_LANES && n < 8 * TD_LANES) {  /* one of the eight is enough: the others would stay neutral */
    td_vnum a = td_fold_first(op) - (td_vnum){0};
    for (; i + TD_LANES <= n; i += TD_LANES) a = td_fold_vjoin(op, a, td_fold_vterm(op, x + i));
    total = td_fold_lanes(op, a);
  } else if (n >= TD_LANES) {
    td_vnum a[8];
    for (int k = 0; k < 8; k++) a[k] = td_fold_first(op) - (td_vnum){0};
    for (; i + 8 * TD_LANES <= n; i += 8 * TD_LANES) {
#pragma GCC unroll 8
      for (int k = 0; k < 8; k++)
        a[k] = td_fold_vjoin(op, a[k], td_fold_vterm(op, x + i + k * TD_LANES));
    }
    for (; i + TD_LANES <= n; i += TD_LANES)
      a[0] = td_fold_vjoin(op, a[0], td_fold_vterm(op, x + i));
    for (int k = 0; k < 4; k++) a[k] = td_fold_vjoin(op, a[k], a[k + 4]);
    a[0] = td_fold_vjoin(op, td_fold_vjoin(op, a[0], a[1]), td_fold_vjoin(op, a[2], a[3]));
    total = td_fold_lanes(op, a[0]);
  }
  for (; i < n; i++) total = td_fold_join(op, total, td_fold_term(op, x[i]));
  return total;
}

static inline td_num td_fold_block(td_fold op, const td_num *x, size_t n) {
  switch (op) {
    case TD_FOLD_SUM: return td_fold_block_op(TD_FOLD_SUM, x, n);
    case TD_FOLD_PROD: return td_fold_block_op(TD_FOLD_PROD, x, n);
    default: return td_fold_block_op(TD_FOLD_SQUARES, x, n);
  }
}

/* The fold of a row: its blocks in order. */
static inline td_num td_fold_row(td_fold op, const td_num *x, size_t n) {
  if (n <= TD_BLOCK) return td_fold_block(op, x, n);
  td_wide total = td_fold_first(op);
  for (size_t i = 0; i < n; i += TD_BLOCK)
    total = td_fold_wide(op, total, td_fold_block(op, x + i, td_min_size(n - i, TD_BLOCK)));
  return (td_num)total;
}

/* acc[j] = fold over i < rows of x[i·stride + j], for j < w: eight rows for every pass over acc. */
TD_INLINE void td_fold_columns_op(td_fold op, td_num *restrict acc, const td_num *restrict x,
                                  size_t rows, size_t stride, size_t w) {
  for (size_t j = 0; j < w; j++) acc[j] = td_fold_first(op);
  size_t i = 0;
  for (; i + 8 <= rows; i += 8, x += 8 * stride)
    for (size_t j = 0; j < w; j++) {
      td_num t[8];
      for (int k = 0; k < 8; k++) t[k] = td_fold_term(op, x[k * stride + j]);
      td_num a = td_fold_join(op, td_fold_join(op, t[0], t[1]), td_fold_join(op, t[2], t[3]));
      td_num b = td_fold_join(op, td_fold_join(op, t[4], t[5]), td_fold_join(op, t[6], t[7]));
      acc[j] = td_fold_join(op, acc[j], td_fold_join(op, a, b));
    }
  for (; i < rows; i++, x += stride)
    for (size_t j = 0; j < w; j++) acc[j] = td_fold_join(op, acc[j], td_fold_term(op, x[j]));
}

static inline void td_fold_columns(td_fold op, td_num *acc, const td_num *x, size_t rows,
                                   size_t stride, size_t w) {
  switch (op) {
    case TD_FOLD_SUM: td_fold_columns_op(TD_FOLD_SUM, acc, x, rows, stride, w); break;
    case TD_FOLD_PROD: td_fold_columns_op(TD_FOLD_PROD, acc, x, rows, stride, w); break;
    default: td_fold_columns_op(TD_FOLD_SQUARES, acc, x, rows, stride, w); break;
  }
}

typedef struct {
  td_fold op;
  td_num *y;
  const td_num *x;
  size_t outer, n, inner;
  size_t together;   /* rows of inner elements taken as one wide row, so that a vector is filled */
  size_t block_rows; /* rows of a block */
  size_t blocks;     /* blocks of one result */
  size_t strips;     /* pieces of at most TD_COLUMNS columns */
  td_wide *part;     /* outer×blocks×inner, when the blocks are spread over threads; else NULL */
} td_reduction;

/* Folds block b of the columns [j0, j0 + w) of outer index o into acc. */
static inline void td_fold_patch(const td_reduction *r, size_t o, size_t b, size_t j0, size_t w,
                                 td_num *acc) {
  size_t i0 = b * r->block_rows, rows = td_min_size(r->n - i0, r->block_rows), k = r->together;
  const td_num *x = r->x + (o * r->n + i0) * r->inner + j0;
  if (k < 2 || rows < 2 * k) {
    td_fold_columns(r->op, acc, x, rows, r->inner, w);
    return;
  }
  td_num wide[2 * TD_NARROW], rest[TD_NARROW];
  td_fold_columns(r->op, wide, x, rows / k, k * w, k * w);
  td_fold_columns(r->op, rest, x + rows / k * k * w, rows % k, w, w);
  for (size_t j = 0; j < w; j++) {
    td_num a = wide[j];
    for (size_t i = 1; i < k; i++) a = td_fold_join(r->op, a, wide[i * w + j]);
    acc[j] = td_fold_join(r->op, a, rest[j]);
  }
}

/* Items are rows, for inner = 1. */
static inline void td_reduce_rows(void *ctx, size_t begin, size_t end) {
  const td_reduction *r = ctx;
  for (size_t o = begin; o < end; o++) r->y[o] = td_fold_row(r->op, r->x + o * r->n, r->n);
}

/* Items are blocks of rows, for inner = 1. */
static inline void td_reduce_row_blocks(void *ctx, size_t begin, size_t end) {
  const td_reduction *r = ctx;
  for (size_t item = begin; item < end; item++) {
    size_t o = item / r->blocks, i = item % r->blocks * TD_BLOCK;
    r->part[item] = td_fold_block(r->op, r->x + o * r->n + i, td_min_size(r->n - i, TD_BLOCK));
  }
}

/* Items are (outer, strip), for inner > 1. */
static inline void td_reduce_strips(void *ctx, size_t begin, size_t end) {
  const td_reduction *r = ctx;
  td_num acc[TD_COLUMNS];
  td_wide total[TD_COLUMNS];
  for (size_t item = begin; item < end; item++) {
    size_t o = item / r->strips, j0 = item % r->strips * TD_COLUMNS;
    size_t w = td_min_size(r->inner - j0, TD_COLUMNS);
    td_num *y = r->y + o * r->inner + j0;
    if (r->blocks == 1) {
      td_fold_patch(r, o, 0, j0, w, y);
      continue;
    }
    for (size_t j = 0; j < w; j++) total[j] = td_fold_first(r->op);
    for (size_t b = 0; b < r->blocks; b++) {
      td_fold_patch(r, o, b, j0, w, acc);
      for (size_t j = 0; j < w; j++) total[j] = td_fold_wide(r->op, total[j], acc[j]);
    }
    for (size_t j = 0; j < w; j++) y[j] = (td_num)total[j];
  }
}

/* Items are (outer, block, strip), for inner > 1. */
static inline void td_reduce_patches(void *ctx, size_t begin, size_t end) {
  const td_reduction *r = ctx;
  td_num acc[TD_COLUMNS];
  for (size_t item = begin; item < end; item++) {
    size_t j0 = item % r->strips * TD_COLUMNS, ob = item / r->strips;
    size_t w = td_min_size(r->inner - j0, TD_COLUMNS);
    td_fold_patch(r, ob / r->blocks, ob % r->blocks, j0, w, acc);
    for (size_t j = 0; j < w; j++) r->part[ob * r->inner + j0 + j] = acc[j];
  }
}

/* Joins the parts in order of their blocks. */
static inline void td_reduce_join(const td_reduction *r) {
  for (size_t o = 0; o < r->outer; o++)
    for (size_t j = 0; j < r->inner; j++) {
      const td_wide *part = r->part + o * r->blocks * r->inner + j;
      td_wide total = td_fold_first(r->op);
      for (size_t b = 0; b < r->blocks; b++) total = td_fold_wide(r->op, total, part[b * r->inner]);
      r->y[o * r->inner + j] = (td_num)total;
    }
}

/* y = fold of x along n. Results are spread over the threads when there are enough of them, else
 * their blocks are; the numbers are the same. n = 0 gives the fold's neutral element. */
static inline void td_reduce(td_fold op, void *y, const void *x, size_t outer, size_t n,
                             size_t inner) {
  if (outer == 0 || inner == 0) return;
  td_reduction r = {
      .op = op, .y = y, .x = x, .outer = outer, .n = n, .inner = inner, .together = 1};
  bool rows = inner == 1;
  if (!rows && inner < TD_NARROW) r.together = td_ceil_div(TD_NARROW, inner);
  r.block_rows = rows ? TD_BLOCK : TD_BLOCK_ROWS * r.together;
  r.blocks = n ? td_ceil_div(n, r.block_rows) : 1;
  r.strips = rows ? 1 : td_ceil_div(inner, TD_COLUMNS);
  size_t results = outer * r.strips, work = n * (rows ? 1 : td_min_size(inner, TD_COLUMNS));
  size_t threads = (size_t)td_threads();
  if (r.blocks > 1 && threads > 1 && results < 4 * threads && results * work > 2 * TD_GRAIN)
    r.part = td_scratch(outer * r.blocks * inner * sizeof(td_wide));
  if (r.part) {
    size_t block_work = td_min_size(n, r.block_rows) * (rows ? 1 : td_min_size(inner, TD_COLUMNS));
    td_parallel(results * r.blocks, td_grain(block_work),
                rows ? td_reduce_row_blocks : td_reduce_patches, &r);
    td_reduce_join(&r);
  } else {
    td_parallel(results, td_grain(work), rows ? td_reduce_rows : td_reduce_strips, &r);
  }
}

#endif
