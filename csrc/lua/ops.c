/* Every operation of the table as a Lua function and a method, from its signature alone.
 *
 * A signature such as "x, w, bias?, stride:pair=1, groups:int=1" says which arguments are tensors and which are
 * attributes, and in which slots attributes go. Attributes may be given by position or in a last table by name. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "lua/tdl.h"
#include "ops/ops.h"

typedef enum {
  K_TENSOR,
  K_LIST,
  K_INT,
  K_BOOL,
  K_POS,
  K_DIM,
  K_NEWDIM,
  K_DIMS,
  K_PAIR,
  K_SHAPE,
  K_PERM,
  K_DTYPE,
  K_NUM
} kind;

enum { MAX_PARAMS = 12, MAX_NAME = 24 };

typedef struct {
  char name[MAX_NAME];
  kind k;
  int slot;        /* first of the attribute slots, or of f[] */
  bool optional;   /* a tensor that may be absent, or an attribute with a default */
  double preset;   /* of an attribute */
} param;

typedef struct {
  const td_op *op;
  int n, ntensors;
  bool list;       /* the tensors come in one table */
  param p[MAX_PARAMS];
  const char *names[MAX_PARAMS + 1];  /* of attributes, for messages */
} schema;

/* ---- Reading signatures, once ---- */

static const struct {
  const char *name;
  kind k;
  int slots;
} kinds[] = {
  {"int", K_INT, 1}, {"bool", K_BOOL, 1}, {"pos", K_POS, 1}, {"dim", K_DIM, 1}, {"newdim", K_NEWDIM, 1},
  {"dims", K_DIMS, 1}, {"pair", K_PAIR, 2}, {"shape", K_SHAPE, 9}, {"perm", K_PERM, 9}, {"dtype", K_DTYPE, 1},
  {"num", K_NUM, 0},
};

/* A malformed signature is a mistake in the table, found at the first start. */
static void read_signature(schema *s, const td_op *op) {
  int slot = 0, fslot = 0, named = 0;
  const char *c = op->signature;
  *s = (schema){.op = op};
  while (*c) {
    param *p = &s->p[s->n++];
    size_t len = strcspn(c, ",:?=.");
    memcpy(p->name, c, len);
    c += len;
    if (!strncmp(c, "...", 3)) p->k = K_LIST, s->list = true, c += 3;
    if (*c == '?') p->optional = true, c++;
    if (*c == ':') {
      size_t klen = strcspn(++c, ",=");
      for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strlen(kinds[i].name) == klen && !strncmp(kinds[i].name, c, klen)) {
          p->k = kinds[i].k;
          p->slot = p->k == K_NUM ? fslot++ : slot;
          slot += kinds[i].slots;
        }
      c += klen;
      p->optional = p->k == K_DIMS;
      if (*c == '=') {
        p->optional = true;
        p->preset = !strncmp(c + 1, "true", 4) ? 1 : strtod(c + 1, NULL);
        c += strcspn(c, ",");
      }
      s->names[named++] = p->name;
    } else {
      s->ntensors++;
    }
    c += strspn(c, ", ");
  }
}

/* ---- Arguments ---- */

typedef struct {
  lua_State *L;
  const schema *s;
  td_tensor *first;  /* operand 1, against which dims are resolved */
  td_attrs *a;
} args;

static td_status bad(const args *a, const param *p, int index, const char *expected) {
  return td_fail(TD_EARG, "%s: %s is %s, expected %s", a->s->op->name, p->name, tdl_describe(a->L, index), expected);
}

static bool whole(lua_State *L, int index, int64_t *v) {
  if (lua_type(L, index) != LUA_TNUMBER) return false;
  double d = lua_tonumber(L, index);
  if (d != floor(d) || fabs(d) > 9e15) return false;
  *v = (int64_t)d;
  return true;
}

/* A dim 1..n, or -1..-n from the end, as 0-based. */
static td_status dim_of(const args *a, const param *p, int index, int n, int64_t *out) {
  int64_t v;
  if (!whole(a->L, index, &v)) return bad(a, p, index, "a dim");
  if (v == 0 || v > n || v < -n)
    return td_fail(TD_EARG, "%s: dim %lld is out of range for a tensor of shape (%s)", a->s->op->name, (long long)v,
                   td_tensor_shape_string(a->first));
  *out = v > 0 ? v - 1 : v + n;
  return TD_OK;
}

