/* Products of matrices, one or a batch. Large ones are packed (real_gemm.c). Small and thin ones, where packing costs
 * more than it gives, are done here without it, tiny ones of few terms by plain loops, and:
 *
 *   tile     sums of a few rows and vectors of columns stay in registers; rows of op(b) are read
 *            as they lie
 *   dot      op(a)'s rows times op(b)'s columns, both along k, for few rows or columns
 *   swapped  the transposed product by tiles, for few columns of a transposed a
 *
 * Which way is taken depends on the shapes alone, and an element's sum is made in the same order however the
 * work is cut. So the number of threads never shows in the result. */
#include "kernels/isa.h"
#include "kernels/real_product.h"
#include "kernels/real_gemm.h"

enum {
  SMALL_WORK = 32 * 32 * 32,  /* multiplications up to which packing costs too much */
  FLAT = 24,                  /* rows of c that do not pay for packing op(b), */
  NEAR_BYTES = 40 << 10,      /* and op(b) that is as near unpacked */
  THIN = 4,                   /* rows or columns of c up to which reading is all that counts */
  SHORT = 4,                  /* sums of fewer terms are not worth a turn of the result */
  THIN_STEPS = 16,            /* rows of op(b) that a thin product reads side by side */
  MIN_TASK = 1 << 16          /* multiplications below which a thread is not worth waking */
};

/* Halves are added to halves, until 16 bytes are left. */
typedef real v16 __attribute__((vector_size(16)));
static inline real sum_lanes(vreal v) {
  v16 part[TD_VBYTES / 16];
  memcpy(part, &v, sizeof v);
#pragma GCC unroll 4
  for (int half = TD_VBYTES / 32; half; half /= 2) {
#pragma GCC unroll 4
    for (int i = 0; i < half; i++) part[i] += part[i + half];
  }
#if TD_KREAL == 0
  return (part[0][0] + part[0][2]) + (part[0][1] + part[0][3]);
#else
  return part[0][0] + part[0][1];
#endif
}

/* to[l·pitch + j] = op(b)[l][j] */
static void pack_rows(real *to, const product *p, size_t pitch) {
  for (size_t j = 0; j < p->n; j++)
    for (size_t l = 0; l < p->k; l++) to[l * pitch + j] = p->b[l * p->b_row + j * p->b_col];
}

/* Written-out sums, for when there is no memory to pack. */
static void run_plain(const product *p) {
  for (size_t i = 0; i < p->m; i++)
    for (size_t j = 0; j < p->n; j++) {
      real sum = 0, *c = p->c + i * p->c_row + j;
      for (size_t l = 0; l < p->k; l++)
        sum += p->a[i * p->a_row + l * p->a_col] * p->b[l * p->b_row + j * p->b_col];
      *c = p->beta != 0 ? p->alpha * sum + p->beta * *c : p->alpha * sum;
    }
}

/* Few rows of c: b is read a few whole rows at a time, so that memory streams. */
static void run_thin_tiles(const product *p) {
  product q = *p;
  for (size_t l = 0; l < p->k; l += THIN_STEPS) {
    q.a = p->a + l * p->a_col;
    q.b = p->b + l * p->b_row;
    q.k = p->k - l < THIN_STEPS ? p->k - l : THIN_STEPS;
    q.beta = l ? 1 : p->beta;
    run_tiles(&q);
  }
}

/* Sums are cut as in large products, so that a row of c is the same there. */
static void run_chunks(const product *p) {
  product q = *p;
  for (size_t l = 0, chunk = gemm_chunk(p->k); l < p->k; l += chunk) {
    q.a = p->a + l * p->a_col;
    q.b = p->b + l * p->b_row;
    q.k = p->k - l < chunk ? p->k - l : chunk;
    q.beta = l ? 1 : p->beta;
    run_tiles(&q);
  }
}

