/* Lists of operations on numbers (scalar.h) as machine code, for lists that run thousands of times. On x86-64 with AVX;
 * elsewhere, and where the system grants no executable memory, there is none and the list is interpreted. */
#ifndef TD_GRAPH_NATIVE_H
#define TD_GRAPH_NATIVE_H
#include "graph/scalar.h"

typedef struct td_native td_native;

/* Code that does exactly what td_scalar_perform does with these n steps; NULL: none. */
td_native *td_native_new(const td_scalar_step *step, int n);
void td_native_free(td_native *code);
void td_native_run(const td_native *code, double *x);
/* Makes td_native_new give none, for tests; gives what was set before. */
bool td_native_allow(bool on);

#endif
