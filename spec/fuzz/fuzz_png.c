/* Any bytes given to the PNG reader. Checksums are not looked at in this build, or nothing would
 * pass them. */
#include "fuzz.h"
#include "io/png.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  td_tensor *t;
  td_status status = td_png_from_memory(data, n, "input", &t);
  fuzz_check(status, t);
  return 0;
}
