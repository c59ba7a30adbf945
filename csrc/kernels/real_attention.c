/* Attention, softmax(q·kᵀ·scale + mask)·v, without ever holding the scores of more than a block of
 * queries and keys: maximum and sum of a query's exponentials are carried along while blocks of keys
 * go by (Milakov and Gimelshein 2018; Dao et al. 2022). The gradient computes a block's weights
 * again from its queries' maxima and one over those sums, which are all that has to be kept.
 *
 * A block is keys × queries: queries lie along vectors, so that maxima and sums are taken without
 * folding vectors, and every product has rows long enough for a register tile, whatever the width
 * of a head. Queries, and what is summed for them, are turned once a block for that.
 *
 * Tasks are (batch, head, block of queries), or whole heads; every sum is made in the order of its
 * blocks, whatever task they are in: the number of threads never shows. */
#include "kernels/isa.h"
#include "kernels/real_product.h"
#include "kernels/reduce.h"

enum {
  QUERIES = 64,                       /* of a block */
  KEYS = 64,
  PITCH = QUERIES + 64 / sizeof(real) /* of a row of a block: not a power of two */
};

/* One batch item and head, or the first of them. */
typedef struct {
  const td_attention *g;
  size_t group;  /* keys of a task, where tasks are parts of heads */
  const real *q, *k, *v, *mask, *y, *dy, *kept;
  real *out, *keep, *dq, *dk, *dv;
} attention;

/* Work space of a task. Blocks of weights and of their gradients, keys × queries; and for the
 * queries of a block, turned: q, dy, what is summed up (y or dq), and single numbers. */
typedef struct {
  real *p, *ds;
  real *q, *dy, *total;
  real *top, *sum, *dot;
} space;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t greatest(size_t a, size_t b) { return a > b ? a : b; }
static size_t whole_vectors(size_t n) { return (n + TD_LANES - 1) / TD_LANES * TD_LANES; }

static bool make_space(const td_attention *g, space *w) {
  real *m = td_scratch((2 * KEYS + g->d + g->e + greatest(g->d, g->e) + 3) * PITCH * sizeof(real));
  if (!m) return false;
  w->p = m;
  w->ds = w->p + KEYS * PITCH;
  w->q = w->ds + KEYS * PITCH;
  w->dy = w->q + g->d * PITCH;
  w->total = w->dy + g->e * PITCH;
  w->top = w->total + greatest(g->d, g->e) * PITCH;
  w->sum = w->top + PITCH;
  w->dot = w->sum + PITCH;
  return true;
}

/* The arrays of batch item and head `index`. */
static attention at_head(const attention *a, size_t index) {
  const td_attention *g = a->g;
  size_t b = index / g->heads, h = index % g->heads;
  attention r = *a;
  r.q += b * g->q_stride[0] + h * g->q_stride[2];
  r.k += b * g->k_stride[0] + h * g->k_stride[2];
  r.v += b * g->v_stride[0] + h * g->v_stride[2];
  if (r.mask) r.mask += b * g->mask_stride[0] + h * g->mask_stride[1];
  size_t query = b * g->l * g->heads + h, key = b * g->s * g->heads + h;
  if (r.out) r.out += query * g->e, r.keep += index * g->l * 2;
  if (r.dy) {
    r.y += query * g->e, r.dy += query * g->e, r.kept += index * g->l * 2;
    r.dq += query * g->d, r.dk += key * g->d, r.dv += key * g->e;
  }
  return r;
}

/* to[j·PITCH + i] = from[i·row + j], i < n, j < width; up to the next whole vector zeros follow. */
static void turn(real *to, const real *from, size_t n, size_t width, size_t row) {
  size_t whole = (n + TD_LANES - 1) / TD_LANES * TD_LANES;
  for (size_t i = 0; i < whole; i += 8) {
    const real *f = from + i * row;
    size_t some = i >= n ? 0 : least(n - i, 8), room = least(whole - i, 8);
    for (size_t j = 0; j < width; j++) {
      real *t = to + j * PITCH + i;
      if (some == 8) {
#pragma GCC unroll 8
        for (size_t r = 0; r < 8; r++) t[r] = f[r * row + j];
      } else {
        for (size_t r = 0; r < room; r++) t[r] = r < some ? f[r * row + j] : 0;
      }
    }
  }
}

/* to[i·row + j] = from[j·PITCH + i], i < n, j < width. */
static void turn_back(real *to, const real *from, size_t n, size_t width, size_t row) {
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < width; j++) to[i * row + j] = from[j * PITCH + i];
}

