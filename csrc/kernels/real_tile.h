/* The register tile under convolution: P rows × V vectors of sums that stay in registers while
 * products of broadcast elements and vectors are added to them. What P, V and the distances mean is
 * the caller's affair: in a convolution the rows are pixels and the vectors output channels; in its
 * weight gradient the rows are input channels. Include it after isa.h, with TILE_PITCH defined as
 * the constant distance of two rows in x, which lets every broadcast be one load with a constant
 * displacement; with TILE_AHEAD, to have elements of b asked for `ahead` of when they are needed, where b
 * comes from memory faster than the processor fetches ahead by itself; and with TILE_PAIRS, to have tiles
 * of pairs of bfloat16 as well.
 *
 * Sums of one output element are always made in the same order, whatever P and V are, so the way a
 * caller cuts its work into tiles never shows in the result. */
#ifndef TD_KERNELS_REAL_TILE_H
#define TD_KERNELS_REAL_TILE_H
#include "kernels/real_pair.h"

typedef struct {
  real *y;             /* P rows of V vectors, rows `y_pitch` elements apart */
  size_t y_pitch;
  const real *init;    /* V vectors that every row starts from; NULL starts from what y holds */
  const real *x;       /* row p, tap t, step k: x[off[t] + p·TILE_PITCH + k·x_step] */
  const size_t *off;
  size_t taps, steps, x_step;
  const real *b;       /* taps·steps rows of V vectors, one after the other */
#ifdef TILE_AHEAD
  size_t ahead;        /* elements; 0: nothing is asked for */
#endif
} tile_job;

typedef void (*tile_fn)(const tile_job *);

/* Most rows of a tile of one, two and four vectors. The sums, V vectors of b and one broadcast
 * share 32 vector registers with AVX-512 and 16 otherwise. */
#if TD_KISA == 2
enum { TILE_ROWS_1 = 28, TILE_ROWS_2 = 14, TILE_ROWS_4 = 6 };
#else
enum { TILE_ROWS_1 = 12, TILE_ROWS_2 = 6, TILE_ROWS_4 = 2 };
#endif

/* The loops over P and V must unroll completely, the first one too: a loop that is left would index
 * the sums and so keep them in memory. */
static inline __attribute__((always_inline)) void tile_body(const td_term term, const int P,
                                                            const int V, const tile_job *j) {
  vreal sum[TILE_ROWS_1][4];
  const real *b = j->b;
  real *const y = j->y;
  const size_t x_step = j->x_step, steps = j->steps;
  size_t y_pitch = j->y_pitch;
  if (j->init) {
#pragma GCC unroll 32
    for (int p = 0; p < P; p++) {
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) sum[p][v] = td_load(j->init + v * TD_LANES);
    }
  } else {
#pragma GCC unroll 32
    for (int p = 0; p < P; p++) {
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) sum[p][v] = td_load(y + (size_t)p * y_pitch + v * TD_LANES);
    }
  }
  for (size_t t = 0; t < j->taps; t++) {
    const real *x = j->x + j->off[t];
#ifdef TILE_AHEAD
    if (j->ahead)  /* not among the products, where it would take a twentieth of their time */
      for (size_t i = 0; i < steps * V * TD_LANES; i += 64 / sizeof(real)) __builtin_prefetch(b + j->ahead + i);
#endif
    if (t + 1 < j->taps) {  /* the next tap's rows, which begin anew elsewhere */
      const real *next = j->x + j->off[t + 1];
#pragma GCC unroll 32
      for (int p = 0; p < P; p++) __builtin_prefetch(next + p * TILE_PITCH);
    }
    for (size_t k = 0; k < steps; k++) {
      vreal bv[4];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) bv[v] = td_load(b + v * TD_LANES);
#pragma GCC unroll 32
      for (int p = 0; p < P; p++) {
        vreal a = td_splat(x[p * TILE_PITCH]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sum[p][v] = td_add_term(term, sum[p][v], a, bv[v]);
      }
      x += x_step;
      b += V * TD_LANES;
    }
  }
  /* forget the rows' addresses, which would else be kept in memory over the loops */
  __asm__("" : "+r"(y_pitch));
