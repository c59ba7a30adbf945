/* Programs of small fields, kept from one solve to the next. A solve records its right-hand side anew, which tells what
 * it closes over now; when that is what was recorded before (calls, shapes, numbers, and the way derivatives take
 * through it), the programs, their memory and the written lists of whole steps serve again, on the tensors of today. */
#include <string.h>
#include "base/alloc.h"
#include "graph/key.h"
#include "graph/tape.h"
#include "solve/programs.h"

enum { KEPT = 16, MOST_CALLS = 128, MOST_BYTES = 1 << 18, PLACES = 1024 };

static struct td_field_programs *kept[KEPT];
static uint64_t clock_of_use;

/* ---- The key ---- */

/* The storages that the record names, in the order in which they appear, and a table of hashes to find them by. */
typedef struct {
  const td_captured_record *r;
  const td_storage *key[PLACES];
  uint16_t place[PLACES];
  uint32_t of[PLACES];  /* the record that filled an entry; those of others are empty */
  uint32_t now;
  int count;
} places;

static unsigned hash_of(const td_storage *s) {
  return (unsigned)(((uint64_t)(uintptr_t)s >> 6) * 0x9E3779B97F4A7C15u >> 32) % PLACES;
}

static unsigned find_place(const places *p, const td_storage *s) {
  unsigned at = hash_of(s);
  while (p->of[at] == p->now && p->key[at] != s) at = (at + 1) % PLACES;
  return at;
}

/* A storage's place, from 1 on; 0 when it has none. */
static uint64_t storage_place(const void *data, const td_storage *s) {
  const places *p = data;
  unsigned at = find_place(p, s);
  return p->of[at] == p->now ? p->place[at] : 0;
}

static void add_place(places *p, const td_storage *s) {
  unsigned at = find_place(p, s);
  if (p->of[at] == p->now) return;
  p->of[at] = p->now;
  p->key[at] = s;
  p->place[at] = (uint16_t)++p->count;
}

/* False when there are too many. */
static bool list_places(places *p, const td_captured_record *r) {
  p->r = r;
  p->count = 0;
  if (++p->now == 0) {
    memset(p->of, 0, sizeof p->of);
    p->now = 1;
  }
  add_place(p, r->t->storage);
  add_place(p, r->y->storage);
  for (size_t i = 0; i < r->forward; i++) {
    const td_traced *call = &r->trace->call[i];
    if (p->count + call->nin + call->nout > PLACES / 2) return false;
    for (int k = 0; k < call->nin; k++) add_place(p, call->in[k]->storage);
    for (int k = 0; k < call->nout; k++) add_place(p, call->out[k]->storage);
  }
  return true;
}

static bool mix_externals(const td_field *f, const places *p, uint64_t key[2]) {
  td_key_mix(key, f->nexternals);
  for (size_t i = 0; i < f->nexternals; i++) {
    const td_tensor *x = f->externals[i];
    uint64_t place = storage_place(p, x->storage);
    if (!place) return false;
    td_key_mix(key, place << 16 | (uint64_t)x->dtype << 8 | (uint64_t)x->ndim);
    td_key_mix(key, (uint64_t)(x->data - (char *)x->storage->data));
    td_key_mix_bytes(key, x->shape, (size_t)x->ndim * sizeof *x->shape);
    td_key_mix_bytes(key, x->stride, (size_t)x->ndim * sizeof *x->stride);
  }
  return true;
}

static bool mix_tape(const td_field *f, const places *p, uint64_t key[2]) {
  enum { MOST = 64 };
  const td_captured_record *r = p->r;
  td_tensor *inputs[MOST + 2] = {r->t, r->y};
  if (f->nexternals > MOST) return false;
  if (f->nexternals) memcpy(inputs + 2, f->externals, f->nexternals * sizeof *inputs);
  return td_tape_key(r->dy, r->since, inputs, 2 + f->nexternals, storage_place, p, key);
}

