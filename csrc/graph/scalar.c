/* Writing a program out, and the loop that runs it. */
#include "graph/scalar.h"
#include <math.h>
#include <string.h>
#include "ops/ops.h"

enum { MOST_NUMBERS = 1024, MOST_STEPS = 160, MOST_SLOW = 12 };

/* The program being written out. at[b] gives, for each element of buffer b, its place among the numbers, or -1. */
typedef struct {
  td_ir *ir;
  int16_t **at;
  double number[MOST_NUMBERS];
  bool constant[MOST_NUMBERS];
  int numbers, nstep, slow;
  td_scalar_step step[MOST_STEPS];
  bool failed;
} writer;

static int new_number(writer *w, double value, bool constant) {
  if (w->numbers == MOST_NUMBERS) {
    w->failed = true;
    return 0;
  }
  w->number[w->numbers] = value;
  w->constant[w->numbers] = constant;
  return w->numbers++;
}

/* ---- One operation ---- */

static bool is_slow(int op) {
  switch (op) {
    case TD_PW_exp: case TD_PW_log: case TD_PW_sin: case TD_PW_cos: case TD_PW_tan: case TD_PW_tanh: case TD_PW_sigmoid:
    case TD_PW_pow: return true;
    default: return false;
  }
}

static bool is_known(int op) {
  switch (op) {
    case TD_PW_copy: case TD_PW_neg: case TD_PW_abs: case TD_PW_square: case TD_PW_sqrt: case TD_PW_reciprocal:
    case TD_PW_relu: case TD_PW_add: case TD_PW_sub: case TD_PW_mul: case TD_PW_div: case TD_PW_fma: case TD_PW_where:
    case TD_PW_lt: case TD_PW_le: case TD_PW_gt: case TD_PW_ge: return true;
    default: return is_slow(op);
  }
}

/* What each operation does with a, b, c: the same, to the last bit, as the kernels for arrays. */
#define NUMBER(name) td_k(TD_F64)->number(TD_PW_##name, a)
#define OPERATIONS(X)                                                                                           \
  X(TD_PW_copy, a) X(TD_PW_neg, -a) X(TD_PW_abs, fabs(a)) X(TD_PW_square, a * a) X(TD_SCALAR_CUBE, a * a * a)    \
  X(TD_PW_sqrt, sqrt(a)) X(TD_PW_reciprocal, 1 / a) X(TD_PW_relu, a < 0 ? 0 : a) X(TD_PW_add, a + b)             \
  X(TD_PW_sub, a - b) X(TD_PW_mul, a * b) X(TD_PW_div, a / b) X(TD_PW_fma, a * b + c)                            \
  X(TD_PW_where, a != 0 ? b : c) X(TD_PW_lt, a < b) X(TD_PW_le, a <= b) X(TD_PW_gt, a > b) X(TD_PW_ge, a >= b)   \
  X(TD_PW_exp, NUMBER(exp)) X(TD_PW_log, NUMBER(log)) X(TD_PW_sin, NUMBER(sin)) X(TD_PW_cos, NUMBER(cos))        \
  X(TD_PW_tan, tan(a)) X(TD_PW_tanh, NUMBER(tanh)) X(TD_PW_sigmoid, NUMBER(sigmoid)) X(TD_PW_pow, pow(a, b))

static double compute(int op, double a, double b, double c) {
  switch (op) {
#define CASE(name, value) case name: return value;
    OPERATIONS(CASE)
#undef CASE
    default: return NAN;
  }
}

static bool is_constant(const writer *w, int place, double value) {
  return w->constant[place] && w->number[place] == value;
}

