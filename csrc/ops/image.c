/* Convolution, pooling and upsampling of images N×H×W×C. Convolution is three operations closed under
 * differentiation; pooling and upsampling are linear maps, each paired with its transpose. */
#include <string.h>
#include "ops/ops.h"

/* Attribute slots shared by this file. Convolution: stride, padding, dilation (pairs), groups, then for the input's
 * gradient its height and width. Windows: kernel, stride, padding (pairs), then height and width. */
enum { STRIDE, PAD = 2, DILATION = 4, GROUPS = 6, HEIGHT = 7, WIDTH = 8 };

enum { MOST = 1 << 24 };  /* of pixels in a row, so that no product of sizes overflows */

static td_status want_images(const td_call *c, int i) {
  td_status s = td_want_real(c, i);
  if (s) return s;
  if (c->in[i]->ndim != 4)
    return td_fail(TD_ESHAPE, "%s: operand %d has shape (%s), expected N×H×W×C", c->op->name, i + 1,
                   td_tensor_shape_string(c->in[i]));
  if (c->in[i]->dtype != c->in[0]->dtype)
    return td_fail(TD_EDTYPE, "%s: operand %d is %s, operand 1 %s", c->op->name, i + 1,
                   td_dtype_name(c->in[i]->dtype), td_dtype_name(c->in[0]->dtype));
  return TD_OK;
}

/* Stride, padding, dilation and groups into g, checked. */
static td_status conv_options(const td_call *c, td_conv *g) {
  const int64_t *i = c->a->i;
  for (int k = 0; k < 2; k++) {
    if (i[STRIDE + k] < 1 || i[PAD + k] < 0 || i[DILATION + k] < 1 || i[GROUPS] < 1 || i[STRIDE + k] > MOST ||
        i[PAD + k] > MOST || i[DILATION + k] > MOST || i[GROUPS] > MOST)
      return td_fail(TD_EARG,
                     "%s: stride %lld, padding %lld, dilation %lld, groups %lld: expected at least 1, 0, 1, 1, "
                     "and less than 2^24",
                     c->op->name, (long long)i[STRIDE + k], (long long)i[PAD + k], (long long)i[DILATION + k],
                     (long long)i[GROUPS]);
    g->stride[k] = (size_t)i[STRIDE + k];
    g->pad[k] = (size_t)i[PAD + k];
    g->dilation[k] = (size_t)i[DILATION + k];
  }
  g->groups = (size_t)i[GROUPS];
  return TD_OK;
}

/* Sizes of the result of a window of k elements, dilated by d; a failure names the operation. */
static td_status window_count(const td_call *c, size_t size, size_t k, size_t stride, size_t pad, size_t d,
                              size_t *out) {
  size_t span = d * (k - 1) + 1;
  if (k == 0 || size + 2 * pad < span)
    return td_fail(TD_ESHAPE, "%s: a window of %zu does not fit into %zu + 2·%zu", c->op->name, span, size, pad);
  *out = (size + 2 * pad - span) / stride + 1;
  return TD_OK;
}

/* The geometry from an input shape and a weight shape kh×kw×c/groups×o. */
static td_status conv_geometry(const td_call *c, const size_t *x, const size_t *w, td_conv *g) {
  td_status s = conv_options(c, g);
  if (s) return s;
  g->n = x[0], g->h = x[1], g->w = x[2], g->c = x[3];
  g->kh = w[0], g->kw = w[1], g->o = w[3];
  if (g->c % g->groups || g->o % g->groups || w[2] != g->c / g->groups)
    return td_fail(TD_ESHAPE, "%s: weight (%s) does not fit %zu channels in %zu group%s, expected kh×kw×%zu×o",
                   c->op->name, td_shape_string(4, w), g->c, g->groups, g->groups == 1 ? "" : "s", g->c / g->groups);
  s = window_count(c, g->h, g->kh, g->stride[0], g->pad[0], g->dilation[0], &g->oh);
  return s ? s : window_count(c, g->w, g->kw, g->stride[1], g->pad[1], g->dilation[1], &g->ow);
}

/* Contiguous operands, released together. */
static td_status contiguous_all(const td_call *c, td_tensor **t) {
  for (int i = 0; i < c->nin; i++) {
    t[i] = td_tensor_contiguous(c->in[i]);
    if (t[i]) continue;
    while (i-- > 0) td_tensor_release(t[i]);
    return td_last_status();
  }
  return TD_OK;
}
static void release_all(const td_call *c, td_tensor **t) {
  for (int i = 0; i < c->nin; i++) td_tensor_release(t[i]);
}

