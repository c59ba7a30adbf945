/* A method's steps, as the solver's loop sees them. A *family* (explicit Runge–Kutta, DIRK, Rosenbrock, BDF …) is one
 * file and one struct of functions; a *method* is an entry of data of a family; a *stepper* is a method at work on one
 * field: the state at t, the state tried at `end`, and the family's own vectors in one block of memory. The loop
 * (integrate.c: step sizes, saving, events, failure) and the gradient modes know nothing else of a method.
 *
 * To add a family:
 *  1. a file csrc/solve/<family>.c with a `const td_family td_family_<name>` at its end; leave NULL what its comment
 *     below allows;
 *  2. its methods as td_method entries with `.family` and `.table`, listed in td_methods() of methods.c. ode.methods,
 *     the option check, the order measurements of the suite and the gradient modes find them there.
 * Rules: allocate in `make` only, never in a step; count every call of f (td_stepper_eval does) and every Jacobian and
 * factorisation; never evaluate f beyond `end` (td_stepper_time clips); do not test for NaN, the loop does. */
#ifndef TD_SOLVE_STEPPER_H
#define TD_SOLVE_STEPPER_H
#include "kernels/kernels.h"
#include "solve/field.h"

enum { TD_MAX_TERMS = 40 };

typedef struct td_stepper td_stepper;
typedef struct td_family td_family;
struct td_ode_options;

typedef struct {
  const char *name;
  const char *source;        /* who published it */
  const td_family *family;
  int order;
  int error_order;           /* of the error estimate; 0: none, the method needs a step size */
  int dense_order;           /* the conditions that the extension satisfies at every point of a step */
  int stages;                /* for the listing; 0 where it means nothing */
  const void *table;         /* the family's coefficients */
} td_method;

/* All methods, NULL at the end (methods.c). */
const td_method *const *td_methods(void);
const td_method *td_method_find(const char *name);

/* Σ coef[i] x[i], a vector that need not be stored: an error estimate is judged in one pass over its parts. */
typedef struct {
  int count;
  double coef[TD_MAX_TERMS];
  const void *x[TD_MAX_TERMS];
} td_terms;

typedef enum {
  TD_STEP_DONE,     /* y1 and the error are there; they may still be NaN */
  TD_STEP_REFUSED   /* no y1: Newton did not converge, or the like. The loop tries again with retry × the step */
} td_step_result;

typedef struct {
  uint64_t nfe, njev, nlu;  /* calls of f, Jacobians, factorisations */
} td_step_counts;

struct td_stepper {
  const td_method *method;
  const struct td_ode_options *o;  /* tolerances, max_order, … (integrate.h) */
  td_field *f;
  const td_kernels *k;             /* of the state's type */
  size_t n, bytes;                 /* elements and bytes of one vector */
  td_step_counts *counts;

  double t, end;                   /* the step goes from t to end; h = end − t */
  double first_time;               /* where f is called instead of at t: t, or one ulp after a jump there */
  double last_time;                /* where f is called instead of at `end`: end, or one ulp before a jump there */
  char *y, *y1;                    /* at t; at end, after a step */
  char *f0, *f1;                   /* f(t, y), f(last_time, y1): valid when have_f0, have_f1 */
  bool have_f0, have_f1;
  size_t number;                   /* of the step to make or to go back over, from 0 on */
  bool hold;                       /* keep its evaluations for going back, if the family can (captured.h) */
  bool ends;                       /* it is the last one, and no value inside it is asked for */
  td_terms error;                  /* of y1; count 0: this step has no estimate and is accepted */
  td_terms error2;                 /* a second, lower estimate, for dop853's quotient of the two; count 0: none */
  double retry;                    /* factor after TD_STEP_REFUSED */
  const char *why;                 /* of a refusal, for the message: "Newton's iteration diverged" */

  char *block;                     /* the one allocation: y, y1, f0, f1, then the family's vectors */
  size_t block_bytes;
  char *vectors;                   /* the family's, `bytes` rounded up to 64 apart: td_stepper_vector(s, i) */
  size_t nvectors;
  size_t most_history;             /* set by `make`: the greatest number of history vectors, see family.history */
  void *own;                       /* the family's struct, made and freed by it */
};

/* Cotangents that pass through one step in reverse, step [s->t, s->end], number s->number, from s->y being loaded. */
typedef struct {
  char *lambda;              /* (1 + history) vectors: cotangent of the kept state after the step; becomes that before
                              * it. The first vector is that of y */
  size_t ndense;             /* values y(θ) inside the step (or at θ = 1) that have cotangents of their own */
  const double *theta;
  const void *const *w;
  double *theta_bar;         /* NULL, or of ndense: receives wᵢᵀ dy(θᵢ)/dθ */
  double *tbar, *hbar;       /* NULL, or added to: derivative by t at fixed h and θ, and by h at fixed t and θ */
  td_tensor **dexternal;     /* as in field.h */
  bool held;                 /* evaluations that the field still holds are those of this step */
} td_step_back;

/* One step on the tape, for second derivatives. All tensors automatic (td_auto). */
typedef struct {
  td_tensor *y, *y1;         /* in; out */
  td_tensor *t, *end, *h;    /* 0-d float64 on the tape when times are differentiated, else NULL */
  size_t ndense;
  const double *theta;
  td_tensor *const *shift;   /* NULL, or 0-d: value 0, carries how θᵢ moves; enters to first order */
  td_tensor **dense;         /* out: y(θᵢ) */
} td_step_record;

