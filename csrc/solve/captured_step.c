/* Whole explicit steps of a captured field of few variables. When its programs are lists of operations on numbers, the
 * stages' states, their evaluations and, for the transpose, everything that flows back are written into one list, and a
 * step is one run of it: no kernel calls, no slots, no bookkeeping between the stages. The operations and their order
 * are those of explicit.c, so the results are the same to the last bit. */
#include <string.h>
#include "base/alloc.h"
#include "graph/scalar.h"
#include "solve/programs.h"
#include "solve/tableau.h"

enum { CALLS_BEFORE = 12 };  /* steps stage by stage until a list pays */

/* A list being written. state: places of each stage's elements, n a stage; slope: the first of those of each element's
 * slopes, a stage after the other; kept: places of what the reverse pass wants, a list for each stage and kept
 * value. */
typedef struct {
  const struct td_field_programs *p;
  const td_field_stages *step;
  td_joined_step *to;
  int n, h_a;               /* h_a: the first place of h·a, packed */
  int slope;
  int *state, **kept;
  int *block;
  size_t block_bytes;
  int **lists;
} writer;

static size_t kept_numbers(const struct td_field_programs *p, size_t i) {
  return td_program_output(p->forward, (int)(1 + i))->numel / sizeof(double);
}

/* All room of the writer, in one block. */
static td_status writer_room(writer *w, bool back) {
  size_t stages = (size_t)w->step->stages, n = (size_t)w->n, nkept = back ? w->p->nkept : 0, numbers = 0, lists;
  for (size_t i = 0; i < nkept; i++) numbers += kept_numbers(w->p, i);
  lists = stages * nkept + nkept + w->p->nexternals + 8;
  w->block_bytes = (stages * n + stages * numbers) * sizeof(int);
  w->block = td_alloc(w->block_bytes);
  w->lists = td_alloc(lists * sizeof *w->lists);
  if (!w->block || !w->lists) return td_last_status();
  memset(w->block, -1, w->block_bytes);
  w->state = w->block;
  w->kept = w->lists;
  int *at = w->state + stages * n;
  for (size_t s = 0; s < stages; s++)
    for (size_t i = 0; i < nkept; i++, at += kept_numbers(w->p, i - 1)) w->kept[s * nkept + i] = at;
  return TD_OK;
}

static void writer_free(writer *w, bool back) {
  size_t nkept = back ? w->p->nkept : 0;
  td_free(w->block, w->block_bytes);
  td_free(w->lists, ((size_t)w->step->stages * nkept + nkept + w->p->nexternals + 8) * sizeof *w->lists);
}

/* Inputs, and h times the coefficients. */
static void write_inputs(writer *w) {
  td_joined *j = &w->to->list;
  int stages = w->step->stages, count = stages * (stages - 1) / 2, a = td_joined_new(j, count, 0);
  if (count && !j->failed) memcpy(j->number + a, w->step->a, (size_t)count * sizeof(double));
  w->to->y = td_joined_new(j, w->n, 0);
  w->to->h = td_joined_new(j, 1, 0);
  w->to->t = td_joined_new(j, stages, 0);
  w->slope = td_joined_new(j, stages * w->n, 0);
  w->h_a = td_joined_scale(j, w->to->h, a, count);
}

/* base + Σ coef[i] x[i] over the i < n whose weight is not 0 and which are used (NULL: all are). */
static int write_sum(td_joined *j, int base, int coef, int x, int n, const double *weight, const bool *used) {
  for (int i = 0; i < n;) {
    int first = i;
    while (i < n && weight[i] != 0 && (!used || used[i])) i++;
    if (i > first) base = td_joined_dot(j, base, coef + first, x + first, i - first);
    else i++;
  }
  return base;
}

/* y + h Σ aᵢⱼ kⱼ */
static void write_state(writer *w, int i) {
  int row = i * (i - 1) / 2;
  for (int e = 0; e < w->n; e++)
    w->state[i * w->n + e] = write_sum(&w->to->list, w->to->y + e, w->h_a + row, w->slope + e * w->step->stages, i,
                                       w->step->a + row, NULL);
}

