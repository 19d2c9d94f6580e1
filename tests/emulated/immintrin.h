/* Stands in for the compiler's header of this name, so that the files of src/ops/cpu/tiles run on any
 * processor: the instructions that they use, in plain C on vectors of the compiler's. What each does is
 * Intel's definition (Software Developer's Manual, volume 2) for the operands that occur; only the roundings
 * inside of products and polynomials may differ by a last bit. */
#ifndef SMGPT_TESTS_EMULATED_IMMINTRIN_H
#define SMGPT_TESTS_EMULATED_IMMINTRIN_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float __m512 __attribute__((vector_size(64), may_alias));
typedef long long __m512i __attribute__((vector_size(64), may_alias));
typedef long long __m256i __attribute__((vector_size(32), may_alias));
typedef short __m512bh __attribute__((vector_size(64), may_alias));
typedef uint16_t emulated_u16 __attribute__((vector_size(64), may_alias));
typedef int32_t emulated_i32 __attribute__((vector_size(64), may_alias));
typedef uint16_t __mmask16;
typedef uint32_t __mmask32;

#define EMULATED static inline __attribute__((always_inline, unused))

/* ---- loads and stores; masked lanes are not touched ---- */

EMULATED __m512 _mm512_loadu_ps(const void *p)
{
    __m512 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Aligned ones trap in the hardware; so do these. */
EMULATED void emulated_aligned(const void *p, uintptr_t n)
{
    if ((uintptr_t)p % n != 0)
        __builtin_trap();
}

EMULATED __m512 _mm512_load_ps(const void *p)
{
    emulated_aligned(p, 64);
    return _mm512_loadu_ps(p);
}

EMULATED __m512i _mm512_load_si512(const void *p)
{
    emulated_aligned(p, 64);
    __m512i v;
    memcpy(&v, p, sizeof v);
    return v;
}

EMULATED __m256i _mm256_load_si256(const __m256i *p)
{
    emulated_aligned(p, 32);
    __m256i v;
    memcpy(&v, p, sizeof v);
    return v;
}

EMULATED void _mm512_store_ps(void *p, __m512 v)
{
    emulated_aligned(p, 64);
    memcpy(p, &v, sizeof v);
}

EMULATED void _mm512_store_si512(void *p, __m512i v)
{
    emulated_aligned(p, 64);
    memcpy(p, &v, sizeof v);
}

/* Past the caches; the same to memory. */
EMULATED void _mm512_stream_si512(__m512i *p, __m512i v)
{
    _mm512_store_si512(p, v);
}

EMULATED __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void *p)
{
    const float *x = p;
    __m512 v = {0};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            v[i] = x[i];
    return v;
}

EMULATED void _mm512_mask_storeu_ps(void *p, __mmask16 mask, __m512 v)
{
    float *x = p;
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            x[i] = v[i];
}

EMULATED __m512i _mm512_maskz_loadu_epi16(__mmask32 mask, const void *p)
{
    const uint16_t *x = p;
    emulated_u16 v = {0};
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1)
            v[i] = x[i];
    return (__m512i)v;
}

enum { _MM_HINT_T1 = 2 };
#define _mm_prefetch(p, hint) ((void)(p))

/* ---- constants, and views of the same bits ---- */

EMULATED __m512 _mm512_set1_ps(float x)
{
    return (__m512){0} + x;
}

EMULATED __m512i _mm512_set1_epi32(int32_t x)
{
    return (__m512i)((emulated_i32){0} + x);
}

#define _mm512_setzero_ps()    ((__m512){0})
#define _mm512_setzero_si512() ((__m512i){0})
#define _mm512_castsi512_ps(v) ((__m512)(v))
#define _mm_sfence()           ((void)0)
#define _mm512_set_epi64(...)  emulated_set_epi64((const long long[8]){__VA_ARGS__})
#define _mm512_set_epi16(...)  emulated_set_epi16((const short[32]){__VA_ARGS__})

EMULATED __m512i emulated_set_epi64(const long long *last_first)
{
    __m512i v;
    for (int i = 0; i < 8; i++)
        v[i] = last_first[7 - i];
    return v;
}

