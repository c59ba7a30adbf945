/* Attention, softmax(q·kᵀ·scale + mask)·v, without ever holding the scores of more than a block of
 * queries and keys: maximum and sum of a row's exponentials are carried along while blocks of keys
 * go by (Milakov and Gimelshein 2018; Dao et al. 2022). The gradient computes a block's weights
 * again from its row's maximum and one over that sum, which are all that has to be kept.
 *
 * Tasks are (batch, head, group of blocks of queries or keys), and every sum is made in the order of
 * its blocks, whatever task they are in: the number of threads never shows. */
#include "kernels/isa.h"
#include "kernels/real_product.h"
#include "kernels/reduce.h"

enum {
  BLOCK = 64,                       /* queries and keys of a block */
  GROUP = 4,                        /* most blocks that a task takes, sharing what it packs */
  PITCH = BLOCK + 64 / sizeof(real) /* of a row of a block: not a power of two */
};

/* One batch item and head, or the first of them. */
typedef struct {
  const td_attention *g;
  size_t group;  /* queries or keys of a task */
  const real *q, *k, *v, *mask, *y, *dy, *kept;
  real *out, *keep, *dq, *dk, *dv;
} attention;

/* Work space of a task: a block of weights and of their gradients, a block of keys and of values
 * turned, and the queries' maxima, sums and Σ dy·y. */
