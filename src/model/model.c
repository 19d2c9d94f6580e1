/* Life cycle of the model, and the two whole-sequence entries: loss and logits. */
#include "model_internal.h"

#include <stdlib.h>
#include <string.h>

/* Rows of one chunk of logits: each chunk reads the whole head once forward and once backward, so few rows
 * cost time, and many cost memory; 256 are about what a shard of a usual step has. Where the vocabulary is so
 * large that these would take more than CHUNK_MOST_BYTES, as many as that is room for, but not under 16, so
 * that products stay products; where it is small, as many as CHUNK_FREE_BYTES have room for. */
#define CHUNK_ROWS       256
#define CHUNK_MOST_BYTES (80 << 20)
#define CHUNK_FREE_BYTES (16 << 20)

static int64_t chunk_rows(int64_t v_rows)
{
    const int64_t row_bytes = v_rows * (int64_t)sizeof(float);
    int64_t n = CHUNK_MOST_BYTES / row_bytes;
    if (n > CHUNK_ROWS)
        n = CHUNK_ROWS;
    if (n < CHUNK_FREE_BYTES / row_bytes)
        n = CHUNK_FREE_BYTES / row_bytes;
    return n < 16 ? 16 : n / 16 * 16;
}

enum status model_open(struct model **out, const struct model_config *config, struct err *err)
{
    struct model *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m)
        return err_memory(err, "the model", sizeof *m);
    m->c = *config;
    m->ops = config->ops;
    m->dev = config->dev;
    m->a = config->arch;
    m->w = config->weights;
    m->p = config->params;
    m->v_rows = m->a->n_embed_rows;
    if (m->p->n_new > 0 && m->p->new_first + m->p->n_new > m->v_rows)
        m->v_rows = m->p->new_first + m->p->n_new;
    if (m->p->n_new > 0 && m->p->new_first > m->a->n_embed_rows) {
        err_set(err, ST_INPUT, "new rows begin at id %lld but the model has %d rows",
                (long long)m->p->new_first, m->a->n_embed_rows);
        err_hint(err, "the data was packed for another model or tokenizer");
        free(m);
        return ST_INPUT;
    }
    m->chunk = chunk_rows(m->v_rows);
    m->layers = calloc((size_t)m->a->n_layers, sizeof *m->layers);
    if (!m->layers) {
        free(m);
        return err_memory(err, "the model's layers", (size_t)config->arch->n_layers * sizeof *m->layers);
    }
    *out = m;
    return ST_OK;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    if (m->rope_local != m->rope_global)
        m->ops->release(m->dev, m->rope_local);
    m->ops->release(m->dev, m->rope_global);
    m->ops->release(m->dev, m->many_labels);
    model__release_block(m);
    free(m->layers);
    free(m);
}

void model_expect(struct model *m, int64_t n_tokens)
{
    m->expected = n_tokens;
}

void model_set_reuse(struct model *m, bool reuse)
{
    m->apart = !reuse;
}

const struct arch *model_arch(const struct model *m)
{
    return m->a;
}

int64_t model_vocab(const struct model *m)
{
    return m->v_rows;
}

void model_set_values(struct model *m, const float *values)
{
    m->values = values;
    m->kept.n_tokens = 0;
}

enum status model__upload(struct model *m, const struct packed *seq, struct err *err)
{
    for (int32_t t = 0; t < seq->n_tokens; t++)
        if (seq->ids[t] < 0 || seq->ids[t] >= m->v_rows) {
            err_set(err, ST_INPUT, "token id %d at token %d is not in the vocabulary of %lld rows",
                    seq->ids[t], t, (long long)m->v_rows);
            return err_hint(err, "the data was made for another model or tokenizer");
        }
    m->ops->upload(m->dev, m->ids, seq->ids, (size_t)seq->n_tokens * sizeof *seq->ids);
    m->ops->upload(m->dev, m->positions, seq->positions, (size_t)seq->n_tokens * sizeof *seq->positions);
    return ST_OK;
}

void model__want(struct model *m, const struct packed *seq, int64_t n_wanted)
{
    size_t n_bytes = (size_t)n_wanted * sizeof(int32_t);
    m->ops->upload(m->dev, m->index, m->host_rows, n_bytes);
    for (int64_t i = 0; i < n_wanted; i++)
        m->host_row_positions[i] = seq->positions[m->host_rows[i]];
    m->ops->upload(m->dev, m->row_positions, m->host_row_positions, n_bytes);
    m->ops->sync(m->dev);
}

static int64_t n_positions(const struct packed *seq)
{
    int64_t n = 0;
    for (int32_t t = 0; t < seq->n_tokens; t++)
        if (seq->positions[t] >= n)
            n = (int64_t)seq->positions[t] + 1;
    return n;
}

