/* Orthogonal factorisations and what is built on them (QR, singular values, symmetric eigenvalues,
 * least squares, pseudo-inverse), and the matrix exponential, over the last two dims.
 *
 * Where singular values or eigenvalues coincide, their vectors are not determined and have no
 * derivative. A gradient that needs one is NaN there; a gradient of the values alone, or of vectors
 * whose own values stand apart, is not. */
#include <math.h>
#include <string.h>
#include "ops/linalg.h"

static double rounding_of(td_dtype d) { return d == TD_F32 ? 0x1p-23 : 0x1p-52; }

/* x/gap. Where the gap is below ten roundings of the greatest of |values| (…×n): NaN, or 0 where
 * `used` is 0. */
static td_tensor *quotient(td_tensor *x, td_tensor *gap, td_tensor *values, td_tensor *used) {
  if (!values) return NULL;
  td_attrs last = {.i = {1 << (values->ndim - 1), 1}};
  td_tensor *sized[TD_MAX_OUT], *size = td_abs(values);
  td_do_all(&td_op_max, &last, 1, &size, sized);
  if (!sized[0]) return NULL;
  td_tensor *none =
      td_le(td_abs(gap), td_mul(td_num(10 * rounding_of(values->dtype)), td_column(sized[0])));
  td_tensor *there = td_where(td_eq(used, td_num(0)), td_num(0), td_num(NAN));
  return td_where(none, there, td_div(x, td_where(none, td_num(1), gap)));
}

/* Entry (i, j) is xⱼ − xᵢ, or xⱼ + xᵢ. */
static td_tensor *differences(td_tensor *x) { return td_sub(td_row(x), td_column(x)); }
static td_tensor *sums(td_tensor *x) { return td_add(td_row(x), td_column(x)); }

static td_tensor *skew(td_tensor *x) { return td_sub(x, td_t(x)); }
/* 0 off the diagonal where both (i, j) and (j, i) are, and on it. */
static td_tensor *magnitude(td_tensor *x) {
  return td_weighted(td_add(td_abs(x), td_abs(td_t(x))), 1, 0, 1);
}

/* ---- qr ---- */

static size_t fewest(const td_tensor *a) {
  return rows_of(a) < cols_of(a) ? rows_of(a) : cols_of(a);
}

static td_status qr_shape(td_call *c) {
  td_status s = td_want_matrices(c, 0);
  if (s) return s;
  const td_tensor *a = c->in[0];
  td_meta_batch(c, 0, 2, rows_of(a), fewest(a));
  td_meta_batch(c, 1, 2, fewest(a), cols_of(a));
  return TD_OK;
}
static td_status qr_kernel(td_call *c, const td_tensor *a) {
  return td_k(a->dtype)->qr(c->out[0]->data, c->out[1]->data, a->data, batch_of(a), rows_of(a),
                            cols_of(a));
}
static td_status qr_run(td_call *c) { return td_on_matrices(c, qr_kernel); }

/* (dQ + Q·sym(R·dRᵀ − dQᵀ·Q))·R⁻ᵀ, sym from the lower triangle: S. Walter, L. Lehmann, Algorithmic
 * differentiation of linear algebra functions with application in optimum experimental design
 * (2010). */
static td_tensor *tall_qr_rule(td_tensor *q, td_tensor *r, td_tensor *dq, td_tensor *dr) {
  td_tensor *m = td_sub(td_matmul(r, td_t(dr)), td_matmul(td_t(dq), q));
  td_tensor *sym = td_add(td_weighted(m, 1, 1, 0), td_t(td_weighted(m, 1, 0, 0)));
  return td_t(td_solve_triangular(r, td_t(td_add(dq, td_matmul(q, sym))), true, false, false));
}
/* A wide matrix is [X Y] = Q·[U V]: X = Q·U is square, and V = Qᵀ·Y; D. Roberts, L. Roberts, QR and
 * LQ decomposition matrix backpropagation algorithms for square, wide, and deep matrices (2020). */
