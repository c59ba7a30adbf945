/* Gathering whole runs of elements by index. It moves bytes, so it knows element sizes only, and is
 * compiled once. */
#include <string.h>
#include "base/threads.h"
#include "kernels/kernels.h"

enum { GRAIN_BYTES = 1 << 16 };

typedef struct {
  char *y;
  const char *x;
  const int64_t *index;
  size_t count, n, run; /* run: bytes of x[o][i][:] */
} take;

/* Copies y[k] = x[index[k]] for one outer index, k in [0, count). */
static void take_u8(uint8_t *restrict y, const uint8_t *restrict x, const int64_t *restrict index,
                    size_t count) {
  for (size_t k = 0; k < count; k++) y[k] = x[index[k]];
}
/* Tensors are aligned to their element size, but their element type is unknown here. */
typedef uint32_t any32 __attribute__((may_alias));
typedef uint64_t any64 __attribute__((may_alias));
static void take_u32(any32 *restrict y, const any32 *restrict x, const int64_t *restrict index,
                     size_t count) {
  for (size_t k = 0; k < count; k++) y[k] = x[index[k]];
}
static void take_u64(any64 *restrict y, const any64 *restrict x, const int64_t *restrict index,
                     size_t count) {
  for (size_t k = 0; k < count; k++) y[k] = x[index[k]];
}

/* Items are the runs of y, outer×count of them. */
static void take_runs(void *ctx, size_t begin, size_t end) {
  const take *t = ctx;
  size_t run = t->run;
  while (begin < end) {
    size_t o = begin / t->count, k = begin % t->count;
    size_t count = end - begin < t->count - k ? end - begin : t->count - k;
    const char *x = t->x + o * t->n * run;
    char *y = t->y + begin * run;
    const int64_t *index = t->index + k;
    if (run == 1) take_u8((uint8_t *)y, (const uint8_t *)x, index, count);
    else if (run == 4) take_u32((any32 *)y, (const any32 *)x, index, count);
    else if (run == 8) take_u64((any64 *)y, (const any64 *)x, index, count);
    else
      for (size_t i = 0; i < count; i++) memcpy(y + i * run, x + (size_t)index[i] * run, run);
    begin += count;
  }
}

void td_k_take(void *y, const void *x, const int64_t *index, size_t count, size_t outer, size_t n,
               size_t inner, size_t size) {
  size_t run = inner * size;
  if (count == 0 || outer == 0 || run == 0) return;
  take t = {y, x, index, count, n, run};
  td_parallel(outer * count, run >= GRAIN_BYTES ? 1 : GRAIN_BYTES / run, take_runs, &t);
}
