/* What a captured field has: its programs, evaluations that were kept, and whole steps. For captured.c and
 * captured_step.c. */
#ifndef TD_SOLVE_PROGRAMS_H
#define TD_SOLVE_PROGRAMS_H
#include "graph/ir.h"
#include "graph/joined.h"
#include "graph/strips.h"
#include "solve/field.h"
#include "solve/tableau.h"

/* An explicit step, or its transpose, as one list of operations on numbers; places of its inputs and results. */
typedef struct {
  td_joined list;
  int y, h, t, k, lambda; /* the first place of each; k: of k₀, as many places apart as there are stages; after lambda
                             come the sums of the externals */
  bool timed;               /* it reads the times */
  int *result; /* places: of y1, k₁, k₂ … and the two error estimates; or of lambda and the sums of the externals */
  size_t nresult;
} td_joined_step;

/* Those of one method. They are written when a solve has made some steps, so that a short one does not pay. */
typedef struct {
  const char *method;
  int forward_calls, back_calls;
  bool refused;             /* it cannot be written as one list, or is too long */
  td_joined_step forward, back;
} td_joined_steps;

/* The same as a list of operations on short arrays: places of its inputs and results, and what it multiplies with. */
typedef struct {
  td_strips list;
  bool made;
  int y, lambda;
  int t[TD_MAX_STAGES], k[TD_MAX_STAGES], y1;
  int *sum;                 /* of each external, -1: it has none */
  double *h_a, *h_b, *one;  /* h·a, packed; h·b; 1 */
} td_strip_step;

typedef struct {
  const char *method;
  int forward_calls, back_calls;
  bool refused;
  td_strip_step forward, back;
} td_strip_steps;

/* One evaluation that was kept: the time, and in one block the state (when the reverse pass reads it) and the kept
 * values; small ones beside large ones are in another. */
typedef struct {
  const void *y;
  double t;
  char *block, *rest;
  uint64_t number;         /* 1 + that of the evaluation in it; 0: none (captured.h) */
} kept_slot;

struct td_field_programs {
  td_program *eval, *forward, *backward, *jvp;
  bool dynamic;            /* dy depends on something with a gradient */
  int by_y, by_t;          /* which results of backward these are; -1: none */
  int *by_external;        /* likewise; nexternals of them */
  td_tensor **sum;         /* scratch for the cotangents of externals */
  size_t nexternals;
  size_t *offset;          /* of each kept value in a slot's block, of those from nlarge on in its rest */
  size_t nkept, nlarge, block_bytes, rest_bytes, keep_most;
  bool keeps_y;            /* at the block's beginning */
  bool recomputes;         /* backward computes the forward part itself */
  struct {                 /* what the field did before */
    td_status (*eval)(td_field *, double, const void *, void *);
    td_status (*keep)(td_field *, int, double, const void *, void *);
    td_status (*pull)(td_field *, int, const void *, void *, double *, td_tensor **);
    td_status (*vjp)(td_field *, double, const void *, const void *, void *, double *, td_tensor **);
  } before;
  kept_slot *slot, own;    /* by number modulo the ring, or as they are asked for when that is 0; that of vjp */
  int nslot, ring, most;   /* most: evaluations to be held */
  uint64_t first;          /* the number of the evaluation that slot 0 means */
  void **out;              /* room for the results' places */
  char *scratch;           /* a vector of the state's size, or NULL: not needed yet */
  size_t scratch_bytes;
  td_joined_steps steps;   /* captured_step.c */
  td_strip_steps strips;   /* captured_strips.c */
  struct {                 /* captured_cache.c */
    bool kept;             /* to be kept for the next solve by the same field */
    uint64_t key[2], used;
    int *backward;         /* which external of eval each one of backward is */
  } again;
};

/* Where kept value i lies in a slot. */
static inline char *td_captured_kept(const struct td_field_programs *p, const kept_slot *slot, size_t i) {
  return (i < p->nlarge ? slot->block : slot->rest) + p->offset[i];
}
/* The slot that `at` means now, with its block, to be filled. */
td_status td_captured_slot(struct td_field_programs *p, int at, kept_slot **slot);
/* Gives back what was kept. */
void td_captured_free_slots(struct td_field_programs *p);
/* Gives f `stages` when its programs go through a batch tile by tile (captured_tiles.c). */
void td_captured_tiles_set(td_field *f);
void td_captured_programs_free(struct td_field_programs *p);
/* Evaluations that they hold beyond their solve (field.h) are nobody's any more. */
void td_captured_drop_hold(const struct td_field_programs *p);

/* ---- captured_kept.c ---- */
/* What a reverse pass, the calls of the trace from `forward` on, needs of the forward part, made less: results of light
 * operations on what is kept anyway, or on the n tensors `known`, leave the list and are computed again. `again`
 * receives those calls with the reverse pass, borrowed, its array to be freed by td_captured_thin_free; count 0:
 * nothing to gain. */
td_status td_captured_thin(const td_trace *t, size_t forward, td_tensor *const *known, int n, td_storage_list *kept,
                           td_trace *again);
void td_captured_thin_free(td_trace *again);

/* ---- captured_cache.c ---- */
/* What a right-hand side was recorded as. */
typedef struct {
  const td_trace *trace;
  size_t forward;          /* calls of the trace before the reverse pass */
  td_tensor *t, *y, *dy;
  uint64_t since;          /* the first node */
} td_captured_record;

/* A key of all that the programs are made from, or false when something cannot be told; the forward part, whose
 * externals the programs read, is left in *ir, to be freed by td_ir_free in either case. */
bool td_captured_key(const td_field *f, const td_captured_record *r, bool gradient, size_t keep_most, td_ir *ir,
                     uint64_t key[2]);
/* The programs that were kept under the key, reading the externals of *ir; the caller's. NULL: there are none. */
struct td_field_programs *td_captured_again(const uint64_t key[2], const td_ir *ir);
/* Marks programs that were made for the key, to be kept when they are given back. */
void td_captured_mark(struct td_field_programs *p, const uint64_t key[2]);
/* They are not needed now: kept without what they read, or freed. */
void td_captured_give_back(struct td_field_programs *p);

/* Gives f `stages` and `stages_back` when its programs are lists of operations on numbers. */
void td_captured_steps_set(td_field *f, bool gradient);
void td_captured_steps_free(struct td_field_programs *p);
/* The list for this step when it is there or should be made now, else NULL. */
td_status td_captured_list(td_field *f, const td_field_stages *step, bool back, td_joined_step **list);
/* Are there sums that can be added to where they lie? New ones are zero. They pass into the list's places after lambda,
 * and out of its results. */
td_status td_captured_open_sums(td_field *f, td_tensor **dexternal, bool *open);
void td_captured_put_sums(const struct td_field_programs *p, td_joined_step *list, td_tensor *const *dexternal);
void td_captured_take_sums(const struct td_field_programs *p, const td_joined_step *list, td_tensor *const *dexternal);

/* ---- captured_strips.c ---- */
/* As td_captured_steps_set, for programs that are small, by operations on short arrays. */
void td_captured_strips_set(td_field *f, bool gradient);
void td_captured_strips_free(struct td_field_programs *p);

/* ---- captured_march.c ---- */
/* Gives f `march` and, with `back`, `march_back`. */
void td_captured_march_set(td_field *f, bool back);

#endif
