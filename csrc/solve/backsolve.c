/* The continuous adjoint: the state y, its cotangent a and the parameters' gradients are integrated together
 * from each save time back to the one before, y starting anew from the saved value. Memory does not grow
 * with the number of steps; the gradient is as accurate as the backward solve, and wrong where y cannot be
 * integrated backwards. `frozen` holds a at its end value. Chen, Rubanova, Bettencourt, Duvenaud 2018, with
 * the seminorm of Kidger, Chen, Lyons 2021. */
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"
#include "solve/sweep.h"

/* The field over the flat state [y, a, dL/dθ…]: y' = f, a' = −aᵀ∂f/∂y, (dL/dθ)' = −aᵀ∂f/∂θ. */
typedef struct {
  td_field field;
  const td_ode_recorded *r;
  const td_tensor *like;  /* a tensor of the state's shape */
} adjoint_field;

/* Part of the flat state as a tensor of like's shape, automatic. */
static td_tensor *part_of(const td_tensor *flat, size_t offset, const td_tensor *like) {
  size_t stride[TD_MAX_DIMS];
  td_strides(like->ndim, like->shape, stride);
  return td_auto(td_tensor_view(flat, like->ndim, like->shape, stride, offset));
}

static td_status put(td_tensor *flat, size_t offset, const td_tensor *like, td_tensor *x) {
  td_tensor *to = part_of(flat, offset, like);
  return to && x ? td_tensor_copy(to, x) : td_last_status();
}

/* part = −x; NULL is zero. */
static td_status put_negative(td_tensor *flat, size_t offset, const td_tensor *like, td_tensor *x) {
  td_tensor *to = part_of(flat, offset, like);
  if (!to) return td_last_status();
  return x ? put(flat, offset, like, td_neg(x)) : td_tensor_fill(to, 0);
}

/* f(t, y) into *dy, and into grads aᵀ∂f/∂y and aᵀ∂f/∂θ…, NULL where f does not depend on it; all
 * automatic. */
static td_status products(const adjoint_field *a, td_tensor *t, td_tensor *y, td_tensor *cotangent,
                          td_tensor **dy, td_tensor **inputs, td_tensor **grads) {
  const td_ode_recorded *r = a->r;
  int n = 1 + (int)r->nexternals;
  inputs[0] = y;
  for (int i = 1; i < n; i++) inputs[i] = r->externals[i - 1];
  for (int i = 0; i < n; i++) grads[i] = NULL;
  uint64_t since = td_tape_now();
  if (td_requires_grad(y, true)) return td_last_status();
  bool was = td_recording;
  td_recording = true;
  *dy = td_sweep_eval(r, t, y);
  td_recording = was;
  if (!*dy) return td_last_status();
  if (!(*dy)->node) return TD_OK;
  td_status s = td_sweep_check(r, dy, 1, since, td_tensor_get(t, 0));
  if (!s) s = td_backward(dy, &cotangent, 1, inputs, n, grads, TD_STOP_AT_INPUTS);
  for (int i = 0; i < n; i++) td_auto(grads[i]);
  return s;
}

/* The flat derivative from its parts. */
static td_status assemble(const adjoint_field *a, td_tensor *dflat, td_tensor *dy, td_tensor **grads) {
  size_t n = a->like->numel, offset = 2 * n;
  td_status s = put(dflat, 0, a->like, dy);
  if (!s) s = put_negative(dflat, n, a->like, a->r->mode == TD_ODE_FROZEN ? NULL : grads[0]);
  for (size_t i = 0; i < a->r->nexternals && !s; i++) {
    s = put_negative(dflat, offset, a->r->externals[i], grads[1 + i]);
    offset += a->r->externals[i]->numel;
  }
  return s;
}

static td_status adjoint_eval(td_field *self, td_tensor *t, td_tensor *flat, td_tensor **dflat) {
  adjoint_field *a = (adjoint_field *)self;
  size_t mark = td_auto_mark(), nin = 1 + a->r->nexternals;
  td_tensor **inputs = td_alloc(2 * nin * sizeof *inputs), **grads = inputs + nin, *dy = NULL;
  if (!inputs) return td_last_status();
  td_tensor *y = part_of(flat, 0, a->like), *cotangent = part_of(flat, a->like->numel, a->like);
  td_status s = y && cotangent ? products(a, t, y, cotangent, &dy, inputs, grads) : td_last_status();
  if (!s && !(*dflat = td_tensor_new(flat->dtype, 1, flat->shape))) s = td_last_status();
  if (!s) s = assemble(a, *dflat, dy, grads);
  if (s) {
    td_tensor_release(*dflat);
    *dflat = NULL;
  }
  td_free(inputs, 2 * nin * sizeof *inputs);
  td_auto_release(mark);
  return s;
}

