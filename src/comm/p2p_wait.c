/* Posting messages, and the loop that waits for them. */
#include "p2p_internal.h"
#include "util/fatal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TAG     32767 /* what MPI guarantees */
#define OPS_PER_TAG 16

const char *p2p__op_name(enum comm_op op)
{
    switch (op) {
#define COMM_OP_NAME(name, text)                                                                             \
    case name:                                                                                               \
        return text;
        COMM_OP_LIST(COMM_OP_NAME)
#undef COMM_OP_NAME
    }
    return "unknown operation";
}

void p2p__must(struct comm *c, enum status st, struct err *err)
{
    const struct p2p *s = c->impl;
    if (st == ST_OK)
        return;
    if (s != NULL && s->call.op != OP_NONE)
        err_where(err, "%s", p2p__op_name(s->call.op));
    fatal(err);
}

void p2p__init(struct p2p *s, const struct transport *via)
{
    s->via = via;
    s->in.incoming = true;
    pthread_mutex_init(&s->lock, NULL);
}

enum status p2p__alloc(struct p2p *s, int world_size, struct err *err)
{
    size_t n = (size_t)world_size;
    s->leaders = calloc(n, sizeof *s->leaders);
    s->hosts = calloc(n, sizeof *s->hosts);
    s->peers = calloc(n, sizeof *s->peers);
    if (s->leaders == NULL || s->hosts == NULL || s->peers == NULL)
        return err_memory(err, "a table of ranks", n * sizeof *s->hosts);
    return ST_OK;
}

static void requests_release(struct requests *set)
{
    free(set->items);
    free(set->peers);
    free(set->n_bytes);
    free(set->through);
    memset(set, 0, sizeof *set);
}

void p2p__release(struct p2p *s)
{
    requests_release(&s->in);
    requests_release(&s->out);
    pthread_mutex_destroy(&s->lock);
    free(s->leaders);
    free(s->hosts);
    free(s->peers);
}

static void grow(struct comm *c, void **array, int n, size_t each)
{
    struct err err = ERR_INIT;
    void *p = realloc(*array, (size_t)n * each);
    if (p == NULL)
        p2p__must(c, err_memory(&err, "messages under way", (size_t)n * each), &err);
    *array = p;
}

static void requests_reserve(struct comm *c, struct requests *set)
{
    const struct p2p *s = c->impl;
    if (set->n < set->capacity)
        return;
    int n = set->capacity > 0 ? set->capacity * 2 : 64;
    grow(c, &set->items, n, s->via->request_bytes);
    grow(c, (void **)&set->peers, n, sizeof *set->peers);
    grow(c, (void **)&set->n_bytes, n, sizeof *set->n_bytes);
    grow(c, (void **)&set->through, n, sizeof *set->through);
    set->capacity = n;
}

/* FNV-1a (Fowler, Noll, Vo) over words. */
static uint64_t digest(uint64_t past, const struct op_call *call)
{
    /* What bcast_nodes is called with concerns the hosts' lowest ranks alone. */
    const uint64_t words[] = {call->op, (uint64_t)call->root, call->op == OP_BCAST ? call->n_bytes : 0};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        past = (past ^ words[i]) * 0x100000001b3u;
    return past;
}

void p2p__begin(struct comm *c, struct op_call call)
{
    struct p2p *s = c->impl;
    s->in.n = s->in.n_pending = s->out.n = s->out.n_pending = 0;
    pthread_mutex_lock(&s->lock);
    s->number++;
    s->call = call;
    s->past = digest(s->past, &call);
    s->since_s = s->via->now_s(c);
    pthread_mutex_unlock(&s->lock);
}

void p2p__end(struct comm *c)
{
    struct p2p *s = c->impl;
    p2p__wait(c, &s->in, -1);
    p2p__wait(c, &s->out, -1);
    pthread_mutex_lock(&s->lock);
    s->call = (struct op_call){.op = OP_NONE};
    pthread_mutex_unlock(&s->lock);
}

static int tag_now(const struct p2p *s)
{
    return (int)(s->number % (MAX_TAG / OPS_PER_TAG)) * OPS_PER_TAG + (int)s->call.op;
}

/* The transport posts it between the two. */
static void post_begin(struct comm *c, struct requests *set, int peer, size_t n_bytes)
{
    requests_reserve(c, set);
    set->peers[set->n] = peer;
    set->n_bytes[set->n] = n_bytes;
    set->through[set->n] = false;
}

static void post_end(struct requests *set)
{
    set->n++;
    set->n_pending++;
}

void p2p__post_send(struct comm *c, int peer, const void *data, size_t n_bytes)
{
    struct p2p *s = c->impl;
    const size_t chunk_bytes = s->via->chunk_bytes;
    for (size_t at = 0; at < n_bytes; at += chunk_bytes) {
        size_t n = n_bytes - at < chunk_bytes ? n_bytes - at : chunk_bytes;
        post_begin(c, &s->out, peer, n);
        s->via->send(c, &s->out, peer, (const char *)data + at, n, tag_now(s));
        post_end(&s->out);
    }
}

void p2p__post_recv(struct comm *c, int peer, void *data, size_t n_bytes)
{
    struct p2p *s = c->impl;
    const size_t chunk_bytes = s->via->chunk_bytes;
    for (size_t at = 0; at < n_bytes; at += chunk_bytes) {
        size_t n = n_bytes - at < chunk_bytes ? n_bytes - at : chunk_bytes;
        post_begin(c, &s->in, peer, n);
        s->via->recv(c, &s->in, peer, (char *)data + at, n, tag_now(s));
        post_end(&s->in);
    }
}

void p2p__through(struct comm *c, struct requests *set, int i, size_t came)
{
    const struct p2p *s = c->impl;
    set->through[i] = true;
    set->n_pending--;
    if (!set->incoming || came == set->n_bytes[i])
        return;
    struct err err = ERR_INIT;
    char size[32] = "more";
    if (came != P2P_MORE)
        snprintf(size, sizeof size, "%zu", came);
    err_set(&err, ST_DEFECT,
            "ranks disagree about %s (operation %lld): rank %d on %s expects %zu bytes in a message of rank "
            "%d on %s, which sent %s",
            p2p__op_name(s->call.op), (long long)s->number, c->rank, c->host, set->n_bytes[i], set->peers[i],
            s->hosts[set->peers[i]], size);
    fatal(&err);
}

static bool set_done(const struct requests *set, int i)
{
    return i < 0 ? set->n_pending == 0 : set->through[i];
}

void p2p__wait(struct comm *c, struct requests *set, int i)
{
    if (set_done(set, i))
        return;
    const struct p2p *s = c->impl;
    double start_s = s->via->now_s(c), moved_s = start_s, now_s = start_s, checked_s = start_s, nap_s = 0;
    const double gap_s = c->timeout_s / 8;
    for (;;) {
        if (s->via->test(c, set)) {
            moved_s = now_s;
            nap_s = 0;
        }
        if (set_done(set, i))
            return;
        s->via->aside(c, now_s - moved_s, &nap_s);
        double then_s = now_s;
        now_s = s->via->now_s(c);
        /* This process itself was stopped for a while (suspended, swapped out): the peers had no chance. */
        if (now_s - then_s > gap_s)
            start_s = checked_s = now_s;
        if (now_s - checked_s > gap_s / 4) {
            p2p__check_peers(c, set, moved_s > start_s ? moved_s : start_s, now_s);
            checked_s = now_s;
        }
    }
}
