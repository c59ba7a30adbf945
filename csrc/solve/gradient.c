/* The reverse pass of a recorded solve.
 *
 * `discrete` is the exact derivative of the computed map on its frozen grid: the accepted steps are replayed from
 * their kept starts, newest first, each on a tape of its own that lives for that step alone. The step-size control is not
 * differentiated; the last step's size depends on t1 and the first one's on t0. A recorded pass (second derivatives)
 * replays the whole grid on one tape and differentiates that. */
#include "solve/gradient.h"
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"

/* ---- Replaying a step on the tape ---- */

/* One step of the grid. t and h are 0-d float64 tensors when times are differentiated, else NULL. */
typedef struct {
  const td_ode_recorded *r;
  double t0, t1, size;
  td_tensor *y, *t, *h;
  td_tensor *k[TD_MAX_STAGES + 1];
} replay;

static double step_end(const td_ode_recorded *r, size_t n) {
  return n + 1 < r->solution.nsteps ? r->solution.steps[n + 1].t : r->solution.stats.t_last;
}

/* f at t + c·h, automatic and on the tape. */
static td_tensor *slope(replay *p, double c, double time, td_tensor *y) {
  td_tensor *t = p->t ? td_add(p->t, td_mul(p->h, td_num(c))) : td_auto(td_tensor_number(TD_F64, time, false));
  td_tensor *dy = NULL;
  if (!t || !y || td_field_eval(&p->r->f->field, t, y, &dy)) return NULL;
  if (p->r->nfe_backward) ++*p->r->nfe_backward;
  return td_auto(dy);
}

/* y + h Σ w[i] k[i] */
static td_tensor *moved(replay *p, const double *w, int n) {
  double coef[TD_MAX_STAGES + 2] = {1};
  td_tensor *x[TD_MAX_STAGES + 2] = {p->y};
  if (p->h) {
    td_tensor *sum = td_lincomb(n, w, p->k);
    return td_add(p->y, td_mul(sum, p->h));
  }
  for (int i = 0; i < n; i++) {
    coef[1 + i] = p->size * w[i];
    x[1 + i] = p->k[i];
  }
  return td_lincomb(n + 1, coef, x);
}

/* Is there anything but zeros in w? The weights of a first stage are not. */
static td_tensor *stage_state(replay *p, const double *w, int n) {
  bool any = false;
  for (int i = 0; i < n; i++) any |= w[i] != 0;
  return any ? moved(p, w, n) : p->y;
}

/* The stages that y1 needs, and y1; the last stage of an FSAL method belongs to the next step. */
static td_tensor *replay_step(replay *p) {
  const td_tableau *m = p->r->o.method;
  int stages = m->stages - (m->fsal ? 1 : 0);
  for (int i = 0; i < stages; i++) {
    double c = td_tableau_c(m, i), time = fabs(c - 1) < 1e-14 ? p->t0 + p->size : p->t0 + c * p->size;
    p->k[i] = slope(p, c, time, stage_state(p, m->a[i], i));
    if (!p->k[i]) return NULL;
  }
  return moved(p, m->b, stages);
}

/* The value at save time `at` inside the step. When times are differentiated, `save` is that time as a tensor: the weights'
 * dependence on it enters to first order, which is all that a derivative sees. */
static td_tensor *replay_between(replay *p, td_tensor *y1, double at, td_tensor *save) {
  const td_tableau *m = p->r->o.method;
  double w[TD_MAX_STAGES + 1], dw[TD_MAX_STAGES + 1], theta = (at - p->t0) / p->size;
  int n = td_tableau_dense(m, theta, w), last = m->fsal ? m->stages - 1 : m->stages;
  if (n > last && !p->k[last]) {
    p->k[last] = slope(p, 1, p->t1, y1);
    if (!p->k[last]) return NULL;
  }
  if (!p->h) return moved(p, w, n);
  td_tableau_dense_slope(m, theta, dw);
  td_tensor *shift = td_sub(td_div(td_sub(save, p->t), p->h), td_num(theta));
  td_tensor *sum = td_add(td_lincomb(n, w, p->k), td_mul(td_lincomb(n, dw, p->k), shift));
  return td_add(p->y, td_mul(sum, p->h));
}

/* Is save time j simply the step's end? When times are differentiated only the solve's own end is: another one that falls
 * on a node moves along the extension, whose nodes stay. */
