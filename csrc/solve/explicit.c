/* Explicit Runge–Kutta methods: one step, its extension, its transpose, and the step on the tape, for any tableau. */
#include "solve/tableau.h"
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"
#include "solve/captured.h"

/* One row of the tableau without its zeros. */
typedef struct {
  int count;
  int at[TD_MAX_STAGES];
  double w[TD_MAX_STAGES];
} row;

typedef enum { AT_FIRST, AT_LAST, BETWEEN } moment;

/* A tableau as steps use it: made once for each method and kept. Stage i's slope is f0, f1, or one of the family's
 * vectors, the last of which is a stage's state. */
typedef struct explicit {
  const td_tableau *m;
  int stages, width, end;              /* width: with those of the extension; end: which stage is f(t₁, y₁) */
  row a[TD_MAX_STAGES], b, e, e2;
  double c[TD_MAX_STAGES];
  moment when[TD_MAX_STAGES];          /* each stage is evaluated, */
  double at[TD_MAX_STAGES];            /* and that as a part of the step: c, but exactly 0 and 1 at its ends */
  double packed[TD_MAX_STAGES * (TD_MAX_STAGES - 1) / 2];  /* the rows of `a`, for the field */
  bool needed[TD_MAX_STAGES];          /* stages that y1 depends on, */
  int nneeded;                         /* and their number */
  const td_method *method;
  struct explicit *next;
} explicit;

/* What a stepper has of its own: stages that are computed in this step, without f1. */
typedef struct {
  const explicit *x;
  int known;
} work;

static row row_of(const double *w, int n) {
  row r = {0};
  for (int i = 0; w && i < n; i++)
    if (w[i] != 0) {
      r.at[r.count] = i;
      r.w[r.count++] = w[i];
    }
  return r;
}

/* Which stages the marked ones reach through the matrix. */
static void mark_needed(const explicit *x, bool *needed) {
  for (int i = x->width - 1; i > 0; i--)
    for (int j = 0; needed[i] && j < x->a[i].count; j++) needed[x->a[i].at[j]] = true;
}

static void fill(explicit *x, const td_method *method) {
  const td_tableau *m = method->table;
  *x = (explicit){.m = m, .stages = m->stages, .width = td_tableau_width(m),
                  .end = m->fsal ? m->stages - 1 : m->stages, .method = method};
  for (int i = 0; i < x->width; i++) {
    x->a[i] = row_of(td_tableau_row(m, i), i);
    x->c[i] = td_tableau_c(m, i);
    x->when[i] = i == x->end || fabs(x->c[i] - 1) < 1e-14 ? AT_LAST : x->c[i] == 0 ? AT_FIRST : BETWEEN;
    x->at[i] = x->when[i] == BETWEEN ? x->c[i] : x->when[i] == AT_LAST;
    if (i > 0) memcpy(x->packed + i * (i - 1) / 2, td_tableau_row(m, i), (size_t)i * sizeof(double));
  }
  x->b = row_of(m->b, m->stages);
  x->e = row_of(m->e, m->stages);
  x->e2 = row_of(m->e2, m->stages);
  for (int i = 0; i < x->b.count; i++) x->needed[x->b.at[i]] = true;
  mark_needed(x, x->needed);
  for (int i = 0; i < x->width; i++) x->nneeded += x->needed[i];
}

static const explicit *explicit_of(const td_method *method) {
  static explicit *made;
  for (const explicit *x = made; x; x = x->next)
    if (x->method == method) return x;
  explicit *x = td_alloc(sizeof *x);
  if (!x) return NULL;
  fill(x, method);
  x->next = made;
  return made = x;
}

static int vectors_of(const explicit *x) { return x->width - (x->end < x->width); }

static td_status make(td_stepper *s) {
  work *own = td_alloc(sizeof *own);
  const explicit *x = own ? explicit_of(s->method) : NULL;
  s->own = own;
  if (!x) return td_last_status();
  *own = (work){.x = x};
  td_stepper_room(s, (size_t)vectors_of(x));
  return TD_OK;
}

static void release(td_stepper *s) { td_free(s->own, sizeof(work)); }

static const explicit *table_of(const td_stepper *s) { return ((const work *)s->own)->x; }

/* When stage i is evaluated. */
static double time_of(const td_stepper *s, const explicit *x, int i) {
  return x->when[i] == BETWEEN   ? s->t + x->c[i] * (s->end - s->t)
         : x->when[i] == AT_LAST ? s->last_time
                                 : s->first_time;
}

