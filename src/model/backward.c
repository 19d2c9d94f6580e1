/* The walk down the layers. m->dx holds the gradient of the residual stream and is updated in place: each
 * branch adds what flows back through it. Frozen weights get no gradient; LoRA's A and B and the new rows do.
 */
#include "model_internal.h"

/* From dy [T, out] to dx [T, in] (added when accumulate), and the gradients of A and B (PEFT's LoRA:
 * y = W x + s B A x, so dB = s dy^T u, du = s dy B, dA = du^T x, dx = dy W + du A). */
static void linear_back(struct model *m, int32_t layer, enum proj p, float *dx, const float *dy,
                        const float *x, int64_t t, bool accumulate, float *grad)
{
    const struct weight *w = &m->w->layers[layer].proj[p];
    m->ops->linear_back(m->dev, dx, w->n_in, dy, w->n_out, w, t, accumulate);
    int32_t item = m->p->index_lora ? m->p->index_lora[layer][p] : -1;
    if (item < 0)
        return;
    int64_t r = m->p->lora.r;
    float s = m->p->scaling;
    const float *a = model__value(m, item), *b = model__value(m, item + 1), *u = m->layers[layer].u[p];
    m->ops->gemm(m->dev, true, false, w->n_out, r, t, s, dy, w->n_out, u, r, 1,
                 model__grad(m, grad, item + 1), r);
    m->ops->gemm(m->dev, false, false, t, r, w->n_out, s, dy, w->n_out, b, r, 0, m->du, r);
    m->ops->gemm(m->dev, true, false, r, w->n_in, t, 1, m->du, r, x, w->n_in, 1, model__grad(m, grad, item),
                 w->n_in);
    m->ops->gemm(m->dev, false, false, t, w->n_in, r, 1, m->du, r, a, w->n_in, 1, dx, w->n_in);
}

/* Where a layer's way back goes on: the gradient of its residual stream at all tokens, or at the wanted ones,
 * which are all that anything reads behind the last layer. */
struct rows {
    int64_t n;
    float *dx;                /* [n, H] */
    const float *norm1;       /* [n, H] */
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
    linear_back(m, layer, PROJ_DOWN, m->tmp, dy, s->act, n, false, grad); /* [n, I] */
    m->ops->act_mul_back(m->dev, a->act, m->dgate, m->dup, m->tmp, s->gate, s->up, n * a->mlp);
    linear_back(m, layer, PROJ_GATE, m->dh, m->dgate, s->norm2, n, false, grad); /* [n, H] */
    linear_back(m, layer, PROJ_UP, m->dh, m->dup, s->norm2, n, true, grad);
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
    float *from_q = rows->chosen ? m->tmp : m->dh;
    linear_back(m, layer, PROJ_Q, from_q, m->dq, rows->norm1, rows->n, false, grad);
    linear_back(m, layer, PROJ_K, m->dh, m->dk, s->norm1, t, !rows->chosen, grad);
    linear_back(m, layer, PROJ_V, m->dh, m->dv, s->norm1, t, true, grad);
    if (rows->chosen)
        m->ops->scatter_add_rows(m->dev, m->dh, from_q, m->index, rows->n, m->a->hidden);
}

static void attention_back(struct model *m, int32_t layer, struct layer_acts *s, const struct rows *rows,
                           int64_t t, const struct attention_shape *shape, float *grad)
{
    const struct arch *a = m->a;
    const struct layer_weights *w = &m->w->layers[layer];
    const float *dy = branch_grad(m, rows, s->o, s->inv_o, w->post_attn_norm);
    linear_back(m, layer, PROJ_O, m->dattn, dy, s->attn, rows->n, false, grad); /* [n, Q D] */
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
        struct rows rows = {n_tokens, m->dx, s->norm1, m->positions, false};
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
