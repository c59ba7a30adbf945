/* Looking for events in a step: signs at several points of the extension, then each root to rounding. */
#include "solve/event.h"
#include <float.h>
#include <math.h>
#include <string.h>
#include "base/alloc.h"

/* ---- The list ---- */

td_status td_event_list_make(td_event_list *l, td_event *events, size_t n, int points, size_t bytes) {
  *l = (td_event_list){.events = events, .n = n, .points = points > 0 ? points : 10, .bytes = bytes};
  if (n == 0) return TD_OK;
  l->last = td_alloc(2 * n * sizeof *l->last);
  l->count = td_alloc(n * sizeof *l->count);
  l->fresh = td_alloc(n * sizeof *l->fresh);
  if (!l->last || !l->count || !l->fresh) return td_last_status();
  l->now = l->last + n;
  memset(l->count, 0, n * sizeof *l->count);
  memset(l->fresh, 0, n * sizeof *l->fresh);
  return TD_OK;
}

void td_event_list_free(td_event_list *l) {
  for (size_t i = 0; i < l->nhits; i++) td_free(l->hits[i].before, 2 * l->bytes + 1);
  td_free(l->hits, l->room * sizeof *l->hits);
  td_free(l->last, l->last ? 2 * l->n * sizeof *l->last : 0);
  td_free(l->count, l->count ? l->n * sizeof *l->count : 0);
  td_free(l->fresh, l->fresh ? l->n * sizeof *l->fresh : 0);
  *l = (td_event_list){0};
}

/* A hit of event i with the state y there; the state after is set by its reset, or the same. */
static td_status add_hit(td_event_list *l, size_t i, size_t step, double theta, double t, const void *y) {
  if (l->nhits == l->room) {
    size_t room = l->room ? 2 * l->room : 8;
    td_event_hit *grown = td_alloc(room * sizeof *grown);
    if (!grown) return td_last_status();
    if (l->nhits) memcpy(grown, l->hits, l->nhits * sizeof *grown);
    td_free(l->hits, l->room * sizeof *grown);
    l->hits = grown;
    l->room = room;
  }
  const td_event *e = &l->events[i];
  td_event_hit *hit = &l->hits[l->nhits];
  *hit = (td_event_hit){.t = t, .which = i, .step = step, .theta = theta, .boolean = e->boolean};
  hit->before = td_alloc(2 * l->bytes + 1);
  if (!hit->before) return td_last_status();
  hit->after = hit->before + l->bytes;
  l->nhits++;
  memcpy(hit->before, y, l->bytes);
  l->count[i]++;
  hit->cuts = e->reset || (e->stop_after && l->count[i] >= e->stop_after);
  if (e->reset) return e->reset->eval(e->reset, t, y, hit->after);
  memcpy(hit->after, y, l->bytes);
  return TD_OK;
}

static double first_element(const td_field *f, const void *x) {
  return f->dtype == TD_F64 ? *(const double *)x : (double)*(const float *)x;
}

/* c of event i; `room` receives the field's result. */
static td_status value_of(td_event_list *l, size_t i, double t, const void *y, void *room, double *c) {
  td_field *f = l->events[i].value;
  td_status s = f->eval(f, t, y, room);
  *c = s ? 0 : first_element(f, room);
  return s;
}

/* ---- Roots ---- */

/* One event on the extension of the step just made. */
typedef struct {
  td_event_list *l;
  td_stepper *s;
  size_t i;
  char *y, *room;
} curve;

static double time_at(const td_stepper *s, double theta) {
  return theta >= 1 ? s->end : s->t + theta * (s->end - s->t);
}

static td_status curve_state(const curve *c, double theta) {
  if (theta < 1) return c->s->method->family->dense(c->s, theta, c->y, NULL);
  memcpy(c->y, c->s->y1, c->l->bytes);
  return TD_OK;
}

static td_status curve_value(const curve *c, double theta, double *v) {
  *v = NAN;
  td_status s = curve_state(c, theta);
  return s ? s : value_of(c->l, c->i, time_at(c->s, theta), c->y, c->room, v);
}

/* Between a and b, where c changes its sign: the Illinois form of false position, a bisection whenever three of its
 * steps have not halved the interval. Ends within two units in the last place of t. */
