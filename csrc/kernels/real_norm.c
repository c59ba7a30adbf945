/* Normalisation over groups of channels and over channels, with an activation and a sum behind it,
 * and the gradients.
 *
 * An image is p pixels × c channels, read as rows of channels. A chunk is a few rows: sums over its
 * columns are kept in the element type and merged in double, in order, into those of the image
 * (Chan, Golub, LeVeque 1979). Deviations are taken from the chunk's first row, so a large mean
 * costs no accuracy: squares about one of N numbers add up to at most N times those about the mean.
 * Then one more pass over the image, by now in the second-level cache and begun at the end that was
 * read last, writes the result. Threads share out the images, or the chunks when there are few
 * images; the numbers are the same. channel_norm is group_norm of a single image with a group for
 * every channel. p = 1 is a norm of short contiguous rows (real_norm_rows.c).
 *
 * With few channels, `fold` pixels are taken together as one wider row, so that a vector is filled.
 * Channel j of such a row is channel j mod c of the image: only the functions that make
 * coefficients know. */
#include "kernels/isa.h"
#include "kernels/real_norm.h"

enum {
  CHUNK_ROWS = 64,  /* rows whose sums are kept in the element type */
  COLUMNS = 256,    /* most columns taken at once inside a chunk */
  STEP = 4,         /* rows summed for one pass over the sums */
  AHEAD = 16,       /* rows between what is summed and what is asked for */
  STRIDE = 4,       /* rows written for one pass over the coefficients */
  STREAM = 8 << 20, /* bytes of a result that is not worth keeping in the cache */
  MAX_PARTS = 64,   /* pieces that the images are shared out in: fixed, for sums over images */
  PART_PIXELS = 64, /* least number of pixels of a part */
  COEFS = 5
};
/* The rows of coefficients: u = (x - shift)·scale + bias, and in the gradient
 * dx = scale·g + k2·(x - shift) + k3. */
enum { SHIFT, SCALE, BIAS, K2, K3 };

static inline size_t rows_of(const td_norm *t, size_t k) {
  return td_min_size(t->rows - k * CHUNK_ROWS, CHUNK_ROWS);
}
static inline size_t offset_of(const td_norm *t, size_t image, size_t k) {
  return (image * t->rows + k * CHUNK_ROWS) * t->w;
}

/* Copies the coefficients of c channels to the other pixels of a wide row. */
static void spread(const td_norm *t, real *coef, size_t first, size_t last) {
  for (size_t i = first; i <= last; i++)
    for (size_t f = 1; f < t->fold; f++)
      memcpy(coef + i * t->w + f * t->c, coef + i * t->w, t->c * sizeof *coef);
}

/* ---- Forward ------------------------------------------------------------------------------- */

/* s[j] += Σ (x[i][j] - m[j]) and q[j] += Σ (x[i][j] - m[j])² over R rows, for a vector. */
TD_INLINE void moment_vector(const int R, size_t part, real *s, real *q, const real *x,
                             const real *m, size_t pitch) {
  vreal shift = td_load(m), a = td_load(s), b = td_load(q);
#pragma GCC unroll 8
  for (int i = 0; i < R; i++) {
    vreal d = td_get(x + (size_t)i * pitch, part) - shift;
    a += d;
    b += d * d;
  }
  td_store(s, a);
  td_store(q, b);
}

/* Asks for R rows of w elements that will be wanted soon: rows read side by side are more than the
 * processor's own prefetching follows. */
TD_INLINE void ask(const int R, const real *p, size_t pitch, size_t w) {
  for (int i = 0; i < R; i++)
    for (size_t j = 0; j < w; j += 64 / sizeof(real)) __builtin_prefetch(p + (size_t)i * pitch + j);
}

TD_INLINE void moment_rows(const int R, real *s, real *q, const real *x, const real *m,
                           size_t pitch, size_t w) {
  size_t j = 0;
  if (R > 1) ask(R, x + AHEAD * pitch, pitch, w);
  for (; j + TD_LANES <= w; j += TD_LANES)
    moment_vector(R, 0, s + j, q + j, x + j, m + j, pitch);
  if (j < w) moment_vector(R, w - j, s + j, q + j, x + j, m + j, pitch);
}

