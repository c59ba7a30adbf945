/* The accepted steps of a solve: where each starts and ends, and, under a budget, the states to replay them from.
 * Checkpoints are placed as the solve goes on and re-placed in the reverse sweep by the binomial optimum. */
#ifndef TD_SOLVE_TRAJECTORY_H
#define TD_SOLVE_TRAJECTORY_H
#include "solve/stepper.h"

typedef struct td_ode_step {
  double t, end;
  char *state;        /* y and the method's history at t, or NULL: not kept */
  uint64_t bytes : 48;      /* of state */
  bool pooled : 1;          /* the state lies in the pool */
  bool restart : 1;         /* history is forgotten here: the first step, after a jump, after an event */
  bool before_jump : 1;     /* f at the end is taken from before */
  bool after_jump : 1;      /* f at the start is taken from after */
  bool pinned : 1;          /* the state was set by an event: kept whatever the budget */
  bool is_cut : 1;          /* an event inside ended it at `cut`: y at `end` was not used */
  double cut;
} td_ode_step;

/* Room for small states of one size, many to an allocation. */
typedef struct td_state_pool {
  char *blocks;       /* the first one; each begins with the address of the next */
  char *free;         /* likewise of states that are given back */
  size_t each, left;  /* bytes of a state; states left in the first block */
} td_state_pool;

typedef struct {
  td_ode_step *steps;
  size_t n, capacity;
  char *last;         /* the kept state at the end, or NULL */
  size_t last_bytes;
  bool unrecorded;    /* not even the steps are wanted */
  bool keep;          /* keep states at all */
  size_t slots;       /* states kept at a time, the first included; SIZE_MAX: no bound */
  size_t budget;      /* bytes of states; turned into slots when the first is kept. 0: no bound */
  size_t planned;     /* steps there will be, when that is known beforehand; else 0 */
  size_t kept;        /* states kept now */
  size_t stride;      /* of an unplanned solve under a budget: every stride-th is kept */
  size_t next_kept;   /* of a planned one: the next step whose state is kept */
  td_state_pool pool;
} td_trajectory;

/* The accepted step that s has just made joins; to be called before td_stepper_accept. The flags and the cut are
 * taken from `like`. */
td_status td_trajectory_add(td_trajectory *p, const td_stepper *s, const td_ode_step *like);
void td_trajectory_free(td_trajectory *p);

/* Extra forward steps that a reverse sweep over n steps with c slots needs at least, the forward sweep's own n − 1
 * included (Griewank 1992; Griewank and Walther 2000, revolve). */
double td_revolve_count(size_t n, size_t c);
/* How far to advance from a checkpoint, over n steps with c slots, its own included, before the next one. */
size_t td_revolve_split(size_t n, size_t c);

/* Puts s at the start of step n, ready to make it: loads or recomputes the state. Steps at or after `last` have been
 * swept and their slots are free. *replayed counts the steps made again. */
td_status td_trajectory_seek(td_trajectory *p, td_stepper *s, size_t n, uint64_t *replayed);
/* The same at any time, changing nothing that is kept. */
td_status td_trajectory_at(td_trajectory *p, td_stepper *s, size_t n, uint64_t *replayed);
/* Where a step's values end to count: its end, or its cut. */
static inline double td_step_stop(const td_ode_step *s) { return s->is_cut ? s->cut : s->end; }

#endif