/* op(b) is packed when its rows are not contiguous. */
static void by_tiles(const product *p) {
  if (p->b_col == 1) {
    if (p->m <= THIN && p->k > 2 * THIN_STEPS && p->n > 4 * WIDTH * TD_LANES) run_thin_tiles(p);
    else run_chunks(p);
    return;
  }
  size_t pitch = (p->n + TD_LANES - 1) / TD_LANES * TD_LANES;
  real *rows = td_scratch(p->k * pitch * sizeof(real));
  if (!rows) {
    run_plain(p);
    return;
  }
  product q = *p;
  pack_rows(rows, p, pitch);
  q.b = rows;
  q.b_row = pitch;
  q.b_col = 1;
  run_chunks(&q);
}

/* ---- Dots ------------------------------------------------------------------------------------ */

/* R rows × Q columns of c, from its corner on; a_col and b_row are 1. */
static inline __attribute__((always_inline)) void dot_body(const int R, const int Q,
                                                           const product *p) {
  vreal sum[4][4];
#pragma GCC unroll 4
  for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
    for (int j = 0; j < Q; j++) sum[i][j] = (vreal){0};
  }
  size_t l = 0;
  for (; l + TD_LANES <= p->k; l += TD_LANES) {
    vreal bv[4];
#pragma GCC unroll 4
    for (int j = 0; j < Q; j++) bv[j] = td_load(p->b + (size_t)j * p->b_col + l);
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
      vreal av = td_load(p->a + (size_t)i * p->a_row + l);
#pragma GCC unroll 4
      for (int j = 0; j < Q; j++) sum[i][j] += av * bv[j];
    }
  }
  if (l < p->k) {
    size_t n = p->k - l;
    vreal bv[4];
#pragma GCC unroll 4
    for (int j = 0; j < Q; j++) bv[j] = td_load_part(p->b + (size_t)j * p->b_col + l, n);
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
      vreal av = td_load_part(p->a + (size_t)i * p->a_row + l, n);
#pragma GCC unroll 4
      for (int j = 0; j < Q; j++) sum[i][j] += av * bv[j];
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
    for (int j = 0; j < Q; j++) {
      real *c = p->c + (size_t)i * p->c_row + j, s = p->alpha * sum_lanes(sum[i][j]);
      *c = p->beta != 0 ? s + p->beta * *c : s;
    }
  }
}

static void dot_4_2(const product *p) { dot_body(4, 2, p); }
static void dot_4_1(const product *p) { dot_body(4, 1, p); }
static void dot_1_2(const product *p) { dot_body(1, 2, p); }
static void dot_1_1(const product *p) { dot_body(1, 1, p); }

/* The whole product, a_col = b_row = 1. */
static void run_dots(const product *p) {
  product q = *p;
  for (size_t j = 0; j < p->n; j += 2)
    for (size_t i = 0, rows; i < p->m; i += rows) {
      rows = p->m - i >= 4 ? 4 : 1;
      q.a = p->a + i * p->a_row;
      q.b = p->b + j * p->b_col;
      q.c = p->c + i * p->c_row + j;
      bool pair = p->n - j >= 2;
      (rows == 4 ? pair ? dot_4_2 : dot_4_1 : pair ? dot_1_2 : dot_1_1)(&q);
    }
}

#if TD_VBYTES == 16 && TD_KREAL == 1
#define EVEN 0, 2
#define ODD 1, 3
#elif TD_VBYTES / (TD_KREAL ? 8 : 4) == 4
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#elif TD_VBYTES / (TD_KREAL ? 8 : 4) == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#else
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#endif
#if defined(__clang__)
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (vint){__VA_ARGS__})
#endif

/* Pairs apart: to[l] = from[2l], to[n + l] = from[2l + 1] */
static void pack_pairs(real *to, const real *from, size_t n) {
  size_t l = 0;
  for (; l + TD_LANES <= n; l += TD_LANES) {
    vreal first = td_load(from + 2 * l), second = td_load(from + 2 * l + TD_LANES);
    td_store(to + l, PICK(first, second, EVEN));
    td_store(to + n + l, PICK(first, second, ODD));
  }
  for (; l < n; l++) to[l] = from[2 * l], to[n + l] = from[2 * l + 1];
}

