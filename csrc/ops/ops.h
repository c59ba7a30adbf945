/* The operations as C functions, for derivative rules and solvers: expressions over automatic tensors (op.h). */
#ifndef TD_OPS_OPS_H
#define TD_OPS_OPS_H
#include "ops/op.h"

/* Families, each ending in NULL. */
extern const td_op *const td_ops_pointwise[], *const td_ops_move[], *const td_ops_reduce[], *const td_ops_matmul[],
  *const td_ops_image[], *const td_ops_norm[], *const td_ops_attention[], *const td_ops_linalg[];

/* One result of op on n operands; NULL when an operand is NULL or the call fails. */
td_tensor *td_do(const td_op *op, const td_attrs *a, int n, ...);
/* All results into out (automatic); out[0] is NULL on failure. */
void td_do_all(const td_op *op, const td_attrs *a, int nin, td_tensor *const *in, td_tensor **out);

/* A number as an operand; takes the element type of what it meets. */
td_tensor *td_num(double v);
/* The same as float64 or int64. */
td_tensor *td_number(td_dtype d, double v);
td_tensor *td_zeros_like(const td_tensor *t);
td_tensor *td_ones_like(const td_tensor *t);

#define TD_FN1(name) \
  extern const td_op td_op_##name; \
  static inline td_tensor *td_##name(td_tensor *x) { return td_do(&td_op_##name, NULL, 1, x); }
#define TD_FN2(name) \
  extern const td_op td_op_##name; \
  static inline td_tensor *td_##name(td_tensor *a, td_tensor *b) { return td_do(&td_op_##name, NULL, 2, a, b); }
#define TD_FN3(name)                                                          \
  extern const td_op td_op_##name;                                            \
  static inline td_tensor *td_##name(td_tensor *a, td_tensor *b, td_tensor *c) { \
    return td_do(&td_op_##name, NULL, 3, a, b, c);                          \
  }
TD_FN1(neg)
TD_FN1(abs) TD_FN1(sign) TD_FN1(square) TD_FN1(exp) TD_FN1(expm1) TD_FN1(log) TD_FN1(log1p) TD_FN1(log2) TD_FN1(log10)
    TD_FN1(sqrt) TD_FN1(rsqrt) TD_FN1(reciprocal) TD_FN1(sin) TD_FN1(cos) TD_FN1(tan) TD_FN1(asin) TD_FN1(acos)
        TD_FN1(atan) TD_FN1(sinh) TD_FN1(cosh) TD_FN1(tanh) TD_FN1(erf) TD_FN1(erfc) TD_FN1(sigmoid) TD_FN1(silu)
            TD_FN1(gelu) TD_FN1(gelu_tanh) TD_FN1(softplus) TD_FN1(log_sigmoid) TD_FN1(relu) TD_FN1(floor) TD_FN1(ceil)
                TD_FN1(round) TD_FN1(trunc) TD_FN1(isnan) TD_FN1(isinf) TD_FN1(isfinite) TD_FN1(logical_not) TD_FN2(add)
                    TD_FN2(sub) TD_FN2(mul) TD_FN2(div) TD_FN2(pow) TD_FN2(atan2) TD_FN2(maximum) TD_FN2(minimum)
                        TD_FN2(floor_div) TD_FN2(mod) TD_FN2(eq) TD_FN2(ne) TD_FN2(lt) TD_FN2(le) TD_FN2(gt) TD_FN2(ge)
                            TD_FN2(logical_and) TD_FN2(logical_or) TD_FN2(logical_xor) TD_FN2(silu_grad)
                                TD_FN2(gelu_grad) TD_FN2(gelu_tanh_grad) TD_FN2(relu_grad) TD_FN3(where) TD_FN3(fma)
                                    TD_FN3(clamp)

                                        extern const td_op td_op_cast,
    td_op_clone, td_op_reshape, td_op_permute, td_op_expand, td_op_narrow, td_op_narrow_grad, td_op_select,
    td_op_unsqueeze, td_op_squeeze, td_op_cat, td_op_index_select, td_op_index_add, td_op_gather, td_op_scatter_add,
    td_op_sum, td_op_prod, td_op_max, td_op_min, td_op_cumsum, td_op_sort, td_op_norm, td_op_logsumexp, td_op_softmax,
    td_op_log_softmax, td_op_softmax_grad, td_op_log_softmax_grad, td_op_matmul, td_op_conv2d, td_op_conv2d_input_grad,
    td_op_conv2d_weight_grad, td_op_conv2d_fused, td_op_group_norm, td_op_group_norm_grad, td_op_channel_norm,
    td_op_channel_norm_grad, td_op_group_norm_act, td_op_group_norm_act_grad, td_op_channel_norm_act,
    td_op_channel_norm_act_grad, td_op_attention, td_op_attention_grad, td_op_lincomb, td_op_solve, td_op_inv,
    td_op_solve_triangular, td_op_det, td_op_slogdet, td_op_cholesky, td_op_lu_factor, td_op_lu_solve, td_op_qr,
    td_op_svd, td_op_svdvals, td_op_eigh, td_op_eigvalsh, td_op_lstsq, td_op_pinv, td_op_matrix_exp;

/* How the product's kernel reads the matrices of t where they lie: rows of *ld elements, transposed or not. False: it
 * cannot. */
bool td_matmul_reads(const td_tensor *t, bool *trans, size_t *ld);

/* Attributes of conv2d_fused besides those of conv2d: which of bias, chan and add follow x and w, and a td_act. */
enum { TD_CONV_PARTS = 7, TD_CONV_ACT = 8, TD_CONV_BIAS = 1, TD_CONV_CHAN = 2, TD_CONV_ADD = 4 };

td_tensor *td_cast(td_tensor *x, td_dtype d);
td_tensor *td_reshape(td_tensor *x, int ndim, const size_t *shape);
td_tensor *td_reshape_like(td_tensor *x, const td_tensor *like);
/* dims a and b swapped; negative ones count from the end */
td_tensor *td_transpose(td_tensor *x, int a, int b);
td_tensor *td_expand(td_tensor *x, int ndim, const size_t *shape);
td_tensor *td_narrow(td_tensor *x, int dim, size_t start, size_t length);
/* Sum over the dims of the bit mask (0 = all). */
td_tensor *td_sum(td_tensor *x, unsigned dims, bool keepdim);
/* x summed down to a shape that broadcasts to x's; x itself when nothing is to do. */
td_tensor *td_sum_to(td_tensor *x, int ndim, const size_t *shape);
td_tensor *td_matmul(td_tensor *a, td_tensor *b);
/* Σ coef[i]·x[i] */
td_tensor *td_lincomb(int n, const double *coef, td_tensor *const *x);

/* The derivative of an operation taken through `twin`, which computes the operation's first result from simpler ones:
 * how a fused operation gets its second derivative. Provided by the tape. */
typedef td_tensor *(*td_twin)(const td_rule *r, td_tensor *const *in);
extern void (*td_rule_by_twin)(td_rule *r, td_twin twin);

#endif
