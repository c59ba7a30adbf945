/* A Lua function that nearly solves (shift·I − ∂f/∂y) x = r, for GMRES in implicit methods. */
#include <string.h>
#include "base/alloc.h"
#include "lua/ode.h"
#include "ops/ops.h"

typedef struct {
  int function;  /* registry reference */
  lua_State *main;
  td_dtype dtype;
  int ndim;
  size_t shape[TD_MAX_DIMS], bytes;
} preconditioner;

static void release(void *data) {
  preconditioner *p = data;
  luaL_unref(p->main, LUA_REGISTRYINDEX, p->function);
  td_free(p, sizeof *p);
}

static td_tensor *tensor_of(const preconditioner *p, const void *values) {
  td_tensor *x = td_tensor_new(p->dtype, p->ndim, p->shape);
  if (x && p->bytes) memcpy(x->data, values, p->bytes);
  return x;
}

static td_status call(const preconditioner *p, double t, double shift, const void *y, void *x) {
  lua_State *L = tdl_state();
  int top = lua_gettop(L);
  if (!lua_checkstack(L, 8)) return td_fail(TD_EARG, "ode.solve: the stack is full");
  lua_rawgeti(L, LUA_REGISTRYINDEX, p->function);
  tdl_push(L, tensor_of(p, x));
  lua_pushnumber(L, t);
  tdl_push(L, tensor_of(p, y));
  lua_pushnumber(L, shift);
  td_status s = tdl_pcall(L, 4, 1);
  td_tensor *result = s ? NULL : tdl_test(L, -1), *flat = NULL;
  if (!s && (!result || result->numel * td_dtype_size(p->dtype) != p->bytes || !td_dtype_is_real(result->dtype)))
    s = td_fail(TD_EARG, "ode.solve: the preconditioner gave %s, expected a tensor like the state",
                tdl_describe(L, -1));
  if (!s) {
    flat = td_tensor_new(p->dtype, result->ndim, result->shape);
    s = flat ? td_tensor_copy(flat, result) : td_last_status();
  }
  if (!s && p->bytes) memcpy(x, flat->data, p->bytes);
  td_tensor_release(flat);
  lua_settop(L, top);
  return s;
}

static td_status run(void *data, double t, double shift, const void *y, void *x) {
  bool was = td_recording;
  td_recording = false;
  td_status s = call(data, t, shift, y, x);
  td_recording = was;
  return s;
}

td_status tdl_ode_read_preconditioner(lua_State *L, const td_field *f, td_ode_recorded *r) {
  lua_getfield(L, 4, "preconditioner");
  if (!lua_isfunction(L, -1)) {
    lua_pop(L, 1);
    return TD_OK;
  }
  preconditioner *p = td_alloc(sizeof *p);
  if (!p) return td_last_status();
  *p = (preconditioner){.function = luaL_ref(L, LUA_REGISTRYINDEX), .main = tdl_main(L), .dtype = f->dtype,
                        .ndim = f->ndim, .bytes = f->numel * td_dtype_size(f->dtype)};
  memcpy(p->shape, f->shape, sizeof p->shape);
  r->o.precondition = run;
  r->o.precondition_data = p;
  r->precondition_free = release;
  return TD_OK;
}
