/* Attention as one operation: sequences are B×N×H×D, as a projection leaves them, so that neither heads nor positions
 * of an image have to be moved. Scores are never stored; the tape keeps the operands, the result and two numbers a
 * query. */
#include <math.h>
#include "ops/ops.h"

enum { Q, K, V, MASK };

/* 1/√D unless the attribute says otherwise. */
static double scale_of(const td_attrs *a, const td_tensor *q) {
  if (a->f[0] != 0) return a->f[0];
  return q->shape[3] ? 1 / sqrt((double)q->shape[3]) : 1;
}

/* q: B×L×H×D, k: B×S×H×D, v: B×S×H×E from in[first] on; mask: what broadcasts to B×H×L×S, or NULL. */
static td_status check_operands(const td_call *c, int first, const td_tensor *mask) {
  const td_tensor *q = c->in[first], *k = c->in[first + 1], *v = c->in[first + 2];
  td_status s = td_want_real(c, first);
  if (s) return s;
  if (q->ndim != 4 || k->ndim != 4 || v->ndim != 4 || k->shape[0] != q->shape[0] || v->shape[0] != q->shape[0] ||
      k->shape[2] != q->shape[2] || v->shape[2] != q->shape[2] || k->shape[3] != q->shape[3] ||
      v->shape[1] != k->shape[1])
    return td_fail(TD_ESHAPE, "%s: q, k and v have shapes (%s), (%s) and (%s), expected B×L×H×D, B×S×H×D and B×S×H×E",
                   c->op->name, td_tensor_shape_string(q), td_tensor_shape_string(k), td_tensor_shape_string(v));
  if (k->dtype != q->dtype || v->dtype != q->dtype)
    return td_fail(TD_EDTYPE, "%s: q, k and v are %s, %s and %s, expected one type", c->op->name,
                   td_dtype_name(q->dtype), td_dtype_name(k->dtype), td_dtype_name(v->dtype));
  if (!mask) return TD_OK;
  size_t full[4] = {q->shape[0], q->shape[2], q->shape[1], k->shape[1]};
  bool fits = mask->ndim == 4 && mask->dtype == q->dtype;
  for (int i = 0; i < 4 && fits; i++) fits = mask->shape[i] == full[i] || mask->shape[i] == 1;
  if (fits) return TD_OK;
  return td_fail(TD_ESHAPE, "%s: mask is %s of shape (%s), expected %s that broadcasts to (%s)", c->op->name,
                 td_dtype_name(mask->dtype), td_tensor_shape_string(mask), td_dtype_name(q->dtype),
                 td_shape_string(4, full));
}

/* t, or a copy when its last dim is not contiguous. */
static td_tensor *with_rows(td_tensor *t) {
  if (t->stride[3] == 1 || t->shape[3] < 2) return td_tensor_retain(t);
  return td_tensor_clone(t);
}

/* The mask with all keys written out. */
static td_tensor *with_keys(td_tensor *mask, size_t keys) {
  if (mask->shape[3] == keys) return with_rows(mask);
  size_t shape[4] = {mask->shape[0], mask->shape[1], mask->shape[2], keys};
  size_t stride[4] = {mask->stride[0], mask->stride[1], mask->stride[2], 0};
  td_tensor *view = td_tensor_view(mask, 4, shape, stride, 0), *copy = view ? td_tensor_clone(view) : NULL;
  td_tensor_release(view);
  return copy;
}

/* Operands as the kernel reads them: t[Q..MASK], to be released by the caller whatever comes back. */
static td_status prepare(const td_call *c, int first, td_tensor *mask, td_tensor *t[4], td_attention *g) {
  td_tensor *const *in = c->in + first;
  t[MASK] = NULL;
  bool ok = true;
  for (int i = 0; i < 3; i++) ok &= (t[i] = with_rows(in[i])) != NULL;
  if (mask) ok &= (t[MASK] = with_keys(mask, in[K]->shape[1])) != NULL;
  if (!ok) return td_last_status();
  *g = (td_attention){.batch = in[Q]->shape[0], .heads = in[Q]->shape[2], .l = in[Q]->shape[1], .s = in[K]->shape[1],
                      .d = in[Q]->shape[3], .e = in[V]->shape[3], .causal = c->a->i[0], .scale = scale_of(c->a, in[Q])};
  for (int i = 0; i < 3; i++) {
    g->q_stride[i] = t[Q]->stride[i];
    g->k_stride[i] = t[K]->stride[i];
    g->v_stride[i] = t[V]->stride[i];
    if (mask) g->mask_stride[i] = t[MASK]->shape[i] == 1 ? 0 : t[MASK]->stride[i];
  }
  return TD_OK;
}
static void release(td_tensor *t[4]) {
  for (int i = 0; i < 4; i++) td_tensor_release(t[i]);
}

static td_status attention_shape(td_call *c) {
  td_status s = check_operands(c, 0, c->nin == 4 ? c->in[MASK] : NULL);
  if (s) return s;
  const td_tensor *q = c->in[Q];
  td_meta_set(c, 0, q->dtype, 4, (const size_t[]){q->shape[0], q->shape[1], q->shape[2], c->in[V]->shape[3]});
  td_meta_set(c, 1, q->dtype, 4, (const size_t[]){q->shape[0], q->shape[2], q->shape[1], 2});
  return TD_OK;
}
static td_status attention_run(td_call *c) {
  td_tensor *t[4];
  td_attention g;
  td_status s = prepare(c, 0, c->nin == 4 ? c->in[MASK] : NULL, t, &g);
  if (!s)
    td_k(c->in[Q]->dtype)->attention(c->out[0]->data, c->out[1]->data, t[Q]->data, t[K]->data, t[V]->data,
                                     t[MASK] ? t[MASK]->data : NULL, &g);
  release(t);
  return s;
}

