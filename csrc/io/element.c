/* Conversion of stored elements, block by block through an aligned buffer. */
#include "io/element.h"
#include <math.h>
#include <string.h>
#include "base/threads.h"

#define INFO(name, bytes, dtype, safetensors, npy) {bytes, dtype, safetensors, npy},
const td_element_info td_element_table[TD_ELEMENT_COUNT] = {TD_ELEMENTS(INFO)};

enum { BLOCK = 512 };  /* elements */

td_element td_element_of(td_dtype d) {
  static const td_element element[TD_DTYPE_COUNT] = {TD_E_F32, TD_E_F64, TD_E_I64, TD_E_U8};
  return element[d];
}

/* Is the stored form also the tensor's form? */
static bool is_native(td_element e) {
  return td_element_of(td_element_table[e].dtype) == e;
}

td_status td_element_bytes(td_element e, int ndim, const size_t *shape, const char *what,
                           size_t *bytes) {
  size_t n = sizeof(double);  /* the widest tensor element */
  bool empty = false;
  for (int i = 0; i < ndim; i++) {
    if (shape[i] == 0) empty = true;
    else if (__builtin_mul_overflow(n, shape[i], &n) || n > PTRDIFF_MAX)
      return td_fail(TD_EIO, "%s: its sizes multiply to more than memory can hold", what);
  }
  *bytes = empty ? 0 : n / sizeof(double) * td_element_table[e].bytes;
  return TD_OK;
}

static float from_bits(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

/* IEEE 754 binary16: 1 sign, 5 exponent (bias 15) and 10 fraction bits. Subnormals are
 * fraction·2⁻²⁴. */
static float from_half(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (uint32_t)(h >> 10) & 31;
  uint32_t fraction = h & 0x3ff;
  if (exponent == 0) {
    float small = (float)fraction * 0x1p-24f;
    return sign ? -small : small;
  }
  uint32_t wide = exponent == 31 ? 255 : exponent + 127 - 15;
  return from_bits(sign | wide << 23 | fraction << 13);
}

/* bfloat16 is the upper half of a float. */
static float from_bfloat(uint16_t h) {
  return from_bits((uint32_t)h << 16);
}

static uint32_t to_bits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}

static uint16_t to_half(float f) {
  uint32_t bits = to_bits(f), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return (uint16_t)(sign | 0x7e00);
  if (size >= 0x47800000) return (uint16_t)(sign | 0x7c00);  /* from 2¹⁶ on */
  if (size < 0x38800000) return (uint16_t)(sign | (uint32_t)lrintf(from_bits(size) * 0x1p24f));
  size += 0xfff + (size >> 13 & 1);
  return (uint16_t)(sign | (size - ((127 - 15) << 23)) >> 13);
}

static uint16_t to_bfloat(float f) {
  uint32_t bits = to_bits(f);
  if (f != f) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

bool td_element_store(uint16_t *dst, const float *src, size_t n, td_element e) {
  const uint16_t infinite = e == TD_E_F16 ? 0x7c00 : 0x7f80;
  bool fits = true;
  for (size_t i = 0; i < n; i++) {
    dst[i] = e == TD_E_F16 ? to_half(src[i]) : to_bfloat(src[i]);
    if ((dst[i] & 0x7fff) == infinite && isfinite(src[i])) fits = false;
  }
  return fits;
}

#define SAME(x) (x)
#define NONZERO(x) ((x) != 0)
#define WIDEN(E, from, to, convert)                                       \
  case TD_E_##E: {                                                        \
    const from *x = src;                                                  \
    to *y = dst;                                                          \
    for (size_t i = 0; i < n; i++) y[i] = (to)convert(x[i]);              \
    break;                                                                \
  }

static void convert_block(void *restrict dst, const void *restrict src, size_t n, td_element e) {
  switch (e) {
    WIDEN(BOOL, uint8_t, uint8_t, NONZERO)
    WIDEN(I8, int8_t, int64_t, SAME)
    WIDEN(U16, uint16_t, int64_t, SAME)
    WIDEN(I16, int16_t, int64_t, SAME)
    WIDEN(U32, uint32_t, int64_t, SAME)
    WIDEN(I32, int32_t, int64_t, SAME)
    WIDEN(F16, uint16_t, float, from_half)
    WIDEN(BF16, uint16_t, float, from_bfloat)
    case TD_E_U8: case TD_E_U64: case TD_E_I64: case TD_E_F32: case TD_E_F64: case TD_ELEMENT_COUNT:
      memcpy(dst, src, n * td_element_table[e].bytes);  /* the same bits */
  }
}

static void reverse_each(unsigned char *p, size_t n, size_t bytes) {
  for (; n > 0; n--, p += bytes) {
    for (size_t i = 0; i < bytes / 2; i++) {
      unsigned char c = p[i];
      p[i] = p[bytes - 1 - i];
      p[bytes - 1 - i] = c;
    }
  }
}

typedef struct {
  char *dst;
  const char *src;
  td_element e;
  bool swap;
} load_task;

static void load_range(void *ctx, size_t begin, size_t end) {
  const load_task *t = ctx;
  size_t from = td_element_table[t->e].bytes, to = td_dtype_size(td_element_table[t->e].dtype);
  union { uint64_t align; unsigned char bytes[BLOCK * sizeof(uint64_t)]; } block;
  for (size_t i = begin; i < end; i += BLOCK) {
    size_t n = end - i < BLOCK ? end - i : BLOCK;
    memcpy(block.bytes, t->src + i * from, n * from);
    if (t->swap) reverse_each(block.bytes, n, from);
    convert_block(t->dst + i * to, block.bytes, n, t->e);
  }
}

td_status td_element_load(td_tensor *dst, const void *src, td_element e, bool swap,
                          const char *what) {
  if (dst->numel == 0) return TD_OK;
  load_task task = {dst->data, src, e, swap};
  td_parallel(dst->numel, 1 << 16, load_range, &task);
  if (e == TD_E_U64) {
    const int64_t *x = (const int64_t *)(const void *)dst->data;
    for (size_t i = 0; i < dst->numel; i++)
      if (x[i] < 0)
        return td_fail(TD_EIO, "%s: expected integers below 2^63, found %llu", what,
                       (unsigned long long)(uint64_t)x[i]);
  }
  return TD_OK;
}

td_status td_element_view(td_tensor *bytes, size_t offset, td_element e, bool swap, int ndim,
                          const size_t *shape, const char *what, td_tensor **out) {
  const char *src = bytes->data + offset;
  td_dtype d = td_element_table[e].dtype;
  if (is_native(e) && !swap && (uintptr_t)src % td_dtype_size(d) == 0) {
    size_t start = (size_t)(src - (const char *)bytes->storage->data);
    *out = td_tensor_from_storage(bytes->storage, d, ndim, shape, start);
    return *out ? TD_OK : td_last_status();
  }
  td_tensor *t = td_tensor_new(d, ndim, shape);
  td_status status = t ? td_element_load(t, src, e, swap, what) : td_last_status();
  if (status) td_tensor_release(t);
  *out = status ? NULL : t;
  return status;
}
