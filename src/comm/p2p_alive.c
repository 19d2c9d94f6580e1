/* Who is alive, and whether all are doing the same. */
#include "p2p_internal.h"
#include "util/fatal.h"
#include <stdio.h>

#define MAX_NAMED 8

struct pong p2p__pong(const struct p2p *s, int to, double now_s)
{
    const struct op_call *call = &s->call;
    return (struct pong){.number = s->number,
                         .waited_s = call->op != OP_NONE ? now_s - s->since_s : -1,
                         .n_bytes = call->to_bytes != NULL ? call->to_bytes[to] : call->n_bytes,
                         .op = (int32_t)call->op,
                         .root = call->root};
}

static bool same_operation(const struct p2p *s, const struct pong *p)
{
    return p->number == s->number && p->op == (int32_t)s->call.op;
}

static bool same_call(const struct p2p *s, int r, const struct pong *p)
{
    if (s->call.from_bytes != NULL)
        return p->n_bytes == s->call.from_bytes[r];
    return p->root == s->call.root && p->n_bytes == s->call.n_bytes;
}

/* Both wait for longer than a message takes, and not in the same operation, or called it with something else:
 * a defect of the program. */
static bool is_apart(const struct comm *c, int r, const struct pong *p, double now_s)
{
    const struct p2p *s = c->impl;
    if (p->waited_s < c->timeout_s || now_s - s->since_s < c->timeout_s || p->number < s->number)
        return false;
    return !same_operation(s, p) || !same_call(s, r, p);
}

/* Whether r is apart is judged later: its last message may still be under way to a rank that was stopped. */
static void take_answer(struct comm *c, int r, const struct pong *p, double now_s)
{
    const struct p2p *s = c->impl;
    struct peer *peer = &s->peers[r];
    peer->heard_s = now_s;
    if (peer->apart_number == s->number || !is_apart(c, r, p, now_s))
        return;
    peer->apart = *p;
    peer->apart_number = s->number;
    peer->apart_since_s = now_s;
}

static _Noreturn void apart(struct comm *c, int r)
{
    const struct p2p *s = c->impl;
    const struct pong *p = &s->peers[r].apart;
    const char *op = p2p__op_name(s->call.op);
    const long long number = s->number;
    struct err err = ERR_INIT;
    if (!same_operation(s, p))
        err_set(&err, ST_DEFECT,
                "ranks wait for each other: rank %d on %s in %s (operation %lld), rank %d on %s in %s "
                "(operation %lld)",
                c->rank, c->host, op, number, r, s->hosts[r], p2p__op_name((enum comm_op)p->op),
                (long long)p->number);
    else if (s->call.from_bytes != NULL)
        err_set(&err, ST_DEFECT,
                "ranks disagree about %s (operation %lld): rank %d on %s expects %zu bytes of rank %d on %s, "
                "which sends %llu",
                op, number, c->rank, c->host, s->call.from_bytes[r], r, s->hosts[r],
                (unsigned long long)p->n_bytes);
    else
        err_set(&err, ST_DEFECT,
                "ranks disagree about %s (operation %lld): %zu bytes of rank %d on rank %d on %s, %llu bytes "
                "of rank %d on rank %d on %s",
                op, number, s->call.n_bytes, s->call.root, c->rank, c->host, (unsigned long long)p->n_bytes,
                (int)p->root, r, s->hosts[r]);
    fatal(&err);
}

void p2p__same_past(struct comm *c, int peer, uint64_t past)
{
    const struct p2p *s = c->impl;
    if (past == s->past)
        return;
    struct err err = ERR_INIT;
    err_set(
        &err, ST_DEFECT,
        "ranks went different ways: before %s (operation %lld) rank %d on %s called other operations than "
        "rank %d on %s, or broadcasts of other sizes",
        p2p__op_name(s->call.op), (long long)s->number, c->rank, c->host, peer, s->hosts[peer]);
    fatal(&err);
}

static _Noreturn void silent(struct comm *c, const int *ranks, int n, int n_all)
{
    const struct p2p *s = c->impl;
    char text[800];
    size_t at = 0;
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%srank %d on %s", i > 0 ? ", " : "", ranks[i],
                               s->hosts[ranks[i]]);
    if (n_all > n)
        snprintf(text + at, sizeof text - at, " and %d more", n_all - n);
    struct err err = ERR_INIT;
    err_set(&err, ST_ENV, "nothing heard for %g s from %s (%s, operation %lld)", c->timeout_s, text,
            p2p__op_name(s->call.op), (long long)s->number);
    err_hint(&err,
             "the process or its host is stopped, dead or cut off: look at that host, then start again; "
             "the run goes on from its newest checkpoint (the limit is option comm_timeout)");
    fatal(&err);
}

static bool seen_before(const struct requests *set, int i)
{
    for (int j = i - 1; j >= 0; j--)
        if (set->peers[j] == set->peers[i] && !set->through[j])
            return true;
    return false;
}

void p2p__check_peers(struct comm *c, const struct requests *set, double since_s, double now_s)
{
    struct p2p *s = c->impl;
    struct pong p;
    int r = 0;
    while (s->answers && s->via->answer(c, &r, &p))
        take_answer(c, r, &p, now_s);
    int named[MAX_NAMED], n_named = 0, n_silent = 0;
    for (int i = 0; i < set->n; i++) {
        if (set->through[i] || seen_before(set, i))
            continue;
        struct peer *peer = &s->peers[set->peers[i]];
        if (peer->apart_number == s->number && now_s - peer->apart_since_s > c->timeout_s / 8)
            apart(c, set->peers[i]);
        double last_s = peer->heard_s > since_s ? peer->heard_s : since_s;
        if (now_s - last_s > c->timeout_s) {
            if (n_named < MAX_NAMED)
                named[n_named++] = set->peers[i];
            n_silent++;
        } else if (s->answers && now_s - last_s > c->timeout_s / 4 &&
                   now_s - peer->asked_s > c->timeout_s / 8) {
            s->via->ask(c, set->peers[i]);
            peer->asked_s = now_s;
        }
    }
    if (n_silent > 0)
        silent(c, named, n_named, n_silent);
}
