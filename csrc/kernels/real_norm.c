/* Normalisation over groups of channels and over channels, and the gradients.
 *
 * An image is p pixels × c channels, read as rows of channels. A chunk is the rows that fit in the
 * first-level cache: its moments are taken in two passes there and merged in double, in order, into
 * those of the image (Chan, Golub, LeVeque 1979), so a large mean costs no accuracy. Then one more
 * pass over the image, by now in the second-level cache, writes the result. Threads share out the
 * images, or the chunks when there are few images; the numbers are the same. channel_norm is
 * group_norm of a single image with a group for every channel. p = 1 is a norm of short contiguous
 * rows, and has its own code.
 *
 * With few channels, `fold` pixels are taken together as one wider row, so that a vector is filled.
 * Channel j of such a row is channel j mod c of the image: only the `finish` functions know. */
#include "kernels/isa.h"
#include "kernels/reduce.h"

enum {
  CHUNK_BYTES = 16384,
  CHUNK_ROWS = 64,                /* most rows whose sums are kept in the element type */
  WIDE = TD_VBYTES == 64 ? 4 : 2, /* vectors of a strip: as many as registers hold */
  COLUMNS = 512,                  /* most columns taken at once inside a chunk */
  MAX_PARTS = 64,   /* pieces that the images are shared out in: fixed, for sums over images */
  PART_PIXELS = 64, /* least number of pixels of a part */
  FLUSH_ROWS = 32   /* short rows whose sums are kept in the element type */
};

typedef struct norm norm;
struct norm {
  size_t n, p, c, groups;
  size_t fold, rows, w;      /* pixels taken together; an image is rows × w with w = fold·c */
  size_t chunk_rows, chunks; /* of an image */
  size_t per_part, parts;    /* images of a part; number of parts */
  bool split;                /* threads share out chunks rather than images */
  double eps;
  real *y; /* dx in the gradient */
  real *mean, *rstd, *var;
  const real *x, *dy, *gamma, *beta;
  real *dgamma, *dbeta;
  /* The steps for one image. `sums` fills 2·w numbers from a chunk, `merge` adds them to the
   * image's 2·w, `finish` makes the 4·w coefficients that `apply` needs. */
  void (*begin)(const norm *t, size_t image, real *coef);
  void (*sums)(const norm *t, size_t image, size_t k, const real *coef, double *out);
  void (*merge)(const norm *t, size_t k, const double *chunk, double *total);
  void (*finish)(const norm *t, size_t image, double *total, real *coef);
  void (*apply)(const norm *t, size_t image, size_t k, const real *coef);
  /* Work space, from the calling thread's scratch. */
  double *part;  /* parts×2×c: sums for dgamma and dbeta */
  double *total; /* slots×2×w, a slot being a part, or an image when chunks are shared out */
  double *chunk; /* slots×2×w, or images×chunks×2×w */
  real *coef;    /* slots×4×w */
};

static inline size_t rows_of(const norm *t, size_t k) {
  return td_min_size(t->rows - k * t->chunk_rows, t->chunk_rows);
}
static inline size_t offset_of(const norm *t, size_t image, size_t k) {
  return (image * t->rows + k * t->chunk_rows) * t->w;
}

/* ---- How the work is shared out ------------------------------------------------------------ */

static void whole_images(void *ctx, size_t begin, size_t end) {
  const norm *t = ctx;
  for (size_t part = begin; part < end; part++) {
    double *total = t->total + part * 2 * t->w, *chunk = t->chunk + part * 2 * t->w;
    real *coef = t->coef + part * 4 * t->w;
    size_t last = td_min_size((part + 1) * t->per_part, t->n);
    for (size_t image = part * t->per_part; image < last; image++) {
      t->begin(t, image, coef);
      for (size_t k = 0; k < t->chunks; k++) {
        t->sums(t, image, k, coef, chunk);
        t->merge(t, k, chunk, total);
      }
      t->finish(t, image, total, coef);
      for (size_t k = 0; k < t->chunks; k++) t->apply(t, image, k, coef);
    }
  }
}

static void chunk_sums(void *ctx, size_t begin, size_t end) {
  const norm *t = ctx;
  for (size_t i = begin; i < end; i++) {
    size_t image = i / t->chunks;
    t->sums(t, image, i % t->chunks, t->coef + image * 4 * t->w, t->chunk + i * 2 * t->w);
  }
}

