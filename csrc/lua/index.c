/* Indexing: t[i], t[{i, {first, last, step}, {}}], t[mask], t[positions], and assignment to each.
 * Numbers drop their dim, {first, last} keeps it, {} takes all of it, a tensor of positions selects, a uint8 mask of
 * t's leading shape picks what is not 0. Reading records gradients; assignment writes in place. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "lua/tdl.h"
#include "ops/ops.h"

/* Position v (1.., or negative from the end) of a dim of size n, 0-based. */
static td_status position(lua_State *L, int index, size_t n, int dim, int64_t *at) {
  double v = lua_tonumber(L, index);
  if (lua_type(L, index) != LUA_TNUMBER || v != floor(v) || v == 0 || v > (double)n || v < -(double)n)
    return td_fail(TD_EARG, "index: %s is outside 1..%zu of dim %d", tdl_describe(L, index), n, dim);
  *at = v > 0 ? (int64_t)v - 1 : (int64_t)v + (int64_t)n;
  return TD_OK;
}

/* {first, last, step} at the stack's `index` as start and count */
static td_status range(lua_State *L, int index, size_t n, int dim, int64_t *start, int64_t *count, int64_t *step) {
  int64_t last = (int64_t)n - 1;
  td_status s = TD_OK;
  *start = 0;
  *step = 1;
  int len = (int)tdl_rawlen(L, index), top = lua_gettop(L);
  if (len > 3) return td_fail(TD_EARG, "index: a range has %d parts, expected {first, last, step}", len);
  for (int i = 1; i <= len && !s; i++) {
    lua_rawgeti(L, index, i);
    if (i < 3) s = position(L, -1, n, dim, i == 1 ? start : &last);
    else if (!(lua_type(L, -1) == LUA_TNUMBER && lua_tonumber(L, -1) >= 1 && lua_tonumber(L, -1) <= 9e15))
      s = td_fail(TD_EARG, "index: a range's step is %s, expected 1 or more", tdl_describe(L, -1));
    else *step = (int64_t)lua_tonumber(L, -1);
  }
  lua_settop(L, top);
  if (len == 1) last = *start;
  *count = last < *start ? 0 : (last - *start) / *step + 1;
  return s;
}

/* The positions (from 1, int64) at which a tensor, read in row-major order, is not 0; one reference. */
static td_tensor *nonzero(td_tensor *x) {
  if (!td_tensor_is_known(x)) {
    td_fail(TD_EARG, "index: which elements a mask picks is not known while the function is captured; use where");
    return NULL;
  }
  td_tensor *zero = td_num(0), *truth = td_do(&td_op_ne, NULL, 2, x, zero);
  td_tensor *m = truth ? td_tensor_contiguous(truth) : NULL;
  if (!m) return NULL;
  const uint8_t *is = (const uint8_t *)m->data;
  size_t count = 0;
  for (size_t i = 0; i < m->numel; i++) count += is[i];
  td_tensor *at = td_tensor_new(TD_I64, 1, &count);
  int64_t *p = at ? (int64_t *)(void *)at->data : NULL;
  for (size_t i = 0, k = 0; at && k < count; i++) {  /* without a branch that cannot be foreseen */
    p[k] = (int64_t)i + 1;
    k += is[i];
  }
  td_tensor_release(m);
  return at;
}

/* x with one index of the list, the `nth`, applied to its dim *dim, which moves on when the dim stays. */
static td_tensor *apply_one(lua_State *L, int index, td_tensor *x, int nth, int *dim) {
  int64_t at = 0, count = 0, step = 1;
  if (*dim >= x->ndim) {
    td_fail(TD_EARG, "index: more indices than the %d dims of the tensor", nth - 1);
    return NULL;
  }
  td_tensor *positions = tdl_test(L, index);
  size_t n = x->shape[*dim];
  if (positions && positions->dtype == TD_U8) {
    if (positions->ndim != 1 || positions->numel != n) {
      td_fail(TD_ESHAPE, "index: a mask of shape (%s) for dim %d of size %zu", td_tensor_shape_string(positions),
              nth, n);
      return NULL;
    }
    positions = td_auto(nonzero(positions));
  }
  if (positions) {
    td_attrs a = {.i = {(*dim)++}};
    return td_do(&td_op_index_select, &a, 2, x, positions);
  }
  if (lua_istable(L, index)) {
    if (range(L, index, n, nth, &at, &count, &step)) return NULL;
    td_attrs a = {.i = {(*dim)++, at, count, step}};
    return td_do(&td_op_narrow, &a, 1, x);
  }
  if (position(L, index, n, nth, &at)) return NULL;
  td_attrs a = {.i = {*dim, at}};
  return td_do(&td_op_select, &a, 1, x);
}

static bool is_mask(lua_State *L, int index) {
  td_tensor *t = tdl_test(L, index);
  return t && t->dtype == TD_U8;
}

