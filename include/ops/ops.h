/* The table of tensor operations. One const table a backend; chosen once by name, no #ifdef in callers.
 *
 * All activations are float32 on the device; frozen weights are kept in the element type that the compute
 * mode asks for and are prepared once (struct weight). Calls are asynchronous where the device is: only
 * download, and the functions that return a number to the host, wait. Pointers are device pointers unless
 * called host. Sizes: T tokens, H hidden, Q query heads, K key/value heads, D head size, I MLP width,
 * V vocabulary rows, R LoRA rank, N labelled tokens.
 *
 * Sums have one order, whatever the number of threads: products are cut into row and column blocks with
 * fixed borders, never over the summed dimension; reductions over tokens run in token order.
 * A slot is filled or NULL; ops_missing lists the empty ones at start-up.
 */
#ifndef SMGPT_OPS_OPS_H
#define SMGPT_OPS_OPS_H

#include "util/dtype.h"
#include "util/err.h"
#include "util/packed.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device; /* a backend's own state: threads, streams, scratch */

enum compute { COMPUTE_F32, COMPUTE_BF16, COMPUTE_F16 }; /* the host tables refuse F16 */

struct device_options {
    int n_threads; /* 0: as OpenMP says */
    /* The CPU's instruction set: "auto" (or NULL), "baseline", "avx2", "avx512", "avx512_bf16", "amx". The
     * bits of a run depend on it; pinning one gives equal bits on unequal processors (float32: avx2 and up
     * agree in products). The last two are for bfloat16. Borrowed during open. */
    const char *cpu_path;
    enum compute compute;
};

/* A frozen matrix W [n_out, n_in], row-major at the source, prepared by weight_prepare. The source bytes
 * and the memory of the packed form stay borrowed as long as the weight lives. */
struct weight {
    int64_t n_out, n_in;
    enum dtype dtype; /* of data */
    const void *data;
    void *prepared; /* what the backend knows of its packed form, or NULL */
    /* Set by weight_prepare: */
    bool source_unused; /* the products do not read data any more */
    /* Reads a row of W [n_in] from the packed form, which holds the values of data exactly; or NULL. */
    void (*packed_row)(const struct weight *w, int64_t row, float *out);
};

/* Whether rows of W can be had: from data, or where that is NULL from the packed form. */
bool weight_has_rows(const struct weight *w);
/* Row of W [n_in] in float32, for a weight that has rows. On the host. */
void weight_row(const struct weight *w, int64_t row, float *out);

enum act_kind { ACT_SILU, ACT_GELU_TANH };

/* One of the projections of an input x [T, n_in], with LoRA beside the frozen matrix (PEFT's):
 *   y = base + x W^T + scaling u B^T,  u = x A^T
 * and on the way back, from dy,
 *   dx = sum over the projections of (dy W + du A),  du = scaling dy B,  dA += du^T x,  dB += scaling dy^T u
 * Without LoRA a is NULL and only the frozen matrix counts. */
struct projection {
    const struct weight *w;
    const float *a, *b; /* [R, n_in], [n_out, R] */
    int64_t r;
    float scaling;
    float *u;          /* [T, R]: written by project, read by project_back */
    const float *base; /* [T, n_out], or NULL: 0; may be y */
    float *y;          /* [T, n_out], written by project */
    const float *dy;   /* [T, n_out], read by project_back */
    float *da, *db;    /* shapes of a and b, added to by project_back */
};
enum { MAX_PROJECTIONS = 3 };

/* A gated MLP, act being the function of its gate:
 *   down.y = base + down(act(gate(x)) * up(x))
 * What gate and up give is kept for the way back, which begins at down.dy; y and dy of gate and up are not
 * used. Where the table keeps it in bfloat16 (path amx) the way back, down's gradients too, goes
 * through act of rounded values. */
struct mlp {
    struct projection gate, up, down;
    enum act_kind act;
    /* [mlp_kept_bytes of kept_room rows], aligned to 64, in a form of the table's own: written by mlp, read
     * by mlp_back. Row i of x is row kept_first + i of it; the others are left alone. */
    void *kept;
    int64_t kept_room, kept_first;
};

/* Which tokens of a packed sequence see which (host arrays, borrowed during the call). */
struct attention_shape {
    int64_t n_tokens; /* T */
    int32_t n_segments;
    const struct segment *segments;
    const int32_t *positions; /* [T] host */
    int32_t n_q_heads, n_kv_heads, head_dim;
    int32_t window; /* tokens seen including self; 0 = all */
    float scale;
    /* NULL: every token asks. Else only queries [n_queries] (tokens, rising) do: q, out, lse, dq and dout
     * have a row for each of them, with the bits that it has when all ask (on the way back: when the
     * gradients of the others are zero). */
    const int32_t *queries;
    int64_t n_queries;
};

