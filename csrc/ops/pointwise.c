/* Element-wise operations. Each is one line: name, element type of the result, what the tape keeps, the derivative
 * as an expression in x, y (operands a, b, c), the result y and its cotangent dy, and a sentence for the manual. */
#include <math.h>
#include <string.h>
#include "ops/ops.h"

/* Element type of the result. */
enum {
  SAME,   /* as the operands promote */
  REAL,   /* the same, integers become float32 */
  TRUTH,  /* uint8, 0 or 1 */
  CHOOSE  /* as the operands after the first promote */
};

/* Has the table of int64_t this operation? */
static bool has_integers(int pw) {
#define REALS_ONLY(name, arity) [TD_PW_##name] = false,
#define INTEGERS_TOO(name, arity) [TD_PW_##name] = true,
  static const bool has[TD_PW_OP_COUNT] = {TD_PW_OPS(REALS_ONLY, INTEGERS_TOO)};
#undef REALS_ONLY
#undef INTEGERS_TOO
  return has[pw - 1];
}

td_dtype td_pw_type(const td_call *c) {
  int skip = c->op->kind == CHOOSE;
  td_dtype d = td_promote(c->in + skip, c->nin - skip);
  return !td_dtype_is_real(d) && (c->op->kind == REAL || !has_integers(c->op->pw)) ? TD_F32 : d;
}

static td_status pointwise_shape(td_call *c) {
  td_meta *m = &c->meta[0];
  m->dtype = c->op->kind == TRUTH ? TD_U8 : td_pw_type(c);
  return td_broadcast(c, &m->ndim, m->shape);
}

/* Are all operands contiguous and of the result's shape, or of one element? Then one dim will do. */
static bool is_flat(const td_call *c) {
  const td_tensor *y = c->out[0];
  if (!td_tensor_is_contiguous(y)) return false;
  for (int i = 0; i < c->nin; i++) {
    const td_tensor *t = c->in[i];
    if (t->numel != 1 && (t->numel != y->numel || !td_tensor_is_contiguous(t))) return false;
  }
  return true;
}

/* The kernel over operands as they lie. */
static td_status run_kernel(td_call *c) {
  td_tensor *y = c->out[0];
  td_pw p;
  bool flat = is_flat(c);
  p.ndim = flat ? 1 : y->ndim;
  p.nin = c->nin;
  p.nout = 1;
  p.nstep = 1;
  p.step[0] = (td_pw_step){.op = (uint8_t)(c->op->pw - 1), .dst = (uint8_t)c->nin, .src = {0, 1, 2}};
  p.out_reg[0] = (uint8_t)c->nin;
  if (y->numel == 0) return TD_OK;
  if (flat) {
    p.shape[0] = y->numel;
    p.out[0].stride[0] = 1;
  } else {
    memcpy(p.shape, y->shape, sizeof(size_t) * (size_t)y->ndim);
    for (int k = 0; k < y->ndim; k++) p.out[0].stride[k] = (ptrdiff_t)y->stride[k];
  }
  p.out[0].data = y->data;
  p.out[0].dtype = y->dtype;
  for (int i = 0; i < c->nin; i++) {
    const td_tensor *t = c->in[i];
    td_pw_operand *o = &p.in[i];
    o->data = t->data;
    o->dtype = t->dtype;
    int lead = y->ndim - t->ndim;
    if (flat)
      o->stride[0] = t->numel == 1 ? 0 : 1;
    else
      for (int k = 0; k < y->ndim; k++)
        o->stride[k] = k < lead || t->shape[k - lead] == 1 ? 0 : (ptrdiff_t)t->stride[k - lead];
  }
  td_k(c->op->kind == TRUTH ? td_pw_type(c) : c->meta[0].dtype)->pointwise(&p);
  return TD_OK;
}

/* Is t a large operand of y's shape that runs along another dim than y? Then the kernel would gather it element by
 * element, and a copy that goes tile by tile is better. */
static bool runs_across(const td_tensor *t, const td_tensor *y) {
  enum { LARGE = 1 << 14 };
  if (t->numel < LARGE || t->numel != y->numel || t->ndim < 2 || t->stride[t->ndim - 1] < 4 ||
      y->stride[y->ndim - 1] != 1)
    return false;
  for (int i = 0; i < t->ndim - 1; i++)
    if (t->stride[i] == 1 && t->shape[i] >= 4) return true;
  return false;
}

