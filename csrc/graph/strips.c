/* Writing a list of operations on short arrays, and the loop that runs it. */
#include "graph/strips.h"
#include <string.h>
#include "base/alloc.h"
#include "graph/plan.h"
#include "ops/ops.h"

enum {
  MOST_ELEMENTS = 4096,    /* of one value: more are worth threads, */
  MOST_WORK = 1 << 16,     /* and so are more multiplications of a product */
  MOST_NUMBERS = 1 << 16,  /* elements of a list's block */
  MOST_OPS = 4096,
  ALIGNMENT = 64,
  TEMPORARY = 1 << 28,     /* places from here on are reused by the next program that is put in */
  FEW = 16                 /* elements of a combination that are summed one by one, as steppers do */
};

typedef enum { LOOP, PRODUCT, COMBINE, MOVE, REARRANGE, FILL, SUM } kind;

struct td_strip {
  kind kind;
  size_t n;
  void *y;
  union {
    struct {                     /* y = op(arg[0], …) */
      td_pw_loop run;
      td_pw_arg arg[3];
    } loop;
    struct {
      td_product_fn run;
      td_product p;
    } product;
    struct {                     /* y = base + Σ coef·x */
      const void *base, **x;
      const double **coef;
      int count;
    } combine;
    const void *x;               /* y = x, n bytes; y = the number x, everywhere */
    struct {
      const void *x;
      int ndim;
      size_t ys[TD_MAX_DIMS], xs[TD_MAX_DIMS], shape[TD_MAX_DIMS];
    } rearrange;
    struct {
      const void *x;
      size_t outer, n, inner;
    } sum;
  } as;
};

/* Bytes read from outside when they have changed, or once (data). */
struct td_strips_load {
  const td_program *of;          /* borrowed: a program that was put in */
  const td_storage *storage;     /* what it was when the list was written, to find equal ones */
  int slot, place;
  uint32_t version;
  size_t from, bytes;
  const void *data;
};

/* A view of something from outside that was laid out anew. */
struct td_strips_view {
  int from, place, ndim;         /* ndim −1: a number that fills a vector */
  size_t shape[TD_MAX_DIMS], stride[TD_MAX_DIMS];
};

/* ---- Room ---- */

/* The array with room for one more item, doubled as needed; or it stays as it is and the list has failed. */
static void *grown(td_strips *s, void *array, int used, int *room, size_t size) {
  if (used < *room) return array;
  int wanted = *room ? 2 * *room : 64;
  void *larger = used < MOST_OPS * 4 ? td_alloc((size_t)wanted * size) : NULL;
  s->failed |= !larger;
  if (!larger) return array;
  if (used) memcpy(larger, array, (size_t)used * size);
  td_free(array, (size_t)*room * size);
  *room = wanted;
  return larger;
}

static size_t padded(size_t n) { return (n + ALIGNMENT / 4 - 1) & ~(size_t)(ALIGNMENT / 4 - 1); }

int td_strips_new(td_strips *s, size_t n) {
  int place = s->numbers;
  if (n > MOST_NUMBERS || s->numbers > MOST_NUMBERS) s->failed = true;
  else s->numbers += (int)padded(n);
  return place;
}

static int new_temporary(td_strips *s, size_t n) {
  int place = TEMPORARY + s->temporaries;
  if (n > MOST_NUMBERS || s->temporaries > MOST_NUMBERS) s->failed = true;
  else s->temporaries += (int)padded(n);
  if (s->temporaries > s->most_temporaries) s->most_temporaries = s->temporaries;
  return place;
}

double *td_strips_coefficients(td_strips *s, size_t n) {
  double *c = td_pool_get(&s->pool, (n + 1) * sizeof *c);
  s->failed |= !c;
  return c;
}

/* *where will point to the place. */
static void note(td_strips *s, void *where, int place) {
  s->patch = grown(s, s->patch, s->npatch, &s->patch_room, sizeof *s->patch);
  if (s->failed) return;
  s->patch[s->npatch].where = where;
  s->patch[s->npatch++].place = place;
}

