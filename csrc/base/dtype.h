/* Element types. */
#ifndef TD_BASE_DTYPE_H
#define TD_BASE_DTYPE_H
#include <stdbool.h>
#include <stddef.h>

#define TD_MAX_DIMS 8

typedef enum { TD_F32, TD_F64, TD_I64, TD_U8, TD_DTYPE_COUNT } td_dtype;

static inline size_t td_dtype_size(td_dtype d) {
  static const unsigned char size[TD_DTYPE_COUNT] = {4, 8, 8, 1};
  return size[d];
}
static inline const char *td_dtype_name(td_dtype d) {
  static const char *const name[TD_DTYPE_COUNT] = {"float32", "float64", "int64", "uint8"};
  return name[d];
}
static inline bool td_dtype_is_real(td_dtype d) { return d <= TD_F64; }

#endif
