/* What a program consists of, in words and counts. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "graph/plan.h"
#include "graph/program.h"
#include "graph/tile.h"
#include "ops/ops.h"

/* ---- The listing ---- */

static const char *pw_name(int op) {
#define NAME(name, arity) #name,
  static const char *const names[] = {TD_PW_OPS(NAME, NAME)};
#undef NAME
  return names[op];
}

static size_t bytes_of(const td_value *v) {
  size_t n = 1;
  for (int i = 0; i < v->ndim; i++)
    if (v->stride[i] || v->shape[i] == 1) n *= v->shape[i];
  return n * td_dtype_size(v->dtype);
}

/* Multiplications and additions of one run: two for each term of a product or convolution, one for each element of the
 * rest. */
static double flops_of(const td_step *s) {
  const td_value *y = &s->out[0];
  double n = (double)y->numel;
  if (s->chain) return n * s->chain->nstep;
  if (s->op == &td_op_matmul) return 2 * n * (double)s->in[0].shape[s->in[0].ndim - 1];
  if (s->op == &td_op_conv2d || s->op == &td_op_conv2d_fused || s->op == &td_op_conv2d_input_grad) {
    const size_t *w = s->in[1].shape;
    double images = s->op != &td_op_conv2d_input_grad ? n : (double)s->in[0].numel;
    return 2 * images * (double)(w[0] * w[1] * w[2]);
  }
  if (s->op == &td_op_conv2d_weight_grad)
    return 2 * (double)s->in[1].numel * (double)(y->shape[0] * y->shape[1] * y->shape[2]);
  return (double)(s->nin ? s->in[0].numel : y->numel);
}

/* A line that is being written; what does not fit is cut. */
typedef struct {
  char *at;
  size_t room;
} text;

__attribute__((format(printf, 2, 3))) static void put(text *to, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(to->at, to->room, fmt, args);
  va_end(args);
  size_t used = n < 0 ? 0 : (size_t)n < to->room ? (size_t)n : to->room - 1;
  to->at += used;
  to->room -= used;
}

static void put_value(const td_plan *p, const td_value *v, text *to) {
  static const char letter[] = {[TD_BUF_TEMP] = 't', [TD_BUF_INPUT] = 'x', [TD_BUF_OUTPUT] = 'y', [TD_BUF_EXTERNAL] = 'p',
                                [TD_BUF_CONSTANT] = 'c', [TD_BUF_LOCAL] = 'l'};
  const td_buffer *f = &p->ir.buffer[v->buffer];
  if (f->kind == TD_BUF_CONSTANT && v->ndim == 0) {
    put(to, " %g", td_tensor_get(p->ir.constant[f->slot], 0));
    return;
  }
  int which = f->kind == TD_BUF_TEMP || f->kind == TD_BUF_LOCAL ? v->buffer : f->slot + 1;
  put(to, " %c%d(%s)", letter[f->kind], which, td_shape_string(v->ndim, v->shape));
}

static void put_chain(const td_chain *c, text *to) {
  if (c->nstep == 0) put(to, " copy");
  for (int k = 0; k < c->nstep; k++) put(to, " %s", pw_name(c->step[k].op));
  put(to, " of");
}

void td_program_describe(const td_program *program, int i, td_program_line *line) {
  const td_plan *p = td_program_plan(program);
  const td_step *s = p->ir.step[i];
  *line = (td_program_line){.name = s->chain ? "chain" : s->op->name, .flops = flops_of(s)};
  text to = {line->text, sizeof line->text};
  for (int k = 0; k < p->count; k++) {
    int first, count;
    if (p->action[k].kind != TD_DO_TILES) continue;
    td_tiles_span(p->action[k].as.tiles, &first, &count);
    if (i >= first && i < first + count) put(&to, "[%zu tiles]", td_tiles_count(p->action[k].as.tiles));
  }
  for (int k = 0; k < s->nout; k++) put_value(p, &s->out[k], &to);
  put(&to, " =");
  if (s->chain) put_chain(s->chain, &to);
  else put(&to, " %s", s->op->name);
  for (int k = 0; k < s->nin; k++) {
    put_value(p, &s->in[k], &to);
    line->bytes += (double)bytes_of(&s->in[k]);
  }
  for (int k = 0; k < s->nout; k++) line->bytes += (double)bytes_of(&s->out[k]);
  line->seconds = p->seconds[i];
}
