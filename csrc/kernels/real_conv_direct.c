/* Convolution by register tiles, and its input gradient, which is the same sum seen from the other
 * side.
 *
 * Both are written as one correlation. Along an axis, output coordinate q·out_step + a reads input
 * coordinates q·in_step + delta, one for every tap. Forward, in_step is the stride, out_step is 1
 * and delta = tap·dilation - pad. In the input gradient out_step is the stride, in_step is 1, and
 * the outputs of phase a (0 ≤ a < stride) read only the taps for which delta = (a + pad -
 * tap·dilation) / stride is whole, with input and output channels of the weights swapped.
 *
 * Weights are packed once per call, or once while their values stay (forms.h), as rows of output
 * channels in the order in which tiles read them, zeros filling the last vector. Each task then
 * takes a band of rows of an image, copies it with its padding to scratch as blocks of BLOCK
 * channels in which neighbouring columns that a tile reads are BLOCK elements apart (columns are
 * sorted by their remainder modulo in_step), and runs tiles over it. So padding, strides, dilation
 * and groups are all dealt with while copying, and a tile needs one table of offsets. When there
 * are few input channels, the taps of a kernel row are gathered side by side as if they were
 * channels ("fold"). */
#include "kernels/isa.h"
#include "kernels/real_conv.h"

enum { BLOCK = 16, TILE_PITCH = BLOCK };
#define TILE_PAIRS
#include "kernels/real_tile.h"

enum {
  CHUNK_BYTES = 64 << 10,   /* of packed weights that one sweep over a band reads */
  BAND_BYTES = 768 << 10,   /* of packed input of a task */
  GROUP_PIXELS = 256,       /* of small images that share a sweep's reading of the weights */
  PASS_BYTES = 4 << 20,     /* of packed weights in memory at a time */
  LIGHT_BYTES = 256 << 10,  /* of packed weights that may be read again for every strip of rows, */
  STRIP_BYTES = 24 << 10,   /* and of results of a strip */
  MIN_TASK = 1 << 17        /* multiplications below which a thread is not worth waking */
};

/* The outputs at rows q·out_step + a[0] and columns q·out_step + a[1], which share their taps. */
typedef struct {
  size_t a[2], count[2];    /* count[i]: how many q there are */
  size_t taps;
  const size_t *tap;        /* row·kw + column of each tap */
  const size_t *off;        /* blocks×taps: a tap's channel block, from the tile's first pixel */
  size_t rows_before;       /* rows of packed weights of the phases before */
} phase;

/* `v` vectors of output channels from vector v0 of a group. */
typedef struct {
  size_t v0, v;
} unit;

typedef struct {
  const td_conv *g;
  bool transposed, fold;
  td_term term;
  size_t in[2], in_c, in_cg;    /* height and width, channels, channels of a group */
  size_t out[2], out_c, out_cg;
  size_t in_step[2], out_step[2];
  ptrdiff_t lo[2], hi[2];       /* least and greatest delta */
  size_t channels;              /* that a packed pixel holds */
  size_t depth, blocks;         /* and its elements, channels or pairs of them, in blocks of BLOCK */
  size_t span_q[2];             /* most q in a phase */
  size_t phase_cols, row_pitch; /* packed columns of one remainder; elements of a packed row */
  size_t plane;                 /* elements of a packed band of one block */
  size_t band;                  /* q rows of a band */
  size_t bands;
  size_t strip;                 /* rows that all units go over together */
  size_t group;                 /* images of a task; 1 when they are cut into bands */
  size_t phases, units;         /* units of a group */
  size_t vectors;               /* vectors of output channels of a group */
  size_t weight_rows;           /* packed rows of one vector: taps × depth, all phases */
  /* parts of the shared block */
  phase *phase;
  unit *unit;
  size_t *tap, *off;
  real *init;                   /* bias, or zeros: groups × vectors × lanes */
  real *packed;                 /* weights of units [pass_begin, pass_end) */
  size_t shared, local;         /* bytes of the caller's block and of a task's */
  size_t local_line, local_buffer;  /* where they begin in a task's, after packed input */
  size_t pass_begin, pass_end;  /* counted over all groups */
  int owner;                    /* the thread whose scratch begins with the shared block */
  char *base;
  bool failed;                  /* a task was refused memory */
  const real *x, *w;
  real *y;
  const td_epilogue *e;         /* NULL in the input gradient */
  const td_forms *forms;
  td_form *form;                /* all packed weights, kept; NULL: in the shared block */
} plan;

