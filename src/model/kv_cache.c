/* Decoding with kept keys and values: [L] blocks of [n_sequences, capacity, K D] on the device. */
#include "model_internal.h"

#include <stdlib.h>
#include <string.h>

struct kv_cache {
    struct model *m;
    int32_t n_sequences, capacity;
    int32_t *lens;      /* [n_sequences] tokens valid */
    int32_t *step_lens; /* [n_sequences] scratch: lengths of the sequences of one decode step */
    float *k, *v;       /* [L, n_sequences, capacity, K D] */
};

static int64_t token_floats(const struct kv_cache *c)
{
    return (int64_t)c->m->a->n_kv_heads * c->m->a->head_dim;
}

static int64_t place(const struct kv_cache *c, int32_t layer, int32_t sequence, int32_t at)
{
    return (((int64_t)layer * c->n_sequences + sequence) * c->capacity + at) * token_floats(c);
}

enum status kv_cache_open(struct kv_cache **out, struct model *m, int32_t n_sequences, int32_t capacity,
                          struct err *err)
{
    struct kv_cache *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return err_memory(err, "a cache", sizeof *c);
    c->m = m;
    c->n_sequences = n_sequences;
    c->capacity = capacity;
    size_t bytes = (size_t)place(c, m->a->n_layers, 0, 0) * sizeof(float);
    c->lens = calloc((size_t)n_sequences, sizeof *c->lens);
    c->step_lens = calloc((size_t)n_sequences, sizeof *c->step_lens);
    c->k = m->ops->alloc(m->dev, bytes);
    c->v = m->ops->alloc(m->dev, bytes);
    *out = c;
    if (!c->lens || !c->step_lens || !c->k || !c->v) {
        kv_cache_close(c);
        *out = NULL;
        return err_memory(err, "keys and values", 2 * bytes);
    }
    return ST_OK;
}

void kv_cache_close(struct kv_cache *c)
{
    if (!c)
        return;
    c->m->ops->release(c->m->dev, c->k);
    c->m->ops->release(c->m->dev, c->v);
    free(c->lens);
    free(c->step_lens);
    free(c);
}

int32_t kv_cache_len(const struct kv_cache *c, int32_t sequence)
{
    return c->lens[sequence];
}

void kv_cache_reset(struct kv_cache *c)
{
    memset(c->lens, 0, (size_t)c->n_sequences * sizeof *c->lens);
}

void kv_cache_copy(struct kv_cache *c, int32_t to, int32_t from)
{
    size_t bytes = (size_t)(c->lens[from] * token_floats(c)) * sizeof(float);
    for (int32_t i = 0; i < c->m->a->n_layers && to != from; i++) {
        c->m->ops->copy(c->m->dev, c->k + place(c, i, to, 0), c->k + place(c, i, from, 0), bytes);
        c->m->ops->copy(c->m->dev, c->v + place(c, i, to, 0), c->v + place(c, i, from, 0), bytes);
    }
    c->lens[to] = c->lens[from];
}

