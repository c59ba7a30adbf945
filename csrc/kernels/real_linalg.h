/* What the files of dense linear algebra share: running one function over a batch of matrices,
 * and saying which matrix failed and why. A failure is found by any thread, but messages belong
 * to the calling one: so a matrix's outcome is a number, the first failing matrix wins whatever
 * the threads do, and the message is made at the end. */
#ifndef TD_KERNELS_REAL_LINALG_H
#define TD_KERNELS_REAL_LINALG_H
#include <stdatomic.h>
#include <stdio.h>
#include "base/error.h"

#if TD_KREAL == 0
#define TD_ABS fabsf
#else
#define TD_ABS fabs
#endif

typedef enum {
  DONE, NOT_FINITE, SINGULAR, NOT_POSITIVE, NOT_CONVERGED, OVERFLOWED, NO_MEMORY
} outcome_kind;

typedef struct {
  outcome_kind kind;
  uint32_t at; /* SINGULAR: the pivot, NOT_POSITIVE: the size of the leading minor; from 1 */
} outcome;

/* A call: `one` works on matrix i of the batch, with `work` bytes that are its thread's own. */
typedef struct linalg_call linalg_call;
struct linalg_call {
  const char *name;   /* for messages */
  outcome (*one)(const linalg_call *c, size_t i, void *work);
  size_t work;
  size_t batch, m, n, k;
  const real *a, *b;
  real *x, *y, *z;    /* results */
  int64_t *index;     /* pivots, ranks */
  bool upper, transpose, unit;
  double rcond;
  int lwork;
  _Atomic uint64_t failure; /* first failing matrix, kind and `at`, packed so; or no_failure */
};

static const uint64_t no_failure = UINT64_MAX;

static inline void note_failure(linalg_call *c, size_t i, outcome o) {
  uint64_t packed = (uint64_t)i << 32 | (uint64_t)o.kind << 28 | (o.at & 0xFFFFFFFu);
  uint64_t first = atomic_load(&c->failure);
  while (packed < first && !atomic_compare_exchange_weak(&c->failure, &first, packed)) {}
}

static void linalg_task(void *ctx, size_t begin, size_t end) {
  linalg_call *c = ctx;
  void *work = c->work ? td_scratch(c->work) : NULL;
  if (c->work && !work) {
    note_failure(c, begin, (outcome){NO_MEMORY, 0});
    return;
  }
  for (size_t i = begin; i < end; i++) {
    outcome o = c->one(c, i, work);
    if (o.kind != DONE) note_failure(c, i, o);
  }
}

static td_status linalg_message(const linalg_call *c, uint64_t failure) {
  char which[64] = "the matrix";
  unsigned at = (unsigned)(failure & 0xFFFFFFFu);
  if (c->batch > 1)
    snprintf(which, sizeof which, "matrix %zu of %zu", (size_t)(failure >> 32) + 1, c->batch);
  switch ((outcome_kind)(failure >> 28 & 15)) {
    case NOT_FINITE:
      return td_fail(TD_ESOLVE, "%s: %s contains NaN or infinity", c->name, which);
    case SINGULAR:
      return td_fail(TD_ESOLVE, "%s: %s is singular: pivot %u is zero", c->name, which, at);
    case NOT_POSITIVE:
      return td_fail(TD_ESOLVE,
                     "%s: %s is not positive definite: its leading %u×%u minor is not positive",
                     c->name, which, at, at);
    case NOT_CONVERGED:
      return td_fail(TD_ESOLVE, "%s: the iteration did not converge for %s", c->name, which);
    case OVERFLOWED:
      return td_fail(TD_ESOLVE, "%s: the result overflows for %s", c->name, which);
    default:
      return td_fail(TD_ENOMEM, "%s: out of memory for the workspace", c->name);
  }
}

/* LAPACK counts in int, and some of its workspaces are several times the square of the smaller
 * side. */
static inline bool linalg_fits(const linalg_call *c) {
  size_t few = c->m < c->n ? c->m : c->n, many = c->m < c->n ? c->n : c->m;
  return few <= 1 << 14 && many <= 1 << 24 && few * many <= INT32_MAX && c->k <= 1 << 24 &&
         c->batch <= INT32_MAX;
}

/* Runs the call over its batch; `flops` is the work for one matrix, roughly. On failure the
 * results of matrices that did not fail are good all the same. */
static td_status linalg_run(linalg_call *c, double flops) {
  if (!linalg_fits(c))
    return td_fail(TD_EARG, "%s: %zu matrices of %zu×%zu are too large for LAPACK", c->name,
                   c->batch, c->m, c->n);
  size_t grain = 1 + (size_t)(40000 / (400 + flops)); /* 20 us or so */
  c->failure = no_failure;
  td_parallel(c->batch, grain, linalg_task, c);
  uint64_t failure = atomic_load(&c->failure);
  return failure == no_failure ? TD_OK : linalg_message(c, failure);
}

/* No NaN and no infinity in x. */
static inline bool all_finite(const real *x, size_t n) {
  real sum = 0;
  for (size_t i = 0; i < n; i++) sum += x[i] * 0;
  return sum == 0;
}

/* ---- LAPACK's world -------------------------------------------------------------------------- */

#if TD_KREAL == 0
#define LA(name) s##name##_
#else
#define LA(name) d##name##_
#endif

/* Fortran passes everything by address, and the lengths of strings behind all other arguments. */
typedef const int *la_int;
typedef const char *la_char;
enum { LA_BLOCK = 64 }; /* columns that LAPACK works on at a time, at most */

static inline size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

/* Cuts `bytes` off the front of a workspace; every part starts on a cache line. */
static inline void *cut(void **work, size_t bytes) {
  char *p = *work;
  *work = p + (bytes + 63) / 64 * 64;
  return p;
}

static inline size_t part(size_t count, size_t size) { return (count * size + 63) / 64 * 64; }

/* y (cols×rows) = xᵀ, x is rows×cols: in tiles, so that both sides stay in the cache. */
static inline void transpose(real *restrict y, const real *restrict x, size_t rows, size_t cols) {
  enum { TILE = 16 };
  for (size_t i0 = 0; i0 < rows; i0 += TILE)
    for (size_t j0 = 0; j0 < cols; j0 += TILE)
      for (size_t i = i0; i < rows && i < i0 + TILE; i++)
        for (size_t j = j0; j < cols && j < j0 + TILE; j++) y[j * rows + i] = x[i * cols + j];
}

static inline void transpose_square(real *x, size_t n) {
  enum { TILE = 16 };
  for (size_t i0 = 0; i0 < n; i0 += TILE)
    for (size_t j0 = 0; j0 <= i0; j0 += TILE)
      for (size_t i = i0; i < n && i < i0 + TILE; i++)
        for (size_t j = j0; j < i && j < j0 + TILE; j++) {
          real t = x[i * n + j];
          x[i * n + j] = x[j * n + i];
          x[j * n + i] = t;
        }
}

#endif
