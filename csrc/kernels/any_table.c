/* The table of this element type's and instruction set's kernels. */
#include "kernels/isa.h"

#define TD_DECLARE(ret, name, params) ret TD_K(name) params;
#define TD_ENTRY(ret, name, params) .name = TD_K(name),
TD_KERNELS_ANY(TD_DECLARE)
#if TD_KREAL < 2
TD_KERNELS_REAL(TD_DECLARE)
#endif

extern const td_kernels TD_K(table);
const td_kernels TD_K(table) = {
  TD_KERNELS_ANY(TD_ENTRY)
#if TD_KREAL < 2
  TD_KERNELS_REAL(TD_ENTRY)
#endif
};
