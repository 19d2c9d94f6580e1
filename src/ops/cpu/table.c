/* The cpu table, and the choice of the instruction set. */
#include "cpu_internal.h"
#include <stdio.h>
#include <string.h>

/* Best first. */
static const struct {
    const char *name;
    const struct kernels *kernels;
} paths[] = {
#ifdef SMGPT_X86
    {"avx512", &ops__kernels_avx512},
    {"avx2", &ops__kernels_avx2},
#endif
    {"baseline", &ops__kernels_baseline},
};
enum { N_PATHS = sizeof paths / sizeof paths[0] };

/* Whether this processor (and its operating system) runs the path. */
static bool path_runs(const char *name)
{
#ifdef SMGPT_X86
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(name, "avx2") == 0)
        return avx2;
    if (strcmp(name, "avx512") == 0)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
    return true;
}

static enum status path_pick(const struct kernels **out, const char *wanted, struct err *err)
{
    bool any = wanted == NULL || strcmp(wanted, "auto") == 0;
    for (int i = 0; i < N_PATHS; i++) {
        if (!any && strcmp(wanted, paths[i].name) != 0)
            continue;
        if (path_runs(paths[i].name)) {
            *out = paths[i].kernels;
            return ST_OK;
        }
        if (!any) {
            err_set(err, ST_ENV, "this processor does not run the path \"%s\"", wanted);
            return err_hint(err, "use --cpu-path auto");
        }
    }
    err_set(err, ST_USAGE, "there is no path \"%s\" for the CPU", wanted);
    return err_hint(err, "use auto, baseline, avx2 or avx512");
}

static enum status cpu_open(struct device **out, const struct device_options *options, struct err *err)
{
    const struct kernels *kernels = NULL;
    *out = NULL;
    TRY(path_pick(&kernels, options->cpu_path, err));
    TRY(ops__device_open(out, options, err));
    struct device *dev = *out;
    dev->kernels = kernels;
    snprintf(dev->text, sizeof dev->text, "%s kernels, %s, %d thread%s", kernels->name,
             options->compute == COMPUTE_BF16 ? "bfloat16" : "float32", dev->n_threads,
             dev->n_threads == 1 ? "" : "s");
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
    .weight_prepare = cpu__weight_prepare,
    .weight_release = cpu__weight_release,
    .linear = cpu__linear,
    .linear_back = cpu__linear_back,
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