EMULATED __m512i emulated_set_epi16(const short *last_first)
{
    emulated_u16 v;
    for (int i = 0; i < 32; i++)
        v[i] = (uint16_t)last_first[31 - i];
    return (__m512i)v;
}

/* ---- arithmetic ---- */

EMULATED __m512 _mm512_add_ps(__m512 a, __m512 b)
{
    return a + b;
}

EMULATED __m512 _mm512_sub_ps(__m512 a, __m512 b)
{
    return a - b;
}

EMULATED __m512 _mm512_mul_ps(__m512 a, __m512 b)
{
    return a * b;
}

EMULATED __m512 _mm512_div_ps(__m512 a, __m512 b)
{
    return a / b;
}

EMULATED __m512 _mm512_maskz_mul_ps(__mmask16 mask, __m512 a, __m512 b)
{
    __m512 v = {0};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            v[i] = a[i] * b[i];
    return v;
}

/* The product of two floats is exact in double. */
EMULATED __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c)
{
    for (int i = 0; i < 16; i++)
        c[i] = (float)((double)a[i] * (double)b[i] + (double)c[i]);
    return c;
}

EMULATED __m512 _mm512_fmsub_ps(__m512 a, __m512 b, __m512 c)
{
    return _mm512_fmadd_ps(a, b, -c);
}

/* The second one where either is no number. */
EMULATED __m512 _mm512_max_ps(__m512 a, __m512 b)
{
    for (int i = 0; i < 16; i++)
        a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}

EMULATED __m512 _mm512_mask_max_ps(__m512 otherwise, __mmask16 mask, __m512 a, __m512 b)
{
    a = _mm512_max_ps(a, b);
    for (int i = 0; i < 16; i++)
        otherwise[i] = mask >> i & 1 ? a[i] : otherwise[i];
    return otherwise;
}

/* Halves onto each other, until one lane is left. */
EMULATED float _mm512_reduce_add_ps(__m512 v)
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            v[i] += v[i + half];
    return v[0];
}

EMULATED float _mm512_reduce_max_ps(__m512 v)
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
    return v[0];
}

/* x - floor(x): the form of the instruction that is asked for here, with control 0x09. */
EMULATED __m512 _mm512_reduce_ps(__m512 x, int control)
{
    if (control != 0x09)
        __builtin_trap();
    for (int i = 0; i < 16; i++)
        x[i] = isinf(x[i]) ? 0 : x[i] - floorf(x[i]);
    return x;
}

/* a 2^floor(b). */
EMULATED __m512 _mm512_maskz_scalef_ps(__mmask16 mask, __m512 a, __m512 b)
{
    __m512 v = {0};
    for (int i = 0; i < 16; i++) {
        float power = floorf(b[i]);
        if (!(mask >> i & 1))
            continue;
        v[i] = isnan(power) ? power : ldexpf(a[i], power < -1000 ? -1000 : power > 1000 ? 1000 : (int)power);
    }
    return v;
}

enum { _MM_MANT_NORM_p75_1p5 = 3, _MM_MANT_SIGN_src = 0 };
/* The significand in [3/4, 3/2), and the exponent of the one in [1, 2). */
EMULATED __m512 _mm512_getmant_ps(__m512 x, int interval, int sign)
{
    if (interval != _MM_MANT_NORM_p75_1p5 || sign != _MM_MANT_SIGN_src)
        __builtin_trap();
    for (int i = 0; i < 16; i++) {
        int e;
        float m = frexpf(x[i], &e); /* [1/2, 1) */
        x[i] = isfinite(x[i]) && m < 0.75F ? 2 * m : m;
    }
    return x;
}

EMULATED __m512 _mm512_getexp_ps(__m512 x)
{
    for (int i = 0; i < 16; i++)
        x[i] = logbf(x[i]);
    return x;
}

/* ---- bfloat16 ---- */

/* To the nearest, ties to even; numbers below the least normal one count as 0. */
EMULATED uint16_t emulated_to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x))
        return (uint16_t)(bits >> 16 | 0x40);
    if ((bits & 0x7f800000) == 0)
        return (uint16_t)(bits >> 16 & 0x8000);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

