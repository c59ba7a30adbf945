/* Reductions along one dimension: sum, product, greatest and least element with its position, and
 * running sums. x is outer×n×inner. For inner = 1 a row is read with several vectors at once; for
 * inner > 1 neighbouring columns fill the vectors. How sums are cut into blocks is told in
 * reduce.h. */
#include "kernels/isa.h"
#include "kernels/reduce.h"

void TD_K(sum)(void *y, const void *x, size_t outer, size_t n, size_t inner) {
  td_reduce(TD_FOLD_SUM, y, x, outer, n, inner);
}

void TD_K(prod)(void *y, const void *x, size_t outer, size_t n, size_t inner) {
  td_reduce(TD_FOLD_PROD, y, x, outer, n, inner);
}

/* ---- Greatest and least -------------------------------------------------------------------- */

enum {
  BEST_COLUMNS = 256,
  BEST_SEGMENT = 1 << 30 /* rows whose positions fit in ireal also for float */
};

typedef struct {
  bool least;
  real *y;
  int64_t *at;
  const real *x;
  size_t n, inner, strips, blocks;
  real *part; /* best of each block of a row, when the blocks are spread over threads */
} best;

TD_INLINE bool is_better(bool least, real a, real b) { return least ? a < b : a > b; }
#if TD_KREAL == 2
static const real not_a_number = 0; /* integers have none */
static inline bool is_nan(real a) { return (void)a, false; }
static inline vint vis_nan(vreal a) { return (void)a, (vint){0}; }
#else
static const real not_a_number = (real)NAN;
static inline bool is_nan(real a) { return a != a; }
static inline vint vis_nan(vreal a) { return a != a; }
#endif

TD_INLINE vreal vbetter(bool least, vreal a, vreal b) {
  return td_vselect(least ? a < b : a > b, a, b);
}

/* The best of n >= 1 elements, NaN when there is one. */
TD_INLINE real block_best_op(bool least, const real *x, size_t n) {
  real b = x[0];
  bool nan = is_nan(b);
  size_t i = 0;
  if (n >= 4 * TD_LANES) {
    vreal a[4];
    vint odd = {0};
    for (int k = 0; k < 4; k++) a[k] = td_load(x + k * TD_LANES);
    for (; i + 4 * TD_LANES <= n; i += 4 * TD_LANES) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; k++) {
        vreal v = td_load(x + i + k * TD_LANES);
        odd |= vis_nan(v);
        a[k] = vbetter(least, v, a[k]);
      }
    }
    a[0] = vbetter(least, vbetter(least, a[0], a[1]), vbetter(least, a[2], a[3]));
    nan = td_vany(odd);
    real lane[TD_LANES];
    td_store(lane, a[0]);
#pragma GCC unroll 4
    for (int half = TD_LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
      for (int k = 0; k < half; k++)
        lane[k] = is_better(least, lane[k + half], lane[k]) ? lane[k + half] : lane[k];
    b = lane[0];
  }
  for (; i < n; i++) {
    nan |= is_nan(x[i]);
    b = is_better(least, x[i], b) ? x[i] : b;
  }
  return nan ? not_a_number : b;
}

static real block_best(bool least, const real *x, size_t n) {
  return least ? block_best_op(true, x, n) : block_best_op(false, x, n);
}

/* Position of the first element equal to b, or of the first NaN when b is NaN; there is one. */
static size_t find(real b, const real *x, size_t n) {
  size_t i = 0;
  bool nan = is_nan(b);
  vreal wanted = td_splat(b);
  for (; i + 2 * TD_LANES <= n; i += 2 * TD_LANES) {
    vreal u = td_load(x + i), v = td_load(x + i + TD_LANES);
    if (td_vany(nan ? vis_nan(u) | vis_nan(v) : (u == wanted) | (v == wanted))) break;
  }
  while (i + 1 < n && !(nan ? is_nan(x[i]) : x[i] == b)) i++;
  return i;
}

/* Whether a later value takes the place of b: strictly better, or the first NaN (which is not even
 * no better). */
TD_INLINE int takes(bool least, real a, real b) {
  return (int)!(least ? a >= b : a <= b) & (int)!is_nan(b);
}

/* The best of row o: of its blocks first, then the position inside that block. */
static void row_best(const best *r, size_t o) {
  const real *x = r->x + o * r->n;
  size_t which = 0;
  real b = 0;
  for (size_t i = 0; i < r->blocks; i++) {
    size_t from = i * TD_BLOCK;
    real v = r->part ? r->part[o * r->blocks + i]
                     : block_best(r->least, x + from, td_min_size(r->n - from, TD_BLOCK));
    if (i > 0 && !takes(r->least, v, b)) continue;
    b = v;
    which = from;
  }
  size_t at = which + find(b, x + which, td_min_size(r->n - which, TD_BLOCK));
  r->y[o] = x[at];
  r->at[o] = (int64_t)at;
}

static void best_rows(void *ctx, size_t begin, size_t end) {
  for (size_t o = begin; o < end; o++) row_best(ctx, o);
}

static void best_blocks(void *ctx, size_t begin, size_t end) {
  const best *r = ctx;
  for (size_t item = begin; item < end; item++) {
    size_t o = item / r->blocks, from = item % r->blocks * TD_BLOCK;
    r->part[item] =
        block_best(r->least, r->x + o * r->n + from, td_min_size(r->n - from, TD_BLOCK));
  }
}

/* One row of the columns' race: b and at hold the leaders so far, -1 for none of this segment. */
TD_INLINE void race(bool least, real *restrict b, ireal *restrict at, const real *restrict x,
                    ireal i, size_t w) {
  for (size_t j = 0; j < w; j++) {
    int take = takes(least, x[j], b[j]);
    b[j] = take ? x[j] : b[j];
    at[j] = take ? i : at[j];
  }
}

