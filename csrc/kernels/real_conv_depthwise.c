/* Depthwise convolution (one input and one output channel in a group): pixels are rows of c
 * channels, weights kh×kw×c, and everything is products of rows, element by element, so the vectors
 * run along the channels. */
#include "kernels/isa.h"
#include "kernels/real_conv.h"

enum { MIN_TASK = 1 << 15, MAX_PARTS = 32, MIN_PART = 1 << 18 };

/* The arrays of a call; a NULL array is not part of it. */
typedef struct {
  const td_conv *g;
  real *out;
  const real *x, *w, *dy;
  const td_epilogue *e;
  size_t parts;
  real *sums;
} job;

/* A list of pairs of rows whose products are summed; longer lists are done in several goes. */
enum { MAX_PAIRS = 32 };
typedef struct {
  size_t n;
  const real *a[MAX_PAIRS], *b[MAX_PAIRS];
} pairs;

/* to[c] = start[c] + Σ a[i][c]·b[i][c]; start may be NULL (0) or `to` itself. Four vectors of sums
 * at a time stay in registers. */
static void sum_products(real *to, const real *start, const pairs *p, size_t n) {
  size_t c = 0;
  for (; c + 4 * TD_LANES <= n; c += 4 * TD_LANES) {
    vreal sum[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) sum[v] = start ? td_load(start + c + v * TD_LANES) : (vreal){0};
    for (size_t i = 0; i < p->n; i++) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; v++)
        sum[v] += td_load(p->a[i] + c + v * TD_LANES) * td_load(p->b[i] + c + v * TD_LANES);
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) td_store(to + c + v * TD_LANES, sum[v]);
  }
  for (; c + TD_LANES <= n; c += TD_LANES) {
    vreal sum = start ? td_load(start + c) : (vreal){0};
    for (size_t i = 0; i < p->n; i++) sum += td_load(p->a[i] + c) * td_load(p->b[i] + c);
    td_store(to + c, sum);
  }
  for (; c < n; c++) {
    real sum = start ? start[c] : 0;
    for (size_t i = 0; i < p->n; i++) sum += p->a[i][c] * p->b[i][c];
    to[c] = sum;
  }
}

/* Appends a pair; when the list is full, its sums go to `to` first, and *start says where to go on
 * from. */
static void add_pair(pairs *p, const real *a, const real *b, real *to, const real **start,
                     size_t n) {
  if (p->n == MAX_PAIRS) {
    sum_products(to, *start, p, n);
    *start = to;
    p->n = 0;
  }
  p->a[p->n] = a;
  p->b[p->n++] = b;
}

/* The input coordinate that output `out` sees through a tap; at least the image's size when
 * outside. */
static size_t seen(const td_conv *g, int axis, size_t out, size_t tap) {
  return out * g->stride[axis] + tap * g->dilation[axis] - g->pad[axis];
}

/* The output coordinate that sees input `in` through a tap; at least `size` when there is none. */
static size_t seer(const td_conv *g, int axis, size_t in, size_t tap, size_t size) {
  size_t at = in + g->pad[axis], shift = tap * g->dilation[axis];
  if (at < shift) return size;
  if (g->stride[axis] == 1) return at - shift;
  if ((at - shift) % g->stride[axis]) return size;
  return (at - shift) / g->stride[axis];
}

/* The rest of the epilogue of output row r, counted over all images. */
static void finish_row(const job *p, size_t r) {
  const td_conv *g = p->g;
  real *y = p->out + r * g->ow * g->c;
  const real *add = p->e->add, *chan = p->e->chan;
  if (chan)
    for (size_t ow = 0; ow < g->ow; ow++)
      TD_K(conv_finish)(y + ow * g->c, chan + r / g->oh * g->c, 1, g->c, 0, TD_ACT_NONE);
  TD_K(conv_finish)(y, add ? add + r * g->ow * g->c : NULL, 1, g->ow * g->c, 0, p->e->act);
}

