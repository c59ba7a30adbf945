/* Loading and storing rows of any element type as `real`: the edge of an element-wise program.
 * Every conversion is defined: a real becomes an integer by truncation, NaN becomes 0, what does
 * not fit becomes the nearest value that does; an int64 becomes a uint8 modulo 256. */
#ifndef TD_KERNELS_POINTWISE_CONVERT_H
#define TD_KERNELS_POINTWISE_CONVERT_H
#include "kernels/isa.h"

static inline int64_t i64_from_f64(double x) {
  if (x >= 0x1p63) return INT64_MAX;
  if (x <= -0x1p63) return INT64_MIN;
  return x == x ? (int64_t)x : 0;
}
static inline uint8_t u8_from_f64(double x) {
  x = x > 0 ? x : 0; /* NaN too */
  return (uint8_t)(int32_t)(x < 255 ? x : 255);
}
static inline uint8_t u8_from_f32(float x) {
  x = x > 0 ? x : 0;
  return (uint8_t)(int32_t)(x < 255 ? x : 255);
}

#if TD_KREAL == 2
#define TD_FROM_F32(x) i64_from_f64((double)(x))
#define TD_FROM_F64(x) i64_from_f64(x)
#define TD_TO_I64(x) (x)
#define TD_TO_U8(x) ((uint8_t)((uint64_t)(x) & 255))
#else
#define TD_FROM_F32(x) ((real)(x))
#define TD_FROM_F64(x) ((real)(x))
#define TD_TO_I64(x) i64_from_f64((double)(x))
#define TD_TO_U8(x) (TD_KREAL == 0 ? u8_from_f32((float)(x)) : u8_from_f64((double)(x)))
#endif

/* Keeps a loop from being turned into gathers and scatters, which cost more than the moves they
 * replace. */
#define TD_ONE_BY_ONE(p) __asm__("" : "+r"(p))

/* n elements from s to d, whose strides are ds and ss elements. */
typedef void (*td_row_move)(void *d, ptrdiff_t ds, const void *s, ptrdiff_t ss, size_t n);

#define TD_ROW_MOVE(name, dtype, stype, convert)                                     \
  static void name(void *dv, ptrdiff_t ds, const void *sv, ptrdiff_t ss, size_t n) { \
    dtype *restrict d = dv;                                                          \
    const stype *restrict s = sv;                                                    \
    if (ds == 1 && ss == 1) {                                                        \
      for (size_t i = 0; i < n; i++) d[i] = (dtype)convert(s[i]);                    \
    } else if (ds == 1 && ss == 0) {                                                 \
      const dtype x = (dtype)convert(*s);                                            \
      for (size_t i = 0; i < n; i++) d[i] = x;                                       \
    } else {                                                                         \
      for (size_t i = 0; i < n; i++, d += ds, s += ss) {                             \
        *d = (dtype)convert(*s);                                                     \
        TD_ONE_BY_ONE(d);                                                            \
      }                                                                              \
    }                                                                                \
  }

TD_ROW_MOVE(load_f32, real, float, TD_FROM_F32)
TD_ROW_MOVE(load_f64, real, double, TD_FROM_F64)
TD_ROW_MOVE(load_i64, real, int64_t, (real))
TD_ROW_MOVE(load_u8, real, uint8_t, (real))
TD_ROW_MOVE(store_f32, float, real, (float))
TD_ROW_MOVE(store_f64, double, real, (double))
TD_ROW_MOVE(store_i64, int64_t, real, TD_TO_I64)
TD_ROW_MOVE(store_u8, uint8_t, real, TD_TO_U8)

static const td_row_move td_row_load[TD_DTYPE_COUNT] = {
    [TD_F32] = load_f32, [TD_F64] = load_f64, [TD_I64] = load_i64, [TD_U8] = load_u8};
static const td_row_move td_row_store[TD_DTYPE_COUNT] = {
    [TD_F32] = store_f32, [TD_F64] = store_f64, [TD_I64] = store_i64, [TD_U8] = store_u8};

#endif
