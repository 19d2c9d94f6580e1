/* Products of whole matrices in panels (tiles/tiles.h): blocked for the caches, shared out among threads. */
#ifndef SMGPT_OPS_CPU_PANELS_H
#define SMGPT_OPS_CPU_PANELS_H

#include "tiles/tiles.h"
#include <stddef.h>

struct device;

/* A right operand [k, n], packed: panel j, of columns 32 j on, at panels + j * tiles_panel_elements(k). */
struct panels_matrix {
    int64_t k, n;
    uint16_t *panels;
};

static inline int64_t panels_of(int64_t n)
{
    return (n + PANEL - 1) / PANEL;
}
/* Elements of the packed form of n rows or columns over k terms. */
static inline size_t panels_elements(int64_t n, int64_t k)
{
    return (size_t)(panels_of(n) * tiles_panel_elements(k));
}

/* c [m, n] = base (or 0) + the sum over the terms, in their order. Row strides ldc and ldbase; base may be c.
 */
enum { PANELS_MAX_TERMS = 8, PANELS_MAX_JOBS = 8 };
struct panels_term {
    const uint16_t *left, *right;
    int64_t k;
    /* right are the panels of the transposed operand [n, k]: its steps are turned into a thread's own memory
     * where they are multiplied, in the cache, so that a matrix that is multiplied both ways stands once. */
    bool turned;
};
/* Sums of a panel of rows and one of columns, in the first-level cache, aligned to 64: [PANEL, PANEL], 0
 * beyond rows and columns. */
struct panels_tile {
    int64_t row, column;
    int64_t rows, columns;
    float *sums[2]; /* of the job, and of the one beside it */
};
typedef void panels_tile_fn(void *to, const struct panels_tile *tile);
/* PART_ROWS rows of them, from PART_ROWS * part on. */
enum { PART_ROWS = PANEL / PARTS };
typedef void panels_finish_fn(void *to, const struct panels_tile *tile, int part);
struct panels_job {
    int64_t m, n;
    struct panels_term terms[PANELS_MAX_TERMS];
    int n_terms;
    const float *base;
    int64_t ldbase;
    float *c;
    int64_t ldc;
    /* Not NULL: the sums go to it instead of c, any thread's at any time, part by part in their order, while
     * others are made; `before`, if there, is called while they are still to be made themselves. */
    panels_finish_fn *finish;
    panels_tile_fn *before;
    void *to;
    /* Not NULL: a job of the same m, n and lengths of terms, none of which is turned, and no base; its sums
     * are made beside this one's and go to this one's finish. */
    const struct panels_job *beside;
};

/* All jobs, by all threads of the parallel region that calls it, each of which has called dev->tiles->begin;
 * uses each thread's scratch. The jobs' results must not overlap. No barrier at its end when nowait. */
void cpu__panels_jobs(struct device *dev, const struct panels_job *jobs, int n_jobs, bool nowait);

/* The frozen matrices, prepared (weights.c): packs W^T of w, bfloat16 rows [n, k]; a column [k] of W^T. */
void cpu__panels_pack(struct device *dev, const struct panels_matrix *to, const uint16_t *w);
void cpu__panels_column(float *out, const struct panels_matrix *m, int64_t column);
/* c [m, b->n] (stride ldc) = x [m, b->k] (float32, stride ldx, rounded here) times b (+ c when accumulate);
 * transposed: c [m, b->k] = x [m, b->n] times b^T. */
void cpu__panels_product(struct device *dev, float *c, int64_t ldc, const float *x, int64_t ldx, int64_t m,
                         const struct panels_matrix *b, bool transposed, bool accumulate);

#endif