static char *slope_of(const td_stepper *s, const explicit *x, int i) {
  return i == 0 ? s->f0 : i == x->end ? s->f1 : td_stepper_vector(s, (size_t)(i < x->end ? i - 1 : i - 2));
}
const void *td_explicit_slope(const td_stepper *s, int i) { return slope_of(s, table_of(s), i); }

static char *stage_state(const td_stepper *s, const explicit *x) {
  return td_stepper_vector(s, (size_t)vectors_of(x) - 1);
}

/* h·row as the kernels take it. */
static void terms_of(const td_stepper *s, const explicit *x, const row *r, td_terms *t) {
  double h = s->end - s->t;
  t->count = r->count;
  for (int i = 0; i < r->count; i++) {
    t->coef[i] = h * r->w[i];
    t->x[i] = slope_of(s, x, r->at[i]);
  }
}

static void advance_by(const td_stepper *s, const explicit *x, const row *r, void *out) {
  td_terms t;
  terms_of(s, x, r, &t);
  td_stepper_combine(s, out, s->y, t.count, t.coef, t.x);
}

static td_field_stages any_step(const td_stepper *s, const explicit *x) {
  return (td_field_stages){.method = s->method->name, .stages = x->stages, .first = 1, .end = x->stages, .a = x->packed,
                           .b = x->m->b, .e = x->m->e, .e2 = x->m->e2, .fsal = x->m->fsal};
}

/* The step as the field sees it; t and k have room for the stages. */
static td_field_stages step_of(const td_stepper *s, const explicit *x, double *t, void **k) {
  td_field_stages step = any_step(s, x);
  for (int i = 0; i < x->stages; i++) {
    t[i] = time_of(s, x, i);
    k[i] = slope_of(s, x, i);
  }
  step.h = s->end - s->t;
  step.t = t;
  step.y = s->y;
  step.k = k;
  step.y1 = s->y1;
  step.state = stage_state(s, x);
  return step;
}

static void describe(const td_stepper *s, td_field_method *m) {
  const explicit *x = table_of(s);
  *m = (td_field_method){.step = any_step(s, x), .c = x->at, .needed = x->nneeded};
}

/* Stages [*first, end) by one call of the field, when it can; *first then is end. */
static td_status make_at_once(td_stepper *s, const explicit *x, int *first, int end, bool keep) {
  double t[TD_MAX_STAGES];
  void *k[TD_MAX_STAGES];
  td_field_stages some = step_of(s, x, t, k);
  bool done = false;
  some.first = *first;
  some.end = end;
  some.keep = keep;
  td_status status = s->f->stages && *first < end ? s->f->stages(s->f, &some, &done) : TD_OK;
  if (!done) return status;
  s->counts->nfe += (uint64_t)(end - *first);
  *first = end;
  return status;
}

/* The end of the stages from `first` on that are marked. */
static int marked_end(const explicit *x, const bool *marked, int first) {
  while (first < x->stages && marked[first]) first++;
  return first;
}

/* Stage i's slope, kept by the field for its transpose. */
static td_status keep(td_stepper *s, const explicit *x, int i, const char *state) {
  double t = time_of(s, x, i);
  s->counts->nfe++;
  return td_field_keep(s->f, i, t, state, slope_of(s, x, i));
}

/* Which stages of the step are kept. The last one of a method that gives it to the next step is that one's first: the
 * evaluations of all steps are one row, `end` of them a step. */
static void hold_stages(td_stepper *s, const explicit *x, bool *kept) {
  td_field_hold_at(s->f, s->number * (uint64_t)x->end, x->end);
  memcpy(kept, x->needed, sizeof x->needed);
  if (x->m->fsal && !s->ends) kept[x->end] = x->needed[0];
}

static td_status step(td_stepper *s, td_step_result *result) {
  (void)result;
  const explicit *x = table_of(s);
  bool kept[TD_MAX_STAGES] = {false};
  int first = 1;
  if (s->hold) hold_stages(s, x, kept);
  td_status status = kept[0] && !s->have_f0 ? keep(s, x, 0, s->y) : td_stepper_slope(s);
  s->have_f0 = !status;
  if (!status) status = make_at_once(s, x, &first, s->hold ? marked_end(x, kept, 1) : x->stages, s->hold);
  for (int i = first; i < x->stages && !status; i++) {
    char *state = i == x->end ? s->y1 : stage_state(s, x);
    advance_by(s, x, &x->a[i], state);
    status = kept[i] ? keep(s, x, i, state)
                     : td_stepper_eval(s, time_of(s, x, i), state, slope_of(s, x, i));
  }
  if (status) return status;
  ((work *)s->own)->known = x->stages;
  s->have_f1 = x->m->fsal;
  if (!x->m->fsal) advance_by(s, x, &x->b, s->y1);
  terms_of(s, x, &x->e, &s->error);
  terms_of(s, x, &x->e2, &s->error2);
  return TD_OK;
}

