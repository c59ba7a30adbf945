/* Pooling and resizing of images N×H×W×C: maximum and mean over windows, nearest and bilinear
 * resizing, and their transposes. The loops over channels are innermost and fill the vectors.
 * Values are spread over the threads by rows of the output. A gradient adds to overlapping places
 * of one image, so it is spread over (image, strip of channels), inside of which the order is
 * fixed. */
#include "kernels/isa.h"
#include "kernels/reduce.h"

enum {
  STRIP = 128,      /* channels that one piece of work covers */
  SMALL_WINDOW = 16 /* pixels of a window that is summed in registers */
};

typedef struct {
  size_t lo, hi;
} range;

/* The rows of the input under output row i: window i·stride - pad … + k, cut to [0, size). */
static inline range window(size_t i, size_t k, size_t stride, size_t pad, size_t size) {
  size_t from = i * stride, to = from + k;
  range r = {from > pad ? from - pad : 0, to > pad ? to - pad : 0};
  if (r.hi > size) r.hi = size;
  if (r.lo > r.hi) r.lo = r.hi;
  return r;
}

/* The rows of the input that output row i of `out` averages: [floor(i·size/out),
 * ceil((i+1)·size/out)). */
static inline range adaptive_window(size_t i, size_t size, size_t out) {
  return (range){i * size / out, td_ceil_div((i + 1) * size, out)};
}

static inline size_t grain_of(const td_conv *g, size_t items) {
  size_t work =
      g->n * td_min_size(g->oh * g->ow * g->kh * g->kw + g->h * g->w, SIZE_MAX / 64) * g->c;
  return td_grain(items ? work / items : work);
}

static inline bool is_empty(const td_conv *g) { return g->n * g->c * g->oh * g->ow == 0; }

TD_INLINE void add(real *restrict y, const real *restrict x, size_t c) {
  for (size_t j = 0; j < c; j++) y[j] += x[j];
}
TD_INLINE void add_scaled(real *restrict y, real a, const real *restrict x, size_t c) {
  for (size_t j = 0; j < c; j++) y[j] += a * x[j];
}
TD_INLINE void scale(real *restrict y, real a, size_t c) {
  for (size_t j = 0; j < c; j++) y[j] *= a;
}

/* Clears channels [0, c) of `pixels` pixels that are `step` apart. */
static void clear(real *x, size_t pixels, size_t step, size_t c) {
  if (c == step) memset(x, 0, pixels * c * sizeof *x);
  else
    for (size_t i = 0; i < pixels; i++) memset(x + i * step, 0, c * sizeof *x);
}

/* ---- Gradients: one piece of work ---------------------------------------------------------- */

typedef struct {
  const td_conv *g;
  real *dx;
  const real *dy;
  const int64_t *at;
  bool adaptive;
} grad_job;

/* The image and channels of piece `item` of a gradient. */
typedef struct {
  size_t c; /* number of channels */
  real *dx; /* first pixel, first channel of the piece; cleared */
  const real *dy;
  const int64_t *at;
} piece;

static piece take_piece(const grad_job *j, size_t item) {
  const td_conv *g = j->g;
  size_t strips = td_ceil_div(g->c, STRIP), image = item / strips, from = item % strips * STRIP;
  size_t in = image * g->h * g->w * g->c + from, out = image * g->oh * g->ow * g->c + from;
  piece p = {td_min_size(g->c - from, STRIP), j->dx + in, j->dy + out, j->at ? j->at + out : NULL};
  clear(p.dx, g->h * g->w, g->c, p.c);
  return p;
}

static void run_grad(td_task task, void *dx, const void *dy, const int64_t *at, const td_conv *g,
                     bool adaptive) {
  if (g->n * g->c * g->h * g->w == 0) return;
  grad_job j = {g, dx, dy, at, adaptive};
  size_t items = g->n * td_ceil_div(g->c, STRIP);
  td_parallel(items, grain_of(g, items), task, &j);
}

/* ---- Maximum ------------------------------------------------------------------------------- */

typedef struct {
  const td_conv *g;
  real *y;
  int64_t *at;
  const real *x;
} max_job;

