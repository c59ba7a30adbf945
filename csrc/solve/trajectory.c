/* Keeping accepted steps, and coming back to their starts under a budget of states. */
#include "solve/trajectory.h"
#include <math.h>
#include <string.h>
#include "base/alloc.h"

/* ---- Binomial schedules ---- */

/* C(c + r, c), or infinity past the range that matters. */
static double binomial(size_t c, size_t r) {
  double b = 1;
  for (size_t i = 1; i <= c && b < 1e18; i++) b = b * (double)(r + i) / (double)i;
  return floor(b + 0.5);
}

/* The least r with C(c + r, c) ≥ n. */
static size_t repetition(size_t n, size_t c) {
  size_t r = 0;
  while (binomial(c, r) < (double)n) r++;
  return r;
}

double td_revolve_count(size_t n, size_t c) {
  if (n < 2) return 0;
  if (c >= n) c = n - 1;
  size_t r = repetition(n, c);
  return (double)r * (double)n - binomial(c + 1, r - 1);  /* C(c + r, c + 1) */
}

size_t td_revolve_split(size_t n, size_t c) {
  if (n < 2) return 0;
  if (c >= n) return 1;
  if (c == 1) return n - 1;
  size_t r = repetition(n, c);
  double most = binomial(c, r - 1), right = (double)n - binomial(c - 1, r - 1);
  double k = most < right ? most : right;
  return k < 1 ? 1 : (size_t)k;
}

/* ---- Keeping ---- */

enum { SMALL = 128, IN_BLOCK = 63, BLOCK_HEAD = 64 };

static size_t block_bytes(const td_state_pool *pool) { return BLOCK_HEAD + IN_BLOCK * pool->each; }

/* Room for a small state; NULL when there is no memory. */
static char *pool_take(td_state_pool *pool) {
  char *state = pool->free;
  if (state) {
    memcpy(&pool->free, state, sizeof pool->free);
    return state;
  }
  if (!pool->left) {
    char *block = td_alloc(block_bytes(pool));
    if (!block) return NULL;
    memcpy(block, &pool->blocks, sizeof pool->blocks);
    pool->blocks = block;
    pool->left = IN_BLOCK;
  }
  return pool->blocks + BLOCK_HEAD + --pool->left * pool->each;
}

static void pool_give(td_state_pool *pool, char *state) {
  memcpy(state, &pool->free, sizeof pool->free);
  pool->free = state;
}

static void pool_free(td_state_pool *pool) {
  while (pool->blocks) {
    char *block = pool->blocks;
    memcpy(&pool->blocks, block, sizeof pool->blocks);
    td_free(block, block_bytes(pool));
  }
}

static void forget_state(td_trajectory *p, td_ode_step *step) {
  if (!step->state) return;
  if (step->pooled) pool_give(&p->pool, step->state);
  else td_free(step->state, step->bytes);
  step->state = NULL;
  p->kept--;
}

static td_status keep_state(td_trajectory *p, td_ode_step *step, const td_stepper *s) {
  size_t bytes = td_stepper_kept(s) * s->bytes, each = (bytes + !bytes + 15) & ~(size_t)15;
  if (!p->pool.each && each <= SMALL) p->pool.each = each;
  step->bytes = (bytes + !bytes) & (((uint64_t)1 << 48) - 1);
  step->pooled = each == p->pool.each;
  step->state = step->pooled ? pool_take(&p->pool) : td_alloc(step->bytes);
  if (!step->state) return td_last_status();
  td_stepper_save(s, step->state);
  p->kept++;
  return TD_OK;
}

/* Twice as far apart, so that half the slots are free again. */
static void thin(td_trajectory *p) {
  p->stride *= 2;
  for (size_t i = 0; i < p->n; i++)
    if (i % p->stride && !p->steps[i].pinned) forget_state(p, &p->steps[i]);
}

