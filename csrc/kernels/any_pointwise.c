/* The element-wise machine: runs a td_pw program over arrays of any layout and element type.
 *
 * A call first makes a plan. Dimensions that every operand walks through alike are merged, so that
 * most calls become one long row. The index space is then cut into blocks (tiles) small enough for
 * all registers of the program to live in the first-level cache, and a block is run step by step.
 * Inside a block an operand is
 *   DIRECT  contiguous and of the table's type: the steps work on its memory;
 *   SPLAT   one number: a vector full of it, read again and again;
 *   STAGED  anything else: copied, and converted, into (or out of) a buffer.
 * Loops run over whole vectors only. The last, partial vector of a block with direct operands goes
 * through a copy of its own; buffers have room to round up. Blocks are independent, so threads
 * share them as they like. Small calls over flat operands skip the plan. */
#include "kernels/isa.h"
#include "kernels/pointwise_convert.h"
#include "kernels/pointwise_loops.h"

enum {
  WORK_BYTES = 16384,  /* buffers of one block: half of a small first-level cache */
  BLOCK_MAX = 1024,    /* elements in a block with buffers ... */
  BLOCK_DIRECT = 4096, /* ... and without */
  GRAIN = 32768,       /* elements that are worth a thread, for an operation as cheap as addition */
  TILE_SIDE = 32,      /* elements along each side of a tile that is transposed */
  SHORT_ROW = 8,       /* elements in a row that are not worth a loop of their own */
  SMALL = 2048,        /* elements up to which planning would show ... */
  SMALL_WORK = 4096 / (int)sizeof(real) /* ... and the room for intermediate results then */
};
static const td_dtype REAL_DTYPE = TD_KREAL == 0 ? TD_F32 : TD_KREAL == 1 ? TD_F64 : TD_I64;

typedef enum { DIRECT, SPLAT, STAGED } kind;
enum { NONE = -1 };

typedef struct {
  char *data;
  ptrdiff_t stride[TD_MAX_DIMS]; /* in elements, of the plan's dimensions */
  kind kind;
  td_dtype dtype;
  int buffer; /* of a STAGED input */
} operand;

/* Dimension 0 of a plan is the innermost. */
typedef struct {
  const td_pw *p;
  int ndim, nstep;
  size_t shape[TD_MAX_DIMS], tile[TD_MAX_DIMS];
  size_t blocks, capacity; /* elements in a buffer, a multiple of TD_LANES */
  bool any_direct, transposed;
  operand in[TD_PW_MAX_IN], out[TD_PW_MAX_OUT];
  int8_t home[TD_PW_MAX_REG];   /* the output whose memory holds the register, or NONE ... */
  int8_t buffer[TD_PW_MAX_REG]; /* ... and then the register's buffer */
  uint8_t out_reg[TD_PW_MAX_OUT];
} plan;

/* ---- Planning ------------------------------------------------------------------------------- */

static inline ptrdiff_t distance(ptrdiff_t stride) { return stride < 0 ? -stride : stride; }

/* The dimensions of more than one element, innermost first: as they come, or by the first output's
 * strides where those are not already in order, so that results are written one after the other. */
static int order_dims(const td_pw *p, int *order) {
  int n = 0;
  for (int d = p->ndim - 1; d >= 0; d--) {
    if (p->shape[d] == 1) continue;
    int at = n++;
    ptrdiff_t step = distance(p->out[0].stride[d]);
    for (; at > 0 && step < distance(p->out[0].stride[order[at - 1]]); at--)
      order[at] = order[at - 1];
    order[at] = d;
  }
  return n;
}

/* Can dimension d be walked as a continuation of the plan's last one? */
static bool continues(const plan *l, int d) {
  const td_pw *p = l->p;
  int last = l->ndim - 1;
  ptrdiff_t n = (ptrdiff_t)l->shape[last];
  for (int i = 0; i < p->nin; i++)
    if (p->in[i].stride[d] != l->in[i].stride[last] * n) return false;
  for (int i = 0; i < p->nout; i++)
    if (p->out[i].stride[d] != l->out[i].stride[last] * n) return false;
  return true;
}

