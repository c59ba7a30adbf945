/* What a solver sees of a right-hand side: f(t, y), evaluated. A Lua function, a captured program and a C
 * function all present themselves like this. While the tape records, eval's result is on the tape, so every
 * gradient mode gets its vector-Jacobian products from the one reverse pass, whatever f is made of. */
#ifndef TD_SOLVE_FIELD_H
#define TD_SOLVE_FIELD_H
#include "tensor/tensor.h"

typedef struct td_field td_field;
struct td_field {
  /* *dy receives one reference to a tensor of y's shape and type. t is a 0-d float64 tensor. */
  td_status (*eval)(td_field *f, td_tensor *t, td_tensor *y, td_tensor **dy);
  const char *who;  /* whose messages these are: "ode.solve" */
};

/* f(t, y), checked to have y's shape and type and to have left y as it was. Contiguous, unless it is on the
 * tape. */
td_status td_field_eval(td_field *f, td_tensor *t, td_tensor *y, td_tensor **dy);

#endif
