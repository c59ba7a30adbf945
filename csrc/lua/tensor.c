/* The userdata of a tensor: pushing, checking, properties, collection. Methods of operations are added by ops.c. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "graph/tape.h"
#include "kernels/kernels.h"
#include "lua/tdl.h"
#include "ops/ops.h"
#include "solve/captured.h"

/* ---- Counting memory: Lua's collector does not see a tensor's bytes, so it is run when they pass a limit ---- */

static const size_t slack = (size_t)64 << 20;
static size_t limit = (size_t)64 << 20;
static bool collecting;

/* Bytes whose owners may be garbage: not what a solve holds for its reverse pass, which a collection would not give
 * back sooner. */
static size_t collectable(void) {
  size_t live = td_alloc_live(), held = td_field_held_bytes();
  return live > held ? live - held : 0;
}

static void collect(lua_State *L) {
  collecting = true;
  lua_gc(L, LUA_GCCOLLECT, 0);
  collecting = false;
  size_t live = collectable();
  limit = live + (live / 2 > slack ? live / 2 : slack);
}

static void collect_when_due(lua_State *L) {
  if (td_alloc_live() >= limit && collectable() >= limit && !collecting) collect(L);
}

void tdl_collect_before_pass(lua_State *L) {
  static uint64_t marked;  /* bytes of Lua objects gone through so far */
  if (td_alloc_live() < slack / 2 || collecting) return;
  uint64_t heap = (uint64_t)lua_gc(L, LUA_GCCOUNT, 0) << 10;
  if (marked + heap > td_alloc_statistics().handed / 32) return;
  marked += heap;
  collect(L);
}

/* What a tensor's userdata holds. The tag, an address of our own, tells it from other libraries' userdata without a
 * look-up of its metatable. */
typedef struct {
  td_tensor *tensor;  /* NULL when freed */
  const void *tag;
} box;
static const char tag;

/* The registry holds the metatable also at this number, which is found faster than a name. */
enum { METATABLE = -0x7d3 };  /* luaL_ref gives positive numbers */

static box *tensor_box(lua_State *L, int index) {
  box *b = lua_touserdata(L, index);
  return b && tdl_rawlen(L, index) == sizeof *b && b->tag == &tag ? b : NULL;
}

td_tensor *tdl_test(lua_State *L, int index) {
  box *b = tensor_box(L, index);
  return b ? b->tensor : NULL;
}

const char *tdl_describe(lua_State *L, int index) {
  static char text[200];
  td_tensor *t = tdl_test(L, index);
  if (t) snprintf(text, sizeof text, "a %s tensor of shape (%s)", td_dtype_name(t->dtype), td_tensor_shape_string(t));
  else if (lua_isnoneornil(L, index)) snprintf(text, sizeof text, "nothing");
  else if (lua_type(L, index) == LUA_TNUMBER) snprintf(text, sizeof text, "the number %.14g", lua_tonumber(L, index));
  else if (lua_type(L, index) == LUA_TSTRING)
    snprintf(text, sizeof text, "the string \"%.60s\"", lua_tostring(L, index));
  else if (lua_isuserdata(L, index)) snprintf(text, sizeof text, "a userdata that is no live tensor");
  else snprintf(text, sizeof text, "a %s", luaL_typename(L, index));
  return text;
}

td_tensor *tdl_any_tensor(lua_State *L, int index, const char *fname, const char *argument) {
  td_tensor *t = tdl_test(L, index);
  if (!t) tdl_error(L, "%s: %s is %s, expected a tensor", fname, argument, tdl_describe(L, index));
  return t;
}

td_tensor *tdl_tensor(lua_State *L, int index, const char *fname, const char *argument) {
  td_tensor *t = tdl_any_tensor(L, index, fname, argument);
  if (td_tensor_is_known(t)) return t;
  if (td_capture_era)
    tdl_error(L,
              "%s: the values of %s are not known while the function is captured, because they may differ each time it "
              "runs; run it as it is (capture = false in solvers, fallback = \"eager\" elsewhere)",
              fname, argument);
  tdl_error(
      L,
      "%s: %s was made while a function was captured and has no values; what a captured function computes is to be "
      "returned by it",
      fname, argument);
}

