/* Reductions, running sums, sorting and softmax. A reduction takes a bit mask of dims (0 = all). */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"

/* ---- Moving the reduced dims together ---- */

static unsigned mask_of(const td_call *c) {
  unsigned all = (1u << c->in[0]->ndim) - 1;
  return c->a->i[0] ? (unsigned)c->a->i[0] & all : all;
}

/* The result's shape: reduced dims dropped, or of size 1 when the second attribute says keepdim. */
static void reduced_meta(td_call *c, int i, td_dtype d) {
  const td_tensor *x = c->in[0];
  unsigned mask = mask_of(c);
  size_t shape[TD_MAX_DIMS];
  int k = 0;
  for (int j = 0; j < x->ndim; j++) {
    bool gone = mask >> j & 1;
    if (gone && !c->a->i[1]) continue;
    shape[k++] = gone ? 1 : x->shape[j];
  }
  td_meta_set(c, i, d, k, shape);
}

/* x as outer×n×inner, n being the reduced elements: a contiguous tensor (one reference) that is x itself where its
 * reduced dims stand together, else a copy with them last. */
static td_tensor *gathered(const td_call *c, size_t *outer, size_t *n, size_t *inner) {
  td_tensor *x = c->in[0];
  unsigned mask = mask_of(c);
  int first = 0, last = x->ndim - 1;
  while (first < x->ndim && !(mask >> first & 1)) first++;
  while (last >= 0 && !(mask >> last & 1)) last--;
  bool together = true;
  for (int i = first; i <= last; i++) together &= mask >> i & 1;
  *outer = *n = *inner = 1;
  if (together) {
    for (int i = 0; i < x->ndim; i++) *(mask >> i & 1 ? n : i < first ? outer : inner) *= x->shape[i];
    return td_tensor_contiguous(x);
  }
  size_t shape[TD_MAX_DIMS], stride[TD_MAX_DIMS];
  int k = 0;
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; i < x->ndim; i++) {
      if ((int)(mask >> i & 1) != pass) continue;
      shape[k] = x->shape[i];
      stride[k++] = x->stride[i];
      *(pass ? n : outer) *= x->shape[i];
    }
  td_tensor *view = td_tensor_view(x, k, shape, stride, 0);
  td_tensor *copy = view ? td_tensor_contiguous(view) : NULL;
  td_tensor_release(view);
  return copy;
}

/* dy with the dropped dims put back as size 1, so that it broadcasts against the operand. */
static td_tensor *restored(const td_rule *r, td_tensor *dy) {
  const td_tensor *x = r->in[0];
  unsigned mask = r->a->i[0] ? (unsigned)r->a->i[0] : (1u << x->ndim) - 1;
  size_t shape[TD_MAX_DIMS];
  for (int i = 0; i < x->ndim; i++) shape[i] = mask >> i & 1 ? 1 : x->shape[i];
  return dy ? td_reshape(dy, x->ndim, shape) : NULL;
}

/* ---- sum, prod, norm ---- */

/* Integers are summed as int64, reals in their own type. */
static td_dtype sum_type(td_dtype d) { return d == TD_U8 ? TD_I64 : d; }

static td_status sum_shape(td_call *c) {
  reduced_meta(c, 0, sum_type(c->in[0]->dtype));
  return TD_OK;
}

typedef void (*reduce_kernel)(void *y, const void *x, size_t outer, size_t n, size_t inner);

static td_status reduce_with(td_call *c, reduce_kernel k) {
  size_t outer, n, inner;
  td_tensor *x = gathered(c, &outer, &n, &inner), *wide = NULL;
  if (x && x->dtype == TD_U8) {
    wide = td_tensor_new(TD_I64, x->ndim, x->shape);
    if (!wide || td_tensor_copy(wide, x)) {
      td_tensor_release(wide);
      td_tensor_release(x);
      return td_last_status();
    }
    td_tensor_release(x);
    x = wide;
  }
  if (!x) return td_last_status();
  if (c->out[0]->numel) k(c->out[0]->data, x->data, outer, n, inner);
  td_tensor_release(x);
  return TD_OK;
}

static td_status sum_run(td_call *c) { return reduce_with(c, td_k(c->out[0]->dtype)->sum); }
static void sum_vjp(td_rule *r) {
  r->din[0] = td_expand(restored(r, r->dout[0]), r->in[0]->ndim, r->in[0]->shape);
}
const td_op td_op_sum = {.name = "sum", .signature = "x, dims:dims, keepdim:bool=false", .shape = sum_shape,
                         .run = sum_run, .vjp = sum_vjp, .doc = "sum over dims, or over all; integers give int64"};

