/* Tiny programs joined to a larger one: a list of operations on numbers that is written by hand, with programs of
 * scalar.h inside. A solver's whole step over a few variables becomes one such list. */
#ifndef TD_GRAPH_JOINED_H
#define TD_GRAPH_JOINED_H
#include "graph/program.h"

/* Places in the list are `int`s from 0 on. Writing past the greatest size, or running out of memory, only sets
 * `failed`, which is asked once at the end. Before td_joined_run the caller writes number[place] of what it made as
 * inputs. */
typedef struct {
  double *number;
  struct td_scalar_step *step;
  int numbers, nstep, numbers_room, step_room;
  struct {                  /* values read from outside at every run */
    const td_program *of;   /* borrowed: a program that was put in */
    int slot, number, count;
    size_t element;
  } *load;
  int nload, load_room;
  struct td_native *native; /* the steps as machine code, once they have run for a while */
  int runs;
  bool failed;
} td_joined;

void td_joined_free(td_joined *j);
/* The first of `count` new places, all with this value. */
int td_joined_new(td_joined *j, int count, double value);
void td_joined_copy(td_joined *j, int from, int to);
/* The place of a + b. */
int td_joined_add(td_joined *j, int a, int b);
/* The first place of `factor` times the n numbers from `first` on. */
int td_joined_scale(td_joined *j, int factor, int first, int n);
/* The place of base + Σ coef[i] x[i], over n numbers in a row each, added one after the other. */
int td_joined_dot(td_joined *j, int base, int coef, int x, int n);
/* Puts a program of numbers in. in[i][e] is the place of element e of its input i. out[i][e] is where element e of its
 * output i should be, or −1 for a place of its choice, and receives where it is. */
void td_joined_insert(td_joined *j, const td_program *p, const int *const *in, int *const *out);
/* Does an operation read any of the n places from `first` on? */
bool td_joined_reads(const td_joined *j, int first, int n);
void td_joined_run(td_joined *j);
/* Its two halves, for rows of runs between which nothing outside is written: the values from outside, and the
 * operations. */
void td_joined_load(td_joined *j);
void td_joined_perform(td_joined *j);

#endif
