/* Mathematics on vectors: every function takes and gives a `vreal`, branch-free, for float and
 * double, whatever the instruction set. NaN, infinities, signed zeros and subnormal numbers behave
 * as in C's <math.h>. Greatest errors seen, in units of the last place, for float and double alike:
 *   sqrt, rounding 0.5   exp, log 1.1   log1p 1.4   softplus, log_sigmoid 1.6   expm1 2.0
 *   sin, cos 2.2   tanh, sigmoid 2.5   silu 2.6   erf 2.5   erfc 3.9   gelu 4.4
 * and for floats with AVX-512 (vmath_lookup.h): exp 1.8, tanh 2.0, softplus 3.0, sigmoid, silu 3.6,
 * erf 2.3, erfc 3.5, gelu 3.9.
 * silu loses digits where its sigmoid is subnormal, and the relative error of gelu_tanh grows with
 * its exponent below -3 (the absolute error stays below one unit of the last place of 1). The
 * slopes (derivatives) are good to 4 units of the last place of 1. The polynomials are minimax fits
 * of the functions named beside them.
 *
 * A file that includes this after switching the contraction of a*b+c off gets the same bits from
 * every instruction set (real_random.c does). */
#ifndef TD_KERNELS_VMATH_H
#define TD_KERNELS_VMATH_H
#include "kernels/isa.h"

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#include <immintrin.h>
#define TD_VMATH_X86 1 /* a few instructions that vector extensions cannot reach */
#else
#define TD_VMATH_X86 0
#endif

/* ---- Selection, for every element type ------------------------------------------------------ */

#if TD_KREAL == 0
typedef uint32_t td_ubits;
#else
typedef uint64_t td_ubits;
#endif
typedef td_ubits vuint __attribute__((vector_size(TD_VBYTES)));

/* a where the mask (0 or -1, as comparisons give) is set, else b. */
static inline vreal td_vselect(vint mask, vreal a, vreal b) {
#if TD_VMATH_X86 && TD_KISA == 1
  return (vreal)_mm256_blendv_epi8((__m256i)b, (__m256i)a, (__m256i)mask);
#else
  return (vreal)(((vint)a & mask) | ((vint)b & ~mask));
#endif
}
/* x where the mask is set, else 0. */
static inline vreal td_vkeep(vint mask, vreal x) { return (vreal)((vint)x & mask); }

/* Is any element of the mask set? */
static inline bool td_vany(vint mask) {
#if TD_VMATH_X86 && TD_KISA == 2
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif TD_VMATH_X86 && TD_KISA == 1
  return _mm256_movemask_epi8((__m256i)mask) != 0;
#else
  ireal any = 0;
  for (int i = 0; i < TD_LANES; i++) any |= mask[i];
  return any != 0;
#endif
}

/* Copies r < TD_LANES elements, in a few moves of fixed size. */
static inline void td_copy_part(real *d, const real *s, size_t r) {
  size_t bytes = r * sizeof(real);
  char *to = (char *)d;
  const char *from = (const char *)s;
#define TD_COPY_BIT(bit)                \
  if (TD_VBYTES > bit && bytes & bit) { \
    memcpy(to, from, bit);              \
    to += bit;                          \
    from += bit;                        \
  }
  TD_COPY_BIT(32)
  TD_COPY_BIT(16)
  TD_COPY_BIT(8)
  TD_COPY_BIT(4)
#undef TD_COPY_BIT
}
/* The vector of r < TD_LANES elements at p, then zeros; and its store, which touches r elements
 * only. */
