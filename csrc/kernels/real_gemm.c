/* Large products. k is cut into chunks and n into blocks; of each, op(b) is packed once for all threads, as panels as
 * wide as a register tile; then threads take blocks of rows of op(a), pack them in turn and run tiles over all panels.
 * So op(b) streams from the shared cache once for each block of rows, and both packed operands lie close together,
 * whatever the strides were.
 *
 * An element's sum is that of its chunks in order, so nothing in the result shows the blocks or the threads. */
#include "kernels/isa.h"
#define PRODUCT_PAIRS
#include "kernels/real_product.h"
#include "kernels/real_gemm.h"

enum {
  PANEL = WIDTH * TD_LANES,        /* columns of a panel */
  MAX_COLUMNS = 64 * PANEL,        /* of packed op(b) */
  MAX_ROWS = 192,                  /* of a packed block of op(a) */
  PITCH = GEMM_CHUNK + 16,              /* of its rows: no power of two, which would crowd a few sets of the cache */
  PACKED_A = MAX_ROWS * PITCH,     /* elements of a packed block */
  NEAR_ROW = (2 << 10) / sizeof(real)  /* greatest distance of rows of a that are read as they lie */
};

typedef struct {
  const product *p;
  td_term term;
  size_t l0, terms;                /* of the chunk, */
  size_t depth;                    /* and its packed elements: terms, or pairs of them */
  size_t j0, columns, panels;      /* of the block */
  size_t row_blocks, column_blocks;
  real *b;                         /* packed */
  int owner;                       /* the thread whose scratch begins with it */
} gemm;

static size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
static size_t lesser(size_t a, size_t b) { return a < b ? a : b; }

/* to[j·to_row + i] = from[i·from_row + j], i < n, j < m. */
static void transpose(real *to, size_t to_row, const real *from, size_t from_row, size_t n, size_t m) {
  enum { EDGE = 16 };
  for (size_t i0 = 0; i0 < n; i0 += EDGE)
    for (size_t j0 = 0; j0 < m; j0 += EDGE)
      for (size_t i = i0; i < lesser(n, i0 + EDGE); i++) {
        __builtin_prefetch(from + (i + EDGE) * from_row + j0);  /* a line of it, of the next rows */
        for (size_t j = j0; j < lesser(m, j0 + EDGE); j++) to[j * to_row + i] = from[i * from_row + j];
      }
}

/* rows [l, l + 1] of op(b)'s panel become one row of pairs; high may be NULL. */
static void pair_rows(real *to, const real *low, const real *high, size_t n) {
  for (size_t j = 0; j < n; j++) to[j] = td_make_pair(low[j], high ? high[j] : 0);
}

/* Panel v of op(b): `depth` rows of PANEL elements, zeros beyond the last column. */
static void pack_panel(const gemm *e, size_t v, real *line) {
  const product *p = e->p;
  size_t j = e->j0 + v * PANEL, n = lesser(PANEL, p->n - j);
  real *to = e->b + v * PANEL * e->depth;
  const real *from = p->b + e->l0 * p->b_row + j * p->b_col;
  bool pairs = e->term != TD_BY_ELEMENT;
  if (n < PANEL) memset(to, 0, e->depth * PANEL * sizeof(real));
  if (p->b_col == 1 && !pairs)
    for (size_t l = 0; l < e->terms; l++, to += PANEL, from += p->b_row)
      if (n == PANEL) memcpy(to, from, PANEL * sizeof(real));  /* of constant size: a few moves */
      else memcpy(to, from, n * sizeof(real));
  else if (p->b_col == 1)
    for (size_t l = 0; l < e->terms; l += 2)
      pair_rows(to + l / 2 * PANEL, from + l * p->b_row, l + 1 < e->terms ? from + (l + 1) * p->b_row : NULL, n);
  else if (!pairs)
    transpose(to, PANEL, from, p->b_col, n, e->terms);
  else
    for (size_t i = 0; i < n; i++) {
      td_pack_pairs(line, from + i * p->b_col, e->terms);
      for (size_t l = 0; l < e->depth; l++) to[l * PANEL + i] = line[l];
    }
}

static void pack_panels(void *ctx, size_t begin, size_t end) {
  real line[GEMM_CHUNK];
  for (size_t v = begin; v < end; v++) pack_panel(ctx, v, line);
}

