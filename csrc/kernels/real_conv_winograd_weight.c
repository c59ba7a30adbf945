/* The weight gradient of a 3×3 convolution with stride 1 by Winograd's filtering (real_winograd.h).
 * The results of a tile are bilinear in its image and the kernel, so the gradient is the transposed
 * map: dw = Gᵀ[Σ (Bᵀ·d·B) ⊙ (A·dy·Aᵀ)]G, the sum over all tiles, in which every point is a product
 * of matrices channels×tiles and tiles×channels.
 *
 * It goes block by block through the tiles: they are transformed, then multiplied. Threads share the
 * tiles of a block, then its points; so every sum has one order, whatever their number, and there is
 * one set of sums, which the caches hold. */
#include "kernels/isa.h"
#include "kernels/real_conv.h"

enum { TILE_PITCH = 1 };
#include "kernels/real_tile.h"
#include "kernels/real_winograd.h"

enum {
  M = 4, SIZE = M + 2, POINTS = SIZE * SIZE,
  BLOCK_BYTES = 3 << 20,  /* of transformed tiles at a time */
  MOST_TILES = 192, LEAST_TILES = 24,
  MIN_TASK = 1 << 17      /* multiplications below which a thread is not worth waking */
};

typedef struct {
  const td_conv *g;
  wino_images x, dy;
  real *dw;
  wino_tiles tiles;
  size_t x_vectors, o_vectors;
  size_t block;                       /* tiles of a whole block */
  size_t x_pitch, o_pitch, s_pitch;   /* elements from a point to the next: images, dy, sums */
  real *v, *d, *sums, *zeros;
} plan;

/* A block at work. */
typedef struct {
  const plan *p;
  size_t first, count;
} work;

static void describe(plan *p, const td_conv *g) {
  *p = (plan){.g = g, .x = {NULL, g->h, g->w, g->c}, .dy = {NULL, g->oh, g->ow, g->o}};
  p->tiles = wino_cut(g->n, g->oh, g->ow, M);
  p->x_vectors = conv_ceil_div(g->c, TD_LANES);
  p->o_vectors = conv_ceil_div(g->o, TD_LANES);
  size_t line = 64 / sizeof(real);
  p->s_pitch = g->c * p->o_vectors * TD_LANES + line;
  size_t bytes = POINTS * (p->x_vectors + p->o_vectors) * TD_VBYTES;
  p->block = conv_min(conv_max(BLOCK_BYTES / bytes, LEAST_TILES), MOST_TILES);
  p->block = conv_min(p->block, p->tiles.total);
  /* one line more, so that the points of a tile do not fall on the same lines of the cache */
  p->x_pitch = p->block * p->x_vectors * TD_LANES + line;
  p->o_pitch = p->block * p->o_vectors * TD_LANES + line;
}

static bool prepare(plan *p) {
  size_t of_sums = conv_align(POINTS * p->s_pitch * sizeof(real));
  size_t of_zeros = conv_align(conv_max(p->x_vectors, p->o_vectors) * TD_VBYTES);
  size_t of_images = conv_align(POINTS * p->x_pitch * sizeof(real));
  char *base = td_scratch(of_sums + of_zeros + of_images + POINTS * p->o_pitch * sizeof(real));
  if (!base) return false;
  p->sums = (real *)base;
  p->zeros = (real *)(base + of_sums);
  p->v = (real *)(base + of_sums + of_zeros);
  p->d = (real *)(base + of_sums + of_zeros + of_images);
  memset(p->zeros, 0, of_zeros);
  return true;
}

/* One vector of a tile to its points, from the pixels listed. */
static void image_vector(const real *const *list, size_t at, real *to, size_t pitch) {
  wino_input_listed(M, list, at, to, SIZE * pitch, pitch);
}
static void dy_vector(const real *const *list, size_t at, real *to, size_t pitch) {
  wino_output_back_listed(M, list, at, to, SIZE * pitch, pitch);
}

/* Vector `i` of dy's tile t in a block: units of two vectors, tiles one after the other in each. */
static real *dy_place(const plan *p, size_t i, size_t t) {
  size_t unit = i / 2, width = conv_min(2, p->o_vectors - 2 * unit) * TD_LANES;
  return p->d + unit * 2 * TD_LANES * p->block + t * width + i % 2 * TD_LANES;
}
static real *image_place(const plan *p, size_t i, size_t t) {
  return p->v + (t * p->x_vectors + i) * TD_LANES;
}

