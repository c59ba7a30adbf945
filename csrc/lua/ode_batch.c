/* ode_solve_batch for lua/tide/ode/batch.lua: many equations at once, each with its own times and tolerances. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "lua/ode.h"
#include "ops/ops.h"
#include "solve/batch.h"

/* ---- A Lua function of several rows: f(t, y, rows) ---- */

typedef struct {
  td_batch_field base;
  int function, jacobian;  /* registry references */
  lua_State *main;
} rows_field;

static void release(td_field *self) {
  rows_field *f = (rows_field *)self;
  luaL_unref(f->main, LUA_REGISTRYINDEX, f->function);
  luaL_unref(f->main, LUA_REGISTRYINDEX, f->jacobian);
  td_free(f, sizeof *f);
}

/* Calls the function at a reference with (t, y, rows) for so many results, which are on the stack afterwards. */
static td_status call(lua_State *L, int function, const char *name, td_tensor *t, td_tensor *y, td_tensor *rows,
                      int results) {
  if (!lua_checkstack(L, 8)) return td_fail(TD_EARG, "ode.solve: the stack is full, is %s solving itself?", name);
  lua_rawgeti(L, LUA_REGISTRYINDEX, function);
  tdl_push(L, td_tensor_retain(t));
  tdl_push(L, td_tensor_retain(y));
  tdl_push(L, td_tensor_retain(rows));
  return tdl_pcall(L, 3, results);
}

static td_status call_rows(td_batch_field *self, td_tensor *t, td_tensor *y, td_tensor *rows, td_tensor **dy) {
  rows_field *f = (rows_field *)self;
  lua_State *L = tdl_state();
  int top = lua_gettop(L);
  td_status s = call(L, f->function, "f", t, y, rows, 1);
  td_tensor *result = s ? NULL : tdl_test(L, -1);
  if (!s && !result)
    s = td_fail(TD_EARG, "ode.solve: the right-hand side gave %s, expected a tensor", tdl_describe(L, -1));
  if (!s && (!td_tensor_same_shape(result, y) || !td_dtype_is_real(result->dtype)))
    s = td_fail(TD_ESHAPE, "ode.solve: the right-hand side gave %s of shape (%s), expected %s of the shape of its rows "
                "(%s)", td_dtype_name(result->dtype), td_tensor_shape_string(result), td_dtype_name(y->dtype),
                td_tensor_shape_string(y));
  if (!s) {
    *dy = td_tensor_retain(result->dtype == y->dtype ? result : td_cast(result, y->dtype));
    if (!*dy) s = td_last_status();
  }
  lua_settop(L, top);
  return s;
}

/* jac(t, y, rows) → the Jacobians, and ∂f/∂t. */
static td_status call_jacobian(td_batch_field *self, td_tensor *t, td_tensor *y, td_tensor *rows, td_tensor **j,
                               td_tensor **ft) {
  rows_field *f = (rows_field *)self;
  lua_State *L = tdl_state();
  int top = lua_gettop(L);
  size_t count = rows->numel, n = self->base.numel;
  td_status s = call(L, f->jacobian, "jac", t, y, rows, 2);
  td_tensor *by_y = s ? NULL : tdl_test(L, -2), *by_t = s ? NULL : tdl_test(L, -1);
  if (!s && (!by_y || by_y->numel != count * n * n || !td_dtype_is_real(by_y->dtype)))
    s = td_fail(TD_EARG, "ode.solve: jac of a batch gave %s, expected a real tensor of %zu×%zu×%zu elements",
                tdl_describe(L, -2), count, n, n);
  if (!s && ft && (!by_t || by_t->numel != count * n || !td_dtype_is_real(by_t->dtype)))
    s = td_fail(TD_EARG,
                "ode.solve: this method needs ∂f/∂t too; jac must give it as its second value, a real tensor of "
                "%zu×%zu elements",
                count, n);
  if (!s) *j = td_tensor_retain(by_y);
  if (!s && ft) *ft = td_tensor_retain(by_t);
  lua_settop(L, top);
  return s;
}