/* ---- Geometry -------------------------------------------------------------------------------- */

/* Whether tap j of the axis belongs to phase a, and at which delta. */
static bool tap_delta(const plan *p, int axis, size_t a, size_t j, ptrdiff_t *delta) {
  const td_conv *g = p->g;
  ptrdiff_t shift = (ptrdiff_t)(j * g->dilation[axis]) - (ptrdiff_t)g->pad[axis];
  if (!p->transposed) {
    *delta = shift;
    return true;
  }
  ptrdiff_t from = (ptrdiff_t)a - shift, stride = (ptrdiff_t)g->stride[axis];
  *delta = from / stride;
  return from % stride == 0;
}

/* Sets lo and hi over every tap of every phase. */
static void find_range(plan *p, int axis, size_t taps) {
  bool first = true;
  for (size_t a = 0; a < p->out_step[axis]; a++)
    for (size_t j = 0; j < taps; j++) {
      ptrdiff_t d;
      if (!tap_delta(p, axis, a, j, &d)) continue;
      if (first || d < p->lo[axis]) p->lo[axis] = d;
      if (first || d > p->hi[axis]) p->hi[axis] = d;
      first = false;
    }
}

/* Whether some tap reads input coordinates lo + r of the axis, up to multiples of in_step. */
static bool is_read(const plan *p, int axis, size_t r) {
  size_t step = p->in_step[axis], taps = axis ? p->g->kw : p->g->kh;
  if (step == 1) return true;
  for (size_t j = 0; j < taps; j++) {
    ptrdiff_t d;
    if (tap_delta(p, axis, 0, j, &d) && (size_t)(d - p->lo[axis]) % step == r % step) return true;
  }
  return false;
}

static size_t band_input_rows(const plan *p, size_t q) {
  return (q - 1) * p->in_step[0] + (size_t)(p->hi[0] - p->lo[0]) + 1;
}

/* Rows of a band: few enough for BAND_BYTES, and bands enough to keep all threads busy. Small
 * images are not cut but grouped, if that leaves as many groups as threads. */
static void choose_band(plan *p) {
  size_t n = p->g->n, rows = p->span_q[0], threads = (size_t)td_threads();
  size_t row_bytes = p->row_pitch * p->blocks * sizeof(real), band = rows;
  while (band > 4 && band_input_rows(p, band) * row_bytes > BAND_BYTES) band = (band + 1) / 2;
  p->bands = conv_ceil_div(rows, band);
  if (n * p->bands % threads && n * p->bands < 4 * threads)
    p->bands = conv_min(rows, conv_ceil_div(4 * threads, n));
  p->band = conv_ceil_div(rows, p->bands);
  p->bands = conv_ceil_div(rows, p->band);
  p->group = p->bands > 1 ? 1
                          : conv_min(conv_ceil_div(GROUP_PIXELS, rows * p->span_q[1]),
                                     conv_max(1, n / threads));
}

static void describe(plan *p, const td_conv *g, bool transposed) {
  size_t x_size[2] = {g->h, g->w}, y_size[2] = {g->oh, g->ow};
  *p = (plan){.g = g, .transposed = transposed};
  p->in_c = transposed ? g->o : g->c;
  p->out_c = transposed ? g->c : g->o;
  p->in_cg = p->in_c / g->groups;
  p->out_cg = p->out_c / g->groups;
  for (int i = 0; i < 2; i++) {
    p->in[i] = transposed ? y_size[i] : x_size[i];
    p->out[i] = transposed ? x_size[i] : y_size[i];
    p->in_step[i] = transposed ? 1 : g->stride[i];
    p->out_step[i] = transposed ? g->stride[i] : 1;
    p->span_q[i] = conv_ceil_div(p->out[i], p->out_step[i]);
    find_range(p, i, i ? g->kw : g->kh);
  }
  p->fold = p->in_cg <= 4 && g->kw > 1 && g->dilation[1] == 1 && p->out_step[0] == 1 &&
            p->out_step[1] == 1;
  p->term = td_term_now();
  p->channels = p->fold ? p->in_cg * g->kw : p->in_cg;
  p->depth = p->term == TD_BY_ELEMENT ? p->channels : conv_ceil_div(p->channels, 2);
  p->blocks = conv_ceil_div(p->depth, BLOCK);
  size_t span = (p->span_q[1] - 1) * p->in_step[1] + (size_t)(p->hi[1] - p->lo[1]) + 1;
  p->phase_cols = p->fold ? p->span_q[1] : conv_ceil_div(span, p->in_step[1]);
  p->row_pitch = p->phase_cols * BLOCK * (p->fold ? 1 : p->in_step[1]);
  choose_band(p);
  p->plane = band_input_rows(p, p->band) * p->row_pitch;
  p->vectors = conv_ceil_div(p->out_cg, TD_LANES);
  p->weight_rows = g->kh * (p->fold ? 1 : g->kw) * p->depth;
}

