/* Copies that change the layout or the element type. */
#include "kernel_names.h"
#include "simd.h"
#include "util/dtype.h"

#if defined(__AVX512F__)
enum { PANEL = 64 };
#elif defined(__AVX2__)
enum { PANEL = 16 };
#else
enum { PANEL = 8 };
#endif

void KERNEL(pack_rows)(float *dst, const float *src, int64_t ld, int64_t k, int64_t n)
{
    for (int64_t l = 0; l < k; l++, dst += PANEL, src += ld) {
        /* The panel beside this one is packed next; hardware does not foresee steps of a row. */
        for (int j = 0; j < PANEL; j += 16)
            __builtin_prefetch(src + PANEL + j, 0, 2);
        if (n == PANEL)
            memcpy(dst, src, PANEL * sizeof *dst);
        else
            for (int64_t j = 0; j < PANEL; j++)
                dst[j] = j < n ? src[j] : 0;
    }
}

void KERNEL(from_bf16)(float *dst, const uint16_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = bits_float((int32_t)((uint32_t)src[i] << 16));
}

#if defined(__AVX512F__) || defined(__AVX2__)
#ifdef __AVX512F__
enum { BLOCK = 16, LEVELS = 4 };
typedef float block_row __attribute__((vector_size(64)));
typedef int32_t block_index __attribute__((vector_size(64)));
#define LOW_HALVES                                                                                           \
    {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},                                                \
        {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},                                          \
        {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},                                          \
    {                                                                                                        \
        0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30                                            \
    }
#else
enum { BLOCK = 8, LEVELS = 3 };
typedef float block_row __attribute__((vector_size(32)));
typedef int32_t block_index __attribute__((vector_size(32)));
#define LOW_HALVES                                                                                           \
    {0, 1, 2, 3, 8, 9, 10, 11}, {0, 1, 8, 9, 4, 5, 12, 13},                                                  \
    {                                                                                                        \
        0, 8, 2, 10, 4, 12, 6, 14                                                                            \
    }
#endif

/* A full block: its rows are read whole, then written as columns. The shuffles swap halves, quarters and so
 * on down to single elements between rows that are as far apart. */
static inline __attribute__((always_inline)) void transpose_block(float *dst, int64_t ld_dst,
                                                                  const float *src, int64_t ld_src)
{
    static const block_index low[] = {LOW_HALVES};
    block_row row[BLOCK];
#pragma GCC unroll 16
    for (int i = 0; i < BLOCK; i++)
        memcpy(&row[i], src + i * ld_src, sizeof row[i]);
#pragma GCC unroll 4
    for (int level = 0; level < LEVELS; level++)
#pragma GCC unroll 16
        for (int i = 0; i < BLOCK; i++)
            if ((i & (BLOCK / 2 >> level)) == 0) {
                const int apart = BLOCK / 2 >> level;
                block_row a = row[i], b = row[i + apart];
                row[i] = __builtin_shuffle(a, b, low[level]);
                row[i + apart] = __builtin_shuffle(a, b, low[level] + apart);
            }
#pragma GCC unroll 16
    for (int i = 0; i < BLOCK; i++)
        memcpy(dst + i * ld_dst, &row[i], sizeof row[i]);
}
#else
enum { BLOCK = 16 };
static inline void transpose_block(float *dst, int64_t ld_dst, const float *src, int64_t ld_src)
{
    for (int j = 0; j < BLOCK; j++)
        for (int i = 0; i < BLOCK; i++)
            dst[j * ld_dst + i] = src[i * ld_src + j];
}
#endif

void KERNEL(transpose)(float *dst, int64_t ld_dst, const float *src, int64_t ld_src, int64_t rows, int64_t n)
{
    int64_t whole_rows = rows / BLOCK * BLOCK, whole_n = n / BLOCK * BLOCK;
    for (int64_t i = 0; i < whole_rows; i += BLOCK)
        for (int64_t j = 0; j < whole_n; j += BLOCK)
            transpose_block(dst + j * ld_dst + i, ld_dst, src + i * ld_src + j, ld_src);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = i < whole_rows ? whole_n : 0; j < n; j++)
            dst[j * ld_dst + i] = src[i * ld_src + j];
}

void KERNEL(pack_cols)(float *dst, const float *src, int64_t ld, int64_t k, int64_t n)
{
    if (n < PANEL)
        memset(dst, 0, (size_t)(k * PANEL) * sizeof *dst);
    KERNEL(transpose)(dst, PANEL, src, ld, n, k);
}

static inline uint16_t nearest_bf16(float x)
{
    uint32_t bits = (uint32_t)float_bits(x);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t nan = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

void KERNEL(to_bf16)(uint16_t *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = nearest_bf16(src[i]);
}

void KERNEL(round_bf16)(float *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = bits_float((int32_t)((uint32_t)nearest_bf16(src[i]) << 16));
}