/* to[i·n + l] = from[i·row + l·col], i < m, l < n */
static void pack_lines(real *to, const real *from, size_t m, size_t n, size_t row, size_t col) {
  if (m == 2 && row == 1 && col == 2) {
    pack_pairs(to, from, n);
    return;
  }
  for (size_t i = 0; i < m; i++)
    for (size_t l = 0; l < n; l++) to[i * n + l] = from[i * row + l * col];
}

/* What is not contiguous along k is packed. */
static void by_dots(const product *p) {
  size_t of_a = p->a_col == 1 ? 0 : p->m * p->k, of_b = p->b_row == 1 ? 0 : p->n * p->k;
  product q = *p;
  if (of_a + of_b) {
    real *lines = td_scratch((of_a + of_b) * sizeof(real));
    if (!lines) {
      run_plain(p);
      return;
    }
    if (of_a) {
      pack_lines(lines, p->a, p->m, p->k, p->a_row, p->a_col);
      q.a = lines, q.a_row = p->k, q.a_col = 1;
    }
    if (of_b) {
      pack_lines(lines + of_a, p->b, p->n, p->k, p->b_col, p->b_row);
      q.b = lines + of_a, q.b_row = 1, q.b_col = p->k;
    }
  }
  run_dots(&q);
}

/* The transposed product by tiles into scratch memory, then its columns to c; a_row is 1. */
static void by_swapped_tiles(const product *p) {
  product q = {.a = p->b, .b = p->a, .m = p->n, .n = p->m, .k = p->k, .alpha = p->alpha,
               .a_row = p->b_col, .a_col = p->b_row, .b_row = p->a_col, .b_col = p->a_row,
               .c_row = p->m};
  q.c = td_scratch(p->m * p->n * sizeof(real));
  if (!q.c) {
    run_plain(p);
    return;
  }
  by_tiles(&q);
  for (size_t i = 0; i < p->m; i++)
    for (size_t j = 0; j < p->n; j++) {
      real *c = p->c + i * p->c_row + j;
      *c = p->beta != 0 ? q.c[j * p->m + i] + p->beta * *c : q.c[j * p->m + i];
    }
}

/* ---- Tiny products: a call or two of a tile would cost more than the sums -------------------- */

#if TD_KISA == 0
static inline real add_term(real sum, real x, real y) { return sum + x * y; }
#elif TD_KREAL == 0
static inline real add_term(real sum, real x, real y) { return __builtin_fmaf(x, y, sum); }
#else
static inline real add_term(real sum, real x, real y) { return __builtin_fma(x, y, sum); }
#endif

/* One vector of a row of c; `last` elements of it, or all (0). */
static inline __attribute__((always_inline)) void tiny_vector(const product *p, const real *a, const real *b, real *c,
                                                              size_t last) {
  vreal sum = td_splat(0);
  for (size_t l = p->k; l; l--, a += p->a_col, b += p->b_row)
    sum = td_add_term(TD_BY_ELEMENT, sum, td_splat(*a), last ? td_load_part(b, last) : td_load(b));
  vreal s = td_splat(p->alpha) * sum;
  if (p->beta != 0) s += td_splat(p->beta) * (last ? td_load_part(c, last) : td_load(c));
  if (last) td_store_part(c, s, last);
  else td_store(c, s);
}

