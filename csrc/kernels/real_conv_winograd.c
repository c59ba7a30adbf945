/* 3×3 convolution with stride 1 and its input gradient by Winograd's filtering (real_winograd.h).
 *
 * The gradient is the convolution of dy with the kernel turned round and its channels exchanged, so
 * both are one computation. Weights are transformed and packed once a call, or once while their
 * values stay (forms.h). A task takes a block of
 * tiles through three steps, so that what passes between them stays in the second-level cache:
 * input tiles are transformed to one matrix tiles×channels for each of the (m+2)² points, the
 * matrices are multiplied with the weights' by register tiles, and the products of a few output
 * channels at a time are transformed to results.
 *
 * A tile's numbers do not depend on the block it is in, and which way is taken not on the number of
 * images: so a sample's result is the same whatever other samples there are. */
#include "kernels/isa.h"
#include "kernels/real_conv.h"

enum { TILE_PITCH = 16 };
#define TILE_AHEAD
#include "kernels/real_tile.h"
#include "kernels/real_winograd.h"

enum {
  INPUT_BYTES = 256 << 10,  /* of transformed tiles of a block that stays in the second-level cache */
  CHUNK_BYTES = 96 << 10,   /* of products at a time, then */
  LONG_BLOCK = 8,           /* register tiles of a block that does not */
  LEAST_BLOCK = 2,          /* register tiles below which a block is not worth keeping small */
  FEW_BLOCKS = 2,           /* long blocks of a call that is short */
  CACHE_BYTES = 1 << 20,    /* of transformed weights beyond which a short call reads them seldom, */
  AHEAD_BYTES = 8 << 10,    /* and tiles ask for them so far ahead: a network's are more than the caches hold */
  PASS_BYTES = 24 << 20,    /* of transformed weights in memory at a time */
  MIN_TASK = 1 << 17        /* multiplications below which a thread is not worth waking */
};

typedef struct {
  const td_conv *g;
  const td_epilogue *e;         /* NULL in the input gradient */
  bool transposed;
  size_t m, points;             /* results along an edge of a tile; (m+2)² */
  wino_images in;
  size_t out_h, out_w, out_c;
  ptrdiff_t pad[2];             /* may be negative in the gradient */
  wino_tiles tiles;
  size_t blocks, depth;         /* blocks of WINO_BLOCK input channels, and channels with the filling */
  size_t vectors, units;        /* of output channels; a unit is two vectors, or one at the end */
  size_t block, chunk;          /* tiles of a block; units whose products are in memory at a time */
  size_t parts;                 /* tasks that share the units of a block */
  size_t ahead;                 /* elements of weights between what a tile reads and asks for */
  size_t v_pitch, m_pitch;      /* elements from a point to the next, of tiles and of products */
  size_t pass_begin, pass_end;  /* units whose weights are in memory */
  /* parts of the shared block: where each channel block begins, the bias, zeros for a pixel, and
   * the weights */
  size_t *off;
  real *init, *zeros, *u;
  size_t shared, local;
  char *base;
  int owner;
  bool failed;
  const real *w;
  real *y;
  const td_forms *forms;
  td_form *form;                /* all transformed weights, kept; NULL: in the shared block */
} plan;

/* ---- Sizes ----------------------------------------------------------------------------------- */

static size_t unit_width(const plan *p, size_t unit) {
  return conv_min(2, p->vectors - 2 * unit) * TD_LANES;
}

/* Elements from a point's weights to the next, in a unit of this width: a line more than they are,
 * so that the points of a weight do not fall on the same lines of the cache. */
static size_t point_pitch(const plan *p, size_t width) {
  return p->depth * width + 64 / sizeof(real);
}

/* Elements of the weights of `units` whole units. */
static size_t weights_of(const plan *p, size_t units) {
  return units * p->points * point_pitch(p, 2 * TD_LANES);
}

