/* The matrix exponential by scaling and squaring: exp(A) = exp(A/2^s)^(2^s), the inner one by a
 * Padé approximant whose degree is the least that is exact to rounding for the norm at hand. N.
 * J. Higham, The scaling and squaring method for the matrix exponential revisited, SIAM J.
 * Matrix Anal. Appl. 26 (2005), algorithm 2.3 and table 2.3; in single precision the degrees 3,
 * 5 and 7 suffice. */
#include "kernels/isa.h"
#include "base/alloc.h"
#include "kernels/real_linalg.h"

void TD_K(matmul)(void *c, const void *a, const void *b, size_t m, size_t n, size_t k, size_t lda,
                  size_t ldb, size_t ldc, bool trans_a, bool trans_b, size_t batch, size_t stride_a,
                  size_t stride_b, size_t stride_c, double alpha, double beta);
td_status TD_K(solve)(void *x, const void *a, const void *b, size_t batch, size_t n, size_t k,
                      bool trans);

/* Up to which 1-norm the approximant of each degree [m/m] is good to half a unit in the last
 * place. */
typedef struct {
  int degree;
  double norm;
} pade;

#if TD_KREAL == 0
static const pade pades[] = {{3, 4.258730016922831e-1}, {5, 1.880152677804762},
                             {7, 3.925724783138660}};
#else
static const pade pades[] = {{3, 1.495585217958292e-2}, {5, 2.539398330063230e-1},
                             {7, 9.504178996162932e-1}, {9, 2.097847961257068},
                             {13, 5.371920351148152}};
#endif
enum { PADE_COUNT = sizeof pades / sizeof *pades, MAX_DEGREE = 13 };

/* The parts of the workspace, n×n each: the scaled matrix, its even powers, numerator and
 * denominator. */
enum { A1, A2, A4, A6, A8, ODD, EVEN, TEMP, PARTS };

typedef struct {
  size_t n;
  real *part[PARTS];
} expm_space;

static void multiply(real *c, const real *a, const real *b, size_t n) {
  TD_K(matmul)(c, a, b, n, n, n, n, n, n, false, false, 1, 0, 0, 0, 1, 0);
}

/* The greatest sum of absolute values in a column; `sums` is n numbers. */
static double norm1(const real *a, real *sums, size_t n) {
  double norm = 0;
  memset(sums, 0, n * sizeof(real));
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) sums[j] += TD_ABS(a[i * n + j]);
  for (size_t j = 0; j < n; j++) norm = fmax(norm, (double)sums[j]);
  return norm;
}

/* Coefficients of the numerator [m/m]: b_j = (2m-j)! m! / ((2m)! (m-j)! j!), scaled so that b_0
 * = 1. */
static void pade_coefficients(int degree, double b[MAX_DEGREE + 1]) {
  b[0] = 1;
  for (int j = 1; j <= degree; j++)
    b[j] = b[j - 1] * (degree - j + 1) / ((2.0 * degree - j + 1) * j);
}

/* y = c_0·I + c_1·A² + c_2·A⁴ + …, `terms` powers; y is added to when `add`. */
static void even_sum(const expm_space *s, real *y, const double *b, int terms, bool add) {
  size_t n = s->n;
  if (!add) memset(y, 0, n * n * sizeof(real));
  for (int t = 1; t <= terms; t++) {
    const real *p = s->part[A1 + t];
    real f = (real)b[2 * t];
    for (size_t i = 0; i < n * n; i++) y[i] += f * p[i];
  }
  for (size_t i = 0; i < n; i++) y[i * n + i] += (real)b[0];
}

/* y = Σ b_2j·A^2j, j up to degree/2, where b is shifted by one for the odd part. Degree 13 goes by
 * A⁶·(b_12·A⁶ + b_10·A⁴ + b_8·A²) + (b_6·A⁶ + b_4·A⁴ + b_2·A² + b_0·I). */
