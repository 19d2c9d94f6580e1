/* Which kernels this processor and system have. Compiled for any x86-64; the kernels are not. */
#include "tile_names.h"
#include <string.h>
#if defined(SMGPT_X86) && !defined(SMGPT_EMULATED)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifdef SMGPT_X86
static void nothing(void)
{
}

#define PACKING                                                                                              \
    .pack_left = tiles__pack_left, .pack_left_turned = tiles__pack_left_turned,                              \
    .pack_right = tiles__pack_right, .pack_right_turned = tiles__pack_right_turned,                          \
    .copy_right_turned = tiles__copy_right_turned, .turn_right = tiles__turn_right,                          \
    .left_rows = tiles__left_rows, .right_rows = tiles__right_rows, .softmax = tiles__softmax,               \
    .softmax_back = tiles__softmax_back, .row_dots = tiles__row_dots, .divide_rows = tiles__divide_rows

static const struct tiles amx = {.name = "amx",
                                 .row_unit = 16,
                                 .begin = tiles__amx_begin,
                                 .end = tiles__amx_end,
                                 .product = tiles__amx_product,
                                 .kept_bytes = sizeof(uint16_t),
                                 .keep_gated = tiles__keep_gated_bf16,
                                 .kept_gated = tiles__kept_gated_bf16,
                                 PACKING};
/* Keeping bfloat16 here too would save memory and no time; docs/performance-avx512.md says why it does not.
 */
static const struct tiles avx512_bf16 = {.name = "avx512_bf16",
                                         .row_unit = 8,
                                         .begin = nothing,
                                         .end = tiles__dpbf16_end,
                                         .product = tiles__dpbf16_product,
                                         .kept_bytes = sizeof(float),
                                         .keep_gated = tiles__keep_gated_f32,
                                         .kept_gated = tiles__kept_gated_f32,
                                         PACKING};

#ifdef SMGPT_EMULATED /* tests/emulated: the instructions are functions */
static bool amx_permitted(void)
{
    return true;
}

static bool has_avx512_bf16(void)
{
    return true;
}
#else
/* Whether this thread's process may use the tile registers: asks the processor, then the system. */
static bool amx_permitted(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, HAS_TILES = 1 << 24, HAS_BF16 = 1 << 22 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & HAS_TILES) || !(d & HAS_BF16))
        return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static bool has_avx512_bf16(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bf16");
}
#endif

const struct tiles *cpu__tiles(const char *name)
{
    if (!has_avx512_bf16())
        return NULL;
    if (strcmp(name, amx.name) == 0)
        return amx_permitted() ? &amx : NULL;
    return strcmp(name, avx512_bf16.name) == 0 ? &avx512_bf16 : NULL;
}
#else
const struct tiles *cpu__tiles(const char *name)
{
    (void)name;
    return NULL;
}
#endif