/* Fills in shape and strides, merged. */
static void merge_dims(plan *l) {
  const td_pw *p = l->p;
  int order[TD_MAX_DIMS], n = order_dims(p, order);
  l->ndim = 0;
  for (int k = 0; k < n; k++) {
    int d = order[k];
    if (l->ndim > 0 && continues(l, d)) {
      l->shape[l->ndim - 1] *= p->shape[d];
      continue;
    }
    l->shape[l->ndim] = p->shape[d];
    for (int i = 0; i < p->nin; i++) l->in[i].stride[l->ndim] = p->in[i].stride[d];
    for (int i = 0; i < p->nout; i++) l->out[i].stride[l->ndim] = p->out[i].stride[d];
    l->ndim++;
  }
  if (l->ndim == 0) { /* one element */
    l->ndim = 1;
    l->shape[0] = 1;
    for (int i = 0; i < p->nin; i++) l->in[i].stride[0] = 1;
    for (int i = 0; i < p->nout; i++) l->out[i].stride[0] = 1;
  }
}

/* Is the operand one row of consecutive elements, or one number, over the whole index space? */
static bool is_flat(const plan *l, const operand *o) {
  return l->ndim == 1 && (o->stride[0] == 0 || (o->stride[0] == 1 && o->dtype == REAL_DTYPE));
}

static size_t gcd(size_t a, size_t b) {
  while (b) {
    size_t r = a % b;
    a = b;
    b = r;
  }
  return a;
}

/* The dimension along which some input that strides along dimension 0 is contiguous; 0 if there is
 * none. */
static int transposed_dim(const plan *l) {
  for (int i = 0; i < l->p->nin; i++)
    if (distance(l->in[i].stride[0]) > 1)
      for (int d = 1; d < l->ndim; d++)
        if (distance(l->in[i].stride[d]) == 1) return d;
  return 0;
}

static inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Cuts the index space into tiles of at most `limit` elements: whole inner dimensions and a piece
 * of the next; or about square ones where an input is transposed. */
static void choose_tile(plan *l, size_t limit) {
  for (int d = 0; d < l->ndim; d++) l->tile[d] = 1;
  int across = l->ndim > 1 ? transposed_dim(l) : 0;
  l->transposed = across != 0;
  if (across) {
    size_t side = least(l->shape[0], TILE_SIDE);
    while (side * TILE_SIDE > limit && side > 1) side /= 2;
    l->tile[across] = least(l->shape[across], limit / side);
    if (l->tile[across] > TILE_SIDE && side == TILE_SIDE)
      l->tile[across] = least(l->tile[across], TILE_SIDE);
    l->tile[0] = least(l->shape[0], limit / l->tile[across]);
  } else {
    size_t inner = 1;
    for (int d = 0; d < l->ndim; d++) {
      size_t room = limit / inner;
      if (room < 2) break;
      if (l->shape[d] <= room) {
        l->tile[d] = l->shape[d];
        inner *= l->shape[d];
        continue;
      }
      size_t whole = TD_LANES / gcd(inner, TD_LANES); /* rows that fill vectors */
      l->tile[d] = room >= whole ? room - room % whole : room;
      break;
    }
  }
  l->blocks = 1;
  for (int d = 0; d < l->ndim; d++) l->blocks *= (l->shape[d] + l->tile[d] - 1) / l->tile[d];
}

/* How a block sees the operand; see the head of this file. */
static kind choose_kind(const plan *l, const operand *o, bool input) {
  bool splat = input, direct = o->dtype == REAL_DTYPE, whole = true;
  ptrdiff_t expected = 1;
  for (int d = 0; d < l->ndim; d++) {
    if (l->tile[d] == 1) continue;
    splat = splat && o->stride[d] == 0;
    direct = direct && whole && o->stride[d] == expected;
    expected *= (ptrdiff_t)l->tile[d];
    whole = whole && l->tile[d] == l->shape[d];
  }
  return direct ? DIRECT : splat ? SPLAT : STAGED;
}

/* Where each register begins and ends to be needed; for the registers that steps write. */
typedef struct {
  int8_t first[TD_PW_MAX_REG], last[TD_PW_MAX_REG]; /* steps */
  int8_t writes[TD_PW_MAX_REG];
} lives;

static void find_lives(const plan *l, lives *v) {
  const td_pw_step *step = l->p->step;
  for (int s = 0; s < l->nstep; s++) v->writes[step[s].dst] = 0;
  for (int s = 0; s < l->nstep; s++) {
    int d = step[s].dst;
    if (v->writes[d]++ == 0) v->first[d] = (int8_t)s;
    v->last[d] = (int8_t)s;
    for (int k = 0; k < td_pw_arity[step[s].op]; k++) v->last[step[s].src[k]] = (int8_t)s;
  }
}