#if TD_VMATH_X86 && TD_KISA == 1
static inline __m256i td_part_mask(size_t r) {
  static const ireal mask[2 * TD_LANES] = {[0 ... TD_LANES - 1] = -1};
  return (__m256i) * (const vreal_u *)(const void *)(mask + TD_LANES - r);
}
#endif
static inline vreal td_load_part(const real *p, size_t r) {
#if TD_VMATH_X86 && TD_KISA == 2
  return (vreal)(TD_KREAL == 0 ? _mm512_maskz_loadu_epi32((__mmask16)((1u << r) - 1), p)
                               : _mm512_maskz_loadu_epi64((__mmask8)((1u << r) - 1), p));
#elif TD_VMATH_X86 && TD_KISA == 1
  return (vreal)(TD_KREAL == 0 ? _mm256_maskload_epi32((const int *)p, td_part_mask(r))
                               : _mm256_maskload_epi64((const long long *)p, td_part_mask(r)));
#else
  vreal v = {0};
  td_copy_part((real *)&v, p, r);
  return v;
#endif
}
static inline void td_store_part(real *p, vreal v, size_t r) {
#if TD_VMATH_X86 && TD_KISA == 2
  if (TD_KREAL == 0)
    _mm512_mask_storeu_epi32(p, (__mmask16)((1u << r) - 1), (__m512i)v);
  else
    _mm512_mask_storeu_epi64(p, (__mmask8)((1u << r) - 1), (__m512i)v);
#else
  td_copy_part(p, (const real *)&v, r);
#endif
}

#if TD_KREAL < 2

/* ---- The shape of the number format, and constants ------------------------------------------ */

#define TD_C(x) ((real)(x))
#if TD_KREAL == 0
#define TD_LIBM(name) name##f
enum { TD_MANT = 23, TD_BIAS = 127 };
#define TD_SIGN_BIT 0x80000000u
#define TD_MANT_MASK 0x007fffffu
#define TD_SQRT_HALF_BITS 0x3f3504f3u
#define TD_ROUNDER 12582912.0f /* 1.5·2^23: adding it leaves the nearest integer in the low bits \
                                */
#define TD_INT_MAGIC 0x4b000000u /* bits of 2^23 */
#define TD_INT_BASE 8388608.0f
#define TD_LN2_HI 0.693359375f /* few bits, so that n·LN2_HI is exact */
#define TD_LN2_LO -2.12194440055e-4f
#define TD_EXP_MAX 89.0f   /* exp overflows before this ... */
#define TD_EXP_MIN -104.0f /* ... and is zero here */
#define TD_EXP_SHIFT 64    /* exp_neg works 2^shift too high until its last step */
#define TD_EXP_UNSHIFT 0x1p-64f
#define TD_REAL_MIN FLT_MIN
#define TD_REAL_MAX FLT_MAX
#else
#define TD_LIBM(name) name
enum { TD_MANT = 52, TD_BIAS = 1023 };
#define TD_SIGN_BIT 0x8000000000000000u
#define TD_MANT_MASK 0x000fffffffffffffu
#define TD_SQRT_HALF_BITS 0x3fe6a09e667f3bcdu
#define TD_ROUNDER 6755399441055744.0    /* 1.5·2^52 */
#define TD_INT_MAGIC 0x4330000000000000u /* bits of 2^52 */
#define TD_INT_BASE 4503599627370496.0
#define TD_LN2_HI 0.6931471803691238164901733
#define TD_LN2_LO 1.908214929270587816144e-10
#define TD_EXP_MAX 710.0
#define TD_EXP_MIN -746.0
#define TD_EXP_SHIFT 200
#define TD_EXP_UNSHIFT 0x1p-200
#define TD_REAL_MIN DBL_MIN
#define TD_REAL_MAX DBL_MAX
#endif
/* Whether tables in registers replace longer polynomials. */
#define TD_VLOOKUP (TD_VMATH_X86 && TD_KISA == 2 && TD_KREAL == 0)
#define TD_LOG2E TD_C(1.44269504088896340736)
#define TD_INF ((real)INFINITY)
#define TD_NAN ((real)NAN)

/* c[0] + c[1] x + ... + c[n-1] x^(n-1). */
static inline __attribute__((always_inline)) vreal td_vpoly(vreal x, const real *c, int n) {
  vreal y = td_splat(c[n - 1]);
#pragma GCC unroll 32
  for (int i = n - 2; i >= 0; i--) y = y * x + c[i];
  return y;
}
#define TD_POLY(x, ...)                    \
  td_vpoly(x, (const real[]){__VA_ARGS__}, \
           (int)(sizeof((const real[]){__VA_ARGS__}) / sizeof(real)))

/* ---- Signs, minima, rounding ---------------------------------------------------------------- */

