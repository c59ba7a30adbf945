/* The reverse pass: nodes in the reverse order of their recording, each rule turning cotangents of results into
 * cotangents of operands. Rules are ordinary operations, so with recording on the pass is itself differentiable. */
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "graph/key.h"
#include "graph/tape.h"
#include "ops/ops.h"

/* ---- A growing array of pointers ---- */
typedef struct {
  void **item;
  size_t count, capacity;
} list;

static td_status list_push(list *l, void *p) {
  if (l->count == l->capacity) {
    size_t wanted = l->capacity ? 2 * l->capacity : 64;
    void **grown = td_alloc(wanted * sizeof *grown);
    if (!grown) return td_last_status();
    if (l->count) memcpy(grown, l->item, l->count * sizeof *grown);
    td_free(l->item, l->capacity * sizeof *grown);
    l->item = grown;
    l->capacity = wanted;
  }
  l->item[l->count++] = p;
  return TD_OK;
}
static void list_free(list *l) { td_free(l->item, l->capacity * sizeof *l->item); }

/* ---- Collecting the graph ---- */

static uint64_t pass_number;

/* The state of one pass. Nodes are sorted by seq. For node k, grads of its results are grad[first[k] + slot], and its
 * operand i comes from node source[in_first[k] + i] (SIZE_MAX: not followed). */
typedef struct {
  list nodes;
  size_t *first, *in_first, *source;
  td_tensor **grad;
  bool *wanted, *asked, *end; /* leads to an input; is one; is one, and the pass stops there */
  size_t ngrad, nsource, bytes;
} pass;

static int by_seq(const void *a, const void *b) {
  uint64_t x = (*(td_node *const *)a)->seq, y = (*(td_node *const *)b)->seq;
  return x < y ? -1 : x > y;
}

/* Into the order of recording: few, or nearly so, by insertion. */
static void sort_nodes(void **item, size_t n) {
  enum { FEW = 48 };
  if (n > FEW) {
    qsort(item, n, sizeof *item, by_seq);
    return;
  }
  for (size_t i = 1; i < n; i++) {
    td_node *x = item[i];
    size_t k = i;
    for (; k > 0 && ((td_node *)item[k - 1])->seq > x->seq; k--) item[k] = item[k - 1];
    item[k] = x;
  }
}

/* Every node that the outputs depend on and that was recorded at `since` or later, in order of recording. */
static td_status collect(list *nodes, td_tensor *const *outputs, int noutputs, uint64_t since) {
  uint64_t mark = ++pass_number;
  for (int i = 0; i < noutputs; i++) {
    td_node *n = outputs[i]->node;
    if (!n || n->mark == mark || n->seq < since) continue;
    n->mark = mark;
    if (list_push(nodes, n)) return td_last_status();
  }
  for (size_t k = 0; k < nodes->count; k++) {
    td_node *n = nodes->item[k];
    for (int i = 0; i < n->nin; i++) {
      td_node *m = n->need[i] && n->in[i] ? n->in[i]->node : NULL;
      if (!m || m->mark == mark || m->seq < since) continue;
      m->mark = mark;
      if (list_push(nodes, m)) return td_last_status();
    }
  }
  for (size_t k = 0; k < nodes->count / 2; k++) {  /* usually found newest first */
    void *swap = nodes->item[k];
    nodes->item[k] = nodes->item[nodes->count - 1 - k];
    nodes->item[nodes->count - 1 - k] = swap;
  }
  bool sorted = true;
  for (size_t k = 1; k < nodes->count && sorted; k++)
    sorted = by_seq(&nodes->item[k - 1], &nodes->item[k]) < 0;
  if (!sorted) sort_nodes(nodes->item, nodes->count);
  for (size_t k = 0; k < nodes->count; k++) ((td_node *)nodes->item[k])->place = k;
  return TD_OK;
}