#pragma GCC unroll 32
  for (int p = 0; p < P; p++) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) td_store(y + (size_t)p * y_pitch + v * TD_LANES, sum[p][v]);
  }
}

#define TILE(term, P, V) static void tile_##term##_##P##_##V(const tile_job *j) { tile_body(term, P, V, j); }
#define NAME(term, P, V) tile_##term##_##P##_##V,
#define EACH_6(X, term, V) X(term, 1, V) X(term, 2, V) X(term, 3, V) X(term, 4, V) X(term, 5, V) X(term, 6, V)
#define TO_12(X, term, V) X(term, 7, V) X(term, 8, V) X(term, 9, V) X(term, 10, V) X(term, 11, V) X(term, 12, V)
#if TD_KISA == 2
#define EACH_1(X, term) EACH_6(X, term, 1) TO_12(X, term, 1) X(term, 13, 1) X(term, 14, 1) X(term, 15, 1)            \
  X(term, 16, 1) X(term, 17, 1) X(term, 18, 1) X(term, 19, 1) X(term, 20, 1) X(term, 21, 1) X(term, 22, 1)          \
  X(term, 23, 1) X(term, 24, 1) X(term, 25, 1) X(term, 26, 1) X(term, 27, 1) X(term, 28, 1)
#define EACH_2(X, term) EACH_6(X, term, 2) TO_12(X, term, 2) X(term, 13, 2) X(term, 14, 2)
#define EACH_4(X, term) EACH_6(X, term, 4)
#else
#define EACH_1(X, term) EACH_6(X, term, 1) TO_12(X, term, 1)
#define EACH_2(X, term) EACH_6(X, term, 2)
#define EACH_4(X, term) X(term, 1, 4) X(term, 2, 4)
#endif
/* tiles of a term: [V/2][P] */
typedef const tile_fn tile_fns[3][TILE_ROWS_1 + 1];
#define TILES(term)                                                  \
  EACH_1(TILE, term) EACH_2(TILE, term) EACH_4(TILE, term)           \
  static tile_fns tiles_##term = {                                   \
    {NULL, EACH_1(NAME, term)}, {NULL, EACH_2(NAME, term)}, {NULL, EACH_4(NAME, term)}};

TILES(TD_BY_ELEMENT)
#define tile_table tiles_TD_BY_ELEMENT
#if TD_HAS_PAIRS && defined(TILE_PAIRS)
TILES(TD_BY_PAIR)
#if TD_HAS_PAIRS_X86
TILES(TD_BY_PAIR_X86)
#endif
#endif

#ifdef TILE_PAIRS
static inline tile_fns *tiles_of(td_term term) {
#if TD_HAS_PAIRS_X86
  if (term == TD_BY_PAIR_X86) return &tiles_TD_BY_PAIR_X86;
#endif
#if TD_HAS_PAIRS
  if (term != TD_BY_ELEMENT) return &tiles_TD_BY_PAIR;
#endif
  (void)term;
  return &tiles_TD_BY_ELEMENT;
}
#endif

#undef TILE
#undef NAME
#undef EACH_6
#undef TO_12
#undef EACH_1
#undef EACH_2
#undef EACH_4
#undef TILES

static inline size_t tile_rows(size_t v) {
  return v == 1 ? TILE_ROWS_1 : v == 2 ? TILE_ROWS_2 : TILE_ROWS_4;
}

/* How many vectors wide the next tile should be when `left` vectors are left and there are `rows`
 * rows to cut. */
static inline size_t tile_width(size_t rows, size_t left) {
  if (left >= 4 && rows <= TILE_ROWS_4) return 4;
  return left >= 2 ? 2 : 1;
}

#endif
