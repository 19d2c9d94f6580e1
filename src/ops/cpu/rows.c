/* Slots whose rows or elements do not touch each other: a block of rows goes to a thread. */
#include "cpu_internal.h"
#include <string.h>

/* Rows of n elements a thread takes at a time. The cut depends on the number of threads; the results do not,
 * because no row looks at another. */
static int64_t rows_block(const struct device *dev, int64_t rows, int64_t n)
{
    int64_t least = cpu_blocks(CPU_GRAIN, n > 0 ? n : 1),
            share = cpu_blocks(rows, 4 * (int64_t)dev->n_threads);
    return share > least ? share : least;
}

void cpu__rms_norm(struct device *dev, float *y, float *inv_rms, const float *x, const float *w, int64_t rows,
                   int64_t n, float eps, float unit_offset)
{
    const int64_t step = rows_block(dev, rows, n);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < rows)
    for (int64_t from = 0; from < rows; from += step) {
        int64_t count = cpu_min(rows - from, step);
        dev->kernels->rms_norm(y + from * n, inv_rms != NULL ? inv_rms + from : NULL, x + from * n, w, count,
                               n, eps, unit_offset);
    }
}

void cpu__rms_norm_back(struct device *dev, float *dx, const float *dy, const float *x, const float *inv_rms,
                        const float *w, int64_t rows, int64_t n, float unit_offset, bool accumulate)
{
    const int64_t step = rows_block(dev, rows, n);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < rows)
    for (int64_t from = 0; from < rows; from += step) {
        int64_t count = cpu_min(rows - from, step);
        dev->kernels->rms_norm_back(dx + from * n, dy + from * n, x + from * n, inv_rms + from, w, count, n,
                                    unit_offset, accumulate);
    }
}

void cpu__rope(struct device *dev, float *x, int64_t n_tokens, int32_t n_heads, int32_t head_dim,
               const int32_t *positions, const float *cos_sin, bool inverse)
{
    int64_t n = (int64_t)n_heads * head_dim;
    const int64_t step = rows_block(dev, n_tokens, n);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < n_tokens)
    for (int64_t from = 0; from < n_tokens; from += step) {
        int64_t count = cpu_min(n_tokens - from, step);
        for (int64_t t = from; t < from + count; t++)
            dev->kernels->rope(x + t * n, n_heads, head_dim, cos_sin + (int64_t)positions[t] * head_dim,
                               inverse);
    }
}

void cpu__act_mul(struct device *dev, enum act_kind kind, float *out, const float *gate, const float *up,
                  int64_t n)
{
    const int64_t step = rows_block(dev, n, 1);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < n)
    for (int64_t from = 0; from < n; from += step) {
        int64_t count = cpu_min(n - from, step);
        dev->kernels->act_mul(kind, out + from, gate + from, up + from, count);
    }
}

void cpu__act_mul_back(struct device *dev, enum act_kind kind, float *dgate, float *dup, const float *dout,
                       const float *gate, const float *up, int64_t n)
{
    const int64_t step = rows_block(dev, n, 1);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < n)
    for (int64_t from = 0; from < n; from += step) {
        int64_t count = cpu_min(n - from, step);
        dev->kernels->act_mul_back(kind, dgate + from, dup + from, dout + from, gate + from, up + from,
                                   count);
    }
}

void cpu__embed(struct device *dev, float *x, const int32_t *ids, int64_t n_tokens,
                const struct weight *table, const float *new_rows, int64_t new_first, int64_t n_new,
                float scale)
{
    int64_t h = table->n_in;
    const int64_t step = rows_block(dev, n_tokens, h);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < n_tokens)
    for (int64_t from = 0; from < n_tokens; from += step) {
        int64_t count = cpu_min(n_tokens - from, step);
        for (int64_t t = from; t < from + count; t++) {
            int64_t new_row = ids[t] - new_first;
            if (new_row >= 0 && new_row < n_new)
                memcpy(x + t * h, new_rows + new_row * h, (size_t)h * sizeof *x);
            else
                weight_row(table, ids[t], x + t * h);
            if (scale != 1)
                dev->kernels->scale(x + t * h, h, scale);
        }
    }
}

