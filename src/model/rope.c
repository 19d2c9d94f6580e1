/* Tables of the rotary embedding, in the float32 arithmetic of transformers: the exponent, the power and the
 * reciprocal are each rounded, since angles at large positions magnify a last bit of the frequency. */
#include "model/arch.h"

#include <math.h>
#include <stdlib.h>

/* Llama 3.1's rescaling: long waves are stretched by the factor, short ones kept, those between blended. */
static float llama3_frequency(const struct rope_spec *s, float inv)
{
    float factor = (float)s->factor, low = (float)s->low_freq_factor, high = (float)s->high_freq_factor;
    float old = (float)s->original_max_positions;
    float wave = (float)(2 * M_PI) / inv;
    if (wave > old / low)
        return inv / factor;
    if (wave < old / high)
        return inv;
    float smooth = (old / wave - low) / (high - low);
    return (1 - smooth) * inv / factor + smooth * inv;
}

static float frequency(const struct rope_spec *s, int32_t head_dim, int32_t j)
{
    float inv = 1.0f / powf((float)s->theta, (float)(2 * j) / (float)head_dim);
    switch (s->kind) {
    case ROPE_LINEAR:
        return inv / (float)s->factor;
    case ROPE_LLAMA3:
        return llama3_frequency(s, inv);
    default:
        return inv;
    }
}

void rope_table(const struct rope_spec *spec, int32_t head_dim, int64_t n_positions, float *cos_sin)
{
    int32_t half = head_dim / 2;
    for (int32_t j = 0; j < half; j++) {
        float inv = frequency(spec, head_dim, j);
        for (int64_t p = 0; p < n_positions; p++) {
            float angle = (float)p * inv;
            cos_sin[p * head_dim + j] = cosf(angle);
            cos_sin[p * head_dim + half + j] = sinf(angle);
        }
    }
}
