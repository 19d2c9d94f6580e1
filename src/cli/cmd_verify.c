/* Comparison with recorded reference runs. */
#include "cli_internal.h"
#include "golden.h"
#include "ranks.h"
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
    char out_dir[] = "/tmp/smgpt-verify-XXXXXX";
    TRY(argument_needed("--against", dir, err));
    if (!mkdtemp(out_dir))
        return err_errno(err, ST_ENV, "cannot make a temporary directory '%s'", out_dir);
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

int cmd_verify(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options o;
    const char *dir = NULL, *json = NULL;
    const struct argument items[] = {
        {.name = "--against", .kind = ARG_TEXT, .value = &dir},
        {.name = "--json", .kind = ARG_TEXT, .value = &json},
    };
    struct arguments a = {.items = items, .n_items = sizeof items / sizeof *items, .options = &o};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        st = run(&o, dir, json, &err);
    return cli_end(st, &err);
}
