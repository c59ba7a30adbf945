/* A field whose evaluations and vector–Jacobian products are programs (graph/program.h). */
#ifndef TD_SOLVE_CAPTURED_H
#define TD_SOLVE_CAPTURED_H
#include "solve/field.h"

/* Captures f, which must have `record` and, when gradients are wanted, know its externals: from then on eval, keep,
 * pull and vjp run programs. An evaluation that would keep more than keep_most bytes for its reverse pass is computed
 * again by it instead. On failure f is as it was; f's own message says why. */
td_status td_field_capture(td_field *f, bool gradient, size_t keep_most);
/* Takes it back. */
void td_field_uncapture(td_field *f);

#endif
