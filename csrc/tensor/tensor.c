/* Tensors: construction, views, reference counts, copies. */
#include "tensor/tensor.h"
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "base/alloc.h"
#include "kernels/forms.h"
#include "kernels/kernels.h"

void (*td_tensor_node_release)(struct td_node *);
void (*td_tensor_node_retain)(struct td_node *);
uint32_t td_capture_era;
td_tensor *(*td_capture_clone)(const td_tensor *t);
td_status (*td_capture_copy)(td_tensor *dst, const td_tensor *src);
td_status (*td_capture_spare)(td_storage *s);

/* A tensor of at most INLINE_BYTES is one block: itself, its storage, and at HEAD_BYTES the data. A larger one is
 * three: itself, its storage, and the data. */
enum { INLINE_BYTES = 4096, HEAD_BYTES = 256, STORAGE_BYTES = 64 };

typedef struct {
  td_tensor tensor;
  td_storage storage;
} head;

_Static_assert(sizeof(head) <= HEAD_BYTES, "the data begins behind the head");
_Static_assert(sizeof(td_storage) <= STORAGE_BYTES, "a storage fits into its block");

td_storage *td_storage_wrap(void *data, size_t bytes, void (*release)(td_storage *), void *owner) {
  td_storage *s = td_alloc(STORAGE_BYTES);
  if (!s) return NULL;
  *s = (td_storage){.data = data, .bytes = bytes, .refs = 1, .release = release, .owner = owner, .era = td_capture_era};
  return s;
}

void td_storage_release(td_storage *s) {
  if (!s || --s->refs > 0) return;
  if (s->forms) td_forms_free(&s->forms);
  if (s->home) {
    td_free(s->home, HEAD_BYTES + s->bytes);
    return;
  }
  if (s->release) s->release(s);
  else td_free(s->data, s->bytes);
  td_free(s, STORAGE_BYTES);
}

void td_strides(int ndim, const size_t *shape, size_t *stride) {
  size_t step = 1;
  for (int i = ndim - 1; i >= 0; i--) {
    stride[i] = step;
    step *= shape[i] ? shape[i] : 1;
  }
}

td_status td_count(int ndim, const size_t *shape, size_t *count) {
  size_t n = 1;
  if (ndim < 0 || ndim > TD_MAX_DIMS)
    return td_fail(TD_ESHAPE, "a tensor has at most %d dims, not %d", TD_MAX_DIMS, ndim);
  for (int i = 0; i < ndim; i++)
    if (__builtin_mul_overflow(n, shape[i], &n) || n > SIZE_MAX / 16)
      return td_fail(TD_ENOMEM, "a tensor of shape (%s) is too large", td_shape_string(ndim, shape));
  *count = n;
  return TD_OK;
}

static void fill_header(td_tensor *t, td_dtype d, int ndim, const size_t *shape, size_t numel) {
  t->refs = 1;
  t->dtype = d;
  t->ndim = ndim;
  t->slot = 0;
  t->weak = t->was_captured = false;
  t->storage = NULL;
  t->data = NULL;
  t->numel = numel;
  t->node = NULL;
  for (int i = 0; i < ndim; i++) t->shape[i] = shape[i];
}

static td_tensor *tensor_header(td_dtype d, int ndim, const size_t *shape, size_t numel) {
  td_tensor *t = td_alloc(sizeof *t);
  if (t) fill_header(t, d, ndim, shape, numel);
  return t;
}

static td_tensor *small_tensor(td_dtype d, int ndim, const size_t *shape, size_t numel, size_t bytes) {
  head *h = td_alloc(HEAD_BYTES + bytes);
  if (!h) return NULL;
  td_tensor *t = &h->tensor;
  fill_header(t, d, ndim, shape, numel);
  h->storage = (td_storage){.data = (char *)h + HEAD_BYTES, .bytes = bytes, .refs = 1, .home = t, .era = td_capture_era};
  t->storage = &h->storage;
  return t;
}

