/* Gradients in Lua: requires_grad, backward, recording on and off, operations with a derivative written in Lua,
 * hooks. */
#include "graph/tape.h"
#include <string.h>
#include "base/alloc.h"
#include "lua/tdl.h"
#include "ops/ops.h"

/* t:requires_grad(on = true) → t */
static int tensor_requires_grad(lua_State *L) {
  td_tensor *t = tdl_any_tensor(L, 1, "requires_grad", "self");
  tdl_check(L, td_requires_grad(t, lua_isnoneornil(L, 2) || lua_toboolean(L, 2)));
  lua_settop(L, 1);
  return 1;
}

/* leaf_changes() → see td_leaf_changes */
static int core_leaf_changes(lua_State *L) {
  lua_pushnumber(L, (lua_Number)td_leaf_changes);
  return 1;
}

/* The tensors of the table at `index` (or the one tensor there), borrowed: an array in a new userdata left on the
 * stack. */
static td_tensor **tensors_at(lua_State *L, int index, const char *fname, bool holes, int *n) {
  bool table = lua_istable(L, index);
  *n = 1;
  if (table) {
    *n = (int)tdl_rawlen(L, index);
    lua_getfield(L, index, "n");
    if (lua_isnumber(L, -1)) *n = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
  }
  td_tensor **list = lua_newuserdata(L, (size_t)(*n ? *n : 1) * sizeof *list);
  for (int i = 0; i < *n; i++) {
    if (table) lua_rawgeti(L, index, i + 1);
    else lua_pushvalue(L, index);
    list[i] = tdl_test(L, -1);
    if (!list[i] && !(holes && !lua_toboolean(L, -1)))
      tdl_error(L, "%s: expected tensors, got %s", fname, tdl_describe(L, -1));
    lua_pop(L, 1);
  }
  return list;
}

/* backward(outputs, cotangents | nil, inputs | nil, create_graph, retain, stop_at_inputs) → a table of gradients, false
 * where unused, or nothing when gradients go to the leaves */