/* Where forms of t's values may be kept, in *f; NULL: nowhere. */
static const td_forms *forms_of(const td_tensor *t, td_forms *f) {
  td_storage *s = t->storage->is_lent ? t->storage->owner : t->storage;
  if (!s) return NULL;
  *f = (td_forms){&s->forms, s->version};
  return f;
}

/* Sizes of images given as attributes. */
static td_status want_sizes(const td_call *c, int slot) {
  for (int i = slot; i < slot + 2; i++)
    if (c->a->i[i] < 0 || c->a->i[i] > MOST)
      return td_fail(TD_EARG, "%s: a size is %lld, expected 0 to %d", c->op->name, (long long)c->a->i[i], MOST);
  return TD_OK;
}

#define CONV_OPTIONS "stride:pair=1, padding:pair=0, dilation:pair=1, groups:int=1"

static td_status conv2d_shape(td_call *c) {
  td_conv g;
  td_status s = want_images(c, 0);
  if (!s) s = want_images(c, 1);
  if (!s) s = conv_geometry(c, c->in[0]->shape, c->in[1]->shape, &g);
  if (!s && c->nin == 3 && (c->in[2]->ndim != 1 || c->in[2]->numel != g.o || c->in[2]->dtype != c->in[0]->dtype))
    s = td_fail(TD_ESHAPE, "conv2d: bias is %s of shape (%s), expected %zu of %s", td_dtype_name(c->in[2]->dtype),
                td_tensor_shape_string(c->in[2]), g.o, td_dtype_name(c->in[0]->dtype));
  if (!s) td_meta_set(c, 0, c->in[0]->dtype, 4, (const size_t[]){g.n, g.oh, g.ow, g.o});
  return s;
}
static td_status conv2d_run(td_call *c) {
  td_conv g;
  td_forms f;
  td_tensor *t[3];
  td_status s = contiguous_all(c, t);
  if (s) return s;
  conv_geometry(c, t[0]->shape, t[1]->shape, &g);
  td_epilogue e = {.bias = c->nin == 3 ? t[2]->data : NULL};
  if (c->out[0]->numel) td_k(t[0]->dtype)->conv2d(c->out[0]->data, t[0]->data, t[1]->data, &e, &g, forms_of(t[1], &f));
  release_all(c, t);
  return TD_OK;
}
/* The three rules of convolution: y = x*w is bilinear, so each derivative is one of the other two. */
static td_tensor *input_grad(const td_attrs *a, td_tensor *dy, td_tensor *w, const td_tensor *x) {
  td_attrs b = *a;
  b.i[HEIGHT] = (int64_t)x->shape[1];
  b.i[WIDTH] = (int64_t)x->shape[2];
  return td_do(&td_op_conv2d_input_grad, &b, 2, dy, w);
}
static td_tensor *weight_grad(const td_attrs *a, td_tensor *x, td_tensor *dy, const td_tensor *w) {
  td_attrs b = *a;
  b.i[HEIGHT] = (int64_t)w->shape[0];
  b.i[WIDTH] = (int64_t)w->shape[1];
  return td_do(&td_op_conv2d_weight_grad, &b, 2, x, dy);
}
static void conv2d_vjp(td_rule *r) {
  td_tensor *x = r->in[0], *w = r->in[1], *dy = r->dout[0];
  if (r->need[0]) r->din[0] = input_grad(r->a, dy, w, x);
  if (r->need[1]) r->din[1] = weight_grad(r->a, x, dy, w);
  if (r->nin == 3 && r->need[2]) r->din[2] = td_sum(dy, 7, false);
}
const td_op td_op_conv2d = {.name = "conv2d", .signature = "x, w, bias?, " CONV_OPTIONS, .shape = conv2d_shape,
                            .run = conv2d_run, .vjp = conv2d_vjp, .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1),
                            .doc = "convolution (cross-correlation) of N×H×W×C images with weights kh×kw×(C/groups)×O"};