static td_status pointwise_run(td_call *c) {
  td_tensor *in[3] = {NULL, NULL, NULL}, *own[3] = {NULL, NULL, NULL};
  td_status s = TD_OK;
  bool any = false;
  for (int i = 0; i < c->nin; i++) {
    in[i] = c->in[i];
    if (!runs_across(in[i], c->out[0])) continue;
    any = true;
    in[i] = own[i] = td_tensor_clone(in[i]);
    if (!own[i]) s = td_last_status();
  }
  if (!any) return run_kernel(c);
  td_call straight = *c;
  straight.in = in;
  if (!s) s = run_kernel(&straight);
  for (int i = 0; i < c->nin; i++) td_tensor_release(own[i]);
  return s;
}

#define X TD_KEEP_IN(0)
#define A TD_KEEP_IN(0)
#define B TD_KEEP_IN(1)
#define C TD_KEEP_IN(2)
#define Y TD_KEEP_OUT(0)

#define ENTRY(name_, signature_, kind_, keep_, rule_, doc_)                                            \
  const td_op td_op_##name_ = {.name = #name_, .signature = signature_, .doc = doc_, .shape = pointwise_shape, \
                               .run = pointwise_run, .vjp = rule_, .keep = keep_,                       \
                               .pw = 1 + TD_PW_##name_, .kind = kind_};
