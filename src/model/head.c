/* The last norm, the head and the loss, at labelled tokens only, in chunks of rows that bound the logits'
 * memory: a chunk's logits become its gradient in place and are used up before the next chunk begins. */
#include "model_internal.h"

#include <string.h>

/* Columns of base rows that new rows have taken over (a padded base): their logits and gradients count once.
 */
static int64_t replaced_columns(const struct model *m)
{
    int64_t end = m->p->new_first + m->p->n_new, base = m->a->n_embed_rows;
    if (end > base)
        end = base;
    return m->p->n_new > 0 && end > m->p->new_first ? end - m->p->new_first : 0;
}

static int32_t head_rows_item(const struct model *m)
{
    return m->p->index_head_rows >= 0 ? m->p->index_head_rows : m->p->index_rows;
}

void model__head_logits(struct model *m, const float *x, int64_t n)
{
    int64_t h = m->a->hidden, v = m->v_rows;
    m->ops->linear(m->dev, m->logits, v, x, h, &m->w->head, n, false); /* [n, E] of rows of V */
    const float *rows = model__value(m, head_rows_item(m));
    if (rows)
        m->ops->gemm(m->dev, false, true, n, m->p->n_new, h, 1, x, h, rows, h, 0, m->logits + m->p->new_first,
                     v);
}

/* m->logits hold d loss / d logits [n, V]: gradients of x and of the new rows. */
static void chunk_back(struct model *m, float *dx, const float *x, int64_t n, float *grad)
{
    int64_t h = m->a->hidden, v = m->v_rows, n_new = m->p->n_new;
    int32_t item = head_rows_item(m);
    float *d_new = m->logits + m->p->new_first;
    if (item >= 0) {
        m->ops->gemm(m->dev, true, false, n_new, h, n, 1, d_new, v, x, h, 1, model__grad(m, grad, item), h);
        m->ops->gemm(m->dev, false, false, n, h, n_new, 1, d_new, v, model__value(m, item), h, 0, dx, h);
    }
    int64_t replaced = replaced_columns(m);
    for (int64_t i = 0; i < n && replaced; i++)
        m->ops->zero(m->dev, d_new + i * v, (size_t)replaced * sizeof(float));
    m->ops->linear_back(m->dev, dx, h, m->logits, v, &m->w->head, n, item >= 0);
}

enum status model__labelled(struct model *m, const struct packed *seq, int64_t *n, struct err *err)
{
    int64_t found = 0;
    *n = 0;
    for (int32_t t = 0; t < seq->n_tokens; t++) {
        for (int32_t l = seq->first_label[t]; l < seq->first_label[t + 1]; l++)
            if (seq->labels[l] < 0 || seq->labels[l] >= m->v_rows)
                return err_set(err, ST_INPUT, "label %d at token %d is not below the vocabulary of %lld rows",
                               seq->labels[l], t, (long long)m->v_rows);
        if (packed_n_labels(seq, t) == 0)
            continue;
        m->host_rows[found] = t;
        m->host_ints[found++] = seq->first_label[t];
    }
    m->host_ints[found] = seq->n_labels;
    TRY(model__reserve_labels(m, seq->n_labels, err));
    m->ops->upload(m->dev, m->first_label, m->host_ints, ((size_t)found + 1) * sizeof *m->host_ints);
    m->ops->upload(m->dev, m->labels, seq->labels, (size_t)seq->n_labels * sizeof *seq->labels);
    m->ops->sync(m->dev);
    *n = found;
    return ST_OK;
}

/* Sums in token order, in double: the same number however the chunks fall. */
static void collect_loss(struct model *m, const struct packed *seq, int64_t n, double *loss_sum,
                         float *token_loss)
{
    m->ops->download(m->dev, m->host_loss, m->loss, (size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++)
        *loss_sum += m->host_loss[i];
    if (!token_loss)
        return;
    int64_t at = 0;
    for (int32_t t = 0; t < seq->n_tokens; t++)
        token_loss[t] = packed_n_labels(seq, t) > 0 ? m->host_loss[at++] : 0;
}

/* Rows of each chunk but the last one: n rows in as few chunks as there can be, of about equal size. */
static int64_t even_chunk(const struct model *m, int64_t n)
{
    const int64_t parts = (n + m->chunk - 1) / m->chunk;
    return ((n + parts - 1) / parts + 15) / 16 * 16;
}

void model__head_loss(struct model *m, const struct packed *seq, int64_t n, float grad_scale, float *grad,
                      double *loss_sum, float *token_loss)
{
    const struct arch *a = m->a;
    const int64_t h = a->hidden, chunk = even_chunk(m, n);
    m->ops->rms_norm(m->dev, m->head_norm, m->head_inv, m->x_out, m->w->final_norm, n, h, a->rms_eps,
                     a->norm_offset);
    for (int64_t at = 0; at < n; at += chunk) {
        int64_t k = n - at < chunk ? n - at : chunk;
        model__head_logits(m, m->head_norm + at * h, k);
        m->ops->cross_entropy(m->dev, m->logits, m->v_rows, m->labels, m->first_label + at, m->loss + at, k,
                              m->v_rows, grad ? grad_scale : 0);
        if (grad)
            chunk_back(m, m->head_dx + at * h, m->head_norm + at * h, k, grad);
    }
    collect_loss(m, seq, n, loss_sum, token_loss);
    if (grad)
        m->ops->rms_norm_back(m->dev, m->head_dx, m->head_dx, m->x_out, m->head_inv, m->w->final_norm, n, h,
                              a->norm_offset, false);
}