typedef struct {
  real *p, *ds, *kt, *vt, *top, *sum;
} space;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static bool make_space(const td_attention *g, space *w) {
  size_t block = BLOCK * PITCH, rows = GROUP * BLOCK;
  real *m = td_scratch((2 * block + (g->d + g->e) * PITCH + 2 * rows) * sizeof(real));
  if (!m) return false;
  w->p = m;
  w->ds = w->p + block;
  w->kt = w->ds + block;
  w->vt = w->kt + g->d * PITCH;
  w->top = w->vt + g->e * PITCH;
  w->sum = w->top + rows;
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

/* Scores of n queries from i0 on and m keys from j0 on into w->p, those of no key -∞. kt holds the
 * keys. */
static void scores(const attention *a, const space *w, size_t i0, size_t n, size_t j0, size_t m) {
  const td_attention *g = a->g;
  size_t whole = (m + TD_LANES - 1) / TD_LANES * TD_LANES, row = g->q_stride[1];
  run_tiles(&(product){.c = w->p, .a = a->q + i0 * row, .b = w->kt, .m = n, .n = whole, .k = g->d,
                       .a_row = row, .a_col = 1, .b_row = PITCH, .b_col = 1, .c_row = PITCH,
                       .alpha = (real)g->scale});
  for (size_t i = 0; i < n; i++) {
    real *p = w->p + i * PITCH;
    if (a->mask) {
      const real *mask = a->mask + (i0 + i) * g->mask_stride[2] + j0;
      for (size_t j = 0; j < m; j++) p[j] += mask[j];
    }
    size_t seen = g->causal && i0 + i + 1 < j0 + m ? (i0 + i + 1 > j0 ? i0 + i + 1 - j0 : 0) : m;
    for (size_t j = seen; j < whole; j++) p[j] = (real)-INFINITY;
  }
}

/* ---- Forward ------------------------------------------------------------------------------- */

static inline vreal larger(vreal a, vreal b) { return td_vselect(a > b, a, b); }

/* The scores of a row of `whole` become weights relative to its maximum so far; gives the factor by
 * which what was summed before shrinks. */
static real row_weights(real *p, size_t whole, real *top, real *sum) {
  vreal high = td_splat(*top);
  for (size_t j = 0; j < whole; j += TD_LANES) high = larger(td_load(p + j), high);
  real m = high[0];
  for (int k = 1; k < TD_LANES; k++) m = high[k] > m ? high[k] : m;
  vreal total = {0}, shift = td_splat(m);
  for (size_t j = 0; j < whole; j += TD_LANES) {
    vreal e = td_vexp(td_load(p + j) - shift);
    td_store(p + j, e);
    total += e;
  }
  real shrink = *top == m ? 1 : td_vexp(td_splat(*top - m))[0];
  *sum = *sum * shrink + td_fold_lanes(TD_FOLD_SUM, total);
  *top = m;
  return shrink;
}

static void times(real *y, size_t n, real by) {
  for (size_t j = 0; j < n; j++) y[j] *= by;
}

/* Blocks of queries [first, last) of a head. */
static void forward_group(const attention *a, const space *w, size_t first, size_t last) {
  const td_attention *g = a->g;
  size_t row = g->heads * g->e;
  for (size_t i = 0; i < last - first; i++) {
    w->top[i] = (real)-INFINITY;
    w->sum[i] = 0;
    memset(a->out + (first + i) * row, 0, g->e * sizeof(real));
  }
  for (size_t j0 = 0; j0 < g->s && !(g->causal && j0 >= last); j0 += BLOCK) {
    size_t m = least(g->s - j0, BLOCK), whole = (m + TD_LANES - 1) / TD_LANES * TD_LANES;
    turn(w->kt, a->k + j0 * g->k_stride[1], m, g->d, g->k_stride[1]);
    for (size_t i0 = first; i0 < last; i0 += BLOCK) {
      size_t n = least(last - i0, BLOCK);
      if (g->causal && j0 >= i0 + n) continue;
      scores(a, w, i0, n, j0, m);
      for (size_t i = 0; i < n; i++) {
        size_t at = i0 - first + i;
        real shrink = row_weights(w->p + i * PITCH, whole, w->top + at, w->sum + at);
        if (shrink != 1) times(a->out + (i0 + i) * row, g->e, shrink);
      }
      run_tiles(&(product){.c = a->out + i0 * row, .a = w->p, .b = a->v + j0 * g->v_stride[1],
                           .m = n, .n = g->e, .k = m, .a_row = PITCH, .a_col = 1,
                           .b_row = g->v_stride[1], .b_col = 1, .c_row = row, .alpha = 1,
                           .beta = 1});
    }
  }
  for (size_t i = 0; i < last - first; i++) {
    real share = g->s ? 1 / w->sum[i] : 0;
    times(a->out + (first + i) * row, g->e, share);
    a->keep[2 * (first + i)] = w->top[i];
    a->keep[2 * (first + i) + 1] = share;
  }
}

/* As many whole blocks as leave a task for every thread, when each of `heads` has n to share. */
static size_t group_for(size_t heads, size_t n) {
  size_t blocks = td_ceil_div(n, BLOCK), tasks = td_ceil_div((size_t)td_threads(), heads);
  return least(GROUP, blocks > tasks ? td_ceil_div(blocks, tasks) : 1) * BLOCK;
}

static void forward_tasks(void *ctx, size_t begin, size_t end) {
  const attention *a = ctx;
  const td_attention *g = a->g;
  size_t groups = td_ceil_div(g->l, a->group);
  space w;
  bool room = make_space(g, &w);
  for (size_t task = begin; task < end; task++) {
    attention head = at_head(a, task / groups);
    size_t first = task % groups * a->group, last = least(first + a->group, g->l);
    if (room) forward_group(&head, &w, first, last);
    for (size_t i = first; i < last && !room; i++) /* memory was refused: the result says so */
      for (size_t e = 0; e < g->e; e++) head.out[i * g->heads * g->e + e] = (real)NAN;
  }
}

void TD_K(attention)(void *y, void *keep, const void *q, const void *k, const void *v,
                     const void *mask, const td_attention *g) {
  attention a = {.g = g, .q = q, .k = k, .v = v, .mask = mask, .out = y, .keep = keep};
  size_t heads = g->batch * g->heads;
  if (!heads || !g->l) return;
  a.group = group_for(heads, g->l);
  size_t work = least(g->l, a.group) * (g->s + 1) * (g->d + g->e + 16) / 8;
  td_parallel(heads * td_ceil_div(g->l, a.group), td_grain(work), forward_tasks, &a);
}

/* ---- Gradient ---------------------------------------------------------------------------------
 * With P the weights, dP = dy·vᵀ and D = Σ dy·y of each query: dS = P·(dP - D),
 * dv = Pᵀ·dy, dq = scale·dS·k, dk = scale·dSᵀ·q. */

/* Weights and dS of a block, kt and vt holding its keys and values. */
static void block_gradient(const attention *a, const space *w, size_t i0, size_t n, size_t j0,
                           size_t m) {
  const td_attention *g = a->g;
  size_t whole = (m + TD_LANES - 1) / TD_LANES * TD_LANES, row = g->heads * g->e;
  scores(a, w, i0, n, j0, m);
  run_tiles(&(product){.c = w->ds, .a = a->dy + i0 * row, .b = w->vt, .m = n, .n = whole,
                       .k = g->e, .a_row = row, .a_col = 1, .b_row = PITCH, .b_col = 1,
                       .c_row = PITCH, .alpha = 1});
  for (size_t i = 0; i < n; i++) {
    const real *y = a->y + (i0 + i) * row, *dy = a->dy + (i0 + i) * row;
    vreal dot = {0};
    vreal top = td_splat(a->kept[2 * (i0 + i)]), share = td_splat(a->kept[2 * (i0 + i) + 1]);
    size_t e = 0;
    for (; e + TD_LANES <= g->e; e += TD_LANES) dot += td_load(y + e) * td_load(dy + e);
    if (e < g->e) dot += td_load_part(y + e, g->e - e) * td_load_part(dy + e, g->e - e);
    vreal d = td_splat(td_fold_lanes(TD_FOLD_SUM, dot));
    for (size_t j = 0; j < whole; j += TD_LANES) {
      vreal p = td_vexp(td_load(w->p + i * PITCH + j) - top) * share;
      td_store(w->p + i * PITCH + j, p);
      td_store(w->ds + i * PITCH + j, p * (td_load(w->ds + i * PITCH + j) - d));
    }
  }
}

/* dq of a block of queries += its share of a block of keys. */
static void add_dq(const attention *a, const space *w, size_t i0, size_t n, size_t j0, size_t m) {
  const td_attention *g = a->g;
  size_t row = g->heads * g->d;
  run_tiles(&(product){.c = a->dq + i0 * row, .a = w->ds, .b = a->k + j0 * g->k_stride[1], .m = n,
                       .n = g->d, .k = m, .a_row = PITCH, .a_col = 1, .b_row = g->k_stride[1],
                       .b_col = 1, .c_row = row, .alpha = (real)g->scale, .beta = 1});
}

static void add_dkv(const attention *a, const space *w, size_t i0, size_t n, size_t j0, size_t m) {
  const td_attention *g = a->g;
  size_t row_v = g->heads * g->e, row_k = g->heads * g->d;
  run_tiles(&(product){.c = a->dv + j0 * row_v, .a = w->p, .b = a->dy + i0 * row_v, .m = m,
                       .n = g->e, .k = n, .a_row = 1, .a_col = PITCH, .b_row = row_v, .b_col = 1,
                       .c_row = row_v, .alpha = 1, .beta = 1});
  run_tiles(&(product){.c = a->dk + j0 * row_k, .a = w->ds, .b = a->q + i0 * g->q_stride[1],
                       .m = m, .n = g->d, .k = n, .a_row = 1, .a_col = PITCH,
                       .b_row = g->q_stride[1], .b_col = 1, .c_row = row_k,
                       .alpha = (real)g->scale, .beta = 1});
}

static void turn_keys(const attention *a, const space *w, size_t j0, size_t m) {
  const td_attention *g = a->g;
  turn(w->kt, a->k + j0 * g->k_stride[1], m, g->d, g->k_stride[1]);
  turn(w->vt, a->v + j0 * g->v_stride[1], m, g->e, g->v_stride[1]);
}

/* Queries [i_first, i_last) against keys [j_first, j_last): all of dq, or of dk and dv, or of both. */
static void gradient_range(const attention *a, const space *w, size_t i_first, size_t i_last,
                           size_t j_first, size_t j_last, bool dq, bool dkv) {
  const td_attention *g = a->g;
  for (size_t j0 = j_first; j0 < j_last && !(g->causal && j0 >= i_last); j0 += BLOCK) {
    size_t m = least(j_last - j0, BLOCK);
    turn_keys(a, w, j0, m);
    for (size_t i0 = i_first; i0 < i_last; i0 += BLOCK) {
      size_t n = least(i_last - i0, BLOCK);
      if (g->causal && j0 >= i0 + n) continue;
      block_gradient(a, w, i0, n, j0, m);
      if (dq) add_dq(a, w, i0, n, j0, m);
      if (dkv) add_dkv(a, w, i0, n, j0, m);
    }
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

/* A task is a group of queries, then one of keys. */
static void parts_of_heads(void *ctx, size_t begin, size_t end) {
  const attention *a = ctx;
  const td_attention *g = a->g;
  size_t queries = td_ceil_div(g->l, a->group), each = queries + td_ceil_div(g->s, a->group);
  space w;
  if (!make_space(g, &w)) return;
  for (size_t task = begin; task < end; task++) {
    attention head = at_head(a, task / each);
    size_t part = task % each, first = (part < queries ? part : part - queries) * a->group;
    if (part < queries)
      gradient_range(&head, &w, first, least(first + a->group, g->l), 0, g->s, true, false);
    else
      gradient_range(&head, &w, 0, g->l, first, least(first + a->group, g->s), false, true);
  }
}

void TD_K(attention_grad)(void *dq, void *dk, void *dv, const void *dy, const void *q,
                          const void *k, const void *v, const void *y, const void *kept,
                          const void *mask, const td_attention *g) {
  enum { FEW = 2 }; /* heads that are worth sharing out, at the price of weights computed twice */
  attention a = {.g = g, .q = q, .k = k, .v = v, .mask = mask, .y = y, .dy = dy, .kept = kept,
                 .dq = dq, .dk = dk, .dv = dv};
  size_t heads = g->batch * g->heads;
  memset(dq, 0, heads * g->l * g->d * sizeof(real));
  memset(dk, 0, heads * g->s * g->d * sizeof(real));
  memset(dv, 0, heads * g->s * g->e * sizeof(real));
  a.group = GROUP * BLOCK;
  bool few = heads < FEW && g->l > a.group;
  size_t tasks = few ? heads * (td_ceil_div(g->l, a.group) + td_ceil_div(g->s, a.group)) : heads;
  size_t work = (few ? least(g->l, a.group) : g->l) * (g->s + 1) * (g->d + g->e + 16) / 3;
  td_parallel(tasks, td_grain(work), few ? parts_of_heads : whole_heads, &a);
}
