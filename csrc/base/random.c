/* Philox4x32-10: ten rounds of a keyed bijection on 128 bits. */
#include "base/random.h"

enum { ROUNDS = 10 };

/* One round (section 4.3 of the paper, constants of its table 2): two 32×32→64 bit products,
 * whose high halves are mixed with the other words and the key. */
static void philox_round(uint32_t x[4], uint32_t key0, uint32_t key1) {
  uint64_t p0 = (uint64_t)0xD2511F53u * x[0];
  uint64_t p1 = (uint64_t)0xCD9E8D57u * x[2];
  uint32_t y0 = (uint32_t)(p1 >> 32) ^ x[1] ^ key0;
  uint32_t y2 = (uint32_t)(p0 >> 32) ^ x[3] ^ key1;
  x[1] = (uint32_t)p1;
  x[3] = (uint32_t)p0;
  x[0] = y0;
  x[2] = y2;
}

/* x: the 128-bit counter, least significant word first; replaced by the random words. */
static void philox(uint32_t x[4], uint32_t key0, uint32_t key1) {
  for (int r = 0; r < ROUNDS; r++) {
    philox_round(x, key0, key1);
    key0 += 0x9E3779B9u; /* golden ratio */
    key1 += 0xBB67AE85u; /* sqrt(3) - 1 */
  }
}

/* The counter's upper 64 bits are 0; the key is the seed, least significant word first. */
void td_philox(uint64_t seed, uint64_t counter, uint32_t out[4]) {
  out[0] = (uint32_t)counter;
  out[1] = (uint32_t)(counter >> 32);
  out[2] = 0;
  out[3] = 0;
  philox(out, (uint32_t)seed, (uint32_t)(seed >> 32));
}
