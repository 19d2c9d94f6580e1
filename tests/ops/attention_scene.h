/* Scenes of attention: random packed sequences, what a table makes of them, and a choice of their queries. */
#ifndef SMGPT_TESTS_ATTENTION_SCENE_H
#define SMGPT_TESTS_ATTENTION_SCENE_H

#include "ops_test.h"

enum { MAX_SEGMENTS = 64 };
struct scene {
    struct attention_shape shape;
    struct segment segments[MAX_SEGMENTS];
    int32_t *positions;
    float *q, *k, *v, *dout;
    int64_t n_q, n_kv; /* floats of q and of k */
};

/* Rows with shared prefixes: trees of segments, each behind its parent; some segments may be empty. */
static inline void scene_open(struct scene *s, int32_t tokens, int32_t kv_heads, int32_t group, int32_t d,
                              int32_t window, bool shared)
{
    memset(s, 0, sizeof *s);
    s->positions = malloc((size_t)tokens * sizeof *s->positions);
    int32_t end = 0, n = 0;
    while (end < tokens) {
        int32_t length =
            n == MAX_SEGMENTS - 1 ? tokens - end : (int32_t)random_int(n > 0 ? 0 : 1, tokens / 3 + 1);
        length = length > tokens - end ? tokens - end : length;
        int32_t parent = shared && n > 0 ? (int32_t)random_int(-1, n - 1) : -1, before = 0;
        for (int32_t p = parent; p >= 0; p = s->segments[p].parent)
            before += s->segments[p].n_tokens;
        s->segments[n++] = (struct segment){.start = end, .n_tokens = length, .parent = parent, .row = 0};
        for (int32_t i = 0; i < length; i++)
            s->positions[end + i] = before + i;
        end += length;
    }
    s->shape = (struct attention_shape){.n_tokens = tokens,
                                        .n_segments = n,
                                        .segments = s->segments,
                                        .positions = s->positions,
                                        .n_q_heads = kv_heads * group,
                                        .n_kv_heads = kv_heads,
                                        .head_dim = d,
                                        .window = window,
                                        .scale = 1 / sqrtf((float)d)};
    s->n_kv = (int64_t)tokens * kv_heads * d;
    s->n_q = s->n_kv * group;
    s->q = random_floats(s->n_q, 1.5);
    s->k = random_floats(s->n_kv, 1.5);
    s->v = random_floats(s->n_kv, 1);
    s->dout = random_floats(s->n_q, 1);
}
static inline void scene_close(struct scene *s)
{
    guarded_free(s->q, s->n_q, "q");
    guarded_free(s->k, s->n_kv, "k");
    guarded_free(s->v, s->n_kv, "v");
    guarded_free(s->dout, s->n_q, "dout");
    free(s->positions);
}

struct result {
    float *out, *lse, *dq, *dk, *dv;
};
static inline void result_make(struct result *r, const char *table, const char *path, enum compute compute,
                               int n_threads, const struct scene *s)
{
    const struct ops *ops = ops_by_name(table);
    struct device *dev = device_of(ops, path, n_threads, compute);
    memset(r, 0, sizeof *r);
    if (dev == NULL)
        return;
    r->out = guarded(s->n_q);
    r->lse = guarded(s->n_q / s->shape.head_dim);
    r->dq = guarded(s->n_q);
    r->dk = guarded(s->n_kv);
    r->dv = guarded(s->n_kv);
    ops->attention(dev, r->out, r->lse, s->q, s->k, s->v, &s->shape);
    ops->attention_back(dev, r->dq, r->dk, r->dv, s->dout, s->q, s->k, s->v, r->out, r->lse, &s->shape);
    ops->sync(dev);
    ops->close(dev);
}
static inline void result_free(struct result *r, const struct scene *s)
{
    if (r->out == NULL)
        return;
    guarded_free(r->out, s->n_q, "out");
    guarded_free(r->lse, s->n_q / s->shape.head_dim, "lse");
    guarded_free(r->dq, s->n_q, "dq");
    guarded_free(r->dk, s->n_kv, "dk");
    guarded_free(r->dv, s->n_kv, "dv");
}
static inline void result_same(const struct result *a, const struct result *b, const struct scene *s)
{
    assert_same_bits("out", a->out, b->out, s->n_q);
    assert_same_bits("lse", a->lse, b->lse, s->n_q / s->shape.head_dim);
    assert_same_bits("dq", a->dq, b->dq, s->n_q);
    assert_same_bits("dk", a->dk, b->dk, s->n_kv);
    assert_same_bits("dv", a->dv, b->dv, s->n_kv);
}

static const struct {
    int32_t kv_heads, group, d;
} heads[] = {{1, 1, 8}, {2, 3, 64}, {1, 8, 20}, {3, 3, 24}, {2, 2, 80}, {1, 2, 128}, {1, 4, 256}, {2, 1, 6}};
enum { N_HEADS = sizeof heads / sizeof heads[0] };

/* The queries of `from` alone, and those of `whole` with the other ones' gradients zeroed. */
static inline void scene_choose(struct scene *some, struct scene *whole, const struct scene *from,
                                int32_t *queries)
{
    int64_t row = (int64_t)from->shape.n_q_heads * from->shape.head_dim, n = 0;
    int64_t spacing = random_int(1, 9); /* 1: all */
    *some = *whole = *from;
    whole->dout = copy_floats(from->dout, from->n_q);
    for (int32_t t = 0; t < from->shape.n_tokens; t++)
        if (random_int(1, spacing) == 1)
            queries[n++] = t;
        else
            memset(whole->dout + t * row, 0, (size_t)row * sizeof(float));
    some->shape.queries = queries;
    some->shape.n_queries = n;
    some->n_q = n * row;
    some->q = guarded(some->n_q);
    some->dout = guarded(some->n_q);
    for (int64_t i = 0; i < n; i++) {
        memcpy(some->q + i * row, from->q + queries[i] * row, (size_t)row * sizeof(float));
        memcpy(some->dout + i * row, from->dout + queries[i] * row, (size_t)row * sizeof(float));
    }
}

static inline void check_chosen(const char *table, const char *path, enum compute compute, int n_threads,
                                const struct scene *some, const struct scene *whole)
{
    struct result a, b;
    int64_t n_heads = some->shape.n_q_heads, row = n_heads * some->shape.head_dim;
    result_make(&a, table, path, compute, n_threads, some);
    result_make(&b, table, path, compute, 1, whole);
    for (int64_t i = 0; a.out != NULL && i < some->shape.n_queries; i++) {
        int64_t t = some->shape.queries[i];
        assert_same_bits("out", a.out + i * row, b.out + t * row, row);
        assert_same_bits("lse", a.lse + i * n_heads, b.lse + t * n_heads, n_heads);
        assert_same_bits("dq", a.dq + i * row, b.dq + t * row, row);
    }
    if (a.out != NULL) {
        assert_same_bits("dk", a.dk, b.dk, some->n_kv);
        assert_same_bits("dv", a.dv, b.dv, some->n_kv);
    }
    result_free(&a, some);
    result_free(&b, whole);
}

#endif
