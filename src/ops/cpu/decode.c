/* Attention of one new token against a cache: memory-bound, so a key is read once for all heads of its group.
 */
#include "cpu_internal.h"
#include <omp.h>
#include <string.h>

/* One sequence, one key/value head; k and v point at key 0 of the head, keys are `step` floats apart. */
static void decode_group(const struct kernels *kernels, float *out, const float *q, const float *k,
                         const float *v, int64_t step, int64_t first, int64_t end, int64_t group, int64_t d,
                         float scale, float *scores)
{
    int64_t n = end - first;
    for (int64_t j = 0; j < n; j++)
        for (int64_t h = 0; h < group; h++)
            scores[h * n + j] = kernels->dot(q + h * d, k + (first + j) * step, d);
    for (int64_t h = 0; h < group; h++) {
        float max, sum = kernels->softmax(scores + h * n, 0, n, n, scale, &max);
        kernels->scale(scores + h * n, n, 1 / sum);
    }
    struct product p = {.m = group, .n = d, .k = n, .a = scores, .a_row = n, .a_k = 1, .ldb = step, .ldc = d};
    p.b = v + first * step;
    p.c = out;
    p.alpha = 1;
    kernels->gemm(&p);
}

void cpu__attention_decode(struct device *dev, float *out, const float *q, const float *k_cache,
                           const float *v_cache, int64_t n, int64_t capacity, const int32_t *lens,
                           int32_t n_q_heads, int32_t n_kv_heads, int32_t head_dim, int32_t window,
                           float scale)
{
    int64_t d = head_dim, group = n_q_heads / n_kv_heads, step = (int64_t)n_kv_heads * d, n_terms = 0;
    for (int64_t s = 0; s < n; s++)
        n_terms += lens[s] * (int64_t)n_q_heads * d;
#pragma omp parallel for num_threads(dev->n_threads)                                                         \
    schedule(dynamic) if (n * n_kv_heads > 1 && n_terms > CPU_GRAIN)
    for (int64_t task = 0; task < n * n_kv_heads; task++) {
        int64_t s = task / n_kv_heads, kv = task % n_kv_heads, row = (s * n_q_heads + kv * group) * d;
        int64_t first = window > 0 && lens[s] > window ? lens[s] - window : 0,
                head = s * capacity * step + kv * d;
        float *scores =
            ops__scratch(dev, omp_get_thread_num(), (size_t)(group * (lens[s] - first)) * sizeof *scores);
        decode_group(dev->kernels, out + row, q + row, k_cache + head, v_cache + head, step, first, lens[s],
                     group, d, scale, scores);
    }
}
