/* Whole explicit steps of a small captured field in one list of operations on short arrays (graph/strips.h), forward
 * and transposed: what captured_step.c does for fields of two or three variables, for those of some hundred numbers, in
 * float32 and float64. The operations and their order are those of explicit.c. */
#include <string.h>
#include "base/alloc.h"
#include "solve/programs.h"
#include "solve/tableau.h"

enum { CALLS_BEFORE = 12 };  /* steps stage by stage until a list pays */

typedef struct {
  const struct td_field_programs *p;
  const td_field_stages *step;
  td_strip_step *to;
  size_t n;
  int state[TD_MAX_STAGES];
} writer;

/* ---- The step ---- */

static void write_inputs(writer *w) {
  td_strips *s = &w->to->list;
  int stages = w->step->stages;
  w->to->y = td_strips_new(s, w->n);
  for (int i = 0; i < stages; i++) {
    w->to->t[i] = td_strips_new(s, 1);
    w->to->k[i] = td_strips_new(s, w->n);
  }
  w->to->h_a = td_strips_coefficients(s, (size_t)(stages * (stages - 1) / 2));
  w->to->h_b = td_strips_coefficients(s, (size_t)stages);
  w->to->one = td_strips_coefficients(s, 1);
  if (!s->failed) *w->to->one = 1;
}

/* The state of stage i: y + h Σ aᵢⱼ kⱼ over the coefficients that are not 0. */
static void write_state(writer *w, int i) {
  double *coef[TD_MAX_STAGES];
  int x[TD_MAX_STAGES], row = i * (i - 1) / 2, count = 0;
  w->state[i] = w->to->y;
  for (int j = 0; j < i; j++)
    if (w->step->a[row + j] != 0) coef[count] = w->to->h_a + row + j, x[count++] = w->to->k[j];
  if (i == 0 || w->to->list.failed) return;
  w->state[i] = td_strips_new(&w->to->list, w->n);
  td_strips_combine(&w->to->list, w->state[i], w->to->y, count, coef, x, w->n);
}

static void write_forward(writer *w) {
  for (int i = 1; i < w->step->stages; i++) {
    write_state(w, i);
    td_strips_insert(&w->to->list, w->p->eval, (int[]){w->to->t[i], w->state[i]}, &w->to->k[i]);
  }
  w->to->y1 = w->state[w->step->stages - 1];
}

/* ---- Its transpose ---- */

/* Which stages the result depends on. */
static void mark_needed(const td_field_stages *s, bool *needed) {
  for (int i = s->stages - 1; i >= 0; i--) {
    needed[i] = needed[i] || s->b[i] != 0;
    for (int k = 0; k < i && needed[i]; k++) needed[k] = needed[k] || s->a[i * (i - 1) / 2 + k] != 0;
  }
}

/* Places of programs' inputs and results. */
typedef struct {
  int *in, *out, *kept;     /* kept: nkept of each stage */
  int bar, ybar[TD_MAX_STAGES];
  bool used[TD_MAX_STAGES];
} flow;

/* The stages that are needed, with what their transposes read. */
static void write_replay(writer *w, flow *g, const bool *needed) {
  size_t nkept = w->p->nkept;
  for (int i = 0; i < w->step->stages; i++) {
    if (!needed[i]) continue;
    write_state(w, i);
    g->out[0] = w->to->k[i];
    for (size_t k = 0; k < nkept; k++) g->out[1 + k] = -1;
    td_strips_insert(&w->to->list, w->p->forward, (int[]){w->to->t[i], w->state[i]}, g->out);
    memcpy(g->kept + (size_t)i * nkept, g->out + 1, nkept * sizeof *g->kept);
  }
}

/* k̄ of stage i = h·bᵢ·λ + h·Σ aⱼᵢ Ȳⱼ over the later stages j, last first. False: nothing reaches it. */
static bool write_gather(writer *w, flow *g, int i) {
  double *coef[TD_MAX_STAGES + 1];
  int x[TD_MAX_STAGES + 1], count = 0;
  if (w->step->b[i] != 0) coef[count] = w->to->h_b + i, x[count++] = w->to->lambda;
  for (int j = w->step->stages - 1; j > i; j--) {
    int at = j * (j - 1) / 2 + i;
    if (g->used[j] && w->step->a[at] != 0) coef[count] = w->to->h_a + at, x[count++] = g->ybar[j];
  }
  if (count) td_strips_combine(&w->to->list, g->bar, -1, count, coef, x, w->n);
  return count > 0;
}

