/* Convolution and its gradients as written-out sums: slow, obvious and without any memory of their
 * own. They serve when scratch memory is refused, and show what the fast ways compute. */
#include "kernels/isa.h"
#include "kernels/real_conv.h"

/* The input coordinate that output coordinate `out` sees through tap `tap` along `axis`; at least
 * `size` when it lies in the padding (a coordinate below 0 wraps round to a large one). */
static size_t input_at(const td_conv *g, int axis, size_t out, size_t tap) {
  return out * g->stride[axis] + tap * g->dilation[axis] - g->pad[axis];
}

static size_t x_index(const td_conv *g, size_t n, size_t h, size_t w, size_t c) {
  return ((n * g->h + h) * g->w + w) * g->c + c;
}

static size_t y_index(const td_conv *g, size_t n, size_t h, size_t w, size_t o) {
  return ((n * g->oh + h) * g->ow + w) * g->o + o;
}

/* c counts inside the group */
static size_t w_index(const td_conv *g, size_t i, size_t j, size_t c, size_t o) {
  return ((i * g->kw + j) * (g->c / g->groups) + c) * g->o + o;
}

static real plain_at(const real *x, const real *w, const td_conv *g, size_t n, size_t oh, size_t ow,
                     size_t o) {
  size_t cg = g->c / g->groups, c0 = o / (g->o / g->groups) * cg;
  real sum = 0;
  for (size_t i = 0; i < g->kh; i++) {
    size_t h = input_at(g, 0, oh, i);
    if (h >= g->h) continue;
    for (size_t j = 0; j < g->kw; j++) {
      size_t v = input_at(g, 1, ow, j);
      if (v >= g->w) continue;
      for (size_t c = 0; c < cg; c++)
        sum += x[x_index(g, n, h, v, c0 + c)] * w[w_index(g, i, j, c, o)];
    }
  }
  return sum;
}

void TD_K(conv_plain)(real *y, const real *x, const real *w, const td_epilogue *e,
                      const td_conv *g) {
  const real *bias = e->bias, *chan = e->chan;
  for (size_t n = 0; n < g->n; n++)
    for (size_t oh = 0; oh < g->oh; oh++)
      for (size_t ow = 0; ow < g->ow; ow++)
        for (size_t o = 0; o < g->o; o++)
          y[y_index(g, n, oh, ow, o)] = plain_at(x, w, g, n, oh, ow, o) + (bias ? bias[o] : 0) +
                                        (chan ? chan[n * g->o + o] : 0);
  TD_K(conv_finish)(y, e->add, 1, g->n * g->oh * g->ow * g->o, 0, e->act);
}

void TD_K(conv_plain_input_grad)(real *dx, const real *dy, const real *w, const td_conv *g) {
  size_t cg = g->c / g->groups, og = g->o / g->groups;
  memset(dx, 0, g->n * g->h * g->w * g->c * sizeof(real));
  for (size_t n = 0; n < g->n; n++)
    for (size_t oh = 0; oh < g->oh; oh++)
      for (size_t ow = 0; ow < g->ow; ow++)
        for (size_t i = 0; i < g->kh; i++)
          for (size_t j = 0; j < g->kw; j++) {
            size_t h = input_at(g, 0, oh, i), v = input_at(g, 1, ow, j);
            if (h >= g->h || v >= g->w) continue;
            for (size_t o = 0; o < g->o; o++)
              for (size_t c = 0; c < cg; c++)
                dx[x_index(g, n, h, v, o / og * cg + c)] +=
                    dy[y_index(g, n, oh, ow, o)] * w[w_index(g, i, j, c, o)];
          }
}

void TD_K(conv_plain_weight_grad)(real *dw, const real *x, const real *dy, const td_conv *g) {
  size_t cg = g->c / g->groups, og = g->o / g->groups;
  memset(dw, 0, g->kh * g->kw * cg * g->o * sizeof(real));
  for (size_t n = 0; n < g->n; n++)
    for (size_t oh = 0; oh < g->oh; oh++)
      for (size_t ow = 0; ow < g->ow; ow++)
        for (size_t i = 0; i < g->kh; i++)
          for (size_t j = 0; j < g->kw; j++) {
            size_t h = input_at(g, 0, oh, i), v = input_at(g, 1, ow, j);
            if (h >= g->h || v >= g->w) continue;
            for (size_t c = 0; c < cg; c++)
              for (size_t o = 0; o < g->o; o++)
                dw[w_index(g, i, j, c, o)] +=
                    x[x_index(g, n, h, v, o / og * cg + c)] * dy[y_index(g, n, oh, ow, o)];
          }
}