/* Stores where[k] + first as positions. */
static inline void store_positions(int64_t *at, vint where, size_t first) {
  ireal lane[TD_LANES];
  memcpy(lane, &where, sizeof lane);
  for (int k = 0; k < TD_LANES; k++) at[k] = (int64_t)first + lane[k];
}

/* The maxima of one window in TD_LANES channels; x is the first channel of the image's first pixel.
 * The first of equals stays, and the first NaN (a later one is not even less or equal, so the
 * winner is asked). Positions are counted from the window's first pixel on the way, so that they
 * fit in ireal. */
TD_INLINE void max_lanes(real *y, int64_t *at, const real *x, range h, range w, size_t width,
                         size_t step) {
  size_t first = h.lo * width + w.lo;
  vreal best = td_load(x + first * step);
  vint where = {0};
  for (size_t i = h.lo; i < h.hi; i++) {
    const real *p = x + (i * width + w.lo) * step;
    ireal at_row = (ireal)((i - h.lo) * width);
    for (size_t k = 0; k < w.hi - w.lo; k++, p += step) {
      vreal a = td_load(p);
      vint take = ~(a <= best) & (best == best), here = at_row + (ireal)k - (vint){0};
      best = td_vselect(take, a, best);
      where = (here & take) | (where & ~take);
    }
  }
  td_store(y, best);
  store_positions(at, where, first);
}

/* The same for one channel. */
static inline void max_lane(real *y, int64_t *at, const real *x, range h, range w, size_t width,
                            size_t step) {
  size_t where = h.lo * width + w.lo;
  real best = x[where * step];
  for (size_t i = h.lo; i < h.hi; i++)
    for (size_t k = w.lo; k < w.hi; k++) {
      real a = x[(i * width + k) * step];
      bool take = !(a <= best) && best == best;
      best = take ? a : best;
      where = take ? i * width + k : where;
    }
  *y = best;
  *at = (int64_t)where;
}

/* The maxima of one window. The last vector overlaps the one before. A window of padding alone
 * gives -inf at -1. */
static inline void max_window(real *y, int64_t *at, const real *x, range h, range w,
                              const td_conv *g) {
  size_t c = g->c, j = 0;
  if (h.lo == h.hi || w.lo == w.hi) {
    for (; j < c; j++) y[j] = (real)-INFINITY, at[j] = -1;
    return;
  }
  for (; j + TD_LANES <= c; j += TD_LANES) max_lanes(y + j, at + j, x + j, h, w, g->w, c);
  if (j == c) return;
  if (c > TD_LANES) max_lanes(y + c - TD_LANES, at + c - TD_LANES, x + c - TD_LANES, h, w, g->w, c);
  else
    for (; j < c; j++) max_lane(y + j, at + j, x + j, h, w, g->w, c);
}

/* Items are rows of the output. */
static void max_rows(void *ctx, size_t begin, size_t end) {
  const max_job *m = ctx;
  const td_conv *g = m->g;
  for (size_t row = begin; row < end; row++) {
    const real *x = m->x + row / g->oh * g->h * g->w * g->c;
    range h = window(row % g->oh, g->kh, g->stride[0], g->pad[0], g->h);
    for (size_t ox = 0; ox < g->ow; ox++) {
      range w = window(ox, g->kw, g->stride[1], g->pad[1], g->w);
      size_t out = (row * g->ow + ox) * g->c;
      max_window(m->y + out, m->at + out, x, h, w, g);
    }
  }
}

void TD_K(max_pool2d)(void *y, int64_t *at, const void *x, const td_conv *g) {
  if (is_empty(g)) return;
  max_job m = {g, y, at, x};
  td_parallel(g->n * g->oh, grain_of(g, g->n * g->oh), max_rows, &m);
}

static void max_grad(void *ctx, size_t begin, size_t end) {
  const grad_job *job = ctx;
  const td_conv *g = job->g;
  for (size_t item = begin; item < end; item++) {
    piece p = take_piece(job, item);
    for (size_t pixel = 0; pixel < g->oh * g->ow; pixel++, p.dy += g->c, p.at += g->c)
      for (size_t j = 0; j < p.c; j++)
        if (p.at[j] >= 0) p.dx[(size_t)p.at[j] * g->c + j] += p.dy[j];
  }
}

