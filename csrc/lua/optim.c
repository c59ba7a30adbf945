/* Steps of optimisers: one pass over a parameter, its state and its gradient, in place. The loops over parameters and
 * the choice of rates are Lua's (tide.optim); these functions are in the table core.optim. */
#include <math.h>
#include "graph/tape.h"
#include "kernels/kernels.h"
#include "lua/tdl.h"

/* The real, contiguous leaf at a stack index. */
static td_tensor *parameter(lua_State *L, int index, const char *fname) {
  td_tensor *p = tdl_tensor(L, index, fname, "the parameter");
  if (!td_dtype_is_real(p->dtype))
    tdl_error(L, "%s: the parameter is %s, expected float32 or float64", fname, td_dtype_name(p->dtype));
  if (!td_tensor_is_contiguous(p))
    tdl_error(L, "%s: the parameter of shape (%s) is a strided view, expected a tensor of its own", fname,
              td_tensor_shape_string(p));
  return p;
}

/* State of the parameter at a stack index: same shape and type, contiguous. */
static td_tensor *state_of(lua_State *L, int index, const td_tensor *p, const char *fname, const char *what) {
  td_tensor *t = tdl_tensor(L, index, fname, what);
  if (t->dtype != p->dtype || !td_tensor_same_shape(t, p) || !td_tensor_is_contiguous(t))
    tdl_error(L, "%s: %s is %s of shape (%s), expected %s of shape (%s)", fname, what, td_dtype_name(t->dtype),
              td_tensor_shape_string(t), td_dtype_name(p->dtype), td_tensor_shape_string(p));
  return t;
}

/* The gradient of p, contiguous and of its type, as a new reference; NULL when p has none. */
static td_tensor *gradient(lua_State *L, const td_tensor *p, const char *fname) {
  td_tensor *g = td_is_leaf(p) ? p->node->grad : NULL;
  if (!g) return NULL;
  if (g->dtype != p->dtype)
    tdl_error(L, "%s: the gradient is %s, the parameter %s", fname, td_dtype_name(g->dtype), td_dtype_name(p->dtype));
  if (!td_tensor_same_shape(g, p))
    tdl_error(L, "%s: the gradient has shape (%s), the parameter (%s)", fname, td_tensor_shape_string(g),
              td_tensor_shape_string(p));
  g = td_tensor_contiguous(g);
  if (!g) tdl_raise(L);
  return g;
}

/* adam_step(p, m, v, lr, beta1, beta2, eps, decay, decoupled, step) → true, or false when p has no gradient. step
 * counts from 1. */
static int adam_step(lua_State *L) {
  td_tensor *p = parameter(L, 1, "adam_step"), *m = state_of(L, 2, p, "adam_step", "m"),
            *v = state_of(L, 3, p, "adam_step", "v");
  double lr = luaL_checknumber(L, 4), beta1 = luaL_checknumber(L, 5), beta2 = luaL_checknumber(L, 6);
  double eps = luaL_checknumber(L, 7), decay = luaL_checknumber(L, 8), step = luaL_checknumber(L, 10);
  if (!(step >= 1)) tdl_error(L, "adam_step: step %g, expected 1 or more", step);
  td_tensor *g = gradient(L, p, "adam_step");
  if (g) {
    td_k(p->dtype)->adam_step(p->data, m->data, v->data, g->data, p->numel, lr, beta1, beta2, eps, decay,
                              lua_toboolean(L, 9), (uint64_t)step);
    p->storage->version++;
    td_tensor_release(g);
  }
  lua_pushboolean(L, g != NULL);
  return 1;
}

/* sgd_step(p, velocity | nil, lr, momentum, dampening, decay, nesterov, first) → true, or false when p has no gradient.
 * The velocity is needed, and written, when momentum is not 0; `first` ignores what it holds. */
