/* Writing calls down. Lists grow by doubling; the trace owns references to all tensors that it names, so a storage's
 * address tells what it is as long as the trace lives. */
#include "graph/trace.h"
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"

static td_trace *tracing;
static uint32_t last_era;

static td_traced *new_call(td_trace *t) {
  if (t->count == t->capacity) {
    size_t wanted = t->capacity ? 2 * t->capacity : 32;
    td_traced *grown = td_alloc(wanted * sizeof *grown);
    if (!grown) return NULL;
    if (t->count) memcpy(grown, t->call, t->count * sizeof *grown);
    td_free(t->call, t->capacity * sizeof *grown);
    t->call = grown;
    t->capacity = wanted;
  }
  return &t->call[t->count];
}

static td_status write_down(const td_op *op, const td_attrs *a, int nin, td_tensor *const *in, int nout,
                            td_tensor *const *out) {
  td_traced *call = new_call(tracing);
  if (!call) return td_last_status();
  *call = (td_traced){.op = op, .a = *a, .nin = nin, .nout = nout};
  call->in = td_alloc((size_t)(nin + 1) * sizeof *call->in);
  if (!call->in) return td_last_status();
  for (int i = 0; i < nin; i++) call->in[i] = td_tensor_retain(in[i]);
  for (int i = 0; i < nout; i++) call->out[i] = td_tensor_retain(out[i]);
  tracing->count++;
  return TD_OK;
}

static td_status write_copy(td_tensor *dst, const td_tensor *src) {
  static const td_attrs none;
  return write_down(&td_op_clone, &none, 1, (td_tensor *[]){(td_tensor *)src}, 1, &dst);
}

static td_tensor *copy_of_storage(td_storage *s) {
  td_tensor *whole = td_tensor_from_storage(s, TD_U8, 1, &s->bytes, 0);
  td_tensor *copy = whole ? td_tensor_clone(whole) : NULL;
  td_tensor_release(whole);
  return copy;
}

/* What x shows, in `held`, which lies as x's storage did. */
static td_tensor *shown_in(const td_tensor *held, const td_tensor *x) {
  size_t size = td_dtype_size(x->dtype), n = held->numel / size;
  td_tensor *all = td_tensor_from_storage(held->storage, x->dtype, 1, &n, 0);
  size_t offset = (size_t)(x->data - (char *)x->storage->data) / size;
  td_tensor *view = all ? td_tensor_view(all, x->ndim, x->shape, x->stride, offset) : NULL;
  td_tensor_release(all);
  return view;
}

/* A constant is about to be written to: calls that read it before shall go on reading what it held, a copy. */
static td_status spare_readers(td_storage *s) {
  td_tensor *held = NULL;
  td_status status = TD_OK;
  for (size_t i = 0; i < tracing->count && !status; i++) {
    td_traced *call = &tracing->call[i];
    for (int k = 0; k < call->nin && !status; k++) {
      if (call->in[k]->storage != s) continue;
      if (!held) held = copy_of_storage(s);
      td_tensor *then = held ? shown_in(held, call->in[k]) : NULL;
      if (!then) status = td_last_status();
      else td_tensor_release(call->in[k]), call->in[k] = then;
    }
  }
  td_tensor_release(held);
  return status;
}

/* A constant that is now written to with values not known: from here on its storage is virtual, and the program
 * fills it first with what the constant held. */
static td_status make_virtual(td_tensor *t) {
  td_storage *s = t->storage;
  td_status status = spare_readers(s);
  if (status) return status;
  td_tensor *held = copy_of_storage(s);
  td_tensor *whole = held ? td_tensor_from_storage(s, TD_U8, 1, &s->bytes, 0) : NULL;
  status = whole ? TD_OK : td_last_status();
  s->is_virtual = true;
  if (!status) status = write_copy(whole, held);
  td_tensor_release(held);
  td_tensor_release(whole);
  return status;
}

static td_status prepare_write(td_tensor *t) {
  t->storage->version++;
  return td_tensor_is_known(t) && td_capture_era ? make_virtual(t) : TD_OK;
}

static td_status capture_call(td_call *c) {
  td_status s = TD_OK;
  for (int i = 0; i < c->nout && !s; i++) {
    if (c->out[i]) {
      s = prepare_write(c->out[i]);
    } else {
      c->out[i] = td_tensor_virtual(c->meta[i].dtype, c->meta[i].ndim, c->meta[i].shape);
      if (!c->out[i]) s = td_last_status();
    }
  }
  return s ? s : write_down(c->op, c->a, c->nin, c->in, c->nout, c->out);
}

