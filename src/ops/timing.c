/* The counting table: one wrapper a slot, and what they add up. */
#include "ops/timing.h"
#include "ops_internal.h"
#include "util/clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ENTRIES = 128, FREE_FORM = -1 };

/* One operation at one pair of sizes; FREE_FORM where sizes tell nothing. */
struct entry {
    const char *slot;
    int64_t rows, cols;
    struct op_time sum;
};

static const struct ops *inner; /* the real table; NULL: not installed */
static struct entry entries[MAX_ENTRIES];
static int n_entries;

/* With the table full all further sizes share the last entry. */
static struct entry *entry_of(const char *slot, int64_t rows, int64_t cols)
{
    for (int i = 0; i < n_entries; i++)
        if (entries[i].slot == slot && entries[i].rows == rows && entries[i].cols == cols)
            return &entries[i];
    if (n_entries == MAX_ENTRIES)
        return &entries[MAX_ENTRIES - 1];
    struct entry *e = &entries[n_entries++];
    *e = (struct entry){.slot = slot, .rows = rows, .cols = cols};
    if (n_entries == MAX_ENTRIES)
        snprintf(e->sum.name, sizeof e->sum.name, "others");
    else if (rows == FREE_FORM)
        snprintf(e->sum.name, sizeof e->sum.name, "%s", slot);
    else
        snprintf(e->sum.name, sizeof e->sum.name, "%s %lldx%lld", slot, (long long)rows, (long long)cols);
    return e;
}

static void add(const char *slot, int64_t rows, int64_t cols, double start_s, double flops)
{
    struct entry *e = entry_of(slot, rows, cols);
    e->sum.calls++;
    e->sum.seconds += clock_s() - start_s;
    e->sum.flops += flops;
}

/* Pairs of a query and a key that it sees. */
static double pairs_of(const struct attention_shape *shape)
{
    double n = 0;
    for (int64_t i = 0; i < ops__n_queries(shape); i++) {
        int64_t seen = (int64_t)shape->positions[ops__query_token(shape, i)] + 1;
        n += (double)(shape->window > 0 && seen > shape->window ? shape->window : seen);
    }
    return n;
}

static double pair_flops(const struct attention_shape *shape)
{
    return pairs_of(shape) * shape->n_q_heads * shape->head_dim;
}

