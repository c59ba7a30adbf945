/* Runge–Kutta methods as data, each with its source. */
#include "solve/tableau.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

static const td_tableau euler = {
  .name = "euler", .source = "Euler 1768", .stages = 1, .order = 1, .dense_order = 1,
  .b = {1}, .dense = {{1}},
};
static const td_tableau midpoint = {
  .name = "midpoint", .source = "Runge 1895", .stages = 2, .order = 2, .dense_order = 2, .hermite = true,
  .a = {{0}, {1. / 2}}, .b = {0, 1},
};
static const td_tableau heun2 = {
  .name = "heun2", .source = "Heun 1900, the trapezoidal form", .stages = 2, .order = 2, .dense_order = 2,
  .hermite = true,
  .a = {{0}, {1}}, .b = {1. / 2, 1. / 2},
};
static const td_tableau ralston2 = {
  .name = "ralston2", .source = "Ralston 1962, least error bound", .stages = 2, .order = 2, .dense_order = 2,
  .hermite = true,
  .a = {{0}, {2. / 3}}, .b = {1. / 4, 3. / 4},
};
static const td_tableau heun3 = {
  .name = "heun3", .source = "Heun 1900, third order", .stages = 3, .order = 3, .dense_order = 3,
  .hermite = true,
  .a = {{0}, {1. / 3}, {0, 2. / 3}}, .b = {1. / 4, 0, 3. / 4},
};
static const td_tableau rk4 = {
  .name = "rk4", .source = "Kutta 1901, the 3/8 rule", .stages = 4, .order = 4, .dense_order = 3,
  .hermite = true,
  .a = {{0}, {1. / 3}, {-1. / 3, 1}, {1, -1, 1}}, .b = {1. / 8, 3. / 8, 3. / 8, 1. / 8},
};
static const td_tableau rk4_classic = {
  .name = "rk4_classic", .source = "Kutta 1901, the classical rule", .stages = 4, .order = 4,
  .dense_order = 3,
  .hermite = true,
  .a = {{0}, {1. / 2}, {0, 1. / 2}, {0, 0, 1}}, .b = {1. / 6, 1. / 3, 1. / 3, 1. / 6},
};
static const td_tableau bosh3 = {
  .name = "bosh3", .source = "Bogacki and Shampine 1989", .stages = 4, .order = 3, .error_order = 2,
  .dense_order = 3,
  .fsal = true, .hermite = true,
  .a = {{0}, {1. / 2}, {0, 3. / 4}, {2. / 9, 1. / 3, 4. / 9}},
  .b = {2. / 9, 1. / 3, 4. / 9, 0},
  .e = {2. / 9 - 7. / 24, 1. / 3 - 1. / 4, 4. / 9 - 1. / 3, -1. / 8},
};

#define DOPRI5_A                                                                                        \
  {{0},                                                                                                 \
   {1. / 5},                                                                                            \
   {3. / 40, 9. / 40},                                                                                  \
   {44. / 45, -56. / 15, 32. / 9},                                                                      \
   {19372. / 6561, -25360. / 2187, 64448. / 6561, -212. / 729},                                         \
   {9017. / 3168, -355. / 33, 46732. / 5247, 49. / 176, -5103. / 18656},                                \
   {35. / 384, 0, 500. / 1113, 125. / 192, -2187. / 6784, 11. / 84}}
#define DOPRI5_B {35. / 384, 0, 500. / 1113, 125. / 192, -2187. / 6784, 11. / 84, 0}

/* Hairer's quartic y + θ(Δ + (1−θ)(β + θ(Δ − hk₇ − β + (1−θ) h Σ dᵢkᵢ))), Δ = y₁ − y, β = hk₁ − Δ, in powers
 * of θ: stage i has bᵢ(3θ² − 2θ³) + [i = 1](θ − 2θ² + θ³) + [i = 7](θ³ − θ²) + dᵢ θ²(1 − θ)². */
#define DOPRI5_ROW(b, d, first, last) \
  {(first), 3 * (b) - 2 * (first) - (last) + (d), -2 * (b) + (first) + (last) - 2 * (d), (d)}
#define DOPRI5_DENSE                                                                                    \
  {DOPRI5_ROW(35. / 384, -12715105075. / 11282082432, 1, 0), {0},                                       \
   DOPRI5_ROW(500. / 1113, 87487479700. / 32700410799, 0, 0),                                           \
   DOPRI5_ROW(125. / 192, -10690763975. / 1880347072, 0, 0),                                            \
   DOPRI5_ROW(-2187. / 6784, 701980252875. / 199316789632, 0, 0),                                       \
   DOPRI5_ROW(11. / 84, -1453857185. / 822651844, 0, 0),                                                \
   DOPRI5_ROW(0, 69997945. / 29380423, 0, 1)}