/* Cuts few blocks so that all threads have equally much: into shorter ones, or when a block is too
 * short for that or the weights are what takes time to read, by output channels. */
static void share_blocks(plan *p, bool by_channels) {
  size_t threads = (size_t)td_threads_free(), n = conv_ceil_div(p->tiles.total, p->block);
  size_t more = n < 4 * threads && (n > threads || !by_channels) ? conv_round_up(n, threads) : n;
  if (conv_ceil_div(p->tiles.total, more) >= TILE_ROWS_2) n = more;
  p->block = conv_ceil_div(p->tiles.total, n);
  p->parts = n < threads ? conv_min(p->units, conv_ceil_div(threads, n)) : 1;
}

/* Tiles of a block: what the second-level cache holds, or when that is too little, or weights are
 * many and tiles few, long blocks that read the weights seldom, with their products all in
 * memory. */
static void choose_block(plan *p) {
  size_t tile_bytes = p->points * p->depth * sizeof(real);
  size_t product_bytes = p->points * 2 * TD_VBYTES;
  size_t rows = conv_min(INPUT_BYTES / tile_bytes / TILE_ROWS_2, LONG_BLOCK);
  bool is_short = p->tiles.total <= FEW_BLOCKS * LONG_BLOCK * TILE_ROWS_2 &&
                  weights_of(p, p->units) * sizeof(real) > CACHE_BYTES;
  bool is_long = rows < LEAST_BLOCK || is_short;
  p->block = (is_long ? LONG_BLOCK : rows) * TILE_ROWS_2;
  share_blocks(p, is_short);
  p->chunk = is_long ? p->units : conv_max(1, CHUNK_BYTES / (p->block * product_bytes));
  p->chunk = conv_min(p->chunk, p->units);
  /* one line more, so that the points of a tile do not fall on the same lines of the cache */
  p->v_pitch = p->block * p->depth + 64 / sizeof(real);
  p->m_pitch = p->block * p->chunk * 2 * TD_LANES + 64 / sizeof(real);
}

static void describe(plan *p, const td_conv *g, bool transposed, size_t m) {
  *p = (plan){.g = g, .transposed = transposed, .m = m, .points = (m + 2) * (m + 2)};
  p->in = transposed ? (wino_images){NULL, g->oh, g->ow, g->o} : (wino_images){NULL, g->h, g->w, g->c};
  p->out_h = transposed ? g->h : g->oh;
  p->out_w = transposed ? g->w : g->ow;
  p->out_c = transposed ? g->c : g->o;
  for (int i = 0; i < 2; i++)
    p->pad[i] = transposed ? 2 - (ptrdiff_t)g->pad[i] : (ptrdiff_t)g->pad[i];
  p->tiles = wino_cut(g->n, p->out_h, p->out_w, m);
  p->blocks = conv_ceil_div(p->in.c, WINO_BLOCK);
  p->depth = p->blocks * WINO_BLOCK;
  p->vectors = conv_ceil_div(p->out_c, TD_LANES);
  p->units = conv_ceil_div(p->vectors, 2);
  choose_block(p);
  p->ahead = weights_of(p, p->units) * sizeof(real) > CACHE_BYTES ? AHEAD_BYTES / sizeof(real) : 0;
}

static td_form *take_form(const plan *p, size_t bytes) {
  td_form_key key = {.operand = p->w, .way = 2 * p->m + p->transposed,
                     .size = {sizeof(real), p->in.c, p->out_c}};
  return td_form_take(p->forms, &key, bytes);
}

