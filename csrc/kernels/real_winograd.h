/* The transforms of Winograd's minimal filtering F(m×m, 3×3): m×m results of a 3×3 kernel from
 * (m+2)² products instead of 9·m². With polynomials evaluated at m+1 points and infinity, a tile of
 * results is Aᵀ[(G·w·Gᵀ) ⊙ (Bᵀ·d·B)]A (Lavin and Gray 2016, section 4).
 *
 * Points are 0, ±P and, for m = 4, ±Q. The rows of Bᵀ are the coefficients of the polynomials that
 * vanish at all points but one, those of Aᵀ powers of the points, and G divides the powers by the
 * polynomial's value at its point. Written for the two points ±p at a time, a transform along one
 * axis needs few operations. Include it after isa.h. */
#ifndef TD_KERNELS_REAL_WINOGRAD_H
#define TD_KERNELS_REAL_WINOGRAD_H
#include "kernels/real_conv.h"

enum { WINO_MAX = 6, WINO_BLOCK = 16 };  /* greatest m + 2; channels that lie side by side */

#define WINO_INLINE static inline __attribute__((always_inline))

/* 1/√2 and √2 keep all the numbers near 1, so that they round less than with the usual 1 and 2:
 * see the table of errors in doc/performance.md. */
#define WINO_P ((real)0.70710678118654752440)
#define WINO_Q ((real)1.41421356237309504880)
#define WINO_PP (WINO_P * WINO_P)
#define WINO_QQ (WINO_Q * WINO_Q)

/* Bᵀ·d along one axis, m + 2 elements. */
WINO_INLINE void wino_input(const int m, const vreal *d, vreal *t) {
  if (m == 2) {
    t[0] = d[0] - d[2];
    t[1] = d[1] + d[2];
    t[2] = d[2] - d[1];
    t[3] = d[3] - d[1];
    return;
  }
  vreal even_p = d[4] - WINO_QQ * d[2], odd_p = d[3] - WINO_QQ * d[1];
  vreal even_q = d[4] - WINO_PP * d[2], odd_q = d[3] - WINO_PP * d[1];
  t[0] = WINO_PP * WINO_QQ * d[0] - ((WINO_PP + WINO_QQ) * d[2] - d[4]);
  t[1] = even_p + WINO_P * odd_p;
  t[2] = even_p - WINO_P * odd_p;
  t[3] = even_q + WINO_Q * odd_q;
  t[4] = even_q - WINO_Q * odd_q;
  t[5] = WINO_PP * WINO_QQ * d[1] - ((WINO_PP + WINO_QQ) * d[3] - d[5]);
}

/* Aᵀ·t along one axis: m + 2 elements to m. */
WINO_INLINE void wino_output(const int m, const vreal *t, vreal *y) {
  vreal sum_p = t[1] + t[2], dif_p = t[1] - t[2];
  if (m == 2) {
    y[0] = t[0] + sum_p;
    y[1] = dif_p + t[3];
    return;
  }
  vreal sum_q = t[3] + t[4], dif_q = t[3] - t[4];
  y[0] = t[0] + sum_p + sum_q;
  y[1] = WINO_P * dif_p + WINO_Q * dif_q;
  y[2] = WINO_PP * sum_p + WINO_QQ * sum_q;
  y[3] = WINO_P * WINO_PP * dif_p + (WINO_Q * WINO_QQ * dif_q + t[5]);
}

/* A·y along one axis, the transpose of the above: m elements to m + 2. */
WINO_INLINE void wino_output_back(const int m, const vreal *y, vreal *t) {
  t[0] = y[0];
  if (m == 2) {
    t[1] = y[0] + y[1];
    t[2] = y[0] - y[1];
    t[3] = y[1];
    return;
  }
  vreal even_p = y[0] + WINO_PP * y[2], odd_p = WINO_P * (y[1] + WINO_PP * y[3]);
  vreal even_q = y[0] + WINO_QQ * y[2], odd_q = WINO_Q * (y[1] + WINO_QQ * y[3]);
  t[1] = even_p + odd_p;
  t[2] = even_p - odd_p;
  t[3] = even_q + odd_q;
  t[4] = even_q - odd_q;
  t[5] = y[3];
}

