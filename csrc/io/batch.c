/* Making batches. Each output row is cut from its source row into a buffer of stored values,
 * mirrored there if need be, and normalised on its way out: v·scale + shift with scale and shift
 * laid out for a whole row. */
#include "io/batch.h"
#include <stdint.h>
#include <string.h>
#include "base/random.h"
#include "base/threads.h"
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")  /* vectorises the normalisation */
#endif

enum { STREAM_ORDER, STREAM_IMAGE };

/* The counter of the i-th draw of a stream in an epoch: no two coincide below 2³² draws and 2³¹
 * epochs. */
static uint64_t counter_of(uint64_t epoch, unsigned stream, uint64_t i) {
  return epoch << 33 | (uint64_t)stream << 32 | i;
}

/* A number in 0 … n-1 of 64 random bits, their product's upper half. */
static size_t below(size_t n, const uint32_t bits[2]) {
  uint64_t r = (uint64_t)bits[1] << 32 | bits[0];
  return (size_t)((unsigned __int128)r * n >> 64);
}

td_status td_batch_order(size_t n, uint64_t seed, uint64_t epoch, td_tensor **order) {
  *order = NULL;
  if (n > UINT32_MAX) return td_fail(TD_EARG, "expected at most 2^32-1 images, got %zu", n);
  td_tensor *t = td_tensor_new(TD_I64, 1, &n);
  if (!t) return td_last_status();
  int64_t *x = (int64_t *)(void *)t->data;
  for (size_t i = 0; i < n; i++) {  /* the shuffle of Fisher and Yates, from the inside out */
    uint32_t bits[4];
    td_philox(seed, counter_of(epoch, STREAM_ORDER, i), bits);
    size_t j = below(i + 1, bits);
    x[i] = x[j];
    x[j] = (int64_t)i;
  }
  *order = t;
  return TD_OK;
}

typedef struct {
  const td_tensor *images;
  const int64_t *order;         /* of the batch's first image */
  size_t first;                 /* its place in the epoch */
  const td_batch_options *o;
  const float *scale, *shift;   /* for a row of values */
  td_tensor *buffer;            /* a row of stored values for each thread */
  float *out;
} batch_task;

/* What is drawn for one image: the window's corner relative to the image's, and whether it is
 * mirrored. */
typedef struct {
  ptrdiff_t dy, dx;
  bool flip;
} draw;

static draw draw_for(const td_batch_options *o, size_t place) {
  draw d = {0, 0, false};
  if (o->crop == 0 && o->flip <= 0) return d;
  uint32_t bits[4];
  td_philox(o->seed, counter_of(o->epoch, STREAM_IMAGE, place), bits);
  size_t span = 2 * o->crop + 1;
  d.dy = (ptrdiff_t)(((uint64_t)bits[0] * span) >> 32) - (ptrdiff_t)o->crop;
  d.dx = (ptrdiff_t)(((uint64_t)bits[1] * span) >> 32) - (ptrdiff_t)o->crop;
  d.flip = bits[2] * 0x1p-32 < o->flip;
  return d;
}

/* Cuts w pixels of `size` bytes beginning at pixel dx, which may lie outside of the row: zeros
 * there. */
static void cut_row(unsigned char *restrict dst, const unsigned char *row, size_t w, size_t size,
                    ptrdiff_t dx) {
  size_t skip = (size_t)(dx < 0 ? -dx : dx);
  if (skip > w) skip = w;
  size_t kept = (w - skip) * size, gap = skip * size;
  if (dx < 0) {
    memset(dst, 0, gap);
    memcpy(dst + gap, row, kept);
  } else {
    memcpy(dst, row + gap, kept);
    memset(dst + kept, 0, gap);
  }
}

static void mirror_row(unsigned char *row, size_t w, size_t size) {
  for (size_t a = 0, b = (w - 1) * size; a < b; a += size, b -= size) {
    for (size_t i = 0; i < size; i++) {
      unsigned char v = row[a + i];
      row[a + i] = row[b + i];
      row[b + i] = v;
    }
  }
}

static void normalise_u8(float *restrict y, const unsigned char *restrict x,
                         const float *restrict scale, const float *restrict shift, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = (float)x[i] * scale[i] + shift[i];
}

static void normalise_f32(float *restrict y, const float *restrict x, const float *restrict scale,
                          const float *restrict shift, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = x[i] * scale[i] + shift[i];
}

