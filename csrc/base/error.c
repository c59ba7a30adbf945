/* The last error of each thread: a status and one message. */
#include "base/error.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 1024 };

static _Thread_local td_status last_status;
static _Thread_local char last_message[MESSAGE_BYTES];

/* A longer message is cut. The arguments may contain td_last_message(), to put a prefix before
 * it. */
td_status td_fail(td_status code, const char *fmt, ...) {
  char text[MESSAGE_BYTES];
  va_list args;
  va_start(args, fmt);
  if (vsnprintf(text, sizeof text, fmt, args) < 0) text[0] = '\0';
  va_end(args);
  memcpy(last_message, text, strlen(text) + 1);
  last_status = code;
  return code;
}

td_status td_last_status(void) { return last_status; }

const char *td_last_message(void) { return last_message; }

void td_clear_error(void) {
  last_status = TD_OK;
  last_message[0] = '\0';
}
