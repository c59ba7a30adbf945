/* Programs: a plan, found again or made, and the tensors that it reads besides its inputs. */
#include "graph/program.h"
#include <string.h>
#include "base/alloc.h"
#include "graph/plan.h"
#include "graph/tile.h"
#include "ops/ops.h"

/* ---- Plans that were made: a function that is captured anew for each solve is planned once ---- */

enum { KEPT = 64 };
static td_plan *kept[KEPT];
static uint64_t clock_of_use;

/* A plan without programs keeps its calls but not its memory. */
static void plan_release(td_plan *p) {
  if (--p->refs == 0) td_plan_trim(p);
}

static td_plan *find(const uint64_t key[2]) {
  for (int i = 0; i < KEPT; i++)
    if (kept[i] && kept[i]->key[0] == key[0] && kept[i]->key[1] == key[1]) return kept[i];
  return NULL;
}

/* Puts p in a free place, or in that of the plan longest unused; a plan that is in use is forgotten, not freed. */
static void keep(td_plan *p) {
  int at = -1;
  for (int i = 0; i < KEPT && at < 0; i++)
    if (!kept[i]) at = i;
  for (int i = 0; i < KEPT && at < 0; i++)
    if (!kept[i]->refs) at = i;
  for (int i = 0; i < KEPT && at >= 0 && kept[at]; i++)
    if (!kept[i]->refs && kept[i]->used < kept[at]->used) at = i;
  if (at < 0) return;
  if (kept[at]) td_plan_free(kept[at]);
  kept[at] = p;
}

static bool is_kept(const td_plan *p) {
  for (int i = 0; i < KEPT; i++)
    if (kept[i] == p) return true;
  return false;
}

/* The plan for what was built into *ir, which is taken over. */
static td_plan *plan_for(td_ir *ir) {
  uint64_t key[2];
  td_ir_key(ir, key);
  td_plan *p = find(key);
  if (p) {
    td_ir_free(ir);
  } else {
    p = td_alloc(sizeof *p);
    if (!p) {
      td_ir_free(ir);
      return NULL;
    }
    *p = (td_plan){.ir = *ir, .key = {key[0], key[1]}};
    if (td_plan_make(p)) {
      td_plan_free(p);
      return NULL;
    }
    for (int i = 0; i < p->ir.nexternal; i++) {  /* each program has its own */
      td_tensor_release(p->ir.external[i]);
      p->ir.external[i] = NULL;
    }
    keep(p);
  }
  p->refs++;
  p->used = ++clock_of_use;
  return p;
}

/* ---- Programs ---- */

struct td_program {
  int refs;
  td_plan *plan;
  td_tensor **external;  /* one reference each */
  int nexternal;
};

td_program *td_program_new(const td_trace *t, size_t first, size_t calls, td_tensor *const *inputs, int ninputs,
                           td_tensor *const *outputs, int noutputs) {
  td_ir ir;
  if (td_ir_build(&ir, t, first, calls, inputs, ninputs, outputs, noutputs)) {
    td_ir_free(&ir);
    return NULL;
  }
  size_t n = (size_t)ir.nexternal;
  td_program *p = td_alloc(sizeof *p);
  td_tensor **external = p ? td_alloc((n + 1) * sizeof *external) : NULL;
  if (!external) {
    td_free(p, sizeof *p);
    td_ir_free(&ir);
    return NULL;
  }
  for (size_t i = 0; i < n; i++) external[i] = td_tensor_retain(ir.external[i]);
  *p = (td_program){.refs = 1, .external = external, .nexternal = (int)n};
  p->plan = plan_for(&ir);
  if (p->plan) return p;
  td_program_release(p);
  return NULL;
}

td_program *td_program_retain(td_program *p) {
  if (p) p->refs++;
  return p;
}

void td_program_release(td_program *p) {
  if (!p || --p->refs > 0) return;
  for (int i = 0; i < p->nexternal; i++) td_tensor_release(p->external[i]);
  td_free(p->external, (size_t)(p->nexternal + 1) * sizeof *p->external);
  if (p->plan) {
    plan_release(p->plan);
    if (!p->plan->refs && !is_kept(p->plan)) td_plan_free(p->plan);
  }
  td_free(p, sizeof *p);
}

const td_tensor *td_program_input(const td_program *p, int i) { return &p->plan->input[i]; }
const td_tensor *td_program_output(const td_program *p, int i) { return &p->plan->output[i]; }
int td_program_inputs(const td_program *p) { return p->plan->ir.ninput; }
int td_program_outputs(const td_program *p) { return p->plan->ir.noutput; }
int td_program_externals(const td_program *p) { return p->nexternal; }
td_tensor *td_program_external(const td_program *p, int i) { return p->external[i]; }
size_t td_program_memory(const td_program *p) { return p->plan->bytes; }
int td_program_length(const td_program *p) { return p->plan->ir.nstep; }
int td_program_numbers(const td_program *p) { return p->plan->scalar ? td_scalar_length(p->plan->scalar) : 0; }
const struct td_scalar *td_program_scalar(const td_program *p) { return p->plan->scalar; }
const struct td_plan *td_program_plan(const td_program *p) { return p->plan; }

bool td_program_reads(const td_program *p, int i) {
  return p->plan->ir.buffer[p->plan->ir.input[i].buffer].readers > 0;
}

