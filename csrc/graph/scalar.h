/* Tiny programs, number by number. For a field of two variables a kernel call costs more than what it computes, so a
 * program of float64 whose every element can be written out in few instructions becomes a list of operations on
 * numbers. Moving elements costs nothing then, and sums with 0 and products with 1, which derivatives of indexing are
 * full of, go. For the files of this folder. */
#ifndef TD_GRAPH_SCALAR_H
#define TD_GRAPH_SCALAR_H
#include "graph/ir.h"

/* dst = op(a, b, c), places in the list of numbers. op: of TD_PW_OPS, or one of these over n numbers in a row. */
typedef struct td_scalar_step {
  uint16_t op, dst, a, b, c, n;
} td_scalar_step;
enum {
  TD_SCALAR_CUBE = TD_PW_OP_COUNT,
  TD_SCALAR_SCALE,  /* dst … = a · (b …) */
  TD_SCALAR_DOT     /* dst = c + Σ (a …)(b …), added one after the other */
};

/* `count` elements of a slot, from `element` on, are the numbers from `number` on. */
typedef struct {
  uint16_t number, slot, count;
  uint32_t element;
} td_scalar_link;

typedef struct td_scalar {
  double *number;       /* constants are in place; the others are written by each run */
  bool *constant;
  int numbers;
  td_scalar_step *step;
  td_scalar_link *load, *load_external, *store;
  int nstep, nload, nexternal, nstore;
} td_scalar;

/* *out receives the list, in the pool, or NULL when the program is not of that kind. After the passes. */
td_status td_scalar_make(td_ir *ir, td_scalar **out);
/* Runs it. in, out: where the slots of each kind begin; external: what it reads besides. */
void td_scalar_run(const td_scalar *s, void *const *in, void *const *out, td_tensor *const *external);
void td_scalar_perform(const td_scalar_step *step, int n, double *x);
int td_scalar_length(const td_scalar *s);

#endif