/* Scores of m keys from j0 on and n queries from i0 on, which w->q holds, into w->p; -∞ where a
 * query does not see the key. w->ds is overwritten where there is a mask. */
static void scores(const attention *a, const space *w, size_t i0, size_t n, size_t j0, size_t m) {
  const td_attention *g = a->g;
  size_t whole = whole_vectors(n), row = g->k_stride[1];
  run_tiles(&(product){.c = w->p, .a = a->k + j0 * row, .b = w->q, .m = m, .n = whole, .k = g->d,
                       .a_row = row, .a_col = 1, .b_row = PITCH, .b_col = 1, .c_row = PITCH,
                       .alpha = (real)g->scale});
  if (a->mask) {
    turn(w->ds, a->mask + i0 * g->mask_stride[2] + j0, n, m, g->mask_stride[2]);
    for (size_t j = 0; j < m; j++)
      for (size_t i = 0; i < whole; i += TD_LANES) {
        real *p = w->p + j * PITCH + i;
        td_store(p, td_load(p) + td_load(w->ds + j * PITCH + i));
      }
  }
  for (size_t j = 0; g->causal && j < m; j++) {
    size_t hidden = j0 + j > i0 ? least(j0 + j - i0, n) : 0;
    for (size_t i = 0; i < hidden; i++) w->p[j * PITCH + i] = (real)-INFINITY;
  }
}

/* ---- Forward ------------------------------------------------------------------------------- */

static inline vreal larger(vreal a, vreal b) { return td_vselect(a > b, a, b); }

/* The scores of m keys become weights relative to each query's maximum so far, and what was summed
 * before shrinks with it. */
static void weights(const attention *a, const space *w, size_t n, size_t m) {
  for (size_t i = 0; i < n; i += TD_LANES) {
    vreal before = td_load(w->top + i), top = before;
    for (size_t j = 0; j < m; j++) top = larger(td_load(w->p + j * PITCH + i), top);
    /* a query that sees no key yet: its weights are 0 */
    vreal shift = td_vselect(top > td_splat((real)-INFINITY), top, (vreal){0}), sum = {0};
    for (size_t j = 0; j < m; j++) {
      real *p = w->p + j * PITCH + i;
      vreal e = td_vexp(td_load(p) - shift);
      td_store(p, e);
      sum += e;
    }
    vint moved = top != before;
    if (td_vany(moved)) {
      vreal shrink = td_vselect(moved, td_vexp(before - shift), td_splat(1));
      td_store(w->sum + i, td_load(w->sum + i) * shrink);
      for (size_t e = 0; e < a->g->e; e++) {
        real *y = w->total + e * PITCH + i;
        td_store(y, td_load(y) * shrink);
      }
      td_store(w->top + i, top);
    }
    td_store(w->sum + i, td_load(w->sum + i) + sum);
  }
}

/* A block of n queries from i0 on. */
static void forward_block(const attention *a, const space *w, size_t i0, size_t n) {
  const td_attention *g = a->g;
  size_t whole = whole_vectors(n), row = g->heads * g->e;
  turn(w->q, a->q + i0 * g->q_stride[1], n, g->d, g->q_stride[1]);
  memset(w->total, 0, g->e * PITCH * sizeof(real));
  for (size_t i = 0; i < whole; i++) w->top[i] = (real)-INFINITY, w->sum[i] = 0;
  for (size_t j0 = 0; j0 < g->s && !(g->causal && j0 >= i0 + n); j0 += KEYS) {
    size_t m = least(g->s - j0, KEYS);
    scores(a, w, i0, n, j0, m);
    weights(a, w, n, m);
    run_tiles(&(product){.c = w->total, .a = a->v + j0 * g->v_stride[1], .b = w->p, .m = g->e,
                         .n = whole, .k = m, .a_row = 1, .a_col = g->v_stride[1], .b_row = PITCH,
                         .b_col = 1, .c_row = PITCH, .alpha = 1, .beta = 1});
  }
  for (size_t i = 0; i < n; i++) {
    real share = g->s ? 1 / w->sum[i] : 0;
    a->keep[2 * (i0 + i)] = w->top[i];
    a->keep[2 * (i0 + i) + 1] = w->sum[i] = share;
  }
  for (size_t e = 0; e < g->e; e++)
    for (size_t i = 0; i < n; i++) w->total[e * PITCH + i] *= w->sum[i];
  turn_back(a->out + i0 * row, w->total, n, g->e, row);
}

