/* What the two files of the normalisations share: real_norm.c takes images of pixels,
 * real_norm_rows.c the short contiguous rows of p = 1. Include it after isa.h. */
#ifndef TD_KERNELS_REAL_NORM_H
#define TD_KERNELS_REAL_NORM_H
#include "kernels/real_act.h"
#include "kernels/reduce.h"

/* y = act(norm(x)) + add, or the gradient of that with y standing for dx. */
typedef struct {
  size_t n, p, c, groups;
  size_t fold, rows, w;    /* pixels taken together; an image is rows × w with w = fold·c */
  size_t chunks;           /* of an image */
  size_t per_part, parts;  /* images of a part; number of parts */
  bool split;              /* threads share out chunks rather than images */
  bool gradient;
  bool streams;            /* y goes past the caches: it is too large to be found there again */
  td_act act;
  double eps;
  real *y;
  real *mean, *rstd, *var;
  const real *x, *dy, *gamma, *beta, *add;
  real *dgamma, *dbeta;
  /* Work space, from the calling thread's scratch. */
  double *part;   /* parts×2×c: sums for dgamma and dbeta */
  double *total;  /* slots×2×w, a slot being a part, or an image when chunks are shared out */
  double *chunk;  /* slots×2×w, or images×chunks×2×w */
  real *coef;     /* slots×COEFS×w */
} td_norm;

/* In the gradient an activation that costs more than a pass over the cache is not computed twice:
 * dy·act' waits in dx between the sums and the result. */
static inline bool td_norm_keeps(td_act act) { return act > TD_ACT_RELU; }

/* A vector, or its first `part` elements when that is not 0. */
TD_INLINE vreal td_get(const real *p, size_t part) {
  return part ? td_load_part(p, part) : td_load(p);
}
TD_INLINE void td_put(real *p, vreal v, size_t part) {
  if (part) td_store_part(p, v, part);
  else td_store(p, v);
}

/* A store that does not read the line first and leaves the caches alone; p is aligned to a vector.
 * td_streamed() makes such stores visible to other threads. */
TD_INLINE void td_stream(real *p, vreal v) {
#if TD_VMATH_X86 && TD_KISA == 2
  _mm512_stream_si512((void *)p, (__m512i)v);
#elif TD_VMATH_X86 && TD_KISA == 1
  _mm256_stream_si256((__m256i *)(void *)p, (__m256i)v);
#elif TD_VMATH_X86
  _mm_stream_si128((__m128i *)(void *)p, (__m128i)v);
#else
  td_store(p, v);
#endif
}
static inline void td_streamed(void) {
#if TD_VMATH_X86
  _mm_sfence();
#endif
}

/* The whole call for p = 1; false when memory for a few rows is refused. The gradient leaves its
 * sums for dgamma and dbeta in `part`. */
bool TD_K(norm_rows)(td_norm *t);

#endif
