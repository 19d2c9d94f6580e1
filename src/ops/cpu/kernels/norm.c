/* Rows of the norm and of the rotary embedding. */
#include "kernel_names.h"
#include "simd.h"

float KERNEL(dot)(const float *a, const float *b, int64_t n)
{
    v16 sum = v16_set(0);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum = v16_add(sum, v16_mul(v16_load(a + i), v16_load(b + i)));
    if (i < n)
        sum = v16_add(sum, v16_mul(v16_load_part(a + i, n - i, 0), v16_load_part(b + i, n - i, 0)));
    return v16_sum(sum);
}

void KERNEL(rms_norm)(float *y, float *inv_rms, const float *x, const float *w, int64_t rows, int64_t n,
                      float eps, float unit_offset)
{
    for (int64_t r = 0; r < rows; r++, x += n, y += n) {
        float inv = 1.0f / sqrtf(KERNEL(dot)(x, x, n) / (float)n + eps);
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * inv * (w[i] + unit_offset);
        if (inv_rms != NULL)
            inv_rms[r] = inv;
    }
}

static inline v16 gain_dy(v16 dy, v16 w, float unit_offset)
{
    return v16_mul(dy, v16_add(w, v16_set(unit_offset)));
}

void KERNEL(rms_norm_back)(float *dx, const float *dy, const float *x, const float *inv_rms, const float *w,
                           int64_t rows, int64_t n, float unit_offset, bool accumulate)
{
    for (int64_t r = 0; r < rows; r++, dx += n, dy += n, x += n) {
        float inv = inv_rms[r];
        v16 sum = v16_set(0);
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES)
            sum = v16_add(sum,
                          v16_mul(gain_dy(v16_load(dy + i), v16_load(w + i), unit_offset), v16_load(x + i)));
        if (i < n)
            sum = v16_add(sum, v16_mul(gain_dy(v16_load_part(dy + i, n - i, 0),
                                               v16_load_part(w + i, n - i, 0), unit_offset),
                                       v16_load_part(x + i, n - i, 0)));
        /* dx = inv (g - h mean(g h)), h = x inv: the factor of x is inv^3 mean(g x). */
        float factor = inv * inv * (v16_sum(sum) / (float)n);
        if (accumulate)
            for (i = 0; i < n; i++)
                dx[i] += inv * (dy[i] * (w[i] + unit_offset) - x[i] * factor);
        else
            for (i = 0; i < n; i++)
                dx[i] = inv * (dy[i] * (w[i] + unit_offset) - x[i] * factor);
    }
}

void KERNEL(rope)(float *x, int64_t n_heads, int64_t head_dim, const float *cos_sin, bool inverse)
{
    int64_t half = head_dim / 2;
    const float *c = cos_sin, *s = cos_sin + half;
    float sign = inverse ? -1.0f : 1.0f;
    for (int64_t h = 0; h < n_heads; h++) {
        float *restrict low = x + h * head_dim, *restrict high = low + half;
        for (int64_t j = 0; j < half; j++) {
            float a = low[j], b = high[j], sine = sign * s[j];
            low[j] = a * c[j] - b * sine;
            high[j] = b * c[j] + a * sine;
        }
    }
}
