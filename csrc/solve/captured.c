/* Capturing a right-hand side: f is recorded once on virtual t and y, its reverse pass is run on a virtual cotangent,
 * and the trace becomes three programs:
 *
 *   eval      t, y → dy
 *   forward   t, y → dy and what the reverse pass needs (kept)
 *   backward  w, t, y, kept → cotangents of y, of t, of the externals
 *
 * A solver's step keeps its stages' evaluations in slots and pulls through them once each, so nothing is computed
 * twice. When one evaluation would keep more than the caller's limit, `backward` computes the forward part anew
 * instead. */
#include "solve/captured.h"
#include <stdint.h>
#include <string.h>
#include "base/alloc.h"
#include "graph/tape.h"
#include "ops/ops.h"
#include "solve/programs.h"

/* ---- Evaluations that outlive their solve ---- */

enum { LEAST_RING = 32 };  /* no less than the stages of a step and of its extension */

static struct td_field_programs *holder;  /* or NULL */

static void free_slot(struct td_field_programs *p, kept_slot *slot) {
  td_free(slot->block, p->block_bytes);
  td_free(slot->rest, p->rest_bytes);
  slot->block = slot->rest = NULL;
  slot->number = 0;
}

void td_captured_free_slots(struct td_field_programs *p) {
  for (int i = 0; i < p->nslot; i++) free_slot(p, &p->slot[i]);
}

void td_field_let_go(td_field *f) {
  if (!f->programs) return;
  td_captured_drop_hold(f->programs);
  td_captured_free_slots(f->programs);
}

bool td_field_may_hold(const td_field *f) { return f->programs && !f->stages_back; }

void td_field_hold(td_field *f, size_t bytes, int stages) {
  struct td_field_programs *p = f->programs;
  size_t one = p->block_bytes + p->rest_bytes + !p->block_bytes, step = (size_t)stages, most = TD_HELD_STEPS * step;
  if (bytes == SIZE_MAX) bytes = TD_HELD_MOST;
  else most = 1 << 16;
  if (bytes / one < most) most = bytes / one;
  if (holder) td_captured_free_slots(holder);
  holder = p;
  p->most = (int)(most < step ? step : most);
  p->ring = p->most > LEAST_RING ? p->most : LEAST_RING;
}

size_t td_field_hold_room(const td_field *f) { return f->programs ? (size_t)f->programs->most : 0; }

void td_field_hold_at(td_field *f, uint64_t first, int fresh) {
  struct td_field_programs *p = f->programs;
  if (!p) return;
  p->first = first;
  for (int i = 0; fresh && i < p->nslot; i++)
    if (p->slot[i].number + (uint64_t)p->most <= first + (uint64_t)fresh) free_slot(p, &p->slot[i]);
}

static kept_slot *slot_at(const struct td_field_programs *p, int at) {
  int place = p->ring ? (int)((p->first + (uint64_t)at) % (uint64_t)p->ring) : at;
  return place < p->nslot ? &p->slot[place] : NULL;
}

bool td_field_holds(const td_field *f, int slot) {
  const kept_slot *one = f->programs ? slot_at(f->programs, slot) : NULL;
  return one && one->number == f->programs->first + (uint64_t)slot + 1;
}

void td_field_hold_until(td_field *f, uint64_t first) {
  struct td_field_programs *p = f->programs;
  bool earlier = false;
  for (int i = 0; p && i < p->nslot; i++) earlier |= p->slot[i].number && p->slot[i].number <= first;
  for (int i = 0; earlier && i < p->nslot; i++)
    if (p->slot[i].number > first) free_slot(p, &p->slot[i]);
}

size_t td_field_held_bytes(void) {
  size_t bytes = 0;
  for (int i = 0; holder && i < holder->nslot; i++)
    bytes += holder->slot[i].block ? holder->block_bytes + holder->rest_bytes : 0;
  return bytes;
}

void td_captured_drop_hold(const struct td_field_programs *p) {
  if (holder == p) holder = NULL;
}

/* ---- Freeing ---- */

