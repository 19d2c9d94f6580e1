#include "util/dtype.h"

static const struct {
    const char *name;
    size_t n_bytes;
} dtypes[N_DTYPES] = {
    [DT_F32] = {"F32", 4}, [DT_F64] = {"F64", 8},   [DT_F16] = {"F16", 2}, [DT_BF16] = {"BF16", 2},
    [DT_I8] = {"I8", 1},   [DT_U8] = {"U8", 1},     [DT_I16] = {"I16", 2}, [DT_I32] = {"I32", 4},
    [DT_I64] = {"I64", 8}, [DT_BOOL] = {"BOOL", 1},
};

size_t dtype_bytes(enum dtype t)
{
    return (unsigned)t < N_DTYPES ? dtypes[t].n_bytes : 0;
}

const char *dtype_name(enum dtype t)
{
    return (unsigned)t < N_DTYPES ? dtypes[t].name : "?";
}

bool dtype_from_name(const char *name, enum dtype *out)
{
    for (int t = 0; t < N_DTYPES; t++) {
        if (strcmp(name, dtypes[t].name) == 0) {
            *out = (enum dtype)t;
            return true;
        }
    }
    return false;
}

float f16_to_f32(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16;
    uint32_t exponent = x >> 10 & 31u, fraction = x & 0x3ffu;
    float f;
    if (exponent == 0) {
        f = (float)fraction * 0x1p-24f; /* zero and subnormals: exact in float */
        return sign ? -f : f;
    }
    uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    if (exponent == 31 && fraction)
        bits |= 0x400000u; /* quiet, as the processor's own conversion answers */
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t f16_from_f32(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    uint32_t a = bits & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x1ffu));
    if (a >= 0x477ff000u) /* 65520 and up round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (a >= 0x38800000u) { /* 2^-14 and up: normal; round to nearest, ties to even */
        a += 0xfffu + (a >> 13 & 1u);
        return (uint16_t)(sign | (uint16_t)((a - 0x38000000u) >> 13));
    }
    /* Subnormal: adding 0.5 puts the unit of the last place at 2^-24, and the addition itself rounds. */
    float v;
    memcpy(&v, &a, sizeof v);
    v += 0.5f;
    memcpy(&a, &v, sizeof a);
    return (uint16_t)(sign | (uint16_t)(a - 0x3f000000u));
}

bool dtype_to_f32(enum dtype t, const void *src, float *dst, size_t n)
{
    const unsigned char *p = src;
    switch (t) {
    case DT_F32:
        if (n > 0)
            memcpy(dst, p, n * sizeof *dst);
        return true;
    case DT_F64:
        for (size_t i = 0; i < n; i++) {
            double x;
            memcpy(&x, p + 8 * i, sizeof x);
            dst[i] = (float)x;
        }
        return true;
    case DT_F16:
        for (size_t i = 0; i < n; i++) {
            uint16_t x;
            memcpy(&x, p + 2 * i, sizeof x);
            dst[i] = f16_to_f32(x);
        }
        return true;
    case DT_BF16:
        for (size_t i = 0; i < n; i++) {
            uint16_t x;
            memcpy(&x, p + 2 * i, sizeof x);
            dst[i] = bf16_to_f32(x);
        }
        return true;
    default:
        return false;
    }
}

bool dtype_from_f32(enum dtype t, const float *src, void *dst, size_t n)
{
    unsigned char *p = dst;
    switch (t) {
    case DT_F32:
        if (n > 0)
            memcpy(p, src, n * sizeof *src);
        return true;
    case DT_F64:
        for (size_t i = 0; i < n; i++) {
            double x = (double)src[i];
            memcpy(p + 8 * i, &x, sizeof x);
        }
        return true;
    case DT_F16:
        for (size_t i = 0; i < n; i++) {
            uint16_t x = f16_from_f32(src[i]);
            memcpy(p + 2 * i, &x, sizeof x);
        }
        return true;
    case DT_BF16:
        for (size_t i = 0; i < n; i++) {
            uint16_t x = bf16_from_f32(src[i]);
            memcpy(p + 2 * i, &x, sizeof x);
        }
        return true;
    default:
        return false;
    }
}
