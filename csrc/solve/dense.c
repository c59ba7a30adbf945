/* LU with partial pivoting, real and complex, row by row so that the inner loops run along rows. */
#include "solve/dense.h"
#include <complex.h>
#include <math.h>

static void swap_rows(double *a, size_t width, size_t i, size_t j) {
  if (i == j) return;
  for (size_t k = 0; k < width; k++) {
    double t = a[i * width + k];
    a[i * width + k] = a[j * width + k];
    a[j * width + k] = t;
  }
}

bool td_lu_factor(double *a, size_t *pivot, size_t n) {
  for (size_t k = 0; k < n; k++) {
    size_t best = k;
    for (size_t i = k + 1; i < n; i++)
      if (fabs(a[i * n + k]) > fabs(a[best * n + k])) best = i;
    pivot[k] = best;
    swap_rows(a, n, k, best);
    double top = a[k * n + k];
    if (!(fabs(top) > 0) || !isfinite(top)) return false;
    const double *from = a + k * n;
    for (size_t i = k + 1; i < n; i++) {
      double *row = a + i * n, factor = row[k] / top;
      row[k] = factor;
      if (factor == 0) continue;
      for (size_t j = k + 1; j < n; j++) row[j] -= factor * from[j];
    }
  }
  return true;
}

static void exchange(double *x, size_t width, const size_t *pivot, size_t n, bool backwards) {
  for (size_t k = 0; k < n; k++) {
    size_t i = backwards ? n - 1 - k : k;
    swap_rows(x, width, i, pivot[i]);
  }
}

void td_lu_solve(const double *lu, const size_t *pivot, size_t n, bool transposed, double *x) {
  if (!transposed) {
    exchange(x, 1, pivot, n, false);
    for (size_t i = 1; i < n; i++)
      for (size_t j = 0; j < i; j++) x[i] -= lu[i * n + j] * x[j];
    for (size_t i = n; i-- > 0;) {
      for (size_t j = i + 1; j < n; j++) x[i] -= lu[i * n + j] * x[j];
      x[i] /= lu[i * n + i];
    }
    return;
  }
  for (size_t i = 0; i < n; i++) {  /* Uᵀ, row by row of U */
    x[i] /= lu[i * n + i];
    for (size_t j = i + 1; j < n; j++) x[j] -= lu[i * n + j] * x[i];
  }
  for (size_t i = n; i-- > 1;)  /* Lᵀ */
    for (size_t j = 0; j < i; j++) x[j] -= lu[i * n + j] * x[i];
  exchange(x, 1, pivot, n, true);
}

/* ---- Complex. Products are written out: C's operator checks for infinities and is slow. ---- */

typedef double complex cx;

static cx times(cx a, cx b) {
  double ar = creal(a), ai = cimag(a), br = creal(b), bi = cimag(b);
  return CMPLX(ar * br - ai * bi, ar * bi + ai * br);
}
static cx inverse_of(cx a) {
  double r = creal(a), i = cimag(a), d = r * r + i * i;
  return CMPLX(r / d, -i / d);
}
static double size_of(cx a) { return fabs(creal(a)) + fabs(cimag(a)); }

bool td_lu_factor_complex(double *pairs, size_t *pivot, size_t n) {
  cx *a = (cx *)pairs;
  for (size_t k = 0; k < n; k++) {
    size_t best = k;
    for (size_t i = k + 1; i < n; i++)
      if (size_of(a[i * n + k]) > size_of(a[best * n + k])) best = i;
    pivot[k] = best;
    swap_rows(pairs, 2 * n, k, best);
    double top = size_of(a[k * n + k]);
    if (!(top > 0) || !isfinite(top)) return false;
    cx inverse = inverse_of(a[k * n + k]);
    const cx *from = a + k * n;
    for (size_t i = k + 1; i < n; i++) {
      cx *row = a + i * n, factor = times(row[k], inverse);
      row[k] = factor;
      if (size_of(factor) == 0) continue;
      for (size_t j = k + 1; j < n; j++) row[j] -= times(factor, from[j]);
    }
  }
  return true;
}

void td_lu_solve_complex(const double *pairs, const size_t *pivot, size_t n, bool transposed, double *x_pairs) {
  const cx *lu = (const cx *)pairs;
  cx *x = (cx *)x_pairs;
  if (!transposed) {
    exchange(x_pairs, 2, pivot, n, false);
    for (size_t i = 1; i < n; i++)
      for (size_t j = 0; j < i; j++) x[i] -= times(lu[i * n + j], x[j]);
    for (size_t i = n; i-- > 0;) {
      for (size_t j = i + 1; j < n; j++) x[i] -= times(lu[i * n + j], x[j]);
      x[i] = times(x[i], inverse_of(lu[i * n + i]));
    }
    return;
  }
  for (size_t i = 0; i < n; i++) {
    x[i] = times(x[i], inverse_of(lu[i * n + i]));
    for (size_t j = i + 1; j < n; j++) x[j] -= times(lu[i * n + j], x[i]);
  }
  for (size_t i = n; i-- > 1;)
    for (size_t j = 0; j < i; j++) x[j] -= times(lu[i * n + j], x[i]);
  exchange(x_pairs, 2, pivot, n, true);
}
