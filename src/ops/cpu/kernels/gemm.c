/* The register tile: mr rows of broadcast a times nv vectors of b, sums in registers over all k. */
#include "kernel_names.h"
#include "simd.h"

#if defined(__AVX512F__)
#define WIDTH     16
#define VECTORS   4 /* of the widest tile */
#define ROWS_WIDE 6 /* rows of a tile of 3 or more (AVX2, baseline: 2 or more) vectors */
#define ROWS_SLIM 12
#define WIDE_FROM 3
#elif defined(__AVX2__)
#define WIDTH     8
#define VECTORS   2
#define ROWS_WIDE 6
#define ROWS_SLIM 12
#define WIDE_FROM 2
#else
#define WIDTH     4
#define VECTORS   2
#define ROWS_WIDE 4
#define ROWS_SLIM 6
#define WIDE_FROM 2
#endif

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t veci __attribute__((vector_size(4 * WIDTH)));

static inline vec vec_fma(vec a, vec b, vec c)
{
#if defined(__AVX512F__)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__FP_FAST_FMAF)
    for (int i = 0; i < WIDTH; i++)
        c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#else
    return a * b + c;
#endif
}

static inline vec vec_set(float x)
{
#if defined(__AVX512F__)
    return (vec)_mm512_set1_ps(x);
#elif defined(__AVX2__)
    return (vec)_mm256_set1_ps(x);
#else
    vec v;
    for (int i = 0; i < WIDTH; i++)
        v[i] = x;
    return v;
#endif
}

/* The first n elements, 1 <= n <= WIDTH; whole says n == WIDTH at compile time. */
static inline vec vec_load(const float *p, bool whole, int n)
{
    vec v = {0};
    if (whole)
        memcpy(&v, p, sizeof v);
    else {
#if defined(__AVX512F__)
        v = (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(__AVX2__)
        const veci lane = {0, 1, 2, 3, 4, 5, 6, 7};
        v = (vec)_mm256_maskload_ps(p, (__m256i)(lane < (veci){0} + n));
#else
        for (int i = 0; i < n; i++)
            v[i] = p[i];
#endif
    }
    return v;
}
static inline void vec_store(float *p, vec v, bool whole, int n)
{
    if (whole)
        memcpy(p, &v, sizeof v);
    else
        for (int i = 0; i < n; i++)
            p[i] = v[i];
}

/* mr, nv and whole are constants where this is expanded, so that the sums stay in registers. */
static inline __attribute__((always_inline)) void tile(const struct product *p, const float *a,
                                                       const float *b, float *c, const int mr, const int nv,
                                                       const bool whole, int last)
{
    vec sum[ROWS_SLIM][VECTORS];
    const int64_t k = p->k, a_row = p->a_row, a_k = p->a_k, ldb = p->ldb, ldc = p->ldc;
    const float alpha = p->alpha, beta = p->beta;
    const bool chain = p->chain;
#pragma GCC unroll 12
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            sum[i][j] = chain ? vec_load(c + i * ldc + j * WIDTH, whole || j < nv - 1, last) : (vec){0};
    for (int64_t l = 0; l < k; l++) {
        vec right[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            right[j] = vec_load(b + j * WIDTH, whole || j < nv - 1, last);
#pragma GCC unroll 12
        for (int i = 0; i < mr; i++) {
            vec left = vec_set(a[i * a_row]);
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++)
                sum[i][j] = vec_fma(left, right[j], sum[i][j]);
        }
        a += a_k;
        b += ldb;
    }
#pragma GCC unroll 12
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            float *to = c + i * ldc + j * WIDTH;
            const bool full = whole || j < nv - 1;
            vec v = sum[i][j];
            if (!chain) {
                v = v * vec_set(alpha);
                if (beta != 0)
                    v = vec_fma(vec_set(beta), vec_load(to, full, last), v);
            }
            vec_store(to, v, full, last);
        }
}

#define TILE(mr, nv)                                                                                         \
    static void tile_##mr##x##nv(const struct product *p, const float *a, const float *b, float *c,          \
                                 int last)                                                                   \
    {                                                                                                        \
        if (last == WIDTH)                                                                                   \
            tile(p, a, b, c, mr, nv, true, last);                                                            \
        else                                                                                                 \
            tile(p, a, b, c, mr, nv, false, last);                                                           \
    }
#define TILES(nv) TILE(1, nv) TILE(2, nv) TILE(4, nv) TILE(6, nv)
#if ROWS_WIDE == 6
TILES(1)
TILES(2)
TILE(12, 1)
#else
TILES(1)
TILE(1, 2)
TILE(2, 2)
TILE(4, 2)
#endif
#if VECTORS == 4
TILE(12, 2)
TILES(3)
TILES(4)
#endif

typedef void tile_fn(const struct product *p, const float *a, const float *b, float *c, int last);

/* The tallest tile of nv vectors with at most `left` rows. */
static int tile_pick(tile_fn **fn, int nv, int64_t left)
{
#define PICK(mr, vectors)                                                                                    \
    do                                                                                                       \
        if (nv == vectors && left >= mr) {                                                                   \
            *fn = tile_##mr##x##vectors;                                                                     \
            return mr;                                                                                       \
        }                                                                                                    \
    while (0)
#if ROWS_SLIM == 12
    PICK(12, 1);
#endif
#if VECTORS == 4
    PICK(12, 2);
    PICK(6, 4);
    PICK(4, 4);
    PICK(2, 4);
    PICK(1, 4);
    PICK(6, 3);
    PICK(4, 3);
    PICK(2, 3);
    PICK(1, 3);
#endif
#if ROWS_WIDE == 6
    PICK(6, 2);
#endif
    PICK(4, 2);
    PICK(2, 2);
    PICK(1, 2);
    PICK(6, 1);
    PICK(4, 1);
    PICK(2, 1);
    *fn = tile_1x1;
    return 1;
}

void KERNEL(gemm)(const struct product *p)
{
    for (int64_t j = 0; j < p->n; j += VECTORS * WIDTH) {
        int64_t columns = p->n - j < VECTORS * WIDTH ? p->n - j : VECTORS * WIDTH;
        int nv = (int)((columns + WIDTH - 1) / WIDTH), last = (int)(columns - (nv - 1) * WIDTH), mr;
        for (int64_t i = 0; i < p->m; i += mr) {
            tile_fn *fn;
            mr = tile_pick(&fn, nv, p->m - i);
            fn(p, p->a + i * p->a_row, p->b + j, p->c + i * p->ldc + j, last);
        }
    }
}