/* ---- Tables ---------------------------------------------------------------------------------- */

static size_t *add_tap(const plan *p, phase *f, size_t *tap, size_t i, size_t j, ptrdiff_t row,
                       ptrdiff_t col) {
  size_t r = (size_t)(row - p->lo[0]), c = p->fold ? 0 : (size_t)(col - p->lo[1]);
  size_t step = p->fold ? 1 : p->in_step[1];
  *tap = i * p->g->kw + j;
  /* kept for the first block until all taps are known */
  p->off[tap - p->tap] = r * p->row_pitch + (c % step * p->phase_cols + c / step) * BLOCK;
  f->taps++;
  return tap + 1;
}

static void list_taps(const plan *p, phase *f, size_t **tap) {
  for (size_t i = 0; i < p->g->kh; i++)
    for (size_t j = 0; j < (p->fold ? 1 : p->g->kw); j++) {
      ptrdiff_t row, col;
      if (tap_delta(p, 0, f->a[0], i, &row) && tap_delta(p, 1, f->a[1], j, &col))
        *tap = add_tap(p, f, *tap, i, j, row, col);
    }
}

/* Moves the offsets of all taps, one each, apart to one each block, from the last to the first. */
static void spread_offsets(plan *p, size_t taps) {
  for (size_t k = p->phases; k-- > 0;) {
    phase *f = &p->phase[k];
    size_t *to = p->off + (size_t)(f->tap - p->tap) * p->blocks;
    taps -= f->taps;
    memmove(to, p->off + taps, f->taps * sizeof *to);
    for (size_t b = 1; b < p->blocks; b++)
      for (size_t t = 0; t < f->taps; t++) to[b * f->taps + t] = to[t] + b * p->plane;
    f->off = to;
  }
}

static void list_phases(plan *p) {
  size_t *tap = p->tap, before = 0;
  p->phases = 0;
  for (size_t a = 0; a < p->out_step[0] && a < p->out[0]; a++)
    for (size_t b = 0; b < p->out_step[1] && b < p->out[1]; b++) {
      phase *f = &p->phase[p->phases++];
      *f = (phase){.a = {a, b}, .tap = tap, .rows_before = before};
      f->count[0] = conv_ceil_div(p->out[0] - a, p->out_step[0]);
      f->count[1] = conv_ceil_div(p->out[1] - b, p->out_step[1]);
      list_taps(p, f, &tap);
      before += f->taps * p->depth;
    }
  spread_offsets(p, (size_t)(tap - p->tap));
}

static void list_units(plan *p) {
  p->units = 0;
  for (size_t v0 = 0; v0 < p->vectors;) {
    size_t v = tile_width(p->span_q[1], p->vectors - v0);
    p->unit[p->units++] = (unit){v0, v};
    v0 += v;
  }
}

static void fill_init(plan *p) {
  const real *bias = p->e ? p->e->bias : NULL;
  size_t width = p->vectors * TD_LANES;
  memset(p->init, 0, p->g->groups * width * sizeof(real));
  for (size_t k = 0; bias && k < p->g->groups; k++)
    memcpy(p->init + k * width, bias + k * p->out_cg, p->out_cg * sizeof(real));
}

/* Bytes of packed weights of a unit of v vectors. */
static size_t unit_bytes(const plan *p, size_t v) { return p->weight_rows * v * TD_VBYTES; }

