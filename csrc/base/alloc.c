/* The caching allocator. A request is rounded up to a size class: four classes to each doubling,
 * so at most a fifth of a block is slack. Each class keeps its free blocks in a list threaded
 * through the blocks themselves, last freed first out. A hit is a lock, a pop and four sums;
 * system calls run outside the lock.
 *
 * The cache is bounded by what the program has lately needed: blocks held (live and cached) stay
 * below 128 MB more than what is live, or a quarter more than the recent peak, whichever is
 * greater. A large block that the cache lacks is put together from the pages of blocks that it has,
 * once more is held than the recent peak explains: pages are moved by mremap, which copies and
 * clears nothing, so that classes that are in use one after the other share their memory. A training step that drops
 * two gigabytes at its end finds them again in the next one; a peak that does not return is forgotten after a while,
 * and the classes unused for longest go back to the system first. */
#define _GNU_SOURCE
#include "base/alloc.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "base/error.h"

#if defined(__SANITIZE_ADDRESS__)
#define CACHING 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CACHING 0
#endif
#endif
#ifndef CACHING
#define CACHING 1 /* 0: every block comes from the system, so that a use after td_free is seen */
#endif

enum {
  LINE = 64,
  CLASS_COUNT = 4 + 4 * 56, /* 4 of whole lines, then 4 for each power of two from 2^8 */
};
static const size_t huge_bytes = (size_t)2 << 20;      /* size and alignment of a huge page */
static const size_t spare_bytes = (size_t)128 << 20;   /* what the cache may always keep */
/* What is refused unasked: sizes that overflow, or at which a sanitizer would abort. */
static const size_t absurd_bytes = CACHING ? SIZE_MAX / 2 : (size_t)1 << 34;
static const size_t idle_bytes = (size_t)4 << 20;      /* held beyond the peak before pages are moved */
static const uint64_t window_calls = 1 << 18; /* a peak is forgotten after one to two windows */

typedef struct free_block {
  struct free_block *next;
} free_block;

typedef struct {
  free_block *top;
  uint64_t used; /* td_alloc_stats.calls when the class was last used */
} size_class;

static struct {
  size_class classes[CLASS_COUNT];
  td_alloc_stats stats;
  size_t recent_peak[2]; /* greatest `live` in this window and in the last one */
  uint64_t window_end;
  bool locked;
} heap;

/* ---- The lock: held for some nanoseconds, so it spins ---------------------------------------- */

static void lock(void) {
  while (__atomic_test_and_set(&heap.locked, __ATOMIC_ACQUIRE))
    while (__atomic_load_n(&heap.locked, __ATOMIC_RELAXED)) {
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#endif
    }
}

static void unlock(void) { __atomic_clear(&heap.locked, __ATOMIC_RELEASE); }

/* A child process must not find the lock held by a thread that it does not have. */
__attribute__((constructor)) static void survive_fork(void) {
  pthread_atfork(lock, unlock, unlock);
}

/* ---- Size classes ---------------------------------------------------------------------------- */

/* The class that holds `bytes`, and the size of its blocks. bytes <= SIZE_MAX/2. */
static unsigned class_of(size_t bytes, size_t *block) {
  size_t top = bytes ? bytes - 1 : 0;
  if (top < 4 * LINE) {
    *block = (top / LINE + 1) * LINE;
    return (unsigned)(top / LINE);
  }
  unsigned e = 63u - (unsigned)__builtin_clzll(top);       /* 2^e <= top < 2^(e+1), e >= 8 */
  unsigned quarter = (unsigned)(top >> (e - 2)) & 3;
  *block = (size_t)(5 + quarter) << (e - 2);
  return 4 + 4 * (e - 8) + quarter;
}

static size_t class_bytes(unsigned c) {
  return c < 4 ? (size_t)(c + 1) * LINE : (size_t)(5 + (c - 4) % 4) << ((c - 4) / 4 + 6);
}

/* ---- The system ------------------------------------------------------------------------------ */

/* A fresh mapping aligned to a huge page: one page more is mapped, and the ends are given back. */
static void *map_huge(size_t block) {
  const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
  char *p = mmap(NULL, block + huge_bytes, protection, flags, -1, 0);
  if (p == MAP_FAILED) return NULL;
  size_t before = -(uintptr_t)p & (huge_bytes - 1);
  if (before) munmap(p, before);
  munmap(p + before + block, huge_bytes - before);
#ifdef MADV_HUGEPAGE
  madvise(p + before, block, MADV_HUGEPAGE);
#endif
  return p + before;
}

