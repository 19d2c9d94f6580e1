/* Which kernels this processor and system have. Compiled for any x86-64; the kernels are not. */
#include "tile_names.h"
#include <string.h>

#ifdef SMGPT_X86
static void nothing(void)
{
}

#define PACKING                                                                                              \
    .pack_left = tiles__pack_left, .pack_left_turned = tiles__pack_left_turned,                              \
    .pack_right = tiles__pack_right, .pack_right_turned = tiles__pack_right_turned,                          \
    .copy_right = tiles__copy_right, .copy_right_turned = tiles__copy_right_turned,                          \
    .softmax = tiles__softmax, .softmax_back = tiles__softmax_back, .row_dots = tiles__row_dots,             \
    .divide_rows = tiles__divide_rows

static const struct tiles amx = {
    .name = "amx", .begin = tiles__amx_begin, .end = tiles__amx_end, .product = tiles__amx_product, PACKING};
static const struct tiles avx512_bf16 = {
    .name = "avx512_bf16", .begin = nothing, .end = nothing, .product = tiles__dpbf16_product, PACKING};

const struct tiles *cpu__tiles(const char *name)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512bf16"))
        return NULL;
    if (strcmp(name, amx.name) == 0)
        return tiles__amx_permitted() ? &amx : NULL;
    return strcmp(name, avx512_bf16.name) == 0 ? &avx512_bf16 : NULL;
}
#else
const struct tiles *cpu__tiles(const char *name)
{
    (void)name;
    return NULL;
}
#endif
