/* What a run would take: memory, steps, tokens, and the least time. */
#include "bench.h"
#include "cli_internal.h"
#include "machine.h"
#include "memory_plan.h"
#include "ranks.h"
#include "util/clock.h"
#include "util/json.h"
#include "util/log.h"

#include <stdio.h>

/* Steps of a stage that are looked at; of longer stages an even sample. */
#define MOST_STEPS 256

struct planner {
    int64_t n_ranks, n_local;
    int64_t limit; /* bytes of a host */
    const char *json;
    size_t program;           /* resident before anything was opened */
    struct bench_rates rates; /* measured once */
    json_t *memory, *stages;  /* memory: of the stage that takes most */
    size_t peak;              /* of that one */
};

static double mib(size_t n_bytes)
{
    return (double)n_bytes / 1048576;
}

static void print_memory(const struct memory_plan *m, const struct planner *p)
{
    const struct train_memory *t = &m->train;
    printf("  a host    weights %.0f MiB, packed forms %.0f MiB (%.0f MiB of the weights go back then)\n",
           mib(m->weights), mib(m->weights_packed), mib(m->weights_unused));
    printf(
        "  a rank    activations %.0f MiB (room for sequences of %lld tokens), values %.0f, gradient %.0f,\n"
        "            sums over shards %.0f, moments %.0f; a copy while saving %.0f\n",
        mib(m->workspace), (long long)m->room_tokens, mib(t->values), mib(t->gradient), mib(t->sums),
        mib(t->moments), mib(t->save_copy));
    const bool again = m->n_again > 0;
    printf("            activations of all %d layers kept %.0f MiB, all computed again %.0f MiB; chosen: %s",
           m->n_layers, mib(m->workspace_kept), mib(m->workspace_again), again ? "" : "kept\n");
    if (again)
        printf("%d layers computed again\n", m->n_again);
    printf("  peak      rank 0 %.0f MiB (reading %.0f, training %.0f), another rank %.0f MiB, "
           "a host of\n            %lld ranks %.0f MiB; memory_limit is %.0f MiB%s\n",
           mib(m->peak_rank0), mib(m->reading), mib(m->training), mib(m->peak_other), (long long)p->n_local,
           mib(m->host), mib((size_t)p->limit), m->fits ? "" : ", too little for it");
}

static json_t *bytes(size_t n)
{
    return json_integer((json_int_t)n);
}

/* Steals the values; NULL when memory is short. */
static json_t *memory_json(const struct memory_plan *m)
{
    const struct train_memory *t = &m->train;
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:i, s:i, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
        "s:o, s:o, s:o, s:o, s:o}",
        "weights_bytes", bytes(m->weights), "weights_packed_bytes", bytes(m->weights_packed),
        "weights_unused_bytes", bytes(m->weights_unused), "weight_files_bytes", bytes(m->weight_files),
        "room_tokens", (json_int_t)m->room_tokens, "workspace_bytes", bytes(m->workspace),
        "workspace_kept_bytes", bytes(m->workspace_kept), "workspace_again_bytes", bytes(m->workspace_again),
        "layers", (int)m->n_layers, "layers_again", (int)m->n_again, "fits", (int)m->fits, "needed_bytes",
        bytes(m->needed), "values_bytes", bytes(t->values), "gradient_bytes", bytes(t->gradient),
        "sums_bytes", bytes(t->sums), "moments_bytes", bytes(t->moments), "save_copy_bytes",
        bytes(t->save_copy), "program_bytes", bytes(m->program), "rank0_extra_bytes", bytes(m->rank0_extra),
        "reading_bytes", bytes(m->reading), "training_bytes", bytes(m->training), "peak_rank0_bytes",
        bytes(m->peak_rank0), "peak_other_bytes", bytes(m->peak_other), "host_bytes", bytes(m->host));
}

static json_t *load_json(const struct train_load *l, const struct model_load *m, const struct assembly *s)
{
    struct model_flops f;
    double n = (double)l->n_steps;
    model_flops(&f, &s->arch, &s->params, m);
    return json_pack("{s:f, s:I, s:f, s:f}", "computed_tokens_a_step", (double)model_load_computed(m) / n,
                     "longest_sequence", (json_int_t)m->longest, "sequences_a_step",
                     (double)m->n_sequences / n, "gflop_a_step", f.total / n * 1e-9);
}

/* The least hours of a stage at the best rate, computed as share_prefix says. */
static double least_hours(const struct train_load *l, const struct model_load *m, const struct assembly *s,
                          const struct bench_rates *rates)
{
    struct model_flops f;
    model_flops(&f, &s->arch, &s->params, m);
    return f.total / (double)l->n_steps * (double)l->max_steps / (rates->best_gflops * 1e9) / 3600;
}

