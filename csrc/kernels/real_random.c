/* Random fills. A chunk of the stream is made as words first, many Philox counters side by side,
 * then turned into numbers. A number depends on (seed, counter, index) alone: not on the thread,
 * the split, nor the instruction set. To keep the last true of `normal` to the bit, a*b+c is never
 * contracted here: one rounding more or less is the only thing in which instruction sets differ. */
#include "kernels/isa.h"
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
#include "kernels/vmath.h"

enum {
  BLOCKS = 256,                       /* Philox blocks, of 128 bits, in a chunk */
  PER_BLOCK = 16 / (int)sizeof(real), /* numbers made of a block: 4 floats or 2 doubles */
  CHUNK = BLOCKS * PER_BLOCK,
  PAIRS = CHUNK / 2,
  ROUNDS = 10
};

/* ---- The stream ----------------------------------------------------------------------------- */

typedef uint64_t v64 __attribute__((vector_size(TD_VBYTES)));
enum { COUNTERS = TD_VBYTES / 8 };

/* The 64-bit products of the low halves of the elements and c. */
static inline v64 wide_mul(v64 a, uint32_t c) {
#if TD_VMATH_X86 && TD_KISA == 2
  return (v64)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(c));
#elif TD_VMATH_X86 && TD_KISA == 1
  return (v64)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(c));
#elif TD_VMATH_X86
  return (v64)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(c));
#else
  return (a & 0xffffffffu) * (uint64_t)c;
#endif
}

/* a[0], b[0], a[1], b[1], ... */
static inline void store_interleaved(uint64_t *p, v64 a, v64 b) {
#if defined(__GNUC__) && !defined(__clang__)
#if TD_VBYTES == 64
  const v64 lower = {0, 8, 1, 9, 2, 10, 3, 11}, upper = {4, 12, 5, 13, 6, 14, 7, 15};
#elif TD_VBYTES == 32
  const v64 lower = {0, 4, 1, 5}, upper = {2, 6, 3, 7};
#else
  const v64 lower = {0, 2}, upper = {1, 3};
#endif
  v64 both[2] = {__builtin_shuffle(a, b, lower), __builtin_shuffle(a, b, upper)};
  memcpy(p, both, sizeof both);
#else
  for (int i = 0; i < COUNTERS; i++) {
    p[2 * i] = a[i];
    p[2 * i + 1] = b[i];
  }
#endif
}

/* td_philox(seed, counter), td_philox(seed, counter + 1), ... one after the other, `blocks` of them
 * or some more: each four words in two, the first in the low half. Here words live in the low
 * halves of 64-bit elements, whose high halves are noise. */
