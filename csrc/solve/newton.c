/* Newton's iteration: when its updates are small enough, and what a step is told otherwise. */
#include <float.h>
#include <math.h>
#include <string.h>
#include "solve/implicit.h"
#include "solve/integrate.h"

td_newton td_newton_begin(const td_implicit *m, const td_stepper *s) {
  double eps = s->f->dtype == TD_F64 ? DBL_EPSILON : (double)FLT_EPSILON, rtol = fmax(s->o->rtol, eps);
  td_newton w = {.exact = m->exact, .tolerance = fmin(3e-2, sqrt(rtol)), .floor = 10 * eps / rtol};
  if (w.floor > w.tolerance) w.tolerance = w.floor;
  bool fixed = s->o->step_size > 0 || s->o->grid || !s->method->error_order;  /* no smaller step to fall back on */
  w.retries = !w.exact && !fixed;
  w.most = w.retries ? 10 : 40;
  return w;
}

static td_newton_verdict judge(td_newton *w, double norm) {
  if (!isfinite(norm)) return TD_NEWTON_NONFINITE;
  if (++w->iteration > 1) w->rate = norm / w->last;
  w->last = norm;
  bool small = norm <= w->floor, first = w->iteration == 1;
  double left = !first && w->rate < 1 ? w->rate / (1 - w->rate) * norm : INFINITY;
  bool enough = small || left <= w->tolerance;
  if (enough && !w->usual) w->usual = w->iteration, w->usual_rate = w->rate;
  if (norm == 0 || (enough && !w->exact)) return TD_NEWTON_CONVERGED;
  if (first) return TD_NEWTON_GO_ON;
  if (w->exact && small && w->rate > 0.3) return TD_NEWTON_CONVERGED;  /* nothing but rounding is left */
  if (w->rate >= 1) return w->usual ? TD_NEWTON_CONVERGED : TD_NEWTON_DIVERGED;  /* rounding again, if it was near */
  if (w->exact && left <= w->floor * 1e-4) return TD_NEWTON_CONVERGED;
  if (w->iteration >= w->most) return small ? TD_NEWTON_CONVERGED : TD_NEWTON_DIVERGED;
  if (!w->exact && left * pow(w->rate, w->most - w->iteration) > w->tolerance) return TD_NEWTON_DIVERGED;
  return TD_NEWTON_GO_ON;
}

/* The tangents' updates: their scale is their own, so nothing is said about steps, only whether they still shrink. */
static td_newton_verdict judge_further(td_newton *w, double norm) {
  if (!isfinite(norm)) return TD_NEWTON_NONFINITE;
  double rate = w->further ? norm / w->further_last : 0;
  w->further_last = norm;
  if (norm <= w->floor * 1e-4 || (w->further && norm <= w->tolerance && rate >= 0.9)) return TD_NEWTON_CONVERGED;
  return ++w->further < 60 ? TD_NEWTON_GO_ON : TD_NEWTON_DIVERGED;
}

/* Root mean square of `count` vectors' elements from `from` to `to`. */
static double norm_of(const td_implicit *m, const double *x, int count, size_t from, size_t to) {
  double sum = 0;
  for (int k = 0; k < count; k++)
    for (size_t i = from; i < to; i++) {
      double e = x[(size_t)k * m->n + i] / m->scale[i];
      sum += e * e;
    }
  return to > from ? sqrt(sum / (double)((to - from) * (size_t)count)) : 0;
}

td_newton_verdict td_newton_judge(td_newton *w, const td_implicit *m, const td_stepper *s, const double *x, int count) {
  size_t head = s->o->blocks > 1 ? m->n / s->o->blocks : m->n;
  td_newton_verdict verdict = w->further ? TD_NEWTON_CONVERGED : judge(w, norm_of(m, x, count, 0, head));
  if (head == m->n || verdict != TD_NEWTON_CONVERGED) return verdict;
  return judge_further(w, norm_of(m, x, count, head, m->n));
}

td_step_result td_newton_failed(td_stepper *s, td_newton_verdict verdict) {
  if (verdict == TD_NEWTON_NONFINITE) {
    memset(s->y1, 0xff, s->bytes);  /* NaN in every type */
    return TD_STEP_DONE;
  }
  s->retry = 0.25;
  s->why = "Newton's iteration diverged";
  return TD_STEP_REFUSED;
}

td_status td_newton_lost(const td_stepper *s) {
  return td_fail(TD_ESOLVE, "%s: Newton's iteration for the step from t=%g did not converge again in the backward pass",
                 s->f->who, s->t);
}
