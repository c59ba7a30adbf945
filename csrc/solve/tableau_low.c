/* Explicit Runge–Kutta methods up to order four, each with its source, and the list of all explicit ones. */
#include <stddef.h>
#include "solve/tableau.h"

#define R TD_ROWS
#define EXPLICIT .family = &td_family_explicit
#define TABLE(...) .table = &(const td_tableau){__VA_ARGS__}

static const td_method euler = {
  .name = "euler", .source = "Euler 1768", EXPLICIT, .stages = 1, .order = 1, .dense_order = 1,
  TABLE(.stages = 1, .terms = 1, .b = R(1), .dense = R(1, 0)),
};
static const td_method midpoint = {
  .name = "midpoint", .source = "Runge 1895", EXPLICIT, .stages = 2, .order = 2, .dense_order = 2,
  TABLE(.stages = 2, .hermite = true, .a = R(1. / 2), .b = R(0, 1)),
};
static const td_method heun2 = {
  .name = "heun2", .source = "Heun 1900, the trapezoidal form", EXPLICIT, .stages = 2, .order = 2, .dense_order = 2,
  TABLE(.stages = 2, .hermite = true, .a = R(1), .b = R(1. / 2, 1. / 2)),
};
static const td_method ralston2 = {
  .name = "ralston2", .source = "Ralston 1962, least error bound", EXPLICIT, .stages = 2, .order = 2, .dense_order = 2,
  TABLE(.stages = 2, .hermite = true, .a = R(2. / 3), .b = R(1. / 4, 3. / 4)),
};
static const td_method heun3 = {
  .name = "heun3", .source = "Heun 1900, third order", EXPLICIT, .stages = 3, .order = 3, .dense_order = 3,
  TABLE(.stages = 3, .hermite = true, .a = R(1. / 3, 0, 2. / 3), .b = R(1. / 4, 0, 3. / 4)),
};
static const td_method rk4 = {
  .name = "rk4", .source = "Kutta 1901, the 3/8 rule", EXPLICIT, .stages = 4, .order = 4, .dense_order = 3,
  TABLE(.stages = 4, .hermite = true, .a = R(1. / 3, -1. / 3, 1, 1, -1, 1), .b = R(1. / 8, 3. / 8, 3. / 8, 1. / 8)),
};
static const td_method rk4_classic = {
  .name = "rk4_classic", .source = "Kutta 1901, the classical rule", EXPLICIT, .stages = 4, .order = 4,
  .dense_order = 3,
  TABLE(.stages = 4, .hermite = true, .a = R(1. / 2, 0, 1. / 2, 0, 0, 1),
        .b = R(1. / 6, 1. / 3, 1. / 3, 1. / 6)),
};

/* ---- With an error estimate ---- */

static const td_method adaptive_heun = {
  .name = "adaptive_heun", .source = "Heun 1900, the trapezoidal form, with Euler's step embedded", EXPLICIT,
  .stages = 2, .order = 2, .error_order = 1, .dense_order = 2,
  TABLE(.stages = 2, .hermite = true, .a = R(1), .b = R(1. / 2, 1. / 2), .e = R(-1. / 2, 1. / 2)),
};
static const td_method fehlberg2 = {
  .name = "fehlberg2", .source = "Fehlberg 1969, RK1(2), the second order advanced", EXPLICIT, .stages = 3,
  .order = 2, .error_order = 1, .dense_order = 2,
  TABLE(.stages = 3, .hermite = true, .a = R(1. / 2, 1. / 256, 255. / 256),
        .b = R(1. / 512, 255. / 256, 1. / 512), .e = R(-1. / 512, 0, 1. / 512)),
};
static const td_method bosh3 = {
  .name = "bosh3", .source = "Bogacki and Shampine 1989", EXPLICIT, .stages = 4, .order = 3, .error_order = 2,
  .dense_order = 3,
  TABLE(.stages = 4, .fsal = true, .hermite = true, .a = R(1. / 2, 0, 3. / 4, 2. / 9, 1. / 3, 4. / 9),
        .b = R(2. / 9, 1. / 3, 4. / 9, 0), .e = R(2. / 9 - 7. / 24, 1. / 3 - 1. / 4, 4. / 9 - 1. / 3, -1. / 8)),
};