/* Items are (outer, strip), for inner > 1. */
static void best_strips(void *ctx, size_t begin, size_t end) {
  const best *r = ctx;
  real b[BEST_COLUMNS];
  ireal at[BEST_COLUMNS];
  for (size_t item = begin; item < end; item++) {
    size_t o = item / r->strips, j0 = item % r->strips * BEST_COLUMNS;
    size_t w = td_min_size(r->inner - j0, BEST_COLUMNS), out = o * r->inner + j0;
    const real *x = r->x + o * r->n * r->inner + j0;
    memcpy(b, x, w * sizeof *b);
    for (size_t j = 0; j < w; j++) r->at[out + j] = 0;
    for (size_t from = 0; from < r->n; from += BEST_SEGMENT) {
      size_t rows = td_min_size(r->n - from, BEST_SEGMENT);
      for (size_t j = 0; j < w; j++) at[j] = -1;
      for (size_t i = 0; i < rows; i++) {
        const real *row = x + (from + i) * r->inner;
        if (r->least) race(true, b, at, row, (ireal)i, w);
        else race(false, b, at, row, (ireal)i, w);
      }
      for (size_t j = 0; j < w; j++)
        if (at[j] >= 0) r->at[out + j] = (int64_t)from + at[j];
    }
    memcpy(r->y + out, b, w * sizeof *b);
  }
}

static void best_of(bool least, void *y, int64_t *at, const void *x, size_t outer, size_t n,
                    size_t inner) {
  if (outer == 0 || n == 0 || inner == 0) return;
  best r = {.least = least, .y = y, .at = at, .x = x, .n = n, .inner = inner};
  size_t threads = (size_t)td_threads();
  if (inner > 1) {
    r.strips = td_ceil_div(inner, BEST_COLUMNS);
    td_parallel(outer * r.strips, td_grain(n * td_min_size(inner, BEST_COLUMNS)), best_strips, &r);
    return;
  }
  r.blocks = td_ceil_div(n, TD_BLOCK);
  if (threads > 1 && outer < 4 * threads && outer * n > 2 * TD_GRAIN)
    r.part = td_scratch(outer * r.blocks * sizeof(real));
  if (r.part) td_parallel(outer * r.blocks, td_grain(TD_BLOCK), best_blocks, &r);
  td_parallel(outer, r.part ? outer : td_grain(n), best_rows, &r);
}

void TD_K(max)(void *y, int64_t *at, const void *x, size_t outer, size_t n, size_t inner) {
  best_of(false, y, at, x, outer, n, inner);
}

void TD_K(min)(void *y, int64_t *at, const void *x, size_t outer, size_t n, size_t inner) {
  best_of(true, y, at, x, outer, n, inner);
}

/* ---- Running sums -------------------------------------------------------------------------- */

enum { RUN = 8, RUN_COLUMNS = 256 };

typedef struct {
  td_num *y;
  const td_num *x;
  size_t n, inner, strips;
  bool reverse;
} running;

/* One row, RUN elements at a time: their own running sums do not wait for the carry. Summed in the
 * wider type. */
TD_INLINE void run_row(td_num *restrict y, const td_num *restrict x, size_t n, ptrdiff_t step) {
  td_wide carry = 0;
  size_t i = 0;
  for (; i + RUN <= n; i += RUN, x += RUN * step, y += RUN * step) {
    td_wide s[RUN];
    s[0] = x[0];
    for (int k = 1; k < RUN; k++) s[k] = s[k - 1] + x[k * step];
    for (int k = 0; k < RUN; k++) y[k * step] = (td_num)(carry + s[k]);
    carry += s[RUN - 1];
  }
  for (; i < n; i++, x += step, y += step) *y = (td_num)(carry += *x);
}

static void run_rows(void *ctx, size_t begin, size_t end) {
  const running *r = ctx;
  for (size_t o = begin; o < end; o++) {
    td_num *y = r->y + o * r->n;
    const td_num *x = r->x + o * r->n;
    if (r->reverse) run_row(y + r->n - 1, x + r->n - 1, r->n, -1);
    else run_row(y, x, r->n, 1);
  }
}

TD_INLINE void run_step(td_wide *restrict sum, td_num *restrict y, const td_num *restrict x,
                        size_t w) {
  for (size_t j = 0; j < w; j++) {
    sum[j] += x[j];
    y[j] = (td_num)sum[j];
  }
}

/* Items are (outer, strip), for inner > 1. */
static void run_strips(void *ctx, size_t begin, size_t end) {
  const running *r = ctx;
  td_wide sum[RUN_COLUMNS];
  for (size_t item = begin; item < end; item++) {
    size_t o = item / r->strips, j0 = item % r->strips * RUN_COLUMNS;
    size_t w = td_min_size(r->inner - j0, RUN_COLUMNS);
    memset(sum, 0, sizeof sum);
    for (size_t i = 0; i < r->n; i++) {
      size_t row = (o * r->n + (r->reverse ? r->n - 1 - i : i)) * r->inner + j0;
      run_step(sum, r->y + row, r->x + row, w);
    }
  }
}

void TD_K(cumsum)(void *y, const void *x, size_t outer, size_t n, size_t inner, bool reverse) {
  if (outer == 0 || n == 0 || inner == 0) return;
  running r = {y, x, n, inner, td_ceil_div(inner, RUN_COLUMNS), reverse};
  if (inner == 1) td_parallel(outer, td_grain(n), run_rows, &r);
  else td_parallel(outer * r.strips, td_grain(n * td_min_size(inner, RUN_COLUMNS)), run_strips, &r);
}
