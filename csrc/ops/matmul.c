/* The matrix product, batched and broadcast. */
#include <string.h>
#include "ops/ops.h"

static td_status matmul_shape(td_call *c) {
  const td_tensor *a = c->in[0], *b = c->in[1];
  td_status s = td_want_real(c, 0);
  if (!s) s = td_want_real(c, 1);
  if (s) return s;
  if (a->ndim < 2 || b->ndim < 2)
    return td_fail(TD_ESHAPE, "matmul: operands have shapes (%s) and (%s), expected at least two dims",
                   td_tensor_shape_string(a), td_tensor_shape_string(b));
  if (a->dtype != b->dtype)
    return td_fail(TD_EDTYPE, "matmul: %s times %s; convert one with :to()", td_dtype_name(a->dtype),
                   td_dtype_name(b->dtype));
  if (a->shape[a->ndim - 1] != b->shape[b->ndim - 2])
    return td_fail(TD_ESHAPE, "matmul: inner sizes differ: (%s)·(%s)", td_tensor_shape_string(a),
                   td_tensor_shape_string(b));
  int n = a->ndim > b->ndim ? a->ndim : b->ndim;
  size_t shape[TD_MAX_DIMS];
  for (int i = 0; i < n - 2; i++) {
    int ia = i - (n - a->ndim), ib = i - (n - b->ndim);
    size_t sa = ia < 0 ? 1 : a->shape[ia], sb = ib < 0 ? 1 : b->shape[ib];
    if (sa != sb && sa != 1 && sb != 1)
      return td_fail(TD_ESHAPE, "matmul: batch sizes do not broadcast: (%s)·(%s)", td_tensor_shape_string(a),
                     td_tensor_shape_string(b));
    shape[i] = sa == 1 ? sb : sa;
  }
  shape[n - 2] = a->shape[a->ndim - 2];
  shape[n - 1] = b->shape[b->ndim - 1];
  td_meta_set(c, 0, a->dtype, n, shape);
  return TD_OK;
}

bool td_matmul_reads(const td_tensor *t, bool *trans, size_t *ld) {
  size_t rows = t->shape[t->ndim - 2], cols = t->shape[t->ndim - 1];
  size_t rs = t->stride[t->ndim - 2], cs = t->stride[t->ndim - 1];
  if ((cs == 1 || cols == 1) && (rs >= cols || rows == 1)) {
    *trans = false;
    *ld = rows == 1 ? (cols ? cols : 1) : rs;
    return *ld >= cols;
  }
  if ((rs == 1 || rows == 1) && (cs >= rows || cols == 1)) {
    *trans = true;
    *ld = cols == 1 ? rows : cs;
    return *ld >= rows;
  }
  return false;
}

/* One reference to t, or to a contiguous copy when the kernel cannot read it in place. */
static td_tensor *made_readable(td_tensor *t, bool *trans, size_t *ld) {
  if (td_matmul_reads(t, trans, ld)) return td_tensor_retain(t);
  td_tensor *copy = td_tensor_clone(t);
  if (copy) td_matmul_reads(copy, trans, ld);
  return copy;
}

/* The element offset of batch item `index` (row-major over c's batch dims) in t. */
static size_t batch_offset(const td_tensor *t, const td_meta *m, size_t index) {
  size_t offset = 0;
  for (int i = m->ndim - 3; i >= 0; i--) {
    size_t at = index % m->shape[i];
    index /= m->shape[i];
    int k = i - (m->ndim - t->ndim);
    if (k >= 0 && t->shape[k] != 1) offset += at * t->stride[k];
  }
  return offset;
}

/* Do the batch items of t lie at equal distances? */
static bool even_batches(const td_tensor *t, const td_meta *m, size_t batch, size_t *stride) {
  *stride = batch > 1 ? batch_offset(t, m, 1) : 0;
  for (size_t i = 2; i < batch; i++)
    if (batch_offset(t, m, i) != i * *stride) return false;
  return true;
}

static td_status matmul_run(td_call *c) {
  bool ta, tb;
  size_t lda, ldb, sa, sb;
  td_tensor *a = made_readable(c->in[0], &ta, &lda), *b = made_readable(c->in[1], &tb, &ldb), *y = c->out[0];
  if (!a || !b) {
    td_tensor_release(a);
    td_tensor_release(b);
    return td_last_status();
  }
  size_t m = y->shape[y->ndim - 2], n = y->shape[y->ndim - 1], k = a->shape[a->ndim - 1];
  size_t batch = m && n ? y->numel / (m * n) : 0, size = td_dtype_size(y->dtype);
  const td_kernels *kernels = td_k(y->dtype);
  bool flat = b->ndim == 2 && a->ndim > 2 && td_tensor_is_contiguous(a);  /* one tall product */
  if (flat) {
    if (batch)
      kernels->matmul(y->data, a->data, b->data, batch * m, n, k, k ? k : 1, ldb, n, false, tb, 1, 0, 0, 0, 1, 0);
  } else if (batch && even_batches(a, &c->meta[0], batch, &sa) && even_batches(b, &c->meta[0], batch, &sb)) {
    kernels->matmul(y->data, a->data, b->data, m, n, k, lda, ldb, n, ta, tb, batch, sa, sb, m * n, 1, 0);
  } else {
    for (size_t i = 0; i < batch; i++)
      kernels->matmul(y->data + i * m * n * size, a->data + batch_offset(a, &c->meta[0], i) * size,
                      b->data + batch_offset(b, &c->meta[0], i) * size, m, n, k, lda, ldb, n, ta, tb, 1, 0, 0, 0, 1, 0);
  }
  td_tensor_release(a);
  td_tensor_release(b);
  return TD_OK;
}

/* x's last two dims kept, the others made one. */
static td_tensor *tall(td_tensor *x) {
  if (!x) return NULL;
  size_t cols = x->shape[x->ndim - 1], rows = 1;
  for (int i = 0; i < x->ndim - 1; i++) rows *= x->shape[i];
  return td_reshape(x, 2, (const size_t[]){rows, cols});
}

static void matmul_vjp(td_rule *r) {
  td_tensor *a = r->in[0], *b = r->in[1], *dy = r->dout[0];
  if (dy->dtype != a->dtype) dy = td_cast(dy, a->dtype);
  if (r->need[0]) r->din[0] = td_matmul(dy, td_transpose(b, -1, -2));
  if (!r->need[1]) return;
  if (b->ndim == 2 && a->ndim > 2)  /* one product sums over the batch */
    r->din[1] = td_matmul(td_transpose(tall(a), 0, 1), tall(dy));
  else
    r->din[1] = td_matmul(td_transpose(a, -1, -2), dy);
}
const td_op td_op_matmul = {.name = "mm", .signature = "a, b", .shape = matmul_shape, .run = matmul_run,
                            .vjp = matmul_vjp, .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1),
                            .doc = "matrix product over the last two dims; the others broadcast"};

const td_op *const td_ops_matmul[] = {&td_op_matmul, NULL};