static td_strip *new_op(td_strips *s, td_strip_ops *list, kind k, int y, size_t n) {
  static td_strip nowhere;
  list->item = grown(s, list->item, list->count, &list->room, sizeof *list->item);
  td_strip *o = s->failed || list->count == MOST_OPS ? NULL : td_pool_get(&s->pool, sizeof *o);
  s->failed |= !o;
  if (!o) return &nowhere;
  list->item[list->count++] = o;
  *o = (td_strip){.kind = k, .n = n};
  note(s, &o->y, y);
  return o;
}

void td_strips_begin(td_strips *s, td_dtype dtype) {
  *s = (td_strips){.dtype = dtype, .size = td_dtype_size(dtype), .k = td_k(dtype)};
  s->k->loop(TD_PW_add, &s->lanes);
}

void td_strips_free(td_strips *s) {
  td_pool_free(&s->pool);
  td_free(s->once.item, (size_t)s->once.room * sizeof *s->once.item);
  td_free(s->list.item, (size_t)s->list.room * sizeof *s->list.item);
  td_free(s->patch, (size_t)s->patch_room * sizeof *s->patch);
  td_free(s->load, (size_t)s->load_room * sizeof *s->load);
  td_free(s->view, (size_t)s->view_room * sizeof *s->view);
  td_free(s->block, s->bytes);
  *s = (td_strips){0};
}

/* ---- Operations ---- */

void td_strips_combine(td_strips *s, int y, int base, int count, double *const *coef, const int *x, size_t n) {
  td_strip *o = new_op(s, &s->list, COMBINE, y, n);
  const void **from = td_pool_get(&s->pool, (size_t)(count + 1) * sizeof *from);
  const double **by = td_pool_get(&s->pool, (size_t)(count + 1) * sizeof *by);
  s->failed |= !from || !by;
  if (s->failed) return;
  if (base >= 0) note(s, &o->as.combine.base, base);
  for (int i = 0; i < count; i++) {
    by[i] = coef[i];
    note(s, &from[i], x[i]);
  }
  o->as.combine.x = from;
  o->as.combine.coef = by;
  o->as.combine.count = count;
}

/* An operand of a loop. */
typedef struct {
  int place;
  size_t step;
} operand;

static void add_loop(td_strips *s, td_pw_op op, int y, int count, const operand *x, size_t n) {
  size_t lanes;
  td_strip *o = new_op(s, &s->list, LOOP, y, n);
  if (s->failed) return;
  o->as.loop.run = s->k->loop(op, &lanes);
  for (int i = 0; i < count; i++) {
    o->as.loop.arg[i].step = x[i].step;
    note(s, &o->as.loop.arg[i].p, x[i].place);
  }
}

void td_strips_add(td_strips *s, int y, int x, size_t n) {
  add_loop(s, TD_PW_add, y, 2, (operand[]){{y, s->lanes}, {x, s->lanes}}, n);
}

static void add_move(td_strips *s, int y, int x, size_t n) {
  td_strip *o = new_op(s, &s->list, MOVE, y, n * s->size);
  if (!s->failed) note(s, &o->as.x, x);
}

static void add_rearrange(td_strips *s, td_strip_ops *list, int y, const size_t *ys, int x, const size_t *xs, int ndim,
                          const size_t *shape) {
  td_strip *o = new_op(s, list, REARRANGE, y, 0);
  if (s->failed) return;
  o->as.rearrange.ndim = ndim;
  memcpy(o->as.rearrange.ys, ys, (size_t)ndim * sizeof *ys);
  memcpy(o->as.rearrange.xs, xs, (size_t)ndim * sizeof *xs);
  memcpy(o->as.rearrange.shape, shape, (size_t)ndim * sizeof *shape);
  note(s, &o->as.rearrange.x, x);
}

/* ---- A program inside ---- */

/* The program that is being put in; at: the place of each buffer's first byte, as if it were there. */
typedef struct {
  td_strips *s;
  const td_program *program;
  const td_ir *ir;
  int *at;
} inserter;

static bool is_outside(const inserter *w, const td_value *v) {
  td_buffer_kind k = w->ir->buffer[v->buffer].kind;
  return k == TD_BUF_EXTERNAL || k == TD_BUF_CONSTANT;
}

static td_strips_load *new_load(td_strips *s, int place, size_t bytes);

