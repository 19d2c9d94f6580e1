/* Plain continuation of one sequence: no constraint, no penalties. */
#include "generate_internal.h"

#include <stdlib.h>

static bool is_stop(int32_t id, const int32_t *stop_ids, int32_t n_stop)
{
    for (int32_t i = 0; i < n_stop; i++)
        if (stop_ids[i] == id)
            return true;
    return false;
}

static enum status extend(struct model *m, struct kv_cache *cache, const int32_t *ids, int32_t n_ids,
                          const int32_t *stop_ids, int32_t n_stop, const struct sampler *s, float *logits,
                          struct candidates *c, struct ids *out, double *logprob, struct err *err)
{
    const int32_t sequence = 0;
    TRY(model_prefill(m, cache, sequence, ids, n_ids, logits, err));
    for (int32_t i = 0;;) {
        double p;
        TRY(candidates__gather(c, logits, NULL, (int32_t)model_vocab(m), err));
        int32_t id = candidates__choose(c, s, 0, (uint64_t)i, &p);
        *logprob += p;
        TRY(ids_push(out, id, err));
        if (++i >= s->max_new_tokens || is_stop(id, stop_ids, n_stop))
            return ST_OK;
        TRY(model_decode(m, cache, &sequence, &id, 1, logits, err));
    }
}

enum status generate_plain(struct model *m, const int32_t *ids, int32_t n_ids, const int32_t *stop_ids,
                           int32_t n_stop, const struct sampler *s, struct ids *out, double *logprob,
                           struct err *err)
{
    struct kv_cache *cache = NULL;
    struct candidates c = {0};
    int32_t v = (int32_t)model_vocab(m);
    ids_clear(out);
    *logprob = 0;
    TRY(sampler__check(s, err));
    if (n_ids < 1)
        return err_set(err, ST_USAGE, "there are no ids to continue");
    if (n_ids > INT32_MAX - s->max_new_tokens)
        return err_set(err, ST_USAGE, "%d ids and %d new ones are too many", n_ids, s->max_new_tokens);
    float *logits = malloc((size_t)v * sizeof *logits);
    enum status st =
        logits ? candidates__init(&c, v, err) : err_memory(err, "logits", (size_t)v * sizeof *logits);
    if (st == ST_OK)
        st = kv_cache_open(&cache, m, 1, n_ids + s->max_new_tokens, err);
    if (st == ST_OK)
        st = extend(m, cache, ids, n_ids, stop_ids, n_stop, s, logits, &c, out, logprob, err);
    kv_cache_close(cache);
    candidates__release(&c);
    free(logits);
    return st;
}
