/* What the convolution and product kernels reach of this processor's peak, as medians, with
 * everything measured in the same run so that ratios hold however the clock moves. `make bench`
 * runs it; by itself, from the root:
 *
 *   make build/bench-kernels && env -u OPENBLAS_CORETYPE build/bench-kernels
 *
 * It calls the kernels that td_k chooses, so TIDE_ISA=avx2 measures others. Arguments name the
 * parts to run: peak conv matmul tiny norm; all of them without. With the argument `cpu` everything runs
 * on one thread and counts processor time, which is worth something on a busy machine too. GF is
 * 1e9 floating point operations a second, a fused multiply-add being two; in convolutions products
 * with padding count. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/cpu.h"
#include "base/error.h"
#include "base/threads.h"
#include "kernels/blas.h"
#include "kernels/kernels.h"
#include "kernels/precision.h"

enum { SAMPLES = 9 };

static bool busy;    /* count processor time */

static double now(void) {
  struct timespec t;
  clock_gettime(busy ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

typedef void (*work)(void *ctx);

/* Median seconds of one call: samples of at least 20 ms. */
static double median(work f, void *ctx) {
  double sample[SAMPLES];
  size_t calls = 1;
  f(ctx);
  for (;; calls *= 2) {
    double t = now();
    for (size_t i = 0; i < calls; i++) f(ctx);
    if (now() - t > 0.02) break;
  }
  for (int s = 0; s < SAMPLES; s++) {
    double t = now();
    for (size_t i = 0; i < calls; i++) f(ctx);
    sample[s] = (now() - t) / (double)calls;
  }
  qsort(sample, SAMPLES, sizeof *sample, ascending);
  return sample[SAMPLES / 2];
}

/* ---- Peak ------------------------------------------------------------------------------------ */

enum { STEPS = 20000, CHAINS = 12 };
static volatile float sink;

/* Independent chains of multiply-adds in registers: as many as hide the latency of two units. An
 * item is STEPS rounds. */
#define PEAK(name, bytes, isa)                                                                   \
  typedef float vec_##name __attribute__((vector_size(bytes)));                                  \
  __attribute__((target(isa), optimize("O3", "fp-contract=fast")))                               \
  static void peak_##name(void *ctx, size_t begin, size_t end) {                                 \
    vec_##name sum[CHAINS], a = {0}, b = {0};                                                    \
    (void)ctx;                                                                                   \
    a += 0.999f;                                                                                 \
    b += 1e-3f;                                                                                  \
    _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++) sum[i] = b * (float)i;             \
    for (size_t s = begin * STEPS; s < end * STEPS; s++) {                                       \
      _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++) sum[i] = sum[i] * a + b;         \
    }                                                                                            \
    _Pragma("GCC unroll 16") for (int i = 1; i < CHAINS; i++) sum[0] += sum[i];                  \
    sink = sum[0][0];                                                                            \
  }                                                                                              \
  static const double flops_##name = 2.0 * STEPS * CHAINS * (bytes) / 4;

#if defined(__x86_64__)
PEAK(avx2, 32, "avx2,fma")
PEAK(avx512, 64, "avx512f")
#endif
PEAK(base, 16, "sse2")

typedef struct {
  td_task f;
  size_t threads;
} peak;

static void run_peak(void *ctx) {
  peak *p = ctx;
  td_parallel(p->threads, 1, p->f, NULL);
}

/* The peak of an instruction set in float, with `threads` threads, in operations a second. */
static double measure_peak(td_isa isa, int threads) {
  static const struct {
    td_task f;
    const double *flops;
  } one[] = {
    {peak_base, &flops_base},
#if defined(__x86_64__)
    {peak_avx2, &flops_avx2},
    {peak_avx512, &flops_avx512},
#endif
  };
  peak p = {one[isa].f, (size_t)threads};
  td_threads_set(threads);
  return *one[isa].flops * threads / median(run_peak, &p);
}

/* ---- Convolution ----------------------------------------------------------------------------- */

typedef struct {
  const char *name;
  td_conv g;
} conv_case;

