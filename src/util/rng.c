#include "util/rng.h"

#include <math.h>

/* Ten rounds; constants of table 2 and the key schedule of section 3.3 of the paper. */
void rng_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1];
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static void draw(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index, uint64_t out[2])
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), sub, stream};
    uint32_t x[4];
    rng_philox(key, counter, x);
    out[0] = (uint64_t)x[1] << 32 | x[0];
    out[1] = (uint64_t)x[3] << 32 | x[2];
}

uint64_t rng_u64(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index)
{
    uint64_t x[2];
    draw(seed, stream, sub, index, x);
    return x[0];
}

double rng_uniform(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index)
{
    return (double)(rng_u64(seed, stream, sub, index) >> 11) * 0x1p-53;
}

/* The C library's log and cos choose their code by the processor and may differ in the last bit between two
 * machines of one run. These two use nothing but correctly rounded operations in a fixed order; about 1e-15.
 */

/* log x for x in (0, 1]: x = m 2^e with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh((m - 1) / (m + 1)). */
static double log_fixed(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) {
        m *= 2;
        e -= 1;
    }
    double s = (m - 1) / (m + 1), s2 = s * s, sum = 0;
    for (int k = 23; k >= 1; k -= 2)
        sum = sum * s2 + 1.0 / k;
    return 2 * s * sum + e * 0.69314718055994531;
}

/* cos(2 pi u) for u in [0, 1): to an eighth of a turn, then the Taylor series of sine or cosine. */
static double cos_turns_fixed(double u)
{
    int quarter = (int)(u * 4 + 0.5); /* nearest quarter turn, 0..4 */
    double x = (u - quarter * 0.25) * 6.2831853071795865, x2 = x * x;
    double sine = 0, cosine = 0;
    for (int k = 20; k >= 2; k -= 2) {
        cosine = (cosine + 1) * -x2 / ((double)k * (k - 1));
        sine = (sine + 1) * -x2 / ((double)k * (k + 1));
    }
    cosine += 1;
    sine = (sine + 1) * x;
    switch (quarter % 4) {
    case 0:
        return cosine;
    case 1:
        return -sine;
    case 2:
        return -cosine;
    default:
        return sine;
    }
}

double rng_normal(uint64_t seed, uint32_t stream, uint32_t sub, uint64_t index)
{
    uint64_t x[2];
    draw(seed, stream, sub, index, x);
    double u = ((double)(x[0] >> 11) + 1) * 0x1p-53; /* (0, 1]: its logarithm is finite */
    double v = (double)(x[1] >> 11) * 0x1p-53;
    return sqrt(-2 * log_fixed(u)) * cos_turns_fixed(v);
}

void mt19937_init(struct mt19937 *mt, uint32_t seed)
{
    mt->state[0] = seed;
    for (uint32_t i = 1; i < 624; i++)
        mt->state[i] = 1812433253u * (mt->state[i - 1] ^ mt->state[i - 1] >> 30) + i;
    mt->at = 624;
}

static void mt19937_refill(struct mt19937 *mt)
{
    uint32_t *s = mt->state;
    for (int i = 0; i < 624; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % 624] & 0x7fffffffu);
        s[i] = s[(i + 397) % 624] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    mt->at = 0;
}

uint32_t mt19937_u32(struct mt19937 *mt)
{
    if (mt->at >= 624)
        mt19937_refill(mt);
    uint32_t y = mt->state[mt->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}
