/* Large products of two matrices: real_gemm.c. */
#ifndef TD_KERNELS_REAL_GEMM_H
#define TD_KERNELS_REAL_GEMM_H

/* c = alpha·op(a)·op(b) + beta·c with the letters and strides of real_product.h: one of a_row and a_col is 1, and one
 * of b_row and b_col. Splits its work itself, and the result does not depend on how. Operands are rounded to bfloat16
 * when precision.h says so. False, with c as it was, when scratch memory was refused. */
bool TD_K(gemm)(const product *p);

/* Terms of a sum that are added up before they are added to c: k is cut into equal chunks of at most GEMM_CHUNK. */
enum { GEMM_CHUNK = 384 };
static inline size_t gemm_chunk(size_t k) {
  size_t twice = 2 * ((k + GEMM_CHUNK - 1) / GEMM_CHUNK);
  return (k + twice - 1) / twice * 2;
}

#endif