/* Gives each register that is stored in an output that output's memory for a home, unless a step
 * would then overwrite an input that a later step still reads. */
static void choose_homes(plan *l, const lives *v) {
  const td_pw *p = l->p;
  bool all_computed = true;
  for (int i = 0; i < p->nin; i++) l->home[i] = NONE;
  for (int s = 0; s < l->nstep; s++) l->home[p->step[s].dst] = NONE;
  for (int i = 0; i < p->nout; i++) all_computed = all_computed && l->out_reg[i] >= p->nin;
  for (int i = 0; i < p->nout; i++) {
    int r = l->out_reg[i];
    if (r < p->nin || l->home[r] != NONE) continue;
    bool safe = all_computed && v->first[r] == l->nstep - 1;
    if (!safe) {
      safe = true;
      for (int j = 0; j < p->nin; j++) safe = safe && p->in[j].data != p->out[i].data;
    }
    if (safe) l->home[r] = (int8_t)i;
  }
}

/* Gives the other registers buffers from number `used` on; a buffer passes from a register that is
 * no longer needed to the next, at the earliest in the very step that reads the one and writes the
 * other. Returns the number of buffers. */
static int choose_buffers(plan *l, lives *v, int used) {
  const td_pw *p = l->p;
  uint64_t idle = 0; /* bit b: buffer b is free again */
  for (int i = 0; i < p->nout; i++)
    if (l->out_reg[i] >= p->nin) v->last[l->out_reg[i]] = (int8_t)l->nstep;
  for (int s = 0; s < l->nstep; s++) {
    const td_pw_step *step = &p->step[s];
    for (int k = 0; k < td_pw_arity[step->op]; k++) {
      int r = step->src[k];
      if (r >= p->nin && v->last[r] == s && r != step->dst && l->home[r] == NONE)
        idle |= (uint64_t)1 << l->buffer[r];
    }
    int d = step->dst;
    if (v->first[d] != s || l->home[d] != NONE) continue;
    l->buffer[d] = (int8_t)(idle ? __builtin_ctzll(idle) : used++);
    idle &= ~((uint64_t)1 << l->buffer[d]);
    if (v->last[d] == s) idle |= (uint64_t)1 << l->buffer[d]; /* written for nothing */
  }
  return used;
}

/* Makes the plan of a program that has elements. */
static void make_plan(plan *l, const td_pw *p) {
  l->p = p;
  l->nstep = p->nstep;
  for (int i = 0; i < p->nin; i++) {
    l->in[i].data = p->in[i].data;
    l->in[i].dtype = p->in[i].dtype;
  }
  for (int i = 0; i < p->nout; i++) {
    l->out[i].data = p->out[i].data;
    l->out[i].dtype = p->out[i].dtype;
    l->out_reg[i] = p->out_reg[i];
  }
  if (p->nstep == 1 && p->nout == 1 && p->step[0].op == TD_PW_copy &&
      p->step[0].dst == p->out_reg[0]) {
    l->nstep = 0; /* a copy needs no step: the output stores the input's register */
    l->out_reg[0] = p->step[0].src[0];
  }
  merge_dims(l);

  /* the number of buffers decides the tiles' size, and the tiles which operands need buffers: so
   * first a bound */
  lives v;
  find_lives(l, &v);
  choose_homes(l, &v);
  int staged = 0;
  for (int i = 0; i < p->nin; i++)
    if (!is_flat(l, &l->in[i])) l->in[i].buffer = staged++;
  int buffers = choose_buffers(l, &v, staged);
  for (int i = 0; i < p->nout; i++)
    buffers += !is_flat(l, &l->out[i]); /* a register may lose its home */
  size_t limit =
      buffers ? least(BLOCK_MAX, WORK_BYTES / (sizeof(real) * (size_t)buffers)) : BLOCK_DIRECT;
  l->capacity = limit - limit % TD_LANES;
  choose_tile(l, l->capacity);

  l->any_direct = false;
  for (int i = 0; i < p->nin; i++) {
    l->in[i].kind = choose_kind(l, &l->in[i], true);
    l->any_direct |= l->in[i].kind == DIRECT;
  }
  bool homeless = false;
  for (int i = 0; i < p->nout; i++) {
    l->out[i].kind = choose_kind(l, &l->out[i], false);
    l->any_direct |= l->out[i].kind == DIRECT;
    int r = l->out_reg[i];
    if (l->out[i].kind == DIRECT || r < p->nin || l->home[r] != i) continue;
    l->home[r] = NONE;
    homeless = true;
  }
  if (homeless) choose_buffers(l, &v, staged);
}