/* A number that was made while the function was captured. */
static int constant_number(inserter *w, const td_value *v) {
  td_strips *s = w->s;
  td_tensor *c = w->ir->constant[w->ir->buffer[v->buffer].slot];
  td_tensor whole = {.dtype = v->dtype, .data = (char *)c->storage->data};
  double x = td_tensor_get(&whole, v->offset / td_dtype_size(v->dtype));
  void *copy = td_pool_get(&s->pool, sizeof x);
  s->failed |= !copy;
  if (s->failed) return 0;
  if (s->dtype == TD_F64) memcpy(copy, &x, sizeof x);
  else *(float *)copy = (float)x;
  for (int i = 0; i < s->nload; i++)
    if (s->load[i].data && s->load[i].bytes == s->size && !memcmp(s->load[i].data, copy, s->size))
      return s->load[i].place;
  int place = td_strips_new(s, 1);
  new_load(s, place, s->size)->data = copy;
  return place;
}

/* Where v begins. */
static int place_of(inserter *w, const td_value *v) {
  td_buffer_kind k = w->ir->buffer[v->buffer].kind;
  if (v->dtype == w->s->dtype) return w->at[v->buffer] + (int)(v->offset / w->s->size);
  if (k == TD_BUF_CONSTANT && v->numel == 1) return constant_number(w, v);
  if (k != TD_BUF_INPUT || v->dtype != TD_F64 || v->numel != 1) w->s->failed = true;
  return w->at[v->buffer];
}

/* Where the view (ndim −1: the number) from place `from` on lies anew: what comes from outside does so once for the
 * list. */
static int view_of(inserter *w, const td_value *v, int from, int ndim, const size_t *shape, const size_t *stride) {
  td_strips *s = w->s;
  bool outside = is_outside(w, v);
  size_t n = ndim < 0 ? s->lanes : 1, bytes = ndim < 0 ? 0 : (size_t)ndim * sizeof *shape, ys[TD_MAX_DIMS];
  for (int i = 0; outside && i < s->nview; i++) {
    const td_strips_view *o = &s->view[i];
    if (o->from != from || o->ndim != ndim) continue;
    if (!bytes || (!memcmp(o->shape, shape, bytes) && !memcmp(o->stride, stride, bytes))) return o->place;
  }
  for (int i = ndim - 1; i >= 0; i--) ys[i] = n, n *= shape[i];
  if (n > MOST_ELEMENTS) s->failed = true;
  int place = outside ? td_strips_new(s, n) : new_temporary(s, n);
  td_strip_ops *list = outside ? &s->once : &s->list;
  if (ndim >= 0) {
    add_rearrange(s, list, place, ys, from, stride, ndim, shape);
  } else {
    td_strip *o = new_op(s, list, FILL, place, n);
    if (!s->failed) note(s, &o->as.x, from);
  }
  s->view = outside ? grown(s, s->view, s->nview, &s->view_room, sizeof *s->view) : s->view;
  if (s->failed || !outside) return place;
  td_strips_view *o = &s->view[s->nview++];
  *o = (td_strips_view){.from = from, .place = place, .ndim = ndim};
  if (bytes) memcpy(o->shape, shape, bytes), memcpy(o->stride, stride, bytes);
  return place;
}

/* v's strides over a shape that it is broadcast to; true when it then is one array as it lies. */
static bool spread(const td_value *v, int ndim, const size_t *shape, size_t *stride) {
  int lead = ndim - v->ndim;
  size_t expected = 1;
  bool even = true;
  for (int i = ndim - 1; i >= 0; i--) {
    stride[i] = i < lead || v->shape[i - lead] == 1 ? 0 : v->stride[i - lead];
    even = even && (shape[i] == 1 || stride[i] == expected);
    expected *= shape[i];
  }
  return even;
}

static operand operand_of(inserter *w, const td_value *v, const td_chain *c, size_t n) {
  size_t stride[TD_MAX_DIMS];
  int from = place_of(w, v);
  if (v->numel == 1 && n > 1) return (operand){view_of(w, v, from, -1, NULL, NULL), 0};
  if (spread(v, c->ndim, c->shape, stride)) return (operand){from, w->s->lanes};
  return (operand){view_of(w, v, from, c->ndim, c->shape, stride), w->s->lanes};
}