/* `bytes` were asked for, of a class of `block`: only a sanitizer's allocator gives no more than
 * asked for. */
static void *system_alloc(size_t bytes, size_t block) {
  void *p = NULL;
  if (!CACHING) return posix_memalign(&p, LINE, bytes ? bytes : 1) == 0 ? p : NULL;
  if (block >= huge_bytes) return map_huge(block);
  return posix_memalign(&p, LINE, block) == 0 ? p : NULL;
}

static void system_free(void *p, size_t block) {
  if (CACHING && block >= huge_bytes)
    munmap(p, block);
  else
    free(p);
}

static void system_free_list(free_block *list, size_t block) {
  while (list) {
    free_block *next = list->next;
    system_free(list, block);
    list = next;
  }
}

/* ---- The bound on the cache ------------------------------------------------------------------ */

/* Locked. Keeps the recent peak up to date when `live` has grown. */
static void note_live(void) {
  td_alloc_stats *s = &heap.stats;
  if (s->live > s->peak) s->peak = s->live;
  if (s->live > heap.recent_peak[0]) heap.recent_peak[0] = s->live;
  if (s->calls >= heap.window_end) { /* next window? */
    heap.recent_peak[1] = heap.recent_peak[0];
    heap.recent_peak[0] = s->live;
    heap.window_end = s->calls + window_calls;
  }
}

/* Locked. How many bytes may be held now, live and cached. */
static size_t held_limit(void) {
  size_t peak = heap.recent_peak[heap.recent_peak[1] > heap.recent_peak[0]];
  size_t by_peak = peak + peak / 4, by_live = heap.stats.live + spare_bytes;
  return by_peak > by_live ? by_peak : by_live;
}

/* Locked. The class that was used longest ago and has free blocks, or NULL. */
static size_class *oldest_class(void) {
  size_class *oldest = NULL;
  for (size_class *c = heap.classes; c < heap.classes + CLASS_COUNT; c++)
    if (c->top && (!oldest || c->used < oldest->used)) oldest = c;
  return oldest;
}

/* Locked. Takes free blocks off one class, the oldest, until no more than `limit` bytes are held or
 * it has none left; NULL when nothing is to be taken. */
static free_block *take_oldest(size_t limit, size_t *block) {
  size_class *c = oldest_class();
  free_block *taken = NULL;
  if (!c) return NULL;
  *block = class_bytes((unsigned)(c - heap.classes));
  while (c->top && heap.stats.live + heap.stats.cached > limit) {
    free_block *b = c->top;
    c->top = b->next;
    b->next = taken;
    taken = b;
    heap.stats.cached -= *block;
  }
  return taken;
}

/* Gives blocks back to the system, the oldest class first, until no more than the limit is held; all
 * of them when `all`. Not locked. */
static void shrink_cache(bool all) {
  for (;;) {
    size_t block = 0;
    lock();
    free_block *list = take_oldest(all ? 0 : held_limit(), &block);
    unlock();
    if (!list) return;
    system_free_list(list, block);
  }
}

/* ---- Large blocks of the pages of others ----------------------------------------------------- */

/* Locked. */
static void put_free(void *p, size_t block) {
  size_class *c = &heap.classes[class_of(block, &block)];
  ((free_block *)p)->next = c->top;
  c->top = p;
  heap.stats.cached += block;
}

/* A free block of whole huge pages from the large class that was used longest ago; NULL: there is
 * none, or with `more` bytes live, no more is held than allowed. */
static char *take_large(size_t more, size_t *block) {
  size_class *oldest = NULL;
  char *p = NULL;
  lock();
  size_t peak = heap.recent_peak[heap.recent_peak[1] > heap.recent_peak[0]];
  if (peak < heap.stats.live + more) peak = heap.stats.live + more;
  if (heap.stats.live + heap.stats.cached + more > peak + idle_bytes) {
    for (size_class *c = heap.classes + class_of(huge_bytes, block); c < heap.classes + CLASS_COUNT; c++)
      if (c->top && (!oldest || c->used < oldest->used)) oldest = c;
  }
  if (oldest) {
    p = (char *)oldest->top;
    oldest->top = oldest->top->next;
    *block = class_bytes((unsigned)(oldest - heap.classes));
    heap.stats.cached -= *block;
  }
  unlock();
  return p;
}

