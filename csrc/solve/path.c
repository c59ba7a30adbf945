/* Finding a step, making it again, and evaluating its extension. */
#include "solve/path.h"

td_status td_path_make(td_path *p, td_trajectory *steps, const td_ode_options *o, td_field *f) {
  *p = (td_path){.steps = steps, .at = SIZE_MAX, .o = *o};
  p->o.exact = true;  /* so that a step does not depend on which was made before it */
  return td_stepper_make(&p->s, o->method, &p->o, f, &p->counts);
}

void td_path_free(td_path *p) { td_stepper_free(&p->s); }

static size_t step_of(const td_trajectory *steps, double t, bool left) {
  size_t lo = 0, hi = steps->n;
  double direction = steps->steps[0].end >= steps->steps[0].t ? 1 : -1;
  while (hi - lo > 1) {
    size_t m = lo + (hi - lo) / 2;
    double ahead = direction * (t - steps->steps[m].t);
    if (ahead > 0 || (ahead == 0 && !left)) lo = m;
    else hi = m;
  }
  return lo;
}

static td_status make_again(td_path *p, size_t n) {
  uint64_t replayed = 0;
  td_step_result result;
  const td_ode_step *step = &p->steps->steps[n];
  p->at = SIZE_MAX;
  td_status s = td_trajectory_at(p->steps, &p->s, n, &replayed);
  if (!s) s = td_stepper_step(&p->s, step->end, step->before_jump, &result);
  if (!s) p->at = n;
  return s;
}

td_status td_path_at(td_path *p, double t, bool left, void *y, void *dy) {
  size_t n = step_of(p->steps, t, left);
  const td_ode_step *step = &p->steps->steps[n];
  td_status s = p->at == n ? TD_OK : make_again(p, n);
  return s ? s : p->s.method->family->dense(&p->s, (t - step->t) / (step->end - step->t), y, dy);
}
