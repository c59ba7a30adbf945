/* ode_solve for lua/tide/ode.lua, which checks options and shapes the result; and the field that is a Lua
 * function. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "graph/tape.h"
#include "lua/tdl.h"
#include "ops/ops.h"
#include "solve/gradient.h"

/* ---- A Lua function as a field ---- */

typedef enum { TENSORS, TABLE, NUMBER } lua_form;  /* what the function takes and gives: f(t, y) */

typedef struct {
  td_owned_field base;
  int function;  /* registry reference */
  lua_form form;
  lua_State *main;
} lua_field;

static void push_arguments(lua_State *L, lua_form form, td_tensor *t, td_tensor *y) {
  if (form == TENSORS) {
    tdl_push(L, td_tensor_retain(t));
    tdl_push(L, td_tensor_retain(y));
    return;
  }
  lua_pushnumber(L, td_tensor_get(t, 0));
  if (form == NUMBER) {
    lua_pushnumber(L, td_tensor_get(y, 0));
    return;
  }
  lua_createtable(L, (int)y->numel, 0);
  for (size_t i = 0; i < y->numel; i++) {
    lua_pushnumber(L, td_tensor_get(y, i));
    lua_rawseti(L, -2, (int)i + 1);
  }
}

/* The tensor on top of the stack; another real type than y's is converted. */
static td_status take_tensor(lua_State *L, const td_tensor *y, td_tensor **dy) {
  td_tensor *result = tdl_test(L, -1);
  if (!result)
    return td_fail(TD_EARG, "ode.solve: the right-hand side gave %s, expected a tensor", tdl_describe(L, -1));
  if (result->dtype == y->dtype || !td_dtype_is_real(result->dtype)) {
    *dy = td_tensor_retain(result);
    return TD_OK;
  }
  size_t mark = td_auto_mark();
  *dy = td_tensor_retain(td_cast(result, y->dtype));
  td_auto_release(mark);
  return *dy ? TD_OK : td_last_status();
}

static td_status refuse_numbers(lua_State *L, bool table, size_t n) {
  if (!table)
    return td_fail(TD_EARG, "ode.solve: the right-hand side gave %s, expected a number", tdl_describe(L, -1));
  if (!lua_istable(L, -1))
    return td_fail(TD_EARG, "ode.solve: the right-hand side gave %s, expected a table of %zu numbers",
                   tdl_describe(L, -1), n);
  return td_fail(TD_EARG, "ode.solve: the right-hand side gave %zu numbers, expected a table of %zu numbers",
                 (size_t)tdl_rawlen(L, -1), n);
}

/* The number, or the table of as many numbers as y has, on top of the stack. */
static td_status take_numbers(lua_State *L, lua_form form, const td_tensor *y, td_tensor **dy) {
  bool table = form == TABLE;
  if (lua_type(L, -1) != (table ? LUA_TTABLE : LUA_TNUMBER) || (table && tdl_rawlen(L, -1) != y->numel))
    return refuse_numbers(L, table, y->numel);
  td_tensor *out = td_tensor_new(y->dtype, y->ndim, y->shape);
  if (!out) return td_last_status();
  td_status s = TD_OK;
  for (size_t i = 0; i < y->numel && !s; i++) {
    if (table) lua_rawgeti(L, -1, (int)i + 1);
    if (lua_type(L, -1) == LUA_TNUMBER)
      td_tensor_set(out, i, lua_tonumber(L, -1));
    else
      s = td_fail(TD_EARG, "ode.solve: component %zu of what the right-hand side gave is %s, expected a number",
                  i + 1, tdl_describe(L, -1));
    if (table) lua_pop(L, 1);
  }
  if (s) td_tensor_release(out);
  else *dy = out;
  return s;
}

static td_status lua_field_eval(td_field *self, td_tensor *t, td_tensor *y, td_tensor **dy) {
  lua_field *f = (lua_field *)self;
  lua_State *L = tdl_state();
  int top = lua_gettop(L);
  if (!lua_checkstack(L, 8)) return td_fail(TD_EARG, "ode.solve: the stack is full, is f solving itself?");
  lua_rawgeti(L, LUA_REGISTRYINDEX, f->function);
  push_arguments(L, f->form, t, y);
  td_status s = tdl_pcall(L, 2, 1);
  if (!s) s = f->form == TENSORS ? take_tensor(L, y, dy) : take_numbers(L, f->form, y, dy);
  lua_settop(L, top);
  return s;
}

static void lua_field_free(td_field *self) {
  lua_field *f = (lua_field *)self;
  luaL_unref(f->main, LUA_REGISTRYINDEX, f->function);
  td_free(f, sizeof *f);
}

