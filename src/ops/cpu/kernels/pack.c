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

void KERNEL(pack_rows_bf16)(float *dst, const uint16_t *src, int64_t ld, int64_t k, int64_t n)
{
    for (int64_t l = 0; l < k; l++, dst += PANEL, src += ld) {
        if (n == PANEL)
            for (int64_t j = 0; j < PANEL; j++)
                dst[j] = bits_float((int32_t)((uint32_t)src[j] << 16));
        else
            for (int64_t j = 0; j < PANEL; j++)
                dst[j] = j < n ? bf16_to_f32(src[j]) : 0;
    }
}

enum { BLOCK = 16 };

#if defined(__AVX512F__)
typedef float block_row __attribute__((vector_size(64)));
typedef int32_t block_index __attribute__((vector_size(64)));

/* A full block: 16 rows are read whole, then written as 16 columns. The shuffles swap halves, quarters, pairs
 * and single elements between rows 8, 4, 2 and 1 apart. */
static inline __attribute__((always_inline)) void transpose_block(float *dst, int64_t ld_dst,
                                                                  const float *src, int64_t ld_src)
{
    static const block_index low[] = {{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
                                      {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
                                      {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
                                      {0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30}};
    block_row row[BLOCK];
#pragma GCC unroll 16
    for (int i = 0; i < BLOCK; i++)
        memcpy(&row[i], src + i * ld_src, sizeof row[i]);
#pragma GCC unroll 4
    for (int level = 0; level < 4; level++)
#pragma GCC unroll 16
        for (int i = 0; i < BLOCK; i++)
            if ((i & (8 >> level)) == 0) {
                block_row a = row[i], b = row[i + (8 >> level)];
                row[i] = __builtin_shuffle(a, b, low[level]);
                row[i + (8 >> level)] = __builtin_shuffle(a, b, low[level] + (8 >> level));
            }
#pragma GCC unroll 16
    for (int i = 0; i < BLOCK; i++)
        memcpy(dst + i * ld_dst, &row[i], sizeof row[i]);
}
#else
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