/* The place of op(a, b, c): of an operand when nothing is to do, of a constant when all are. */
static int emit(writer *w, int op, int a, int b, int c, int arity) {
  if (!is_known(op)) w->failed = true;
  if (op == TD_PW_copy) return a;
  if (op == TD_PW_add && is_constant(w, a, 0)) return b;
  if ((op == TD_PW_add || op == TD_PW_sub) && is_constant(w, b, 0)) return a;
  if (op == TD_PW_mul && is_constant(w, a, 1)) return b;
  if ((op == TD_PW_mul || op == TD_PW_div) && is_constant(w, b, 1)) return a;
  if (op == TD_PW_pow && is_constant(w, b, 2)) op = TD_PW_square;
  if (op == TD_PW_pow && is_constant(w, b, 3)) op = TD_SCALAR_CUBE;
  if (w->failed) return 0;
  bool known = w->constant[a] && (arity < 2 || w->constant[b]) && (arity < 3 || w->constant[c]);
  if (known) return new_number(w, compute(op, w->number[a], w->number[b], w->number[c]), true);
  w->slow += is_slow(op);
  if (w->nstep == MOST_STEPS || w->slow > MOST_SLOW) {
    w->failed = true;
    return 0;
  }
  int dst = new_number(w, 0, false);
  w->step[w->nstep++] = (td_scalar_step){(uint16_t)op, (uint16_t)dst, (uint16_t)a, (uint16_t)b, (uint16_t)c, 1};
  return dst;
}

/* ---- Elements ---- */

/* The element of its buffer that v's element `index` (row-major) is. */
static size_t element(const td_value *v, size_t index) {
  size_t at = v->offset / sizeof(double);
  for (int i = v->ndim - 1; i >= 0; i--) {
    at += index % v->shape[i] * v->stride[i];
    index /= v->shape[i];
  }
  return at;
}

/* The same of v broadcast to a shape. */
static size_t broadcast_element(const td_value *v, int ndim, const size_t *shape, size_t index) {
  size_t at = v->offset / sizeof(double);
  for (int i = ndim - 1; i >= 0; i--) {
    int k = i - (ndim - v->ndim);
    if (k >= 0 && v->shape[k] != 1) at += index % shape[i] * v->stride[k];
    index /= shape[i];
  }
  return at;
}

static int get(writer *w, const td_value *v, size_t at) {
  int place = w->at[v->buffer][at];
  if (place < 0) w->failed = true;  /* read before it was written */
  return place < 0 ? 0 : place;
}

static void set(writer *w, const td_value *v, size_t index, int place) {
  w->at[v->buffer][element(v, index)] = (int16_t)place;
}

/* ---- Steps ---- */

static void write_chain(writer *w, const td_step *s) {
  static const int arity[] = {
#define ARITY(name, n) n,
    TD_PW_OPS(ARITY, ARITY)
#undef ARITY
  };
  const td_chain *c = s->chain;
  size_t n = s->out[0].numel;
  for (size_t e = 0; e < n && !w->failed; e++) {
    int reg[TD_PW_MAX_REG];
    for (int i = 0; i < s->nin; i++) reg[i] = get(w, &s->in[i], broadcast_element(&s->in[i], c->ndim, c->shape, e));
    for (int i = 0; i < c->nstep; i++) {
      const td_pw_step *p = &c->step[i];
      int k = arity[p->op];
      reg[p->dst] = emit(w, p->op, reg[p->src[0]], k > 1 ? reg[p->src[1]] : 0, k > 2 ? reg[p->src[2]] : 0, k);
    }
    for (int i = 0; i < s->nout; i++) set(w, &s->out[i], e, reg[c->out_reg[i]]);
  }
}

/* Parts of y along a dim, beginning at `start` and `step` apart. */
static void write_part(writer *w, const td_value *y, const td_value *x, int64_t dim, size_t start, size_t step) {
  size_t inner = 1;
  for (int i = (int)dim + 1; i < x->ndim; i++) inner *= x->shape[i];
  for (size_t e = 0; e < x->numel; e++) {
    size_t along = e / inner % x->shape[dim], outer = e / inner / x->shape[dim];
    size_t to = (outer * y->shape[dim] + start + along * step) * inner + e % inner;
    set(w, y, to, get(w, x, element(x, e)));
  }
}