/* The view (or selection) that t[key] names, automatic; NULL and a message when it names none. */
static td_tensor *resolve(lua_State *L, td_tensor *t, int key) {
  int dim = 0;
  if (!lua_istable(L, key)) return apply_one(L, key, t, 1, &dim);
  int n = (int)tdl_rawlen(L, key);
  td_tensor *x = t;
  for (int i = 1; i <= n && x; i++) {
    lua_rawgeti(L, key, i);
    x = apply_one(L, lua_gettop(L), x, i, &dim);
    lua_pop(L, 1);
  }
  return n ? x : td_expand(t, t->ndim, t->shape);  /* all of it: a view */
}

/* t with the dims of the mask flattened into one; NULL when the mask's shape does not begin t's. */
static td_tensor *flat_front(td_tensor *t, const td_tensor *mask) {
  size_t shape[TD_MAX_DIMS] = {mask->numel};
  bool fits = mask->ndim <= t->ndim && 1 + t->ndim - mask->ndim <= TD_MAX_DIMS;
  for (int i = 0; i < mask->ndim && fits; i++) fits = mask->shape[i] == t->shape[i];
  if (!fits) {
    td_fail(TD_ESHAPE, "index: a mask of shape (%s) does not fit (%s)", td_tensor_shape_string(mask),
            td_tensor_shape_string(t));
    return NULL;
  }
  for (int i = mask->ndim; i < t->ndim; i++) shape[1 + i - mask->ndim] = t->shape[i];
  return td_reshape(t, 1 + t->ndim - mask->ndim, shape);
}

int tdl_index_get(lua_State *L);
int tdl_index_get(lua_State *L) {
  td_tensor *t = tdl_any_tensor(L, 1, "index", "self"), *x;
  size_t mark = td_auto_mark();
  if (is_mask(L, 2)) {
    td_tensor *mask = tdl_test(L, 2);
    td_attrs a = {.i = {0}};
    x = td_do(&td_op_index_select, &a, 2, flat_front(t, mask), td_auto(nonzero(mask)));
  } else {
    x = resolve(L, t, 2);
  }
  td_tensor_retain(x);
  td_auto_release(mark);
  tdl_push(L, x);
  return 1;
}

/* t[mask] = value */
static td_status assign_masked(td_tensor *t, td_tensor *mask, td_tensor *value) {
  size_t shape[TD_MAX_DIMS];
  for (int i = 0; i < t->ndim; i++) shape[i] = i < mask->ndim ? mask->shape[i] : 1;
  if (!flat_front(t, mask)) return td_last_status();
  td_tensor *wide = td_reshape(mask, t->ndim, shape), *x = td_cast(td_where(wide, value, t), t->dtype);
  if (!x) return td_last_status();
  if (!td_tensor_same_shape(x, t))
    return td_fail(TD_ESHAPE, "index: a value of shape (%s) does not broadcast to (%s)", td_tensor_shape_string(value),
                   td_tensor_shape_string(t));
  return td_tensor_copy(t, x);
}

/* t[positions] = value, and the same inside an index list, is not a view: refused with the way to do it. */
static bool names_positions(lua_State *L, int key) {
  if (tdl_test(L, key)) return true;
  bool found = false;
  for (int i = 1; lua_istable(L, key) && i <= (int)tdl_rawlen(L, key) && !found; i++) {
    lua_rawgeti(L, key, i);
    found = tdl_test(L, -1) != NULL;
    lua_pop(L, 1);
  }
  return found;
}

int tdl_index_set(lua_State *L);
int tdl_index_set(lua_State *L) {
  td_tensor *t = tdl_any_tensor(L, 1, "index", "self");
  size_t mark = td_auto_mark();
  bool was = td_recording;
  td_tensor *value = tdl_operand(L, 3, "index", "the value");
  td_status s = value ? TD_OK : td_last_status();
  if (!s && was && (t->node || value->node))
    s = td_fail(TD_EGRAD,
                "index: assignment would spoil a gradient; use where, cat or scatter_add, or wrap it in no_grad");
  td_recording = false;
  if (!s && is_mask(L, 2)) {
    s = assign_masked(t, tdl_test(L, 2), value);
  } else if (!s && names_positions(L, 2)) {
    s = td_fail(TD_EARG, "index: positions cannot be assigned to; use a mask, a range or scatter_add");
  } else if (!s) {
    td_tensor *view = resolve(L, t, 2);
    s = view ? td_tensor_copy(view, value) : td_last_status();
    if (view && s == TD_ESHAPE)
      s = td_fail(s, "index: a value of shape (%s) does not broadcast to the (%s) assigned to",
                  td_tensor_shape_string(value), td_tensor_shape_string(view));
  }
  td_recording = was;
  td_auto_release(mark);
  tdl_check(L, s);
  return 0;
}

/* t:nonzero(): positions from 1 in row-major order, int64 */
static int tensor_nonzero(lua_State *L) {
  td_tensor *x = tdl_tensor(L, 1, "nonzero", "the tensor");
  size_t mark = td_auto_mark();
  td_tensor *at = nonzero(x);
  td_auto_release(mark);
  tdl_push(L, at);
  return 1;
}

void tdl_open_index(lua_State *L) {
  lua_getfield(L, -1, "methods");
  lua_pushcfunction(L, tensor_nonzero);
  lua_setfield(L, -2, "nonzero");
  lua_pop(L, 1);
}
