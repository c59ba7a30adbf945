/* Reading a tableau: rows, stage times, and the extension's weights. */
#include "solve/tableau.h"
#include <stddef.h>

const td_tableau *td_tableau_of(const td_method *m) {
  return m->family == &td_family_explicit ? m->table : NULL;
}

int td_tableau_width(const td_tableau *m) {
  if (m->hermite) return m->stages + !m->fsal;
  if (!m->extra) {  /* is f(t₁, y₁) used at all? */
    bool used = false;
    for (int j = 0; !m->fsal && j < m->terms; j++) used |= m->dense[m->stages * m->terms + j] != 0;
    return m->stages + used;
  }
  return m->stages + !m->fsal + m->extra;
}

const double *td_tableau_row(const td_tableau *m, int i) {
  if (i == 0) return NULL;
  if (i < m->stages) return m->a + i * (i - 1) / 2;
  if (i == m->stages && !m->fsal) return m->b;
  const double *row = m->extra_a;
  for (int j = m->stages + !m->fsal; j < i; j++) row += j;
  return row;
}

double td_tableau_c(const td_tableau *m, int i) {
  const double *row = td_tableau_row(m, i);
  double c = 0;
  for (int j = 0; j < i; j++) c += row[j];
  return c;
}

/* The cubic Hermite extension: b(3θ² − 2θ³), the first stage's (θ − 2θ² + θ³) and the last's (θ³ − θ²). */
static int hermite_weights(const td_tableau *m, double whole, double first, double last, double *w) {
  int n = m->stages + !m->fsal;
  for (int i = 0; i < n; i++) w[i] = i < m->stages ? m->b[i] * whole : 0;
  w[0] += first;
  w[n - 1] += last;
  return n;
}

/* p(x) and p'(x) of the sum over dense's row i. */
static void polynomial(const td_tableau *m, int i, double x, double *p, double *slope) {
  const double *d = m->dense + i * m->terms;
  double at = m->centred ? 2 * x - 1 : x;
  *p = *slope = 0;
  for (int j = m->terms - 1; j >= 0; j--) {
    *slope = *slope * at + *p;
    *p = *p * at + d[j];
  }
  if (m->centred) *slope *= 2;
}

int td_tableau_dense(const td_tableau *m, double x, double *w) {
  if (m->hermite) return hermite_weights(m, x * x * (3 - 2 * x), x * (1 - x) * (1 - x), x * x * (x - 1), w);
  int n = td_tableau_width(m);
  for (int i = 0; i < n; i++) {
    double p, slope;
    polynomial(m, i, x, &p, &slope);
    w[i] = x * p;
  }
  return n;
}

int td_tableau_dense_slope(const td_tableau *m, double x, double *w) {
  if (m->hermite) return hermite_weights(m, 6 * x * (1 - x), (1 - x) * (1 - 3 * x), x * (3 * x - 2), w);
  int n = td_tableau_width(m);
  for (int i = 0; i < n; i++) {
    double p, slope;
    polynomial(m, i, x, &p, &slope);
    w[i] = p + x * slope;
  }
  return n;
}
