/* The cpu table, and the choice of the instruction set. */
#include "cpu_internal.h"
#include "tiles/tiles.h"
#include <stdio.h>
#include <string.h>

/* Kernels of the paths with tiles for all that is no product. In tests/emulated tiles run on any processor.
 */
#ifdef SMGPT_EMULATED
#define BESIDE_TILES ops__kernels_baseline
#else
#define BESIDE_TILES ops__kernels_avx512
#endif

/* Best first. The first two differ from avx512 in products of bfloat16 only. */
static const struct path {
    const char *name;
    const struct kernels *kernels;
    bool native_bf16;
} paths[] = {
#ifdef SMGPT_X86
    {"amx", &BESIDE_TILES, true},
    {"avx512_bf16", &BESIDE_TILES, true},
    {"avx512", &ops__kernels_avx512, false},
    {"avx2", &ops__kernels_avx2, false},
#endif
    {"baseline", &ops__kernels_baseline, false},
};
enum { N_PATHS = sizeof paths / sizeof paths[0] };

/* Whether this processor (and its operating system) runs the path. */
static bool path_runs(const struct path *path)
{
#if defined(SMGPT_EMULATED)
    return path->kernels == &ops__kernels_baseline;
#elif defined(SMGPT_X86)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (path->native_bf16)
        return avx512 && cpu__tiles(path->name) != NULL;
    if (path->kernels == &ops__kernels_avx512)
        return avx512;
    if (path->kernels == &ops__kernels_avx2)
        return avx2;
#endif
    return true;
}

static enum status path_pick(const struct path **out, const char *wanted, enum compute compute,
                             struct err *err)
{
    bool any = wanted == NULL || strcmp(wanted, "auto") == 0;
    for (int i = 0; i < N_PATHS; i++) {
        /* In float32 the native paths are avx512 under other names: nothing to choose. */
        if (any ? paths[i].native_bf16 && compute != COMPUTE_BF16 : strcmp(wanted, paths[i].name) != 0)
            continue;
        if (path_runs(&paths[i])) {
            *out = &paths[i];
            return ST_OK;
        }
        if (!any) {
            err_set(err, ST_ENV, "this processor does not run the path \"%s\"", wanted);
            return err_hint(err, "set cpu_path=auto");
        }
    }
    err_set(err, ST_USAGE, "there is no path \"%s\" for the CPU", wanted);
    return err_hint(err, "use auto, baseline, avx2, avx512, avx512_bf16 or amx");
}

static enum status cpu_open(struct device **out, const struct device_options *options, struct err *err)
{
    const struct path *path = NULL;
    struct device *dev;
    *out = NULL;
    TRY(path_pick(&path, options->cpu_path, options->compute, err));
    TRY(ops__device_open(&dev, options, err));
    dev->kernels = path->kernels;
    if (path->native_bf16 && options->compute == COMPUTE_BF16)
        dev->tiles = cpu__tiles(path->name);
    /* No thread count: runs on other threads are the same run. */
    snprintf(dev->text, sizeof dev->text, "%s, %s", path->name,
             options->compute == COMPUTE_BF16 ? "bfloat16" : "float32");
    *out = dev;
    return ST_OK;
}

const struct ops ops__cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = ops__device_close,
    .describe = ops__device_describe,
    .alloc = ops__alloc,
    .release = ops__release,
    .upload = ops__copy,
    .download = ops__copy,
    .zero = ops__zero,
    .copy = ops__copy,
    .weight_bytes = cpu__weight_bytes,
    .weight_prepare = cpu__weight_prepare,
    .weight_release = cpu__weight_release,
    .linear = cpu__linear,
    .linear_back = cpu__linear_back,
    .project = cpu__project,
    .project_back = cpu__project_back,
    .mlp_kept_bytes = cpu__mlp_kept_bytes,
    .mlp = cpu__mlp,
    .mlp_back = cpu__mlp_back,
    .gemm = cpu__gemm,
    .rms_norm = cpu__rms_norm,
    .rms_norm_back = cpu__rms_norm_back,
    .rope = cpu__rope,
    .attention = cpu__attention,
    .attention_back = cpu__attention_back,
    .attention_decode = cpu__attention_decode,
    .act_mul = cpu__act_mul,
    .act_mul_back = cpu__act_mul_back,
    .embed = cpu__embed,
    .embed_back = cpu__embed_back,
    .gather_rows = cpu__gather_rows,
    .scatter_add_rows = cpu__scatter_add_rows,
    .cross_entropy = cpu__cross_entropy,
    .add = cpu__add,
    .sum_squares = cpu__sum_squares,
    .adamw = cpu__adamw,
    .sync = ops__sync,
};
