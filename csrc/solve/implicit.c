/* Jacobians, their factorisations, and derivatives of f for implicit families. */
#include "solve/implicit.h"
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "graph/tape.h"
#include "ops/ops.h"
#include "solve/dense.h"
#include "solve/integrate.h"

/* ---- Memory ---- */

static char *cut(char **from, size_t bytes) {
  char *here = *from;
  *from += (bytes + 63) & ~(size_t)63;
  return here;
}

enum { DIRECTIONS = 40, CYCLES = 12 };  /* of GMRES: kept at a time, and how often it starts anew */

td_status td_implicit_make(td_implicit *m, td_stepper *s, size_t vectors, size_t more, td_implicit_need need) {
  /* A reverse pass needs the whole matrix; and what was found with less has to be iterated to rounding. */
  bool shared = need == TD_NEEDS_SOLUTIONS && s->o->blocks > 1 && !s->o->exact;
  size_t n = s->n, d = sizeof(double), side = shared ? n / s->o->blocks : n;
  const td_pattern *pattern = s->o->pattern && s->o->pattern->n == side ? s->o->pattern : NULL;
  bool banded = pattern && need != TD_NEEDS_MATRIX, whole = banded && s->f->jacobian && !s->f->entries;
  bool dense = !banded && (need != TD_NEEDS_SOLUTIONS || side <= TD_DENSE_MOST || s->o->mass);
  if (!dense && !banded) side = n;
  size_t matrix = banded ? side * td_band_width(pattern) + (whole ? side * side : 0) : 2 * side * side;
  size_t values = pattern ? pattern->count : 0, squares = values + (dense || banded ? matrix : (DIRECTIONS + 3) * n);
  *m = (td_implicit){.n = n, .side = side, .pattern = pattern, .banded = banded,
                     .exact = s->o->exact || s->o->blocks > 1};
  if ((dense || whole) && side > 8000)
    return td_fail(TD_EARG,
                   "%s: method \"%s\" factors a dense %zu×%zu Jacobian, too large; use kvaerno4, bdf or an explicit "
                   "method, or give jac_sparsity",
                   s->f->who, s->method->name, n, n);
  m->block_bytes = (4 * n + squares + vectors * n + more) * d + n * sizeof *m->pivot + 3 * s->bytes + 18 * 64;
  char *p = m->block = td_alloc(m->block_bytes);
  if (!p) return td_last_status();
  memset(p, 0, m->block_bytes);
  m->y = (double *)cut(&p, n * d);
  m->scale = (double *)cut(&p, n * d);
  if (values) m->values = (double *)cut(&p, values * d);
  if (whole) m->whole = (double *)cut(&p, side * side * d);
  if (dense) m->jacobian = (double *)cut(&p, side * side * d);
  if (dense || banded) m->lu = (double *)cut(&p, side * (banded ? td_band_width(pattern) : side) * d);
  else {
    m->at = (double *)cut(&p, n * d);
    m->basis = (double *)cut(&p, (DIRECTIONS + 1) * n * d);
    m->room = (double *)cut(&p, n * d);
  }
  m->pivot = (size_t *)cut(&p, n * sizeof *m->pivot);
  m->state = cut(&p, s->bytes);
  m->slope = cut(&p, s->bytes);
  m->unit = cut(&p, s->bytes);
  m->fresh = (double *)cut(&p, n * d);
  if (s->o->mass) m->product = (double *)cut(&p, n * d);
  m->vector = (double *)p;
  return TD_OK;
}

void td_implicit_free(td_implicit *m) {
  td_free(m->block, m->block ? m->block_bytes : 0);
  m->block = NULL;
}

void td_implicit_widen(const td_stepper *s, const void *x, double *out) {
  if (s->f->dtype == TD_F64) memcpy(out, x, s->n * sizeof *out);
  else
    for (size_t i = 0; i < s->n; i++) out[i] = ((const float *)x)[i];
}

void td_implicit_narrow(const td_stepper *s, const double *x, void *out) {
  if (s->f->dtype == TD_F64) memcpy(out, x, s->n * sizeof *x);
  else
    for (size_t i = 0; i < s->n; i++) ((float *)out)[i] = (float)x[i];
}

