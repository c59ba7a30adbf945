/* What the reverse passes share: the cotangents that move from the last save time to the first. For
 * gradient.c and the modes, discrete.c and backsolve.c. */
#ifndef TD_SOLVE_SWEEP_H
#define TD_SOLVE_SWEEP_H
#include "solve/gradient.h"

typedef struct {
  const td_ode_recorded *r;
  const void *y0;  /* when times are differentiated */
  td_tensor *dys;          /* cotangent of the saved values: times×state, contiguous */
  td_tensor *dout[4];      /* of all results: ys, event times, states before and after; NULL: none */
  size_t next;             /* save times before this one are still to be passed */
  td_tensor *lambda;       /* cotangent of the state; NULL: zero; owned */
  td_tensor **dexternal;   /* of each external; likewise */
  double *dtimes;          /* of each time; NULL: not wanted */
} td_sweep;

/* lambda at the last time becomes lambda at the first, all saved rows' cotangents added. */
td_status td_sweep_discrete(td_sweep *s);
td_status td_sweep_backsolve(td_sweep *s);

/* All saved rows again, on the tape, from y and times (NULL: not differentiated): for second derivatives.
 * Automatic. */
td_tensor *td_replay_all(const td_ode_recorded *r, td_tensor *y, td_tensor *times);

#endif