static void qr_vjp(td_rule *rule) {
  td_tensor *q = rule->out[0], *r = rule->out[1], *dq = td_cotangent(rule, 0),
            *dr = td_cotangent(rule, 1);
  if (rule->in[0]->numel == 0 || !dq || !dr) return;
  size_t m = rows_of(r), n = cols_of(r);
  int last = r->ndim - 1;
  if (m == n) {
    rule->din[0] = tall_qr_rule(q, r, dq, dr);
    return;
  }
  td_tensor *u = td_narrow(r, last, 0, m), *v = td_narrow(r, last, m, n - m);
  td_tensor *du = td_narrow(dr, last, 0, m), *dv = td_narrow(dr, last, m, n - m);
  td_tensor *through_q = td_add(dq, td_matmul(q, td_matmul(v, td_t(dv))));
  td_tensor *parts[2] = {tall_qr_rule(q, u, through_q, du), td_matmul(q, dv)}, *joined[TD_MAX_OUT];
  td_do_all(&td_op_cat, &(td_attrs){.i = {last}}, 2, parts, joined);
  rule->din[0] = joined[0];
}
const td_op td_op_qr = {
  .name = "qr", .signature = "a", .nout = 2, .shape = qr_shape, .run = qr_run, .vjp = qr_vjp,
  .keep = TD_KEEP_OUT(0) | TD_KEEP_OUT(1),
  .doc = "Q (m×k, orthonormal columns) and R (k×n, upper) with a = Q·R, k = min(m, n)"};

/* ---- svd ---- */

static td_status svd_shape(td_call *c) {
  td_status s = td_want_matrices(c, 0);
  if (s) return s;
  const td_tensor *a = c->in[0];
  td_meta_batch(c, 0, 2, rows_of(a), fewest(a));
  td_meta_batch(c, 1, 1, fewest(a), 0);
  td_meta_batch(c, 2, 2, fewest(a), cols_of(a));
  return TD_OK;
}
static td_status svd_kernel(td_call *c, const td_tensor *a) {
  return td_k(a->dtype)->svd(c->out[0]->data, c->out[1]->data, c->out[2]->data, a->data,
                             batch_of(a), rows_of(a), cols_of(a));
}
static td_status svd_run(td_call *c) { return td_on_matrices(c, svd_kernel); }

/* J. Townsend, Differentiating the singular value decomposition (2016), with the two fractions of
 * 1/(s_j² − s_i²) apart: for A = skew(Uᵀ·dU) and B = skew(Vᵀ·dV),
 * U·((A + B)_ij/(2·(s_j − s_i)) + (A − B)_ij/(2·(s_j + s_i)) + dS)·Vᵀ,
 * and for tall and wide matrices also (I − U·Uᵀ)·dU·S⁻¹·Vᵀ and U·S⁻¹·dVᵀ·(I − V·Vᵀ). */
static void svd_vjp(td_rule *r) {
  td_tensor *u = r->out[0], *s = r->out[1], *vt = r->out[2], *du = td_cotangent(r, 0),
            *dvt = td_cotangent(r, 2);
  if (r->in[0]->numel == 0) return;
  td_tensor *inner = td_diagonal(td_cotangent(r, 1)), *whole, *half = td_num(0.5);
  if (!r->dout[0] && !r->dout[2]) {
    r->din[0] = td_matmul(u, td_matmul(inner, vt));
    return;
  }
  td_tensor *along_u = td_matmul(td_t(u), du), *along_v = td_matmul(vt, td_t(dvt));
  td_tensor *a = skew(along_u), *b = skew(along_v),
            *used = td_add(magnitude(along_u), magnitude(along_v));
  inner = td_add(inner, quotient(td_mul(half, td_add(a, b)), differences(s), s, used));
  inner = td_add(inner, quotient(td_mul(half, td_sub(a, b)), sums(s), s, used));
  whole = td_matmul(u, td_matmul(inner, vt));
  if (rows_of(u) > cols_of(u)) {
    td_tensor *across = td_sub(du, td_matmul(u, along_u));
    whole = td_add(whole, td_matmul(quotient(across, td_row(s), s, across), vt));
  }
  if (cols_of(vt) > rows_of(vt)) {
    td_tensor *across = td_sub(dvt, td_matmul(td_t(along_v), vt));
    whole = td_add(whole, td_matmul(u, quotient(across, td_column(s), s, across)));
  }
  r->din[0] = whole;
}
const td_op td_op_svd = {
  .name = "svd", .signature = "a", .nout = 3, .shape = svd_shape, .run = svd_run, .vjp = svd_vjp,
  .keep = TD_KEEP_OUT(0) | TD_KEEP_OUT(1) | TD_KEEP_OUT(2),
  .doc = "U (m×k), S (k, descending) and Vᵀ (k×n) with a = U·diag(S)·Vᵀ, k = min(m, n)"};

