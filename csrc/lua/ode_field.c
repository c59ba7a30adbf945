/* Right-hand sides from Lua: functions on tensors, functions on plain numbers, and examples written in C. */
#include "lua/ode_field.h"
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "graph/native.h"
#include "ops/ops.h"
#include "solve/captured.h"

typedef struct {
  td_field base;
  int function, jacobian, stages, march;  /* registry references */
  const char *stages_of;  /* the method whose steps `stages` makes */
  lua_State *main;
  td_tensor *last;        /* what the function returned last, and how often it was written then */
  uint32_t last_version;
  tdl_form form;          /* of events */
  bool boolean;           /* an event that gave a boolean */
} lua_field;

static void release(td_field *self) {
  lua_field *f = (lua_field *)self;
  td_tensor_release(f->last);
  luaL_unref(f->main, LUA_REGISTRYINDEX, f->function);
  luaL_unref(f->main, LUA_REGISTRYINDEX, f->jacobian);
  luaL_unref(f->main, LUA_REGISTRYINDEX, f->stages);
  luaL_unref(f->main, LUA_REGISTRYINDEX, f->march);
  td_free(f, sizeof *f);
}

/* Pushes the message handler and the function of that reference; *top is the stack before. */
static td_status push_reference(lua_State *L, int function, int *top) {
  *top = lua_gettop(L);
  if (!lua_checkstack(L, 8)) return td_fail(TD_EARG, "ode.solve: the stack is full, is f solving itself?");
  tdl_push_handler(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, function);
  return TD_OK;
}

static td_status push_function(lua_field *f, lua_State *L, int *top) {
  return push_reference(L, f->function, top);
}

static td_status call_for(lua_State *L, int top, int results) {
  if (lua_pcall(L, lua_gettop(L) - top - 2, results, top + 1) == LUA_OK) return TD_OK;
  td_status s = tdl_call_failed(L);
  lua_settop(L, top);
  return s;
}

static td_status call(lua_State *L, int top) { return call_for(L, top, 1); }

/* Events and resets of a batch are told the row. */
static void push_row(lua_State *L, const td_field *f) {
  if (f->row) lua_pushinteger(L, (lua_Integer)f->row);
}

/* ---- On tensors ---- */

static uint32_t version_of(const td_tensor *t) { return t->storage ? t->storage->version : 0; }

/* Did the function answer false: cannot be evaluated here, try a smaller step? */
static bool declines(lua_State *L) { return lua_isboolean(L, -1) && !lua_toboolean(L, -1); }

/* The tensor on top of the stack; another real type than y's is converted. */
static td_status take_tensor(lua_State *L, const td_tensor *y, td_tensor **dy) {
  td_tensor *result = tdl_test(L, -1);
  if (declines(L)) {
    *dy = td_tensor_new(y->dtype, y->ndim, y->shape);
    return *dy ? td_tensor_fill(*dy, NAN) : td_last_status();
  }
  if (!result)
    return td_fail(TD_EARG, "ode.solve: the right-hand side gave %s, expected a tensor", tdl_describe(L, -1));
  if (!td_tensor_same_shape(result, y) || !td_dtype_is_real(result->dtype))
    return td_fail(TD_ESHAPE, "ode.solve: the right-hand side gave %s of shape (%s), expected %s of the state's shape "
                   "(%s)", td_dtype_name(result->dtype), td_tensor_shape_string(result), td_dtype_name(y->dtype),
                   td_tensor_shape_string(y));
  if (result->dtype == y->dtype) {
    *dy = td_tensor_retain(result);
    return TD_OK;
  }
  size_t mark = td_auto_mark();
  *dy = td_tensor_retain(td_cast(result, y->dtype));
  td_auto_release(mark);
  return *dy ? TD_OK : td_last_status();
}

