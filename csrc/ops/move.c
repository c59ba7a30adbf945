/* Operations that move elements without computing: views, joining, indexing. Index tensors hold int64 positions
 * from 1, negative ones count from the end, as in Lua. */
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"

/* ---- Views ---- */

/* reshape: one size may be -1 */
static td_status reshape_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  int ndim = (int)c->a->i[0], unknown = -1;
  size_t shape[TD_MAX_DIMS], known = 1;
  for (int i = 0; i < ndim; i++) {
    int64_t s = c->a->i[1 + i];
    if (s < -1 || (s == -1 && unknown >= 0))
      return td_fail(TD_ESHAPE, "reshape: sizes are non-negative, at most one may be -1");
    if (s == -1) unknown = i;
    shape[i] = s == -1 ? 1 : (size_t)s;
    if (s != -1) known *= shape[i];
  }
  if (unknown >= 0 && known) shape[unknown] = x->numel / known;
  size_t n = 0;
  td_status s = td_count(ndim, shape, &n);
  if (s) return s;
  if (n != x->numel)
    return td_fail(TD_ESHAPE, "reshape: %zu elements of shape (%s) do not fill (%s)", x->numel,
                   td_tensor_shape_string(x), td_shape_string(ndim, shape));
  td_meta_set(c, 0, x->dtype, ndim, shape);
  return TD_OK;
}
static td_status reshape_view(td_call *c) {
  td_tensor *flat = td_tensor_contiguous(c->in[0]);
  if (!flat) return td_last_status();
  size_t stride[TD_MAX_DIMS];
  td_strides(c->meta[0].ndim, c->meta[0].shape, stride);
  c->out[0] = td_tensor_view(flat, c->meta[0].ndim, c->meta[0].shape, stride, 0);
  td_tensor_release(flat);
  return c->out[0] ? TD_OK : td_last_status();
}
static void reshape_vjp(td_rule *r) { r->din[0] = td_reshape_like(r->dout[0], r->in[0]); }
const td_op td_op_reshape = {.name = "reshape", .signature = "x, shape:shape", .shape = reshape_shape,
                             .view = reshape_view, .vjp = reshape_vjp,
                             .doc = "the same elements in another shape; one size may be -1"};

static td_status permute_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  size_t shape[TD_MAX_DIMS];
  unsigned seen = 0;
  if (c->a->i[0] != x->ndim)
    return td_fail(TD_EARG, "permute: a tensor of shape (%s) needs %d dims, not %d", td_tensor_shape_string(x),
                   x->ndim, (int)c->a->i[0]);
  for (int i = 0; i < x->ndim; i++) {
    seen |= 1u << c->a->i[1 + i];
    shape[i] = x->shape[c->a->i[1 + i]];
  }
  if (seen != (1u << x->ndim) - 1) return td_fail(TD_EARG, "permute: a dim is named twice");
  td_meta_set(c, 0, x->dtype, x->ndim, shape);
  return TD_OK;
}
static td_status permute_view(td_call *c) {
  const td_tensor *x = c->in[0];
  size_t stride[TD_MAX_DIMS];
  for (int i = 0; i < x->ndim; i++) stride[i] = x->stride[c->a->i[1 + i]];
  c->out[0] = td_tensor_view(x, x->ndim, c->meta[0].shape, stride, 0);
  return c->out[0] ? TD_OK : td_last_status();
}
static void permute_vjp(td_rule *r) {
  td_attrs back = {.i = {r->a->i[0]}};
  for (int i = 0; i < r->a->i[0]; i++) back.i[1 + r->a->i[1 + i]] = i;
  r->din[0] = td_do(&td_op_permute, &back, 1, r->dout[0]);
}
const td_op td_op_permute = {.name = "permute", .signature = "x, dims:perm", .shape = permute_shape,
                             .view = permute_view, .vjp = permute_vjp, .doc = "dims in another order"};

