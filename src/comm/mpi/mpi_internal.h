/* Shared by the files of the MPI table.
 *
 * Everything is non-blocking point-to-point on a communicator of ours plus one wait loop (mpi_wait.c),
 * because the loop can sleep while peers compute on the same cores, and can notice that a peer is gone. A
 * rank that computes for long answers through a small thread (mpi_alive.c), so that slow is not taken for
 * dead. Inside a collective no agreement is possible any more: an MPI error or exhausted memory there is
 * fatal. */
#ifndef SMGPT_COMM_MPI_INTERNAL_H
#define SMGPT_COMM_MPI_INTERNAL_H

#include "../comm_internal.h"
#include <mpi.h>
#include <pthread.h>
#include <stdbool.h>

#define CHUNK_BYTES                                                                                          \
    ((size_t)4 << 20) /* of one MPI message: below INT_MAX, and small enough to forward in a pipeline */

/* Kinds of operations; part of the message tag, so that unlike operations never match each other. */
#define MPI_OP_LIST(X)                                                                                       \
    X(OP_NONE, "no operation")                                                                               \
    X(OP_BARRIER, "barrier")                                                                                 \
    X(OP_BCAST, "bcast")                                                                                     \
    X(OP_BCAST_NODES, "bcast_nodes")                                                                         \
    X(OP_SCATTER, "scatter")                                                                                 \
    X(OP_GATHER, "gather")                                                                                   \
    X(OP_EXCHANGE, "exchange")                                                                               \
    X(OP_CLOSE, "close")

enum mpi_op {
#define MPI_OP_ENUM(name, text) name,
    MPI_OP_LIST(MPI_OP_ENUM)
#undef MPI_OP_ENUM
};
const char *mpi__op_name(enum mpi_op op);

struct requests { /* messages under way, and with whom */
    MPI_Request *items;
    int *peers, *done; /* done: scratch of MPI_Testsome */
    int n, n_pending, capacity;
};

struct pong { /* the answer to "are you alive": what the rank is doing */
    int64_t number;
    double waited_s; /* inside that operation; negative: not in one */
    int32_t op;
};

struct peer {                /* what is known of another rank; the waiting thread's, but for pong_* */
    double heard_s, asked_s; /* clock_s */
    MPI_Request ping, pong;
    struct pong pong_out;
};

struct mpi_state {
    MPI_Comm world, node, alive;
    bool own_library;   /* MPI_Init was called here */
    int *leaders;       /* [n_nodes] lowest rank of each host */
    char (*hosts)[64];  /* [world_size] */
    struct peer *peers; /* [world_size] */
    struct requests in, out;

    /* One thread at a time inside MPI (MPI_THREAD_SERIALIZED); guards what follows as well. */
    pthread_mutex_t lock;
    bool listening, stop;
    pthread_t thread;
    pthread_cond_t wake;
    int64_t number; /* of the operation, counted equally on all ranks */
    enum mpi_op op; /* OP_NONE between operations */
    double since_s;
};

/* Ends the run unless code is MPI_SUCCESS, naming rank, host, call and place. */
void mpi__must(struct comm *c, int code, const char *call, const char *file, int line);
#define MPI_MUST(c, call)        mpi__must((c), (call), #call, __FILE__, __LINE__)
#define MPI_CHECK(c, code, name) mpi__must((c), (code), name, __FILE__, __LINE__)
/* Ends the run unless st is ST_OK. */
void mpi__must_status(struct comm *c, enum status st, struct err *err);

/* mpi_wait.c: every collective is begin, post..., wait..., end. data of n_bytes 0 posts nothing. */
void mpi__begin(struct comm *c, enum mpi_op op);
void mpi__end(struct comm *c);
void mpi__post_send(struct comm *c, int peer, const void *data, size_t n_bytes);
void mpi__post_recv(struct comm *c, int peer, void *data, size_t n_bytes);
/* Until the i-th posted message is through; i < 0: all of them. */
void mpi__wait(struct comm *c, struct requests *set, int i);
void mpi__requests_release(struct requests *set);

/* mpi_alive.c */
void mpi__listen(struct comm *c);
void mpi__listen_stop(struct comm *c);
/* Called now and then by the waiting thread; ends the run when a peer of the set is silent for too long. */
void mpi__check_peers(struct comm *c, const struct requests *set, double since_s, double now_s);

/* mpi_shared.c */
enum status mpi__shared_alloc(struct comm *c, size_t n_bytes, struct comm_shared *out, struct err *err);
void mpi__shared_release(struct comm *c, struct comm_shared *s);

#endif
