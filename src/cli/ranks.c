#include "ranks.h"
#include "util/clock.h"
#include "util/log.h"

static enum status settle(struct comm *comm, struct options *o, struct err *err)
{
    double timeout;
    log_init(comm->rank, comm->world_size, comm->host);
    TRY(options_seconds(o->comm_timeout, "comm_timeout", &timeout, err));
    if (timeout > 0)
        comm_set_timeout(comm, timeout);
    if (o->threads < 1)
        o->threads = cpu_count() / comm->local_size;
    if (o->threads < 1)
        o->threads = 1;
    return ST_OK;
}

enum status ranks_open(struct comm *comm, struct options *o, struct err *err)
{
    TRY(comm_open(comm, "auto", err));
    TRY(comm_agree(comm, settle(comm, o, err), err));
    if (comm->world_size > 1)
        log_info("ranks   %d on %d host%s, %d thread%s each", comm->world_size, comm->n_nodes,
                 comm->n_nodes > 1 ? "s" : "", (int)o->threads, o->threads > 1 ? "s" : "");
    return ST_OK;
}

enum status ranks_open_self(struct comm *comm, struct options *o, struct err *err)
{
    TRY(comm_open_self(comm, err));
    return settle(comm, o, err);
}

void ranks_close(struct comm *comm, enum status status, struct err *err)
{
    if (status != ST_OK && comm->rank != 0)
        *err = (struct err)ERR_INIT;
    comm_close(comm);
}
