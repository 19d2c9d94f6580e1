/* Attention's exponentials between the products: scores become panels of probabilities in one pass over a
 * row, or, on the way back, panels of probabilities and of the scores' gradients.
 *
 * Exponentials are powers of two: scale log2(e) is multiplied into the score where its row's largest (or lse)
 * is taken off, in one multiply-add. */
#ifdef SMGPT_X86
#include "tile_names.h"
#include <immintrin.h>
#include <math.h>

enum { TILE = PANEL / 2, TILE_ELEMENTS = STEP_ELEMENTS / 2 };
#define ALL_SEEN 0xffffffffu
#define LOG2_E   1.44269504f
#define LN_2     0.693147181f
#define ALWAYS   static inline __attribute__((always_inline))

/* 2^t in the lanes of the mask, 0 in the others: 2^(t - floor t) by a polynomial that is 1 at 0 and off by
 * less than 9e-8 of the value on [0, 1). */
ALWAYS __m512 power_of_two(__mmask16 mask, __m512 t)
{
    const int floor_quietly = 0x09;
    __m512 f = _mm512_reduce_ps(t, floor_quietly);
    __m512 p = _mm512_set1_ps(1.8671301e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.0170307e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5799913e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4016444e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9315130e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1));
    return _mm512_maskz_scalef_ps(mask, p, t);
}

/* ln x for finite x > 0: x = 2^e m with m in [3/4, 3/2), and ln m = 2 artanh(u) for u = (m - 1) / (m + 1),
 * |u| <= 1/5; the series' rest is below 2e-9. */
ALWAYS __m512 logarithm(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1);
    __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
    __m512 e = _mm512_getexp_ps(_mm512_div_ps(x, m));
    __m512 u = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one)), square = _mm512_mul_ps(u, u);
    __m512 p = _mm512_set1_ps(2.0f / 9);
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(2.0f / 7));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(2.0f / 5));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(2.0f / 3));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, square), u, _mm512_add_ps(u, u));
    return _mm512_fmadd_ps(e, _mm512_set1_ps(LN_2), p);
}

ALWAYS __mmask16 first_lanes(int64_t n)
{
    return n >= TILE ? 0xffff : (__mmask16)((1u << n) - 1);
}

/* The largest of factor * s among what the row sees. */
ALWAYS float row_max(const float *s, const uint32_t *seen, int64_t n_panels, __m512 factor)
{
    __m512 low = _mm512_set1_ps(-INFINITY), high = low;
    for (int64_t j = 0; j < n_panels; j++, s += PANEL) {
        uint32_t mask = seen[j * PANEL];
        __m512 a = _mm512_mul_ps(_mm512_load_ps(s), factor);
        __m512 b = _mm512_mul_ps(_mm512_load_ps(s + TILE), factor);
        if (mask == ALL_SEEN) {
            low = _mm512_max_ps(a, low);
            high = _mm512_max_ps(b, high);
        } else {
            low = _mm512_mask_max_ps(low, (__mmask16)mask, a, low);
            high = _mm512_mask_max_ps(high, (__mmask16)(mask >> TILE), b, high);
        }
    }
    return _mm512_reduce_max_ps(_mm512_max_ps(low, high));
}

/* One row: its part of each step of the left panel, and the sum. */
ALWAYS float row_softmax(uint16_t *left, const float *s, const uint32_t *seen, int64_t n_panels,
                         __m512 factor, __m512 max)
{
    __m512 low = _mm512_setzero_ps(), high = low;
    for (int64_t j = 0; j < n_panels; j++, s += PANEL, left += STEP_ELEMENTS) {
        uint32_t mask = seen[j * PANEL];
        __m512 b = _mm512_setzero_ps();
        if (mask == 0) {
            _mm512_store_ps(left, b);
            continue;
        }
        __mmask16 m = (__mmask16)mask, n = (__mmask16)(mask >> TILE);
        __m512 a = power_of_two(m, _mm512_fmsub_ps(_mm512_load_ps(s), factor, max));
        low = _mm512_add_ps(low, a);
        if (n != 0) {
            b = power_of_two(n, _mm512_fmsub_ps(_mm512_load_ps(s + TILE), factor, max));
            high = _mm512_add_ps(high, b);
        }
        _mm512_store_si512(left, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(low, high));
}

void tiles__softmax(uint16_t *left, float *lse, float *sum, const float *scores, int64_t ld,
                    const uint32_t *seen, int64_t n_panels, int rows, float scale)
{
    const __m512 factor = _mm512_set1_ps(scale * LOG2_E);
    float max[PANEL];
    for (int r = 0; r < rows; r++) {
        const float *s = scores + r * ld;
        max[r] = row_max(s, seen + r, n_panels, factor);
        sum[r] = row_softmax(left + r * STEP, s, seen + r, n_panels, factor, _mm512_set1_ps(max[r]));
    }
    for (int r = 0; r < rows; r += TILE) {
        __mmask16 mask = first_lanes(rows - r);
        __m512 log_sum = logarithm(_mm512_maskz_loadu_ps(mask, sum + r));
        __m512 in_twos = _mm512_maskz_loadu_ps(mask, max + r);
        _mm512_mask_storeu_ps(lse + r, mask, _mm512_fmadd_ps(in_twos, _mm512_set1_ps(LN_2), log_sum));
    }
    for (int r = rows; r < PANEL; r++)
        for (int64_t j = 0; j < n_panels; j++)
            _mm512_store_si512(left + j * STEP_ELEMENTS + r * STEP, _mm512_setzero_si512());
}

/* 32 columns of two rows, interleaved: a row of each of the two tiles of a right step. */
ALWAYS void store_pairs(uint16_t *right, __m512i even, __m512i odd)
{
    const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0),
                  second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    __m512i low = _mm512_unpacklo_epi16(even, odd), high = _mm512_unpackhi_epi16(even, odd);
    _mm512_store_si512(right, _mm512_permutex2var_epi64(low, first, high));
    _mm512_store_si512(right + TILE_ELEMENTS, _mm512_permutex2var_epi64(low, second, high));
}

