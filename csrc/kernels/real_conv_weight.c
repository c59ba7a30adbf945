/* The weight gradient of a convolution by register tiles: for every tap,
 * dw[c][o] = Σ x[pixel seen][c]·dy[pixel][o].
 *
 * A tile's rows are input channels and its vectors output channels; it runs along the pixels. With
 * dilation 1 and one group the channels that a kernel row sees are kw·c neighbours in memory, so
 * its taps are rows of the same tile. The work is cut into items, a range of output rows (over all
 * images) by a panel of output channels by perhaps a kernel row; every item sums into its own
 * memory, and the sums over row ranges are added in order at the end. The cut depends on the
 * geometry alone, so the result does not depend on the number of threads. */
#include "kernels/isa.h"
#include "kernels/real_conv.h"

enum { TILE_PITCH = 1 };
#include "kernels/real_tile.h"

enum {
  SLAB_BYTES = 512 << 10,      /* of packed x of an item at a time */
  STRIP_BYTES = 32 << 10,      /* of packed dy that the tiles run over again and again */
  PARTS_BYTES = 4 << 20,       /* of partial sums */
  MAX_PARTS = 32,
  MIN_ITEMS = 16,              /* below, panels become narrower, kernel rows items */
  MIN_PANEL = 8,               /* vectors of output channels of an item, at least, */
  MAX_PANEL = 32,              /* and at most */
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
  bool rounded;                /* to bfloat16, while packing */
  bool in_place;               /* the sums are dw itself: one part, and full vectors */
  size_t sum_pitch, sum_size;  /* elements of a row of sums and of a part */
  size_t slab, strip;          /* output rows of which x, and of which dy, is packed at a time */
  size_t cols, col_step;       /* packed columns; elements from a pixel to the next one seen */
  size_t x_bytes, dy_bytes;    /* scratch of a task */
  size_t shared, local;
  real *sums;
  char *base;
  int owner;
  bool failed;
} plan;

/* Input rows that `rows` successive output rows of an image see. */
static size_t seen_rows(const plan *p, size_t rows) {
  size_t halo = p->kernel_items > 1 ? 0 : (p->g->kh - 1) * p->g->dilation[0];
  return (rows - 1) * p->g->stride[0] + halo + 1;
}

/* At least the input rows that a slab of output rows sees, in as many images as it can touch. */
static size_t slab_input_rows(const plan *p, size_t rows) {
  return rows * p->g->stride[0] + (rows / p->g->oh + 2) * seen_rows(p, 1);
}

/* Ranges of rows. */
static size_t choose_parts(const plan *p) {
  size_t part_bytes = p->sum_size * sizeof(real);
  size_t most = conv_min(MAX_PARTS, conv_max(1, PARTS_BYTES / (part_bytes + 1)));
  double work = (double)p->rows * (double)p->g->ow * (double)(p->sum_size / conv_max(1, p->panels));
  size_t parts = 1;
  while (2 * parts <= most && 2 * parts <= p->rows && work / (double)(2 * parts) >= MIN_ITEM_WORK)
    parts *= 2;
  return parts;
}

static void choose_items(plan *p) {
  p->panels = conv_ceil_div(p->vectors, MAX_PANEL);
  p->parts = choose_parts(p);
  size_t wide = p->parts * p->g->groups, most = conv_ceil_div(p->vectors, MIN_PANEL);
  if (wide * p->panels < MIN_ITEMS) p->panels = conv_min(conv_ceil_div(MIN_ITEMS, wide), most);
  p->panel = conv_ceil_div(p->vectors, p->panels);
  p->panels = conv_ceil_div(p->vectors, p->panel);
  p->kernel_items = wide * p->panels < MIN_ITEMS ? p->g->kh : 1;
}

