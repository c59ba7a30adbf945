/* A plain or gzip byte source. */
#include "io/source.h"
#include <stdint.h>
#include <string.h>

static bool starts_gzip(const unsigned char *p, size_t n) {
  return n >= 2 && p[0] == 0x1f && p[1] == 0x8b;
}

td_status td_source_open(td_source *s, const void *bytes, size_t n, const char *name) {
  *s = (td_source){.data = bytes, .size = n, .name = name, .gzip = starts_gzip(bytes, n)};
  if (s->gzip && inflateInit2(&s->z, MAX_WBITS + 16) != Z_OK)
    return td_fail(TD_ENOMEM, "%s: no memory to inflate it", name);
  return TD_OK;
}

void td_source_close(td_source *s) {
  if (s->gzip) inflateEnd(&s->z);
}

/* Goes on with another gzip stream right behind the one that ended: gzip files may be joined. */
static td_status next_member(td_source *s) {
  if (s->pos == s->size) {
    s->ended = true;
    return TD_OK;
  }
  if (!starts_gzip(s->data + s->pos, s->size - s->pos))
    return td_fail(
        TD_EIO, "%s: expected the end of the file behind the gzip stream, found %zu further bytes",
        s->name, s->size - s->pos);
  inflateReset(&s->z);
  return TD_OK;
}

/* Inflates up to n bytes; fewer only at the end. */
static td_status inflate_some(td_source *s, unsigned char *dst, size_t n, size_t *got) {
  const size_t most = 1u << 30;  /* zlib counts in unsigned int */
  *got = 0;
  while (*got < n && !s->ended) {
    size_t in = s->size - s->pos, out = n - *got;
    if (in > most) in = most;
    if (out > most) out = most;
    s->z.next_in = (Bytef *)(uintptr_t)(s->data + s->pos);  /* zlib does not write to its input */
    s->z.avail_in = (uInt)in;
    s->z.next_out = dst + *got;
    s->z.avail_out = (uInt)out;
    int code = inflate(&s->z, Z_NO_FLUSH);
    s->pos += in - s->z.avail_in;
    *got += out - s->z.avail_out;
    if (code == Z_STREAM_END) {
      td_status status = next_member(s);
      if (status) return status;
    } else if (code == Z_BUF_ERROR) {
      return td_fail(TD_EIO, "%s: the gzip stream is cut off after %zu bytes", s->name, s->size);
    } else if (code == Z_MEM_ERROR) {
      return td_fail(TD_ENOMEM, "%s: no memory to inflate it", s->name);
    } else if (code != Z_OK) {
      return td_fail(TD_EIO, "%s: the gzip stream is damaged near byte %zu: %s", s->name, s->pos,
                     s->z.msg ? s->z.msg : "unknown reason");
    }
  }
  return TD_OK;
}

static td_status read_some(td_source *s, void *dst, size_t n, size_t *got) {
  if (s->gzip) return inflate_some(s, dst, n, got);
  size_t left = s->size - s->pos;
  *got = n < left ? n : left;
  if (*got) memcpy(dst, s->data + s->pos, *got);
  s->pos += *got;
  return TD_OK;
}

td_status td_source_read(td_source *s, void *dst, size_t n) {
  size_t got;
  td_status status = read_some(s, dst, n, &got);
  if (!status && got < n)
    status = td_fail(TD_EIO, "%s: expected %zu more bytes, found %zu", s->name, n, got);
  return status;
}

td_status td_source_end(td_source *s) {
  size_t got;
  unsigned char extra;
  td_status status = read_some(s, &extra, 1, &got);
  if (!status && got)
    status = td_fail(TD_EIO, "%s: expected the end of the data, found more", s->name);
  return status;
}

size_t td_source_bound(const td_source *s) {
  size_t left = s->size - s->pos;
  /* 65,536: bytes already taken in by zlib and not yet given out (its window is half of that) */
  return s->gzip ? td_deflate_bound(left) + 65536 : left;
}

size_t td_deflate_bound(size_t n) {
  return n > SIZE_MAX / 2 / TD_DEFLATE_RATIO ? SIZE_MAX / 2 : n * TD_DEFLATE_RATIO;
}
