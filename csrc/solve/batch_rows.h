/* What a batch's rows ask its scheduler for, and how it is answered: for batch.c, batch_answer.c and
 * batch_programs.c. */
#ifndef TD_SOLVE_BATCH_ROWS_H
#define TD_SOLVE_BATCH_ROWS_H
#include "solve/batch.h"

/* VJP_ALL: of the externals too; STAGES, STAGES_BACK: of an explicit step. Those up to SECOND may have programs, those
 * from PRECONDITION on are answered row by row. */
typedef enum {
  NOTHING, EVAL, VJP, VJP_ALL, JACOBIAN, SECOND, JVP, STAGES, STAGES_BACK, PRECONDITION, NORM, RUN
} td_row_kind;

typedef struct td_row_request {
  td_row_kind kind;
  td_row_field *field;
  double t;
  const void *y, *w;    /* w: a cotangent, or of JVP a tangent */
  void *out;            /* of STAGES_BACK the cotangent that changes; of SECOND doubles that are added to */
  double *tbar;         /* of a Jacobian: where ∂f/∂t goes */
  double number;        /* of JVP the time's tangent, of PRECONDITION the shift */
  td_tensor **dexternal;
  const td_field_second *second;
  const td_field_stages *stages;
  td_status (*work)(void *data);  /* RUN calls it with out */
  td_status status;
} td_row_request;

static inline size_t td_row_bytes(const td_batch *b) { return b->f->base.numel * td_dtype_size(b->f->base.dtype); }

/* Row `row`'s view of the right-hand side (solo NULL) or of a field of one row. */
void td_row_field_init(td_row_field *r, td_batch *b, size_t row, td_field *solo);
/* The options that only the scheduler's stack may answer become questions of that row. */
void td_row_options(td_batch *b, size_t row, td_ode_options *o);
/* Tensors of the requests in `list`: times, states, row numbers; automatic. */
td_status td_rows_gather(td_batch *b, td_row_request *const *list, size_t count, td_tensor **t, td_tensor **y,
                         td_tensor **rows);
/* *dy = f at those, automatic. */
td_status td_rows_call(td_batch *b, td_tensor *t, td_tensor *y, td_tensor *rows, bool recording, td_tensor **dy);
/* Row i of a tensor's values, in f's type, into each request's out; NULL is zero. */
td_status td_rows_scatter(const td_field *f, td_tensor *x, td_row_request *const *list, size_t count);
/* Everything recorded since that dy depends on must be a known external. */
td_status td_rows_check_known(td_batch *b, td_tensor *dy, uint64_t since);
/* All that waits in b->requests; list has room for all. The first failure is told to every row and is the result. */
td_status td_rows_answer(td_batch *b, td_row_request **list, td_status failed);

/* Points of `count` rows as arrays with room for td_rows_room(b, count) of them, which programs may fill up. */
typedef struct {
  size_t count;
  double *t;
  int64_t *number;      /* from 1 */
  char *y, *w;
} td_rows_arrays;
size_t td_rows_room(const td_batch *b, size_t count);
/* dy = f there; or ybar = wᵀ∂f/∂y, dexternal taking the rows' sums. */
td_status td_rows_eval(td_batch *b, td_rows_arrays *a, char *dy);
td_status td_rows_pull(td_batch *b, td_rows_arrays *a, char *ybar, td_tensor **dexternal);

/* Requests of one kind up to SECOND, of SECOND with sums alike, by the programs for so many rows. *done is false when
 * there are none. */
td_status td_batch_programs_answer(td_batch *b, td_row_request *const *list, size_t count, td_row_kind which,
                                   bool *done);
/* The same of EVAL and VJP_ALL for arrays. */
td_status td_batch_programs_run(td_batch *b, td_row_kind which, td_rows_arrays *a, char *out, td_tensor **dexternal,
                                bool *done);
void td_batch_programs_free(td_batch *b);

/* ---- batch_stages.c ---- */
td_status td_rows_answer_stages(td_batch *b, td_row_request *const *list, size_t count, bool back);
/* ---- batch_second.c: on the tape; sums alike ---- */
td_status td_rows_answer_seconds(td_batch *b, td_row_request *const *list, size_t count);
/* Terms k of the rows' sums under one another: w, u like y, v like t; rows beyond count are zero. */
void td_rows_lay_terms(const td_field *f, td_row_request *const *list, size_t count, size_t rows, char *w, char *u,
                       double *v);

#endif
