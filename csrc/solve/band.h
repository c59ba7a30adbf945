/* Sparse Jacobians: a pattern of places that may differ from zero, an order of the unknowns that puts them into a
 * narrow band (reverse Cuthill–McKee), groups of rows that one reverse pass finds together (Curtis, Powell, Reid 1974),
 * and factors of the band. */
#ifndef TD_SOLVE_BAND_H
#define TD_SOLVE_BAND_H
#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>

typedef struct td_pattern {
  size_t n, count;           /* rows; places */
  size_t *start, *column;    /* row i's columns are column[start[i] … start[i + 1] − 1] */
  size_t *place;             /* where unknown i goes in the band */
  size_t lower, upper;       /* of the band */
  size_t groups, *group;     /* of rows without a common column */
  void *block;
  size_t block_bytes;
} td_pattern;

/* From rows given by numbers of columns, 0-based; NULL and a message for what is none. */
td_pattern *td_pattern_new(size_t n, const double *start, const double *column);
void td_pattern_free(td_pattern *p);

/* Numbers of one row of the band's factors, and where entry (i, j) of the matrix, in the band's order, is in it. */
static inline size_t td_band_width(const td_pattern *p) { return 2 * p->lower + p->upper + 1; }
static inline size_t td_band_at(const td_pattern *p, size_t i, size_t j) {
  return i * td_band_width(p) + (j + p->lower - i);
}
/* The band (n × width, rows in the band's order, its last `lower` columns for what pivoting adds) becomes its factors.
 * False: singular or not finite. */
bool td_band_factor(const td_pattern *p, double *band, size_t *pivot);
/* x, in the user's order, becomes op(matrix)⁻¹ x; room: n. */
void td_band_solve(const td_pattern *p, const double *band, const size_t *pivot, bool transposed, double *x,
                   double *room);

#endif
