/* Checking and writing UTF-8. */
#ifndef TD_IO_UTF8_H
#define TD_IO_UTF8_H
#include <stddef.h>
#include <stdint.h>

/* The length of the well-formed character at p, of at most n bytes; 0 when there is none (also no
 * surrogates and no longer form than needed). */
size_t td_utf8_length(const char *p, size_t n);
/* Writes a code point (not a surrogate, at most 0x10ffff) in up to 4 bytes; gives their number. */
size_t td_utf8_put(char *p, uint32_t code);

#endif