static void write_cat(writer *w, const td_step *s) {
  size_t start = 0;
  for (int i = 0; i < s->nin; i++) {
    write_part(w, &s->out[0], &s->in[i], s->a.i[0], start, 1);
    start += s->in[i].shape[s->a.i[0]];
  }
}

static void write_narrow_grad(writer *w, const td_step *s) {
  int zero = new_number(w, 0, true);
  for (size_t e = 0; e < s->out[0].numel; e++) set(w, &s->out[0], e, zero);
  write_part(w, &s->out[0], &s->in[0], s->a.i[0], (size_t)s->a.i[1], (size_t)s->a.i[2]);
}

/* Every element of x is added to the one of y that its kept dims name. */
static void write_sum(writer *w, const td_step *s) {
  const td_value *x = &s->in[0], *y = &s->out[0];
  unsigned all = (1u << x->ndim) - 1, mask = s->a.i[0] ? (unsigned)s->a.i[0] & all : all;
  int zero = new_number(w, 0, true), sum[MOST_STEPS];
  if (y->numel > MOST_STEPS) w->failed = true;
  for (size_t e = 0; e < y->numel && !w->failed; e++) sum[e] = zero;
  for (size_t e = 0; e < x->numel && !w->failed; e++) {
    size_t rest = e, to = 0, scale = 1;
    for (int i = x->ndim - 1; i >= 0; i--) {
      if (!(mask >> i & 1)) to += rest % x->shape[i] * scale, scale *= x->shape[i];
      rest /= x->shape[i];
    }
    sum[to] = emit(w, TD_PW_add, sum[to], get(w, x, element(x, e)), 0, 2);
  }
  for (size_t e = 0; e < y->numel && !w->failed; e++) set(w, y, e, sum[e]);
}

static void write_product(writer *w, const td_step *s) {
  const td_value *a = &s->in[0], *b = &s->in[1], *y = &s->out[0];
  if (a->ndim != 2 || b->ndim != 2 || a->shape[1] == 0) {
    w->failed = true;
    return;
  }
  size_t n = b->shape[1], k = a->shape[1];
  for (size_t e = 0; e < y->numel && !w->failed; e++) {
    int sum = new_number(w, 0, true);
    for (size_t i = 0; i < k; i++) {
      int term = emit(w, TD_PW_mul, get(w, a, element(a, e / n * k + i)), get(w, b, element(b, i * n + e % n)), 0, 2);
      sum = emit(w, TD_PW_add, sum, term, 0, 2);
    }
    set(w, y, e, sum);
  }
}

static void write_step(writer *w, const td_step *s) {
  if (s->chain) write_chain(w, s);
  else if (s->op == &td_op_cat) write_cat(w, s);
  else if (s->op == &td_op_narrow_grad) write_narrow_grad(w, s);
  else if (s->op == &td_op_sum) write_sum(w, s);
  else if (s->op == &td_op_matmul) write_product(w, s);
  else w->failed = true;
}

/* ---- The whole program ---- */

static bool is_real64(const td_value *v) { return v->dtype == TD_F64 || v->weak; }

/* Could it be written out at all? */
static bool is_tiny(const td_ir *ir) {
  enum { MOST_ELEMENTS = 64 };
  for (int i = 0; i < ir->nbuffer; i++) {
    const td_buffer *f = &ir->buffer[i];
    if (f->first >= 0 && (f->written || f->bytes > MOST_ELEMENTS * sizeof(double))) return false;
  }
  for (int i = 0; i < ir->nstep; i++) {
    const td_step *s = ir->step[i];
    if (s->chain && s->chain->dtype != TD_F64) return false;
    for (int k = 0; k < s->nin; k++)
      if (!is_real64(&s->in[k])) return false;
    for (int k = 0; k < s->nout; k++)
      if (s->out[k].dtype != TD_F64 || s->out[k].numel == 0) return false;
  }
  enum { MOST_SLOTS = 64 };
  return ir->nstep > 0 && ir->ninput <= MOST_SLOTS && ir->noutput <= MOST_SLOTS && ir->nexternal <= MOST_SLOTS;
}

