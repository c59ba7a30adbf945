/* The operations as C functions: calling by expression, and the short forms with attributes. */
#include "ops/ops.h"
#include <stdarg.h>
#include <string.h>

void (*td_rule_by_twin)(td_rule *r, td_twin twin);

enum { MAX_CALL = 4 };

td_tensor *td_do(const td_op *op, const td_attrs *a, int n, ...) {
  td_tensor *in[MAX_CALL], *out[TD_MAX_OUT];
  va_list args;
  va_start(args, n);
  for (int i = 0; i < n; i++) in[i] = va_arg(args, td_tensor *);
  va_end(args);
  td_do_all(op, a, n, in, out);
  return out[0];
}

void td_do_all(const td_op *op, const td_attrs *a, int nin, td_tensor *const *in, td_tensor **out) {
  out[0] = NULL;
  for (int i = 0; i < nin; i++)
    if (!in[i]) return;
  int nout = op->nout ? op->nout : 1;
  if (td_apply(op, in, nin, a, out)) return;
  for (int i = 0; i < nout; i++) out[i] = td_auto(out[i]);
}

/* Numbers come and go with every call, so a few tensors are kept for them. One that the tape has kept is left to it. */
td_tensor *td_number(td_dtype d, double v) {
  enum { KEPT = 16 };
  static td_tensor *kept[KEPT];
  static unsigned next;
  td_tensor **slot = &kept[next++ % KEPT], *t = *slot;
  if (t && (t->refs > 1 || t->storage->refs > 1)) {
    td_tensor_release(t);
    *slot = t = NULL;
  }
  if (!t) {
    t = *slot = td_tensor_number(d, v, true);
  } else {
    t->dtype = d;
    td_tensor_set(t, 0, v);
  }
  return td_auto(td_tensor_retain(t));
}

td_tensor *td_num(double v) { return td_number(TD_F64, v); }

td_tensor *td_zeros_like(const td_tensor *t) {
  return t ? td_auto(td_tensor_zeros(t->dtype, t->ndim, t->shape)) : NULL;
}

td_tensor *td_ones_like(const td_tensor *t) {
  td_tensor *one = t ? td_auto(td_tensor_new(t->dtype, t->ndim, t->shape)) : NULL;
  return one && !td_tensor_fill(one, 1) ? one : NULL;
}

/* Attributes of kind `shape`: the count, then the sizes. */
static td_attrs shape_attrs(int ndim, const size_t *shape) {
  td_attrs a = {.i = {ndim}};
  for (int i = 0; i < ndim; i++) a.i[1 + i] = (int64_t)shape[i];
  return a;
}

td_tensor *td_cast(td_tensor *x, td_dtype d) {
  if (!x || x->dtype == d) return x;
  return td_do(&td_op_cast, &(td_attrs){.i = {d}}, 1, x);
}

td_tensor *td_reshape(td_tensor *x, int ndim, const size_t *shape) {
  td_attrs a = shape_attrs(ndim, shape);
  return td_do(&td_op_reshape, &a, 1, x);
}

td_tensor *td_reshape_like(td_tensor *x, const td_tensor *like) {
  if (!x || td_tensor_same_shape(x, like)) return x;
  return td_reshape(x, like->ndim, like->shape);
}

td_tensor *td_transpose(td_tensor *x, int a, int b) {
  if (!x) return NULL;
  td_attrs p = {.i = {x->ndim}};
  for (int i = 0; i < x->ndim; i++) p.i[1 + i] = i;
  if (a < 0) a += x->ndim;
  if (b < 0) b += x->ndim;
  p.i[1 + a] = b;
  p.i[1 + b] = a;
  return td_do(&td_op_permute, &p, 1, x);
}

td_tensor *td_expand(td_tensor *x, int ndim, const size_t *shape) {
  td_attrs a = shape_attrs(ndim, shape);
  return td_do(&td_op_expand, &a, 1, x);
}

td_tensor *td_narrow(td_tensor *x, int dim, size_t start, size_t length) {
  return td_do(&td_op_narrow, &(td_attrs){.i = {dim, (int64_t)start, (int64_t)length, 1}}, 1, x);
}

td_tensor *td_sum(td_tensor *x, unsigned dims, bool keepdim) {
  return td_do(&td_op_sum, &(td_attrs){.i = {dims, keepdim}}, 1, x);
}

td_tensor *td_sum_to(td_tensor *x, int ndim, const size_t *shape) {
  if (!x) return NULL;
  int lead = x->ndim - ndim;
  unsigned mask = 0;
  for (int i = 0; i < x->ndim; i++)
    if (i < lead || (shape[i - lead] == 1 && x->shape[i] != 1)) mask |= 1u << i;
  if (mask) x = td_sum(x, mask, true);
  if (x && lead > 0) x = td_reshape(x, ndim, shape);
  return x;
}

td_tensor *td_matmul(td_tensor *a, td_tensor *b) { return td_do(&td_op_matmul, NULL, 2, a, b); }

td_tensor *td_lincomb(int n, const double *coef, td_tensor *const *x) {
  enum { MOST = 24 };
  td_tensor *in[MOST + 1], *out[TD_MAX_OUT];
  size_t count = 0, wanted = 0;
  for (int i = 0; i < n; i++) wanted += coef[i] != 0;
  if (n > MOST) {
    td_fail(TD_EARG, "lincomb: %d tensors, expected at most %d", n, MOST);
    return NULL;
  }
  in[0] = td_auto(td_tensor_new(TD_F64, 1, &wanted));
  for (int i = 0; i < n && in[0]; i++) {
    if (coef[i] == 0) continue;
    td_tensor_set(in[0], count++, coef[i]);
    in[count] = x[i];
  }
  td_do_all(&td_op_lincomb, NULL, (int)count + 1, in, out);
  return out[0];
}
