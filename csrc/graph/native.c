/* Writing x86-64 code for a list of operations on numbers, one after the other, each with two roundings where the
 * interpreter has two, so that results are the same to the last bit.
 *
 * rbx holds the array. A register remembers which place it holds; results are written to memory at once, so a register
 * can be given up at any time. An operand is taken from a register when one holds it, else from memory. */
#include "graph/native.h"
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cpu.h"

static bool allowed = true;

bool td_native_allow(bool on) {
  bool was = allowed;
  allowed = on;
  return was;
}

#if defined(__x86_64__) && !defined(_WIN32)
#include <sys/mman.h>

struct td_native {
  void (*run)(double *);
  size_t bytes;
};

enum { HELD = 14, SCRATCH = 14, MASK = 15, NONE = -1 };

typedef struct {
  unsigned char *code;
  size_t count, room;
  int held[HELD];   /* the place that register r holds, or NONE */
  int next;         /* the register that is given up next */
  bool failed;
} writer;

static void byte(writer *w, unsigned v) {
  if (w->count == w->room) {
    size_t wanted = w->room ? 2 * w->room : 4096;
    unsigned char *more = td_alloc(wanted);
    w->failed |= !more;
    if (!more) return;
    if (w->count) memcpy(more, w->code, w->count);
    td_free(w->code, w->room);
    w->code = more;
    w->room = wanted;
  }
  w->code[w->count++] = (unsigned char)v;
}

static void bytes(writer *w, uint64_t v, int n) {
  for (int i = 0; i < n; i++) byte(w, (unsigned)(v >> (8 * i)) & 255);
}

/* ---- Instructions ---- */

/* Where an operand is: a register, or a place in memory. */
typedef struct {
  int reg, place;
} operand;

enum { P_NONE = 0, P_66 = 1, P_F2 = 3, MAP_0F = 1, MAP_0F3A = 3 };
enum { LOAD = 0x10, STORE = 0x11, SQRT = 0x51, AND = 0x54, XOR = 0x57, ADD = 0x58, MUL = 0x59, SUB = 0x5C, DIV = 0x5E,
       MAX = 0x5F, COMPARE = 0xC2, BLEND = 0x4B, MOVE = 0x28 };

/* dst = op(a, b), by AVX's three operands; a is 0 where the instruction takes none. */
static void vex(writer *w, int map, int prefix, bool wide, int op, int dst, int a, operand b) {
  bool in_reg = b.reg != NONE;
  byte(w, 0xC4);
  byte(w, (unsigned)((dst < 8) << 7 | 1 << 6 | (!in_reg || b.reg < 8) << 5 | map));
  byte(w, (unsigned)(wide << 7 | (15 - a) << 3 | prefix));
  byte(w, (unsigned)op);
  if (in_reg) {
    byte(w, (unsigned)(0xC0 | (dst & 7) << 3 | (b.reg & 7)));
  } else {
    byte(w, (unsigned)(0x80 | (dst & 7) << 3 | 3));  /* [rbx + disp32] */
    bytes(w, (uint64_t)b.place * sizeof(double), 4);
  }
}

static operand in_register(int r) { return (operand){r, 0}; }
static operand in_memory(int place) { return (operand){NONE, place}; }

static void load(writer *w, int r, int place) { vex(w, MAP_0F, P_F2, false, LOAD, r, 0, in_memory(place)); }
static void store(writer *w, int r, int place) { vex(w, MAP_0F, P_F2, false, STORE, r, 0, in_memory(place)); }
static void move(writer *w, int to, int from) { vex(w, MAP_0F, P_66, false, MOVE, to, 0, in_register(from)); }
static void scalar(writer *w, int op, int dst, int a, operand b) { vex(w, MAP_0F, P_F2, false, op, dst, a, b); }
static void bitwise(writer *w, int op, int dst, int a, int b) { vex(w, MAP_0F, P_66, false, op, dst, a, in_register(b)); }

/* rax = v */
static void immediate(writer *w, uint64_t v) {
  bytes(w, 0xB848, 2);
  bytes(w, v, 8);
}

static void constant(writer *w, int r, double v) {
  uint64_t bits;
  memcpy(&bits, &v, sizeof bits);
  immediate(w, bits);
  vex(w, MAP_0F, P_66, true, 0x6E, r, 0, in_register(0));  /* from rax */
}