/* What steps read a buffer's elements as, which a constant's own tensor need not say: a storage that was written to
 * begins as a copy of bytes. */
static td_dtype read_as(writer *w, int buffer) {
  td_dtype type = TD_F64;
  bool found = false;
  for (int i = 0; i < w->ir->nstep; i++) {
    const td_step *s = w->ir->step[i];
    for (int k = 0; k < s->nin; k++) {
      if (s->in[k].buffer != buffer) continue;
      if (found && s->in[k].dtype != type) w->failed = true;
      type = s->in[k].dtype;
      found = true;
    }
  }
  return type;
}

/* Numbers for what is there before the first step. */
static void begin(writer *w, int buffer) {
  const td_buffer *f = &w->ir->buffer[buffer];
  const td_tensor *c = f->kind == TD_BUF_CONSTANT ? w->ir->constant[f->slot] : NULL;
  td_dtype type = c ? read_as(w, buffer) : TD_F64;
  size_t n = f->bytes / td_dtype_size(type);
  bool there = f->kind == TD_BUF_INPUT || f->kind == TD_BUF_EXTERNAL || c;
  td_tensor whole = {.dtype = type, .data = c ? c->storage->data : NULL};
  for (size_t i = 0; i < n; i++)
    w->at[buffer][i] = there ? (int16_t)new_number(w, c ? td_tensor_get(&whole, i) : 0, c != NULL) : -1;
}

static td_status prepare(writer *w) {
  td_ir *ir = w->ir;
  w->at = td_pool_get(&ir->pool, (size_t)ir->nbuffer * sizeof *w->at);
  if (!w->at) return td_last_status();
  for (int i = 0; i < ir->nbuffer; i++) {
    if (ir->buffer[i].first < 0) continue;
    w->at[i] = td_pool_get(&ir->pool, (ir->buffer[i].bytes + 1) * sizeof **w->at);
    if (!w->at[i]) return td_last_status();
    begin(w, i);
  }
  return TD_OK;
}

/* Drops td_scalar_steps that lead to no result. */
static void drop_unused(writer *w, bool *used) {
  int n = w->nstep;
  for (int i = n; i-- > 0;) {
    const td_scalar_step *s = &w->step[i];
    if (used[s->dst]) used[s->a] = used[s->b] = used[s->c] = true;
  }
  w->nstep = 0;
  for (int i = 0; i < n; i++)
    if (used[w->step[i].dst]) w->step[w->nstep++] = w->step[i];
}

static int links(writer *w, td_buffer_kind kind, const bool *used, td_scalar_link *list) {
  int n = 0;
  for (int i = 0; i < w->ir->nbuffer; i++) {
    const td_buffer *f = &w->ir->buffer[i];
    if (f->kind != kind || f->first < 0) continue;
    for (size_t e = 0; e < f->bytes / sizeof(double); e++) {
      int place = w->at[i][e];
      if (place < 0 || (kind != TD_BUF_OUTPUT && !used[place])) continue;
      td_scalar_link *last = n ? &list[n - 1] : NULL;
      bool joins =
          last && last->slot == f->slot && last->number + last->count == place && last->element + last->count == e;
      if (joins) last->count++;
      else list[n++] = (td_scalar_link){(uint16_t)place, (uint16_t)f->slot, 1, (uint32_t)e};
    }
  }
  return n;
}