static inline vreal td_vabs(vreal x) { return (vreal)((vuint)x & ~(vuint){0} >> 1); }
static inline vreal td_vneg(vreal x) { return (vreal)((vuint)x ^ TD_SIGN_BIT); }
/* |x| with the sign of s. */
static inline vreal td_vcopysign(vreal x, vreal s) {
  return (vreal)(((vuint)x & ~(vuint){0} >> 1) | ((vuint)s & TD_SIGN_BIT));
}

/* The smaller (greater) of x and the number `limit`; NaN when x is. */
#if TD_VMATH_X86
#if TD_KISA == 2 && TD_KREAL == 0
#define TD_MINMAX(which, l, x) (vreal)_mm512_##which##_ps((__m512)(l), (__m512)(x))
#elif TD_KISA == 2
#define TD_MINMAX(which, l, x) (vreal)_mm512_##which##_pd((__m512d)(l), (__m512d)(x))
#elif TD_KISA == 1 && TD_KREAL == 0
#define TD_MINMAX(which, l, x) (vreal)_mm256_##which##_ps((__m256)(l), (__m256)(x))
#elif TD_KISA == 1
#define TD_MINMAX(which, l, x) (vreal)_mm256_##which##_pd((__m256d)(l), (__m256d)(x))
#elif TD_KREAL == 0
#define TD_MINMAX(which, l, x) (vreal)_mm_##which##_ps((__m128)(l), (__m128)(x))
#else
#define TD_MINMAX(which, l, x) (vreal)_mm_##which##_pd((__m128d)(l), (__m128d)(x))
#endif
static inline vreal td_vat_most(vreal x, real limit) {
  return TD_MINMAX(min, td_splat(limit), x);
}
static inline vreal td_vat_least(vreal x, real limit) {
  return TD_MINMAX(max, td_splat(limit), x);
}
#else
static inline vreal td_vat_most(vreal x, real limit) {
  vreal l = td_splat(limit);
  return td_vselect(x > l, l, x);
}
static inline vreal td_vat_least(vreal x, real limit) {
  vreal l = td_splat(limit);
  return td_vselect(x < l, l, x);
}
#endif

/* The square root, correctly rounded. */
static inline vreal td_vsqrt(vreal x) {
#if TD_VMATH_X86 && TD_KREAL == 0
#if TD_KISA == 2
  return (vreal)_mm512_sqrt_ps((__m512)x);
#elif TD_KISA == 1
  return (vreal)_mm256_sqrt_ps((__m256)x);
#else
  return (vreal)_mm_sqrt_ps((__m128)x);
#endif
#elif TD_VMATH_X86
#if TD_KISA == 2
  return (vreal)_mm512_sqrt_pd((__m512d)x);
#elif TD_KISA == 1
  return (vreal)_mm256_sqrt_pd((__m256d)x);
#else
  return (vreal)_mm_sqrt_pd((__m128d)x);
#endif
#else
  for (int i = 0; i < TD_LANES; i++) x[i] = TD_LIBM(sqrt)(x[i]);
  return x;
#endif
}

/* The nearest integer, ties to even; keeps the sign of zero, NaN and infinities. */
static inline vreal td_vround(vreal x) {
  vreal a = td_vabs(x), r = (a + TD_INT_BASE) - TD_INT_BASE;
  return td_vcopysign(td_vselect(a < TD_INT_BASE, r, a), x);
}
static inline vreal td_vfloor(vreal x) {
  vreal r = td_vround(x);
  return td_vcopysign(r - td_vkeep(r > x, td_splat(1)), x);
}
static inline vreal td_vceil(vreal x) { return td_vneg(td_vfloor(td_vneg(x))); }
static inline vreal td_vtrunc(vreal x) { return td_vcopysign(td_vfloor(td_vabs(x)), x); }

/* ---- exp and its family ------------------------------------------------------------------------
 * x = n·ln2 + r with |r| <= ln2/2; exp(r) - 1 = r + r²·q(r). */