void TD_K(max_pool2d_grad)(void *dx, const void *dy, const int64_t *at, const td_conv *g) {
  run_grad(max_grad, dx, dy, at, g, false);
}

typedef struct {
  const td_conv *g;
  real *y;
  const real *x;
  const int64_t *at;
} gather_job;

static void gather_rows(void *ctx, size_t begin, size_t end) {
  const gather_job *s = ctx;
  const td_conv *g = s->g;
  for (size_t row = begin; row < end; row++) {
    const real *x = s->x + row / g->oh * g->h * g->w * g->c;
    size_t out = row * g->ow * g->c;
    for (size_t ox = 0; ox < g->ow; ox++, out += g->c)
      for (size_t j = 0; j < g->c; j++) {
        int64_t at = s->at[out + j];
        s->y[out + j] = at < 0 ? 0 : x[(size_t)at * g->c + j];
      }
  }
}

void TD_K(max_pool2d_gather)(void *y, const void *x, const int64_t *at, const td_conv *g) {
  if (is_empty(g)) return;
  gather_job s = {g, y, x, at};
  td_parallel(g->n * g->oh, td_grain(g->ow * g->c), gather_rows, &s);
}

/* ---- Mean ---------------------------------------------------------------------------------- */

typedef struct {
  const td_conv *g;
  real *y;
  const real *x;
  bool adaptive;
} map_job;

static inline range rows_under(const td_conv *g, bool adaptive, size_t oy) {
  return adaptive ? adaptive_window(oy, g->h, g->oh)
                  : window(oy, g->kh, g->stride[0], g->pad[0], g->h);
}
static inline range columns_under(const td_conv *g, bool adaptive, size_t ox) {
  return adaptive ? adaptive_window(ox, g->w, g->ow)
                  : window(ox, g->kw, g->stride[1], g->pad[1], g->w);
}
/* 1 / number of pixels, 0 for a window of padding alone. */
static inline real share(range h, range w) {
  size_t count = (h.hi - h.lo) * (w.hi - w.lo);
  return count ? (real)(1.0 / (double)count) : 0;
}

/* The mean of a small window in TD_LANES channels. */
TD_INLINE void mean_lanes(real *y, const real *x, range h, range w, size_t width, size_t step) {
  vreal sum = {0};
  for (size_t i = h.lo; i < h.hi; i++)
    for (size_t k = w.lo; k < w.hi; k++) sum += td_load(x + (i * width + k) * step);
  td_store(y, sum * share(h, w));
}

static inline void mean_lane(real *y, const real *x, range h, range w, size_t width, size_t step) {
  real sum = 0;
  for (size_t i = h.lo; i < h.hi; i++)
    for (size_t k = w.lo; k < w.hi; k++) sum += x[(i * width + k) * step];
  *y = sum * share(h, w);
}

/* The mean of a small window; the last vector overlaps the one before. */
static inline void mean_window(real *y, const real *x, range h, range w, const td_conv *g) {
  size_t c = g->c, j = 0;
  for (; j + TD_LANES <= c; j += TD_LANES) mean_lanes(y + j, x + j, h, w, g->w, c);
  if (j == c) return;
  if (c > TD_LANES) mean_lanes(y + c - TD_LANES, x + c - TD_LANES, h, w, g->w, c);
  else
    for (; j < c; j++) mean_lane(y + j, x + j, h, w, g->w, c);
}

/* The mean of a large window: it is read in the order of memory, and the rows are summed by
 * themselves first, so that the rounding errors of long sums stay small. */
