/* What bench and plan need of the training room: what steps hold, what a run keeps, steps without a trace. */
#include "train_internal.h"
#include "util/clock.h"
#include <stdlib.h>

/* What a rank does with its rows. */
struct counting {
    struct train_load *out;
    const struct params *params;
    bool share;
    int64_t n_stem;
    struct shard before;       /* the last shard with labels */
    const struct packed *last; /* its last sequence that was run; NULL: none yet, or nothing is shared */
};

/* Counts the sequences that are run, those with labels. Takes the shard. */
static void count_shard(struct counting *n, struct shard *shard)
{
    struct model_load *load = n->share ? &n->out->shared : &n->out->apart;
    const struct packed *last = n->last;
    for (int32_t i = 0; i < shard->n_sequences; i++) {
        if (shard->sequences[i].n_labels == 0)
            continue;
        model_load_add(load, &shard->sequences[i], last, n->n_stem, n->out->arch, n->params);
        if (n->share)
            last = &shard->sequences[i];
    }
    shard_release(last != n->last ? &n->before : shard);
    if (last != n->last)
        n->before = *shard;
    n->last = last;
}

/* One step's rows as the shards of a rank, which come one after the other; counted and dropped. */
static enum status count_rank(struct train_load *out, const struct train_context *c,
                              const struct train_options *o, const struct rows *rows,
                              const int32_t *first_row, int rank, bool share, struct err *err)
{
    struct counting n = {.out = out, .params = c->params, .share = share};
    enum status st = ST_OK;
    int s, end_shard;
    if (share)
        n.n_stem = train__stem(rows->items, (int32_t)rows->n, o->virtual_shards,
                               train__most_stem(out->arch, c->params));
    tree_sum_range(o->virtual_shards, c->comm->world_size, rank, &s, &end_shard);
    for (; s < end_shard && st == ST_OK; s++) {
        struct shard shard = {0};
        int32_t first = first_row[s], end = first_row[s + 1];
        if (first == end)
            continue;
        st = shard_make(&shard, rows->items + first, end - first, first, o->max_pack_tokens, share, err);
        if (st == ST_OK)
            count_shard(&n, &shard);
    }
    if (n.last != NULL)
        model_load_stem(&out->shared, n.last, n.n_stem, out->arch, c->params);
    out->longest_stem = n.n_stem > out->longest_stem ? n.n_stem : out->longest_stem;
    shard_release(&n.before);
    return st;
}

static enum status count_step(struct train_load *out, const struct train_context *c,
                              const struct train_options *o, const struct rows *rows, struct err *err)
{
    const int32_t n_rows = (int32_t)rows->n;
    int32_t *first_row = calloc((size_t)o->virtual_shards + 1, sizeof *first_row);
    enum status st = first_row ? ST_OK : err_memory(err, "the shards of a step", 0);
    for (int share = 0; share <= 1 && st == ST_OK; share++) {
        if (share)
            step_sort(rows->items, n_rows);
        step_deal(rows->items, n_rows, o->virtual_shards, share, first_row);
        for (int rank = 0; rank < c->comm->world_size && st == ST_OK; rank++)
            st = count_rank(out, c, o, rows, first_row, rank, share, err);
    }
    free(first_row);
    return st;
}

static enum status count_steps(struct train_load *out, const struct train_context *c,
                               const struct train_options *o, struct plan *plan, int64_t first, int64_t every,
                               int64_t n, struct err *err)
{
    struct rows rows = {0};
    int64_t *index = calloc((size_t)o->batch_train * (size_t)o->grad_accum, sizeof *index);
    enum status st = index != NULL ? ST_OK : err_memory(err, "the rows of a step", 0);
    for (int64_t i = 0; i < n && st == ST_OK; i++) {
        int32_t n_rows = 0;
        st = plan_step(plan, first + i * every, index, &n_rows, err);
        if (st == ST_OK)
            st = rows__read(&rows, c->pack, PACK_TRAIN, index, n_rows, err);
        if (st == ST_OK)
            st = count_step(out, c, o, &rows, err);
        out->n_rows += n_rows;
        out->n_tokens += rows.n_tokens;
        out->n_steps++;
    }
    rows__release(&rows);
    free(index);
    return st;
}