/* exp(r) - 1 for |r| <= 0.35. */
static inline vreal td_vexp_poly(vreal r) {
#if TD_KREAL == 0
  vreal q = TD_POLY(r, 0.500000005901f, 0.166665445192f, 0.0416662874862f, 0.00836647362574f,
                    0.00139462230228f);
#else
  vreal q =
      TD_POLY(r, 0.5000000000000004667831, 0.1666666666666668455134, 0.04166666666658074841232,
              0.008333333333315375774549, 0.001388888893064881891048, 0.0001984126990160106412522,
              0.00002480150607160390202953, 0.000002755722902527048555366,
              2.76258068923977933092e-7, 2.511418982158587791558e-8);
#endif
  return r + (r * r) * q;
}

/* n, rounded from x·log2(e), and 2^(n + shift): the exponent is the low bits of the rounded sum
 * itself. Good while n + shift is a normal number's exponent. */
static inline vreal td_vexp_scale(vreal x, int shift, vreal *n) {
  const real rounder = TD_ROUNDER + (real)(TD_BIAS + shift);
  vreal t = x * TD_LOG2E + rounder;
  *n = t - rounder;
  return (vreal)((vuint)t << TD_MANT);
}

/* p·2^n for integral n in a range twice that of the exponents: rounds once, overflows and
 * underflows as it should. */
static inline vreal td_vldexp(vreal p, vreal n) {
#if TD_VMATH_X86 && TD_KISA == 2 && TD_KREAL == 0
  return (vreal)_mm512_scalef_ps((__m512)p, (__m512)n);
#elif TD_VMATH_X86 && TD_KISA == 2
  return (vreal)_mm512_scalef_pd((__m512d)p, (__m512d)n);
#else
  const real rounder = TD_ROUNDER + (real)TD_BIAS;
  vreal h = n * TD_C(0.5) + rounder, rest = (n - (h - rounder)) + rounder;
  return p * (vreal)((vuint)h << TD_MANT) * (vreal)((vuint)rest << TD_MANT);
#endif
}

static inline vreal td_vexpm1(vreal y) {
  vreal x = td_vat_most(td_vat_least(y, TD_C(TD_KREAL ? -45 : -25)), TD_EXP_MAX);
  vreal n,
      half = td_vexp_scale(x, -1, &n); /* 2^(n-1), so that the last step overflows, not this one */
  vreal p = td_vexp_poly((x - n * TD_LN2_HI) - n * TD_LN2_LO);
  vreal e = (half * p + (half - TD_C(0.5))) * TD_C(2);
  return td_vselect(td_vabs(y) < TD_REAL_EPS * TD_C(0.25), y, e);
}

#if TD_VLOOKUP
#include "kernels/vmath_lookup.h"
#else

static inline vreal td_vexp(vreal x) {
  x = td_vat_most(td_vat_least(x, TD_EXP_MIN), TD_EXP_MAX);
  vreal n, scale = td_vexp_scale(x, 0, &n);
  (void)scale;
  vreal r = (x - n * TD_LN2_HI) - n * TD_LN2_LO;
  return td_vldexp(td_vexp_poly(r) + TD_C(1), n);
}

/* exp(hi + lo) for hi <= 0 and small lo; n is taken from `near`, their rounded sum. */
static inline vreal td_vexp_neg2(vreal near, vreal hi, vreal lo) {
  vreal n, scale = td_vexp_scale(near, TD_EXP_SHIFT, &n);
  vreal r = ((hi - n * TD_LN2_HI) + lo) - n * TD_LN2_LO;
#if TD_VMATH_X86 && TD_KISA == 2
  (void)scale;
  return td_vldexp(td_vexp_poly(r) + TD_C(1), n);
#else
  return ((td_vexp_poly(r) + TD_C(1)) * scale) * TD_EXP_UNSHIFT;
#endif
}

/* exp(x) for x <= 0, cheaper. */
static inline vreal td_vexp_neg(vreal x) {
  x = td_vat_least(x, TD_EXP_MIN);
  vreal n, scale = td_vexp_scale(x, TD_EXP_SHIFT, &n);
  vreal p = td_vexp_poly((x - n * TD_LN2_HI) - n * TD_LN2_LO) + TD_C(1);
#if TD_VMATH_X86 && TD_KISA == 2
  (void)scale;
  return td_vldexp(p, n);
#else
  return (p * scale) * TD_EXP_UNSHIFT;
#endif
}