static td_form *take_form(const plan *p, size_t bytes) {
  const td_conv *g = p->g;
  td_form_key key = {.operand = p->w, .way = p->transposed + 2u * (p->term != TD_BY_ELEMENT),
                     .size = {sizeof(real), g->h, g->w, g->c, g->kh, g->kw, g->o, g->groups,
                              g->stride[0], g->stride[1], g->pad[0], g->pad[1], g->dilation[0],
                              g->dilation[1]}};
  return td_form_take(p->forms, &key, bytes);
}

/* Lays out the shared block and a task's; false when memory is refused. */
static bool prepare(plan *p) {
  const td_conv *g = p->g;
  size_t taps = g->kh * g->kw, phases = p->out_step[0] * p->out_step[1];
  size_t phase_at = 0, unit_at = conv_align(phases * sizeof(phase));
  size_t tap_at = unit_at + conv_align(p->vectors * sizeof(unit));
  size_t off_at = tap_at + conv_align(taps * sizeof(size_t));
  size_t init_at = off_at + conv_align(taps * conv_max(p->blocks, 1) * sizeof(size_t));
  size_t packed_at = init_at + conv_align(g->groups * p->vectors * TD_VBYTES);
  size_t all = g->groups * unit_bytes(p, p->vectors);
  p->form = take_form(p, all);
  p->shared = packed_at;
  if (!p->form) p->shared += conv_align(conv_min(all, conv_max(PASS_BYTES, unit_bytes(p, 4))));
  p->local_line = p->group * conv_align(p->blocks * p->plane * sizeof(real));
  p->local_buffer = p->local_line;
  size_t line = (p->span_q[1] * p->in_step[1] + g->kw) * p->in_cg + 2 * BLOCK;
  if (p->fold) p->local_buffer += conv_align(line * sizeof(real));
  p->local = p->local_buffer + conv_align(p->band * p->span_q[1] * 4 * TD_VBYTES);
  p->base = td_scratch(p->shared + p->local);
  if (!p->base) {
    if (p->form && !p->form->made) td_form_done(p->form, false);
    return false;
  }
  p->owner = td_thread_index();
  p->phase = (phase *)(p->base + phase_at);
  p->unit = (unit *)(p->base + unit_at);
  p->tap = (size_t *)(p->base + tap_at);
  p->off = (size_t *)(p->base + off_at);
  p->init = (real *)(p->base + init_at);
  p->packed = p->form ? p->form->data : (real *)(p->base + packed_at);
  list_phases(p);
  list_units(p);
  fill_init(p);
  return true;
}

/* ---- Packing weights ------------------------------------------------------------------------- */

/* The row of packed weights of channel c of tap t: block after block, taps inside a block. */
static size_t packed_row(const plan *p, const phase *f, size_t t, size_t c) {
  size_t b = c / BLOCK, channels = conv_min(BLOCK, p->depth - b * BLOCK);
  return f->rows_before + b * BLOCK * f->taps + t * channels + c % BLOCK;
}

/* to[0..width) = the weights of packed channel c of a tap towards channels out.. of group k. */
static void pack_channel(const plan *p, real *to, size_t width, size_t k, size_t out, size_t tap,
                     size_t c) {
  const td_conv *g = p->g;
  if (p->fold) {  /* slots ascend with delta, taps of the transposed kernel descend */
    size_t j = c / p->in_cg;
    tap += p->transposed ? g->kw - 1 - j : j;
    c %= p->in_cg;
  }
  size_t n = conv_min(width, p->out_cg - out);
  if (p->transposed) {
    const real *from = p->w + (tap * p->out_cg + out) * g->o + k * p->in_cg + c;
    for (size_t i = 0; i < n; i++) to[i] = from[i * g->o];
  } else {
    const real *from = p->w + (tap * p->in_cg + c) * g->o + k * p->out_cg + out;
    for (size_t i = 0; i < n; i++) to[i] = from[i];
  }
  for (size_t i = n; i < width; i++) to[i] = 0;
}

/* The same for packed element c: a channel or a pair. */
static void pack_row(const plan *p, real *to, size_t width, size_t k, size_t out, size_t tap,
                     size_t c) {
  if (p->term == TD_BY_ELEMENT) {
    pack_channel(p, to, width, k, out, tap, c);
    return;
  }
  real high[4 * TD_LANES] = {0};
  pack_channel(p, to, width, k, out, tap, 2 * c);
  if (2 * c + 1 < p->channels) pack_channel(p, high, width, k, out, tap, 2 * c + 1);
  for (size_t i = 0; i < width; i++) to[i] = td_make_pair(to[i], high[i]);
}

