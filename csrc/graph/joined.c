/* Writing a joined list; running it is scalar.c's loop, or native.c's code. */
#include "graph/joined.h"
#include <string.h>
#include "base/alloc.h"
#include "graph/native.h"
#include "graph/scalar.h"

enum { MOST_NUMBERS = 16384, MOST_STEPS = 8192, RUNS_BEFORE = 100 };  /* runs until machine code pays */

void td_joined_free(td_joined *j) {
  td_free(j->number, (size_t)j->numbers_room * sizeof *j->number);
  td_free(j->step, (size_t)j->step_room * sizeof *j->step);
  td_free(j->load, (size_t)j->load_room * sizeof *j->load);
  td_native_free(j->native);
  *j = (td_joined){0};
}

/* The array with room for `more` beyond `used`, doubled as needed, at most `most`; else j has failed and it is as it
 * was. */
static void *grown(td_joined *j, void *array, int used, int more, int *room, int most, size_t size) {
  if (used + more <= *room) return array;
  int wanted = *room ? 2 * *room : 128;
  while (wanted < used + more) wanted *= 2;
  void *larger = used + more <= most ? td_alloc((size_t)wanted * size) : NULL;
  j->failed |= !larger;
  if (!larger) return array;
  if (used) memcpy(larger, array, (size_t)used * size);
  td_free(array, (size_t)*room * size);
  *room = wanted;
  return larger;
}

int td_joined_new(td_joined *j, int count, double value) {
  j->number = grown(j, j->number, j->numbers, count, &j->numbers_room, MOST_NUMBERS, sizeof *j->number);
  if (j->failed) return 0;
  for (int i = 0; i < count; i++) j->number[j->numbers + i] = value;
  j->numbers += count;
  return j->numbers - count;
}

static void add_step(td_joined *j, int op, int dst, int a, int b, int c, int n) {
  j->step = grown(j, j->step, j->nstep, 1, &j->step_room, MOST_STEPS, sizeof *j->step);
  if (j->failed) return;
  j->step[j->nstep++] =
      (td_scalar_step){(uint16_t)op, (uint16_t)dst, (uint16_t)a, (uint16_t)b, (uint16_t)c, (uint16_t)n};
}

void td_joined_copy(td_joined *j, int from, int to) { add_step(j, TD_PW_copy, to, from, from, from, 1); }

int td_joined_add(td_joined *j, int a, int b) {
  int dst = td_joined_new(j, 1, 0);
  add_step(j, TD_PW_add, dst, a, b, a, 1);
  return dst;
}

int td_joined_scale(td_joined *j, int factor, int first, int n) {
  int dst = td_joined_new(j, n, 0);
  add_step(j, TD_SCALAR_SCALE, dst, factor, first, factor, n);
  return dst;
}

int td_joined_dot(td_joined *j, int base, int coef, int x, int n) {
  int dst = td_joined_new(j, 1, 0);
  add_step(j, TD_SCALAR_DOT, dst, coef, x, base, n);
  return dst;
}

/* One more value from outside, joined to the last one when it follows it. */
static void add_load(td_joined *j, const td_program *of, int slot, int number, int count, size_t element) {
  j->load = grown(j, j->load, j->nload, 1, &j->load_room, MOST_STEPS, sizeof *j->load);
  if (j->failed) return;
  j->load[j->nload].of = of;
  j->load[j->nload].slot = slot;
  j->load[j->nload].number = number;
  j->load[j->nload].count = count;
  j->load[j->nload++].element = element;
}

/* Where a value from outside was loaded already, or −1. */
static int loaded(const td_joined *j, const td_tensor *of, size_t element) {
  for (int i = 0; i < j->nload; i++) {
    size_t first = j->load[i].element;
    if (td_program_external(j->load[i].of, j->load[i].slot)->storage == of->storage && element >= first &&
        element < first + (size_t)j->load[i].count)
      return j->load[i].number + (int)(element - first);
  }
  return -1;
}