/* Over rows like those of y0. */
static td_batch_field *rows_field_new(lua_State *L, int index, const td_tensor *y0) {
  rows_field *f = td_alloc(sizeof *f);
  if (!f) return NULL;
  *f = (rows_field){.base = {.base = {.who = "ode.solve", .kind = "a function on tensors", .dtype = y0->dtype,
                                      .ndim = y0->ndim - 1, .free = release},
                             .record_rows = call_rows},
                    .jacobian = LUA_NOREF, .main = tdl_main(L)};
  memcpy(f->base.base.shape, y0->shape + 1, sizeof(size_t) * (size_t)(y0->ndim - 1));
  f->base.base.numel = y0->shape[0] ? y0->numel / y0->shape[0] : 0;
  lua_pushvalue(L, index);
  f->function = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_getfield(L, 4, "jacobian");
  if (lua_isfunction(L, -1)) {
    f->jacobian = luaL_ref(L, LUA_REGISTRYINDEX);
    f->base.jacobian_rows = call_jacobian;
  } else {
    lua_pop(L, 1);
  }
  return &f->base;
}

/* ---- Options of each row ---- */

typedef struct {
  td_ode_stop *stops;  /* of all rows, each row's share as long as the list */
  size_t count;
} stops;

/* Times to land on, strictly inside row i's solve and in its order. */
static void set_stops(stops *all, size_t i, const double *times, const double *jumps, size_t n, td_ode_recorded *r) {
  double first = r->ts[0], last = r->ts[r->nts - 1], direction = last >= first ? 1 : -1;
  td_ode_stop *own = all->stops + i * n;
  size_t count = 0;
  for (size_t j = 0; j < n; j++) {
    size_t k = direction > 0 ? j : n - 1 - j;
    if (direction * (times[k] - first) > 0 && direction * (last - times[k]) > 0)
      own[count++] = (td_ode_stop){times[k], jumps && jumps[k] != 0};
  }
  r->o.stops = own;
  r->o.nstops = count;
}

/* How the gradient is made: of the option grad, and of the table adjoint. */
typedef struct {
  td_ode_gradient mode;
  td_ode_options adjoint;
  bool seminorm;
} modes;