enum status train_count(struct train_load *out, const struct train_context *c, const struct train_options *o,
                        const struct arch *a, int64_t first, int64_t n, int64_t most, struct err *err)
{
    struct plan plan = {0};
    *out = (struct train_load){.arch = a};
    TRY(plan_init(&plan, c->pack_info.n_rows[PACK_TRAIN], o->batch_train, o->grad_accum, o->seed, o->shuffle,
                  o->epochs, o->max_steps, err));
    out->max_steps = plan.max_steps;
    if (n < 0 || n > plan.max_steps - first)
        n = plan.max_steps - first;
    int64_t every = n > most ? (n + most - 1) / most : 1;
    enum status st = count_steps(out, c, o, &plan, first, every, (n + every - 1) / every, err);
    plan_release(&plan);
    return st;
}

enum status train_count_eval(int64_t *longest, const struct train_context *c, const struct train_options *o,
                             struct err *err)
{
    const int64_t n_rows = c->pack_info.n_rows[PACK_EVAL];
    struct rows rows = {0};
    enum status st = ST_OK;
    *longest = 0;
    for (int64_t first = 0; first < n_rows && st == ST_OK; first += EVAL_ROWS) {
        int64_t index[EVAL_ROWS], n = 0;
        struct shard shard = {0};
        while (n < EVAL_ROWS && first + n < n_rows) {
            index[n] = first + n;
            n++;
        }
        st = rows__read(&rows, c->pack, PACK_EVAL, index, n, err);
        if (st == ST_OK)
            st = shard_make(&shard, rows.items, (int32_t)n, 0, o->max_pack_tokens, o->share_prefix, err);
        for (int32_t i = 0; i < shard.n_sequences; i++)
            if (shard.sequences[i].n_labels > 0 && shard.sequences[i].n_tokens > *longest)
                *longest = shard.sequences[i].n_tokens;
        shard_release(&shard);
    }
    rows__release(&rows);
    return st;
}

enum status train_memory(struct train_memory *out, const struct params *p, int64_t n_stem_values,
                         int32_t virtual_shards, int world_size, int rank, struct err *err)
{
    const size_t n_bytes = (size_t)p->n_values * sizeof(float);
    const int64_t n_sums = p->n_values + n_stem_values;
    /* The sums are laid out by numbers of ranks alone. */
    struct comm of_size = {.world_size = world_size, .rank = rank};
    struct tree_sum *sum = NULL;
    TRY(tree_sum_open(&sum, &of_size, n_sums, virtual_shards, err));
    *out = (struct train_memory){.values = n_bytes,
                                 .moments = 2 * n_bytes,
                                 .gradient = world_size > 1 ? (size_t)n_sums * sizeof(float) : 0,
                                 .sums = tree_sum_memory(sum),
                                 .save_copy = rank == 0 ? 3 * n_bytes : 0};
    tree_sum_close(sum);
    return ST_OK;
}

enum status train_measure(const struct train_context *c, const struct train_options *o, int64_t n_steps,
                          const struct train_watch *watch, struct err *err)
{
    struct trainer t;
    enum status st = comm_agree(c->comm, trainer__open(&t, c, o, err), err);
    if (st == ST_OK && n_steps > t.plan.max_steps) {
        st = err_set(err, ST_USAGE, "%lld steps are asked for, the stage has %lld", (long long)n_steps,
                     (long long)t.plan.max_steps);
        err_hint(err, "set max_steps or the stage's epochs higher");
    }
    while (st == ST_OK && t.step < n_steps) {
        struct step_result r;
        struct train_step s = {.step = t.step + 1};
        watch->before(watch->user, s.step);
        s.begin_s = clock_s();
        st = trainer__step(&t, &r, err);
        if (st == ST_OK && r.stopped)
            st = err_set(err, ST_STOPPED, "stopped by a signal");
        if (st != ST_OK)
            break;
        s.end_s = clock_s();
        s.loss = r.loss;
        s.grad_norm = r.grad_norm;
        s.n_rows = r.head.n_rows;
        s.n_tokens = r.head.n_tokens;
        s.n_labels = r.head.n_labels;
        watch->after(watch->user, &s);
    }
    trainer__close(&t);
    return st;
}
