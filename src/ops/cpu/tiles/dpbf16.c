/* Panels multiplied by AVX-512's vdpbf16ps: eight rows by two vectors of columns at a time, sixteen sums in
 * registers. A pair of k of a row of the left tile is one broadcast; sixteen pairs of the right tile are one
 * load. */
#ifdef SMGPT_X86
#include "tile_names.h"
#include <immintrin.h>
#include <string.h>

enum { TILE = PANEL / 2, TILE_ELEMENTS = STEP_ELEMENTS / 2, ROWS = 8, PAIRS = STEP / 2, SOON_BYTES = 512 };

static inline __m512 dot_pairs(__m512 sum, __m512i a, __m512i b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

/* Some pairs of one step. nv vectors of columns; a constant where this is expanded. left: the eight rows'
 * part of its tile. */
static inline __attribute__((always_inline)) void
run_pairs(__m512 sum[ROWS][2], const int nv, const uint16_t *left, const uint16_t *right, int n_pairs)
{
    for (int l = 0; l < n_pairs; l++) {
        __m512i b0 = _mm512_load_si512(right + l * 2 * TILE), b1 = b0;
        if (nv > 1)
            b1 = _mm512_load_si512(right + TILE_ELEMENTS + l * 2 * TILE);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            int32_t pair;
            memcpy(&pair, left + i * STEP + 2 * l, sizeof pair);
            __m512i a = _mm512_set1_epi32(pair);
            sum[i][0] = dot_pairs(sum[i][0], a, b0);
            if (nv > 1)
                sum[i][1] = dot_pairs(sum[i][1], a, b1);
        }
    }
}

/* Asks for this quarter of a step that is read later. Inlined always: the compiler leaves out calls of
 * functions that do nothing but this. */
static inline __attribute__((always_inline)) void fetch(const char *soon)
{
#pragma GCC unroll 8
    for (int at = 0; at < SOON_BYTES; at += 64)
        _mm_prefetch(soon + at, _MM_HINT_T1);
}

/* Eight rows' part of a run, skip elements on in each left step; soon: of as many steps, or NULL. */
static inline __attribute__((always_inline)) void
run_steps(__m512 sum[ROWS][2], const int nv, const struct panel_run *run, int64_t skip, const char *soon)
{
    const uint16_t *left = run->left + skip, *right = run->right;
    const int64_t whole = run->n_steps - (run->padding > 0);
    for (int64_t s = 0; s < whole; s++, left += STEP_ELEMENTS, right += STEP_ELEMENTS) {
        if (soon != NULL)
            fetch(soon + s * STEP_ELEMENTS * (int64_t)sizeof *left);
        run_pairs(sum, nv, left, right, PAIRS);
    }
    if (run->padding > 0)
        run_pairs(sum, nv, left, right, PAIRS - run->padding / 2);
}

/* The lines of the result come from memory while the sums are made. */
static inline __attribute__((always_inline)) void fetch_result(const struct panel_product *p, int first,
                                                               int rows)
{
    for (int i = first; i < first + rows; i++) {
        __builtin_prefetch(p->out + i * p->ld_out, 1);
        if (p->columns > TILE)
            __builtin_prefetch(p->out + i * p->ld_out + TILE, 1);
    }
}

static inline __attribute__((always_inline)) void eight_rows(const int nv, const struct panel_product *p,
                                                             int first)
{
    __m512 sum[ROWS][2];
    int rows = p->rows - first < ROWS ? p->rows - first : ROWS;
    __mmask16 mask[2];
    mask[0] = p->columns >= TILE ? 0xffff : (__mmask16)((1u << p->columns) - 1);
    mask[1] = p->columns >= PANEL  ? 0xffff
              : p->columns <= TILE ? 0
                                   : (__mmask16)((1u << (p->columns - TILE)) - 1);
    fetch_result(p, first, rows);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            sum[i][j] = p->in == NULL || i >= rows
                            ? _mm512_setzero_ps()
                            : _mm512_maskz_loadu_ps(mask[j], p->in + (first + i) * p->ld_in + j * TILE);
    int64_t skip = first / TILE * TILE_ELEMENTS + first % TILE * STEP;
    const char *soon = p->soon_right;
    for (int r = 0; r < p->n_runs; r++)
        run_steps(sum, nv, &p->runs[r], skip,
                  r == 0 && soon != NULL ? soon + first / ROWS * SOON_BYTES : NULL);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            if (i < rows)
                _mm512_mask_storeu_ps(p->out + (first + i) * p->ld_out + j * TILE, mask[j], sum[i][j]);
}

void tiles__dpbf16_end(void)
{
    _mm_sfence();
}

void tiles__dpbf16_product(const struct panel_product *p)
{
    for (int64_t part = 0; part < p->n_parts; part++)
        p->meanwhile(p->of);
    for (int first = 0; first < p->rows; first += ROWS)
        if (p->columns > TILE)
            eight_rows(2, p, first);
        else
            eight_rows(1, p, first);
}

#endif
