/* Small dense systems for implicit steps: factor once, solve many times, also with the transpose. Matrices are
 * row-major doubles whatever the state's type; complex ones are pairs (re, im). At the sizes of chemistry LAPACK costs
 * more than these loops. */
#ifndef TD_SOLVE_DENSE_H
#define TD_SOLVE_DENSE_H
#include <stdbool.h>
#include <stddef.h>

/* a (n×n) becomes its factors, P·a = L·U, row i exchanged with row pivot[i] in order. False: singular or not
 * finite. */
bool td_lu_factor(double *a, size_t *pivot, size_t n);
/* x (n) becomes op(a)⁻¹·x, op the transpose or nothing. */
void td_lu_solve(const double *lu, const size_t *pivot, size_t n, bool transposed, double *x);

/* The same over complex numbers: a is n×n pairs, x is n pairs. The transpose is plain, without conjugation. */
bool td_lu_factor_complex(double *a, size_t *pivot, size_t n);
void td_lu_solve_complex(const double *lu, const size_t *pivot, size_t n, bool transposed, double *x);

#endif
