/* Small programs joined to a larger one, in float32 or float64: a list of operations on short arrays, written by hand
 * with programs inside. For a network of some hundred numbers a kernel call is mostly checks of shapes and layouts;
 * here they are done once, when the list is written, and everything lies in one block of memory that stays in the
 * cache. A solver's whole step becomes one such list. It uses the kernels' own loops and products, so results are those
 * of the programs to the last bit. (joined.h does the same number by number, for fields of two or three variables.) */
#ifndef TD_GRAPH_STRIPS_H
#define TD_GRAPH_STRIPS_H
#include "graph/pool.h"
#include "graph/program.h"
#include "kernels/kernels.h"

typedef struct td_strip td_strip;
typedef struct td_strips_load td_strips_load;
typedef struct td_strips_view td_strips_view;

typedef struct {
  td_strip **item;
  int count, room;
} td_strip_ops;

/* Places are positions in the block, in elements. Writing more than a list may hold, something that it cannot do, or
 * running out of memory only sets `failed`, which td_strips_finish looks at. */
typedef struct {
  td_dtype dtype;
  size_t size, lanes;         /* of an element, in bytes; elements of a vector */
  const td_kernels *k;
  td_pool pool;
  td_strip_ops once, list;    /* what depends on values from outside alone; the rest */
  struct {                    /* pointers to set when the block is there */
    void **where;
    int place;
  } *patch;
  int npatch, patch_room;
  td_strips_load *load;
  int nload, load_room;
  td_strips_view *view;
  int nview, view_room;
  int numbers, temporaries, most_temporaries;
  char *block;
  size_t bytes;
  bool loaded;                /* what comes from outside is there, as of the versions in `load` */
  bool failed;
} td_strips;

/* Could a program be put into a list of this type? Looks at sizes and types alone; writing may still fail. */
bool td_strips_takes(const td_program *p, td_dtype dtype);

void td_strips_begin(td_strips *s, td_dtype dtype);
void td_strips_free(td_strips *s);
/* Room for n elements, which are 0 at first. */
int td_strips_new(td_strips *s, size_t n);
/* Room for n coefficients, float64 in every list. NULL: failed. */
double *td_strips_coefficients(td_strips *s, size_t n);
/* y = base + Σ coef[i]·x[i] over n elements, as a stepper does it; base < 0: 0. */
void td_strips_combine(td_strips *s, int y, int base, int count, double *const *coef, const int *x, size_t n);
/* y += x */
void td_strips_add(td_strips *s, int y, int x, size_t n);
/* Puts a program in. in[i]: where its input i is; a float64 number among the inputs of a float32 list is there as
 * float32. out[i]: where its output i should be, or −1 for a place of its choice, and receives where it is. */
void td_strips_insert(td_strips *s, const td_program *p, const int *in, int *out);
/* Makes the block. On failure (*s).failed is set and the list is not to be run. */
void td_strips_finish(td_strips *s);
/* Between runs what it reads from outside is loaded again when a storage's version has changed. */
void td_strips_run(td_strips *s);
/* The programs that were put in read other tensors now, or will. */
static inline void td_strips_bind(td_strips *s) { s->loaded = false; }
/* What is at a place, of a finished list. */
static inline void *td_strips_at(const td_strips *s, int place) { return s->block + (size_t)place * s->size; }

#endif
