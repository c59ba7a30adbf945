/* Reading and writing PNG by libpng.
 * libpng leaves by longjmp when something is wrong. It does so only inside read_image and
 * write_image, whose locals are not looked at afterwards: what must be freed is in the caller's
 * struct. */
#include "io/png.h"
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include "io/file.h"
#include "io/source.h"

enum { SIDE_MAX = 1000000, PIXELS_MAX = 1 << 28 };

typedef struct {
  const char *name;
  png_structp png;
  png_infop info;
  const unsigned char *data;    /* reading: what is left */
  size_t left;
  td_writer *writer;            /* writing */
  td_tensor *image;
  td_status status;             /* of a failure that has its message already */
  char reason[96];              /* libpng's message */
} png_job;

static void on_error(png_structp png, png_const_charp message) {
  png_job *job = png_get_error_ptr(png);
  snprintf(job->reason, sizeof job->reason, "%s", message);
  png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
  (void)png;
  (void)message;
}

/* ---- Reading --------------------------------------------------------------------------------- */

static void take_bytes(png_structp png, png_bytep dst, size_t n) {
  png_job *job = png_get_io_ptr(png);
  if (n > job->left) png_error(png, "it is cut off");
  memcpy(dst, job->data, n);
  job->data += n;
  job->left -= n;
}

/* Checks the size that the header claims before memory is taken for it: deflate bounds what the
 * rest of the file can become. */
static td_status check_size(const png_job *job) {
  png_structp png = job->png;
  size_t w = png_get_image_width(png, job->info), h = png_get_image_height(png, job->info);
  size_t depth = png_get_bit_depth(png, job->info), c = png_get_channels(png, job->info);
  if (w * h > PIXELS_MAX)
    return td_fail(TD_EIO, "%s: expected an image of at most %d pixels, found %zu×%zu", job->name,
                   PIXELS_MAX, h, w);
  if (w * h * c * depth / 8 > td_deflate_bound(job->left))
    return td_fail(TD_EIO, "%s: expected an image of %zu×%zu pixels, found only %zu bytes for it",
                   job->name, h, w, job->left);
  return TD_OK;
}

