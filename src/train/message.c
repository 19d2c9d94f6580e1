#include "train_internal.h"
#include <stdlib.h>
#include <string.h>

int32_t train__most_stem(const struct arch *a, const struct params *p)
{
    enum { FREE_VALUES = 1 << 24 };
    int64_t most = (p->n_values > FREE_VALUES ? p->n_values : FREE_VALUES) / model_stem_values(a, 1);
    return most < INT32_MAX ? (int32_t)most : INT32_MAX;
}

int32_t train__stem(const struct batch_row *rows, int32_t n_rows, int32_t n_shards, int32_t most)
{
    int32_t n = step_stem(rows, n_rows, n_shards);
    return n < most ? n : most;
}

enum status messages__open(struct messages *m, const struct train_context *c, const struct train_options *o,
                           struct plan *plan, struct err *err)
{
    *m = (struct messages){.pack = c->pack,
                           .plan = plan,
                           .n_shards = o->virtual_shards,
                           .max_tokens = o->max_pack_tokens,
                           .most_stem = train__most_stem(model_arch(c->model), c->params),
                           .share_prefix = o->share_prefix,
                           .world_size = c->comm->world_size,
                           .step = -1,
                           .err = ERR_INIT};
    size_t n_rows = (size_t)o->batch_train * (size_t)o->grad_accum;
    m->index = calloc(n_rows, sizeof *m->index);
    m->first_row = calloc((size_t)m->n_shards + 1, sizeof *m->first_row);
    m->shards = calloc((size_t)m->n_shards, sizeof *m->shards);
    m->parts = calloc((size_t)m->world_size, sizeof *m->parts);
    if (m->index == NULL || m->first_row == NULL || m->shards == NULL || m->parts == NULL)
        return err_memory(err, "messages of a step", n_rows * sizeof *m->index);
    return ST_OK;
}

static void shards_drop(struct messages *m)
{
    for (int32_t s = 0; s < m->n_shards; s++) {
        shard_release(&m->shards[s]);
        memset(&m->shards[s], 0, sizeof m->shards[s]);
    }
}

void messages__close(struct messages *m)
{
    if (m->shards != NULL)
        shards_drop(m);
    for (int r = 0; m->parts != NULL && r < m->world_size; r++)
        buf_release(&m->parts[r]);
    rows__release(&m->rows);
    free(m->index);
    free(m->first_row);
    free(m->shards);
    free(m->parts);
    memset(m, 0, sizeof *m);
}

static enum status shards_make(struct messages *m, int32_t n_rows, struct step_head *head, struct err *err)
{
    step_deal(m->rows.items, n_rows, m->n_shards, m->share_prefix, m->first_row);
    for (int32_t s = 0; s < m->n_shards; s++) {
        int32_t first = m->first_row[s], end = m->first_row[s + 1];
        if (first == end)
            continue; /* fewer rows than shards: an empty shard adds nothing */
        TRY(shard_make(&m->shards[s], m->rows.items + first, end - first, first, m->max_tokens,
                       m->share_prefix, err));
        for (int32_t i = 0; i < m->shards[s].n_sequences; i++)
            head->n_labels += m->shards[s].sequences[i].n_labels;
    }
    return ST_OK;
}

static enum status make(struct messages *m, int64_t step, struct err *err)
{
    int32_t n_rows = 0;
    TRY(plan_step(m->plan, step, m->index, &n_rows, err));
    TRY(rows__read(&m->rows, m->pack, PACK_TRAIN, m->index, n_rows, err));
    struct step_head head = {.step = step, .n_rows = n_rows, .n_tokens = m->rows.n_tokens};
    if (m->share_prefix)
        step_sort(m->rows.items, n_rows);
    TRY(shards_make(m, n_rows, &head, err));
    if (m->share_prefix && head.n_labels > 0)
        head.n_stem = train__stem(m->rows.items, n_rows, m->n_shards, m->most_stem);
    for (int r = 0; r < m->world_size; r++) {
        int first, end;
        tree_sum_range(m->n_shards, m->world_size, r, &first, &end);
        buf_clear(&m->parts[r]);
        TRY(step_write(&m->parts[r], &head, m->shards + first, end - first, err));
    }
    return ST_OK;
}

static void parts_clear(struct messages *m)
{
    for (int r = 0; r < m->world_size; r++)
        buf_clear(&m->parts[r]);
}

void messages__make(struct messages *m, int64_t step)
{
    m->step = step;
    m->err = (struct err)ERR_INIT;
    m->status = make(m, step, &m->err);
    shards_drop(m);
    if (m->status == ST_OK)
        return;
    err_where(&m->err, "step %lld", (long long)step + 1);
    parts_clear(m);
}

void messages__refuse(struct messages *m, int64_t step, const struct err *why)
{
    m->step = step;
    m->err = *why;
    m->status = why->status;
    parts_clear(m);
}
