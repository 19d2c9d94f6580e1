/* The loss of a group of rows that takes no part in training.
 *
 * Rows are cut into shards of EVAL_ROWS, whoever runs them; in each round every rank gets one. Rank 0 adds
 * the shards' sums in order, so the result does not depend on the number of ranks. */
#include "train_internal.h"
#include "util/log.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum verdict { GO_ON, STOP, FAILED };

struct report { /* of one rank's shard */
    double loss_sum, n_labels;
    int32_t failed, stop;
};

struct evaluation {
    const struct train_context *c;
    enum pack_group group;
    int32_t max_tokens;
    bool share_prefix;
    double deadline_s;
    int64_t n_rows;
    double loss_sum, n_labels; /* rank 0 */
    struct rows rows;
    struct buf *parts, inbox; /* parts [world_size], rank 0 */
};

static enum status part_make(struct evaluation *e, int64_t first, struct buf *out, struct err *err)
{
    int64_t index[EVAL_ROWS], n = 0;
    struct shard shard = {0};
    for (int64_t row = first; row < e->n_rows && n < EVAL_ROWS; row++)
        index[n++] = row;
    struct step_head head = {.step = first, .n_rows = n};
    buf_clear(out);
    TRY(rows__read(&e->rows, e->c->pack, e->group, index, n, err));
    if (n > 0)
        TRY(shard_make(&shard, e->rows.items, (int32_t)n, 0, e->max_tokens, e->share_prefix, err));
    enum status st = step_write(out, &head, &shard, n > 0, err);
    shard_release(&shard);
    return st;
}

static enum status run_sequences(const struct evaluation *e, struct report *report, struct err *err)
{
    struct step_head head;
    struct shard *shards = NULL;
    int32_t n_shards = 0;
    TRY(step_read(&e->inbox, &head, &shards, &n_shards, err));
    enum status st = ST_OK;
    for (int32_t s = 0; s < n_shards; s++) {
        for (int32_t i = 0; i < shards[s].n_sequences && st == ST_OK; i++) {
            const struct packed *p = &shards[s].sequences[i];
            report->n_labels += p->n_labels;
            if (p->n_labels > 0)
                st = model_loss(e->c->model, p, 0, NULL, &report->loss_sum, NULL, err);
        }
        shard_release(&shards[s]);
    }
    free(shards);
    return st;
}

/* Rank 0: adds the reports in the order of the shards. */
static enum verdict take_reports(struct evaluation *e)
{
    enum verdict v = GO_ON;
    for (int r = 0; r < e->c->comm->world_size; r++) {
        struct report report;
        memcpy(&report, e->parts[r].data, sizeof report);
        e->loss_sum += report.loss_sum;
        e->n_labels += report.n_labels;
        if (report.failed)
            v = FAILED;
        else if (report.stop && v == GO_ON)
            v = STOP;
    }
    return v;
}

/* One shard for each rank, from row `first` on. */
static enum status round_run(struct evaluation *e, int64_t first, struct err *err)
{
    struct comm *comm = e->c->comm;
    struct report report = {0};
    enum status st = ST_OK;
    for (int r = 0; r < comm->world_size && comm->rank == 0; r++) {
        if (st == ST_OK)
            st = part_make(e, first + (int64_t)r * EVAL_ROWS, &e->parts[r], err);
        if (st != ST_OK)
            buf_clear(&e->parts[r]); /* an empty message: this rank fails, so all will */
    }
    TRY(comm->ops->scatter(comm, e->parts, &e->inbox, NULL));
    report.stop = train__stop_asked(e->deadline_s);
    if (st == ST_OK && e->inbox.n_bytes > 0 && !report.stop)
        st = run_sequences(e, &report, err);
    report.failed = st != ST_OK;
    TRY(comm->ops->gather(comm, &report, sizeof report, e->parts, NULL));
    int32_t verdict = comm->rank == 0 ? (int32_t)take_reports(e) : 0;
    TRY(comm->ops->bcast(comm, 0, &verdict, sizeof verdict, NULL));
    if (verdict == FAILED)
        return comm_agree(comm, st, err);
    return verdict == STOP ? err_set(err, ST_STOPPED, "stopped during evaluation") : ST_OK;
}

enum status train__evaluate(const struct train_context *c, enum pack_group group, int32_t max_pack_tokens,
                            bool share_prefix, double deadline_s, double *loss_mean, int64_t *n_labels,
                            struct err *err)
{
    struct comm *comm = c->comm;
    struct evaluation e = {.c = c,
                           .group = group,
                           .max_tokens = max_pack_tokens,
                           .share_prefix = share_prefix,
                           .deadline_s = deadline_s,
                           .n_rows = c->pack_info.n_rows[group]};
    enum status st = ST_OK;
    model_set_reuse(c->model, share_prefix);
    e.parts = calloc((size_t)comm->world_size, sizeof *e.parts);
    if (e.parts == NULL)
        st = err_memory(err, "messages of an evaluation", (size_t)comm->world_size * sizeof *e.parts);
    st = comm_agree(comm, st, err);
    for (int64_t row = 0; row < e.n_rows && st == ST_OK; row += (int64_t)comm->world_size * EVAL_ROWS)
        st = round_run(&e, row, err);
    double totals[2] = {e.loss_sum, e.n_labels};
    if (st == ST_OK)
        st = comm->ops->bcast(comm, 0, totals, sizeof totals, err);
    if (st == ST_OK) {
        *n_labels = (int64_t)totals[1];
        *loss_mean = totals[1] > 0 ? totals[0] / totals[1] : NAN;
    }
    for (int r = 0; e.parts != NULL && r < comm->world_size; r++)
        buf_release(&e.parts[r]);
    free(e.parts);
    buf_release(&e.inbox);
    rows__release(&e.rows);
    return st;
}

enum status train_evaluate(const struct train_context *c, enum pack_group group, int32_t max_pack_tokens,
                           bool share_prefix, double *loss_mean, int64_t *n_labels, struct err *err)
{
    return train__evaluate(c, group, max_pack_tokens, share_prefix, 0, loss_mean, n_labels, err);
}
