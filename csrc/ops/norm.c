/* Normalisations as fused operations: one pass forward, one backward. Their second derivatives go through a twin
 * written in simpler operations.
 *
 * Each has a form with an activation and a sum behind it, which a program is given in place of a chain of three
 * operations: X_act(x, gamma?, beta?, add?) = act(X(x, gamma, beta)) + add. The number of operands says which there
 * are: 1 x; 2 x and add; 3 x, gamma, beta; 4 all. X_act_grad(dy, x, mean, rstd, gamma?, beta?) has 4 or 6 and computes
 * what went into the activation again from x and the statistics, so that these are all that a tape keeps; the gradient
 * of add is dy itself. */
#include <string.h>
#include "ops/ops.h"

/* ---- Attributes and operands ---- */

/* Attributes by operation. Groups: groups, rows, act, all i[]; channels: act. eps is f[0]. */
static bool has_groups(const td_op *op) {
  return op == &td_op_group_norm || op == &td_op_group_norm_grad || op == &td_op_group_norm_act ||
         op == &td_op_group_norm_act_grad;
}
static bool has_act(const td_op *op) {
  return op == &td_op_group_norm_act || op == &td_op_group_norm_act_grad || op == &td_op_channel_norm_act ||
         op == &td_op_channel_norm_act_grad;
}
static int64_t act_of(const td_op *op, const td_attrs *a) {
  return !has_act(op) ? TD_ACT_NONE : has_groups(op) ? a->i[2] : a->i[0];
}
static td_status check_act(const td_call *c) {
  int64_t act = act_of(c->op, c->a);
  if (act >= 0 && act < TD_ACT_COUNT) return TD_OK;
  return td_fail(TD_EARG, "%s: activation %lld, expected 0 none, 1 relu, 2 silu, 3 gelu, 4 tanh or 5 sigmoid",
                 c->op->name, (long long)act);
}

/* Does a forward call have gamma and beta (operands 1 and 2), and where is add (0: nowhere)? */
static bool has_affine(int nin) { return nin >= 3; }
static int add_place(const td_op *op, int nin) { return has_act(op) && nin % 2 == 0 ? nin - 1 : 0; }

/* n images of p positions; `rows` makes every position an image of its own (layer norm). */
static void group_sizes(const td_tensor *x, bool rows, size_t *n, size_t *p, size_t *ch) {
  *ch = x->shape[x->ndim - 1];
  size_t positions = *ch ? x->numel / *ch : 0;
  *n = rows ? positions : x->shape[0];
  *p = rows ? 1 : (*n ? positions / *n : 0);
}

/* gamma and beta of one dim of n elements; add like x. */
static td_status check_rest(const td_call *c, size_t n) {
  const td_tensor *x = c->in[0];
  int add = add_place(c->op, c->nin);
  if (!add && c->nin == 2) return td_fail(TD_EARG, "%s: gamma without beta", c->op->name);
  if (add && (c->in[add]->dtype != x->dtype || !td_tensor_same_shape(c->in[add], x)))
    return td_fail(TD_ESHAPE, "%s: add is %s of shape (%s), expected x's, %s of (%s)", c->op->name,
                   td_dtype_name(c->in[add]->dtype), td_tensor_shape_string(c->in[add]), td_dtype_name(x->dtype),
                   td_tensor_shape_string(x));
  for (int i = 1; i < 3 && has_affine(c->nin); i++) {
    const td_tensor *t = c->in[i];
    if (t->ndim != 1 || t->numel != n || t->dtype != x->dtype)
      return td_fail(TD_ESHAPE, "%s: %s is %s of shape (%s), expected %zu of %s", c->op->name,
                     i == 1 ? "gamma" : "beta", td_dtype_name(t->dtype), td_tensor_shape_string(t), n,
                     td_dtype_name(x->dtype));
  }
  return check_act(c);
}

/* Contiguous references to all operands; false when one could not be made. NULL for those that are missing. */
enum { MOST = 6 };
static bool contiguous_operands(const td_call *c, td_tensor *t[MOST]) {
  bool ok = true;
  for (int i = 0; i < MOST; i++) t[i] = NULL;
  for (int i = 0; i < c->nin; i++) ok &= (t[i] = td_tensor_contiguous(c->in[i])) != NULL;
  return ok;
}
static void release_operands(td_tensor *t[MOST]) {
  for (int i = 0; i < MOST; i++) td_tensor_release(t[i]);
}
static void *data_of(const td_tensor *t) { return t ? t->data : NULL; }

