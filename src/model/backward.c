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
static void project_back(struct model *m, int32_t layer, enum proj first, int n, const float *const *dy,
                         float *dx, const float *x, int64_t t, float *grad)
{
    struct projection parts[MAX_PROJECTIONS];
    for (int i = 0; i < n; i++) {
        enum proj p = (enum proj)(first + i);
        parts[i] = model__projection(m, &m->layers[layer], layer, p);
        parts[i].dy = dy[i];
        gradients_into(m, &parts[i], layer, p, grad);
    }
    m->ops->project_back(m->dev, parts, n, dx, x, t);
}

/* Where a layer's way back goes on: the gradient of its residual stream at all tokens, or at the wanted ones,
 * which are all that anything reads behind the last layer. */
struct rows {
    int64_t n;
    float *dx;                /* [n, H] */
    const float *norm;        /* [n, H] of x_in */
    const int32_t *positions; /* device [n] */
    bool chosen;
};

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

static void mlp_back(struct model *m, int32_t layer, struct layer_acts *s, const struct rows *rows,
                     float *grad)
{
    const struct arch *a = m->a;
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

/* dq, dk as they leave attention -> as they left the projections. */
static void heads_back(struct model *m, int32_t layer, struct layer_acts *s, const struct rows *rows,
                       int64_t t)
{
    const struct arch *a = m->a;
    const struct layer_weights *w = &m->w->layers[layer];
    const float *table = a->sliding[layer] ? m->rope_local : m->rope_global;
    m->ops->rope(m->dev, m->dq, rows->n, a->n_q_heads, a->head_dim, rows->positions, table, true);
    m->ops->rope(m->dev, m->dk, t, a->n_kv_heads, a->head_dim, m->positions, table, true);
    if (!a->qk_norm)
        return;
    m->ops->rms_norm_back(m->dev, m->dq, m->dq, s->q_raw, s->inv_q, w->q_norm, rows->n * a->n_q_heads,
                          a->head_dim, a->norm_offset, false);
    m->ops->rms_norm_back(m->dev, m->dk, m->dk, s->k_raw, s->inv_k, w->k_norm, t * a->n_kv_heads, a->head_dim,
                          a->norm_offset, false);
}

/* From dq, dk, dv to m->dh at all tokens [T, H]. Queries of chosen rows come in on their own. */
static void inputs_back(struct model *m, int32_t layer, struct layer_acts *s, const struct rows *rows,
                        int64_t t, float *grad)
{
    const float *const dy[] = {m->dq, m->dk, m->dv};
    model__attn_norm(m, layer, m->norm, s->x_in, s->inv1, t);
    if (!rows->chosen) {
        project_back(m, layer, PROJ_Q, 3, dy, m->dh, m->norm, t, grad);
        return;
    }
    project_back(m, layer, PROJ_Q, 1, dy, m->tmp, rows->norm, rows->n, grad);
    project_back(m, layer, PROJ_K, 2, dy + 1, m->dh, m->norm, t, grad);
    m->ops->scatter_add_rows(m->dev, m->dh, m->tmp, m->index, rows->n, m->a->hidden);
}

static void attention_back(struct model *m, int32_t layer, struct layer_acts *s, const struct rows *rows,
                           int64_t t, const struct attention_shape *shape, float *grad)
{
    const struct arch *a = m->a;
    const struct layer_weights *w = &m->w->layers[layer];
    const float *dy = branch_grad(m, rows, s->o, s->inv_o, w->post_attn_norm);
    project_back(m, layer, PROJ_O, 1, &dy, m->dattn, s->attn, rows->n, grad); /* [n, Q D] */
    struct attention_shape own = *shape;
    own.window = a->sliding[layer] ? a->window : 0;
    own.queries = rows->chosen ? m->host_rows : NULL;
    own.n_queries = rows->n;
    m->ops->attention_back(m->dev, m->dq, m->dk, m->dv, m->dattn, s->q, s->k, s->v, s->attn, s->lse, &own);
    heads_back(m, layer, s, rows, t);
    inputs_back(m, layer, s, rows, t, grad);
    m->ops->rms_norm_back(m->dev, m->dx, m->dh, s->x_in, s->inv1, w->attn_norm, t, a->hidden, a->norm_offset,
                          !rows->chosen);
    if (rows->chosen)
        m->ops->scatter_add_rows(m->dev, m->dx, rows->dx, m->index, rows->n, a->hidden);
}

void model__backward(struct model *m, int64_t n_tokens, const struct attention_shape *shape, int64_t n_wanted,
                     float *grad)
{
    const struct arch *a = m->a;
    for (int32_t i = a->n_layers - 1; i >= 0; i--) {
        struct layer_acts *s = &m->layers[i];
        struct rows rows = {n_tokens, m->dx, m->norm, m->positions, false};
        if (i == a->n_layers - 1)
            rows = (struct rows){n_wanted, m->head_dx, m->rows_norm, m->row_positions, true};
        if (i < m->n_again)
            model__layer_again(m, i, n_tokens, shape);
        mlp_back(m, i, s, &rows, grad);
        attention_back(m, i, s, &rows, n_tokens, shape, grad);
    }
    if (m->p->index_rows >= 0)
        m->ops->embed_back(m->dev, model__grad(m, grad, m->p->index_rows), m->dx, m->ids, n_tokens, a->hidden,
                           m->p->new_first, m->p->n_new, a->embed_scale);
}
