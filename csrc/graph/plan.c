/* From the planned steps to kernel calls. Every pointer that a call contains is noted with its slot, so that new inputs
 * are a matter of writing a few pointers. */
#include "graph/plan.h"
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "graph/tile.h"
#include "ops/ops.h"

/* ---- Building ---- */

int td_plan_slot(const td_plan *p, td_buffer_kind kind) {
  const td_ir *ir = &p->ir;
  switch (kind) {
    case TD_BUF_TEMP: return 0;
    case TD_BUF_INPUT: return 1;
    case TD_BUF_OUTPUT: return 1 + ir->ninput;
    case TD_BUF_EXTERNAL: return 1 + ir->ninput + ir->noutput;
    default: return 1 + ir->ninput + ir->noutput + ir->nexternal;
  }
}

static int slot_of(const td_plan *p, const td_buffer *f) { return td_plan_slot(p, f->kind) + f->slot; }

td_status td_plan_note(td_plan *p, int buffer, size_t offset, void **where) {
  const td_buffer *f = &p->ir.buffer[buffer];
  td_slot *s = &p->slot[slot_of(p, f)];
  if (s->count == s->room) {
    int wanted = s->room ? 2 * s->room : 8;
    td_patch *more = td_pool_get(&p->ir.pool, (size_t)wanted * sizeof *more);
    if (!more) return td_last_status();
    if (s->count) memcpy(more, s->patch, (size_t)s->count * sizeof *more);
    s->patch = more;
    s->room = wanted;
  }
  s->patch[s->count++] = (td_patch){where, offset + (f->kind == TD_BUF_TEMP ? f->offset : 0)};
  return TD_OK;
}

td_status td_plan_note_owner(td_plan *p, int buffer, void **where) {
  const td_buffer *f = &p->ir.buffer[buffer];
  if (f->written) return TD_OK;  /* its values change while the version stays */
  td_slot *s = &p->slot[slot_of(p, f)];
  if (s->nlent == s->lent_room) {
    int wanted = s->lent_room ? 2 * s->lent_room : 4;
    void ***more = td_pool_get(&p->ir.pool, (size_t)wanted * sizeof *more);
    if (!more) return td_last_status();
    if (s->nlent) memcpy(more, s->lent, (size_t)s->nlent * sizeof *more);
    s->lent = more;
    s->lent_room = wanted;
  }
  s->lent[s->nlent++] = where;
  return TD_OK;
}

/* A tensor that lies where the value says; with a storage of its own, so that kernels may look at it. */
static td_tensor *head_of(td_plan *p, const td_value *v) {
  td_tensor *t = td_pool_get(&p->ir.pool, sizeof *t);
  td_storage *s = t ? td_pool_get(&p->ir.pool, sizeof *s) : NULL;
  if (!s) return NULL;
  *s = (td_storage){.bytes = p->ir.buffer[v->buffer].bytes, .refs = 1, .is_lent = true};
  *t = (td_tensor){.refs = 1, .dtype = v->dtype, .ndim = v->ndim, .weak = v->weak, .storage = s, .numel = v->numel};
  memcpy(t->shape, v->shape, sizeof t->shape);
  memcpy(t->stride, v->stride, sizeof t->stride);
  if (td_plan_note(p, v->buffer, v->offset, (void **)&t->data) || td_plan_note(p, v->buffer, 0, &s->data) ||
      td_plan_note_owner(p, v->buffer, &s->owner))
    return NULL;
  return t;
}

static td_action *new_action(td_plan *p, td_action_kind kind, int step) {
  if (p->count == p->room) {
    int wanted = p->room ? 2 * p->room : 32;
    td_action *more = td_pool_get(&p->ir.pool, (size_t)wanted * sizeof *more);
    if (!more) return NULL;
    if (p->count) memcpy(more, p->action, (size_t)p->count * sizeof *more);
    p->action = more;
    p->room = wanted;
  }
  td_action *a = &p->action[p->count++];
  *a = (td_action){.kind = kind, .step = step};
  return a;
}

static td_status add_move(td_plan *p, int step, const td_value *y, const td_value *x) {
  td_action *a = new_action(p, TD_DO_MOVE, step);
  if (!a) return td_last_status();
  a->as.move.y = head_of(p, y);
  a->as.move.x = head_of(p, x);
  a->as.move.stride = td_pool_get(&p->ir.pool, TD_MAX_DIMS * sizeof(size_t));
  if (!a->as.move.y || !a->as.move.x || !a->as.move.stride) return td_last_status();
  int lead = y->ndim - x->ndim;
  for (int i = 0; i < y->ndim; i++)
    a->as.move.stride[i] = i < lead || x->shape[i - lead] == 1 ? 0 : x->stride[i - lead];
  return TD_OK;
}

