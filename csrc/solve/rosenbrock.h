/* Rosenbrock methods as data, in the form without products by the Jacobian (Hairer, Wanner, Solving ODEs II, IV.7).
 * Adding one is adding one entry to rosenbrock_methods.c. */
#ifndef TD_SOLVE_ROSENBROCK_H
#define TD_SOLVE_ROSENBROCK_H
#include "solve/stepper.h"

enum { TD_ROSENBROCK_STAGES = 8, TD_ROSENBROCK_TERMS = 4 };

/* (I/(hγ) − J) uᵢ = f(t + αᵢh, y + Σ aᵢⱼ uⱼ) + Σ (cᵢⱼ/h) uⱼ + h dᵢ ∂f/∂t, J and ∂f/∂t at (t, y);
 * y₁ = y + Σ mᵢ uᵢ; error Σ eᵢ uᵢ; y(θ) = y + Σᵢ uᵢ Σⱼ dense[i][j] θ^(j+1). */
typedef struct {
  int stages;
  double gamma;
  double a[TD_ROSENBROCK_STAGES][TD_ROSENBROCK_STAGES], c[TD_ROSENBROCK_STAGES][TD_ROSENBROCK_STAGES];
  double m[TD_ROSENBROCK_STAGES], e[TD_ROSENBROCK_STAGES];
  double alpha[TD_ROSENBROCK_STAGES], d[TD_ROSENBROCK_STAGES];
  double dense[TD_ROSENBROCK_STAGES][TD_ROSENBROCK_TERMS];
  bool blind; /* Σ eᵢ uᵢ is zero on linear problems: the defect of the trapezoidal rule joins it, for one more call of
               * f */
} td_rosenbrock;

extern const td_family td_family_rosenbrock;

/* The greatest sum of a row's magnitudes in ∂f/∂y at the start of the step just made, over the first `rows`. */
double td_rosenbrock_row_sum(const td_stepper *s, size_t rows);

#endif
