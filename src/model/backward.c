/* The walk down the layers. m->dx holds the gradient of the residual stream and is updated in place: each
 * branch adds what flows back through it. Frozen weights get no gradient; LoRA's A and B and the new rows do.
 */
#include "model_internal.h"

/* Where the gradients of A and B of a projection are added up. */
static void gradients_into(struct model *m, struct projection *part, int32_t layer, enum proj p, float *grad)
{
    if (part->a == NULL)
        return;
    int32_t item = m->p->index_lora[layer][p];
    part->da = model__grad(m, grad, item);
    part->db = model__grad(m, grad, item + 1);
}

/* From dy of n projections that follow each other in enum proj and share x to dx [T, in], and the gradients
 * of their A and B. */
static void project_back(struct model *m, const struct layer_acts *s, int32_t layer, enum proj first, int n,
                         const float *const *dy, float *dx, const float *x, int64_t t, float *grad)
{
    struct projection parts[MAX_PROJECTIONS];
    for (int i = 0; i < n; i++) {
        enum proj p = (enum proj)(first + i);
        parts[i] = model__projection(m, s, layer, p);
        parts[i].dy = dy[i];
        gradients_into(m, &parts[i], layer, p, grad);
    }
    m->ops->project_back(m->dev, parts, n, dx, x, t);
}

/* Where a layer's way back goes on: the gradient of its residual stream at the tokens that are walked
 * through, or at the wanted ones, which are all that anything reads behind the last layer. */
struct rows {
    int64_t n;
    float *dx;                /* [n, H] */
    const int32_t *positions; /* device [n] */
    bool chosen;
    int64_t first;       /* token that keys and values begin with here */
    struct layer_acts s; /* the layer's, from there on */
};

/* Behind the stem, or at its beginning where the walk goes through the stem itself. */
static int64_t first_token(const struct way_back *b)
{
    return b->n_stem < b->n_tokens ? b->n_stem : 0;
}

static struct rows rows_of(struct model *m, const struct way_back *b, int32_t layer)
{
    const bool chosen = layer == m->a->n_layers - 1;
    const int64_t first = first_token(b);
    struct rows r = {.n = b->n_wanted, .dx = m->head_dx, .positions = m->row_positions, .chosen = chosen};
    r.first = first;
    r.s = model__acts_from(m, m->layers[layer], first, chosen ? 0 : first);
    if (chosen)
        return r;
    r.n = b->n_tokens - first;
    r.dx = m->dx + first * m->a->hidden;
    r.positions = m->positions + first;
    return r;
}

/* Gradient at a branch's output, before Gemma's norm on it: into m->dh; without that norm it is dx itself. */
static const float *branch_grad(struct model *m, const struct rows *rows, const float *branch,
                                const float *inv, const float *post_norm)
{
    if (!post_norm)
        return rows->dx;
    m->ops->rms_norm_back(m->dev, m->dh, rows->dx, branch, inv, post_norm, rows->n, m->a->hidden,
                          m->a->norm_offset, false);
    return m->dh;
}

static void mlp_back(struct model *m, int32_t layer, const struct rows *rows, float *grad)
{
    const struct arch *a = m->a;
    const struct layer_acts *s = &rows->s;
    const struct layer_weights *w = &m->w->layers[layer];
    int64_t n = rows->n;
    const float *dy = branch_grad(m, rows, s->down, s->inv_down, w->post_mlp_norm);
    struct mlp mlp = model__mlp(m, s, layer);
    mlp.down.dy = dy;
    gradients_into(m, &mlp.gate, layer, PROJ_GATE, grad);
    gradients_into(m, &mlp.up, layer, PROJ_UP, grad);
    gradients_into(m, &mlp.down, layer, PROJ_DOWN, grad);
    model__mlp_norm(m, layer, m->norm, s->x_mid, s->inv2, n);
    m->ops->mlp_back(m->dev, &mlp, m->dh, m->norm, n); /* [n, H] */
    m->ops->rms_norm_back(m->dev, rows->dx, m->dh, s->x_mid, s->inv2, w->mlp_norm, n, a->hidden,
                          a->norm_offset, true);
}

/* Gradients of the queries of the rows, and of all keys and values: m->dq, m->dk, m->dv. */
static void scores_back(struct model *m, const struct way_back *b, int32_t layer, const struct rows *rows)
{
    const struct arch *a = m->a;
    const struct layer_acts *s = &rows->s, *all = &m->layers[layer];
    const struct layer_weights *w = &m->w->layers[layer];
    const int64_t kd = (int64_t)a->n_kv_heads * a->head_dim;
    if (rows->n == 0) {
        m->ops->zero(m->dev, m->dk, (size_t)(b->n_tokens * kd) * sizeof *m->dk);
        m->ops->zero(m->dev, m->dv, (size_t)(b->n_tokens * kd) * sizeof *m->dv);
        return;
    }
    const float *dy = branch_grad(m, rows, s->o, s->inv_o, w->post_attn_norm);
    project_back(m, s, layer, PROJ_O, 1, &dy, m->dattn, s->attn, rows->n, b->grad); /* [n, Q D] */
    struct attention_shape own = *b->shape;
    own.window = a->sliding[layer] ? a->window : 0;
    own.queries = rows->chosen ? m->host_rows : rows->first > 0 ? m->host_all + rows->first : NULL;
    own.n_queries = rows->n;
    if (a->qk_norm) {
        model__queries(m, layer, s, rows->n, rows->positions);
        model__keys(m, layer, all, b->n_tokens, m->positions);
    }
    m->ops->attention_back(m->dev, m->dq, m->dk, m->dv, m->dattn, s->q, all->k, all->v, s->attn, s->lse,
                           &own);
}

