/* Diagonally implicit Runge–Kutta methods as data. Adding one is adding one entry to dirk_methods.c. */
#ifndef TD_SOLVE_DIRK_H
#define TD_SOLVE_DIRK_H
#include "solve/stepper.h"

enum { TD_DIRK_STAGES = 8 };

/* Stages Yᵢ = y + h Σ_{j≤i} aᵢⱼ kⱼ, kᵢ = f(t + cᵢh, Yᵢ), with the same diagonal in all but an explicit first one.
 * y₁ = y + h Σ bᵢ kᵢ, or the last stage where b is the last row (stiffly accurate). */
typedef struct {
  int stages;
  double a[TD_DIRK_STAGES][TD_DIRK_STAGES];
  double b[TD_DIRK_STAGES], e[TD_DIRK_STAGES];  /* e: b less the embedded weights; zero: no estimate */
  const double (*easy)[TD_DIRK_STAGES];  /* the explicit half of an additive pair, with the same b and e; NULL: none */
  double e0;       /* the estimate's weight of f(t, y), for methods whose first stage is not that */
} td_dirk;

extern const td_family td_family_dirk;

double td_dirk_c(const td_dirk *m, int i);
bool td_dirk_stiffly_accurate(const td_dirk *m);

#endif
