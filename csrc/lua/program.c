/* Captures and programs as userdata, for lua/tide/capture.lua, which decides what is captured when.
 *
 *   local trace = core.trace()              -- from here on operations on unknown values are written down
 *   local x = trace:like(example)           -- a virtual tensor
 *   local y = f(x)
 *   trace:stop()
 *   local program = trace:program(0, trace:count(), {x}, {y})
 *   local result = program:run({value})     -- {tensor} */
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "graph/program.h"
#include "lua/tdl.h"

#define TDL_TRACE "tide.Trace"
#define TDL_PROGRAM "tide.Program"

typedef struct {
  td_trace t;
  bool begun;
} trace_box;

static trace_box *checked_trace(lua_State *L) { return luaL_checkudata(L, 1, TDL_TRACE); }

static int core_trace(lua_State *L) {
  trace_box *b = lua_newuserdata(L, sizeof *b);
  *b = (trace_box){.begun = false};
  luaL_getmetatable(L, TDL_TRACE);
  lua_setmetatable(L, -2);
  tdl_check(L, td_trace_begin(&b->t));
  b->begun = true;
  return 1;
}

static int trace_stop(lua_State *L) {
  trace_box *b = checked_trace(L);
  if (b->begun) td_trace_end(&b->t);
  b->begun = false;
  return 0;
}

static int trace_gc(lua_State *L) {
  trace_stop(L);
  td_trace_free(&checked_trace(L)->t);
  return 0;
}

/* trace:like(tensor) → a virtual tensor of its type and shape */
static int trace_like(lua_State *L) {
  checked_trace(L);
  const td_tensor *t = tdl_any_tensor(L, 2, "trace", "the example");
  tdl_push(L, td_tensor_virtual(t->dtype, t->ndim, t->shape));
  return 1;
}

static int trace_count(lua_State *L) {
  lua_pushnumber(L, (lua_Number)checked_trace(L)->t.count);
  return 1;
}

/* The tensors of the table at `index`, borrowed, in a new userdata left on the stack. */
static td_tensor **tensors_of(lua_State *L, int index, int *n) {
  luaL_checktype(L, index, LUA_TTABLE);
  *n = (int)tdl_rawlen(L, index);
  td_tensor **list = lua_newuserdata(L, (size_t)(*n + 1) * sizeof *list);
  for (int i = 0; i < *n; i++) {
    lua_rawgeti(L, index, i + 1);
    list[i] = tdl_any_tensor(L, -1, "program", "an entry");
    lua_pop(L, 1);
  }
  return list;
}

static td_program *checked_program(lua_State *L) { return *(td_program **)luaL_checkudata(L, 1, TDL_PROGRAM); }

td_program *tdl_program(lua_State *L, int index) {
  td_program **p = lua_touserdata(L, index);
  if (!p || !lua_getmetatable(L, index)) return NULL;
  luaL_getmetatable(L, TDL_PROGRAM);
  bool is = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return is ? *p : NULL;
}

/* trace:program(first, count, inputs, outputs) → program of the calls first+1 … first+count */
static int trace_program(lua_State *L) {
  trace_box *b = checked_trace(L);
  size_t first = (size_t)luaL_checknumber(L, 2), count = (size_t)luaL_checknumber(L, 3);
  if (b->begun || first > b->t.count || count > b->t.count - first)
    tdl_error(L, "program: no such calls, or not stopped");
  int nin, nout;
  lua_settop(L, 5);
  td_tensor **in = tensors_of(L, 4, &nin), **out = tensors_of(L, 5, &nout);
  td_program **box = lua_newuserdata(L, sizeof *box);
  *box = NULL;
  luaL_getmetatable(L, TDL_PROGRAM);
  lua_setmetatable(L, -2);
  *box = td_program_new(&b->t, first, count, in, nin, out, nout);
  if (!*box) tdl_raise(L);
  return 1;
}

/* trace:kept(first, tensors) → see td_trace_kept */
static int trace_kept(lua_State *L) {
  trace_box *b = checked_trace(L);
  size_t first = (size_t)luaL_checknumber(L, 2);
  int n;
  lua_settop(L, 3);
  td_tensor **given = tensors_of(L, 3, &n);
  td_storage_list kept;
  td_status s = td_trace_kept(&b->t, first, given, n, &kept);
  lua_createtable(L, (int)kept.count, 0);
  for (size_t i = 0; i < kept.count && !s; i++) {
    tdl_push(L, td_tensor_from_storage(kept.item[i], TD_U8, 1, &kept.item[i]->bytes, 0));
    lua_rawseti(L, -2, (int)i + 1);
  }
  td_storage_list_free(&kept);
  tdl_check(L, s);
  return 1;
}

