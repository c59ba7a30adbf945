/* Every kernel, once. A kernel is a pure function over pointers and sizes. Each file of this folder that includes
 * isa.h is compiled once per element type and instruction set; the copies meet in one table of function pointers
 * per pair (table.c), and td_k(dtype) gives the table of this processor for an element type.
 *
 * Kernels allocate nothing but td_scratch, split their work by td_parallel, and give results that do not
 * depend on the number of threads. Arrays are contiguous and row-major, images N×H×W×C, unless said; their
 * elements are of the table's type. An output never overlaps an input unless said. */
#ifndef TD_KERNELS_H
#define TD_KERNELS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/dtype.h"
#include "base/error.h"
#include "base/random.h"
#include "kernels/forms.h"

/* ---- Element-wise programs -------------------------------------------------------------------------------
 * One mechanism for every element-wise operation, alone or in a fused chain: a short program over registers,
 * run block by block so that intermediates stay in the first-level cache. Operands may be broadcast, strided, and of
 * another element type: they are converted when loaded and stored. */

/* name, number of operands. Results of comparisons and logic are 0 or 1. Integers have those marked I as well. */
#define TD_PW_OPS(R, I)                                                                                       \
  I(copy, 1) I(neg, 1) I(abs, 1) I(sign, 1) I(square, 1) I(logical_not, 1)                                      \
  R(exp, 1) R(expm1, 1) R(log, 1) R(log1p, 1) R(log2, 1) R(log10, 1) R(sqrt, 1) R(rsqrt, 1) R(reciprocal, 1)    \
  R(sin, 1) R(cos, 1) R(tan, 1) R(asin, 1) R(acos, 1) R(atan, 1) R(sinh, 1) R(cosh, 1) R(tanh, 1)               \
  R(erf, 1) R(erfc, 1) R(sigmoid, 1) R(silu, 1) R(gelu, 1) R(gelu_tanh, 1) R(softplus, 1) R(log_sigmoid, 1)     \
  I(relu, 1) R(floor, 1) R(ceil, 1) R(round, 1) R(trunc, 1) R(isnan, 1) R(isinf, 1) R(isfinite, 1)              \
  I(add, 2) I(sub, 2) I(mul, 2) R(div, 2) R(pow, 2) R(atan2, 2) I(max, 2) I(min, 2)                             \
  I(floor_div, 2) I(mod, 2)                                                                                     \
  I(eq, 2) I(ne, 2) I(lt, 2) I(le, 2) I(gt, 2) I(ge, 2) I(logical_and, 2) I(logical_or, 2) I(logical_xor, 2)    \
  R(silu_grad, 2) R(gelu_grad, 2) R(gelu_tanh_grad, 2) R(relu_grad, 2)                                          \
  I(where, 3) R(fma, 3) I(clamp, 3)
/* round is to nearest, ties to even. mod and floor_div follow Lua: the result of mod has the divisor's sign; integer
 * division by zero gives 0. X_grad(x, dy) is dy·X'(x); relu_grad is 0 at x = 0. where(c, a, b) is a where c ≠ 0, else
 * b. fma(a, b, c) = a·b + c. clamp(x, lo, hi). max and min give NaN when either is NaN. pow with a negative base and an
 * integral exponent is exact in sign. relu(NaN) = NaN. */

#define TD_PW_ENUM(name, arity) TD_PW_##name,
typedef enum { TD_PW_OPS(TD_PW_ENUM, TD_PW_ENUM) TD_PW_OP_COUNT } td_pw_op;
#undef TD_PW_ENUM

enum { TD_PW_MAX_IN = 12, TD_PW_MAX_OUT = 4, TD_PW_MAX_STEP = 32, TD_PW_MAX_REG = 32 };

typedef struct {
  void *data;                     /* first element */
  td_dtype dtype;                 /* converted from or to the table's type at the edge */
  ptrdiff_t stride[TD_MAX_DIMS];  /* in elements; 0 broadcasts */
} td_pw_operand;

typedef struct {
  uint8_t op;         /* td_pw_op */
  uint8_t dst;        /* register written */
  uint8_t src[3];     /* registers read */
} td_pw_step;