/* What would be wrong once it is on the tape is refused at once: writing into the state, or into an earlier result. */
static td_status check_unwritten(lua_field *f, const td_tensor *y, uint32_t version, td_tensor *dy) {
  if (version_of(y) != version)
    return td_fail(TD_EARG,
                   "ode.solve: the right-hand side wrote into its state in place, which the solver still needs");
  if (f->last && version_of(f->last) != f->last_version)
    return td_fail(TD_EARG, "ode.solve: the right-hand side wrote into a tensor that it had returned before; return a "
                   "new one each time");
  td_tensor_release(f->last);
  f->last = td_recording ? NULL : td_tensor_retain(dy);
  f->last_version = version_of(dy);
  return TD_OK;
}

static td_status tensors_record(td_field *self, td_tensor *t, td_tensor *y, td_tensor **dy) {
  lua_field *f = (lua_field *)self;
  lua_State *L = tdl_state();
  int top;
  uint32_t version = version_of(y);
  td_status s = push_function(f, L, &top);
  if (s) return s;
  tdl_push(L, td_tensor_retain(t));
  tdl_push(L, td_tensor_retain(y));
  push_row(L, self);
  s = call(L, top);
  if (s) return s;
  s = take_tensor(L, y, dy);
  if (!s) s = check_unwritten(f, y, version, *dy);
  if (s) {
    td_tensor_release(*dy);
    *dy = NULL;
  }
  lua_settop(L, top);
  return s;
}

/* The function may keep its arguments, so they are made for it. */
static td_status tensors_eval(td_field *self, double t, const void *y, void *dy) {
  size_t bytes = self->numel * td_dtype_size(self->dtype);
  td_tensor *time = td_tensor_number(TD_F64, t, false), *slope = NULL;
  td_tensor *state = td_tensor_new(self->dtype, self->ndim, self->shape);
  td_status s = time && state ? TD_OK : td_last_status();
  if (!s && bytes) memcpy(state->data, y, bytes);
  bool was = td_recording;
  td_recording = false;
  if (!s) s = tensors_record(self, time, state, &slope);
  td_recording = was;
  if (!s && !td_tensor_is_contiguous(slope)) {
    td_tensor *flat = td_tensor_contiguous(slope);
    td_tensor_release(slope);
    slope = flat;
    if (!flat) s = td_last_status();
  }
  if (!s && bytes) memcpy(dy, slope->data, bytes);
  td_tensor_release(slope);
  td_tensor_release(state);
  td_tensor_release(time);
  return s;
}

/* ---- On plain numbers, float64 ---- */

static td_status refuse_numbers(lua_State *L, bool table, size_t n) {
  if (!table)
    return td_fail(TD_EARG, "ode.solve: the right-hand side gave %s, expected a number", tdl_describe(L, -1));
  if (!lua_istable(L, -1))
    return td_fail(TD_EARG, "ode.solve: the right-hand side gave %s, expected a table of %zu numbers",
                   tdl_describe(L, -1), n);
  return td_fail(TD_EARG, "ode.solve: the right-hand side gave %zu numbers, expected a table of %zu numbers",
                 (size_t)tdl_rawlen(L, -1), n);
}

static td_status number_eval(td_field *self, double t, const void *y, void *dy) {
  lua_State *L = tdl_state();
  int top;
  td_status s = push_function((lua_field *)self, L, &top);
  if (s) return s;
  lua_pushnumber(L, t);
  lua_pushnumber(L, *(const double *)y);
  s = call(L, top);
  if (s) return s;
  if (lua_type(L, -1) == LUA_TNUMBER) *(double *)dy = lua_tonumber(L, -1);
  else if (declines(L)) *(double *)dy = NAN;
  else s = refuse_numbers(L, false, 1);
  lua_settop(L, top);
  return s;
}

