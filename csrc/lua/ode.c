/* ode_solve for lua/tide/ode.lua, which checks options and shapes the result. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "graph/tape.h"
#include "lua/ode.h"
#include "ops/ops.h"
#include "solve/captured.h"
#include "solve/gradient.h"
#include "solve/path.h"
#include "solve/tableau.h"

/* ---- A counter that a reverse pass moves and Lua reads ---- */

#define TDL_COUNTER "tide.Counter"
typedef tdl_counter counter;

void tdl_counter_release(void *p) {
  counter *c = p;
  if (--c->refs == 0) td_free(c, sizeof *c);
}
static int counter_gc(lua_State *L) {
  tdl_counter_release(*(counter **)lua_touserdata(L, 1));
  return 0;
}
static int counter_call(lua_State *L) {
  const counter *c = *(counter **)luaL_checkudata(L, 1, TDL_COUNTER);
  lua_pushnumber(L, (lua_Number)c->value[0]);
  lua_pushnumber(L, (lua_Number)c->value[1]);
  return 2;
}
tdl_counter *tdl_push_counter(lua_State *L) {
  counter **box = lua_newuserdata(L, sizeof *box);
  *box = td_alloc(sizeof **box);
  if (!*box) tdl_raise(L);
  **box = (counter){.refs = 1};
  luaL_getmetatable(L, TDL_COUNTER);
  lua_setmetatable(L, -2);
  return *box;
}

/* ---- What is asked for ---- */

/* The request but for what belongs to one solve: the field, its parts and what it is told. */
typedef struct {
  td_ode_options forward, backward;
  td_ode_gradient mode;
  tdl_form form;
  bool seminorm, dense;
  bool simple;   /* numbers, names and switches are all of it: it points nowhere, and there is no more to read */
  size_t keep, hold;
  int event_points;
} request;

#define TDL_REQUEST "tide.OdeRequest"

/* Of the table at index 4. */
static void read_request(lua_State *L, request *q) {
  static const char *const modes[] = {"discrete", "backsolve", "frozen", "reversible", "interp", "gauss", NULL};
  static const char *const forms[] = {"tensors", "table", "number", NULL};
  memset(q, 0, sizeof *q);
  tdl_ode_read_options(L, 4, &q->forward);
  lua_getfield(L, 4, "adjoint");
  if (lua_istable(L, -1)) tdl_ode_read_options(L, lua_gettop(L), &q->backward);
  else q->backward = q->forward;
  tdl_ode_forget_arrays(&q->backward);
  q->backward.rtols = q->backward.atols = NULL;
  q->backward.every = 0;
  lua_getfield(L, 4, "grad");
  q->mode = (td_ode_gradient)luaL_checkoption(L, -1, NULL, modes);
  lua_getfield(L, 4, "form");
  q->form = (tdl_form)luaL_checkoption(L, -1, NULL, forms);
  lua_pop(L, 3);
  q->seminorm = tdl_ode_flag(L, 4, "seminorm");
  q->dense = tdl_ode_flag(L, 4, "dense");
  q->keep = (size_t)tdl_ode_number(L, 4, "keep");
  double hold = tdl_ode_number(L, 4, "hold");
  q->hold = hold < 0 ? SIZE_MAX : (size_t)hold;
  q->event_points = (int)tdl_ode_number(L, 4, "event_points");
}

/* The same as a userdata on top of the stack. */
static request *push_request(lua_State *L) {
  request *q = lua_newuserdata(L, sizeof *q);
  luaL_getmetatable(L, TDL_REQUEST);
  lua_setmetatable(L, -2);
  read_request(L, q);
  return q;
}

/* ode_options(request) → what is read of a table of numbers, names and switches, to be put into it as `read` */
static int core_ode_options(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  for (int i = 0; i < 3; i++) lua_pushvalue(L, 1);  /* it is at index 4 too */
  push_request(L)->simple = true;
  return 1;
}