/* Dims of size 1 are dropped, and dims that all operands walk through evenly become one. */
static void collapse(td_pw *w) {
  int n = 0;
  for (int d = 0; d < w->ndim; d++) {
    if (w->shape[d] == 1) continue;
    bool even = n > 0;
    ptrdiff_t size = (ptrdiff_t)w->shape[d];
    for (int i = 0; i < w->nin && even; i++) even = w->in[i].stride[n - 1] == size * w->in[i].stride[d];
    for (int i = 0; i < w->nout && even; i++) even = w->out[i].stride[n - 1] == size * w->out[i].stride[d];
    int to = even ? n - 1 : n++;
    w->shape[to] = even ? w->shape[to] * w->shape[d] : w->shape[d];
    for (int i = 0; i < w->nin; i++) w->in[i].stride[to] = w->in[i].stride[d];
    for (int i = 0; i < w->nout; i++) w->out[i].stride[to] = w->out[i].stride[d];
  }
  w->ndim = n;
}

static void lay_operand(td_pw_operand *o, const td_value *v, const td_chain *c) {
  int lead = c->ndim - v->ndim;
  o->dtype = v->dtype;
  for (int i = 0; i < c->ndim; i++)
    o->stride[i] = i < lead || v->shape[i - lead] == 1 ? 0 : (ptrdiff_t)v->stride[i - lead];
}

/* Registers in the order of instructions, used again once their last reader is past: few stay in the cache better. */
static void assign_registers(td_pw *w) {
  int last[TD_PW_MAX_REG] = {0}, now[TD_PW_MAX_REG];
  bool busy[TD_PW_MAX_REG] = {false};
  static const int arity[] = {
#define ARITY(name, n) n,
    TD_PW_OPS(ARITY, ARITY)
#undef ARITY
  };
  for (int i = 0; i < w->nstep; i++)
    for (int k = 0; k < arity[w->step[i].op]; k++) last[w->step[i].src[k]] = i;
  for (int i = 0; i < w->nout; i++) last[w->out_reg[i]] = w->nstep;
  for (int i = 0; i < w->nin; i++) now[i] = i;
  for (int i = 0; i < w->nstep; i++) {
    td_pw_step *s = &w->step[i];
    int ends[3], count = 0;
    for (int k = 0; k < 3; k++) {
      int reg = s->src[k];
      if (k < arity[s->op] && reg >= w->nin && last[reg] == i) ends[count++] = now[reg];
      s->src[k] = k < arity[s->op] ? (uint8_t)now[reg] : 0;
    }
    int free = w->nin;
    while (busy[free]) free++;
    busy[free] = true;
    now[s->dst] = free;
    s->dst = (uint8_t)free;
    for (int k = 0; k < count; k++) busy[ends[k]] = false;
  }
  for (int i = 0; i < w->nout; i++) w->out_reg[i] = (uint8_t)now[w->out_reg[i]];
}

static td_status add_chain(td_plan *p, int step) {
  const td_step *s = p->ir.step[step];
  const td_chain *c = s->chain;
  if (s->out[0].numel == 0) return TD_OK;
  if (c->nstep == 0 && s->nout == 1 && s->in[0].dtype == s->out[0].dtype)
    return add_move(p, step, &s->out[0], &s->in[0]);
  td_action *a = new_action(p, TD_DO_CHAIN, step);
  td_pw *w = a ? td_pool_get(&p->ir.pool, sizeof *w) : NULL;
  if (!w) return td_last_status();
  a->as.chain.kernel = td_k(c->dtype)->pointwise;
  a->as.chain.pw = w;
  w->ndim = c->ndim;
  w->nin = s->nin;
  w->nout = s->nout;
  w->nstep = c->nstep;
  memcpy(w->shape, c->shape, sizeof w->shape);
  memcpy(w->step, c->step, sizeof w->step);
  memcpy(w->out_reg, c->out_reg, sizeof w->out_reg);
  td_status status = TD_OK;
  for (int i = 0; i < s->nin && !status; i++) {
    lay_operand(&w->in[i], &s->in[i], c);
    status = td_plan_note(p, s->in[i].buffer, s->in[i].offset, &w->in[i].data);
  }
  for (int i = 0; i < s->nout && !status; i++) {
    lay_operand(&w->out[i], &s->out[i], c);
    status = td_plan_note(p, s->out[i].buffer, s->out[i].offset, &w->out[i].data);
  }
  collapse(w);
  assign_registers(w);
  return status;
}