/* Reads up to `most` whole numbers at `index`: a table of them, or numbers from there on. Gives how many arguments were
 * taken, or -1 with a message. */
static int numbers_of(const args *a, const param *p, int index, int most, int64_t *out, int *count) {
  lua_State *L = a->L;
  *count = 0;
  bool table = lua_istable(L, index);
  int n = table ? (int)tdl_rawlen(L, index) : lua_gettop(L) - index + 1, taken = 0;
  for (int i = 0; i < n; i++) {
    if (table) lua_rawgeti(L, index, i + 1);
    else lua_pushvalue(L, index + i);
    int64_t v;
    bool ok = whole(L, -1, &v);
    if (!ok && !table) {
      lua_pop(L, 1);
      break;
    }
    if (!ok || *count == most) {
      if (ok) td_fail(TD_EARG, "%s: %s has more than %d numbers", a->s->op->name, p->name, most);
      else bad(a, p, lua_gettop(L), "whole numbers");
      lua_pop(L, 1);
      return -1;
    }
    lua_pop(L, 1);
    out[(*count)++] = v;
    taken++;
  }
  return table ? 1 : taken;
}

/* Reads the attribute p at `index` (which holds a value) into its slots. Gives the arguments taken, or -1. */
static int read_attribute(const args *a, const param *p, int index) {
  lua_State *L = a->L;
  int64_t *slot = p->k == K_NUM ? NULL : &a->a->i[p->slot];
  int n = a->first ? a->first->ndim : 0, count;
  int64_t v[TD_MAX_DIMS];
  switch (p->k) {
    case K_NUM:
      if (lua_type(L, index) != LUA_TNUMBER) return bad(a, p, index, "a number"), -1;
      a->a->f[p->slot] = lua_tonumber(L, index);
      return 1;
    case K_INT:
      return whole(L, index, slot) ? 1 : (bad(a, p, index, "a whole number"), -1);
    case K_BOOL:
      if (lua_type(L, index) != LUA_TBOOLEAN) return bad(a, p, index, "true or false"), -1;
      *slot = lua_toboolean(L, index);
      return 1;
    case K_POS: {  /* a position along the dim in slot 0 */
      int64_t at, size = (int64_t)a->first->shape[a->a->i[0]];
      if (!whole(L, index, &at) || at == 0)
        return bad(a, p, index, "a position, 1 or more, or negative from the end"), -1;
      *slot = at > 0 ? at - 1 : at + size;
      return 1;
    }
    case K_DIM:
      return dim_of(a, p, index, n, slot) ? -1 : 1;
    case K_NEWDIM:
      return dim_of(a, p, index, n + 1, slot) ? -1 : 1;
    case K_DIMS:
      *slot = 0;
      if (lua_istable(L, index)) {
        int taken = numbers_of(a, p, index, TD_MAX_DIMS, v, &count);
        if (taken < 0) return -1;
        for (int i = 0; i < count; i++) {
          lua_pushnumber(L, (lua_Number)v[i]);
          int64_t d;
          td_status s = dim_of(a, p, lua_gettop(L), n, &d);
          lua_pop(L, 1);
          if (s) return -1;
          if (*slot >> d & 1)
            return td_fail(TD_EARG, "%s: dim %lld is named twice", a->s->op->name, (long long)v[i]), -1;
          *slot |= (int64_t)1 << d;
        }
      } else {
        int64_t d;
        if (dim_of(a, p, index, n, &d)) return -1;
        *slot = (int64_t)1 << d;
      }
      return 1;
    case K_PAIR:
      if (lua_istable(L, index)) {
        if (numbers_of(a, p, index, 2, v, &count) < 0) return -1;
        if (count != 2) return bad(a, p, index, "one number or two"), -1;
        slot[0] = v[0], slot[1] = v[1];
      } else if (whole(L, index, &v[0])) {
        slot[0] = slot[1] = v[0];
      } else {
        return bad(a, p, index, "one number or two"), -1;
      }
      return 1;
    case K_SHAPE:
    case K_PERM: {
      int taken = numbers_of(a, p, index, TD_MAX_DIMS, v, &count);
      if (taken < 0) return -1;
      if (taken == 0) return bad(a, p, index, "numbers"), -1;
      slot[0] = count;
      for (int i = 0; i < count; i++) {
        slot[1 + i] = v[i];
        if (p->k == K_SHAPE) continue;
        if (v[i] == 0 || v[i] > n || v[i] < -n)
          return td_fail(TD_EARG, "%s: dim %lld is out of range for a tensor of shape (%s)", a->s->op->name,
                         (long long)v[i], td_tensor_shape_string(a->first)), -1;
        slot[1 + i] = v[i] > 0 ? v[i] - 1 : v[i] + n;
      }
      return taken;
    }
    case K_DTYPE: {
      td_dtype d;
      if (lua_type(L, index) != LUA_TSTRING || !tdl_dtype(lua_tostring(L, index), &d))
        return bad(a, p, index, "float32, float64, int64 or uint8"), -1;
      *slot = d;
      return 1;
    }
    default:
      return -1;
  }
}

