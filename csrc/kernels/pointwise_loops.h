/* The loops of the element-wise operations: for each td_pw_op one function that runs it over a
 * block. An operand is a pointer and a step: TD_LANES for an array, 0 for one number that fills a
 * whole vector. Blocks are made of whole vectors: a loop may read and write up to the next multiple
 * of TD_LANES elements. */
#ifndef TD_KERNELS_POINTWISE_LOOPS_H
#define TD_KERNELS_POINTWISE_LOOPS_H
#include "kernels/vmath.h"

/* The loop named after the operation, over vectors x (, y (, z)). Operands that are all arrays get
 * a loop of their own, where the compiler knows the step. */
#define TD_LOOP1(name, result)                                                             \
  static void loop_##name(void *to, const td_pw_arg *reg, const uint8_t *src, size_t n) { \
    real *out = to;                                                                        \
    const real *p = reg[src[0]].p;                                                         \
    const size_t step = reg[src[0]].step;                                                  \
    for (size_t i = 0; i < n; i += TD_LANES, p += step) {                                  \
      vreal x = td_load(p);                                                                \
      td_store(out + i, result);                                                           \
    }                                                                                      \
  }
#define TD_LOOP2(name, result)                                                             \
  static void loop_##name(void *to, const td_pw_arg *reg, const uint8_t *src, size_t n) { \
    real *out = to;                                                                        \
    const real *p = reg[src[0]].p, *q = reg[src[1]].p;                                     \
    const size_t sp = reg[src[0]].step, sq = reg[src[1]].step;                             \
    if (sp && sq)                                                                          \
      for (size_t i = 0; i < n; i += TD_LANES) {                                           \
        vreal x = td_load(p + i), y = td_load(q + i);                                      \
        td_store(out + i, result);                                                         \
      }                                                                                    \
    else                                                                                   \
      for (size_t i = 0; i < n; i += TD_LANES, p += sp, q += sq) {                         \
        vreal x = td_load(p), y = td_load(q);                                              \
        td_store(out + i, result);                                                         \
      }                                                                                    \
  }
#define TD_LOOP3(name, result)                                                             \
  static void loop_##name(void *to, const td_pw_arg *reg, const uint8_t *src, size_t n) { \
    real *out = to;                                                                        \
    const real *p = reg[src[0]].p, *q = reg[src[1]].p, *r = reg[src[2]].p;                 \
    const size_t sp = reg[src[0]].step, sq = reg[src[1]].step, sr = reg[src[2]].step;      \
    for (size_t i = 0; i < n; i += TD_LANES, p += sp, q += sq, r += sr) {                  \
      vreal x = td_load(p), y = td_load(q), z = td_load(r);                                \
      td_store(out + i, result);                                                           \
    }                                                                                      \
  }
/* The same, number by number, for what the C library does better. */
#define TD_SCALAR_LOOP1(name, result)                                                      \
  static void loop_##name(void *to, const td_pw_arg *reg, const uint8_t *src, size_t n) { \
    real *out = to;                                                                        \
    const real *p = reg[src[0]].p;                                                         \
    const size_t sp = reg[src[0]].step != 0;                                               \
    for (size_t i = 0; i < n; i++, p += sp) {                                              \
      real x = *p;                                                                         \
      out[i] = result;                                                                     \
    }                                                                                      \
  }
#define TD_SCALAR_LOOP2(name, result)                                                      \
  static void loop_##name(void *to, const td_pw_arg *reg, const uint8_t *src, size_t n) { \
    real *out = to;                                                                        \
    const real *p = reg[src[0]].p, *q = reg[src[1]].p;                                     \
    const size_t sp = reg[src[0]].step != 0, sq = reg[src[1]].step != 0;                   \
    for (size_t i = 0; i < n; i++, p += sp, q += sq) {                                     \
      real x = *p, y = *q;                                                                 \
      out[i] = result;                                                                     \
    }                                                                                      \
  }

/* 1 where the mask is set, else 0. */
static inline vreal truth(vint mask) { return td_vkeep(mask, td_splat(1)); }

/* ---- Operations of every type: integers wrap around ----------------------------------------- */

#if TD_KREAL == 2
static inline vreal v_add(vreal x, vreal y) { return (vreal)((vuint)x + (vuint)y); }
static inline vreal v_sub(vreal x, vreal y) { return (vreal)((vuint)x - (vuint)y); }
static inline vreal v_mul(vreal x, vreal y) { return (vreal)((vuint)x * (vuint)y); }
static inline vreal v_neg(vreal x) { return (vreal)(-(vuint)x); }
static inline vreal v_abs(vreal x) { return td_vselect(x < 0, v_neg(x), x); }
static inline vreal v_max(vreal x, vreal y) { return td_vselect(x > y, x, y); }
static inline vreal v_min(vreal x, vreal y) { return td_vselect(x < y, x, y); }
static inline vreal v_sign(vreal x) { return (x < 0) - (x > 0); }

