/* What the passes of the planner work on: a list of steps over buffers, made from a trace. For the files of this
 * folder.
 *
 * A buffer is the memory of one storage. A value is a buffer seen with a type, a shape, strides and an offset. A
 * step reads values and writes values. Most buffers are written by one step alone; the others (something was written in
 * place) are `rewritten`, and the order of the steps that touch them is kept.
 *
 * Element-wise calls, copies and conversions are chains: a td_pw program over one iteration space, which passes join
 * to longer chains. */
#ifndef TD_GRAPH_IR_H
#define TD_GRAPH_IR_H
#include "graph/pool.h"
#include "graph/trace.h"

typedef enum {
  TD_BUF_TEMP,      /* lives in the program's own memory */
  TD_BUF_INPUT,     /* given at each run; slot: which */
  TD_BUF_OUTPUT,    /* likewise, written by the program */
  TD_BUF_EXTERNAL,  /* a tensor that the function closed over, read where it lies; slot: which */
  TD_BUF_CONSTANT,  /* a tensor that was made while the function was captured; slot: which */
  TD_BUF_LOCAL      /* lives inside the tiles of a run of steps (tile.h) */
} td_buffer_kind;

typedef struct {
  td_buffer_kind kind;
  int slot;
  size_t bytes;
  bool rewritten;
  bool written;         /* an external or an input that the program writes to */
  /* filled by td_ir_analyse */
  int writer;           /* the step that writes it; -1: none; of a rewritten one, the first */
  int first, last;      /* steps between which it must live */
  int readers;
  /* filled by td_ir_place */
  int shares;           /* the buffer whose memory this one takes over, or -1 */
  size_t offset;        /* in the program's memory */
} td_buffer;

typedef struct {
  int buffer;
  td_dtype dtype;
  int ndim;
  bool weak;
  size_t offset;        /* bytes from the buffer's beginning */
  size_t numel;
  size_t shape[TD_MAX_DIMS], stride[TD_MAX_DIMS];
} td_value;

/* An element-wise step: registers 0..nin-1 hold the step's operands, register nin+k the result of instruction k. */
typedef struct {
  td_dtype dtype;                /* in which it computes */
  int ndim;
  size_t shape[TD_MAX_DIMS];
  int nstep;
  td_pw_step step[TD_PW_MAX_STEP];
  uint8_t out_reg[TD_PW_MAX_OUT];
} td_chain;

typedef struct {
  const td_op *op;               /* of a chain: that of its last instruction, for the listing */
  td_attrs a;
  td_chain *chain;               /* NULL: an operation, run by op->run */
  int nin, nout;
  td_value *in;
  td_value out[TD_MAX_OUT];
  bool dead;                     /* to be dropped */
} td_step;

typedef struct {
  td_pool pool;
  td_buffer *buffer;
  int nbuffer, buffer_room;
  td_step **step;
  int nstep, step_room;
  td_value *input, *output;
  int ninput, noutput;
  td_tensor **external;          /* one reference each; constants likewise */
  td_tensor **constant;
  int nexternal, nconstant;
} td_ir;

/* From a trace; inputs and outputs are tensors of it. calls: how many calls of the trace, from `first` on, belong to
 * it. */
td_status td_ir_build(td_ir *ir, const td_trace *t, size_t first, size_t calls, td_tensor *const *inputs, int ninputs,
                      td_tensor *const *outputs, int noutputs);
void td_ir_free(td_ir *ir);

td_step *td_ir_append(td_ir *ir, const td_op *op, const td_attrs *a, int nin, const td_value *in, int nout);
int td_ir_buffer(td_ir *ir, td_buffer_kind kind, size_t bytes, int slot);
bool td_value_is_whole(const td_ir *ir, const td_value *v);  /* contiguous, and all of its buffer */
bool td_value_is_contiguous(const td_value *v);
bool td_value_same(const td_value *a, const td_value *b);

/* A number for what was built: equal for equal calls on equal shapes with equal constants, whatever tensors the
 * externals are. */
void td_ir_key(const td_ir *ir, uint64_t key[2]);

/* Drops dead steps; counts readers, writers and lifetimes. */
void td_ir_analyse(td_ir *ir);

/* ---- The passes, each a function of its own, in the order in which td_program_plan runs them ---- */
td_status td_pass_chains(td_ir *ir);      /* element-wise calls, copies, conversions, joins become chains */
td_status td_pass_reuse(td_ir *ir);       /* common subexpressions */
td_status td_pass_dead(td_ir *ir);        /* steps whose results nobody reads */
td_status td_pass_epilogues(td_ir *ir);   /* activation and sums into normalisation and convolution */
td_status td_pass_straighten(td_ir *ir);  /* operands that a kernel could not read as they lie are copied by a step */
td_status td_pass_fuse(td_ir *ir);        /* chains joined to longer ones */
td_status td_pass_outputs(td_ir *ir);     /* results are written where the caller wants them */
/* Offsets of the temporaries in one block; *bytes receives its size. Buffers that die where an equal one is born
 * share. */
td_status td_ir_place(td_ir *ir, size_t *bytes);

#endif
