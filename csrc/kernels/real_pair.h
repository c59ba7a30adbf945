/* Products of numbers rounded to bfloat16, the upper half of a float: an element of an operand then holds a pair of
 * them, the even one below, and a multiply-add of two such elements adds both products in float32.
 * Processors with AVX512-BF16 have an instruction for it; the others take the halves apart. The two differ in how the
 * sum of a pair is rounded and in subnormal numbers, which the instruction takes for zero. */
#ifndef TD_KERNELS_REAL_PAIR_H
#define TD_KERNELS_REAL_PAIR_H
#include "base/cpu.h"
#include "kernels/precision.h"
#include "kernels/vmath.h"

/* What a multiply-add in a tile is: of elements, of pairs written out, of pairs by the instruction. */
typedef enum { TD_BY_ELEMENT, TD_BY_PAIR, TD_BY_PAIR_X86 } td_term;
#define TD_HAS_PAIRS (TD_KREAL == 0)
#define TD_HAS_PAIRS_X86 (TD_HAS_PAIRS && TD_KISA == 2)

/* What products are made of at the moment. */
static inline td_term td_term_now(void) {
  if (TD_KREAL != 0 || td_k_precision != TD_BFLOAT16) return TD_BY_ELEMENT;
  return TD_KISA == 2 && td_cpu_has_bf16() ? TD_BY_PAIR_X86 : TD_BY_PAIR;
}

/* sum + a·b; `term` must be a constant. */
static inline __attribute__((always_inline)) vreal td_add_term(const td_term term, vreal sum, vreal a, vreal b) {
#if TD_HAS_PAIRS_X86
  if (term == TD_BY_PAIR_X86) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
#endif
#if TD_HAS_PAIRS
  if (term != TD_BY_ELEMENT) {
    sum += (vreal)((vuint)a & 0xffff0000u) * (vreal)((vuint)b & 0xffff0000u);
    return sum + (vreal)((vuint)a << 16) * (vreal)((vuint)b << 16);
  }
#endif
  (void)term;
  return sum + a * b;
}

#if TD_HAS_PAIRS
/* The bits of x rounded to bfloat16, ties to even, in the upper half; NaN stays NaN. */
static inline uint32_t td_round_pair(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  uint32_t even = u + 0x7fffu + (u >> 16 & 1), quiet = u | 0x400000u;
  return ((u & 0x7fffffffu) > 0x7f800000u ? quiet : even) & 0xffff0000u;
}
static inline float td_make_pair(float low, float high) {
  uint32_t u = td_round_pair(low) >> 16 | td_round_pair(high);
  float pair;
  memcpy(&pair, &u, sizeof pair);
  return pair;
}
static inline float td_round_bfloat16(float x) {
  uint32_t u = td_round_pair(x);
  memcpy(&x, &u, sizeof x);
  return x;
}
#else
static inline real td_make_pair(real low, real high) { return low + high; }  /* never called */
static inline real td_round_bfloat16(real x) { return x; }
#endif

/* to[i] = the pair of from[2i], from[2i + 1]; beyond the n elements there are zeros. */
static inline void td_pack_pairs(real *to, const real *from, size_t n) {
  for (size_t i = 0; i < n / 2; i++) to[i] = td_make_pair(from[2 * i], from[2 * i + 1]);
  if (n % 2) to[n / 2] = td_make_pair(from[n - 1], 0);
}

#endif
