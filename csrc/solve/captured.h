/* A field whose evaluations and vector–Jacobian products are programs (graph/program.h). */
#ifndef TD_SOLVE_CAPTURED_H
#define TD_SOLVE_CAPTURED_H
#include "solve/field.h"

/* Captures f, which must have `record` and, when gradients are wanted, know its externals: from then on eval, keep,
 * pull and vjp run programs. An evaluation that would keep more than keep_most bytes for its reverse pass is computed
 * again by it instead. On failure f is as it was; f's own message says why. */
td_status td_field_capture(td_field *f, bool gradient, size_t keep_most);
/* The same for f that has not been called yet: its externals are found in what is recorded, and added to those it has. The
 * gradient is wanted when something is recorded at all and either y0 or times lead to it (`leads`) or there are externals. */
td_status td_field_capture_first(td_field *f, bool recording, bool leads, size_t keep_most);
/* Are f's programs kept for the next solve by the same f? Then f(t, y) is cheap, and each solve takes it from them. */
bool td_field_is_kept(const td_field *f);
/* What the captured f has kept in the last step of its solve stays for the reverse pass, which then need not evaluate
 * it again. One field at a time holds: the one before gives its memory back, so that a row of solves needs no more
 * than going back over one step does. Nothing that is not captured holds. */
void td_field_hold(td_field *f);
bool td_field_may_hold(const td_field *f);
bool td_field_holds(const td_field *f);
/* Memory held so. */
size_t td_field_held_bytes(void);
/* f holds no more what it kept: other evaluations take its place. Another one gives its memory back. */
void td_field_let_go(const td_field *f);
/* Whether fields captured from now on march (captured_march.c), for tests; gives what was set before. */
bool td_captured_march_allow(bool on);
/* Steps made so since the start, forward and back. */
void td_captured_marched(uint64_t steps[2]);
/* Takes the capture back. */
void td_field_uncapture(td_field *f);

#endif
