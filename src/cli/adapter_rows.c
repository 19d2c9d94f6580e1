/* Which rows an adapter trains, by its adapter_config.json. */
#include "assemble.h"

#include <string.h>

static bool equal_lists(const struct adapter_config *c)
{
    return c->n_embed_rows == c->n_head_rows &&
           (c->n_head_rows == 0 ||
            memcmp(c->embed_rows, c->head_rows, (size_t)c->n_head_rows * sizeof *c->head_rows) == 0);
}

/* The ids of a list are one run, in whatever order. Each is there once. */
static enum status run_of(const int64_t *ids, int64_t n, const char *dir, int64_t *first, struct err *err)
{
    int64_t last = ids[0];
    *first = ids[0];
    for (int64_t i = 1; i < n; i++) {
        *first = ids[i] < *first ? ids[i] : *first;
        last = ids[i] > last ? ids[i] : last;
    }
    if (last - *first + 1 == n)
        return ST_OK;
    err_set(err, ST_INPUT,
            "%s: trainable_token_indices are %lld ids between %lld and %lld, not one run of ids", dir,
            (long long)n, (long long)*first, (long long)last);
    return err_hint(err, "new rows lie one behind the other in the vocabulary here");
}

enum status rows_from_adapter(struct adapter_rows *out, const struct adapter_config *c, bool tied,
                              const char *dir, struct err *err)
{
    int64_t head_first = 0;
    *out = (struct adapter_rows){0};
    /* With one matrix for both PEFT lists the embedding alone. */
    const bool one = tied && c->ensure_weight_tying && c->modules_to_save_embed;
    if (c->modules_to_save_embed != c->modules_to_save_head && !one) {
        err_set(err, ST_INPUT, "%s: modules_to_save has %s alone", dir,
                c->modules_to_save_head ? "lm_head" : "embed_tokens");
        return err_hint(err, "train both, embed_tokens and lm_head");
    }
    if (c->modules_to_save_embed) {
        out->apart = !one;
        return ST_OK;
    }
    if (c->n_embed_rows == 0 && c->n_head_rows == 0)
        return ST_OK;
    if (c->n_embed_rows == 0 || (c->n_head_rows == 0 && !tied)) {
        err_set(err, ST_INPUT, "%s: trainable_token_indices has rows of %s alone", dir,
                c->n_head_rows ? "lm_head" : "embed_tokens");
        return err_hint(err, "train the same ids of embed_tokens and of lm_head");
    }
    TRY(run_of(c->embed_rows, c->n_embed_rows, dir, &out->first, err));
    out->n = c->n_embed_rows;
    if (c->n_head_rows > 0)
        TRY(run_of(c->head_rows, c->n_head_rows, dir, &head_first, err));
    if (c->n_head_rows > 0 && (head_first != out->first || c->n_head_rows != out->n))
        return err_set(err, ST_INPUT, "%s: trainable_token_indices of embed_tokens and lm_head are other ids",
                       dir);
    /* PEFT ties the two on a tied base when the lists are equal to their order. */
    out->apart = c->n_head_rows > 0 && !(tied && equal_lists(c));
    return ST_OK;
}
