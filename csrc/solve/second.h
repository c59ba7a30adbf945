/* Second derivatives of a right-hand side on the tape or in a capture, of one row or of many. */
#ifndef TD_SOLVE_SECOND_H
#define TD_SOLVE_SECOND_H
#include "solve/field.h"

/* grad[i] receives the derivative by in[i] of the sum Σₖ wₖᵀ(∂f/∂y uₖ + ∂f/∂t vₖ), over all rows if there are several,
 * dy = f(t, y) being recorded; NULL: it is zero. u[k] and v[k] are like y and t, or NULL. While it records. */
td_status td_second_pull(td_tensor *dy, td_tensor *t, td_tensor *y, size_t count, td_tensor *const *w,
                         td_tensor *const *u, td_tensor *const *v, td_tensor *const *in, int nin, td_tensor **grad);

#endif