static void pass_free(pass *p) {
  size_t n = p->nodes.count;
  if (p->grad)
    for (size_t i = 0; i < p->ngrad; i++) td_tensor_release(p->grad[i]);
  for (size_t i = 0; i < n; i++) td_node_release(p->nodes.item[i]);
  td_free(p->grad, p->bytes);
  list_free(&p->nodes);
}

/* Lays out the pass. Afterwards no mark or place is read again, so rules may run passes of their own. */
static td_status pass_prepare(pass *p, td_tensor *const *outputs, int noutputs, uint64_t since) {
  td_status s = collect(&p->nodes, outputs, noutputs, since);
  size_t n = p->nodes.count;
  for (size_t k = 0; k < n; k++) td_node_retain(p->nodes.item[k]);
  if (s) return s;
  for (size_t k = 0; k < n; k++) {
    p->ngrad += (size_t)((td_node *)p->nodes.item[k])->nout;
    p->nsource += (size_t)((td_node *)p->nodes.item[k])->nin;
  }
  size_t words = p->ngrad + 2 * n + p->nsource;  /* one block for all that follows */
  p->bytes = words * sizeof(size_t) + 3 * n;
  p->grad = td_alloc(p->bytes);
  if (!p->grad) return td_last_status();
  p->first = (size_t *)(void *)(p->grad + p->ngrad);
  p->in_first = p->first + n;
  p->source = p->in_first + n;
  p->wanted = (bool *)(p->source + p->nsource);
  p->asked = p->wanted + n;
  p->end = p->asked + n;
  memset(p->grad, 0, p->ngrad * sizeof *p->grad);
  memset(p->wanted, 0, 3 * n);
  for (size_t k = 0, g = 0, e = 0; k < n; k++) {
    td_node *node = p->nodes.item[k];
    p->first[k] = g;
    p->in_first[k] = e;
    g += (size_t)node->nout;
    for (int i = 0; i < node->nin; i++, e++) {
      td_node *m = node->need[i] && node->in[i] ? node->in[i]->node : NULL;
      p->source[e] = m && m->mark == pass_number && m->seq >= since ? m->place : SIZE_MAX;
    }
  }
  return TD_OK;
}

/* ---- Adding gradients ---- */

/* May g be written in place: nobody else looks at it? */
static bool is_ours(const td_tensor *g) {
  return g->refs == 1 && g->storage && g->storage->refs == 1 && !g->storage->is_virtual && !g->node &&
         td_tensor_is_contiguous(g) && !g->weak;
}

/* *sum += g. */
static td_status accumulate(td_tensor **sum, td_tensor *g) {
  if (!*sum) {
    *sum = td_tensor_retain(g);
    return TD_OK;
  }
  td_tensor *both[2] = {*sum, g}, *out[TD_MAX_OUT];
  if (!td_recording && is_ours(*sum)) return td_apply_inplace(&td_op_add, both, 2, NULL);
  td_status s = td_apply(&td_op_add, both, 2, NULL, out);
  if (s) return s;
  td_tensor_release(*sum);
  *sum = out[0];
  return TD_OK;
}

static td_status add_to_leaf(td_node *leaf, td_tensor *g) {
  if (td_capture_era)
    return td_fail(TD_EGRAD,
                   "backward: a captured function cannot add to the gradients of leaves; use tide.gradients, or "
                   "tide.train_step");
  if (leaf->grad || td_recording) return accumulate(&leaf->grad, g);
  bool private = g->storage->refs == 1 && td_tensor_is_contiguous(g) && g->refs == 1;
  leaf->grad = private ? td_tensor_retain(g) : td_tensor_clone(g);
  return leaf->grad ? TD_OK : td_last_status();
}

/* ---- One node ---- */

static td_status run_hooks(td_node *n, td_tensor **grad) {
  for (td_hook *h = n->hooks; h; h = h->next) {
    if (!grad[h->slot]) continue;
    td_clear_error();
    td_tensor *replaced = h->call(h->data, grad[h->slot]);
    if (td_last_status()) {
      td_tensor_release(replaced);
      return td_last_status();
    }
    if (!replaced) continue;
    td_tensor_release(grad[h->slot]);
    grad[h->slot] = replaced;
  }
  return TD_OK;
}

