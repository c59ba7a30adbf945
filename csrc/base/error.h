/* Errors. A function that can fail returns a td_status and leaves one message, lower case, which
 * says what was expected and what came. Only csrc/lua/ turns a status into a Lua error. */
#ifndef TD_BASE_ERROR_H
#define TD_BASE_ERROR_H

typedef enum {
  TD_OK = 0,
  TD_EARG,    /* an argument's value is wrong */
  TD_ESHAPE,  /* shapes do not fit */
  TD_EDTYPE,  /* an element type is wrong */
  TD_ENOMEM,  /* memory was refused, or a size overflows */
  TD_EIO,     /* a file cannot be read or written, or its content is malformed */
  TD_EGRAD,   /* a gradient was asked for that does not exist */
  TD_ESOLVE,  /* a solver gave up */
  TD_ECALL    /* a callback failed and keeps its own error; pass it on untouched */
} td_status;

/* Leaves the formatted message and gives `code` back, so that callers write `return
 * td_fail(...)`. */
td_status td_fail(td_status code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The status and the message left by the last td_fail of this thread; TD_OK and "" when there is
 * none. */
td_status td_last_status(void);
const char *td_last_message(void);
void td_clear_error(void);

#endif