/* Part [start, start + length) of a dim. */
static td_value window(const td_value *v, int64_t dim, size_t start, size_t length, size_t step) {
  td_value w = *v;
  w.offset += start * v->stride[dim] * td_dtype_size(v->dtype);
  w.shape[dim] = length;
  w.stride[dim] *= step;
  w.numel = 1;
  for (int i = 0; i < w.ndim; i++) w.numel *= w.shape[i];
  return w;
}

/* A copy of x into y, which converts when the types differ. */
static td_status add_copy(td_plan *p, int step, const td_value *y, const td_value *x) {
  if (y->numel == 0) return TD_OK;
  if (y->dtype == x->dtype) return add_move(p, step, y, x);
  td_action *a = new_action(p, TD_DO_CHAIN, step);
  td_pw *w = a ? td_pool_get(&p->ir.pool, sizeof *w) : NULL;
  if (!w) return td_last_status();
  td_dtype d = td_dtype_is_real(y->dtype) || !td_dtype_is_real(x->dtype) ? y->dtype : x->dtype;
  td_chain space = {.dtype = d, .ndim = y->ndim};
  *w = (td_pw){.ndim = y->ndim, .nin = 1, .nout = 1};
  memcpy(w->shape, y->shape, sizeof w->shape);
  lay_operand(&w->in[0], x, &space);
  lay_operand(&w->out[0], y, &space);
  collapse(w);
  a->as.chain.kernel = td_k(d)->pointwise;
  a->as.chain.pw = w;
  td_status s = td_plan_note(p, x->buffer, x->offset, &w->in[0].data);
  return s ? s : td_plan_note(p, y->buffer, y->offset, &w->out[0].data);
}

static td_status add_cat(td_plan *p, int step) {
  const td_step *s = p->ir.step[step];
  int64_t dim = s->a.i[0];
  size_t start = 0;
  td_status status = TD_OK;
  for (int i = 0; i < s->nin && !status; i++) {
    td_value w = window(&s->out[0], dim, start, s->in[i].shape[dim], 1);
    status = add_copy(p, step, &w, &s->in[i]);
    start += s->in[i].shape[dim];
  }
  return status;
}

/* Zeros, and x at its places. */
static td_status add_narrow_grad(td_plan *p, int step) {
  const td_step *s = p->ir.step[step];
  const td_value *y = &s->out[0];
  td_action *a = new_action(p, TD_DO_CLEAR, step);
  if (!a) return td_last_status();
  a->as.clear.bytes = y->numel * td_dtype_size(y->dtype);
  a->as.clear.y = head_of(p, y);
  if (!a->as.clear.y) return td_last_status();
  if (s->in[0].numel == 0) return TD_OK;
  td_value w = window(y, s->a.i[0], (size_t)s->a.i[1], s->in[0].shape[s->a.i[0]], (size_t)s->a.i[2]);
  return add_copy(p, step, &w, &s->in[0]);
}

static td_status add_call(td_plan *p, int step) {
  td_step *s = p->ir.step[step];
  td_action *a = new_action(p, TD_DO_OP, step);
  td_tensor **in = a ? td_pool_get(&p->ir.pool, (size_t)(s->nin + 1) * sizeof *in) : NULL;
  if (!in) return td_last_status();
  td_call *c = &a->as.call;
  *c = (td_call){.op = s->op, .a = &s->a, .nin = s->nin, .nout = s->nout, .in = in};
  for (int i = 0; i < s->nin; i++)
    if (!(in[i] = head_of(p, &s->in[i]))) return td_last_status();
  for (int i = 0; i < s->nout; i++) {
    if (!(c->out[i] = head_of(p, &s->out[i]))) return td_last_status();
    c->meta[i] = (td_meta){.dtype = s->out[i].dtype, .ndim = s->out[i].ndim};
    memcpy(c->meta[i].shape, s->out[i].shape, sizeof c->meta[i].shape);
  }
  return TD_OK;
}