/* Lays out the shared block and a task's; false when memory is refused. */
static bool prepare(plan *p) {
  size_t init_at = conv_align(p->blocks * sizeof(size_t));
  size_t zeros_at = init_at + conv_align(p->units * 2 * TD_VBYTES);
  size_t u_at = zeros_at + conv_align(p->depth * sizeof(real));
  size_t all = weights_of(p, p->units) * sizeof(real), one = weights_of(p, 1) * sizeof(real);
  p->form = take_form(p, all);
  p->shared = u_at + (p->form ? 0 : conv_align(conv_min(all, conv_max(PASS_BYTES, one))));
  p->local = conv_align(p->points * p->v_pitch * sizeof(real)) +
             conv_align(p->points * p->m_pitch * sizeof(real));
  p->base = td_scratch(p->shared + p->local);
  if (!p->base) {
    if (p->form && !p->form->made) td_form_done(p->form, false);
    return false;
  }
  p->owner = td_thread_index();
  p->off = (size_t *)p->base;
  p->init = (real *)(p->base + init_at);
  p->zeros = (real *)(p->base + zeros_at);
  p->u = p->form ? p->form->data : (real *)(p->base + u_at);
  memset(p->zeros, 0, p->depth * sizeof(real));
  for (size_t b = 0; b < p->blocks; b++) p->off[b] = b * p->block * WINO_BLOCK;
  memset(p->init, 0, p->units * 2 * TD_VBYTES);
  if (p->e && p->e->bias) memcpy(p->init, p->e->bias, p->out_c * sizeof(real));
  return true;
}

/* ---- Weights --------------------------------------------------------------------------------- */

/* to[tap][i][lane] = the weight of tap, input channel c0 + i and output channel o0 + lane, for
 * WINO_BLOCK input channels; zeros where there is none. */
static void gather_weights(const plan *p, real *to, size_t c0, size_t o0) {
  size_t nc = conv_min(WINO_BLOCK, p->in.c - c0), no = conv_min(TD_LANES, p->out_c - o0);
  if (nc < WINO_BLOCK || no < TD_LANES) memset(to, 0, 9 * WINO_BLOCK * TD_VBYTES);
  for (size_t t = 0; t < 9; t++, to += WINO_BLOCK * TD_LANES)
    if (p->transposed) {
      const real *from = p->w + ((8 - t) * p->out_c + o0) * p->in.c + c0;
      for (size_t o = 0; o < no; o++, from += p->in.c)
        for (size_t i = 0; i < nc; i++) to[i * TD_LANES + o] = from[i];
    } else {
      const real *from = p->w + (t * p->in.c + c0) * p->out_c + o0;
      for (size_t i = 0; i < nc; i++, from += p->out_c)
        if (no == TD_LANES) td_store(to + i * TD_LANES, td_load(from));
        else memcpy(to + i * TD_LANES, from, no * sizeof(real));
    }
}

/* Where the weights of a unit begin: points × depth rows of the unit's width. */
static real *unit_weights(const plan *p, size_t unit) {
  return p->u + weights_of(p, unit - p->pass_begin);
}

WINO_INLINE void pack_vector(const plan *p, const int m, size_t unit, size_t v) {
  real part[9 * WINO_BLOCK * TD_LANES] __attribute__((aligned(64)));
  size_t width = unit_width(p, unit), point = point_pitch(p, width);
  real *to = unit_weights(p, unit) + v * TD_LANES;
  for (size_t c0 = 0; c0 < p->depth; c0 += WINO_BLOCK) {
    gather_weights(p, part, c0, (2 * unit + v) * TD_LANES);
    for (size_t i = 0; i < WINO_BLOCK; i++)
      wino_weight_both(m, part + i * TD_LANES, 3 * WINO_BLOCK * TD_LANES, WINO_BLOCK * TD_LANES,
                       to + (c0 + i) * width, (size_t)(m + 2) * point, point);
  }
}
static void pack_vector_2(const plan *p, size_t unit, size_t v) { pack_vector(p, 2, unit, v); }
static void pack_vector_4(const plan *p, size_t unit, size_t v) { pack_vector(p, 4, unit, v); }

/* Transforms and packs the weights of units pass_begin + [begin, end). */
static void pack_units(void *ctx, size_t begin, size_t end) {
  const plan *p = ctx;
  for (size_t u = p->pass_begin + begin; u < p->pass_begin + end; u++)
    for (size_t v = 0; v < unit_width(p, u) / TD_LANES; v++)
      (p->m == 2 ? pack_vector_2 : pack_vector_4)(p, u, v);
}