/* What G divides by: the polynomial at 0, at ±P and at ±Q. */
#define WINO_N0 (WINO_PP * WINO_QQ)
#define WINO_NP (2 * WINO_PP * (WINO_PP - WINO_QQ))
#define WINO_NQ (2 * WINO_QQ * (WINO_QQ - WINO_PP))

/* G·w along one axis: 3 elements to m + 2. */
WINO_INLINE void wino_weight(const int m, const vreal *w, vreal *t) {
  if (m == 2) {
    vreal even = (real)0.5 * (w[0] + w[2]), odd = (real)0.5 * w[1];
    t[0] = w[0], t[1] = even + odd, t[2] = even - odd, t[3] = w[2];
    return;
  }
  vreal even_p = w[0] + WINO_PP * w[2], odd_p = WINO_P * w[1];
  vreal even_q = w[0] + WINO_QQ * w[2], odd_q = WINO_Q * w[1];
  t[0] = w[0] * (1 / WINO_N0);
  t[1] = (even_p + odd_p) * (1 / WINO_NP);
  t[2] = (even_p - odd_p) * (1 / WINO_NP);
  t[3] = (even_q + odd_q) * (1 / WINO_NQ);
  t[4] = (even_q - odd_q) * (1 / WINO_NQ);
  t[5] = w[2];
}

/* Gᵀ·t along one axis, the transpose of the above: m + 2 elements to 3. */
WINO_INLINE void wino_weight_back(const int m, const vreal *t, vreal *w) {
  vreal sum_p = t[1] + t[2], dif_p = t[1] - t[2];
  if (m == 2) {
    w[0] = t[0] + (real)0.5 * sum_p;
    w[1] = (real)0.5 * dif_p;
    w[2] = t[3] + (real)0.5 * sum_p;
    return;
  }
  vreal sum_q = t[3] + t[4], dif_q = t[3] - t[4];
  w[0] = t[0] * (1 / WINO_N0) + (sum_p * (1 / WINO_NP) + sum_q * (1 / WINO_NQ));
  w[1] = dif_p * (WINO_P / WINO_NP) + dif_q * (WINO_Q / WINO_NQ);
  w[2] = t[5] + (sum_p * (WINO_PP / WINO_NP) + sum_q * (WINO_QQ / WINO_NQ));
}

/* Both axes at once, one vector of channels: `from` has elements (i, j), results go to
 * i·to_row + j·to_col, plus `start`. Each is one transform along the columns into memory that stays
 * in the first-level cache, then one along the rows. `load` and `store` are expressions. */
#define WINO_BOTH(step, from_n, to_n, load, store)                                                \
  vreal half[WINO_MAX][WINO_MAX], d[WINO_MAX], t[WINO_MAX];                                       \
  _Pragma("GCC unroll 1") for (int j = 0; j < (from_n); j++) {                                    \
    _Pragma("GCC unroll 6") for (int i = 0; i < (from_n); i++) d[i] = load;                       \
    step(m, d, t);                                                                                \
    _Pragma("GCC unroll 6") for (int i = 0; i < (to_n); i++) half[i][j] = t[i];                   \
  }                                                                                               \
  _Pragma("GCC unroll 1") for (int i = 0; i < (to_n); i++) {                                      \
    real *at = to + (size_t)i * to_row;                                                           \
    _Pragma("GCC unroll 6") for (int j = 0; j < (from_n); j++) d[j] = half[i][j];                 \
    step(m, d, t);                                                                                \
    _Pragma("GCC unroll 6") for (int j = 0; j < (to_n); j++, at += to_col) td_store(at, store);   \
  }