static struct attention_shape shape_of(const struct model *m, const struct packed *seq)
{
    return (struct attention_shape){.n_tokens = seq->n_tokens,
                                    .n_segments = seq->n_segments,
                                    .segments = seq->segments,
                                    .positions = seq->positions,
                                    .n_q_heads = m->a->n_q_heads,
                                    .n_kv_heads = m->a->n_kv_heads,
                                    .head_dim = m->a->head_dim,
                                    .scale = m->a->attn_scale};
}

enum status model_loss(struct model *m, const struct packed *seq, float grad_scale, float *grad,
                       double *loss_sum, float *token_loss, struct err *err)
{
    return model_loss_above(m, seq, 0, grad_scale, grad, loss_sum, token_loss, err);
}

static enum status check_stem(const struct packed *seq, int64_t n_stem, struct err *err)
{
    if (n_stem < 0 || n_stem >= seq->n_tokens)
        return err_set(err, ST_DEFECT, "a stem of %lld of %d tokens", (long long)n_stem, seq->n_tokens);
    for (int64_t t = 0; t < n_stem; t++)
        if (packed_n_labels(seq, t) > 0 || seq->positions[t] != t)
            return err_set(err, ST_DEFECT, "token %lld cannot be of a stem", (long long)t);
    return ST_OK;
}

enum status model_loss_above(struct model *m, const struct packed *seq, int64_t n_stem, float grad_scale,
                             float *grad, double *loss_sum, float *token_loss, struct err *err)
{
    if (seq->n_tokens < 1)
        return ST_OK;
    TRY(check_stem(seq, n_stem, err));
    TRY(model__reserve(m, seq->n_tokens, n_positions(seq), grad != NULL, err));
    TRY(model__upload(m, seq, err));
    int64_t n = 0;
    TRY(model__labelled(m, seq, &n, err));
    if (n == 0) { /* nothing to learn, nothing to weigh */
        memset(token_loss, 0, token_loss ? (size_t)seq->n_tokens * sizeof *token_loss : 0);
        return ST_OK;
    }
    model__want(m, seq, n);
    struct attention_shape shape = shape_of(m, seq);
    model__forward(m, seq->n_tokens, model__kept(m, seq), &shape, NULL, n);
    model__keep(m, seq);
    model__head_loss(m, seq, n, grad_scale, grad, loss_sum, token_loss);
    if (grad) {
        struct way_back back = {.n_tokens = seq->n_tokens, .shape = &shape, .n_wanted = n, .grad = grad};
        back.n_stem = n_stem;
        back.stem = grad + m->p->n_values;
        model__backward(m, &back);
    }
    m->ops->sync(m->dev);
    return ST_OK;
}

enum status model_stem_back(struct model *m, const int32_t *ids, int64_t n_stem, float *grad, struct err *err)
{
    if (n_stem < 1)
        return ST_OK;
    TRY(model__reserve(m, n_stem, n_stem, true, err));
    memset(m->host_ints, 0, ((size_t)n_stem + 1) * sizeof *m->host_ints); /* no labels */
    struct segment whole = {.n_tokens = (int32_t)n_stem, .parent = -1, .row = -1};
    struct packed seq = {.n_tokens = (int32_t)n_stem,
                         .n_segments = 1,
                         .ids = (int32_t *)ids,
                         .positions = m->host_all,
                         .first_label = m->host_ints,
                         .segments = &whole};
    struct attention_shape shape = shape_of(m, &seq);
    int64_t n_kept = model__kept(m, &seq);
    TRY(model__upload(m, &seq, err));
    if (n_kept < n_stem) { /* this rank had no sequence with them, or not the memory for all layers */
        model__forward(m, n_stem, n_kept, &shape, NULL, 0);
        model__keep(m, &seq);
    }
    struct way_back back = {.n_tokens = n_stem, .shape = &shape, .grad = grad};
    back.n_stem = n_stem;
    back.stem = grad + m->p->n_values;
    model__backward(m, &back);
    m->ops->sync(m->dev);
    return ST_OK;
}

enum status model_logits(struct model *m, const struct packed *seq, float *logits, struct err *err)
{
    int64_t h = m->a->hidden, t = seq->n_tokens;
    if (t < 1)
        return ST_OK;
    TRY(model__reserve(m, t, n_positions(seq), false, err));
    TRY(model__upload(m, seq, err));
    struct attention_shape shape = shape_of(m, seq);
    model__forward(m, t, 0, &shape, NULL, ALL_TOKENS);
    m->ops->rms_norm(m->dev, m->head_norm, m->head_inv, m->x_out, m->w->final_norm, t, h, m->a->rms_eps,
                     m->a->norm_offset);
    for (int64_t at = 0; at < t; at += m->chunk) {
        int64_t k = t - at < m->chunk ? t - at : m->chunk;
        model__head_logits(m, m->head_norm + at * h, k);
        m->ops->download(m->dev, logits + at * m->v_rows, m->logits, (size_t)(k * m->v_rows) * sizeof(float));
    }
    return ST_OK;
}