static void chunk_apply(void *ctx, size_t begin, size_t end) {
  const norm *t = ctx;
  for (size_t i = begin; i < end; i++) {
    size_t image = i / t->chunks;
    t->apply(t, image, i % t->chunks, t->coef + image * 4 * t->w);
  }
}

static void split_images(norm *t) {
  size_t grain = td_grain(t->chunk_rows * t->w);
  for (size_t image = 0; image < t->n; image++) t->begin(t, image, t->coef + image * 4 * t->w);
  td_parallel(t->n * t->chunks, grain, chunk_sums, t);
  for (size_t image = 0; image < t->n; image++) {
    double *total = t->total + image * 2 * t->w;
    for (size_t k = 0; k < t->chunks; k++)
      t->merge(t, k, t->chunk + (image * t->chunks + k) * 2 * t->w, total);
    t->finish(t, image, total, t->coef + image * 4 * t->w);
  }
  td_parallel(t->n * t->chunks, grain, chunk_apply, t);
}

/* Adds up the parts, in order, into the first of them. */
static void write_parameter_grads(const norm *t) {
  size_t c = t->c;
  double *restrict sum = t->part;
  for (size_t k = 1; k < t->parts; k++) {
    const double *restrict part = t->part + k * 2 * c;
    for (size_t j = 0; j < 2 * c; j++) sum[j] += part[j];
  }
  for (size_t j = 0; t->dgamma && j < c; j++) t->dgamma[j] = t->parts ? (real)sum[j] : 0;
  for (size_t j = 0; t->dbeta && j < c; j++) t->dbeta[j] = t->parts ? (real)sum[c + j] : 0;
}

/* At most MAX_PARTS parts, each of enough pixels for its sums not to matter. */
static void share_out(norm *t) {
  size_t most = td_ceil_div(t->n, MAX_PARTS);
  size_t least = t->p < PART_PIXELS ? td_ceil_div(PART_PIXELS, t->p + 1) : 1;
  t->per_part = most > least ? most : least;
  t->parts = td_ceil_div(t->n, t->per_part);
}

/* The shape of rows and chunks; these depend on the shape of x alone. */
static void cut(norm *t) {
  t->fold = 1;
  while (t->c * t->fold < TD_NARROW && t->p % (2 * t->fold) == 0 && t->p > 2 * t->fold)
    t->fold *= 2;
  t->rows = t->p / t->fold;
  t->w = t->c * t->fold;
  t->chunk_rows = CHUNK_BYTES / (t->w * sizeof(real));
  if (t->chunk_rows < 8) t->chunk_rows = 8;
  if (t->chunk_rows > CHUNK_ROWS) t->chunk_rows = CHUNK_ROWS;
  t->chunks = t->p ? td_ceil_div(t->rows, t->chunk_rows) : 0;
  share_out(t);
  t->split = t->n < (size_t)td_threads();
}

/* Carves the work space; false when memory is refused. */
static bool make_room(norm *t) {
  size_t slots = t->split ? t->n : t->parts, chunks = t->split ? t->n * t->chunks : slots;
  size_t doubles = (t->parts * t->c + (slots + chunks) * t->w) * 2;
  double *room = td_scratch(doubles * sizeof(double) + slots * 4 * t->w * sizeof(real));
  if (!room) return false;
  t->part = room;
  t->total = t->part + t->parts * 2 * t->c;
  t->chunk = t->total + slots * 2 * t->w;
  t->coef = (real *)(t->chunk + chunks * 2 * t->w);
  memset(t->part, 0, t->parts * 2 * t->c * sizeof *t->part);
  return true;
}

/* Runs the steps over all images; false when memory is refused. */
static bool run(norm *t) {
  if (!make_room(t)) return false;
  if (t->split) split_images(t);
  else td_parallel(t->parts, td_grain(t->per_part * t->p * t->c), whole_images, t);
  return true;
}

/* ---- Forward ------------------------------------------------------------------------------- */

/* The loops over a chunk take it in strips of WIDE vectors, whose coefficients and sums stay in
 * registers, then in single vectors, the last of which overlaps the one before. */

