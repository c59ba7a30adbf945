/* Many independent equations at once: every row of a batch is an ordinary solve, with its own times, tolerances, steps,
 * events, status and statistics, and computes exactly what it would alone. The rows run as fibers; when all of them
 * wait for f, it is evaluated once for those that are still at work. So every method, event and gradient that works for
 * one equation works here, and finished or failed rows cost nothing more. */
#ifndef TD_SOLVE_BATCH_H
#define TD_SOLVE_BATCH_H
#include "solve/gradient.h"

/* The right-hand side of several rows. `base` describes one row and owns the externals. */
typedef struct td_batch_field td_batch_field;
struct td_batch_field {
  td_field base;
  /* *dy receives f at b rows: t is b×1×…, y b×state, rows int64 of b, numbered from 1. On the tape while it records. */
  td_status (*record_rows)(td_batch_field *f, td_tensor *t, td_tensor *y, td_tensor *rows, td_tensor **dy);
  /* Their Jacobians, b×n×n elements in any shape, and ∂f/∂t, b×n, by a function of the user's; NULL: it has none. ft
   * NULL: not wanted. New references. */
  td_status (*jacobian_rows)(td_batch_field *f, td_tensor *t, td_tensor *y, td_tensor *rows, td_tensor **j,
                             td_tensor **ft);
};

/* What a row asks the scheduler for, and a row's field or event field that does the asking. */
typedef struct td_batch td_batch;
typedef struct {
  td_field base;
  td_batch *batch;
  size_t row;
  td_field *solo;     /* NULL: the batched right-hand side; else a field of one row, run on the main stack */
} td_row_field;

struct td_batch {
  int refs;
  td_batch_field *f;
  size_t n, together;          /* rows, and how many of them are at work at the same time */
  size_t first, end;           /* those now */
  td_row_field *fields;        /* of the rows */
  td_ode_recorded *rows;       /* their solves; rows[i].f is &fields[i].base */
  td_row_field *proxies;       /* of the rows' events: value and reset by turns */
  size_t nproxies;
  td_event *events;            /* those given, with fields of one row; owned */
  size_t nevents;
  size_t *row_of_y, *row_of_t; /* where each row's values and times begin among all; n + 1 each */
  size_t *row_of_hit;
  uint32_t *versions;
  struct td_row_request *requests;
  uint64_t *nfe_backward;
  void (*nfe_free)(void *);
  void *nfe_owner;
  /* What all rows share: owned, but for the norm, which lives as long as the forward solve. */
  td_tensor *mass, *semilinear;
  struct td_pattern *pattern;
  td_status (*precondition)(void *data, double t, double shift, const void *y, void *x);
  void *precondition_data;
  void (*precondition_free)(void *data);
  td_status (*norm_call)(void *data, const void *scaled, double *norm);
  void *norm_data;
  td_ode_second second;        /* or nothing */
  struct td_batch_programs *programs;  /* of a captured right-hand side */
};

/* An empty batch of n rows over f, which it takes over. */
td_batch *td_batch_new(td_batch_field *f, size_t n);
/* Gives one reference back. */
void td_batch_free(void *batch);
/* Gives every row its own view of the events, after they are set. */
td_status td_batch_set_events(td_batch *b, td_event *events, size_t nevents);
/* Gives every row the matrices, preconditioner and norm that they share, after its options are set. */
void td_batch_share_options(td_batch *b);
/* f at all rows' first times and states (n×state), on the tape: finds the externals. slopes: n×state. */
td_status td_batch_explore(td_batch *b, const void *y0, void *slopes);
/* From now on f runs as programs, one set for each number of rows, which compute the same; a failure when it cannot,
 * which leaves it as it was. After it was explored. */
td_status td_batch_capture(td_batch *b);
/* Solves all rows from y0 (n×state); options and times are those of rows[i]. */
td_status td_batch_integrate(td_batch *b, const void *y0);
/* All rows' saved values one after the other, and with events their times and states. New references. */
td_status td_batch_results(td_batch *b, td_tensor **out, int *nout);
/* Makes them the results of one node on y0, all rows' times one after the other, and the externals. Takes b over. */
td_status td_batch_record(td_batch *b, td_tensor *const *out, int nout, td_tensor *y0, td_tensor *times);

#endif
