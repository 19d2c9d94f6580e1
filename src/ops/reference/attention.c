/* Attention, one query and one head at a time. */
#include "reference_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* The keys that token t of segment s sees, in order of their place in the row. keys has room for T. */
static int64_t visible_keys(const struct attention_shape *shape, int32_t s, int64_t t, int64_t *keys)
{
    struct key_range *ranges = malloc(((size_t)s + 1) * sizeof *ranges);
    if (ranges == NULL)
        abort(); /* a few hundred bytes in a yardstick: nothing sensible is left to do */
    int64_t n_ranges = ops__key_chain(shape, s, ranges), n = 0;
    for (int64_t r = 0; r < n_ranges; r++)
        for (int64_t i = 0; i < ranges[r].n_tokens; i++) {
            int64_t key = ranges[r].start + i;
            if (r == n_ranges - 1 && key > t)
                break;
            if (shape->window == 0 || shape->positions[t] - shape->positions[key] < shape->window)
                keys[n++] = key;
        }
    free(ranges);
    return n;
}

void reference__attention(struct device *dev, float *out, float *lse, const float *q, const float *k,
                          const float *v, const struct attention_shape *shape)
{
    int64_t d = shape->head_dim, n_q = shape->n_q_heads, n_kv = shape->n_kv_heads;
    int64_t *keys = ops__scratch(dev, 0, (size_t)shape->n_tokens * (sizeof *keys + sizeof(double)));
    double *p = (double *)(keys + shape->n_tokens);
    for (int32_t s = 0; s < shape->n_segments; s++) {
        int64_t start = shape->segments[s].start, end = start + shape->segments[s].n_tokens;
        for (int64_t t = ops__queries_before(shape, start); t < ops__queries_before(shape, end); t++) {
            int64_t n = visible_keys(shape, s, ops__query_token(shape, t), keys);
            for (int64_t h = 0; h < n_q; h++) {
                int64_t kv = h / (n_q / n_kv);
                double max = -INFINITY, sum = 0;
                for (int64_t j = 0; j < n; j++) {
                    p[j] =
                        (double)shape->scale * dot(q + (t * n_q + h) * d, k + (keys[j] * n_kv + kv) * d, d);
                    max = fmax(max, p[j]);
                }
                for (int64_t j = 0; j < n; j++)
                    sum += p[j] = exp(p[j] - max);
                for (int64_t e = 0; e < d; e++) {
                    double value = 0;
                    for (int64_t j = 0; j < n; j++)
                        value += p[j] * (double)v[(keys[j] * n_kv + kv) * d + e];
                    out[(t * n_q + h) * d + e] = (float)(value / sum);
                }
                if (lse != NULL)
                    lse[t * n_q + h] = (float)(max + log(sum));
            }
        }
    }
}

/* Adds one query head's share: P = exp(S - lse), dS = P (dP - sum(dout * out)), dQ = scale dS K,
 * dK = scale dS^T Q, dV = P^T dout. sums holds dk then dv, in double. */
static void query_back(float *dq, double *dk, double *dv, const float *dout, const float *q, const float *k,
                       const float *v, const float *out, double lse, const int64_t *keys, int64_t n,
                       int64_t key_stride, int64_t d, double scale)
{
    double through = dot(dout, out, d);
    double *sum = calloc((size_t)d, sizeof *sum);
    if (sum == NULL)
        abort();
    for (int64_t j = 0; j < n; j++) {
        int64_t at = keys[j] * key_stride;
        double p = exp(scale * dot(q, k + at, d) - lse);
        double ds = scale * p * (dot(dout, v + at, d) - through);
        for (int64_t e = 0; e < d; e++) {
            sum[e] += ds * (double)k[at + e];
            dk[at + e] += ds * (double)q[e];
            dv[at + e] += p * (double)dout[e];
        }
    }
    for (int64_t e = 0; e < d; e++)
        dq[e] = (float)sum[e];
    free(sum);
}

void reference__attention_back(struct device *dev, float *dq, float *dk, float *dv, const float *dout,
                               const float *q, const float *k, const float *v, const float *out,
                               const float *lse, const struct attention_shape *shape)
{
    int64_t d = shape->head_dim, n_q = shape->n_q_heads, n_kv = shape->n_kv_heads, t_all = shape->n_tokens;
    int64_t n = t_all * n_kv * d;
    int64_t *keys = ops__scratch(dev, 0, (size_t)t_all * sizeof *keys + 2 * (size_t)n * sizeof(double));
    double *sum_k = (double *)(keys + t_all), *sum_v = sum_k + n;
    memset(sum_k, 0, 2 * (size_t)n * sizeof *sum_k);
    for (int32_t s = 0; s < shape->n_segments; s++) {
        int64_t start = shape->segments[s].start, end = start + shape->segments[s].n_tokens;
        for (int64_t t = ops__queries_before(shape, start); t < ops__queries_before(shape, end); t++) {
            int64_t n_keys = visible_keys(shape, s, ops__query_token(shape, t), keys);
            for (int64_t h = 0; h < n_q; h++) {
                int64_t row = (t * n_q + h) * d, kv = h / (n_q / n_kv) * d;
                query_back(dq + row, sum_k + kv, sum_v + kv, dout + row, q + row, k + kv, v + kv, out + row,
                           (double)lse[t * n_q + h], keys, n_keys, n_kv * d, d, (double)shape->scale);
            }
        }
    }
    for (int64_t i = 0; i < n; i++) {
        dk[i] = (float)sum_k[i];
        dv[i] = (float)sum_v[i];
    }
}

void reference__attention_decode(struct device *dev, float *out, const float *q, const float *k_cache,
                                 const float *v_cache, int64_t n, int64_t capacity, const int32_t *lens,
                                 int32_t n_q_heads, int32_t n_kv_heads, int32_t head_dim, int32_t window,
                                 float scale)
{
    int64_t d = head_dim, n_q = n_q_heads, n_kv = n_kv_heads;
    double *p = ops__scratch(dev, 0, (size_t)capacity * sizeof *p);
    for (int64_t s = 0; s < n; s++)
        for (int64_t h = 0; h < n_q; h++) {
            int64_t first = window > 0 && lens[s] > window ? lens[s] - window : 0, kv = h / (n_q / n_kv);
            double max = -INFINITY, sum = 0;
            for (int64_t j = first; j < lens[s]; j++) {
                const float *key = k_cache + ((s * capacity + j) * n_kv + kv) * d;
                p[j] = (double)scale * dot(q + (s * n_q + h) * d, key, d);
                max = fmax(max, p[j]);
            }
            for (int64_t j = first; j < lens[s]; j++)
                sum += p[j] = exp(p[j] - max);
            for (int64_t e = 0; e < d; e++) {
                double value = 0;
                for (int64_t j = first; j < lens[s]; j++)
                    value += p[j] * (double)v_cache[((s * capacity + j) * n_kv + kv) * d + e];
                out[(s * n_q + h) * d + e] = (float)(value / sum);
            }
        }
}
