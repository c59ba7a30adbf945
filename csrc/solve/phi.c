/* φ-functions of numbers and of small matrices. */
#include "solve/phi.h"
#include <math.h>
#include <string.h>

static const double inverse_factorial[TD_PHI + 1] = {1, 1, 1. / 2, 1. / 6, 1. / 24};

void td_phi_number(double z, double phi[TD_PHI]) {
  if (fabs(z) >= 1) {
    phi[0] = exp(z);
    for (int k = 1; k < TD_PHI; k++) phi[k] = (phi[k - 1] - inverse_factorial[k - 1]) / z;
    return;
  }
  double sum = 0, last = TD_PHI - 1, term = inverse_factorial[TD_PHI - 1];
  for (int j = 1; j < 24; j++) {  /* Σ z^j/(j + 3)! */
    sum += term;
    term *= z / (last + j);
  }
  phi[TD_PHI - 1] = sum;
  for (int k = TD_PHI - 2; k >= 0; k--) phi[k] = z * phi[k + 1] + inverse_factorial[k];
}

static void product(size_t m, const double *a, const double *b, double *out) {
  memset(out, 0, m * m * sizeof *out);
  for (size_t i = 0; i < m; i++)
    for (size_t k = 0; k < m; k++) {
      double f = a[i * m + k];
      if (f == 0) continue;
      for (size_t j = 0; j < m; j++) out[i * m + j] += f * b[k * m + j];
    }
}

static double norm_of(size_t m, const double *a) {
  double most = 0;
  for (size_t i = 0; i < m; i++) {
    double sum = 0;
    for (size_t j = 0; j < m; j++) sum += fabs(a[i * m + j]);
    if (!(sum <= most)) most = sum;
  }
  return most;
}

/* φ₃ by its series and the others by φₖ = z φₖ₊₁ + 1/k!, for a norm of at most a half. */
static void series(size_t m, const double *z, double *const phi[TD_PHI], double *term, double *next) {
  size_t mm = m * m;
  memset(term, 0, mm * sizeof *term);
  for (size_t i = 0; i < m; i++) term[i * m + i] = inverse_factorial[TD_PHI - 1];
  memset(phi[TD_PHI - 1], 0, mm * sizeof(double));
  for (int j = 1; j < 18; j++) {
    for (size_t i = 0; i < mm; i++) phi[TD_PHI - 1][i] += term[i];
    product(m, term, z, next);
    for (size_t i = 0; i < mm; i++) term[i] = next[i] / (TD_PHI - 1 + j);
  }
  for (int k = TD_PHI - 2; k >= 0; k--) {
    product(m, z, phi[k + 1], phi[k]);
    for (size_t i = 0; i < m; i++) phi[k][i * m + i] += inverse_factorial[k];
  }
}

/* φₖ(2z) = 2⁻ᵏ (φ₀(z) φₖ(z) + Σ_{1 ≤ j ≤ k} φⱼ(z)/(k − j)!), from the highest k down. */
static void twice(size_t m, double *const phi[TD_PHI], double *room) {
  size_t mm = m * m;
  for (int k = TD_PHI - 1; k >= 0; k--) {
    product(m, phi[0], phi[k], room);
    double scale = ldexp(1, -k);
    for (size_t i = 0; i < mm; i++) {
      double sum = room[i];
      for (int j = 1; j <= k; j++) sum += phi[j][i] * inverse_factorial[k - j];
      room[i] = sum * scale;
    }
    memcpy(phi[k], room, mm * sizeof(double));
  }
}

void td_phi_matrix(const double *a, double scale, size_t m, double *const phi[TD_PHI], double *room) {
  double *z = room, *term = room + m * m, *next = term + m * m;
  double size = norm_of(m, a) * fabs(scale);
  int halvings = size > 0.5 && isfinite(size) ? (int)ceil(log2(2 * size)) : 0;
  for (size_t i = 0; i < m * m; i++) z[i] = ldexp(a[i] * scale, -halvings);
  series(m, z, phi, term, next);
  for (int i = 0; i < halvings; i++) twice(m, phi, term);
}
