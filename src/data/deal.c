/* A step's rows before they are packed: their order, what all of them begin with, and which shard gets which.
 */
#include "batch_internal.h"
#include <stdlib.h>

/* A stem has its own walk through all layers, which costs about as much as that of some dozen tokens. */
#define STEM_MIN 32

static int runs_compare(const int32_t *a, const int32_t *b, int32_t n)
{
    const int32_t t = ids_differ(a, b, 0, n);
    return t == n ? 0 : a[t] < b[t] ? -1 : 1;
}

/* Total but for rows that are equal in everything, whose order nobody sees. */
static int rows_compare(const void *left, const void *right)
{
    const struct batch_row *a = left, *b = right;
    const int32_t n = a->n_tokens < b->n_tokens ? a->n_tokens : b->n_tokens;
    int order = runs_compare(a->ids, b->ids, n);
    if (order == 0)
        order = (a->n_tokens > b->n_tokens) - (a->n_tokens < b->n_tokens);
    return order != 0 ? order : runs_compare(a->labels, b->labels, n);
}

void step_sort(struct batch_row *rows, int32_t n_rows)
{
    qsort(rows, (size_t)n_rows, sizeof *rows, rows_compare);
}

/* Tokens that all rows begin with, before the first label of any. */
static int32_t rows_common(const struct batch_row *rows, int32_t n_rows)
{
    int32_t n = row_prompt(&rows[0]);
    for (int32_t i = 1; i < n_rows; i++) {
        int32_t end = row_prompt(&rows[i]);
        n = ids_differ(rows[i].ids, rows[0].ids, 0, n < end ? n : end);
    }
    return n;
}

int32_t step_stem(const struct batch_row *rows, int32_t n_rows, int32_t n_shards)
{
    if (n_rows < n_shards || n_rows < 2)
        return 0;
    int32_t n = rows_common(rows, n_rows);
    return n < STEM_MIN ? 0 : n;
}

/* What dealing a step's rows needs to know. */
struct dealing {
    const struct batch_row *rows;
    int32_t n_rows, n_shards;
    bool share_prefix;
    int32_t n_common; /* tokens that all rows begin with, which each shard has anyway */
    int64_t total;    /* what all rows add */
};

/* Tokens that row i has in common with the row before it. */
static int32_t row_shared(const struct dealing *d, int32_t i)
{
    const struct batch_row *r = &d->rows[i];
    if (!d->share_prefix)
        return 0;
    if (i == 0)
        return d->n_common;
    int32_t end = (row_needed(r) < row_needed(r - 1) ? row_needed(r) : row_needed(r - 1)) - 1;
    const int32_t n = ids_differ(r->ids, r[-1].ids, 0, end);
    return n < SHARE_MIN ? 0 : n;
}

/* Tokens that row i adds behind the one before it. */
static int32_t row_adds(const struct dealing *d, int32_t i)
{
    return row_needed(&d->rows[i]) - row_shared(d, i);
}

/* The row that shard s begins with, `first` or a later one, before which all rows add `before` tokens: near
 * to its part of the whole, and so that few tokens are computed in both shards. */
static int32_t shard_begin(const struct dealing *d, int32_t s, int32_t first, int64_t *before)
{
    const int64_t target = d->total * s / d->n_shards;
    const int32_t last = d->n_rows - (d->n_shards - s); /* one row for each shard */
    int64_t sum = *before, least = INT64_MAX;
    int32_t best = first;
    for (int32_t i = first; i <= last || i == first; i++) {
        const int64_t off = sum > target ? sum - target : target - sum;
        const int32_t again = row_shared(d, i) > d->n_common ? row_shared(d, i) - d->n_common : 0;
        if (off + again < least) {
            least = off + again;
            best = i;
            *before = sum;
        }
        if (sum - target > least)
            break;
        sum += row_adds(d, i);
    }
    return best;
}

void step_deal(const struct batch_row *rows, int32_t n_rows, int32_t n_shards, bool share_prefix,
               int32_t *first)
{
    struct dealing d = {.rows = rows, .n_rows = n_rows, .n_shards = n_shards, .share_prefix = share_prefix};
    int64_t before = 0;
    int32_t s = 0;
    if (share_prefix && n_rows > 0)
        d.n_common = rows_common(rows, n_rows);
    for (int32_t i = 0; i < n_rows; i++)
        d.total += row_adds(&d, i);
    first[0] = 0;
    while (s + 1 < n_shards && first[s] + 1 < n_rows) {
        before += row_adds(&d, first[s]);
        s++;
        first[s] = shard_begin(&d, s, first[s - 1] + 1, &before);
    }
    while (s < n_shards)
        first[++s] = n_rows;
}