static td_status prod_run(td_call *c) { return reduce_with(c, td_k(c->out[0]->dtype)->prod); }

/* The product by halves: exact derivatives of every order, zeros included. */
static td_tensor *prod_twin(const td_rule *r, td_tensor *const *in) {
  td_tensor *x = in[0];
  unsigned mask = r->a->i[0] ? (unsigned)r->a->i[0] : (1u << x->ndim) - 1;
  for (int d = 0; d < r->in[0]->ndim; d++) {
    if (!(mask >> d & 1)) continue;
    while (x && x->shape[d] > 1) {
      size_t half = x->shape[d] / 2;
      td_tensor *pairs = td_mul(td_narrow(x, d, 0, half), td_narrow(x, d, half, half));
      if (x->shape[d] % 2 && pairs) {
        td_tensor *both[2] = {pairs, td_narrow(x, d, 2 * half, 1)}, *out[TD_MAX_OUT];
        td_do_all(&td_op_cat, &(td_attrs){.i = {d}}, 2, both, out);
        pairs = out[0];
      }
      x = pairs;
    }
  }
  return td_reshape_like(x, r->dout[0]);
}
static void prod_vjp(td_rule *r) {
  if (r->in[0]->numel) td_rule_by_twin(r, prod_twin);
}
const td_op td_op_prod = {.name = "prod", .signature = "x, dims:dims, keepdim:bool=false", .shape = sum_shape,
                          .run = prod_run, .vjp = prod_vjp, .keep = TD_KEEP_IN(0),
                          .doc = "product over dims, or over all"};

static td_status norm_shape(td_call *c) {
  td_status s = td_want_real(c, 0);
  reduced_meta(c, 0, c->in[0]->dtype);
  return s;
}
static td_status norm_run(td_call *c) {
  td_tensor *y = c->out[0];
  td_status s = reduce_with(c, td_k(y->dtype)->sum_squares);
  return s ? s : td_apply_inplace(&td_op_sqrt, &y, 1, NULL);
}
static void norm_vjp(td_rule *r) {
  td_tensor *y = restored(r, r->out[0]);
  td_tensor *slope = td_div(restored(r, r->dout[0]), td_where(td_eq(y, td_num(0)), td_num(1), y));
  r->din[0] = td_mul(slope, r->in[0]);
}
const td_op td_op_norm = {.name = "norm", .signature = "x, dims:dims, keepdim:bool=false", .shape = norm_shape,
                          .run = norm_run, .vjp = norm_vjp, .keep = TD_KEEP_IN(0) | TD_KEEP_OUT(0),
                          .doc = "Euclidean norm over dims, or over all; its derivative at 0 is 0"};

/* ---- max and min with positions ---- */