/* Rows [i0, i0 + rows) of op(a)'s chunk, laid as they were: q gets them as its a. Short rows are not moved. */
static void pack_rows_of_a(const gemm *e, product *q, real *to, size_t i0, size_t rows) {
  const product *p = e->p;
  const real *from = p->a + i0 * p->a_row + e->l0 * p->a_col;
  bool pairs = e->term != TD_BY_ELEMENT;
  if (p->a_col == 1 && !pairs && p->a_row <= NEAR_ROW) {
    q->a = from;
    return;
  }
  q->a = to;
  if (p->a_col == 1) {
    q->a_row = PITCH, q->a_col = 1;
    for (size_t i = 0; i < rows; i++)
      if (pairs) td_pack_pairs(to + i * PITCH, from + i * p->a_row, e->terms);
      else memcpy(to + i * PITCH, from + i * p->a_row, e->terms * sizeof(real));
  } else {
    q->a_row = 1, q->a_col = rows;
    for (size_t l = 0; l < e->depth; l++)
      if (pairs)
        pair_rows(to + l * rows, from + 2 * l * p->a_col, 2 * l + 1 < e->terms ? from + (2 * l + 1) * p->a_col : NULL,
                  rows);
      else memcpy(to + l * rows, from + l * p->a_col, rows * sizeof(real));
  }
}

/* Rows [i0, i0 + rows) by the panels [v0, v1). */
static void run_rows(const gemm *e, real *packed, size_t i0, size_t rows, size_t v0, size_t v1) {
  const product *p = e->p;
  product q = *p;
  pack_rows_of_a(e, &q, packed, i0, rows);
  q.m = rows;
  q.k = e->depth;
  q.b_row = PANEL, q.b_col = 1;
  if (e->l0) q.beta = 1;
  for (size_t v = v0; v < v1; v++) {
    size_t j = e->j0 + v * PANEL;
    q.b = e->b + v * PANEL * e->depth;
    q.c = p->c + i0 * p->c_row + j;
    q.n = lesser(PANEL, p->n - j);
    run_term_tiles(e->term, &q);
  }
}

/* Items are blocks of rows by blocks of panels. A thread without memory packs a tile's rows at a time. */
static void run_blocks(void *ctx, size_t begin, size_t end) {
  const gemm *e = ctx;
  real few[ROWS * PITCH];
  bool owner = e->owner == td_thread_index();
  real *mine = owner ? e->b + e->panels * PANEL * GEMM_CHUNK : td_scratch(PACKED_A * sizeof(real));
  size_t step = mine ? MAX_ROWS : ROWS;
  for (size_t item = begin; item < end; item++) {
    size_t row = item / e->column_blocks, column = item % e->column_blocks;
    size_t i0 = e->p->m * row / e->row_blocks, i1 = e->p->m * (row + 1) / e->row_blocks;
    size_t v0 = e->panels * column / e->column_blocks, v1 = e->panels * (column + 1) / e->column_blocks;
    for (size_t i = i0; i < i1; i += step) run_rows(e, mine ? mine : few, i, lesser(step, i1 - i), v0, v1);
  }
}

/* Enough blocks of rows, and of panels if the rows are few, to keep all threads busy alike. */
static void choose_blocks(gemm *e) {
  size_t m = e->p->m, threads = (size_t)td_threads();
  e->row_blocks = ceil_div(m, MAX_ROWS);
  e->column_blocks = 1;
  if (m >= 4 * ROWS * threads) e->row_blocks = lesser(m, ceil_div(e->row_blocks, threads) * threads);
  else if (e->row_blocks < threads) e->column_blocks = lesser(e->panels, threads);
}

bool TD_K(gemm)(const product *p) {
  gemm e = {.p = p, .term = td_term_now(), .owner = td_thread_index()};
  size_t most = lesser(ceil_div(p->n, PANEL) * PANEL, MAX_COLUMNS);
  e.b = td_scratch((most * GEMM_CHUNK + PACKED_A) * sizeof(real));
  if (!e.b) return false;
  for (e.j0 = 0; e.j0 < p->n; e.j0 += e.columns) {
    e.columns = lesser(MAX_COLUMNS, p->n - e.j0);
    e.panels = ceil_div(e.columns, PANEL);
    choose_blocks(&e);
    for (e.l0 = 0; e.l0 < p->k; e.l0 += e.terms) {
      e.terms = lesser(gemm_chunk(p->k), p->k - e.l0);
      e.depth = e.term == TD_BY_ELEMENT ? e.terms : ceil_div(e.terms, 2);
      td_parallel(e.panels, 4, pack_panels, &e);
      td_parallel(e.row_blocks * e.column_blocks, 1, run_blocks, &e);
    }
  }
  return true;
}
