/* The doors to a right-hand side: what a field has not of its own is derived from the tape here, or refused. */
#include "solve/field.h"
#include <string.h>
#include "base/alloc.h"
#include "graph/tape.h"
#include "ops/ops.h"

/* ---- Arrays and tensors ---- */

static td_tensor *tensor_of(const td_field *f, const void *values) {
  td_tensor *x = td_tensor_new(f->dtype, f->ndim, f->shape);
  if (x && x->numel) memcpy(x->data, values, x->numel * td_dtype_size(f->dtype));
  return x;
}

/* x's values into an array; NULL is zero. */
static td_status values_of(const td_field *f, td_tensor *x, void *out) {
  size_t bytes = f->numel * td_dtype_size(f->dtype);
  if (!x) {
    if (bytes) memset(out, 0, bytes);
    return TD_OK;
  }
  if (x->dtype == f->dtype && td_tensor_is_contiguous(x)) {
    if (bytes) memcpy(out, x->data, bytes);
    return TD_OK;
  }
  td_tensor *flat = td_tensor_new(f->dtype, f->ndim, f->shape);
  td_status s = flat ? td_tensor_copy(flat, x) : td_last_status();
  if (!s && bytes) memcpy(out, flat->data, bytes);
  td_tensor_release(flat);
  return s;
}

static bool is_ours(const td_tensor *t) {
  return t->refs == 1 && t->storage && t->storage->refs == 1 && !t->node && td_tensor_is_contiguous(t);
}

td_status td_field_add(td_tensor **sum, td_tensor *x) {
  if (!x) return TD_OK;
  if (*sum && !td_recording && is_ours(*sum))
    return td_apply_inplace(&td_op_add, (td_tensor *[]){*sum, x}, 2, NULL);
  td_tensor *total = *sum ? td_add(*sum, x) : x;
  if (!total) return td_last_status();
  td_tensor_retain(total);
  td_tensor_release(*sum);
  *sum = total;
  return TD_OK;
}

static td_status refuse(const td_field *f, const char *what) {
  return td_fail(TD_EGRAD, "%s: no gradient flows through %s, and %s needs one; write the right-hand side on tensors",
                 f->who, f->kind, what);
}

/* ---- On the tape ---- */

td_status td_field_record(td_field *f, td_tensor *t, td_tensor *y, td_tensor **dy) {
  *dy = NULL;
  if (!f->record) return refuse(f, "a recorded step");
  td_status s = f->record(f, t, y, dy);
  if (s) return s;
  if (td_tensor_same_shape(*dy, y) && (*dy)->dtype == y->dtype) return TD_OK;
  s = td_fail(TD_ESHAPE, "%s: the right-hand side gave %s of shape (%s), expected %s of the state's shape (%s)", f->who,
              td_dtype_name((*dy)->dtype), td_tensor_shape_string(*dy), td_dtype_name(y->dtype),
              td_tensor_shape_string(y));
  td_tensor_release(*dy);
  *dy = NULL;
  return s;
}

static bool is_external(const td_field *f, const td_tensor *x) {
  for (size_t i = 0; i < f->nexternals; i++)
    if (f->externals[i]->node == x->node && f->externals[i]->slot == x->slot) return true;
  return false;
}

/* What dy depends on that was there before `since` must be a known external, or its gradient would be lost without a
 * word. */
static td_status check_known(const td_field *f, td_tensor *dy, uint64_t since, double t) {
  td_tensor **found;
  size_t count, capacity;
  td_status s = td_tape_externals(&dy, 1, since, &found, &count, &capacity);
  for (size_t i = 0; i < count; i++) {
    if (!s && !is_external(f, found[i]))
      s = td_fail(TD_EGRAD, "%s: at t=%g the right-hand side uses a tensor of shape (%s) that needs a gradient, "
                  "but not at the start; name it in the option params", f->who, t, td_tensor_shape_string(found[i]));
    td_tensor_release(found[i]);
  }
  td_free(found, capacity * sizeof *found);
  return s;
}

/* One evaluation that was kept. By the tape: y, t (a leaf when its derivative is wanted) and dy; else a copy of y, in
 * memory that is used again for the next one. */
struct td_field_kept {
  td_tensor *y, *t, *dy;
  double time;
  void *copy;
};

static void drop(struct td_field_kept *k) {
  td_tensor_release(k->y);
  td_tensor_release(k->t);
  td_tensor_release(k->dy);
  k->y = k->t = k->dy = NULL;
}

static td_status keep_taped(td_field *f, struct td_field_kept *k, double t, const void *y) {
  k->time = t;
  k->y = tensor_of(f, y);
  k->t = td_tensor_number(TD_F64, t, false);
  if (!k->y || !k->t) return td_last_status();
  uint64_t since = td_tape_now();
  td_status s = td_requires_grad(k->y, true);
  if (!s && f->time_wanted) s = td_requires_grad(k->t, true);
  if (s) return s;
  bool was = td_recording;
  td_recording = true;
  s = td_field_record(f, k->t, k->y, &k->dy);
  td_recording = was;
  return s ? s : check_known(f, k->dy, since, t);
}

