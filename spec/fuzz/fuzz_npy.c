/* Any bytes given to the .npy reader. */
#include "fuzz.h"
#include "io/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  td_tensor *t;
  td_status status = td_npy_from_memory(data, n, "input", &t);
  fuzz_check(status, t);
  return 0;
}