void td_captured_programs_free(struct td_field_programs *p) {
  if (!p) return;
  td_captured_drop_hold(p);
  if (p->again.backward)
    td_free(p->again.backward, (size_t)(td_program_externals(p->backward) + 1) * sizeof *p->again.backward);
  td_captured_steps_free(p);
  td_program_release(p->eval);
  td_program_release(p->forward);
  td_program_release(p->backward);
  td_program_release(p->jvp);
  for (size_t i = 0; p->sum && i < p->nexternals; i++) td_tensor_release(p->sum[i]);
  td_captured_free_slots(p);
  free_slot(p, &p->own);
  td_free(p->slot, (size_t)p->nslot * sizeof *p->slot);
  td_free(p->sum, p->nexternals * sizeof *p->sum);
  td_free(p->by_external, (p->nexternals + 1) * sizeof *p->by_external);
  td_free(p->offset, (p->nkept + 1) * sizeof *p->offset);
  td_free(p->out, (p->nkept + p->nexternals + 4) * 2 * sizeof *p->out);
  td_free(p->scratch, p->scratch_bytes);
  td_free(p, sizeof *p);
}

/* ---- Running ---- */

static td_status captured_eval(td_field *f, double t, const void *y, void *dy) {
  return td_program_run(f->programs->eval, (void *[]){&t, (void *)y}, (void *[]){dy});
}

/* Room for at least n slots. */
static td_status grow_slots(struct td_field_programs *p, int n) {
  if (n <= p->nslot) return TD_OK;
  kept_slot *more = td_alloc((size_t)n * sizeof *more);
  if (!more) return td_last_status();
  memset(more, 0, (size_t)n * sizeof *more);
  if (p->nslot) memcpy(more, p->slot, (size_t)p->nslot * sizeof *more);
  td_free(p->slot, (size_t)p->nslot * sizeof *more);
  p->slot = more;
  p->nslot = n;
  return TD_OK;
}

static td_status make_block(const struct td_field_programs *p, kept_slot *slot) {
  if (!slot->block && p->block_bytes && !(slot->block = td_alloc(p->block_bytes))) return td_last_status();
  if (!slot->rest && p->rest_bytes && !(slot->rest = td_alloc(p->rest_bytes))) return td_last_status();
  return TD_OK;
}

td_status td_captured_slot(struct td_field_programs *p, int at, kept_slot **slot) {
  td_status s = grow_slots(p, p->ring ? p->ring : at + 1);
  if (s) return s;
  *slot = slot_at(p, at);
  (*slot)->number = p->first + (uint64_t)at + 1;
  return make_block(p, *slot);
}

static td_status keep_in(td_field *f, kept_slot *slot, double t, const void *y, void *dy) {
  struct td_field_programs *p = f->programs;
  slot->y = y;
  slot->t = t;
  if (p->keeps_y) {  /* by all threads */
    td_k(f->dtype)->lincomb(slot->block, y, 0, NULL, NULL, f->numel);
    slot->y = slot->block;
  }
  if (p->recomputes || !p->dynamic) return captured_eval(f, t, y, dy);
  p->out[0] = dy;
  for (size_t i = 0; i < p->nkept; i++) p->out[1 + i] = td_captured_kept(p, slot, i);
  return td_program_run(p->forward, (void *[]){&t, (void *)y}, p->out);
}

static td_status captured_keep(td_field *f, int at, double t, const void *y, void *dy) {
  kept_slot *slot;
  td_status s = td_captured_slot(f->programs, at, &slot);
  return s ? s : keep_in(f, slot, t, y, dy);
}

/* Where backward writes the cotangent of external i: into its sum at once when that is empty, else beside it. */
static td_status place_external(struct td_field_programs *p, size_t i, td_tensor **dexternal, const td_tensor *like,
                                void **place) {
  td_tensor **to = dexternal && !dexternal[i] ? &dexternal[i] : &p->sum[i];
  if (!*to) *to = td_tensor_new(like->dtype, like->ndim, like->shape);
  if (!*to) return td_last_status();
  *place = (*to)->data;
  return TD_OK;
}

/* *sum += x, without a call of an operation when nobody else looks at *sum. */
static td_status add_external(td_tensor **sum, td_tensor *x) {
  td_tensor *t = *sum;
  bool ours = t->refs == 1 && t->storage->refs == 1 && !t->node && t->dtype == x->dtype && td_tensor_is_contiguous(t);
  if (!ours) return td_field_add(sum, x);
  const double one = 1;
  const void *term = x->data;
  td_k(t->dtype)->lincomb(t->data, t->data, 1, &one, &term, t->numel);
  return TD_OK;
}

