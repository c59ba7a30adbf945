/* Linear systems, inverses, determinants, and the factorisations behind them (LU, Cholesky), over
 * the last two dims; the dims before them are a batch. The derivatives are those of M. B. Giles,
 * Collected matrix derivative results for forward and reverse mode algorithmic differentiation
 * (2008), unless another source is named. */
#include "ops/linalg.h"
#include <string.h>
#include "base/alloc.h"

/* ---- Shapes ---- */

td_status td_want_matrices(const td_call *c, int i) {
  td_status s = td_want_real(c, i);
  if (!s && c->in[i]->ndim < 2)
    s = td_fail(TD_ESHAPE, "%s: operand %d has shape (%s), expected a matrix in the last two dims",
                c->op->name, i + 1, td_tensor_shape_string(c->in[i]));
  return s;
}

td_status td_want_square(const td_call *c, int i) {
  td_status s = td_want_matrices(c, i);
  if (!s && rows_of(c->in[i]) != cols_of(c->in[i]))
    s = td_fail(TD_ESHAPE,
                "%s: operand %d has shape (%s), expected a square matrix in the last two dims",
                c->op->name, i + 1, td_tensor_shape_string(c->in[i]));
  return s;
}

void td_meta_batch(td_call *c, int i, int tail, size_t first, size_t second) {
  const td_tensor *a = c->in[0];
  size_t shape[TD_MAX_DIMS];
  memcpy(shape, a->shape, sizeof shape);
  shape[a->ndim - 2] = first;
  shape[a->ndim - 1] = second;
  td_meta_set(c, i, a->dtype, a->ndim - 2 + tail, shape);
}

td_status td_system_shape(td_call *c) {
  const td_tensor *a = c->in[0], *b = c->in[c->nin - 1];
  td_status s = td_want_real(c, c->nin - 1);
  if (s) return s;
  if (b->ndim == 0)
    return td_fail(TD_ESHAPE, "%s: the right-hand side is 0-d, expected a vector or a matrix",
                   c->op->name);
  if (a->dtype != b->dtype)
    return td_fail(TD_EDTYPE,
                   "%s: the matrix is %s, the right-hand side %s; convert one with :to()",
                   c->op->name, td_dtype_name(a->dtype), td_dtype_name(b->dtype));
  bool vector = b->ndim == 1;
  if (rows_of(a) != b->shape[vector ? 0 : b->ndim - 2])
    return td_fail(
        TD_ESHAPE,
        "%s: a matrix of shape (%s) and a right-hand side of shape (%s) differ in their rows",
        c->op->name, td_tensor_shape_string(a), td_tensor_shape_string(b));
  int la = a->ndim - 2, lb = vector ? 0 : b->ndim - 2, lead = la > lb ? la : lb;
  size_t shape[TD_MAX_DIMS];
  for (int i = 0; i < lead; i++) {
    int ia = i - (lead - la), ib = i - (lead - lb);
    size_t sa = ia < 0 ? 1 : a->shape[ia], sb = ib < 0 ? 1 : b->shape[ib];
    if (sa != sb && sa != 1 && sb != 1)
      return td_fail(TD_ESHAPE, "%s: batch sizes do not broadcast: (%s) and (%s)", c->op->name,
                     td_tensor_shape_string(a), td_tensor_shape_string(b));
    shape[i] = sa == 1 ? sb : sa;
  }
  shape[lead] = cols_of(a);
  if (!vector) shape[lead + 1] = cols_of(b);
  td_meta_set(c, 0, a->dtype, lead + (vector ? 1 : 2), shape);
  return TD_OK;
}

/* ---- Running kernels ---- */

td_status td_named_after(const td_call *c, td_status s) {
  if (!s) return TD_OK;
  const char *colon = strchr(td_last_message(), ':');
  return colon ? td_fail(s, "%s%s", c->op->name, colon) : s;
}

td_status td_on_matrices(td_call *c, td_status (*f)(td_call *c, const td_tensor *a)) {
  td_tensor *a = td_tensor_contiguous(c->in[0]);
  if (!a) return td_last_status();
  td_status s = td_named_after(c, f(c, a));
  td_tensor_release(a);
  return s;
}

/* t in row-major order, with its dims before the last `tail` broadcast to the `lead` ones of y; one
 * reference. */