/* Where the packed weights of unit u (counted over all groups) begin. */
static real *unit_weights(const plan *p, size_t u) {
  size_t first = p->pass_begin / p->units * p->vectors + p->unit[p->pass_begin % p->units].v0;
  size_t here = u / p->units * p->vectors + p->unit[u % p->units].v0;
  return p->packed + (here - first) * TD_LANES * p->weight_rows;
}

/* Packs the units pass_begin + [begin, end). */
static void pack_units(void *ctx, size_t begin, size_t end) {
  const plan *p = ctx;
  for (size_t u = p->pass_begin + begin; u < p->pass_begin + end; u++) {
    const unit *e = &p->unit[u % p->units];
    size_t width = e->v * TD_LANES;
    real *to = unit_weights(p, u);
    for (size_t k = 0; k < p->phases; k++) {
      const phase *f = &p->phase[k];
      for (size_t t = 0; t < f->taps; t++)
        for (size_t c = 0; c < p->depth; c++)
          pack_row(p, to + packed_row(p, f, t, c) * width, width, u / p->units, e->v0 * TD_LANES,
                   f->tap[t], c);
    }
  }
}

/* ---- Packing input --------------------------------------------------------------------------- */

/* All channels of a pixel as pairs of bfloat16, in blocks. */
static void pack_pixel_of_pairs(const plan *p, real *to, const real *pixel) {
  for (size_t c = 0; c < p->channels; c += 2 * BLOCK, to += p->plane)
    td_pack_pairs(to, pixel + c, conv_min(2 * BLOCK, p->channels - c));
}

/* to[b·plane + i·BLOCK + c] = pixel[b·BLOCK + c]: all channels of one pixel, or zeros when it is
 * NULL. */
static inline void pack_pixel(const plan *p, real *to, const real *pixel) {
  size_t full = p->depth / BLOCK, rest = p->depth % BLOCK;
  if (!pixel) {
    for (size_t b = 0; b < p->blocks; b++, to += p->plane) memset(to, 0, BLOCK * sizeof(real));
    return;
  }
  if (p->term != TD_BY_ELEMENT) {
    pack_pixel_of_pairs(p, to, pixel);
    return;
  }
  for (size_t b = 0; b < full; b++, to += p->plane, pixel += BLOCK)
    memcpy(to, pixel, BLOCK * sizeof(real));
  for (size_t c = 0; c < rest; c++) to[c] = pixel[c];
}

/* One row of an image, columns sorted by their remainder, zeros in the padding. Pixels are read in
 * the order in which they lie, which lets the processor fetch ahead. */
static void pack_row_of_pixels(const plan *p, real *to, const real *row) {
  size_t step = p->in_step[1], span = p->phase_cols * step;
  for (size_t u = 0; u < span; u++) {
    if (!is_read(p, 1, u)) continue;
    ptrdiff_t col = (ptrdiff_t)u + p->lo[1];
    bool inside = col >= 0 && col < (ptrdiff_t)p->in[1];
    pack_pixel(p, to + (u % step * p->phase_cols + u / step) * BLOCK,
               inside ? row + (size_t)col * p->in_c : NULL);
  }
}

/* One padded row of the image as a line, then for each output column the kw·in_cg elements that it
 * sees. */
static void pack_folded(const plan *p, real *to, real *line, const real *row) {
  size_t step = p->in_step[1], span = (p->span_q[1] - 1) * step + p->g->kw, cg = p->in_cg;
  memset(line, 0, (span * cg + 2 * BLOCK) * sizeof(real));
  for (size_t i = 0; i < span; i++) {
    ptrdiff_t col = (ptrdiff_t)i + p->lo[1];
    if (col < 0 || col >= (ptrdiff_t)p->in[1]) continue;
    for (size_t c = 0; c < cg; c++) line[i * cg + c] = row[(size_t)col * p->in_c + c];
  }
  if (p->term != TD_BY_ELEMENT) {
    for (size_t q = 0; q < p->phase_cols; q++) pack_pixel_of_pairs(p, to + q * BLOCK, line + q * step * cg);
    return;
  }
  for (size_t b = 0; b < p->blocks; b++)
    for (size_t q = 0; q < p->phase_cols; q++)
      memcpy(to + b * p->plane + q * BLOCK, line + q * step * cg + b * BLOCK, BLOCK * sizeof(real));
}

