/* Messages by MPI. */
#include "mpi_internal.h"
#include "util/clock.h"
#include "util/fatal.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)4 << 20) /* below INT_MAX, and small enough to forward in a pipeline */
#define SPIN_S      40e-6             /* about what a message between two ranks of a host takes */
#define NAP_FIRST_S 20e-6
#define NAP_SHORT_S 200e-6 /* while an answer may come at any moment */
#define NAP_LONG_S  1e-3   /* after PATIENCE_S without one: the peers compute, leave them the cores */
#define PATIENCE_S  0.05

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
    p2p__must(c, ST_ENV, &err);
}

static void transport_send(struct comm *c, struct requests *set, int peer, const void *data, size_t n_bytes,
                           int tag)
{
    struct mpi_state *s = c->impl;
    MPI_Request *items = set->items;
    pthread_mutex_lock(&s->p2p.lock);
    int code = MPI_Isend(data, (int)n_bytes, MPI_BYTE, peer, tag, s->world, &items[set->n]);
    pthread_mutex_unlock(&s->p2p.lock);
    MPI_CHECK(c, code, "MPI_Isend");
}

static void transport_recv(struct comm *c, struct requests *set, int peer, void *data, size_t n_bytes,
                           int tag)
{
    struct mpi_state *s = c->impl;
    MPI_Request *items = set->items;
    pthread_mutex_lock(&s->p2p.lock);
    int code = MPI_Irecv(data, (int)n_bytes, MPI_BYTE, peer, tag, s->world, &items[set->n]);
    pthread_mutex_unlock(&s->p2p.lock);
    MPI_CHECK(c, code, "MPI_Irecv");
}

static void scratch_reserve(struct comm *c, int n)
{
    struct mpi_state *s = c->impl;
    if (n <= s->capacity)
        return;
    free(s->done);
    free(s->statuses);
    s->done = malloc((size_t)n * sizeof *s->done);
    s->statuses = malloc((size_t)n * sizeof *s->statuses);
    if (s->done == NULL || s->statuses == NULL) {
        struct err err = ERR_INIT;
        p2p__must(c, err_memory(&err, "messages under way", (size_t)n * sizeof *s->statuses), &err);
    }
    s->capacity = n;
}

/* Bytes that a message brought. */
static size_t came(struct comm *c, const struct requests *set, int i, const MPI_Status *status, int code)
{
    int n = 0, class = MPI_SUCCESS;
    if (code == MPI_ERR_IN_STATUS && status->MPI_ERROR != MPI_SUCCESS) {
        MPI_Error_class(status->MPI_ERROR, &class);
        if (class == MPI_ERR_TRUNCATE)
            return P2P_MORE;
        MPI_CHECK(c, status->MPI_ERROR, "MPI_Testsome");
    }
    if (!set->incoming)
        return set->n_bytes[i];
    MPI_MUST(c, MPI_Get_count(status, MPI_BYTE, &n));
    return (size_t)n;
}

static bool transport_test(struct comm *c, struct requests *set)
{
    struct mpi_state *s = c->impl;
    int n_done = 0;
    scratch_reserve(c, set->capacity);
    pthread_mutex_lock(&s->p2p.lock);
    int code = MPI_Testsome(set->n, set->items, &n_done, s->done, s->statuses);
    pthread_mutex_unlock(&s->p2p.lock);
    if (code != MPI_ERR_IN_STATUS)
        MPI_CHECK(c, code, "MPI_Testsome");
    if (n_done == MPI_UNDEFINED)
        n_done = 0;
    for (int k = 0; k < n_done; k++)
        p2p__through(c, set, s->done[k], came(c, set, s->done[k], &s->statuses[k], code));
    return n_done > 0;
}

/* Yields at first, then sleeps longer and longer. */
static void transport_aside(struct comm *c, double idle_s, double *nap_s)
{
    if (idle_s < SPIN_S) {
        sched_yield();
        return;
    }
    double limit = idle_s < PATIENCE_S ? NAP_SHORT_S : NAP_LONG_S, next = *nap_s * 1.5;
    *nap_s = *nap_s == 0 ? NAP_FIRST_S : next < limit ? next : limit;
    clock_sleep_s(*nap_s);
}

static double transport_now(struct comm *c)
{
    return clock_s();
}

const struct transport mpi__transport = {
    .request_bytes = sizeof(MPI_Request),
    .chunk_bytes = CHUNK_BYTES,
    .send = transport_send,
    .recv = transport_recv,
    .test = transport_test,
    .aside = transport_aside,
    .now_s = transport_now,
    .ask = mpi__ask,
    .answer = mpi__answer,
};
