/* All methods by name. */
#include <string.h>
#include "solve/stepper.h"

extern const td_method *const td_methods_explicit[];

static const td_method *const *const families[] = {td_methods_explicit, NULL};

const td_method *const *td_methods(void) {
  enum { MOST = 128 };
  static const td_method *all[MOST + 1];
  if (all[0]) return all;
  int n = 0;
  for (const td_method *const *const *f = families; *f; f++)
    for (const td_method *const *m = *f; *m && n < MOST; m++) all[n++] = *m;
  return all;
}

const td_method *td_method_find(const char *name) {
  for (const td_method *const *m = td_methods(); *m; m++)
    if (!strcmp((*m)->name, name)) return *m;
  return NULL;
}