/* The floor of x/y; 0 when y is 0, and wraps for the one quotient that does not fit. */
static inline real floor_div(real x, real y) {
  if (y == 0) return 0;
  if (y == -1) return (real) - (uint64_t)x;
  real q = x / y;
  return q - (x % y != 0 && (x < 0) != (y < 0));
}
/* x - y·floor(x/y), of y's sign; 0 when y is 0. */
static inline real floor_mod(real x, real y) {
  if (y == 0 || y == -1) return 0;
  real r = x % y;
  return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}
TD_SCALAR_LOOP2(floor_div, floor_div(x, y))
#else
static inline vreal v_add(vreal x, vreal y) { return x + y; }
static inline vreal v_sub(vreal x, vreal y) { return x - y; }
static inline vreal v_mul(vreal x, vreal y) { return x * y; }
static inline vreal v_neg(vreal x) { return td_vneg(x); }
static inline vreal v_abs(vreal x) { return td_vabs(x); }
static inline vreal v_max(vreal x, vreal y) { return td_vselect((x > y) | (x != x), x, y); }
static inline vreal v_min(vreal x, vreal y) { return td_vselect((x < y) | (x != x), x, y); }
static inline vreal v_sign(vreal x) { return td_vselect(x != x, x, truth(x > 0) - truth(x < 0)); }
/* x - y·floor(x/y), of y's sign, without rounding. */
static inline real floor_mod(real x, real y) {
  real r = TD_LIBM(fmod)(x, y);
  return (r < 0 && y > 0) || (r > 0 && y < 0) ? r + y : r;
}
TD_LOOP2(floor_div, td_vfloor(x / y))
#endif
TD_SCALAR_LOOP2(mod, floor_mod(x, y))

TD_LOOP1(copy, x)
TD_LOOP1(neg, v_neg(x))
TD_LOOP1(abs, v_abs(x))
TD_LOOP1(sign, v_sign(x))
TD_LOOP1(square, v_mul(x, x))
TD_LOOP1(logical_not, truth(x == 0))
TD_LOOP1(relu, td_vkeep(~(x <= 0), x))
TD_LOOP2(add, v_add(x, y))
TD_LOOP2(sub, v_sub(x, y))
TD_LOOP2(mul, v_mul(x, y))
TD_LOOP2(max, v_max(x, y))
TD_LOOP2(min, v_min(x, y))
TD_LOOP2(eq, truth(x == y))
TD_LOOP2(ne, truth(x != y))
TD_LOOP2(lt, truth(x < y))
TD_LOOP2(le, truth(x <= y))
TD_LOOP2(gt, truth(x > y))
TD_LOOP2(ge, truth(x >= y))
TD_LOOP2(logical_and, truth((x != 0) & (y != 0)))
TD_LOOP2(logical_or, truth((x != 0) | (y != 0)))
TD_LOOP2(logical_xor, truth((x != 0) ^ (y != 0)))
TD_LOOP3(where, td_vselect(x != 0, y, z))
TD_LOOP3(clamp, v_min(v_max(x, y), z))

/* ---- Operations of the reals ---------------------------------------------------------------- */

#if TD_KREAL < 2
TD_LOOP1(exp, td_vexp(x))
TD_LOOP1(expm1, td_vexpm1(x))
TD_LOOP1(log, td_vlog(x))
TD_LOOP1(log1p, td_vlog1p(x))
TD_SCALAR_LOOP1(log2, TD_LIBM(log2)(x))
TD_SCALAR_LOOP1(log10, TD_LIBM(log10)(x))
TD_LOOP1(sqrt, td_vsqrt(x))
TD_LOOP1(rsqrt, TD_C(1) / td_vsqrt(x))
TD_LOOP1(reciprocal, TD_C(1) / x)
TD_LOOP1(sin, td_vsin(x))
TD_LOOP1(cos, td_vcos(x))
TD_SCALAR_LOOP1(tan, TD_LIBM(tan)(x))
TD_SCALAR_LOOP1(asin, TD_LIBM(asin)(x))
TD_SCALAR_LOOP1(acos, TD_LIBM(acos)(x))
TD_SCALAR_LOOP1(atan, TD_LIBM(atan)(x))
TD_SCALAR_LOOP1(sinh, TD_LIBM(sinh)(x))
TD_SCALAR_LOOP1(cosh, TD_LIBM(cosh)(x))
TD_LOOP1(tanh, td_vtanh(x))
TD_LOOP1(erf, td_verf(x))
TD_LOOP1(erfc, td_verfc(x))
TD_LOOP1(sigmoid, td_vsigmoid(x))
TD_LOOP1(silu, td_vsilu(x))
TD_LOOP1(gelu, td_vgelu(x))
TD_LOOP1(gelu_tanh, td_vgelu_tanh(x))
TD_LOOP1(softplus, td_vsoftplus(x))
TD_LOOP1(log_sigmoid, td_vlog_sigmoid(x))
TD_LOOP1(floor, td_vfloor(x))
TD_LOOP1(ceil, td_vceil(x))
TD_LOOP1(round, td_vround(x))
TD_LOOP1(trunc, td_vtrunc(x))
TD_LOOP1(isnan, truth(x != x))
TD_LOOP1(isinf, truth(td_vabs(x) == TD_INF))
TD_LOOP1(isfinite, truth(td_vabs(x) < TD_INF))
TD_LOOP2(div, x / y)
TD_SCALAR_LOOP2(atan2, TD_LIBM(atan2)(x, y))
TD_LOOP2(silu_grad, y *td_vsilu_slope(x))
TD_LOOP2(gelu_grad, y *td_vgelu_slope(x))
TD_LOOP2(gelu_tanh_grad, y *td_vgelu_tanh_slope(x))
TD_LOOP2(relu_grad, td_vkeep(~(x <= 0), y))
TD_LOOP3(fma, x *y + z)

