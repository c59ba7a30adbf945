/* Normalisations as fused operations: one pass forward, one backward. Their second derivatives go through a twin
 * written in simpler operations. */
#include <string.h>
#include "ops/ops.h"

/* gamma and beta: both or none, of one dim of n elements. */
static td_status check_affine(const td_call *c, size_t n) {
  if (c->nin == 2) return td_fail(TD_EARG, "%s: gamma without beta", c->op->name);
  for (int i = 1; i < c->nin; i++) {
    const td_tensor *t = c->in[i];
    if (t->ndim != 1 || t->numel != n || t->dtype != c->in[0]->dtype)
      return td_fail(TD_ESHAPE, "%s: %s is %s of shape (%s), expected %zu of %s", c->op->name,
                     i == 1 ? "gamma" : "beta", td_dtype_name(t->dtype), td_tensor_shape_string(t), n,
                     td_dtype_name(c->in[0]->dtype));
  }
  return TD_OK;
}

/* (x − mean)·rstd·gamma + beta with mean and variance over the dims of mask */
static td_tensor *normalised(td_tensor *x, unsigned mask, double eps) {
  if (!x) return NULL;
  double count = 1;
  for (int i = 0; i < x->ndim; i++)
    if (mask >> i & 1) count *= (double)x->shape[i];
  td_tensor *centred = td_sub(x, td_mul(td_sum(x, mask, true), td_num(1 / count)));
  td_tensor *var = td_mul(td_sum(td_square(centred), mask, true), td_num(1 / count));
  return td_mul(centred, td_rsqrt(td_add(var, td_num(eps))));
}
static td_tensor *affine(td_tensor *x, int nin, td_tensor *const *in) {
  return nin == 3 ? td_add(td_mul(x, in[1]), in[2]) : x;
}

/* ---- group_norm: x is N×…×C; also layer norm over the last dim, with one group and N·… rows ---- */

/* n images of p positions; `rows` makes every position an image of its own (layer norm). */
static void group_sizes(const td_tensor *x, bool rows, size_t *n, size_t *p, size_t *ch) {
  *ch = x->shape[x->ndim - 1];
  size_t positions = *ch ? x->numel / *ch : 0;
  *n = rows ? positions : x->shape[0];
  *p = rows ? 1 : (*n ? positions / *n : 0);
}

static td_status group_norm_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  td_status s = td_want_real(c, 0);
  if (s) return s;
  bool rows = c->a->i[1];
  if (x->ndim < (rows ? 1 : 2))
    return td_fail(TD_ESHAPE, "group_norm: x has shape (%s), expected N×…×C", td_tensor_shape_string(x));
  size_t ch = x->shape[x->ndim - 1], n, p;
  int64_t groups = c->a->i[0];
  if (groups < 1 || ch % (size_t)groups)
    return td_fail(TD_EARG, "group_norm: %lld groups do not divide %zu channels", (long long)groups, ch);
  group_sizes(x, rows, &n, &p, &ch);
  td_meta_like(c, 0, x);
  td_meta_set(c, 1, x->dtype, 2, (const size_t[]){n, (size_t)groups});
  td_meta_set(c, 2, x->dtype, 2, (const size_t[]){n, (size_t)groups});
  return check_affine(c, ch);
}
static td_status group_norm_run(td_call *c) {
  td_tensor *x = td_tensor_contiguous(c->in[0]);
  if (!x) return td_last_status();
  size_t n, p, ch;
  group_sizes(x, c->a->i[1], &n, &p, &ch);
  td_tensor *gamma = c->nin == 3 ? td_tensor_contiguous(c->in[1]) : NULL;
  td_tensor *beta = c->nin == 3 ? td_tensor_contiguous(c->in[2]) : NULL;
  if (x->numel)
    td_k(x->dtype)->group_norm(c->out[0]->data, c->out[1]->data, c->out[2]->data, x->data, gamma ? gamma->data : NULL,
                               beta ? beta->data : NULL, n, p, ch, (size_t)c->a->i[0], c->a->f[0]);
  td_tensor_release(gamma);
  td_tensor_release(beta);
  td_tensor_release(x);
  return TD_OK;
}
static td_tensor *group_norm_twin(const td_rule *r, td_tensor *const *in) {
  const td_tensor *x = r->in[0];
  size_t n, p, ch, groups = (size_t)r->a->i[0];
  group_sizes(x, r->a->i[1], &n, &p, &ch);
  td_tensor *split = td_reshape(in[0], 4, (const size_t[]){n, p, groups, ch / groups});
  td_tensor *y = td_reshape_like(normalised(split, 1u << 1 | 1u << 3, r->a->f[0]), x);
  return affine(y, r->nin, in);
}
static void norm_grads(td_rule *r, const td_op *op) {
  td_tensor *in[5] = {td_cast(r->dout[0], r->in[0]->dtype), r->in[0], r->out[1], r->out[2], NULL}, *d[TD_MAX_OUT];
  if (r->nin == 3) in[4] = r->in[1];
  td_do_all(op, r->a, r->nin == 3 ? 5 : 4, in, d);
  for (int i = 0; i < r->nin; i++) r->din[i] = d[0] ? d[i] : NULL;
}
static void group_norm_vjp(td_rule *r) {
  if (td_recording) td_rule_by_twin(r, group_norm_twin);
  else norm_grads(r, &td_op_group_norm_grad);
}
const td_op td_op_group_norm = {
  .name = "group_norm", .signature = "x, gamma?, beta?, groups:int, rows:bool=false, eps:num=1e-5", .nout = 3,
  .shape = group_norm_shape, .run = group_norm_run, .vjp = group_norm_vjp, .ints = 6,
  .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1) | TD_KEEP_IN(2) | TD_KEEP_OUT(1) | TD_KEEP_OUT(2),
  .doc = "N×…×C normalised over each sample's groups of channels; rows: every position is a sample (layer norm)"};

