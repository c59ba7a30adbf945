/* Reading CIFAR batches. A record is one label byte (two in CIFAR-100: coarse, fine), then 1,024
 * red, 1,024 green and 1,024 blue values, each row by row. */
#include "io/cifar.h"
#include <stdint.h>
#include "base/threads.h"
#include "io/file.h"

enum { SIDE = 32, PLANE = SIDE * SIDE, PIXELS = 3 * PLANE, MAX_LABELS = 2 };

/* One of the two data sets: what its records hold. */
typedef struct {
  const char *name;
  int nlabel;
  int classes[MAX_LABELS];
} cifar_kind;

static const cifar_kind cifar10 = {"CIFAR-10", 1, {10}};
static const cifar_kind cifar100 = {"CIFAR-100", 2, {20, 100}};

typedef struct {
  const unsigned char *src;   /* first pixel of the first record */
  unsigned char *dst;
  size_t record;              /* bytes from one record to the next */
} interleave_task;

static void interleave(void *ctx, size_t begin, size_t end) {
  const interleave_task *t = ctx;
  for (size_t n = begin; n < end; n++) {
    const unsigned char *src = t->src + n * t->record;
    unsigned char *dst = t->dst + n * PIXELS;
    for (int i = 0; i < PLANE; i++) {
      dst[3 * i] = src[i];
      dst[3 * i + 1] = src[PLANE + i];
      dst[3 * i + 2] = src[2 * PLANE + i];
    }
  }
}

static td_status copy_labels(const cifar_kind *kind, const unsigned char *src, size_t record,
                             const char *name, int which, td_tensor *labels) {
  int64_t *y = (int64_t *)(void *)labels->data;
  for (size_t n = 0; n < labels->numel; n++) {
    y[n] = src[n * record + (size_t)which];
    if (y[n] >= kind->classes[which])
      return td_fail(TD_EIO,
                     "%s: not a %s batch: expected labels of 0 to %d, found %d in record %zu", name,
                     kind->name, kind->classes[which] - 1, (int)y[n], n + 1);
  }
  return TD_OK;
}

/* Fills *images and labels[0 .. kind->nlabel-1], or leaves them NULL. */
static td_status parse(const cifar_kind *kind, const unsigned char *src, size_t size,
                       const char *name, td_tensor **images, td_tensor **labels) {
  size_t head = (size_t)kind->nlabel, record = head + PIXELS;
  if (size == 0 || size % record)
    return td_fail(TD_EIO,
                   "%s: not a %s batch: expected one or more records of %zu bytes, found %zu bytes",
                   name, kind->name, record, size);
  size_t n = size / record;
  td_status status = TD_OK;
  td_tensor *x = NULL, *y[MAX_LABELS] = {NULL};
  for (int i = 0; !status && i < kind->nlabel; i++) {
    y[i] = td_tensor_new(TD_I64, 1, &n);
    status = y[i] ? copy_labels(kind, src, record, name, i, y[i]) : td_last_status();
  }
  if (!status && !(x = td_tensor_new(TD_U8, 4, (size_t[]){n, SIDE, SIDE, 3})))
    status = td_last_status();
  if (!status) {
    interleave_task task = {src + head, (unsigned char *)x->data, record};
    td_parallel(n, 64, interleave, &task);
    *images = x;
  }
  for (int i = 0; i < kind->nlabel; i++) {
    if (status) td_tensor_release(y[i]);
    else labels[i] = y[i];
  }
  return status;
}

td_status td_cifar10_from_memory(const void *bytes, size_t n, const char *name, td_tensor **images,
                                 td_tensor **labels) {
  *images = *labels = NULL;
  return parse(&cifar10, bytes, n, name, images, labels);
}

td_status td_cifar100_from_memory(const void *bytes, size_t n, const char *name, td_tensor **images,
                                  td_tensor **coarse, td_tensor **fine) {
  td_tensor *labels[MAX_LABELS] = {NULL};
  *images = *coarse = *fine = NULL;
  td_status status = parse(&cifar100, bytes, n, name, images, labels);
  *coarse = labels[0];
  *fine = labels[1];
  return status;
}

td_status td_cifar10_read(const char *path, td_tensor **images, td_tensor **labels) {
  *images = *labels = NULL;
  td_tensor *bytes;
  td_status status = td_file_read(path, &bytes);
  if (!status) status = td_cifar10_from_memory(bytes->data, bytes->numel, path, images, labels);
  td_tensor_release(bytes);
  return status;
}

td_status td_cifar100_read(const char *path, td_tensor **images, td_tensor **coarse,
                           td_tensor **fine) {
  *images = *coarse = *fine = NULL;
  td_tensor *bytes;
  td_status status = td_file_read(path, &bytes);
  if (!status)
    status = td_cifar100_from_memory(bytes->data, bytes->numel, path, images, coarse, fine);
  td_tensor_release(bytes);
  return status;
}
