/* Which steps can be tiled, and running them tile by tile. */
#include "graph/tile.h"
#include <string.h>
#include "base/alloc.h"
#include "base/threads.h"
#include "kernels/forms.h"
#include "ops/ops.h"

enum {
  TILE_BYTES = 48 << 10,    /* a sample's largest value times the samples of a tile is at least this */
  CONV_BYTES = 1 << 20,     /* or as much as a convolution's weights that it reads, up to this */
  LEAST_LOCAL = 256 << 10   /* bytes that must stay in the cache for tiling to pay */
};

/* How a step uses an operand or makes a result. */
typedef enum {
  SHARED,  /* every tile reads all of it */
  BATCHED  /* its first dim is the batch, or a multiple of it */
} role;

/* A buffer of the outer plan as a tile sees it. */
typedef struct {
  int buffer;
  role r;
  bool written;
  void *base;       /* kept up to date by the outer plan's patches, as is */
  void *owner;      /* the storage that it is the memory of, or NULL */
  size_t step;      /* bytes from one tile to the next */
  int slot;         /* in the tile's plan */
} operand;

struct td_tiles {
  int first, count;
  size_t batch, ntiles;
  operand *op;
  int nop, room;
  td_plan **instance;   /* one for each thread */
  int ninstance;
  const td_plan *outer;
  td_status failed;
  bool measured;
};

/* ---- Roles ---- */

/* Is v a batch of equal slices of its buffer? */
static bool is_sliced(const td_ir *ir, const td_value *v, size_t batch) {
  if (v->ndim == 0 || v->numel == 0 || v->shape[0] % batch) return false;
  size_t size = td_dtype_size(v->dtype), per = v->shape[0] / batch, slice = v->stride[0] * per * size;
  size_t reach = v->offset + size + (per - 1) * v->stride[0] * size;
  for (int i = 1; i < v->ndim; i++) reach += (v->shape[i] - 1) * v->stride[i] * size;
  return slice * batch == ir->buffer[v->buffer].bytes && reach <= slice;
}

static bool chain_roles(const td_step *s, size_t batch, role *in) {
  const td_chain *c = s->chain;
  if (c->ndim == 0 || c->shape[0] % batch) return false;
  for (int i = 0; i < s->nin; i++)
    in[i] = s->in[i].ndim < c->ndim || (s->in[i].shape[0] == 1 && c->shape[0] > 1) ? SHARED : BATCHED;
  return true;
}

static bool conv_roles(const td_step *s, role *in) {
  if (s->op == &td_op_conv2d_fused) {
    int64_t parts = s->a.i[TD_CONV_PARTS];
    int at = 2 + ((parts & TD_CONV_BIAS) != 0);
    if (parts & TD_CONV_CHAN) in[at++] = BATCHED;
    if (parts & TD_CONV_ADD) in[at] = BATCHED;
    return true;
  }
  return s->op == &td_op_conv2d || s->op == &td_op_conv2d_input_grad;
}

static bool norm_roles(const td_step *s, role *in) {
  if (s->op == &td_op_group_norm_act && s->nin % 2 == 0) in[s->nin - 1] = BATCHED;
  return s->op == &td_op_group_norm || s->op == &td_op_group_norm_act;
}

/* How the step uses its operands, when it treats the samples of a batch alike; all that it makes is batched. */
static bool roles_of(const td_step *s, size_t batch, role *in) {
  if (s->nin == 0 || s->nin > TD_PW_MAX_IN) return false;
  if (s->chain) return chain_roles(s, batch, in);
  for (int i = 0; i < s->nin; i++) in[i] = i ? SHARED : BATCHED;
  return conv_roles(s, in) || norm_roles(s, in) || (s->op == &td_op_matmul && s->in[1].ndim == 2);
}

static bool is_settled(const td_ir *ir, const td_value *v) {
  return !ir->buffer[v->buffer].rewritten && !ir->buffer[v->buffer].written;
}

/* Can the step be done tile by tile? */
static bool is_tileable(const td_ir *ir, const td_step *s, size_t batch, role *in) {
  if (!roles_of(s, batch, in)) return false;
  for (int i = 0; i < s->nin; i++)
    if (!is_settled(ir, &s->in[i]) || (in[i] == BATCHED && !is_sliced(ir, &s->in[i], batch))) return false;
  for (int i = 0; i < s->nout; i++)
    if (!is_settled(ir, &s->out[i]) || !is_sliced(ir, &s->out[i], batch)) return false;
  return true;
}