/* Registers 0..nin-1 hold the inputs; a step may write any register from nin on; out[i] stores register out_reg[i].
 * ndim may be 0 (one element). An output may be exactly an input's array (same data, dtype, strides), never overlap
 * otherwise. */
typedef struct {
  int ndim, nin, nout, nstep;
  size_t shape[TD_MAX_DIMS];
  td_pw_operand in[TD_PW_MAX_IN], out[TD_PW_MAX_OUT];
  uint8_t out_reg[TD_PW_MAX_OUT];
  td_pw_step step[TD_PW_MAX_STEP];
} td_pw;

/* The loop of one operation, for callers who lay operands out themselves: y[0..n) = op(arg[src[0]], …). An operand is
 * an array (step: `lanes`) or one number that fills a vector (step 0). Whole vectors are read and written, so arrays
 * have room for n rounded up to `lanes`; y may be an operand's array. */
typedef struct {
  const void *p;
  size_t step;
} td_pw_arg;
typedef void (*td_pw_loop)(void *y, const td_pw_arg *arg, const uint8_t *src, size_t n);

/* c[i·c_row + j] = Σ a[i·a_row + l·a_col]·b[l·b_row + j·b_col], i < m, j < n, the sum over l < k. */
typedef struct {
  void *c;
  const void *a, *b;
  size_t m, n, k, a_row, a_col, b_row, b_col, c_row;
} td_product;
typedef void (*td_product_fn)(const td_product *p);

/* What a kernel may apply to its result while that is in registers. */
typedef enum {
  TD_ACT_NONE, TD_ACT_RELU, TD_ACT_SILU, TD_ACT_GELU, TD_ACT_TANH, TD_ACT_SIGMOID, TD_ACT_COUNT
} td_act;

/* ---- Convolution and pooling geometry --------------------------------------------------------------------- */
typedef struct {
  size_t n, h, w, c;        /* input images: n×h×w×c */
  size_t kh, kw, o;         /* weight: kh×kw×(c/groups)×o */
  size_t oh, ow;            /* output images: n×oh×ow×o */
  size_t stride[2], pad[2], dilation[2];
  size_t groups;            /* divides c and o; output channel block g sees input channel block g */
} td_conv;

/* What is done to the result of a convolution on its way to memory: y = act(y + bias + chan + add). */
typedef struct {
  const void *bias;         /* o; NULL leaves a term out */
  const void *chan;         /* n×o: one number for each channel of each image */
  const void *add;          /* n×oh×ow×o */
  td_act act;
} td_epilogue;

/* Sequences of queries q: batch×l×heads×d, keys k: batch×s×heads×d, values v: batch×s×heads×e, by the strides of
 * batch, position and head, rows contiguous; a mask batch×heads×l×s by the strides of the first three, 0 repeating. */
typedef struct {
  size_t batch, heads, l, s, d, e;
  size_t q_stride[3], k_stride[3], v_stride[3], mask_stride[3];
  double scale;
  bool causal;              /* query i sees keys 0..i */
} td_attention;

/* ---- The list: X(return type, name, (parameters)) --------------------------------------------------------- */

/* For float, double and int64_t. In the reductions x is outer×n×inner and y is outer×inner. */
#define TD_KERNELS_ANY(X)                                                                                     \
  X(void, pointwise, (const td_pw *p))                                                                          \
  /* the loop of one operation of it, and how many elements a vector has */                                    \
  X(td_pw_loop, loop, (td_pw_op op, size_t *lanes))                                                             \
  X(void, sum, (void *y, const void *x, size_t outer, size_t n, size_t inner))                                  \
  X(void, prod, (void *y, const void *x, size_t outer, size_t n, size_t inner))                                 \
  /* greatest / least element and its 0-based position, the first of equals; NaN wins and is greatest and least */ \
  X(void, max, (void *y, int64_t *at, const void *x, size_t outer, size_t n, size_t inner))                     \
  X(void, min, (void *y, int64_t *at, const void *x, size_t outer, size_t n, size_t inner))                     \
  /* y and x are outer×n×inner; reverse sums from the end */                                                    \
  X(void, cumsum, (void *y, const void *x, size_t outer, size_t n, size_t inner, bool reverse))                 \
  /* stable sort of each row and the positions it came from; NaN last */                                        \
  X(void, sort, (void *y, int64_t *at, const void *x, size_t rows, size_t n, bool descending))