static td_status table_eval(td_field *self, double t, const void *y, void *dy) {
  lua_State *L = tdl_state();
  int top, n = (int)self->numel;
  td_status s = push_function((lua_field *)self, L, &top);
  if (s) return s;
  lua_pushnumber(L, t);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushnumber(L, ((const double *)y)[i]);
    lua_rawseti(L, -2, i + 1);
  }
  s = call(L, top);
  if (s) return s;
  bool declined = declines(L);
  for (int i = 0; i < n && declined; i++) ((double *)dy)[i] = NAN;
  if (!declined && (lua_type(L, -1) != LUA_TTABLE || tdl_rawlen(L, -1) != self->numel))
    s = refuse_numbers(L, true, self->numel);
  for (int i = 0; i < n && !s && !declined; i++) {
    lua_rawgeti(L, -1, i + 1);
    if (lua_type(L, -1) == LUA_TNUMBER)
      ((double *)dy)[i] = lua_tonumber(L, -1);
    else
      s = td_fail(TD_EARG, "ode.solve: component %d of what the right-hand side gave is %s, expected a number",
                  i + 1, tdl_describe(L, -1));
    lua_pop(L, 1);
  }
  lua_settop(L, top);
  return s;
}

/* ---- A whole explicit step by a function of its own, on plain numbers ---- */

static void push_all(lua_State *L, const double *x, size_t n) {
  for (size_t i = 0; i < n; i++) lua_pushnumber(L, x[i]);
}
/* n numbers from the stack index on. */
static void take_all(lua_State *L, int index, double *x, size_t n) {
  for (size_t i = 0; i < n; i++) x[i] = lua_tonumber(L, index + (int)i);
}

static td_status lua_stages(td_field *self, const td_field_stages *step, bool *done) {
  lua_field *f = (lua_field *)self;
  *done = false;
  if (step->method != f->stages_of || step->first != 1 || step->end != step->stages || step->keep) return TD_OK;
  lua_State *L = tdl_state();
  int top, count = step->stages - 1, results = (count + 1) * (int)self->numel;
  td_status s = push_reference(L, f->stages, &top);
  if (s) return s;
  if (!lua_checkstack(L, 2 * results + count + 8)) return TD_OK;
  lua_rawgeti(L, LUA_REGISTRYINDEX, f->function);
  lua_pushnumber(L, step->h);
  push_all(L, step->t + 1, (size_t)count);
  push_all(L, step->y, self->numel);
  push_all(L, step->k[0], self->numel);
  s = call_for(L, top, results);
  if (s) return s;
  *done = !lua_isnil(L, top + 2);
  if (*done) take_all(L, top + 2, step->y1, self->numel);
  for (int i = 1; i <= count && *done; i++) take_all(L, top + 2 + i * (int)self->numel, step->k[i], self->numel);
  lua_settop(L, top);
  return TD_OK;
}

void tdl_field_set_stages(lua_State *L, td_field *f, int index, const char *method) {
  if (f->free != release) return;
  lua_pushvalue(L, index);
  ((lua_field *)f)->stages = luaL_ref(L, LUA_REGISTRYINDEX);
  ((lua_field *)f)->stages_of = method;
  f->stages = lua_stages;
}

static td_status lua_march(td_field *self, const td_field_method *m, double *block, double *rows, bool *done) {
  (void)m;
  *done = true;
  lua_field *f = (lua_field *)self;
  lua_State *L = tdl_state();
  int top;
  td_status s = push_reference(L, f->march, &top);
  if (s) return s;
  lua_rawgeti(L, LUA_REGISTRYINDEX, f->function);
  lua_pushlightuserdata(L, block);
  lua_pushlightuserdata(L, rows);
  s = call_for(L, top, 0);
  if (!s) lua_settop(L, top);
  return s;
}

void tdl_field_set_march(lua_State *L, td_field *f, int index, const char *method) {
  if (f->free != release) return;
  lua_pushvalue(L, index);
  ((lua_field *)f)->march = luaL_ref(L, LUA_REGISTRYINDEX);
  f->march_method = method;
  f->march = lua_march;
}

/* ---- The Jacobian by a function of its own, on tables of numbers whatever f's form ---- */