static void choose_slab(plan *p) {
  size_t row_bytes = p->cols * p->cg * sizeof(real);
  p->slab = conv_ceil_div(p->rows, p->parts);
  while (p->slab > 1 && slab_input_rows(p, p->slab) * row_bytes > SLAB_BYTES)
    p->slab = (p->slab + 1) / 2;
  p->strip = conv_min(p->slab, conv_max(1, STRIP_BYTES / (p->g->ow * 2 * TD_VBYTES)));
}

static void describe(plan *p, const td_conv *g) {
  *p = (plan){.g = g, .cg = g->c / g->groups, .og = g->o / g->groups, .rows = g->n * g->oh};
  p->vectors = conv_ceil_div(p->og, TD_LANES);
  p->fold = g->dilation[1] == 1 ? g->kw : 1;
  p->sum_pitch = g->groups * p->vectors * TD_LANES;
  p->sum_size = g->kh * g->kw * p->cg * p->sum_pitch;
  p->rounded = td_term_now() != TD_BY_ELEMENT;
  choose_items(p);
  p->in_place = p->parts == 1 && p->sum_pitch == g->o;
  p->cols = (g->ow - 1) * g->stride[1] + (g->kw - 1) * g->dilation[1] + 1;
  p->col_step = g->stride[1] * p->cg;
  choose_slab(p);
  p->x_bytes = conv_align(slab_input_rows(p, p->slab) * p->cols * p->cg * sizeof(real));
  p->dy_bytes = conv_align(p->strip * g->ow * p->panel * TD_VBYTES);
  p->shared = p->in_place ? 0 : conv_align(p->parts * p->sum_size * sizeof(real));
  p->local = p->x_bytes + p->dy_bytes + conv_align(p->slab * sizeof(size_t));
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

/* Copies what `rows` output rows from oh on see through kernel rows from i0 on of a group, with its
 * padding: rows of `cols` pixels of cg channels. */
static void pack_x(const plan *p, real *to, const real *image, size_t k, size_t oh, size_t rows,
                   size_t i0) {
  const td_conv *g = p->g;
  ptrdiff_t top = (ptrdiff_t)(oh * g->stride[0] + i0 * g->dilation[0]) - (ptrdiff_t)g->pad[0];
  size_t count = seen_rows(p, rows), pitch = p->cols * p->cg;
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
      for (size_t c = left; c < right; c++)
        memcpy(to + c * p->cg, row + (c - left) * g->c, p->cg * sizeof(real));
    memset(to + right * p->cg, 0, (p->cols - right) * p->cg * sizeof(real));
  }
}

/* Copies the panel's channels of `pixels` pixels, tiles one after the other; the last vector is
 * filled with zeros beyond the `channels` there are. Pixels are read in the order in which they
 * lie. */
static void pack_dy(const plan *p, const item *e, real *to, const real *from, size_t pixels) {
  size_t channels = p->og - e->v0 * TD_LANES, ahead = 8 * p->g->o;
  for (size_t i = 0; i < pixels; i++, from += p->g->o)
    for (size_t v0 = e->v0, v; v0 < e->v1; v0 += v) {
      v = tile_width(p->fold * p->cg, e->v1 - v0);
      size_t at = (v0 - e->v0) * TD_LANES;
      real *out = to + at * pixels + i * v * TD_LANES;
      for (size_t k = 0; k < v; k++, at += TD_LANES, out += TD_LANES)
        if (at + TD_LANES <= channels) {
          __builtin_prefetch((const char *)(from + at) + ahead * sizeof(real));
          td_store(out, td_load(from + at));
        } else
          for (size_t c = 0; c < TD_LANES; c++) out[c] = at + c < channels ? from[at + c] : 0;
    }
}

static void round_all(real *x, size_t n) {
  for (size_t i = 0; i < n; i++) x[i] = td_round_bfloat16(x[i]);
}

