/* The collectives, as messages between two ranks. */
#include "p2p_internal.h"
#include <stdlib.h>
#include <string.h>

enum status p2p__barrier_as(struct comm *c, enum comm_op op)
{
    struct p2p *s = c->impl;
    uint64_t theirs = 0;
    p2p__begin(c, (struct op_call){.op = op});
    const uint64_t mine = s->past;
    /* Dissemination: after round k everybody has heard, at second hand, of 2^(k+1) ranks. */
    for (int step = 1; step < c->world_size; step *= 2) {
        int before = (c->rank - step + c->world_size) % c->world_size;
        p2p__post_recv(c, before, &theirs, sizeof theirs);
        p2p__post_send(c, (c->rank + step) % c->world_size, &mine, sizeof mine);
        p2p__wait(c, &s->in, -1);
        p2p__same_past(c, before, theirs);
        p2p__wait(c, &s->out, -1);
    }
    p2p__end(c);
    return ST_OK;
}

enum status p2p__barrier(struct comm *c, struct err *err)
{
    return p2p__barrier_as(c, OP_BARRIER);
}

/* Binomial tree over n members, of which this rank is number `at`; ranks NULL: member i is rank i. Chunks
 * are passed on as they come in. */
static void tree_bcast(struct comm *c, const int *ranks, int n, int at, int root, void *data, size_t n_bytes)
{
    struct p2p *s = c->impl;
    const size_t chunk_bytes = s->via->chunk_bytes;
    int virt = (at - root + n) % n, span = 1; /* span: distance to the parent, lowest set bit of virt */
    while (span < n && (virt & span) == 0)
        span *= 2;
#define MEMBER(v) (ranks != NULL ? ranks[((v) + root) % n] : ((v) + root) % n)
    if (virt != 0)
        p2p__post_recv(c, MEMBER(virt - span), data, n_bytes);
    int chunk = 0;
    for (size_t done = 0; done < n_bytes; done += chunk_bytes, chunk++) {
        if (virt != 0)
            p2p__wait(c, &s->in, chunk);
        size_t left = n_bytes - done;
        for (int child = span / 2; child > 0; child /= 2)
            if (virt + child < n)
                p2p__post_send(c, MEMBER(virt + child), (char *)data + done,
                               left < chunk_bytes ? left : chunk_bytes);
    }
#undef MEMBER
}

enum status p2p__bcast(struct comm *c, int root, void *data, size_t n_bytes, struct err *err)
{
    if (root < 0 || root >= c->world_size)
        return err_set(err, ST_DEFECT, "broadcast from rank %d of %d", root, c->world_size);
    p2p__begin(c, (struct op_call){.op = OP_BCAST, .root = root, .n_bytes = n_bytes});
    tree_bcast(c, NULL, c->world_size, c->rank, root, data, n_bytes);
    p2p__end(c);
    return ST_OK;
}

enum status p2p__bcast_nodes(struct comm *c, void *data, size_t n_bytes, struct err *err)
{
    const struct p2p *s = c->impl;
    p2p__begin(c, (struct op_call){.op = OP_BCAST_NODES, .n_bytes = n_bytes});
    if (c->local_rank == 0)
        tree_bcast(c, s->leaders, c->n_nodes, c->node, 0, data, n_bytes);
    p2p__end(c);
    return ST_OK;
}

/* Room for n_bytes in b, and a NUL behind them. */
static void buf_size(struct comm *c, struct buf *b, uint64_t n_bytes)
{
    struct err err = ERR_INIT;
    buf_clear(b);
    p2p__must(c, buf_reserve(b, (size_t)n_bytes + 1, &err), &err);
    b->n_bytes = (size_t)n_bytes;
    b->data[n_bytes] = '\0';
}

struct head { /* goes before a message of a size that only the sender knows */
    uint64_t n_bytes, past;
};