#define SQUARE(N, S, C, O, K, STRIDE, PAD, GROUPS)                                               \
  {.n = N,                                                                                       \
   .h = S,                                                                                       \
   .w = S,                                                                                       \
   .c = C,                                                                                       \
   .kh = K,                                                                                      \
   .kw = K,                                                                                      \
   .o = O,                                                                                       \
   .oh = (S + 2 * PAD - K) / STRIDE + 1,                                                         \
   .ow = (S + 2 * PAD - K) / STRIDE + 1,                                                         \
   .stride = {STRIDE, STRIDE},                                                                   \
   .pad = {PAD, PAD},                                                                            \
   .dilation = {1, 1},                                                                           \
   .groups = GROUPS}

static const conv_case conv_cases[] = {
  {"3x3 64>64 28x28 B64", SQUARE(64, 28, 64, 64, 3, 1, 1, 1)},
  {"3x3 128>128 16x16 B32", SQUARE(32, 16, 128, 128, 3, 1, 1, 1)},
  {"3x3 16>16 28x28 B64", SQUARE(64, 28, 16, 16, 3, 1, 1, 1)},
  {"3x3 32>32 14x14 B128", SQUARE(128, 14, 32, 32, 3, 1, 1, 1)},
  {"3x3 320>320 64x64 B1", SQUARE(1, 64, 320, 320, 3, 1, 1, 1)},
  {"3x3 512>512 7x7 B32", SQUARE(32, 7, 512, 512, 3, 1, 1, 1)},
  {"3x3 1>64 28x28 B64", SQUARE(64, 28, 1, 64, 3, 1, 1, 1)},
  {"3x3 3>64 32x32 B64", SQUARE(64, 32, 3, 64, 3, 1, 1, 1)},
  {"7x7/2 3>64 64x64 B16", SQUARE(16, 64, 3, 64, 7, 2, 3, 1)},
  {"3x3 64>3 32x32 B64", SQUARE(64, 32, 64, 3, 3, 1, 1, 1)},
  {"1x1 64>256 28x28 B32", SQUARE(32, 28, 64, 256, 1, 1, 0, 1)},
  {"1x1 256>64 14x14 B32", SQUARE(32, 14, 256, 64, 1, 1, 0, 1)},
  {"3x3/2 64>128 28x28 B32", SQUARE(32, 28, 64, 128, 3, 2, 1, 1)},
  {"4x4/2 64>64 32x32 B32", SQUARE(32, 32, 64, 64, 4, 2, 1, 1)},
  {"1x1/2 64>128 28x28 B32", SQUARE(32, 28, 64, 128, 1, 2, 0, 1)},
  {"3x3 64>64 g4 28x28 B32", SQUARE(32, 28, 64, 64, 3, 1, 1, 4)},
  {"3x3 depthwise 64 28x28 B32", SQUARE(32, 28, 64, 64, 3, 1, 1, 64)},
};

typedef struct {
  const td_conv *g;
  const td_kernels *k;
  float *x, *y, *w;
  float *bias, *chan, *add;
} conv_run;

static void forward(void *ctx) {
  conv_run *r = ctx;
  r->k->conv2d(r->y, r->x, r->w, NULL, r->g, NULL);
}

static void input_grad(void *ctx) {
  conv_run *r = ctx;
  r->k->conv2d_input_grad(r->x, r->y, r->w, r->g, NULL);
}

static void weight_grad(void *ctx) {
  conv_run *r = ctx;
  r->k->conv2d_weight_grad(r->w, r->x, r->y, r->g);
}

/* The forward pass with everything that an epilogue may hold. */
static void fused(void *ctx) {
  conv_run *r = ctx;
  td_epilogue e = {r->bias, r->chan, r->add, TD_ACT_SILU};
  r->k->conv2d(r->y, r->x, r->w, &e, r->g, NULL);
}

static float *filled(size_t n) {
  float *p = aligned_alloc(64, (n * sizeof *p + 63) / 64 * 64 + 64);
  if (!p) exit(1);
  for (size_t i = 0; i < n; i++) p[i] = (float)(i * 2654435761u % 1000) / 1e6f;
  return p;
}

/* Whether Winograd's filtering may be taken: then both ways are measured. */
static bool has_ways(const td_conv *g) {
  return g->kh == 3 && g->stride[0] == 1 && g->groups == 1 && g->c >= 16 && g->o >= 16;
}