static td_status conv2d_input_grad_shape(td_call *c) {
  td_conv g;
  td_status s = want_images(c, 0);
  if (!s) s = want_images(c, 1);
  if (!s) s = want_sizes(c, HEIGHT);
  if (s) return s;
  const size_t *dy = c->in[0]->shape, *w = c->in[1]->shape;
  size_t x[4] = {dy[0], (size_t)c->a->i[HEIGHT], (size_t)c->a->i[WIDTH], w[2] * (size_t)c->a->i[GROUPS]};
  s = conv_geometry(c, x, w, &g);
  if (!s && (g.oh != dy[1] || g.ow != dy[2] || g.o != dy[3]))
    s = td_fail(TD_ESHAPE, "conv2d_input_grad: dy has shape (%s), expected (%s)", td_shape_string(4, dy),
                td_shape_string(4, (const size_t[]){g.n, g.oh, g.ow, g.o}));
  if (!s) td_meta_set(c, 0, c->in[0]->dtype, 4, x);
  return s;
}
static td_status conv2d_input_grad_run(td_call *c) {
  td_conv g;
  td_forms f;
  td_tensor *t[2];
  td_status s = contiguous_all(c, t);
  if (s) return s;
  conv_geometry(c, c->out[0]->shape, t[1]->shape, &g);
  if (c->out[0]->numel)
    td_k(t[0]->dtype)->conv2d_input_grad(c->out[0]->data, t[0]->data, t[1]->data, &g, forms_of(t[1], &f));
  release_all(c, t);
  return TD_OK;
}
static void conv2d_input_grad_vjp(td_rule *r) {
  td_tensor *ddx = r->dout[0];
  td_attrs a = *r->a;
  if (r->need[0]) r->din[0] = td_do(&td_op_conv2d, &a, 2, ddx, r->in[1]);
  if (r->need[1]) r->din[1] = weight_grad(&a, ddx, r->in[0], r->in[1]);
}
const td_op td_op_conv2d_input_grad = {
  .name = "conv2d_input_grad", .signature = "dy, w, " CONV_OPTIONS ", height:int, width:int",
  .shape = conv2d_input_grad_shape, .run = conv2d_input_grad_run, .vjp = conv2d_input_grad_vjp,
  .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1),
  .doc = "transpose of conv2d in its images: what a transposed convolution computes"};

static td_status conv2d_weight_grad_shape(td_call *c) {
  td_conv g;
  td_status s = want_images(c, 0);
  if (!s) s = want_images(c, 1);
  if (!s) s = want_sizes(c, HEIGHT);
  if (s) return s;
  const size_t *x = c->in[0]->shape, *dy = c->in[1]->shape;
  size_t groups = c->a->i[GROUPS] > 0 ? (size_t)c->a->i[GROUPS] : 1;
  size_t w[4] = {(size_t)c->a->i[HEIGHT], (size_t)c->a->i[WIDTH], x[3] / groups, dy[3]};
  s = conv_geometry(c, x, w, &g);
  if (!s && (g.n != dy[0] || g.oh != dy[1] || g.ow != dy[2]))
    s = td_fail(TD_ESHAPE, "conv2d_weight_grad: dy has shape (%s), expected (%s)", td_shape_string(4, dy),
                td_shape_string(4, (const size_t[]){g.n, g.oh, g.ow, g.o}));
  if (!s) td_meta_set(c, 0, c->in[0]->dtype, 4, w);
  return s;
}
static td_status conv2d_weight_grad_run(td_call *c) {
  td_conv g;
  td_tensor *t[2];
  td_status s = contiguous_all(c, t);
  if (s) return s;
  conv_geometry(c, t[0]->shape, c->out[0]->shape, &g);
  if (c->out[0]->numel) td_k(t[0]->dtype)->conv2d_weight_grad(c->out[0]->data, t[0]->data, t[1]->data, &g);
  release_all(c, t);
  return TD_OK;
}
static void conv2d_weight_grad_vjp(td_rule *r) {
  td_tensor *ddw = r->dout[0];
  td_attrs a = *r->a;
  if (r->need[0]) r->din[0] = input_grad(&a, r->in[1], ddw, r->in[0]);
  if (r->need[1]) r->din[1] = td_do(&td_op_conv2d, &a, 2, r->in[0], ddw);
}
const td_op td_op_conv2d_weight_grad = {
  .name = "conv2d_weight_grad", .signature = "x, dy, " CONV_OPTIONS ", kernel_height:int, kernel_width:int",
  .shape = conv2d_weight_grad_shape, .run = conv2d_weight_grad_run, .vjp = conv2d_weight_grad_vjp,
  .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1), .doc = "transpose of conv2d in its weights"};

/* ---- Convolution, what is added to its result and an activation in one pass ----
 * y = act(x*w + bias + chan + add). `parts` says which of the three follow x and w (TD_CONV_BIAS and so on); 0 means
 * the first ones in that order. */
enum { PARTS = TD_CONV_PARTS, ACT = TD_CONV_ACT };