double tdl_number(lua_State *L, int index, const char *fname, const char *argument) {
  if (lua_type(L, index) != LUA_TNUMBER)
    tdl_error(L, "%s: %s is %s, expected a number", fname, argument, tdl_describe(L, index));
  return lua_tonumber(L, index);
}

double tdl_whole(lua_State *L, int index, const char *fname, const char *argument) {
  double v = tdl_number(L, index, fname, argument);
  if (v != floor(v) || fabs(v) > 9007199254740992.0)
    tdl_error(L, "%s: %s is %s, expected a whole number", fname, argument, tdl_describe(L, index));
  return v;
}

void tdl_function(lua_State *L, int index, const char *fname, const char *argument) {
  if (lua_type(L, index) != LUA_TFUNCTION)
    tdl_error(L, "%s: %s is %s, expected a function", fname, argument, tdl_describe(L, index));
}

void tdl_push(lua_State *L, td_tensor *t) {
  if (!t) tdl_raise(L);
  box *b = lua_newuserdata(L, sizeof *b);
  *b = (box){t, &tag};
  lua_rawgeti(L, LUA_REGISTRYINDEX, METATABLE);
  lua_setmetatable(L, -2);
  collect_when_due(L);
}

td_tensor *tdl_operand(lua_State *L, int index, const char *fname, const char *argument) {
  td_tensor *t = tdl_test(L, index);
  if (t) return t;
  if (lua_type(L, index) == LUA_TNUMBER) {
    double v = lua_tonumber(L, index);
    bool whole = v == (double)(int64_t)v && v < 9e15 && v > -9e15;
    return td_number(whole ? TD_I64 : TD_F64, v);
  }
  td_fail(TD_EARG, "%s: %s is %s, expected a tensor or a number", fname, argument, tdl_describe(L, index));
  return NULL;
}

int tdl_dtype(const char *name, td_dtype *d) {
  for (int i = 0; i < TD_DTYPE_COUNT; i++)
    if (!strcmp(name, td_dtype_name((td_dtype)i))) {
      *d = (td_dtype)i;
      return 1;
    }
  return 0;
}

/* ---- Methods ---- */

static td_tensor *self(lua_State *L, const char *method) { return tdl_any_tensor(L, 1, method, "self"); }

static int tensor_gc(lua_State *L) {
  box *b = tensor_box(L, 1);
  if (!b) return 0;
  td_tensor_release(b->tensor);
  b->tensor = NULL;
  return 0;
}

/* t:free() gives the memory back now; the tensor must not be used again */
static int tensor_free(lua_State *L) {
  if (!tensor_box(L, 1)) self(L, "free");  /* again: nothing to do */
  return tensor_gc(L);
}

static int tensor_item(lua_State *L) {
  td_tensor *t = tdl_tensor(L, 1, "item", "the tensor");
  if (t->numel != 1) tdl_error(L, "item: a tensor of shape (%s) has %d elements, expected one",
                               td_tensor_shape_string(t), (int)t->numel);
  lua_pushnumber(L, td_tensor_get(t, 0));
  return 1;
}

/* size(dim) or size() → all of them */
static int tensor_size(lua_State *L) {
  td_tensor *t = self(L, "size");
  if (lua_isnoneornil(L, 2)) {
    for (int i = 0; i < t->ndim; i++) lua_pushnumber(L, (lua_Number)t->shape[i]);
    return t->ndim;
  }
  lua_Number wanted = tdl_whole(L, 2, "size", "dim"), dim = wanted < 0 ? wanted + t->ndim : wanted - 1;
  if (!(dim >= 0 && dim < t->ndim) || wanted == 0)
    tdl_error(L, "size: dim %g is outside the %d of shape (%s)", wanted, t->ndim, td_tensor_shape_string(t));
  lua_pushnumber(L, (lua_Number)t->shape[(int)dim]);
  return 1;
}