static void set_mask(writer *w, uint64_t bits) {
  double v;
  memcpy(&v, &bits, sizeof v);
  constant(w, MASK, v);
}

/* ---- Registers ---- */

static operand find(const writer *w, int place) {
  for (int r = 0; r < HELD; r++)
    if (w->held[r] == place) return in_register(r);
  return in_memory(place);
}

static int fresh(writer *w) {
  int r = w->next;
  w->next = (r + 1) % HELD;
  w->held[r] = NONE;
  return r;
}

/* A register that holds the place. */
static int take(writer *w, int place) {
  operand o = find(w, place);
  if (o.reg != NONE) return o.reg;
  o.reg = fresh(w);
  load(w, o.reg, place);
  w->held[o.reg] = place;
  return o.reg;
}

static void forget_all(writer *w) {
  for (int r = 0; r < HELD; r++) w->held[r] = NONE;
}

/* Register r is the value of this place from now on. */
static void give(writer *w, int r, int place) {
  for (int k = 0; k < HELD; k++)
    if (w->held[k] == place) w->held[k] = NONE;
  store(w, r, place);
  if (r < HELD) w->held[r] = place;
}

/* ---- Operations ---- */

/* dst = the kernels' function of one number, or a C function of one or two. */
static void call(writer *w, const td_scalar_step *s, uint64_t address, bool of_kernels, bool two) {
  load(w, 0, s->a);
  if (two) load(w, 1, s->b);
  if (of_kernels) byte(w, 0xBF), bytes(w, s->op, 4);  /* mov edi, op */
  immediate(w, address);
  bytes(w, 0xD0FF, 2);  /* call rax */
  forget_all(w);
  give(w, 0, s->dst);
}

static void call_number(writer *w, const td_scalar_step *s) {
  call(w, s, (uint64_t)(uintptr_t)td_k(TD_F64)->number, true, false);
}

/* Register r = op(a, b) */
static void into(writer *w, int op, int r, int a, int b) {
  int left = take(w, a);
  scalar(w, op, r, left, find(w, b));
}

static void binary(writer *w, int op, int dst, int a, int b) {
  int left = take(w, a);
  operand right = find(w, b);
  int to = fresh(w);  /* may be a register just read: it is read before it is written */
  scalar(w, op, to, left, right);
  give(w, to, dst);
}

/* a ⋈ b as 1 or 0 */
static void compare(writer *w, int dst, int a, int b, unsigned how) {
  into(w, COMPARE, SCRATCH, a, b);
  byte(w, how);
  constant(w, MASK, 1);
  int to = fresh(w);
  bitwise(w, AND, to, SCRATCH, MASK);
  give(w, to, dst);
}

static void where(writer *w, const td_scalar_step *s) {
  enum { NOT_EQUAL = 4 };
  bitwise(w, XOR, MASK, MASK, MASK);
  scalar(w, COMPARE, MASK, take(w, s->a), in_register(MASK));
  byte(w, NOT_EQUAL);
  load(w, SCRATCH, s->b);
  int other = take(w, s->c), to = fresh(w);
  vex(w, MAP_0F3A, P_66, false, BLEND, to, other, in_register(SCRATCH));
  byte(w, MASK << 4);
  give(w, to, s->dst);
}

static void masked(writer *w, int op, const td_scalar_step *s, uint64_t mask) {
  int x = take(w, s->a), to = fresh(w);
  set_mask(w, mask);
  bitwise(w, op, to, x, MASK);
  give(w, to, s->dst);
}

/* (a·b) op c, or a·a·a with b = c = a */
static void twice(writer *w, int op, int dst, int a, int b, int c) {
  into(w, MUL, SCRATCH, a, b);
  operand last = find(w, c);
  int to = fresh(w);
  scalar(w, op, to, SCRATCH, last);
  give(w, to, dst);
}

static void dot(writer *w, const td_scalar_step *s) {
  operand base = find(w, s->c);
  if (base.reg != NONE) move(w, SCRATCH, base.reg);
  else load(w, SCRATCH, s->c);
  for (int i = 0; i < s->n; i++) {
    into(w, MUL, MASK, s->a + i, s->b + i);
    scalar(w, ADD, SCRATCH, SCRATCH, in_register(MASK));
  }
  int to = fresh(w);
  move(w, to, SCRATCH);
  give(w, to, s->dst);
}