bool td_program_writes_input(const td_program *p, int i) {
  return p->plan->ir.buffer[p->plan->ir.input[i].buffer].written;
}

static const td_buffer *external_buffer(const td_program *p, int i) {
  const td_ir *ir = &p->plan->ir;
  for (int b = 0; b < ir->nbuffer; b++)
    if (ir->buffer[b].kind == TD_BUF_EXTERNAL && ir->buffer[b].slot == i) return &ir->buffer[b];
  return NULL;
}

bool td_program_reads_external(const td_program *p, int i) {
  const td_buffer *b = external_buffer(p, i);
  return b && b->readers > 0;
}

bool td_program_writes_external(const td_program *p, int i) {
  const td_buffer *b = external_buffer(p, i);
  return b && b->written;
}

bool td_program_writes(const td_program *p) { return p->plan->nwrites > 0; }

void td_program_bind(td_program *p, int i, td_tensor *t) {
  td_tensor *before = p->external[i];
  p->external[i] = td_tensor_retain(t);
  td_tensor_release(before);
}

/* ---- Running ---- */

td_status (*td_program_poll)(void);

static void set_all(const td_program *program, void *const *inputs, void *const *outputs) {
  td_plan *p = program->plan;
  int in = td_plan_slot(p, TD_BUF_INPUT), out = td_plan_slot(p, TD_BUF_OUTPUT), ext = td_plan_slot(p, TD_BUF_EXTERNAL);
  for (int i = 0; i < p->ir.ninput; i++) td_plan_set(p, in + i, inputs[i]);
  for (int i = 0; i < p->ir.noutput; i++) td_plan_set(p, out + i, outputs[i]);
  for (int i = 0; i < program->nexternal; i++) {
    td_storage *s = program->external[i]->storage;
    td_plan_set(p, ext + i, s->data);
    td_plan_lend(p, ext + i, s);
  }
}

/* What a slot of an outer run of the same plan held. */
typedef struct {
  void *base;
  td_storage *owner;
} held;

/* What an outer run had in its slots, put back by leave(); NULL when there is none. */
static td_status enter(td_plan *p, held **outer) {
  *outer = NULL;
  size_t n = (size_t)p->nslot * sizeof **outer;
  if (p->running) {
    *outer = td_alloc(n);
    if (!*outer) return td_last_status();
    for (int i = 0; i < p->nslot; i++) (*outer)[i] = (held){p->slot[i].base, p->slot[i].owner};
  } else if (p->slot[0].base) {
    return TD_OK;
  }
  char *memory = td_alloc(p->bytes);
  if (!memory) {
    td_free(*outer, *outer ? n : 0);
    return td_last_status();
  }
  td_plan_set(p, 0, memory);
  return TD_OK;
}

static void leave(td_plan *p, held *outer) {
  if (!outer) return;
  td_free(p->slot[0].base, p->bytes);
  for (int i = 0; i < p->nslot; i++) {
    td_plan_set(p, i, outer[i].base);
    td_plan_lend(p, i, outer[i].owner);
  }
  td_free(outer, (size_t)p->nslot * sizeof *outer);
}

static td_status plan_run(td_plan *p, const td_program_runs *none) {
  (void)none;
  return td_plan_run(p);
}

static td_status plan_measured(td_plan *p, const td_program_runs *none) {
  (void)none;
  memset(p->seconds, 0, (size_t)p->ir.nstep * sizeof *p->seconds);
  return td_plan_run_measured(p);
}

static td_status plan_repeat(td_plan *p, const td_program_runs *runs) {
  return td_tiles_repeat(p->action[0].as.tiles, runs);
}

static td_status run(td_program *program, void *const *inputs, void *const *outputs,
                     td_status (*actions)(td_plan *, const td_program_runs *), const td_program_runs *runs) {
  td_plan *p = program->plan;
  held *outer;
  td_status s = td_program_poll ? td_program_poll() : TD_OK;
  if (!s) s = enter(p, &outer);
  if (s) return s;
  bool was = p->running, recording = td_recording;
  p->running = true;
  td_recording = false;
  set_all(program, inputs, outputs);
  s = actions(p, runs);
  for (int i = 0; i < p->nwrites; i++) program->external[p->writes[i]]->storage->version++;
  td_recording = recording;
  p->running = was;
  leave(p, outer);
  return s;
}

td_status td_program_run(td_program *p, void *const *inputs, void *const *outputs) {
  if (p->plan->scalar) {
    td_status s = td_program_poll ? td_program_poll() : TD_OK;
    if (!s) td_scalar_run(p->plan->scalar, inputs, outputs, p->external);
    return s;
  }
  return run(p, inputs, outputs, plan_run, NULL);
}
td_status td_program_profile(td_program *p, void *const *inputs, void *const *outputs) {
  return run(p, inputs, outputs, plan_measured, NULL);
}

bool td_program_repeats(const td_program *p, int sliced) {
  const td_plan *plan = p->plan;
  return !plan->scalar && plan->count == 1 && plan->action[0].kind == TD_DO_TILES && !plan->nwrites &&
         td_tiles_repeats(plan->action[0].as.tiles, sliced);
}

td_status td_program_repeat(td_program *p, const td_program_runs *runs) {
  return run(p, runs->inputs[0], runs->outputs[0], plan_repeat, runs);
}