static td_status extreme_shape(td_call *c) {
  reduced_meta(c, 0, c->in[0]->dtype);
  reduced_meta(c, 1, TD_I64);
  unsigned mask = mask_of(c);
  for (int i = 0; i < c->in[0]->ndim; i++)
    if ((mask >> i & 1) && c->in[0]->shape[i] == 0)
      return td_fail(TD_ESHAPE, "%s: dim %d is empty", c->op->name, i + 1);
  return TD_OK;
}
static td_status extreme_run(td_call *c) {
  size_t outer, n, inner;
  td_tensor *x = gathered(c, &outer, &n, &inner), *y = c->out[0];
  bool narrow = y->dtype == TD_U8;
  td_tensor *wide_x = x, *wide_y = y;
  if (x && narrow) {
    wide_x = td_tensor_new(TD_I64, x->ndim, x->shape);
    wide_y = td_tensor_new(TD_I64, y->ndim, y->shape);
    if (wide_x) td_tensor_copy(wide_x, x);
  }
  td_status s = wide_x && wide_y ? TD_OK : td_last_status();
  if (!s && y->numel) {
    int64_t *at = (int64_t *)(void *)c->out[1]->data;
    const td_kernels *k = td_k(y->dtype);
    (c->op == &td_op_max ? k->max : k->min)(wide_y->data, at, wide_x->data, outer, n, inner);
    for (size_t i = 0; i < y->numel; i++) at[i]++;
    if (narrow) s = td_tensor_copy(y, wide_y);
  }
  if (narrow) {
    td_tensor_release(wide_x);
    td_tensor_release(wide_y);
  }
  td_tensor_release(x);
  return s;
}
/* The gradient goes to the position chosen. */
static void extreme_vjp(td_rule *r) {
  const td_tensor *x = r->in[0];
  unsigned mask = r->a->i[0] ? (unsigned)r->a->i[0] : (1u << x->ndim) - 1;
  size_t kept[TD_MAX_DIMS + 1], n = 1;
  int k = 0, order_at = 0;
  td_attrs order = {.i = {x->ndim}};
  for (int i = 0; i < x->ndim; i++)  /* the scatter sees the kept dims first, the reduced ones as one last dim */
    if (!(mask >> i & 1)) {
      kept[k++] = x->shape[i];
      order.i[1 + order_at++] = i;
    }
  size_t split[TD_MAX_DIMS];
  memcpy(split, kept, sizeof(size_t) * (size_t)k);
  int parts = k;
  for (int i = 0; i < x->ndim; i++)
    if (mask >> i & 1) {
      n *= x->shape[i];
      split[parts++] = x->shape[i];
      order.i[1 + order_at++] = i;
    }
  kept[k] = 1;
  td_attrs place = {.i = {k, (int64_t)n}};
  td_tensor *spread = td_do(&td_op_scatter_add, &place, 2, td_reshape(r->dout[0], k + 1, kept),
                              td_reshape(r->out[1], k + 1, kept));
  td_attrs back = {.i = {x->ndim}};
  for (int i = 0; i < x->ndim; i++) back.i[1 + order.i[1 + i]] = i;
  r->din[0] = td_do(&td_op_permute, &back, 1, td_reshape(spread, x->ndim, split));
}
const td_op td_op_max = {.name = "max", .signature = "x, dims:dims, keepdim:bool=false", .nout = 2,
                         .shape = extreme_shape, .run = extreme_run, .vjp = extreme_vjp, .keep = TD_KEEP_OUT(1),
                         .ints = 2, .doc = "greatest element over dims, or over all, and its position; NaN wins"};
const td_op td_op_min = {.name = "min", .signature = "x, dims:dims, keepdim:bool=false", .nout = 2,
                         .shape = extreme_shape, .run = extreme_run, .vjp = extreme_vjp, .keep = TD_KEEP_OUT(1),
                         .ints = 2, .doc = "least element over dims, or over all, and its position; NaN wins"};

/* ---- Along one dim ---- */

static void around(const td_tensor *t, int64_t dim, size_t *outer, size_t *n, size_t *inner) {
  *outer = *inner = 1;
  for (int i = 0; i < t->ndim; i++)
    if (i < dim) *outer *= t->shape[i];
    else if (i > dim) *inner *= t->shape[i];
  *n = t->shape[dim];
}

static td_status cumsum_shape(td_call *c) {
  td_meta_like(c, 0, c->in[0]);
  if (c->in[0]->dtype == TD_U8) return td_fail(TD_EDTYPE, "cumsum: uint8 would overflow, convert it first");
  return TD_OK;
}
static td_status cumsum_run(td_call *c) {
  size_t outer, n, inner;
  td_tensor *x = td_tensor_contiguous(c->in[0]);
  if (!x) return td_last_status();
  around(x, c->a->i[0], &outer, &n, &inner);
  if (x->numel) td_k(x->dtype)->cumsum(c->out[0]->data, x->data, outer, n, inner, c->a->i[1]);
  td_tensor_release(x);
  return TD_OK;
}
static void cumsum_vjp(td_rule *r) {
  td_attrs a = {.i = {r->a->i[0], !r->a->i[1]}};
  r->din[0] = td_do(&td_op_cumsum, &a, 1, r->dout[0]);
}
const td_op td_op_cumsum = {.name = "cumsum", .signature = "x, dim:dim, reverse:bool=false", .shape = cumsum_shape,
                            .run = cumsum_run, .vjp = cumsum_vjp, .doc = "running sum along a dim, from its end if reverse"};

/* A copy of x with `dim` last, as rows of n; one reference. */
static td_tensor *as_rows(td_tensor *x, int64_t dim) {
  if (dim == x->ndim - 1) return td_tensor_contiguous(x);
  size_t shape[TD_MAX_DIMS], stride[TD_MAX_DIMS];
  memcpy(shape, x->shape, sizeof shape);
  memcpy(stride, x->stride, sizeof stride);
  for (int i = (int)dim; i < x->ndim - 1; i++) shape[i] = x->shape[i + 1], stride[i] = x->stride[i + 1];
  shape[x->ndim - 1] = x->shape[dim];
  stride[x->ndim - 1] = x->stride[dim];
  td_tensor *view = td_tensor_view(x, x->ndim, shape, stride, 0);
  td_tensor *rows = view ? td_tensor_contiguous(view) : NULL;
  td_tensor_release(view);
  return rows;
}