static bool is_end(const replay *p, size_t j, bool times) {
  const td_ode_recorded *r = p->r;
  return r->ts[j] == p->t1 && (!times || r->ts[j] == r->ts[r->nt - 1]);
}

/* ---- discrete ---- */

/* The reverse sweep's state: cotangents of y at the step's end, of times and of externals. */
typedef struct {
  const td_ode_recorded *r;
  td_tensor *dys;                 /* times×state, contiguous */
  td_tensor *const *externals;
  size_t nexternals, next;        /* next: save times not yet passed */
  td_tensor *lambda, **dexternal; /* owned */
  double *dtimes;                 /* NULL unless wanted */
} sweep;

static td_tensor *row_of(const td_tensor *rows, size_t i) {
  size_t n = rows->shape[0] ? rows->numel / rows->shape[0] : 0;
  return td_auto(td_tensor_view(rows, rows->ndim - 1, rows->shape + 1, rows->stride + 1, i * n));
}

/* *sum += x, either may be NULL. */
static td_status add_to(td_tensor **sum, td_tensor *x) {
  if (!x) return TD_OK;
  td_tensor *total = *sum ? td_add(*sum, x) : x;
  if (!total) return td_last_status();
  td_tensor_retain(total);
  td_tensor_release(*sum);
  *sum = total;
  return TD_OK;
}

/* Every tensor on which the step depends must be known, or its gradient would be lost. */
static td_status check_externals(const sweep *s, td_tensor **outputs, int n, uint64_t since, double t) {
  td_tensor **found;
  size_t count, capacity;
  td_status status = td_tape_externals(outputs, n, since, &found, &count, &capacity);
  for (size_t i = 0; i < count; i++) {
    bool known = false;
    for (size_t j = 0; j < s->nexternals && !known; j++)
      known = found[i]->node == s->externals[j]->node && found[i]->slot == s->externals[j]->slot;
    if (!known && !status)
      status = td_fail(TD_EGRAD, "ode: at t=%g the right-hand side uses a tensor of shape (%s) that needs a gradient, "
                       "but not at the start; name it in the option params", t, td_tensor_shape_string(found[i]));
    td_tensor_release(found[i]);
  }
  td_free(found, capacity * sizeof *found);
  return status;
}

static td_tensor *leaf_number(double v) {
  td_tensor *t = td_auto(td_tensor_number(TD_F64, v, false));
  return t && !td_requires_grad(t, true) ? t : NULL;
}