/* One image, through a buffer for a row. */
static void make_image(const batch_task *t, size_t k, unsigned char *buffer) {
  const td_tensor *images = t->images;
  size_t h = images->shape[1], w = images->shape[2], c = images->shape[3];
  size_t size = c * td_dtype_size(images->dtype), n = w * c;
  const unsigned char *image =
      (const unsigned char *)images->data + (size_t)t->order[k] * h * w * size;
  draw d = draw_for(t->o, t->first + k);
  for (size_t y = 0; y < h; y++) {
    ptrdiff_t sy = (ptrdiff_t)y + d.dy;
    if (sy < 0 || sy >= (ptrdiff_t)h) memset(buffer, 0, w * size);
    else cut_row(buffer, image + (size_t)sy * w * size, w, size, d.dx);
    if (d.flip) mirror_row(buffer, w, size);
    float *out = t->out + (k * h + y) * n;
    if (images->dtype == TD_U8) normalise_u8(out, buffer, t->scale, t->shift, n);
    else normalise_f32(out, (const float *)(const void *)buffer, t->scale, t->shift, n);
  }
}

static void make_images(void *ctx, size_t begin, size_t end) {
  const batch_task *t = ctx;
  size_t thread = (size_t)td_thread_index();
  unsigned char *buffer = (unsigned char *)t->buffer->data + thread * t->buffer->stride[0];
  for (size_t k = begin; k < end; k++) make_image(t, k, buffer);
}

/* Are order[first] … order[first+count-1] there, and places in n items? */
static td_status check_places(const td_tensor *order, size_t first, size_t count, size_t n) {
  if (order->dtype != TD_I64 || order->ndim != 1 || !td_tensor_is_contiguous(order) ||
      first > order->numel || count > order->numel - first)
    return td_fail(TD_EARG, "expected an int64 order of at least %zu places, got %s of shape %s",
                   first + count, td_dtype_name(order->dtype), td_tensor_shape_string(order));
  const int64_t *x = (const int64_t *)(const void *)order->data;
  for (size_t i = first; i < first + count; i++)
    if (x[i] < 0 || (uint64_t)x[i] >= n)
      return td_fail(TD_EARG, "expected places below %zu, got %lld", n, (long long)x[i]);
  return TD_OK;
}

static td_status check_images(const td_tensor *t) {
  if (t->dtype != TD_U8 && t->dtype != TD_F32)
    return td_fail(TD_EDTYPE, "expected uint8 or float32 images, got %s", td_dtype_name(t->dtype));
  if (t->ndim != 4 || !td_tensor_is_contiguous(t) || t->numel == 0)
    return td_fail(TD_ESHAPE, "expected contiguous images of N×H×W×C, none of them 0, got %s",
                   td_tensor_shape_string(t));
  return TD_OK;
}

td_status td_batch_images(const td_tensor *images, const td_tensor *order, size_t first,
                          size_t count, const td_batch_options *o, td_tensor **out) {
  *out = NULL;
  td_status status = check_images(images);
  if (!status) status = check_places(order, first, count, images->shape[0]);
  if (status) return status;
  size_t h = images->shape[1], w = images->shape[2], c = images->shape[3], n = w * c;
  if (o->crop > h || o->crop > w)
    return td_fail(TD_EARG, "expected a crop of at most the image's size %zu×%zu, got %zu", h, w,
                   o->crop);
  td_tensor *row = td_tensor_new(TD_F32, 2, (size_t[]){2, n});
  size_t row_bytes = (n * td_dtype_size(images->dtype) + 63) / 64 * 64;
  td_tensor *buffer = td_tensor_new(TD_U8, 2, (size_t[]){(size_t)td_threads(), row_bytes});
  td_tensor *t = td_tensor_new(TD_F32, 4, (size_t[]){count, h, w, c});
  if (row && buffer && t) {
    float *scale = (float *)(void *)row->data, *shift = scale + n;
    for (size_t i = 0; i < n; i++) {
      scale[i] = o->scale[i % c];
      shift[i] = o->shift[i % c];
    }
    const int64_t *place = (const int64_t *)(const void *)order->data + first;
    batch_task task = {images, place, first, o, scale, shift, buffer, (float *)(void *)t->data};
    td_parallel(count, 8, make_images, &task);
    *out = t;
  } else {
    status = td_last_status();
    td_tensor_release(t);
  }
  td_tensor_release(buffer);
  td_tensor_release(row);
  return status;
}

td_status td_batch_labels(const td_tensor *labels, const td_tensor *order, size_t first,
                          size_t count, td_tensor **out) {
  *out = NULL;
  if (labels->dtype != TD_I64 || labels->ndim != 1 || !td_tensor_is_contiguous(labels))
    return td_fail(TD_EDTYPE, "expected int64 labels of one dimension, got %s of shape %s",
                   td_dtype_name(labels->dtype), td_tensor_shape_string(labels));
  td_status status = check_places(order, first, count, labels->numel);
  if (status) return status;
  td_tensor *t = td_tensor_new(TD_I64, 1, &count);
  if (!t) return td_last_status();
  const int64_t *x = (const int64_t *)(const void *)labels->data;
  const int64_t *place = (const int64_t *)(const void *)order->data + first;
  int64_t *y = (int64_t *)(void *)t->data;
  for (size_t i = 0; i < count; i++) y[i] = x[place[i]];
  *out = t;
  return TD_OK;
}
