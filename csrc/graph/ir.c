/* Building the list of steps, and what the passes ask of it. */
#include "graph/ir.h"
#include <string.h>
#include "base/alloc.h"
#include "graph/key.h"
#include "ops/ops.h"

/* ---- Lists in the pool ---- */

/* Room for one more item in a list of `count` items of `size` bytes. */
static void *grown(td_pool *pool, void *list, int count, int *room, size_t size) {
  if (count < *room) return list;
  int wanted = *room ? 2 * *room : 32;
  void *more = td_pool_get(pool, (size_t)wanted * size);
  if (more && count) memcpy(more, list, (size_t)count * size);
  if (more) *room = wanted;
  return more;
}

int td_ir_buffer(td_ir *ir, td_buffer_kind kind, size_t bytes, int slot) {
  td_buffer *list = grown(&ir->pool, ir->buffer, ir->nbuffer, &ir->buffer_room, sizeof *list);
  if (!list) return -1;
  ir->buffer = list;
  list[ir->nbuffer] = (td_buffer){.kind = kind, .slot = slot, .bytes = bytes, .writer = -1, .shares = -1};
  return ir->nbuffer++;
}

td_step *td_ir_append(td_ir *ir, const td_op *op, const td_attrs *a, int nin, const td_value *in, int nout) {
  td_step **list = grown(&ir->pool, ir->step, ir->nstep, &ir->step_room, sizeof *list);
  td_step *s = list ? td_pool_get(&ir->pool, sizeof *s) : NULL;
  td_value *values = s ? td_pool_get(&ir->pool, (size_t)(nin + 1) * sizeof *values) : NULL;
  if (!values) return NULL;
  *s = (td_step){.op = op, .nin = nin, .nout = nout, .in = values};
  if (a) s->a = *a;
  if (in) memcpy(values, in, (size_t)nin * sizeof *values);
  ir->step = list;
  ir->step[ir->nstep++] = s;
  return s;
}

/* ---- Storages to buffers: a hash table while building ---- */

typedef struct {
  const td_storage **key;
  int *buffer;
  size_t room;
} map;

static size_t place_of(const map *m, const td_storage *s) {
  size_t at = ((uintptr_t)s >> 4) * 0x9E3779B97F4A7C15u % m->room;
  while (m->key[at] && m->key[at] != s) at = (at + 1) % m->room;
  return at;
}

static td_status map_new(map *m, td_pool *pool, size_t most) {
  m->room = 2 * most + 16;
  m->key = td_pool_get(pool, m->room * sizeof *m->key);
  m->buffer = td_pool_get(pool, m->room * sizeof *m->buffer);
  return m->key && m->buffer ? TD_OK : td_last_status();
}

/* ---- Building ---- */

typedef struct {
  td_ir *ir;
  map m;
  uint32_t era;
  int external_room, constant_room;
} builder;

/* The buffer of a storage met for the first time. */
static int new_buffer(builder *b, const td_tensor *t) {
  td_ir *ir = b->ir;
  td_storage *s = t->storage;
  if (s->is_virtual) return td_ir_buffer(ir, TD_BUF_TEMP, s->bytes, 0);
  bool constant = t->weak || s->era == b->era;
  td_tensor ***list = constant ? &ir->constant : &ir->external;
  int *count = constant ? &ir->nconstant : &ir->nexternal;
  td_tensor **more = grown(&ir->pool, *list, *count, constant ? &b->constant_room : &b->external_room, sizeof *more);
  if (!more) return -1;
  *list = more;
  more[*count] = td_tensor_alias(t);  /* the storage is what counts */
  if (!more[*count]) return -1;
  return td_ir_buffer(ir, constant ? TD_BUF_CONSTANT : TD_BUF_EXTERNAL, s->bytes, (*count)++);
}