/* What was read of the table at index 4, or is read now: on top of the stack, not in this one, which solves inside
 * solves share. */
static const request *request_of(lua_State *L) {
  lua_getfield(L, 4, "read");
  if (lua_isuserdata(L, -1)) return luaL_checkudata(L, -1, TDL_REQUEST);
  lua_pop(L, 1);
  return push_request(L);
}

/* What else a request may hold, into r. */
static td_status read_more(lua_State *L, td_tensor *y0, tdl_form form, td_ode_recorded *r) {
  static const char *const names[2] = {"rtols", "atols"};
  for (int i = 0; i < 2; i++) {
    lua_getfield(L, 4, names[i]);
    td_tensor *all = tdl_test(L, -1);
    r->tolerances[i] = td_tensor_retain(all);
    lua_pop(L, 1);
    if (all && all->numel != y0->numel)
      return td_fail(TD_EARG, "ode.solve: %zu tolerances for a state of %zu elements", all->numel, y0->numel);
  }
  td_tensor **const list[2] = {&r->o.mass, &r->o.semilinear};
  static const char *const tensors[2] = {"mass", "semilinear"};
  for (int i = 0; i < 2; i++) {
    lua_getfield(L, 4, tensors[i]);
    *list[i] = td_tensor_retain(tdl_test(L, -1));
    lua_pop(L, 1);
  }
  td_status s = tdl_ode_read_events(L, form, y0, &r->events, &r->nevents);
  if (!s) s = tdl_ode_read_second(L, &r->second);
  if (!s) s = tdl_ode_read_preconditioner(L, r->f, r);
  return s ? s : tdl_ode_read_pattern(L, 4, &r->o.pattern);
}

/* ---- Solving ---- */

/* The tensors of the option params join the externals. */
static td_status add_params(lua_State *L, int index, td_field *f) {
  lua_getfield(L, index, "params");
  int table = lua_gettop(L), n = lua_istable(L, table) ? (int)tdl_rawlen(L, table) : 0;
  td_status s = TD_OK;
  for (int i = 1; i <= n && !s; i++) {
    lua_rawgeti(L, table, i);
    td_tensor *t = tdl_test(L, -1);
    lua_pop(L, 1);
    if (t) s = td_field_add_external(f, t);
  }
  lua_settop(L, table - 1);
  return s;
}

td_status tdl_ode_ask(lua_State *L, int index, bool failed, bool *answer) {
  lua_pushvalue(L, index);
  if (failed) lua_insert(L, -2);
  td_status s = tdl_pcall(L, failed, 1);
  *answer = !s && lua_toboolean(L, -1);
  lua_settop(L, index);
  return s;
}

/* Will a solve without a gradient put Jacobians together from f's own derivatives, and not go by products alone? */
static bool wants_rows(const td_ode_recorded *r) {
  enum { MOST = 600 };
  return r->o.method->family->stiff && r->f->numel <= MOST && !r->f->jacobian;
}

static td_status capture_one(td_field *f, bool gradient, bool rows, size_t keep) {
  return rows && !gradient ? td_field_capture_rows(f) : td_field_capture(f, gradient, keep);
}

/* Programs for the field when the option `capture` is a function that says yes: it is asked before, now that f was
 * called once, and told why when f cannot be captured. */
static td_status capture_field(lua_State *L, const td_ode_recorded *r, size_t keep, bool gradient) {
  td_field *f = r->f;
  lua_getfield(L, 4, "capture");
  int index = lua_gettop(L);
  bool yes = false, rows = wants_rows(r);
  td_status s = lua_isfunction(L, index) ? tdl_ode_ask(L, index, false, &yes) : TD_OK;
  bool fails = !s && yes && capture_one(f, gradient, rows && !f->half[0], keep);
  for (int i = 0; i < 2 && f->half[i] && yes && !s && !fails; i++) {
    bool implicit = i == 1 && !f->half[i]->jacobian;
    fails = capture_one(f->half[i], gradient, rows && implicit, keep);
  }
  if (fails) {
    tdl_push_error(L);
    s = tdl_ode_ask(L, index, true, &yes);
  }
  lua_settop(L, index - 1);
  return s;
}

