/* tide.io: files to tensors and back. What is wrong with a file comes back as nil and a message;
 * what is wrong with an argument raises. */
#include "io/batch.h"
#include "io/cifar.h"
#include "io/folder.h"
#include "io/idx.h"
#include "io/npy.h"
#include "io/png.h"
#include "io/safetensors.h"
#include <stdlib.h>
#include <string.h>
#include "lua/tdl.h"

/* ---- Arguments and answers ------------------------------------------------------------------- */

static const char *check_path(lua_State *L, const char *fname) {
  if (lua_type(L, 1) != LUA_TSTRING)
    tdl_error(L, "%s: the path is %s, expected a string", fname, tdl_describe(L, 1));
  size_t n;
  const char *path = lua_tolstring(L, 1, &n);
  if (n == 0 || strlen(path) != n)
    tdl_error(L, "%s: the path is %s, expected the name of a file", fname,
              n ? "a string with a zero byte" : "an empty string");
  return path;
}

/* nil and the message of a failure; but a wrong argument raises. */
static int fail(lua_State *L, td_status status, const char *fname) {
  if (status == TD_EARG || status == TD_ESHAPE || status == TD_EDTYPE) {
    td_fail(status, "%s: %s", fname, td_last_message());
    tdl_raise(L);
  }
  lua_pushnil(L);
  lua_pushstring(L, td_last_message());
  td_clear_error();
  return 2;
}

static int answer_true(lua_State *L, td_status status, const char *fname) {
  if (status) return fail(L, status, fname);
  lua_pushboolean(L, 1);
  return 1;
}

static int answer_tensors(lua_State *L, td_status status, const char *fname, int n, td_tensor **t) {
  if (status) return fail(L, status, fname);
  for (int i = 0; i < n; i++) tdl_push(L, t[i]);
  return n;
}

/* ---- Single arrays and images ---------------------------------------------------------------- */

/* A file of one tensor. */
static int read_one(lua_State *L, const char *fname,
                    td_status (*read)(const char *, td_tensor **)) {
  td_tensor *t;
  return answer_tensors(L, read(check_path(L, fname), &t), fname, 1, &t);
}

static int write_one(lua_State *L, const char *fname,
                     td_status (*write)(const char *, td_tensor *)) {
  const char *path = check_path(L, fname);
  return answer_true(L, write(path, tdl_tensor(L, 2, fname, "the second argument")), fname);
}

static int io_load_npy(lua_State *L) { return read_one(L, "load_npy", td_npy_read); }
static int io_save_npy(lua_State *L) { return write_one(L, "save_npy", td_npy_write); }
static int io_read_png(lua_State *L) { return read_one(L, "read_png", td_png_read); }
static int io_write_png(lua_State *L) { return write_one(L, "write_png", td_png_write); }
static int io_read_idx(lua_State *L) { return read_one(L, "read_idx", td_idx_read); }

/* read_cifar10(path) → images, labels */
static int io_read_cifar10(lua_State *L) {
  td_tensor *t[2];
  td_status status = td_cifar10_read(check_path(L, "read_cifar10"), &t[0], &t[1]);
  return answer_tensors(L, status, "read_cifar10", 2, t);
}

/* read_cifar100(path) → images, fine labels, coarse labels */
static int io_read_cifar100(lua_State *L) {
  td_tensor *t[3];
  td_status status = td_cifar100_read(check_path(L, "read_cifar100"), &t[0], &t[2], &t[1]);
  return answer_tensors(L, status, "read_cifar100", 3, t);
}

/* ---- Named tensors --------------------------------------------------------------------------- */

/* load_safetensors(path) → {name = tensor}, {key = text}, {names in the file's order} */
static int io_load_safetensors(lua_State *L) {
  td_safetensors *f;
  td_status status = td_safetensors_read(check_path(L, "load_safetensors"), &f);
  if (status) return fail(L, status, "load_safetensors");
  int n = (int)f->ntensor;
  lua_createtable(L, 0, n);
  lua_createtable(L, 0, (int)f->nmetadata);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    tdl_push(L, td_tensor_retain(f->tensor[i].tensor));
    lua_setfield(L, -4, f->tensor[i].name);
    lua_pushstring(L, f->tensor[i].name);
    lua_rawseti(L, -2, i + 1);
  }
  for (size_t i = 0; i < f->nmetadata; i++) {
    lua_pushstring(L, f->metadata[i].value);
    lua_setfield(L, -3, f->metadata[i].key);
  }
  td_safetensors_free(f);
  return 3;
}