static td_tensor *spread(td_tensor *t, int tail, const td_tensor *y, int lead) {
  size_t shape[TD_MAX_DIMS], stride[TD_MAX_DIMS];
  int own = t->ndim - tail;
  for (int i = 0; i < lead + tail; i++) {
    int k = i - (lead - own);
    shape[i] = i < lead ? y->shape[i] : t->shape[k];
    stride[i] = k < 0 || (i < lead && t->shape[k] == 1) ? 0 : t->stride[k];
  }
  td_tensor *view = td_tensor_view(t, lead + tail, shape, stride, 0);
  td_tensor *whole = view ? td_tensor_contiguous(view) : NULL;
  td_tensor_release(view);
  return whole;
}

/* t's matrices transposed, as a view; one reference. */
static td_tensor *transpose_view(const td_tensor *t) {
  size_t shape[TD_MAX_DIMS], stride[TD_MAX_DIMS];
  int last = t->ndim - 1;
  memcpy(shape, t->shape, sizeof shape);
  memcpy(stride, t->stride, sizeof stride);
  shape[last - 1] = t->shape[last], shape[last] = t->shape[last - 1];
  stride[last - 1] = t->stride[last], stride[last] = t->stride[last - 1];
  return td_tensor_view(t, t->ndim, shape, stride, 0);
}

/* The same, if that is in row-major order as it lies, else NULL. */
static td_tensor *as_transpose(const td_tensor *t) {
  td_tensor *view = td_tensor_is_contiguous(t) ? NULL : transpose_view(t);
  if (view && td_tensor_is_contiguous(view)) return view;
  td_tensor_release(view);
  return NULL;
}

/* t, batch×rows×k in row-major order, as rows×batch×k, or back: a view. */
static td_tensor *exchanged(const td_tensor *t, size_t first, size_t second, size_t k) {
  return td_tensor_view(t, 3, (const size_t[]){second, first, k},
                        (const size_t[]){k, second * k, 1}, 0);
}

/* All right-hand sides side by side, for the one matrix they share. */
static td_status run_side_by_side(td_call *c, td_systems s, const td_tensor *b,
                                  td_status (*f)(const td_call *c, const td_systems *s)) {
  size_t batch = s.batch, k = s.k;
  td_tensor *view = exchanged(b, batch, s.m, k), *wide = view ? td_tensor_contiguous(view) : NULL;
  td_tensor *x = td_tensor_new(b->dtype, 3, (const size_t[]){s.n, batch, k});
  td_tensor *back = x ? exchanged(x, s.n, batch, k) : NULL;
  td_tensor *to = td_tensor_view(c->out[0], 3, (const size_t[]){batch, s.n, k},
                                 (const size_t[]){s.n * k, k, 1}, 0);
  td_status status = TD_ENOMEM;
  if (wide && back && to) {
    s.batch = 1;
    s.k = batch * k;
    s.b = wide->data;
    s.x = x->data;
    status = f(c, &s);
    if (!status) status = td_tensor_copy(to, back);
  }
  td_tensor *all[] = {view, wide, x, back, to};
  for (int i = 0; i < 5; i++) td_tensor_release(all[i]);
  return status;
}

td_status td_on_systems(td_call *c, bool transposable,
                        td_status (*f)(const td_call *c, const td_systems *s)) {
  enum { MOST_COLUMNS = 1 << 22 };
  td_tensor *a = c->in[0], *b = c->in[c->nin - 1], *y = c->out[0], *index = NULL;
  bool vector = b->ndim == 1;
  int lead = y->ndim - (vector ? 1 : 2);
  td_systems s = {.batch = 1, .m = rows_of(a), .n = cols_of(a), .k = 1, .x = y->data};
  if (!vector) s.k = cols_of(b);
  for (int i = 0; i < lead; i++) s.batch *= y->shape[i];
  bool shared = s.batch > 1 && batch_of(a) == 1 && s.batch * s.k <= MOST_COLUMNS;
  td_tensor *lying = transposable && (shared || batch_of(a) == s.batch) ? as_transpose(a) : NULL;
  s.trans = lying != NULL;
  td_tensor *one = lying;
  if (!lying && shared) { /* its batch dims are of size 1 */
    td_tensor *view = td_tensor_view(a, 2, a->shape + a->ndim - 2, a->stride + a->ndim - 2, 0);
    one = view ? td_tensor_contiguous(view) : NULL;
    td_tensor_release(view);
  } else if (!lying) {
    one = spread(a, 2, y, lead);
  }
  td_tensor *side = spread(b, vector ? 1 : 2, y, lead);
  if (c->nin == 3) {
    index = shared ? td_tensor_contiguous(c->in[1]) : spread(c->in[1], 1, y, lead);
    s.index = index ? (const int64_t *)(const void *)index->data : NULL;
  }
  td_status status = TD_ENOMEM;
  if (one && side && (index || c->nin < 3)) {
    s.a = one->data;
    s.b = side->data;
    status = td_named_after(c, shared ? run_side_by_side(c, s, side, f) : f(c, &s));
  }
  td_tensor_release(one);
  td_tensor_release(side);
  td_tensor_release(index);
  return status;
}

