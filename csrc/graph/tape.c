/* Recording, nodes and their lifetime. The reverse pass is in backward.c. */
#include "graph/tape.h"
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"

static uint64_t next_seq = 1;

uint64_t td_tape_now(void) { return next_seq; }

/* ---- Lifetime ---- */

static size_t node_bytes(int nin) {
  return sizeof(td_node) + (size_t)nin * (sizeof(td_tensor *) + sizeof(uint32_t) + sizeof(bool));
}

/* A node with room for nin operands behind it; they start as NULL. */
static td_node *node_new(const td_op *op, int nin) {
  td_node *n = td_alloc(node_bytes(nin));
  if (!n) return NULL;
  memset(n, 0, node_bytes(nin));
  n->refs = 1;
  n->seq = next_seq++;
  n->op = op;
  n->nin = nin;
  n->in = (td_tensor **)(void *)(n + 1);
  n->version = (uint32_t *)(void *)(n->in + nin);
  n->need = (bool *)(n->version + nin);
  return n;
}

td_node *td_node_retain(td_node *n) {
  if (n) n->refs++;
  return n;
}

/* Releasing a node releases its operands, which may release their nodes, and so on: a long chain is taken
 * apart with a list instead of by recursion. The list goes through `place`, which a dead node does not need. */
static td_node *dying;
static bool busy;

static void node_destroy(td_node *n) {
  for (int i = 0; i < n->nin; i++) td_tensor_release(n->in[i]);
  for (int i = 0; i < n->nout; i++) td_tensor_release(n->out[i]);
  td_tensor_release(n->grad);
  if (n->data_free) n->data_free(n->data);
  for (td_hook *h = n->hooks, *next; h; h = next) {
    next = h->next;
    h->free(h->data);
    td_free(h, sizeof *h);
  }
  td_free(n, node_bytes(n->nin));
}

void td_node_release(td_node *n) {
  if (!n || --n->refs > 0) return;
  n->place = (size_t)(uintptr_t)dying;
  dying = n;
  if (busy) return;
  busy = true;
  while (dying) {
    td_node *dead = dying;
    dying = (td_node *)(uintptr_t)dead->place;
    node_destroy(dead);
  }
  busy = false;
}

static void release_opaque(struct td_node *n) { td_node_release(n); }
static void retain_opaque(struct td_node *n) { td_node_retain(n); }

/* ---- Recording ---- */

/* What the node keeps of operand i: the tensor, or its shape alone when its values are not needed and are many. */
static td_tensor *kept_operand(td_tensor *t, bool keep) {
  enum { SMALL = 4096 };
  if (keep || t->numel <= SMALL) return td_tensor_retain(t);
  return td_tensor_shape_only(t);
}

static td_status attach(td_node *n, td_tensor *const *in, td_tensor *const *out, int nout, unsigned keep,
                        unsigned ints) {
  for (int i = 0; i < n->nin; i++) {
    bool kept = i < 16 && (keep >> i & 1);
    n->need[i] = in[i]->node != NULL;
    n->in[i] = kept_operand(in[i], kept);
    if (!n->in[i]) return td_last_status();
    n->version[i] = kept && in[i]->storage ? in[i]->storage->version : UINT32_MAX;
  }
  n->nout = nout;
  for (int i = 0; i < nout; i++) {
    if (keep >> (16 + i) & 1) {  /* an alias without the node: no cycle */
      n->out[i] = td_tensor_alias(out[i]);
      if (!n->out[i]) return td_last_status();
      n->out_version[i] = out[i]->storage->version;
    }
  }
  for (int i = 0; i < nout; i++) {
    if (ints >> i & 1) continue;
    out[i]->node = td_node_retain(n);
    out[i]->slot = i;
  }
  return TD_OK;
}

static td_status record(td_call *c) {
  td_node *n = node_new(c->op, c->nin);
  if (!n) return td_last_status();
  n->a = *c->a;
  unsigned ints = c->op->ints;
  for (int i = 0; i < c->nout; i++)
    if (!td_dtype_is_real(c->out[i]->dtype)) ints |= 1u << i;
  td_status s = attach(n, c->in, c->out, c->nout, c->op->keep, ints);
  td_node_release(n);
  return s;
}

td_status td_tape_custom(const td_op *op, td_tensor *const *in, int nin, td_tensor *const *out, int nout, void *data,
                         void (*data_free)(void *)) {
  td_node *n = node_new(op, nin);
  if (!n) {
    if (data_free) data_free(data);
    return td_last_status();
  }
  n->data = data;
  n->data_free = data_free;
  n->custom = true;
  td_status s = attach(n, in, out, nout, op->keep, op->ints);
  td_node_release(n);
  return s;
}

uint64_t td_leaf_changes;

td_status td_requires_grad(td_tensor *t, bool on) {
  if (on && !td_dtype_is_real(t->dtype))
    return td_fail(TD_EDTYPE, "requires_grad: a tensor of %s has no gradient, expected float32 or float64",
                   td_dtype_name(t->dtype));
  if (t->node && t->node->op) {
    if (on) return TD_OK;
    return td_fail(TD_EGRAD, "requires_grad: this tensor was made by %s and carries its gradient; use detach()",
                   t->node->op->name);
  }
  if (on && !t->node) {
    t->node = node_new(NULL, 0);
    if (!t->node) return td_last_status();
    t->node->nout = 1;
    t->slot = 0;
    td_leaf_changes += t->was_captured;
  } else if (!on && t->node) {
    td_node_release(t->node);
    t->node = NULL;
    td_leaf_changes += t->was_captured;
  }
  return TD_OK;
}

bool td_is_leaf(const td_tensor *t) { return t->node && !t->node->op; }

td_status td_hook_add(td_tensor *t, td_tensor *(*call)(void *, td_tensor *), void (*free)(void *), void *data) {
  td_hook *h = t->node ? td_alloc(sizeof *h) : NULL;
  if (!h) {
    free(data);
    return t->node ? td_last_status()
                   : td_fail(TD_EGRAD, "register_hook: no gradient flows through this tensor");
  }
  *h = (td_hook){.slot = t->slot, .call = call, .free = free, .data = data};
  td_hook **end = &t->node->hooks;
  while (*end) end = &(*end)->next;
  *end = h;
  return TD_OK;
}

extern void td_backward_init(void);

void td_tape_init(void) {
  td_tensor_node_release = release_opaque;
  td_tensor_node_retain = retain_opaque;
  td_record = record;
  td_backward_init();
}
