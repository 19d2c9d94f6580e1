/* All ranks hold the same values and moments, bit for bit, by construction. A rank whose memory or processor
 * fails breaks that silently: so they compare digests of what they hold, and the one that differs is named.
 */
#include "train_internal.h"
#include "util/sha256.h"

#include <stdlib.h>
#include <string.h>

enum { DIGEST_BYTES = 32, HOST_BYTES = 64 };

/* What a rank says of itself. */
struct digest {
    unsigned char all[DIGEST_BYTES];
    char host[HOST_BYTES];
};

static void hash(const void *data, size_t n_bytes, unsigned char out[DIGEST_BYTES])
{
    struct sha256 h;
    sha256_init(&h);
    sha256_update(&h, data, n_bytes);
    sha256_final(&h, out);
}

/* Digests of each tensor's value, first and second moment, in this order: [3 n_items][DIGEST_BYTES]. */
static enum status hash_tensors(const struct trainer *t, unsigned char *out, struct err *err)
{
    const struct params *p = t->c->params;
    const float *vectors[3] = {t->c->values, t->optimizer.m, t->optimizer.v};
    size_t n_bytes = (size_t)p->n_values * sizeof(float);
    float *host = train__on_host(t->c->ops) ? NULL : malloc(n_bytes ? n_bytes : 1);
    if (host == NULL && !train__on_host(t->c->ops))
        return err_memory(err, "a copy of the values", n_bytes);
    for (int k = 0; k < 3; k++) {
        const float *x = vectors[k];
        if (host != NULL) {
            t->c->ops->download(t->c->dev, host, x, n_bytes);
            x = host;
        }
        for (int32_t i = 0; i < p->n_items; i++)
            hash(x + p->items[i].offset, (size_t)(p->items[i].rows * p->items[i].cols) * sizeof *x,
                 out + ((size_t)k * (size_t)p->n_items + (size_t)i) * DIGEST_BYTES);
    }
    free(host);
    return ST_OK;
}

/* The rank that stands alone, or of two equally large camps the one without rank 0; -1 when all agree. */
static int odd_rank(const struct buf *parts, int world_size)
{
    int best = -1, best_count = world_size + 1;
    for (int r = 0; r < world_size; r++) {
        int count = 0;
        for (int q = 0; q < world_size; q++)
            count += memcmp(parts[r].data, parts[q].data, DIGEST_BYTES) == 0;
        if (count < best_count ||
            (count == best_count && memcmp(parts[r].data, parts[0].data, DIGEST_BYTES) != 0 &&
             memcmp(parts[best].data, parts[0].data, DIGEST_BYTES) == 0)) {
            best = r;
            best_count = count;
        }
    }
    return best_count == world_size ? -1 : best;
}

/* Rank 0, with everybody's tensor digests: the first tensor in which the odd rank differs from another. */
static enum status name_tensor(const struct trainer *t, const struct buf *tensors, int odd, const char *host,
                               struct err *err)
{
    static const char *const what[] = {"values", "first moments", "second moments"};
    const struct params *p = t->c->params;
    int other = odd == 0 ? 1 : 0;
    for (int32_t i = 0; i < 3 * p->n_items; i++) {
        size_t at = (size_t)i * DIGEST_BYTES;
        if (memcmp(tensors[odd].data + at, tensors[other].data + at, DIGEST_BYTES) == 0)
            continue;
        err_set(err, ST_ENV, "rank %d on %s: after step %lld the %s of %s differ from those of rank %d", odd,
                host, (long long)t->step, what[i / p->n_items], p->items[i % p->n_items].name, other);
        return err_hint(err,
                        "a fault of memory or processor on one of the two hosts; start again without it, the "
                        "newest checkpoint is from before");
    }
    return err_set(err, ST_DEFECT, "rank %d on %s: its digest differs, but none of its tensors", odd, host);
}

static enum status find_difference(const struct trainer *t, const unsigned char *mine, size_t n_bytes,
                                   int odd, const char *host, struct err *err)
{
    struct comm *c = t->c->comm;
    struct buf *tensors = c->rank == 0 ? calloc((size_t)c->world_size, sizeof *tensors) : NULL;
    enum status st = c->rank == 0 && tensors == NULL ? err_memory(err, "digests of the ranks", 0) : ST_OK;
    TRY(comm_agree(c, st, err));
    st = c->ops->gather(c, mine, n_bytes, tensors, err);
    if (st == ST_OK && c->rank == 0)
        st = name_tensor(t, tensors, odd, host, err);
    for (int r = 0; tensors != NULL && r < c->world_size; r++)
        buf_release(&tensors[r]);
    free(tensors);
    return comm_agree(c, st, err);
}

/* *odd: the rank that differs, or -1; host: its host. */
static enum status compare(struct comm *c, const struct digest *mine, int *odd, char host[HOST_BYTES],
                           struct err *err)
{
    struct buf *parts = c->rank == 0 ? calloc((size_t)c->world_size, sizeof *parts) : NULL;
    enum status st = c->rank == 0 && parts == NULL ? err_memory(err, "digests of the ranks", 0) : ST_OK;
    TRY(comm_agree(c, st, err));
    st = c->ops->gather(c, mine, sizeof *mine, parts, err);
    *odd = -1;
    if (st == ST_OK && c->rank == 0) {
        *odd = odd_rank(parts, c->world_size);
        if (*odd >= 0)
            memcpy(host, ((const struct digest *)(const void *)parts[*odd].data)->host, HOST_BYTES);
    }
    for (int r = 0; parts != NULL && r < c->world_size; r++)
        buf_release(&parts[r]);
    free(parts);
    TRY(comm_agree(c, st, err));
    return c->ops->bcast(c, 0, odd, sizeof *odd, err);
}

enum status train__check_equal(const struct trainer *t, struct err *err)
{
    struct comm *c = t->c->comm;
    if (c->world_size == 1)
        return ST_OK;
    size_t n_bytes = 3 * (size_t)t->c->params->n_items * DIGEST_BYTES;
    unsigned char *tensors = malloc(n_bytes ? n_bytes : 1);
    struct digest mine = {0};
    char host[HOST_BYTES] = "";
    int odd = -1;
    enum status st =
        tensors ? hash_tensors(t, tensors, err) : err_memory(err, "digests of the tensors", n_bytes);
    st = comm_agree(c, st, err);
    if (st == ST_OK) {
        hash(tensors, n_bytes, mine.all);
        memcpy(mine.host, c->host, sizeof mine.host < sizeof c->host ? sizeof mine.host : sizeof c->host);
        st = compare(c, &mine, &odd, host, err);
    }
    if (st == ST_OK && odd >= 0)
        st = find_difference(t, tensors, n_bytes, odd, host, err);
    free(tensors);
    return st;
}