static void philox_pairs(uint64_t *pairs, size_t blocks, uint64_t seed, uint64_t counter) {
  v64 lane;
  for (int i = 0; i < COUNTERS; i++) lane[i] = (uint64_t)i;
  for (size_t b = 0; b < blocks; b += COUNTERS) {
    v64 c = lane + (counter + b);
    v64 x0 = c, x1 = c >> 32, x2 = {0}, x3 = {0};
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
#pragma GCC unroll 10
    for (int r = 0; r < ROUNDS; r++) {
      v64 p0 = wide_mul(x0, 0xD2511F53u), p1 = wide_mul(x2, 0xCD9E8D57u);
      x0 = (p1 >> 32) ^ x1 ^ (uint64_t)key0;
      x2 = (p0 >> 32) ^ x3 ^ (uint64_t)key1;
      x1 = p1;
      x3 = p0;
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    store_interleaved(pairs + 2 * b, (x0 & 0xffffffffu) | x1 << 32, (x2 & 0xffffffffu) | x3 << 32);
  }
}

/* ---- From words to numbers ------------------------------------------------------------------ */

#if TD_KREAL == 0
typedef uint32_t bits;
static inline bits bits_at(const uint64_t *w, size_t i) { return (bits)(w[i / 2] >> (i % 2 * 32)); }
static inline real real_of(bits b) { /* rounded to nearest */
  return (real)(int32_t)(b >> 16) * 65536.0f + (real)(int32_t)(b & 0xffff);
}
static inline real unit_of(bits b) { return (real)(int32_t)(b >> 8) * 0x1p-24f; }  /* [0, 1) */
static inline real open_unit_of(bits b) { return (real_of(b) + 0.5f) * 0x1p-32f; } /* (0, 1] */
/* The lower 30 bits as an angle in [-π/4, π/4). */
static inline real angle_of(bits b) {
  return (real)((int32_t)(b & 0x3fffffffu) - 0x20000000) *
         1.46291807926715968e-9f; /* π/2 · 2^-30 */
}
static inline ireal quarter_of(bits b) { return (ireal)(b >> 30); }
#else
typedef uint64_t bits;
static inline bits bits_at(const uint64_t *w, size_t i) { return w[i]; }
static inline real unit_of(bits b) { return (real)(int64_t)(b >> 11) * 0x1p-53; }
static inline real open_unit_of(bits b) { return ((real)(int64_t)(b >> 11) + 0.5) * 0x1p-53; }
/* Bits 9 to 61 as an angle in [-π/4, π/4). */
static inline real angle_of(bits b) {
  return (real)((int64_t)(b >> 9 & 0x1fffffffffffff) - 0x10000000000000) *
         1.74393424898141376e-16; /* π/2 · 2^-53 */
}
static inline ireal quarter_of(bits b) { return (ireal)(b >> 62); }
#endif

/* The two below make n <= CHUNK numbers of words that are there for whole vectors of pairs. */
static void uniform_chunk(real *y, size_t n, const uint64_t *w) {
  for (size_t i = 0; i < n; i++) y[i] = unit_of(bits_at(w, i));
}

/* Box and Muller: of each pair the first gives the radius, the second the angle. */
static void normal_chunk(real *y, size_t n, const uint64_t *w) {
  _Alignas(64) real unit[PAIRS], angle[PAIRS];
  _Alignas(64) ireal quarter[PAIRS];
  size_t pairs = (n + 2 * TD_LANES - 1) / (2 * TD_LANES) * TD_LANES;
  for (size_t i = 0; i < pairs; i++) {
    bits first = bits_at(w, 2 * i), second = bits_at(w, 2 * i + 1);
    unit[i] = open_unit_of(first);
    angle[i] = angle_of(second);
    quarter[i] = quarter_of(second);
  }
  for (size_t i = 0; i < pairs; i += TD_LANES) {
    vreal s, c, radius = td_vsqrt(td_vlog_normal(td_load(unit + i)) * TD_C(-2));
    td_vsincos_poly(td_load(angle + i), &s, &c);
    vuint q = *(const vuint *)(const void *)(quarter + i);
    vint odd = -(vint)(q & 1);
    vuint minus_c = (q + 1) & 2, minus_s = q & 2;
    vreal cosine = (vreal)((vuint)td_vselect(odd, s, c) ^ minus_c << (TD_KREAL ? 62 : 30));
    vreal sine = (vreal)((vuint)td_vselect(odd, c, s) ^ minus_s << (TD_KREAL ? 62 : 30));
    td_store(unit + i, radius * cosine);
    td_store(angle + i, radius * sine);
  }
  for (size_t i = 0; i < n / 2; i++) {
    y[2 * i] = unit[i];
    y[2 * i + 1] = angle[i];
  }
  if (n % 2) y[n - 1] = unit[n / 2];
}

/* ---- The kernels ---------------------------------------------------------------------------- */

typedef struct {
  real *y;
  size_t n;
  uint64_t seed, counter;
  void (*chunk)(real *y, size_t n, const uint64_t *w);
} fill;

static void fill_chunks(void *ctx, size_t begin, size_t end) {
  const fill *f = ctx;
  _Alignas(64) uint64_t words[2 * BLOCKS];
  for (size_t k = begin; k < end; k++) {
    size_t at = k * CHUNK, n = f->n - at < CHUNK ? f->n - at : CHUNK;
    philox_pairs(words, (n + PER_BLOCK - 1) / PER_BLOCK, f->seed, f->counter + k * BLOCKS);
    f->chunk(f->y + at, n, words);
  }
}

static void run(fill f) { td_parallel((f.n + CHUNK - 1) / CHUNK, 8, fill_chunks, &f); }

void TD_K(uniform)(void *y, size_t n, uint64_t seed, uint64_t counter) {
  run((fill){y, n, seed, counter, uniform_chunk});
}

void TD_K(normal)(void *y, size_t n, uint64_t seed, uint64_t counter) {
  run((fill){y, n, seed, counter, normal_chunk});
}
