/* One lock for all lists: a form is asked for once in a convolution, which takes a thousand times longer. */
#include "kernels/forms.h"
#include <pthread.h>
#include <string.h>
#include "base/alloc.h"

enum { MOST_BYTES = 1 << 29 };  /* of all forms */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t held;
uint64_t td_forms_round;

static void drop_data(td_form *f) {
  if (f->data) held -= f->bytes;
  td_free(f->data, f->bytes);
  f->data = NULL;
  f->made = false;
}

static td_form *find(td_form **list, const td_form_key *key) {
  for (td_form *f = *list; f; f = f->next)
    if (!memcmp(&f->key, key, sizeof *key)) return f;
  td_form *f = td_alloc(sizeof *f);
  if (!f) return NULL;
  *f = (td_form){.next = *list, .key = *key};
  return *list = f;
}

/* Counts the use; true when the form is worth keeping. */
static bool is_wanted(td_form *f, uint32_t version) {
  bool counts = !td_forms_round || f->round != td_forms_round;
  f->round = td_forms_round;
  if (f->uses && f->version == version) {
    f->uses += counts;
    return f->uses > 1;
  }
  bool again = f->uses > 1;
  f->version = version;
  f->uses = 1;
  f->made = false;
  if (!again) drop_data(f);
  return again;
}

static bool has_room(td_form *f, size_t bytes) {
  if (f->data) return true;
  if (held + bytes > MOST_BYTES) return false;
  f->data = td_alloc(bytes);
  f->bytes = bytes;
  if (f->data) held += bytes;
  return f->data != NULL;
}

td_form *td_form_take(const td_forms *forms, const td_form_key *key, size_t bytes) {
  if (!forms) return NULL;
  pthread_mutex_lock(&lock);
  td_form *f = find(forms->list, key);
  bool kept = f && is_wanted(f, forms->version) && has_room(f, bytes);
  if (!kept || f->made) pthread_mutex_unlock(&lock);
  return kept ? f : NULL;
}

void td_form_done(td_form *form, bool made) {
  form->made = made;
  pthread_mutex_unlock(&lock);
}

void td_forms_free(td_form **list) {
  pthread_mutex_lock(&lock);
  while (*list) {
    td_form *f = *list;
    *list = f->next;
    drop_data(f);
    td_free(f, sizeof *f);
  }
  pthread_mutex_unlock(&lock);
}
