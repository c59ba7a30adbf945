/* Second derivatives of a solve whose method has no step on the tape: a Lua function makes the gradient once more, as
 * the result of an operation whose own derivative is a solve with one tangent (lua/tide/ode/second.lua). */
#include <string.h>
#include "base/alloc.h"
#include "lua/ode.h"
#include "ops/ops.h"

typedef struct {
  int function;  /* registry reference */
  lua_State *main;
} second;

static void second_free(void *data) {
  second *x = data;
  luaL_unref(x->main, LUA_REGISTRYINDEX, x->function);
  td_free(x, sizeof *x);
}

static void push(lua_State *L, td_tensor *t) {
  if (t) tdl_push(L, td_tensor_retain(t));
  else lua_pushboolean(L, 0);
}

/* function(y0, externals, cotangents of the results, false where there is none, gradients so far: y0's, then those of
 * the externals) → the same gradients, in the graph. */
static td_status run(void *data, td_rule *rule, td_field *f) {
  const second *x = data;
  lua_State *L = tdl_state();
  int top = lua_gettop(L), n = (int)f->nexternals;
  luaL_checkstack(L, 12, "a second derivative");
  lua_rawgeti(L, LUA_REGISTRYINDEX, x->function);
  push(L, rule->in[0]);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    push(L, f->externals[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_createtable(L, 4, 0);
  for (int i = 0; i < rule->nout; i++) {
    push(L, rule->dout[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_createtable(L, n + 1, 0);
  for (int i = 0; i <= n; i++) {
    int at = i == 0 ? 0 : i + 1;  /* the times are between */
    push(L, rule->need[at] ? rule->din[at] : NULL);
    lua_rawseti(L, -2, i + 1);
  }
  td_status s = tdl_pcall(L, 4, 1);
  for (int i = 0; i <= n && !s; i++) {
    int at = i == 0 ? 0 : i + 1;
    lua_rawgeti(L, top + 1, i + 1);
    rule->din[at] = td_auto(td_tensor_retain(tdl_test(L, -1)));
    lua_pop(L, 1);
  }
  lua_settop(L, top);
  return s;
}

td_status tdl_ode_read_second(lua_State *L, td_ode_second *out) {
  *out = (td_ode_second){0};
  lua_getfield(L, 4, "second");
  if (!lua_isfunction(L, -1)) {
    lua_pop(L, 1);
    return TD_OK;
  }
  second *x = td_alloc(sizeof *x);
  if (!x) return td_last_status();
  *x = (second){.function = luaL_ref(L, LUA_REGISTRYINDEX), .main = tdl_main(L)};
  *out = (td_ode_second){.run = run, .free = second_free, .data = x};
  return TD_OK;
}
