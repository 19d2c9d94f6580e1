/* The walk up the layers. Shapes stand on each line; what the way back needs stays in layer_acts. */
#include "model_internal.h"

struct projection model__projection(const struct model *m, const struct layer_acts *s, int32_t layer,
                                    enum proj p)
{
    int32_t item = m->p->index_lora ? m->p->index_lora[layer][p] : -1;
    struct projection out = {.w = &m->w->layers[layer].proj[p]};
    if (item < 0)
        return out;
    out.a = model__value(m, item);
    out.b = model__value(m, item + 1);
    out.r = m->p->lora.r;
    out.scaling = m->p->scaling;
    out.u = s->u[p];
    return out;
}

struct mlp model__mlp(const struct model *m, const struct layer_acts *s, int32_t layer)
{
    struct mlp mlp = {.gate = model__projection(m, s, layer, PROJ_GATE),
                      .up = model__projection(m, s, layer, PROJ_UP),
                      .down = model__projection(m, s, layer, PROJ_DOWN),
                      .act = m->a->act};
    mlp.kept = s->gated;
    mlp.kept_room = m->capacity;
    mlp.kept_first = s->gated_first;
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
static void project(struct model *m, const struct layer_acts *s, int32_t layer, enum proj first, int n,
                    float *const *y, const float *x, int64_t n_tokens)
{
    struct projection parts[MAX_PROJECTIONS];
    for (int i = 0; i < n; i++) {
        parts[i] = model__projection(m, s, layer, (enum proj)(first + i));
        parts[i].y = y[i];
    }
    m->ops->project(m->dev, parts, n, x, n_tokens);
}

/* What is computed: keys and values of the tokens from `kept` on, and everything behind them of `rows`, which
 * are the same tokens or the wanted ones. */
struct work {
    int64_t tokens, kept, rows;      /* tokens: all, the kept ones too */
    const float *x, *norm, *kv_norm; /* [rows, H], [rows, H], [tokens - kept, H] */
    const int32_t *positions;        /* device [rows] */
    const int32_t *queries;          /* host [rows] places in the sequence; NULL: all */
    struct layer_acts s;             /* where it goes: the layer's, from the first row that is computed on */
};

static float *from(float *x, int64_t row, int64_t width)
{
    return x ? x + row * width : NULL;
}

struct layer_acts model__acts_from(const struct model *m, struct layer_acts s, int64_t kept, int64_t first)
{
    const struct arch *a = m->a;
    int64_t h = a->hidden, qd = (int64_t)a->n_q_heads * a->head_dim,
            kd = (int64_t)a->n_kv_heads * a->head_dim;
    s.x_in = from(s.x_in, kept, h);
    s.inv1 = from(s.inv1, kept, 1);
    s.k_raw = from(s.k_raw, kept, kd);
    s.inv_k = from(s.inv_k, kept, a->n_kv_heads);
    s.k = from(s.k, kept, kd);
    s.v = from(s.v, kept, kd);
    s.q_raw = from(s.q_raw, first, qd);
    s.inv_q = from(s.inv_q, first, a->n_q_heads);
    s.q = from(s.q, first, qd);
    s.attn = from(s.attn, first, qd);
    s.lse = from(s.lse, first, a->n_q_heads);
    s.o = from(s.o, first, h);
    s.inv_o = from(s.inv_o, first, 1);
    s.x_mid = from(s.x_mid, first, h);
    s.inv2 = from(s.inv2, first, 1);
    s.gated_first = first;
    s.down = from(s.down, first, h);
    s.inv_down = from(s.inv_down, first, 1);
    for (int p = 0; p < N_PROJ; p++)
        s.u[p] = from(s.u[p], p == PROJ_K || p == PROJ_V ? kept : first, m->p->lora.r);
    return s;
}

/* The layer's first norm, and what it works on. */
static struct work work_of(struct model *m, int32_t layer, int64_t t, int64_t kept, int64_t n_wanted)
{
    const struct layer_acts *s = &m->layers[layer];
    const bool all = n_wanted == ALL_TOKENS;
    float *norm = m->norm + kept * m->a->hidden;
    struct work w = {
        .tokens = t, .kept = kept, .kv_norm = norm, .s = model__acts_from(m, *s, kept, all ? kept : 0)};
    model__attn_norm(m, layer, norm, w.s.x_in, w.s.inv1, t - kept);
    if (all) {
        w.rows = t - kept;
        w.x = w.s.x_in;
        w.norm = norm;
        w.positions = m->positions + kept;
        w.queries = kept > 0 ? m->host_all + kept : NULL;
        return w;
    }
    m->ops->gather_rows(m->dev, m->rows_x, s->x_in, m->index, n_wanted, m->a->hidden);
    m->ops->gather_rows(m->dev, m->rows_norm, m->norm, m->index, n_wanted, m->a->hidden);
    w.rows = n_wanted;
    w.x = m->rows_x;
    w.norm = m->rows_norm;
    w.positions = m->row_positions;
    w.queries = m->host_rows;
    return w;
}

static const float *table_of(const struct model *m, int32_t layer)
{
    return m->a->sliding[layer] ? m->rope_local : m->rope_global;
}

void model__queries(struct model *m, int32_t layer, const struct layer_acts *s, int64_t n,
                    const int32_t *positions)
{
    const struct arch *a = m->a;
    if (a->qk_norm)
        m->ops->rms_norm(m->dev, s->q, s->inv_q, s->q_raw, m->w->layers[layer].q_norm, n * a->n_q_heads,
                         a->head_dim, a->rms_eps, a->norm_offset);
    m->ops->rope(m->dev, s->q, n, a->n_q_heads, a->head_dim, positions, table_of(m, layer), false);
}

void model__keys(struct model *m, int32_t layer, const struct layer_acts *s, int64_t n,
                 const int32_t *positions)
{
    const struct arch *a = m->a;
    if (a->qk_norm)
        m->ops->rms_norm(m->dev, s->k, s->inv_k, s->k_raw, m->w->layers[layer].k_norm, n * a->n_kv_heads,
                         a->head_dim, a->rms_eps, a->norm_offset);
    m->ops->rope(m->dev, s->k, n, a->n_kv_heads, a->head_dim, positions, table_of(m, layer), false);
}

/* Norms -> attn: projections, head norms, rotation, attention. */
static void attention_block(struct model *m, int32_t layer, const struct work *w,
                            const struct attention_shape *shape, const struct kv_hook *hook)
{
    const struct arch *a = m->a;
    const struct layer_acts *s = &w->s, *all = &m->layers[layer];
    const int64_t n_kv = w->tokens - w->kept;
    float *const y[] = {a->qk_norm ? s->q_raw : s->q, a->qk_norm ? s->k_raw : s->k, s->v};
    if (w->norm == w->kv_norm) { /* [n, Q D], [n, K D], [n, K D] */
        project(m, s, layer, PROJ_Q, 3, y, w->norm, n_kv);
    } else {
        project(m, s, layer, PROJ_Q, 1, y, w->norm, w->rows);
        project(m, s, layer, PROJ_K, 2, y + 1, w->kv_norm, n_kv);
    }
    model__queries(m, layer, s, w->rows, w->positions);
    if (a->qk_norm) /* another layer's stand where the kept tokens' keys were */
        model__keys(m, layer, all, w->tokens, m->positions);
    else
        model__keys(m, layer, s, n_kv, m->positions + w->kept);
    if (hook)
        kv_cache__store(hook->cache, hook, layer, s->k, s->v, w->tokens);
    if (w->rows == 0) /* nobody asks */
        return;
    if (hook && hook->which) {
        kv_cache__attend(hook->cache, hook, layer, s->attn, s->q, w->tokens);
    } else {
        struct attention_shape own = *shape;
        own.window = a->sliding[layer] ? a->window : 0;
        own.queries = w->queries;
        own.n_queries = w->rows;
        m->ops->attention(m->dev, s->attn, s->lse, s->q, all->k, all->v, &own);
    }
}

void model__attn_norm(struct model *m, int32_t layer, float *norm, const float *x, float *inv, int64_t n)
{
    m->ops->rms_norm(m->dev, norm, inv, x, m->w->layers[layer].attn_norm, n, m->a->hidden, m->a->rms_eps,
                     m->a->norm_offset);
}

void model__mlp_norm(struct model *m, int32_t layer, float *norm, const float *x, float *inv, int64_t n)
{
    m->ops->rms_norm(m->dev, norm, inv, x, m->w->layers[layer].mlp_norm, n, m->a->hidden, m->a->rms_eps,
                     m->a->norm_offset);
}

/* x_out [rows, H]. */
static void layer_forward(struct model *m, int32_t layer, float *x_out, int64_t t, int64_t n_kept,
                          int64_t n_wanted, const struct attention_shape *shape, const struct kv_hook *hook)
{
    const struct layer_weights *lw = &m->w->layers[layer];
    const struct work w = work_of(m, layer, t, n_kept, n_wanted);
    const struct layer_acts *s = &w.s;
    const int64_t n = w.rows;

    attention_block(m, layer, &w, shape, hook);
    if (n == 0) /* keys and values were all */
        return;
    struct projection out = model__projection(m, s, layer, PROJ_O);
    branch_into(&out, s->x_mid, w.x, s->o, lw->post_attn_norm);
    m->ops->project(m->dev, &out, 1, s->attn, n); /* [n, H] */
    branch_norm(m, s->x_mid, w.x, s->o, s->inv_o, lw->post_attn_norm, n);

    model__mlp_norm(m, layer, m->norm, s->x_mid, s->inv2, n);
    struct mlp mlp = model__mlp(m, s, layer);
    branch_into(&mlp.down, x_out, s->x_mid, s->down, lw->post_mlp_norm);
    m->ops->mlp(m->dev, &mlp, m->norm, n); /* [n, I], [n, H] */
    branch_norm(m, x_out, s->x_mid, s->down, s->inv_down, lw->post_mlp_norm, n);
}

void model__layer_again(struct model *m, int32_t layer, int64_t n_tokens, const struct attention_shape *shape)
{
    /* Its output is the input of the layer above, written there once more with the same bits. */
    layer_forward(m, layer, m->layers[layer + 1].x_in, n_tokens, 0, ALL_TOKENS, shape, NULL);
}

void model__forward(struct model *m, int64_t n_tokens, int64_t n_kept, const struct attention_shape *shape,
                    const struct kv_hook *hook, int64_t n_wanted)
{
    const struct arch *a = m->a;
    const int64_t skip = n_kept * a->hidden;
    m->kept.n_tokens = 0; /* until these stand */
    m->ops->embed(m->dev, m->layers[0].x_in + skip, m->ids + n_kept, n_tokens - n_kept, &m->w->embed,
                  model__value(m, m->p->index_rows), m->p->new_first, m->p->n_new, a->embed_scale);
    for (int32_t i = 0; i < a->n_layers; i++) {
        bool last = i == a->n_layers - 1;
        layer_forward(m, i, last ? m->x_out : m->layers[i + 1].x_in + skip, n_tokens, n_kept,
                      last ? n_wanted : ALL_TOKENS, shape, hook);
    }
}