static void forward_tasks(void *ctx, size_t begin, size_t end) {
  const attention *a = ctx;
  const td_attention *g = a->g;
  size_t blocks = td_ceil_div(g->l, QUERIES);
  space w;
  bool room = make_space(g, &w);
  for (size_t task = begin; task < end; task++) {
    attention head = at_head(a, task / blocks);
    size_t i0 = task % blocks * QUERIES, n = least(g->l - i0, QUERIES);
    if (room) forward_block(&head, &w, i0, n);
    for (size_t i = i0; i < i0 + n && !room; i++) /* memory was refused: the result says so */
      for (size_t e = 0; e < g->e; e++) head.out[i * g->heads * g->e + e] = (real)NAN;
  }
}

void TD_K(attention)(void *y, void *keep, const void *q, const void *k, const void *v,
                     const void *mask, const td_attention *g) {
  attention a = {.g = g, .q = q, .k = k, .v = v, .mask = mask, .out = y, .keep = keep};
  size_t heads = g->batch * g->heads;
  if (!heads || !g->l) return;
  size_t work = least(g->l, QUERIES) * (g->s + 1) * (g->d + g->e + 16) / 8;
  td_parallel(heads * td_ceil_div(g->l, QUERIES), td_grain(work), forward_tasks, &a);
}

/* ---- Gradient ---------------------------------------------------------------------------------
 * With P the weights, dP = dy·vᵀ and D = Σ dy·y of each query: dS = P·(dP - D),
 * dv = Pᵀ·dy, dq = scale·dS·k, dk = scale·dSᵀ·q. */

/* What a block of n queries needs: q and dy turned, maxima, shares, D, and no dq yet. */
static void load_queries(const attention *a, const space *w, size_t i0, size_t n) {
  const td_attention *g = a->g;
  size_t row = g->heads * g->e;
  turn(w->q, a->q + i0 * g->q_stride[1], n, g->d, g->q_stride[1]);
  turn(w->dy, a->dy + i0 * row, n, g->e, row);
  memset(w->total, 0, g->d * PITCH * sizeof(real));
  memset(w->top, 0, 3 * PITCH * sizeof(real));
  for (size_t i = 0; i < n; i++) {
    const real *y = a->y + (i0 + i) * row, *dy = a->dy + (i0 + i) * row;
    vreal dot = {0};
    size_t e = 0;
    for (; e + TD_LANES <= g->e; e += TD_LANES) dot += td_load(y + e) * td_load(dy + e);
    if (e < g->e) dot += td_load_part(y + e, g->e - e) * td_load_part(dy + e, g->e - e);
    w->dot[i] = td_fold_lanes(TD_FOLD_SUM, dot);
    w->top[i] = a->kept[2 * (i0 + i)];
    w->sum[i] = a->kept[2 * (i0 + i) + 1];
  }
}

/* Weights and dS of a block. */
static void block_gradient(const attention *a, const space *w, size_t i0, size_t n, size_t j0,
                           size_t m) {
  const td_attention *g = a->g;
  scores(a, w, i0, n, j0, m);
  run_tiles(&(product){.c = w->ds, .a = a->v + j0 * g->v_stride[1], .b = w->dy, .m = m,
                       .n = whole_vectors(n), .k = g->e, .a_row = g->v_stride[1], .a_col = 1,
                       .b_row = PITCH, .b_col = 1, .c_row = PITCH, .alpha = 1});
  for (size_t i = 0; i < n; i += TD_LANES) {
    vreal top = td_load(w->top + i), share = td_load(w->sum + i), dot = td_load(w->dot + i);
    for (size_t j = 0; j < m; j++) {
      real *to = w->p + j * PITCH + i, *ds = w->ds + j * PITCH + i;
      vreal p = td_vexp(td_load(to) - top) * share;
      td_store(to, p);
      td_store(ds, p * (td_load(ds) - dot));
    }
  }
}

/* The turned dq of the block of queries += its share of a block of keys. */
static void add_dq(const attention *a, const space *w, size_t n, size_t j0, size_t m) {
  const td_attention *g = a->g;
  run_tiles(&(product){.c = w->total, .a = a->k + j0 * g->k_stride[1], .b = w->ds, .m = g->d,
                       .n = whole_vectors(n), .k = m, .a_row = 1, .a_col = g->k_stride[1],
                       .b_row = PITCH, .b_col = 1, .c_row = PITCH, .alpha = (real)g->scale,
                       .beta = 1});
}

