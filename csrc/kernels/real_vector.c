/* Kernels over plain vectors: what integrators and optimisers do to whole states, each in one pass
 * over memory. */
#include "kernels/isa.h"
#include "kernels/vmath.h"

enum {
  CHUNK = 4096, /* elements that a thread takes at a time: fixed, so that rounding never depends on
                   the threads */
  PIECES = 64,  /* partial results of a reduction: fixed for the same reason */
  ROW = 256     /* elements reduced at a time; a piece is a whole number of rows */
};

static inline size_t chunks_of(size_t n) { return (n + CHUNK - 1) / CHUNK; }
static inline size_t chunk_end(size_t chunk, size_t n) {
  return (chunk + 1) * CHUNK < n ? (chunk + 1) * CHUNK : n;
}
static inline vreal load_some(const real *p, size_t r) {
  return r == TD_LANES ? td_load(p) : td_load_part(p, r);
}
static inline void store_some(real *p, vreal v, size_t r) {
  if (r == TD_LANES)
    td_store(p, v);
  else
    td_store_part(p, v, r);
}

/* ---- Linear combinations -------------------------------------------------------------------- */

typedef struct {
  real *y;
  const real *base;
  size_t count, n;
  const double *coef;
  const void *const *x;
} lincomb;

/* y[i..i+r) for one vector of r elements. A coefficient of 0 leaves its x out, whatever it holds.
 */
static inline void lincomb_some(const lincomb *l, size_t i, size_t r) {
  vreal acc = l->base ? load_some(l->base + i, r) : (vreal){0};
  for (size_t j = 0; j < l->count; j++)
    if (l->coef[j] != 0) acc += load_some((const real *)l->x[j] + i, r) * (real)l->coef[j];
  store_some(l->y + i, acc, r);
}

static void lincomb_chunks(void *ctx, size_t begin, size_t end) {
  const lincomb *l = ctx;
  size_t i = begin * CHUNK, n = chunk_end(end - 1, l->n);
  for (; i + 4 * TD_LANES <= n; i += 4 * TD_LANES) {
    vreal a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0};
    if (l->base) {
      const real *b = l->base + i;
      a0 = td_load(b);
      a1 = td_load(b + TD_LANES);
      a2 = td_load(b + 2 * TD_LANES);
      a3 = td_load(b + 3 * TD_LANES);
    }
    for (size_t j = 0; j < l->count; j++) {
      if (l->coef[j] == 0) continue;
      const real *x = (const real *)l->x[j] + i;
      real c = (real)l->coef[j];
      a0 += td_load(x) * c;
      a1 += td_load(x + TD_LANES) * c;
      a2 += td_load(x + 2 * TD_LANES) * c;
      a3 += td_load(x + 3 * TD_LANES) * c;
    }
    real *y = l->y + i;
    td_store(y, a0);
    td_store(y + TD_LANES, a1);
    td_store(y + 2 * TD_LANES, a2);
    td_store(y + 3 * TD_LANES, a3);
  }
  for (; i + TD_LANES <= n; i += TD_LANES) lincomb_some(l, i, TD_LANES);
  if (i < n) lincomb_some(l, i, n - i);
}

void TD_K(lincomb)(void *y, const void *base, size_t count, const double *coef,
                   const void *const *x, size_t n) {
  if (n == 0) return;
  lincomb l = {y, base, count, n, coef, x};
  if (n <= CHUNK)
    lincomb_chunks(&l, 0, 1);
  else
    td_parallel(chunks_of(n), 4, lincomb_chunks, &l);
}

/* ---- Reductions in fixed pieces ------------------------------------------------------------- */

/* Elements in each piece of n: as few pieces as PIECES allow, of whole rows. */
static inline size_t piece_size(size_t n) {
  size_t rows = (n + ROW - 1) / ROW, each = (rows + PIECES - 1) / PIECES;
  return (each < 8 ? 8 : each) * ROW;
}