/* ---- The extension ---- */

/* Computes the stages that only the extension uses. */
static td_status extend(td_stepper *s, const explicit *x) {
  td_status status = TD_OK;
  if (x->width > x->end && !s->have_f1) {
    status = td_stepper_eval(s, s->last_time, s->y1, s->f1);
    s->have_f1 = !status;
  }
  work *own = s->own;
  int first = x->end + 1 > own->known ? x->end + 1 : own->known;
  for (int i = first; i < x->width && !status; i++) {
    advance_by(s, x, &x->a[i], stage_state(s, x));
    status = td_stepper_eval(s, time_of(s, x, i), stage_state(s, x), slope_of(s, x, i));
  }
  if (!status) own->known = x->width;
  return status;
}

static td_status dense(td_stepper *s, double theta, void *y, void *slope) {
  const explicit *x = table_of(s);
  td_status status = extend(s, x);
  if (status) return status;
  double w[TD_MAX_STAGES];
  td_terms t;
  int n = td_tableau_dense(x->m, theta, w);
  row r = row_of(w, n);
  terms_of(s, x, &r, &t);
  if (y) td_stepper_combine(s, y, s->y, t.count, t.coef, t.x);
  if (!slope) return TD_OK;
  td_tableau_dense_slope(x->m, theta, w);
  r = row_of(w, n);
  for (int i = 0; i < r.count; i++) t.x[i] = slope_of(s, x, r.at[i]);
  td_stepper_combine(s, slope, NULL, r.count, r.w, t.x);
  return TD_OK;
}

/* ---- One step transposed ---- */

/* k̄ of every stage in use, and which are; once it has been pulled through f, Ȳ of the stage. */
typedef struct {
  char *bar[TD_MAX_STAGES];
  bool used[TD_MAX_STAGES];
  char *block;
  size_t bytes, each;
} cotangents;

/* They take the slopes' own memory, unless the slopes are read beside them. */
static td_status cotangents_new(cotangents *g, const td_stepper *s, const explicit *x, bool beside) {
  *g = (cotangents){.each = (s->bytes + 63) & ~(size_t)63};
  g->bytes = beside ? g->each * (size_t)x->width + 64 : 0;
  if (beside && !(g->block = td_alloc(g->bytes))) return td_last_status();
  for (int i = 0; i < x->width; i++)
    g->bar[i] = beside ? g->block + g->each * (size_t)i : slope_of(s, x, i);
  return TD_OK;
}

/* bar[i] += coef·w for each entry of the row. */
static void spread(const td_stepper *s, cotangents *g, const row *r, double h, const void *w) {
  for (int i = 0; i < r->count; i++) {
    int at = r->at[i];
    double coef = h * r->w[i];
    td_stepper_combine(s, g->bar[at], g->used[at] ? g->bar[at] : NULL, 1, &coef, &w);
    g->used[at] = true;
  }
}

static double entry(const row *r, int at) {
  for (int i = 0; i < r->count; i++)
    if (r->at[i] == at) return r->w[i];
  return 0;
}

/* k̄ of stage i: what it has, h·b[i]·λ (unless lambda is NULL) and h·Σ a[j][i]·Ȳ of the later stages, in one pass to the
 * stage's state, which nobody needs any more. Where it is; NULL when it is zero. */
static const void *gather(const td_stepper *s, const explicit *x, const cotangents *g, int i, const void *lambda) {
  double h = s->end - s->t, coef[TD_MAX_STAGES + 1];
  const void *from[TD_MAX_STAGES + 1];
  int count = 0;
  if (lambda && entry(&x->b, i) != 0) coef[count] = h * entry(&x->b, i), from[count++] = lambda;
  for (int j = x->width - 1; j > i; j--)
    if (g->used[j] && entry(&x->a[j], i) != 0) coef[count] = h * entry(&x->a[j], i), from[count++] = g->bar[j];
  const void *before = g->used[i] ? g->bar[i] : NULL;
  if (count == 0) return before;
  td_stepper_combine(s, stage_state(s, x), before, count, coef, from);
  return stage_state(s, x);
}