/* Doubles, because 1 - beta2 taken from a float 0.999 would be wrong by 1e-5 of itself. */
struct adamw {
    double lr, beta1, beta2, eps, weight_decay;
    double bias1, bias2_sqrt; /* 1 - beta1^t; sqrt(1 - beta2^t) */
    float grad_scale;         /* the clip coefficient, multiplied into the gradient first */
};

struct ops {
    const char *name;
    enum status (*open)(struct device **dev, const struct device_options *options, struct err *err);
    void (*close)(struct device *dev);
    /* One line: the instruction set (or device) and the compute mode. The same for any number of threads.
     * Borrowed until close. */
    const char *(*describe)(const struct device *dev);

    /* Memory. alloc gives zeroed bytes aligned to 64, NULL when there are none. */
    void *(*alloc)(struct device *dev, size_t n_bytes);
    void (*release)(struct device *dev, void *p);
    void (*upload)(struct device *dev, void *dst, const void *host_src, size_t n_bytes);
    void (*download)(struct device *dev, void *host_dst, const void *src, size_t n_bytes);
    void (*zero)(struct device *dev, void *dst, size_t n_bytes);
    void (*copy)(struct device *dev, void *dst, const void *src, size_t n_bytes);

    /* Bytes of the form that the products read beside (or instead of) the source, a multiple of 64; 0 where
     * the source is all they need. The same in all processes that opened the device alike on one kind of
     * processor. A weight that cannot be multiplied is ST_INPUT or ST_DEFECT. */
    enum status (*weight_bytes)(struct device *dev, size_t *n_bytes, int64_t n_out, int64_t n_in,
                                enum dtype dtype, struct err *err);
    /* Makes w ready for the products. memory [weight_bytes], aligned to 64, holds the packed form: written
     * when fill, else as another process has filled it or will have before the first product. w->data is
     * aligned to its elements. On failure w->prepared is NULL. release leaves the memory alone. */
    enum status (*weight_prepare)(struct device *dev, struct weight *w, void *memory, bool fill,
                                  struct err *err);
    void (*weight_release)(struct device *dev, struct weight *w);

