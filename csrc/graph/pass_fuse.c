/* Chains joined: a chain that another one reads element by element becomes its first part, so that what lies between
 * never leaves the first-level cache. The joined chain runs where the reader ran. */
#include <string.h>
#include "graph/ir.h"
#include "kernels/kernels.h"

static bool same_space(const td_chain *a, const td_chain *b) {
  if (a->dtype != b->dtype || a->ndim != b->ndim) return false;
  for (int i = 0; i < a->ndim; i++)
    if (a->shape[i] != b->shape[i]) return false;
  return true;
}

static bool gives_truth(const td_pw_step *s) {
  switch (s->op) {
    case TD_PW_eq: case TD_PW_ne: case TD_PW_lt: case TD_PW_le: case TD_PW_gt: case TD_PW_ge: case TD_PW_logical_and:
    case TD_PW_logical_or: case TD_PW_logical_xor: case TD_PW_logical_not: case TD_PW_isnan: case TD_PW_isinf:
    case TD_PW_isfinite: return true;
    default: return false;
  }
}

/* Is output k of the chain the register itself, and not what storing made of it? */
static bool is_register(const td_step *s, int k) {
  const td_chain *c = s->chain;
  if (s->out[k].dtype == c->dtype) return true;
  int step = c->out_reg[k] - s->nin;
  return s->out[k].dtype == TD_U8 && step >= 0 && gives_truth(&c->step[step]);
}

/* Which output of p does operand i of k read, element for element? -1: none. */
static int reads_output(const td_step *k, int i, const td_step *p) {
  for (int o = 0; o < p->nout; o++)
    if (td_value_same(&k->in[i], &p->out[o])) return o;
  return -1;
}

static bool reads_buffer(const td_step *s, int buffer) {
  for (int i = 0; i < s->nin; i++)
    if (s->in[i].buffer == buffer) return true;
  return false;
}

static bool is_program_output(const td_ir *ir, int buffer) {
  for (int i = 0; i < ir->noutput; i++)
    if (ir->output[i].buffer == buffer) return true;
  return false;
}

/* May p, at `from`, run as late as `to`? Nobody between reads its results, and nobody writes what it reads. */
static bool may_wait(const td_ir *ir, int from, int to) {
  const td_step *p = ir->step[from];
  for (int k = 0; k < p->nout; k++)
    if (ir->buffer[p->out[k].buffer].rewritten) return false;
  for (int i = 0; i < p->nin; i++)
    if (ir->buffer[p->in[i].buffer].rewritten || ir->buffer[p->in[i].buffer].written) return false;
  for (int j = from + 1; j < to; j++) {
    if (ir->step[j]->dead) continue;
    for (int k = 0; k < p->nout; k++)
      if (reads_buffer(ir->step[j], p->out[k].buffer)) return false;
  }
  return true;
}

/* Does anyone but step `reader` read the buffer? */
static bool read_elsewhere(const td_ir *ir, int buffer, int reader) {
  if (is_program_output(ir, buffer)) return true;
  for (int j = 0; j < ir->nstep; j++)
    if (j != reader && !ir->step[j]->dead && reads_buffer(ir->step[j], buffer)) return true;
  return false;
}

/* ---- Joining ---- */

typedef struct {
  td_value in[TD_PW_MAX_IN];
  int nin;
} operands;

/* The register of operand v among the joined ones, or -1 when there is no room. */
static int operand(operands *o, const td_value *v) {
  for (int i = 0; i < o->nin; i++)
    if (td_value_same(&o->in[i], v)) return i;
  if (o->nin == TD_PW_MAX_IN) return -1;
  o->in[o->nin] = *v;
  return o->nin++;
}

/* Registers of one chain in the joined one: operands by `in`, results of instructions from `base` on. */
static uint8_t moved(uint8_t reg, int nin, const uint8_t *in, int base) {
  return reg < nin ? in[reg] : (uint8_t)(base + reg - nin);
}

static void copy_steps(td_chain *to, const td_step *s, const uint8_t *in, int base) {
  for (int i = 0; i < s->chain->nstep; i++) {
    td_pw_step t = s->chain->step[i];
    t.dst = moved(t.dst, s->nin, in, base);
    for (int k = 0; k < 3; k++) t.src[k] = t.src[k] < s->nin + i ? moved(t.src[k], s->nin, in, base) : 0;
    to->step[to->nstep++] = t;
  }
}

