/* Explicit Runge–Kutta methods as data. Adding one is adding one entry to a tableau_*.c file and its name to
 * methods.c. */
#ifndef TD_SOLVE_TABLEAU_H
#define TD_SOLVE_TABLEAU_H
#include "solve/stepper.h"

enum { TD_MAX_STAGES = 30 };

/* Stages Yᵢ = y + h Σ aᵢⱼ kⱼ, kᵢ = f(t + cᵢh, Yᵢ), cᵢ = Σ aᵢⱼ computed, never copied; y₁ = y + h Σ bᵢ kᵢ; error
 * h Σ eᵢ kᵢ. `a` holds the rows of stages 2, 3, … one after the other, row i of i − 1 numbers.
 *
 * For the extension there are more stages after these: first f(t₁, y₁), unless fsal says that the last stage is that;
 * then `extra` ones with their rows in extra_a, which reach over all stages before. Between the ends
 * y(θ) = y + h θ Σᵢ kᵢ Σⱼ dense[i·terms + j] θʲ over all of them, or, with `centred`, (2θ − 1)ʲ, where powers of θ would
 * cancel. With `hermite` the extension is the cubic through both ends and their slopes. */
typedef struct {
  int stages, extra, terms;
  bool fsal;                 /* the last stage is f(t₁, y₁): the next step's first */
  bool hermite, centred;
  const double *a, *b, *e;
  const double *e2;          /* dop853's second estimate, else NULL */
  const double *extra_a, *dense;
} td_tableau;

/* For ordinary entries: the numbers of a row or of several. */
#define TD_ROWS(...) ((const double[]){__VA_ARGS__})

extern const td_family td_family_explicit;

/* The tableau of an explicit method, else NULL. */
const td_tableau *td_tableau_of(const td_method *m);
/* All stages that the extension may use. */
int td_tableau_width(const td_tableau *m);
/* Row i (0-based) of all stages, of i entries; NULL for i = 0. That of f(t₁, y₁) is b. */
const double *td_tableau_row(const td_tableau *m, int i);
double td_tableau_c(const td_tableau *m, int i);
/* Weights of the stages at θ, and of the derivative by θ; gives their number. */
int td_tableau_dense(const td_tableau *m, double theta, double *w);
int td_tableau_dense_slope(const td_tableau *m, double theta, double *w);

/* Stage i's slope in the explicit step that s has just made. */
const void *td_explicit_slope(const td_stepper *s, int i);

#endif