/* Is the state at the start of the next step to be kept? */
static bool wants_state(td_trajectory *p, size_t bytes) {
  if (!p->keep) return false;
  if (p->n == 0) {
    if (p->budget && bytes && p->slots == SIZE_MAX) p->slots = p->budget / bytes;
    if (p->slots < 1) p->slots = 1;
    p->stride = 1;
    p->next_kept = p->slots < p->planned ? td_revolve_split(p->planned, p->slots) : SIZE_MAX;
    return true;
  }
  if (p->slots >= (p->planned ? p->planned : SIZE_MAX)) return true;
  if (!p->planned && p->stride == 1 && p->kept < p->slots) return true;
  if (p->planned) {
    if (p->n + 1 == p->planned) return true;  /* the sweep begins here: this state is at hand */
    if (p->n != p->next_kept || p->kept >= p->slots) return false;
    size_t left = p->slots - p->kept;  /* this one included */
    size_t ahead = left > 1 ? td_revolve_split(p->planned - p->n, left) : 0;
    p->next_kept = ahead ? p->n + ahead : SIZE_MAX;
    return true;
  }
  if (p->n % p->stride) return false;
  if (p->kept >= p->slots) thin(p);
  return p->n % p->stride == 0 && p->kept < p->slots;
}

static td_status grow(td_trajectory *p) {
  size_t wanted = p->n < p->planned ? p->planned : p->capacity ? 2 * p->capacity : 64;
  td_ode_step *grown = td_alloc(wanted * sizeof *grown);
  if (!grown) return td_last_status();
  if (p->n) memcpy(grown, p->steps, p->n * sizeof *grown);
  td_free(p->steps, p->capacity * sizeof *grown);
  p->steps = grown;
  p->capacity = wanted;
  return TD_OK;
}

td_status td_trajectory_add(td_trajectory *p, const td_stepper *s, const td_ode_step *like) {
  if (p->unrecorded) return TD_OK;
  td_status status = p->n == p->capacity ? grow(p) : TD_OK;
  if (status) return status;
  td_ode_step *step = &p->steps[p->n];
  *step = *like;
  step->t = s->t;
  step->end = s->end;
  step->state = NULL;
  if (wants_state(p, s->bytes) || (step->pinned && p->keep)) status = keep_state(p, step, s);
  if (!status) p->n++;
  return status;
}

void td_trajectory_free(td_trajectory *p) {
  for (size_t i = 0; i < p->n; i++) forget_state(p, &p->steps[i]);
  pool_free(&p->pool);
  td_free(p->steps, p->capacity * sizeof *p->steps);
  td_free(p->last, p->last_bytes);
  *p = (td_trajectory){0};
}

/* ---- Coming back ---- */

/* A fresh start of s for this step from y. */
static td_status start(td_stepper *s, const td_ode_step *step, const char *y) {
  td_status status = td_stepper_start(s, step->t, y);
  if (step->after_jump) s->first_time = nextafter(step->t, step->end);
  return status;
}

static td_status load(td_stepper *s, const td_ode_step *step) {
  return step->restart ? start(s, step, step->state) : td_stepper_load(s, step->t, step->state);
}

/* Makes step i of the grid again, and moves on. */
static td_status make_again(td_trajectory *p, td_stepper *s, size_t i, uint64_t *replayed) {
  td_step_result result;
  const td_ode_step *step = &p->steps[i];
  td_status status = td_stepper_step(s, step->end, step->before_jump, &result);
  if (status) return status;
  ++*replayed;
  status = td_stepper_accept(s);
  if (!status && i + 1 < p->n && p->steps[i + 1].restart) {  /* the loop started afresh there */
    status = start(s, &p->steps[i + 1], s->y);
  }
  return status;
}

td_status td_trajectory_seek(td_trajectory *p, td_stepper *s, size_t n, uint64_t *replayed) {
  for (size_t i = n + 1; i < p->n && p->steps[i].state; i++)
    if (!p->steps[i].pinned) forget_state(p, &p->steps[i]);
  size_t from = n;
  while (!p->steps[from].state) from--;
  td_status status = load(s, &p->steps[from]);
  while (from < n && !status) {
    size_t slots = 1 + (p->slots > p->kept ? p->slots - p->kept : 0), steps = n + 1 - from;
    size_t stop = from + td_revolve_split(steps, slots);
    for (; from < stop && !status; from++) status = make_again(p, s, from, replayed);
    if (!status && slots > 1 && !p->steps[from].state) status = keep_state(p, &p->steps[from], s);
  }
  return status;
}

td_status td_trajectory_at(td_trajectory *p, td_stepper *s, size_t n, uint64_t *replayed) {
  size_t from = n;
  while (!p->steps[from].state) from--;
  td_status status = load(s, &p->steps[from]);
  for (; from < n && !status; from++) status = make_again(p, s, from, replayed);
  return status;
}
