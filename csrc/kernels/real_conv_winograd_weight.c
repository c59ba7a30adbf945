/* The weight gradient of a 3×3 convolution with stride 1 by Winograd's filtering (real_winograd.h).
 * The results of a tile are bilinear in its image and the kernel, so the gradient is the transposed
 * map: dw = Gᵀ[Σ (Bᵀ·d·B) ⊙ (A·dy·Aᵀ)]G, the sum over all tiles, in which every point is a product
 * of matrices channels×tiles and tiles×channels.
 *
 * The tiles are cut into slices with sums of their own, which are added at the end; how many is a
 * matter of the shapes, so every sum has one order, whatever the number of threads. A slice goes
 * block by block through its tiles: they are transformed, then multiplied. When the sums are too
 * large for several slices, threads share the tiles of a block, then its points. */
#include "kernels/isa.h"
#include "kernels/real_conv.h"

enum { TILE_PITCH = 1 };
#include "kernels/real_tile.h"
#include "kernels/real_winograd.h"

enum {
  M = 4, SIZE = M + 2, POINTS = SIZE * SIZE,
  BLOCK_BYTES = 1536 << 10,   /* of transformed tiles at a time */
  SHARED_BYTES = 3 << 20,    /* likewise, when threads share a block */
  MOST_TILES = 192, LEAST_TILES = 24,
  MOST_SLICES = 4, SLICE_TILES = 128,
  SUMS_BYTES = 24 << 20,     /* of all slices' sums, if they are several */
  MIN_TASK = 1 << 17      /* multiplications below which a thread is not worth waking */
};

typedef struct {
  const td_conv *g;
  wino_images x, dy;
  real *dw;
  wino_tiles tiles;
  size_t x_vectors, o_vectors;
  size_t slices, block;               /* tiles of a whole block */
  size_t x_pitch, o_pitch, s_pitch;   /* elements from a point to the next: images, dy, sums */
  size_t slice_pitch;                 /* elements of the sums of a slice */
  size_t shared, local;               /* bytes of the caller's block and of a slice's */
  char *base;
  int owner;
  bool failed;
  real *sums, *zeros;
} plan;

/* A block of a slice at work. */
typedef struct {
  const plan *p;
  size_t first, count;
  bool begins;                        /* it is the slice's first */
  real *v, *d, *sums;
} work;

static void describe(plan *p, const td_conv *g) {
  *p = (plan){.g = g, .x = {NULL, g->h, g->w, g->c}, .dy = {NULL, g->oh, g->ow, g->o}};
  p->tiles = wino_cut(g->n, g->oh, g->ow, M);
  p->x_vectors = conv_ceil_div(g->c, TD_LANES);
  p->o_vectors = conv_ceil_div(g->o, TD_LANES);
  size_t line = 64 / sizeof(real);
  p->s_pitch = g->c * p->o_vectors * TD_LANES + line;
  p->slice_pitch = conv_round_up(POINTS * p->s_pitch, line);
  for (p->slices = 1; 2 * p->slices <= MOST_SLICES; p->slices *= 2)
    if (2 * p->slices * p->slice_pitch * sizeof(real) > SUMS_BYTES ||
        p->tiles.total < 2 * p->slices * SLICE_TILES)
      break;
  size_t bytes = POINTS * (p->x_vectors + p->o_vectors) * TD_VBYTES;
  size_t fit = (p->slices > 1 ? BLOCK_BYTES : SHARED_BYTES) / bytes;
  p->block = conv_min(conv_max(fit, LEAST_TILES), MOST_TILES);
  p->block = conv_min(p->block, conv_ceil_div(p->tiles.total, p->slices));
  /* one line more, so that the points of a tile do not fall on the same lines of the cache */
  p->x_pitch = p->block * p->x_vectors * TD_LANES + line;
  p->o_pitch = p->block * p->o_vectors * TD_LANES + line;
}

