/* All methods by name. */
#include <string.h>
#include "solve/stepper.h"

extern const td_method *const td_methods_explicit[],
    *const td_methods_dirk[], *const td_methods_rosenbrock[], *const td_methods_irk[],
                                                                  *const td_methods_bdf[],
                                                                      *const td_methods_symplectic[],
                                                                          *const td_methods_reversible[],
                                                                              *const td_methods_exponential[],
                                                                                  *const td_methods_adams[],
                                                                                      *const td_methods_auto[];

static const td_method *const *const families[] = {
  td_methods_explicit, td_methods_rosenbrock, td_methods_dirk, td_methods_irk, td_methods_bdf, td_methods_symplectic,
  td_methods_reversible, td_methods_exponential, td_methods_adams, td_methods_auto,
  NULL,
};

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