static const td_tableau dopri5 = {
  .name = "dopri5", .source = "Dormand and Prince 1980, error weights as in Hairer's DOPRI5", .stages = 7,
  .order = 5,
  .error_order = 4, .dense_order = 4, .fsal = true, .a = DOPRI5_A, .b = DOPRI5_B, .dense = DOPRI5_DENSE,
  .e = {71. / 57600, 0, -71. / 16695, 71. / 1920, -17253. / 339200, 22. / 525, -1. / 40},
};
static const td_tableau dopri5_shampine = {
  .name = "dopri5_shampine",
  .source = "Dormand and Prince 1980, embedded weights of Shampine 1986 (as in torchdiffeq)",
  .stages = 7, .order = 5, .error_order = 4, .dense_order = 4, .fsal = true, .a = DOPRI5_A, .b = DOPRI5_B,
  .dense = DOPRI5_DENSE,
  .e = {35. / 384 - 1951. / 21600, 0, 500. / 1113 - 22642. / 50085, 125. / 192 - 451. / 720,
        -2187. / 6784 + 12231. / 42400, 11. / 84 - 649. / 6300, -1. / 60},
};
static const td_tableau tsit5 = {
  .name = "tsit5", .source = "Tsitouras 2011", .stages = 7, .order = 5, .error_order = 4, .dense_order = 4,
  .fsal = true,
  .a = {{0},
        {0.161},
        {-0.008480655492356989, 0.335480655492357},
        {2.8971530571054935, -6.359448489975075, 4.3622954328695815},
        {5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525},
        {5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383},
        {0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
         2.324710524099774}},
  .b = {0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
        2.324710524099774, 0},
  .e = {0.00178001105222577714, 0.0008164344596567469, -0.007880878010261995, 0.1447110071732629,
        -0.5823571654525552, 0.45808210592918697, -1. / 66},
  .dense = {{1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216},
            {0, 0.13169999999999998, -0.2234, 0.1017},
            {0, 3.9302962368947516, -5.941033872131505, 2.490627285651253},
            {0, -12.411077166933676, 30.33818863028232, -16.548102889244902},
            {0, 37.50931341651104, -88.1789048947664, 47.37952196281928},
            {0, -27.896526289197286, 65.09189467479366, -34.87065786149661},
            {0, 1.5, -4, 2.5}},
};

const td_tableau *const *td_tableaux(void) {
  static const td_tableau *const all[] = {
    &euler, &midpoint, &heun2, &ralston2, &heun3, &rk4, &rk4_classic, &bosh3, &dopri5, &dopri5_shampine,
    &tsit5, NULL,
  };
  return all;
}

const td_tableau *td_tableau_find(const char *name) {
  for (const td_tableau *const *m = td_tableaux(); *m; m++)
    if (!strcmp((*m)->name, name)) return *m;
  return NULL;
}

double td_tableau_c(const td_tableau *m, int i) {
  double c = 0;
  for (int j = 0; j < i; j++) c += m->a[i][j];
  return c;
}

double td_tableau_time(const td_tableau *m, int i, double t, double end) {
  double c = td_tableau_c(m, i);
  return fabs(c - 1) < 1e-14 ? end : t + c * (end - t);
}

/* The cubic Hermite extension: b(3θ² − 2θ³), the first stage's (θ − 2θ² + θ³) and the last's (θ³ − θ²). */
static int hermite_weights(const td_tableau *m, double whole, double first, double last, double *w) {
  int n = m->stages + !m->fsal;
  for (int i = 0; i < n; i++) w[i] = i < m->stages ? m->b[i] * whole : 0;
  w[0] += first;
  w[n - 1] += last;
  return n;
}

int td_tableau_dense(const td_tableau *m, double x, double *w) {
  if (m->hermite) return hermite_weights(m, x * x * (3 - 2 * x), x * (1 - x) * (1 - x), x * x * (x - 1), w);
  for (int i = 0; i < m->stages; i++) {
    w[i] = 0;
    for (int j = TD_MAX_DENSE - 1; j >= 0; j--) w[i] = (w[i] + m->dense[i][j]) * x;
  }
  return m->stages;
}

int td_tableau_dense_slope(const td_tableau *m, double x, double *w) {
  if (m->hermite) return hermite_weights(m, 6 * x * (1 - x), (1 - x) * (1 - 3 * x), x * (3 * x - 2), w);
  for (int i = 0; i < m->stages; i++) {
    w[i] = 0;
    for (int j = TD_MAX_DENSE - 1; j >= 0; j--) w[i] = w[i] * x + (j + 1) * m->dense[i][j];
  }
  return m->stages;
}