/* The wrapper of a slot whose time alone is of interest. */
#define TIMED(slot, params, args)                                                                            \
    static void timed_##slot params                                                                          \
    {                                                                                                        \
        double start_s = clock_s();                                                                          \
        inner->slot args;                                                                                    \
        add(#slot, FREE_FORM, FREE_FORM, start_s, 0);                                                        \
    }

static enum status timed_open(struct device **dev, const struct device_options *options, struct err *err)
{
    return inner->open(dev, options, err);
}

static void timed_close(struct device *dev)
{
    inner->close(dev);
}

static const char *timed_describe(const struct device *dev)
{
    return inner->describe(dev);
}

static void *timed_alloc(struct device *dev, size_t n_bytes)
{
    double start_s = clock_s();
    void *p = inner->alloc(dev, n_bytes);
    add("alloc", FREE_FORM, FREE_FORM, start_s, 0);
    return p;
}

TIMED(release, (struct device * dev, void *p), (dev, p))
TIMED(upload, (struct device * dev, void *dst, const void *src, size_t n), (dev, dst, src, n))
TIMED(download, (struct device * dev, void *dst, const void *src, size_t n), (dev, dst, src, n))
TIMED(zero, (struct device * dev, void *dst, size_t n), (dev, dst, n))
TIMED(copy, (struct device * dev, void *dst, const void *src, size_t n), (dev, dst, src, n))

static enum status timed_weight_bytes(struct device *dev, size_t *n_bytes, int64_t n_out, int64_t n_in,
                                      enum dtype dtype, struct err *err)
{
    return inner->weight_bytes(dev, n_bytes, n_out, n_in, dtype, err);
}

static enum status timed_weight_prepare(struct device *dev, struct weight *w, void *memory, bool fill,
                                        struct err *err)
{
    double start_s = clock_s();
    enum status st = inner->weight_prepare(dev, w, memory, fill, err);
    add("weight_prepare", FREE_FORM, FREE_FORM, start_s, 0);
    return st;
}

static void timed_weight_release(struct device *dev, struct weight *w)
{
    inner->weight_release(dev, w);
}

static void timed_linear(struct device *dev, float *y, int64_t ldy, const float *x, int64_t ldx,
                         const struct weight *w, int64_t n_tokens, bool accumulate)
{
    double start_s = clock_s();
    inner->linear(dev, y, ldy, x, ldx, w, n_tokens, accumulate);
    add("linear", w->n_out, w->n_in, start_s, 2.0 * (double)(w->n_out * w->n_in) * (double)n_tokens);
}

static void timed_linear_back(struct device *dev, float *dx, int64_t lddx, const float *dy, int64_t lddy,
                              const struct weight *w, int64_t n_tokens, bool accumulate)
{
    double start_s = clock_s();
    inner->linear_back(dev, dx, lddx, dy, lddy, w, n_tokens, accumulate);
    add("linear_back", w->n_out, w->n_in, start_s, 2.0 * (double)(w->n_out * w->n_in) * (double)n_tokens);
}

/* Multiplications and additions of one way through the parts with LoRA; outputs together by name. */
static double projection_flops(const struct projection *parts, int n, int64_t n_tokens, double lora,
                               int64_t *n_out)
{
    double terms = 0;
    *n_out = 0;
    for (int i = 0; i < n; i++) {
        const struct weight *w = parts[i].w;
        *n_out += w->n_out;
        terms += (double)w->n_out * (double)w->n_in;
        if (parts[i].a != NULL)
            terms += lora * (double)parts[i].r * (double)(w->n_out + w->n_in);
    }
    return 2 * terms * (double)n_tokens;
}

static void timed_project(struct device *dev, const struct projection *parts, int n, const float *x,
                          int64_t n_tokens)
{
    int64_t n_out;
    double start_s = clock_s(), flops = projection_flops(parts, n, n_tokens, 1, &n_out);
    inner->project(dev, parts, n, x, n_tokens);
    add("project", n_out, parts[0].w->n_in, start_s, flops);
}

static void timed_project_back(struct device *dev, const struct projection *parts, int n, float *dx,
                               const float *x, int64_t n_tokens)
{
    int64_t n_out;
    double start_s = clock_s(), flops = projection_flops(parts, n, n_tokens, 2, &n_out);
    inner->project_back(dev, parts, n, dx, x, n_tokens);
    add("project_back", n_out, parts[0].w->n_in, start_s, flops);
}

static double mlp_flops(const struct mlp *m, int64_t n_tokens, double lora)
{
    int64_t n_out;
    const struct projection both[] = {m->gate, m->up};
    return projection_flops(both, 2, n_tokens, lora, &n_out) +
           projection_flops(&m->down, 1, n_tokens, lora, &n_out);
}

static size_t timed_mlp_kept_bytes(const struct device *dev, int64_t width, int64_t n_tokens)
{
    return inner->mlp_kept_bytes(dev, width, n_tokens);
}

static void timed_mlp(struct device *dev, const struct mlp *m, const float *x, int64_t n_tokens)
{
    double start_s = clock_s();
    inner->mlp(dev, m, x, n_tokens);
    add("mlp", m->gate.w->n_out, m->gate.w->n_in, start_s, mlp_flops(m, n_tokens, 1));
}

static void timed_mlp_back(struct device *dev, const struct mlp *m, float *dx, const float *x,
                           int64_t n_tokens)
{
    double start_s = clock_s();
    inner->mlp_back(dev, m, dx, x, n_tokens);
    add("mlp_back", m->gate.w->n_out, m->gate.w->n_in, start_s, mlp_flops(m, n_tokens, 2));
}

/* Of m, n, k the one that grows with the tokens is left out of the name: m, or k with a transposed left side,
 * as in the gradients of LoRA. */
static void timed_gemm(struct device *dev, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k,
                       float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                       float *c, int64_t ldc)
{
    double start_s = clock_s();
    inner->gemm(dev, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    double flops = 2.0 * (double)(m * n) * (double)k;
    if (trans_a)
        add("gemm TN", m, n, start_s, flops);
    else
        add(trans_b ? "gemm NT" : "gemm NN", n, k, start_s, flops);
}

TIMED(rms_norm,
      (struct device * dev, float *y, float *inv, const float *x, const float *w, int64_t rows, int64_t n,
       float eps, float unit_offset),
      (dev, y, inv, x, w, rows, n, eps, unit_offset))
TIMED(rms_norm_back,
      (struct device * dev, float *dx, const float *dy, const float *x, const float *inv, const float *w,
       int64_t rows, int64_t n, float unit_offset, bool accumulate),
      (dev, dx, dy, x, inv, w, rows, n, unit_offset, accumulate))
TIMED(rope,
      (struct device * dev, float *x, int64_t n_tokens, int32_t n_heads, int32_t head_dim,
       const int32_t *positions, const float *cos_sin, bool inverse),
      (dev, x, n_tokens, n_heads, head_dim, positions, cos_sin, inverse))

/* Two products of queries and keys forward, five backward: the scores are made again. */
static void timed_attention(struct device *dev, float *out, float *lse, const float *q, const float *k,
                            const float *v, const struct attention_shape *shape)
{
    double start_s = clock_s();
    inner->attention(dev, out, lse, q, k, v, shape);
    add("attention", FREE_FORM, FREE_FORM, start_s, 4 * pair_flops(shape));
}

static void timed_attention_back(struct device *dev, float *dq, float *dk, float *dv, const float *dout,
                                 const float *q, const float *k, const float *v, const float *out,
                                 const float *lse, const struct attention_shape *shape)
{
    double start_s = clock_s();
    inner->attention_back(dev, dq, dk, dv, dout, q, k, v, out, lse, shape);
    add("attention_back", FREE_FORM, FREE_FORM, start_s, 10 * pair_flops(shape));
}

TIMED(attention_decode,
      (struct device * dev, float *out, const float *q, const float *k, const float *v, int64_t n,
       int64_t capacity, const int32_t *lens, int32_t n_q_heads, int32_t n_kv_heads, int32_t head_dim,
       int32_t window, float scale),
      (dev, out, q, k, v, n, capacity, lens, n_q_heads, n_kv_heads, head_dim, window, scale))
TIMED(act_mul,
      (struct device * dev, enum act_kind kind, float *out, const float *gate, const float *up, int64_t n),
      (dev, kind, out, gate, up, n))
TIMED(act_mul_back,
      (struct device * dev, enum act_kind kind, float *dgate, float *dup, const float *dout,
       const float *gate, const float *up, int64_t n),
      (dev, kind, dgate, dup, dout, gate, up, n))
TIMED(embed,
      (struct device * dev, float *x, const int32_t *ids, int64_t n_tokens, const struct weight *table,
       const float *new_rows, int64_t new_first, int64_t n_new, float scale),
      (dev, x, ids, n_tokens, table, new_rows, new_first, n_new, scale))
TIMED(embed_back,
      (struct device * dev, float *d_new, const float *dx, const int32_t *ids, int64_t n_tokens, int64_t h,
       int64_t new_first, int64_t n_new, float scale),
      (dev, d_new, dx, ids, n_tokens, h, new_first, n_new, scale))
TIMED(gather_rows,
      (struct device * dev, float *dst, const float *src, const int32_t *index, int64_t rows, int64_t n),
      (dev, dst, src, index, rows, n))
TIMED(scatter_add_rows,
      (struct device * dev, float *dst, const float *src, const int32_t *index, int64_t rows, int64_t n),
      (dev, dst, src, index, rows, n))
TIMED(cross_entropy,
      (struct device * dev, float *logits, int64_t ld, const int32_t *labels, const int32_t *first,
       float *loss, int64_t n_rows, int64_t v, float grad_scale),
      (dev, logits, ld, labels, first, loss, n_rows, v, grad_scale))
TIMED(add, (struct device * dev, float *dst, const float *src, int64_t n), (dev, dst, src, n))

static double timed_sum_squares(struct device *dev, const float *x, int64_t n)
{
    double start_s = clock_s(), sum = inner->sum_squares(dev, x, n);
    add("sum_squares", FREE_FORM, FREE_FORM, start_s, 0);
    return sum;
}

TIMED(adamw,
      (struct device * dev, float *p, const float *g, float *m, float *v, int64_t n, const struct adamw *a),
      (dev, p, g, m, v, n, a))
TIMED(sync, (struct device * dev), (dev))

static const struct ops wrappers = {
    .open = timed_open,
    .close = timed_close,
    .describe = timed_describe,
    .alloc = timed_alloc,
    .release = timed_release,
    .upload = timed_upload,
    .download = timed_download,
    .zero = timed_zero,
    .copy = timed_copy,
    .weight_bytes = timed_weight_bytes,
    .weight_prepare = timed_weight_prepare,
    .weight_release = timed_weight_release,
    .linear = timed_linear,
    .linear_back = timed_linear_back,
    .project = timed_project,
    .project_back = timed_project_back,
    .mlp_kept_bytes = timed_mlp_kept_bytes,
    .mlp = timed_mlp,
    .mlp_back = timed_mlp_back,
    .gemm = timed_gemm,
    .rms_norm = timed_rms_norm,
    .rms_norm_back = timed_rms_norm_back,
    .rope = timed_rope,
    .attention = timed_attention,
    .attention_back = timed_attention_back,
    .attention_decode = timed_attention_decode,
    .act_mul = timed_act_mul,
    .act_mul_back = timed_act_mul_back,
    .embed = timed_embed,
    .embed_back = timed_embed_back,
    .gather_rows = timed_gather_rows,
    .scatter_add_rows = timed_scatter_add_rows,
    .cross_entropy = timed_cross_entropy,
    .add = timed_add,
    .sum_squares = timed_sum_squares,
    .adamw = timed_adamw,
    .sync = timed_sync,
};
static struct ops timed; /* the wrappers under the real table's name: callers ask what it is */

void ops_timing_install(const char *name)
{
    const struct ops *real = ops_by_name(name);
    if (real == NULL || inner != NULL)
        return;
    timed = wrappers;
    timed.name = real->name;
    inner = real;
}

const struct ops *ops__timed(const char *name)
{
    return inner != NULL && strcmp(name, inner->name) == 0 ? &timed : NULL;
}

void ops_timing_reset(void)
{
    n_entries = 0;
}

static int longer_first(const void *a, const void *b)
{
    double x = ((const struct op_time *)a)->seconds, y = ((const struct op_time *)b)->seconds;
    return (x < y) - (x > y);
}

int ops_timing_read(struct op_time *out, int max)
{
    struct op_time all[MAX_ENTRIES];
    for (int i = 0; i < n_entries; i++)
        all[i] = entries[i].sum;
    qsort(all, (size_t)n_entries, sizeof *all, longer_first);
    int n = n_entries < max ? n_entries : max;
    memcpy(out, all, (size_t)n * sizeof *all);
    return n;
}
