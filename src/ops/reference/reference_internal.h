/* The slots of the reference table. One loop nest each, as the formula reads; sums in double. */
#ifndef SMGPT_OPS_REFERENCE_INTERNAL_H
#define SMGPT_OPS_REFERENCE_INTERNAL_H

#include "../ops_internal.h"

enum status reference__weight_bytes(struct device *dev, size_t *n_bytes, int64_t n_out, int64_t n_in,
                                    enum dtype dtype, struct err *err);
enum status reference__weight_prepare(struct device *dev, struct weight *w, void *memory, bool fill,
                                      struct err *err);
void reference__weight_release(struct device *dev, struct weight *w);
void reference__linear(struct device *dev, float *y, int64_t ldy, const float *x, int64_t ldx,
                       const struct weight *w, int64_t n_tokens, bool accumulate);
void reference__linear_back(struct device *dev, float *dx, int64_t lddx, const float *dy, int64_t lddy,
                            const struct weight *w, int64_t n_tokens, bool accumulate);
void reference__project(struct device *dev, const struct projection *parts, int n, const float *x,
                        int64_t n_tokens);
void reference__project_back(struct device *dev, const struct projection *parts, int n, float *dx,
                             const float *x, int64_t n_tokens);
void reference__mlp(struct device *dev, const struct mlp *mlp, const float *x, int64_t n_tokens);
void reference__mlp_back(struct device *dev, const struct mlp *mlp, float *dx, const float *x,
                         int64_t n_tokens);
void reference__gemm(struct device *dev, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k,
                     float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                     float *c, int64_t ldc);

void reference__rms_norm(struct device *dev, float *y, float *inv_rms, const float *x, const float *w,
                         int64_t rows, int64_t n, float eps, float unit_offset);
void reference__rms_norm_back(struct device *dev, float *dx, const float *dy, const float *x,
                              const float *inv_rms, const float *w, int64_t rows, int64_t n,
                              float unit_offset, bool accumulate);
void reference__rope(struct device *dev, float *x, int64_t n_tokens, int32_t n_heads, int32_t head_dim,
                     const int32_t *positions, const float *cos_sin, bool inverse);
void reference__act_mul(struct device *dev, enum act_kind kind, float *out, const float *gate,
                        const float *up, int64_t n);
void reference__act_mul_back(struct device *dev, enum act_kind kind, float *dgate, float *dup,
                             const float *dout, const float *gate, const float *up, int64_t n);

void reference__attention(struct device *dev, float *out, float *lse, const float *q, const float *k,
                          const float *v, const struct attention_shape *shape);
void reference__attention_back(struct device *dev, float *dq, float *dk, float *dv, const float *dout,
                               const float *q, const float *k, const float *v, const float *out,
                               const float *lse, const struct attention_shape *shape);
void reference__attention_decode(struct device *dev, float *out, const float *q, const float *k_cache,
                                 const float *v_cache, int64_t n, int64_t capacity, const int32_t *lens,
                                 int32_t n_q_heads, int32_t n_kv_heads, int32_t head_dim, int32_t window,
                                 float scale);

void reference__embed(struct device *dev, float *x, const int32_t *ids, int64_t n_tokens,
                      const struct weight *table, const float *new_rows, int64_t new_first, int64_t n_new,
                      float scale);
void reference__embed_back(struct device *dev, float *d_new, const float *dx, const int32_t *ids,
                           int64_t n_tokens, int64_t h, int64_t new_first, int64_t n_new, float scale);
void reference__gather_rows(struct device *dev, float *dst, const float *src, const int32_t *index,
                            int64_t rows, int64_t n);
void reference__scatter_add_rows(struct device *dev, float *dst, const float *src, const int32_t *index,
                                 int64_t rows, int64_t n);
void reference__cross_entropy(struct device *dev, float *logits, int64_t ld, const int32_t *labels,
                              const int32_t *first, float *loss, int64_t n_rows, int64_t v, float grad_scale);
void reference__add(struct device *dev, float *dst, const float *src, int64_t n);
double reference__sum_squares(struct device *dev, const float *x, int64_t n);
void reference__adamw(struct device *dev, float *p, const float *g, float *m, float *v, int64_t n,
                      const struct adamw *a);

#endif