static td_status svdvals_shape(td_call *c) {
  td_status s = td_want_matrices(c, 0);
  if (!s) td_meta_batch(c, 0, 1, fewest(c->in[0]), 0);
  return s;
}
static td_status svdvals_kernel(td_call *c, const td_tensor *a) {
  return td_k(a->dtype)->svd(NULL, c->out[0]->data, NULL, a->data, batch_of(a), rows_of(a),
                             cols_of(a));
}
static td_status svdvals_run(td_call *c) { return td_on_matrices(c, svdvals_kernel); }
static void svdvals_vjp(td_rule *r) {
  td_tensor *usv[TD_MAX_OUT];
  td_do_all(&td_op_svd, NULL, 1, r->in, usv);
  if (usv[0]) r->din[0] = td_matmul(td_mul(usv[0], td_row(r->dout[0])), usv[2]);
}
const td_op td_op_svdvals = {
  .name = "svdvals", .signature = "a", .shape = svdvals_shape, .run = svdvals_run,
  .vjp = svdvals_vjp, .keep = TD_KEEP_IN(0),
  .doc = "singular values, descending"};

/* ---- eigh ---- */

static td_status eigh_shape(td_call *c) {
  td_status s = td_want_square(c, 0);
  if (s) return s;
  td_meta_batch(c, 0, 1, rows_of(c->in[0]), 0);
  if (c->op == &td_op_eigh) td_meta_like(c, 1, c->in[0]);
  return TD_OK;
}
static td_status eigh_run(td_call *c) {
  td_tensor *a = td_symmetric_part(c->in[0]);
  if (!a) return td_last_status();
  void *vectors = c->op == &td_op_eigh ? c->out[1]->data : NULL;
  td_status s = td_k(a->dtype)->eigh(c->out[0]->data, vectors, a->data, batch_of(a), rows_of(a));
  td_tensor_release(a);
  return td_named_after(c, s);
}
/* Giles (2008), section 3.1, for symmetric matrices: V·(dW + skew(Vᵀ·dV)_ij/(2·(w_j − w_i)))·Vᵀ. */
static void eigh_vjp(td_rule *r) {
  td_tensor *w = r->out[0], *v = r->out[1], *inner = td_diagonal(td_cotangent(r, 0));
  if (r->in[0]->numel == 0) return;
  if (r->dout[1]) {
    td_tensor *along = td_matmul(td_t(v), r->dout[1]), *half = td_mul(td_num(0.5), skew(along));
    inner = td_add(inner, quotient(half, differences(w), w, magnitude(along)));
  }
  r->din[0] = td_matmul(v, td_matmul(inner, td_t(v)));
}
const td_op td_op_eigh = {
  .name = "eigh", .signature = "a", .nout = 2, .shape = eigh_shape, .run = eigh_run,
  .vjp = eigh_vjp, .keep = TD_KEEP_OUT(0) | TD_KEEP_OUT(1),
  .doc = "eigenvalues (ascending) and eigenvectors (columns) of a symmetric matrix; only a's "
         "symmetric part counts"};
static void eigvalsh_vjp(td_rule *r) {
  td_tensor *wv[TD_MAX_OUT];
  td_do_all(&td_op_eigh, NULL, 1, r->in, wv);
  if (wv[0]) r->din[0] = td_matmul(td_mul(wv[1], td_row(r->dout[0])), td_t(wv[1]));
}
const td_op td_op_eigvalsh = {
  .name = "eigvalsh", .signature = "a", .shape = eigh_shape, .run = eigh_run, .vjp = eigvalsh_vjp,
  .keep = TD_KEEP_IN(0),
  .doc = "eigenvalues of a symmetric matrix, ascending; only a's symmetric part counts"};

/* ---- pinv and lstsq ---- */