static td_tensor *capture_clone(const td_tensor *t) {
  td_tensor *copy = td_tensor_virtual(t->dtype, t->ndim, t->shape);
  if (copy && write_copy(copy, t)) {
    td_tensor_release(copy);
    return NULL;
  }
  return copy;
}

static td_status capture_copy(td_tensor *dst, const td_tensor *src) {
  if (!td_tensor_is_writable(dst))
    return td_fail(TD_EARG, "copy: elements of the expanded tensor of shape (%s) share memory; clone() it first",
                   td_tensor_shape_string(dst));
  td_tensor *out[TD_MAX_OUT];
  td_tensor *wide = src->storage == dst->storage ? td_tensor_clone(src) : td_tensor_retain((td_tensor *)src);
  if (!wide) return td_last_status();
  if (!td_tensor_same_shape(dst, src)) {  /* says so when it does not broadcast */
    td_attrs a = {.i = {dst->ndim}};
    for (int i = 0; i < dst->ndim; i++) a.i[1 + i] = (int64_t)dst->shape[i];
    td_status s = td_apply(&td_op_expand, &wide, 1, &a, out);
    td_tensor_release(wide);
    if (s) return s;
    wide = out[0];
  }
  td_status s = prepare_write(dst);
  if (!s) s = write_copy(dst, wide);
  td_tensor_release(wide);
  return s;
}

td_status td_trace_begin(td_trace *t) {
  if (td_capture_era) return td_fail(TD_EARG, "capture: a function is being captured already");
  *t = (td_trace){.era = ++last_era ? last_era : ++last_era};
  tracing = t;
  td_capture_era = t->era;
  td_capture_call = capture_call;
  td_capture_clone = capture_clone;
  td_capture_copy = capture_copy;
  td_capture_spare = spare_readers;
  return TD_OK;
}

void td_trace_end(td_trace *t) {
  if (tracing != t) return;
  tracing = NULL;
  td_capture_era = 0;
}

static void untape(td_tensor *t) {
  if (!t->node || !t->storage || !t->storage->is_virtual) return;
  td_tensor_node_release(t->node);
  t->node = NULL;
}

void td_trace_untape(td_trace *t) {
  for (size_t i = 0; i < t->count; i++) {
    const td_traced *call = &t->call[i];
    for (int k = 0; k < call->nin; k++) untape(call->in[k]);
    for (int k = 0; k < call->nout; k++) untape(call->out[k]);
  }
}

void td_trace_free(td_trace *t) {
  for (size_t i = 0; i < t->count; i++) {
    td_traced *call = &t->call[i];
    for (int k = 0; k < call->nin; k++) td_tensor_release(call->in[k]);
    for (int k = 0; k < call->nout; k++) td_tensor_release(call->out[k]);
    td_free(call->in, (size_t)(call->nin + 1) * sizeof *call->in);
  }
  td_free(t->call, t->capacity * sizeof *t->call);
  *t = (td_trace){0};
}

/* ---- What a later part needs of an earlier one ---- */

void td_storage_list_free(td_storage_list *l) {
  td_free(l->item, l->capacity * sizeof *l->item);
  *l = (td_storage_list){0};
}

static bool has(const td_storage_list *l, const td_storage *s) {
  for (size_t i = 0; i < l->count; i++)
    if (l->item[i] == s) return true;
  return false;
}

static td_status add(td_storage_list *l, td_storage *s) {
  if (has(l, s)) return TD_OK;
  if (l->count == l->capacity) {
    size_t wanted = l->capacity ? 2 * l->capacity : 64;
    td_storage **more = td_alloc(wanted * sizeof *more);
    if (!more) return td_last_status();
    if (l->count) memcpy(more, l->item, l->count * sizeof *more);
    td_free(l->item, l->capacity * sizeof *more);
    l->item = more;
    l->capacity = wanted;
  }
  l->item[l->count++] = s;
  return TD_OK;
}

td_status td_trace_kept(const td_trace *t, size_t first, td_tensor *const *known, int n, td_storage_list *kept) {
  td_storage_list seen = {0};
  td_status s = TD_OK;
  *kept = (td_storage_list){0};
  for (int i = 0; i < n && !s; i++) s = add(&seen, known[i]->storage);
  for (size_t i = first; i < t->count && !s; i++) {
    const td_traced *call = &t->call[i];
    for (int k = 0; k < call->nin && !s; k++) {
      td_storage *one = call->in[k]->storage;
      if (one->is_virtual && !has(&seen, one)) s = add(kept, one);
    }
    for (int k = 0; k < call->nout && !s; k++)
      if (!has(kept, call->out[k]->storage)) s = add(&seen, call->out[k]->storage);
  }
  td_storage_list_free(&seen);
  return s;
}
