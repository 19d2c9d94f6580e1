/* The reference table: no threads, no vector instructions, no blocks. */
#include "reference_internal.h"
#include <stdio.h>
#include <string.h>

static enum status reference_open(struct device **out, const struct device_options *options, struct err *err)
{
    const char *path = options->cpu_path;
    if (path != NULL && strcmp(path, "auto") != 0 && strcmp(path, "reference") != 0)
        return err_set(err, ST_USAGE, "the reference operations have no path \"%s\"", path);
    struct device_options one_thread = *options;
    one_thread.n_threads = 1;
    TRY(ops__device_open(out, &one_thread, err));
    snprintf((*out)->text, sizeof(*out)->text, "reference, %s",
             options->compute == COMPUTE_BF16 ? "bfloat16" : "float32");
    return ST_OK;
}

const struct ops ops__reference = {
    .name = "reference",
    .open = reference_open,
    .close = ops__device_close,
    .describe = ops__device_describe,
    .alloc = ops__alloc,
    .release = ops__release,
    .upload = ops__copy,
    .download = ops__copy,
    .zero = ops__zero,
    .copy = ops__copy,
    .weight_bytes = reference__weight_bytes,
    .weight_prepare = reference__weight_prepare,
    .weight_release = reference__weight_release,
    .linear = reference__linear,
    .linear_back = reference__linear_back,
    .project = reference__project,
    .project_back = reference__project_back,
    .mlp_kept_bytes = ops__mlp_kept_bytes,
    .mlp = reference__mlp,
    .mlp_back = reference__mlp_back,
    .gemm = reference__gemm,
    .rms_norm = reference__rms_norm,
    .rms_norm_back = reference__rms_norm_back,
    .rope = reference__rope,
    .attention = reference__attention,
    .attention_back = reference__attention_back,
    .attention_decode = reference__attention_decode,
    .act_mul = reference__act_mul,
    .act_mul_back = reference__act_mul_back,
    .embed = reference__embed,
    .embed_back = reference__embed_back,
    .gather_rows = reference__gather_rows,
    .scatter_add_rows = reference__scatter_add_rows,
    .cross_entropy = reference__cross_entropy,
    .add = reference__add,
    .sum_squares = reference__sum_squares,
    .adamw = reference__adamw,
    .sync = ops__sync,
};