/* *sum += sign·⟨a, f(t, y)⟩ */
static td_status add_time_slope(const td_ode_recorded *r, double time, td_tensor *y, td_tensor *a,
                                double sign, double *sum) {
  td_tensor *t = td_auto(td_tensor_number(TD_F64, time, false));
  td_tensor *dy = t && y && a ? td_sweep_eval(r, t, y) : NULL;
  td_tensor *dot = dy ? td_sum(td_mul(a, dy), 0, false) : NULL;
  if (!dot) return td_last_status();
  *sum += sign * td_tensor_get(dot, 0);
  return TD_OK;
}

static td_status integrate_back(const td_sweep *w, adjoint_field *a, td_tensor *flat, double from,
                                double to) {
  td_ode_solution back;
  td_ode_options o = w->r->adjoint;
  o.norm_count = w->r->seminorm ? 2 * a->like->numel : 0;
  td_status s = td_ode_integrate(&a->field, flat, (const double[]){from, to}, 2, &o, &back);
  if (!s && back.status != TD_ODE_OK)
    s = td_fail(TD_ESOLVE, "ode.solve: the backward solve failed: %s; loosen adjoint_rtol, or use "
                "grad = \"discrete\"", back.message);
  if (!s) s = td_tensor_copy(flat, td_sweep_row(back.ys, 1));
  td_ode_solution_free(&back);
  return s;
}

/* From save time i to save time i − 1. */
static td_status segment_back(td_sweep *w, adjoint_field *a, td_tensor *flat, size_t i) {
  const td_ode_recorded *r = w->r;
  td_tensor *y = td_sweep_row(r->solution.ys, i), *seed = td_sweep_row(w->dys, i);
  td_tensor *cotangent = part_of(flat, a->like->numel, a->like);
  if (!y || !seed || !cotangent) return td_last_status();
  td_status s = put(flat, 0, a->like, y);
  if (!s && w->dtimes) s = add_time_slope(r, r->ts[i], y, seed, 1, &w->dtimes[i]);
  if (!s) s = put(flat, a->like->numel, a->like, td_add(cotangent, seed));
  if (!s && r->ts[i] != r->ts[i - 1]) s = integrate_back(w, a, flat, r->ts[i], r->ts[i - 1]);
  return s;
}

/* The flat state at the first time, into the sweep. */
static td_status take_apart(td_sweep *w, const td_tensor *flat, const td_tensor *like) {
  td_status s = td_sweep_add(&w->lambda, td_auto(td_tensor_clone(part_of(flat, like->numel, like))));
  size_t offset = 2 * like->numel;
  for (size_t i = 0; i < w->r->nexternals && !s; i++) {
    const td_tensor *e = w->r->externals[i];
    s = td_sweep_add(&w->dexternal[i], td_auto(td_tensor_clone(part_of(flat, offset, e))));
    offset += e->numel;
  }
  return s;
}

td_status td_sweep_backsolve(td_sweep *w) {
  const td_ode_recorded *r = w->r;
  td_tensor *y0 = td_sweep_row(r->solution.ys, 0), *seed = td_sweep_row(w->dys, 0);
  if (!y0 || !seed) return td_last_status();
  size_t total = 2 * y0->numel;
  for (size_t i = 0; i < r->nexternals; i++) total += r->externals[i]->numel;
  td_tensor *flat = td_auto(td_tensor_zeros(y0->dtype, 1, &total));
  if (!flat) return td_last_status();
  adjoint_field a = {.field = {.eval = adjoint_eval, .who = "ode.solve"}, .r = r, .like = y0};
  td_status s = TD_OK;
  for (size_t i = r->nt; i-- > 1 && !s;) {
    size_t mark = td_auto_mark();
    s = segment_back(w, &a, flat, i);
    td_auto_release(mark);
  }
  if (!s && w->dtimes)
    s = add_time_slope(r, r->ts[0], y0, part_of(flat, y0->numel, y0), -1, &w->dtimes[0]);
  if (!s) s = take_apart(w, flat, y0);
  return s ? s : td_sweep_add(&w->lambda, seed);
}