static td_status norm_grad_shape(td_call *c) {
  const td_tensor *dy = c->in[0], *x = c->in[1];
  td_status s = td_want_real(c, 1);
  if (s) return s;
  bool groups = c->op == &td_op_group_norm_grad, rows = groups && c->a->i[1];
  if (x->ndim < (rows ? 1 : 2) || !td_tensor_same_shape(dy, x))
    return td_fail(TD_ESHAPE, "%s: dy and x have shapes (%s) and (%s), expected N×…×C twice", c->op->name,
                   td_tensor_shape_string(dy), td_tensor_shape_string(x));
  size_t ch = x->shape[x->ndim - 1], n = 1, p;
  if (groups) {
    if (c->a->i[0] < 1 || ch % (size_t)c->a->i[0])
      return td_fail(TD_EARG, "%s: %lld groups do not divide %zu channels", c->op->name, (long long)c->a->i[0], ch);
    group_sizes(x, rows, &n, &p, &ch);
  }
  size_t statistics = groups ? n * (size_t)c->a->i[0] : ch;
  for (int i = 0; i < c->nin; i++) {
    const td_tensor *t = c->in[i];
    size_t expected = i < 2 ? x->numel : i < 4 ? statistics : ch;
    if (t->numel != expected || t->dtype != x->dtype)
      return td_fail(TD_ESHAPE, "%s: operand %d is %s of shape (%s), expected %zu elements of %s", c->op->name, i + 1,
                     td_dtype_name(t->dtype), td_tensor_shape_string(t), expected, td_dtype_name(x->dtype));
  }
  td_meta_like(c, 0, x);
  td_meta_set(c, 1, x->dtype, 1, &ch);
  td_meta_set(c, 2, x->dtype, 1, &ch);
  return TD_OK;
}
/* Contiguous operands dy, x, mean, rstd, gamma?; false when one could not be made. */
static bool norm_operands(const td_call *c, td_tensor *t[5]) {
  bool ok = true;
  t[4] = NULL;
  for (int i = 0; i < c->nin; i++) ok &= (t[i] = td_tensor_contiguous(c->in[i])) != NULL;
  return ok;
}
static td_status norm_grad_run(td_call *c) {
  td_tensor *t[5];
  td_status s = norm_operands(c, t) ? TD_OK : td_last_status();
  void *dx = c->out[0]->data, *dgamma = c->out[1]->data, *dbeta = c->out[2]->data;
  size_t n, p, ch;
  if (!s && t[1]->numel) {
    const void *gamma = t[4] ? t[4]->data : NULL;
    const td_kernels *k = td_k(t[1]->dtype);
    if (c->op == &td_op_group_norm_grad) {
      group_sizes(t[1], c->a->i[1], &n, &p, &ch);
      k->group_norm_grad(dx, dgamma, dbeta, t[0]->data, t[1]->data, t[2]->data, t[3]->data, gamma, n, p, ch,
                         (size_t)c->a->i[0]);
    } else {
      ch = t[1]->shape[t[1]->ndim - 1];
      k->channel_norm_grad(dx, dgamma, dbeta, t[0]->data, t[1]->data, t[2]->data, t[3]->data, gamma,
                           t[1]->numel / ch, ch);
    }
  } else if (!s) {
    memset(dgamma, 0, c->out[1]->numel * td_dtype_size(c->out[1]->dtype));
    memset(dbeta, 0, c->out[2]->numel * td_dtype_size(c->out[2]->dtype));
  }
  for (int i = 0; i < c->nin; i++) td_tensor_release(t[i]);
  return s;
}
const td_op td_op_group_norm_grad = {
  .name = "group_norm_grad", .signature = "dy, x, mean, rstd, gamma?, groups:int, rows:bool=false, eps:num=1e-5",
  .nout = 3, .shape = norm_grad_shape, .run = norm_grad_run, .doc = "group_norm's three cotangents in one pass"};

