/* Tiny programs, number by number. For a field of two variables a kernel call costs more than what it computes, so a program
 * of float64 whose every element can be written out in few instructions becomes a list of operations on numbers. Moving
 * elements costs nothing then, and sums with 0 and products with 1, which derivatives of indexing are full of, go.
 * For the files of this folder. */
#ifndef TD_GRAPH_SCALAR_H
#define TD_GRAPH_SCALAR_H
#include "graph/ir.h"

typedef struct td_scalar td_scalar;

/* *out receives the list, in the pool, or NULL when the program is not of that kind. After the passes. */
td_status td_scalar_make(td_ir *ir, td_scalar **out);
/* Runs it. in, out, external: where the slots of each kind begin. */
void td_scalar_run(const td_scalar *s, char *const *in, char *const *out, char *const *external);
int td_scalar_length(const td_scalar *s);

#endif
