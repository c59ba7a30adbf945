/* Runge–Kutta methods as data. Adding an explicit method is adding one entry to tableau.c. */
#ifndef TD_SOLVE_TABLEAU_H
#define TD_SOLVE_TABLEAU_H
#include <stdbool.h>

enum { TD_MAX_STAGES = 13, TD_MAX_DENSE = 5 };

/* Stages Yᵢ = y + h Σ a[i][j] k[j], kᵢ = f(t + c[i] h, Yᵢ); y₁ = y + h Σ b[i] k[i]; error h Σ e[i] k[i].
 * Between the ends y(θ) = y + h Σᵢ kᵢ Σⱼ dense[i][j] θ^(j+1). With `hermite`, the extension is the cubic
 * through both ends and their slopes, and the slope at the end is an extra stage numbered `stages` (unless
 * fsal has it already). */
typedef struct {
  const char *name;
  const char *source;        /* who published it */
  int stages;
  int order;
  int error_order;           /* of the embedded solution; 0: none, the method needs a step size */
  int dense_order;           /* the conditions that the extension satisfies */
  bool fsal;                 /* the last stage is f at the step's end: the next step's first */
  bool hermite;
  double a[TD_MAX_STAGES][TD_MAX_STAGES], b[TD_MAX_STAGES], e[TD_MAX_STAGES];
  double dense[TD_MAX_STAGES + 1][TD_MAX_DENSE];
} td_tableau;

/* All methods, NULL at the end. */
const td_tableau *const *td_tableaux(void);
const td_tableau *td_tableau_find(const char *name);

/* c[i] = Σ a[i][j], computed, never copied. */
double td_tableau_c(const td_tableau *m, int i);
/* The time of stage i in a step from t to end: exactly end where c[i] is 1, so that f is never called beyond
 * it. */
double td_tableau_time(const td_tableau *m, int i, double t, double end);
/* Weights of k at θ, of stages + (hermite && !fsal) stages; gives their number. */
int td_tableau_dense(const td_tableau *m, double theta, double *w);
/* The same of the derivative by θ. */
int td_tableau_dense_slope(const td_tableau *m, double theta, double *w);

#endif