/* f that is known to be clean (lua/tide/ode/captured.lua) is captured without having been called: *done. What goes
 * wrong there is forgotten; f is called then, and says it again. */
static td_status capture_first(lua_State *L, td_ode_recorded *r, const request *q, const td_tensor *y0, bool leads,
                               td_tensor *slope, bool *done) {
  td_field *f = r->f;
  *done = false;
  if (!tdl_ode_flag(L, 4, "known") || f->half[0] || r->nevents) return TD_OK;
  lua_getfield(L, 4, "capture");
  int index = lua_gettop(L);
  td_status s = td_recording && !q->simple ? add_params(L, 4, f) : TD_OK;
  bool fails = !s && td_field_capture_first(f, td_recording, leads, wants_rows(r), q->keep);
  if (fails) {
    tdl_push_error(L);
    lua_pop(L, 1);
  } else if (!s) {
    s = tdl_ode_ask(L, index, false, done);
  }
  lua_settop(L, index - 1);
  if (*done && !s) s = f->eval(f, r->ts[0], y0->data, slope->data);
  if (*done) return s;
  td_field_uncapture(f);
  td_field_drop_externals(f);
  return s;
}

/* f(t0, y0), the first slope, by f as it is: masks that belong to the solve are drawn here. With recording on, also
 * what f depends on is found. */
static td_status first_call(td_ode_recorded *r, const td_tensor *y0, td_tensor *slope) {
  r->o.first_slope = slope->data;
  if (td_recording) return td_field_explore(r->f, r->ts[0], y0->data, slope->data);
  return r->f->eval(r->f, r->ts[0], y0->data, slope->data);
}

/* Runs every event function and reset once at the start: on the tape for what they depend on. */
static td_status explore_events(td_ode_recorded *r, const td_tensor *y0, void *room) {
  td_status s = TD_OK;
  for (size_t i = 0; i < r->nevents && !s; i++) {
    td_event *e = &r->events[i];
    s = e->value->eval(e->value, r->ts[0], y0->data, room);
    e->boolean = tdl_event_is_boolean(e->value);
    if (!s && td_recording && !e->boolean && e->value->record) s = td_field_explore(e->value, r->ts[0], y0->data, room);
    if (!s && td_recording && e->reset && e->reset->record) s = td_field_explore(e->reset, r->ts[0], y0->data, room);
  }
  return s;
}

/* The forward solve over contiguous y0. *recorded: a gradient can flow to something. Where t never leaves t0, f is
 * not called. */
