/* Reading and writing safetensors. The reader goes over the header once into a list of entries,
 * checks the list as a whole (names, ranges), and only then makes tensors. */
#include "io/safetensors.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/element.h"
#include "io/file.h"
#include "io/scan.h"
#include "io/utf8.h"

enum { HEADER_MAX = 100000000, ALIGN = 64 };
static const char metadata_key[] = "__metadata__";

/* ---- Reading --------------------------------------------------------------------------------- */

typedef struct {
  const char *name;
  td_element element;
  int ndim;
  size_t shape[TD_MAX_DIMS];
  size_t begin, end;    /* in bytes, from the end of the header */
} entry;

typedef struct {
  td_scan scan;
  char *text;           /* where the next decoded text goes: its room is the header's length */
  entry *entries;
  size_t nentry, entry_room;
  td_text_pair *pairs;
  size_t npair, pair_room;
  bool metadata_seen;
} reader;

/* "file: tensor 'name'", for messages. */
typedef struct { char text[400]; } label;

static label label_of(const reader *r, const entry *e) {
  label l;
  snprintf(l.text, sizeof l.text, "%.300s: tensor '%s'", r->scan.name,
           td_printable_of(e->name).text);
  return l;
}

/* Makes room for one more item of `size` bytes. */
static td_status reserve(void **items, size_t count, size_t *room, size_t size, const char *name) {
  if (count < *room) return TD_OK;
  size_t more = *room ? 2 * *room : 16;
  void *p = realloc(*items, more * size);
  if (!p) return td_fail(TD_ENOMEM, "%s: no memory for its header", name);
  *items = p;
  *room = more;
  return TD_OK;
}

static bool scan_hex4(td_scan *s, uint32_t *code) {
  *code = 0;
  for (int i = 0; i < 4; i++, s->p++) {
    static const char digits[] = "0123456789abcdefABCDEF";
    const char *at = s->p < s->end && *s->p ? strchr(digits, *s->p) : NULL;
    if (!at) return false;
    uint32_t digit = (uint32_t)(at - digits);
    *code = *code << 4 | (digit < 16 ? digit : digit - 6);
  }
  return true;
}

/* The rest of \uXXXX or of a pair of surrogates \uXXXX\uXXXX, from behind the first u. A zero
 * character is refused because names are C strings. */
static td_status scan_unicode(td_scan *s, uint32_t *code) {
  uint32_t low;
  const char *first = s->p;
  bool ok = scan_hex4(s, code) && *code != 0 && !(*code >= 0xdc00 && *code < 0xe000);
  if (ok && *code >= 0xd800 && *code < 0xdc00) {
    ok = s->end - s->p >= 2 && s->p[0] == '\\' && s->p[1] == 'u';
    if (ok) s->p += 2;
    ok = ok && scan_hex4(s, &low) && low >= 0xdc00 && low < 0xe000;
    if (ok) *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
  }
  if (ok) return TD_OK;
  s->p = first;
  return td_scan_fail(s, "four hexadecimal digits of a character that is not zero");
}

