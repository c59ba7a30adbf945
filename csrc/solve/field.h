/* What a solver sees of a right-hand side: y' = f(t, y) over contiguous arrays of `numel` elements of one real type. A
 * Lua function on tensors, a Lua function on plain numbers, a captured program and a C function all present
 * themselves like this; no solver knows which it has.
 *
 * Who makes one fills `who`, the state's type and shape, `eval`, `free` and what it has of the rest. What is NULL is
 * either derived here (vjp, keep and pull from `record`; keep and pull from `vjp`) or refused with words. */
#ifndef TD_SOLVE_FIELD_H
#define TD_SOLVE_FIELD_H
#include "tensor/tensor.h"

/* One explicit Runge–Kutta step, for fields that make several of its stages at once: kᵢ = f(tᵢ, y + h Σⱼ aᵢⱼ kⱼ) of the
 * stages from `first` to before `end`, with the k before given. y1 receives the last stage's state. */
typedef struct {
  const char *method;       /* its name, the same pointer as in td_methods() */
  int stages, first, end;
  bool keep;                /* for their transpose, under the stages' numbers as slots */
  void *state;              /* room for a state */
  const double *a, *b;      /* row i of a, of i numbers, begins at i(i − 1)/2 */
  const double *e, *e2;     /* of the error estimates h Σ eᵢ kᵢ; NULL: there is none */
  bool fsal;                /* the last stage is the slope at the step's end */
  double h;
  const double *t;
  const void *y;
  void *const *k;
  void *y1;
} td_field_stages;

/* Σₖ wₖᵀ(∂f/∂y uₖ + ∂f/∂t vₖ), whose derivatives are second ones of f. */
enum { TD_SECOND_MOST = 16 };
typedef struct {
  size_t count;          /* at most TD_SECOND_MOST */
  bool units;            /* wₖ is the k-th unit vector and count the state's size; w is NULL */
  const double *w, *u;   /* count vectors each */
  const double *v;       /* count numbers */
} td_field_second;

/* An explicit method, for fields that make many of its steps on their own: its step without what belongs to a single
 * one (h, t, y, k, y1, state), when its stages are (0 and 1 exactly where that is an end of the step), and how many of
 * them its transpose evaluates. */
typedef struct {
  td_field_stages step;
  const double *c;
  int needed;
} td_field_method;

struct td_pattern;
struct td_ode_step;

/* Steps with error control that a field makes on its own, one after the other, until the next would reach `limit`: what
 * a march is told and what it leaves, in this order (lua/tide/ode/march.lua reads it so). The names are those of
 * td_controller and td_ode_options; exponents are −k[i]/q, and −1/q after a rejected step. */
enum {
  TD_MARCH_T, TD_MARCH_H,                      /* changed */
  TD_MARCH_LIMIT, TD_MARCH_DIRECTION, TD_MARCH_MOST, /* trials */
  TD_MARCH_RTOL, TD_MARCH_ATOL, TD_MARCH_IS_MAX, /* the norm */
  TD_MARCH_MIN_STEP, TD_MARCH_MAX_STEP,
  TD_MARCH_SAFETY, TD_MARCH_SHRINK, TD_MARCH_LEAST, TD_MARCH_GROW, TD_MARCH_HOLDS,
  TD_MARCH_EXPONENT, TD_MARCH_EXPONENT_1, TD_MARCH_EXPONENT_2, TD_MARCH_EXPONENT_REJECTED,
  TD_MARCH_ERROR_1, TD_MARCH_ERROR_2, TD_MARCH_WAS_REJECTED, /* (2: not finite) changed, like all that follow */
  TD_MARCH_H_MIN, TD_MARCH_H_MAX, TD_MARCH_ACCEPTED, TD_MARCH_REJECTED, TD_MARCH_WORST,
  TD_MARCH_KNOWN, TD_MARCH_SLOPES, /* is f(t, y) there, and how often it was asked for as a step's first stage */
  TD_MARCH_STATE  /* y, f(t, y), how often each element had the largest error; then room for three more vectors */
};

typedef struct td_field td_field;
struct td_field {
  const char *who;   /* whose messages these are: "ode.solve" */
  const char *kind;  /* what it is, for messages: "a function of plain numbers" */
  td_dtype dtype;
  int ndim;
  size_t numel, shape[TD_MAX_DIMS];

