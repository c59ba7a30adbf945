/* The coefficients of implicit methods, as tables of numbers. */
#include "lua/ode_tables.h"
#include "solve/dirk.h"
#include "solve/irk.h"
#include "solve/rosenbrock.h"

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

void tdl_set_implicit_tables(lua_State *L, const td_method *m) {
  lua_pushboolean(L, m->family->stiff), lua_setfield(L, -2, "stiff");
  if (m->family == &td_family_dirk) set_dirk(L, m->table);
  else if (m->family == &td_family_rosenbrock) set_rosenbrock(L, m->table);
  else if (m->family == &td_family_irk || m->family == &td_family_radau) set_collocation(L, m->table);
}
