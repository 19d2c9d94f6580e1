/* Memory of the walks: sizes are summed first, one block is taken, then pointers are laid in. Training keeps
 * every layer's activations, or as many layers' as the budget allows; inference lets all layers use the first
 * one's. */
#include "model/cost.h"
#include "model_internal.h"
#include "util/log.h"

#include <stdlib.h>
#include <string.h>

/* With base NULL only counts. */
struct layer_cursor {
    char *base;
    size_t at;
};

static void *lay(struct layer_cursor *c, int64_t count, size_t each)
{
    size_t n = ((size_t)count * each + 63) & ~(size_t)63;
    void *p = c->base ? c->base + c->at : NULL;
    c->at += n;
    return p;
}

static float *floats(struct layer_cursor *c, int64_t count)
{
    return lay(c, count, sizeof(float));
}

static void lay_layer(struct layer_cursor *c, const struct model *m, struct layer_acts *s, int32_t layer,
                      int64_t t)
{
    const struct arch *a = m->a;
    int64_t h = a->hidden, qd = (int64_t)a->n_q_heads * a->head_dim,
            kd = (int64_t)a->n_kv_heads * a->head_dim;
    s->x_in = floats(c, t * h);
    s->inv1 = floats(c, t);
    s->q_raw = a->qk_norm ? floats(c, t * qd) : NULL;
    s->k_raw = a->qk_norm ? floats(c, t * kd) : NULL;
    s->inv_q = a->qk_norm ? floats(c, t * a->n_q_heads) : NULL;
    s->inv_k = a->qk_norm ? floats(c, t * a->n_kv_heads) : NULL;
    s->q = a->qk_norm ? NULL : floats(c, t * qd); /* share_heads */
    s->k = a->qk_norm ? NULL : floats(c, t * kd);
    s->v = floats(c, t * kd);
    s->attn = floats(c, t * qd);
    s->lse = floats(c, t * a->n_q_heads);
    s->x_mid = floats(c, t * h);
    s->inv2 = floats(c, t);
    s->gated = lay(c, 1, m->ops->mlp_kept_bytes(m->dev, a->mlp, t));
    s->gated_first = 0;
    if (a->sandwich) { /* needed again by the norms behind the branches */
        s->o = floats(c, t * h);
        s->inv_o = floats(c, t);
        s->down = floats(c, t * h);
        s->inv_down = floats(c, t);
    }
    for (int p = 0; p < N_PROJ; p++)
        s->u[p] = m->p->index_lora && m->p->index_lora[layer][p] >= 0 ? floats(c, t * m->p->lora.r) : NULL;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void lay_shared(struct layer_cursor *c, struct model *m, int64_t t, bool training)
{
    const struct arch *a = m->a;
    int64_t h = a->hidden, qd = (int64_t)a->n_q_heads * a->head_dim,
            kd = (int64_t)a->n_kv_heads * a->head_dim;
    m->x_out = floats(c, t * h);
    m->norm = floats(c, t * h);
    m->tmp = floats(c, t * h);
    m->rows_x = floats(c, t * h);
    m->rows_norm = floats(c, t * h);
    m->head_norm = floats(c, t * h);
    m->head_inv = floats(c, t);
    m->loss = floats(c, t);
    m->logits = floats(c, (t < m->chunk ? t : m->chunk) * m->v_rows);
    m->ids = lay(c, t, sizeof(int32_t));
    m->positions = lay(c, t, sizeof(int32_t));
    m->index = lay(c, t, sizeof(int32_t));
    m->row_positions = lay(c, t, sizeof(int32_t));
    m->first_label = lay(c, t + 1, sizeof(int32_t));
    m->few_labels = lay(c, t, sizeof(int32_t));
    if (!training)
        return;
    m->head_dx = floats(c, t * h);
    m->dx = floats(c, t * h);
    m->dh = floats(c, t * h);
    m->dq = floats(c, t * qd);
    m->dk = floats(c, t * kd);
    m->dv = floats(c, t * kd);
    m->dattn = floats(c, t * qd);
}

/* Queries and keys behind the heads' norms, one room for all layers. */
static void share_heads(struct layer_cursor *c, struct model *m, int64_t t)
{
    const struct arch *a = m->a;
    if (!a->qk_norm)
        return;
    float *q = floats(c, t * a->n_q_heads * a->head_dim), *k = floats(c, t * a->n_kv_heads * a->head_dim);
    for (int32_t i = 0; i < a->n_layers; i++) {
        m->layers[i].q = q;
        m->layers[i].k = k;
    }
}

static void lay_all(struct layer_cursor *c, struct model *m, int64_t t, bool training, int32_t n_again)
{
    if (training) {
        for (int32_t i = n_again; i < m->a->n_layers; i++)
            lay_layer(c, m, &m->layers[i], i, t);
        for (int32_t i = 0; i < n_again; i++) {
            m->layers[i] = m->layers[n_again];
            m->layers[i].x_in = floats(c, t * m->a->hidden);
        }
    } else {
        /* All layers use one set: every projection has a slot in u if any layer adapts it (targets are the
         * same in all layers), and the residual stream is updated in place. */
        lay_layer(c, m, &m->layers[0], 0, t);
        for (int32_t i = 1; i < m->a->n_layers; i++)
            m->layers[i] = m->layers[0];
    }
    share_heads(c, m, t);
    lay_shared(c, m, t, training);
    if (!training && c->base) {
        m->x_out = m->layers[0].x_in;
        for (int32_t i = 0; i < m->a->n_layers; i++)
            m->layers[i].x_mid = m->layers[0].x_in;
    }
}

/* Positions of a rotary table that serves n_positions. */
static int64_t rope_positions(int64_t n_positions)
{
    int64_t n = 256;
    while (n < n_positions)
        n *= 2;
    return n;
}

static bool two_ropes(const struct arch *a)
{
    return memcmp(&a->rope_global, &a->rope_local, sizeof a->rope_global) != 0;
}

static enum status reserve_rope(struct model *m, int64_t n_positions, struct err *err)
{
    const struct arch *a = m->a;
    if (n_positions <= m->n_rope)
        return ST_OK;
    int64_t n = rope_positions(n_positions);
    bool two = two_ropes(a);
    size_t bytes = (size_t)(n * a->head_dim) * sizeof(float);
    float *host = malloc(bytes);
    if (m->rope_local != m->rope_global)
        m->ops->release(m->dev, m->rope_local);
    m->ops->release(m->dev, m->rope_global);
    m->rope_global = m->ops->alloc(m->dev, bytes);
    m->rope_local = two ? m->ops->alloc(m->dev, bytes) : m->rope_global;
    m->n_rope = 0;
    if (!host || !m->rope_global || !m->rope_local) {
        free(host);
        return err_memory(err, "the rotary tables", bytes);
    }
    rope_table(&a->rope_global, a->head_dim, n, host);
    m->ops->upload(m->dev, m->rope_global, host, bytes);
    m->ops->sync(m->dev);
    if (two) {
        rope_table(&a->rope_local, a->head_dim, n, host);
        m->ops->upload(m->dev, m->rope_local, host, bytes);
        m->ops->sync(m->dev);
    }
    free(host);
    m->n_rope = n;
    return ST_OK;
}

/* Growing comes in leaps, so that a run of ever longer sequences does not end in an allocation each. */
int64_t model_capacity(const struct model *m, int64_t before, int64_t n_tokens)
{
    if (before == 0)
        return max64(n_tokens, m->expected);
    return n_tokens <= before ? before : max64(n_tokens, before + before / 16);
}

static size_t mib(size_t n_bytes)
{
    return (n_bytes + (1 << 20) - 1) >> 20;
}

/* Room for how many tokens, and how many layers are computed again: with *t tokens, or where that is more
 * than the budget has with the n_tokens that are needed. */
static enum status within_budget(struct model *m, int64_t *t, int64_t n_tokens, int64_t n_positions,
                                 int32_t *n_again, struct err *err)
{
    *n_again = model_layers_again(m, *t, n_positions);
    if (*n_again < 0) {
        *t = n_tokens;
        *n_again = model_layers_again(m, *t, n_positions);
    }
    const int32_t most = m->a->n_layers - 1;
    if (*n_again < 0) {
        err_set(err, ST_ENV,
                "a sequence of %lld tokens takes %zu MiB even when every layer is computed again, "
                "memory_limit leaves %zu MiB for it",
                (long long)n_tokens, mib(model_workspace_bytes(m, n_tokens, n_positions, true, most)),
                m->budget >> 20);
        return err_hint(err, "raise memory_limit, or take fewer ranks a host or a smaller max_seq_len");
    }
    if (*n_again > m->n_again)
        log_info(
            "memory  %d of %d layers are computed again on the way back: room for %lld tokens takes %zu MiB "
            "then, %zu MiB if all are kept",
            *n_again, m->a->n_layers, (long long)*t,
            mib(model_workspace_bytes(m, *t, n_positions, true, *n_again)),
            mib(model_workspace_bytes(m, *t, n_positions, true, 0)));
    return ST_OK;
}

void model__release_block(struct model *m)
{
    m->ops->release(m->dev, m->block);
    free(m->host_ints);
    free(m->host_rows);
    free(m->host_row_positions);
    free(m->host_all);
    free(m->host_loss);
    free(m->kept.ids);
    free(m->kept.positions);
    free(m->kept.segments);
    m->block = NULL;
    m->host_ints = m->host_rows = m->host_row_positions = m->host_all = NULL;
    m->host_loss = NULL;
    m->kept = (struct packed){0};
    m->capacity = 0;
    m->training = false;
}

void model_set_budget(struct model *m, size_t n_bytes)
{
    m->budget = n_bytes;
    model__release_block(m); /* the next sequence makes room anew */
    m->n_again = 0;
}

static bool alloc_host(struct model *m, size_t t)
{
    m->host_ints = malloc((t + 1) * sizeof *m->host_ints);
    m->host_rows = malloc(t * sizeof *m->host_rows);
    m->host_row_positions = malloc(t * sizeof *m->host_row_positions);
    m->host_all = malloc(t * sizeof *m->host_all);
    m->host_loss = malloc(t * sizeof *m->host_loss);
    m->kept.ids = malloc(t * sizeof *m->kept.ids);
    m->kept.positions = malloc(t * sizeof *m->kept.positions);
    m->kept.segments = malloc(t * sizeof *m->kept.segments);
    for (size_t i = 0; i < t && m->host_all; i++)
        m->host_all[i] = (int32_t)i;
    return m->host_ints && m->host_rows && m->host_row_positions && m->host_all && m->host_loss &&
           m->kept.ids && m->kept.positions && m->kept.segments;
}

enum status model__reserve(struct model *m, int64_t n_tokens, int64_t n_positions, bool training,
                           struct err *err)
{
    TRY(reserve_rope(m, n_positions, err));
    if (n_tokens <= m->capacity && (m->training || !training))
        return ST_OK;
    int64_t t = model_capacity(m, m->capacity, n_tokens);
    int32_t n_again = 0;
    training = training || m->training;
    if (training)
        TRY(within_budget(m, &t, n_tokens, n_positions, &n_again, err));
    struct layer_cursor count = {0};
    lay_all(&count, m, t, training, n_again);
    model__release_block(m);
    m->block = m->ops->alloc(m->dev, count.at);
    if (!m->block || !alloc_host(m, (size_t)t))
        return err_memory(err, "activations", count.at);
    struct layer_cursor place = {.base = m->block};
    lay_all(&place, m, t, training, n_again);
    m->capacity = t;
    m->n_again = n_again;
    m->training = training;
    return ST_OK;
}

enum status model__reserve_labels(struct model *m, int64_t n_labels, struct err *err)
{
    m->labels = m->few_labels;
    if (n_labels <= m->capacity)
        return ST_OK;
    if (n_labels > m->many_room) {
        m->ops->release(m->dev, m->many_labels);
        m->many_labels = m->ops->alloc(m->dev, (size_t)n_labels * sizeof *m->labels);
        m->many_room = m->many_labels ? n_labels : 0;
    }
    m->labels = m->many_labels;
    return m->labels ? ST_OK : err_memory(err, "labels", (size_t)n_labels * sizeof *m->labels);
}

size_t model_workspace_bytes(const struct model *m, int64_t n_tokens, int64_t n_positions, bool training,
                             int32_t n_again)
{
    /* Laying out with no base only counts, but it does set pointers: those of a copy. */
    struct model probe = *m;
    struct layer_cursor count = {0};
    probe.layers = calloc((size_t)m->a->n_layers, sizeof *probe.layers);
    if (!probe.layers)
        return 0;
    lay_all(&count, &probe, n_tokens, training, n_again);
    free(probe.layers);
    size_t rope = (size_t)(rope_positions(n_positions) * m->a->head_dim) * sizeof(float);
    return count.at + rope * (two_ropes(m->a) ? 2 : 1);
}

int32_t model_layers_again(const struct model *m, int64_t n_tokens, int64_t n_positions)
{
    for (int32_t n = 0; n < m->a->n_layers; n++)
        if (m->budget == 0 || model_workspace_bytes(m, n_tokens, n_positions, true, n) <= m->budget)
            return n;
    return -1;
}