/* ---- Moving blocks between arrays and buffers ----------------------------------------------- */

typedef struct {
  size_t n;
  ptrdiff_t packed, strided; /* strides of the buffer and of the array, in elements */
} axis;

/* The axes of a block of extents `ext`: innermost the one that runs along the array's memory, or a
 * long one if that is short. */
static int block_axes(const plan *l, const operand *o, const size_t *ext, axis *a) {
  int n = 0;
  ptrdiff_t packed = 1;
  for (int d = 0; d < l->ndim; d++) {
    if (ext[d] > 1) {
      a[n++] = (axis){ext[d], packed, o->stride[d]};
      bool longer_run = distance(o->stride[d]) == 1 && distance(a[0].strided) > 1;
      if (n > 1 && (longer_run || (a[0].n < SHORT_ROW && ext[d] > a[0].n))) {
        axis t = a[0];
        a[0] = a[n - 1];
        a[n - 1] = t;
      }
    }
    packed *= (ptrdiff_t)ext[d];
  }
  if (n == 0) a[n++] = (axis){1, 1, 1};
  return n;
}

static void stage_axes(real *d, const char *s, size_t size, td_row_move move, const axis *a,
                       int n) {
  if (n == 1) {
    move(d, a->packed, s, a->strided, a->n);
    return;
  }
  const axis *outer = &a[n - 1];
  for (size_t i = 0; i < outer->n; i++)
    stage_axes(d + (ptrdiff_t)i * outer->packed,
               s + (ptrdiff_t)i * outer->strided * (ptrdiff_t)size, size, move, a, n - 1);
}

static void unstage_axes(char *d, const real *s, size_t size, td_row_move move, const axis *a,
                         int n, bool splat) {
  if (n == 1) {
    move(d, a->strided, s, splat ? 0 : a->packed, a->n);
    return;
  }
  const axis *outer = &a[n - 1];
  for (size_t i = 0; i < outer->n; i++)
    unstage_axes(d + (ptrdiff_t)i * outer->strided * (ptrdiff_t)size,
                 splat ? s : s + (ptrdiff_t)i * outer->packed, size, move, a, n - 1, splat);
}

/* Asks for the memory of a block that lies scattered over many rows: all at once, where copying
 * would wait for one row after the other. Only two-dimensional blocks need it. */
static void prefetch(const plan *l, const operand *o, const char *s, const size_t *ext) {
  axis a[TD_MAX_DIMS];
  if (block_axes(l, o, ext, a) != 2 || distance(a[0].strided) != 1) return;
  ptrdiff_t size = (ptrdiff_t)td_dtype_size(o->dtype),
            run = (ptrdiff_t)a[0].n * size * a[0].strided;
  for (size_t i = 0; i < a[1].n; i++, s += a[1].strided * size)
    for (ptrdiff_t at = 0; distance(at) < distance(run); at += run < 0 ? -64 : 64)
      __builtin_prefetch(s + at);
}

/* Copies the block at s into the packed d. */
static void stage(const plan *l, const operand *o, real *d, const char *s, const size_t *ext) {
  axis a[TD_MAX_DIMS];
  int n = block_axes(l, o, ext, a);
  stage_axes(d, s, td_dtype_size(o->dtype), td_row_load[o->dtype], a, n);
}

/* Copies the packed s, or when `splat` the number at s, into the block at d. */
static void unstage(const plan *l, const operand *o, char *d, const real *s, bool splat,
                    const size_t *ext) {
  axis a[TD_MAX_DIMS];
  int n = block_axes(l, o, ext, a);
  unstage_axes(d, s, td_dtype_size(o->dtype), td_row_store[o->dtype], a, n, splat);
}

/* ---- Running -------------------------------------------------------------------------------- */

/* What a thread has in hand: its registers' places in the current block, and its buffers. */
typedef struct {
  const plan *l;
  real *work;
  td_pw_arg reg[TD_PW_MAX_REG];
  char *in[TD_PW_MAX_IN], *out[TD_PW_MAX_OUT]; /* of the block */
  const char *held[TD_PW_MAX_IN]; /* block whose content a splat or buffer holds already ... */
  size_t held_n[TD_PW_MAX_IN];    /* ... and its elements */
  vreal splat[TD_PW_MAX_IN], part_in[TD_PW_MAX_IN], part_out[TD_PW_MAX_OUT];
} frame;

