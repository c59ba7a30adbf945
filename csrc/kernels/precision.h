/* Whether a convolution may sum other products than its definition names, when that is faster and
 * rounds a little more (Winograd's filtering); and whether convolutions and products of float32 round their operands to
 * bfloat16 first. Kernels read it at each call; the binding sets it. */
#ifndef TD_KERNELS_PRECISION_H
#define TD_KERNELS_PRECISION_H

typedef enum { TD_FAST, TD_STRICT, TD_BFLOAT16 } td_precision;
extern td_precision td_k_precision;

#endif