/* p into k. False when the result would be too long; then nothing has changed. */
static bool join(td_ir *ir, int from, int to) {
  td_step *p = ir->step[from], *k = ir->step[to];
  const td_chain *a = p->chain, *b = k->chain;
  operands o = {.nin = 0};
  uint8_t in_p[TD_PW_MAX_IN], in_k[TD_PW_MAX_IN];
  int link[TD_PW_MAX_IN];
  for (int i = 0; i < p->nin; i++) {
    int r = operand(&o, &p->in[i]);
    if (r < 0) return false;
    in_p[i] = (uint8_t)r;
  }
  for (int i = 0; i < k->nin; i++) {
    link[i] = reads_output(k, i, p);
    int r = link[i] >= 0 ? 0 : operand(&o, &k->in[i]);
    if (r < 0) return false;
    in_k[i] = (uint8_t)r;
  }
  int nstep = a->nstep + b->nstep, nout = 0;
  if (nstep > TD_PW_MAX_STEP || o.nin + nstep > TD_PW_MAX_REG) return false;
  td_value out[2 * TD_PW_MAX_OUT];
  uint8_t out_reg[2 * TD_PW_MAX_OUT];
  for (int i = 0; i < k->nin; i++)
    if (link[i] >= 0) in_k[i] = moved(a->out_reg[link[i]], p->nin, in_p, o.nin);
  for (int i = 0; i < k->nout; i++) {
    out[nout] = k->out[i];
    out_reg[nout++] = moved(b->out_reg[i], k->nin, in_k, o.nin + a->nstep);
  }
  for (int i = 0; i < p->nout; i++) {
    if (!read_elsewhere(ir, p->out[i].buffer, to)) continue;
    out[nout] = p->out[i];
    out_reg[nout++] = moved(a->out_reg[i], p->nin, in_p, o.nin);
  }
  td_value *values = nout > TD_PW_MAX_OUT ? NULL : td_pool_get(&ir->pool, (size_t)o.nin * sizeof *values);
  td_chain *c = values ? td_pool_get(&ir->pool, sizeof *c) : NULL;
  if (!c) return false;
  *c = *b;
  c->nstep = 0;
  copy_steps(c, p, in_p, o.nin);
  copy_steps(c, k, in_k, o.nin + a->nstep);
  memcpy(c->out_reg, out_reg, (size_t)nout);
  memcpy(values, o.in, (size_t)o.nin * sizeof *values);
  k->chain = c;
  k->in = values;
  k->nin = o.nin;
  k->nout = nout;
  memcpy(k->out, out, (size_t)nout * sizeof *out);
  p->dead = true;
  return true;
}

/* Are all of k's operands in p's results element for element, whenever they come from p? */
static bool reads_only_registers(const td_step *k, const td_step *p) {
  for (int i = 0; i < k->nin; i++)
    for (int o = 0; o < p->nout; o++) {
      if (k->in[i].buffer != p->out[o].buffer) continue;
      if (!td_value_same(&k->in[i], &p->out[o]) || !is_register(p, o)) return false;
    }
  return true;
}

/* The nearest earlier chain that can become a part of step k; joined. */
static bool join_one(td_ir *ir, int k) {
  td_step *s = ir->step[k];
  for (int i = 0; i < s->nin; i++) {
    int j = ir->buffer[s->in[i].buffer].writer;
    td_step *p = j >= 0 && j < k ? ir->step[j] : NULL;
    if (!p || p->dead || !p->chain || !same_space(p->chain, s->chain) || reads_output(s, i, p) < 0) continue;
    if (reads_only_registers(s, p) && may_wait(ir, j, k) && join(ir, j, k)) {
      for (int o = 0; o < s->nout; o++) ir->buffer[s->out[o].buffer].writer = k;
      return true;
    }
  }
  return false;
}

td_status td_pass_fuse(td_ir *ir) {
  td_ir_analyse(ir);
  for (int k = 0; k < ir->nstep; k++)
    if (ir->step[k]->chain)
      while (join_one(ir, k)) {}
  td_ir_analyse(ir);
  return TD_OK;
}
