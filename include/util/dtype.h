/* Element types of tensors, and their conversion to and from float. */
#ifndef SMGPT_UTIL_DTYPE_H
#define SMGPT_UTIL_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype { DT_F32, DT_F64, DT_F16, DT_BF16, DT_I8, DT_U8, DT_I16, DT_I32, DT_I64, DT_BOOL, N_DTYPES };

size_t dtype_bytes(enum dtype t);
const char *dtype_name(enum dtype t); /* safetensors spelling: "F32", "BF16", ... */
bool dtype_from_name(const char *name, enum dtype *out);

static inline float bf16_to_f32(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t bf16_from_f32(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
float f16_to_f32(uint16_t x);
uint16_t f16_from_f32(float f);

/* n elements of any floating type (F32, F64, F16, BF16), unaligned sources allowed. False for other types. */
bool dtype_to_f32(enum dtype t, const void *src, float *dst, size_t n);
bool dtype_from_f32(enum dtype t, const float *src, void *dst, size_t n);

#endif
