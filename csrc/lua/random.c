/* Generator objects and what they draw. A generator is a seed and a counter; the same seed gives the same numbers on
 * every machine and for any number of threads. */
#include <math.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/random.h"
#include "kernels/kernels.h"
#include "lua/tdl.h"
#include "ops/op.h"

#define TDL_RNG "tide.Generator"

/* The userdata holds one reference to a tensor in whose memory the td_rng is, so that a captured program can hold one
 * too. */
static td_tensor *checked(lua_State *L) {
  td_tensor **g = lua_touserdata(L, 1);
  bool is = g && lua_getmetatable(L, 1);
  if (is) {
    luaL_getmetatable(L, TDL_RNG);
    is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  if (!is) tdl_error(L, "generator: self is %s, expected a generator", tdl_describe(L, 1));
  return *g;
}

static td_rng *state_of(td_tensor *g) { return (td_rng *)(void *)g->data; }

/* The state, to be read or set now: not while a function is captured, when it would be a constant. */
static td_rng *known_state(lua_State *L, const char *fname) {
  td_tensor *g = checked(L);
  if (!td_tensor_is_known(g))
    tdl_error(L, "%s: a captured function draws by rand, randn and bernoulli; this would be a constant of the program",
              fname);
  g->storage->version++;
  return state_of(g);
}

static int generator_gc(lua_State *L) {
  td_tensor **g = lua_touserdata(L, 1);
  td_tensor_release(*g);
  *g = NULL;
  return 0;
}

/* generator(seed = from the clock) */
static int make_generator(lua_State *L) {
  double seed = lua_isnoneornil(L, 1) ? (double)time(NULL) : tdl_whole(L, 1, "generator", "seed");
  size_t bytes = sizeof(td_rng);
  td_tensor **g = lua_newuserdata(L, sizeof *g);
  *g = td_tensor_new(TD_U8, 1, &bytes);
  if (!*g) tdl_raise(L);
  *state_of(*g) = (td_rng){.seed = (uint64_t)(int64_t)seed, .counter = 0};
  luaL_getmetatable(L, TDL_RNG);
  lua_setmetatable(L, -2);
  return 1;
}

/* g:seed(n) starts the generator anew; g:state() → seed, counter; g:state(seed, counter) */
static int generator_seed(lua_State *L) {
  td_rng *g = known_state(L, "seed");
  *g = (td_rng){.seed = (uint64_t)(int64_t)tdl_whole(L, 2, "seed", "seed"), .counter = 0};
  lua_settop(L, 1);
  return 1;
}
static int generator_state(lua_State *L) {
  td_rng *g = known_state(L, "state");
  if (!lua_isnoneornil(L, 2)) {
    double seed = tdl_whole(L, 2, "state", "seed"), counter = tdl_whole(L, 3, "state", "counter");
    *g = (td_rng){.seed = (uint64_t)(int64_t)seed, .counter = counter > 0 ? (uint64_t)counter : 0};
  }
  lua_pushnumber(L, (lua_Number)(int64_t)g->seed);
  lua_pushnumber(L, (lua_Number)g->counter);
  return 2;
}

/* Sizes from argument `first` on, and a real type, float32 unless a dtype name follows. */
static td_dtype read_shape(lua_State *L, const char *fname, int first, int *ndim, size_t *shape) {
  td_dtype d = TD_F32;
  int next = tdl_sizes(L, first, fname, ndim, shape);
  if (!lua_isnoneornil(L, next) &&
      (!lua_isstring(L, next) || !tdl_dtype(lua_tostring(L, next), &d) || !td_dtype_is_real(d)))
    tdl_error(L, "%s: dtype is %s, expected float32 or float64", fname, tdl_describe(L, next));
  return d;
}

static void fill(td_rng *g, td_tensor *t, bool normal) {
  const td_kernels *k = td_k(t->dtype);
  if (t->numel) (normal ? k->normal : k->uniform)(t->data, t->numel, g->seed, g->counter);
  size_t per_block = t->dtype == TD_F32 ? 4 : 2;
  g->counter += (t->numel + per_block - 1) / per_block;
}

/* A draw as a step of a captured program: operand 1 is the generator's state, which is also written. */
static td_status draw_run(td_call *c) {
  fill(state_of(c->in[0]), c->out[0], c->a->i[0]);
  return TD_OK;
}
static const td_op draw_op = {.name = "draw", .nout = 2, .run = draw_run};

/* A new tensor of drawn numbers; while a function is captured, of numbers that the program draws each time. */
static td_tensor *drawn(lua_State *L, const char *fname, int first, bool normal) {
  size_t shape[TD_MAX_DIMS];
  int ndim;
  td_tensor *g = checked(L);
  td_dtype d = read_shape(L, fname, first, &ndim, shape);
  if (td_capture_era) {
    td_call c = {.op = &draw_op, .a = &(td_attrs){.i = {normal}}, .nin = 1, .nout = 2, .in = &g, .out = {NULL, g}};
    td_meta_set(&c, 0, d, ndim, shape);
    if (td_capture_call(&c)) tdl_raise(L);
    return c.out[0];
  }
  td_tensor *t = td_tensor_new(d, ndim, shape);
  if (!t) tdl_raise(L);
  g->storage->version++;
  fill(state_of(g), t, normal);
  return t;
}

/* g:rand(sizes…, dtype): uniform in [0, 1) */
static int generator_rand(lua_State *L) {
  tdl_push(L, drawn(L, "rand", 2, false));
  return 1;
}
/* g:randn(sizes…, dtype): standard normal */
static int generator_randn(lua_State *L) {
  tdl_push(L, drawn(L, "randn", 2, true));
  return 1;
}

/* A whole number in [0, n), from one block. */
static uint64_t below(td_rng *g, uint64_t n) {
  uint32_t r[4];
  td_philox(g->seed, g->counter++, r);
  uint64_t wide = (uint64_t)r[0] << 32 | r[1];
  return (uint64_t)(((unsigned __int128)wide * n) >> 64);
}

/* g:randint(low, high, sizes…): whole numbers in low..high, both included, int64 */
static int generator_randint(lua_State *L) {
  td_rng *g = known_state(L, "randint");
  double low = tdl_whole(L, 2, "randint", "low"), high = tdl_whole(L, 3, "randint", "high");
  if (high < low) tdl_error(L, "randint: from %g to %g, expected whole numbers in order", low, high);
  size_t shape[TD_MAX_DIMS];
  int ndim;
  tdl_sizes(L, 4, "randint", &ndim, shape);
  td_tensor *t = td_tensor_new(TD_I64, ndim, shape);
  tdl_push(L, t);
  for (size_t i = 0; i < t->numel; i++)
    ((int64_t *)(void *)t->data)[i] = (int64_t)low + (int64_t)below(g, (uint64_t)(high - low) + 1);
  return 1;
}

/* g:randperm(n): 1..n in random order, int64 */
static int generator_randperm(lua_State *L) {
  td_rng *g = known_state(L, "randperm");
  double n = tdl_whole(L, 2, "randperm", "n");
  if (!(n >= 0 && n < 1e12) || n != floor(n)) tdl_error(L, "randperm: %g, expected a whole number", n);
  size_t count = (size_t)n;
  td_tensor *t = td_tensor_new(TD_I64, 1, &count);
  tdl_push(L, t);
  int64_t *p = (int64_t *)(void *)t->data;
  for (size_t i = 0; i < count; i++) p[i] = (int64_t)i + 1;
  for (size_t i = count; i-- > 1;) {
    size_t j = (size_t)below(g, i + 1);
    int64_t swap = p[i];
    p[i] = p[j];
    p[j] = swap;
  }
  return 1;
}

/* g:bernoulli(p, sizes…, dtype): 1 with probability p, else 0 */
static int generator_bernoulli(lua_State *L) {
  double p = tdl_number(L, 2, "bernoulli", "p");
  if (!(p >= 0 && p <= 1)) tdl_error(L, "bernoulli: probability %g, expected 0 to 1", p);
  td_tensor *t = drawn(L, "bernoulli", 3, false);
  tdl_push(L, t);
  size_t mark = td_auto_mark();
  td_tensor *chance = td_auto(td_tensor_number(TD_F64, p, true)), *both[2] = {t, chance};
  td_status s = chance ? td_apply_inplace(td_op_find("lt"), both, 2, NULL) : td_last_status();
  td_auto_release(mark);
  tdl_check(L, s);
  return 1;
}

static const luaL_Reg methods[] = {
  {"seed", generator_seed}, {"state", generator_state}, {"rand", generator_rand}, {"randn", generator_randn},
  {"randint", generator_randint}, {"randperm", generator_randperm}, {"bernoulli", generator_bernoulli}, {NULL, NULL},
};

void tdl_open_random(lua_State *L) {
  lua_pushcfunction(L, make_generator);
  lua_setfield(L, -2, "generator");
  luaL_newmetatable(L, TDL_RNG);
  lua_newtable(L);
  tdl_setfuncs(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, generator_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}