/* Elements of `from` are i·row + j·col. */
#define WINO_STRIDED(name, step, from_n, to_n)                                                    \
  WINO_INLINE void name(const int m, const real *from, size_t row, size_t col, real *to,          \
                        size_t to_row, size_t to_col) {                                           \
    WINO_BOTH(step, from_n, to_n, td_load(from + (size_t)i * row + (size_t)j * col), t[j])        \
  }
WINO_STRIDED(wino_input_both, wino_input, m + 2, m + 2)
WINO_STRIDED(wino_output_back_both, wino_output_back, m, m + 2)
WINO_STRIDED(wino_weight_both, wino_weight, 3, m + 2)
WINO_STRIDED(wino_weight_back_both, wino_weight_back, m + 2, 3)

/* Elements of `from` are where the table says, `offset` further. */
#define WINO_LISTED(name, step, from_n, to_n)                                                     \
  WINO_INLINE void name(const int m, const real *const *from, size_t offset, real *to,            \
                        size_t to_row, size_t to_col) {                                           \
    WINO_BOTH(step, from_n, to_n, td_load(from[i * (from_n) + j] + offset), t[j])                 \
  }
WINO_LISTED(wino_input_listed, wino_input, m + 2, m + 2)
WINO_LISTED(wino_output_back_listed, wino_output_back, m, m + 2)

WINO_INLINE void wino_output_both(const int m, const real *from, size_t row, size_t col, real *to,
                                  size_t to_row, size_t to_col, vreal start) {
  WINO_BOTH(wino_output, m + 2, m, td_load(from + (size_t)i * row + (size_t)j * col), t[j] + start)
}

/* Images n×h×w×c. */
typedef struct {
  const real *data;
  size_t h, w, c;
} wino_images;

/* Whether size×size pixels from (top, left) on all lie in the image. */
static inline bool wino_inside(const wino_images *x, ptrdiff_t top, ptrdiff_t left, size_t size) {
  return top >= 0 && left >= 0 && (size_t)top + size <= x->h && (size_t)left + size <= x->w;
}

/* The address of each of those pixels of image n; `zeros` (c of them) for one outside. */
static inline void wino_list(const wino_images *x, size_t n, ptrdiff_t top, ptrdiff_t left,
                             size_t size, const real *zeros, const real **list) {
  const real *image = x->data + n * x->h * x->w * x->c;
  for (size_t i = 0; i < size; i++)
    for (size_t j = 0; j < size; j++) {
      size_t h = (size_t)(top + (ptrdiff_t)i), w = (size_t)(left + (ptrdiff_t)j);
      bool there = h < x->h && w < x->w;  /* coordinates below 0 wrap round to large ones */
      *list++ = there ? image + (h * x->w + w) * x->c : zeros;
    }
}

/* `count` channels from c0 on of the pixels listed to copies of `room` elements, zeros at their end;
 * the list then names the copies. */
static inline void wino_copy(const real **list, size_t pixels, size_t c0, size_t count, real *copy,
                             size_t room) {
  memset(copy, 0, pixels * room * sizeof(real));
  for (size_t i = 0; i < pixels; i++, copy += room) {
    for (size_t c = 0; c < count; c++) copy[c] = list[i][c0 + c];
    list[i] = copy;
  }
}

/* All tiles of all images, counted image by image, row by row. */
typedef struct {
  size_t rows, cols, total;
} wino_tiles;

static inline wino_tiles wino_cut(size_t n, size_t h, size_t w, size_t m) {
  wino_tiles t = {conv_ceil_div(h, m), conv_ceil_div(w, m), 0};
  t.total = n * t.rows * t.cols;
  return t;
}

/* Image and the first row and column of results of a tile of m×m. */
static inline void wino_place(const wino_tiles *t, size_t m, size_t tile, size_t *n, size_t *row,
                              size_t *col) {
  *n = tile / (t->rows * t->cols);
  *row = tile / t->cols % t->rows * m;
  *col = tile % t->cols * m;
}

#endif