static void bench_case(const conv_case *c, td_precision precision, int threads, double top) {
  const td_conv *g = &c->g;
  conv_run r = {g, td_k(TD_F32), filled(g->n * g->h * g->w * g->c),
                filled(g->n * g->oh * g->ow * g->o),
                filled(g->kh * g->kw * g->c / g->groups * g->o), filled(g->o),
                filled(g->n * g->o), filled(g->n * g->oh * g->ow * g->o)};
  double flops =
      2.0 * (double)(g->n * g->oh * g->ow * g->o * g->kh * g->kw) * (double)(g->c / g->groups);
  td_threads_set(threads);
  td_k_precision = precision;
  double f = flops / median(forward, &r), e = flops / median(fused, &r),
         x = flops / median(input_grad, &r), w = flops / median(weight_grad, &r);
  td_k_precision = TD_FAST;
  printf("%-28s %-6s %d  %6.1f (%3.0f%%) %6.1f (%3.0f%%) %6.1f (%3.0f%%) %6.1f (%3.0f%%)\n", c->name,
         precision == TD_STRICT ? "strict" : "fast", threads, f / 1e9, 100 * f / top, e / 1e9,
         100 * e / top, x / 1e9, 100 * x / top, w / 1e9, 100 * w / top);
  free(r.x), free(r.y), free(r.w), free(r.bias), free(r.chan), free(r.add);
}

static void bench_conv(const double top[3]) {
  printf("\n%-28s %s\n", "convolution, GF (% of peak)",
         "way    T  forward       with epilogue input grad    weight grad");
  for (size_t i = 0; i < sizeof conv_cases / sizeof *conv_cases; i++)
    for (int t = 1; t <= (busy ? 1 : 2); t++) {
      if (has_ways(&conv_cases[i].g)) bench_case(&conv_cases[i], TD_STRICT, t, top[t]);
      bench_case(&conv_cases[i], TD_FAST, t, top[t]);
    }
}

/* ---- Products -------------------------------------------------------------------------------- */

/* ta, tb: whether a and b are stored transposed */
typedef struct {
  size_t m, n, k;
  bool ta, tb;
} mat_shape;

typedef struct {
  mat_shape s;
  const td_kernels *kernels;
  float *a, *b, *c;
} mat_run;

static void matmul(void *ctx) {
  mat_run *r = ctx;
  mat_shape s = r->s;
  r->kernels->matmul(r->c, r->a, r->b, s.m, s.n, s.k, s.ta ? s.m : s.k, s.tb ? s.k : s.n, s.n, s.ta,
                     s.tb, 1, 0, 0, 0, 1, 0);
}

static void blas(void *ctx) {
  mat_run *r = ctx;
  mat_shape s = r->s;
  cblas_sgemm(CblasRowMajor, s.ta ? CblasTrans : CblasNoTrans, s.tb ? CblasTrans : CblasNoTrans,
              (int)s.m, (int)s.n, (int)s.k, 1, r->a, (int)(s.ta ? s.m : s.k), r->b,
              (int)(s.tb ? s.k : s.n), 0, r->c, (int)s.n);
}

static void bench_shape(mat_shape s, const double top[3]) {
  double flops = 2.0 * (double)s.m * (double)s.n * (double)s.k;
  mat_run r = {s, td_k(TD_F32), filled(s.m * s.k), filled(s.k * s.n), filled(s.m * s.n)};
  char name[100];
  snprintf(name, sizeof name, "%zux%zux%zu %c%c", s.m, s.n, s.k, s.ta ? 'T' : 'N',
           s.tb ? 'T' : 'N');
  for (int t = 1; t <= (busy ? 1 : 2); t++) {
    td_threads_set(t);
    double own = flops / median(matmul, &r);
    openblas_set_num_threads(t);
    double other = flops / median(blas, &r);
    openblas_set_num_threads(1);
    printf("%-23s %d  %8.2f (%3.0f%%) %14.2f (%3.0f%%) %12.2f\n", name, t, own / 1e9,
           100 * own / top[t], other / 1e9, 100 * other / top[t], own / other);
  }
  free(r.a), free(r.b), free(r.c);
}

static void bench_shapes(const mat_shape *s, size_t count, const double top[3]) {
  printf("\n%-24s %s\n", "product m×n×k",
         "T   tide GF (% of peak)   OpenBLAS' own threads   ratio");
  for (size_t i = 0; i < count; i++) bench_shape(s[i], top);
}

