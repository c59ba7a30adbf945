/* The transpose of the cubic through both ends of a step and their slopes, for families that use td_stepper_hermite. */
#ifndef TD_SOLVE_HERMITE_H
#define TD_SOLVE_HERMITE_H
#include "solve/stepper.h"

/* Cotangents of the values inside the step, b->w, go to those of its ends: y1bar at (last_time, y1) and ybar at (t, y),
 * which get room's slopes pulled back too; times and theta_bar as in td_step_back. room: three vectors. */
td_status td_hermite_back(td_stepper *s, td_step_back *b, const char *y1, char *y1bar, char *ybar, char *const room[3]);

#endif
