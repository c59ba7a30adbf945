/* Element-wise steps as chains, and operands laid straight for the kernels that need it. */
#include <string.h>
#include "graph/ir.h"
#include "ops/ops.h"

/* ---- Chains ---- */

/* A call as the shape rules see it: tensors with types and shapes and no memory. */
static td_dtype type_of_call(const td_step *s) {
  enum { MOST = 4 };
  td_tensor head[MOST], *in[MOST];
  for (int i = 0; i < s->nin; i++) {
    const td_value *v = &s->in[i];
    head[i] = (td_tensor){.dtype = v->dtype, .ndim = v->ndim, .weak = v->weak, .numel = v->numel};
    in[i] = &head[i];
  }
  td_call c = {.op = s->op, .a = &s->a, .nin = s->nin, .nout = s->nout, .in = in};
  return td_pw_type(&c);
}

/* The type in which a copy computes: the result's, but a real number becomes an integer only when stored. */
static td_dtype copy_type(td_dtype from, td_dtype to) {
  td_dtype d = td_dtype_is_real(to) || !td_dtype_is_real(from) ? to : from;
  return d == TD_U8 ? TD_I64 : d;
}

static td_status make_chain(td_ir *ir, td_step *s) {
  td_chain *c = td_pool_get(&ir->pool, sizeof *c);
  if (!c) return td_last_status();
  const td_value *y = &s->out[0];
  c->ndim = y->ndim;
  memcpy(c->shape, y->shape, sizeof c->shape);
  if (s->op->pw) {
    c->dtype = type_of_call(s);
    if (c->dtype == TD_U8) c->dtype = TD_I64;
    c->nstep = 1;
    c->step[0] = (td_pw_step){.op = (uint8_t)(s->op->pw - 1), .dst = (uint8_t)s->nin};
    for (int i = 0; i < s->nin; i++) c->step[0].src[i] = (uint8_t)i;
    c->out_reg[0] = (uint8_t)s->nin;
  } else {
    c->dtype = copy_type(s->in[0].dtype, y->dtype);
  }
  s->chain = c;
  return TD_OK;
}

/* A sum over dims of size 1 is a copy of another shape. */
static void unmake_sum(td_step *s) {
  td_value *x = &s->in[0];
  const td_value *y = &s->out[0];
  if (s->op != &td_op_sum || x->numel != y->numel || x->dtype != y->dtype || !td_value_is_contiguous(x)) return;
  s->op = &td_op_clone;
  s->a = (td_attrs){0};
  x->ndim = y->ndim;
  memcpy(x->shape, y->shape, sizeof x->shape);
  memcpy(x->stride, y->stride, sizeof x->stride);
}

td_status td_pass_chains(td_ir *ir) {
  td_status status = TD_OK;
  for (int i = 0; i < ir->nstep && !status; i++) {
    td_step *s = ir->step[i];
    unmake_sum(s);
    if (!s->chain && (s->op->pw || s->op == &td_op_clone || s->op == &td_op_cast)) status = make_chain(ir, s);
  }
  return status;
}

/* ---- Straight operands ---- */

/* Reads the matrix product this operand where it lies? Rows or columns must be contiguous. */
static bool is_matrix(const td_value *v) {
  size_t rows = v->shape[v->ndim - 2], cols = v->shape[v->ndim - 1], rs = v->stride[v->ndim - 2],
         cs = v->stride[v->ndim - 1];
  return ((cs == 1 || cols == 1) && (rs >= cols || rows == 1)) || ((rs == 1 || rows == 1) && (cs >= rows || cols == 1));
}

static bool can_read(const td_step *s, int i) {
  if (s->chain || s->op == &td_op_cat || s->op == &td_op_narrow_grad || td_value_is_contiguous(&s->in[i])) return true;
  return s->op == &td_op_matmul && is_matrix(&s->in[i]);
}

/* A step before step `at` that copies value v into a buffer of its own; gives that value. */
static td_value copied_before(td_ir *ir, int at, const td_value *v) {
  td_value y = *v;
  int buffer = td_ir_buffer(ir, TD_BUF_TEMP, v->numel * td_dtype_size(v->dtype), 0);
  td_step *s = buffer < 0 ? NULL : td_ir_append(ir, &td_op_clone, NULL, 1, v, 1);
  y.buffer = buffer;
  y.offset = 0;
  td_strides(y.ndim, y.shape, y.stride);
  if (!s) return (td_value){.buffer = -1};
  s->out[0] = y;
  if (make_chain(ir, s)) return (td_value){.buffer = -1};
  for (int i = ir->nstep - 1; i > at; i--) ir->step[i] = ir->step[i - 1];
  ir->step[at] = s;
  return y;
}

td_status td_pass_straighten(td_ir *ir) {
  for (int i = 0; i < ir->nstep; i++)
    for (int k = 0; k < ir->step[i]->nin; k++) {
      td_step *s = ir->step[i];
      if (can_read(s, k)) continue;
      td_value straight = copied_before(ir, i, &s->in[k]);
      if (straight.buffer < 0) return td_last_status();
      i++;
      s->in[k] = straight;
    }
  td_ir_analyse(ir);
  return TD_OK;
}

/* ---- Results where the caller wants them ---- */

td_status td_pass_outputs(td_ir *ir) {
  for (int i = 0; i < ir->noutput; i++) {
    td_value *v = &ir->output[i];
    td_buffer *f = &ir->buffer[v->buffer];
    if (f->kind == TD_BUF_TEMP && td_value_is_whole(ir, v)) {
      f->kind = TD_BUF_OUTPUT;
      f->slot = i;
      continue;
    }
    td_value y = copied_before(ir, ir->nstep, v);
    if (y.buffer < 0) return td_last_status();
    ir->buffer[y.buffer].kind = TD_BUF_OUTPUT;
    ir->buffer[y.buffer].slot = i;
    ir->output[i] = y;
  }
  td_ir_analyse(ir);
  return TD_OK;
}
