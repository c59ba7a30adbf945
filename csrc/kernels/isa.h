/* The first include of every kernel file: the element type `real`, the vector type `vreal`, and the optimisation and
 * instruction set that this copy of the file is compiled for. The source asks for them itself, so that a build
 * with plain `-O2 -fPIC` is as fast as any other.
 *
 * The build defines TD_KREAL (0 float, 1 double, 2 int64_t) and TD_KISA (0 baseline, 1 AVX2+FMA, 2 AVX-512). */
#ifndef TD_KERNELS_ISA_H
#define TD_KERNELS_ISA_H
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/random.h"
#include "base/threads.h"
#include "kernels/kernels.h"

#if defined(__clang__)  /* takes its target from the command line */
#pragma clang fp contract(fast)
#else
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=fast")
#if TD_KISA == 1
#pragma GCC target("avx2,fma")
#elif TD_KISA == 2
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,prefer-vector-width=512")
#endif
#endif

#if TD_KISA == 0
#define TD_VBYTES 16
#define TD_KISA_SUFFIX base
#elif TD_KISA == 1
#define TD_VBYTES 32
#define TD_KISA_SUFFIX avx2
#else
#define TD_VBYTES 64
#define TD_KISA_SUFFIX avx512
#endif

#if TD_KREAL == 0
typedef float real;
typedef int32_t ireal;  /* the integer of real's size, for comparisons and bit patterns */
#define TD_KREAL_SUFFIX f32
#define TD_REAL_EPS FLT_EPSILON
#elif TD_KREAL == 1
typedef double real;
typedef int64_t ireal;
#define TD_KREAL_SUFFIX f64
#define TD_REAL_EPS DBL_EPSILON
#else
typedef int64_t real;
typedef int64_t ireal;
#define TD_KREAL_SUFFIX i64
#endif

typedef real vreal __attribute__((vector_size(TD_VBYTES)));
typedef ireal vint __attribute__((vector_size(TD_VBYTES)));
typedef real vreal_u __attribute__((vector_size(TD_VBYTES), aligned(1), may_alias));
enum { TD_LANES = TD_VBYTES / sizeof(real) };

static inline vreal td_load(const real *p) { return *(const vreal_u *)p; }
static inline void td_store(real *p, vreal v) { *(vreal_u *)p = v; }
static inline vreal td_splat(real x) { return x - (vreal){0}; }

/* Asks for a line that will be written. __builtin_prefetch(p, 1) is no PREFETCHW unless the target says so, and the
 * store to a line that was fetched to be read waits all the same. Processors without it take it for a no-op. */
static inline void td_expect_write(const void *p) {
#if defined(__x86_64__) && TD_KISA > 0
  __asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
#else
  __builtin_prefetch(p, 1);
#endif
}

#define TD_PASTE3_(a, b, c) td_k_##a##_##b##_##c
#define TD_PASTE3(a, b, c) TD_PASTE3_(a, b, c)
/* The name of this copy of kernel `name`: td_k_<name>_<type>_<instruction set>. */
#define TD_K(name) TD_PASTE3(name, TD_KREAL_SUFFIX, TD_KISA_SUFFIX)

#endif