/* A product of two matrices that the kernel can read where they lie. */
static bool is_plain_product(const td_step *s, td_tensor *a, td_tensor *b) {
  if (s->chain || s->op != &td_op_matmul || s->in[0].ndim != 2 || s->in[1].ndim != 2) return false;
  td_tensor *head[2] = {a, b};
  for (int i = 0; i < 2; i++) {
    *head[i] = (td_tensor){.dtype = s->in[i].dtype, .ndim = 2, .numel = s->in[i].numel};
    memcpy(head[i]->shape, s->in[i].shape, sizeof head[i]->shape);
    memcpy(head[i]->stride, s->in[i].stride, sizeof head[i]->stride);
  }
  bool trans;
  size_t ld;
  return td_matmul_reads(a, &trans, &ld) && td_matmul_reads(b, &trans, &ld) && td_value_is_contiguous(&s->out[0]);
}

static td_status add_product(td_plan *p, int step, const td_tensor *a, const td_tensor *b) {
  const td_step *s = p->ir.step[step];
  td_action *action = new_action(p, TD_DO_PRODUCT, step);
  td_plan_product *q = action ? td_pool_get(&p->ir.pool, sizeof *q) : NULL;
  if (!q) return td_last_status();
  action->as.product = q;
  q->kernels = td_k(a->dtype);
  q->m = a->shape[0], q->n = b->shape[1], q->k = a->shape[1];
  td_matmul_reads(a, &q->trans_a, &q->lda);
  td_matmul_reads(b, &q->trans_b, &q->ldb);
  td_status status = td_plan_note(p, s->out[0].buffer, s->out[0].offset, &q->y);
  if (!status) status = td_plan_note(p, s->in[0].buffer, s->in[0].offset, &q->a);
  return status ? status : td_plan_note(p, s->in[1].buffer, s->in[1].offset, &q->b);
}

static td_status add_step(td_plan *p, int step) {
  const td_step *s = p->ir.step[step];
  td_tensor a, b;
  if (is_plain_product(s, &a, &b)) return add_product(p, step, &a, &b);
  if (s->chain) return add_chain(p, step);
  if (s->op == &td_op_cat) return add_cat(p, step);
  if (s->op == &td_op_narrow_grad) return add_narrow_grad(p, step);
  return add_call(p, step);
}

/* ---- Slots ---- */

void td_plan_set(td_plan *p, int i, void *base) {
  td_slot *s = &p->slot[i];
  if (s->base == base) return;
  s->base = base;
  for (int k = 0; k < s->count; k++) *s->patch[k].where = s->base + s->patch[k].offset;
}

void td_plan_lend(td_plan *p, int i, td_storage *owner) {
  td_slot *s = &p->slot[i];
  if (s->owner == owner) return;
  s->owner = owner;
  for (int k = 0; k < s->nlent; k++) *s->lent[k] = owner;
}

static td_tensor *heads(td_ir *ir, const td_value *v, int n) {
  td_tensor *t = td_pool_get(&ir->pool, (size_t)(n + 1) * sizeof *t);
  for (int i = 0; t && i < n; i++) {
    t[i] = (td_tensor){.refs = 1, .dtype = v[i].dtype, .ndim = v[i].ndim, .numel = v[i].numel};
    memcpy(t[i].shape, v[i].shape, sizeof t[i].shape);
    td_strides(t[i].ndim, t[i].shape, t[i].stride);
  }
  return t;
}

/* ---- Planning ---- */

static td_status run_passes(td_ir *ir) {
  static td_status (*const passes[])(td_ir *) = {
    td_pass_chains, td_pass_reuse, td_pass_dead, td_pass_epilogues, td_pass_straighten, td_pass_fuse, td_pass_dead,
    td_pass_outputs,
  };
  td_status s = TD_OK;
  td_ir_analyse(ir);
  for (size_t i = 0; i < sizeof passes / sizeof *passes && !s; i++) s = passes[i](ir);
  return s;
}

/* Slots, and room for what is measured; the actions are to come. */
static td_status make_slots(td_plan *p) {
  td_ir *ir = &p->ir;
  p->nslot = 1 + ir->ninput + ir->noutput + ir->nexternal + ir->nconstant;
  p->slot = td_pool_get(&ir->pool, (size_t)p->nslot * sizeof *p->slot);
  return p->slot ? TD_OK : td_last_status();
}