static td_status finish(writer *w, td_scalar **out) {
  td_pool *pool = &w->ir->pool;
  static bool used[MOST_NUMBERS];
  td_scalar *s = td_pool_get(pool, sizeof *s);
  td_scalar_link *room = td_pool_get(pool, 3 * MOST_NUMBERS * sizeof *room);
  if (!s || !room) return td_last_status();
  memset(used, 0, sizeof used);
  s->store = room;
  s->nstore = links(w, TD_BUF_OUTPUT, used, s->store);
  for (int i = 0; i < s->nstore; i++)
    for (int k = 0; k < s->store[i].count; k++) used[s->store[i].number + k] = true;
  drop_unused(w, used);
  s->load = room + MOST_NUMBERS;
  s->nload = links(w, TD_BUF_INPUT, used, s->load);
  s->load_external = room + 2 * MOST_NUMBERS;
  s->nexternal = links(w, TD_BUF_EXTERNAL, used, s->load_external);
  s->number = td_pool_get(pool, (size_t)(w->numbers + 1) * sizeof *s->number);
  s->step = td_pool_get(pool, (size_t)(w->nstep + 1) * sizeof *s->step);
  if (!s->number || !s->step) return td_last_status();
  memcpy(s->number, w->number, (size_t)w->numbers * sizeof *s->number);
  memcpy(s->step, w->step, (size_t)w->nstep * sizeof *s->step);
  s->nstep = w->nstep;
  s->numbers = w->numbers;
  s->constant = td_pool_get(pool, (size_t)(w->numbers + 1) * sizeof *s->constant);
  if (!s->constant) return td_last_status();
  memcpy(s->constant, w->constant, (size_t)w->numbers * sizeof *s->constant);
  *out = s;
  return TD_OK;
}

td_status td_scalar_make(td_ir *ir, td_scalar **out) {
  *out = NULL;
  if (!is_tiny(ir)) return TD_OK;
  static writer w;
  w = (writer){.ir = ir};
  td_status s = prepare(&w);
  for (int i = 0; i < ir->nstep && !s && !w.failed; i++) write_step(&w, ir->step[i]);
  return s || w.failed ? s : finish(&w, out);
}

static double dot(const double *a, const double *b, int n, double sum) {
  for (int i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

/* Each operation goes on to the next by a jump of its own, which the processor foresees better than a common one. */
void td_scalar_perform(const td_scalar_step *step, int n, double *x) {
  static const void *const at[] = {
#define LABEL(name, value) [name] = &&do_##name,
    OPERATIONS(LABEL) [TD_SCALAR_SCALE] = &&do_scale, [TD_SCALAR_DOT] = &&do_dot,
#undef LABEL
  };
  const td_scalar_step *p = step - 1, *end = step + n;
#define NEXT                \
  if (++p == end) return;   \
  goto *at[p->op]
  NEXT;
#define DO(name, value)                               \
  do_##name: {                                        \
    double a = x[p->a], b = x[p->b], c = x[p->c];     \
    (void)a, (void)b, (void)c;                        \
    x[p->dst] = value;                                \
    NEXT;                                             \
  }
  OPERATIONS(DO)
do_scale:
  for (int i = 0; i < p->n; i++) x[p->dst + i] = x[p->a] * x[p->b + i];
  NEXT;
do_dot:
  x[p->dst] = dot(x + p->a, x + p->b, p->n, x[p->c]);
  NEXT;
#undef DO
#undef NEXT
}

static void load(double *x, const td_scalar_link *l, const char *base) {
  const double *from = (const double *)(const void *)base + l->element;
  for (int k = 0; k < l->count; k++) x[l->number + k] = from[k];
}

void td_scalar_run(const td_scalar *s, void *const *in, void *const *out, td_tensor *const *external) {
  double *x = s->number;
  for (int i = 0; i < s->nload; i++) load(x, &s->load[i], in[s->load[i].slot]);
  for (int i = 0; i < s->nexternal; i++) {
    const td_scalar_link *l = &s->load_external[i];
    load(x, l, external[l->slot]->storage->data);
  }
  td_scalar_perform(s->step, s->nstep, x);
  for (int i = 0; i < s->nstore; i++) {
    const td_scalar_link *l = &s->store[i];
    double *to = (double *)out[l->slot] + l->element;
    for (int k = 0; k < l->count; k++) to[k] = x[l->number + k];
  }
}

int td_scalar_length(const td_scalar *s) { return s->nstep; }