/* ---- Finding runs ---- */

/* May the step join the run that has made these buffers? It must not read what other tiles have yet to make. */
static bool goes_on(const td_step *s, const role *in, const bool *made) {
  for (int i = 0; i < s->nin; i++)
    if (made[s->in[i].buffer] && in[i] == SHARED) return false;
  return true;
}

static size_t batch_of(const td_ir *ir) {
  size_t batch = 0, most = 0;
  for (int i = 0; i < ir->ninput; i++) {
    const td_value *v = &ir->input[i];
    size_t bytes = v->numel * td_dtype_size(v->dtype);
    if (v->ndim < 2 || v->shape[0] < 4 || bytes <= most || !td_dtype_is_real(v->dtype)) continue;
    most = bytes;
    batch = v->shape[0];
  }
  return batch;
}

/* Bytes that one of the step's values must have in a tile. */
static size_t least_bytes(const td_step *s) {
  if (s->chain || s->nin < 2 || s->in[1].ndim != 4 || s->in[1].shape[0] < 2) return TILE_BYTES;
  size_t weights = s->in[1].numel * td_dtype_size(s->in[1].dtype);
  return weights < TILE_BYTES ? TILE_BYTES : weights > CONV_BYTES ? CONV_BYTES : weights;
}

/* The size of tiles: the least divisor of the batch that makes a sample's largest value large enough. */
static size_t tiles_for(const td_ir *ir, int first, int count, size_t batch) {
  size_t slice = 1, least = TILE_BYTES;
  for (int i = first; i < first + count; i++) {
    const td_step *s = ir->step[i];
    if (least_bytes(s) > least) least = least_bytes(s);
    for (int k = 0; k < s->nout; k++) {
      size_t bytes = ir->buffer[s->out[k].buffer].bytes / batch;
      if (bytes > slice) slice = bytes;
    }
  }
  size_t samples = 1;
  while (samples < batch && (batch % samples || samples * slice < least)) samples++;
  return batch / samples;
}

static size_t local_bytes(const td_ir *ir, int first, int end) {
  size_t bytes = 0;
  for (int i = 0; i < ir->nbuffer; i++) {
    const td_buffer *f = &ir->buffer[i];
    if (f->kind == TD_BUF_TEMP && f->first >= first && f->last < end) bytes += f->bytes;
  }
  return bytes;
}

/* Buffers of the run: local ones leave the plan's memory; the others live from its beginning to its end, since tiles go
 * through its steps at different times. */
static void claim_buffers(td_ir *ir, const td_tiles *t, const bool *made) {
  int end = t->first + t->count;
  for (int i = 0; i < ir->nbuffer; i++) {
    td_buffer *f = &ir->buffer[i];
    bool touched = f->first >= 0 && f->first < end && f->last >= t->first;
    if (!touched || f->kind != TD_BUF_TEMP) continue;
    if (made[i] && f->first >= t->first && f->last < end) {
      f->kind = TD_BUF_LOCAL;
      continue;
    }
    if (f->first > t->first) f->first = t->first;
    if (f->last < end - 1) f->last = end - 1;
  }
}

typedef struct {
  td_ir *ir;
  td_tiles **list;
  int n, room;
  size_t batch;
  bool *made;
} finder;

static td_status close_run(finder *f, int first, int end) {
  size_t ntiles = end - first < 2 ? 0 : tiles_for(f->ir, first, end - first, f->batch);
  if (ntiles >= 2 && local_bytes(f->ir, first, end) >= LEAST_LOCAL && f->n < f->room) {
    td_tiles *t = td_pool_get(&f->ir->pool, sizeof *t);
    if (!t) return td_last_status();
    *t = (td_tiles){.first = first, .count = end - first, .batch = f->batch, .ntiles = ntiles};
    f->list[f->n++] = t;
    claim_buffers(f->ir, t, f->made);
  }
  memset(f->made, 0, (size_t)f->ir->nbuffer);
  return TD_OK;
}