/* Packs what q rows [q0, q1) of group k read of an image; line: memory of pack_folded. */
static void pack_band(const plan *p, real *to, real *line, const real *image, size_t k, size_t q0,
                      size_t q1) {
  ptrdiff_t top = (ptrdiff_t)(q0 * p->in_step[0]) + p->lo[0];
  size_t rows = band_input_rows(p, q1 - q0);
  for (size_t r = 0; r < rows; r++) {
    ptrdiff_t y = top + (ptrdiff_t)r;
    if (!is_read(p, 0, r)) continue;
    bool outside = y < 0 || y >= (ptrdiff_t)p->in[0];
    const real *row = outside ? NULL : image + (size_t)y * p->in[1] * p->in_c + k * p->in_cg;
    if (!outside && p->fold) {
      pack_folded(p, to + r * p->row_pitch, line, row);
      continue;
    }
    if (!outside) pack_row_of_pixels(p, to + r * p->row_pitch, row);
    else
      for (size_t b = 0; b < p->blocks; b++)
        memset(to + b * p->plane + r * p->row_pitch, 0, p->row_pitch * sizeof(real));
  }
}

/* ---- Tiles ----------------------------------------------------------------------------------- */

/* Where the tiles of a unit write: rows of a phase in the output image, or a buffer when the unit's
 * last vector is not full. */
typedef struct {
  real *first;
  size_t row_pitch, col_pitch;
  bool final;   /* in y: what remains of the epilogue may follow */
} target;

/* Asks for the memory that the next tile will write, or for what will be added to this one: the lines are far apart,
 * and nothing else would fetch them ahead. */
static inline __attribute__((always_inline)) void expect_tile(const real *y, size_t pixels, size_t pitch,
                                                              size_t bytes, const int writes) {
  for (size_t i = 0; i < pixels; i++, y += pitch)
    for (size_t at = 0; at < bytes; at += 64)
      if (writes) td_expect_write((const char *)y + at);
      else __builtin_prefetch((const char *)y + at);
}

/* Adds what is to be added to rows of a unit, which lie at `to` in y, and activates them. */
static void finish(const plan *p, target to, size_t rows, size_t channels) {
  if (!p->e || (!p->e->add && p->e->act == TD_ACT_NONE)) return;
  const real *add = p->e->add;
  for (size_t r = 0; r < rows; r++) {
    real *y = to.first + r * to.row_pitch;
    TD_K(conv_finish)(y, add ? add + (y - p->y) : NULL, p->out[1], channels, to.col_pitch,
                      p->e->act);
  }
}

/* One sweep of blocks [b0, b1) of `steps` channels each over rows [0, rows) of a phase. The last one finishes each
 * row while it is in the first-level cache. */
static void sweep(const plan *p, const phase *f, const unit *e, const real *x, const real *w,
                  const real *init, target to, size_t rows, size_t b0, size_t b1, size_t steps) {
  bool last = to.final && b1 == p->blocks;
  const real *add = last && p->e ? p->e->add : NULL;
  tile_fns *of_term = tiles_of(p->term);
  size_t cols = f->count[1], tiles = conv_ceil_div(cols, tile_rows(e->v)), width = e->v * TD_LANES;
  tile_job job = {.y_pitch = to.col_pitch, .init = b0 ? NULL : init, .off = f->off + b0 * f->taps,
                  .taps = (b1 - b0) * f->taps, .steps = steps, .x_step = 1,
                  .b = w + (f->rows_before + b0 * BLOCK * f->taps) * width};
  for (size_t r = 0; r < rows; r++) {
    for (size_t t = 0; t < tiles; t++) {
      size_t c0 = cols * t / tiles, c1 = cols * (t + 1) / tiles;
      job.y = to.first + r * to.row_pitch + c0 * to.col_pitch;
      job.x = x + r * p->in_step[0] * p->row_pitch + c0 * BLOCK;
      if (job.init) {
        bool same_row = t + 1 < tiles;
        const real *next =
            same_row ? job.y + (c1 - c0) * to.col_pitch : to.first + (r + 1) * to.row_pitch;
        if (same_row || r + 1 < rows)
          expect_tile(next, conv_ceil_div(cols, tiles), to.col_pitch, e->v * TD_VBYTES, 1);
      }
      if (add) expect_tile(add + (job.y - p->y), c1 - c0, to.col_pitch, e->v * TD_VBYTES, 0);
      (*of_term)[e->v / 2][c1 - c0](&job);
    }
    if (last) finish(p, (target){.first = to.first + r * to.row_pitch, .col_pitch = to.col_pitch}, 1, width);
  }
}

