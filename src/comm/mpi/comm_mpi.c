/* The MPI table: opening, closing and the collectives. */
#include "mpi_internal.h"
#include "util/clock.h"
#include "util/fatal.h"
#include <stdlib.h>
#include <string.h>

/* Where the fatal hook ends the run; the communicator of all, because ours may be half made. */
static void mpi_fatal_hook(int exit_code)
{
    int up = 0, down = 0;
    if (MPI_Initialized(&up) == MPI_SUCCESS && up && MPI_Finalized(&down) == MPI_SUCCESS && !down)
        MPI_Abort(MPI_COMM_WORLD, exit_code);
}

static void mpi_abort(struct comm *c, int exit_code)
{
    mpi_fatal_hook(exit_code);
    _Exit(exit_code);
}

static enum status mpi_barrier_as(struct comm *c, enum mpi_op op)
{
    struct mpi_state *s = c->impl;
    char mine = 1, theirs = 0;
    mpi__begin(c, op);
    /* Dissemination: after round k everybody has heard, at second hand, of 2^(k+1) ranks. */
    for (int step = 1; step < c->world_size; step *= 2) {
        mpi__post_recv(c, (c->rank - step + c->world_size) % c->world_size, &theirs, 1);
        mpi__post_send(c, (c->rank + step) % c->world_size, &mine, 1);
        mpi__wait(c, &s->in, -1);
        mpi__wait(c, &s->out, -1);
    }
    mpi__end(c);
    return ST_OK;
}

static enum status mpi_barrier(struct comm *c, struct err *err)
{
    return mpi_barrier_as(c, OP_BARRIER);
}

/* Binomial tree over n members, of which this rank is number `at`; ranks NULL: member i is rank i. Chunks
 * are passed on as they come in. */
static void tree_bcast(struct comm *c, const int *ranks, int n, int at, int root, void *data, size_t n_bytes)
{
    struct mpi_state *s = c->impl;
    int virt = (at - root + n) % n, span = 1; /* span: distance to the parent, lowest set bit of virt */
    while (span < n && (virt & span) == 0)
        span *= 2;
#define MEMBER(v) (ranks != NULL ? ranks[((v) + root) % n] : ((v) + root) % n)
    if (virt != 0)
        mpi__post_recv(c, MEMBER(virt - span), data, n_bytes);
    int chunk = 0;
    for (size_t done = 0; done < n_bytes; done += CHUNK_BYTES, chunk++) {
        if (virt != 0)
            mpi__wait(c, &s->in, chunk);
        size_t left = n_bytes - done;
        for (int child = span / 2; child > 0; child /= 2)
            if (virt + child < n)
                mpi__post_send(c, MEMBER(virt + child), (char *)data + done,
                               left < CHUNK_BYTES ? left : CHUNK_BYTES);
    }
#undef MEMBER
}

static enum status mpi_bcast(struct comm *c, int root, void *data, size_t n_bytes, struct err *err)
{
    if (root < 0 || root >= c->world_size)
        return err_set(err, ST_DEFECT, "broadcast from rank %d of %d", root, c->world_size);
    mpi__begin(c, OP_BCAST);
    tree_bcast(c, NULL, c->world_size, c->rank, root, data, n_bytes);
    mpi__end(c);
    return ST_OK;
}

static enum status mpi_bcast_nodes(struct comm *c, void *data, size_t n_bytes, struct err *err)
{
    const struct mpi_state *s = c->impl;
    mpi__begin(c, OP_BCAST_NODES);
    if (c->local_rank == 0)
        tree_bcast(c, s->leaders, c->n_nodes, c->node, 0, data, n_bytes);
    mpi__end(c);
    return ST_OK;
}

/* Room for n_bytes in b, and a NUL behind them. */
static void buf_size(struct comm *c, struct buf *b, uint64_t n_bytes)
{
    struct err err = ERR_INIT;
    buf_clear(b);
    mpi__must_status(c, buf_reserve(b, (size_t)n_bytes + 1, &err), &err);
    b->n_bytes = (size_t)n_bytes;
    b->data[n_bytes] = '\0';
}

static uint64_t *sizes_alloc(struct comm *c)
{
    struct err err = ERR_INIT;
    uint64_t *sizes = calloc((size_t)c->world_size, sizeof *sizes);
    if (sizes == NULL)
        mpi__must_status(c, err_memory(&err, "sizes of messages", (size_t)c->world_size * sizeof *sizes),
                         &err);
    return sizes;
}