/* A row of c by vectors, with K known to the compiler; alpha is 1, beta 0. */
static inline __attribute__((always_inline)) void tiny_row(const int K, const product *p, const real *a, real *c) {
  vreal x[4];
  const real *b = p->b;
  const size_t row = p->b_row;
  size_t j = 0;
  for (int l = 0; l < K; l++) x[l] = td_splat(a[(size_t)l * p->a_col]);
  for (; j + TD_LANES <= p->n; j += TD_LANES) {
    vreal sum = x[0] * td_load(b + j);
#pragma GCC unroll 4
    for (int l = 1; l < K; l++) sum = td_add_term(TD_BY_ELEMENT, sum, x[l], td_load(b + (size_t)l * row + j));
    td_store(c + j, sum);
  }
  if (j == p->n) return;
  vreal sum = x[0] * td_load_part(b + j, p->n - j);
#pragma GCC unroll 4
  for (int l = 1; l < K; l++)
    sum = td_add_term(TD_BY_ELEMENT, sum, x[l], td_load_part(b + (size_t)l * row + j, p->n - j));
  td_store_part(c + j, sum, p->n - j);
}

/* Rows of c by vectors, where k is small and b_col is 1. */
static void tiny_rows(const product *p) {
  bool plain = p->alpha == 1 && p->beta == 0;
  for (size_t i = 0; i < p->m && plain; i++) {
    const real *a = p->a + i * p->a_row;
    real *c = p->c + i * p->c_row;
    if (p->k == 1) tiny_row(1, p, a, c);
    else if (p->k == 2) tiny_row(2, p, a, c);
    else if (p->k == 3) tiny_row(3, p, a, c);
    else tiny_row(4, p, a, c);
  }
  if (plain) return;
  for (size_t i = 0; i < p->m; i++) {
    const real *a = p->a + i * p->a_row;
    real *c = p->c + i * p->c_row;
    size_t j = 0;
    for (; j + TD_LANES <= p->n; j += TD_LANES) tiny_vector(p, a, p->b + j, c + j, 0);
    if (j < p->n) tiny_vector(p, a, p->b + j, c + j, p->n - j);
  }
}

/* c[i·step] = Σ a[l·a_step]·lines[i·K + l] over i < count: one row or column of c, with K known to the compiler. */
static inline __attribute__((always_inline)) void tiny_line(const int K, const real *lines, const real *a,
                                                            size_t a_step, real *restrict c, size_t count) {
  real x[4];
  for (int l = 0; l < K; l++) x[l] = a[(size_t)l * a_step];
  for (size_t i = 0; i < count; i++) {
    real sum = x[0] * lines[i * (size_t)K];
#pragma GCC unroll 4
    for (int l = 1; l < K; l++) sum = add_term(sum, x[l], lines[i * (size_t)K + (size_t)l]);
    c[i] = sum;
  }
}

/* Rows of c where op(b)'s columns lie one after the other, k numbers each. */
static void tiny_columns(const product *p) {
  for (size_t i = 0; i < p->m; i++) {
    const real *a = p->a + i * p->a_row;
    real *c = p->c + i * p->c_row;
    if (p->k == 1) tiny_line(1, p->b, a, p->a_col, c, p->n);
    else if (p->k == 2) tiny_line(2, p->b, a, p->a_col, c, p->n);
    else if (p->k == 3) tiny_line(3, p->b, a, p->a_col, c, p->n);
    else tiny_line(4, p->b, a, p->a_col, c, p->n);
  }
}

/* c[i·N + j] = a[i]·b[j] */
static inline __attribute__((always_inline)) void tiny_outer(const int N, const real *a, const real *b,
                                                             real *restrict c, size_t m) {
  real x[4];
  for (int j = 0; j < N; j++) x[j] = b[j];
  for (size_t i = 0; i < m; i++) {
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) c[i * (size_t)N + (size_t)j] = a[i] * x[j];
  }
}

/* Which products are done here; sums are made in the order of tiles. */
static inline bool by_tiny_rows(const product *p) { return p->m <= THIN && p->b_col == 1 && p->n > THIN; }
static inline bool by_tiny_columns(const product *p, bool plain) {
  return plain && p->m <= THIN && p->b_row == 1 && p->b_col == p->k;
}
static inline bool is_tiny(const product *p) {
  enum { FEW_TERMS = 4, MOST = 1024 };
  bool plain = p->alpha == 1 && p->beta == 0;
  if (p->k > FEW_TERMS || p->m * p->n > MOST) return false;
  if (by_tiny_rows(p) || by_tiny_columns(p, plain)) return true;
  return plain && p->k == 1 && p->a_row == 1 && p->c_row == p->n && p->b_col == 1 && p->n <= 4;
}

