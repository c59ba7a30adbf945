/* One pool of threads for everything that runs in parallel. */
#ifndef TD_BASE_THREADS_H
#define TD_BASE_THREADS_H
#include <stddef.h>

/* Works on the items [begin, end). */
typedef void (*td_task)(void *ctx, size_t begin, size_t end);

/* Splits [0, n) into contiguous pieces of at least `grain` items, runs them side by side in
 * td_threads() threads and returns when all are done. Runs serially when n <= grain, with one thread,
 * when called from inside a task, or while another thread of the program uses the pool. A thread
 * is given several pieces, one call each. A kernel whose result must not depend on the
 * number of threads makes items of a fixed size itself. */
void td_parallel(size_t n, size_t grain, td_task f, void *ctx);

/* Number of threads: OMP_NUM_THREADS when set, else the processors this process may use. */
int td_threads(void);
/* Threads that td_parallel would use now: 1 inside a task. For cutting work into even shares,
 * never for what a result is made of. */
int td_threads_free(void);
/* 1 to 64, other numbers are moved to the nearest of these; more than there are processors is
 * allowed. */
void td_threads_set(int n);
/* Ends the workers and waits for them; the next td_parallel starts new ones. Done by itself when
 * the library is unloaded. */
void td_threads_stop(void);
/* 0 in the calling thread, 1..td_threads()-1 in the pool's workers: an index for per-thread
 * scratch. */
int td_thread_index(void);
/* Per-thread scratch memory of at least `bytes`, 64-byte aligned, valid until the same thread
 * asks again with a larger size; NULL when refused. For packing buffers inside kernels: no
 * allocation in steady state. */
void *td_scratch(size_t bytes);

#endif