/* expand: a size of -1 keeps the operand's */
static td_status expand_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  int ndim = (int)c->a->i[0], lead = ndim - x->ndim;
  size_t shape[TD_MAX_DIMS];
  bool fits = lead >= 0;
  for (int i = 0; i < ndim && fits; i++) {
    size_t own = i < lead ? 1 : x->shape[i - lead];
    int64_t s = c->a->i[1 + i];
    fits = (s == -1 && i >= lead) || (s >= 0 && ((size_t)s == own || own == 1));
    shape[i] = s == -1 ? own : (size_t)s;
  }
  if (!fits) return td_fail(TD_ESHAPE, "expand: a tensor of shape (%s) does not broadcast to the sizes given",
                            td_tensor_shape_string(x));
  td_meta_set(c, 0, x->dtype, ndim, shape);
  size_t n;
  return td_count(ndim, shape, &n);
}
static td_status expand_view(td_call *c) {
  const td_tensor *x = c->in[0];
  size_t stride[TD_MAX_DIMS];
  int lead = c->meta[0].ndim - x->ndim;
  for (int i = 0; i < c->meta[0].ndim; i++)
    stride[i] = i < lead || x->shape[i - lead] == 1 ? 0 : x->stride[i - lead];
  c->out[0] = td_tensor_view(x, c->meta[0].ndim, c->meta[0].shape, stride, 0);
  return c->out[0] ? TD_OK : td_last_status();
}
static void same_vjp(td_rule *r) { r->din[0] = r->dout[0]; }  /* the tape sums broadcast dims */
const td_op td_op_expand = {.name = "expand", .signature = "x, shape:shape", .shape = expand_shape,
                            .view = expand_view, .vjp = same_vjp,
                            .doc = "sizes of 1 repeated, and dims added in front, without copying; -1 keeps a size"};

/* narrow(dim, start, length, step): elements start, start + step, … of a dim; start is 0-based in the attributes */
static td_status narrow_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  int64_t dim = c->a->i[0], start = c->a->i[1], length = c->a->i[2], step = c->a->i[3];
  int64_t size = (int64_t)x->shape[dim];
  if (step < 1) return td_fail(TD_EARG, "narrow: step is %lld, expected at least 1", (long long)step);
  if (start < 0 || length < 0 || length > size ||
      (length > 0 && (start >= size || (length - 1) > (size - 1 - start) / step)) || start > size)
    return td_fail(TD_EARG, "narrow: elements %lld to %lld by %lld of dim %lld are outside its size %lld",
                   (long long)start + 1, (long long)(start + 1 + (length - 1) * step), (long long)step,
                   (long long)dim + 1, (long long)size);
  td_meta_like(c, 0, x);
  c->meta[0].shape[dim] = (size_t)length;
  return TD_OK;
}
static td_status narrow_view(td_call *c) {
  const td_tensor *x = c->in[0];
  int64_t dim = c->a->i[0];
  size_t stride[TD_MAX_DIMS];
  memcpy(stride, x->stride, sizeof stride);
  stride[dim] *= (size_t)c->a->i[3];
  c->out[0] = td_tensor_view(x, x->ndim, c->meta[0].shape, stride,
                             c->meta[0].shape[dim] ? (size_t)c->a->i[1] * x->stride[dim] : 0);
  return c->out[0] ? TD_OK : td_last_status();
}
static void narrow_vjp(td_rule *r) {
  const int64_t *i = r->a->i;
  td_attrs a = {.i = {i[0], i[1], i[3], (int64_t)r->in[0]->shape[i[0]]}};
  r->din[0] = td_do(&td_op_narrow_grad, &a, 1, r->dout[0]);
}
const td_op td_op_narrow = {.name = "narrow", .signature = "x, dim:dim, start:pos, length:int, step:int=1",
                            .shape = narrow_shape, .view = narrow_view, .vjp = narrow_vjp,
                            .doc = "length elements of a dim from position start on, every step-th"};

