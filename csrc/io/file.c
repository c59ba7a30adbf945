/* Files as bytes: mapped, read, and written atomically. */
#include "io/file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens a regular file for reading and gives its size; -1 and a message otherwise. O_NONBLOCK,
 * because opening a pipe would wait for its writer. */
static int open_regular(const char *path, size_t *size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    td_fail(TD_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    return -1;
  }
  struct stat st;
  if (fstat(fd, &st) != 0) {
    td_fail(TD_EIO, "%s: cannot be examined: %s", path, strerror(errno));
  } else if (!S_ISREG(st.st_mode)) {
    td_fail(TD_EIO, "%s: expected a regular file, found a %s", path,
            S_ISDIR(st.st_mode) ? "folder" : "device or pipe");
  } else {
    *size = (size_t)st.st_size;
    return fd;
  }
  close(fd);
  return -1;
}

static void unmap(td_storage *s) {
  munmap(s->data, s->bytes);
}

td_status td_file_map(const char *path, td_tensor **bytes) {
  *bytes = NULL;
  size_t size = 0;
  int fd = open_regular(path, &size);
  if (fd < 0) return TD_EIO;
  if (size == 0) {  /* mmap refuses to map nothing */
    close(fd);
    *bytes = td_tensor_new(TD_U8, 1, &size);
    return *bytes ? TD_OK : td_last_status();
  }
  void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
  int reason = errno;
  close(fd);
  if (p == MAP_FAILED)
    return td_fail(TD_EIO, "%s: cannot be mapped: %s", path, strerror(reason));
  td_storage *s = td_storage_wrap(p, size, unmap, NULL);
  if (!s) {
    munmap(p, size);
    return td_last_status();
  }
  *bytes = td_tensor_from_storage(s, TD_U8, 1, &size, 0);
  td_storage_release(s);
  return *bytes ? TD_OK : td_last_status();
}

td_status td_file_read(const char *path, td_tensor **bytes) {
  *bytes = NULL;
  size_t size = 0, got = 0;
  int fd = open_regular(path, &size);
  if (fd < 0) return TD_EIO;
  td_tensor *t = td_tensor_new(TD_U8, 1, &size);
  td_status status = t ? TD_OK : td_last_status();
  while (!status && got < size) {
    ssize_t n = read(fd, t->data + got, size - got);
    if (n > 0) got += (size_t)n;
    else if (n == 0)
      status = td_fail(TD_EIO, "%s: expected %zu bytes, found %zu: it was cut while being read",
                       path, size, got);
    else if (errno != EINTR)
      status = td_fail(TD_EIO, "%s: cannot be read: %s", path, strerror(errno));
  }
  close(fd);
  if (status) td_tensor_release(t);
  else *bytes = t;
  return status;
}

td_status td_bytes_copy(const void *data, size_t n, td_tensor **bytes) {
  *bytes = td_tensor_new(TD_U8, 1, &n);
  if (!*bytes) return td_last_status();
  if (n) memcpy((*bytes)->data, data, n);
  return TD_OK;
}

/* Creates `path`.tmp<process>-<k>, a name not taken, with the usual permissions of a new file, or
 * those of the file that it will replace. */
static td_status create_temp(td_writer *w, const char *path, const struct stat *old) {
  size_t room = strlen(w->path) + 48;
  w->temp = malloc(room);
  if (!w->temp) return td_fail(TD_ENOMEM, "%s: no memory to write it", path);
  int fd = -1;
  for (unsigned k = 0; fd < 0 && k < 1000; k++) {
    snprintf(w->temp, room, "%s.tmp%ld-%u", w->path, (long)getpid(), k);
    fd = open(w->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno != EEXIST) break;
  }
  if (fd < 0) return td_fail(TD_EIO, "%s: cannot be written: %s", path, strerror(errno));
  if (!old || fchmod(fd, old->st_mode & 0777) == 0) w->file = fdopen(fd, "wb");
  if (w->file) return TD_OK;
  td_status status = td_fail(TD_EIO, "%s: cannot be written: %s", path, strerror(errno));
  close(fd);
  unlink(w->temp);
  return status;
}

td_status td_writer_open(td_writer *w, const char *path) {
  *w = (td_writer){0};
  struct stat st;
  bool exists = stat(path, &st) == 0;
  if (exists && !S_ISREG(st.st_mode))
    return td_fail(TD_EIO, "%s: cannot be written: it exists and is a %s", path,
                   S_ISDIR(st.st_mode) ? "folder" : "device or pipe");
  w->path = exists ? realpath(path, NULL) : strdup(path);
  td_status status = TD_OK;
  if (!w->path) status = td_fail(TD_EIO, "%s: cannot be written: %s", path, strerror(errno));
  else status = create_temp(w, path, exists ? &st : NULL);
  if (status) {
    free(w->path);
    free(w->temp);
    *w = (td_writer){0};
  }
  return status;
}

td_status td_writer_put(td_writer *w, const void *data, size_t n) {
  if (!w->status && n && fwrite(data, 1, n, w->file) != n)
    w->status = td_fail(TD_EIO, "%s: cannot be written: %s", w->path, strerror(errno));
  return w->status;
}

td_status td_writer_put_tensor(td_writer *w, td_tensor *t) {
  if (w->status) return w->status;
  td_tensor *flat = td_tensor_contiguous(t);
  if (!flat) return w->status = td_last_status();
  td_writer_put(w, flat->data, flat->numel * td_dtype_size(flat->dtype));
  td_tensor_release(flat);
  return w->status;
}

td_status td_writer_close(td_writer *w, td_status status) {
  if (!status) status = w->status;
  bool flushed = fclose(w->file) == 0;  /* a full disk may show only here */
  if (!status && (!flushed || rename(w->temp, w->path) != 0))
    status = td_fail(TD_EIO, "%s: cannot be written: %s", w->path, strerror(errno));
  if (status) unlink(w->temp);
  free(w->path);
  free(w->temp);
  *w = (td_writer){0};
  return status;
}