/* ---- Expressions of derivative rules ---- */

/* Every row is a window onto below…, on, above…. */
td_tensor *td_banded(td_dtype d, size_t rows, size_t cols, double below, double on, double above) {
  size_t length = rows + cols + 1, size = td_dtype_size(d);
  td_tensor *t = td_auto(td_tensor_new(d, 2, (const size_t[]){rows, cols})),
            *line = td_tensor_new(d, 1, &length);
  for (size_t i = 0; line && i < length; i++)
    td_tensor_set(line, i, i < rows ? below : i == rows ? on : above);
  for (size_t i = 0; t && line && i < rows && cols; i++)
    memcpy(t->data + i * cols * size, line->data + (rows - i) * size, cols * size);
  td_tensor_release(line);
  return line ? t : NULL;
}

td_tensor *td_weighted(td_tensor *x, double below, double on, double above) {
  return x ? td_mul(x, td_banded(x->dtype, rows_of(x), cols_of(x), below, on, above)) : NULL;
}

static td_tensor *with_dim(td_tensor *x, int at) {
  return x ? td_do(&td_op_unsqueeze, &(td_attrs){.i = {at}}, 1, x) : NULL;
}
td_tensor *td_column(td_tensor *x) { return x ? with_dim(x, x->ndim) : NULL; }
td_tensor *td_row(td_tensor *x) { return x ? with_dim(x, x->ndim - 1) : NULL; }

td_tensor *td_diagonal(td_tensor *x) {
  size_t n = x ? x->shape[x->ndim - 1] : 0;
  return x ? td_mul(td_column(x), td_banded(x->dtype, n, n, 0, 1, 0)) : NULL;
}

td_tensor *td_cotangent(const td_rule *r, int i) {
  return r->dout[i] ? r->dout[i] : td_zeros_like(r->out[i]);
}

/* …×n×k as n×(…·k) */
static td_tensor *rows_first(td_tensor *x) {
  if (!x) return NULL;
  td_attrs p = {.i = {x->ndim, x->ndim - 2}};
  for (int i = 0; i < x->ndim - 2; i++) p.i[2 + i] = i;
  p.i[x->ndim] = x->ndim - 1;
  size_t n = rows_of(x);
  return td_reshape(td_do(&td_op_permute, &p, 1, x), 2, (const size_t[]){n, n ? x->numel / n : 0});
}

td_tensor *td_pairs(td_tensor *l, td_tensor *r, const td_tensor *a) {
  if (l && r && a->ndim == 2 && l->ndim > 2) return td_matmul(rows_first(l), td_t(rows_first(r)));
  return td_matmul(l, td_t(r));
}

td_tensor *td_solve_triangular(td_tensor *t, td_tensor *b, bool upper, bool transpose, bool unit) {
  return td_do(&td_op_solve_triangular, &(td_attrs){.i = {upper, transpose, unit}}, 2, t, b);
}

td_tensor *td_side(const td_rule *r, td_tensor *x) {
  return r->in[r->nin - 1]->ndim == 1 ? td_column(x) : x;
}
td_tensor *td_as_side(const td_rule *r, td_tensor *x) {
  if (!x || r->in[r->nin - 1]->ndim > 1) return x;
  return td_do(&td_op_squeeze, &(td_attrs){.i = {(int64_t)1 << (x->ndim - 1)}}, 1, x);
}

