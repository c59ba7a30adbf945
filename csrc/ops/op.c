/* The one door: td_apply, automatic references, shape helpers, the registry. */
#include "ops/op.h"
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"

bool td_recording = true;
td_status (*td_record)(td_call *c);
td_status (*td_capture_call)(td_call *c);

static void drop_outputs(td_call *c) {
  for (int i = 0; i < c->nout; i++) {
    td_tensor_release(c->out[i]);
    c->out[i] = NULL;
  }
}

static bool any_node(const td_call *c) {
  for (int i = 0; i < c->nin; i++)
    if (c->in[i]->node) return true;
  return false;
}

static td_status check_values(const td_call *c) {
  for (int i = 0; i < c->nin; i++)
    if (!c->in[i]->storage)
      return td_fail(TD_EGRAD, "%s: operand %d has a shape but no values", c->op->name, i + 1);
    else if (c->in[i]->storage->is_virtual && c->in[i]->storage->era != td_capture_era)
      return td_fail(TD_EARG,
                     "%s: operand %d was made while a function was captured and has no values; what a captured "
                     "function computes is to be returned by it",
                     c->op->name, i + 1);
  return TD_OK;
}

/* Programs are made for what is a leaf now; see td_leaf_changes. */
static void note_leaves(const td_call *c) {
  for (int i = 0; i < c->nin; i++)
    if (!c->in[i]->weak) c->in[i]->was_captured = true;
}

static bool all_known(const td_call *c) {
  for (int i = 0; i < c->nin; i++)
    if (!td_tensor_is_known(c->in[i])) return false;
  return true;
}

td_status td_apply(const td_op *op, td_tensor *const *in, int nin, const td_attrs *a, td_tensor **out) {
  static const td_attrs none;
  td_call c;
  c.op = op;
  c.a = a ? a : &none;
  c.nin = nin;
  c.nout = op->nout ? op->nout : 1;
  c.in = in;
  for (int i = 0; i < TD_MAX_OUT; i++) c.out[i] = NULL;
  td_status s = check_values(&c);
  if (td_capture_era) note_leaves(&c);
  if (!s) s = op->shape(&c);
  if (!s && op->view) {
    s = op->view(&c);
  } else if (!s && td_capture_era && !all_known(&c)) {
    s = td_capture_call(&c);
  } else if (!s) {
    for (int i = 0; i < c.nout && !s; i++) {
      c.out[i] = td_tensor_new(c.meta[i].dtype, c.meta[i].ndim, c.meta[i].shape);
      if (!c.out[i]) s = td_last_status();
    }
    if (!s) s = op->run(&c);
  }
  if (!s && td_recording && op->vjp && td_record && any_node(&c)) s = td_record(&c);
  if (s) drop_outputs(&c);
  for (int i = 0; i < c.nout; i++) out[i] = c.out[i];
  return s;
}

/* Writes an in-place call down; one that cannot write directly goes through a tensor of its own. */
static td_status capture_inplace(td_call *c, td_tensor *x, bool direct) {
  if (direct) {
    c->out[0] = x;
    return td_capture_call(c);
  }
  td_tensor *made[TD_MAX_OUT];
  td_status s = td_apply(c->op, c->in, c->nin, c->a, made);
  if (s) return s;
  s = td_tensor_copy(x, made[0]);
  td_tensor_release(made[0]);
  return s;
}

td_status td_apply_inplace(const td_op *op, td_tensor *const *in, int nin, const td_attrs *a) {
  static const td_attrs none;
  td_call c = {.op = op, .a = a ? a : &none, .nin = nin, .nout = 1, .in = in};
  td_status s = check_values(&c);
  if (s) return s;
  if (td_recording && any_node(&c))
    return td_fail(TD_EGRAD, "%s_: an operand takes part in a gradient, which writing in place would spoil; "
                   "use %s, or wrap the write in no_grad", op->name, op->name);
  if ((s = op->shape(&c))) return s;
  td_tensor *x = in[0];
  if (c.meta[0].ndim != x->ndim || memcmp(c.meta[0].shape, x->shape, sizeof(size_t) * (size_t)x->ndim))
    return td_fail(TD_ESHAPE, "%s_: the result has shape (%s), the tensor written to (%s)", op->name,
                   td_shape_string(c.meta[0].ndim, c.meta[0].shape), td_tensor_shape_string(x));
  if (td_dtype_is_real(c.meta[0].dtype) && !td_dtype_is_real(x->dtype))
    return td_fail(TD_EDTYPE, "%s_: the result is %s, which %s cannot hold; use %s, or convert with :to()", op->name,
                   td_dtype_name(c.meta[0].dtype), td_dtype_name(x->dtype), op->name);
  if (!td_tensor_is_writable(x))
    return td_fail(TD_EARG, "%s_: elements of the expanded tensor of shape (%s) share memory; clone() it first",
                   op->name, td_tensor_shape_string(x));
  bool overlaps = false;  /* another operand looks at the same storage in another way */
  for (int i = 1; i < nin; i++) overlaps |= in[i]->storage == x->storage && in[i] != x;
  bool direct = c.meta[0].dtype == x->dtype && !overlaps;
  if (td_capture_era && !all_known(&c)) return capture_inplace(&c, x, direct);
  if (!direct) {
    td_tensor *tmp = td_tensor_new(c.meta[0].dtype, x->ndim, x->shape);
    if (!tmp) return td_last_status();
    c.out[0] = tmp;
    s = op->run(&c);
    if (!s) s = td_tensor_copy(x, tmp);
    td_tensor_release(tmp);
    return s;
  }
  if (td_capture_era && (s = td_capture_spare(x->storage))) return s;
  x->storage->version++;
  c.out[0] = x;
  return op->run(&c);
}