/* All channels of a phase, a chunk of blocks at a time. */
static void run_phase(const plan *p, const phase *f, const unit *e, const real *x, const real *w,
                      const real *init, target to, size_t rows) {
  size_t full = p->depth / BLOCK, rest = p->depth % BLOCK;
  size_t block_bytes = conv_max(1, f->taps) * BLOCK * e->v * TD_VBYTES;
  size_t chunks = conv_ceil_div(full, conv_max(1, CHUNK_BYTES / block_bytes));
  for (size_t i = 0; i < chunks; i++)
    sweep(p, f, e, x, w, init, to, rows, full * i / chunks, full * (i + 1) / chunks, BLOCK);
  if (rest || !full) sweep(p, f, e, x, w, init, to, rows, full, full + (rest > 0), rest);
}

/* Copies the real channels of a buffered phase to the image. */
static void unpack(const phase *f, target from, target to, size_t rows,
                   size_t channels) {
  for (size_t r = 0; r < rows; r++)
    for (size_t c = 0; c < f->count[1]; c++) {
      const real *src = from.first + r * from.row_pitch + c * from.col_pitch;
      real *dst = to.first + r * to.row_pitch + c * to.col_pitch;
      for (size_t i = 0; i < channels; i++) dst[i] = src[i];
    }
}

/* What the sums of a unit of image n begin with, bias and chan together; sum: memory for it. */
static const real *unit_init(const plan *p, size_t k, const unit *e, size_t n, real *sum) {
  const real *init = p->init + (k * p->vectors + e->v0) * TD_LANES;
  const real *chan = p->e ? p->e->chan : NULL;
  if (!chan) return init;
  size_t out = e->v0 * TD_LANES, width = e->v * TD_LANES, real_ones = conv_min(width, p->out_cg - out);
  chan += n * p->out_c + k * p->out_cg + out;
  for (size_t i = 0; i < width; i++) sum[i] = init[i] + (i < real_ones ? chan[i] : 0);
  return sum;
}

/* q rows [q0, q1) of output image n, x being what row q0 reads. */
static void run_unit(const plan *p, size_t u, const real *x, real *buffer, size_t n, size_t q0,
                     size_t q1) {
  const unit *e = &p->unit[u % p->units];
  size_t k = u / p->units, out = e->v0 * TD_LANES, width = e->v * TD_LANES;
  size_t channels = conv_min(width, p->out_cg - out);
  real sum[4 * TD_LANES], *image = p->y + n * p->out[0] * p->out[1] * p->out_c;
  const real *w = unit_weights(p, u), *init = unit_init(p, k, e, n, sum);
  for (size_t i = 0; i < p->phases; i++) {
    const phase *f = &p->phase[i];
    if (q0 >= f->count[0]) continue;
    size_t rows = conv_min(q1, f->count[0]) - q0;
    target to = {.row_pitch = p->out_step[0] * p->out[1] * p->out_c,
                 .col_pitch = p->out_step[1] * p->out_c};
    to.first = image + q0 * to.row_pitch + (f->a[0] * p->out[1] + f->a[1]) * p->out_c +
               k * p->out_cg + out;
    if (channels == width) {
      to.final = true;
      run_phase(p, f, e, x, w, init, to, rows);
    } else {
      target part = {.first = buffer, .row_pitch = f->count[1] * width, .col_pitch = width};
      run_phase(p, f, e, x, w, init, part, rows);
      unpack(f, part, to, rows, channels);
      finish(p, to, rows, channels);
    }
  }
}