/* The places of stage i's slope. */
static void slope_places(const writer *w, int i, int *to) {
  for (int e = 0; e < w->n; e++) to[e] = w->slope + e * w->step->stages + i;
}

/* ---- The step ---- */

/* base + h Σ weight[i] k[i] for each element, base NULL: zero. */
static void write_combination(writer *w, const double *weight, const int *base, int *out) {
  td_joined *j = &w->to->list;
  int stages = w->step->stages, zero = base ? 0 : td_joined_new(j, 1, 0), first = td_joined_new(j, stages, 0);
  if (!j->failed) memcpy(j->number + first, weight, (size_t)stages * sizeof(double));
  int coef = td_joined_scale(j, w->to->h, first, stages);
  for (int e = 0; e < w->n; e++)
    out[e] = write_sum(j, base ? base[e] : zero, coef, w->slope + e * stages, stages, weight, NULL);
}

/* Where the first slope is not the last one of the step before, it is made here too. */
static void write_forward(writer *w) {
  const td_field_stages *step = w->step;
  td_joined *j = &w->to->list;
  int stages = step->stages, n = w->n, *result = w->to->result;
  w->to->k = w->slope;
  for (int i = step->fsal; i < stages; i++) {
    int t = w->to->t + i, *out = i ? result + i * n : w->state + n;  /* (those of k₀ are known) */
    write_state(w, i);
    slope_places(w, i, out);
    td_joined_insert(j, w->p->eval, (const int *const[]){&t, w->state + i * n}, &out);
  }
  if (step->fsal) memcpy(result, w->state + (stages - 1) * n, (size_t)n * sizeof(int));
  else write_combination(w, step->b, w->state, result);
  if (step->e) write_combination(w, step->e, NULL, result + stages * n);
  if (step->e2) write_combination(w, step->e2, NULL, result + (stages + 1) * n);
}

/* ---- Its transpose ---- */

/* Which stages the result depends on. */
static void mark_needed(const td_field_stages *s, bool *needed) {
  for (int i = s->stages - 1; i >= 0; i--) {
    needed[i] = needed[i] || s->b[i] != 0;
    for (int k = 0; k < i && needed[i]; k++) needed[k] = needed[k] || s->a[i * (i - 1) / 2 + k] != 0;
  }
}

static void write_replay(writer *w, const bool *needed, int *slope) {
  td_joined *j = &w->to->list;
  size_t nkept = w->p->nkept;
  for (int i = 0; i < w->step->stages; i++) {
    if (!needed[i]) continue;
    int t = w->to->t + i, **out = w->lists + (size_t)w->step->stages * nkept;
    write_state(w, i);
    slope_places(w, i, slope);
    out[0] = slope;
    for (size_t k = 0; k < nkept; k++) out[1 + k] = w->kept[(size_t)i * nkept + k];
    td_joined_insert(j, w->p->forward, (const int *const[]){&t, w->state + i * w->n}, out);
  }
}

/* One stage back: w_i = k̄ᵢ. out: places of backward's results, for all its outputs. */
static void write_pull(writer *w, int i, const int *bar, int **out, const int **in) {
  int t = w->to->t + i;
  in[0] = bar;
  in[1] = &t;
  in[2] = w->state + i * w->n;
  for (size_t k = 0; k < w->p->nkept; k++) in[3 + k] = w->kept[(size_t)i * w->p->nkept + k];
  td_joined_insert(&w->to->list, w->p->backward, in, out);
}

/* Room for what one stage gives back. */
typedef struct {
  int *block, **out;
  const int **in;
  size_t numbers;
} pulled;

