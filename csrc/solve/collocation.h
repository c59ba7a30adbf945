/* Collocation methods from their nodes: the Runge–Kutta matrix, the weights, and the real block form of A⁻¹ in
 * which a simplified Newton step falls into one real and one complex system (Hairer, Wanner, Solving ODEs II,
 * IV.8). Nothing is copied from tables: everything follows from the nodes in extended precision. */
#ifndef TD_SOLVE_COLLOCATION_H
#define TD_SOLVE_COLLOCATION_H
#include <stdbool.h>

enum { TD_COLLOCATION_STAGES = 3 };

/* A⁻¹ = T Λ T⁻¹ with Λ = diag(real, [[re, -im], [im, re]]); two stages have the complex pair alone. */
typedef struct {
  int stages;
  bool has_real;
  double c[TD_COLLOCATION_STAGES];
  double a[TD_COLLOCATION_STAGES][TD_COLLOCATION_STAGES], b[TD_COLLOCATION_STAGES];
  double inverse[TD_COLLOCATION_STAGES][TD_COLLOCATION_STAGES];
  double between[TD_COLLOCATION_STAGES][TD_COLLOCATION_STAGES];  /* y(θ) = y + h Σᵢ kᵢ Σⱼ between[i][j] θ^(j+1) */
  double real, re, im;
  double t[TD_COLLOCATION_STAGES][TD_COLLOCATION_STAGES], t_inverse[TD_COLLOCATION_STAGES][TD_COLLOCATION_STAGES];
} td_collocation;

/* The weights of k at θ, or their derivatives by θ. */
void td_collocation_weights(const td_collocation *k, double theta, bool slope, double *w);
/* nodes: two or three, distinct, such that A⁻¹ has one complex pair. */
td_collocation td_collocation_from(int stages, const long double *nodes);

#endif
