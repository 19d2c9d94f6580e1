/* Comparison with recorded reference runs, and with a run's own earlier steps. */
#include "cli_internal.h"
#include "golden.h"
#include "ranks.h"
#include "replay.h"
#include "util/file.h"
#include "util/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

/* Prints the table; how many measures are over their limit. */
static int print_result(const struct golden_result *r, json_t *out)
{
    int n_over = 0;
    printf("%-16s %12s %12s %12s %10s\n", "measure", "difference", "HF's noise", "limit", "compared");
    for (int i = 0; i < N_GOLDEN_MEASURES; i++) {
        if (!r->present[i])
            continue;
        bool over = !(r->difference[i] <= r->limit[i]);
        char noise[32] = "-";
        if (isfinite(r->noise[i]))
            snprintf(noise, sizeof noise, "%.2e", r->noise[i]);
        printf("%-16s %12.2e %12s %12.2e %10lld%s\n", golden_name((enum golden_measure)i), r->difference[i],
               noise, r->limit[i], (long long)r->count[i], over ? "  OVER" : "");
        n_over += over;
        json_object_set_new(out, golden_name((enum golden_measure)i),
                            json_pack("{s:o, s:o, s:f, s:I}", "difference", number(r->difference[i]), "noise",
                                      number(r->noise[i]), "limit", r->limit[i], "compared",
                                      (json_int_t)r->count[i]));
    }
    return n_over;
}

/* Ours must be no farther from float64 than transformers' bfloat16 without autocast. */
static int print_bf16(const struct golden_bf16 *r, json_t *out)
{
    int n_over = 0;
    printf("distance to the float64 run (rms / max)\n%-16s %23s %23s %23s\n", "measure", "ours",
           "HF bfloat16", "HF autocast");
    for (int i = 0; i < N_BF16_MEASURES; i++) {
        const struct golden_distance *a = &r->ours[i], *b = &r->theirs[0][i], *c = &r->theirs[1][i];
        bool over = !(a->rms <= b->rms && a->max <= b->max);
        printf("%-16s %11.2e / %8.2e %11.2e / %8.2e %11.2e / %8.2e%s\n",
               golden_bf16_name((enum bf16_measure)i), a->rms, a->max, b->rms, b->max, c->rms, c->max,
               over ? "  OVER" : "");
        n_over += over;
        json_object_set_new(out, golden_bf16_name((enum bf16_measure)i),
                            json_pack("{s:[o,o], s:[o,o], s:[o,o]}", "ours", number(a->rms), number(a->max),
                                      "bf16", number(b->rms), number(b->max), "bf16_autocast", number(c->rms),
                                      number(c->max)));
    }
    return n_over;
}

static enum status compare(struct options *o, struct comm *comm, const char *dir, const char *out_dir,
                           json_t *out, int *n_over, struct err *err)
{
    if (strcmp(o->compute, "bfloat16") == 0) {
        struct golden_bf16 result;
        TRY(golden_check_bf16(dir, out_dir, comm, o, &result, err));
        *n_over = print_bf16(&result, out);
        return ST_OK;
    }
    struct golden_result result;
    TRY(golden_check(dir, out_dir, comm, o, &result, err));
    *n_over = print_result(&result, out);
    return ST_OK;
}

static enum status run(struct options *o, const char *dir, const char *json, struct err *err)
{
    struct comm comm;
    char out_dir[PATH_BYTES];
    TRY(dir_make_temporary(out_dir, "smgpt-verify", err));
    TRY(ranks_open_self(&comm, o, err));
    json_t *out = json_object();
    int n_over = 0;
    enum status st = compare(o, &comm, dir, out_dir, out, &n_over, err);
    dir_remove(out_dir, NULL);
    comm_close(&comm);
    if (st == ST_OK && json)
        st = json_write_file(json, out, false, err);
    json_decref(out);
    if (st == ST_OK && n_over)
        st = err_set(err, ST_DEFECT, "%d measures are over their limits", n_over);
    return st;
}

static enum status run_replay(struct options *o, const char *checkpoint, int64_t n_steps, struct err *err)
{
    struct comm comm;
    struct replay_result result;
    TRY(ranks_open(&comm, o, err));
    enum status st = replay_checkpoint(&comm, o, checkpoint, n_steps, &result, err);
    if (st == ST_OK && comm.rank == 0)
        printf("steps %lld to %lld: %s%s\n", (long long)result.from_step + 1, (long long)result.to_step,
               result.equal ? "equal" : "DIFFERENT: ", result.difference);
    if (st == ST_OK && !result.equal) {
        st = err_set(err, ST_ENV, "%s is not what this machine computes: %s", checkpoint, result.difference);
        err_hint(err, "another kind of processor needs cpu_path pinned to a path that both have; else "
                      "suspect the hardware");
    }
    ranks_close(&comm, st, err);
    return st;
}

static enum status run_either(struct options *o, const char *dir, const char *resume, int64_t n_steps,
                              const char *json, struct err *err)
{
    if (!dir == !resume)
        return err_set(err, ST_USAGE, "give either --against DIR or --resume CHECKPOINT");
    return resume ? run_replay(o, resume, n_steps, err) : run(o, dir, json, err);
}

int cmd_verify(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    const char *dir = NULL, *json = NULL, *resume = NULL;
    int64_t n_steps = 0;
    const struct argument items[] = {
        {.name = "--against", .kind = ARG_TEXT, .value = &dir},
        {.name = "--resume", .kind = ARG_TEXT, .value = &resume},
        {.name = "--steps", .kind = ARG_INTEGER, .value = &n_steps, .min = 1, .max = INT64_MAX},
        {.name = "--json", .kind = ARG_TEXT, .value = &json},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items, .options = &o};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run_either(&o, dir, resume, n_steps, json, &err);
    return cli_end(st, &err);
}