static td_status make_scratch(struct td_field_programs *p) {
  if (!p->scratch) p->scratch = td_alloc(p->scratch_bytes);
  return p->scratch ? TD_OK : td_last_status();
}

static td_status run_backward(td_field *f, const kept_slot *slot, const void *w, void *ybar, double *tbar,
                              td_tensor **dexternal) {
  struct td_field_programs *p = f->programs;
  size_t bytes = f->numel * td_dtype_size(f->dtype), inputs = p->nkept + 3;
  void **in = p->out + p->nkept + p->nexternals + 4;
  double time = slot->t, dt = 0;
  if (w == ybar && make_scratch(p)) return td_last_status();
  if (w == ybar && bytes) w = memcpy(p->scratch, w, bytes);
  in[0] = (void *)w;
  in[1] = &time;
  in[2] = (void *)slot->y;
  for (size_t i = 0; i + 3 < inputs; i++) in[3 + i] = td_captured_kept(p, slot, i);
  if (p->by_y >= 0) p->out[p->by_y] = ybar;
  else if (bytes) memset(ybar, 0, bytes);
  if (p->by_t >= 0) p->out[p->by_t] = &dt;
  td_status s = TD_OK;
  uint64_t fresh = 0;  /* externals whose sum is written at once; a further one adds a copy */
  for (size_t i = 0; i < p->nexternals && !s; i++) {
    if (p->by_external[i] < 0) continue;
    if (dexternal && !dexternal[i] && i < 64) fresh |= (uint64_t)1 << i;
    else if (dexternal && !dexternal[i] &&
             !(dexternal[i] = td_tensor_zeros(f->externals[i]->dtype, f->externals[i]->ndim, f->externals[i]->shape)))
      return td_last_status();
    s = place_external(p, i, dexternal, f->externals[i], &p->out[p->by_external[i]]);
  }
  if (!s) s = td_program_run(p->backward, in, p->out);
  if (!s && tbar && p->by_t >= 0) *tbar += dt;
  for (size_t i = 0; i < p->nexternals && dexternal && !s; i++)
    if (p->by_external[i] >= 0 && !(i < 64 && fresh >> i & 1)) s = add_external(&dexternal[i], p->sum[i]);
  return s;
}

static td_status pull_from(td_field *f, const kept_slot *slot, const void *w, void *ybar, double *tbar,
                           td_tensor **dexternal) {
  size_t bytes = f->numel * td_dtype_size(f->dtype);
  if (f->programs->dynamic) return run_backward(f, slot, w, ybar, tbar, dexternal);
  if (bytes) memset(ybar, 0, bytes);
  return TD_OK;
}

static td_status captured_pull(td_field *f, int at, const void *w, void *ybar, double *tbar, td_tensor **dexternal) {
  return pull_from(f, slot_at(f->programs, at), w, ybar, tbar, dexternal);
}

static td_status captured_vjp(td_field *f, double t, const void *y, const void *w, void *ybar, double *tbar,
                              td_tensor **dexternal) {
  struct td_field_programs *p = f->programs;
  td_status s = make_block(p, &p->own);
  if (!s) s = make_scratch(p);
  if (s) return s;
  if (!p->dynamic || p->recomputes) p->own.y = y, p->own.t = t;
  else s = keep_in(f, &p->own, t, y, p->scratch);
  return s ? s : pull_from(f, &p->own, w, ybar, tbar, dexternal);
}

/* ---- Capturing ---- */

/* What was written down, and the virtual tensors in it that matter. */
typedef struct {
  td_trace trace;
  td_tensor *t, *y, *dy, *w;
  size_t forward;          /* calls before the reverse pass */
  uint64_t since;          /* the first node of the tape */
  td_ir ir;                /* of the forward part, for the key */
  uint64_t key[2];
  bool keyed;
  td_tensor **grad, **in;  /* of y, t and the externals; grad owned */
  size_t n;
} capture;

/* What is asked for, see captured.h. */
typedef struct {
  bool gradient, first, leads, rows;
  size_t keep_most;
} wish;