/* A field that owns the function at the stack index. */
static td_owned_field *lua_field_new(lua_State *L, int index, lua_form form) {
  lua_field *f = td_alloc(sizeof *f);
  if (!f) return NULL;
  lua_pushvalue(L, index);
  *f = (lua_field){{{.eval = lua_field_eval, .who = "ode.solve"}, lua_field_free},
                   luaL_ref(L, LUA_REGISTRYINDEX), form, tdl_main(L)};
  return &f->base;
}

/* ---- A counter that a reverse pass moves and Lua reads ---- */

#define TDL_COUNTER "tide.Counter"
typedef struct {
  int refs;
  uint64_t value;
} counter;

static void counter_release(void *p) {
  counter *c = p;
  if (--c->refs == 0) td_free(c, sizeof *c);
}
static int counter_gc(lua_State *L) {
  counter_release(*(counter **)lua_touserdata(L, 1));
  return 0;
}
static int counter_call(lua_State *L) {
  lua_pushnumber(L, (lua_Number)(*(counter **)luaL_checkudata(L, 1, TDL_COUNTER))->value);
  return 1;
}
static counter *push_counter(lua_State *L) {
  counter **box = lua_newuserdata(L, sizeof *box);
  *box = td_alloc(sizeof **box);
  if (!*box) tdl_raise(L);
  **box = (counter){.refs = 1};
  luaL_getmetatable(L, TDL_COUNTER);
  lua_setmetatable(L, -2);
  return *box;
}

/* ---- Options: fields of a table that lua/tide/ode.lua has filled and checked ---- */

static double number_field(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  double v = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : 0;
  lua_pop(L, 1);
  return v;
}
static bool bool_field(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  bool v = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return v;
}

static void read_options(lua_State *L, int index, td_ode_options *o) {
  lua_getfield(L, index, "method");
  *o = (td_ode_options){.method = td_tableau_find(luaL_checkstring(L, -1))};
  if (!o->method) tdl_error(L, "ode.solve: unknown method \"%s\"", lua_tostring(L, -1));
  lua_pop(L, 1);
  o->rtol = number_field(L, index, "rtol");
  o->atol = number_field(L, index, "atol");
  o->first_step = number_field(L, index, "first_step");
  o->min_step = number_field(L, index, "min_step");
  o->max_step = number_field(L, index, "max_step");
  o->step_size = number_field(L, index, "step_size");
  o->max_steps = (uint64_t)number_field(L, index, "max_steps");
  o->land = bool_field(L, index, "land");
  o->max_norm = bool_field(L, index, "max_norm");
  lua_getfield(L, index, "controller");
  int c = lua_gettop(L);
  o->controller = (td_controller){
    .k = {number_field(L, c, "k1"), number_field(L, c, "k2"), number_field(L, c, "k3")},
    .safety = number_field(L, c, "safety"), .shrink = number_field(L, c, "shrink"),
    .grow = number_field(L, c, "grow"), .keep_after_accept = bool_field(L, c, "keep_after_accept"),
    .hold_after_reject = bool_field(L, c, "hold_after_reject")};
  lua_pop(L, 1);
}

/* ---- Solving ---- */

/* f(t0, y0) on the tape, once: its externals are what gradients must reach; its value is the first slope. */
static td_status find_externals(td_ode_recorded *r, td_tensor *y0, td_tensor **first_slope) {
  td_tensor *y = td_auto(td_tensor_alias(y0)), *t = td_auto(td_tensor_number(TD_F64, r->ts[0], false));
  if (!y || !t) return td_last_status();
  uint64_t since = td_tape_now();
  td_tensor *dy = NULL;
  td_status s = td_field_eval(&r->f->field, t, y, &dy);
  td_auto(dy);
  if (!s) s = td_tape_externals(&dy, 1, since, &r->externals, &r->nexternals, &r->capacity);
  if (s) return s;
  *first_slope = td_auto(td_tensor_alias(dy));
  return *first_slope ? TD_OK : td_last_status();
}

/* The tensors of the option params join the externals. */
static td_status add_params(lua_State *L, int index, td_ode_recorded *r) {
  lua_getfield(L, index, "params");
  int table = lua_gettop(L), n = lua_istable(L, table) ? (int)tdl_rawlen(L, table) : 0;
  size_t count = r->nexternals, room = count + (size_t)n + 1;
  td_tensor **all = td_alloc(room * sizeof *all);
  if (!all) return td_last_status();
  if (count) memcpy(all, r->externals, count * sizeof *all);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, table, i);
    td_tensor *t = tdl_test(L, -1);
    lua_pop(L, 1);
    bool known = !t || !t->node;
    for (size_t j = 0; j < count && !known; j++) known = all[j]->node == t->node && all[j]->slot == t->slot;
    if (!known) all[count++] = td_tensor_retain(t);
  }
  td_free(r->externals, r->capacity * sizeof *r->externals);
  r->externals = all;
  r->capacity = room;
  r->nexternals = count;
  lua_settop(L, table - 1);
  return TD_OK;
}

