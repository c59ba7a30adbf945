/* Any bytes given to the safetensors reader. */
#include <string.h>
#include "fuzz.h"
#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  td_safetensors *f;
  td_status status = td_safetensors_from_memory(data, n, "input", &f);
  fuzz_require(!status == (f != NULL));
  if (status) {
    fuzz_check(status, NULL);
    return 0;
  }
  for (size_t i = 0; i < f->ntensor; i++) {
    fuzz_require(strlen(f->tensor[i].name) < n);
    fuzz_check(TD_OK, td_tensor_retain(f->tensor[i].tensor));
  }
  for (size_t i = 0; i < f->nmetadata; i++)
    fuzz_require(strlen(f->metadata[i].key) + strlen(f->metadata[i].value) < n);
  td_safetensors_free(f);
  return 0;
}
