/* Packing of panels (tiles.h). Two forms are all there is: 32 elements of a row side by side are a row of a
 * left tile, and two rows interleaved are a row of a right tile. The turned forms are the other one with the
 * 16 x 16 pairs of a tile transposed. */
#ifdef SMGPT_X86
#include "tile_names.h"
#include <immintrin.h>
#include <string.h>

enum {
    TILE = PANEL / 2,
    TILE_ELEMENTS = STEP_ELEMENTS / 2,
    STEPS_AT_ONCE = 4 /* of a row: whole pages of the source, before the next row */
};

/* A row of 16 pairs, written or kept for the transposition. */
typedef __m512i pairs;

static inline __mmask16 mask16(int64_t n)
{
    return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

/* The first n of 16 floats, scaled. */
static inline __m512 load_scaled(const float *x, int64_t n, __m512 scale)
{
    __m512 v = n >= 16 ? _mm512_loadu_ps(x) : _mm512_maskz_loadu_ps(mask16(n), x);
    return _mm512_mul_ps(v, scale);
}

/* 32 elements of a row, rounded: k of them there. */
static inline pairs row_pairs(const float *x, int64_t k, __m512 scale)
{
    __m512 low = load_scaled(x, k, scale), high = load_scaled(x + 16, k - 16, scale);
    return (pairs)_mm512_cvtne2ps_pbh(high, low);
}

static inline pairs interleave(__m512i both)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, both);
}

/* Pairs (even[j], odd[j]) for n columns, rounded; k > 1 says that the odd row is there. */
static inline pairs column_pairs(const float *even, int64_t ld, int64_t n, int64_t k, __m512 scale)
{
    if (k <= 0 || n <= 0)
        return _mm512_setzero_si512();
    __m512 low = load_scaled(even, n, scale), high = _mm512_setzero_ps();
    if (k > 1)
        high = load_scaled(even + ld, n, scale);
    return interleave((__m512i)_mm512_cvtne2ps_pbh(high, low));
}

static inline pairs row_pairs_bf16(const uint16_t *x, int64_t k)
{
    __mmask32 mask = k >= 32 ? 0xffffffffu : k <= 0 ? 0 : (1u << k) - 1;
    return _mm512_maskz_loadu_epi16(mask, x);
}

/* tile[j] gets lane j of every row: 16 x 16 elements of 32 bits, by pairs of rows, fours, then quarters. */
static inline void store_transposed(uint16_t *tile, pairs r[16])
{
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* r[4 i + c]: lane 4 q + c of rows 4 i .. 4 i + 3, for each quarter q */
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        __m512i a = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88),
                b = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        __m512i d = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88),
                e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        _mm512_store_si512(tile + c * STEP, _mm512_shuffle_i32x4(a, d, 0x88));
        _mm512_store_si512(tile + (4 + c) * STEP, _mm512_shuffle_i32x4(b, e, 0x88));
        _mm512_store_si512(tile + (8 + c) * STEP, _mm512_shuffle_i32x4(a, d, 0xdd));
        _mm512_store_si512(tile + (12 + c) * STEP, _mm512_shuffle_i32x4(b, e, 0xdd));
    }
}

void tiles__pack_left(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale)
{
    const __m512 by = _mm512_set1_ps(scale);
    int64_t n_steps = tiles_steps(k);
    for (int64_t first = 0; first < n_steps; first += STEPS_AT_ONCE) {
        int64_t end = first + STEPS_AT_ONCE < n_steps ? first + STEPS_AT_ONCE : n_steps;
        for (int64_t i = 0; i < PANEL; i++)
            for (int64_t s = first; s < end; s++) {
                pairs row = _mm512_setzero_si512();
                if (i < n)
                    row = row_pairs(x + i * ld + s * STEP, k - s * STEP, by);
                _mm512_store_si512(panel + s * STEP_ELEMENTS + i * STEP, row);
            }
    }
}

void tiles__pack_right(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale)
{
    const __m512 by = _mm512_set1_ps(scale);
    for (int64_t l = 0; l < tiles_steps(k) * STEP; l += 2) {
        uint16_t *to = panel + l / STEP * STEP_ELEMENTS + l % STEP / 2 * STEP;
        const float *from = x + l * ld;
        _mm512_store_si512(to, column_pairs(from, ld, n, k - l, by));
        _mm512_store_si512(to + TILE_ELEMENTS, column_pairs(from + TILE, ld, n - TILE, k - l, by));
    }
}

void tiles__left_rows(uint16_t *step, const float *x, int first, int n)
{
    const __m512 by = _mm512_set1_ps(1);
    for (int i = 0; i < n; i++)
        _mm512_store_si512(step + (first + i) * STEP, row_pairs(x + i * PANEL, PANEL, by));
}