static td_status solve(lua_State *L, td_ode_recorded *r, const request *q, td_tensor *y0, bool leads, bool *recorded) {
  bool was = td_recording;
  td_status s = td_ode_check(y0->dtype, y0->ndim, r->ts, r->nt);
  td_tensor *slope = s ? NULL : td_auto(td_tensor_new(y0->dtype, y0->ndim, y0->shape));
  if (!s && !slope) s = td_last_status();
  bool moves = !s && r->ts[r->nt - 1] != r->ts[0] && r->f->record;
  bool captured = false;
  if (moves) s = capture_first(L, r, q, y0, leads, slope, &captured);
  if (captured) r->o.first_slope = slope->data;
  if (moves && !captured && !s) s = first_call(r, y0, slope);
  if (!s && was && !q->simple) s = add_params(L, 4, r->f);
  if (!s) s = td_ode_share_externals(r);
  if (moves && !captured && !s) s = capture_field(L, r, q->keep, was && (leads || r->f->nexternals));
  if (moves && !captured && !s && td_field_is_kept(r->f)) s = r->f->eval(r->f, r->ts[0], y0->data, slope->data);
  if (!s && r->nevents) {
    td_tensor *room = td_auto(td_tensor_new(y0->dtype, y0->ndim, y0->shape));
    s = room ? explore_events(r, y0, room->data) : td_last_status();
    if (!s) s = td_ode_share_externals(r);
  }
  if (s) return s;
  r->o.events = r->events;
  r->o.nevents = r->nevents;
  r->o.event_points = q->event_points;
  *recorded = was && (leads || r->f->nexternals);
  r->o.keep_last = *recorded && r->mode == TD_ODE_REVERSIBLE;
  if (r->o.keep_last && !r->o.method->family->undo)
    return td_fail(TD_EARG, "ode.solve: grad = \"reversible\" needs a reversible method, alf, reversible_heun or "
                   "mccallum_foster; %s is none", r->o.method->name);
  r->o.exact = *recorded && (r->mode == TD_ODE_DISCRETE || td_ode_over_path(r->mode));
  bool may_hold = *recorded && r->mode == TD_ODE_DISCRETE && td_field_may_hold(r->f) && !r->nevents;
  r->o.hold = may_hold ? q->hold : 0;
  r->o.keep = r->o.exact || q->dense;
  td_recording = false;
  if (*recorded) tdl_collect_before_pass(L);  /* what f left, called on the tape */
  tdl_ode_extras e = {.norm = LUA_NOREF};
  s = q->simple ? TD_OK : tdl_ode_read_extras(L, 4, &r->o, r->f, &e);
  if (!s) s = td_ode_integrate(r->f, y0->data, r->ts, r->nt, &r->o, &r->solution);
  tdl_ode_extras_free(L, &e);
  td_recording = was;
  tdl_ode_forget_arrays(&r->o);
  return s;
}

/* Steps taken, as a float64 tensor of their start times with the end last. */
static void push_grid(lua_State *L, const td_ode_solution *s) {
  size_t n = s->path.n + 1;
  td_tensor *grid = td_tensor_new(TD_F64, 1, &n);
  if (!grid) tdl_raise(L);
  double *t = (double *)(void *)grid->data;
  for (size_t i = 0; i < s->path.n; i++) t[i] = s->path.steps[i].t;
  t[s->path.n] = s->stats.t_last;
  tdl_push(L, grid);
}

static void set_number(lua_State *L, const char *name, double v) {
  lua_pushnumber(L, v);
  lua_setfield(L, -2, name);
}