/* Has everything become 8 bits of grey, grey + alpha, RGB or RGB + alpha. */
static void ask_for_bytes(png_structp png, png_infop info) {
  int color = png_get_color_type(png, info), depth = png_get_bit_depth(png, info);
  if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (color == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
  if (png_get_valid(png, info, PNG_INFO_tRNS)) png_set_tRNS_to_alpha(png);
  if (depth == 16) png_set_scale_16(png);
}

/* Decodes into job->image; false when libpng gave up, or with job->status set. */
static bool read_image(png_job *job) {
  png_structp png = job->png;
  if (setjmp(png_jmpbuf(png))) return false;
  png_set_read_fn(png, job, take_bytes);
  png_set_user_limits(png, SIDE_MAX, SIDE_MAX);
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
  png_set_crc_action(png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
#else
  png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
#endif
  png_read_info(png, job->info);
  size_t w = png_get_image_width(png, job->info), h = png_get_image_height(png, job->info);
  if ((job->status = check_size(job))) return false;
  ask_for_bytes(png, job->info);
  int passes = png_set_interlace_handling(png);
  png_read_update_info(png, job->info);
  size_t c = png_get_channels(png, job->info);
  if (png_get_rowbytes(png, job->info) != w * c) png_error(png, "its rows are not of bytes");
  job->image = td_tensor_new(TD_U8, 3, (size_t[]){h, w, c});
  if (!job->image) {
    job->status = td_last_status();
    return false;
  }
  for (int pass = 0; pass < passes; pass++)
    for (size_t y = 0; y < h; y++) png_read_row(png, (png_bytep)job->image->data + y * w * c, NULL);
  png_read_end(png, NULL);
  return true;
}

td_status td_png_from_memory(const void *bytes, size_t n, const char *name, td_tensor **image) {
  *image = NULL;
  png_job job = {.name = name, .data = bytes, .left = n};
  if (n < 8 || png_sig_cmp(bytes, 0, 8) != 0)
    return td_fail(TD_EIO, "%s: not a PNG file: expected it to begin with 89 'PNG'", name);
  job.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning);
  if (job.png) job.info = png_create_info_struct(job.png);
  if (!job.info) {
    png_destroy_read_struct(&job.png, NULL, NULL);
    return td_fail(TD_ENOMEM, "%s: libpng could not start", name);
  }
  bool done = read_image(&job);
  png_destroy_read_struct(&job.png, &job.info, NULL);
  if (done) {
    *image = job.image;
    return TD_OK;
  }
  td_tensor_release(job.image);
  return job.status ? job.status
                    : td_fail(TD_EIO, "%s: not a readable PNG image: %s", name, job.reason);
}

td_status td_png_read(const char *path, td_tensor **image) {
  *image = NULL;
  td_tensor *bytes;
  td_status status = td_file_read(path, &bytes);
  if (!status) status = td_png_from_memory(bytes->data, bytes->numel, path, image);
  td_tensor_release(bytes);
  return status;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static void give_bytes(png_structp png, png_bytep data, size_t n) {
  png_job *job = png_get_io_ptr(png);
  if (td_writer_put(job->writer, data, n)) png_error(png, "it cannot be written");
}

static void flush_nothing(png_structp png) {
  (void)png;
}

static bool write_image(png_job *job) {
  static const int color[5] = {0, PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA,
                               PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_RGB_ALPHA};
  png_structp png = job->png;
  const td_tensor *t = job->image;
  size_t c = t->ndim == 3 ? t->shape[2] : 1, row = t->shape[1] * c;
  if (setjmp(png_jmpbuf(png))) return false;
  png_set_write_fn(png, job, give_bytes, flush_nothing);
  png_set_user_limits(png, SIDE_MAX, SIDE_MAX);
  png_set_IHDR(png, job->info, (png_uint_32)t->shape[1], (png_uint_32)t->shape[0], 8, color[c],
               PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, job->info);
  for (size_t y = 0; y < t->shape[0]; y++) png_write_row(png, (png_const_bytep)t->data + y * row);
  png_write_end(png, job->info);
  return true;
}

static td_status check_image(const char *path, const td_tensor *t) {
  if (t->dtype != TD_U8 && !td_dtype_is_real(t->dtype))
    return td_fail(TD_EDTYPE, "%s: expected an image of uint8, or of floats from 0 to 1, got %s",
                   path, td_dtype_name(t->dtype));
  bool ok = t->ndim == 2 || (t->ndim == 3 && t->shape[2] >= 1 && t->shape[2] <= 4);
  for (int i = 0; ok && i < 2; i++) ok = t->shape[i] >= 1 && t->shape[i] <= SIDE_MAX;
  if (!ok)
    return td_fail(TD_ESHAPE,
                   "%s: expected an image of height×width or height×width×(1 to 4), each "
                   "side 1 to %d, got %s",
                   path, SIDE_MAX, td_tensor_shape_string(t));
  return TD_OK;
}

/* The image as contiguous bytes: floats are clipped to 0 … 1 and rounded to 0 … 255, NaN is 0. */
static td_tensor *to_bytes(td_tensor *image) {
  td_tensor *from = td_tensor_contiguous(image);
  if (!from || from->dtype == TD_U8) return from;
  td_tensor *to = td_tensor_new(TD_U8, from->ndim, from->shape);
  for (size_t i = 0; to && i < to->numel; i++) {
    double v = td_tensor_get(from, i);
    to->data[i] = (char)(unsigned char)(!(v > 0) ? 0 : v < 1 ? v * 255 + 0.5 : 255);
  }
  td_tensor_release(from);
  return to;
}

static td_status encode(png_job *job) {
  job->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, job, on_error, on_warning);
  if (job->png) job->info = png_create_info_struct(job->png);
  bool done = job->info && write_image(job);
  png_destroy_write_struct(&job->png, &job->info);
  if (done) return TD_OK;
  return job->writer->status ? job->writer->status
                             : td_fail(TD_EIO, "%s: cannot be written: %s", job->name, job->reason);
}

td_status td_png_write(const char *path, td_tensor *image) {
  td_status status = check_image(path, image);
  if (status) return status;
  td_writer w;
  png_job job = {.name = path, .writer = &w, .reason = "libpng could not start"};
  if (!(job.image = to_bytes(image))) return td_last_status();
  status = td_writer_open(&w, path);
  if (!status) status = td_writer_close(&w, encode(&job));
  td_tensor_release(job.image);
  return status;
}