/* Writes x, an array in row-major order, to where v lies. */
static void store(inserter *w, const td_value *v, int x) {
  size_t stride[TD_MAX_DIMS], n = 1;
  for (int i = v->ndim - 1; i >= 0; i--) stride[i] = n, n *= v->shape[i];
  if (td_value_is_contiguous(v)) add_move(w->s, place_of(w, v), x, n);
  else add_rearrange(w->s, &w->s->list, place_of(w, v), v->stride, x, stride, v->ndim, v->shape);
}

static void insert_chain(inserter *w, const td_step *step) {
  static const int arity[] = {
#define ARITY(name, n) n,
    TD_PW_OPS(ARITY, ARITY)
#undef ARITY
  };
  td_strips *s = w->s;
  const td_chain *c = step->chain;
  operand reg[TD_PW_MAX_REG];
  size_t n = step->out[0].numel;
  bool there[TD_PW_MAX_OUT] = {false};
  if (c->dtype != s->dtype) s->failed = true;
  for (int i = 0; i < step->nin; i++) reg[i] = operand_of(w, &step->in[i], c, n);
  for (int i = 0; i < c->nstep && !s->failed; i++) {
    const td_pw_step *p = &c->step[i];
    operand x[3];
    int o = 0;
    for (int k = 0; k < arity[p->op]; k++) x[k] = reg[p->src[k]];
    while (o < step->nout && (c->out_reg[o] != p->dst || !td_value_is_whole(w->ir, &step->out[o]))) o++;
    if (o < step->nout) there[o] = true;
    reg[p->dst] = (operand){o < step->nout ? place_of(w, &step->out[o]) : new_temporary(s, n), s->lanes};
    add_loop(s, p->op, reg[p->dst].place, arity[p->op], x, n);
  }
  for (int i = 0; i < step->nout && !s->failed; i++) {
    operand from = reg[c->out_reg[i]];
    if (there[i]) continue;
    if (from.step || n == 1) {
      store(w, &step->out[i], from.place);
    } else {  /* one number everywhere */
      int all = new_temporary(s, n);
      add_loop(s, TD_PW_copy, all, 1, &from, n);
      store(w, &step->out[i], all);
    }
  }
}

/* A matrix as the product reads it: where it lies, or in a copy. */
static int matrix(inserter *w, const td_value *v, size_t *row, size_t *col) {
  td_tensor head = {.dtype = v->dtype, .ndim = 2, .numel = v->numel};
  bool trans;
  size_t ld;
  memcpy(head.shape, v->shape, sizeof head.shape);
  memcpy(head.stride, v->stride, sizeof head.stride);
  if (v->dtype != w->s->dtype) w->s->failed = true;
  if (!td_matmul_reads(&head, &trans, &ld)) {
    *row = v->shape[1], *col = 1;
    return view_of(w, v, place_of(w, v), 2, v->shape, v->stride);
  }
  *row = trans ? 1 : ld, *col = trans ? ld : 1;
  return place_of(w, v);
}

static void insert_product(inserter *w, const td_step *step) {
  td_strips *s = w->s;
  const td_value *a = &step->in[0], *b = &step->in[1], *y = &step->out[0];
  if (a->ndim != 2 || b->ndim != 2 || y->dtype != s->dtype || !td_value_is_contiguous(y)) s->failed = true;
  if (s->failed) return;
  td_product p = {.m = a->shape[0], .n = b->shape[1], .k = a->shape[1], .c_row = b->shape[1]};
  bool lines;
  int at_a = matrix(w, a, &p.a_row, &p.a_col), at_b = matrix(w, b, &p.b_row, &p.b_col);
  td_product_fn run = p.m * p.n * p.k <= MOST_WORK ? s->k->product(&p, &lines) : NULL;
  if (run && lines && p.b_row != 1 && is_outside(w, b)) {
    at_b = view_of(w, b, at_b, 2, (size_t[]){p.n, p.k}, (size_t[]){p.b_col, p.b_row});
    p.b_row = 1, p.b_col = p.k;
  }
  td_strip *o = new_op(s, &s->list, PRODUCT, place_of(w, y), 0);
  s->failed |= !run;
  if (s->failed) return;
  /* one row, of few terms: whole vectors, which read and write what nobody looks at */
  bool alone = p.m == 1 && p.b_col == 1 && p.k <= 4 && p.n >= s->lanes && td_value_is_whole(w->ir, y);
  if (alone) p.n = (p.n + s->lanes - 1) / s->lanes * s->lanes;
  o->as.product.run = run;
  o->as.product.p = p;
  note(s, &o->as.product.p.a, at_a);
  note(s, &o->as.product.p.b, at_b);
  note(s, &o->as.product.p.c, place_of(w, y));
}