static td_status check_usable(const td_node *n) {
  if (n->used)
    return td_fail(TD_EGRAD,
                   "backward: the graph through %s was freed by an earlier backward; pass retain_graph = true "
                   "to that one",
                   n->op->name);
  for (int i = 0; i < n->nin; i++)
    if (n->version[i] != UINT32_MAX && n->in[i]->storage && n->in[i]->storage->version != n->version[i])
      return td_fail(TD_EGRAD,
                     "backward: operand %d of %s was written in place after it was used; its gradient is lost", i + 1,
                     n->op->name);
  for (int i = 0; i < n->nout; i++)
    if (n->out[i] && n->out[i]->storage->version != n->out_version[i])
      return td_fail(TD_EGRAD, "backward: the result of %s was written in place, but its gradient needs it",
                     n->op->name);
  return TD_OK;
}

/* Results as the rule sees them: with the node attached again, so that a recorded rule is differentiable. */
static td_status lend_outputs(td_node *n, td_tensor **out) {
  for (int i = 0; i < n->nout; i++) {
    out[i] = NULL;
    if (!n->out[i]) continue;
    out[i] = td_auto(td_tensor_alias(n->out[i]));
    if (!out[i]) return td_last_status();
    if (td_recording) {
      out[i]->node = td_node_retain(n);
      out[i]->slot = i;
    }
  }
  return TD_OK;
}

/* A cotangent in its operand's own shape and type. */
static td_tensor *fitted(td_tensor *g, const td_tensor *operand) {
  if (!td_tensor_same_shape(g, operand)) {
    if (g->ndim < operand->ndim) g = td_expand(g, operand->ndim, operand->shape);
    else g = td_sum_to(g, operand->ndim, operand->shape);
    if (g && !td_tensor_same_shape(g, operand)) g = td_expand(g, operand->ndim, operand->shape);
  }
  return td_cast(g, operand->dtype);
}

/* Runs node k's rule and adds what it gives to the operands' gradients. */
static td_status step_back(pass *p, size_t k) {
  td_node *n = p->nodes.item[k];
  td_tensor *out[TD_MAX_OUT], **dout = p->grad + p->first[k];
  td_status s = check_usable(n);
  if (!s) s = lend_outputs(n, out);
  if (s) return s;
  enum { USUAL = 8 };
  td_tensor *few[USUAL], **din = few;
  bool few_need[USUAL], *need = few_need;
  size_t nin = (size_t)n->nin;
  if (nin > USUAL) {
    din = td_alloc(nin * sizeof *din);
    need = td_alloc(nin * sizeof *need);
    if (!din || !need) return td_last_status();
  }
  for (size_t i = 0; i < nin; i++) {
    size_t m = p->source[p->in_first[k] + i];
    need[i] = m != SIZE_MAX && p->wanted[m];
    din[i] = NULL;
  }
  td_rule r = {.op = n->op, .a = &n->a, .nin = n->nin, .nout = n->nout, .in = n->in, .out = out, .dout = dout,
               .need = need, .din = din, .data = n->data};
  td_clear_error();
  n->op->vjp(&r);
  s = td_last_status();
  for (size_t i = 0; i < nin && !s; i++) {
    if (!need[i] || !din[i]) continue;
    td_tensor *g = fitted(din[i], n->in[i]);
    size_t m = p->source[p->in_first[k] + i];
    s = g ? accumulate(&p->grad[p->first[m] + (size_t)n->in[i]->slot], g) : td_last_status();
  }
  if (nin > USUAL) {
    td_free(din, nin * sizeof *din);
    td_free(need, nin * sizeof *need);
  }
  return s;
}

/* What a used node kept is freed at once; the node itself lives as long as tensors point at it. */
static void free_used(td_node *n) {
  n->used = true;
  for (int i = 0; i < n->nin; i++) {
    td_tensor_release(n->in[i]);
    n->in[i] = NULL;
    n->need[i] = false;
  }
  for (int i = 0; i < n->nout; i++) {
    td_tensor_release(n->out[i]);
    n->out[i] = NULL;
  }
  if (n->data_free) n->data_free(n->data);
  n->data = NULL;
  n->data_free = NULL;
}