static td_status pinv_shape(td_call *c) {
  td_status s = td_want_matrices(c, 0);
  if (!s) td_meta_batch(c, 0, 2, cols_of(c->in[0]), rows_of(c->in[0]));
  return s;
}
/* Singular values up to this times the greatest count as 0. */
static double cutoff(const td_call *c, size_t m, size_t n) {
  double given = c->a->f[0];
  return given >= 0 ? given : rounding_of(c->out[0]->dtype) * (double)(m > n ? m : n);
}
/* Turns the rows of each …×k×n matrix vt to those of diag(s)⁺·Vᵀ. */
static void divide_rows(td_tensor *vt, const td_tensor *s, double rtol) {
  size_t k = rows_of(vt), n = cols_of(vt);
  for (size_t row = 0; row < s->numel; row++) {
    double greatest = td_tensor_get(s, row / k * k), own = td_tensor_get(s, row);
    double factor = own > rtol * greatest ? 1 / own : 0;
    for (size_t j = 0; j < n; j++)
      td_tensor_set(vt, row * n + j, factor * td_tensor_get(vt, row * n + j));
  }
}
/* V·diag(S)⁺·Uᵀ */
static td_status pinv_kernel(td_call *c, const td_tensor *a) {
  const td_kernels *kernels = td_k(a->dtype);
  size_t m = rows_of(a), n = cols_of(a), k = fewest(a), batch = batch_of(a);
  td_tensor *u = td_tensor_new(a->dtype, 3, (const size_t[]){batch, m, k});
  td_tensor *s = td_tensor_new(a->dtype, 2, (const size_t[]){batch, k});
  td_tensor *vt = td_tensor_new(a->dtype, 3, (const size_t[]){batch, k, n});
  td_status status = u && s && vt ? TD_OK : TD_ENOMEM;
  if (!status && a->numel) status = kernels->svd(u->data, s->data, vt->data, a->data, batch, m, n);
  if (!status && a->numel) {
    divide_rows(vt, s, cutoff(c, m, n));
    kernels->matmul(c->out[0]->data, vt->data, u->data, n, m, k, n, k, m, true, true, batch, k * n,
                    m * k, n * m, 1, 0);
  }
  td_tensor_release(u);
  td_tensor_release(s);
  td_tensor_release(vt);
  return status;
}
static td_status pinv_run(td_call *c) { return td_on_matrices(c, pinv_kernel); }

/* G. H. Golub, V. Pereyra, The differentiation of pseudo-inverses and nonlinear least squares
 * problems whose variables separate, SIAM J. Numer. Anal. 10 (1973), eq. 4.12, for constant rank;
 * with P = a⁺, R = I − a·P and C = I − P·a: dP = −P·da·P + P·Pᵀ·daᵀ·R + C·daᵀ·Pᵀ·P. The products
 * are ordered so that none is larger than it need be. */
static void pinv_vjp(td_rule *r) {
  td_tensor *a = r->in[0], *p = r->out[0], *g = td_t(r->dout[0]);  /* g is m×n */
  td_tensor *pt = td_t(p), *own, *left, *right;
  if (a->numel == 0) return;
  if (rows_of(a) >= cols_of(a)) {
    td_tensor *k = td_matmul(p, g);
    own = td_matmul(k, p);
    left = td_matmul(td_sub(g, td_matmul(a, k)), td_matmul(p, pt));
    right = td_matmul(pt, td_sub(k, td_matmul(td_matmul(k, p), a)));
  } else {
    td_tensor *k = td_matmul(g, p), *kpt = td_matmul(k, pt);
    own = td_matmul(p, k);
    left = td_sub(kpt, td_matmul(a, td_matmul(p, kpt)));
    right = td_matmul(td_matmul(pt, p), td_sub(g, td_matmul(k, a)));
  }
  r->din[0] = td_sub(td_add(left, right), td_t(own));
}
const td_op td_op_pinv = {
  .name = "pinv", .signature = "a, rtol:num=-1", .shape = pinv_shape, .run = pinv_run,
  .vjp = pinv_vjp, .keep = TD_KEEP_IN(0) | TD_KEEP_OUT(0),
  .doc = "Moore–Penrose inverse; singular values up to rtol (rounding·max(m, n)) times the "
         "greatest count as 0, and the derivative is that of constant rank"};