  /* dy = f(t, y). dy never overlaps y. A right-hand side that wants a smaller step leaves NaN in dy. */
  td_status (*eval)(td_field *f, double t, const void *y, void *dy);
  /* *done is false when it does not make these stages at once now: the caller goes stage by stage. May be NULL. */
  td_status (*stages)(td_field *f, const td_field_stages *step, bool *done);
  /* Makes steps of the method of that name, or of any (NULL); block: as above, rows: receives t, end and y of each
   * accepted step. *done is false when it makes none now. May be NULL. */
  const char *march_method;
  td_status (*march)(td_field *f, const td_field_method *m, double *block, double *rows, bool *done);
  /* The transpose of that step, whose k and y1 mean nothing here: lambda, the cotangent of y + h Σ bᵢ kᵢ, becomes that
   * of y; dexternal as in vjp, not NULL. May be NULL. */
  td_status (*stages_back)(td_field *f, const td_field_stages *step, void *lambda, td_tensor **dexternal, bool *done);
  /* The same over many steps, whose states are kept, from the last to the first. May be NULL. */
  td_status (*march_back)(td_field *f, const td_field_method *m, const struct td_ode_step *steps, size_t count,
                          void *lambda, td_tensor **dexternal, bool *done);
  /* ybar = wᵀ∂f/∂y; *tbar += wᵀ∂f/∂t unless tbar is NULL; dexternal[i] += wᵀ∂f/∂externals[i], where a NULL entry is
   * zero so far and an entry that is set holds one reference. dexternal itself may be NULL: not wanted. ybar may be
   * w. */
  td_status (*vjp)(td_field *f, double t, const void *y, const void *w, void *ybar, double *tbar,
                   td_tensor **dexternal);
  /* out = ∂f/∂y v + ∂f/∂t vt. May be NULL; ask through td_field_jvp. */
  td_status (*jvp)(td_field *f, double t, const void *y, const void *v, double vt, void *out);
  /* jacobian (n×n, row-major) = ∂f/∂y and, unless NULL, ft = ∂f/∂t. NULL where implicit methods have to put it together
   * from the others. */
  td_status (*jacobian)(td_field *f, double t, const void *y, double *jacobian, double *ft);
  bool jacobian_calls;          /* it runs f once to find it, which counts as a call */
  /* The entries of ∂f/∂y in the order of a pattern (band.h), when the caller has made one for it. NULL elsewhere. */
  td_status (*entries)(td_field *f, double t, const void *y, const struct td_pattern *p, double *values);
  /* f on the tape, for second derivatives: *dy receives one reference to a tensor of y's shape and type. t is 0-d
   * float64; both may carry nodes. NULL where it cannot be. */
  td_status (*record)(td_field *f, td_tensor *t, td_tensor *y, td_tensor **dy);
  /* ybar += the sum's derivative by y, *tbar += that by t unless NULL, dexternal as in vjp. NULL: it is made on the
   * tape. */
  td_status (*second)(td_field *f, double t, const void *y, const td_field_second *sum, double *ybar, double *tbar,
                      td_tensor **dexternal);
  /* Runs work(data) where `record` may be called. NULL: right here. */
  td_status (*elsewhere)(td_field *f, td_status (*work)(void *data), void *data);

  /* One evaluation that serves its own reverse pass: keep evaluates and remembers under a number of the caller's, pull
   * is vjp at what was kept there. Both or neither. y stays unchanged between. */
  td_status (*keep)(td_field *f, int slot, double t, const void *y, void *dy);
  td_status (*pull)(td_field *f, int slot, const void *w, void *ybar, double *tbar, td_tensor **dexternal);
  void (*forget)(td_field *f);  /* all that was kept */
  bool rows_by_pull;            /* nothing else uses the numbers: a Jacobian is put together from pulls at number 0 */

  td_tensor **externals;        /* what f depends on besides t and y and a gradient is wanted for; one reference each */
  size_t nexternals, capacity;  /* the array is td_alloc'ed for capacity tensors */

  td_field *half[2];            /* f = half[0] + half[1], where a method takes the first explicitly and the second
                                 * implicitly; both or neither, owned. They have the externals of the whole */
  size_t row;                   /* of a batch's events and resets: which row asks, from 1; 0: none */
  bool time_wanted;             /* set by a reverse pass: pull will be asked for tbar after this keep */
  void (*free)(td_field *f);    /* the field itself; the rest is given back before, by td_field_free */
  struct td_field_kept *kept;   /* of the derived keep and pull */
  int nkept;
  struct td_field_programs *programs;                  /* of a captured field (captured.h) */
  void (*programs_free)(struct td_field_programs *p);
};

/* The doors: each derives what the field has not, or fails saying what is missing. */
td_status td_field_vjp(td_field *f, double t, const void *y, const void *w, void *ybar, double *tbar,
                       td_tensor **dexternal);
td_status td_field_jvp(td_field *f, double t, const void *y, const void *v, double vt, void *out);
td_status td_field_keep(td_field *f, int slot, double t, const void *y, void *dy);
td_status td_field_pull(td_field *f, int slot, const void *w, void *ybar, double *tbar, td_tensor **dexternal);
void td_field_forget(td_field *f);
/* f on the tape, checked to have y's shape and type and to have left y as it was. */
td_status td_field_record(td_field *f, td_tensor *t, td_tensor *y, td_tensor **dy);
/* Finds the externals by running f once on the tape (when it has `record`); dy receives f(t, y). Further tensors may be
 * added by td_field_add_external, which ignores constants and what is known. */
td_status td_field_explore(td_field *f, double t, const void *y, void *dy);
td_status td_field_add_external(td_field *f, td_tensor *x);
/* What dy, recorded on the tape from `since` on, depends on besides joins the externals. */
td_status td_field_find_externals(td_field *f, td_tensor *dy, uint64_t since);
/* Forgets them. */
void td_field_drop_externals(td_field *f);
/* f's externals become those of `all`. */
td_status td_field_share_externals(td_field *f, td_field *all);
void td_field_free(td_field *f);
/* Gives back what the derived keep has, for fields that are part of something else. */
void td_field_drop_kept(td_field *f);

/* *sum += x, in place when nobody else looks at *sum; either may be NULL. */
td_status td_field_add(td_tensor **sum, td_tensor *x);

#endif