/* The tile at (top, left) of image n, all its channels, to place t of the block. */
WINO_INLINE void transform(const plan *p, const wino_images *x, size_t n, ptrdiff_t top,
                           ptrdiff_t left, size_t size, size_t t,
                           void (*vector)(const real *const *, size_t, real *, size_t),
                           real *(*place)(const plan *, size_t, size_t), size_t pitch) {
  real copy[SIZE * SIZE * TD_LANES];
  const real *list[SIZE * SIZE];
  size_t full = x->c / TD_LANES, rest = x->c % TD_LANES;
  wino_list(x, n, top, left, size, p->zeros, list);
  for (size_t i = 0; i < full; i++) vector(list, i * TD_LANES, place(p, i, t), pitch);
  if (!rest) return;
  wino_copy(list, size * size, full * TD_LANES, rest, copy, TD_LANES);
  vector(list, 0, place(p, full, t), pitch);
}

/* Tiles first + [begin, end), images and dy. */
static void transform_tiles(void *ctx, size_t begin, size_t end) {
  const work *k = ctx;
  const plan *p = k->p;
  for (size_t t = begin; t < end; t++) {
    size_t n, y, x;
    wino_place(&p->tiles, M, k->first + t, &n, &y, &x);
    transform(p, &p->x, n, (ptrdiff_t)y - (ptrdiff_t)p->g->pad[0],
              (ptrdiff_t)x - (ptrdiff_t)p->g->pad[1], SIZE, t, image_vector, image_place,
              p->x_pitch);
    transform(p, &p->dy, n, (ptrdiff_t)y, (ptrdiff_t)x, M, t, dy_vector, dy_place, p->o_pitch);
  }
}

/* The sums of output channels' vector i for input channel c, from a point's first on: units of two vectors like dy's,
 * input channels one after the other in each, so that what a tile of sums needs lies together. */
static size_t sum_place(const plan *p, size_t i, size_t c) {
  size_t unit = i / 2, width = conv_min(2, p->o_vectors - 2 * unit) * TD_LANES;
  return unit * 2 * TD_LANES * p->g->c + c * width + i % 2 * TD_LANES;
}

/* Adds the products of the block's tiles to the sums of points [begin, end). */
static void multiply_points(void *ctx, size_t begin, size_t end) {
  static const real zeros[2 * TD_LANES];
  static const size_t off;
  const work *w = ctx;
  const plan *p = w->p;
  tile_job job = {.init = w->first ? NULL : zeros, .off = &off, .taps = 1,
                  .steps = w->count, .x_step = p->x_vectors * TD_LANES};
  for (size_t k = begin; k < end; k++)
    for (size_t i = 0, v; i < p->o_vectors; i += v) {
      v = conv_min(2, p->o_vectors - i);
      job.b = p->d + k * p->o_pitch + i * TD_LANES * p->block;
      job.y_pitch = v * TD_LANES;
      size_t tiles = conv_ceil_div(p->g->c, tile_rows(v));
      for (size_t t = 0; t < tiles; t++) {
        size_t c0 = p->g->c * t / tiles, c1 = p->g->c * (t + 1) / tiles;
        job.x = p->v + k * p->x_pitch + c0;
        job.y = p->sums + k * p->s_pitch + sum_place(p, i, c0);
        tile_table[v / 2][c1 - c0](&job);
      }
    }
}

/* Input channels [begin, end): the sums of all points to nine weights for each output channel. */
static void finish_channels(void *ctx, size_t begin, size_t end) {
  const plan *p = ctx;
  size_t tap = p->g->c * p->g->o;
  for (size_t c = begin; c < end; c++)
    for (size_t i = 0; i < p->o_vectors; i++) {
      real part[9 * TD_LANES], *to = p->dw + c * p->g->o + i * TD_LANES;
      const real *from = p->sums + sum_place(p, i, c);
      size_t there = conv_min(TD_LANES, p->g->o - i * TD_LANES);
      if (there == TD_LANES) {
        wino_weight_back_both(M, from, SIZE * p->s_pitch, p->s_pitch, to, 3 * tap, tap);
        continue;
      }
      wino_weight_back_both(M, from, SIZE * p->s_pitch, p->s_pitch, part, 3 * TD_LANES, TD_LANES);
      for (size_t t = 0; t < 9; t++)
        memcpy(to + t * tap, part + t * TD_LANES, there * sizeof(real));
    }
}

bool TD_K(conv_winograd_weight_grad)(real *dw, const real *x, const real *dy, const td_conv *g) {
  plan p;
  describe(&p, g);
  p.x.data = x, p.dy.data = dy, p.dw = dw;
  if (!prepare(&p)) return false;
  for (work w = {.p = &p}; w.first < p.tiles.total; w.first += p.block) {
    w.count = conv_min(p.block, p.tiles.total - w.first);
    td_parallel(w.count, 1 + MIN_TASK / (64 * (g->c + g->o)), transform_tiles, &w);
    td_parallel(POINTS, 1 + MIN_TASK / (w.count * g->c * g->o + 1), multiply_points, &w);
  }
  td_parallel(g->c, 1 + MIN_TASK / (64 * g->o), finish_channels, &p);
  return true;
}