/* ---- A block of tiles ------------------------------------------------------------------------ */

/* Channels [c, end) of a tile to its points, WINO_BLOCK of a block side by side, `step` elements
 * from a block to the next. Pixels lie from `from` on, or where `list` says. */
WINO_INLINE void input_tile(const int m, const real *from, size_t row, size_t col,
                            const real *const *list, size_t c, size_t end, real *to, size_t step,
                            size_t pitch) {
  for (; c < end; c += WINO_BLOCK, to += step)
    for (size_t v = 0; v < WINO_BLOCK; v += TD_LANES)
      if (from)
        wino_input_both(m, from + c + v, row, col, to + v, (size_t)(m + 2) * pitch, pitch);
      else wino_input_listed(m, list, c + v, to + v, (size_t)(m + 2) * pitch, pitch);
}
#define INPUT_TILE(m)                                                                             \
  static void input_tile_##m(const real *from, size_t row, size_t col, size_t end, real *to,      \
                             size_t step, size_t pitch) {                                         \
    input_tile(m, from, row, col, NULL, 0, end, to, step, pitch);                                 \
  }                                                                                               \
  static void input_list_##m(const real *const *list, size_t c, size_t end, real *to,             \
                             size_t step, size_t pitch) {                                         \
    input_tile(m, NULL, 0, 0, list, c, end, to, step, pitch);                                     \
  }
INPUT_TILE(2)
INPUT_TILE(4)

/* v[point][channel block][tile][channel] of tile number `tile`; v: its place. */
static void transform_tile(const plan *p, size_t tile, real *v) {
  real copy[WINO_MAX * WINO_MAX * WINO_BLOCK];
  const real *list[WINO_MAX * WINO_MAX];
  size_t n, y, x, size = p->m + 2, full = p->in.c / WINO_BLOCK * WINO_BLOCK;
  size_t step = p->block * WINO_BLOCK, c = p->in.c, pitch = p->v_pitch;
  wino_place(&p->tiles, p->m, tile, &n, &y, &x);
  ptrdiff_t top = (ptrdiff_t)y - p->pad[0], left = (ptrdiff_t)x - p->pad[1];
  bool inside = wino_inside(&p->in, top, left, size);
  if (!inside || full < c) wino_list(&p->in, n, top, left, size, p->zeros, list);
  if (inside) {
    const real *from = p->in.data + ((n * p->in.h + (size_t)top) * p->in.w + (size_t)left) * c;
    (p->m == 2 ? input_tile_2 : input_tile_4)(from, p->in.w * c, c, full, v, step, pitch);
  } else {
    (p->m == 2 ? input_list_2 : input_list_4)(list, 0, full, v, step, pitch);
  }
  if (full == c) return;
  wino_copy(list, p->points, full, c - full, copy, WINO_BLOCK);
  v += full / WINO_BLOCK * step;
  (p->m == 2 ? input_list_2 : input_list_4)(list, 0, WINO_BLOCK, v, step, pitch);
}

/* products[tile][width] = v[tile]·weights, of one unit at one point. */
static void multiply(const plan *p, const real *v, const real *weights, size_t width, size_t count,
                     real *products) {
  static const real zeros[2 * TD_LANES];
  size_t most = tile_rows(width / TD_LANES), tiles = conv_ceil_div(count, most);
  tile_job job = {.y_pitch = width, .init = zeros, .off = p->off, .taps = p->blocks,
                  .steps = WINO_BLOCK, .x_step = 1, .b = weights, .ahead = p->ahead};
  for (size_t t = 0; t < tiles; t++) {
    size_t t0 = count * t / tiles, t1 = count * (t + 1) / tiles;
    job.y = products + t0 * width;
    job.x = v + t0 * WINO_BLOCK;
    tile_table[width / TD_LANES / 2][t1 - t0](&job);
  }
}

