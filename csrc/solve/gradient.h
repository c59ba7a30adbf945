/* Gradients of a solve, by name. All are strategies over the same forward loop; a recorded solve is one node of the tape. */
#ifndef TD_SOLVE_GRADIENT_H
#define TD_SOLVE_GRADIENT_H
#include "graph/tape.h"
#include "solve/integrate.h"

typedef enum {
  TD_ODE_DISCRETE,   /* exact derivative of the steps taken; states kept at their starts, each step replayed once */
  TD_ODE_BACKSOLVE,  /* continuous adjoint, the state integrated backwards too: memory does not grow with steps */
  TD_ODE_FROZEN      /* backsolve with the cotangent held at its end value: wrong on purpose, for comparison only */
} td_ode_gradient;

/* A field that a recorded solve owns. */
typedef struct {
  td_field field;
  void (*free)(td_field *f);
} td_owned_field;

/* What the reverse pass of a solve needs. Filled by the caller of td_ode_record, which takes it over. */
typedef struct {
  td_owned_field *f;
  td_ode_options o, adjoint;  /* of the forward and of the backward solve */
  td_ode_gradient mode;
  bool seminorm;              /* parameters stay outside the backward error control */
  double *ts;
  size_t nt;
  td_ode_solution solution;
  uint64_t *nfe_backward;     /* shared with the result's statistics; counts evaluations of the reverse pass */
  void (*nfe_free)(void *);   /* gives nfe_backward back */
  void *nfe_owner;
} td_ode_recorded;

void td_ode_recorded_free(void *recorded);

/* Makes solution.ys the result of one node on y0, times (a float64 tensor of nt, or NULL when no gradient flows to
 * them) and the externals: everything else that f depends on. Takes over `recorded`. */
td_status td_ode_record(td_ode_recorded *recorded, td_tensor *y0, td_tensor *times, td_tensor *const *externals,
                        size_t nexternals);

#endif