void td_implicit_scale(td_implicit *m, const td_stepper *s, const double *a, const double *b) {
  const td_ode_options *o = s->o;
  for (size_t i = 0; i < m->n; i++)
    m->scale[i] =
        (o->atols ? o->atols[i] : o->atol) + (o->rtols ? o->rtols[i] : o->rtol) * fmax(fabs(a[i]), fabs(b[i]));
}

void td_implicit_load(td_implicit *m, td_stepper *s) {
  td_implicit_widen(s, s->y, m->y);
  td_implicit_scale(m, s, m->y, m->y);
}

/* ---- f on the tape ---- */

/* One evaluation on the tape; y and t are leaves, all automatic. */
typedef struct {
  td_tensor *y, *t, *dy;
} taped;

static td_status tape_begin(taped *g, td_stepper *s, const void *y, double t, bool by_time) {
  *g = (taped){.y = td_auto(td_tensor_new(s->f->dtype, s->f->ndim, s->f->shape)),
               .t = td_auto(td_tensor_number(TD_F64, t, false))};
  if (!g->y || !g->t) return td_last_status();
  if (s->bytes) memcpy(g->y->data, y, s->bytes);
  td_status status = td_requires_grad(g->y, true);
  if (!status && by_time) status = td_requires_grad(g->t, true);
  bool was = td_recording;
  td_recording = true;
  if (!status) status = td_field_record(s->f, g->t, g->y, &g->dy);
  td_recording = was;
  if (!status) td_auto(g->dy);
  return status;
}

/* Values of a tensor of the state's shape as doubles; NULL is zero. */
static void widen_tensor(td_tensor *x, double *out, size_t n) {
  td_tensor *flat = x ? td_tensor_contiguous(x) : NULL;
  for (size_t i = 0; i < n; i++) out[i] = flat ? td_tensor_get(flat, i) : 0;
  td_tensor_release(flat);
}

static void copy_out(const td_stepper *s, td_tensor *x, void *out) {
  td_tensor *flat = td_tensor_contiguous(x);
  if (flat && s->bytes) memcpy(out, flat->data, s->bytes);
  td_tensor_release(flat);
}

/* ---- f and its first derivatives ---- */

td_status td_implicit_eval(td_implicit *m, td_stepper *s, double t, const double *y, double *dy) {
  if (s->f->dtype == TD_F64) return td_stepper_eval(s, t, y, dy);
  td_implicit_narrow(s, y, m->state);
  td_status status = td_stepper_eval(s, t, m->state, m->slope);
  if (!status) td_implicit_widen(s, m->slope, dy);
  return status;
}

/* Column j is J e_j. */
static td_status by_columns(td_implicit *m, td_stepper *s, double t, double *jacobian, double *ft) {
  size_t n = m->side, size = td_dtype_size(s->f->dtype);
  char *unit = m->unit;
  td_tensor view = {.dtype = s->f->dtype, .data = unit}, out = {.dtype = s->f->dtype, .data = m->slope};
  memset(unit, 0, m->n * size);
  td_status status = TD_OK;
  for (size_t j = 0; j < n && !status; j++) {
    td_tensor_set(&view, j, 1);
    status = td_field_jvp(s->f, t, m->state, unit, 0, m->slope);
    td_tensor_set(&view, j, 0);
    for (size_t i = 0; i < n && !status; i++) jacobian[i * n + j] = td_tensor_get(&out, i);
  }
  if (!status && ft) {
    status = td_field_jvp(s->f, t, m->state, unit, 1, m->slope);
    if (!status) td_implicit_widen(s, m->slope, ft);
  }
  return status;
}

/* Row i is the reverse pass of e_i over one recorded evaluation, which gives ∂f_i/∂t too. m->slope receives f. */
static td_status by_tape(td_implicit *m, td_stepper *s, double t, double *jacobian, double *ft) {
  size_t n = m->side, mark = td_auto_mark();
  taped g;
  td_status status = tape_begin(&g, s, m->state, t, ft != NULL);
  td_tensor *w = td_auto(td_tensor_zeros(s->f->dtype, s->f->ndim, s->f->shape));
  if (!status && !w) status = td_last_status();
  if (!status) copy_out(s, g.dy, m->slope);
  for (size_t i = 0; i < n && !status; i++) {
    td_tensor *in[2] = {g.y, g.t}, *grad[2] = {NULL, NULL};
    td_tensor_set(w, i, 1);
    if (g.dy->node) status = td_backward(&g.dy, &w, 1, in, 1 + (ft != NULL), grad, TD_STOP_AT_INPUTS | TD_RETAIN_GRAPH);
    td_tensor_set(w, i, 0);
    if (!status) widen_tensor(grad[0], jacobian + i * n, n);
    if (!status && ft) ft[i] = grad[1] ? td_tensor_get(grad[1], 0) : 0;
    td_tensor_release(grad[0]);
    td_tensor_release(grad[1]);
  }
  td_auto_release(mark);
  return status;
}

