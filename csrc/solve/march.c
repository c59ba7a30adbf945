/* Many steps by one call of the field. Between two moments that matter to the solve (save times, stops) nothing has to
 * be looked at after each step, so a field that can choose its steps by the same rules as control.c may make them all;
 * the steps taken are booked here afterwards. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "solve/loop.h"

enum { MOST = 256, WORTH = 3 };  /* trials in one call; steps to the limit that are worth one */

static size_t room(const td_solve *v) {
  return (TD_MARCH_STATE + 6 * v->s.n + MOST * (v->s.n + 2)) * sizeof(double);
}

td_status td_solve_prepare_march(td_solve *v) {
  const td_ode_options *o = v->o;
  const td_controller *c = &o->controller;
  bool norm = (o->norm == TD_NORM_RMS || o->norm == TD_NORM_MAX) && !o->norm_count && !o->rtols && !o->atols;
  bool control = td_is_adaptive(o) && c->k[3] == 0 && c->k[4] == 0 && !o->accept_min_step;
  bool watched = o->nevents || o->watch || o->every || o->mass;
  bool can =
      v->f->march && o->method->family->describe && (!v->f->march_method || v->f->march_method == o->method->name);
  if (!can || !norm || !control || watched) return TD_OK;
  o->method->family->describe(&v->s, &v->method);
  v->march = td_alloc(room(v));
  return v->march ? TD_OK : td_last_status();
}

void td_solve_end_march(td_solve *v) { td_free(v->march, v->march ? room(v) : 0); }

/* The nearest time at which the solve has something to do. */
static double limit_of(const td_solve *v) {
  bool jump;
  double stop = td_solve_next_stop(v, &jump), save = v->ts[v->next];
  return v->direction * (save - stop) < 0 ? save : stop;
}

static void tell(const td_solve *v, double h, double limit) {
  const td_ode_options *o = v->o;
  const td_controller *c = &o->controller;
  const td_ode_stats *stats = &v->out->stats;
  double *b = v->march, q = o->method->error_order + 1;
  size_t n = v->s.n;
  uint64_t left = o->max_steps - stats->accepted - stats->rejected;
  b[TD_MARCH_T] = v->s.t;
  b[TD_MARCH_H] = h;
  b[TD_MARCH_LIMIT] = limit;
  b[TD_MARCH_DIRECTION] = v->direction;
  b[TD_MARCH_MOST] = left < MOST ? (double)left : MOST;
  b[TD_MARCH_RTOL] = o->rtol;
  b[TD_MARCH_ATOL] = o->atol;
  b[TD_MARCH_IS_MAX] = o->norm == TD_NORM_MAX;
  b[TD_MARCH_MIN_STEP] = o->min_step;
  b[TD_MARCH_MAX_STEP] = o->max_step;
  b[TD_MARCH_SAFETY] = c->safety;
  b[TD_MARCH_SHRINK] = c->shrink;
  b[TD_MARCH_LEAST] = c->keep_after_accept ? 1 : c->shrink;
  b[TD_MARCH_GROW] = c->grow;
  b[TD_MARCH_HOLDS] = c->hold_after_reject;
  for (int i = 0; i < 3; i++) b[TD_MARCH_EXPONENT + i] = -c->k[i] / q;
  b[TD_MARCH_EXPONENT_REJECTED] = -1.0 / q;
  b[TD_MARCH_ERROR_1] = v->history[0];
  b[TD_MARCH_ERROR_2] = v->history[1];
  b[TD_MARCH_WAS_REJECTED] = v->rejected_last;
  b[TD_MARCH_H_MIN] = stats->h_min;
  b[TD_MARCH_H_MAX] = stats->h_max;
  b[TD_MARCH_ACCEPTED] = b[TD_MARCH_REJECTED] = 0;
  b[TD_MARCH_WORST] = (double)stats->worst;
  b[TD_MARCH_KNOWN] = v->s.have_f0;
  b[TD_MARCH_SLOPES] = 0;
  memcpy(b + TD_MARCH_STATE, v->s.y, v->s.bytes);
  memcpy(b + TD_MARCH_STATE + n, v->s.f0, v->s.bytes);
  memset(b + TD_MARCH_STATE + 2 * n, 0, v->s.bytes);
}

/* Accepted steps join the trajectory, from their starts. */
static td_status book(td_solve *v, size_t accepted) {
  const double *row = v->march + TD_MARCH_STATE + 6 * v->s.n;
  const td_ode_step like = {0};
  td_status status = TD_OK;
  for (size_t i = 0; i < accepted && !status; i++, row += 2 + v->s.n) {
    v->s.t = row[0];
    v->s.end = row[1];
    memcpy(v->s.y, row + 2, v->s.bytes);
    status = td_trajectory_add(&v->out->path, &v->s, &like);
  }
  return status;
}

static void take(td_solve *v, double *h) {
  const double *b = v->march, *counts = b + TD_MARCH_STATE + 2 * v->s.n;
  td_ode_stats *stats = &v->out->stats;
  uint64_t accepted = (uint64_t)b[TD_MARCH_ACCEPTED], rejected = (uint64_t)b[TD_MARCH_REJECTED];
  *h = b[TD_MARCH_H];
  stats->accepted += accepted;
  stats->rejected += rejected;
  stats->counts.nfe += (accepted + rejected) * (uint64_t)(v->method.step.stages - 1) + (uint64_t)b[TD_MARCH_SLOPES];
  stats->h_min = b[TD_MARCH_H_MIN];
  stats->h_max = b[TD_MARCH_H_MAX];
  stats->worst = (size_t)b[TD_MARCH_WORST];
  v->history[0] = b[TD_MARCH_ERROR_1];
  v->history[1] = b[TD_MARCH_ERROR_2];
  v->rejected_last = b[TD_MARCH_WAS_REJECTED] != 0;
  v->broken = b[TD_MARCH_WAS_REJECTED] == 2;
  v->taken += (double)accepted;
  for (size_t i = 0; i < v->out->nlimits; i++) v->out->limits[i] += (uint32_t)counts[i];
  v->s.t = v->s.first_time = stats->t_last = b[TD_MARCH_T];
  memcpy(v->s.y, b + TD_MARCH_STATE, v->s.bytes);
  memcpy(v->s.f0, b + TD_MARCH_STATE + v->s.n, v->s.bytes);
  v->s.have_f0 = b[TD_MARCH_KNOWN] != 0;
}

td_status td_solve_march(td_solve *v, double *h) {
  td_stepper *s = &v->s;
  double limit = limit_of(v);
  bool plain = v->out->stats.accepted > 0 && !v->restarted && !v->pinned && !v->jumped && s->first_time == s->t;
  bool known = s->have_f0 || !v->method.step.fsal, done = true;
  if (!plain || !known || v->direction * (limit - s->t) < WORTH * fabs(*h)) return TD_OK;
  tell(v, *h, limit);
  td_status status = v->f->march(v->f, &v->method, v->march, v->march + TD_MARCH_STATE + 6 * s->n, &done);
  if (status || !done) return status;
  status = book(v, (size_t)v->march[TD_MARCH_ACCEPTED]);
  if (!status) take(v, h);
  return status;
}