/* The forward solve. *recorded: a gradient can flow to something. Where t never leaves t0, f is not
 * called. */
static td_status solve(lua_State *L, td_ode_recorded *r, td_tensor *y0, td_tensor *times, bool *recorded) {
  bool was = td_recording;
  td_tensor *first_slope = NULL;
  td_status s = td_ode_check(y0, r->ts, r->nt);
  if (!s && was && r->ts[r->nt - 1] != r->ts[0]) {
    s = find_externals(r, y0, &first_slope);
    if (!s) s = add_params(L, 4, r);
  }
  if (s) return s;
  *recorded = was && (y0->node || times->node || r->nexternals);
  r->o.keep = *recorded && r->mode == TD_ODE_DISCRETE;
  r->o.first_slope = first_slope;
  td_recording = false;
  s = td_ode_integrate(&r->f->field, y0, r->ts, r->nt, &r->o, &r->solution);
  td_recording = was;
  r->o.first_slope = NULL;
  return s;
}

/* Steps taken, as a table of their start times with the end last. */
static void push_grid(lua_State *L, const td_ode_solution *s) {
  lua_createtable(L, (int)s->nsteps + 1, 0);
  for (size_t i = 0; i < s->nsteps; i++) {
    lua_pushnumber(L, s->steps[i].t);
    lua_rawseti(L, -2, (int)i + 1);
  }
  lua_pushnumber(L, s->stats.t_last);
  lua_rawseti(L, -2, (int)s->nsteps + 1);
}

static void push_result(lua_State *L, const td_ode_solution *s) {
  lua_createtable(L, 0, 12);
  lua_pushstring(L, td_ode_status_name(s->status)), lua_setfield(L, -2, "status");
  lua_pushstring(L, s->message), lua_setfield(L, -2, "message");
  lua_pushnumber(L, (lua_Number)s->reached), lua_setfield(L, -2, "reached");
  lua_pushnumber(L, (lua_Number)s->stats.nfe), lua_setfield(L, -2, "nfe");
  lua_pushnumber(L, (lua_Number)s->stats.accepted), lua_setfield(L, -2, "accepted");
  lua_pushnumber(L, (lua_Number)s->stats.rejected), lua_setfield(L, -2, "rejected");
  lua_pushnumber(L, s->stats.h_min), lua_setfield(L, -2, "h_min");
  lua_pushnumber(L, s->stats.h_max), lua_setfield(L, -2, "h_max");
  lua_pushnumber(L, s->stats.t_last), lua_setfield(L, -2, "t_last");
  lua_pushnumber(L, (lua_Number)s->stats.worst + 1), lua_setfield(L, -2, "worst_index");
  push_grid(L, s);
  lua_setfield(L, -2, "grid");
}

static td_ode_recorded *recorded_new(lua_State *L, const td_tensor *times, td_ode_gradient mode,
                                     lua_form form) {
  td_ode_recorded *r = td_alloc(sizeof *r);
  if (!r) return NULL;
  *r = (td_ode_recorded){.mode = mode, .nt = times->numel, .nts = times->numel,
                         .seminorm = bool_field(L, 4, "seminorm")};
  r->ts = td_alloc(r->nts * sizeof *r->ts);
  r->f = lua_field_new(L, 1, form);
  if (!r->ts || !r->f) {
    td_ode_recorded_free(r);
    return NULL;
  }
  for (size_t i = 0; i < r->nts; i++) r->ts[i] = td_tensor_get(times, i * times->stride[0]);
  return r;
}

/* The rows that were reached, taken out of the solution. */
static td_tensor *take_rows(td_ode_recorded *r) {
  td_tensor *all = r->solution.ys;
  size_t shape[TD_MAX_DIMS];
  memcpy(shape, all->shape, sizeof shape);
  shape[0] = r->nt = r->solution.reached;
  r->solution.ys = NULL;
  if (shape[0] == all->shape[0]) return all;
  td_tensor *rows = td_tensor_view(all, all->ndim, shape, all->stride, 0);
  td_tensor_release(all);
  return rows;
}

/* ode_solve(f, y0, times, options) → ys (times×state, the rows reached), result table, counter of backward
 * evaluations */
