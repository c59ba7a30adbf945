/* Events: where a function c(t, y) of the solution changes its sign, what happens there, and how gradients pass. The
 * time t* is found on the extension of the step, to rounding; the state there is the extension's. */
#ifndef TD_SOLVE_EVENT_H
#define TD_SOLVE_EVENT_H
#include "solve/stepper.h"

/* c is a field whose result is the number c in its first element (all others are ignored and get no cotangent); the
 * reset is a field that gives the state after from the one before. Both share the externals of the right-hand side. */
typedef struct {
  td_field *value;
  td_field *reset;      /* NULL: the state goes on */
  int direction;        /* +1: from negative to positive along the solve; −1; 0: both */
  unsigned stop_after;  /* the solve ends at the so-manieth time; 0: never */
  bool boolean;         /* c is ±1 from true and false: known at the end of a step only, its time has no derivative */
} td_event;

typedef struct {
  double t;
  size_t which;         /* of the events */
  size_t step;          /* of the trajectory, in which t lies */
  double theta;
  char *before, *after; /* states; one block, before first */
  bool boolean, cuts;   /* cuts: the solve starts afresh or ends here */
} td_event_hit;

typedef struct {
  td_event *events;
  size_t n;
  int points;           /* of a step at which signs are looked at */
  double *last, *now;   /* values of c, one for each */
  unsigned *count;
  bool *fresh;          /* fired at the step's start: its sign is taken from the first point inside */
  td_event_hit *hits;
  size_t nhits, room;
  size_t bytes;         /* of one state */
} td_event_list;

td_status td_event_list_make(td_event_list *l, td_event *events, size_t n, int points, size_t bytes);
void td_event_list_free(td_event_list *l);

/* The values at the start of the step to come. */
td_status td_event_begin(td_event_list *l, double t, const void *y);
/* Looks at the step that s has just made, number `step` of the trajectory, from its start on. All hits up to the first
 * one that cuts join the list; *cut is that one's θ, or 2. y and z are rooms for one state. */
td_status td_event_scan(td_event_list *l, td_stepper *s, size_t step, void *y, double *cut, bool *ends);
/* The step was accepted, uncut: its end is the next one's start. */
void td_event_advance(td_event_list *l);

/* What the reverse pass knows at a hit. */
typedef struct {
  const td_stepper *s;
  double tau;           /* cotangent of the hit's time */
  double tau0;          /* dL/dt0 of the segment that starts after it; 0 when none does */
  const char *after;    /* cotangent of the state after; NULL: none */
  const char *slope;    /* dy/dt of the extension at the hit */
  td_tensor **dexternal;
  char *room;           /* for two states */
} td_event_pass;
/* w, the cotangent of the state before at fixed time, gets all that comes through the event: it is then the cotangent
 * of the extension at the hit's θ. Externals get theirs. */
td_status td_event_pull(const td_event *e, const td_event_hit *hit, const td_event_pass *p, char *w);

#endif
