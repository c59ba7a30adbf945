/* UTF-8 as in RFC 3629. */
#include "io/utf8.h"

size_t td_utf8_length(const char *s, size_t n) {
  const unsigned char *p = (const unsigned char *)s;
  if (n == 0) return 0;
  if (p[0] < 0x80) return 1;
  size_t length = 0;
  if (p[0] >= 0xc2 && p[0] <= 0xdf) length = 2;
  if (p[0] >= 0xe0 && p[0] <= 0xef) length = 3;
  if (p[0] >= 0xf0 && p[0] <= 0xf4) length = 4;
  if (length == 0 || length > n) return 0;
  for (size_t i = 1; i < length; i++)
    if ((p[i] & 0xc0) != 0x80) return 0;
  if (p[0] == 0xe0 && p[1] < 0xa0) return 0;   /* longer than needed */
  if (p[0] == 0xed && p[1] > 0x9f) return 0;   /* a surrogate */
  if (p[0] == 0xf0 && p[1] < 0x90) return 0;   /* longer than needed */
  if (p[0] == 0xf4 && p[1] > 0x8f) return 0;   /* beyond 0x10ffff */
  return length;
}

size_t td_utf8_put(char *p, uint32_t code) {
  if (code < 0x80) {
    p[0] = (char)code;
    return 1;
  }
  size_t more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  for (size_t i = more; i > 0; i--, code >>= 6) p[i] = (char)(0x80 | (code & 0x3f));
  p[0] = (char)((more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0) | code);
  return more + 1;
}