td_status td_tiles_find(td_ir *ir, td_tiles ***list) {
  finder f = {.ir = ir, .room = ir->nstep / 2, .batch = batch_of(ir)};
  f.list = td_pool_get(&ir->pool, (size_t)(f.room + 1) * sizeof *f.list);
  f.made = td_pool_get(&ir->pool, (size_t)ir->nbuffer + 1);
  if (!f.list || !f.made) return td_last_status();
  *list = f.list;
  role in[TD_PW_MAX_IN];
  int first = 0;
  td_status s = TD_OK;
  for (int i = 0; i < ir->nstep && f.batch && !s; i++) {
    const td_step *step = ir->step[i];
    bool can = is_tileable(ir, step, f.batch, in);
    if (!can || !goes_on(step, in, f.made)) {
      s = close_run(&f, first, i);
      first = can ? i : i + 1;
    }
    for (int k = 0; can && k < step->nout; k++) f.made[step->out[k].buffer] = true;
  }
  return s || !f.batch ? s : close_run(&f, first, ir->nstep);
}

void td_tiles_span(const td_tiles *t, int *first, int *count) {
  *first = t->first;
  *count = t->count;
}

size_t td_tiles_count(const td_tiles *t) { return t->ntiles; }

/* ---- The plan of a tile ---- */

/* The entry for a buffer in this role, new when there is none. */
static operand *operand_for(td_tiles *t, td_pool *pool, int buffer, role r, bool written) {
  for (int i = 0; i < t->nop; i++)
    if (t->op[i].buffer == buffer && t->op[i].r == r) {
      t->op[i].written |= written;
      return &t->op[i];
    }
  if (t->nop == t->room) {
    int wanted = t->room ? 2 * t->room : 16;
    operand *more = td_pool_get(pool, (size_t)wanted * sizeof *more);
    if (!more) return NULL;
    if (t->nop) memcpy(more, t->op, (size_t)t->nop * sizeof *more);
    t->op = more;
    t->room = wanted;
  }
  t->op[t->nop] = (operand){.buffer = buffer, .r = r, .written = written};
  return &t->op[t->nop++];
}

/* Lists what the tiles read and write of the outer plan. */
static td_status list_operands(td_tiles *t, td_ir *ir) {
  role in[TD_PW_MAX_IN];
  for (int i = t->first; i < t->first + t->count; i++) {
    const td_step *s = ir->step[i];
    roles_of(s, t->batch, in);
    for (int k = 0; k < s->nin; k++)
      if (ir->buffer[s->in[k].buffer].kind != TD_BUF_LOCAL && !operand_for(t, &ir->pool, s->in[k].buffer, in[k], false))
        return td_last_status();
    for (int k = 0; k < s->nout; k++)
      if (ir->buffer[s->out[k].buffer].kind != TD_BUF_LOCAL &&
          !operand_for(t, &ir->pool, s->out[k].buffer, BATCHED, true))
        return td_last_status();
  }
  int reads = 0, writes = 0;
  for (int i = 0; i < t->nop; i++) {
    operand *o = &t->op[i];
    o->slot = o->written ? writes++ : reads++;
    o->step = o->r == BATCHED ? ir->buffer[o->buffer].bytes / t->ntiles : 0;
  }
  return TD_OK;
}

/* The buffer of the tile's plan that stands for a value of the outer one. `map` has one for each local buffer, or
 * -1. */
static int tile_buffer(const td_tiles *t, td_ir *tile, const td_ir *outer, const td_value *v, role r, int *map,
                       const int *base) {
  if (outer->buffer[v->buffer].kind == TD_BUF_LOCAL) {
    if (map[v->buffer] < 0)
      map[v->buffer] = td_ir_buffer(tile, TD_BUF_TEMP, outer->buffer[v->buffer].bytes / t->ntiles, 0);
    return map[v->buffer];
  }
  for (int i = 0; i < t->nop; i++)
    if (t->op[i].buffer == v->buffer && t->op[i].r == r) return base[i];
  return -1;
}

static td_value tile_value(const td_tiles *t, const td_value *v, role r, int buffer) {
  td_value y = *v;
  y.buffer = buffer;
  if (r == SHARED) return y;
  y.shape[0] /= t->ntiles;
  y.numel /= t->ntiles;
  return y;
}