/* One step back: lambda at its end becomes lambda at its start. */
static td_status step_back(sweep *s, size_t n) {
  const td_ode_recorded *r = s->r;
  const td_ode_step *step = &r->solution.steps[n];
  replay p = {.r = r, .t0 = step->t, .t1 = step_end(r, n), .size = step->h};
  double direction = step->h > 0 ? 1 : -1;
  size_t last = s->next;  /* saves last-1, last-2, … lie in this step */
  while (s->next > 1 && direction * (r->ts[s->next - 1] - step->t) > 0) s->next--;
  size_t nsaves = last - s->next, width = nsaves + 1;
  td_tensor **work = td_alloc((2 * width + nsaves + s->nexternals + 3) * 2 * sizeof *work);
  if (!work) return td_last_status();
  td_tensor **outputs = work, **cotangents = outputs + width, **saves = cotangents + width,
            **inputs = saves + nsaves, **grads = inputs + s->nexternals + nsaves + 3;
  uint64_t since = td_tape_now();
  bool was = td_recording;
  td_recording = true;
  td_status status = TD_OK;
  int nout = 0, nin = 0;
  p.y = td_auto(td_tensor_alias(step->y));
  if (!p.y || td_requires_grad(p.y, true)) status = td_last_status();
  if (!status && s->dtimes && (!(p.t = leaf_number(step->t)) || !(p.h = leaf_number(step->h)))) status = td_last_status();
  td_tensor *y1 = status ? NULL : replay_step(&p);
  if (!y1) status = td_last_status();
  for (size_t j = s->next; j < last && !status; j++) {
    td_tensor *w = row_of(s->dys, j);
    saves[j - s->next] = NULL;
    if (is_end(&p, j, s->dtimes != NULL)) {
      status = add_to(&s->lambda, w);
      continue;
    }
    if (s->dtimes) saves[j - s->next] = leaf_number(r->ts[j]);
    outputs[nout] = replay_between(&p, y1, r->ts[j], saves[j - s->next]);
    cotangents[nout] = w;
    if (!outputs[nout]) status = td_last_status();
    else nout++;
  }
  td_recording = was;
  if (!status && s->lambda) {
    outputs[nout] = y1;
    cotangents[nout++] = s->lambda;
  }
  if (!status && nout) status = check_externals(s, outputs, nout, since, step->t);
  if (!status && nout) {
    inputs[nin++] = p.y;
    for (size_t i = 0; i < s->nexternals; i++) inputs[nin++] = s->externals[i];
    if (s->dtimes) {
      inputs[nin++] = p.t;
      inputs[nin++] = p.h;
      for (size_t j = 0; j < nsaves; j++) inputs[nin++] = saves[j] ? saves[j] : p.h;
    }
    status = td_backward(outputs, cotangents, nout, inputs, nin, grads, TD_STOP_AT_INPUTS);
    if (!status) {
      td_tensor_release(s->lambda);
      s->lambda = td_tensor_retain(grads[0]);
      for (size_t i = 0; i < s->nexternals && !status; i++) status = add_to(&s->dexternal[i], grads[1 + i]);
      if (s->dtimes) {
        size_t at = 1 + s->nexternals;
        double dt = grads[at] ? td_tensor_get(grads[at], 0) : 0, dh = grads[at + 1] ? td_tensor_get(grads[at + 1], 0) : 0;
        if (n == 0) s->dtimes[0] += dt - dh;
        if (n + 1 == r->solution.nsteps) s->dtimes[r->nt - 1] += dh;
        for (size_t j = 0; j < nsaves; j++)
          if (saves[j] && grads[at + 2 + j]) s->dtimes[s->next + j] += td_tensor_get(grads[at + 2 + j], 0);
      }
    }
    for (int i = 0; i < nin; i++) td_tensor_release(grads[i]);
  }
  td_free(work, (2 * width + nsaves + s->nexternals + 3) * 2 * sizeof *work);
  return status;
}

/* ---- backsolve ---- */

/* The field of the continuous adjoint over the flat state [y, a, dL/dθ…], integrated from a later to an earlier time:
 * y' = f, a' = −aᵀ∂f/∂y, (dL/dθ)' = −aᵀ∂f/∂θ. */
typedef struct {
  td_field field;
  const td_ode_recorded *r;
  td_tensor *const *externals;
  size_t nexternals;
  const td_tensor *like;  /* a tensor of the state's shape */
  td_field *f;
} adjoint_field;

/* Part of the flat state as a tensor of like's shape, automatic. */
static td_tensor *part_of(const td_tensor *flat, size_t offset, const td_tensor *like) {
  size_t stride[TD_MAX_DIMS];
  td_strides(like->ndim, like->shape, stride);
  return td_auto(td_tensor_view(flat, like->ndim, like->shape, stride, offset));
}

/* part = −x, or zeros. */
static td_status put_negative(td_tensor *flat, size_t offset, const td_tensor *like, td_tensor *x) {
  td_tensor *to = part_of(flat, offset, like);
  if (!to) return td_last_status();
  return x ? td_tensor_copy(to, td_neg(x)) : td_tensor_fill(to, 0);
}