/* A band of the images of a group: packs what the units [u, end), all of one group of channels,
 * read, and runs them. */
static void run_item(const plan *p, size_t item, size_t u, size_t end, char *mine) {
  size_t n0 = item / p->bands * p->group, n1 = conv_min(n0 + p->group, p->g->n);
  size_t q0 = item % p->bands * p->band, q1 = conv_min(q0 + p->band, p->span_q[0]);
  size_t in_size = p->in[0] * p->in[1] * p->in_c;
  size_t packed = conv_align(p->blocks * p->plane * sizeof(real)) / sizeof(real);
  real *x = (real *)mine;
  real *line = (real *)(mine + p->local_line), *buffer = (real *)(mine + p->local_buffer);
  for (size_t n = n0; n < n1; n++)
    pack_band(p, x + (n - n0) * packed, line, p->x + n * in_size, u / p->units, q0, q1);
  for (size_t q = q0; q < q1; q += p->strip)
    for (size_t k = u; k < end; k++)
      for (size_t n = n0; n < n1; n++)
        run_unit(p, k, x + (n - n0) * packed + (q - q0) * p->in_step[0] * p->row_pitch, buffer, n, q,
                 conv_min(q1, q + p->strip));
}

/* Items are the bands of all groups of images. */
static void run_items(void *ctx, size_t begin, size_t end) {
  plan *p = ctx;
  char *mine = p->owner == td_thread_index() ? p->base + p->shared : td_scratch(p->local);
  if (!mine) {
    __atomic_store_n(&p->failed, true, __ATOMIC_RELAXED);
    return;
  }
  for (size_t item = begin; item < end; item++)
    for (size_t u = p->pass_begin, next; u < p->pass_end; u = next) {
      next = conv_min(p->pass_end, (u / p->units + 1) * p->units);
      run_item(p, item, u, next, mine);
    }
}

/* As many units from pass_begin on as fit the memory for packed weights. */
static void choose_pass(plan *p) {
  size_t all = p->units * p->g->groups, bytes = 0;
  if (p->form) {
    p->pass_end = all;
    return;
  }
  for (p->pass_end = p->pass_begin; p->pass_end < all; p->pass_end++) {
    bytes += unit_bytes(p, p->unit[p->pass_end % p->units].v);
    if (bytes > PASS_BYTES && p->pass_end > p->pass_begin) break;
  }
}

/* What is added is read best in whole rows: then all units follow each other over a few of them, if their weights are
 * few. */
static void choose_strip(plan *p) {
  p->strip = p->band;
  if (!p->e || !p->e->add || unit_bytes(p, p->vectors) > LIGHT_BYTES) return;
  size_t row_bytes = p->out[1] * p->out_c * sizeof(real);
  p->strip = conv_min(p->band, conv_max(1, STRIP_BYTES / row_bytes));
}

static bool correlate(plan *p) {
  choose_strip(p);
  if (!prepare(p)) return false;
  size_t items = conv_ceil_div(p->g->n, p->group) * p->bands;
  size_t work = p->group * p->band * p->span_q[1] * p->weight_rows * p->out_cg * p->g->groups /
                (p->out_step[0] * p->out_step[1]);
  for (p->pass_begin = 0; p->pass_begin < p->units * p->g->groups; p->pass_begin = p->pass_end) {
    choose_pass(p);
    if (!p->form || !p->form->made)
      td_parallel(p->pass_end - p->pass_begin, 1 + (16 << 10) / (p->weight_rows * TD_LANES + 1),
                  pack_units, p);
    if (p->form && !p->form->made) td_form_done(p->form, true);
    td_parallel(items, 1 + MIN_TASK / (work + 1), run_items, p);
  }
  return !p->failed;
}

bool TD_K(conv_direct)(real *y, const real *x, const real *w, const td_epilogue *e,
                       const td_conv *g, const td_forms *forms) {
  plan p;
  describe(&p, g, false);
  p.x = x, p.w = w, p.y = y, p.e = e, p.forms = forms;
  return correlate(&p);
}

bool TD_K(conv_direct_input_grad)(real *dx, const real *dy, const real *w, const td_conv *g,
                                  const td_forms *forms) {
  plan p;
  describe(&p, g, true);
  p.x = dy, p.w = w, p.y = dx, p.forms = forms;
  return correlate(&p);
}
