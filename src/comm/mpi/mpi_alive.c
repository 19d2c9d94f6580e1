/* Who is alive. A rank that waits asks the peers it waits for; a thread of each rank answers, so that a rank
 * that reads a file or computes for an hour is heard of, and one that is stopped, dead or cut off is not.
 * The answer says what the peer is doing: two ranks that wait in different operations wait for ever. */
#include "mpi_internal.h"
#include "util/clock.h"
#include "util/fatal.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LISTEN_EVERY_S 0.1
#define MAX_NAMED      8

enum { TAG_PING = 1, TAG_PONG = 2 };

/* Answers all who ask. Called with the lock held; a failure means that MPI is going down. */
static bool answer(struct mpi_state *s)
{
    for (;;) {
        int there = 0;
        MPI_Status from;
        if (MPI_Iprobe(MPI_ANY_SOURCE, TAG_PING, s->alive, &there, &from) != MPI_SUCCESS)
            return false;
        if (!there)
            return true;
        struct peer *p = &s->peers[from.MPI_SOURCE];
        if (MPI_Recv(NULL, 0, MPI_BYTE, from.MPI_SOURCE, TAG_PING, s->alive, MPI_STATUS_IGNORE) !=
            MPI_SUCCESS)
            return false;
        int free_again = 1; /* the buffer of the last answer; else that answer will do */
        if (p->pong != MPI_REQUEST_NULL && MPI_Test(&p->pong, &free_again, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            return false;
        if (!free_again)
            continue;
        p->pong_out = (struct pong){.number = s->number,
                                    .waited_s = s->op != OP_NONE ? clock_s() - s->since_s : -1,
                                    .op = (int32_t)s->op};
        if (MPI_Isend(&p->pong_out, sizeof p->pong_out, MPI_BYTE, from.MPI_SOURCE, TAG_PONG, s->alive,
                      &p->pong) != MPI_SUCCESS)
            return false;
    }
}

static void *listen_main(void *arg)
{
    struct mpi_state *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)(LISTEN_EVERY_S * 1e9);
        if (until.tv_nsec >= 1000000000L) {
            until.tv_nsec -= 1000000000L;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&s->wake, &s->lock, &until);
        if (!s->stop && !answer(s))
            break;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

void mpi__listen(struct comm *c)
{
    struct mpi_state *s = c->impl;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    struct err err = ERR_INIT;
    int code = pthread_create(&s->thread, NULL, listen_main, s);
    if (code != 0)
        mpi__must_status(c, err_set(&err, ST_ENV, "cannot start a thread: %s", strerror(code)), &err);
    s->listening = true;
}

static void request_drop(MPI_Request *r)
{
    int done = 0;
    if (*r != MPI_REQUEST_NULL && MPI_Test(r, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done)
        MPI_Request_free(r);
}

void mpi__listen_stop(struct comm *c)
{
    struct mpi_state *s = c->impl;
    if (!s->listening)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->wake);
    s->listening = false;
    for (int r = 0; r < c->world_size; r++) {
        request_drop(&s->peers[r].ping);
        request_drop(&s->peers[r].pong);
    }
}

static void ask(struct comm *c, int r, double now_s)
{
    struct mpi_state *s = c->impl;
    struct peer *p = &s->peers[r];
    int free_again = 1, code = MPI_SUCCESS;
    pthread_mutex_lock(&s->lock);
    if (p->ping != MPI_REQUEST_NULL)
        code = MPI_Test(&p->ping, &free_again, MPI_STATUS_IGNORE);
    if (code == MPI_SUCCESS && free_again)
        code = MPI_Isend(NULL, 0, MPI_BYTE, r, TAG_PING, s->alive, &p->ping);
    pthread_mutex_unlock(&s->lock);
    MPI_CHECK(c, code, "MPI_Isend");
    p->asked_s = now_s;
}

/* One answer that has come in. */
static bool take_pong(struct comm *c, int *rank, struct pong *out)
{
    struct mpi_state *s = c->impl;
    int there = 0;
    MPI_Status from;
    pthread_mutex_lock(&s->lock);
    int code = MPI_Iprobe(MPI_ANY_SOURCE, TAG_PONG, s->alive, &there, &from);
    if (code == MPI_SUCCESS && there)
        code = MPI_Recv(out, sizeof *out, MPI_BYTE, from.MPI_SOURCE, TAG_PONG, s->alive, MPI_STATUS_IGNORE);
    pthread_mutex_unlock(&s->lock);
    MPI_CHECK(c, code, "MPI_Iprobe");
    if (there)
        *rank = from.MPI_SOURCE;
    return there;
}

/* Both wait for longer than a message takes, and not in the same operation: a defect of the program. */
static void check_deadlock(struct comm *c, int r, const struct pong *p, double now_s)
{
    const struct mpi_state *s = c->impl;
    bool apart = p->number > s->number || (p->number == s->number && p->op != (int32_t)s->op);
    if (!apart || p->waited_s < c->timeout_s || now_s - s->since_s < c->timeout_s)
        return;
    struct err err = ERR_INIT;
    err_set(&err, ST_DEFECT,
            "ranks wait for each other: rank %d on %s in %s (operation %lld), rank %d on %s in %s (operation "
            "%lld)",
            c->rank, c->host, mpi__op_name(s->op), (long long)s->number, r, s->hosts[r],
            mpi__op_name((enum mpi_op)p->op), (long long)p->number);
    fatal(&err);
}

static _Noreturn void silent(struct comm *c, const int *ranks, int n, int n_all)
{
    const struct mpi_state *s = c->impl;
    char text[800];
    size_t at = 0;
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%srank %d on %s", i > 0 ? ", " : "", ranks[i],
                               s->hosts[ranks[i]]);
    if (n_all > n)
        snprintf(text + at, sizeof text - at, " and %d more", n_all - n);
    struct err err = ERR_INIT;
    err_set(&err, ST_ENV, "nothing heard for %g s from %s (%s, operation %lld)", c->timeout_s, text,
            mpi__op_name(s->op), (long long)s->number);
    err_hint(&err,
             "the process or its host is stopped, dead or cut off: look at that host, then start again; "
             "the run goes on from its newest checkpoint (the limit is option comm_timeout)");
    fatal(&err);
}

static bool seen_before(const struct requests *set, int i)
{
    for (int j = i - 1; j >= 0; j--)
        if (set->peers[j] == set->peers[i] && set->items[j] != MPI_REQUEST_NULL)
            return true;
    return false;
}

void mpi__check_peers(struct comm *c, const struct requests *set, double since_s, double now_s)
{
    struct mpi_state *s = c->impl;
    struct pong p;
    int r = 0;
    while (s->listening && take_pong(c, &r, &p)) {
        s->peers[r].heard_s = now_s;
        check_deadlock(c, r, &p, now_s);
    }
    int named[MAX_NAMED], n_named = 0, n_silent = 0;
    for (int i = 0; i < set->n; i++) {
        if (set->items[i] == MPI_REQUEST_NULL || seen_before(set, i))
            continue;
        struct peer *peer = &s->peers[set->peers[i]];
        double last_s = peer->heard_s > since_s ? peer->heard_s : since_s;
        if (now_s - last_s > c->timeout_s) {
            if (n_named < MAX_NAMED)
                named[n_named++] = set->peers[i];
            n_silent++;
        } else if (s->listening && now_s - last_s > c->timeout_s / 4 &&
                   now_s - peer->asked_s > c->timeout_s / 8) {
            ask(c, set->peers[i], now_s);
        }
    }
    if (n_silent > 0)
        silent(c, named, n_named, n_silent);
}
