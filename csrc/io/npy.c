/* Reading and writing .npy. Layout: 0x93 "NUMPY", version (major, minor), header length (2 bytes
 * little-endian in version 1, else 4), header, elements. The header is a Python dictionary with
 * exactly the keys descr (the element type, as '<f4'), fortran_order (True or False) and shape (a
 * tuple), padded with spaces and closed by a newline. */
#include "io/npy.h"
#include <stdio.h>
#include <string.h>
#include "io/element.h"
#include "io/file.h"
#include "io/scan.h"

typedef struct {
  td_element element;
  bool swap, fortran;
  int ndim;
  size_t shape[TD_MAX_DIMS];
} npy_header;

/* A quoted text without escapes: all keys and types are so. */
static td_status scan_text(td_scan *s, const char **text, size_t *n) {
  char quote = td_scan_accept(s, '\'') ? '\'' : td_scan_accept(s, '"') ? '"' : 0;
  if (!quote) return td_scan_fail(s, "a quoted text");
  *text = s->p;
  while (s->p < s->end && *s->p != quote && *s->p != '\\' && *s->p != '\n') s->p++;
  *n = (size_t)(s->p - *text);
  return s->p < s->end && *s->p == quote ? (s->p++, TD_OK) : td_scan_fail(s, "the closing quote");
}

/* A type such as '<f4': byte order (< little, > big, | none, = the writer's, taken as little),
 * kind, size. */
static td_status scan_descr(td_scan *s, npy_header *h) {
  const char *text;
  size_t n;
  if (td_scan_accept(s, '['))
    return td_fail(TD_EIO, "%s: expected an array of numbers, found an array of records", s->name);
  td_status status = scan_text(s, &text, &n);
  if (status) return status;
  if (n == 3 && strchr("<>|=", text[0])) {
    for (int e = 0; e < TD_ELEMENT_COUNT; e++) {
      const char *npy = td_element_table[e].npy;
      if (!npy || memcmp(npy, text + 1, 2) != 0) continue;
      if (text[0] == '|' && td_element_table[e].bytes > 1) break;
      h->element = (td_element)e;
      h->swap = text[0] == '>';
      return TD_OK;
    }
  }
  return td_fail(TD_EIO, "%s: expected elements of a boolean, integer or float type, found '%s'",
                 s->name, td_printable_span(text, n).text);
}

static td_status scan_order(td_scan *s, npy_header *h) {
  h->fortran = td_scan_accept_word(s, "True");
  if (h->fortran || td_scan_accept_word(s, "False")) return TD_OK;
  return td_scan_fail(s, "True or False");
}

static td_status scan_shape(td_scan *s, npy_header *h) {
  td_status status = td_scan_expect(s, '(');
  for (h->ndim = 0; !status && !td_scan_accept(s, ')');) {
    if (h->ndim == TD_MAX_DIMS)
      return td_fail(TD_EIO, "%s: expected at most %d dimensions, found more", s->name,
                     TD_MAX_DIMS);
    status = td_scan_size(s, &h->shape[h->ndim]);
    if (status) break;
    h->ndim++;
    bool comma = td_scan_accept(s, ',');
    if (!comma && h->ndim == 1) return td_scan_fail(s, "','");  /* (3) is a number, (3,) a tuple */
    if (!comma) return td_scan_expect(s, ')');
  }
  return status;
}

static td_status scan_header(td_scan *s, npy_header *h) {
  static const char *const key[3] = {"descr", "fortran_order", "shape"};
  static td_status (*const scan_value[3])(td_scan *, npy_header *) = {scan_descr, scan_order,
                                                                      scan_shape};
  unsigned seen = 0;
  td_status status = td_scan_expect(s, '{');
  while (!status && !td_scan_accept(s, '}')) {
    const char *text;
    size_t n;
    if ((status = scan_text(s, &text, &n))) return status;
    int k = 0;
    while (k < 3 && (strlen(key[k]) != n || memcmp(key[k], text, n) != 0)) k++;
    if (k == 3 || (seen & 1u << k))
      return td_fail(TD_EIO,
                     "%s: header: expected the keys descr, fortran_order and shape, found %s'%s'",
                     s->name, k == 3 ? "" : "a second ", td_printable_span(text, n).text);
    seen |= 1u << k;
    if ((status = td_scan_expect(s, ':')) || (status = scan_value[k](s, h))) return status;
    if (!td_scan_accept(s, ',')) {
      status = td_scan_expect(s, '}');
      break;
    }
  }
  if (!status && seen != 7)
    return td_fail(TD_EIO,
                   "%s: header: expected the keys descr, fortran_order and shape, found no %s",
                   s->name,
                   !(seen & 1) ? key[0] : !(seen & 2) ? key[1] : key[2]);
  return status ? status : td_scan_end(s);
}