static td_status pulled_new(pulled *g, const writer *w) {
  int outputs = td_program_outputs(w->p->backward);
  *g = (pulled){.numbers = 0};
  for (int i = 0; i < outputs; i++) g->numbers += td_program_output(w->p->backward, i)->numel;
  g->block = td_alloc(g->numbers * sizeof *g->block);
  g->out = td_alloc((size_t)(outputs + 1) * sizeof *g->out);
  g->in = td_alloc((w->p->nkept + 3) * sizeof *g->in);
  if (!g->block || !g->out || !g->in) return td_last_status();
  int *at = g->block;
  for (int i = 0; i < outputs; i++) {
    g->out[i] = at;
    at += td_program_output(w->p->backward, i)->numel;
  }
  return TD_OK;
}

static void pulled_free(pulled *g, const writer *w) {
  td_free(g->block, g->numbers * sizeof *g->block);
  td_free(g->out, (size_t)(td_program_outputs(w->p->backward) + 1) * sizeof *g->out);
  td_free(g->in, (w->p->nkept + 3) * sizeof *g->in);
}

/* What flows back. Of each element, places in a row of λ and of Ȳ of the last stage, of the one before, and so on to
 * the first; weights in the same order. */
typedef struct {
  int z, one;
  bool used[TD_MAX_STAGES + 1];  /* which of the row are there */
  double weight[TD_MAX_STAGES + 1];
  int *bar, *slope;              /* room for places of n elements each */
} flow;

/* k̄ of stage i = h·bᵢ·λ + h·Σ aⱼᵢ Ȳⱼ over the later stages j, last first. False: nothing reaches it. */
static bool write_gather(writer *w, flow *g, int i) {
  td_joined *j = &w->to->list;
  int stages = w->step->stages, count = stages - i, zero = td_joined_new(j, 1, 0);
  bool any = false;
  for (int k = 0; k < count; k++) {
    int from = stages - k;
    g->weight[k] = k == 0 ? w->step->b[i] : w->step->a[from * (from - 1) / 2 + i];
    any = any || (g->used[k] && g->weight[k] != 0);
  }
  if (!any) return false;
  int weights = td_joined_new(j, count, 0);
  if (!j->failed) memcpy(j->number + weights, g->weight, (size_t)count * sizeof(double));
  int coef = td_joined_scale(j, w->to->h, weights, count);
  for (int e = 0; e < w->n; e++)
    g->bar[e] = write_sum(j, zero, coef, g->z + e * (stages + 1), count, g->weight, g->used);
  return true;
}

/* Stage i back: Ȳ takes its place in the rows, cotangents of the externals join their sums. */
static void write_stage_back(writer *w, flow *g, const pulled *from, int i) {
  td_joined *j = &w->to->list;
  const struct td_field_programs *p = w->p;
  int stages = w->step->stages, at = stages - i;
  memset(from->block, -1, from->numbers * sizeof *from->block);
  for (int e = 0; e < w->n && p->by_y >= 0; e++) from->out[p->by_y][e] = g->z + e * (stages + 1) + at;
  write_pull(w, i, g->bar, from->out, from->in);
  g->used[at] = p->by_y >= 0;
  int *sum = w->to->result + w->n;
  for (size_t x = 0; x < p->nexternals; x++) {
    if (p->by_external[x] < 0) continue;
    size_t count = td_program_output(p->backward, p->by_external[x])->numel;
    for (size_t e = 0; e < count; e++) sum[e] = td_joined_add(j, sum[e], from->out[p->by_external[x]][e]);
    sum += count;
  }
}

