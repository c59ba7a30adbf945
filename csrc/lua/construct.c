/* Making tensors and taking them apart: constants, ranges, nested tables, strings of bytes. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "lua/tdl.h"
#include "ops/op.h"

int tdl_sizes(lua_State *L, int first, const char *fname, int *ndim, size_t *shape) {
  int n = 0, next = first;
  bool table = lua_istable(L, first);
  int count = table ? (int)tdl_rawlen(L, first) : lua_gettop(L) - first + 1;
  for (int i = 0; i < count; i++) {
    if (table) lua_rawgeti(L, first, i + 1);
    else lua_pushvalue(L, first + i);
    bool number = lua_type(L, -1) == LUA_TNUMBER;
    double v = number ? lua_tonumber(L, -1) : 0;
    if (!number && !table) {
      lua_pop(L, 1);
      break;
    }
    if (!number || v < 0 || v != floor(v) || v > 9e15)
      tdl_error(L, "%s: size %d is %s, expected a non-negative integer", fname, i + 1, tdl_describe(L, -1));
    lua_pop(L, 1);
    if (n == TD_MAX_DIMS) tdl_error(L, "%s: a tensor has at most %d dims", fname, TD_MAX_DIMS);
    shape[n++] = (size_t)v;
    if (!table) next++;
  }
  *ndim = n;
  return table ? first + 1 : next;
}

/* The element type given at `index` as a name, or as the field dtype of an options table; `d` is left when absent. */
static void read_dtype(lua_State *L, int index, const char *fname, td_dtype *d) {
  if (lua_isnoneornil(L, index)) return;
  int popped = 0;
  if (lua_istable(L, index)) {
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
      if (lua_type(L, -2) != LUA_TSTRING || strcmp(lua_tostring(L, -2), "dtype") != 0)
        tdl_error(L, "%s: unknown option %s, expected dtype", fname,
                  lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "of another kind");
    lua_getfield(L, index, "dtype");
    popped = 1;
    index = lua_gettop(L);
  }
  if (!lua_isnil(L, index) && (lua_type(L, index) != LUA_TSTRING || !tdl_dtype(lua_tostring(L, index), d)))
    tdl_error(L, "%s: dtype is %s, expected float32, float64, int64 or uint8", fname, tdl_describe(L, index));
  lua_pop(L, popped);
}

/* zeros(sizes…, dtype), ones, empty share this. */
static td_tensor *make(lua_State *L, const char *fname) {
  size_t shape[TD_MAX_DIMS];
  int ndim;
  td_dtype d = TD_F32;
  int next = tdl_sizes(L, 1, fname, &ndim, shape);
  read_dtype(L, next, fname, &d);
  td_tensor *t = td_tensor_new(d, ndim, shape);
  if (!t) tdl_raise(L);
  return t;
}
static int make_zeros(lua_State *L) {
  td_tensor *t = make(L, "zeros");
  memset(t->data, 0, t->numel * td_dtype_size(t->dtype));
  tdl_push(L, t);
  return 1;
}
static int make_ones(lua_State *L) {
  td_tensor *t = make(L, "ones");
  tdl_push(L, t);
  tdl_check(L, td_tensor_fill(t, 1));
  return 1;
}
static int make_empty(lua_State *L) {
  tdl_push(L, make(L, "empty"));
  return 1;
}

/* full({sizes}, value, dtype) */
static int make_full(lua_State *L) {
  size_t shape[TD_MAX_DIMS];
  int ndim;
  td_dtype d = TD_F32;
  if (!lua_istable(L, 1)) tdl_error(L, "full: sizes are %s, expected a table such as {2, 3}", tdl_describe(L, 1));
  tdl_sizes(L, 1, "full", &ndim, shape);
  if (lua_type(L, 2) != LUA_TNUMBER) tdl_error(L, "full: the value is %s, expected a number", tdl_describe(L, 2));
  read_dtype(L, 3, "full", &d);
  td_tensor *t = td_tensor_new(d, ndim, shape);
  tdl_push(L, t);
  tdl_check(L, td_tensor_fill(t, lua_tonumber(L, 2)));
  return 1;
}

