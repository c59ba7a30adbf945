/* Numbers that stand for what was recorded: two independent hashes of 64 bits, together long enough. */
#ifndef TD_GRAPH_KEY_H
#define TD_GRAPH_KEY_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void td_key_mix(uint64_t key[2], uint64_t v) {
  key[0] = (key[0] ^ v) * 0x9E3779B97F4A7C15u;
  key[0] ^= key[0] >> 29;
  key[1] = (key[1] + v) * 0xD6E8FEB86659FD93u;
  key[1] ^= key[1] >> 32;
}

static inline void td_key_mix_bytes(uint64_t key[2], const void *data, size_t n) {
  const char *p = data;
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t v;
    memcpy(&v, p, 8);
    td_key_mix(key, v);
  }
  if (n == 0) return;  /* (how many bytes are mixed is told before) */
  uint64_t rest = 0;
  memcpy(&rest, p, n);
  td_key_mix(key, rest);
}

#endif
