/* Patterns, orders, groups, and factors of a band. */
#include "solve/band.h"
#include <math.h>
#include <string.h>
#include "base/alloc.h"

/* ---- Orders ---- */

/* Neighbours of every unknown in the symmetric pattern: those of its row and of its column. */
typedef struct {
  size_t *start, *list, *queue;
  bool *seen;
  void *block;
  size_t bytes;
} graph;

static td_status graph_make(graph *g, const td_pattern *p) {
  size_t n = p->n;
  g->bytes = (n + 1 + 2 * p->count + n) * sizeof(size_t) + n + 1;
  size_t *at = g->block = td_alloc(g->bytes);
  if (!at) return td_last_status();
  memset(at, 0, g->bytes);
  g->start = at;
  g->list = at + n + 1;
  g->queue = g->list + 2 * p->count;
  g->seen = (bool *)(g->queue + n);
  for (size_t i = 0; i < n; i++)
    for (size_t k = p->start[i]; k < p->start[i + 1]; k++) g->start[i]++, g->start[p->column[k]]++;
  for (size_t i = 0, sum = 0; i <= n; i++) {
    size_t own = g->start[i];
    g->start[i] = sum;
    sum += i < n ? own : 0;
  }
  for (size_t i = 0; i < n; i++)
    for (size_t k = p->start[i]; k < p->start[i + 1]; k++) {
      size_t j = p->column[k];
      g->list[g->start[i] + g->queue[i]++] = j;
      g->list[g->start[j] + g->queue[j]++] = i;
    }
  return TD_OK;
}

static size_t degree(const graph *g, size_t i) { return g->start[i + 1] - g->start[i]; }

/* Breadth first from `root`, neighbours of low degree first; gives how many were reached, in queue. */
static size_t search(graph *g, size_t root, size_t from) {
  size_t to = from;
  g->queue[to++] = root;
  g->seen[root] = true;
  for (size_t at = from; at < to; at++) {
    size_t first = to, i = g->queue[at];
    for (size_t k = g->start[i]; k < g->start[i + 1]; k++) {
      size_t j = g->list[k];
      if (g->seen[j]) continue;
      g->seen[j] = true;
      size_t put = to++;
      for (; put > first && degree(g, g->queue[put - 1]) > degree(g, j); put--) g->queue[put] = g->queue[put - 1];
      g->queue[put] = j;
    }
  }
  return to;
}

/* A far end of root's component: the last one reached, twice. */
static size_t far_end(graph *g, size_t root, size_t from) {
  for (int again = 0; again < 2; again++) {
    size_t to = search(g, root, from);
    for (size_t k = from; k < to; k++) g->seen[g->queue[k]] = false;
    root = g->queue[to - 1];
  }
  return root;
}

static void measure(const td_pattern *p, const size_t *place, size_t *lower, size_t *upper) {
  *lower = *upper = 0;
  for (size_t i = 0; i < p->n; i++)
    for (size_t k = p->start[i]; k < p->start[i + 1]; k++) {
      size_t a = place[i], b = place[p->column[k]];
      if (a > b && a - b > *lower) *lower = a - b;
      if (b > a && b - a > *upper) *upper = b - a;
    }
}

/* Reverse Cuthill–McKee, unless the order as it is has a narrower band. */
static td_status choose_order(td_pattern *p) {
  graph g;
  td_status status = graph_make(&g, p);
  if (status) return status;
  size_t reached = 0, lower, upper;
  for (size_t i = 0; i < p->n; i++)
    if (!g.seen[i]) reached = search(&g, far_end(&g, i, reached), reached);
  for (size_t i = 0; i < p->n; i++) p->place[i] = i;
  measure(p, p->place, &p->lower, &p->upper);
  size_t *other = g.start;  /* no longer needed */
  for (size_t k = 0; k < p->n; k++) other[g.queue[k]] = p->n - 1 - k;
  measure(p, other, &lower, &upper);
  if (2 * lower + upper < 2 * p->lower + p->upper) {
    memcpy(p->place, other, p->n * sizeof *other);
    p->lower = lower;
    p->upper = upper;
  }
  td_free(g.block, g.bytes);
  return TD_OK;
}

/* ---- Groups ---- */

