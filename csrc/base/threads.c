/* The thread pool. A fork and join takes well under a microsecond when calls follow each other
 * closely: each worker spins on a mailbox of its own for some tens of microseconds before it
 * sleeps, and the caller does a share of the work.
 *
 * A worker's mailbox is one word that says who acts next:
 *   IDLE     nothing to do, or the task is done; the worker spins
 *   ASLEEP   the same, and the worker sleeps on the word
 *   WORK     the worker has a share of the call under way, and has not begun
 *   RUNNING  it has begun
 *   AWAITED  the same, and the caller sleeps on the word
 *   STOP     the worker is to end
 * A thread takes its share in parts, half of the rest at a time; one that is done takes from the
 * others' ends. So the caller does what no worker has begun, and a parallel call is never much
 * slower than a serial one, however late the workers wake (30 to 100 us) and whatever else their
 * processors have to do.
 *
 * A waking thread is often put on the processor of the one that woke it, which is the one
 * processor sure to be busy here: the caller works and spins there, and the worker waits for the
 * scheduler's next tick (4 ms, twice). So workers are kept off the caller's processor by their
 * affinity; the caller's own is never touched. */
#define _GNU_SOURCE
#include "base/threads.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#endif

enum { IDLE, ASLEEP, WORK, RUNNING, AWAITED, STOP };
enum { MAX_THREADS = 64, LINE = 64 };
enum {
  UNITS = 8,       /* of a thread, at most */
  UNIT_GRAINS = 8  /* of small items in a unit, unless a thread would have none: less is not worth
                      the change of cache */
};
enum { WORKER_SPIN_NS = 40000, CALLER_SPIN_NS = 200000 };

typedef struct {
  _Alignas(2 * LINE) _Atomic uint32_t state; /* two lines: processors fetch them in pairs */
  int index;
  _Atomic uint64_t left; /* of its share: the first unit, and in the low half the one after the
                            last */
  pthread_t thread;
#if !defined(__linux__)
  pthread_mutex_t mutex;
  pthread_cond_t changed;
#endif
} worker;

static struct {
  atomic_bool busy;   /* held by the thread that uses or changes the pool; others work alone */
  atomic_int wanted;  /* number of threads asked for; 0 is not known yet */
  int count;          /* workers that run: worker[1] to worker[count] */
  atomic_bool spin;   /* a processor for every thread? if not, waiting threads give way at once */
  int avoided;        /* the processor that workers are kept off, or -1 */
#if defined(__linux__)
  cpu_set_t allowed;  /* processors of this process, when the workers were started */
#endif
  /* the call under way */
  td_task task;
  void *ctx;
  size_t n;
  uint32_t units;     /* equal parts of the items, which are shared out */
  int sharers;        /* threads */
  worker worker[MAX_THREADS];
} pool = {.avoided = -1};

static _Thread_local int thread_index;

/* ---- Waiting --------------------------------------------------------------------------------- */

static void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Spins while the word is `value`, for at most `ns`; gives what it read last. */
static uint32_t spin_while(worker *w, uint32_t value, int64_t ns) {
  uint32_t s = atomic_load_explicit(&w->state, memory_order_acquire);
  if (s != value) return s;
  int64_t until = 0;
  for (unsigned i = 1;; i++) {
    s = atomic_load_explicit(&w->state, memory_order_acquire);
    if (s != value) return s;
    if (atomic_load_explicit(&pool.spin, memory_order_relaxed))
      cpu_relax();
    else
      sched_yield();
    if (i % 32) continue;
    int64_t now = now_ns();
    if (!until) until = now + ns;
    if (now >= until) return s;
  }
}

