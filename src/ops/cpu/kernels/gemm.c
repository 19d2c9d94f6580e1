/* The register tile: mr rows of broadcast a times nv vectors of b, sums in registers over all k. */
#include "kernel_names.h"
#include "simd.h"

/* VECTORS is the width of a packed panel in registers. With four, six rows give as many sums as registers
 * hold beside the operands; slimmer tiles are taller. */
#if defined(__AVX512F__)
#define WIDTH   16
#define VECTORS 4
#elif defined(__AVX2__)
#define WIDTH   8
#define VECTORS 2
#else
#define WIDTH   4
#define VECTORS 2
#endif
enum { ROWS_MOST = 12, ROWS_A_POINTER = 3 };

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

/* mr, nv and whole are constants where this is expanded, so that the sums stay in registers. The rows of a
 * are reached from one pointer for three of them: as many as addresses of base + 2 index can tell apart, and
 * few enough for the integer registers. */
static inline __attribute__((always_inline)) void tile(const struct product *p, const float *a,
                                                       const float *b, float *c, const int mr, const int nv,
                                                       const bool whole, int last)
{
    vec sum[ROWS_MOST][VECTORS];
    const float *rows[ROWS_MOST / ROWS_A_POINTER];
    const int64_t k = p->k, a_row = p->a_row, a_k = p->a_k, ldb = p->ldb, ldc = p->ldc;
    /* b lies in a panel, then its next rows follow; or between other columns, then those are wanted next. */
    const int64_t ahead = ldb > VECTORS * WIDTH ? VECTORS * WIDTH : 8 * ldb;
    const float alpha = p->alpha, beta = p->beta;
    const bool chain = p->chain;
#pragma GCC unroll 12
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            __builtin_prefetch(c + i * ldc + j * WIDTH, 1);
            sum[i][j] = chain ? vec_load(c + i * ldc + j * WIDTH, whole || j < nv - 1, last) : (vec){0};
        }
#pragma GCC unroll 4
    for (int i = 0; i < mr; i += ROWS_A_POINTER)
        rows[i / ROWS_A_POINTER] = a + i * a_row;
    for (int64_t l = 0; l < k; l++) {
        vec right[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            right[j] = vec_load(b + j * WIDTH, whole || j < nv - 1, last);
            __builtin_prefetch(b + ahead + j * WIDTH);
        }
#pragma GCC unroll 12
        for (int i = 0; i < mr; i++) {
            vec left = vec_set(rows[i / ROWS_A_POINTER][i % ROWS_A_POINTER * a_row]);
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++)
                sum[i][j] = vec_fma(left, right[j], sum[i][j]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < mr; i += ROWS_A_POINTER)
            rows[i / ROWS_A_POINTER] += a_k;
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

typedef void tile_fn(const struct product *p, const float *a, const float *b, float *c, int last);

#define TILE(mr, nv)                                                                                         \
    static void tile_##mr##x##nv(const struct product *p, const float *a, const float *b, float *c,          \
                                 int last)                                                                   \
    {                                                                                                        \
        if (last == WIDTH)                                                                                   \
            tile(p, a, b, c, mr, nv, true, last);                                                            \
        else                                                                                                 \
            tile(p, a, b, c, mr, nv, false, last);                                                           \
    }
#define ROW(mr, nv)                                                                                          \
    {                                                                                                        \
        mr, tile_##mr##x##nv                                                                                 \
    }

#define TILES(nv) TILE(1, nv) TILE(2, nv) TILE(4, nv)

TILES(1)
TILES(2)
TILE(6, 1)
#if WIDTH > 4
TILE(12, 1)
TILE(6, 2)
#endif
#if VECTORS == 4
TILES(3)
TILES(4)
TILE(8, 2)
TILE(12, 2)
TILE(8, 3)
TILE(6, 4)
#endif

/* Tiles of one vector, of two, .. ; tall ones first. */
static const struct height {
    int rows;
    tile_fn *fn;
} heights[VECTORS][6] = {
#if VECTORS == 4
    {ROW(12, 1), ROW(6, 1), ROW(4, 1), ROW(2, 1), ROW(1, 1)},
    {ROW(12, 2), ROW(8, 2), ROW(6, 2), ROW(4, 2), ROW(2, 2), ROW(1, 2)},
    {ROW(8, 3), ROW(4, 3), ROW(2, 3), ROW(1, 3)},
    {ROW(6, 4), ROW(4, 4), ROW(2, 4), ROW(1, 4)},
#elif WIDTH == 8
    {ROW(12, 1), ROW(6, 1), ROW(4, 1), ROW(2, 1), ROW(1, 1)},
    {ROW(6, 2), ROW(4, 2), ROW(2, 2), ROW(1, 2)},
#else
    {ROW(6, 1), ROW(4, 1), ROW(2, 1), ROW(1, 1)},
    {ROW(4, 2), ROW(2, 2), ROW(1, 2)},
#endif
};

static const struct height *height_pick(int nv, int64_t left)
{
    const struct height *h = heights[nv - 1];
    while (h->rows > left)
        h++;
    return h;
}

/* Columns [0, n) of one panel, rows [0, m). */
static void panel_run(const struct product *p, const float *a, const float *b, float *c, int64_t m, int64_t n)
{
    int nv = (int)((n + WIDTH - 1) / WIDTH), last = (int)(n - (nv - 1) * WIDTH);
    const struct height *h;
    for (int64_t i = 0; i < m; i += h->rows) {
        h = height_pick(nv, m - i);
        h->fn(p, a + i * p->a_row, b, c + i * p->ldc, last);
    }
}

void KERNEL(gemm)(const struct product *p)
{
    const int64_t panel = VECTORS * WIDTH;
    /* Panels side by side are innermost: c, which is most of the traffic of a short k, is walked along its
     * rows. */
    const int64_t strip = p->b_panel != 0 ? heights[VECTORS - 1][0].rows : p->m;
    const int64_t next = p->b_panel != 0 ? p->b_panel : panel;
    for (int64_t i = 0; i < p->m; i += strip)
        for (int64_t j = 0; j < p->n; j += panel)
            panel_run(p, p->a + i * p->a_row, p->b + j / panel * next, p->c + i * p->ldc + j,
                      p->m - i < strip ? p->m - i : strip, p->n - j < panel ? p->n - j : panel);
}
