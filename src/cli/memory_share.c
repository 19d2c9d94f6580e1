#include "memory_share.h"
#include "memory_plan.h"

#include <stdlib.h>
#include <string.h>

/* The longest sequence is that of a sample of the steps: packing all of them would take longer than growing.
 */
#define SAMPLED_STEPS 24

/* What a rank's host allows. */
struct allowance {
    int64_t limit;
    int32_t n_local;
    char host[64];
};

static enum status gather(struct allowance *all, struct comm *comm, const struct options *o, struct err *err)
{
    struct allowance mine = {.n_local = comm->local_size};
    struct buf *parts = comm->rank == 0 ? calloc((size_t)comm->world_size, sizeof *parts) : NULL;
    enum status st = memory_plan_limit(&mine.limit, o, err);
    if (st == ST_OK && comm->rank == 0 && !parts)
        st = err_memory(err, "the limits of the hosts", 0);
    memcpy(mine.host, comm->host, sizeof mine.host);
    st = comm_agree(comm, st, err);
    if (st == ST_OK)
        st = comm->ops->gather(comm, &mine, sizeof mine, parts, err);
    for (int i = 0; parts && i < comm->world_size; i++) {
        if (st == ST_OK)
            memcpy(&all[i], parts[i].data, sizeof mine);
        buf_release(&parts[i]);
    }
    free(parts);
    return st;
}

static size_t mib(size_t n_bytes)
{
    return (n_bytes + (1 << 20) - 1) >> 20;
}

/* The plan for the host that leaves least to each of its ranks. Rank 0. */
static enum status tightest(struct memory_plan *out, const struct stage_ready *stage,
                            struct memory_question *q, const struct allowance *all, struct err *err)
{
    const struct comm *comm = stage->context->comm;
    const struct allowance *least = &all[0];
    q->limit = least->limit;
    q->n_local = least->n_local;
    TRY(memory_plan_make(out, stage, q, err));
    for (int i = 1; i < comm->world_size; i++)
        if (memory_plan_budget(out, all[i].limit, all[i].n_local) <
            memory_plan_budget(out, least->limit, least->n_local))
            least = &all[i];
    q->limit = least->limit;
    q->n_local = least->n_local;
    TRY(memory_plan_make(out, stage, q, err));
    if (out->fits)
        return ST_OK;
    err_set(err, ST_ENV,
            "memory_limit is %zu MiB on %s, and training takes %zu MiB there (ranks: %d) even with the "
            "activations of every layer computed again",
            (size_t)q->limit >> 20, least->host, mib(out->needed), least->n_local);
    return err_hint(err,
                    "set memory_limit to %zuM or more, take fewer ranks a host, a smaller model or a smaller "
                    "max_seq_len; without the option it is what the machine and its control group allow",
                    mib(out->needed));
}

/* What rank 0 finds, for all. */
struct share {
    int64_t longest; /* tokens */
    uint64_t budget; /* bytes */
};

static enum status find_share(struct share *out, const struct stage_ready *stage, struct memory_question *q,
                              const struct allowance *all, struct err *err)
{
    const struct train_context *c = stage->context;
    struct train_load load;
    struct memory_plan plan;
    TRY(train_count(&load, c, stage->options, &stage->model->arch, 0, -1, SAMPLED_STEPS, err));
    TRY(train_count_eval(&q->eval_longest, c, stage->options, err));
    const struct model_load *run = stage->options->share_prefix ? &load.shared : &load.apart;
    q->train_longest = run->longest;
    q->n_positions = run->n_positions;
    q->stem = stage->options->share_prefix ? load.longest_stem : 0;
    TRY(tightest(&plan, stage, q, all, err));
    *out = (struct share){run->longest, memory_plan_budget(&plan, q->limit, q->n_local)};
    return ST_OK;
}

enum status memory_share(const struct stage_ready *stage, const struct options *o, size_t program,
                         size_t rank0_extra, struct err *err)
{
    struct comm *comm = stage->context->comm;
    struct memory_question q = {.n_ranks = comm->world_size, .program = program, .rank0_extra = rank0_extra};
    struct share share = {0};
    struct allowance *all = calloc((size_t)comm->world_size, sizeof *all);
    enum status st = comm_agree(comm, all ? ST_OK : err_memory(err, "the limits of the hosts", 0), err);
    if (st == ST_OK)
        st = gather(all, comm, o, err);
    if (st == ST_OK && comm->rank == 0)
        st = find_share(&share, stage, &q, all, err);
    free(all);
    TRY(comm_agree(comm, st, err));
    TRY(comm->ops->bcast(comm, 0, &share, sizeof share, err));
    model_expect(stage->model->model, share.longest);
    model_set_budget(stage->model->model, (size_t)share.budget);
    return ST_OK;
}