/* uᵀ∂f/∂y into m->slope, u in m->unit: by the field's own products. */
static td_status row_of(td_implicit *m, td_stepper *s, double t, double *tbar) {
  return s->f->rows_by_pull ? s->f->pull(s->f, 0, m->unit, m->slope, tbar, NULL)
                            : td_field_vjp(s->f, t, m->state, m->unit, m->slope, tbar, NULL);
}

/* Rows by the field's own products. Where they are pulled from one evaluation, m->slope receives f first. */
static td_status by_rows(td_implicit *m, td_stepper *s, double t, double *jacobian, double *ft, double *dy) {
  td_tensor view = {.dtype = s->f->dtype, .data = m->unit};
  memset(m->unit, 0, s->bytes);
  td_status status = s->f->rows_by_pull ? s->f->keep(s->f, 0, t, m->state, m->slope) : TD_OK;
  if (!status && dy && s->f->rows_by_pull) td_implicit_widen(s, m->slope, dy);
  td_tensor row = {.dtype = s->f->dtype, .data = m->slope};
  for (size_t i = 0; i < m->side && !status; i++) {
    double tbar = 0;
    td_tensor_set(&view, i, 1);
    status = row_of(m, s, t, ft ? &tbar : NULL);
    td_tensor_set(&view, i, 0);
    for (size_t j = 0; j < m->side && !status; j++) jacobian[i * m->side + j] = td_tensor_get(&row, j);
    if (ft) ft[i] = tbar;
  }
  return status;
}

/* The rows of group g, from what one reverse pass of their marks gave. */
static void take_group(const td_pattern *p, size_t g, double *values, td_tensor *row) {
  for (size_t i = 0; i < p->n; i++)
    for (size_t k = p->start[i]; p->group[i] == g && k < p->start[i + 1]; k++)
      values[k] = row ? td_tensor_get(row, p->column[k]) : 0;
}

/* m->values of the Jacobian at (t, m->state): one reverse pass for each group of rows, over one recorded evaluation
 * where the field has no vjp of its own. */
static td_status by_groups(td_implicit *m, td_stepper *s, double t) {
  const td_pattern *p = m->pattern;
  td_tensor view = {.dtype = s->f->dtype, .data = m->unit}, row = {.dtype = s->f->dtype, .data = m->slope};
  size_t mark = td_auto_mark();
  taped g = {0};
  td_status status = s->f->rows_by_pull ? s->f->keep(s->f, 0, t, m->state, m->slope)
                     : s->f->vjp        ? TD_OK
                                        : tape_begin(&g, s, m->state, t, false);
  td_tensor *w = td_auto(td_tensor_zeros(s->f->dtype, s->f->ndim, s->f->shape));
  if (!status && !w) status = td_last_status();
  for (size_t group = 0; group < p->groups && !status; group++) {
    td_tensor *to = s->f->vjp ? &view : w, *grad = NULL, *flat = NULL;
    memset(to->data, 0, s->bytes);
    for (size_t i = 0; i < p->n; i++)
      if (p->group[i] == group) td_tensor_set(to, i, 1);
    if (s->f->vjp) status = row_of(m, s, t, NULL);
    else if (g.dy->node) status = td_backward(&g.dy, &w, 1, &g.y, 1, &grad, TD_STOP_AT_INPUTS | TD_RETAIN_GRAPH);
    if (!s->f->vjp) flat = grad ? td_tensor_contiguous(grad) : NULL;
    if (!status) take_group(p, group, m->values, s->f->vjp ? &row : flat);
    td_tensor_release(flat);
    td_tensor_release(grad);
  }
  memset(m->unit, 0, s->bytes);
  td_auto_release(mark);
  return status;
}

