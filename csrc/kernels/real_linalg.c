/* Linear systems over batches of row-major matrices: LU, triangular solves, inverse,
 * determinant, Cholesky. The larger matrices go to LAPACK, which thinks in columns: a row-major
 * matrix is its own transpose there. Matrices of few rows are factored and solved here, where a
 * LAPACK call would cost more than the work. */
#include "kernels/isa.h"
#include "kernels/real_linalg.h"

/* ---- LAPACK ---------------------------------------------------------------------------------- */

void LA(getrf)(la_int m, la_int n, real *a, la_int lda, int *ipiv, int *info);
void LA(getri)(la_int n, real *a, la_int lda, la_int ipiv, real *work, la_int lwork, int *info);
void LA(potrf)(la_char uplo, la_int n, real *a, la_int lda, int *info, size_t);
void LA(trsm)(la_char side, la_char uplo, la_char trans, la_char diag, la_int m, la_int n,
              const real *alpha, const real *a, la_int lda, real *b, la_int ldb, size_t, size_t,
              size_t, size_t);
void LA(trsv)(la_char uplo, la_char trans, la_char diag, la_int n, const real *a, la_int lda,
              real *x, la_int incx, size_t, size_t, size_t);

enum { SMALL = 24, SMALL_SOLVE = 12 };

static void swap_rows(real *x, size_t k, size_t i, size_t j) {
  for (size_t c = 0; c < k && i != j; c++) {
    real t = x[i * k + c];
    x[i * k + c] = x[j * k + c];
    x[j * k + c] = t;
  }
}

/* ---- LU: P·A = L·U --------------------------------------------------------------------------- */

/* In place, with partial pivoting; a zero pivot is noted and passed over, as LAPACK does. */
static outcome small_lu(real *a, int64_t *pivots, size_t n) {
  outcome o = {DONE, 0};
  for (size_t j = 0; j < n; j++) {
    size_t p = j;
    for (size_t i = j + 1; i < n; i++)
      if (TD_ABS(a[i * n + j]) > TD_ABS(a[p * n + j])) p = i;
    pivots[j] = (int64_t)p;
    if (a[p * n + j] == 0) {
      if (o.kind == DONE) o = (outcome){SINGULAR, (uint32_t)j + 1};
      continue;
    }
    swap_rows(a, n, j, p);
    for (size_t i = j + 1; i < n; i++) {
      real f = a[i * n + j] /= a[j * n + j];
      for (size_t c = j + 1; c < n; c++) a[i * n + c] -= f * a[j * n + c];
    }
  }
  return o;
}

/* In place on a matrix stored by columns (`a` row-major: that of its transpose). ipiv is n ints,
 * from 1. */
static outcome column_lu(real *a, int *ipiv, size_t n) {
  int size = (int)n, info = 0;
  LA(getrf)(&size, &size, a, &size, ipiv, &info);
  return info > 0 ? (outcome){SINGULAR, (uint32_t)info} : (outcome){DONE, 0};
}

static size_t lu_work(size_t n) { return part(n, sizeof(int)); }

/* lu, pivots from a. The pivots are rows of A, so a larger matrix is transposed for LAPACK, and
 * back. */
static outcome factor(real *lu, int64_t *pivots, const real *a, size_t n, void *work) {
  int *ipiv = work;
  if (!all_finite(a, n * n)) return (outcome){NOT_FINITE, 0};
  if (n <= SMALL) {
    memcpy(lu, a, n * n * sizeof(real));
    return small_lu(lu, pivots, n);
  }
  transpose(lu, a, n, n);
  outcome o = column_lu(lu, ipiv, n);
  transpose_square(lu, n);
  for (size_t i = 0; i < n; i++) pivots[i] = ipiv[i] - 1;
  return o;
}

static outcome lu_one(const linalg_call *c, size_t i, void *work) {
  size_t n = c->n;
  return factor(c->x + i * n * n, c->index + i * n, c->a + i * n * n, n, work);
}

td_status TD_K(lu)(void *lu, int64_t *pivots, const void *a, size_t batch, size_t n) {
  linalg_call c = {.name = "lu", .one = lu_one, .work = lu_work(n), .batch = n ? batch : 0,
                   .m = n, .n = n, .a = a, .x = lu, .index = pivots};
  return linalg_run(&c, 0.67 * (double)n * (double)n * (double)n);
}

/* ---- Triangular systems ---------------------------------------------------------------------- */

/* x (n×k) = op(t)⁻¹·x, by substitution. */
static void small_triangular(const real *t, real *x, size_t n, size_t k, bool upper, bool trans,
                             bool unit) {
  size_t rs = trans ? 1 : n, cs = trans ? n : 1;
  bool backward = upper != trans;
  for (size_t s = 0; s < n; s++) {
    size_t i = backward ? n - 1 - s : s;
    real *xi = x + i * k;
    for (size_t r = 0; r < s; r++) {
      size_t j = backward ? n - 1 - r : r;
      real f = t[i * rs + j * cs];
      for (size_t q = 0; q < k; q++) xi[q] -= f * x[j * k + q];
    }
    for (size_t q = 0; q < k && !unit; q++) xi[q] /= t[i * n + i];
  }
}