static td_tensor *large_tensor(td_dtype d, int ndim, const size_t *shape, size_t numel, size_t bytes) {
  td_tensor *t = tensor_header(d, ndim, shape, numel);
  td_storage *s = t ? td_storage_wrap(NULL, bytes, NULL, NULL) : NULL;
  void *data = s ? td_alloc(bytes) : NULL;
  if (!data) {
    td_free(s, STORAGE_BYTES);
    td_free(t, sizeof *t);
    return NULL;
  }
  s->data = data;
  t->storage = s;
  return t;
}

td_tensor *td_tensor_new(td_dtype d, int ndim, const size_t *shape) {
  size_t numel;
  if (td_count(ndim, shape, &numel)) return NULL;
  size_t bytes = numel * td_dtype_size(d);
  td_tensor *t = (bytes <= INLINE_BYTES ? small_tensor : large_tensor)(d, ndim, shape, numel, bytes);
  if (!t) return NULL;
  t->data = t->storage->data;
  td_strides(ndim, shape, t->stride);
  return t;
}

/* Addresses that no one may touch, in which virtual tensors pretend to lie: their views are told apart by their
 * offsets. */
static void *nowhere(void) {
  static void *base;
  if (!base) base = mmap(NULL, (size_t)1 << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return base == MAP_FAILED ? (void *)64 : base;
}

static void release_nothing(td_storage *s) { (void)s; }

td_tensor *td_tensor_virtual(td_dtype d, int ndim, const size_t *shape) {
  size_t numel;
  if (td_count(ndim, shape, &numel)) return NULL;
  td_tensor *t = tensor_header(d, ndim, shape, numel);
  td_storage *s = t ? td_storage_wrap(nowhere(), numel * td_dtype_size(d), release_nothing, NULL) : NULL;
  if (!s) {
    td_free(t, sizeof *t);
    return NULL;
  }
  s->is_virtual = true;
  t->storage = s;
  t->data = s->data;
  td_strides(ndim, shape, t->stride);
  return t;
}

td_tensor *td_tensor_zeros(td_dtype d, int ndim, const size_t *shape) {
  td_tensor *t = td_tensor_new(d, ndim, shape);
  if (t) memset(t->data, 0, t->numel * td_dtype_size(d));
  return t;
}

td_tensor *td_tensor_number(td_dtype d, double value, bool weak) {
  td_tensor *t = td_tensor_new(d, 0, NULL);
  if (!t) return NULL;
  t->weak = weak;
  td_tensor_set(t, 0, value);
  return t;
}

td_tensor *td_tensor_from_storage(td_storage *s, td_dtype d, int ndim, const size_t *shape,
                                  size_t byte_offset) {
  size_t numel;
  if (td_count(ndim, shape, &numel)) return NULL;
  if (byte_offset > s->bytes || numel > (s->bytes - byte_offset) / td_dtype_size(d)) {
    td_fail(TD_EARG, "a tensor of shape (%s) does not fit into a storage of %zu bytes at offset %zu",
            td_shape_string(ndim, shape), s->bytes, byte_offset);
    return NULL;
  }
  td_tensor *t = tensor_header(d, ndim, shape, numel);
  if (!t) return NULL;
  s->refs++;
  t->storage = s;
  t->data = (char *)s->data + byte_offset;
  td_strides(ndim, shape, t->stride);
  return t;
}

td_tensor *td_tensor_view(const td_tensor *t, int ndim, const size_t *shape, const size_t *stride,
                          size_t offset) {
  size_t numel = 1;
  for (int i = 0; i < ndim; i++) numel *= shape[i];
  td_tensor *v = tensor_header(t->dtype, ndim, shape, numel);
  if (!v) return NULL;
  for (int i = 0; i < ndim; i++) v->stride[i] = stride[i];
  v->storage = t->storage;
  if (t->storage) {
    t->storage->refs++;
    v->data = t->data + offset * td_dtype_size(t->dtype);
  }
  return v;
}

td_tensor *td_tensor_alias(const td_tensor *t) {
  return td_tensor_view(t, t->ndim, t->shape, t->stride, 0);
}

td_tensor *td_tensor_shape_only(const td_tensor *t) {
  td_tensor *v = tensor_header(t->dtype, t->ndim, t->shape, t->numel);
  if (!v) return NULL;
  td_strides(t->ndim, t->shape, v->stride);
  v->slot = t->slot;
  v->node = t->node;
  if (v->node) td_tensor_node_retain(v->node);
  return v;
}

td_tensor *td_tensor_retain(td_tensor *t) {
  if (t) t->refs++;
  return t;
}

void td_tensor_release(td_tensor *t) {
  if (!t || --t->refs > 0) return;
  struct td_node *node = t->node;
  bool at_home = t->storage && t->storage->home == t;  /* then the storage's block is t's own */
  td_storage_release(t->storage);
  if (!at_home) td_free(t, sizeof *t);
  if (node) td_tensor_node_release(node);
}

bool td_tensor_is_contiguous(const td_tensor *t) {
  size_t step = 1;
  for (int i = t->ndim - 1; i >= 0; i--) {
    if (t->shape[i] != 1 && t->stride[i] != step) return t->numel == 0;
    step *= t->shape[i];
  }
  return true;
}

bool td_tensor_is_writable(const td_tensor *t) {
  for (int i = 0; i < t->ndim; i++)
    if (t->shape[i] > 1 && t->stride[i] == 0) return t->numel == 0;
  return true;
}

bool td_tensor_same_shape(const td_tensor *a, const td_tensor *b) {
  if (a->ndim != b->ndim) return false;
  for (int i = 0; i < a->ndim; i++)
    if (a->shape[i] != b->shape[i]) return false;
  return true;
}

/* Copies src to dst element by element; src's dims are matched from the right and size 1 is repeated. */
static td_status copy_elements(td_tensor *dst, const td_tensor *src) {
  td_pw p = {.ndim = dst->ndim, .nin = 1, .nout = 1, .nstep = 0, .out_reg = {0}};
  int lead = dst->ndim - src->ndim;
  bool fits = lead >= 0;
  for (int i = 0; i < dst->ndim && fits; i++) {
    size_t s = i < lead ? 1 : src->shape[i - lead];
    fits = s == dst->shape[i] || s == 1;
    p.shape[i] = dst->shape[i];
    p.in[0].stride[i] = s == 1 ? 0 : (ptrdiff_t)src->stride[i - lead];
    p.out[0].stride[i] = (ptrdiff_t)dst->stride[i];
  }
  if (!fits)
    return td_fail(TD_ESHAPE, "copy: a tensor of shape (%s) does not broadcast to (%s)",
                   td_tensor_shape_string(src), td_tensor_shape_string(dst));
  if (dst->numel == 0) return TD_OK;
  if (src->dtype == dst->dtype) {
    size_t repeated[TD_MAX_DIMS];
    for (int i = 0; i < dst->ndim; i++) repeated[i] = (size_t)p.in[0].stride[i];
    td_k_rearrange(dst->data, dst->stride, src->data, repeated, dst->ndim, dst->shape, td_dtype_size(dst->dtype));
    return TD_OK;
  }
  p.in[0].data = src->data;
  p.in[0].dtype = src->dtype;
  p.out[0].data = dst->data;
  p.out[0].dtype = dst->dtype;
  td_k(td_dtype_is_real(dst->dtype) || !td_dtype_is_real(src->dtype) ? dst->dtype : src->dtype)->pointwise(&p);
  return TD_OK;
}

static bool same_strides(const td_tensor *a, const td_tensor *b) {
  for (int i = 0; i < a->ndim; i++)
    if (a->shape[i] > 1 && a->stride[i] != b->stride[i]) return false;
  return true;
}

td_status td_tensor_copy(td_tensor *dst, const td_tensor *src) {
  td_tensor *own = NULL;
  if (!td_tensor_is_known(dst) || !td_tensor_is_known(src)) return td_capture_copy(dst, src);
  if (!td_tensor_is_writable(dst))
    return td_fail(TD_EARG, "copy: elements of the expanded tensor of shape (%s) share memory; clone() it first",
                   td_tensor_shape_string(dst));
  bool same = src->data == dst->data && td_tensor_same_shape(src, dst) && same_strides(src, dst);
  if (src->storage == dst->storage && !same) {  /* may overlap */
    own = td_tensor_clone(src);
    if (!own) return td_last_status();
    src = own;
  }
  td_status s = td_capture_era ? td_capture_spare(dst->storage) : TD_OK;
  dst->storage->version++;
  if (!s) s = copy_elements(dst, src);
  td_tensor_release(own);
  return s;
}

td_tensor *td_tensor_clone(const td_tensor *t) {
  if (!td_tensor_is_known(t)) return td_capture_clone(t);
  td_tensor *c = td_tensor_new(t->dtype, t->ndim, t->shape);
  if (!c) return NULL;
  if (td_tensor_is_contiguous(t))
    memcpy(c->data, t->data, t->numel * td_dtype_size(t->dtype));
  else
    copy_elements(c, t);
  return c;
}

td_tensor *td_tensor_contiguous(td_tensor *t) {
  return td_tensor_is_contiguous(t) ? td_tensor_retain(t) : td_tensor_clone(t);
}

td_status td_tensor_fill(td_tensor *t, double value) {
  td_dtype d = td_dtype_is_real(t->dtype) ? TD_F64 : TD_I64;
  td_tensor *v = td_tensor_number(d, value, false);
  if (!v) return td_last_status();
  td_status s = td_tensor_copy(t, v);
  td_tensor_release(v);
  return s;
}

double td_tensor_get(const td_tensor *t, size_t i) {
  switch (t->dtype) {
    case TD_F32: return ((const float *)(const void *)t->data)[i];
    case TD_F64: return ((const double *)(const void *)t->data)[i];
    case TD_I64: return (double)((const int64_t *)(const void *)t->data)[i];
    default: return ((const uint8_t *)t->data)[i];
  }
}

/* A number as an integer, with every value defined: NaN gives 0, others are clipped to the range. */
static int64_t integer_of(double v) {
  if (v != v) return 0;
  if (v >= 9223372036854775807.0) return INT64_MAX;
  if (v <= -9223372036854775808.0) return INT64_MIN;
  return (int64_t)v;
}

void td_tensor_set(td_tensor *t, size_t i, double value) {
  switch (t->dtype) {
    case TD_F32: ((float *)(void *)t->data)[i] = (float)value; break;
    case TD_F64: ((double *)(void *)t->data)[i] = value; break;
    case TD_I64: ((int64_t *)(void *)t->data)[i] = integer_of(value); break;
    default: {
      int64_t v = integer_of(value);
      ((uint8_t *)t->data)[i] = v < 0 ? 0 : v > 255 ? 255 : (uint8_t)v;
    }
  }
}

const char *td_shape_string(int ndim, const size_t *shape) {
  static char ring[8][160];
  static int next;
  char *s = ring[next++ & 7];
  size_t used = 0;
  s[0] = 0;
  if (ndim == 0) strcpy(s, "0-d");
  for (int i = 0; i < ndim && used < sizeof ring[0] - 24; i++)
    used += (size_t)snprintf(s + used, sizeof ring[0] - used, i ? "×%zu" : "%zu", shape[i]);
  return s;
}

const char *td_tensor_shape_string(const td_tensor *t) { return td_shape_string(t->ndim, t->shape); }
