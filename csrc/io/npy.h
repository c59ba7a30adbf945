/* NumPy's .npy files: one array behind a short header (format versions 1, 2 and 3).
 * Booleans, integers and floats of either byte order, in C or Fortran order, are read as the
 * nearest tensor type (see element.h); texts, records, complex numbers and Python objects are
 * refused. */
#ifndef TD_IO_NPY_H
#define TD_IO_NPY_H
#include "tensor/tensor.h"

td_status td_npy_read(const char *path, td_tensor **out);
td_status td_npy_from_memory(const void *bytes, size_t n, const char *name, td_tensor **out);
/* Writes version 1, C order, little-endian; readable by numpy.load. */
td_status td_npy_write(const char *path, td_tensor *t);

#endif
