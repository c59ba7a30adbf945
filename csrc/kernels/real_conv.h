/* What the convolution files share: the ways a convolution can be done, among which real_conv.c
 * chooses. Each function has the arguments and shapes of the kernel it serves (kernels.h) and
 * returns false, with its output in an undefined state, when scratch memory was refused. */
#ifndef TD_KERNELS_REAL_CONV_H
#define TD_KERNELS_REAL_CONV_H

/* Any geometry, by register tiles: real_conv_direct.c and real_conv_weight.c. */
bool TD_K(conv_direct)(real *y, const real *x, const real *w, const td_epilogue *e,
                       const td_conv *g, const td_forms *forms);
bool TD_K(conv_direct_input_grad)(real *dx, const real *dy, const real *w, const td_conv *g,
                                  const td_forms *forms);
bool TD_K(conv_direct_weight_grad)(real *dw, const real *x, const real *dy, const td_conv *g);

/* 3×3, stride and dilation 1, one group, by tiles of m×m results, m 2 or 4: real_conv_winograd.c. */
bool TD_K(conv_winograd)(real *y, const real *x, const real *w, const td_epilogue *e,
                         const td_conv *g, const td_forms *forms, int m);
bool TD_K(conv_winograd_input_grad)(real *dx, const real *dy, const real *w, const td_conv *g,
                                    const td_forms *forms, int m);

/* The same tiles summed the other way, for the weights: real_conv_winograd_weight.c. */
bool TD_K(conv_winograd_weight_grad)(real *dw, const real *x, const real *dy, const td_conv *g);

/* One group, at most CONV_FEW channels to compute and CONV_FEW_TAPS elements in a kernel's plane:
 * real_conv_few.c. */
enum { CONV_FEW = 4, CONV_FEW_TAPS = 49 };
bool TD_K(conv_few)(real *y, const real *x, const real *w, const td_epilogue *e, const td_conv *g);
bool TD_K(conv_few_input_grad)(real *dx, const real *dy, const real *w, const td_conv *g);

/* groups = c = o, vectors along the channels: real_conv_depthwise.c. */
bool TD_K(conv_depthwise)(real *y, const real *x, const real *w, const td_epilogue *e,
                          const td_conv *g);
bool TD_K(conv_depthwise_input_grad)(real *dx, const real *dy, const real *w, const td_conv *g);
bool TD_K(conv_depthwise_weight_grad)(real *dw, const real *x, const real *dy, const td_conv *g);

/* Written-out sums that need no memory: real_conv_plain.c. */
void TD_K(conv_plain)(real *y, const real *x, const real *w, const td_epilogue *e,
                      const td_conv *g);
void TD_K(conv_plain_input_grad)(real *dx, const real *dy, const real *w, const td_conv *g);
void TD_K(conv_plain_weight_grad)(real *dw, const real *x, const real *dy, const td_conv *g);

/* What is left of an epilogue once sums are in memory, y = act(y + add): `count` runs of n elements
 * `pitch` apart, of y and of add (which may be NULL) alike. real_conv_finish.c */
void TD_K(conv_finish)(real *y, const real *add, size_t count, size_t n, size_t pitch, td_act act);

static inline size_t conv_ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
static inline size_t conv_round_up(size_t a, size_t b) { return conv_ceil_div(a, b) * b; }
static inline size_t conv_min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t conv_max(size_t a, size_t b) { return a > b ? a : b; }

/* Scratch sizes are rounded to whole cache lines, so that every part of a block starts on one. */
static inline size_t conv_align(size_t bytes) { return conv_round_up(bytes, 64); }

#endif
