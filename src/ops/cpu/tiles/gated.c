/* What gate and up gave, kept until the way back, in bfloat16 or as it is. It is read long after it was
 * written, when it has left the caches: the stores go by them and leave them to the products. */
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

void tiles__keep_gated_bf16(void *kept, const float *gate, const float *up, int rows)
{
    __m512i *to = kept;
    for (int i = 0; i < rows; i++) {
        _mm512_stream_si512(to++, round_row(gate + i * PANEL));
        _mm512_stream_si512(to++, round_row(up + i * PANEL));
    }
}

void tiles__kept_gated_bf16(float *gate, float *up, const void *kept, int rows)
{
    const __m512i *from = kept;
    for (int i = 0; i < rows; i++) {
        spread_row(gate + i * PANEL, _mm512_load_si512(from++));
        spread_row(up + i * PANEL, _mm512_load_si512(from++));
    }
}

void tiles__keep_gated_f32(void *kept, const float *gate, const float *up, int rows)
{
    __m512i *to = kept;
    for (int i = 0; i < rows * PANEL; i += PANEL) {
        _mm512_stream_si512(to++, _mm512_load_si512(gate + i));
        _mm512_stream_si512(to++, _mm512_load_si512(gate + i + HALF));
        _mm512_stream_si512(to++, _mm512_load_si512(up + i));
        _mm512_stream_si512(to++, _mm512_load_si512(up + i + HALF));
    }
}

void tiles__kept_gated_f32(float *gate, float *up, const void *kept, int rows)
{
    const __m512i *from = kept;
    for (int i = 0; i < rows * PANEL; i += PANEL) {
        _mm512_store_si512(gate + i, _mm512_load_si512(from++));
        _mm512_store_si512(gate + i + HALF, _mm512_load_si512(from++));
        _mm512_store_si512(up + i, _mm512_load_si512(from++));
        _mm512_store_si512(up + i + HALF, _mm512_load_si512(from++));
    }
}

#endif