struct back_row {
    __m512i p, ds; /* 32 columns, rounded */
};

/* P and dS of 16 columns. */
ALWAYS void half_back(const struct score_block *b, int64_t at, __mmask16 mask, __m512 factor, __m512 lse,
                      __m512 through, __m512 *p, __m512 *ds)
{
    const __m512 scale = _mm512_set1_ps(b->scale);
    *p = power_of_two(mask, _mm512_fmsub_ps(_mm512_load_ps(b->scores + at), factor, lse));
    __m512 slope = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(b->dp + at), through), scale);
    *ds = _mm512_maskz_mul_ps(mask, *p, slope);
}

ALWAYS struct back_row row_back(const struct score_block *b, int r, __m512 factor)
{
    uint32_t mask = b->seen[r];
    __m512 zero = _mm512_setzero_ps(), p[2] = {zero, zero}, ds[2] = {zero, zero};
    __m512 lse = _mm512_set1_ps(b->lse[r] * LOG2_E), through = _mm512_set1_ps(b->through[r]);
    if (mask != 0)
        half_back(b, r * PANEL, (__mmask16)mask, factor, lse, through, &p[0], &ds[0]);
    if (mask >> TILE != 0)
        half_back(b, r * PANEL + TILE, (__mmask16)(mask >> TILE), factor, lse, through, &p[1], &ds[1]);
    return (struct back_row){(__m512i)_mm512_cvtne2ps_pbh(p[1], p[0]),
                             (__m512i)_mm512_cvtne2ps_pbh(ds[1], ds[0])};
}

void tiles__softmax_back(const struct score_block *b, int first, int end)
{
    const __m512 factor = _mm512_set1_ps(b->scale * LOG2_E);
    for (int r = first; r < end; r += 2) {
        __m512i zero = _mm512_setzero_si512();
        struct back_row even = {zero, zero}, odd = {zero, zero};
        if ((b->seen[r] | b->seen[r + 1]) != 0) {
            even = row_back(b, r, factor);
            odd = row_back(b, r + 1, factor);
        }
        _mm512_store_si512(b->ds_left + r * STEP, even.ds);
        _mm512_store_si512(b->ds_left + (r + 1) * STEP, odd.ds);
        store_pairs(b->p_right + r / 2 * STEP, even.p, odd.p);
        store_pairs(b->ds_right + r / 2 * STEP, even.ds, odd.ds);
    }
}

/* Sixteen bfloat16 as float32. */
ALWAYS __m512 widen(const uint16_t *x)
{
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i *)x));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

void tiles__row_dots(float *dots, const uint16_t *left, const float *x, int64_t ld, int64_t rows, int64_t k,
                     int64_t n_heads)
{
    int64_t n_steps = tiles_steps(k);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < n_heads; h++) {
            const uint16_t *at = left + h * n_steps * STEP_ELEMENTS + r * STEP;
            const float *from = x + r * ld + h * k;
            __m512 low = _mm512_setzero_ps(), high = low;
            int64_t l = 0;
            for (; l + STEP <= k; l += STEP, at += STEP_ELEMENTS) {
                low = _mm512_fmadd_ps(widen(at), _mm512_loadu_ps(from + l), low);
                high = _mm512_fmadd_ps(widen(at + TILE), _mm512_loadu_ps(from + l + TILE), high);
            }
            if (l < k)
                low = _mm512_fmadd_ps(widen(at), _mm512_maskz_loadu_ps(first_lanes(k - l), from + l), low);
            if (l + TILE < k)
                high =
                    _mm512_fmadd_ps(widen(at + TILE),
                                    _mm512_maskz_loadu_ps(first_lanes(k - l - TILE), from + l + TILE), high);
            dots[h * PANEL + r] = _mm512_reduce_add_ps(_mm512_add_ps(low, high));
        }
}

void tiles__divide_rows(float *to, int64_t ld_to, const float *from, int64_t ld_from, const float *by,
                        int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r++) {
        const __m512 factor = _mm512_set1_ps(1 / by[r]);
        for (int64_t e = 0; e < n; e += TILE) {
            __mmask16 mask = first_lanes(n - e);
            __m512 x = _mm512_maskz_loadu_ps(mask, from + r * ld_from + e);
            _mm512_mask_storeu_ps(to + r * ld_to + e, mask, _mm512_mul_ps(x, factor));
        }
    }
}

#endif