static inline real *buffer_at(const frame *f, int buffer) {
  return f->work + (size_t)buffer * f->l->capacity;
}

static void run_steps(frame *f, size_t n) {
  const td_pw_step *step = f->l->p->step;
  for (int s = 0; s < f->l->nstep; s++, step++)
    td_pw_loops[step->op]((void *)f->reg[step->dst].p, f->reg, step->src, n);
}

/* Makes splats and staged inputs ready for a block of n elements. */
static void fetch_inputs(frame *f, const size_t *ext, size_t n) {
  const plan *l = f->l;
  for (int i = 0; i < l->p->nin; i++) {
    const operand *o = &l->in[i];
    if (o->kind == DIRECT) continue;
    bool held =
        f->held[i] == f->in[i] && (o->kind == SPLAT || (n <= f->held_n[i] && !l->transposed));
    if (o->kind == SPLAT) {
      real x;
      if (!held) {
        td_row_load[o->dtype](&x, 1, f->in[i], 1, 1);
        f->splat[i] = td_splat(x);
        f->reg[i] = (td_pw_arg){(const real *)&f->splat[i], 0};
      }
    } else if (!held) {
      real *b = buffer_at(f, o->buffer);
      stage(l, o, b, f->in[i], ext);
      for (size_t j = n; j % TD_LANES; j++) b[j] = 0;
    }
    f->held[i] = f->in[i];
    f->held_n[i] = held ? f->held_n[i] : n;
  }
}

/* Runs the steps on elements [0, n) of the block, all of whole vectors or of buffers, and fills
 * direct outputs. */
static void run_whole(frame *f, size_t n) {
  const plan *l = f->l;
  for (int i = 0; i < l->p->nin; i++)
    if (l->in[i].kind != SPLAT)
      f->reg[i] = (td_pw_arg){
          l->in[i].kind == DIRECT ? (const real *)f->in[i] : buffer_at(f, l->in[i].buffer),
          TD_LANES};
  for (int s = 0; s < l->nstep; s++) {
    int r = l->p->step[s].dst, home = l->home[r];
    f->reg[r] = (td_pw_arg){home != NONE ? (const real *)f->out[home] : buffer_at(f, l->buffer[r]),
                            TD_LANES};
  }
  run_steps(f, n);
  for (int i = 0; i < l->p->nout; i++)
    if (l->out[i].kind == DIRECT && l->home[l->out_reg[i]] != i)
      loop_copy((real *)f->out[i], f->reg, &l->out_reg[i], n);
}

/* Runs the steps on the last r < TD_LANES elements, from position `at` of the block. */
static void run_part(frame *f, size_t at, size_t r) {
  const plan *l = f->l;
  for (int i = 0; i < l->p->nin; i++) {
    if (l->in[i].kind == DIRECT) {
      f->part_in[i] = td_load_part((const real *)f->in[i] + at, r);
      f->reg[i] = (td_pw_arg){(const real *)&f->part_in[i], TD_LANES};
    } else if (l->in[i].kind == STAGED) {
      f->reg[i] = (td_pw_arg){buffer_at(f, l->in[i].buffer) + at, TD_LANES};
    }
  }
  for (int s = 0; s < l->nstep; s++) {
    int d = l->p->step[s].dst, home = l->home[d];
    f->reg[d] = (td_pw_arg){
        home != NONE ? (const real *)&f->part_out[home] : buffer_at(f, l->buffer[d]) + at,
        TD_LANES};
  }
  run_steps(f, r);
  for (int i = 0; i < l->p->nout; i++)
    if (l->out[i].kind == DIRECT)
      td_store_part((real *)f->out[i] + at, td_load(f->reg[l->out_reg[i]].p), r);
}

/* Stores the outputs that are not direct; their registers hold all n elements when run_whole's
 * places are restored. */