/* ---- Twins ---- */

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
static td_tensor *activated(int64_t act, td_tensor *x) {
  switch (act) {
    case TD_ACT_RELU: return td_relu(x);
    case TD_ACT_SILU: return td_silu(x);
    case TD_ACT_GELU: return td_gelu(x);
    case TD_ACT_TANH: return td_tanh(x);
    case TD_ACT_SIGMOID: return td_sigmoid(x);
    default: return x;
  }
}
/* What follows the normalised x, add left out. */
static td_tensor *finished(const td_rule *r, td_tensor *x, td_tensor *const *in) {
  return activated(act_of(r->op, r->a), has_affine(r->nin) ? td_add(td_mul(x, in[1]), in[2]) : x);
}
static td_tensor *group_norm_twin(const td_rule *r, td_tensor *const *in) {
  const td_tensor *x = r->in[0];
  size_t n, p, ch, groups = (size_t)r->a->i[0];
  group_sizes(x, r->a->i[1], &n, &p, &ch);
  td_tensor *split = td_reshape(in[0], 4, (const size_t[]){n, p, groups, ch / groups});
  return finished(r, td_reshape_like(normalised(split, 1u << 1 | 1u << 3, r->a->f[0]), x), in);
}
static td_tensor *channel_norm_twin(const td_rule *r, td_tensor *const *in) {
  unsigned all_but_last = (1u << (r->in[0]->ndim - 1)) - 1;
  return finished(r, normalised(in[0], all_but_last, r->a->f[0]), in);
}

/* The gradient by the fused operation, or when it is recorded by the twin. The tape has not kept add, the last operand,
 * whose gradient is dy. */
static void norm_vjp(td_rule *r, const td_op *grad, td_twin twin) {
  td_rule q = *r;
  if (add_place(r->op, r->nin)) r->din[--q.nin] = r->dout[0];
  if (td_recording) {
    td_rule_by_twin(&q, twin);
    return;
  }
  td_tensor *d[TD_MAX_OUT], *in[MOST] = {td_cast(r->dout[0], r->in[0]->dtype), r->in[0], r->out[1], r->out[2]};
  int nin = 4;
  if (q.nin == 3) in[nin++] = r->in[1];
  if (q.nin == 3 && has_act(grad)) in[nin++] = r->in[2];
  td_do_all(grad, r->a, nin, in, d);
  for (int i = 0; i < q.nin; i++) r->din[i] = d[0] ? d[i] : NULL;
}

/* ---- group_norm: x is N×…×C; also layer norm over the last dim, with one group and N·… rows ---- */

static td_status group_norm_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  td_status s = td_want_real(c, 0);
  if (s) return s;
  bool rows = c->a->i[1];
  if (x->ndim < (rows ? 1 : 2))
    return td_fail(TD_ESHAPE, "%s: x has shape (%s), expected N×…×C", c->op->name, td_tensor_shape_string(x));
  size_t ch = x->shape[x->ndim - 1], n, p;
  int64_t groups = c->a->i[0];
  if (groups < 1 || ch % (size_t)groups)
    return td_fail(TD_EARG, "%s: %lld groups do not divide %zu channels", c->op->name, (long long)groups, ch);
  group_sizes(x, rows, &n, &p, &ch);
  td_meta_like(c, 0, x);
  td_meta_set(c, 1, x->dtype, 2, (const size_t[]){n, (size_t)groups});
  td_meta_set(c, 2, x->dtype, 2, (const size_t[]){n, (size_t)groups});
  return check_rest(c, ch);
}
static td_status group_norm_run(td_call *c) {
  td_tensor *t[MOST], *x = c->in[0];
  td_status s = contiguous_operands(c, t) ? TD_OK : td_last_status();
  if (!s && x->numel) {
    bool affine = has_affine(c->nin);
    int add = add_place(c->op, c->nin);
    size_t n, p, ch;
    group_sizes(x, c->a->i[1], &n, &p, &ch);
    td_k(x->dtype)->group_norm(c->out[0]->data, c->out[1]->data, c->out[2]->data, t[0]->data,
                               data_of(affine ? t[1] : NULL), data_of(affine ? t[2] : NULL),
                               data_of(add ? t[add] : NULL), n, p, ch, (size_t)c->a->i[0], c->a->f[0],
                               (td_act)act_of(c->op, c->a));
  }
  release_operands(t);
  return s;
}
static void group_norm_vjp(td_rule *r) {
  norm_vjp(r, has_act(r->op) ? &td_op_group_norm_act_grad : &td_op_group_norm_grad, group_norm_twin);
}
const td_op td_op_group_norm = {
  .name = "group_norm", .signature = "x, gamma?, beta?, groups:int, rows:bool=false, eps:num=1e-5", .nout = 3,
  .shape = group_norm_shape, .run = group_norm_run, .vjp = group_norm_vjp, .light = true, .ints = 6,
  .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1) | TD_KEEP_IN(2) | TD_KEEP_OUT(1) | TD_KEEP_OUT(2),
  .doc = "N×…×C normalised over each sample's groups of channels; rows: every position is a sample (layer norm)"};
