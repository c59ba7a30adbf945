/* Passes that leave less to do: common subexpressions, steps that nobody needs, copies that change nothing. */
#include <string.h>
#include "graph/ir.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

/* ---- Common subexpressions ---- */

/* Reads of buffer `from` become reads of buffer `to`, which holds the same elements. */
static void redirect(td_ir *ir, int from, int to) {
  for (int i = 0; i < ir->nstep; i++)
    for (int k = 0; k < ir->step[i]->nin; k++)
      if (ir->step[i]->in[k].buffer == from) ir->step[i]->in[k].buffer = to;
  for (int i = 0; i < ir->noutput; i++)
    if (ir->output[i].buffer == from) ir->output[i].buffer = to;
}

/* Can a value of this buffer be read later instead of now? */
static bool is_settled(const td_ir *ir, int buffer) {
  const td_buffer *f = &ir->buffer[buffer];
  return !f->rewritten && !f->written;
}

static bool settled_operands(const td_ir *ir, const td_step *s) {
  for (int i = 0; i < s->nin; i++)
    if (!is_settled(ir, s->in[i].buffer)) return false;
  for (int i = 0; i < s->nout; i++)
    if (!is_settled(ir, s->out[i].buffer)) return false;
  return true;
}

static bool same_chain(const td_chain *a, const td_chain *b) {
  if (!a || !b) return a == b;
  return a->dtype == b->dtype && a->nstep == b->nstep &&
         !memcmp(a->step, b->step, sizeof *a->step * (size_t)a->nstep) &&
         !memcmp(a->out_reg, b->out_reg, sizeof a->out_reg);
}

static bool same_step(const td_step *a, const td_step *b) {
  if (a->op != b->op || a->nin != b->nin || a->nout != b->nout || memcmp(&a->a, &b->a, sizeof a->a)) return false;
  if (!same_chain(a->chain, b->chain)) return false;
  for (int i = 0; i < a->nin; i++)
    if (!td_value_same(&a->in[i], &b->in[i])) return false;
  for (int i = 0; i < a->nout; i++)
    if (a->out[i].dtype != b->out[i].dtype || a->out[i].numel != b->out[i].numel) return false;
  return true;
}

/* Equal small constants are one buffer. */
static void unite_constants(td_ir *ir) {
  enum { SMALL = 256 };
  for (int i = 0; i < ir->nbuffer; i++) {
    const td_buffer *a = &ir->buffer[i];
    if (a->kind != TD_BUF_CONSTANT || a->bytes > SMALL) continue;
    for (int j = 0; j < i; j++) {
      const td_buffer *b = &ir->buffer[j];
      if (b->kind != TD_BUF_CONSTANT || b->bytes != a->bytes) continue;
      const td_tensor *x = ir->constant[a->slot], *y = ir->constant[b->slot];
      if (x->dtype != y->dtype || memcmp(x->storage->data, y->storage->data, a->bytes)) continue;
      redirect(ir, i, j);
      break;
    }
  }
}

td_status td_pass_reuse(td_ir *ir) {
  unite_constants(ir);
  for (int i = 0; i < ir->nstep; i++) {
    td_step *s = ir->step[i];
    if (s->dead || !settled_operands(ir, s)) continue;
    for (int j = 0; j < i; j++) {
      td_step *t = ir->step[j];
      if (t->dead || !same_step(s, t) || !settled_operands(ir, t)) continue;
      for (int k = 0; k < s->nout; k++) redirect(ir, s->out[k].buffer, t->out[k].buffer);
      s->dead = true;
      break;
    }
  }
  for (int i = 0; i < ir->nstep; i++) {  /* copies of whole buffers */
    td_step *s = ir->step[i];
    if (s->dead || !s->chain || s->chain->nstep || s->nout != 1 || !settled_operands(ir, s)) continue;
    if (s->in[0].dtype != s->out[0].dtype || !td_value_is_whole(ir, &s->in[0]) || !td_value_is_whole(ir, &s->out[0]))
      continue;
    redirect(ir, s->out[0].buffer, s->in[0].buffer);
    s->dead = true;
  }
  td_ir_analyse(ir);
  return TD_OK;
}

/* ---- Dead steps ---- */

/* Marks what step s reads when s is needed; gives whether anything was new. */
static bool mark_step(const td_ir *ir, const td_step *s, bool *live) {
  bool needed = false, more = false;
  for (int k = 0; k < s->nout; k++) needed |= live[s->out[k].buffer] || ir->buffer[s->out[k].buffer].written;
  for (int k = 0; k < s->nin && needed; k++) {
    more |= !live[s->in[k].buffer];
    live[s->in[k].buffer] = true;
  }
  return more;
}

td_status td_pass_dead(td_ir *ir) {
  bool *live = td_pool_get(&ir->pool, (size_t)ir->nbuffer + 1), more = true;
  if (!live) return td_last_status();
  for (int i = 0; i < ir->noutput; i++) live[ir->output[i].buffer] = true;
  while (more) {  /* once, but for what is written in place */
    more = false;
    for (int i = ir->nstep; i-- > 0;) more |= mark_step(ir, ir->step[i], live);
  }
  for (int i = 0; i < ir->nstep; i++) {
    td_step *s = ir->step[i];
    bool needed = false;
    for (int k = 0; k < s->nout; k++) needed |= live[s->out[k].buffer] || ir->buffer[s->out[k].buffer].written;
    s->dead = !needed;
  }
  td_ir_analyse(ir);
  return TD_OK;
}