/* ---- solve and inv ---- */

static td_status solve_shape(td_call *c) {
  td_status s = td_want_square(c, 0);
  return s ? s : td_system_shape(c);
}
static td_status solve_kernel(const td_call *c, const td_systems *s) {
  return td_k(c->out[0]->dtype)->solve(s->x, s->a, s->b, s->batch, s->n, s->k, s->trans);
}
static td_status solve_run(td_call *c) { return td_on_systems(c, true, solve_kernel); }
/* db = a⁻ᵀ·dx, da = −db·xᵀ */
static void solve_vjp(td_rule *r) {
  td_tensor *db = td_do(&td_op_solve, NULL, 2, td_t(r->in[0]), td_side(r, r->dout[0]));
  if (r->need[0]) r->din[0] = td_neg(td_pairs(db, td_side(r, r->out[0]), r->in[0]));
  if (r->need[1]) r->din[1] = td_as_side(r, db);
}
const td_op td_op_solve = {
  .name = "solve", .signature = "a, b", .shape = solve_shape, .run = solve_run, .vjp = solve_vjp,
  .keep = TD_KEEP_IN(0) | TD_KEEP_OUT(0),
  .doc = "x with a·x = b, a square; b is a vector, or a matrix of columns; batches broadcast"};

static td_status square_shape(td_call *c) {
  td_status s = td_want_square(c, 0);
  if (!s) td_meta_like(c, 0, c->in[0]);
  return s;
}
static td_status inv_kernel(td_call *c, const td_tensor *a) {
  return td_k(a->dtype)->inverse(c->out[0]->data, a->data, batch_of(a), rows_of(a));
}
static td_status inv_run(td_call *c) { return td_on_matrices(c, inv_kernel); }
static void inv_vjp(td_rule *r) {
  td_tensor *yt = td_t(r->out[0]);
  r->din[0] = td_neg(td_matmul(yt, td_matmul(r->dout[0], yt)));
}
const td_op td_op_inv = {
  .name = "inv", .signature = "a", .shape = square_shape, .run = inv_run, .vjp = inv_vjp,
  .keep = TD_KEEP_OUT(0),
  .doc = "inverse of a square matrix; to solve a system, solve is better"};

/* ---- solve_triangular ---- */

static td_status solve_triangular_kernel(const td_call *c, const td_systems *s) {
  const td_kernels *kernels = td_k(c->out[0]->dtype);
  bool upper = c->a->i[0] != s->trans, transpose = c->a->i[1] != s->trans, unit = c->a->i[2];
  return kernels->triangular_solve(s->x, s->a, s->b, s->batch, s->n, s->k, upper, transpose, unit);
}
static td_status solve_triangular_run(td_call *c) {
  return td_on_systems(c, true, solve_triangular_kernel);
}
/* db = op(a)⁻ᵀ·dx; da = −db·xᵀ, transposed with op, in the triangle that is read */
static void solve_triangular_vjp(td_rule *r) {
  bool upper = r->a->i[0], transpose = r->a->i[1], unit = r->a->i[2];
  td_tensor *db = td_solve_triangular(r->in[0], td_side(r, r->dout[0]), upper, !transpose, unit);
  if (r->need[1]) r->din[1] = td_as_side(r, db);
  if (!r->need[0]) return;
  td_tensor *x = td_side(r, r->out[0]),
            *da = transpose ? td_pairs(x, db, r->in[0]) : td_pairs(db, x, r->in[0]);
  r->din[0] = td_weighted(da, upper ? 0 : -1, unit ? 0 : -1, upper ? -1 : 0);
}
const td_op td_op_solve_triangular = {
  .name = "solve_triangular",
  .signature = "a, b, upper:bool=false, transpose:bool=false, unit:bool=false",
  .shape = solve_shape, .run = solve_triangular_run, .vjp = solve_triangular_vjp,
  .keep = TD_KEEP_IN(0) | TD_KEEP_OUT(0),
  .doc = "x with a·x = b or aᵀ·x = b (transpose), reading one triangle of a, its diagonal taken "
         "as 1 if unit"};

/* ---- Determinants ---- */

