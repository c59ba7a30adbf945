/* The caching allocator that all tensor storage comes from. Blocks are 64-byte aligned, rounded
 * to a size class, and kept for reuse when freed: a training loop in steady state asks the
 * system for nothing. Large blocks are aligned to 2 MB and advised to be huge pages. */
#ifndef TD_BASE_ALLOC_H
#define TD_BASE_ALLOC_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  size_t live;      /* bytes of the blocks handed out and not yet freed, slack included */
  size_t cached;    /* bytes kept for reuse */
  size_t peak;      /* greatest `live` since the last td_alloc_reset_peak */
  uint64_t calls;   /* number of td_alloc calls */
  uint64_t handed;  /* bytes of all blocks handed out so far */
  uint64_t system;  /* number of blocks asked from the system (cache misses) */
} td_alloc_stats;

/* Uninitialised block of at least `bytes` (> 0 or one line is given); NULL and a message when
 * refused. */
void *td_alloc(size_t bytes);
/* Gives a block back; `bytes` is what td_alloc was asked for. NULL is ignored. */
void td_free(void *p, size_t bytes);
/* Returns every cached block to the system. */
void td_alloc_trim(void);
void td_alloc_reset_peak(void);
td_alloc_stats td_alloc_statistics(void);
/* The `live` of the statistics alone, for asking often. */
size_t td_alloc_live(void);
/* True and *product = a*b; when that overflows false, *product = 0 and a TD_ENOMEM message. */
int td_size_mul(size_t a, size_t b, size_t *product);

#endif