/* The same, at any size. In columns, t is its transpose and so is x: op(t)·X = B becomes
 * Xᵀ·op(t)ᵀ = Bᵀ. */
static void triangular(const real *t, real *x, size_t n, size_t k, bool upper, bool trans,
                       bool unit) {
  const real one = 1;
  int size = (int)n, rhs = (int)k, inc = 1;
  const char *uplo = upper ? "L" : "U", *diag = unit ? "U" : "N";
  if (n <= SMALL_SOLVE)
    small_triangular(t, x, n, k, upper, trans, unit);
  else if (k == 1)
    LA(trsv)(uplo, trans ? "N" : "T", diag, &size, t, &size, x, &inc, 1, 1, 1);
  else
    LA(trsm)("R", uplo, trans ? "T" : "N", diag, &rhs, &size, &one, t, &size, x, &rhs, 1, 1, 1, 1);
}

/* The first zero on the diagonal. */
static outcome check_diagonal(const real *t, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (t[i * n + i] == 0) return (outcome){SINGULAR, (uint32_t)i + 1};
  return (outcome){DONE, 0};
}

static outcome triangular_one(const linalg_call *c, size_t i, void *work) {
  size_t n = c->n, k = c->k;
  const real *t = c->a + i * n * n;
  real *x = c->x + i * n * k;
  (void)work;
  outcome o = c->unit ? (outcome){DONE, 0} : check_diagonal(t, n);
  if (o.kind != DONE || k == 0) return o;
  if (c->x != c->b) memcpy(x, c->b + i * n * k, n * k * sizeof(real));
  triangular(t, x, n, k, c->upper, c->transpose, c->unit);
  return o;
}

td_status TD_K(triangular_solve)(void *x, const void *t, const void *b, size_t batch, size_t n,
                                 size_t k, bool upper, bool trans, bool unit) {
  linalg_call c = {.name = "triangular_solve", .one = triangular_one, .batch = n ? batch : 0,
                   .m = n, .n = n, .k = k, .a = t, .b = b, .x = x, .upper = upper,
                   .transpose = trans, .unit = unit};
  return linalg_run(&c, (double)n * (double)n * (double)k);
}

/* ---- Systems, inverse, determinant ----------------------------------------------------------- */

/* x = A⁻¹·x or A⁻ᵀ·x in place: P·A = L·U, hence Aᵀ = Uᵀ·Lᵀ·P. */
static outcome lu_substitute(const real *lu, const int64_t *pivots, real *x, size_t n, size_t k,
                             bool trans) {
  outcome o = check_diagonal(lu, n);
  if (o.kind != DONE || k == 0) return o;
  if (!trans) {
    for (size_t i = 0; i < n; i++) swap_rows(x, k, i, (size_t)pivots[i]);
    triangular(lu, x, n, k, false, false, true);
    triangular(lu, x, n, k, true, false, false);
  } else {
    triangular(lu, x, n, k, true, true, false);
    triangular(lu, x, n, k, false, true, true);
    for (size_t i = n; i-- > 0;) swap_rows(x, k, i, (size_t)pivots[i]);
  }
  return o;
}

static outcome lu_solve_one(const linalg_call *c, size_t i, void *work) {
  size_t n = c->n, k = c->k;
  real *x = c->x + i * n * k;
  (void)work;
  if (c->x != c->b) memcpy(x, c->b + i * n * k, n * k * sizeof(real));
  return lu_substitute(c->a + i * n * n, c->index + i * n, x, n, k, c->transpose);
}

td_status TD_K(lu_solve)(void *x, const void *lu, const int64_t *pivots, const void *b,
                         size_t batch, size_t n, size_t k, bool trans) {
  linalg_call c = {.name = "lu_solve", .one = lu_solve_one, .batch = n ? batch : 0, .m = n,
                   .n = n, .k = k, .a = lu, .b = b, .x = x,
                   .index = (int64_t *)(uintptr_t)pivots, .transpose = trans};
  return linalg_run(&c, 2 * (double)n * (double)n * (double)k);
}

static size_t solve_work(size_t n) {
  return part(n * n, sizeof(real)) + part(n, sizeof(int64_t)) + lu_work(n);
}

static outcome solve_one(const linalg_call *c, size_t i, void *work) {
  size_t n = c->n, k = c->k;
  real *lu = cut(&work, n * n * sizeof(real)), *x = c->x + i * n * k;
  int64_t *pivots = cut(&work, n * sizeof(int64_t));
  outcome o = factor(lu, pivots, c->a + i * n * n, n, work);
  if (o.kind != DONE) return o;
  if (c->x != c->b) memcpy(x, c->b + i * n * k, n * k * sizeof(real));
  return lu_substitute(lu, pivots, x, n, k, c->transpose);
}

