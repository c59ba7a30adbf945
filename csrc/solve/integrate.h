/* Integrating y' = f(t, y) step by step: method × controller × what to save. The state is one contiguous
 * tensor; the binding packs several into one. Time is double whatever the state's type. */
#ifndef TD_SOLVE_INTEGRATE_H
#define TD_SOLVE_INTEGRATE_H
#include "solve/field.h"
#include "solve/tableau.h"

typedef enum { TD_ODE_OK, TD_ODE_MAX_STEPS, TD_ODE_UNDERFLOW, TD_ODE_NONFINITE } td_ode_status;
const char *td_ode_status_name(td_ode_status s);

/* h' = h·clip(safety·Π errᵢ^(−k[i]/q), shrink, grow), q = error order + 1; err of this step and the two
 * accepted before. A rejected step shrinks by clip(safety·err^(−1/q), shrink, safety), or by `shrink` when
 * something was not finite. */
typedef struct {
  double k[3];
  double safety, shrink, grow;
  bool keep_after_accept;  /* an accepted step never shrinks the next one */
  bool hold_after_reject;  /* the first accepted step after a rejected one does not grow */
} td_controller;

typedef struct {
  const td_tableau *method;
  td_controller controller;
  double rtol, atol;
  double first_step, min_step, max_step;  /* 0: chosen, none, none */
  double step_size;                        /* of fixed steps; 0: adaptive, or the save times for methods without an error */
  uint64_t max_steps;
  size_t norm_count;                       /* elements in the error norm, from the first; 0: all */
  bool land;                               /* step onto save times instead of interpolating */
  bool max_norm;                           /* greatest instead of root mean square */
  bool keep;                               /* keep the state at the start of every accepted step */
  td_tensor *first_slope;                  /* f(ts[0], y0) when the caller has it, else NULL */
} td_ode_options;

typedef struct {
  double t;      /* where the step starts; it ends where the next one starts, the last one at stats.t_last */
  td_tensor *y;  /* at t; NULL unless kept */
} td_ode_step;

typedef struct {
  uint64_t nfe, accepted, rejected;
  double h_min, h_max, t_last;
  size_t worst;  /* element with the largest scaled error in the last rejected step, or the first non-finite one */
} td_ode_stats;

typedef struct {
  td_ode_status status;
  char message[320];
  td_tensor *ys;        /* times×state; the first `reached` rows are filled */
  size_t reached;
  td_ode_stats stats;
  td_ode_step *steps;   /* the accepted ones */
  size_t nsteps, capacity;
} td_ode_solution;

/* Is this a state and a list of times that can be solved? Nothing is called. */
td_status td_ode_check(const td_tensor *y0, const double *ts, size_t nt);

/* Where step n of a solution ends. */
double td_ode_step_end(const td_ode_solution *s, size_t n);

/* Solves from ts[0] through ts[nt-1], in order or in reverse order, with values at each. A failure of the
 * solver is a status in the solution; a TD_E… is returned for wrong input and failing callbacks. Free the
 * solution in either case. */
td_status td_ode_integrate(td_field *f, td_tensor *y0, const double *ts, size_t nt, const td_ode_options *o,
                           td_ode_solution *out);
void td_ode_solution_free(td_ode_solution *s);

#endif