/* Tokens in order; a thread owns columns. */
void cpu__embed_back(struct device *dev, float *d_new, const float *dx, const int32_t *ids, int64_t n_tokens,
                     int64_t h, int64_t new_first, int64_t n_new, float scale)
{
    const int64_t step = rows_block(dev, h, n_tokens);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < h)
    for (int64_t from = 0; from < h; from += step) {
        int64_t count = cpu_min(h - from, step);
        for (int64_t t = 0; t < n_tokens; t++) {
            int64_t new_row = ids[t] - new_first;
            if (new_row >= 0 && new_row < n_new)
                dev->kernels->add_scaled(d_new + new_row * h + from, dx + t * h + from, count, scale);
        }
    }
}

void cpu__gather_rows(struct device *dev, float *dst, const float *src, const int32_t *index, int64_t rows,
                      int64_t n)
{
    const int64_t step = rows_block(dev, rows, n);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < rows)
    for (int64_t from = 0; from < rows; from += step) {
        int64_t count = cpu_min(rows - from, step);
        for (int64_t r = from; r < from + count; r++)
            memcpy(dst + r * n, src + index[r] * n, (size_t)n * sizeof *dst);
    }
}

void cpu__scatter_add_rows(struct device *dev, float *dst, const float *src, const int32_t *index,
                           int64_t rows, int64_t n)
{
    const int64_t step = rows_block(dev, rows, n);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < rows)
    for (int64_t from = 0; from < rows; from += step) {
        int64_t count = cpu_min(rows - from, step);
        for (int64_t r = from; r < from + count; r++)
            dev->kernels->add(dst + index[r] * n, src + r * n, n);
    }
}

void cpu__cross_entropy(struct device *dev, float *logits, int64_t ld, const int32_t *labels,
                        const int32_t *first, float *loss, int64_t n_rows, int64_t v, float grad_scale)
{
    const int64_t step = rows_block(dev, n_rows, v);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < n_rows)
    for (int64_t from = 0; from < n_rows; from += step) {
        int64_t count = cpu_min(n_rows - from, step);
        for (int64_t r = from; r < from + count; r++)
            loss[r] = dev->kernels->cross_entropy(logits + r * ld, labels + first[r], first[r + 1] - first[r],
                                                  v, grad_scale);
    }
}

void cpu__add(struct device *dev, float *dst, const float *src, int64_t n)
{
    const int64_t step = rows_block(dev, n, 1);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < n)
    for (int64_t from = 0; from < n; from += step) {
        int64_t count = cpu_min(n - from, step);
        dev->kernels->add(dst + from, src + from, count);
    }
}

void cpu__adamw(struct device *dev, float *p, const float *g, float *m, float *v, int64_t n,
                const struct adamw *a)
{
    const int64_t step = rows_block(dev, n, 1);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (step < n)
    for (int64_t from = 0; from < n; from += step) {
        int64_t count = cpu_min(n - from, step);
        dev->kernels->adamw(p + from, g + from, m + from, v + from, count, a);
    }
}

/* Blocks of fixed size, their sums added in order. */
double cpu__sum_squares(struct device *dev, const float *x, int64_t n)
{
    enum { BLOCK = 1 << 14, AT_ONCE = 256 };
    double total = 0, part[AT_ONCE];
    for (int64_t first = 0; first < n; first += (int64_t)BLOCK * AT_ONCE) {
        int64_t n_blocks = cpu_min(cpu_blocks(n - first, BLOCK), AT_ONCE);
#pragma omp parallel for num_threads(dev->n_threads) schedule(static) if (n > 4 * (int64_t)CPU_GRAIN)
        for (int64_t b = 0; b < n_blocks; b++)
            part[b] = dev->kernels->sum_squares(x + first + b * BLOCK, cpu_min(n - first - b * BLOCK, BLOCK));
        for (int64_t b = 0; b < n_blocks; b++)
            total += part[b];
    }
    return total;
}