/* ---- Programs ---- */

static int program_gc(lua_State *L) {
  td_program **p = luaL_checkudata(L, 1, TDL_PROGRAM);
  td_program_release(*p);
  *p = NULL;
  return 0;
}

static bool fits(const td_tensor *t, const td_tensor *expected) {
  return t->dtype == expected->dtype && td_tensor_same_shape(t, expected);
}

/* Tensor i of the table at `index`, contiguous, as a new reference. */
static td_tensor *argument(lua_State *L, int index, int i, const td_tensor *expected, const char *what) {
  lua_rawgeti(L, index, i + 1);
  td_tensor *t = tdl_test(L, -1);
  if (!t || !td_tensor_is_known(t))
    td_fail(TD_EARG, "program: %s %d is %s, expected a tensor", what, i + 1, tdl_describe(L, -1));
  lua_pop(L, 1);
  if (!t || !td_tensor_is_known(t)) return NULL;
  if (!fits(t, expected)) {
    td_fail(TD_ESHAPE, "program: %s %d is %s of shape (%s), expected %s of (%s)", what, i + 1, td_dtype_name(t->dtype),
            td_tensor_shape_string(t), td_dtype_name(expected->dtype), td_tensor_shape_string(expected));
    return NULL;
  }
  return td_tensor_contiguous(t);
}

/* What the program wrote to input i, for which `held` stood in, is now in tensor i of the table at `index`. */
static td_status give_back(lua_State *L, int index, int i, const td_tensor *held) {
  lua_rawgeti(L, index, i + 1);
  td_tensor *t = tdl_test(L, -1);
  lua_pop(L, 1);
  t->storage->version++;
  return t->data == held->data ? TD_OK : td_tensor_copy(t, held);
}

/* Runs with the tensors of the table at 2, writing into those of the table at 3 or into new ones; leaves them in a
 * table. */
static int run_with(lua_State *L, td_status (*run)(td_program *, void *const *, void *const *)) {
  td_program *p = checked_program(L);
  int nin = td_program_inputs(p), nout = td_program_outputs(p);
  luaL_checktype(L, 2, LUA_TTABLE);
  if ((int)tdl_rawlen(L, 2) != nin) tdl_error(L, "program: %d inputs, expected %d", (int)tdl_rawlen(L, 2), nin);
  bool fresh = !lua_istable(L, 3);
  if (fresh) {
    lua_settop(L, 2);
    lua_createtable(L, nout, 0);
  } else if ((int)tdl_rawlen(L, 3) != nout) {
    tdl_error(L, "program: %d tensors for the results, expected %d", (int)tdl_rawlen(L, 3), nout);
  }
  void **at = lua_newuserdata(L, (size_t)(nin + nout + 1) * 2 * sizeof *at);
  td_tensor **held = (td_tensor **)(at + nin + nout + 1);
  int made = 0;
  td_status s = TD_OK;
  for (; made < nin && !s; made++) {
    held[made] = argument(L, 2, made, td_program_input(p, made), "input");
    if (!held[made]) {
      s = td_last_status();
      break;
    }
    at[made] = held[made]->data;
  }
  for (int i = 0; i < nout && !s; i++) {
    const td_tensor *o = td_program_output(p, i);
    if (fresh) {
      tdl_push(L, td_tensor_new(o->dtype, o->ndim, o->shape));
      lua_rawseti(L, 3, i + 1);
    }
    lua_rawgeti(L, 3, i + 1);
    td_tensor *t = tdl_test(L, -1);
    lua_pop(L, 1);
    if (!t) s = td_fail(TD_EARG, "program: result %d goes into no tensor", i + 1);
    else if (!fits(t, o) || !td_tensor_is_contiguous(t))
      s = td_fail(TD_ESHAPE, "program: result %d goes into %s of shape (%s), expected %s of (%s), contiguous", i + 1,
                  td_dtype_name(t->dtype), td_tensor_shape_string(t), td_dtype_name(o->dtype),
                  td_tensor_shape_string(o));
    if (s) break;
    t->storage->version++;
    at[nin + i] = t->data;
  }
  if (!s) s = run(p, at, at + nin);
  for (int i = 0; i < made && !s; i++)
    if (td_program_writes_input(p, i)) s = give_back(L, 2, i, held[i]);
  while (made-- > 0) td_tensor_release(held[made]);
  tdl_check(L, s);
  lua_settop(L, 3);
  return 1;
}

static int program_run(lua_State *L) { return run_with(L, td_program_run); }
static int program_profile(lua_State *L) { return run_with(L, td_program_profile); }