/* exp(-scale·a²) for a >= 0 and a scale that is a power of two; the square is taken in two parts.
 */
static inline vreal td_vexp_square(vreal a, real scale) {
  vreal head =
      (vreal)((vuint)a & ~(vuint)((vuint){0} + (TD_KREAL ? (td_ubits)0x7ffffff : (td_ubits)0xfff)));
  return td_vexp_neg2(a * a * -scale, head * head * -scale, (head - a) * (head + a) * scale);
}

/* tanh(x) = -t/(t + 2) with t = exp(-2|x|) - 1. */
static inline vreal td_vtanh(vreal x) {
  vreal y = td_vat_most(td_vabs(x), TD_C(TD_KREAL ? 20 : 10)) * TD_C(-2);
  vreal n, scale = td_vexp_scale(y, 0, &n);
  vreal p = td_vexp_poly((y - n * TD_LN2_HI) - n * TD_LN2_LO);
  vreal t = scale * p + (scale - TD_C(1));
  return td_vcopysign(t / (t + TD_C(2)), x);
}

/* (c + exp(-x)·c, exp(-x)·c) with c = 2^-shift, so that neither overflows: from them sigmoid(x) is
 * c over the sum, to full relative precision on both sides. Past `far` exp(-x) no longer counts. */
static inline vreal td_vsigmoid_sum(vreal x, vreal *e) {
  const real far = TD_C(TD_KREAL ? 50 : 30);
  vreal t = td_vat_most(td_vat_least(td_vneg(x), -far), -TD_EXP_MIN), n;
  vreal scale = td_vexp_scale(t, -TD_EXP_SHIFT, &n);
  vreal p = td_vexp_poly((t - n * TD_LN2_HI) - n * TD_LN2_LO);
  *e = p * scale + scale;
  return *e + TD_EXP_UNSHIFT;
}
#endif

static inline vreal td_vsigmoid(vreal x) {
  vreal e, sum = td_vsigmoid_sum(x, &e);
  return TD_EXP_UNSHIFT / sum;
}
/* sigmoid(x) and sigmoid(-x) where |x| is not past `far`, beyond which the smaller is not exact. */
static inline void td_vsigmoid2(vreal x, vreal *s, vreal *complement) {
  vreal e, d = TD_C(1) / td_vsigmoid_sum(x, &e);
  *s = TD_EXP_UNSHIFT * d;
  *complement = e * d;
}
static inline vreal td_vsilu(vreal x) { return td_vat_least(x, -TD_REAL_MAX) * td_vsigmoid(x); }
/* d silu(x)/dx; 1 and 0 at the infinities. */
static inline vreal td_vsilu_slope(vreal x) {
  x = td_vat_most(td_vat_least(x, TD_EXP_MIN * 2), -TD_EXP_MIN * 2);
  vreal s, c;
  td_vsigmoid2(x, &s, &c);
  return s * (x * c + TD_C(1));
}

#define TD_GELU_K TD_C(1.5957691216057307117) /* 2·sqrt(2/π) */
#define TD_GELU_C TD_C(0.044715)
/* x·sigmoid(2·sqrt(2/π)·(x + 0.044715 x³)): the gelu by tanh. */
static inline vreal td_vgelu_tanh(vreal x) {
  vreal u = x * (x * x * TD_GELU_C + TD_C(1)) * TD_GELU_K;
  return td_vat_least(x, -TD_REAL_MAX) * td_vsigmoid(u);
}
static inline vreal td_vgelu_tanh_slope(vreal x) {
  x = td_vat_most(td_vat_least(x, TD_C(-50)), TD_C(50));
  vreal xx = x * x, s, c;
  td_vsigmoid2(x * (xx * TD_GELU_C + TD_C(1)) * TD_GELU_K, &s, &c);
  return s * (x * c * (xx * (3 * TD_GELU_C) + TD_C(1)) * TD_GELU_K + TD_C(1));
}

/* ---- log and its family ------------------------------------------------------------------------
 * x = 2^k·(1 + f) with sqrt(1/2) <= 1 + f < sqrt(2). */

