/* IDX files, the format of MNIST and its kin, plain or gzip: a whole array of up to 8 dimensions.
 * Elements are big-endian in the file and become the nearest tensor type (see element.h). */
#ifndef TD_IO_IDX_H
#define TD_IO_IDX_H
#include "tensor/tensor.h"

td_status td_idx_read(const char *path, td_tensor **out);
td_status td_idx_from_memory(const void *bytes, size_t n, const char *name, td_tensor **out);

#endif