/* The places of bias, chan and add among the operands; 0 for one that is not there. */
static td_status fused_places(const char *name, const td_attrs *a, int nin, int place[3]) {
  int parts = (int)a->i[PARTS], next = 2;
  if (parts == 0) parts = (1 << (nin - 2)) - 1;
  for (int k = 0; k < 3; k++) place[k] = parts >> k & 1 ? next++ : 0;
  if (a->i[PARTS] < 0 || a->i[PARTS] > 7 || next != nin)
    return td_fail(TD_EARG,
                   "%s: parts %lld does not fit %d operands after x and w, expected the sum of 1 (bias), 2 (chan) "
                   "and 4 (add) for those that are there",
                   name, (long long)a->i[PARTS], nin - 2);
  return TD_OK;
}

static bool is_chan(const td_tensor *t, const td_conv *g) {
  if (t->ndim == 2) return t->shape[0] == g->n && t->shape[1] == g->o;
  return t->ndim == 4 && t->shape[0] == g->n && t->shape[1] == 1 && t->shape[2] == 1 && t->shape[3] == g->o;
}

static td_status fused_parts(const td_call *c, const td_conv *g) {
  static const char *const name[3] = {"bias", "chan", "add"};
  int place[3];
  td_status s = fused_places("conv2d_fused", c->a, c->nin, place);
  const size_t y[4] = {g->n, g->oh, g->ow, g->o};
  for (int k = 0; k < 3 && !s; k++) {
    if (!place[k]) continue;
    const td_tensor *t = c->in[place[k]];
    bool fits = k == 0 ? t->ndim == 1 && t->numel == g->o
                : k == 1 ? is_chan(t, g)
                         : t->ndim == 4 && !memcmp(t->shape, y, sizeof y);
    if (!fits || t->dtype != c->in[0]->dtype)
      s = td_fail(TD_ESHAPE, "conv2d_fused: %s is %s of shape (%s), expected (%s) of %s", name[k],
                  td_dtype_name(t->dtype), td_tensor_shape_string(t),
                  k == 0   ? td_shape_string(1, y + 3)
                  : k == 1 ? td_shape_string(2, (const size_t[]){g->n, g->o})
                           : td_shape_string(4, y), td_dtype_name(c->in[0]->dtype));
  }
  return s;
}

static td_status conv2d_fused_shape(td_call *c) {
  td_conv g;
  td_status s = want_images(c, 0);
  if (!s) s = want_images(c, 1);
  if (!s) s = conv_geometry(c, c->in[0]->shape, c->in[1]->shape, &g);
  if (!s) s = fused_parts(c, &g);
  if (!s && (c->a->i[ACT] < 0 || c->a->i[ACT] >= TD_ACT_COUNT))
    s = td_fail(TD_EARG,
                "conv2d_fused: activation is %lld, expected 0 none, 1 relu, 2 silu, 3 gelu, 4 tanh or 5 sigmoid",
                (long long)c->a->i[ACT]);
  if (!s) td_meta_set(c, 0, c->in[0]->dtype, 4, (const size_t[]){g.n, g.oh, g.ow, g.o});
  return s;
}
static td_status conv2d_fused_run(td_call *c) {
  td_conv g;
  td_forms f;
  td_tensor *t[5];
  int at[3];
  td_status s = contiguous_all(c, t);
  if (s) return s;
  conv_geometry(c, t[0]->shape, t[1]->shape, &g);
  fused_places("conv2d_fused", c->a, c->nin, at);
  td_epilogue e = {.act = (td_act)c->a->i[ACT]};
  if (at[0]) e.bias = t[at[0]]->data;
  if (at[1]) e.chan = t[at[1]]->data;
  if (at[2]) e.add = t[at[2]]->data;
  if (c->out[0]->numel) td_k(t[0]->dtype)->conv2d(c->out[0]->data, t[0]->data, t[1]->data, &e, &g, forms_of(t[1], &f));
  release_all(c, t);
  return TD_OK;
}

/* The cotangent of what the activation is applied to, by the activation's own rule. silu and gelu need its operand,
 * which is computed again; the others are known from the result, also relu, whose operand has the result's sign. */
