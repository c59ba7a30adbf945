/* Stages of an explicit step of a captured field that treats the samples of a batch alike: a few samples go through all
 * the stages, sums of slopes and evaluations in turn, before the next ones do. So what a stage reads of the stages
 * before is in the cache, where stage by stage the slopes of the whole batch would pass through memory each time. The
 * operations and their order are those of explicit.c, and a sample's numbers do not depend on the others: the results
 * are the same to the last bit. */
#include <string.h>
#include "kernels/kernels.h"
#include "solve/programs.h"
#include "solve/tableau.h"

enum { MOST_KEPT = 14 };

/* The stages at work, and what each reads and writes. */
typedef struct {
  const td_field *f;
  const td_field_stages *step;
  char *state[TD_MAX_STAGES];  /* of each stage; that of stage 0 is step->y or a copy of it */
  char *copy;                  /* of the last one's, to be kept, or NULL */
  void *in[TD_MAX_STAGES][2], *out[TD_MAX_STAGES][1 + MOST_KEPT];
  void *const *inputs[TD_MAX_STAGES], *const *outputs[TD_MAX_STAGES];
} stages_run;

/* The state of the run's stage, in one tile. */
static void make_state(void *ctx, int r, size_t tile, size_t tiles) {
  const stages_run *w = ctx;
  const td_field_stages *step = w->step;
  size_t n = w->f->numel / tiles, from = tile * n * td_dtype_size(w->f->dtype);
  int i = step->first + r, count = 0;
  double coef[TD_MAX_STAGES];
  const void *x[TD_MAX_STAGES];
  for (int j = 0; j < i; j++) {
    double a = step->a[i * (i - 1) / 2 + j];
    if (a == 0) continue;
    coef[count] = step->h * a;
    x[count++] = (const char *)step->k[j] + from;
  }
  if (i > 0 || w->state[0] != step->y)
    td_k(w->f->dtype)->lincomb(w->state[i] + from, (const char *)step->y + from, (size_t)count, coef, x, n);
  if (w->copy && i == step->stages - 1) memcpy(w->copy + from, w->state[i] + from, n * td_dtype_size(w->f->dtype));
}

/* Where stage i's state, slope and kept values go; those that are kept have their own slot. */
static td_status place_stage(td_field *f, const td_field_stages *step, stages_run *w, int i) {
  struct td_field_programs *p = f->programs;
  int r = i - step->first;
  kept_slot *slot = NULL;
  td_status s = step->keep ? td_captured_slot(p, i, &slot) : TD_OK;
  if (s) return s;
  w->state[i] = i == 0 ? (char *)step->y : i == step->stages - 1 ? step->y1 : step->state;
  if (slot && p->keeps_y && i == step->stages - 1) w->copy = slot->block;
  else if (slot && p->keeps_y) w->state[i] = slot->block;
  if (slot) slot->t = step->t[i], slot->y = p->keeps_y ? slot->block : w->state[i];
  w->in[r][0] = (void *)&step->t[i];
  w->in[r][1] = w->state[i];
  w->out[r][0] = step->k[i];
  for (size_t k = 0; slot && p->offset && k < p->nkept; k++) w->out[r][1 + k] = td_captured_kept(p, slot, k);
  w->inputs[r] = w->in[r];
  w->outputs[r] = w->out[r];
  return TD_OK;
}

static td_status tiled_stages(td_field *f, const td_field_stages *step, bool *done) {
  struct td_field_programs *p = f->programs;
  td_program *program = step->keep && p->dynamic && !p->recomputes ? p->forward : p->eval;
  *done = false;
  if (!td_program_repeats(program, 1) || p->nkept > MOST_KEPT) return TD_OK;
  stages_run w = {.f = f, .step = step};
  td_status s = TD_OK;
  for (int i = step->first; i < step->end && !s; i++) s = place_stage(f, step, &w, i);
  td_program_runs runs = {.count = step->end - step->first, .inputs = w.inputs, .outputs = w.outputs,
                          .before = make_state, .ctx = &w};
  if (!s) s = td_program_repeat(program, &runs);
  *done = !s;
  return s;
}

void td_captured_tiles_set(td_field *f) {
  if (td_program_repeats(f->programs->eval, 1)) f->stages = tiled_stages;
}
