/* Norm, rotary embedding, activation: each row or element by itself. */
#include "reference_internal.h"
#include <math.h>

void reference__rms_norm(struct device *dev, float *y, float *inv_rms, const float *x, const float *w,
                         int64_t rows, int64_t n, float eps, float unit_offset)
{
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += (double)x[r * n + i] * (double)x[r * n + i];
        double inv = 1 / sqrt(sum / (double)n + (double)eps);
        for (int64_t i = 0; i < n; i++)
            y[r * n + i] = (float)((double)x[r * n + i] * inv * ((double)w[i] + (double)unit_offset));
        if (inv_rms != NULL)
            inv_rms[r] = (float)inv;
    }
}

/* With h = x * inv and g = dy * weight: dx = inv * (g - h * mean(g * h)). */
void reference__rms_norm_back(struct device *dev, float *dx, const float *dy, const float *x,
                              const float *inv_rms, const float *w, int64_t rows, int64_t n,
                              float unit_offset, bool accumulate)
{
    for (int64_t r = 0; r < rows; r++) {
        double inv = (double)inv_rms[r], sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += (double)dy[r * n + i] * ((double)w[i] + (double)unit_offset) * (double)x[r * n + i] * inv;
        for (int64_t i = 0; i < n; i++) {
            double g = (double)dy[r * n + i] * ((double)w[i] + (double)unit_offset);
            double d = inv * (g - (double)x[r * n + i] * inv * sum / (double)n);
            dx[r * n + i] = (float)(accumulate ? (double)dx[r * n + i] + d : d);
        }
    }
}

void reference__rope(struct device *dev, float *x, int64_t n_tokens, int32_t n_heads, int32_t head_dim,
                     const int32_t *positions, const float *cos_sin, bool inverse)
{
    int64_t half = head_dim / 2;
    for (int64_t t = 0; t < n_tokens; t++) {
        const float *c = cos_sin + (int64_t)positions[t] * head_dim, *s = c + half;
        for (int32_t h = 0; h < n_heads; h++) {
            float *row = x + (t * n_heads + h) * head_dim;
            for (int64_t j = 0; j < half; j++) {
                double a = (double)row[j], b = (double)row[j + half];
                double sine = inverse ? -(double)s[j] : (double)s[j];
                row[j] = (float)(a * (double)c[j] - b * sine);
                row[j + half] = (float)(b * (double)c[j] + a * sine);
            }
        }
    }
}

/* Value and derivative of the activation at x. */
static double act(enum act_kind kind, double x, double *slope)
{
    if (kind == ACT_SILU) {
        double s = 1 / (1 + exp(-x));
        *slope = s * (1 + x * (1 - s));
        return x * s;
    }
    const double root = 0.79788456080286535588; /* sqrt(2 / pi) */
    double t = tanh(root * (x + 0.044715 * x * x * x));
    *slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x);
    return 0.5 * x * (1 + t);
}

void reference__act_mul(struct device *dev, enum act_kind kind, float *out, const float *gate,
                        const float *up, int64_t n)
{
    double slope;
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)(act(kind, (double)gate[i], &slope) * (double)up[i]);
}

void reference__act_mul_back(struct device *dev, enum act_kind kind, float *dgate, float *dup,
                             const float *dout, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double slope, d = (double)dout[i], u = (double)up[i];
        double value = act(kind, (double)gate[i], &slope);
        dgate[i] = (float)(d * u * slope);
        dup[i] = (float)(d * value);
    }
}
