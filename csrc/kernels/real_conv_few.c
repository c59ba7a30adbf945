/* Convolution towards few channels: a last layer, or the input gradient of a first one. Vectors run
 * along the many channels that are summed, so that no lane is idle, and are folded at the end. A
 * register tile is a few neighbouring pixels by all the results of a pixel.
 *
 * As in real_conv_direct.c both directions are one correlation: result q·out_step + a reads pixel
 * q·in_step + delta for every tap of phase a. Pixels outside the image are read from a line of
 * zeros, so an element's sum has one order, wherever its tile begins. */
#include "kernels/isa.h"
#include "kernels/real_conv.h"
#include "kernels/vmath.h"

enum {
  SUMS = TD_KISA == 2 ? 24 : 12,  /* sums in registers */
  MOST_PIXELS = 12,               /* of a tile; more would often go beyond a row's end */
  MIN_TASK = 1 << 16      /* multiplications below which a thread is not worth waking */
};

typedef struct {
  const td_conv *g;
  const td_epilogue *e;   /* NULL in the input gradient */
  bool transposed;
  size_t in[2], in_c, out[2], out_c;
  size_t in_step[2], out_step[2];
  size_t depth;           /* in_c in whole vectors */
  size_t pixels;          /* of a tile */
  real *zeros, *w;        /* depth zeros; weights tap×out_c×depth */
  const real *x;
  real *y;
} plan;

/* A tap as a tile sees it. */
typedef struct {
  const real *pixel[MOST_PIXELS];
  const real *w;          /* out_c rows of depth */
} tap;

/* ---- Tiles ----------------------------------------------------------------------------------- */

/* The sum of a vector's elements, by halves. */
static inline real fold(vreal v) {
  typedef real quarter __attribute__((vector_size(16)));
  quarter part[TD_VBYTES / 16];
  memcpy(part, &v, sizeof v);
#pragma GCC unroll 4
  for (int half = TD_VBYTES / 32; half; half /= 2) {
#pragma GCC unroll 4
    for (int i = 0; i < half; i++) part[i] += part[i + half];
  }
#if TD_KREAL == 0
  return (part[0][0] + part[0][2]) + (part[0][1] + part[0][3]);
#else
  return part[0][0] + part[0][1];
#endif
}

/* to[p·R + r] = the sums over taps and channels of pixel p, result r. */
#define TILE(R, P)                                                                                \
  static void tile_##R(const tap *t, size_t taps, size_t c, size_t depth, real *to) {             \
    vreal sum[R][P];                                                                              \
    _Pragma("GCC unroll 4") for (int r = 0; r < R; r++) {                                         \
      _Pragma("GCC unroll 24") for (int p = 0; p < P; p++) sum[r][p] = (vreal){0};                \
    }                                                                                             \
    size_t full = c / TD_LANES * TD_LANES;                                                        \
    for (; taps; taps--, t++) {                                                                   \
      for (size_t i = 0; i < full; i += TD_LANES) {                                               \
        vreal w[R];                                                                               \
        _Pragma("GCC unroll 4") for (int r = 0; r < R; r++)                                       \
          w[r] = td_load(t->w + (size_t)r * depth + i);                                           \
        _Pragma("GCC unroll 24") for (int p = 0; p < P; p++) {                                    \
          vreal x = td_load(t->pixel[p] + i);                                                     \
          _Pragma("GCC unroll 4") for (int r = 0; r < R; r++) sum[r][p] += x * w[r];              \
        }                                                                                         \
      }                                                                                           \
      if (full == c) continue;                                                                    \
      _Pragma("GCC unroll 24") for (int p = 0; p < P; p++) {                                      \
        vreal x = td_load_part(t->pixel[p] + full, c - full);                                     \
        _Pragma("GCC unroll 4") for (int r = 0; r < R; r++)                                       \
          sum[r][p] += x * td_load(t->w + (size_t)r * depth + full);                              \
      }                                                                                           \
    }                                                                                             \
    _Pragma("GCC unroll 24") for (int p = 0; p < P; p++) {                                        \
      _Pragma("GCC unroll 4") for (int r = 0; r < R; r++) to[p * R + r] = fold(sum[r][p]);        \
    }                                                                                             \
  }
TILE(1, MOST_PIXELS)
TILE(2, SUMS / 2)
TILE(3, SUMS / 3)
TILE(4, SUMS / 4)
#undef TILE
static void (*const tile_table[CONV_FEW])(const tap *, size_t, size_t, size_t, real *) = {
  tile_1, tile_2, tile_3, tile_4};

/* ---- Rows ------------------------------------------------------------------------------------ */

/* Whether phase a of the axis has tap j, and at which delta. */
static bool tap_delta(const plan *p, int axis, size_t a, size_t j, ptrdiff_t *delta) {
  const td_conv *g = p->g;
  ptrdiff_t shift = (ptrdiff_t)(j * g->dilation[axis]) - (ptrdiff_t)g->pad[axis];
  ptrdiff_t from = p->transposed ? (ptrdiff_t)a - shift : shift, step = (ptrdiff_t)p->out_step[axis];
  *delta = from / step;
  return from % step == 0;
}

/* The taps of a tile of results q0, q0 + 1 … of phase b in row y of image n; gives their number.
 * `list` has room for all. */
