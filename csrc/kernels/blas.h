/* OpenBLAS, as tide uses it: single-threaded, from inside tide's own threads. */
#ifndef TD_KERNELS_BLAS_H
#define TD_KERNELS_BLAS_H
#include "base/error.h"

/* Called once, before any product. Sets OpenBLAS to one thread and compares a small product in both
 * precisions with a written-out one: TD_ESOLVE and a message when they differ, for then its kernels
 * do not suit this processor. */
td_status td_blas_init(void);

#endif