static enum status add_stage(struct planner *p, const struct stage_ready *stage, const struct train_load *l,
                             struct err *err)
{
    const struct assembly *s = stage->model;
    const struct model_load *run = stage->options->share_prefix ? &l->shared : &l->apart;
    double n = (double)l->n_steps, hours = least_hours(l, run, s, &p->rates);
    printf("stage %d\n  work      %lld steps of %.1f rows; a step %.0f tokens, %.0f computed with shared "
           "prefixes, %.0f without;\n            %.0f labels%s\n",
           stage->options->stage, (long long)l->max_steps, (double)l->n_rows / n, (double)l->n_tokens / n,
           (double)model_load_computed(&l->shared) / n, (double)model_load_computed(&l->apart) / n,
           (double)run->n_labels / n, l->n_steps < l->max_steps ? " (of a sample of the steps)" : "");
    printf("  time      not under %.2f hours on one rank at %.0f GFLOP/s; adapter %.1f MiB, checkpoint about "
           "%.1f MiB\n",
           hours, p->rates.best_gflops, mib(4 * (size_t)s->params.n_values),
           mib(12 * (size_t)s->params.n_values));
    json_t *j =
        json_pack("{s:i, s:I, s:I, s:f, s:f, s:f, s:b, s:o, s:o, s:f, s:f}", "stage",
                  (int)stage->options->stage, "steps", (json_int_t)l->max_steps, "steps_looked_at",
                  (json_int_t)l->n_steps, "rows_a_step", (double)l->n_rows / n, "tokens_a_step",
                  (double)l->n_tokens / n, "labels_a_step", (double)run->n_labels / n, "share_prefix",
                  (int)stage->options->share_prefix, "shared", load_json(l, &l->shared, s), "apart",
                  load_json(l, &l->apart, s), "ceiling_gflops", p->rates.best_gflops, "least_hours", hours);
    return json_array_append_new(p->stages, j) == 0 ? ST_OK : err_memory(err, "the plan", 0);
}

static enum status plan_stage(void *user, const struct stage_ready *stage, struct err *err)
{
    struct planner *p = user;
    struct train_load load;
    struct memory_plan m;
    struct memory_question q = {
        .n_ranks = (int)p->n_ranks, .n_local = (int)p->n_local, .program = p->program, .limit = p->limit};
    size_t now = (size_t)machine_rss_bytes();
    q.rank0_extra = now > p->program ? now - p->program : 0;
    if (p->rates.n == 0)
        TRY(bench_gemm_square(&p->rates, stage->model, err));
    TRY(train_count(&load, stage->context, stage->options, &stage->model->arch, 0, -1, MOST_STEPS, err));
    TRY(train_count_eval(&q.eval_longest, stage->context, stage->options, err));
    const struct model_load *run = stage->options->share_prefix ? &load.shared : &load.apart;
    q.train_longest = run->longest;
    q.n_positions = run->n_positions;
    q.stem = stage->options->share_prefix ? load.longest_stem : 0;
    TRY(memory_plan_make(&m, stage, &q, err));
    TRY(add_stage(p, stage, &load, err));
    print_memory(&m, p);
    if (p->memory && m.host <= p->peak)
        return ST_OK;
    json_decref(p->memory);
    p->memory = memory_json(&m);
    p->peak = m.host;
    return p->memory ? ST_OK : err_memory(err, "the plan", 0);
}

static enum status write_plan(const struct planner *p, const struct options *o, struct err *err)
{
    json_t *j = json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:O, s:O}", "format", 1, "version", SMGPT_VERSION,
                          "ranks", (json_int_t)p->n_ranks, "ranks_of_a_host", (json_int_t)p->n_local,
                          "threads", (json_int_t)o->threads, "memory_limit_bytes", (json_int_t)p->limit,
                          "memory", p->memory, "stages", p->stages);
    enum status st = j ? json_write_file(p->json, j, false, err) : err_memory(err, "the plan", 0);
    json_decref(j);
    return st;
}

static enum status run(struct planner *p, struct options *o, const char *stage, struct err *err)
{
    struct comm comm;
    struct stages_request request = {.options = o,
                                     .resume = RESUME_NONE,
                                     .instead = plan_stage,
                                     .instead_user = p,
                                     .shape_only = true,
                                     .start_s = clock_s()};
    if (p->n_local == 0)
        p->n_local = p->n_ranks;
    if (p->n_local > p->n_ranks)
        return err_set(err, ST_USAGE, "--ranks_of_a_host %lld of --ranks %lld", (long long)p->n_local,
                       (long long)p->n_ranks);
    TRY(memory_plan_limit(&p->limit, o, err));
    argument_stages(stage, &request.first_stage, &request.last_stage);
    p->stages = json_array();
    if (!p->stages)
        return err_memory(err, "the plan", 0);
    TRY(ranks_open_self(&comm, o, err));
    p->program = (size_t)machine_rss_bytes();
    enum status st = stages_run(&comm, &request, err);
    ranks_close(&comm, st, err);
    return st == ST_OK && p->json ? write_plan(p, o, err) : st;
}

int cmd_plan(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    struct planner p = {.n_ranks = 1};
    const char *stage = "all";
    const struct argument items[] = {
        {.name = "--stage", .kind = ARG_CHOICE, .value = &stage, .words = "1|2|3|all"},
        {.name = "--ranks", .kind = ARG_INTEGER, .value = &p.n_ranks, .min = 1, .max = 65536},
        {.name = "--ranks_of_a_host", .kind = ARG_INTEGER, .value = &p.n_local, .min = 1, .max = 65536},
        {.name = "--json", .kind = ARG_TEXT, .value = &p.json},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items, .options = &o};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run(&p, &o, stage, &err);
    json_decref(p.memory);
    json_decref(p.stages);
    return cli_end(st, &err);
}