static void write_step(writer *w, const td_scalar_step *s) {
  enum { LESS = 1, AT_MOST = 2 };
  int a = s->a, b = s->b, dst = s->dst;
  switch (s->op) {
    case TD_PW_copy: give(w, take(w, a), dst); break;
    case TD_PW_neg: masked(w, XOR, s, (uint64_t)1 << 63); break;
    case TD_PW_abs: masked(w, AND, s, ~((uint64_t)1 << 63)); break;
    case TD_PW_square: binary(w, MUL, dst, a, a); break;
    case TD_PW_add: binary(w, ADD, dst, a, b); break;
    case TD_PW_sub: binary(w, SUB, dst, a, b); break;
    case TD_PW_mul: binary(w, MUL, dst, a, b); break;
    case TD_PW_div: binary(w, DIV, dst, a, b); break;
    case TD_PW_fma: twice(w, ADD, dst, a, b, s->c); break;
    case TD_SCALAR_CUBE: twice(w, MUL, dst, a, a, a); break;
    case TD_PW_lt: compare(w, dst, a, b, LESS); break;
    case TD_PW_le: compare(w, dst, a, b, AT_MOST); break;
    case TD_PW_gt: compare(w, dst, b, a, LESS); break;
    case TD_PW_ge: compare(w, dst, b, a, AT_MOST); break;
    case TD_PW_where: where(w, s); break;
    case TD_PW_exp: case TD_PW_log: case TD_PW_sin: case TD_PW_cos: case TD_PW_tanh: case TD_PW_sigmoid:
      call_number(w, s);
      break;
    case TD_PW_tan: call(w, s, (uint64_t)(uintptr_t)(double (*)(double))tan, false, false); break;
    case TD_PW_pow: call(w, s, (uint64_t)(uintptr_t)(double (*)(double, double))pow, false, true); break;
    case TD_SCALAR_SCALE:
      for (int i = 0; i < s->n; i++) binary(w, MUL, dst + i, a, b + i);
      break;
    case TD_SCALAR_DOT: dot(w, s); break;
    case TD_PW_sqrt: case TD_PW_reciprocal: case TD_PW_relu: {
      int x = take(w, a), to = fresh(w);
      if (s->op == TD_PW_sqrt) scalar(w, SQRT, to, x, in_register(x));
      else if (s->op == TD_PW_reciprocal) constant(w, MASK, 1), scalar(w, DIV, to, MASK, in_register(x));
      else bitwise(w, XOR, MASK, MASK, MASK), scalar(w, MAX, to, MASK, in_register(x));
      give(w, to, dst);
      break;
    }
    default: w->failed = true;
  }
}

static td_native *placed(const writer *w) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  void *at = mmap(NULL, w->count, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (at == MAP_FAILED) return NULL;
  memcpy(at, w->code, w->count);
  td_native *code = mprotect(at, w->count, PROT_READ | PROT_EXEC) ? NULL : td_alloc(sizeof *code);
  if (!code) {
    munmap(at, w->count);
    return NULL;
  }
  code->bytes = w->count;
  memcpy(&code->run, &at, sizeof at);
  return code;
}

td_native *td_native_new(const td_scalar_step *step, int n) {
  if (!allowed || td_cpu_isa() < TD_ISA_AVX2) return NULL;
  writer w = {0};
  forget_all(&w);
  bytes(&w, 0xFB894853, 4);  /* push rbx; mov rbx, rdi */
  for (int i = 0; i < n && !w.failed; i++) write_step(&w, &step[i]);
  bytes(&w, 0xC35B, 2);      /* pop rbx; ret */
  td_native *code = w.failed ? NULL : placed(&w);
  td_free(w.code, w.room);
  return code;
}

void td_native_free(td_native *code) {
  if (!code) return;
  void *at;
  memcpy(&at, &code->run, sizeof at);
  munmap(at, code->bytes);
  td_free(code, sizeof *code);
}

void td_native_run(const td_native *code, double *x) { code->run(x); }

#else

td_native *td_native_new(const td_scalar_step *step, int n) {
  (void)step, (void)n;
  return NULL;
}
void td_native_free(td_native *code) { (void)code; }
void td_native_run(const td_native *code, double *x) { (void)code, (void)x; }

#endif