/* 0 where query i may see key j ≤ i, else -1e30: L×S. */
static td_tensor *causal_mask(const td_tensor *q, const td_tensor *k) {
  size_t n = q->shape[1], m = k->shape[1];
  td_tensor *mask = td_auto(td_tensor_new(q->dtype, 2, (const size_t[]){n, m}));
  for (size_t i = 0; i < n && mask; i++)
    for (size_t j = 0; j < m; j++) td_tensor_set(mask, i * m + j, j <= i ? 0 : -1e30);
  return mask;
}
static td_tensor *attention_twin(const td_rule *r, td_tensor *const *in) {
  td_tensor *q = td_transpose(in[Q], 1, 2), *k = td_transpose(in[K], 1, 2), *v = td_transpose(in[V], 1, 2);
  td_tensor *scores = td_matmul(td_mul(q, td_num(scale_of(r->a, r->in[Q]))), td_transpose(k, -1, -2));
  if (r->nin == 4) scores = td_add(scores, in[MASK]);
  if (r->a->i[0]) scores = td_add(scores, causal_mask(r->in[Q], r->in[K]));
  td_tensor *weights = td_do(&td_op_softmax, &(td_attrs){.i = {3}}, 1, scores);
  return td_transpose(td_matmul(weights, v), 1, 2);
}
static void attention_vjp(td_rule *r) {
  if (td_recording || (r->nin == 4 && r->need[MASK])) {  /* a mask's gradient is as large as the scores anyway */
    td_rule_by_twin(r, attention_twin);
    return;
  }
  td_tensor *d[TD_MAX_OUT], *in[7] = {td_cast(r->dout[0], r->in[Q]->dtype), r->in[Q], r->in[K], r->in[V], r->out[0],
                                      r->out[1], r->nin == 4 ? r->in[MASK] : NULL};
  td_do_all(&td_op_attention_grad, r->a, r->nin + 3, in, d);
  for (int i = 0; i < 3; i++) r->din[i] = d[0] ? d[i] : NULL;
}
const td_op td_op_attention = {
  .name = "attention", .signature = "q, k, v, mask?, causal:bool=false, scale:num=0", .nout = 2,
  .shape = attention_shape, .run = attention_run, .vjp = attention_vjp, .ints = 2,
  .keep = TD_KEEP_IN(Q) | TD_KEEP_IN(K) | TD_KEEP_IN(V) | TD_KEEP_IN(MASK) | TD_KEEP_OUT(0) | TD_KEEP_OUT(1),
  .doc = "softmax(q·kᵀ·scale + mask)·v for q B×L×H×D, k B×S×H×D, v B×S×H×E, without storing the scores; scale 0 is 1/√D, "
         "causal lets query i see keys 1..i; also the greatest score of each query and one over its sum of exponentials"};

/* ---- The gradient: dy, q, k, v, y, what the forward pass kept, mask? ---- */

static td_status attention_grad_shape(td_call *c) {
  td_status s = check_operands(c, 1, c->nin == 7 ? c->in[6] : NULL);
  if (s) return s;
  const td_tensor *q = c->in[1], *v = c->in[3];
  size_t y[4] = {q->shape[0], q->shape[1], q->shape[2], v->shape[3]};
  size_t kept[4] = {q->shape[0], q->shape[2], q->shape[1], 2};
  static const int like_y[] = {0, 4, 5};
  for (int i = 0; i < 3; i++) {
    const td_tensor *t = c->in[like_y[i]];
    const size_t *shape = i < 2 ? y : kept;
    bool same = t->ndim == 4 && t->dtype == q->dtype;
    for (int d = 0; d < 4 && same; d++) same = t->shape[d] == shape[d];
    if (!same)
      return td_fail(TD_ESHAPE, "attention_grad: operand %d is %s of shape (%s), expected %s of (%s)", like_y[i] + 1,
                     td_dtype_name(t->dtype), td_tensor_shape_string(t), td_dtype_name(q->dtype),
                     td_shape_string(4, shape));
  }
  for (int i = 0; i < 3; i++) td_meta_like(c, i, c->in[1 + i]);
  return TD_OK;
}
static td_status attention_grad_run(td_call *c) {
  td_tensor *t[4], *dy = td_tensor_contiguous(c->in[0]), *y = td_tensor_contiguous(c->in[4]);
  td_tensor *kept = td_tensor_contiguous(c->in[5]);
  td_attention g;
  td_status s = prepare(c, 1, c->nin == 7 ? c->in[6] : NULL, t, &g);
  if (!s && (!dy || !y || !kept)) s = td_last_status();
  if (!s)
    td_k(y->dtype)->attention_grad(c->out[0]->data, c->out[1]->data, c->out[2]->data, dy->data, t[Q]->data, t[K]->data,
                                   t[V]->data, y->data, kept->data, t[MASK] ? t[MASK]->data : NULL, &g);
  release(t);
  td_tensor_release(dy);
  td_tensor_release(y);
  td_tensor_release(kept);
  return s;
}
const td_op td_op_attention_grad = {
  .name = "attention_grad", .signature = "dy, q, k, v, y, kept, mask?, causal:bool=false, scale:num=0", .nout = 3,
  .shape = attention_grad_shape, .run = attention_grad_run,
  .doc = "attention's cotangents of q, k and v; y and kept are its results"};

const td_op *const td_ops_attention[] = {&td_op_attention, &td_op_attention_grad, NULL};