/* narrow_grad(dim, start, step, size): zeros of `size` along dim with x at start, start + step, … */
static td_status narrow_grad_shape(td_call *c) {
  td_meta_like(c, 0, c->in[0]);
  int64_t dim = c->a->i[0], n = (int64_t)c->in[0]->shape[dim];
  int64_t start = c->a->i[1], step = c->a->i[2], size = c->a->i[3];
  if (start < 0 || step < 1 || size < 0 || (n && (start >= size || n - 1 > (size - 1 - start) / step)))
    return td_fail(TD_EARG, "narrow_grad: the elements do not fit into size %lld", (long long)size);
  c->meta[0].shape[dim] = (size_t)size;
  return TD_OK;
}
static td_status narrow_grad_run(td_call *c) {
  td_tensor *y = c->out[0];
  int64_t dim = c->a->i[0];
  memset(y->data, 0, y->numel * td_dtype_size(y->dtype));
  if (c->in[0]->numel == 0) return TD_OK;
  size_t stride[TD_MAX_DIMS];
  memcpy(stride, y->stride, sizeof stride);
  stride[dim] *= (size_t)c->a->i[2];
  td_tensor *window = td_tensor_view(y, y->ndim, c->in[0]->shape, stride, (size_t)c->a->i[1] * y->stride[dim]);
  if (!window) return td_last_status();
  td_status s = td_tensor_copy(window, c->in[0]);
  td_tensor_release(window);
  return s;
}
static void narrow_grad_vjp(td_rule *r) {
  const int64_t *i = r->a->i;
  td_attrs a = {.i = {i[0], i[1], (int64_t)r->in[0]->shape[i[0]], i[2]}};
  r->din[0] = td_do(&td_op_narrow, &a, 1, r->dout[0]);
}
const td_op td_op_narrow_grad = {.name = "narrow_grad", .signature = "x, dim:dim, start:int, step:int, size:int",
                                 .shape = narrow_grad_shape, .run = narrow_grad_run, .vjp = narrow_grad_vjp,
                                 .doc = "zeros of the given size along dim, with x at start, start + step, …"};

/* select(dim, index): one position of a dim, which disappears */
static td_status select_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  int64_t dim = c->a->i[0], at = c->a->i[1];
  if (at < 0 || at >= (int64_t)x->shape[dim])
    return td_fail(TD_EARG, "select: position %lld is outside dim %lld of size %zu", (long long)at + 1,
                   (long long)dim + 1, x->shape[dim]);
  size_t shape[TD_MAX_DIMS];
  for (int i = 0; i < x->ndim - 1; i++) shape[i] = x->shape[i + (i >= dim)];
  td_meta_set(c, 0, x->dtype, x->ndim - 1, shape);
  return TD_OK;
}
static td_status select_view(td_call *c) {
  const td_tensor *x = c->in[0];
  int64_t dim = c->a->i[0];
  size_t stride[TD_MAX_DIMS];
  for (int i = 0; i < x->ndim - 1; i++) stride[i] = x->stride[i + (i >= dim)];
  c->out[0] = td_tensor_view(x, x->ndim - 1, c->meta[0].shape, stride, (size_t)c->a->i[1] * x->stride[dim]);
  return c->out[0] ? TD_OK : td_last_status();
}
static void select_vjp(td_rule *r) {
  const int64_t *i = r->a->i;
  td_tensor *row = td_do(&td_op_unsqueeze, &(td_attrs){.i = {i[0]}}, 1, r->dout[0]);
  td_attrs a = {.i = {i[0], i[1], 1, (int64_t)r->in[0]->shape[i[0]]}};
  r->din[0] = td_do(&td_op_narrow_grad, &a, 1, row);
}
const td_op td_op_select = {.name = "select", .signature = "x, dim:dim, index:pos", .shape = select_shape,
                            .view = select_view, .vjp = select_vjp,
                            .doc = "the elements at one position of a dim, which disappears"};

static td_status unsqueeze_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  if (x->ndim == TD_MAX_DIMS) return td_fail(TD_ESHAPE, "unsqueeze: a tensor has at most %d dims", TD_MAX_DIMS);
  size_t shape[TD_MAX_DIMS];
  for (int i = 0, k = 0; i <= x->ndim; i++) shape[i] = i == c->a->i[0] ? 1 : x->shape[k++];
  td_meta_set(c, 0, x->dtype, x->ndim + 1, shape);
  return TD_OK;
}
static td_status unsqueeze_view(td_call *c) {
  const td_tensor *x = c->in[0];
  size_t stride[TD_MAX_DIMS];
  for (int i = 0, k = 0; i <= x->ndim; i++) stride[i] = i == c->a->i[0] ? 1 : x->stride[k++];
  c->out[0] = td_tensor_view(x, x->ndim + 1, c->meta[0].shape, stride, 0);
  return c->out[0] ? TD_OK : td_last_status();
}
static void reshape_back_vjp(td_rule *r) { r->din[0] = td_reshape_like(r->dout[0], r->in[0]); }
const td_op td_op_unsqueeze = {.name = "unsqueeze", .signature = "x, dim:newdim", .shape = unsqueeze_shape,
                               .view = unsqueeze_view, .vjp = reshape_back_vjp,
                               .doc = "a dim of size 1 put at position dim"};

