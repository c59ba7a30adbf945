/* Tiles: a run of steps that treat the samples of a batch alike is done for a few samples at a time, from its first
 * step to its last, so that what lies between stays in the second-level cache and takes no memory; threads take tiles
 * side by side. Sums over the batch (gradients of weights) end a run: made tile by tile they cost more than they save.
 *
 * A tile is a plan of its own, over the same steps with smaller shapes, whose inputs and outputs are slices of the
 * outer plan's buffers. For the files of this folder. */
#ifndef TD_GRAPH_TILE_H
#define TD_GRAPH_TILE_H
#include "graph/plan.h"
#include "graph/program.h"

/* Finds the runs of steps worth tiling. Buffers that only a tile needs become TD_BUF_LOCAL; the others live as long as
 * their run. The list is in the pool, in order, and ends with a NULL. After td_ir_analyse and before td_ir_place. */
td_status td_tiles_find(td_ir *ir, td_tiles ***list);
/* Its steps are [*first, *first + *count). */
void td_tiles_span(const td_tiles *t, int *first, int *count);
/* Makes the tile plans of p's run t and notes its buffers in p. */
td_status td_tiles_make(td_tiles *t, td_plan *p);
td_status td_tiles_run(td_tiles *t);
/* The same, with the time that each step takes in each thread; td_tiles_share then shares out the time that all took
 * between the outer plan's steps. */
td_status td_tiles_measure(td_tiles *t);
void td_tiles_share(const td_tiles *t, double seconds, double *of_step);
/* Do the tiles write nothing but results of the program, and read its input i in slices only? */
bool td_tiles_repeats(const td_tiles *t, int i);
/* The program's runs, the first tile of each, then the second, and so on. */
td_status td_tiles_repeat(td_tiles *t, const td_program_runs *runs);
/* Gives back memory that the next run would ask for again; td_tiles_free also the plans. */
void td_tiles_trim(td_tiles *t);
void td_tiles_free(td_tiles *t);
size_t td_tiles_count(const td_tiles *t);

#endif