    /* Products. ld* are row strides in elements.
     * linear:      y[T, n_out] = x[T, n_in] W^T          (+= when accumulate)
     * linear_back: dx[T, n_in] = dy[T, n_out] W          (+= when accumulate)
     * gemm:        c[m, n] = alpha op(a) op(b) + beta c; op transposes when the flag is set.
     * project, project_back: linear and linear_back of matrices with LoRA; mlp, mlp_back: three of them. */
    void (*linear)(struct device *dev, float *y, int64_t ldy, const float *x, int64_t ldx,
                   const struct weight *w, int64_t n_tokens, bool accumulate);
    void (*linear_back)(struct device *dev, float *dx, int64_t lddx, const float *dy, int64_t lddy,
                        const struct weight *w, int64_t n_tokens, bool accumulate);
    /* The n <= MAX_PROJECTIONS parts share x [T, n_in]; see struct projection. In the bfloat16 mode the
     * operands of W's products are rounded; those of LoRA's also where that is how the table is fast.
     * project_back overwrites dx [T, n_in]; dx NULL: nobody asks for it. */
    void (*project)(struct device *dev, const struct projection *parts, int n, const float *x,
                    int64_t n_tokens);
    void (*project_back)(struct device *dev, const struct projection *parts, int n, float *dx, const float *x,
                         int64_t n_tokens);
    /* Bytes of struct mlp's kept with room for n_tokens of an MLP of that width (I). */
    size_t (*mlp_kept_bytes)(const struct device *dev, int64_t width, int64_t n_tokens);
    void (*mlp)(struct device *dev, const struct mlp *mlp, const float *x, int64_t n_tokens);
    void (*mlp_back)(struct device *dev, const struct mlp *mlp, float *dx, const float *x, int64_t n_tokens);
    void (*gemm)(struct device *dev, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
                 const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

    /* RMS norm over rows of n elements: y = x * rsqrt(mean(x^2) + eps) * (w + unit_offset); unit_offset 1 is
     * Gemma's convention. inv_rms [rows] is kept for the way back; may be NULL. y may be x.
     * back: dx = (accumulate ? dx : 0) + d/dx; dy may be dx when accumulate is false. */
    void (*rms_norm)(struct device *dev, float *y, float *inv_rms, const float *x, const float *w,
                     int64_t rows, int64_t n, float eps, float unit_offset);
    void (*rms_norm_back)(struct device *dev, float *dx, const float *dy, const float *x,
                          const float *inv_rms, const float *w, int64_t rows, int64_t n, float unit_offset,
                          bool accumulate);

    /* Rotary embedding in place on x [T, n_heads, D], pairs (j, j + D/2); cos_sin [positions, 2, D/2] holds
     * D/2 cosines then D/2 sines a position; positions [T] on the device. inverse turns back (= backward). */
    void (*rope)(struct device *dev, float *x, int64_t n_tokens, int32_t n_heads, int32_t head_dim,
                 const int32_t *positions, const float *cos_sin, bool inverse);

    /* Softmax attention over what the segments allow. q, out [T, Q, D]; k, v [T, K, D]; lse [T, Q] is the log
     * of each softmax's denominator; the T of q, out and lse is n_queries where shape->queries is given.
     * Backward writes dq, dk, dv (overwritten). scratch-free for the caller.
     */
    void (*attention)(struct device *dev, float *out, float *lse, const float *q, const float *k,
                      const float *v, const struct attention_shape *shape);
    void (*attention_back)(struct device *dev, float *dq, float *dk, float *dv, const float *dout,
                           const float *q, const float *k, const float *v, const float *out, const float *lse,
                           const struct attention_shape *shape);
    /* One new token for each of n sequences. q, out [n, Q, D]; caches [n, capacity, K, D]; lens [n] host:
     * tokens valid in the cache including the new one, whose position is lens - 1. */
    void (*attention_decode)(struct device *dev, float *out, const float *q, const float *k_cache,
                             const float *v_cache, int64_t n, int64_t capacity, const int32_t *lens,
                             int32_t n_q_heads, int32_t n_kv_heads, int32_t head_dim, int32_t window,
                             float scale);

    /* out = act(gate) * up, and the way back (dgate may be gate, dup may be up). n elements. */
    void (*act_mul)(struct device *dev, enum act_kind kind, float *out, const float *gate, const float *up,
                    int64_t n);
    void (*act_mul_back)(struct device *dev, enum act_kind kind, float *dgate, float *dup, const float *dout,
                         const float *gate, const float *up, int64_t n);

    /* x[t] = scale * row(ids[t]); ids at new_first .. new_first + n_new - 1 take new_rows [n_new, H]
     * (float32), all others rows of table [*, H] (weight_row). ids [T] on the device. back: d_new[id -
     * new_first]
     * += scale * dx[t], in token order. */
    void (*embed)(struct device *dev, float *x, const int32_t *ids, int64_t n_tokens,
                  const struct weight *table, const float *new_rows, int64_t new_first, int64_t n_new,
                  float scale);
    void (*embed_back)(struct device *dev, float *d_new, const float *dx, const int32_t *ids,
                       int64_t n_tokens, int64_t h, int64_t new_first, int64_t n_new, float scale);

    /* dst[i] = src[index[i]] and dst[index[i]] += src[i], rows of n floats; index [rows] on the device, no
     * index twice in scatter_add. */
    void (*gather_rows)(struct device *dev, float *dst, const float *src, const int32_t *index, int64_t rows,
                        int64_t n);
    void (*scatter_add_rows)(struct device *dev, float *dst, const float *src, const int32_t *index,
                             int64_t rows, int64_t n);

    /* Rows of logits [N, ld >= V]. Row i has the labels from labels[first[i]] up to labels[first[i + 1]], one
     * at least, rising: loss[i] = the sum over them of logsumexp - logit[label]; when grad_scale is not 0 the
     * logits are overwritten by grad_scale times the sum over them of softmax - onehot. first [N + 1] and
     * labels on the device. */
    void (*cross_entropy)(struct device *dev, float *logits, int64_t ld, const int32_t *labels,
                          const int32_t *first, float *loss, int64_t n_rows, int64_t v, float grad_scale);

    void (*add)(struct device *dev, float *dst, const float *src, int64_t n); /* dst += src */
    /* Sum of squares of n floats in double, one fixed order. Waits. */
    double (*sum_squares)(struct device *dev, const float *x, int64_t n);
    /* One AdamW update of n parameters, in torch's order: decay, moments, step. */
    void (*adamw)(struct device *dev, float *p, const float *g, float *m, float *v, int64_t n,
                  const struct adamw *a);
    void (*sync)(struct device *dev);
};

/* "cpu" (the best path found at run time), "reference" (plain loops, the yardstick), later "cuda" from the
 * plug-in. NULL for an unknown name. Static storage. */
const struct ops *ops_by_name(const char *name);

/* Names of empty slots, separated by blanks, into text; returns how many. */
int ops_missing(const struct ops *ops, char *text, size_t n_bytes);

#endif
