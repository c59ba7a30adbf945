/* What a solve keeps of its path: values at the save times, and every so many steps. */
#include <string.h>
#include "base/alloc.h"
#include "solve/loop.h"

void td_solve_save_row(td_solve *v, const void *y) {
  td_ode_solution *out = v->out;
  if (v->s.bytes) memcpy(out->ys->data + out->reached * v->s.bytes, y, v->s.bytes);
  out->reached++;
}

/* The value at a save time inside the step just made. */
static td_status save_between(td_solve *v, const td_trial *p, double at) {
  td_ode_solution *out = v->out;
  td_stepper *s = &v->s;
  void *row = out->ys->data + out->reached * s->bytes;
  double theta = (at - s->t) / p->h;
  td_status status = TD_OK;
  if (v->o->linear) {
    double w[2] = {1 - theta, theta};
    td_stepper_combine(s, row, NULL, 2, w, (const void *[]){s->y, s->y1});
  } else {
    status = s->method->family->dense(s, theta, row, NULL);
  }
  if (!status) out->reached++;
  return status;
}

td_status td_solve_save(td_solve *v, const td_trial *p, double stop) {
  for (; v->next < v->nt && v->direction * (v->ts[v->next] - stop) <= 0; v->next++) {
    if (v->ts[v->next] == p->end) {
      td_solve_save_row(v, v->s.y1);
      continue;
    }
    td_status status = save_between(v, p, v->ts[v->next]);
    if (status) return status;
  }
  if (v->o->every && stop == p->end && v->out->stats.accepted % v->o->every == 0)
    return td_solve_save_every(v, p->end, v->s.y1);
  return TD_OK;
}

td_status td_solve_save_every(td_solve *v, double t, const void *y) {
  td_ode_solution *out = v->out;
  size_t bytes = v->s.bytes;
  if (out->nevery == out->every_room) {
    size_t room = out->every_room ? 2 * out->every_room : 32;
    double *ts = td_alloc(room * sizeof *ts);
    char *ys = td_alloc(room * bytes + 1);
    if (!ts || !ys) {
      td_free(ts, room * sizeof *ts);
      td_free(ys, room * bytes + 1);
      return td_last_status();
    }
    if (out->nevery) memcpy(ts, out->every_t, out->nevery * sizeof *ts);
    if (out->nevery && bytes) memcpy(ys, out->every_y, out->nevery * bytes);
    td_free(out->every_t, out->every_room * sizeof *ts);
    td_free(out->every_y, out->every_y ? out->every_room * bytes + 1 : 0);
    out->every_t = ts;
    out->every_y = ys;
    out->every_room = room;
    out->every_bytes = bytes;
  }
  out->every_t[out->nevery] = t;
  if (bytes) memcpy(out->every_y + out->nevery * bytes, y, bytes);
  out->nevery++;
  return TD_OK;
}
