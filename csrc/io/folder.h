/* What is in a folder, and making one. */
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

/* Makes a folder and those above it that are missing; one that is there already is no failure. */
td_status td_folder_make(const char *path);

#endif
