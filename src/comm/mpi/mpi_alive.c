/* Questions whether a rank is alive, and the answers. A thread of each rank answers, so that a rank that
 * reads a file or computes for an hour is heard of, and one that is stopped, dead or cut off is not. */
#include "mpi_internal.h"
#include "util/clock.h"
#include "util/fatal.h"
#include <string.h>
#include <time.h>

#define LISTEN_EVERY_S 0.1

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
        struct talk *p = &s->talks[from.MPI_SOURCE];
        if (MPI_Recv(NULL, 0, MPI_BYTE, from.MPI_SOURCE, TAG_PING, s->alive, MPI_STATUS_IGNORE) !=
            MPI_SUCCESS)
            return false;
        int free_again = 1; /* the buffer of the last answer; else that answer will do */
        if (p->pong != MPI_REQUEST_NULL && MPI_Test(&p->pong, &free_again, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            return false;
        if (!free_again)
            continue;
        p->pong_out = p2p__pong(&s->p2p, from.MPI_SOURCE, clock_s());
        if (MPI_Isend(&p->pong_out, sizeof p->pong_out, MPI_BYTE, from.MPI_SOURCE, TAG_PONG, s->alive,
                      &p->pong) != MPI_SUCCESS)
            return false;
    }
}

static void *listen_main(void *arg)
{
    struct mpi_state *s = arg;
    pthread_mutex_lock(&s->p2p.lock);
    while (!s->stop) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)(LISTEN_EVERY_S * 1e9);
        if (until.tv_nsec >= 1000000000L) {
            until.tv_nsec -= 1000000000L;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&s->wake, &s->p2p.lock, &until);
        if (!s->stop && !answer(s))
            break;
    }
    pthread_mutex_unlock(&s->p2p.lock);
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
        p2p__must(c, err_set(&err, ST_ENV, "cannot start a thread: %s", strerror(code)), &err);
    s->p2p.answers = true;
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
    if (!s->p2p.answers)
        return;
    pthread_mutex_lock(&s->p2p.lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->p2p.lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->wake);
    s->p2p.answers = false;
    for (int r = 0; r < c->world_size; r++) {
        request_drop(&s->talks[r].ping);
        request_drop(&s->talks[r].pong);
    }
}

void mpi__ask(struct comm *c, int r)
{
    struct mpi_state *s = c->impl;
    struct talk *p = &s->talks[r];
    int free_again = 1, code = MPI_SUCCESS;
    pthread_mutex_lock(&s->p2p.lock);
    if (p->ping != MPI_REQUEST_NULL)
        code = MPI_Test(&p->ping, &free_again, MPI_STATUS_IGNORE);
    if (code == MPI_SUCCESS && free_again)
        code = MPI_Isend(NULL, 0, MPI_BYTE, r, TAG_PING, s->alive, &p->ping);
    pthread_mutex_unlock(&s->p2p.lock);
    MPI_CHECK(c, code, "MPI_Isend");
}

bool mpi__answer(struct comm *c, int *rank, struct pong *out)
{
    struct mpi_state *s = c->impl;
    int there = 0;
    MPI_Status from;
    pthread_mutex_lock(&s->p2p.lock);
    int code = MPI_Iprobe(MPI_ANY_SOURCE, TAG_PONG, s->alive, &there, &from);
    if (code == MPI_SUCCESS && there)
        code = MPI_Recv(out, sizeof *out, MPI_BYTE, from.MPI_SOURCE, TAG_PONG, s->alive, MPI_STATUS_IGNORE);
    pthread_mutex_unlock(&s->p2p.lock);
    MPI_CHECK(c, code, "MPI_Iprobe");
    if (there)
        *rank = from.MPI_SOURCE;
    return there;
}