/* s[j] = Σ (x[i][j] - m[j]) and with `square` Σ (x[i][j] - m[j])², for `vectors` vectors. */
TD_INLINE void deviation_strip(int vectors, bool square, real *s, const real *x, const real *m,
                               size_t rows, size_t stride) {
  vreal o[WIDE], a[WIDE], b[WIDE];
#pragma GCC unroll 4
  for (int k = 0; k < vectors; k++) {
    o[k] = td_load(m + k * TD_LANES);
    a[k] = b[k] = (vreal){0};
  }
  size_t i = 0;
  for (; i + 2 <= rows; i += 2, x += 2 * stride) {
#pragma GCC unroll 4
    for (int k = 0; k < vectors; k++) {
      vreal d = td_load(x + k * TD_LANES) - o[k], e = td_load(x + stride + k * TD_LANES) - o[k];
      a[k] += square ? d * d : d;
      b[k] += square ? e * e : e;
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < vectors; k++) {
    if (i < rows) {
      vreal d = td_load(x + k * TD_LANES) - o[k];
      a[k] += square ? d * d : d;
    }
    td_store(s + k * TD_LANES, a[k] + b[k]);
  }
}

TD_INLINE void deviations(bool square, real *s, const real *x, const real *m, size_t rows,
                          size_t stride, size_t w) {
  size_t j = 0;
  for (; j + WIDE * TD_LANES <= w; j += WIDE * TD_LANES)
    deviation_strip(WIDE, square, s + j, x + j, m + j, rows, stride);
  for (; j < w && w >= TD_LANES; j += TD_LANES) {
    size_t at = td_min_size(j, w - TD_LANES);
    deviation_strip(1, square, s + at, x + at, m + at, rows, stride);
  }
  for (; j < w; j++) {
    s[j] = 0;
    for (size_t i = 0; i < rows; i++) {
      real d = x[i * stride + j] - m[j];
      s[j] += square ? d * d : d;
    }
  }
}

/* Mean and sum of squared deviations of each column of a chunk: out[0..w) and out[w..2w). */
static void forward_sums(const norm *t, size_t image, size_t k, const real *coef, double *out) {
  (void)coef;
  const real *x = t->x + offset_of(t, image, k);
  size_t rows = rows_of(t, k);
  real sum[COLUMNS], m[COLUMNS];
  for (size_t j0 = 0; j0 < t->w; j0 += COLUMNS, x += COLUMNS) {
    size_t w = td_min_size(t->w - j0, COLUMNS);
    double *mean = out + j0, *m2 = mean + t->w, share = 1 / (double)rows;
    deviations(false, sum, x, x, rows, t->w, w); /* from the first row: small numbers */
    for (size_t j = 0; j < w; j++) {
      mean[j] = (double)x[j] + (double)sum[j] * share;
      m[j] = (real)mean[j];
    }
    deviations(true, sum, x, m, rows, t->w, w);
    for (size_t j = 0; j < w; j++) {
      double d = mean[j] - (double)m[j];
      m2[j] = (double)sum[j] - (double)rows * d * d; /* the deviations were from the rounded mean */
    }
  }
}

/* Merges the moments of chunk k into those of the chunks before it. */
static void forward_merge(const norm *t, size_t k, const double *chunk, double *total) {
  size_t w = t->w;
  if (k == 0) {
    memcpy(total, chunk, 2 * w * sizeof *total);
    return;
  }
  double na = (double)(k * t->chunk_rows), nb = (double)rows_of(t, k), share = nb / (na + nb);
  double *restrict mean = total, *restrict m2 = total + w;
  const double *restrict mean_b = chunk, *restrict m2_b = chunk + w;
  for (size_t j = 0; j < w; j++) {
    double d = mean_b[j] - mean[j];
    mean[j] += d * share;
    m2[j] += m2_b[j] + d * d * na * share;
  }
}

/* Moments of the groups; coef is shift, scale, bias of every column: y = (x - shift)·scale + bias.
 */
static void forward_finish(const norm *t, size_t image, double *total, real *coef) {
  size_t w = t->w, cg = t->c / t->groups;
  const double *mean = total, *m2 = total + w;
  real *shift = coef, *scale = coef + w, *bias = coef + 2 * w;
  for (size_t g = 0; g < t->groups; g++) {
    double near = mean[g * cg], sum = 0, squares = 0, columns = (double)(cg * t->fold);
    for (size_t f = 0; f < t->fold; f++)
      for (size_t j = f * t->c + g * cg, end = j + cg; j < end; j++) sum += mean[j] - near;
    double m = near + sum / columns;
    for (size_t f = 0; f < t->fold; f++)
      for (size_t j = f * t->c + g * cg, end = j + cg; j < end; j++)
        squares += m2[j] + (double)t->rows * (mean[j] - m) * (mean[j] - m);
    double var = squares / (columns * (double)t->rows);
    if (var < 0) var = 0;
    real rounded = (real)m, r = (real)(1 / sqrt(var + t->eps));
    t->mean[image * t->groups + g] = rounded;
    t->rstd[image * t->groups + g] = r;
    if (t->var) t->var[image * t->groups + g] = (real)var;
    for (size_t j = g * cg; j < (g + 1) * cg; j++) {
      shift[j] = rounded;
      scale[j] = t->gamma ? r * t->gamma[j] : r;
      bias[j] = (t->beta ? t->beta[j] : 0) - (real)(m - (double)rounded) * scale[j];
    }
  }
  for (size_t f = 1; f < t->fold; f++)
    for (size_t i = 0; i < 3; i++)
      memcpy(coef + i * w + f * t->c, coef + i * w, t->c * sizeof *coef);
}

/* y = (x - shift)·scale + bias for `vectors` vectors of w columns; coef is three rows. */
TD_INLINE void affine_strip(int vectors, real *y, const real *x, const real *coef, size_t rows,
                            size_t w) {
  vreal shift[WIDE], scale[WIDE], bias[WIDE];
#pragma GCC unroll 4
  for (int k = 0; k < vectors; k++) {
    shift[k] = td_load(coef + k * TD_LANES);
    scale[k] = td_load(coef + w + k * TD_LANES);
    bias[k] = td_load(coef + 2 * w + k * TD_LANES);
  }
  for (size_t i = 0; i < rows; i++, x += w, y += w) {
#pragma GCC unroll 4
    for (int k = 0; k < vectors; k++) {
      vreal d = td_load(x + k * TD_LANES) - shift[k];
      td_store(y + k * TD_LANES, d * scale[k] + bias[k]);
    }
  }
}

static void affine_rows(real *y, const real *x, const real *coef, size_t rows, size_t w) {
  size_t j = 0;
  for (; j + WIDE * TD_LANES <= w; j += WIDE * TD_LANES)
    affine_strip(WIDE, y + j, x + j, coef + j, rows, w);
  for (; j < w && w >= TD_LANES; j += TD_LANES) {
    size_t at = td_min_size(j, w - TD_LANES);
    affine_strip(1, y + at, x + at, coef + at, rows, w);
  }
  for (; j < w; j++)
    for (size_t i = 0; i < rows; i++)
      y[i * w + j] = (x[i * w + j] - coef[j]) * coef[w + j] + coef[2 * w + j];
}

static void forward_apply(const norm *t, size_t image, size_t k, const real *coef) {
  size_t at = offset_of(t, image, k);
  affine_rows(t->y + at, t->x + at, coef, rows_of(t, k), t->w);
}

static void forward_begin(const norm *t, size_t image, real *coef) {
  (void)t, (void)image, (void)coef;
}

/* ---- Gradient ---------------------------------------------------------------------------------
 * With x̂ = (x - mean)·rstd, g = dy·gamma, and means over the group's m elements:
 *   dx = rstd·(g - mean(g) - x̂·mean(g·x̂)),  dgamma = Σ dy·x̂,  dbeta = Σ dy. */

/* The means, as a row of shifts. */
static void backward_begin(const norm *t, size_t image, real *coef) {
  size_t cg = t->c / t->groups;
  for (size_t j = 0; j < t->w; j++) coef[j] = t->mean[image * t->groups + j % t->c / cg];
}

/* a[j] = Σ dy, b[j] = Σ dy·(x - m) over the rows of a chunk, for `vectors` vectors. */
TD_INLINE void product_strip(int vectors, real *a, real *b, const real *dy, const real *x,
                             const real *m, size_t rows, size_t stride) {
  vreal o[WIDE], sa[WIDE], sb[WIDE];
#pragma GCC unroll 4
  for (int k = 0; k < vectors; k++) {
    o[k] = td_load(m + k * TD_LANES);
    sa[k] = sb[k] = (vreal){0};
  }
  for (size_t i = 0; i < rows; i++, x += stride, dy += stride) {
#pragma GCC unroll 4
    for (int k = 0; k < vectors; k++) {
      vreal d = td_load(dy + k * TD_LANES);
      sa[k] += d;
      sb[k] += d * (td_load(x + k * TD_LANES) - o[k]);
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < vectors; k++) {
    td_store(a + k * TD_LANES, sa[k]);
    td_store(b + k * TD_LANES, sb[k]);
  }
}

static void products(real *a, real *b, const real *dy, const real *x, const real *m, size_t rows,
                     size_t stride, size_t w) {
  size_t j = 0;
  for (; j + WIDE * TD_LANES <= w; j += WIDE * TD_LANES)
    product_strip(WIDE, a + j, b + j, dy + j, x + j, m + j, rows, stride);
  for (; j < w && w >= TD_LANES; j += TD_LANES) {
    size_t at = td_min_size(j, w - TD_LANES);
    product_strip(1, a + at, b + at, dy + at, x + at, m + at, rows, stride);
  }
  for (; j < w; j++) {
    a[j] = b[j] = 0;
    for (size_t i = 0; i < rows; i++) {
      a[j] += dy[i * stride + j];
      b[j] += dy[i * stride + j] * (x[i * stride + j] - m[j]);
    }
  }
}

static void backward_sums(const norm *t, size_t image, size_t k, const real *coef, double *out) {
  size_t at = offset_of(t, image, k);
  real a[COLUMNS], b[COLUMNS];
  for (size_t j0 = 0; j0 < t->w; j0 += COLUMNS) {
    size_t w = td_min_size(t->w - j0, COLUMNS);
    products(a, b, t->dy + at + j0, t->x + at + j0, coef + j0, rows_of(t, k), t->w, w);
    for (size_t j = 0; j < w; j++) {
      out[j0 + j] = (double)a[j];
      out[t->w + j0 + j] = (double)b[j];
    }
  }
}

static void backward_merge(const norm *t, size_t k, const double *chunk, double *total) {
  size_t w = 2 * t->w;
  if (k == 0) memcpy(total, chunk, w * sizeof *total);
  else
    for (size_t j = 0; j < w; j++) total[j] += chunk[j];
}

/* Adds the image's share of dgamma and dbeta to its part; coef becomes shift, and the three
 * coefficients of dx = k1·dy + k2·(x - shift) + k3. */
static void backward_finish(const norm *t, size_t image, double *total, real *coef) {
  size_t w = t->w, c = t->c, cg = c / t->groups;
  double *a = total, *b = total + w, *part = t->part + image / t->per_part * 2 * c;
  for (size_t f = 1; f < t->fold; f++)
    for (size_t j = 0; j < c; j++) {
      a[j] += a[f * c + j];
      b[j] += b[f * c + j];
    }
  real *k1 = coef + w, *k2 = coef + 2 * w, *k3 = coef + 3 * w;
  for (size_t g = 0; g < t->groups; g++) {
    double r = (double)t->rstd[image * t->groups + g], sa = 0, sb = 0, count = (double)(t->p * cg);
    for (size_t j = g * cg; j < (g + 1) * cg; j++) {
      double gamma = t->gamma ? (double)t->gamma[j] : 1;
      sa += a[j] * gamma;
      sb += b[j] * gamma;
      part[j] += b[j] * r;
      part[c + j] += a[j];
    }
    for (size_t j = g * cg; j < (g + 1) * cg; j++) {
      k1[j] = (real)(t->gamma ? r * (double)t->gamma[j] : r);
      k2[j] = (real)(-r * r * r * sb / count);
      k3[j] = (real)(-r * sa / count);
    }
  }
  for (size_t f = 1; f < t->fold; f++)
    for (size_t i = 1; i < 4; i++) memcpy(coef + i * w + f * c, coef + i * w, c * sizeof *coef);
}

/* dx = k1·dy + k2·(x - shift) + k3 for `vectors` vectors of w columns; coef is four rows. */
TD_INLINE void combine_strip(int vectors, real *dx, const real *dy, const real *x, const real *coef,
                             size_t rows, size_t w) {
  vreal s[WIDE], k1[WIDE], k2[WIDE], k3[WIDE];
#pragma GCC unroll 4
  for (int k = 0; k < vectors; k++) {
    s[k] = td_load(coef + k * TD_LANES);
    k1[k] = td_load(coef + w + k * TD_LANES);
    k2[k] = td_load(coef + 2 * w + k * TD_LANES);
    k3[k] = td_load(coef + 3 * w + k * TD_LANES);
  }
  for (size_t i = 0; i < rows; i++, x += w, dx += w, dy += w) {
#pragma GCC unroll 4
    for (int k = 0; k < vectors; k++) {
      vreal e = k2[k] * (td_load(x + k * TD_LANES) - s[k]) + k3[k];
      td_store(dx + k * TD_LANES, k1[k] * td_load(dy + k * TD_LANES) + e);
    }
  }
}

static void combine_rows(real *dx, const real *dy, const real *x, const real *coef, size_t rows,
                         size_t w) {
  size_t j = 0;
  for (; j + WIDE * TD_LANES <= w; j += WIDE * TD_LANES)
    combine_strip(WIDE, dx + j, dy + j, x + j, coef + j, rows, w);
  for (; j < w && w >= TD_LANES; j += TD_LANES) {
    size_t at = td_min_size(j, w - TD_LANES);
    combine_strip(1, dx + at, dy + at, x + at, coef + at, rows, w);
  }
  for (; j < w; j++)
    for (size_t i = 0; i < rows; i++) {
      real e = coef[2 * w + j] * (x[i * w + j] - coef[j]) + coef[3 * w + j];
      dx[i * w + j] = coef[w + j] * dy[i * w + j] + e;
    }
}

static void backward_apply(const norm *t, size_t image, size_t k, const real *coef) {
  size_t at = offset_of(t, image, k);
  combine_rows(t->y + at, t->dy + at, t->x + at, coef, rows_of(t, k), t->w);
}

/* ---- p = 1: short contiguous rows of c/groups elements ------------------------------------- */

static inline double lane_sum(vreal v) { return (double)td_fold_lanes(TD_FOLD_SUM, v); }

/* Σ (x - m) and Σ (x - m)² over a row; the sums of TD_BLOCK elements are joined in double. */
static void row_sums(const real *x, size_t n, real m, double *sum, double *squares) {
  *sum = *squares = 0;
  for (size_t from = 0; from < n; from += TD_BLOCK) {
    size_t i = from, end = from + td_min_size(n - from, TD_BLOCK);
    vreal s[4] = {{0}}, q[4] = {{0}}, shift = td_splat(m);
    real rest = 0, rest_squares = 0;
    for (; i + 4 * TD_LANES <= end; i += 4 * TD_LANES) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; k++) {
        vreal d = td_load(x + i + k * TD_LANES) - shift;
        s[k] += d;
        q[k] += d * d;
      }
    }
    for (; i + TD_LANES <= end; i += TD_LANES) {
      vreal d = td_load(x + i) - shift;
      s[0] += d;
      q[0] += d * d;
    }
    for (; i < end; i++) {
      rest += x[i] - m;
      rest_squares += (x[i] - m) * (x[i] - m);
    }
    *sum += lane_sum((s[0] + s[1]) + (s[2] + s[3])) + (double)rest;
    *squares += lane_sum((q[0] + q[1]) + (q[2] + q[3])) + (double)rest_squares;
  }
}

