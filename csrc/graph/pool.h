/* Memory that is given back all at once: what a program is made of. */
#ifndef TD_GRAPH_POOL_H
#define TD_GRAPH_POOL_H
#include <stddef.h>

typedef struct td_pool_block td_pool_block;
typedef struct {
  td_pool_block *last;
  size_t used;  /* bytes of the last block */
} td_pool;

/* Zeroed, 16-byte aligned; NULL and a message when refused. */
void *td_pool_get(td_pool *p, size_t bytes);
void td_pool_free(td_pool *p);

#endif
