/* Orthogonal factorisations of batches of row-major matrices, by LAPACK: QR, singular values,
 * symmetric eigenvalues, and least squares. A row-major matrix is its own transpose in LAPACK's
 * columns, so most of them take the variant of the transposed problem (LQ for QR, the other
 * triangle, U and V exchanged) and copy nothing; where that is impossible they transpose, and
 * say so. LAPACK is called with finite matrices only: some of its iterations would not end on a
 * NaN. */
#include "kernels/isa.h"
#include "kernels/real_linalg.h"

void LA(gelqf)(la_int m, la_int n, real *a, la_int lda, real *tau, real *work, la_int lwork,
               int *info);
void LA(orglq)(la_int m, la_int n, la_int k, real *a, la_int lda, const real *tau, real *work,
               la_int lwork, int *info);
void LA(gesdd)(la_char jobz, la_int m, la_int n, real *a, la_int lda, real *s, real *u, la_int ldu,
               real *vt, la_int ldvt, real *work, la_int lwork, int *iwork, int *info, size_t);
void LA(syevd)(la_char jobz, la_char uplo, la_int n, real *a, la_int lda, real *w, real *work,
               la_int lwork, int *iwork, la_int liwork, int *info, size_t, size_t);
void LA(gelsd)(la_int m, la_int n, la_int nrhs, real *a, la_int lda, real *b, la_int ldb, real *s,
               const real *rcond, int *rank, real *work, la_int lwork, int *iwork, int *info);

/* A workspace length as LAPACK reports it: in a real, which may have been rounded down. */
static int queried(real lwork) { return (int)((double)lwork * (1 + (double)TD_REAL_EPS)) + 1; }

/* ---- QR -------------------------------------------------------------------------------------- */

/* In columns: Aᵀ = Rᵀ·Qᵀ, which is LAPACK's LQ. */
static outcome qr_one(const linalg_call *c, size_t i, void *work) {
  size_t m = c->m, n = c->n, k = min_size(m, n);
  int rows = (int)n, cols = (int)m, rank = (int)k, lwork = c->lwork, info = 0;
  const real *a = c->a + i * m * n;
  real *q = c->x + i * m * k, *r = c->y + i * k * n;
  real *f = cut(&work, m * n * sizeof(real)), *tau = cut(&work, k * sizeof(real));
  if (!all_finite(a, m * n)) return (outcome){NOT_FINITE, 0};
  memcpy(f, a, m * n * sizeof(real));
  LA(gelqf)(&rows, &cols, f, &rows, tau, work, &lwork, &info);
  memset(r, 0, k * n * sizeof(real));
  for (size_t j = 0; j < k; j++) memcpy(r + j * n + j, f + j * n + j, (n - j) * sizeof(real));
  LA(orglq)(&rank, &cols, &rank, f, &rows, tau, work, &lwork, &info);
  for (size_t j = 0; j < m; j++) memcpy(q + j * k, f + j * n, k * sizeof(real));
  return (outcome){DONE, 0};
}

td_status TD_K(qr)(void *q, void *r, const void *a, size_t batch, size_t m, size_t n) {
  size_t k = min_size(m, n), lwork = n * LA_BLOCK;
  linalg_call c = {.name = "qr", .one = qr_one, .batch = k ? batch : 0, .m = m, .n = n, .a = a,
                   .x = q, .y = r, .lwork = (int)lwork};
  c.work = part(m * n, sizeof(real)) + part(k, sizeof(real)) + part(lwork, sizeof(real));
  return linalg_run(&c, 4 * (double)m * (double)n * (double)k);
}

/* ---- Singular values: A = U·diag(S)·Vᵀ ------------------------------------------------------- */

/* In columns Aᵀ = V·diag(S)·Uᵀ, n×m: LAPACK's U is our vt as it lies in memory, and its Vᵀ our
 * u. */
static int svd_call(const linalg_call *c, real *a, real *s, real *u, real *vt, real *work,
                    int lwork, int *iwork) {
  int rows = (int)c->n, cols = (int)c->m, k = rows < cols ? rows : cols, info = 0;
  LA(gesdd)(u ? "S" : "N", &rows, &cols, a, &rows, s, vt, &rows, u, &k, work, &lwork, iwork,
            &info, 1);
  return info;
}

static outcome svd_one(const linalg_call *c, size_t i, void *work) {
  size_t m = c->m, n = c->n, k = min_size(m, n);
  const real *a = c->a + i * m * n;
  real *copy = cut(&work, m * n * sizeof(real));
  int *iwork = cut(&work, 8 * k * sizeof(int));
  real *u = c->x ? c->x + i * m * k : NULL, *vt = c->z ? c->z + i * k * n : NULL;
  if (!all_finite(a, m * n)) return (outcome){NOT_FINITE, 0};
  memcpy(copy, a, m * n * sizeof(real));
  int info = svd_call(c, copy, c->y + i * k, u, vt, work, c->lwork, iwork);
  return info > 0 ? (outcome){NOT_CONVERGED, 0} : (outcome){DONE, 0};
}

td_status TD_K(svd)(void *u, void *s, void *vt, const void *a, size_t batch, size_t m, size_t n) {
  size_t k = min_size(m, n);
  linalg_call c = {.name = "svd", .one = svd_one, .batch = k ? batch : 0, .m = m, .n = n, .a = a,
                   .x = vt ? u : NULL, .y = s, .z = u ? vt : NULL};
  real lwork = 0, none = 0;
  int inone = 0;
  if (c.batch && linalg_fits(&c))
    svd_call(&c, &none, &none, c.x ? &none : NULL, c.z ? &none : NULL, &lwork, -1, &inone);
  c.lwork = queried(lwork);
  c.work = part(m * n, sizeof(real)) + part(8 * k, sizeof(int)) +
           part((size_t)c.lwork, sizeof(real));
  return linalg_run(&c, 20 * (double)m * (double)n * (double)k);
}