static td_status locate(const curve *c, double a, double va, double b, double vb, double *theta) {
  double h = fabs(c->s->end - c->s->t), unit = 2 * DBL_EPSILON * fmax(fabs(c->s->end), fabs(c->s->t)) / h;
  double fa = va, fb = vb, before = b - a;
  if (unit < DBL_EPSILON) unit = DBL_EPSILON;
  for (int k = 1; b - a > unit && fb != 0 && k < 200; k++) {
    double m = (a * fb - b * fa) / (fb - fa), v;
    if (k % 3 == 0) {
      if (b - a > 0.5 * before) m = 0.5 * (a + b);
      before = b - a;
    }
    if (!(m > a && m < b)) m = 0.5 * (a + b);
    if (m == a || m == b) break;
    td_status s = curve_value(c, m, &v);
    if (s) return s;
    if (v != v) break;
    if ((v > 0) == (vb > 0) || v == 0) {
      if ((fb > 0) == (v > 0)) fa *= 0.5;
      b = m;
      fb = vb = v;
      if (v == 0) break;
    } else {
      fb *= 0.5;
      a = m;
      fa = v;
    }
  }
  *theta = b;
  return TD_OK;
}

/* ---- Scanning ---- */

static bool crosses(const td_event *e, double from, double to) {
  if (from < 0 && to >= 0) return e->direction >= 0;
  if (from > 0 && to <= 0) return e->direction <= 0;
  return false;
}

/* The first root of event i in (from, 1], the value at `from` being v; 2 when there is none. *end: c at the step's end
 * as far as it was looked at. Between three points that dip towards zero the lowest point of their parabola is looked
 * at too. */
static td_status first_root(curve *c, double from, double v, double *root) {
  const td_event *e = &c->l->events[c->i];
  int points = e->boolean ? 1 : c->l->points;
  double a = from, va = v, before = NAN, vbefore = NAN;
  *root = 2;
  for (int k = 1; k <= points; k++) {
    double b = (double)k / points, vb;
    if (b <= from) continue;
    td_status s = curve_value(c, b, &vb);
    if (s) return s;
    if (crosses(e, va, vb)) {
      if (e->boolean) *root = 1;
      else return locate(c, a, va, b, vb, root);
      return TD_OK;
    }
    bool dips =
        vbefore == vbefore && va * vb > 0 && va * vbefore > 0 && fabs(va) <= fabs(vb) && fabs(va) <= fabs(vbefore);
    if (dips) {
      double w = a - before, slope = (vb - vbefore) / (b - before), bend = (vb - 2 * va + vbefore) / (w * w);
      double m = bend != 0 ? a - slope / bend : a, vm;
      if (m > before && m < b && m != a) {
        if ((s = curve_value(c, m, &vm))) return s;
        double left = m < a ? before : a, vleft = m < a ? vbefore : va;
        double right = m < a ? a : b, vright = m < a ? va : vb;
        if (crosses(e, vleft, vm)) return locate(c, left, vleft, m, vm, root);
        if (crosses(e, vm, vright)) return locate(c, m, vm, right, vright, root);
      }
    }
    before = a;
    vbefore = va;
    a = b;
    if (vb != 0) va = vb;
  }
  return TD_OK;
}

td_status td_event_begin(td_event_list *l, double t, const void *y) {
  if (l->n == 0) return TD_OK;
  void *room = td_alloc(l->bytes + 1);
  td_status s = room ? TD_OK : td_last_status();
  for (size_t i = 0; i < l->n && !s; i++) s = value_of(l, i, t, y, room, &l->last[i]);
  td_free(room, l->bytes + 1);
  return s;
}

void td_event_advance(td_event_list *l) {
  for (size_t i = 0; i < l->n; i++) {
    if (l->now[i] != 0) l->last[i] = l->now[i];
    l->fresh[i] = l->now[i] == 0;  /* just at a root */
  }
}

/* The earliest root after `from` of any event; *which is its event. Events that fired at `from` take their sign a
 * little later. */