/* `count` numbers of the table at the index. */
static td_status take_table(lua_State *L, int index, const char *what, size_t count, double *out) {
  if (!lua_istable(L, index) || tdl_rawlen(L, index) != count)
    return td_fail(TD_EARG, "ode.solve: jac gave %s as %s, expected a table of %zu numbers", tdl_describe(L, index),
                   what, count);
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, index, (int)i + 1);
    bool number = lua_type(L, -1) == LUA_TNUMBER;
    out[i] = number ? lua_tonumber(L, -1) : 0;
    lua_pop(L, 1);
    if (!number) return td_fail(TD_EARG, "ode.solve: jac gave something else than a number in %s", what);
  }
  return TD_OK;
}

static td_status lua_jacobian(td_field *self, double t, const void *y, double *jacobian, double *ft) {
  lua_field *f = (lua_field *)self;
  lua_State *L = tdl_state();
  int top, n = (int)self->numel;
  td_status s = push_reference(L, f->jacobian, &top);
  if (s) return s;
  lua_pushnumber(L, t);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushnumber(L, self->dtype == TD_F64 ? ((const double *)y)[i] : (double)((const float *)y)[i]);
    lua_rawseti(L, -2, i + 1);
  }
  s = call_for(L, top, 2);
  if (s) return s;
  s = take_table(L, top + 2, "the Jacobian", self->numel * self->numel, jacobian);
  if (!s && ft && lua_isnil(L, top + 3))
    s = td_fail(TD_EARG, "ode.solve: this method needs ∂f/∂t too; jac must give it as its second value");
  else if (!s && ft) s = take_table(L, top + 3, "∂f/∂t", self->numel, ft);
  lua_settop(L, top);
  return s;
}

void tdl_field_set_jacobian(lua_State *L, td_field *f, int index) {
  if (f->free != release) return;
  lua_pushvalue(L, index);
  ((lua_field *)f)->jacobian = luaL_ref(L, LUA_REGISTRYINDEX);
  f->jacobian = lua_jacobian;
}

/* ---- Events: one number or a boolean ---- */