/* Normalises row `row` of n elements; gamma and beta are those of its channels. */
static void forward_row(const norm *t, size_t row, size_t n, const real *restrict gamma,
                        const real *restrict beta) {
  const real *restrict x = t->x + row * n;
  real *restrict y = t->y + row * n;
  double sum, squares, count = (double)n;
  real guess = (real)((double)td_fold_row(TD_FOLD_SUM, x, n) / count);
  row_sums(x, n, guess, &sum, &squares);
  double off = sum / count, mean = (double)guess + off, var = squares / count - off * off;
  if (var < 0) var = 0;
  real m = (real)mean, rest = (real)(mean - (double)m), r = (real)(1 / sqrt(var + t->eps));
  t->mean[row] = m;
  t->rstd[row] = r;
  if (t->var) t->var[row] = (real)var;
  for (size_t j = 0; j < n; j++) y[j] = ((x[j] - m) - rest) * (r * gamma[j]) + beta[j];
}

static void forward_row_parts(void *ctx, size_t begin, size_t end) {
  const norm *t = ctx;
  size_t cg = t->c / t->groups, last = td_min_size(end * t->per_part, t->n) * t->groups;
  for (size_t row = begin * t->per_part * t->groups; row < last; row++) {
    size_t j = row % t->groups * cg;
    forward_row(t, row, cg, t->gamma + j, t->beta + j);
  }
}

