/* The weight gradient of a convolution by register tiles: for every tap, dw[c][o] = Σ x[pixel seen][c]·dy[pixel][o].
 *
 * A tile's rows are input channels and its vectors output channels; it runs along the pixels. With dilation 1 and one group
 * the channels that a kernel row sees are kw·c neighbours in memory, so its taps are rows of the same tile. The
 * work is cut into items, a range of output rows (over all images) by a panel of output channels by perhaps a kernel
 * row; every item sums into its own memory, and the sums over row ranges are added in order at the end. The cut depends
 * on the geometry alone, so the result does not depend on the number of threads. */
#include "kernels/isa.h"
#include "kernels/real_conv.h"

enum { TILE_PITCH = 1 };
#include "kernels/real_tile.h"

enum {
  SLAB_BYTES = 256 << 10,      /* of packed x of an item at a time */
  STRIP_BYTES = 16 << 10,      /* of packed dy that the tiles run over again and again */
  PARTS_BYTES = 4 << 20,       /* of partial sums */
  MAX_PARTS = 32,
  MIN_ITEMS = 16,              /* below, kernel rows become items too */
  PANEL_VECTORS = 4,           /* vectors of output channels of an item, at least */
  MIN_ITEM_WORK = 1 << 20      /* multiplications of an item, at least */
};

typedef struct {
  const td_conv *g;
  const real *x, *dy;
  real *dw;
  size_t cg, og;
  size_t vectors;              /* of output channels of a group */
  size_t rows;                 /* output rows of all images */
  size_t parts;                /* ranges of rows */
  size_t panels, panel;        /* panels of a group, vectors of a panel */
  size_t kernel_items;         /* kh when kernel rows are items, else 1 */
  size_t fold;                 /* taps of a kernel row that are rows of one tile: kw or 1 */
  bool direct;                 /* x is read where it lies: no padding, one group */
  bool in_place;               /* the sums are dw itself: one part, and full vectors */
  size_t sum_pitch, sum_size;  /* elements of a row of sums and of a part */
  size_t slab, strip;          /* output rows packed at a time */
  size_t cols, col_step;       /* packed columns; elements from a pixel to the next one seen */
  size_t x_bytes, dy_bytes;    /* scratch of a task */
  size_t shared, local;
  real *sums;
  char *base;
  int owner;
  bool failed;
} plan;

static size_t slab_input_rows(const plan *p, size_t rows) {
  size_t halo = p->kernel_items > 1 ? 0 : (p->g->kh - 1) * p->g->dilation[0];
  return (rows - 1) * p->g->stride[0] + halo + 1;
}

/* Ranges of rows, by geometry alone. */
static size_t choose_parts(const plan *p) {
  size_t part_bytes = p->sum_size * sizeof(real);
  size_t most = conv_min(MAX_PARTS, conv_max(1, PARTS_BYTES / (part_bytes + 1)));
  double work = (double)p->rows * (double)p->g->ow * (double)(p->sum_size / conv_max(1, p->panels));
  size_t parts = 1;
  while (2 * parts <= most && 2 * parts <= p->rows && work / (double)(2 * parts) >= MIN_ITEM_WORK) parts *= 2;
  return parts;
}

static void choose_slab(plan *p) {
  const td_conv *g = p->g;
  size_t row_bytes = p->cols * p->cg * sizeof(real), most = conv_ceil_div(p->rows, p->parts);
  p->slab = conv_min(conv_min(g->oh, most), g->oh);
  while (p->slab > 1 && slab_input_rows(p, p->slab) * row_bytes > SLAB_BYTES) p->slab = (p->slab + 1) / 2;
  p->strip = conv_max(1, STRIP_BYTES / (g->ow * 2 * TD_VBYTES));
  p->strip = conv_min(p->strip, p->slab);
}

static void describe(plan *p, const td_conv *g) {
  *p = (plan){.g = g, .cg = g->c / g->groups, .og = g->o / g->groups, .rows = g->n * g->oh};
  p->vectors = conv_ceil_div(p->og, TD_LANES);
  p->fold = g->dilation[1] == 1 ? g->kw : 1;
  p->direct = g->groups == 1 && !g->pad[0] && !g->pad[1];
  p->sum_pitch = g->groups * p->vectors * TD_LANES;
  p->sum_size = g->kh * g->kw * p->cg * p->sum_pitch;
  p->panel = conv_min(p->vectors, PANEL_VECTORS);
  p->panels = conv_ceil_div(p->vectors, p->panel);
  p->kernel_items = 1;
  p->parts = choose_parts(p);
  if (p->parts * p->panels * g->groups < MIN_ITEMS) p->kernel_items = g->kh;
  p->in_place = p->parts == 1 && p->sum_pitch == g->o;
  p->cols = (g->ow - 1) * g->stride[1] + (g->kw - 1) * g->dilation[1] + 1;
  p->col_step = g->stride[1] * (p->direct ? g->c : p->cg);
  choose_slab(p);
  p->x_bytes = p->direct ? 0 : conv_align(slab_input_rows(p, p->slab) * p->cols * p->cg * sizeof(real));
  p->dy_bytes = conv_align(p->strip * g->ow * 4 * TD_VBYTES);
  p->shared = p->in_place ? 0 : conv_align(p->parts * p->sum_size * sizeof(real));
  p->local = p->x_bytes + p->dy_bytes + conv_align(p->strip * sizeof(size_t));
}