static td_status lstsq_shape(td_call *c) {
  td_status s = td_want_matrices(c, 0);
  return s ? s : td_system_shape(c);
}
static td_status lstsq_kernel(const td_call *c, const td_systems *s) {
  double rtol = cutoff(c, s->m, s->n);
  return td_k(c->out[0]->dtype)->lstsq(s->x, NULL, s->a, s->b, s->batch, s->m, s->n, s->k, rtol);
}
static td_status lstsq_run(td_call *c) { return td_on_systems(c, false, lstsq_kernel); }
/* x = a⁺·b, by pinv's formula: db = Pᵀ·dx, da = −db·xᵀ + (b − a·x)·(P·db)ᵀ + Pᵀ·x·(dx − P·a·dx)ᵀ */
static void lstsq_vjp(td_rule *r) {
  td_tensor *a = r->in[0], *b = td_side(r, r->in[1]);
  td_tensor *x = td_side(r, r->out[0]), *dx = td_side(r, r->dout[0]);
  td_tensor *p = td_do(&td_op_pinv, r->a, 1, a), *pt = p ? td_t(p) : NULL, *db = td_matmul(pt, dx);
  if (r->need[1]) r->din[1] = td_as_side(r, db);
  if (!r->need[0]) return;
  td_tensor *across = td_sub(dx, td_matmul(p, td_matmul(a, dx)));
  td_tensor *fit = td_pairs(td_neg(db), x, a);
  td_tensor *rest = td_pairs(td_sub(b, td_matmul(a, x)), td_matmul(p, db), a);
  td_tensor *free_part = td_pairs(td_matmul(pt, x), across, a);
  r->din[0] = td_add(fit, td_add(rest, free_part));
}
const td_op td_op_lstsq = {
  .name = "lstsq", .signature = "a, b, rtol:num=-1", .shape = lstsq_shape, .run = lstsq_run,
  .vjp = lstsq_vjp, .keep = TD_KEEP_IN(0) | TD_KEEP_IN(1) | TD_KEEP_OUT(0),
  .doc = "the shortest x among those with least |a·x − b|; rtol as pinv's; b is a vector or a "
         "matrix of columns; the derivative is that of constant rank"};

/* ---- matrix_exp ---- */

static td_status matrix_exp_shape(td_call *c) {
  td_status s = td_want_square(c, 0);
  if (!s) td_meta_like(c, 0, c->in[0]);
  return s;
}
static td_status matrix_exp_kernel(td_call *c, const td_tensor *a) {
  return td_k(a->dtype)->expm(c->out[0]->data, a->data, batch_of(a), rows_of(a));
}
static td_status matrix_exp_run(td_call *c) { return td_on_matrices(c, matrix_exp_kernel); }

/* a and b joined along the dim `back` before the last (0: side by side). */
static td_tensor *joined(td_tensor *a, td_tensor *b, int back) {
  td_tensor *parts[2] = {a, b}, *out[TD_MAX_OUT] = {NULL};
  if (a) td_do_all(&td_op_cat, &(td_attrs){.i = {a->ndim - 1 - back}}, 2, parts, out);
  return out[0];
}
/* The Fréchet derivative L(aᵀ, dy) stands in the corner of exp([[aᵀ, dy], [0, aᵀ]]): R. Mathias, A
 * chain rule for matrix functions and applications, SIAM J. Matrix Anal. Appl. 17 (1996). It is
 * linear in dy, which goes in with norm 1, so that a large cotangent does not spoil the scaling of
 * a. */
static void matrix_exp_vjp(td_rule *r) {
  td_tensor *at = td_t(r->in[0]), *dy = r->dout[0];
  if (!at || at->numel == 0) return;
  size_t n = rows_of(at);
  int last = at->ndim - 1;
  td_tensor *norm = td_sum(td_abs(dy), 3u << (last - 1), true);
  norm = norm ? td_where(td_eq(norm, td_num(0)), td_num(1), norm) : NULL;
  norm = norm ? td_auto(td_tensor_alias(norm)) : NULL;  /* a constant */
  td_tensor *zero = td_zeros_like(at);
  td_tensor *block = joined(joined(at, td_div(dy, norm), 0), joined(zero, at, 0), 1);
  td_tensor *exp = td_do(&td_op_matrix_exp, NULL, 1, block);
  r->din[0] = exp ? td_mul(norm, td_narrow(td_narrow(exp, last - 1, 0, n), last, n, n)) : NULL;
}
const td_op td_op_matrix_exp = {
  .name = "matrix_exp", .signature = "a", .shape = matrix_exp_shape, .run = matrix_exp_run,
  .vjp = matrix_exp_vjp, .keep = TD_KEEP_IN(0),
  .doc = "exponential of a square matrix"};
