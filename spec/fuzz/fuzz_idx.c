/* Any bytes given to the IDX reader, plain and gzip. */
#include "fuzz.h"
#include "io/idx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  td_tensor *t;
  td_status status = td_idx_from_memory(data, n, "input", &t);
  fuzz_check(status, t);
  return 0;
}
