/* Panels multiplied by AMX: 2 x 2 tiles of sums in registers 0-3, the left tiles in 4 and 5, the right ones
 * in 6 and 7; four loads for four products.
 *
 * The left panel is read again for the next columns and stays in the first-level cache; the right one passes
 * through, by loads that ask not to be kept, or it would push the left one out. */
#ifdef SMGPT_X86
#include "tile_names.h"
#include <immintrin.h>
#include <string.h>

/* The compiler's tile loads and stores do not say that they touch memory. */
#define MEMORY_IS_TOUCHED() __asm__ volatile("" ::: "memory")

enum { TILE = PANEL / 2, TILE_ELEMENTS = STEP_ELEMENTS / 2, ROW_BYTES = 64 };

/* All eight registers: 16 rows of 64 bytes. */
void tiles__amx_begin(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape;
    memset(&shape, 0, sizeof shape);
    shape.palette = 1;
    for (int i = 0; i < 8; i++) {
        shape.row_bytes[i] = ROW_BYTES;
        shape.rows[i] = TILE;
    }
#ifdef SMGPT_EMULATED /* tests/emulated */
    _tile_loadconfig(&shape);
#else /* the compiler's own does not say that it reads all of it */
    __asm__ volatile("ldtilecfg %0" ::"m"(shape) : "memory");
#endif
}

void tiles__amx_end(void)
{
    _mm_sfence();
    _tile_release();
}

static inline __attribute__((always_inline)) void fetch(const char *ahead)
{
#pragma GCC unroll 4
    for (int at = 0; at < AHEAD_BYTES; at += 64)
        _mm_prefetch(ahead + at, _MM_HINT_T1);
}

/* What a product does beside its sums. The caller's work is cut so small that the processor, which looks some
 * hundred instructions ahead, finds steps of the product before and behind each part. */
struct beside {
    const char *ahead;
    int64_t parts, step, every; /* parts left; steps since the last one; of them between two */
};

static inline __attribute__((always_inline)) void beside_step(const struct panel_product *p,
                                                              struct beside *beside)
{
    if (beside->ahead != NULL) {
        fetch(beside->ahead);
        beside->ahead += AHEAD_BYTES;
    }
    if (beside->parts > 0 && ++beside->step == beside->every) {
        beside->step = 0;
        beside->parts--;
        p->meanwhile(p->of);
    }
}

/* mt x nt tiles; constants where this is expanded. */
static inline __attribute__((always_inline)) void run_steps(const int mt, const int nt,
                                                            const struct panel_product *p,
                                                            const struct panel_run *run,
                                                            struct beside *beside)
{
    const uint16_t *left = run->left, *right = run->right;
    for (int64_t s = 0; s < run->n_steps; s++, left += STEP_ELEMENTS, right += STEP_ELEMENTS) {
        beside_step(p, beside);
        _tile_stream_loadd(6, right, ROW_BYTES);
        _tile_loadd(4, left, ROW_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        if (mt > 1) {
            _tile_loadd(5, left + TILE_ELEMENTS, ROW_BYTES);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (nt > 1) {
            _tile_stream_loadd(7, right + TILE_ELEMENTS, ROW_BYTES);
            _tile_dpbf16ps(1, 4, 7);
            if (mt > 1)
                _tile_dpbf16ps(3, 5, 7);
        }
    }
}

/* Most steps are the first run's. */
static struct beside beside_open(const struct panel_product *p)
{
    int64_t every = p->n_parts > 0 ? p->runs[0].n_steps / p->n_parts : 0;
    return (struct beside){.ahead = p->ahead, .parts = p->n_parts, .every = every > 0 ? every : 1};
}

/* Whole tiles in and out. */
static inline __attribute__((always_inline)) void whole(const int mt, const int nt,
                                                        const struct panel_product *p, const float *in,
                                                        int64_t ld_in, float *out, int64_t ld_out)
{
    int64_t in_bytes = ld_in * 4, out_bytes = ld_out * 4;
    struct beside beside = beside_open(p);
    MEMORY_IS_TOUCHED();
    if (in != NULL) {
        _tile_loadd(0, in, in_bytes);
        if (nt > 1)
            _tile_loadd(1, in + TILE, in_bytes);
        if (mt > 1)
            _tile_loadd(2, in + TILE * ld_in, in_bytes);
        if (mt > 1 && nt > 1)
            _tile_loadd(3, in + TILE * ld_in + TILE, in_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int r = 0; r < p->n_runs; r++)
        run_steps(mt, nt, p, &p->runs[r], &beside);
    for (; beside.parts > 0; beside.parts--)
        p->meanwhile(p->of);
    _tile_stored(0, out, out_bytes);
    if (nt > 1)
        _tile_stored(1, out + TILE, out_bytes);
    if (mt > 1)
        _tile_stored(2, out + TILE * ld_out, out_bytes);
    if (mt > 1 && nt > 1)
        _tile_stored(3, out + TILE * ld_out + TILE, out_bytes);
    MEMORY_IS_TOUCHED();
}

static void any_whole(const struct panel_product *p, const float *in, int64_t ld_in, float *out,
                      int64_t ld_out)
{
    if (p->rows > TILE && p->columns > TILE)
        whole(2, 2, p, in, ld_in, out, ld_out);
    else if (p->rows > TILE)
        whole(2, 1, p, in, ld_in, out, ld_out);
    else if (p->columns > TILE)
        whole(1, 2, p, in, ld_in, out, ld_out);
    else
        whole(1, 1, p, in, ld_in, out, ld_out);
}

static void copy_part(float *to, int64_t ld_to, const float *from, int64_t ld_from, int64_t rows,
                      int64_t columns)
{
    for (int64_t i = 0; i < rows; i++)
        memcpy(to + i * ld_to, from + i * ld_from, (size_t)columns * sizeof *to);
}

/* Not inlined: the way of whole tiles, often a few steps long, would make room for the part each time. */
static __attribute__((noinline)) void cut(const struct panel_product *p)
{
    float part[PANEL * PANEL] __attribute__((aligned(64)));
    if (p->in != NULL) {
        memset(part, 0, sizeof part);
        copy_part(part, PANEL, p->in, p->ld_in, p->rows, p->columns);
    }
    any_whole(p, p->in != NULL ? part : NULL, PANEL, part, PANEL);
    copy_part(p->out, p->ld_out, part, PANEL, p->rows, p->columns);
}

void tiles__amx_product(const struct panel_product *p)
{
    if (p->rows % TILE == 0 && p->columns % TILE == 0)
        any_whole(p, p->in, p->ld_in, p->out, p->ld_out);
    else
        cut(p);
}

#endif