TD_LOOP1(cube, x * x * x)
TD_LOOP1(fourth, (x * x) * (x * x))
TD_LOOP1(inverse_square, TD_C(1) / (x * x))
TD_LOOP1(half_power, td_vselect(x == -TD_INF, td_splat(TD_INF), td_vsqrt(x + TD_C(0))))
TD_SCALAR_LOOP2(power, TD_LIBM(pow)(x, y))

/* x^y; the exponents that models are full of, when they are one number, need no logarithm. */
static void loop_pow(void *out, const td_pw_arg *reg, const uint8_t *src, size_t n) {
  static const struct {
    real exponent;
    td_pw_loop loop;
  } easy[] = {
      {2, loop_square}, {3, loop_cube},   {TD_C(0.5), loop_half_power}, {-1, loop_reciprocal},
      {1, loop_copy},   {4, loop_fourth}, {-2, loop_inverse_square},
  };
  if (reg[src[1]].step == 0)
    for (size_t i = 0; i < sizeof easy / sizeof *easy; i++)
      if (easy[i].exponent == *(const real *)reg[src[1]].p) {
        easy[i].loop(out, reg, src, n);
        return;
      }
  loop_power(out, reg, src, n);
}
#endif

/* ---- The table ------------------------------------------------------------------------------ */

#define TD_LOOP_ENTRY(name, arity) [TD_PW_##name] = loop_##name,
#define TD_LOOP_NONE(name, arity)
static const td_pw_loop td_pw_loops[TD_PW_OP_COUNT] = {
#if TD_KREAL == 2
    TD_PW_OPS(TD_LOOP_NONE, TD_LOOP_ENTRY)
#else
    TD_PW_OPS(TD_LOOP_ENTRY, TD_LOOP_ENTRY)
#endif
};

#define TD_ARITY_ENTRY(name, arity) arity,
static const uint8_t td_pw_arity[TD_PW_OP_COUNT] = {TD_PW_OPS(TD_ARITY_ENTRY, TD_ARITY_ENTRY)};

/* What an operation costs per element, in units of an addition's: how finely its work is worth
 * splitting. */
static inline unsigned td_pw_cost(unsigned op) {
  switch (op) {
    case TD_PW_log2:
    case TD_PW_log10:
    case TD_PW_tan:
    case TD_PW_asin:
    case TD_PW_acos:
    case TD_PW_atan:
    case TD_PW_sinh:
    case TD_PW_cosh:
    case TD_PW_atan2:
    case TD_PW_pow:
    case TD_PW_mod:
      return 40;
    case TD_PW_exp:
    case TD_PW_expm1:
    case TD_PW_log:
    case TD_PW_log1p:
    case TD_PW_sin:
    case TD_PW_cos:
    case TD_PW_tanh:
    case TD_PW_sigmoid:
    case TD_PW_silu:
    case TD_PW_gelu_tanh:
    case TD_PW_silu_grad:
    case TD_PW_gelu_tanh_grad:
      return 4;
    case TD_PW_erf:
    case TD_PW_erfc:
    case TD_PW_gelu:
    case TD_PW_gelu_grad:
    case TD_PW_softplus:
    case TD_PW_log_sigmoid:
      return 8;
    case TD_PW_floor_div:
      return TD_KREAL == 2 ? 20 : 2;
    default:
      return 1;
  }
}

#endif