/* Gradients of the stem's keys and values: put by, or taken in where the walk goes through the stem itself.
 */
static void stem_back(struct model *m, const struct way_back *b, int32_t layer)
{
    const int64_t n = b->n_stem * m->a->n_kv_heads * m->a->head_dim;
    if (n == 0)
        return;
    float *dk = b->stem + 2 * layer * n, *dv = dk + n;
    const bool in = b->n_tokens == b->n_stem;
    m->ops->add(m->dev, in ? m->dk : dk, in ? dk : m->dk, n);
    m->ops->add(m->dev, in ? m->dv : dv, in ? dv : m->dv, n);
}

/* dq, dk as they leave attention -> as they left the projections. */
static void heads_back(struct model *m, int32_t layer, const struct rows *rows, float *dk, int64_t n_kv)
{
    const struct arch *a = m->a;
    const struct layer_acts *s = &rows->s;
    const struct layer_weights *w = &m->w->layers[layer];
    const float *table = a->sliding[layer] ? m->rope_local : m->rope_global;
    m->ops->rope(m->dev, m->dq, rows->n, a->n_q_heads, a->head_dim, rows->positions, table, true);
    m->ops->rope(m->dev, dk, n_kv, a->n_kv_heads, a->head_dim, m->positions + rows->first, table, true);
    if (!a->qk_norm)
        return;
    m->ops->rms_norm_back(m->dev, m->dq, m->dq, s->q_raw, s->inv_q, w->q_norm, rows->n * a->n_q_heads,
                          a->head_dim, a->norm_offset, false);
    m->ops->rms_norm_back(m->dev, dk, dk, s->k_raw, s->inv_k, w->k_norm, n_kv * a->n_kv_heads, a->head_dim,
                          a->norm_offset, false);
}

/* From dq, dk, dv to the gradient of the norm at all tokens that are walked through, dh [n_kv, H]. Queries of
 * chosen rows come in on their own. */
static void inputs_back(struct model *m, int32_t layer, const struct rows *rows, const float *const *dy,
                        float *dh, int64_t n_kv, float *grad)
{
    const struct layer_acts *s = &rows->s;
    float *norm = m->norm + rows->first * m->a->hidden;
    model__attn_norm(m, layer, norm, s->x_in, s->inv1, n_kv);
    if (!rows->chosen) {
        project_back(m, s, layer, PROJ_Q, 3, dy, dh, norm, n_kv, grad);
        return;
    }
    project_back(m, s, layer, PROJ_K, 2, dy + 1, dh, norm, n_kv, grad);
    if (rows->n == 0)
        return;
    project_back(m, s, layer, PROJ_Q, 1, dy, m->tmp, m->rows_norm, rows->n, grad);
    m->ops->scatter_add_rows(m->dev, m->dh, m->tmp, m->index, rows->n, m->a->hidden);
}

static void attention_back(struct model *m, const struct way_back *b, int32_t layer, const struct rows *rows)
{
    const struct arch *a = m->a;
    const struct layer_weights *w = &m->w->layers[layer];
    const int64_t kd = (int64_t)a->n_kv_heads * a->head_dim, n_kv = b->n_tokens - rows->first;
    float *dk = m->dk + rows->first * kd, *dh = m->dh + rows->first * a->hidden;
    const float *const dy[] = {m->dq, dk, m->dv + rows->first * kd};
    scores_back(m, b, layer, rows);
    stem_back(m, b, layer);
    heads_back(m, layer, rows, dk, n_kv);
    inputs_back(m, layer, rows, dy, dh, n_kv, b->grad);
    m->ops->rms_norm_back(m->dev, m->dx + rows->first * a->hidden, dh, rows->s.x_in, rows->s.inv1,
                          w->attn_norm, n_kv, a->hidden, a->norm_offset, !rows->chosen);
    if (rows->chosen && rows->n > 0)
        m->ops->scatter_add_rows(m->dev, m->dx, rows->dx, m->index, rows->n, a->hidden);
}

void model__backward(struct model *m, const struct way_back *b)
{
    const struct arch *a = m->a;
    const int64_t first = first_token(b);
    for (int32_t i = a->n_layers - 1; i >= 0; i--) {
        const struct rows rows = rows_of(m, b, i);
        if (i < m->n_again)
            model__layer_again(m, i, b->n_tokens, b->shape);
        if (rows.n > 0)
            mlp_back(m, i, &rows, b->grad);
        attention_back(m, b, i, &rows);
    }
    if (m->p->index_rows >= 0)
        m->ops->embed_back(m->dev, model__grad(m, b->grad, m->p->index_rows), m->dx + first * a->hidden,
                           m->ids + first, b->n_tokens - first, a->hidden, m->p->new_first, m->p->n_new,
                           a->embed_scale);
}