static void capture_free(capture *c) {
  td_trace_end(&c->trace);
  for (size_t i = 0; c->grad && i < c->n; i++) td_tensor_release(c->grad[i]);
  td_free(c->grad, 2 * c->n * sizeof *c->grad);
  td_tensor_release(c->t);
  td_tensor_release(c->y);
  td_tensor_release(c->dy);
  td_tensor_release(c->w);
  td_trace_untape(&c->trace);
  td_trace_free(&c->trace);
  td_ir_free(&c->ir);
}

static td_status record_forward(td_field *f, capture *c, bool gradient) {
  c->t = td_tensor_virtual(TD_F64, 0, NULL);
  c->y = td_tensor_virtual(f->dtype, f->ndim, f->shape);
  if (!c->t || !c->y) return td_last_status();
  td_status s = TD_OK;
  c->since = td_tape_now();
  if (gradient) s = td_requires_grad(c->y, true);
  if (gradient && !s) s = td_requires_grad(c->t, true);
  td_recording = gradient;
  if (!s) s = td_field_record(f, c->t, c->y, &c->dy);
  c->forward = c->trace.count;
  return s;
}

static td_status record_backward(td_field *f, capture *c) {
  c->n = 2 + f->nexternals;
  c->grad = td_alloc(2 * c->n * sizeof *c->grad);
  c->w = td_tensor_virtual(f->dtype, f->ndim, f->shape);
  if (!c->grad || !c->w) return td_last_status();
  for (size_t i = 0; i < c->n; i++) c->grad[i] = NULL;
  c->in = c->grad + c->n;
  c->in[0] = c->y;
  c->in[1] = c->t;
  for (size_t i = 0; i < f->nexternals; i++) c->in[2 + i] = f->externals[i];
  return td_backward(&c->dy, &c->w, 1, c->in, (int)c->n, c->grad, TD_STOP_AT_INPUTS);
}

/* The externals in what was recorded. Where no gradient is wanted after all, the tape is left behind: *gradient. */
static td_status explore(td_field *f, capture *c, bool leads, bool *gradient) {
  td_status s = *gradient ? td_field_find_externals(f, c->dy, c->since) : TD_OK;
  if (s || !*gradient || leads || f->nexternals) return s;
  td_tensor *plain = td_tensor_alias(c->dy);
  if (!plain) return td_last_status();
  td_tensor_release(c->dy);
  c->dy = plain;
  *gradient = false;
  return TD_OK;
}

/* Records f, and its reverse pass unless programs for such a record are at hand: *p. */
static td_status record_all(td_field *f, capture *c, const wish *w, bool *wanted, struct td_field_programs **p) {
  bool was = td_recording, gradient = w->gradient || w->rows;
  size_t mark = td_auto_mark(), keep_most = w->keep_most;
  td_status s = record_forward(f, c, gradient);
  if (!s && w->first && w->gradient) s = explore(f, c, w->leads || w->rows, &gradient);
  *wanted = gradient;
  td_captured_record r = {&c->trace, c->forward, c->t, c->y, c->dy, c->since};
  c->keyed = !s && td_captured_key(f, &r, gradient, keep_most, &c->ir, c->key);
  *p = c->keyed ? td_captured_again(c->key, &c->ir) : NULL;
  if (!s && !*p && c->dy->node) s = record_backward(f, c);
  td_recording = was;
  td_trace_end(&c->trace);
  td_auto_release(mark);
  return s;
}

/* The gradients that exist, in order, and which result each is. */
static int list_results(capture *c, struct td_field_programs *p, td_tensor **out) {
  int n = 0;
  p->by_y = c->grad[0] ? n : -1;
  if (c->grad[0]) out[n++] = c->grad[0];
  p->by_t = c->grad[1] ? n : -1;
  if (c->grad[1]) out[n++] = c->grad[1];
  for (size_t i = 2; i < c->n; i++) {
    p->by_external[i - 2] = c->grad[i] ? n : -1;
    if (c->grad[i]) out[n++] = c->grad[i];
  }
  return n;
}

