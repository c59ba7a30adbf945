/* Fully implicit Runge–Kutta methods by collocation: Radau IIA and Gauss. A method is its nodes. */
#ifndef TD_SOLVE_IRK_H
#define TD_SOLVE_IRK_H
#include "solve/collocation.h"
#include "solve/stepper.h"

typedef struct {
  int stages;
  void (*nodes)(long double *c);
  bool estimate;  /* Hairer and Wanner's error estimate of Radau IIA with three stages */
} td_irk;

extern const td_family td_family_irk, td_family_radau;

#endif