static int sgd_step(lua_State *L) {
  td_tensor *p = parameter(L, 1, "sgd_step"), *velocity = NULL;
  double lr = luaL_checknumber(L, 3), momentum = luaL_checknumber(L, 4), dampening = luaL_checknumber(L, 5);
  double decay = luaL_checknumber(L, 6);
  if (momentum != 0) velocity = state_of(L, 2, p, "sgd_step", "the velocity");
  td_tensor *g = gradient(L, p, "sgd_step");
  if (g) {
    td_k(p->dtype)->sgd_step(p->data, velocity ? velocity->data : NULL, g->data, p->numel, lr, momentum, dampening,
                             decay, lua_toboolean(L, 7), lua_toboolean(L, 8));
    p->storage->version++;
    td_tensor_release(g);
  }
  lua_pushboolean(L, g != NULL);
  return 1;
}

/* Σ g² over a gradient. */
static double sum_squares(const td_tensor *g) {
  double wide = 0;
  float narrow = 0;
  if (!g->numel) return 0;
  td_k(g->dtype)->sum_squares(g->dtype == TD_F64 ? (void *)&wide : &narrow, g->data, 1, g->numel, 1);
  return g->dtype == TD_F64 ? wide : (double)narrow;
}

/* grad_norm({parameters}) → the Euclidean norm of all their gradients together; parameters without one are passed
 * over */
static int grad_norm(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  double sum = 0;
  for (int i = 1, n = (int)tdl_rawlen(L, 1); i <= n; i++) {
    lua_rawgeti(L, 1, i);
    td_tensor *p = tdl_tensor(L, -1, "grad_norm", "a parameter"), *g = gradient(L, p, "grad_norm");
    if (g) sum += sum_squares(g);
    td_tensor_release(g);
    lua_pop(L, 1);
  }
  lua_pushnumber(L, sqrt(sum));
  return 1;
}

/* grad_scale({parameters}, factor): every gradient multiplied. One that others look at is replaced instead of
 * written. */
static int grad_scale(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  double factor = luaL_checknumber(L, 2);
  for (int i = 1, n = (int)tdl_rawlen(L, 1); i <= n; i++) {
    lua_rawgeti(L, 1, i);
    td_tensor *p = tdl_tensor(L, -1, "grad_scale", "a parameter");
    td_tensor *g = gradient(L, p, "grad_scale");
    lua_pop(L, 1);
    if (!g) continue;
    bool ours = g == p->node->grad && g->refs == 2 && g->storage->refs == 1 && !g->node;
    td_tensor *to = ours ? td_tensor_retain(g) : td_tensor_new(g->dtype, g->ndim, g->shape);
    if (to) {
      const void *x = g->data;
      if (g->numel) td_k(g->dtype)->lincomb(to->data, NULL, 1, &factor, &x, g->numel);
      td_tensor_release(p->node->grad);
      p->node->grad = to;
    }
    td_tensor_release(g);
    if (!to) tdl_raise(L);
  }
  return 0;
}

/* blend(average, value, decay): average ← decay·average + (1 − decay)·value */
static int blend(lua_State *L) {
  td_tensor *average = parameter(L, 1, "blend"), *value = tdl_tensor(L, 2, "blend", "the value");
  state_of(L, 2, average, "blend", "the value");
  double decay = luaL_checknumber(L, 3), coef[2] = {decay, 1 - decay};
  const void *x[2] = {average->data, value->data};
  if (average->numel) td_k(average->dtype)->lincomb(average->data, NULL, 2, coef, x, average->numel);
  average->storage->version++;
  return 0;
}

static const luaL_Reg functions[] = {
  {"adam_step", adam_step}, {"sgd_step", sgd_step}, {"grad_norm", grad_norm}, {"grad_scale", grad_scale},
  {"blend", blend}, {NULL, NULL},
};

void tdl_open_optim(lua_State *L) {
  lua_newtable(L);
  tdl_setfuncs(L, functions);
  lua_setfield(L, -2, "optim");
}