static void push_numbers(lua_State *L, tdl_form form, const td_field *f, const double *y) {
  if (form == TDL_NUMBER) {
    lua_pushnumber(L, y[0]);
    return;
  }
  lua_createtable(L, (int)f->numel, 0);
  for (size_t i = 0; i < f->numel; i++) {
    lua_pushnumber(L, y[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
}

static td_status take_scalar(lua_State *L, double *c) {
  td_tensor *x = tdl_test(L, -1);
  if (lua_isboolean(L, -1)) *c = lua_toboolean(L, -1) ? 1 : -1;
  else if (lua_type(L, -1) == LUA_TNUMBER) *c = lua_tonumber(L, -1);
  else if (x && x->numel == 1) *c = td_tensor_get(x, 0);
  else return td_fail(TD_EARG, "ode.solve: the event function gave %s, expected a number or a boolean",
                      tdl_describe(L, -1));
  return TD_OK;
}

static td_status event_eval(td_field *self, double t, const void *y, void *out) {
  lua_field *f = (lua_field *)self;
  lua_State *L = tdl_state();
  int top;
  double c = 0;
  td_status s = push_function(f, L, &top);
  if (s) return s;
  if (f->form == TDL_TENSORS) {
    td_tensor *state = td_tensor_new(self->dtype, self->ndim, self->shape);
    if (!state) return td_last_status();
    memcpy(state->data, y, self->numel * td_dtype_size(self->dtype));
    tdl_push(L, td_tensor_number(TD_F64, t, false));
    tdl_push(L, state);
  } else {
    lua_pushnumber(L, t);
    push_numbers(L, f->form, self, y);
  }
  bool was = td_recording;
  td_recording = false;
  push_row(L, self);
  s = call(L, top);
  td_recording = was;
  if (s) return s;
  f->boolean = lua_isboolean(L, -1);
  s = take_scalar(L, &c);
  lua_settop(L, top);
  if (self->dtype == TD_F64) *(double *)out = c;
  else *(float *)out = (float)c;
  return s;
}

/* On the tape: c in every element, so that the first one's cotangent is c's. */
static td_status event_record(td_field *self, td_tensor *t, td_tensor *y, td_tensor **dy) {
  lua_field *f = (lua_field *)self;
  lua_State *L = tdl_state();
  int top;
  td_status s = push_function(f, L, &top);
  if (s) return s;
  tdl_push(L, td_tensor_retain(t));
  tdl_push(L, td_tensor_retain(y));
  push_row(L, self);
  s = call(L, top);
  if (s) return s;
  td_tensor *x = tdl_test(L, -1);
  size_t mark = td_auto_mark();
  if (x && x->numel == 1) {
    td_tensor *flat = td_do(td_op_find("reshape"), &(td_attrs){.i = {0}}, 1, x);
    *dy = td_tensor_retain(td_expand(td_cast(flat, y->dtype), y->ndim, y->shape));
  } else {
    *dy = td_tensor_zeros(y->dtype, y->ndim, y->shape);
  }
  td_auto_release(mark);
  lua_settop(L, top);
  return *dy ? TD_OK : td_last_status();
}

bool tdl_event_is_boolean(const td_field *f) { return ((const lua_field *)f)->boolean; }

/* ---- Fields written in C ---- */

#define TDL_C_FIELD "tide.CField"

/* Lotka–Volterra, x' = p₁x − p₂xy, y' = −p₃y + p₄xy, for tests and measurements; p is an external when it has a
 * gradient. */
typedef struct {
  td_field base;
  td_tensor *p;
} lotka_field;

static void lotka_free(td_field *self) {
  td_tensor_release(((lotka_field *)self)->p);
  td_free(self, sizeof(lotka_field));
}

static td_status lotka_eval(td_field *self, double t, const void *y, void *dy) {
  const double *p = (const double *)(const void *)((lotka_field *)self)->p->data, *u = y;
  double xy = u[0] * u[1];
  (void)t;
  ((double *)dy)[0] = p[0] * u[0] - p[1] * xy;
  ((double *)dy)[1] = p[3] * xy - p[2] * u[1];
  return TD_OK;
}

static td_status lotka_vjp(td_field *self, double t, const void *y, const void *w, void *ybar, double *tbar,
                           td_tensor **dexternal) {
  const double *p = (const double *)(const void *)((lotka_field *)self)->p->data, *u = y;
  double a = ((const double *)w)[0], b = ((const double *)w)[1], *out = ybar;
  (void)t, (void)tbar;
  out[0] = a * (p[0] - p[1] * u[1]) + b * p[3] * u[1];
  out[1] = -a * p[1] * u[0] + b * (p[3] * u[0] - p[2]);
  if (!dexternal || !self->nexternals) return TD_OK;
  if (!dexternal[0] && !(dexternal[0] = td_tensor_zeros(TD_F64, 1, (const size_t[]){4}))) return td_last_status();
  double *dp = (double *)(void *)dexternal[0]->data;
  dp[0] += a * u[0];
  dp[1] -= a * u[0] * u[1];
  dp[2] -= b * u[1];
  dp[3] += b * u[0] * u[1];
  return TD_OK;
}

static td_field *lotka_new(td_tensor *p) {
  lotka_field *f = td_alloc(sizeof *f);
  if (!f) return NULL;
  *f = (lotka_field){.base = {.who = "ode.solve", .kind = "a C function", .dtype = TD_F64, .ndim = 1, .numel = 2,
                              .shape = {2}, .eval = lotka_eval, .vjp = lotka_vjp, .free = lotka_free},
                     .p = td_tensor_retain(p)};
  if (td_field_add_external(&f->base, p)) {
    td_field_free(&f->base);
    return NULL;
  }
  return &f->base;
}

/* What Lua holds of a field in C: how to make one. */
typedef struct {
  td_field *(*make)(td_tensor *p);
  td_tensor *p;
} c_field;

static int c_field_gc(lua_State *L) {
  td_tensor_release(((c_field *)lua_touserdata(L, 1))->p);
  return 0;
}

/* ode_example("lotka_volterra", p) → a right-hand side in C; p: 4 float64 numbers, a tensor */
static int core_ode_example(lua_State *L) {
  if (strcmp(luaL_checkstring(L, 1), "lotka_volterra"))
    tdl_error(L, "ode_example: unknown example \"%s\"", lua_tostring(L, 1));
  td_tensor *p = tdl_tensor(L, 2, "ode_example", "p");
  if (p->dtype != TD_F64 || p->numel != 4 || !td_tensor_is_contiguous(p))
    tdl_error(L, "ode_example: p must be 4 contiguous float64 numbers");
  c_field *c = lua_newuserdata(L, sizeof *c);
  *c = (c_field){lotka_new, td_tensor_retain(p)};
  luaL_getmetatable(L, TDL_C_FIELD);
  lua_setmetatable(L, -2);
  return 1;
}

static c_field *test_c_field(lua_State *L, int index) {
  void *p = lua_touserdata(L, index);
  if (!p || !lua_getmetatable(L, index)) return NULL;
  luaL_getmetatable(L, TDL_C_FIELD);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same ? p : NULL;
}

/* ode_native(on) → what was set before: whether long solves make machine code of their steps; for tests */
static int core_ode_native(lua_State *L) {
  lua_pushboolean(L, td_native_allow(lua_toboolean(L, 1)));
  return 1;
}

/* ode_march(on) → what was set before: whether small captured fields make many steps on their own; for tests */
static int core_ode_march(lua_State *L) {
  lua_pushboolean(L, td_captured_march_allow(lua_toboolean(L, 1)));
  return 1;
}

/* ode_marched() → how many steps were made so since the start, forward and back */
static int core_ode_marched(lua_State *L) {
  uint64_t steps[2];
  td_captured_marched(steps);
  lua_pushnumber(L, (lua_Number)steps[0]);
  lua_pushnumber(L, (lua_Number)steps[1]);
  return 2;
}

/* code_of(x) → for a function of Lua a string that tells where it was written, its chunk's name and its lines; else
 * nil */
static int core_code_of(lua_State *L) {
  lua_Debug ar;
  lua_settop(L, 1);
  if (!lua_isfunction(L, 1) || lua_iscfunction(L, 1)) return 0;
  lua_getinfo(L, ">S", &ar);
  struct {
    const char *source;  /* one address for each chunk */
    int first, last;
  } code = {ar.source, ar.linedefined, ar.lastlinedefined};
  lua_pushlstring(L, (const char *)&code, sizeof code);
  return 1;
}

/* ode_numbers(list, numbers, native) → the numbers after a list of operations on them (graph/scalar.h), or nil where
 * there is no machine code; for tests. list: {op, dst, a, b, c, n} each, places from 0. */
static int core_ode_numbers(lua_State *L) {
  static const char *const names[] = {
#define NAME(name, arity) #name,
    TD_PW_OPS(NAME, NAME)
#undef NAME
    "cube", "scale", "dot", NULL};
  enum { FIELDS = 5, MOST = 1000 };
  static td_scalar_step step[MOST];
  static double number[MOST];
  lua_settop(L, 3);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  int n = (int)tdl_rawlen(L, 1), count = (int)tdl_rawlen(L, 2);
  if (n > MOST || count > MOST) tdl_error(L, "ode_numbers: more than %d operations or numbers", MOST);
  for (int i = 0; i < n; i++) {
    uint16_t *field[FIELDS] = {&step[i].dst, &step[i].a, &step[i].b, &step[i].c, &step[i].n};
    lua_rawgeti(L, 1, i + 1);
    luaL_checktype(L, -1, LUA_TTABLE);
    lua_rawgeti(L, -1, 1);
    step[i].op = (uint16_t)luaL_checkoption(L, -1, NULL, names);
    lua_pop(L, 1);
    for (int k = 0; k < FIELDS; k++) {
      lua_rawgeti(L, -1, k + 2);
      *field[k] = (uint16_t)luaL_checkinteger(L, -1);
      lua_pop(L, 1);
    }
    for (int k = 0; k < FIELDS - 1; k++)
      if (*field[k] + (step[i].n ? step[i].n : 1) > count)
        tdl_error(L, "ode_numbers: operation %d leaves the numbers", i + 1);
    lua_pop(L, 1);
  }
  for (int i = 0; i < count; i++) {
    lua_rawgeti(L, 2, i + 1);
    number[i] = luaL_checknumber(L, -1);
    lua_pop(L, 1);
  }
  td_native *code = lua_toboolean(L, 3) ? td_native_new(step, n) : NULL;
  if (lua_toboolean(L, 3) && !code) return 0;
  if (code) td_native_run(code, number);
  else td_scalar_perform(step, n, number);
  td_native_free(code);
  lua_createtable(L, count, 0);
  for (int i = 0; i < count; i++) {
    lua_pushnumber(L, number[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

void tdl_open_ode_field(lua_State *L) {
  lua_pushcfunction(L, core_code_of);
  lua_setfield(L, -2, "code_of");
  lua_pushcfunction(L, core_ode_march);
  lua_setfield(L, -2, "ode_march");
  lua_pushcfunction(L, core_ode_marched);
  lua_setfield(L, -2, "ode_marched");
  lua_pushcfunction(L, core_ode_native);
  lua_setfield(L, -2, "ode_native");
  lua_pushcfunction(L, core_ode_numbers);
  lua_setfield(L, -2, "ode_numbers");
  lua_pushcfunction(L, core_ode_example);
  lua_setfield(L, -2, "ode_example");
  luaL_newmetatable(L, TDL_C_FIELD);
  lua_pushcfunction(L, c_field_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

/* ---- Choosing ---- */

static td_field *lua_field_new(lua_State *L, int index, tdl_form form) {
  lua_field *f = td_alloc(sizeof *f);
  if (!f) return NULL;
  *f = (lua_field){.base = {.who = "ode.solve", .free = release}, .main = tdl_main(L), .jacobian = LUA_NOREF,
                   .stages = LUA_NOREF, .march = LUA_NOREF};
  lua_pushvalue(L, index);
  f->function = luaL_ref(L, LUA_REGISTRYINDEX);
  f->base.kind = form == TDL_TENSORS ? "a function on tensors" : "a function of plain numbers";
  f->base.eval = form == TDL_TENSORS ? tensors_eval : form == TDL_TABLE ? table_eval : number_eval;
  if (form == TDL_TENSORS) f->base.record = tensors_record;
  return &f->base;
}

static void take_shape(td_field *f, const td_tensor *y0) {
  f->dtype = y0->dtype;
  f->ndim = y0->ndim;
  f->numel = y0->numel;
  memcpy(f->shape, y0->shape, sizeof f->shape);
}

td_field *tdl_event_for(lua_State *L, int index, tdl_form form, const td_tensor *y0) {
  td_field *f = lua_field_new(L, index, form);
  if (!f) return NULL;
  ((lua_field *)f)->form = form;
  f->eval = event_eval;
  if (form == TDL_TENSORS) f->record = event_record;
  take_shape(f, y0);
  return f;
}

td_field *tdl_field_for(lua_State *L, int index, tdl_form form, const td_tensor *y0) {
  if (form != TDL_TENSORS && (y0->dtype != TD_F64 || (form == TDL_NUMBER && y0->numel != 1))) {
    td_fail(TD_EARG, "ode.solve: a right-hand side of plain numbers needs a float64 state, not %s of shape (%s)",
            td_dtype_name(y0->dtype), td_tensor_shape_string(y0));
    return NULL;
  }
  c_field *c = test_c_field(L, index);
  td_field *f = c ? c->make(c->p) : lua_field_new(L, index, form);
  if (!f) return NULL;
  if (c && (f->numel != y0->numel || f->dtype != y0->dtype)) {
    td_fail(TD_ESHAPE, "ode.solve: the state is %s of shape (%s), the right-hand side in C wants %s of %zu elements",
            td_dtype_name(y0->dtype), td_tensor_shape_string(y0), td_dtype_name(f->dtype), f->numel);
    td_field_free(f);
    return NULL;
  }
  take_shape(f, y0);
  return f;
}