/* Mean and sum of squared deviations of each column of a chunk: out[0..w) and out[w..2w). */
static void forward_sums(const td_norm *t, size_t image, size_t k, double *out) {
  const real *x = t->x + offset_of(t, image, k);
  size_t rows = rows_of(t, k);
  real m[COLUMNS], s[COLUMNS], q[COLUMNS];
  for (size_t j0 = 0; j0 < t->w; j0 += COLUMNS, x += COLUMNS) {
    size_t w = td_min_size(t->w - j0, COLUMNS), i = 0;
    double *mean = out + j0, *m2 = mean + t->w, share = 1 / (double)rows;
    memset(s, 0, sizeof s);
    memset(q, 0, sizeof q);
    memcpy(m, x, w * sizeof *m);
    for (size_t j = w; j % TD_LANES; j++) m[j] = 0;
    for (; i + STEP <= rows; i += STEP) moment_rows(STEP, s, q, x + i * t->w, m, t->w, w);
    for (; i < rows; i++) moment_rows(1, s, q, x + i * t->w, m, t->w, w);
    for (size_t j = 0; j < w; j++) {
      double sum = (double)s[j], off = sum * share;
      mean[j] = (double)m[j] + off;
      m2[j] = (double)q[j] - sum * off;
    }
  }
}

/* Merges the moments of chunk k into those of the chunks before it. */
static void forward_merge(const td_norm *t, size_t k, const double *chunk, double *total) {
  size_t w = t->w;
  if (k == 0) {
    memcpy(total, chunk, 2 * w * sizeof *total);
    return;
  }
  double na = (double)(k * CHUNK_ROWS), nb = (double)rows_of(t, k), share = nb / (na + nb);
  double *restrict mean = total, *restrict m2 = total + w;
  const double *restrict mean_b = chunk, *restrict m2_b = chunk + w;
  for (size_t j = 0; j < w; j++) {
    double d = mean_b[j] - mean[j];
    mean[j] += d * share;
    m2[j] += m2_b[j] + d * d * na * share;
  }
}

/* Joins the moments of the pixels of a wide row into those of c channels. */
static void join_pixels(const td_norm *t, double *mean, double *m2) {
  for (size_t j = 0; j < t->c; j++) {
    double near = mean[j], sum = 0, squares = m2[j];
    for (size_t f = 1; f < t->fold; f++) {
      double d = mean[f * t->c + j] - near;
      sum += d;
      squares += m2[f * t->c + j] + (double)t->rows * d * d;
    }
    double off = sum / (double)t->fold;
    mean[j] = near + off;
    m2[j] = squares - (double)t->p * off * off;
  }
}

/* Moments of the groups, and the coefficients. */
static void forward_finish(const td_norm *t, size_t image, double *total, real *coef) {
  size_t w = t->w, cg = t->c / t->groups;
  double *mean = total, *m2 = total + w, count = (double)cg, pixels = (double)t->p;
  real *shift = coef + SHIFT * w, *scale = coef + SCALE * w, *bias = coef + BIAS * w;
  if (t->fold > 1) join_pixels(t, mean, m2);
  for (size_t g = 0; g < t->groups; g++) {
    size_t first = g * cg, last = first + cg;
    double near = mean[first], sum = 0, spread_of_means = 0, squares = m2[first];
    for (size_t j = first + 1; j < last; j++) {
      double d = mean[j] - near;
      sum += d;
      spread_of_means += d * d;
      squares += m2[j];
    }
    double off = sum / count, m = near + off;
    double var = (squares + pixels * (spread_of_means - sum * off)) / (count * pixels);
    if (var < 0) var = 0;
    real rounded = (real)m, rest = (real)(m - (double)rounded), r = (real)(1 / sqrt(var + t->eps));
    t->mean[image * t->groups + g] = rounded;
    t->rstd[image * t->groups + g] = r;
    if (t->var) t->var[image * t->groups + g] = (real)var;
    for (size_t j = first; j < last; j++) {
      shift[j] = rounded;
      scale[j] = t->gamma ? r * t->gamma[j] : r;
      bias[j] = (t->beta ? t->beta[j] : 0) - rest * scale[j];
    }
  }
  spread(t, coef, SHIFT, BIAS);
}