/* Output rows, counted over all images. */
static void forward_rows(void *ctx, size_t begin, size_t end) {
  const job *p = ctx;
  const td_conv *g = p->g;
  for (size_t r = begin; r < end; r++) {
    const real *image = p->x + r / g->oh * g->h * g->w * g->c;
    size_t oh = r % g->oh;
    for (size_t ow = 0; ow < g->ow; ow++) {
      real *y = p->out + (r * g->ow + ow) * g->c;
      const real *start = p->e->bias;
      pairs list;
      list.n = 0;
      for (size_t i = 0; i < g->kh; i++) {
        size_t h = seen(g, 0, oh, i);
        if (h >= g->h) continue;
        for (size_t j = 0; j < g->kw; j++) {
          size_t v = seen(g, 1, ow, j);
          if (v >= g->w) continue;
          const real *x = image + (h * g->w + v) * g->c;
          add_pair(&list, x, p->w + (i * g->kw + j) * g->c, y, &start, g->c);
        }
      }
      sum_products(y, start, &list, g->c);
    }
    finish_row(p, r);
  }
}

/* Input rows, counted over all images. */
static void input_rows(void *ctx, size_t begin, size_t end) {
  const job *p = ctx;
  const td_conv *g = p->g;
  for (size_t r = begin; r < end; r++) {
    const real *image = p->dy + r / g->h * g->oh * g->ow * g->c;
    size_t h = r % g->h;
    for (size_t v = 0; v < g->w; v++) {
      real *dx = p->out + (r * g->w + v) * g->c;
      const real *start = NULL;
      pairs list;
      list.n = 0;
      for (size_t i = 0; i < g->kh; i++) {
        size_t oh = seer(g, 0, h, i, g->oh);
        if (oh >= g->oh) continue;
        for (size_t j = 0; j < g->kw; j++) {
          size_t ow = seer(g, 1, v, j, g->ow);
          if (ow >= g->ow) continue;
          const real *dy = image + (oh * g->ow + ow) * g->c;
          add_pair(&list, dy, p->w + (i * g->kw + j) * g->c, dx, &start, g->c);
        }
      }
      sum_products(dx, start, &list, g->c);
    }
  }
}

/* Parts of the output rows of all images, each into its own sums. */
static void weight_parts(void *ctx, size_t begin, size_t end) {
  const job *p = ctx;
  const td_conv *g = p->g;
  size_t rows = g->n * g->oh, size = g->kh * g->kw * g->c;
  for (size_t part = begin; part < end; part++) {
    real *sums = p->sums + part * size;
    memset(sums, 0, size * sizeof(real));
    for (size_t r = rows * part / p->parts; r < rows * (part + 1) / p->parts; r++)
      for (size_t i = 0; i < g->kh; i++) {
        size_t h = seen(g, 0, r % g->oh, i);
        if (h >= g->h) continue;
        for (size_t j = 0; j < g->kw; j++) {
          real *to = sums + (i * g->kw + j) * g->c;
          const real *start = to;
          pairs list;
          list.n = 0;
          for (size_t ow = 0; ow < g->ow; ow++) {
            size_t v = seen(g, 1, ow, j);
            if (v >= g->w) continue;
            const real *x = p->x + ((r / g->oh * g->h + h) * g->w + v) * g->c;
            add_pair(&list, x, p->dy + (r * g->ow + ow) * g->c, to, &start, g->c);
          }
          sum_products(to, start, &list, g->c);
        }
      }
  }
}

static size_t grain(const td_conv *g, size_t width) {
  return 1 + MIN_TASK / (width * g->c * g->kh * g->kw);
}

bool TD_K(conv_depthwise)(real *y, const real *x, const real *w, const td_epilogue *e,
                          const td_conv *g) {
  job p = {.g = g, .out = y, .x = x, .w = w, .e = e};
  td_parallel(g->n * g->oh, grain(g, g->ow), forward_rows, &p);
  return true;
}

bool TD_K(conv_depthwise_input_grad)(real *dx, const real *dy, const real *w, const td_conv *g) {
  job p = {.g = g, .out = dx, .dy = dy, .w = w};
  td_parallel(g->n * g->h, grain(g, g->w), input_rows, &p);
  return true;
}

bool TD_K(conv_depthwise_weight_grad)(real *dw, const real *x, const real *dy, const td_conv *g) {
  size_t rows = g->n * g->oh, size = g->kh * g->kw * g->c;
  size_t parts = conv_min(conv_min(MAX_PARTS, rows), 1 + rows * g->ow * size / MIN_PART);
  job p = {.g = g, .x = x, .dy = dy, .parts = parts};
  p.sums = td_scratch(parts * size * sizeof(real));
  if (!p.sums) return false;
  td_parallel(parts, 1, weight_parts, &p);
  memcpy(dw, p.sums, size * sizeof(real));
  for (size_t part = 1; part < parts; part++)
    for (size_t i = 0; i < size; i++) dw[i] += p.sums[part * size + i];
  return true;
}
