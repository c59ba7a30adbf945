/* A plan: the kernel calls of a program and the pointers in them. Programs made from equal traces share one. For the
 * files of this folder. */
#ifndef TD_GRAPH_PLAN_H
#define TD_GRAPH_PLAN_H
#include "graph/ir.h"
#include "graph/scalar.h"
#include "kernels/kernels.h"

typedef enum { TD_DO_OP, TD_DO_PRODUCT, TD_DO_CHAIN, TD_DO_MOVE, TD_DO_CLEAR, TD_DO_TILES } td_action_kind;

typedef struct td_tiles td_tiles;

/* A product of two matrices whose layout is known beforehand. */
typedef struct td_plan_product {
  const td_kernels *kernels;
  void *y, *a, *b;
  size_t m, n, k, lda, ldb;
  bool trans_a, trans_b;
} td_plan_product;

/* One kernel call. */
typedef struct {
  td_action_kind kind;
  int step;         /* the step of the plan that it belongs to */
  union {
    td_call call;
    struct td_plan_product *product;
    struct {
      void (*kernel)(const td_pw *);
      td_pw *pw;
    } chain;
    struct {        /* y = x, the same type in two layouts */
      td_tensor *y, *x;
      size_t *stride;  /* of x, 0 where it repeats */
    } move;
    struct {        /* y = 0 */
      td_tensor *y;
      size_t bytes;
    } clear;
    td_tiles *tiles;
  } as;
} td_action;

/* A pointer to set to its slot's base + offset. */
typedef struct {
  void **where;
  size_t offset;
} td_patch;

typedef struct {
  char *base;
  td_patch *patch;
  int count, room;
  td_storage *owner;          /* of the memory at base, when its values change with its version alone; or NULL */
  void ***lent;               /* pointers to set to owner */
  int nlent, lent_room;
} td_slot;

typedef struct td_plan {
  int refs;                   /* programs that use it */
  uint64_t key[2];            /* what it was made from; see td_ir_key */
  uint64_t used;              /* when it was last asked for */
  td_ir ir;
  td_action *action;
  int count, room;
  td_slot *slot;              /* 0: own memory; then inputs, outputs, externals, constants */
  int nslot;
  size_t bytes;               /* of its own memory */
  int *writes, nwrites;       /* externals that it writes to */
  td_scalar *scalar;          /* runs in place of the actions when it is there */
  bool running;
  td_tensor *input, *output;  /* heads */
  double *seconds;            /* of each step, as measured */
} td_plan;


/* Runs the passes over p->ir, lays out memory and makes the actions. */
td_status td_plan_make(td_plan *p);
/* The same without passes and tiles, for the plan of a tile. */
td_status td_plan_lay(td_plan *p);
/* *where will point `offset` bytes into the buffer, whenever its slot is set. */
td_status td_plan_note(td_plan *p, int buffer, size_t offset, void **where);
/* *where will point to the storage whose memory the buffer is, or be NULL. */
td_status td_plan_note_owner(td_plan *p, int buffer, void **where);
/* The actions, once, on the memory that is set. */
td_status td_plan_run(td_plan *p);
/* The same, adding the time of each to its step's in p->seconds. */
td_status td_plan_run_measured(td_plan *p);
/* Gives its own memory back, and that of its tiles; td_plan_free everything. */
void td_plan_trim(td_plan *p);
void td_plan_free(td_plan *p);
/* Sets the pointers of slot i. The loop is what a changed input costs. */
void td_plan_set(td_plan *p, int i, void *base);
void td_plan_lend(td_plan *p, int i, td_storage *owner);
/* The first slot of a kind. */
int td_plan_slot(const td_plan *p, td_buffer_kind kind);

#endif
