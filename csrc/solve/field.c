/* Evaluating a right-hand side, checked. */
#include "solve/field.h"

static td_status check(const td_field *f, const td_tensor *y, uint32_t version, const td_tensor *dy) {
  if (!td_tensor_same_shape(dy, y) || dy->dtype != y->dtype)
    return td_fail(TD_ESHAPE, "%s: the right-hand side gave %s of shape (%s), expected %s of the state's shape "
                   "(%s)", f->who, td_dtype_name(dy->dtype), td_tensor_shape_string(dy), td_dtype_name(y->dtype),
                   td_tensor_shape_string(y));
  if (y->storage && y->storage->version != version)
    return td_fail(TD_EARG, "%s: the right-hand side wrote into its state in place, which the solver still needs", f->who);
  return TD_OK;
}

td_status td_field_eval(td_field *f, td_tensor *t, td_tensor *y, td_tensor **dy) {
  *dy = NULL;
  uint32_t version = y->storage ? y->storage->version : 0;
  td_status s = f->eval(f, t, y, dy);
  if (s) return s;
  s = check(f, y, version, *dy);
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