/* squeeze: the dims of the mask must have size 1; no mask removes every dim of size 1 */
static td_status squeeze_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  size_t shape[TD_MAX_DIMS];
  int k = 0;
  for (int i = 0; i < x->ndim; i++) {
    bool named = c->a->i[0] >> i & 1;
    if (named && x->shape[i] != 1)
      return td_fail(TD_ESHAPE, "squeeze: dim %d of shape (%s) has size %zu, not 1", i + 1,
                     td_tensor_shape_string(x), x->shape[i]);
    if (named || (c->a->i[0] == 0 && x->shape[i] == 1)) continue;
    shape[k++] = x->shape[i];
  }
  td_meta_set(c, 0, x->dtype, k, shape);
  return TD_OK;
}
static td_status squeeze_view(td_call *c) {
  const td_tensor *x = c->in[0];
  size_t stride[TD_MAX_DIMS];
  int k = 0;
  for (int i = 0; i < x->ndim; i++)
    if (!(c->a->i[0] >> i & 1) && !(c->a->i[0] == 0 && x->shape[i] == 1)) stride[k++] = x->stride[i];
  c->out[0] = td_tensor_view(x, k, c->meta[0].shape, stride, 0);
  return c->out[0] ? TD_OK : td_last_status();
}
const td_op td_op_squeeze = {.name = "squeeze", .signature = "x, dims:dims", .shape = squeeze_shape,
                             .view = squeeze_view, .vjp = reshape_back_vjp,
                             .doc = "without the named dims of size 1, or without all of them"};

static td_status contiguous_shape(td_call *c) {
  td_meta_like(c, 0, c->in[0]);
  return TD_OK;
}
static td_status contiguous_view(td_call *c) {
  td_tensor *x = c->in[0];
  c->out[0] = td_tensor_is_contiguous(x) ? td_tensor_alias(x) : td_tensor_clone(x);
  return c->out[0] ? TD_OK : td_last_status();
}
static const td_op td_op_contiguous = {.name = "contiguous", .signature = "x", .shape = contiguous_shape,
                                       .view = contiguous_view, .vjp = same_vjp,
                                       .doc = "the same values in row-major order; copies only when needed"};
static td_status clone_run(td_call *c) { return td_tensor_copy(c->out[0], c->in[0]); }
const td_op td_op_clone = {.name = "clone", .signature = "x", .shape = contiguous_shape, .run = clone_run,
                                  .vjp = same_vjp, .doc = "a copy; gradients flow through it"};

/* ---- Joining ---- */

static td_status cat_shape(td_call *c) {
  const td_tensor *x = c->in[0];
  int64_t dim = c->a->i[0];
  td_meta_like(c, 0, x);
  c->meta[0].dtype = td_promote(c->in, c->nin);
  for (int i = 1; i < c->nin; i++) {
    const td_tensor *t = c->in[i];
    bool fits = t->ndim == x->ndim;
    for (int k = 0; k < x->ndim && fits; k++) fits = k == dim || t->shape[k] == x->shape[k];
    if (!fits)
      return td_fail(TD_ESHAPE, "cat: operand %d has shape (%s), which does not join (%s) along dim %lld", i + 1,
                     td_tensor_shape_string(t), td_tensor_shape_string(x), (long long)dim + 1);
    c->meta[0].shape[dim] += t->shape[dim];
  }
  return TD_OK;
}
static td_status cat_run(td_call *c) {
  td_tensor *y = c->out[0];
  int64_t dim = c->a->i[0];
  size_t start = 0;
  for (int i = 0; i < c->nin; i++) {
    const td_tensor *t = c->in[i];
    if (t->numel) {
      td_tensor *window = td_tensor_view(y, y->ndim, t->shape, y->stride, start * y->stride[dim]);
      if (!window) return td_last_status();
      td_status s = td_tensor_copy(window, t);
      td_tensor_release(window);
      if (s) return s;
    }
    start += t->shape[dim];
  }
  return TD_OK;
}
static void cat_vjp(td_rule *r) {
  int dim = (int)r->a->i[0];
  size_t start = 0;
  for (int i = 0; i < r->nin; i++) {
    if (r->need[i]) r->din[i] = td_narrow(r->dout[0], dim, start, r->in[i]->shape[dim]);
    start += r->in[i]->shape[dim];
  }
}
const td_op td_op_cat = {.name = "cat", .signature = "tensors..., dim:dim=1", .shape = cat_shape, .run = cat_run,
                         .vjp = cat_vjp, .doc = "tensors joined along a dim"};