/* Finds the header's text and the offset of the elements. */
static td_status find_header(const unsigned char *p, size_t n, const char *name, td_scan *s,
                             size_t *data) {
  if (n < 10 || memcmp(p, "\x93NUMPY", 6) != 0)
    return td_fail(TD_EIO, "%s: not an .npy file: expected it to begin with 93 'NUMPY'", name);
  if (p[6] < 1 || p[6] > 3 || p[7] != 0)
    return td_fail(TD_EIO, "%s: expected .npy version 1.0, 2.0 or 3.0, found %d.%d", name, p[6],
                   p[7]);
  size_t start = p[6] == 1 ? 10 : 12;
  size_t length = p[8] | (size_t)p[9] << 8;
  if (n < start) return td_fail(TD_EIO, "%s: expected a header, found the end of the file", name);
  if (start == 12) length |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
  if (length > n - start)
    return td_fail(TD_EIO, "%s: expected a header of %zu bytes, found %zu", name, length,
                   n - start);
  const char *text = (const char *)p + start;
  *s = (td_scan){text, text, text + length, name};
  *data = start + length;
  return TD_OK;
}

/* Column-major elements, as stored, into a row-major tensor. */
static td_status from_fortran(td_tensor *bytes, size_t offset, const npy_header *h,
                              const char *name, td_tensor **out) {
  size_t reversed[TD_MAX_DIMS], stride[TD_MAX_DIMS], step = 1;
  for (int i = 0; i < h->ndim; i++) {
    reversed[i] = h->shape[h->ndim - 1 - i];
    stride[i] = step;
    step *= h->shape[i];
  }
  td_tensor *stored;
  td_status status =
      td_element_view(bytes, offset, h->element, h->swap, h->ndim, reversed, name, &stored);
  if (status) return status;
  td_tensor *view = td_tensor_view(stored, h->ndim, h->shape, stride, 0);
  *out = view ? td_tensor_contiguous(view) : NULL;
  if (!*out) status = td_last_status();
  td_tensor_release(view);
  td_tensor_release(stored);
  return status;
}

static td_status parse(td_tensor *bytes, const char *name, td_tensor **out) {
  npy_header h = {0};
  td_scan s;
  size_t data = 0, need = 0;
  td_status status = find_header((const unsigned char *)bytes->data, bytes->numel, name, &s, &data);
  if (!status) status = scan_header(&s, &h);
  if (!status) status = td_element_bytes(h.element, h.ndim, h.shape, name, &need);
  if (status) return status;
  if (need != bytes->numel - data)
    return td_fail(TD_EIO, "%s: expected %zu bytes for %s elements of %d bytes, found %zu", name,
                   need, td_shape_string(h.ndim, h.shape), td_element_table[h.element].bytes,
                   bytes->numel - data);
  if (h.fortran && need && h.ndim > 1) return from_fortran(bytes, data, &h, name, out);
  return td_element_view(bytes, data, h.element, h.swap, h.ndim, h.shape, name, out);
}

td_status td_npy_read(const char *path, td_tensor **out) {
  *out = NULL;
  td_tensor *bytes;
  td_status status = td_file_read(path, &bytes);
  if (!status) status = parse(bytes, path, out);
  td_tensor_release(bytes);
  return status;
}

td_status td_npy_from_memory(const void *data, size_t n, const char *name, td_tensor **out) {
  *out = NULL;
  td_tensor *bytes;
  td_status status = td_bytes_copy(data, n, &bytes);
  if (!status) status = parse(bytes, name, out);
  td_tensor_release(bytes);
  return status;
}

td_status td_npy_write(const char *path, td_tensor *t) {
  td_element e = td_element_of(t->dtype);
  char head[512] = "\x93NUMPY\x01";  /* 8 sizes of 20 digits fit */
  int n = 10 + snprintf(head + 10, sizeof head - 10,
                        "{'descr': '%c%s', 'fortran_order': False, 'shape': (",
                        td_element_table[e].bytes == 1 ? '|' : '<', td_element_table[e].npy);
  for (int i = 0; i < t->ndim; i++)
    n += snprintf(head + n, sizeof head - (size_t)n, "%zu%s", t->shape[i],
                  i + 1 < t->ndim ? ", " : t->ndim == 1 ? "," : "");
  n += snprintf(head + n, sizeof head - (size_t)n, "), }");
  int total = (n + 1 + 63) / 64 * 64;  /* numpy aligns the elements to 64 bytes */
  memset(head + n, ' ', (size_t)(total - n));
  head[total - 1] = '\n';
  head[8] = (char)((total - 10) & 255);
  head[9] = (char)((total - 10) >> 8);
  td_writer w;
  td_status status = td_writer_open(&w, path);
  if (status) return status;
  td_writer_put(&w, head, (size_t)total);
  return td_writer_close(&w, td_writer_put_tensor(&w, t));
}
