/* The binding: what its files share. A binding function checks its arguments, calls the core, and returns; only here
 * does a status become a Lua error. Whatever C owns is released before an error is raised. */
#ifndef TD_LUA_TDL_H
#define TD_LUA_TDL_H
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include "base/error.h"
#include "tensor/tensor.h"

/* ---- The same code for Lua 5.1 to 5.4 ---- */
#if LUA_VERSION_NUM >= 502
#define tdl_rawlen lua_rawlen
#define tdl_setfuncs(L, l) luaL_setfuncs(L, l, 0)
#else
#define tdl_rawlen lua_objlen
#define tdl_setfuncs(L, l) luaL_register(L, NULL, l)
#endif
#if LUA_VERSION_NUM < 502 && !defined(LUA_OK)
#define LUA_OK 0
#endif

#define TDL_TENSOR "tide.Tensor"

/* ---- Errors (core.c) ---- */
/* Raises "<file>:<line>: <message>" at the innermost line outside tide's own Lua files. */
int tdl_error(lua_State *L, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
/* Raises what the failed core call left: its message, or the error of the Lua callback that failed inside it. */
int tdl_raise(lua_State *L) __attribute__((noreturn));
/* Nothing when s is TD_OK, else tdl_raise. */
void tdl_check(lua_State *L, td_status s);
/* Calls the function and arguments on the stack like lua_call, protected; on failure keeps the error value for
 * tdl_raise and gives TD_ECALL. */
td_status tdl_pcall(lua_State *L, int nargs, int nresults);
/* Its parts, for who calls one function very often: the message handler, and what keeps the error value on the top of
 * the stack (popped) and gives TD_ECALL. */
int tdl_handler(lua_State *L);
/* Pushes it, the same one each time. */
void tdl_push_handler(lua_State *L);
td_status tdl_call_failed(lua_State *L);
/* Pushes the error of the failed core call, or of the callback that failed inside it, and forgets it. */
void tdl_push_error(lua_State *L);
/* The main thread of L's state: what a reference outlives every coroutine with. */
lua_State *tdl_main(lua_State *L);
/* The state in which callbacks run: that of the binding call under way. */
lua_State *tdl_state(void);
lua_State *tdl_enter(lua_State *L);  /* gives the one before, for tdl_leave */
void tdl_leave(lua_State *before);
/* The nearest of the names (NULL at the end) to an unknown one, or NULL when none is near. */
const char *tdl_nearest(const char *word, const char *const *names);

/* ---- Tensors (tensor.c) ---- */
/* The tensor at a stack index, or NULL. */
td_tensor *tdl_test(lua_State *L, int index);
/* The same, or an error that names the function and the argument; or that says that the tensor's values, which the
 * function is about to read or keep, are not known while a function is captured. */
td_tensor *tdl_tensor(lua_State *L, int index, const char *fname, const char *argument);
/* The same for functions that look at no values: also virtual tensors (graph/trace.h). */
td_tensor *tdl_any_tensor(lua_State *L, int index, const char *fname, const char *argument);
/* The number at an index, or an error likewise; tdl_whole wants a whole one (of at most 2^53). */
double tdl_number(lua_State *L, int index, const char *fname, const char *argument);
double tdl_whole(lua_State *L, int index, const char *fname, const char *argument);
/* An error unless a function stands at the index. */
void tdl_function(lua_State *L, int index, const char *fname, const char *argument);
/* Pushes t and takes over one reference; runs the collector when live bytes have passed the limit. NULL raises. */
void tdl_push(lua_State *L, td_tensor *t);
/* The operand at an index: a tensor, or a number as a weak 0-d tensor; automatic. NULL and a message otherwise. */
td_tensor *tdl_operand(lua_State *L, int index, const char *fname, const char *argument);
/* "float32" and so on into *d; false when it is no element type. */
int tdl_dtype(const char *name, td_dtype *d);
/* Before a reverse pass, which frees what it has used as it goes unless Lua's garbage refers to it too, and before a
 * solve that keeps much for one: collects garbage when tensors take 32 MB or more. All such collections together go
 * through no more than a byte of Lua's heap, some nanosecond, for 32 bytes of tensors that were made. */
void tdl_collect_before_pass(lua_State *L);
/* A word for what stands at the index: "nil", "a table", "a tensor of shape (3×4)" … */
const char *tdl_describe(lua_State *L, int index);

/* ---- Arguments of constructors (construct.c) ---- */
/* Reads sizes from `first` on: numbers, or one table of them; gives the index after them. */
int tdl_sizes(lua_State *L, int first, const char *fname, int *ndim, size_t *shape);

/* ---- Parts of the module: each adds its functions to the table on top of the stack ---- */
void tdl_open_tensor(lua_State *L);
void tdl_open_construct(lua_State *L);
void tdl_open_index(lua_State *L);
void tdl_open_ops(lua_State *L);
void tdl_open_tape(lua_State *L);
void tdl_open_random(lua_State *L);
void tdl_open_optim(lua_State *L);
void tdl_open_ode(lua_State *L);
void tdl_open_io(lua_State *L);
void tdl_open_program(lua_State *L);

/* ---- Programs (program.c) ---- */
struct td_program;
/* The program at a stack index, borrowed, or NULL. */
struct td_program *tdl_program(lua_State *L, int index);

#endif