static td_tensor *before_act(const td_rule *r) {
  static const td_op *const act[TD_ACT_COUNT] = {NULL, &td_op_relu, &td_op_silu, &td_op_gelu, &td_op_tanh,
                                                 &td_op_sigmoid};
  const td_op *op = act[r->a->i[ACT]];
  td_tensor *u = r->out[0], *du = NULL;
  if (!op) return r->dout[0];
  if (op == &td_op_silu || op == &td_op_gelu) {
    td_attrs plain = *r->a;
    plain.i[ACT] = TD_ACT_NONE;
    td_do_all(&td_op_conv2d_fused, &plain, r->nin, r->in, &u);
    if (!u) return NULL;
  }
  op->vjp(&(td_rule){.op = op, .nin = 1, .nout = 1, .in = &u, .out = r->out, .dout = r->dout,
                     .need = &(const bool){true}, .din = &du});
  return du;
}
static void conv2d_fused_vjp(td_rule *r) {
  td_tensor *x = r->in[0], *w = r->in[1], *du = before_act(r);
  int at[3];
  if (!du || fused_places("conv2d_fused", r->a, r->nin, at)) return;
  if (r->need[0]) r->din[0] = input_grad(r->a, du, w, x);
  if (r->need[1]) r->din[1] = weight_grad(r->a, x, du, w);
  if (at[0] && r->need[at[0]]) r->din[at[0]] = td_sum(du, 7, false);
  if (at[1] && r->need[at[1]]) r->din[at[1]] = td_sum(du, 6, r->in[at[1]]->ndim == 4);
  if (at[2] && r->need[at[2]]) r->din[at[2]] = du;
}
const td_op td_op_conv2d_fused = {
  .name = "conv2d_fused", .signature = "x, w, bias?, chan?, add?, " CONV_OPTIONS ", parts:int=0, activation:int=0",
  .shape = conv2d_fused_shape, .run = conv2d_fused_run, .vjp = conv2d_fused_vjp,
  .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1) | TD_KEEP_IN(2) | TD_KEEP_IN(3) | TD_KEEP_IN(4) | TD_KEEP_OUT(0),
  .doc = "activation(conv2d(x, w) + bias + chan + add) in one pass; bias has O elements, chan N×O, add the result's shape"};

/* ---- Pooling: attributes kernel, stride, padding (pairs), height, width of the unpooled image ---- */
enum { KERNEL = 0, POOL_STRIDE = 2, POOL_PAD = 4, POOL_HEIGHT = 6, POOL_WIDTH = 7 };

/* The geometry over an unpooled image of shape x; a stride of 0 means the kernel's size. */
static td_status pool_geometry(const td_call *c, const size_t *x, td_conv *g) {
  const int64_t *i = c->a->i;
  *g = (td_conv){.n = x[0], .h = x[1], .w = x[2], .c = x[3], .o = x[3], .groups = 1, .dilation = {1, 1}};
  for (int k = 0; k < 2; k++) {
    int64_t kernel = i[KERNEL + k], stride = i[POOL_STRIDE + k] ? i[POOL_STRIDE + k] : kernel, pad = i[POOL_PAD + k];
    if (kernel < 1 || stride < 1 || pad < 0 || pad > kernel / 2 || kernel > MOST || stride > MOST)
      return td_fail(TD_EARG, "%s: kernel %lld, stride %lld, padding %lld: expected at least 1, 1 and 0..kernel/2",
                     c->op->name, (long long)kernel, (long long)stride, (long long)pad);
    g->stride[k] = (size_t)stride;
    g->pad[k] = (size_t)pad;
    *(k ? &g->kw : &g->kh) = (size_t)kernel;
  }
  td_status s = window_count(c, g->h, g->kh, g->stride[0], g->pad[0], 1, &g->oh);
  return s ? s : window_count(c, g->w, g->kw, g->stride[1], g->pad[1], 1, &g->ow);
}

/* Output and unpooled sizes are attributes: for adaptive pooling and upsampling. */
static td_status resize_geometry(const td_call *c, const size_t *x, size_t oh, size_t ow, td_conv *g) {
  *g = (td_conv){.n = x[0], .h = x[1], .w = x[2], .c = x[3], .o = x[3], .oh = oh, .ow = ow, .kh = 1, .kw = 1,
                 .stride = {1, 1}, .dilation = {1, 1}, .groups = 1};
  if (!oh || !ow || !g->h || !g->w || oh > 1u << 24 || ow > 1u << 24)
    return td_fail(TD_ESHAPE, "%s: from %zu×%zu to %zu×%zu: sizes must be positive", c->op->name, g->h, g->w, oh, ow);
  return TD_OK;
}

