/* Whether all ranks bring the same bytes: options, processor paths and the like, once at the start. */
#include "comm/comm.h"
#include <stdlib.h>
#include <string.h>

static void release(struct buf *parts, int n)
{
    for (int r = 0; parts != NULL && r < n; r++)
        buf_release(&parts[r]);
    free(parts);
}

/* Rank 0: the first part that is not its own is moved to out. */
static void find_other(int world_size, struct buf *parts, const struct buf *hosts, struct comm_other *out)
{
    for (int r = 1; r < world_size && out->rank < 0; r++) {
        if (parts[r].n_bytes == parts[0].n_bytes &&
            (parts[0].n_bytes == 0 || memcmp(parts[r].data, parts[0].data, parts[0].n_bytes) == 0))
            continue;
        out->rank = r;
        if (hosts[r].n_bytes == sizeof out->host)
            memcpy(out->host, hosts[r].data, sizeof out->host - 1);
        out->data = parts[r];
        parts[r] = (struct buf)BUF_INIT;
    }
}

enum status comm_compare(struct comm *c, const void *mine, size_t n_bytes, struct comm_other *out,
                         struct err *err)
{
    *out = (struct comm_other){.rank = -1, .data = BUF_INIT};
    if (c->world_size == 1)
        return ST_OK;
    struct buf *parts = NULL, *hosts = NULL;
    enum status st = ST_OK;
    if (c->rank == 0) {
        parts = calloc((size_t)c->world_size, sizeof *parts);
        hosts = calloc((size_t)c->world_size, sizeof *hosts);
        if (parts == NULL || hosts == NULL)
            st = err_memory(err, "a comparison of the ranks", 2 * (size_t)c->world_size * sizeof *parts);
    }
    st = comm_agree(c, st, err);
    if (st == ST_OK)
        st = c->ops->gather(c, mine, n_bytes, parts, err);
    if (st == ST_OK)
        st = c->ops->gather(c, c->host, sizeof c->host, hosts, err);
    if (st == ST_OK && c->rank == 0)
        find_other(c->world_size, parts, hosts, out);
    release(parts, c->world_size);
    release(hosts, c->world_size);
    return st;
}