#if defined(__linux__)
static void sleep_while(worker *w, uint32_t value) {
  while (atomic_load_explicit(&w->state, memory_order_acquire) == value)
    syscall(SYS_futex, &w->state, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake(worker *w) { syscall(SYS_futex, &w->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }
#else
static void sleep_while(worker *w, uint32_t value) {
  pthread_mutex_lock(&w->mutex);
  while (atomic_load(&w->state) == value) pthread_cond_wait(&w->changed, &w->mutex);
  pthread_mutex_unlock(&w->mutex);
}

static void wake(worker *w) {
  pthread_mutex_lock(&w->mutex);
  pthread_cond_broadcast(&w->changed);
  pthread_mutex_unlock(&w->mutex);
}
#endif

/* ---- Processors ------------------------------------------------------------------------------ */

#if defined(__linux__)
static int processor_count(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static void learn_processors(void) {
  if (sched_getaffinity(0, sizeof pool.allowed, &pool.allowed) != 0) CPU_ZERO(&pool.allowed);
  pool.spin = CPU_COUNT(&pool.allowed) > pool.count;
  pool.avoided = -1;
}

/* Keeps the workers off the caller's processor, when there are processors enough: a system call
 * for each worker when the caller has moved, else a comparison. */
static void avoid_caller(void) {
  if (!pool.spin) return;
  int cpu = sched_getcpu();
  if (cpu == pool.avoided || cpu < 0) return;
  cpu_set_t set = pool.allowed;
  if (cpu < CPU_SETSIZE) CPU_CLR((size_t)cpu, &set);
  for (int i = 1; i <= pool.count; i++)
    pthread_setaffinity_np(pool.worker[i].thread, sizeof set, &set);
  pool.avoided = cpu;
}
#else
static int processor_count(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }
static void learn_processors(void) { pool.spin = processor_count() > pool.count; }
static void avoid_caller(void) {}
#endif

/* ---- Scratch memory -------------------------------------------------------------------------- */

static _Thread_local struct {
  void *p;
  size_t bytes;
} scratch;

/* Its value in a thread is the thread's scratch memory, so that the end of any thread frees it. */
static pthread_key_t scratch_key;
static bool scratch_key_made;

__attribute__((constructor)) static void make_scratch_key(void) {
  scratch_key_made = pthread_key_create(&scratch_key, free) == 0;
}

static void free_scratch(void) {
  free(scratch.p);
  scratch.p = NULL;
  scratch.bytes = 0;
  if (scratch_key_made) pthread_setspecific(scratch_key, NULL);
}

/* Grows by a quarter at least, so that slowly rising demands do not ask the system each time; in
 * steps of 64 KB, beyond 128 KB in huge pages: what convolutions keep there is read across more small
 * pages than the processor holds the addresses of. */
void *td_scratch(size_t bytes) {
  const size_t huge = (size_t)2 << 20;
  if (bytes <= scratch.bytes && scratch.p) return scratch.p;
  if (bytes > SIZE_MAX / 2) return NULL;
  size_t wanted = scratch.bytes + scratch.bytes / 4;
  if (wanted < bytes) wanted = bytes;
  size_t step = wanted > (size_t)128 << 10 ? huge : (size_t)64 << 10;
  size_t size = (wanted / step + 1) * step;
  free_scratch();
  if (posix_memalign(&scratch.p, step == huge ? huge : LINE, size) != 0) {
    scratch.p = NULL;
    return NULL;
  }
#if defined(MADV_HUGEPAGE)
  if (step == huge) madvise(scratch.p, size, MADV_HUGEPAGE);
#endif
  scratch.bytes = size;
  if (scratch_key_made) pthread_setspecific(scratch_key, scratch.p);
  return scratch.p;
}

/* ---- Shares of the call under way ------------------------------------------------------------ */

/* Of the units in the share of `of`, half or the last one: from the front for the thread itself, so
 * that what it had in its cache in the last call it has in this one, from the back for others. */
static bool take_units(worker *of, bool own, uint32_t *begin, uint32_t *end) {
  uint64_t left = atomic_load_explicit(&of->left, memory_order_relaxed), rest;
  do {
    *begin = (uint32_t)(left >> 32);
    *end = (uint32_t)left;
    if (*begin >= *end) return false;
    uint32_t half = (*end - *begin + 1) / 2;
    if (own) *end = *begin + half;
    else *begin = *end - half;
    rest = own ? (uint64_t)*end << 32 | (uint32_t)left : (left >> 32) << 32 | *begin;
  } while (!atomic_compare_exchange_weak(&of->left, &left, rest));
  return true;
}

/* The first item of a unit. */
static size_t unit_begin(uint32_t unit) {
  size_t more = pool.n % pool.units;
  return pool.n / pool.units * unit + (unit < more ? unit : more);
}

/* Works on the own share, then on what is left of the others', of which one may be slow. */
static void run_shares(int index) {
  uint32_t begin, end;
  for (int i = 0; i < pool.sharers; i++) {
    worker *of = &pool.worker[(index + i) % pool.sharers];
    while (take_units(of, i == 0, &begin, &end))
      pool.task(pool.ctx, unit_begin(begin), unit_begin(end));
  }
}

/* ---- Workers --------------------------------------------------------------------------------- */

/* Waits for a task, takes it and gives true; false when it is time to stop. */
static bool take_task(worker *w) {
  for (;;) {
    uint32_t s = spin_while(w, IDLE, WORKER_SPIN_NS);
    if (s == WORK && atomic_compare_exchange_strong(&w->state, &s, RUNNING)) return true;
    if (s == IDLE && atomic_compare_exchange_strong(&w->state, &s, ASLEEP)) sleep_while(w, ASLEEP);
    if (s == STOP) return false;
  }
}

static void *worker_main(void *arg) {
  worker *w = arg;
  thread_index = w->index;
  while (take_task(w)) {
    run_shares(w->index);
    if (atomic_exchange(&w->state, IDLE) == AWAITED) wake(w);
  }
  free_scratch();
  return NULL;
}

static bool start_worker(int index) {
  worker *w = &pool.worker[index];
  w->index = index;
  atomic_store(&w->state, IDLE);
#if !defined(__linux__)
  pthread_mutex_init(&w->mutex, NULL);
  pthread_cond_init(&w->changed, NULL);
#endif
  return pthread_create(&w->thread, NULL, worker_main, w) == 0;
}

static void stop_worker(int index) {
  worker *w = &pool.worker[index];
  if (atomic_exchange(&w->state, STOP) == ASLEEP) wake(w);
  pthread_join(w->thread, NULL);
}

/* Pool held. Makes `count` workers run, or as many as the system gives. Signals stay
 * with the threads of the program. */
static void resize(int count) {
  sigset_t all, before;
  sigfillset(&all);
  while (pool.count > count) stop_worker(pool.count--);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (pool.count < count && start_worker(pool.count + 1)) pool.count++;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (pool.count < count) atomic_store(&pool.wanted, pool.count + 1); /* as many as there can be */
  learn_processors();
}

/* ---- A parallel call ------------------------------------------------------------------------- */

/* A worker that has not begun is not waited for. */
static void call_off(worker *w) {
  uint32_t s = WORK;
  atomic_compare_exchange_strong(&w->state, &s, IDLE);
}

/* Waits until the worker's task is done: spinning first, since pieces are of one size and end
 * together. */
static void await(worker *w) {
  uint32_t s = spin_while(w, RUNNING, CALLER_SPIN_NS);
  if (s == RUNNING && atomic_compare_exchange_strong(&w->state, &s, AWAITED))
    sleep_while(w, AWAITED);
}

/* Pool held. Every thread has an even share. */
static void run_shared(size_t n, uint32_t units, int threads, td_task f, void *ctx) {
  pool.task = f;
  pool.ctx = ctx;
  pool.n = n;
  pool.units = units;
  pool.sharers = threads;
  for (uint32_t i = 0, t = (uint32_t)threads; i < t; i++)
    atomic_store_explicit(&pool.worker[i].left,
                          (uint64_t)(units * i / t) << 32 | units * (i + 1) / t,
                          memory_order_relaxed);
  avoid_caller();
  for (int i = 1; i < threads; i++)
    if (atomic_exchange(&pool.worker[i].state, WORK) == ASLEEP) wake(&pool.worker[i]);
  run_shares(0);
  for (int i = threads; --i > 0;) call_off(&pool.worker[i]);
  for (int i = 1; i < threads; i++) await(&pool.worker[i]);
}

static bool take_pool(void) {
  return !atomic_load_explicit(&pool.busy, memory_order_relaxed) &&
         !atomic_exchange_explicit(&pool.busy, true, memory_order_acquire);
}

static void release_pool(void) { atomic_store_explicit(&pool.busy, false, memory_order_release); }

void td_parallel(size_t n, size_t grain, td_task f, void *ctx) {
  if (n == 0) return;
  size_t units = n / (grain ? grain : 1), threads = (size_t)td_threads();
  if (units <= 1 || threads <= 1 || !take_pool()) { /* little work, or inside a task */
    f(ctx, 0, n);
    return;
  }
  if (pool.count + 1 != (int)threads) resize((int)threads - 1);
  if (threads > (size_t)pool.count + 1) threads = (size_t)pool.count + 1;
  if (threads > units) threads = units;
  units = units / (grain > 1 ? UNIT_GRAINS : 1) / threads; /* the same number for each thread */
  units = (units < 1 ? 1 : units > UNITS ? UNITS : units) * threads;
  run_shared(n, (uint32_t)units, (int)threads, f, ctx);
  release_pool();
}

/* ---- Number of threads ----------------------------------------------------------------------- */

/* OMP_NUM_THREADS (the first number of its list) when it is a number above 0, else the
 * processors. */
static int default_threads(void) {
  const char *text = getenv("OMP_NUM_THREADS");
  if (text) {
    char *end;
    long n = strtol(text, &end, 10);
    while (*end == ' ') end++;
    if (end != text && (*end == '\0' || *end == ',') && n >= 1)
      return n < MAX_THREADS ? (int)n : MAX_THREADS;
  }
  int n = processor_count();
  return n < 1 ? 1 : n < MAX_THREADS ? n : MAX_THREADS;
}

int td_threads(void) {
  int n = atomic_load_explicit(&pool.wanted, memory_order_relaxed);
  if (n == 0) {
    int unknown = 0;
    n = default_threads();
    if (!atomic_compare_exchange_strong(&pool.wanted, &unknown, n)) n = unknown;
  }
  return n;
}

int td_threads_free(void) {
  return atomic_load_explicit(&pool.busy, memory_order_relaxed) ? 1 : td_threads();
}

/* The pool takes its new size now, or at the next parallel call when it is in use. It is not
 * grown before it is used. */
void td_threads_set(int n) {
  n = n < 1 ? 1 : n < MAX_THREADS ? n : MAX_THREADS;
  atomic_store(&pool.wanted, n);
  if (!take_pool()) return;
  if (pool.count > n - 1) resize(n - 1);
  release_pool();
}

int td_thread_index(void) { return thread_index; }

/* ---- The end, and other beginnings ----------------------------------------------------------- */

/* The child of a fork has no workers: it makes its own at its first parallel call. */
static void forget_pool(void) {
  for (int i = 1; i <= pool.count; i++) atomic_store(&pool.worker[i].state, IDLE);
  pool.count = 0;
  pool.avoided = -1;
  thread_index = 0;
  release_pool();
}

__attribute__((constructor)) static void survive_fork(void) {
  pthread_atfork(NULL, NULL, forget_pool);
}

/* Workers end before the code they run is unloaded. When a task still runs (the program ends
 * inside it), they are left. */
void td_threads_stop(void) {
  if (!take_pool()) return;
  resize(0);
  release_pool();
}

__attribute__((destructor)) static void unload(void) {
  td_threads_stop();
  free_scratch();
  if (scratch_key_made) pthread_key_delete(scratch_key);
  scratch_key_made = false;
}