/* The unpooled image's shape, from the transposed operation's own operand and attributes. */
static td_status unpooled(const td_call *c, int height_slot, size_t x[4]) {
  const size_t *dy = c->in[0]->shape;
  td_status s = want_sizes(c, height_slot);
  if (s) return s;
  x[0] = dy[0], x[1] = (size_t)c->a->i[height_slot], x[2] = (size_t)c->a->i[height_slot + 1], x[3] = dy[3];
  return TD_OK;
}

/* Operand 1 is a tensor of places, in operand 0's shape when `alike`. */
static td_status want_places(const td_call *c, bool alike) {
  const td_tensor *x = c->in[0], *t = c->in[1];
  if (t->dtype != TD_I64 || t->ndim != 4 || (alike && !td_tensor_same_shape(x, t)) || t->shape[0] != x->shape[0] ||
      t->shape[3] != x->shape[3])
    return td_fail(TD_ESHAPE, "%s: places are %s of shape (%s), which max_pool2d does not give for operand 1 of (%s)",
                   c->op->name, td_dtype_name(t->dtype), td_tensor_shape_string(t), td_tensor_shape_string(x));
  return TD_OK;
}

/* The places in t (contiguous) are 0 .. h·w − 1. */
static td_status check_places(const td_call *c, const td_tensor *t, size_t h, size_t w) {
  const int64_t *at = (const int64_t *)(const void *)t->data;
  uint64_t largest = 0;  /* negative ones are the largest of all */
  for (size_t i = 0; i < t->numel; i++) largest = (uint64_t)at[i] > largest ? (uint64_t)at[i] : largest;
  if (t->numel == 0 || largest < h * w) return TD_OK;
  return td_fail(TD_EARG, "%s: place %lld is outside an image of %zu×%zu", c->op->name, (long long)largest, h, w);
}

typedef void (*image_map)(void *y, const void *x, const td_conv *g);

/* Runs a linear image map on operand 0. */
static td_status run_map(td_call *c, image_map k, const td_conv *g) {
  td_tensor *x = td_tensor_contiguous(c->in[0]);
  if (!x) return td_last_status();
  if (c->out[0]->numel) k(c->out[0]->data, x->data, g);
  td_tensor_release(x);
  return TD_OK;
}

static td_status max_pool2d_shape(td_call *c) {
  td_conv g;
  td_status s = want_images(c, 0);
  if (!s) s = pool_geometry(c, c->in[0]->shape, &g);
  if (s) return s;
  size_t y[4] = {g.n, g.oh, g.ow, g.c};
  td_meta_set(c, 0, c->in[0]->dtype, 4, y);
  td_meta_set(c, 1, TD_I64, 4, y);
  return TD_OK;
}
static td_status max_pool2d_run(td_call *c) {
  td_conv g;
  td_tensor *x = td_tensor_contiguous(c->in[0]);
  if (!x) return td_last_status();
  pool_geometry(c, x->shape, &g);
  if (c->out[0]->numel)
    td_k(x->dtype)->max_pool2d(c->out[0]->data, (int64_t *)(void *)c->out[1]->data, x->data, &g);
  td_tensor_release(x);
  return TD_OK;
}
extern const td_op td_op_max_pool2d_grad, td_op_max_pool2d_gather;
static td_attrs with_size(const td_attrs *a, int slot, const td_tensor *x) {
  td_attrs b = *a;
  b.i[slot] = (int64_t)x->shape[1];
  b.i[slot + 1] = (int64_t)x->shape[2];
  return b;
}
static void max_pool2d_vjp(td_rule *r) {
  td_attrs a = with_size(r->a, POOL_HEIGHT, r->in[0]);
  r->din[0] = td_do(&td_op_max_pool2d_grad, &a, 2, r->dout[0], r->out[1]);
}
#define POOL_OPTIONS "kernel:pair, stride:pair=0, padding:pair=0"
const td_op td_op_max_pool2d = {.name = "max_pool2d", .signature = "x, " POOL_OPTIONS, .nout = 2,
                                .shape = max_pool2d_shape, .run = max_pool2d_run, .vjp = max_pool2d_vjp,
                                .keep = TD_KEEP_OUT(1), .ints = 2,
                                .doc = "greatest element of each window, and its 0-based place h·W + w; stride 0 is the kernel's size"};

