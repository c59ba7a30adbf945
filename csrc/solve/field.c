/* Evaluating a right-hand side, checked. */
#include "solve/field.h"

td_status td_field_eval(td_field *f, td_tensor *t, td_tensor *y, td_tensor **dy) {
  *dy = NULL;
  f->calls++;
  td_status s = f->eval(f, t, y, dy);
  if (s) return s;
  if (!td_tensor_same_shape(*dy, y) || (*dy)->dtype != y->dtype)
    s = td_fail(TD_ESHAPE, "the right-hand side gave %s of shape (%s), expected %s of the state's shape (%s)",
                td_dtype_name((*dy)->dtype), td_tensor_shape_string(*dy), td_dtype_name(y->dtype),
                td_tensor_shape_string(y));
  if (!s && !(*dy)->node && !td_tensor_is_contiguous(*dy)) {
    td_tensor *flat = td_tensor_contiguous(*dy);
    td_tensor_release(*dy);
    *dy = flat;
    if (!flat) s = td_last_status();
  }
  if (s) {
    td_tensor_release(*dy);
    *dy = NULL;
  }
  return s;
}