/* Defaults of the attributes. */
static td_status preset(const args *a, const param *p, bool given) {
  if (given) return TD_OK;
  if (!p->optional) return td_fail(TD_EARG, "%s: %s is missing; the signature is %s(%s)", a->s->op->name, p->name,
                                   a->s->op->name, a->s->op->signature);
  int64_t v = (int64_t)p->preset;
  int n = a->first ? a->first->ndim : 0;
  switch (p->k) {
    case K_NUM: a->a->f[p->slot] = p->preset; break;
    case K_PAIR: a->a->i[p->slot] = a->a->i[p->slot + 1] = v; break;
    case K_DIM:
      if (n == 0) return td_fail(TD_ESHAPE, "%s: a 0-d tensor has no dims", a->s->op->name);
      a->a->i[p->slot] = v > 0 ? v - 1 : v + n;
      break;
    default: a->a->i[p->slot] = v;
  }
  return TD_OK;
}

/* Is the value an options table: a table with no array part? An empty one is a list where the attribute p, which comes
 * next if any does, is a list that may be empty. */
static bool is_options(lua_State *L, int index, const param *p) {
  if (!lua_istable(L, index) || tdl_rawlen(L, index) > 0) return false;
  lua_pushnil(L);
  if (!lua_next(L, index)) return !p || (p->k != K_DIMS && p->k != K_SHAPE && p->k != K_PERM);
  lua_pop(L, 2);
  return true;
}

/* Every key of the options table must be an attribute's name. */
static td_status check_names(const args *a, int index) {
  lua_State *L = a->L;
  const schema *s = a->s;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    int k = s->ntensors;
    while (k < s->n && strcmp(s->p[k].name, key) != 0) k++;
    if (k < s->n) continue;
    const char *near = tdl_nearest(key, s->names);
    td_fail(TD_EARG, near ? "%s: unknown option \"%s\", did you mean \"%s\"?" : "%s: unknown option \"%s\"",
            s->op->name, key, near);
    lua_pop(L, 2);
    return td_last_status();
  }
  return TD_OK;
}

/* Attributes from position `index` on, then from an options table. */
static td_status read_attributes(const args *a, int index) {
  lua_State *L = a->L;
  const schema *s = a->s;
  bool given[MAX_PARAMS] = {false};
  int top = lua_gettop(L), i = s->ntensors;
  for (; i < s->n && index <= top && !is_options(L, index, &s->p[i]); i++) {
    if (lua_isnil(L, index)) {
      index++;
      continue;
    }
    int taken = read_attribute(a, &s->p[i], index);
    if (taken < 0) return td_last_status();
    given[i] = true;
    index += taken;
  }
  if (index <= top && is_options(L, index, i < s->n ? &s->p[i] : NULL)) {
    if (check_names(a, index)) return td_last_status();
    for (int k = s->ntensors; k < s->n; k++) {  /* in the signature's order: a position needs its dim */
      lua_getfield(L, index, s->p[k].name);
      int taken = lua_isnil(L, -1) ? 0 : read_attribute(a, &s->p[k], lua_gettop(L));
      lua_pop(L, 1);
      if (taken < 0) return td_last_status();
      if (taken) given[k] = true;
      else if (!given[k] && preset(a, &s->p[k], false)) return td_last_status();
      else given[k] = true;
    }
    index++;
  }
  if (index <= top)
    return td_fail(TD_EARG, "%s: argument %d is %s, expected no more; the signature is %s(%s)", s->op->name, index,
                   tdl_describe(L, index), s->op->name, s->op->signature);
  for (int k = s->ntensors; k < s->n; k++) {
    td_status status = preset(a, &s->p[k], given[k]);
    if (status) return status;
  }
  return TD_OK;
}