/* Adds the products of a strip to the sums of kernel row i: job has the strip's dy and offsets. */
static void add_strip(const plan *p, const item *e, tile_job *job, const real *x, size_t i,
                      size_t v0, size_t v) {
  size_t rows = p->fold * p->cg, tiles = conv_ceil_div(rows, tile_rows(v));
  for (size_t j = 0; j < p->g->kw; j += p->fold) {
    const real *seen = x + j * p->g->dilation[1] * p->cg;
    real *y =
        e->sums + (i * p->g->kw + j) * p->cg * p->sum_pitch + (e->k * p->vectors + v0) * TD_LANES;
    for (size_t t = 0; t < tiles; t++) {
      size_t r0 = rows * t / tiles, r1 = rows * (t + 1) / tiles;
      job->x = seen + r0;
      job->y = y + r0 * p->sum_pitch;
      tile_table[v / 2][r1 - r0](job);
    }
  }
}

/* Output rows [row, row + rows), counted over all images; off: where what each of them sees through
 * kernel row i0 begins in packed x; dy: memory for packed dy. */
static void add_slab(const plan *p, const item *e, const real *x, const size_t *off, size_t row,
                     size_t rows, real *dy) {
  const td_conv *g = p->g;
  size_t kernel_row = g->dilation[0] * p->cols * p->cg;
  for (size_t s = 0; s < rows; s += p->strip) {
    size_t count = conv_min(p->strip, rows - s), pixels = count * g->ow;
    pack_dy(p, e, dy, p->dy + (row + s) * g->ow * g->o + e->k * p->og + e->v0 * TD_LANES, pixels);
    if (p->rounded) round_all(dy, pixels * (e->v1 - e->v0) * TD_LANES);
    for (size_t v0 = e->v0, v; v0 < e->v1; v0 += v) {
      v = tile_width(p->fold * p->cg, e->v1 - v0);
      tile_job job = {.y_pitch = p->sum_pitch, .off = off + s, .taps = count, .steps = g->ow,
                      .x_step = p->col_step, .b = dy + (v0 - e->v0) * TD_LANES * pixels};
      for (size_t i = e->i0; i < e->i1; i++)
        add_strip(p, e, &job, x + (i - e->i0) * kernel_row, i, v0, v);
    }
  }
}

static void clear_sums(const plan *p, const item *e) {
  size_t rows = (e->i1 - e->i0) * p->g->kw * p->cg;
  real *to =
      e->sums + e->i0 * p->g->kw * p->cg * p->sum_pitch + (e->k * p->vectors + e->v0) * TD_LANES;
  for (size_t r = 0; r < rows; r++) memset(to + r * p->sum_pitch, 0, (e->v1 - e->v0) * TD_VBYTES);
}

/* Packs what the output rows [row, row + rows) see; off as add_slab wants it. */
static void gather_x(const plan *p, const item *e, real *packed, size_t *off, size_t row,
                     size_t rows) {
  const td_conv *g = p->g;
  size_t pitch = p->cols * p->cg, at = 0;
  for (size_t r = 0, count; r < rows; r += count) {
    size_t n = (row + r) / g->oh, oh = (row + r) % g->oh;
    count = conv_min(g->oh - oh, rows - r);
    pack_x(p, packed + at, p->x + n * g->h * g->w * g->c, e->k, oh, count, e->i0);
    for (size_t i = 0; i < count; i++) off[r + i] = at + i * g->stride[0] * pitch;
    at += seen_rows(p, count) * pitch;
  }
  if (p->rounded) round_all(packed, at);
}

static void run_item(const plan *p, size_t index, char *mine) {
  item e = take_item(p, index);
  real *x = (real *)mine, *dy = (real *)(mine + p->x_bytes);
  size_t *off = (size_t *)(mine + p->x_bytes + p->dy_bytes);
  clear_sums(p, &e);
  for (size_t row = e.row0, rows; row < e.row1; row += rows) {
    rows = conv_min(p->slab, e.row1 - row);
    gather_x(p, &e, x, off, row, rows);
    add_slab(p, &e, x, off, row, rows, dy);
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
  if (!p.in_place)
    td_parallel(g->kh * g->kw * p.cg, 1 + (1 << 15) / (p.parts * g->o), add_parts, &p);
  return true;
}