/* ---- Indexing ---- */

/* Positions of an int64 index tensor, contiguous and 0-based, in memory from td_alloc; NULL and a message when one is
 * outside 1..n and -n..-1. */
static int64_t *positions(const td_call *c, const td_tensor *index, size_t n) {
  if (index->dtype != TD_I64) {
    td_fail(TD_EDTYPE, "%s: the index is %s, expected int64", c->op->name, td_dtype_name(index->dtype));
    return NULL;
  }
  td_tensor *flat = td_tensor_contiguous((td_tensor *)index);
  int64_t *at = flat ? td_alloc(flat->numel * sizeof *at) : NULL;
  for (size_t i = 0; at && i < flat->numel; i++) {
    int64_t v = ((const int64_t *)(const void *)flat->data)[i];
    int64_t zero_based = v > 0 ? v - 1 : v + (int64_t)n;
    if (v == 0 || zero_based < 0 || zero_based >= (int64_t)n) {
      td_fail(TD_EARG, "%s: index %lld at position %zu is outside 1..%zu", c->op->name, (long long)v, i + 1, n);
      td_free(at, flat->numel * sizeof *at);
      at = NULL;
      break;
    }
    at[i] = zero_based;
  }
  td_tensor_release(flat);
  return at;
}

/* Attribute 1 of index_add and scatter_add. */
static td_status want_size(const td_call *c) {
  if (c->a->i[1] >= 0) return TD_OK;
  return td_fail(TD_EARG, "%s: size is %lld, expected 0 or more", c->op->name, (long long)c->a->i[1]);
}

/* Sizes before, at and after a dim. */
static void split_at(const td_tensor *t, int64_t dim, size_t *outer, size_t *n, size_t *inner) {
  *outer = *inner = 1;
  for (int i = 0; i < t->ndim; i++)
    if (i < dim) *outer *= t->shape[i];
    else if (i > dim) *inner *= t->shape[i];
  *n = t->shape[dim];
}

static td_status index_select_shape(td_call *c) {
  if (c->in[1]->ndim != 1)
    return td_fail(TD_ESHAPE, "%s: the index has shape (%s), expected one dim", c->op->name,
                   td_tensor_shape_string(c->in[1]));
  td_meta_like(c, 0, c->in[0]);
  c->meta[0].shape[c->a->i[0]] = c->in[1]->numel;
  return TD_OK;
}
static td_status index_select_run(td_call *c) {
  size_t outer, n, inner, count = c->in[1]->numel;
  split_at(c->in[0], c->a->i[0], &outer, &n, &inner);
  int64_t *at = positions(c, c->in[1], n);
  td_tensor *x = at ? td_tensor_contiguous(c->in[0]) : NULL;
  if (x) td_k_take(c->out[0]->data, x->data, at, count, outer, n, inner, td_dtype_size(x->dtype));
  td_free(at, count * sizeof *at);
  td_tensor_release(x);
  return x ? TD_OK : td_last_status();
}
static void index_select_vjp(td_rule *r) {
  int64_t dim = r->a->i[0];
  td_attrs a = {.i = {dim, (int64_t)r->in[0]->shape[dim]}};
  r->din[0] = td_do(&td_op_index_add, &a, 2, r->dout[0], r->in[1]);
}
const td_op td_op_index_select = {.name = "index_select", .signature = "x, index, dim:dim=1",
                                  .shape = index_select_shape, .run = index_select_run, .vjp = index_select_vjp,
                                  .keep = TD_KEEP_IN(1), .doc = "the positions of a dim that the index names, in its order"};