/* The same by the field's own Jacobian where it has one, with ∂f/∂t and f unless NULL. */
static td_status sparse_jacobian(td_implicit *m, td_stepper *s, double t, const double *y, double *ft, double *dy) {
  const td_pattern *p = m->pattern;
  td_field *f = s->f;
  s->counts->njev++;
  td_implicit_narrow(s, y, m->state);
  td_status status;
  if (f->entries) {
    status = f->entries(f, t, m->state, p, m->values);
  } else if (f->jacobian) {
    status = f->jacobian(f, t, m->state, m->whole, ft);
    if (f->jacobian_calls) s->counts->nfe++;
    for (size_t i = 0; i < p->n; i++)
      for (size_t k = p->start[i]; k < p->start[i + 1]; k++) m->values[k] = m->whole[i * p->n + p->column[k]];
  } else {
    status = by_groups(m, s, t);
    if (!status && ft) {
      status = td_field_jvp(f, t, m->state, m->unit, 1, m->slope);
      if (!status) td_implicit_widen(s, m->slope, ft);
    }
  }
  return status || !dy ? status : td_implicit_eval(m, s, t, y, dy);
}

td_status td_implicit_jacobian(td_implicit *m, td_stepper *s, double t, const double *y, double *jacobian, double *ft,
                               double *dy) {
  const td_field *f = s->f;
  s->counts->njev++;
  td_implicit_narrow(s, y, m->state);
  if (f->jacobian) {
    td_status status = f->jacobian(s->f, t, m->state, jacobian, ft);
    if (!status && dy) status = td_implicit_eval(m, s, t, y, dy);
    else if (f->jacobian_calls) s->counts->nfe++;
    return status;
  }
  if (m->pattern && !ft) {
    td_status status = by_groups(m, s, t);
    const td_pattern *p = m->pattern;
    memset(jacobian, 0, p->n * p->n * sizeof *jacobian);
    for (size_t i = 0; i < p->n; i++)
      for (size_t k = p->start[i]; k < p->start[i + 1]; k++) jacobian[i * p->n + p->column[k]] = m->values[k];
    return status || !dy ? status : td_implicit_eval(m, s, t, y, dy);
  }
  if (f->record && !f->jvp && !f->vjp) {
    s->counts->nfe++;
    td_status status = by_tape(m, s, t, jacobian, ft);
    if (!status && dy) td_implicit_widen(s, m->slope, dy);
    return status;
  }
  if (!f->jvp && !f->vjp)
    return td_fail(TD_EGRAD,
                   "%s: method \"%s\" needs the Jacobian of the right-hand side, which %s does not give; write "
                   "it on tensors, or give the option jac",
                   f->who, s->method->name, f->kind);
  td_status status = f->vjp ? by_rows(m, s, t, jacobian, ft, dy) : by_columns(m, s, t, jacobian, ft);
  if (f->rows_by_pull) s->counts->nfe++;
  else if (!status && dy) status = td_implicit_eval(m, s, t, y, dy);
  return status;
}

td_status td_implicit_refresh(td_implicit *m, td_stepper *s, double *ft) {
  double *dy = s->have_f0 ? NULL : m->fresh;
  td_status status = m->banded ? sparse_jacobian(m, s, s->first_time, m->y, ft, dy)
                     : ft      ? td_implicit_jacobian(m, s, s->first_time, m->y, m->jacobian, ft, dy)
                               : td_implicit_linearise(m, s, s->first_time, m->y, dy);
  if (status) return status;
  if (dy) td_implicit_narrow(s, dy, s->f0);
  s->have_f0 = m->have_jacobian = m->current = true;
  m->shift = 0;
  return TD_OK;
}

double td_implicit_mass_at(const td_stepper *s, size_t i, size_t j) {
  const td_tensor *mass = s->o->mass;
  if (!mass) return i == j;
  const double *v = (const double *)(const void *)mass->data;
  size_t n = mass->shape[0];  /* of one block of the state */
  if (i / n != j / n) return 0;
  if (mass->ndim == 2) return v[i % n * n + j % n];
  return i == j ? v[i % n] : 0;
}

const double *td_implicit_mass(const td_implicit *m, const td_stepper *s, bool transposed, const double *x) {
  const td_tensor *mass = s->o->mass;
  if (!mass) return x;
  const double *v = (const double *)(const void *)mass->data;
  size_t n = mass->shape[0];
  for (size_t at = 0; at < m->n; at += n)
    for (size_t i = 0; i < n; i++) {
      double sum = 0;
      if (mass->ndim == 1) sum = v[i] * x[at + i];
      else
        for (size_t j = 0; j < n; j++) sum += (transposed ? v[j * n + i] : v[i * n + j]) * x[at + j];
      m->product[at + i] = sum;
    }
  return m->product;
}

