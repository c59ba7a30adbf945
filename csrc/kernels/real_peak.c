/* What this processor can do at most: multiply-adds that depend on nothing but themselves, for profiles. */
#include "kernels/isa.h"

enum { CHAINS = 12, ROUNDS = 4096 };

typedef struct {
  vreal sum[64];
} sums;

static void work(void *ctx, size_t begin, size_t end) {
  sums *s = ctx;
  for (size_t item = begin; item < end; item++) {
    vreal a[CHAINS];
    for (int i = 0; i < CHAINS; i++) a[i] = td_splat((real)i);
    vreal x = td_splat((real)0.999), y = td_splat((real)1e-3);
    for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 12
      for (int i = 0; i < CHAINS; i++) a[i] = a[i] * x + y;
      __asm__ volatile("" ::: "memory");
    }
    vreal total = a[0];
    for (int i = 1; i < CHAINS; i++) total += a[i];
    s->sum[item % 64] = total;
  }
}

/* Does `items` pieces of work, split over the threads, and gives the multiplications and additions done. */
double TD_K(fma_work)(size_t items) {
  sums s;
  td_parallel(items, 1, work, &s);
  return (double)items * ROUNDS * CHAINS * TD_LANES * 2;
}
