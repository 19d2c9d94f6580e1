/* The MPI table: opening and closing. */
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

static void state_free(struct mpi_state *s)
{
    p2p__release(&s->p2p);
    free(s->talks);
    free(s->done);
    free(s->statuses);
    free(s);
}

static void mpi_close(struct comm *c)
{
    struct mpi_state *s = c->impl;
    p2p__barrier_as(c, OP_CLOSE);
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
    .barrier = p2p__barrier,
    .bcast = p2p__bcast,
    .bcast_nodes = p2p__bcast_nodes,
    .scatter = p2p__scatter,
    .gather = p2p__gather,
    .exchange = p2p__exchange,
    .shared_alloc = mpi__shared_alloc,
    .shared_forget = mpi__shared_forget,
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
    MPI_MUST(c, MPI_Allgather(&leader, 1, MPI_INT, s->p2p.leaders, 1, MPI_INT, s->world));
    MPI_MUST(c, MPI_Allgather(c->host, sizeof c->host, MPI_CHAR, s->p2p.hosts, sizeof c->host, MPI_CHAR,
                              s->world));
    /* A host's lowest rank leads it, so walking the ranks upwards meets the leaders in order. */
    c->n_nodes = 0;
    for (int r = 0; r < c->world_size; r++) {
        if (s->p2p.leaders[r] != r)
            continue;
        if (r == leader)
            c->node = c->n_nodes;
        s->p2p.leaders[c->n_nodes++] = r;
    }
}

static enum status state_alloc(struct mpi_state *s, int world_size, struct err *err)
{
    size_t n = (size_t)world_size;
    s->talks = calloc(n, sizeof *s->talks);
    if (s->talks == NULL)
        return err_memory(err, "a table of ranks", n * sizeof *s->talks);
    for (size_t r = 0; r < n; r++)
        s->talks[r].ping = s->talks[r].pong = MPI_REQUEST_NULL;
    return p2p__alloc(&s->p2p, world_size, err);
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
    p2p__must(c, state_alloc(s, c->world_size, &memory), &memory);
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
    p2p__init(&s->p2p, &mpi__transport);
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
