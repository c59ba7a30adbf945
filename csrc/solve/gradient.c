/* A solve as one node of the tape: what it keeps, its rule, and what the gradient modes share. */
#include "solve/gradient.h"
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "ops/ops.h"
#include "solve/band.h"
#include "solve/sweep.h"

static bool is_among(const td_tensor *t, td_tensor *const *list, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (list[i]->node == t->node && list[i]->slot == t->slot) return true;
  return false;
}

/* Everything recorded at `since` or later that the outputs depend on must be an external or among the
 * operands. */
static td_status check_known(const td_ode_recorded *r, td_tensor *const *outputs, int n, uint64_t since,
                             double t, td_tensor *const *operands, size_t noperands) {
  td_tensor **found;
  size_t count, capacity;
  td_status status = td_tape_externals(outputs, n, since, &found, &count, &capacity);
  for (size_t i = 0; i < count; i++) {
    bool known = is_among(found[i], r->f->externals, r->f->nexternals) || is_among(found[i], operands, noperands);
    if (!status && !known)
      status = td_fail(TD_EGRAD, "ode.solve: after t=%g the right-hand side uses a tensor of shape (%s) that needs a "
                       "gradient, but not at the start; name it in the option params", t,
                       td_tensor_shape_string(found[i]));
    td_tensor_release(found[i]);
  }
  td_free(found, capacity * sizeof *found);
  return status;
}

/* ---- The node's rule ---- */

enum { Y0 = 0, TIMES = 1, EXTERNALS = 2 };

static uint32_t version_of(const td_tensor *t) { return t->storage ? t->storage->version : 0; }

/* A replay computes what the solve did only if nothing was written since. */
static td_status check_unspoiled(const td_ode_recorded *r) {
  for (size_t i = 0; i < r->f->nexternals; i++)
    if (version_of(r->f->externals[i]) != r->versions[i])
      return td_fail(TD_EGRAD,
                     "ode.solve: a tensor of shape (%s) that the right-hand side uses was written in place after "
                     "the solve; its gradient is lost",
                     td_tensor_shape_string(r->f->externals[i]));
  if (r->solution.ys && version_of(r->solution.ys) != r->versions[r->f->nexternals])
    return td_fail(TD_EGRAD, "ode.solve: ys was written in place after the solve; the backward pass starts from it");
  return TD_OK;
}

static void hand_over(td_rule *rule, td_sweep *w) {
  size_t ne = w->r->f->nexternals;
  rule->din[Y0] = td_auto(td_tensor_retain(w->lambda));
  for (size_t i = 0; i < ne; i++) rule->din[EXTERNALS + i] = td_auto(td_tensor_retain(w->dexternal[i]));
  if (!w->dtimes) return;
  td_tensor *dt = td_auto(td_tensor_zeros(TD_F64, 1, rule->in[TIMES]->shape));
  for (size_t i = 0; dt && i < (w->r->nodes ? w->r->given : w->r->nt); i++) td_tensor_set(dt, i, w->dtimes[i]);
  rule->din[TIMES] = dt;
}

static void reverse(td_rule *rule) {
  td_ode_recorded *r = rule->data;
  size_t ne = r->f->nexternals, nt = r->nt > r->given ? r->nt : r->given;
  td_tensor *y0 = rule->need[TIMES] ? td_auto(td_tensor_contiguous(rule->in[Y0])) : NULL;
  td_sweep w = {.r = r, .y0 = y0 ? y0->data : NULL, .next = r->nt};
  for (int i = 0; i < rule->nout; i++)
    w.dout[i] = rule->dout[i] ? td_auto(td_tensor_contiguous(rule->dout[i])) : NULL;
  w.dys = w.dout[0] ? w.dout[0] : td_auto(td_tensor_zeros(r->f->dtype, 1, (const size_t[]){(r->nt + 1) * r->f->numel}));
  w.dexternal = td_alloc((ne + 1) * sizeof *w.dexternal);
  if (rule->need[TIMES]) w.dtimes = td_alloc(nt * sizeof *w.dtimes);
  if (w.dexternal) memset(w.dexternal, 0, (ne + 1) * sizeof *w.dexternal);
  if (w.dtimes) memset(w.dtimes, 0, nt * sizeof *w.dtimes);
  if (w.dys && w.dexternal && ((y0 && w.dtimes) || !rule->need[TIMES])) {
    td_status s = td_ode_is_discrete(r->mode) ? td_sweep_discrete(&w) : td_sweep_backsolve(&w);
    if (!s) hand_over(rule, &w);
  }
  td_tensor_release(w.lambda);
  for (size_t i = 0; w.dexternal && i < ne; i++) td_tensor_release(w.dexternal[i]);
  td_free(w.dexternal, (ne + 1) * sizeof *w.dexternal);
  td_free(w.dtimes, w.dtimes ? nt * sizeof *w.dtimes : 0);
}