/* ---- Strong stability preserving: convex combinations of Euler steps of size h/C ---- */

static const td_method ssprk22 = {
  .name = "ssprk22", .source = "Shu and Osher 1988; C = 1", EXPLICIT, .stages = 2, .order = 2, .dense_order = 2,
  TABLE(.stages = 2, .hermite = true, .a = R(1), .b = R(1. / 2, 1. / 2)),
};
static const td_method ssprk33 = {
  .name = "ssprk33", .source = "Shu and Osher 1988; C = 1", EXPLICIT, .stages = 3, .order = 3, .dense_order = 3,
  TABLE(.stages = 3, .hermite = true, .a = R(1, 1. / 4, 1. / 4), .b = R(1. / 6, 1. / 6, 2. / 3)),
};
static const td_method ssprk43 = {
  .name = "ssprk43", .source = "Kraaijevanger 1991, C = 2; embedded weights of Conde, Fekete and Shadid 2018", EXPLICIT,
  .stages = 4, .order = 3, .error_order = 2, .dense_order = 3,
  TABLE(.stages = 4, .hermite = true, .a = R(1. / 2, 1. / 2, 1. / 2, 1. / 6, 1. / 6, 1. / 6),
        .b = R(1. / 6, 1. / 6, 1. / 6, 1. / 2),
        .e = R(1. / 6 - 1. / 4, 1. / 6 - 1. / 4, 1. / 6 - 1. / 4, 1. / 2 - 1. / 4)),
};
static const td_method ssprk104 = {
  .name = "ssprk104", .source = "Ketcheson 2008; C = 6", EXPLICIT, .stages = 10, .order = 4, .dense_order = 3,
  TABLE(.stages = 10, .hermite = true,
        .a = R(1. / 6,
               1. / 6, 1. / 6,
               1. / 6, 1. / 6, 1. / 6,
               1. / 6, 1. / 6, 1. / 6, 1. / 6,
               1. / 15, 1. / 15, 1. / 15, 1. / 15, 1. / 15,
               1. / 15, 1. / 15, 1. / 15, 1. / 15, 1. / 15, 1. / 6,
               1. / 15, 1. / 15, 1. / 15, 1. / 15, 1. / 15, 1. / 6, 1. / 6,
               1. / 15, 1. / 15, 1. / 15, 1. / 15, 1. / 15, 1. / 6, 1. / 6, 1. / 6,
               1. / 15, 1. / 15, 1. / 15, 1. / 15, 1. / 15, 1. / 6, 1. / 6, 1. / 6, 1. / 6),
        .b = R(1. / 10, 1. / 10, 1. / 10, 1. / 10, 1. / 10, 1. / 10, 1. / 10, 1. / 10, 1. / 10, 1. / 10)),
};

/* ---- The list ---- */

extern const td_method td_method_dopri5, td_method_dopri5_shampine, td_method_tsit5, td_method_dop853,
  td_method_dopri8, td_method_ssprk54, td_method_vern6, td_method_vern7, td_method_vern8, td_method_vern9;

extern const td_method *const td_methods_explicit[];
const td_method *const td_methods_explicit[] = {
  &euler, &midpoint, &heun2, &ralston2, &heun3, &rk4, &rk4_classic, &adaptive_heun, &fehlberg2, &bosh3,
  &ssprk22, &ssprk33, &ssprk43, &ssprk104,
  &td_method_dopri5, &td_method_dopri5_shampine, &td_method_tsit5, &td_method_dop853, &td_method_dopri8,
  &td_method_ssprk54, &td_method_vern6, &td_method_vern7, &td_method_vern8,
  &td_method_vern9, NULL,
};