/* rows[i].ts and options; `counts` says how many of the times are each row's. */
static td_status set_rows(lua_State *L, td_batch *b, const td_ode_options *o, const modes *m, const td_tensor *times,
                          stops *all) {
  size_t n, nj, nr, na, nc, ng, nn, at = 0, node = 0;
  const double *grids = tdl_ode_array(L, 4, "grids", &ng), *nodes = tdl_ode_array(L, 4, "nodes", &nn);
  double total = 0;
  const double *counts = tdl_ode_array(L, 4, "counts", &nc), *rtols = tdl_ode_array(L, 4, "row_rtol", &nr);
  const double *atols = tdl_ode_array(L, 4, "row_atol", &na), *jumps = tdl_ode_array(L, 4, "jumps", &nj);
  const double *stop_times = tdl_ode_array(L, 4, "stops", &n);
  bool fits = counts && nc == b->n && times->dtype == TD_F64 && (!jumps || nj >= n);
  for (size_t i = 0; fits && i < nc; i++) {
    fits = counts[i] >= 1 && counts[i] <= (double)times->numel;
    total += counts[i];
  }
  double all_nodes = 0;
  for (size_t i = 0; grids && nodes && i < nn; i++) all_nodes += nodes[i];
  if (grids && (!nodes || nn != b->n || all_nodes != (double)ng)) fits = false;
  if (!fits || total != (double)times->numel || (rtols && !nr) || (atols && !na))
    return td_fail(TD_EARG, "ode.solve: the counts of times do not fit a batch of %zu rows", b->n);
  all->count = n * b->n;
  all->stops = td_alloc((all->count + 1) * sizeof *all->stops);
  if (!all->stops) return td_last_status();
  for (size_t i = 0; i < b->n; i++) {
    td_ode_recorded *r = &b->rows[i];
    r->o = *o;
    r->mode = m->mode;
    r->seminorm = m->seminorm;
    r->adjoint = m->adjoint;
    if (rtols && r->adjoint.rtol == o->rtol) r->adjoint.rtol = rtols[i < nr ? i : 0];
    if (atols && r->adjoint.atol == o->atol) r->adjoint.atol = atols[i < na ? i : 0];
    if (grids) {
      r->o.grid = grids + node;
      r->o.ngrid = (size_t)nodes[i];
      node += r->o.ngrid;
    }
    if (rtols) r->o.rtol = rtols[i < nr ? i : 0];
    if (atols) r->o.atol = atols[i < na ? i : 0];
    if (o->budget) r->o.budget = o->budget / b->n + 1;
    r->nt = r->nts = (size_t)counts[i];
    r->ts = td_alloc(r->nts * sizeof *r->ts);
    if (!r->ts) return td_last_status();
    for (size_t j = 0; j < r->nts; j++) r->ts[j] = td_tensor_get(times, at++);
    td_status s = td_ode_check(b->f->base.dtype, b->f->base.ndim, r->ts, r->nt);
    if (s) return s;
    set_stops(all, i, stop_times, jumps, n, r);
  }
  return TD_OK;
}

/* The option params, and what the functions depend on; the slopes at the rows' first times. */
static td_status explore(lua_State *L, td_batch *b, const td_tensor *y0, td_tensor **slopes) {
  lua_getfield(L, 4, "params");
  int table = lua_gettop(L), n = lua_istable(L, table) ? (int)tdl_rawlen(L, table) : 0;
  td_status s = TD_OK;
  for (int i = 1; i <= n && !s && td_recording; i++) {
    lua_rawgeti(L, table, i);
    td_tensor *t = tdl_test(L, -1);
    lua_pop(L, 1);
    if (t) s = td_field_add_external(&b->f->base, t);
  }
  lua_settop(L, table - 1);
  *slopes = td_auto(td_tensor_new(y0->dtype, y0->ndim, y0->shape));
  if (!*slopes) return td_last_status();
  return s ? s : td_batch_explore(b, y0->data, (*slopes)->data);
}

/* Programs for the field, when the option capture says yes. */
static td_status capture_field(lua_State *L, td_batch *b) {
  lua_getfield(L, 4, "capture");
  int index = lua_gettop(L);
  bool yes = false;
  td_status s = lua_isfunction(L, index) ? tdl_ode_ask(L, index, false, &yes) : TD_OK;
  if (!s && yes && td_batch_capture(b)) {
    tdl_push_error(L);
    s = tdl_ode_ask(L, index, true, &yes);
  }
  lua_settop(L, index - 1);
  return s;
}

/* What all rows share, from the table of options. */
static td_status read_shared(lua_State *L, td_batch *b, const td_ode_options *o, tdl_ode_extras *e) {
  td_ode_options like = *o;
  td_ode_recorded holder = {0};
  lua_getfield(L, 4, "mass");
  b->mass = td_tensor_retain(tdl_test(L, -1));
  lua_getfield(L, 4, "semilinear");
  b->semilinear = td_tensor_retain(tdl_test(L, -1));
  lua_pop(L, 2);
  td_status s = tdl_ode_read_pattern(L, 4, &b->pattern);
  if (!s) s = tdl_ode_read_second(L, &b->second);
  if (!s) s = tdl_ode_read_preconditioner(L, &b->f->base, &holder);
  b->precondition = holder.o.precondition;
  b->precondition_data = holder.o.precondition_data;
  b->precondition_free = holder.precondition_free;
  if (!s) s = tdl_ode_read_extras(L, 4, &like, &b->f->base, e);
  b->norm_call = like.norm == TD_NORM_FUNCTION ? like.norm_call : NULL;
  b->norm_data = e;
  for (size_t i = 0; i < b->n && like.norm == TD_NORM_GROUPS; i++) {
    b->rows[i].o.norm = like.norm;
    b->rows[i].o.groups = like.groups;
    b->rows[i].o.ngroups = like.ngroups;
  }
  td_batch_share_options(b);
  return s;
}