/* Σ gamma·dy and Σ gamma·dy·(x - m) over a row. */
static void row_products(const real *dy, const real *x, const real *gamma, size_t n, real m,
                         double *sa, double *sb) {
  *sa = *sb = 0;
  for (size_t from = 0; from < n; from += TD_BLOCK) {
    size_t i = from, end = from + td_min_size(n - from, TD_BLOCK);
    vreal a[4] = {{0}}, b[4] = {{0}}, shift = td_splat(m);
    real rest_a = 0, rest_b = 0;
    for (; i + 4 * TD_LANES <= end; i += 4 * TD_LANES) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; k++) {
        size_t at = i + k * TD_LANES;
        vreal g = td_load(dy + at) * td_load(gamma + at);
        a[k] += g;
        b[k] += g * (td_load(x + at) - shift);
      }
    }
    for (; i + TD_LANES <= end; i += TD_LANES) {
      vreal g = td_load(dy + i) * td_load(gamma + i);
      a[0] += g;
      b[0] += g * (td_load(x + i) - shift);
    }
    for (; i < end; i++) {
      rest_a += dy[i] * gamma[i];
      rest_b += dy[i] * gamma[i] * (x[i] - m);
    }
    *sa += lane_sum((a[0] + a[1]) + (a[2] + a[3])) + (double)rest_a;
    *sb += lane_sum((b[0] + b[1]) + (b[2] + b[3])) + (double)rest_b;
  }
}

