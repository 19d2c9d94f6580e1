/* Activations, sums and the optimizer, element by element. */
#include "kernel_names.h"
#include "simd.h"

/* gelu_tanh(x) = x (1 + tanh u) / 2 = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3); silu the same
 * with 2 u = x. Both need one sigmoid, and nothing cancels for negative x. */
static inline float twice_u(float x)
{
    return 1.59576912f * FMA(0.044715f * x * x, x, x);
}
/* exp(-x), cut where the sigmoid is 1 anyway and where nothing is left of it: at -87 it is 2e-38. */
static inline float exp_minus(float x)
{
    float c = x < -87.0f ? -87.0f : x;
    c = c > 86.0f ? 86.0f : c;
    return exp_within(-c);
}
static inline float sigmoid(float x)
{
    float s = 1.0f / (1.0f + exp_minus(x));
    return x < -87.0f ? 0.0f : s;
}
/* Also s (1 - s), without taking the difference: near s = 1 it would have no digits left. */
static inline float sigmoid_slope(float x, float *slope)
{
    float e = exp_minus(x), s = 1.0f / (1.0f + e);
    s = x < -87.0f ? 0.0f : s;
    *slope = s * (e * s);
    return s;
}

void KERNEL(act_mul)(enum act_kind kind, float *out, const float *gate, const float *up, int64_t n)
{
    if (kind == ACT_SILU)
        for (int64_t i = 0; i < n; i++)
            out[i] = gate[i] * sigmoid(gate[i]) * up[i];
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = gate[i] * sigmoid(twice_u(gate[i])) * up[i];
}

/* act(x), and its derivative. */
static inline float silu(float x, float *derivative)
{
    float slope, s = sigmoid_slope(x, &slope);
    *derivative = FMA(x, slope, s);
    return x * s;
}
static inline float gelu_tanh(float x, float *derivative)
{
    float slope, s = sigmoid_slope(twice_u(x), &slope);
    /* Beyond 30 the slope is 0; cut there, so that it does not meet an infinity. */
    float near = x < -30.0f ? -30.0f : x;
    near = near > 30.0f ? 30.0f : near;
    float inner = 1.59576912f * FMA(0.134145f * near, near, 1.0f); /* derivative of 2 u */
    *derivative = FMA(near * slope, inner, s);
    return x * s;
}

void KERNEL(act_mul_back)(enum act_kind kind, float *dgate, float *dup, const float *dout, const float *gate,
                          const float *up, int64_t n)
{
    if (kind == ACT_SILU)
        for (int64_t i = 0; i < n; i++) {
            float u = up[i], d = dout[i], derivative, act = silu(gate[i], &derivative);
            dgate[i] = d * u * derivative;
            dup[i] = d * act;
        }
    else
        for (int64_t i = 0; i < n; i++) {
            float u = up[i], d = dout[i], derivative, act = gelu_tanh(gate[i], &derivative);
            dgate[i] = d * u * derivative;
            dup[i] = d * act;
        }
}

void KERNEL(act_mul_both)(enum act_kind kind, float *restrict out, float *restrict dgate, float *restrict dup,
                          const float *dout, const float *gate, const float *up, int64_t n)
{
    if (kind == ACT_SILU)
        for (int64_t i = 0; i < n; i++) {
            float u = up[i], d = dout[i], derivative, act = silu(gate[i], &derivative);
            out[i] = act * u;
            dgate[i] = d * u * derivative;
            dup[i] = d * act;
        }
    else
        for (int64_t i = 0; i < n; i++) {
            float u = up[i], d = dout[i], derivative, act = gelu_tanh(gate[i], &derivative);
            out[i] = act * u;
            dgate[i] = d * u * derivative;
            dup[i] = d * act;
        }
}

void KERNEL(scale)(float *x, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= scale;
}

void KERNEL(add)(float *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] += src[i];
}

void KERNEL(add_scaled)(float *dst, const float *src, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] += scale * src[i];
}

/* Eight lanes of double, two groups, on every instruction set. */
double KERNEL(sum_squares)(const float *x, int64_t n)
{
    enum { WIDTH = 8 / PARTS };
    typedef float narrow __attribute__((vector_size(4 * WIDTH)));
    typedef double wide __attribute__((vector_size(8 * WIDTH)));
    wide sum[2 * PARTS] = {{0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma GCC unroll 8
        for (int part = 0; part < 2 * PARTS; part++) {
            narrow v;
            memcpy(&v, x + i + part * WIDTH, sizeof v);
            wide w = __builtin_convertvector(v, wide);
            sum[part] += w * w;
        }
    double total = 0;
    for (int part = 0; part < 2 * PARTS; part++)
        for (int l = 0; l < WIDTH; l++)
            total += sum[part][l];
    for (; i < n; i++)
        total += (double)x[i] * (double)x[i];
    return total;
}

void KERNEL(adamw)(float *p, const float *g, float *m, float *v, int64_t n, const struct adamw *a)
{
    const float keep = (float)(1.0 - a->lr * a->weight_decay), toward = (float)(1.0 - a->beta1);
    const float beta2 = (float)a->beta2, rest2 = (float)(1.0 - a->beta2), step = (float)(a->lr / a->bias1);
    const float bias2_sqrt = (float)a->bias2_sqrt, eps = (float)a->eps, grad_scale = a->grad_scale;
    for (int64_t i = 0; i < n; i++) {
        float grad = g[i] * grad_scale;
        float moment = m[i] + (grad - m[i]) * toward;
        float square = beta2 * v[i] + rest2 * grad * grad;
        m[i] = moment;
        v[i] = square;
        p[i] = p[i] * keep - step * moment / (sqrtf(square) / bias2_sqrt + eps);
    }
}