static void run_tiny(const product *p) {
  if (by_tiny_rows(p)) tiny_rows(p);
  else if (by_tiny_columns(p, p->alpha == 1 && p->beta == 0)) tiny_columns(p);
  else if (p->n == 1) tiny_outer(1, p->a, p->b, p->c, p->m);
  else if (p->n == 2) tiny_outer(2, p->a, p->b, p->c, p->m);
  else if (p->n == 3) tiny_outer(3, p->a, p->b, p->c, p->m);
  else tiny_outer(4, p->a, p->b, p->c, p->m);
}

/* ---- The kernel ------------------------------------------------------------------------------ */

typedef enum { BY_TILES, BY_DOTS, BY_SWAPPED_TILES, BY_GEMM } way;

typedef struct {
  product p;                          /* the first of the batch */
  way way;
  size_t stride_a, stride_b, stride_c;
  size_t row_panels, column_panels;   /* of each product */
} call;

static way choose_way(const product *p) {
  double work = (double)p->m * (double)p->n * (double)p->k;
  if (p->n <= THIN && p->a_col == 1 && p->k >= 2 * TD_LANES) return BY_DOTS;
  if (p->n <= THIN && p->m >= 2 * p->n && p->a_col != 1) return p->k < SHORT ? BY_TILES : BY_SWAPPED_TILES;
  if (p->m <= THIN && p->b_col != 1 && p->k >= 2 * TD_LANES) return BY_DOTS;
  if (p->m <= THIN || work <= SMALL_WORK) return BY_TILES;
  bool near = p->m <= FLAT || p->k * p->n * sizeof(real) <= NEAR_BYTES;
  if (p->b_col == 1 && near && td_term_now() == TD_BY_ELEMENT) return BY_TILES;
  return BY_GEMM;
}

static size_t panels_of(size_t size, size_t edge) {
  return size < edge ? 1 : (size + edge / 2) / edge;
}

/* Cuts a product into panels; thin ones along their length. */
static void choose_panels(call *e) {
  const product *p = &e->p;
  e->row_panels = e->column_panels = 1;
  if (e->way == BY_GEMM) return;  /* it shares itself out */
  if (e->way == BY_TILES) {
    e->column_panels = panels_of(p->n, 1024);
    if (p->m > THIN) e->row_panels = panels_of(p->m, 256);
  } else {
    e->row_panels = panels_of(p->m, 256);
    if (e->way == BY_DOTS) e->column_panels = panels_of(p->n, 256);
  }
}

static void run_product(way w, const product *p) {
  if (w == BY_TILES) by_tiles(p);
  else if (w == BY_DOTS) by_dots(p);
  else if (w == BY_SWAPPED_TILES) by_swapped_tiles(p);
  else if (!TD_K(gemm)(p)) run_plain(p);
}

static void run_panel(const call *e, size_t item) {
  product q = e->p;
  size_t column = item % e->column_panels, row = item / e->column_panels % e->row_panels;
  size_t index = item / e->column_panels / e->row_panels;
  size_t i0 = q.m * row / e->row_panels, i1 = q.m * (row + 1) / e->row_panels;
  size_t j0 = q.n * column / e->column_panels, j1 = q.n * (column + 1) / e->column_panels;
  q.a += index * e->stride_a + i0 * q.a_row;
  q.b += index * e->stride_b + j0 * q.b_col;
  q.c += index * e->stride_c + i0 * q.c_row + j0;
  q.m = i1 - i0;
  q.n = j1 - j0;
  run_product(e->way, &q);
}

static void run_panels(void *ctx, size_t begin, size_t end) {
  for (size_t item = begin; item < end; item++) run_panel(ctx, item);
}