static void bench_matmul(const double top[3]) {
  static const mat_shape shapes[] = {
      {256, 256, 256, 0, 0},    {512, 512, 512, 0, 0},    {512, 512, 512, 1, 0},
      {512, 512, 512, 0, 1},    {768, 768, 768, 0, 0},    {1024, 1024, 1024, 0, 0},
      {1024, 1024, 1024, 1, 0}, {1024, 1024, 1024, 0, 1}, {2048, 2048, 2048, 0, 0},
      {128, 784, 784, 0, 0},    {128, 512, 784, 0, 1},    {784, 512, 128, 1, 0},
      {64, 1024, 576, 0, 0},    {4096, 64, 64, 0, 0},     {4096, 64, 64, 0, 1},
      {64, 64, 4096, 1, 0},     {8192, 128, 1152, 0, 0},  {16, 784, 144, 0, 0},
      {1, 1024, 1024, 0, 0},    {1, 1024, 1024, 0, 1},    {1024, 1, 1024, 0, 0},
      {1024, 1, 1024, 1, 0},    {4, 4096, 1024, 0, 1},    {100000, 2, 50, 0, 0},
  };
  bench_shapes(shapes, sizeof shapes / sizeof *shapes, top);
}

static void bench_tiny(const double top[3]) {
  static const mat_shape shapes[] = {
      {1, 50, 2, 0, 0},    {1, 2, 50, 0, 0},   {20, 50, 2, 0, 0},    {20, 2, 50, 0, 0},
      {20, 50, 2, 0, 1},   {20, 2, 50, 0, 1},  {2, 50, 20, 1, 0},    {50, 2, 20, 1, 0},
      {4, 4, 4, 0, 0},     {8, 8, 8, 0, 0},    {16, 16, 16, 0, 0},   {16, 16, 16, 0, 1},
      {32, 32, 32, 0, 0},  {32, 32, 32, 0, 1}, {32, 32, 32, 1, 0},   {48, 48, 48, 0, 0},
      {48, 48, 48, 0, 1},  {50, 32, 50, 0, 0}, {64, 64, 64, 0, 0},   {64, 64, 64, 0, 1},
      {64, 64, 64, 1, 0},  {96, 96, 96, 0, 0}, {96, 96, 96, 0, 1},   {128, 128, 128, 0, 0},
      {128, 64, 64, 0, 0}, {33, 17, 65, 0, 0}, {128, 10, 128, 0, 0}, {128, 10, 128, 0, 1},
  };
  bench_shapes(shapes, sizeof shapes / sizeof *shapes, top);
}

/* ---- Normalisations beside plain passes over the same memory ------------------------------------- */

typedef float vec32 __attribute__((vector_size(32), aligned(4), may_alias));

typedef struct {
  const td_kernels *k;
  size_t n, p, c, groups;
  td_act act;
  float *x, *y, *dy, *mean, *rstd, *gamma, *beta, *dgamma, *dbeta;
} norm_run;

/* The least that any such operation does: y = x for the forward pass, dx = x + dy for the gradient. */
#if defined(__x86_64__)
__attribute__((target("avx2")))
#endif
static void pass_piece(float *y, const float *x, const float *dy, size_t n) {
  for (size_t i = 0; i + 8 <= n; i += 8) {
    vec32 v = *(const vec32 *)(x + i);
    if (dy) v += *(const vec32 *)(dy + i);
    *(vec32 *)(y + i) = v;
  }
}
static void copy_task(void *ctx, size_t begin, size_t end) {
  norm_run *r = ctx;
  size_t image = r->p * r->c;
  pass_piece(r->y + begin * image, r->x + begin * image, NULL, (end - begin) * image);
}
static void add_task(void *ctx, size_t begin, size_t end) {
  norm_run *r = ctx;
  size_t image = r->p * r->c;
  pass_piece(r->y + begin * image, r->x + begin * image, r->dy + begin * image, (end - begin) * image);
}
static void copy_pass(void *ctx) { td_parallel(((norm_run *)ctx)->n, 1, copy_task, ctx); }
static void add_pass(void *ctx) { td_parallel(((norm_run *)ctx)->n, 1, add_task, ctx); }
static void norm_forward(void *ctx) {
  norm_run *r = ctx;
  r->k->group_norm(r->y, r->mean, r->rstd, r->x, r->gamma, r->beta, NULL, r->n, r->p, r->c, r->groups, 1e-5, r->act);
}
static void norm_backward(void *ctx) {
  norm_run *r = ctx;
  r->k->group_norm_grad(r->y, r->dgamma, r->dbeta, r->dy, r->x, r->mean, r->rstd, r->gamma, r->beta, r->n, r->p, r->c,
                        r->groups, r->act);
}

