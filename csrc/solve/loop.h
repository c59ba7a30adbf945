/* What a solve carries from one step to the next: shared by the files of the forward loop, integrate.c, control.c and
 * save.c. */
#ifndef TD_SOLVE_LOOP_H
#define TD_SOLVE_LOOP_H
#include "solve/integrate.h"

typedef struct {
  td_stepper s;
  td_field *f;
  const td_ode_options *o;
  const double *ts;
  size_t nt, next;            /* next save time */
  size_t next_stop, next_node;
  double direction;
  double anchor, taken;       /* fixed steps: the last stop, and steps since */
  double history[2];          /* errors of the last accepted steps */
  double sizes[2];            /* and their sizes */
  bool rejected_last, restarted, pinned, jumped;
  size_t worst;               /* the element with the largest scaled error in the last norm */
  char *scaled;               /* room for one vector when a norm needs it; else NULL */
  char *room;                 /* for two, with events; else NULL */
  bool broken;                /* the last trial of a march was not finite */
  double *march;              /* room of march.c when the field makes steps of its own; else NULL */
  td_field_method method;     /* what it is told then */
  td_ode_solution *out;
} td_solve;

/* A step to try. */
typedef struct {
  double end, h;
  bool lands;   /* ends on a stop */
  bool cut;     /* shorter than was wanted, to land */
  bool jump;    /* the stop is a jump */
} td_trial;

static inline bool td_is_adaptive(const td_ode_options *o) {
  return o->method->error_order && o->step_size == 0 && !o->grid;
}

/* ---- control.c ---- */
/* The norm of Σ coef[i] x[i] over atol + rtol·max(|y0|, |y1|); NaN or infinite when something is not finite. */
td_status td_solve_norm(td_solve *v, const td_terms *x, const void *y0, const void *y1, double *norm);
/* The error of the step just made, as a norm. */
td_status td_solve_error(td_solve *v, double *error);
bool td_solve_is_finite(td_solve *v, const void *y, size_t *where);
td_status td_solve_first_step(td_solve *v, double *h);
double td_solve_next_stop(const td_solve *v, bool *jump);
td_trial td_solve_propose(const td_solve *v, double wanted);
double td_solve_least_step(const td_solve *v);
void td_solve_control(td_solve *v, const td_trial *p, double error, double *h);
void td_solve_reject(td_solve *v, const td_trial *p, double error, bool finite, double *h);

/* ---- march.c ---- */
/* Room to march when the field can and nothing has to be looked at between the steps. */
td_status td_solve_prepare_march(td_solve *v);
void td_solve_end_march(td_solve *v);
/* The steps that the field makes on its own, if any. */
td_status td_solve_march(td_solve *v, double *h);

/* ---- save.c ---- */
/* Values at the save times in the step just made up to `stop`, its end or an event, and the step's end when every n-th
 * is wanted. */
td_status td_solve_save(td_solve *v, const td_trial *p, double stop);
void td_solve_save_row(td_solve *v, const void *y);
td_status td_solve_save_every(td_solve *v, double t, const void *y);

#endif