static void write_flow(writer *w, flow *g, const pulled *from) {
  td_joined *j = &w->to->list;
  int n = w->n, stages = w->step->stages, sums = (int)w->to->nresult - n;
  bool needed[TD_MAX_STAGES] = {false};
  mark_needed(w->step, needed);
  w->to->lambda = td_joined_new(j, (int)w->to->nresult, 0);
  g->z = td_joined_new(j, n * (stages + 1), 0);
  g->one = td_joined_new(j, stages + 1, 1);
  g->used[0] = true;
  for (int i = 0; i < sums; i++) w->to->result[n + i] = w->to->lambda + n + i;
  for (int e = 0; e < n; e++) td_joined_copy(j, w->to->lambda + e, g->z + e * (stages + 1));
  write_replay(w, needed, g->slope);
  for (int i = stages - 1; i >= 0 && !j->failed; i--)
    if (write_gather(w, g, i)) write_stage_back(w, g, from, i);
  for (int k = 0; k <= stages; k++) g->weight[k] = 1;
  for (int e = 0; e < n; e++)
    w->to->result[e] = write_sum(j, w->to->lambda + e, g->one + 1, g->z + e * (stages + 1) + 1, stages, g->weight + 1,
                                 g->used + 1);
}

static td_status write_back(writer *w) {
  size_t bytes = 2 * (size_t)w->n * sizeof(int);
  flow g = {.bar = td_alloc(bytes)};
  pulled from = {0};
  td_status s = g.bar ? pulled_new(&from, w) : td_last_status();
  g.slope = g.bar + w->n;
  if (!s) write_flow(w, &g, &from);
  pulled_free(&from, w);
  td_free(g.bar, bytes);
  return s;
}

/* ---- Making them ---- */

static void step_free(td_joined_step *s) {
  td_joined_free(&s->list);
  td_free(s->result, s->nresult * sizeof *s->result);
  *s = (td_joined_step){0};
}

/* Numbers of the externals' sums. */
static size_t sum_numbers(const struct td_field_programs *p) {
  size_t n = 0;
  for (size_t i = 0; i < p->nexternals; i++)
    if (p->by_external[i] >= 0) n += td_program_output(p->backward, p->by_external[i])->numel;
  return n;
}

/* Writes one of the two; what cannot be written is refused for good. */
static td_status make(td_field *f, const td_field_stages *step, td_joined_step *to, bool back) {
  struct td_field_programs *p = f->programs;
  writer w = {.p = p, .step = step, .to = to, .n = (int)f->numel};
  to->nresult = back ? f->numel + sum_numbers(p) : ((size_t)step->stages + 2) * f->numel;
  to->result = td_alloc(to->nresult * sizeof *to->result);
  td_status s = to->result ? writer_room(&w, back) : td_last_status();
  if (!s) write_inputs(&w);
  if (!s && back) s = write_back(&w);
  else if (!s) write_forward(&w);
  writer_free(&w, back);
  if (!s && !to->list.failed) to->timed = td_joined_reads(&to->list, to->t, step->stages);
  if (!s && to->list.failed) p->steps.refused = true;
  if (s || to->list.failed) step_free(to);
  return s;
}

td_status td_captured_list(td_field *f, const td_field_stages *step, bool back, td_joined_step **list) {
  td_joined_steps *all = &f->programs->steps;
  *list = NULL;
  if (all->method != step->method) {
    step_free(&all->forward);
    step_free(&all->back);
    *all = (td_joined_steps){.method = step->method};
  }
  int *calls = back ? &all->back_calls : &all->forward_calls;
  td_joined_step *one = back ? &all->back : &all->forward;
  if (all->refused || *calls < CALLS_BEFORE) {
    *calls += *calls < CALLS_BEFORE;
    return TD_OK;
  }
  if (!one->result) {
    td_status s = make(f, step, one, back);
    if (s) return s;
  }
  if (one->result) *list = one;
  return TD_OK;
}

/* ---- Running ---- */

static void run(td_joined_step *list, const td_field_stages *step, size_t n) {
  double *x = list->list.number;
  x[list->h] = step->h;
  memcpy(x + list->y, step->y, n * sizeof *x);
  memcpy(x + list->t, step->t, (size_t)step->stages * sizeof *x);
  td_joined_run(&list->list);
}

static void take(const td_joined_step *list, size_t first, double *to, size_t n) {
  for (size_t i = 0; i < n; i++) to[i] = list->list.number[list->result[first + i]];
}