static const struct {
  const char *name;
  size_t n, p, c, groups;
} norm_cases[] = {
  {"GN8 7x7x32, 4 images (L2)", 4, 49, 32, 8},    {"GN8 28x28x64, 1 image (L2)", 1, 784, 64, 8},
  {"GN8 28x28x64 B64 (DRAM)", 64, 784, 64, 8},    {"GN32 16x16x128 B64 (L3)", 64, 256, 128, 32},
  {"GN32 32x32x320 B16 (DRAM)", 16, 1024, 320, 32}, {"LN 64, 1024 rows (L2)", 1024, 1, 64, 1},
  {"LN 320, 256 rows (L2)", 256, 1, 320, 1},      {"LN 512, 32768 rows (DRAM)", 32768, 1, 512, 1},
};

/* Nanoseconds for an element, and the time of a plain pass over the same arrays divided by it. */
static void bench_norm(void) {
  static const struct {
    const char *name;
    td_act act;
  } acts[] = {{"none", TD_ACT_NONE}, {"relu", TD_ACT_RELU}, {"silu", TD_ACT_SILU}};
  printf("\n%-28s T  act   copy  forward  ratio    add   gradient  ratio (ns an element)\n", "normalisation");
  for (size_t i = 0; i < sizeof norm_cases / sizeof *norm_cases; i++) {
    size_t n = norm_cases[i].n, p = norm_cases[i].p, c = norm_cases[i].c, g = norm_cases[i].groups, all = n * p * c;
    norm_run r = {td_k(TD_F32), n, p, c, g, TD_ACT_NONE, filled(all), filled(all), filled(all), filled(n * g),
                  filled(n * g), filled(c), filled(c), filled(c), filled(c)};
    for (int t = 1; t <= (busy ? 1 : 2); t++)
      for (size_t a = 0; a < sizeof acts / sizeof *acts; a++) {
        td_threads_set(t);
        r.act = acts[a].act;
        double scale = 1e9 / (double)all, copy = scale * median(copy_pass, &r), add = scale * median(add_pass, &r);
        double f = scale * median(norm_forward, &r), b = scale * median(norm_backward, &r);
        printf("%-28s %d  %s  %.3f  %.3f    %3.0f %%   %.3f  %.3f     %3.0f %%\n", norm_cases[i].name, t, acts[a].name,
               copy, f, 100 * copy / f, add, b, 100 * add / b);
      }
    free(r.x), free(r.y), free(r.dy), free(r.mean), free(r.rstd), free(r.gamma), free(r.beta), free(r.dgamma);
    free(r.dbeta);
  }
}

/* Whether a part is named, or none is. */
static bool wanted(int argc, char **argv, const char *part) {
  bool any = false;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], part)) return true;
    any |= strcmp(argv[i], "cpu") != 0;
  }
  return !any;
}

int main(int argc, char **argv) {
  if (td_blas_init() != TD_OK) {
    fprintf(stderr, "%s\n", td_last_message());
    return 1;
  }
  for (int i = 1; i < argc; i++) busy |= !strcmp(argv[i], "cpu");
  td_isa isa = td_cpu_isa();
  double top[3] = {0, measure_peak(isa, 1), busy ? 0 : measure_peak(isa, 2)};
  printf("%s, peak %.1f GF with 1 thread, %.1f with 2\n", td_isa_name(isa), top[1] / 1e9,
         top[2] / 1e9);
  for (int i = 0; wanted(argc, argv, "peak") && i < (int)isa; i++)
    printf("%s, peak %.1f GF with 1 thread, %.1f with 2\n", td_isa_name((td_isa)i),
           measure_peak((td_isa)i, 1) / 1e9, busy ? 0 : measure_peak((td_isa)i, 2) / 1e9);
  if (wanted(argc, argv, "conv")) bench_conv(top);
  if (wanted(argc, argv, "matmul")) bench_matmul(top);
  if (wanted(argc, argv, "tiny")) bench_tiny(top);
  if (wanted(argc, argv, "norm")) bench_norm();
  return 0;
}
