/* SHA-256 with the processor's SHA instructions (Intel, "SHA extensions", 2013); several times the speed
 * of the plain version. Other processors keep the plain one. */
#include "util_internal.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define MAX_LANES 2
#define SHA_NI    __attribute__((target("sha,sse4.1,ssse3")))

bool util__sha256_has_ni(void)
{
    return __builtin_cpu_supports("sha") && __builtin_cpu_supports("ssse3") &&
           __builtin_cpu_supports("sse4.1");
}

/* The instructions want the state as the words (a b e f) and (c d g h), highest first. Each call of
 * sha256rnds2 makes two rounds; message words are made four at a time from the sixteen before. */
/* n_lanes independent streams keep the unit busy while one waits for its last round. */
SHA_NI static inline __attribute__((always_inline)) void
compress_ni(__m128i *abef, __m128i *cdgh, const unsigned char *const *data, size_t at, const int n_lanes)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i w[MAX_LANES][4], abef_before[MAX_LANES], cdgh_before[MAX_LANES];
    for (int l = 0; l < n_lanes; l++) {
        abef_before[l] = abef[l];
        cdgh_before[l] = cdgh[l];
        for (int i = 0; i < 4; i++)
            w[l][i] = _mm_shuffle_epi8(_mm_loadu_si128((const void *)(data[l] + at + 16 * (size_t)i)), swap);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        const __m128i k = _mm_loadu_si128((const void *)(util__sha256_k + 4 * i));
#pragma GCC unroll 2
        for (int l = 0; l < n_lanes; l++) {
            __m128i now = w[l][i % 4];
            if (i >= 4) {
                __m128i last = w[l][(i + 3) % 4];
                now = _mm_sha256msg1_epu32(now, w[l][(i + 1) % 4]);
                now = _mm_add_epi32(now, _mm_alignr_epi8(last, w[l][(i + 2) % 4], 4));
                now = _mm_sha256msg2_epu32(now, last);
                w[l][i % 4] = now;
            }
            __m128i wk = _mm_add_epi32(now, k);
            cdgh[l] = _mm_sha256rnds2_epu32(cdgh[l], abef[l], wk);
            abef[l] = _mm_sha256rnds2_epu32(abef[l], cdgh[l], _mm_shuffle_epi32(wk, 0x0e));
        }
    }
    for (int l = 0; l < n_lanes; l++) {
        abef[l] = _mm_add_epi32(abef[l], abef_before[l]);
        cdgh[l] = _mm_add_epi32(cdgh[l], cdgh_before[l]);
    }
}

SHA_NI static inline __attribute__((always_inline)) void
blocks_ni(uint32_t *const *state, const unsigned char *const *data, size_t n_blocks, const int n_lanes)
{
    __m128i abef[MAX_LANES], cdgh[MAX_LANES];
    for (int l = 0; l < n_lanes; l++) {
        const uint32_t *s = state[l];
        abef[l] = _mm_set_epi32((int)s[0], (int)s[1], (int)s[4], (int)s[5]);
        cdgh[l] = _mm_set_epi32((int)s[2], (int)s[3], (int)s[6], (int)s[7]);
    }
    for (size_t i = 0; i < n_blocks; i++)
        compress_ni(abef, cdgh, data, 64 * i, n_lanes);
    for (int l = 0; l < n_lanes; l++) {
        uint32_t out[8], *s = state[l];
        _mm_storeu_si128((__m128i *)(void *)out, abef[l]);
        _mm_storeu_si128((__m128i *)(void *)(out + 4), cdgh[l]);
        s[0] = out[3];
        s[1] = out[2];
        s[4] = out[1];
        s[5] = out[0];
        s[2] = out[7];
        s[3] = out[6];
        s[6] = out[5];
        s[7] = out[4];
    }
}

SHA_NI void util__sha256_blocks_ni(uint32_t state[8], const unsigned char *data, size_t n_blocks)
{
    blocks_ni(&state, &data, n_blocks, 1);
}

SHA_NI void util__sha256_two_blocks_ni(uint32_t a[8], uint32_t b[8], const unsigned char *data_a,
                                       const unsigned char *data_b, size_t n_blocks)
{
    uint32_t *const state[2] = {a, b};
    const unsigned char *const data[2] = {data_a, data_b};
    blocks_ni(state, data, n_blocks, 2);
}

#else

bool util__sha256_has_ni(void)
{
    return false;
}

void util__sha256_blocks_ni(uint32_t state[8], const unsigned char *data, size_t n_blocks)
{
    util__sha256_blocks_plain(state, data, n_blocks);
}

void util__sha256_two_blocks_ni(uint32_t a[8], uint32_t b[8], const unsigned char *data_a,
                                const unsigned char *data_b, size_t n_blocks)
{
    util__sha256_blocks_plain(a, data_a, n_blocks);
    util__sha256_blocks_plain(b, data_b, n_blocks);
}

#endif
