/* Bytes read in order from memory, inflated on the way when they are a gzip stream. */
#ifndef TD_IO_SOURCE_H
#define TD_IO_SOURCE_H
#include <stdbool.h>
#include <stddef.h>
#include <zlib.h>
#include "base/error.h"

typedef struct {
  const unsigned char *data;
  size_t size, pos;    /* of the stored bytes, not of the inflated ones */
  const char *name;    /* of the file, for messages */
  bool gzip, ended;    /* ended: the last gzip stream is complete and its checksum was right */
  z_stream z;
} td_source;

/* Looks at `bytes`, which the caller keeps. Every opened source is closed. */
td_status td_source_open(td_source *s, const void *bytes, size_t n, const char *name);
void td_source_close(td_source *s);
/* The next n bytes, or a failure saying how many there were. */
td_status td_source_read(td_source *s, void *dst, size_t n);
/* Fails unless all bytes have been read and the checksum is right. */
td_status td_source_end(td_source *s);
/* No more bytes than this can still come: what a header claims is held against it before memory is
 * taken. */
size_t td_source_bound(const td_source *s);

/* Deflate makes at most 1032 bytes of one (258 bytes from two bits). */
enum { TD_DEFLATE_RATIO = 1032 };
/* The most bytes that n bytes of a deflate stream can become. */
size_t td_deflate_bound(size_t n);

#endif