static td_status solve(lua_State *L, td_batch *b, const td_ode_options *o, const modes *m, td_tensor *y0,
                       const td_tensor *times, bool leads, bool *recorded) {
  stops all = {0};
  td_tensor *slopes = NULL;
  td_event *events = NULL;
  size_t nevents = 0, bytes = b->f->base.numel * td_dtype_size(y0->dtype);
  bool was = td_recording;
  tdl_ode_extras extras = {.norm = LUA_NOREF};
  td_status s = set_rows(L, b, o, m, times, &all);
  if (!s) s = read_shared(L, b, o, &extras);
  td_tensor *one = td_auto(td_tensor_new(y0->dtype, y0->ndim - 1, y0->shape + 1));  /* like one row, and room for one */
  if (!s && !one) s = td_last_status();
  if (!s) s = tdl_ode_read_events(L, TDL_TENSORS, one, &events, &nevents);
  td_status set = td_batch_set_events(b, events, nevents);  /* takes over what was read */
  if (!s) s = set;
  if (!s) s = explore(L, b, y0, &slopes);
  if (!s) s = capture_field(L, b);
  *recorded = was && (leads || b->f->base.nexternals);
  bool dense = tdl_ode_flag(L, 4, "dense");
  if (!s && *recorded && m->mode == TD_ODE_REVERSIBLE && !o->method->family->undo)
    s = td_fail(TD_EARG, "ode.solve: grad = \"reversible\" needs a reversible method, alf, reversible_heun or "
                "mccallum_foster; %s is none", o->method->name);
  for (size_t i = 0; i < b->n && !s; i++) {
    td_ode_recorded *r = &b->rows[i];
    r->o.exact = *recorded && (m->mode == TD_ODE_DISCRETE || td_ode_over_path(m->mode));
    r->o.keep = r->o.exact || dense;
    r->o.keep_last = *recorded && m->mode == TD_ODE_REVERSIBLE;
    if (r->ts[r->nts - 1] != r->ts[0]) r->o.first_slope = slopes->data + i * bytes;
    for (size_t j = 0; j < nevents && !s; j++) {
      if (i == 0) s = events[j].value->eval(events[j].value, r->ts[0], y0->data, one->data);
      r->events[j].boolean = tdl_event_is_boolean(events[j].value);
    }
  }
  td_recording = false;
  if (!s) s = td_batch_integrate(b, y0->data);
  td_recording = was;
  for (size_t i = 0; i < b->n; i++) {
    b->rows[i].o.grid = NULL;
    b->rows[i].o.stops = NULL;
    b->rows[i].o.nstops = 0;
    b->rows[i].o.first_slope = NULL;
    b->rows[i].o.groups = NULL;
    b->rows[i].o.ngroups = 0;
    if (b->rows[i].o.norm == TD_NORM_GROUPS || b->rows[i].o.norm == TD_NORM_FUNCTION) b->rows[i].o.norm = TD_NORM_RMS;
  }
  b->norm_call = NULL;
  tdl_ode_extras_free(L, &extras);
  td_free(all.stops, all.stops ? (all.count + 1) * sizeof *all.stops : 0);
  return s;
}

/* ode_solve_batch(f, y0 (rows×state), times of all rows, options) → ys of all rows, list of results, counter, and with
 * events their times and the states before and after */