static void mean_large_window(real *y, const real *x, range h, range w, const td_conv *g) {
  for (size_t from = 0; from < g->c; from += STRIP) {
    size_t c = td_min_size(g->c - from, STRIP);
    real sum[STRIP], line[STRIP];
    for (size_t j = 0; j < c; j++) sum[j] = 0;
    for (size_t i = h.lo; i < h.hi; i++) {
      td_fold_columns(TD_FOLD_SUM, line, x + (i * g->w + w.lo) * g->c + from, w.hi - w.lo, g->c, c);
      add(sum, line, c);
    }
    scale(sum, share(h, w), c);
    memcpy(y + from, sum, c * sizeof *sum);
  }
}

/* Items are rows of the output. */
static void mean_rows(void *ctx, size_t begin, size_t end) {
  const map_job *m = ctx;
  const td_conv *g = m->g;
  for (size_t row = begin; row < end; row++) {
    const real *x = m->x + row / g->oh * g->h * g->w * g->c;
    real *y = m->y + row * g->ow * g->c;
    range h = rows_under(g, m->adaptive, row % g->oh);
    for (size_t ox = 0; ox < g->ow; ox++, y += g->c) {
      range w = columns_under(g, m->adaptive, ox);
      if ((h.hi - h.lo) * (w.hi - w.lo) > SMALL_WINDOW) mean_large_window(y, x, h, w, g);
      else mean_window(y, x, h, w, g);
    }
  }
}

static void mean_grad(void *ctx, size_t begin, size_t end) {
  const grad_job *job = ctx;
  const td_conv *g = job->g;
  for (size_t item = begin; item < end; item++) {
    piece p = take_piece(job, item);
    for (size_t oy = 0; oy < g->oh; oy++) {
      range h = rows_under(g, job->adaptive, oy);
      for (size_t ox = 0; ox < g->ow; ox++, p.dy += g->c) {
        range w = columns_under(g, job->adaptive, ox);
        real a = share(h, w);
        for (size_t i = h.lo; i < h.hi; i++)
          for (size_t k = w.lo; k < w.hi; k++)
            add_scaled(p.dx + (i * g->w + k) * g->c, a, p.dy, p.c);
      }
    }
  }
}

void TD_K(avg_pool2d)(void *y, const void *x, const td_conv *g) {
  if (is_empty(g)) return;
  map_job m = {g, y, x, false};
  td_parallel(g->n * g->oh, grain_of(g, g->n * g->oh), mean_rows, &m);
}

void TD_K(avg_pool2d_grad)(void *dx, const void *dy, const td_conv *g) {
  run_grad(mean_grad, dx, dy, NULL, g, false);
}

void TD_K(adaptive_avg_pool2d)(void *y, const void *x, const td_conv *g) {
  if (is_empty(g)) return;
  map_job m = {g, y, x, true};
  td_parallel(g->n * g->oh, td_grain(g->h * g->w * g->c / g->oh), mean_rows, &m);
}

void TD_K(adaptive_avg_pool2d_grad)(void *dx, const void *dy, const td_conv *g) {
  run_grad(mean_grad, dx, dy, NULL, g, true);
}

/* ---- Resizing ------------------------------------------------------------------------------ */

/* Where sample i of `out` lies between the pixels lo and hi of `size`: at lo + t, with pixel
 * centres at 1/2. */
typedef struct {
  size_t lo, hi;
  real t;
} sample;

static inline sample sample_at(size_t i, size_t size, size_t out) {
  double at = ((double)i + 0.5) * (double)size / (double)out - 0.5;
  if (at < 0) at = 0;
  size_t lo = td_min_size((size_t)at, size - 1);
  return (sample){lo, td_min_size(lo + 1, size - 1), (real)(at - (double)lo)};
}

/* Items are rows of the output. */
static void nearest_rows(void *ctx, size_t begin, size_t end) {
  const map_job *m = ctx;
  const td_conv *g = m->g;
  for (size_t row = begin; row < end; row++) {
    size_t iy = row / g->oh * g->h + row % g->oh * g->h / g->oh;
    const real *x = m->x + iy * g->w * g->c;
    real *y = m->y + row * g->ow * g->c;
    for (size_t ox = 0; ox < g->ow; ox++, y += g->c)
      memcpy(y, x + ox * g->w / g->ow * g->c, g->c * sizeof *y);
  }
}