bool td_captured_key(const td_field *f, const td_captured_record *r, bool gradient, size_t keep_most, td_ir *ir,
                     uint64_t key[2]) {
  *ir = (td_ir){0};
  if (r->forward > MOST_CALLS) return false;
  if (td_ir_build(ir, r->trace, 0, r->forward, (td_tensor *[]){r->t, r->y}, 2, (td_tensor **)&r->dy, 1)) return false;
  td_ir_key(ir, key);
  td_key_mix(key, (uint64_t)keep_most << 1 | gradient);
  if (!gradient) return true;
  td_key_mix(key, r->dy->node != NULL);
  static places p;
  return list_places(&p, r) && mix_externals(f, &p, key) && (!r->dy->node || mix_tape(f, &p, key));
}

/* ---- Binding ---- */

static void bind_all(struct td_field_programs *p, td_tensor *const *external) {
  td_program *programs[] = {p->eval, p->forward, p->backward};
  for (int k = 0; k < 3; k++)
    for (int i = 0; programs[k] && i < td_program_externals(programs[k]); i++)
      td_program_bind(programs[k], i, external ? external[k < 2 ? i : p->again.backward[i]] : NULL);
}

/* Which external of eval each one of backward is; false when one is none of them. */
static bool match_backward(struct td_field_programs *p) {
  int n = td_program_externals(p->backward);
  p->again.backward = td_alloc((size_t)(n + 1) * sizeof *p->again.backward);
  if (!p->again.backward) return false;
  for (int i = 0; i < n; i++) {
    int at = td_program_externals(p->eval) - 1;
    while (at >= 0 && td_program_external(p->eval, at)->storage != td_program_external(p->backward, i)->storage) at--;
    if (at < 0) return false;
    p->again.backward[i] = at;
  }
  return true;
}

/* ---- Keeping ---- */

void td_captured_mark(struct td_field_programs *p, const uint64_t key[2]) {
  if (td_program_writes(p->eval) || (p->forward && td_program_externals(p->forward) != td_program_externals(p->eval)))
    return;
  p->again.kept = !p->backward || (!td_program_writes(p->backward) && match_backward(p));
  memcpy(p->again.key, key, sizeof p->again.key);
}

struct td_field_programs *td_captured_again(const uint64_t key[2], const td_ir *ir) {
  for (int i = 0; i < KEPT; i++) {
    struct td_field_programs *p = kept[i];
    if (!p || memcmp(p->again.key, key, sizeof p->again.key)) continue;
    kept[i] = NULL;
    bind_all(p, ir->external);
    return p;
  }
  return NULL;
}

static size_t bytes_of(const struct td_field_programs *p) {
  size_t bytes = p->block_bytes + p->rest_bytes + p->scratch_bytes;
  const td_program *programs[] = {p->eval, p->forward, p->backward};
  bytes += p->strips.forward.list.bytes + p->strips.back.list.bytes;
  for (int k = 0; k < 3; k++) bytes += programs[k] ? td_program_memory(programs[k]) : 0;
  for (size_t i = 0; i < p->nexternals; i++) bytes += p->sum[i] ? p->sum[i]->storage->bytes : 0;
  return bytes;
}

void td_captured_give_back(struct td_field_programs *p) {
  if (!p || !p->again.kept || bytes_of(p) > MOST_BYTES) {
    td_captured_programs_free(p);
    return;
  }
  td_captured_drop_hold(p);
  td_captured_free_slots(p);
  p->ring = p->most = 0;
  p->first = 0;
  bind_all(p, NULL);
  td_strips_bind(&p->strips.forward.list);
  td_strips_bind(&p->strips.back.list);
  td_program_release(p->jvp);
  p->jvp = NULL;
  p->again.used = ++clock_of_use;
  int at = 0;
  for (int i = 0; i < KEPT && kept[at]; i++)
    if (!kept[i] || kept[i]->again.used < kept[at]->again.used) at = i;
  td_captured_programs_free(kept[at]);
  kept[at] = p;
}