/* Gradients of ys, a replay of the solve on the tape, for the operands that need one. */
static td_status pull_recorded(td_rule *rule, td_tensor *ys, td_tensor *const *operand) {
  size_t count = (size_t)rule->nin, n = 0;
  td_tensor **inputs = td_alloc(2 * count * sizeof *inputs), **grads = inputs + count;
  size_t *place = td_alloc(count * sizeof *place);
  td_status s = inputs && place ? TD_OK : td_last_status();
  for (size_t i = 0; !s && i < count; i++) {
    if (!rule->need[i]) continue;
    place[n] = i;
    inputs[n++] = i < EXTERNALS ? operand[i] : rule->in[i];
  }
  if (!s && n && ys->node)
    s = td_backward(&ys, rule->dout, 1, inputs, (int)n, grads, TD_CREATE_GRAPH | TD_STOP_AT_INPUTS);
  else
    n = 0;
  for (size_t i = 0; i < n && !s; i++) rule->din[place[i]] = td_auto(grads[i]);
  td_free(place, count * sizeof *place);
  td_free(inputs, 2 * count * sizeof *inputs);
  return s;
}

static void second_free(td_ode_second *second) {
  if (second->free) second->free(second->data);
  *second = (td_ode_second){0};
}

void td_ode_second_reverse(const td_ode_second *second, td_rule *rule, td_field *f, void (*pass)(td_rule *)) {
  td_recording = false;
  pass(rule);
  td_recording = true;
  bool any = false;
  for (int i = 0; i < rule->nin; i++) any |= rule->din[i] != NULL;
  if (any) second->run(second->data, rule, f);
}

static void reverse_by_tangents(td_rule *rule) {
  td_ode_recorded *r = rule->data;
  if (rule->need[TIMES]) {
    td_fail(TD_EGRAD, "ode.solve: method %s has no second derivatives by times%s", r->o.method->name,
            r->nevents ? " through events" : "");
    return;
  }
  td_ode_second_reverse(&r->second, rule, r->f, reverse);
}

/* Recording is on: the pass itself must be differentiable. */
static void reverse_recorded(td_rule *rule) {
  td_ode_recorded *r = rule->data;
  if (r->mode != TD_ODE_DISCRETE) {
    td_fail(TD_EGRAD, "ode.solve: a second derivative of a solve needs grad = \"discrete\" or \"forward\"");
    return;
  }
  if ((r->nevents || !r->o.method->family->record) && r->second.run) {
    reverse_by_tangents(rule);
    return;
  }
  if (r->nevents) {
    td_fail(TD_EGRAD, "ode.solve: a solve with events has second derivatives for right-hand sides on tensors alone");
    return;
  }
  td_tensor *operand[EXTERNALS];
  for (int i = 0; i < EXTERNALS; i++) {  /* behind an identity, since f may use the very same tensors */
    bool need = rule->need[i];
    operand[i] = need ? td_do(td_op_find("contiguous"), NULL, 1, rule->in[i])
                      : td_auto(td_tensor_alias(rule->in[i]));
    if (!operand[i]) return;
  }
  uint64_t since = td_tape_now();
  td_tensor *ys = td_replay_all(r, operand[Y0], rule->need[TIMES] ? operand[TIMES] : NULL);
  if (ys && !check_known(r, &ys, 1, since, r->ts[0], operand, EXTERNALS)) pull_recorded(rule, ys, operand);
}

static void ode_vjp(td_rule *rule) {
  if (check_unspoiled(rule->data)) return;
  if (td_recording) reverse_recorded(rule);
  else reverse(rule);
}