static void nearest_grad(void *ctx, size_t begin, size_t end) {
  const grad_job *job = ctx;
  const td_conv *g = job->g;
  for (size_t item = begin; item < end; item++) {
    piece p = take_piece(job, item);
    for (size_t oy = 0; oy < g->oh; oy++) {
      real *dx = p.dx + oy * g->h / g->oh * g->w * g->c;
      for (size_t ox = 0; ox < g->ow; ox++, p.dy += g->c)
        add(dx + ox * g->w / g->ow * g->c, p.dy, p.c);
    }
  }
}

void TD_K(upsample_nearest)(void *y, const void *x, const td_conv *g) {
  if (is_empty(g)) return;
  map_job m = {g, y, x, false};
  td_parallel(g->n * g->oh, td_grain(g->ow * g->c), nearest_rows, &m);
}

void TD_K(upsample_nearest_grad)(void *dx, const void *dy, const td_conv *g) {
  run_grad(nearest_grad, dx, dy, NULL, g, false);
}

/* y = wa·a + wb·b + wc·c + wd·d for n channels. */
TD_INLINE void blend(real *restrict y, const real *restrict a, const real *restrict b,
                     const real *restrict c, const real *restrict d, const real w[4], size_t n) {
  real wa = w[0], wb = w[1], wc = w[2], wd = w[3];
  for (size_t j = 0; j < n; j++) y[j] = wa * a[j] + wb * b[j] + (wc * c[j] + wd * d[j]);
}

static inline void weights(real w[4], real ty, real tx) {
  w[0] = (1 - ty) * (1 - tx);
  w[1] = (1 - ty) * tx;
  w[2] = ty * (1 - tx);
  w[3] = ty * tx;
}

static void bilinear_rows(void *ctx, size_t begin, size_t end) {
  const map_job *m = ctx;
  const td_conv *g = m->g;
  size_t c = g->c;
  for (size_t row = begin; row < end; row++) {
    sample sy = sample_at(row % g->oh, g->h, g->oh);
    const real *x = m->x + row / g->oh * g->h * g->w * c;
    const real *above = x + sy.lo * g->w * c, *below = x + sy.hi * g->w * c;
    real *y = m->y + row * g->ow * c;
    for (size_t ox = 0; ox < g->ow; ox++, y += c) {
      sample sx = sample_at(ox, g->w, g->ow);
      real w[4];
      weights(w, sy.t, sx.t);
      blend(y, above + sx.lo * c, above + sx.hi * c, below + sx.lo * c, below + sx.hi * c, w, c);
    }
  }
}

static void bilinear_grad(void *ctx, size_t begin, size_t end) {
  const grad_job *job = ctx;
  const td_conv *g = job->g;
  for (size_t item = begin; item < end; item++) {
    piece p = take_piece(job, item);
    for (size_t oy = 0; oy < g->oh; oy++) {
      sample sy = sample_at(oy, g->h, g->oh);
      real *above = p.dx + sy.lo * g->w * g->c, *below = p.dx + sy.hi * g->w * g->c;
      for (size_t ox = 0; ox < g->ow; ox++, p.dy += g->c) {
        sample sx = sample_at(ox, g->w, g->ow);
        real w[4];
        weights(w, sy.t, sx.t);
        add_scaled(above + sx.lo * g->c, w[0], p.dy, p.c);
        add_scaled(above + sx.hi * g->c, w[1], p.dy, p.c);
        add_scaled(below + sx.lo * g->c, w[2], p.dy, p.c);
        add_scaled(below + sx.hi * g->c, w[3], p.dy, p.c);
      }
    }
  }
}

void TD_K(upsample_bilinear)(void *y, const void *x, const td_conv *g) {
  if (is_empty(g)) return;
  map_job m = {g, y, x, false};
  td_parallel(g->n * g->oh, td_grain(g->ow * g->c), bilinear_rows, &m);
}

void TD_K(upsample_bilinear_grad)(void *dx, const void *dy, const td_conv *g) {
  run_grad(bilinear_grad, dx, dy, NULL, g, false);
}
