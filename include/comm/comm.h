/* The table of collectives. Every function here is collective over all ranks unless it says otherwise, and
 * returns the same status on every rank or does not return: a peer that is not heard of for timeout_s ends
 * the run through util/fatal, naming it. So do two ranks that call different operations, or the same one with
 * other sizes, as soon as a message shows it or both have waited for timeout_s. Payloads are bytes: what they
 * mean is the caller's business. Tables: "self" (one rank, no library), "mpi"; later "nccl" for device
 * buffers and "sim" for tests.
 */
#ifndef SMGPT_COMM_COMM_H
#define SMGPT_COMM_COMM_H

#include "util/buf.h"
#include "util/err.h"
#include <stddef.h>
#include <stdint.h>

struct comm {
    const struct comm_ops *ops;
    void *impl; /* owned by the table */
    int rank, world_size;
    int local_rank, local_size; /* among the ranks of this host */
    int node, n_nodes;          /* hosts numbered by their lowest rank */
    char host[64];
    double timeout_s; /* of one wait; comm_set_timeout changes it */
};

/* n_bytes of memory that all ranks of a host see: each byte is written by one rank, and read by the others
 * behind a barrier. n_bytes may differ between hosts. */
struct comm_shared {
    void *data;
    size_t n_bytes;
    void *impl;
};

struct comm_ops {
    const char *name;
    void (*close)(struct comm *c);
    enum status (*barrier)(struct comm *c, struct err *err);
    enum status (*bcast)(struct comm *c, int root, void *data, size_t n_bytes, struct err *err);
    /* To the lowest rank of each host only; root must be rank 0. Other ranks' data is not touched. */
    enum status (*bcast_nodes)(struct comm *c, void *data, size_t n_bytes, struct err *err);
    /* Rank 0 gives parts[r] to rank r (n_bytes each its own; parts is used on rank 0 only); out is cleared
     * and filled, on rank 0 too. */
    enum status (*scatter)(struct comm *c, const struct buf *parts, struct buf *out, struct err *err);
    /* Rank r's n_bytes land at rank 0 in parts[r] (used on rank 0 only, cleared first). */
    enum status (*gather)(struct comm *c, const void *data, size_t n_bytes, struct buf *parts,
                          struct err *err);
    /* Sizes known on both sides: send_bytes[r] of mine to r, recv_bytes[r] from r; own part is copied. */
    enum status (*exchange)(struct comm *c, const void *const *send, const size_t *send_bytes,
                            void *const *recv, const size_t *recv_bytes, struct err *err);
    enum status (*shared_alloc)(struct comm *c, size_t n_bytes, struct comm_shared *out, struct err *err);
    /* Gives the pages of bytes [from, from + n_bytes) back where the system can; what stood there is lost.
     * Behind a barrier after the last use. */
    void (*shared_forget)(struct comm *c, struct comm_shared *s, size_t from, size_t n_bytes);
    void (*shared_release)(struct comm *c, struct comm_shared *s);
    /* Not collective. Ends all ranks. */
    void (*abort)(struct comm *c, int exit_code);
};

/* Opens the table that fits: MPI when built in and a launcher is there (or world size 1 under MPI), else
 * self. Installs the fatal hook. argc/argv may be NULL. */
enum status comm_open(struct comm *c, const char *name, struct err *err);
enum status comm_open_self(struct comm *c, struct err *err);
void comm_close(struct comm *c);
/* Not collective: how long a wait may last before the silent peers are named and the run ends. */
void comm_set_timeout(struct comm *c, double seconds);

/* Agreement: every rank brings its own status; all leave with the failure of the lowest failing rank (its
 * message and hint too, with rank and host in front), or ST_OK. The one way to fail together. */
enum status comm_agree(struct comm *c, enum status mine, struct err *err);

/* What a rank brought to comm_compare that is not what rank 0 brought. */
struct comm_other {
    int rank; /* the lowest such; -1: all brought the same, or this is not rank 0 */
    char host[64];
    struct buf data; /* the caller's to release */
};

/* Every rank brings some bytes; rank 0 learns who has others than itself. Collective; a failure is the
 * same on every rank. */
enum status comm_compare(struct comm *c, const void *mine, size_t n_bytes, struct comm_other *out,
                         struct err *err);

#endif