/* The operands: `in` has room for `most`. */
static td_status read_operands(const args *a, td_tensor **in, int *nin, int *next) {
  lua_State *L = a->L;
  const schema *s = a->s;
  *nin = 0;
  int top = lua_gettop(L);
  for (int i = 0; i < s->ntensors; i++) {
    if ((in[i] = tdl_test(L, i + 1))) {
      (*nin)++;
      continue;
    }
    bool absent = i >= top || lua_isnil(L, i + 1) || (s->p[i].optional && !lua_isnumber(L, i + 1));
    if (absent && s->p[i].optional) {
      *next = i + 1 + (i < top && lua_isnil(L, i + 1));
      while (++i < s->ntensors) *next += i < top && lua_isnil(L, *next);
      return TD_OK;
    }
    in[i] = tdl_operand(L, i + 1, s->op->name, s->p[i].name);
    if (!in[i]) return td_last_status();
    (*nin)++;
  }
  *next = s->ntensors + 1;
  return TD_OK;
}

static void push_results(lua_State *L, td_tensor **out, int n) {
  for (int i = 0; i < n; i++) tdl_push(L, out[i]);
}

/* An operation whose tensors come in one table: f({a, b, …}, attributes). */
static int call_list(lua_State *L, const schema *s) {
  if (!lua_istable(L, 1)) tdl_error(L, "%s: %s is %s, expected a table of tensors", s->op->name, s->p[0].name,
                                    tdl_describe(L, 1));
  int n = (int)tdl_rawlen(L, 1);
  if (n == 0) tdl_error(L, "%s: an empty table of tensors", s->op->name);
  td_tensor **in = td_alloc((size_t)n * sizeof *in), *out[TD_MAX_OUT];  /* the table keeps the tensors alive */
  td_status status = in ? TD_OK : td_last_status();
  for (int i = 0; i < n && !status; i++) {
    lua_rawgeti(L, 1, i + 1);
    in[i] = tdl_test(L, -1);
    if (!in[i])
      status = td_fail(TD_EARG, "%s: element %d is %s, expected a tensor", s->op->name, i + 1, tdl_describe(L, -1));
    lua_pop(L, 1);
  }
  td_attrs attrs = {.i = {0}};
  args a = {L, s, status ? NULL : in[0], &attrs};
  if (!status) status = read_attributes(&a, 2);
  if (!status) status = td_apply(s->op, in, n, &attrs, out);
  td_free(in, (size_t)n * sizeof *in);
  tdl_check(L, status);
  push_results(L, out, 1);
  return 1;
}

static int call(lua_State *L) {
  const schema *s = lua_touserdata(L, lua_upvalueindex(1));
  if (s->list) return call_list(L, s);
  td_tensor *in[MAX_PARAMS], *out[TD_MAX_OUT];
  td_attrs attrs = {.i = {0}};
  args a = {L, s, NULL, &attrs};
  int nin, next;
  size_t mark = td_auto_mark();
  td_status status = read_operands(&a, in, &nin, &next);
  if (!status) {
    a.first = in[0];
    if (s->n > s->ntensors) {
      status = read_attributes(&a, next);
    } else if (lua_gettop(L) >= next && next > s->ntensors && lua_gettop(L) > s->ntensors) {
      status = read_attributes(&a, next);
    }
  }
  if (!status) status = td_apply(s->op, in, nin, &attrs, out);
  td_auto_release(mark);
  tdl_check(L, status);
  int nout = s->op->nout ? s->op->nout : 1;
  push_results(L, out, nout);
  return nout;
}