static bool prepare(plan *p) {
  size_t of_sums = p->slices * p->slice_pitch * sizeof(real);
  size_t of_zeros = conv_max(p->x_vectors, p->o_vectors) * TD_VBYTES;
  p->shared = conv_align(of_sums + of_zeros);
  p->local = conv_align(POINTS * p->x_pitch * sizeof(real)) +
             conv_align(POINTS * p->o_pitch * sizeof(real));
  p->base = td_scratch(p->shared + p->local);
  if (!p->base) return false;
  p->owner = td_thread_index();
  p->sums = (real *)p->base;
  p->zeros = (real *)(p->base + of_sums);
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
static real *dy_place(const work *k, size_t i, size_t t) {
  const plan *p = k->p;
  size_t unit = i / 2, width = conv_min(2, p->o_vectors - 2 * unit) * TD_LANES;
  return k->d + unit * 2 * TD_LANES * p->block + t * width + i % 2 * TD_LANES;
}
static real *image_place(const work *k, size_t i, size_t t) {
  return k->v + (t * k->p->x_vectors + i) * TD_LANES;
}

/* The tile at (top, left) of image n, all its channels, to place t of the block. */
WINO_INLINE void transform(const work *k, const wino_images *x, size_t n, ptrdiff_t top,
                           ptrdiff_t left, size_t size, size_t t,
                           void (*vector)(const real *const *, size_t, real *, size_t),
                           real *(*place)(const work *, size_t, size_t), size_t pitch) {
  real copy[SIZE * SIZE * TD_LANES];
  const real *list[SIZE * SIZE];
  size_t full = x->c / TD_LANES, rest = x->c % TD_LANES;
  wino_list(x, n, top, left, size, k->p->zeros, list);
  for (size_t i = 0; i < full; i++) vector(list, i * TD_LANES, place(k, i, t), pitch);
  if (!rest) return;
  wino_copy(list, size * size, full * TD_LANES, rest, copy, TD_LANES);
  vector(list, 0, place(k, full, t), pitch);
}

/* Tiles first + [begin, end), images and dy. */
static void transform_tiles(void *ctx, size_t begin, size_t end) {
  const work *k = ctx;
  const plan *p = k->p;
  for (size_t t = begin; t < end; t++) {
    size_t n, y, x;
    wino_place(&p->tiles, M, k->first + t, &n, &y, &x);
    transform(k, &p->x, n, (ptrdiff_t)y - (ptrdiff_t)p->g->pad[0],
              (ptrdiff_t)x - (ptrdiff_t)p->g->pad[1], SIZE, t, image_vector, image_place,
              p->x_pitch);
    transform(k, &p->dy, n, (ptrdiff_t)y, (ptrdiff_t)x, M, t, dy_vector, dy_place, p->o_pitch);
  }
}

/* Adds the products of the block's tiles to the sums of points [begin, end). */
static void multiply_points(void *ctx, size_t begin, size_t end) {
  static const real zeros[2 * TD_LANES];
  static const size_t off;
  const work *w = ctx;
  const plan *p = w->p;
  size_t row = p->o_vectors * TD_LANES;
  tile_job job = {.y_pitch = row, .init = w->begins ? zeros : NULL, .off = &off, .taps = 1,
                  .steps = w->count, .x_step = p->x_vectors * TD_LANES};
  for (size_t k = begin; k < end; k++)
    for (size_t i = 0, v; i < p->o_vectors; i += v) {
      v = conv_min(2, p->o_vectors - i);
      job.b = w->d + k * p->o_pitch + i * TD_LANES * p->block;
      size_t tiles = conv_ceil_div(p->g->c, tile_rows(v));
      for (size_t t = 0; t < tiles; t++) {
        size_t c0 = p->g->c * t / tiles, c1 = p->g->c * (t + 1) / tiles;
        job.x = w->v + k * p->x_pitch + c0;
        job.y = w->sums + k * p->s_pitch + c0 * row + i * TD_LANES;
        tile_table[v / 2][c1 - c0](&job);
      }
    }
}

static void run_slice(const plan *p, size_t slice, char *mine) {
  const td_conv *g = p->g;
  size_t first = p->tiles.total * slice / p->slices, end = p->tiles.total * (slice + 1) / p->slices;
  work w = {.p = p, .begins = true, .sums = p->sums + slice * p->slice_pitch, .v = (real *)mine};
  w.d = (real *)(mine + conv_align(POINTS * p->x_pitch * sizeof(real)));
  for (w.first = first; w.first < end; w.first += p->block) {
    w.count = conv_min(p->block, end - w.first);
    td_parallel(w.count, 1 + MIN_TASK / (64 * (g->c + g->o)), transform_tiles, &w);
    td_parallel(POINTS, 1 + MIN_TASK / (w.count * g->c * g->o + 1), multiply_points, &w);
    w.begins = false;
  }
}

static void run_slices(void *ctx, size_t begin, size_t end) {
  plan *p = ctx;
  char *mine = p->owner == td_thread_index() ? p->base + p->shared : td_scratch(p->local);
  if (!mine) {
    __atomic_store_n(&p->failed, true, __ATOMIC_RELAXED);
    return;
  }
  for (size_t i = begin; i < end; i++) run_slice(p, i, mine);
}

/* Elements [begin, end) of the first slice's sums become those of all. */
static void add_slices(void *ctx, size_t begin, size_t end) {
  const plan *p = ctx;
  for (size_t k = 1; k < p->slices; k++) {
    const real *from = p->sums + k * p->slice_pitch;
    for (size_t i = begin; i < end; i++) p->sums[i] += from[i];
  }
}

/* Input channels [begin, end): the sums of all points to nine weights for each output channel. */
static void finish_channels(void *ctx, size_t begin, size_t end) {
  const plan *p = ctx;
  size_t tap = p->g->c * p->g->o;
  for (size_t c = begin; c < end; c++)
    for (size_t i = 0; i < p->o_vectors; i++) {
      real part[9 * TD_LANES], *to = p->dw + c * p->g->o + i * TD_LANES;
      const real *from = p->sums + (c * p->o_vectors + i) * TD_LANES;
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
  td_parallel(p.slices, 1, run_slices, &p);
  if (p.failed) return false;
  if (p.slices > 1) td_parallel(p.slice_pitch, MIN_TASK / p.slices, add_slices, &p);
  td_parallel(g->c, 1 + MIN_TASK / (64 * g->o), finish_channels, &p);
  return true;
}
