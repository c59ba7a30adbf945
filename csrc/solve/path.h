/* The solution at any time inside a solve whose states were kept: the step around it is made again, and asked. */
#ifndef TD_SOLVE_PATH_H
#define TD_SOLVE_PATH_H
#include "solve/integrate.h"

typedef struct {
  td_trajectory *steps;
  td_ode_options o;  /* the solve's, which s looks at: a path is not moved */
  td_stepper s;
  td_step_counts counts;
  size_t at;  /* the step that s has made; SIZE_MAX: none */
} td_path;

/* Over the steps of a solve by o's method; all three outlive the path. */
td_status td_path_make(td_path *p, td_trajectory *steps, const td_ode_options *o, td_field *f);
void td_path_free(td_path *p);
/* y and dy/dt at t, either may be NULL. Where two steps meet the one that begins there is asked, with `left` the one
 * that ends there. There must be a step. */
td_status td_path_at(td_path *p, double t, bool left, void *y, void *dy);

#endif
