/* safetensors files: named tensors and text metadata, memory-mapped.
 * Layout: the header's length (8 bytes little-endian), the header (a JSON object, padded with
 * spaces), the elements. The header maps each name to {"dtype": "F32", "shape": [2, 3],
 * "data_offsets": [begin, end]} and may map
 * "__metadata__" to an object of texts. The tensors' ranges must fill the rest of the file without
 * gap or overlap. */
#ifndef TD_IO_SAFETENSORS_H
#define TD_IO_SAFETENSORS_H
#include "io/element.h"

typedef struct {
  const char *name;     /* UTF-8 */
  td_tensor *tensor;
  td_element element;   /* in the file; when writing, F16 and BF16 are for tensors of float32 */
} td_named_tensor;

typedef struct {
  const char *key, *value;  /* UTF-8 */
} td_text_pair;

/* What a file holds, in the header's order. All that it points to belongs to it; to keep a tensor,
 * retain it. */
typedef struct {
  size_t ntensor, nmetadata;
  td_named_tensor *tensor;
  td_text_pair *metadata;
  char *text;           /* the names' storage */
} td_safetensors;

/* Maps a file. F32, F64, I64 and U8 tensors are views on the map (see td_file_map) when their
 * address is aligned; other types are converted to the nearest tensor type (see element.h). */
td_status td_safetensors_read(const char *path, td_safetensors **out);
td_status td_safetensors_from_memory(const void *bytes, size_t n, const char *name,
                                     td_safetensors **out);
void td_safetensors_free(td_safetensors *f);  /* NULL is ignored */

/* Writes a file with its header in the given order. The elements are laid out by element size,
 * largest first, from an address that 64 divides, so that each tensor is aligned when mapped. */
td_status td_safetensors_write(const char *path, size_t ntensor, const td_named_tensor *tensor,
                               size_t nmetadata, const td_text_pair *metadata);

#endif