/* k·ln2 + log(1 + f). */
static inline vreal td_vlog_poly(vreal k, vreal f) {
#if TD_KREAL == 0
  vreal z = f * f;
  vreal p = TD_POLY(f, 0.333333169027f, -0.250007831457f, 0.200022763015f, -0.166253736221f,
                    0.141816773509f, -0.131219494058f, 0.128766554583f, -0.0787094945975f);
  vreal y = k * TD_LN2_LO + (f * z) * p;
  return k * TD_LN2_HI + (f + (y - z * TD_C(0.5)));
#else
  /* with s = f/(2+f): log(1+f) = f - f²/2 + s·(f²/2 + s²·R(s²)) */
  vreal s = f / (f + TD_C(2)), z = s * s, h = f * f * TD_C(0.5);
  vreal r = z * TD_POLY(z, 0.66666666666667349267, 0.3999999999940134608419,
                        0.2857142874690617139336, 0.222221979836012993932, 0.1818360046895369009633,
                        0.1531300291763202916171, 0.1480753338815978747556);
  return k * TD_LN2_HI - ((h - (s * (h + r) + k * TD_LN2_LO)) - f);
#endif
}

/* 1 + f, k and the biased exponent of a positive normal x. */
static inline vreal td_vlog_split(vreal x, vreal *k, vuint *exponent) {
  vuint bits = (vuint)x - TD_SQRT_HALF_BITS + ((td_ubits)TD_BIAS << TD_MANT);
  *exponent = bits >> TD_MANT;
  *k = (vreal)(*exponent | TD_INT_MAGIC) - (TD_INT_BASE + TD_BIAS);
  return (vreal)((bits & TD_MANT_MASK) + TD_SQRT_HALF_BITS);
}

/* log of a positive normal number. */
static inline vreal td_vlog_normal(vreal x) {
  vreal k;
  vuint e;
  vreal m = td_vlog_split(x, &k, &e);
  return td_vlog_poly(k, m - TD_C(1));
}

static inline vreal td_vlog(vreal x) {
  const real up = (real)((td_ubits)1 << (TD_MANT + 1));
  vint small = x < TD_REAL_MIN;
  vreal k;
  vuint e;
  vreal m = td_vlog_split(td_vselect(small, x * up, x), &k, &e);
  vreal y = td_vlog_poly(k - td_vkeep(small, td_splat(TD_MANT + 1)), m - TD_C(1));
  vreal odd =
      td_vselect(x < TD_C(0), td_splat(TD_NAN), td_vselect(x == TD_C(0), td_splat(-TD_INF), x));
  return td_vselect((x > TD_C(0)) & (x < TD_INF), y, odd);
}

static inline vreal td_vlog1p(vreal x) {
  vreal u = x + TD_C(1), k;
  vuint e;
  vreal m = td_vlog_split(u, &k, &e);
  /* what the rounding of 1 + x lost, brought to the scale of m; nothing when x is huge */
  vint wide = x > TD_C(1);
  vreal one = td_splat(1), lost = td_vselect(wide, one, x) - (u - td_vselect(wide, x, one));
  vreal scaled = lost * (vreal)(((td_ubits)(2 * TD_BIAS) - e) << TD_MANT);
  vreal f = (m - TD_C(1)) + td_vkeep(x < TD_INT_BASE * 4, scaled);
  vreal y = td_vlog_poly(k, f);
  vreal odd =
      td_vselect(x < TD_C(-1), td_splat(TD_NAN), td_vselect(x == TD_C(-1), td_splat(-TD_INF), x));
  return td_vselect((x > TD_C(-1)) & (x < TD_INF) & (x != TD_C(0)), y, odd);
}

/* log(1 + exp(-|x|)). */
static inline vreal td_vlog1p_exp_neg(vreal x) {
  vreal e = td_vexp_neg(td_vneg(td_vabs(x)));
  vint upper = e > TD_C(0.41421356);
  vreal f = td_vselect(upper, e * TD_C(0.5) - TD_C(0.5), e);
  return td_vlog_poly(td_vkeep(upper, td_splat(1)), f);
}
static inline vreal td_vsoftplus(vreal x) { return td_vat_least(x, 0) + td_vlog1p_exp_neg(x); }
static inline vreal td_vlog_sigmoid(vreal x) { return td_vat_most(x, 0) - td_vlog1p_exp_neg(x); }

