/* What every target asks of what it reads. */
#ifndef TD_FUZZ_H
#define TD_FUZZ_H
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include "tensor/tensor.h"

static inline void fuzz_require(int truth) {
  if (!truth) abort();
}

/* A failure has a message and no tensor; a success has a tensor whose every byte may be read.
 * Releases t. */
static inline void fuzz_check(td_status status, td_tensor *t) {
  fuzz_require(!status == (t != NULL));
  if (status) {
    fuzz_require(td_last_status() == status && td_last_message()[0] != 0);
    return;
  }
  fuzz_require(td_tensor_is_contiguous(t));
  volatile char sum = 0;
  for (size_t i = 0; i < t->numel * td_dtype_size(t->dtype); i++) sum = (char)(sum ^ t->data[i]);
  td_tensor_release(t);
}

#endif