static enum status mpi_scatter(struct comm *c, const struct buf *parts, struct buf *out, struct err *err)
{
    struct mpi_state *s = c->impl;
    mpi__begin(c, OP_SCATTER);
    if (c->rank != 0) {
        uint64_t n_bytes = 0;
        mpi__post_recv(c, 0, &n_bytes, sizeof n_bytes);
        mpi__wait(c, &s->in, -1);
        buf_size(c, out, n_bytes);
        mpi__post_recv(c, 0, out->data, out->n_bytes);
        mpi__end(c);
        return ST_OK;
    }
    uint64_t *sizes = sizes_alloc(c);
    for (int r = 1; r < c->world_size; r++) {
        sizes[r] = parts[r].n_bytes;
        mpi__post_send(c, r, &sizes[r], sizeof sizes[r]);
        mpi__post_send(c, r, parts[r].data, parts[r].n_bytes);
    }
    buf_size(c, out, parts[0].n_bytes);
    if (parts[0].n_bytes > 0)
        memcpy(out->data, parts[0].data, parts[0].n_bytes);
    mpi__end(c);
    free(sizes);
    return ST_OK;
}

static enum status mpi_gather(struct comm *c, const void *data, size_t n_bytes, struct buf *parts,
                              struct err *err)
{
    struct mpi_state *s = c->impl;
    mpi__begin(c, OP_GATHER);
    if (c->rank != 0) {
        uint64_t size = n_bytes;
        mpi__post_send(c, 0, &size, sizeof size);
        mpi__post_send(c, 0, data, n_bytes);
        mpi__end(c);
        return ST_OK;
    }
    uint64_t *sizes = sizes_alloc(c);
    for (int r = 1; r < c->world_size; r++)
        mpi__post_recv(c, r, &sizes[r], sizeof sizes[r]);
    mpi__wait(c, &s->in, -1);
    for (int r = 1; r < c->world_size; r++) {
        buf_size(c, &parts[r], sizes[r]);
        mpi__post_recv(c, r, parts[r].data, parts[r].n_bytes);
    }
    buf_size(c, &parts[0], n_bytes);
    if (n_bytes > 0)
        memcpy(parts[0].data, data, n_bytes);
    mpi__end(c);
    free(sizes);
    return ST_OK;
}

static enum status mpi_exchange(struct comm *c, const void *const *send, const size_t *send_bytes,
                                void *const *recv, const size_t *recv_bytes, struct err *err)
{
    if (send_bytes[c->rank] != recv_bytes[c->rank])
        return err_set(err, ST_DEFECT, "exchange with itself of %zu and %zu bytes", send_bytes[c->rank],
                       recv_bytes[c->rank]);
    mpi__begin(c, OP_EXCHANGE);
    /* Each rank begins with another neighbour, so that nobody is everybody's first. */
    for (int i = 1; i < c->world_size; i++) {
        int r = (c->rank - i + c->world_size) % c->world_size;
        mpi__post_recv(c, r, recv[r], recv_bytes[r]);
    }
    for (int i = 1; i < c->world_size; i++) {
        int r = (c->rank + i) % c->world_size;
        mpi__post_send(c, r, send[r], send_bytes[r]);
    }
    if (send_bytes[c->rank] > 0)
        memmove(recv[c->rank], send[c->rank], send_bytes[c->rank]);
    mpi__end(c);
    return ST_OK;
}

static void state_free(struct mpi_state *s)
{
    mpi__requests_release(&s->in);
    mpi__requests_release(&s->out);
    pthread_mutex_destroy(&s->lock);
    free(s->leaders);
    free(s->hosts);
    free(s->peers);
    free(s);
}

static void mpi_close(struct comm *c)
{
    struct mpi_state *s = c->impl;
    mpi_barrier_as(c, OP_CLOSE);
    mpi__listen_stop(c);
    MPI_Comm_free(&s->alive);
    MPI_Comm_free(&s->node);
    MPI_Comm_free(&s->world);
    if (s->own_library)
        MPI_Finalize();
    state_free(s);
    c->impl = NULL;
}

static const struct comm_ops mpi_ops = {
    .name = "mpi",
    .close = mpi_close,
    .barrier = mpi_barrier,
    .bcast = mpi_bcast,
    .bcast_nodes = mpi_bcast_nodes,
    .scatter = mpi_scatter,
    .gather = mpi_gather,
    .exchange = mpi_exchange,
    .shared_alloc = mpi__shared_alloc,
    .shared_release = mpi__shared_release,
    .abort = mpi_abort,
};

/* Initialises the library unless the program did. *level: of thread support. */
static enum status library_open(struct mpi_state *s, int *level, struct err *err)
{
    int up = 0, down = 0;
    MPI_Finalized(&down);
    if (down)
        return err_set(err, ST_ENV, "MPI was closed already; it can be opened only once in a process");
    MPI_Initialized(&up);
    if (up) {
        MPI_Query_thread(level);
        return ST_OK;
    }
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, level) != MPI_SUCCESS)
        return err_set(err, ST_ENV, "MPI does not start");
    s->own_library = true;
    return ST_OK;
}