/* An item, taken apart. */
typedef struct {
  size_t row0, row1;           /* output rows, counted over all images */
  size_t k;                    /* group */
  size_t v0, v1;               /* vectors of output channels in the group */
  size_t i0, i1;               /* kernel rows */
  real *sums;                  /* of its part */
} item;

static item take_item(const plan *p, size_t index) {
  item e;
  size_t part = index % p->parts, rest = index / p->parts;
  size_t i = rest % p->kernel_items, panel = rest / p->kernel_items % p->panels;
  e.k = rest / p->kernel_items / p->panels;
  e.row0 = p->rows * part / p->parts;
  e.row1 = p->rows * (part + 1) / p->parts;
  e.v0 = panel * p->panel;
  e.v1 = conv_min(e.v0 + p->panel, p->vectors);
  e.i0 = p->kernel_items > 1 ? i : 0;
  e.i1 = p->kernel_items > 1 ? i + 1 : p->g->kh;
  e.sums = p->in_place ? p->dw : p->sums + part * p->sum_size;
  return e;
}

/* Copies what `rows` output rows from oh on see through kernel rows from i0 on of a group, with its padding: rows of
 * `cols` pixels of cg channels. */
static void pack_x(const plan *p, real *to, const real *image, size_t k, size_t oh, size_t rows, size_t i0) {
  const td_conv *g = p->g;
  ptrdiff_t top = (ptrdiff_t)(oh * g->stride[0] + i0 * g->dilation[0]) - (ptrdiff_t)g->pad[0];
  size_t count = slab_input_rows(p, rows), pitch = p->cols * p->cg;
  size_t left = conv_min(g->pad[1], p->cols), right = conv_min(p->cols, left + g->w);
  for (size_t r = 0; r < count; r++, to += pitch) {
    ptrdiff_t y = top + (ptrdiff_t)r;
    if (y < 0 || y >= (ptrdiff_t)g->h) {
      memset(to, 0, pitch * sizeof(real));
      continue;
    }
    const real *row = image + (size_t)y * g->w * g->c + k * p->cg;
    memset(to, 0, left * p->cg * sizeof(real));
    if (g->groups == 1) memcpy(to + left * p->cg, row, (right - left) * p->cg * sizeof(real));
    else
      for (size_t c = left; c < right; c++) memcpy(to + c * p->cg, row + (c - left) * g->c, p->cg * sizeof(real));
    memset(to + right * p->cg, 0, (p->cols - right) * p->cg * sizeof(real));
  }
}

/* Copies `pixels` pixels of v vectors of output channels, the last one filled with zeros beyond `channels`. */
static void pack_dy(const plan *p, real *to, const real *from, size_t pixels, size_t v, size_t channels) {
  size_t width = v * TD_LANES;
  for (size_t i = 0; i < pixels; i++, from += p->g->o, to += width) {
    if (channels >= width)
      for (size_t k = 0; k < v; k++) td_store(to + k * TD_LANES, td_load(from + k * TD_LANES));
    else {
      memcpy(to, from, channels * sizeof(real));
      memset(to + channels, 0, (width - channels) * sizeof(real));
    }
  }
}

/* Adds the products of a strip to the sums of kernel row i: job has the strip's dy and offsets. */
static void add_strip(const plan *p, const item *e, tile_job *job, const real *x, size_t i, size_t v0, size_t v) {
  size_t rows = p->fold * p->cg, tiles = conv_ceil_div(rows, tile_rows(v));
  size_t pixel = p->direct ? p->g->c : p->cg;
  for (size_t j = 0; j < p->g->kw; j += p->fold) {
    const real *seen = x + j * p->g->dilation[1] * pixel;
    real *y = e->sums + (i * p->g->kw + j) * p->cg * p->sum_pitch + (e->k * p->vectors + v0) * TD_LANES;
    for (size_t t = 0; t < tiles; t++) {
      size_t r0 = rows * t / tiles, r1 = rows * (t + 1) / tiles;
      job->x = seen + r0;
      job->y = y + r0 * p->sum_pitch;
      tile_table[v / 2][r1 - r0](job);
    }
  }
}