/* y = act((x - shift)·scale + bias) + add for R rows of a vector. */
TD_INLINE void apply_vector(const td_act act, const bool adds, bool streams, const int R,
                            size_t part, real *y, const real *x, const real *add, const real *coef,
                            size_t w) {
  vreal shift = td_get(coef + SHIFT * w, part), scale = td_get(coef + SCALE * w, part);
  vreal bias = td_get(coef + BIAS * w, part);
#pragma GCC unroll 4
  for (int i = 0; i < R; i++) {
    vreal u = td_vact(act, (td_get(x + (size_t)i * w, part) - shift) * scale + bias);
    if (adds) u += td_get(add + (size_t)i * w, part);
    if (streams) td_stream(y + (size_t)i * w, u);
    else td_put(y + (size_t)i * w, u, part);
  }
}

TD_INLINE void apply_rows(const td_act act, const bool adds, bool streams, const int R, real *y,
                          const real *x, const real *add, const real *coef, size_t w) {
  size_t j = 0;
  for (; j + TD_LANES <= w; j += TD_LANES)
    apply_vector(act, adds, streams, R, 0, y + j, x + j, add + j, coef + j, w);
  if (j < w) apply_vector(act, adds, false, R, w - j, y + j, x + j, add + j, coef + j, w);
}

TD_INLINE void apply_chunk(const td_act act, const bool adds, const td_norm *t, size_t at,
                           size_t rows, const real *coef) {
  const real *x = t->x + at, *add = adds ? t->add + at : x;
  real *y = t->y + at;
  size_t i = 0, w = t->w;
  for (; i + STRIDE <= rows; i += STRIDE, x += STRIDE * w, y += STRIDE * w, add += STRIDE * w)
    apply_rows(act, adds, t->streams, STRIDE, y, x, add, coef, w);
  for (; i < rows; i++, x += w, y += w, add += w)
    apply_rows(act, adds, t->streams, 1, y, x, add, coef, w);
}

typedef void (*chunk_fn)(const td_norm *t, size_t at, size_t rows, const real *coef);
#define APPLY(A)                                                                             \
  static void apply_##A(const td_norm *t, size_t at, size_t rows, const real *coef) {        \
    apply_chunk(TD_ACT_##A, false, t, at, rows, coef);                                       \
  }                                                                                          \
  static void apply_add_##A(const td_norm *t, size_t at, size_t rows, const real *coef) {    \
    apply_chunk(TD_ACT_##A, true, t, at, rows, coef);                                        \
  }
TD_ACT_EACH(APPLY)
#define ENTRY(A) [TD_ACT_##A] = {apply_##A, apply_add_##A},
static const chunk_fn applies[TD_ACT_COUNT][2] = {TD_ACT_EACH(ENTRY)};
#undef ENTRY

static void forward_apply(const td_norm *t, size_t image, size_t k, const real *coef) {
  applies[t->act][t->add != NULL](t, offset_of(t, image, k), rows_of(t, k), coef);
}

/* ---- Gradient ---------------------------------------------------------------------------------
 * With u the normalised value, x̂ = (x - mean)·rstd, g = dy·act'(u), h = g·gamma, and means over the
 * group's m elements:
 *   dx = rstd·(h - mean(h) - x̂·mean(h·x̂)),  dgamma = Σ g·x̂,  dbeta = Σ g. */

static void backward_begin(const td_norm *t, size_t image, real *coef) {
  size_t cg = t->c / t->groups, w = t->w;
  for (size_t g = 0; g < t->groups; g++) {
    real m = t->mean[image * t->groups + g], r = t->rstd[image * t->groups + g];
    for (size_t j = g * cg; j < (g + 1) * cg; j++) {
      coef[SHIFT * w + j] = m;
      coef[SCALE * w + j] = t->gamma ? r * t->gamma[j] : r;
      coef[BIAS * w + j] = t->beta ? t->beta[j] : 0;
    }
  }
  spread(t, coef, SHIFT, BIAS);
}

