/* What implicit families share: the Jacobian from the field's own derivative, its factorisation with a shift, norms in
 * the error weights, and pulling cotangents. All vectors are double whatever the state's type; f sees its own type. */
#ifndef TD_SOLVE_IMPLICIT_H
#define TD_SOLVE_IMPLICIT_H
#include "solve/band.h"
#include "solve/stepper.h"

typedef struct {
  size_t n, side;        /* elements; rows of the matrices, fewer than n when blocks of the state share them */
  double *y;             /* the state at s->t */
  double *scale;         /* atol + rtol·|y| */
  double *jacobian;      /* side×side; ∂f/∂y where it was last asked for; NULL when its products are enough */
  const td_pattern *pattern;  /* of the Jacobian, when it is known */
  bool banded;           /* its places are in `values`, without a matrix, and its factors in a band */
  double *values, *whole;     /* whole: n×n, for fields with a Jacobian of their own */
  double *at, at_time;   /* then: where; solutions come from GMRES */
  double *basis, *room;
  double *lu;            /* of shift·M − jacobian, M the mass matrix or I */
  size_t *pivot;
  bool have_jacobian;
  bool current;          /* the Jacobian is that at (s->t, s->y) */
  bool exact;            /* Newton goes on to rounding, with the Jacobian of each step: for gradients */
  double shift;          /* that lu was made with; 0: none */
  double *vector;        /* the family's, `n` apart */
  char *state, *slope, *unit;  /* of the state's type, for calls of f */
  double *fresh;
  double *product;       /* of the mass matrix; NULL without one */
  void *block;
  size_t block_bytes;
} td_implicit;

enum { TD_DENSE_MOST = 600 };  /* beyond so many elements GMRES takes the place of factors, where the family can */

/* What a family asks of the Jacobian: its matrix; solutions by td_implicit_solve, and ∂f/∂t with it; or solutions
 * alone, after td_implicit_linearise, so that large states need no matrix. */
typedef enum { TD_NEEDS_MATRIX, TD_NEEDS_FACTORS, TD_NEEDS_SOLUTIONS } td_implicit_need;
/* `vectors` doubles vectors and `more` doubles behind them for the family. Free it also after a failure. */
td_status td_implicit_make(td_implicit *m, td_stepper *s, size_t vectors, size_t more, td_implicit_need need);
void td_implicit_free(td_implicit *m);
static inline double *td_implicit_vector(const td_implicit *m, size_t i) { return m->vector + i * m->n; }

/* Between the state's type and double. */
void td_implicit_widen(const td_stepper *s, const void *x, double *out);
void td_implicit_narrow(const td_stepper *s, const double *x, void *out);

/* m->scale = atol + rtol·max(|a|, |b|). */
void td_implicit_scale(td_implicit *m, const td_stepper *s, const double *a, const double *b);
/* Takes s->y over into m->y and m->scale. */
void td_implicit_load(td_implicit *m, td_stepper *s);

td_status td_implicit_eval(td_implicit *m, td_stepper *s, double t, const double *y, double *dy);
/* jacobian (n×n) = ∂f/∂y, and unless NULL ft = ∂f/∂t and dy = f, at (t, y). By the field's own derivative: columns by
 * its jvp, else rows by its vjp, else rows by reverse passes over one recorded evaluation, which gives dy too. */
td_status td_implicit_jacobian(td_implicit *m, td_stepper *s, double t, const double *y, double *jacobian, double *ft,
                               double *dy);
/* Makes m->jacobian that of (s->t, s->y), and s->f0 known. */
td_status td_implicit_refresh(td_implicit *m, td_stepper *s, double *ft);
/* M x or Mᵀ x, M the option mass, valid until the next call; x itself without one. */
const double *td_implicit_mass(const td_implicit *m, const td_stepper *s, bool transposed, const double *x);
/* Entry (i, j) of M; 1 or 0 without one. */
double td_implicit_mass_at(const td_stepper *s, size_t i, size_t j);
/* The greatest sum of a row's magnitudes in the Jacobian at hand, over the first `rows`. */
double td_implicit_row_sum(const td_implicit *m, size_t rows);
/* m->lu holds shift·M − m->jacobian. False: singular. */
bool td_implicit_factor(td_implicit *m, td_stepper *s, double shift);
/* Makes the Jacobian, or what its products need, that of (t, y); *dy, unless NULL, is f there. */
td_status td_implicit_linearise(td_implicit *m, td_stepper *s, double t, const double *y, double *dy);
/* x becomes op(shift·M − J)⁻¹ x for the shift of td_implicit_factor, op the transpose or nothing. By GMRES to the
 * relative residual given, which factors do not need. */
td_status td_implicit_solve(td_implicit *m, td_stepper *s, bool transposed, double residual, double *x);
/* Root mean square over m->scale of x's elements that count in errors. */
double td_implicit_error_norm(const td_implicit *m, const td_stepper *s, const double *x);

/* ybar = wᵀ∂f/∂y at (t, y), *tbar += wᵀ∂f/∂t, dexternal as in field.h. */
td_status td_implicit_vjp(td_implicit *m, td_stepper *s, double t, const double *y, const double *w, double *ybar,
                          double *tbar, td_tensor **dexternal);
/* ybar += Σ ∂/∂y (w[i]ᵀ ∂f/∂y u[i]) + ∂/∂y (wtᵀ ∂f/∂t), likewise *tbar and dexternal: second derivatives (second.c). w
 * and u are `count` vectors each; wt may be NULL. */
td_status td_implicit_second(td_implicit *m, td_stepper *s, double t, const double *y, size_t count, const double *w,
                             const double *u, const double *wt, double *ybar, double *tbar, td_tensor **dexternal);

/* A Newton iteration's judgement of its updates. */
typedef enum { TD_NEWTON_GO_ON, TD_NEWTON_CONVERGED, TD_NEWTON_DIVERGED, TD_NEWTON_NONFINITE } td_newton_verdict;
typedef struct {
  int iteration, most;
  bool retries;           /* a smaller step can be tried instead, so that little patience is needed */
  double last, rate;      /* of the updates' norms */
  double tolerance;       /* in the error weights: 1 is an error of rtol */
  double floor;           /* updates below are rounding */
  bool exact;             /* go on until rounding: for gradients, which are exact to the residual */
  int usual;              /* iterations that would have done without `exact`, so that steps do not depend on it */
  double usual_rate;
  int further;            /* iterations for the tangents, once the state had converged */
  double further_last;
} td_newton;
td_newton td_newton_begin(const td_implicit *m, const td_stepper *s);
/* After an update x, `count` vectors. Where the state has blocks the first one is judged alone, as if there were no
 * others; these, whose equations are linear then, may go on for longer. */
td_newton_verdict td_newton_judge(td_newton *w, const td_implicit *m, const td_stepper *s, const double *x, int count);
/* What a step gives whose iteration did not converge: refused, or NaN for y1 when f was not finite. */
td_step_result td_newton_failed(td_stepper *s, td_newton_verdict verdict);
/* The failure of a backward pass that cannot repeat the step. */
td_status td_newton_lost(const td_stepper *s);

/* Σ a[i] b[i], and sum += c·x. */
static inline double td_sum_of_products(size_t n, const double *a, const double *b) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}
static inline void td_add_multiple(size_t n, double *sum, double c, const double *x) {
  for (size_t i = 0; i < n; i++) sum[i] += c * x[i];
}

#endif