/* ---- The pass ---- */

static td_status seed(pass *p, td_tensor *output, td_tensor *cotangent) {
  if (!output->node) return td_fail(TD_EGRAD, "backward: no gradient flows through the output; nothing it was made "
                                    "from requires_grad, or it was made under no_grad");
  if (!cotangent && output->numel != 1)
    return td_fail(TD_ESHAPE, "backward: the output has shape (%s), expected one element, or a cotangent of that shape",
                   td_tensor_shape_string(output));
  if (cotangent && !td_tensor_same_shape(cotangent, output))
    return td_fail(TD_ESHAPE, "backward: the cotangent has shape (%s), the output (%s)",
                   td_tensor_shape_string(cotangent), td_tensor_shape_string(output));
  if (output->node->mark != pass_number) return TD_OK;  /* older than every input */
  td_tensor *g = cotangent ? td_cast(cotangent, output->dtype) : td_ones_like(output);
  if (!g) return td_last_status();
  return accumulate(&p->grad[p->first[output->node->place] + (size_t)output->slot], g);
}

/* Which nodes lead to an input; without inputs, all. */
static void mark_wanted(pass *p, td_tensor *const *inputs, int ninputs, const size_t *input_place, bool stop) {
  size_t n = p->nodes.count;
  for (size_t k = 0; k < n; k++) p->wanted[k] = ninputs == 0;
  for (int i = 0; i < ninputs; i++)
    if (inputs[i]->node && input_place[i] != SIZE_MAX) {
      p->wanted[input_place[i]] = p->asked[input_place[i]] = true;
      p->end[input_place[i]] = stop;
    }
  for (size_t k = 0; k < n && ninputs; k++) {
    td_node *node = p->nodes.item[k];
    for (int i = 0; i < node->nin && !p->wanted[k]; i++) {
      size_t m = p->source[p->in_first[k] + (size_t)i];
      p->wanted[k] = m != SIZE_MAX && p->wanted[m];
    }
  }
}

static bool has_gradient(const pass *p, size_t k) {
  const td_node *n = p->nodes.item[k];
  for (int i = 0; i < n->nout; i++)
    if (p->grad[p->first[k] + (size_t)i]) return true;
  return false;
}

/* The nodes newest first. An input's own node is passed on only if something wanted lies behind it. */
static td_status sweep(pass *p, bool to_leaves, bool keep_graph) {
  for (size_t k = p->nodes.count; k-- > 0;) {
    td_node *n = p->nodes.item[k];
    if (!p->wanted[k] || !has_gradient(p, k)) continue;
    td_status s = run_hooks(n, p->grad + p->first[k]);
    if (s) return s;
    if (!n->op) {
      if (to_leaves) s = add_to_leaf(n, p->grad[p->first[k]]);
    } else {
      bool behind = false;
      for (int i = 0; i < n->nin && !behind && !p->end[k]; i++) {
        size_t m = p->source[p->in_first[k] + (size_t)i];
        behind = m != SIZE_MAX && p->wanted[m];
      }
      if (behind || (n->used && !p->end[k])) {
        size_t mark = td_auto_mark();
        s = step_back(p, k);
        td_auto_release(mark);
        if (!s && !keep_graph) free_used(n);
      }
    }
    if (s) return s;
    if (!p->asked[k])  /* an input's gradient is the answer; the others have been passed on */
      for (int i = 0; i < n->nout; i++) {
        td_tensor_release(p->grad[p->first[k] + (size_t)i]);
        p->grad[p->first[k] + (size_t)i] = NULL;
      }
  }
  return TD_OK;
}

