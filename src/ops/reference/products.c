/* Matrix products. A weight that is not float32, or that must be rounded, is converted once (prepared). */
#include "reference_internal.h"
#include <string.h>

static bool converts(const struct device *dev, enum dtype source)
{
    return source != DT_F32 || dev->compute != COMPUTE_F32;
}

enum status reference__weight_bytes(struct device *dev, size_t *n_bytes, int64_t n_out, int64_t n_in,
                                    enum dtype dtype, struct err *err)
{
    struct weight w = {.n_out = n_out, .n_in = n_in, .dtype = dtype};
    *n_bytes = 0;
    TRY(ops__weight_check(&w, err));
    if (converts(dev, dtype))
        *n_bytes = ((size_t)(n_out * n_in) * sizeof(float) + 63) & ~(size_t)63;
    return ST_OK;
}

static void row_of_copy(const struct weight *w, int64_t row, float *out)
{
    memcpy(out, (const float *)w->prepared + row * w->n_in, (size_t)w->n_in * sizeof *out);
}

enum status reference__weight_prepare(struct device *dev, struct weight *w, void *memory, bool fill,
                                      struct err *err)
{
    bool needed = converts(dev, w->dtype);
    float *copy = memory;
    w->prepared = NULL;
    w->source_unused = needed;
    w->packed_row = NULL;
    TRY(ops__weight_check_memory(w, memory, needed, err));
    if (!needed)
        return ST_OK;
    for (int64_t row = 0; row < w->n_out && fill; row++)
        weight_row(w, row, copy + row * w->n_in);
    if (dev->compute == COMPUTE_BF16 && fill)
        ops__round_bf16(copy, w->n_out * w->n_in);
    w->prepared = copy;
    if (dev->compute == COMPUTE_F32 || w->dtype == DT_BF16) /* not rounded */
        w->packed_row = row_of_copy;
    return ST_OK;
}

void reference__weight_release(struct device *dev, struct weight *w)
{
    w->prepared = NULL; /* the caller's memory */
    w->packed_row = NULL;
}

static const float *weight_f32(const struct weight *w)
{
    return w->prepared != NULL ? w->prepared : w->data;
}

/* An activation as the multiplier sees it. */
static double operand(const struct device *dev, float x)
{
    return dev->compute == COMPUTE_BF16 ? (double)bf16_to_f32(bf16_from_f32(x)) : (double)x;
}

void reference__linear(struct device *dev, float *y, int64_t ldy, const float *x, int64_t ldx,
                       const struct weight *w, int64_t n_tokens, bool accumulate)
{
    const float *weight = weight_f32(w);
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t o = 0; o < w->n_out; o++) {
            double sum = 0;
            for (int64_t i = 0; i < w->n_in; i++)
                sum += operand(dev, x[t * ldx + i]) * (double)weight[o * w->n_in + i];
            y[t * ldy + o] = (float)(accumulate ? (double)y[t * ldy + o] + sum : sum);
        }
}

void reference__linear_back(struct device *dev, float *dx, int64_t lddx, const float *dy, int64_t lddy,
                            const struct weight *w, int64_t n_tokens, bool accumulate)
{
    const float *weight = weight_f32(w);
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t i = 0; i < w->n_in; i++) {
            double sum = 0;
            for (int64_t o = 0; o < w->n_out; o++)
                sum += operand(dev, dy[t * lddy + o]) * (double)weight[o * w->n_in + i];
            dx[t * lddx + i] = (float)(accumulate ? (double)dx[t * lddx + i] + sum : sum);
        }
}

void reference__gemm(struct device *dev, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k,
                     float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                     float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++) {
                double left = (double)(trans_a ? a[l * lda + i] : a[i * lda + l]);
                double right = (double)(trans_b ? b[j * ldb + l] : b[l * ldb + j]);
                sum += left * right;
            }
            double before = beta == 0 ? 0 : (double)beta * (double)c[i * ldc + j]; /* c may be unset memory */
            c[i * ldc + j] = (float)((double)alpha * sum + before);
        }
}
