/* An operation: its name, its signature, its shape rule, its kernel and its derivative rule, in one place.
 *
 * td_apply is the one door through which every operation runs: from Lua, from derivative rules, from solvers. It
 * checks shapes, makes the results, computes them, and lets the tape record. Derivative rules are written in the same
 * operations, so a backward pass can itself be recorded and differentiated. */
#ifndef TD_OPS_OP_H
#define TD_OPS_OP_H
#include "base/error.h"
#include "kernels/kernels.h"
#include "tensor/tensor.h"

enum { TD_MAX_OUT = 4, TD_MAX_ATTR = 12 };

typedef struct td_op td_op;

/* The non-tensor arguments of a call, in the order of the signature; see `signature` below. */
typedef struct {
  int64_t i[TD_MAX_ATTR];
  double f[2];
} td_attrs;

/* The type and shape of one result. */
typedef struct {
  td_dtype dtype;
  int ndim;
  size_t shape[TD_MAX_DIMS];
} td_meta;

/* One call under way. Operands are borrowed; results belong to the caller of td_apply. */
typedef struct {
  const td_op *op;
  const td_attrs *a;
  int nin, nout;
  td_tensor *const *in;
  td_tensor *out[TD_MAX_OUT];
  td_meta meta[TD_MAX_OUT];
} td_call;

/* One step of a reverse pass: cotangents of the results in, cotangents of the operands out. */
typedef struct {
  const td_op *op;
  const td_attrs *a;
  int nin, nout;
  td_tensor *const *in;    /* operands; shape only where the operation does not keep their values */
  td_tensor *const *out;   /* results likewise */
  td_tensor *const *dout;  /* NULL: this result does not reach the loss; dout[0] is set when nout is 1 */
  const bool *need;        /* which operands' cotangents are wanted */
  td_tensor **din;         /* to be set to borrowed (automatic) tensors; NULL: no gradient. A cotangent of a broadcast
                              operand may keep the broadcast shape and any real type: the tape reduces and casts it */
  void *data;              /* of a custom node */
} td_rule;

struct td_op {
  const char *name;
  /* What Lua passes: "x, w, b?, stride:pair=1, groups:int=1". Tensors first; `...` after a name takes a list; `?` may
   * be absent. Kinds and the attribute slots they take, in order: int, bool, pos (0-based), dim (0-based, negative
   * resolved), newdim (may be ndim) 1; dims (bit mask, 0 = all) 1; pair 2; shape (count, then sizes) 9; perm 9;
   * dtype 1; num one of f[]. */
  const char *signature;
  const char *doc;
  int nout;                              /* 0 means 1 */
  td_status (*shape)(td_call *c);        /* fills c->meta, checks everything that can be wrong */
  td_status (*run)(td_call *c);          /* fills c->out, which has been made from c->meta */
  td_status (*view)(td_call *c);         /* instead of run: makes c->out on the operand's storage where it can */
  void (*vjp)(td_rule *r);               /* NULL: not differentiable, its results carry no gradient */
  unsigned keep;                         /* bit i: the tape keeps operand i; bit 16+i: result i */
  unsigned ints;                         /* bit i: result i carries no gradient (positions, statistics) */
  int pw;                                /* 1 + td_pw_op for element-wise operations, else 0 */
  int kind;                              /* of element-wise operations, see pointwise.c */
  bool light; /* costs little more than to read the operands: like element-wise ones, computed
               * again rather than kept where a choice is (solve/captured_kept.c) */
};

#define TD_KEEP_IN(i) (1u << (i))
#define TD_KEEP_OUT(i) (1u << (16 + (i)))

/* Runs op on nin operands. out receives op->nout new references. On failure nothing is made. */
td_status td_apply(const td_op *op, td_tensor *const *in, int nin, const td_attrs *a, td_tensor **out);
/* The same, an element-wise operation written over its first operand, which no gradient may need. */
td_status td_apply_inplace(const td_op *op, td_tensor *const *in, int nin, const td_attrs *a);

/* Is the tape recording? Set by the tape alone. */
extern bool td_recording;
/* Called by td_apply after a call when an operand carries a node; set by the tape. */
extern td_status (*td_record)(td_call *c);
/* While a function is captured (graph/trace.h): writes the call down instead of running it, and makes its results
 * unless they are there. */
extern td_status (*td_capture_call)(td_call *c);

/* ---- Automatic references -------------------------------------------------------------------------------------
 * Derivative rules and solvers are expressions over tensors. td_auto hands a reference to a pool that is emptied
 * by td_auto_release(mark); the functions of ops.h return such tensors, and give NULL when an operand is
 * NULL, so that a failure anywhere makes the whole expression NULL with its message left. */
size_t td_auto_mark(void);
void td_auto_release(size_t mark);
td_tensor *td_auto(td_tensor *t);

/* ---- Helpers of shape rules ----------------------------------------------------------------------------------- */
/* Result i has this type and shape. */
void td_meta_set(td_call *c, int i, td_dtype d, int ndim, const size_t *shape);
void td_meta_like(td_call *c, int i, const td_tensor *t);
/* The broadcast shape of all operands; a failure names the operation and both shapes. */
td_status td_broadcast(const td_call *c, int *ndim, size_t *shape);
/* The type in which a call computes: tensors with dims outrank 0-d ones, which outrank Lua numbers; then real outranks
 * integer and wide outranks narrow. */
td_dtype td_promote(td_tensor *const *in, int nin);
/* The element type in which an element-wise call computes; its result may be another (truth values are uint8). */
td_dtype td_pw_type(const td_call *c);
/* A failure unless operand i is float32 or float64. */
td_status td_want_real(const td_call *c, int i);

/* ---- Registry --------------------------------------------------------------------------------------------------- */
/* All operations, NULL at the end, family by family. */
const td_op *const *const *td_op_families(void);
const td_op *td_op_find(const char *name);

#endif
