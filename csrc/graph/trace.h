/* Capturing: a function is run once on virtual tensors, which have shapes and no values, and every call that
 * td_apply sees is written down instead of run. What is written down, the trace, becomes a program (program.h).
 *
 * Calls whose operands are all known (numbers, and tensors made since the capture began) are run at once: their
 * results are constants. Views are not written down: a view of a virtual tensor is a virtual tensor on the same
 * storage. Derivative rules are made of the same calls, so a reverse pass is captured like anything else. */
#ifndef TD_GRAPH_TRACE_H
#define TD_GRAPH_TRACE_H
#include "ops/op.h"

/* A call written down, with one reference to each tensor. Its results' storages tell where they are written. */
typedef struct {
  const td_op *op;
  td_attrs a;
  int nin, nout;
  td_tensor **in;
  td_tensor *out[TD_MAX_OUT];
} td_traced;

typedef struct {
  td_traced *call;
  size_t count, capacity;
  uint32_t era;
} td_trace;

/* Begins to write into t, which must be empty; a failure when a capture is under way. */
td_status td_trace_begin(td_trace *t);
/* Ends the capture under way, which t belongs to. */
void td_trace_end(td_trace *t);
void td_trace_free(td_trace *t);
/* The tensors that t names lose their nodes: when programs were made of the trace, nobody can go back from them,
 * however long a Lua variable holds them. */
void td_trace_untape(td_trace *t);

/* Storages, borrowed from a trace. */
typedef struct {
  td_storage **item;
  size_t count, capacity;
} td_storage_list;
void td_storage_list_free(td_storage_list *l);

/* What the calls from `first` on need of the earlier ones: the virtual storages that they read, that none of them wrote
 * before, and that are not those of the n tensors `known`. */
td_status td_trace_kept(const td_trace *t, size_t first, td_tensor *const *known, int n, td_storage_list *kept);

#endif