double td_implicit_row_sum(const td_implicit *m, size_t rows) {
  double most = 0;
  for (size_t i = 0; i < rows; i++) {
    double sum = 0;
    if (m->banded)
      for (size_t k = m->pattern->start[i]; k < m->pattern->start[i + 1]; k++) sum += fabs(m->values[k]);
    else
      for (size_t j = 0; j < m->side; j++) sum += fabs(m->jacobian[i * m->side + j]);
    if (sum > most) most = sum;
  }
  return most;
}

static bool factor_band(td_implicit *m, const td_stepper *s, double shift) {
  const td_pattern *p = m->pattern;
  memset(m->lu, 0, p->n * td_band_width(p) * sizeof *m->lu);
  for (size_t i = 0; i < p->n; i++) {
    size_t row = p->place[i];
    m->lu[td_band_at(p, row, row)] = shift * td_implicit_mass_at(s, i, i);
    for (size_t k = p->start[i]; k < p->start[i + 1]; k++)
      m->lu[td_band_at(p, row, p->place[p->column[k]])] -= m->values[k];
  }
  return td_band_factor(p, m->lu, m->pivot);
}

bool td_implicit_factor(td_implicit *m, td_stepper *s, double shift) {
  if (m->shift == shift) return true;
  if (!m->lu) {
    m->shift = shift;
    return true;
  }
  if (m->banded) {
    s->counts->nlu++;
    m->shift = factor_band(m, s, shift) ? shift : 0;
    return m->shift != 0;
  }
  size_t n = m->side;
  for (size_t i = 0; i < n * n; i++) m->lu[i] = -m->jacobian[i];
  if (s->o->mass)
    for (size_t i = 0; i < n * n; i++) m->lu[i] += shift * td_implicit_mass_at(s, i / n, i % n);
  else
    for (size_t i = 0; i < n; i++) m->lu[i * n + i] += shift;
  s->counts->nlu++;
  m->shift = td_lu_factor(m->lu, m->pivot, n) ? shift : 0;
  return m->shift != 0;
}

td_status td_implicit_linearise(td_implicit *m, td_stepper *s, double t, const double *y, double *dy) {
  m->shift = 0;
  if (m->banded) return sparse_jacobian(m, s, t, y, NULL, dy);
  if (m->jacobian) return td_implicit_jacobian(m, s, t, y, m->jacobian, NULL, dy);
  s->counts->njev++;
  memcpy(m->at, y, m->n * sizeof *y);
  m->at_time = t;
  return dy ? td_implicit_eval(m, s, t, y, dy) : TD_OK;
}

/* ---- GMRES on products with the Jacobian (Saad and Schultz 1986) ---- */

/* out = op(shift·I − J) v */
static td_status product(td_implicit *m, td_stepper *s, bool transposed, const double *v, double *out) {
  td_status status;
  if (transposed) status = td_implicit_vjp(m, s, m->at_time, m->at, v, out, NULL, NULL);
  else {
    td_implicit_narrow(s, m->at, m->state);
    td_implicit_narrow(s, v, m->unit);
    status = td_field_jvp(s->f, m->at_time, m->state, m->unit, 0, m->slope);
    if (!status) td_implicit_widen(s, m->slope, out);
  }
  for (size_t i = 0; i < m->n && !status; i++) out[i] = m->shift * v[i] - out[i];
  return status;
}

/* out = P v, P near the inverse of the matrix, or v itself without one; there is none for the transpose. */
static td_status precondition(td_implicit *m, td_stepper *s, bool transposed, const double *v, double *out) {
  if (transposed || !s->o->precondition) {
    memcpy(out, v, m->n * sizeof *out);
    return TD_OK;
  }
  td_implicit_narrow(s, m->at, m->state);
  td_implicit_narrow(s, v, m->unit);
  td_status status = s->o->precondition(s->o->precondition_data, m->at_time, m->shift, m->state, m->unit);
  if (!status) td_implicit_widen(s, m->unit, out);
  return status;
}

/* Up to DIRECTIONS steps from the residual r of norm beta, in basis[0]·beta; x += what they find. *left: the
 * residual. */