/* Of an array as it lies, over dims that follow one another. */
static void insert_sum(inserter *w, const td_step *step) {
  td_strips *s = w->s;
  const td_value *x = &step->in[0];
  unsigned all = (1u << x->ndim) - 1, mask = step->a.i[0] ? (unsigned)step->a.i[0] & all : all;
  size_t part[3] = {1, 1, 1};
  int at = 0;
  for (int i = 0; i < x->ndim; i++) {
    bool summed = mask >> i & 1;
    if (x->shape[i] == 1) continue;
    if (at == (summed ? 0 : 1)) at++;
    if (at == 2 && summed) s->failed = true;
    part[at] *= x->shape[i];
  }
  if (x->dtype != s->dtype || !td_value_is_contiguous(x) || !td_value_is_contiguous(&step->out[0])) s->failed = true;
  td_strip *o = new_op(s, &s->list, SUM, place_of(w, &step->out[0]), 0);
  if (s->failed) return;
  o->as.sum.outer = part[0], o->as.sum.n = part[1], o->as.sum.inner = part[2];
  note(s, &o->as.sum.x, place_of(w, x));
}

/* x to part of y along a dim, from `start` on and `step` apart. */
static void insert_part(inserter *w, const td_value *y, const td_value *x, int64_t dim, size_t start, size_t step) {
  size_t stride[TD_MAX_DIMS];
  memcpy(stride, y->stride, sizeof stride);
  if (x->dtype != w->s->dtype || y->dtype != w->s->dtype) w->s->failed = true;
  int to = place_of(w, y) + (int)(start * stride[dim]);
  stride[dim] *= step;
  add_rearrange(w->s, &w->s->list, to, stride, place_of(w, x), x->stride, x->ndim, x->shape);
}

static void insert_cat(inserter *w, const td_step *step) {
  size_t start = 0;
  for (int i = 0; i < step->nin; i++) {
    insert_part(w, &step->out[0], &step->in[i], step->a.i[0], start, 1);
    start += step->in[i].shape[step->a.i[0]];
  }
}

static void insert_narrow_grad(inserter *w, const td_step *step) {
  td_strips *s = w->s;
  int to = place_of(w, &step->out[0]);
  size_t n = step->out[0].numel;
  if (!td_value_is_whole(w->ir, &step->out[0])) s->failed = true;
  add_loop(s, TD_PW_copy, to, 1, &(operand){td_strips_new(s, s->lanes), 0}, n);  /* zeros */
  insert_part(w, &step->out[0], &step->in[0], step->a.i[0], (size_t)step->a.i[1], (size_t)step->a.i[2]);
}

static void insert_step(inserter *w, const td_step *step) {
  if (step->chain) insert_chain(w, step);
  else if (step->op == &td_op_matmul) insert_product(w, step);
  else if (step->op == &td_op_sum) insert_sum(w, step);
  else if (step->op == &td_op_cat) insert_cat(w, step);
  else if (step->op == &td_op_narrow_grad) insert_narrow_grad(w, step);
  else w->s->failed = true;
}

/* ---- What it reads from outside ---- */

static td_strips_load *new_load(td_strips *s, int place, size_t bytes) {
  static td_strips_load nowhere;
  s->load = grown(s, s->load, s->nload, &s->load_room, sizeof *s->load);
  if (s->failed) return &nowhere;
  td_strips_load *l = &s->load[s->nload++];
  *l = (td_strips_load){.place = place, .bytes = bytes};
  return l;
}

