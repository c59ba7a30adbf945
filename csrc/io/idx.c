/* Reading IDX. Layout: two zero bytes, a type code, the number of dimensions, each size as a
 * big-endian uint32, then the elements in row-major order. */
#include "io/idx.h"
#include <stdint.h>
#include "io/element.h"
#include "io/file.h"
#include "io/source.h"

typedef struct {
  td_element element;
  int ndim;
  size_t shape[TD_MAX_DIMS];
  size_t bytes;   /* of all elements */
} idx_header;

static td_status read_header(td_source *s, idx_header *h) {
  static const unsigned char element[16] = {  /* by type code; 0, which is BOOL, for none */
    [0x08] = TD_E_U8, [0x09] = TD_E_I8, [0x0b] = TD_E_I16, [0x0c] = TD_E_I32, [0x0d] = TD_E_F32,
    [0x0e] = TD_E_F64};
  unsigned char b[4];
  td_status status = td_source_read(s, b, 4);
  if (status) return status;
  if (b[0] || b[1] || b[2] > 15 || !element[b[2]])
    return td_fail(TD_EIO,
                   "%s: not an IDX file: expected it to begin with 00 00 and a type of 08 to 0e, "
                   "found %02x %02x %02x",
                   s->name, b[0], b[1], b[2]);
  if (b[3] < 1 || b[3] > TD_MAX_DIMS)
    return td_fail(TD_EIO, "%s: expected 1 to %d dimensions, found %d", s->name, TD_MAX_DIMS, b[3]);
  h->element = (td_element)element[b[2]];
  h->ndim = b[3];
  for (int i = 0; i < h->ndim; i++) {
    if ((status = td_source_read(s, b, 4))) return status;
    h->shape[i] = (size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
  }
  status = td_element_bytes(h->element, h->ndim, h->shape, s->name, &h->bytes);
  if (!status && h->bytes > td_source_bound(s))
    status =
        td_fail(TD_EIO, "%s: expected %zu bytes for %s elements of %d bytes, found %s%zu", s->name,
                h->bytes, td_shape_string(h->ndim, h->shape), td_element_table[h->element].bytes,
                s->gzip ? "a gzip stream of " : "", s->size - s->pos);
  return status;
}

/* The elements as they are stored, then converted; bytes go straight to their place. */
static td_status read_elements(td_source *s, const idx_header *h, td_tensor *t) {
  if (h->element == TD_E_U8) return td_source_read(s, t->data, h->bytes);
  td_tensor *raw = td_tensor_new(TD_U8, 1, &h->bytes);
  if (!raw) return td_last_status();
  td_status status = td_source_read(s, raw->data, h->bytes);
  if (!status) status = td_element_load(t, raw->data, h->element, true, s->name);
  td_tensor_release(raw);
  return status;
}

td_status td_idx_from_memory(const void *bytes, size_t n, const char *name, td_tensor **out) {
  *out = NULL;
  td_source s;
  td_status status = td_source_open(&s, bytes, n, name);
  if (status) return status;
  idx_header h;
  td_tensor *t = NULL;
  status = read_header(&s, &h);
  if (!status && !(t = td_tensor_new(td_element_table[h.element].dtype, h.ndim, h.shape)))
    status = td_last_status();
  if (!status) status = read_elements(&s, &h, t);
  if (!status) status = td_source_end(&s);
  td_source_close(&s);
  if (status) td_tensor_release(t);
  else *out = t;
  return status;
}

td_status td_idx_read(const char *path, td_tensor **out) {
  *out = NULL;
  td_tensor *bytes;
  td_status status = td_file_read(path, &bytes);
  if (!status) status = td_idx_from_memory(bytes->data, bytes->numel, path, out);
  td_tensor_release(bytes);
  return status;
}