static td_status cycle(td_implicit *m, td_stepper *s, bool transposed, double beta, double target, double *x,
                       double *left) {
  size_t n = m->n;
  double h[DIRECTIONS][DIRECTIONS + 1], c[DIRECTIONS], t[DIRECTIONS], g[DIRECTIONS + 1] = {beta};
  int k = 0;
  for (; k < DIRECTIONS && fabs(g[k]) > target; k++) {
    double *w = m->basis + (size_t)(k + 1) * n;
    td_status status = precondition(m, s, transposed, m->basis + (size_t)k * n, m->room);
    if (!status) status = product(m, s, transposed, m->room, w);
    if (status) return status;
    for (int i = 0; i <= k; i++) {
      h[k][i] = td_sum_of_products(n, w, m->basis + (size_t)i * n);
      td_add_multiple(n, w, -h[k][i], m->basis + (size_t)i * n);
    }
    double size = h[k][k + 1] = sqrt(td_sum_of_products(n, w, w));
    for (size_t i = 0; i < n && size > 0; i++) w[i] /= size;
    for (int i = 0; i < k; i++) {
      double a = h[k][i], b = h[k][i + 1];
      h[k][i] = c[i] * a + t[i] * b;
      h[k][i + 1] = -t[i] * a + c[i] * b;
    }
    double r = hypot(h[k][k], size);
    c[k] = r > 0 ? h[k][k] / r : 1;
    t[k] = r > 0 ? size / r : 0;
    h[k][k] = r;
    g[k + 1] = -t[k] * g[k];
    g[k] *= c[k];
    if (size == 0 || r != r) {
      k++;
      break;
    }
  }
  *left = fabs(g[k]);
  double *sum = m->basis + (size_t)k * n;  /* no longer needed */
  memset(sum, 0, n * sizeof *sum);
  for (int i = k - 1; i >= 0; i--) {
    for (int j = i + 1; j < k; j++) g[i] -= h[j][i] * g[j];
    g[i] = h[i][i] != 0 ? g[i] / h[i][i] : 0;
    td_add_multiple(n, sum, g[i], m->basis + (size_t)i * n);
  }
  td_status status = precondition(m, s, transposed, sum, m->room);
  td_add_multiple(n, x, 1, m->room);
  return status;
}

td_status td_implicit_solve(td_implicit *m, td_stepper *s, bool transposed, double residual, double *x) {
  size_t n = m->n;
  for (size_t at = 0; m->lu && at < n; at += m->side) {
    if (m->banded) td_band_solve(m->pattern, m->lu, m->pivot, transposed, x + at, m->fresh);
    else td_lu_solve(m->lu, m->pivot, m->side, transposed, x + at);
  }
  if (m->lu) return TD_OK;
  double *b = m->fresh, *r = m->basis, size = sqrt(td_sum_of_products(n, x, x)), left = size;
  memcpy(b, x, n * sizeof *b);
  memset(x, 0, n * sizeof *x);
  for (int i = 0; i < CYCLES && left > residual * size; i++) {
    td_status status = i ? product(m, s, transposed, x, r) : TD_OK;
    if (status) return status;
    for (size_t e = 0; e < n; e++) r[e] = i ? b[e] - r[e] : b[e];
    double beta = sqrt(td_sum_of_products(n, r, r));
    if (!(beta > residual * size)) break;
    for (size_t e = 0; e < n; e++) r[e] /= beta;
    status = cycle(m, s, transposed, beta, residual * size, x, &left);
    if (status) return status;
  }
  return TD_OK;
}

double td_implicit_error_norm(const td_implicit *m, const td_stepper *s, const double *x) {
  size_t n = s->o->norm_count ? s->o->norm_count : m->n;
  double sum = 0;
  for (size_t i = 0; i < n; i++) {
    double e = x[i] / m->scale[i];
    sum += e * e;
  }
  return n ? sqrt(sum / (double)n) : 0;
}

td_status td_implicit_vjp(td_implicit *m, td_stepper *s, double t, const double *y, const double *w, double *ybar,
                          double *tbar, td_tensor **dexternal) {
  td_implicit_narrow(s, y, m->state);
  td_implicit_narrow(s, w, m->unit);
  td_status status = td_field_vjp(s->f, t, m->state, m->unit, m->slope, tbar, dexternal);
  if (!status) td_implicit_widen(s, m->slope, ybar);
  return status;
}