/* c = beta·c */
static void scale(const product *p, size_t batch, size_t stride_c) {
  for (size_t b = 0; b < batch; b++)
    for (size_t i = 0; i < p->m; i++) {
      real *c = p->c + b * stride_c + i * p->c_row;
      for (size_t j = 0; j < p->n; j++) c[j] = p->beta != 0 ? p->beta * c[j] : 0;
    }
}

void TD_K(matmul)(void *c, const void *a, const void *b, size_t m, size_t n, size_t k, size_t lda,
                  size_t ldb, size_t ldc, bool trans_a, bool trans_b, size_t batch, size_t stride_a,
                  size_t stride_b, size_t stride_c, double alpha, double beta) {
  call e = {.stride_a = stride_a, .stride_b = stride_b, .stride_c = stride_c};
  e.p = (product){.c = c, .a = a, .b = b, .m = m, .n = n, .k = k, .c_row = ldc,
                  .a_row = trans_a ? 1 : lda, .a_col = trans_a ? lda : 1,
                  .b_row = trans_b ? 1 : ldb, .b_col = trans_b ? ldb : 1,
                  .alpha = (real)alpha, .beta = (real)beta};
  if (!m || !n || !batch) return;
  if (!k || alpha == 0) {
    scale(&e.p, batch, stride_c);
    return;
  }
  if (batch == 1 && is_tiny(&e.p)) {
    run_tiny(&e.p);
    return;
  }
  /* a shared b turns a batch of stacked matrices into one */
  if (batch > 1 && !stride_b && !trans_a && stride_a == m * lda && stride_c == m * ldc) {
    e.p.m = m * batch;
    batch = 1;
  }
  e.way = choose_way(&e.p);
  choose_panels(&e);
  size_t items = batch * e.row_panels * e.column_panels;
  /* few large products each keep all threads busy, one after the other */
  if (items == 1) {
    run_product(e.way, &e.p);
    return;
  }
  if ((e.way == BY_GEMM && items < 4 * (size_t)td_threads())) {
    run_panels(&e, 0, items);
    return;
  }
  double work = (double)e.p.m * (double)n * (double)k / (double)(e.row_panels * e.column_panels);
  td_parallel(items, work > MIN_TASK ? 1 : 1 + (size_t)(MIN_TASK / work), run_panels, &e);
}

/* ---- The same for callers with a list of small products ---------------------------------------- */

static product product_of(const td_product *p) {
  return (product){.c = p->c, .a = p->a, .b = p->b, .m = p->m, .n = p->n, .k = p->k, .a_row = p->a_row,
                   .a_col = p->a_col, .b_row = p->b_row, .b_col = p->b_col, .c_row = p->c_row, .alpha = 1};
}

static void product_tiny(const td_product *p) {
  product q = product_of(p);
  run_tiny(&q);
}
static void product_by_tiles(const td_product *p) {
  product q = product_of(p);
  by_tiles(&q);
}
static void product_by_dots(const td_product *p) {
  product q = product_of(p);
  if (p->a_col == 1 && p->b_row == 1 && p->m == 1 && p->n == 2) dot_1_2(&q);
  else by_dots(&q);
}
static void product_by_swapped_tiles(const td_product *p) {
  product q = product_of(p);
  by_swapped_tiles(&q);
}

td_product_fn TD_K(product)(const td_product *p, bool *lines) {
  static const td_product_fn ways[] = {[BY_TILES] = product_by_tiles, [BY_DOTS] = product_by_dots,
                                       [BY_SWAPPED_TILES] = product_by_swapped_tiles, [BY_GEMM] = NULL};
  call e = {.p = product_of(p)};
  *lines = false;
  if (!p->m || !p->n || !p->k) return NULL;
  if (is_tiny(&e.p)) return product_tiny;
  e.way = choose_way(&e.p);
  choose_panels(&e);
  *lines = e.way == BY_DOTS;
  return e.row_panels * e.column_panels == 1 ? ways[e.way] : NULL;
}
