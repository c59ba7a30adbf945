/* What the bindings of single and of batched solves share: options, events, results. Option tables are filled and checked
 * by lua/tide/ode/request.lua. */
#ifndef TD_LUA_ODE_H
#define TD_LUA_ODE_H
#include "lua/ode_field.h"
#include "solve/gradient.h"

/* A counter that a reverse pass moves and Lua reads: evaluations, and steps made again between checkpoints. */
typedef struct {
  int refs;
  uint64_t value[2];
} tdl_counter;
tdl_counter *tdl_push_counter(lua_State *L);
void tdl_counter_release(void *counter);

/* A contiguous float64 tensor in a field, as an array that the table holds; NULL when the field is nil. */
double *tdl_ode_array(lua_State *L, int index, const char *name, size_t *count);
void tdl_ode_read_options(lua_State *L, int index, td_ode_options *o);
/* The entries {fn, reset, direction, stop_after} of the option events of the table at index 4. */
td_status tdl_ode_read_events(lua_State *L, tdl_form form, const td_tensor *y0, td_event **events, size_t *count);
/* Status, statistics and the grid, as a table. */
void tdl_ode_push_result(lua_State *L, const td_ode_solution *s);
void tdl_open_ode_batch(lua_State *L);

#endif