static void store_outputs(frame *f, const size_t *ext) {
  const plan *l = f->l;
  for (int i = 0; i < l->p->nout; i++) {
    if (l->out[i].kind == DIRECT) continue;
    int r = l->out_reg[i];
    const real *from;
    bool splat = false;
    if (r < l->p->nin) {
      splat = l->in[r].kind == SPLAT;
      from = splat                     ? (const real *)&f->splat[r]
             : l->in[r].kind == DIRECT ? (const real *)f->in[r]
                                       : buffer_at(f, l->in[r].buffer);
    } else {
      from = l->home[r] != NONE ? (const real *)f->out[l->home[r]] : buffer_at(f, l->buffer[r]);
    }
    unstage(l, &l->out[i], f->out[i], from, splat, ext);
  }
}

/* The position and extents of a block, the operands' first elements there, and its number of
 * elements. */
static size_t locate(frame *f, size_t block, size_t *ext) {
  const plan *l = f->l;
  for (int i = 0; i < l->p->nin; i++) f->in[i] = l->in[i].data;
  for (int i = 0; i < l->p->nout; i++) f->out[i] = l->out[i].data;
  size_t n = 1;
  for (int d = 0; d < l->ndim; d++) {
    size_t tile = l->tile[d], origin = 0;
    if (tile < l->shape[d]) {
      size_t tiles = (l->shape[d] + tile - 1) / tile;
      origin = l->ndim == 1 ? block * tile : block % tiles * tile;
      block /= tiles;
    }
    ext[d] = least(tile, l->shape[d] - origin);
    n *= ext[d];
    if (origin == 0) continue;
    for (int i = 0; i < l->p->nin; i++)
      f->in[i] += (ptrdiff_t)origin * l->in[i].stride[d] * (ptrdiff_t)td_dtype_size(l->in[i].dtype);
    for (int i = 0; i < l->p->nout; i++)
      f->out[i] +=
          (ptrdiff_t)origin * l->out[i].stride[d] * (ptrdiff_t)td_dtype_size(l->out[i].dtype);
  }
  return n;
}

/* A block of a program that only copies one input to one output, without a buffer; false when it
 * needs one. */
static bool copy_block(frame *f, const size_t *ext, size_t n) {
  const plan *l = f->l;
  if (l->nstep != 0 || l->p->nout != 1) return false;
  int r = l->out_reg[0];
  kind from = l->in[r].kind, to = l->out[0].kind;
  if (from == DIRECT && to == DIRECT)
    memmove(f->out[0], f->in[r], n * sizeof(real));
  else if (from == STAGED && to == DIRECT)
    stage(l, &l->in[r], (real *)f->out[0], f->in[r], ext);
  else if (from == DIRECT)
    unstage(l, &l->out[0], f->out[0], (const real *)f->in[r], false, ext);
  else
    return false;
  return true;
}

/* The task: blocks [begin, end) of the plan. */
static void run_blocks(void *ctx, size_t begin, size_t end) {
  _Alignas(64) char work[WORK_BYTES];
  frame f;
  f.l = ctx;
  f.work = (real *)(void *)work;
  for (int i = 0; i < f.l->p->nin; i++) f.held[i] = NULL;
  for (size_t b = begin; b < end; b++) {
    size_t ext[TD_MAX_DIMS], n = locate(&f, b, ext);
    if (f.l->transposed) {
      for (int i = 0; i < f.l->p->nin; i++) prefetch(f.l, &f.l->in[i], f.in[i], ext);
      for (int i = 0; i < f.l->p->nout; i++) prefetch(f.l, &f.l->out[i], f.out[i], ext);
    }
    if (copy_block(&f, ext, n)) continue;
    fetch_inputs(&f, ext, n);
    size_t part = f.l->any_direct ? n % TD_LANES : 0;
    if (n > part) run_whole(&f, n - part);
    if (part) run_part(&f, n - part, part);
    store_outputs(&f, ext);
  }
}

/* ---- Small calls ---------------------------------------------------------------------------- */

/* Over all elements, is the operand of the table's type and contiguous (step TD_LANES), or one
 * number of any type (step 0)? */
static inline bool flat_step(const td_pw *p, const td_pw_operand *o, size_t *step) {
  bool contiguous = o->dtype == REAL_DTYPE, constant = true;
  ptrdiff_t expected = 1;
  for (int d = p->ndim - 1; d >= 0; d--) {
    if (p->shape[d] == 1) continue;
    contiguous = contiguous && o->stride[d] == expected;
    constant = constant && o->stride[d] == 0;
    expected *= (ptrdiff_t)p->shape[d];
  }
  *step = contiguous ? TD_LANES : 0;
  return contiguous || constant;
}

/* Runs the steps over n elements from the registers in reg[0..nin); registers after them get `room`
 * elements of work each, but the last step writes to `last` when that is not NULL. */
