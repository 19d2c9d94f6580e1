/* Everything with exponentials of a row: attention's scores and the loss. */
#include "kernel_names.h"
#include "simd.h"

/* Groups of lanes that do not wait for each other. */
enum { GROUPS = 4 };

static float row_max(const float *x, int64_t n)
{
    v16 max[GROUPS];
    int64_t i = 0;
    for (int g = 0; g < GROUPS; g++)
        max[g] = v16_set(-INFINITY);
    for (; i + GROUPS * LANES <= n; i += GROUPS * LANES)
#pragma GCC unroll 4
        for (int g = 0; g < GROUPS; g++)
            max[g] = v16_max(v16_load(x + i + g * LANES), max[g]);
    for (; i + LANES <= n; i += LANES)
        max[0] = v16_max(v16_load(x + i), max[0]);
    if (i < n)
        max[0] = v16_max(v16_load_part(x + i, n - i, -INFINITY), max[0]);
    return v16_max_of(v16_max(v16_max(max[0], max[1]), v16_max(max[2], max[3])));
}

/* Lanes are counted from x: the caller lets x begin where its count of keys begins. */
static float row_sum(const float *x, int64_t n)
{
    v16 sum = v16_set(0);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum = v16_add(sum, v16_load(x + i));
    if (i < n)
        sum = v16_add(sum, v16_load_part(x + i, n - i, 0));
    return v16_sum(sum);
}

static void clear_outside(float *s, int64_t lo, int64_t hi, int64_t n)
{
    for (int64_t i = 0; i < lo; i++)
        s[i] = 0;
    for (int64_t i = hi; i < n; i++)
        s[i] = 0;
}

float KERNEL(softmax)(float *s, int64_t lo, int64_t hi, int64_t n, float scale, float *max)
{
    for (int64_t i = lo; i < hi; i++)
        s[i] *= scale;
    float top = row_max(s + lo, hi - lo);
    for (int64_t i = lo; i < hi; i++)
        s[i] = exp_f32(s[i] - top);
    clear_outside(s, lo, hi, n);
    *max = top;
    int64_t from = lo / LANES * LANES;
    return row_sum(s + from, hi - from);
}

void KERNEL(prob)(float *s, int64_t lo, int64_t hi, int64_t n, float scale, float lse)
{
    for (int64_t i = lo; i < hi; i++)
        s[i] = exp_f32(s[i] * scale - lse);
    clear_outside(s, lo, hi, n);
}

void KERNEL(dscore)(float *dp, const float *s, int64_t n, float through, float scale)
{
    for (int64_t i = 0; i < n; i++)
        dp[i] = s[i] * (dp[i] - through) * scale;
}

/* Float sums of 1024 terms are added up in double: a vocabulary is long. */
enum { SUM_BLOCK = 1024 };

/* A whole block: the groups of lanes side by side, then one after the other. */
static float block_sum(const float *x)
{
    v16 sum[GROUPS];
    for (int g = 0; g < GROUPS; g++)
        sum[g] = v16_load(x + g * LANES);
    for (int64_t i = GROUPS * LANES; i < SUM_BLOCK; i += GROUPS * LANES)
#pragma GCC unroll 4
        for (int g = 0; g < GROUPS; g++)
            sum[g] = v16_add(sum[g], v16_load(x + i + g * LANES));
    return v16_sum(v16_add(v16_add(sum[0], sum[1]), v16_add(sum[2], sum[3])));
}

/* From exponentials to gradients, all of them scaled by factor but those of the labels. */
static void label_gradients(float *e, const int32_t *labels, int64_t n_labels, int64_t v, double sum,
                            float grad_scale)
{
    float factor = (float)((double)n_labels * (double)grad_scale / sum);
    int64_t at = 0;
    for (int64_t l = 0, hits; l < n_labels; l += hits) {
        const int64_t label = labels[l];
        for (hits = 1; l + hits < n_labels && labels[l + hits] == label; hits++)
            ;
        for (; at < label; at++)
            e[at] *= factor;
        e[at] = (float)((double)grad_scale * ((double)n_labels * (double)e[at] / sum - (double)hits));
        at++;
    }
    for (; at < v; at++)
        e[at] *= factor;
}

float KERNEL(cross_entropy)(float *logits, const int32_t *labels, int64_t n_labels, int64_t v,
                            float grad_scale)
{
    float max = row_max(logits, v), buffer[SUM_BLOCK];
    double sum = 0, at_labels = 0;
    for (int64_t l = 0; l < n_labels; l++)
        at_labels += (double)logits[labels[l]];
    for (int64_t b = 0; b < v; b += SUM_BLOCK) {
        int64_t n = v - b < SUM_BLOCK ? v - b : SUM_BLOCK;
        float *e = grad_scale != 0 ? logits + b : buffer;
        for (int64_t i = 0; i < n; i++)
            e[i] = exp_f32(logits[b + i] - max);
        sum += (double)(n == SUM_BLOCK ? block_sum(e) : row_sum(e, n));
    }
    double n = (double)n_labels, loss = n * (double)max - at_labels + n * log(sum);
    if (grad_scale != 0)
        label_gradients(logits, labels, n_labels, v, sum, grad_scale);
    return (float)loss;
}
