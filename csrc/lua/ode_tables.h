/* The coefficients of implicit methods for Lua. */
#ifndef TD_LUA_ODE_TABLES_H
#define TD_LUA_ODE_TABLES_H
#include "lua/tdl.h"
#include "solve/stepper.h"

/* Sets `dirk`, `rosenbrock` or `collocation` in the table on top of the stack when the method has such coefficients. */
void tdl_set_implicit_tables(lua_State *L, const td_method *m);

#endif