static void push_shape(lua_State *L, const td_tensor *t) {
  lua_createtable(L, t->ndim, 0);
  for (int i = 0; i < t->ndim; i++) {
    lua_pushnumber(L, (lua_Number)t->shape[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

static int tensor_is_contiguous(lua_State *L) {
  lua_pushboolean(L, td_tensor_is_contiguous(self(L, "is_contiguous")));
  return 1;
}

/* copy_(source): element-wise, broadcast and converted, in place */
static int tensor_copy(lua_State *L) {
  td_tensor *t = self(L, "copy_");
  size_t mark = td_auto_mark();
  td_tensor *from = tdl_operand(L, 2, "copy_", "the source");
  td_status s = from ? TD_OK : td_last_status();
  if (!s && td_recording && (t->node || from->node))
    s = td_fail(TD_EGRAD, "copy_: writing in place would spoil a gradient; wrap it in no_grad");
  if (!s) s = td_tensor_copy(t, from);
  td_auto_release(mark);
  tdl_check(L, s);
  lua_settop(L, 1);
  return 1;
}

static int tensor_fill(lua_State *L) {
  td_tensor *t = self(L, "fill_");
  double v = tdl_number(L, 2, "fill_", "the value");
  if (td_recording && t->node) tdl_error(L, "fill_: writing in place would spoil a gradient; wrap it in no_grad");
  tdl_check(L, td_tensor_fill(t, v));
  lua_settop(L, 1);
  return 1;
}

static int tensor_detach(lua_State *L) {
  tdl_push(L, td_tensor_alias(self(L, "detach")));
  return 1;
}

/* Do two tensors look at the same storage? */
static int tensor_shares(lua_State *L) {
  lua_pushboolean(L, self(L, "shares_storage")->storage ==
                       tdl_any_tensor(L, 2, "shares_storage", "the other tensor")->storage);
  return 1;
}

/* core.statistics(t, for whom) → {count, min, max, mean, std (of the finite elements), nans, infs} */
static int core_statistics(lua_State *L) {
  td_tensor *t = tdl_tensor(L, 1, luaL_optstring(L, 2, "statistics"), "the tensor");
  td_dtype d = td_dtype_is_real(t->dtype) ? t->dtype : TD_F64;
  td_tensor *flat = td_tensor_new(d, t->ndim, t->shape);
  if (!flat) tdl_raise(L);
  double out[4] = {0, 0, 0, 0};
  size_t nans = 0, infs = 0;
  td_status s = td_tensor_copy(flat, t);
  if (!s && t->numel) td_k(d)->statistics(flat->data, t->numel, out, &nans, &infs);
  td_tensor_release(flat);
  tdl_check(L, s);
  static const char *const names[] = {"min", "max", "mean", "std"};
  lua_createtable(L, 0, 7);
  for (int i = 0; i < 4; i++) lua_pushnumber(L, out[i]), lua_setfield(L, -2, names[i]);
  lua_pushnumber(L, (lua_Number)nans), lua_setfield(L, -2, "nans");
  lua_pushnumber(L, (lua_Number)infs), lua_setfield(L, -2, "infs");
  lua_pushnumber(L, (lua_Number)t->numel), lua_setfield(L, -2, "count");
  return 1;
}

static const luaL_Reg methods[] = {
  {"free", tensor_free}, {"item", tensor_item}, {"size", tensor_size}, {"is_contiguous", tensor_is_contiguous},
  {"copy_", tensor_copy}, {"fill_", tensor_fill}, {"detach", tensor_detach}, {"shares_storage", tensor_shares},
  {NULL, NULL},
};

/* Properties: t.shape, t.dtype, t.ndim, t.numel, t.grad, t.is_leaf, t.needs_grad, t.version (counts writes in place).
 * Pushes one and gives 1, or gives 0. */
static int push_property(lua_State *L, td_tensor *t, const char *key) {
  if (!strcmp(key, "shape")) push_shape(L, t);
  else if (!strcmp(key, "dtype")) lua_pushstring(L, td_dtype_name(t->dtype));
  else if (!strcmp(key, "ndim")) lua_pushinteger(L, t->ndim);
  else if (!strcmp(key, "numel")) lua_pushnumber(L, (lua_Number)t->numel);
  else if (!strcmp(key, "version")) lua_pushnumber(L, t->storage ? (lua_Number)t->storage->version : 0);
  else if (!strcmp(key, "is_leaf")) lua_pushboolean(L, td_is_leaf(t));
  else if (!strcmp(key, "needs_grad")) lua_pushboolean(L, t->node != NULL);
  else if (!strcmp(key, "grad")) {
    if (td_is_leaf(t) && t->node->grad) tdl_push(L, td_tensor_retain(t->node->grad));
    else lua_pushnil(L);
  } else return 0;
  return 1;
}

/* Upvalue 1: the method table. Strings are methods and properties, anything else indexes elements (index.c). */
extern int tdl_index_get(lua_State *L);
static int tensor_index(lua_State *L) {
  if (lua_type(L, 2) != LUA_TSTRING) return tdl_index_get(L);
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(1));
  if (!lua_isnil(L, -1)) return 1;
  td_tensor *t = tdl_test(L, 1);
  if (!t) return tdl_error(L, "this tensor has been freed");
  return push_property(L, t, lua_tostring(L, 2));
}

extern int tdl_index_set(lua_State *L);
static int tensor_newindex(lua_State *L) {
  if (lua_type(L, 2) != LUA_TSTRING) return tdl_index_set(L);
  td_tensor *t = self(L, "assignment");
  const char *key = lua_tostring(L, 2);
  if (strcmp(key, "grad") != 0) return tdl_error(L, "a tensor has no field \"%s\" that can be set", key);
  if (!td_is_leaf(t)) {
    if (lua_isnil(L, 3)) return 0;  /* it has none to drop: a frozen parameter, say */
    return tdl_error(L, "grad: only a leaf (requires_grad) holds a gradient");
  }
  td_tensor *g = lua_isnil(L, 3) ? NULL : tdl_tensor(L, 3, "grad", "the gradient");
  if (g && !td_tensor_same_shape(g, t))
    return tdl_error(L, "grad: shape (%s), expected (%s)", td_tensor_shape_string(g), td_tensor_shape_string(t));
  if (g && g->dtype != t->dtype)
    return tdl_error(L, "grad: %s, expected %s", td_dtype_name(g->dtype), td_dtype_name(t->dtype));
  td_tensor_retain(g);
  td_tensor_release(t->node->grad);
  t->node->grad = g;
  return 0;
}

static int tensor_len(lua_State *L) {
  td_tensor *t = self(L, "#");
  if (t->ndim == 0) return tdl_error(L, "#: a 0-d tensor has no length");
  lua_pushnumber(L, (lua_Number)t->shape[0]);
  return 1;
}

void tdl_open_tensor(lua_State *L) {
  luaL_newmetatable(L, TDL_TENSOR);
  lua_pushvalue(L, -1);
  lua_rawseti(L, LUA_REGISTRYINDEX, METATABLE);
  lua_newtable(L);
  tdl_setfuncs(L, methods);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "methods");
  lua_pushvalue(L, -1);
  lua_setfield(L, -4, "methods");
  lua_pushcclosure(L, tensor_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, tensor_newindex);
  lua_setfield(L, -2, "__newindex");
  lua_pushcfunction(L, tensor_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, tensor_len);
  lua_setfield(L, -2, "__len");
  lua_setfield(L, -2, "metatable");
  lua_pushcfunction(L, core_statistics);
  lua_setfield(L, -2, "statistics");
}
