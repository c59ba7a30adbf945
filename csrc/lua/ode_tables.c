/* The methods and their coefficients, as tables of numbers. */
#include <string.h>
#include "lua/ode.h"
#include "solve/dirk.h"
#include "solve/irk.h"
#include "solve/rosenbrock.h"
#include "solve/tableau.h"

static void set_number(lua_State *L, const char *name, double v) {
  lua_pushnumber(L, v);
  lua_setfield(L, -2, name);
}

static void set_row(lua_State *L, const char *name, const double *row, int n) {
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushnumber(L, row[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, name);
}

/* The first `columns` of `rows` rows that lie `width` apart. */
static void set_matrix(lua_State *L, const char *name, const double *a, int rows, int columns, int width) {
  lua_createtable(L, rows, 0);
  for (int i = 0; i < rows; i++) {
    lua_createtable(L, columns, 0);
    for (int j = 0; j < columns; j++) {
      lua_pushnumber(L, a[i * width + j]);
      lua_rawseti(L, -2, j + 1);
    }
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, name);
}

static void set_dirk(lua_State *L, const td_dirk *d) {
  double c[TD_DIRK_STAGES];
  for (int i = 0; i < d->stages; i++) c[i] = td_dirk_c(d, i);
  lua_newtable(L);
  set_matrix(L, "a", &d->a[0][0], d->stages, d->stages, TD_DIRK_STAGES);
  set_row(L, "b", d->b, d->stages);
  set_row(L, "c", c, d->stages);
  set_row(L, "e", d->e, d->stages);
  set_number(L, "e0", d->e0);
  if (d->easy) set_matrix(L, "easy", &d->easy[0][0], d->stages, d->stages, TD_DIRK_STAGES);
  lua_pushboolean(L, td_dirk_stiffly_accurate(d)), lua_setfield(L, -2, "stiffly_accurate");
  lua_setfield(L, -2, "dirk");
}

static void set_rosenbrock(lua_State *L, const td_rosenbrock *d) {
  lua_newtable(L);
  set_number(L, "gamma", d->gamma);
  set_matrix(L, "a", &d->a[0][0], d->stages, d->stages, TD_ROSENBROCK_STAGES);
  set_matrix(L, "c", &d->c[0][0], d->stages, d->stages, TD_ROSENBROCK_STAGES);
  set_row(L, "m", d->m, d->stages);
  set_row(L, "e", d->e, d->stages);
  set_row(L, "alpha", d->alpha, d->stages);
  set_row(L, "d", d->d, d->stages);
  set_matrix(L, "dense", &d->dense[0][0], d->stages, TD_ROSENBROCK_TERMS, TD_ROSENBROCK_TERMS);
  lua_setfield(L, -2, "rosenbrock");
}

static void set_collocation(lua_State *L, const td_irk *d) {
  enum { MAX = TD_COLLOCATION_STAGES };
  long double nodes[MAX];
  d->nodes(nodes);
  td_collocation k = td_collocation_from(d->stages, nodes);
  int n = k.stages;
  lua_newtable(L);
  set_matrix(L, "a", &k.a[0][0], n, n, MAX);
  set_matrix(L, "inverse", &k.inverse[0][0], n, n, MAX);
  set_matrix(L, "t", &k.t[0][0], n, n, MAX);
  set_matrix(L, "t_inverse", &k.t_inverse[0][0], n, n, MAX);
  set_matrix(L, "between", &k.between[0][0], n, n, MAX);
  set_row(L, "b", k.b, n);
  set_row(L, "c", k.c, n);
  if (k.has_real) set_number(L, "real", k.real);
  set_number(L, "re", k.re);
  set_number(L, "im", k.im);
  lua_setfield(L, -2, "collocation");
}

static void set_implicit_tables(lua_State *L, const td_method *m) {
  lua_pushboolean(L, m->family->stiff), lua_setfield(L, -2, "stiff");
  lua_pushboolean(L, m->family->mass), lua_setfield(L, -2, "mass");
  if (m->family == &td_family_dirk) set_dirk(L, m->table);
  else if (m->family == &td_family_rosenbrock) set_rosenbrock(L, m->table);
  else if (m->family == &td_family_irk || m->family == &td_family_radau) set_collocation(L, m->table);
}

static void push_row(lua_State *L, const double *row, int n) {
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushnumber(L, row ? row[i] : 0);
    lua_rawseti(L, -2, i + 1);
  }
}

