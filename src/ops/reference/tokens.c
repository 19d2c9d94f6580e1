/* Rows picked by index, the loss, and the sums and updates over flat arrays. */
#include "reference_internal.h"
#include <math.h>
#include <string.h>

void reference__embed(struct device *dev, float *x, const int32_t *ids, int64_t n_tokens,
                      const struct weight *table, const float *new_rows, int64_t new_first, int64_t n_new,
                      float scale)
{
    int64_t h = table->n_in;
    for (int64_t t = 0; t < n_tokens; t++) {
        int64_t new_row = ids[t] - new_first;
        if (new_row >= 0 && new_row < n_new)
            memcpy(x + t * h, new_rows + new_row * h, (size_t)h * sizeof *x);
        else
            weight_row(table, ids[t], x + t * h);
        for (int64_t i = 0; i < h; i++)
            x[t * h + i] *= scale;
    }
}

void reference__embed_back(struct device *dev, float *d_new, const float *dx, const int32_t *ids,
                           int64_t n_tokens, int64_t h, int64_t new_first, int64_t n_new, float scale)
{
    for (int64_t t = 0; t < n_tokens; t++) {
        int64_t new_row = ids[t] - new_first;
        if (new_row < 0 || new_row >= n_new)
            continue;
        for (int64_t i = 0; i < h; i++)
            d_new[new_row * h + i] += scale * dx[t * h + i];
    }
}

void reference__gather_rows(struct device *dev, float *dst, const float *src, const int32_t *index,
                            int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r++)
        memcpy(dst + r * n, src + index[r] * n, (size_t)n * sizeof *dst);
}

void reference__scatter_add_rows(struct device *dev, float *dst, const float *src, const int32_t *index,
                                 int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++)
            dst[index[r] * n + i] += src[r * n + i];
}

void reference__cross_entropy(struct device *dev, float *logits, int64_t ld, const int32_t *labels,
                              const int32_t *first, float *loss, int64_t n_rows, int64_t v, float grad_scale)
{
    for (int64_t r = 0; r < n_rows; r++) {
        const int32_t *at = labels + first[r], n = first[r + 1] - first[r];
        float *row = logits + r * ld;
        double max = -INFINITY, sum = 0;
        for (int64_t i = 0; i < v; i++)
            max = fmax(max, (double)row[i]);
        for (int64_t i = 0; i < v; i++)
            sum += exp((double)row[i] - max);
        double lse = max + log(sum);
        double loss_sum = 0;
        for (int32_t l = 0; l < n; l++)
            loss_sum += lse - (double)row[at[l]];
        loss[r] = (float)loss_sum;
        if (grad_scale == 0)
            continue;
        for (int64_t i = 0; i < v; i++) {
            int32_t hits = 0;
            for (int32_t l = 0; l < n; l++)
                hits += i == at[l];
            row[i] = (float)((double)grad_scale * (n * exp((double)row[i] - lse) - hits));
        }
    }
}

void reference__add(struct device *dev, float *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] += src[i];
}

double reference__sum_squares(struct device *dev, const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

void reference__adamw(struct device *dev, float *p, const float *g, float *m, float *v, int64_t n,
                      const struct adamw *a)
{
    for (int64_t i = 0; i < n; i++) {
        double grad = (double)g[i] * (double)a->grad_scale;
        double moment = (double)m[i] + (grad - (double)m[i]) * (1 - a->beta1);
        double square = a->beta2 * (double)v[i] + (1 - a->beta2) * grad * grad;
        double decayed = (double)p[i] * (1 - a->lr * a->weight_decay);
        m[i] = (float)moment;
        v[i] = (float)square;
        p[i] = (float)(decayed - a->lr / a->bias1 * moment / (sqrt(square) / a->bias2_sqrt + a->eps));
    }
}
