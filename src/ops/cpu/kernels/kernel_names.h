/* The functions of this folder under the names that this compilation gives them. Only for this folder. */
#ifndef SMGPT_OPS_CPU_KERNEL_NAMES_H
#define SMGPT_OPS_CPU_KERNEL_NAMES_H

#include "kernels.h"

#ifndef OPS_ISA
#define OPS_ISA baseline
#endif
#define KERNEL_PASTE2(name, isa) ops__##name##_##isa
#define KERNEL_PASTE(name, isa)  KERNEL_PASTE2(name, isa)
#define KERNEL(name)             KERNEL_PASTE(name, OPS_ISA)
#define KERNEL_TEXT2(isa)        #isa
#define KERNEL_TEXT(isa)         KERNEL_TEXT2(isa)

void KERNEL(gemm)(const struct product *p);
void KERNEL(pack_rows)(float *dst, const float *src, int64_t ld, int64_t k, int64_t n);
void KERNEL(pack_cols)(float *dst, const float *src, int64_t ld, int64_t k, int64_t n);
void KERNEL(transpose)(float *dst, int64_t ld_dst, const float *src, int64_t ld_src, int64_t rows, int64_t n);
void KERNEL(from_bf16)(float *dst, const uint16_t *src, int64_t n);
void KERNEL(round_bf16)(float *dst, const float *src, int64_t n);
void KERNEL(to_bf16)(uint16_t *dst, const float *src, int64_t n);
void KERNEL(rms_norm)(float *y, float *inv_rms, const float *x, const float *w, int64_t rows, int64_t n,
                      float eps, float unit_offset);
void KERNEL(rms_norm_back)(float *dx, const float *dy, const float *x, const float *inv_rms, const float *w,
                           int64_t rows, int64_t n, float unit_offset, bool accumulate);
void KERNEL(rope)(float *x, int64_t n_heads, int64_t head_dim, const float *cos_sin, bool inverse);
void KERNEL(act_mul)(enum act_kind kind, float *out, const float *gate, const float *up, int64_t n);
void KERNEL(act_mul_back)(enum act_kind kind, float *dgate, float *dup, const float *dout, const float *gate,
                          const float *up, int64_t n);
void KERNEL(act_mul_both)(enum act_kind kind, float *restrict out, float *restrict dgate, float *restrict dup,
                          const float *dout, const float *gate, const float *up, int64_t n);
float KERNEL(cross_entropy)(float *logits, const int32_t *labels, int64_t n_labels, int64_t v,
                            float grad_scale);
void KERNEL(scale)(float *x, int64_t n, float scale);
void KERNEL(add)(float *dst, const float *src, int64_t n);
void KERNEL(add_scaled)(float *dst, const float *src, int64_t n, float scale);
double KERNEL(sum_squares)(const float *x, int64_t n);
void KERNEL(adamw)(float *p, const float *g, float *m, float *v, int64_t n, const struct adamw *a);
float KERNEL(softmax)(float *s, int64_t lo, int64_t hi, int64_t n, float scale, float *max);
void KERNEL(prob)(float *s, int64_t lo, int64_t hi, int64_t n, float scale, float lse);
void KERNEL(dscore)(float *dp, const float *s, int64_t n, float through, float scale);
float KERNEL(dot)(const float *a, const float *b, int64_t n);

#endif
