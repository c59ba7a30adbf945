/* The element types that files have and tensors have not, and their conversion to the nearest
 * tensor type that holds every value: small floats become float32, booleans uint8, other integers
 * int64. */
#ifndef TD_IO_ELEMENT_H
#define TD_IO_ELEMENT_H
#include <stdbool.h>
#include <stdint.h>
#include "tensor/tensor.h"

/* name, bytes, tensor type, safetensors' name, npy's kind and size */
#define TD_ELEMENTS(X)                                                                            \
  X(BOOL, 1, TD_U8, "BOOL", "b1") X(U8, 1, TD_U8, "U8", "u1") X(I8, 1, TD_I64, "I8", "i1")        \
  X(U16, 2, TD_I64, "U16", "u2") X(I16, 2, TD_I64, "I16", "i2")                                   \
  X(U32, 4, TD_I64, "U32", "u4") X(I32, 4, TD_I64, "I32", "i4")                                   \
  X(U64, 8, TD_I64, "U64", "u8") X(I64, 8, TD_I64, "I64", "i8")                                   \
  X(F16, 2, TD_F32, "F16", "f2") X(BF16, 2, TD_F32, "BF16", NULL)                                 \
  X(F32, 4, TD_F32, "F32", "f4") X(F64, 8, TD_F64, "F64", "f8")

#define TD_ELEMENT_ENUM(name, bytes, dtype, safetensors, npy) TD_E_##name,
typedef enum { TD_ELEMENTS(TD_ELEMENT_ENUM) TD_ELEMENT_COUNT } td_element;
#undef TD_ELEMENT_ENUM

typedef struct {
  unsigned char bytes;
  td_dtype dtype;
  const char *safetensors, *npy;
} td_element_info;

extern const td_element_info td_element_table[TD_ELEMENT_COUNT];

/* The element type that a tensor of this dtype is written as. */
td_element td_element_of(td_dtype d);

/* The bytes that this many elements take in a file, 0 when a size is 0. Fails when they could not
 * be held in memory once converted, whatever the order in which sizes are multiplied. `what` names
 * the file and part. */
td_status td_element_bytes(td_element e, int ndim, const size_t *shape, const char *what,
                           size_t *bytes);

/* Fills dst, which is contiguous and of the element's tensor type, from dst->numel stored elements
 * at any address. `swap`: they are big-endian. Fails on a uint64 beyond int64, the only value that
 * does not fit. */
td_status td_element_load(td_tensor *dst, const void *src, td_element e, bool swap,
                          const char *what);

/* n elements of a tensor of float32 as F16 or BF16, to nearest, ties to even. False when a finite one is beyond the
 * greatest that the type holds. */
bool td_element_store(uint16_t *dst, const float *src, size_t n, td_element e);

/* A tensor over the elements stored in `bytes` from `offset` on (inside it, checked by the caller):
 * a view when the tensor type is the same and the address aligned, else a converted copy. */
td_status td_element_view(td_tensor *bytes, size_t offset, td_element e, bool swap, int ndim,
                          const size_t *shape, const char *what, td_tensor **out);

#endif