/* The bytes of a buffer that the program reads, as elements of the list's type. */
static void reach(const inserter *w, int buffer, size_t *from, size_t *to) {
  *from = SIZE_MAX, *to = 0;
  for (int i = 0; i < w->ir->nstep; i++)
    for (int k = 0; k < w->ir->step[i]->nin; k++) {
      const td_value *v = &w->ir->step[i]->in[k];
      if (v->buffer != buffer || v->dtype != w->s->dtype || v->numel == 0) continue;
      size_t end = v->offset + w->s->size;
      for (int d = 0; d < v->ndim; d++) end += (v->shape[d] - 1) * v->stride[d] * w->s->size;
      if (v->offset < *from) *from = v->offset;
      if (end > *to) *to = end;
    }
}

/* The place of what lies outside, as if all of its storage were there. */
static int load(inserter *w, int buffer) {
  td_strips *s = w->s;
  const td_buffer *f = &w->ir->buffer[buffer];
  bool constant = f->kind == TD_BUF_CONSTANT;
  const td_storage *of =
    constant ? w->ir->constant[f->slot]->storage : td_program_external(w->program, f->slot)->storage;
  size_t from, to;
  reach(w, buffer, &from, &to);
  if (from >= to) return 0;
  for (int i = 0; i < s->nload; i++) {
    const td_strips_load *l = &s->load[i];
    if (l->storage == of && l->from <= from && l->from + l->bytes >= to) return l->place - (int)(l->from / s->size);
  }
  if (from / s->size > TEMPORARY / 2) s->failed = true;
  int place = td_strips_new(s, (to - from) / s->size);
  td_strips_load *l = new_load(s, place, to - from);
  if (s->failed) return place;
  l->storage = of;
  l->of = w->program;
  l->slot = f->slot;
  l->from = from;
  if (constant) l->data = (const char *)of->data + from;
  return place - (int)(from / s->size);
}

static int place_buffer(inserter *w, int buffer, const int *in, int *out) {
  const td_buffer *f = &w->ir->buffer[buffer];
  size_t n = f->bytes / w->s->size;
  switch (f->kind) {
    case TD_BUF_INPUT: return in[f->slot];
    case TD_BUF_OUTPUT:
      if (out[f->slot] < 0) out[f->slot] = td_strips_new(w->s, n);
      return out[f->slot];
    case TD_BUF_EXTERNAL: case TD_BUF_CONSTANT: return load(w, buffer);
    default: return new_temporary(w->s, n);
  }
}

void td_strips_insert(td_strips *s, const td_program *p, const int *in, int *out) {
  const td_ir *ir = &td_program_plan(p)->ir;
  size_t bytes = (size_t)(ir->nbuffer + 1) * sizeof(int);
  inserter w = {.s = s, .program = p, .ir = ir, .at = td_alloc(bytes)};
  s->failed |= !w.at;
  s->temporaries = 0;
  for (int i = 0; i < ir->nbuffer && !s->failed; i++)
    w.at[i] = ir->buffer[i].first >= 0 || ir->buffer[i].kind == TD_BUF_OUTPUT ? place_buffer(&w, i, in, out) : 0;
  for (int i = 0; i < ir->nstep && !s->failed; i++) insert_step(&w, ir->step[i]);
  td_free(w.at, w.at ? bytes : 0);
}

bool td_strips_takes(const td_program *p, td_dtype dtype) {
  const td_ir *ir = &td_program_plan(p)->ir;
  for (int i = 0; i < ir->nbuffer; i++)
    if (ir->buffer[i].first >= 0 && (ir->buffer[i].written || ir->buffer[i].rewritten)) return false;
  for (int i = 0; i < ir->nstep; i++) {
    const td_step *step = ir->step[i];
    for (int k = 0; k < step->nout; k++)
      if (step->out[k].dtype != dtype || step->out[k].numel > MOST_ELEMENTS || step->out[k].numel == 0) return false;
    if (step->op == &td_op_matmul && !step->chain &&
        step->out[0].numel * step->in[0].shape[step->in[0].ndim - 1] > MOST_WORK)
      return false;
  }
  return ir->nstep > 0;
}

/* ---- Running ---- */