/* a[j] += Σ g and b[j] += Σ g·(x - shift) over R rows, for a vector; a costly g is left in dx. */
TD_INLINE void product_vector(const td_act act, const int R, size_t part, real *a, real *b,
                              real *dx, const real *dy, const real *x, const real *coef, size_t w) {
  vreal shift = td_get(coef + SHIFT * w, part), scale = td_get(coef + SCALE * w, part);
  vreal bias = td_get(coef + BIAS * w, part), sa = td_load(a), sb = td_load(b);
#pragma GCC unroll 8
  for (int i = 0; i < R; i++) {
    vreal e = td_get(x + (size_t)i * w, part) - shift;
    vreal g = td_vact_grad(act, e * scale + bias, td_get(dy + (size_t)i * w, part));
    if (td_norm_keeps(act)) td_put(dx + (size_t)i * w, g, part);
    sa += g;
    sb += g * e;
  }
  td_store(a, sa);
  td_store(b, sb);
}

TD_INLINE void product_rows(const td_act act, const int R, real *a, real *b, real *dx,
                            const real *dy, const real *x, const real *coef, size_t columns,
                            size_t w) {
  size_t j = 0;
  if (R > 1) ask(R, x + AHEAD * w, w, columns), ask(R, dy + AHEAD * w, w, columns);
  for (; j + TD_LANES <= columns; j += TD_LANES)
    product_vector(act, R, 0, a + j, b + j, dx + j, dy + j, x + j, coef + j, w);
  if (j < columns)
    product_vector(act, R, columns - j, a + j, b + j, dx + j, dy + j, x + j, coef + j, w);
}

TD_INLINE void product_chunk(const td_act act, const td_norm *t, size_t at, size_t rows,
                             const real *coef, double *out) {
  real a[COLUMNS], b[COLUMNS];
  size_t w = t->w;
  for (size_t j0 = 0; j0 < w; j0 += COLUMNS, at += COLUMNS) {
    size_t columns = td_min_size(w - j0, COLUMNS), i = 0;
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    for (; i + STEP <= rows; i += STEP)
      product_rows(act, STEP, a, b, t->y + at + i * w, t->dy + at + i * w, t->x + at + i * w,
                   coef + j0, columns, w);
    for (; i < rows; i++)
      product_rows(act, 1, a, b, t->y + at + i * w, t->dy + at + i * w, t->x + at + i * w,
                   coef + j0, columns, w);
    for (size_t j = 0; j < columns; j++) {
      out[j0 + j] = (double)a[j];
      out[w + j0 + j] = (double)b[j];
    }
  }
}

static void backward_merge(const td_norm *t, size_t k, const double *chunk, double *total) {
  size_t w = 2 * t->w;
  if (k == 0) memcpy(total, chunk, w * sizeof *total);
  else
    for (size_t j = 0; j < w; j++) total[j] += chunk[j];
}

/* Adds the image's share of dgamma and dbeta to its part, and makes the other coefficients. */
static void backward_finish(const td_norm *t, size_t image, double *total, real *coef) {
  size_t w = t->w, c = t->c, cg = c / t->groups;
  double *a = total, *b = total + w, *part = t->part + image / t->per_part * 2 * c;
  double count = (double)(t->p * cg);
  for (size_t f = 1; f < t->fold; f++)
    for (size_t j = 0; j < c; j++) {
      a[j] += a[f * c + j];
      b[j] += b[f * c + j];
    }
  for (size_t g = 0; g < t->groups; g++) {
    double r = (double)t->rstd[image * t->groups + g], sa = 0, sb = 0;
    size_t first = g * cg, last = first + cg;
    for (size_t j = first; j < last; j++) {
      double gamma = t->gamma ? (double)t->gamma[j] : 1;
      sa += a[j] * gamma;
      sb += b[j] * gamma;
      part[j] += b[j] * r;
      part[c + j] += a[j];
    }
    real k2 = (real)(-r * r * r * sb / count), k3 = (real)(-r * sa / count);
    for (size_t j = first; j < last; j++) {
      coef[K2 * w + j] = k2;
      coef[K3 * w + j] = k3;
    }
  }
  spread(t, coef, K2, K3);
}

