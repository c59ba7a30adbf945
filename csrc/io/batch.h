/* Batches of a set of images for training: shuffled, cropped, mirrored and normalised in one pass
 * over memory. All randomness is counter-based: it depends on the seed, the epoch and the place in
 * the epoch alone. */
#ifndef TD_IO_BATCH_H
#define TD_IO_BATCH_H
#include "tensor/tensor.h"

typedef struct {
  uint64_t seed, epoch;
  size_t crop; /* zero pixels put around, of which a random window of the image's size is cut; 0:
                  none */
  double flip;          /* the probability of mirroring left and right */
  const float *scale, *shift;   /* one a channel: a stored value v becomes v·scale + shift */
} td_batch_options;

/* 0 … n-1 in an order drawn from (seed, epoch), as int64. */
td_status td_batch_order(size_t n, uint64_t seed, uint64_t epoch, td_tensor **order);

/* The images order[first] … order[first+count-1] of N×H×W×C contiguous uint8 or float32 ones, as
 * float32 count×H×W×C. The added pixels are zeros of the stored values, normalised like the rest.
 */
td_status td_batch_images(const td_tensor *images, const td_tensor *order, size_t first,
                          size_t count, const td_batch_options *o, td_tensor **out);

/* The int64 labels of the same places. */
td_status td_batch_labels(const td_tensor *labels, const td_tensor *order, size_t first,
                          size_t count, td_tensor **out);

#endif