EMULATED float emulated_from_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float v;
    if ((bits & 0x7f800000) == 0)
        bits &= 0x80000000;
    memcpy(&v, &bits, sizeof v);
    return v;
}

EMULATED __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low)
{
    emulated_u16 v;
    for (int i = 0; i < 16; i++) {
        v[i] = emulated_to_bf16(low[i]);
        v[16 + i] = emulated_to_bf16(high[i]);
    }
    return (__m512bh)v;
}

EMULATED float emulated_dot_pair(float sum, const uint16_t *a, const uint16_t *b)
{
    sum += emulated_from_bf16(a[1]) * emulated_from_bf16(b[1]);
    return sum + emulated_from_bf16(a[0]) * emulated_from_bf16(b[0]);
}

EMULATED __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b)
{
    uint16_t x[32], y[32];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < 16; i++)
        sum[i] = emulated_dot_pair(sum[i], x + 2 * i, y + 2 * i);
    return sum;
}

/* ---- moves between lanes ---- */

EMULATED __m512i _mm512_cvtepu16_epi32(__m256i x)
{
    uint16_t half[16];
    emulated_i32 v;
    memcpy(half, &x, sizeof half);
    for (int i = 0; i < 16; i++)
        v[i] = half[i];
    return (__m512i)v;
}

EMULATED __m256i _mm512_extracti64x4_epi64(__m512i x, int half)
{
    __m256i v;
    memcpy(&v, (const char *)&x + half * sizeof v, sizeof v);
    return v;
}
#define _mm512_castsi512_si256(x) _mm512_extracti64x4_epi64(x, 0)

EMULATED __m512i _mm512_slli_epi32(__m512i x, unsigned n)
{
    return (__m512i)((emulated_i32)x << (int)n);
}

EMULATED __m512i _mm512_permutexvar_epi16(__m512i order, __m512i x)
{
    return (__m512i)__builtin_shuffle((emulated_u16)x, (emulated_u16)order);
}

EMULATED __m512i _mm512_permutex2var_epi64(__m512i a, __m512i order, __m512i b)
{
    return __builtin_shuffle(a, b, order);
}

/* Each 128 bits on their own: byte i becomes the one that byte i of order names. */
EMULATED __m512i _mm512_shuffle_epi8(__m512i x, __m512i order)
{
    unsigned char from[64], by[64], v[64];
    memcpy(from, &x, 64);
    memcpy(by, &order, 64);
    for (int i = 0; i < 64; i++)
        v[i] = by[i] & 0x80 ? 0 : from[(i & ~15) + (by[i] & 15)];
    memcpy(&x, v, 64);
    return x;
}

/* Each 128 bits on their own: the lower (or upper) halves of both, alternating. */
EMULATED __m512i emulated_unpack(__m512i a, __m512i b, int bytes, int high)
{
    unsigned char x[64], y[64], v[64];
    memcpy(x, &a, 64);
    memcpy(y, &b, 64);
    for (int quarter = 0; quarter < 64; quarter += 16)
        for (int i = 0; i < 8; i += bytes) {
            memcpy(v + quarter + 2 * i, x + quarter + 8 * high + i, (size_t)bytes);
            memcpy(v + quarter + 2 * i + bytes, y + quarter + 8 * high + i, (size_t)bytes);
        }
    memcpy(&a, v, 64);
    return a;
}

#define _mm512_unpacklo_epi16(a, b) emulated_unpack(a, b, 2, 0)
#define _mm512_unpackhi_epi16(a, b) emulated_unpack(a, b, 2, 1)
#define _mm512_unpacklo_epi32(a, b) emulated_unpack(a, b, 4, 0)
#define _mm512_unpackhi_epi32(a, b) emulated_unpack(a, b, 4, 1)
#define _mm512_unpacklo_epi64(a, b) emulated_unpack(a, b, 8, 0)
#define _mm512_unpackhi_epi64(a, b) emulated_unpack(a, b, 8, 1)

