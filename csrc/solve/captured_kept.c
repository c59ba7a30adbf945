/* What one evaluation keeps for its reverse pass, made less. Recomputing an element-wise operation or a normalisation
 * takes about the time in which its result passes through memory twice, far less than a convolution or a product does;
 * what is not kept makes room for evaluations that need not be computed again (td_field_hold). This is
 * rematerialisation of cheap operations (T. Chen et al. 2016, "Training deep nets with sublinear memory cost",
 * section 4.1). */
#include <string.h>
#include "base/alloc.h"
#include "solve/programs.h"

enum { LEAST = 1 << 16 };  /* bytes that are worth a kernel call more */

/* The forward part of a trace, and which of its calls are made again. */
typedef struct {
  const td_trace *trace;
  size_t forward;
  bool *again, *placed;
} thinning;

static bool lists(const td_storage_list *l, const td_storage *s) {
  for (size_t i = 0; i < l->count; i++)
    if (l->item[i] == s) return true;
  return false;
}

/* The call that writes a storage, SIZE_MAX: none does; *once is false when several do. */
static size_t writer_of(const td_trace *t, const td_storage *s, bool *once) {
  size_t writer = SIZE_MAX;
  *once = true;
  for (size_t i = 0; i < t->count; i++)
    for (int k = 0; k < t->call[i].nout; k++) {
      if (t->call[i].out[k]->storage != s) continue;
      if (writer != SIZE_MAX) *once = false;
      else writer = i;
    }
  return writer;
}

/* Will the reverse pass find x, which an operation reads? */
static bool is_there(const thinning *w, const td_tensor *x, td_tensor *const *known, int n,
                     const td_storage_list *kept) {
  bool once;
  if (!x->storage->is_virtual) return true;
  size_t writer = writer_of(w->trace, x->storage, &once);
  if (!once) return false;
  for (int i = 0; i < n; i++)
    if (known[i]->storage == x->storage) return writer == SIZE_MAX;
  return lists(kept, x->storage) || (writer < w->forward && w->again[writer]);
}

/* Is call i to be made again, rather than what it gives kept? */
static bool is_worth(const thinning *w, size_t i, td_tensor *const *known, int n, const td_storage_list *kept) {
  const td_traced *call = &w->trace->call[i];
  size_t bytes = 0;
  bool once = true;
  if (!call->op->pw && !call->op->light) return false;
  for (int k = 0; k < call->nout; k++) {
    const td_storage *s = call->out[k]->storage;
    if (!s->is_virtual || call->out[k]->numel * td_dtype_size(call->out[k]->dtype) != s->bytes) return false;
    writer_of(w->trace, s, &once);
    if (!once) return false;
    if (lists(kept, s)) bytes += s->bytes;
  }
  if (bytes < LEAST) return false;
  for (int k = 0; k < call->nin; k++)
    if (!is_there(w, call->in[k], known, n, kept)) return false;
  return true;
}

static void drop_results(const td_traced *call, td_storage_list *kept) {
  size_t n = 0;
  for (size_t i = 0; i < kept->count; i++) {
    bool given = false;
    for (int k = 0; k < call->nout; k++) given |= call->out[k]->storage == kept->item[i];
    if (!given) kept->item[n++] = kept->item[i];
  }
  kept->count = n;
}

/* Call i, with what it reads of calls that are made again before it. */
static void place(thinning *w, size_t i, td_trace *out) {
  const td_traced *call = &w->trace->call[i];
  for (int k = 0; k < call->nin; k++) {
    bool once;
    const td_storage *s = call->in[k]->storage;
    size_t writer = s->is_virtual ? writer_of(w->trace, s, &once) : SIZE_MAX;
    if (writer >= w->forward || !w->again[writer] || w->placed[writer]) continue;
    w->placed[writer] = true;
    place(w, writer, out);
  }
  out->call[out->count++] = *call;
}

td_status td_captured_thin(const td_trace *t, size_t forward, td_tensor *const *known, int n, td_storage_list *kept,
                           td_trace *again) {
  thinning w = {.trace = t, .forward = forward, .again = td_alloc(2 * forward + 1)};
  bool any = false;
  *again = (td_trace){0};
  if (!w.again) return td_last_status();
  memset(w.again, 0, 2 * forward + 1);
  w.placed = w.again + forward;
  for (size_t i = 0; i < forward; i++) {
    if (!is_worth(&w, i, known, n, kept)) continue;
    any = w.again[i] = true;
    drop_results(&t->call[i], kept);
  }
  if (any) {
    again->call = td_alloc(t->count * sizeof *again->call);
    if (again->call) again->capacity = t->count;
    again->era = t->era;
    for (size_t i = forward; i < t->count && again->call; i++) place(&w, i, again);
  }
  td_free(w.again, 2 * forward + 1);
  return any && !again->call ? td_last_status() : TD_OK;
}

void td_captured_thin_free(td_trace *again) {
  td_free(again->call, again->capacity * sizeof *again->call);
  *again = (td_trace){0};
}
