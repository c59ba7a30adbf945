/* A tensor: an element type, a shape, strides, and a reference into a storage that views share.
 * Strides count elements and may be 0 (broadcast); they are never negative.
 * Reference counts belong to the one Lua thread; kernels in the pool never touch them. */
#ifndef TD_TENSOR_H
#define TD_TENSOR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/dtype.h"
#include "base/error.h"

/* Bytes that one or more tensors look at. A small storage lives in one block with the tensor it was made for, `home`,
 * and the block lives as long as the storage. `release`, when set, gives back memory that is not the allocator's
 * (a memory-mapped file). `version` counts writes in place, so that a gradient can tell a spoiled operand, and a form
 * that kernels prepared of the values (kernels/forms.h) whether it holds. */
typedef struct td_storage {
  void *data;
  size_t bytes;
  int refs;
  uint32_t version;
  void (*release)(struct td_storage *s);
  void *owner;
  struct td_tensor *home;
  uint32_t era;           /* td_capture_era when it was made */
  bool is_virtual;        /* stands for values that a captured program will compute; `data` must not be touched */
  bool is_lent;           /* an operand of a program; `owner`: the storage whose memory it shows, or NULL */
  struct td_form *forms;  /* prepared of the values */
} td_storage;

struct td_node;  /* the tape's, see graph/tape.h; this folder only carries the pointer */

typedef struct td_tensor {
  int refs;
  td_dtype dtype;
  int ndim;
  int slot;               /* which output of `node` this is */
  bool weak;              /* a Lua number: never decides an element type that a tensor can decide */
  bool was_captured;      /* an operand of a captured function from outside: whether it is a leaf is built into programs */
  td_storage *storage;    /* NULL: shape only (an operand whose values the tape did not keep) */
  char *data;             /* first element */
  size_t numel;
  size_t shape[TD_MAX_DIMS];
  size_t stride[TD_MAX_DIMS];
  struct td_node *node;   /* NULL: no gradient flows through this tensor */
} td_tensor;

/* Constructors give one reference, or NULL and a message. Contents are uninitialised unless said. */
td_tensor *td_tensor_new(td_dtype d, int ndim, const size_t *shape);
td_tensor *td_tensor_zeros(td_dtype d, int ndim, const size_t *shape);
/* A 0-d tensor that holds a number; `weak` as above. */
td_tensor *td_tensor_number(td_dtype d, double value, bool weak);
/* A contiguous tensor on an existing storage, of which it takes one more reference. */
td_tensor *td_tensor_from_storage(td_storage *s, td_dtype d, int ndim, const size_t *shape, size_t byte_offset);
/* A second tensor on t's storage; offset counts elements from t's first. No gradient is carried over. */
td_tensor *td_tensor_view(const td_tensor *t, int ndim, const size_t *shape, const size_t *stride, size_t offset);
/* Same shape and storage, no gradient. */
td_tensor *td_tensor_alias(const td_tensor *t);
/* Same shape, no storage, carrying t's node: what the tape keeps of an operand whose values it does not need. */
td_tensor *td_tensor_shape_only(const td_tensor *t);

td_tensor *td_tensor_retain(td_tensor *t);
void td_tensor_release(td_tensor *t);  /* NULL is ignored */
/* Called with a tensor's node when the tensor goes; set once by the tape. */
extern void (*td_tensor_node_release)(struct td_node *);
extern void (*td_tensor_node_retain)(struct td_node *);

/* A storage over memory that is given back by `release(s)`, which finds what it needs in s->owner. */
td_storage *td_storage_wrap(void *data, size_t bytes, void (*release)(td_storage *), void *owner);
void td_storage_release(td_storage *s);

/* Fills stride with the row-major strides of shape. */
void td_strides(int ndim, const size_t *shape, size_t *stride);
/* The product of shape's sizes, or a TD_ENOMEM failure when it overflows. */
td_status td_count(int ndim, const size_t *shape, size_t *count);

bool td_tensor_is_contiguous(const td_tensor *t);
/* Is no element reached by two positions? False for what expand made: writing there would have no meaning. */
bool td_tensor_is_writable(const td_tensor *t);
bool td_tensor_same_shape(const td_tensor *a, const td_tensor *b);
/* t itself (one more reference) when contiguous, else a contiguous copy; no gradient is recorded. */
td_tensor *td_tensor_contiguous(td_tensor *t);
/* A contiguous copy, always. */
td_tensor *td_tensor_clone(const td_tensor *t);
/* Element-wise copy with conversion and broadcasting of src to dst's shape; counts as a write in place. They may
 * overlap. */
td_status td_tensor_copy(td_tensor *dst, const td_tensor *src);
td_status td_tensor_fill(td_tensor *t, double value);
/* The element at a position in elements from the first, following no strides: for contiguous tensors. */
double td_tensor_get(const td_tensor *t, size_t position);
void td_tensor_set(td_tensor *t, size_t position, double value);

/* ---- Capturing (graph/trace.h) ----
 * While a function is captured, operations are written down instead of run, and their results are virtual. */

/* The number of the capture under way, 0 when there is none. */
extern uint32_t td_capture_era;
/* Set while capturing: a contiguous copy of t, and a write of src into dst, as steps of the program. */
extern td_tensor *(*td_capture_clone)(const td_tensor *t);
extern td_status (*td_capture_copy)(td_tensor *dst, const td_tensor *src);
/* To be called before a known storage is written to while capturing: steps that read it keep what they read. */
extern td_status (*td_capture_spare)(td_storage *s);
/* A tensor without memory, for the capture under way. */
td_tensor *td_tensor_virtual(td_dtype d, int ndim, const size_t *shape);
/* May t's values be read now? While capturing, only numbers and tensors made since it began: what is older may have
 * other values when the program runs. */
static inline bool td_tensor_is_known(const td_tensor *t) {
  const td_storage *s = t->storage;
  return !s || (!s->is_virtual && (!td_capture_era || t->weak || s->era == td_capture_era));
}

/* "3×4" or "0-d" for messages, valid until the eighth next call. */
const char *td_shape_string(int ndim, const size_t *shape);
const char *td_tensor_shape_string(const td_tensor *t);

#endif