/* Σ row[i] k[i]·w */
static double along(const td_stepper *s, const explicit *x, const row *r, const void *w) {
  double sum = 0;
  for (int i = 0; i < r->count; i++) sum += r->w[i] * td_stepper_dot(s, slope_of(s, x, r->at[i]), w);
  return sum;
}

/* The forward part: every needed stage, kept by the field for its transpose. Values y(θ) and slopes are not needed;
 * h̄ is a product with the slopes, which are. What the field holds of the step are its last stages, which need not be
 * computed again. */
static td_status replay(td_stepper *s, const explicit *x, const bool *needed, bool held) {
  int first = 0, last = x->width;
  while (held && last > 0 && (!needed[last - 1] || td_field_holds(s->f, last - 1))) last--;
  int marked = marked_end(x, needed, 0);
  td_status status = make_at_once(s, x, &first, marked < last ? marked : last, true);
  for (int i = first; i < last && !status; i++) {
    if (!needed[i]) continue;
    char *state = i == 0 ? s->y : stage_state(s, x);
    if (i > 0) advance_by(s, x, &x->a[i], state);
    status = keep(s, x, i, state);
  }
  return status;
}

/* Cotangents of the values inside the step. */
static void back_dense(td_stepper *s, const explicit *x, const td_step_back *b, cotangents *g) {
  double h = s->end - s->t, w[TD_MAX_STAGES], one = 1;
  for (size_t i = 0; i < b->ndense; i++) {
    int n = td_tableau_dense(x->m, b->theta[i], w);
    row r = row_of(w, n);
    spread(s, g, &r, h, b->w[i]);
    td_stepper_combine(s, b->lambda, b->lambda, 1, &one, &b->w[i]);
    if (b->hbar) *b->hbar += along(s, x, &r, b->w[i]);
    if (!b->theta_bar) continue;
    td_tableau_dense_slope(x->m, b->theta[i], w);
    r = row_of(w, n);
    b->theta_bar[i] = h * along(s, x, &r, b->w[i]);
  }
}

/* Stages from last to first: Ȳᵢ = Jᵢᵀ k̄ᵢ, which goes to the stages before and, at the end, to λ. */
static td_status back_stages(td_stepper *s, const explicit *x, td_step_back *b, cotangents *g, const void *lambda) {
  double ones[TD_MAX_STAGES];
  const void *from[TD_MAX_STAGES];
  int count = 0;
  td_status status = TD_OK;
  for (int i = x->width - 1; i >= 0 && !status; i--) {
    const void *kbar = gather(s, x, g, i, lambda);
    if (!kbar) continue;
    g->used[i] = true;
    double tbar = 0;
    status = td_field_pull(s->f, i, kbar, g->bar[i], b->tbar ? &tbar : NULL, b->dexternal);
    if (status) break;
    ones[count] = 1;
    from[count++] = g->bar[i];
    if (b->tbar) *b->tbar += tbar;
    if (b->hbar) *b->hbar += x->c[i] * tbar + along(s, x, &x->a[i], g->bar[i]);
  }
  if (!status && count) td_stepper_combine(s, b->lambda, b->lambda, count, ones, from);
  return status;
}

/* The transpose by one call of the field, when it can. */
static td_status back_at_once(td_stepper *s, const explicit *x, td_step_back *b, bool *done) {
  double t[TD_MAX_STAGES];
  void *k[TD_MAX_STAGES];
  td_field_stages all = step_of(s, x, t, k);
  td_status status = s->f->stages_back(s->f, &all, b->lambda, b->dexternal, done);
  if (*done) s->counts->nfe += (uint64_t)x->nneeded;
  return status;
}

