/* Shared by the files of the MPI table: the transport that carries the collectives of p2p_internal.h.
 *
 * Everything is non-blocking point-to-point on a communicator of ours plus one wait loop, because the loop
 * can sleep while peers compute on the same cores, and can notice that a peer is gone. A rank that computes
 * for long answers through a small thread (mpi_alive.c). */
#ifndef SMGPT_COMM_MPI_INTERNAL_H
#define SMGPT_COMM_MPI_INTERNAL_H

#include "../p2p_internal.h"
#include <mpi.h>

struct talk { /* questions and answers under way with another rank */
    MPI_Request ping, pong;
    struct pong pong_out;
};

struct mpi_state {
    struct p2p p2p; /* its lock also lets one thread at a time into MPI (MPI_THREAD_SERIALIZED) */
    MPI_Comm world, node, alive;
    bool own_library;   /* MPI_Init was called here */
    struct talk *talks; /* [world_size] */

    /* Scratch of MPI_Testsome. */
    int *done;
    MPI_Status *statuses;
    int capacity;

    bool stop; /* guarded by the lock */
    pthread_t thread;
    pthread_cond_t wake;
};

/* Ends the run unless code is MPI_SUCCESS, naming rank, host, call and place. */
void mpi__must(struct comm *c, int code, const char *call, const char *file, int line);
#define MPI_MUST(c, call)        mpi__must((c), (call), #call, __FILE__, __LINE__)
#define MPI_CHECK(c, code, name) mpi__must((c), (code), name, __FILE__, __LINE__)

/* mpi_transport.c */
extern const struct transport mpi__transport;

/* mpi_alive.c */
void mpi__listen(struct comm *c);
void mpi__listen_stop(struct comm *c);
void mpi__ask(struct comm *c, int r);
bool mpi__answer(struct comm *c, int *rank, struct pong *out);

/* mpi_shared.c */
enum status mpi__shared_alloc(struct comm *c, size_t n_bytes, struct comm_shared *out, struct err *err);
void mpi__shared_forget(struct comm *c, struct comm_shared *s, size_t from, size_t n_bytes);
void mpi__shared_release(struct comm *c, struct comm_shared *s);

#endif