/* A launcher of another MPI than the one linked starts n programs that each believe to be alone. */
static enum status check_launcher(const struct comm *c, struct err *err)
{
    int n = comm__launched();
    if (c->world_size > 1 || n <= 1)
        return ST_OK;
    err_set(err, ST_ENV, "the launcher started %d processes, but MPI sees this one alone", n);
    return err_hint(err, "use the mpirun of the MPI that the program was built with, or srun --mpi=pmix");
}

/* Hosts, who is on which, and their numbers. Library calls that wait busily are good enough once at the
 * start. */
static void find_hosts(struct comm *c)
{
    struct mpi_state *s = c->impl;
    char name[MPI_MAX_PROCESSOR_NAME] = "";
    int n = 0, leader = c->rank;
    if (MPI_Get_processor_name(name, &n) == MPI_SUCCESS && n > 0) {
        memset(c->host, 0, sizeof c->host);
        memcpy(c->host, name, (size_t)n < sizeof c->host ? (size_t)n : sizeof c->host - 1);
    }
    MPI_MUST(c, MPI_Comm_split_type(s->world, MPI_COMM_TYPE_SHARED, c->rank, MPI_INFO_NULL, &s->node));
    MPI_MUST(c, MPI_Comm_set_errhandler(s->node, MPI_ERRORS_RETURN));
    MPI_MUST(c, MPI_Comm_rank(s->node, &c->local_rank));
    MPI_MUST(c, MPI_Comm_size(s->node, &c->local_size));
    MPI_MUST(c, MPI_Bcast(&leader, 1, MPI_INT, 0, s->node));
    MPI_MUST(c, MPI_Allgather(&leader, 1, MPI_INT, s->leaders, 1, MPI_INT, s->world));
    MPI_MUST(c,
             MPI_Allgather(c->host, sizeof c->host, MPI_CHAR, s->hosts, sizeof c->host, MPI_CHAR, s->world));
    /* A host's lowest rank leads it, so walking the ranks upwards meets the leaders in order. */
    c->n_nodes = 0;
    for (int r = 0; r < c->world_size; r++) {
        if (s->leaders[r] != r)
            continue;
        if (r == leader)
            c->node = c->n_nodes;
        s->leaders[c->n_nodes++] = r;
    }
}

static enum status state_alloc(struct mpi_state *s, int world_size, struct err *err)
{
    size_t n = (size_t)world_size;
    s->leaders = calloc(n, sizeof *s->leaders);
    s->hosts = calloc(n, sizeof *s->hosts);
    s->peers = calloc(n, sizeof *s->peers);
    if (s->leaders == NULL || s->hosts == NULL || s->peers == NULL)
        return err_memory(err, "a table of ranks", n * sizeof *s->peers);
    for (size_t r = 0; r < n; r++)
        s->peers[r].ping = s->peers[r].pong = MPI_REQUEST_NULL;
    return ST_OK;
}

static enum status mpi_open(struct comm *c, struct mpi_state *s, struct err *err)
{
    int level = MPI_THREAD_SINGLE, lowest = 0;
    TRY(library_open(s, &level, err));
    fatal_set_hook(mpi_fatal_hook);
    MPI_MUST(c, MPI_Comm_rank(MPI_COMM_WORLD, &c->rank));
    MPI_MUST(c, MPI_Comm_size(MPI_COMM_WORLD, &c->world_size));
    TRY(check_launcher(c, err));
    struct err memory = ERR_INIT;
    mpi__must_status(c, state_alloc(s, c->world_size, &memory), &memory);
    MPI_MUST(c, MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    MPI_MUST(c, MPI_Comm_dup(MPI_COMM_WORLD, &s->world));
    MPI_MUST(c, MPI_Comm_dup(MPI_COMM_WORLD, &s->alive));
    find_hosts(c);
    MPI_MUST(c, MPI_Allreduce(&level, &lowest, 1, MPI_INT, MPI_MIN, s->world));
    c->ops = &mpi_ops;
    if (c->world_size > 1 && lowest >= MPI_THREAD_SERIALIZED)
        mpi__listen(c);
    return ST_OK;
}

enum status comm__open_mpi(struct comm *c, struct err *err)
{
    comm__init(c);
    struct mpi_state *s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_memory(err, "MPI table", sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    c->impl = s;
    enum status st = mpi_open(c, s, err);
    if (st != ST_OK) {
        if (s->own_library)
            MPI_Finalize();
        state_free(s);
        c->impl = NULL;
    }
    return st;
}
