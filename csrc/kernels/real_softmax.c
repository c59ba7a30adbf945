/* Sums of squares, and the soft maximum of rows: logsumexp, softmax and log-softmax with their
 * gradients. A row's maximum is subtracted before exponentials are taken, so nothing overflows. A
 * row of -inf has logsumexp -inf, and its softmax is NaN, the 0/0 that it is. Sums are taken in
 * blocks which are joined in double. */
#include "kernels/isa.h"
#include "kernels/reduce.h"
#include "kernels/vmath.h"

void TD_K(sum_squares)(void *y, const void *x, size_t outer, size_t n, size_t inner) {
  td_reduce(TD_FOLD_SQUARES, y, x, outer, n, inner);
}

typedef struct {
  real *out;
  const real *a, *b;
  size_t n;
} rows_job;

/* The first k < TD_LANES elements; the other lanes hold `fill`. */
static inline vreal load_part(const real *p, size_t k, real fill) {
  static const ireal step[2 * TD_LANES] = {[0 ... TD_LANES - 1] = -1};
  vint mask;
  memcpy(&mask, step + TD_LANES - k, sizeof mask);
  return td_vselect(mask, td_load_part(p, k), td_splat(fill));
}

static inline vreal larger(vreal a, vreal b) { return td_vselect(a > b, a, b); }

/* The greatest of n >= 1 elements; unspecified when one is NaN. */
static real row_max(const real *x, size_t n) {
  vreal a[4];
  for (int k = 0; k < 4; k++) a[k] = td_splat((real)-INFINITY);
  size_t i = 0;
  for (; i + 4 * TD_LANES <= n; i += 4 * TD_LANES) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) a[k] = larger(td_load(x + i + k * TD_LANES), a[k]);
  }
  for (; i + TD_LANES <= n; i += TD_LANES) a[0] = larger(td_load(x + i), a[0]);
  if (i < n) a[1] = larger(load_part(x + i, n - i, (real)-INFINITY), a[1]);
  a[0] = larger(larger(a[0], a[1]), larger(a[2], a[3]));
  real lane[TD_LANES];
  td_store(lane, a[0]);
#pragma GCC unroll 4
  for (int half = TD_LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int k = 0; k < half; k++) lane[k] = lane[k + half] > lane[k] ? lane[k + half] : lane[k];
  return lane[0];
}

static inline real lane_sum(vreal v) { return td_fold_lanes(TD_FOLD_SUM, v); }

/* Σ exp(x - m) over n <= TD_BLOCK elements; with `keep` the terms are written to y. */
TD_INLINE real block_exp_sum(real *y, const real *x, size_t n, real m, bool keep) {
  vreal a = {0}, b = {0}, shift = td_splat(m);
  size_t i = 0;
  for (; i + 2 * TD_LANES <= n; i += 2 * TD_LANES) {
    vreal e = td_vexp(td_load(x + i) - shift), f = td_vexp(td_load(x + i + TD_LANES) - shift);
    if (keep) td_store(y + i, e);
    if (keep) td_store(y + i + TD_LANES, f);
    a += e;
    b += f;
  }
  for (; i < n; i += TD_LANES) {
    size_t k = td_min_size(n - i, TD_LANES);
    vreal e =
        td_vexp((k < TD_LANES ? load_part(x + i, k, (real)-INFINITY) : td_load(x + i)) - shift);
    if (keep && k < TD_LANES) td_store_part(y + i, e, k);
    else if (keep) td_store(y + i, e);
    a += e;
  }
  return lane_sum(a + b);
}

TD_INLINE double exp_sum(real *y, const real *x, size_t n, real m, bool keep) {
  double sum = 0;
  for (size_t i = 0; i < n; i += TD_BLOCK)
    sum += (double)block_exp_sum(keep ? y + i : NULL, x + i, td_min_size(n - i, TD_BLOCK), m, keep);
  return sum;
}

/* Σ a·b over a row. */
static double row_dot(const real *a, const real *b, size_t n) {
  double sum = 0;
  for (size_t from = 0; from < n; from += TD_BLOCK) {
    size_t i = from, end = from + td_min_size(n - from, TD_BLOCK);
    vreal s[4] = {{0}};
    real rest = 0;
    for (; i + 4 * TD_LANES <= end; i += 4 * TD_LANES) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; k++)
        s[k] += td_load(a + i + k * TD_LANES) * td_load(b + i + k * TD_LANES);
    }
    for (; i + TD_LANES <= end; i += TD_LANES) s[0] += td_load(a + i) * td_load(b + i);
    for (; i < end; i++) rest += a[i] * b[i];
    sum += (double)(lane_sum((s[0] + s[1]) + (s[2] + s[3])) + rest);
  }
  return sum;
}

