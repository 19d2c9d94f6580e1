/* What the measuring commands share: products at full speed, growth of the cost, the report. */
#ifndef SMGPT_CLI_BENCH_H
#define SMGPT_CLI_BENCH_H

#include "ops/timing.h"
#include "stages.h"
#include <jansson.h>

/* ---- bench_gemm.c: how fast this machine multiplies now ---- */
#define BENCH_MAX_RATES 24
struct bench_rate {
    int64_t n_out, n_in, n_tokens;
    bool back;     /* linear_back */
    double gflops; /* of all ranks, measured at the same time */
};
struct bench_rates {
    struct bench_rate items[BENCH_MAX_RATES];
    int n;
    double best_gflops;
};
/* The products of the first layer's projections and of a square matrix, each with many tokens and operands
 * that stay in the caches, on all ranks together. Collective. */
enum status bench_gemm(struct bench_rates *out, const struct assembly *s, struct err *err);

/* The square matrix alone: needs no weights. Collective. */
enum status bench_gemm_square(struct bench_rates *out, const struct assembly *s, struct err *err);

/* ---- bench_growth.c: what a forward and backward pass costs as its input grows ---- */
/* An array of {kind, value, rows, tokens, computed_tokens, labels, seconds[, seconds_apart]}; NULL on
 * failure. Made-up rows on the real weights; one rank. */
json_t *bench_growth(const struct assembly *s, struct err *err);

/* ---- bench_report.c ---- */
#define BENCH_MAX_STEPS 1000
#define BENCH_MAX_OPS   128
struct bench_rank { /* of each rank, gathered */
    int64_t peak_rss_bytes, pss_bytes;
    double own_cpu_s;
};
struct bench_result {
    const struct stage_ready *stage;
    int64_t n_warmup, n_steps;
    struct train_step steps[BENCH_MAX_STEPS]; /* counted ones */
    double first_step_s, first_step_done_s;   /* since exec of rank 0 */
    double window_s, other_cpu_s;             /* of the counted steps; what other processes used meanwhile */
    struct op_time ops[BENCH_MAX_OPS];        /* of rank 0, over the counted steps */
    int n_ops;
    struct train_load load; /* of the counted steps */
    struct bench_rates rates;
    struct bench_rank *ranks; /* [world_size] */
    json_t *growth;           /* or NULL */
};
/* New reference; NULL when memory is short. Rank 0. */
json_t *bench_json(const struct bench_result *r, const struct options *o);
/* Tables for people, on stdout. */
void bench_print(const json_t *report);

#endif
