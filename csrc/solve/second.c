/* Gradients of methods that depend on the Jacobian (Rosenbrock) need derivatives of sums of wᵀ∂f/∂y u. Each w costs a
 * reverse pass over f that is itself recorded, so when the state has fewer elements than there are terms, the sum is
 * written with the unit vectors instead: Σₖ wₖᵀ J uₖ = Σᵢ eᵢᵀ J (Σₖ wₖ[i] uₖ). */
#include "solve/second.h"
#include <string.h>
#include "base/alloc.h"
#include "graph/tape.h"
#include "ops/ops.h"
#include "solve/implicit.h"

td_status td_second_pull(td_tensor *dy, td_tensor *t, td_tensor *y, size_t count, td_tensor *const *w,
                         td_tensor *const *u, td_tensor *const *v, td_tensor *const *in, int nin, td_tensor **grad) {
  td_tensor *out[2 * TD_SECOND_MOST], *bar[2 * TD_SECOND_MOST], *by[2] = {y, t};
  int n = 0;
  bool was = td_recording;
  td_status s = TD_OK;
  td_recording = true;
  for (size_t k = 0; k < count && !s; k++) {
    td_tensor *cotangent = w[k], *g[2] = {NULL, NULL};
    s = td_backward(&dy, &cotangent, 1, by, 2, g, TD_CREATE_GRAPH | TD_STOP_AT_INPUTS);
    for (int i = 0; i < 2; i++) td_auto(g[i]);
    for (int i = 0; i < 2 && !s; i++) {
      td_tensor *along = i ? v[k] : u[k];
      if (!g[i] || !g[i]->node || !along) continue;  /* f does not depend on it, or only linearly */
      out[n] = g[i];
      bar[n++] = along;
    }
  }
  td_recording = was;
  return s || n == 0 ? s : td_backward(out, bar, n, in, nin, grad, TD_STOP_AT_INPUTS);
}

/* ---- Of one row, on the tape ---- */

/* The arguments of td_implicit_second. */
typedef struct {
  td_stepper *s;
  double t;
  const void *state;
  const td_field_second *sum;
  double *ybar, *tbar;
  td_tensor **dexternal;
} second_call;

/* A tensor of the state's shape and type; automatic. */
static td_tensor *like_state(const td_field *f, const double *x) {
  td_tensor *t = td_auto(td_tensor_new(f->dtype, f->ndim, f->shape));
  for (size_t i = 0; t && i < f->numel; i++) td_tensor_set(t, i, x[i]);
  return t;
}

static td_status take(second_call *c, td_tensor *const *grad, size_t ne) {
  td_tensor *flat = grad[0] ? td_auto(td_tensor_contiguous(grad[0])) : NULL;
  td_status status = grad[0] && !flat ? td_last_status() : TD_OK;
  for (size_t i = 0; flat && i < c->s->n; i++) c->ybar[i] += td_tensor_get(flat, i);
  if (grad[1] && c->tbar) *c->tbar += td_tensor_get(grad[1], 0);
  for (size_t i = 0; i < ne && !status; i++) status = td_field_add(&c->dexternal[i], grad[2 + i]);
  return status;
}

static td_status pull_recorded(second_call *c, td_tensor *dy, td_tensor *t, td_tensor *y) {
  td_field *f = c->s->f;
  size_t ne = c->dexternal ? f->nexternals : 0, nin = 2 + ne, n = f->numel;
  td_tensor *w[TD_SECOND_MOST], *u[TD_SECOND_MOST], *v[TD_SECOND_MOST];
  for (size_t k = 0; k < c->sum->count; k++) {
    if (c->sum->units) {
      w[k] = td_auto(td_tensor_zeros(f->dtype, f->ndim, f->shape));
      if (w[k]) td_tensor_set(w[k], k, 1);
    } else {
      w[k] = like_state(f, c->sum->w + k * n);
    }
    u[k] = like_state(f, c->sum->u + k * n);
    v[k] = td_auto(td_tensor_number(TD_F64, c->sum->v[k], false));
    if (!w[k] || !u[k] || !v[k]) return td_last_status();
  }
  td_tensor **in = td_alloc(2 * nin * sizeof *in), **grad = in + nin;
  if (!in) return td_last_status();
  in[0] = y;
  in[1] = t;
  for (size_t i = 0; i < nin; i++) grad[i] = NULL;
  for (size_t i = 0; i < ne; i++) in[2 + i] = f->externals[i];
  td_status status = td_second_pull(dy, t, y, c->sum->count, w, u, v, in, (int)nin, grad);
  if (!status) status = take(c, grad, ne);
  for (size_t i = 0; i < nin; i++) td_tensor_release(grad[i]);
  td_free(in, 2 * nin * sizeof *in);
  return status;
}

static td_status second_here(void *data) {
  second_call *c = data;
  td_field *f = c->s->f;
  size_t mark = td_auto_mark();
  bool was = td_recording;
  td_tensor *y = td_auto(td_tensor_new(f->dtype, f->ndim, f->shape)),
            *t = td_auto(td_tensor_number(TD_F64, c->t, false));
  td_tensor *dy = NULL;
  td_status status = y && t ? TD_OK : td_last_status();
  td_recording = true;
  if (!status && c->s->bytes) memcpy(y->data, c->state, c->s->bytes);
  if (!status) status = td_requires_grad(y, true);
  if (!status) status = td_requires_grad(t, true);
  if (!status) status = td_field_record(f, t, y, &dy);
  td_auto(dy);
  td_recording = was;
  if (!status && dy->node) status = pull_recorded(c, dy, t, y);
  td_auto_release(mark);
  return status;
}

/* The sum of a method's terms, with the unit vectors when these are fewer; `room` has 2·count·(n + 1) numbers. */
static td_field_second sum_of(size_t n, size_t count, const double *w, const double *u, const double *wt,
                              double *room) {
  size_t passes = count + (wt != NULL);
  td_field_second sum = {.count = n < passes ? n : passes, .units = n < passes};
  double *su = room, *sv = su + sum.count * n, *sw = sv + sum.count;
  memset(su, 0, sum.count * (n + 1) * sizeof *su);
  sum.u = su;
  sum.v = sv;
  for (size_t i = 0; i < n && sum.units; i++) {
    for (size_t k = 0; k < count; k++) td_add_multiple(n, su + i * n, w[k * n + i], u + k * n);
    if (wt) sv[i] = wt[i];
  }
  if (sum.units) return sum;
  memcpy(su, u, count * n * sizeof *su);
  memcpy(sw, w, count * n * sizeof *sw);
  sum.w = sw;
  if (wt) {
    sv[count] = 1;
    memcpy(sw + count * n, wt, n * sizeof *sw);
  }
  return sum;
}

td_status td_implicit_second(td_implicit *m, td_stepper *s, double t, const double *y, size_t count, const double *w,
                             const double *u, const double *wt, double *ybar, double *tbar, td_tensor **dexternal) {
  size_t numbers = (count + 1) * (2 * s->n + 1);
  double *room = td_alloc(numbers * sizeof *room);
  if (!room) return td_last_status();
  td_field_second sum = sum_of(s->n, count, w, u, wt, room);
  td_implicit_narrow(s, y, m->state);
  s->counts->nfe++;
  td_status status;
  if (s->f->second) {
    status = s->f->second(s->f, t, m->state, &sum, ybar, tbar, dexternal);
  } else {
    second_call c = {s, t, m->state, &sum, ybar, tbar, dexternal};
    status = s->f->elsewhere ? s->f->elsewhere(s->f, second_here, &c) : second_here(&c);
  }
  td_free(room, numbers * sizeof *room);
  return status;
}
