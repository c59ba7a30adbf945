/* Reading the options of a solve: fields of a table that lua/tide/ode/request.lua has filled and checked. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "lua/ode.h"
#include "solve/band.h"

double tdl_ode_number(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  double v = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : 0;
  lua_pop(L, 1);
  return v;
}
bool tdl_ode_flag(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  bool v = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return v;
}

double *tdl_ode_array(lua_State *L, int index, const char *name, size_t *count) {
  lua_getfield(L, index, name);
  td_tensor *t = tdl_test(L, -1);
  lua_pop(L, 1);  /* the table holds it */
  bool fits = t && t->dtype == TD_F64 && td_tensor_is_contiguous(t);
  *count = fits ? t->numel : 0;
  return fits ? (double *)(void *)t->data : NULL;
}

static td_controller read_controller(lua_State *L, int index) {
  lua_getfield(L, index, "controller");
  int c = lua_gettop(L);
  td_controller out = {
    .k = {tdl_ode_number(L, c, "k1"), tdl_ode_number(L, c, "k2"), tdl_ode_number(L, c, "k3"),
          tdl_ode_number(L, c, "k4"), tdl_ode_number(L, c, "k5")},
    .safety = tdl_ode_number(L, c, "safety"), .shrink = tdl_ode_number(L, c, "shrink"),
    .grow = tdl_ode_number(L, c, "grow"), .first_grow = tdl_ode_number(L, c, "first_grow"),
    .keep_after_accept = tdl_ode_flag(L, c, "keep_after_accept"),
    .hold_after_reject = tdl_ode_flag(L, c, "hold_after_reject")};
  lua_pop(L, 1);
  return out;
}

void tdl_ode_read_options(lua_State *L, int index, td_ode_options *o) {
  lua_getfield(L, index, "method");
  *o = (td_ode_options){.method = td_method_find(luaL_checkstring(L, -1))};
  if (!o->method) tdl_error(L, "ode.solve: unknown method \"%s\"", lua_tostring(L, -1));
  lua_pop(L, 1);
  size_t ignored;
  o->controller = read_controller(L, index);
  o->rtol = tdl_ode_number(L, index, "rtol");
  o->atol = tdl_ode_number(L, index, "atol");
  o->rtols = tdl_ode_array(L, index, "rtols", &ignored);
  o->atols = tdl_ode_array(L, index, "atols", &ignored);
  o->first_step = tdl_ode_number(L, index, "first_step");
  o->min_step = tdl_ode_number(L, index, "min_step");
  o->accept_min_step = tdl_ode_flag(L, index, "accept_min_step");
  o->max_step = tdl_ode_number(L, index, "max_step");
  o->step_size = tdl_ode_number(L, index, "step_size");
  o->grid = tdl_ode_array(L, index, "grid", &o->ngrid);
  o->linear = tdl_ode_flag(L, index, "linear");
  o->max_steps = (uint64_t)tdl_ode_number(L, index, "max_steps");
  o->every = (size_t)tdl_ode_number(L, index, "every");
  o->slots = (size_t)tdl_ode_number(L, index, "slots");
  o->budget = (size_t)tdl_ode_number(L, index, "budget");
  o->coupling = tdl_ode_number(L, index, "coupling");
  lua_getfield(L, index, "base");
  if (lua_isstring(L, -1)) o->base = td_method_find(lua_tostring(L, -1));
  lua_pop(L, 1);
  o->max_order = (int)tdl_ode_number(L, index, "max_order");
  o->max_iters = (int)tdl_ode_number(L, index, "max_iters");
  o->norm_count = (size_t)tdl_ode_number(L, index, "norm_count");
  o->blocks = (size_t)tdl_ode_number(L, index, "blocks");
  o->land = tdl_ode_flag(L, index, "land");
  o->norm = tdl_ode_flag(L, index, "max_norm") ? TD_NORM_MAX : TD_NORM_RMS;
}

/* ---- Options that need memory of their own: freed after the forward solve ---- */

static td_status call_norm(void *data, const void *scaled, double *norm) {
  const tdl_ode_extras *e = data;
  lua_State *L = tdl_state();
  td_tensor *x = td_tensor_new(e->like->dtype, e->like->ndim, e->like->shape);
  if (!x) return td_last_status();
  if (x->numel) memcpy(x->data, scaled, x->numel * td_dtype_size(x->dtype));
  int top = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, e->norm);
  tdl_push(L, x);
  td_status s = tdl_pcall(L, 1, 1);
  td_tensor *result = s ? NULL : tdl_test(L, -1);
  if (!s && result && result->numel == 1) *norm = td_tensor_get(result, 0);
  else if (!s && lua_type(L, -1) == LUA_TNUMBER) *norm = lua_tonumber(L, -1);
  else if (!s) s = td_fail(TD_EARG, "ode.solve: the norm gave %s, expected a number", tdl_describe(L, -1));
  lua_settop(L, top);
  return s;
}

