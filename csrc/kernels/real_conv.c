/* conv2d and its two gradients: chooses the way that suits the geometry. Images are n×h×w×c,
 * weights kh×kw×(c/groups)×o (kernels.h). */
#include "kernels/isa.h"
#include "kernels/precision.h"
#include "kernels/real_conv.h"

static bool is_empty(const td_conv *g) { return !g->n || !g->oh || !g->ow || !g->o; }

static bool is_depthwise(const td_conv *g) {
  return g->groups == g->c && g->groups == g->o && g->c > 1;
}

/* A 1×1 convolution sees no neighbours, so the pixels of all images may be cut into any rows. When
 * the true rows are too short to fill a tile, gives as many pixels as images of one longer row
 * each. */
static td_conv flatten(const td_conv *g) {
  td_conv f = *g;
  bool pointwise = g->kh == 1 && g->kw == 1 && g->stride[0] == 1 && g->stride[1] == 1 &&
                   !g->pad[0] && !g->pad[1];
  if (!pointwise || g->w >= 28) return f;
  size_t pixels = g->n * g->h * g->w, row = 0;
  for (size_t d = 28; d <= 84 && !row; d++)
    if (pixels % d == 0) row = d;
  if (!row && pixels < 84) row = pixels;
  if (!row && g->h * g->w >= 8 && g->h * g->w <= 1024) row = g->h * g->w;
  if (!row) return f;
  f.n = pixels / row;
  f.h = f.oh = 1;
  f.w = f.ow = row;
  return f;
}

/* Whether operands are rounded to bfloat16. */
static bool rounds(void) { return TD_KREAL == 0 && td_k_precision == TD_BFLOAT16; }

/* Whether `to` channels are too few to fill vectors, and `from` enough. */
static bool is_few(const td_conv *g, size_t from, size_t to) {
  return !rounds() && g->groups == 1 && to <= CONV_FEW && g->kh * g->kw <= CONV_FEW_TAPS &&
         from >= (size_t)2 * TD_LANES;
}

/* Fewest channels, on both sides, whose products are worth the transforms; and pixels of an image
 * from which the saved products pay for transforming the weights, when these stay in the second-level
 * cache, in the third, or in neither; in the weight gradient, pixels of all images. */
enum {
  LEAST_CHANNELS = 16, LEAST_PIXELS = 48, MORE_PIXELS = 64, MOST_PIXELS = 144, LEAST_SUM = 256,
  SUM_BYTES = 40 << 20  /* most memory for the weight gradient before it is transformed back */
};

/* Whether Winograd's way can be taken at all, and for channels enough. */
static bool is_winograd(const td_conv *g) {
  return td_k_precision != TD_STRICT && !rounds() && g->kh == 3 && g->kw == 3 && g->groups == 1 &&
         g->stride[0] == 1 && g->stride[1] == 1 && g->dilation[0] == 1 && g->dilation[1] == 1 &&
         conv_min(g->c, g->o) >= LEAST_CHANNELS;
}

/* Products of one input and one output channel of an image of h×w results in tiles of m×m. */
static size_t products(size_t h, size_t w, size_t m) {
  return conv_ceil_div(h, m) * conv_ceil_div(w, m) * (m + 2) * (m + 2);
}

/* The tile of Winograd's way that suits results of h×w, 2 or 4; 0 when another way does. The number
 * of images must not count: a sample's result would depend on how many others there are. */
static int winograd_tile(const td_conv *g, size_t h, size_t w) {
  if (!is_winograd(g)) return 0;
  size_t bytes = 36 * g->c * g->o * sizeof(real);
  size_t least = bytes <= 512 << 10 ? LEAST_PIXELS : bytes <= 16 << 20 ? MORE_PIXELS : MOST_PIXELS;
  if (h * w < least) return 0;
  /* 2×2 is for strips two pixels wide: else 4×4 needs fewer products, and fewer transforms for them */
  size_t by_4 = products(h, w, 4), by_2 = products(h, w, 2);
  if (conv_min(by_4, by_2) * 3 / 2 > 9 * h * w) return 0;
  return by_4 <= by_2 ? 4 : 2;
}

/* In the weight gradient the transforms of the weights come once for all images. */
static bool is_winograd_weight(const td_conv *g) {
  return is_winograd(g) && g->n * g->oh * g->ow >= LEAST_SUM &&
         36 * g->c * g->o * sizeof(real) <= SUM_BYTES &&
         products(g->oh, g->ow, 4) * 3 / 2 <= 9 * g->oh * g->ow;
}

void TD_K(conv2d)(void *y, const void *x, const void *w, const td_epilogue *e, const td_conv *g,
                  const td_forms *forms) {
  static const td_epilogue none;
  if (is_empty(g)) return;
  if (!e) e = &none;
  td_conv f = e->chan ? *g : flatten(g);
  int m = winograd_tile(&f, f.oh, f.ow);
  bool done = is_depthwise(&f) ? TD_K(conv_depthwise)(y, x, w, e, &f)
              : m              ? TD_K(conv_winograd)(y, x, w, e, &f, forms, m)
              : is_few(&f, f.c, f.o) ? TD_K(conv_few)(y, x, w, e, &f)
                                     : TD_K(conv_direct)(y, x, w, e, &f, forms);
  if (!done) TD_K(conv_plain)(y, x, w, e, &f);
}

void TD_K(conv2d_input_grad)(void *dx, const void *dy, const void *w, const td_conv *g,
                             const td_forms *forms) {
  size_t count = g->n * g->h * g->w * g->c;
  if (!count) return;
  if (is_empty(g)) {
    memset(dx, 0, count * sizeof(real));
    return;
  }
  td_conv f = flatten(g);
  int m = winograd_tile(&f, f.h, f.w);
  bool done = is_depthwise(&f) ? TD_K(conv_depthwise_input_grad)(dx, dy, w, &f)
              : m              ? TD_K(conv_winograd_input_grad)(dx, dy, w, &f, forms, m)
              : is_few(&f, f.o, f.c) ? TD_K(conv_few_input_grad)(dx, dy, w, &f)
                                     : TD_K(conv_direct_input_grad)(dx, dy, w, &f, forms);
  if (!done) TD_K(conv_plain_input_grad)(dx, dy, w, &f);
}

void TD_K(conv2d_weight_grad)(void *dw, const void *x, const void *dy, const td_conv *g) {
  size_t count = g->groups ? g->kh * g->kw * (g->c / g->groups) * g->o : 0;
  if (!count) return;
  if (is_empty(g) || !g->h || !g->w) {
    memset(dw, 0, count * sizeof(real));
    return;
  }
  td_conv f = flatten(g);
  bool done = is_depthwise(&f)          ? TD_K(conv_depthwise_weight_grad)(dw, x, dy, &f)
              : is_winograd_weight(&f) ? TD_K(conv_winograd_weight_grad)(dw, x, dy, &f)
                                       : TD_K(conv_direct_weight_grad)(dw, x, dy, &f);
  if (!done) TD_K(conv_plain_weight_grad)(dw, x, dy, &f);
}
