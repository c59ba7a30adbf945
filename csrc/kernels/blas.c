/* Sets OpenBLAS up and checks it once. */
#include "kernels/blas.h"
#include <cblas.h>
#include <math.h>

/* Not a multiple of any register tile, so that kernels and their edges both work. */
enum { M = 37, N = 29, K = 53 };

/* Small whole numbers that follow no pattern a wrong index could keep: products and sums of them
 * are exact. */
static int number(int row, int col) { return (row * 7 + col * 13 + row * col % 5) % 17 - 8; }

static double reference(int i, int j) {
  double sum = 0;
  for (int k = 0; k < K; k++) sum += number(i, k) * number(k, j + 3);
  return sum;
}

/* Exact sums differ from the reference by nothing at all. */
static int check_double(void) {
  static double a[M * K], b[K * N], c[M * N];
  for (int i = 0; i < M * K; i++) a[i] = number(i / K, i % K);
  for (int i = 0; i < K * N; i++) b[i] = number(i / N, i % N + 3);
  for (int i = 0; i < M * N; i++) c[i] = NAN;
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, M, N, K, 1, a, K, b, N, 0, c, N);
  for (int i = 0; i < M * N; i++)
    if (!(c[i] == reference(i / N, i % N))) return i;
  return -1;
}

static int check_float(void) {
  static float a[M * K], b[K * N], c[M * N];
  for (int i = 0; i < M * K; i++) a[i] = (float)number(i / K, i % K);
  for (int i = 0; i < K * N; i++) b[i] = (float)number(i / N, i % N + 3);
  for (int i = 0; i < M * N; i++) c[i] = NAN;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, M, N, K, 1, a, K, b, N, 0, c, N);
  for (int i = 0; i < M * N; i++)
    if (!(c[i] == (float)reference(i / N, i % N))) return i;
  return -1;
}

static td_status wrong(const char *name, int at) {
  return td_fail(
      TD_ESOLVE,
      "openblas: %s is wrong on this processor (element %d of a %d×%d by %d×%d product): "
      "set OPENBLAS_CORETYPE to an older core, for example Haswell, or install a newer OpenBLAS",
      name, at, M, K, K, N);
}

td_status td_blas_init(void) {
  openblas_set_num_threads(1);
  int at = check_float();
  if (at >= 0) return wrong("sgemm", at);
  at = check_double();
  if (at >= 0) return wrong("dgemm", at);
  return TD_OK;
}