/* ---- Automatic references ---- */

static struct {
  td_tensor **item;
  size_t count, capacity;
} pool;

size_t td_auto_mark(void) { return pool.count; }

void td_auto_release(size_t mark) {
  while (pool.count > mark) td_tensor_release(pool.item[--pool.count]);
}

td_tensor *td_auto(td_tensor *t) {
  if (!t) return NULL;
  if (pool.count == pool.capacity) {
    size_t wanted = pool.capacity ? 2 * pool.capacity : 256;
    td_tensor **grown = td_alloc(wanted * sizeof *grown);
    if (!grown) {
      td_tensor_release(t);
      return NULL;
    }
    if (pool.count) memcpy(grown, pool.item, pool.count * sizeof *grown);
    td_free(pool.item, pool.capacity * sizeof *grown);
    pool.item = grown;
    pool.capacity = wanted;
  }
  return pool.item[pool.count++] = t;
}

/* ---- Shape helpers ---- */

void td_meta_set(td_call *c, int i, td_dtype d, int ndim, const size_t *shape) {
  c->meta[i].dtype = d;
  c->meta[i].ndim = ndim;
  for (int k = 0; k < ndim; k++) c->meta[i].shape[k] = shape[k];
}

void td_meta_like(td_call *c, int i, const td_tensor *t) {
  td_meta_set(c, i, t->dtype, t->ndim, t->shape);
}

td_status td_broadcast(const td_call *c, int *ndim, size_t *shape) {
  int n = 0;
  for (int i = 0; i < c->nin; i++)
    if (c->in[i]->ndim > n) n = c->in[i]->ndim;
  for (int k = 0; k < n; k++) shape[k] = 1;
  for (int i = 0; i < c->nin; i++) {
    const td_tensor *t = c->in[i];
    int lead = n - t->ndim;
    for (int k = 0; k < t->ndim; k++) {
      size_t s = t->shape[k];
      if (s == 1 || s == shape[lead + k]) continue;
      if (shape[lead + k] != 1)
        return td_fail(TD_ESHAPE, "%s: shapes do not broadcast: (%s) and (%s)", c->op->name,
                       td_tensor_shape_string(c->in[0]), td_tensor_shape_string(t));
      shape[lead + k] = s;
    }
  }
  *ndim = n;
  return TD_OK;
}

static int rank_of(const td_tensor *t) { return t->weak ? 0 : t->ndim ? 2 : 1; }

/* U8 < I64 < F32 < F64 */
static td_dtype wider(td_dtype a, td_dtype b) {
  static const int order[TD_DTYPE_COUNT] = {[TD_U8] = 0, [TD_I64] = 1, [TD_F32] = 2, [TD_F64] = 3};
  return order[a] >= order[b] ? a : b;
}

td_dtype td_promote(td_tensor *const *in, int nin) {
  td_dtype first = in[0]->dtype;
  bool alike = in[0]->ndim > 0;  /* the usual case: tensors of one type */
  for (int i = 1; i < nin && alike; i++) alike = in[i]->ndim > 0 && in[i]->dtype == first;
  if (alike) return first;
  td_dtype best[3] = {TD_U8, TD_U8, TD_U8};
  bool have[3] = {false, false, false};
  for (int i = 0; i < nin; i++) {
    int r = rank_of(in[i]);
    best[r] = have[r] ? wider(best[r], in[i]->dtype) : in[i]->dtype;
    have[r] = true;
  }
  int top = have[2] ? 2 : have[1] ? 1 : 0;
  td_dtype d = best[top];
  if (top == 0) return td_dtype_is_real(d) ? TD_F32 : TD_I64;  /* nothing but Lua numbers */
  for (int r = top - 1; r >= 0; r--)  /* a lower rank decides only that the result is real */
    if (have[r] && td_dtype_is_real(best[r]) && !td_dtype_is_real(d)) d = r ? best[r] : TD_F32;
  return d;
}

td_status td_want_real(const td_call *c, int i) {
  if (td_dtype_is_real(c->in[i]->dtype)) return TD_OK;
  return td_fail(TD_EDTYPE, "%s: operand %d is %s, expected float32 or float64", c->op->name, i + 1,
                 td_dtype_name(c->in[i]->dtype));
}

/* ---- Registry ---- */

const td_op *const *const *td_op_families(void) {
  static const td_op *const *const families[] = {
    td_ops_pointwise, td_ops_move, td_ops_reduce, td_ops_matmul, td_ops_image, td_ops_norm, td_ops_attention,
    td_ops_linalg, NULL,
  };
  return families;
}

const td_op *td_op_find(const char *name) {
  for (const td_op *const *const *f = td_op_families(); *f; f++)
    for (const td_op *const *o = *f; *o; o++)
      if (!strcmp((*o)->name, name)) return *o;
  return NULL;
}