void tdl_ode_push_result(lua_State *L, const td_ode_solution *s) {
  const td_ode_stats *stats = &s->stats;
  lua_createtable(L, 0, 8);
  lua_pushstring(L, td_ode_status_name(s->status)), lua_setfield(L, -2, "status");
  lua_pushstring(L, s->message), lua_setfield(L, -2, "message");
  set_number(L, "reached", (double)s->reached);
  lua_createtable(L, 0, 16);
  set_number(L, "saved", (double)s->reached);
  set_number(L, "steps", (double)(stats->accepted + stats->rejected));
  set_number(L, "nfe", (double)stats->counts.nfe);
  set_number(L, "njev", (double)stats->counts.njev);
  set_number(L, "nlu", (double)stats->counts.nlu);
  set_number(L, "accepted", (double)stats->accepted);
  set_number(L, "rejected", (double)stats->rejected);
  set_number(L, "h_min", stats->h_min);
  set_number(L, "h_max", stats->h_max);
  set_number(L, "t_first", s->path.n ? s->path.steps[0].t : stats->t_last);
  set_number(L, "t_last", stats->t_last);
  set_number(L, "worst_index", (double)stats->worst + 1);
  lua_setfield(L, -2, "stats");
  lua_pushboolean(L, s->event_row), lua_setfield(L, -2, "event_row");
  lua_createtable(L, (int)s->events.nhits, 0);
  for (size_t i = 0; i < s->events.nhits; i++) {
    lua_pushinteger(L, (lua_Integer)s->events.hits[i].which + 1);
    lua_rawseti(L, -2, (int)i + 1);
  }
  lua_setfield(L, -2, "event_index");
  lua_createtable(L, (int)s->nlimits, 0);
  for (size_t i = 0; i < s->nlimits; i++) {
    if (!s->limits[i]) continue;
    lua_pushnumber(L, s->limits[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  lua_setfield(L, -2, "limits");
  push_grid(L, s);
  lua_setfield(L, -2, "grid");
}

static td_ode_recorded *recorded_new(lua_State *L, td_tensor *y0, const td_tensor *times, const request *q) {
  td_ode_recorded *r = td_alloc(sizeof *r);
  if (!r) return NULL;
  tdl_form form = q->form;
  const td_method *method = q->forward.method;
  *r = (td_ode_recorded){.refs = 1, .mode = q->mode, .nt = times->numel, .nts = times->numel, .given = times->numel,
                         .seminorm = q->seminorm, .o = q->forward, .adjoint = q->backward};
  r->ts = td_alloc(r->nts * sizeof *r->ts);
  r->f = tdl_field_for(L, 1, form, y0);
  if (!r->ts || !r->f || (!q->simple && read_more(L, y0, form, r))) {
    td_ode_recorded_free(r);
    return NULL;
  }
  lua_getfield(L, 4, "halves");
  for (int i = 0, halves = lua_gettop(L); i < 2 && lua_istable(L, halves); i++) {
    lua_rawgeti(L, halves, i + 1);
    r->f->half[i] = tdl_field_for(L, lua_gettop(L), form, y0);
    if (!r->f->half[i]) {
      td_ode_recorded_free(r);
      return NULL;
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  lua_getfield(L, 4, "jacobian");
  if (lua_isfunction(L, -1)) tdl_field_set_jacobian(L, r->f->half[1] ? r->f->half[1] : r->f, lua_gettop(L));
  lua_pop(L, 1);
  lua_getfield(L, 4, "stages");
  if (lua_isfunction(L, -1)) tdl_field_set_stages(L, r->f, lua_gettop(L), method->name);
  lua_pop(L, 1);
  lua_getfield(L, 4, "march");
  if (lua_isfunction(L, -1)) tdl_field_set_march(L, r->f, lua_gettop(L), method->name);
  lua_pop(L, 1);
  for (size_t i = 0; i < r->nts; i++) r->ts[i] = td_tensor_get(times, i * times->stride[0]);
  return r;
}

/* The values of every saved step, and their times in place of those asked for. */
static td_tensor *take_every(td_ode_recorded *r) {
  td_ode_solution *s = &r->solution;
  size_t shape[TD_MAX_DIMS] = {s->nevery};
  memcpy(shape + 1, r->f->shape, sizeof(size_t) * (size_t)r->f->ndim);
  td_tensor *rows = td_tensor_new(r->f->dtype, r->f->ndim + 1, shape);
  if (rows && td_ode_take_nodes(r)) {
    td_tensor_release(rows);
    return NULL;
  }
  if (rows && rows->numel) memcpy(rows->data, s->every_y, s->nevery * s->every_bytes);
  return rows;
}

/* The rows that were reached, taken out of the solution. */
static td_tensor *take_rows(td_ode_recorded *r) {
  if (r->o.every) return take_every(r);
  td_tensor *all = r->solution.ys;
  size_t shape[TD_MAX_DIMS];
  memcpy(shape, all->shape, sizeof shape);
  shape[0] = r->solution.reached;
  r->nt = shape[0] - r->solution.event_row;
  r->solution.ys = NULL;
  if (shape[0] == all->shape[0]) return all;
  td_tensor *rows = td_tensor_view(all, all->ndim, shape, all->stride, 0);
  td_tensor_release(all);
  return rows;
}

/* The times of the rows as a tensor, when they are those of all steps. */
static void push_times(lua_State *L, const td_ode_recorded *r) {
  td_tensor *t = td_tensor_new(TD_F64, 1, &r->nt);
  if (t) memcpy(t->data, r->ts, r->nt * sizeof *r->ts);
  tdl_push(L, t);
}

/* ---- The path of a solve, evaluated anywhere inside: makes the step around t again ---- */

#define TDL_PATH "tide.OdePath"
typedef struct {
  td_ode_recorded *r;
  void *owner;            /* what r is part of: itself, or a batch */
  void (*give_back)(void *owner);
  bool made;              /* when it is first asked */
  td_path path;
} path;

static int path_gc(lua_State *L) {
  path *p = lua_touserdata(L, 1);
  if (p->made) td_path_free(&p->path);
  if (p->owner) p->give_back(p->owner);
  p->owner = NULL;
  return 0;
}

void tdl_ode_push_path(lua_State *L, td_ode_recorded *r, int *refs, void *owner, void (*give_back)(void *owner)) {
  path *p = lua_newuserdata(L, sizeof *p);
  memset(p, 0, sizeof *p);
  luaL_getmetatable(L, TDL_PATH);
  lua_setmetatable(L, -2);
  *p = (path){.r = r, .owner = owner, .give_back = give_back};
  ++*refs;
}

/* path(t, left) → y, dy/dt */
static int path_call(lua_State *L) {
  path *p = luaL_checkudata(L, 1, TDL_PATH);
  double t = luaL_checknumber(L, 2), first = p->r->ts[0], last = p->r->solution.stats.t_last;
  if (!(fmin(first, last) <= t && t <= fmax(first, last)))
    tdl_error(L, "ode.solve: sol(%g) lies outside the solved interval from %g to %g", t, first, last);
  if (p->r->solution.path.n == 0) tdl_error(L, "ode.solve: no step was made");
  if (!p->made) tdl_check(L, td_path_make(&p->path, &p->r->solution.path, &p->r->o, p->r->f));
  p->made = true;
  const td_field *f = p->r->f;
  td_tensor *y = td_tensor_new(f->dtype, f->ndim, f->shape), *dy = td_tensor_new(f->dtype, f->ndim, f->shape);
  lua_State *before = tdl_enter(L);
  bool was = td_recording;
  td_recording = false;
  td_status s = y && dy ? td_path_at(&p->path, t, lua_toboolean(L, 3), y->data, dy->data) : td_last_status();
  td_recording = was;
  tdl_leave(before);
  if (s) {
    td_tensor_release(y);
    td_tensor_release(dy);
    tdl_raise(L);
  }
  tdl_push(L, y);
  tdl_push(L, dy);
  return 2;
}

/* The events' times, and states before and after, as tensors; out[0 … 2] new references. */
static td_status take_hits(td_ode_recorded *r, td_tensor **out) {
  const td_event_list *l = &r->solution.events;
  size_t shape[TD_MAX_DIMS] = {l->nhits};
  memcpy(shape + 1, r->f->shape, sizeof(size_t) * (size_t)r->f->ndim);
  out[0] = td_tensor_new(TD_F64, 1, shape);
  out[1] = td_tensor_new(r->f->dtype, r->f->ndim + 1, shape);
  out[2] = td_tensor_new(r->f->dtype, r->f->ndim + 1, shape);
  if (!out[0] || !out[1] || !out[2]) return td_last_status();
  for (size_t i = 0; i < l->nhits; i++) {
    td_tensor_set(out[0], i, l->hits[i].t);
    memcpy(out[1]->data + i * l->bytes, l->hits[i].before, l->bytes);
    memcpy(out[2]->data + i * l->bytes, l->hits[i].after, l->bytes);
  }
  return TD_OK;
}

/* ode_solve(f, y0, times, options) → ys (times×state, the rows reached), result table, counter of backward
 * evaluations, with `every` the times of the rows (else nil), with events their times and the states before and after,
 * and with `dense` the path */
static int core_ode_solve(lua_State *L) {
  lua_settop(L, 4);
  td_tensor *y0 = tdl_tensor(L, 2, "ode.solve", "y0"), *times = tdl_tensor(L, 3, "ode.solve", "t");
  if (times->ndim != 1) tdl_error(L, "ode.solve: t has shape (%s), expected one dim", td_tensor_shape_string(times));
  const request *q = request_of(L);
  counter *backward_calls = tdl_push_counter(L);
  td_ode_recorded *r = recorded_new(L, y0, times, q);
  if (!r) tdl_raise(L);
  bool recorded = false;
  size_t mark = td_auto_mark();
  lua_State *before = tdl_enter(L);
  td_tensor *flat = td_auto(td_tensor_contiguous(y0));
  td_status s = flat ? solve(L, r, q, flat, y0->node || times->node, &recorded) : td_last_status();
  tdl_leave(before);
  td_auto_release(mark);
  if (s) {
    td_ode_recorded_free(r);
    tdl_raise(L);
  }
  tdl_ode_push_result(L, &r->solution);
  td_tensor *out[4] = {take_rows(r)};
  int nout = 1;
  tdl_push(L, out[0]);
  lua_insert(L, -2);
  lua_pushvalue(L, 6);
  if (r->nodes) push_times(L, r);
  else lua_pushnil(L);
  if (r->nevents) {
    s = take_hits(r, out + 1);
    for (int i = 1; i < 4; i++) {
      if (out[i]) tdl_push(L, out[i]);
      else lua_pushnil(L);
    }
    nout = 4;
  } else {
    for (int i = 1; i < 4; i++) lua_pushnil(L);
  }
  if (q->dense) tdl_ode_push_path(L, r, &r->refs, r, td_ode_recorded_free);
  else lua_pushnil(L);
  if (recorded && !s) {
    backward_calls->refs++;
    r->nfe_backward = backward_calls->value;
    r->nfe_free = tdl_counter_release;
    r->nfe_owner = backward_calls;
    s = td_ode_record(r, out, nout, y0, times);
  } else {
    td_ode_recorded_free(r);
  }
  tdl_check(L, s);
  return 8;
}

/* ode_check(y0, times): raises what ode_solve would, without calling anything */
static int core_ode_check(lua_State *L) {
  td_tensor *y0 = tdl_tensor(L, 1, "ode.solve", "y0"), *times = tdl_tensor(L, 2, "ode.solve", "t");
  double *ts = td_alloc(times->numel * sizeof *ts);
  for (size_t i = 0; ts && i < times->numel; i++) ts[i] = td_tensor_get(times, i * times->stride[0]);
  td_status s = ts ? td_ode_check(y0->dtype, y0->ndim, ts, times->numel) : td_last_status();
  td_free(ts, times->numel * sizeof *ts);
  tdl_check(L, s);
  return 0;
}

static const luaL_Reg functions[] = {
  {"ode_solve", core_ode_solve}, {"ode_check", core_ode_check}, {"ode_options", core_ode_options},
  {NULL, NULL},
};

void tdl_open_ode(lua_State *L) {
  tdl_setfuncs(L, functions);
  tdl_open_ode_field(L);
  tdl_open_ode_batch(L);
  tdl_open_ode_tables(L);
  luaL_newmetatable(L, TDL_COUNTER);
  lua_pushcfunction(L, counter_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, counter_call);
  lua_setfield(L, -2, "__call");
  lua_pop(L, 1);
  luaL_newmetatable(L, TDL_REQUEST);
  lua_pop(L, 1);
  luaL_newmetatable(L, TDL_PATH);
  lua_pushcfunction(L, path_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, path_call);
  lua_setfield(L, -2, "__call");
  lua_pop(L, 1);
}