struct td_family {
  const char *name;
  /* Is it made for stiff problems (for hints), and can it only be stepped on a grid of equal steps? */
  bool stiff, equal_steps;
  /* Does it solve M y' = f (the option mass) too, also with a singular M? */
  bool mass;

  /* Fills s->own and asks for vectors by td_stepper_room. s->method, o, f are set. Fails for what it cannot do. */
  td_status (*make)(td_stepper *s);
  void (*free)(td_stepper *s);                       /* s->own; NULL: nothing */

  /* A fresh start at (s->t, s->y), at the beginning or after a jump or an event: history is forgotten. NULL: nothing to
   * forget but f0, which the caller does. */
  td_status (*start)(td_stepper *s);
  /* From (t, y) to end: fills y1, error and, when it is known, f1 with have_f1. A step that is tried again begins from
   * the same (t, y); f0 stays valid. */
  td_status (*step)(td_stepper *s, td_step_result *result);
  /* The step is accepted: history moves on. Called before the loop swaps y with y1 and f0 with f1. May be NULL. */
  td_status (*accept)(td_stepper *s);
  /* The step was rejected for its error (finite, > 1) or for NaN. May be NULL. */
  void (*reject)(td_stepper *s, bool finite);
  /* The next step's factor from the error of this one, for families that choose their own order and size; for
   * accepted ones called after `accept`. NULL: the loop's controller decides. */
  double (*factor)(td_stepper *s, double error, bool accepted);

  /* y(t + θh) and, unless slope is NULL, dy/dt there, within the step just made and not yet accepted; θ in [0, 1].
   * Extra stages are computed when first needed in a step, and counted. y may be NULL. */
  td_status (*dense)(td_stepper *s, double theta, void *y, void *slope);

  /* What a checkpoint holds besides y: `history` vectors that the step starts from, moved by save and load. NULL: none,
   * the step starts from y alone (f0 is computed again, to the same bits). */
  size_t (*history)(const td_stepper *s);
  void (*save)(const td_stepper *s, char *to);       /* history vectors, `bytes` apart */
  td_status (*load)(td_stepper *s, const char *from);

  /* The exact transpose of the step (spec: λ ← Jᵀλ through every stage), its forward part computed again from
   * (t, y, history). NULL: no discrete gradient, refused with words. */
  td_status (*back)(td_stepper *s, td_step_back *b);
  /* The transpose of `start`, for families with history: the history's cotangents in b->lambda are joined to y's and,
   * when `start` called f, to tbar and dexternal. NULL: nothing. */
  td_status (*start_back)(td_stepper *s, td_step_back *b);
  /* Reversible schemes: the kept state at s->end, which s holds, becomes that at s->t. NULL: not reversible. */
  td_status (*undo)(td_stepper *s);
  /* Explicit methods: what fields that make many steps on their own are told. NULL: they make none. */
  void (*describe)(const td_stepper *s, td_field_method *m);
  /* The step on the tape. NULL: no second derivatives, refused with words. */
  td_status (*record)(td_stepper *s, td_step_record *r);
};

/* ---- For the loop and the gradient modes ---- */
td_status td_stepper_make(td_stepper *s, const td_method *m, const struct td_ode_options *o, td_field *f,
                          td_step_counts *counts);
void td_stepper_free(td_stepper *s);
/* Puts the stepper at (t, y), history and slopes forgotten. */
td_status td_stepper_start(td_stepper *s, double t, const void *y);
/* Makes f0 = f(t, y) known. */
td_status td_stepper_slope(td_stepper *s);
/* Sets end and last_time, and makes the step. */
td_status td_stepper_step(td_stepper *s, double end, bool before_jump, td_step_result *result);
/* The step is over: t = end, y = y1. */
td_status td_stepper_accept(td_stepper *s);
/* The kept state (y and history): its size in vectors, out and in again. */
size_t td_stepper_kept(const td_stepper *s);
void td_stepper_save(const td_stepper *s, char *to);
td_status td_stepper_load(td_stepper *s, double t, const char *from);

/* ---- For families ---- */
/* `count` more vectors in the block; in `make` only. */
void td_stepper_room(td_stepper *s, size_t count);
static inline char *td_stepper_vector(const td_stepper *s, size_t i) {
  return s->vectors + i * ((s->bytes + 63) & ~(size_t)63);
}
/* dy = f(t, y), counted. */
td_status td_stepper_eval(td_stepper *s, double t, const void *y, void *dy);
/* t + c·h, and exactly first_time and last_time where c is 0 or 1. */
double td_stepper_time(const td_stepper *s, double c);
/* out = base + Σ coef[i] x[i] (base NULL: zero); the fused pass, with a short way for small states. */
void td_stepper_combine(const td_stepper *s, void *out, const void *base, int count, const double *coef,
                        const void *const *x);
/* Σ a[i] b[i] in double. */
double td_stepper_dot(const td_stepper *s, const void *a, const void *b);
/* Root mean square of x over the tolerances, for the greater of |y| and |y1|. */
double td_stepper_size(const td_stepper *s, const void *x);
/* The cubic through both ends and their slopes, for families without an extension of their own: makes f1 known. */
td_status td_stepper_hermite(td_stepper *s, double theta, void *y, void *slope);

#endif