static void half_polynomial(const expm_space *s, real *y, const double *b, int degree) {
  size_t n = s->n;
  if (degree < 13) {
    even_sum(s, y, b, degree / 2, false);
    return;
  }
  const double high[] = {0, 0, b[8], 0, b[10], 0, b[12]};
  even_sum(s, s->part[TEMP], high, 3, false);
  multiply(y, s->part[A6], s->part[TEMP], n);
  even_sum(s, y, b, 3, true);
}

/* x = r(A) for the scaled A in part A1, r the approximant: x = (V-U)⁻¹·(V+U), U the odd part and
 * V the even one. */
static td_status pade_exp(const expm_space *s, real *x, int degree) {
  size_t n = s->n;
  real *u = s->part[ODD], *v = s->part[EVEN], *t = s->part[TEMP];
  double b[MAX_DEGREE + 1];
  pade_coefficients(degree, b);
  multiply(s->part[A2], s->part[A1], s->part[A1], n);
  if (degree >= 5) multiply(s->part[A4], s->part[A2], s->part[A2], n);
  if (degree >= 7) multiply(s->part[A6], s->part[A4], s->part[A2], n);
  if (degree == 9) multiply(s->part[A8], s->part[A4], s->part[A4], n);
  half_polynomial(s, v, b + 1, degree);
  multiply(u, s->part[A1], v, n);
  half_polynomial(s, v, b, degree);
  for (size_t i = 0; i < n * n; i++) {
    t[i] = v[i] - u[i];
    x[i] = v[i] + u[i];
  }
  return TD_K(solve)(x, t, x, 1, n, n, false);
}

/* The degree for a norm, and how many times the matrix is halved first. */
static int choose_degree(double norm, int *halvings) {
  *halvings = 0;
  for (int i = 0; i < PADE_COUNT; i++)
    if (norm <= pades[i].norm) return pades[i].degree;
  frexp(norm / pades[PADE_COUNT - 1].norm, halvings);
  return pades[PADE_COUNT - 1].degree;
}

static td_status scaled_squared(const expm_space *s, real *y, const real *a) {
  size_t n = s->n;
  int halvings, degree = choose_degree(norm1(a, s->part[TEMP], n), &halvings);
  real *from = y, *to = s->part[ODD];
  for (size_t i = 0; i < n * n; i++) s->part[A1][i] = (real)ldexp((double)a[i], -halvings);
  td_status status = pade_exp(s, y, degree);
  for (int h = 0; h < halvings && status == TD_OK; h++) {
    multiply(to, from, from, n);
    real *swap = from;
    from = to;
    to = swap;
  }
  if (from != y) memcpy(y, from, n * n * sizeof(real));
  return status;
}

/* The workspace is the allocator's, since the products use the scratch memory. */
static outcome expm_one(const linalg_call *c, size_t i, void *work) {
  size_t n = c->n, bytes = PARTS * n * n * sizeof(real);
  const real *a = c->a + i * n * n;
  (void)work;
  if (!all_finite(a, n * n)) return (outcome){NOT_FINITE, 0};
  real *p = td_alloc(bytes);
  if (!p) return (outcome){NO_MEMORY, 0};
  expm_space s = {.n = n};
  for (int k = 0; k < PARTS; k++) s.part[k] = p + (size_t)k * n * n;
  real *y = c->x + i * n * n;
  td_status status = scaled_squared(&s, y, a);
  td_free(p, bytes);
  return status == TD_OK && all_finite(y, n * n) ? (outcome){DONE, 0} : (outcome){OVERFLOWED, 0};
}

td_status TD_K(expm)(void *y, const void *a, size_t batch, size_t n) {
  linalg_call c = {.name = "expm", .one = expm_one, .batch = n ? batch : 0, .m = n, .n = n,
                   .a = a, .x = y};
  return linalg_run(&c, 16 * (double)n * (double)n * (double)n);
}
