/* Normalisation of short contiguous rows (layer norm, and group norm of a single pixel), with an
 * activation and a sum behind it, and the gradient. A row is c/groups elements; it stays in the
 * first-level cache while it is read for its mean, its variance and the result. */
#include "kernels/isa.h"
#include "kernels/real_norm.h"

enum { FLUSH_ROWS = 32 /* rows whose sums are kept in the element type */ };

/* A row of n elements and the parameters of its channels. */
typedef struct {
  size_t n;
  real *y;
  const real *x, *dy, *gamma, *beta, *add;
  real *dgamma, *dbeta; /* sums so far, or NULL */
} line;

static inline double lane_sum(vreal v) { return (double)td_fold_lanes(TD_FOLD_SUM, v); }

/* Σ (x - m) and Σ (x - m)² over a row; the sums of TD_BLOCK elements are joined in double. */
static void row_sums(const real *x, size_t n, real m, double *sum, double *squares) {
  *sum = *squares = 0;
  vreal shift = td_splat(m);
  for (size_t from = 0; from < n; from += TD_BLOCK) {
    size_t i = from, end = from + td_min_size(n - from, TD_BLOCK);
    vreal s[4] = {{0}}, q[4] = {{0}};
    for (; i + 4 * TD_LANES <= end; i += 4 * TD_LANES) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; k++) {
        vreal d = td_load(x + i + k * TD_LANES) - shift;
        s[k] += d;
        q[k] += d * d;
      }
    }
    for (; i + TD_LANES <= end; i += TD_LANES) {
      vreal d = td_load(x + i) - shift;
      s[0] += d;
      q[0] += d * d;
    }
    if (i < end) {
      vreal d = td_load_part(x + i, end - i) - shift;
      for (int k = 0; k < TD_LANES; k++)
        if ((size_t)k >= end - i) d[k] = 0;
      s[1] += d;
      q[1] += d * d;
    }
    *sum += lane_sum((s[0] + s[1]) + (s[2] + s[3]));
    *squares += lane_sum((q[0] + q[1]) + (q[2] + q[3]));
  }
}

/* ---- Forward ------------------------------------------------------------------------------- */

TD_INLINE void forward_vector(const td_act act, const bool adds, size_t part, const line *l,
                              size_t i, vreal m, vreal rest, vreal r) {
  vreal d = (td_get(l->x + i, part) - m) - rest;
  vreal u = td_vact(act, d * (r * td_get(l->gamma + i, part)) + td_get(l->beta + i, part));
  if (adds) u += td_get(l->add + i, part);
  td_put(l->y + i, u, part);
}

TD_INLINE void forward_line(const td_act act, const bool adds, const line *l, real mean, real less,
                            real rstd) {
  size_t i = 0;
  vreal m = td_splat(mean), rest = td_splat(less), r = td_splat(rstd);
  for (; i + TD_LANES <= l->n; i += TD_LANES) forward_vector(act, adds, 0, l, i, m, rest, r);
  if (i < l->n) forward_vector(act, adds, l->n - i, l, i, m, rest, r);
}

typedef void (*forward_fn)(const line *l, real mean, real less, real rstd);
#define FORWARD(A)                                                                \
  static void forward_##A(const line *l, real mean, real less, real rstd) {       \
    forward_line(TD_ACT_##A, false, l, mean, less, rstd);                         \
  }                                                                               \
  static void forward_add_##A(const line *l, real mean, real less, real rstd) {   \
    forward_line(TD_ACT_##A, true, l, mean, less, rstd);                          \
  }
TD_ACT_EACH(FORWARD)
#define ENTRY(A) [TD_ACT_##A] = {forward_##A, forward_add_##A},
static const forward_fn forwards[TD_ACT_COUNT][2] = {TD_ACT_EACH(ENTRY)};
#undef ENTRY

static void forward_row(const td_norm *t, size_t row, const line *l) {
  double sum, squares, count = (double)l->n;
  real guess = (real)((double)td_fold_row(TD_FOLD_SUM, l->x, l->n) / count);
  row_sums(l->x, l->n, guess, &sum, &squares);
  double off = sum / count, mean = (double)guess + off, var = squares / count - off * off;
  if (var < 0) var = 0;
  real m = (real)mean, r = (real)(1 / sqrt(var + t->eps));
  t->mean[row] = m;
  t->rstd[row] = r;
  if (t->var) t->var[row] = (real)var;
  forwards[t->act][t->add != NULL](l, m, (real)(mean - (double)m), r);
}

/* ---- Gradient: see real_norm.c for the formulas -------------------------------------------- */

/* Adds Σ gamma·g and Σ gamma·g·(x - m) for a vector; a costly g is left in dx. */
TD_INLINE void product_vector(const td_act act, size_t part, const line *l, size_t i, vreal m,
                              vreal r, vreal *a, vreal *b) {
  vreal e = td_get(l->x + i, part) - m, gamma = td_get(l->gamma + i, part);
  vreal g = td_get(l->dy + i, part);
  if (act != TD_ACT_NONE) g = td_vact_grad(act, e * (r * gamma) + td_get(l->beta + i, part), g);
  if (td_norm_keeps(act)) td_put(l->y + i, g, part);
  g *= gamma;
  *a += g;
  *b += g * e;
}