static td_status scan_escape(reader *r) {
  static const char letter[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
  td_scan *s = &r->scan;
  const char *at = s->p < s->end && *s->p ? strchr(letter, *s->p) : NULL;
  if (at) {
    *r->text++ = meaning[at - letter];
    s->p++;
    return TD_OK;
  }
  if (s->p == s->end || *s->p != 'u') return td_scan_fail(s, "one of \"\\/bfnrtu");
  s->p++;
  uint32_t code;
  td_status status = scan_unicode(s, &code);
  if (!status) r->text += td_utf8_put(r->text, code);
  return status;
}

/* A JSON string; *out is the decoded text. */
static td_status scan_string(reader *r, const char **out) {
  td_scan *s = &r->scan;
  if (!td_scan_accept(s, '"')) return td_scan_fail(s, "a text in \"quotes\"");
  *out = r->text;
  while (s->p < s->end && *s->p != '"') {
    td_status status = TD_OK;
    if (*s->p == '\\') {
      s->p++;
      status = scan_escape(r);
    } else {
      size_t n = td_utf8_length(s->p, (size_t)(s->end - s->p));
      if (n == 0 || (unsigned char)*s->p < 32)
        status = td_scan_fail(s, "a printable UTF-8 character");
      else memcpy(r->text, s->p, n);
      r->text += n;
      s->p += n;
    }
    if (status) return status;
  }
  *r->text++ = 0;
  return s->p < s->end ? (s->p++, TD_OK) : td_scan_fail(s, "the closing quote");
}

static td_status scan_dtype(reader *r, entry *e) {
  const char *text;
  td_status status = scan_string(r, &text);
  if (status) return status;
  for (int i = 0; i < TD_ELEMENT_COUNT; i++) {
    if (strcmp(td_element_table[i].safetensors, text) == 0) {
      e->element = (td_element)i;
      return TD_OK;
    }
  }
  return td_fail(TD_EIO, "%s: expected a boolean, integer or float type, found '%s'",
                 label_of(r, e).text, td_printable_of(text).text);
}

static td_status scan_shape(reader *r, entry *e) {
  td_status status = td_scan_expect(&r->scan, '[');
  e->ndim = 0;
  if (status || td_scan_accept(&r->scan, ']')) return status;
  do {
    if (e->ndim == TD_MAX_DIMS)
      return td_fail(TD_EIO, "%s: expected at most %d dimensions, found more", label_of(r, e).text,
                     TD_MAX_DIMS);
    if ((status = td_scan_size(&r->scan, &e->shape[e->ndim]))) return status;
    e->ndim++;
  } while (td_scan_accept(&r->scan, ','));
  return td_scan_expect(&r->scan, ']');
}

static td_status scan_offsets(reader *r, entry *e) {
  td_status status;
  if ((status = td_scan_expect(&r->scan, '[')) || (status = td_scan_size(&r->scan, &e->begin)) ||
      (status = td_scan_expect(&r->scan, ',')) || (status = td_scan_size(&r->scan, &e->end)))
    return status;
  return td_scan_expect(&r->scan, ']');
}

/* {"dtype": …, "shape": …, "data_offsets": …} in any order, each once. */
static td_status scan_entry(reader *r, const char *name) {
  static const char *const key[3] = {"dtype", "shape", "data_offsets"};
  static td_status (*const scan_value[3])(reader *, entry *) = {scan_dtype, scan_shape,
                                                                scan_offsets};
  void *items = r->entries;
  td_status status = reserve(&items, r->nentry, &r->entry_room, sizeof *r->entries, r->scan.name);
  r->entries = items;
  if (status) return status;
  entry *e = &r->entries[r->nentry];
  e->name = name;
  unsigned seen = 0;
  status = td_scan_expect(&r->scan, '{');
  while (!status && seen != 7) {
    const char *text;
    if (seen && (status = td_scan_expect(&r->scan, ','))) break;
    char *mark = r->text;
    if ((status = scan_string(r, &text))) break;
    int k = 0;
    while (k < 3 && strcmp(key[k], text) != 0) k++;
    if (k == 3 || (seen & 1u << k))
      return td_fail(TD_EIO, "%s: expected dtype, shape and data_offsets, each once, found '%s'",
                     label_of(r, e).text, td_printable_of(text).text);
    r->text = mark;
    seen |= 1u << k;
    if (!(status = td_scan_expect(&r->scan, ':'))) status = scan_value[k](r, e);
  }
  r->nentry++;
  return status ? status : td_scan_expect(&r->scan, '}');
}

static td_status scan_metadata(reader *r) {
  td_status status = td_scan_expect(&r->scan, '{');
  if (r->metadata_seen)
    return td_fail(TD_EIO, "%s: header: expected one %s, found two", r->scan.name, metadata_key);
  r->metadata_seen = true;
  if (status || td_scan_accept(&r->scan, '}')) return status;
  do {
    void *items = r->pairs;
    status = reserve(&items, r->npair, &r->pair_room, sizeof *r->pairs, r->scan.name);
    r->pairs = items;
    if (status) return status;
    td_text_pair *pair = &r->pairs[r->npair];
    if ((status = scan_string(r, &pair->key)) || (status = td_scan_expect(&r->scan, ':')) ||
        (status = scan_string(r, &pair->value)))
      return status;
    r->npair++;
  } while (td_scan_accept(&r->scan, ','));
  return td_scan_expect(&r->scan, '}');
}

static td_status scan_header(reader *r) {
  if (r->scan.p == r->scan.end || *r->scan.p != '{') return td_scan_fail(&r->scan, "'{'");
  r->scan.p++;
  if (td_scan_accept(&r->scan, '}')) return td_scan_end(&r->scan);
  td_status status;
  do {
    const char *name;
    if ((status = scan_string(r, &name)) || (status = td_scan_expect(&r->scan, ':'))) return status;
    status = strcmp(name, metadata_key) == 0 ? scan_metadata(r) : scan_entry(r, name);
    if (status) return status;
  } while (td_scan_accept(&r->scan, ','));
  status = td_scan_expect(&r->scan, '}');
  return status ? status : td_scan_end(&r->scan);
}

static int compare_texts(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int compare_ranges(const void *a, const void *b) {
  const entry *x = *(entry *const *)a, *y = *(entry *const *)b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

/* Fails with `code` when two of the texts, which it puts in order, are equal. */
static td_status check_distinct(const char **text, size_t n, td_status code, const char *name) {
  if (n > 1) qsort(text, n, sizeof *text, compare_texts);
  for (size_t i = 1; i < n; i++)
    if (strcmp(text[i - 1], text[i]) == 0)
      return td_fail(code, "%s: expected distinct names, found '%s' twice", name,
                     td_printable_of(text[i]).text);
  return TD_OK;
}

/* The ranges, in the order of their offsets, must fill the data exactly. */
static td_status check_ranges(const reader *r, entry **e, size_t data_bytes) {
  size_t at = 0;
  if (r->nentry > 1) qsort(e, r->nentry, sizeof *e, compare_ranges);
  for (size_t i = 0; i < r->nentry; i++) {
    if (e[i]->begin != at || e[i]->end < at)
      return td_fail(TD_EIO, "%s: expected its bytes to begin at %zu, where the tensor before it "
                     "ends, found offsets %zu to %zu",
                     label_of(r, e[i]).text, at, e[i]->begin, e[i]->end);
    at = e[i]->end;
    if (at > data_bytes)
      return td_fail(TD_EIO,
                     "%s: expected its bytes to end at %zu, found only %zu bytes in the file",
                     label_of(r, e[i]).text, at, data_bytes);
  }
  if (at != data_bytes)
    return td_fail(TD_EIO, "%s: expected %zu bytes of tensors, found %zu", r->scan.name, at,
                   data_bytes);
  return TD_OK;
}

/* Each tensor's shape and type must take as many bytes as its range has. */
static td_status check_sizes(const reader *r) {
  for (size_t i = 0; i < r->nentry; i++) {
    const entry *e = &r->entries[i];
    label l = label_of(r, e);
    size_t bytes;
    td_status status = td_element_bytes(e->element, e->ndim, e->shape, l.text, &bytes);
    if (!status && bytes != e->end - e->begin)
      status = td_fail(TD_EIO, "%s: expected %zu bytes for %s elements of type %s, found %zu",
                       l.text, bytes, td_shape_string(e->ndim, e->shape),
                       td_element_table[e->element].safetensors, e->end - e->begin);
    if (status) return status;
  }
  return TD_OK;
}

static td_status check(reader *r, size_t data_bytes) {
  size_t most = r->nentry > r->npair ? r->nentry : r->npair;
  if (most == 0) return check_ranges(r, NULL, data_bytes);
  void *list = malloc(most * sizeof(void *));
  if (!list) return td_fail(TD_ENOMEM, "%s: no memory for its header", r->scan.name);
  const char **text = list;
  for (size_t i = 0; i < r->nentry; i++) text[i] = r->entries[i].name;
  td_status status = check_distinct(text, r->nentry, TD_EIO, r->scan.name);
  for (size_t i = 0; i < r->npair; i++) text[i] = r->pairs[i].key;
  if (!status) status = check_distinct(text, r->npair, TD_EIO, r->scan.name);
  entry **range = list;
  for (size_t i = 0; i < r->nentry; i++) range[i] = &r->entries[i];
  if (!status) status = check_ranges(r, range, data_bytes);
  if (!status) status = check_sizes(r);
  free(list);
  return status;
}

/* Views and copies for all entries; f->ntensor counts those that exist. */
static td_status make_tensors(td_safetensors *f, const reader *r, td_tensor *bytes, size_t data) {
  if (r->nentry && !(f->tensor = malloc(r->nentry * sizeof *f->tensor)))
    return td_fail(TD_ENOMEM, "%s: no memory for its tensors", r->scan.name);
  for (size_t i = 0; i < r->nentry; i++) {
    const entry *e = &r->entries[i];
    td_status status = td_element_view(bytes, data + e->begin, e->element, false, e->ndim, e->shape,
                                       label_of(r, e).text, &f->tensor[i].tensor);
    if (status) return status;
    f->tensor[i].name = e->name;
    f->ntensor++;
  }
  return TD_OK;
}

static size_t get_size(const char *p) {
  size_t v = 0;
  for (int i = 7; i >= 0; i--) v = v << 8 | (unsigned char)p[i];
  return v;
}

static td_status parse(td_tensor *bytes, const char *name, td_safetensors **out) {
  size_t n = bytes->numel;
  if (n < 8)
    return td_fail(TD_EIO, "%s: not a safetensors file: expected at least 8 bytes, found %zu", name,
                   n);
  size_t length = get_size(bytes->data);
  if (length > HEADER_MAX || length > n - 8)
    return td_fail(
        TD_EIO,
        "%s: not a safetensors file, or cut off: its header claims %zu bytes, expected at most %zu",
        name, length, n - 8 < HEADER_MAX ? n - 8 : (size_t)HEADER_MAX);
  const char *header = bytes->data + 8;
  reader r = {.scan = {header, header, header + length, name}};
  td_safetensors *f = calloc(1, sizeof *f);
  if (f) f->text = r.text = malloc(length + 1);
  td_status status =
      f && f->text ? TD_OK : td_fail(TD_ENOMEM, "%s: no memory for its header", name);
  if (!status) status = scan_header(&r);
  if (!status) status = check(&r, n - 8 - length);
  if (!status) status = make_tensors(f, &r, bytes, 8 + length);
  free(r.entries);
  if (status) {
    free(r.pairs);
    td_safetensors_free(f);
    return status;
  }
  f->metadata = r.pairs;
  f->nmetadata = r.npair;
  *out = f;
  return TD_OK;
}

td_status td_safetensors_read(const char *path, td_safetensors **out) {
  *out = NULL;
  td_tensor *bytes;
  td_status status = td_file_map(path, &bytes);
  if (!status) status = parse(bytes, path, out);
  td_tensor_release(bytes);
  return status;
}

td_status td_safetensors_from_memory(const void *data, size_t n, const char *name,
                                     td_safetensors **out) {
  *out = NULL;
  td_tensor *bytes;
  td_status status = td_bytes_copy(data, n, &bytes);
  if (!status) status = parse(bytes, name, out);
  td_tensor_release(bytes);
  return status;
}

void td_safetensors_free(td_safetensors *f) {
  if (!f) return;
  for (size_t i = 0; i < f->ntensor; i++) td_tensor_release(f->tensor[i].tensor);
  free(f->tensor);
  free(f->metadata);
  free(f->text);
  free(f);
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* A text that grows. */
typedef struct {
  char *p;
  size_t n, room;
  bool failed;
} buffer;

static void append(buffer *b, const char *s, size_t n) {
  if (!b->failed && b->n + n > b->room) {
    size_t room = 2 * b->room + n + 1024;
    char *p = realloc(b->p, room);
    b->failed = !p;
    if (p) {
      b->p = p;
      b->room = room;
    }
  }
  if (b->failed) return;
  memcpy(b->p + b->n, s, n);
  b->n += n;
}

static void append_text(buffer *b, const char *s) {
  append(b, s, strlen(s));
}

static void append_size(buffer *b, size_t v) {
  char digits[24];
  append(b, digits, (size_t)snprintf(digits, sizeof digits, "%zu", v));
}

/* s as a JSON string. */
static td_status append_quoted(buffer *b, const char *s, const char *path) {
  const char *end = s + strlen(s), *from = s;
  append(b, "\"", 1);
  while (from < end) {
    char escape[8];
    size_t n = td_utf8_length(from, (size_t)(end - from));
    if (n == 0)
      return td_fail(TD_EARG, "%s: expected names and metadata in UTF-8, found '%s'", path,
                     td_printable_of(s).text);
    if (*from == '"' || *from == '\\') {
      append(b, "\\", 1);
      append(b, from, 1);
    } else if ((unsigned char)*from < 32) {
      append(b, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", *from));
    } else {
      append(b, from, n);
    }
    from += n;
  }
  append(b, "\"", 1);
  return TD_OK;
}

/* The order of the elements in the file: larger element types first, so that all are aligned, else
 * as given. */
static void place(size_t n, const td_named_tensor *tensor, size_t *order, size_t *offset) {
  size_t k = 0, at = 0;
  for (size_t size = 8; size > 0; size /= 2) {
    for (size_t i = 0; i < n; i++) {
      if (td_element_table[tensor[i].element].bytes != size) continue;
      order[k++] = i;
      offset[i] = at;
      at += tensor[i].tensor->numel * size;
    }
  }
}

static td_status append_metadata(buffer *b, const char *path, size_t n, const td_text_pair *pair) {
  append_text(b, "\"__metadata__\":{");
  for (size_t i = 0; i < n; i++) {
    if (i) append_text(b, ",");
    td_status status = append_quoted(b, pair[i].key, path);
    append_text(b, ":");
    if (!status) status = append_quoted(b, pair[i].value, path);
    if (status) return status;
  }
  append_text(b, "}");
  return TD_OK;
}

static td_status append_entry(buffer *b, const char *path, const td_named_tensor *named,
                              size_t offset) {
  const td_tensor *t = named->tensor;
  td_status status = append_quoted(b, named->name, path);
  append_text(b, ":{\"dtype\":\"");
  append_text(b, td_element_table[named->element].safetensors);
  append_text(b, "\",\"shape\":[");
  for (int i = 0; i < t->ndim; i++) {
    if (i) append_text(b, ",");
    append_size(b, t->shape[i]);
  }
  append_text(b, "],\"data_offsets\":[");
  append_size(b, offset);
  append_text(b, ",");
  append_size(b, offset + t->numel * td_element_table[named->element].bytes);
  append_text(b, "]}");
  return status;
}

static td_status append_header(buffer *b, const char *path, size_t ntensor,
                               const td_named_tensor *tensor, const size_t *offset,
                               size_t nmetadata, const td_text_pair *metadata) {
  td_status status = TD_OK;
  append_text(b, "{");
  if (nmetadata) status = append_metadata(b, path, nmetadata, metadata);
  for (size_t i = 0; !status && i < ntensor; i++) {
    if (i || nmetadata) append_text(b, ",");
    status = append_entry(b, path, &tensor[i], offset[i]);
  }
  append_text(b, "}");
  return status;
}

/* Pads with spaces until length and header end at a multiple of ALIGN. */
static td_status finish_header(buffer *b, const char *path) {
  static const char spaces[ALIGN + 1] =
      "                                                                ";
  append(b, spaces, (ALIGN - (8 + b->n) % ALIGN) % ALIGN);
  if (b->failed) return td_fail(TD_ENOMEM, "%s: no memory for its header", path);
  if (b->n > HEADER_MAX)
    return td_fail(TD_EARG, "%s: expected names and metadata of at most %d bytes, found %zu", path,
                   HEADER_MAX, b->n);
  return TD_OK;
}

static td_status check_names(const char *path, size_t ntensor, const td_named_tensor *tensor,
                             size_t nmetadata, const td_text_pair *metadata, const char **list) {
  for (size_t i = 0; i < ntensor; i++) {
    if (strcmp(tensor[i].name, metadata_key) == 0)
      return td_fail(TD_EARG, "%s: a tensor cannot be named %s", path, metadata_key);
    list[i] = tensor[i].name;
  }
  td_status status = check_distinct(list, ntensor, TD_EARG, path);
  for (size_t i = 0; i < nmetadata; i++) list[i] = metadata[i].key;
  return status ? status : check_distinct(list, nmetadata, TD_EARG, path);
}

/* Appends a tensor's elements as `named` says. */
static td_status put_elements(td_writer *w, const td_named_tensor *named) {
  enum { BLOCK = 512 };
  if (td_element_of(named->tensor->dtype) == named->element) return td_writer_put_tensor(w, named->tensor);
  td_tensor *flat = td_tensor_contiguous(named->tensor);
  if (!flat) return td_last_status();
  const float *x = (const float *)(const void *)flat->data;
  bool fits = true;
  for (size_t i = 0; i < flat->numel; i += BLOCK) {
    uint16_t block[BLOCK];
    size_t n = flat->numel - i < BLOCK ? flat->numel - i : BLOCK;
    fits = td_element_store(block, x + i, n, named->element) && fits;
    td_writer_put(w, block, n * sizeof *block);
  }
  td_tensor_release(flat);
  if (fits) return TD_OK;
  return td_fail(TD_EARG, "%s: tensor %s has numbers that %s cannot hold", w->path, named->name,
                 named->element == TD_E_F16 ? "float16" : "bfloat16");
}

static td_status write_file(const char *path, const buffer *header, size_t ntensor,
                            const td_named_tensor *tensor, const size_t *order) {
  td_writer w;
  td_status status = td_writer_open(&w, path);
  if (status) return status;
  uint64_t length = header->n;
  td_writer_put(&w, &length, sizeof length);
  td_writer_put(&w, header->p, header->n);
  for (size_t i = 0; i < ntensor && !status; i++) status = put_elements(&w, &tensor[order[i]]);
  return td_writer_close(&w, status);
}

td_status td_safetensors_write(const char *path, size_t ntensor, const td_named_tensor *tensor,
                               size_t nmetadata, const td_text_pair *metadata) {
  size_t most = 1 + (ntensor > nmetadata ? ntensor : nmetadata);
  buffer header = {0};
  size_t *order = malloc(2 * most * sizeof *order + most * sizeof(char *));
  if (!order) return td_fail(TD_ENOMEM, "%s: no memory for its header", path);
  size_t *offset = order + most;
  const char **list = (const char **)(void *)(offset + most);
  td_status status = check_names(path, ntensor, tensor, nmetadata, metadata, list);
  if (!status) {
    place(ntensor, tensor, order, offset);
    status = append_header(&header, path, ntensor, tensor, offset, nmetadata, metadata);
  }
  if (!status) status = finish_header(&header, path);
  if (!status) status = write_file(path, &header, ntensor, tensor, order);
  free(header.p);
  free(order);
  return status;
}