static const td_op ode_op = {.name = "ode.solve", .vjp = ode_vjp, .keep = TD_KEEP_IN(Y0) | TD_KEEP_IN(TIMES)};

void td_ode_recorded_free(void *recorded) {
  td_ode_recorded *r = recorded;
  if (!r || --r->refs > 0) return;
  td_ode_solution_free(&r->solution);
  td_field_free(r->f);
  td_tensor_release(r->o.semilinear);
  td_tensor_release(r->o.mass);
  td_pattern_free(r->o.pattern);
  if (r->precondition_free) r->precondition_free(r->o.precondition_data);
  for (int i = 0; i < 2; i++) td_tensor_release(r->tolerances[i]);
  for (size_t i = 0; i < r->nevents; i++) {
    td_field_free(r->events[i].value);
    td_field_free(r->events[i].reset);
  }
  second_free(&r->second);
  td_free(r->events, r->nevents * sizeof *r->events);
  td_free(r->versions, r->nversions * sizeof *r->versions);
  td_free(r->ts, r->nts * sizeof *r->ts);
  if (r->nfe_free) r->nfe_free(r->nfe_owner);
  td_free(r, sizeof *r);
}

td_status td_ode_take_nodes(td_ode_recorded *r) {
  td_ode_solution *s = &r->solution;
  bool whole = r->nt == r->nts && s->reached == r->nts;
  size_t nts = s->nevery + !whole;  /* of a failed solve no step is the last one */
  double *ts = td_alloc(nts * sizeof *ts);
  if (!ts) return td_last_status();
  memcpy(ts, s->every_t, s->nevery * sizeof *ts);
  if (!whole) ts[s->nevery] = INFINITY;
  td_free(r->ts, r->nts * sizeof *r->ts);
  r->ts = ts;
  r->nt = s->nevery;
  r->nts = nts;
  r->nodes = true;
  return TD_OK;
}

/* What the reverse pass reads besides the steps. The saved states are an alias, or the node would own
 * itself. */
static td_status keep_for_reverse(td_ode_recorded *r, td_tensor *ys) {
  r->versions = td_alloc((r->f->nexternals + 1) * sizeof *r->versions);
  if (!r->versions) return td_last_status();
  r->nversions = r->f->nexternals + 1;
  for (size_t i = 0; i < r->f->nexternals; i++) r->versions[i] = version_of(r->f->externals[i]);
  r->versions[r->f->nexternals] = version_of(ys);
  if (td_ode_is_discrete(r->mode)) return TD_OK;
  r->solution.ys = td_tensor_alias(ys);
  return r->solution.ys ? TD_OK : td_last_status();
}

td_status td_ode_record(td_ode_recorded *r, td_tensor *const *out, int nout, td_tensor *y0, td_tensor *times) {
  size_t n = EXTERNALS + r->f->nexternals;
  td_tensor **in = td_alloc(n * sizeof *in);
  td_status s = in ? keep_for_reverse(r, out[0]) : td_last_status();
  if (s) {
    td_ode_recorded_free(r);
  } else {
    in[Y0] = y0;
    in[TIMES] = times;
    for (size_t i = 0; i < r->f->nexternals; i++) in[EXTERNALS + i] = r->f->externals[i];
    s = td_tape_custom(&ode_op, in, (int)n, out, nout, r, td_ode_recorded_free);
  }
  td_free(in, in ? n * sizeof *in : 0);
  return s;
}

static td_status share_one(td_field *to, td_field *f) {
  td_status s = TD_OK;
  for (size_t i = 0; f && i < f->nexternals && !s; i++) s = td_field_add_external(to, f->externals[i]);
  return s;
}

td_status td_ode_share_externals(td_ode_recorded *r) {
  td_status s = TD_OK;
  for (size_t i = 0; i < r->nevents && !s; i++) {
    s = share_one(r->f, r->events[i].value);
    if (!s) s = share_one(r->f, r->events[i].reset);
  }
  for (size_t i = 0; i < r->nevents && !s; i++) {
    s = td_field_share_externals(r->events[i].value, r->f);
    if (!s && r->events[i].reset) s = td_field_share_externals(r->events[i].reset, r->f);
  }
  for (int i = 0; i < 2 && r->f->half[i] && !s; i++) s = td_field_share_externals(r->f->half[i], r->f);
  return s;
}