/* dx = scale·g + k2·(x - shift) + k3 for R rows of a vector. */
TD_INLINE void combine_vector(const td_act act, bool streams, const int R, size_t part, real *dx,
                              const real *dy, const real *x, const real *coef, size_t w) {
  vreal shift = td_get(coef + SHIFT * w, part), scale = td_get(coef + SCALE * w, part);
  vreal bias = td_get(coef + BIAS * w, part);
  vreal k2 = td_get(coef + K2 * w, part), k3 = td_get(coef + K3 * w, part);
#pragma GCC unroll 4
  for (int i = 0; i < R; i++) {
    vreal e = td_get(x + (size_t)i * w, part) - shift, g;
    if (td_norm_keeps(act)) g = td_get(dx + (size_t)i * w, part);
    else g = td_vact_grad(act, e * scale + bias, td_get(dy + (size_t)i * w, part));
    g = scale * g + (k2 * e + k3);
    if (streams) td_stream(dx + (size_t)i * w, g);
    else td_put(dx + (size_t)i * w, g, part);
  }
}

TD_INLINE void combine_rows(const td_act act, bool streams, const int R, real *dx, const real *dy,
                            const real *x, const real *coef, size_t w) {
  size_t j = 0;
  for (; j + TD_LANES <= w; j += TD_LANES)
    combine_vector(act, streams, R, 0, dx + j, dy + j, x + j, coef + j, w);
  if (j < w) combine_vector(act, false, R, w - j, dx + j, dy + j, x + j, coef + j, w);
}

TD_INLINE void combine_chunk(const td_act act, const td_norm *t, size_t at, size_t rows,
                             const real *coef) {
  const real *x = t->x + at, *dy = t->dy + at;
  real *dx = t->y + at;
  size_t i = 0, w = t->w;
  bool streams = t->streams && !td_norm_keeps(act); /* else dx is in the cache already */
  for (; i + STRIDE <= rows; i += STRIDE, x += STRIDE * w, dy += STRIDE * w, dx += STRIDE * w)
    combine_rows(act, streams, STRIDE, dx, dy, x, coef, w);
  for (; i < rows; i++, x += w, dy += w, dx += w)
    combine_rows(act, streams, 1, dx, dy, x, coef, w);
}