/* ---- logsumexp ----------------------------------------------------------------------------- */

/* An infinite maximum is the result itself, unless there is a NaN. */
static real row_logsumexp(const real *x, size_t n) {
  real m = n ? row_max(x, n) : (real)-INFINITY;
  if (isfinite(m)) return (real)((double)m + log(exp_sum(NULL, x, n, m, false)));
  for (size_t i = 0; i < n; i++)
    if (x[i] != x[i]) return x[i];
  return m;
}

static void logsumexp_rows(void *ctx, size_t begin, size_t end) {
  const rows_job *j = ctx;
  for (size_t r = begin; r < end; r++) j->out[r] = row_logsumexp(j->a + r * j->n, j->n);
}

void TD_K(logsumexp)(void *y, const void *x, size_t rows, size_t n) {
  rows_job j = {y, x, NULL, n};
  td_parallel(rows, td_grain(4 * n), logsumexp_rows, &j);
}

/* ---- softmax ------------------------------------------------------------------------------- */

static void softmax_row(real *restrict y, const real *restrict x, size_t n) {
  double sum = exp_sum(y, x, n, row_max(x, n), true);
  real scale = (real)(1 / sum);
  for (size_t i = 0; i < n; i++) y[i] *= scale;
}

static void softmax_rows(void *ctx, size_t begin, size_t end) {
  const rows_job *j = ctx;
  for (size_t r = begin; r < end; r++) softmax_row(j->out + r * j->n, j->a + r * j->n, j->n);
}

void TD_K(softmax)(void *y, const void *x, size_t rows, size_t n) {
  if (n == 0) return;
  rows_job j = {y, x, NULL, n};
  td_parallel(rows, td_grain(4 * n), softmax_rows, &j);
}

/* dx = y·(dy - Σ y·dy) */
static void softmax_grad_row(real *restrict dx, const real *restrict y, const real *restrict dy,
                             size_t n) {
  real s = (real)row_dot(y, dy, n);
  for (size_t i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - s);
}

static void softmax_grad_rows(void *ctx, size_t begin, size_t end) {
  const rows_job *j = ctx;
  for (size_t r = begin; r < end; r++)
    softmax_grad_row(j->out + r * j->n, j->a + r * j->n, j->b + r * j->n, j->n);
}

void TD_K(softmax_grad)(void *dx, const void *y, const void *dy, size_t rows, size_t n) {
  if (n == 0) return;
  rows_job j = {dx, y, dy, n};
  td_parallel(rows, td_grain(n), softmax_grad_rows, &j);
}

/* ---- log-softmax --------------------------------------------------------------------------- */

static void log_softmax_row(real *restrict y, const real *restrict x, size_t n) {
  real m = row_max(x, n), log_sum = (real)log(exp_sum(NULL, x, n, m, false));
  for (size_t i = 0; i < n; i++) y[i] = (x[i] - m) - log_sum;
}

static void log_softmax_rows(void *ctx, size_t begin, size_t end) {
  const rows_job *j = ctx;
  for (size_t r = begin; r < end; r++) log_softmax_row(j->out + r * j->n, j->a + r * j->n, j->n);
}

void TD_K(log_softmax)(void *y, const void *x, size_t rows, size_t n) {
  if (n == 0) return;
  rows_job j = {y, x, NULL, n};
  td_parallel(rows, td_grain(4 * n), log_softmax_rows, &j);
}

/* dx = dy - exp(y)·Σ dy */
static void log_softmax_grad_row(real *restrict dx, const real *restrict y, const real *restrict dy,
                                 size_t n) {
  vreal s = td_splat(td_fold_row(TD_FOLD_SUM, dy, n));
  size_t i = 0;
  for (; i + TD_LANES <= n; i += TD_LANES)
    td_store(dx + i, td_load(dy + i) - td_vexp(td_load(y + i)) * s);
  if (i == n) return;
  vreal part = load_part(dy + i, n - i, 0) - td_vexp(load_part(y + i, n - i, 0)) * s;
  td_store_part(dx + i, part, n - i);
}

static void log_softmax_grad_rows(void *ctx, size_t begin, size_t end) {
  const rows_job *j = ctx;
  for (size_t r = begin; r < end; r++)
    log_softmax_grad_row(j->out + r * j->n, j->a + r * j->n, j->b + r * j->n, j->n);
}

void TD_K(log_softmax_grad)(void *dx, const void *y, const void *dy, size_t rows, size_t n) {
  if (n == 0) return;
  rows_job j = {dx, y, dy, n};
  td_parallel(rows, td_grain(4 * n), log_softmax_grad_rows, &j);
}
