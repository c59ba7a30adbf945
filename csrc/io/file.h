/* Whole files as bytes, and files written so that a reader never sees half of one.
 * A file that is read becomes a uint8 tensor of one dimension; readers make views on its storage,
 * which stays alive (or mapped) for as long as one of them does. */
#ifndef TD_IO_FILE_H
#define TD_IO_FILE_H
#include <stdbool.h>
#include <stdio.h>
#include "tensor/tensor.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the readers expect a little-endian processor");

/* Maps a regular file: no byte is read before it is looked at. Pages are copied when written, so
 * tensors on the map may be changed in place and the file stays as it is. The file must not be cut
 * short while it is mapped (replacing it by a rename, as td_writer does, is fine). */
td_status td_file_map(const char *path, td_tensor **bytes);

/* Reads a regular file into memory. */
td_status td_file_read(const char *path, td_tensor **bytes);

/* A copy of n bytes as a tensor, for readers that keep views of what they are given. */
td_status td_bytes_copy(const void *data, size_t n, td_tensor **bytes);

/* A file being written, under a temporary name beside its own until td_writer_close. */
typedef struct {
  FILE *file;
  char *path;   /* where it will be; a symbolic link has been followed */
  char *temp;   /* where it is now */
  td_status status;
} td_writer;

/* Starts writing. On failure there is nothing to close. */
td_status td_writer_open(td_writer *w, const char *path);
/* Appends. After the first failure further calls do nothing and give the same status. */
td_status td_writer_put(td_writer *w, const void *data, size_t n);
/* Appends the elements of t in row-major order. */
td_status td_writer_put_tensor(td_writer *w, td_tensor *t);
/* Ends the file: moves it to its own name when `status` is TD_OK and all was written, else removes
 * it and leaves what was there before. Gives the first failure. */
td_status td_writer_close(td_writer *w, td_status status);

#endif