/* Pages that were not needed, from p on, become free blocks; what is less than a page is given back. */
static void put_rest(char *p, size_t bytes) {
  while (bytes >= huge_bytes) {
    size_t pages = bytes / huge_bytes, block;
    while (class_of(pages * huge_bytes, &block), block != pages * huge_bytes) pages--;
    lock();
    put_free(p, block);
    unlock();
    p += block;
    bytes -= block;
  }
  if (bytes) munmap(p, bytes);
}

/* The pages that `bytes` take of a fresh block are those of free blocks, as far as there are any to
 * spare; true: all of them. A move that fails leaves fresh pages in their place. */
static bool move_pages(char *to, size_t bytes, size_t block) {
#ifdef MREMAP_FIXED
  size_t wanted = (bytes + huge_bytes - 1) & ~(huge_bytes - 1), have;
  if (wanted > (block & ~(huge_bytes - 1))) wanted = block & ~(huge_bytes - 1);
  while (wanted) {
    char *from = take_large(block, &have);
    if (!from) return false;
    size_t whole = have & ~(huge_bytes - 1), n = whole < wanted ? whole : wanted;
    if (mremap(from, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED) munmap(from, n);
    put_rest(from + n, have - n);
    to += n;
    wanted -= n;
  }
  return true;
#else
  (void)to, (void)bytes, (void)block;
  return false;
#endif
}

/* ---- The interface --------------------------------------------------------------------------- */

static void *refuse(size_t bytes) {
  static const char *const unit[] = {"bytes", "KB", "MB", "GB", "TB", "PB", "EB"};
  double size = (double)bytes, live = (double)td_alloc_statistics().live;
  int u = 0, v = 0;
  for (; size >= 1024 && u < 6; u++) size /= 1024;
  for (; live >= 1024 && v < 6; v++) live /= 1024;
  td_fail(TD_ENOMEM, "out of memory: %.4g %s asked for, with %.4g %s in use", size, unit[u], live,
          unit[v]);
  return NULL;
}

/* A block that the cache does not have; when the system refuses it, it is asked again without
 * the cache's own. */
static void *alloc_miss(size_t bytes, size_t block) {
  void *p = system_alloc(bytes, block);
  if (!p) {
    td_alloc_trim();
    p = system_alloc(bytes, block);
  }
  if (!p) return refuse(bytes);
  bool moved = CACHING && block >= huge_bytes && move_pages(p, bytes, block);
  lock();
  heap.stats.system += !moved;
  heap.stats.live += block;
  note_live();
  unlock();
  return p;
}

void *td_alloc(size_t bytes) {
  size_t block;
  if (bytes > absurd_bytes) return refuse(bytes);
  size_class *c = &heap.classes[class_of(bytes, &block)];
  lock();
  c->used = ++heap.stats.calls;
  heap.stats.handed += block;
  free_block *b = c->top;
  if (b) {
    c->top = b->next;
    __builtin_prefetch(c->top); /* it may be long since it was freed */
    heap.stats.cached -= block;
    heap.stats.live += block;
    note_live();
  }
  unlock();
  return b ? (void *)b : alloc_miss(bytes, block);
}

void td_free(void *p, size_t bytes) {
  if (!p) return;
  size_t block;
  size_class *c = &heap.classes[class_of(bytes, &block)];
  lock();
  heap.stats.live -= block;
  if (CACHING) {
    put_free(p, block);
    c->used = heap.stats.calls;
  }
  bool over = heap.stats.live + heap.stats.cached > held_limit();
  unlock();
  if (!CACHING) system_free(p, block);
  if (over) shrink_cache(false);
}

/* Also when the library is unloaded. */
__attribute__((destructor)) void td_alloc_trim(void) { shrink_cache(true); }

void td_alloc_reset_peak(void) {
  lock();
  heap.stats.peak = heap.stats.live;
  unlock();
}

td_alloc_stats td_alloc_statistics(void) {
  lock();
  td_alloc_stats s = heap.stats;
  unlock();
  return s;
}

size_t td_alloc_live(void) { return __atomic_load_n(&heap.stats.live, __ATOMIC_RELAXED); }

int td_size_mul(size_t a, size_t b, size_t *product) {
  if (!__builtin_mul_overflow(a, b, product)) return 1;
  *product = 0;
  td_fail(TD_ENOMEM, "size overflows: %zu times %zu", a, b);
  return 0;
}