static td_status max_pool2d_grad_shape(td_call *c) {
  size_t x[4];
  td_conv g;
  td_status s = want_images(c, 0);
  if (s) return s;
  s = unpooled(c, POOL_HEIGHT, x);
  if (!s) s = pool_geometry(c, x, &g);
  if (s) return s;
  const size_t *dy = c->in[0]->shape;
  if (dy[1] != g.oh || dy[2] != g.ow)
    return td_fail(TD_ESHAPE, "%s: dy has shape (%s), expected (%s)", c->op->name, td_shape_string(4, dy),
                   td_shape_string(4, (const size_t[]){g.n, g.oh, g.ow, g.c}));
  td_meta_set(c, 0, c->in[0]->dtype, 4, x);
  return c->nin == 2 ? want_places(c, true) : TD_OK;
}
static td_status with_places(td_call *c, bool back) {
  td_conv g;
  td_tensor *t[2];
  td_status s = contiguous_all(c, t);
  if (s) return s;
  pool_geometry(c, back ? c->out[0]->shape : t[0]->shape, &g);
  const td_kernels *k = td_k(t[0]->dtype);
  const int64_t *at = (const int64_t *)(const void *)t[1]->data;
  s = check_places(c, t[1], g.h, g.w);
  if (!s && c->out[0]->numel) (back ? k->max_pool2d_grad : k->max_pool2d_gather)(c->out[0]->data, t[0]->data, at, &g);
  release_all(c, t);
  return s;
}
static td_status max_pool2d_grad_run(td_call *c) { return with_places(c, true); }
static td_status max_pool2d_gather_run(td_call *c) { return with_places(c, false); }
static td_status max_pool2d_gather_shape(td_call *c) {
  td_status s = want_images(c, 0);
  if (!s) s = want_places(c, false);
  if (!s) td_meta_set(c, 0, c->in[0]->dtype, 4, c->in[1]->shape);
  return s;
}
static void max_pool2d_grad_vjp(td_rule *r) {
  r->din[0] = td_do(&td_op_max_pool2d_gather, r->a, 2, r->dout[0], r->in[1]);
}
static void max_pool2d_gather_vjp(td_rule *r) {
  td_attrs a = with_size(r->a, POOL_HEIGHT, r->in[0]);
  r->din[0] = td_do(&td_op_max_pool2d_grad, &a, 2, r->dout[0], r->in[1]);
}
const td_op td_op_max_pool2d_grad = {.name = "max_pool2d_grad", .keep = TD_KEEP_IN(1),
                                     .signature = "dy, at, " POOL_OPTIONS ", height:int, width:int",
                                     .shape = max_pool2d_grad_shape, .run = max_pool2d_grad_run,
                                     .vjp = max_pool2d_grad_vjp, .doc = "dy put where max_pool2d found its maxima"};
const td_op td_op_max_pool2d_gather = {.name = "max_pool2d_gather", .signature = "x, at, " POOL_OPTIONS,
                                       .keep = TD_KEEP_IN(1), .shape = max_pool2d_gather_shape,
                                       .run = max_pool2d_gather_run, .vjp = max_pool2d_gather_vjp,
                                       .doc = "x at the places where max_pool2d found its maxima"};

/* A linear map and its transpose, for which the table needs only shapes and kernels. */
static td_status avg_pool2d_shape(td_call *c) {
  td_conv g;
  td_status s = want_images(c, 0);
  if (!s) s = pool_geometry(c, c->in[0]->shape, &g);
  if (!s) td_meta_set(c, 0, c->in[0]->dtype, 4, (const size_t[]){g.n, g.oh, g.ow, g.c});
  return s;
}
static td_status avg_pool2d_run(td_call *c) {
  td_conv g;
  pool_geometry(c, c->in[0]->shape, &g);
  return run_map(c, td_k(c->in[0]->dtype)->avg_pool2d, &g);
}
static td_status avg_pool2d_grad_run(td_call *c) {
  td_conv g;
  pool_geometry(c, c->out[0]->shape, &g);
  return run_map(c, td_k(c->in[0]->dtype)->avg_pool2d_grad, &g);
}
extern const td_op td_op_avg_pool2d_grad;
static void avg_pool2d_vjp(td_rule *r) {
  td_attrs a = with_size(r->a, POOL_HEIGHT, r->in[0]);
  r->din[0] = td_do(&td_op_avg_pool2d_grad, &a, 1, r->dout[0]);
}
const td_op td_op_avg_pool2d = {.name = "avg_pool2d", .signature = "x, " POOL_OPTIONS, .shape = avg_pool2d_shape,
                                .run = avg_pool2d_run, .vjp = avg_pool2d_vjp,
                                .doc = "mean of each window, padding not counted; stride 0 is the kernel's size"};
