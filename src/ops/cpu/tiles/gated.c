/* What gate and up gave, kept in bfloat16 until the way back. It is read long after it was written, when it
 * has left the caches: the stores go by them and leave them to the products. */
#ifdef SMGPT_X86
#include "tile_names.h"
#include <immintrin.h>

enum { HALF = PANEL / 2 };

static inline __m512i round_row(const float *x)
{
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_load_ps(x + HALF), _mm512_load_ps(x));
}

static inline void spread_row(float *to, __m512i row)
{
    __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(row));
    __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(row, 1));
    _mm512_store_ps(to, _mm512_castsi512_ps(_mm512_slli_epi32(low, 16)));
    _mm512_store_ps(to + HALF, _mm512_castsi512_ps(_mm512_slli_epi32(high, 16)));
}

void tiles__keep_gated(uint16_t *kept, float *gate, float *up, int rows)
{
    for (int i = 0; i < rows; i++, kept += 2 * PANEL) {
        __m512i g = round_row(gate + i * PANEL), u = round_row(up + i * PANEL);
        _mm512_stream_si512((__m512i *)kept, g);
        _mm512_stream_si512((__m512i *)(kept + PANEL), u);
        spread_row(gate + i * PANEL, g);
        spread_row(up + i * PANEL, u);
    }
}

void tiles__kept_gated(float *gate, float *up, const uint16_t *kept, int rows)
{
    for (int i = 0; i < rows; i++, kept += 2 * PANEL) {
        spread_row(gate + i * PANEL, _mm512_load_si512(kept));
        spread_row(up + i * PANEL, _mm512_load_si512(kept + PANEL));
    }
}

#endif