const td_op td_op_group_norm_act = {
  .name = "group_norm_act", .nout = 3,
  .signature = "x, gamma?, beta?, add?, groups:int, rows:bool=false, activation:int=0, eps:num=1e-5",
  .shape = group_norm_shape, .run = group_norm_run, .vjp = group_norm_vjp, .light = true, .ints = 6,
  .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1) | TD_KEEP_IN(2) | TD_KEEP_OUT(1) | TD_KEEP_OUT(2),
  .doc = "activation(group_norm(x, gamma, beta)) + add in one pass, where activation is 0 none, 1 relu, 2 silu, 3 gelu, 4 tanh or "
         "5 sigmoid; two tensors are x and add"};

/* ---- Both gradients ---- */

static td_status norm_grad_shape(td_call *c) {
  const td_tensor *dy = c->in[0], *x = c->in[1];
  td_status s = td_want_real(c, 1);
  if (s) return s;
  bool groups = has_groups(c->op), rows = groups && c->a->i[1];
  if (x->ndim < (rows ? 1 : 2) || !td_tensor_same_shape(dy, x))
    return td_fail(TD_ESHAPE, "%s: dy and x have shapes (%s) and (%s), expected N×…×C twice", c->op->name,
                   td_tensor_shape_string(dy), td_tensor_shape_string(x));
  if (has_act(c->op) && c->nin == 5) return td_fail(TD_EARG, "%s: gamma without beta", c->op->name);
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
  return check_act(c);
}
static void norm_grad_call(const td_call *c, td_tensor *const t[MOST]) {
  void *dx = c->out[0]->data, *dgamma = c->out[1]->data, *dbeta = c->out[2]->data;
  const void *dy = t[0]->data, *x = t[1]->data, *mean = t[2]->data, *rstd = t[3]->data;
  const void *gamma = data_of(t[4]), *beta = data_of(t[5]);
  const td_kernels *k = td_k(t[1]->dtype);
  td_act act = (td_act)act_of(c->op, c->a);
  size_t n, p, ch;
  if (has_groups(c->op)) {
    group_sizes(t[1], c->a->i[1], &n, &p, &ch);
    k->group_norm_grad(dx, dgamma, dbeta, dy, x, mean, rstd, gamma, beta, n, p, ch, (size_t)c->a->i[0], act);
  } else {
    ch = t[1]->shape[t[1]->ndim - 1];
    k->channel_norm_grad(dx, dgamma, dbeta, dy, x, mean, rstd, gamma, beta, t[1]->numel / ch, ch, act);
  }
}
static td_status norm_grad_run(td_call *c) {
  td_tensor *t[MOST];
  td_status s = contiguous_operands(c, t) ? TD_OK : td_last_status();
  if (!s && t[1]->numel) {
    norm_grad_call(c, t);
  } else if (!s) {
    for (int i = 1; i < 3; i++) memset(c->out[i]->data, 0, c->out[i]->numel * td_dtype_size(c->out[i]->dtype));
  }
  release_operands(t);
  return s;
}
const td_op td_op_group_norm_grad = {
  .name = "group_norm_grad", .signature = "dy, x, mean, rstd, gamma?, groups:int, rows:bool=false, eps:num=1e-5",
  .nout = 3, .shape = norm_grad_shape, .run = norm_grad_run, .doc = "group_norm's three cotangents in one pass"};