static void write_stage_back(writer *w, flow *g, int i) {
  const struct td_field_programs *p = w->p;
  td_strips *s = &w->to->list;
  for (int o = 0; o < td_program_outputs(p->backward); o++) g->out[o] = -1;
  if (p->by_y >= 0) g->out[p->by_y] = g->ybar[i] = td_strips_new(s, w->n);
  g->used[i] = p->by_y >= 0;
  g->in[0] = g->bar, g->in[1] = w->to->t[i], g->in[2] = w->state[i];
  memcpy(g->in + 3, g->kept + (size_t)i * p->nkept, p->nkept * sizeof *g->in);
  td_strips_insert(s, p->backward, g->in, g->out);
  for (size_t x = 0; x < p->nexternals && !s->failed; x++)
    if (p->by_external[x] >= 0)
      td_strips_add(s, w->to->sum[x], g->out[p->by_external[x]],
                    td_program_output(p->backward, p->by_external[x])->numel);
}

static void write_back(writer *w, flow *g) {
  td_strips *s = &w->to->list;
  int stages = w->step->stages, count = 0, x[TD_MAX_STAGES];
  double *ones[TD_MAX_STAGES];
  bool needed[TD_MAX_STAGES] = {false};
  mark_needed(w->step, needed);
  w->to->lambda = td_strips_new(s, w->n);
  g->bar = td_strips_new(s, w->n);
  for (size_t i = 0; i < w->p->nexternals; i++)
    w->to->sum[i] =
      w->p->by_external[i] < 0 ? -1 : td_strips_new(s, td_program_output(w->p->backward, w->p->by_external[i])->numel);
  write_replay(w, g, needed);
  for (int i = stages - 1; i >= 0 && !s->failed; i--) {
    if (!write_gather(w, g, i)) continue;
    write_stage_back(w, g, i);
    if (g->used[i]) ones[count] = w->to->one, x[count++] = g->ybar[i];
  }
  if (count) td_strips_combine(s, w->to->lambda, w->to->lambda, count, ones, x, w->n);
}

static td_status write_transpose(writer *w) {
  flow g = {.bar = 0};
  size_t nkept = w->p->nkept, outputs = (size_t)td_program_outputs(w->p->backward) + 1 + nkept;
  size_t bytes = (nkept + 3 + outputs + nkept * (size_t)w->step->stages) * sizeof(int);
  g.in = td_alloc(bytes);
  w->to->sum = td_alloc((w->p->nexternals + 1) * sizeof *w->to->sum);
  if (g.in && w->to->sum) {
    g.out = g.in + nkept + 3;
    g.kept = g.out + outputs;
    write_back(w, &g);
  }
  td_free(g.in, g.in ? bytes : 0);
  return g.in && w->to->sum ? TD_OK : td_last_status();
}

/* ---- Making them ---- */

static void step_free(const struct td_field_programs *p, td_strip_step *s) {
  td_strips_free(&s->list);
  td_free(s->sum, s->sum ? (p->nexternals + 1) * sizeof *s->sum : 0);
  *s = (td_strip_step){0};
}

/* Writes one of the two; what cannot be written is refused for good. */
static td_status make(td_field *f, const td_field_stages *step, td_strip_step *to, bool back) {
  struct td_field_programs *p = f->programs;
  writer w = {.p = p, .step = step, .to = to, .n = f->numel};
  td_status s = TD_OK;
  td_strips_begin(&to->list, f->dtype);
  write_inputs(&w);
  if (back) s = write_transpose(&w);
  else write_forward(&w);
  if (!s) td_strips_finish(&to->list);
  to->made = !s && !to->list.failed;
  if (to->made) return TD_OK;
  p->strips.refused = true;
  step_free(p, to);
  return s;
}

