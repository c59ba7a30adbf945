/* Switching stacks: a dozen instructions on x86-64 and 64-bit ARM, the C library's contexts elsewhere and under the
 * address sanitizer, which has to know. */
#define _GNU_SOURCE
#include "base/fiber.h"
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/alloc.h"

#if defined(__SANITIZE_ADDRESS__) || !(defined(__x86_64__) || defined(__aarch64__))
#define USE_CONTEXTS 1
#include <ucontext.h>
#else
#define USE_CONTEXTS 0
#endif

/* Touched only as far as it is used. Stacks of many fibers would all have their used end in the same sets of a cache,
 * whose lines they would take from each other, so it begins at a place of its own, within SPREAD of the end. */
enum { STACK = 256 * 1024, SPREAD = 64 * 1024, SPREAD_STEP = 41 * 64 };

struct td_fiber {
  void (*work)(void *data);
  void *data;
  bool done;
  td_fiber *below;  /* the fiber that resumed this one; NULL: the thread itself */
  char *stack;
  size_t size;      /* of the part in use, from the stack's low end */
#if USE_CONTEXTS
  ucontext_t own, back;
#else
  void *own, *back;  /* stack pointers */
#endif
};

static _Thread_local td_fiber *running;

static void run(void) {
  td_fiber *f = running;
  f->work(f->data);
  f->done = true;
  td_fiber_wait();
}

#if USE_CONTEXTS

static void prepare(td_fiber *f) {
  getcontext(&f->own);
  f->own.uc_stack.ss_sp = f->stack;
  f->own.uc_stack.ss_size = f->size;
  f->own.uc_link = NULL;
  makecontext(&f->own, run, 0);
}
static void enter(td_fiber *f) { swapcontext(&f->back, &f->own); }
static void leave(td_fiber *f) { swapcontext(&f->own, &f->back); }

#else

/* Saves the callee's registers and the stack pointer in *from, and takes those at `to`. */
void td_fiber_swap(void **from, void *to) __attribute__((visibility("hidden")));

#if defined(__x86_64__)
__asm__(
  ".text\n.p2align 4\n.globl td_fiber_swap\n.hidden td_fiber_swap\n.type td_fiber_swap,@function\n"
  "td_fiber_swap:\n"
  "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
  "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
  "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
  "  ret\n.size td_fiber_swap,.-td_fiber_swap\n");
enum { SAVED = 6 };                      /* registers below the return address */
static void prepare(td_fiber *f) {
  uintptr_t top = ((uintptr_t)f->stack + f->size) & ~(uintptr_t)15;
  void **sp = (void **)(top - 16);       /* as after a call: the return address, then 8 below a multiple of 16 */
  sp[1] = NULL;
  sp[0] = (void *)(uintptr_t)run;
  sp -= SAVED;
  memset(sp, 0, SAVED * sizeof *sp);
  f->own = sp;
}
#else
__asm__(
  ".text\n.p2align 4\n.globl td_fiber_swap\n.hidden td_fiber_swap\n.type td_fiber_swap,%function\n"
  "td_fiber_swap:\n"
  "  sub sp, sp, #160\n"
  "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
  "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
  "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
  "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
  "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
  "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
  "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
  "  add sp, sp, #160\n  ret\n.size td_fiber_swap,.-td_fiber_swap\n");
static void prepare(td_fiber *f) {
  uintptr_t top = ((uintptr_t)f->stack + f->size) & ~(uintptr_t)15;
  void **sp = (void **)(top - 160);
  memset(sp, 0, 160);
  sp[11] = (void *)(uintptr_t)run;       /* x30, where ret goes */
  f->own = sp;
}
#endif

static void enter(td_fiber *f) { td_fiber_swap(&f->back, f->own); }
static void leave(td_fiber *f) { td_fiber_swap(&f->own, f->back); }

#endif

td_fiber *td_fiber_new(void (*work)(void *data), void *data) {
  static size_t made;
  td_fiber *f = td_alloc(sizeof *f);
  if (!f) return NULL;
  memset(f, 0, sizeof *f);
  f->work = work;
  f->data = data;
  f->stack = td_alloc(STACK);
  if (!f->stack) {
    td_free(f, sizeof *f);
    return NULL;
  }
  f->size = STACK - made++ * SPREAD_STEP % SPREAD;
  prepare(f);
  return f;
}

void td_fiber_resume(td_fiber *f) {
  f->below = running;
  running = f;
  enter(f);
}

void td_fiber_wait(void) {
  td_fiber *f = running;
  running = f->below;
  leave(f);
}

bool td_fiber_done(const td_fiber *f) { return f->done; }

void td_fiber_free(td_fiber *f) {
  if (!f) return;
  td_free(f->stack, STACK);
  td_free(f, sizeof *f);
}