/* The gradient of a row of n elements; its terms of dgamma and dbeta are added to the sums when
 * asked for. */
TD_INLINE void backward_row(const norm *t, size_t row, size_t n, const real *restrict gamma,
                            real *restrict dgamma, real *restrict dbeta, bool parameters) {
  const real *restrict x = t->x + row * n, *restrict dy = t->dy + row * n;
  real *restrict dx = t->y + row * n;
  double sa, sb, r = (double)t->rstd[row], count = (double)n;
  real m = t->mean[row], rstd = t->rstd[row];
  row_products(dy, x, gamma, n, m, &sa, &sb);
  real k2 = (real)(-r * r * sb / count), k3 = (real)(-sa / count);
  for (size_t j = 0; j < n; j++) {
    real d = dy[j], e = x[j] - m;
    dx[j] = rstd * (gamma[j] * d + (k2 * e + k3));
    if (parameters) {
      dgamma[j] += d * (e * rstd);
      dbeta[j] += d;
    }
  }
}

static void flush(double *restrict part, real *restrict sums, size_t n) {
  for (size_t j = 0; j < n; j++) {
    part[j] += (double)sums[j];
    sums[j] = 0;
  }
}

static void backward_row_parts(void *ctx, size_t begin, size_t end) {
  const norm *t = ctx;
  size_t c = t->c, cg = c / t->groups;
  bool parameters = t->dgamma || t->dbeta;
  for (size_t part = begin; part < end; part++) {
    real *sums = t->coef + part * 2 * c;
    memset(sums, 0, 2 * c * sizeof *sums);
    size_t first = part * t->per_part, last = td_min_size(first + t->per_part, t->n);
    for (size_t image = first; image < last; image++) {
      for (size_t g = 0; g < t->groups; g++) {
        size_t j = g * cg, row = image * t->groups + g;
        if (parameters) backward_row(t, row, cg, t->gamma + j, sums + j, sums + c + j, true);
        else backward_row(t, row, cg, t->gamma + j, NULL, NULL, false);
      }
      if ((image - first + 1) % FLUSH_ROWS == 0) flush(t->part + part * 2 * c, sums, 2 * c);
    }
    flush(t->part + part * 2 * c, sums, 2 * c);
  }
}