/* width / TD_LANES vectors of results of a tile. */
WINO_INLINE void output_tile(const int m, const real *from, size_t pitch, size_t width,
                             const real *start, real *to, size_t row, size_t col) {
  for (size_t v = 0; v < width; v += TD_LANES)
    wino_output_both(m, from + v, (size_t)(m + 2) * pitch, pitch, to + v, row, col,
                     td_load(start + v));
}
static void output_tile_2(const real *from, size_t pitch, size_t width, const real *start, real *to,
                          size_t row, size_t col) {
  output_tile(2, from, pitch, width, start, to, row, col);
}
static void output_tile_4(const real *from, size_t pitch, size_t width, const real *start, real *to,
                          size_t row, size_t col) {
  output_tile(4, from, pitch, width, start, to, row, col);
}

/* What the results of a unit of image n begin with, bias and chan together; sum: memory for it. */
static const real *unit_start(const plan *p, size_t unit, size_t n, real *sum) {
  size_t o0 = unit * 2 * TD_LANES, there = conv_min(2 * TD_LANES, p->out_c - o0);
  if (!p->e || !p->e->chan) return p->init + o0;
  const real *chan = (const real *)p->e->chan + n * p->out_c + o0;
  for (size_t i = 0; i < 2 * TD_LANES; i++) sum[i] = p->init[o0 + i] + (i < there ? chan[i] : 0);
  return sum;
}

/* Results of one unit and one tile at (y, x) of image n, from its products to memory. */
static void finish_tile(const plan *p, const real *products, size_t unit, size_t n, size_t y,
                        size_t x) {
  real part[4 * 4 * 2 * TD_LANES] __attribute__((aligned(64))), sum[2 * TD_LANES];
  size_t width = unit_width(p, unit), o0 = unit * 2 * TD_LANES;
  size_t channels = conv_min(width, p->out_c - o0);
  size_t rows = conv_min(p->m, p->out_h - y), cols = conv_min(p->m, p->out_w - x);
  size_t at = ((n * p->out_h + y) * p->out_w + x) * p->out_c + o0, row = p->out_w * p->out_c;
  bool whole = rows == p->m && cols == p->m && channels == width;
  (p->m == 2 ? output_tile_2 : output_tile_4)(
      products, p->m_pitch, width, unit_start(p, unit, n, sum), whole ? p->y + at : part,
      whole ? row : p->m * width, whole ? p->out_c : width);
  for (size_t i = 0; i < rows && !whole; i++)
    for (size_t j = 0; j < cols; j++)
      for (size_t c = 0; c < channels; c++)
        p->y[at + i * row + j * p->out_c + c] = part[(i * p->m + j) * width + c];
  if (!p->e || (!p->e->add && p->e->act == TD_ACT_NONE)) return;
  const real *add = p->e->add;
  for (size_t i = 0; i < rows; i++, at += row)
    TD_K(conv_finish)(p->y + at, add ? add + at : NULL, cols, channels, p->out_c, p->e->act);
}

/* Asks for the memory that units [u0, u1) of a tile will be written to, and for what will be added there: pixels lie
 * apart, so that nothing else fetches them ahead, and a store that has to wait holds up those behind it. */
static void expect_tile(const plan *p, size_t u0, size_t u1, size_t tile) {
  size_t n, y, x, bytes = (u1 - u0) * 2 * TD_VBYTES;
  wino_place(&p->tiles, p->m, tile, &n, &y, &x);
  size_t rows = conv_min(p->m, p->out_h - y), cols = conv_min(p->m, p->out_w - x);
  const real *add = p->e ? p->e->add : NULL;
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < cols; j++) {
      size_t at = ((n * p->out_h + y + i) * p->out_w + x + j) * p->out_c + u0 * 2 * TD_LANES;
      for (size_t b = 0; b < bytes; b += 64) td_expect_write((const char *)(p->y + at) + b);
      for (size_t b = 0; b < bytes && add; b += 64) __builtin_prefetch((const char *)(add + at) + b);
    }
}