static int core_ode_solve_batch(lua_State *L) {
  lua_settop(L, 4);
  td_tensor *y0 = tdl_tensor(L, 2, "ode.solve", "y0"), *times = tdl_tensor(L, 3, "ode.solve", "t");
  if (y0->ndim < 1 || !td_dtype_is_real(y0->dtype))
    tdl_error(L, "ode.solve: a batch needs a float32 or float64 tensor of rows, got %s of shape (%s)",
              td_dtype_name(y0->dtype), td_tensor_shape_string(y0));
  static const char *const names[] = {"discrete", "backsolve", "frozen", "reversible", "interp", "gauss", NULL};
  td_ode_options o;
  tdl_ode_read_options(L, 4, &o);
  modes m = {.adjoint = o, .seminorm = tdl_ode_flag(L, 4, "seminorm")};
  lua_getfield(L, 4, "grad");
  m.mode = (td_ode_gradient)luaL_checkoption(L, -1, NULL, names);
  lua_getfield(L, 4, "adjoint");
  if (lua_istable(L, -1)) tdl_ode_read_options(L, lua_gettop(L), &m.adjoint);
  tdl_ode_forget_arrays(&m.adjoint);
  m.adjoint.rtols = m.adjoint.atols = NULL;
  m.adjoint.every = 0;
  lua_settop(L, 4);
  tdl_counter *calls = tdl_push_counter(L);
  size_t mark = td_auto_mark();
  td_tensor *flat = td_auto(td_tensor_contiguous(y0)), *flat_times = td_auto(td_tensor_contiguous(times));
  td_batch_field *f = flat && flat_times ? rows_field_new(L, 1, y0) : NULL;
  td_batch *b = f ? td_batch_new(f, y0->shape[0]) : NULL;
  if (!b) {
    td_auto_release(mark);
    tdl_raise(L);
  }
  bool recorded = false;
  lua_State *before = tdl_enter(L);
  td_status s = solve(L, b, &o, &m, flat, flat_times, y0->node || times->node, &recorded);
  tdl_leave(before);
  td_auto_release(mark);
  td_tensor *out[4] = {NULL};
  int nout = 1;
  if (!s) s = td_batch_results(b, out, &nout);
  if (s) {
    for (int i = 0; i < 4; i++) td_tensor_release(out[i]);
    td_batch_free(b);
    tdl_raise(L);
  }
  tdl_push(L, out[0]);
  bool dense = tdl_ode_flag(L, 4, "dense");
  lua_createtable(L, (int)b->n, 0);
  for (size_t i = 0; i < b->n; i++) {
    td_ode_recorded *r = &b->rows[i];
    tdl_ode_push_result(L, &r->solution);
    if (r->nodes) {
      td_tensor *t = td_tensor_new(TD_F64, 1, &r->nt);
      if (t) memcpy(t->data, r->ts, r->nt * sizeof *r->ts);
      tdl_push(L, t);
      lua_setfield(L, -2, "every");
      lua_pushnumber(L, (double)r->nt);
      lua_setfield(L, -2, "reached");
    }
    if (dense) {
      tdl_ode_push_path(L, r, &b->refs, b, td_batch_free);
      lua_setfield(L, -2, "path");
    }
    lua_rawseti(L, -2, (int)i + 1);
  }
  lua_pushvalue(L, 5);
  for (int i = 1; i < nout; i++) tdl_push(L, out[i]);
  if (recorded) {
    calls->refs++;
    b->nfe_backward = calls->value;
    b->nfe_free = tdl_counter_release;
    b->nfe_owner = calls;
    s = td_batch_record(b, out, nout, y0, times);
  } else {
    td_batch_free(b);
  }
  tdl_check(L, s);
  return 2 + nout;
}

void tdl_open_ode_batch(lua_State *L) {
  lua_pushcfunction(L, core_ode_solve_batch);
  lua_setfield(L, -2, "ode_solve_batch");
}
