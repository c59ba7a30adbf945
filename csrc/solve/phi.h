/* The φ-functions of exponential integrators: φ₀(z) = eᶻ, φₖ(z) = (φₖ₋₁(z) − 1/(k−1)!)/z. Never by that quotient near
 * zero: by their series there, and from it by doubling for matrices. */
#ifndef TD_SOLVE_PHI_H
#define TD_SOLVE_PHI_H
#include <stddef.h>

enum { TD_PHI = 4 };  /* φ₀ … φ₃ */

void td_phi_number(double z, double phi[TD_PHI]);
/* phi[k], m×m each, of scale·a, row-major. room: 4·m·m doubles. */
void td_phi_matrix(const double *a, double scale, size_t m, double *const phi[TD_PHI], double *room);

#endif
