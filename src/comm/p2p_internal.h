/* The collectives as messages between two ranks, the loop that waits for them, and the search for peers that
 * are gone or astray. A table brings the messages themselves (struct transport): MPI's, or the simulated ones
 * of the tests, so that both run the same code.
 *
 * A rank that waits asks the peers it waits for; they answer out of band while they compute, so that slow is
 * not taken for dead. Inside a collective no agreement is possible any more: what fails there is fatal. */
#ifndef SMGPT_COMM_P2P_INTERNAL_H
#define SMGPT_COMM_P2P_INTERNAL_H

#include "comm_internal.h"
#include <pthread.h>
#include <stdbool.h>

/* Kinds of operations; part of a message's tag, so that unlike operations never match each other. */
#define COMM_OP_LIST(X)                                                                                      \
    X(OP_NONE, "no operation")                                                                               \
    X(OP_BARRIER, "barrier")                                                                                 \
    X(OP_BCAST, "bcast")                                                                                     \
    X(OP_BCAST_NODES, "bcast_nodes")                                                                         \
    X(OP_SCATTER, "scatter")                                                                                 \
    X(OP_GATHER, "gather")                                                                                   \
    X(OP_EXCHANGE, "exchange")                                                                               \
    X(OP_CLOSE, "close")

enum comm_op {
#define COMM_OP_ENUM(name, text) name,
    COMM_OP_LIST(COMM_OP_ENUM)
#undef COMM_OP_ENUM
};
const char *p2p__op_name(enum comm_op op);

#define P2P_MORE SIZE_MAX /* came: more than there was room for */

struct requests { /* messages under way, and with whom */
    void *items;  /* of the transport, request_bytes each */
    int *peers;
    size_t *n_bytes; /* posted */
    bool *through;
    bool incoming;
    int n, n_pending, capacity;
};

/* What an operation was called with, as far as all ranks must say the same. */
struct op_call {
    enum comm_op op; /* OP_NONE between operations */
    int root;
    size_t n_bytes;
    const size_t *to_bytes, *from_bytes; /* exchange: [world_size], else NULL */
};

struct pong { /* the answer to "are you alive": what the rank is doing */
    int64_t number;
    double waited_s;  /* inside that operation; negative: not in one */
    uint64_t n_bytes; /* of the operation; in an exchange what goes to the rank that asks */
    int32_t op, root;
};

struct peer { /* what is known of another rank; now_s of the transport */
    double heard_s, asked_s;
    struct pong apart;    /* an answer that says it waits elsewhere; apart_since_s: when it came */
    int64_t apart_number; /* of our operation then */
    double apart_since_s;
};

struct transport {
    size_t request_bytes;
    size_t chunk_bytes; /* of one message; what is longer travels as several */
    /* Posts message number set->n of set; data stays valid until it is through. */
    void (*send)(struct comm *c, struct requests *set, int peer, const void *data, size_t n_bytes, int tag);
    void (*recv)(struct comm *c, struct requests *set, int peer, void *data, size_t n_bytes, int tag);
    /* Calls p2p__through for each message that has come through since; false if none has. */
    bool (*test)(struct comm *c, struct requests *set);
    /* Leaves the core to others; idle_s: nothing has moved for so long. *nap_s: 0 after each movement. */
    void (*aside)(struct comm *c, double idle_s, double *nap_s);
    double (*now_s)(struct comm *c);
    /* Asks whether r is alive, unless an earlier question to it is still under way. */
    void (*ask)(struct comm *c, int r);
    /* One answer that has come in; NULL: peers cannot answer. */
    bool (*answer)(struct comm *c, int *rank, struct pong *out);
};

/* First member of a table's state, so that comm.impl points to it. */
struct p2p {
    const struct transport *via;
    int *leaders;       /* [n_nodes] lowest rank of each host */
    char (*hosts)[64];  /* [world_size] */
    struct peer *peers; /* [world_size], the waiting thread's */
    bool answers;       /* peers answer while they compute */
    struct requests in, out;

    /* Guards what follows, which whoever answers reads; a table may guard more with it. */
    pthread_mutex_t lock;
    int64_t number; /* of the operation, counted equally on all ranks */
    struct op_call call;
    double since_s;
    uint64_t past; /* digest of all operations so far: equal on all ranks, or the program has a defect */
};

/* p2p_wait.c: every collective is begin, post..., wait..., end. data of n_bytes 0 posts nothing. */
void p2p__init(struct p2p *s, const struct transport *via);
enum status p2p__alloc(struct p2p *s, int world_size, struct err *err);
void p2p__release(struct p2p *s);
void p2p__begin(struct comm *c, struct op_call call);
void p2p__end(struct comm *c);
void p2p__post_send(struct comm *c, int peer, const void *data, size_t n_bytes);
void p2p__post_recv(struct comm *c, int peer, void *data, size_t n_bytes);
/* Until the i-th posted message is through; i < 0: all of them. */
void p2p__wait(struct comm *c, struct requests *set, int i);
/* For transports: message i is through, and brought `came` bytes (P2P_MORE; of a send: what was posted). Ends
 * the run when that is not what was expected. */
void p2p__through(struct comm *c, struct requests *set, int i, size_t came);
/* Ends the run unless st is ST_OK. */
void p2p__must(struct comm *c, enum status st, struct err *err);

/* p2p_alive.c */
/* The answer to rank `to`. Called with the lock held. */
struct pong p2p__pong(const struct p2p *s, int to, double now_s);
/* Called now and then by the waiting thread; ends the run when a peer of the set is silent for too long, or
 * waits in another operation. */
void p2p__check_peers(struct comm *c, const struct requests *set, double since_s, double now_s);

/* Ends the run when a peer's digest in a message of this operation is not ours. */
void p2p__same_past(struct comm *c, int peer, uint64_t past);

/* p2p_collectives.c: slots of the table. */
enum status p2p__barrier(struct comm *c, struct err *err);
enum status p2p__barrier_as(struct comm *c, enum comm_op op);
enum status p2p__bcast(struct comm *c, int root, void *data, size_t n_bytes, struct err *err);
enum status p2p__bcast_nodes(struct comm *c, void *data, size_t n_bytes, struct err *err);
enum status p2p__scatter(struct comm *c, const struct buf *parts, struct buf *out, struct err *err);
enum status p2p__gather(struct comm *c, const void *data, size_t n_bytes, struct buf *parts, struct err *err);
enum status p2p__exchange(struct comm *c, const void *const *send, const size_t *send_bytes,
                          void *const *recv, const size_t *recv_bytes, struct err *err);

#endif
