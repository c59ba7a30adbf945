/* Integrating y' = f(t, y) step by step: field × method × controller × what to save. The state is one contiguous
 * array; the binding packs several tensors into one. Time is double whatever the state's type. */
#ifndef TD_SOLVE_INTEGRATE_H
#define TD_SOLVE_INTEGRATE_H
#include "solve/event.h"
#include "solve/trajectory.h"

typedef enum {
  TD_ODE_OK, TD_ODE_EVENT, TD_ODE_MAX_STEPS, TD_ODE_UNDERFLOW, TD_ODE_NONFINITE, TD_ODE_NEWTON
} td_ode_status;
const char *td_ode_status_name(td_ode_status s);

/* h' = h·clip(safety·Π errᵢ^(−k[i]/q)·(h/h₁)^k[3]·(h₁/h₂)^k[4], shrink, grow), q = error order + 1; err of this step
 * and the two accepted before, h, h₁, h₂ their sizes. A rejected step shrinks by clip(safety·err^(−1/q), shrink,
 * safety), or by `shrink` when something was not finite. */
typedef struct {
  double k[5];
  double safety, shrink, grow;
  double first_grow;       /* instead of grow after the first accepted step; 0: the same */
  bool keep_after_accept;  /* an accepted step never shrinks the next one */
  bool hold_after_reject;  /* the first accepted step after a rejected one does not grow */
} td_controller;

/* A time to land on; at a jump f is asked from the left before and from the right after. */
typedef struct {
  double t;
  bool jump;
} td_ode_stop;

/* The norm of scaled errors e, |e| ≤ 1 accepted: root mean square, greatest, greatest over groups of the group's root
 * mean square (ends of the groups, ascending), or a function. */
typedef enum { TD_NORM_RMS, TD_NORM_MAX, TD_NORM_GROUPS, TD_NORM_FUNCTION } td_norm_kind;

typedef struct td_ode_options {
  const td_method *method;
  td_controller controller;
  double rtol, atol;
  double *rtols, *atols;                  /* one for each element, or NULL */
  double first_step, min_step, max_step;  /* 0: chosen, none, none */
  bool accept_min_step;                   /* a step of min_step is accepted whatever its error */
  double step_size; /* of fixed steps; 0: adaptive, or the save times for methods without an error */
  const double *grid;                     /* instead: the nodes of a fixed grid, both ends included */
  size_t ngrid;
  bool linear;                            /* save times on fixed steps by the straight line */
  uint64_t max_steps;
  td_norm_kind norm;
  size_t norm_count;                      /* elements in the error norm, from the first; 0: all */
  size_t blocks; /* equal parts of the state, each moved by the first and by itself alone with the
                  * first one's Jacobian, as tangents are; 0: one */
  const size_t *groups;
  size_t ngroups;
  td_status (*norm_call)(void *data, const void *scaled, double *norm);
  void *norm_data;
  const td_ode_stop *stops;               /* in the order of the solve, strictly inside it */
  size_t nstops;
  bool land;                              /* step onto save times instead of interpolating */
  size_t every;                           /* every so many steps are saved too; 0: none */
  size_t slots, budget;                   /* states kept for the reverse pass, see trajectory.h */
  bool keep;                              /* keep them at all */
  bool exact;                             /* a gradient is to follow: implicit methods iterate to rounding */
  td_event *events;                       /* see event.h */
  size_t nevents;
  int event_points;
  const void *first_slope;                /* f(ts[0], y0) when the caller has it, else NULL */
  td_status (*watch)(void *data, td_stepper *s); /* called at each accepted step, whose extension it may ask; or NULL */
  void *watch_data;
  bool unrecorded;                        /* nobody asks for the steps taken */
  bool keep_last;                         /* the kept state at the end, to undo the steps from */
  size_t hold; /* bytes of evaluations that stay kept for the reverse pass, as many of the last
                * ones; SIZE_MAX: what td_field_hold chooses; 0: none */
  const td_method *base;                  /* of mccallum_foster; NULL: its own choice */
  td_tensor *semilinear;                  /* the linear part for exponential methods, float64 and contiguous; or NULL */
  td_tensor *mass;                        /* M of M y' = f, likewise: n×n, or the n numbers of a diagonal; or NULL */
  struct td_pattern *pattern;             /* of ∂f/∂y, see band.h; NULL: not known */
  /* x becomes nearly (shift·I − ∂f/∂y)⁻¹ x at (t, y), arrays of the state's type, for GMRES; NULL: none */
  td_status (*precondition)(void *data, double t, double shift, const void *y, void *x);
  void *precondition_data;
  double coupling;                        /* likewise; 0: its own */
  int max_order, max_iters;               /* of families that choose; 0: their own */
} td_ode_options;

typedef struct {
  uint64_t accepted, rejected;
  td_step_counts counts;
  double h_min, h_max, t_last;
  size_t worst;     /* element with the largest scaled error in the last rejected step, or the first non-finite one */
  double value;     /* of that element at t_last */
} td_ode_stats;

typedef struct {
  td_ode_status status;
  char message[400];
  td_tensor *ys;        /* times×state; the first `reached` rows are filled */
  size_t reached;
  double *every_t;      /* saved steps: their times and states, nevery of them */
  char *every_y;
  size_t nevery, every_room, every_bytes;
  td_ode_stats stats;
  bool event_row;       /* the solve ended at an event: the last row is the state there */
  td_event_list events; /* and what was found */
  uint32_t *limits;     /* how often each element had the largest error of a step; NULL when there are many */
  size_t nlimits;
  td_trajectory path;
} td_ode_solution;

/* Is this a state and a list of times that can be solved? Nothing is called. */
td_status td_ode_check(td_dtype d, int ndim, const double *ts, size_t nt);

/* Solves from ts[0] through ts[nt-1], in order or in reverse order, with values at each. A failure of the
 * solver is a status in the solution; a TD_E… is returned for wrong input and failing callbacks. Free the
 * solution in either case. */
td_status td_ode_integrate(td_field *f, const void *y0, const double *ts, size_t nt, const td_ode_options *o,
                           td_ode_solution *out);
void td_ode_solution_free(td_ode_solution *s);

#endif