/* Puts rows (dim last) into y (dim in its place). */
static td_status from_rows(td_tensor *y, int64_t dim, const td_tensor *rows) {
  size_t shape[TD_MAX_DIMS], stride[TD_MAX_DIMS];
  for (int i = 0; i < y->ndim; i++) {
    int from = i < dim ? i : i == dim ? y->ndim - 1 : i - 1;
    shape[i] = rows->shape[from];
    stride[i] = rows->stride[from];
  }
  td_tensor *view = td_tensor_view(rows, y->ndim, shape, stride, 0);
  if (!view) return td_last_status();
  td_status s = td_tensor_copy(y, view);
  td_tensor_release(view);
  return s;
}

static td_status sort_shape(td_call *c) {
  if (c->in[0]->dtype == TD_U8) return td_fail(TD_EDTYPE, "sort: uint8 is not sorted, convert it first");
  td_meta_like(c, 0, c->in[0]);
  td_meta_like(c, 1, c->in[0]);
  c->meta[1].dtype = TD_I64;
  return TD_OK;
}
static td_status sort_run(td_call *c) {
  td_tensor *x = as_rows(c->in[0], c->a->i[0]);
  td_tensor *y = x ? td_tensor_new(x->dtype, x->ndim, x->shape) : NULL;
  td_tensor *at = y ? td_tensor_new(TD_I64, x->ndim, x->shape) : NULL;
  td_status s = at ? TD_OK : td_last_status();
  if (!s && x->numel) {
    size_t n = x->shape[x->ndim - 1];
    int64_t *p = (int64_t *)(void *)at->data;
    td_k(x->dtype)->sort(y->data, p, x->data, x->numel / n, n, c->a->i[1]);
    for (size_t i = 0; i < at->numel; i++) p[i]++;
    s = from_rows(c->out[0], c->a->i[0], y);
    if (!s) s = from_rows(c->out[1], c->a->i[0], at);
  }
  td_tensor_release(x);
  td_tensor_release(y);
  td_tensor_release(at);
  return s;
}
static void sort_vjp(td_rule *r) {
  td_attrs a = {.i = {r->a->i[0], (int64_t)r->in[0]->shape[r->a->i[0]]}};
  r->din[0] = td_do(&td_op_scatter_add, &a, 2, r->dout[0], r->out[1]);
}
const td_op td_op_sort = {.name = "sort", .signature = "x, dim:dim=-1, descending:bool=false", .nout = 2,
                          .shape = sort_shape, .run = sort_run, .vjp = sort_vjp, .keep = TD_KEEP_OUT(1), .ints = 2,
                          .doc = "sorted along a dim, and the positions the elements came from; stable, NaN last"};

/* ---- softmax and its relatives ---- */

static td_status rows_shape(td_call *c) {
  for (int i = 0; i < c->nin; i++) {
    td_status s = td_want_real(c, i);
    if (s) return s;
  }
  td_meta_like(c, 0, c->in[0]);
  if (c->nin == 2 && (!td_tensor_same_shape(c->in[0], c->in[1]) || c->in[0]->dtype != c->in[1]->dtype))
    return td_fail(TD_ESHAPE, "%s: operands of shapes (%s) and (%s), expected the same shape and type", c->op->name,
                   td_tensor_shape_string(c->in[0]), td_tensor_shape_string(c->in[1]));
  return TD_OK;
}

typedef void (*row_kernel)(void *y, const void *x, size_t rows, size_t n);
typedef void (*row_grad_kernel)(void *dx, const void *y, const void *dy, size_t rows, size_t n);

/* Runs a kernel over the rows along attribute 0's dim: k1 with one operand, or k2 with two. */
static td_status run_rows(td_call *c, row_kernel k1, row_grad_kernel k2) {
  int64_t dim = c->a->i[0];
  bool last = dim == c->in[0]->ndim - 1;
  td_tensor *x = as_rows(c->in[0], dim), *x2 = NULL, *y = NULL;
  if (x && k2) x2 = as_rows(c->in[1], dim);
  if (x) y = last ? td_tensor_retain(c->out[0]) : td_tensor_new(x->dtype, x->ndim, x->shape);
  td_status s = x && y && (x2 || !k2) ? TD_OK : td_last_status();
  if (!s && x->numel) {
    size_t n = x->shape[x->ndim - 1];
    if (k2) k2(y->data, x->data, x2->data, x->numel / n, n);
    else k1(y->data, x->data, x->numel / n, n);
    if (!last) s = from_rows(c->out[0], dim, y);
  }
  td_tensor_release(x);
  td_tensor_release(x2);
  td_tensor_release(y);
  return s;
}