static td_status determinant_shape(td_call *c) {
  td_status s = td_want_square(c, 0);
  for (int i = 0; i < (c->op->nout ? c->op->nout : 1) && !s; i++) td_meta_batch(c, i, 0, 0, 0);
  return s;
}

/* The product of U's diagonal; its sign changes with every exchange of rows. */
static double pivot_product(const td_tensor *lu, const int64_t *pivots, size_t matrix) {
  size_t n = rows_of(lu);
  double product = 1;
  for (size_t i = 0; i < n; i++) {
    double u = td_tensor_get(lu, (matrix * n + i) * n + i);
    product *= pivots[matrix * n + i] == (int64_t)i ? u : -u;
  }
  return product;
}
/* A singular matrix is no failure here, but one that is not finite is, and the LU kernel gives both
 * the same status. */
static td_status det_kernel(td_call *c, const td_tensor *a) {
  size_t n = rows_of(a), batch = batch_of(a), nans = 0, infs = 0, count = batch * n;
  double statistics[4];
  if (a->numel) td_k(a->dtype)->statistics(a->data, a->numel, statistics, &nans, &infs);
  if (nans || infs) return td_fail(TD_ESOLVE, "det: a matrix contains NaN or infinity");
  td_tensor *lu = td_tensor_new(a->dtype, a->ndim, a->shape);
  int64_t *pivots = td_alloc(count * sizeof *pivots);
  td_status s = lu && pivots ? td_k(a->dtype)->lu(lu->data, pivots, a->data, batch, n) : TD_ENOMEM;
  if (s == TD_ESOLVE) {
    td_clear_error();
    s = TD_OK;
  }
  for (size_t i = 0; i < batch && !s; i++)
    td_tensor_set(c->out[0], i, pivot_product(lu, pivots, i));
  td_free(pivots, count * sizeof *pivots);
  td_tensor_release(lu);
  return s;
}
static td_status det_run(td_call *c) { return td_on_matrices(c, det_kernel); }

static td_tensor *trace(td_tensor *x) {
  unsigned last_two = x ? 3u << (x->ndim - 2) : 0;
  return td_sum(td_weighted(x, 0, 1, 0), last_two, true);
}

/* The determinant as a polynomial, by Faddeev and LeVerrier: exact derivatives of every order where
 * a is singular. Its rounding errors grow quickly with n. */
static td_tensor *det_twin(const td_rule *r, td_tensor *const *in) {
  td_tensor *a = in[0], *c = NULL;
  size_t n = rows_of(a);
  td_tensor *unit = td_banded(a->dtype, n, n, 0, 1, 0), *m = unit;
  for (size_t k = 1; k <= n; k++) {
    td_tensor *am = td_matmul(a, m);
    c = td_mul(td_num(-1.0 / (double)k), trace(am));
    m = td_add(am, td_mul(c, unit));
  }
  return td_mul(td_num(n % 2 ? -1 : 1), td_reshape_like(c, r->dout[0]));
}

/* The matrix of cofactors, singular or not: ±U·(Π of the other singular values)·Vᵀ, the sign being
 * that of the product of both determinants, a constant. */
static td_tensor *cofactors(td_tensor *a) {
  td_tensor *usv[TD_MAX_OUT];
  td_do_all(&td_op_svd, NULL, 1, &a, usv);
  if (!usv[0]) return NULL;
  size_t n = rows_of(a);
  td_tensor *others = td_where(td_banded(a->dtype, n, n, 0, 1, 0), td_num(1), td_row(usv[1]));
  td_tensor *products = td_do(&td_op_prod, &(td_attrs){.i = {1 << (a->ndim - 1), 0}}, 1, others);
  td_tensor *turns = td_mul(td_do(&td_op_det, NULL, 1, usv[0]), td_do(&td_op_det, NULL, 1, usv[2]));
  td_tensor *sign = td_column(td_column(td_sign(turns)));
  return td_mul(sign, td_matmul(td_mul(usv[0], td_row(products)), usv[2]));
}