static td_status finish(td_plan *p) {
  p->writes = td_pool_get(&p->ir.pool, (size_t)(p->ir.nexternal + 1) * sizeof *p->writes);
  if (!p->writes) return td_last_status();
  for (int i = 0; i < p->ir.nbuffer; i++) {
    const td_buffer *f = &p->ir.buffer[i];
    if (f->kind == TD_BUF_EXTERNAL && f->written) p->writes[p->nwrites++] = f->slot;
  }
  p->seconds = td_pool_get(&p->ir.pool, (size_t)(p->ir.nstep + 1) * sizeof *p->seconds);
  if (!p->seconds) return td_last_status();
  int first = td_plan_slot(p, TD_BUF_CONSTANT);
  for (int i = 0; i < p->ir.nconstant; i++) {
    td_plan_set(p, first + i, p->ir.constant[i]->storage->data);
    td_plan_lend(p, first + i, p->ir.constant[i]->storage);
  }
  return TD_OK;
}

td_status td_plan_lay(td_plan *p) {
  td_ir_analyse(&p->ir);
  td_status s = td_ir_place(&p->ir, &p->bytes);
  if (!s) s = make_slots(p);
  for (int i = 0; i < p->ir.nstep && !s; i++) s = add_step(p, i);
  return s ? s : finish(p);
}

static td_status add_tiles(td_plan *p, td_tiles *t, int *step) {
  int first, count;
  td_tiles_span(t, &first, &count);
  td_action *a = new_action(p, TD_DO_TILES, first);
  if (!a) return td_last_status();
  a->as.tiles = t;
  *step += count;
  return td_tiles_make(t, p);
}

td_status td_plan_make(td_plan *p) {
  td_ir *ir = &p->ir;
  td_tiles **tiles = NULL;
  td_status s = run_passes(ir);
  if (!s) s = td_scalar_make(ir, &p->scalar);
  if (!s) s = td_tiles_find(ir, &tiles);
  if (!s) s = td_ir_place(ir, &p->bytes);
  if (!s) s = make_slots(p);
  if (s) return s;
  p->input = heads(ir, ir->input, ir->ninput);
  p->output = heads(ir, ir->output, ir->noutput);
  if (!p->input || !p->output) return td_last_status();
  for (int i = 0; i < ir->nstep && !s;) {
    int first = -1, count;
    if (*tiles) td_tiles_span(*tiles, &first, &count);
    if (first == i) s = add_tiles(p, *tiles++, &i);
    else s = add_step(p, i++);
  }
  return s ? s : finish(p);
}

/* ---- Running and freeing ---- */

static td_status perform(td_action *a) {
  switch (a->kind) {
    case TD_DO_OP: return a->as.call.op->run(&a->as.call);
    case TD_DO_PRODUCT: {
      const td_plan_product *q = a->as.product;
      q->kernels->matmul(q->y, q->a, q->b, q->m, q->n, q->k, q->lda, q->ldb, q->n, q->trans_a, q->trans_b, 1, 0, 0, 0,
                         1, 0);
      return TD_OK;
    }
    case TD_DO_CHAIN: a->as.chain.kernel(a->as.chain.pw); return TD_OK;
    case TD_DO_TILES: return td_tiles_run(a->as.tiles);
    case TD_DO_MOVE: {
      const td_tensor *y = a->as.move.y;
      td_k_rearrange(y->data, y->stride, a->as.move.x->data, a->as.move.stride, y->ndim, y->shape,
                     td_dtype_size(y->dtype));
      return TD_OK;
    }
    default: memset(a->as.clear.y->data, 0, a->as.clear.bytes); return TD_OK;
  }
}

td_status td_plan_run(td_plan *p) {
  for (int i = 0; i < p->count; i++) {
    td_status s = perform(&p->action[i]);
    if (s) return s;
  }
  return TD_OK;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

td_status td_plan_run_measured(td_plan *p) {
  for (int i = 0; i < p->count; i++) {
    td_action *a = &p->action[i];
    double began = now();
    td_status s = a->kind == TD_DO_TILES ? td_tiles_measure(a->as.tiles) : perform(a);
    if (s) return s;
    if (a->kind == TD_DO_TILES) td_tiles_share(a->as.tiles, now() - began, p->seconds);
    else p->seconds[a->step] += now() - began;
  }
  return TD_OK;
}

void td_plan_trim(td_plan *p) {
  if (p->slot) {
    td_free(p->slot[0].base, p->bytes);
    td_plan_set(p, 0, NULL);
  }
  for (int i = 0; i < p->count; i++)
    if (p->action[i].kind == TD_DO_TILES) td_tiles_trim(p->action[i].as.tiles);
}

void td_plan_free(td_plan *p) {
  td_plan_trim(p);
  for (int i = 0; i < p->count; i++)
    if (p->action[i].kind == TD_DO_TILES) td_tiles_free(p->action[i].as.tiles);
  td_ir_free(&p->ir);
  td_free(p, sizeof *p);
}