static void avg_pool2d_grad_vjp(td_rule *r) { r->din[0] = td_do(&td_op_avg_pool2d, r->a, 1, r->dout[0]); }
const td_op td_op_avg_pool2d_grad = {.name = "avg_pool2d_grad",
                                     .signature = "dy, " POOL_OPTIONS ", height:int, width:int",
                                     .shape = max_pool2d_grad_shape, .run = avg_pool2d_grad_run,
                                     .vjp = avg_pool2d_grad_vjp, .doc = "transpose of avg_pool2d"};

/* Resizing maps: attributes out_height, out_width, and for the transpose height, width. */
static td_status resize_shape(td_call *c) {
  td_conv g;
  td_status s = want_images(c, 0);
  if (!s) s = resize_geometry(c, c->in[0]->shape, (size_t)c->a->i[0], (size_t)c->a->i[1], &g);
  if (!s) td_meta_set(c, 0, c->in[0]->dtype, 4, (const size_t[]){g.n, g.oh, g.ow, g.c});
  return s;
}
static td_status resize_grad_shape(td_call *c) {
  size_t x[4];
  td_conv g;
  td_status s = want_images(c, 0);
  if (s) return s;
  s = unpooled(c, 2, x);
  if (!s) s = resize_geometry(c, x, c->in[0]->shape[1], c->in[0]->shape[2], &g);
  if (!s && ((int64_t)c->in[0]->shape[1] != c->a->i[0] || (int64_t)c->in[0]->shape[2] != c->a->i[1]))
    s = td_fail(TD_ESHAPE, "%s: dy has shape (%s), but size is %lld×%lld", c->op->name,
                td_tensor_shape_string(c->in[0]), (long long)c->a->i[0], (long long)c->a->i[1]);
  if (!s) td_meta_set(c, 0, c->in[0]->dtype, 4, x);
  return s;
}
#define RESIZE(name_, doc_)                                                                              \
  extern const td_op td_op_##name_##_grad;                                                               \
  static td_status name_##_run(td_call *c) {                                                             \
    td_conv g;                                                                                           \
    const size_t *y = c->out[0]->shape;                                                                  \
    resize_geometry(c, c->in[0]->shape, y[1], y[2], &g);                                                 \
    return run_map(c, td_k(c->in[0]->dtype)->name_, &g);                                                 \
  }                                                                                                      \
  static td_status name_##_grad_run(td_call *c) {                                                        \
    td_conv g;                                                                                           \
    const size_t *dy = c->in[0]->shape;                                                                  \
    resize_geometry(c, c->out[0]->shape, dy[1], dy[2], &g);                                              \
    return run_map(c, td_k(c->in[0]->dtype)->name_##_grad, &g);                                          \
  }                                                                                                      \
  static void name_##_vjp(td_rule *r) {                                                                  \
    td_attrs a = with_size(r->a, 2, r->in[0]);                                                           \
    r->din[0] = td_do(&td_op_##name_##_grad, &a, 1, r->dout[0]);                                       \
  }                                                                                                      \
  const td_op td_op_##name_ = {.name = #name_, .signature = "x, size:pair", .shape = resize_shape,       \
                               .run = name_##_run, .vjp = name_##_vjp, .doc = doc_};                     \
  static void name_##_grad_vjp(td_rule *r) { r->din[0] = td_do(&td_op_##name_, r->a, 1, r->dout[0]); } \
  const td_op td_op_##name_##_grad = {.name = #name_ "_grad", .signature = "dy, size:pair, height:int, width:int", \
                                      .shape = resize_grad_shape, .run = name_##_grad_run,               \
                                      .vjp = name_##_grad_vjp, .doc = "transpose of " #name_};
RESIZE(adaptive_avg_pool2d, "means over windows that cut the image into size[1]×size[2] parts")
RESIZE(upsample_nearest, "images of size[1]×size[2] by the nearest pixel")
RESIZE(upsample_bilinear, "images of size[1]×size[2], linear between pixel centres (corners not aligned)")

const td_op *const td_ops_image[] = {
    &td_op_conv2d,
    &td_op_conv2d_input_grad,
    &td_op_conv2d_weight_grad,
    &td_op_conv2d_fused,
    &td_op_max_pool2d,
    &td_op_max_pool2d_grad,
    &td_op_max_pool2d_gather,
    &td_op_avg_pool2d,
    &td_op_avg_pool2d_grad,
    &td_op_adaptive_avg_pool2d,
    &td_op_adaptive_avg_pool2d_grad,
    &td_op_upsample_nearest,
    &td_op_upsample_nearest_grad,
    &td_op_upsample_bilinear,
    &td_op_upsample_bilinear_grad,
    NULL,
};