static td_status captured_stages(td_field *f, const td_field_stages *step, bool *done) {
  td_joined_step *list = NULL;
  size_t n = f->numel;
  bool whole = step->first == 1 && step->end == step->stages && step->stages > 1 && !step->keep;
  td_status s = whole ? td_captured_list(f, step, false, &list) : TD_OK;  /* one stage: nothing is left to do */
  *done = !s && list;
  if (s || !list) return s;
  if (td_program_poll && (s = td_program_poll())) return s;
  for (size_t e = 0; e < n; e++)
    list->list.number[list->k + (int)e * step->stages] = ((const double *)step->k[0])[e];
  run(list, step, n);
  take(list, 0, step->y1, n);
  for (int i = 1; i < step->stages; i++) take(list, (size_t)i * n, step->k[i], n);
  return TD_OK;
}

td_status td_captured_open_sums(td_field *f, td_tensor **dexternal, bool *open) {
  const struct td_field_programs *p = f->programs;
  *open = true;
  for (size_t i = 0; i < p->nexternals && *open; i++) {
    const td_tensor *like = f->externals[i], *t = dexternal[i];
    if (p->by_external[i] < 0) continue;
    if (!t && !(t = dexternal[i] = td_tensor_zeros(like->dtype, like->ndim, like->shape))) return td_last_status();
    *open = t->refs == 1 && t->storage->refs == 1 && !t->node && t->dtype == f->dtype && td_tensor_is_contiguous(t);
  }
  return TD_OK;
}

void td_captured_put_sums(const struct td_field_programs *p, td_joined_step *list, td_tensor *const *dexternal) {
  double *to = list->list.number + list->lambda + (list->nresult - sum_numbers(p));
  for (size_t i = 0; i < p->nexternals; i++) {
    if (p->by_external[i] < 0) continue;
    memcpy(to, dexternal[i]->data, dexternal[i]->numel * sizeof *to);
    to += dexternal[i]->numel;
  }
}

void td_captured_take_sums(const struct td_field_programs *p, const td_joined_step *list, td_tensor *const *dexternal) {
  size_t at = list->nresult - sum_numbers(p);
  for (size_t i = 0; i < p->nexternals; i++) {
    if (p->by_external[i] < 0) continue;
    take(list, at, (double *)(void *)dexternal[i]->data, dexternal[i]->numel);
    at += dexternal[i]->numel;
  }
}

static td_status captured_stages_back(td_field *f, const td_field_stages *step, void *lambda, td_tensor **dexternal,
                                      bool *done) {
  const struct td_field_programs *p = f->programs;
  td_joined_step *list;
  size_t n = f->numel;
  td_status s = td_captured_list(f, step, true, &list);
  bool open = false;
  *done = false;
  if (!s && list) s = td_captured_open_sums(f, dexternal, &open);
  if (!s && open && td_program_poll) s = td_program_poll();
  if (s || !open) return s;
  memcpy(list->list.number + list->lambda, lambda, n * sizeof(double));
  td_captured_put_sums(p, list, dexternal);
  run(list, step, n);
  take(list, 0, lambda, n);
  td_captured_take_sums(p, list, dexternal);
  *done = true;
  return TD_OK;
}

void td_captured_steps_set(td_field *f, bool gradient) {
  const struct td_field_programs *p = f->programs;
  if (f->numel == 0) return;
  if (!td_program_scalar(p->eval)) {
    td_captured_strips_set(f, gradient);
    return;
  }
  f->stages = captured_stages;
  if (gradient && p->dynamic && !p->recomputes && td_program_scalar(p->forward) && td_program_scalar(p->backward))
    f->stages_back = captured_stages_back;
  td_captured_march_set(f, f->stages_back != NULL);
}

void td_captured_steps_free(struct td_field_programs *p) {
  step_free(&p->steps.forward);
  step_free(&p->steps.back);
  td_captured_strips_free(p);
}