static td_status backward(td_tensor *const *outputs, td_tensor *const *cotangents, int noutputs,
                          td_tensor *const *inputs, int ninputs, td_tensor **grads, unsigned flags) {
  pass p = {0};
  uint64_t since = 0;
  for (int i = 0; i < ninputs; i++)
    if (inputs[i]->node && (since == 0 || inputs[i]->node->seq < since)) since = inputs[i]->node->seq;
  td_status s = pass_prepare(&p, outputs, noutputs, since);
  size_t *place = ninputs ? td_alloc((size_t)ninputs * sizeof *place) : NULL;
  if (ninputs && !place) s = td_last_status();
  for (int i = 0; i < ninputs && place; i++)
    place[i] = inputs[i]->node && inputs[i]->node->mark == pass_number ? inputs[i]->node->place : SIZE_MAX;
  for (int i = 0; i < noutputs && !s; i++) s = seed(&p, outputs[i], cotangents ? cotangents[i] : NULL);
  if (!s) mark_wanted(&p, inputs, ninputs, place, flags & TD_STOP_AT_INPUTS);
  if (!s) s = sweep(&p, ninputs == 0, flags & (TD_CREATE_GRAPH | TD_RETAIN_GRAPH));
  for (int i = 0; i < ninputs; i++)
    grads[i] =
        !s && place[i] != SIZE_MAX ? td_tensor_retain(p.grad[p.first[place[i]] + (size_t)inputs[i]->slot]) : NULL;
  td_free(place, (size_t)ninputs * sizeof *place);
  pass_free(&p);
  return s;
}

td_status td_backward(td_tensor *const *outputs, td_tensor *const *cotangents, int noutputs, td_tensor *const *inputs,
                      int ninputs, td_tensor **grads, unsigned flags) {
  bool was = td_recording;
  size_t mark = td_auto_mark();
  td_recording = flags & TD_CREATE_GRAPH;
  td_status s = backward(outputs, cotangents, noutputs, inputs, ninputs, grads, flags);
  td_recording = was;
  td_auto_release(mark);
  return s;
}

/* ---- What a function closed over ---- */

td_status td_tape_externals(td_tensor *const *outputs, int noutputs, uint64_t since, td_tensor ***found, size_t *count,
                            size_t *capacity) {
  list nodes = {0}, out = {0};
  td_status s = collect(&nodes, outputs, noutputs, since);
  for (size_t k = 0; k < nodes.count && !s; k++) {
    td_node *n = nodes.item[k];
    for (int i = 0; i < n->nin && !s; i++) {
      td_tensor *t = n->need[i] ? n->in[i] : NULL;
      if (!t || !t->node || t->node->seq >= since) continue;
      bool known = false;
      for (size_t j = 0; j < out.count && !known; j++) {
        td_tensor *o = out.item[j];
        known = o->node == t->node && o->slot == t->slot;
      }
      if (!known && !(s = list_push(&out, t))) td_tensor_retain(t);
    }
  }
  for (int i = 0; i < noutputs && !s; i++)  /* an output may be such a tensor itself */
    if (outputs[i]->node && outputs[i]->node->seq < since) {
      bool known = false;
      for (size_t j = 0; j < out.count && !known; j++)
        known = ((td_tensor *)out.item[j])->node == outputs[i]->node &&
                ((td_tensor *)out.item[j])->slot == outputs[i]->slot;
      if (!known && !(s = list_push(&out, outputs[i]))) td_tensor_retain(outputs[i]);
    }
  list_free(&nodes);
  *found = (td_tensor **)out.item;
  *count = out.count;
  *capacity = out.capacity;
  return s;
}

/* ---- A key for what was recorded ---- */

typedef struct {
  uint64_t since;
  td_tensor *const *inputs;
  size_t n;
  uint64_t (*storage)(const void *data, const td_storage *s);
  const void *data;
} recorded;