/* Is det·inverse(a) good to some digits: no determinant 0, no condition number near 1/rounding? */
static bool regular(const td_tensor *y, td_tensor *a, td_tensor **inverse) {
  for (size_t i = 0; y->storage && i < y->numel; i++)
    if (td_tensor_get(y, i) == 0) return false;
  *inverse = td_do(&td_op_inv, NULL, 1, a);
  td_attrs each = {.i = {3 << (a->ndim - 2), 0}};
  td_tensor *size = td_do(&td_op_norm, &each, 1, a);
  td_tensor *reach = td_do(&td_op_norm, &each, 1, *inverse);
  double most = a->dtype == TD_F32 ? 0x1p13 : 0x1p35;
  for (size_t i = 0; size && reach && reach->storage && i < reach->numel; i++)
    if (!(td_tensor_get(size, i) * td_tensor_get(reach, i) < most)) return false;
  return true;
}
/* det·a⁻ᵀ (Jacobi's formula), which for a singular matrix has a limit: the cofactors. */
static void det_vjp(td_rule *r) {
  enum { POLYNOMIAL = 8 };
  td_tensor *a = r->in[0], *y = r->out[0], *dy = r->dout[0], *inverse = NULL;
  if (a->numel == 0) return;
  bool known = y->storage && td_tensor_is_known(y);  /* else a captured function's: what holds for every matrix */
  if (!known && td_recording && rows_of(a) > POLYNOMIAL) inverse = td_do(&td_op_inv, NULL, 1, a);
  if (inverse || (known && regular(y, a, &inverse)))
    r->din[0] = td_mul(td_column(td_column(td_mul(dy, y))), td_t(inverse));
  else if (td_recording && rows_of(a) <= POLYNOMIAL)
    td_rule_by_twin(r, det_twin);
  else
    r->din[0] = td_mul(td_column(td_column(dy)), cofactors(a));
}
const td_op td_op_det = {
  .name = "det", .signature = "a", .shape = determinant_shape, .run = det_run, .vjp = det_vjp,
  .keep = TD_KEEP_IN(0) | TD_KEEP_OUT(0),
  .doc = "determinant of a square matrix"};

static td_status slogdet_kernel(td_call *c, const td_tensor *a) {
  return td_k(a->dtype)->slogdet(c->out[0]->data, c->out[1]->data, a->data, batch_of(a),
                                 rows_of(a));
}
static td_status slogdet_run(td_call *c) { return td_on_matrices(c, slogdet_kernel); }
static void slogdet_vjp(td_rule *r) {
  if (r->dout[1] && r->in[0]->numel)
    r->din[0] =
        td_mul(td_column(td_column(r->dout[1])), td_t(td_do(&td_op_inv, NULL, 1, r->in[0])));
}
const td_op td_op_slogdet = {
  .name = "slogdet", .signature = "a", .nout = 2, .shape = determinant_shape, .run = slogdet_run,
  .vjp = slogdet_vjp, .ints = 1, .keep = TD_KEEP_IN(0),
  .doc = "sign of the determinant and logarithm of its absolute value; 0 and −∞ if singular"};

/* ---- cholesky ---- */

td_tensor *td_symmetric_part(const td_tensor *a) {
  td_tensor *view = transpose_view(a), *own = td_tensor_clone(a),
            *other = view ? td_tensor_clone(view) : NULL;
  if (own && other && a->numel) {
    const void *both[2] = {own->data, other->data};
    td_k(a->dtype)->lincomb(own->data, NULL, 2, (const double[]){0.5, 0.5}, both, a->numel);
  }
  td_tensor_release(view);
  if (!other) td_tensor_release(own);
  td_tensor_release(other);
  return other ? own : NULL;
}
static td_status cholesky_run(td_call *c) {
  td_tensor *a = td_symmetric_part(c->in[0]);
  if (!a) return td_last_status();
  td_status s = td_k(a->dtype)->cholesky(c->out[0]->data, a->data, batch_of(a), rows_of(a));
  td_tensor_release(a);
  return td_named_after(c, s);
}
/* I. Murray, Differentiation of the Cholesky decomposition (2016), eq. 10: the symmetric part of
 * L⁻ᵀ·Φ(Lᵀ·dL)·L⁻¹, where Φ takes the lower triangle and halves the diagonal. */
