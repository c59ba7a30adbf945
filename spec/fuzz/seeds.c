/* Writes a small seed corpus: one folder for each fuzz target.   usage: seeds DIR */
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>
#include "io/npy.h"
#include "io/png.h"
#include "io/safetensors.h"

static const char *root;

/* A path in a target's folder, which is made; valid until the next call. */
static const char *seed(const char *target, const char *name) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/%s", root, target);
  mkdir(path, 0777);
  snprintf(path, sizeof path, "%s/%s/%s", root, target, name);
  return path;
}

static void require(int truth, const char *what) {
  if (truth) return;
  fprintf(stderr, "seeds: %s: %s\n", what, td_last_message());
  exit(1);
}

static void write_bytes(const char *path, const void *data, size_t n) {
  FILE *f = fopen(path, "wb");
  require(f && fwrite(data, 1, n, f) == n && fclose(f) == 0, path);
}

static void write_gzip(const char *path, const void *data, size_t n) {
  gzFile f = gzopen(path, "wb");
  require(f && gzwrite(f, data, (unsigned)n) == (int)n && gzclose(f) == Z_OK, path);
}

static td_tensor *tensor(td_dtype d, int ndim, const size_t *shape) {
  td_tensor *t = td_tensor_zeros(d, ndim, shape);
  require(t != NULL, "tensor");
  for (size_t i = 0; i < t->numel * td_dtype_size(d); i++) t->data[i] = (char)(i * 7 % 63);
  return t;
}

/* A .npy by hand, of any description. */
static void write_npy(const char *name, int major, const char *descr, const char *order,
                      const char *shape, size_t bytes) {
  char file[512] = "\x93NUMPY";
  size_t start = major == 1 ? 10 : 12;
  size_t length = (size_t)snprintf(file + start, sizeof file - start,
                                   "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n", descr,
                                   order, shape);
  file[6] = (char)major;
  file[8] = (char)length;
  memset(file + start + length, 5, bytes);
  write_bytes(seed("npy", name), file, start + length + bytes);
}

static void npy(void) {
  td_tensor *t = tensor(TD_F32, 2, (size_t[]){2, 3});
  require(!td_npy_write(seed("npy", "float32"), t), "npy");
  td_tensor_release(t);
  write_npy("big-endian", 1, ">i2", "False", "(3,)", 6);
  write_npy("fortran", 2, "<f8", "True", "(2, 2)", 32);
  write_npy("half", 3, "<f2", "True", "(1, 2, 1)", 4);
  write_npy("scalar", 1, "|b1", "False", "()", 1);
  write_npy("unsigned", 1, "<u8", "False", "(1,)", 8);
}

static void safetensors(void) {
  td_tensor *a = tensor(TD_F32, 2, (size_t[]){2, 2}), *b = tensor(TD_U8, 1, (size_t[]){3});
  td_named_tensor named[] = {{"layer.weight", a}, {"b\xc3\xa9\n", b}};
  td_text_pair pair[] = {{"format", "tide"}, {"note", "\"quoted\""}};
  require(!td_safetensors_write(seed("safetensors", "two"), 2, named, 2, pair), "safetensors");
  require(!td_safetensors_write(seed("safetensors", "empty"), 0, NULL, 0, NULL), "safetensors");
  td_tensor_release(a);
  td_tensor_release(b);
  static const char *const dtype[] = {"F16", "BF16", "I8", "U16", "I32", "U64", "BOOL", "F64"};
  static const int size[] = {2, 2, 1, 2, 4, 8, 1, 8};
  for (int i = 0; i < 8; i++) {
    char file[256] = {0};
    file[8 + snprintf(file + 8, sizeof file - 8,
                      "{\"\\u00e9\\ud83d\\ude00\":{\"data_offsets\":[0,%d],\"shape\":[1],"
                      "\"dtype\":\"%s\"}}",
                      size[i], dtype[i])] = 1;
    size_t n = strlen(file + 8) - 1;
    file[0] = (char)n;
    write_bytes(seed("safetensors", dtype[i]), file, 8 + n + (size_t)size[i]);
  }
}

static void idx(void) {
  static const unsigned char type[] = {0x08, 0x09, 0x0b, 0x0c, 0x0d, 0x0e},
                             size[] = {1, 1, 2, 4, 4, 8};
  for (int i = 0; i < 6; i++) {
    unsigned char file[64] = {0, 0, type[i], 2, 0, 0, 0, 2, 0, 0, 0, 1};
    char name[16];
    memset(file + 12, i + 1, 16);
    snprintf(name, sizeof name, "type-%02x", type[i]);
    write_bytes(seed("idx", name), file, 12 + 2u * size[i]);
    snprintf(name, sizeof name, "type-%02x.gz", type[i]);
    write_gzip(seed("idx", name), file, 12 + 2u * size[i]);
  }
}

/* A PNG of 9×9 pixels of one colour type and depth, written by libpng's own way. */
static void write_png(int color, int depth, int interlace) {
  char name[64];
  snprintf(name, sizeof name, "color%d-depth%d-interlace%d", color, depth, interlace);
  FILE *f = fopen(seed("png", name), "wb");
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
  png_infop info = png_create_info_struct(png);
  png_byte rows[9][80], *row[9];
  memset(rows, 0x15, sizeof rows);
  for (int i = 0; i < 9; i++) row[i] = rows[i];
  png_init_io(png, f);
  png_set_IHDR(png, info, 9, 9, depth, color, interlace, 0, 0);
  if (color == PNG_COLOR_TYPE_PALETTE) {
    png_set_PLTE(png, info, (png_color[]){{1, 2, 3}, {250, 0, 9}}, 2);
    png_set_tRNS(png, info, (png_byte[]){7}, 1, NULL);
  }
  png_set_rows(png, info, row);
  png_write_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
  png_destroy_write_struct(&png, &info);
  require(fclose(f) == 0, name);
}

static void png(void) {
  static const int kind[][2] = {{0, 1},  {0, 4}, {0, 8},  {0, 16}, {2, 8},
                                {2, 16}, {4, 8}, {4, 16}, {6, 8},  {6, 16}};
  for (int i = 0; i < 10; i++) write_png(kind[i][0], kind[i][1], i & 1);
  td_tensor *t = tensor(TD_U8, 3, (size_t[]){3, 2, 4});
  require(!td_png_write(seed("png", "rgba"), t), "png");
  td_tensor_release(t);
}

static void cifar(void) {
  static unsigned char file[3074];
  file[0] = 9;
  write_bytes(seed("cifar", "ten"), file, 3073);
  write_bytes(seed("cifar", "hundred"), file, 3074);
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: seeds DIR\n"), 2;
  root = argv[1];
  mkdir(root, 0777);
  npy();
  safetensors();
  idx();
  png();
  cifar();
  return 0;
}
