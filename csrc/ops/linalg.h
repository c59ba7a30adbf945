/* What the operations on matrices share. A matrix is the last two dims of a tensor; the dims before
 * them are a batch. */
#ifndef TD_OPS_LINALG_H
#define TD_OPS_LINALG_H
#include "ops/ops.h"

static inline size_t rows_of(const td_tensor *t) { return t->shape[t->ndim - 2]; }
static inline size_t cols_of(const td_tensor *t) { return t->shape[t->ndim - 1]; }
/* How many matrices t holds. */
static inline size_t batch_of(const td_tensor *t) {
  size_t n = 1;
  for (int i = 0; i < t->ndim - 2; i++) n *= t->shape[i];
  return n;
}

/* ---- Shapes ---- */

/* Failures unless operand i holds real matrices, or square ones. */
td_status td_want_matrices(const td_call *c, int i);
td_status td_want_square(const td_call *c, int i);
/* Result i: the batch dims of operand 0, then `tail` sizes. */
void td_meta_batch(td_call *c, int i, int tail, size_t first, size_t second);
/* The shape rule of a·x = b, a the first operand and b the last: batches broadcast, b may be one
 * vector. */
td_status td_system_shape(td_call *c);

/* ---- Running kernels ---- */

/* A kernel's failure names the kernel; the user called an operation. Gives s, its message begun
 * with the operation's name. */
td_status td_named_after(const td_call *c, td_status s);
/* (a + aᵀ)/2 in row-major order; one reference. */
td_tensor *td_symmetric_part(const td_tensor *a);
/* Runs f on operand 0 in row-major order. */
td_status td_on_matrices(td_call *c, td_status (*f)(td_call *c, const td_tensor *a));

/* `batch` systems as kernels take them: a m×n (or its transpose, n×m, when `trans`), b m×k, x n×k.
 * index is an int64 operand between a and b, n elements a system. */
typedef struct {
  size_t batch, m, n, k;
  const void *a, *b;
  const int64_t *index;
  void *x;
  bool trans;
} td_systems;
/* Broadcasts the operands and runs f; one matrix a with a batch of b becomes one system with many
 * columns, so that it is factored once. With `transposable`, a transposed view is given as it
 * lies. */
td_status td_on_systems(td_call *c, bool transposable,
                        td_status (*f)(const td_call *c, const td_systems *s));

/* ---- Expressions of derivative rules ---- */

/* xᵀ, x a batch of matrices */
static inline td_tensor *td_t(td_tensor *x) { return td_transpose(x, -1, -2); }
/* A constant matrix with one value below the diagonal, one on it and one above. */
td_tensor *td_banded(td_dtype d, size_t rows, size_t cols, double below, double on, double above);
/* x with its lower triangle, diagonal and upper triangle times these. */
td_tensor *td_weighted(td_tensor *x, double below, double on, double above);
/* A dim of size 1 put last, or last but one. */
td_tensor *td_column(td_tensor *x);
td_tensor *td_row(td_tensor *x);
/* The diagonal matrices whose diagonals are x. */
td_tensor *td_diagonal(td_tensor *x);
/* A right-hand side, a solution or a cotangent of these, as a column where the call had one vector;
 * and back. */
td_tensor *td_side(const td_rule *r, td_tensor *x);
td_tensor *td_as_side(const td_rule *r, td_tensor *x);
/* The cotangent of result i, zeros when it does not reach the loss. */
td_tensor *td_cotangent(const td_rule *r, int i);
/* l·rᵀ as the cotangent of a: summed over the batch when a is one matrix. */
td_tensor *td_pairs(td_tensor *l, td_tensor *r, const td_tensor *a);

td_tensor *td_solve_triangular(td_tensor *t, td_tensor *b, bool upper, bool transpose, bool unit);

#endif