#define UNARY(name_, kind_, keep_, dx_, doc_)                                                           \
  static void name_##_vjp(td_rule *r) {                                                                  \
    td_tensor *x = r->in[0], *y = r->out[0], *dy = r->dout[0];                                           \
    (void)x, (void)y;                                                                                    \
    r->din[0] = dx_;                                                                                     \
  }                                                                                                      \
  ENTRY(name_, "x", kind_, keep_, name_##_vjp, doc_)
#define BINARY(name_, kind_, keep_, da_, db_, doc_)                                                     \
  static void name_##_vjp(td_rule *r) {                                                                  \
    td_tensor *a = r->in[0], *b = r->in[1], *y = r->out[0], *dy = r->dout[0];                            \
    (void)a, (void)b, (void)y;                                                                           \
    if (r->need[0]) r->din[0] = da_;                                                                     \
    if (r->need[1]) r->din[1] = db_;                                                                     \
  }                                                                                                      \
  ENTRY(name_, "a, b", kind_, keep_, name_##_vjp, doc_)
#define FLAT(name_, signature_, kind_, doc_) ENTRY(name_, signature_, kind_, 0, NULL, doc_)

static td_tensor *n(double v) { return td_num(v); }

/* dy·(s + x·s·(1 − s)), s = sigmoid x */
static td_tensor *silu_slope(td_tensor *x, td_tensor *dy) {
  if (!td_recording) return td_silu_grad(x, dy);
  td_tensor *s = td_sigmoid(x);
  return td_mul(dy, td_mul(s, td_add(n(1), td_mul(x, td_sub(n(1), s)))));
}

/* dy·(Φ(x) + x·φ(x)), Φ and φ of the normal distribution */
static td_tensor *gelu_slope(td_tensor *x, td_tensor *dy) {
  if (!td_recording) return td_gelu_grad(x, dy);
  td_tensor *cdf = td_mul(n(0.5), td_add(n(1), td_erf(td_mul(x, n(M_SQRT1_2)))));
  td_tensor *pdf = td_mul(n(M_2_SQRTPI * M_SQRT1_2 / 2), td_exp(td_mul(n(-0.5), td_square(x))));
  return td_mul(dy, td_add(cdf, td_mul(x, pdf)));
}

/* gelu by tanh: y = x/2·(1 + t), t = tanh(u), u = √(2/π)(x + 0.044715 x³) */
static td_tensor *gelu_tanh_slope(td_tensor *x, td_tensor *dy) {
  if (!td_recording) return td_gelu_tanh_grad(x, dy);
  const double k = M_2_SQRTPI * M_SQRT1_2, q = 0.044715;
  td_tensor *x2 = td_square(x);
  td_tensor *t = td_tanh(td_mul(td_mul(n(k), x), td_add(n(1), td_mul(n(q), x2))));
  td_tensor *du = td_mul(n(k), td_add(n(1), td_mul(n(3 * q), x2)));
  td_tensor *dt = td_mul(td_sub(n(1), td_square(t)), du);
  return td_mul(dy, td_mul(n(0.5), td_add(td_add(n(1), t), td_mul(x, dt))));
}

/* dy where a beats b, half of it where they are equal */
static td_tensor *winner(td_tensor *a, td_tensor *b, td_tensor *dy) {
  return td_mul(dy, td_mul(n(0.5), td_add(td_cast(td_gt(a, b), dy->dtype), td_cast(td_ge(a, b), dy->dtype))));
}

/* b·aᵇ⁻¹, and 0 where b = 0 even at a = 0 */
static td_tensor *pow_slope(td_tensor *a, td_tensor *b) {
  if (b && b->ndim == 0 && !b->node && b->storage && td_tensor_is_known(b)) {  /* the usual constant exponents */
    double p = td_tensor_get(b, 0);
    if (p == 2) return td_mul(n(2), a);
    if (p == 3) return td_mul(n(3), td_square(a));
    if (p == 0) return n(0);
    return td_mul(n(p), td_pow(a, n(p - 1)));
  }
  td_tensor *slope = td_mul(b, td_pow(a, td_sub(b, n(1))));
  return td_where(td_eq(b, n(0)), n(0), slope);
}

/* aᵇ·log a, and 0 at a = 0 where b ≥ 0 */
static td_tensor *pow_log(td_tensor *a, td_tensor *b, td_tensor *y) {
  td_tensor *zero = td_logical_and(td_eq(a, n(0)), td_ge(b, n(0)));
  return td_where(zero, n(0), td_mul(y, td_log(td_where(zero, n(1), a))));
}

UNARY(neg, SAME, 0, td_neg(dy), "−x")
UNARY(abs, SAME, X, td_mul(dy, td_sign(x)), "absolute value; the derivative is 0 at 0")
FLAT(sign, "x", SAME, "−1, 0 or 1")
UNARY(square, SAME, X, td_mul(dy, td_mul(n(2), x)), "x²")
UNARY(exp, REAL, Y, td_mul(dy, y), "eˣ")
UNARY(expm1, REAL, Y, td_mul(dy, td_add(y, n(1))), "eˣ − 1, accurate near 0")
UNARY(log, REAL, X, td_div(dy, x), "natural logarithm")
UNARY(log1p, REAL, X, td_div(dy, td_add(x, n(1))), "log(1 + x), accurate near 0")
UNARY(log2, REAL, X, td_div(dy, td_mul(x, n(M_LN2))), "logarithm to base 2")
UNARY(log10, REAL, X, td_div(dy, td_mul(x, n(M_LN10))), "logarithm to base 10")
UNARY(sqrt, REAL, Y, td_div(dy, td_mul(n(2), y)), "square root")
UNARY(rsqrt, REAL, Y, td_mul(dy, td_mul(n(-0.5), td_mul(y, td_square(y)))), "1/√x")
UNARY(reciprocal, REAL, Y, td_neg(td_mul(dy, td_square(y))), "1/x")
UNARY(sin, REAL, X, td_mul(dy, td_cos(x)), "sine of radians")
UNARY(cos, REAL, X, td_neg(td_mul(dy, td_sin(x))), "cosine of radians")
UNARY(tan, REAL, Y, td_mul(dy, td_add(n(1), td_square(y))), "tangent of radians")
UNARY(asin, REAL, X, td_mul(dy, td_rsqrt(td_sub(n(1), td_square(x)))), "inverse sine")
UNARY(acos, REAL, X, td_neg(td_mul(dy, td_rsqrt(td_sub(n(1), td_square(x))))), "inverse cosine")
UNARY(atan, REAL, X, td_div(dy, td_add(n(1), td_square(x))), "inverse tangent")
UNARY(sinh, REAL, X, td_mul(dy, td_cosh(x)), "hyperbolic sine")
UNARY(cosh, REAL, X, td_mul(dy, td_sinh(x)), "hyperbolic cosine")
UNARY(tanh, REAL, Y, td_mul(dy, td_sub(n(1), td_square(y))), "hyperbolic tangent")
UNARY(erf, REAL, X, td_mul(dy, td_mul(n(M_2_SQRTPI), td_exp(td_neg(td_square(x))))), "error function")
UNARY(erfc, REAL, X, td_mul(dy, td_mul(n(-M_2_SQRTPI), td_exp(td_neg(td_square(x))))), "1 − erf x")
UNARY(sigmoid, REAL, Y, td_mul(dy, td_mul(y, td_sub(n(1), y))), "1/(1 + e⁻ˣ)")
UNARY(silu, REAL, X, silu_slope(x, dy), "x·sigmoid x")
UNARY(gelu, REAL, X, gelu_slope(x, dy), "x·Φ(x), Φ the normal distribution function")
UNARY(gelu_tanh, REAL, X, gelu_tanh_slope(x, dy), "the tanh approximation of gelu")
UNARY(softplus, REAL, X, td_mul(dy, td_sigmoid(x)), "log(1 + eˣ)")
UNARY(log_sigmoid, REAL, X, td_mul(dy, td_sigmoid(td_neg(x))), "log sigmoid x")
UNARY(relu, SAME, X, td_relu_grad(x, dy), "max(x, 0); the derivative is 0 at 0")
FLAT(floor, "x", REAL, "greatest integer ≤ x")
FLAT(ceil, "x", REAL, "least integer ≥ x")
FLAT(round, "x", REAL, "nearest integer, ties to even")
FLAT(trunc, "x", REAL, "integer part, towards 0")
FLAT(isnan, "x", TRUTH, "is it NaN?")
FLAT(isinf, "x", TRUTH, "is it ±∞?")
FLAT(isfinite, "x", TRUTH, "is it neither NaN nor ±∞?")
FLAT(logical_not, "x", TRUTH, "is it 0?")

BINARY(add, SAME, 0, dy, dy, "a + b")
BINARY(sub, SAME, 0, dy, td_neg(dy), "a − b")
BINARY(mul, SAME, A | B, td_mul(dy, b), td_mul(dy, a), "a·b, element by element")
BINARY(div, REAL, B | Y, td_div(dy, b), td_neg(td_mul(dy, td_div(y, b))), "a/b")
BINARY(pow, REAL, A | B | Y, td_mul(dy, pow_slope(a, b)), td_mul(dy, pow_log(a, b, y)), "aᵇ")
BINARY(atan2, REAL, A | B, td_div(td_mul(dy, b), td_add(td_square(a), td_square(b))),
       td_neg(td_div(td_mul(dy, a), td_add(td_square(a), td_square(b)))),
       "angle of the point (b, a), in (−π, π]")
FLAT(floor_div, "a, b", SAME, "⌊a/b⌋; 0 for integers divided by 0")
BINARY(mod, SAME, A | B, dy, td_neg(td_mul(dy, td_floor_div(a, b))), "a − b·⌊a/b⌋, of b's sign as in Lua")
FLAT(eq, "a, b", TRUTH, "a = b")
FLAT(ne, "a, b", TRUTH, "a ≠ b")
FLAT(lt, "a, b", TRUTH, "a < b")
FLAT(le, "a, b", TRUTH, "a ≤ b")
FLAT(gt, "a, b", TRUTH, "a > b")
FLAT(ge, "a, b", TRUTH, "a ≥ b")
FLAT(logical_and, "a, b", TRUTH, "a ≠ 0 and b ≠ 0")
FLAT(logical_or, "a, b", TRUTH, "a ≠ 0 or b ≠ 0")
FLAT(logical_xor, "a, b", TRUTH, "exactly one of a, b is not 0")

/* The larger and smaller of two; `max` and `min` are the reductions. */
static void maximum_vjp(td_rule *r) {
  td_tensor *a = r->in[0], *b = r->in[1], *dy = r->dout[0];
  if (r->need[0]) r->din[0] = winner(a, b, dy);
  if (r->need[1]) r->din[1] = winner(b, a, dy);
}
static void minimum_vjp(td_rule *r) {
  td_tensor *a = r->in[0], *b = r->in[1], *dy = r->dout[0];
  if (r->need[0]) r->din[0] = winner(b, a, dy);
  if (r->need[1]) r->din[1] = winner(a, b, dy);
}
const td_op td_op_maximum = {.name = "maximum", .signature = "a, b", .shape = pointwise_shape, .run = pointwise_run,
                          .vjp = maximum_vjp, .keep = A | B, .pw = 1 + TD_PW_max, .kind = SAME,
                          .doc = "the larger of a and b; equal ones share the gradient"};
const td_op td_op_minimum = {.name = "minimum", .signature = "a, b", .shape = pointwise_shape, .run = pointwise_run,
                          .vjp = minimum_vjp, .keep = A | B, .pw = 1 + TD_PW_min, .kind = SAME,
                          .doc = "the smaller of a and b; equal ones share the gradient"};

/* dy·f'(x) in one pass. These are the derivatives' own kernels; those whose derivative is not zero almost everywhere
 * are used only where no further derivative is wanted. */
FLAT(silu_grad, "x, dy", REAL, "dy·silu'(x)")
FLAT(gelu_grad, "x, dy", REAL, "dy·gelu'(x)")
FLAT(gelu_tanh_grad, "x, dy", REAL, "dy·gelu_tanh'(x)")
static void relu_grad_vjp(td_rule *r) {
  if (r->need[1]) r->din[1] = td_relu_grad(r->in[0], r->dout[0]);
}
ENTRY(relu_grad, "x, dy", SAME, X, relu_grad_vjp, "dy where x > 0, else 0")

static void where_vjp(td_rule *r) {
  td_tensor *dy = r->dout[0];
  if (r->need[1]) r->din[1] = td_where(r->in[0], dy, n(0));
  if (r->need[2]) r->din[2] = td_where(r->in[0], n(0), dy);
}
ENTRY(where, "condition, a, b", CHOOSE, TD_KEEP_IN(0), where_vjp, "a where the condition is not 0, else b")

static void fma_vjp(td_rule *r) {
  td_tensor *dy = r->dout[0];
  if (r->need[0]) r->din[0] = td_mul(dy, r->in[1]);
  if (r->need[1]) r->din[1] = td_mul(dy, r->in[0]);
  if (r->need[2]) r->din[2] = dy;
}
ENTRY(fma, "a, b, c", REAL, A | B, fma_vjp, "a·b + c")

static void clamp_vjp(td_rule *r) {
  td_tensor *x = r->in[0], *lo = r->in[1], *hi = r->in[2], *dy = r->dout[0];
  if (r->need[0]) r->din[0] = td_where(td_logical_and(td_ge(x, lo), td_le(x, hi)), dy, n(0));
  if (r->need[1]) r->din[1] = td_where(td_lt(x, lo), dy, n(0));
  if (r->need[2]) r->din[2] = td_where(td_gt(x, hi), dy, n(0));
}
ENTRY(clamp, "x, lo, hi", SAME, A | B | C, clamp_vjp,
      "x limited to [lo, hi]; the gradient passes inside, ends included")

/* Conversion to another element type. */
static td_status cast_shape(td_call *c) {
  td_meta_set(c, 0, (td_dtype)c->a->i[0], c->in[0]->ndim, c->in[0]->shape);
  return TD_OK;
}
static td_status cast_run(td_call *c) { return td_tensor_copy(c->out[0], c->in[0]); }
static void cast_vjp(td_rule *r) {
  if (td_dtype_is_real((td_dtype)r->a->i[0])) r->din[0] = r->dout[0];
}
const td_op td_op_cast = {.name = "to", .signature = "x, dtype:dtype", .shape = cast_shape, .run = cast_run,
                          .vjp = cast_vjp, .doc = "the same values in another element type"};

/* Σ coef[i]·xᵢ in one pass: operand 1 holds the coefficients (one dim, constants), the others have one shape and
 * type. */
static td_status lincomb_shape(td_call *c) {
  const td_tensor *coef = c->in[0];
  if (c->nin < 2 || coef->ndim != 1 || coef->numel != (size_t)c->nin - 1 || coef->dtype != TD_F64)
    return td_fail(TD_ESHAPE, "lincomb: coefficients are %s of shape (%s), expected %d of float64 for as many tensors",
                   td_dtype_name(coef->dtype), td_tensor_shape_string(coef), c->nin - 1);
  if (coef->node && td_recording)
    return td_fail(TD_EGRAD, "lincomb: the coefficients require a gradient, expected constants; use mul and add");
  for (int i = 1; i < c->nin; i++) {
    td_status s = td_want_real(c, i);
    if (s) return s;
    if (!td_tensor_same_shape(c->in[i], c->in[1]) || c->in[i]->dtype != c->in[1]->dtype)
      return td_fail(TD_ESHAPE, "lincomb: tensor %d is %s of shape (%s), the first %s of (%s)", i,
                     td_dtype_name(c->in[i]->dtype), td_tensor_shape_string(c->in[i]), td_dtype_name(c->in[1]->dtype),
                     td_tensor_shape_string(c->in[1]));
  }
  td_meta_like(c, 0, c->in[1]);
  return TD_OK;
}
static td_status lincomb_run(td_call *c) {
  enum { MOST = 32 };
  td_tensor *flat[MOST];
  const void *x[MOST];
  int n = c->nin - 1;
  if (n > MOST) return td_fail(TD_EARG, "lincomb: %d tensors, expected at most %d", n, MOST);
  td_tensor *coef = td_tensor_contiguous(c->in[0]);
  td_status s = coef ? TD_OK : td_last_status();
  int made = 0;
  for (; made < n && !s; made++) {
    flat[made] = td_tensor_contiguous(c->in[made + 1]);
    if (!flat[made]) {
      s = td_last_status();
      break;
    }
    x[made] = flat[made]->data;
  }
  if (!s && c->out[0]->numel)
    td_k(c->out[0]->dtype)->lincomb(c->out[0]->data, NULL, (size_t)n, (const double *)(const void *)coef->data, x,
                                    c->out[0]->numel);
  while (made-- > 0) td_tensor_release(flat[made]);
  td_tensor_release(coef);
  return s;
}
static void lincomb_vjp(td_rule *r) {
  for (int i = 1; i < r->nin; i++) {
    if (!r->need[i]) continue;
    td_tensor *coef = r->in[0], *dy = r->dout[0];
    if (coef->storage && !td_tensor_is_known(coef)) {  /* of a captured function: read when it runs */
      td_tensor *one = td_reshape(td_narrow(coef, 0, (size_t)i - 1, 1), 0, NULL);
      r->din[i] = td_mul(dy, td_cast(one, dy->dtype));
      continue;
    }
    double c = td_tensor_get(coef, (size_t)(i - 1) * coef->stride[0]);
    r->din[i] = c == 1 ? dy : td_mul(dy, td_num(c));
  }
}
const td_op td_op_lincomb = {.name = "lincomb", .signature = "tensors...", .shape = lincomb_shape, .run = lincomb_run,
                             .vjp = lincomb_vjp, .keep = TD_KEEP_IN(0),
                             .doc = "Σ cᵢ·xᵢ in one pass: {c, x₁, x₂, …} with c the constants in one dim of float64"};

const td_op *const td_ops_pointwise[] = {
  &td_op_neg, &td_op_abs, &td_op_sign, &td_op_square, &td_op_exp, &td_op_expm1, &td_op_log, &td_op_log1p, &td_op_log2,
  &td_op_log10, &td_op_sqrt, &td_op_rsqrt, &td_op_reciprocal, &td_op_sin, &td_op_cos, &td_op_tan, &td_op_asin,
  &td_op_acos, &td_op_atan, &td_op_sinh, &td_op_cosh, &td_op_tanh, &td_op_erf, &td_op_erfc, &td_op_sigmoid,
  &td_op_silu, &td_op_gelu, &td_op_gelu_tanh, &td_op_softplus, &td_op_log_sigmoid, &td_op_relu, &td_op_floor,
  &td_op_ceil, &td_op_round, &td_op_trunc, &td_op_isnan, &td_op_isinf, &td_op_isfinite, &td_op_logical_not,
  &td_op_add, &td_op_sub, &td_op_mul, &td_op_div, &td_op_pow, &td_op_atan2, &td_op_maximum, &td_op_minimum,
  &td_op_floor_div, &td_op_mod, &td_op_eq, &td_op_ne, &td_op_lt, &td_op_le, &td_op_gt, &td_op_ge,
  &td_op_logical_and, &td_op_logical_or, &td_op_logical_xor, &td_op_silu_grad, &td_op_gelu_grad,
  &td_op_gelu_tanh_grad, &td_op_relu_grad, &td_op_where, &td_op_fma, &td_op_clamp, &td_op_cast, &td_op_lincomb, NULL,
};
