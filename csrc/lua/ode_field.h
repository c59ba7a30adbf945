/* Right-hand sides that come from Lua, as fields of the solvers. */
#ifndef TD_LUA_ODE_FIELD_H
#define TD_LUA_ODE_FIELD_H
#include "lua/tdl.h"
#include "solve/field.h"

/* What a Lua function takes and gives: f(t, y) on tensors, on a table of numbers, on one number. */
typedef enum { TDL_TENSORS, TDL_TABLE, TDL_NUMBER } tdl_form;

/* A field whose result is one number c (or a boolean: ±1) in the first element, for events: f(t, y) → c on the same
 * arguments. */
td_field *tdl_event_for(lua_State *L, int index, tdl_form form, const td_tensor *y0);
/* The field for what stands at the index, a Lua function of this form or a field made in C, over states like y0. NULL
 * and a message when it cannot be. To be freed by td_field_free. */
td_field *tdl_field_for(lua_State *L, int index, tdl_form form, const td_tensor *y0);
/* The field's Jacobian is what the Lua function at the index gives: (t, table of numbers) → a table of n·n numbers, row
 * by row, and one of ∂f/∂t or nil. Fields made in C keep their own. */
void tdl_field_set_jacobian(lua_State *L, td_field *f, int index);
/* Steps of the explicit method of this name (the pointer of td_methods()) are made by the Lua function at the index, of
 * lua/tide/ode/stages.lua. */
void tdl_field_set_stages(lua_State *L, td_field *f, int index, const char *method);
/* Many of them are made by the Lua function at the index, of lua/tide/ode/march.lua. */
void tdl_field_set_march(lua_State *L, td_field *f, int index, const char *method);
/* Has the event's function given booleans? */
bool tdl_event_is_boolean(const td_field *f);
/* Adds core.ode_example. */
void tdl_open_ode_field(lua_State *L);

#endif