/* Units [u0, u1) of tiles first + [0, count): all points of each, then their results. */
static void run_chunk(const plan *p, size_t u0, size_t u1, size_t first, size_t count,
                      const real *v, real *products) {
  for (size_t k = 0; k < p->points; k++) {
    for (size_t t = count * k / p->points; t < count * (k + 1) / p->points; t++) expect_tile(p, u0, u1, first + t);
    for (size_t u = u0; u < u1; u++) {
      size_t width = unit_width(p, u);
      multiply(p, v + k * p->v_pitch, unit_weights(p, u) + k * point_pitch(p, width), width, count,
               products + k * p->m_pitch + (u - u0) * count * 2 * TD_LANES);
    }
  }
  for (size_t t = 0; t < count; t++) {
    size_t n, y, x;
    wino_place(&p->tiles, p->m, first + t, &n, &y, &x);
    for (size_t u = u0; u < u1; u++)
      finish_tile(p, products + (u - u0) * count * 2 * TD_LANES + t * unit_width(p, u), u, n, y, x);
  }
}

/* Items are the parts of all blocks. */
static void run_blocks(void *ctx, size_t begin, size_t end) {
  plan *p = ctx;
  char *mine = p->owner == td_thread_index() ? p->base + p->shared : td_scratch(p->local);
  if (!mine) {
    __atomic_store_n(&p->failed, true, __ATOMIC_RELAXED);
    return;
  }
  real *v = (real *)mine;
  real *products = (real *)(mine + conv_align(p->points * p->v_pitch * sizeof(real)));
  for (size_t i = begin; i < end; i++) {
    size_t first = i / p->parts * p->block, count = conv_min(p->block, p->tiles.total - first);
    size_t units = p->pass_end - p->pass_begin, part = i % p->parts;
    size_t u = p->pass_begin + units * part / p->parts;
    size_t last = p->pass_begin + units * (part + 1) / p->parts;
    for (size_t t = 0; t < count; t++) transform_tile(p, first + t, v + t * WINO_BLOCK);
    for (; u < last; u += p->chunk)
      run_chunk(p, u, conv_min(u + p->chunk, last), first, count, v, products);
  }
}

static bool correlate(plan *p) {
  if (!prepare(p)) return false;
  size_t pass = p->form ? p->units : conv_max(1, PASS_BYTES / (weights_of(p, 1) * sizeof(real)));
  size_t work = p->block * p->points * p->depth * p->out_c / p->parts;
  for (p->pass_begin = 0; p->pass_begin < p->units; p->pass_begin = p->pass_end) {
    p->pass_end = conv_min(p->pass_begin + pass, p->units);
    if (!p->form || !p->form->made)
      td_parallel(p->pass_end - p->pass_begin, 1 + (16 << 10) / (weights_of(p, 1)), pack_units, p);
    if (p->form && !p->form->made) td_form_done(p->form, true);
    td_parallel(conv_ceil_div(p->tiles.total, p->block) * p->parts, 1 + MIN_TASK / (work + 1), run_blocks, p);
  }
  return !p->failed;
}

bool TD_K(conv_winograd)(real *y, const real *x, const real *w, const td_epilogue *e,
                         const td_conv *g, const td_forms *forms, int m) {
  plan p;
  describe(&p, g, false, (size_t)m);
  p.in.data = x, p.w = w, p.y = y, p.e = e, p.forms = forms;
  return correlate(&p);
}

bool TD_K(conv_winograd_input_grad)(real *dx, const real *dy, const real *w, const td_conv *g,
                                    const td_forms *forms, int m) {
  plan p;
  describe(&p, g, true, (size_t)m);
  p.in.data = dy, p.w = w, p.y = dx, p.forms = forms;
  return correlate(&p);
}