/* Rows [oh, oh + rows) of image n, x beginning at what row oh sees through kernel row i0; mine: the task's
 * memory for dy and offsets. */
static void add_slab(const plan *p, const item *e, const real *x, size_t x_pitch, size_t n, size_t oh, size_t rows,
                     real *mine) {
  const td_conv *g = p->g;
  size_t *off = (size_t *)((char *)mine + p->dy_bytes);
  for (size_t s = 0; s < rows; s += p->strip) {
    size_t count = conv_min(p->strip, rows - s);
    for (size_t r = 0; r < count; r++) off[r] = r * g->stride[0] * x_pitch;
    for (size_t v0 = e->v0, v; v0 < e->v1; v0 += v) {
      v = tile_width(p->fold * p->cg, e->v1 - v0);
      const real *from = p->dy + (n * g->oh + oh + s) * g->ow * g->o + e->k * p->og + v0 * TD_LANES;
      pack_dy(p, mine, from, count * g->ow, v, p->og - v0 * TD_LANES);
      tile_job job = {.y_pitch = p->sum_pitch, .off = off, .taps = count, .steps = g->ow, .x_step = p->col_step, .b = mine};
      for (size_t i = e->i0; i < e->i1; i++)
        add_strip(p, e, &job, x + (s * g->stride[0] + (i - e->i0) * g->dilation[0]) * x_pitch, i, v0, v);
    }
  }
}

static void clear_sums(const plan *p, const item *e) {
  size_t rows = (e->i1 - e->i0) * p->g->kw * p->cg;
  real *to = e->sums + e->i0 * p->g->kw * p->cg * p->sum_pitch + (e->k * p->vectors + e->v0) * TD_LANES;
  for (size_t r = 0; r < rows; r++) memset(to + r * p->sum_pitch, 0, (e->v1 - e->v0) * TD_VBYTES);
}

static void run_item(const plan *p, size_t index, char *mine) {
  const td_conv *g = p->g;
  item e = take_item(p, index);
  clear_sums(p, &e);
  for (size_t row = e.row0, rows; row < e.row1; row += rows) {
    size_t n = row / g->oh, oh = row % g->oh;
    rows = conv_min(conv_min(p->slab, g->oh - oh), e.row1 - row);
    const real *image = p->x + n * g->h * g->w * g->c;
    real *dy = (real *)(mine + p->x_bytes);
    if (p->direct) {
      const real *x = image + (oh * g->stride[0] + e.i0 * g->dilation[0]) * g->w * g->c;
      add_slab(p, &e, x, g->w * g->c, n, oh, rows, dy);
    } else {
      pack_x(p, (real *)mine, image, e.k, oh, rows, e.i0);
      add_slab(p, &e, (real *)mine, p->cols * p->cg, n, oh, rows, dy);
    }
  }
}

static void run_items(void *ctx, size_t begin, size_t end) {
  plan *p = ctx;
  char *mine = p->owner == td_thread_index() ? p->base + p->shared : td_scratch(p->local);
  if (!mine) {
    __atomic_store_n(&p->failed, true, __ATOMIC_RELAXED);
    return;
  }
  for (size_t i = begin; i < end; i++) run_item(p, i, mine);
}

/* Rows of dw [begin, end): the parts' sums, added in order. */
static void add_parts(void *ctx, size_t begin, size_t end) {
  const plan *p = ctx;
  for (size_t r = begin; r < end; r++)
    for (size_t k = 0; k < p->g->groups; k++) {
      real *to = p->dw + r * p->g->o + k * p->og;
      const real *from = p->sums + r * p->sum_pitch + k * p->vectors * TD_LANES;
      memcpy(to, from, p->og * sizeof(real));
      for (size_t part = 1; part < p->parts; part++) {
        from += p->sum_size;
        for (size_t o = 0; o < p->og; o++) to[o] += from[o];
      }
    }
}

bool TD_K(conv_direct_weight_grad)(real *dw, const real *x, const real *dy, const td_conv *g) {
  plan p;
  describe(&p, g);
  p.x = x, p.dy = dy, p.dw = dw;
  p.base = td_scratch(p.shared + p.local);
  if (!p.base) return false;
  p.sums = (real *)p.base;
  p.owner = td_thread_index();
  size_t items = p.parts * p.kernel_items * p.panels * g->groups;
  size_t work = p.rows * g->ow * g->kh * g->kw * p.cg * g->o / items;
  td_parallel(items, 1 + (1 << 17) / (work + 1), run_items, &p);
  if (p.failed) return false;
  if (!p.in_place) td_parallel(g->kh * g->kw * p.cg, 1 + (1 << 15) / (p.parts * g->o), add_parts, &p);
  return true;
}