/* program:lines() → {{name, text, flops, bytes, seconds}, …} */
static int program_lines(lua_State *L) {
  td_program *p = checked_program(L);
  int n = td_program_length(p);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    td_program_line line;
    td_program_describe(p, i, &line);
    lua_createtable(L, 0, 5);
    lua_pushstring(L, line.name), lua_setfield(L, -2, "name");
    lua_pushstring(L, line.text), lua_setfield(L, -2, "text");
    lua_pushnumber(L, line.flops), lua_setfield(L, -2, "flops");
    lua_pushnumber(L, line.bytes), lua_setfield(L, -2, "bytes");
    lua_pushnumber(L, line.seconds), lua_setfield(L, -2, "seconds");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int program_memory(lua_State *L) {
  lua_pushnumber(L, (lua_Number)td_program_memory(checked_program(L)));
  return 1;
}

/* program:numbers() → operations on single numbers that it runs in place of its steps, or 0 */
static int program_numbers(lua_State *L) {
  lua_pushinteger(L, td_program_numbers(checked_program(L)));
  return 1;
}

/* program:written() → views of what it writes to besides inputs and outputs */
static int program_written(lua_State *L) {
  td_program *p = checked_program(L);
  int found = 0;
  lua_newtable(L);
  for (int i = 0; i < td_program_externals(p); i++) {
    if (!td_program_writes_external(p, i)) continue;
    tdl_push(L, td_tensor_retain(td_program_external(p, i)));
    lua_rawseti(L, -2, ++found);
  }
  return 1;
}

/* program:versions() → a number that grows when an external that it reads is written to */
static int program_versions(lua_State *L) {
  td_program *p = checked_program(L);
  double sum = 0;
  for (int i = 0; i < td_program_externals(p); i++)
    if (td_program_reads_external(p, i)) sum += (double)td_program_external(p, i)->storage->version;
  lua_pushnumber(L, sum);
  return 1;
}

/* program:reads(i) → does it read input i? */
static int program_reads(lua_State *L) {
  td_program *p = checked_program(L);
  int i = (int)luaL_checkinteger(L, 2);
  lua_pushboolean(L, i >= 1 && i <= td_program_inputs(p) && td_program_reads(p, i - 1));
  return 1;
}

/* ---- What the processor can do, for profiles ---- */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* peak() → float32 operations and bytes of a copy of 64 MB, each a second, with the threads as set: the best of a few
 * short measurements */
static int core_peak(lua_State *L) {
  double flops = 0, bytes = 0;
  size_t n = (size_t)16 << 20;
  const td_kernels *k = td_k(TD_F32);
  td_tensor *x = td_tensor_zeros(TD_F32, 1, &n), *y = td_tensor_zeros(TD_F32, 1, &n);
  for (int i = 0; i < 5 && x && y; i++) {
    double began = now(), count = k->fma_work(64), rate = count / (now() - began);
    if (rate > flops) flops = rate;
    began = now();
    k->lincomb(y->data, NULL, 1, (const double[]){1}, (const void *const[]){x->data}, n);
    rate = 2.0 * (double)n * sizeof(float) / (now() - began);
    if (rate > bytes) bytes = rate;
  }
  td_tensor_release(x);
  td_tensor_release(y);
  if (flops == 0) tdl_raise(L);
  lua_pushnumber(L, flops);
  lua_pushnumber(L, bytes);
  return 2;
}

static const luaL_Reg trace_methods[] = {
  {"stop", trace_stop}, {"like", trace_like}, {"count", trace_count}, {"program", trace_program}, {"kept", trace_kept},
  {NULL, NULL},
};
static const luaL_Reg program_methods[] = {
  {"run", program_run}, {"profile", program_profile}, {"lines", program_lines}, {"memory", program_memory},
  {"reads", program_reads}, {"numbers", program_numbers}, {"written", program_written},
  {"versions", program_versions}, {NULL, NULL},
};

/* capturing() → is a function being captured? */
static int core_capturing(lua_State *L) {
  lua_pushboolean(L, td_capture_era != 0);
  return 1;
}

static void new_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc) {
  luaL_newmetatable(L, name);
  lua_newtable(L);
  tdl_setfuncs(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

void tdl_open_program(lua_State *L) {
  new_type(L, TDL_TRACE, trace_methods, trace_gc);
  new_type(L, TDL_PROGRAM, program_methods, program_gc);
  lua_pushcfunction(L, core_trace);
  lua_setfield(L, -2, "trace");
  lua_pushcfunction(L, core_capturing);
  lua_setfield(L, -2, "capturing");
  lua_pushcfunction(L, core_peak);
  lua_setfield(L, -2, "peak");
}