/* The key or value at an index as a text without zero bytes. */
static const char *check_text(lua_State *L, int index, const char *what) {
  if (lua_type(L, index) != LUA_TSTRING)
    tdl_error(L, "save_safetensors: %s is %s, expected a string", what, tdl_describe(L, index));
  size_t n;
  const char *s = lua_tolstring(L, index, &n);
  if (strlen(s) != n) tdl_error(L, "save_safetensors: %s has a zero byte", what);
  return s;
}

static size_t count_fields(lua_State *L, int index) {
  size_t n = 0;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) n++;
  return n;
}

static int compare_tensors(const void *a, const void *b) {
  return strcmp(((const td_named_tensor *)a)->name, ((const td_named_tensor *)b)->name);
}

static int compare_pairs(const void *a, const void *b) {
  return strcmp(((const td_text_pair *)a)->key, ((const td_text_pair *)b)->key);
}

/* The element type named at an index for tensors of float32: TD_E_F32 when there is none. */
static td_element check_element(lua_State *L, int index) {
  const char *name = lua_tostring(L, index);
  if (lua_isnil(L, index) || (name && !strcmp(name, "float32"))) return TD_E_F32;
  if (name && !strcmp(name, "float16")) return TD_E_F16;
  if (name && !strcmp(name, "bfloat16")) return TD_E_BF16;
  tdl_error(L, "save_safetensors: dtype is %s, expected \"float32\", \"float16\" or \"bfloat16\"",
            tdl_describe(L, index));
  return TD_E_F32;
}

/* save_safetensors(path, {name = tensor}, {key = text}, dtype of those of float32): by name, so that equal tables give
 * equal files */
static int io_save_safetensors(lua_State *L) {
  const char *path = check_path(L, "save_safetensors");
  if (!lua_istable(L, 2))
    tdl_error(L, "save_safetensors: the tensors are %s, expected a table of them by name",
              tdl_describe(L, 2));
  if (!lua_isnoneornil(L, 3) && !lua_istable(L, 3))
    tdl_error(L, "save_safetensors: the metadata is %s, expected a table of strings",
              tdl_describe(L, 3));
  lua_settop(L, 4);
  td_element narrow = check_element(L, 4);
  size_t n = count_fields(L, 2), m = lua_istable(L, 3) ? count_fields(L, 3) : 0, i = 0;
  td_named_tensor *tensor = lua_newuserdata(L, (n + 1) * sizeof *tensor);
  td_text_pair *pair = lua_newuserdata(L, (m + 1) * sizeof *pair);
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1), i++) {
    tensor[i].name = check_text(L, -2, "a name");
    td_tensor *t = tensor[i].tensor = tdl_tensor(L, -1, "save_safetensors", tensor[i].name);
    tensor[i].element = t->dtype == TD_F32 ? narrow : td_element_of(t->dtype);
  }
  i = 0;
  if (m) {
    for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1), i++) {
      pair[i].key = check_text(L, -2, "a metadata key");
      pair[i].value = check_text(L, -1, pair[i].key);
    }
  }
  qsort(tensor, n, sizeof *tensor, compare_tensors);
  qsort(pair, m, sizeof *pair, compare_pairs);
  return answer_true(L, td_safetensors_write(path, n, tensor, m, pair), "save_safetensors");
}

/* ---- Folders --------------------------------------------------------------------------------- */

/* list_folder(path) → {names of files}, {names of folders}, each sorted */
static int io_list_folder(lua_State *L) {
  td_folder f;
  td_status status = td_folder_read(check_path(L, "list_folder"), &f);
  if (status) return fail(L, status, "list_folder");
  int n[2] = {0, 0};
  lua_newtable(L);
  lua_newtable(L);
  for (size_t i = 0; i < f.n; i++) {
    bool folder = f.entry[i].is_folder;
    lua_pushstring(L, f.entry[i].name);
    lua_rawseti(L, folder ? -2 : -3, ++n[folder]);
  }
  td_folder_free(&f);
  return 2;
}

/* make_folder(path) → true */
static int io_make_folder(lua_State *L) {
  return answer_true(L, td_folder_make(check_path(L, "make_folder")), "make_folder");
}

