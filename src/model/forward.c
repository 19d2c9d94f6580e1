/* The walk up the layers. Shapes stand on each line; what the way back needs stays in layer_acts. */
#include "model_internal.h"

struct projection model__projection(const struct model *m, int32_t layer, enum proj p)
{
    int32_t item = m->p->index_lora ? m->p->index_lora[layer][p] : -1;
    struct projection out = {.w = &m->w->layers[layer].proj[p]};
    if (item < 0)
        return out;
    out.a = model__value(m, item);
    out.b = model__value(m, item + 1);
    out.r = m->p->lora.r;
    out.scaling = m->p->scaling;
    out.u = m->layers[layer].u[p];
    return out;
}

struct mlp model__mlp(const struct model *m, int32_t layer)
{
    struct mlp mlp = {.gate = model__projection(m, layer, PROJ_GATE),
                      .up = model__projection(m, layer, PROJ_UP),
                      .down = model__projection(m, layer, PROJ_DOWN),
                      .act = m->a->act};
    mlp.gate.y = m->layers[layer].gate;
    mlp.up.y = m->layers[layer].up;
    return mlp;
}

/* Where the last projection of a branch puts its result: to y, on top of the residual stream; with Gemma's
 * norm behind it, to `branch` alone. */
static void branch_into(struct projection *last, float *y, const float *residual, float *branch,
                        const float *post_norm)
{
    last->y = post_norm ? branch : y;
    last->base = post_norm ? NULL : residual;
}

/* y = residual + Gemma's norm of the branch; nothing is left to do without that norm. */
static void branch_norm(struct model *m, float *y, const float *residual, const float *branch, float *inv,
                        const float *post_norm, int64_t n)
{
    const struct arch *a = m->a;
    if (!post_norm)
        return;
    m->ops->rms_norm(m->dev, m->tmp, inv, branch, post_norm, n, a->hidden, a->rms_eps, a->norm_offset);
    if (y != residual)
        m->ops->copy(m->dev, y, residual, (size_t)(n * a->hidden) * sizeof(float));
    m->ops->add(m->dev, y, m->tmp, n * a->hidden);
}

/* y of n projections that follow each other in enum proj and share x. */
static void project(struct model *m, int32_t layer, enum proj first, int n, float *const *y, const float *x,
                    int64_t n_tokens)
{
    struct projection parts[MAX_PROJECTIONS];
    for (int i = 0; i < n; i++) {
        parts[i] = model__projection(m, layer, (enum proj)(first + i));
        parts[i].y = y[i];
    }
    m->ops->project(m->dev, parts, n, x, n_tokens);
}

/* What a layer works on behind its keys and values: all tokens, or rows of the wanted ones. */
struct rows {
    int64_t n;
    const float *x, *norm;    /* [n, H] x_in and its norm */
    const int32_t *positions; /* device [n] */
};

static struct rows rows_of(struct model *m, const struct layer_acts *s, int64_t t, int64_t n_wanted)
{
    struct rows r = {.n = t, .x = s->x_in, .norm = m->norm, .positions = m->positions};
    if (n_wanted == ALL_TOKENS)
        return r;
    m->ops->gather_rows(m->dev, m->rows_x, s->x_in, m->index, n_wanted, m->a->hidden);
    m->ops->gather_rows(m->dev, m->rows_norm, m->norm, m->index, n_wanted, m->a->hidden);
    return (struct rows){n_wanted, m->rows_x, m->rows_norm, m->row_positions};
}

static void head_norms(struct model *m, int32_t layer, struct layer_acts *s, int64_t t, int64_t n)
{
    const struct arch *a = m->a;
    const struct layer_weights *w = &m->w->layers[layer];
    m->ops->rms_norm(m->dev, s->q, s->inv_q, s->q_raw, w->q_norm, n * a->n_q_heads, a->head_dim, a->rms_eps,
                     a->norm_offset);
    m->ops->rms_norm(m->dev, s->k, s->inv_k, s->k_raw, w->k_norm, t * a->n_kv_heads, a->head_dim, a->rms_eps,
                     a->norm_offset);
}