static int core_backward(lua_State *L) {
  int nout, ncot = 0, nin = 0;
  lua_settop(L, 6);
  unsigned flags = (lua_toboolean(L, 4) ? TD_CREATE_GRAPH : 0u) | (lua_toboolean(L, 5) ? TD_RETAIN_GRAPH : 0u) |
                   (lua_toboolean(L, 6) ? TD_STOP_AT_INPUTS : 0u);
  td_tensor **outputs = tensors_at(L, 1, "backward", false, &nout);
  td_tensor **cotangents = lua_isnil(L, 2) ? NULL : tensors_at(L, 2, "backward", true, &ncot);
  td_tensor **inputs = lua_isnil(L, 3) ? NULL : tensors_at(L, 3, "backward", false, &nin);
  if (cotangents && ncot != nout) tdl_error(L, "backward: %d cotangents for %d outputs", ncot, nout);
  td_tensor **grads = lua_newuserdata(L, (size_t)(nin + 1) * sizeof *grads);
  if (inputs && nin == 0) {
    lua_newtable(L);
    return 1;
  }
  if (!(flags & TD_STOP_AT_INPUTS)) tdl_collect_before_pass(L);  /* else it is one of many within a larger one */
  lua_State *before = tdl_enter(L);
  td_status s = td_backward(outputs, cotangents, nout, inputs, nin, grads, flags);
  tdl_leave(before);
  if (s) {
    for (int i = 0; i < nin; i++) td_tensor_release(grads[i]);
    tdl_raise(L);
  }
  if (!inputs) return 0;
  lua_createtable(L, nin, 0);
  for (int i = 0; i < nin; i++) {
    if (grads[i]) tdl_push(L, grads[i]);
    else lua_pushboolean(L, 0);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* recording(on | nil) → was it on before */
static int core_recording(lua_State *L) {
  lua_pushboolean(L, td_recording);
  if (!lua_isnoneornil(L, 1)) td_recording = lua_toboolean(L, 1);
  return 1;
}

/* with_recording(on, f, …) → f(…) with recording on or off, and afterwards as before, whatever f raises and wherever a
 * debug hook or an interrupt strikes */
static int core_with_recording(lua_State *L) {
  bool was = td_recording;
  td_recording = lua_toboolean(L, 1);
  td_status s = tdl_pcall(L, lua_gettop(L) - 2, LUA_MULTRET);
  td_recording = was;
  tdl_check(L, s);
  return lua_gettop(L) - 1;
}

/* now() → the number of the next recording; externals(outputs, since) → tensors closed over, see tape.h */
static int core_now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)td_tape_now());
  return 1;
}
static int core_externals(lua_State *L) {
  int n;
  td_tensor **outputs = tensors_at(L, 1, "externals", false, &n), **found;
  size_t count, capacity;
  td_status s = td_tape_externals(outputs, n, (uint64_t)luaL_checknumber(L, 2), &found, &count, &capacity);
  lua_createtable(L, (int)count, 0);
  for (size_t i = 0; i < count; i++) {
    tdl_push(L, found[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  td_free(found, capacity * sizeof *found);
  tdl_check(L, s);
  return 1;
}

/* same_point(a, b) → are they one result of one recording? */
static int core_same_point(lua_State *L) {
  const td_tensor *a = tdl_any_tensor(L, 1, "same_point", "a"), *b = tdl_any_tensor(L, 2, "same_point", "b");
  lua_pushboolean(L, a->node && a->node == b->node && a->slot == b->slot);
  return 1;
}

/* ---- Operations whose derivative is a Lua function ---- */

typedef struct {
  int function;  /* registry reference */
  lua_State *main;
  bool tell;     /* the function's first argument says which operands' cotangents are wanted */
} lua_rule;

static void lua_rule_free(void *data) {
  lua_rule *r = data;
  luaL_unref(r->main, LUA_REGISTRYINDEX, r->function);
  td_free(r, sizeof *r);
}

/* A table of booleans on the stack: which operands' cotangents are wanted. */
static void push_needs(lua_State *L, const td_rule *r) {
  lua_createtable(L, r->nin, 0);
  for (int i = 0; i < r->nin; i++) {
    lua_pushboolean(L, r->need[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

/* Calls function([needs,] cotangents of results…, false for an absent one) and takes one cotangent per operand. */
static void lua_vjp(td_rule *r) {
  lua_rule *rule = r->data;
  lua_State *L = tdl_state();
  int top = lua_gettop(L);
  luaL_checkstack(L, r->nout + r->nin + 8, "a derivative rule");
  lua_rawgeti(L, LUA_REGISTRYINDEX, rule->function);
  if (rule->tell) push_needs(L, r);
  for (int i = 0; i < r->nout; i++) {
    if (r->dout[i]) tdl_push(L, td_tensor_retain(r->dout[i]));
    else lua_pushboolean(L, 0);
  }
  if (!tdl_pcall(L, r->nout + (rule->tell ? 1 : 0), r->nin)) {
    for (int i = 0; i < r->nin; i++) {
      td_tensor *g = tdl_test(L, top + 1 + i);
      if (g && (g->ndim != r->in[i]->ndim || !td_tensor_same_shape(g, r->in[i]))) {
        td_fail(TD_ESHAPE, "custom: the backward function's result %d has shape (%s), expected its operand's (%s)",
                i + 1, td_tensor_shape_string(g), td_tensor_shape_string(r->in[i]));
        break;
      }
      if (!g && lua_toboolean(L, top + 1 + i)) {
        td_fail(TD_EARG, "custom: the backward function's result %d is %s, expected a tensor or nil", i + 1,
                tdl_describe(L, top + 1 + i));
        break;
      }
      if (g) r->din[i] = td_auto(td_tensor_retain(g));
    }
  }
  lua_settop(L, top);
}
static const td_op lua_op = {.name = "a custom operation", .vjp = lua_vjp};

/* custom(outputs, inputs, function, tell) → the outputs, recorded as results of one operation on the inputs. With tell
 * the function gets a table first: for each input, whether its cotangent is wanted. */
static int core_custom(lua_State *L) {
  int nout, nin;
  lua_settop(L, 4);
  td_tensor **given = tensors_at(L, 1, "custom", false, &nout), **in = tensors_at(L, 2, "custom", false, &nin);
  tdl_function(L, 3, "custom", "backward");
  if (nout > TD_MAX_OUT) tdl_error(L, "custom: %d results, expected at most %d", nout, TD_MAX_OUT);
  bool any = false;
  for (int i = 0; i < nin; i++) any |= in[i]->node != NULL;
  int first = lua_gettop(L) + 1;
  td_tensor *out[TD_MAX_OUT];
  for (int i = 0; i < nout; i++) {
    tdl_push(L, td_tensor_alias(given[i]));
    out[i] = tdl_test(L, -1);
  }
  if (any && td_recording) {
    lua_pushvalue(L, 3);
    int ref = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_rule *r = td_alloc(sizeof *r);
    if (!r) tdl_raise(L);
    *r = (lua_rule){.function = ref, .main = tdl_main(L), .tell = lua_toboolean(L, 4)};
    tdl_check(L, td_tape_custom(&lua_op, in, nin, out, nout, r, lua_rule_free));
  }
  lua_settop(L, first + nout - 1);
  return nout;
}

/* ---- Hooks ---- */

static td_tensor *lua_hook(void *data, td_tensor *gradient) {
  lua_rule *r = data;
  lua_State *L = tdl_state();
  int top = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->function);
  tdl_push(L, td_tensor_retain(gradient));
  td_tensor *result = NULL;
  if (!tdl_pcall(L, 1, 1)) {
    result = td_tensor_retain(tdl_test(L, -1));
    if (result && !td_tensor_same_shape(result, gradient))
      td_fail(TD_ESHAPE, "hook: a gradient of shape (%s) was replaced by one of (%s)", td_tensor_shape_string(gradient),
              td_tensor_shape_string(result));
  }
  lua_settop(L, top);
  return result;
}

/* t:register_hook(f) → t: f(gradient) is called in every backward; a tensor that it returns replaces the gradient */
static int tensor_register_hook(lua_State *L) {
  td_tensor *t = tdl_any_tensor(L, 1, "register_hook", "self");
  tdl_function(L, 2, "register_hook", "the hook");
  lua_settop(L, 2);
  int ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_rule *r = td_alloc(sizeof *r);
  if (!r) tdl_raise(L);
  *r = (lua_rule){.function = ref, .main = tdl_main(L)};
  tdl_check(L, td_hook_add(t, lua_hook, lua_rule_free, r));
  return 1;
}

static const luaL_Reg functions[] = {
  {"backward", core_backward}, {"recording", core_recording}, {"with_recording", core_with_recording},
  {"now", core_now}, {"externals", core_externals}, {"same_point", core_same_point}, {"custom", core_custom},
  {"leaf_changes", core_leaf_changes}, {NULL, NULL},
};
static const luaL_Reg methods[] = {
  {"requires_grad", tensor_requires_grad}, {"register_hook", tensor_register_hook}, {NULL, NULL},
};

void tdl_open_tape(lua_State *L) {
  tdl_setfuncs(L, functions);
  lua_getfield(L, -1, "methods");
  tdl_setfuncs(L, methods);
  lua_pop(L, 1);
}
