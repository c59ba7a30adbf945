/* Forms of an operand that a kernel prepares once and reads many times: the weights of a convolution, transformed and
 * packed. They lie in a list at the operand's storage, whose version tells whether they still hold. */
#ifndef TD_KERNELS_FORMS_H
#define TD_KERNELS_FORMS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct td_form td_form;

/* Where forms of an operand are kept. NULL in place of it: nowhere. */
typedef struct {
  td_form **list;
  uint32_t version;     /* of the operand's values */
} td_forms;

/* What a form is made of; unused numbers are 0. */
typedef struct {
  const void *operand;
  size_t way, size[16];
} td_form_key;

struct td_form {
  td_form *next;
  td_form_key key;
  void *data;
  size_t bytes;
  uint32_t version;     /* of the values that `data` was made from, or will be */
  uint32_t uses;        /* asked for in this version */
  uint64_t round;       /* when it was last asked for */
  bool made;
};

/* The form of this key, of `bytes`; NULL: prepare it in scratch, since nobody may ask again, or there is no room. It is
 * kept from the second time on that the same values are asked for, and at once when those before were asked for
 * again. When it is not `made` the caller fills it and calls td_form_done; until then no other thread goes on here. */
td_form *td_form_take(const td_forms *forms, const td_form_key *key, size_t bytes);
void td_form_done(td_form *form, bool made);
/* Not 0: uses count once while it stays the same, since a program asks for each of its tiles. */
extern uint64_t td_forms_round;
/* All forms of a list. */
void td_forms_free(td_form **list);

#endif