td_status TD_K(solve)(void *x, const void *a, const void *b, size_t batch, size_t n, size_t k,
                      bool trans) {
  linalg_call c = {.name = "solve", .one = solve_one, .work = solve_work(n),
                   .batch = n ? batch : 0, .m = n, .n = n, .k = k, .a = a, .b = b, .x = x,
                   .transpose = trans};
  return linalg_run(&c, (double)n * (double)n * (0.67 * (double)n + 2 * (double)k));
}

/* The inverse of the transpose is the transpose of the inverse, so LAPACK's order does not
 * matter. */
static outcome large_inverse(real *y, const real *a, size_t n, void *work) {
  int size = (int)n, lwork = size * LA_BLOCK, info = 0;
  int *ipiv = cut(&work, n * sizeof(int));
  if (!all_finite(a, n * n)) return (outcome){NOT_FINITE, 0};
  memcpy(y, a, n * n * sizeof(real));
  outcome o = column_lu(y, ipiv, n);
  if (o.kind == DONE) LA(getri)(&size, y, &size, ipiv, work, &lwork, &info);
  return o;
}

static outcome inverse_one(const linalg_call *c, size_t i, void *work) {
  size_t n = c->n;
  const real *a = c->a + i * n * n;
  real *y = c->x + i * n * n;
  if (n > SMALL) return large_inverse(y, a, n, work);
  real *lu = cut(&work, n * n * sizeof(real));
  int64_t *pivots = cut(&work, n * sizeof(int64_t));
  outcome o = factor(lu, pivots, a, n, work);
  if (o.kind != DONE) return o;
  memset(y, 0, n * n * sizeof(real));
  for (size_t j = 0; j < n; j++) y[j * n + j] = 1;
  return lu_substitute(lu, pivots, y, n, n, false);
}

td_status TD_K(inverse)(void *y, const void *a, size_t batch, size_t n) {
  size_t work = n > SMALL ? part(n, sizeof(int)) + part(n * LA_BLOCK, sizeof(real)) : solve_work(n);
  linalg_call c = {.name = "inverse", .one = inverse_one, .work = work,
                   .batch = n ? batch : 0, .m = n, .n = n, .a = a, .x = y};
  return linalg_run(&c, 2 * (double)n * (double)n * (double)n);
}

/* A singular matrix is no failure: sign 0, logarithm -infinity. */
static outcome slogdet_one(const linalg_call *c, size_t i, void *work) {
  size_t n = c->n;
  real *lu = cut(&work, n * n * sizeof(real));
  int64_t *pivots = cut(&work, n * sizeof(int64_t));
  outcome o = n ? factor(lu, pivots, c->a + i * n * n, n, work) : (outcome){DONE, 0};
  if (o.kind == NOT_FINITE) return o;
  double sign = 1, log_abs = 0;
  for (size_t j = 0; j < n; j++) {
    double u = (double)lu[j * n + j];
    if (pivots[j] != (int64_t)j) sign = -sign;
    sign = u == 0 ? 0 : u < 0 ? -sign : sign;
    log_abs += log(fabs(u));
  }
  c->x[i] = (real)sign;
  c->y[i] = (real)log_abs;
  return (outcome){DONE, 0};
}

td_status TD_K(slogdet)(void *sign, void *log_abs, const void *a, size_t batch, size_t n) {
  linalg_call c = {.name = "slogdet", .one = slogdet_one, .work = solve_work(n), .batch = batch,
                   .m = n, .n = n, .a = a, .x = sign, .y = log_abs};
  return linalg_run(&c, 0.67 * (double)n * (double)n * (double)n);
}

/* ---- Cholesky: A = L·Lᵀ ---------------------------------------------------------------------- */

/* The lower triangle in rows is the upper one in columns, where A = Uᵀ·U with U = Lᵀ. */
static outcome cholesky_one(const linalg_call *c, size_t i, void *work) {
  size_t n = c->n;
  int size = (int)n, info = 0;
  real *l = c->x + i * n * n;
  (void)work;
  memset(l, 0, n * n * sizeof(real));
  for (size_t r = 0; r < n; r++) {
    const real *row = c->a + (i * n + r) * n;
    if (!all_finite(row, r + 1)) return (outcome){NOT_FINITE, 0};
    memcpy(l + r * n, row, (r + 1) * sizeof(real));
  }
  LA(potrf)("U", &size, l, &size, &info, 1);
  return info > 0 ? (outcome){NOT_POSITIVE, (uint32_t)info} : (outcome){DONE, 0};
}

td_status TD_K(cholesky)(void *l, const void *a, size_t batch, size_t n) {
  linalg_call c = {.name = "cholesky", .one = cholesky_one, .batch = n ? batch : 0, .m = n,
                   .n = n, .a = a, .x = l};
  return linalg_run(&c, 0.33 * (double)n * (double)n * (double)n);
}
