/* A program: what a captured function became. It has a fixed list of kernel calls over memory laid out beforehand, and
 * runs without Lua, without recording and without allocating.
 *
 * Memory is in slots: its own block, one slot for each input, output, external and constant. Externals are the tensors
 * that the function closed over; they are read where they lie, so a parameter that an optimiser has moved is seen. */
#ifndef TD_GRAPH_PROGRAM_H
#define TD_GRAPH_PROGRAM_H
#include "graph/trace.h"

typedef struct td_program td_program;

/* Plans the calls [first, first + calls) of the trace, with these tensors of it as inputs and outputs. NULL and a
 * message on failure. The trace is only read. */
td_program *td_program_new(const td_trace *t, size_t first, size_t calls, td_tensor *const *inputs, int ninputs,
                           td_tensor *const *outputs, int noutputs);
td_program *td_program_retain(td_program *p);
void td_program_release(td_program *p);

/* Type and shape of input or output i, as a tensor without memory. */
const td_tensor *td_program_input(const td_program *p, int i);
const td_tensor *td_program_output(const td_program *p, int i);
int td_program_inputs(const td_program *p);
int td_program_outputs(const td_program *p);
/* Does it read input i at all, does it write to it? */
bool td_program_reads(const td_program *p, int i);
bool td_program_writes_input(const td_program *p, int i);
/* Externals, borrowed: views of the storages that it reads. */
int td_program_externals(const td_program *p);
td_tensor *td_program_external(const td_program *p, int i);
bool td_program_reads_external(const td_program *p, int i);
bool td_program_writes_external(const td_program *p, int i);

/* Has it something to write to but its outputs? */
bool td_program_writes(const td_program *p);
/* External i becomes what t is, a tensor of the same type and shape of storage; NULL: none, until it is bound again. */
void td_program_bind(td_program *p, int i, td_tensor *t);

/* Runs it. Inputs and outputs are contiguous arrays of the types and shapes above; outputs overlap nothing. A program
 * that is called again while it runs uses a second block of memory for that call. */
td_status td_program_run(td_program *p, void *const *inputs, void *const *outputs);

/* Several runs with memory of their own: inputs[r] and outputs[r] are run r's. `before` is called in any thread when it
 * is the turn of tile `tile` of `tiles` in run r, to make what the run reads of it from what the runs before wrote of
 * it: slices of equal length of what is written and of input `sliced`. */
typedef struct {
  int count;
  void *const *const *inputs, *const *const *outputs;
  void (*before)(void *ctx, int r, size_t tile, size_t tiles);
  void *ctx;
} td_program_runs;

/* Can it be run so: does it treat the samples of a batch alike, from its first step to its last? */
bool td_program_repeats(const td_program *p, int sliced);
/* The first tile of a batch in all runs, then the second, and so on: a tile stays in the cache from run to run. */
td_status td_program_repeat(td_program *p, const td_program_runs *runs);

/* Called before each run; a failure ends it. Set by the binding, which looks for interrupts. */
extern td_status (*td_program_poll)(void);

/* ---- What it consists of, for the listing ---- */
typedef struct {
  const char *name;       /* of the operation, or of a chain's instructions: "mul add tanh" */
  char text[320];         /* operands and results with shapes and places */
  double flops, bytes;    /* of one run */
  double seconds;         /* of the last profiled run */
} td_program_line;

int td_program_length(const td_program *p);
/* Operations on single numbers that stand for all steps; 0: it runs steps. */
int td_program_numbers(const td_program *p);
/* That list of operations, NULL when there is none; the program owns it. */
const struct td_scalar *td_program_scalar(const td_program *p);
void td_program_describe(const td_program *p, int i, td_program_line *line);
/* Runs once, measuring each step. */
td_status td_program_profile(td_program *p, void *const *inputs, void *const *outputs);
size_t td_program_memory(const td_program *p);  /* bytes of its own block */
const struct td_plan *td_program_plan(const td_program *p);

#endif