/* eye(n, m = n, dtype) */
static int make_eye(lua_State *L) {
  size_t shape[TD_MAX_DIMS];
  int ndim;
  td_dtype d = TD_F32;
  int next = tdl_sizes(L, 1, "eye", &ndim, shape);
  if (ndim < 1 || ndim > 2) tdl_error(L, "eye: expected one or two sizes, got %d", ndim);
  if (ndim == 1) shape[1] = shape[0];
  read_dtype(L, next, "eye", &d);
  td_tensor *t = td_tensor_zeros(d, 2, shape);
  tdl_push(L, t);
  for (size_t i = 0; i < shape[0] && i < shape[1]; i++) td_tensor_set(t, i * shape[1] + i, 1);
  return 1;
}

/* arange(first, last, step = 1, dtype): first, first + step, … up to and including last, as Lua's for does */
static int make_arange(lua_State *L) {
  int n = 0;
  double v[3] = {1, 0, 1};
  while (n < 3 && lua_type(L, n + 1) == LUA_TNUMBER) v[n] = lua_tonumber(L, n + 1), n++;
  if (n == 0) tdl_error(L, "arange: expected arange(last) or arange(first, last, step)");
  if (n == 1) v[1] = v[0], v[0] = 1;
  td_dtype d = TD_F32;
  read_dtype(L, n + 1, "arange", &d);
  double steps = floor((v[1] - v[0]) / v[2] + 1e-10);
  if (v[2] == 0 || !isfinite(steps) || steps > 1e12)
    tdl_error(L, "arange: %g to %g by %g has no end", v[0], v[1], v[2]);
  size_t count = steps < 0 ? 0 : (size_t)steps + 1;
  td_tensor *t = td_tensor_new(d, 1, &count);
  tdl_push(L, t);
  for (size_t i = 0; i < count; i++) td_tensor_set(t, i, v[0] + (double)i * v[2]);
  return 1;
}

/* linspace(first, last, count, dtype): both ends included */
static int make_linspace(lua_State *L) {
  double a = tdl_number(L, 1, "linspace", "first"), b = tdl_number(L, 2, "linspace", "last");
  double n = tdl_number(L, 3, "linspace", "count");
  td_dtype d = TD_F32;
  if (!(n >= 1 && n < 1e12) || n != floor(n)) tdl_error(L, "linspace: count is %g, expected a positive integer", n);
  read_dtype(L, 4, "linspace", &d);
  size_t count = (size_t)n;
  td_tensor *t = td_tensor_new(d, 1, &count);
  tdl_push(L, t);
  for (size_t i = 0; i < count; i++)
    td_tensor_set(t, i,
                  i + 1 == count && count > 1 ? b : a + (b - a) * (double)i / (count > 1 ? (double)(count - 1) : 1));
  return 1;
}

/* ---- Nested tables ---- */

/* The shape of the nested table at the top of the stack, by its first elements. */
static void table_shape(lua_State *L, int *ndim, size_t *shape) {
  int pushed = 0;
  *ndim = 0;
  while (lua_istable(L, -1)) {
    if (*ndim == TD_MAX_DIMS) tdl_error(L, "tensor: tables nest deeper than %d", TD_MAX_DIMS);
    size_t n = tdl_rawlen(L, -1);
    shape[(*ndim)++] = n;
    if (n == 0) break;
    lua_rawgeti(L, -1, 1);
    pushed++;
  }
  lua_pop(L, pushed);
}

/* Fills t from the nested table at the top of the stack, which must have the shape exactly. */
static void fill_from(lua_State *L, td_tensor *t, int dim, size_t *at) {
  if (dim == t->ndim) {
    int kind = lua_type(L, -1);
    if (kind != LUA_TNUMBER && kind != LUA_TBOOLEAN)
      tdl_error(L, "tensor: element %d is %s, expected a number", (int)*at + 1, tdl_describe(L, -1));
    td_tensor_set(t, (*at)++, kind == LUA_TNUMBER ? lua_tonumber(L, -1) : lua_toboolean(L, -1));
    return;
  }
  if (!lua_istable(L, -1) || tdl_rawlen(L, -1) != t->shape[dim])
    tdl_error(L, "tensor: the tables are ragged: one of %d elements where %d are expected (dim %d)",
              lua_istable(L, -1) ? (int)tdl_rawlen(L, -1) : 0, (int)t->shape[dim], dim + 1);
  for (size_t i = 0; i < t->shape[dim]; i++) {
    lua_rawgeti(L, -1, (int)i + 1);
    fill_from(L, t, dim + 1, at);
    lua_pop(L, 1);
  }
}

