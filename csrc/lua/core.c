/* The module tide.core: opening it, errors, memory, threads. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cpu.h"
#include "base/threads.h"
#include "graph/program.h"
#include "graph/tape.h"
#include "kernels/blas.h"
#include "kernels/precision.h"
#include "lua/tdl.h"

/* ---- Errors ---- */

static char own_files[256];  /* "@<folder>/tide/": where the chunks of tide's own Lua files come from */

static bool is_own_source(const char *source) {
  size_t n = strlen(own_files);
  return n && strncmp(source, own_files, n) == 0;
}

static bool is_own(const lua_Debug *ar) { return is_own_source(ar->source); }

/* Pushes "file:line: " of the innermost Lua function that is not tide's own. */
static void push_where(lua_State *L) {
  lua_Debug ar;
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0) continue;
    if (is_own(&ar)) continue;
    lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
    return;
  }
  lua_pushliteral(L, "");
}

int tdl_error(lua_State *L, const char *fmt, ...) {
  char text[1024];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  push_where(L);
  lua_pushstring(L, text);
  lua_concat(L, 2);
  lua_error(L);
  __builtin_unreachable();
}

static const char callback_error;  /* its address is the registry key of the error that a callback raised */

/* Where a callback's error came from, which its caller's traceback will no longer show: to a message raised in a
 * function that the callback called, the Lua calls between are added, without tide's own that called the callback. */
int tdl_handler(lua_State *L) {
  lua_Debug ar;
  static const char heading[] = "\nin a callback:";
  if (lua_type(L, 1) != LUA_TSTRING || strstr(lua_tostring(L, 1), heading)) return 1;
  int first = 1, n = 0;
  if (lua_getstack(L, first, &ar) && lua_getinfo(L, "S", &ar) && *ar.what == 'C') first++;  /* error() itself */
  while (lua_getstack(L, first + n, &ar) && lua_getinfo(L, "S", &ar) && *ar.what != 'C') n++;
  while (n > 0 && lua_getstack(L, first + n - 1, &ar) && lua_getinfo(L, "S", &ar) && is_own(&ar)) n--;
  if (n < 2) return 1;
  lua_settop(L, 1);
  lua_pushstring(L, heading);
  for (int i = 0; i < n && i < 12; i++) {
    lua_getstack(L, first + i, &ar);
    lua_getinfo(L, "Sln", &ar);
    lua_pushfstring(L, "\n\t%s:%d: in %s", ar.short_src, ar.currentline,
                    *ar.what == 'm' ? "main chunk" : ar.name ? ar.name : "a function");
  }
  lua_concat(L, lua_gettop(L));
  return 1;
}

td_status tdl_call_failed(lua_State *L) {
  lua_pushlightuserdata(L, (void *)&callback_error);
  lua_insert(L, -2);
  lua_rawset(L, LUA_REGISTRYINDEX);
  return td_fail(TD_ECALL, "an error in a callback");
}

void tdl_push_handler(lua_State *L) {
  enum { HANDLER = -0x7d4 };  /* luaL_ref gives positive numbers */
  lua_rawgeti(L, LUA_REGISTRYINDEX, HANDLER);
  if (!lua_isnil(L, -1)) return;
  lua_pop(L, 1);
  lua_pushcfunction(L, tdl_handler);
  lua_pushvalue(L, -1);
  lua_rawseti(L, LUA_REGISTRYINDEX, HANDLER);
}

td_status tdl_pcall(lua_State *L, int nargs, int nresults) {
  int base = lua_gettop(L) - nargs;
  tdl_push_handler(L);
  lua_insert(L, base);
  int status = lua_pcall(L, nargs, nresults, base);
  lua_remove(L, base);
  return status == LUA_OK ? TD_OK : tdl_call_failed(L);
}

void tdl_push_error(lua_State *L) {
  if (td_last_status() == TD_ECALL) {
    lua_pushlightuserdata(L, (void *)&callback_error);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_pushlightuserdata(L, (void *)&callback_error);
    lua_pushnil(L);
    lua_rawset(L, LUA_REGISTRYINDEX);
  } else {
    push_where(L);
    lua_pushstring(L, td_last_status() ? td_last_message() : "an operation failed without a message");
    lua_concat(L, 2);
  }
  td_clear_error();
}

int tdl_raise(lua_State *L) {
  tdl_push_error(L);
  lua_error(L);
  __builtin_unreachable();
}

/* ---- Interrupts: an interrupt is a debug hook that raises, and no hook runs while programs do ---- */

static td_status poll(void) {
  static int nothing = LUA_NOREF;  /* a Lua function, in which the hook finds a line to raise at */
  lua_State *L = tdl_state();
  if (!L || !lua_gethook(L)) return TD_OK;
  if (nothing == LUA_NOREF) {
    if (luaL_loadstring(L, "local nothing\nreturn nothing") != LUA_OK) return TD_OK;
    nothing = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, nothing);
  return tdl_pcall(L, 0, 0);
}

void tdl_check(lua_State *L, td_status s) {
  if (s) tdl_raise(L);
}