/* ---- Symmetric eigenvalues: A = V·diag(w)·Vᵀ ------------------------------------------------- */

static size_t eigh_lwork(size_t n) { return 1 + 6 * n + 2 * n * n; }
static size_t eigh_liwork(size_t n) { return 3 + 5 * n; }

/* The lower triangle in rows is the upper one in columns. LAPACK's eigenvectors lie in rows:
 * transposed at the end. */
static outcome eigh_one(const linalg_call *c, size_t i, void *work) {
  size_t n = c->n;
  int size = (int)n, lwork = (int)eigh_lwork(n), liwork = (int)eigh_liwork(n), info = 0;
  real *own = cut(&work, n * n * sizeof(real)), *v = c->x ? c->x + i * n * n : own;
  int *iwork = cut(&work, eigh_liwork(n) * sizeof(int));
  memset(v, 0, n * n * sizeof(real));
  for (size_t r = 0; r < n; r++) {
    const real *row = c->a + (i * n + r) * n;
    if (!all_finite(row, r + 1)) return (outcome){NOT_FINITE, 0};
    memcpy(v + r * n, row, (r + 1) * sizeof(real));
  }
  LA(syevd)(c->x ? "V" : "N", "U", &size, v, &size, c->y + i * n, work, &lwork, iwork,
            &liwork, &info, 1, 1);
  if (c->x) transpose_square(v, n);
  return info > 0 ? (outcome){NOT_CONVERGED, 0} : (outcome){DONE, 0};
}

td_status TD_K(eigh)(void *w, void *v, const void *a, size_t batch, size_t n) {
  linalg_call c = {.name = "eigh", .one = eigh_one, .batch = n ? batch : 0, .m = n, .n = n,
                   .a = a, .x = v, .y = w};
  c.work = part(n * n, sizeof(real)) + part(eigh_liwork(n), sizeof(int)) +
           part(eigh_lwork(n), sizeof(real));
  return linalg_run(&c, 9 * (double)n * (double)n * (double)n);
}

/* ---- Least squares --------------------------------------------------------------------------- */

static int lstsq_call(const linalg_call *c, real *a, real *b, real *s, int *rank, real *work,
                      int lwork, int *iwork) {
  int m = (int)c->m, n = (int)c->n, k = (int)max_size(c->k, 1), ldb = m > n ? m : n, info = 0;
  real rcond = (real)c->rcond;
  LA(gelsd)(&m, &n, &k, a, &m, b, &ldb, s, &rcond, rank, work, &lwork, iwork, &info);
  return info;
}

/* Here both sides are transposed into columns, B with room for the longer of B and X, and one
 * column at least: the rank is wanted all the same. */
static outcome lstsq_one(const linalg_call *c, size_t i, void *work) {
  size_t m = c->m, n = c->n, k = c->k, longer = max_size(m, n);
  const real *a = c->a + i * m * n, *b = c->b + i * m * k;
  real *x = c->x + i * n * k;
  real *at = cut(&work, m * n * sizeof(real));
  real *bt = cut(&work, longer * max_size(k, 1) * sizeof(real));
  real *s = cut(&work, min_size(m, n) * sizeof(real));
  real *lwork = cut(&work, (size_t)c->lwork * sizeof(real));
  int rank = 0;
  if (!all_finite(a, m * n) || !all_finite(b, m * k)) return (outcome){NOT_FINITE, 0};
  transpose(at, a, m, n);
  memset(bt, 0, longer * max_size(k, 1) * sizeof(real));
  for (size_t r = 0; r < m; r++)
    for (size_t j = 0; j < k; j++) bt[j * longer + r] = b[r * k + j];
  int info = lstsq_call(c, at, bt, s, &rank, lwork, c->lwork, work);
  for (size_t r = 0; r < n; r++)
    for (size_t j = 0; j < k; j++) x[r * k + j] = bt[j * longer + r];
  if (c->index) c->index[i] = rank;
  return info > 0 ? (outcome){NOT_CONVERGED, 0} : (outcome){DONE, 0};
}

td_status TD_K(lstsq)(void *x, int64_t *rank, const void *a, const void *b, size_t batch, size_t m,
                      size_t n, size_t k, double rcond) {
  size_t few = min_size(m, n), longer = max_size(m, n);
  linalg_call c = {.name = "lstsq", .one = lstsq_one, .batch = few ? batch : 0, .m = m,
                   .n = n, .k = k, .a = a, .b = b, .x = x, .index = rank};
  c.rcond = rcond >= 0 ? rcond : (double)TD_REAL_EPS * (double)longer;
  if (!c.batch && batch) { /* no equations: the shortest solution */
    if (n && k) memset(x, 0, batch * n * k * sizeof(real));
    for (size_t i = 0; rank && i < batch; i++) rank[i] = 0;
  }
  real lwork = 0, none = 0;
  int liwork = 1, r = 0;
  if (c.batch && linalg_fits(&c)) lstsq_call(&c, &none, &none, &none, &r, &lwork, -1, &liwork);
  c.lwork = queried(lwork);
  c.work = part(m * n, sizeof(real)) + part(longer * max_size(k, 1), sizeof(real)) +
           part(few, sizeof(real)) + part((size_t)c.lwork, sizeof(real)) +
           part((size_t)liwork, sizeof(int));
  return linalg_run(&c, 12 * (double)m * (double)n * (double)few);
}
