/* The register tile under convolution: P rows × V vectors of sums that stay in registers while
 * products of broadcast elements and vectors are added to them. What P, V and the distances mean is
 * the caller's affair: in a convolution the rows are pixels and the vectors output channels; in its
 * weight gradient the rows are input channels. Include it after isa.h, with TILE_PITCH defined as
 * the constant distance of two rows in x, which lets every broadcast be one load with a constant
 * displacement.
 *
 * Sums of one output element are always made in the same order, whatever P and V are, so the way a
 * caller cuts its work into tiles never shows in the result. */
#ifndef TD_KERNELS_REAL_TILE_H
#define TD_KERNELS_REAL_TILE_H

typedef struct {
  real *y;             /* P rows of V vectors, rows `y_pitch` elements apart */
  size_t y_pitch;
  const real *init;    /* V vectors that every row starts from; NULL starts from what y holds */
  const real *x;       /* row p, tap t, step k: x[off[t] + p·TILE_PITCH + k·x_step] */
  const size_t *off;
  size_t taps, steps, x_step;
  const real *b;       /* taps·steps rows of V vectors, one after the other */
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
static inline __attribute__((always_inline)) void tile_body(const int P, const int V,
                                                            const tile_job *j) {
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
    for (size_t k = 0; k < steps; k++) {
      vreal bv[4];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) bv[v] = td_load(b + v * TD_LANES);
#pragma GCC unroll 32
      for (int p = 0; p < P; p++) {
        vreal a = td_splat(x[p * TILE_PITCH]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sum[p][v] += a * bv[v];
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

#define TILE(P, V) static void tile_##P##_##V(const tile_job *j) { tile_body(P, V, j); }
TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1)
TILE(7, 1) TILE(8, 1) TILE(9, 1) TILE(10, 1) TILE(11, 1) TILE(12, 1)
TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2) TILE(5, 2) TILE(6, 2)
TILE(1, 4) TILE(2, 4)
#if TD_KISA == 2
TILE(13, 1) TILE(14, 1) TILE(15, 1) TILE(16, 1) TILE(17, 1) TILE(18, 1) TILE(19, 1) TILE(20, 1)
TILE(21, 1) TILE(22, 1) TILE(23, 1) TILE(24, 1) TILE(25, 1) TILE(26, 1) TILE(27, 1) TILE(28, 1)
TILE(7, 2) TILE(8, 2) TILE(9, 2) TILE(10, 2) TILE(11, 2) TILE(12, 2) TILE(13, 2) TILE(14, 2)
TILE(3, 4) TILE(4, 4) TILE(5, 4) TILE(6, 4)
#endif
#undef TILE

/* tile_table[V/2][P] */
static const tile_fn tile_table[3][TILE_ROWS_1 + 1] = {
#if TD_KISA == 2
  {NULL,      tile_1_1,  tile_2_1,  tile_3_1,  tile_4_1,  tile_5_1,  tile_6_1,  tile_7_1,
   tile_8_1,  tile_9_1,  tile_10_1, tile_11_1, tile_12_1, tile_13_1, tile_14_1, tile_15_1,
   tile_16_1, tile_17_1, tile_18_1, tile_19_1, tile_20_1, tile_21_1, tile_22_1, tile_23_1,
   tile_24_1, tile_25_1, tile_26_1, tile_27_1, tile_28_1},
  {NULL,      tile_1_2,  tile_2_2,  tile_3_2,  tile_4_2,  tile_5_2,  tile_6_2,  tile_7_2,
   tile_8_2,  tile_9_2,  tile_10_2, tile_11_2, tile_12_2, tile_13_2, tile_14_2},
  {NULL, tile_1_4, tile_2_4, tile_3_4, tile_4_4, tile_5_4, tile_6_4},
#else
  {NULL, tile_1_1, tile_2_1, tile_3_1, tile_4_1, tile_5_1, tile_6_1,
   tile_7_1, tile_8_1, tile_9_1, tile_10_1, tile_11_1, tile_12_1},
  {NULL, tile_1_2, tile_2_2, tile_3_2, tile_4_2, tile_5_2, tile_6_2},
  {NULL, tile_1_4, tile_2_4},
#endif
};

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
