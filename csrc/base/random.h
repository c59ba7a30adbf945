/* Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011). A value
 * depends on the seed, the stream position and the element's index alone, never on the machine
 * or the number of threads. */
#ifndef TD_BASE_RANDOM_H
#define TD_BASE_RANDOM_H
#include <stdint.h>

typedef struct {
  uint64_t seed;
  uint64_t counter;  /* advanced by the number of 128-bit blocks consumed */
} td_rng;

/* One block: 128 random bits for (seed, counter). */
void td_philox(uint64_t seed, uint64_t counter, uint32_t out[4]);

#endif