static int core_ode_solve(lua_State *L) {
  static const char *const modes[] = {"discrete", "backsolve", "frozen", NULL};
  static const char *const forms[] = {"tensors", "table", "number", NULL};
  lua_settop(L, 4);
  luaL_checktype(L, 1, LUA_TFUNCTION);
  td_tensor *y0 = tdl_tensor(L, 2, "ode.solve", "y0"), *times = tdl_tensor(L, 3, "ode.solve", "t");
  td_ode_options forward, backward;
  read_options(L, 4, &forward);
  lua_getfield(L, 4, "adjoint");
  if (lua_istable(L, -1)) read_options(L, lua_gettop(L), &backward);
  else backward = forward;
  lua_getfield(L, 4, "grad");
  int mode = luaL_checkoption(L, -1, NULL, modes);
  lua_getfield(L, 4, "form");
  int form = luaL_checkoption(L, -1, NULL, forms);
  lua_settop(L, 4);
  counter *backward_calls = push_counter(L);
  td_ode_recorded *r = recorded_new(L, times, (td_ode_gradient)mode, (lua_form)form);
  if (!r) tdl_raise(L);
  r->o = forward;
  r->adjoint = backward;

  bool recorded = false;
  size_t mark = td_auto_mark();
  lua_State *before = tdl_enter(L);
  td_status s = solve(L, r, y0, times, &recorded);
  tdl_leave(before);
  td_auto_release(mark);
  if (s) {
    td_ode_recorded_free(r);
    tdl_raise(L);
  }
  push_result(L, &r->solution);
  td_tensor *ys = take_rows(r);
  tdl_push(L, ys);
  if (recorded) {
    backward_calls->refs++;
    r->nfe_backward = &backward_calls->value;
    r->nfe_free = counter_release;
    r->nfe_owner = backward_calls;
    s = td_ode_record(r, ys, y0, times);
  } else {
    td_ode_recorded_free(r);
  }
  tdl_check(L, s);
  lua_insert(L, -2);
  lua_pushvalue(L, 5);
  return 3;
}

/* ode_methods() → list of {name, source, order, error_order, dense_order, stages, fsal, a, b, c, e} and the
 * dense weights as a function of θ, for the manual and the order tests */
static void push_row(lua_State *L, const double *row, int n) {
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushnumber(L, row[i]);
    lua_rawseti(L, -2, i + 1);
  }
}
static int core_ode_methods(lua_State *L) {
  lua_newtable(L);
  int at = 0;
  for (const td_tableau *const *p = td_tableaux(); *p; p++) {
    const td_tableau *m = *p;
    double c[TD_MAX_STAGES];
    for (int i = 0; i < m->stages; i++) c[i] = td_tableau_c(m, i);
    lua_createtable(L, 0, 12);
    lua_pushstring(L, m->name), lua_setfield(L, -2, "name");
    lua_pushstring(L, m->source), lua_setfield(L, -2, "source");
    lua_pushinteger(L, m->order), lua_setfield(L, -2, "order");
    lua_pushinteger(L, m->error_order), lua_setfield(L, -2, "error_order");
    lua_pushinteger(L, m->dense_order), lua_setfield(L, -2, "dense_order");
    lua_pushinteger(L, m->stages), lua_setfield(L, -2, "stages");
    lua_pushboolean(L, m->fsal), lua_setfield(L, -2, "fsal");
    push_row(L, m->b, m->stages), lua_setfield(L, -2, "b");
    push_row(L, m->e, m->stages), lua_setfield(L, -2, "e");
    push_row(L, c, m->stages), lua_setfield(L, -2, "c");
    lua_createtable(L, m->stages, 0);
    for (int i = 0; i < m->stages; i++) {
      push_row(L, m->a[i], m->stages);
      lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "a");
    lua_rawseti(L, -2, ++at);
  }
  return 1;
}
/* ode_dense(method, θ) → weights of the stages (the slope at the end last when it is an extra stage) and
 * their slopes */
static int core_ode_dense(lua_State *L) {
  const td_tableau *m = td_tableau_find(luaL_checkstring(L, 1));
  if (!m) tdl_error(L, "ode.solve: unknown method \"%s\"", lua_tostring(L, 1));
  double w[TD_MAX_STAGES + 1], theta = luaL_checknumber(L, 2);
  int n = td_tableau_dense(m, theta, w);
  push_row(L, w, n);
  td_tableau_dense_slope(m, theta, w);
  push_row(L, w, n);
  return 2;
}

static const luaL_Reg functions[] = {
  {"ode_solve", core_ode_solve}, {"ode_methods", core_ode_methods}, {"ode_dense", core_ode_dense},
  {NULL, NULL},
};

void tdl_open_ode(lua_State *L) {
  tdl_setfuncs(L, functions);
  luaL_newmetatable(L, TDL_COUNTER);
  lua_pushcfunction(L, counter_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, counter_call);
  lua_setfield(L, -2, "__call");
  lua_pop(L, 1);
}
