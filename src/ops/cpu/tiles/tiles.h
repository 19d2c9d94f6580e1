/* Products of bfloat16 operands that stand packed in panels, summed in float32. The kernels of one
 * instruction set are a struct tiles; the device picks one when it opens.
 *
 * A panel is PANEL rows (of a left operand) or columns (of a right one) wide and is cut along the summed
 * dimension k into steps of STEP. A step is two tiles of 1 KiB, one behind the other:
 *   left:  [16 rows][32 k]                rows 0-15, then rows 16-31
 *   right: [16 pairs of k][16 columns][2] columns 0-15, then columns 16-31
 * Rows, columns and terms that fill up a panel are zero. Panels begin at multiples of 64.
 *
 * Bits: an element is one chain over the runs and their steps, in their order; it depends neither on what is
 * computed beside it nor on where the chain is cut, since a sum put away in float32 is the sum. */
#ifndef SMGPT_OPS_CPU_TILES_H
#define SMGPT_OPS_CPU_TILES_H

#include <stdbool.h>
#include <stdint.h>

enum { PANEL = 32, STEP = 32, STEP_ELEMENTS = PANEL * STEP };

static inline int64_t tiles_steps(int64_t k)
{
    return (k + STEP - 1) / STEP;
}
/* Elements of a panel over k terms. */
static inline int64_t tiles_panel_elements(int64_t k)
{
    return tiles_steps(k) * STEP_ELEMENTS;
}

/* Steps of a left and of a right panel that are multiplied with each other. */
struct panel_run {
    const uint16_t *left, *right;
    int64_t n_steps;
};

/* out[rows, columns] = in (or 0) + the sum of the runs. Nothing beyond rows and columns is read or written in
 * in and out; out may be in. */
struct panel_product {
    const struct panel_run *runs;
    int n_runs;
    int rows, columns; /* 1 .. PANEL */
    const float *in;   /* NULL: 0 */
    int64_t ld_in;
    float *out;
    int64_t ld_out;
    const void *soon; /* memory that the next products read: brought near, 256 bytes a step; NULL: none */
};

struct tiles {
    const char *name; /* as in cpu_path: "amx", "avx512_bf16" */
    /* Around a thread's calls of product. */
    void (*begin)(void);
    void (*end)(void);
    void (*product)(const struct panel_product *p);

    /* Panels from float32 rows, each element times scale and rounded to the nearest bfloat16, ties to even.
     * x has row stride ld; n <= PANEL is the panel's width, k its terms.
     *   left:         element (i, l) = x[i * ld + l]      left_turned:  (i, l) = x[l * ld + i]
     *   right_turned: element (l, j) = x[j * ld + l]      right:        (l, j) = x[l * ld + j] */
    void (*pack_left)(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
    void (*pack_left_turned)(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
    void (*pack_right)(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
    void (*pack_right_turned)(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale);
    /* Right panels from bfloat16 rows, as they are. */
    void (*copy_right)(uint16_t *panel, const uint16_t *x, int64_t ld, int64_t n, int64_t k);
    void (*copy_right_turned)(uint16_t *panel, const uint16_t *x, int64_t ld, int64_t n, int64_t k);
};

/* Kernels of that name, or NULL where the processor or the system does not have them. "amx" asks the system
 * for the use of its registers; before any other thread exists, so that all have it. */
const struct tiles *cpu__tiles(const char *name);

#endif