static td_status back(td_stepper *s, td_step_back *b) {
  const explicit *x = table_of(s);
  bool needed[TD_MAX_STAGES], done = false;
  double w[TD_MAX_STAGES];
  bool plain = !b->ndense && !b->tbar && !b->hbar && b->dexternal;
  td_status status = plain && s->f->stages_back ? back_at_once(s, x, b, &done) : TD_OK;
  if (status || done) return status;
  memcpy(needed, x->needed, sizeof needed);
  for (size_t j = 0; j < b->ndense; j++) {
    int n = td_tableau_dense(x->m, b->theta[j], w);
    for (int i = 0; i < n; i++) needed[i] |= w[i] != 0;
    n = b->theta_bar ? td_tableau_dense_slope(x->m, b->theta[j], w) : 0;
    for (int i = 0; i < n; i++) needed[i] |= w[i] != 0;
  }
  mark_needed(x, needed);
  cotangents g;
  status = cotangents_new(&g, s, x, b->hbar || b->theta_bar);
  uint64_t number = s->number * (uint64_t)x->end;
  td_field_hold_at(s->f, number, 0);
  if (!status) status = replay(s, x, needed, b->held && !b->hbar && !b->theta_bar);
  if (!status) {
    if (b->hbar) *b->hbar += along(s, x, &x->b, b->lambda);
    if (b->ndense) spread(s, &g, &x->b, s->end - s->t, b->lambda);  /* before λ takes the values' cotangents */
    back_dense(s, x, b, &g);
    status = back_stages(s, x, b, &g, b->ndense ? NULL : b->lambda);
  }
  td_field_forget(s->f);
  td_field_hold_until(s->f, number + 1);  /* the first one is the last stage of the step before */
  td_free(g.block, g.bytes);
  return status;
}

/* ---- The step on the tape ---- */

/* The time of stage i as a tensor. */
static td_tensor *time_tensor(const td_stepper *s, const explicit *x, const td_step_record *r, int i) {
  double time = time_of(s, x, i);
  if (!r->t) return td_auto(td_tensor_number(TD_F64, time, false));
  if (i == 0) return s->first_time == s->t ? r->t : td_add(r->t, td_num(s->first_time - s->t));
  return time == s->end ? r->end : td_add(r->t, td_mul(r->h, td_num(x->c[i])));
}

/* y + h Σ w[i] k[i]; y itself when there is nothing but zeros in w. */
static td_tensor *moved(const td_stepper *s, const td_step_record *r, const row *w, td_tensor *const *k) {
  double coef[TD_MAX_STAGES + 1] = {1};
  td_tensor *parts[TD_MAX_STAGES + 1] = {r->y};
  for (int i = 0; i < w->count; i++) {
    coef[1 + i] = r->h ? w->w[i] : (s->end - s->t) * w->w[i];
    parts[1 + i] = k[w->at[i]];
  }
  if (w->count == 0) return r->y;
  if (!r->h) return td_lincomb(w->count + 1, coef, parts);
  return td_add(r->y, td_mul(td_lincomb(w->count, coef + 1, parts + 1), r->h));
}

static td_tensor *recorded_slope(td_stepper *s, td_tensor *t, td_tensor *y) {
  td_tensor *dy = NULL;
  if (!t || !y) return NULL;
  s->counts->nfe++;
  return td_field_record(s->f, t, y, &dy) ? NULL : td_auto(dy);
}

/* y(θ), where θ moves by shift. */
static td_tensor *recorded_value(const td_stepper *s, const explicit *x, const td_step_record *r, size_t i,
                                 td_tensor *const *k) {
  double w[TD_MAX_STAGES], dw[TD_MAX_STAGES];
  row values = row_of(w, td_tableau_dense(x->m, r->theta[i], w));
  td_tensor *shift = r->shift ? r->shift[i] : NULL;
  if (!shift) return moved(s, r, &values, k);
  int n = td_tableau_dense_slope(x->m, r->theta[i], dw);
  td_tensor *sum = td_add(td_lincomb(n, w, k), td_mul(td_lincomb(n, dw, k), shift));
  return td_add(r->y, td_mul(sum, r->h));
}

static td_status record(td_stepper *s, td_step_record *r) {
  const explicit *x = table_of(s);
  td_tensor *k[TD_MAX_STAGES] = {NULL};
  for (int i = 0; i < x->stages; i++) {
    if (i == x->end) continue;  /* belongs to the next step */
    k[i] = recorded_slope(s, time_tensor(s, x, r, i), moved(s, r, &x->a[i], k));
    if (!k[i]) return td_last_status();
  }
  r->y1 = moved(s, r, &x->b, k);
  for (int i = x->end; i < x->width && r->ndense && r->y1; i++) {
    k[i] = recorded_slope(s, time_tensor(s, x, r, i), i == x->end ? r->y1 : moved(s, r, &x->a[i], k));
    if (!k[i]) return td_last_status();
  }
  if (!r->y1) return td_last_status();
  for (size_t i = 0; i < r->ndense; i++)
    if (!(r->dense[i] = recorded_value(s, x, r, i, k))) return td_last_status();
  return TD_OK;
}

const td_family td_family_explicit = {
  .name = "explicit Runge–Kutta", .make = make, .free = release, .step = step, .dense = dense, .back = back,
  .describe = describe, .record = record,
};
