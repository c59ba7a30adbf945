/* What follows a convolution or a normalisation becomes part of it: a sum and an activation are done while the result
 * is still in registers. In a reverse pass the activation's derivative becomes part of the normalisation's, which
 * computes again what went into the activation; then nobody reads that any more, and the forward pass need not store
 * it.
 *
 * Works on chains of one instruction, before they are joined to longer ones. */
#include "graph/ir.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

/* ---- What a step is ---- */

static bool is_chain_of(const td_step *s, td_pw_op op) {
  return s->chain && s->chain->nstep == 1 && s->nout == 1 && s->chain->step[0].op == op;
}

static td_act activation(const td_step *s) {
  static const struct {
    td_pw_op op;
    td_act act;
  } known[] = {{TD_PW_relu, TD_ACT_RELU},
               {TD_PW_silu, TD_ACT_SILU},
               {TD_PW_gelu, TD_ACT_GELU},
               {TD_PW_tanh, TD_ACT_TANH},
               {TD_PW_sigmoid, TD_ACT_SIGMOID}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (is_chain_of(s, known[i].op)) return known[i].act;
  return TD_ACT_NONE;
}

static td_act derivative_of(const td_step *s) {
  if (is_chain_of(s, TD_PW_relu_grad)) return TD_ACT_RELU;
  if (is_chain_of(s, TD_PW_silu_grad)) return TD_ACT_SILU;
  return is_chain_of(s, TD_PW_gelu_grad) ? TD_ACT_GELU : TD_ACT_NONE;
}

static bool is_norm(const td_step *s) {
  return s->op == &td_op_group_norm || s->op == &td_op_group_norm_act || s->op == &td_op_channel_norm ||
         s->op == &td_op_channel_norm_act;
}
static bool is_conv(const td_step *s) { return !s->chain && (s->op == &td_op_conv2d || s->op == &td_op_conv2d_fused); }

static bool is_settled(const td_ir *ir, const td_value *v) {
  const td_buffer *f = &ir->buffer[v->buffer];
  return !f->rewritten && !f->written;
}

/* The index of the one step that reads v, as a whole and nothing else of its buffer; -1 when there are more or none. */
static int only_reader(const td_ir *ir, const td_value *v) {
  const td_buffer *f = &ir->buffer[v->buffer];
  if (f->readers != 1 || f->kind != TD_BUF_TEMP || f->rewritten) return -1;
  for (int i = f->writer + 1; i < ir->nstep; i++)
    for (int k = 0; k < ir->step[i]->nin; k++)
      if (ir->step[i]->in[k].buffer == v->buffer) return td_value_same(&ir->step[i]->in[k], v) ? i : -1;
  return -1;
}

/* Is y, the result of chain `s`, exactly what step `from` could write in place of its own result? */
static bool takes_place(const td_ir *ir, const td_step *s, const td_value *from) {
  const td_value *y = &s->out[0];
  if (y->dtype != from->dtype || y->ndim != from->ndim || !td_value_is_whole(ir, y) || !is_settled(ir, y)) return false;
  for (int i = 0; i < y->ndim; i++)
    if (y->shape[i] != from->shape[i]) return false;
  return true;
}

/* May step `from` run at the place of step `to`? Nobody between reads its results or writes its operands. */
static bool may_move(const td_ir *ir, int from, int to) {
  const td_step *s = ir->step[from];
  for (int k = 0; k < s->nin; k++)
    if (!is_settled(ir, &s->in[k])) return false;
  for (int i = from + 1; i < to; i++)
    for (int k = 0; k < ir->step[i]->nin; k++)
      for (int o = 0; o < s->nout; o++)
        if (ir->step[i]->in[k].buffer == s->out[o].buffer) return false;
  return true;
}

/* Is the operand there before step `at`? */
static bool is_ready(const td_ir *ir, const td_value *v, int at) { return ir->buffer[v->buffer].writer < at; }

/* Step `from` gives the result of chain `to`, which goes; it moves to the chain's place when it has to wait for an
 * operand. */
static void replace(td_ir *ir, int from, int to, bool waits) {
  td_step *s = ir->step[from];
  s->out[0] = ir->step[to]->out[0];
  ir->step[to]->dead = true;
  for (int i = from; i < to && waits; i++) ir->step[i] = ir->step[i + 1];
  if (waits) ir->step[to] = s;
  td_ir_analyse(ir);
}

/* ---- Attributes of the merged operations ---- */

/* The normalisation with an activation, as in csrc/ops/norm.c: 1 x; 2 x, add; 3 x, gamma, beta; 4 all. */
static void become_norm_act(td_step *s) {
  if (s->op == &td_op_group_norm) s->op = &td_op_group_norm_act, s->a.i[2] = TD_ACT_NONE;
  if (s->op == &td_op_channel_norm) s->op = &td_op_channel_norm_act, s->a.i[0] = TD_ACT_NONE;
}
static int64_t *norm_act(td_step *s) { return s->op == &td_op_group_norm_act ? &s->a.i[2] : &s->a.i[0]; }
static bool norm_has_add(const td_step *s) { return s->nin % 2 == 0; }

static void become_conv_fused(td_step *s) {
  if (s->op != &td_op_conv2d) return;
  s->op = &td_op_conv2d_fused;
  s->a.i[TD_CONV_PARTS] = s->nin == 3 ? TD_CONV_BIAS : 0;
  s->a.i[TD_CONV_ACT] = TD_ACT_NONE;
}

/* ---- Merging forward ---- */

static td_status add_operand(td_ir *ir, td_step *s, const td_value *v, int at) {
  td_value *in = td_pool_get(&ir->pool, (size_t)(s->nin + 1) * sizeof *in);
  if (!in) return td_last_status();
  for (int i = 0; i < s->nin; i++) in[i < at ? i : i + 1] = s->in[i];
  in[at] = *v;
  s->in = in;
  s->nin++;
  return TD_OK;
}

/* The operand of the sum `add` that is not v; NULL unless it is a sum of two. */
static const td_value *other_term(const td_step *add, const td_value *v) {
  if (!is_chain_of(add, TD_PW_add) || add->nin != 2) return NULL;
  int mine = td_value_same(&add->in[0], v) ? 0 : td_value_same(&add->in[1], v) ? 1 : -1;
  return mine < 0 ? NULL : &add->in[1 - mine];
}

static bool same_shape(const td_value *a, const td_value *b) {
  if (a->ndim != b->ndim || a->dtype != b->dtype) return false;
  for (int i = 0; i < a->ndim; i++)
    if (a->shape[i] != b->shape[i]) return false;
  return true;
}

/* N×1×1×O beside N×H×W×O */
static bool is_per_channel(const td_value *v, const td_value *y) {
  return v->ndim == 4 && y->ndim == 4 && v->dtype == y->dtype && v->shape[0] == y->shape[0] && v->shape[1] == 1 &&
         v->shape[2] == 1 && v->shape[3] == y->shape[3] && (y->shape[1] > 1 || y->shape[2] > 1);
}

/* The step at i takes over the chain that alone reads its result; gives whether it did. */
static bool merge_next(td_ir *ir, int i, td_status *status) {
  td_step *s = ir->step[i];
  int at = only_reader(ir, &s->out[0]);
  if (at < 0 || !takes_place(ir, ir->step[at], &s->out[0])) return false;
  const td_step *next = ir->step[at];
  td_act act = activation(next);
  const td_value *term = other_term(next, &s->out[0]);
  bool waits = term && !is_ready(ir, term, i);
  if ((term && !is_settled(ir, term)) || (waits && !may_move(ir, i, at))) return false;
  if (is_norm(s)) {
    bool plain = s->op == &td_op_group_norm || s->op == &td_op_channel_norm;
    if (act && (plain || (!*norm_act(s) && !norm_has_add(s)))) {
      become_norm_act(s);
      *norm_act(s) = act;
    } else if (term && same_shape(term, &s->out[0]) && (plain || !norm_has_add(s))) {
      become_norm_act(s);
      *status = add_operand(ir, s, term, s->nin);
    } else {
      return false;
    }
  } else {
    int64_t parts = s->op == &td_op_conv2d ? (s->nin == 3 ? TD_CONV_BIAS : 0) : s->a.i[TD_CONV_PARTS];
    bool done = s->op == &td_op_conv2d_fused && s->a.i[TD_CONV_ACT];
    if (act && !done) {
      become_conv_fused(s);
      s->a.i[TD_CONV_ACT] = act;
    } else if (term && !done && same_shape(term, &s->out[0]) && !(parts & TD_CONV_ADD)) {
      become_conv_fused(s);
      s->a.i[TD_CONV_PARTS] |= TD_CONV_ADD;
      *status = add_operand(ir, s, term, s->nin);
    } else if (term && !done && is_per_channel(term, &s->out[0]) && !(parts & TD_CONV_CHAN)) {
      become_conv_fused(s);
      s->a.i[TD_CONV_PARTS] |= TD_CONV_CHAN;
      *status = add_operand(ir, s, term, s->nin - ((parts & TD_CONV_ADD) != 0));
    } else {
      return false;
    }
  }
  replace(ir, i, at, waits);
  return true;
}

/* ---- Merging backward ---- */

/* The normalisation whose mean is v. */
static const td_step *norm_of(const td_ir *ir, const td_value *mean) {
  int at = ir->buffer[mean->buffer].writer;
  const td_step *s = at < 0 ? NULL : ir->step[at];
  return s && is_norm(s) && td_value_same(&s->out[1], mean) ? s : NULL;
}

/* Is v the normalisation's result, or for relu that of the activation, which has the same sign? */
static bool is_operand_of_act(const td_ir *ir, const td_value *v, const td_step *norm, td_act act) {
  if (td_value_same(v, &norm->out[0])) return true;
  int at = ir->buffer[v->buffer].writer;
  const td_step *s = at < 0 ? NULL : ir->step[at];
  return act == TD_ACT_RELU && s && activation(s) == TD_ACT_RELU && td_value_same(v, &s->out[0]) &&
         td_value_same(&s->in[0], &norm->out[0]);
}

/* group_norm_grad of an activation's derivative becomes one step. */
static bool merge_derivative(td_ir *ir, int i, td_status *status) {
  td_step *g = ir->step[i];
  if (g->op != &td_op_group_norm_grad && g->op != &td_op_channel_norm_grad) return false;
  int at = ir->buffer[g->in[0].buffer].writer;
  const td_step *d = at < 0 ? NULL : ir->step[at];
  const td_step *norm = norm_of(ir, &g->in[2]);
  td_act act = d && only_reader(ir, &g->in[0]) == i ? derivative_of(d) : TD_ACT_NONE;
  if (!act || !norm || d->nin != 2 || !td_value_same(&norm->in[0], &g->in[1])) return false;
  if (norm->op != &td_op_group_norm && norm->op != &td_op_channel_norm) return false;
  const td_value *dy = &d->in[1];
  if (!is_operand_of_act(ir, &d->in[0], norm, act) || !same_shape(dy, &g->in[1]) || !is_settled(ir, dy)) return false;
  g->in[0] = *dy;
  bool groups = g->op == &td_op_group_norm_grad;
  g->op = groups ? &td_op_group_norm_act_grad : &td_op_channel_norm_act_grad;
  g->a.i[groups ? 2 : 0] = act;
  if (g->nin == 5) *status = add_operand(ir, g, &norm->in[2], 5);
  ir->step[at]->dead = true;
  td_ir_analyse(ir);
  return true;
}

td_status td_pass_epilogues(td_ir *ir) {
  td_status s = TD_OK;
  td_ir_analyse(ir);
  for (int i = 0; i < ir->nstep && !s; i++)
    if (merge_derivative(ir, i, &s)) i--;
  for (int i = 0; i < ir->nstep && !s; i++)
    if ((is_norm(ir->step[i]) || is_conv(ir->step[i])) && merge_next(ir, i, &s)) i--;
  return s;
}