static td_status copy_step(const td_tiles *t, td_ir *tile, const td_ir *outer, int at, int *map, const int *base) {
  role in[TD_PW_MAX_IN];
  const td_step *s = outer->step[at];
  roles_of(s, t->batch, in);
  td_step *c = td_ir_append(tile, s->op, &s->a, s->nin, NULL, s->nout);
  if (!c) return td_last_status();
  for (int i = 0; i < s->nin; i++) {
    int b = tile_buffer(t, tile, outer, &s->in[i], in[i], map, base);
    if (b < 0) return td_last_status();
    c->in[i] = tile_value(t, &s->in[i], in[i], b);
  }
  for (int i = 0; i < s->nout; i++) {
    int b = tile_buffer(t, tile, outer, &s->out[i], BATCHED, map, base);
    if (b < 0) return td_last_status();
    c->out[i] = tile_value(t, &s->out[i], BATCHED, b);
  }
  if (!s->chain) return TD_OK;
  c->chain = td_pool_get(&tile->pool, sizeof *c->chain);
  if (!c->chain) return td_last_status();
  *c->chain = *s->chain;
  c->chain->shape[0] /= t->ntiles;
  return TD_OK;
}

/* The steps in a tile's shapes, as a plan of its own. */
static td_plan *make_instance(const td_tiles *t) {
  const td_ir *outer = &t->outer->ir;
  td_plan *p = td_alloc(sizeof *p);
  if (!p) return NULL;
  *p = (td_plan){.refs = 1};
  td_ir *tile = &p->ir;
  int *map = td_pool_get(&tile->pool, (size_t)(outer->nbuffer + t->nop + 1) * sizeof *map),
      *base = map + outer->nbuffer;
  tile->input = td_pool_get(&tile->pool, (size_t)(t->nop + 1) * sizeof *tile->input);
  tile->output = td_pool_get(&tile->pool, (size_t)(t->nop + 1) * sizeof *tile->output);
  td_status s = map && tile->input && tile->output ? TD_OK : td_last_status();
  for (int i = 0; map && i < outer->nbuffer; i++) map[i] = -1;
  for (int i = 0; i < t->nop && !s; i++) {
    const operand *o = &t->op[i];
    base[i] = td_ir_buffer(tile, o->written ? TD_BUF_OUTPUT : TD_BUF_INPUT, outer->buffer[o->buffer].bytes, o->slot);
    if (base[i] < 0) s = td_last_status();
    (o->written ? tile->output : tile->input)[o->slot].buffer = base[i];
    *(o->written ? &tile->noutput : &tile->ninput) += 1;
  }
  for (int i = t->first; i < t->first + t->count && !s; i++) s = copy_step(t, tile, outer, i, map, base);
  if (!s) s = td_plan_lay(p);
  if (!s) return p;
  td_ir_free(tile);
  td_free(p, sizeof *p);
  return NULL;
}

static td_status want_instances(td_tiles *t, int n) {
  if (n <= t->ninstance) return TD_OK;
  td_plan **more = td_alloc((size_t)n * sizeof *more);
  if (!more) return td_last_status();
  if (t->ninstance) memcpy(more, t->instance, (size_t)t->ninstance * sizeof *more);
  td_free(t->instance, (size_t)t->ninstance * sizeof *more);
  t->instance = more;
  while (t->ninstance < n) {
    td_plan *p = make_instance(t);
    if (!p) {
      td_plan **fewer = t->ninstance ? td_alloc((size_t)t->ninstance * sizeof *fewer) : NULL;
      if (fewer) memcpy(fewer, more, (size_t)t->ninstance * sizeof *fewer);
      t->instance = fewer;
      td_free(more, (size_t)n * sizeof *more);
      return td_last_status();
    }
    more[t->ninstance++] = p;
  }
  return TD_OK;
}

td_status td_tiles_make(td_tiles *t, td_plan *p) {
  t->outer = p;
  td_status s = list_operands(t, &p->ir);
  for (int i = 0; i < t->nop && !s; i++) {
    s = td_plan_note(p, t->op[i].buffer, 0, &t->op[i].base);
    if (!s) s = td_plan_note_owner(p, t->op[i].buffer, &t->op[i].owner);
  }
  return s ? s : want_instances(t, td_threads());
}

/* ---- Running ---- */

static td_status want_memory(td_tiles *t) {
  for (int i = 0; i < t->ninstance; i++) {
    td_plan *p = t->instance[i];
    if (p->slot[0].base) continue;
    char *memory = td_alloc(p->bytes);
    if (!memory) return td_last_status();
    td_plan_set(p, 0, memory);
  }
  return TD_OK;
}

void td_tiles_trim(td_tiles *t) {
  for (int i = 0; i < t->ninstance; i++) {
    td_plan *p = t->instance[i];
    td_free(p->slot[0].base, p->bytes);
    td_plan_set(p, 0, NULL);
  }
}

