/* What the bindings of single and of batched solves share: options, events, results. Option tables are filled and
 * checked by lua/tide/ode/request.lua. */
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
/* A field's number (else 0), and whether it is true. */
double tdl_ode_number(lua_State *L, int index, const char *name);
bool tdl_ode_flag(lua_State *L, int index, const char *name);
/* What the options of the forward and of the backward solve have in common; the arrays belong to the table. */
void tdl_ode_read_options(lua_State *L, int index, td_ode_options *o);

/* Options that need memory of their own: freed after the forward solve. */
typedef struct {
  td_ode_stop *stops;
  size_t *groups;
  size_t nstops, ngroups;
  int norm;              /* registry reference of a norm that is a function */
  const td_field *like;  /* for its argument */
} tdl_ode_extras;
td_status tdl_ode_read_extras(lua_State *L, int index, td_ode_options *o, const td_field *f, tdl_ode_extras *e);
void tdl_ode_extras_free(lua_State *L, tdl_ode_extras *e);
/* What points into the options table does not outlive the forward solve; but for tolerances of the elements, which
 * implicit methods ask for in the reverse pass too. */
void tdl_ode_forget_arrays(td_ode_options *o);

/* Asks the option `capture`, a function at the stack index, whether to go on; the error value on top of the stack, if
 * `failed`, is what it is told. */
td_status tdl_ode_ask(lua_State *L, int index, bool failed, bool *answer);
/* The entries {fn, reset, direction, stop_after} of the option events of the table at index 4. */
td_status tdl_ode_read_events(lua_State *L, tdl_form form, const td_tensor *y0, td_event **events, size_t *count);
/* The pattern of the Jacobian, from the table at the index; NULL when there is none. */
td_status tdl_ode_read_pattern(lua_State *L, int index, struct td_pattern **pattern);
/* The option second of the table at index 4, a function; nothing when there is none. */
td_status tdl_ode_read_second(lua_State *L, td_ode_second *second);
/* The option preconditioner of the table at index 4, a function, into r->o. */
td_status tdl_ode_read_preconditioner(lua_State *L, const td_field *f, td_ode_recorded *r);
/* Status, statistics and the grid, as a table. */
void tdl_ode_push_result(lua_State *L, const td_ode_solution *s);
/* Pushes path(t, left) → y, dy/dt for the steps of r, which were kept; it holds one of the owner's references. */
void tdl_ode_push_path(lua_State *L, td_ode_recorded *r, int *refs, void *owner, void (*give_back)(void *owner));
void tdl_open_ode_batch(lua_State *L);
void tdl_open_ode_tables(lua_State *L);

#endif
