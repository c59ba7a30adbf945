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
  WORDS = 1024,                          /* of 32 bits, in a chunk */
  BLOCKS = WORDS / 4,                    /* Philox blocks in a chunk */
  CHUNK = WORDS * 4 / (int)sizeof(real), /* numbers in a chunk: a word a float, two a double */
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

/* The words of td_philox(seed, counter), td_philox(seed, counter + 1), ... one after the other.
 * Words live in the low halves of 64-bit elements, whose high halves are noise. */
static void philox_words(uint32_t words[WORDS], uint64_t seed, uint64_t counter) {
  v64 lane;
  for (int i = 0; i < COUNTERS; i++) lane[i] = (uint64_t)i;
  for (size_t b = 0; b < BLOCKS; b += COUNTERS) {
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
    v64 low = (x0 & 0xffffffffu) | x1 << 32, high = (x2 & 0xffffffffu) | x3 << 32;
    for (int i = 0; i < COUNTERS; i++) { /* little-endian or not, word by word */
      words[4 * (b + (size_t)i)] = (uint32_t)low[i];
      words[4 * (b + (size_t)i) + 1] = (uint32_t)(low[i] >> 32);
      words[4 * (b + (size_t)i) + 2] = (uint32_t)high[i];
      words[4 * (b + (size_t)i) + 3] = (uint32_t)(high[i] >> 32);
    }
  }
}

/* ---- From words to numbers ------------------------------------------------------------------ */

#if TD_KREAL == 0
typedef uint32_t bits;
static inline bits bits_at(const uint32_t *w, size_t i) { return w[i]; }
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
static inline bits bits_at(const uint32_t *w, size_t i) {
  return w[2 * i] | (uint64_t)w[2 * i + 1] << 32;
}
static inline real unit_of(bits b) { return (real)(int64_t)(b >> 11) * 0x1p-53; }
static inline real open_unit_of(bits b) { return ((real)(int64_t)(b >> 11) + 0.5) * 0x1p-53; }
/* Bits 9 to 61 as an angle in [-π/4, π/4). */
static inline real angle_of(bits b) {
  return (real)((int64_t)(b >> 9 & 0x1fffffffffffff) - 0x10000000000000) *
         1.74393424898141376e-16; /* π/2 · 2^-53 */
}
static inline ireal quarter_of(bits b) { return (ireal)(b >> 62); }
#endif

static void uniform_chunk(real *y, const uint32_t *w) {
  for (size_t i = 0; i < CHUNK; i++) y[i] = unit_of(bits_at(w, i));
}

/* Box and Muller: of each pair of words the first gives the radius, the second the angle. */
static void normal_chunk(real *y, const uint32_t *w) {
  _Alignas(64) real unit[PAIRS], angle[PAIRS];
  _Alignas(64) ireal quarter[PAIRS];
  for (size_t i = 0; i < PAIRS; i++) {
    bits second = bits_at(w, 2 * i + 1);
    unit[i] = open_unit_of(bits_at(w, 2 * i));
    angle[i] = angle_of(second);
    quarter[i] = quarter_of(second);
  }
  for (size_t i = 0; i < PAIRS; i += TD_LANES) {
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
  for (size_t i = 0; i < PAIRS; i++) {
    y[2 * i] = unit[i];
    y[2 * i + 1] = angle[i];
  }
}

/* ---- The kernels ---------------------------------------------------------------------------- */

typedef struct {
  real *y;
  size_t n;
  uint64_t seed, counter;
  void (*chunk)(real *y, const uint32_t *w);
} fill;

static void fill_chunks(void *ctx, size_t begin, size_t end) {
  const fill *f = ctx;
  _Alignas(64) uint32_t words[WORDS];
  _Alignas(64) real last[CHUNK];
  for (size_t k = begin; k < end; k++) {
    size_t at = k * CHUNK, left = f->n - at;
    philox_words(words, f->seed, f->counter + k * BLOCKS);
    f->chunk(left < CHUNK ? last : f->y + at, words);
    if (left < CHUNK) memcpy(f->y + at, last, left * sizeof(real));
  }
}

static void run(fill f) { td_parallel((f.n + CHUNK - 1) / CHUNK, 8, fill_chunks, &f); }

void TD_K(uniform)(void *y, size_t n, uint64_t seed, uint64_t counter) {
  run((fill){y, n, seed, counter, uniform_chunk});
}

void TD_K(normal)(void *y, size_t n, uint64_t seed, uint64_t counter) {
  run((fill){y, n, seed, counter, normal_chunk});
}