/* Each row joins the first group that has none of its columns. */
static td_status choose_groups(td_pattern *p) {
  size_t n = p->n, bytes = (n + 1) * sizeof(size_t);
  size_t *last = td_alloc(bytes);  /* of a column: one more than the round that took it last */
  if (!last) return td_last_status();
  memset(last, 0, bytes);
  for (size_t i = 0; i < n; i++) p->group[i] = SIZE_MAX;
  for (size_t done = 0; done < n; p->groups++)
    for (size_t i = 0; i < n; i++) {
      bool fits = p->group[i] == SIZE_MAX;
      for (size_t k = p->start[i]; fits && k < p->start[i + 1]; k++) fits = last[p->column[k]] != p->groups + 1;
      if (!fits) continue;
      for (size_t k = p->start[i]; k < p->start[i + 1]; k++) last[p->column[k]] = p->groups + 1;
      p->group[i] = p->groups;
      done++;
    }
  td_free(last, bytes);
  return TD_OK;
}

/* ---- A pattern ---- */

td_pattern *td_pattern_new(size_t n, const double *start, const double *column) {
  td_pattern *p = td_alloc(sizeof *p);
  if (!p) return NULL;
  *p = (td_pattern){.n = n, .count = (size_t)start[n]};
  p->block_bytes = (3 * n + 1 + p->count + 1) * sizeof(size_t);
  size_t *at = p->block = td_alloc(p->block_bytes);
  td_status status = at ? TD_OK : td_last_status();
  if (!status) {
    p->start = at, p->place = at + n + 1, p->group = p->place + n, p->column = p->group + n;
    for (size_t i = 0; i <= n; i++) p->start[i] = (size_t)start[i];
    for (size_t k = 0; k < p->count && !status; k++) {
      p->column[k] = (size_t)column[k];
      if (p->column[k] >= n) status = td_fail(TD_EARG, "ode.solve: jac_sparsity has no column %zu", p->column[k] + 1);
    }
  }
  if (!status) status = choose_order(p);
  if (!status) status = choose_groups(p);
  if (!status) return p;
  td_pattern_free(p);
  return NULL;
}

void td_pattern_free(td_pattern *p) {
  if (!p) return;
  td_free(p->block, p->block ? p->block_bytes : 0);
  td_free(p, sizeof *p);
}

/* ---- Factors ---- */

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

bool td_band_factor(const td_pattern *p, double *band, size_t *pivot) {
  size_t n = p->n, l = p->lower, reach = p->lower + p->upper;
  for (size_t k = 0; k < n; k++) {
    size_t last = least(n - 1, k + l), end = least(n - 1, k + reach), best = k;
    for (size_t i = k + 1; i <= last; i++)
      if (fabs(band[td_band_at(p, i, k)]) > fabs(band[td_band_at(p, best, k)])) best = i;
    pivot[k] = best;
    for (size_t j = k; best != k && j <= end; j++) {
      double *a = &band[td_band_at(p, k, j)], *b = &band[td_band_at(p, best, j)], c = *a;
      *a = *b;
      *b = c;
    }
    double diagonal = band[td_band_at(p, k, k)];
    if (!isfinite(diagonal) || diagonal == 0) return false;
    const double *row = &band[td_band_at(p, k, k)];
    for (size_t i = k + 1; i <= last; i++) {
      double *to = &band[td_band_at(p, i, k)], factor = *to /= diagonal;
      for (size_t j = 1; factor != 0 && j <= end - k; j++) to[j] -= factor * row[j];
    }
  }
  return true;
}

static void exchange(double *x, size_t a, size_t b) {
  double c = x[a];
  x[a] = x[b];
  x[b] = c;
}

void td_band_solve(const td_pattern *p, const double *band, const size_t *pivot, bool transposed, double *x,
                   double *room) {
  size_t n = p->n, l = p->lower, reach = p->lower + p->upper;
  for (size_t i = 0; i < n; i++) room[p->place[i]] = x[i];
  for (size_t k = 0; k < n && !transposed; k++) {
    exchange(room, k, pivot[k]);
    for (size_t i = k + 1; i <= least(n - 1, k + l); i++) room[i] -= band[td_band_at(p, i, k)] * room[k];
  }
  for (size_t k = n; k-- > 0 && !transposed;) {
    for (size_t j = k + 1; j <= least(n - 1, k + reach); j++) room[k] -= band[td_band_at(p, k, j)] * room[j];
    room[k] /= band[td_band_at(p, k, k)];
  }
  for (size_t k = 0; k < n && transposed; k++) {
    room[k] /= band[td_band_at(p, k, k)];
    for (size_t j = k + 1; j <= least(n - 1, k + reach); j++) room[j] -= band[td_band_at(p, k, j)] * room[k];
  }
  for (size_t k = n; k-- > 0 && transposed;) {
    for (size_t i = k + 1; i <= least(n - 1, k + l); i++) room[k] -= band[td_band_at(p, i, k)] * room[i];
    exchange(room, k, pivot[k]);
  }
  for (size_t i = 0; i < n; i++) x[i] = room[p->place[i]];
}
