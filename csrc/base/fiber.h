/* Fibers: C functions that can stop in the middle and go on later, each on a stack of its own. One thread, no
 * preemption. The batched solver runs one ordinary solve a sample on them, and evaluates all samples' right-hand sides
 * at once whenever every one is waiting for its own. */
#ifndef TD_BASE_FIBER_H
#define TD_BASE_FIBER_H
#include <stdbool.h>
#include "base/error.h"

typedef struct td_fiber td_fiber;

/* A fiber that will run work(data); NULL and a message when memory is refused. */
td_fiber *td_fiber_new(void (*work)(void *data), void *data);
/* Starts it or goes on, until it waits or ends. */
void td_fiber_resume(td_fiber *f);
bool td_fiber_done(const td_fiber *f);
/* Called inside a fiber: back to who resumed it. */
void td_fiber_wait(void);
/* Of a fiber that is done or was never resumed: what its functions own would be lost otherwise. */
void td_fiber_free(td_fiber *f);

#endif
