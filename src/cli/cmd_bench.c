/* Speed of training on this machine: real steps on real rows, each operation timed, and the rate of products
 * measured beside it. */
#include "bench.h"
#include "cli_internal.h"
#include "machine.h"
#include "ranks.h"
#include "util/clock.h"
#include "util/json.h"
#include "util/log.h"

#include <stdlib.h>
#include <string.h>

struct bench {
    struct bench_result r;
    const struct options *o;
    const char *json;
    bool growth;
    double busy_s, own_s; /* when the counted steps began */
};

static void before_step(void *user, int64_t step)
{
    struct bench *b = user;
    if (step == 1)
        b->r.first_step_s = machine_process_age_s();
    if (step != b->r.n_warmup + 1)
        return;
    ops_timing_reset();
    b->busy_s = machine_busy_s();
    b->own_s = machine_own_cpu_s();
    b->r.window_s = clock_s();
}

static void after_step(void *user, const struct train_step *s)
{
    struct bench *b = user;
    struct bench_result *r = &b->r;
    if (s->step == 1)
        r->first_step_done_s = machine_process_age_s();
    log_progress(s->step == r->n_warmup + r->n_steps, "step %lld%s  %.3f s  loss %.4f", (long long)s->step,
                 s->step <= r->n_warmup ? " (not counted)" : "", s->end_s - s->begin_s, s->loss);
    if (s->step > r->n_warmup)
        r->steps[s->step - r->n_warmup - 1] = *s;
    if (s->step != r->n_warmup + r->n_steps)
        return;
    r->n_ops = ops_timing_read(r->ops, BENCH_MAX_OPS);
    r->window_s = clock_s() - r->window_s;
    b->busy_s = machine_busy_s() - b->busy_s;
    b->own_s = machine_own_cpu_s() - b->own_s;
}

/* A new adapter's values on all ranks. */
static enum status start_values(const struct assembly *s, const struct options *o, struct err *err)
{
    size_t n_bytes = (size_t)s->params.n_values * sizeof(float);
    float *host = malloc(n_bytes + 1);
    enum status st = comm_agree(s->comm, host ? ST_OK : err_memory(err, "the start values", n_bytes), err);
    if (st == ST_OK && s->comm->rank == 0)
        params_start(&s->params, &s->arch, &s->weights.embed, &s->weights.head, (uint64_t)o->seed, host);
    if (st == ST_OK)
        st = s->comm->ops->bcast(s->comm, 0, host, n_bytes, err);
    if (st == ST_OK) {
        s->ops->upload(s->dev, s->values, host, n_bytes);
        s->ops->sync(s->dev);
    }
    free(host);
    return st;
}

/* What the ranks used, to rank 0. */
static enum status gather(struct bench *b, struct comm *comm, struct err *err)
{
    struct bench_rank mine = {peak_rss_bytes(), machine_pss_bytes(), b->own_s};
    struct buf *parts = comm->rank == 0 ? calloc((size_t)comm->world_size, sizeof *parts) : NULL;
    b->r.ranks = calloc((size_t)comm->world_size, sizeof *b->r.ranks);
    enum status st =
        b->r.ranks && (parts || comm->rank != 0) ? ST_OK : err_memory(err, "the ranks' figures", 0);
    TRY(comm_agree(comm, st, err));
    st = comm->ops->gather(comm, &mine, sizeof mine, parts, err);
    double own_s = 0;
    for (int i = 0; parts && i < comm->world_size; i++) {
        if (st == ST_OK)
            memcpy(&b->r.ranks[i], parts[i].data, sizeof mine);
        own_s += b->r.ranks[i].own_cpu_s;
        buf_release(&parts[i]);
    }
    free(parts);
    /* Ticks are coarse: a little below zero is zero. Of several hosts this one's would not be known. */
    double other = b->busy_s - own_s;
    b->r.other_cpu_s = other > 0 && comm->n_nodes == 1 ? other : 0;
    return st;
}

static enum status report(struct bench *b, struct err *err)
{
    json_t *j = bench_json(&b->r, b->o);
    enum status st = j ? ST_OK : err_memory(err, "the report", 0);
    if (st == ST_OK)
        bench_print(j);
    if (st == ST_OK && b->json)
        st = json_write_file(b->json, j, false, err);
    json_decref(j);
    return st;
}

static enum status measure(void *user, const struct stage_ready *stage, struct err *err)
{
    struct bench *b = user;
    struct bench_result *r = &b->r;
    struct comm *comm = stage->context->comm;
    struct train_watch watch = {.before = before_step, .after = after_step, .user = b};
    r->stage = stage;
    TRY(start_values(stage->model, b->o, err));
    TRY(train_measure(stage->context, stage->options, r->n_warmup + r->n_steps, &watch, err));
    TRY(gather(b, comm, err)); /* before what else is measured takes memory of its own */
    enum status st = ST_OK;
    if (comm->rank == 0)
        st = train_count(&r->load, stage->context, stage->options, &stage->model->arch, r->n_warmup,
                         r->n_steps, r->n_steps, err);
    TRY(comm_agree(comm, st, err));
    TRY(bench_gemm(&r->rates, stage->model, err));
    if (b->growth) {
        r->growth = bench_growth(stage->model, err);
        if (!r->growth)
            return err->status;
    }
    return comm_agree(comm, comm->rank == 0 ? report(b, err) : ST_OK, err);
}

static enum status run(struct bench *b, struct options *o, int stage, struct err *err)
{
    struct comm comm;
    struct stages_request request = {.options = o,
                                     .first_stage = stage,
                                     .last_stage = stage,
                                     .resume = RESUME_NONE,
                                     .instead = measure,
                                     .instead_user = b,
                                     .start_s = clock_s()};
    stop_install();
    ops_timing_install(strcmp(o->cpu_path, "reference") == 0 ? "reference" : "cpu");
    TRY(ranks_open(&comm, o, err));
    enum status st = ST_OK;
    if (b->growth && comm.world_size > 1)
        st = err_set(err, ST_USAGE, "--growth is measured on one rank");
    if (st == ST_OK)
        st = stages_run(&comm, &request, err);
    ranks_close(&comm, st, err);
    return st;
}

int cmd_bench(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    struct bench *b = calloc(1, sizeof *b);
    const char *stage = "2";
    if (!b)
        return cli_end(err_memory(&err, "a measurement", sizeof *b), &err);
    b->o = &o;
    b->r.n_warmup = 1;
    b->r.n_steps = 3;
    const struct argument items[] = {
        {.name = "--stage", .kind = ARG_CHOICE, .value = &stage, .words = "1|2|3"},
        {.name = "--steps", .kind = ARG_INTEGER, .value = &b->r.n_steps, .min = 1, .max = BENCH_MAX_STEPS},
        {.name = "--warmup", .kind = ARG_INTEGER, .value = &b->r.n_warmup, .min = 0, .max = BENCH_MAX_STEPS},
        {.name = "--growth", .kind = ARG_FLAG, .value = &b->growth},
        {.name = "--json", .kind = ARG_TEXT, .value = &b->json},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items, .options = &o};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run(b, &o, stage[0] - '0', &err);
    json_decref(b->r.growth);
    free(b->r.ranks);
    free(b);
    return cli_end(st, &err);
}