/* Work space for p = 1: the parts' sums, and ones and zeros where gamma or beta is missing. */
static bool make_row_room(norm *t) {
  size_t doubles = t->parts * 2 * t->c, reals = (t->parts * 2 + 2) * t->c;
  t->part = td_scratch(doubles * sizeof(double) + reals * sizeof(real));
  if (!t->part) return false;
  t->coef = (real *)(t->part + doubles);
  real *ones = t->coef + t->parts * 2 * t->c, *zeros = ones + t->c;
  for (size_t j = 0; j < t->c; j++) ones[j] = 1, zeros[j] = 0;
  memset(t->part, 0, doubles * sizeof *t->part);
  if (!t->gamma) t->gamma = ones;
  if (!t->beta) t->beta = zeros;
  return true;
}

static bool run_rows(norm *t, td_task task) {
  if (!make_row_room(t)) return false;
  td_parallel(t->parts, td_grain(t->per_part * t->c), task, t);
  return true;
}

/* ---- The kernels --------------------------------------------------------------------------- */

/* When memory for a few rows is refused, the result says so: it is NaN. */
static void spoil(real *y, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = (real)NAN;
}

static void forward(norm *t) {
  if (t->n == 0 || t->c == 0) return;
  cut(t);
  t->begin = forward_begin;
  t->sums = forward_sums;
  t->merge = forward_merge;
  t->finish = forward_finish;
  t->apply = forward_apply;
  if (t->p == 0) spoil(t->mean, t->n * t->groups), spoil(t->rstd, t->n * t->groups);
  else if (!(t->p == 1 ? run_rows(t, forward_row_parts) : run(t))) spoil(t->y, t->n * t->p * t->c);
}