void kv_cache__store(struct kv_cache *c, const struct kv_hook *hook, int32_t layer, const float *k,
                     const float *v, int64_t n_tokens)
{
    const struct ops *ops = c->m->ops;
    int64_t each = token_floats(c);
    if (!hook->which) { /* a prompt: one run of tokens from position 0 */
        int64_t at = place(c, layer, hook->sequence, 0);
        ops->copy(c->m->dev, c->k + at, k, (size_t)(n_tokens * each) * sizeof(float));
        ops->copy(c->m->dev, c->v + at, v, (size_t)(n_tokens * each) * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < n_tokens; i++) {
        int64_t at = place(c, layer, hook->which[i], c->lens[hook->which[i]]);
        ops->copy(c->m->dev, c->k + at, k + i * each, (size_t)each * sizeof(float));
        ops->copy(c->m->dev, c->v + at, v + i * each, (size_t)each * sizeof(float));
    }
}

void kv_cache__attend(struct kv_cache *c, const struct kv_hook *hook, int32_t layer, float *out,
                      const float *q, int64_t n_tokens)
{
    const struct arch *a = c->m->a;
    int64_t width = (int64_t)a->n_q_heads * a->head_dim;
    for (int64_t i = 0; i < n_tokens;) { /* runs of neighbouring sequences go down in one call */
        int64_t n = 1;
        c->step_lens[0] = c->lens[hook->which[i]] + 1;
        while (i + n < n_tokens && hook->which[i + n] == hook->which[i] + n) {
            c->step_lens[n] = c->lens[hook->which[i + n]] + 1;
            n++;
        }
        int64_t at = place(c, layer, hook->which[i], 0);
        c->m->ops->attention_decode(c->m->dev, out + i * width, q + i * width, c->k + at, c->v + at, n,
                                    c->capacity, c->step_lens, a->n_q_heads, a->n_kv_heads, a->head_dim,
                                    a->sliding[layer] ? a->window : 0, a->attn_scale);
        i += n;
    }
}

/* Logits of the n rows of x_out, to the host. */
static void last_logits(struct model *m, int64_t n, float *logits)
{
    int64_t h = m->a->hidden;
    m->ops->rms_norm(m->dev, m->head_norm, m->head_inv, m->x_out, m->w->final_norm, n, h, m->a->rms_eps,
                     m->a->norm_offset);
    for (int64_t at = 0; at < n; at += m->chunk) {
        int64_t k = n - at < m->chunk ? n - at : m->chunk;
        model__head_logits(m, m->head_norm + at * h, k);
        m->ops->download(m->dev, logits + at * m->v_rows, m->logits, (size_t)(k * m->v_rows) * sizeof(float));
    }
}

enum status model_prefill(struct model *m, struct kv_cache *c, int32_t sequence, const int32_t *ids,
                          int32_t n_tokens, float *logits, struct err *err)
{
    if (sequence < 0 || sequence >= c->n_sequences || n_tokens < 1 || n_tokens > c->capacity)
        return err_set(err, ST_INPUT, "a prompt of %d tokens does not fit a cache of %d", n_tokens,
                       c->capacity);
    TRY(model__reserve(m, n_tokens, n_tokens, false, err));
    for (int32_t i = 0; i < n_tokens; i++)
        m->host_ints[i] = i;
    struct segment whole = {.n_tokens = n_tokens, .parent = -1};
    struct packed seq = {.n_tokens = n_tokens,
                         .n_segments = 1,
                         .ids = (int32_t *)ids,
                         .positions = m->host_ints,
                         .segments = &whole};
    struct attention_shape shape = {.n_tokens = n_tokens,
                                    .n_segments = 1,
                                    .segments = &whole,
                                    .positions = m->host_ints,
                                    .n_q_heads = m->a->n_q_heads,
                                    .n_kv_heads = m->a->n_kv_heads,
                                    .head_dim = m->a->head_dim,
                                    .scale = m->a->attn_scale};
    struct kv_hook hook = {.cache = c, .sequence = sequence};
    TRY(model__upload(m, &seq, err));
    m->host_rows[0] = n_tokens - 1;
    model__want(m, &seq, 1);
    model__forward(m, n_tokens, 0, &shape, &hook, 1);
    c->lens[sequence] = n_tokens;
    last_logits(m, 1, logits);
    return ST_OK;
}

enum status model_decode(struct model *m, struct kv_cache *c, const int32_t *which, const int32_t *ids,
                         int32_t n, float *logits, struct err *err)
{
    TRY(model__reserve(m, n, c->capacity, false, err));
    for (int32_t i = 0; i < n; i++) {
        if (which[i] < 0 || which[i] >= c->n_sequences || c->lens[which[i]] >= c->capacity)
            return err_set(err, ST_INPUT, "sequence %d of the cache is full at %d tokens", which[i],
                           c->capacity);
        m->host_ints[i] = c->lens[which[i]];
    }
    struct packed seq = {.n_tokens = n, .ids = (int32_t *)ids, .positions = m->host_ints};
    struct kv_hook hook = {.cache = c, .which = which};
    TRY(model__upload(m, &seq, err));
    model__forward(m, n, 0, NULL, &hook, ALL_TOKENS);
    for (int32_t i = 0; i < n; i++)
        c->lens[which[i]]++;
    last_logits(m, n, logits);
    return ST_OK;
}