/* The loops of index_add and scatter_add: y (outer×n×inner) receives x (outer×count×inner), row i at at[i]; or each
 * element p at at[p]. One after the other, so that the sums do not depend on the number of threads. */
#define ADDING(type_, suffix_)                                                                             \
  static void add_rows_##suffix_(void *y_, const void *x_, const int64_t *at, size_t outer, size_t count, \
                                 size_t n, size_t inner) {                                                  \
    const type_ *x = x_;                                                                                     \
    for (size_t o = 0; o < outer; o++)                                                                       \
      for (size_t i = 0; i < count; i++, x += inner) {                                                       \
        type_ *y = (type_ *)y_ + (o * n + (size_t)at[i]) * inner;                                            \
        for (size_t k = 0; k < inner; k++) y[k] += x[k];                                                     \
      }                                                                                                      \
  }                                                                                                          \
  static void add_each_##suffix_(void *y_, const void *x_, const int64_t *at, size_t outer, size_t count,  \
                                 size_t n, size_t inner) {                                                  \
    const type_ *x = x_;                                                                                     \
    for (size_t o = 0; o < outer; o++) {                                                                     \
      type_ *y = (type_ *)y_ + o * n * inner;                                                                \
      for (size_t i = 0; i < count; i++)                                                                     \
        for (size_t k = 0; k < inner; k++) y[(size_t)*at++ * inner + k] += *x++;                             \
    }                                                                                                        \
  }
ADDING(float, f32)
ADDING(double, f64)

/* index_add(dim, size): zeros of `size` along dim, to which the slices of x are added at the index's positions */
static td_status index_add_shape(td_call *c) {
  td_status s = td_want_real(c, 0);
  int64_t dim = c->a->i[0];
  if (!s) s = want_size(c);
  if (!s && (c->in[1]->ndim != 1 || c->in[1]->numel != c->in[0]->shape[dim]))
    return td_fail(TD_ESHAPE, "index_add: the index has shape (%s), expected %zu positions",
                   td_tensor_shape_string(c->in[1]), c->in[0]->shape[dim]);
  td_meta_like(c, 0, c->in[0]);
  c->meta[0].shape[dim] = (size_t)c->a->i[1];
  return s;
}
static td_status index_add_run(td_call *c) {
  td_tensor *y = c->out[0];
  size_t outer, count, inner, n = (size_t)c->a->i[1];
  split_at(c->in[0], c->a->i[0], &outer, &count, &inner);
  int64_t *at = positions(c, c->in[1], n);
  td_tensor *x = at ? td_tensor_contiguous(c->in[0]) : NULL;
  memset(y->data, 0, y->numel * td_dtype_size(y->dtype));
  if (x && y->dtype == TD_F32) add_rows_f32(y->data, x->data, at, outer, count, n, inner);
  else if (x) add_rows_f64(y->data, x->data, at, outer, count, n, inner);
  td_free(at, count * sizeof *at);
  td_tensor_release(x);
  return x ? TD_OK : td_last_status();
}
static void index_add_vjp(td_rule *r) {
  r->din[0] = td_do(&td_op_index_select, &(td_attrs){.i = {r->a->i[0]}}, 2, r->dout[0], r->in[1]);
}
const td_op td_op_index_add = {.name = "index_add", .signature = "x, index, dim:dim, size:int",
                               .shape = index_add_shape, .run = index_add_run, .vjp = index_add_vjp,
                               .keep = TD_KEEP_IN(1),
                               .doc = "zeros of the given size along dim, with x's slices added at the index's positions"};

