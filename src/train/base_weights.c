#include "train/base_weights.h"

#include <stdlib.h>
#include <string.h>

/* In front of a rank's digests. */
struct head {
    int32_t node;
    char host[64];
};

struct host { /* rank 0: what a host's ranks brought together */
    int rank; /* the lowest */
    char name[64];
    struct weight_digest *digests; /* [n] */
};

static bool differ(const struct host *a, const struct host *b, int32_t i)
{
    return a->digests[i].rows != b->digests[i].rows || a->digests[i].packed != b->digests[i].packed;
}

/* The hosts in which tensor i differs from the first one: the host to blame, or -1. One whom all others
 * contradict alike is it, and so may be the first. */
static int odd_host(const struct host *hosts, int n_hosts, int32_t i)
{
    int first = -1, n_others = 0;
    for (int h = 1; h < n_hosts; h++) {
        if (!differ(&hosts[0], &hosts[h], i))
            continue;
        first = first < 0 ? h : first;
        n_others += !differ(&hosts[first], &hosts[h], i);
    }
    return n_hosts > 2 && n_others == n_hosts - 1 ? 0 : first;
}

static enum status name_host(const struct host *hosts, int odd, const struct arch *a, int32_t i,
                             struct err *err)
{
    char name[WEIGHT_NAME_BYTES];
    const struct host *it = &hosts[odd], *other = &hosts[odd == 0];
    const bool rows = it->digests[i].rows != other->digests[i].rows;
    TRY(weights_name(name, a, i, err));
    err_set(err, ST_ENV, "rank %d on %s: the frozen weights %s%s are not those of rank %d on %s", it->rank,
            it->name, name, rows ? "" : ", packed for the products,", other->rank, other->name);
    return err_hint(err,
                    rows ? "a fault of memory or network of one of the two hosts; start again, or without it"
                         : "a fault of memory of one of the two hosts; start again, or without it");
}

/* Rank 0: everybody's digests to their hosts. */
static enum status collect(struct host *hosts, int n_hosts, const struct buf *parts, int world_size,
                           int32_t n, struct err *err)
{
    const size_t n_bytes = (size_t)n * sizeof(struct weight_digest);
    for (int r = 0; r < world_size; r++) {
        struct head head;
        if (parts[r].n_bytes != sizeof head + n_bytes)
            return err_set(err, ST_DEFECT, "rank %d sent %zu bytes of digests", r, parts[r].n_bytes);
        memcpy(&head, parts[r].data, sizeof head);
        if (head.node < 0 || head.node >= n_hosts)
            return err_set(err, ST_DEFECT, "rank %d is on host %d of %d", r, (int)head.node, n_hosts);
        struct host *h = &hosts[head.node];
        if (h->digests == NULL) {
            h->rank = r;
            memcpy(h->name, head.host, sizeof h->name - 1);
            h->digests = calloc((size_t)n, sizeof *h->digests);
            if (h->digests == NULL)
                return err_memory(err, "digests of the weights", n_bytes);
        }
        for (int32_t i = 0; i < n; i++) {
            struct weight_digest d;
            memcpy(&d, parts[r].data + sizeof head + (size_t)i * sizeof d, sizeof d);
            h->digests[i].rows |= d.rows; /* one rank of the host has it, the others zero */
            h->digests[i].packed |= d.packed;
        }
    }
    for (int h = 0; h < n_hosts; h++)
        if (hosts[h].digests == NULL)
            return err_set(err, ST_DEFECT, "host %d of %d has no rank", h, n_hosts);
    return ST_OK;
}

static enum status judge(const struct comm *c, const struct buf *parts, const struct arch *a, int32_t n,
                         struct err *err)
{
    struct host *hosts = calloc((size_t)c->n_nodes, sizeof *hosts);
    if (hosts == NULL)
        return err_memory(err, "digests of the hosts", (size_t)c->n_nodes * sizeof *hosts);
    enum status st = collect(hosts, c->n_nodes, parts, c->world_size, n, err);
    for (int32_t i = 0; i < n && st == ST_OK; i++) {
        int odd = odd_host(hosts, c->n_nodes, i);
        if (odd >= 0)
            st = name_host(hosts, odd, a, i, err);
    }
    for (int h = 0; h < c->n_nodes; h++)
        free(hosts[h].digests);
    free(hosts);
    return st;
}

enum status base_weights_check(struct comm *c, const struct arch *a, const struct weight_digest *digests,
                               struct err *err)
{
    if (c->n_nodes < 2)
        return ST_OK;
    const int32_t n = weights_count(a);
    struct head head = {.node = c->node};
    const size_t n_bytes = sizeof head + (size_t)n * sizeof(struct weight_digest);
    unsigned char *mine = calloc(1, n_bytes);
    struct buf *parts = c->rank == 0 ? calloc((size_t)c->world_size, sizeof *parts) : NULL;
    enum status st = ST_OK;
    if (mine == NULL || (c->rank == 0 && parts == NULL))
        st = err_memory(err, "digests of the weights", n_bytes);
    else {
        memcpy(head.host, c->host, sizeof head.host - 1);
        memcpy(mine, &head, sizeof head);
        memcpy(mine + sizeof head, digests, (size_t)n * sizeof *digests);
    }
    st = comm_agree(c, st, err);
    if (st == ST_OK)
        st = c->ops->gather(c, mine, n_bytes, parts, err);
    if (st == ST_OK && c->rank == 0)
        st = judge(c, parts, a, n, err);
    for (int r = 0; parts != NULL && r < c->world_size; r++)
        buf_release(&parts[r]);
    free(parts);
    free(mine);
    return comm_agree(c, st, err);
}
