/* The tape: what td_apply recorded, and the reverse pass over it.
 *
 * A recorded call is a node; a tensor that carries a gradient points at the node that made it. A leaf (a tensor on
 * which the user called requires_grad) points at a leaf node, which holds its accumulated gradient. Nodes point only
 * at what was made before them, so reference counts free a graph as soon as nobody can ask for its gradient. */
#ifndef TD_GRAPH_TAPE_H
#define TD_GRAPH_TAPE_H
#include "ops/op.h"

/* Called with a gradient as it becomes known; gives NULL to keep it or one reference to what replaces it. A failure is
 * left by td_fail. */
typedef struct td_hook {
  struct td_hook *next;
  int slot;
  td_tensor *(*call)(void *data, td_tensor *gradient);
  void (*free)(void *data);
  void *data;
} td_hook;

typedef struct td_node {
  int refs;
  int nin, nout;
  bool used;              /* a reverse pass has freed what this node kept */
  bool custom;            /* made by td_tape_custom: its rule is more than its operation says */
  uint64_t seq;           /* order of recording: operands' nodes have smaller numbers */
  const td_op *op;        /* NULL: a leaf */
  td_attrs a;
  td_tensor **in;         /* operands, values kept or shape only */
  uint32_t *version;      /* of kept operands, when they were recorded */
  bool *need;             /* which operands carry a node */
  td_tensor *out[TD_MAX_OUT];
  uint32_t out_version[TD_MAX_OUT];
  void *data;             /* of a custom node, given to its rule */
  void (*data_free)(void *data);
  td_tensor *grad;        /* of a leaf */
  td_hook *hooks;
  uint64_t mark;          /* of the reverse pass under way: which pass, and this node's place in it */
  size_t place;
} td_node;

/* Connects the tape to td_apply; once, at load. */
void td_tape_init(void);

/* Makes t a leaf, or a constant again. A tensor made by an operation cannot become a constant: detach it. */
td_status td_requires_grad(td_tensor *t, bool on);
/* How often a tensor that a captured function read from outside became a leaf or a constant. */
extern uint64_t td_leaf_changes;
bool td_is_leaf(const td_tensor *t);

/* The number the next node will get: everything recorded from now on has a number at least this great. */
uint64_t td_tape_now(void);

/* Makes the outputs results of one node on `in`, whose derivative is op->vjp with `data`. For operations that are not
 * in the table: Lua's own, checkpoints, solvers. data is freed with the node, or at once on failure. */
td_status td_tape_custom(const td_op *op, td_tensor *const *in, int nin, td_tensor *const *out, int nout,
                         void *data, void (*data_free)(void *));

enum {
  TD_CREATE_GRAPH = 1,  /* record the pass itself, and keep the graph */
  TD_RETAIN_GRAPH = 2,  /* keep what the pass used; else it is freed */
  TD_STOP_AT_INPUTS = 4 /* inputs are ends: what one input depends on adds nothing to another's gradient */
};

/* Reverse pass from `outputs` with their cotangents (an entry may be NULL: ones, for one element).
 * With inputs: grads receives a new reference per input, NULL where the outputs do not depend on it.
 * Without (ninputs = 0): gradients are added to the leaves. */
td_status td_backward(td_tensor *const *outputs, td_tensor *const *cotangents, int noutputs,
                      td_tensor *const *inputs, int ninputs, td_tensor **grads, unsigned flags);

/* The tensors made before `since` on which the outputs depend through what was recorded since: the parameters and
 * features that a function closed over. Each is given once, as a new reference; *list is for td_free of
 * *capacity tensors. */
td_status td_tape_externals(td_tensor *const *outputs, int noutputs, uint64_t since, td_tensor ***list, size_t *count,
                            size_t *capacity);

/* Joins to the key what a reverse pass from y would walk through: every node recorded at `since` or later, its
 * operation, operands and results, where `storage` tells for each storage which it is (0: it cannot), and for operands
 * from before, which of the n inputs they are. False when that does not say all: rules of their own, hooks, unknown
 * operands. */
bool td_tape_key(td_tensor *y, uint64_t since, td_tensor *const *inputs, size_t n,
                 uint64_t (*storage)(const void *data, const td_storage *s), const void *data, uint64_t key[2]);

td_status td_hook_add(td_tensor *t, td_tensor *(*call)(void *, td_tensor *), void (*free)(void *), void *data);

td_node *td_node_retain(td_node *n);
void td_node_release(td_node *n);

#endif
