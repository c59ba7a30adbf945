/* Copying between two layouts of the same array: views made contiguous, windows written. It moves bytes, so it knows
 * element sizes only, and is compiled once. Where the two layouts run along different dims, the copy goes tile by tile:
 * a tile is read along the one and written along the other, so that every cache line is used whole. */
#include <string.h>
#include "base/threads.h"
#include "kernels/kernels.h"

enum { TILE = 16, GRAIN_BYTES = 1 << 16 };

typedef struct {
  int ndim;
  size_t shape[TD_MAX_DIMS];
  size_t ys[TD_MAX_DIMS], xs[TD_MAX_DIMS]; /* strides in elements */
  char *y;
  const char *x;
  size_t size;
  int across;   /* the dim along which x runs, when it is not the last; else -1 */
  size_t tiles; /* of the dim `across` */
} layout;

/* ---- Choosing the order of the loops ---- */

static void exchange(size_t *v, int a, int b) {
  size_t t = v[a];
  v[a] = v[b];
  v[b] = t;
}

/* Dims of size 1 out, the others in the order of y's strides, greatest first; neighbours that run on in both layouts
 * become one. */
static void simplify(layout *l) {
  int n = 0;
  for (int i = 0; i < l->ndim; i++) {
    if (l->shape[i] == 1) continue;
    l->shape[n] = l->shape[i], l->ys[n] = l->ys[i], l->xs[n] = l->xs[i];
    for (int k = n; k > 0 && l->ys[k] > l->ys[k - 1]; k--) {
      exchange(l->shape, k, k - 1);
      exchange(l->ys, k, k - 1);
      exchange(l->xs, k, k - 1);
    }
    n++;
  }
  l->ndim = n;
  n = l->ndim ? 1 : 0;
  for (int i = 1; i < l->ndim; i++) {
    if (l->ys[n - 1] == l->shape[i] * l->ys[i] && l->xs[n - 1] == l->shape[i] * l->xs[i]) {
      l->shape[n - 1] *= l->shape[i], l->ys[n - 1] = l->ys[i], l->xs[n - 1] = l->xs[i];
    } else {
      l->shape[n] = l->shape[i], l->ys[n] = l->ys[i], l->xs[n] = l->xs[i];
      n++;
    }
  }
  if (n == 0) l->shape[0] = l->ys[0] = l->xs[0] = 1, n = 1;
  l->ndim = n;
}

/* ---- Rows and tiles, by element size ---- */

/* Tensors are aligned to their element size, but their element type is unknown here. */
typedef uint8_t any8;
typedef uint32_t any32 __attribute__((may_alias));
typedef uint64_t any64 __attribute__((may_alias));

/* Four rows (or two, of 64-bit elements) of a square turned in registers: y[i·ys + k] = x[k·xs + i]. */
typedef uint32_t quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint64_t twin __attribute__((vector_size(16), aligned(8), may_alias));
#if defined(__clang__) || __GNUC__ >= 12
#define MIX4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#define MIX2(a, b, i, j) __builtin_shufflevector(a, b, i, j)
#else
#define MIX4(a, b, i, j, k, l) __builtin_shuffle(a, b, (quad){i, j, k, l})
#define MIX2(a, b, i, j) __builtin_shuffle(a, b, (twin){i, j})
#endif

static inline void turn_any32(any32 *y, size_t ys, const any32 *x, size_t xs) {
  quad a = *(const quad *)x, b = *(const quad *)(x + xs), c = *(const quad *)(x + 2 * xs),
       d = *(const quad *)(x + 3 * xs);
  quad ab = MIX4(a, b, 0, 4, 1, 5), cd = MIX4(c, d, 0, 4, 1, 5);
  *(quad *)y = MIX4(ab, cd, 0, 1, 4, 5);
  *(quad *)(y + ys) = MIX4(ab, cd, 2, 3, 6, 7);
  ab = MIX4(a, b, 2, 6, 3, 7), cd = MIX4(c, d, 2, 6, 3, 7);
  *(quad *)(y + 2 * ys) = MIX4(ab, cd, 0, 1, 4, 5);
  *(quad *)(y + 3 * ys) = MIX4(ab, cd, 2, 3, 6, 7);
}
static inline void turn_any64(any64 *y, size_t ys, const any64 *x, size_t xs) {
  twin a = *(const twin *)x, b = *(const twin *)(x + xs);
  *(twin *)y = MIX2(a, b, 0, 2);
  *(twin *)(y + ys) = MIX2(a, b, 1, 3);
}
static inline void turn_any8(any8 *y, size_t ys, const any8 *x, size_t xs) {
  for (size_t i = 0; i < 4; i++)
    for (size_t k = 0; k < 4; k++) y[i * ys + k] = x[k * xs + i];
}