/* gather: y[..i..] = x[..index[..i..]..] along dim; index has y's shape, and x's other sizes */
static td_status match_index(const td_call *c, int64_t dim) {
  const td_tensor *x = c->in[0], *index = c->in[1];
  bool fits = x->ndim == index->ndim;
  for (int i = 0; i < x->ndim && fits; i++) fits = i == dim || x->shape[i] == index->shape[i];
  return fits ? TD_OK
              : td_fail(TD_ESHAPE, "%s: an index of shape (%s) does not match (%s) in the dims other than %lld",
                        c->op->name, td_tensor_shape_string(index), td_tensor_shape_string(x), (long long)dim + 1);
}
static td_status gather_shape(td_call *c) {
  td_status s = match_index(c, c->a->i[0]);
  if (!s) td_meta_set(c, 0, c->in[0]->dtype, c->in[1]->ndim, c->in[1]->shape);
  return s;
}
static td_status gather_run(td_call *c) {
  size_t outer, n, inner, count = c->in[1]->shape[c->a->i[0]], size = td_dtype_size(c->in[0]->dtype);
  split_at(c->in[0], c->a->i[0], &outer, &n, &inner);
  int64_t *at = positions(c, c->in[1], n);
  td_tensor *x = at ? td_tensor_contiguous(c->in[0]) : NULL;
  char *y = c->out[0]->data;
  if (x) {
    for (size_t o = 0, p = 0; o < outer; o++)  /* positions within a dim become places in x */
      for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < inner; k++, p++) at[p] = (int64_t)((o * n + (size_t)at[p]) * inner + k);
    td_k_take(y, x->data, at, c->in[1]->numel, 1, x->numel, 1, size);
  }
  td_free(at, c->in[1]->numel * sizeof *at);
  td_tensor_release(x);
  return x ? TD_OK : td_last_status();
}
static void gather_vjp(td_rule *r) {
  int64_t dim = r->a->i[0];
  td_attrs a = {.i = {dim, (int64_t)r->in[0]->shape[dim]}};
  r->din[0] = td_do(&td_op_scatter_add, &a, 2, r->dout[0], r->in[1]);
}
const td_op td_op_gather = {.name = "gather", .signature = "x, index, dim:dim", .shape = gather_shape,
                            .run = gather_run, .vjp = gather_vjp, .keep = TD_KEEP_IN(1),
                            .doc = "along dim, the element that the index names at each place; the index has the result's shape"};

/* scatter_add(dim, size): zeros of `size` along dim; each element of x is added where the index names */
static td_status scatter_add_shape(td_call *c) {
  td_status s = td_want_real(c, 0);
  if (!s) s = want_size(c);
  if (!s && !td_tensor_same_shape(c->in[0], c->in[1]))
    return td_fail(TD_ESHAPE, "scatter_add: x has shape (%s), the index (%s)", td_tensor_shape_string(c->in[0]),
                   td_tensor_shape_string(c->in[1]));
  td_meta_like(c, 0, c->in[0]);
  c->meta[0].shape[c->a->i[0]] = (size_t)c->a->i[1];
  return s;
}
static td_status scatter_add_run(td_call *c) {
  td_tensor *y = c->out[0];
  size_t outer, count, inner, n = (size_t)c->a->i[1];
  split_at(c->in[0], c->a->i[0], &outer, &count, &inner);
  int64_t *at = positions(c, c->in[1], n);
  td_tensor *x = at ? td_tensor_contiguous(c->in[0]) : NULL;
  memset(y->data, 0, y->numel * td_dtype_size(y->dtype));
  if (x && y->dtype == TD_F32) add_each_f32(y->data, x->data, at, outer, count, n, inner);
  else if (x) add_each_f64(y->data, x->data, at, outer, count, n, inner);
  td_free(at, c->in[1]->numel * sizeof *at);
  td_tensor_release(x);
  return x ? TD_OK : td_last_status();
}
static void scatter_add_vjp(td_rule *r) {
  r->din[0] = td_do(&td_op_gather, &(td_attrs){.i = {r->a->i[0]}}, 2, r->dout[0], r->in[1]);
}
const td_op td_op_scatter_add = {.name = "scatter_add", .signature = "x, index, dim:dim, size:int",
                                 .shape = scatter_add_shape, .run = scatter_add_run, .vjp = scatter_add_vjp,
                                 .keep = TD_KEEP_IN(1),
                                 .doc = "zeros of the given size along dim, with each element of x added where the index names"};

const td_op *const td_ops_move[] = {
  &td_op_reshape, &td_op_permute, &td_op_expand, &td_op_narrow, &td_op_narrow_grad, &td_op_select, &td_op_unsqueeze,
  &td_op_squeeze, &td_op_contiguous, &td_op_clone, &td_op_cat, &td_op_index_select, &td_op_index_add, &td_op_gather,
  &td_op_scatter_add, NULL,
};
