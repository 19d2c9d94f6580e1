/* Sixteen lanes whatever the registers hold, and a float exponential that compilers vectorise. */
#ifndef SMGPT_OPS_CPU_SIMD_H
#define SMGPT_OPS_CPU_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

/* One rounding where the machine has it; two roundings on the baseline, since a call of fmaf would crawl. */
#ifdef __FP_FAST_FMAF
#define FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define FMA(a, b, c) ((a) * (b) + (c))
#endif

/* Registers of a group of sixteen lanes. A vector type wider than the registers would live in memory. */
enum { LANES = 16 };
#if defined(__AVX512F__)
enum { PARTS = 1 };
#elif defined(__AVX2__)
enum { PARTS = 2 };
#else
enum { PARTS = 4 };
#endif
typedef float vpart __attribute__((vector_size(64 / PARTS)));
typedef int32_t vpart_mask __attribute__((vector_size(64 / PARTS)));
typedef struct {
    vpart part[PARTS];
} v16;

#define V16_EACH _Pragma("GCC unroll 4") for (int i = 0; i < PARTS; i++)

static inline v16 v16_load(const float *p)
{
    v16 v;
    V16_EACH memcpy(&v.part[i], p + i * (LANES / PARTS), sizeof v.part[i]);
    return v;
}
/* n < 16 elements, the others are `rest`. */
static inline v16 v16_load_part(const float *p, int64_t n, float rest)
{
    float all[LANES];
    for (int i = 0; i < LANES; i++)
        all[i] = i < n ? p[i] : rest;
    return v16_load(all);
}
static inline v16 v16_set(float x)
{
    v16 v;
    V16_EACH v.part[i] = x - (vpart){0};
    return v;
}
static inline v16 v16_add(v16 a, v16 b)
{
    V16_EACH a.part[i] += b.part[i];
    return a;
}
static inline v16 v16_mul(v16 a, v16 b)
{
    V16_EACH a.part[i] *= b.part[i];
    return a;
}
static inline v16 v16_max(v16 a, v16 b)
{
    V16_EACH
    {
#if defined(__AVX512F__)
        a.part[i] = (vpart)_mm512_max_ps((__m512)a.part[i], (__m512)b.part[i]);
#elif defined(__AVX2__)
        a.part[i] = (vpart)_mm256_max_ps((__m256)a.part[i], (__m256)b.part[i]);
#else
        vpart_mask greater = a.part[i] > b.part[i];
        a.part[i] = (vpart)(((vpart_mask)a.part[i] & greater) | ((vpart_mask)b.part[i] & ~greater));
#endif
    }
    return a;
}
/* Pairs at distance 8, 4, 2, 1: one order for all instruction sets. */
static inline float v16_sum(v16 v)
{
    float a[LANES];
    memcpy(a, &v, sizeof a);
    for (int step = LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++)
            a[i] += a[i + step];
    return a[0];
}
static inline float v16_max_of(v16 v)
{
    float a[LANES], max;
    memcpy(a, &v, sizeof a);
    max = a[0];
    for (int i = 1; i < LANES; i++)
        max = a[i] > max ? a[i] : max;
    return max;
}

static inline int32_t float_bits(float x)
{
    int32_t i;
    memcpy(&i, &x, sizeof i);
    return i;
}
static inline float bits_float(int32_t i)
{
    float x;
    memcpy(&x, &i, sizeof x);
    return x;
}

/* exp(x) for x in [-86, 89], infinity where it is too large, within one unit in the last place: x = n ln 2 +
 * r with |r| <= ln(2) / 2, a polynomial of exp(r) that is off by at most 4e-9, times 2^n. ln 2 is cut in two:
 * the first part has so few bits that x less n times it is exact. Where a multiply-add rounds twice, the 1 is
 * added to that exact part and kept with what its rounding lost. n - 1 goes into the exponent by an addition
 * of integers, and a factor of 2 is left for the end, which makes infinity of 2^128. NaN stays NaN. */
static inline float exp_within(float x)
{
    const float magic = 12582911.0f; /* 1.5 * 2^23 - 1: adding it rounds to n, and the low bits show n - 1 */
    float shifted = FMA(x, 1.44269504f, magic);
    float n = shifted - magic;
    float t = FMA(n, -0.693359375f, x), r = FMA(n, 2.12194440e-4f, t);
    float p = 1.381456e-3f;
    p = FMA(p, r, 8.368736e-3f);
    p = FMA(p, r, 4.166839e-2f);
    p = FMA(p, r, 1.6666521e-1f);
    p = FMA(p, r, 0.49999994f);
#ifdef __FP_FAST_FMAF
    p = FMA(p, r, 1.0f);
    p = FMA(p, r, 1.0f);
#else
    float high = 1.0f + t, lost = t - (high - 1.0f);
    p = high + (p * r * r + n * 2.12194440e-4f + lost);
#endif
    uint32_t bits = (uint32_t)float_bits(p) + ((uint32_t)float_bits(shifted) << 23);
    return 2.0f * bits_float((int32_t)bits);
}

/* exp(x) for any x; below -86 it is 0, so that no number without an exponent slows down what follows. */
static inline float exp_f32(float x)
{
    float c = x < -86.0f ? -86.0f : x;
    c = c > 89.0f ? 89.0f : c;
    float value = exp_within(c);
    return x < -86.0f ? 0.0f : value;
}

#endif
