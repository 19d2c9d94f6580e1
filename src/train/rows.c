#include "train_internal.h"
#include <stdlib.h>
#include <string.h>

static enum status rows_reserve(struct rows *r, int64_t n_tokens, struct err *err)
{
    if (r->n_tokens + n_tokens <= r->capacity)
        return ST_OK;
    int64_t want = (r->n_tokens + n_tokens) * 3 / 2 + 1024;
    int32_t *ids = realloc(r->ids, (size_t)want * sizeof *ids);
    if (ids != NULL)
        r->ids = ids;
    int32_t *labels = realloc(r->labels, (size_t)want * sizeof *labels);
    if (labels != NULL)
        r->labels = labels;
    if (ids == NULL || labels == NULL)
        return err_memory(err, "rows of a batch", (size_t)want * sizeof *ids);
    r->capacity = want;
    return ST_OK;
}

static enum status rows_add(struct rows *r, struct pack *p, enum pack_group group, int64_t row,
                            struct err *err)
{
    const int32_t *ids, *labels;
    int32_t n;
    TRY(pack_row(p, group, row, &ids, &labels, &n, err));
    TRY(rows_reserve(r, n, err));
    memcpy(r->ids + r->n_tokens, ids, (size_t)n * sizeof *ids);
    memcpy(r->labels + r->n_tokens, labels, (size_t)n * sizeof *labels);
    r->items[r->n++].n_tokens = n;
    r->n_tokens += n;
    return ST_OK;
}

enum status rows__read(struct rows *r, struct pack *p, enum pack_group group, const int64_t *index, int64_t n,
                       struct err *err)
{
    if (n > r->n_items) {
        struct batch_row *items = realloc(r->items, (size_t)n * sizeof *items);
        if (items == NULL)
            return err_memory(err, "rows of a batch", (size_t)n * sizeof *items);
        r->items = items;
        r->n_items = n;
    }
    r->n = r->n_tokens = 0;
    for (int64_t i = 0; i < n; i++)
        TRY(rows_add(r, p, group, index[i], err));
    /* Only now do the arrays stay where they are. */
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        r->items[i].ids = r->ids + at;
        r->items[i].labels = r->labels + at;
        at += r->items[i].n_tokens;
    }
    return ST_OK;
}

void rows__release(struct rows *r)
{
    free(r->ids);
    free(r->labels);
    free(r->items);
    memset(r, 0, sizeof *r);
}
