/* Activations on vectors (td_act), for kernels that finish a result while it is in registers. `act`
 * must be a constant where these are inlined, so that its branch is all that is left: TD_ACT_EACH
 * makes a function of each. */
#ifndef TD_KERNELS_REAL_ACT_H
#define TD_KERNELS_REAL_ACT_H
#include "kernels/isa.h"
#include "kernels/vmath.h"

#define TD_ACT_EACH(X) X(NONE) X(RELU) X(SILU) X(GELU) X(TANH) X(SIGMOID)

static inline __attribute__((always_inline)) vreal td_vact(const td_act act, vreal u) {
  switch (act) {
    case TD_ACT_RELU: return td_vkeep(~(u <= 0), u);
    case TD_ACT_SILU: return td_vsilu(u);
    case TD_ACT_GELU: return td_vgelu(u);
    case TD_ACT_TANH: return td_vtanh(u);
    case TD_ACT_SIGMOID: return td_vsigmoid(u);
    default: return u;
  }
}

/* g·act'(u); relu's slope at 0 is 0. */
static inline __attribute__((always_inline)) vreal td_vact_grad(const td_act act, vreal u, vreal g) {
  vreal s, c;
  switch (act) {
    case TD_ACT_RELU: return td_vkeep(~(u <= 0), g);
    case TD_ACT_SILU: return g * td_vsilu_slope(u);
    case TD_ACT_GELU: return g * td_vgelu_slope(u);
    case TD_ACT_TANH: s = td_vtanh(u); return g * (TD_C(1) - s * s);
    case TD_ACT_SIGMOID: td_vsigmoid2(u, &s, &c); return g * (s * c);
    default: return g;
  }
}

#endif