static void backward(norm *t) {
  if (t->c == 0) return;
  cut(t);
  t->begin = backward_begin;
  t->sums = backward_sums;
  t->merge = backward_merge;
  t->finish = backward_finish;
  t->apply = backward_apply;
  if (t->p == 0) t->parts = 0;
  else if (!(t->p == 1 ? run_rows(t, backward_row_parts) : run(t))) {
    spoil(t->y, t->n * t->p * t->c);
    if (t->dgamma) spoil(t->dgamma, t->c);
    if (t->dbeta) spoil(t->dbeta, t->c);
    return;
  }
  write_parameter_grads(t);
}

void TD_K(group_norm)(void *y, void *mean, void *rstd, const void *x, const void *gamma,
                      const void *beta, size_t n, size_t p, size_t c, size_t groups, double eps) {
  norm t = {.n = n,
            .p = p,
            .c = c,
            .groups = groups,
            .eps = eps,
            .y = y,
            .mean = mean,
            .rstd = rstd,
            .x = x,
            .gamma = gamma,
            .beta = beta};
  forward(&t);
}

void TD_K(group_norm_grad)(void *dx, void *dgamma, void *dbeta, const void *dy, const void *x,
                           const void *mean, const void *rstd, const void *gamma, size_t n,
                           size_t p, size_t c, size_t groups) {
  norm t = {.n = n,
            .p = p,
            .c = c,
            .groups = groups,
            .y = dx,
            .x = x,
            .dy = dy,
            .gamma = gamma,
            .dgamma = dgamma,
            .dbeta = dbeta};
  t.mean = (real *)mean, t.rstd = (real *)rstd; /* only read */
  backward(&t);
}

void TD_K(channel_norm)(void *y, void *mean, void *rstd, void *var, const void *x,
                        const void *gamma, const void *beta, size_t rows, size_t c, double eps) {
  norm t = {.n = 1,
            .p = rows,
            .c = c,
            .groups = c,
            .eps = eps,
            .y = y,
            .mean = mean,
            .rstd = rstd,
            .var = var,
            .x = x,
            .gamma = gamma,
            .beta = beta};
  forward(&t);
}

void TD_K(channel_norm_grad)(void *dx, void *dgamma, void *dbeta, const void *dy, const void *x,
                             const void *mean, const void *rstd, const void *gamma, size_t rows,
                             size_t c) {
  norm t = {.n = 1,
            .p = rows,
            .c = c,
            .groups = c,
            .y = dx,
            .x = x,
            .dy = dy,
            .gamma = gamma,
            .dgamma = dgamma,
            .dbeta = dbeta};
  t.mean = (real *)mean, t.rstd = (real *)rstd; /* only read */
  backward(&t);
}