/* Two quarters of a, then two of b, each chosen by two bits. */
EMULATED __m512i _mm512_shuffle_i32x4(__m512i a, __m512i b, int which)
{
    __m512i v;
    for (int q = 0; q < 4; q++) {
        int from = which >> 2 * q & 3;
        for (int i = 0; i < 2; i++)
            v[2 * q + i] = q < 2 ? a[2 * from + i] : b[2 * from + i];
    }
    return v;
}

/* ---- tile registers: of each thread its own, none before they are laid out ---- */

enum { EMULATED_TILES = 8, EMULATED_ROWS = 16, EMULATED_ROW_BYTES = 64 };
struct emulated_tiles {
    unsigned char rows[EMULATED_TILES][EMULATED_ROWS][EMULATED_ROW_BYTES];
    int ready;
};
static _Thread_local struct emulated_tiles emulated_tiles __attribute__((unused));

EMULATED void emulated_ready(void)
{
    if (!emulated_tiles.ready)
        __builtin_trap();
}

/* Palette 1, all tiles 16 rows of 64 bytes: what is asked for here. */
EMULATED void _tile_loadconfig(const void *shape)
{
    const unsigned char *s = shape;
    for (int i = 0; i < EMULATED_TILES; i++)
        if (s[0] != 1 || s[1] != 0 || s[16 + 2 * i] != EMULATED_ROW_BYTES || s[17 + 2 * i] != 0 ||
            s[48 + i] != EMULATED_ROWS)
            __builtin_trap();
    memset(&emulated_tiles, 0, sizeof emulated_tiles);
    emulated_tiles.ready = 1;
}

EMULATED void _tile_release(void)
{
    emulated_tiles.ready = 0;
}

EMULATED void _tile_zero(int tile)
{
    emulated_ready();
    memset(emulated_tiles.rows[tile], 0, sizeof emulated_tiles.rows[tile]);
}

EMULATED void _tile_loadd(int tile, const void *base, int64_t stride)
{
    emulated_ready();
    for (int r = 0; r < EMULATED_ROWS; r++)
        memcpy(emulated_tiles.rows[tile][r], (const char *)base + r * stride, EMULATED_ROW_BYTES);
}

#define _tile_stream_loadd(tile, base, stride) _tile_loadd(tile, base, stride)

EMULATED void _tile_stored(int tile, void *base, int64_t stride)
{
    emulated_ready();
    for (int r = 0; r < EMULATED_ROWS; r++)
        memcpy((char *)base + r * stride, emulated_tiles.rows[tile][r], EMULATED_ROW_BYTES);
}

/* The two elements of each pair of a row, apart and as floats. */
EMULATED void emulated_row(float even[16], float odd[16], const unsigned char *row)
{
    uint16_t x[32];
    memcpy(x, row, sizeof x);
    for (int i = 0; i < 16; i++) {
        even[i] = emulated_from_bf16(x[2 * i]);
        odd[i] = emulated_from_bf16(x[2 * i + 1]);
    }
}

/* Row m, column n of the sums gets all pairs k of row m of a and column n of b. */
static inline __attribute__((unused)) void _tile_dpbf16ps(int sums, int a, int b)
{
    float even[EMULATED_ROWS][16], odd[EMULATED_ROWS][16], left_even[16], left_odd[16], sum[16];
    emulated_ready();
    for (int k = 0; k < EMULATED_ROWS; k++)
        emulated_row(even[k], odd[k], emulated_tiles.rows[b][k]);
    for (int m = 0; m < EMULATED_ROWS; m++) {
        emulated_row(left_even, left_odd, emulated_tiles.rows[a][m]);
        memcpy(sum, emulated_tiles.rows[sums][m], sizeof sum);
        for (int k = 0; k < 16; k++) {
            for (int n = 0; n < 16; n++)
                sum[n] += left_odd[k] * odd[k][n];
            for (int n = 0; n < 16; n++)
                sum[n] += left_even[k] * even[k][n];
        }
        memcpy(emulated_tiles.rows[sums][m], sum, sizeof sum);
    }
}

#endif
