/* Cubic Hermite interpolation, transposed. */
#include "solve/hermite.h"
#include <string.h>

/* bar += the pull of w at (t, y); the time is that of the step's start, or of its end. */
static td_status pull(td_stepper *s, td_step_back *b, bool at_end, const char *y, const char *w, char *pulled,
                      char *bar) {
  double tau = 0, one = 1;
  td_status status = td_field_vjp(s->f, at_end ? s->last_time : s->t, y, w, pulled, b->tbar || b->hbar ? &tau : NULL,
                                  b->dexternal);
  if (status) return status;
  const void *from = pulled;
  td_stepper_combine(s, bar, bar, 1, &one, &from);
  if (b->tbar) *b->tbar += tau;
  if (b->hbar && at_end) *b->hbar += tau;
  return TD_OK;
}

td_status td_hermite_back(td_stepper *s, td_step_back *b, const char *y1, char *y1bar, char *ybar,
                          char *const room[3]) {
  double h = s->end - s->t;
  char *f0bar = room[0], *f1bar = room[1];
  memset(f0bar, 0, s->bytes);
  memset(f1bar, 0, s->bytes);
  td_status status = td_stepper_slope(s);
  if (!status) status = td_stepper_eval(s, s->last_time, y1, s->f1);
  if (status) return status;
  for (size_t i = 0; i < b->ndense; i++) {
    double q = b->theta[i], p = q * q * (3 - 2 * q), d0 = q * (1 - q) * (1 - q), d1 = q * q * (q - 1);
    const double w[4] = {1 - p, p, h * d0, h * d1};
    char *to[4] = {ybar, y1bar, f0bar, f1bar};
    for (int j = 0; j < 4; j++) td_stepper_combine(s, to[j], to[j], 1, &w[j], &b->w[i]);
    double a0 = td_stepper_dot(s, s->f0, b->w[i]), a1 = td_stepper_dot(s, s->f1, b->w[i]);
    if (b->hbar) *b->hbar += d0 * a0 + d1 * a1;
    if (b->theta_bar)
      b->theta_bar[i] = 6 * q * (1 - q) * (td_stepper_dot(s, y1, b->w[i]) - td_stepper_dot(s, s->y, b->w[i])) +
                        h * ((1 - q) * (1 - 3 * q) * a0 + q * (3 * q - 2) * a1);
  }
  status = pull(s, b, true, y1, f1bar, room[2], y1bar);
  return status ? status : pull(s, b, false, s->y, f0bar, room[2], ybar);
}