static void add_dkv(const attention *a, const space *w, size_t i0, size_t n, size_t j0, size_t m) {
  const td_attention *g = a->g;
  size_t row_v = g->heads * g->e, row_k = g->heads * g->d;
  run_tiles(&(product){.c = a->dv + j0 * row_v, .a = w->p, .b = a->dy + i0 * row_v, .m = m,
                       .n = g->e, .k = n, .a_row = PITCH, .a_col = 1, .b_row = row_v, .b_col = 1,
                       .c_row = row_v, .alpha = 1, .beta = 1});
  run_tiles(&(product){.c = a->dk + j0 * row_k, .a = w->ds, .b = a->q + i0 * g->q_stride[1],
                       .m = m, .n = g->d, .k = n, .a_row = PITCH, .a_col = 1,
                       .b_row = g->q_stride[1], .b_col = 1, .c_row = row_k,
                       .alpha = (real)g->scale, .beta = 1});
}

/* Queries [i_first, i_last) against keys [j_first, j_last): all of dq, or of dk and dv, or of both. */
static void gradient_range(const attention *a, const space *w, size_t i_first, size_t i_last,
                           size_t j_first, size_t j_last, bool dq, bool dkv) {
  const td_attention *g = a->g;
  for (size_t i0 = i_first; i0 < i_last; i0 += QUERIES) {
    size_t n = least(i_last - i0, QUERIES);
    load_queries(a, w, i0, n);
    for (size_t j0 = j_first; j0 < j_last && !(g->causal && j0 >= i0 + n); j0 += KEYS) {
      size_t m = least(j_last - j0, KEYS);
      block_gradient(a, w, i0, n, j0, m);
      if (dq) add_dq(a, w, n, j0, m);
      if (dkv) add_dkv(a, w, i0, n, j0, m);
    }
    if (dq) turn_back(a->dq + i0 * g->heads * g->d, w->total, n, g->d, g->heads * g->d);
  }
}

/* A task is a head. */
static void whole_heads(void *ctx, size_t begin, size_t end) {
  const attention *a = ctx;
  space w;
  if (!make_space(a->g, &w)) return;
  for (size_t task = begin; task < end; task++) {
    attention head = at_head(a, task);
    gradient_range(&head, &w, 0, a->g->l, 0, a->g->s, true, true);
  }
}

/* A task is a block of queries, or a group of keys. */
static void parts_of_heads(void *ctx, size_t begin, size_t end) {
  const attention *a = ctx;
  const td_attention *g = a->g;
  size_t queries = td_ceil_div(g->l, QUERIES), each = queries + td_ceil_div(g->s, a->group);
  space w;
  if (!make_space(g, &w)) return;
  for (size_t task = begin; task < end; task++) {
    attention head = at_head(a, task / each);
    size_t part = task % each, i0 = part * QUERIES, j0 = (part - queries) * a->group;
    if (part < queries)
      gradient_range(&head, &w, i0, least(i0 + QUERIES, g->l), 0, g->s, true, false);
    else
      gradient_range(&head, &w, 0, g->l, j0, least(j0 + a->group, g->s), false, true);
  }
}

void TD_K(attention_grad)(void *dq, void *dk, void *dv, const void *dy, const void *q,
                          const void *k, const void *v, const void *y, const void *kept,
                          const void *mask, const td_attention *g) {
  enum { FEW = 2 }; /* heads that are worth sharing out, at the price of weights computed twice */
  attention a = {.g = g, .group = 8 * KEYS, .q = q, .k = k, .v = v, .mask = mask, .y = y, .dy = dy,
                 .kept = kept, .dq = dq, .dk = dk, .dv = dv};
  size_t heads = g->batch * g->heads;
  memset(dk, 0, heads * g->s * g->d * sizeof(real));
  memset(dv, 0, heads * g->s * g->e * sizeof(real));
  bool few = heads < FEW && g->l > 4 * QUERIES;
  size_t parts = td_ceil_div(g->l, QUERIES) + td_ceil_div(g->s, a.group);
  size_t work = (few ? QUERIES : g->l) * (g->s + 1) * (g->d + g->e + 16) / 3;
  td_parallel(few ? heads * parts : heads, td_grain(work), few ? parts_of_heads : whole_heads, &a);
}