/* The gradients of one kept evaluation, automatic, in the order y, t, externals; NULL where there is none. */
static td_status pull_back(td_field *f, struct td_field_kept *k, td_tensor *w, bool with_externals, td_tensor **grad,
                           td_tensor **in, unsigned flags) {
  int n = 2 + (with_externals ? (int)f->nexternals : 0);
  in[0] = k->y;
  in[1] = k->t;
  for (int i = 2; i < n; i++) in[i] = f->externals[i - 2];
  for (int i = 0; i < n; i++) grad[i] = NULL;
  if (!k->dy->node) return TD_OK;
  td_status s = td_backward(&k->dy, &w, 1, in, n, grad, TD_STOP_AT_INPUTS | flags);
  for (int i = 0; i < n; i++) td_auto(grad[i]);
  return s;
}

static td_status pull_taped(td_field *f, struct td_field_kept *k, const void *w, void *ybar, double *tbar,
                            td_tensor **dexternal) {
  enum { USUAL = 16 };
  td_tensor *few[2 * USUAL], **grad = few;
  size_t n = 2 + (dexternal ? f->nexternals : 0), mark = td_auto_mark();
  if (n > USUAL && !(grad = td_alloc(2 * n * sizeof *grad))) return td_last_status();
  td_tensor *cotangent = td_auto(tensor_of(f, w));
  td_status s = cotangent ? pull_back(f, k, cotangent, dexternal != NULL, grad, grad + n, 0) : td_last_status();
  if (!s) s = values_of(f, grad[0], ybar);
  if (!s && tbar && grad[1]) *tbar += td_tensor_get(grad[1], 0);
  for (size_t i = 2; i < n && !s; i++) s = td_field_add(&dexternal[i - 2], grad[i]);
  if (grad != few) td_free(grad, 2 * n * sizeof *grad);
  td_auto_release(mark);
  return s;
}

/* ---- Keep and pull ---- */

static td_status slot_of(td_field *f, int slot, struct td_field_kept **k) {
  if (slot >= f->nkept) {
    int wanted = slot + 8;
    struct td_field_kept *grown = td_alloc((size_t)wanted * sizeof *grown);
    if (!grown) return td_last_status();
    memset(grown, 0, (size_t)wanted * sizeof *grown);
    if (f->nkept) memcpy(grown, f->kept, (size_t)f->nkept * sizeof *grown);
    td_free(f->kept, (size_t)f->nkept * sizeof *grown);
    f->kept = grown;
    f->nkept = wanted;
  }
  *k = &f->kept[slot];
  drop(*k);
  return TD_OK;
}

td_status td_field_keep(td_field *f, int slot, double t, const void *y, void *dy) {
  if (f->keep) return f->keep(f, slot, t, y, dy);
  if (!f->vjp && !f->record) return refuse(f, "the solve");
  struct td_field_kept *k = NULL;
  td_status s = slot_of(f, slot, &k);
  if (s) return s;
  if (f->vjp) {
    size_t bytes = f->numel * td_dtype_size(f->dtype);
    if (!k->copy && !(k->copy = td_alloc(bytes + 1))) return td_last_status();
    k->time = t;
    if (bytes) memcpy(k->copy, y, bytes);
    return f->eval(f, t, y, dy);
  }
  s = keep_taped(f, k, t, y);
  return s ? s : values_of(f, k->dy, dy);
}

td_status td_field_pull(td_field *f, int slot, const void *w, void *ybar, double *tbar, td_tensor **dexternal) {
  if (f->pull) return f->pull(f, slot, w, ybar, tbar, dexternal);
  struct td_field_kept *k = &f->kept[slot];
  td_status s = f->vjp ? f->vjp(f, k->time, k->copy, w, ybar, tbar, dexternal)
                       : pull_taped(f, k, w, ybar, tbar, dexternal);
  drop(k);
  return s;
}

void td_field_forget(td_field *f) {
  if (f->forget) f->forget(f);
  for (int i = 0; i < f->nkept; i++) drop(&f->kept[i]);
}

/* ---- Derivatives at a point ---- */

td_status td_field_vjp(td_field *f, double t, const void *y, const void *w, void *ybar, double *tbar,
                       td_tensor **dexternal) {
  if (f->vjp) return f->vjp(f, t, y, w, ybar, tbar, dexternal);
  if (!f->record) return refuse(f, "the solve");
  struct td_field_kept k = {0};
  bool was = f->time_wanted;
  f->time_wanted = tbar != NULL;
  td_status s = keep_taped(f, &k, t, y);
  f->time_wanted = was;
  if (!s) s = pull_taped(f, &k, w, ybar, tbar, dexternal);
  drop(&k);
  return s;
}