static td_status adjoint_eval(td_field *self, td_tensor *t, td_tensor *flat, td_tensor **dflat) {
  adjoint_field *a = (adjoint_field *)self;
  size_t n = a->like->numel, mark = td_auto_mark(), nin = 1 + a->nexternals;
  td_tensor **work = td_alloc(2 * nin * sizeof *work), **grads = work + nin;
  if (!work) return td_last_status();
  td_tensor *y = part_of(flat, 0, a->like), *cotangent = part_of(flat, n, a->like), *dy = NULL;
  uint64_t since = td_tape_now();
  td_status s = y && cotangent ? td_requires_grad(y, true) : td_last_status();
  bool was = td_recording;
  td_recording = true;
  if (!s) s = td_field_eval(a->f, t, y, &dy);
  td_recording = was;
  td_auto(dy);
  if (a->r->nfe_backward) ++*a->r->nfe_backward;
  sweep known = {.externals = a->externals, .nexternals = a->nexternals};
  if (!s && dy->node) s = check_externals(&known, &dy, 1, since, td_tensor_get(t, 0));
  memset(work, 0, 2 * nin * sizeof *work);
  if (!s && dy->node) {
    work[0] = y;
    for (size_t i = 0; i < a->nexternals; i++) work[1 + i] = a->externals[i];
    s = td_backward(&dy, &cotangent, 1, work, (int)nin, grads, TD_STOP_AT_INPUTS);
    for (size_t i = 0; i < nin; i++) td_auto(grads[i]);
  }
  td_recording = false;
  if (!s) *dflat = td_tensor_new(flat->dtype, 1, flat->shape);
  if (!s && !*dflat) s = td_last_status();
  if (!s) s = td_tensor_copy(part_of(*dflat, 0, a->like), dy);
  if (!s) s = put_negative(*dflat, n, a->like, a->r->mode == TD_ODE_FROZEN ? NULL : grads[0]);
  size_t offset = 2 * n;
  for (size_t i = 0; i < a->nexternals && !s; i++) {
    s = put_negative(*dflat, offset, a->externals[i], grads[1 + i]);
    offset += a->externals[i]->numel;
  }
  td_recording = was;
  if (s) {
    td_tensor_release(*dflat);
    *dflat = NULL;
  }
  td_free(work, 2 * nin * sizeof *work);
  td_auto_release(mark);
  return s;
}

/* ⟨a, f(t, y)⟩ */
static td_status time_slope(const td_ode_recorded *r, double time, td_tensor *y, td_tensor *a, double *out) {
  td_tensor *t = td_auto(td_tensor_number(TD_F64, time, false)), *dy = NULL;
  td_status s = t ? td_field_eval(&r->f->field, t, y, &dy) : td_last_status();
  td_auto(dy);
  td_tensor *dot = s ? NULL : td_sum(td_mul(a, dy), 0, false);
  if (!dot) return td_last_status();
  *out = td_tensor_get(dot, 0);
  return TD_OK;
}

/* From save point i to save point i − 1, starting again from the saved state. */
static td_status segment_back(sweep *w, adjoint_field *a, td_tensor *flat, size_t i) {
  const td_ode_recorded *r = w->r;
  size_t n = a->like->numel;
  td_status s = td_tensor_copy(part_of(flat, 0, a->like), row_of(r->solution.ys, i));
  td_tensor *cotangent = part_of(flat, n, a->like), *seed = row_of(w->dys, i);
  double slope_here = 0;
  if (!s && w->dtimes) s = time_slope(r, r->ts[i], part_of(flat, 0, a->like), seed, &slope_here);
  if (!s && w->dtimes) w->dtimes[i] += slope_here;
  if (!s) s = td_tensor_copy(cotangent, td_add(cotangent, seed));
  if (s || r->ts[i] == r->ts[i - 1]) return s;
  td_ode_solution back;
  td_ode_options o = r->adjoint;
  o.norm_count = r->seminorm ? 2 * n : 0;
  o.keep = false;
  s = td_ode_integrate(&a->field, flat, (const double[]){r->ts[i], r->ts[i - 1]}, 2, &o, &back);
  if (!s && back.status != TD_ODE_OK)
    s = td_fail(TD_ESOLVE, "ode: the backward solve failed: %s; loosen adjoint_rtol, or use grad = \"discrete\"", back.message);
  if (!s) s = td_tensor_copy(flat, row_of(back.ys, 1));
  td_ode_solution_free(&back);
  return s;
}

static td_status backsolve(sweep *w) {
  const td_ode_recorded *r = w->r;
  td_tensor *like = row_of(r->solution.ys, 0);
  if (!like) return td_last_status();
  size_t total = 2 * like->numel;
  for (size_t i = 0; i < w->nexternals; i++) total += w->externals[i]->numel;
  td_tensor *flat = td_auto(td_tensor_zeros(like->dtype, 1, &total));
  if (!flat) return td_last_status();
  adjoint_field a = {.field = {.eval = adjoint_eval}, .r = r, .externals = w->externals, .nexternals = w->nexternals,
                     .like = like, .f = &r->f->field};
  td_status s = TD_OK;
  for (size_t i = r->nt; i-- > 1 && !s;) {
    size_t mark = td_auto_mark();
    s = segment_back(w, &a, flat, i);
    td_auto_release(mark);
  }
  double slope_here = 0;
  if (!s && w->dtimes) s = time_slope(r, r->ts[0], row_of(r->solution.ys, 0), part_of(flat, like->numel, like), &slope_here);
  if (!s && w->dtimes) w->dtimes[0] -= slope_here;
  if (!s) s = add_to(&w->lambda, td_auto(td_tensor_clone(part_of(flat, like->numel, like))));
  size_t offset = 2 * like->numel;
  for (size_t i = 0; i < w->nexternals && !s; i++) {
    s = add_to(&w->dexternal[i], td_auto(td_tensor_clone(part_of(flat, offset, w->externals[i]))));
    offset += w->externals[i]->numel;
  }
  return s;
}

