/* Collocation coefficients, derived. */
#include "solve/collocation.h"
#include <math.h>
#include <string.h>

typedef long double quad;  /* extended precision: the results are rounded to double once */
enum { MAX = TD_COLLOCATION_STAGES };

/* x becomes m⁻¹·x for an n×n system by elimination with pivoting. */
static void solve(int n, quad m[MAX][MAX], quad *x) {
  for (int k = 0; k < n; k++) {
    int best = k;
    for (int i = k + 1; i < n; i++)
      if (fabsl(m[i][k]) > fabsl(m[best][k])) best = i;
    for (int j = 0; j < n; j++) {
      quad t = m[k][j];
      m[k][j] = m[best][j], m[best][j] = t;
    }
    quad t = x[k];
    x[k] = x[best], x[best] = t;
    for (int i = 0; i < n; i++) {
      if (i == k) continue;
      quad factor = m[i][k] / m[k][k];
      for (int j = k; j < n; j++) m[i][j] -= factor * m[k][j];
      x[i] -= factor * x[k];
    }
  }
  for (int k = 0; k < n; k++) x[k] /= m[k][k];
}

static void invert(int n, quad m[MAX][MAX], quad out[MAX][MAX]) {
  for (int j = 0; j < n; j++) {
    quad copy[MAX][MAX], x[MAX] = {0};
    memcpy(copy, m, sizeof copy);
    x[j] = 1;
    solve(n, copy, x);
    for (int i = 0; i < n; i++) out[i][j] = x[i];
  }
}

/* The weights w with Σ w[j] c[j]^k = upper^(k+1)/(k+1), k = 0 … n-1: the integral from 0 to upper of the
 * polynomial through the nodes. */
static void integral_weights(int n, const quad *c, quad upper, quad *w) {
  quad m[MAX][MAX];
  for (int k = 0; k < n; k++) {
    for (int j = 0; j < n; j++) m[k][j] = powl(c[j], k);
    w[k] = powl(upper, k + 1) / (k + 1);
  }
  solve(n, m, w);
}

/* The coefficients of θ, θ², … in the integral from 0 to θ of the polynomial that is 1 at node i and 0 at the
 * others. */
static void integral_polynomial(int n, const quad *c, int i, quad *w) {
  quad m[MAX][MAX];
  for (int k = 0; k < n; k++) {
    for (int j = 0; j < n; j++) m[k][j] = powl(c[k], j);
    w[k] = k == i;
  }
  solve(n, m, w);
  for (int j = 0; j < n; j++) w[j] /= j + 1;
}

/* λ³ - p λ² + q λ - r, or without the cube λ² - p λ + q: its real root (three stages) by Newton's iteration from
 * above, and its complex pair. */
static void eigenvalues(int n, quad m[MAX][MAX], quad *real, quad *re, quad *im) {
  quad p = 0, q = 0, r = 0;
  for (int i = 0; i < n; i++) p += m[i][i];
  for (int i = 0; i < n; i++)
    for (int j = i + 1; j < n; j++) q += m[i][i] * m[j][j] - m[i][j] * m[j][i];
  if (n == 3) {
    r = m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
        m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
    quad x = p / 3;
    for (int i = 0; i < 100; i++) x -= (((x - p) * x + q) * x - r) / ((3 * x - 2 * p) * x + q);
    *real = x;
    q -= x * (p - x);
    p -= x;
  }
  *re = p / 2;
  *im = sqrtl(q - p * p / 4);
}

/* The real eigenvalue's vector: orthogonal to two rows of m − λ, those whose product is largest. */
static void real_vector(quad m[MAX][MAX], quad lambda, quad v[MAX]) {
  quad best = -1;
  for (int i = 0; i < 3; i++) {  /* the cross product of two rows is orthogonal to both */
    int a = (i + 1) % 3, b = (i + 2) % 3;
    quad ra[3], rb[3], x[3], size = 0;
    for (int j = 0; j < 3; j++) {
      ra[j] = m[a][j] - (a == j ? lambda : 0);
      rb[j] = m[b][j] - (b == j ? lambda : 0);
    }
    for (int j = 0; j < 3; j++) {
      x[j] = ra[(j + 1) % 3] * rb[(j + 2) % 3] - ra[(j + 2) % 3] * rb[(j + 1) % 3];
      size += fabsl(x[j]);
    }
    if (size <= best) continue;
    best = size;
    memcpy(v, x, sizeof x);
  }
}

/* u and v with m·[u v] = [u v]·[[re, −im], [im, re]]: u is any vector of the pair's plane, which m − real maps
 * everything into, and v follows from m·u = re u + im v. */
static void pair_vectors(int n, quad m[MAX][MAX], const td_collocation *k, quad re, quad im, quad lambda, quad u[MAX],
                         quad v[MAX]) {
  for (int i = 0; i < n; i++) {
    u[i] = m[i][n - 1] - (k->has_real && i == n - 1 ? lambda : 0);
    if (!k->has_real) u[i] = i == n - 1;
  }
  for (int i = 0; i < n; i++) {
    quad mu = 0;
    for (int j = 0; j < n; j++) mu += m[i][j] * u[j];
    v[i] = (mu - re * u[i]) / im;
  }
}

td_collocation td_collocation_from(int n, const long double *c) {
  td_collocation k = {.stages = n, .has_real = n == 3};
  quad a[MAX][MAX] = {{0}}, inverse[MAX][MAX] = {{0}}, t[MAX][MAX] = {{0}}, t_inverse[MAX][MAX] = {{0}};
  quad b[MAX], real = 0, re, im;
  for (int i = 0; i < n; i++) integral_weights(n, c, c[i], a[i]);
  integral_weights(n, c, 1, b);
  invert(n, a, inverse);
  eigenvalues(n, inverse, &real, &re, &im);
  for (int i = 0; i < n; i++) {
    quad w[MAX];
    integral_polynomial(n, c, i, w);
    for (int j = 0; j < n; j++) k.between[i][j] = (double)w[j];
  }
  quad u[MAX], v[MAX], w[MAX] = {0};
  if (k.has_real) real_vector(inverse, real, w);
  pair_vectors(n, inverse, &k, re, im, real, u, v);
  for (int i = 0; i < n; i++) {
    int column = 0;
    if (k.has_real) t[i][column++] = w[i];
    t[i][column++] = u[i];
    t[i][column] = v[i];
  }
  invert(n, t, t_inverse);
  for (int i = 0; i < n; i++) {
    k.c[i] = (double)c[i], k.b[i] = (double)b[i];
    for (int j = 0; j < n; j++) {
      k.a[i][j] = (double)a[i][j], k.inverse[i][j] = (double)inverse[i][j];
      k.t[i][j] = (double)t[i][j], k.t_inverse[i][j] = (double)t_inverse[i][j];
    }
  }
  k.real = (double)real, k.re = (double)re, k.im = (double)im;
  return k;
}

void td_collocation_weights(const td_collocation *k, double theta, bool slope, double *w) {
  for (int i = 0; i < k->stages; i++) {
    double sum = 0;
    for (int j = k->stages - 1; j >= 0; j--)
      sum = slope ? sum * theta + (j + 1) * k->between[i][j] : (sum + k->between[i][j]) * theta;
    w[i] = sum;
  }
}