static size_t rounded(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* Large values first, in their order; how many of them. Small ones have a block of their own where they would begin a
 * further huge page behind the large ones; else all are large. */
static size_t sort_by_size(td_storage_list *kept, size_t bytes) {
  enum { SMALL = 1 << 16, LARGE = 1 << 21 };
  size_t n = 0;
  for (size_t i = 0; i < kept->count; i++) bytes += kept->item[i]->bytes;
  if (bytes < LARGE) return kept->count;
  for (size_t i = 0; i < kept->count; i++) {
    td_storage *one = kept->item[i];
    if (one->bytes < SMALL) continue;
    memmove(&kept->item[n + 1], &kept->item[n], (i - n) * sizeof one);
    kept->item[n++] = one;
  }
  return n;
}

/* Lays the kept values out in blocks and makes `forward` and `backward`, the latter from `reverse`. list has room for
 * all tensors. */
static td_status make_pair(capture *c, struct td_field_programs *p, td_storage_list *kept, const td_trace *reverse,
                           td_tensor **list) {
  td_tensor **in = list, **out = list + kept->count + 4;
  int nout = list_results(c, p, out);
  p->nkept = kept->count;
  p->offset = td_alloc((p->nkept + 1) * sizeof *p->offset);
  if (!p->offset) return td_last_status();
  if (p->keeps_y) p->block_bytes = rounded(c->y->storage->bytes);
  p->nlarge = sort_by_size(kept, p->block_bytes);
  for (size_t i = 0; i < kept->count; i++) {
    size_t *bytes = i < p->nlarge ? &p->block_bytes : &p->rest_bytes;
    p->offset[i] = *bytes;
    *bytes += rounded(kept->item[i]->bytes);
    in[3 + i] = td_auto(td_tensor_from_storage(kept->item[i], TD_U8, 1, &kept->item[i]->bytes, 0));
    if (!in[3 + i]) return td_last_status();
  }
  in[0] = c->w, in[1] = c->t, in[2] = c->y;
  p->recomputes = p->block_bytes + p->rest_bytes > p->keep_most;
  if (p->recomputes) {
    td_program_release(p->backward);
    p->backward = td_program_new(&c->trace, 0, c->trace.count, in, 3, out, nout);
    td_free(p->offset, (p->nkept + 1) * sizeof *p->offset);
    p->offset = NULL;
    p->nkept = 0;
    p->keeps_y = true;
    p->block_bytes = rounded(c->y->storage->bytes);
    p->rest_bytes = 0;
    return p->backward ? TD_OK : td_last_status();
  }
  if (!p->backward) p->backward = td_program_new(reverse, 0, reverse->count, in, (int)(3 + kept->count), out, nout);
  in[2] = c->dy;
  p->forward = td_program_new(&c->trace, 0, c->forward, (td_tensor *[]){c->t, c->y}, 2, in + 2, (int)(1 + kept->count));
  return p->backward && p->forward ? TD_OK : td_last_status();
}

/* Drops from the list what a first plan of the reverse pass does not read; when it reads all, that is the plan. */
static td_status keep_what_is_read(capture *c, struct td_field_programs *p, td_storage_list *kept, td_tensor **list) {
  td_tensor **in = list, **out = list + kept->count + 4;
  int nout = list_results(c, p, out);
  in[0] = c->w, in[1] = c->t, in[2] = c->y;
  for (size_t i = 0; i < kept->count; i++)
    if (!(in[3 + i] = td_auto(td_tensor_from_storage(kept->item[i], TD_U8, 1, &kept->item[i]->bytes, 0))))
      return td_last_status();
  td_program *first =
      td_program_new(&c->trace, c->forward, c->trace.count - c->forward, in, (int)(3 + kept->count), out, nout);
  if (!first) return td_last_status();
  size_t n = 0;
  for (size_t i = 0; i < kept->count; i++)
    if (td_program_reads(first, (int)(3 + i))) kept->item[n++] = kept->item[i];
  p->keeps_y = td_program_reads(first, 2);
  if (n == kept->count) p->backward = first;
  else td_program_release(first);
  kept->count = n;
  return TD_OK;
}

static td_status make_gradient(capture *c, struct td_field_programs *p) {
  td_storage_list kept;
  td_status s = td_trace_kept(&c->trace, c->forward, (td_tensor *[]){c->w, c->t, c->y}, 3, &kept);
  size_t mark = td_auto_mark(), room = kept.count + c->n + 8;
  td_tensor **list = td_alloc(room * sizeof *list);
  if (!list) s = td_last_status();
  if (!s) s = keep_what_is_read(c, p, &kept, list);
  td_trace again = {0}, reverse = {.call = c->trace.call + c->forward, .count = c->trace.count - c->forward, .era = c->trace.era};
  if (!s) s = td_captured_thin(&c->trace, c->forward, (td_tensor *[]){c->t, c->y}, 1 + p->keeps_y, &kept, &again);
  if (!s && again.count) {
    td_program_release(p->backward);
    p->backward = NULL;
  }
  if (!s) s = make_pair(c, p, &kept, again.count ? &again : &reverse, list);
  td_captured_thin_free(&again);
  td_free(list, room * sizeof *list);
  td_auto_release(mark);
  td_storage_list_free(&kept);
  return s;
}

static td_status make_programs(td_field *f, capture *c, struct td_field_programs *p) {
  p->nexternals = f->nexternals;
  p->eval = td_program_new(&c->trace, 0, c->forward, (td_tensor *[]){c->t, c->y}, 2, &c->dy, 1);
  p->dynamic = c->dy->node != NULL;
  p->by_external = td_alloc((p->nexternals + 1) * sizeof *p->by_external);
  p->sum = td_alloc(p->nexternals * sizeof *p->sum);
  if (!p->eval || !p->by_external || !p->sum) return td_last_status();
  for (size_t i = 0; i < p->nexternals; i++) p->sum[i] = NULL;
  td_status s = p->dynamic ? make_gradient(c, p) : TD_OK;
  size_t room = p->nkept + p->nexternals + 4;
  p->out = td_alloc(room * 2 * sizeof *p->out);
  p->scratch_bytes = f->numel * td_dtype_size(f->dtype);
  return s || !p->out ? td_last_status() : TD_OK;
}

/* Programs for what was recorded. */
static td_status new_programs(td_field *f, capture *c, size_t keep_most, struct td_field_programs **to) {
  struct td_field_programs *p = td_alloc(sizeof *p);
  if (!p) return td_last_status();
  memset(p, 0, sizeof *p);
  p->keep_most = keep_most;
  td_status s = make_programs(f, c, p);
  if (!s && c->keyed) td_captured_mark(p, c->key);
  if (s) td_captured_programs_free(p);
  else *to = p;
  return s;
}

static td_status capture_as(td_field *f, const wish *w) {
  capture c = {0};
  struct td_field_programs *p = NULL;
  bool gradient = false;
  td_status s = td_trace_begin(&c.trace);
  if (!s) s = record_all(f, &c, w, &gradient, &p);
  if (!s && !p) s = new_programs(f, &c, w->keep_most, &p);
  capture_free(&c);
  if (s) return s;
  p->before.eval = f->eval;
  p->before.keep = f->keep;
  p->before.pull = f->pull;
  p->before.vjp = f->vjp;
  f->programs = p;
  f->programs_free = td_captured_give_back;
  f->eval = captured_eval;
  td_captured_steps_set(f, gradient);
  if (!f->stages) td_captured_tiles_set(f);
  f->rows_by_pull = gradient && w->rows && !(w->gradient && (w->leads || f->nexternals));
  if (gradient) {
    f->keep = captured_keep;
    f->pull = captured_pull;
    f->vjp = captured_vjp;
  }
  return TD_OK;
}

td_status td_field_capture(td_field *f, bool gradient, size_t keep_most) {
  return capture_as(f, &(wish){.gradient = gradient, .keep_most = keep_most});
}

td_status td_field_capture_rows(td_field *f) {
  return capture_as(f, &(wish){.rows = true, .keep_most = SIZE_MAX});
}

td_status td_field_capture_first(td_field *f, bool recording, bool leads, bool rows, size_t keep_most) {
  return capture_as(f, &(wish){recording, true, leads, rows, keep_most});
}

bool td_field_is_kept(const td_field *f) { return f->programs && f->programs->again.kept; }

void td_field_uncapture(td_field *f) {
  struct td_field_programs *p = f->programs;
  if (!p) return;
  f->eval = p->before.eval;
  f->keep = p->before.keep;
  f->pull = p->before.pull;
  f->vjp = p->before.vjp;
  f->stages = NULL;
  f->stages_back = NULL;
  f->march = NULL;
  f->march_back = NULL;
  f->rows_by_pull = false;
  f->programs = NULL;
  td_captured_programs_free(p);
}
