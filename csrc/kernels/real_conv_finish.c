/* The part of a convolution's epilogue that is done when its sums are in memory but still in the
 * cache: y = act(y + add). */
#include "kernels/real_act.h"
#include "kernels/real_conv.h"

typedef void (*finish_fn)(real *y, const real *add, size_t count, size_t n, size_t pitch);

/* One function for each activation; `run` does a run of n elements. */
#define FINISH(name)                                                                              \
  static inline void run_##name(real *y, const real *add, size_t n) {                             \
    size_t i = 0;                                                                                 \
    if (add)                                                                                      \
      for (; i + TD_LANES <= n; i += TD_LANES)                                                    \
        td_store(y + i, td_vact(TD_ACT_##name, td_load(y + i) + td_load(add + i)));               \
    else                                                                                          \
      for (; i + TD_LANES <= n; i += TD_LANES)                                                    \
        td_store(y + i, td_vact(TD_ACT_##name, td_load(y + i)));                                  \
    if (i == n) return;                                                                           \
    vreal u = td_load_part(y + i, n - i);                                                         \
    if (add) u += td_load_part(add + i, n - i);                                                   \
    td_store_part(y + i, td_vact(TD_ACT_##name, u), n - i);                                       \
  }                                                                                               \
  static void finish_##name(real *y, const real *add, size_t count, size_t n, size_t pitch) {     \
    for (size_t i = 0; i < count; i++, y += pitch) {                                              \
      run_##name(y, add, n);                                                                      \
      if (add) add += pitch;                                                                      \
    }                                                                                             \
  }
TD_ACT_EACH(FINISH)
#define ENTRY(name) [TD_ACT_##name] = finish_##name,
static const finish_fn finish_table[TD_ACT_COUNT] = {TD_ACT_EACH(ENTRY)};

void TD_K(conv_finish)(real *y, const real *add, size_t count, size_t n, size_t pitch, td_act act) {
  if (add || act != TD_ACT_NONE) finish_table[act](y, add, count, n, pitch);
}