static td_status softmax_run(td_call *c) { return run_rows(c, td_k(c->in[0]->dtype)->softmax, NULL); }
static td_status softmax_grad_run(td_call *c) { return run_rows(c, NULL, td_k(c->in[0]->dtype)->softmax_grad); }
static td_status log_softmax_run(td_call *c) { return run_rows(c, td_k(c->in[0]->dtype)->log_softmax, NULL); }
static td_status log_softmax_grad_run(td_call *c) {
  return run_rows(c, NULL, td_k(c->in[0]->dtype)->log_softmax_grad);
}

static void softmax_vjp(td_rule *r) {
  td_tensor *y = r->out[0], *dy = r->dout[0];
  if (!td_recording)
    r->din[0] = td_do(&td_op_softmax_grad, r->a, 2, y, td_cast(dy, y->dtype));
  else
    r->din[0] = td_mul(y, td_sub(dy, td_sum(td_mul(dy, y), 1u << r->a->i[0], true)));
}
static void log_softmax_vjp(td_rule *r) {
  td_tensor *y = r->out[0], *dy = r->dout[0];
  if (!td_recording)
    r->din[0] = td_do(&td_op_log_softmax_grad, r->a, 2, y, td_cast(dy, y->dtype));
  else
    r->din[0] = td_sub(dy, td_mul(td_exp(y), td_sum(dy, 1u << r->a->i[0], true)));
}
const td_op td_op_softmax = {.name = "softmax", .signature = "x, dim:dim=-1", .shape = rows_shape, .run = softmax_run,
                             .vjp = softmax_vjp, .keep = TD_KEEP_OUT(0), .doc = "eˣ/Σeˣ along a dim"};
const td_op td_op_log_softmax = {.name = "log_softmax", .signature = "x, dim:dim=-1", .shape = rows_shape,
                                 .run = log_softmax_run, .vjp = log_softmax_vjp, .keep = TD_KEEP_OUT(0),
                                 .doc = "log softmax along a dim"};
const td_op td_op_softmax_grad = {.name = "softmax_grad", .signature = "y, dy, dim:dim=-1", .shape = rows_shape,
                                  .run = softmax_grad_run, .doc = "y·(dy − Σ dy·y): softmax's derivative in one pass"};
const td_op td_op_log_softmax_grad = {.name = "log_softmax_grad", .signature = "y, dy, dim:dim=-1",
                                      .shape = rows_shape, .run = log_softmax_grad_run,
                                      .doc = "dy − eʸ·Σ dy: log_softmax's derivative in one pass"};

static td_status logsumexp_run(td_call *c) {
  size_t outer, n, inner;
  td_tensor *x = gathered(c, &outer, &n, &inner), *rows = x;
  if (x && inner != 1) {  /* the kernel wants the reduced elements last */
    size_t shape[3] = {outer, inner, n}, stride[3] = {n * inner, 1, inner};
    td_tensor *view = td_tensor_view(x, 3, shape, stride, 0);
    rows = view ? td_tensor_contiguous(view) : NULL;
    td_tensor_release(view);
    td_tensor_release(x);
  }
  if (!rows) return td_last_status();
  if (c->out[0]->numel) td_k(rows->dtype)->logsumexp(c->out[0]->data, rows->data, outer * inner, n);
  td_tensor_release(rows);
  return TD_OK;
}
static void logsumexp_vjp(td_rule *r) {
  td_tensor *share = td_exp(td_sub(r->in[0], restored(r, r->out[0])));
  r->din[0] = td_mul(restored(r, r->dout[0]), share);
}
const td_op td_op_logsumexp = {.name = "logsumexp", .signature = "x, dims:dims, keepdim:bool=false",
                               .shape = norm_shape, .run = logsumexp_run, .vjp = logsumexp_vjp,
                               .keep = TD_KEEP_IN(0) | TD_KEEP_OUT(0), .doc = "log Σ eˣ over dims, without overflow"};

const td_op *const td_ops_reduce[] = {
  &td_op_sum, &td_op_prod, &td_op_norm, &td_op_max, &td_op_min, &td_op_cumsum, &td_op_sort, &td_op_softmax,
  &td_op_log_softmax, &td_op_softmax_grad, &td_op_log_softmax_grad, &td_op_logsumexp, NULL,
};
