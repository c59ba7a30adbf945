/* What is in a folder. */
#ifndef TD_IO_FOLDER_H
#define TD_IO_FOLDER_H
#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

typedef struct {
  char *name;           /* without the folder's path */
  bool is_folder;       /* itself or by a symbolic link */
} td_folder_entry;

typedef struct {
  td_folder_entry *entry;
  size_t n;
} td_folder;

/* The entries but . and .., in the order of their bytes. */
td_status td_folder_read(const char *path, td_folder *out);
void td_folder_free(td_folder *f);

#endif