void tiles__right_rows(uint16_t *step, const float *x, int first, int n)
{
    const __m512 by = _mm512_set1_ps(1);
    for (int l = 0; l < n; l += 2) {
        uint16_t *to = step + (first + l) / 2 * STEP;
        _mm512_store_si512(to, column_pairs(x + l * PANEL, PANEL, TILE, 2, by));
        _mm512_store_si512(to + TILE_ELEMENTS, column_pairs(x + l * PANEL + TILE, PANEL, TILE, 2, by));
    }
}

void tiles__pack_left_turned(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale)
{
    const __m512 by = _mm512_set1_ps(scale);
    for (int64_t s = 0; s < tiles_steps(k); s++)
        for (int64_t half = 0; half < 2; half++) {
            pairs r[16];
#pragma GCC unroll 16
            for (int64_t p = 0; p < 16; p++) {
                int64_t l = s * STEP + 2 * p;
                r[p] = column_pairs(x + l * ld + half * TILE, ld, n - half * TILE, k - l, by);
            }
            store_transposed(panel + s * STEP_ELEMENTS + half * TILE_ELEMENTS, r);
        }
}

void tiles__pack_right_turned(uint16_t *panel, const float *x, int64_t ld, int64_t n, int64_t k, float scale)
{
    const __m512 by = _mm512_set1_ps(scale);
    for (int64_t s = 0; s < tiles_steps(k); s++)
        for (int64_t half = 0; half < 2; half++) {
            pairs r[16];
#pragma GCC unroll 16
            for (int64_t j = 0; j < 16; j++) {
                int64_t column = half * TILE + j;
                r[j] = _mm512_setzero_si512();
                if (column < n)
                    r[j] = row_pairs(x + column * ld + s * STEP, k - s * STEP, by);
            }
            store_transposed(panel + s * STEP_ELEMENTS + half * TILE_ELEMENTS, r);
        }
}

void tiles__copy_right_turned(uint16_t *panel, const uint16_t *x, int64_t ld, int64_t n, int64_t k)
{
    for (int64_t s = 0; s < tiles_steps(k); s++)
        for (int64_t half = 0; half < 2; half++) {
            pairs r[16];
#pragma GCC unroll 16
            for (int64_t j = 0; j < 16; j++) {
                int64_t column = half * TILE + j;
                r[j] = _mm512_setzero_si512();
                if (column < n)
                    r[j] = row_pairs_bf16(x + column * ld + s * STEP, k - s * STEP);
            }
            store_transposed(panel + s * STEP_ELEMENTS + half * TILE_ELEMENTS, r);
        }
}

/* Eight rows of pairs of terms become eight rows of pairs of columns. First the pairs of two columns
 * side by side, (c, l) (c, l + 1) (c + 1, l) (c + 1, l + 1), become (c, l) (c + 1, l) (c, l + 1) (c + 1, l +
 * 1), 64 bits that stay together; then 8 x 8 of those are transposed. */
static inline void turn_rows(uint16_t *to, const uint16_t *from)
{
    const __m512i order =
        _mm512_set_epi64(0x0f0e0b0a0d0c0908, 0x0706030205040100, 0x0f0e0b0a0d0c0908, 0x0706030205040100,
                         0x0f0e0b0a0d0c0908, 0x0706030205040100, 0x0f0e0b0a0d0c0908, 0x0706030205040100);
    pairs t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        pairs even = _mm512_shuffle_epi8(_mm512_load_si512(from + 2 * i * STEP), order);
        pairs odd = _mm512_shuffle_epi8(_mm512_load_si512(from + (2 * i + 1) * STEP), order);
        t[2 * i] = _mm512_unpacklo_epi64(even, odd);
        t[2 * i + 1] = _mm512_unpackhi_epi64(even, odd);
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        pairs a = _mm512_shuffle_i32x4(t[h], t[2 + h], 0x88), b = _mm512_shuffle_i32x4(t[h], t[2 + h], 0xdd);
        pairs d = _mm512_shuffle_i32x4(t[4 + h], t[6 + h], 0x88),
              e = _mm512_shuffle_i32x4(t[4 + h], t[6 + h], 0xdd);
        _mm512_store_si512(to + h * STEP, _mm512_shuffle_i32x4(a, d, 0x88));
        _mm512_store_si512(to + (2 + h) * STEP, _mm512_shuffle_i32x4(b, e, 0x88));
        _mm512_store_si512(to + (4 + h) * STEP, _mm512_shuffle_i32x4(a, d, 0xdd));
        _mm512_store_si512(to + (6 + h) * STEP, _mm512_shuffle_i32x4(b, e, 0xdd));
    }
}

void tiles__turn_right(uint16_t *to, const uint16_t *from)
{
    enum { HALF = TILE / 2 * STEP }; /* eight of the sixteen rows of a tile */
    for (int columns = 0; columns < 2; columns++)
        for (int terms = 0; terms < 2; terms++)
            turn_rows(to + terms * TILE_ELEMENTS + columns * HALF,
                      from + columns * TILE_ELEMENTS + terms * HALF);
}

#endif
