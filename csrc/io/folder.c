/* Listing folders, and making them. */
#include "io/folder.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int compare_names(const void *a, const void *b) {
  return strcmp(((const td_folder_entry *)a)->name, ((const td_folder_entry *)b)->name);
}

static td_status append(td_folder *f, size_t *room, int fd, const char *name) {
  if (f->n == *room) {
    size_t more = *room ? 2 * *room : 64;
    td_folder_entry *p = realloc(f->entry, more * sizeof *p);
    if (!p) return td_fail(TD_ENOMEM, "no memory to list a folder");
    f->entry = p;
    *room = more;
  }
  struct stat st;
  bool is_folder = fstatat(fd, name, &st, 0) == 0 && S_ISDIR(st.st_mode);
  char *copy = strdup(name);
  if (!copy) return td_fail(TD_ENOMEM, "no memory to list a folder");
  f->entry[f->n++] = (td_folder_entry){copy, is_folder};
  return TD_OK;
}

td_status td_folder_read(const char *path, td_folder *out) {
  *out = (td_folder){0};
  DIR *dir = opendir(path);
  if (!dir) return td_fail(TD_EIO, "%s: cannot be listed: %s", path, strerror(errno));
  td_status status = TD_OK;
  size_t room = 0;
  struct dirent *d;
  while (!status && (errno = 0, d = readdir(dir))) {
    if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
      status = append(out, &room, dirfd(dir), d->d_name);
  }
  if (!status && errno) status = td_fail(TD_EIO, "%s: cannot be listed: %s", path, strerror(errno));
  closedir(dir);
  if (status) td_folder_free(out);
  else if (out->n > 1) qsort(out->entry, out->n, sizeof *out->entry, compare_names);
  return status;
}

void td_folder_free(td_folder *f) {
  for (size_t i = 0; i < f->n; i++) free(f->entry[i].name);
  free(f->entry);
  *f = (td_folder){0};
}

td_status td_folder_make(const char *path) {
  size_t n = strlen(path);
  char *part = malloc(n + 1);
  if (!part) return td_fail(TD_ENOMEM, "%s: no memory to make a folder", path);
  memcpy(part, path, n + 1);
  td_status status = TD_OK;
  struct stat st;
  for (size_t i = 1; !status && i <= n; i++) {
    if (part[i] && part[i] != '/') continue;
    char kept = part[i];
    part[i] = 0;
    /* a part that is there is gone past, also where it could not be made */
    if (mkdir(part, 0777) != 0 && !(stat(part, &st) == 0 && S_ISDIR(st.st_mode)))
      status = td_fail(TD_EIO, "%s: cannot be made: %s", path, strerror(errno == EEXIST ? ENOTDIR : errno));
    part[i] = kept;
  }
  free(part);
  return status;
}