static td_status earliest(td_event_list *l, td_stepper *s, double from, const double *at_from, char *room,
                          double *theta, size_t *which) {
  *theta = 2;
  for (size_t i = 0; i < l->n; i++) {
    curve c = {l, s, i, room, room + l->bytes};
    double start = from, v = at_from[i], root;
    td_status status = TD_OK;
    if (l->fresh[i] && !l->events[i].boolean) {
      start = from + 1e-6 * (1 - from);
      status = curve_value(&c, start, &v);
    }
    if (!status) status = first_root(&c, start, v, &root);
    if (status) return status;
    if (root < *theta) {
      *theta = root;
      *which = i;
    }
  }
  return TD_OK;
}

td_status td_event_scan(td_event_list *l, td_stepper *s, size_t step, void *room, double *cut, bool *ends) {
  char *y = room;
  double from = 0;
  td_status status = TD_OK;
  *cut = 2;
  *ends = false;
  memcpy(l->now, l->last, l->n * sizeof *l->now);
  while (!status && from < 1) {
    double theta;
    size_t i = 0;
    status = earliest(l, s, from, l->now, y, &theta, &i);
    if (status || theta > 1) break;
    curve c = {l, s, i, y, y + l->bytes};
    status = curve_state(&c, theta);
    if (!status) status = add_hit(l, i, step, theta, time_at(s, theta), y);
    if (status) break;
    const td_event_hit *hit = &l->hits[l->nhits - 1];
    if (hit->cuts) {
      const td_event *e = &l->events[i];
      *cut = theta;
      *ends = e->stop_after && l->count[i] >= e->stop_after;
      break;
    }
    for (size_t j = 0; j < l->n; j++) {  /* go on from there */
      c.i = j;
      if (!status && j != i && !l->fresh[j]) {
        double v;
        status = curve_value(&c, theta, &v);
        if ((v > 0) == (l->now[j] > 0) && v != 0) l->now[j] = v;  /* else its root is here too */
      }
    }
    l->fresh[i] = true;
    from = theta;
    if (l->events[i].boolean) break;
  }
  if (status || *cut <= 1) return status;
  for (size_t i = 0; i < l->n && !status; i++) {
    curve c = {l, s, i, y, y + l->bytes};
    status = curve_value(&c, 1, &l->now[i]);
  }
  return status;
}

/* ---- Gradients ---- */

/* Spec of the reverse step: α = −[τ + τ₀ + λ⁺ᵀA_t + (A_yᵀλ⁺ + w)ᵀu']/ċ, λ⁻ = A_yᵀλ⁺ + w + α c_y. */
td_status td_event_pull(const td_event *e, const td_event_hit *hit, const td_event_pass *p, char *w) {
  const td_stepper *s = p->s;
  double one = 1, reset_t = 0, c_t = 0;
  char *cy = p->room, *unit = p->room + s->bytes;
  if (p->after && e->reset) {
    td_status status = td_field_vjp(e->reset, hit->t, hit->before, p->after, cy, &reset_t, p->dexternal);
    if (status) return status;
    td_stepper_combine(s, w, w, 1, &one, (const void *[]){cy});
  } else if (p->after) {
    td_stepper_combine(s, w, w, 1, &one, (const void *[]){p->after});
  }
  double moved = p->tau + p->tau0 + reset_t + td_stepper_dot(s, w, p->slope);
  if (e->boolean || moved == 0) return TD_OK;
  memset(unit, 0, s->bytes);
  if (s->f->dtype == TD_F64) *(double *)(void *)unit = 1;
  else *(float *)(void *)unit = 1;
  td_status status = td_field_vjp(e->value, hit->t, hit->before, unit, cy, &c_t, NULL);
  if (status) return status;
  double rate = c_t + td_stepper_dot(s, cy, p->slope), alpha = -moved / rate;
  if (!isfinite(alpha))
    return td_fail(TD_EGRAD,
                   "ode.solve: event %zu touches zero at t=%g without crossing it: its time has no derivative",
                   hit->which + 1, hit->t);
  td_stepper_combine(s, w, w, 1, &alpha, (const void *[]){cy});
  if (s->f->dtype == TD_F64) *(double *)(void *)unit = alpha;
  else *(float *)(void *)unit = (float)alpha;
  return td_field_vjp(e->value, hit->t, hit->before, unit, cy, NULL, p->dexternal);
}