/* m->norm -> attn: projections, head norms, rotation, attention. */
static void attention_block(struct model *m, int32_t layer, struct layer_acts *s, int64_t t,
                            const struct rows *rows, const struct attention_shape *shape,
                            const struct kv_hook *hook)
{
    const struct arch *a = m->a;
    const float *table = a->sliding[layer] ? m->rope_local : m->rope_global;
    float *const y[] = {a->qk_norm ? s->q_raw : s->q, a->qk_norm ? s->k_raw : s->k, s->v};
    if (rows->norm == m->norm) { /* [T, Q D], [T, K D], [T, K D] */
        project(m, layer, PROJ_Q, 3, y, m->norm, t);
    } else {
        project(m, layer, PROJ_Q, 1, y, rows->norm, rows->n); /* [n, Q D] */
        project(m, layer, PROJ_K, 2, y + 1, m->norm, t);
    }
    if (a->qk_norm)
        head_norms(m, layer, s, t, rows->n);
    m->ops->rope(m->dev, s->q, rows->n, a->n_q_heads, a->head_dim, rows->positions, table, false);
    m->ops->rope(m->dev, s->k, t, a->n_kv_heads, a->head_dim, m->positions, table, false);
    if (hook)
        kv_cache__store(hook->cache, hook, layer, s->k, s->v, t);
    if (hook && hook->which) {
        kv_cache__attend(hook->cache, hook, layer, s->attn, s->q, t);
    } else {
        struct attention_shape own = *shape;
        own.window = a->sliding[layer] ? a->window : 0;
        own.queries = rows->x == s->x_in ? NULL : m->host_rows;
        own.n_queries = rows->n;
        m->ops->attention(m->dev, s->attn, s->lse, s->q, s->k, s->v, &own);
    }
}

void model__attn_norm(struct model *m, int32_t layer, const float *x, float *inv, int64_t n)
{
    m->ops->rms_norm(m->dev, m->norm, inv, x, m->w->layers[layer].attn_norm, n, m->a->hidden, m->a->rms_eps,
                     m->a->norm_offset);
}

void model__mlp_norm(struct model *m, int32_t layer, const float *x, float *inv, int64_t n)
{
    m->ops->rms_norm(m->dev, m->norm, inv, x, m->w->layers[layer].mlp_norm, n, m->a->hidden, m->a->rms_eps,
                     m->a->norm_offset);
}

static void layer_forward(struct model *m, int32_t layer, float *x_out, int64_t t, int64_t n_wanted,
                          const struct attention_shape *shape, const struct kv_hook *hook)
{
    const struct layer_weights *w = &m->w->layers[layer];
    struct layer_acts *s = &m->layers[layer];

    model__attn_norm(m, layer, s->x_in, s->inv1, t);
    const struct rows rows = rows_of(m, s, t, n_wanted);
    const int64_t n = rows.n;
    attention_block(m, layer, s, t, &rows, shape, hook);
    struct projection out = model__projection(m, layer, PROJ_O);
    branch_into(&out, s->x_mid, rows.x, s->o, w->post_attn_norm);
    m->ops->project(m->dev, &out, 1, s->attn, n); /* [n, H] */
    branch_norm(m, s->x_mid, rows.x, s->o, s->inv_o, w->post_attn_norm, n);

    model__mlp_norm(m, layer, s->x_mid, s->inv2, n);
    struct mlp mlp = model__mlp(m, layer);
    branch_into(&mlp.down, x_out, s->x_mid, s->down, w->post_mlp_norm);
    m->ops->mlp(m->dev, &mlp, m->norm, n); /* [n, I], [n, H] */
    branch_norm(m, x_out, s->x_mid, s->down, s->inv_down, w->post_mlp_norm, n);
}

void model__layer_again(struct model *m, int32_t layer, int64_t n_tokens, const struct attention_shape *shape)
{
    /* Its output is the input of the layer above, written there once more with the same bits. */
    layer_forward(m, layer, m->layers[layer + 1].x_in, n_tokens, ALL_TOKENS, shape, NULL);
}

void model__forward(struct model *m, int64_t n_tokens, const struct attention_shape *shape,
                    const struct kv_hook *hook, int64_t n_wanted)
{
    const struct arch *a = m->a;
    m->ops->embed(m->dev, m->layers[0].x_in, m->ids, n_tokens, &m->w->embed,
                  model__value(m, m->p->index_rows), m->p->new_first, m->p->n_new, a->embed_scale);
    for (int32_t i = 0; i < a->n_layers; i++) {
        bool last = i == a->n_layers - 1;
        layer_forward(m, i, last ? m->x_out : m->layers[i + 1].x_in, n_tokens, last ? n_wanted : ALL_TOKENS,
                      shape, hook);
    }
}
