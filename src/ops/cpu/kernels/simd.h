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

enum { LANES = 16 };
typedef float v16 __attribute__((vector_size(64)));
typedef int32_t v16i __attribute__((vector_size(64)));
typedef double v8d __attribute__((vector_size(64)));

static inline v16 v16_load(const float *p)
{
    v16 v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void v16_store(float *p, v16 v)
{
    memcpy(p, &v, sizeof v);
}
/* n < 16 elements, the others are `rest`. */
static inline v16 v16_load_part(const float *p, int64_t n, float rest)
{
    float all[LANES];
    for (int i = 0; i < LANES; i++)
        all[i] = i < n ? p[i] : rest;
    return v16_load(all);
}
static inline v16 v16_max(v16 a, v16 b)
{
#ifdef __AVX512F__
    return (v16)_mm512_max_ps((__m512)a, (__m512)b);
#else
    v16i greater = a > b;
    return (v16)(((v16i)a & greater) | ((v16i)b & ~greater));
#endif
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

/* 2^e for e in [-126, 127]; anything else (from a NaN) gives some number, and no complaint. */
static inline float power_of_two(int32_t e)
{
    return bits_float((int32_t)((uint32_t)(e + 127) << 23));
}

/* exp(x) within one unit in the last place: x = n ln 2 + r with |r| <= ln(2) / 2, the series of exp(r) to r^7
 * (its rest is below 6e-9), times 2^n in two factors so that denormal and infinite results come out. NaN
 * stays NaN. ln 2 is cut in two: the first part has so few bits that t = x - n first is exact, and 1 + t is
 * kept with what its rounding lost, because two more roundings there would cost the promised unit. */
static inline float exp_f32(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, which its low bits show */
    float c = x < -105.0f ? -105.0f : x;
    c = c > 90.0f ? 90.0f : c;
    float shifted = FMA(c, 1.44269504f, magic);
    float n = shifted - magic;
    float t = FMA(n, -0.693359375f, c), rest = n * 2.12194440e-4f, r = t + rest;
    float p = 1.98412698e-4f;
    p = FMA(p, r, 1.38888889e-3f);
    p = FMA(p, r, 8.33333333e-3f);
    p = FMA(p, r, 4.16666667e-2f);
    p = FMA(p, r, 1.66666667e-1f);
    p = FMA(p, r, 0.5f);
    float high = 1.0f + t, lost = t - (high - 1.0f);
    float value = high + (FMA(p * r, r, rest) + lost);
    int32_t e = float_bits(shifted) - 0x4b400000;
    int32_t half = e >> 1;
    return value * power_of_two(half) * power_of_two(e - half);
}

#endif
