/* The table of this instruction set. */
#include "kernel_names.h"

const struct kernels KERNEL(kernels) = {
    .name = KERNEL_TEXT(OPS_ISA),
#if defined(__AVX512F__)
    .panel = 64,
#elif defined(__AVX2__)
    .panel = 16,
#else
    .panel = 8,
#endif
    .gemm = KERNEL(gemm),
    .pack_rows = KERNEL(pack_rows),
    .pack_cols = KERNEL(pack_cols),
    .transpose = KERNEL(transpose),
    .from_bf16 = KERNEL(from_bf16),
    .round_bf16 = KERNEL(round_bf16),
    .to_bf16 = KERNEL(to_bf16),
    .rms_norm = KERNEL(rms_norm),
    .rms_norm_back = KERNEL(rms_norm_back),
    .rope = KERNEL(rope),
    .act_mul = KERNEL(act_mul),
    .act_mul_back = KERNEL(act_mul_back),
    .act_mul_both = KERNEL(act_mul_both),
    .cross_entropy = KERNEL(cross_entropy),
    .scale = KERNEL(scale),
    .add = KERNEL(add),
    .add_scaled = KERNEL(add_scaled),
    .sum_squares = KERNEL(sum_squares),
    .adamw = KERNEL(adamw),
    .softmax = KERNEL(softmax),
    .prob = KERNEL(prob),
    .dscore = KERNEL(dscore),
    .dot = KERNEL(dot),
};
