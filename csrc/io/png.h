/* PNG images as uint8 tensors of height × width × channels, with 1 channel for grey, 2 for grey and
 * alpha, 3 for RGB, 4 for RGB and alpha. */
#ifndef TD_IO_PNG_H
#define TD_IO_PNG_H
#include "tensor/tensor.h"

/* Palettes become RGB, grey of 1, 2 or 4 bits becomes 8, 16 bits are rounded to 8, a transparent
 * colour becomes an alpha channel; values are otherwise as stored (no gamma). Images beyond
 * 1,000,000 pixels a side or 2^28 in all are refused. */
td_status td_png_read(const char *path, td_tensor **image);
td_status td_png_from_memory(const void *bytes, size_t n, const char *name, td_tensor **image);
/* Writes height × width (grey) or height × width × (1, 2, 3 or 4), of uint8, or of floats that are
 * clipped to 0 … 1 and become 0 … 255. */
td_status td_png_write(const char *path, td_tensor *image);

#endif
