/* A field whose evaluations and vector–Jacobian products are programs (graph/program.h). */
#ifndef TD_SOLVE_CAPTURED_H
#define TD_SOLVE_CAPTURED_H
#include "solve/field.h"

/* Captures f, which must have `record` and, when gradients are wanted, know its externals: from then on eval, keep,
 * pull and vjp run programs. An evaluation that would keep more than keep_most bytes for its reverse pass is computed
 * again by it instead. On failure f is as it was; f's own message says why. */
td_status td_field_capture(td_field *f, bool gradient, size_t keep_most);
/* The same for a solve without a gradient whose method needs Jacobians: their rows are pulled from one evaluation. */
td_status td_field_capture_rows(td_field *f);
/* The same for f that has not been called yet: its externals are found in what is recorded, and added to those it has.
 * The gradient is wanted when something is recorded at all and either y0 or times lead to it (`leads`) or there are
 * externals; else, with `rows`, that of td_field_capture_rows. */
td_status td_field_capture_first(td_field *f, bool recording, bool leads, bool rows, size_t keep_most);
/* Are f's programs kept for the next solve by the same f? Then f(t, y) is cheap, and each solve takes it from them. */
bool td_field_is_kept(const td_field *f);

/* ---- Evaluations held from the forward solve for the reverse pass, which then need not compute them again ----
 * Those of a solve are numbered in the order of its steps, and the latest ones are held, which the reverse pass needs
 * first: new ones take the place of the oldest. One solve at a time holds, so that a row of solves needs no more memory
 * than one does. Nothing that is not captured holds. */
bool td_field_may_hold(const td_field *f);
/* A solve by a method whose steps are of so many evaluations begins: f holds as many as fit into `bytes`, though not
 * less than a step's. SIZE_MAX: of TD_HELD_STEPS steps, if that is no more than TD_HELD_MOST bytes. Which field held
 * before gives its memory back. */
enum { TD_HELD_STEPS = 3 };
#define TD_HELD_MOST ((size_t)1 << 31)
void td_field_hold(td_field *f, size_t bytes, int stages);
/* How many evaluations f may hold; 0: none. */
size_t td_field_hold_room(const td_field *f);
/* From now on slot i of keep and pull is evaluation number first + i. `fresh` of them are to be computed, for which the
 * oldest make room. */
void td_field_hold_at(td_field *f, uint64_t first, int fresh);
/* Is slot i's evaluation there? */
bool td_field_holds(const td_field *f, int slot);
/* The reverse pass needs the evaluations from this number on no more: their memory is given back, unless no earlier
 * ones are held and computing those again will use it. */
void td_field_hold_until(td_field *f, uint64_t first);
/* f holds nothing any more, and what it kept is given back. */
void td_field_let_go(td_field *f);
/* Memory held by the solve that holds. */
size_t td_field_held_bytes(void);
/* Whether fields captured from now on march (captured_march.c), for tests; gives what was set before. */
bool td_captured_march_allow(bool on);
/* Steps made so since the start, forward and back. */
void td_captured_marched(uint64_t steps[2]);

/* Takes the capture back. */
void td_field_uncapture(td_field *f);

#endif