static void insert_loads(td_joined *j, const td_program *p, const td_scalar *s, int *at) {
  for (int i = 0; i < s->nexternal; i++) {
    const td_scalar_link *l = &s->load_external[i];
    td_tensor *of = td_program_external(p, l->slot);
    bool known = true;
    for (int k = 0; k < l->count; k++) {
      at[l->number + k] = loaded(j, of, l->element + (size_t)k);
      known = known && at[l->number + k] >= 0;
    }
    if (known) continue;
    int first = td_joined_new(j, l->count, 0);
    add_load(j, p, l->slot, first, l->count, l->element);
    for (int k = 0; k < l->count; k++) at[l->number + k] = first + k;
  }
}

/* Results go at once where they should be, when an operation makes them that nobody else has a place for. */
static void place_results(const td_scalar *s, int *const *out, int *at) {
  for (int i = 0; i < s->nstep; i++) at[s->step[i].dst] = -1;
  for (int i = 0; i < s->nstore; i++) {
    const td_scalar_link *l = &s->store[i];
    for (int k = 0; k < l->count; k++)
      if (at[l->number + k] == -1) at[l->number + k] = out[l->slot][l->element + (size_t)k];
  }
}

static void give_results(td_joined *j, const td_scalar *s, int *const *out, const int *at) {
  for (int i = 0; i < s->nstore; i++) {
    const td_scalar_link *l = &s->store[i];
    for (int k = 0; k < l->count; k++) {
      int *place = &out[l->slot][l->element + (size_t)k], from = at[l->number + k];
      if (*place < 0) *place = from;
      else if (*place != from) td_joined_copy(j, from, *place);
    }
  }
}

void td_joined_insert(td_joined *j, const td_program *p, const int *const *in, int *const *out) {
  const td_scalar *s = td_program_scalar(p);
  size_t bytes = (size_t)(s->numbers + 1) * sizeof(int);
  int *at = td_alloc(bytes);
  if (!at) {
    j->failed = true;
    return;
  }
  for (int i = 0; i < s->numbers; i++) at[i] = s->constant[i] ? td_joined_new(j, 1, s->number[i]) : 0;
  for (int i = 0; i < s->nload; i++) {
    const td_scalar_link *l = &s->load[i];
    for (int k = 0; k < l->count; k++) at[l->number + k] = in[l->slot][l->element + (size_t)k];
  }
  insert_loads(j, p, s, at);
  place_results(s, out, at);
  for (int i = 0; i < s->nstep; i++) {
    const td_scalar_step *o = &s->step[i];
    if (at[o->dst] < 0) at[o->dst] = td_joined_new(j, 1, 0);
    add_step(j, o->op, at[o->dst], at[o->a], at[o->b], at[o->c], 1);
  }
  give_results(j, s, out, at);
  td_free(at, bytes);
}

static bool meets(int a, int na, int b, int nb) { return a < b + nb && b < a + na; }

bool td_joined_reads(const td_joined *j, int first, int n) {
  static const int arity[] = {
#define ARITY(name, n) n,
    TD_PW_OPS(ARITY, ARITY)
#undef ARITY
    [TD_SCALAR_CUBE] = 1, [TD_SCALAR_SCALE] = 2, [TD_SCALAR_DOT] = 3};
  for (int i = 0; i < j->nstep; i++) {
    const td_scalar_step *s = &j->step[i];
    int many = s->op == TD_SCALAR_DOT ? s->n : 1, row = s->op == TD_SCALAR_SCALE ? s->n : many;
    if (meets(s->a, many, first, n) || (arity[s->op] > 1 && meets(s->b, row, first, n)) ||
        (arity[s->op] > 2 && meets(s->c, 1, first, n)))
      return true;
  }
  return false;
}

void td_joined_load(td_joined *j) {
  double *x = j->number;
  for (int i = 0; i < j->nload; i++) {
    const td_tensor *of = td_program_external(j->load[i].of, j->load[i].slot);
    const double *from = (const double *)of->storage->data + j->load[i].element;
    for (int k = 0; k < j->load[i].count; k++) x[j->load[i].number + k] = from[k];
  }
}

void td_joined_perform(td_joined *j) {
  double *x = j->number;
  if (j->runs < RUNS_BEFORE && ++j->runs == RUNS_BEFORE) j->native = td_native_new(j->step, j->nstep);
  if (j->native) td_native_run(j->native, x);
  else td_scalar_perform(j->step, j->nstep, x);
}

void td_joined_run(td_joined *j) {
  td_joined_load(j);
  td_joined_perform(j);
}
