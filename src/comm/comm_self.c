/* One rank, no library: every collective is a copy at most. */
#include "comm_internal.h"
#include <stdlib.h>
#include <string.h>

static void self_close(struct comm *c)
{
}

static enum status self_barrier(struct comm *c, struct err *err)
{
    return ST_OK;
}

static enum status self_root(int root, struct err *err)
{
    if (root != 0)
        return err_set(err, ST_DEFECT, "broadcast from rank %d of 1", root);
    return ST_OK;
}

static enum status self_bcast(struct comm *c, int root, void *data, size_t n_bytes, struct err *err)
{
    return self_root(root, err);
}

static enum status self_bcast_nodes(struct comm *c, void *data, size_t n_bytes, struct err *err)
{
    return ST_OK;
}

static enum status self_scatter(struct comm *c, const struct buf *parts, struct buf *out, struct err *err)
{
    buf_clear(out);
    return buf_append(out, parts[0].data, parts[0].n_bytes, err);
}

static enum status self_gather(struct comm *c, const void *data, size_t n_bytes, struct buf *parts,
                               struct err *err)
{
    buf_clear(&parts[0]);
    return buf_append(&parts[0], data, n_bytes, err);
}

static enum status self_exchange(struct comm *c, const void *const *send, const size_t *send_bytes,
                                 void *const *recv, const size_t *recv_bytes, struct err *err)
{
    if (send_bytes[0] != recv_bytes[0])
        return err_set(err, ST_DEFECT, "exchange with itself of %zu and %zu bytes", send_bytes[0],
                       recv_bytes[0]);
    if (send_bytes[0] > 0)
        memmove(recv[0], send[0], send_bytes[0]);
    return ST_OK;
}

static enum status self_shared_alloc(struct comm *c, size_t n_bytes, struct comm_shared *out, struct err *err)
{
    return comm__pages_alloc(n_bytes, out, err);
}

static void self_shared_forget(struct comm *c, struct comm_shared *s, size_t from, size_t n_bytes)
{
    comm__pages_forget(s, from, n_bytes, false);
}

static void self_shared_release(struct comm *c, struct comm_shared *s)
{
    comm__pages_release(s);
}

static void self_abort(struct comm *c, int exit_code)
{
    _Exit(exit_code);
}

static const struct comm_ops self_ops = {
    .name = "self",
    .close = self_close,
    .barrier = self_barrier,
    .bcast = self_bcast,
    .bcast_nodes = self_bcast_nodes,
    .scatter = self_scatter,
    .gather = self_gather,
    .exchange = self_exchange,
    .shared_alloc = self_shared_alloc,
    .shared_forget = self_shared_forget,
    .shared_release = self_shared_release,
    .abort = self_abort,
};

enum status comm_open_self(struct comm *c, struct err *err)
{
    comm__init(c);
    c->ops = &self_ops;
    return ST_OK;
}