/* ---- sin and cos -------------------------------------------------------------------------------
 * x = q·π/2 + r with |r| <= π/4; π/2 is split so that q times each part but the last is exact. */

#if TD_KREAL == 0
#define TD_TRIG_MAX 12800.0f
#define TD_TRIG_PARTS                                                                            \
  {1.5703125f, 0.0004837512969970703125f, 7.5495336204767227173e-8f, 2.5632829192545614205e-12f, \
   6.1232339957367658861e-17f}
#else
#define TD_TRIG_MAX 1.6e6
#define TD_TRIG_PARTS                                                                         \
  {1.57079632673412561416626, 6.077100506303965976595549e-11, 2.022266248711166455795996e-21, \
   8.478427660368899644009236e-32}
#endif

/* sin(r) and cos(r) for |r| <= π/4. */
static inline void td_vsincos_poly(vreal r, vreal *s, vreal *c) {
  vreal z = r * r;
#if TD_KREAL == 0
  vreal ps = TD_POLY(z, -0.166666546492f, 0.0083321577806f, -0.000195143777162f);
  vreal pc = TD_POLY(z, 0.0416666465248f, -0.00138873474741f, 2.44358670143e-5f);
#else
  vreal ps = TD_POLY(z, -0.166666666666666307299, 0.008333333333322014522671,
                     -0.0001984126982944674670925, 0.000002755731355561666302836,
                     -2.505073535799899233248e-8, 1.589540647254913319358e-10);
  vreal pc = TD_POLY(z, 0.04166666666666660929701, -0.001388888888887538990297,
                     0.00002480158729008110153408, -2.755731448359773335062e-7,
                     2.087573663351302499486e-9, -1.136014990682839960018e-11);
#endif
  *s = r + (r * z) * ps;
  *c = (z * z * pc - z * TD_C(0.5)) + TD_C(1);
}

/* sin(x + quarter·π/2); elements too large for the reduction, infinities and NaN go to libm. */
static inline __attribute__((always_inline)) vreal td_vsin_turned(vreal x, td_ubits quarter) {
  static const real part[] = TD_TRIG_PARTS;
  vreal t = x * TD_C(0.63661977236758134308) + TD_ROUNDER, q = t - TD_ROUNDER, r = x, s, c;
#pragma GCC unroll 8
  for (size_t i = 0; i < sizeof part / sizeof *part; i++) r = r - q * part[i];
  td_vsincos_poly(r, &s, &c);
  vuint n = (vuint)t + quarter;
  vint odd = -(vint)(n & 1);
  vreal y = (vreal)((vuint)td_vselect(odd, c, s) ^ (n & 2) << (TD_MANT == 23 ? 30 : 62));
  vint far = ~(td_vabs(x) < TD_TRIG_MAX);
  if (__builtin_expect(td_vany(far), 0))
    for (int i = 0; i < TD_LANES; i++)
      if (far[i]) y[i] = quarter ? TD_LIBM(cos)(x[i]) : TD_LIBM(sin)(x[i]);
  return y;
}
static inline vreal td_vsin(vreal x) { return td_vselect(x == TD_C(0), x, td_vsin_turned(x, 0)); }
static inline vreal td_vcos(vreal x) { return td_vsin_turned(x, 1); }

/* ---- The error function ------------------------------------------------------------------------
 * Around R(a) = exp(a²/2)·Φ(-a), Φ the normal distribution function: with t = 1/(a + 2) and
 * u = (a - 2)·t it is t·Q(u). erfc(z) = 2·exp(-z²)·R(z·sqrt(2)). */

#define TD_ERF_MAX TD_C(TD_KREAL ? 27.4 : 10.2) /* erfc is zero from here on */
#define TD_GELU_MAX TD_C(TD_KREAL ? 38.8 : 14.5) /* Φ(-a) is zero from here on */