static void cholesky_vjp(td_rule *r) {
  td_tensor *l = r->out[0], *inner = td_weighted(td_matmul(td_t(l), r->dout[0]), 1, 0.5, 0);
  td_tensor *left = td_solve_triangular(l, inner, false, true, false);
  td_tensor *both = td_solve_triangular(l, td_t(left), false, true, false);
  r->din[0] = td_mul(td_num(0.5), td_add(both, td_t(both)));
}
const td_op td_op_cholesky = {
  .name = "cholesky", .signature = "a", .shape = square_shape, .run = cholesky_run,
  .vjp = cholesky_vjp, .keep = TD_KEEP_OUT(0),
  .doc = "lower L with L·Lᵀ = a, a positive definite; only a's symmetric part counts"};

/* ---- LU with partial pivoting ---- */

static td_status lu_factor_shape(td_call *c) {
  td_status s = td_want_square(c, 0);
  if (s) return s;
  td_meta_like(c, 0, c->in[0]);
  td_meta_batch(c, 1, 1, rows_of(c->in[0]), 0);
  c->meta[1].dtype = TD_I64;
  return TD_OK;
}
static td_status lu_factor_kernel(td_call *c, const td_tensor *a) {
  int64_t *pivots = (int64_t *)(void *)c->out[1]->data;
  td_status s = td_k(a->dtype)->lu(c->out[0]->data, pivots, a->data, batch_of(a), rows_of(a));
  for (size_t i = 0; i < c->out[1]->numel && !s; i++) pivots[i]++;
  return s;
}
static td_status lu_factor_run(td_call *c) { return td_on_matrices(c, lu_factor_kernel); }

/* The matrix P of P·a = L·U: the unit matrix with its rows exchanged as the pivots say. */
static td_tensor *row_exchanges(const td_tensor *pivots, td_dtype d) {
  size_t n = pivots->shape[pivots->ndim - 1], shape[TD_MAX_DIMS];
  memcpy(shape, pivots->shape, sizeof shape);
  shape[pivots->ndim] = n;
  td_tensor *p = td_auto(td_tensor_zeros(d, pivots->ndim + 1, shape));
  const int64_t *at = (const int64_t *)(const void *)pivots->data;
  size_t *row = td_alloc(n * sizeof *row);
  for (size_t m = 0; p && row && m < (n ? pivots->numel / n : 0); m++) {
    for (size_t i = 0; i < n; i++) row[i] = i;
    for (size_t i = 0; i < n; i++) {
      size_t with = (size_t)at[m * n + i] - 1, held = row[i];
      row[i] = row[with];
      row[with] = held;
    }
    for (size_t i = 0; i < n; i++) td_tensor_set(p, (m * n + i) * n + row[i], 1);
  }
  td_free(row, n * sizeof *row);
  return row ? p : NULL;
}

/* With A = Pᵀ·L·U: dA = Pᵀ·L⁻ᵀ·(tril₋₁(Lᵀ·dL) + triu(dU·Uᵀ))·U⁻ᵀ; F. de Hoog, R. Anderssen, M.
 * Lukas, Differentiation of matrix functionals using triangular factorization, Math. Comp. 80
 * (2011). */
static void lu_factor_vjp(td_rule *r) {
  td_tensor *lu = r->out[0], *d = r->dout[0];
  if (!d) return;
  td_tensor *p = row_exchanges(r->out[1], lu->dtype);
  td_tensor *unit = td_banded(lu->dtype, rows_of(lu), rows_of(lu), 0, 1, 0);
  td_tensor *l = td_add(td_weighted(lu, 1, 0, 0), unit), *u = td_weighted(lu, 0, 1, 1);
  td_tensor *inner = td_add(td_weighted(td_matmul(td_t(l), td_weighted(d, 1, 0, 0)), 1, 0, 0),
                            td_weighted(td_matmul(td_weighted(d, 0, 1, 1), td_t(u)), 0, 1, 1));
  td_tensor *left = td_solve_triangular(lu, inner, false, true, true);
  td_tensor *both = td_solve_triangular(lu, td_t(left), true, false, false);
  r->din[0] = td_matmul(td_t(p), td_t(both));
}
const td_op td_op_lu_factor = {
  .name = "lu_factor", .signature = "a", .nout = 2, .shape = lu_factor_shape, .run = lu_factor_run,
  .vjp = lu_factor_vjp, .ints = 2, .keep = TD_KEEP_OUT(0) | TD_KEEP_OUT(1),
  .doc = "L (unit, below the diagonal) and U of P·a = L·U in one matrix, and pivots: row i was "
         "exchanged with row pivots[i]"};