/* The arithmetic metamethods get two operands, and for unary minus the same one twice. */
static int call_operator(lua_State *L) {
  const schema *s = lua_touserdata(L, lua_upvalueindex(1));
  lua_settop(L, s->ntensors);
  return call(L);
}

/* x:add_(y) and the like: writes over x and gives it back. */
static int call_inplace(lua_State *L) {
  const schema *s = lua_touserdata(L, lua_upvalueindex(1));
  td_tensor *in[MAX_PARAMS];
  int nin, next;
  args a = {L, s, NULL, NULL};
  tdl_any_tensor(L, 1, s->op->name, "self");
  size_t mark = td_auto_mark();
  td_status status = read_operands(&a, in, &nin, &next);
  if (!status) status = td_apply_inplace(s->op, in, nin, NULL);
  td_auto_release(mark);
  tdl_check(L, status);
  lua_settop(L, 1);
  return 1;
}

/* ---- Registration ---- */

/* core.operations() → {name → {signature=, doc=, differentiable=, elementwise=, results=}} for the manual and the
 * tests */
static int operations(lua_State *L) {
  lua_newtable(L);
  for (const td_op *const *const *f = td_op_families(); *f; f++)
    for (const td_op *const *o = *f; *o; o++) {
      const td_op *op = *o;
      lua_createtable(L, 0, 5);
      lua_pushstring(L, op->signature), lua_setfield(L, -2, "signature");
      lua_pushstring(L, op->doc), lua_setfield(L, -2, "doc");
      lua_pushboolean(L, op->vjp != NULL), lua_setfield(L, -2, "differentiable");
      lua_pushboolean(L, op->pw != 0), lua_setfield(L, -2, "elementwise");
      lua_pushinteger(L, op->nout ? op->nout : 1), lua_setfield(L, -2, "results");
      lua_setfield(L, -2, op->name);
    }
  return 1;
}

static schema *schemas;

static void read_all_signatures(void) {
  size_t n = 0;
  for (const td_op *const *const *f = td_op_families(); *f; f++)
    for (const td_op *const *o = *f; *o; o++) n++;
  schemas = calloc(n, sizeof *schemas);
  schema *s = schemas;
  for (const td_op *const *const *f = td_op_families(); s && *f; f++)
    for (const td_op *const *o = *f; *o; o++) read_signature(s++, *o);
}

/* Sets field `name` of the table at `table` to a closure over s. */
static void set_closure(lua_State *L, int table, const char *name, lua_CFunction f, const schema *s) {
  lua_pushlightuserdata(L, (void *)s);
  lua_pushcclosure(L, f, 1);
  lua_setfield(L, table, name);
}

void tdl_open_ops(lua_State *L) {
  static const struct {
    const char *event, *op;
  } operators[] = {{"__add", "add"}, {"__sub", "sub"}, {"__mul", "mul"}, {"__div", "div"},
                   {"__pow", "pow"}, {"__mod", "mod"}, {"__unm", "neg"}};
  if (!schemas) read_all_signatures();
  if (!schemas) tdl_error(L, "tide.core: out of memory");
  int module = lua_gettop(L);
  lua_pushcfunction(L, operations);
  lua_setfield(L, module, "operations");
  lua_getfield(L, module, "methods");
  luaL_getmetatable(L, TDL_TENSOR);
  int metatable = lua_gettop(L), methods = metatable - 1;
  const schema *s = schemas;
  for (const td_op *const *const *f = td_op_families(); *f; f++)
    for (const td_op *const *o = *f; *o; o++, s++) {
      const char *name = (*o)->name;
      set_closure(L, module, name, call, s);
      set_closure(L, methods, name, call, s);
      if ((*o)->pw) {
        char inplace[MAX_NAME + 1];
        snprintf(inplace, sizeof inplace, "%s_", name);
        set_closure(L, methods, inplace, call_inplace, s);
      }
      for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (!strcmp(operators[i].op, name)) set_closure(L, metatable, operators[i].event, call_operator, s);
    }
  lua_settop(L, module);
}