/* Sums in eight lanes on every instruction set. */
typedef double v8d __attribute__((vector_size(64)));
typedef real v8r __attribute__((vector_size(8 * sizeof(real)), aligned(sizeof(real)), may_alias));
static inline v8d widen(const real *p) { return __builtin_convertvector(*(const v8r *)p, v8d); }
static inline double sum_lanes(v8d v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

typedef struct {
  size_t count, n, piece;
  const double *coef;
  const void *const *k;
  const real *y0, *y1;
  real rtol, atol;
  double sum[PIECES];
  real worst[PIECES]; /* NaN counts as the greatest */
  size_t worst_at[PIECES];
} error_sum;

/* |error| / scale of the r elements from i on, as one vector. */
static inline vreal error_some(const error_sum *e, size_t i, size_t r) {
  vreal acc = {0};
  for (size_t j = 0; j < e->count; j++)
    if (e->coef[j] != 0) acc += load_some((const real *)e->k[j] + i, r) * (real)e->coef[j];
  vreal a = td_vabs(load_some(e->y0 + i, r)), b = td_vabs(load_some(e->y1 + i, r));
  vreal scale = td_vselect((a > b) | (a != a), a, b) * e->rtol + e->atol;
  return td_vabs(acc) / scale;
}

static inline bool greater(real a, real b) { return a > b || (a != a && b == b); }

/* One row: its terms squared and summed; worst is kept up to date. */
static double error_row(error_sum *e, size_t piece, size_t from, size_t n) {
  _Alignas(64) real term[ROW];
  vreal top = td_splat(-1);
  size_t i = 0;
  for (; i + TD_LANES <= n; i += TD_LANES) {
    vreal t = error_some(e, from + i, TD_LANES);
    td_store(term + i, t);
    top = td_vselect((t > top) | (t != t), t, top);
  }
  if (i < n) {
    size_t r = n - i;
    vreal t = error_some(e, from + i, r);
    for (size_t j = r; j < TD_LANES; j++) t[j] = 0; /* no elements: 0/atol, or 0/0 */
    td_store(term + i, t);
    top = td_vselect((t > top) | (t != t), t, top);
    i += TD_LANES;
  }
  for (; i % 8; i++) term[i] = 0;
  v8d sum = {0};
  for (size_t j = 0; j < i; j += 8) {
    v8d t = widen(term + j);
    sum += t * t;
  }
  real row_top = top[0];
  for (int j = 1; j < TD_LANES; j++)
    if (greater(top[j], row_top)) row_top = top[j];
  if (greater(row_top, e->worst[piece])) {
    size_t at = 0;
    while (at + 1 < n && greater(row_top, term[at])) at++;
    e->worst[piece] = row_top;
    e->worst_at[piece] = from + at;
  }
  return sum_lanes(sum);
}

static void error_pieces(void *ctx, size_t begin, size_t end) {
  error_sum *e = ctx;
  for (size_t p = begin; p < end; p++) {
    size_t stop = (p + 1) * e->piece < e->n ? (p + 1) * e->piece : e->n;
    double sum = 0;
    e->worst[p] = -1;
    for (size_t i = p * e->piece; i < stop; i += ROW)
      sum += error_row(e, p, i, stop - i < ROW ? stop - i : ROW);
    e->sum[p] = sum;
  }
}

double TD_K(error_sum)(size_t count, const double *coef, const void *const *k, const void *y0,
                       const void *y1, double rtol, double atol, size_t n, size_t *worst) {
  if (worst) *worst = 0;
  if (n == 0) return 0;
  error_sum e;
  e.count = count;
  e.n = n;
  e.piece = piece_size(n);
  e.coef = coef;
  e.k = k;
  e.y0 = y0;
  e.y1 = y1;
  e.rtol = (real)rtol;
  e.atol = (real)atol;
  size_t pieces = (n + e.piece - 1) / e.piece;
  td_parallel(pieces, 2, error_pieces, &e);
  double sum = 0;
  size_t top = 0;
  for (size_t p = 0; p < pieces; p++) {
    sum += e.sum[p];
    if (greater(e.worst[p], e.worst[top])) top = p;
  }
  if (worst) *worst = e.worst_at[top];
  return sum;
}

/* ---- Optimisers ----------------------------------------------------------------------------- */

typedef struct {
  real *p, *m, *v;
  const real *g;
  size_t n;
  real beta1, beta2, eps, keep, decay, rate, root;
} adam;

/* Kingma and Ba 2015 (algorithm 1), with AdamW's decay (Loshchilov and Hutter 2019) folded into
 * `keep`. */
static inline void adam_some(const adam *a, size_t i, size_t r) {
  vreal p = load_some(a->p + i, r), m = load_some(a->m + i, r), v = load_some(a->v + i, r);
  vreal g = load_some(a->g + i, r) + p * a->decay;
  m = m * a->beta1 + g * (1 - a->beta1);
  v = v * a->beta2 + g * g * (1 - a->beta2);
  p = p * a->keep - m * a->rate / (td_vsqrt(v) * a->root + a->eps);
  store_some(a->p + i, p, r);
  store_some(a->m + i, m, r);
  store_some(a->v + i, v, r);
}

static void adam_chunks(void *ctx, size_t begin, size_t end) {
  const adam *a = ctx;
  size_t i = begin * CHUNK, n = chunk_end(end - 1, a->n);
  for (; i + TD_LANES <= n; i += TD_LANES) adam_some(a, i, TD_LANES);
  if (i < n) adam_some(a, i, n - i);
}

void TD_K(adam_step)(void *p, void *m, void *v, const void *g, size_t n, double lr, double beta1,
                     double beta2, double eps, double decay, bool decoupled, uint64_t step) {
  if (n == 0) return;
  double t = (double)step;
  adam a = {p,
            m,
            v,
            g,
            n,
            (real)beta1,
            (real)beta2,
            (real)eps,
            (real)(decoupled ? 1 - lr * decay : 1),
            (real)(decoupled ? 0 : decay),
            (real)(lr / (1 - pow(beta1, t))),
            (real)(1 / sqrt(1 - pow(beta2, t)))};
  td_parallel(chunks_of(n), 4, adam_chunks, &a);
}

typedef struct {
  real *p, *velocity;
  const real *g;
  size_t n;
  real lr, momentum, kept, fresh,
      decay; /* kept, fresh: of the old velocity and of the gradient in the new one */
  bool nesterov;
} sgd;

static inline void sgd_some(const sgd *s, size_t i, size_t r) {
  vreal p = load_some(s->p + i, r), g = load_some(s->g + i, r) + p * s->decay;
  if (s->velocity) {
    vreal v = g * s->fresh;
    if (s->kept != 0) v += load_some(s->velocity + i, r) * s->kept;
    store_some(s->velocity + i, v, r);
    g = s->nesterov ? g + v * s->momentum : v;
  }
  store_some(s->p + i, p - g * s->lr, r);
}

static void sgd_chunks(void *ctx, size_t begin, size_t end) {
  const sgd *s = ctx;
  size_t i = begin * CHUNK, n = chunk_end(end - 1, s->n);
  for (; i + TD_LANES <= n; i += TD_LANES) sgd_some(s, i, TD_LANES);
  if (i < n) sgd_some(s, i, n - i);
}

/* Without momentum the velocity is neither read nor written and may be NULL. */
void TD_K(sgd_step)(void *p, void *velocity, const void *g, size_t n, double lr, double momentum,
                    double dampening, double decay, bool nesterov, bool first) {
  if (n == 0) return;
  sgd s = {p,
           momentum != 0 ? velocity : NULL,
           g,
           n,
           (real)lr,
           (real)momentum,
           (real)(first ? 0 : momentum),
           (real)(first ? 1 : 1 - dampening),
           (real)decay,
           nesterov};
  td_parallel(chunks_of(n), 4, sgd_chunks, &s);
}

/* ---- Statistics ----------------------------------------------------------------------------- */

typedef struct {
  const real *x;
  size_t n, piece;
  double mean; /* second pass: squares of distances from it are summed */
  bool second;
  double sum[PIECES];
  real least[PIECES], greatest[PIECES];
  size_t nans[PIECES], infs[PIECES];
} statistics;

static void statistics_piece(statistics *s, size_t p) {
  size_t begin = p * s->piece, end = begin + s->piece < s->n ? begin + s->piece : s->n, nans = 0,
         infs = 0;
  real lo = TD_INF, hi = -TD_INF;
  double row = 0, sum = 0;
  for (size_t i = begin; i < end; i++) {
    real x = s->x[i];
    bool nan = x != x, inf = x == TD_INF || x == -TD_INF;
    nans += nan;
    infs += inf;
    bool finite = !nan && !inf;
    lo = finite && x < lo ? x : lo;
    hi = finite && x > hi ? x : hi;
    row += finite ? (double)x : 0;
    if ((i + 1 - begin) % ROW == 0) {
      sum += row;
      row = 0;
    }
  }
  s->sum[p] = sum + row;
  s->least[p] = lo;
  s->greatest[p] = hi;
  s->nans[p] = nans;
  s->infs[p] = infs;
}

static void square_piece(statistics *s, size_t p) {
  size_t begin = p * s->piece, end = begin + s->piece < s->n ? begin + s->piece : s->n;
  double row = 0, sum = 0;
  for (size_t i = begin; i < end; i++) {
    double d = (double)s->x[i] - s->mean;
    row += isfinite(s->x[i]) ? d * d : 0;
    if ((i + 1 - begin) % ROW == 0) {
      sum += row;
      row = 0;
    }
  }
  s->sum[p] = sum + row;
}

static void statistics_pieces(void *ctx, size_t begin, size_t end) {
  statistics *s = ctx;
  for (size_t p = begin; p < end; p++) s->second ? square_piece(s, p) : statistics_piece(s, p);
}

/* out: least, greatest, mean and standard deviation (divided by the count) of the finite elements;
 * NaN if there are none. */
void TD_K(statistics)(const void *x, size_t n, double out[4], size_t *nans, size_t *infs) {
  statistics s = {.x = x, .n = n, .piece = piece_size(n)};
  size_t pieces = (n + s.piece - 1) / s.piece;
  td_parallel(pieces, 2, statistics_pieces, &s);
  double sum = 0, squares = 0;
  real lo = TD_INF, hi = -TD_INF;
  *nans = *infs = 0;
  for (size_t p = 0; p < pieces; p++) {
    sum += s.sum[p];
    lo = s.least[p] < lo ? s.least[p] : lo;
    hi = s.greatest[p] > hi ? s.greatest[p] : hi;
    *nans += s.nans[p];
    *infs += s.infs[p];
  }
  size_t finite = n - *nans - *infs;
  for (int i = 0; i < 4; i++) out[i] = NAN;
  if (finite == 0) return;
  s.mean = sum / (double)finite;
  s.second = true;
  td_parallel(pieces, 2, statistics_pieces, &s);
  for (size_t p = 0; p < pieces; p++) squares += s.sum[p];
  out[0] = (double)lo;
  out[1] = (double)hi;
  out[2] = s.mean;
  out[3] = sqrt(squares / (double)finite);
}