/* tensor(nested table | number | boolean, dtype); a tensor gives a converted copy */
static int make_tensor(lua_State *L) {
  size_t shape[TD_MAX_DIMS], at = 0;
  int ndim;
  td_dtype d = TD_F32;
  td_tensor *given = tdl_test(L, 1);
  if (given) d = given->dtype;
  read_dtype(L, 2, "tensor", &d);
  if (given) {
    td_tensor *t = td_tensor_new(d, given->ndim, given->shape);
    tdl_push(L, t);
    tdl_check(L, td_tensor_copy(t, given));
    return 1;
  }
  int kind = lua_type(L, 1);
  if (kind != LUA_TTABLE && kind != LUA_TNUMBER && kind != LUA_TBOOLEAN)
    tdl_error(L, "tensor: expected a number or nested tables of numbers, got %s", tdl_describe(L, 1));
  lua_pushvalue(L, 1);
  table_shape(L, &ndim, shape);
  luaL_checkstack(L, TD_MAX_DIMS + 8, "tensor");
  td_tensor *t = td_tensor_new(d, ndim, shape);
  tdl_push(L, t);
  lua_insert(L, -2);
  fill_from(L, t, 0, &at);
  lua_pop(L, 1);
  return 1;
}

static void push_nested(lua_State *L, const td_tensor *t, int dim, size_t *at) {
  if (dim == t->ndim) {
    lua_pushnumber(L, td_tensor_get(t, (*at)++));
    return;
  }
  lua_createtable(L, (int)t->shape[dim], 0);
  for (size_t i = 0; i < t->shape[dim]; i++) {
    push_nested(L, t, dim + 1, at);
    lua_rawseti(L, -2, (int)i + 1);
  }
}

/* t:totable(): nested tables, a number for a 0-d tensor */
static int tensor_totable(lua_State *L) {
  tdl_push(L, td_tensor_contiguous(tdl_tensor(L, 1, "totable", "the tensor")));
  size_t at = 0;
  luaL_checkstack(L, TD_MAX_DIMS + 8, "totable");
  push_nested(L, tdl_test(L, -1), 0, &at);
  return 1;
}

/* frombytes(string, {sizes}, dtype = "uint8") and t:tobytes(): raw memory, row-major, this machine's byte order */
static int make_frombytes(lua_State *L) {
  size_t n, shape[TD_MAX_DIMS];
  int ndim;
  td_dtype d = TD_U8;
  if (lua_type(L, 1) != LUA_TSTRING) tdl_error(L, "frombytes: bytes are %s, expected a string", tdl_describe(L, 1));
  const char *bytes = lua_tolstring(L, 1, &n);
  tdl_sizes(L, 2, "frombytes", &ndim, shape);
  read_dtype(L, 3, "frombytes", &d);
  td_tensor *t = td_tensor_new(d, ndim, shape);
  tdl_push(L, t);
  if (t->numel * td_dtype_size(d) != n)
    tdl_error(L, "frombytes: %d bytes for shape (%s) of %s, expected %d", (int)n, td_tensor_shape_string(t),
              td_dtype_name(d), (int)(t->numel * td_dtype_size(d)));
  if (n) memcpy(t->data, bytes, n);
  return 1;
}
static int tensor_tobytes(lua_State *L) {
  tdl_push(L, td_tensor_contiguous(tdl_tensor(L, 1, "tobytes", "the tensor")));
  td_tensor *t = tdl_test(L, -1);
  lua_pushlstring(L, t->data, t->numel * td_dtype_size(t->dtype));
  return 1;
}

static const luaL_Reg functions[] = {
  {"zeros", make_zeros}, {"ones", make_ones}, {"empty", make_empty}, {"full", make_full}, {"eye", make_eye},
  {"arange", make_arange}, {"linspace", make_linspace}, {"tensor", make_tensor}, {"frombytes", make_frombytes},
  {NULL, NULL},
};
static const luaL_Reg methods[] = {{"totable", tensor_totable}, {"tobytes", tensor_tobytes}, {NULL, NULL}};

void tdl_open_construct(lua_State *L) {
  tdl_setfuncs(L, functions);
  lua_getfield(L, -1, "methods");
  tdl_setfuncs(L, methods);
  lua_pop(L, 1);
}