lua_State *tdl_main(lua_State *L) {
#if LUA_VERSION_NUM >= 502
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *m = lua_tothread(L, -1);
  lua_pop(L, 1);
  return m;
#else
  static const char key;
  lua_pushlightuserdata(L, (void *)&key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  lua_State *m = lua_tothread(L, -1);
  lua_pop(L, 1);
  if (m) return m;
  lua_pushlightuserdata(L, (void *)&key);
  lua_pushthread(L);
  lua_rawset(L, LUA_REGISTRYINDEX);
  return L;
#endif
}

static lua_State *running;
lua_State *tdl_state(void) { return running; }
lua_State *tdl_enter(lua_State *L) {
  lua_State *before = running;
  running = L;
  return before;
}
void tdl_leave(lua_State *before) { running = before; }

/* Edit distance of two short words. */
static size_t distance(const char *a, const char *b) {
  size_t row[64], n = strlen(b);
  if (n > 62) return 64;
  for (size_t j = 0; j <= n; j++) row[j] = j;
  for (size_t i = 1; *a; i++, a++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= n; j++) {
      size_t cost = diagonal + (*a != b[j - 1]);
      diagonal = row[j];
      if (row[j] + 1 < cost) cost = row[j] + 1;
      if (row[j - 1] + 1 < cost) cost = row[j - 1] + 1;
      row[j] = cost;
    }
  }
  return row[n];
}

const char *tdl_nearest(const char *word, const char *const *names) {
  const char *best = NULL;
  size_t least = strlen(word) / 2 + 2;
  for (; *names; names++) {
    size_t d = distance(word, *names);
    if (d < least) least = d, best = *names;
  }
  return best;
}

/* core.raise(message): an error at the user's line, for tide's Lua files */
static int core_raise(lua_State *L) {
  tdl_error(L, "%s", luaL_checkstring(L, 1));
}

/* core.own(prefix): chunks whose source begins with this belong to tide */
static int core_own(lua_State *L) {
  snprintf(own_files, sizeof own_files, "%s", luaL_checkstring(L, 1));
  return 0;
}

/* core.is_own(source): is a chunk of that source one of tide's own? */
static int core_is_own(lua_State *L) {
  lua_pushboolean(L, is_own_source(luaL_checkstring(L, 1)));
  return 1;
}

/* ---- Memory and threads ---- */

/* memory() → {live, cached, peak, calls, system} in bytes and counts; memory("reset") starts the peak anew,
 * memory("trim") gives the cache back to the system */
static int core_memory(lua_State *L) {
  const char *what = luaL_optstring(L, 1, "");
  if (!strcmp(what, "reset")) td_alloc_reset_peak();
  else if (!strcmp(what, "trim")) td_alloc_trim();
  else if (*what) tdl_error(L, "memory: unknown request \"%s\", expected \"reset\" or \"trim\"", what);
  td_alloc_stats s = td_alloc_statistics();
  lua_createtable(L, 0, 5);
  lua_pushnumber(L, (lua_Number)s.live), lua_setfield(L, -2, "live");
  lua_pushnumber(L, (lua_Number)s.cached), lua_setfield(L, -2, "cached");
  lua_pushnumber(L, (lua_Number)s.peak), lua_setfield(L, -2, "peak");
  lua_pushnumber(L, (lua_Number)s.calls), lua_setfield(L, -2, "calls");
  lua_pushnumber(L, (lua_Number)s.system), lua_setfield(L, -2, "system");
  return 1;
}

static int core_threads(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) {
    lua_Number n = tdl_number(L, 1, "threads", "count");
    if (!(n >= 1 && n <= 64)) tdl_error(L, "threads: %g, expected 1 to 64", n);
    td_threads_set((int)n);
  }
  lua_pushinteger(L, td_threads());
  return 1;
}

/* precision(mode?) → mode */
static int core_precision(lua_State *L) {
  static const char *const modes[] = {[TD_FAST] = "fast", [TD_STRICT] = "strict",
                                      [TD_BFLOAT16] = "bfloat16", NULL};
  if (!lua_isnoneornil(L, 1)) {
    const char *mode = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : NULL;
    int i = 0;
    while (modes[i] && (!mode || strcmp(modes[i], mode) != 0)) i++;
    if (!modes[i]) tdl_error(L, "precision: %s, expected \"fast\", \"strict\" or \"bfloat16\"", tdl_describe(L, 1));
    td_k_precision = (td_precision)i;
  }
  lua_pushstring(L, modes[td_k_precision]);
  return 1;
}

static int core_isa(lua_State *L) {
  lua_pushstring(L, td_isa_name(td_cpu_isa()));
  return 1;
}

static const luaL_Reg functions[] = {
  {"raise", core_raise}, {"own", core_own}, {"is_own", core_is_own}, {"memory", core_memory}, {"threads", core_threads}, {"isa", core_isa},
  {"precision", core_precision},
  {NULL, NULL},
};

__attribute__((visibility("default"))) int luaopen_tide_core(lua_State *L);
int luaopen_tide_core(lua_State *L) {
  td_tape_init();
  td_program_poll = poll;
  tdl_main(L);
  tdl_check(L, td_blas_init());
  lua_newtable(L);
  tdl_setfuncs(L, functions);
  tdl_open_tensor(L);
  tdl_open_construct(L);
  tdl_open_index(L);
  tdl_open_ops(L);
  tdl_open_tape(L);
  tdl_open_random(L);
  tdl_open_optim(L);
  tdl_open_ode(L);
  tdl_open_io(L);
  tdl_open_program(L);
  return 1;
}