void td_tiles_free(td_tiles *t) {
  td_tiles_trim(t);
  for (int i = 0; i < t->ninstance; i++) {
    td_ir_free(&t->instance[i]->ir);
    td_free(t->instance[i], sizeof *t->instance[i]);
  }
  td_free(t->instance, (size_t)t->ninstance * sizeof *t->instance);
  t->instance = NULL;
  t->ninstance = 0;
}

static void run_some(void *ctx, size_t begin, size_t end) {
  td_tiles *t = ctx;
  td_plan *p = t->instance[td_thread_index()];
  int in = td_plan_slot(p, TD_BUF_INPUT), out = td_plan_slot(p, TD_BUF_OUTPUT);
  for (size_t tile = begin; tile < end; tile++) {
    for (int i = 0; i < t->nop; i++) {
      const operand *o = &t->op[i];
      int slot = (o->written ? out : in) + o->slot;
      td_plan_set(p, slot, (char *)o->base + tile * o->step);
      td_plan_lend(p, slot, o->owner);
    }
    td_status s = t->measured ? td_plan_run_measured(p) : td_plan_run(p);
    if (s) t->failed = s;
  }
}

bool td_tiles_repeats(const td_tiles *t, int i) {
  for (int k = 0; k < t->nop; k++) {
    const td_buffer *f = &t->outer->ir.buffer[t->op[k].buffer];
    if (t->op[k].written && f->kind != TD_BUF_OUTPUT) return false;
    if (f->kind == TD_BUF_INPUT && f->slot == i && t->op[k].r == SHARED) return false;
  }
  return true;
}

typedef struct {
  td_tiles *t;
  const td_program_runs *runs;
} repetition;

/* What an operand's buffer is in run r. */
static char *base_in(const td_tiles *t, const operand *o, const td_program_runs *runs, int r) {
  const td_buffer *f = &t->outer->ir.buffer[o->buffer];
  if (f->kind == TD_BUF_INPUT) return runs->inputs[r][f->slot];
  return f->kind == TD_BUF_OUTPUT ? runs->outputs[r][f->slot] : o->base;
}

static void repeat_some(void *ctx, size_t begin, size_t end) {
  const repetition *all = ctx;
  td_tiles *t = all->t;
  td_plan *p = t->instance[td_thread_index()];
  int in = td_plan_slot(p, TD_BUF_INPUT), out = td_plan_slot(p, TD_BUF_OUTPUT);
  for (size_t tile = begin; tile < end; tile++)
    for (int r = 0; r < all->runs->count; r++) {
      all->runs->before(all->runs->ctx, r, tile, t->ntiles);
      for (int i = 0; i < t->nop; i++) {
        const operand *o = &t->op[i];
        int slot = (o->written ? out : in) + o->slot;
        td_plan_set(p, slot, base_in(t, o, all->runs, r) + tile * o->step);
        td_plan_lend(p, slot, o->owner);
      }
      td_status s = td_plan_run(p);
      if (s) t->failed = s;
    }
}

static td_status run_all(td_tiles *t, void (*some)(void *, size_t, size_t), void *ctx) {
  td_status s = want_instances(t, td_threads());
  if (!s) s = want_memory(t);
  if (s) return s;
  t->failed = TD_OK;
  td_parallel(t->ntiles, 1, some, ctx);
  return t->failed ? td_fail(t->failed, "a program's step failed in one of its tiles") : TD_OK;
}

td_status td_tiles_repeat(td_tiles *t, const td_program_runs *runs) {
  return run_all(t, repeat_some, &(repetition){t, runs});
}

td_status td_tiles_run(td_tiles *t) {
  static uint64_t rounds;
  td_forms_round = ++rounds;
  td_status s = run_all(t, run_some, t);
  td_forms_round = 0;
  return s;
}

td_status td_tiles_measure(td_tiles *t) {
  for (int i = 0; i < t->ninstance; i++) memset(t->instance[i]->seconds, 0, (size_t)t->count * sizeof(double));
  t->measured = true;
  td_status s = td_tiles_run(t);
  t->measured = false;
  return s;
}

void td_tiles_share(const td_tiles *t, double seconds, double *of_step) {
  double sum = 0;
  for (int i = 0; i < t->ninstance; i++)
    for (int k = 0; k < t->count; k++) sum += t->instance[i]->seconds[k];
  for (int i = 0; i < t->ninstance && sum > 0; i++)
    for (int k = 0; k < t->count; k++) of_step[t->first + k] += t->instance[i]->seconds[k] * (seconds / sum);
}