TD_INLINE void product_line(const td_act act, const line *l, real mean, real rstd, double *sa,
                            double *sb) {
  *sa = *sb = 0;
  vreal m = td_splat(mean), r = td_splat(rstd);
  for (size_t from = 0; from < l->n; from += TD_BLOCK) {
    size_t i = from, end = from + td_min_size(l->n - from, TD_BLOCK);
    vreal a[2] = {{0}}, b[2] = {{0}};
    for (; i + 2 * TD_LANES <= end; i += 2 * TD_LANES) {
      product_vector(act, 0, l, i, m, r, &a[0], &b[0]);
      product_vector(act, 0, l, i + TD_LANES, m, r, &a[1], &b[1]);
    }
    for (; i + TD_LANES <= end; i += TD_LANES) product_vector(act, 0, l, i, m, r, &a[0], &b[0]);
    if (i < end) product_vector(act, end - i, l, i, m, r, &a[1], &b[1]);
    *sa += lane_sum(a[0] + a[1]);
    *sb += lane_sum(b[0] + b[1]);
  }
}

/* The coefficients of dx = rstd·(gamma·g + (k2·(x - mean) + k3)). */
typedef struct {
  vreal m, r, k2, k3;
} row_coef;

TD_INLINE void backward_vector(const td_act act, const bool parameters, size_t part, const line *l,
                               size_t i, const row_coef *k) {
  vreal e = td_get(l->x + i, part) - k->m, gamma = td_get(l->gamma + i, part), g;
  if (td_norm_keeps(act)) g = td_get(l->y + i, part);
  else g = td_get(l->dy + i, part);
  if (act == TD_ACT_RELU)
    g = td_vact_grad(act, e * (k->r * gamma) + td_get(l->beta + i, part), g);
  td_put(l->y + i, k->r * (gamma * g + (k->k2 * e + k->k3)), part);
  if (!parameters) return;
  td_put(l->dgamma + i, td_get(l->dgamma + i, part) + g * (e * k->r), part);
  td_put(l->dbeta + i, td_get(l->dbeta + i, part) + g, part);
}

TD_INLINE void backward_line(const td_act act, const line *l, real mean, real rstd) {
  double sa, sb, r = (double)rstd, count = (double)l->n;
  product_line(act, l, mean, rstd, &sa, &sb);
  row_coef k = {td_splat(mean), td_splat(rstd), td_splat((real)(-r * r * sb / count)),
                td_splat((real)(-sa / count))};
  size_t i = 0;
  if (l->dgamma) {
    for (; i + TD_LANES <= l->n; i += TD_LANES) backward_vector(act, true, 0, l, i, &k);
    if (i < l->n) backward_vector(act, true, l->n - i, l, i, &k);
  } else {
    for (; i + TD_LANES <= l->n; i += TD_LANES) backward_vector(act, false, 0, l, i, &k);
    if (i < l->n) backward_vector(act, false, l->n - i, l, i, &k);
  }
}

typedef void (*backward_fn)(const line *l, real mean, real rstd);
#define BACKWARD(A)                                                    \
  static void backward_##A(const line *l, real mean, real rstd) {      \
    backward_line(TD_ACT_##A, l, mean, rstd);                          \
  }
TD_ACT_EACH(BACKWARD)
#define ENTRY(A) [TD_ACT_##A] = backward_##A,
static const backward_fn backwards[TD_ACT_COUNT] = {TD_ACT_EACH(ENTRY)};
#undef ENTRY

static void flush(double *restrict part, real *restrict sums, size_t n) {
  for (size_t j = 0; j < n; j++) {
    part[j] += (double)sums[j];
    sums[j] = 0;
  }
}

/* ---- Sharing out --------------------------------------------------------------------------- */

/* The images of a part; sums: dgamma and dbeta in the element type, added to the part's now and
 * then. */
static void run_part(const td_norm *t, size_t part, real *sums) {
  size_t c = t->c, cg = c / t->groups, first = part * t->per_part;
  size_t last = td_min_size(first + t->per_part, t->n);
  bool parameters = t->dgamma || t->dbeta;
  for (size_t image = first; image < last; image++) {
    for (size_t g = 0; g < t->groups; g++) {
      size_t j = g * cg, row = image * t->groups + g, at = row * cg;
      line l = {.n = cg, .y = t->y + at, .x = t->x + at, .gamma = t->gamma + j, .beta = t->beta + j};
      if (!t->gradient) {
        if (t->add) l.add = t->add + at;
        forward_row(t, row, &l);
        continue;
      }
      l.dy = t->dy + at;
      if (parameters) l.dgamma = sums + j, l.dbeta = sums + c + j;
      backwards[t->act](&l, t->mean[row], t->rstd[row]);
    }
    if (parameters && ((image - first + 1) % FLUSH_ROWS == 0 || image + 1 == last))
      flush(t->part + part * 2 * c, sums, 2 * c);
  }
}

static void run_parts(void *ctx, size_t begin, size_t end) {
  const td_norm *t = ctx;
  for (size_t part = begin; part < end; part++) run_part(t, part, t->coef + part * 2 * t->c);
}

/* Work space: the parts' sums, and ones and zeros where gamma or beta is missing. */
static bool make_room(td_norm *t) {
  size_t sums = t->gradient ? t->parts * 2 * t->c : 0, reals = sums + 2 * t->c;
  t->part = td_scratch(sums * sizeof(double) + reals * sizeof(real));
  if (!t->part) return false;
  t->coef = (real *)(t->part + sums);
  real *ones = t->coef + sums, *zeros = ones + t->c;
  memset(t->part, 0, sums * sizeof(double) + reals * sizeof(real));
  for (size_t j = 0; j < t->c; j++) ones[j] = 1;
  if (!t->gamma) t->gamma = ones;
  if (!t->beta) t->beta = zeros;
  return true;
}

bool TD_K(norm_rows)(td_norm *t) {
  if (!make_room(t)) return false;
  td_parallel(t->parts, td_grain(t->per_part * t->c), run_parts, t);
  return true;
}