/* `stops` is a tensor of times, `jumps` one of as many zeros and ones; `groups` one of the ends of groups. */
td_status tdl_ode_read_extras(lua_State *L, int index, td_ode_options *o, const td_field *f, tdl_ode_extras *e) {
  size_t n, nj, ng;
  const double *times = tdl_ode_array(L, index, "stops", &n), *jumps = tdl_ode_array(L, index, "jumps", &nj);
  const double *ends = tdl_ode_array(L, index, "groups", &ng);
  *e = (tdl_ode_extras){.norm = LUA_NOREF, .like = f, .nstops = n, .ngroups = ng};
  if (n && !(e->stops = td_alloc(n * sizeof *e->stops))) return td_last_status();
  for (size_t i = 0; i < n; i++) e->stops[i] = (td_ode_stop){times[i], i < nj && jumps[i] != 0};
  if (ng && !(e->groups = td_alloc(ng * sizeof *e->groups))) return td_last_status();
  for (size_t i = 0; i < ng; i++) e->groups[i] = (size_t)ends[i];
  o->stops = e->stops;
  o->nstops = n;
  o->groups = e->groups;
  o->ngroups = ng;
  if (ng) o->norm = TD_NORM_GROUPS;
  lua_getfield(L, index, "norm_call");
  if (!lua_isfunction(L, -1)) {
    lua_pop(L, 1);
    return TD_OK;
  }
  e->norm = luaL_ref(L, LUA_REGISTRYINDEX);
  o->norm = TD_NORM_FUNCTION;
  o->norm_call = call_norm;
  o->norm_data = e;
  return TD_OK;
}

void tdl_ode_extras_free(lua_State *L, tdl_ode_extras *e) {
  td_free(e->stops, e->stops ? e->nstops * sizeof *e->stops : 0);
  td_free(e->groups, e->groups ? e->ngroups * sizeof *e->groups : 0);
  luaL_unref(L, LUA_REGISTRYINDEX, e->norm);
}

td_status tdl_ode_read_pattern(lua_State *L, int index, struct td_pattern **pattern) {
  size_t starts, columns;
  const double *start = tdl_ode_array(L, index, "pattern_start", &starts);
  const double *column = tdl_ode_array(L, index, "pattern_column", &columns);
  *pattern = NULL;
  if (!starts || !columns || start[starts - 1] != (double)columns) return TD_OK;
  *pattern = td_pattern_new(starts - 1, start, column);
  return *pattern ? TD_OK : td_last_status();
}

void tdl_ode_forget_arrays(td_ode_options *o) {
  o->grid = NULL;
  o->stops = NULL;
  o->groups = NULL;
  o->first_slope = NULL;
  o->nstops = o->ngroups = 0;
  o->events = NULL;
  o->nevents = 0;
  o->norm_data = NULL;
  if (o->norm == TD_NORM_GROUPS || o->norm == TD_NORM_FUNCTION) o->norm = TD_NORM_RMS;
}

/* The fields of one entry {fn, reset, direction, stop_after} of the option events, at the top of the stack. */
static td_status read_event(lua_State *L, tdl_form form, const td_tensor *y0, td_event *e) {
  int at = lua_gettop(L);
  e->direction = (int)tdl_ode_number(L, at, "direction");
  e->stop_after = (unsigned)tdl_ode_number(L, at, "stop_after");
  lua_getfield(L, at, "fn");
  e->value = tdl_event_for(L, at + 1, form, y0);
  if (!e->value) return td_last_status();
  lua_getfield(L, at, "reset");
  if (lua_isfunction(L, -1) && !(e->reset = tdl_field_for(L, at + 2, form, y0))) return td_last_status();
  lua_settop(L, at);
  return TD_OK;
}

td_status tdl_ode_read_events(lua_State *L, tdl_form form, const td_tensor *y0, td_event **events, size_t *count) {
  lua_getfield(L, 4, "events");
  int list = lua_gettop(L), n = lua_istable(L, list) ? (int)tdl_rawlen(L, list) : 0;
  td_status s = TD_OK;
  if (n) {
    *events = td_alloc((size_t)n * sizeof **events);
    if (!*events) return td_last_status();
    memset(*events, 0, (size_t)n * sizeof **events);
    *count = (size_t)n;
  }
  for (int i = 1; i <= n && !s; i++) {
    lua_rawgeti(L, list, i);
    s = read_event(L, form, y0, &(*events)[i - 1]);
  }
  lua_settop(L, list - 1);
  return s;
}