/* ---- Batches, for tide.data.Loader ----------------------------------------------------------- */

static double check_whole(lua_State *L, int index, const char *fname, const char *what) {
  double v = lua_type(L, index) == LUA_TNUMBER ? lua_tonumber(L, index) : -1;
  if (!(v >= 0 && v < 9007199254740992.0) || v != (double)(uint64_t)v)
    tdl_error(L, "%s: %s is %s, expected a whole number, 0 or more", fname, what,
              tdl_describe(L, index));
  return v;
}

/* batch.order(n, seed, epoch) → places 0 … n-1, shuffled */
static int io_batch_order(lua_State *L) {
  static const char fname[] = "batch.order";
  td_tensor *t;
  td_status status = td_batch_order((size_t)check_whole(L, 1, fname, "n"),
                                    (uint64_t)check_whole(L, 2, fname, "seed"),
                                    (uint64_t)check_whole(L, 3, fname, "epoch"), &t);
  tdl_check(L, status);
  tdl_push(L, t);
  return 1;
}

static const float *check_channels(lua_State *L, int index, const td_tensor *images,
                                   const char *what) {
  td_tensor *t = tdl_tensor(L, index, "batch.images", what);
  size_t c = images->ndim == 4 ? images->shape[3] : 0;
  if (t->dtype != TD_F32 || t->numel != c || !td_tensor_is_contiguous(t))
    tdl_error(L, "batch.images: %s is %s, expected a float32 tensor of %d elements, one a channel",
              what, tdl_describe(L, index), (int)c);
  return (const float *)(const void *)t->data;
}

/* batch.images(images, order, first, count, scale, shift, crop, flip, seed, epoch); first counts
 * from 0 */
static int io_batch_images(lua_State *L) {
  static const char fname[] = "batch.images";
  td_tensor *images = tdl_tensor(L, 1, fname, "images"), *order = tdl_tensor(L, 2, fname, "order"),
            *t;
  size_t first = (size_t)check_whole(L, 3, fname, "first");
  size_t count = (size_t)check_whole(L, 4, fname, "count");
  td_batch_options o = {
    .scale = check_channels(L, 5, images, "scale"),
    .shift = check_channels(L, 6, images, "shift"),
    .crop = (size_t)check_whole(L, 7, fname, "crop"),
    .flip = luaL_checknumber(L, 8),
    .seed = (uint64_t)check_whole(L, 9, fname, "seed"),
    .epoch = (uint64_t)check_whole(L, 10, fname, "epoch"),
  };
  tdl_check(L, td_batch_images(images, order, first, count, &o, &t));
  tdl_push(L, t);
  return 1;
}

/* batch.labels(labels, order, first, count) */
static int io_batch_labels(lua_State *L) {
  static const char fname[] = "batch.labels";
  td_tensor *labels = tdl_tensor(L, 1, fname, "labels"), *order = tdl_tensor(L, 2, fname, "order"),
            *t;
  size_t first = (size_t)check_whole(L, 3, fname, "first");
  tdl_check(L,
            td_batch_labels(labels, order, first, (size_t)check_whole(L, 4, fname, "count"), &t));
  tdl_push(L, t);
  return 1;
}

static const luaL_Reg functions[] = {
  {"load_safetensors", io_load_safetensors},
  {"save_safetensors", io_save_safetensors},
  {"load_npy", io_load_npy},
  {"save_npy", io_save_npy},
  {"read_png", io_read_png},
  {"write_png", io_write_png},
  {"read_idx", io_read_idx},
  {"read_cifar10", io_read_cifar10},
  {"read_cifar100", io_read_cifar100},
  {"list_folder", io_list_folder},
  {"make_folder", io_make_folder},
  {NULL, NULL},
};

/* Not for users: what tide.data is made of. */
static const luaL_Reg batch_functions[] = {
  {"order", io_batch_order},
  {"images", io_batch_images},
  {"labels", io_batch_labels},
  {NULL, NULL},
};

void tdl_open_io(lua_State *L) {
  lua_newtable(L);
  tdl_setfuncs(L, functions);
  lua_setfield(L, -2, "io");
  lua_newtable(L);
  tdl_setfuncs(L, batch_functions);
  lua_setfield(L, -2, "batch");
}
