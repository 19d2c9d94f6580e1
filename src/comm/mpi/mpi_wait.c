/* Posting messages, and the loop that waits for them. */
#include "mpi_internal.h"
#include "util/clock.h"
#include "util/fatal.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define SPIN_S      40e-6 /* about what a message between two ranks of a host takes */
#define NAP_FIRST_S 20e-6
#define NAP_SHORT_S 200e-6 /* while an answer may come at any moment */
#define NAP_LONG_S  1e-3   /* after PATIENCE_S without one: the peers compute, leave them the cores */
#define PATIENCE_S  0.05
#define MAX_TAG     32767 /* what MPI guarantees */
#define OPS_PER_TAG 16

const char *mpi__op_name(enum mpi_op op)
{
    switch (op) {
#define MPI_OP_NAME(name, text)                                                                              \
    case name:                                                                                               \
        return text;
        MPI_OP_LIST(MPI_OP_NAME)
#undef MPI_OP_NAME
    }
    return "unknown operation";
}

void mpi__must_status(struct comm *c, enum status st, struct err *err)
{
    const struct mpi_state *s = c->impl;
    if (st == ST_OK)
        return;
    if (s != NULL && s->op != OP_NONE)
        err_where(err, "%s", mpi__op_name(s->op));
    fatal(err);
}

void mpi__must(struct comm *c, int code, const char *call, const char *file, int line)
{
    if (code == MPI_SUCCESS)
        return;
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    MPI_Error_string(code, text, &n);
    const char *base = strrchr(file, '/');
    struct err err = ERR_INIT;
    err_set(&err, ST_ENV, "MPI failed on rank %d, host %s: %.200s (%.100s, %s:%d)", c->rank, c->host, text,
            call, base != NULL ? base + 1 : file, line);
    mpi__must_status(c, ST_ENV, &err);
}

static void requests_reserve(struct comm *c, struct requests *set)
{
    if (set->n < set->capacity)
        return;
    int n = set->capacity > 0 ? set->capacity * 2 : 64;
    MPI_Request *items = realloc(set->items, (size_t)n * sizeof *items);
    if (items != NULL)
        set->items = items;
    int *peers = realloc(set->peers, (size_t)n * sizeof *peers);
    if (peers != NULL)
        set->peers = peers;
    int *done = realloc(set->done, (size_t)n * sizeof *done);
    if (done != NULL)
        set->done = done;
    if (items == NULL || peers == NULL || done == NULL) {
        struct err err = ERR_INIT;
        mpi__must_status(c, err_memory(&err, "messages under way", (size_t)n * sizeof *items), &err);
    }
    set->capacity = n;
}

void mpi__requests_release(struct requests *set)
{
    free(set->items);
    free(set->peers);
    free(set->done);
    memset(set, 0, sizeof *set);
}

void mpi__begin(struct comm *c, enum mpi_op op)
{
    struct mpi_state *s = c->impl;
    s->in.n = s->in.n_pending = s->out.n = s->out.n_pending = 0;
    pthread_mutex_lock(&s->lock);
    s->number++;
    s->op = op;
    s->since_s = clock_s();
    pthread_mutex_unlock(&s->lock);
}

void mpi__end(struct comm *c)
{
    struct mpi_state *s = c->impl;
    mpi__wait(c, &s->in, -1);
    mpi__wait(c, &s->out, -1);
    pthread_mutex_lock(&s->lock);
    s->op = OP_NONE;
    pthread_mutex_unlock(&s->lock);
}

static int tag_now(const struct mpi_state *s)
{
    return (int)(s->number % (MAX_TAG / OPS_PER_TAG)) * OPS_PER_TAG + (int)s->op;
}

void mpi__post_send(struct comm *c, int peer, const void *data, size_t n_bytes)
{
    struct mpi_state *s = c->impl;
    struct requests *set = &s->out;
    for (size_t at = 0; at < n_bytes; at += CHUNK_BYTES) {
        size_t n = n_bytes - at < CHUNK_BYTES ? n_bytes - at : CHUNK_BYTES;
        requests_reserve(c, set);
        set->peers[set->n] = peer;
        pthread_mutex_lock(&s->lock);
        int code = MPI_Isend((const char *)data + at, (int)n, MPI_BYTE, peer, tag_now(s), s->world,
                             &set->items[set->n]);
        pthread_mutex_unlock(&s->lock);
        MPI_CHECK(c, code, "MPI_Isend");
        set->n++;
        set->n_pending++;
    }
}

void mpi__post_recv(struct comm *c, int peer, void *data, size_t n_bytes)
{
    struct mpi_state *s = c->impl;
    struct requests *set = &s->in;
    for (size_t at = 0; at < n_bytes; at += CHUNK_BYTES) {
        size_t n = n_bytes - at < CHUNK_BYTES ? n_bytes - at : CHUNK_BYTES;
        requests_reserve(c, set);
        set->peers[set->n] = peer;
        pthread_mutex_lock(&s->lock);
        int code =
            MPI_Irecv((char *)data + at, (int)n, MPI_BYTE, peer, tag_now(s), s->world, &set->items[set->n]);
        pthread_mutex_unlock(&s->lock);
        MPI_CHECK(c, code, "MPI_Irecv");
        set->n++;
        set->n_pending++;
    }
}

/* Leaves the core to others: yields at first, then sleeps longer and longer. */
static void step_aside(double idle_s, double *nap_s)
{
    if (idle_s < SPIN_S) {
        sched_yield();
        return;
    }
    clock_sleep_s(*nap_s);
    double limit = idle_s < PATIENCE_S ? NAP_SHORT_S : NAP_LONG_S;
    *nap_s = *nap_s * 1.5 < limit ? *nap_s * 1.5 : limit;
}

static bool set_done(const struct requests *set, int i)
{
    return i < 0 ? set->n_pending == 0 : set->items[i] == MPI_REQUEST_NULL;
}

/* Whether anything came through. */
static bool set_test(struct comm *c, struct requests *set)
{
    struct mpi_state *s = c->impl;
    int n_done = 0;
    pthread_mutex_lock(&s->lock);
    int code = MPI_Testsome(set->n, set->items, &n_done, set->done, MPI_STATUSES_IGNORE);
    pthread_mutex_unlock(&s->lock);
    MPI_CHECK(c, code, "MPI_Testsome");
    if (n_done == MPI_UNDEFINED)
        n_done = set->n_pending;
    set->n_pending -= n_done;
    return n_done > 0;
}

void mpi__wait(struct comm *c, struct requests *set, int i)
{
    if (set_done(set, i))
        return;
    double start_s = clock_s(), moved_s = start_s, now_s = start_s, checked_s = start_s, nap_s = NAP_FIRST_S;
    const double gap_s = c->timeout_s / 8;
    for (;;) {
        if (set_test(c, set)) {
            moved_s = now_s;
            nap_s = NAP_FIRST_S;
        }
        if (set_done(set, i))
            return;
        step_aside(now_s - moved_s, &nap_s);
        double then_s = now_s;
        now_s = clock_s();
        /* This process itself was stopped for a while (suspended, swapped out): the peers had no chance. */
        if (now_s - then_s > gap_s)
            start_s = checked_s = now_s;
        if (now_s - checked_s > gap_s / 4) {
            mpi__check_peers(c, set, moved_s > start_s ? moved_s : start_s, now_s);
            checked_s = now_s;
        }
    }
}
