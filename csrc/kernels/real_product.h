/* The register tile under products: sums of a few rows and vectors of columns stay in registers
 * while rows of b are read as they lie. Include it after isa.h; with PRODUCT_PAIRS defined there are tiles of pairs of
 * bfloat16 as well. */
#ifndef TD_KERNELS_REAL_PRODUCT_H
#define TD_KERNELS_REAL_PRODUCT_H
#include "kernels/real_pair.h"
#include "kernels/vmath.h"

/* c[i·c_row + j] = alpha·Σ a[i·a_row + l·a_col]·b[l·b_row + j·b_col] + beta·c[i·c_row + j], for
 * i < m, j < n, the sum over l < k */
typedef struct {
  real *c;
  const real *a, *b;
  size_t m, n, k;
  size_t a_row, a_col, b_row, b_col, c_row;
  real alpha, beta;
} product;

/* Most rows of a tile, of one that is a single vector wide, and most vectors. */
#if TD_KISA == 2
enum { ROWS = 6, ROWS_1 = 12, WIDTH = 4 };
#else
enum { ROWS = 6, ROWS_1 = 12, WIDTH = 2 };
#endif

enum { LONG_SUM = 64 };

/* P rows × V vectors of c, from its corner on; b_col is 1. Only `last` elements of the last vector
 * exist, or all (0). */
static inline __attribute__((always_inline)) void tile_body(const td_term term, const int P,
                                                            const int V, const product *q, size_t last) {
  vreal sum[ROWS_1][WIDTH];
  const real *a = q->a, *b = q->b;
  const size_t a_row = q->a_row, a_col = q->a_col, b_row = q->b_row;
#pragma GCC unroll 16
  for (int p = 0; p < P; p++) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) sum[p][v] = (vreal){0};
  }
  if (q->k >= LONG_SUM)  /* long enough for c's rows to arrive meanwhile */
    for (int p = 0; p < P; p++)
      for (int v = 0; v < V; v++) td_expect_write(q->c + (size_t)p * q->c_row + v * TD_LANES);
  for (size_t l = q->k; l; l--) {
    vreal bv[WIDTH];
#pragma GCC unroll 4
    for (int v = 0; v + 1 < V; v++) bv[v] = td_load(b + v * TD_LANES);
    const real *b_last = b + (V - 1) * TD_LANES;
    bv[V - 1] = last ? td_load_part(b_last, last) : td_load(b_last);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) {
      vreal x = td_splat(a[(size_t)p * a_row]);
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) sum[p][v] = td_add_term(term, sum[p][v], x, bv[v]);
    }
    a += a_col;
    b += b_row;
  }
  real *c = q->c;
  const size_t c_row = q->c_row;
  const vreal alpha = td_splat(q->alpha), beta = td_splat(q->beta);
  const bool adds = q->beta != 0;
#pragma GCC unroll 8
  for (int p = 0; p < P; p++, c += c_row) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      real *to = c + v * TD_LANES;
      bool part = last && v + 1 == V;
      vreal s = alpha * sum[p][v];
      if (adds) s += beta * (part ? td_load_part(to, last) : td_load(to));
      if (part) td_store_part(to, s, last);
      else td_store(to, s);
    }
  }
}

typedef void (*tile_fn)(const product *, size_t);
#define TILE(term, P, V)                                                                         \
  static void whole_##term##_##P##_##V(const product *q, size_t last) {                          \
    (void)last;                                                                                  \
    tile_body(term, P, V, q, 0);                                                                 \
  }                                                                                              \
  static void part_##term##_##P##_##V(const product *q, size_t last) { tile_body(term, P, V, q, last); }
#define OF_WIDTH(term, V)                                                                        \
  TILE(term, 1, V) TILE(term, 2, V) TILE(term, 3, V) TILE(term, 4, V) TILE(term, 5, V) TILE(term, 6, V)
#define OF_ONE(term)                                                                             \
  OF_WIDTH(term, 1)                                                                              \
  TILE(term, 7, 1) TILE(term, 8, 1) TILE(term, 9, 1) TILE(term, 10, 1) TILE(term, 11, 1) TILE(term, 12, 1)
#define ROW(name, V)                                                                             \
  name##_1_##V, name##_2_##V, name##_3_##V, name##_4_##V, name##_5_##V, name##_6_##V
#define ROW_1(name)                                                                              \
  {ROW(name, 1), name##_7_1, name##_8_1, name##_9_1, name##_10_1, name##_11_1, name##_12_1}
#if TD_KISA == 2
#define OF_TERM(term) OF_ONE(term) OF_WIDTH(term, 2) OF_WIDTH(term, 3) OF_WIDTH(term, 4)
#define ROWS_OF(name) {ROW_1(name), {ROW(name, 2)}, {ROW(name, 3)}, {ROW(name, 4)}}
#else
#define OF_TERM(term) OF_ONE(term) OF_WIDTH(term, 2)
#define ROWS_OF(name) {ROW_1(name), {ROW(name, 2)}}
#endif
/* [is the last vector a part?][vectors - 1][rows - 1] */
typedef const tile_fn tile_fns[2][WIDTH][ROWS_1];
#define TILES(term)                                                                              \
  OF_TERM(term)                                                                                  \
  static tile_fns tiles_##term = {ROWS_OF(whole_##term), ROWS_OF(part_##term)};

TILES(TD_BY_ELEMENT)
#if TD_HAS_PAIRS && defined(PRODUCT_PAIRS)
TILES(TD_BY_PAIR)
#if TD_HAS_PAIRS_X86
TILES(TD_BY_PAIR_X86)
#endif
#endif

/* The whole product, b_col = 1. */
static inline void run_tile_fns(tile_fns *fns, const product *p) {
  product q = *p;
  for (size_t j = 0; j < p->n; j += WIDTH * TD_LANES) {
    size_t left = p->n - j, v = left >= WIDTH * TD_LANES ? WIDTH : (left + TD_LANES - 1) / TD_LANES;
    size_t last = left >= WIDTH * TD_LANES ? 0 : left % TD_LANES;
    size_t most = v == 1 ? ROWS_1 : ROWS, tiles = (p->m + most - 1) / most;
    q.b = p->b + j;
    for (size_t t = 0; t < tiles; t++) {
      size_t i0 = p->m * t / tiles, i1 = p->m * (t + 1) / tiles;
      q.a = p->a + i0 * p->a_row;
      q.c = p->c + i0 * p->c_row + j;
      (*fns)[last > 0][v - 1][i1 - i0 - 1](&q, last);
    }
  }
}

#ifdef PRODUCT_PAIRS
static void run_term_tiles(td_term term, const product *p) {
  (void)term;
#if TD_HAS_PAIRS_X86
  if (term == TD_BY_PAIR_X86) run_tile_fns(&tiles_TD_BY_PAIR_X86, p);
  else
#endif
#if TD_HAS_PAIRS
  if (term != TD_BY_ELEMENT) run_tile_fns(&tiles_TD_BY_PAIR, p);
  else
#endif
    run_tile_fns(&tiles_TD_BY_ELEMENT, p);
}
#else
static inline void run_tiles(const product *p) { run_tile_fns(&tiles_TD_BY_ELEMENT, p); }
#endif

#undef TILE
#undef TILES
#undef ROW
#undef ROW_1
#undef ROWS_OF
#undef OF_ONE
#undef OF_WIDTH
#undef OF_TERM

#endif