static struct head *heads_alloc(struct comm *c)
{
    struct err err = ERR_INIT;
    struct head *heads = calloc((size_t)c->world_size, sizeof *heads);
    if (heads == NULL)
        p2p__must(c, err_memory(&err, "sizes of messages", (size_t)c->world_size * sizeof *heads), &err);
    return heads;
}

enum status p2p__scatter(struct comm *c, const struct buf *parts, struct buf *out, struct err *err)
{
    struct p2p *s = c->impl;
    p2p__begin(c, (struct op_call){.op = OP_SCATTER});
    if (c->rank != 0) {
        struct head head = {0};
        p2p__post_recv(c, 0, &head, sizeof head);
        p2p__wait(c, &s->in, -1);
        p2p__same_past(c, 0, head.past);
        buf_size(c, out, head.n_bytes);
        p2p__post_recv(c, 0, out->data, out->n_bytes);
        p2p__end(c);
        return ST_OK;
    }
    struct head *heads = heads_alloc(c);
    for (int r = 1; r < c->world_size; r++) {
        heads[r] = (struct head){.n_bytes = parts[r].n_bytes, .past = s->past};
        p2p__post_send(c, r, &heads[r], sizeof heads[r]);
        p2p__post_send(c, r, parts[r].data, parts[r].n_bytes);
    }
    buf_size(c, out, parts[0].n_bytes);
    if (parts[0].n_bytes > 0)
        memcpy(out->data, parts[0].data, parts[0].n_bytes);
    p2p__end(c);
    free(heads);
    return ST_OK;
}

enum status p2p__gather(struct comm *c, const void *data, size_t n_bytes, struct buf *parts, struct err *err)
{
    struct p2p *s = c->impl;
    p2p__begin(c, (struct op_call){.op = OP_GATHER});
    if (c->rank != 0) {
        struct head head = {.n_bytes = n_bytes, .past = s->past};
        p2p__post_send(c, 0, &head, sizeof head);
        p2p__post_send(c, 0, data, n_bytes);
        p2p__end(c);
        return ST_OK;
    }
    struct head *heads = heads_alloc(c);
    for (int r = 1; r < c->world_size; r++)
        p2p__post_recv(c, r, &heads[r], sizeof heads[r]);
    p2p__wait(c, &s->in, -1);
    for (int r = 1; r < c->world_size; r++) {
        p2p__same_past(c, r, heads[r].past);
        buf_size(c, &parts[r], heads[r].n_bytes);
        p2p__post_recv(c, r, parts[r].data, parts[r].n_bytes);
    }
    buf_size(c, &parts[0], n_bytes);
    if (n_bytes > 0)
        memcpy(parts[0].data, data, n_bytes);
    p2p__end(c);
    free(heads);
    return ST_OK;
}

enum status p2p__exchange(struct comm *c, const void *const *send, const size_t *send_bytes,
                          void *const *recv, const size_t *recv_bytes, struct err *err)
{
    if (send_bytes[c->rank] != recv_bytes[c->rank])
        return err_set(err, ST_DEFECT, "exchange with itself of %zu and %zu bytes", send_bytes[c->rank],
                       recv_bytes[c->rank]);
    p2p__begin(c, (struct op_call){.op = OP_EXCHANGE, .to_bytes = send_bytes, .from_bytes = recv_bytes});
    /* Each rank begins with another neighbour, so that nobody is everybody's first. */
    for (int i = 1; i < c->world_size; i++) {
        int r = (c->rank - i + c->world_size) % c->world_size;
        p2p__post_recv(c, r, recv[r], recv_bytes[r]);
    }
    for (int i = 1; i < c->world_size; i++) {
        int r = (c->rank + i) % c->world_size;
        p2p__post_send(c, r, send[r], send_bytes[r]);
    }
    if (send_bytes[c->rank] > 0)
        memmove(recv[c->rank], send[c->rank], send_bytes[c->rank]);
    p2p__end(c);
    return ST_OK;
}
