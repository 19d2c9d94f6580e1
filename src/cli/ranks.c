#include "ranks.h"
#include "util/clock.h"
#include "util/log.h"
#include <stdlib.h>
#include <string.h>

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

/* The options by which the ranks compute and meet. Others may differ: paths are rank 0's alone. */
static json_t *shared_options(const struct options *o)
{
    static const char *const more[] = {"logging_steps", "eval_steps", "save_steps"};
    json_t *all = options_json(o), *out = options_curve_json(o);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        json_object_set(out, more[i], json_object_get(all, more[i]));
    json_decref(all);
    return out;
}

/* Rank 0: the first option in which another rank's text differs. */
static enum status name_option(const json_t *ours, const struct comm_other *other, struct err *err)
{
    const char *key;
    json_t *mine, *theirs = json_loadb(other->data.data, other->data.n_bytes, 0, NULL);
    enum status st = ST_OK;
    json_object_foreach((json_t *)ours, key, mine)
    {
        json_t *value = json_object_get(theirs, key);
        if (st != ST_OK || json_equal(mine, value))
            continue;
        const size_t how = JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9);
        char *a = json_dumps(mine, how), *b = value != NULL ? json_dumps(value, how) : NULL;
        st = err_set(err, ST_USAGE, "rank %d on %s has option %s=%s, rank 0 has %s", other->rank, other->host,
                     key, b != NULL ? b : "?", a != NULL ? a : "?");
        err_hint(err, "give all ranks the same command line, configuration file and environment (mpirun does "
                      "not pass on variables of its own accord: -x NAME)");
        free(a);
        free(b);
    }
    json_decref(theirs);
    return st != ST_OK ? st : err_set(err, ST_USAGE, "rank %d has other options than rank 0", other->rank);
}

/* Ranks with other options would compute something else, or wait for each other in unlike places. */
static enum status same_options(struct comm *comm, const struct options *o, struct err *err)
{
    struct comm_other other;
    json_t *ours = shared_options(o);
    char *text = json_dumps(ours, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    enum status st = text != NULL ? ST_OK : err_memory(err, "the options as text", 0);
    st = comm_agree(comm, st, err);
    if (st == ST_OK)
        st = comm_compare(comm, text, strlen(text), &other, err);
    if (st == ST_OK) {
        if (other.rank >= 0)
            st = name_option(ours, &other, err);
        buf_release(&other.data);
        st = comm_agree(comm, st, err);
    }
    free(text);
    json_decref(ours);
    return st;
}

enum status ranks_open(struct comm *comm, struct options *o, struct err *err)
{
    TRY(comm_open(comm, "auto", err));
    enum status st = comm_agree(comm, settle(comm, o, err), err);
    if (st == ST_OK)
        st = same_options(comm, o, err);
    if (st != ST_OK) {
        ranks_close(comm, st, err);
        return st;
    }
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
    if (status != ST_OK && comm->rank == 0)
        log_err(err);
    if (status != ST_OK)
        *err = (struct err)ERR_INIT;
    comm_close(comm);
}