#define FOR_SIZE(type_, side_)                                                                          \
  static void row_##type_(type_ *y, size_t ys, const type_ *x, size_t xs, size_t n) {                   \
    if (ys == 1 && xs == 1) memcpy(y, x, n * sizeof *y);                                                \
    else                                                                                                \
      for (size_t i = 0; i < n; i++) y[i * ys] = x[i * xs];                                             \
  }                                                                                                     \
  /* y[i·ys + k] = x[k·xs + i] for i < rows, k < cols: y runs along k, x along i */                     \
  static void tile_##type_(type_ *y, size_t ys, const type_ *x, size_t xs, size_t rows, size_t cols) {  \
    size_t r = rows - rows % side_, c = cols - cols % side_;                                            \
    for (size_t i = 0; i < r; i += side_)                                                               \
      for (size_t k = 0; k < c; k += side_) turn_##type_(y + i * ys + k, ys, x + k * xs + i, xs);       \
    for (size_t i = 0; i < rows; i++)                                                                   \
      for (size_t k = i < r ? c : 0; k < cols; k++) y[i * ys + k] = x[k * xs + i];                      \
  }                                                                                                     \
  static void tiles_##type_(type_ *y, size_t ys, const type_ *x, size_t xs, size_t rows, size_t cols) { \
    for (size_t k = 0; k < cols; k += TILE)                                                             \
      tile_##type_(y + k, ys, x + k * xs, xs, rows, cols - k < TILE ? cols - k : TILE);                 \
  }
FOR_SIZE(any8, 4)
FOR_SIZE(any32, 4)
FOR_SIZE(any64, 2)

/* ---- Walking ---- */

/* Items: all dims but the last, the dim `across` counting tiles. */
static void copy_items(void *ctx, size_t begin, size_t end) {
  const layout *l = ctx;
  int last = l->ndim - 1;
  for (size_t item = begin; item < end; item++) {
    size_t rest = item, yo = 0, xo = 0, first = 0;
    for (int i = last - 1; i >= 0; i--) {
      size_t n = i == l->across ? l->tiles : l->shape[i], at = rest % n;
      rest /= n;
      if (i == l->across) at *= TILE, first = at;
      yo += at * l->ys[i];
      xo += at * l->xs[i];
    }
    char *y = l->y + yo * l->size;
    const char *x = l->x + xo * l->size;
    size_t n = l->shape[last], ys = l->ys[last], xs = l->xs[last];
    if (l->across >= 0) {
      size_t rows = l->shape[l->across] - first < TILE ? l->shape[l->across] - first : TILE, step = l->ys[l->across];
      if (l->size == 4) tiles_any32((any32 *)(void *)y, step, (const any32 *)(const void *)x, xs, rows, n);
      else if (l->size == 8) tiles_any64((any64 *)(void *)y, step, (const any64 *)(const void *)x, xs, rows, n);
      else tiles_any8((any8 *)y, step, (const any8 *)x, xs, rows, n);
    } else {
      if (l->size == 4) row_any32((any32 *)(void *)y, ys, (const any32 *)(const void *)x, xs, n);
      else if (l->size == 8) row_any64((any64 *)(void *)y, ys, (const any64 *)(const void *)x, xs, n);
      else row_any8((any8 *)y, ys, (const any8 *)x, xs, n);
    }
  }
}

void td_k_rearrange(void *y, const size_t *ys, const void *x, const size_t *xs, int ndim, const size_t *shape,
                    size_t size) {
  layout l = {.ndim = ndim, .y = y, .x = x, .size = size, .across = -1, .tiles = 1};
  for (int i = 0; i < ndim; i++) {
    if (shape[i] == 0) return;
    l.shape[i] = shape[i], l.ys[i] = ys[i], l.xs[i] = xs[i];
  }
  simplify(&l);
  int last = l.ndim - 1;
  if (l.ys[last] == 1 && l.xs[last] > 1)
    for (int i = 0; i < last; i++)
      if (l.xs[i] == 1 && l.shape[i] >= 4) l.across = i;
  size_t items = 1, bytes = l.shape[last] * size;
  for (int i = 0; i < last; i++) {
    if (i == l.across) l.tiles = (l.shape[i] + TILE - 1) / TILE, bytes *= TILE;
    items *= i == l.across ? l.tiles : l.shape[i];
  }
  if (last == 0 && bytes > 2 * GRAIN_BYTES) {  /* one long row: in pieces */
    size_t piece = GRAIN_BYTES / size, whole = l.shape[0] / piece, rest = l.shape[0] % piece;
    layout tail = l;
    tail.shape[0] = rest;
    tail.y += whole * piece * l.ys[0] * size;
    tail.x += whole * piece * l.xs[0] * size;
    if (rest) copy_items(&tail, 0, 1);
    l.ndim = 2;
    l.shape[0] = whole, l.shape[1] = piece;
    l.ys[1] = l.ys[0], l.xs[1] = l.xs[0];
    l.ys[0] *= piece, l.xs[0] *= piece;
    items = whole, bytes = GRAIN_BYTES;
  }
  td_parallel(items, bytes >= GRAIN_BYTES ? 1 : GRAIN_BYTES / bytes, copy_items, &l);
}