static td_value value_of(builder *b, const td_tensor *t) {
  size_t at = place_of(&b->m, t->storage);
  if (!b->m.key[at]) {
    int buffer = new_buffer(b, t);
    if (buffer < 0) return (td_value){.buffer = -1};
    b->m.key[at] = t->storage;
    b->m.buffer[at] = buffer;
  }
  td_value v = {.buffer = b->m.buffer[at], .dtype = t->dtype, .ndim = t->ndim, .weak = t->weak, .numel = t->numel,
                .offset = (size_t)(t->data - (char *)t->storage->data)};
  memcpy(v.shape, t->shape, sizeof v.shape);
  memcpy(v.stride, t->stride, sizeof v.stride);
  return v;
}

/* A temporary that is written as a whole once more is a buffer of its own from here on: what read it before keeps what
 * it read. */
static td_status rename_overwritten(builder *b, td_value *v, const td_storage *s) {
  const td_buffer *f = &b->ir->buffer[v->buffer];
  if (f->kind != TD_BUF_TEMP || f->writer < 0 || !td_value_is_whole(b->ir, v)) return TD_OK;
  int fresh = td_ir_buffer(b->ir, TD_BUF_TEMP, f->bytes, 0);
  if (fresh < 0) return td_last_status();
  b->m.buffer[place_of(&b->m, s)] = v->buffer = fresh;
  return TD_OK;
}

static td_status build_step(builder *b, const td_traced *call) {
  td_step *s = td_ir_append(b->ir, call->op, &call->a, call->nin, NULL, call->nout);
  if (!s) return td_last_status();
  for (int i = 0; i < call->nin; i++)
    if ((s->in[i] = value_of(b, call->in[i])).buffer < 0) return td_last_status();
  for (int i = 0; i < call->nout; i++) {
    s->out[i] = value_of(b, call->out[i]);
    if (s->out[i].buffer < 0 || rename_overwritten(b, &s->out[i], call->out[i]->storage)) return td_last_status();
    td_buffer *f = &b->ir->buffer[s->out[i].buffer];
    if (f->writer >= 0 || f->kind != TD_BUF_TEMP) f->rewritten = true;
    if (f->kind != TD_BUF_TEMP) f->written = true;
    if (f->writer < 0) f->writer = b->ir->nstep - 1;
  }
  return TD_OK;
}

td_status td_ir_build(td_ir *ir, const td_trace *t, size_t first, size_t calls, td_tensor *const *inputs, int ninputs,
                      td_tensor *const *outputs, int noutputs) {
  builder b = {.ir = ir, .era = t->era};
  size_t most = (size_t)(ninputs + noutputs);
  *ir = (td_ir){.ninput = ninputs, .noutput = noutputs};
  for (size_t i = first; i < first + calls; i++) most += (size_t)(t->call[i].nin + t->call[i].nout);
  td_status s = map_new(&b.m, &ir->pool, most);
  ir->input = td_pool_get(&ir->pool, (size_t)(ninputs + 1) * sizeof *ir->input);
  ir->output = td_pool_get(&ir->pool, (size_t)(noutputs + 1) * sizeof *ir->output);
  if (!s && (!ir->input || !ir->output)) s = td_last_status();
  for (int i = 0; i < ninputs && !s; i++) {
    ir->input[i] = value_of(&b, inputs[i]);
    if (ir->input[i].buffer < 0) s = td_last_status();
    else ir->buffer[ir->input[i].buffer].kind = TD_BUF_INPUT, ir->buffer[ir->input[i].buffer].slot = i;
  }
  for (size_t i = first; i < first + calls && !s; i++) s = build_step(&b, &t->call[i]);
  for (int i = 0; i < noutputs && !s; i++)
    if ((ir->output[i] = value_of(&b, outputs[i])).buffer < 0) s = td_last_status();
  return s;
}

void td_ir_free(td_ir *ir) {
  for (int i = 0; i < ir->nexternal; i++) td_tensor_release(ir->external[i]);
  for (int i = 0; i < ir->nconstant; i++) td_tensor_release(ir->constant[i]);
  td_pool_free(&ir->pool);
  *ir = (td_ir){0};
}

/* ---- Questions ---- */