/* J v as the derivative by w of ⟨Jᵀw, v⟩: two reverse passes. */
static td_status jvp_taped(td_field *f, struct td_field_kept *k, const void *v, double vt, void *out) {
  td_tensor *w = td_auto(td_tensor_zeros(f->dtype, f->ndim, f->shape)), *tangent = td_auto(tensor_of(f, v));
  td_tensor *grad[2], *in[2], *jv = NULL;
  if (!w || !tangent || td_requires_grad(w, true)) return td_last_status();
  td_status s = pull_back(f, k, w, false, grad, in, TD_CREATE_GRAPH);
  if (s) return s;
  bool was = td_recording;
  td_recording = true;
  td_tensor *sum = grad[0] ? td_sum(td_mul(grad[0], tangent), 0, false) : NULL;
  td_tensor *by_time = grad[1] && vt != 0 ? td_mul(grad[1], td_num(vt)) : NULL;
  sum = sum && by_time ? td_add(td_cast(sum, TD_F64), by_time) : sum ? sum : by_time;
  td_recording = was;
  if (!sum || !sum->node) return values_of(f, NULL, out);
  s = td_backward(&sum, (td_tensor *[]){NULL}, 1, &w, 1, &jv, TD_STOP_AT_INPUTS);
  td_auto(jv);
  return s ? s : values_of(f, jv, out);
}

td_status td_field_jvp(td_field *f, double t, const void *y, const void *v, double vt, void *out) {
  if (f->jvp) return f->jvp(f, t, y, v, vt, out);
  if (!f->record) return refuse(f, "a Jacobian product");
  struct td_field_kept k = {0};
  size_t mark = td_auto_mark();
  bool was = f->time_wanted;
  f->time_wanted = vt != 0;
  td_status s = keep_taped(f, &k, t, y);
  f->time_wanted = was;
  if (!s && !k.dy->node) s = values_of(f, NULL, out);
  else if (!s) s = jvp_taped(f, &k, v, vt, out);
  drop(&k);
  td_auto_release(mark);
  return s;
}

/* ---- Externals ---- */

td_status td_field_find_externals(td_field *f, td_tensor *dy, uint64_t since) {
  td_tensor **found = NULL;
  size_t count = 0, capacity = 0;
  td_status s = td_tape_externals(&dy, 1, since, &found, &count, &capacity);
  for (size_t i = 0; i < count; i++) {
    if (!s) s = td_field_add_external(f, found[i]);
    td_tensor_release(found[i]);
  }
  td_free(found, capacity * sizeof *found);
  return s;
}

void td_field_drop_externals(td_field *f) {
  for (size_t i = 0; i < f->nexternals; i++) td_tensor_release(f->externals[i]);
  f->nexternals = 0;
}

td_status td_field_explore(td_field *f, double t, const void *y, void *dy) {
  if (!f->record) return f->eval(f, t, y, dy);
  size_t mark = td_auto_mark();
  td_tensor *ty = td_auto(tensor_of(f, y)), *time = td_auto(td_tensor_number(TD_F64, t, false)), *slope = NULL;
  if (!ty || !time) return td_last_status();
  uint64_t since = td_tape_now();
  td_status s = td_field_record(f, time, ty, &slope);
  td_auto(slope);
  if (!s) s = td_field_find_externals(f, slope, since);
  if (!s) s = values_of(f, slope, dy);
  td_auto_release(mark);
  return s;
}

td_status td_field_add_external(td_field *f, td_tensor *x) {
  if (!x->node || is_external(f, x)) return TD_OK;
  if (f->nexternals == f->capacity) {
    size_t wanted = f->capacity ? 2 * f->capacity : 8;
    td_tensor **grown = td_alloc(wanted * sizeof *grown);
    if (!grown) return td_last_status();
    if (f->nexternals) memcpy(grown, f->externals, f->nexternals * sizeof *grown);
    td_free(f->externals, f->capacity * sizeof *grown);
    f->externals = grown;
    f->capacity = wanted;
  }
  f->externals[f->nexternals++] = td_tensor_retain(x);
  return TD_OK;
}

td_status td_field_share_externals(td_field *f, td_field *all) {
  td_field_drop_externals(f);
  td_status s = TD_OK;
  for (size_t i = 0; i < all->nexternals && !s; i++) s = td_field_add_external(f, all->externals[i]);
  return s;
}

void td_field_drop_kept(td_field *f) {
  td_field_forget(f);
  for (int i = 0; i < f->nkept; i++) td_free(f->kept[i].copy, f->numel * td_dtype_size(f->dtype) + 1);
  td_free(f->kept, (size_t)f->nkept * sizeof *f->kept);
  f->kept = NULL;
  f->nkept = 0;
}

void td_field_free(td_field *f) {
  if (!f) return;
  td_field_drop_kept(f);
  for (int i = 0; i < 2; i++) td_field_free(f->half[i]);
  if (f->programs) f->programs_free(f->programs);
  td_field_drop_externals(f);
  td_free(f->externals, f->capacity * sizeof *f->externals);
  f->free(f);
}