void td_strips_finish(td_strips *s) {
  size_t n = (size_t)(s->numbers + s->most_temporaries) + 2 * s->lanes;
  s->bytes = n * s->size;
  s->block = s->failed || s->bytes > MOST_NUMBERS * sizeof(double) ? NULL : td_alloc(s->bytes);
  s->failed |= !s->block;
  if (s->failed) return;
  memset(s->block, 0, s->bytes);
  for (int i = 0; i < s->npatch; i++) {
    int place = s->patch[i].place;
    *s->patch[i].where = td_strips_at(s, place < TEMPORARY ? place : place - TEMPORARY + s->numbers);
  }
  for (int i = 0; i < s->nload; i++)
    if (s->load[i].data) memcpy(td_strips_at(s, s->load[i].place), s->load[i].data, s->load[i].bytes);
}

/* Few elements one by one, as td_stepper_combine does: each is summed in the order of the terms. */
#define COMBINE_FEW(real)                                                     \
  real sum[FEW];                                                              \
  for (size_t e = 0; e < n; e++) sum[e] = base ? ((const real *)base)[e] : 0; \
  for (int i = 0; i < count; i++) {                                           \
    const real c = (real)*coef[i], *x = o->as.combine.x[i];                   \
    for (size_t e = 0; e < n; e++) sum[e] += c * x[e];                        \
  }                                                                           \
  memcpy(o->y, sum, n * sizeof *sum);

static void combine(const td_strips *s, const td_strip *o) {
  enum { MOST = 32 };
  const void *base = o->as.combine.base;
  const double *const *coef = o->as.combine.coef;
  const int count = o->as.combine.count;
  const size_t n = o->n;
  if (n <= FEW && s->dtype == TD_F32) {
    COMBINE_FEW(float)
  } else if (n <= FEW) {
    COMBINE_FEW(double)
  } else {
    double all[MOST];
    for (int i = 0; i < count; i++) all[i] = *coef[i];
    s->k->lincomb(o->y, base, (size_t)count, all, o->as.combine.x, n);
  }
}

static void fill(const td_strips *s, const td_strip *o) {
  for (size_t i = 0; i < o->n; i++) memcpy((char *)o->y + i * s->size, o->as.x, s->size);
}

static void perform(const td_strips *s, const td_strip_ops *list) {
  static const uint8_t in_order[] = {0, 1, 2};
  for (int i = 0; i < list->count; i++) {
    const td_strip *o = list->item[i];
    switch (o->kind) {
      case LOOP: o->as.loop.run(o->y, o->as.loop.arg, in_order, o->n); break;
      case PRODUCT: o->as.product.run(&o->as.product.p); break;
      case COMBINE: combine(s, o); break;
      case MOVE: memcpy(o->y, o->as.x, o->n); break;
      case REARRANGE:
        td_k_rearrange(o->y, o->as.rearrange.ys, o->as.rearrange.x, o->as.rearrange.xs, o->as.rearrange.ndim,
                       o->as.rearrange.shape, s->size);
        break;
      case FILL: fill(s, o); break;
      default: s->k->sum(o->y, o->as.sum.x, o->as.sum.outer, o->as.sum.n, o->as.sum.inner);
    }
  }
}

static const td_storage *loaded_from(const td_strips_load *l) { return td_program_external(l->of, l->slot)->storage; }

/* The programs hold on to what they read, so a version tells whether it has changed. */
static bool is_loaded(const td_strips *s) {
  for (int i = 0; i < s->nload && s->loaded; i++)
    if (!s->load[i].data && s->load[i].version != loaded_from(&s->load[i])->version) return false;
  return s->loaded;
}

static void load_all(td_strips *s) {
  for (int i = 0; i < s->nload; i++) {
    td_strips_load *l = &s->load[i];
    if (l->data) continue;
    const td_storage *from = loaded_from(l);
    memcpy(td_strips_at(s, l->place), (const char *)from->data + l->from, l->bytes);
    l->version = from->version;
  }
  perform(s, &s->once);
  s->loaded = true;
}

void td_strips_run(td_strips *s) {
  if (!is_loaded(s)) load_all(s);
  perform(s, &s->list);
}