bool td_value_is_contiguous(const td_value *v) {
  size_t step = 1;
  for (int i = v->ndim - 1; i >= 0; i--) {
    if (v->shape[i] != 1 && v->stride[i] != step) return v->numel == 0;
    step *= v->shape[i];
  }
  return true;
}

bool td_value_is_whole(const td_ir *ir, const td_value *v) {
  return v->offset == 0 && v->numel * td_dtype_size(v->dtype) == ir->buffer[v->buffer].bytes &&
         td_value_is_contiguous(v);
}

bool td_value_same(const td_value *a, const td_value *b) {
  if (a->buffer != b->buffer || a->dtype != b->dtype || a->ndim != b->ndim || a->offset != b->offset ||
      a->weak != b->weak)
    return false;
  for (int i = 0; i < a->ndim; i++)
    if (a->shape[i] != b->shape[i] || (a->shape[i] != 1 && a->stride[i] != b->stride[i])) return false;
  return true;
}

static void touch(td_buffer *f, int at) {
  if (f->first < 0) f->first = at;
  f->last = at;
}

void td_ir_analyse(td_ir *ir) {
  int n = 0;
  for (int i = 0; i < ir->nstep; i++)
    if (!ir->step[i]->dead) ir->step[n++] = ir->step[i];
  ir->nstep = n;
  for (int i = 0; i < ir->nbuffer; i++) {
    td_buffer *f = &ir->buffer[i];
    f->writer = f->first = f->last = -1;
    f->readers = 0;
  }
  for (int i = 0; i < n; i++) {
    const td_step *s = ir->step[i];
    for (int k = 0; k < s->nin; k++) {
      td_buffer *f = &ir->buffer[s->in[k].buffer];
      f->readers++;
      touch(f, i);
    }
    for (int k = 0; k < s->nout; k++) {
      td_buffer *f = &ir->buffer[s->out[k].buffer];
      if (f->writer < 0) f->writer = i;
      touch(f, i);
    }
  }
  for (int i = 0; i < ir->noutput; i++) {
    td_buffer *f = &ir->buffer[ir->output[i].buffer];
    f->readers++;
    touch(f, n);
  }
}

/* ---- The key ---- */

static void mix_value(uint64_t key[2], const td_value *v) {
  td_key_mix(key, (uint64_t)v->buffer << 32 | (uint64_t)v->dtype << 16 | (uint64_t)v->ndim << 8 | v->weak);
  td_key_mix(key, v->offset);
  for (int i = 0; i < v->ndim; i++) {
    td_key_mix(key, v->shape[i]);
    td_key_mix(key, v->stride[i]);
  }
}

void td_ir_key(const td_ir *ir, uint64_t key[2]) {
  key[0] = 1;
  key[1] = 2;
  for (int i = 0; i < ir->nbuffer; i++) {
    const td_buffer *f = &ir->buffer[i];
    td_key_mix(key,
               (uint64_t)f->kind << 40 | (uint64_t)(unsigned)f->slot << 8 | (uint64_t)f->rewritten << 1 | f->written);
    td_key_mix(key, f->bytes);
    if (f->kind == TD_BUF_CONSTANT) td_key_mix_bytes(key, ir->constant[f->slot]->storage->data, f->bytes);
  }
  for (int i = 0; i < ir->nstep; i++) {
    const td_step *s = ir->step[i];
    td_key_mix(key, (uint64_t)(uintptr_t)s->op);
    td_key_mix(key, (uint64_t)s->nin << 8 | (uint64_t)s->nout);
    td_key_mix_bytes(key, &s->a, sizeof s->a);
    for (int k = 0; k < s->nin; k++) mix_value(key, &s->in[k]);
    for (int k = 0; k < s->nout; k++) mix_value(key, &s->out[k]);
  }
  for (int i = 0; i < ir->ninput; i++) mix_value(key, &ir->input[i]);
  for (int i = 0; i < ir->noutput; i++) mix_value(key, &ir->output[i]);
}