const td_op td_op_group_norm_act_grad = {
  .name = "group_norm_act_grad", .nout = 3,
  .signature = "dy, x, mean, rstd, gamma?, beta?, groups:int, rows:bool=false, activation:int=0, eps:num=1e-5",
  .shape = norm_grad_shape, .run = norm_grad_run,
  .doc = "group_norm_act's cotangents of x, gamma and beta in one pass; that of add is dy"};

/* ---- channel_norm: statistics of each channel over all other dims (batch norm while training) ---- */

static td_status channel_norm_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  td_status s = td_want_real(c, 0);
  if (s) return s;
  if (x->ndim < 2 || x->numel == 0)
    return td_fail(TD_ESHAPE, "%s: x has shape (%s), expected N×…×C, not empty", c->op->name,
                   td_tensor_shape_string(x));
  size_t ch = x->shape[x->ndim - 1];
  td_meta_like(c, 0, x);
  for (int i = 1; i < 4; i++) td_meta_set(c, i, x->dtype, 1, &ch);
  return check_rest(c, ch);
}
static td_status channel_norm_run(td_call *c) {
  td_tensor *t[MOST];
  td_status s = contiguous_operands(c, t) ? TD_OK : td_last_status();
  if (!s) {
    bool affine = has_affine(c->nin);
    int add = add_place(c->op, c->nin);
    size_t ch = t[0]->shape[t[0]->ndim - 1];
    td_k(t[0]->dtype)->channel_norm(c->out[0]->data, c->out[1]->data, c->out[2]->data, c->out[3]->data, t[0]->data,
                                    data_of(affine ? t[1] : NULL), data_of(affine ? t[2] : NULL),
                                    data_of(add ? t[add] : NULL), t[0]->numel / ch, ch, c->a->f[0],
                                    (td_act)act_of(c->op, c->a));
  }
  release_operands(t);
  return s;
}
static void channel_norm_vjp(td_rule *r) {
  norm_vjp(r, has_act(r->op) ? &td_op_channel_norm_act_grad : &td_op_channel_norm_grad, channel_norm_twin);
}
const td_op td_op_channel_norm = {
  .name = "channel_norm", .signature = "x, gamma?, beta?, eps:num=1e-5", .nout = 4, .shape = channel_norm_shape,
  .run = channel_norm_run, .vjp = channel_norm_vjp, .light = true, .ints = 14,
  .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1) | TD_KEEP_IN(2) | TD_KEEP_OUT(1) | TD_KEEP_OUT(2),
  .doc = "…×C normalised over all dims but the last; also mean, 1/√(var + eps) and biased variance of each channel"};
const td_op td_op_channel_norm_act = {
  .name = "channel_norm_act", .signature = "x, gamma?, beta?, add?, activation:int=0, eps:num=1e-5", .nout = 4,
  .shape = channel_norm_shape, .run = channel_norm_run, .vjp = channel_norm_vjp, .light = true, .ints = 14,
  .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1) | TD_KEEP_IN(2) | TD_KEEP_OUT(1) | TD_KEEP_OUT(2),
  .doc = "activation(channel_norm(x, gamma, beta)) + add in one pass; activation and the operands as in group_norm_act"};
const td_op td_op_channel_norm_grad = {
  .name = "channel_norm_grad", .signature = "dy, x, mean, rstd, gamma?, eps:num=1e-5", .nout = 3,
  .shape = norm_grad_shape, .run = norm_grad_run, .doc = "channel_norm's three cotangents in one pass"};
const td_op td_op_channel_norm_act_grad = {
  .name = "channel_norm_act_grad", .signature = "dy, x, mean, rstd, gamma?, beta?, activation:int=0, eps:num=1e-5",
  .nout = 3, .shape = norm_grad_shape, .run = norm_grad_run,
  .doc = "channel_norm_act's cotangents of x, gamma and beta in one pass; that of add is dy"};

const td_op *const td_ops_norm[] = {
  &td_op_group_norm, &td_op_group_norm_grad, &td_op_group_norm_act, &td_op_group_norm_act_grad,
  &td_op_channel_norm, &td_op_channel_norm_grad, &td_op_channel_norm_act, &td_op_channel_norm_act_grad, NULL,
};