static size_t list_taps(const plan *p, size_t n, size_t y, size_t b, size_t q0, tap *list) {
  const td_conv *g = p->g;
  size_t count = 0;
  ptrdiff_t row, col;
  for (size_t i = 0; i < g->kh; i++) {
    if (!tap_delta(p, 0, y % p->out_step[0], i, &row)) continue;
    size_t h = y / p->out_step[0] * p->in_step[0] + (size_t)row;
    if (h >= p->in[0]) continue;  /* coordinates below 0 wrap round to large ones */
    const real *line = p->x + (n * p->in[0] + h) * p->in[1] * p->in_c;
    for (size_t j = 0; j < g->kw; j++) {
      if (!tap_delta(p, 1, b, j, &col)) continue;
      tap *t = &list[count++];
      t->w = p->w + (i * g->kw + j) * p->out_c * p->depth;
      size_t w = q0 * p->in_step[1] + (size_t)col, step = p->in_step[1];
      bool inside = w < p->in[1] && w + (p->pixels - 1) * step < p->in[1];
      for (size_t k = 0; k < p->pixels; k++, w += step)
        t->pixel[k] = inside || w < p->in[1] ? line + w * p->in_c : p->zeros;
    }
  }
  return count;
}

/* Writes the first `count` pixels of a tile, with bias and chan, to results q0 … of phase b. */
static void put_tile(const plan *p, const real *sums, size_t n, real *row, size_t b, size_t q0,
                     size_t count) {
  const real *bias = p->e ? p->e->bias : NULL, *chan = p->e ? p->e->chan : NULL;
  for (size_t k = 0; k < count; k++)
    for (size_t o = 0; o < p->out_c; o++)
      row[((q0 + k) * p->out_step[1] + b) * p->out_c + o] =
          sums[k * p->out_c + o] + (bias ? bias[o] : 0) + (chan ? chan[n * p->out_c + o] : 0);
}

/* Rows of results, counted over all images. */
static void run_rows(void *ctx, size_t begin, size_t end) {
  const plan *p = ctx;
  tap list[CONV_FEW_TAPS];
  real sums[SUMS];
  for (size_t r = begin; r < end; r++) {
    size_t n = r / p->out[0], size = p->out[1] * p->out_c;
    real *row = p->y + r * size;
    for (size_t b = 0; b < conv_min(p->out_step[1], p->out[1]); b++) {
      size_t count = conv_ceil_div(p->out[1] - b, p->out_step[1]);
      for (size_t q = 0; q < count; q += p->pixels) {
        size_t taps = list_taps(p, n, r % p->out[0], b, q, list);
        tile_table[p->out_c - 1](list, taps, p->in_c, p->depth, sums);
        put_tile(p, sums, n, row, b, q, conv_min(p->pixels, count - q));
      }
    }
    if (!p->e) continue;
    const real *add = p->e->add;
    TD_K(conv_finish)(row, add ? add + r * size : NULL, 1, size, 0, p->e->act);
  }
}

/* ---- The call -------------------------------------------------------------------------------- */

/* w[tap][result][channel], zeros filling the last vector. */
static void pack_weights(const plan *p, const real *w) {
  size_t taps = p->g->kh * p->g->kw;
  memset(p->w, 0, taps * p->out_c * p->depth * sizeof(real));
  for (size_t t = 0; t < taps; t++)
    for (size_t o = 0; o < p->out_c; o++)
      for (size_t c = 0; c < p->in_c; c++)
        p->w[(t * p->out_c + o) * p->depth + c] =
            p->transposed ? w[(t * p->out_c + o) * p->in_c + c] : w[(t * p->in_c + c) * p->out_c + o];
}

static bool correlate(plan *p, const td_conv *g, const real *w) {
  size_t x_size[2] = {g->h, g->w}, y_size[2] = {g->oh, g->ow};
  p->g = g;
  p->in_c = p->transposed ? g->o : g->c;
  p->out_c = p->transposed ? g->c : g->o;
  for (int i = 0; i < 2; i++) {
    p->in[i] = p->transposed ? y_size[i] : x_size[i];
    p->out[i] = p->transposed ? x_size[i] : y_size[i];
    p->in_step[i] = p->transposed ? 1 : g->stride[i];
    p->out_step[i] = p->transposed ? g->stride[i] : 1;
  }
  p->depth = conv_round_up(p->in_c, TD_LANES);
  p->pixels = conv_min(MOST_PIXELS, SUMS / p->out_c);
  p->zeros = td_scratch((p->depth + g->kh * g->kw * p->out_c * p->depth) * sizeof(real));
  if (!p->zeros) return false;
  p->w = p->zeros + p->depth;
  memset(p->zeros, 0, p->depth * sizeof(real));
  pack_weights(p, w);
  size_t work = p->out[1] * p->out_c * g->kh * g->kw * p->in_c;
  td_parallel(g->n * p->out[0], 1 + MIN_TASK / (work + 1), run_rows, p);
  return true;
}

bool TD_K(conv_few)(real *y, const real *x, const real *w, const td_epilogue *e, const td_conv *g) {
  plan p = {.x = x, .y = y, .e = e};
  return correlate(&p, g, w);
}

bool TD_K(conv_few_input_grad)(real *dx, const real *dy, const real *w, const td_conv *g) {
  plan p = {.x = dy, .y = dx, .transposed = true};
  return correlate(&p, g, w);
}