typedef void (*product_fn)(const td_norm *t, size_t at, size_t rows, const real *coef, double *out);
#define GRADIENT(A)                                                                            \
  static void product_##A(const td_norm *t, size_t at, size_t rows, const real *coef,          \
                          double *out) {                                                       \
    product_chunk(TD_ACT_##A, t, at, rows, coef, out);                                         \
  }                                                                                            \
  static void combine_##A(const td_norm *t, size_t at, size_t rows, const real *coef) {        \
    combine_chunk(TD_ACT_##A, t, at, rows, coef);                                              \
  }
TD_ACT_EACH(GRADIENT)
#define ENTRY(A) [TD_ACT_##A] = product_##A,
static const product_fn products[TD_ACT_COUNT] = {TD_ACT_EACH(ENTRY)};
#undef ENTRY
#define ENTRY(A) [TD_ACT_##A] = combine_##A,
static const chunk_fn combines[TD_ACT_COUNT] = {TD_ACT_EACH(ENTRY)};
#undef ENTRY

/* ---- The steps for one image --------------------------------------------------------------- */

static void begin_image(const td_norm *t, size_t image, real *coef) {
  if (t->gradient) backward_begin(t, image, coef);
}
/* Fills 2·w numbers from a chunk. */
static void sum_chunk(const td_norm *t, size_t image, size_t k, const real *coef, double *out) {
  if (t->gradient) products[t->act](t, offset_of(t, image, k), rows_of(t, k), coef, out);
  else forward_sums(t, image, k, out);
}
/* Adds them to the image's 2·w. */
static void merge_chunk(const td_norm *t, size_t k, const double *chunk, double *total) {
  (t->gradient ? backward_merge : forward_merge)(t, k, chunk, total);
}
/* Makes coefficients of them. */
static void finish_image(const td_norm *t, size_t image, double *total, real *coef) {
  (t->gradient ? backward_finish : forward_finish)(t, image, total, coef);
}
static void write_chunk(const td_norm *t, size_t image, size_t k, const real *coef) {
  if (t->gradient) combines[t->act](t, offset_of(t, image, k), rows_of(t, k), coef);
  else forward_apply(t, image, k, coef);
}

/* ---- How the work is shared out ------------------------------------------------------------ */

static void whole_images(void *ctx, size_t begin, size_t end) {
  const td_norm *t = ctx;
  for (size_t part = begin; part < end; part++) {
    double *total = t->total + part * 2 * t->w, *chunk = t->chunk + part * 2 * t->w;
    real *coef = t->coef + part * COEFS * t->w;
    size_t last = td_min_size((part + 1) * t->per_part, t->n);
    for (size_t image = part * t->per_part; image < last; image++) {
      begin_image(t, image, coef);
      for (size_t k = 0; k < t->chunks; k++) {
        sum_chunk(t, image, k, coef, chunk);
        merge_chunk(t, k, chunk, total);
      }
      finish_image(t, image, total, coef);
      for (size_t k = t->chunks; k-- > 0;) write_chunk(t, image, k, coef);
    }
  }
  if (t->streams) td_streamed();
}

static void chunk_sums(void *ctx, size_t begin, size_t end) {
  const td_norm *t = ctx;
  for (size_t i = begin; i < end; i++) {
    size_t image = i / t->chunks;
    sum_chunk(t, image, i % t->chunks, t->coef + image * COEFS * t->w, t->chunk + i * 2 * t->w);
  }
}

static void chunk_results(void *ctx, size_t begin, size_t end) {
  const td_norm *t = ctx;
  for (size_t i = end; i-- > begin;) {
    size_t image = i / t->chunks;
    write_chunk(t, image, i % t->chunks, t->coef + image * COEFS * t->w);
  }
  if (t->streams) td_streamed();
}

static void split_images(td_norm *t) {
  size_t grain = td_grain(CHUNK_ROWS * t->w);
  for (size_t image = 0; image < t->n; image++) begin_image(t, image, t->coef + image * COEFS * t->w);
  td_parallel(t->n * t->chunks, grain, chunk_sums, t);
  for (size_t image = 0; image < t->n; image++) {
    double *total = t->total + image * 2 * t->w;
    for (size_t k = 0; k < t->chunks; k++)
      merge_chunk(t, k, t->chunk + (image * t->chunks + k) * 2 * t->w, total);
    finish_image(t, image, total, t->coef + image * COEFS * t->w);
  }
  td_parallel(t->n * t->chunks, grain, chunk_results, t);
}

/* Adds up the parts, in order, into the first of them. */
static void write_parameter_grads(const td_norm *t) {
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
static void share_out(td_norm *t) {
  size_t most = td_ceil_div(t->n, MAX_PARTS);
  size_t least = t->p < PART_PIXELS ? td_ceil_div(PART_PIXELS, t->p + 1) : 1;
  t->per_part = most > least ? most : least;
  t->parts = td_ceil_div(t->n, t->per_part);
}

/* The shape of rows and chunks; these depend on the shape of x alone. */
static void cut(td_norm *t) {
  t->fold = 1;
  while (t->c * t->fold < TD_NARROW && t->p % (2 * t->fold) == 0 && t->p > 2 * t->fold)
    t->fold *= 2;
  t->rows = t->p / t->fold;
  t->w = t->c * t->fold;
  t->chunks = t->p ? td_ceil_div(t->rows, CHUNK_ROWS) : 0;
  t->streams = t->n * t->p * t->c * sizeof(real) >= STREAM && t->w % TD_LANES == 0 &&
               (uintptr_t)t->y % TD_VBYTES == 0;
  share_out(t);
  t->split = t->n < (size_t)td_threads();
}

/* Carves the work space; false when memory is refused. */
static bool make_room(td_norm *t) {
  size_t slots = t->split ? t->n : t->parts, chunks = t->split ? t->n * t->chunks : slots;
  size_t doubles = (t->parts * t->c + (slots + chunks) * t->w) * 2;
  double *room = td_scratch(doubles * sizeof(double) + slots * COEFS * t->w * sizeof(real));
  if (!room) return false;
  t->part = room;
  t->total = t->part + t->parts * 2 * t->c;
  t->chunk = t->total + slots * 2 * t->w;
  t->coef = (real *)(t->chunk + chunks * 2 * t->w);
  memset(t->part, 0, t->parts * 2 * t->c * sizeof *t->part);
  return true;
}

/* Runs the steps over all images; false when memory is refused. */
static bool run(td_norm *t) {
  if (t->p == 1) return TD_K(norm_rows)(t);
  if (!make_room(t)) return false;
  if (t->split) split_images(t);
  else td_parallel(t->parts, td_grain(t->per_part * t->p * t->c), whole_images, t);
  return true;
}

/* ---- The kernels --------------------------------------------------------------------------- */

/* When memory for a few rows is refused, the result says so: it is NaN. */
static void spoil(real *y, size_t n) {
  for (size_t i = 0; y && i < n; i++) y[i] = (real)NAN;
}

static void forward(td_norm *t) {
  if (t->n == 0 || t->c == 0) return;
  cut(t);
  if (t->p == 0) spoil(t->mean, t->n * t->groups), spoil(t->rstd, t->n * t->groups);
  else if (!run(t)) spoil(t->y, t->n * t->p * t->c);
}

static void backward(td_norm *t) {
  if (t->c == 0) return;
  cut(t);
  if (t->p == 0) t->parts = 0;
  else if (!run(t)) {
    spoil(t->y, t->n * t->p * t->c);
    spoil(t->dgamma, t->c);
    spoil(t->dbeta, t->c);
    return;
  }
  write_parameter_grads(t);
}

void TD_K(group_norm)(void *y, void *mean, void *rstd, const void *x, const void *gamma,
                      const void *beta, const void *add, size_t n, size_t p, size_t c,
                      size_t groups, double eps, td_act act) {
  forward(&(td_norm){.n = n, .p = p, .c = c, .groups = groups, .eps = eps, .act = act, .y = y,
                     .mean = mean, .rstd = rstd, .x = x, .gamma = gamma, .beta = beta,
                     .add = add});
}

void TD_K(group_norm_grad)(void *dx, void *dgamma, void *dbeta, const void *dy, const void *x,
                           const void *mean, const void *rstd, const void *gamma, const void *beta,
                           size_t n, size_t p, size_t c, size_t groups, td_act act) {
  backward(&(td_norm){.n = n, .p = p, .c = c, .groups = groups, .act = act, .gradient = true,
                      .y = dx, .x = x, .dy = dy, .gamma = gamma, .beta = beta, .dgamma = dgamma,
                      .dbeta = dbeta,
                      .mean = (real *)mean, .rstd = (real *)rstd /* only read */});
}

void TD_K(channel_norm)(void *y, void *mean, void *rstd, void *var, const void *x,
                        const void *gamma, const void *beta, const void *add, size_t rows,
                        size_t c, double eps, td_act act) {
  forward(&(td_norm){.n = 1, .p = rows, .c = c, .groups = c, .eps = eps, .act = act, .y = y,
                     .mean = mean, .rstd = rstd, .var = var, .x = x, .gamma = gamma, .beta = beta,
                     .add = add});
}

void TD_K(channel_norm_grad)(void *dx, void *dgamma, void *dbeta, const void *dy, const void *x,
                             const void *mean, const void *rstd, const void *gamma,
                             const void *beta, size_t rows, size_t c, td_act act) {
  backward(&(td_norm){.n = 1, .p = rows, .c = c, .groups = c, .act = act, .gradient = true,
                      .y = dx, .x = x, .dy = dy, .gamma = gamma, .beta = beta, .dgamma = dgamma,
                      .dbeta = dbeta,
                      .mean = (real *)mean, .rstd = (real *)rstd /* only read */});
}
