/* Blocks of growing size, handed out from the front. */
#include "graph/pool.h"
#include <string.h>
#include "base/alloc.h"

struct td_pool_block {
  td_pool_block *before;
  size_t bytes;
};

enum { HEAD = 64, LEAST = 4096 };

void *td_pool_get(td_pool *p, size_t bytes) {
  bytes = (bytes + 15) & ~(size_t)15;
  if (!p->last || p->used + bytes > p->last->bytes) {
    size_t wanted = p->last ? 2 * p->last->bytes : LEAST;
    if (wanted < HEAD + bytes) wanted = HEAD + bytes;
    td_pool_block *b = td_alloc(wanted);
    if (!b) return NULL;
    *b = (td_pool_block){p->last, wanted};
    p->last = b;
    p->used = HEAD;
  }
  void *at = (char *)p->last + p->used;
  p->used += bytes;
  return memset(at, 0, bytes);
}

void td_pool_free(td_pool *p) {
  while (p->last) {
    td_pool_block *b = p->last;
    p->last = b->before;
    td_free(b, b->bytes);
  }
  p->used = 0;
}
