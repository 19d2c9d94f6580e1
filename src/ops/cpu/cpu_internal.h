/* The cpu table's slots: they cut the work among threads; the loops are in kernels/. */
#ifndef SMGPT_OPS_CPU_INTERNAL_H
#define SMGPT_OPS_CPU_INTERNAL_H

#include "../ops_internal.h"
#include "kernels/kernels.h"

/* Work so small that a second thread would cost more than it saves: elements of a row operation, terms of a
 * product. A parallel region costs some microseconds on idle cores, but a scheduler's time slice when another
 * process holds one of them; so below some tens of microseconds of work everything stays on one thread. */
enum { CPU_GRAIN = 1 << 16, CPU_GRAIN_TERMS = 1 << 22 };

/* The same for attention: what its loops run over, besides the keys of each query. */
static inline bool cpu_attention_large(const struct attention_shape *s)
{
    return ops__n_queries(s) * s->n_q_heads * s->head_dim > CPU_GRAIN;
}

static inline int64_t cpu_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline int64_t cpu_blocks(int64_t n, int64_t block)
{
    return (n + block - 1) / block;
}

/* Where the right operand [k, n] of a product lies. */
enum right_kind {
    RIGHT_ROWS,        /* float32 [k, ld] */
    RIGHT_COLS,        /* float32 [n, ld], to be transposed */
    RIGHT_PANELS,      /* float32, packed: panel j begins at j * k * panel */
    RIGHT_PANELS_BF16, /* the same in bfloat16 */
    RIGHT_TURNED,      /* panels of the transposed operand: panel j, of terms, begins at j * n * panel */
    RIGHT_TURNED_BF16,
};
struct right {
    enum right_kind kind;
    const void *data;
    int64_t ld;
};
/* c = alpha a b + beta c; p describes the whole, except that b is described by right. */
void cpu__product(struct device *dev, const struct product *p, const struct right *right);

enum status cpu__weight_bytes(struct device *dev, size_t *n_bytes, int64_t n_out, int64_t n_in,
                              enum dtype dtype, struct err *err);
enum status cpu__weight_prepare(struct device *dev, struct weight *w, void *memory, bool fill,
                                struct err *err);
void cpu__weight_release(struct device *dev, struct weight *w);
void cpu__linear(struct device *dev, float *y, int64_t ldy, const float *x, int64_t ldx,
                 const struct weight *w, int64_t n_tokens, bool accumulate);
void cpu__linear_back(struct device *dev, float *dx, int64_t lddx, const float *dy, int64_t lddy,
                      const struct weight *w, int64_t n_tokens, bool accumulate);
void cpu__project(struct device *dev, const struct projection *parts, int n, const float *x,
                  int64_t n_tokens);
void cpu__project_back(struct device *dev, const struct projection *parts, int n, float *dx, const float *x,
                       int64_t n_tokens);
size_t cpu__mlp_kept_bytes(const struct device *dev, int64_t width, int64_t n_tokens);
void cpu__mlp(struct device *dev, const struct mlp *mlp, const float *x, int64_t n_tokens);
void cpu__mlp_back(struct device *dev, const struct mlp *mlp, float *dx, const float *x, int64_t n_tokens);
void cpu__gemm(struct device *dev, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
               const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

void cpu__rms_norm(struct device *dev, float *y, float *inv_rms, const float *x, const float *w, int64_t rows,
                   int64_t n, float eps, float unit_offset);
void cpu__rms_norm_back(struct device *dev, float *dx, const float *dy, const float *x, const float *inv_rms,
                        const float *w, int64_t rows, int64_t n, float unit_offset, bool accumulate);
void cpu__rope(struct device *dev, float *x, int64_t n_tokens, int32_t n_heads, int32_t head_dim,
               const int32_t *positions, const float *cos_sin, bool inverse);
void cpu__act_mul(struct device *dev, enum act_kind kind, float *out, const float *gate, const float *up,
                  int64_t n);
void cpu__act_mul_back(struct device *dev, enum act_kind kind, float *dgate, float *dup, const float *dout,
                       const float *gate, const float *up, int64_t n);

void cpu__attention(struct device *dev, float *out, float *lse, const float *q, const float *k,
                    const float *v, const struct attention_shape *shape);
void cpu__attention_back(struct device *dev, float *dq, float *dk, float *dv, const float *dout,
                         const float *q, const float *k, const float *v, const float *out, const float *lse,
                         const struct attention_shape *shape);
void cpu__attention_decode(struct device *dev, float *out, const float *q, const float *k_cache,
                           const float *v_cache, int64_t n, int64_t capacity, const int32_t *lens,
                           int32_t n_q_heads, int32_t n_kv_heads, int32_t head_dim, int32_t window,
                           float scale);

void cpu__embed(struct device *dev, float *x, const int32_t *ids, int64_t n_tokens,
                const struct weight *table, const float *new_rows, int64_t new_first, int64_t n_new,
                float scale);
void cpu__embed_back(struct device *dev, float *d_new, const float *dx, const int32_t *ids, int64_t n_tokens,
                     int64_t h, int64_t new_first, int64_t n_new, float scale);
void cpu__gather_rows(struct device *dev, float *dst, const float *src, const int32_t *index, int64_t rows,
                      int64_t n);
void cpu__scatter_add_rows(struct device *dev, float *dst, const float *src, const int32_t *index,
                           int64_t rows, int64_t n);
void cpu__cross_entropy(struct device *dev, float *logits, int64_t ld, const int32_t *labels,
                        const int32_t *first, float *loss, int64_t n_rows, int64_t v, float grad_scale);
void cpu__add(struct device *dev, float *dst, const float *src, int64_t n);
double cpu__sum_squares(struct device *dev, const float *x, int64_t n);
void cpu__adamw(struct device *dev, float *p, const float *g, float *m, float *v, int64_t n,
                const struct adamw *a);

#endif