/* The list for this step when it is there or should be made now. */
static td_status list_for(td_field *f, const td_field_stages *step, bool back, td_strip_step **list) {
  struct td_field_programs *p = f->programs;
  td_strip_steps *all = &p->strips;
  *list = NULL;
  if (all->method != step->method) {
    td_captured_strips_free(p);
    all->method = step->method;
  }
  int *calls = back ? &all->back_calls : &all->forward_calls;
  td_strip_step *one = back ? &all->back : &all->forward;
  if (all->refused || *calls < CALLS_BEFORE) {
    *calls += *calls < CALLS_BEFORE;
    return TD_OK;
  }
  td_status s = one->made ? TD_OK : make(f, step, one, back);
  if (!s && one->made) *list = one;
  return s;
}

/* ---- Running ---- */

static void run(const td_field *f, td_strip_step *list, const td_field_stages *step) {
  td_strips *s = &list->list;
  int stages = step->stages;
  for (int i = 0; i < stages * (stages - 1) / 2; i++) list->h_a[i] = step->h * step->a[i];
  for (int i = 0; i < stages; i++) list->h_b[i] = step->h * step->b[i];
  for (int i = 0; i < stages; i++) {
    void *t = td_strips_at(s, list->t[i]);
    if (f->dtype == TD_F64) *(double *)t = step->t[i];
    else *(float *)t = (float)step->t[i];
  }
  memcpy(td_strips_at(s, list->y), step->y, f->numel * s->size);
  td_strips_run(s);
}

static td_status strip_stages(td_field *f, const td_field_stages *step, bool *done) {
  td_strip_step *list = NULL;
  size_t bytes = f->numel * td_dtype_size(f->dtype);
  bool whole = step->first == 1 && step->end == step->stages && step->stages > 1 && !step->keep;
  td_status status = whole ? list_for(f, step, false, &list) : TD_OK;
  *done = !status && list;
  if (status || !list) return status;
  if (td_program_poll && (status = td_program_poll())) return status;
  const td_strips *s = &list->list;
  memcpy(td_strips_at(s, list->k[0]), step->k[0], bytes);
  run(f, list, step);
  for (int i = 1; i < step->stages; i++) memcpy(step->k[i], td_strips_at(s, list->k[i]), bytes);
  memcpy(step->y1, td_strips_at(s, list->y1), bytes);
  return TD_OK;
}

static td_status strip_stages_back(td_field *f, const td_field_stages *step, void *lambda, td_tensor **dexternal,
                                   bool *done) {
  td_strip_step *list;
  size_t bytes = f->numel * td_dtype_size(f->dtype);
  td_status status = list_for(f, step, true, &list);
  bool open = false;
  *done = false;
  if (!status && list) status = td_captured_open_sums(f, dexternal, &open);
  if (!status && open && td_program_poll) status = td_program_poll();
  if (status || !open) return status;
  const td_strips *s = &list->list;
  memcpy(td_strips_at(s, list->lambda), lambda, bytes);
  for (size_t i = 0; i < f->programs->nexternals; i++)
    if (list->sum[i] >= 0) memcpy(td_strips_at(s, list->sum[i]), dexternal[i]->data, dexternal[i]->numel * s->size);
  run(f, list, step);
  memcpy(lambda, td_strips_at(s, list->lambda), bytes);
  for (size_t i = 0; i < f->programs->nexternals; i++)
    if (list->sum[i] >= 0)
      memcpy((void *)dexternal[i]->data, td_strips_at(s, list->sum[i]), dexternal[i]->numel * s->size);
  *done = true;
  return TD_OK;
}

void td_captured_strips_set(td_field *f, bool gradient) {
  const struct td_field_programs *p = f->programs;
  if (!td_strips_takes(p->eval, f->dtype)) return;
  f->stages = strip_stages;
  if (gradient && p->dynamic && !p->recomputes && td_strips_takes(p->forward, f->dtype) &&
      td_strips_takes(p->backward, f->dtype))
    f->stages_back = strip_stages_back;
}

void td_captured_strips_free(struct td_field_programs *p) {
  step_free(p, &p->strips.forward);
  step_free(p, &p->strips.back);
  p->strips = (td_strip_steps){0};
}