/* A tensor that a node holds: shape, and which storage's elements. */
static bool mix_tensor(const recorded *r, const td_tensor *t, uint64_t key[2]) {
  uint64_t which = t->storage ? r->storage(r->data, t->storage) : 0;
  td_key_mix(key, which << 16 | (uint64_t)t->dtype << 8 | (uint64_t)t->ndim);
  td_key_mix_bytes(key, t->shape, (size_t)t->ndim * sizeof *t->shape);
  if (!t->storage) return true;
  td_key_mix(key, (uint64_t)(t->data - (char *)t->storage->data));
  td_key_mix_bytes(key, t->stride, (size_t)t->ndim * sizeof *t->stride);
  return which != 0;
}

/* Where an operand comes from: a node of the record, or an input. */
static bool mix_source(const recorded *r, const td_tensor *t, uint64_t key[2]) {
  size_t place = t->node->place, kind = 1;
  if (t->node->mark != pass_number || t->node->seq < r->since) {
    for (place = 0; place < r->n; place++)
      if (r->inputs[place]->node == t->node && r->inputs[place]->slot == t->slot) break;
    if (place == r->n || t->node->hooks) return false;
    kind = 2;
  }
  td_key_mix(key, (uint64_t)place << 16 | (uint64_t)t->slot << 8 | kind);
  return true;
}

static bool mix_node(const recorded *r, const td_node *n, uint64_t key[2]) {
  if (n->custom || n->hooks || n->used) return false;
  td_key_mix(key, (uint64_t)(uintptr_t)n->op);
  td_key_mix(key, (uint64_t)n->nin << 8 | (uint64_t)n->nout);
  td_key_mix_bytes(key, &n->a, sizeof n->a);
  for (int i = 0; i < n->nin; i++) {
    td_key_mix(key, n->need[i]);
    if (!mix_tensor(r, n->in[i], key) || (n->need[i] && !mix_source(r, n->in[i], key))) return false;
  }
  for (int i = 0; i < n->nout; i++)
    if (n->out[i] && !mix_tensor(r, n->out[i], key)) return false;
  return true;
}

bool td_tape_key(td_tensor *y, uint64_t since, td_tensor *const *inputs, size_t n,
                 uint64_t (*storage)(const void *data, const td_storage *s), const void *data, uint64_t key[2]) {
  recorded r = {since, inputs, n, storage, data};
  list nodes = {0};
  bool whole = !collect(&nodes, &y, 1, since);
  for (size_t k = 0; k < nodes.count && whole; k++) {
    const td_node *node = nodes.item[k];
    whole = node->op ? mix_node(&r, node, key) : !node->hooks;  /* leaves made meanwhile: t and y */
    for (size_t i = 0; !node->op && whole; i++) {
      if (i == n) whole = false;
      else if (inputs[i]->node == node) break;
    }
    td_key_mix(key, !node->op);
  }
  list_free(&nodes);
  return whole && mix_source(&r, y, key);
}

/* ---- Derivatives through a twin ---- */

/* Operands are passed through an identity (when recording) or made leaves, so that the same tensor used twice has two
 * places; then the twin's derivative is the rule's answer. */
static void rule_by_twin(td_rule *r, td_twin twin) {
  bool was = td_recording;
  td_tensor *in[TD_MAX_OUT], *want[TD_MAX_OUT], *grads[TD_MAX_OUT];
  int which[TD_MAX_OUT], n = 0;
  td_recording = true;
  for (int i = 0; i < r->nin; i++) {
    td_tensor *t = r->in[i];
    in[i] = td_auto(td_tensor_alias(t));
    if (in[i] && r->need[i]) {
      if (was) in[i] = td_do(td_op_find("contiguous"), NULL, 1, t);
      else if (td_requires_grad(in[i], true)) in[i] = NULL;
      which[n] = i;
      want[n++] = in[i];
    }
    if (!in[i]) {
      td_recording = was;
      return;
    }
  }
  td_tensor *y = twin(r, in), *dy = r->dout[0];
  td_recording = was;
  if (!y || td_backward(&y, &dy, 1, want, n, grads, was ? TD_CREATE_GRAPH : 0)) return;
  for (int i = 0; i < n; i++) r->din[which[i]] = td_auto(grads[i]);
}

void td_backward_init(void);
void td_backward_init(void) { td_rule_by_twin = rule_by_twin; }
