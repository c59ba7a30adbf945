/* A strict reader of the small texts inside binary files: the headers of safetensors (JSON) and npy
 * (a Python literal). Nothing here allocates; every failure names the file, the place, and what was
 * expected and found. */
#ifndef TD_IO_SCAN_H
#define TD_IO_SCAN_H
#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

typedef struct {
  const char *begin, *p, *end;  /* p: the next character */
  const char *name;             /* of the file */
} td_scan;

/* Skips white space, then takes c if it comes next. */
bool td_scan_accept(td_scan *s, char c);
td_status td_scan_expect(td_scan *s, char c);
/* Takes a word if it comes next, letter by letter. */
bool td_scan_accept_word(td_scan *s, const char *word);
/* A decimal integer ≥ 0 that fits a size_t, without sign or leading zeros. */
td_status td_scan_size(td_scan *s, size_t *value);
/* Fails unless only white space is left. */
td_status td_scan_end(td_scan *s);
/* "file: header, byte 12: expected …, found 'x'" */
td_status td_scan_fail(const td_scan *s, const char *expected);

/* A text from a file made fit for a message: at most 60 bytes, then dots; what cannot be
 * printed as '?'. */
typedef struct { char text[64]; } td_printable;
td_printable td_printable_of(const char *s);
td_printable td_printable_span(const char *s, size_t n);

#endif
