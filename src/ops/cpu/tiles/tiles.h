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
#include <stddef.h>
#include <stdint.h>

enum { PANEL = 32, STEP = 32, STEP_ELEMENTS = PANEL * STEP, AHEAD_BYTES = 192, PARTS = 8 };

static inline int64_t tiles_steps(int64_t k)
{
    return (k + STEP - 1) / STEP;
}
/* Elements of a panel over k terms. */
static inline int64_t tiles_panel_elements(int64_t k)
{
    return tiles_steps(k) * STEP_ELEMENTS;
}

/* Terms that fill up the last step of k. */
static inline int tiles_padding(int64_t k)
{
    return (int)(tiles_steps(k) * STEP - k);
}

/* Steps of a left and of a right panel that are multiplied with each other. The last `padding` terms, fewer
 * than a step, are 0 in both, so that a kernel may leave them out. */
struct panel_run {
    const uint16_t *left, *right;
    int64_t n_steps;
    int padding;
};

/* out[rows, columns] = in (or 0) + the sum of the runs. Nothing beyond rows and columns is read or written in
 * in and out; out may be in. */
struct panel_product {
    const struct panel_run *runs;
    int n_runs;
    int64_t rows, columns; /* 1 .. PANEL; 64 bits each, or the compiler reads both at once (struct pass) */
    const float *in;       /* NULL: 0 */
    int64_t ld_in;
    float *out;
    int64_t ld_out;
    /* Memory that later products read, to be brought near meanwhile; NULL: none. soon_right is a right panel
     * with as many steps as this one's first run; `ahead` is what the thread multiplies after these panels,
     * AHEAD_BYTES for each step. A kernel takes what it gains from. */
    const void *soon_right, *ahead;
    /* n_parts > 0: work of the caller's on vectors, which a processor with units for products does meanwhile.
     * Called before the product is there, that often. */
    void (*meanwhile)(void *of);
    void *of;
    int64_t n_parts;
};

/* A block of queries and a panel of keys on the way back through attention. A row is a query; seen[r] has bit
 * c set when it sees key c. Steps of panels are written whole, with 0 wherever nothing is seen. */
struct score_block {
    const float *scores, *dp; /* [PANEL][PANEL]: queries times keys, gradients of the outputs times values */
    const uint32_t *seen;     /* [PANEL] */
    const float *lse, *through; /* [PANEL] */
    float scale;
    uint16_t *p_right, *ds_right; /* P and dS, rows as terms and keys as columns */
    uint16_t *ds_left;            /* dS, keys as terms */
};

struct tiles {
    const char *name; /* as in cpu_path: "amx", "avx512_bf16" */
    int row_unit;     /* rows of a product that cost no more than one, 16 or 8 */
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
    /* right_turned from bfloat16 rows, as they are. */
    void (*copy_right_turned)(uint16_t *panel, const uint16_t *x, int64_t ld, int64_t n, int64_t k);
    /* One step of a right panel with terms and columns exchanged: element (l, j) becomes (j, l). */
    void (*turn_right)(uint16_t *to, const uint16_t *from);

    /* Rows of what an MLP's gate and up gave, [rows][PANEL] each; all aligned to 64. keep_gated writes kept
     * [rows][2][PANEL], rounded to bfloat16 or as it is; other threads see it after `end`. kept_gated reads
     * it. kept_bytes: of one value. */
    size_t kept_bytes;
    void (*keep_gated)(void *kept, const float *gate, const float *up, int rows);
    void (*kept_gated)(float *gate, float *up, const void *kept, int rows);
    /* n rows of x [n][PANEL] into one step, rounded: as rows (left) or terms (right) from `first` on; there
     * both are even. */
    void (*left_rows)(uint16_t *step, const float *x, int first, int n);
    void (*right_rows)(uint16_t *step, const float *x, int first, int n);

    /* Attention between its products. Everything in float32 until it is rounded into a panel; a row's bits
     * depend on the row alone.
     * softmax: row r sees the columns PANEL j + c of scores [rows, ld] with bit c of seen[PANEL j + r] set;
     * left gets exp(scale s - max), lse and sum [rows] what the logarithm of the denominator and the
     *          denominator of left's rows are. ld is a multiple of 16.
     * softmax_back: P = exp(scale s - lse) and dS = scale P (dP - through) of rows [first, end), both even.
     * row_dots: dots[PANEL h + r] = the sum over k terms of row r of left panel h times x[r * ld + h * k].
     * divide_rows: to[r, n] = from[r, n] / by[r]. */
    void (*softmax)(uint16_t *left, float *lse, float *sum, const float *scores, int64_t ld,
                    const uint32_t *seen, int64_t n_panels, int rows, float scale);
    void (*softmax_back)(const struct score_block *b, int first, int end);
    void (*row_dots)(float *dots, const uint16_t *left, const float *x, int64_t ld, int64_t rows, int64_t k,
                     int64_t n_heads);
    void (*divide_rows)(float *to, int64_t ld_to, const float *from, int64_t ld_from, const float *by,
                        int64_t rows, int64_t n);
};

/* Kernels of that name, or NULL where the processor or the system does not have them. "amx" asks the system
 * for the use of its registers; before any other thread exists, so that all have it. */
const struct tiles *cpu__tiles(const char *name);

#endif
