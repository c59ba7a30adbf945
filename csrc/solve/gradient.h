/* Gradients of a solve, by name. All are strategies over the same forward loop; a recorded solve is one node
 * of the tape. */
#ifndef TD_SOLVE_GRADIENT_H
#define TD_SOLVE_GRADIENT_H
#include "graph/tape.h"
#include "solve/integrate.h"

typedef enum {
  TD_ODE_DISCRETE, /* exact derivative of the steps taken; states kept at their starts, each step replayed once */
  TD_ODE_BACKSOLVE, /* continuous adjoint, the state integrated backwards too: memory does not grow with steps */
  TD_ODE_FROZEN, /* backsolve with the cotangent held at its end value: wrong on purpose, for comparison only */
  TD_ODE_REVERSIBLE, /* discrete, with the states rebuilt backwards by a reversible scheme: nothing is kept but the
                      * end */
  TD_ODE_INTERP, /* continuous adjoint over the extension of the forward steps, whose states are kept */
  TD_ODE_GAUSS /* the same, with the parameters' gradients by Gauss quadrature over the backward steps */
} td_ode_gradient;

static inline bool td_ode_over_path(td_ode_gradient m) { return m == TD_ODE_INTERP || m == TD_ODE_GAUSS; }
static inline bool td_ode_is_discrete(td_ode_gradient m) { return m == TD_ODE_DISCRETE || m == TD_ODE_REVERSIBLE; }

/* Makes a reverse pass that was run off the tape differentiable: rule->din, of y0 and of f's externals, become results
 * of what carries their own derivative. For methods that cannot put their steps on the tape. */
typedef struct {
  td_status (*run)(void *data, td_rule *rule, td_field *f);
  void (*free)(void *data);
  void *data;
} td_ode_second;
/* The reverse pass off the tape, then what it gave made differentiable. */
void td_ode_second_reverse(const td_ode_second *second, td_rule *rule, td_field *f, void (*pass)(td_rule *));

/* What the reverse pass of a solve needs. Filled by the caller of td_ode_record, which takes it over. */
typedef struct {
  int refs;                   /* the node's, and the dense object's */
  td_field *f;                /* owned */
  td_ode_options o, adjoint;  /* of the forward and of the backward solve */
  td_ode_gradient mode;
  bool seminorm;              /* parameters stay outside the backward error control */
  double *ts;
  size_t nt, nts;             /* times that have a value, and all of them */
  size_t given;               /* times that were asked for, whose gradients are wanted */
  td_ode_solution solution;
  td_tensor *tolerances[2];   /* what o.rtols and o.atols point into; NULL: none */
  td_event *events;           /* owned, with their fields; options.events during the solve and after */
  size_t nevents;
  bool nodes;                 /* the saved values are those of all steps: ts are the nodes of the grid */
  td_ode_second second;       /* or nothing */
  void (*precondition_free)(void *data);  /* gives o.precondition_data back; or NULL */
  uint32_t *versions;         /* of f's externals, and of ys at the end */
  size_t nversions;
  uint64_t *nfe_backward;     /* shared with the result's statistics: evaluations of the reverse pass, and steps made */
                              /* again between checkpoints */
  void (*nfe_free)(void *);   /* gives nfe_backward back */
  void *nfe_owner;
} td_ode_recorded;

void td_ode_recorded_free(void *recorded);
/* Of a solve that saved steps: their times take the place of those asked for. */
td_status td_ode_take_nodes(td_ode_recorded *r);

/* Events ask for what f does not depend on, or not yet: afterwards all fields of the solve share one list of
 * externals. */
td_status td_ode_share_externals(td_ode_recorded *recorded);

/* Makes ys, the rows that were reached, and with events their times and the states before and after (else NULL), the
 * results of one node on y0, times (float64) and the externals. Takes one reference to `recorded` over, which must not
 * own ys. */
td_status td_ode_record(td_ode_recorded *recorded, td_tensor *const *out, int nout, td_tensor *y0, td_tensor *times);

#endif