/* ---- channel_norm: statistics of each channel over all other dims (batch norm while training) ---- */

static td_status channel_norm_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  td_status s = td_want_real(c, 0);
  if (s) return s;
  if (x->ndim < 2 || x->numel == 0)
    return td_fail(TD_ESHAPE, "channel_norm: x has shape (%s), expected N×…×C, not empty", td_tensor_shape_string(x));
  size_t ch = x->shape[x->ndim - 1];
  td_meta_like(c, 0, x);
  for (int i = 1; i < 4; i++) td_meta_set(c, i, x->dtype, 1, &ch);
  return check_affine(c, ch);
}
static td_status channel_norm_run(td_call *c) {
  td_tensor *t[3] = {NULL, NULL, NULL};
  td_status s = TD_OK;
  for (int i = 0; i < c->nin; i++)
    if (!(t[i] = td_tensor_contiguous(c->in[i]))) s = td_last_status();
  if (!s) {
    size_t ch = t[0]->shape[t[0]->ndim - 1];
    td_k(t[0]->dtype)->channel_norm(c->out[0]->data, c->out[1]->data, c->out[2]->data, c->out[3]->data, t[0]->data,
                                    t[1] ? t[1]->data : NULL, t[2] ? t[2]->data : NULL, t[0]->numel / ch, ch,
                                    c->a->f[0]);
  }
  for (int i = 0; i < c->nin; i++) td_tensor_release(t[i]);
  return s;
}
static td_tensor *channel_norm_twin(const td_rule *r, td_tensor *const *in) {
  unsigned all_but_last = (1u << (r->in[0]->ndim - 1)) - 1;
  return affine(normalised(in[0], all_but_last, r->a->f[0]), r->nin, in);
}
static void channel_norm_vjp(td_rule *r) {
  if (td_recording) td_rule_by_twin(r, channel_norm_twin);
  else norm_grads(r, &td_op_channel_norm_grad);
}
const td_op td_op_channel_norm = {
  .name = "channel_norm", .signature = "x, gamma?, beta?, eps:num=1e-5", .nout = 4, .shape = channel_norm_shape,
  .run = channel_norm_run, .vjp = channel_norm_vjp, .ints = 14,
  .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1) | TD_KEEP_IN(2) | TD_KEEP_OUT(1) | TD_KEEP_OUT(2),
  .doc = "…×C normalised over all dims but the last; also mean, 1/√(var + eps) and biased variance of each channel"};
const td_op td_op_channel_norm_grad = {
  .name = "channel_norm_grad", .signature = "dy, x, mean, rstd, gamma?, eps:num=1e-5", .nout = 3,
  .shape = norm_grad_shape, .run = norm_grad_run, .doc = "channel_norm's three cotangents in one pass"};

const td_op *const td_ops_norm[] = {
  &td_op_group_norm, &td_op_group_norm_grad, &td_op_channel_norm, &td_op_channel_norm_grad, NULL,
};
