/* Stable sort of each row, with the positions the elements came from. An element becomes an
 * unsigned key that sorts in the wanted order (both zeros alike, every NaN last), so that one
 * integer sort serves all types and both directions: merge sort for short rows, radix sort for long
 * ones. A row takes O(n log n); rows are spread over the threads. */
#include "kernels/isa.h"
#include "kernels/reduce.h"

enum { RUN = 16, RADIX_FROM = 512, DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS };

#if TD_KREAL == 0
typedef uint32_t key;
#else
typedef uint64_t key;
#endif

typedef struct {
  key k;
  uint64_t at;
} pair;

typedef struct {
  real *y;
  int64_t *at;
  const real *x;
  size_t n;
  bool descending;
} job;

/* The key of x: keys compare as the sorted order wants the elements. */
static inline key key_of(real x, bool descending) {
  const key top = (key)1 << (8 * sizeof(key) - 1);
#if TD_KREAL == 2
  key k = (key)x ^ top;
#else
  if (x != x) return ~(key)0; /* no number has this key: it would be a NaN's pattern */
  if (x == 0) x = 0;          /* -0 sorts as 0 */
  key k;
  memcpy(&k, &x, sizeof k);
  k = k & top ? ~k : k | top;
#endif
  return descending ? ~k : k;
}

static void insertion_sort(pair *a, size_t n) {
  for (size_t i = 1; i < n; i++) {
    pair p = a[i];
    size_t j = i;
    for (; j > 0 && a[j - 1].k > p.k; j--) a[j] = a[j - 1];
    a[j] = p;
  }
}

/* Merges the sorted a[0..m) and a[m..n) into b; of equals the left one comes first. */
static void merge(pair *restrict b, const pair *restrict a, size_t m, size_t n) {
  size_t i = 0, j = m, k = 0;
  while (i < m && j < n) {
    bool right = a[j].k < a[i].k;
    b[k++] = a[right ? j : i];
    i += !right;
    j += right;
  }
  memcpy(b + k, a + i, (m - i) * sizeof *a);
  k += m - i;
  memcpy(b + k, a + j, (n - j) * sizeof *a);
}

/* Sorts a with b as work space; returns the one of the two that holds the result. */
static pair *merge_sort(pair *a, pair *b, size_t n) {
  for (size_t i = 0; i < n; i += RUN) insertion_sort(a + i, td_min_size(n - i, RUN));
  for (size_t run = RUN; run < n; run *= 2) {
    for (size_t i = 0; i < n; i += 2 * run)
      merge(b + i, a + i, td_min_size(n - i, run), td_min_size(n - i, 2 * run));
    pair *t = a;
    a = b;
    b = t;
  }
  return a;
}

/* The same by digits from the least significant; a digit that all keys share costs nothing. */
static pair *radix_sort(pair *a, pair *b, size_t n) {
  for (unsigned shift = 0; shift < 8 * sizeof(key); shift += DIGIT_BITS) {
    size_t start[DIGITS] = {0}, sum = 0;
    for (size_t i = 0; i < n; i++) start[a[i].k >> shift & (DIGITS - 1)]++;
    if (start[a[0].k >> shift & (DIGITS - 1)] == n) continue;
    for (int d = 0; d < DIGITS; d++) {
      size_t count = start[d];
      start[d] = sum;
      sum += count;
    }
    for (size_t i = 0; i < n; i++) b[start[a[i].k >> shift & (DIGITS - 1)]++] = a[i];
    pair *t = a;
    a = b;
    b = t;
  }
  return a;
}

/* Whether element at p comes after the element at q in the sorted row. */
static inline bool after(const job *s, const real *x, int64_t p, int64_t q) {
  key a = key_of(x[p], s->descending), b = key_of(x[q], s->descending);
  return a > b || (a == b && p > q);
}

/* Restores the heap whose root i may be too small, among the first n positions of at. */
static void sift(const job *s, const real *x, int64_t *at, size_t i, size_t n) {
  int64_t p = at[i];
  for (size_t child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && after(s, x, at[child + 1], at[child])) child++;
    if (!after(s, x, at[child], p)) break;
    at[i] = at[child];
  }
  at[i] = p;
}

/* Sorts positions in place, for when memory is refused: slower, the same result. */
static void heap_sort(const job *s, const real *x, int64_t *at) {
  size_t n = s->n;
  for (size_t i = 0; i < n; i++) at[i] = (int64_t)i;
  for (size_t i = n / 2; i-- > 0;) sift(s, x, at, i, n);
  for (size_t end = n; end-- > 1;) {
    int64_t t = at[0];
    at[0] = at[end];
    at[end] = t;
    sift(s, x, at, 0, end);
  }
}

static void sort_row(const job *s, const real *x, real *y, int64_t *at, pair *a) {
  size_t n = s->n;
  if (!a) {
    heap_sort(s, x, at);
  } else {
    for (size_t i = 0; i < n; i++) a[i] = (pair){key_of(x[i], s->descending), i};
    const pair *r = n < RADIX_FROM ? merge_sort(a, a + n, n) : radix_sort(a, a + n, n);
    for (size_t i = 0; i < n; i++) at[i] = (int64_t)r[i].at;
  }
  for (size_t i = 0; i < n; i++) y[i] = x[at[i]];
}

static void sort_rows(void *ctx, size_t begin, size_t end) {
  const job *s = ctx;
  size_t n = s->n;
  pair *a = td_scratch(2 * n * sizeof *a);
  for (size_t i = begin; i < end; i++) sort_row(s, s->x + i * n, s->y + i * n, s->at + i * n, a);
}

void TD_K(sort)(void *y, int64_t *at, const void *x, size_t rows, size_t n, bool descending) {
  if (rows == 0 || n == 0) return;
  job s = {y, at, x, n, descending};
  td_parallel(rows, td_grain(16 * n), sort_rows, &s);
}