static inline void small_steps(const td_pw *p, td_pw_arg *reg, real *work, size_t room, real *last,
                               size_t n) {
  for (int s = 0; s < p->nstep; s++) {
    const td_pw_step *step = &p->step[s];
    real *y = last && s == p->nstep - 1 ? last : work + (size_t)(step->dst - p->nin) * room;
    td_pw_loops[step->op](y, reg, step->src, n);
    reg[step->dst] =
        (td_pw_arg){y, TD_LANES}; /* only now: the step may have read the register elsewhere */
  }
}

/* Small programs over flat operands need no plan; false, and nothing done, when this is not one. n
 * is the number of elements. */
static bool run_small(const td_pw *p, size_t n) {
  _Alignas(64) real work[SMALL_WORK];
  vreal splat[TD_PW_MAX_IN], part;
  td_pw_arg reg[TD_PW_MAX_REG];
  size_t step, out_step[TD_PW_MAX_OUT], room = (n + TD_LANES - 1) / TD_LANES * TD_LANES;
  bool last = p->nstep > 0;
  for (int i = 0; i < p->nout; i++) {
    if (p->out[i].dtype != REAL_DTYPE || !flat_step(p, &p->out[i], &out_step[i])) return false;
    last = last && p->out_reg[i] >= p->nin;
  }
  for (int i = 0; i < p->nin; i++) {
    if (!flat_step(p, &p->in[i], &step)) return false;
    const real *x = p->in[i].data;
    if (step == 0) {
      real number;
      td_row_load[p->in[i].dtype](&number, 1, p->in[i].data, 1, 1);
      splat[i] = td_splat(number);
      x = (const real *)&splat[i];
    }
    reg[i] = (td_pw_arg){x, step};
  }
  last = last && p->out_reg[0] == p->step[p->nstep - 1].dst;
  int buffers = 0;
  for (int s = 0; s < p->nstep - last; s++)
    if (p->step[s].dst - p->nin >= buffers) buffers = p->step[s].dst - p->nin + 1;
  if ((size_t)buffers * room > SMALL_WORK) return false;

  size_t r = n % TD_LANES, whole = n - r;
  if (whole) {
    small_steps(p, reg, work, room, last ? p->out[0].data : NULL, whole);
    for (int i = last; i < p->nout; i++) loop_copy(p->out[i].data, reg, &p->out_reg[i], whole);
  }
  if (r) {
    for (int i = 0; i < p->nin; i++) {
      if (reg[i].step == 0) continue;
      splat[i] = td_load_part((const real *)reg[i].p + whole, r);
      reg[i].p = (const real *)&splat[i];
    }
    small_steps(p, reg, work, room, last ? (real *)&part : NULL, r);
    for (int i = 0; i < p->nout; i++)
      td_store_part((real *)p->out[i].data + whole, td_load(reg[p->out_reg[i]].p), r);
  }
  return true;
}

void TD_K(pointwise)(const td_pw *p) {
  size_t n = 1;
  for (int d = 0; d < p->ndim; d++) n *= p->shape[d];
  if (n == 0) return;
  if (n <= SMALL && run_small(p, n)) return;
  plan l;
  make_plan(&l, p);
  if (l.blocks == 1) {
    run_blocks(&l, 0, 1);
    return;
  }
  size_t cost = 1, size = 1;
  for (int s = 0; s < l.nstep; s++) cost += td_pw_cost(p->step[s].op);
  for (int d = 0; d < l.ndim; d++) size *= l.tile[d];
  size_t grain = GRAIN / cost * 2 / size;
  td_parallel(l.blocks, grain ? grain : 1, run_blocks, &l);
}

td_pw_loop TD_K(loop)(td_pw_op op, size_t *lanes) {
  *lanes = TD_LANES;
  return td_pw_loops[op];
}

#if TD_KREAL < 2
double TD_K(number)(td_pw_op op, double x) {
  vreal v = td_splat((real)x);
  switch (op) {
    case TD_PW_exp: v = td_vexp(v); break;
    case TD_PW_log: v = td_vlog(v); break;
    case TD_PW_sin: v = td_vsin(v); break;
    case TD_PW_cos: v = td_vcos(v); break;
    case TD_PW_tanh: v = td_vtanh(v); break;
    default: v = td_vsigmoid(v);
  }
  return (double)v[0];
}
#endif
