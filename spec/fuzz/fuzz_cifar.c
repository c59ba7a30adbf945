/* Any bytes given to the two CIFAR readers. */
#include "fuzz.h"
#include "io/cifar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  td_tensor *images, *coarse, *fine;
  td_status status = td_cifar10_from_memory(data, n, "input", &images, &fine);
  fuzz_check(status, images);
  fuzz_check(status, fine);
  status = td_cifar100_from_memory(data, n, "input", &images, &coarse, &fine);
  fuzz_check(status, images);
  fuzz_check(status, coarse);
  fuzz_check(status, fine);
  return 0;
}
