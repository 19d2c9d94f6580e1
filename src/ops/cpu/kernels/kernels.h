/* The vector loops of one instruction set. The files of this folder are compiled once for each set (see
 * cmake/ops.cmake); kernel_names.h gives each copy its own name, and struct kernels is what the callers see.
 *
 * Bits: an element of a product is one chain of multiply-adds in the order of k, so it depends neither on the
 * tile nor on the rows and columns computed beside it. Reductions use sixteen lanes on every instruction set.
 */
#ifndef SMGPT_OPS_CPU_KERNELS_H
#define SMGPT_OPS_CPU_KERNELS_H

#include "ops/ops.h"

/* c[m, n] = alpha a b + beta c, with a[i, l] at a[i * a_row + l * a_k], b[l, j] at b[l * ldb + j]. With chain
 * set, c is instead the start of the chain of multiply-adds (alpha and beta are not used): a product over a
 * long k may then be cut anywhere without changing its bits. Reads and writes nothing beyond column n.
 * Where b_panel is not 0, b is cut into panels [k][ldb] of `panel` columns, b_panel elements from one to the
 * next. */
struct product {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_k;
    const float *b;
    int64_t ldb, b_panel;
    float *c;
    int64_t ldc;
    float alpha, beta;
    bool chain;
};

struct kernels {
    const char *name;
    int panel; /* columns of a packed panel [k][panel] of the right operand */
    void (*gemm)(const struct product *p);
    /* Panel [k][panel] from n <= panel columns; the columns behind n are zeroed. rows: source [k, ld]; cols:
     * source [n, ld], transposed. */
    void (*pack_rows)(float *dst, const float *src, int64_t ld, int64_t k, int64_t n);
    void (*pack_cols)(float *dst, const float *src, int64_t ld, int64_t k, int64_t n);
    /* dst[j * ld_dst + i] = src[i * ld_src + j] for i < rows, j < n. */
    void (*transpose)(float *dst, int64_t ld_dst, const float *src, int64_t ld_src, int64_t rows, int64_t n);
    void (*from_bf16)(float *dst, const uint16_t *src, int64_t n);
    void (*round_bf16)(float *dst, const float *src, int64_t n);
    void (*to_bf16)(uint16_t *dst, const float *src, int64_t n);

    /* Whole rows; the meaning is that of the slot of the same name in struct ops. */
    void (*rms_norm)(float *y, float *inv_rms, const float *x, const float *w, int64_t rows, int64_t n,
                     float eps, float unit_offset);
    void (*rms_norm_back)(float *dx, const float *dy, const float *x, const float *inv_rms, const float *w,
                          int64_t rows, int64_t n, float unit_offset, bool accumulate);
    void (*rope)(float *x, int64_t n_heads, int64_t head_dim, const float *cos_sin, bool inverse);
    void (*act_mul)(enum act_kind kind, float *out, const float *gate, const float *up, int64_t n);
    void (*act_mul_back)(enum act_kind kind, float *dgate, float *dup, const float *dout, const float *gate,
                         const float *up, int64_t n);
    /* act_mul and act_mul_back at once, to the same bits; nothing in place. */
    void (*act_mul_both)(enum act_kind kind, float *restrict out, float *restrict dgate, float *restrict dup,
                         const float *dout, const float *gate, const float *up, int64_t n);
    float (*cross_entropy)(float *logits, const int32_t *labels, int64_t n_labels, int64_t v,
                           float grad_scale);
    void (*scale)(float *x, int64_t n, float scale);
    void (*add)(float *dst, const float *src, int64_t n);
    void (*add_scaled)(float *dst, const float *src, int64_t n, float scale);
    double (*sum_squares)(const float *x, int64_t n);
    void (*adamw)(float *p, const float *g, float *m, float *v, int64_t n, const struct adamw *a);

    /* Attention on one row of scores s[0, n), of which [lo, hi) are visible; the others become 0.
     * softmax: s = exp(scale * s - max) in [lo, hi), returns the sum and sets *max (of scale * s).
     * prob:    s = exp(scale * s - lse).
     * dscore:  dp = s * (dp - through) * scale. */
    float (*softmax)(float *s, int64_t lo, int64_t hi, int64_t n, float scale, float *max);
    void (*prob)(float *s, int64_t lo, int64_t hi, int64_t n, float scale, float lse);
    void (*dscore)(float *dp, const float *s, int64_t n, float through, float scale);
    float (*dot)(const float *a, const float *b, int64_t n);
};

extern const struct kernels ops__kernels_baseline, ops__kernels_avx2, ops__kernels_avx512;

#endif