static void push_matrix(lua_State *L, const td_tableau *m, int rows, const char *name) {
  lua_createtable(L, rows, 0);
  for (int i = 0; i < rows; i++) {
    double row[TD_MAX_STAGES] = {0};
    const double *given = td_tableau_row(m, i);
    int n = i < rows && i >= m->stages ? i : i < m->stages ? i : m->stages;
    if (given) memcpy(row, given, sizeof(double) * (size_t)n);
    push_row(L, row, i < m->stages && rows == m->stages ? m->stages : rows);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, name);
}

static void set_tableau(lua_State *L, const td_tableau *m) {
  double c[TD_MAX_STAGES];
  for (int i = 0; i < m->stages; i++) c[i] = td_tableau_c(m, i);
  lua_pushboolean(L, m->fsal), lua_setfield(L, -2, "fsal");
  push_row(L, m->b, m->stages), lua_setfield(L, -2, "b");
  push_row(L, m->e, m->stages), lua_setfield(L, -2, "e");
  if (m->e2) push_row(L, m->e2, m->stages), lua_setfield(L, -2, "e2");
  push_row(L, c, m->stages), lua_setfield(L, -2, "c");
  push_matrix(L, m, m->stages, "a");
  push_matrix(L, m, td_tableau_width(m), "extended");
}

/* ode_methods() → list of {name, source, family, order, error_order, dense_order, stages}, and of explicit methods
 * fsal, a, b, c, e and `extended`, the rows of all stages that the extension uses; of implicit ones `dirk`,
 * `rosenbrock` or `collocation`: for the manual and the order tests */
static int core_ode_methods(lua_State *L) {
  lua_newtable(L);
  int at = 0;
  for (const td_method *const *p = td_methods(); *p; p++) {
    const td_method *m = *p;
    lua_createtable(L, 0, 16);
    lua_pushstring(L, m->name), lua_setfield(L, -2, "name");
    lua_pushstring(L, m->source), lua_setfield(L, -2, "source");
    lua_pushstring(L, m->family->name), lua_setfield(L, -2, "family");
    set_number(L, "order", m->order);
    set_number(L, "error_order", m->error_order);
    set_number(L, "dense_order", m->dense_order);
    set_number(L, "stages", m->stages);
    if (td_tableau_of(m)) set_tableau(L, td_tableau_of(m));
    set_implicit_tables(L, m);
    lua_rawseti(L, -2, ++at);
  }
  return 1;
}

/* ode_dense(method, θ) → weights of the stages of an explicit method (the slope at the end after its own, when it is
 * an extra stage) and their slopes */
static int core_ode_dense(lua_State *L) {
  const td_method *method = td_method_find(luaL_checkstring(L, 1));
  const td_tableau *m = method ? td_tableau_of(method) : NULL;
  if (!m) tdl_error(L, "ode.solve: \"%s\" is not an explicit method", lua_tostring(L, 1));
  double w[TD_MAX_STAGES], theta = luaL_checknumber(L, 2);
  int n = td_tableau_dense(m, theta, w);
  push_row(L, w, n);
  td_tableau_dense_slope(m, theta, w);
  push_row(L, w, n);
  return 2;
}

/* ode_revolve(n, c) → least extra forward steps over n with c states kept */
static int core_ode_revolve(lua_State *L) {
  double steps = luaL_checknumber(L, 1), slots = luaL_checknumber(L, 2);
  if (!(steps >= 0 && steps <= 1e9 && slots >= 1 && slots <= 1e9))
    tdl_error(L, "ode_revolve: %g steps with %g states, expected up to 1e9 steps and at least one state", steps, slots);
  size_t n = (size_t)steps, c = (size_t)slots;
  lua_pushnumber(L, td_revolve_count(n, c));
  return 1;
}

static const luaL_Reg functions[] = {
  {"ode_methods", core_ode_methods}, {"ode_dense", core_ode_dense}, {"ode_revolve", core_ode_revolve}, {NULL, NULL},
};

void tdl_open_ode_tables(lua_State *L) { tdl_setfuncs(L, functions); }