/* For float and double. */
#define TD_KERNELS_REAL(X)                                                                                    \
  /* exp, log, sin, cos, tanh or sigmoid of one number: what `pointwise` makes of it among others */            \
  X(double, number, (td_pw_op op, double x))                                                                    \
  X(void, sum_squares, (void *y, const void *x, size_t outer, size_t n, size_t inner))                          \
  X(void, logsumexp, (void *y, const void *x, size_t rows, size_t n))                                           \
  X(void, softmax, (void *y, const void *x, size_t rows, size_t n))                                             \
  X(void, softmax_grad, (void *dx, const void *y, const void *dy, size_t rows, size_t n))                       \
  X(void, log_softmax, (void *y, const void *x, size_t rows, size_t n))                                         \
  X(void, log_softmax_grad, (void *dx, const void *y, const void *dy, size_t rows, size_t n))                   \
  /* y = act(x̂·gamma + beta) + add, x̂ normalised; x, y, add: n×p×c in `groups` groups of c/groups channels;       \
   * mean, rstd: n×groups; gamma, beta: c; gamma, beta and add may be NULL. Each image is read once from     \
   * memory when it fits the cache, and its result does not depend on the others */                         \
  X(void, group_norm, (void *y, void *mean, void *rstd, const void *x, const void *gamma, const void *beta,     \
                       const void *add, size_t n, size_t p, size_t c, size_t groups, double eps, td_act act))   \
  /* dgamma and dbeta: c, may be NULL; written, not added to. add's gradient is dy. beta may be NULL without act */ \
  X(void, group_norm_grad, (void *dx, void *dgamma, void *dbeta, const void *dy, const void *x,                 \
                            const void *mean, const void *rstd, const void *gamma, const void *beta,            \
                            size_t n, size_t p, size_t c, size_t groups, td_act act))                           \
  /* the same with statistics of each of c channels over rows: x is rows×c; mean, rstd, var: c (var biased, may be \
   * NULL) */                                                                                                   \
  X(void, channel_norm, (void *y, void *mean, void *rstd, void *var, const void *x, const void *gamma,          \
                         const void *beta, const void *add, size_t rows, size_t c, double eps, td_act act))     \
  X(void, channel_norm_grad, (void *dx, void *dgamma, void *dbeta, const void *dy, const void *x,               \
                              const void *mean, const void *rstd, const void *gamma, const void *beta,          \
                              size_t rows, size_t c, td_act act))                                               \
  /* y = softmax(q·kᵀ·scale + mask)·v, contiguous batch×l×heads×e; keep: batch×heads×l×2, what the gradient wants: the  \
   * greatest score of a query and one over its sum of exponentials. mask may be NULL. Scores are never stored */ \
  X(void, attention, (void *y, void *keep, const void *q, const void *k, const void *v, const void *mask,       \
                      const td_attention *g))                                                                   \
  /* dq, dk, dv contiguous, dy and y as attention wrote it */                                                   \
  X(void, attention_grad, (void *dq, void *dk, void *dv, const void *dy, const void *q, const void *k,          \
                           const void *v, const void *y, const void *kept, const void *mask,                    \
                           const td_attention *g))                                                              \
  /* e may be NULL; forms: of w, may be NULL */                                                                  \
  X(void, conv2d, (void *y, const void *x, const void *w, const td_epilogue *e, const td_conv *g,               \
                   const td_forms *forms))                                                                      \
  X(void, conv2d_input_grad, (void *dx, const void *dy, const void *w, const td_conv *g, const td_forms *forms)) \
  X(void, conv2d_weight_grad, (void *dw, const void *x, const void *dy, const td_conv *g))                      \
  /* pooling uses n, h, w, c, kh, kw, oh, ow, stride, pad; padding never wins a maximum nor enters a mean's count;\
   * at: 0-based position h·W + w of the maximum inside its image plane, n×oh×ow×c */                           \
  X(void, max_pool2d, (void *y, int64_t *at, const void *x, const td_conv *g))                                  \
  X(void, max_pool2d_grad, (void *dx, const void *dy, const int64_t *at, const td_conv *g))                     \
  /* values of x at the positions `at` of an earlier max_pool2d: the second derivative's forward */             \
  X(void, max_pool2d_gather, (void *y, const void *x, const int64_t *at, const td_conv *g))                     \
  X(void, avg_pool2d, (void *y, const void *x, const td_conv *g))                                               \
  X(void, avg_pool2d_grad, (void *dx, const void *dy, const td_conv *g))                                        \
  /* window of output i: [floor(i·H/OH), ceil((i+1)·H/OH)) */                                                   \
  X(void, adaptive_avg_pool2d, (void *y, const void *x, const td_conv *g))                                      \
  X(void, adaptive_avg_pool2d_grad, (void *dx, const void *dy, const td_conv *g))                               \
  /* n×h×w×c → n×oh×ow×c; bilinear samples at pixel centres (align_corners = false) */                          \
  X(void, upsample_nearest, (void *y, const void *x, const td_conv *g))                                         \
  X(void, upsample_nearest_grad, (void *dx, const void *dy, const td_conv *g))                                  \
  X(void, upsample_bilinear, (void *y, const void *x, const td_conv *g))                                        \
  X(void, upsample_bilinear_grad, (void *dx, const void *dy, const td_conv *g))                                 \
  /* c[b] = alpha·op(a[b])·op(b[b]) + beta·c[b] for each of `batch`; op(a) m×k, op(b) k×n, c m×n with rows of       \
   * lda, ldb, ldc elements; batch strides in elements, 0 shares an operand; beta = 0 ignores what c holds */   \
  X(void, matmul, (void *c, const void *a, const void *b, size_t m, size_t n, size_t k,                         \
                   size_t lda, size_t ldb, size_t ldc, bool trans_a, bool trans_b,                              \
                   size_t batch, size_t stride_a, size_t stride_b, size_t stride_c, double alpha, double beta)) \
  /* what makes a small product of these sizes and distances as matmul does, to the last bit; NULL when it is large enough \
   * to be shared out. *lines: it would rather have b_row = 1 and b_col = k */                                  \
  X(td_product_fn, product, (const td_product *p, bool *lines))                                                 \
  /* y = base + Σ coef[i]·x[i]; base may be NULL (0) and may be y itself, as may any x[i]; a coefficient of 0     \
   * leaves its x[i] out, here and in error_sum, whatever it holds */                                           \
  X(void, lincomb, (void *y, const void *base, size_t count, const double *coef, const void *const *x, size_t n)) \
  /* Σ ( Σᵢ coef[i]·k[i] / (atol + rtol·max(|y0|,|y1|)) )², and at *worst the position of the largest term */   \
  X(double, error_sum, (size_t count, const double *coef, const void *const *k, const void *y0, const void *y1, \
                        double rtol, double atol, size_t n, size_t *worst))                                     \
  /* fills from the stream (seed, counter); element i comes from block counter + i/4 (float) or i/2 (double),   \
   * so any split gives the same numbers. uniform is in [0, 1); normal by Box–Muller */                         \
  X(void, uniform, (void *y, size_t n, uint64_t seed, uint64_t counter))                                        \
  X(void, normal, (void *y, size_t n, uint64_t seed, uint64_t counter))                                         \
  /* one step in place. decay is decoupled (AdamW) or added to the gradient; step counts from 1 */              \
  X(void, adam_step, (void *p, void *m, void *v, const void *g, size_t n, double lr, double beta1, double beta2, \
                      double eps, double decay, bool decoupled, uint64_t step))                                 \
  /* without momentum velocity may be NULL */                                                                   \
  X(void, sgd_step, (void *p, void *velocity, const void *g, size_t n, double lr, double momentum,              \
                     double dampening, double decay, bool nesterov, bool first))                                \
  /* of the finite elements, for tests and printing: minimum, maximum, mean, standard deviation (divided by their   \
   * count); NaN if there are none */                                                                           \
  X(void, statistics, (const void *x, size_t n, double out[4], size_t *nans, size_t *infs))                     \
  /* Linear algebra over `batch` matrices, row-major. A failure leaves a message that names the first matrix that     \
   * failed: TD_ESOLVE when it is singular, not finite, or an iteration did not converge; TD_EARG when it is too      \
   * large; TD_ENOMEM. The results of the other matrices are good all the same. x may be b where both exist.       \
   * P·a = L·U, a n×n, L (unit) and U in one matrix; row i was exchanged with row pivots[i] (0-based), in order.  \
   * A singular matrix is factored to the end and reported. */                                                     \
  X(td_status, lu, (void *lu, int64_t *pivots, const void *a, size_t batch, size_t n))                          \
  /* op(a)·x = b, x and b n×k, op the transpose or nothing; from the factors, or from a itself */               \
  X(td_status, lu_solve, (void *x, const void *lu, const int64_t *pivots, const void *b, size_t batch,          \
                          size_t n, size_t k, bool trans))                                                      \
  X(td_status, solve, (void *x, const void *a, const void *b, size_t batch, size_t n, size_t k, bool trans))    \
  /* op(t)·x = b; only one triangle of t is read, without its diagonal (then 1) when `unit` */                  \
  X(td_status, triangular_solve, (void *x, const void *t, const void *b, size_t batch, size_t n, size_t k,      \
                                  bool upper, bool trans, bool unit))                                           \
  X(td_status, inverse, (void *y, const void *a, size_t batch, size_t n))                                       \
  /* determinant = sign·exp(log_abs); 0 and -infinity for a singular matrix, which is no failure */             \
  X(td_status, slogdet, (void *sign, void *log_abs, const void *a, size_t batch, size_t n))                     \
  /* a = l·lᵀ, l lower with zeros above; only the lower triangle of a is read */                                \
  X(td_status, cholesky, (void *l, const void *a, size_t batch, size_t n))                                      \
  /* a = q·r; q m×k with orthonormal columns, r k×n upper, k = min(m, n) */                                     \
  X(td_status, qr, (void *q, void *r, const void *a, size_t batch, size_t m, size_t n))                         \
  /* a = u·diag(s)·vt; u m×k, s k descending, vt k×n; u and vt may be NULL, both */                             \
  X(td_status, svd, (void *u, void *s, void *vt, const void *a, size_t batch, size_t m, size_t n))              \
  /* a = v·diag(w)·vᵀ, w ascending, eigenvectors in v's columns; only the lower triangle is read; v may be NULL */ \
  X(td_status, eigh, (void *w, void *v, const void *a, size_t batch, size_t n))                                 \
  /* the shortest x (n×k) of those that minimise |a·x - b| in each column, a m×n, b m×k; singular values below rcond \
   * times the largest count as 0 (rcond < 0: the unit roundoff times max(m, n)); rank: one a matrix, or NULL */ \
  X(td_status, lstsq, (void *x, int64_t *rank, const void *a, const void *b, size_t batch, size_t m, size_t n,  \
                       size_t k, double rcond))                                                                 \
  X(td_status, expm, (void *y, const void *a, size_t batch, size_t n))                                          \
  /* independent multiply-adds, for measuring the peak; gives how many operations they were */                  \
  X(double, fma_work, (size_t items))

#define TD_KERNEL_FIELD(ret, name, params) ret(*name) params;
typedef struct {
  TD_KERNELS_ANY(TD_KERNEL_FIELD)
  TD_KERNELS_REAL(TD_KERNEL_FIELD)  /* NULL in the table of int64_t */
} td_kernels;
#undef TD_KERNEL_FIELD

/* The kernels of this processor for d (TD_U8 has none: it computes as TD_I64). */
const td_kernels *td_k(td_dtype d);

/* ---- Kernels by element size, not type: movement of whole elements ---------------------------------------- */
/* y[o][i][:] = x[o][index[i]][:], x is outer×n×inner elements of `size` bytes; indices are 0-based and checked
 * before. */
void td_k_take(void *y, const void *x, const int64_t *index, size_t count, size_t outer, size_t n, size_t inner,
               size_t size);

/* y = x, the same shape in two layouts (strides in elements; 0 in xs repeats); they do not overlap. */
void td_k_rearrange(void *y, const size_t *ys, const void *x, const size_t *xs, int ndim, const size_t *shape,
                    size_t size);

#endif
