/* Reading the texts inside binary files. */
#include "io/scan.h"
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "io/utf8.h"

static void skip_space(td_scan *s) {
  while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r')) s->p++;
}

bool td_scan_accept(td_scan *s, char c) {
  skip_space(s);
  if (s->p == s->end || *s->p != c) return false;
  s->p++;
  return true;
}

td_status td_scan_expect(td_scan *s, char c) {
  if (td_scan_accept(s, c)) return TD_OK;
  char what[4] = {'\'', c, '\'', 0};
  return td_scan_fail(s, what);
}

bool td_scan_accept_word(td_scan *s, const char *word) {
  skip_space(s);
  size_t n = strlen(word);
  if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0) return false;
  s->p += n;
  return true;
}

td_status td_scan_size(td_scan *s, size_t *value) {
  skip_space(s);
  const char *first = s->p;
  size_t v = 0;
  for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++) {
    if (__builtin_mul_overflow(v, (size_t)10, &v) ||
        __builtin_add_overflow(v, (size_t)(*s->p - '0'), &v)) {
      s->p = first;
      return td_scan_fail(s, "an integer below 2^64");
    }
  }
  if (s->p == first || (*first == '0' && s->p - first > 1)) {
    s->p = first;
    return td_scan_fail(s, "a whole number, 0 or more, without leading zeros");
  }
  *value = v;
  return TD_OK;
}

td_status td_scan_end(td_scan *s) {
  skip_space(s);
  return s->p == s->end ? TD_OK : td_scan_fail(s, "the end of the header");
}

td_status td_scan_fail(const td_scan *s, const char *expected) {
  long at = (long)(s->p - s->begin);
  if (s->p == s->end)
    return td_fail(TD_EIO, "%s: header, byte %ld: expected %s, found the end of the header",
                   s->name, at, expected);
  unsigned char c = (unsigned char)*s->p;
  if (c < 32 || c > 126)
    return td_fail(TD_EIO, "%s: header, byte %ld: expected %s, found byte 0x%02x", s->name, at,
                   expected, c);
  return td_fail(TD_EIO, "%s: header, byte %ld: expected %s, found '%c'", s->name, at, expected, c);
}

td_printable td_printable_span(const char *s, size_t n) {
  td_printable out = {{0}};
  size_t used = 0;
  while (n > 0) {
    size_t length = td_utf8_length(s, n);
    bool shown = length > 0 && (unsigned char)*s >= 32 && *s != 127;
    if (!length) length = 1;
    if (used + length > sizeof out.text - 4) {  /* room for the dots and the zero */
      memcpy(out.text + used, "...", 3);
      break;
    }
    if (shown) memcpy(out.text + used, s, length);
    else out.text[used] = '?';
    used += shown ? length : 1;
    s += length;
    n -= length;
  }
  return out;
}

td_printable td_printable_of(const char *s) {
  return td_printable_span(s, strlen(s));
}