static td_status lu_solve_shape(td_call *c) {
  td_status s = td_want_square(c, 0);
  if (s) return s;
  const td_tensor *lu = c->in[0], *pivots = c->in[1];
  bool fits = pivots->dtype == TD_I64 && pivots->ndim == lu->ndim - 1;
  for (int i = 0; i < pivots->ndim && fits; i++) fits = pivots->shape[i] == lu->shape[i];
  if (!fits)
    return td_fail(
        TD_ESHAPE,
        "lu_solve: pivots are %s of shape (%s), expected lu_factor's for factors of shape (%s)",
        td_dtype_name(pivots->dtype), td_tensor_shape_string(pivots), td_tensor_shape_string(lu));
  return td_system_shape(c);
}
/* Pivots come from the user: out of range they would move memory that is not ours. */
static td_status lu_solve_kernel(const td_call *c, const td_systems *s) {
  const td_kernels *kernels = td_k(c->out[0]->dtype);
  size_t count = s->batch * s->n;
  int64_t *pivots = td_alloc(count * sizeof *pivots);
  td_status status = pivots ? TD_OK : TD_ENOMEM;
  for (size_t i = 0; i < count && !status; i++) {
    pivots[i] = s->index[i] - 1;
    if (pivots[i] < 0 || pivots[i] >= (int64_t)s->n)
      status =
          td_fail(TD_EARG, "lu_solve: pivot %lld is outside 1..%zu", (long long)s->index[i], s->n);
  }
  if (!status)
    status = kernels->lu_solve(s->x, s->a, pivots, s->b, s->batch, s->n, s->k, c->a->i[0]);
  td_free(pivots, count * sizeof *pivots);
  return status;
}
static td_status lu_solve_run(td_call *c) { return td_on_systems(c, false, lu_solve_kernel); }
/* As solve's, then from dA to the factors of P·A = L·U: dL = tril₋₁(P·dA·Uᵀ), dU = triu(Lᵀ·P·dA) */
static void lu_solve_vjp(td_rule *r) {
  bool transpose = r->a->i[0];
  td_tensor *lu = r->in[0], *x = td_side(r, r->out[0]);
  td_tensor *db = td_do(&td_op_lu_solve, &(td_attrs){.i = {!transpose}}, 3, lu, r->in[1],
                        td_side(r, r->dout[0]));
  if (r->need[2]) r->din[2] = td_as_side(r, db);
  if (!r->need[0]) return;
  td_tensor *pivots = td_auto(td_tensor_contiguous(r->in[1]));
  td_tensor *da = transpose ? td_pairs(x, db, lu) : td_pairs(db, x, lu);
  td_tensor *pda = pivots ? td_matmul(row_exchanges(pivots, lu->dtype), da) : NULL;
  td_tensor *unit = td_banded(lu->dtype, rows_of(lu), rows_of(lu), 0, 1, 0);
  td_tensor *l = td_add(td_weighted(lu, 1, 0, 0), unit), *u = td_weighted(lu, 0, 1, 1);
  r->din[0] = td_add(td_weighted(td_matmul(pda, td_t(u)), -1, 0, 0),
                     td_weighted(td_matmul(td_t(l), pda), 0, -1, -1));
}
const td_op td_op_lu_solve = {
  .name = "lu_solve", .signature = "lu, pivots, b, transpose:bool=false", .shape = lu_solve_shape,
  .run = lu_solve_run, .vjp = lu_solve_vjp, .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1) | TD_KEEP_OUT(0),
  .doc = "x with a·x = b, or aᵀ·x = b (transpose), from lu_factor's factors of a"};

const td_op *const td_ops_linalg[] = {
  &td_op_solve, &td_op_inv, &td_op_solve_triangular, &td_op_det, &td_op_slogdet, &td_op_cholesky,
  &td_op_lu_factor, &td_op_lu_solve, &td_op_qr, &td_op_svd, &td_op_svdvals, &td_op_eigh,
  &td_op_eigvalsh, &td_op_lstsq, &td_op_pinv, &td_op_matrix_exp, NULL,
};