/* R(a) for 0 <= a <= GELU_MAX. */
static inline vreal td_vmills(vreal a) {
#if TD_VLOOKUP
  return td_vpieces(a, td_mills_table);
#else
  const real c = TD_C(TD_KREAL ? 2 : 1.5);
  vreal t = TD_C(1) / (a + c), u = (a - c) * t;
#if TD_KREAL == 0
  vreal q = TD_POLY(u, 0.6173419999f, -0.1950994764f, -0.05749543922f, 0.01789657866f, 0.01763970105f,
                    0.003987055129f, -0.002430160811f, -0.00270501433f, -0.001050125404f,
                    0.0002400860168f, 0.0004712795941f, 0.0001580315175f);
#else
  vreal q = TD_POLY(u, 0.672408004892682421, -0.331404442388781026, 0.0287973603453635572,
                    0.0367183609689204291, -0.000469596834439916222, -0.00672490707806743513,
                    -0.00195112415942982973, 0.000785118154648839143, 0.000827198920320708017,
                    0.000206991751284950615, -0.000115692393812921209, -0.00012855201197243003,
                    -0.0000460590910642347323, 9.68176792355787447e-6, 0.0000217251607490862547,
                    0.0000125716932862087408, 1.9639861080699468e-6, -2.85868360026016663e-6,
                    -2.82856071259421352e-6, -1.34238048620712281e-6, -3.61807841008902968e-7,
                    2.77458998987931063e-7, 7.13792733724995296e-7, 4.55471097283978892e-7,
                    -1.33922587136521433e-7, -2.58887962693917927e-7, -4.6038652986484996e-8,
                    4.43657800407108887e-8, 1.5911653311186723e-8);
#endif
  return t * q;
#endif
}

/* erfc(z) for z >= 0. */
static inline vreal td_verfc_tail(vreal z) {
  return (td_vexp_square(z, 1) * TD_C(2)) * td_vmills(z * TD_C(1.41421356237309504880));
}

static inline vreal td_verfc(vreal x) {
  vreal tail = td_verfc_tail(td_vat_most(td_vabs(x), TD_ERF_MAX));
  return td_vselect(x < TD_C(0), TD_C(2) - tail, tail);
}

#if !TD_VLOOKUP
static inline vreal td_verf(vreal x) {
  vreal z = td_vat_most(td_vabs(x), TD_ERF_MAX), zz = z * z, far = TD_C(1) - td_verfc_tail(z);
#if TD_KREAL == 0
  vreal p = TD_POLY(zz, 0.12837916562f, -0.376126092923f, 0.112828369295f, -0.0267580725346f,
                    0.00471973783577f);
#else
  vreal p = TD_POLY(zz, 0.128379167095512569626, -0.3761263890318347513954,
                    0.1128379167092547797118, -0.0268661706329250797957, 0.005223977373562493170491,
                    -0.0008548297796243530371584, 0.0001205333696793829772108,
                    -0.00001484589050711117811577, 0.000001472623675682684360683);
#endif
  return td_vcopysign(td_vselect(z < TD_C(0.5), z + z * p, far), x);
}
#endif

/* Φ(-a)  for a = |x| cut at GELU_MAX, and exp(-a²/2). */
static inline vreal td_vnormal_tail(vreal a, vreal *bell) {
  *bell = td_vexp_square(a, TD_C(0.5));
  return *bell * td_vmills(a);
}
/* x·Φ(x): the gelu by erf. */
static inline vreal td_vgelu(vreal x) {
  vreal bell, a = td_vat_most(td_vabs(x), TD_GELU_MAX), tail = td_vnormal_tail(a, &bell);
  return td_vat_least(x, 0) - a * tail;
}
/* Φ(x) + x·φ(x). */
static inline vreal td_vgelu_slope(vreal x) {
  vreal bell, a = td_vat_most(td_vabs(x), TD_GELU_MAX), tail = td_vnormal_tail(a, &bell);
  vreal density = td_vcopysign(a * bell * TD_C(0.39894228040143267794), x);
  return td_vselect(x < TD_C(0), tail, TD_C(1) - tail) + density;
}

#endif /* real */
#endif