/* ---- The node's rule ---- */

enum { Y0 = 0, TIMES = 1, EXTERNALS = 2 };

static void reverse(td_rule *rule) {
  td_ode_recorded *r = rule->data;
  td_tensor *dys = td_auto(td_tensor_contiguous(rule->dout[0]));
  size_t ne = (size_t)rule->nin - EXTERNALS;
  sweep w = {.r = r, .dys = dys, .externals = rule->in + EXTERNALS, .nexternals = ne, .next = r->nt};
  td_tensor *times = rule->in[TIMES];
  w.dexternal = td_alloc((ne + 1) * sizeof *w.dexternal);
  if (rule->need[TIMES]) w.dtimes = td_alloc(r->nt * sizeof *w.dtimes);
  if (!dys || !w.dexternal) return;
  memset(w.dexternal, 0, (ne + 1) * sizeof *w.dexternal);
  if (w.dtimes) memset(w.dtimes, 0, r->nt * sizeof *w.dtimes);
  td_status s = TD_OK;
  if (r->mode == TD_ODE_DISCRETE) {
    for (size_t n = r->solution.nsteps; n-- > 0 && !s;) {
      size_t mark = td_auto_mark();
      s = step_back(&w, n);
      td_auto_release(mark);
    }
    for (size_t i = 0; i < w.next && !s; i++) s = add_to(&w.lambda, row_of(dys, i));  /* saves at t0 itself */
  } else {
    s = backsolve(&w);
    if (!s) s = add_to(&w.lambda, row_of(dys, 0));
  }
  if (!s) {
    rule->din[Y0] = td_auto(w.lambda);
    for (size_t i = 0; i < ne; i++) rule->din[EXTERNALS + i] = td_auto(w.dexternal[i]);
    td_tensor *dt = w.dtimes ? td_auto(td_tensor_new(TD_F64, 1, times->shape)) : NULL;
    for (size_t i = 0; dt && i < r->nt; i++) td_tensor_set(dt, i, w.dtimes[i]);
    rule->din[TIMES] = dt;
  }
  td_free(w.dexternal, (ne + 1) * sizeof *w.dexternal);
  if (w.dtimes) td_free(w.dtimes, r->nt * sizeof *w.dtimes);
}

/* The whole grid replayed on one tape: all saved rows, stacked. `y` and `times` are on the tape. */
static td_tensor *replay_all(const td_ode_recorded *r, td_tensor *y, td_tensor *times) {
  td_tensor **rows = td_alloc((r->nt + 1) * sizeof *rows), *out[TD_MAX_OUT] = {NULL};
  size_t next = 0, n = r->solution.nsteps;
  bool ok = rows != NULL;
  td_tensor *t0 = NULL, *t1 = NULL;
  if (ok && times) {
    t0 = td_do(&td_op_select, &(td_attrs){.i = {0, 0}}, 1, times);
    t1 = td_do(&td_op_select, &(td_attrs){.i = {0, (int64_t)r->nt - 1}}, 1, times);
  }
  for (; ok && next < r->nt && r->ts[next] == r->ts[0]; next++) rows[next] = y;
  for (size_t k = 0; ok && k < n; k++) {
    const td_ode_step *step = &r->solution.steps[k];
    replay p = {.r = r, .t0 = step->t, .t1 = step_end(r, k), .size = step->h, .y = y};
    if (times) {
      p.t = k == 0 ? t0 : td_auto(td_tensor_number(TD_F64, step->t, false));
      td_tensor *end = k + 1 == n ? t1 : td_auto(td_tensor_number(TD_F64, p.t1, false));
      p.h = td_sub(end, p.t);
    }
    td_tensor *y1 = replay_step(&p);
    ok = y1 != NULL;
    for (; ok && next < r->nt && (step->h > 0 ? r->ts[next] <= p.t1 : r->ts[next] >= p.t1); next++) {
      td_tensor *save = times ? td_do(&td_op_select, &(td_attrs){.i = {0, (int64_t)next}}, 1, times) : NULL;
      rows[next] = is_end(&p, next, times != NULL) ? y1 : replay_between(&p, y1, r->ts[next], save);
      ok = rows[next] != NULL;
    }
    y = y1;
  }
  for (size_t i = 0; ok && i < r->nt; i++) {
    rows[i] = td_do(&td_op_unsqueeze, &(td_attrs){.i = {0}}, 1, rows[i]);
    ok = rows[i] != NULL;
  }
  if (ok) td_do_all(&td_op_cat, &(td_attrs){.i = {0}}, (int)r->nt, rows, out);
  td_free(rows, (r->nt + 1) * sizeof *rows);
  return out[0];
}

/* Recording is on: the pass itself must be differentiable. */
static void reverse_recorded(td_rule *rule) {
  td_ode_recorded *r = rule->data;
  if (r->mode != TD_ODE_DISCRETE) {
    td_fail(TD_EGRAD, "ode: a second derivative of a solve needs grad = \"discrete\"");
    return;
  }
  td_tensor *identity[2] = {NULL, NULL};
  for (int i = 0; i < 2; i++) {
    identity[i] = rule->need[i] ? td_do(td_op_find("contiguous"), NULL, 1, rule->in[i]) : rule->in[i];
    if (!identity[i]) return;
  }
  size_t count = (size_t)rule->nin;
  td_tensor *ys = replay_all(r, identity[Y0], rule->need[TIMES] ? identity[TIMES] : NULL);
  td_tensor **work = ys ? td_alloc(2 * count * sizeof *work) : NULL, **grads = work + count;
  if (!work) return;
  size_t n = 0;
  size_t *place = td_alloc(count * sizeof *place);
  for (size_t i = 0; place && i < count; i++) {
    if (!rule->need[i]) continue;
    place[n] = i;
    work[n++] = i < 2 ? identity[i] : rule->in[i];
  }
  if (place && n && !td_backward(&ys, rule->dout, 1, work, (int)n, grads, TD_CREATE_GRAPH | TD_STOP_AT_INPUTS))
    for (size_t i = 0; i < n; i++) rule->din[place[i]] = td_auto(grads[i]);
  td_free(place, count * sizeof *place);
  td_free(work, 2 * count * sizeof *work);
}

static void ode_vjp(td_rule *rule) {
  if (td_recording) reverse_recorded(rule);
  else reverse(rule);
}

static const td_op ode_op = {.name = "ode.solve", .vjp = ode_vjp, .keep = TD_KEEP_IN(Y0) | TD_KEEP_IN(TIMES)};

void td_ode_recorded_free(void *recorded) {
  td_ode_recorded *r = recorded;
  if (!r) return;
  td_ode_solution_free(&r->solution);
  if (r->f) r->f->free(&r->f->field);
  td_free(r->ts, r->nt * sizeof *r->ts);
  if (r->nfe_free) r->nfe_free(r->nfe_owner);
  td_free(r, sizeof *r);
}

td_status td_ode_record(td_ode_recorded *r, td_tensor *y0, td_tensor *times, td_tensor *const *externals,
                        size_t nexternals) {
  td_tensor **in = td_alloc((EXTERNALS + nexternals) * sizeof *in), *ys = td_tensor_retain(r->solution.ys);
  if (!in) {
    td_ode_recorded_free(r);
    return td_last_status();
  }
  in[Y0] = y0;
  in[TIMES] = times;
  for (size_t i = 0; i < nexternals; i++) in[EXTERNALS + i] = externals[i];
  if (r->mode != TD_ODE_DISCRETE) {  /* the reverse pass reads the saved states: an alias, or the node would own itself */
    td_tensor *alias = td_tensor_alias(ys);
    td_tensor_release(r->solution.ys);
    r->solution.ys = alias;
  } else {
    td_tensor_release(r->solution.ys);
    r->solution.ys = NULL;
  }
  td_status s = td_tape_custom(&ode_op, in, (int)(EXTERNALS + nexternals), &ys, 1, r, td_ode_recorded_free);
  td_free(in, (EXTERNALS + nexternals) * sizeof *in);
  td_tensor_release(ys);
  return s;
}
